/*
 * Goal:   what is planned, with a margin, is within the budget, at every budget; what stays in memory is
 *         spread evenly over the pass.
 * Method: plans of a tiny model, added up anew; residents of made-up extents.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/memory_ledger.h"
#include "base/memory_limit.h"
#include "engine/drafting.h"
#include "engine/run_source.h"
#include "engine/sampler.h"
#include "neuron_cache/expert_cache.h"
#include "powerinfer2/model_file.h"
#include "support/sanitizer.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

/* A planned run, to be closed; false: less than the least, and that it says so is tested elsewhere. */
static bool open_plan(const char *path, uint32_t context, uint64_t budget, pi2_planned_run *run) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.context_tokens = context;
    options.thread_count = 2;
    options.memory_bytes = budget;
    memset(run, 0, sizeof *run);
    const pi2_status status = pi2_planned_run_make(&options, run);
    if (status != PI2_OK && status != PI2_ERR_MEMORY) fail_msg("%s", pi2_error_text());
    if (status != PI2_OK) pi2_planned_run_close(run);
    return status == PI2_OK;
}

static void check_plan(const char *path, uint64_t budget, unsigned *whole, unsigned *parts) {
    pi2_planned_run run;
    if (!open_plan(path, 128, budget, &run)) return;
    const pi2_memory_plan *plan = &run.plan.memory;
    const uint64_t margin = budget / 100 > 1000000 ? budget / 100 : 1000000;
    const uint64_t fixed = plan->process_bytes + plan->cache_bytes + plan->scratch_bytes + plan->session_bytes +
                           plan->dense_scratch_bytes + plan->ring_bytes + plan->staging_bytes;
    const uint64_t weights = plan->resident_room + plan->expert_bytes - plan->loan_bytes;
    if (fixed + weights + margin > budget) {
        fail_msg("budget %llu: %llu and weights of %llu leave no margin", (unsigned long long)budget,
                 (unsigned long long)fixed, (unsigned long long)weights);
    }
    /* And it is used: what is left beside the margin would have held another part of the weights. */
    if (!plan->everything_resident) assert_true(fixed + weights + margin + 2000000 > budget);
    *(plan->everything_resident ? whole : parts) += 1;
    pi2_planned_run_close(&run);
}

static void test_budgets_have_a_margin(void **state) {
    (void)state;
    char *folder = test_folder_make(), *path = test_path(folder, "tiny.gguf");
    pi2_tiny_model_options options;
    for (int experts = 0; experts < 2; experts++) {
        pi2_tiny_model_options_init(&options);
        options.layer_count = 4;
        options.embedding_length = 512;
        options.head_count = 8;
        options.feed_forward_length = experts ? 768 : 3072;
        if (experts) {
            options.expert_count = 12;
            options.expert_used_count = 3;
        }
        assert_int_equal(pi2_tiny_model_write_apart(&options, path), 0);
        unsigned whole = 0, parts = 0;
        uint64_t peak = 0, current = 0;
        assert_true(pi2_process_memory(&peak, &current));
        for (uint64_t more = 1000000; more < 90000000; more += 777777) check_plan(path, current + more, &whole, &parts);
        check_plan(path, 3000000000, &whole, &parts);
        check_plan(path, 4000000000000, &whole, &parts); /* terabytes */
        assert_true(whole > 3 && parts > 5);
    }
    free(path);
    test_folder_remove(folder);
}

/* When the key-value cache wants its room back, the slots that a token needs stay. True: something is lent. */
static bool check_loan(const char *path, uint64_t budget) {
    pi2_planned_run run;
    if (!open_plan(path, 512, budget, &run)) return false;
    const pi2_memory_plan *plan = &run.plan.memory;
    const bool is_lent = plan->loan_bytes > 0 && plan->ring_bytes == 0;
    const uint64_t slot = pi2_expert_cache_slot_bytes(run.source.model->layout);
    const uint64_t slots = plan->expert_bytes / slot;
    const uint64_t returned = (plan->loan_bytes + slot - 1) / slot;
    if (is_lent && slots < returned + run.source.model->shape.expert_used_count) {
        fail_msg("budget %llu: %llu slots, of which %llu are to return", (unsigned long long)budget,
                 (unsigned long long)slots, (unsigned long long)returned);
    }
    pi2_planned_run_close(&run);
    return is_lent;
}

