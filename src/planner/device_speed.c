/* device_speed.c: what devices do beside the processor, with the type and the size of a model's matrices, measured for
 * some hundredths of a second: both at once, for they may have the same processors or the same memory. It says which
 * share of a matrix devices begin with (passes correct it, pipeline/device_share.h), and which do not pay. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/cpu/cpu_backend.h"
#include "base/clock.h"
#include "base/cpu_features.h"
#include "base/median.h"
#include "base/pages.h"
#include "base/team.h"
#include "planner/device_worth.h"
#include "planner/planned_run.h"

enum {
    PIECE_BYTES = 1 << 20, PIECES = 16, DEVICE_PIECES = 4, /* threads walk through all: no core's cache holds them */
    LEAST_TILES = 4, THREAD_PARTS = 4, /* of a piece: what a thread multiplies at a time */
    ROUNDS = 3, CALLS_LEAST = 2, MOST_TOKENS = 64, THREADS_MOST = 32
};
/* A device that needs longer for a piece is asked for no more than that one. */
static const uint64_t PATIENCE_NS = 30000000, ROUND_NS = 4000000;
static const uint32_t tokens_at[PI2_DEVICE_POINTS] = { 1, 8, MOST_TOKENS };
/* Matrices that take so much longer with it: less may be a moment's chance, and is tried in the run. */
static const double CLEARLY_SLOWER = 0.9;

/* Pieces like a model's most usual matrix: zeros, which are a weight of every type. */
typedef struct trial {
    pi2_backend_work work;       /* of the first piece */
    pi2_activations x;
    void *tiles, *activations, *out;
    size_t tiles_bytes, activations_bytes, out_bytes, member_floats;
    pi2_cpu_backend cpu;
    pi2_team *team;              /* the threads, and whoever waits for a device */
    uint32_t threads;
} trial;

static bool reserve(size_t bytes, void **memory) {
    return pi2_pages_reserve(bytes, false, "a device's trial", memory) == PI2_OK;
}

static bool make_trial(const pi2_layout_tensor *tensor, uint32_t threads, trial *t) {
    const pi2_weight_format *format = tensor->format;
    const size_t columns = tensor->columns, tile = pi2_tile_bytes(format, tensor->columns);
    const bool is_float = format->activation == PI2_ACTIVATION_F32;
    size_t tiles = PIECE_BYTES / tile > LEAST_TILES ? PIECE_BYTES / tile : LEAST_TILES;
    if (tiles * PI2_TILE_ROWS > tensor->rows) tiles = (size_t)tensor->rows / PI2_TILE_ROWS;
    memset(t, 0, sizeof *t);
    if (tiles == 0) return false;
    t->threads = threads < THREADS_MOST ? threads : THREADS_MOST;
    t->tiles_bytes = PIECES * tiles * tile;
    t->activations_bytes = is_float ? MOST_TOKENS * columns * sizeof(float)
                                    : pi2_activations_bytes(format->activation, MOST_TOKENS, columns);
    t->member_floats = MOST_TOKENS * tiles * PI2_TILE_ROWS;
    t->out_bytes = (t->threads + 1) * t->member_floats * sizeof(float);
    if (!reserve(t->tiles_bytes, &t->tiles) || !reserve(t->activations_bytes, &t->activations) ||
        !reserve(t->out_bytes, &t->out)) return false;
    memset(t->tiles, 0, t->tiles_bytes); /* pages that are only read are all one page of zeros, in every cache */
    pi2_cpu_backend_choose(&t->cpu, pi2_cpu_features());
    pi2_activations_layout(&t->x, format->activation, MOST_TOKENS, columns, t->activations);
    if (is_float) {
        t->x.floats = t->activations;
        t->x.float_stride = columns;
    }
    t->work = (pi2_backend_work){ .out_stride = tiles * PI2_TILE_ROWS, .type = format->type,
                                  .tile_count = tiles, .tile_bytes = tile, .columns = columns,
                                  .x = &t->x, .start = true, .unit_bytes = tiles * tile, .stays = true };
    const pi2_team_options sleeps = { .sleepers = 1 };
    return pi2_team_create(t->threads + 1, &sleeps, &t->team) == PI2_OK;
}

