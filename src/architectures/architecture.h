/*
 * architecture.h: what a family of models is: its shape, its tensors' names and roles, and how
 * its layers differ. One file a family, one line in architectures.inc.
 */
#ifndef PI2_ARCHITECTURES_ARCHITECTURE_H
#define PI2_ARCHITECTURES_ARCHITECTURE_H

#include <math.h>

#include "clusters/extent_layout.h"
#include "kernels/vector/ffn_activation.h"

typedef enum pi2_norm_kind { PI2_NORM_RMS, PI2_NORM_LAYER } pi2_norm_kind; /* LAYER: less the mean, and with a bias */
typedef enum pi2_rope_pairing { PI2_ROPE_NORM, PI2_ROPE_NEOX } pi2_rope_pairing;
typedef enum pi2_expert_gating { PI2_GATING_SOFTMAX, PI2_GATING_SIGMOID } pi2_expert_gating;

/** Rotary positions and their scaling. */
typedef struct pi2_rope_shape {
    pi2_rope_pairing pairing;
    uint32_t dimensions;        /* rotated dimensions of a head, even */
    float base;
    float linear_scale;         /* 1 / factor for linear and YaRN scaling, else 1 */
    bool yarn;
    float attention_factor;     /* YaRN: multiplies its own magnitude */
    float yarn_beta_fast, yarn_beta_slow;
    uint32_t original_context;  /* YaRN: what the model was trained on before */
    bool has_factors;           /* "longrope": each pair has a factor of its own */
} pi2_rope_shape;

enum { PI2_MOST_EXPERT_GROUPS = 64, PI2_LONGEST_HEAD = 4096, PI2_MOST_STREAMS = 8 };
enum { PI2_MOST_LAYERS = 1024, PI2_POSITION_OFFSET = 2 /* OPT's; no other family has such a table here */ };

/** Kinds of blocks: PI2_BLOCK_attention ... (block.h). */
typedef enum pi2_block_id {
#define BLOCK(name) PI2_BLOCK_##name,
#include "architectures/blocks.inc"
#undef BLOCK
    PI2_BLOCKS
} pi2_block_id;

enum { PI2_LAYER_BLOCKS = 8, PI2_MOST_FEATURES = 8, PI2_ROPES = 2, PI2_NO_ROPE = 255 };

/** What one layer is made of, and how it differs from others of its model. */
typedef struct pi2_layer_shape {
    uint8_t blocks[PI2_LAYER_BLOCKS]; /* pi2_block_id, in the order in which they run */
    uint8_t block_count;
    uint8_t rope;                  /* attention: which of the model's rotations (pi2_model_rope()), or PI2_NO_ROPE */
    uint32_t window;               /* attention_window: positions that a token sees, its own included */
    uint32_t head_count_kv, key_length, value_length;
    uint32_t kv_layer;             /* whose keys and values its attention reads: its own number, or an earlier layer's,
                                      where it makes none itself */
    uint32_t feed_forward_length;  /* of its dense or shared FFN */
    bool values_are_keys;          /* attention_latent: a value is the first numbers of its key, and is kept once */
} pi2_layer_shape;

