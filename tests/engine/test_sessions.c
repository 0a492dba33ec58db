/*
 * Goal:   sessions of one engine do not touch each other: whatever is appended to them together or in turn, forked,
 *         cut, cancelled, and from however many threads, each one's logits are the bits of a session alone.
 * Method: eight sessions follow a script of random steps; after each step the logits that are there are compared with
 *         those of an engine that has one session, one thread and everything in memory. Models, budgets, threads and
 *         kinds of cache vary by pairs.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/session_internal.h"
#include "powerinfer2/model_file.h"
#include "powerinfer2/session.h"
#include "support/emulator.h"
#include "support/family_model.h"
#include "support/sanitizer.h"
#include "support/small_budget.h"
#include "support/streamed_model.h"
#include "support/temporary_files.h"

enum { SESSIONS = 8, CONTEXT = 64, BATCH = 12, ANSWER = 12 };
enum { STEPS = PI2_UNDER_TSAN ? 8 : 40, STREAMED_STEPS = PI2_UNDER_TSAN ? 6 : 16 };

typedef struct variation {
    const char *name;
    uint64_t more_bytes; /* 0: everything in memory */
    uint32_t threads, draft;
    pi2_cache_type cache;
    const char *sparsity; /* NULL: all neurons */
} variation;

static char *small_path, *falcon_path, *dense_path, *experts_path, *neurons_path;
static int layers_left = -1; /* until the work is cancelled; -1: it is not */

static bool cancelled(void *user) {
    (void)user;
    if (layers_left > 0) layers_left--;
    return layers_left == 0;
}

static pi2_engine *open_engine(const char *path, const variation *v, uint32_t sequences) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.sequences = sequences;
    options.context_tokens = CONTEXT;
    options.batch_tokens = BATCH;
    options.thread_count = v->threads;
    options.draft_tokens = v->draft;
    options.cache_type = v->cache;
    options.sparsity = v->sparsity ? v->sparsity : "off";
    options.predicts_prompts = true; /* where a predictor serves: then a text does not hang on how it was appended */
    options.memory_bytes = v->more_bytes ? 0 : PI2_TEST_PLENTY_BYTES;
    options.callbacks.cancelled = cancelled;
    pi2_engine *engine = NULL;
    const pi2_status status = v->more_bytes ? pi2_small_budget_open(&options, v->more_bytes, &engine)
                                            : pi2_engine_open(&options, &engine);
    if (status != PI2_OK) fail_msg("%s: %s", v->name, pi2_error_text());
    return engine;
}

static pi2_session *create(pi2_engine *engine, float temperature) {
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.temperature = temperature;
    sampling.seed = 5;
    sampling.repeat_penalty = 1.1f;
    pi2_session *session = NULL;
    if (pi2_session_create(engine, &sampling, &session) != PI2_OK) fail_msg("%s", pi2_error_text());
    return session;
}

static void append(pi2_session *session, const int32_t *tokens, size_t count) {
    if (pi2_session_append(session, tokens, count, PI2_LOGITS_LAST) != PI2_OK) fail_msg("%s", pi2_error_text());
}

/* ---- a script of random steps ---- */

/* A session, and what it should hold. */
typedef struct followed {
    pi2_session *session;
    int32_t tokens[CONTEXT];
    uint32_t count;
    bool has_logits;
} followed;

typedef struct script {
    const variation *v;
    pi2_engine *engine, *alone;
    pi2_session *judge; /* of `alone` */
    followed of[SESSIONS];
    uint64_t random;
    size_t compared;
} script;

static uint32_t draw(script *s, uint32_t below) { return (uint32_t)(pi2_tiny_random(&s->random) % below); }

static void check(script *s, uint32_t i) {
    const followed *f = &s->of[i];
    assert_int_equal(pi2_session_position(f->session), f->count);
    const float *got = pi2_session_logits(f->session, 0);
    if (!f->has_logits) {
        assert_null(got);
        return;
    }
    assert_non_null(got);
    assert_null(pi2_session_logits(f->session, 1));
    assert_int_equal(pi2_session_truncate(s->judge, 0), PI2_OK);
    append(s->judge, f->tokens, f->count);
    const size_t bytes = pi2_engine_get_report(s->engine)->vocabulary_size * sizeof *got;
    if (memcmp(got, pi2_session_logits(s->judge, 0), bytes) != 0) {
        fail_msg("%s: session %u has other logits at position %u", s->v->name, i, f->count);
    }
    s->compared++;
}

