/* mode_choice.c: plans are made and compared; nothing is run, and nothing is measured here. */
#include "mode_choice.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "machine_profile_cli.h"
#include "output.h"
#include "powerinfer2/guard.h"

enum { MOST_PREDICTORS = 8, SHARE_BYTES = 32, PATH_BYTES = 1024 };

bool pi2_cli_leaves_out(const pi2_engine_options *options) {
    pi2_engine_options only = *options;
    only.cache_type = PI2_CACHE_F16;
    only.device_any_precision = false;
    return pi2_cli_asks_approximate(&only);
}

static pi2_status predict(const pi2_engine_options *options, const pi2_machine_profile *profile,
                          const pi2_prediction_request *request, pi2_plan **plan_out) {
    pi2_engine_options quiet = *options;
    quiet.callbacks.log = NULL; /* the run itself tells it */
    return pi2_plan_make(&quiet, profile, request, plan_out);
}

static pi2_engine_options with_all(const pi2_engine_options *options) {
    pi2_engine_options exact = *options;
    exact.sparsity = "exact";
    exact.predictor = NULL;
    exact.predicts_prompts = false;
    return exact;
}

pi2_status pi2_cli_predict_exact(const pi2_engine_options *options, const pi2_machine_profile *profile,
                                 const pi2_prediction_request *request, pi2_speed *speed_out) {
    const pi2_engine_options exact = with_all(options);
    pi2_plan *plan = NULL;
    const pi2_status status = predict(&exact, profile, request, &plan);
    if (status == PI2_OK) *speed_out = pi2_plan_prediction(plan)->decode;
    pi2_plan_free(plan);
    return status;
}

void pi2_cli_say_gain(const pi2_speed *with, const pi2_speed *without, char *text, size_t capacity) {
    const double factor = without->tokens_per_second > 0 ? with->tokens_per_second / without->tokens_per_second : 1;
    if (factor > 1) (void)snprintf(text, capacity, "leaving neurons out pays, %.2f times", factor);
    else (void)snprintf(text, capacity, "leaving neurons out does not pay here: better without --sparsity");
}

void pi2_cli_tell_gain(const pi2_engine_options *options) {
    pi2_machine_profile *profile = NULL;
    pi2_plan *plan = NULL;
    pi2_speed without;
    char gain[96];
    const pi2_prediction_request request = {0};
    if (!pi2_cli_leaves_out(options) || pi2_machine_load(NULL, &profile) != PI2_OK) return;
    pi2_status status = predict(options, profile, &request, &plan);
    if (status == PI2_OK) status = pi2_cli_predict_exact(options, profile, &request, &without);
    if (status == PI2_OK) {
        const pi2_speed *with = &pi2_plan_prediction(plan)->decode;
        pi2_cli_say_gain(with, &without, gain, sizeof gain);
        pi2_cli_note("predicted %.2f tokens/s of decoding, %.2f with all neurons: %s", with->tokens_per_second,
                     without.tokens_per_second, gain);
    }
    pi2_plan_free(plan);
    pi2_machine_free(profile);
}

/* ---- the best of those that were measured ---- */

/** What was found. */
typedef struct choice {
    int code;
    char share[SHARE_BYTES], predictor[PATH_BYTES]; /* of the fastest; empty: it is the exact mode */
} choice;

typedef struct choosing {
    const pi2_machine_profile *profile;
    const pi2_engine_options *options;
    char predictors[MOST_PREDICTORS][PATH_BYTES];
    size_t predictor_count;
    choice best;
    double speed, divergence;
} choosing;

