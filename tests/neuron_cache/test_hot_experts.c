/*
 * Goal:   hot experts are read at the start and found from then on, whatever the others do; the cache finds what
 *         its replay says; they leave last where memory is short, and come back; those that are not used any more
 *         change places with those that are; failed reads and wrong checksums end nothing that was not demanded.
 * Method: a file whose words say where they are, every policy; a hot set chosen from made-up traces.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/pages.h"
#include "planner/hot_plan.h"
#include "planner/trace_replay.h"
#include "support/expert_file.h"
#include "support/store_over.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { MOST_DEMANDS = 8000, SLOTS = 16, HOT = 8, LONG = 400 };

static char *path;
static pi2_trace_demand demands[MOST_DEMANDS + 1];
static uint32_t trace_keys[MOST_DEMANDS * EXPERTS];
static pi2_trace trace;
static uint64_t cut_at; /* the file ends there once it is open; 0: it does not */

/* Two of each layer: 1 and 6. */
static const uint32_t hot_keys[HOT] = { 1, 6, 9, 14, 17, 22, 25, 30 };

static void add_demand(const uint32_t *keys, uint32_t count) {
    trace.demands[trace.demand_count++] = (pi2_trace_demand){ trace.key_count, 1 };
    memcpy(trace.keys + trace.key_count, keys, count * sizeof *keys);
    trace.key_count += count;
    trace.demands[trace.demand_count].begin = trace.key_count;
}

static void on_demand(void *user, const uint32_t *keys, uint32_t count) {
    (void)user;
    if (keys) add_demand(keys, count);
}

static void begin_trace(void) {
    trace = (pi2_trace){ .header = { LAYERS, EXPERTS, 2, 1 }, .demands = demands, .keys = trace_keys };
}

typedef struct setup {
    pi2_expert_cache *cache;
    pi2_reader *reader; /* the store's */
    pi2_store *store;
    void *memory;
    size_t bytes;
} setup;

static setup open_cache(const char *method, const pi2_cache_policy *policy) {
    setup s = { .bytes = (size_t)(SLOTS * pi2_expert_cache_slot_bytes(&expert_layout)) };
    assert_int_equal(pi2_pages_reserve(s.bytes, false, "slots", &s.memory), PI2_OK);
    const pi2_reader_options reader = { .path = path, .method = method, .depth = 4 };
    if (pi2_reader_open(&reader, &s.reader) != PI2_OK) fail_msg("%s", pi2_error_text());
    s.store = store_over(s.reader, false);
    if (cut_at) assert_int_equal(truncate(path, (off_t)cut_at), 0);
    const pi2_expert_cache_options options = { .layout = &expert_layout, .path = path, .memory = s.memory,
                                               .bytes = s.bytes, .policy = policy, .layer_keys = EXPERTS,
                                               .hot_keys = hot_keys, .hot_count = HOT,
                                               .store = s.store, .least_slots = 2, .on_demand = on_demand };
    if (pi2_expert_cache_create(&options, &s.cache) != PI2_OK) fail_msg("%s", pi2_error_text());
    begin_trace();
    return s;
}

static void close_cache(setup *s) {
    pi2_expert_cache_free(s->cache);
    pi2_store_free(s->store);
    pi2_pages_release(s->memory, s->bytes);
}

static bool arrived(const setup *s, const uint32_t *keys, uint32_t count) {
    for (uint32_t i = 0; i < count * EXTENTS; i++) {
        if (!pi2_expert_cache_arrived(s->cache, keys[i / EXTENTS], i % EXTENTS)) return false;
    }
    return true;
}

static void await_hot(const setup *s) {
    while (!arrived(s, hot_keys, HOT)) {
        int mark = 0;
        assert_int_equal(pi2_expert_cache_poll(s->cache, &mark), PI2_OK);
        if (!arrived(s, hot_keys, HOT)) pi2_expert_cache_wait(s->cache, mark);
    }
}

static pi2_expert_cache_counters count(const setup *s) {
    pi2_expert_cache_counters counters;
    pi2_expert_cache_count(s->cache, &counters);
    return counters;
}

static bool is_hot(uint32_t key) {
    for (uint32_t i = 0; i < HOT; i++) if (hot_keys[i] == key) return true;
    return false;
}

