/*
 * simulated_uses.h: what each pass of a simulated run uses: experts, or units of single neurons. From a recorded trace,
 * or drawn: experts evenly, units each with its own probability, whatever the tokens before used.
 */
#ifndef PI2_SIMULATOR_SIMULATED_USES_H
#define PI2_SIMULATOR_SIMULATED_USES_H

#include "neuron_cache/cache_trace.h"
#include "planner/planned_run.h"
#include "synthetic/random_blocks.h"

typedef struct pi2_simulated_uses {
    /* Of the pass under way: layer (or bank) l uses keys[first[l]] .. keys[first[l + 1] - 1], ascending: experts, or
     * units, as the layer counts them. */
    const uint32_t *keys;
    const uint32_t *first;         /* [layers + 1] */
    uint32_t tokens;
    uint32_t prompt_tokens;        /* that the recorded run computed with all neurons, before its passes */
    uint32_t pass_count;           /* that a trace has; UINT32_MAX: as many as are asked for */
    char grounds[320];             /* by what it is known, in words; empty: nothing is chosen */
    /* the rest is its own */
    pi2_trace trace;
    bool is_recorded;
    uint32_t begin, demand;        /* of the trace: where the pass under way begins, and the next one does */
    uint32_t layers, experts, used; /* experts of a layer that has some, and of a token; 0: none are drawn */
    const pi2_neuron_banks *banks; /* whose units are; NULL: none are */
    float *rates;                  /* [units] */
    uint32_t *drawn, *drawn_first;
    uint32_t most;                 /* keys that there is room for */
    uint64_t *chosen_by, token;    /* [experts]: the last token that chose it, counted over all layers; the newest */
    pi2_random random;
} pi2_simulated_uses;

/**
 * trace: a file, or NULL. statistics: of units that are drawn, or NULL: as assumed. banks: where passes of one token go
 * by neuron; else NULL.
 * Errors  of the files: IO, FORMAT, UNSUPPORTED, INVALID (of another model); MEMORY
 */
pi2_status pi2_simulated_uses_open(const pi2_planned_run *run, const pi2_neuron_banks *banks, const char *trace,
                                   const char *statistics, uint64_t seed, pi2_simulated_uses *uses);
/** How near a bank's units are to firing when the pass under way (before it the first one) asks for some of them: a
 *  byte each (unit_near.h). NULL: it was not recorded. */
const uint8_t *pi2_simulated_uses_near(const pi2_simulated_uses *uses, uint32_t bank, uint32_t *count_out);
void pi2_simulated_uses_close(pi2_simulated_uses *uses);
/** Goes to the next pass: the trace's, or one of `tokens`. */
void pi2_simulated_uses_next(pi2_simulated_uses *uses, uint32_t tokens);

#endif
