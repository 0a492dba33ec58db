/*
 * Goal:   slots of single neurons that are empty: what fills them, what a prompt leaves there, and when nothing does.
 * Method: the file of the test of the store, with units of whole pages and others; by every read method.
 */
#include "neuron_store_test.h"

#include "base/team.h"
#include "neuron_cache/unit_near.h"
#include "support/read_methods.h"
#include "support/temporary_files.h"

static void tell(void *user, const uint32_t *keys, uint32_t count) {
    (void)user;
    (void)keys;
    (void)count;
}

/* Several threads fill the shared memory too. What leaves with it does not come back by itself: these would be small
 * reads, mostly of what the next token does without. What that one wants is read then. */
static void shared_memory_comes_back_empty(void **state) {
    (void)state;
    enum { USED = 20 };
    pi2_team *team;
    setup s;
    const uint8_t *memory;
    pi2_store_counters before, after;
    assert_int_equal(pi2_pages_reserve(SHARED_BYTES, false, "shared", &shared), PI2_OK);
    assert_int_equal(pi2_team_create(3, NULL, &team), PI2_OK);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        if (!test_has_read_method(*method, path)) continue;
        assert_int_equal(try_open(*method, pi2_neuron_store_least_bytes(&banks) + 60 * 8192, &s), PI2_OK);
        pi2_neuron_store_open_shared(s.store);
        assert_true(pi2_neuron_store_wants_filling(s.store));
        assert_int_equal(pi2_neuron_store_fill(s.store, team), PI2_OK);
        assert_false(pi2_neuron_store_wants_filling(s.store));
        pi2_neuron_store_begin_pass(s.store, 1, 1);
        pi2_neuron_store_begin_layer(s.store);
        for (uint32_t u = 0; u < USED; u++) assert_non_null(pi2_neuron_store_hit(s.store, 0, u));
        pi2_neuron_store_begin_pass(s.store, 40, 40);
        pi2_neuron_store_close_shared(s.store); /* bank 0's first places were there */
        for (uint32_t u = 0; u < USED; u++) assert_null(pi2_neuron_store_hit(s.store, 0, u));
        for (uint32_t u = 0; u < USED; u++) pi2_neuron_store_warm(s.store, 0, u);
        pi2_neuron_store_open_shared(s.store);
        assert_false(pi2_neuron_store_wants_filling(s.store));
        pi2_store_count(s.way, &before);
        pi2_neuron_store_begin_layer(s.store);
        for (uint32_t u = 0; u < USED; u += 2) {
            assert_int_equal(pi2_neuron_store_take(s.store, 0, u, &memory), PI2_OK);
            assert_true(test_is_unit(&banks_list[0], memory, 0, u));
        }
        pi2_store_count(s.way, &after);
        assert_int_equal(after.reads - before.reads, USED / 2);
        for (uint32_t u = 0; u < USED; u++) {
            assert_true((pi2_neuron_store_hit(s.store, 0, u) != NULL) == (u % 2 == 0));
        }
        close_store(&s);
    }
    pi2_team_destroy(team);
    pi2_pages_release(shared, SHARED_BYTES);
    shared = NULL;
}

/* Of single neurons those are kept that fired for the prompt, wherever they lie in the file; a bank's share of them. */
static void warm_and_choose(const setup *s, uint32_t b, bool may_keep) {
    enum { WARM = 3 };
    const pi2_neuron_bank *bank = &banks_list[b];
    const uint32_t *place_of = pi2_neuron_store_head(s->store, b)->place_of;
    uint32_t with_place = 0;
    if (bank->unit_neurons > 1) {
        pi2_neuron_store_choose_kept(s->store, b, 0, bank->neuron_count); /* they had theirs before */
        return;
    }
    for (uint32_t n = 0; n < bank->neuron_count; n++) {
        assert_null(pi2_neuron_store_place(s->store, b, n));
        if (place_of[n] + WARM >= bank->neuron_count) pi2_neuron_store_warm(s->store, b, place_of[n]);
    }
    for (uint32_t n = 0; n < bank->neuron_count; n += 64) {
        pi2_neuron_store_choose_kept(s->store, b, n, n + 64 < bank->neuron_count ? n + 64 : bank->neuron_count);
    }
    for (uint32_t n = 0; n < bank->neuron_count; n++) {
        const bool has_place = pi2_neuron_store_place(s->store, b, n) != NULL;
        with_place += has_place;
        if (place_of[n] + WARM >= bank->neuron_count) assert_true(has_place == may_keep);
    }
    assert_true((with_place > WARM) == may_keep);
}

