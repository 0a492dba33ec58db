/*
 * Goal:   the store of neurons hands out each unit's own bytes however many threads ask and however few slots there
 *         are; what a layer uses stays until the layer ends; damage, a file that ends and an order that is none are
 *         told by place, and the store works on after them.
 * Method: a file of banks of two sizes whose every word says where it is; layers of random units on 1 to 4 threads,
 *         with the least memory, half and all, by every read method.
 */
#include "neuron_store_test.h"

#include <time.h>
#include <xxhash.h>

#include "base/team.h"
#include "planner/trace_replay.h"
#include "support/read_methods.h"
#include "support/temporary_files.h"

/* ---- layers on several threads ---- */

typedef struct layer_run {
    setup *s;
    uint32_t bank, count, taken;
    uint32_t units[MOST_USED];
    const uint8_t *memories[MOST_USED];
    _Atomic uint32_t next, wrong;
} layer_run;

static bool is_unit(const uint8_t *memory, uint32_t b, uint32_t unit) {
    return test_is_unit(&banks_list[b], memory, b, unit);
}

static void use_units(void *argument, unsigned member, unsigned member_count) {
    (void)member_count;
    layer_run *run = argument;
    if (member % 2 == 0) pi2_neuron_store_want(run->s->store, run->bank, run->units, run->count);
    for (;;) {
        const uint32_t i = atomic_fetch_add(&run->next, 1);
        if (i >= run->count) return;
        const bool ok = pi2_neuron_store_take(run->s->store, run->bank, run->units[i], &run->memories[i]) == PI2_OK;
        if (!ok || !is_unit(run->memories[i], run->bank, run->units[i])) atomic_fetch_add(&run->wrong, 1);
    }
}

static int by_number(const void *a, const void *b) {
    const uint32_t first = *(const uint32_t *)a, second = *(const uint32_t *)b;
    return (first > second) - (first < second);
}

/* What some layer may want next: often another one does. */
static void foretell(setup *s, unsigned *seed) {
    uint32_t units[24], count = 0;
    const uint32_t bank = (uint32_t)rand_r(seed) % BANKS;
    for (uint32_t unit = 0; unit < banks_list[bank].unit_count && count < 24; unit++) {
        if (rand_r(seed) % 4 == 0) units[count++] = unit;
    }
    pi2_neuron_store_foretell(s->store, bank, units, count);
}

static void run_layer(setup *s, pi2_team *team, uint32_t bank, unsigned *seed) {
    static layer_run run;
    memset(&run, 0, sizeof run);
    run.s = s;
    run.bank = bank;
    run.count = 1 + (uint32_t)rand_r(seed) % MOST_USED;
    /* Some units come twice, as two tokens may ask for one; a third of them is hot. */
    for (uint32_t i = 0; i < run.count; i++) {
        const uint32_t all = banks_list[bank].unit_count;
        run.units[i] = (uint32_t)rand_r(seed) % (rand_r(seed) % 3 ? all : all / 4);
    }
    if (rand_r(seed) % 2) qsort(run.units, run.count, sizeof run.units[0], by_number); /* neighbours share reads */
    pi2_neuron_store_begin_layer(s->store);
    if (rand_r(seed) % 2) foretell(s, seed);
    pi2_team_run(team, use_units, &run);
    assert_int_equal(run.wrong, 0);
    /* What was taken has stayed. */
    for (uint32_t i = 0; i < run.count; i++) {
        assert_true(is_unit(run.memories[i], bank, run.units[i]));
        assert_ptr_equal(pi2_neuron_store_hit(s->store, bank, run.units[i]), run.memories[i]);
    }
}

static void units_are_right_with_few_slots_and_many_threads(void **state) {
    (void)state;
    const uint64_t least = pi2_neuron_store_least_bytes(&banks), all = pi2_neuron_store_all_bytes(&banks);
    assert_true(least < all);
    unsigned seed = 1;
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        if (!test_has_read_method(*method, path)) continue;
        for (unsigned threads = 1; threads <= 4; threads++) {
            pi2_team *team;
            assert_int_equal(pi2_team_create(threads, NULL, &team), PI2_OK);
            for (int size = 0; size < 3; size++) {
                setup s;
                const uint64_t bytes = size == 0 ? least : size == 1 ? (least + all) / 2 : all;
                gap_units = threads % 2 + (uint32_t)size;
                if (try_open(*method, bytes, &s) != PI2_OK) fail_msg("%s", pi2_error_text());
                if (threads % 2) assert_int_equal(pi2_neuron_store_fill(s.store, NULL), PI2_OK);
                for (int i = 0; i < LAYERS_RUN; i++) run_layer(&s, team, (uint32_t)rand_r(&seed) % BANKS, &seed);
                pi2_neuron_store_counters counters;
                pi2_neuron_store_count(s.store, &counters);
                if (size == 0) assert_true(counters.evictions > 0);
                if (size == 1) assert_true(counters.foretold_used && counters.foretold_used < counters.foretold);
                if (size == 2) assert_int_equal(counters.evictions, 0);
                close_store(&s);
            }
            pi2_team_destroy(team);
        }
    }
    gap_units = 0;
}

