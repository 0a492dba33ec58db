/*
 * family_model.h: a tiny model of every family that is held against another engine's logits
 * (tests/golden/make_family_logits.sh). Everything in it is random, norms, biases, scales and recurrent parameters too,
 * so that nothing of a family can be left out without changing the logits.
 */
#ifndef PI2_TESTS_SUPPORT_FAMILY_MODEL_H
#define PI2_TESTS_SUPPORT_FAMILY_MODEL_H

#include <stddef.h>

#include "weight_formats/weight_format.h"

/** The family's number `index` in the list; NULL at its end. Names are those of architectures,
 *  except of olmo3, an olmo2 with windows, gemma4-experts, a gemma4, and deepseek2-lite, a
 *  deepseek2. */
const char *pi2_family_name(size_t index);

/** Writes the model, its matrices in a type of blocks of 32 or in floats. scale: 1; more widens it, to stream it.
 *  Returns 0, or an errno value; -1: there is no such family. The same arguments give the same bytes everywhere. */
int pi2_family_model_write(const char *family, pi2_weight_type type, uint32_t scale, const char *path);
/** The same in a child, whose memory counts against no budget of this process. */
int pi2_family_model_write_apart(const char *family, pi2_weight_type type, uint32_t scale, const char *path);

/** A layer that guesses for the llama of the same scale (EAGLE-3). */
typedef struct pi2_family_head {
    uint32_t layers[3];          /* whose inputs it reads; the number of layers: the head's */
    bool normed_residual, normed_features, own_rows, whole_vocabulary;
} pi2_family_head;
/** Writes it, as pi2_family_model_write() does models. family_eagle3.c */
int pi2_family_model_write_head(const pi2_family_head *head, pi2_weight_type type, uint32_t scale, const char *path);

#endif
