/* guard_report.c: finds the guard, says what it says, and holds the run to it. */
#include "guard_report.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine_options.h"
#include "machine_profile_cli.h"
#include "mode_choice.h"
#include "output.h"

#define GUARD(field) offsetof(pi2_cli_guard_settings, field)
static const pi2_cli_option guard_options[] = {
    {"--max-divergence", "KLD", PI2_CLI_NUMBER, GUARD(most), "-1",
     "In an approximate mode: the mean KL divergence from the exact one, in nats, that 'verify' may have measured at "
     "most; -1: any, also none measured.", NULL, -1, INT32_MAX},
    {"--on-divergence", "refuse|exact", PI2_CLI_CHOICE, GUARD(on_divergence), "refuse",
     "Where it is more, or was not measured: refuse ends with exit code 6, exact runs in the exact mode instead.", NULL,
     0, 0},
    {"--guard", "FILE", PI2_CLI_TEXT, GUARD(guard), NULL,
     "What 'verify' kept; otherwise the file beside the weights or the model: model.guard of model.gguf.", NULL, 0, 0},
};

pi2_cli_section pi2_cli_guard_section(pi2_cli_guard_settings *settings) {
    return (pi2_cli_section){"Approximate modes", guard_options, sizeof guard_options / sizeof guard_options[0],
                             settings};
}

/** Other words of --sparsity than these leave neurons out by a predictor. */
static bool is_exact_sparsity(const char *sparsity) {
    return !sparsity || pi2_cli_is_choice(PI2_CLI_SPARSITIES, sparsity);
}

bool pi2_cli_asks_approximate(const pi2_engine_options *options) {
    return options->cache_type != PI2_CACHE_F16 || !is_exact_sparsity(options->sparsity) ||
           (options->devices && options->device_any_precision);
}

void pi2_cli_make_exact(pi2_engine_options *options) {
    options->cache_type = PI2_CACHE_F16;
    if (!is_exact_sparsity(options->sparsity)) options->sparsity = "exact";
    options->predictor = NULL;
    options->predicts_prompts = false;
    options->device_any_precision = false;
}

/** Reads the guard beside a file. *guard_out stays NULL where there is none. */
static pi2_status read_beside(const char *weights_path, pi2_guard **guard_out) {
    char *path = NULL;
    pi2_status status = pi2_guard_default_path(weights_path, &path);
    if (status == PI2_OK && access(path, F_OK) == 0) status = pi2_guard_read(path, guard_out);
    free(path);
    return status;
}

pi2_status pi2_cli_find_guard(const pi2_cli_guard_settings *settings, const char *weights_path, const char *model_path,
                              pi2_guard **guard_out) {
    *guard_out = NULL;
    if (settings->guard) return pi2_guard_read(settings->guard, guard_out);
    const pi2_status status = read_beside(weights_path, guard_out);
    return status == PI2_OK && !*guard_out ? read_beside(model_path, guard_out) : status;
}

/** What the guard says of the mode; entry NULL: nothing. */
static int hold_to(const pi2_cli_guard_settings *settings, const char *mode, const pi2_guard_entry *entry,
                   bool *falls_back_out) {
    if (entry) {
        pi2_cli_note("approximate (%s): KL divergence %.6f +/- %.6f, same top token %.2f %%, perplexity x %.4f, over "
                     "%llu tokens of %s", mode, entry->divergence.value, entry->divergence.error,
                     100 * entry->same_top.value, entry->perplexity_ratio.value, (unsigned long long)entry->tokens,
                     entry->text);
    } else {
        pi2_cli_note("approximate (%s): what that costs was not measured ('powerinfer2 verify' does)", mode);
    }
    if (settings->most < 0 || (entry && entry->divergence.value <= settings->most)) return PI2_CLI_GO_ON;
    *falls_back_out = strcmp(settings->on_divergence, "exact") == 0;
    if (*falls_back_out) {
        pi2_cli_note("the run is exact instead: --max-divergence %g%s", settings->most,
                     entry ? "" : " needs a measurement");
        return PI2_CLI_GO_ON;
    }
    if (entry) {
        (void)pi2_cli_usage_error("the divergence of this mode (%s) is %.6f, more than --max-divergence %g: allow "
                                  "more, or run exactly with --on-divergence exact", mode, entry->divergence.value,
                                  settings->most);
    } else {
        (void)pi2_cli_usage_error("the divergence of this mode (%s) was not measured: run 'powerinfer2 verify' "
                                  "with the same options and -f TEXT first, or run exactly with --on-divergence exact",
                                  mode);
    }
    return PI2_EXIT_DIVERGENCE;
}

int pi2_cli_check_guard(const pi2_cli_guard_settings *settings, const pi2_engine *engine,
                        const pi2_engine_options *options, bool *falls_back_out) {
    const char *mode = pi2_engine_arithmetic(engine);
    pi2_guard *guard = NULL;
    uint64_t weights_hash = 0;
    *falls_back_out = false;
    if (strcmp(mode, "exact") == 0) return PI2_CLI_GO_ON;
    pi2_status status = pi2_engine_weights_hash(engine, &weights_hash);
    if (status == PI2_OK) {
        status = pi2_cli_find_guard(settings, pi2_engine_get_report(engine)->weights_path, options->model_path,
                                    &guard);
    }
    if (status != PI2_OK) return pi2_cli_failed(status);
    int code;
    if (guard && pi2_guard_weights_hash(guard) != weights_hash) {
        (void)pi2_cli_usage_error("%s: the guard was measured on other weights, or another activation: remove it, or "
                                  "run 'powerinfer2 verify' again", pi2_engine_get_report(engine)->weights_path);
        code = PI2_EXIT_BAD_FILE;
    } else {
        code = hold_to(settings, mode, guard ? pi2_guard_find(guard, mode) : NULL, falls_back_out);
    }
    pi2_guard_free(guard);
    return code;
}

int pi2_cli_tell_guard(const pi2_engine *engine, const pi2_engine_options *options) {
    static const pi2_cli_guard_settings any = {.on_divergence = "refuse", .most = -1};
    bool falls_back;
    return pi2_cli_check_guard(&any, engine, options, &falls_back);
}

int pi2_cli_open_within_guard(const pi2_cli_guard_settings *settings, pi2_engine_options *options,
                              pi2_engine **engine_out) {
    bool falls_back = false;
    *engine_out = NULL;
    const int chosen = pi2_cli_choose_mode(settings, NULL, options);
    if (chosen != PI2_EXIT_OK) return chosen;
    options->identifies_weights = options->identifies_weights || pi2_cli_asks_approximate(options);
    pi2_status status = pi2_cli_open_engine(options, engine_out);
    if (status != PI2_OK) return pi2_cli_failed(status);
    const int code = pi2_cli_check_guard(settings, *engine_out, options, &falls_back);
    if (code != PI2_CLI_GO_ON) return code;
    if (!falls_back) return PI2_EXIT_OK;
    pi2_engine_close(*engine_out);
    *engine_out = NULL;
    pi2_cli_make_exact(options);
    status = pi2_cli_open_engine(options, engine_out);
    return status == PI2_OK ? PI2_EXIT_OK : pi2_cli_failed(status);
}
