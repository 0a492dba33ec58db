/*
 * prepare_groups.c: threads that take one part of a group after the other, build its extents,
 * checksum and write them, and then one bank of neurons after the other. Each part has its place in
 * the file from the beginning, so that the threads share nothing but the counter of parts; while one
 * waits for the disk, another packs.
 *
 * A part is as many extents of a group as fit into a thread's buffer. More parts mean that rows of
 * Down are read again for each: so memory, if short, goes to fewer threads.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "base/fail.h"
#include "base/pages.h"
#include "base/team.h"
#include "clusters/neuron_bank_build.h"
#include "clusters/prepare_internal.h"
#include "store/weight_file.h"

enum {
    MOST_WORKERS = 4,
    LARGEST_SCRATCH_BYTES = 4 * 1024 * 1024,
    WORKER_STACK_BYTES = 256 * 1024,
    ERROR_BYTES = 1024
};

/** Extents first .. end - 1 of a group, counted within it; or a bank, whole. */
typedef struct group_part {
    uint32_t bank; /* UINT32_MAX: extents */
    uint32_t group, first, end;
    uint64_t file_offset;
    size_t bytes;
} group_part;

typedef struct worker_pool worker_pool;

typedef struct prepare_worker {
    worker_pool *pool;
    bool is_caller; /* the thread whose callbacks may be called */
    bool is_started;
    pthread_t thread;
    pi2_extent_builder *builder;
    void *buffer;
    void **extent_memory; /* of the group with the most extents */
    pi2_status status;
    char error[ERROR_BYTES];
} prepare_worker;

struct worker_pool {
    pi2_prepare_run *run;
    group_part *parts;
    uint32_t part_count, part_capacity;
    size_t buffer_bytes;
    _Atomic uint32_t next_part;
    _Atomic bool has_failed;
    prepare_worker workers[MOST_WORKERS];
    unsigned worker_count;
};

/* ---- parts ------------------------------------------------------------------------------ */

static pi2_status add_part(worker_pool *pool, group_part part) {
    if (pool->part_count == pool->part_capacity) {
        const uint32_t capacity = pool->part_capacity ? pool->part_capacity * 2 : 64;
        group_part *grown = realloc(pool->parts, capacity * sizeof *grown);
        if (!grown) return pi2_fail(PI2_ERR_MEMORY, "no memory for a list of extents");
        pool->parts = grown;
        pool->part_capacity = capacity;
    }
    pool->parts[pool->part_count++] = part;
    return PI2_OK;
}

static pi2_status list_parts(worker_pool *pool) {
    const pi2_prepare_run *run = pool->run;
    for (uint32_t g = 0; g < run->layout->group_count; g++) {
        const pi2_group *group = &run->layout->groups[g];
        uint64_t file_offset = run->header_length + run->header.group_offsets[g];
        for (uint32_t first = 0; first < group->extent_count;) {
            group_part part = {
                .bank = UINT32_MAX, .group = g, .first = first, .end = first, .file_offset = file_offset
            };
            while (part.end < group->extent_count) {
                const pi2_extent *extent = &run->layout->extents[group->first_extent + part.end];
                const size_t stride = (size_t)pi2_cluster_extent_stride(extent);
                if (part.bytes + stride > pool->buffer_bytes) break;
                part.bytes += stride;
                part.end++;
            }
            PI2_TRY(add_part(pool, part));
            file_offset += part.bytes;
            first = part.end;
        }
    }
    for (uint32_t b = 0; run->banks && b < run->banks->count; b++) PI2_TRY(add_part(pool, (group_part){ .bank = b }));
    return PI2_OK;
}

/** Checksums of the runs of rows that are looked up one by one. */
static void patch_runs(pi2_prepare_run *run, const pi2_extent *extent, const uint8_t *memory) {
    for (uint32_t p = extent->first_piece; p < extent->first_piece + extent->piece_count; p++) {
        const pi2_piece *piece = &run->layout->pieces[p];
        for (uint32_t row = 0; row < piece->row_count; row += PI2_TILE_ROWS) {
            uint32_t bytes;
            const uint32_t offset = pi2_piece_run(run->layout, piece, row, &bytes);
            const uint32_t first_run = run->layout->groups[extent->group].first_run;
            const size_t number = first_run + (size_t)(piece->row_begin + row) / PI2_TILE_ROWS;
            pi2_prepare_patch(run, run->header.lookup_checksums_at + number * sizeof(uint64_t),
                              XXH3_64bits(memory + offset, bytes));
        }
    }
}

