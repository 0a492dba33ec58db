/*
 * Goal:   jobs that share passes have the answers that they have alone, whatever comes, goes and shares its beginning
 *         with others; what is there of a prompt is not computed again, and is told; no job stops another, nor keeps
 *         its place behind its deadline.
 * Method: random jobs over few prompts, admitted and cancelled between steps, against pi2_generate() of an engine with
 *         one session; and the cases that matter, counted token by token.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/output.h"
#include "cli/scheduler.h"
#include "cli/slots.h"
#include "powerinfer2/generate.h"
#include "support/family_model.h"
#include "support/sanitizer.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { CONTEXT = 128, BATCH = 40, SLOTS = 3, LONGEST = 90, PLENTY = 1000000000 };
enum { JOBS = PI2_UNDER_TSAN || PI2_UNDER_ASAN ? 14 : 60 };

static char *dense_path, *recurrent_path;
static uint64_t randomness = 5;

static uint32_t draw(uint32_t below) { return (uint32_t)(pi2_tiny_random(&randomness) % below); }

/* sparsity: as in pi2_engine_options; NULL: the default. */
static pi2_engine *open_engine(const char *path, uint32_t sequences, uint32_t draft, const char *sparsity) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.sequences = sequences;
    options.context_tokens = CONTEXT;
    options.batch_tokens = BATCH;
    options.draft_tokens = draft;
    options.memory_bytes = PLENTY;
    if (sparsity) options.sparsity = sparsity;
    pi2_engine *engine = NULL;
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    return engine;
}

/* Prompts begin alike: number `kind` and the one before it have most of their tokens in common. */
static void make_prompt(int32_t tokens[LONGEST], uint32_t kind, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const size_t part = i < 70 ? kind / 4 : kind;
        tokens[i] = (int32_t)(3 + (i * i + 7 * part * (i + 1)) % 200);
    }
}

static pi2_job *make_job(const int32_t *prompt, size_t count, int64_t limit, float temperature, uint32_t seed) {
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.temperature = temperature;
    sampling.seed = seed;
    sampling.repeat_penalty = 1.1f;
    pi2_job *job = calloc(1, sizeof *job);
    assert_non_null(job);
    pi2_job_init(job, &sampling);
    job->prompt = prompt;
    job->prompt_count = count;
    job->limit = limit;
    return job;
}

static void free_job(pi2_job *job) {
    pi2_job_free(job);
    free(job);
}

/* ---- the answer alone ---- */

typedef struct answer {
    int32_t tokens[CONTEXT];
    size_t count;
} answer;

static bool take_token(void *user, int32_t token) {
    answer *made = user;
    made->tokens[made->count++] = token;
    return true;
}

