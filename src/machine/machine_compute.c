/*
 * machine_compute.c: memory and kernels, measured as a pass uses them: the threads of a team claim
 * chunks of a matrix, and meet when it is done. What comes next lies behind it, in memory that a cache
 * holds, and in more than that.
 */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu_features.h"
#include "base/fail.h"
#include "machine/machine_rounds.h"
#include "machine/plain_read.h"
#include "kernels/attention/attention.h"
#include "kernels/matmul/matmul.h"
#include "kernels/vector/vector.h"
#include "pipeline/stage.h"

enum {
    COLUMNS = 4096, CHUNK_BYTES = 48 * 1024, BATCH_BYTES = 2 << 20, BATCH_CHUNK_TILES = 4, BATCH_MOST = 256,
    QUICK_BATCH_BYTES = 1 << 18, LEAST_ROUNDS = 3, STAGES = 256, STAGE_CHUNKS_PER_THREAD = 4, STAGE_COLUMNS = 512,
    STAGE_TILES = 4, STAGE_ROUNDS = 5, STAGE_LAPS = 30, MEMORY_TIMES = 3 /* what all of a model's matrices lean on */,
    HEAD_DIMENSIONS = 128, KEYS = 512, QUERIES_MOST = 24, VECTOR_FLOATS = 4096
};

static const uint32_t batch_points[] = {4, 16, 64, BATCH_MOST};
enum { BATCH_POINTS = sizeof batch_points / sizeof batch_points[0] };
/* A row of a layer is wide, a cluster's part of Down is narrow: what a tile costs beside its columns counts. */
static const struct { uint32_t columns; bool in_batches; } column_points[] = {
    {64, false}, {256, true}, {1024, false}, {COLUMNS, true}};
enum { COLUMN_POINTS = sizeof column_points / sizeof column_points[0], BATCH_COLUMN_POINTS = 2 };

/* What is less was not measured but lost in noise. */
static const double LEAST_STAGE_SECONDS = 2e-7;

static _Atomic uint64_t sink;

/** A matrix, or plain memory, and the rounds over it. */
typedef struct work {
    pi2_rounds rounds;
    const pi2_measuring *measuring;
    pi2_reach *reach;                /* where each round's memory lies; NULL: always at the same place */
    const uint8_t *memory;           /* of the round */
    size_t bytes;
    const pi2_matmul_kernel *kernel; /* NULL: plain reading */
    size_t tile_bytes, tile_count, chunk_tiles;
    uint32_t tokens, columns;
    pi2_activations x;
    float *out;                      /* [member][tokens][chunk rows] */
    size_t batch_bytes;
} work;

static unsigned threads_of(const work *w) { return pi2_team_member_count(w->rounds.team); }

static void run_chunk(void *user, unsigned member, size_t chunk) {
    const work *w = user;
    if (!w->kernel) {
        const size_t begin = chunk * CHUNK_BYTES;
        const size_t bytes = begin + CHUNK_BYTES < w->bytes ? CHUNK_BYTES : w->bytes - begin;
        atomic_fetch_add_explicit(&sink, pi2_plain_read(w->memory + begin, bytes), memory_order_relaxed);
        return;
    }
    const size_t begin = chunk * w->chunk_tiles, rows = w->chunk_tiles * PI2_TILE_ROWS;
    const size_t tiles = begin + w->chunk_tiles < w->tile_count ? w->chunk_tiles : w->tile_count - begin;
    w->kernel->run(w->out + member * w->tokens * rows, rows, w->memory + begin * w->tile_bytes, tiles,
                   w->columns, 0, &w->x, 0, w->tokens, true);
}

static void go_on(void *user) {
    work *w = user;
    if (w->reach) w->memory = pi2_measuring_place(w->measuring, w->reach, w->bytes);
}

/** Each round's bytes lie behind those of the one before, as those of matrices of a pass do. */
static void set_reach(work *w, pi2_reach *reach) {
    w->reach = reach;
    w->bytes = reach->round_bytes;
    w->rounds.skipped = reach->skipped;
    go_on(w);
}

static void stay(work *w, size_t bytes) {
    w->reach = NULL;
    w->rounds.skipped = 0;
    w->memory = w->measuring->memory;
    w->bytes = bytes;
}

