/* draft_forecast.h: whether a draft model's guesses are worth the memory that it takes from the weights. */
#ifndef PI2_PLANNER_DRAFT_FORECAST_H
#define PI2_PLANNER_DRAFT_FORECAST_H

#include <stdbool.h>
#include <stdint.h>

typedef struct pi2_draft_forecast_request {
    uint64_t pass_bytes;           /* weights that a pass computes with */
    uint64_t missing_bytes;        /* of these, what it must read */
    uint64_t missing_with_bytes;   /* the same where the draft model has its memory */
    uint64_t draft_bytes;          /* weights that one guess takes */
    bool by_level;                 /* it computes several places at a time, for a tree */
    uint32_t most;                 /* guesses in one pass */
    double free_tokens;            /* of a pass with the guesses that cost nothing; 1: there are none */
} pi2_draft_forecast_request;

typedef struct pi2_draft_forecast {
    uint32_t length;               /* guesses a pass that are best; 0: none pays, beside free ones */
    double tokens;                 /* of such a pass, and the time of it ... */
    double time;                   /* ... in passes of one token without a draft model */
} pi2_draft_forecast;

/** By speeds and a share of right guesses that are usual; a run measures its own. Threads: any. */
pi2_draft_forecast pi2_forecast_draft(const pi2_draft_forecast_request *request);

#endif
