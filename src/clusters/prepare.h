/* prepare.h: writes a model's cluster file. */
#ifndef PI2_CLUSTERS_PREPARE_H
#define PI2_CLUSTERS_PREPARE_H

#include <sys/types.h>

#include "clusters/extent_layout.h"
#include "powerinfer2/callbacks.h"
#include "powerinfer2/status.h"
#include "statistics/neuron_statistics.h"

/** What is asked of the disk, so that tests can make it fail. */
typedef struct pi2_prepare_calls {
    ssize_t (*write_at)(int file, const void *bytes, size_t count, off_t offset);
    int (*sync)(int file);
    uint64_t (*free_bytes)(int file); /* of its file system; UINT64_MAX: unknown */
} pi2_prepare_calls;

typedef struct pi2_prepare_settings {
    uint64_t memory_bytes;          /* for all that prepare itself takes, page cache included, beside the
                                       source's header that is open; 0: 64 MB */
    pi2_layout_kind layout;
    const pi2_neuron_statistics *statistics; /* by which single neurons are ordered, where there are any; NULL: none */
    const char *statistics_name;    /* for error texts: their path */
    bool overwrite;                 /* make it anew, in place of any file but the source's */
    pi2_callbacks callbacks;        /* progress: "preparing", bytes of the file */
    const pi2_prepare_calls *calls; /* NULL: the system's */
} pi2_prepare_settings;

/**
 * Writes the cluster file of a source at output_path, unless a good one is there. The file has its
 * name only once it is whole and on the disk; until then it is ".<name>.tmp" in the same folder,
 * which is also the lock: a second run waits for the first (and says so through `log`) and takes
 * its result, and what a killed run left there is used over.
 *
 * requests  in  the model's groups, in the order in which a token uses them
 *
 * The same source, layout and statistics give the same bytes, whatever the memory, the machine and the time. A good
 * file that is there is taken when it serves: one of the bundle layout serves as one of the neuron layout, both as one
 * of the dense layout too, and any order of neurons does where no statistics are given.
 *
 * Errors   INVALID (at output_path lies a file of the source, another model's cluster file, or no cluster file at
 *          all: it is not replaced), IO (no space, with what is needed and what is free; a write that failed; a
 *          folder that cannot be written), FORMAT, UNSUPPORTED, MEMORY (memory_bytes is too small: with the
 *          least), INTERRUPTED. Nothing is left behind then.
 * Threads  any; two threads preparing one file wait for each other like two processes
 */
pi2_status pi2_prepare(const pi2_gguf *source, const pi2_group_request *requests,
                       size_t request_count, const char *output_path,
                       const pi2_prepare_settings *settings);

#endif
