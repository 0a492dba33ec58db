/*
 * tiny_model.h: makes small models with random weights, for tests.
 *
 *   pi2_tiny_model_options options;
 *   pi2_tiny_model_options_init(&options);
 *   options.down_type = PI2_Q6_K;
 *   assert_int_equal(pi2_tiny_model_write(&options, "tiny.gguf"), 0);
 *
 * The same options give the same bytes everywhere. A tensor's values depend on the seed, its name,
 * type and shape alone, so changing one option leaves the other tensors as they are.
 */
#ifndef PI2_TESTS_SUPPORT_TINY_MODEL_H
#define PI2_TESTS_SUPPORT_TINY_MODEL_H

#include "support/gguf_builder.h"
#include "weight_formats/weight_format.h"

typedef enum pi2_tiny_vocabulary { PI2_TINY_BPE, PI2_TINY_SPM } pi2_tiny_vocabulary;

typedef struct pi2_tiny_model_options {
    const char *architecture;          /* "llama" */
    uint32_t seed;                     /* 1 */
    uint32_t layer_count;              /* 2 */
    uint32_t embedding_length;         /* 256: the least that K types can take */
    uint32_t feed_forward_length;      /* 512 */
    uint32_t head_count, head_count_kv; /* 4 and 2 */
    uint32_t head_dimension;           /* 0: embedding_length / head_count, and no key_length key */
    uint32_t context_length;           /* 512 */

    /* Weight types by role. K types need rows of a multiple of 256 columns, others of 32. */
    pi2_weight_type query_type, key_type, value_type, attention_output_type; /* Q4_0 */
    pi2_weight_type gate_type, up_type, down_type;                           /* Q4_0 */
    pi2_weight_type embedding_type, head_type;                               /* Q8_0 */
    bool tied_head;                    /* true: no output.weight */
    float head_gain;                   /* 3: how far the logits of a head of its own lie apart */
    bool attention_biases;             /* false */
    bool feed_forward_biases;          /* false */
    bool ungated;                      /* false; true: a dense FFN has no ffn_gate */
    bool two_norms;                    /* false; of "falcon", whose layers have parts of their own: attn_norm_2 */

    bool down_by_neuron;               /* false; true: Down's values are drawn along neurons, as PowerInfer's are */
    uint32_t predictor_rank;           /* 0; else a PowerInfer file ("PWRI"): Down by neuron, predictors of this rank */

    const char *ffn_activation;        /* NULL: no powerinfer2.ffn_activation key */
    const float *gate_sparsity, *gate_deviations; /* NULL; else arrays for gelu_topk, of ... */
    uint32_t gate_values;                         /* ... so many values; 0: the first one, as a float */

    float rope_base;                   /* 10000 */
    uint32_t rope_dimension_count;     /* 0: the head dimension */
    const char *rope_scaling;          /* NULL, "linear", "yarn", or "llama3": a rope_freqs tensor */
    float rope_scaling_factor;         /* 4 */
    uint32_t rope_original_context;    /* 0: context_length / 4, written for "yarn" */

    uint32_t expert_count;             /* 0: dense; gate, up and down types are the experts' */
    uint32_t expert_used_count;        /* 0 */
    uint32_t expert_feed_forward_length; /* 0: feed_forward_length, and no key for it */
    bool experts_apart;                /* false: stacked; true: blk.N.ffn_gate.E.weight and so on */
    uint32_t expert_gating;            /* 0: no key; 1: softmax, 2: sigmoid */
    bool head_norms;                   /* false: no attn_q_norm and attn_k_norm */
    uint32_t idle_first, idle_end;     /* 0, 0; layers [idle_first, idle_end) add nothing: zeros where they would */
    uint32_t window;                   /* 0: no attention.sliding_window key */

    pi2_tiny_vocabulary vocabulary;    /* BPE */
    uint32_t vocabulary_size;          /* 0: as many tokens as the vocabulary has (about 300) */
    bool add_eos;                      /* false: tokenizer.ggml.add_eos_token */
    bool add_bos;                      /* true for SPM; BPE's beginning is <|im_start|>, not added */
    const char *chat_template;         /* ChatML; NULL: no key */
} pi2_tiny_model_options;

void pi2_tiny_model_options_init(pi2_tiny_model_options *options);
/** Sets every weight type, embedding and head included. */
void pi2_tiny_model_set_types(pi2_tiny_model_options *options, pi2_weight_type type);

/** The model's contents, to be altered further before writing. Free with pi2_gguf_builder_free(). */
void pi2_tiny_model_build(const pi2_tiny_model_options *options, pi2_gguf_builder *builder);
/** Builds and writes. Returns 0, or an errno value. */
int pi2_tiny_model_write(const pi2_tiny_model_options *options, const char *path);
/**
 * The same in a child: what it allocates is not this process's memory, which counts against budgets. Under an emulator
 * in this process, whose memory is the emulator's anyway: a child of a process with threads may lose its way there.
 */
int pi2_tiny_model_write_apart(const pi2_tiny_model_options *options, const char *path);

/** `count` random weights of a type as GGUF blocks, finite, with a standard deviation near
 *  `deviation`. count: a multiple of the type's block. The bytes are malloc'd. */
unsigned char *pi2_tiny_weights(pi2_weight_type type, uint64_t count, float deviation, uint64_t seed,
                                size_t *length_out);

/** Adds tokenizer.* for the options; returns the number of tokens. */
uint32_t pi2_tiny_vocabulary_add(const pi2_tiny_model_options *options, pi2_gguf_builder *builder);

/** Next value of a splitmix64 sequence. */
uint64_t pi2_tiny_random(uint64_t *state);

#endif