/** Predictors beside the weights: of model.pi2 all that are called model*.predictor, in the order of their names. */
static void list_predictors(choosing *self, const char *weights_path) {
    static const char ending[] = ".predictor";
    const char *slash = strrchr(weights_path, '/'), *name = slash ? slash + 1 : weights_path;
    const char *dot = strrchr(name, '.');
    const size_t stem = dot ? (size_t)(dot - name) : strlen(name), folder = (size_t)(name - weights_path);
    char place[PATH_BYTES];
    struct dirent **found = NULL;
    if (self->options->predictor) {
        (void)snprintf(self->predictors[self->predictor_count++], PATH_BYTES, "%s", self->options->predictor);
        return;
    }
    (void)snprintf(place, sizeof place, "%.*s", (int)folder, slash ? weights_path : ".");
    const int count = scandir(slash ? place : ".", &found, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        const char *file = found[i]->d_name;
        const size_t length = strlen(file), end = sizeof ending - 1;
        if (length > end && strcmp(file + length - end, ending) == 0 && strncmp(file, name, stem) == 0 &&
            folder + length < PATH_BYTES && self->predictor_count < MOST_PREDICTORS) {
            (void)snprintf(self->predictors[self->predictor_count++], PATH_BYTES, "%.*s%s", (int)folder, weights_path,
                           file);
        }
        free(found[i]);
    }
    free(found);
}

/** The share that a mode leaves out, as its text has it: behind what is said of the cache. */
static bool read_share(const char *mode, bool has_small_cache, char share[SHARE_BYTES]) {
    static const char cache[] = "cache q8_0, ", sparsity[] = "sparsity ";
    if (has_small_cache) {
        if (strncmp(mode, cache, sizeof cache - 1) != 0) return false;
        mode += sizeof cache - 1;
    }
    if (strncmp(mode, sparsity, sizeof sparsity - 1) != 0) return false;
    mode += sizeof sparsity - 1;
    const size_t length = strcspn(mode, ",");
    if (length == 0 || length >= SHARE_BYTES) return false;
    memcpy(share, mode, length);
    share[length] = '\0';
    return true;
}

/** A measured mode with the predictor that it was measured with, if that is this one. */
static void try_mode(choosing *self, const pi2_guard_entry *entry, const char *share, const char *predictor) {
    pi2_engine_options options = *self->options;
    const pi2_prediction_request request = {0};
    pi2_plan *plan = NULL;
    options.sparsity = share;
    options.predictor = predictor;
    if (predict(&options, self->profile, &request, &plan) == PI2_OK &&
        strcmp(pi2_plan_arithmetic(plan), entry->arithmetic) == 0) {
        const double speed = pi2_plan_prediction(plan)->decode.tokens_per_second;
        pi2_cli_note("best     %s: %.2f tokens/s predicted, KL divergence %.6f", entry->arithmetic, speed,
                     entry->divergence.value);
        if (speed > self->speed) {
            self->speed = speed;
            self->divergence = entry->divergence.value;
            (void)snprintf(self->best.share, sizeof self->best.share, "%s", share);
            (void)snprintf(self->best.predictor, sizeof self->best.predictor, "%s", predictor);
        }
    }
    pi2_plan_free(plan);
}

static void try_modes(choosing *self, const pi2_guard *guard, double most) {
    const pi2_guard_entry *entry;
    char share[SHARE_BYTES];
    for (size_t i = 0; (entry = pi2_guard_entry_at(guard, i)) != NULL; i++) {
        if (entry->divergence.value > most || pi2_guard_find(guard, entry->arithmetic) != entry) continue;
        if (!read_share(entry->arithmetic, self->options->cache_type == PI2_CACHE_Q8_0, share)) continue;
        for (size_t p = 0; p < self->predictor_count; p++) try_mode(self, entry, share, self->predictors[p]);
    }
}

