/*
 * cache_trace.h: which experts, or which units of neurons, a run used, recorded for the offline replay of
 * cache policies.
 *
 * File, all numbers little-endian: "PI2TRACE"; u32 version (1), layers, experts in a layer, experts
 * that a token uses; u64 bytes of an expert's slot; then u32 words until the end: 0x80000000 + tokens
 * where a pass begins; else a count n and n keys (layer * experts + expert), ascending, of one layer.
 *
 * Version 2, of single neurons whose Gates are known: before a demand, or not, 0x40000000 + units of its layer's bank
 * and a byte for each of them, up to a whole word: how near it is to firing (unit_near.h).
 *
 * Of single neurons (neuron_store.h) an "expert" is a unit of a bank: banks, units of the largest bank,
 * 0 (a token uses as many as fire), bytes of the largest unit. A pass of all neurons has no demands.
 */
#ifndef PI2_NEURON_CACHE_CACHE_TRACE_H
#define PI2_NEURON_CACHE_CACHE_TRACE_H

#include <stddef.h>
#include <stdint.h>

#include "neuron_cache/cache_book.h"
#include "powerinfer2/status.h"

typedef struct pi2_trace_header {
    uint32_t layer_count, expert_count;
    uint32_t used_count;  /* 0: of single neurons */
    uint64_t slot_bytes;
} pi2_trace_header;

typedef struct pi2_trace_writer pi2_trace_writer;

/**
 * Writes under a temporary name, or directly to a pipe or device (base/output_file.h).
 * inputs  files that may not be replaced, NULL at the end; or NULL
 * header  NULL: it is not known yet, and told by pi2_trace_writer_begin() before the first pass
 * Errors  IO (file, reason), INVALID (an input, or what is no trace, lies there), MEMORY
 */
pi2_status pi2_trace_writer_open(const char *path, const char *const *inputs, const pi2_trace_header *header,
                                 pi2_trace_writer **writer_out);
/** Writes the header, once. Errors  UNSUPPORTED (more keys than a trace has) */
pi2_status pi2_trace_writer_begin(pi2_trace_writer *writer, const pi2_trace_header *header);
/** A pass over so many tokens begins; a layer demands keys. A failed write is told by close. */
void pi2_trace_writer_pass(pi2_trace_writer *writer, uint32_t token_count);
void pi2_trace_writer_demand(pi2_trace_writer *writer, const uint32_t *keys, uint32_t count);
/** Of traces of single neurons: before the demand of a layer, how near its units are to firing, from the first on. */
void pi2_trace_writer_near(pi2_trace_writer *writer, const uint8_t *near, uint32_t count);
/**
 * Gives the trace its name, over an older one. Without a pass it tells nothing: then nothing is left,
 * and an older one stays. NULL is fine. Errors  IO (file, reason): nothing is left behind
 */
pi2_status pi2_trace_writer_close(pi2_trace_writer *writer);

/** A trace in memory: demand d is keys[demands[d].begin .. demands[d + 1].begin). */
typedef struct pi2_trace_demand {
    uint32_t begin;
    uint32_t pass_tokens; /* tokens of the pass that it belongs to */
} pi2_trace_demand;

/** How near the units of a demand's layer are to firing: near[begin] of the layer's first one. */
typedef struct pi2_trace_near {
    uint64_t begin;
    uint32_t count; /* 0: it is not told */
} pi2_trace_near;

typedef struct pi2_trace {
    pi2_trace_header header;
    uint32_t *keys; uint32_t key_count;          /* uses, in order */
    pi2_batch_use *uses;                         /* [key_count], of batches; NULL: not known (a file) */
    pi2_trace_near *near_of; uint8_t *near;      /* near_of[demand_count]; both NULL: nothing is told */
    pi2_trace_demand *demands; uint32_t demand_count; /* one more is there: the end */
    uint32_t pass_count; uint64_t token_count;
} pi2_trace;

/**
 * Reads a trace, a regular file, and checks every number of it.
 * Errors  IO, FORMAT (file, byte offset), UNSUPPORTED (version, over 4 GiB), MEMORY
 */
pi2_status pi2_trace_read(const char *path, pi2_trace *trace_out);
/** The same, of experts alone. Errors  INVALID too (it is one of single neurons) */
pi2_status pi2_trace_read_experts(const char *path, pi2_trace *trace_out);
void pi2_trace_free(pi2_trace *trace);

#endif
