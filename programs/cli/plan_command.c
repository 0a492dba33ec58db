/* plan_command.c: "powerinfer2 plan": what a run would keep in memory, and how fast it would be. */
#include <string.h>

#include "commands.h"
#include "draft_options.h"
#include "machine_profile_cli.h"
#include "engine_options.h"
#include "mode_choice.h"
#include "output.h"
#include "plan_file.h"
#include "powerinfer2/sizes.h"
#include "scheduler.h"
#include "signals.h"

typedef struct plan_settings {
    const char *profile, *routing_trace, *statistics;
    int64_t prompt, parallel;
    bool json;
} plan_settings;

#define PLAN(field) offsetof(plan_settings, field)
static const pi2_cli_option plan_options[] = {
    {"-p, --n-prompt", "N", PI2_CLI_INTEGER, PLAN(prompt), "512", "Tokens of the prompt that is predicted.", NULL, 1,
     INT32_MAX / 4},
    {"-np, --parallel", "N", PI2_CLI_INTEGER, PLAN(parallel), "1",
     "Answers that there shall be room for at a time ('serve', 'run' and 'batch' with -np); the speed is that of one.",
     "LLAMA_ARG_N_PARALLEL", 1, PI2_SEQUENCES_MOST},
    {"--profile", "FILE", PI2_CLI_TEXT, PLAN(profile), NULL, "Machine profile other than the one that is kept.", NULL,
     0, 0},
    {"--routing-trace", "FILE", PI2_CLI_TEXT, PLAN(routing_trace), NULL,
     "Mixtures of experts: takes the routing of a run that --record-trace has recorded, and chooses hot experts by it. "
     "Otherwise every expert is taken to be as likely as any other, which is the worst case.", NULL, 0, 0},
    {"--statistics", "FILE", PI2_CLI_TEXT, PLAN(statistics), NULL,
     "Sparse models in the neuron layout: how often each neuron fires. Otherwise a share is assumed, and each neuron "
     "is taken to be as likely as any other.", NULL, 0, 0},
    {"--json", NULL, PI2_CLI_FLAG, PLAN(json), NULL,
     "Prints one JSON object, which is also the plan file of 'run --plan FILE'.", NULL, 0, 0},
};

static void print_speed(const char *what, const pi2_speed *speed, pi2_bottleneck limit) {
    (void)printf("%-12s %.2f tokens/s (%.2f to %.2f), limited by: %s\n", what, speed->tokens_per_second, speed->low,
                 speed->high, pi2_bottleneck_name(limit));
}

static void print_disk(const pi2_prediction *prediction) {
    if (prediction->disk_speed <= 0) return;
    pi2_cli_print_line("%-12s %.2f GB/s (%.2f to %.2f), mounted at %s", "disk", prediction->disk_speed / 1e9,
                 prediction->disk_low / 1e9, prediction->disk_high / 1e9, prediction->disk);
}

/** Whether the prompt's reading costs time, and at which batch it would not. */
static void print_batch(const pi2_batch_check *batch) {
    if (!batch->tokens) return;
    (void)printf("%-12s in a batch of %u tokens reading (%.2f s) %s under computing (%.2f s); it ", "",
                 (unsigned)batch->tokens, batch->read_ms / 1e3, batch->reading_hides ? "hides" : "does not hide",
                 batch->compute_ms / 1e3);
    if (batch->hides_from) {
        (void)printf("%s from %u tokens on\n", batch->reading_hides ? "does" : "would", (unsigned)batch->hides_from);
    } else {
        (void)printf("would in none within the context\n");
    }
}

/** A model that cannot be run is refused before anything is measured. The disk is that of the file which will be
 *  read: a cluster file, where there is one. */
static int find_profile(const pi2_engine_options *options, const pi2_machine_options *machine,
                        pi2_machine_profile **profile_out) {
    pi2_plan *header = NULL;
    pi2_engine_options quiet = *options;
    quiet.callbacks.log = NULL; /* the plan itself tells it */
    if (strcmp(quiet.sparsity, PI2_CLI_BEST_SPARSITY) == 0) quiet.sparsity = "exact"; /* until it is chosen */
    const pi2_status status = pi2_plan_make(&quiet, NULL, NULL, &header);
    if (status != PI2_OK) return pi2_cli_failed(status);
    pi2_machine_options of_file = *machine;
    of_file.disk_path = pi2_plan_report(header)->weights_path;
    int code = pi2_cli_find_machine(machine, profile_out);
    if (code == PI2_EXIT_OK) code = pi2_cli_find_disk(*profile_out, &of_file);
    pi2_plan_free(header);
    return code;
}