static void check_answer(pi2_session *judge, const pi2_job *job) {
    answer made = {.count = 0};
    const pi2_answer_options options = {.limit = job->limit, .user = &made, .token = take_token};
    pi2_answer_result result;
    assert_int_equal(pi2_session_truncate(judge, 0), PI2_OK);
    assert_int_equal(pi2_session_set_sampling(judge, &job->sampling), PI2_OK);
    const pi2_status status = pi2_generate(judge, job->prompt, job->prompt_count, &options, &result);
    if (status != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(job->status, PI2_OK);
    assert_int_equal(job->stop, result.stop);
    assert_int_equal(job->tokens.length, made.count);
    if (made.count) assert_memory_equal(job->tokens.data, made.tokens, made.count * sizeof *made.tokens);
    assert_int_equal(job->cached_count + job->computed_count, job->prompt_count);
    assert_int_equal(job->seed, job->sampling.seed);
}

static void run_random_jobs(const char *path, uint32_t draft, const char *sparsity) {
    pi2_engine *engine = open_engine(path, SLOTS, draft, sparsity), *alone = open_engine(path, 1, 0, sparsity);
    pi2_session *judge = NULL;
    pi2_slots *slots = NULL;
    assert_int_equal(pi2_engine_is_exact(engine), sparsity == NULL);
    assert_int_equal(pi2_session_create(alone, NULL, &judge), PI2_OK);
    assert_int_equal(pi2_slots_create(engine, &slots), PI2_OK);
    static int32_t prompts[JOBS][LONGEST];
    pi2_job *jobs[JOBS];
    size_t begun = 0, checked = 0, cached = 0;
    bool goes_on = true;
    while (begun < JOBS || goes_on) {
        while (begun < JOBS && pi2_slots_have_room(slots) && draw(3)) {
            const size_t count = draw(8) ? 1 + draw(LONGEST) : 75;
            make_prompt(prompts[begun], draw(6), count);
            const int64_t limit = draw(4) ? (int64_t)draw(20) : -1; /* until the context is full, or an end comes */
            jobs[begun] = make_job(prompts[begun], count, limit, draw(2) ? 1.5f : 0.0f, draw(50));
            jobs[begun]->wants_chances = draw(2) == 1;
            pi2_slots_admit(slots, jobs[begun++]);
        }
        if (begun && draw(12) == 0) jobs[draw((uint32_t)begun)]->is_cancelled = true;
        goes_on = pi2_slots_step(slots);
    }
    for (size_t i = 0; i < begun; i++) {
        assert_int_equal(jobs[i]->state, PI2_JOB_DONE);
        if (jobs[i]->status != PI2_ERR_INTERRUPTED) {
            check_answer(judge, jobs[i]);
            checked++;
            cached += jobs[i]->cached_count;
        }
        free_job(jobs[i]);
    }
    assert_true(checked >= JOBS / 4 && checked < JOBS && cached > LONGEST / 2);
    pi2_slots_free(slots);
    pi2_session_free(judge);
    pi2_engine_close(engine);
    pi2_engine_close(alone);
}

static void test_answers_are_those_alone(void **state) {
    (void)state;
    run_random_jobs(dense_path, 0, NULL);
    run_random_jobs(dense_path, 6, NULL);
    run_random_jobs(recurrent_path, 0, NULL);
    run_random_jobs(dense_path, 0, "0.5"); /* an answer's tokens are computed otherwise than a prompt's */
}

/* ---- cases ---- */

typedef struct bench {
    pi2_engine *engine;
    pi2_slots *slots;
    int32_t prompt[LONGEST], other[LONGEST];
} bench;

static bench begin_as(const char *path, const char *sparsity) {
    bench b = {.engine = open_engine(path, SLOTS, 0, sparsity)};
    assert_int_equal(pi2_slots_create(b.engine, &b.slots), PI2_OK);
    make_prompt(b.prompt, 1, LONGEST);
    make_prompt(b.other, 9, LONGEST);
    return b;
}

static bench begin(const char *path) { return begin_as(path, NULL); }

static void end(bench *b) {
    pi2_slots_free(b->slots);
    pi2_engine_close(b->engine);
}

/* Admits the job, runs to the end of all, and tells how many of the prompt's tokens were there. The answer's three are
 * written behind the prompt. */
static size_t cached_of(bench *b, int32_t *prompt, size_t count) {
    pi2_job *job = make_job(prompt, count, 3, 0, 1);
    pi2_slots_admit(b->slots, job);
    while (pi2_slots_step(b->slots)) {}
    assert_int_equal(job->status, PI2_OK);
    assert_int_equal(job->cached_count + job->computed_count, count);
    const size_t cached = job->cached_count;
    assert_int_equal(job->tokens.length, 3);
    memcpy(prompt + count, job->tokens.data, 3 * sizeof *prompt);
    free_job(job);
    return cached;
}

static void test_what_is_there(void **state) {
    (void)state;
    bench b = begin(dense_path);
    assert_int_equal(cached_of(&b, b.prompt, 60), 0);
    assert_int_equal(cached_of(&b, b.prompt, 60), 59); /* the last token's logits are wanted */
    assert_int_equal(cached_of(&b, b.other, 50), 0);
    assert_int_equal(cached_of(&b, b.prompt, 80), 62); /* in the slot that has it and the answer, not in the last one */
    assert_int_equal(cached_of(&b, b.prompt, 20), 19); /* of which most would be lost: a copy */
    assert_int_equal(cached_of(&b, b.other, 50), 49);
    end(&b);
    b = begin(recurrent_path); /* goes on from the end of what was computed, or of a prompt */
    assert_int_equal(cached_of(&b, b.prompt, 60), 0);
    assert_int_equal(cached_of(&b, b.prompt, 60), 0);
    assert_int_equal(cached_of(&b, b.prompt, 70), 62);
    b.prompt[71]++;
    assert_int_equal(cached_of(&b, b.prompt, 80), 70);
    end(&b);
    b = begin_as(dense_path, "0.5"); /* an answer has other states there than a prompt with the same tokens */
    assert_int_equal(cached_of(&b, b.prompt, 60), 0);
    assert_int_equal(cached_of(&b, b.prompt, 80), 60);
    assert_int_equal(cached_of(&b, b.prompt, 80), 78); /* and so would its last token alone */
    end(&b);
}

static void expect_one_reads(const char *path) {
    bench b = begin(path);
    pi2_job *first = make_job(b.prompt, LONGEST, 5, 1.5f, 1), *same = make_job(b.prompt, LONGEST, 5, 1.5f, 2);
    pi2_job *longer = make_job(b.prompt, 30, 5, 0, 3);
    pi2_slots_admit(b.slots, first);
    pi2_slots_admit(b.slots, same);
    pi2_slots_admit(b.slots, longer);
    while (pi2_slots_step(b.slots)) {}
    assert_int_equal(first->computed_count, LONGEST);
    assert_int_equal(same->computed_count, 0);
    assert_int_equal(same->tokens.length, 5);
    assert_int_equal(longer->computed_count, 30); /* is not worth a wait */
    free_job(first);
    free_job(same);
    free_job(longer);
    end(&b);
}

static void test_one_reads_for_all(void **state) {
    (void)state;
    expect_one_reads(dense_path);
    expect_one_reads(recurrent_path);
}

static void test_prompts_take_turns(void **state) {
    (void)state;
    bench b = begin(dense_path);
    pi2_job *answered = make_job(b.other, 4, 40, 0, 1), *read = make_job(b.prompt, LONGEST, 1, 0, 1);
    pi2_job *brief = make_job(b.other + 40, 5, 1, 0, 1);
    pi2_slots_admit(b.slots, answered);
    assert_true(pi2_slots_step(b.slots));
    pi2_slots_admit(b.slots, read);
    pi2_slots_admit(b.slots, brief);
    const size_t before = answered->tokens.length;
    size_t steps = 0;
    for (; read->state != PI2_JOB_DONE; steps++) {
        assert_true(pi2_slots_step(b.slots));
        assert_int_equal(answered->tokens.length, before + steps + 1); /* with every slice a token */
        if (steps == 1) assert_int_equal(brief->state, PI2_JOB_DONE);   /* it need not wait for the long one */
    }
    assert_true(steps >= 3);
    pi2_slots_end_all(b.slots);
    assert_int_equal(answered->status, PI2_ERR_INTERRUPTED);
    free_job(answered);
    free_job(read);
    free_job(brief);
    end(&b);
}

static void test_a_reader_holds_its_own(void **state) {
    (void)state;
    bench b = begin(dense_path);
    pi2_job *held = make_job(b.prompt, 10, 90, 0, 1), *other = make_job(b.other, 10, 20, 0, 1);
    held->is_streamed = held->wants_chances = true;
    pi2_slots_admit(b.slots, held);
    pi2_slots_admit(b.slots, other);
    while (pi2_slots_step(b.slots)) {}
    assert_int_equal(other->state, PI2_JOB_DONE);
    assert_int_equal(held->tokens.length, PI2_JOB_UNTAKEN_CHANCES);
    pi2_slots_counts counts;
    pi2_slot_report reports[SLOTS];
    pi2_slots_count(b.slots, &counts, reports);
    assert_int_equal(counts.running, 1);
    size_t holds = 0;
    for (size_t i = 0; i < SLOTS; i++) holds += reports[i].state == PI2_SLOT_HELD;
    assert_int_equal(holds, 1);
    pi2_token_chance told[PI2_JOB_UNTAKEN_CHANCES];
    while (held->state != PI2_JOB_DONE) {
        (void)pi2_job_take_chances(held, told, PI2_JOB_UNTAKEN_CHANCES);
        while (pi2_slots_step(b.slots)) {}
    }
    assert_int_equal(held->tokens.length, 90);
    free_job(held);
    free_job(other);
    end(&b);
}

/* One waits while another is held for ever by its reader; both end, and nothing but time does it. */
static void test_deadlines(void **state) {
    (void)state;
    enum { HELD, QUEUED, LAST, TOO_LATE, COUNT };
    bench b = {.engine = open_engine(dense_path, 1, 0, NULL)};
    make_prompt(b.prompt, 1, LONGEST);
    pi2_scheduler_watch watch = {0};
    pi2_scheduler *scheduler = NULL;
    assert_int_equal(pi2_scheduler_create(b.engine, &watch, COUNT, &scheduler), PI2_OK);
    pi2_job *jobs[COUNT];
    for (size_t i = 0; i < COUNT; i++) jobs[i] = make_job(b.prompt, 10, i == HELD ? 90 : 4, 0, 1);
    jobs[HELD]->is_streamed = jobs[HELD]->wants_chances = true;
    jobs[QUEUED]->deadline_ns = pi2_cli_now_ns() + 200000000;
    jobs[HELD]->deadline_ns = jobs[QUEUED]->deadline_ns + 100000000;
    jobs[TOO_LATE]->deadline_ns = 1;
    assert_true(pi2_scheduler_submit(scheduler, jobs, COUNT));
    pi2_scheduler_finish(scheduler, jobs[QUEUED], false);
    pi2_scheduler_finish(scheduler, jobs[LAST], false);
    assert_true(pi2_job_is_done(jobs[HELD])); /* it had the only slot */
    pi2_scheduler_finish(scheduler, jobs[TOO_LATE], false);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(jobs[i]->status, i == LAST ? PI2_OK : PI2_ERR_INTERRUPTED);
        assert_int_equal(jobs[i]->is_late, i != LAST);
        if (i != HELD) assert_int_equal(jobs[i]->was_queued, i != LAST); /* it too, on a machine that stands still */
    }
    assert_int_equal(jobs[LAST]->tokens.length, 4);
    assert_true(jobs[HELD]->tokens.length <= PI2_JOB_UNTAKEN_CHANCES);
    assert_int_equal(jobs[QUEUED]->tokens.length + jobs[TOO_LATE]->tokens.length, 0);
    pi2_scheduler_stop(scheduler);
    pi2_scheduler_free(scheduler);
    for (size_t i = 0; i < COUNT; i++) free_job(jobs[i]);
    pi2_engine_close(b.engine);
}

