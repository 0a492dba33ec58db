/*
 * routing_forecast.h: how many experts tokens to come will find in memory. A made-up run (a prompt,
 * then an answer) is played through the cache's own policy; what its tokens choose is taken from a
 * recorded trace, or every expert is as likely as any other, for each token anew.
 */
#ifndef PI2_PLANNER_ROUTING_FORECAST_H
#define PI2_PLANNER_ROUTING_FORECAST_H

#include "neuron_cache/cache_policy.h"
#include "neuron_cache/cache_trace.h"

typedef struct pi2_routing_forecast pi2_routing_forecast;

/**
 * layers, experts, used: of the model. trace_path NULL: even routing.
 * Errors  IO, FORMAT (no trace), INVALID (of another model, or fewer than 8 tokens that were computed
 *         alone), MEMORY
 */
pi2_status pi2_routing_forecast_open(uint32_t layers, uint32_t experts, uint32_t used, const char *trace_path,
                                     pi2_routing_forecast **forecast_out);
void pi2_routing_forecast_close(pi2_routing_forecast *forecast); /* NULL is fine */

/** Tokens of the trace; 0: none is used. */
uint32_t pi2_routing_forecast_tokens(const pi2_routing_forecast *forecast);

/** Experts of a layer that a batch of so many tokens uses, the mean over layers. */
double pi2_routing_forecast_distinct(const pi2_routing_forecast *forecast, uint32_t tokens);

typedef struct pi2_forecast_run {
    const pi2_cache_policy *policy;
    uint32_t slots;
    const uint32_t *hot_keys;             /* experts that stay, of the slots; a cold cache is without */
    uint32_t hot_count;
    uint32_t prompt_tokens, batch_tokens; /* batch_tokens > 0 */
    uint32_t answer_tokens;               /* all of them count; 0: many, and the first ones do not */
} pi2_forecast_run;

/** Shares of visits to experts that find them in memory. */
typedef struct pi2_forecast_hits {
    double cold;   /* of the prompt, in a cache that was empty */
    double prompt; /* of the same prompt again, the mean of four times */
    double answer; /* of single tokens after the prompt */
} pi2_forecast_hits;

/** Errors  MEMORY */
pi2_status pi2_routing_forecast_run(const pi2_routing_forecast *forecast, const pi2_forecast_run *run,
                                    pi2_forecast_hits *hits_out);

#endif
