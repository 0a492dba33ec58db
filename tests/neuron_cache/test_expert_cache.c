/*
 * Goal:   the cache of experts hands out the right bytes, finds exactly what its policy's replay says
 *         it should, reads a demanded expert once, works with fewer slots than are demanded, and
 *         comes back from a read that failed and from a wrong checksum.
 * Method: a file whose words say where they are; random demands of tokens and of batches under every policy,
 *         size and read method; experts of extents that are neighbours in the file, and of some that are not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/pages.h"
#include "planner/trace_replay.h"
#include "powerinfer2/status.h"
#include "support/expert_file.h"
#include "support/store_over.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { MOST_DEMANDS = 4000 };

static char *path;

/* What a demand told, as a trace. */
static pi2_trace_demand demands[MOST_DEMANDS + 1];
static uint32_t keys[MOST_DEMANDS * EXPERTS];
static pi2_batch_use uses[MOST_DEMANDS * EXPERTS];
static pi2_trace trace;
static bool is_batch; /* of the demands to come */
static bool on_demand_only; /* of the caches to come */

static void on_demand(void *user, const uint32_t *demanded, uint32_t count) {
    (void)user;
    if (!demanded) return;
    trace.demands[trace.demand_count++] = (pi2_trace_demand){ trace.key_count, is_batch ? PI2_BATCH_LEAST : 1 };
    memcpy(trace.keys + trace.key_count, demanded, count * sizeof *demanded);
    trace.key_count += count;
    trace.demands[trace.demand_count].begin = trace.key_count;
}

typedef struct setup {
    pi2_expert_cache *cache;
    pi2_reader *reader; /* the store's */
    pi2_store *store;
    void *memory;
    size_t bytes, reserved;
} setup;

static bool gates_only;

static setup open_cache(const char *method, const pi2_cache_policy *policy, uint32_t slots) {
    const uint64_t slot = gates_only ? pi2_expert_cache_gate_slot_bytes(&expert_layout)
                                     : pi2_expert_cache_slot_bytes(&expert_layout);
    setup s = { .bytes = (size_t)(slots * slot) };
    s.reserved = s.bytes;
    if (slots >= KEYS) {
        s.bytes = (size_t)(gates_only ? pi2_expert_cache_all_gate_bytes(&expert_layout)
                                      : pi2_expert_cache_all_bytes(&expert_layout));
        s.reserved = (size_t)(KEYS * slot);
    }
    assert_int_equal(pi2_pages_reserve(s.reserved, false, "slots", &s.memory), PI2_OK);
    const pi2_reader_options reader = { .path = path, .method = method, .depth = 4 };
    if (pi2_reader_open(&reader, &s.reader) != PI2_OK) fail_msg("%s", pi2_error_text());
    s.store = store_over(s.reader, on_demand_only);
    const pi2_expert_cache_options options = { .layout = &expert_layout, .path = path, .memory = s.memory,
                                               .bytes = s.bytes, .gates_only = gates_only,
                                               .policy = policy, .layer_keys = EXPERTS, .store = s.store,
                                               .least_slots = 5, .on_demand = on_demand };
    if (pi2_expert_cache_create(&options, &s.cache) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(pi2_expert_cache_slots(s.cache), slots < KEYS ? slots : KEYS);
    trace = (pi2_trace){ .header = { LAYERS, EXPERTS, 2, 1 }, .demands = demands, .keys = keys, .uses = uses };
    return s;
}

static void close_cache(setup *s) {
    pi2_expert_cache_free(s->cache);
    pi2_store_free(s->store);
    pi2_pages_release(s->memory, s->reserved);
}

static pi2_status any_demand(pi2_expert_cache *cache, uint64_t *random, uint32_t number, uint32_t most) {
    uint32_t chosen[EXPERTS];
    const uint32_t count = expert_choose(random, number % LAYERS, most, chosen);
    return expert_run_demand(cache, chosen, NULL, count, NULL, 0);
}

static void test_bytes_and_hits(void **state) {
    (void)state;
    expert_file_write(path, 0);
    static const char *const methods[] = { "auto", "pread" };
    static const uint32_t sizes[] = { 1, 2, 3, 7, 12, 20, KEYS };
    for (size_t p = 0; p < pi2_cache_policy_count * 2; p++) {
        const pi2_cache_policy *policy = pi2_cache_policies[p / 2];
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            setup s = open_cache(methods[p % 2], policy, sizes[i]);
            uint64_t random = p * 100 + i;
            uint32_t chosen[EXPERTS];
            const uint32_t most = i % 2 ? EXPERTS : sizes[i] < EXPERTS ? sizes[i] : EXPERTS;
            bool fits = true;
            for (uint32_t d = 0; d < 160; d++) {
                const uint32_t count = expert_choose(&random, d % LAYERS, most, chosen);
                is_batch = d / 20 % 2;
                if (d % LAYERS == 0) pi2_expert_cache_begin_pass(s.cache, is_batch ? PI2_BATCH_LEAST : 1);
                for (uint32_t k = 0; k < count; k++) {
                    uses[trace.key_count + k] = (pi2_batch_use){ (float)(1 + pi2_tiny_random(&random) % 4),
                                                                 1 + (uint32_t)(pi2_tiny_random(&random) % 20) };
                }
                if (count > sizes[i]) fits = false;
                const pi2_batch_use *used = is_batch ? uses + trace.key_count : NULL;
                if (expert_run_demand(s.cache, chosen, used, count, NULL, 0) != PI2_OK) {
                    fail_msg("%s", pi2_error_text());
                }
            }
            is_batch = false;
            pi2_expert_cache_counters counters;
            pi2_replay_result replay;
            pi2_expert_cache_count(s.cache, &counters);
            assert_int_equal(counters.touches, trace.key_count);
            assert_int_equal(pi2_trace_replay_policy(&trace, policy, sizes[i], 0, &replay), PI2_OK);
            if (fits && counters.hits != replay.hits) {
                fail_msg("%s, %u slots: %llu hits, the replay has %llu", policy->name, sizes[i],
                         (unsigned long long)counters.hits, (unsigned long long)replay.hits);
            }
            pi2_reader_counters reads; /* each miss is read once, whole */
            pi2_reader_count(s.reader, &reads);
            assert_true(reads.reads <= (counters.touches - counters.hits) * EXTENTS);
            assert_true(reads.reads >= counters.touches - counters.hits);
            if (sizes[i] == KEYS) assert_true(counters.touches - counters.hits <= KEYS && counters.evictions == 0);
            close_cache(&s);
        }
    }
}

