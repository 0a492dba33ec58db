/* cache_replay_command.c: "powerinfer2 cache-replay": what other caches would have found. */
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "options.h"
#include "output.h"
#include "powerinfer2/cache_replay.h"
#include "powerinfer2/sizes.h"

enum { MOST_SIZES = 32, SHARES = 10 };

typedef struct replay_settings {
    const char *sizes;
    int64_t skip;
    double hot;
    bool json;
} replay_settings;

#define REPLAY(field) offsetof(replay_settings, field)
static const pi2_cli_option replay_options[] = {
    {"--sizes", "LIST", PI2_CLI_TEXT, REPLAY(sizes), NULL,
     "Cache sizes, separated by commas: experts, or units of neurons (\"600\"), or bytes (\"4G\"). Otherwise tenths of "
     "all.",
     NULL, 0, 0},
    {"--skip", "N", PI2_CLI_INTEGER, REPLAY(skip), "0",
     "Passes at the beginning that fill the cache and do not count; a prompt's batch is one pass, a token another.",
     NULL, 0, INT32_MAX},
    {"--hot", "SHARE", PI2_CLI_NUMBER, REPLAY(hot), "0",
     "Share of each size, at most 0.75, that is kept for hot ones: those that the passes which do not count used "
     "most (without --skip: all passes).", NULL, 0, 0},
    {"--json", NULL, PI2_CLI_FLAG, REPLAY(json), NULL, "Prints one JSON object instead of a table.", NULL, 0, 0},
};

/* What a trace's keys are, in words. */
static const char *noun(const pi2_replay_info *info) { return info->of_neurons ? "units" : "experts"; }

/* One entry of the list: a plain number is experts or units, one of a size is bytes. */
static int read_size(const char *text, size_t length, const pi2_replay_info *info, uint32_t *slots_out) {
    char word[64];
    const uint64_t all = (uint64_t)info->layer_count * info->expert_count;
    if (length == 0 || length >= sizeof word) return pi2_cli_usage_error("cache-replay: --sizes: an entry is no size");
    memcpy(word, text, length);
    word[length] = '\0';
    uint64_t value = 0;
    const bool plain = strspn(word, "0123456789") == length;
    if (pi2_parse_size(word, &value) != PI2_OK) {
        return pi2_cli_usage_error("cache-replay: --sizes: '%s' is no number of %s and no size in bytes", word,
                                   noun(info));
    }
    if (!plain) value /= info->expert_bytes;
    if (value == 0) return pi2_cli_usage_error("cache-replay: --sizes: '%s' holds none of the %s", word,
                                               noun(info));
    *slots_out = (uint32_t)(value < all ? value : all);
    return PI2_CLI_GO_ON;
}

static int list_sizes(const char *list, const pi2_replay_info *info, uint32_t *slots, size_t *count_out) {
    *count_out = 0;
    if (!list) {
        const uint32_t all = info->layer_count * info->expert_count;
        for (uint32_t i = 1; i <= SHARES; i++) {
            const uint32_t share = (uint32_t)((uint64_t)all * i / SHARES);
            if (share > 0) slots[(*count_out)++] = share;
        }
        return PI2_CLI_GO_ON;
    }
    for (const char *at = list;; at++) {
        const size_t length = strcspn(at, ",");
        if (*count_out == MOST_SIZES) return pi2_cli_usage_error("cache-replay: --sizes: at most %d", MOST_SIZES);
        const int code = read_size(at, length, info, &slots[*count_out]);
        if (code != PI2_CLI_GO_ON) return code;
        (*count_out)++;
        at += length;
        if (*at == '\0') return PI2_CLI_GO_ON;
    }
}

static json_t *info_json(const pi2_replay_info *info) {
    return json_pack("{sssIsIsIsIsIsIsIsIsf}", "of", info->of_neurons ? "neurons" : "experts",
                     "layers", (json_int_t)info->layer_count, "experts", (json_int_t)info->expert_count,
                     "experts_used", (json_int_t)info->used_count, "expert_bytes", (json_int_t)info->expert_bytes,
                     "passes", (json_int_t)info->pass_count, "tokens", (json_int_t)info->token_count,
                     "uses", (json_int_t)info->use_count, "distinct_experts", (json_int_t)info->distinct_count,
                     "repeat_share", info->repeat_share);
}

static double hit_rate(const pi2_replay_result *result) {
    return result->uses ? (double)result->hits / (double)result->uses : 0;
}

