/* machine_probe.c THREADS: memory bandwidth (GB/s read) and int8 peak (GOP/s) of this machine.
 *
 * bench/compare compiles it with -march=native and quotes its one line of JSON beside every
 * table, so that each speed can be read as a share of what the machine can give.
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

enum { MAX_THREADS = 64, ROUNDS = 8, ACCUMULATORS = 12 };
static const size_t buffer_bytes = (size_t)256 << 20; /* far beyond any last-level cache */
static const long int8_steps = 20000000;

static double seconds_now(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct worker {
    pthread_t thread;
    pthread_barrier_t *barrier;
    unsigned char *buffer;
    double seconds;  /* of the fastest round */
    uint64_t result; /* kept, so that the work is not optimised away */
} worker;

/* Four streams at once, some KB ahead: with one a core has fewer reads in flight, and gets up to a sixth less. */
static uint64_t read_buffer(const unsigned char *buffer) {
    enum { STREAMS = 4, AHEAD = 4096 };
    const size_t part = buffer_bytes / STREAMS;
#if defined(__AVX512F__)
    __m512i sum[STREAMS] = {{0}};
    for (size_t i = 0; i < part; i += 64) {
        for (int k = 0; k < STREAMS; k++) {
            __builtin_prefetch(buffer + (size_t)k * part + i + AHEAD);
            sum[k] = _mm512_xor_si512(sum[k], _mm512_load_si512(buffer + (size_t)k * part + i));
        }
    }
    sum[0] = _mm512_xor_si512(_mm512_xor_si512(sum[0], sum[1]), _mm512_xor_si512(sum[2], sum[3]));
    return (uint64_t)_mm512_reduce_add_epi64(sum[0]);
#else
    uint64_t sum[8] = {0};
    for (size_t i = 0; i < part; i += 64) {
        for (int s = 0; s < STREAMS; s++) {
            uint64_t values[8];
            __builtin_prefetch(buffer + (size_t)s * part + i + AHEAD);
            memcpy(values, buffer + (size_t)s * part + i, sizeof values);
            for (int k = 0; k < 8; k++) sum[k] ^= values[k];
        }
    }
    return sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
#endif
}

static void *bandwidth_worker(void *argument) {
    worker *w = argument;
    memset(w->buffer, 1, buffer_bytes);
    w->seconds = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        (void)pthread_barrier_wait(w->barrier);
        const double begin = seconds_now();
        w->result += read_buffer(w->buffer);
        (void)pthread_barrier_wait(w->barrier); /* the slowest thread ends the round */
        const double seconds = seconds_now() - begin;
        if (seconds < w->seconds) w->seconds = seconds;
    }
    return NULL;
}

/* Multiply-adds of one step: independent products, so that only throughput counts. */
#if defined(__AVX512VNNI__)
static const double operations_per_step = ACCUMULATORS * 64 * 2.0;
static uint64_t int8_products(void) {
    __m512i sum[ACCUMULATORS];
    for (int k = 0; k < ACCUMULATORS; k++) sum[k] = _mm512_set1_epi32(k);
    __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
    for (long step = 0; step < int8_steps; step++) {
        for (int k = 0; k < ACCUMULATORS; k++) sum[k] = _mm512_dpbusd_epi32(sum[k], a, b);
        __asm__ volatile("" : "+v"(a), "+v"(b));
    }
    for (int k = 1; k < ACCUMULATORS; k++) sum[0] = _mm512_add_epi32(sum[0], sum[k]);
    return (uint64_t)_mm512_reduce_add_epi32(sum[0]);
}
#elif defined(__AVX2__)
static const double operations_per_step = ACCUMULATORS * 32 * 2.0;
static uint64_t int8_products(void) {
    __m256i sum[ACCUMULATORS];
    for (int k = 0; k < ACCUMULATORS; k++) sum[k] = _mm256_set1_epi32(k);
    __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5);
    for (long step = 0; step < int8_steps; step++) {
        for (int k = 0; k < ACCUMULATORS; k++) {
#if defined(__AVXVNNI__)
            sum[k] = _mm256_dpbusd_avx_epi32(sum[k], a, b);
#else
            const __m256i ones = _mm256_set1_epi16(1);
            const __m256i products = _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones);
            sum[k] = _mm256_add_epi32(sum[k], products);
#endif
            __asm__ volatile("" : "+x"(a), "+x"(b));
        }
    }
    for (int k = 1; k < ACCUMULATORS; k++) sum[0] = _mm256_add_epi32(sum[0], sum[k]);
    return (uint64_t)_mm256_extract_epi32(sum[0], 0);
}
#else
static const double operations_per_step = 0; /* not measured on this instruction set */
static uint64_t int8_products(void) { return 0; }
#endif

static void *int8_worker(void *argument) {
    worker *w = argument;
    (void)pthread_barrier_wait(w->barrier);
    const double begin = seconds_now();
    w->result += int8_products();
    (void)pthread_barrier_wait(w->barrier);
    w->seconds = seconds_now() - begin;
    return NULL;
}

/* Runs `work` on `threads` threads and returns the seconds of the slowest, or -1. */
static double run_threads(worker *workers, int threads, void *(*work)(void *)) {
    pthread_barrier_t barrier;
    if (pthread_barrier_init(&barrier, NULL, (unsigned)threads) != 0) return -1;
    for (int i = 0; i < threads; i++) {
        workers[i].barrier = &barrier;
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) return -1;
    }
    double slowest = 0;
    for (int i = 0; i < threads; i++) {
        (void)pthread_join(workers[i].thread, NULL);
        if (workers[i].seconds > slowest) slowest = workers[i].seconds;
    }
    (void)pthread_barrier_destroy(&barrier);
    return slowest;
}

int main(int argc, char **argv) {
    const int threads = argc > 1 ? atoi(argv[1]) : 1;
    if (threads < 1 || threads > MAX_THREADS) return 2;
    static worker workers[MAX_THREADS];
    for (int i = 0; i < threads; i++) {
        void *buffer = NULL;
        if (posix_memalign(&buffer, 4096, buffer_bytes) != 0) return 1;
        workers[i].buffer = buffer;
    }
    const double one = run_threads(workers, 1, bandwidth_worker);
    const double all = run_threads(workers, threads, bandwidth_worker);
    const double int8_one = run_threads(workers, 1, int8_worker);
    const double int8_all = run_threads(workers, threads, int8_worker);
    if (one <= 0 || all <= 0 || int8_one <= 0 || int8_all <= 0) return 1;
    const double steps = operations_per_step * (double)int8_steps / 1e9;
    (void)printf("{\"threads\": %d, \"memory_gb_per_s_one\": %.1f, \"memory_gb_per_s\": %.1f, "
                 "\"int8_gop_per_s_one\": %.0f, \"int8_gop_per_s\": %.0f}\n",
                 threads, (double)buffer_bytes / one / 1e9,
                 (double)buffer_bytes * threads / all / 1e9, steps / int8_one,
                 steps * threads / int8_all);
    return 0;
}