static void demand(const setup *s, const uint32_t *chosen, uint32_t chosen_count) {
    if (expert_run_demand(s->cache, chosen, NULL, chosen_count, NULL, 0) != PI2_OK) fail_msg("%s", pi2_error_text());
}

/* Random demands; returns the uses of those that were hot at the start. */
static uint32_t run_passes(const setup *s, uint64_t random, uint32_t passes) {
    uint32_t hot_uses = 0, chosen[EXPERTS];
    for (uint32_t d = 0; d < passes * LAYERS; d++) {
        if (d % LAYERS == 0) pi2_expert_cache_begin_pass(s->cache, 1);
        const uint32_t chosen_count = expert_choose(&random, d % LAYERS, 4, chosen);
        for (uint32_t i = 0; i < chosen_count; i++) hot_uses += is_hot(chosen[i]);
        demand(s, chosen, chosen_count);
    }
    return hot_uses;
}

static void test_found_as_replayed(void **state) {
    (void)state;
    expert_file_write(path, 0);
    for (size_t p = 0; p < pi2_cache_policy_count * 2; p++) {
        const pi2_cache_policy *policy = pi2_cache_policies[p / 2];
        setup s = open_cache(p % 2 ? "pread" : "auto", policy);
        await_hot(&s);
        assert_int_equal(count(&s).hot, HOT);
        const uint32_t hot_uses = run_passes(&s, p, 15); /* none has changed places yet */
        assert_true(hot_uses > 20);
        assert_int_equal(count(&s).hot_hits, hot_uses);
        assert_true(count(&s).evictions > 0);
        (void)run_passes(&s, p + 100, 100);
        pi2_replay_result replay;
        assert_int_equal(pi2_trace_replay_hot(&trace, policy, SLOTS, hot_keys, HOT, 0, &replay), PI2_OK);
        const pi2_expert_cache_counters counters = count(&s);
        if (counters.hits != replay.hits) {
            fail_msg("%s: %llu hits, the replay has %llu", policy->name, (unsigned long long)counters.hits,
                     (unsigned long long)replay.hits);
        }
        assert_true(counters.hot >= 1 && counters.hot <= pi2_hot_experts_most(SLOTS));
        assert_int_equal(counters.hot, HOT + counters.promotions - counters.demotions);
        close_cache(&s);
    }
}

/* Demands that come before the hot experts do join their reads: nothing is read twice. */
static void test_demanded_while_read(void **state) {
    (void)state;
    expert_file_write(path, 0);
    for (int method = 0; method < 2; method++) {
        setup s = open_cache(method ? "pread" : "auto", pi2_cache_policy_find("auto"));
        for (uint32_t layer = LAYERS; layer-- > 0;) demand(&s, hot_keys + 2 * layer, 2);
        await_hot(&s);
        assert_int_equal(count(&s).evictions, 0);
        pi2_reader_counters reads;
        pi2_reader_count(s.reader, &reads);
        uint64_t bytes = 0;
        for (uint32_t i = 0; i < HOT * EXTENTS; i++) {
            bytes += pi2_extent_read_bytes(&expert_extents[hot_keys[i / EXTENTS] * EXTENTS + i % EXTENTS]);
        }
        assert_int_equal(reads.bytes_read, bytes);
        assert_int_equal(count(&s).hits + (HOT - count(&s).hits), count(&s).touches);
        close_cache(&s);
    }
}

