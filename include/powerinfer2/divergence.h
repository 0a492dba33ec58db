/*
 * divergence.h: how far what a model says of the tokens of a text is from what a reference says: Kullback-Leibler
 * divergence (in nats), the likeliest token, the perplexities. The figures are those of llama-perplexity.
 */
#ifndef POWERINFER2_DIVERGENCE_H
#define POWERINFER2_DIVERGENCE_H

#include <stddef.h>
#include <stdint.h>

#include "powerinfer2/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A mean, and its standard error. */
typedef struct pi2_estimate {
    double value, error;
} pi2_estimate;

enum { PI2_PERCENTILES = 13 };
/** The share of values below percentile `index`: 0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5 and so on up to 1. */
PI2_API double pi2_percentile(size_t index);

typedef struct pi2_divergence_summary {
    uint64_t tokens;
    pi2_estimate divergence;           /* of the model's probabilities from the reference's, a token */
    pi2_estimate same_top;             /* share of tokens for which both have the same likeliest one */
    pi2_estimate perplexity, reference_perplexity, perplexity_ratio; /* ratio: the model's by the reference's */
    double correlation;                /* of their surprises; 1 where neither varies */
    pi2_estimate change, change_rms;   /* of the probability of the token that came: the model's less the reference's */
    double divergences[PI2_PERCENTILES], changes[PI2_PERCENTILES];
} pi2_divergence_summary;

typedef struct pi2_divergence pi2_divergence;

/** Room for so many tokens, all of it taken at once: 8 bytes each, and 4 for each logit. Errors  MEMORY */
PI2_API pi2_status pi2_divergence_create(uint32_t vocabulary_size, uint64_t most_tokens,
                                         pi2_divergence **divergence_out);
PI2_API void pi2_divergence_free(pi2_divergence *divergence);
/** Where the logarithms of the reference's probabilities go for the next token: [vocabulary_size]. */
PI2_API float *pi2_divergence_reference(pi2_divergence *divergence);
/**
 * Adds a token of which the reference says what pi2_divergence_reference() holds, and the model `logits`,
 * [vocabulary_size]. Equal bits in both, as pi2_log_probabilities() makes them, have divergence 0.
 * Errors  FORMAT (logits that are no numbers), INVALID (no room)
 */
PI2_API pi2_status pi2_divergence_add(pi2_divergence *divergence, const float *logits, int32_t token);
/** Of what was added so far. Values are sorted by it. Errors  INVALID (nothing) */
PI2_API pi2_status pi2_divergence_summarize(pi2_divergence *divergence, pi2_divergence_summary *summary_out);

#ifdef __cplusplus
}
#endif
#endif