typedef struct sharing {
    uint32_t bank, gap_units, count, units[24];
    uint64_t reads, units_dropped;
} sharing;

/* Which units come with one read: neighbours that ascend, as long as the read is below 64 KB and fills 16 places; those
 * with as many between them as is allowed. */
static void neighbours_share_a_read(void **state) {
    (void)state;
    static const sharing cases[] = {
        { 1, 0, 6, { 3, 4, 5, 9, 10, 30 }, 3, 0 },
        { 1, 0, 4, { 10, 9, 8, 7 }, 4, 0 },            /* in this order */
        { 1, 0, 4, { 20, 20, 21, 21 }, 1, 0 },         /* two tokens, or two neurons, want the same */
        { 1, 1, 5, { 3, 5, 6, 8, 11 }, 2, 2 },
        { 1, 2, 5, { 3, 5, 6, 8, 11 }, 2, 2 },         /* 3 to 11 would be more than 64 KB */
        { 1, 0, 9, { 0, 1, 2, 3, 4, 5, 6, 7, 8 }, 2, 0 },
        { 2, 0, 18, { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18 }, 2, 0 },
        { 2, 9, 3, { 0, 9, 31 }, 2, 8 },
    };
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        if (!test_has_read_method(*method, path)) continue;
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            const sharing *c = &cases[i];
            setup s;
            gap_units = c->gap_units;
            assert_int_equal(try_open(*method, pi2_neuron_store_all_bytes(&banks), &s), PI2_OK);
            pi2_store_counters before, after;
            pi2_store_count(s.way, &before);
            pi2_neuron_store_begin_layer(s.store);
            pi2_neuron_store_want(s.store, c->bank, c->units, c->count);
            for (uint32_t k = 0; k < c->count; k++) {
                const uint8_t *memory;
                assert_int_equal(pi2_neuron_store_take(s.store, c->bank, c->units[k], &memory), PI2_OK);
                assert_true(is_unit(memory, c->bank, c->units[k]));
            }
            pi2_store_count(s.way, &after);
            assert_int_equal(after.reads - before.reads, c->reads);
            assert_int_equal(after.bytes_dropped - before.bytes_dropped,
                             c->units_dropped * banks_list[c->bank].unit_bytes);
            close_store(&s);
        }
    }
    gap_units = 0;
}

/* What was foretold stays until the layer that it was foretold for ends, whatever others take, and counts as used only
 * where it was; it never takes the slots that a layer may need. */
static void what_is_foretold_stays_for_a_layer(void **state) {
    (void)state;
    static const uint32_t units[] = { 1, 2, 3, 50, 90 };
    uint32_t all[96];
    for (uint32_t u = 0; u < 96; u++) all[u] = u;
    setup s;
    assert_int_equal(try_open("auto", pi2_neuron_store_least_bytes(&banks) + 24ull * bundle_bytes, &s), PI2_OK);
    pi2_neuron_store_counters counters;
    const uint8_t *memory, *foretold[5];
    pi2_neuron_store_begin_layer(s.store);
    pi2_neuron_store_foretell(s.store, 1, units, 5);
    pi2_neuron_store_foretell(s.store, 1, units, 5); /* they are on their way */
    for (uint32_t u = 0; u < 96; u++) assert_int_equal(pi2_neuron_store_take(s.store, 0, u, &memory), PI2_OK);
    pi2_neuron_store_begin_layer(s.store);
    pi2_neuron_store_count(s.store, &counters);
    assert_int_equal(counters.foretold, 5);
    assert_int_equal(counters.foretold_used, 0);
    for (uint32_t u = 10; u < 40; u++) assert_int_equal(pi2_neuron_store_take(s.store, 1, u, &memory), PI2_OK);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(pi2_neuron_store_take(s.store, 1, units[i], &foretold[i]), PI2_OK);
        assert_true(is_unit(foretold[i], 1, units[i]));
    }
    pi2_neuron_store_foretell(s.store, 3, all, 96);
    pi2_neuron_store_count(s.store, &counters);
    assert_int_equal(counters.foretold_used, 5);
    assert_in_range(counters.foretold, 6, 5 + 96 / 4);
    for (uint32_t u = 0; u < 96; u++) assert_int_equal(pi2_neuron_store_take(s.store, 1, u, &memory), PI2_OK);
    for (int i = 0; i < 5; i++) assert_ptr_equal(pi2_neuron_store_hit(s.store, 1, units[i]), foretold[i]);
    close_store(&s); /* with reads under way */
}

