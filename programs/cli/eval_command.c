/* eval_command.c: "powerinfer2 eval": how often a model expects the right ending most. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "compare_logits.h"
#include "engine_options.h"
#include "guard_report.h"
#include "output.h"
#include "powerinfer2/choices.h"
#include "powerinfer2/identity.h"
#include "signals.h"

enum { DEFAULT_CONTEXT = 1024 };
static const uint64_t SAVE_EVERY_NS = 30000000000u;

typedef struct eval_settings {
    const char *hellaswag, *multiple_choice, *output;
    int64_t tasks;
    bool resume, json;
} eval_settings;

#define EVAL(field) offsetof(eval_settings, field)
static const pi2_cli_option eval_options[] = {
    {"--hellaswag", "FILE", PI2_CLI_TEXT, EVAL(hellaswag), NULL,
     "HellaSwag in llama-perplexity's form, six lines a task: context, number of the right ending (from 0), four "
     "endings.", NULL, 0, 0},
    {"--multiple-choice", "FILE", PI2_CLI_TEXT, EVAL(multiple_choice), NULL,
     "Tasks as lines of JSON: {\"context\": \"...\", \"choices\": [\"...\", ...], \"answer\": N}, N from 0.", NULL, 0,
     0},
    {"--tasks, --hellaswag-tasks", "N", PI2_CLI_INTEGER, EVAL(tasks), "0", "The first N tasks; 0: all.", NULL, 0,
     INT32_MAX},
    {"-o, --output", "FILE", PI2_CLI_TEXT, EVAL(output), NULL,
     "Keeps what was picked for each task, as lines of JSON; what is done is written too after Ctrl-C or a failure, "
     "and every half a minute.", NULL, 0, 0},
    {"--resume", NULL, PI2_CLI_FLAG, EVAL(resume), NULL,
     "Goes on with the results in the file of -o: after an interruption, or with more --tasks. The result is that of "
     "one run.", NULL, 0, 0},
    {"--json", NULL, PI2_CLI_FLAG, EVAL(json), NULL, "Prints one JSON value instead of a table.", NULL, 0, 0},
};

typedef struct evaluation {
    const eval_settings *settings;
    pi2_choice_file *file;
    pi2_engine *engine;
    pi2_session *session;
    pi2_choice_results *results;
    uint64_t wanted;            /* tasks */
    uint32_t step;
    uint64_t saved;             /* results that the file has */
    uint64_t next_save_ns;
} evaluation;

/* ---- what is printed ---- */

static const char *const rule_names[PI2_CHOICE_RULES] = {"sum", "per_token", "per_character"};
static const char *const rule_lines[PI2_CHOICE_RULES] = {"accuracy", "by token", "by character"};

static int print_json(const pi2_choice_summary *summary) {
    json_t *object = json_object();
    json_object_set_new(object, "tasks", json_integer((json_int_t)summary->count));
    json_object_set_new(object, "chance", pi2_cli_json_number(summary->chance));
    for (int rule = 0; rule < PI2_CHOICE_RULES; rule++) {
        json_t *figures = json_object();
        json_object_set_new(figures, "right", json_integer((json_int_t)summary->rules[rule].hits));
        json_object_set_new(figures, "accuracy", pi2_cli_json_number(summary->rules[rule].share));
        json_object_set_new(figures, "low", pi2_cli_json_number(summary->rules[rule].low));
        json_object_set_new(figures, "high", pi2_cli_json_number(summary->rules[rule].high));
        json_object_set_new(object, rule_names[rule], figures);
    }
    return pi2_cli_print_json(object, JSON_COMPACT);
}

static int print_figures(const evaluation *self) {
    pi2_choice_summary summary;
    pi2_choice_results_summarize(self->results, self->wanted, &summary);
    if (self->settings->json) return print_json(&summary);
    (void)printf("%-14s %8llu of %llu\n", "tasks", (unsigned long long)summary.count,
                 (unsigned long long)pi2_choice_file_count(self->file));
    for (int rule = 0; rule < PI2_CHOICE_RULES; rule++) {
        (void)printf("%-14s %8.2f %% [%.2f, %.2f]\n", rule_lines[rule], 100 * summary.rules[rule].share,
                     100 * summary.rules[rule].low, 100 * summary.rules[rule].high);
    }
    (void)printf("%-14s %8.2f %%\n", "chance", 100 * summary.chance);
    return pi2_cli_finish_stdout();
}