/* Writes all neurons of a bank that have a place, as the file has them. */
static void write_kept(const setup *s, FILE *file, uint32_t b, uint32_t left_out) {
    const pi2_neuron_bank *bank = &banks_list[b];
    for (uint32_t n = 0; n < bank->neuron_count; n++) {
        const uint32_t place = pi2_neuron_store_head(s->store, b)->place_of[n];
        uint8_t *to = pi2_neuron_store_place(s->store, b, n);
        if (!to) continue;
        const uint64_t at = bank->file_offset + (uint64_t)(place / bank->unit_neurons) * bank->unit_bytes +
                            (uint64_t)(place % bank->unit_neurons) * bank->bundle_bytes;
        assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
        assert_int_equal(fread(to, 1, bank->bundle_bytes, file), bank->bundle_bytes);
        if (place / bank->unit_neurons >= left_out) pi2_neuron_store_keep(s->store, b, n);
    }
}

/* A prompt that left nearly all that it was to has filled the store, shared memory or not; one that did not has not. */
static void a_prompt_that_leaves_all_fills(void **state) {
    (void)state;
    static const uint8_t may_keep[BANKS] = { 1, 1, 1, 1, 1 };
    const uint64_t all = pi2_neuron_store_all_bytes(&banks), least = pi2_neuron_store_least_bytes(&banks);
    setup s;
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(pi2_pages_reserve(SHARED_BYTES, false, "shared", &shared), PI2_OK);
    for (uint32_t left_out = 0; left_out < 32; left_out += 31) {
        assert_int_equal(try_open("auto", least + (all - least) / 2, &s), PI2_OK);
        pi2_neuron_store_begin_pass(s.store, 40, 40);
        assert_true(pi2_neuron_store_begin_keeping(s.store, may_keep));
        for (uint32_t b = 0; b < BANKS; b++) {
            const pi2_neuron_bank *bank = &banks_list[b];
            for (uint32_t n = 0; n < bank->neuron_count; n += 64) {
                const uint32_t end = n + 64 < bank->neuron_count ? n + 64 : bank->neuron_count;
                pi2_neuron_store_choose_kept(s.store, b, n, end);
            }
            write_kept(&s, file, b, left_out);
        }
        pi2_neuron_store_end_keeping(s.store);
        pi2_neuron_store_open_shared(s.store);
        assert_true(pi2_neuron_store_wants_filling(s.store) == (left_out > 0));
        close_store(&s);
    }
    pi2_pages_release(shared, SHARED_BYTES);
    shared = NULL;
    assert_int_equal(fclose(file), 0);
}

/* A pass of all neurons writes those that have a place: whole units that match are there afterwards without a read;
 * what is half written, or other bytes, is read when it is wanted. */