/* What was foretold and is not used is worth no more than before it came: others stay that were used a pass ago. */
static void what_is_foretold_in_vain_leaves_first(void **state) {
    (void)state;
    enum { USED = 12, FORETOLD = 8 };
    static const uint32_t units[FORETOLD] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    setup s;
    const uint8_t *memory;
    pi2_store_counters before, after;
    pi2_neuron_store_counters counters;
    assert_int_equal(try_open("auto", pi2_neuron_store_least_bytes(&banks) + 24 * 8192, &s), PI2_OK);
    pi2_neuron_store_begin_pass(s.store, 1, 1);
    pi2_neuron_store_begin_layer(s.store);
    for (uint32_t u = 0; u < USED; u++) assert_int_equal(pi2_neuron_store_take(s.store, 0, u, &memory), PI2_OK);
    pi2_neuron_store_begin_pass(s.store, 1, 1);
    pi2_neuron_store_begin_layer(s.store);
    pi2_store_count(s.way, &before);
    pi2_neuron_store_foretell(s.store, 1, units, FORETOLD);
    do pi2_store_count(s.way, &after); /* they are neighbours, but may come with more than one read */
    while (after.bytes_read - before.bytes_read < FORETOLD * banks_list[1].unit_bytes);
    pi2_neuron_store_begin_layer(s.store);
    for (int i = 0; i < 20; i++) { /* a read is counted a moment before it can be collected */
        pi2_neuron_store_collect(s.store);
        (void)nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
    pi2_neuron_store_begin_layer(s.store);
    for (uint32_t u = 0; u < 96; u++) assert_int_equal(pi2_neuron_store_take(s.store, 3, u, &memory), PI2_OK);
    pi2_neuron_store_begin_layer(s.store);
    uint32_t next = 50;
    do {
        assert_int_equal(pi2_neuron_store_take(s.store, 0, next++, &memory), PI2_OK);
        pi2_neuron_store_count(s.store, &counters);
    } while (counters.evictions == 0);
    uint32_t left = 0;
    for (uint32_t u = 0; u < USED; u++) assert_non_null(pi2_neuron_store_hit(s.store, 0, u));
    for (uint32_t u = 0; u < FORETOLD; u++) left += pi2_neuron_store_hit(s.store, 1, u) != NULL;
    assert_int_equal(left, FORETOLD - 1);
    close_store(&s);
}

static void all_fit_after_filling(void **state) {
    (void)state;
    setup s;
    assert_int_equal(try_open("auto", pi2_neuron_store_all_bytes(&banks), &s), PI2_OK);
    assert_null(pi2_neuron_store_hit(s.store, 0, 0));
    assert_true(pi2_neuron_store_wants_filling(s.store));
    assert_int_equal(pi2_neuron_store_fill(s.store, NULL), PI2_OK);
    assert_false(pi2_neuron_store_wants_filling(s.store));
    for (uint32_t b = 0; b < BANKS; b++) {
        for (uint32_t u = 0; u < banks_list[b].unit_count; u++) {
            const uint8_t *memory = pi2_neuron_store_hit(s.store, b, u);
            assert_non_null(memory);
            assert_true(is_unit(memory, b, u));
        }
        const pi2_neuron_head *head = pi2_neuron_store_head(s.store, b);
        for (uint32_t place = 0; place < TEST_BANK_NEURONS; place++) {
            assert_int_equal(head->place_of[(place * 7 + b) % TEST_BANK_NEURONS], place);
        }
        assert_int_equal(((const uint32_t *)(const void *)head->up_scales)[5], b * 100 + 5);
        assert_int_equal(((const uint32_t *)(const void *)head->down_scales)[9], b * 200 + 9);
    }
    close_store(&s);
}

/* Every second unit fills the list of reads, and nobody takes one. Once all have ended, more is asked for at once: what
 * is asked for only by who takes it is read unit by unit. */
static void reads_that_have_ended_serve_anew(setup *s, const uint32_t *units, uint32_t count) {
    enum { MOST_READS = 1024 };
    static uint32_t apart[MOST_READS];
    const uint8_t *memory;
    pi2_store_counters before, after;
    for (uint32_t i = 0; i < MOST_READS; i++) apart[i] = 2 * i;
    pi2_store_count(s->way, &before);
    pi2_neuron_store_want(s->store, 0, apart, MOST_READS);
    do pi2_store_count(s->way, &after); while (after.reads - before.reads < MOST_READS);
    pi2_neuron_store_want(s->store, 0, units + 2 * MOST_READS, count - 2 * MOST_READS);
    for (uint32_t u = 2 * MOST_READS; u < count; u++) {
        assert_int_equal(pi2_neuron_store_take(s->store, 0, u, &memory), PI2_OK);
    }
    pi2_store_count(s->way, &after);
    assert_int_equal(after.reads - before.reads, MOST_READS + (count - 2 * MOST_READS + 15) / 16);
}

/* More units than the store reads at once, taken in another order than they were asked for: who waits for one that has
 * no read yet must make room. */
static void more_units_than_reads(void **state) {
    (void)state;
    enum { UNITS = 3000 };
    static uint32_t head[4][16384 / 4], unit[1024], wanted[UNITS];
    pi2_neuron_bank bank = { .expert = UINT32_MAX, .neuron_count = UNITS, .width = 64, .bundle_bytes = 4096,
                             .unit_neurons = 1, .unit_bytes = 4096, .unit_count = UNITS, .file_offset = 65536,
                             .head_bytes = sizeof head, .checksums_at = 16384, .up_scales_at = 32768,
                             .down_scales_at = 49152 };
    const pi2_neuron_banks one = { .banks = &bank, .count = 1 };
    char *many = test_path(test_folder, "many");
    FILE *file = fopen(many, "wb");
    assert_non_null(file);
    for (uint32_t u = 0; u < UNITS; u++) {
        for (uint32_t at = 0; at < 1024; at++) unit[at] = u * 1024 + at;
        test_put(file, bank.file_offset + (uint64_t)u * 4096, unit, sizeof unit);
        head[0][u] = wanted[u] = u;
        head[1][u] = (uint32_t)XXH3_64bits(unit, sizeof unit);
    }
    bank.head_checksum = XXH3_64bits(head, sizeof head);
    test_put(file, 0, head, sizeof head);
    assert_int_equal(fclose(file), 0);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        if (!test_has_read_method(*method, path)) continue;
        setup s = { .bytes = pi2_neuron_store_all_bytes(&one) };
        assert_int_equal(pi2_pages_reserve((size_t)s.bytes, false, "slots", &s.memory), PI2_OK);
        const pi2_reader_options reader = { .path = many, .method = *method, .depth = 64 };
        assert_int_equal(pi2_reader_open(&reader, &s.reader), PI2_OK);
        s.way = store_over(s.reader, false);
        const pi2_neuron_store_options options = { .banks = &one, .path = many, .store = s.way,
                                                   .memory = s.memory, .memory_bytes = s.bytes };
        if (pi2_neuron_store_create(&options, &s.store) != PI2_OK) fail_msg("%s", pi2_error_text());
        pi2_neuron_store_begin_pass(s.store, 1, 1);
        pi2_neuron_store_begin_layer(s.store);
        reads_that_have_ended_serve_anew(&s, wanted, UNITS);
        pi2_neuron_store_want(s.store, 0, wanted, UNITS);
        for (uint32_t u = UNITS; u-- > 0;) {
            const uint8_t *memory;
            assert_int_equal(pi2_neuron_store_take(s.store, 0, u, &memory), PI2_OK);
            assert_int_equal(((const uint32_t *)(const void *)memory)[7], u * 1024 + 7);
        }
        close_store(&s);
    }
    free(many);
}

