/*
 * machine_disk.c: storage as the engine reads it: through the reader, past the page cache, one read
 * after another through a file, with so many in flight.
 *
 * A stream's ring has a quarter of its bytes in flight, what follows is asked for already, and threads read what has
 * come. All three count: with as many asked for as in flight each read that ends waits for a thread to wake up; a
 * ring that caches hold, whose bytes were used, is written to faster than memory that nobody looked at.
 *
 * Single neurons are asked for while every thread computes Gate, so whatever reads has to get a processor first: their
 * small reads are measured beside threads that compute, one on each processor, of which one asks.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cache_folder.h"
#include "base/clock.h"
#include "base/fail.h"
#include "base/memory_limit.h"
#include "base/pages.h"
#include "base/team.h"
#include "machine/machine_measure.h"
#include "machine/plain_read.h"
#include "storage/reader.h"

enum {
    FILE_BYTES = 256 << 20, QUICK_FILE_BYTES = 8 << 20, BUFFER_BYTES = 64 << 20, LEAST_BUFFER_BYTES = 32 << 20,
    BRIEF_BUFFER_BYTES = 16 << 20, PATTERN_BYTES = 1 << 20, STRIDE = 17,
    RING_IN_FLIGHT = 4, LEAST_RING_BYTES = 4 << 20, /* one of so many bytes is in flight */
    COMPUTED_BYTES = 8 << 10 /* by a thread before it looks whether a read has ended */
};

enum { MOST_ASKED = PI2_SMALL_READ_DEPTH };

/* Single neurons take one page or two, neighbours come together; their reads ascend with gaps, and more of them are in
 * flight. */
static const uint32_t blocks[] = {4 << 10, 8 << 10, 16 << 10, 64 << 10, 256 << 10, 512 << 10, 1 << 20};
static const uint32_t depths[] = {1, 4, 8, PI2_READ_DEPTH, PI2_SMALL_READ_DEPTH};
static const char *const methods[] = {"io_uring", "pread"};
enum { BLOCKS = 7, DEPTHS = 5, METHODS = 2, ROUNDS = 4 };

/* A throttle (a container's, a phone's) works in slices of about 100 ms, of which a short case sees one full burst. */
static const double BURST_SECONDS = 0.2, SUSTAINED_SECONDS = 0.5, QUICK_SUSTAINED_SECONDS = 0.15;
static const double FASTER_THAN_SUSTAINED = 1.25; /* by as much a case may beat it: disks vary */

unsigned pi2_measure_disk_steps(void) { return METHODS * BLOCKS * DEPTHS; }

static double cpu_of(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now) != 0) return 0;
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Of the threads that read: this one waits for them, spinning. */
static double cpu_seconds(void) { return cpu_of(CLOCK_PROCESS_CPUTIME_ID) - cpu_of(CLOCK_THREAD_CPUTIME_ID); }

/** What the threads compute meanwhile. */
typedef struct disk_company {
    pi2_team *team;
    const uint8_t *memory;      /* gone through again and again */
    size_t bytes;
    _Atomic bool ends;
    _Atomic uint64_t cpu_ns;    /* of all threads but the one that asks */
    _Atomic uint64_t used;      /* of what was computed: so it is */
} disk_company;

/** What the rounds of one case gave together. */
typedef struct disk_sum {
    double bytes, seconds, cpu_bytes, cpu;
    pi2_samples samples;
} disk_sum;

typedef struct disk_case {
    pi2_reader *reader;
    uint64_t file_bytes, begin; /* where the next reads begin: each case goes on where the last one ended */
    uint32_t block, depth;
    uint8_t *buffer;
    size_t buffer_bytes;
    uint64_t used;      /* of what was read: so it is */
    uint32_t disk;      /* number in the profile */
    bool brief;
    double seconds;
    double sustained;   /* bytes/s that lasted; 0: not measured */
    disk_company company;
    size_t computed;    /* where the thread that asks computes next */
    pi2_read_request requests[MOST_ASKED];
} disk_case;