/* Random demands until one fails; then the cache must be as good as new. */
static void break_and_mend(setup *s, pi2_status want, const char *text) {
    uint64_t random = 5;
    pi2_status status = PI2_OK;
    for (uint32_t d = 0; d < 60 && status == PI2_OK; d++) {
        status = any_demand(s->cache, &random, d, EXPERTS);
    }
    assert_int_equal(status, want);
    if (!strstr(pi2_error_text(), text)) fail_msg("'%s' is not in: %s", text, pi2_error_text());
    pi2_store_reset(s->store);
    expert_file_write(path, 0);
    for (uint32_t d = 0; d < 60; d++) {
        if (any_demand(s->cache, &random, d, EXPERTS) != PI2_OK) {
            fail_msg("%s", pi2_error_text());
        }
    }
}

/* A cache of Gates alone: as many experts' in less memory, and the rest of them is never read. */
static void test_gates_alone(void **state) {
    (void)state;
    expert_file_write(path, 0);
    assert_true(pi2_expert_cache_gate_slot_bytes(&expert_layout) < pi2_expert_cache_slot_bytes(&expert_layout));
    gates_only = true;
    expert_used_extents = EXTENTS - 1;
    static const uint32_t sizes[] = { 1, 7, 20, KEYS };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        setup s = open_cache(i % 2 ? "auto" : "pread", pi2_cache_policies[0], sizes[i]);
        uint64_t random = i, gate_bytes = 0;
        for (uint32_t d = 0; d < 120; d++) {
            if (any_demand(s.cache, &random, d, EXPERTS) != PI2_OK) fail_msg("%s", pi2_error_text());
        }
        for (uint32_t key = 0; key < KEYS; key++) {
            for (uint32_t x = 0; x + 1 < EXTENTS; x++) {
                gate_bytes += pi2_extent_read_bytes(&expert_extents[key * EXTENTS + x]);
            }
        }
        pi2_reader_counters reader;
        pi2_reader_count(s.reader, &reader);
        if (sizes[i] >= KEYS) assert_true(reader.bytes_read <= gate_bytes);
        else assert_true(reader.bytes_read > gate_bytes);
        close_cache(&s);
    }
    gates_only = false;
    expert_used_extents = EXTENTS;
}