static void test_loan_returns_as_slots(void **state) {
    (void)state;
    char *folder = test_folder_make(), *path = test_path(folder, "tiny.gguf"), *made = test_path(folder, "tiny.pi2");
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.layer_count = 4;
    options.embedding_length = 512;
    options.head_count = 8;
    options.feed_forward_length = 768;
    options.expert_count = 12;
    options.expert_used_count = 3;
    options.context_length = 512;
    assert_int_equal(pi2_tiny_model_write_apart(&options, path), 0);
    const pi2_prepare_options prepare = {.model_path = path, .output_path = made};
    assert_int_equal(pi2_prepare_file(&prepare, NULL), PI2_OK);
    unsigned lent = 0;
    for (uint64_t more = 1000000; more < 30000000; more += 111111) {
        uint64_t peak = 0, current = 0;
        assert_true(pi2_process_memory(&peak, &current));
        lent += check_loan(made, current + more);
    }
    assert_true(lent > 20);
    free(made);
    free(path);
    test_folder_remove(folder);
}

/* What sessions have of their own is counted by the run's context, not by that which the model was trained with, and
 * for whatever sampling they get. */
static void test_sessions_are_counted(void **state) {
    (void)state;
    enum { SESSIONS = 4, CONTEXT = 96, TRAINED = 1 << 22, MUCH = 32000000 };
    char *folder = test_folder_make(), *path = test_path(folder, "tiny.gguf");
    pi2_tiny_model_options model;
    pi2_tiny_model_options_init(&model);
    model.context_length = TRAINED;
    assert_int_equal(pi2_tiny_model_write_apart(&model, path), 0);
    pi2_engine_options options;
    pi2_planned_run run = { 0 };
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.context_tokens = CONTEXT;
    options.sequences = SESSIONS;
    options.draft_tokens = 4;
    options.memory_bytes = 1000000000;
    uint64_t peak = 0, current = 0;
    assert_true(pi2_process_memory(&peak, &current));
    if (pi2_planned_run_make(&options, &run) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_true(run.plan.memory.process_bytes < current + MUCH);
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.top_k = 0;
    sampling.repeat_penalty = 2.0f;
    sampling.repeat_last_n = -1;
    const pi2_logit_bias biases[PI2_LOGIT_BIASES_MOST] = {{0}};
    sampling.logit_biases = biases;
    sampling.logit_bias_count = PI2_LOGIT_BIASES_MOST;
    const uint64_t samplers = (SESSIONS + 1) * pi2_sampler_bytes(&sampling, CONTEXT);
    assert_int_equal(run.plan.memory.session_bytes,
                     samplers + SESSIONS * (pi2_drafting_bytes(NULL, CONTEXT) + CONTEXT * (sizeof(int32_t) + 1)) +
                         pi2_sampler_candidate_bytes(run.source.model->shape.vocabulary_size));
    pi2_planned_run_close(&run);
    free(path);
    test_folder_remove(folder);
}

/* Of a guess that parts, logits and branches' pages take a small share of the budget, and are in the plan. */
static void test_guesses_that_part(void **state) {
    (void)state;
    enum { SHARE = 64, CONTEXT = 256 };
    char *folder = test_folder_make(), *path = test_path(folder, "tiny.gguf");
    pi2_tiny_model_options model;
    pi2_tiny_model_options_init(&model);
    assert_int_equal(pi2_tiny_model_write_apart(&model, path), 0);
    pi2_engine_options options;
    uint32_t some = 0, few = 0, all = 0;
    for (uint64_t budget = 3000000; budget < 4000000000; budget += budget / 4) {
        pi2_planned_run run = { 0 };
        pi2_engine_options_init(&options);
        options.model_path = path;
        options.context_tokens = CONTEXT;
        options.draft_tokens = 1;
        options.draft_nodes = PI2_DRAFT_NODES_MOST;
        options.memory_bytes = budget;
        if (pi2_planned_run_make(&options, &run) != PI2_OK) {
            pi2_planned_run_close(&run);
            continue;
        }
        const pi2_memory_plan *plan = &run.plan.memory;
        const uint64_t row = run.source.model->shape.vocabulary_size * sizeof(float);
        const uint64_t page = pi2_forward_sequence_bytes(run.source.model, &plan->shape) / (CONTEXT / 16);
        assert_true(plan->draft_nodes * row <= budget / SHARE && plan->shape.branches * page <= budget / SHARE);
        if (plan->draft_nodes) assert_int_equal(plan->shape.logits_tokens, plan->draft_nodes + 1);
        assert_true(plan->draft_nodes ? plan->shape.branches < plan->draft_nodes : plan->shape.branches == 0);
        some += plan->shape.branches > 0 && plan->shape.branches < PI2_BRANCHES_MOST - 1;
        few += budget / SHARE / page > 1 && budget / SHARE / page < PI2_BRANCHES_MOST - 1;
        all += plan->draft_nodes == PI2_DRAFT_NODES_MOST;
        pi2_planned_run_close(&run);
    }
    assert_true(all > 0);
    /* A sanitizer's process alone is larger than budgets that leave room for few branches. */
    if (few || (!PI2_UNDER_ASAN && !PI2_UNDER_TSAN)) assert_true(some > 0);
    free(path);
    test_folder_remove(folder);
}

/* Where it is not said how many tokens a guess that parts has, it has some where weights stream, and none in memory. A
 * batch that is asked for (0: none is) stays. */
static void guess_with_batch(uint32_t batch_tokens) {
    char *folder = test_folder_make(), *path = test_path(folder, "tiny.gguf");
    pi2_tiny_model_options model;
    pi2_tiny_model_options_init(&model);
    model.layer_count = 24; /* 25 MB */
    model.feed_forward_length = 2048;
    assert_int_equal(pi2_tiny_model_write_apart(&model, path), 0);
    pi2_engine_options options;
    uint32_t streamed = 0, resident = 0;
    for (uint64_t budget = 3000000; budget < 4000000000; budget += budget / 8) {
        pi2_planned_run run = { 0 };
        pi2_engine_options_init(&options);
        options.model_path = path;
        options.context_tokens = 256;
        options.draft_tokens = 1;
        options.batch_tokens = batch_tokens;
        options.memory_bytes = budget;
        if (pi2_planned_run_make(&options, &run) != PI2_OK) {
            pi2_planned_run_close(&run);
            continue;
        }
        const pi2_memory_plan *plan = &run.plan.memory;
        if (plan->everything_resident) assert_int_equal(plan->draft_nodes, 0);
        if (batch_tokens) assert_int_equal(plan->shape.batch_tokens, batch_tokens);
        assert_true(plan->draft_nodes < plan->shape.batch_tokens);
        assert_true(plan->draft_nodes == 0 || plan->shape.branches > 0);
        resident += plan->everything_resident;
        streamed += plan->draft_nodes > 0;
        pi2_planned_run_close(&run);
    }
    assert_true(streamed > 0 && resident > 0);
    free(path);
    test_folder_remove(folder);
}

static void test_guesses_part_where_weights_stream(void **state) {
    (void)state;
    guess_with_batch(0);
    guess_with_batch(8);
}

/* An engine that is open has been planned with memory that it has not touched yet: the next plan counts that. */
static void test_engines_share_one_budget(void **state) {
    (void)state;
    enum { CONTEXT = 16384, NOTE = 4000000 };
    char *folder = test_folder_make(), *path = test_path(folder, "tiny.gguf");
    pi2_tiny_model_options model;
    pi2_tiny_model_options_init(&model);
    model.context_length = CONTEXT;
    assert_int_equal(pi2_tiny_model_write_apart(&model, path), 0);
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.context_tokens = CONTEXT;
    options.memory_bytes = 1000000000;
    uint64_t alone[2], beside[2], cache = 0, process = 0;
    for (int i = 0; i < 2; i++) {
        pi2_planned_run run = { 0 };
        pi2_engine *engines[2] = { NULL, NULL };
        if (pi2_planned_run_make(&options, &run) != PI2_OK) fail_msg("%s", pi2_error_text());
        alone[i] = run.plan.memory.process_bytes;
        pi2_planned_run_close(&run);
        if (pi2_engine_open(&options, &engines[0]) != PI2_OK) fail_msg("%s", pi2_error_text());
        cache = pi2_engine_get_report(engines[0])->cache_bytes;
        if (pi2_engine_open(&options, &engines[1]) != PI2_OK) fail_msg("%s", pi2_error_text());
        beside[i] = pi2_engine_get_report(engines[1])->process_bytes;
        process = pi2_engine_get_report(engines[0])->process_bytes;
        pi2_engine_close(engines[0]); /* the first: what it had claimed is free again, what the second had is not */
        memset(&run, 0, sizeof run);
        if (pi2_planned_run_make(&options, &run) != PI2_OK) fail_msg("%s", pi2_error_text());
        assert_true(run.plan.memory.process_bytes < beside[i] + NOTE);
        assert_true(run.plan.memory.process_bytes > alone[i] + cache);
        pi2_planned_run_close(&run);
        pi2_engine_close(engines[1]);
    }
    assert_true(cache > 2 * NOTE);
    assert_true(beside[0] > process + cache);
    assert_true(alone[1] < alone[0] + NOTE); /* and all of it was given back */
    free(path);
    test_folder_remove(folder);
}

typedef struct opener {
    pi2_engine_options *options;
    pi2_engine *engine;
    pi2_status status;
} opener;

static void *open_one(void *argument) {
    opener *self = argument;
    self->status = pi2_engine_open(self->options, &self->engine);
    return NULL;
}

static bool always_cancelled(void *user) {
    (void)user;
    return true;
}

/* An engine that opens while another one is being planned waits for its claim, and is planned beside it; unless it is
 * cancelled before that. */
static void test_engines_open_at_once(void **state) {
    (void)state;
    enum { CLAIM = 300000000 };
    char *folder = test_folder_make(), *path = test_path(folder, "tiny.gguf");
    pi2_tiny_model_options model;
    pi2_tiny_model_options_init(&model);
    assert_int_equal(pi2_tiny_model_write_apart(&model, path), 0);
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.memory_bytes = 1000000000;
    opener other = { &options, NULL, PI2_OK };
    pthread_t thread;
    uint64_t peak = 0, current = 0;
    assert_true(pi2_process_memory(&peak, &current));
    assert_true(pi2_memory_begin_plan(NULL, NULL));
    options.callbacks.cancelled = always_cancelled;
    assert_int_equal(pthread_create(&thread, NULL, open_one, &other), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(other.status, PI2_ERR_INTERRUPTED);
    assert_null(other.engine);
    options.callbacks.cancelled = NULL;
    assert_int_equal(pthread_create(&thread, NULL, open_one, &other), 0);
    const struct timespec time = { .tv_nsec = 200000000 }; /* enough to plan, for one who does not wait */
    (void)nanosleep(&time, NULL);
    pi2_memory_claim(pi2_memory_spoken_for(current), CLAIM);
    pi2_memory_end_plan();
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_non_null(other.engine);
    assert_true(pi2_engine_get_report(other.engine)->process_bytes >= CLAIM);
    pi2_engine_close(other.engine);
    pi2_memory_unclaim(CLAIM);
    free(path);
    test_folder_remove(folder);
}

static void test_residents_are_spread(void **state) {
    (void)state;
    enum { COUNT = 400, LEAST_BYTES = 200 * 1024, RUN_BYTES = 1000 * 1024 };
    static pi2_extent extents[COUNT];
    static uint32_t sequence[COUNT];
    static uint8_t resident[COUNT];
    uint64_t all = 0, random = 5;
    for (uint32_t i = 0; i < COUNT; i++) {
        extents[i].bytes = LEAST_BYTES + (uint32_t)(pi2_tiny_random(&random) % 40) * 4096;
        sequence[i] = i;
        all += pi2_extent_read_bytes(&extents[i]);
    }
    const pi2_extent_layout layout = { .extents = extents, .extent_count = COUNT };
    for (unsigned percent = 5; percent <= 95; percent += 15) {
        const uint64_t room = all / 100 * percent;
        const uint64_t taken = pi2_memory_plan_residents(&layout, sequence, COUNT, room, resident);
        assert_in_range(taken, room - RUN_BYTES, room);
        uint64_t passed = 0, stays = 0;
        for (uint32_t i = 0; i < COUNT; i++) {
            passed += pi2_extent_read_bytes(&extents[i]);
            if (resident[i]) stays += pi2_extent_read_bytes(&extents[i]);
            /* Of any beginning of the pass its share stays, up to the runs that are read at once. */
            const uint64_t due = passed / 100 * percent, apart = due > stays ? due - stays : stays - due;
            if (apart > 3 * RUN_BYTES) {
                fail_msg("%u %%: up to extent %u %llu bytes stay, %llu would be even", percent, i,
                         (unsigned long long)stays, (unsigned long long)due);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_budgets_have_a_margin),
                                        cmocka_unit_test(test_loan_returns_as_slots),
                                        cmocka_unit_test(test_sessions_are_counted),
                                        cmocka_unit_test(test_guesses_part_where_weights_stream),
                                        cmocka_unit_test(test_guesses_that_part),
                                        cmocka_unit_test(test_engines_share_one_budget),
                                        cmocka_unit_test(test_engines_open_at_once),
                                        cmocka_unit_test(test_residents_are_spread) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