/* The others' slots go first; then hot ones leave; with the memory they come back by themselves. */
static void test_given_back_last(void **state) {
    (void)state;
    expert_file_write(path, 0);
    const uint64_t slot = pi2_expert_cache_slot_bytes(&expert_layout);
    setup s = open_cache("auto", pi2_cache_policy_find("lru"));
    await_hot(&s);
    (void)run_passes(&s, 7, 4);
    assert_int_equal(pi2_store_give_back(s.store, UINT32_MAX, (SLOTS - HOT - 2) * slot), (SLOTS - HOT - 2) * slot);
    assert_int_equal(count(&s).hot, HOT);
    const uint64_t before = count(&s).hot_hits;
    const uint32_t uses = run_passes(&s, 8, 4);
    assert_int_equal(count(&s).hot_hits - before, uses);
    assert_int_equal(pi2_store_give_back(s.store, UINT32_MAX, 3 * slot), 3 * slot);
    assert_int_equal(count(&s).hot, HOT - 3);
    (void)run_passes(&s, 9, 2);
    assert_int_equal(pi2_store_give_back(s.store, UINT32_MAX, SLOTS * slot), (HOT - 3) * slot);
    assert_int_equal(count(&s).hot, 0);
    (void)run_passes(&s, 10, 2);
    assert_int_equal(pi2_store_take_again(s.store, UINT32_MAX, 5 * slot), 5 * slot);
    assert_int_equal(count(&s).hot, 5);
    assert_int_equal(pi2_store_take_again(s.store, UINT32_MAX, SLOTS * slot), (SLOTS - 7) * slot);
    assert_int_equal(count(&s).hot, HOT);
    await_hot(&s);
    const uint64_t then = count(&s).hot_hits;
    const uint32_t again = run_passes(&s, 11, 2);
    assert_int_equal(again, count(&s).hot_hits - then);
    assert_int_equal(count(&s).promotions + count(&s).demotions, 0);
    close_cache(&s);
}

/* Memory goes and returns at any time, hot experts on their way or not: what is found has the right bytes. */
static void test_give_and_take(void **state) {
    (void)state;
    expert_file_write(path, 0);
    const uint64_t slot = pi2_expert_cache_slot_bytes(&expert_layout);
    for (uint64_t seed = 1; seed <= 16; seed++) {
        setup s = open_cache(seed % 2 ? "pread" : "auto", pi2_cache_policies[seed % pi2_cache_policy_count]);
        uint64_t random = seed;
        for (int i = 0; i < 12; i++) {
            (void)run_passes(&s, pi2_tiny_random(&random), (uint32_t)(pi2_tiny_random(&random) % 20));
            if (pi2_tiny_random(&random) % 2) {
                (void)pi2_store_give_back(s.store, UINT32_MAX, pi2_tiny_random(&random) % SLOTS * slot);
            } else {
                (void)pi2_store_take_again(s.store, UINT32_MAX, pi2_tiny_random(&random) % SLOTS * slot);
            }
        }
        while (pi2_store_away_bytes(s.store)) (void)pi2_store_take_again(s.store, UINT32_MAX, SLOTS * slot);
        (void)run_passes(&s, seed, 20);
        close_cache(&s);
    }
}

/* Uses turn to other experts: these become hot, those no longer are. */
static void test_change_places(void **state) {
    (void)state;
    expert_file_write(path, 0);
    setup s = open_cache("auto", pi2_cache_policy_find("lru"));
    await_hot(&s);
    for (uint32_t pass = 0; pass < LONG; pass++) {
        pi2_expert_cache_begin_pass(s.cache, 1);
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            const uint32_t others[2] = { layer * EXPERTS + 3, layer * EXPERTS + (pass % 4 ? 4 : 5) };
            demand(&s, others, 2);
        }
    }
    assert_true(count(&s).promotions >= 4 && count(&s).demotions >= 4);
    const uint64_t before = count(&s).hot_hits;
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        const uint32_t other = layer * EXPERTS + 3;
        demand(&s, &other, 1);
    }
    assert_int_equal(count(&s).hot_hits - before, LAYERS);
    close_cache(&s);
}

static bool below_eight(const void *user, uint32_t key) {
    (void)user;
    return key < 8;
}

static bool anyone(const void *user, uint32_t key) {
    (void)user;
    (void)key;
    return true;
}

/* The split follows what a slot is worth: hot ones that nobody uses leave for those that just left, and where a few of
 * the others are used most and nothing is missed, more become hot. */