/* Passages repeat, so that there is something to guess. */
static void draw_tokens(script *s, followed *f, uint32_t count) {
    for (uint32_t t = f->count; t < f->count + count; t++) {
        f->tokens[t] = draw(s, 4) == 0 || t < 6 ? (int32_t)draw(s, 250) : f->tokens[t - 6];
    }
}

static uint32_t draw_count(script *s, const followed *f) {
    const uint32_t wanted = draw(s, 3) == 0 ? 1 + draw(s, 20) : 1, room = CONTEXT - f->count;
    return wanted < room ? wanted : room;
}

/* Several sessions in common passes, of which one is cancelled where `stops`. */
static void append_together(script *s, bool stops) {
    pi2_session_tokens parts[SESSIONS];
    uint32_t who[SESSIONS];
    size_t count = 0;
    for (uint32_t n = 0, i = draw(s, SESSIONS); n < SESSIONS; n++, i = (i + 3) % SESSIONS) {
        followed *f = &s->of[i];
        const uint32_t tokens = draw_count(s, f);
        if (tokens == 0 || draw(s, 4) == 0) continue;
        draw_tokens(s, f, tokens);
        parts[count] = (pi2_session_tokens){ f->session, f->tokens + f->count, tokens, draw(s, 8) != 0 };
        who[count++] = i;
    }
    layers_left = stops ? 1 + (int)draw(s, 5) : -1;
    const pi2_status status = pi2_sessions_append(parts, count);
    const bool was_stopped = layers_left == 0;
    layers_left = -1;
    assert_int_equal(status, was_stopped ? PI2_ERR_INTERRUPTED : PI2_OK);
    for (size_t p = 0; p < count; p++) {
        followed *f = &s->of[who[p]];
        const uint32_t position = pi2_session_position(f->session);
        assert_in_range(position, f->count, f->count + parts[p].token_count);
        f->has_logits = !was_stopped && parts[p].wants_logits;
        f->count = was_stopped ? position : f->count + (uint32_t)parts[p].token_count;
    }
    if (count) check(s, who[draw(s, (uint32_t)count)]);
}

static void append_alone(script *s, uint32_t i) {
    followed *f = &s->of[i];
    const uint32_t count = draw_count(s, f);
    if (count == 0) return;
    draw_tokens(s, f, count);
    append(f->session, f->tokens + f->count, count);
    f->count += count;
    f->has_logits = true;
}

static void fork_into(script *s, uint32_t from, uint32_t to) {
    if (from == to) return;
    pi2_session_free(s->of[to].session);
    s->of[to] = s->of[from];
    if (pi2_session_fork(s->of[from].session, NULL, &s->of[to].session) != PI2_OK) fail_msg("%s", pi2_error_text());
}

static void cut(script *s, uint32_t i) {
    followed *f = &s->of[i];
    f->count = draw(s, f->count + 1);
    f->has_logits = false;
    assert_int_equal(pi2_session_truncate(f->session, f->count), PI2_OK);
}

static void step(script *s) {
    const uint32_t i = draw(s, SESSIONS), other = draw(s, SESSIONS);
    switch (draw(s, 8)) {
    case 0: fork_into(s, other, i); break;
    case 1: cut(s, i); break;
    case 2: append_together(s, true); break;
    case 3:
    case 4: append_alone(s, i); break;
    default: append_together(s, false); break;
    }
    check(s, i);
    check(s, other); /* whose logits are kept, where it was not in a pass */
}

static void follow(const char *path, const variation *v) {
    const char *sparsity = v->sparsity && strcmp(v->sparsity, "always") != 0 ? v->sparsity : NULL;
    const variation plain = { .name = "alone", .threads = 1, .cache = v->cache, .sparsity = sparsity };
    script s = { .v = v, .random = 7, .engine = open_engine(path, v, SESSIONS), .alone = open_engine(path, &plain, 1) };
    const pi2_engine_report *report = pi2_engine_get_report(s.engine);
    assert_int_equal(report->sequences, SESSIONS);
    assert_int_equal(v->sparsity != NULL, report->neuron_bytes > 0);
    /* What AddressSanitizer holds comes and goes by more than these weights. */
    if (!PI2_UNDER_ASAN) assert_int_equal(v->more_bytes != 0, report->resident_bytes < report->weight_bytes);
    s.judge = create(s.alone, 0);
    for (int i = 0; i < SESSIONS; i++) s.of[i].session = create(s.engine, 0);
    const int steps = v->more_bytes ? STREAMED_STEPS : STEPS;
    for (int i = 0; i < steps; i++) step(&s);
    assert_true(s.compared >= (size_t)steps);
    for (int i = 0; i < SESSIONS; i++) pi2_session_free(s.of[i].session);
    pi2_session_free(s.judge);
    pi2_engine_close(s.alone);
    pi2_engine_close(s.engine);
}

