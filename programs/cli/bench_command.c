/*
 * bench_command.c: "powerinfer2 bench": speed of prompts (pp) and answers (tg), with llama-bench's
 * tests and field names. Tokenizing and sampling are not timed. Each test has the context that it
 * needs, as in llama-bench, unless -c asks for another: so a budget is spent on weights.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench_report.h"
#include "commands.h"
#include "machine_profile_cli.h"
#include "engine_options.h"
#include "guard_report.h"
#include "output.h"
#include "powerinfer2/session.h"
#include "powerinfer2/sizes.h"
#include "prediction_report.h"
#include "signals.h"

enum { MAX_LIST = 16, MAX_REPETITIONS = 1000 };

typedef struct bench_settings {
    const char *prompts, *answers, *depths, *pairs, *threads, *memories, *batches, *format, *routing_trace, *statistics,
        *pipeline;
    int64_t repetitions, context, seed;
    bool no_warmup;
} bench_settings;

#define BENCH(field) offsetof(bench_settings, field)
static const pi2_cli_option bench_options[] = {
    {"-p, --n-prompt", "LIST", PI2_CLI_TEXT, BENCH(prompts), "512", "Prompt lengths; 0: no such test.", NULL, 0, 0},
    {"-n, --n-gen", "LIST", PI2_CLI_TEXT, BENCH(answers), "128", "Answer lengths; 0: no such test.", NULL, 0, 0},
    {"-pg", "PP,TG", PI2_CLI_TEXT, BENCH(pairs), NULL, "Also a prompt and an answer timed together.", NULL, 0, 0},
    {"-d, --n-depth", "LIST", PI2_CLI_TEXT, BENCH(depths), "0", "Tokens that the context holds before.", NULL, 0, 0},
    {"-r, --repetitions", "N", PI2_CLI_INTEGER, BENCH(repetitions), "5", "Times that each test is run.", NULL, 1,
     MAX_REPETITIONS},
    {"--no-warmup", NULL, PI2_CLI_FLAG, BENCH(no_warmup), NULL, "Leaves out the one run that is not counted.", NULL,
     0, 0},
    {"-t, --threads", "LIST", PI2_CLI_TEXT, BENCH(threads), "0",
     "Threads; 0: one for each processor. At most 256 compute.", "LLAMA_ARG_THREADS", 0, 0},
    {"--memory", "LIST", PI2_CLI_TEXT, BENCH(memories), "0",
     "Memory budgets; 0: what is free. Peak memory is the process's: give one budget a call to know its peak.",
     NULL, 0, 0},
    {"-b, --batch-size", "LIST", PI2_CLI_TEXT, BENCH(batches), "0", "Prefill batches; 0: chosen.", "LLAMA_ARG_BATCH",
     0, 0},
    {"-c, --ctx-size", "N", PI2_CLI_INTEGER, BENCH(context), "0", "Context; 0: what the test needs.",
     "LLAMA_ARG_CTX_SIZE", 0, INT32_MAX},
    {"--routing-trace", "FILE", PI2_CLI_TEXT, BENCH(routing_trace), NULL,
     "Mixtures of experts: the routing of a run that --record-trace has recorded. It tells which experts are hot, and "
     "predicts.", NULL, 0, 0},
    {"--statistics", "FILE", PI2_CLI_TEXT, BENCH(statistics), NULL,
     "Sparse models: how often each neuron fires, for the predictions.", NULL, 0, 0},
    {"--pipeline", "on|off", PI2_CLI_CHOICE, BENCH(pipeline), "on",
     "off: streamed weights and experts are asked for only when a thread waits for them, to see what reading ahead "
     "gains.", NULL, 0, 0},
    {"-o, --output", "md|json|csv", PI2_CLI_CHOICE, BENCH(format), "md", "Format on stdout.", NULL, 0, 0},
    {"-s, --seed", "N", PI2_CLI_INTEGER, BENCH(seed), "1", "Seed of the random tokens.", NULL, 0, UINT32_MAX},
};

typedef struct number_list {
    uint64_t items[MAX_LIST];
    size_t count;
} number_list;

/** Reads "1,2,4"; sizes where `are_sizes`. */
static int read_list(const char *name, const char *text, bool are_sizes, number_list *list) {
    list->count = 0;
    for (const char *item = text;; item++) {
        const size_t length = strcspn(item, ",");
        char copy[64], *end = NULL;
        if (length == 0 || length >= sizeof copy || list->count == MAX_LIST) {
            return pi2_cli_usage_error("bench: %s: '%s' is not a list of at most %d numbers", name, text,
                                       (int)MAX_LIST);
        }
        memcpy(copy, item, length);
        copy[length] = '\0';
        uint64_t *value = &list->items[list->count++];
        if (are_sizes) {
            if (pi2_parse_size(copy, value) != PI2_OK) {
                return pi2_cli_usage_error("bench: %s: %s", name, pi2_error_text());
            }
        } else {
            const long long number = strtoll(copy, &end, 10);
            if (end == copy || *end || number < 0 || number > INT32_MAX / 4) {
                return pi2_cli_usage_error("bench: %s: '%s' is not a whole number that fits", name, copy);
            }
            *value = (uint64_t)number;
        }
        item += length;
        if (*item == '\0') return PI2_EXIT_OK;
    }
}

