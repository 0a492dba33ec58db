/* reference_check.h: the engine's logits against the float reference's. */
#ifndef PI2_TESTS_SUPPORT_REFERENCE_CHECK_H
#define PI2_TESTS_SUPPORT_REFERENCE_CHECK_H

#include "powerinfer2/engine.h"
#include "support/tiny_model.h"

/**
 * Fails the test when the logits of a token differ by more than `most`, relative to how much logits
 * differ from token to token. Of a mixture of experts the reference takes the experts that the engine
 * chose, and each of them must be among the best, up to `most_gap` standard deviations of the
 * router's scores.
 */
void pi2_check_against_reference(const pi2_tiny_model_options *options, pi2_cache_type cache_type, double most,
                                 double most_gap);

/** The same for a dense model in a file. */
void pi2_check_file_against_reference(const char *path, pi2_cache_type cache_type, double most);

#endif
