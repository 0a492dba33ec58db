/*
 * Goal:   what a prompt leaves among single neurons: slots that are empty are filled with what will be wanted.
 * Method: the file of the test of the store, with units of whole pages and others; by every read method.
 */
#include "neuron_store_test.h"

#include "base/team.h"
#include "support/read_methods.h"
#include "support/temporary_files.h"

static void tell(void *user, const uint32_t *keys, uint32_t count) {
    (void)user;
    (void)keys;
    (void)count;
}

/* What was used and left with the shared memory comes back with it, hot ones first, in few reads, by several threads;
 * and nothing else does. */
static void filling_again_brings_what_was_used(void **state) {
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
        assert_non_null(pi2_neuron_store_hit(s.store, 0, USED + 1));
        pi2_neuron_store_begin_pass(s.store, 40, 40);
        pi2_neuron_store_close_shared(s.store); /* bank 0's first places were there */
        for (uint32_t u = 0; u <= USED + 1; u++) assert_null(pi2_neuron_store_hit(s.store, 0, u));
        for (uint32_t u = 0; u < USED; u++) pi2_neuron_store_warm(s.store, 0, u);
        pi2_neuron_store_open_shared(s.store);
        pi2_neuron_store_open_shared(s.store);
        assert_true(pi2_neuron_store_wants_filling(s.store));
        pi2_store_count(s.way, &before);
        assert_int_equal(pi2_neuron_store_fill(s.store, team), PI2_OK);
        pi2_store_count(s.way, &after);
        assert_true(after.reads - before.reads <= 2);
        pi2_neuron_store_begin_layer(s.store);
        for (uint32_t u = 0; u < USED; u++) {
            memory = pi2_neuron_store_hit(s.store, 0, u);
            assert_non_null(memory);
            assert_true(test_is_unit(&banks_list[0], memory, 0, u));
        }
        assert_null(pi2_neuron_store_hit(s.store, 0, USED));
        assert_null(pi2_neuron_store_hit(s.store, 0, USED + 1)); /* its use was 40 passes ago */
        close_store(&s);
    }
    pi2_team_destroy(team);
    pi2_pages_release(shared, SHARED_BYTES);
    shared = NULL;
}

static void fine_units_are_as_good(void **state) {
    bundle_bytes = FINE;
    test_banks_write(path, banks_list, bundle_bytes);
    filling_again_brings_what_was_used(state);
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
        cmocka_unit_test(filling_again_brings_what_was_used),
        cmocka_unit_test(fine_units_are_as_good),
    };
    return cmocka_run_group_tests_name("neuron fill", tests, set_up, test_folder_end);
}