/** Numbers of one model, checked: every product of them fits in 32 bits where the engine needs it. */
typedef struct pi2_model_shape {
    const char *architecture;
    uint32_t vocabulary_size, embedding_length, layer_count, context_length;
    uint32_t head_count, head_count_kv, key_length, value_length;
    uint32_t feed_forward_length;
    uint32_t expert_count, expert_used_count, expert_feed_forward_length; /* 0: dense */
    pi2_norm_kind norm;            /* of the residual stream */
    float norm_epsilon;
    float attention_scale;
    pi2_rope_shape rope, local_rope; /* local_rope: of layers that say so; no dimensions: there are no such layers */
    pi2_ffn_activation activation, own_activation; /* own: what the architecture has where nothing says otherwise */
    float gate_deviations[PI2_MOST_LAYERS]; /* gelu_topk: by which Gate's cutoff lies above its mean, in standard
                                               deviations; -infinity: the layer has plain gelu */
    bool tied_head;
    bool is_next;                  /* this is the layer behind a model's last one, which guesses a further token, with
                                      the head: a model of its own (pi2_model_create_next()) */
    uint32_t feature_count;        /* of a layer that guesses for another model by what layers of that read: of so many;
                                      0: it is none */
    uint32_t feature_layers[PI2_MOST_FEATURES], feature_length; /* which ones (the number of its layers: what its head
                                      would read, before the norm), and floats of each */
    bool features_have_norm;       /* all of a token's features are normed, as one */
    bool normed_residual;          /* what a token's features make is normed before it is the layer's input, too */
    bool borrows_rows;             /* rows of the embedding are the other model's (pi2_batch.given) */
    uint32_t token_ids;            /* ids that its tokens may have, where the head has others; 0: vocabulary_size */
    uint32_t learned_positions;    /* that the model has vectors for, which are added to the embedding, in a table with
                                      PI2_POSITION_OFFSET rows before the first one's; 0: heads are rotated */
    bool ungated;                  /* FFNs have no Up: f of one matrix, which stands where Gate does, goes to Down */
    bool is_unrotated;             /* no layer's heads are rotated */
    bool fused_qkv;                /* rows of queries, then of keys, then of values, in one matrix */
    bool parallel;                 /* the FFN reads the layer's input, as attention does, and not what attention made */
    bool two_norms;                /* parallel: each of them with a norm of its own; else both read one */
    bool head_norms;               /* queries and keys are normed, head by head, before the rotation */
    bool whole_norms;              /* queries and keys are normed, all heads of a token as one */
    bool norms_after_rotation;     /* of heads: they are normed when they are rotated */
    bool has_sinks;                /* a score for each head that takes part in the softmax and has no value */
    bool gated_queries;            /* behind each head of queries lie as many rows whose sigmoid its result is times */
    bool norms_values;             /* values are normed, head by head, without weights */
    bool keys_are_values;          /* layers that see everything have no matrix of values: those are the keys, before
                                      the norm */
    bool post_norms;               /* what a block gives is normed before it is added */
    bool bare_inputs;              /* blocks read the residual stream without a norm */
    const char *output_norm_name;  /* stem of the head's norm; NULL: "output_norm" */
    const char *ffn_norm_name;     /* stem of the norm that the FFN reads through; NULL: "ffn_norm" */
    uint32_t leading_dense;        /* of a mixture: so many of its first layers have a dense FFN in place of experts */
    uint32_t shared_length;        /* neurons of the FFN beside experts; 0: there is none */
    bool shared_is_gated;          /* the FFN beside experts has a gate of its own */
    bool router_has_bias;          /* which experts are chosen goes by their weight plus a bias, and nothing else */
    bool keeps_probabilities;      /* experts' weights are what the router makes of all of them, and do not sum to 1 */
    float expert_scale;            /* that experts' weights are times at last; 0: 1 */
    uint32_t expert_groups, expert_groups_used; /* experts are chosen from the best groups alone: those whose two best
                                      experts are worth most together; 0 or 1: there are no groups */
    float embedding_scale, residual_scale, logit_scale; /* times; 0: 1. residual: what a block gives, before it is
                                                           added; logit: the logits */
    float temperature_scale;       /* queries at position p are times 1 + this * ln(1 + floor(p / original context)) */
    const char *rope_factors_name; /* NULL: "rope_freqs.weight" */
    bool experts_have_biases;      /* of Gate, Up and Down, and the router of scores */
    float attention_cap, logit_cap; /* x becomes cap * tanh(x / cap), of scores and of logits; 0: it stays */
    uint32_t latent_length;        /* of latent attention, of what heads have in common, beside what is rotated */
    uint32_t latent_query_length;  /* of what all queries are made of; 0: of the layer's input itself */
    uint32_t head_key_length, head_value_length; /* of each head, where they are not what is compared and kept */
    uint32_t token_length;         /* each layer has a vector of so many floats of each token: of its row in a table,
                                      and of its embedding; 0: there are none */
    uint32_t stream_count, active_stream; /* residual streams side by side, and which of them layers' blocks read;
                                      0: there is one */
    uint32_t laurel_rank;          /* of the learned residual layer beside attention; 0: there is none */
    uint32_t cut_layers;           /* gelu_topk, where no key says which layers have a cutoff: so many of the first */
    bool layers_have_scales;       /* the residual stream behind each layer is times a number */
    bool experts_have_norms;       /* before and behind experts and the FFN beside them, each of its own; the router
                                      reads the residual stream through another */
    bool shared_is_dense;          /* the FFN beside experts has the names and the length of a layer's own */
    bool experts_have_scales;      /* each expert's result is times a number */
    bool needs_rope_factors;
    bool norms_attended;           /* what attention gives is normed, all heads as one, before its matrix */
    bool norms_hidden;             /* what a dense FFN's neurons give is normed, all as one, before Down */
    pi2_expert_gating gating;
    bool router_sees_layer_input;  /* the router reads what attention reads, before any norm */
    uint32_t window;               /* positions that windowed layers see; 0: every layer sees all */
    uint32_t local_key_length, local_value_length; /* of windowed layers, where a family has others for these */
    uint32_t keyed_layers;         /* the layers from this one on use keys and values of earlier ones, where a family
                                      has such */
    uint32_t convolution_taps;     /* of short convolutions and delta nets */
    uint32_t mix_key_heads, mix_value_heads, mix_head_length; /* of delta nets; of state spaces, whose groups ... */
    uint32_t mix_state_length;     /* ... of heads have so many directions each in common */
    pi2_layer_shape layers[PI2_MOST_LAYERS];
} pi2_model_shape;

