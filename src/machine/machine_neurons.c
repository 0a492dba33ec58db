/*
 * machine_neurons.c: single neurons, measured as a pass computes them: rows of Up that lie apart in memory and are
 * computed some at a time, columns of Down of which every thread computes a part of the rows, from bundles that lie in
 * the order of heat, which is any other than the model's. And the rows of predictors, one behind the other.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cpu_features.h"
#include "base/fail.h"
#include "kernels/neuron/neuron.h"
#include "kernels/small_rows/small_rows.h"
#include "machine/machine_rounds.h"

enum {
    NEURONS = 8192,                    /* of a layer, in one round */
    ROWS_OF_ROUND = 1024, QUICK_ROWS = 64, ROWS_OF_CALL = 32, SCALE_GAP = 10, /* one of so many fires */
    COLUMN_CHUNKS_PER_THREAD = 2, GROUP = 32,
    WIDE = 4096, NARROW = 1024,        /* columns of a row, rows of a column */
    PREDICTOR_ROWS = 2048, QUICK_PREDICTOR_ROWS = 128, PREDICTOR_CHUNK = 128, SHORT_ROW = 256, QUICK_NEURONS = 256
};

static const uint32_t widths[] = {NARROW, WIDE};
static const uint32_t shares[] = {8, 32, 128}; /* of 256 neurons, those that give something */
static const struct { const char *name; unsigned bits; uint32_t columns; } predictors[] = {
    {"2-bit", 2, WIDE}, {"3-bit", 3, WIDE}, {"int8", 8, SHORT_ROW}, {"int8", 8, WIDE}};
enum { WIDTHS = sizeof widths / sizeof widths[0], SHARES = sizeof shares / sizeof shares[0],
       PREDICTORS = sizeof predictors / sizeof predictors[0] };

/** Neurons of a layer in their places. */
typedef struct work {
    pi2_rounds rounds;
    pi2_measuring *measuring;
    const pi2_weight_format *format;
    const pi2_neuron_kernel *kernel;
    uint32_t width;                    /* of rows in columns, of columns in rows */
    uint32_t neurons, rows;            /* of a round */
    uint64_t random;
    const uint8_t *values[NEURONS], *scales[NEURONS];
    pi2_activations x;
    float *floats, *out;               /* [WIDE]; [NEURONS] */
    void *quantised;
    pi2_neuron_columns columns;
    pi2_neuron_block blocks[NEURONS];
    int8_t activations[NEURONS];
    uint8_t places[NEURONS];
    /* of a predictor */
    const pi2_small_kernel *small;
    unsigned bits;
    const uint8_t *memory;
    int16_t input[WIDE];
} work;

static uint64_t next_random(work *w) {
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return w->random >> 33;
}

static void free_work(work *w) {
    if (!w) return;
    free(w->floats);
    free(w->out);
    free(w->quantised);
    free(w);
}

static work *make_work(pi2_measuring *m, pi2_team *team) {
    work *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->measuring = m;
    w->rounds = (pi2_rounds){.team = team, .user = w, .seconds = m->seconds / 2, .least = m->options->quick ? 1 : 3};
    w->neurons = m->options->quick ? QUICK_NEURONS : NEURONS;
    if (posix_memalign((void **)&w->floats, 64, WIDE * sizeof(float)) != 0) w->floats = NULL;
    if (posix_memalign((void **)&w->out, 64, NEURONS * sizeof(float)) != 0) w->out = NULL;
    if (posix_memalign(&w->quantised, 64, pi2_activations_bytes(PI2_ACTIVATION_Q8_32, 1, WIDE)) != 0) {
        w->quantised = NULL;
    }
    if (!w->floats || !w->out || !w->quantised) {
        free_work(w);
        return NULL;
    }
    for (uint32_t i = 0; i < WIDE; i++) {
        w->floats[i] = (float)((int)(i * 2654435761u % 255u) - 127) / 64.0f;
        w->input[i] = (int16_t)(i * 2654435761u % 4095u);
    }
    return w;
}

/* A bundle's part of so many bytes, anywhere in memory that no cache holds. */
static const uint8_t *any_bundle(work *w, size_t bytes) {
    const pi2_reach *far = &w->measuring->far;
    return w->measuring->memory + far->begin + next_random(w) % (far->bytes / bytes) * bytes;
}

/* ---- rows ---- */