static pi2_status make_part(prepare_worker *worker, const group_part *part) {
    pi2_prepare_run *run = worker->pool->run;
    if (part->bank != UINT32_MAX) {
        return pi2_prepare_bank(run, worker->builder, part->bank, worker->buffer, worker->pool->buffer_bytes,
                                worker->is_caller);
    }
    const pi2_group *group = &run->layout->groups[part->group];
    memset(worker->extent_memory, 0, group->extent_count * sizeof *worker->extent_memory);
    size_t used = 0;
    for (uint32_t e = part->first; e < part->end; e++) {
        const pi2_extent *extent = &run->layout->extents[group->first_extent + e];
        const size_t stride = (size_t)pi2_cluster_extent_stride(extent);
        uint8_t *memory = (uint8_t *)worker->buffer + used;
        memset(memory + extent->bytes, 0, stride - extent->bytes);
        worker->extent_memory[e] = memory;
        used += stride;
    }
    PI2_TRY(pi2_extent_builder_group(worker->builder, part->group, worker->extent_memory));
    for (uint32_t e = part->first; e < part->end; e++) {
        const uint32_t number = group->first_extent + e;
        pi2_prepare_patch(run, run->header.extent_checksums_at + number * sizeof(uint64_t),
                          XXH3_64bits(worker->extent_memory[e], run->layout->extents[number].bytes));
        if (group->first_run != PI2_NO_RUN) patch_runs(run, &run->layout->extents[number], worker->extent_memory[e]);
    }
    PI2_TRY(pi2_prepare_write(run, part->file_offset, worker->buffer, used));
    atomic_fetch_add(&run->written_bytes, used);
    return worker->is_caller ? pi2_prepare_report(run) : PI2_OK;
}

/* ---- workers ---------------------------------------------------------------------------- */

static void *run_worker(void *argument) {
    prepare_worker *worker = argument;
    worker_pool *pool = worker->pool;
    pi2_status status = PI2_OK;
    while (status == PI2_OK && !atomic_load(&pool->has_failed)) {
        const uint32_t number = atomic_fetch_add(&pool->next_part, 1);
        if (number >= pool->part_count) break;
        status = make_part(worker, &pool->parts[number]);
    }
    worker->status = status;
    if (status != PI2_OK) { /* the text is this thread's: keep it for the caller's */
        (void)snprintf(worker->error, sizeof worker->error, "%s", pi2_error_text());
        atomic_store(&pool->has_failed, true);
    }
    return NULL;
}

static pi2_status open_worker(worker_pool *pool, prepare_worker *worker, size_t scratch_bytes,
                              uint32_t most_extents) {
    worker->pool = pool;
    PI2_TRY(pi2_extent_builder_open(pool->run->source, pool->run->layout, scratch_bytes,
                                    &worker->builder));
    worker->extent_memory = calloc(most_extents + (size_t)1, sizeof *worker->extent_memory);
    if (!worker->extent_memory) return pi2_fail(PI2_ERR_MEMORY, "no memory to prepare");
    return pi2_pages_reserve(pool->buffer_bytes, true, "preparing", &worker->buffer);
}

static void close_worker(worker_pool *pool, prepare_worker *worker) {
    pi2_pages_release(worker->buffer, pool->buffer_bytes);
    free(worker->extent_memory);
    pi2_extent_builder_close(worker->builder);
}

/** Fewer threads than wished for are no error: the caller's alone does all of it. */
static void start_thread(prepare_worker *worker) {
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return;
    (void)pthread_attr_setstacksize(&attributes, WORKER_STACK_BYTES);
    worker->is_started = pthread_create(&worker->thread, &attributes, run_worker, worker) == 0;
    (void)pthread_attr_destroy(&attributes);
}

static pi2_status run_workers(worker_pool *pool) {
    for (unsigned i = 1; i < pool->worker_count; i++) start_thread(&pool->workers[i]);
    pool->workers[0].is_caller = true;
    (void)run_worker(&pool->workers[0]);
    for (unsigned i = 1; i < pool->worker_count; i++) {
        if (pool->workers[i].is_started) (void)pthread_join(pool->workers[i].thread, NULL);
    }
    for (unsigned i = 0; i < pool->worker_count; i++) {
        const prepare_worker *worker = &pool->workers[i];
        if (worker->status != PI2_OK) return pi2_fail(worker->status, "%s", worker->error);
    }
    return pi2_prepare_report(pool->run);
}

/* ---- memory ----------------------------------------------------------------------------- */

/** The room that a worker's buffer must have for the largest extent or bank, with which it reads nothing twice, and
 *  what a bank takes beside it. */
