/*
 * disk_bench.c: what the reader gets out of a disk, by read method, block size and depth.
 *
 *   disk_bench FILE [--methods io_uring,pread] [--blocks 256KiB,512KiB,1MiB] [--depths 4,8,16,32]
 *              [--seconds 2] [--busy N] [--spin US] [--random] [--plain] [--latency]
 *
 * --busy N    N computing threads beside the reader, as in a token loop
 * --random    blocks in random order instead of one after the other
 * --plain     do not register the buffer
 * --latency   one read at a time: where the time between submit and the waiter's wake-up goes
 *
 * CPU is that of the I/O threads in percent of one core, system calls included. Wake-up is the
 * time from a read's completion to its waiter's return, for waits that had to wait: median, P99.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "base/memory_limit.h"
#include "base/pages.h"
#include "base/parse_size.h"
#include "storage/reader.h"

enum { MOST_VALUES = 16, MOST_BUSY = 16, MOST_SAMPLES = 1 << 16, WINDOW = 64 };

typedef struct settings {
    const char *path;
    char *methods[MOST_VALUES];
    uint64_t blocks[MOST_VALUES], depths[MOST_VALUES];
    double seconds;
    unsigned busy, spin_us;
    bool random, plain, latency;
} settings;

static uint64_t samples[MOST_SAMPLES];
static size_t sample_count;

static int by_value(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double sample_us(double share) {
    if (sample_count == 0) return 0;
    qsort(samples, sample_count, sizeof samples[0], by_value);
    return (double)samples[(size_t)(share * (double)(sample_count - 1))] / 1000.0;
}

static double cpu_seconds(clockid_t clock) {
    struct timespec time;
    if (clock_gettime(clock, &time) != 0) return 0;
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* ---- Threads that compute ---- */

static _Atomic bool busy_end;
typedef struct busy_thread {
    pthread_t thread;
    double cpu;
    uint64_t turns;
} busy_thread;

static void *keep_busy(void *argument) {
    busy_thread *self = argument;
    volatile double value = 1.0;
    while (!atomic_load_explicit(&busy_end, memory_order_relaxed)) {
        for (int i = 0; i < 1000; i++) value = value * 1.0000001 + 1e-9;
        self->turns++;
    }
    self->cpu = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
    return NULL;
}

/* ---- One measurement ---- */

typedef struct window {
    pi2_read_request requests[WINDOW];
    uint64_t next_block, block_count, random;
} window;

static void submit_next(pi2_reader *reader, const settings *set, window *w,
                        pi2_read_request *request) {
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    const uint64_t block =
        set->random ? (w->random >> 33) % w->block_count : w->next_block++ % w->block_count;
    request->offset = block * request->bytes;
    atomic_store(&request->state, PI2_READ_IDLE);
    pi2_reader_submit(reader, request);
}

static int wait_for(pi2_reader *reader, const settings *set, pi2_read_request *request) {
    const bool waits = atomic_load(&request->state) == PI2_READ_QUEUED;
    if (pi2_reader_wait(reader, request, set->spin_us) != PI2_OK) {
        fprintf(stderr, "%s\n", pi2_error_text());
        return 1;
    }
    const uint64_t now = pi2_clock_ns();
    if (waits && sample_count < MOST_SAMPLES) samples[sample_count++] = now - request->completed_ns;
    return 0;
}

static int measure(pi2_reader *reader, const settings *set, window *w, size_t in_window) {
    busy_thread busy[MOST_BUSY] = {0};
    atomic_store(&busy_end, false);
    for (unsigned i = 0; i < set->busy; i++) {
        if (pthread_create(&busy[i].thread, NULL, keep_busy, &busy[i])) return 1;
    }
    sample_count = 0;
    const double process = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID);
    const double own = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
    const uint64_t begin = pi2_clock_ns();
    const uint64_t end = begin + (uint64_t)(set->seconds * 1e9);
    uint64_t bytes = 0;
    for (size_t i = 0; i < in_window; i++) submit_next(reader, set, w, &w->requests[i]);
    for (size_t i = 0; pi2_clock_ns() < end; i = (i + 1) % in_window) {
        if (wait_for(reader, set, &w->requests[i])) return 1;
        bytes += w->requests[i].bytes;
        submit_next(reader, set, w, &w->requests[i]);
    }
    const double seconds = (double)(pi2_clock_ns() - begin) / 1e9;
    double cpu = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID) - process -
                 (cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - own);
    atomic_store(&busy_end, true);
    for (unsigned i = 0; i < set->busy; i++) {
        (void)pthread_join(busy[i].thread, NULL);
        cpu -= busy[i].cpu;
    }
    for (size_t i = 0; i < in_window; i++) (void)wait_for(reader, set, &w->requests[i]);
    uint64_t peak = 0, current = 0;
    (void)pi2_process_memory(&peak, &current);
    printf("%9.1f MB/s  CPU %5.1f %%  wake-up %6.1f / %7.1f us  RSS %6.1f MB\n",
           (double)bytes / seconds / 1e6, 100.0 * cpu / seconds, sample_us(0.5), sample_us(0.99),
           (double)current / 1e6);
    return 0;
}

