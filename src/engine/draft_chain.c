/* draft_chain.c: see draft_chain.h. */
#include "engine/draft_chain.h"

#include <math.h>
#include <string.h>

#include "base/fail.h"
#include "kernels/vector/vector.h"

#define NEGLIGIBLE (-40.0f) /* so far below the best one a token's chance is nothing */
#define UNDRAWN 3e-4 /* nor is one drawn that is less likely than this share of the likeliest */
static const double hit_memory = 1.0 / 32;

void pi2_draft_chain_begin(pi2_draft_chain *chain) {
    for (int i = 0; i < PI2_DRAFT_BINS; i++) chain->right[i] = (i + 0.5) / PI2_DRAFT_BINS;
}

static int bin_of(float sure) {
    const int bin = (int)(sure * PI2_DRAFT_BINS);
    return bin < 0 ? 0 : bin < PI2_DRAFT_BINS ? bin : PI2_DRAFT_BINS - 1;
}

static uint32_t likeliest(const float *logits, uint32_t count) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

/* How sure logits are of the likeliest token. */
static double share_of(const float *logits, uint32_t count, uint32_t best) {
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        const float below = logits[i] - logits[best];
        if (!(below < NEGLIGIBLE)) sum += (double)pi2_expf(below);
    }
    return 1 / sum;
}

/* The row whose token is drawn, and how far it is ahead of the others: the same weights with logits that are a little
 * off would draw another. */
static uint32_t drawn(const pi2_draft_chain *chain, const float *logits, uint32_t likeliest_row,
                      const pi2_draws *draws, uint32_t depth, double *share_out) {
    const double least = (double)draws->least_share > UNDRAWN ? (double)draws->least_share : UNDRAWN;
    const float floor = logits[likeliest_row] + (float)pi2_log(least);
    uint32_t best = likeliest_row;
    double most = 0, sum = 0;
    for (uint32_t i = 0; i < chain->vocabulary; i++) {
        if (!(logits[i] >= floor)) continue;
        const int32_t token = chain->ids ? (int32_t)chain->ids[i] : (int32_t)i;
        const float weight = pi2_expf((logits[i] - logits[likeliest_row]) / draws->temperature);
        const double lead = (double)weight / pi2_draw_time(draws->numbers[depth], token);
        sum += lead;
        if (lead <= most) continue;
        most = lead;
        best = i;
    }
    *share_out = most / sum;
    return best;
}

/* False: the logits are no numbers. */
static bool pick(const pi2_draft_chain *chain, const float *logits, const pi2_draws *draws, uint32_t depth,
                 int32_t *token_out, float *sure_out) {
    uint32_t best = likeliest(logits, chain->vocabulary);
    double share;
    if (depth < draws->count) best = drawn(chain, logits, best, draws, depth, &share);
    else share = share_of(logits, chain->vocabulary, best);
    *token_out = chain->ids ? (int32_t)chain->ids[best] : (int32_t)best;
    *sure_out = (float)share;
    return isfinite(share);
}

pi2_status pi2_draft_chain_guess(pi2_draft_chain *chain, const pi2_draws *draws, const pi2_draft_wish *wish,
                                 pi2_draft *draft_out) {
    double reach = 1;
    draft_out->count = 0;
    for (uint32_t i = 0; i < wish->most; i++) {
        int32_t token = 0;
        float sure = 0;
        if (!pick(chain, chain->logits(chain->user), draws, i, &token, &sure)) break;
        if ((uint32_t)token >= chain->known) break;
        const double chance = chain->right[bin_of(sure)];
        reach *= chance;
        if (reach < wish->least_reach || (double)sure < chain->least_sure) break;
        chain->sure[i] = sure;
        draft_out->tokens[i] = token;
        draft_out->chances[i] = (float)chance;
        draft_out->count = i + 1;
        if (i + 1 < wish->most) PI2_TRY(chain->append(chain->user, token));
    }
    return PI2_OK;
}

void pi2_draft_chain_judge(void *state, uint32_t checked, uint32_t right, const uint8_t *path) {
    (void)path;
    pi2_draft_chain *chain = state;
    for (uint32_t i = 0; i < checked && i <= right && i < PI2_DRAFT_MOST; i++) {
        double *record = &chain->right[bin_of(chain->sure[i])];
        *record += hit_memory * ((i < right) - *record);
    }
}

void pi2_draft_chain_follow(void *state, const void *from) {
    const pi2_draft_chain *other = from;
    memcpy(((pi2_draft_chain *)state)->right, other->right, sizeof other->right);
}
