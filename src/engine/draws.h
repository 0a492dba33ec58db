/*
 * draws.h: how a token is drawn. Each candidate waits for a time that is 1 / its weight in the mean, exponentially
 * distributed, and the one whose time is over first is drawn: every token by the chance of its weight, whatever the
 * order they come in (the Gumbel-max trick, as a race). The times follow from one random number and the token. So who
 * knows the next numbers, and roughly the weights, can tell what will be drawn: that is what drafters do (drafter.h).
 */
#ifndef PI2_ENGINE_DRAWS_H
#define PI2_ENGINE_DRAWS_H

#include <stdint.h>

enum { PI2_DRAWS_MOST = 31 };

/** The next draws of a sampler, which nothing but its text's tokens takes. */
typedef struct pi2_draws {
    uint32_t count;                  /* of numbers; 0: nothing is drawn, the likeliest token is taken, or who knows */
    float temperature, least_share;  /* > 0; a token that is less likely than this share of the likeliest is left out,
                                        before the temperature */
    uint64_t numbers[PI2_DRAWS_MOST];
} pi2_draws;

/** What a token of weight 1 waits for in the draw of this number: > 0, 1 in the mean. */
double pi2_draw_time(uint64_t number, int32_t token);

#endif
