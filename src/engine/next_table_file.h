/*
 * next_table_file.h: the file of a table of next tokens. Every byte of it is untrusted. Numbers are little-endian:
 *
 *    0  8 bytes      "PI2NEXT2"
 *    8  u64          header hash of the model's GGUF (pi2_run_source.header_hash)
 *   16  u64          XXH3 64 of what lies behind the header
 *   24  u32          V, tokens: the ids that have logits
 *   28  u32          K, candidates of each, 1 .. 32
 *   32  V x K x u32  of each token those that may be next, the likeliest first: its id in the lower 24 bits, above
 *                    them how unlikely it is; PI2_NO_NEXT: none, nor any behind it
 */
#ifndef PI2_ENGINE_NEXT_TABLE_FILE_H
#define PI2_ENGINE_NEXT_TABLE_FILE_H

#include "planner/planned_run.h"
#include "powerinfer2/next_table.h"

#define PI2_NO_NEXT UINT32_MAX
enum { PI2_NEXT_HEADER_BYTES = 32, PI2_NEXT_AT_HASH = 8, PI2_NEXT_AT_COUNT = 24 };
enum { PI2_NEXT_ID_BITS = 24, PI2_NEXT_STEPS = 16 }; /* so many steps of unlikeliness halve a chance */

/** Of each token the candidates for the next one. */
typedef struct pi2_next_table {
    uint32_t count, width;
    uint32_t entries[];      /* [count][width] */
} pi2_next_table;

static inline uint32_t pi2_next_id(uint32_t entry) { return entry & ((1u << PI2_NEXT_ID_BITS) - 1); }
/** 0 .. 255: minus the chance's binary logarithm, times PI2_NEXT_STEPS. */
static inline uint32_t pi2_next_unlikeliness(uint32_t entry) { return entry >> PI2_NEXT_ID_BITS; }

/** What lies beside the run's model under its name: "model.gguf" and "model.pi2" have "model." and the ending. False:
 *  the path would be too long. */
bool pi2_path_beside_model(const pi2_planned_run *run, const char *ending, char *path_out, size_t capacity);
/** Where the run's model has its table. False: the path would be too long. */
bool pi2_next_table_path(const pi2_planned_run *run, char path_out[PI2_NEXT_TABLE_PATH_BYTES]);
/** Memory that the table beside the run's model takes; 0: there is none, or it is another model's. */
size_t pi2_next_table_bytes(const pi2_planned_run *run);
/**
 * Reads and checks a table: of each token other ids below `count`, the likeliest first; free() it.
 * header_hash, count  in  of the model
 * Errors  IO, FORMAT (damaged, another model's, of another version), MEMORY
 */
pi2_status pi2_next_table_read(const char *path, uint64_t header_hash, uint32_t count, pi2_next_table **table_out);

#endif
