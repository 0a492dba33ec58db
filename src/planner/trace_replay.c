/* trace_replay.c: plays a trace against a policy, or against knowledge of the future. */
#include "planner/trace_replay.h"

#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "planner/hot_plan.h"

/* Uses times keys: more looks at slots than this take more than some minutes. */
static const uint64_t LOOKS_MOST = (uint64_t)1 << 36;

/* Passes are told apart by the layer of their demands: a demand of no higher a layer begins one. */
bool pi2_trace_begins_pass(const pi2_trace *trace, uint32_t d) {
    if (d == 0) return true;
    const uint32_t experts = trace->header.expert_count;
    return trace->keys[trace->demands[d].begin] / experts <= trace->keys[trace->demands[d - 1].begin] / experts;
}

/* ---- a policy ---- */

/* in_use: number of the demand that pins the key; so unpinning all costs nothing. */
typedef struct policy_run {
    pi2_cache_book *book;
    pi2_hot_experts *hot; /* NULL: there are none */
    uint32_t *in_use;
    uint8_t *present;
    pi2_batch_use *alike; /* [experts of a layer]: for batches of which only the demand is known */
    uint32_t demand, used_slots, slot_count;
} policy_run;

static bool not_in_use(const void *user, uint32_t key) {
    const policy_run *run = user;
    return run->in_use[key] != run->demand;
}

static bool is_present(const void *user, uint32_t key) { return ((const policy_run *)user)->present[key] != 0; }

static bool anyone(const void *user, uint32_t key) {
    (void)user;
    (void)key;
    return true;
}

static const pi2_batch_use *uses_of(const pi2_trace *trace, const policy_run *run, uint32_t d) {
    if (trace->demands[d].pass_tokens < PI2_BATCH_LEAST) return NULL;
    return trace->uses ? trace->uses + trace->demands[d].begin : run->alike;
}

/* An absent expert comes, and another leaves where all slots of those that are not hot are taken. */
static void bring(policy_run *run, uint32_t key) {
    if (run->used_slots == run->slot_count - (run->hot ? pi2_hot_experts_count(run->hot) : 0)) {
        uint32_t victim = pi2_cache_book_evict(run->book, not_in_use, run);
        /* More are demanded than there are slots: those whose work is done leave. */
        if (victim == UINT32_MAX) victim = pi2_cache_book_evict(run->book, anyone, run);
        run->present[victim] = 0;
        run->used_slots--;
        if (run->hot) pi2_hot_experts_evicted(run->hot, victim);
    }
    pi2_cache_book_admit(run->book, key);
    if (run->hot) pi2_hot_experts_missed(run->hot, key);
    run->present[key] = 1;
    run->used_slots++;
}

/* Experts that change places take their slots with them. */
static void begin_pass(policy_run *run, uint32_t tokens) {
    pi2_cache_book_begin_pass(run->book, tokens);
    if (!run->hot) return;
    const uint32_t before = pi2_hot_experts_count(run->hot);
    pi2_hot_experts_begin_pass(run->hot, run->book, is_present, run);
    run->used_slots += before - pi2_hot_experts_count(run->hot);
}

static uint64_t play_demand(const pi2_trace *trace, policy_run *run, uint32_t d) {
    uint64_t hits = 0;
    const uint32_t begin = trace->demands[d].begin, end = trace->demands[d + 1].begin;
    const pi2_batch_use *uses = uses_of(trace, run, d);
    run->demand = d + 1;
    if (trace->near_of && trace->near_of[d].count) {
        const uint32_t experts = trace->header.expert_count, first = trace->keys[begin] / experts * experts;
        pi2_cache_book_tell_near(run->book, first, trace->near + trace->near_of[d].begin, trace->near_of[d].count);
    }
    pi2_cache_book_demand(run->book, trace->keys + begin, uses, end - begin);
    for (uint32_t i = begin; i < end; i++) { /* as the cache does: first what is there, pinned */
        const uint32_t key = trace->keys[i];
        run->in_use[key] = run->demand;
        if (run->hot) pi2_hot_experts_use(run->hot, key, uses ? uses[i - begin].times : 1);
        if (!run->present[key]) continue;
        if (!run->hot || !pi2_hot_experts_is_hot(run->hot, key)) pi2_cache_book_hit(run->book, key);
        run->present[key] = 2;
        hits++;
    }
    for (uint32_t i = begin; i < end; i++) {
        const uint32_t key = trace->keys[i];
        if (run->present[key] == 0) bring(run, key);
        else run->present[key] = 1;
    }
    return hits;
}