static void test_failures(void **state) {
    (void)state;
    static const uint32_t sizes[] = { 2, 9, KEYS };
    for (size_t p = 0; p < pi2_cache_policy_count; p++) {
        for (size_t i = 0; i < 3; i++) {
            expert_file_write(path, expert_extents[(EXPERTS + 3) * EXTENTS + 1].file_offset + 640);
            setup s = open_cache(p % 2 ? "pread" : "auto", pi2_cache_policies[p], sizes[i]);
            break_and_mend(&s, PI2_ERR_FORMAT, "checksum");
            close_cache(&s);
            expert_file_write(path, 0);
            s = open_cache(p % 2 ? "pread" : "auto", pi2_cache_policies[p], sizes[i]);
            assert_int_equal(truncate(path, FILE_BLOCKS * BLOCK / 2), 0);
            break_and_mend(&s, PI2_ERR_IO, "experts");
            close_cache(&s);
        }
    }
}

static void test_too_small(void **state) {
    (void)state;
    expert_file_write(path, 0);
    static uint8_t block[BLOCK];
    pi2_expert_cache *cache = NULL;
    pi2_store *store = store_over(NULL, false);
    const pi2_expert_cache_options options = { .layout = &expert_layout, .path = path, .memory = block, .store = store,
                                               .bytes = sizeof block, .layer_keys = EXPERTS,
                                               .policy = pi2_cache_policy_find("auto") };
    assert_int_equal(pi2_expert_cache_create(&options, &cache), PI2_ERR_INVALID);
    pi2_store_free(store);
    assert_null(cache);
    assert_int_equal(pi2_expert_cache_keys(&expert_layout), KEYS);
}

static void run_some(const setup *s, uint64_t random) {
    for (uint32_t d = 0; d < 40; d++) {
        if (any_demand(s->cache, &random, d, 4) != PI2_OK) {
            fail_msg("%s", pi2_error_text());
        }
    }
}

static uint32_t populate_all(const setup *s) {
    uint32_t count = 0;
    while (pi2_expert_cache_populate(s->cache)) count++;
    return count;
}

/* Memory taken ahead of the reads: none stays behind when slots are given back, and no byte changes. */
static void test_populate(void **state) {
    (void)state;
    expert_file_write(path, 0);
    for (size_t method = 0; method < 2; method++) {
        setup s = open_cache(method ? "pread" : "auto", pi2_cache_policy_find("lru"), 12);
        const uint64_t slot = pi2_expert_cache_slot_bytes(&expert_layout);
        assert_int_equal(pi2_store_unread_bytes(s.store), 12 * slot);
        if (populate_all(&s) == 0) { /* a system that cannot: everything else works */
            run_some(&s, 3);
            close_cache(&s);
            continue;
        }
        assert_int_equal(pi2_store_unread_bytes(s.store), 0);
        run_some(&s, 3);
        assert_int_equal(pi2_store_give_back(s.store, UINT32_MAX, 12 * slot), 7 * slot);
        assert_int_equal(populate_all(&s), 0);
        run_some(&s, 4);
        assert_int_equal(pi2_store_take_again(s.store, UINT32_MAX, 7 * slot), 7 * slot);
        assert_int_equal(pi2_store_unread_bytes(s.store), 7 * slot);
        assert_int_equal(populate_all(&s), 0); /* memory was short: only reads take it from now on */
        run_some(&s, 5);
        close_cache(&s);
    }
}

static bool any_arrived(const setup *s, uint32_t key) {
    for (uint32_t x = 0; x < EXTENTS; x++) {
        if (pi2_expert_cache_arrived(s->cache, key, x)) return true;
    }
    return false;
}