typedef struct bench_lists {
    number_list prompts, answers, depths, pair, threads, memories, batches;
} bench_lists;

static int read_lists(const bench_settings *settings, bench_lists *lists) {
    const struct { const char *name, *text; bool are_sizes; number_list *list; } all[] = {
        {"-p", settings->prompts, false, &lists->prompts},  {"-n", settings->answers, false, &lists->answers},
        {"-d", settings->depths, false, &lists->depths},    {"-pg", settings->pairs, false, &lists->pair},
        {"-t", settings->threads, false, &lists->threads},  {"--memory", settings->memories, true, &lists->memories},
        {"-b", settings->batches, false, &lists->batches}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (!all[i].text) continue;
        const int code = read_list(all[i].name, all[i].text, all[i].are_sizes, all[i].list);
        if (code != PI2_EXIT_OK) return code;
    }
    if (settings->pairs && lists->pair.count != 2) {
        return pi2_cli_usage_error("bench: -pg takes two numbers, such as 512,128");
    }
    return PI2_EXIT_OK;
}

typedef struct bench_state {
    const bench_settings *settings;
    const pi2_cli_trace_settings *trace;
    unsigned engine_count; /* opened so far */
    pi2_engine_options options;
    pi2_engine *engine;
    pi2_session *session;
    uint32_t opened_context; /* asked for when the engine was opened */
    uint32_t warm_tokens;    /* of the longest prompt since then: an expert cache knows them */
    bool is_new;             /* nothing was computed yet */
    bool has_answered;       /* a token was decoded since then */
    uint64_t random;
    json_t *results;
} bench_state;

static int32_t random_token(bench_state *state) {
    state->random = state->random * 6364136223846793005u + 1442695040888963407u;
    return (int32_t)((state->random >> 33) % pi2_engine_get_report(state->engine)->vocabulary_size);
}

static pi2_status close_engine(bench_state *state) {
    const pi2_status status = state->engine ? pi2_engine_finish_trace(state->engine) : PI2_OK;
    pi2_session_free(state->session);
    pi2_engine_close(state->engine);
    state->session = NULL;
    state->engine = NULL;
    return status;
}

/* Every engine after the first has files of its own: FILE.2, FILE.3 and so on. */
static void name_traces(bench_state *state) {
    static char trace_path[1100], stats_path[1100];
    state->options.trace_path = state->trace->trace;
    state->options.stats_path = state->trace->stats;
    if (++state->engine_count == 1) return;
    if (state->trace->trace) {
        (void)snprintf(trace_path, sizeof trace_path, "%s.%u", state->trace->trace, state->engine_count);
        state->options.trace_path = trace_path;
    }
    if (state->trace->stats) {
        (void)snprintf(stats_path, sizeof stats_path, "%s.%u", state->trace->stats, state->engine_count);
        state->options.stats_path = stats_path;
    }
}

/** Keeps an engine that was opened for the same context. */
static pi2_status open_engine(bench_state *state, uint32_t context) {
    if (state->engine && state->opened_context == context) return PI2_OK;
    pi2_status status = close_engine(state);
    if (status != PI2_OK) return status;
    name_traces(state);
    state->warm_tokens = 0;
    state->has_answered = false;
    state->is_new = true;
    state->options.context_tokens = state->opened_context = context;
    state->options.identifies_weights = pi2_cli_asks_approximate(&state->options);
    status = pi2_cli_open_engine(&state->options, &state->engine);
    if (status != PI2_OK) return status;
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    return pi2_session_create(state->engine, &sampling, &state->session);
}

