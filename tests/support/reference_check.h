/* reference_check.h: the engine's logits against the float reference's. */
#ifndef PI2_TESTS_SUPPORT_REFERENCE_CHECK_H
#define PI2_TESTS_SUPPORT_REFERENCE_CHECK_H

#include "powerinfer2/engine.h"
#include "support/tiny_model.h"

/**
 * Fails the test when the logits of a token differ by more than `most`, relative to their spread.
 * exceptions: tokens that may; where experts are close, rounding may choose another one.
 */
void pi2_check_against_reference(const pi2_tiny_model_options *options, pi2_cache_type cache_type, double most,
                                 int exceptions);

#endif
