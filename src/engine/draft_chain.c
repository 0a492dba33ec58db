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

double pi2_draft_chain_chance(const pi2_draft_chain *chain, float sure) { return chain->right[bin_of(sure)]; }

static uint32_t likeliest(const float *logits, uint32_t count) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

/* Puts a token among those that are named, where it belongs. */
static void add(pi2_draft_place *place, int32_t token, float lead) {
    uint32_t at = place->count < PI2_DRAFT_NAMED ? place->count++ : PI2_DRAFT_NAMED - 1;
    for (; at > 0 && place->sure[at - 1] < lead; at--) {
        place->tokens[at] = place->tokens[at - 1];
        place->sure[at] = place->sure[at - 1];
    }
    place->tokens[at] = token;
    place->sure[at] = lead;
}

void pi2_draft_chain_name(const pi2_draft_chain *chain, const float *logits, const pi2_draws *draws, uint32_t depth,
                          pi2_draft_place *place) {
    const float top = logits[likeliest(logits, chain->vocabulary)];
    const bool is_drawn = depth < draws->count;
    const double least = (double)draws->least_share > UNDRAWN ? (double)draws->least_share : UNDRAWN;
    const float floor = top + (is_drawn ? (float)pi2_log(least) : NEGLIGIBLE);
    const float temperature = is_drawn ? draws->temperature : 1;
    double sum = 0;
    place->count = 0;
    for (uint32_t i = 0; i < chain->vocabulary; i++) {
        if (!(logits[i] >= floor)) continue;
        const int32_t token = chain->ids ? (int32_t)chain->ids[i] : (int32_t)i;
        double lead = (double)pi2_expf((logits[i] - top) / temperature);
        if (is_drawn) lead /= pi2_draw_time(draws->numbers[depth], token);
        sum += lead;
        if ((uint32_t)token >= chain->known) continue;
        if (place->count < PI2_DRAFT_NAMED || (float)lead > place->sure[PI2_DRAFT_NAMED - 1]) {
            add(place, token, (float)lead);
        }
    }
    if (!isfinite(sum)) place->count = 0; /* the logits are no numbers */
    for (uint32_t i = 0; i < place->count; i++) {
        place->sure[i] /= (float)sum;
        if ((double)place->sure[i] < chain->least_sure) place->count = i;
    }
}

/** A guess that is being made. */
typedef struct chain_walk {
    pi2_draft_chain *chain;
    const pi2_draws *draws;
    const pi2_draft_wish *wish;
    pi2_draft *draft;
} chain_walk;

/* What may follow the token that was appended last, `depth` behind the text, and what may follow that. reach: the
 * chance of all up to there; is_first: each of them is the likeliest one: the chain. */
static pi2_status descend(const chain_walk *walk, pi2_draft_place begin, uint32_t depth, double reach, bool is_first) {
    pi2_draft_named *named = walk->wish->named;
    pi2_draft_place *place = named ? &named->places[named->count++] : &begin;
    const uint8_t number = named ? (uint8_t)named->count : 0;
    *place = begin;
    pi2_draft_chain_name(walk->chain, walk->chain->logits(walk->chain->user), walk->draws, depth, place);
    for (uint32_t i = 0; i < place->count && (named || i == 0); i++) {
        const double chance = pi2_draft_chain_chance(walk->chain, place->sure[i]), next = reach * chance;
        if (next < walk->wish->least_reach || (!(is_first && i == 0) && next < PI2_DRAFT_LEAST_BRANCH)) break;
        if (is_first && i == 0) {
            walk->chain->sure[depth] = place->sure[i];
            walk->draft->tokens[depth] = place->tokens[i];
            walk->draft->chances[depth] = (float)chance;
            walk->draft->count = depth + 1;
        }
        if (depth + 1 == walk->wish->most || (named && named->count >= named->most)) break;
        PI2_TRY(walk->chain->append(walk->chain->user, depth, place->tokens[i]));
        PI2_TRY(descend(walk, (pi2_draft_place){ .parent = number, .token = place->tokens[i] }, depth + 1, next,
                        is_first && i == 0));
    }
    return PI2_OK;
}

pi2_status pi2_draft_chain_guess(pi2_draft_chain *chain, const pi2_draws *draws, const pi2_draft_wish *wish,
                                 pi2_draft *draft_out) {
    const chain_walk walk = { chain, draws, wish, draft_out };
    draft_out->count = 0;
    if (wish->named) wish->named->count = 0;
    return descend(&walk, (pi2_draft_place){ .count = 0 }, 0, 1, true);
}

void pi2_draft_chain_keep(pi2_draft *draft, const pi2_draft_wish *wish, uint32_t least_tokens) {
    if (draft->count >= least_tokens) return;
    draft->count = 0;
    if (wish->named) wish->named->count = 0;
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
