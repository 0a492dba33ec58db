/* synthetic_internal.h: what the files of synthetic/ share. */
#ifndef PI2_SYNTHETIC_INTERNAL_H
#define PI2_SYNTHETIC_INTERNAL_H

#include "file_formats/gguf_writer.h"
#include "kernels/vector/ffn_activation.h"
#include "powerinfer2/synthetic.h"
#include "synthetic/file_stream.h"
#include "synthetic/random_blocks.h"

/* How much of the deviation of values is left once attention has averaged them: an estimate. */
#define PI2_ATTENTION_AVERAGE 0.35f

/* Deviation of Gemma's embeddings times the root of the width, as they go into the residual stream. */
#define PI2_GEMMA_EMBEDDING 3.0f

/** How a tensor's values are made. */
typedef enum pi2_fill {
    PI2_FILL_RANDOM,      /* weights around 0; rows that planted signals own are zeros */
    PI2_FILL_EMBEDDING,   /* the same, beginning with the planted columns */
    PI2_FILL_NORM,        /* around `deviation` */
    PI2_FILL_GATE,        /* neurons that fire as often as was planted */
    PI2_FILL_UP,          /* of drelu: the same for its own zeros */
    PI2_FILL_VALUE,       /* attention values that do not read the constants */
    PI2_FILL_ROUTER,      /* experts from planted signals */
    PI2_FILL_RECENCY,     /* queries or keys that attend to the last tokens whatever they are */
    PI2_FILL_HEAD,        /* random; rows of control tokens are zeros */
    PI2_FILL_ROPE_FACTORS, /* a quarter of the pairs turn */
    PI2_FILL_FLOATS       /* floats within `spread` of `deviation`; none for columns of planted signals */
} pi2_fill;

/** What the layers of an architecture have, where that is not what a llama's have. */
typedef struct pi2_synthetic_family {
    const char *architecture;
    const char *kinds;     /* letters of its layers' patterns, the first layer's first; NULL: A */
    const char *ffn_norm, *output_norm; /* NULL: as their names say */
    bool is_mixture;       /* always */
    bool pairs_neighbours; /* rotates dimensions (0, 1), (2, 3)...; else halves */
    bool head_norms;       /* of queries and keys */
    bool gated_queries;    /* a gate behind each head of queries */
    bool joins_strengths;  /* of delta nets strengths and decays are of one matrix; heads are rotated by one position */
    bool has_biases;       /* of attention, router and experts; and sinks */
    bool router_has_bias;  /* and sigmoids */
    bool heads_by_layer;   /* key-value heads are told layer by layer, 0 where it has no attention */
    bool is_gemma;         /* what blocks give is normed, and layers differ (synthetic_layers_gemma.c) */
    bool one_block;        /* a layer is an FFN, or what stands before one, and the FFN has no Gate */
} pi2_synthetic_family;

typedef struct pi2_synthetic_tensor {
    char name[64];
    const pi2_weight_format *format;
    uint64_t dimensions[3];
    uint32_t dimension_count, layer;
    pi2_fill fill;
    float deviation, spread;
    uint32_t head_rows;   /* of a head's queries, where not head_dimension; PI2_FILL_RECENCY */
    bool keeps_signals;   /* its rows are the residual stream: it must not write planted ones */
} pi2_synthetic_tensor;

/**
 * Columns of the residual stream that carry signals for the routers (docs/synthetic.md):
 *   0                      a constant: choices that never change (skew)
 *   1 .. 31                the same constant where zeros are planted: what holds neurons back
 *   32 .. 32 + S - 1       fast: random for each token, written by the embedding only
 *   32 + S .. 32 + 2S - 1  slow: zero in the embedding; one layer's attention writes there the
 *                          mean of the last tokens (repeat)
 * Nothing else writes them, so every layer's router reads the same signals.
 */