static void test_refused(void **state) {
    (void)state;
    bench b = begin(dense_path);
    int32_t tokens[CONTEXT + 1] = {0};
    for (size_t count = 0; count <= CONTEXT + 1; count += CONTEXT + 1) {
        pi2_job *job = make_job(tokens, count, 1, 0, 1);
        pi2_slots_admit(b.slots, job);
        while (pi2_slots_step(b.slots)) {}
        assert_int_equal(job->status, PI2_ERR_CONTEXT);
        assert_non_null(strstr(job->error, count ? "129 tokens, and the context holds 1 to 128" : "0 tokens"));
        free_job(job);
    }
    end(&b);
}

static int set_up(void **state) {
    if (test_folder_begin_in_memory(state) != 0) return -1;
    dense_path = test_folder_path("dense.gguf");
    recurrent_path = test_folder_path("recurrent.gguf");
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    return pi2_tiny_model_write(&options, dense_path) || pi2_family_model_write("qwen35", PI2_F32, 1, recurrent_path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_those_alone), cmocka_unit_test(test_what_is_there),
        cmocka_unit_test(test_one_reads_for_all), cmocka_unit_test(test_prompts_take_turns),
        cmocka_unit_test(test_a_reader_holds_its_own), cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests_name("slots", tests, set_up, test_folder_end);
}