/** Ids that tokens may have: below it. */
static inline uint32_t pi2_model_token_ids(const pi2_model_shape *shape) {
    return shape->token_ids ? shape->token_ids : shape->vocabulary_size;
}

/** Floats that a layer which guesses is given of a token: the embedding's row, where it borrows these, and behind it
 *  the features, or where is_own what it gave itself for the token before. */
static inline uint32_t pi2_model_given_length(const pi2_model_shape *shape, bool is_own) {
    const uint32_t row = shape->borrows_rows ? shape->embedding_length : 0;
    const bool is_one = is_own || shape->feature_count == 0;
    return row + (is_one ? shape->embedding_length : shape->feature_count * shape->feature_length);
}

/** Rotation number `rope` of a model, below PI2_ROPES. */
static inline const pi2_rope_shape *pi2_model_rope(const pi2_model_shape *shape, uint32_t rope) {
    return rope ? &shape->local_rope : &shape->rope;
}

/** Appends a block to a layer's list. */
static inline void pi2_layer_add(pi2_layer_shape *layer, pi2_block_id block) {
    layer->blocks[layer->block_count++] = (uint8_t)block;
}

/** Puts a block before the others. */
static inline void pi2_layer_add_first(pi2_layer_shape *layer, pi2_block_id block) {
    for (uint8_t i = layer->block_count++; i > 0; i--) layer->blocks[i] = layer->blocks[i - 1];
    layer->blocks[0] = (uint8_t)block;
}

/** Whether a layer has a block of that kind. */
static inline bool pi2_layer_has(const pi2_layer_shape *layer, pi2_block_id block) {
    for (uint32_t i = 0; i < layer->block_count; i++) {
        if (layer->blocks[i] == (uint8_t)block) return true;
    }
    return false;
}

/*
 * FFNs: a layer has one, which every token uses, or as many as it has experts, of which a token uses some. What is
 * alike for both asks these.
 */