typedef struct pi2_signal_plan {
    uint32_t signals;        /* S; 0: nothing is planted */
    uint32_t end_column;     /* 32 + 2S */
    uint32_t span_columns;   /* columns at a row's start that are encoded one by one */
    uint32_t recency_layer;  /* whose attention writes the slow signals; UINT32_MAX: none can */
    float constant_value;    /* of column 0 */
    float recency_weight;    /* weight of the constant in its queries and keys */
    float recency_norm;      /* of queries and keys, in architectures that normalise them */
    float slow_deviation;    /* of the slow signals, in units of the embedding's */
    /* Shares of the router's variance: they add up to 1. */
    float static_share, slow_share, fast_share, rest_share;
} pi2_signal_plan;

enum { PI2_SIGNAL_CONSTANT = 0, PI2_SIGNAL_FAST = 32 };

/**
 * How neurons fire (synthetic_neurons.c). A gate is a sum of independent parts with deviation 1 less a threshold that
 * is the neuron's own; thresholds are normal with these means and deviations.
 */
typedef struct pi2_neuron_plan {
    bool is_planted;
    pi2_ffn_activation activation;
    float slow_share, fast_share, rest_share; /* of a gate's variance */
    float *means, *deviations;                /* of thresholds, by layer */
    float *products;                          /* root mean square of what the activation gives, by layer */
} pi2_neuron_plan;

typedef struct pi2_synthetic_plan {
    pi2_synthetic_shape shape;   /* complete: nothing is 0 that has a default */
    const pi2_synthetic_family *family;
    const pi2_synthetic_options *options;
    uint32_t expert_rows;        /* neurons of an expert, or of the dense FFN */
    pi2_synthetic_tensor *tensors;
    uint32_t tensor_count, tensor_capacity;
    float growth;                /* of the residual stream's variance by one layer */
    pi2_signal_plan signals;
    pi2_neuron_plan neurons;
} pi2_synthetic_plan;

/** Reads "q4_0" and the like: the type, and the file type that llama.cpp names it by.
 *  Errors  INVALID (lists what is known) */
pi2_status pi2_synthetic_type_find(const char *name, const pi2_weight_format **format_out,
                                   uint32_t *file_type_out);

/** Checks the shape and fills in what was left open. Errors  INVALID: which number, and why */
pi2_status pi2_synthetic_check_shape(pi2_synthetic_shape *shape);

/** NULL: no such architecture is known here. */
const pi2_synthetic_family *pi2_synthetic_family_find(const char *architecture);

/** The letter of a layer in the shape's pattern. */
char pi2_synthetic_layer_kind(const pi2_synthetic_shape *shape, uint32_t layer);
/** Dimensions of a head that are rotated. */
uint32_t pi2_synthetic_rotated(const pi2_synthetic_shape *shape);
/** How much of its values' deviation the attention of a family gives. */
float pi2_synthetic_attention_average(const pi2_synthetic_plan *plan);

/** The list of a plan's tensors while it is made (synthetic_plan.c, synthetic_layers.c). */
typedef struct pi2_synthetic_listing {
    pi2_synthetic_plan *plan;
    const pi2_weight_format *format; /* of most matrices */
    bool is_mixed, is_medium;        /* medium: q4_k_m */
    uint32_t layer;                  /* being listed; UINT32_MAX outside */
} pi2_synthetic_listing;

/** Lists a layer's tensors: at most 32. */
void pi2_synthetic_add_layer(pi2_synthetic_listing *state);
void pi2_synthetic_add_gemma_layer(pi2_synthetic_listing *state);
/** What a Gemma has beside layers, embedding and head. */
void pi2_synthetic_add_gemma_tables(pi2_synthetic_listing *state);
/** Gives the last tensor that was added another name in its layer. */
void pi2_synthetic_rename(pi2_synthetic_listing *state, const char *name);
/** A vector of floats around `middle`; ".weight" is added to names, but of pi2_synthetic_add_floats(). */
void pi2_synthetic_add_norm(pi2_synthetic_listing *state, const char *name, uint64_t length, float middle);
/** gain: deviation of what the matrix makes of inputs of deviation 1. The pointer is good for good. */
pi2_synthetic_tensor *pi2_synthetic_add_matrix(pi2_synthetic_listing *state, const char *name,
                                               const pi2_weight_format *format, uint64_t columns, uint64_t rows,
                                               float gain);