static void test_dense(void **state) {
    (void)state;
    follow(small_path, &(variation){ "dense, in memory", 0, 1, 4, PI2_CACHE_F16, NULL });
    follow(falcon_path, &(variation){ "falcon, in memory", 0, 2, 2, PI2_CACHE_F16, NULL });
    follow(dense_path, &(variation){ "dense, streamed", 10000000, 2, 3, PI2_CACHE_Q8_0, NULL });
}

static void test_experts(void **state) {
    (void)state;
    follow(experts_path, &(variation){ "experts, in memory", 0, 2, 0, PI2_CACHE_F16, NULL });
    follow(experts_path, &(variation){ "experts, streamed", 7500000, 1, 2, PI2_CACHE_F16, NULL });
}

static char *prepare(const char *name, pi2_layout_kind layout) {
    char *file = test_folder_path(name);
    const pi2_prepare_options options = { .model_path = neurons_path, .output_path = file, .layout = layout,
                                          .memory_bytes = PI2_TEST_PREPARE_BYTES };
    if (pi2_prepare_file(&options, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
    return file;
}

static void test_neurons(void **state) {
    (void)state;
    char *file = prepare("neurons.pi2", PI2_LAYOUT_NEURON);
    follow(file, &(variation){ "by neuron", 0, 2, 0, PI2_CACHE_F16, "always" });
    file = prepare("bundles.pi2", PI2_LAYOUT_BUNDLE);
    follow(file, &(variation){ "a half left out", 0, 1, 0, PI2_CACHE_F16, "0.5" });
}

/* Recurrent states, windows, gates, and matrices of several kinds. */
static void test_families(void **state) {
    (void)state;
    static const struct { const char *family; uint32_t scale; variation v; } families[] = {
        { "lfm2", 1, { "lfm2", 0, 2, 0, PI2_CACHE_F16, NULL } },
        { "qwen35", 10, { "qwen35, streamed", 9500000, 2, 0, PI2_CACHE_F16, NULL } },
        { "qwen35moe", 1, { "qwen35moe", 0, 1, 0, PI2_CACHE_F16, NULL } },
        { "nemotron_h", 1, { "nemotron_h", 0, 2, 0, PI2_CACHE_F16, NULL } },
        { "gemma4", 1, { "gemma4", 0, 2, 0, PI2_CACHE_F16, NULL } },
        { "mistral3", 1, { "mistral3", 0, 1, 2, PI2_CACHE_F16, NULL } },
        { "gpt-oss", 1, { "gpt-oss", 0, 2, 0, PI2_CACHE_F16, NULL } },
        { "gemma2", 1, { "gemma2", 0, 2, 3, PI2_CACHE_F16, NULL } } };
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        char *folder = test_folder_make(), *path = test_path(folder, "family.gguf");
        const int failed = pi2_family_model_write_apart(families[i].family, PI2_Q8_0, families[i].scale, path);
        if (failed) fail_msg("cannot write %s", families[i].family);
        follow(path, &families[i].v);
        free(path);
        test_folder_remove(folder);
    }
}

/* ---- progress ---- */

enum { PROGRESS_TOKENS = 10, LFM2_LAYERS = 4 };

typedef struct progress_log {
    uint64_t calls, last;
} progress_log;

static void log_progress(void *user, const char *what, uint64_t done, uint64_t total) {
    progress_log *log = user;
    if (strcmp(what, "prompt") != 0) return; /* reading the model */
    if (total != PROGRESS_TOKENS * LFM2_LAYERS || done < log->last || done > total) {
        fail_msg("%llu of %llu after %llu", (unsigned long long)done, (unsigned long long)total,
                 (unsigned long long)log->last);
    }
    log->calls++;
    log->last = done;
}

/* Of a call for two sessions whose recurrent states are made again: its own tokens are told of, and nothing else. */
static void test_progress(void **state) {
    (void)state;
    static const int32_t tokens[] = { 20, 21, 22, 23, 24, 25, 26, 27, 28, 29 };
    progress_log log = { 0, 0 };
    char *folder = test_folder_make(), *path = test_path(folder, "family.gguf");
    assert_int_equal(pi2_family_model_write_apart("lfm2", PI2_Q8_0, 1, path), 0);
    pi2_engine_options options;
    pi2_engine *engine = NULL;
    pi2_session *sessions[2];
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    options.sequences = 2;
    options.callbacks = (pi2_callbacks){ .user = &log, .progress = log_progress };
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    for (int i = 0; i < 2; i++) {
        sessions[i] = create(engine, 0.0f);
        log.last = 0;
        append(sessions[i], tokens, PROGRESS_TOKENS);
        assert_int_equal(pi2_session_truncate(sessions[i], PROGRESS_TOKENS - 1), PI2_OK);
    }
    const pi2_session_tokens parts[] = { { .session = sessions[0], .tokens = tokens, .token_count = 2 },
                                         { .session = sessions[1], .tokens = tokens + 2,
                                           .token_count = PROGRESS_TOKENS - 2 } };
    log = (progress_log){ 0, 0 };
    if (pi2_sessions_append(parts, 2) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_true(log.calls > 0);
    assert_int_equal(log.last, PROGRESS_TOKENS * LFM2_LAYERS);
    for (int i = 0; i < 2; i++) pi2_session_free(sessions[i]);
    pi2_engine_close(engine);
    free(path);
    test_folder_remove(folder);
}

/* ---- forks and answers ---- */

static void expect(pi2_status got, pi2_status want, const char *text) {
    assert_int_equal(got, want);
    if (!strstr(pi2_error_text(), text)) fail_msg("'%s' is not in: %s", text, pi2_error_text());
}

static void answer(pi2_session *session, int32_t *tokens) {
    for (int i = 0; i < ANSWER; i++) {
        assert_int_equal(pi2_session_sample(session, &tokens[i]), PI2_OK);
        append(session, &tokens[i], 1);
    }
}

/* A fork in the middle of an answer gives what the original does; with a seed of its own, what a session with that
 * seed does; and neither shows in the other. */
static void test_forks_go_on(void **state) {
    (void)state;
    static const int32_t prompt[] = { 20, 21, 22, 23, 24, 25, 20, 21, 22 };
    const size_t length = sizeof prompt / sizeof prompt[0];
    pi2_engine *engine = open_engine(small_path, &(variation){ "forks", 0, 2, 4, PI2_CACHE_F16, NULL }, 4);
    pi2_session *first = create(engine, 1.2f), *fork = NULL, *seeded = NULL, *again = NULL;
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.temperature = 4; /* what the first one's 1.2 nearly always has is no answer then */
    sampling.min_p = 0;
    sampling.top_p = 1;
    sampling.seed = 99;
    append(first, prompt, length);
    pi2_session_begin_answer(first, prompt, length);
    int32_t early[ANSWER], want[ANSWER], got[ANSWER], other[ANSWER], same[ANSWER];
    answer(first, early);
    assert_int_equal(pi2_session_fork(first, NULL, &fork), PI2_OK);
    assert_int_equal(pi2_session_fork(first, &sampling, &seeded), PI2_OK);
    assert_int_equal(pi2_session_seed(fork), 5);
    assert_int_equal(pi2_session_seed(seeded), 99);
    answer(seeded, other);
    answer(first, want);
    answer(fork, got);
    assert_memory_equal(got, want, sizeof want);
    assert_int_equal(pi2_session_create(engine, &sampling, &again), PI2_OK);
    append(again, prompt, length);
    append(again, early, ANSWER);
    answer(again, same);
    assert_memory_equal(same, other, sizeof other);
    assert_memory_not_equal(want, other, sizeof other);
    pi2_session *const all[] = { first, fork, seeded, again };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) pi2_session_free(all[i]);
    pi2_engine_close(engine);
}

static bool interrupts;

static bool is_interrupted(void *user) {
    (void)user;
    return interrupts;
}

/* A pass of two sessions, of which the second one has no room, takes no page for the first one either. */
static void check_refused_pass(const pi2_session *first, const pi2_session *second, const int32_t *tokens) {
    const pi2_kv_pages *pages = pi2_forward_pages(first->engine->forward);
    const uint32_t unused = pi2_kv_pages_unused(pages), count = CONTEXT - first->position;
    const pi2_batch_span spans[] = {
        { .sequence = first->sequence, .position = first->position, .token_count = count },
        { .sequence = second->sequence, .position = second->position, .token_count = CONTEXT - second->position } };
    const pi2_session_pass pass = { .batch = { .tokens = tokens, .spans = spans, .span_count = 2,
                                               .token_count = count + spans[1].token_count } };
    expect(pi2_session_run_pass(first->engine->sessions.sessions[first->sequence], &pass), PI2_ERR_CONTEXT, "are left");
    assert_int_equal(pi2_kv_pages_unused(pages), unused);
}

/* Forks of one prompt share its keys and values: a cache that is planned for that holds them, to the bit as alone; who
 * comes to need more is refused, and may go on when another has ended. */
static void test_branches(void **state) {
    (void)state;
    enum { BRANCHES = 4, PROMPT = 37, SHORT = 5 };
    const variation v = { "branches", 0, 2, 0, PI2_CACHE_F16, NULL };
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = small_path;
    options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    options.context_tokens = CONTEXT;
    options.sequences = BRANCHES;
    options.branch_tokens = ANSWER;
    options.callbacks.cancelled = is_interrupted;
    pi2_engine *engine = NULL, *whole = open_engine(small_path, &v, BRANCHES);
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    const uint64_t pages = pi2_engine_get_report(engine)->cache_bytes * 4 / pi2_engine_get_report(whole)->cache_bytes;
    assert_in_range(pages, 2, 3); /* 64 and 3 x 32 positions, of 4 x 64 */
    int32_t prompt[PROMPT], tokens[CONTEXT], got[BRANCHES][ANSWER], want[ANSWER];
    for (int t = 0; t < PROMPT; t++) prompt[t] = 3 * t;
    for (int t = 0; t < CONTEXT; t++) tokens[t] = 5 * t % 250;
    pi2_session *branches[BRANCHES] = { create(engine, 0.9f) }, *alone = create(whole, 0.9f);
    append(branches[0], prompt, PROMPT);
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.temperature = 4;
    sampling.min_p = 0;
    for (uint32_t b = 1; b < BRANCHES; b++) {
        sampling.seed = b;
        assert_int_equal(pi2_session_fork(branches[0], &sampling, &branches[b]), PI2_OK);
    }
    for (int i = 0; i < ANSWER; i++) { /* in turn */
        for (uint32_t b = 0; b < BRANCHES; b++) {
            assert_int_equal(pi2_session_sample(branches[b], &got[b][i]), PI2_OK);
            append(branches[b], &got[b][i], 1);
        }
    }
    append(alone, prompt, PROMPT);
    answer(alone, want);
    assert_memory_equal(got[0], want, sizeof want);
    for (uint32_t b = 1; b < BRANCHES; b++) assert_memory_not_equal(got[b], got[0], sizeof want);
    for (uint32_t b = 1; b < BRANCHES; b++) assert_int_equal(pi2_session_truncate(branches[b], SHORT), PI2_OK);
    const pi2_session_tokens parts[] = { { branches[1], tokens, CONTEXT - SHORT, true },
                                         { branches[2], tokens, CONTEXT - SHORT, true } };
    expect(pi2_sessions_append(parts, 2), PI2_ERR_CONTEXT, "part 1: the key-value cache holds 160 tokens of all");
    for (uint32_t b = 1; b < BRANCHES; b++) assert_int_equal(pi2_session_position(branches[b]), SHORT);
    check_refused_pass(branches[1], branches[2], tokens);
    interrupts = true; /* who did not get its tokens leaves their room to another one */
    expect(pi2_session_append(branches[1], tokens, CONTEXT - SHORT, PI2_LOGITS_LAST), PI2_ERR_INTERRUPTED, "");
    interrupts = false;
    append(branches[2], tokens, CONTEXT - SHORT);
    assert_int_equal(pi2_session_truncate(branches[2], SHORT), PI2_OK);
    append(branches[1], tokens, CONTEXT - SHORT);
    const pi2_status status = pi2_session_append(branches[2], tokens, CONTEXT - SHORT, PI2_LOGITS_LAST);
    expect(status, PI2_ERR_CONTEXT, "1 are left and 3 are needed");
    pi2_session_free(branches[1]);
    append(branches[2], tokens, CONTEXT - SHORT);
    assert_int_equal(pi2_session_truncate(alone, SHORT), PI2_OK);
    append(alone, tokens, CONTEXT - SHORT);
    assert_memory_equal(pi2_session_logits(alone, 0), pi2_session_logits(branches[2], 0),
                        pi2_engine_get_report(whole)->vocabulary_size * sizeof(float));
    pi2_session *const rest[] = { branches[0], branches[2], branches[3], alone };
    for (size_t i = 0; i < sizeof rest / sizeof rest[0]; i++) pi2_session_free(rest[i]);
    pi2_engine_close(engine);
    pi2_engine_close(whole);
}

/* ---- threads ---- */

typedef struct speaker {
    pi2_session *session;
    int32_t prompt[9], tokens[ANSWER];
} speaker;

static void *speak(void *argument) {
    speaker *s = argument;
    append(s->session, s->prompt, sizeof s->prompt / sizeof s->prompt[0]);
    answer(s->session, s->tokens);
    return NULL;
}

static void begin_to_speak(speaker *one, int number, pthread_t *thread) {
    for (int t = 0; t < 9; t++) one->prompt[t] = 30 * number + t;
    assert_int_equal(pthread_create(thread, NULL, speak, one), 0);
}

/* What was said together is said once more alone, and the session ends. */
static void check_alone(const speaker *together) {
    speaker alone = *together;
    assert_int_equal(pi2_session_truncate(alone.session, 0), PI2_OK);
    pi2_session_begin_answer(alone.session, NULL, 0);
    (void)speak(&alone);
    assert_memory_equal(alone.tokens, together->tokens, sizeof alone.tokens);
    pi2_session_free(alone.session);
}

static void test_threads(void **state) {
    (void)state;
    enum { SPEAKERS = 4 };
    speaker together[SPEAKERS];
    pthread_t threads[SPEAKERS];
    pi2_engine *engine = open_engine(small_path, &(variation){ "threads", 0, 2, 3, PI2_CACHE_F16, NULL }, SPEAKERS);
    for (int i = 0; i < SPEAKERS; i++) {
        together[i].session = create(engine, 0);
        begin_to_speak(&together[i], i, &threads[i]);
    }
    for (int i = 0; i < SPEAKERS; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < SPEAKERS; i++) {
        check_alone(&together[i]);
    }
    pi2_engine_close(engine);
}

/* Two engines of one process that compute at the same time, with one team of threads: each gives what it does alone. */
static void test_engines_at_once(void **state) {
    (void)state;
    enum { ENGINES = 2 };
    const variation v = { "engines at once", 0, 2, 3, PI2_CACHE_F16, NULL };
    pi2_engine *engines[ENGINES] = { open_engine(small_path, &v, 1), open_engine(falcon_path, &v, 1) };
    speaker together[ENGINES];
    pthread_t threads[ENGINES];
    for (int i = 0; i < ENGINES; i++) {
        together[i].session = create(engines[i], 0);
        begin_to_speak(&together[i], i, &threads[i]);
    }
    for (int i = 0; i < ENGINES; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < ENGINES; i++) {
        check_alone(&together[i]);
        pi2_engine_close(engines[i]); /* the other one's threads stay */
    }
}

/* ---- what is refused ---- */

static void test_refusals(void **state) {
    (void)state;
    const variation v = { "refusals", 0, 1, 0, PI2_CACHE_F16, NULL };
    pi2_engine *engine = open_engine(small_path, &v, 2), *single = open_engine(small_path, &v, 0);
    pi2_session *a = create(engine, 0), *b = create(engine, 0), *c = create(single, 0), *none = NULL;
    const int32_t good[CONTEXT] = { 7, 8 }, bad = 1 << 24;
    expect(pi2_session_create(engine, NULL, &none), PI2_ERR_INVALID, "room for 2 sessions, which are all in use");
    expect(pi2_session_fork(a, NULL, &none), PI2_ERR_INVALID, "room for 2 sessions");
    expect(pi2_session_fork(c, NULL, &none), PI2_ERR_INVALID, "room for 1 session, which is in use");
    assert_null(none);
    append(a, good, 2);
    const pi2_session_tokens fine = { a, good, 1, true };
    const struct { pi2_session_tokens part; pi2_status status; const char *text; } refused[] = {
        { { b, &bad, 1, true }, PI2_ERR_INVALID, "part 1: token 0 has id" },
        { { b, good, 0, true }, PI2_ERR_INVALID, "part 1 has no tokens" },
        { { a, good, 1, true }, PI2_ERR_INVALID, "part 1 is of a session that has another part" },
        { { c, good, 1, true }, PI2_ERR_INVALID, "part 1 is of no session of this engine" },
        { { NULL, good, 1, true }, PI2_ERR_INVALID, "part 1 is of no session of this engine" },
        { { b, good, CONTEXT + 1, true }, PI2_ERR_CONTEXT, "part 1: the context of 64 tokens is full" } };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        const pi2_session_tokens parts[] = { fine, refused[i].part };
        expect(pi2_sessions_append(parts, 2), refused[i].status, refused[i].text);
        assert_int_equal(pi2_session_position(a), 2);
        assert_int_equal(pi2_session_position(b), 0);
        assert_non_null(pi2_session_logits(a, 0));
    }
    assert_int_equal(pi2_sessions_append(NULL, 0), PI2_OK);
    pi2_session_free(a);
    assert_int_equal(pi2_session_fork(b, NULL, &a), PI2_OK); /* its room was free again */
    assert_int_equal(pi2_session_position(a), 0);
    pi2_session_free(a);
    pi2_session_free(b);
    pi2_session_free(c);
    pi2_engine_close(engine);
    pi2_engine_close(single);
}