/* What passes use often stays, although much more passes by. */
static void what_is_used_often_stays(void **state) {
    (void)state;
    setup s;
    const uint8_t *memory;
    unsigned seed = 3;
    assert_int_equal(try_open("auto", pi2_neuron_store_least_bytes(&banks) + 20 * 8192, &s), PI2_OK);
    uint32_t hot_hits = 0, hot_uses = 0;
    for (uint32_t pass = 0; pass < 60; pass++) {
        pi2_neuron_store_begin_pass(s.store, 1, 1);
        for (uint32_t b = 0; b < 4; b += b == 1 ? 2 : 1) { /* banks 0, 1 and 3, of one size */
            pi2_neuron_store_begin_layer(s.store);
            for (uint32_t u = 0; u < 20; u++) { /* of the first 20 units each time, of the others at random */
                if (pass >= 30) {
                    hot_uses++;
                    hot_hits += pi2_neuron_store_hit(s.store, b, u) != NULL;
                }
                assert_int_equal(pi2_neuron_store_take(s.store, b, u, &memory), PI2_OK);
            }
            for (int i = 0; i < 40; i++) {
                const uint32_t unit = 20 + (uint32_t)rand_r(&seed) % 76;
                assert_int_equal(pi2_neuron_store_take(s.store, b, unit, &memory), PI2_OK);
            }
        }
    }
    assert_true(hot_hits * 10 > hot_uses * 9);
    close_store(&s);
}

/* What on_use was told of. */
typedef struct told {
    uint32_t passes, tokens, layers, count;
    uint32_t keys[64];
} told;

static void tell(void *user, const uint32_t *keys, uint32_t count) {
    told *all = user;
    if (!keys) {
        all->passes++;
        all->tokens += count;
        return;
    }
    all->layers++;
    all->count = count;
    assert_true(count <= 64);
    memcpy(all->keys, keys, count * sizeof *keys);
}

/* A trace of what is told, as the writer and the reader of one would have it. */
typedef struct told_trace {
    pi2_trace trace;
    uint32_t keys[20000];
    pi2_trace_demand demands[2000];
    pi2_trace_near near_of[2000];
    uint8_t near[2000 * 96];
} told_trace;

static void collect_near(void *user, const uint8_t *near, uint32_t count) {
    told_trace *all = user;
    const uint32_t d = all->trace.demand_count;
    assert_true(count == 96 && d < 2000);
    all->near_of[d] = (pi2_trace_near){ (uint64_t)d * 96, count };
    memcpy(all->near + (size_t)d * 96, near, count);
}

/* Gates of a bank's neurons: those of one unit differ, and some are no numbers. */
static void tell_some_gates(pi2_neuron_store *store, uint32_t b, const bool *wanted, unsigned *seed) {
    float gates[4096];
    const uint32_t count = banks_list[b].neuron_count, in_unit = banks_list[b].unit_neurons;
    const pi2_neuron_head *head = pi2_neuron_store_head(store, b);
    assert_true(count <= 4096);
    for (uint32_t n = 0; n < count; n++) {
        const uint32_t drawn = (uint32_t)rand_r(seed) % 1000;
        gates[n] = (float)drawn * 0.003f - (wanted[head->place_of[n] / in_unit] ? 0.5f : 2.0f);
    }
    gates[count / 2] = 0.0f / 0.0f; /* the mean size of a Gate is taken from the other calls */
    pi2_neuron_store_tell_gates(store, b, 0, count / 2, gates);
    pi2_neuron_store_tell_gates(store, b, count / 2, 1, gates + count / 2);
    pi2_neuron_store_tell_gates(store, b, count / 2 + 1, count - count / 2 - 1, gates + count / 2 + 1);
}