static bool is_small(uint32_t block) { return block < PI2_SMALL_READ_BYTES; }

/* A stream's ring; single neurons come to lie anywhere. */
static size_t ring_bytes(const disk_case *c) {
    const size_t ring = (size_t)RING_IN_FLIGHT * c->depth * c->block;
    const size_t bytes = ring < LEAST_RING_BYTES ? LEAST_RING_BYTES : ring;
    return is_small(c->block) || bytes > c->buffer_bytes ? c->buffer_bytes : bytes;
}

/* Reads that are asked for: of a ring all but a quarter, which is computed with; of one by itself no other. */
static uint32_t asked_for(const disk_case *c) {
    if (c->depth == 1 || is_small(c->block)) return c->depth;
    const size_t room = ring_bytes(c) / RING_IN_FLIGHT * (RING_IN_FLIGHT - 1) / c->block;
    return room < c->depth ? c->depth : room < MOST_ASKED ? (uint32_t)room : MOST_ASKED;
}

static void submit(disk_case *c, uint32_t slot, uint64_t number) {
    pi2_read_request *request = &c->requests[slot];
    const uint64_t count = c->file_bytes / c->block, step = is_small(c->block) ? STRIDE : 1;
    memset(request, 0, sizeof *request);
    request->offset = (c->begin / c->block + number) * step % count * c->block;
    request->bytes = c->block;
    request->destination = c->buffer + number % (ring_bytes(c) / c->block) * c->block;
    pi2_reader_submit(c->reader, request);
}

/** What was read until some moment. */
typedef struct read_mark {
    uint64_t ns, done;
} read_mark;

/* The rate between two moments at which as many reads are in flight: those of the beginning, which all start at once,
 * are served while the first window lasts, and those of the end are not served yet. */
static void add_reads(const disk_case *c, read_mark begin, read_mark end, disk_sum *sum) {
    sum->bytes += (double)(end.done - begin.done) * c->block;
    sum->seconds += (double)(end.ns - begin.ns) * 1e-9;
}

static size_t compute_some(disk_company *company, size_t at) {
    if (at + COMPUTED_BYTES > company->bytes) at = 0;
    const uint64_t sum = pi2_plain_read(company->memory + at, COMPUTED_BYTES);
    atomic_store_explicit(&company->used, sum, memory_order_relaxed);
    return at + COMPUTED_BYTES;
}

/* Of a small read the thread computes until it has ended, for others it waits. */
static pi2_status await_read(disk_case *c, pi2_read_request *request, unsigned spin_us) {
    while (is_small(c->block) && atomic_load(&request->state) == PI2_READ_QUEUED) {
        c->computed = compute_some(&c->company, c->computed);
    }
    return pi2_reader_wait(c->reader, request, spin_us);
}

/** Keeps `depth` reads in flight; a sample is the rate over each window of reads. */
static pi2_status run_case(disk_case *c, disk_sum *sum) {
    const uint32_t asked = asked_for(c), window = asked < 8 ? 8 : asked;
    const unsigned spin_us = pi2_team_spin_us(pi2_default_threads());
    uint64_t number = 0;
    const uint64_t begin_ns = pi2_clock_ns();
    read_mark now = { .ns = begin_ns }, first = now, last = now;
    for (uint32_t slot = 0; slot < asked; slot++) submit(c, slot, number++);
    for (;;) {
        const uint32_t slot = (uint32_t)(now.done % asked);
        PI2_TRY(await_read(c, &c->requests[slot], spin_us));
        c->used += pi2_plain_read(c->requests[slot].destination, c->block);
        now = (read_mark){ .ns = pi2_clock_ns(), .done = now.done + 1 };
        if (now.done % window == 0 && sum->samples.count < PI2_SAMPLES_MOST) {
            const double seconds = (double)(now.ns - last.ns) * 1e-9;
            last = now;
            if (now.done > window) {
                sum->samples.values[sum->samples.count++] =
                    (double)window * c->block / (seconds > 1e-9 ? seconds : 1e-9);
            }
        }
        if (now.done == window) first = now;
        if ((double)(now.ns - begin_ns) * 1e-9 > c->seconds && now.done >= 2 * window) break;
        submit(c, slot, number++);
    }
    add_reads(c, first, now, sum);
    sum->cpu_bytes += (double)number * c->block;
    c->begin += number * c->block;
    return PI2_OK;
}