static void measure_tasks(const pi2_prepare_run *run, uint64_t *least_out, uint64_t *largest_out,
                          uint64_t *beside_out) {
    const pi2_extent_layout *layout = run->layout;
    *beside_out = 0;
    *least_out = pi2_extent_layout_largest(layout);
    *largest_out = 0;
    for (uint32_t g = 0; g < layout->group_count; g++) {
        const pi2_group *group = &layout->groups[g];
        uint64_t bytes = 0;
        for (uint32_t e = 0; e < group->extent_count; e++) {
            bytes += pi2_cluster_extent_stride(&layout->extents[group->first_extent + e]);
        }
        if (bytes > *largest_out) *largest_out = bytes;
    }
    for (uint32_t b = 0; run->banks && b < run->banks->count; b++) {
        const pi2_neuron_bank *bank = &run->banks->banks[b];
        const uint64_t bank_least = pi2_prepare_bank_least_bytes(bank), whole = pi2_prepare_bank_most_bytes(bank);
        if (bank_least > *least_out) *least_out = bank_least;
        if (whole > *largest_out) *largest_out = whole;
        if (pi2_prepare_bank_order_bytes(bank) > *beside_out) *beside_out = pi2_prepare_bank_order_bytes(bank);
    }
}

/** Chooses the number of workers and divides the memory among them. */
static pi2_status divide_memory(worker_pool *pool, uint64_t memory_bytes, size_t *scratch_out,
                                uint32_t *most_extents_out) {
    const pi2_extent_layout *layout = pool->run->layout;
    uint64_t least_buffer, largest_group, beside, widest_rows = 0;
    uint32_t most_extents = 0;
    const uint64_t rows_at_once = pool->run->banks ? PI2_NEURON_BANK_LEAST_ROWS : PI2_TILE_ROWS;
    measure_tasks(pool->run, &least_buffer, &largest_group, &beside);
    for (uint32_t g = 0; g < layout->group_count; g++) {
        const uint32_t extents = layout->groups[g].extent_count;
        if (extents > most_extents) most_extents = extents;
    }
    for (uint32_t t = 0; t < layout->tensor_count; t++) {
        const uint64_t bytes = rows_at_once * pi2_row_bytes(layout->tensors[t].format, layout->tensors[t].columns);
        if (bytes > widest_rows) widest_rows = bytes;
    }
    /* A builder: its scratch, with room for alignment, and its table of tensors. */
    const uint64_t fixed = layout->tensor_count * sizeof(void *) + most_extents * sizeof(void *) +
                           WORKER_STACK_BYTES + 65536 + beside;
    const uint64_t least = widest_rows + fixed + least_buffer;
    if (memory_bytes < least) {
        return pi2_fail(PI2_ERR_MEMORY,
                        "preparing %s takes at least %" PRIu64 " bytes of memory beside what the "
                        "process holds: give it more",
                        pool->run->output_path, least + pool->run->held_bytes);
    }
    const unsigned cpus = pi2_allowed_cpus();
    unsigned workers = cpus < MOST_WORKERS ? cpus : MOST_WORKERS;
    /* Another worker must not cost another pass over the largest group's rows. */
    while (workers > 1 && memory_bytes / workers < least + largest_group) workers--;
    const uint64_t each = memory_bytes / workers;
    const uint64_t scratch = each / 4 < LARGEST_SCRATCH_BYTES ? each / 4 : LARGEST_SCRATCH_BYTES;
    const uint64_t taken = fixed + (scratch > widest_rows ? scratch : widest_rows);
    uint64_t buffer = each > taken ? each - taken : 0;
    if (buffer < least_buffer) buffer = least_buffer;
    pool->worker_count = workers;
    pool->buffer_bytes = (size_t)(buffer < largest_group ? buffer : largest_group);
    *scratch_out = (size_t)(scratch > widest_rows ? scratch : widest_rows) + PI2_WEIGHT_FILE_SLACK;
    *most_extents_out = most_extents;
    return PI2_OK;
}

static pi2_status prepare_groups(worker_pool *pool, uint64_t memory_bytes) {
    size_t scratch_bytes = 0;
    uint32_t most_extents = 0;
    PI2_TRY(divide_memory(pool, memory_bytes, &scratch_bytes, &most_extents));
    PI2_TRY(list_parts(pool));
    for (unsigned i = 0; i < pool->worker_count; i++) {
        PI2_TRY(open_worker(pool, &pool->workers[i], scratch_bytes, most_extents));
    }
    return run_workers(pool);
}

pi2_status pi2_prepare_groups(pi2_prepare_run *run, uint64_t memory_bytes) {
    if (run->layout->group_count == 0) return PI2_OK;
    worker_pool pool = { .run = run };
    const pi2_status status = prepare_groups(&pool, memory_bytes);
    for (unsigned i = 0; i < pool.worker_count; i++) close_worker(&pool, &pool.workers[i]);
    free(pool.parts);
    return status;
}