static void test_split_moves(void **state) {
    (void)state;
    const pi2_cache_policy *policy = pi2_cache_policy_find("lru");
    static const uint32_t keys[8] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    void *memory = malloc(pi2_hot_experts_bytes(KEYS));
    void *book_memory = malloc(pi2_cache_book_bytes(policy, KEYS, SLOTS, EXPERTS));
    assert_true(memory && book_memory);
    for (int grows = 0; grows < 2; grows++) {
        pi2_hot_experts *hot = pi2_hot_experts_init(memory, KEYS, SLOTS, keys, grows ? 4 : 8);
        pi2_cache_book *book = pi2_cache_book_init(book_memory, policy, KEYS, SLOTS, EXPERTS);
        for (uint32_t i = 0; i < (grows ? 4u : 8u); i++) pi2_hot_experts_hold(hot, keys[i]);
        for (uint32_t key = 8; key < 16; key++) pi2_cache_book_admit(book, key);
        for (uint32_t key = 4; grows && key < 8; key++) pi2_cache_book_admit(book, key);
        for (uint32_t pass = 0; pass < LONG; pass++) {
            for (uint32_t key = 0; grows && key < 16; key++) {
                if (key >= 4 || pass % 2) pi2_hot_experts_use(hot, key, 1);
            }
            if (!grows) {
                pi2_hot_experts_evicted(hot, 20);
                pi2_hot_experts_missed(hot, 20);
            }
            pi2_hot_experts_begin_pass(hot, book, grows ? anyone : below_eight, NULL);
        }
        const pi2_hot_counters counters = pi2_hot_experts_counters(hot);
        assert_int_equal(pi2_hot_experts_count(hot), grows ? pi2_hot_experts_most(SLOTS) : 1);
        assert_true(grows ? counters.promotions >= 8 : counters.demotions >= 7 && counters.promotions == 0);
    }
    free(memory);
    free(book_memory);
}

static void test_failures(void **state) {
    (void)state;
    static const uint32_t other = 0;
    expert_file_write(path, expert_extents[hot_keys[1] * EXTENTS].file_offset + 640);
    setup s = open_cache("auto", pi2_cache_policy_find("auto"));
    await_hot(&s);
    demand(&s, &other, 1);
    assert_int_equal(expert_run_demand(s.cache, &hot_keys[1], NULL, 1, NULL, 0), PI2_ERR_FORMAT);
    pi2_store_reset(s.store);
    expert_file_write(path, 0);
    (void)run_passes(&s, 3, 10);
    await_hot(&s);
    close_cache(&s);

    expert_file_write(path, 0);
    cut_at = expert_extents[EXPERTS * EXTENTS].file_offset; /* the first layer is left */
    s = open_cache("auto", pi2_cache_policy_find("auto"));
    cut_at = 0;
    for (int i = 0; i < 20; i++) demand(&s, &other, 1);
    assert_int_equal(expert_run_demand(s.cache, &hot_keys[3], NULL, 1, NULL, 0), PI2_ERR_IO); /* is told now */
    pi2_store_reset(s.store);
    expert_file_write(path, 0);
    (void)run_passes(&s, 3, 10);
    await_hot(&s);
    close_cache(&s);
}

static void test_too_many(void **state) {
    (void)state;
    expert_file_write(path, 0);
    static uint8_t memory[BLOCK];
    static uint32_t keys[SLOTS];
    for (uint32_t i = 0; i < SLOTS; i++) keys[i] = i;
    pi2_expert_cache *cache = NULL;
    pi2_store *store = store_over(NULL, false);
    const pi2_expert_cache_options options = {
        .layout = &expert_layout, .path = path, .memory = memory, .layer_keys = EXPERTS, .hot_keys = keys,
        .store = store,
        .bytes = SLOTS * pi2_expert_cache_slot_bytes(&expert_layout), .hot_count = pi2_hot_experts_most(SLOTS) + 1,
        .policy = pi2_cache_policy_find("auto") };
    assert_int_equal(pi2_expert_cache_create(&options, &cache), PI2_ERR_INVALID);
    pi2_store_free(store);
    assert_int_equal(pi2_hot_experts_most(1), 0);
    assert_int_equal(pi2_hot_experts_most(2), 1);
    assert_int_equal(pi2_hot_experts_most(100), 75);
}

/* Passes in which a share of uses (of 16) goes to experts 0 and 1 of each layer, the others evenly. */
static void make_trace(uint32_t passes, uint32_t layers, uint32_t experts, uint32_t favoured) {
    uint64_t random = 5;
    begin_trace();
    trace.header = (pi2_trace_header){ layers, experts, 2, 1 };
    for (uint32_t pass = 0; pass < passes; pass++) {
        for (uint32_t layer = 0; layer < layers; layer++) {
            uint32_t keys[2] = { 0, 0 };
            while (keys[0] == keys[1]) {
                for (int i = 0; i < 2; i++) {
                    const bool takes = pi2_tiny_random(&random) % 16 < favoured;
                    keys[i] = layer * experts + (uint32_t)(pi2_tiny_random(&random) % (takes ? 2 : experts));
                }
            }
            if (keys[0] > keys[1]) {
                const uint32_t first = keys[1];
                keys[1] = keys[0];
                keys[0] = first;
            }
            add_demand(keys, 2);
        }
    }
}

