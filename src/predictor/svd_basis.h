/*
 * svd_basis.h: the directions of its input that a matrix has most of, as inputs weigh them: of all matrices of rank k,
 * rows * along * code' gives what is nearest to the rows' products with such inputs.
 */
#ifndef PI2_PREDICTOR_SVD_BASIS_H
#define PI2_PREDICTOR_SVD_BASIS_H

#include "base/team.h"
#include "kernels/training/training.h"
#include "powerinfer2/status.h"

#include <stdint.h>

typedef struct pi2_svd_basis {
    uint32_t width, count;
    float *along, *code; /* [width][count], of most weight first; code' times an input is its code, of variance 1 */
} pi2_svd_basis;

typedef struct pi2_svd_basis_request {
    uint32_t width, count;     /* of directions: at most width */
    float *gram;               /* [width][width]: the matrix' columns by each other; it is written over */
    const float *deviations;   /* [width]: of inputs, above 0, by themselves; NULL: moments say it */
    float *moments;            /* [width][width]: means of products of inputs, positive definite; it is written over */
    uint64_t seed;
    pi2_team *team;
    const pi2_training_kernels *kernels;
} pi2_svd_basis_request;

/** The same on any number of threads. Errors  MEMORY, FORMAT (numbers that are none) */
pi2_status pi2_svd_basis_find(const pi2_svd_basis_request *request, pi2_svd_basis *basis_out);
void pi2_svd_basis_free(pi2_svd_basis *basis); /* zeroed is fine */

#endif
