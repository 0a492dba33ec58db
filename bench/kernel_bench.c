/*
 * kernel_bench.c: speed of every matmul kernel that this CPU can run.
 *
 *   kernel_bench [FORMAT|all [ISA|best|all [TOKENS,... [SHAPE]]]]
 *
 * Prints for each format, shape and token count, of the calls' times the lowest fifth:
 *   GOP/s   2 * rows * columns * tokens / second (a multiplication and an addition)
 *   GB/s    bytes of weights / second: each call streams its matrix once
 * and, for one token, the share of the speed at which a plain loop reads the same bytes.
 * Matrices of several copies defeat the last-level cache, as the layers of a model do.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/kernel_choice.h"
#include "kernels/matmul/matmul.h"
#include "support/random_weights.h"

enum { MAX_TIMINGS = 100000, COLD_BYTES = 128 * 1024 * 1024 };

typedef struct bench_shape {
    const char *what;
    size_t rows, columns;
} bench_shape;

static const bench_shape shapes[] = {
    {"Llama 2 7B attention", 4096, 4096}, {"TinyLlama gate", 5632, 2048},
    {"Down of a cluster", 2048, 256},     {"SmolLM2 attention", 576, 576},
    {"SmolLM2 gate", 1536, 576},          {"SmolLM2 head", 49152, 576},
};

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Times of single calls; other programs of the machine disturb some of them. */
typedef struct timings {
    double seconds[MAX_TIMINGS];
    size_t count;
} timings;

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The time that one call in five stays below. */
static double quiet_time(timings *t) {
    qsort(t->seconds, t->count, sizeof t->seconds[0], compare_doubles);
    return t->seconds[t->count / 5];
}

static volatile uint64_t sink;
static timings times;

typedef struct bench_case {
    const pi2_matmul_kernel *kernel;
    const pi2_weight_format *format;
    const bench_shape *shape;
    size_t tokens, tile_count, tile_bytes;
    uint8_t *tiles; /* [copies][tile_count] */
    size_t copies;
    pi2_activations x;
    float *out;
} bench_case;

/* One call: `count` tiles, or without a kernel the reading of their bytes. */
static void time_call(const bench_case *c, size_t copy, size_t tile, size_t count, bool read) {
    const uint8_t *tiles = c->tiles + (copy * c->tile_count + tile) * c->tile_bytes;
    const double begin = seconds_now();
    if (read) {
        sink += pi2_plain_read(tiles, count * c->tile_bytes);
    } else {
        c->kernel->run(c->out + tile * PI2_TILE_ROWS, c->shape->rows, tiles, count,
                       c->shape->columns, 0, &c->x, 0, c->tokens, true);
    }
    if (times.count < MAX_TIMINGS) times.seconds[times.count++] = seconds_now() - begin;
}

/* Seconds of one call of `count` tiles. */
static double time_calls(const bench_case *c, size_t count, bool read) {
    const double begin = seconds_now();
    times.count = 0;
    while (times.count < 100 || seconds_now() - begin < 0.15) {
        for (size_t copy = 0; copy < c->copies; copy++) {
            for (size_t tile = 0; tile + count <= c->tile_count; tile += count) {
                time_call(c, copy, tile, count, read);
            }
        }
        if (times.count == MAX_TIMINGS) break;
    }
    return quiet_time(&times);
}

static void bench(const pi2_matmul_kernel *kernel, const bench_shape *shape, size_t tokens) {
    const pi2_weight_format *format = pi2_weight_format_find((uint32_t)kernel->format);
    if (shape->columns % format->block_columns) return;
    bench_case c = {.kernel = kernel, .format = format, .shape = shape, .tokens = tokens};
    c.tile_count = shape->rows / PI2_TILE_ROWS;
    c.tile_bytes = pi2_tile_bytes(format, shape->columns);
    const size_t bytes = c.tile_count * c.tile_bytes;
    c.copies = tokens == 1 ? COLD_BYTES / bytes + 1 : 1;
    c.tiles = test_aligned_alloc(bytes * c.copies);
    void *memory =
        test_aligned_alloc(test_activations_bytes(format->activation, tokens, shape->columns));
    c.out = test_aligned_alloc(tokens * shape->rows * sizeof(float));
    test_random random = test_random_from_env("PI2_SEED");
    test_random_tiles(&random, format, c.tiles, c.tile_count, shape->columns);
    for (size_t copy = 1; copy < c.copies; copy++) memcpy(c.tiles + copy * bytes, c.tiles, bytes);
    test_random_activations(&random, &c.x, format->activation, tokens, shape->columns, memory);

    /* About the megabyte that an extent has, and no more than the matrix. */
    size_t count = 1024 * 1024 / c.tile_bytes + 1;
    if (count > c.tile_count) count = c.tile_count;
    const double weights = (double)(count * PI2_TILE_ROWS * shape->columns);
    const double call_bytes = (double)(count * c.tile_bytes);
    const double seconds = time_calls(&c, count, false);
    printf("%-24s %-20s %6zu x %-5zu tokens %3zu  %7.1f GOP/s  %6.1f GB/s", kernel->name,
           shape->what, shape->rows, shape->columns, tokens,
           2.0 * weights * (double)tokens / seconds * 1e-9, call_bytes / seconds * 1e-9);
    if (tokens == 1) {
        const double reading = time_calls(&c, count, true);
        printf("  (plain read %5.1f GB/s: %3.0f %%)", call_bytes / reading * 1e-9,
               100.0 * reading / seconds);
    }
    printf("\n");
    fflush(stdout);
    free(c.tiles);
    free(memory);
    free(c.out);
}

static bool wanted(const pi2_matmul_kernel *kernel, const char *format, const char *isa) {
    const bool best = pi2_matmul_select(kernel->format, pi2_cpu_features()) == kernel;
    return kernel_is_wanted(kernel->name, kernel->format, kernel->cpu_required, best, format, isa);
}

int main(int argument_count, char **arguments) {
    const char *format = argument_count > 1 ? arguments[1] : "all";
    const char *isa = argument_count > 2 ? arguments[2] : "best";
    const char *token_list = argument_count > 3 ? arguments[3] : "1,2,4,8,16,64,256";
    const char *only_shape = argument_count > 4 ? arguments[4] : "";
    for (size_t i = 0; i < pi2_matmul_kernel_count; i++) {
        if (!wanted(&pi2_matmul_kernels[i], format, isa)) continue;
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
            if (!strstr(shapes[s].what, only_shape)) continue;
            for (const char *next = token_list; *next;) {
                char *end;
                const size_t tokens = strtoul(next, &end, 10);
                if (end == next || tokens == 0) break;
                bench(&pi2_matmul_kernels[i], &shapes[s], tokens);
                next = *end == ',' ? end + 1 : end;
            }
        }
    }
    return 0;
}
