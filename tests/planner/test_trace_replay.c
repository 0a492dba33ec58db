/*
 * Goal:   Belady's replay is the optimum; every policy keeps the rules of cache_policy.h and never
 *         beats it; a least-recently-used cache is what a plain model of one says; the adaptive one
 *         is near the best of the others; a trace that was altered is refused or read as what it is.
 * Method: random traces; brute force on small ones; a checking layer between replay and policy.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "planner/trace_replay.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { MOST_USES = 60000 };

typedef struct random_trace {
    pi2_trace trace;
    uint32_t keys[MOST_USES];
    pi2_trace_demand demands[MOST_USES + 1];
} random_trace;
static random_trace made;

static uint32_t below(uint64_t *state, uint32_t limit) { return (uint32_t)(pi2_tiny_random(state) % limit); }

/* Passes over layers; each layer demands `used` distinct experts. repeat: of 16, how often one of the pass
 * before is taken again; skew: small experts are likelier. */
static const pi2_trace *make_trace(uint64_t seed, uint32_t layers, uint32_t experts, uint32_t used, uint32_t passes,
                                   uint32_t repeat, bool skew) {
    uint64_t state = seed;
    static uint8_t last[1 << 16], now[1 << 16];
    memset(last, 0, sizeof last);
    made.trace = (pi2_trace){ .header = { layers, experts, used, 4096 }, .keys = made.keys, .demands = made.demands };
    for (uint32_t p = 0; p < passes; p++) {
        memset(now, 0, sizeof now);
        for (uint32_t l = 0; l < layers; l++) {
            for (uint32_t n = 0; n < used;) {
                uint32_t e = below(&state, experts);
                if (skew && below(&state, 2)) e = below(&state, e + 1);
                if (below(&state, 16) < repeat && !last[l * experts + e]) continue;
                if (now[l * experts + e]) continue;
                now[l * experts + e] = 1;
                n++;
            }
            made.demands[made.trace.demand_count++] = (pi2_trace_demand){ made.trace.key_count, 1 };
            for (uint32_t e = 0; e < experts; e++) {
                if (now[l * experts + e]) made.keys[made.trace.key_count++] = l * experts + e;
            }
        }
        memcpy(last, now, sizeof last);
        made.trace.pass_count++;
        made.trace.token_count++;
    }
    made.demands[made.trace.demand_count] = (pi2_trace_demand){ made.trace.key_count, 0 };
    assert_true(made.trace.key_count < MOST_USES);
    return &made.trace;
}

/* Fewest misses from use i on with the keys of `held` present (a set of bits). */
static uint32_t fewest(const pi2_trace *trace, uint32_t i, uint32_t held, uint32_t slots) {
    if (i == trace->key_count) return 0;
    const uint32_t bit = 1u << trace->keys[i];
    if (held & bit) return fewest(trace, i + 1, held, slots);
    uint32_t count = 0;
    for (uint32_t b = held; b; b &= b - 1) count++;
    if (count < slots) return 1 + fewest(trace, i + 1, held | bit, slots);
    uint32_t best = UINT32_MAX;
    for (uint32_t b = held; b; b &= b - 1) {
        const uint32_t misses = fewest(trace, i + 1, (held & ~(b & (0u - b))) | bit, slots);
        if (misses < best) best = misses;
    }
    return 1 + best;
}

static void test_belady_is_the_optimum(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        const uint32_t layers = 1 + (uint32_t)(seed % 3), experts = 3 + (uint32_t)(seed % 4);
        const pi2_trace *trace = make_trace(seed, layers, experts, 1, 15 / layers, (uint32_t)(seed % 7), seed % 2);
        for (uint32_t slots = 1; slots <= 3; slots++) {
            pi2_replay_result result;
            assert_int_equal(pi2_trace_replay_belady(trace, slots, 0, &result), PI2_OK);
            assert_int_equal(result.uses, trace->key_count);
            assert_int_equal(result.uses - result.hits, fewest(trace, 0, 0, slots));
        }
    }
}

/* ---- a policy between replay and policy that checks what both do ---- */

typedef struct checker {
    const pi2_cache_policy *policy;
    uint32_t key_count, slot_count, present_count;
    uint8_t *present;
} checker;
static checker check;

static size_t check_bytes(uint32_t keys, uint32_t slots) {
    return check.policy->bytes(keys, slots);
}