static void place_rows(void *user) {
    work *w = user;
    const size_t value_bytes = pi2_neuron_row_value_bytes(w->format, w->width);
    const size_t scale_bytes = pi2_neuron_row_scale_bytes(w->format, w->width);
    const uint8_t *scales = pi2_measuring_place(w->measuring, &w->measuring->far, scale_bytes * SCALE_GAP * w->rows);
    for (uint32_t i = 0; i < w->rows; i++) {
        w->values[i] = any_bundle(w, value_bytes);
        w->scales[i] = scales + (size_t)i * SCALE_GAP * scale_bytes;
    }
}

static void rows_chunk(void *user, unsigned member, size_t chunk) {
    work *w = user;
    (void)member;
    const size_t begin = chunk * ROWS_OF_CALL, count = w->rows - begin < ROWS_OF_CALL ? w->rows - begin : ROWS_OF_CALL;
    w->kernel->rows(w->out + begin, count, w->values + begin, w->scales + begin, w->width, &w->x, 0);
}

static void measure_rows(work *w) {
    pi2_measuring *m = w->measuring;
    double spread;
    pi2_activations_layout(&w->x, w->format->activation, 1, w->width, w->quantised);
    w->x.floats = w->floats;
    w->x.float_stride = WIDE;
    pi2_activations_quantize(&w->x, 0, 0, w->width, w->floats);
    w->rounds.chunk = rows_chunk;
    w->rounds.next = place_rows;
    w->rows = m->options->quick ? QUICK_ROWS : ROWS_OF_ROUND;
    w->rounds.chunk_count = (w->rows + ROWS_OF_CALL - 1) / ROWS_OF_CALL;
    place_rows(w);
    const double amount = (double)pi2_row_bytes(w->format, w->width) * w->rows;
    const double value = pi2_rounds_run(&w->rounds, amount, &spread);
    (void)pi2_profile_add(m->profile, PI2_MEASURED_ROWS, w->format->name, pi2_team_member_count(w->rounds.team), 0,
                          w->width, value, spread);
}

/* ---- columns ---- */

/* Which neurons give something is the same in every round, where they lie is not. */
static void place_columns(void *user) {
    work *w = user;
    const size_t value_bytes = pi2_neuron_column_value_bytes(w->format, w->width);
    const size_t scale_bytes = pi2_neuron_scale_block_bytes(w->format, w->width);
    const size_t blocks = w->neurons / w->format->block_columns;
    const uint8_t *scales = pi2_measuring_place(w->measuring, &w->measuring->far, scale_bytes * blocks);
    for (uint32_t i = 0; i < w->rows; i++) w->values[i] = any_bundle(w, value_bytes);
    for (size_t b = 0; b < w->columns.block_count; b++) w->blocks[b].scales = scales + b * scale_bytes;
}

/* Any `share` of 256, each by itself: some blocks have none, and are left out. */
static void choose_columns(work *w, uint32_t share) {
    const uint32_t width = w->format->block_columns;
    uint32_t rows = 0, blocks = 0;
    for (uint32_t begin = 0; begin < w->neurons; begin += width) {
        const uint32_t first = rows;
        for (uint32_t i = 0; i < width; i++) {
            const bool is_last = begin + i + 1 == w->neurons && rows == 0; /* one at least */
            if (next_random(w) % PI2_PROFILE_SHARES >= share && !is_last) continue;
            w->places[rows] = (uint8_t)i;
            w->activations[rows] = (int8_t)(rows % 127 + 1);
            rows++;
        }
        if (rows == first) continue;
        w->blocks[blocks++] = (pi2_neuron_block){.scale = 0.5f, .first = first, .count = rows - first};
    }
    w->rows = rows;
    w->columns = (pi2_neuron_columns){.rows = w->width, .block_count = blocks, .blocks = w->blocks,
                                      .values = w->values, .activations = w->activations, .places = w->places};
}

static uint32_t column_rows_of_chunk(const work *w) {
    const uint32_t chunks = pi2_team_member_count(w->rounds.team) * COLUMN_CHUNKS_PER_THREAD;
    return ((w->width + chunks - 1) / chunks + GROUP - 1) / GROUP * GROUP;
}

static void columns_chunk(void *user, unsigned member, size_t chunk) {
    work *w = user;
    (void)member;
    const uint32_t rows = column_rows_of_chunk(w), begin = (uint32_t)chunk * rows;
    w->kernel->columns(w->out, begin, w->width - begin < rows ? w->width - begin : rows, &w->columns, true);
}