/** Rounds until the time is over; amount / seconds of a typical round. */
static double run_work(work *w, double amount, double *spread) {
    w->rounds.chunk_count = w->kernel ? (w->tile_count + w->chunk_tiles - 1) / w->chunk_tiles
                                      : (w->bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
    return pi2_rounds_run(&w->rounds, amount, spread);
}

/* ---- memory ---- */

static void measure_memory_of(pi2_measuring *m, work *w, pi2_reach *reach) {
    double spread;
    w->kernel = NULL;
    set_reach(w, reach);
    w->rounds.seconds = MEMORY_TIMES * m->seconds;
    const double value = run_work(w, (double)w->bytes, &spread);
    w->rounds.seconds = m->seconds;
    (void)pi2_profile_add(m->profile, PI2_MEASURED_MEMORY, NULL, threads_of(w), reach->told_bytes, 0, value, spread);
}

/* What a cache holds, what is larger than all of it, and what lies between: others may have a part of it. */
static void measure_memory(pi2_measuring *m, work *w) {
    measure_memory_of(m, w, &m->near);
    for (size_t bytes = 2 * m->near.told_bytes; bytes < m->far.bytes && !m->options->quick; bytes *= 2) {
        pi2_reach part = m->far;
        part.bytes = part.told_bytes = bytes;
        part.at = 0;
        if (part.round_bytes > bytes / 2) part.round_bytes = bytes / 2;
        part.skipped = bytes / part.round_bytes;
        measure_memory_of(m, w, &part);
    }
    measure_memory_of(m, w, &m->far);
}

/* ---- kernels ---- */

typedef struct operands {
    float *floats;    /* [BATCH_MOST][COLUMNS] */
    void *quantised;
    float *out;
} operands;

static void free_operands(operands *o) {
    free(o->floats);
    free(o->quantised);
    free(o->out);
}

static pi2_status make_operands(operands *o, unsigned members) {
    memset(o, 0, sizeof *o);
    const size_t floats = (size_t)BATCH_MOST * COLUMNS;
    /* A chunk of one token: at most CHUNK_BYTES of tiles of half a byte a weight, or one tile. */
    size_t out = (size_t)BATCH_MOST * BATCH_CHUNK_TILES * PI2_TILE_ROWS;
    const size_t most = (CHUNK_BYTES / (column_points[0].columns / 2) + 1) * PI2_TILE_ROWS;
    if (out < most) out = most;
    if (posix_memalign((void **)&o->floats, 64, floats * sizeof(float)) != 0) o->floats = NULL;
    if (posix_memalign(&o->quantised, 64, 2 * floats) != 0) o->quantised = NULL;
    if (posix_memalign((void **)&o->out, 64, out * members * sizeof(float)) != 0) o->out = NULL;
    if (!o->floats || !o->quantised || !o->out) {
        free_operands(o);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for measuring the kernels");
    }
    for (size_t i = 0; i < floats; i++) o->floats[i] = (float)((int)(i * 2654435761u % 255u) - 127) / 64.0f;
    return PI2_OK;
}

static void set_activations(work *w, const operands *o, pi2_activation_kind kind, uint32_t tokens) {
    w->tokens = tokens;
    w->out = o->out;
    pi2_activations_layout(&w->x, kind, tokens, w->columns, o->quantised);
    w->x.floats = o->floats;
    w->x.float_stride = COLUMNS;
    if (kind == PI2_ACTIVATION_F32) return;
    for (uint32_t t = 0; t < tokens; t++) {
        pi2_activations_quantize(&w->x, t, 0, w->columns, o->floats + (size_t)t * COLUMNS);
    }
}

static void measure_decode_of(pi2_measuring *m, work *w, const pi2_weight_format *format, pi2_reach *reach) {
    double spread;
    set_reach(w, reach);
    w->tile_count = w->bytes / w->tile_bytes;
    const double value = run_work(w, (double)(w->tile_count * w->tile_bytes), &spread);
    (void)pi2_profile_add(m->profile, PI2_MEASURED_DECODE, format->name, threads_of(w), reach->told_bytes, w->columns,
                          value, spread);
}

static pi2_status measure_decode(pi2_measuring *m, work *w, const operands *o, const pi2_weight_format *format) {
    w->chunk_tiles = CHUNK_BYTES / w->tile_bytes;
    if (w->chunk_tiles > 4) w->chunk_tiles = w->chunk_tiles / 4 * 4;
    if (w->chunk_tiles == 0) w->chunk_tiles = 1;
    set_activations(w, o, format->activation, 1);
    w->rounds.seconds = m->seconds / 2;
    measure_decode_of(m, w, format, &m->near);
    w->rounds.seconds = m->seconds;
    measure_decode_of(m, w, format, &m->far);
    return pi2_measuring_step(m);
}

/* Types by whole blocks are many: of each fewer points tell, and the others lie between them. */
static bool is_left_out(const pi2_weight_format *format, size_t point, size_t points) {
    return format->read_block && point % 2 == 0 && point + 1 < points;
}

static pi2_status measure_batches(pi2_measuring *m, work *w, const operands *o, const pi2_weight_format *format) {
    stay(w, w->batch_bytes);
    w->tile_count = w->bytes / w->tile_bytes;
    if (w->tile_count < BATCH_CHUNK_TILES) w->tile_count = BATCH_CHUNK_TILES;
    w->chunk_tiles = BATCH_CHUNK_TILES;
    for (size_t i = 0; i < BATCH_POINTS; i++) {
        if (is_left_out(format, i, BATCH_POINTS)) {
            PI2_TRY(pi2_measuring_step(m));
            continue;
        }
        const double operations = 2.0 * PI2_TILE_ROWS * (double)w->tile_count * w->columns * batch_points[i];
        double spread;
        set_activations(w, o, format->activation, batch_points[i]);
        const double value = run_work(w, operations, &spread);
        (void)pi2_profile_add(m->profile, PI2_MEASURED_BATCH, format->name, batch_points[i],
                              threads_of(w), w->columns, value, spread);
        PI2_TRY(pi2_measuring_step(m));
    }
    return PI2_OK;
}

static pi2_status measure_format(pi2_measuring *m, work *w, const operands *o, const pi2_weight_format *format,
                                 bool batches) {
    w->kernel = pi2_matmul_select(format->type, pi2_cpu_features());
    for (size_t i = 0; i < COLUMN_POINTS; i++) {
        w->columns = column_points[i].columns;
        if (w->columns % format->block_columns || is_left_out(format, i, COLUMN_POINTS)) {
            PI2_TRY(pi2_measuring_step(m));
            continue;
        }
        w->tile_bytes = pi2_tile_bytes(format, w->columns);
        PI2_TRY(measure_decode(m, w, o, format));
        if (batches && column_points[i].in_batches) PI2_TRY(measure_batches(m, w, o, format));
    }
    return PI2_OK;
}

/* ---- stages ---- */

/** Chunks as those of a small matrix, each of a few microseconds. */
typedef struct stage_work {
    pi2_stage_list list;
    unsigned chunk_count;
    uint32_t laps;
    work *kernel;
    bool meets; /* stage by stage; else each thread does its share at once */
} stage_work;

static void stage_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)chunk;
    work *w = ((stage_work *)argument)->kernel;
    run_chunk(w, member, member); /* the same tiles again: what is measured is not memory */
}