static void a_prompt_leaves_neurons(void **state) {
    (void)state;
    static const uint8_t may_keep[BANKS] = { 1, 0, 1, 0, 0 };
    setup s;
    pi2_store_counters before, after;
    pi2_neuron_store_counters counters;
    const uint64_t all = pi2_neuron_store_all_bytes(&banks), least = pi2_neuron_store_least_bytes(&banks);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    for (int half = 0; half < 2; half++) {
        assert_int_equal(try_open("auto", half ? least + (all - least) / 2 : all, &s), PI2_OK);
        pi2_store_count(s.way, &before);
        pi2_neuron_store_begin_pass(s.store, 40, 40);
        assert_null(pi2_neuron_store_place(s.store, 0, 0));
        assert_true(pi2_neuron_store_begin_keeping(s.store, may_keep));
        for (uint32_t b = 0; b < BANKS; b++) warm_and_choose(&s, b, may_keep[b]);
        uint32_t written[BANKS] = { 0 }, left_out[BANKS], bad[BANKS];
        for (uint32_t b = 0; b < BANKS; b++) {
            const pi2_neuron_bank *bank = &banks_list[b];
            left_out[b] = bad[b] = UINT32_MAX;
            for (uint32_t n = 0; n < bank->neuron_count; n++) {
                const uint32_t place = pi2_neuron_store_head(s.store, b)->place_of[n];
                uint8_t *to = pi2_neuron_store_place(s.store, b, n);
                assert_true(!to || may_keep[b]);
                if (!to) continue;
                assert_null(pi2_neuron_store_hit(s.store, b, place / bank->unit_neurons));
                const uint64_t at = bank->file_offset + (uint64_t)(place / bank->unit_neurons) * bank->unit_bytes +
                                    (uint64_t)(place % bank->unit_neurons) * bank->bundle_bytes;
                assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
                assert_int_equal(fread(to, 1, bank->bundle_bytes, file), bank->bundle_bytes);
                if (written[b] == 3) to[5] ^= 1;
                if (written[b] == 3) bad[b] = place / bank->unit_neurons;
                if (written[b]++ == 7) left_out[b] = place / bank->unit_neurons;
                else pi2_neuron_store_keep(s.store, b, n);
            }
            assert_true((written[b] > 8) == (may_keep[b] != 0));
            if (!half && may_keep[b]) assert_int_equal(written[b], bank->neuron_count);
        }
        pi2_neuron_store_end_keeping(s.store);
        pi2_store_count(s.way, &after);
        assert_int_equal(after.reads, before.reads);
        pi2_neuron_store_count(s.store, &counters);
        uint64_t hits = 0;
        pi2_neuron_store_begin_layer(s.store);
        for (uint32_t b = 0; b < BANKS; b++) {
            for (uint32_t u = 0; u < banks_list[b].unit_count; u++) {
                const uint8_t *memory = pi2_neuron_store_hit(s.store, b, u);
                hits += memory != NULL;
                if (u == left_out[b] || u == bad[b]) assert_null(memory);
                if (memory) assert_true(test_is_unit(&banks_list[b], memory, b, u));
            }
        }
        assert_true(hits > 16);
        assert_int_equal(counters.kept, hits);
        /* The rest is filled as ever, and a second prompt finds nothing to do. */
        assert_int_equal(pi2_neuron_store_fill(s.store, NULL), PI2_OK);
        if (!half) assert_non_null(pi2_neuron_store_hit(s.store, 0, left_out[0]));
        assert_false(pi2_neuron_store_begin_keeping(s.store, may_keep));
        for (uint32_t n = 0; n < banks_list[0].neuron_count; n++) assert_null(pi2_neuron_store_place(s.store, 0, n));
        pi2_neuron_store_end_keeping(s.store);
        close_store(&s);
    }
    assert_int_equal(fclose(file), 0);
}

static void flip(uint64_t offset) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    const int byte = fgetc(file);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    assert_int_not_equal(fputc(byte ^ 4, file), EOF);
    assert_int_equal(fclose(file), 0);
}

/* As another run told how near neurons were to firing, those are chosen, and are there without a byte that was read. */
static void a_simulated_prompt_leaves_what_was_near(void **state) {
    (void)state;
    static const uint8_t may_keep[BANKS] = { 1 };
    enum { FAR = 1, NEAR = 200, UNITS = 96 };
    uint8_t near[UNITS];
    uint32_t kept[2] = { 0 };
    setup s;
    pi2_store_counters before, after;
    const uint64_t all = pi2_neuron_store_all_bytes(&banks), least = pi2_neuron_store_least_bytes(&banks);
    assert_int_equal(banks_list[0].unit_count, UNITS);
    assert_int_equal(try_open("auto", least + (all - least) / 8, &s), PI2_OK);
    pi2_store_count(s.way, &before);
    pi2_neuron_store_begin_pass(s.store, 40, 40);
    for (uint32_t u = 0; u < UNITS; u++) near[u] = u % 2 ? NEAR : FAR;
    pi2_neuron_store_set_near(s.store, 0, near, UNITS);
    assert_true(pi2_neuron_store_begin_keeping(s.store, may_keep));
    pi2_neuron_store_choose_kept(s.store, 0, 0, UNITS);
    pi2_neuron_store_keep_chosen(s.store);
    pi2_neuron_store_end_keeping(s.store);
    pi2_neuron_store_begin_layer(s.store);
    for (uint32_t u = 0; u < UNITS; u++) kept[u % 2] += pi2_neuron_store_hit(s.store, 0, u) != NULL;
    assert_true(kept[1] > 10 && (kept[0] == 0 || kept[1] == UNITS / 2));
    pi2_store_count(s.way, &after);
    assert_int_equal(after.reads, before.reads);
    close_store(&s);
}

/* Damage that one of several threads meets while it fills is told by its own place; what is there then is good, and
 * the rest is read when it is wanted. */
