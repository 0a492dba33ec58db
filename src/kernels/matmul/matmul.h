/* matmul.h: tiles of weights times a batch of activations. The work of the engine. */
#ifndef PI2_KERNELS_MATMUL_MATMUL_H
#define PI2_KERNELS_MATMUL_MATMUL_H

#include <stdbool.h>

#include "kernels/activations.h"

/**
 * For each token t in [token_begin, token_begin + token_count) and each row r of the tiles:
 *
 *   out[(t - token_begin) * out_stride + r] continues its chain over the columns
 *   column_begin .. column_begin + columns of activations x, blocks ascending.
 *
 * The chain starts at 0 when `start` is true, else at the present value of out: Down is
 * thus summed cluster by cluster with the same bits as in one sweep.
 *
 *   out          [token_count][out_stride] floats; rows 0 .. tile_count * 16 - 1 are written
 *   tiles        tile_count tiles of `columns` columns, one after another, 64-byte aligned
 *   columns      columns in each tile: a multiple of the format's block
 *   column_begin where in x the tiles' first column meets: a multiple of the block
 *   x            of the format's activation kind
 * Threads: calls that write different rows or tokens may run at the same time.
 * Results are the same bits for every kernel of a format, every token_count and every split.
 */
typedef void pi2_matmul_fn(float *out, size_t out_stride, const void *tiles, size_t tile_count,
                           size_t columns, size_t column_begin, const pi2_activations *x,
                           size_t token_begin, size_t token_count, bool start);

typedef struct pi2_matmul_kernel {
    const char *name;
    pi2_weight_type format;
    unsigned cpu_required;
    pi2_matmul_fn *run;
} pi2_matmul_kernel;

extern const pi2_matmul_kernel pi2_matmul_kernels[];
extern const size_t pi2_matmul_kernel_count;

/** The best kernel of a format for the CPU features; the scalar one is the specification. */
const pi2_matmul_kernel *pi2_matmul_select(pi2_weight_type format, unsigned cpu_features);

#endif
