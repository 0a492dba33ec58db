/* float_reference.h: every family in double precision, row by row, sharing nothing with the pipeline. */
#ifndef PI2_TESTS_SUPPORT_FLOAT_REFERENCE_H
#define PI2_TESTS_SUPPORT_FLOAT_REFERENCE_H

#include <stddef.h>
#include <stdint.h>

/**
 * Logits of every position of tokens[count] for the GGUF at `path`: logits_out is
 * [count][vocabulary], malloc'd; *vocabulary_out is its width. Weights are decoded to doubles,
 * activations are never rounded. Returns 0, or -1 when the file cannot be used.
 */
int pi2_float_reference(const char *path, const int32_t *tokens, size_t count, double **logits_out,
                        size_t *vocabulary_out);

#endif