/** One case, for a team's members. */
typedef struct shared_case {
    disk_case *c;
    disk_sum *sum;
    pi2_status status;
} shared_case;

/* The first member asks, the others compute until it is done. */
static void case_member(void *argument, unsigned member, unsigned members) {
    shared_case *shared = argument;
    disk_company *company = &shared->c->company;
    if (member == 0) {
        shared->status = run_case(shared->c, shared->sum);
        atomic_store(&company->ends, true);
        return;
    }
    const uint64_t begin_ns = pi2_clock_thread_ns();
    size_t at = company->bytes / members * member;
    while (!atomic_load_explicit(&company->ends, memory_order_relaxed)) at = compute_some(company, at);
    (void)atomic_fetch_add(&company->cpu_ns, pi2_clock_thread_ns() - begin_ns);
}

static pi2_status run_in_company(disk_case *c, disk_sum *sum) {
    shared_case shared = {.c = c, .sum = sum, .status = PI2_OK};
    atomic_store(&c->company.ends, false);
    atomic_store(&c->company.cpu_ns, 0);
    pi2_team_run(c->company.team, case_member, &shared);
    sum->cpu -= (double)atomic_load(&c->company.cpu_ns) * 1e-9;
    return shared.status;
}

static pi2_status measure_case(disk_case *c, const char *path, const char *method, disk_sum *sum) {
    const pi2_reader_options options = {.path = path, .method = method, .depth = c->depth, .buffer = c->buffer,
                                        .buffer_bytes = c->buffer_bytes};
    if (pi2_reader_open(&options, &c->reader) != PI2_OK) return PI2_OK; /* a method that this system refuses */
    const double cpu_begin = cpu_seconds(); /* opening takes as much as some hundred reads */
    const pi2_status status = is_small(c->block) ? run_in_company(c, sum) : run_case(c, sum);
    sum->cpu += cpu_seconds() - cpu_begin;
    pi2_reader_close(c->reader); /* reads in flight end before their memory is used again */
    return status;
}

/*
 * The rate that lasts: reads as the engine does them, longer than a burst, of which the beginning is not counted.
 * The best of the times that it is measured counts, since work of others only slows it down.
 */
static pi2_status measure_sustained(disk_case *c, const char *path, bool quick) {
    c->block = 512 << 10;
    c->depth = PI2_READ_DEPTH;
    const pi2_reader_options options = {.path = path, .method = "auto", .depth = c->depth, .buffer = c->buffer,
                                        .buffer_bytes = c->buffer_bytes};
    PI2_TRY(pi2_reader_open(&options, &c->reader));
    disk_sum burst = {0}, rest = {0};
    c->seconds = quick ? 0 : BURST_SECONDS;
    pi2_status status = run_case(c, &burst);
    pi2_reader_close(c->reader);
    if (status == PI2_OK) status = pi2_reader_open(&options, &c->reader);
    if (status != PI2_OK) return status;
    c->seconds = quick ? QUICK_SUSTAINED_SECONDS : SUSTAINED_SECONDS;
    status = run_case(c, &rest);
    pi2_reader_close(c->reader);
    const double rate = rest.seconds > 0 ? rest.bytes / rest.seconds : 0;
    if (status == PI2_OK && rate > c->sustained) c->sustained = rate;
    return status;
}

