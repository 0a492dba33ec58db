/* device_speed.c: which share of a matrix devices begin with: by their speed with its type and size beside the
 * processor's, measured for a few milliseconds. Passes correct it (pipeline/device_share.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/cpu/cpu_backend.h"
#include "base/clock.h"
#include "base/cpu_features.h"
#include "base/pages.h"
#include "planner/planned_run.h"

enum { BYTES = 1 << 20, LEAST_TILES = 4, REPEATS = 3, POINTS = 3, MOST_TOKENS = 64 };
/* A device that needs longer for a megabyte is not asked again. */
static const uint64_t PATIENCE_NS = 30000000;
static const uint32_t tokens_at[POINTS] = { 1, 8, MOST_TOKENS };

/* One piece of work of a model's most usual matrix: zeros, which are a weight of every type. */
typedef struct trial {
    pi2_backend_work work;
    pi2_activations x;
    void *tiles, *activations;
    size_t tiles_bytes;
    float *out;
} trial;

static void *zeros(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes) != 0) return NULL;
    return memset(memory, 0, bytes);
}

static bool make_trial(const pi2_layout_tensor *tensor, trial *t) {
    const pi2_weight_format *format = tensor->format;
    const size_t columns = tensor->columns, tile = pi2_tile_bytes(format, tensor->columns);
    size_t tiles = BYTES / tile > LEAST_TILES ? BYTES / tile : LEAST_TILES;
    if (tiles * PI2_TILE_ROWS > tensor->rows) tiles = (size_t)tensor->rows / PI2_TILE_ROWS;
    const bool is_float = format->activation == PI2_ACTIVATION_F32;
    const size_t bytes = is_float ? MOST_TOKENS * columns * sizeof(float)
                                  : pi2_activations_bytes(format->activation, MOST_TOKENS, columns);
    memset(t, 0, sizeof *t);
    if (tiles == 0) return false;
    t->tiles_bytes = tiles * tile;
    if (pi2_pages_reserve(t->tiles_bytes, false, "a device's trial", &t->tiles) != PI2_OK) return false;
    t->activations = zeros(bytes);
    t->out = zeros(MOST_TOKENS * tiles * PI2_TILE_ROWS * sizeof(float));
    if (!t->activations || !t->out) return false;
    pi2_activations_layout(&t->x, format->activation, MOST_TOKENS, columns, t->activations);
    if (is_float) {
        t->x.floats = t->activations;
        t->x.float_stride = columns;
    }
    t->work = (pi2_backend_work){ .out = t->out, .out_stride = tiles * PI2_TILE_ROWS, .type = format->type,
                                  .tiles = t->tiles, .tile_count = tiles, .tile_bytes = tile, .columns = columns,
                                  .x = &t->x, .start = true, .unit_memory = t->tiles, .unit_bytes = tiles * tile,
                                  .stays = true };
    return true;
}

/* A device that hangs may read its weights for ever. */
static void free_trial(trial *t, bool is_lost) {
    if (is_lost) pi2_pages_vacate(t->tiles, t->tiles_bytes);
    else pi2_pages_release(t->tiles, t->tiles_bytes);
    free(t->activations);
    free(t->out);
}

/* The shortest of a few times; 0: it does not compute this, or was lost. backend NULL: one thread of the processor. */
static uint64_t time_work(const trial *t, const pi2_cpu_backend *cpu, pi2_backend *backend, uint32_t tokens) {
    pi2_backend_work work = t->work;
    uint64_t least = 0;
    work.token_count = tokens;
    for (int i = 0; i <= REPEATS; i++) { /* the first one brings weights, and what a driver makes when it is asked */
        const uint64_t begin = pi2_clock_ns();
        if (!backend) pi2_cpu_backend_multiply(cpu, &work);
        else if (!pi2_backend_multiply(backend, &work)) return 0;
        const uint64_t took = pi2_clock_ns() - begin + 1;
        if (i > 0 && (least == 0 || took < least)) least = took;
        if (i > 0 && took > PATIENCE_NS) break;
    }
    return least;
}

/* A matrix that most of a model is like: of its FFN, or else of its attention. */
static const pi2_layout_tensor *usual_matrix(const pi2_model *model) {
    for (uint32_t i = 0; i < model->shape.layer_count; i++) {
        const pi2_layer_weights *layer = &model->layers[i];
        if (layer->gate.tensor) return layer->gate.tensor;
        if (layer->q.tensor) return layer->q.tensor;
    }
    return NULL;
}

static void set_sizes(pi2_device_first_shares *first, const double *shares) {
    for (uint32_t size = 0; size < PI2_SHARE_SIZES; size++) {
        const int point = size < pi2_share_size(3) ? 0 : size < pi2_share_size(17) ? 1 : 2;
        first->of[size] = (float)shares[point];
    }
}

static void measure(pi2_planned_run *run, const trial *t) {
    const double threads = pi2_run_processor_threads(run);
    double shares[POINTS];
    pi2_cpu_backend cpu;
    pi2_cpu_backend_choose(&cpu, pi2_cpu_features());
    for (int p = 0; p < POINTS; p++) {
        const double of_threads = threads / (double)time_work(t, &cpu, NULL, tokens_at[p]);
        double of_devices = 0;
        for (uint32_t i = 0; i < run->devices.count; i++) {
            const uint64_t took = time_work(t, &cpu, run->devices.of[i], tokens_at[p]);
            if (took) of_devices += 1 / (double)took;
        }
        shares[p] = of_devices / (of_devices + of_threads);
    }
    for (uint32_t i = 0; i < run->devices.count; i++) pi2_backend_forget(run->devices.of[i]);
    set_sizes(&run->devices.shares, shares);
}

static bool any_is_lost(const pi2_run_devices *devices) {
    for (uint32_t i = 0; i < devices->count; i++) {
        if (pi2_backend_loss(devices->of[i])) return true;
    }
    return false;
}

void pi2_run_devices_share(pi2_planned_run *run) {
    pi2_run_devices *devices = &run->devices;
    const double wanted = run->options.device_share;
    trial t;
    if (devices->count == 0) return;
    devices->shares.are_fixed = wanted >= 0;
    set_sizes(&devices->shares, (const double[POINTS]){ wanted, wanted, wanted });
    const pi2_layout_tensor *tensor = usual_matrix(run->source.model);
    if (wanted < 0) {
        set_sizes(&devices->shares, (const double[POINTS]){ 0, 0, 0 });
        if (tensor && make_trial(tensor, &t)) measure(run, &t);
        if (tensor) free_trial(&t, any_is_lost(devices));
    }
    (void)snprintf(devices->shares_text, sizeof devices->shares_text, "%.0f %% of each matrix with one token, %.0f %% "
                   "with 8, %.0f %% with 64%s", 100.0 * (double)devices->shares.of[0],
                   100.0 * (double)devices->shares.of[pi2_share_size(8)],
                   100.0 * (double)devices->shares.of[pi2_share_size(64)], wanted < 0 ? " (measured)" : "");
}
