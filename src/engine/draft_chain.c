/* draft_chain.c: see draft_chain.h. */
#include "engine/draft_chain.h"

#include <math.h>
#include <string.h>

#include "base/fail.h"
#include "kernels/vector/vector.h"

#define NEGLIGIBLE (-40.0f) /* so far below the best one a token's chance is nothing */
static const double hit_memory = 1.0 / 32;

void pi2_draft_chain_begin(pi2_draft_chain *chain) {
    for (int i = 0; i < PI2_DRAFT_BINS; i++) chain->right[i] = (i + 0.5) / PI2_DRAFT_BINS;
}

static int bin_of(float sure) {
    const int bin = (int)(sure * PI2_DRAFT_BINS);
    return bin < 0 ? 0 : bin < PI2_DRAFT_BINS ? bin : PI2_DRAFT_BINS - 1;
}

/* The likeliest token, and how sure its logits are of it. False: they are no numbers. */
static bool pick(const float *logits, uint32_t count, int32_t *token_out, float *sure_out) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        const float below = logits[i] - logits[best];
        if (!(below < NEGLIGIBLE)) sum += (double)pi2_expf(below);
    }
    *token_out = (int32_t)best;
    *sure_out = (float)(1 / sum);
    return isfinite(sum);
}

pi2_status pi2_draft_chain_guess(pi2_draft_chain *chain, const pi2_draft_wish *wish, pi2_draft *draft_out) {
    double reach = 1;
    draft_out->count = 0;
    for (uint32_t i = 0; i < wish->most; i++) {
        int32_t token = 0;
        float sure = 0;
        if (!pick(chain->logits(chain->user), chain->vocabulary, &token, &sure)) break;
        if (chain->ids) token = (int32_t)chain->ids[token];
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