static void add_case(pi2_measuring *m, const disk_case *c, const char *method, disk_sum *sum) {
    double spread;
    if (sum->bytes <= 0) return;
    (void)pi2_samples_typical(&sum->samples, &spread);
    double rate = sum->bytes / (sum->seconds > 1e-9 ? sum->seconds : 1e-9);
    if (rate > c->sustained * FASTER_THAN_SUSTAINED) rate = c->sustained;
    const pi2_measured what = is_small(c->block) ? PI2_MEASURED_SMALL_READ : PI2_MEASURED_DISK;
    (void)pi2_profile_add(m->profile, what, method, c->block, c->depth, c->disk, rate, spread);
    /* Small reads cost more for a byte, and few in flight more each: no system call and no wake-up serves several. */
    (void)pi2_profile_add(m->profile, PI2_MEASURED_READ_CPU, method, c->block, c->depth, c->disk,
                          sum->cpu > 0 ? sum->cpu / sum->cpu_bytes : 1e-15, 0);
}

/* Both methods' largest and the engine's own case; the small blocks and depths of one method only, if it is brief. */
static bool is_left_out(const disk_case *c, int method, bool method_works) {
    if (is_small(c->block) ? c->depth == 4 : c->depth == PI2_SMALL_READ_DEPTH) return true;
    if (!c->brief) return false;
    if (is_small(c->block)) {
        return method > 0 && method_works && c->depth != 1 && c->depth != PI2_SMALL_READ_DEPTH;
    }
    if ((size_t)c->block * c->depth > BRIEF_BUFFER_BYTES || c->block == 256 << 10) return true;
    return method > 0 && method_works && !(c->block == 512 << 10 && c->depth == PI2_READ_DEPTH);
}

/* sum: of the case over the rounds so far; first: of the first method's same case. */
static pi2_status measure_once(pi2_measuring *m, disk_case *c, const char *path, int method, bool last_round,
                               const disk_sum *first, disk_sum *sum) {
    /* What the engine does deserves more than a moment. */
    c->seconds = (c->depth > 1 && c->block >= 256 << 10 ? 10 : 3) * m->seconds / ROUNDS;
    const bool wanted = !is_left_out(c, method, first->bytes > 0);
    if (wanted) PI2_TRY(measure_case(c, path, methods[method], sum));
    if (!last_round) return PI2_OK;
    if (wanted) add_case(m, c, methods[method], sum);
    return pi2_measuring_step(m);
}

/* Each case several times with all others between: a disk that others use as well is slow for seconds, and one that
 * was just written to for longer; neither method shall have that to itself. */
static pi2_status measure_cases(pi2_measuring *m, disk_case *c, const char *path) {
    disk_sum(*sums)[BLOCKS][DEPTHS] = calloc(METHODS, sizeof *sums);
    pi2_status status = sums ? PI2_OK : pi2_fail(PI2_ERR_MEMORY, "no memory for measuring the disk");
    for (int round = 0; round < ROUNDS; round++) {
        const bool quick = m->options->quick;
        /* At both ends: a slow moment shall not cap everything. */
        const bool at_an_end = round == 0 || (round + 1 == ROUNDS && !quick);
        if (status == PI2_OK && at_an_end) status = measure_sustained(c, path, quick);
        for (int i = 0; status == PI2_OK && i < BLOCKS * DEPTHS * METHODS; i++) {
            const int method = i % METHODS, depth = i / METHODS % DEPTHS, block = i / METHODS / DEPTHS;
            c->block = blocks[block];
            c->depth = depths[depth];
            status = measure_once(m, c, path, method, round + 1 == ROUNDS, &sums[0][block][depth],
                                  &sums[method][block][depth]);
        }
    }
    free(sums);
    return status;
}

static pi2_status measure_file(pi2_measuring *m, const char *path, uint64_t file_bytes, bool brief) {
    pi2_memory_limit limit;
    pi2_memory_limit_find(&limit);
    const size_t most = limit.bytes / 8 < BUFFER_BYTES ? LEAST_BUFFER_BYTES : BUFFER_BYTES;
    const size_t bytes = brief ? BRIEF_BUFFER_BYTES : most;
    void *buffer = NULL;
    pi2_machine_disk disk;
    PI2_TRY(pi2_profile_place(path, &disk));
    disk_case *c = calloc(1, sizeof *c);
    if (!c) return pi2_fail(PI2_ERR_MEMORY, "no memory for measuring the disk");
    pi2_status status = pi2_pages_reserve(bytes, true, "measuring the disk", &buffer);
    if (status == PI2_OK) {
        disk.time = (int64_t)time(NULL);
        c->disk = pi2_profile_add_disk(m->profile, &disk);
        c->file_bytes = file_bytes;
        c->buffer = buffer;
        c->buffer_bytes = bytes;
        c->brief = brief;
        c->company.memory = m->memory ? m->memory + m->far.begin : buffer;
        c->company.bytes = m->memory ? m->far.bytes : bytes;
        status = pi2_team_create(pi2_default_threads(), NULL, &c->company.team);
        if (status == PI2_OK) status = measure_cases(m, c, path);
        pi2_team_destroy(c->company.team);
    }
    pi2_pages_release(buffer, bytes);
    free(c);
    return status;
}