static void check_init(void *state, uint32_t keys, uint32_t slots) {
    check.key_count = keys;
    check.slot_count = slots;
    check.present_count = 0;
    free(check.present);
    check.present = calloc(keys, 1);
    assert_non_null(check.present);
    check.policy->init(state, keys, slots);
}

static void check_hit(void *state, uint32_t key) {
    assert_true(check.present[key]);
    check.policy->hit(state, key);
}

static void check_admit(void *state, uint32_t key) {
    assert_false(check.present[key]);
    assert_true(check.present_count < check.slot_count);
    check.present[key] = 1;
    check.present_count++;
    check.policy->admit(state, key);
}

static uint32_t check_evict(void *state, pi2_cache_may_evict *may, const void *user) {
    bool some = false;
    for (uint32_t key = 0; key < check.key_count && !some; key++) some = check.present[key] && may(user, key);
    const uint32_t key = check.policy->evict(state, may, user);
    assert_int_equal(key == UINT32_MAX, !some); /* one that may leave is found, whatever is in use */
    if (key == UINT32_MAX) return key;
    assert_true(key < check.key_count && check.present[key] && may(user, key));
    check.present[key] = 0;
    check.present_count--;
    return key;
}

static void check_forget(void *state, uint32_t key) {
    assert_true(check.present[key]);
    check.present[key] = 0;
    check.present_count--;
    check.policy->forget(state, key);
}

static void check_resize(void *state, uint32_t slots) {
    assert_true(check.present_count <= slots);
    check.slot_count = slots;
    check.policy->resize(state, slots);
}

static void check_begin_pass(void *state, uint32_t passes) {
    assert_true(passes > 0);
    if (check.policy->begin_pass) check.policy->begin_pass(state, passes);
}

static const pi2_cache_policy checked = {
    .name = "checked", .description = "", .bytes = check_bytes, .init = check_init, .hit = check_hit,
    .admit = check_admit, .evict = check_evict, .forget = check_forget, .resize = check_resize,
    .begin_pass = check_begin_pass,
};

static void test_policies_keep_the_rules(void **state) {
    (void)state;
    for (size_t p = 0; p < pi2_cache_policy_count; p++) {
        check.policy = pi2_cache_policies[p];
        for (uint64_t seed = 1; seed <= 24; seed++) {
            const pi2_trace *trace = make_trace(seed, 4, 16, 1 + (uint32_t)(seed % 5), 60, (uint32_t)(seed % 12),
                                                seed % 2);
            for (uint32_t slots = 1; slots <= 64; slots = slots * 2 + (uint32_t)(seed % 2)) {
                pi2_replay_result result, best;
                assert_int_equal(pi2_trace_replay_policy(trace, &checked, slots, 0, &result), PI2_OK);
                assert_int_equal(pi2_trace_replay_belady(trace, slots, 0, &best), PI2_OK);
                assert_int_equal(result.uses, best.uses);
                if (slots >= trace->header.used_count) assert_true(result.hits <= best.hits);
                if (slots >= 64) assert_int_equal(result.hits, best.hits);
            }
        }
    }
    free(check.present);
    check.present = NULL;
}

static bool in_mask(const void *user, uint32_t key) { return (*(const uint64_t *)user >> key) & 1; }

/* Random calls: admit, hit, evict with some in use, forget, fewer slots, more. */
static void test_policies_under_random_calls(void **state) {
    (void)state;
    enum { KEYS = 40, SLOTS = 12 };
    for (size_t p = 0; p < pi2_cache_policy_count; p++) {
        check.policy = pi2_cache_policies[p];
        void *memory = malloc(checked.bytes(KEYS, SLOTS));
        assert_non_null(memory);
        checked.init(memory, KEYS, SLOTS);
        uint64_t random = p + 1;
        for (int i = 0; i < 20000; i++) {
            if (below(&random, 50) == 0) {
                const uint32_t slots = 1 + below(&random, SLOTS);
                const uint64_t all = UINT64_MAX;
                while (check.present_count > slots) (void)checked.evict(memory, in_mask, &all);
                checked.resize(memory, slots);
            }
            if (below(&random, 30) == 0) checked.begin_pass(memory, 1 + below(&random, 40));
            const uint32_t key = below(&random, KEYS);
            if (check.present[key]) {
                if (below(&random, 20) == 0) checked.forget(memory, key);
                else checked.hit(memory, key);
                continue;
            }
            /* May leave: what the bits say. */
            const uint64_t mask = pi2_tiny_random(&random) | (below(&random, 4) ? 0 : UINT64_MAX);
            const bool is_full = check.present_count == check.slot_count;
            if (is_full && checked.evict(memory, in_mask, &mask) == UINT32_MAX) continue;
            checked.admit(memory, key);
        }
        free(memory);
    }
    free(check.present);
    check.present = NULL;
}