static inline uint32_t pi2_layer_ffns(const pi2_model_shape *shape) {
    return shape->expert_count ? shape->expert_count : 1;
}
static inline uint32_t pi2_token_ffns(const pi2_model_shape *shape) {
    return shape->expert_count ? shape->expert_used_count : 1;
}
/** Of all layers. */
static inline uint32_t pi2_model_ffns(const pi2_model_shape *shape) {
    return shape->layer_count * pi2_layer_ffns(shape);
}
/** Neurons of one. */
static inline uint32_t pi2_ffn_length(const pi2_model_shape *shape) {
    return shape->expert_count ? shape->expert_feed_forward_length : shape->feed_forward_length;
}
/** Its number among those of all layers. expert: UINT32_MAX in a dense layer. */
static inline size_t pi2_ffn_number(const pi2_model_shape *shape, uint32_t layer, uint32_t expert) {
    return (size_t)layer * pi2_layer_ffns(shape) + (expert == UINT32_MAX ? 0 : expert);
}

/** Whether a layer's Gate has a cutoff, so that none of its neurons can be computed before all of Gate is there. */
static inline bool pi2_layer_cuts_gate(const pi2_model_shape *shape, uint32_t layer) {
    return shape->activation == PI2_FFN_gelu_topk && shape->gate_deviations[layer] > -INFINITY;
}

/** Whether a layer's FFN is computed in one piece: all of Gate is needed before anything else is, or all neurons. */
static inline bool pi2_layer_is_one_run(const pi2_model_shape *shape, uint32_t layer) {
    return pi2_layer_cuts_gate(shape, layer) ||
           (shape->norms_hidden && pi2_layer_has(&shape->layers[layer], PI2_BLOCK_ffn_dense));
}

/** Layers that have experts: their experts' keys follow one another. */
static inline uint32_t pi2_model_expert_layers(const pi2_model_shape *shape) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        count += pi2_layer_has(&shape->layers[i], PI2_BLOCK_ffn_experts);
    }
    return count;
}

/** Whether there is a router that chooses: what has experts in no layer is dense. */
static inline bool pi2_model_has_experts(const pi2_model_shape *shape) { return pi2_model_expert_layers(shape) > 0; }

/** Whether a layer's neurons come out as exact zeros. */
static inline bool pi2_layer_fires(const pi2_model_shape *shape, uint32_t layer) {
    return pi2_ffn_activation_is_sparse(shape->activation) &&
           (shape->activation != PI2_FFN_gelu_topk || pi2_layer_cuts_gate(shape, layer));
}

/**
 * Whether all layers have one kind of FFN, of one length, not normed within, and none beside experts: what reckons
 * with single neurons takes every layer to be as the first.
 */
static inline bool pi2_model_ffns_are_alike(const pi2_model_shape *shape) {
    const pi2_layer_shape *first = &shape->layers[0];
    if (shape->norms_hidden) return false;
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        const pi2_layer_shape *layer = &shape->layers[i];
        if (pi2_layer_has(layer, PI2_BLOCK_ffn_shared) || layer->feed_forward_length != first->feed_forward_length ||
            pi2_layer_has(layer, PI2_BLOCK_ffn_dense) != pi2_layer_has(first, PI2_BLOCK_ffn_dense) ||
            pi2_layer_has(layer, PI2_BLOCK_ffn_experts) != pi2_layer_has(first, PI2_BLOCK_ffn_experts)) return false;
    }
    return true;
}

/** Whether tokens can be computed with the neurons that fire alone: some layer's activation has exact zeros. */
static inline bool pi2_model_shape_fires(const pi2_model_shape *shape) {
    if (!pi2_model_ffns_are_alike(shape)) return false;
    if (shape->activation != PI2_FFN_gelu_topk) return pi2_ffn_activation_is_sparse(shape->activation);
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        if (pi2_layer_fires(shape, i)) return true;
    }
    return false;
}

/** What a layer computes of Gate (cut, where it has a cutoff) and Up. */
static inline pi2_ffn_activation pi2_layer_activation(const pi2_model_shape *shape, uint32_t layer) {
    return shape->activation == PI2_FFN_gelu_topk && !pi2_layer_cuts_gate(shape, layer) ? PI2_FFN_gelu
                                                                                         : shape->activation;
}