/** Fills a file with bytes that no file system can leave out or compress to nothing. */
static pi2_status write_file(int file, const char *path, uint8_t *buffer, size_t buffer_bytes, uint64_t bytes) {
    uint64_t state = 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i + 8 <= buffer_bytes; i += 8) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        memcpy(buffer + i, &state, 8);
    }
    for (uint64_t done = 0; done < bytes;) {
        const size_t part = bytes - done < buffer_bytes ? (size_t)(bytes - done) : buffer_bytes;
        const ssize_t wrote = write(file, buffer, part);
        if (wrote <= 0) {
            return pi2_fail(PI2_ERR_IO, "%s: cannot write %llu bytes to measure the disk with: %s", path,
                            (unsigned long long)bytes, wrote < 0 ? strerror(errno) : "the disk is full");
        }
        done += (uint64_t)wrote;
    }
    if (fsync(file) != 0) return pi2_fail(PI2_ERR_IO, "%s: %s", path, strerror(errno));
    return PI2_OK;
}

static pi2_status measure_new_file(pi2_measuring *m, const char *folder, bool brief) {
    char path[1200];
    const uint64_t bytes = m->options->quick || brief ? QUICK_FILE_BYTES : FILE_BYTES;
    (void)snprintf(path, sizeof path, "%s/.powerinfer2-disk-XXXXXX", folder);
    const int file = mkstemp(path);
    if (file < 0) {
        return pi2_fail(PI2_ERR_IO, "%s: cannot make a file to measure the disk with: %s", folder, strerror(errno));
    }
    uint8_t *pattern = malloc(PATTERN_BYTES);
    pi2_status status = pattern ? write_file(file, path, pattern, PATTERN_BYTES, bytes)
                                : pi2_fail(PI2_ERR_MEMORY, "no memory for measuring the disk");
    free(pattern);
    (void)close(file);
    if (status == PI2_OK) status = measure_file(m, path, bytes, brief);
    (void)unlink(path);
    return status;
}

static void make_folder(const char *folder) {
    char path[1024];
    const int length = snprintf(path, sizeof path, "%s/", folder);
    if (length > 0 && (size_t)length < sizeof path) pi2_folders_make_above(path);
}

static pi2_status measure_place(pi2_measuring *m, const char *place, bool brief) {
    struct stat info;
    if (stat(place, &info) != 0) return pi2_fail(PI2_ERR_IO, "%s: %s", place, strerror(errno));
    if (S_ISDIR(info.st_mode)) return measure_new_file(m, place, brief);
    if (info.st_size >= QUICK_FILE_BYTES) return measure_file(m, place, (uint64_t)info.st_size, brief);
    char beside[1024];
    const char *slash = strrchr(place, '/');
    (void)snprintf(beside, sizeof beside, "%.*s", slash && slash != place ? (int)(slash - place) : 1,
                   slash ? place : ".");
    return measure_new_file(m, beside, brief);
}

pi2_status pi2_measure_disk(pi2_measuring *m, const char *folder) {
    if (!m->options->disk_path) make_folder(folder);
    return measure_place(m, m->options->disk_path ? m->options->disk_path : folder, false);
}

pi2_status pi2_measure_disk_briefly(pi2_measuring *m) { return measure_place(m, m->options->disk_path, true); }