static void a_filling_that_fails_leaves_what_is_good(void **state) {
    (void)state;
    enum { BAD = 17 };
    pi2_team *team;
    setup s;
    const uint8_t *memory;
    const uint64_t at = banks_list[1].file_offset + (uint64_t)BAD * banks_list[1].unit_bytes + 11;
    assert_int_equal(pi2_team_create(3, NULL, &team), PI2_OK);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        if (!test_has_read_method(*method, path)) continue;
        assert_int_equal(try_open(*method, pi2_neuron_store_all_bytes(&banks), &s), PI2_OK);
        flip(at);
        assert_int_equal(pi2_neuron_store_fill(s.store, team), PI2_ERR_FORMAT);
        assert_non_null(strstr(pi2_error_text(), "unit 17 "));
        flip(at);
        pi2_store_reset(s.way);
        pi2_neuron_store_begin_layer(s.store);
        assert_null(pi2_neuron_store_hit(s.store, 1, BAD));
        for (uint32_t b = 0; b < BANKS; b++) {
            for (uint32_t u = 0; u < banks_list[b].unit_count; u++) {
                memory = pi2_neuron_store_hit(s.store, b, u);
                if (memory) assert_true(test_is_unit(&banks_list[b], memory, b, u));
                assert_int_equal(pi2_neuron_store_take(s.store, b, u, &memory), PI2_OK);
                assert_true(test_is_unit(&banks_list[b], memory, b, u));
            }
        }
        close_store(&s);
    }
    pi2_team_destroy(team);
}

static void fine_units_are_as_good(void **state) {
    bundle_bytes = FINE;
    test_banks_write(path, banks_list, bundle_bytes);
    shared_memory_comes_back_empty(state);
    a_prompt_leaves_neurons(state);
    a_filling_that_fails_leaves_what_is_good(state);
    bundle_bytes = COARSE;
    test_banks_write(path, banks_list, bundle_bytes);
}

/* ---- how near units are to firing ---- */

static uint8_t near_units[96];

static void keep_near(void *user, const uint8_t *near, uint32_t count) {
    (void)user;
    assert_true(count <= sizeof near_units);
    memcpy(near_units, near, count);
}

/* It is the nearest of its neurons, whichever that is; and what is told anew in each pass alike stays as it is: one
 * Gate that is no number is nobody else's trouble, and earlier passes count no further. */
static void a_unit_is_as_near_as_its_nearest_neuron(void **state) {
    (void)state;
    enum { FIRST = 5, OTHER = 12, NO_NUMBER = 20, PASSES = 24 };
    setup s;
    const uint8_t *memory;
    uint8_t after_half[sizeof near_units];
    float gates[sizeof near_units];
    uint32_t b = 0;
    while (banks_list[b].unit_neurons == 1) b++;
    const uint32_t in_unit = banks_list[b].unit_neurons, count = banks_list[b].neuron_count;
    assert_true(in_unit == 3 && count <= sizeof near_units);
    told_user = &s;
    told_near = keep_near;
    rule = pi2_unit_rule_find("gate");
    assert_int_equal(try_open("auto", pi2_neuron_store_least_bytes(&banks) + 60 * 8192, &s), PI2_OK);
    const pi2_neuron_head *head = pi2_neuron_store_head(s.store, b);
    for (uint32_t n = 0; n < count; n++) {
        const uint32_t unit = head->place_of[n] / in_unit, place = head->place_of[n] % in_unit;
        gates[n] = unit == FIRST + place ? 1.5f : -1.0f;
        if (unit == NO_NUMBER && place == 0) gates[n] = 0.0f / 0.0f;
    }
    for (uint32_t pass = 0; pass < PASSES; pass++) {
        pi2_neuron_store_begin_pass(s.store, 1, 1);
        pi2_neuron_store_begin_layer(s.store);
        for (uint32_t n = 0; n < count; n++) pi2_neuron_store_tell_gates(s.store, b, n, 1, gates + n);
        if (!pi2_neuron_store_hit(s.store, b, OTHER)) { /* layers that use nothing are not told of */
            assert_int_equal(pi2_neuron_store_take(s.store, b, OTHER, &memory), PI2_OK);
        }
        pi2_neuron_store_note(s.store, b, 1, 0);
        pi2_neuron_store_begin_layer(s.store);
        if (pass == PASSES / 2) memcpy(after_half, near_units, sizeof near_units);
    }
    for (uint32_t i = 0; i < in_unit; i++) {
        assert_int_equal(near_units[FIRST + i], near_units[FIRST]);
        assert_true(near_units[FIRST + i] > PI2_NEAR_ZERO + PI2_NEAR_STEPS + 4); /* by the layer's mean, not its own */
        assert_true(near_units[OTHER] < PI2_NEAR_ZERO);
    }
    assert_int_equal(near_units[NO_NUMBER], near_units[OTHER]); /* its others' */
    assert_memory_equal(near_units, after_half, banks_list[b].unit_count);
    close_store(&s);
    told_user = NULL;
    told_near = NULL;
    rule = NULL;
}

