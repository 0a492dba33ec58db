/* trace_replay.h: replays of a trace in memory; the public side is powerinfer2/cache_replay.h. */
#ifndef PI2_PLANNER_TRACE_REPLAY_H
#define PI2_PLANNER_TRACE_REPLAY_H

#include "neuron_cache/cache_policy.h"
#include "neuron_cache/cache_trace.h"
#include "neuron_cache/hot_experts.h"
#include "powerinfer2/cache_replay.h"

/** As pi2_replay_run(), with one policy. Errors MEMORY. */
pi2_status pi2_trace_replay_policy(const pi2_trace *trace, const pi2_cache_policy *policy, uint32_t slot_count,
                                   uint32_t first_pass, pi2_replay_result *result_out);

/** The same with hot experts (distinct keys, at most pi2_hot_experts_most()), which are there from the start. */
pi2_status pi2_trace_replay_hot(const pi2_trace *trace, const pi2_cache_policy *policy, uint32_t slot_count,
                                const uint32_t *hot_keys, uint32_t hot_count, uint32_t first_pass,
                                pi2_replay_result *result_out);

/** Whether demand d is the first of a pass. */
bool pi2_trace_begins_pass(const pi2_trace *trace, uint32_t d);

/** Belady's optimum: the key whose next use is furthest away leaves. Errors MEMORY. */
pi2_status pi2_trace_replay_belady(const pi2_trace *trace, uint32_t slot_count, uint32_t first_pass,
                                   pi2_replay_result *result_out);

#endif