static void collect(void *user, const uint32_t *keys, uint32_t count) {
    told_trace *all = user;
    if (!keys) return;
    assert_true(all->trace.key_count + count <= 20000 && all->trace.demand_count + 1 < 2000);
    memcpy(all->keys + all->trace.key_count, keys, count * sizeof *keys);
    all->demands[all->trace.demand_count++] = (pi2_trace_demand){ all->trace.key_count, 1 };
    all->trace.key_count += count;
    all->demands[all->trace.demand_count].begin = all->trace.key_count;
}

/* The replay of what a store told finds to a unit what the store found, with as many slots. */
static void replay_by(const char *name) {
    static told_trace all;
    setup s;
    uint64_t hits = 0;
    unsigned seed = 11;
    all.trace = (pi2_trace){ .header = { BANKS, 96, 0, 8192 }, .keys = all.keys, .demands = all.demands };
    if (strcmp(name, "gate") == 0) {
        all.trace.near_of = all.near_of;
        all.trace.near = all.near;
        told_near = collect_near;
    }
    rule = pi2_unit_rule_find(name);
    assert_non_null(rule);
    told_user = &all;
    told_to = collect;
    assert_int_equal(try_open("auto", pi2_neuron_store_least_bytes(&banks) + 30 * 8192, &s), PI2_OK);
    told_user = NULL;
    told_to = tell;
    told_near = NULL;
    rule = NULL;
    uint32_t slots = 0; /* of 8192 bytes: each has been read into */
    bool is_slot[4096] = { false };
    for (uint32_t pass = 0; pass < 120; pass++) {
        pi2_neuron_store_begin_pass(s.store, 1, 1);
        pi2_neuron_store_begin_layer(s.store);
        for (uint32_t b = 0; b < 4; b += b == 1 ? 2 : 1) { /* banks 0, 1 and 3, of one size */
            bool wanted[96] = { false }, missing[96] = { false };
            const uint8_t *memory;
            for (uint32_t i = 0; i < 30; i++) { /* some more often than others */
                wanted[(uint32_t)rand_r(&seed) % (1 + (uint32_t)rand_r(&seed) % 96)] = true;
            }
            if (all.trace.near) tell_some_gates(s.store, b, wanted, &seed);
            for (uint32_t u = 0; u < 96; u++) {
                if (!wanted[u]) continue;
                missing[u] = pi2_neuron_store_hit(s.store, b, u) == NULL;
                hits += !missing[u];
            }
            for (uint32_t u = 0; u < 96; u++) {
                if (!missing[u]) continue;
                assert_int_equal(pi2_neuron_store_take(s.store, b, u, &memory), PI2_OK);
                const size_t page = (size_t)(memory - (uint8_t *)s.memory) / 4096;
                assert_true(page < sizeof is_slot);
                slots += !is_slot[page];
                is_slot[page] = true;
            }
            pi2_neuron_store_note(s.store, b, 1, 0);
            pi2_neuron_store_begin_layer(s.store);
        }
    }
    pi2_replay_result replay;
    const pi2_cache_policy *policy = pi2_cache_policy_find(name);
    assert_int_equal(pi2_trace_replay_policy(&all.trace, policy, slots, 0, &replay), PI2_OK);
    assert_true(hits > 0 && replay.hits < replay.uses);
    assert_int_equal(replay.hits, hits);
    close_store(&s);
}

static void a_replay_finds_what_the_store_found(void **state) {
    (void)state;
    replay_by("gate");
    replay_by("mix");
    replay_by("heat");
}

/* What a layer used is told when it ends, in order, found or read or asked for twice; of a pass that was broken off
 * its last layer is not. */
static void uses_are_told(void **state) {
    (void)state;
    setup s;
    told all = { 0 };
    const uint8_t *memory;
    told_user = &all;
    assert_int_equal(try_open("auto", pi2_neuron_store_least_bytes(&banks) + 20 * 8192, &s), PI2_OK);
    told_user = NULL;
    assert_int_equal(pi2_neuron_store_layer_keys(&banks), 96);
    assert_int_equal(pi2_neuron_store_fill(s.store, NULL), PI2_OK);
    static const struct { uint32_t bank, count, units[3]; } layers[] = {
        { 0, 3, { 90, 3, 40 } }, { 2, 2, { 31, 0 } }, { 4, 1, { 7 } }, { 3, 3, { 95, 1, 2 } } };
    pi2_neuron_store_begin_pass(s.store, 5, 1);
    pi2_neuron_store_begin_layer(s.store);
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++) {
        for (uint32_t u = 0; u < 2 * layers[i].count; u++) {
            const uint32_t unit = layers[i].units[u / 2];
            assert_int_equal(pi2_neuron_store_take(s.store, layers[i].bank, unit, &memory), PI2_OK);
        }
        pi2_neuron_store_note(s.store, layers[i].bank, layers[i].count, 0);
        assert_int_equal(all.layers, i);
        pi2_neuron_store_begin_layer(s.store);
        assert_int_equal(all.layers, i + 1);
        assert_int_equal(all.count, layers[i].count);
        for (uint32_t k = 0; k < all.count; k++) {
            bool found = false;
            for (uint32_t u = 0; u < layers[i].count; u++) {
                found |= all.keys[k] == layers[i].bank * 96 + layers[i].units[u];
            }
            assert_true(found && (k == 0 || all.keys[k - 1] < all.keys[k]));
        }
    }
    assert_int_equal(pi2_neuron_store_take(s.store, 1, 8, &memory), PI2_OK);
    pi2_neuron_store_note(s.store, 1, 1, 0);
    pi2_neuron_store_begin_pass(s.store, 1, 1);
    pi2_neuron_store_begin_layer(s.store);
    assert_int_equal(all.layers, 4);
    assert_int_equal(all.passes, 2);
    assert_int_equal(all.tokens, 6);
    close_store(&s);
}

