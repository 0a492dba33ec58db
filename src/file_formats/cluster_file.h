/* cluster_file.h: the .pi2 file: a GGUF container that holds extents. docs/cluster_file_format.md */
#ifndef PI2_FILE_FORMATS_CLUSTER_FILE_H
#define PI2_FILE_FORMATS_CLUSTER_FILE_H

#include "planner/extent_layout.h"

/** True when the parsed GGUF carries our layout (key powerinfer2.version). */
bool pi2_cluster_file_is(const pi2_gguf *gguf);

/** Which source a cluster file was made from. */
typedef struct pi2_source_identity {
    uint64_t bytes;          /* of all parts together */
    int64_t modified_ns;     /* newest part, informative */
    uint64_t header_hash;    /* XXH3 64 over the header bytes of all parts */
} pi2_source_identity;

pi2_status pi2_source_identity_of(const pi2_gguf *gguf, pi2_source_identity *identity_out);

/** Parses and checks the tables of a cluster file: every piece inside its extent, every tensor
 *  covered exactly once, extents inside the file, no overlap. Errors FORMAT, UNSUPPORTED, MEMORY. */
pi2_status pi2_cluster_file_layout(const pi2_gguf *gguf, pi2_extent_layout **layout_out,
                                   pi2_source_identity *source_out);
#endif
