/* matmul_problem.h: tiles times activations for a test of a back-end, beside what the scalar kernels give. */
#ifndef PI2_TESTS_SUPPORT_MATMUL_PROBLEM_H
#define PI2_TESTS_SUPPORT_MATMUL_PROBLEM_H

#include "backends/backend.h"
#include "support/random_weights.h"

typedef struct shape {
    size_t tile_count, columns, column_begin, token_begin, token_count;
    bool start, stays;
} shape;

typedef struct problem {
    const pi2_weight_format *format;
    shape shape;
    uint8_t *unit, *tiles;       /* tiles: behind one that is not asked for */
    void *memory;
    pi2_activations x;
    float *out, *want, *first;   /* first: what both held */
    size_t out_stride, out_count, tile_bytes;
} problem;

problem make_problem(test_random *random, const pi2_weight_format *format, shape s);
void free_problem(problem *p);
/** What a back-end is asked for, its tiles a part of unit `unit`. */
pi2_backend_work work_of(const problem *p, uint32_t unit);
/** By the scalar kernels, into `want`. */
void compute_want(const problem *p);
/** Fails the test where out is not want, to the bit; NaN is as good as any other. */
void check_equal(const char *device, const problem *p);

#endif
