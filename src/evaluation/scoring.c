/* scoring.c: chunks of a text through a session. Sums are in double, in the order of the vocabulary. */
#include "powerinfer2/scoring.h"

#include <math.h>

#include "base/fail.h"

/** What is taken from each logit to make it the logarithm of a probability. */
static double normalizer(const float *logits, uint32_t count) {
    float largest = logits[0];
    for (uint32_t i = 1; i < count; i++) largest = logits[i] > largest ? logits[i] : largest;
    double sum = 0.0;
    for (uint32_t i = 0; i < count; i++) sum += (double)expf(logits[i] - largest);
    return (double)largest + log(sum);
}

double pi2_surprise(const float *logits, uint32_t count, int32_t token) {
    return normalizer(logits, count) - (double)logits[token];
}

void pi2_log_probabilities(const float *logits, uint32_t count, float *log_probabilities_out) {
    const double all = normalizer(logits, count);
    for (uint32_t i = 0; i < count; i++) log_probabilities_out[i] = (float)((double)logits[i] - all);
}

uint32_t pi2_scored_tokens(uint32_t chunk_tokens) { return chunk_tokens - chunk_tokens / 2 - 1; }

static pi2_status take(const pi2_engine_report *report, const float *logits, const pi2_scored_chunk *chunk,
                       uint32_t place, pi2_score_taker *taker, void *user) {
    const int32_t token = chunk->tokens[place];
    const double surprise = pi2_surprise(logits, report->vocabulary_size, token);
    if (isfinite(surprise)) return taker(user, logits, token, surprise);
    return pi2_fail(PI2_ERR_FORMAT, "%s: the logits of token %llu are no numbers: the model file may be damaged "
                    "('powerinfer2 inspect --verify' checks a cluster file)", report->weights_path,
                    (unsigned long long)(chunk->first + place));
}

pi2_status pi2_score_chunk(const pi2_engine *engine, pi2_session *session, const pi2_scored_chunk *chunk,
                           pi2_score_taker *taker, void *user) {
    const pi2_engine_report *report = pi2_engine_get_report(engine);
    const uint32_t first = chunk->count / 2, last = chunk->count - 1;
    if (chunk->count < 4 || chunk->step == 0) {
        return pi2_fail(PI2_ERR_INVALID, "chunks have 4 tokens at least, and steps 1");
    }
    PI2_TRY(pi2_session_truncate(session, 0));
    PI2_TRY(pi2_session_append(session, chunk->tokens, first, PI2_LOGITS_NONE));
    for (uint32_t at = first; at < last; at += chunk->step) {
        const uint32_t count = last - at < chunk->step ? last - at : chunk->step;
        PI2_TRY(pi2_session_append(session, chunk->tokens + at, count, PI2_LOGITS_ALL));
        for (uint32_t i = 0; i < count; i++) {
            PI2_TRY(take(report, pi2_session_logits(session, i), chunk, at + i + 1, taker, user));
        }
    }
    return PI2_OK;
}