static void test_choice(void **state) {
    (void)state;
    pi2_hot_plan plan;
    const pi2_cache_policy *lru = pi2_cache_policy_find("lru");
    make_trace(LONG, LAYERS, EXPERTS, 12); /* a few are used most: LRU alone loses them from layer to layer */
    assert_int_equal(pi2_hot_plan_make(&trace, lru, 12, -1, &plan), PI2_OK);
    assert_true(plan.share > 0 && plan.count > 0 && plan.passes >= 128);
    for (uint32_t i = 0; i < plan.count; i++) {
        if (plan.share <= 0.5) assert_true(plan.keys[i] % EXPERTS < 2);
        assert_true(i == 0 || plan.keys[i] > plan.keys[i - 1]);
    }
    double best = 1;
    for (int i = 0; i < PI2_HOT_SHARES; i++) if (plan.reads[i] < best) best = plan.reads[i];
    assert_true(best < plan.reads[0] * 0.98);
    pi2_hot_plan_free(&plan);
    make_trace(LONG, 16, 24, 0); /* evenly, under the default: none is hot */
    for (uint32_t slots = 48; slots < 16 * 24; slots += 96) {
        assert_int_equal(pi2_hot_plan_make(&trace, pi2_cache_policy_find("auto"), slots, -1, &plan), PI2_OK);
        if (plan.share != 0) fail_msg("%u slots: share %g (%g, %g)", slots, plan.share, plan.reads[0], plan.reads[4]);
        assert_int_equal(plan.count, 0);
        pi2_hot_plan_free(&plan);
    }
    assert_int_equal(pi2_hot_plan_make(&trace, lru, 12, 0.5, &plan), PI2_OK); /* as asked for */
    assert_int_equal(plan.count, 6);
    assert_int_equal(plan.passes, 0);
    pi2_hot_plan_free(&plan);
    make_trace(40, LAYERS, EXPERTS, 12);
    assert_int_equal(pi2_hot_plan_make(&trace, lru, 12, -1, &plan), PI2_OK); /* too short */
    assert_true(plan.share == 0 && plan.count == 0 && plan.passes == 0);
    pi2_hot_plan_free(&plan);
}

/* Hot experts that are used all the time, and a scan through all others: the replay finds the hot ones each time. */
static void test_replay(void **state) {
    (void)state;
    begin_trace();
    for (uint32_t pass = 0; pass < 64; pass++) {
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            const uint32_t keys[2] = { layer * EXPERTS, layer * EXPERTS + 1 + pass % (EXPERTS - 1) };
            add_demand(keys, 2);
        }
    }
    static const uint32_t first[LAYERS] = { 0, EXPERTS, 2 * EXPERTS, 3 * EXPERTS };
    pi2_replay_result without, with;
    const pi2_cache_policy *lru = pi2_cache_policy_find("lru");
    assert_int_equal(pi2_trace_replay_policy(&trace, lru, 6, 0, &without), PI2_OK);
    assert_int_equal(pi2_trace_replay_hot(&trace, lru, 6, first, LAYERS, 0, &with), PI2_OK);
    assert_int_equal(without.hits, 0);
    assert_int_equal(with.hits, 64 * LAYERS);
    assert_int_equal(with.uses, without.uses);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    path = test_folder_path("experts");
    expert_layout_make();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_found_as_replayed), cmocka_unit_test(test_demanded_while_read),
        cmocka_unit_test(test_given_back_last), cmocka_unit_test(test_give_and_take),
        cmocka_unit_test(test_change_places), cmocka_unit_test(test_split_moves), cmocka_unit_test(test_failures),
        cmocka_unit_test(test_too_many), cmocka_unit_test(test_choice), cmocka_unit_test(test_replay),
    };
    return cmocka_run_group_tests_name("hot experts", tests, set_up, test_folder_end);
}