/* A list of keys by last use: the definition. */
static uint64_t plain_lru(const pi2_trace *trace, uint32_t slots) {
    uint32_t held[256], count = 0;
    uint64_t hits = 0;
    for (uint32_t i = 0; i < trace->key_count; i++) {
        uint32_t at = 0;
        while (at < count && held[at] != trace->keys[i]) at++;
        hits += at < count;
        if (at == count && count < slots) count++;
        if (at == count) at--;
        memmove(held + 1, held, at * sizeof *held);
        held[0] = trace->keys[i];
    }
    return hits;
}

static void test_lru_is_what_it_says(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        const pi2_trace *trace = make_trace(seed, 5, 20, 1, 100, (uint32_t)(seed % 12), true);
        for (uint32_t slots = 1; slots <= 100; slots += 9) {
            pi2_replay_result result;
            assert_int_equal(pi2_trace_replay_policy(trace, pi2_cache_policy_find("lru"), slots, 0, &result), PI2_OK);
            assert_int_equal(result.hits, plain_lru(trace, slots));
        }
    }
}

/* Frequencies by the definition: a use is worth more than the one before by a constant factor. */
static uint64_t plain_lfu(const pi2_trace *trace, uint32_t slots, double half_life) {
    const uint32_t keys = trace->header.layer_count * trace->header.expert_count;
    double scores[256] = { 0 }, amount = 1;
    bool held[256] = { false };
    uint32_t count = 0;
    uint64_t hits = 0;
    for (uint32_t i = 0; i < trace->key_count; i++) {
        const uint32_t key = trace->keys[i];
        if (held[key]) {
            hits++;
        } else if (count == slots) {
            uint32_t worst = UINT32_MAX;
            for (uint32_t k = 0; k < keys; k++) {
                if (held[k] && (worst == UINT32_MAX || scores[k] < scores[worst])) worst = k;
            }
            held[worst] = false;
        } else {
            count++;
        }
        amount *= 1.0 + 0.69314718 / (half_life * keys);
        scores[key] += amount;
        held[key] = true;
    }
    return hits;
}

static void test_lfu_is_what_it_says(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        const pi2_trace *trace = make_trace(seed, 5, 20, 1, 200, (uint32_t)(seed % 12), true);
        for (uint32_t slots = 1; slots <= 100; slots += 9) {
            pi2_replay_result result;
            assert_int_equal(pi2_trace_replay_policy(trace, pi2_cache_policy_find("lfu"), slots, 0, &result), PI2_OK);
            assert_int_equal(result.hits, plain_lfu(trace, slots, 4));
        }
    }
}

/* The least worth of the next 24, by the definition: heat is a number that loses a 32nd of itself with every pass, and
 * `mix` adds what halves with every pass that went by without a use; one that could have been: the pass under way has
 * not come to later layers. The policy rounds, so of slots that are nearly worth as much either may leave: what is
 * found differs by little. */
static double plain_worth(const double *heats, const uint32_t *last, uint32_t key, uint32_t asking, uint32_t pass,
                          bool mixes) {
    const bool to_come = key / 20 > asking / 20;
    const uint32_t passes = pass - last[key] - (to_come && last[key] < pass);
    return mixes ? 0.6 * heats[key] / 32 + 0.2 * pow(0.5, passes) : heats[key];
}