/* One expert after the other, only when a thread waits, and none ahead of its demand; the bytes are the same. */
static void test_on_demand_only(void **state) {
    (void)state;
    expert_file_write(path, 0);
    static const uint32_t wanted[] = { 0, 1, 2, 5 }, ahead[] = { EXPERTS };
    static const uint32_t sizes[] = { 2, 12, KEYS };
    on_demand_only = true;
    for (size_t i = 0; i < 3; i++) {
        setup s = open_cache(i ? "auto" : "pread", pi2_cache_policy_find("lru"), sizes[i]);
        assert_false(pi2_expert_cache_can_look_ahead(s.cache));
        pi2_expert_cache_demand(s.cache, wanted, NULL, 4);
        pi2_expert_cache_look_ahead(s.cache, ahead, 1);
        for (uint32_t w = 0; w < 4; w++) {
            uint32_t used = 0;
            int mark = 0;
            (void)nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL); /* what should not come could arrive */
            assert_int_equal(pi2_expert_cache_poll(s.cache, &mark), PI2_OK);
            for (uint32_t after = w; after < 4; after++) assert_false(any_arrived(&s, wanted[after]));
            while (used < EXTENTS) {
                pi2_expert_cache_wait(s.cache, mark);
                assert_int_equal(pi2_expert_cache_poll(s.cache, &mark), PI2_OK);
                while (used < EXTENTS && pi2_expert_cache_arrived(s.cache, wanted[w], used)) {
                    assert_int_equal(expert_use_extent(s.cache, wanted[w], used++), PI2_OK);
                }
            }
            pi2_expert_cache_release(s.cache, wanted[w]);
        }
        run_some(&s, i);
        pi2_expert_cache_counters counters;
        pi2_expert_cache_count(s.cache, &counters);
        assert_true(counters.ahead == 0 && counters.foreseen == 0);
        close_cache(&s);
    }
    on_demand_only = false;
}

static uint32_t told_slots;

static void note_size(void *state, uint32_t slot_count) {
    (void)state;
    told_slots = slot_count;
}

/* The policy is told of every slot that goes and comes, also where all experts fitted before. */
static void test_policy_knows_the_size(void **state) {
    (void)state;
    expert_file_write(path, 0);
    pi2_cache_policy policy = *pi2_cache_policy_find("lru");
    policy.resize = note_size;
    const uint64_t slot = pi2_expert_cache_slot_bytes(&expert_layout);
    static const uint32_t sizes[] = { 12, KEYS };
    for (size_t i = 0; i < 2; i++) {
        setup s = open_cache("auto", &policy, sizes[i]);
        told_slots = 0;
        run_some(&s, 3);
        assert_int_equal(told_slots, 0);
        assert_int_equal(pi2_store_give_back(s.store, UINT32_MAX, sizes[i] * slot), (sizes[i] - 5) * slot);
        assert_int_equal(told_slots, 5);
        assert_int_equal(pi2_store_take_again(s.store, UINT32_MAX, 2 * slot), 2 * slot);
        assert_int_equal(told_slots, 7);
        run_some(&s, 4);
        close_cache(&s);
    }
}

/* What is being read stays, and keeps nothing else in memory, though its slot is the last one. */
static void test_read_keeps_its_slot_alone(void **state) {
    (void)state;
    expert_file_write(path, 0);
    static const uint32_t last[] = { KEYS - 1, KEYS - 2 };
    for (size_t method = 0; method < 2; method++) {
        setup s = open_cache(method ? "pread" : "auto", pi2_cache_policy_find("lru"), KEYS);
        const uint64_t slot = pi2_expert_cache_slot_bytes(&expert_layout);
        for (uint32_t d = 0; d < 2; d++) { /* each expert of the first layers was there */
            uint32_t all[EXPERTS];
            for (uint32_t i = 0; i < EXPERTS; i++) all[i] = d * EXPERTS + i;
            assert_int_equal(expert_run_demand(s.cache, all, NULL, EXPERTS, NULL, 0), PI2_OK);
        }
        pi2_expert_cache_look_ahead(s.cache, last, 2);
        pi2_expert_cache_counters counters;
        pi2_expert_cache_count(s.cache, &counters);
        assert_int_equal(counters.ahead, 2);
        assert_int_equal(pi2_store_give_back(s.store, UINT32_MAX, KEYS * slot), (KEYS - 5) * slot);
        run_some(&s, 3);
        close_cache(&s);
    }
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    path = test_folder_path("experts");
    expert_layout_make();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_and_hits), cmocka_unit_test(test_failures), cmocka_unit_test(test_too_small),
        cmocka_unit_test(test_populate), cmocka_unit_test(test_on_demand_only), cmocka_unit_test(test_gates_alone),
        cmocka_unit_test(test_policy_knows_the_size), cmocka_unit_test(test_read_keeps_its_slot_alone),
    };
    return cmocka_run_group_tests_name("expert cache", tests, set_up, test_folder_end);
}
