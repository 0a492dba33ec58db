/*
 * Goal:   experts, slots and parts of the store change state as the headers list it, and
 *         any other change ends a build with assertions, which is what all tests are linked with.
 * Method: every change between any two states, each in a process of its own, against lists written down here.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "neuron_cache/expert_states.h"
#include "neuron_cache/weight_store.h"
#include "storage/reader.h"
#include "store/part.h"
#include "support/expert_file.h"
#include "support/temporary_files.h"

static cached_expert expert;
static pi2_part part;
static uint8_t slot;
static pi2_expert_cache slots_only = { .slots = &slot, .slot_count = 1 };

static void make_expert(unsigned from, uint8_t before, uint8_t to) {
    expert.state = before;
    change_expert(&expert, from, to);
}

static void make_part(unsigned from, uint8_t before, uint8_t to) {
    atomic_store(&part.state, before);
    pi2_part_change(&part, from, to);
}

static void try_part(unsigned from, uint8_t before, uint8_t to) {
    (void)from;
    atomic_store(&part.state, before);
    (void)pi2_part_try(&part, before, to);
}

static void make_slot(unsigned from, uint8_t before, uint8_t to) {
    slot = before;
    change_slot(&slots_only, 0, from, to);
}

typedef void make_change(unsigned from, uint8_t before, uint8_t to);

static bool was_ended; /* the last child, by an assertion */

/* False: in a child, that says nothing and leaves no core. True: in the parent, when that has ended. */
static bool begin_child(void) {
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const struct rlimit none = { 0, 0 };
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)signal(SIGABRT, SIG_DFL); /* cmocka has a handler, which would go on with the tests */
        (void)close(STDERR_FILENO);
        return false;
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    was_ended = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
    assert_true(was_ended || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    return true;
}

static bool is_refused(make_change *change, unsigned from, uint8_t before, uint8_t to) {
    if (!begin_child()) {
        change(from, before, to);
        _exit(0);
    }
    return was_ended;
}

/* allowed[before]: the set of states that may follow. */
static void try_all(make_change *change, const unsigned *allowed, uint8_t count) {
    for (uint8_t before = 0; before < count; before++) {
        for (uint8_t to = 0; to < count; to++) {
            if (is_refused(change, FROM(before), before, to) == (allowed[before] >> to & 1u)) {
                fail_msg("state %u to %u", before, to);
            }
        }
    }
    assert_true(is_refused(change, FROM(1), 0, 0)); /* not the state that the caller named */
}

static void test_experts(void **state) {
    (void)state;
    static const unsigned allowed[] = {
        [EXPERT_ABSENT] = FROM(EXPERT_ABSENT) | FROM(EXPERT_QUEUED) | FROM(EXPERT_LOADING),
        [EXPERT_QUEUED] = FROM(EXPERT_ABSENT) | FROM(EXPERT_LOADING),
        [EXPERT_LOADING] = FROM(EXPERT_ABSENT) | FROM(EXPERT_PRESENT),
        [EXPERT_PRESENT] = FROM(EXPERT_ABSENT),
    };
    try_all(make_expert, allowed, 4);
}

static void test_parts(void **state) {
    (void)state;
    static const unsigned allowed[] = {
        [PI2_PART_ABSENT] = FROM(PI2_PART_ABSENT) | FROM(PI2_PART_READING) | FROM(PI2_PART_CHECKING),
        [PI2_PART_READING] = FROM(PI2_PART_ABSENT) | FROM(PI2_PART_ARRIVED) | FROM(PI2_PART_FAILED),
        [PI2_PART_ARRIVED] = FROM(PI2_PART_ABSENT) | FROM(PI2_PART_CHECKING),
        [PI2_PART_CHECKING] = FROM(PI2_PART_ABSENT) | FROM(PI2_PART_READY) | FROM(PI2_PART_FAILED),
        [PI2_PART_READY] = FROM(PI2_PART_ABSENT),
        [PI2_PART_FAILED] = FROM(PI2_PART_ABSENT),
    };
    try_all(make_part, allowed, 6);
    for (uint8_t before = 0; before < 6; before++) {
        for (uint8_t to = 0; to < 6; to++) {
            if (is_refused(try_part, 0, before, to) == (allowed[before] >> to & 1u)) fail_msg("%u to %u", before, to);
        }
    }
}

static void test_slots(void **state) {
    (void)state;
    static const unsigned allowed[] = {
        [SLOT_UNTOUCHED] = FROM(SLOT_TOUCHED) | FROM(SLOT_CLOSED),
        [SLOT_TOUCHED] = FROM(SLOT_TOUCHED) | FROM(SLOT_CLOSED),
        [SLOT_CLOSED] = FROM(SLOT_UNTOUCHED),
    };
    try_all(make_slot, allowed, 3);
}

/* The library too was built with assertions: an extent that is there is not read by hand, an expert that nobody
 * demanded is not released. */
static void test_library_asserts(void **state) {
    (void)state;
    char *folder = test_folder_make(), *path = test_path(folder, "experts");
    expert_layout_make();
    expert_file_write(path, 0);
    static const uint32_t first = 0;
    static _Alignas(BLOCK) uint8_t memory[4 * BLOCK];
    static uint8_t resident[KEYS * EXTENTS] = { 1 };
    for (int loads = 0; loads < 3; loads++) {
        if (!begin_child()) {
            pi2_reader *reader = NULL;
            pi2_store *way = NULL;
            pi2_weight_store *store = NULL;
            const pi2_reader_options open = { .path = path, .method = "pread", .depth = 1 };
            if (pi2_reader_open(&open, &reader) != PI2_OK) _exit(1);
            if (pi2_store_create(&(pi2_store_options){ .reader = reader }, &way) != PI2_OK) _exit(1);
            const pi2_weight_store_options options = {
                .layout = &expert_layout, .path = path, .sequence = &first, .sequence_count = 1,
                .resident = resident, .resident_memory = memory, .store = way };
            if (pi2_weight_store_create(&options, &store) != PI2_OK) _exit(1);
            for (int i = 0; i < loads; i++) {
                if (pi2_weight_store_load(store, first) != PI2_OK) _exit(1);
            }
            _exit(0);
        }
        assert_int_equal(was_ended, loads == 2);
    }
    if (!begin_child()) {
        pi2_expert_cache *cache = NULL;
        pi2_store *way = NULL;
        if (pi2_store_create(&(pi2_store_options){ 0 }, &way) != PI2_OK) _exit(1);
        const pi2_expert_cache_options options = {
            .layout = &expert_layout, .path = path, .memory = memory, .store = way, .loaded = true,
            .layer_keys = EXPERTS,
            .bytes = pi2_expert_cache_all_bytes(&expert_layout), .policy = pi2_cache_policy_find("lru") };
        if (pi2_expert_cache_create(&options, &cache) != PI2_OK) _exit(1);
        pi2_expert_cache_release(cache, 3);
        _exit(0);
    }
    assert_true(was_ended);
    free(path);
    test_folder_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_experts), cmocka_unit_test(test_parts),
                                        cmocka_unit_test(test_slots), cmocka_unit_test(test_library_asserts) };
    return cmocka_run_group_tests_name("states of slots", tests, NULL, NULL);
}
