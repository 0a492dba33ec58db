/* extent_build.h: makes extents out of a GGUF's rows: for loading a model that fits, and for
 * writing the cluster file. */
#ifndef PI2_CLUSTERS_EXTENT_BUILD_H
#define PI2_CLUSTERS_EXTENT_BUILD_H

#include "clusters/extent_layout.h"

/** Threads: a builder belongs to one thread; several may work on the same model side by side,
 *  each on other groups. */
typedef struct pi2_extent_builder pi2_extent_builder;

/**
 * scratch_bytes  in  for source rows: larger means fewer and larger reads (4 MB is enough). It is
 *                    raised to what 16 rows of the widest tensor need.
 * gguf, layout   in  must outlive the builder
 * Errors  FORMAT (a tensor of the layout is missing in the source or has another shape), MEMORY
 */
pi2_status pi2_extent_builder_open(const pi2_gguf *gguf, const pi2_extent_layout *layout,
                                   size_t scratch_bytes, pi2_extent_builder **builder_out);
void pi2_extent_builder_close(pi2_extent_builder *builder); /* NULL is fine */

/**
 * Builds extents of one group. Each tensor's rows are read once, in order, whatever the number of
 * extents: give all the memory at once where it is there, because Down's columns of every
 * cluster lie in every row of Down.
 *
 * extent_memory  in  shape [the group's extent_count]: where extent i of the group goes, with room
 *                    for its `bytes`, aligned to 64; NULL: not wanted
 * Errors  IO (file, byte offset). What was written by then is undefined.
 */
pi2_status pi2_extent_builder_group(pi2_extent_builder *builder, uint32_t group,
                                    void *const extent_memory[]);

/**
 * Reads rows of a tensor as the source has them, as many as the scratch memory holds and at most row_limit; in steps of
 * 16 rows unless the limit is less.
 * tensor     in   of the layout; row_begin + row_limit: at most its rows
 * *data_out       the rows one after the other, until the builder is used again
 * Errors  IO (file, tensor, byte offset)
 */
pi2_status pi2_extent_builder_rows(pi2_extent_builder *builder, uint32_t tensor, uint64_t row_begin, uint64_t row_limit,
                                   const uint8_t **data_out, uint64_t *row_count_out);

/** Whether the source stores this tensor by column (PowerInfer's Down): then rows of it cannot be had, only columns. */
bool pi2_extent_builder_is_by_column(const pi2_extent_builder *builder, uint32_t tensor);

/**
 * The same for columns of a tensor that is stored by column: at least one, whatever the scratch memory.
 * *data_out       the columns one after the other, each with all rows, as floats of the tensor's type; aligned to 4
 *                 where they were decoded
 */
pi2_status pi2_extent_builder_columns(pi2_extent_builder *builder, uint32_t tensor, uint64_t column_begin,
                                      uint64_t column_limit, const uint8_t **data_out, uint64_t *column_count_out);

#endif