/* Long enough to be interrupted by other programs as a pass is. */
static void stage_member(void *argument, unsigned member, unsigned member_count) {
    stage_work *stages = argument;
    work *w = stages->kernel;
    const pi2_stage_parts parts = { .count = stages->chunk_count };
    (void)member_count;
    for (uint32_t lap = 0; lap < stages->laps; lap++) {
        for (uint32_t i = 0; i < STAGES; i++) {
            if (stages->meets) {
                pi2_stage_run(&stages->list, i, parts, stage_chunk, NULL, stages, member);
                continue;
            }
            for (int c = 0; c < STAGE_CHUNKS_PER_THREAD; c++) stage_chunk(stages, member, 0);
        }
        if (!stages->meets) continue;
        pi2_team_barrier(w->rounds.team, member);
        if (member == 0) pi2_stage_list_reset(&stages->list);
        pi2_team_barrier(w->rounds.team, member);
    }
}

/** Seconds of a stage. */
static double run_stages(stage_work *stages, pi2_team *team, bool meets) {
    stages->meets = meets;
    const uint64_t begin_ns = pi2_clock_ns();
    pi2_team_run(team, stage_member, stages);
    return (double)(pi2_clock_ns() - begin_ns) * 1e-9 / STAGES / stages->laps;
}

/* The same work with and without the meetings, in turn: the difference is what a stage takes beside
   its work, waiting for whoever ends last or was interrupted included. */
static void compare_stages(pi2_measuring *m, stage_work *stages, pi2_team *team) {
    pi2_samples with = {.count = 0}, without = {.count = 0};
    double spread, ignored;
    pi2_stage_list_reset(&stages->list);
    for (int i = 0; i < STAGE_ROUNDS; i++) {
        without.values[without.count++] = run_stages(stages, team, false);
        with.values[with.count++] = run_stages(stages, team, true);
    }
    const double together = pi2_samples_typical(&with, &spread);
    const double apart = pi2_samples_typical(&without, &ignored);
    const double value = together - apart;
    (void)pi2_profile_add(m->profile, PI2_MEASURED_STAGE, NULL, pi2_team_member_count(team), 0, 0,
                          value > LEAST_STAGE_SECONDS ? value : LEAST_STAGE_SECONDS, spread);
}

