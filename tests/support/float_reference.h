/* float_reference.h: every family in double precision, row by row, sharing nothing with the pipeline. */
#ifndef PI2_TESTS_SUPPORT_FLOAT_REFERENCE_H
#define PI2_TESTS_SUPPORT_FLOAT_REFERENCE_H

#include <stddef.h>
#include <stdint.h>

/**
 * Experts that another computation chose. Which of two experts with nearly the same score is taken is decided
 * by rounding, and changes everything after it; so the reference computes with these, and tells by
 * how much they were not the best.
 */
typedef struct pi2_expert_choice {
    const uint32_t *experts; /* [token][layer][used]: of a layer, in any order */
    double largest_gap;      /* out: how far the least of the chosen lies under the least of the best, in standard
                                deviations of the router's scores */
} pi2_expert_choice;

/**
 * Logits of every position of tokens[count] for the GGUF at `path`: logits_out is
 * [count][vocabulary], malloc'd; *vocabulary_out is its width. Weights are decoded to doubles,
 * activations are never rounded. choice: NULL, or whose experts are taken. Returns 0, or -1 when the
 * file cannot be used.
 */
int pi2_float_reference(const char *path, const int32_t *tokens, size_t count, pi2_expert_choice *choice,
                        double **logits_out, size_t *vocabulary_out);

#endif