static void print_neurons(const pi2_prediction *prediction) {
    pi2_cli_print_line("%-12s %.1f %% of them for a token; %.1f %% of those are found in memory, %.0f reads bring the "
                       "rest", "neurons", 100 * prediction->neuron_share, 100 * prediction->neuron_hit_rate,
                       prediction->neuron_reads);
    pi2_cli_print_line("%-12s %s", "", prediction->sparsity);
}

/** without NULL: no neurons are left out. */
static void print_gain(const pi2_speed *with, const pi2_speed *without) {
    char gain[96];
    if (!without) return;
    pi2_cli_say_gain(with, without, gain, sizeof gain);
    (void)printf("%-12s %.2f tokens/s (%.2f to %.2f) with all neurons: %s\n", "", without->tokens_per_second,
                 without->low, without->high, gain);
}

/* Each device that was opened, and what the processor would do alone. */
static void print_devices(const pi2_plan *plan) {
    const pi2_engine_report *report = pi2_plan_report(plan);
    const pi2_prediction *prediction = pi2_plan_prediction(plan);
    size_t count;
    const pi2_device_speed *speeds = pi2_plan_device_speeds(plan, &count);
    if (report->devices) pi2_cli_print_line("%-12s %s: %s", "devices", report->devices, report->device_shares);
    for (size_t i = 0; i < count; i++) {
        if (speeds[i].gains[0] <= 0) continue;
        pi2_cli_print_line("%-12s %s: matrices %.2f times as fast with one token, %.2f with 8, %.2f with 64%s",
                           i == 0 && !report->devices ? "devices" : "", speeds[i].name, speeds[i].gains[0],
                           speeds[i].gains[1], speeds[i].gains[2],
                           speeds[i].is_left_out ? ": it does not pay, and is left out" : "");
    }
    if (prediction->decode_alone.tokens_per_second <= 0) return;
    (void)printf("%-12s without them %.2f tokens/s of decoding, %.2f of a prompt\n", "",
                 prediction->decode_alone.tokens_per_second, prediction->prefill_alone.tokens_per_second);
}

static int print_table(const pi2_plan *plan, const pi2_speed *without) {
    const pi2_prediction *prediction = pi2_plan_prediction(plan);
    const pi2_engine_report *report = pi2_plan_report(plan);
    char size[PI2_SIZE_TEXT_BYTES], resident[PI2_SIZE_TEXT_BYTES];
    size_t count;
    const pi2_plan_line *lines = pi2_plan_lines(plan, &count);
    pi2_cli_print_line("%s (%s, %s, %s), budget %s, context %u, batch %u, %u threads", report->model_name,
                       report->architecture, report->ffn_activation, report->weight_types,
                       pi2_format_size(report->budget_bytes, size), report->context_tokens, report->batch_tokens,
                       report->thread_count);
    (void)printf("\n%-28s %10s %10s  %s\n", "", "size", "in memory", "why");
    for (size_t i = 0; i < count; i++) {
        pi2_cli_print_line("%-28s %10s %10s  %s", lines[i].what, pi2_format_size(lines[i].bytes, size),
                           pi2_format_size(lines[i].resident_bytes, resident), lines[i].why);
    }
    (void)printf("\n%-12s %s read from disk for each token\n", "reads",
                 pi2_format_size(prediction->bytes_per_token, size));
    print_disk(prediction);
    if (prediction->expert_total) {
        pi2_cli_print_line("%-12s %u of %u in memory, %.1f %% of those that a token uses; routing %s", "experts",
                     (unsigned)prediction->expert_slots, (unsigned)prediction->expert_total,
                     100 * prediction->expert_hit_rate, prediction->routing);
        if (pi2_plan_expert_note(plan)) pi2_cli_print_line("%-12s %s", "", pi2_plan_expert_note(plan));
        pi2_cli_print_line("%-12s %u of the experts in memory; %s", "hot", report->hot_experts, report->hot_reason);
    }
    if (prediction->neuron_units) print_neurons(prediction);
    print_devices(plan);
    print_speed("decode", &prediction->decode, prediction->bottleneck);
    print_gain(&prediction->decode, without);
    print_speed("prefill", &prediction->prefill, prediction->prefill_bottleneck);
    print_batch(pi2_plan_batch_check(plan));
    (void)printf("%-12s after %.2f s, of which %.2f s load weights\n", "first token",
                 prediction->time_to_first_token_ms / 1e3, prediction->load_ms / 1e3);
    const pi2_advice *advice = pi2_plan_advice(plan, &count);
    if (count) (void)printf("\nwhat would help decoding:\n");
    for (size_t i = 0; i < count; i++) {
        pi2_cli_print_line("  %-32s %.2f tokens/s (%.2f x)", advice[i].what, advice[i].tokens_per_second,
                     advice[i].factor);
    }
    return pi2_cli_finish_stdout();
}