/** Matrices, by what they are to a layer; the last six to the model. */
typedef enum pi2_matrix_role {
    PI2_MATRIX_Q, PI2_MATRIX_K, PI2_MATRIX_V, PI2_MATRIX_ATTENTION_OUTPUT, /* output: of any block in its place too */
    PI2_MATRIX_GATE, PI2_MATRIX_UP, PI2_MATRIX_DOWN,                      /* of the FFN, or of the experts */
    PI2_MATRIX_SHARED_GATE, PI2_MATRIX_SHARED_UP, PI2_MATRIX_SHARED_DOWN, /* of an FFN beside the experts */
    PI2_MATRIX_LATENT_QUERY, PI2_MATRIX_HEAD_KEYS, PI2_MATRIX_HEAD_VALUES, /* of latent attention; the last two of each
                                                                              head, one head's rows behind another's */
    PI2_MATRIX_TOKEN_GATE, PI2_MATRIX_TOKEN_OUTPUT,                       /* of what a layer has of each token */
    PI2_MATRIX_LAUREL_INPUT, PI2_MATRIX_LAUREL_OUTPUT,                    /* of what lies beside attention */
    PI2_MATRIX_MIX_IN, PI2_MATRIX_MIX_GATE, PI2_MATRIX_MIX_DECAY, PI2_MATRIX_MIX_STRENGTH, /* of recurrent blocks */
    PI2_MATRIX_NEXT_INPUT,                                                /* of a layer that guesses */
    PI2_MATRIX_LAYER_ROLES,
    PI2_MATRIX_HEAD = PI2_MATRIX_LAYER_ROLES, PI2_MATRIX_EMBEDDING,
    PI2_MATRIX_TOKEN_INPUT, PI2_MATRIX_TOKEN_TABLE,
    PI2_MATRIX_STREAM_INPUT, PI2_MATRIX_STREAM_OUTPUT /* of each stream but the first, one behind another */
} pi2_matrix_role;

/** Small tensors that stay in memory as floats. */
typedef enum pi2_table_role {
    PI2_TABLE_ATTENTION_NORM, PI2_TABLE_FFN_NORM,
    PI2_TABLE_ATTENTION_NORM_BIAS, PI2_TABLE_FFN_NORM_BIAS, /* PI2_NORM_LAYER */
    PI2_TABLE_Q_BIAS, PI2_TABLE_K_BIAS, PI2_TABLE_V_BIAS, PI2_TABLE_OUTPUT_BIAS,
    PI2_TABLE_GATE_BIAS, PI2_TABLE_UP_BIAS, PI2_TABLE_DOWN_BIAS,
    PI2_TABLE_Q_NORM, PI2_TABLE_K_NORM, PI2_TABLE_POST_ATTENTION_NORM, PI2_TABLE_POST_FFN_NORM,
    PI2_TABLE_SHARED_GATE, PI2_TABLE_SINKS,
    PI2_TABLE_CONVOLUTION, /* rows of taps, a channel each */
    PI2_TABLE_MIX_DECAY_BIAS, PI2_TABLE_MIX_RATE, PI2_TABLE_MIX_NORM, PI2_TABLE_ROUTER_BIAS,
    PI2_TABLE_SCORE_BIAS,
    PI2_TABLE_CONVOLUTION_BIAS, PI2_TABLE_MIX_SKIP,
    PI2_TABLE_NO_NORM, /* of blocks that read the residual stream as it is: never there */
    PI2_TABLE_LAYER_SCALE, PI2_TABLE_POST_TOKEN_NORM,
    PI2_TABLE_ROUTER_NORM, PI2_TABLE_POST_SHARED_NORM, PI2_TABLE_EXPERT_NORM, PI2_TABLE_POST_EXPERT_NORM,
    PI2_TABLE_EXPERT_SCALE, PI2_TABLE_ATTENDED_NORM, PI2_TABLE_HIDDEN_NORM,
    PI2_TABLE_MATRIX_SCALE, /* of any matrix: pi2_table_request.matrix */
    PI2_TABLE_NEXT_EMBEDDING_NORM, PI2_TABLE_NEXT_HIDDEN_NORM, /* of a layer that guesses, before its matrix */
    PI2_TABLE_FEATURES_NORM, /* of what layers of another model read */
    PI2_TABLE_LAUREL_NORM, PI2_TABLE_STREAM_NORM, PI2_TABLE_STREAM_SCALE,
    PI2_TABLE_STREAM_ROUTER, PI2_TABLE_STREAM_PREDICTION, PI2_TABLE_STREAM_CORRECTION, /* rows of floats */
    PI2_TABLE_ROUTER, /* a matrix: tiles of F32 weights, 16 experts each */
    PI2_TABLE_LAYER_ROLES,
    PI2_TABLE_OUTPUT_NORM = PI2_TABLE_LAYER_ROLES, PI2_TABLE_OUTPUT_NORM_BIAS, PI2_TABLE_ROPE_FACTORS,
    PI2_TABLE_TOKEN_NORM,
    PI2_TABLE_POSITIONS, /* a matrix, of any type: rows of floats */
    PI2_TABLE_TOKEN_IDS, /* 64-bit integers: of each row of the head, whose logit it is */
    PI2_TABLE_ROLES
} pi2_table_role;

