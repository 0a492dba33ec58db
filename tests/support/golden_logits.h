/*
 * golden_logits.h: what llama.cpp computed on a tiny model (tests/golden/make_family_logits.sh), and
 * how far an engine lies from it.
 */
#ifndef PI2_TESTS_SUPPORT_GOLDEN_LOGITS_H
#define PI2_TESTS_SUPPORT_GOLDEN_LOGITS_H

#include <stdint.h>

#include "powerinfer2/session.h"

/** What llama-perplexity --kl-divergence-base writes: of one chunk the tokens, and of those behind its middle the
 *  probabilities' logarithms, 16 bits each. */
typedef struct pi2_golden_logits {
    uint32_t tokens, vocabulary, first; /* first: position of the first logarithms */
    int32_t *ids;
    double *logarithms;                 /* [tokens - 1 - first][vocabulary] */
} pi2_golden_logits;

/** Reads FOLDER/NAME.kld, or fails the test. */
void pi2_golden_logits_read(const char *folder, const char *name, pi2_golden_logits *golden_out);
void pi2_golden_logits_free(pi2_golden_logits *golden);

/** Logits of the places that the file tells of, [tokens - 1 - first][vocabulary], malloc'd, by an engine with these
 *  options. name: for messages of the test that fails. */
float *pi2_golden_logits_of_engine(const pi2_golden_logits *golden, const char *name,
                                   const pi2_engine_options *options);
/** Mean divergence of the probabilities of `logits` from the file's; of exact, logits in the same order, from those.
 *  Both of the tokens alone that the file tells of. */
double pi2_golden_logits_mean(const pi2_golden_logits *golden, const float *logits);
double pi2_golden_logits_mean_from(const pi2_golden_logits *golden, const double *exact, const float *logits);
/** The least deviation of a place's logits. */
double pi2_golden_logits_deviation(const pi2_golden_logits *golden, const float *logits);
/** How often the file's likeliest token is clear, and of these how often `logits` say another. */
void pi2_golden_logits_count(const pi2_golden_logits *golden, const float *logits, size_t *clear_out,
                             size_t *other_out);

/** Mean divergence of what an engine with these options says of the tokens; least_out: the least deviation of a token's
 *  logits. Fails the test where the likeliest token is another and clear; checks_first false: not. */
double pi2_golden_logits_divergence(const pi2_golden_logits *golden, const char *name,
                                    const pi2_engine_options *options, bool checks_first, double *least_out);
/** Fails the test where that is over `most`, or logits deviate by less than 3. With PI2_SHOW_DIVERGENCE in the
 *  environment it only tells both. */
void pi2_golden_logits_check(const pi2_golden_logits *golden, const char *name, const pi2_engine_options *options,
                             double most);

#endif
