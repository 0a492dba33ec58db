/*
 * synthetic.h: models of the exact shape of real ones, with random weights.
 *
 *   pi2_synthetic_options options;
 *   pi2_synthetic_options_init(&options);
 *   if (pi2_synthetic_shape_find("mistral-7b", &options.shape) != PI2_OK) ...
 *   options.output_path = "mistral-7b-q4_0.gguf";
 *   if (pi2_synthetic_write(&options, NULL) != PI2_OK) puts(pi2_error_text());
 *
 * They measure speed where no real model can be had: tensors, names, types, metadata and the size
 * of the vocabulary are those of the original; what they say is nonsense.
 */
#ifndef POWERINFER2_SYNTHETIC_H
#define POWERINFER2_SYNTHETIC_H

#include "powerinfer2/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

/** What a model is, as its metadata would tell it. Strings must outlive the call they go to. */
typedef struct pi2_synthetic_shape {
    const char *name;                /* general.name begins with it */
    const char *architecture;        /* "llama", "qwen3moe" ...: an unknown one is answered with all */
    const char *tokenizer;           /* "spm", or the pre-tokenizer of a BPE: "qwen2", "llama-bpe" */
    uint32_t layer_count, embedding_length, feed_forward_length;
    uint32_t head_count, head_count_kv, head_dimension; /* head_dimension 0: embedding / heads */
    uint32_t vocabulary_size, context_length;
    uint32_t expert_count, expert_used_count;           /* 0: dense */
    uint32_t expert_feed_forward_length;                /* 0: feed_forward_length */
    float rope_base, norm_epsilon;
    bool tied_head;                  /* no output.weight: the embeddings are the head */
    /**
     * Which experts tokens choose, planted through the weights: the share of a token's experts
     * that it has in common with a token far away (skew) and with the token before (repeat).
     * 0: as if drawn evenly, which is expert_used_count / expert_count for both.
     */
    double expert_skew, expert_repeat;
    /**
     * Activation of the FFN (ffn_activations.inc; NULL: the architecture's), and for those that give zeros: the share
     * of neurons (of an expert's, with experts) that a token leaves at zero in the first and in the last layer, layers
     * between them in between; the share of neurons that give 80 % of all activations; the share of a token's active
     * neurons that the token before had active too. 0: zeros as they come from random weights; last as first; hot and
     * repeat as docs/synthetic.md says.
     */
    const char *ffn_activation;
    double ffn_zeros, ffn_zeros_last, neuron_hot, neuron_repeat;
    bool hot_first;                  /* neurons are numbered by how often they fire; otherwise at random */
    /**
     * What only some architectures have; 0: nothing, or what the field says. layer_pattern: a letter for each layer,
     * from its front again where it ends: A attention, C short convolution, D delta net, L latent attention, M state
     * space, F an FFN and nothing before it, W attention within the window; NULL: A.
     */
    const char *layer_pattern;
    uint32_t rope_dimensions;        /* of a head that are rotated; 0: all */
    uint32_t window;                 /* positions that layers with a window see */
    float yarn_factor;
    uint32_t yarn_context;           /* that it was trained with before */
    uint32_t shared_length;          /* neurons of an FFN beside the experts */
    uint32_t leading_dense;          /* first layers with an FFN of feed_forward_length in place of experts */
    float expert_scale;              /* that experts' weights are times */
    uint32_t convolution_taps, mix_key_heads, mix_value_heads, mix_head_length; /* of C, D, M; key heads: groups */
    uint32_t mix_state_length;       /* of M */
    uint32_t local_head_dimension;   /* of W, which has a base of its own too */
    float local_rope_base;
    uint32_t full_head_count_kv;     /* of A beside W; 0: as W */
    bool keys_are_values;            /* in A beside W */
    uint32_t keyed_layers;           /* that have keys and values; later ones use theirs; 0: all */
    uint32_t token_length;           /* of a vector that each layer has of each token */
    float logit_cap;
    uint32_t latent_length, latent_query_length; /* of L, whose heads have keys and values of head_dimension */
} pi2_synthetic_shape;

/** The names of the shapes that are known, NULL at the end. */
PI2_API const char *const *pi2_synthetic_shape_names(void);
/** Errors  INVALID: no such shape (the text lists them) */
PI2_API pi2_status pi2_synthetic_shape_find(const char *name, pi2_synthetic_shape *shape_out);
/** A small llama from which a shape of one's own can start. */
PI2_API void pi2_synthetic_shape_default(pi2_synthetic_shape *shape_out);

typedef struct pi2_synthetic_options {
    pi2_synthetic_shape shape;
    const char *type;          /* "q4_0" ... "q6_k", "q4_k_m", "f16", "bf16", "f32" */
    bool pure;                 /* every matrix of that type; else what llama-quantize mixes */
    uint64_t seed;             /* equal seeds and shapes give equal bytes */
    const char *output_path;
    bool overwrite;            /* what lies there is replaced, a folder or device never */
    pi2_callbacks callbacks;   /* progress: "writing", bytes of the file */
} pi2_synthetic_options;

/** Defaults: a small dense llama, "q4_0", mixed, seed 1, nothing overwritten. */
PI2_API void pi2_synthetic_options_init(pi2_synthetic_options *options);

typedef struct pi2_synthetic_report {
    uint64_t file_bytes, parameter_count;
    uint32_t tensor_count;
} pi2_synthetic_report;

/**
 * Writes the model. The file has its name only once it is whole and on the disk; until then it is
 * ".<name>.tmp" in the same folder. Takes about 64 MB of memory, whatever the shape, and leaves
 * nothing in the page cache. report_out may be NULL.
 * Errors   INVALID (an impossible shape, an unknown type, a file that is there), IO (no room, with
 *          what is needed and free), MEMORY, INTERRUPTED. Nothing is left behind then.
 * Threads  any
 */
PI2_API pi2_status pi2_synthetic_write(const pi2_synthetic_options *options,
                                       pi2_synthetic_report *report_out);

#ifdef __cplusplus
}
#endif
#endif
