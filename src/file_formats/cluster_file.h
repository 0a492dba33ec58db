/* cluster_file.h: the .pi2 file: a GGUF container that holds extents. docs/cluster_file_format.md */
#ifndef PI2_FILE_FORMATS_CLUSTER_FILE_H
#define PI2_FILE_FORMATS_CLUSTER_FILE_H

#include "file_formats/gguf_writer.h"
#include "clusters/neuron_bank.h"
#include "powerinfer2/callbacks.h"
#include "powerinfer2/status.h"

enum { PI2_CLUSTER_FILE_VERSION = 2 };

/** True when the parsed GGUF carries our layout (key powerinfer2.version). */
bool pi2_cluster_file_is(const pi2_gguf *gguf);

/** True when it was made in the neuron layout: its features say that it holds banks of neurons. */
bool pi2_cluster_file_has_neurons(const pi2_gguf *gguf);
/** True when those banks hold Gate too: the bundle layout. */
bool pi2_cluster_file_has_bundles(const pi2_gguf *gguf);

/** Which source a cluster file was made from; docs/cluster_file_format.md says what each covers. */
typedef struct pi2_source_identity {
    uint64_t bytes;          /* of all parts together */
    uint64_t header_hash;    /* XXH3 64 over the header hashes of all parts */
    uint64_t sample_hash;    /* of samples of every tensor; from a cluster file only */
    uint64_t content_hash;   /* of every byte; from a cluster file only */
} pi2_source_identity;

/** bytes and header_hash, which need no reading. Errors MEMORY */
pi2_status pi2_source_identity_of(const pi2_gguf *gguf, pi2_source_identity *identity_out);
/** That header_hash: a GGUF's own, a cluster file's as it is told there. Errors MEMORY, FORMAT (it tells none) */
pi2_status pi2_source_header_hash(const pi2_gguf *gguf, uint64_t *hash_out);
/** Reads a bounded number of samples, which are asked for together. Errors IO, MEMORY */
pi2_status pi2_source_sample_hash(const pi2_gguf *source, uint64_t *hash_out);
/** That sample_hash: of a cluster file's source, as it is told there. Errors IO, MEMORY, FORMAT (it tells none) */
pi2_status pi2_source_known_samples(const pi2_gguf *gguf, uint64_t *hash_out);
/** Reads the source whole, chunk by chunk. callbacks may be NULL. Errors IO, MEMORY, INTERRUPTED */
pi2_status pi2_source_hash(const pi2_gguf *source, size_t chunk_bytes, const pi2_callbacks *callbacks,
                           uint64_t *hash_out);
/** Gives an open cluster file the time by which it is known that the source was compared whole. A source that was
 *  changed just now is not remembered yet. False: the file system does not let us. */
bool pi2_source_remember(const pi2_gguf *source, int cluster_file);
/** Whether the cluster file has that time. */
bool pi2_source_is_remembered(const pi2_gguf *source, const pi2_gguf *cluster);
/** Errors IO: a part has another time or size than when it was opened. */
pi2_status pi2_source_check_unchanged(const pi2_gguf *source);

/** Parses and checks the tables of a cluster file: every piece inside its extent, every tensor
 *  covered exactly once, extents inside the file, no overlap. Errors FORMAT, UNSUPPORTED, MEMORY. */
pi2_status pi2_cluster_file_layout(const pi2_gguf *gguf, pi2_extent_layout **layout_out,
                                   pi2_source_identity *source_out);

/**
 * Reads and checks the table of banks of neurons against the layout, which is the file's, and against the file. The
 * heads are not read.
 * *banks_out: NULL when the file is in the dense layout
 * Errors  FORMAT, UNSUPPORTED (neurons larger than this version reads), MEMORY
 */
pi2_status pi2_cluster_file_banks(const pi2_gguf *gguf, const pi2_extent_layout *layout, pi2_neuron_banks **banks_out);

/** Which statistics a file's neurons were ordered by (pi2_neuron_statistics.checksum); 0: none. */
uint64_t pi2_cluster_file_statistics(const pi2_gguf *gguf);

/**
 * Compares an extent as read (its `bytes` bytes) with its checksum. path: the file's, for the message.
 * Errors  FORMAT: file, extent, tensor and byte offset
 */
pi2_status pi2_cluster_file_check_extent(const char *path, const pi2_extent_layout *layout,
                                         uint32_t extent, const void *bytes);

/** Compares a run of rows (pi2_piece_run(), from `row` of a piece of `extent` on) with its checksum. Errors FORMAT. */
pi2_status pi2_cluster_file_check_run(const char *path, const pi2_extent_layout *layout, uint32_t extent,
                                      const pi2_piece *piece, uint32_t row, const void *bytes);

