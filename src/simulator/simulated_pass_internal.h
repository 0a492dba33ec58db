/* simulated_pass_internal.h: what the files of a simulated pass share. */
#ifndef PI2_SIMULATOR_SIMULATED_PASS_INTERNAL_H
#define PI2_SIMULATOR_SIMULATED_PASS_INTERNAL_H

#include "simulator/simulated_pass.h"

/** A layer's Gate tells who fires in so many parts, one after the other. */
enum { PI2_SIMULATED_GATE_PARTS = 64 };

/** The threads compute for so long. */
void pi2_simulated_work(pi2_simulated_walk *walk, double seconds);
/** They wait until then, unless it is past. */
void pi2_simulated_wait(pi2_simulated_walk *walk, double until);
/** Seconds of a piece's, or an extent's, product with so many tokens. */
double pi2_simulated_piece_seconds(pi2_simulated_walk *walk, uint32_t piece, uint32_t tokens);
double pi2_simulated_extent_seconds(pi2_simulated_walk *walk, uint32_t extent, uint32_t tokens);
/** Waits for an extent of the pass's order; and it was used for the last time. Errors as pi2_weight_store_extent(). */
pi2_status pi2_simulated_await_extent(pi2_simulated_walk *walk, uint32_t extent);
void pi2_simulated_leave_extent(pi2_simulated_walk *walk, uint32_t extent);

/** A layer's FFN of which the pass's units alone are computed. */
pi2_status pi2_simulated_neurons_of(pi2_simulated_walk *walk, const pi2_group *group);
/** A layer's experts. Errors  MEMORY (no slot comes free) */
pi2_status pi2_simulated_experts_of(pi2_simulated_walk *walk, uint32_t layer);

#endif