/* What a prompt would have used stays beside what one token uses, though it was never taken. */
static void a_prompt_warms(void **state) {
    (void)state;
    setup s;
    const uint8_t *memory;
    assert_int_equal(try_open("auto", pi2_neuron_store_least_bytes(&banks) + 20 * 8192, &s), PI2_OK);
    assert_int_equal(pi2_neuron_store_fill(s.store, NULL), PI2_OK); /* about 38 units of banks 0, 1 and 3 each */
    pi2_neuron_store_begin_pass(s.store, 100, 100);
    for (uint32_t token = 0; token < 16; token++) {
        for (uint32_t u = 0; u < 10; u++) pi2_neuron_store_warm(s.store, 0, u);
    }
    for (uint32_t pass = 0; pass < 3; pass++) {
        pi2_neuron_store_begin_pass(s.store, 1, 1);
        for (uint32_t u = 60; u < 96; u++) {
            pi2_neuron_store_begin_layer(s.store);
            assert_int_equal(pi2_neuron_store_take(s.store, 1, u, &memory), PI2_OK);
        }
    }
    pi2_neuron_store_begin_layer(s.store);
    uint32_t warm = 0, cold = 0;
    for (uint32_t u = 0; u < 10; u++) warm += pi2_neuron_store_hit(s.store, 0, u) != NULL;
    for (uint32_t u = 10; u < 38; u++) cold += pi2_neuron_store_hit(s.store, 0, u) != NULL;
    assert_int_equal(warm, 10);
    assert_true(cold < 28);
    /* And one that is in no slot is warm when it comes: it outlasts those that came once. */
    pi2_neuron_store_begin_pass(s.store, 100, 100);
    for (uint32_t token = 0; token < 32; token++) pi2_neuron_store_warm(s.store, 0, 95);
    pi2_neuron_store_begin_pass(s.store, 1, 1);
    assert_null(pi2_neuron_store_hit(s.store, 0, 95));
    assert_int_equal(pi2_neuron_store_take(s.store, 0, 95, &memory), PI2_OK);
    for (uint32_t u = 0; u < 96; u++) {
        pi2_neuron_store_begin_layer(s.store);
        assert_int_equal(pi2_neuron_store_take(s.store, 3, u, &memory), PI2_OK);
    }
    assert_non_null(pi2_neuron_store_hit(s.store, 0, 95));
    close_store(&s);
}

/* Memory that serves others by turns holds units between, and none of theirs afterwards; it is filled, and what is
 * there leaves from it as from other slots. */
static void shared_memory_serves_by_turns(void **state) {
    (void)state;
    const uint64_t least = pi2_neuron_store_least_bytes(&banks), all = pi2_neuron_store_all_bytes(&banks);
    assert_int_equal(pi2_pages_reserve(SHARED_BYTES, false, "shared", &shared), PI2_OK);
    pi2_team *team;
    assert_int_equal(pi2_team_create(3, NULL, &team), PI2_OK);
    unsigned seed = 5;
    setup s;
    for (uint64_t bytes = least; bytes <= (least + all) / 2; bytes += (all - least) / 4) {
        uint32_t found[2] = { 0 };
        if (try_open("auto", bytes, &s) != PI2_OK) fail_msg("%s", pi2_error_text());
        pi2_neuron_store_open_shared(s.store);
        assert_int_equal(pi2_neuron_store_fill(s.store, NULL), PI2_OK);
        for (int turn = 0; turn < 6; turn++) {
            const bool is_open = turn % 2 == 0;
            if (is_open) pi2_neuron_store_open_shared(s.store);
            else pi2_neuron_store_close_shared(s.store);
            assert_int_equal(pi2_neuron_store_shared_slots(s.store), is_open ? SHARED_BYTES / bundle_bytes : 0);
            if (!is_open) memset(shared, turn, SHARED_BYTES); /* it is theirs now */
            for (int i = 0; i < LAYERS_RUN; i++) run_layer(&s, team, (uint32_t)rand_r(&seed) % BANKS, &seed);
            for (uint32_t i = 0; !is_open && i < SHARED_BYTES; i++) assert_int_equal(((uint8_t *)shared)[i], turn);
            for (uint32_t u = 0; u < 96; u++) {
                for (uint32_t b = 0; b < 2; b++) found[!is_open] += pi2_neuron_store_hit(s.store, b, u) != NULL;
            }
        }
        assert_true(found[0] > found[1]);
        close_store(&s);
    }
    /* What must have a slot at once has it in memory that serves nobody else: it stays when memory is short. */
    if (try_open("auto", least, &s) != PI2_OK) fail_msg("%s", pi2_error_text());
    pi2_neuron_store_open_shared(s.store);
    assert_int_equal(pi2_store_give_back(s.way, UINT32_MAX, all), 0);
    close_store(&s);
    /* All fit without it: there is nothing to put there. */
    assert_int_equal(try_open("auto", all, &s), PI2_OK);
    pi2_neuron_store_open_shared(s.store);
    assert_int_equal(pi2_neuron_store_shared_slots(s.store), 0);
    close_store(&s);
    pi2_team_destroy(team);
    pi2_pages_release(shared, SHARED_BYTES);
    shared = NULL;
}