static uint64_t plain_hand(const pi2_trace *trace, uint32_t slots, bool mixes) {
    double heats[256] = { 0 };
    uint32_t held[256], last[256] = { 0 }, count = 0, hand = 0;
    uint64_t hits = 0;
    for (uint32_t i = 0; i < trace->key_count; i++) {
        const uint32_t key = trace->keys[i], pass = i / 5; /* five layers, one key each */
        for (uint32_t k = 0; i % 5 == 0 && k < 256; k++) heats[k] *= 31.0 / 32;
        uint32_t at = 0;
        while (at < count && held[at] != key) at++;
        if (at < count) {
            hits++;
        } else if (count < slots) {
            held[count++] = key;
        } else {
            uint32_t victim = hand;
            double least = 1e9;
            for (uint32_t n = 0; n < 24 && n < slots; n++, hand = (hand + 1) % slots) {
                const double worth = plain_worth(heats, last, held[hand], key, pass, mixes);
                if (worth >= least) continue;
                least = worth;
                victim = hand;
            }
            held[victim] = key;
        }
        heats[key] += 1;
        last[key] = pass;
    }
    return hits;
}

static void compare_hand(const char *policy) {
    uint64_t differing = 0, uses = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        const pi2_trace *trace = make_trace(seed, 5, 20, 1, 200, (uint32_t)(seed % 12), true);
        for (uint32_t slots = 1; slots <= 100; slots += 9) {
            pi2_replay_result result;
            assert_int_equal(pi2_trace_replay_policy(trace, pi2_cache_policy_find(policy), slots, 0, &result), PI2_OK);
            const uint64_t plain = plain_hand(trace, slots, strcmp(policy, "mix") == 0);
            differing += result.hits > plain ? result.hits - plain : plain - result.hits;
            uses += result.uses;
        }
    }
    if (differing * 200 <= uses) return;
    fail_msg("%s: %llu of %llu", policy, (unsigned long long)differing, (unsigned long long)uses);
}

static void test_rules_of_neurons_are_what_they_say(void **state) {
    (void)state;
    compare_hand("heat");
    compare_hand("mix");
}

static void test_adaptive_is_near_the_best(void **state) {
    (void)state;
    const struct { uint32_t repeat; bool skew; } kinds[] = { { 0, false }, { 9, false }, { 0, true }, { 5, true } };
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        const pi2_trace *trace = make_trace(k + 5, 8, 16, 2, 1500, kinds[k].repeat, kinds[k].skew);
        for (uint32_t slots = 10; slots < 128; slots += 23) {
            uint64_t best = 0;
            pi2_replay_result result;
            for (const char *const *name = pi2_replay_policy_names(); *name; name++) {
                if (strcmp(*name, "adaptive") == 0) continue;
                assert_int_equal(pi2_trace_replay_policy(trace, pi2_cache_policy_find(*name), slots, 300, &result),
                                 PI2_OK);
                if (result.hits > best) best = result.hits;
            }
            assert_int_equal(pi2_trace_replay_policy(trace, pi2_cache_policy_find("auto"), slots, 300, &result),
                             PI2_OK);
            assert_int_equal(result.uses, 1200 * 16);
            if ((double)result.hits < 0.9 * (double)best - 0.02 * (double)result.uses) {
                fail_msg("kind %zu, %u slots: %llu hits, another policy has %llu", k, slots,
                         (unsigned long long)result.hits, (unsigned long long)best);
            }
        }
    }
}

typedef struct small_cache {
    const pi2_cache_policy *policy;
    void *memory;
    uint8_t present[64];
    uint32_t present_count, slot_count, hits;
} small_cache;

static small_cache make_small(const pi2_cache_policy *policy, uint32_t slots) {
    small_cache c = { .policy = policy, .memory = malloc(policy->bytes(64, slots)), .slot_count = slots };
    assert_non_null(c.memory);
    policy->init(c.memory, 64, slots);
    return c;
}

static bool any_key(const void *user, uint32_t key) {
    (void)user;
    (void)key;
    return true;
}

static void leave_one(small_cache *c) {
    c->present[c->policy->evict(c->memory, any_key, NULL)] = 0;
    c->present_count--;
}

static void use_key(small_cache *c, uint32_t key) {
    if (c->present[key]) {
        c->hits++;
        c->policy->hit(c->memory, key);
        return;
    }
    if (c->present_count == c->slot_count) leave_one(c);
    c->policy->admit(c->memory, key);
    c->present[key] = 1;
    c->present_count++;
}

/* A scan of all keys, some keys more often than others, or a set of keys that moves on. */
static uint32_t key_of(int kind, uint64_t *random, uint32_t i) {
    if (kind == 0) return i % 64;
    return kind == 1 ? below(random, 64) * below(random, 64) / 64 : (i / 40 * 7 + below(random, 12)) % 64;
}