/** As llama-bench: random tokens after the beginning-of-sequence token, where the model has one. */
static pi2_status append_prompt(bench_state *state, uint32_t count) {
    if (!count) return PI2_OK;
    int32_t *tokens = malloc(count * sizeof *tokens);
    if (!tokens) return PI2_ERR_MEMORY;
    for (uint32_t i = 0; i < count; i++) tokens[i] = random_token(state);
    const int32_t bos = pi2_engine_bos(state->engine);
    if (bos >= 0 && pi2_session_position(state->session) == 0) tokens[0] = bos;
    const pi2_status status = pi2_session_append(state->session, tokens, count, PI2_LOGITS_LAST);
    free(tokens);
    return status;
}

/** times NULL: not asked for. */
static pi2_status append_answer(bench_state *state, uint32_t count, pi2_cli_token_times *times) {
    const int32_t bos = pi2_engine_bos(state->engine);
    int32_t token = bos >= 0 ? bos : random_token(state);
    uint64_t begin = pi2_cli_now_ns();
    for (uint32_t i = 0; i < count; i++) {
        const pi2_status status = pi2_session_append(state->session, &token, 1, PI2_LOGITS_LAST);
        if (status != PI2_OK) return status;
        token = random_token(state);
        const uint64_t end = pi2_cli_now_ns();
        if (times) pi2_cli_token_times_add(times, end - begin);
        begin = end;
    }
    return PI2_OK;
}

static pi2_status run_once(bench_state *state, pi2_bench_test *test, bool is_counted) {
    pi2_status status = pi2_session_truncate(state->session, 0);
    if (status == PI2_OK) status = append_prompt(state, test->depth);
    if (status != PI2_OK) return status;
    pi2_engine_counters before, after;
    pi2_engine_count(state->engine, &before);
    const uint64_t begin = pi2_cli_now_ns();
    status = append_prompt(state, test->prompt);
    if (status == PI2_OK) {
        status = append_answer(state, is_counted ? test->answer : test->answer != 0, is_counted ? &test->times : NULL);
    }
    const uint64_t end = pi2_cli_now_ns();
    pi2_engine_count(state->engine, &after);
    if (status != PI2_OK || !is_counted) return status;
    test->samples_ns[test->sample_count++] = end - begin;
    test->bytes_read += after.bytes_read - before.bytes_read;
    test->bytes_needed += after.bytes_needed - before.bytes_needed;
    return PI2_OK;
}

static int no_memory(const char *what) {
    (void)pi2_cli_usage_error("bench: no memory for %s", what);
    return PI2_EXIT_MEMORY;
}

static int run_samples(bench_state *state, pi2_bench_test *test) {
    const bench_settings *settings = state->settings;
    if (!pi2_cli_token_times_reserve(&test->times, (uint64_t)test->answer * (uint64_t)settings->repetitions)) {
        return no_memory("the times of all tokens");
    }
    test->time = time(NULL);
    pi2_status status = settings->no_warmup ? PI2_OK : run_once(state, test, false);
    for (int64_t i = 0; status == PI2_OK && i < settings->repetitions; i++) {
        pi2_cli_status_line("%s%u%s%u: run %lld of %lld", test->prompt ? "pp" : "", (unsigned)test->prompt,
                            test->answer ? " tg" : " ", (unsigned)test->answer, (long long)i + 1,
                            (long long)settings->repetitions);
        status = run_once(state, test, true);
    }
    pi2_cli_clear_progress();
    return status == PI2_OK ? PI2_EXIT_OK : pi2_cli_failed(status);
}

static int run_test(bench_state *state, uint32_t prompt, uint32_t answer, uint32_t depth) {
    const bench_settings *settings = state->settings;
    if (prompt + answer == 0) return PI2_EXIT_OK;
    uint64_t samples[MAX_REPETITIONS];
    pi2_bench_test test = {.prompt = prompt, .answer = answer, .depth = depth, .samples_ns = samples};
    const uint32_t context = settings->context ? (uint32_t)settings->context : prompt + answer + depth;
    const pi2_status status = open_engine(state, context);
    if (status != PI2_OK) return pi2_cli_failed(status);
    const bool first = state->is_new;
    state->is_new = false;
    int code = first ? pi2_cli_tell_guard(state->engine, &state->options) : PI2_CLI_GO_ON;
    if (code == PI2_CLI_GO_ON) code = run_samples(state, &test);
    if (code != PI2_EXIT_OK) {
        pi2_cli_token_times_free(&test.times);
        return code;
    }
    json_t *result = pi2_bench_result(&state->options, pi2_engine_get_report(state->engine), &test);
    pi2_cli_token_times_free(&test.times);
    const bool is_cold = first && settings->no_warmup && depth == 0 && settings->repetitions == 1 &&
                         strcmp(pi2_engine_get_report(state->engine)->read_method, "none") != 0;
    const pi2_cli_bench_case bench = {prompt, answer, depth, (uint32_t)settings->repetitions, state->warm_tokens,
                                      is_cold, settings->no_warmup && !state->has_answered};
    pi2_cli_add_predicted(result, state->engine, &bench);
    state->has_answered = state->has_answered || answer > 0;
    if (prompt + depth > state->warm_tokens) state->warm_tokens = prompt + depth;
    return json_array_append_new(state->results, result) == 0 ? PI2_EXIT_OK : no_memory("the results");
}

