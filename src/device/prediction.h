/*
 * prediction.h: how long a pass takes, from what it must move and compute and from what the
 * machine can do. Pure arithmetic.
 *
 *   a pass over T tokens   max(reading, computing) + what neither hides
 *   reading                streamed bytes / disk's speed at the streamed extents' size
 *   computing              weights / kernel's speed at T tokens, summed over the weight types
 *                          + attention + the steps between matrices + meetings of threads
 *                          + the processor time that reading takes from computing threads
 */
#ifndef PI2_DEVICE_PREDICTION_H
#define PI2_DEVICE_PREDICTION_H

#include "device/device_profile.h"

enum { PI2_WORKLOAD_TYPES = 16 };

/** Weights of one type that a pass computes with. */
typedef struct pi2_workload_weights {
    const char *type;
    uint64_t bytes;           /* as stored */
    uint64_t weights;         /* elements */
    uint64_t head_bytes, head_weights; /* of these, the head's: one token a pass needs them */
} pi2_workload_weights;

/** What of a model and its memory plan decides about its speed. */
typedef struct pi2_workload {
    pi2_workload_weights types[PI2_WORKLOAD_TYPES];
    uint32_t type_count;
    uint64_t read_bytes;      /* streamed by one pass */
    uint64_t resident_bytes;  /* read once, before or in the first pass */
    uint32_t read_block;      /* bytes of a streamed extent, on average */
    const char *read_method;
    uint32_t layer_count, stages_per_pass;
    uint32_t width, feed_forward, query_floats, key_value_floats; /* of a layer */
    uint64_t cache_bytes_per_position; /* of all layers */
    uint32_t batch_tokens, threads, cores;
    bool embedding_streams;   /* a small read at the beginning of each pass */
} pi2_workload;

/** Changes for the question "what would help?": factors on the machine, 1 for none. */
typedef struct pi2_what_if {
    double disk, memory, compute;
} pi2_what_if;
extern const pi2_what_if pi2_as_it_is;

typedef struct pi2_pass_time {
    double read, compute, seconds; /* seconds >= both */
    double memory;                 /* the part of compute at which memory's speed is the limit */
    double spread;                 /* of what the limit was measured with */
} pi2_pass_time;

/** One pass over `tokens` tokens that begins at `position`; logits of its last token. */
pi2_pass_time pi2_predict_pass(const pi2_workload *workload, const pi2_device_profile *profile,
                               const pi2_what_if *what_if, uint32_t tokens, uint32_t position);

/** Decode at `position`, prefill of prompt_tokens, and the time to the first token from a cold start. */
void pi2_predict(const pi2_workload *workload, const pi2_device_profile *profile, const pi2_what_if *what_if,
                 uint32_t prompt_tokens, uint32_t position, pi2_prediction *prediction_out);

/**
 * What helps decoding: the same with twice the memory for weights, a disk twice as fast, twice the
 * memory bandwidth and cores, all cores, or weights of 4.5 bits; best first; only what gains 5 %.
 * Returns how many were written, at most PI2_ADVICE_MOST.
 */
size_t pi2_predict_advice(const pi2_workload *workload, const pi2_device_profile *profile, uint32_t prompt_tokens,
                          uint32_t position, pi2_advice advice_out[PI2_ADVICE_MOST]);

#endif
