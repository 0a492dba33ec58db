/* model_layout.h: a model file opened and laid out as the engine does it. Failures end the test. */
#ifndef PI2_TESTS_MODEL_LAYOUT_H
#define PI2_TESTS_MODEL_LAYOUT_H

#include "architectures/architecture.h"

typedef struct test_model {
    pi2_gguf *gguf;
    pi2_tensor_directory directory;
    pi2_model_requests requests;
    pi2_extent_layout *layout;
} test_model;

void test_model_open(const char *path, test_model *model_out);
void test_model_open_as(const char *path, pi2_layout_kind kind, test_model *model_out);
void test_model_close(test_model *model);

/** Memory for every extent of a layout: shape [extent_count]; test_extents_free(). */
void **test_extents_make(const pi2_extent_layout *layout);
void test_extents_free(void **extents, const pi2_extent_layout *layout);

/** Compares every piece of every extent with the source's rows, read on its own. */
void test_extents_check(const pi2_extent_layout *layout, void *const *extents,
                        const pi2_gguf *source);

#endif