/* One line of the table, or one object: every policy at one size, then the optimum. */
static pi2_status replay_size(const pi2_replay *replay, const replay_settings *settings, uint32_t slots,
                              json_t *rows) {
    json_t *rates = json_object();
    const uint32_t skip = (uint32_t)settings->skip;
    const uint64_t bytes = slots * pi2_replay_get_info(replay)->expert_bytes;
    char size[PI2_SIZE_TEXT_BYTES];
    pi2_replay_result result = { 0 };
    pi2_status status = PI2_OK;
    if (!settings->json) (void)printf("%8u  %10s", slots, pi2_format_size(bytes, size));
    for (const char *const *name = pi2_replay_policy_names(); *name && status == PI2_OK; name++) {
        if (pi2_replay_leaves_out(replay, *name)) {
            if (!settings->json) (void)printf("  %8s", "-");
            continue;
        }
        status = pi2_replay_run_hot(replay, *name, slots, settings->hot, skip, &result);
        if (settings->json) json_object_set_new(rates, *name, json_real(hit_rate(&result)));
        else (void)printf("  %7.2f%%", 100 * hit_rate(&result));
    }
    if (status == PI2_OK) status = pi2_replay_run(replay, "belady", slots, skip, &result);
    if (settings->json) {
        json_object_set_new(rates, "belady", json_real(hit_rate(&result)));
        json_array_append_new(rows, json_pack("{sIsIsIsIso}", "slots", (json_int_t)slots, "bytes", (json_int_t)bytes,
                                              "uses", (json_int_t)result.uses, "passes", (json_int_t)result.passes,
                                              "hit_rate", rates));
        return status;
    }
    json_decref(rates);
    const double missed = result.passes ? (double)(result.uses - result.hits) / (double)result.passes : 0;
    (void)printf("  %7.2f%%  %10s\n", 100 * hit_rate(&result),
                 pi2_format_size((uint64_t)(missed * (double)pi2_replay_get_info(replay)->expert_bytes), size));
    return status;
}

static void print_head(const pi2_replay_info *info) {
    char size[PI2_SIZE_TEXT_BYTES];
    (void)printf("%u %s of %u %s (%s each), ", info->layer_count, info->of_neurons ? "banks" : "layers",
                 info->expert_count, info->of_neurons ? "units of neurons" : "experts",
                 pi2_format_size(info->expert_bytes, size));
    if (info->of_neurons) (void)printf("as many used by a token as fire");
    else (void)printf("%u used by a token", info->used_count);
    (void)printf("; %u passes over %llu tokens, %llu uses of %llu %s; a token uses %.1f%% of the %s of the one "
                 "before\n", info->pass_count, (unsigned long long)info->token_count,
                 (unsigned long long)info->use_count,
                 (unsigned long long)info->distinct_count, noun(info), 100 * info->repeat_share, noun(info));
    (void)printf("%8s  %10s", noun(info), "cache");
    for (const char *const *name = pi2_replay_policy_names(); *name; name++) (void)printf("  %8s", *name);
    (void)printf("  %8s  %10s\n", "belady", "reads/pass");
}

/* Which policies were not played, and why: an object, or lines below the table. */
static json_t *tell_left_out(const pi2_replay *replay, bool as_lines) {
    json_t *object = json_object();
    for (const char *const *name = pi2_replay_policy_names(); *name; name++) {
        const char *reason = pi2_replay_leaves_out(replay, *name);
        if (reason && as_lines) (void)printf("%s is left out: it %s\n", *name, reason);
        if (reason) json_object_set_new(object, *name, json_string(reason));
    }
    return object;
}

static int replay_trace(const pi2_replay *replay, const replay_settings *settings) {
    const pi2_replay_info *info = pi2_replay_get_info(replay);
    uint32_t slots[MOST_SIZES];
    size_t count = 0;
    const int code = list_sizes(settings->sizes, info, slots, &count);
    if (code != PI2_CLI_GO_ON) return code;
    if (settings->skip >= info->pass_count) {
        return pi2_cli_usage_error("cache-replay: --skip %lld leaves no pass to count: the trace has %u",
                                   (long long)settings->skip, info->pass_count);
    }
    json_t *rows = json_array();
    if (!settings->json) print_head(info);
    pi2_status status = PI2_OK;
    for (size_t i = 0; i < count && status == PI2_OK; i++) status = replay_size(replay, settings, slots[i], rows);
    if (status != PI2_OK || !settings->json) json_decref(rows);
    if (status != PI2_OK) return pi2_cli_failed(status);
    json_t *left_out = tell_left_out(replay, !settings->json);
    if (settings->json) {
        return pi2_cli_print_json(json_pack("{sososo}", "trace", info_json(info), "sizes", rows, "left_out", left_out),
                                  JSON_COMPACT);
    }
    json_decref(left_out);
    return pi2_cli_finish_stdout();
}

int pi2_cli_cache_replay(int argument_count, char **arguments) {
    static replay_settings settings;
    static const char *trace;
    static const pi2_cli_option file_option[] = {
        {"--trace", "FILE", PI2_CLI_TEXT, 0, NULL, "The trace, as 'run --record-trace' writes it.", NULL, 0, 0}};
    const pi2_cli_section sections[] = {
        {"Trace", file_option, 1, &trace},
        {"Options", replay_options, sizeof replay_options / sizeof replay_options[0], &settings}};
    const pi2_cli_command command = {
        "cache-replay", "--trace FILE [options]",
        "Plays a recorded run of a mixture of experts, or of single neurons, against every cache policy and several "
        "cache sizes, and prints the share of uses that were found in the cache, beside Belady's optimum: the most "
        "that any policy could find.",
        sections, 2};
    int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code != PI2_CLI_GO_ON) return code;
    if (!(settings.hot >= 0 && settings.hot <= 0.75)) {
        return pi2_cli_usage_error("cache-replay: --hot: hot experts can have 0 to 0.75 of the slots, not %g",
                                   settings.hot);
    }
    if (!trace) return pi2_cli_usage_error("cache-replay: no trace: give one with --trace FILE");
    pi2_replay *replay = NULL;
    const pi2_status status = pi2_replay_open(trace, &replay);
    if (status != PI2_OK) return pi2_cli_failed(status);
    code = replay_trace(replay, &settings);
    pi2_replay_close(replay);
    return code;
}
