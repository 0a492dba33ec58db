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
} pi2_rope_shape;

enum { PI2_MOST_LAYERS = 1024, PI2_POSITION_OFFSET = 2 /* OPT's; no other family has such a table here */ };

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
    pi2_rope_shape rope;
    pi2_ffn_activation activation, own_activation; /* own: what the architecture has where nothing says otherwise */
    float gate_deviations[PI2_MOST_LAYERS]; /* gelu_topk: by which Gate's cutoff lies above its mean, in standard
                                               deviations; -infinity: the layer has plain gelu */
    bool tied_head;
    uint32_t learned_positions;    /* that the model has vectors for, which are added to the embedding, in a table with
                                      PI2_POSITION_OFFSET rows before the first one's; 0: heads are rotated */
    bool ungated;                  /* the FFN has no Up: f of one matrix, which stands where Gate does, goes to Down */
    bool fused_qkv;                /* rows of queries, then of keys, then of values, in one matrix */
    bool parallel;                 /* the FFN reads the layer's input, as attention does, and not what attention made */
    bool two_norms;                /* parallel: each of them with a norm of its own; else both read one */
    bool head_norms;               /* queries and keys are normed, head by head, before the rotation */
    pi2_expert_gating gating;
    bool router_sees_layer_input;  /* the router reads what attention reads, before any norm */
    uint32_t window;               /* positions that windowed layers see; 0: every layer sees all */
    uint32_t full_layer_step;      /* with a window: layers 0, n, 2n, ... see all and are not rotated */
} pi2_model_shape;

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

/** Whether a layer's neurons come out as exact zeros. */
static inline bool pi2_layer_fires(const pi2_model_shape *shape, uint32_t layer) {
    return pi2_ffn_activation_is_sparse(shape->activation) &&
           (shape->activation != PI2_FFN_gelu_topk || pi2_layer_cuts_gate(shape, layer));
}

/** Whether tokens can be computed with the neurons that fire alone: some layer's activation has exact zeros. */
static inline bool pi2_model_shape_fires(const pi2_model_shape *shape) {
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

/** Whether this layer sees the last `window` positions only (and is rotated). */
static inline bool pi2_layer_has_window(const pi2_model_shape *shape, uint32_t layer) {
    return shape->window > 0 && layer % shape->full_layer_step != 0;
}

/** Small tensors that stay in memory as floats. */
typedef enum pi2_table_role {
    PI2_TABLE_ATTENTION_NORM, PI2_TABLE_FFN_NORM,
    PI2_TABLE_ATTENTION_NORM_BIAS, PI2_TABLE_FFN_NORM_BIAS, /* PI2_NORM_LAYER */
    PI2_TABLE_Q_BIAS, PI2_TABLE_K_BIAS, PI2_TABLE_V_BIAS, PI2_TABLE_OUTPUT_BIAS,
    PI2_TABLE_GATE_BIAS, PI2_TABLE_UP_BIAS, PI2_TABLE_DOWN_BIAS,
    PI2_TABLE_Q_NORM, PI2_TABLE_K_NORM,
    PI2_TABLE_ROUTER, /* a matrix: tiles of F32 weights, 16 experts each */
    PI2_TABLE_LAYER_ROLES,
    PI2_TABLE_OUTPUT_NORM = PI2_TABLE_LAYER_ROLES, PI2_TABLE_OUTPUT_NORM_BIAS, PI2_TABLE_ROPE_FACTORS,
    PI2_TABLE_POSITIONS, /* a matrix, of any type: rows of floats */
    PI2_TABLE_ROLES
} pi2_table_role;

/** One table: its tensor (NULL: this model has none, which is well for biases and factors). */
typedef struct pi2_table_request {
    pi2_table_role role;
    uint32_t layer;             /* or UINT32_MAX */
    const pi2_gguf_tensor *tensor;
    uint32_t length;            /* elements that it must have */
    bool required;
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
} pi2_tensor_directory;
/** layout NULL: a plain GGUF or a PowerInfer file. Errors MEMORY. */
pi2_status pi2_tensor_directory_open(const pi2_gguf *gguf, const pi2_extent_layout *layout,
                                     pi2_tensor_directory *directory_out);
void pi2_tensor_directory_close(pi2_tensor_directory *directory);

typedef struct pi2_architecture {
    const char *name; /* general.architecture */
    pi2_ffn_activation activation; /* where its files do not say another */
    bool has_powerinfer_files;     /* PowerInfer publishes such models; their FFN has zeros: `activation`, else ReLU */
    /** Reads the shape from the metadata. Errors FORMAT (key), UNSUPPORTED. */
    pi2_status (*read_shape)(const pi2_tensor_directory *model, pi2_model_shape *shape_out);
    /** Names the tensors. Errors FORMAT: a tensor that is missing or of the wrong shape. */
    pi2_status (*list_tensors)(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                               pi2_model_requests *requests_out);
} pi2_architecture;

/** The architecture of a model file. Errors  UNSUPPORTED by name, FORMAT. */
pi2_status pi2_architecture_find(const pi2_gguf *gguf, const pi2_architecture **architecture_out);

/**
 * Makes a gguf say which activation its FFN has, whatever it says itself: for the user who knows. Before its
 * shape is read. name NULL: as it is; a PowerInfer file, whose magic says it, then says it by the key too, so that
 * what is made from it does.
 * Errors  INVALID (no such activation: with those there are), MEMORY
 */
pi2_status pi2_architecture_put_activation(pi2_gguf *gguf, const char *name);

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
pi2_status pi2_architecture_f32_or(const pi2_tensor_directory *model, const char *architecture,
                                   const char *suffix, float fallback, float *value_out);
pi2_status pi2_architecture_read_rope(const pi2_tensor_directory *model, const char *architecture,
                                      pi2_rope_shape *rope);
#endif