/* How near a bank's units are after passes that told `at_once` Gates together: so many that the first one counts no
 * more, which knows the mean of those alone that are told together. */
static void near_after_passes(uint32_t b, const float *gates, uint32_t at_once, uint32_t neuron, uint8_t *near_out,
                              uint32_t *unit_of_neuron_out) {
    enum { PASSES = 16 };
    setup s;
    const uint8_t *memory;
    const uint32_t count = banks_list[b].neuron_count;
    told_user = &s;
    told_near = keep_near;
    rule = pi2_unit_rule_find("gate");
    assert_int_equal(try_open("auto", pi2_neuron_store_least_bytes(&banks) + 60 * 8192, &s), PI2_OK);
    for (uint32_t pass = 0; pass < PASSES; pass++) {
        pi2_neuron_store_begin_pass(s.store, 1, 1);
        pi2_neuron_store_begin_layer(s.store);
        for (uint32_t n = 0; n < count; n += at_once) {
            pi2_neuron_store_tell_gates(s.store, b, n, count - n < at_once ? count - n : at_once, gates + n);
        }
        if (!pi2_neuron_store_hit(s.store, b, 0)) {
            assert_int_equal(pi2_neuron_store_take(s.store, b, 0, &memory), PI2_OK);
        }
        pi2_neuron_store_note(s.store, b, 1, 0);
        pi2_neuron_store_begin_layer(s.store);
    }
    memcpy(near_out, near_units, sizeof near_units);
    *unit_of_neuron_out = pi2_neuron_store_head(s.store, b)->place_of[neuron] / banks_list[b].unit_neurons;
    close_store(&s);
    told_user = NULL;
    told_near = NULL;
    rule = NULL;
}

/* However many are told together, in banks of small units beside those of large ones too. */
static void gates_are_told_one_by_one_or_together(void **state) {
    (void)state;
    enum { NEAR_ONE = 40 };
    for (uint32_t b = 0; b < banks.count; b++) {
        uint8_t one_by_one[sizeof near_units], together[sizeof near_units];
        float gates[sizeof near_units];
        const uint32_t count = banks_list[b].neuron_count;
        assert_true(count > NEAR_ONE && count <= sizeof near_units);
        for (uint32_t n = 0; n < count; n++) gates[n] = n == NEAR_ONE ? 2.0f : n % 2 ? -1.0f : -0.5f;
        uint32_t nearest;
        near_after_passes(b, gates, 1, NEAR_ONE, one_by_one, &nearest);
        near_after_passes(b, gates, 37, NEAR_ONE, together, &nearest);
        assert_true(together[nearest] > PI2_NEAR_ZERO + PI2_NEAR_STEPS);
        for (uint32_t u = 0; u < banks_list[b].unit_count; u++) {
            if (u != nearest) assert_true(together[u] < PI2_NEAR_ZERO);
            assert_in_range(together[u] + 1 - one_by_one[u], 0, 2); /* a mean is rounded down, from above or below */
        }
    }
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    path = test_folder_path("neurons");
    test_banks_write(path, banks_list, bundle_bytes);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_memory_comes_back_empty),
        cmocka_unit_test(a_prompt_leaves_neurons),
        cmocka_unit_test(a_prompt_that_leaves_all_fills),
        cmocka_unit_test(a_simulated_prompt_leaves_what_was_near),
        cmocka_unit_test(a_filling_that_fails_leaves_what_is_good),
        cmocka_unit_test(fine_units_are_as_good),
        cmocka_unit_test(a_unit_is_as_near_as_its_nearest_neuron),
        cmocka_unit_test(gates_are_told_one_by_one_or_together),
    };
    return cmocka_run_group_tests_name("neuron fill", tests, set_up, test_folder_end);
}