/* Where all keys fitted no shadow missed; once they do not, the best policy leads as if they never had. */
static void test_adaptive_after_a_shrink(void **state) {
    (void)state;
    const pi2_cache_policy *policy = pi2_cache_policy_find("adaptive");
    for (int kind = 0; kind < 3; kind++) {
        small_cache shrunk = make_small(policy, 64), small = make_small(policy, 16);
        uint64_t random = 7;
        for (uint32_t i = 0; i < 40 * 64; i++) use_key(&shrunk, i % 64);
        while (shrunk.present_count > 16) leave_one(&shrunk);
        shrunk.slot_count = 16;
        policy->resize(shrunk.memory, 16);
        for (uint32_t i = 0; i < 20000; i++) {
            const uint32_t key = key_of(kind, &random, i);
            if (i == 10000) shrunk.hits = small.hits = 0;
            use_key(&shrunk, key);
            use_key(&small, key);
        }
        if (shrunk.hits < 0.97 * small.hits) fail_msg("kind %d: %u hits, not %u", kind, shrunk.hits, small.hits);
        free(shrunk.memory);
        free(small.memory);
    }
}

/* ---- the file ---- */

static void write_trace(const pi2_trace *trace, const char *path) {
    pi2_trace_writer *writer = NULL;
    assert_int_equal(pi2_trace_writer_open(path, NULL, &trace->header, &writer), PI2_OK);
    for (uint32_t d = 0; d < trace->demand_count; d++) {
        if (d % trace->header.layer_count == 0) pi2_trace_writer_pass(writer, 1);
        const uint32_t begin = trace->demands[d].begin;
        pi2_trace_writer_demand(writer, trace->keys + begin, trace->demands[d + 1].begin - begin);
    }
    assert_int_equal(pi2_trace_writer_close(writer), PI2_OK);
}

static void test_file_round_trip(void **state) {
    (void)state;
    char *folder = test_folder_make(), *path = test_path(folder, "trace");
    const pi2_trace *trace = make_trace(7, 3, 9, 2, 40, 4, true);
    write_trace(trace, path);
    pi2_trace got;
    assert_int_equal(pi2_trace_read(path, &got), PI2_OK);
    assert_memory_equal(&got.header, &trace->header, sizeof got.header);
    assert_int_equal(got.key_count, trace->key_count);
    assert_int_equal(got.demand_count, trace->demand_count);
    assert_int_equal(got.pass_count, 40);
    assert_memory_equal(got.keys, trace->keys, got.key_count * sizeof *got.keys);
    assert_memory_equal(got.demands, trace->demands, (got.demand_count + 1) * sizeof *got.demands);
    pi2_trace_free(&got);
    pi2_replay *replay = NULL;
    assert_int_equal(pi2_replay_open(path, &replay), PI2_OK);
    assert_int_equal(pi2_replay_get_info(replay)->use_count, 240);
    pi2_replay_result result;
    assert_int_equal(pi2_replay_run(replay, "belady", 27, 0, &result), PI2_OK);
    assert_int_equal(result.uses - result.hits, pi2_replay_get_info(replay)->distinct_count);
    assert_int_equal(pi2_replay_run(replay, "belady", 0, 0, &result), PI2_ERR_INVALID);
    assert_int_equal(pi2_replay_run(replay, "none", 5, 0, &result), PI2_ERR_INVALID);
    assert_int_equal(pi2_replay_get_info(replay)->pass_count, 40);
    assert_int_equal(pi2_replay_run(replay, "lru", 27, 39, &result), PI2_OK);
    assert_int_equal(result.passes, 1);
    assert_int_equal(result.uses, 6);
    assert_int_equal(pi2_replay_run(replay, "lru", 27, 40, &result), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "40 passes"));
    pi2_replay_close(replay);
    free(path);
    test_folder_remove(folder);
}