static pi2_status measure_stages(pi2_measuring *m, work *w, const operands *o) {
    const unsigned threads = threads_of(w);
    size_t formats;
    const pi2_weight_format *const *format = pi2_weight_formats(&formats);
    while ((*format)->type != PI2_Q8_0) format++;
    pi2_sleepers sleepers;
    stage_work stages = {.chunk_count = threads * STAGE_CHUNKS_PER_THREAD, .kernel = w,
                         .laps = m->options->quick ? 1 : STAGE_LAPS};
    w->kernel = pi2_matmul_select(PI2_Q8_0, pi2_cpu_features());
    w->columns = STAGE_COLUMNS;
    w->tile_bytes = pi2_tile_bytes(*format, w->columns);
    stay(w, (size_t)threads * STAGE_TILES * w->tile_bytes);
    w->tile_count = w->bytes / w->tile_bytes;
    w->chunk_tiles = STAGE_TILES;
    set_activations(w, o, (*format)->activation, 1);
    PI2_TRY(pi2_sleepers_init(&sleepers, false));
    if (posix_memalign((void **)&stages.list.stages, 64, STAGES * sizeof(pi2_stage)) != 0) {
        pi2_sleepers_destroy(&sleepers);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for measuring stages");
    }
    memset(stages.list.stages, 0, STAGES * sizeof(pi2_stage));
    stages.list.capacity = STAGES;
    stages.list.sleepers = &sleepers;
    stages.list.spin_us = pi2_team_spin_us(threads);
    compare_stages(m, &stages, w->rounds.team);
    free(stages.list.stages);
    pi2_sleepers_destroy(&sleepers);
    return PI2_OK;
}

/* ---- all of one number of threads ---- */

unsigned pi2_measure_compute_steps(bool batches) {
    size_t formats;
    (void)pi2_weight_formats(&formats);
    return (unsigned)formats * (unsigned)(COLUMN_POINTS + (batches ? BATCH_POINTS * BATCH_COLUMN_POINTS : 0)) + 1;
}

/** Chunks that each thread took while all computed: their cores' speeds, side by side. */
static void add_cores(pi2_measuring *m, const work *w, double operations) {
    double chunks = 0;
    const unsigned threads = threads_of(w);
    for (unsigned i = 0; i < threads; i++) chunks += w->rounds.busy[i];
    for (unsigned i = 0; i < threads && chunks > 0; i++) {
        const double value = operations * w->rounds.busy[i] / chunks;
        if (value > 0) (void)pi2_profile_add(m->profile, PI2_MEASURED_CORE, NULL, i, 0, 0, value, 0);
    }
}

static pi2_status measure_kernels(pi2_measuring *m, work *w, const operands *o, bool batches) {
    size_t count;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    for (size_t i = 0; i < count; i++) {
        PI2_TRY(measure_format(m, w, o, formats[i], batches));
        /* The last run was a batch with every processor at work. */
        if (formats[i]->type == PI2_Q8_0 && batches && threads_of(w) == m->most_threads) {
            add_cores(m, w, pi2_profile_value(m->profile, PI2_MEASURED_BATCH, formats[i]->name, BATCH_MOST,
                                              m->most_threads, COLUMNS, NULL));
        }
    }
    return PI2_OK;
}

pi2_status pi2_measure_compute(pi2_measuring *m, pi2_team *team, bool batches) {
    work *w = calloc(1, sizeof *w);
    operands o;
    if (!w) return pi2_fail(PI2_ERR_MEMORY, "no memory for measuring the kernels");
    w->measuring = m;
    w->rounds = (pi2_rounds){.team = team, .chunk = run_chunk, .next = go_on, .user = w, .seconds = m->seconds,
                             .least = m->options->quick ? 1 : LEAST_ROUNDS};
    /* Without vectors, or watched by a sanitizer, a quick measurement has to stay one. */
    w->batch_bytes = m->options->quick ? QUICK_BATCH_BYTES : BATCH_BYTES;
    pi2_status status = make_operands(&o, pi2_team_member_count(team));
    if (status == PI2_OK) {
        status = measure_stages(m, w, &o);
        if (status == PI2_OK) status = measure_kernels(m, w, &o, batches);
        free_operands(&o);
    }
    if (status == PI2_OK) {
        measure_memory(m, w);
        status = pi2_measuring_step(m);
    }
    free(w);
    return status;
}

/* ---- one thread: attention and vectors ---- */

