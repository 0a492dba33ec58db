/* sampler_filters.c: see sampler_filters.h. */
#include "engine/sampler_filters.h"

#include "kernels/vector/vector.h"

#include <math.h>

float pi2_candidate_weight(float x) { return x > -100.0f ? pi2_expf(x) : 0.0f; }

bool pi2_candidate_ranks_before(pi2_candidate a, pi2_candidate b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

/** A distribution over candidates: chances are e^(logit - best) / total. */
typedef struct distribution {
    double best, total, entropy;
} distribution;

static distribution distribution_of(const pi2_candidate *items, uint32_t count) {
    float best = items[0].logit;
    for (uint32_t i = 1; i < count; i++) best = items[i].logit > best ? items[i].logit : best;
    double total = 0.0, surprise = 0.0; /* surprise: of weight times what its logit lacks to the best */
    for (uint32_t i = 0; i < count; i++) {
        const float lack = items[i].logit - best;
        const double weight = (double)pi2_candidate_weight(lack);
        if (weight <= 0.0) continue;
        total += weight;
        surprise -= weight * (double)lack;
    }
    return (distribution){.best = (double)best, .total = total, .entropy = pi2_log(total) + surprise / total};
}

float pi2_filter_sigma_floor(const float *logits, uint32_t count, float best, float sigmas) {
    double sum = 0.0, squares = 0.0;
    uint32_t used = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!isfinite(logits[i])) continue;
        const double lack = (double)logits[i] - (double)best; /* small, so that the squares keep their digits */
        sum += lack;
        squares += lack * lack;
        used++;
    }
    if (used == 0) return best;
    const double mean = sum / used, variance = squares / used - mean * mean;
    return (float)((double)best - (double)sigmas * sqrt(variance > 0.0 ? variance : 0.0));
}

/** How far a candidate's surprise is from what is expected, which `center` has as the logit that it would have. */
static double typical_distance(pi2_candidate item, double center) { return fabs((double)item.logit - center); }

static bool is_more_typical(pi2_candidate a, pi2_candidate b, double center) {
    const double first = typical_distance(a, center), second = typical_distance(b, center);
    return first < second || (first == second && pi2_candidate_ranks_before(a, b));
}

/** Moves items[at] down a heap of which the most typical is the root. */
static void sift_typical(pi2_candidate *items, uint32_t count, uint32_t at, double center) {
    const pi2_candidate moved = items[at];
    for (;;) {
        uint64_t child = 2 * (uint64_t)at + 1;
        if (child >= count) break;
        if (child + 1 < count && is_more_typical(items[child + 1], items[child], center)) child++;
        if (!is_more_typical(items[child], moved, center)) break;
        items[at] = items[child];
        at = (uint32_t)child;
    }
    items[at] = moved;
}

uint32_t pi2_filter_typical(pi2_candidate *items, uint32_t count, float mass) {
    const distribution all = distribution_of(items, count);
    const double center = all.best + pi2_log(all.total) - all.entropy;
    for (uint32_t i = count / 2; i > 0; i--) sift_typical(items, count, i - 1, center);
    double sum = 0.0;
    uint32_t kept = 0;
    while (kept < count && !(sum > (double)mass * all.total)) { /* the root goes to the end of what is a heap */
        const uint32_t rest = count - kept - 1;
        const pi2_candidate taken = items[0];
        items[0] = items[rest];
        items[rest] = taken;
        sift_typical(items, rest, 0, center);
        sum += (double)pi2_candidate_weight((float)((double)taken.logit - all.best));
        kept++;
    }
    for (uint32_t i = 0; i < kept / 2; i++) { /* what was kept lies at the end, backwards: change places */
        const pi2_candidate taken = items[count - 1 - i];
        items[count - 1 - i] = items[count - kept + i];
        items[count - kept + i] = taken;
    }
    for (uint32_t i = 0; i < kept; i++) items[i] = items[count - kept + i];
    return kept;
}

uint32_t pi2_filter_top_choices(pi2_candidate *items, uint32_t count, float threshold) {
    if (count < 2) return count;
    const distribution all = distribution_of(items, count);
    const double least = (double)threshold * all.total;
    uint32_t top = 0, last = 0;
    for (uint32_t i = 0; i < count; i++) {
        const double weight = (double)pi2_candidate_weight((float)((double)items[i].logit - all.best));
        if (weight < least || items[i].logit == -INFINITY) continue; /* what may not come is no choice */
        if (top++ == 0 || pi2_candidate_ranks_before(items[last], items[i])) last = i;
    }
    if (top < 2) return count;
    const pi2_candidate stays = items[last];
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!pi2_candidate_ranks_before(items[i], stays)) items[kept++] = items[i];
    }
    return kept;
}

float pi2_dynamic_temperature(const pi2_candidate *items, uint32_t count, float least, float most, float exponent) {
    if (count < 2) return most;
    const distribution all = distribution_of(items, count);
    const double share = all.entropy / pi2_log((double)count);
    if (!(share > 0.0)) return exponent == 0.0f ? most : least;
    const double power = pi2_pow(share < 1.0 ? share : 1.0, (double)exponent);
    return (float)((double)least + ((double)most - (double)least) * power);
}