/* A trace of single neurons, told how near they are before every other demand; read back, cut and altered. */
static void test_how_near_units_are(void **state) {
    (void)state;
    char *folder = test_folder_make(), *path = test_path(folder, "trace");
    const pi2_trace_header header = { 2, 7, 0, 4096 };
    const uint32_t keys[2][2] = { { 1, 6 }, { 7, 12 } };
    pi2_trace_writer *writer = NULL;
    assert_int_equal(pi2_trace_writer_open(path, NULL, &header, &writer), PI2_OK);
    for (uint8_t pass = 0; pass < 3; pass++) {
        const uint8_t near[7] = { pass, 255, 0, 9, 8, 7, (uint8_t)(pass + 1) };
        pi2_trace_writer_pass(writer, 1);
        pi2_trace_writer_demand(writer, keys[0], 2);
        pi2_trace_writer_near(writer, near, 7);
        pi2_trace_writer_demand(writer, keys[1], 2);
    }
    assert_int_equal(pi2_trace_writer_close(writer), PI2_OK);
    pi2_trace got;
    assert_int_equal(pi2_trace_read(path, &got), PI2_OK);
    assert_int_equal(got.demand_count, 6);
    for (uint32_t d = 0; d < 6; d++) {
        assert_memory_equal(got.keys + got.demands[d].begin, keys[d % 2], sizeof keys[0]);
        assert_int_equal(got.near_of[d].count, d % 2 ? 7 : 0);
        if (d % 2 == 0) continue;
        const uint8_t *near = got.near + got.near_of[d].begin;
        assert_true(near[0] == d / 2 && near[1] == 255 && near[6] == d / 2 + 1);
    }
    pi2_trace_free(&got);
    size_t length;
    uint8_t *bytes = test_file_read(path, &length);
    int refused = 0;
    for (size_t i = 0; i < 3 * length; i++) {
        const uint8_t flip = i < length ? 0 : i < 2 * length ? 0x80 : 1;
        bytes[i % length] ^= flip;
        test_file_write(path, bytes, flip ? length : i);
        bytes[i % length] ^= flip;
        pi2_replay *replay = NULL;
        pi2_replay_result result;
        const pi2_status status = pi2_replay_open(path, &replay);
        refused += status != PI2_OK;
        if (status == PI2_OK) assert_int_equal(pi2_replay_run(replay, "gate", 2, 0, &result), PI2_OK);
        pi2_replay_close(replay);
    }
    assert_true(refused > (int)length);
    const uint32_t word_at = 32 + 4 + 12, too_many = 0x40000000u + 8;
    memcpy(bytes + word_at, &too_many, sizeof too_many);
    test_file_write(path, bytes, length);
    assert_int_equal(pi2_trace_read(path, &got), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "count of units at byte 48"));
    free(bytes);
    free(path);
    test_folder_remove(folder);
}

static void test_altered_files(void **state) {
    (void)state;
    char *folder = test_folder_make(), *path = test_path(folder, "trace");
    write_trace(make_trace(7, 3, 9, 2, 6, 4, true), path);
    static uint8_t bytes[4096];
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    const size_t length = fread(bytes, 1, sizeof bytes, file);
    assert_int_equal(fclose(file), 0);
    assert_true(length > 100 && length < sizeof bytes);
    int refused = 0;
    for (size_t i = 0; i < 3 * length; i++) { /* cut at every byte, then two flips at every byte */
        const uint8_t flip = i < length ? 0 : i < 2 * length ? 0x80 : 1;
        bytes[i % length] ^= flip;
        file = fopen(path, "wb");
        assert_non_null(file);
        const size_t written = flip ? length : i;
        assert_int_equal(fwrite(bytes, 1, written, file), written);
        assert_int_equal(fclose(file), 0);
        bytes[i % length] ^= flip;
        pi2_replay *replay = NULL;
        const pi2_status status = pi2_replay_open(path, &replay);
        assert_true(status == PI2_OK || status == PI2_ERR_FORMAT || status == PI2_ERR_UNSUPPORTED);
        refused += status != PI2_OK;
        pi2_replay_result result;
        if (status == PI2_OK) assert_int_equal(pi2_replay_run(replay, "belady", 3, 0, &result), PI2_OK);
        pi2_replay_close(replay);
    }
    assert_true(refused > (int)length);
    pi2_trace got;
    free(path);
    path = test_path(folder, "none");
    assert_int_equal(pi2_trace_read(path, &got), PI2_ERR_IO);
    assert_int_equal(pi2_trace_read(folder, &got), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "a folder"));
    assert_int_equal(mkfifo(path, 0600), 0); /* nobody writes: reading it would never end */
    assert_int_equal(pi2_trace_read(path, &got), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "a pipe"));
    pi2_replay *replay = NULL; /* a whole header, and no pass */
    free(path);
    path = test_path(folder, "header");
    test_file_write(path, bytes, 32);
    assert_int_equal(pi2_replay_open(path, &replay), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "no passes"));
    free(path);
    test_folder_remove(folder);
}