static void play_passes(const pi2_trace *trace, policy_run *run, uint32_t first_pass, pi2_replay_result *result) {
    uint32_t pass = 0;
    for (uint32_t d = 0; d < trace->demand_count; d++) {
        if (pi2_trace_begins_pass(trace, d)) {
            pass++;
            begin_pass(run, trace->demands[d].pass_tokens);
        }
        const uint64_t hits = play_demand(trace, run, d);
        if (pass <= first_pass) continue;
        result->hits += hits;
        result->uses += trace->demands[d + 1].begin - trace->demands[d].begin;
    }
    result->passes = pass > first_pass ? pass - first_pass : 0;
}

pi2_status pi2_trace_replay_hot(const pi2_trace *trace, const pi2_cache_policy *policy, uint32_t slot_count,
                                const uint32_t *hot_keys, uint32_t hot_count, uint32_t first_pass,
                                pi2_replay_result *result) {
    const uint32_t experts = trace->header.expert_count, keys = trace->header.layer_count * experts;
    policy_run run = { .in_use = calloc(keys, sizeof *run.in_use), .present = calloc(keys, 1),
                       .alike = calloc(experts, sizeof *run.alike), .slot_count = slot_count };
    void *book = malloc(pi2_cache_book_bytes(policy, keys, slot_count, experts));
    void *hot = malloc(pi2_hot_experts_bytes(keys));
    *result = (pi2_replay_result){ 0 };
    pi2_status status = PI2_OK;
    if (!run.in_use || !run.present || !run.alike || !book || !hot) {
        status = pi2_fail(PI2_ERR_MEMORY, "no memory to replay a trace of %u keys", keys);
    } else {
        run.book = pi2_cache_book_init(book, policy, keys, slot_count, experts);
        if (hot_count) pi2_cache_book_resize(run.book, slot_count - hot_count);
        if (hot_count) run.hot = pi2_hot_experts_init(hot, keys, slot_count, hot_keys, hot_count);
        for (uint32_t i = 0; i < hot_count; i++) {
            pi2_hot_experts_hold(run.hot, hot_keys[i]);
            run.present[hot_keys[i]] = 1;
        }
        for (uint32_t e = 0; e < experts; e++) run.alike[e] = (pi2_batch_use){ 1, 1 };
        play_passes(trace, &run, first_pass, result);
    }
    free(run.in_use);
    free(run.present);
    free(run.alike);
    free(book);
    free(hot);
    return status;
}

pi2_status pi2_trace_replay_policy(const pi2_trace *trace, const pi2_cache_policy *policy, uint32_t slot_count,
                                   uint32_t first_pass, pi2_replay_result *result) {
    return pi2_trace_replay_hot(trace, policy, slot_count, NULL, 0, first_pass, result);
}

/* ---- Belady ---- */

/* A heap of present keys by their next use, the furthest on top; what a later use overtook is stale. */
typedef struct use_heap {
    uint32_t (*entries)[2]; /* next use, key */
    uint32_t count;
} use_heap;

static void heap_push(use_heap *heap, uint32_t next, uint32_t key) {
    uint32_t at = heap->count++;
    for (; at > 0 && heap->entries[(at - 1) / 2][0] < next; at = (at - 1) / 2) {
        memcpy(heap->entries[at], heap->entries[(at - 1) / 2], sizeof heap->entries[at]);
    }
    heap->entries[at][0] = next;
    heap->entries[at][1] = key;
}

static void heap_pop(use_heap *heap) {
    const uint32_t next = heap->entries[--heap->count][0], key = heap->entries[heap->count][1];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= heap->count) break;
        if (child + 1 < heap->count && heap->entries[child + 1][0] > heap->entries[child][0]) child++;
        if (heap->entries[child][0] <= next) break;
        memcpy(heap->entries[at], heap->entries[child], sizeof heap->entries[at]);
        at = child;
    }
    heap->entries[at][0] = next;
    heap->entries[at][1] = key;
}

