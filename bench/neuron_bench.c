/*
 * neuron_bench.c: speed of the neuron kernels on weights that lie in memory, not in a cache.
 *
 *   neuron_bench [FORMAT|all [ISA|best|all [THREADS,... [SECONDS]]]]
 *
 * Layers of 14336 neurons (floats: 2048) 4096 wide, together COLD_BYTES and more, are walked one after
 * the other; of each a random 3, 10, 50 or 100 % of the neurons is active. Prints GB/s of the active
 * neurons' bytes, scales included (of Down: the scale blocks of blocks with an active neuron), and
 * the share of the speed at which a plain loop reads all bytes with as many threads. Seconds are those
 * that the threads computed, so that other programs on the cores disturb less.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/pages.h"
#include "bench/kernel_choice.h"
#include "kernels/neuron/neuron.h"
#include "support/random_weights.h"

enum { WIDTH = 4096, MOST_THREADS = 64, COLD_BYTES = 640 * 1024 * 1024 };

typedef struct layer {
    void *pages; /* huge ones, as the engine's weights have */
    size_t page_bytes;
    uint8_t *up_values, *up_scales, *down_values, *down_scales;
    const uint8_t **row_values, **row_scales, **column_values; /* of active neurons */
    int8_t *activations;
    uint8_t *places;
    pi2_neuron_block *blocks;
    pi2_neuron_columns columns;
    size_t active;
} layer;

typedef struct bench {
    const pi2_neuron_kernel *kernel;
    const pi2_weight_format *format;
    size_t neurons, layer_count;
    size_t row_value_bytes, row_scale_bytes, column_bytes, scale_block_bytes;
    layer *layers;
    pi2_activations x;
    float *rows_out, *columns_out;
} bench;

typedef enum work { ROWS, COLUMNS, READ } work;

typedef struct job {
    bench *b;
    work what;
    size_t index, threads;
    double seconds; /* how long to go on */
    double bytes, took;
} job;

static volatile uint64_t sink;

static void choose(bench *b, layer *l, test_random *random, unsigned percent) {
    const size_t block = b->format->block_columns;
    size_t active = 0;
    l->columns = (pi2_neuron_columns){.rows = WIDTH, .blocks = l->blocks, .values = l->column_values,
                                      .activations = l->activations, .places = l->places};
    for (size_t first = 0; first < b->neurons; first += block) {
        pi2_neuron_block *to = &l->blocks[l->columns.block_count];
        *to = (pi2_neuron_block){l->down_scales + first / block * b->scale_block_bytes, 0.01f, (uint32_t)active, 0};
        for (size_t i = first; i < first + block; i++) {
            if (test_random_u32(random) % 100 >= percent) continue;
            l->row_values[active] = l->up_values + i * b->row_value_bytes;
            l->row_scales[active] = l->up_scales + i * b->row_scale_bytes;
            l->column_values[active] = l->down_values + i * b->column_bytes;
            l->activations[active] = (int8_t)(test_random_u32(random) % 127 + 1);
            l->places[active++] = (uint8_t)(i - first);
            to->count++;
        }
        if (to->count) l->columns.block_count++;
    }
    l->active = active;
}

static double run_rows(const bench *b, const layer *l, size_t index, size_t threads) {
    const size_t begin = l->active * index / threads, end = l->active * (index + 1) / threads;
    b->kernel->rows(b->rows_out + begin, end - begin, l->row_values + begin, l->row_scales + begin, WIDTH, &b->x, 0);
    return (double)((end - begin) * (b->row_value_bytes + b->row_scale_bytes));
}

static double run_columns(const bench *b, const layer *l, size_t index, size_t threads) {
    const size_t begin = WIDTH * index / threads / 128 * 128, end = WIDTH * (index + 1) / threads / 128 * 128;
    b->kernel->columns(b->columns_out, begin, end - begin, &l->columns, true);
    const size_t bytes = l->active * b->column_bytes + l->columns.block_count * b->scale_block_bytes;
    return (double)bytes * (double)(end - begin) / WIDTH;
}

static double run_read(const bench *b, const layer *l, size_t index, size_t threads) {
    const size_t bytes = b->neurons * b->row_value_bytes, part = bytes / threads / 64 * 64;
    sink += pi2_plain_read(l->up_values + index * part, part);
    return (double)part;
}

static double computed_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void *run_job(void *argument) {
    job *j = argument;
    const double begin = computed_seconds();
    do {
        for (size_t i = 0; i < j->b->layer_count; i++) {
            const layer *l = &j->b->layers[i];
            if (j->what == ROWS) j->bytes += run_rows(j->b, l, j->index, j->threads);
            if (j->what == COLUMNS) j->bytes += run_columns(j->b, l, j->index, j->threads);
            if (j->what == READ) j->bytes += run_read(j->b, l, j->index, j->threads);
        }
        j->took = computed_seconds() - begin;
    } while (j->took < j->seconds);
    return NULL;
}

/* Bytes a second of all threads, each walking the layers at its own pace. */
static double speed(bench *b, work what, size_t threads, double seconds) {
    pthread_t handles[MOST_THREADS];
    job jobs[MOST_THREADS];
    double sum = 0.0;
    for (size_t t = 0; t < threads; t++) {
        jobs[t] = (job){.b = b, .what = what, .index = t, .threads = threads, .seconds = seconds};
        if (t && pthread_create(&handles[t], NULL, run_job, &jobs[t]) != 0) exit(1);
    }
    run_job(&jobs[0]);
    for (size_t t = 1; t < threads; t++) pthread_join(handles[t], NULL);
    for (size_t t = 0; t < threads; t++) sum += jobs[t].bytes / jobs[t].took;
    return sum;
}