/* For ablations: nothing is asked for before it is waited for; nothing stays. */
static void ablations(void **state) {
    (void)state;
    setup s;
    const uint8_t *memory;
    const uint32_t units[] = { 3, 4, 5 };
    const uint64_t all = pi2_neuron_store_all_bytes(&banks);
    pi2_store_counters before, after;
    assert_int_equal(try_open_as("auto", all, true, true, &s), PI2_OK);
    assert_int_equal(pi2_neuron_store_fill(s.store, NULL), PI2_OK);
    pi2_store_count(s.way, &before);
    for (uint32_t pass = 0; pass < 3; pass++) {
        pi2_neuron_store_begin_pass(s.store, 1, 1);
        pi2_neuron_store_begin_layer(s.store);
        pi2_neuron_store_want(s.store, 1, units, 3);
        for (int i = 0; i < 3; i++) {
            assert_null(pi2_neuron_store_hit(s.store, 1, units[i]));
            assert_int_equal(pi2_neuron_store_take(s.store, 1, units[i], &memory), PI2_OK);
            assert_true(is_unit(memory, 1, units[i]));
            assert_non_null(pi2_neuron_store_hit(s.store, 1, units[i]));
        }
    }
    pi2_store_count(s.way, &after);
    assert_int_equal(after.reads - before.reads, 9);
    close_store(&s);
}

/* ---- what goes wrong ---- */

static void flip(uint64_t offset);

/* A unit that is damaged is told by its own place, and those that came with it are good. */
static void damage_among_neighbours(void **state) {
    (void)state;
    const uint32_t units[] = { 16, 17, 18 };
    const uint64_t at = banks_list[1].file_offset + bundle_bytes * 17ull;
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        if (!test_has_read_method(*method, path)) continue;
        setup s;
        const uint8_t *memory;
        char offset[32];
        (void)snprintf(offset, sizeof offset, "offset %llu", (unsigned long long)at);
        assert_int_equal(try_open(*method, pi2_neuron_store_all_bytes(&banks), &s), PI2_OK);
        flip(at + bundle_bytes - 1);
        pi2_neuron_store_begin_layer(s.store);
        pi2_neuron_store_want(s.store, 1, units, 3);
        assert_int_equal(pi2_neuron_store_take(s.store, 1, 17, &memory), PI2_ERR_FORMAT);
        assert_non_null(strstr(pi2_error_text(), "unit 17 "));
        assert_non_null(strstr(pi2_error_text(), offset));
        pi2_store_reset(s.way);
        for (uint32_t u = 16; u <= 18; u += 2) {
            memory = pi2_neuron_store_hit(s.store, 1, u);
            assert_non_null(memory);
            assert_true(is_unit(memory, 1, u));
        }
        flip(at + bundle_bytes - 1);
        assert_int_equal(pi2_neuron_store_take(s.store, 1, 17, &memory), PI2_OK);
        close_store(&s);
    }
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

static void damage_is_told_by_place_and_the_store_goes_on(void **state) {
    (void)state;
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        if (!test_has_read_method(*method, path)) continue;
        setup s;
        const uint64_t at = banks_list[1].file_offset + bundle_bytes * 17ull;
        const uint8_t *memory;
        char offset[32];
        (void)snprintf(offset, sizeof offset, "offset %llu", (unsigned long long)at);
        assert_int_equal(try_open(*method, pi2_neuron_store_least_bytes(&banks), &s), PI2_OK);
        flip(at + 4711);
        pi2_neuron_store_begin_layer(s.store);
        assert_int_equal(pi2_neuron_store_take(s.store, 1, 17, &memory), PI2_ERR_FORMAT);
        assert_non_null(strstr(pi2_error_text(), offset));
        assert_non_null(strstr(pi2_error_text(), "layer 1"));
        assert_int_equal(pi2_neuron_store_take(s.store, 1, 18, &memory), PI2_ERR_FORMAT); /* the pass has failed */
        pi2_store_reset(s.way);
        assert_int_equal(pi2_neuron_store_take(s.store, 1, 18, &memory), PI2_OK);
        assert_true(is_unit(memory, 1, 18));
        flip(at + 4711);
        assert_int_equal(pi2_neuron_store_take(s.store, 1, 17, &memory), PI2_OK);
        close_store(&s);
        flip(at + 5);
        assert_int_equal(try_open(*method, pi2_neuron_store_all_bytes(&banks), &s), PI2_OK);
        assert_int_equal(pi2_neuron_store_fill(s.store, NULL), PI2_ERR_FORMAT);
        close_store(&s);
        flip(at + 5);
    }
}