static int print_plan(const plan_settings *settings, const pi2_engine_options *options,
                      const pi2_machine_profile *profile) {
    const pi2_prediction_request request = {.prompt_tokens = (uint32_t)settings->prompt,
                                            .routing_trace = settings->routing_trace,
                                            .statistics = settings->statistics};
    const bool leaves_out = pi2_cli_leaves_out(options);
    pi2_plan *plan = NULL;
    pi2_speed without = {0};
    int code;
    pi2_status status = pi2_plan_make(options, profile, &request, &plan);
    if (status == PI2_OK && leaves_out) status = pi2_cli_predict_exact(options, profile, &request, &without);
    if (status != PI2_OK) {
        code = pi2_cli_failed(status);
    } else if (settings->json) {
        json_t *object = pi2_cli_plan_json(plan, profile, options, &request);
        json_object_set_new(object, "decode_exact",
                            leaves_out ? pi2_cli_json_number(without.tokens_per_second) : json_null());
        code = pi2_cli_print_json(object, JSON_INDENT(2));
    } else {
        code = print_table(plan, leaves_out ? &without : NULL);
    }
    pi2_plan_free(plan);
    return code;
}

int pi2_cli_plan(int argument_count, char **arguments) {
    static plan_settings settings;
    static pi2_cli_model_settings model;
    static pi2_cli_size_settings size;
    static pi2_cli_draft_settings draft;
    static pi2_cli_guard_settings guard;
    const pi2_cli_section sections[] = {
        {"Plan", plan_options, sizeof plan_options / sizeof plan_options[0], &settings},
        pi2_cli_model_section(&model), pi2_cli_size_section(&size), pi2_cli_draft_section(&draft),
        pi2_cli_guard_section(&guard), pi2_cli_no_effect_section()};
    const pi2_cli_command command = {
        "plan", "-m MODEL [--memory SIZE] [options]",
        "Says before anything is run what would stay in memory, what each token would read, how fast prompt and "
        "answer would be, what limits them and what would help. Measures this machine first where that was not "
        "done yet (see 'machine').",
        sections, sizeof sections / sizeof sections[0]};
    pi2_engine_options options;
    int code = pi2_cli_parse_run(&command, argument_count, arguments, &model, &size, &options);
    if (code != PI2_CLI_GO_ON) return code;
    pi2_cli_fill_draft_options(&draft, &options);
    if (settings.parallel > 1) pi2_scheduler_plan(&options, (uint32_t)settings.parallel, 0);
    pi2_cli_catch_signals();
    const pi2_machine_options machine = {.profile_path = settings.profile, .disk_path = options.model_path,
                                       .callbacks = pi2_cli_callbacks()};
    pi2_machine_profile *profile = NULL;
    options.routing_trace = settings.routing_trace;
    options.statistics = settings.statistics;
    code = find_profile(&options, &machine, &profile);
    if (code == PI2_EXIT_OK) code = pi2_cli_choose_mode(&guard, profile, &options);
    if (code == PI2_EXIT_OK) code = print_plan(&settings, &options, profile);
    pi2_machine_free(profile);
    return code;
}
