/*
 * next_table_file.h: the file of a table of next tokens. Every byte of it is untrusted. Numbers are little-endian:
 *
 *    0  8 bytes  "PI2NEXT1"
 *    8  u64      header hash of the model's GGUF (pi2_run_source.header_hash)
 *   16  u64      XXH3 64 of what lies behind the header
 *   24  u32      V, entries: the ids that have logits
 *   28  u32      0
 *   32  V x u32  of each token, the likeliest next one; PI2_NO_NEXT: none
 */
#ifndef PI2_ENGINE_NEXT_TABLE_FILE_H
#define PI2_ENGINE_NEXT_TABLE_FILE_H

#include "planner/planned_run.h"
#include "powerinfer2/next_table.h"

#define PI2_NO_NEXT UINT32_MAX

/** Where the run's model has its table. False: the path would be too long. */
bool pi2_next_table_path(const pi2_planned_run *run, char path_out[PI2_NEXT_TABLE_PATH_BYTES]);
/** Entries of the table beside the run's model; 0: there is none, or it is another model's. */
uint32_t pi2_next_table_entries(const pi2_planned_run *run);
/**
 * Reads and checks a table of so many entries, all of them ids of the model's or PI2_NO_NEXT.
 * Errors  IO, FORMAT (damaged, or another one by now)
 */
pi2_status pi2_next_table_read(const pi2_planned_run *run, uint32_t count, uint32_t *entries_out);

#endif
