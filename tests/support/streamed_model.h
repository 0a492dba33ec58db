/*
 * streamed_model.h: the shape of a small model that is large enough to stream: its four layers are more than what a
 * tight budget leaves beside a test's own memory.
 */
#ifndef PI2_TESTS_SUPPORT_STREAMED_MODEL_H
#define PI2_TESTS_SUPPORT_STREAMED_MODEL_H

#include "support/tiny_model.h"

static inline void pi2_streamed_model_options_init(pi2_tiny_model_options *options) {
    pi2_tiny_model_options_init(options);
    options->layer_count = 4;
    options->embedding_length = 512;
    options->feed_forward_length = 3072;
    options->head_count = 8;
}

#endif
