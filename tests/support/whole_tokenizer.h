/* whole_tokenizer.h: tokenizes a text as one piece, step by step over all of it, to compare with. */
#ifndef PI2_TESTS_SUPPORT_WHOLE_TOKENIZER_H
#define PI2_TESTS_SUPPORT_WHOLE_TOKENIZER_H

#include "tokenizer/tokenizer.h"

/** What pi2_tokenizer_encode() gives without BOS. Plain and slow; *tokens_out is malloc'd. Aborts without memory. */
void pi2_whole_encode(const pi2_tokenizer *tokenizer, const pi2_text_segment *segments, size_t segment_count,
                      int32_t **tokens_out, size_t *count_out);

#endif
