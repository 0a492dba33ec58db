/*
 * kernel_bench.c: speed of every matmul kernel that this CPU can run.
 *
 *   kernel_bench [FORMAT|all [ISA|best|all [TOKENS,... [SHAPE]]]]
 *
 * Prints, for each format, shape and token count, the best of several rounds:
 *   GOP/s   2 * rows * columns * tokens / second (a multiplication and an addition)
 *   GB/s    bytes of weights / second: each call streams its matrix once
 * and, for one token, the share of the speed at which a plain loop reads the same bytes.
 * Matrices of several copies defeat the last-level cache, as the layers of a model do.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cpu_features.h"
#include "kernels/matmul/matmul.h"
#include "support/random_weights.h"

enum { ROUNDS = 5, COLD_BYTES = 192 * 1024 * 1024 };

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

/* The reading loop that decoding is held against: 32 sums of 64-bit words, which vectorise. */
static uint64_t plain_read(const uint8_t *bytes, size_t count) {
    uint64_t sums[32] = {0};
    for (size_t i = 0; i + sizeof sums <= count; i += sizeof sums) {
        uint64_t words[32];
        memcpy(words, bytes + i, sizeof words);
        for (size_t w = 0; w < 32; w++) sums[w] += words[w];
    }
    uint64_t sum = 0;
    for (size_t w = 0; w < 32; w++) sum += sums[w];
    return sum;
}

static volatile uint64_t sink;

/* Seconds for one matrix. */
static double time_reading(const uint8_t *memory, size_t bytes, size_t copies) {
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        const double begin = seconds_now();
        for (size_t c = 0; c < copies; c++) sink += plain_read(memory + c * bytes, bytes);
        const double seconds = (seconds_now() - begin) / (double)copies;
        if (seconds < best) best = seconds;
    }
    return best;
}

/* Calls are of 64 tiles, about what an extent holds. */
static void multiply(const pi2_matmul_kernel *kernel, const pi2_weight_format *format,
                     const bench_shape *shape, const uint8_t *tiles, const pi2_activations *x,
                     float *out, size_t tokens) {
    const size_t tile_count = shape->rows / PI2_TILE_ROWS;
    const size_t tile_bytes = pi2_tile_bytes(format, shape->columns);
    for (size_t tile = 0; tile < tile_count; tile += 64) {
        const size_t count = tile_count - tile < 64 ? tile_count - tile : 64;
        kernel->run(out + tile * PI2_TILE_ROWS, shape->rows, tiles + tile * tile_bytes, count,
                    shape->columns, 0, x, 0, tokens, true);
    }
}

static void bench(const pi2_matmul_kernel *kernel, const bench_shape *shape, size_t tokens) {
    const pi2_weight_format *format = pi2_weight_format_find((uint32_t)kernel->format);
    if (shape->columns % format->block_columns) return;
    const size_t tile_count = shape->rows / PI2_TILE_ROWS;
    const size_t bytes = tile_count * pi2_tile_bytes(format, shape->columns);
    const size_t copies = tokens == 1 ? COLD_BYTES / bytes + 1 : 1;
    uint8_t *tiles = test_aligned_alloc(bytes * copies);
    void *memory =
        test_aligned_alloc(test_activations_bytes(format->activation, tokens, shape->columns));
    float *out = test_aligned_alloc(tokens * shape->rows * sizeof *out);
    test_random random = test_random_from_env("PI2_SEED");
    pi2_activations x;
    test_random_tiles(&random, format, tiles, tile_count, shape->columns);
    for (size_t c = 1; c < copies; c++) memcpy(tiles + c * bytes, tiles, bytes);
    test_random_activations(&random, &x, format->activation, tokens, shape->columns, memory);

    const double operations = 2.0 * (double)shape->rows * (double)shape->columns * (double)tokens;
    size_t repeats = (size_t)(2e9 / operations / (double)copies) + 1;
    if (kernel->cpu_required == PI2_CPU_NONE) repeats = repeats / 20 + 1;
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        const double begin = seconds_now();
        for (size_t i = 0; i < repeats; i++) {
            for (size_t c = 0; c < copies; c++) {
                multiply(kernel, format, shape, tiles + c * bytes, &x, out, tokens);
            }
        }
        const double seconds = (seconds_now() - begin) / (double)(repeats * copies);
        if (seconds < best) best = seconds;
    }
    printf("%-24s %-22s %6zu x %-5zu tokens %3zu  %8.1f GOP/s  %6.1f GB/s", kernel->name,
           shape->what, shape->rows, shape->columns, tokens, operations / best * 1e-9,
           (double)bytes / best * 1e-9);
    if (tokens == 1) {
        const double reading = time_reading(tiles, bytes, copies);
        printf("  (plain read %5.1f GB/s: %3.0f %%)", (double)bytes / reading * 1e-9,
               100.0 * reading / best);
    }
    printf("\n");
    fflush(stdout);
    free(tiles);
    free(memory);
    free(out);
}

static bool wanted(const pi2_matmul_kernel *kernel, const char *format, const char *isa) {
    const unsigned features = pi2_cpu_features();
    if (kernel->cpu_required & ~features) return false;
    const char *name = pi2_weight_format_find((uint32_t)kernel->format)->name;
    if (strcmp(format, "all") != 0 && strcmp(format, name) != 0) return false;
    if (strcmp(isa, "best") == 0) return pi2_matmul_select(kernel->format, features) == kernel;
    return strcmp(isa, "all") == 0 || strstr(kernel->name, isa) != NULL;
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