void pi2_synthetic_add_stack(pi2_synthetic_listing *state, const char *name, uint64_t columns, uint64_t rows,
                             uint64_t matrices, float gain);
void pi2_synthetic_add_router(pi2_synthetic_listing *state);
/** rows 0: a vector. */
void pi2_synthetic_add_floats(pi2_synthetic_listing *state, const char *name, uint64_t columns, uint64_t rows,
                              float middle, float spread);
/** Type of values and down projections, to which mixtures give more bits in some layers. */
const pi2_weight_format *pi2_synthetic_value_format(const pi2_synthetic_listing *state);
/** Keys and values of a model of 8 experts are small beside the rest: Q8_0. */
bool pi2_synthetic_has_eight_experts(const pi2_synthetic_listing *state);

/** Lists the tensors. Errors  INVALID, MEMORY */
pi2_status pi2_synthetic_plan_make(const pi2_synthetic_options *options,
                                   pi2_synthetic_plan *plan_out);
void pi2_synthetic_plan_free(pi2_synthetic_plan *plan);

/** Plans the signals of a model with experts or planted zeros. Errors  INVALID: shares that cannot be had, MEMORY */
pi2_status pi2_synthetic_plan_signals(pi2_synthetic_plan *plan, pi2_weight_type embedding_type);

/** Variance of the residual stream (that of the embedding is 1) before layer `layer`'s attention. */
float pi2_synthetic_residual_variance(const pi2_synthetic_plan *plan, uint32_t layer);
/** Deviations that a layer's attention and its feed-forward network add to the residual stream. */
float pi2_synthetic_attention_gain(const pi2_synthetic_plan *plan, uint32_t layer);
float pi2_synthetic_feed_forward_gain(const pi2_synthetic_plan *plan, uint32_t layer);

/** Metadata, vocabulary included. Errors  MEMORY; the writer keeps its own. */
pi2_status pi2_synthetic_write_metadata(const pi2_synthetic_plan *plan, uint32_t file_type,
                                        pi2_gguf_writer *writer);
pi2_status pi2_synthetic_write_vocabulary(const pi2_synthetic_plan *plan, pi2_gguf_writer *writer);
/** The first `*first_count_out` and the last `*last_count_out` tokens are control tokens. */
void pi2_synthetic_control_tokens(const pi2_synthetic_shape *shape, uint32_t *first_count_out,
                                  uint32_t *last_count_out);

/** Writes every tensor's data, padding included. Errors  as the stream's; MEMORY */
pi2_status pi2_synthetic_write_tensors(const pi2_synthetic_plan *plan, pi2_file_stream *stream);

/** True when dimension `index` of a head is one of those that the recency layer uses. */
bool pi2_synthetic_recency_row(const pi2_synthetic_plan *plan, uint32_t index);

/** Plans the neurons, after the signals. Errors  INVALID: shares that cannot be had, MEMORY */
pi2_status pi2_synthetic_plan_neurons(pi2_synthetic_plan *plan, float next);
void pi2_synthetic_free_neurons(pi2_synthetic_plan *plan);

/** Deviation of the weights of a gate's or up's columns that read no signal, for inputs of deviation 1. */
float pi2_synthetic_rest_deviation(const pi2_synthetic_plan *plan, bool is_up);

/**
 * The first span_columns weights of one neuron's Gate (or, of drelu, Up): values, times the step that is returned.
 * limit: largest value of the weight type. rank: share of the neurons that lie before it, where hot ones come first
 */
float pi2_synthetic_neuron_row(const pi2_synthetic_plan *plan, uint32_t layer, double rank, bool is_up, int limit,
                               pi2_random *random, int8_t *values);

/** One row of a router: `out` has embedding_length values. */
void pi2_synthetic_router_row(const pi2_synthetic_plan *plan, uint32_t layer, pi2_random *random,
                              float *out);

#endif