typedef struct belady_run {
    uint32_t *next_use;  /* of each use: the number of the key's next one, UINT32_MAX: never again */
    uint32_t *expected;  /* of each key: its next use, while it is present; 0: absent */
    use_heap heap;
} belady_run;

static void find_next_uses(const pi2_trace *trace, uint32_t *next_use, uint32_t *last) {
    for (uint32_t i = trace->key_count; i-- > 0;) {
        const uint32_t key = trace->keys[i];
        next_use[i] = last[key] ? last[key] : UINT32_MAX;
        last[key] = i; /* use 0 has nothing before it that asks */
    }
}

static void play_belady(const pi2_trace *trace, belady_run *run, uint32_t slot_count, uint32_t first_pass,
                        pi2_replay_result *result) {
    uint32_t used_slots = 0, pass = 0;
    for (uint32_t d = 0; d < trace->demand_count; d++) {
        if (pi2_trace_begins_pass(trace, d)) pass++;
        for (uint32_t i = trace->demands[d].begin; i < trace->demands[d + 1].begin; i++) {
            const uint32_t key = trace->keys[i];
            const bool hit = run->expected[key] != 0;
            if (pass > first_pass) {
                result->uses++;
                result->hits += hit;
            }
            if (!hit && used_slots == slot_count) {
                while (run->expected[run->heap.entries[0][1]] != run->heap.entries[0][0]) heap_pop(&run->heap);
                run->expected[run->heap.entries[0][1]] = 0;
                heap_pop(&run->heap);
            } else if (!hit) {
                used_slots++;
            }
            run->expected[key] = run->next_use[i];
            heap_push(&run->heap, run->next_use[i], key);
        }
    }
    result->passes = pass > first_pass ? pass - first_pass : 0;
}

pi2_status pi2_trace_replay_belady(const pi2_trace *trace, uint32_t slot_count, uint32_t first_pass,
                                   pi2_replay_result *result) {
    const uint32_t keys = trace->header.layer_count * trace->header.expert_count;
    belady_run run = { .next_use = malloc((trace->key_count + (size_t)1) * sizeof *run.next_use),
                       .expected = calloc(keys, sizeof *run.expected),
                       .heap.entries = malloc((trace->key_count + (size_t)1) * sizeof *run.heap.entries) };
    *result = (pi2_replay_result){ 0 };
    pi2_status status = PI2_OK;
    if (!run.next_use || !run.expected || !run.heap.entries) {
        status = pi2_fail(PI2_ERR_MEMORY, "no memory to replay a trace of %u uses", trace->key_count);
    } else {
        find_next_uses(trace, run.next_use, run.expected);
        memset(run.expected, 0, keys * sizeof *run.expected);
        play_belady(trace, &run, slot_count, first_pass, result);
    }
    free(run.next_use);
    free(run.expected);
    free(run.heap.entries);
    return status;
}

/* ---- the public side ---- */

struct pi2_replay {
    pi2_trace trace;
    pi2_replay_info info;
};

/* Counts passes and experts; the repeat share: of passes of one token, uses that the pass before had too. */
static pi2_status measure(pi2_replay *replay) {
    const pi2_trace *trace = &replay->trace;
    const uint32_t keys = trace->header.layer_count * trace->header.expert_count;
    uint32_t *seen = calloc(keys, sizeof *seen); /* the last pass that used it */
    if (!seen) return pi2_fail(PI2_ERR_MEMORY, "no memory for a trace of %u keys", keys);
    uint64_t single = 0, repeated = 0;
    uint32_t pass = 0;
    for (uint32_t d = 0; d < trace->demand_count; d++) {
        if (pi2_trace_begins_pass(trace, d)) pass++;
        for (uint32_t i = trace->demands[d].begin; i < trace->demands[d + 1].begin; i++) {
            uint32_t *last = &seen[trace->keys[i]];
            replay->info.distinct_count += *last == 0;
            if (trace->demands[d].pass_tokens == 1 && pass > 1) {
                single++;
                repeated += *last == pass - 1;
            }
            *last = pass;
        }
    }
    free(seen);
    replay->info.pass_count = pass;
    replay->info.repeat_share = single ? (double)repeated / (double)single : 0;
    return PI2_OK;
}