static void measure_columns(work *w, uint32_t share) {
    pi2_measuring *m = w->measuring;
    double spread;
    choose_columns(w, share);
    place_columns(w);
    w->rounds.chunk = columns_chunk;
    w->rounds.next = place_columns;
    w->rounds.chunk_count = (w->width + column_rows_of_chunk(w) - 1) / column_rows_of_chunk(w);
    const double column_bytes = (double)pi2_row_bytes(w->format, PI2_PROFILE_SHARES) / PI2_PROFILE_SHARES * w->width;
    const double amount = column_bytes * w->rows;
    const double value = pi2_rounds_run(&w->rounds, amount, &spread);
    (void)pi2_profile_add(m->profile, PI2_MEASURED_COLUMNS, w->format->name, pi2_team_member_count(w->rounds.team),
                          share, w->width, value, spread);
}

/* ---- predictors ---- */

static size_t predictor_row_bytes(const work *w) {
    return w->bits == 8 ? w->width : w->width / PI2_SMALL_BLOCK * (pi2_small_block_bytes(w->bits) + 1);
}

static void place_predictor(void *user) {
    work *w = user;
    w->memory = pi2_measuring_place(w->measuring, &w->measuring->far, predictor_row_bytes(w) * w->rows);
}

static void predictor_chunk(void *user, unsigned member, size_t chunk) {
    work *w = user;
    (void)member;
    const size_t begin = chunk * PREDICTOR_CHUNK, left = w->rows - begin;
    const size_t end = begin + (left < PREDICTOR_CHUNK ? left : PREDICTOR_CHUNK);
    if (w->bits == 8) {
        w->small->int8(w->out + begin, (const int8_t *)w->memory + begin * w->width, NULL, end - begin, w->input,
                       w->width);
        return;
    }
    const size_t blocks = w->width / PI2_SMALL_BLOCK, row_bytes = blocks * pi2_small_block_bytes(w->bits);
    for (size_t row = begin; row < end; row++) {
        const uint8_t *scales = w->memory + w->rows * row_bytes + row * blocks;
        w->out[row] = (float)w->small->low_bit(w->memory + row * row_bytes, scales, w->bits, w->input, w->width);
    }
}

static void measure_predictor(work *w, const char *name) {
    pi2_measuring *m = w->measuring;
    double spread;
    w->rows = m->options->quick ? QUICK_PREDICTOR_ROWS : PREDICTOR_ROWS;
    w->rounds.chunk = predictor_chunk;
    w->rounds.next = place_predictor;
    w->rounds.chunk_count = (w->rows + PREDICTOR_CHUNK - 1) / PREDICTOR_CHUNK;
    place_predictor(w);
    const double value = pi2_rounds_run(&w->rounds, (double)(predictor_row_bytes(w) * w->rows), &spread);
    (void)pi2_profile_add(m->profile, PI2_MEASURED_PREDICTOR, name, pi2_team_member_count(w->rounds.team), 0, w->width,
                          value, spread);
}

/* ---- all of one number of threads ---- */

static size_t format_count(void) {
    size_t all, count = 0;
    const pi2_weight_format *const *formats = pi2_weight_formats(&all);
    for (size_t i = 0; i < all; i++) count += pi2_has_columns(formats[i]);
    return count;
}

unsigned pi2_measure_neuron_steps(void) {
    return (unsigned)(format_count() * WIDTHS + PREDICTORS);
}

static pi2_status measure_format(work *w, const pi2_weight_format *format) {
    w->format = format;
    w->kernel = pi2_neuron_select(format->type, pi2_cpu_features());
    for (size_t i = 0; i < WIDTHS; i++) {
        w->width = widths[i];
        measure_rows(w);
        for (size_t s = 0; s < SHARES; s++) {
            /* How a share tells depends little on the width. */
            if (w->width == WIDE || shares[s] == 32) measure_columns(w, shares[s]);
        }
        PI2_TRY(pi2_measuring_step(w->measuring));
    }
    return PI2_OK;
}

static pi2_status measure_all(work *w) {
    size_t count;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    for (size_t i = 0; i < count; i++) {
        if (pi2_has_columns(formats[i])) PI2_TRY(measure_format(w, formats[i]));
    }
    w->small = pi2_small_select(pi2_cpu_features());
    for (size_t i = 0; i < PREDICTORS; i++) {
        w->bits = predictors[i].bits;
        w->width = predictors[i].columns;
        measure_predictor(w, predictors[i].name);
        PI2_TRY(pi2_measuring_step(w->measuring));
    }
    return PI2_OK;
}

pi2_status pi2_measure_neurons(pi2_measuring *m, pi2_team *team) {
    work *w = make_work(m, team);
    if (!w) return pi2_fail(PI2_ERR_MEMORY, "no memory for measuring single neurons");
    const pi2_status status = measure_all(w);
    free_work(w);
    return status;
}