/** All tests of one configuration. */
static int run_tests(bench_state *state, const bench_lists *lists) {
    int code = PI2_EXIT_OK;
    for (size_t d = 0; d < lists->depths.count; d++) {
        const uint32_t depth = (uint32_t)lists->depths.items[d];
        for (size_t i = 0; code == PI2_EXIT_OK && i < lists->prompts.count; i++) {
            code = run_test(state, (uint32_t)lists->prompts.items[i], 0, depth);
        }
        for (size_t i = 0; code == PI2_EXIT_OK && i < lists->answers.count; i++) {
            code = run_test(state, 0, (uint32_t)lists->answers.items[i], depth);
        }
        if (code == PI2_EXIT_OK && lists->pair.count) {
            code = run_test(state, (uint32_t)lists->pair.items[0], (uint32_t)lists->pair.items[1], depth);
        }
    }
    const pi2_status status = close_engine(state);
    return code == PI2_EXIT_OK && status != PI2_OK ? pi2_cli_failed(status) : code;
}

static int run_all(bench_state *state, const bench_lists *lists) {
    int code = PI2_EXIT_OK;
    for (size_t t = 0; t < lists->threads.count; t++) {
        for (size_t m = 0; m < lists->memories.count; m++) {
            for (size_t b = 0; b < lists->batches.count && code == PI2_EXIT_OK; b++) {
                state->options.thread_count = (uint32_t)lists->threads.items[t];
                state->options.memory_bytes = lists->memories.items[m];
                state->options.batch_tokens = (uint32_t)lists->batches.items[b];
                code = run_tests(state, lists);
            }
        }
    }
    return code;
}

/** The smallest budget of the list; 0: all of them are chosen. */
static uint64_t least_memory(const number_list *list) {
    uint64_t least = 0;
    for (size_t i = 0; i < list->count; i++) {
        if (list->items[i] && (!least || list->items[i] < least)) least = list->items[i];
    }
    return least;
}

int pi2_cli_bench(int argument_count, char **arguments) {
    static bench_settings settings;
    static pi2_cli_model_settings model;
    static pi2_cli_trace_settings trace;
    static bench_lists lists;
    const pi2_cli_section sections[] = {
        {"Tests (lists: numbers separated by commas)", bench_options, sizeof bench_options / sizeof bench_options[0],
         &settings},
        pi2_cli_model_section(&model), pi2_cli_trace_section(&trace), pi2_cli_no_effect_section()};
    const pi2_cli_command command = {
        "bench", "-m MODEL [options]",
        "Measures prompt processing (pp) and token generation (tg), with llama-bench's tests and field names.",
        sections, sizeof sections / sizeof sections[0]};
    int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code != PI2_CLI_GO_ON) return code;
    bench_state state = {.settings = &settings, .trace = &trace, .random = (uint64_t)settings.seed};
    code = pi2_cli_fill_options(&model, NULL, &state.options);
    if (code != PI2_CLI_GO_ON) return code;
    pi2_cli_predict_with(settings.routing_trace, settings.statistics);
    state.options.routing_trace = settings.routing_trace;
    state.options.statistics = settings.statistics;
    state.options.read_on_demand = strcmp(settings.pipeline, "off") == 0;
    code = read_lists(&settings, &lists);
    if (code != PI2_EXIT_OK) return code;
    state.results = json_array();
    pi2_cli_catch_signals();
    state.options.memory_bytes = least_memory(&lists.memories);
    code = pi2_cli_refresh_disk(&state.options);
    if (code == PI2_EXIT_OK) code = run_all(&state, &lists);
    if (code == PI2_EXIT_OK) code = pi2_bench_print(state.results, settings.format);
    json_decref(state.results);
    return code;
}