/* As many keys as single neurons of a large model have; not so many that their numbers overflow. */
static void test_sizes_of_traces(void **state) {
    (void)state;
    static const struct { uint32_t layers, experts; bool fits; } sizes[] = {
        { 80, 28672, true }, { 16, 1 << 20, true }, { 65536, 256, true }, { 17, 1 << 20, false },
        { 4096, 1 << 20, false }, { 65537, 1, false }, { 1, (1 << 20) + 1, false } };
    char *folder = test_folder_make(), *path = test_path(folder, "trace");
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        pi2_trace_writer *writer = NULL;
        pi2_trace got;
        pi2_trace_header header = { sizes[i].layers, sizes[i].experts, 0, 4096 };
        assert_int_equal(pi2_trace_writer_open(path, NULL, NULL, &writer), PI2_OK);
        assert_int_equal(pi2_trace_writer_begin(writer, &header), sizes[i].fits ? PI2_OK : PI2_ERR_UNSUPPORTED);
        if (!sizes[i].fits) header.layer_count = header.expert_count = 1; /* altered below */
        if (!sizes[i].fits) assert_int_equal(pi2_trace_writer_begin(writer, &header), PI2_OK);
        const uint32_t last = header.layer_count * header.expert_count - 1;
        pi2_trace_writer_pass(writer, 1);
        pi2_trace_writer_demand(writer, &last, 1);
        assert_int_equal(pi2_trace_writer_close(writer), PI2_OK);
        size_t length;
        uint8_t *bytes = test_file_read(path, &length);
        memcpy(bytes + 12, &sizes[i].layers, 4);
        memcpy(bytes + 16, &sizes[i].experts, 4);
        test_file_write(path, bytes, length);
        free(bytes);
        assert_int_equal(pi2_trace_read(path, &got), sizes[i].fits ? PI2_OK : PI2_ERR_FORMAT);
        if (sizes[i].fits) assert_int_equal(got.keys[0], last);
        if (sizes[i].fits) pi2_trace_free(&got);
        assert_int_equal(pi2_trace_read_experts(path, &got), sizes[i].fits ? PI2_ERR_INVALID : PI2_ERR_FORMAT);
    }
    free(path);
    test_folder_remove(folder);
}

/* What looks at every slot is named, and left out of a trace of many keys alone. */
static void test_long_replays_leave_out(void **state) {
    (void)state;
    char *folder = test_folder_make(), *path = test_path(folder, "trace");
    for (int is_long = 0; is_long < 2; is_long++) {
        pi2_trace_writer *writer = NULL;
        const pi2_trace_header header = { is_long ? 64 : 2, 1 << 18, 0, 4096 };
        assert_int_equal(pi2_trace_writer_open(path, NULL, &header, &writer), PI2_OK);
        for (uint32_t pass = 0; pass < 40; pass++) {
            uint32_t keys[128];
            for (uint32_t i = 0; i < 128; i++) keys[i] = pass * 999 + 7 * i;
            pi2_trace_writer_pass(writer, 1);
            pi2_trace_writer_demand(writer, keys, 128);
        }
        assert_int_equal(pi2_trace_writer_close(writer), PI2_OK);
        pi2_replay *replay = NULL;
        assert_int_equal(pi2_replay_open(path, &replay), PI2_OK);
        assert_true(pi2_replay_get_info(replay)->of_neurons);
        for (const char *const *name = pi2_replay_policy_names(); *name; name++) {
            const bool looks = strcmp(*name, "blend") == 0 || strcmp(*name, "adaptive") == 0;
            assert_int_equal(pi2_replay_leaves_out(replay, *name) != NULL, is_long && looks);
        }
        pi2_replay_close(replay);
    }
    free(path);
    test_folder_remove(folder);
}

static bool any_may_leave(const void *user, uint32_t key) {
    (void)user;
    (void)key;
    return true;
}