/* One read at a time, after a pause, so that the I/O thread sleeps when it is asked. */
static int measure_latency(pi2_reader *reader, const settings *set, window *w) {
    enum { READS = 300 };
    static uint64_t parts[3][READS];
    for (size_t i = 0; i < READS; i++) {
        const struct timespec pause = {.tv_nsec = 300000};
        (void)nanosleep(&pause, NULL);
        const uint64_t asked = pi2_clock_ns();
        submit_next(reader, set, w, &w->requests[0]);
        if (pi2_reader_wait(reader, &w->requests[0], set->spin_us) != PI2_OK) return 1;
        const uint64_t woken = pi2_clock_ns();
        parts[0][i] = w->requests[0].submitted_ns - asked;
        parts[1][i] = w->requests[0].completed_ns - w->requests[0].submitted_ns;
        parts[2][i] = woken - w->requests[0].completed_ns;
    }
    static const char *const names[] = {"asked to submitted", "device", "completed to woken"};
    for (size_t part = 0; part < 3; part++) {
        memcpy(samples, parts[part], sizeof parts[part]);
        sample_count = READS;
        printf("%s %.1f us (P90 %.1f)%s", names[part], sample_us(0.5), sample_us(0.9),
               part < 2 ? ", " : "\n");
    }
    return 0;
}

static int run_case(const settings *set, const char *method, uint64_t block, uint64_t depth) {
    struct stat information;
    if (stat(set->path, &information) != 0 || (uint64_t)information.st_size < 2 * block) {
        fprintf(stderr, "%s: no file of at least two blocks\n", set->path);
        return 1;
    }
    const size_t in_window = depth + depth / 2 + 1 < WINDOW ? depth + depth / 2 + 1 : WINDOW;
    const size_t memory_bytes = in_window * block;
    void *memory = NULL;
    if (pi2_pages_reserve(memory_bytes, true, "blocks", &memory) != PI2_OK) return 1;
    memset(memory, 1, memory_bytes);
    static window w;
    memset(&w, 0, sizeof w);
    w.block_count = (uint64_t)information.st_size / block;
    w.random = 42;
    for (size_t i = 0; i < in_window; i++) {
        w.requests[i].bytes = (uint32_t)block;
        w.requests[i].destination = (unsigned char *)memory + i * block;
    }
    const pi2_reader_options options = {.path = set->path,
                                        .method = method,
                                        .depth = (uint32_t)depth,
                                        .buffer = set->plain ? NULL : memory,
                                        .buffer_bytes = memory_bytes};
    pi2_reader *reader = NULL;
    int result = 1;
    if (pi2_reader_open(&options, &reader) == PI2_OK) {
        printf("%-8s block %5llu KiB depth %3llu: ", method, (unsigned long long)block / 1024,
               (unsigned long long)depth);
        result =
            set->latency ? measure_latency(reader, set, &w) : measure(reader, set, &w, in_window);
        printf("         %s\n", pi2_reader_description(reader));
        fflush(stdout);
    } else {
        fprintf(stderr, "%s\n", pi2_error_text());
    }
    pi2_reader_close(reader);
    pi2_pages_release(memory, memory_bytes);
    return result;
}

/* ---- Arguments ---- */

static int parse_list(char *text, uint64_t *values) {
    char *save = NULL;
    size_t count = 0;
    for (char *item = strtok_r(text, ",", &save); item; item = strtok_r(NULL, ",", &save)) {
        if (count + 1 >= MOST_VALUES || pi2_parse_size(item, &values[count]) != PI2_OK) return 1;
        if (values[count++] == 0) return 1;
    }
    values[count] = 0;
    return count == 0;
}

static int parse_option(settings *set, int argc, char **argv, int *at) {
    const char *name = argv[*at];
    if (strcmp(name, "--random") == 0) return set->random = true, 0;
    if (strcmp(name, "--plain") == 0) return set->plain = true, 0;
    if (strcmp(name, "--latency") == 0) return set->latency = true, 0;
    if (*at + 1 >= argc) return 1;
    char *value = argv[++*at];
    if (strcmp(name, "--blocks") == 0) return parse_list(value, set->blocks);
    if (strcmp(name, "--depths") == 0) return parse_list(value, set->depths);
    if (strcmp(name, "--seconds") == 0) return set->seconds = atof(value), set->seconds <= 0;
    if (strcmp(name, "--busy") == 0) {
        set->busy = (unsigned)atoi(value);
        return set->busy > MOST_BUSY;
    }
    if (strcmp(name, "--spin") == 0) return set->spin_us = (unsigned)atoi(value), 0;
    if (strcmp(name, "--methods") != 0) return 1;
    char *save = NULL;
    size_t count = 0;
    memset(set->methods, 0, sizeof set->methods);
    for (char *m = strtok_r(value, ",", &save); m && count + 1 < MOST_VALUES;
         m = strtok_r(NULL, ",", &save)) {
        set->methods[count++] = m;
    }
    return count == 0;
}

int main(int argc, char **argv) {
    static char uring[] = "io_uring", pool[] = "pread";
    settings set = {.methods = {uring, pool},
                    .blocks = {256u << 10, 512u << 10, 1u << 20},
                    .depths = {4, 8, 16, 32},
                    .seconds = 2};
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-') {
            set.path = argv[i];
        } else if (parse_option(&set, argc, argv, &i)) {
            fprintf(stderr, "bad option %s: see the head of disk_bench.c\n", argv[i]);
            return 2;
        }
    }
    if (!set.path) {
        fprintf(stderr, "usage: disk_bench FILE [options]: see the head of disk_bench.c\n");
        return 2;
    }
    int result = 0;
    for (size_t m = 0; set.methods[m]; m++) {
        for (size_t b = 0; set.blocks[b]; b++) {
            for (size_t d = 0; set.depths[d]; d++) {
                result |= run_case(&set, set.methods[m], set.blocks[b], set.depths[d]);
            }
        }
    }
    return result;
}