/** Compares a table's data (a small tensor, whole) with its checksum. Errors FORMAT. */
pi2_status pi2_cluster_file_check_table(const pi2_gguf *gguf, const pi2_gguf_tensor *table,
                                        const void *bytes);

/**
 * Reads the whole file and compares every checksum: header, tables, extents.
 * Errors  FORMAT (the first thing that differs, by name and byte offset), IO, MEMORY, INTERRUPTED
 */
pi2_status pi2_cluster_file_verify(const pi2_gguf *gguf, const pi2_callbacks *callbacks);

/* ---- writing (prepare) ------------------------------------------------------------------ */

/** Where things that are known last lie in a header: for pi2_gguf_writer_patch(). */
typedef struct pi2_cluster_header {
    pi2_gguf_writer *writer;
    const pi2_gguf_tensor **tables;  /* small tensors of the source, in the order of the file */
    uint64_t *table_offsets;         /* from the start of the data */
    uint32_t table_count;
    uint64_t *group_offsets;         /* from the start of the data; each group's extents follow */
    uint64_t *unit_offsets, *head_offsets; /* of each bank of neurons, from the start of the data */
    uint64_t data_bytes;
    size_t table_checksums_at, extent_checksums_at, lookup_checksums_at, header_checksum_at;
    size_t content_hash_at;
    size_t bank_checksums_at, bank_left_out_at; /* u64 and bool of each bank */
    size_t table_end;                /* bytes of the header without the padding behind it */
} pi2_cluster_header;

/**
 * Makes the header of a cluster file for a source and its layout; checksums are zeros as yet.
 * banks       in  what pi2_neuron_banks_plan() gives for the layout; NULL: the dense layout
 * statistics  in  what pi2_cluster_file_statistics() shall tell
 * Errors  UNSUPPORTED (a tensor of a type whose size is not known), INVALID, MEMORY
 */
pi2_status pi2_cluster_header_make(const pi2_gguf *source, const pi2_extent_layout *layout,
                                   const pi2_neuron_banks *banks, uint64_t statistics,
                                   pi2_cluster_header *header_out);
void pi2_cluster_header_free(pi2_cluster_header *header);

/** Bytes of an extent and its padding within its group; the offset of extent i of a group is the
 *  sum of those before it. */
uint64_t pi2_cluster_extent_stride(const pi2_extent *extent);

/* ---- where it lies ---------------------------------------------------------------------- */

/**
 * Where the cluster file of a model goes: beside it as "<model without .gguf>.pi2" when that folder
 * can be written, else "${XDG_CACHE_HOME:-~/.cache}/powerinfer2/<model>-<number>.pi2", whose
 * folder is made. The number is that of the model's header and path: no two models have the same.
 * path_out: malloc'd.
 * Errors  IO (no folder can be written), MEMORY
 */
pi2_status pi2_cluster_file_default_path(const pi2_gguf *source, char **path_out);

/** What a cluster file shall serve for. */
typedef struct pi2_cluster_wish {
    pi2_layout_kind layout; /* a file of the neuron layout serves as one of the dense layout too */
    uint64_t statistics;    /* neuron layout: that its neurons must be ordered by (their checksum); 0: any or none */
} pi2_cluster_wish;

/**
 * Tells whether a file is a cluster file of this version, made from the weights that the source has now, that serves.
 * Samples are compared each time; the whole source where the cluster file does not remember its time: that takes as
 * long as reading it, and is remembered.
 * wish             in   NULL: any layout
 * callbacks        in   may be NULL
 * header_hash_out  out  pi2_gguf_file_header_hash() of what was compared, by which whoever opens the path again knows
 *                       it; may be NULL
 * Errors  FORMAT, UNSUPPORTED, IO, MEMORY: why not, such as "made from another version of ..."; INTERRUPTED
 */
pi2_status pi2_cluster_file_matches(const char *path, const pi2_gguf *source, const pi2_cluster_wish *wish,
                                    const pi2_callbacks *callbacks, uint64_t *header_hash_out);

/**
 * Looks for a good cluster file that serves: at wanted_path, or where NULL beside the model and in the cache.
 * *path_out: malloc'd, or NULL when there is none; then note says in one line why one that is
 * there was not taken ("" when there is none at all). The others as above. Errors MEMORY, INTERRUPTED
 */
pi2_status pi2_cluster_file_find(const pi2_gguf *source, const char *wanted_path, const pi2_cluster_wish *wish,
                                 const pi2_callbacks *callbacks, char **path_out, char *note, size_t note_bytes,
                                 uint64_t *header_hash_out);
#endif