static void show_running(const evaluation *self) {
    pi2_choice_summary summary;
    pi2_choice_results_summarize(self->results, pi2_choice_results_count(self->results), &summary);
    pi2_cli_status_line("%llu of %llu tasks, by token %.2f %% [%.2f, %.2f] so far, %.1f s",
                        (unsigned long long)summary.count, (unsigned long long)self->wanted,
                        100 * summary.rules[PI2_CHOICE_PER_TOKEN].share, 100 * summary.rules[PI2_CHOICE_PER_TOKEN].low,
                        100 * summary.rules[PI2_CHOICE_PER_TOKEN].high, pi2_cli_seconds_since_start());
}

/* ---- the work ---- */

/** Writes what there is more than the file has. */
static pi2_status save(evaluation *self) {
    const uint64_t count = pi2_choice_results_count(self->results);
    if (!self->settings->output || count == self->saved) return PI2_OK;
    self->next_save_ns = pi2_cli_now_ns() + SAVE_EVERY_NS;
    self->saved = count;
    return pi2_choice_results_write(self->results, self->settings->output);
}

/** After a failure, whose line is told still. */
static int save_after(evaluation *self, uint64_t task, pi2_status failure) {
    char line[1024];
    (void)snprintf(line, sizeof line, "%s", pi2_error_text());
    if (failure == PI2_ERR_INTERRUPTED) {
        (void)pi2_cli_failed(failure);
    } else {
        (void)pi2_cli_usage_error("task %llu: %s", (unsigned long long)task, line);
    }
    const bool has_more = self->settings->output && pi2_choice_results_count(self->results) > self->saved;
    if (save(self) != PI2_OK) {
        pi2_cli_note("%s: could not be written", self->settings->output);
    } else if (has_more || (self->settings->output && self->saved)) {
        pi2_cli_note("%s: %llu tasks are done; 'eval --resume' goes on", self->settings->output,
                     (unsigned long long)self->saved);
    }
    return pi2_cli_exit_code(failure);
}

static int pick_all(evaluation *self) {
    pi2_choice_task task;
    pi2_choice_result result;
    self->next_save_ns = pi2_cli_now_ns() + SAVE_EVERY_NS;
    for (uint64_t i = 0; i < self->wanted; i++) {
        pi2_status status = pi2_choice_file_next(self->file, &task);
        if (status == PI2_OK && i < pi2_choice_results_count(self->results)) continue; /* an earlier run's */
        if (status == PI2_OK) status = pi2_choice_pick(self->engine, self->session, &task, self->step, &result);
        if (status == PI2_OK) status = pi2_choice_results_add(self->results, &result);
        if (status == PI2_OK && pi2_cli_now_ns() >= self->next_save_ns) status = save(self);
        if (status != PI2_OK) return save_after(self, i, status);
        show_running(self);
    }
    pi2_cli_clear_progress();
    const pi2_status status = save(self);
    return status == PI2_OK ? print_figures(self) : pi2_cli_failed(status);
}

/** Which results there may be, and those that there are. */
static pi2_status begin_results(evaluation *self, const pi2_engine_options *options) {
    const eval_settings *settings = self->settings;
    const pi2_engine_report *report = pi2_engine_get_report(self->engine);
    const char *const inputs[] = {settings->hellaswag ? settings->hellaswag : settings->multiple_choice,
                                  options->model_path, report->weights_path, NULL};
    pi2_choice_subject subject = {
        .format = settings->hellaswag ? PI2_CHOICES_HELLASWAG : PI2_CHOICES_JSON_LINES,
        .task_hash = pi2_choice_file_hash(self->file), .arithmetic = pi2_engine_arithmetic(self->engine)};
    pi2_status status = PI2_OK;
    if (settings->output) {
        status = pi2_choice_results_check_place(settings->output, inputs);
        if (status == PI2_OK) status = pi2_engine_weights_hash(self->engine, &subject.weights_hash);
    }
    if (status == PI2_OK) {
        status = pi2_choice_results_create(&subject, pi2_choice_file_count(self->file), &self->results);
    }
    if (status == PI2_OK && settings->resume && access(settings->output, F_OK) == 0) {
        status = pi2_choice_results_read(self->results, settings->output);
        self->saved = pi2_choice_results_count(self->results);
    }
    return status;
}

