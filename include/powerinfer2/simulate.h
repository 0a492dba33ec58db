/*
 * simulate.h: how fast a described device would run a described model: a run in which clusters of neurons are drawn,
 * cached, read and computed as an engine with an accelerator would, and time is counted instead of taken.
 *
 * What is described are speeds (bytes and operations a second, reads a second by size) and shares (how many neurons
 * fire, how unevenly, how they repeat). What is not described is decided by the code that decides it in a run: which
 * unit leaves the cache (neuron_cache/unit_heat.h), or drawn from the seed. The same description gives the same figures
 * on every machine. Schedule: PowerInfer-2 (arXiv 2406.06282), sections 4.2 to 4.4.
 */
#ifndef POWERINFER2_SIMULATE_H
#define POWERINFER2_SIMULATE_H

#include <stdbool.h>
#include <stdint.h>

#include "powerinfer2/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PI2_SIMULATED_READS = 16 };

/** A point of the disk's curve: random reads of so many bytes, with its queue full. */
typedef struct pi2_simulated_read {
    double bytes, per_second;
} pi2_simulated_read;

typedef struct pi2_simulated_device {
    uint32_t threads;               /* that compute, 1 .. 64; reads are one more's */
    double cpu_bytes_per_second;    /* of weights from memory, all threads together */
    double accelerator_bytes_per_second; /* 0: there is none */
    double both_bytes_per_second;   /* of both at work; 0: their sum */
    double cpu_operations_per_second, accelerator_operations_per_second; /* 0: never the limit */
    double sparse_efficiency;       /* of the processor's bandwidth, where rows lie apart: above 0 .. 1 */
    double accelerator_start_seconds; /* what a layer's call costs before it computes */
    double layer_seconds;           /* of a layer, whatever it computes: norms, merging, waits of all for all */
    pi2_simulated_read reads[PI2_SIMULATED_READS]; /* by bytes, ascending; linear between, by bytes beyond the last */
    uint32_t read_count;
    double read_latency_seconds;    /* from asking to having, of a read by itself */
    double sequential_bytes_per_second;
    double base_watts, thread_watts, accelerator_watts, disk_watts; /* of each at work; base always; 0: unknown */
    double memory_bytes;            /* for a model's file (simulate_model.h), who runs it says how; 0: not described */
} pi2_simulated_device;

typedef struct pi2_simulated_model {
    uint32_t layers, neurons;       /* neurons of an FFN, or of one expert */
    uint32_t experts, experts_used; /* of a layer; 1 and 1: dense */
    double attention_bytes;         /* of a layer: what every token uses whole, without predictor and cache */
    double head_bytes;              /* at a token's end */
    double predictor_bytes;         /* of a layer, of all experts together; a token uses the chosen ones' */
    double fixed_bytes;             /* in memory whatever is cached: all of these, tables, keys and values, buffers */
    double gate_row_bytes;          /* of a neuron, as computed with: its row of Gate, where no predictor has that */
    double rest_row_bytes;          /* its rows of Up and Down */
    double weights_per_byte;        /* of all of these */
    double gate_read_bytes, rest_read_bytes; /* read for it: first Gate; then Up and Down. rest 0: all is in one */
    double cached_bytes;            /* of a neuron in memory */
    double cache_bytes_per_position; /* keys and values of a layer */
    double active;                  /* share of neurons that fire for a token; of experts those of the chosen ones */
    double precision;               /* of those that are predicted, the share that fires; 1 without a predictor */
    double skew;                    /* hits of the hottest share s: 1 - (1 - s) ^ skew; 0: as the planner assumes */
    double repeat;                  /* how much a neuron's firing depends on the token before: 0 .. below 1 */
    double spread;                  /* how unlike passes are: deviation of the logarithm of what begins to fire */
} pi2_simulated_model;

typedef struct pi2_simulation {
    double memory_bytes;            /* for everything; 0: what ffn_in_memory says */
    double ffn_in_memory;           /* the share of all neurons that memory holds beside fixed_bytes */
    double hot_share;               /* of neurons, which the accelerator computes densely; negative: the fastest */
    uint32_t batch;                 /* sequences that are decoded together, 1 .. 64 */
    uint32_t tokens, warm_tokens;   /* that count; before them */
    uint32_t prompt_tokens;         /* of a prompt before; 0: none */
    uint32_t position;              /* positions in the cache of keys and values */
    uint32_t cluster;               /* neurons of a cold cluster; 0: 32 */
    uint64_t seed;
    const char *policy;             /* which neuron leaves the cache: "mix", "heat", "lru"; NULL: the engine's */
    bool without_cache;             /* every neuron is read when it is predicted */
    bool without_pipeline;          /* all wait between predictor, Gate, and Up and Down; threads ask for reads one by
                                       one, so that as many are in flight as threads */
    bool without_accelerator;
} pi2_simulation;

typedef struct pi2_simulated_run {
    double tokens_per_second;       /* of all sequences together */
    double mean_seconds, p50_seconds, p90_seconds, p99_seconds; /* of a pass */
    double exposed_share;           /* of a pass: the disk reads and nobody computes */
    double thread_share, accelerator_share, disk_share; /* of a pass, busy; threads on average */
    double hit_share;               /* of the predicted cold neurons; 1 where there are none */
    double p99_miss_share;          /* of a pass */
    double bytes_per_pass, reads_per_pass;
    double hot_share, cached_share; /* of all neurons: hot ones; those that may be in memory, hot ones included */
    double joules_per_token;        /* 0: not described */
    double prompt_seconds;          /* of prompt_tokens: layer after layer, of which the next one's missing part is read
                                       in sequence meanwhile; without_pipeline: before it */
} pi2_simulated_run;

/** Sets what a simulation usually has: all in memory, batch 1, 256 tokens after 64, no prompt. */
PI2_API void pi2_simulation_init(pi2_simulation *simulation);

/** Neurons that one simulation may draw in all passes, a quarter of an hour; who runs many bounds their sum by it. */
#define PI2_SIMULATION_DRAWS_MOST 1e11
/** So many it would draw. Nothing of it need be checked. Threads: any. */
PI2_API double pi2_simulation_draws(const pi2_simulated_device *device, const pi2_simulated_model *model,
                                    const pi2_simulation *simulation);

/**
 * Runs it. Threads: any, each call by itself.
 * Errors  INVALID (a value that no device or model has, by name; memory that does not hold the fixed part; more than
 *         PI2_SIMULATION_DRAWS_MOST neurons to draw), MEMORY
 */
PI2_API pi2_status pi2_simulate(const pi2_simulated_device *device, const pi2_simulated_model *model,
                                const pi2_simulation *simulation, pi2_simulated_run *run_out);

#ifdef __cplusplus
}
#endif

#endif
