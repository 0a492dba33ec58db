/*
 * Goal:   weights that use the key-value cache's room leave it before the cache grows into it: at any
 *         position weights in memory and touched cache together stay within what both were planned,
 *         and the logits are the bits of a run without a loan.
 * Method: two engines over one tiny model, one with all in memory, one with little memory and a long
 *         context, follow one list of tokens in appends of several lengths, to the end of the context; and then several
 *         sessions do, in common passes and forked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/pages.h"
#include "engine/engine_internal.h"
#include "support/emulator.h"
#include "support/sanitizer.h"
#include "support/small_budget.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum {
    IS_SLOW = PI2_UNDER_TSAN || PI2_UNDER_ASAN || PI2_UNDER_EMULATOR, CONTEXT = IS_SLOW ? 400 : 1536,
    PLENTY = 400000000
};

static char *dense_path, *experts_path;

typedef struct variation {
    const char *path, *read_method;
    uint64_t more_bytes; /* than the process holds */
    uint32_t first;      /* tokens of the first append */
} variation;

static pi2_engine *open_engine(const variation *v, uint64_t more_bytes, bool keep_memory, uint32_t sequences) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = v->path;
    options.context_tokens = CONTEXT / sequences;
    options.sequences = sequences;
    options.batch_tokens = 256;
    options.thread_count = 2;
    options.read_method = v->read_method;
    options.keep_memory = keep_memory;
    pi2_engine *engine = NULL;
    if (pi2_small_budget_open(&options, more_bytes, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    return engine;
}

/* Weights that may be in memory, and the cache's touched pages: never more than was planned for both. */
static void check_sum(const pi2_engine *engine) {
    const pi2_memory_plan *plan = &engine->run.plan.memory;
    const uint64_t away = pi2_store_away_bytes(engine->store);
    const uint32_t positions = pi2_kv_pages_touched(pi2_forward_pages(engine->forward)) * 16;
    const uint64_t touched =
        pi2_forward_cache_touched_bytes(engine->run.source.model, &plan->shape, positions, pi2_page_bytes());
    const uint64_t planned = plan->resident_room + plan->expert_bytes - plan->loan_bytes + plan->cache_bytes;
    assert_true(touched <= plan->cache_bytes + pi2_page_bytes());
    if (engine->memory.weights.bytes + plan->expert_bytes + touched - away > planned + pi2_page_bytes()) {
        fail_msg("at %u positions: %llu bytes of cache, %llu of weights away", positions, (unsigned long long)touched,
                 (unsigned long long)away);
    }
}

static void append(pi2_session *session, const int32_t *tokens, size_t count) {
    if (pi2_session_append(session, tokens, count, PI2_LOGITS_LAST) != PI2_OK) fail_msg("%s", pi2_error_text());
}

static void check_variation(const variation *v) {
    static const uint32_t lengths[] = { 1, 1, 40, 1, 300, 1, 1, 17 };
    pi2_engine *plain = open_engine(v, PLENTY, true, 1), *lent = open_engine(v, v->more_bytes, false, 1);
    assert_true(lent->run.plan.memory.loan_bytes > 0);
    assert_true(!lent->run.plan.memory.everything_resident);
    const size_t vocabulary = pi2_engine_get_report(lent)->vocabulary_size;
    pi2_session *want = NULL, *got = NULL;
    assert_int_equal(pi2_session_create(plain, NULL, &want), PI2_OK);
    assert_int_equal(pi2_session_create(lent, NULL, &got), PI2_OK);
    int32_t tokens[CONTEXT];
    for (int i = 0; i < CONTEXT; i++) tokens[i] = (i * 29 + i / 7) % 256;
    uint32_t position = 0;
    for (size_t step = 0; position < CONTEXT; step++) {
        uint32_t count = step == 0 ? v->first : lengths[step % 8];
        if (step == 0 && IS_SLOW) count /= 4;
        if (count > CONTEXT - position) count = CONTEXT - position;
        append(want, tokens + position, count);
        append(got, tokens + position, count);
        position += count;
        assert_memory_equal(pi2_session_logits(want, 0), pi2_session_logits(got, 0), vocabulary * sizeof(float));
        check_sum(lent);
    }
    pi2_engine_counters counters;
    pi2_engine_count(lent, &counters);
    assert_int_equal(counters.give_backs, 0); /* that is told of pressure only */
    assert_int_equal(counters.bytes_away, 0);
    pi2_session_free(want);
    pi2_session_free(got);
    pi2_engine_close(plain);
    pi2_engine_close(lent);
}

static void test_dense(void **state) {
    (void)state;
    const variation variations[] = {
        { .path = dense_path, .read_method = "auto", .more_bytes = 18700000, .first = 5 },
        { .path = dense_path, .read_method = "pread", .more_bytes = 18700000, .first = CONTEXT - 100 },
    };
    for (size_t i = 0; i < sizeof variations / sizeof variations[0]; i++) check_variation(&variations[i]);
}

static void test_experts(void **state) {
    (void)state;
    const variation v = { .path = experts_path, .read_method = "auto", .more_bytes = 20000000, .first = 300 };
    check_variation(&v);
}

/* Sessions of different lengths, of which one is forked and one ends: the sum holds as well, and the last logits are
 * those of a run without a loan. */
static void test_several_sessions(void **state) {
    (void)state;
    enum { SESSIONS = 3, EACH = CONTEXT / SESSIONS, STEP = EACH / 12 };
    const variation v = { .path = dense_path, .read_method = "auto", .more_bytes = 18700000 };
    pi2_engine *engines[] = { open_engine(&v, PLENTY, true, SESSIONS), open_engine(&v, v.more_bytes, false, SESSIONS) };
    pi2_session *sessions[2][SESSIONS];
    int32_t tokens[EACH];
    for (int i = 0; i < EACH; i++) tokens[i] = (i * 29 + i / 7) % 256;
    assert_true(engines[1]->run.plan.memory.loan_bytes > 0);
    for (int e = 0; e < 2; e++) {
        for (int s = 0; s < SESSIONS; s++) {
            assert_int_equal(pi2_session_create(engines[e], NULL, &sessions[e][s]), PI2_OK);
        }
        for (uint32_t i = 0; i < 8; i++) {
            const pi2_session_tokens parts[] = { { sessions[e][0], tokens, STEP, true },
                                                 { sessions[e][1], tokens + 3, i % 2 ? STEP : 1, true },
                                                 { sessions[e][2], tokens + 5, 1 + 3 * i, true } };
            if (pi2_sessions_append(parts, SESSIONS) != PI2_OK) fail_msg("%s", pi2_error_text());
            if (e) check_sum(engines[e]);
        }
        pi2_session_free(sessions[e][2]);
        assert_int_equal(pi2_session_fork(sessions[e][0], NULL, &sessions[e][2]), PI2_OK);
        for (int s = 0; s < SESSIONS; s++) {
            append(sessions[e][s], tokens, EACH - pi2_session_position(sessions[e][s]));
            if (e) check_sum(engines[e]);
        }
    }
    const size_t bytes = pi2_engine_get_report(engines[0])->vocabulary_size * sizeof(float);
    for (int s = 0; s < SESSIONS; s++) {
        assert_memory_equal(pi2_session_logits(sessions[0][s], 0), pi2_session_logits(sessions[1][s], 0), bytes);
    }
    for (int s = 0; s < 2 * SESSIONS; s++) pi2_session_free(sessions[s / SESSIONS][s % SESSIONS]);
    for (int e = 0; e < 2; e++) pi2_engine_close(engines[e]);
}

/* Pages that hold keys or values of the first positions, counted the plain way. */
static void test_touched_bytes(void **state) {
    (void)state;
    const variation v = { .path = dense_path, .read_method = "auto" };
    pi2_engine *engine = open_engine(&v, PLENTY, true, 1);
    const pi2_forward_shape *shape = &engine->run.plan.memory.shape;
    assert_int_equal(pi2_forward_cache_touched_bytes(engine->run.source.model, shape, 0, 4096), 0);
    uint64_t before = 0;
    for (uint32_t position = 1; position <= CONTEXT; position += 13) {
        const uint64_t touched = pi2_forward_cache_touched_bytes(engine->run.source.model, shape, position, 4096);
        assert_true(touched >= before);
        assert_true(touched >= engine->run.plan.memory.cache_bytes / CONTEXT * position);
        before = touched;
    }
    const uint64_t all = pi2_forward_cache_touched_bytes(engine->run.source.model, shape, CONTEXT, 4096);
    assert_true(all >= engine->run.plan.memory.cache_bytes && all < engine->run.plan.memory.cache_bytes + 4096);
    assert_int_equal(pi2_forward_cache_touched_bytes(engine->run.source.model, shape, UINT32_MAX, 4096), all);
    pi2_engine_close(engine);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    dense_path = test_folder_path("dense.gguf");
    experts_path = test_folder_path("experts.gguf");
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.layer_count = 4;
    options.embedding_length = 512;
    options.feed_forward_length = 4096;
    options.head_count = 8;
    options.head_count_kv = 4;
    options.tied_head = false;
    options.context_length = 2048;
    const int failed = pi2_tiny_model_write_apart(&options, dense_path);
    if (failed) return failed;
    options.feed_forward_length = 512;
    options.expert_count = 16;
    options.expert_used_count = 2;
    return pi2_tiny_model_write_apart(&options, experts_path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_touched_bytes), cmocka_unit_test(test_dense), cmocka_unit_test(test_experts),
        cmocka_unit_test(test_several_sessions),
    };
    return cmocka_run_group_tests_name("cache loan", tests, set_up, test_folder_end);
}
