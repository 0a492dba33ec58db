/*
 * type_model.h: a tiny model of every weight type, and mixed ones, that are held against another engine's logits
 * (tests/golden/make_family_logits.sh). Norms are random, the head is of floats.
 */
#ifndef PI2_TESTS_SUPPORT_TYPE_MODEL_H
#define PI2_TESTS_SUPPORT_TYPE_MODEL_H

#include <stddef.h>

/** Of each model so many have other random weights: a bound that one of them happens to keep says little. */
enum { PI2_TYPE_MODEL_SEEDS = 3 };

/** The name of model number `index`: a type's, or a mix's; NULL at the end. */
const char *pi2_type_model_name(size_t index);

/** Writes model number `index` with random weights of that seed, from 1. Returns 0, or an errno value. The same bytes
 *  everywhere. */
int pi2_type_model_write(size_t index, unsigned seed, const char *path);

#endif
