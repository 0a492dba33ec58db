/* forward_internal.h: what the parts of the forward pass share. */
#ifndef PI2_PIPELINE_FORWARD_INTERNAL_H
#define PI2_PIPELINE_FORWARD_INTERNAL_H

#include "kernels/activations.h"
#include "kernels/vector/vector.h"
#include "pipeline/forward.h"
#include "pipeline/stage.h"

enum { PI2_ACTIVATION_KINDS = 3 };

/** One batch of vectors in every form that the matrices reading it want. */
typedef struct pi2_activation_set {
    unsigned kinds; /* bit 1 << pi2_activation_kind */
    pi2_activations of[PI2_ACTIVATION_KINDS];
} pi2_activation_set;

/** A run of FFN clusters of one layer: neurons [begin, end). */
typedef struct pi2_neuron_run {
    uint32_t begin, end;
} pi2_neuron_run;

/** Buffers of one pass, carved from the scratch memory; strides in floats, multiples of 16. */
typedef struct pi2_forward_buffers {
    float *x;                    /* residual stream       [batch][width_stride] */
    float *out;                  /* a projection's result [batch][width_stride] */
    float *normed;               /* F32 activations only  [batch][width_stride] */
    float *q, *k, *v, *attended; /* [batch][*_stride] */
    float *hidden;               /* F32 Down only         [batch][neuron_stride] */
    float *cos_sin;              /* [batch][rope dimensions] */
    float *logits;               /* [logits_tokens][vocabulary_stride] */
    float *member;               /* per thread: member_floats each */
    pi2_activation_set normed_set, attended_set, hidden_set;
    size_t width_stride, q_stride, k_stride, v_stride, attended_stride, neuron_stride, vocabulary_stride;
    size_t member_floats, score_floats, gate_floats;
    uint32_t neuron_chunk;       /* neurons that one FFN chunk computes */
} pi2_forward_buffers;

struct pi2_forward {
    pi2_forward_options options;
    const pi2_model *model;
    const pi2_vector_kernels *vector;
    const pi2_attention_kernels *attention;
    pi2_kv_layout kv_layout;
    size_t kv_head_bytes;
    pi2_forward_buffers buffers;
    double *rope_frequencies;    /* [rope dimensions / 2] */
    double rope_magnitude;
    pi2_neuron_run *runs;        /* of all layers, one after another */
    uint32_t *layer_first_run;   /* [layer_count + 1] */
    pi2_stage_list stages;
    pi2_sleepers sleepers;

    /* the pass under way */
    const int32_t *tokens;
    uint32_t token_count, position;
    pi2_forward_logits wanted;
    const pi2_forward_hooks *hooks;
    _Atomic int failed;          /* a pi2_status; the first failure wins */
    char failure_text[512];
};

/** One thread's walk through the pass. */
typedef struct pi2_forward_walk {
    pi2_forward *forward;
    unsigned member, member_count;
    uint32_t stage;              /* number of the next stage */
    uint32_t layer;
    pi2_neuron_run run;
    uint32_t head_first, head_tokens;
    const char *stage_name;      /* of the next stage only, for a trace: static text */
} pi2_forward_walk;

/** Carves the buffers out of `memory`, or only counts bytes when it is NULL. */
size_t pi2_forward_carve(const pi2_model *model, const pi2_forward_shape *shape, void *memory,
                         pi2_forward_buffers *buffers);

/** The key-value cache's layout: its capacity is the context rounded up to whole tiles. */
pi2_kv_layout pi2_forward_kv_layout(const pi2_model *model, const pi2_forward_shape *shape);

/** Which activation kinds an operand needs, as a bit; 0 for none. */
unsigned pi2_operand_kind(const pi2_operand *operand);

/** Quantises one token's floats into every kind of the set but F32. */
void pi2_activation_set_fill(pi2_activation_set *set, uint32_t token, uint32_t column_begin,
                             uint32_t column_count, const float *floats);

/** Notes a failure of this thread (its error text); later work of the pass is skipped. */
void pi2_forward_fail(pi2_forward *forward, pi2_status status);
bool pi2_forward_failed(const pi2_forward *forward);

/**
 * tiles [tile_begin, tile_begin + tile_count) of the operand's rows times tokens [token_begin,
 * + token_count) of the set: out[token - token_begin][row - 16 * tile_begin]. Every column at once.
 * last: the pass uses these tiles no more.
 */
void pi2_forward_rows(pi2_forward *forward, const pi2_operand *operand, uint32_t tile_begin, uint32_t tile_count,
                      const pi2_activation_set *set, uint32_t token_begin, uint32_t token_count, float *out,
                      size_t out_stride, bool last);

/** Down: the same over the columns [column_begin, column_end) only, continuing out's sums from 0. */
void pi2_forward_columns(pi2_forward *forward, const pi2_operand *operand, uint32_t tile_begin,
                         uint32_t tile_count, uint32_t column_begin, uint32_t column_end,
                         const pi2_activation_set *set, uint32_t token_count, float *out, size_t out_stride);

/** Tiles of an operand's rows. */
uint32_t pi2_operand_tiles(const pi2_model *model, const pi2_operand *operand);

/** Embeds the pass's tokens into x. */
pi2_status pi2_forward_embed(pi2_forward *forward);

/** The layer's attention, and its FFN. */
void pi2_forward_attention(pi2_forward_walk *walk);
void pi2_forward_ffn(pi2_forward_walk *walk);

/** Runs a stage; its tail runs for every token of the batch, in parallel when there are many. */
typedef void pi2_token_tail(pi2_forward_walk *walk, uint32_t token);
void pi2_forward_stage(pi2_forward_walk *walk, uint32_t chunk_count, pi2_stage_chunk *chunk, pi2_token_tail *tail);

/** Chunks of about `bytes` each of a matrix of tile_count tiles, at least a few for each thread. */
uint32_t pi2_forward_chunk_tiles(const pi2_forward *forward, uint32_t tile_count, size_t tile_bytes);

/** Norm of x (role) into normed_set. */
void pi2_forward_norm_token(pi2_forward *forward, const float *weight, uint32_t token);

#endif