/* A device that hangs may read its weights for ever. */
static void free_trial(trial *t, bool is_lost) {
    pi2_team_destroy(t->team);
    if (is_lost) pi2_pages_vacate(t->tiles, t->tiles_bytes);
    else pi2_pages_release(t->tiles, t->tiles_bytes);
    pi2_pages_release(t->activations, t->activations_bytes);
    pi2_pages_release(t->out, t->out_bytes);
}

/* Some of a piece's tiles, for a member. */
static pi2_backend_work work_of(const trial *t, uint32_t piece, unsigned member, uint32_t tokens, size_t tiles) {
    pi2_backend_work work = t->work;
    work.out = (float *)t->out + member * t->member_floats;
    work.unit = piece;
    work.unit_memory = (const uint8_t *)t->tiles + piece * t->work.unit_bytes;
    work.tiles = work.unit_memory;
    if (tiles < work.tile_count) work.tile_count = tiles;
    work.token_count = tokens;
    return work;
}

/* ---- threads and a device at once ---- */

typedef struct race {
    const trial *t;
    pi2_backend *device;         /* NULL: the threads are alone */
    uint32_t tokens;
    uint64_t begin_ns, end_ns;
    _Atomic bool is_over;
    _Atomic uint64_t thread_bytes;
    uint64_t device_bytes, device_ns;
} race;

static void compute_as_thread(race *r, unsigned member) {
    const trial *t = r->t;
    const size_t part = (t->work.tile_count + THREAD_PARTS - 1) / THREAD_PARTS;
    for (uint32_t i = member * (PIECES * THREAD_PARTS / t->threads); /* each from its own place on, through all */
         !atomic_load_explicit(&r->is_over, memory_order_relaxed); i++) {
        pi2_backend_work work = work_of(t, i / THREAD_PARTS % PIECES, member, r->tokens, part);
        const size_t first = i % THREAD_PARTS * part;
        if (first >= t->work.tile_count) continue;
        if (part > t->work.tile_count - first) work.tile_count = t->work.tile_count - first;
        work.tiles = (const uint8_t *)work.unit_memory + first * work.tile_bytes;
        pi2_cpu_backend_multiply(&t->cpu, &work);
        (void)atomic_fetch_add_explicit(&r->thread_bytes, work.tile_count * work.tile_bytes, memory_order_relaxed);
        if (!r->device && pi2_clock_ns() >= r->end_ns) atomic_store(&r->is_over, true);
    }
}

static void compute_by_device(race *r, unsigned member) {
    const uint64_t begin = pi2_clock_ns();
    uint64_t now = begin;
    for (uint32_t calls = 0; now < r->end_ns || (calls < CALLS_LEAST && now - begin < PATIENCE_NS); calls++) {
        const pi2_backend_work work = work_of(r->t, calls % DEVICE_PIECES, member, r->tokens, SIZE_MAX);
        if (!pi2_backend_multiply(r->device, &work)) break;
        now = pi2_clock_ns();
        r->device_bytes += work.unit_bytes;
        r->device_ns = now - begin + 1;
    }
    atomic_store(&r->is_over, true);
}

static void run_member(void *argument, unsigned member, unsigned member_count) {
    race *r = argument;
    if (member + 1 < member_count) compute_as_thread(r, member);
    else if (r->device) compute_by_device(r, member);
}

/* Bytes a second of the threads, and of the device where there is one. */
static uint64_t run_race(const trial *t, pi2_backend *device, uint32_t tokens, uint64_t *device_rate) {
    race r = { .t = t, .device = device, .tokens = tokens, .begin_ns = pi2_clock_ns() };
    r.end_ns = r.begin_ns + ROUND_NS;
    pi2_team_run(t->team, run_member, &r);
    const double seconds = (double)(pi2_clock_ns() - r.begin_ns + 1) / 1e9;
    if (device) *device_rate = r.device_ns ? (uint64_t)((double)r.device_bytes / (double)r.device_ns * 1e9) : 0;
    return (uint64_t)((double)atomic_load(&r.thread_bytes) / seconds);
}