static void heads_are_checked(void **state) {
    (void)state;
    setup s;
    const uint64_t bytes = pi2_neuron_store_least_bytes(&banks);
    flip(banks_list[3].head_offset + banks_list[3].up_scales_at + 40);
    assert_int_equal(try_open("auto", bytes, &s), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "layer 3"));
    close_store(&s);
    flip(banks_list[3].head_offset + banks_list[3].up_scales_at + 40);
    /* An order with a neuron twice, and a checksum that says that it is meant so. */
    static uint8_t head[4 * TEST_HEAD_PART];
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)banks_list[2].head_offset, SEEK_SET), 0);
    assert_int_equal(fread(head, 1, sizeof head, file), sizeof head);
    memcpy(head, head + 4, 4);
    const uint64_t before = banks_list[2].head_checksum;
    banks_list[2].head_checksum = XXH3_64bits(head, sizeof head);
    test_put(file, banks_list[2].head_offset, head, sizeof head);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(try_open("auto", bytes, &s), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "does not name each once"));
    close_store(&s);
    banks_list[2].head_checksum = before;
    test_banks_write(path, banks_list, bundle_bytes);
}

static void a_file_that_ends_and_memory_that_is_too_small_are_refused(void **state) {
    (void)state;
    setup s;
    const uint8_t *memory;
    assert_int_equal(try_open("auto", pi2_neuron_store_least_bytes(&banks) - 4096, &s), PI2_ERR_INVALID);
    assert_null(s.store);
    close_store(&s);
    assert_int_equal(try_open("auto", pi2_neuron_store_least_bytes(&banks), &s), PI2_OK);
    assert_int_equal(truncate(path, (off_t)(banks_list[4].file_offset + 4096)), 0);
    pi2_neuron_store_begin_layer(s.store);
    assert_int_equal(pi2_neuron_store_take(s.store, 4, 0, &memory), PI2_OK);
    assert_int_equal(pi2_neuron_store_take(s.store, 4, 9, &memory), PI2_ERR_IO);
    close_store(&s);
    /* And in the middle of a read of neighbours: at which byte it ended is told. */
    const uint32_t units[] = { 7, 8, 9 };
    char place[64];
    test_banks_write(path, banks_list, bundle_bytes);
    assert_int_equal(try_open("auto", pi2_neuron_store_least_bytes(&banks), &s), PI2_OK);
    assert_int_equal(truncate(path, (off_t)(banks_list[4].file_offset + 9 * 4096)), 0);
    pi2_neuron_store_begin_layer(s.store);
    pi2_neuron_store_want(s.store, 4, units, 3);
    assert_int_equal(pi2_neuron_store_take(s.store, 4, 8, &memory), PI2_ERR_IO);
    (void)snprintf(place, sizeof place, "at byte %llu,", (unsigned long long)(banks_list[4].file_offset + 9 * 4096));
    assert_non_null(strstr(pi2_error_text(), place));
    close_store(&s);
    test_banks_write(path, banks_list, bundle_bytes);
}

/* The same of units that begin and end inside pages. */
static void fine_units_are_as_good(void **state) {
    bundle_bytes = FINE;
    test_banks_write(path, banks_list, bundle_bytes);
    units_are_right_with_few_slots_and_many_threads(state);
    what_is_foretold_stays_for_a_layer(state);
    all_fit_after_filling(state);
    shared_memory_serves_by_turns(state);
    damage_is_told_by_place_and_the_store_goes_on(state);
    damage_among_neighbours(state);
    bundle_bytes = COARSE;
    test_banks_write(path, banks_list, bundle_bytes);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    path = test_folder_path("neurons");
    test_banks_write(path, banks_list, bundle_bytes);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(units_are_right_with_few_slots_and_many_threads),
        cmocka_unit_test(neighbours_share_a_read),
        cmocka_unit_test(what_is_foretold_stays_for_a_layer),
        cmocka_unit_test(what_is_foretold_in_vain_leaves_first),
        cmocka_unit_test(all_fit_after_filling),
        cmocka_unit_test(more_units_than_reads),
        cmocka_unit_test(what_is_used_often_stays),
        cmocka_unit_test(uses_are_told), cmocka_unit_test(a_replay_finds_what_the_store_found),
        cmocka_unit_test(a_prompt_warms),
        cmocka_unit_test(shared_memory_serves_by_turns), cmocka_unit_test(ablations),
        cmocka_unit_test(damage_is_told_by_place_and_the_store_goes_on),
        cmocka_unit_test(damage_among_neighbours),
        cmocka_unit_test(fine_units_are_as_good),
        cmocka_unit_test(heads_are_checked),
        cmocka_unit_test(a_file_that_ends_and_memory_that_is_too_small_are_refused),
    };
    return cmocka_run_group_tests_name("neuron store", tests, set_up, test_folder_end);
}