static void measure_attention(pi2_measuring *m, uint8_t *head, const pi2_kv_layout *layout, float *floats) {
    static const uint32_t points[] = {1, 4, QUERIES_MOST};
    static const pi2_attention_scoring scoring = {.scale = 0.1f};
    const pi2_attention_kernels *kernels = pi2_attention_select(pi2_cpu_features());
    float *outs[QUERIES_MOST];
    const float *queries[QUERIES_MOST];
    uint32_t key_counts[QUERIES_MOST];
    for (uint32_t i = 0; i < QUERIES_MOST; i++) {
        queries[i] = floats + i * HEAD_DIMENSIONS;
        outs[i] = floats + (QUERIES_MOST + i) * HEAD_DIMENSIONS;
        key_counts[i] = KEYS;
    }
    float *scores = floats + (size_t)2 * QUERIES_MOST * HEAD_DIMENSIONS;
    for (uint32_t i = 0; i < KEYS; i++) kernels->store(head, layout, i, queries[i % QUERIES_MOST], queries[0]);
    for (size_t p = 0; p < sizeof points / sizeof points[0]; p++) {
        const double operations = 4.0 * HEAD_DIMENSIONS * KEYS * points[p];
        pi2_samples samples = {.count = 0};
        for (int i = 0; i < 40; i++) {
            const uint64_t begin_ns = pi2_clock_ns();
            kernels->attend(outs, queries, key_counts, NULL, points[p], head, layout, NULL, &scoring, scores, KEYS);
            samples.values[samples.count++] = (double)(pi2_clock_ns() - begin_ns) * 1e-9 + 1e-9;
        }
        double spread;
        const double seconds = pi2_samples_typical(&samples, &spread);
        (void)pi2_profile_add(m->profile, PI2_MEASURED_ATTENTION, NULL, points[p], 0, 0, operations / seconds,
                              spread);
    }
}

static void measure_vectors(pi2_measuring *m, float *floats, void *quantised) {
    const pi2_vector_kernels *kernels = pi2_vector_select(pi2_cpu_features());
    pi2_activations x;
    pi2_activations_layout(&x, PI2_ACTIVATION_Q8_32, 1, VECTOR_FLOATS, quantised);
    pi2_samples samples = {.count = 0};
    for (int i = 0; i < 40; i++) {
        const uint64_t begin_ns = pi2_clock_ns();
        kernels->add(floats, floats + VECTOR_FLOATS, VECTOR_FLOATS);
        kernels->rms_norm(floats + 2 * VECTOR_FLOATS, floats, floats + VECTOR_FLOATS, VECTOR_FLOATS, 1e-5f);
        pi2_activations_quantize(&x, 0, 0, VECTOR_FLOATS, floats + 2 * VECTOR_FLOATS);
        samples.values[samples.count++] = (double)(pi2_clock_ns() - begin_ns) * 1e-9 + 1e-9;
    }
    double spread;
    const double seconds = pi2_samples_typical(&samples, &spread);
    (void)pi2_profile_add(m->profile, PI2_MEASURED_VECTOR, NULL, 0, 0, 0, VECTOR_FLOATS / seconds, spread);
}

pi2_status pi2_measure_serial(pi2_measuring *m) {
    const pi2_kv_layout layout = {PI2_KV_F16, HEAD_DIMENSIONS, HEAD_DIMENSIONS, KEYS, false};
    const size_t floats = 2 * QUERIES_MOST * HEAD_DIMENSIONS + PI2_ATTENTION_GROUP * KEYS + 3 * VECTOR_FLOATS;
    void *head = NULL, *memory = NULL, *quantised = NULL;
    pi2_status status = PI2_OK;
    if (posix_memalign(&head, 64, pi2_kv_head_bytes(&layout)) != 0) head = NULL;
    if (posix_memalign(&memory, 64, floats * sizeof(float)) != 0) memory = NULL;
    if (posix_memalign(&quantised, 64, pi2_activations_bytes(PI2_ACTIVATION_Q8_32, 1, VECTOR_FLOATS)) != 0) {
        quantised = NULL;
    }
    if (head && memory && quantised) {
        float *values = memory;
        memset(head, 0, pi2_kv_head_bytes(&layout));
        for (size_t i = 0; i < floats; i++) values[i] = (float)((int)(i * 2654435761u % 255u) - 127) / 64.0f;
        measure_attention(m, head, &layout, values);
        measure_vectors(m, values, quantised);
        status = pi2_measuring_step(m);
    } else {
        status = pi2_fail(PI2_ERR_MEMORY, "no memory for measuring attention");
    }
    free(head);
    free(memory);
    free(quantised);
    return status;
}