/* What a call takes beside its bytes: of so few tiles that they hardly count. */
static double call_seconds(const trial *t, pi2_backend *device, uint32_t tokens, double rate) {
    uint64_t least = 0;
    for (int i = 0; i < ROUNDS; i++) {
        const pi2_backend_work work = work_of(t, 0, 0, tokens, LEAST_TILES);
        const uint64_t begin = pi2_clock_ns();
        if (!pi2_backend_multiply(device, &work)) return 0;
        const uint64_t took = pi2_clock_ns() - begin;
        if (i == 0 || took < least) least = took;
        if (took > PATIENCE_NS) break;
    }
    const double bytes = (double)((t->work.tile_count < LEAST_TILES ? t->work.tile_count : LEAST_TILES) *
                                  t->work.tile_bytes);
    const double beside = (double)least / 1e9 - bytes / rate;
    return beside > 0 ? beside : 0;
}

static pi2_device_rates measure_at(const trial *t, pi2_backend *device, uint32_t tokens) {
    uint64_t alone[ROUNDS], beside[ROUNDS], of_device[ROUNDS];
    const pi2_backend_work first = work_of(t, 0, 0, tokens, SIZE_MAX); /* what a driver makes when it is asked */
    if (!pi2_backend_multiply(device, &first)) return (pi2_device_rates){ .device = 0 };
    for (int i = 0; i < ROUNDS; i++) {
        alone[i] = run_race(t, NULL, tokens, NULL);
        beside[i] = run_race(t, device, tokens, &of_device[i]);
        if (of_device[i] == 0) return (pi2_device_rates){ .device = 0 };
    }
    pi2_device_rates rates = { .alone = (double)pi2_median(alone, ROUNDS), .beside = (double)pi2_median(beside, ROUNDS),
                               .device = (double)pi2_median(of_device, ROUNDS) };
    if (rates.beside > rates.alone) rates.alone = rates.beside; /* other work took a processor meanwhile */
    rates.call_seconds = call_seconds(t, device, tokens, rates.device);
    return rates;
}

/* ---- the model ---- */

/* A matrix that most of a model is like: of its FFN, or else of its attention. */
static const pi2_layout_tensor *usual_matrix(const pi2_model *model) {
    for (uint32_t i = 0; i < model->shape.layer_count; i++) {
        const pi2_layer_weights *layer = &model->layers[i];
        if (layer->gate.tensor) return layer->gate.tensor;
        if (layer->q.tensor) return layer->q.tensor;
    }
    return NULL;
}

/* Of a stage: q, k and v, attention's output, Gate and Up, Down. */
static double stage_bytes(const pi2_model *model) {
    enum { STAGES_OF_A_LAYER = PI2_STAGES_OF_ATTENTION - 1 + PI2_STAGES_OF_A_RUN }; /* attention itself has none */
    const pi2_extent_layout *layout = model->layout;
    double bytes = 0;
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        const pi2_group_kind kind = layout->groups[layout->extents[e].group].kind;
        const bool is_expert = kind == PI2_GROUP_EXPERT;
        if (!is_expert && kind != PI2_GROUP_ATTENTION && kind != PI2_GROUP_FFN) continue;
        const double used = is_expert ? (double)pi2_token_ffns(&model->shape) / pi2_layer_ffns(&model->shape) : 1;
        bytes += used * (double)layout->extents[e].bytes;
    }
    return bytes / (STAGES_OF_A_LAYER * (double)model->shape.layer_count);
}

/* ---- which pay ---- */

static void set_sizes(pi2_device_first_shares *first, const double *shares) {
    for (uint32_t size = 0; size < PI2_SHARE_SIZES; size++) {
        const int point = size < pi2_share_size(3) ? 0 : size < pi2_share_size(17) ? 1 : 2;
        first->of[size] = (float)shares[point];
    }
}

static bool any_is_lost(const pi2_run_devices *devices) {
    for (uint32_t i = 0; i < devices->count; i++) {
        if (pi2_backend_loss(devices->of[i])) return true;
    }
    return false;
}

static bool pays(const pi2_device_speed *speed) {
    for (int p = 0; p < PI2_DEVICE_POINTS; p++) {
        if (speed->gains[p] >= CLEARLY_SLOWER) return true;
    }
    return false;
}