enum { PI2_TABLE_NAME_BYTES = 40 };

/** One table: its tensor (NULL: this model has none, which is well for biases and factors). */
typedef struct pi2_table_request {
    pi2_table_role role;
    uint32_t layer;             /* or UINT32_MAX */
    char name[PI2_TABLE_NAME_BYTES]; /* for a message */
    const pi2_gguf_tensor *tensor;
    uint32_t length;            /* elements that it must have */
    bool required;
    pi2_matrix_role matrix;     /* PI2_TABLE_MATRIX_SCALE: whose results it is times, or each expert's */
    uint32_t rows;              /* 0: a vector; else a matrix of so many rows of `length` columns: in tiles, or */
    bool keeps_rows;            /* row by row, and of any type */
} pi2_table_request;

/** The weights that a model is made of, in the order in which a token uses them. */
typedef struct pi2_model_requests {
    pi2_group_request *groups; size_t group_count;
    pi2_table_request *tables; size_t table_count;
} pi2_model_requests;
void pi2_model_requests_free(pi2_model_requests *requests);

/**
 * A model file's metadata and tensors by name: those of a GGUF, or of a cluster file, whose
 * matrices are found in its layout (as columns x rows, experts' rows following one another).
 */
typedef struct pi2_tensor_directory {
    const pi2_gguf *gguf;
    pi2_gguf_tensor *matrices;   /* of a cluster file's layout; of a PowerInfer file each Down as a GGUF would have it,
                                    without a place in the file (powerinfer.h); NULL for a plain GGUF */
    size_t matrix_count;
    char *names;                 /* storage of those of a PowerInfer file */
    uint32_t first_layer;        /* which layer 0 is; not 0: the one that guesses a further token */
} pi2_tensor_directory;
/** layout NULL: a plain GGUF or a PowerInfer file. Errors MEMORY. */
pi2_status pi2_tensor_directory_open(const pi2_gguf *gguf, const pi2_extent_layout *layout,
                                     pi2_tensor_directory *directory_out);
void pi2_tensor_directory_close(pi2_tensor_directory *directory);