/* What returns soon after it has left enters the main queue, and a scan of new keys passes it by. */
static void test_s3_fifo_knows_what_returns(void **state) {
    (void)state;
    enum { SLOTS = 10, MANY = 60 };
    const pi2_cache_policy *s3 = pi2_cache_policy_find("s3_fifo");
    void *cache = calloc(1, s3->bytes(MANY, SLOTS));
    assert_non_null(cache);
    s3->init(cache, MANY, SLOTS);
    for (uint32_t key = 0; key < SLOTS; key++) s3->admit(cache, key);
    assert_int_equal(s3->evict(cache, any_may_leave, NULL), 0); /* the oldest, of no use so far */
    s3->admit(cache, 0);
    for (uint32_t key = SLOTS; key < MANY; key++) { /* five times as many as there are slots */
        const uint32_t gone = s3->evict(cache, any_may_leave, NULL);
        if (gone == 0) fail_msg("the one that returned has left for key %u", key);
        s3->admit(cache, key);
    }
    free(cache);
}

static bool not_first(const void *user, uint32_t key) {
    (void)user;
    return key != 0;
}

/* Of two keys that the pass before used, the one leaves whose layer this pass has come to: the other has missed no
 * turn yet, though its hand comes first and its heat is no higher. */
static void test_mix_waits_for_layers_to_come(void **state) {
    (void)state;
    enum { LAYER = 4, KEYS = 2 * LAYER, SLOTS = 4 };
    const pi2_cache_policy *mix = pi2_cache_policy_find("mix");
    void *cache = calloc(1, mix->bytes(KEYS, SLOTS));
    assert_non_null(cache);
    mix->init(cache, KEYS, SLOTS);
    mix->begin_pass(cache, 1);
    mix->begin_layer(cache, KEYS);
    for (uint32_t key = LAYER; key < LAYER + 2; key++) mix->admit(cache, key);
    mix->begin_pass(cache, 1);
    mix->begin_layer(cache, LAYER);
    for (uint32_t key = 0; key < 2; key++) mix->admit(cache, key);
    for (uint32_t key = 0; key < 2; key++) mix->hit(cache, key);
    mix->begin_layer(cache, KEYS);
    for (uint32_t key = LAYER; key < LAYER + 2; key++) mix->hit(cache, key);
    mix->begin_pass(cache, 1);
    mix->begin_layer(cache, LAYER);
    mix->hit(cache, 0);
    assert_int_equal(mix->evict(cache, not_first, NULL), 1);
    free(cache);
}

/* Of keys that were used alike the one leaves that is farthest from firing; where it is not told, as by `mix`. */
static void test_gate_goes_by_how_near(void **state) {
    (void)state;
    enum { KEYS = 6, SLOTS = 4 };
    const pi2_cache_policy *gate = pi2_cache_policy_find("gate");
    void *cache = calloc(1, gate->bytes(KEYS, SLOTS));
    assert_non_null(cache);
    gate->init(cache, KEYS, SLOTS);
    gate->begin_pass(cache, 1);
    gate->begin_layer(cache, KEYS);
    for (uint32_t key = 0; key < SLOTS; key++) gate->admit(cache, key);
    gate->hit(cache, 2);
    static const uint8_t near[KEYS] = { 140, 130, 130, 135, 255, 255 };
    gate->tell_near(cache, 0, near, KEYS);
    assert_int_equal(gate->evict(cache, any_may_leave, NULL), 1); /* as far as 2, which was used once more */
    gate->tell_near(cache, 2, (const uint8_t[]){ 120 }, 1); /* farther by more than that use */
    assert_int_equal(gate->evict(cache, any_may_leave, NULL), 2);
    free(cache);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_belady_is_the_optimum), cmocka_unit_test(test_policies_keep_the_rules),
        cmocka_unit_test(test_policies_under_random_calls), cmocka_unit_test(test_lru_is_what_it_says),
        cmocka_unit_test(test_lfu_is_what_it_says), cmocka_unit_test(test_rules_of_neurons_are_what_they_say),
        cmocka_unit_test(test_mix_waits_for_layers_to_come),
        cmocka_unit_test(test_s3_fifo_knows_what_returns), cmocka_unit_test(test_long_replays_leave_out),
        cmocka_unit_test(test_adaptive_is_near_the_best),
        cmocka_unit_test(test_adaptive_after_a_shrink), cmocka_unit_test(test_file_round_trip),
        cmocka_unit_test(test_altered_files), cmocka_unit_test(test_how_near_units_are),
        cmocka_unit_test(test_gate_goes_by_how_near),
        cmocka_unit_test(test_sizes_of_traces),
    };
    return cmocka_run_group_tests_name("cache policies and their replay", tests, NULL, NULL);
}
