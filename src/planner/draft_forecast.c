/* draft_forecast.c: tokens by time, with a draft model and without. */
#include "planner/draft_forecast.h"

/*
 * Weights are computed with about six times as fast as a disk gives them. One token more in a pass costs a third of the
 * computing of the first: weights are unpacked once. Of a draft model's guesses two thirds are right where the model
 * before them was: what public measurements of pairs of one family tell (0.6 to 0.8). One that computes several places
 * at a time names the right one more often (bench/EXPERIMENTS.md: 0.84 to 0.91 among four).
 */
static const double disk_speed = 1, compute_speed = 6, token_share = 1.0 / 3, right_share = 2.0 / 3, level_share = 0.8;

/* Reading goes on while the rest is computed. */
static double pass_time(uint64_t bytes, uint64_t missing, uint32_t guesses) {
    const double compute = (double)bytes / compute_speed * (1 + token_share * guesses);
    const double read = (double)missing / disk_speed;
    return read > compute ? read : compute;
}

pi2_draft_forecast pi2_forecast_draft(const pi2_draft_forecast_request *request) {
    const double alone = pass_time(request->pass_bytes, request->missing_bytes, 0);
    pi2_draft_forecast best = { .length = 0, .tokens = request->free_tokens, .time = 1 };
    double tokens = 1, reach = 1;
    if (alone <= 0) return best;
    for (uint32_t i = 1; i <= request->most; i++) {
        reach *= request->by_level ? level_share : right_share;
        tokens += reach;
        const double drafting = (double)request->draft_bytes / compute_speed * i;
        const double time = (pass_time(request->pass_bytes, request->missing_with_bytes, i) + drafting) / alone;
        if (tokens / time <= best.tokens / best.time) continue;
        best = (pi2_draft_forecast){ .length = i, .tokens = tokens, .time = time };
    }
    return best;
}