pi2_status pi2_replay_open(const char *path, pi2_replay **replay_out) {
    *replay_out = NULL;
    pi2_replay *replay = calloc(1, sizeof *replay);
    if (!replay) return pi2_fail(PI2_ERR_MEMORY, "no memory to replay a trace");
    pi2_status status = pi2_trace_read(path, &replay->trace);
    if (status == PI2_OK) {
        const pi2_trace *trace = &replay->trace;
        replay->info = (pi2_replay_info){
            .layer_count = trace->header.layer_count, .expert_count = trace->header.expert_count,
            .used_count = trace->header.used_count, .expert_bytes = trace->header.slot_bytes,
            .token_count = trace->token_count, .use_count = trace->key_count,
            .of_neurons = trace->header.used_count == 0 };
        status = trace->key_count ? measure(replay)
                                  : pi2_fail(PI2_ERR_FORMAT, "%s: the trace has no passes; record it again", path);
    }
    if (status != PI2_OK) {
        pi2_replay_close(replay);
        return status;
    }
    *replay_out = replay;
    return PI2_OK;
}

void pi2_replay_close(pi2_replay *replay) {
    if (!replay) return;
    pi2_trace_free(&replay->trace);
    free(replay);
}

const pi2_replay_info *pi2_replay_get_info(const pi2_replay *replay) { return &replay->info; }

const char *const *pi2_replay_policy_names(void) {
    static const char *const names[] = {
#define CACHE_POLICY(name) #name,
#include "neuron_cache/cache_policies.inc"
#undef CACHE_POLICY
        NULL };
    return names;
}

const char *pi2_replay_leaves_out(const pi2_replay *replay, const char *policy) {
    const pi2_replay_info *info = &replay->info;
    const pi2_cache_policy *found = pi2_cache_policy_find(policy);
    const uint64_t keys = (uint64_t)info->layer_count * info->expert_count;
    if (!found || !found->looks_at_all || info->use_count <= LOOKS_MOST / keys) return NULL;
    return "looks at every slot for each eviction, which takes hours for so many uses of so many";
}

pi2_status pi2_replay_run_hot(const pi2_replay *replay, const char *policy, uint32_t slot_count, double hot_share,
                              uint32_t first_pass, pi2_replay_result *result_out) {
    if (slot_count == 0) return pi2_fail(PI2_ERR_INVALID, "a cache of no slots holds nothing");
    if (first_pass >= replay->info.pass_count) {
        return pi2_fail(PI2_ERR_INVALID, "the trace has %u passes: without the first %u none is left to count",
                        replay->info.pass_count, first_pass);
    }
    if (!(hot_share >= 0 && hot_share <= 0.75)) {
        return pi2_fail(PI2_ERR_INVALID, "hot experts can have 0 to 0.75 of the slots, not %g", hot_share);
    }
    if (strcmp(policy, "belady") == 0) {
        return pi2_trace_replay_belady(&replay->trace, slot_count, first_pass, result_out);
    }
    const pi2_cache_policy *found = pi2_cache_policy_find(policy);
    if (!found) return pi2_fail(PI2_ERR_INVALID, "unknown cache policy '%s'", policy);
    pi2_hot_plan plan;
    PI2_TRY(pi2_hot_plan_choose(&replay->trace, first_pass ? first_pass : UINT32_MAX, slot_count, hot_share, &plan));
    const pi2_status status = pi2_trace_replay_hot(&replay->trace, found, slot_count, plan.keys, plan.count,
                                                   first_pass, result_out);
    pi2_hot_plan_free(&plan);
    return status;
}

pi2_status pi2_replay_run(const pi2_replay *replay, const char *policy, uint32_t slot_count, uint32_t first_pass,
                          pi2_replay_result *result_out) {
    return pi2_replay_run_hot(replay, policy, slot_count, 0, first_pass, result_out);
}