/* The refusal of too many names how many fit, and so many do. */
static void test_budget(void **state) {
    (void)state;
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = dense_path;
    options.sequences = PI2_SEQUENCES_MOST + 1;
    pi2_engine *engine = NULL;
    expect(pi2_engine_open(&options, &engine), PI2_ERR_INVALID, "257 sequences are too many: use 1 to 256");
    options.sequences = 200;
    options.context_tokens = 512;
    options.thread_count = 1;
    options.memory_bytes = PI2_UNDER_EMULATOR || PI2_UNDER_ASAN || PI2_UNDER_TSAN ? 600000000 : 120000000;
    if (options.memory_bytes > 120000000) options.context_tokens = 4096;
    expect(pi2_engine_open(&options, &engine), PI2_ERR_MEMORY, "for 200 sequences; --memory gives");
    const char *fewer = strstr(pi2_error_text(), "fewer sequences (");
    assert_non_null(fewer);
    options.sequences = (uint32_t)strtoul(fewer + strlen("fewer sequences ("), NULL, 10);
    assert_in_range(options.sequences, 4, 199);
    if (PI2_UNDER_ASAN || PI2_UNDER_TSAN || PI2_UNDER_EMULATOR) options.sequences -= 2; /* what it holds has grown */
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    pi2_engine_close(engine);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    small_path = test_folder_path("small.gguf");
    falcon_path = test_folder_path("falcon.gguf");
    dense_path = test_folder_path("dense.gguf");
    experts_path = test_folder_path("experts.gguf");
    neurons_path = test_folder_path("neurons.gguf");
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    int failed = pi2_tiny_model_write_apart(&options, small_path);
    options.architecture = "falcon";
    options.two_norms = true;
    options.ffn_activation = "gelu";
    options.ungated = true;
    if (!failed) failed = pi2_tiny_model_write_apart(&options, falcon_path);
    pi2_streamed_model_options_init(&options);
    options.context_length = 8192;
    options.tied_head = false;
    if (!failed) failed = pi2_tiny_model_write_apart(&options, dense_path);
    pi2_tiny_model_options_init(&options);
    options.feed_forward_length = 1408;
    options.ffn_activation = "relu";
    if (!failed) failed = pi2_tiny_model_write_apart(&options, neurons_path);
    pi2_tiny_model_options_init(&options);
    options.layer_count = 4;
    options.feed_forward_length = 1024;
    options.expert_count = 8;
    options.expert_used_count = 2;
    return failed ? failed : pi2_tiny_model_write_apart(&options, experts_path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense), cmocka_unit_test(test_experts), cmocka_unit_test(test_neurons),
        cmocka_unit_test(test_families), cmocka_unit_test(test_progress),
        cmocka_unit_test(test_forks_go_on), cmocka_unit_test(test_branches), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_engines_at_once),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_budget),
    };
    return cmocka_run_group_tests_name("sessions", tests, set_up, test_folder_end);
}