typedef struct pi2_architecture {
    const char *name; /* general.architecture */
    pi2_ffn_activation activation; /* where its files do not say another */
    bool fuses_gate;               /* its files have Gate before Up in one tensor, ffn_up */
    bool guesses;                  /* its files are no models, but layers that guess for one (shape.feature_count) */
    bool has_next_layer;           /* its files may have a layer that guesses a further token, which we can compute */
    bool has_powerinfer_files;     /* PowerInfer publishes such models; their FFN has zeros: `activation`, else ReLU */
    /** Reads the shape from the metadata. Errors FORMAT (key), UNSUPPORTED. */
    pi2_status (*read_shape)(const pi2_tensor_directory *model, pi2_model_shape *shape_out);
    /** Says what layer `number` is made of, where that is not what pi2_decoder_layer() makes of the shape, which
     *  layer_out has already; NULL: it is. The shape is checked. Errors FORMAT (key), UNSUPPORTED. */
    pi2_status (*read_layer)(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number,
                             pi2_layer_shape *layer_out);
} pi2_architecture;

/** The architecture of a model file. Errors  UNSUPPORTED by name, FORMAT. */
pi2_status pi2_architecture_find(const pi2_gguf *gguf, const pi2_architecture **architecture_out);
/** Whether a file is no model, but a layer that guesses for one. False too where it is nothing that is known. */
bool pi2_architecture_guesses(const pi2_gguf *gguf);

/**
 * Makes a gguf say which activation its FFN has, whatever it says itself: for the user who knows. Before its
 * shape is read. name NULL: as it is; a PowerInfer file, whose magic says it, then says it by the key too, so that
 * what is made from it does.
 * Errors  INVALID (no such activation: with those there are), MEMORY
 */
pi2_status pi2_architecture_put_activation(pi2_gguf *gguf, const char *name);

/** Makes of a plain GGUF what its family has: matrices that it stores in one tensor become two. Before its shape is
 *  read. Errors FORMAT, MEMORY */
pi2_status pi2_architecture_adapt(pi2_gguf *gguf);

/** The activation of a file's FFN: what its key says, else what a PowerInfer file of its architecture has, else its
 *  architecture's. Errors UNSUPPORTED, FORMAT (the key). */
pi2_status pi2_architecture_activation(const pi2_architecture *architecture, const pi2_gguf *gguf,
                                       pi2_ffn_activation *activation_out);

/** Shape, with every number checked against the limits that the engine relies on. */
pi2_status pi2_architecture_shape(const pi2_architecture *architecture, const pi2_tensor_directory *model,
                                  pi2_model_shape *shape_out);

/* ---- shared by the families ---- */

/** Finds "blk.<layer>.<suffix>" (layer UINT32_MAX: <suffix> itself); NULL when absent. */
const pi2_gguf_tensor *pi2_architecture_tensor(const pi2_tensor_directory *model, uint32_t layer,
                                               const char *suffix);

/** The same, which must exist with `columns` columns and `rows` rows in all. Errors FORMAT. */
pi2_status pi2_architecture_matrix(const pi2_tensor_directory *model, uint32_t layer, const char *suffix,
                                   uint64_t columns, uint64_t rows, const pi2_gguf_tensor **tensor_out);

/** Metadata "<architecture>.<suffix>". */
pi2_status pi2_architecture_u32(const pi2_tensor_directory *model, const char *architecture,
                                const char *suffix, uint32_t *value_out);
pi2_status pi2_architecture_u32_or(const pi2_tensor_directory *model, const char *architecture,
                                   const char *suffix, uint32_t fallback, uint32_t *value_out);
/** The same of a key that may be an array with a number for each layer: that of `layer`, or UINT32_MAX: the largest.
 *  Errors FORMAT (the key: its type, an array that is shorter than the model) */
pi2_status pi2_architecture_layer_u32_or(const pi2_tensor_directory *model, const char *architecture,
                                         const char *suffix, uint32_t layer, uint32_t fallback, uint32_t *value_out);
pi2_status pi2_architecture_f32_or(const pi2_tensor_directory *model, const char *architecture,
                                   const char *suffix, float fallback, float *value_out);
pi2_status pi2_architecture_bool_or(const pi2_tensor_directory *model, const char *architecture,
                                    const char *suffix, bool fallback, bool *value_out);
pi2_status pi2_architecture_read_rope(const pi2_tensor_directory *model, const char *architecture,
                                      pi2_rope_shape *rope);
#endif
