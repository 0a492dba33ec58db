/* logits_layout.h: where what lies in llama-perplexity's file of logits; docs/evaluation.md describes it. */
#ifndef PI2_EVALUATION_LOGITS_LAYOUT_H
#define PI2_EVALUATION_LOGITS_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PI2_LOGITS_HEADER_BYTES = 20, PI2_LOGITS_ROW_HEAD_BYTES = 8,
    PI2_LOGITS_MOST_CONTEXT = 1 << 26, PI2_LOGITS_MOST_VOCABULARY = 1 << 24, PI2_LOGITS_LEVELS = 65535
};
/* Below the likeliest token by so much, all are taken for equally unlikely. */
#define PI2_LOGITS_DEPTH 16.0f

/** Whether a file begins as one of logits. */
bool pi2_logits_file_is(const uint8_t *head, size_t count);
/** A scored token's scale, least logarithm and levels, of which there is an even number. */
uint64_t pi2_logits_row_bytes(uint32_t vocabulary_size);
/** All of a file with these numbers, which are within the limits above. chunk_count: at most INT32_MAX. */
uint64_t pi2_logits_file_bytes(uint32_t chunk_tokens, uint32_t vocabulary_size, uint64_t chunk_count);

#endif
