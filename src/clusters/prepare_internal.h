/* prepare_internal.h: what prepare.c (the file and the order of things) and prepare_groups.c (the
 * threads that build and write extents) share. */
#ifndef PI2_CLUSTERS_PREPARE_INTERNAL_H
#define PI2_CLUSTERS_PREPARE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/output_file.h"
#include "base/progress.h"
#include "clusters/extent_build.h"
#include "clusters/prepare.h"
#include "file_formats/cluster_file.h"

enum { PI2_SOURCE_HASH_BYTES = 256 * 1024 };

/** The thread that hashes the source whole. */
typedef struct pi2_source_hashing {
    const pi2_gguf *source;
    pthread_t thread;
    bool is_started;
    _Atomic bool stop, is_done;
    uint64_t hash;
    pi2_status status;
    char error[512];
} pi2_source_hashing;

typedef struct pi2_prepare_run {
    const pi2_gguf *source;
    const char *output_path;  /* links followed: place.path */
    pi2_output_place place;
    const char **inputs;      /* the source's files, NULL at the end */
    const pi2_prepare_settings *settings;
    pi2_prepare_calls calls;

    pi2_extent_layout *layout;
    pi2_neuron_banks *banks;  /* NULL: the dense layout */
    pi2_cluster_header header;
    pi2_source_hashing hashing;
    const uint8_t *header_bytes;
    size_t header_length;
    uint64_t file_bytes;

    char temporary_path[PI2_OUTPUT_TEMPORARY_BYTES];
    int file;                 /* the temporary file, locked; -1 before */

    size_t sync_bytes;        /* how much may lie in the page cache */
    uint64_t held_bytes;      /* by tables, header and page cache together */
    _Atomic uint64_t unsynced_bytes, written_bytes;
    pi2_progress progress;    /* of the caller's thread */
} pi2_prepare_run;

/** Finds the place of run->output_path, which may hold no input, no file that is no cluster file, and none of
 *  another model, unless it may be overwritten. Errors INVALID, MEMORY */
pi2_status pi2_prepare_find_place(pi2_prepare_run *run);

/** Writes at a place of the temporary file. Errors IO. Threads: any. */
pi2_status pi2_prepare_write(pi2_prepare_run *run, uint64_t offset, const void *bytes, size_t count);

/** Sets a number of the header. Threads: any, each its own numbers. */
void pi2_prepare_patch(pi2_prepare_run *run, size_t offset, uint64_t value);

/** Tells the caller how far it is, and asks whether to go on. Threads: the caller's only.
 *  Errors INTERRUPTED */
pi2_status pi2_prepare_report(pi2_prepare_run *run);

/** Begins to hash the source, beside what follows. */
void pi2_prepare_hash_begin(pi2_prepare_run *run);
/** Waits for it and puts the hash into the header. groups: where they failed it is stopped, and their status given
 *  back. Errors  IO (the source cannot be read, or was changed), MEMORY, INTERRUPTED */
pi2_status pi2_prepare_hash_end(pi2_prepare_run *run, pi2_status groups);

/** Builds and writes every group and bank, on as many threads as CPUs and memory allow. memory_bytes is
 *  what all of them may hold together. Errors IO, MEMORY (with the least), INTERRUPTED */
pi2_status pi2_prepare_groups(pi2_prepare_run *run, uint64_t memory_bytes);

/**
 * Builds and writes a bank of neurons.
 * buffer  in  aligned to 64, of pi2_prepare_bank_least_bytes() at least; with pi2_prepare_bank_most_bytes() Up and Down
 *             are read once
 * may_report  in  this is the caller's thread
 * Errors  IO, MEMORY, INTERRUPTED
 */
pi2_status pi2_prepare_bank(pi2_prepare_run *run, pi2_extent_builder *builder, uint32_t number, void *buffer,
                            size_t buffer_bytes, bool may_report);
uint64_t pi2_prepare_bank_least_bytes(const pi2_neuron_bank *bank);
uint64_t pi2_prepare_bank_most_bytes(const pi2_neuron_bank *bank);
/** What it takes beside the buffer, while its neurons are ordered. */
uint64_t pi2_prepare_bank_order_bytes(const pi2_neuron_bank *bank);

#endif