static void tell_left_out(const pi2_planned_run *run, const pi2_device_speed *speed) {
    pi2_planned_run_log(run, "device '%s' does not pay: with it matrices are %.2f times as fast with one token, %.2f "
                        "times with 8 and %.2f times with 64; it is left out ('--device-always' takes it all the same)",
                        speed->name, speed->gains[0], speed->gains[1], speed->gains[2]);
}

static void measure_all(pi2_planned_run *run, const trial *t) {
    pi2_run_devices *devices = &run->devices;
    const double stage = stage_bytes(run->source.model);
    for (uint32_t i = 0; i < devices->count; i++) {
        for (int p = 0; p < PI2_DEVICE_POINTS; p++) {
            const pi2_device_rates rates = measure_at(t, devices->of[i], tokens_at[p]);
            const pi2_device_worth_of_stage worth = pi2_device_worth_in(&rates, stage);
            devices->speeds[i].shares[p] = worth.share;
            devices->speeds[i].gains[p] = worth.gain;
        }
        pi2_backend_forget(devices->of[i]);
    }
}

/* The shares of several beside each other: each as much of the threads' part as if it were the only one. */
static void combine(pi2_run_devices *devices) {
    double shares[PI2_DEVICE_POINTS];
    for (int p = 0; p < PI2_DEVICE_POINTS; p++) {
        double beside = 0, gain = 1;
        for (uint32_t i = 0; i < devices->speed_count; i++) {
            const pi2_device_speed *speed = &devices->speeds[i];
            if (speed->is_left_out) continue;
            beside += speed->shares[p] < 1 ? speed->shares[p] / (1 - speed->shares[p]) : 1e6;
            gain *= speed->gains[p];
        }
        shares[p] = beside / (1 + beside);
        devices->gains[p] = gain;
    }
    set_sizes(&devices->shares, shares);
}

/* Where passes of a kind are slower with them the run leaves them out of these. */
static void expect_trials(pi2_run_devices *devices) {
    for (int p = 0; p < PI2_DEVICE_POINTS; p++) {
        if (devices->gains[p] > 0 && devices->gains[p] < 1) devices->gains[p] = 1;
    }
}

static void leave_out(pi2_planned_run *run) {
    pi2_run_devices *devices = &run->devices;
    for (uint32_t i = devices->count; i-- > 0;) {
        if (run->options.device_always || pays(&devices->speeds[i])) continue;
        devices->speeds[i].is_left_out = true;
        tell_left_out(run, &devices->speeds[i]);
        pi2_run_devices_leave_out(run, i);
    }
}

void pi2_run_devices_measure(pi2_planned_run *run) {
    pi2_run_devices *devices = &run->devices;
    const double wanted = run->options.device_share;
    const pi2_layout_tensor *tensor = usual_matrix(run->source.model);
    trial t;
    if (devices->count == 0) return;
    devices->speed_count = devices->count;
    for (uint32_t i = 0; i < devices->count; i++) {
        (void)snprintf(devices->speeds[i].name, sizeof devices->speeds[i].name, "%s",
                       pi2_backend_facts(devices->of[i])->name);
    }
    devices->shares.are_fixed = wanted >= 0;
    set_sizes(&devices->shares, (const double[PI2_DEVICE_POINTS]){ wanted, wanted, wanted });
    if (wanted < 0) {
        const uint32_t threads = run->plan.thread_count > devices->count ? run->plan.thread_count - devices->count : 1;
        const bool is_made = tensor && make_trial(tensor, threads, &t);
        if (is_made) measure_all(run, &t);
        if (tensor) free_trial(&t, any_is_lost(devices));
        if (is_made) leave_out(run);
        combine(devices);
        if (!run->options.device_always) expect_trials(devices);
    }
    (void)snprintf(devices->shares_text, sizeof devices->shares_text, "%.0f %% of each matrix with one token, %.0f %% "
                   "with 8, %.0f %% with 64%s", 100.0 * (double)devices->shares.of[0],
                   100.0 * (double)devices->shares.of[pi2_share_size(8)],
                   100.0 * (double)devices->shares.of[pi2_share_size(64)], wanted < 0 ? " (measured)" : "");
}