static void make_layers(bench *b) {
    const size_t blocks = b->neurons / b->format->block_columns;
    const size_t bytes = b->neurons * (b->row_value_bytes + b->row_scale_bytes);
    b->layer_count = COLD_BYTES / bytes + 1;
    b->layers = calloc(b->layer_count, sizeof *b->layers);
    for (size_t i = 0; i < b->layer_count; i++) {
        layer *l = &b->layers[i];
        l->page_bytes = bytes + b->neurons * b->column_bytes + blocks * b->scale_block_bytes + 64;
        if (pi2_pages_reserve(l->page_bytes, true, "weights", &l->pages) != PI2_OK) {
            fprintf(stderr, "%s\n", pi2_error_text());
            exit(1);
        }
        memset(l->pages, 0x11, l->page_bytes); /* scales are small finite halves; values need no meaning */
        l->down_scales = l->pages;
        l->down_values = l->down_scales + blocks * b->scale_block_bytes;
        l->up_values = l->down_values + b->neurons * b->column_bytes;
        l->up_scales = l->up_values + b->neurons * b->row_value_bytes;
        l->row_values = calloc(b->neurons, sizeof *l->row_values);
        l->row_scales = calloc(b->neurons, sizeof *l->row_scales);
        l->column_values = calloc(b->neurons, sizeof *l->column_values);
        l->activations = calloc(b->neurons, 1);
        l->places = calloc(b->neurons, 1);
        l->blocks = calloc(blocks, sizeof *l->blocks);
    }
}

static void free_layers(bench *b) {
    for (size_t i = 0; i < b->layer_count; i++) {
        layer *l = &b->layers[i];
        void *all[] = {l->row_values, l->row_scales, l->column_values, l->activations, l->places, l->blocks};
        pi2_pages_release(l->pages, l->page_bytes);
        for (size_t p = 0; p < sizeof all / sizeof all[0]; p++) free(all[p]);
    }
    free(b->layers);
}

static void run(const pi2_neuron_kernel *kernel, const char *thread_list, double seconds) {
    const pi2_weight_format *format = pi2_weight_format_find((uint32_t)kernel->format);
    test_random random = test_random_from_env("PI2_SEED");
    bench b = {.kernel = kernel, .format = format, .neurons = format->block_columns == 1 ? 2048 : 14336};
    b.row_value_bytes = pi2_neuron_row_value_bytes(format, WIDTH);
    b.row_scale_bytes = pi2_neuron_row_scale_bytes(format, WIDTH);
    b.column_bytes = pi2_neuron_column_value_bytes(format, WIDTH);
    b.scale_block_bytes = pi2_neuron_scale_block_bytes(format, WIDTH);
    make_layers(&b);
    void *memory = test_aligned_alloc(test_activations_bytes(format->activation, 1, WIDTH));
    test_random_activations(&random, &b.x, format->activation, 1, WIDTH, memory);
    b.rows_out = test_aligned_alloc(b.neurons * sizeof(float));
    b.columns_out = test_aligned_alloc(WIDTH * sizeof(float));
    for (const char *next = thread_list; *next;) {
        char *end;
        const size_t threads = strtoul(next, &end, 10);
        if (end == next || threads == 0 || threads > MOST_THREADS) break;
        next = *end == ',' ? end + 1 : end;
        static const unsigned percents[] = {3, 10, 50, 100};
        for (size_t p = 0; p < sizeof percents / sizeof percents[0]; p++) {
            for (size_t i = 0; i < b.layer_count; i++) choose(&b, &b.layers[i], &random, percents[p]);
            const double reading = speed(&b, READ, threads, seconds);
            const double rows = speed(&b, ROWS, threads, seconds), columns = speed(&b, COLUMNS, threads, seconds);
            printf("%-12s threads %zu  active %3u %%  rows %6.1f GB/s (%3.0f %%)  columns %6.1f GB/s (%3.0f %%)  "
                   "plain read %5.1f GB/s\n", kernel->name, threads, percents[p], rows * 1e-9, 100.0 * rows / reading,
                   columns * 1e-9, 100.0 * columns / reading, reading * 1e-9);
            fflush(stdout);
        }
    }
    free_layers(&b);
    free(memory);
    free(b.rows_out);
    free(b.columns_out);
}

static bool wanted(const pi2_neuron_kernel *kernel, const char *format, const char *isa) {
    const bool best = pi2_neuron_select(kernel->format, pi2_cpu_features()) == kernel;
    return kernel_is_wanted(kernel->name, kernel->format, kernel->cpu_required, best, format, isa);
}

int main(int argument_count, char **arguments) {
    const char *format = argument_count > 1 ? arguments[1] : "all";
    const char *isa = argument_count > 2 ? arguments[2] : "best";
    const char *threads = argument_count > 3 ? arguments[3] : "1,2";
    const double seconds = argument_count > 4 ? strtod(arguments[4], NULL) : 0.5;
    for (size_t i = 0; i < pi2_neuron_kernel_count; i++) {
        if (wanted(&pi2_neuron_kernels[i], format, isa)) run(&pi2_neuron_kernels[i], threads, seconds);
    }
    return 0;
}
