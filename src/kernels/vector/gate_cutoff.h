/*
 * gate_cutoff.h: the cutoff of gelu_topk, which keeps of a token's Gates those that stand out (docs/arithmetic.md, A
 * cutoff for Gate). One definition in portable C, for every instruction set.
 */
#ifndef PI2_KERNELS_VECTOR_GATE_CUTOFF_H
#define PI2_KERNELS_VECTOR_GATE_CUTOFF_H

#include <stddef.h>

/**
 * By how many standard deviations the cutoff lies above the mean, so that of normally distributed Gates this share
 * falls below it: the inverse of the normal distribution. sparsity: above 0, below 1.
 */
float pi2_gate_deviations(float sparsity);

/**
 * Cuts one token's Gates of a whole layer, in the model's order: gate[i] = relu(gate[i] - (mean + deviations * standard
 * deviation)). Where one of them is infinite or no number, all become 0.
 */
void pi2_gate_cut(float *gate, size_t count, float deviations);

#endif