static int evaluate(evaluation *self, pi2_engine_options *options) {
    pi2_status status = pi2_cli_open_for_logits(options, &self->engine);
    if (status == PI2_OK) {
        self->step = options->logits_tokens;
        status = pi2_session_create(self->engine, NULL, &self->session);
    }
    if (status == PI2_OK) status = begin_results(self, options);
    if (status != PI2_OK) return pi2_cli_failed(status);
    int code = pi2_cli_tell_guard(self->engine, options);
    if (code == PI2_CLI_GO_ON) code = pick_all(self);
    status = pi2_engine_finish_trace(self->engine);
    return status != PI2_OK && code == PI2_EXIT_OK ? pi2_cli_failed(status) : code;
}

static int check_settings(const eval_settings *settings) {
    if (!settings->hellaswag == !settings->multiple_choice) {
        return pi2_cli_usage_error("eval: %s: give --hellaswag FILE or --multiple-choice FILE",
                                   settings->hellaswag ? "two kinds of tasks" : "no tasks");
    }
    if (settings->resume && !settings->output) {
        return pi2_cli_usage_error("eval: --resume goes on with a file of results: name it with -o FILE");
    }
    return PI2_CLI_GO_ON;
}

int pi2_cli_eval(int argument_count, char **arguments) {
    static eval_settings settings;
    static pi2_cli_model_settings model;
    static pi2_cli_size_settings size;
    const pi2_cli_section sections[] = {
        {"Evaluation", eval_options, sizeof eval_options / sizeof eval_options[0], &settings},
        pi2_cli_model_section(&model), pi2_cli_size_section(&size), pi2_cli_no_effect_section()};
    const pi2_cli_command command = {
        "eval",
        "-m MODEL --hellaswag FILE [options]\n       powerinfer2 eval -m MODEL --multiple-choice FILE [options]",
        "Counts how often a model expects the right one of several endings most: by the sum of the logarithms of its "
        "tokens' probabilities, by that sum for each token (llama-perplexity's figure), and for each character "
        "(acc_norm of lm-evaluation-harness), each with its 95 % confidence interval (docs/evaluation.md). Without -c, "
        "a task has 1024 tokens at most.",
        sections, sizeof sections / sizeof sections[0]};
    pi2_engine_options options;
    int code = pi2_cli_parse_run(&command, argument_count, arguments, &model, &size, &options);
    if (code == PI2_CLI_GO_ON) code = check_settings(&settings);
    if (code != PI2_CLI_GO_ON) return code;
    if (options.context_tokens == 0) options.context_tokens = DEFAULT_CONTEXT;
    const char *path = settings.hellaswag ? settings.hellaswag : settings.multiple_choice;
    const char *const inputs[] = {path, NULL};
    options.input_paths = inputs;
    options.identifies_weights = settings.output != NULL || pi2_cli_asks_approximate(&options);
    options.predicts_prompts = true; /* what is scored is what tokens of an answer would be */
    pi2_cli_catch_signals();
    evaluation self = {.settings = &settings};
    const pi2_status status = pi2_choice_file_open(
        path, settings.hellaswag ? PI2_CHOICES_HELLASWAG : PI2_CHOICES_JSON_LINES, &self.file);
    if (status != PI2_OK) return pi2_cli_failed(status);
    self.wanted = pi2_choice_file_count(self.file);
    if (settings.tasks && (uint64_t)settings.tasks < self.wanted) self.wanted = (uint64_t)settings.tasks;
    code = evaluate(&self, &options);
    pi2_choice_results_free(self.results);
    pi2_session_free(self.session);
    pi2_engine_close(self.engine);
    pi2_choice_file_close(self.file);
    return code;
}