/** The exact mode, which every other one must outrun. */
static pi2_status try_exact(choosing *self, const pi2_cli_guard_settings *settings, pi2_guard **guard_out) {
    const pi2_engine_options exact = with_all(self->options);
    const pi2_prediction_request request = {0};
    pi2_plan *plan = NULL;
    pi2_status status = predict(&exact, self->profile, &request, &plan);
    if (status == PI2_OK) {
        const char *weights = pi2_plan_report(plan)->weights_path;
        self->speed = pi2_plan_prediction(plan)->decode.tokens_per_second;
        pi2_cli_note("best     all neurons: %.2f tokens/s predicted", self->speed);
        list_predictors(self, weights);
        status = pi2_cli_find_guard(settings, weights, self->options->model_path, guard_out);
    }
    pi2_plan_free(plan);
    return status;
}

static int choose(choosing *self, const pi2_cli_guard_settings *settings) {
    pi2_guard *guard = NULL;
    const choice *best = &self->best;
    const pi2_status status = try_exact(self, settings, &guard);
    if (status != PI2_OK) return pi2_cli_failed(status);
    if (guard) try_modes(self, guard, settings->most);
    pi2_guard_free(guard);
    if (*best->share) {
        pi2_cli_note("best     --sparsity %s --predictor %s", best->share, best->predictor);
    } else {
        pi2_cli_note("best     --sparsity exact: nothing that was measured within a divergence of %g is faster",
                     settings->most);
    }
    return PI2_EXIT_OK;
}

static void choose_here(const pi2_cli_guard_settings *settings, const pi2_machine_profile *profile,
                        const pi2_engine_options *options, choice *found) {
    pi2_machine_profile *kept = NULL;
    choosing *self = calloc(1, sizeof *self);
    found->code = PI2_EXIT_OK;
    if (!self) {
        found->code = pi2_cli_failed(PI2_ERR_MEMORY);
    } else if (!profile && pi2_machine_load(NULL, &kept) != PI2_OK) {
        found->code = pi2_cli_usage_error("--sparsity best goes by predictions, and this machine was not measured yet: "
                                          "run 'powerinfer2 machine' first");
    } else {
        self->profile = profile ? profile : kept;
        self->options = options;
        const int code = choose(self, settings);
        *found = self->best;
        found->code = code;
    }
    pi2_machine_free(kept);
    free(self);
}

static bool read_choice(int from, choice *found) {
    size_t count = 0;
    while (count < sizeof *found) {
        const ssize_t more = read(from, (char *)found + count, sizeof *found - count);
        if (more > 0) count += (size_t)more;
        else if (more == 0 || errno != EINTR) return false;
    }
    return true;
}

/** In a process of its own, whose plans leave nothing in this one: of a tight budget that was a few per cent. False:
 *  there is no such process. */
static bool choose_apart(const pi2_cli_guard_settings *settings, const pi2_machine_profile *profile,
                         const pi2_engine_options *options, choice *found) {
    int ends[2];
    (void)fflush(NULL);
    if (pipe(ends) != 0) return false;
    const pid_t child = fork();
    if (child == 0) {
        choose_here(settings, profile, options, found);
        (void)fflush(NULL);
        const bool is_told = write(ends[1], found, sizeof *found) == (ssize_t)sizeof *found;
        _exit(is_told ? 0 : 1);
    }
    (void)close(ends[1]);
    const bool is_there = child > 0 && read_choice(ends[0], found);
    (void)close(ends[0]);
    while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR) continue;
    return is_there;
}

int pi2_cli_choose_mode(const pi2_cli_guard_settings *settings, const pi2_machine_profile *profile,
                        pi2_engine_options *options) {
    static choice found; /* options point into it */
    if (!options->sparsity || strcmp(options->sparsity, PI2_CLI_BEST_SPARSITY) != 0) return PI2_EXIT_OK;
    if (settings->most < 0) {
        return pi2_cli_usage_error("--sparsity best chooses within a limit: give one, as 'run --max-divergence' "
                                   "takes it");
    }
    memset(&found, 0, sizeof found);
    if (!choose_apart(settings, profile, options, &found)) choose_here(settings, profile, options, &found);
    options->sparsity = *found.share ? found.share : "exact";
    options->predictor = *found.share ? found.predictor : NULL;
    return found.code;
}
