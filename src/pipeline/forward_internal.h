/* forward_internal.h: what the parts of the forward pass share. */
#ifndef PI2_PIPELINE_FORWARD_INTERNAL_H
#define PI2_PIPELINE_FORWARD_INTERNAL_H

#include <pthread.h>

#include "pipeline/device_share.h"
#include "pipeline/device_trial.h"
#include "pipeline/forward.h"
#include "pipeline/pass_choice.h"
#include "pipeline/stage.h"

enum { PI2_STAGES_OF_A_PART = 3 };
#define PI2_NO_BANK UINT32_MAX

enum { PI2_ACTIVATION_KINDS = 3, PI2_AHEAD_TOKENS = 16, PI2_AHEAD_LAYERS = 2 };
enum { PI2_STAGING_RUNS = 16 }; /* runs of embedding rows that are read at once */

/** One batch of vectors in every form that the matrices reading it want. */
typedef struct pi2_activation_set {
    unsigned kinds; /* bit 1 << pi2_activation_kind */
    pi2_activations of[PI2_ACTIVATION_KINDS];
} pi2_activation_set;

/** A run of FFN clusters of one layer: neurons [begin, end). */
typedef struct pi2_neuron_run {
    uint32_t begin, end;
    size_t streamed_bytes;
} pi2_neuron_run;

/** Work on one expert in one layer of one pass; its rows are those of the gathered block. */
typedef struct pi2_expert_job {
    uint32_t expert, first_row, row_count;
    uint32_t first_untaken;      /* clusters before it are taken */
    uint32_t clusters_taken, clusters_done, down_taken, down_done;
} pi2_expert_job;

/** What a mixture of experts needs beside. A row is one token's visit to one expert. */
typedef struct pi2_expert_buffers {
    float *router_input;         /* experts_have_norms: [batch][width_stride] */
    float *probabilities;        /* [batch][expert_stride] */
    float *worth;                /* router_has_bias, groups: the same with the bias, which the choice goes by */
    uint32_t *chosen;            /* [batch][used]: experts, ascending */
    float *weights;              /* [batch][used] */
    uint32_t *row_of;            /* [batch][used]: row of the visit, rows ordered by expert, then token */
    uint32_t *row_token;         /* [rows] */
    uint32_t *expert_rows;       /* [experts of a layer + 1] */
    uint32_t *keys;              /* [jobs] */
    pi2_expert_job *jobs;        /* [jobs] */
    pi2_batch_use *uses;         /* [jobs]: what a batch did with each */
    uint8_t *taken;              /* [jobs][cluster_most]: 1: the cluster is somebody's */
    float *gathered, *hidden;    /* F32 kinds only: [rows][width_stride], [rows][neuron_stride] */
    float *y;                    /* [rows][width_stride] */
    float *ahead_normed;         /* [ahead tokens][width_stride]: what a next layer's router is asked with */
    float *ahead_logits;         /* [ahead tokens][expert_stride]: what it says */
    uint32_t *ahead_keys;        /* [layers looked ahead][experts of a layer] */
    uint32_t *ahead_votes;       /* [experts of a layer] */
    size_t ahead_rows;           /* ahead tokens that there is room for */
    pi2_activation_set gathered_set, hidden_set;
    size_t expert_stride, neuron_stride;
    uint32_t cluster_most;
} pi2_expert_buffers;

/** The layer's experts under way; counts of jobs change under the lock. */
typedef struct pi2_expert_plan {
    pthread_mutex_t lock;
    uint32_t job_count, first_open; /* jobs before it are finished */
    uint32_t down_tiles, down_chunks;
    uint32_t *unit_counts;       /* of each layer: a late thread may come when the next layer's is there */
    uint32_t busy;               /* units taken and not done */
    _Atomic int generation;      /* changes when a thread without work should look again */
} pi2_expert_plan;

/** Neurons that fire of those that a chunk of Gate has: with a bundle that is there, and without. */
typedef struct pi2_fired_list {
    uint16_t here, late;
} pi2_fired_list;

/**
 * What a pass that computes single neurons needs beside. A row: as of an FFN (ffn_unit.h), R at most. A job: one FFN of
 * the layer, its own or an expert's that was chosen, J at most.
 */
typedef struct pi2_neuron_buffers {
    size_t stride;               /* neurons of an FFN, as floats' strides are */
    uint32_t row_count;          /* R */
    _Atomic uint8_t *careful;    /* [R]: 1: the row has an absurdly small hidden value: no zero may be left out */
    float *hidden;               /* [R][stride]: Gate values, then hidden ones; 0: it does not fire */
    const uint8_t **bundles;     /* [J][stride]: where the bundle of a neuron that fires lies */
    /* A chunk of Gate lists who fires where its neurons begin: those that are there, then those that had to be asked
     * for, in that order. */
    uint32_t *listed;            /* [J][stride] */
    pi2_fired_list *fired;       /* [J][stride / PI2_TILE_ROWS]: at a chunk's first neuron; zeros elsewhere */
    size_t fired_count;
    _Atomic uint32_t *late_counts; /* of each layer: a late thread may come when the next layer's is there */
    pi2_activation_set hidden_set; /* [R] */
    /* Down's neurons and their blocks: a segment's lists begin where its neurons do. [R][stride] each */
    const uint8_t **values;
    int8_t *activations;
    uint8_t *places;
    pi2_neuron_block *blocks;
    uint32_t *block_counts;      /* [R][segments] */
    /* What a predictor reads. [R] each */
    pi2_predictor_vector *inputs, *code_vectors;
    int16_t *input_values, *code_values; /* [R][width_stride], [R][code_stride] */
    float *code;                 /* [R][code_stride] */
    /* What it says of the next layer. */
    float *ahead_normed, *ahead_scores; /* [R][width_stride], [R][stride] */
    pi2_activation_set ahead_set; /* [R]: of ahead_normed, as Gate reads it */
    _Atomic uint8_t *ahead_marks; /* [R][stride]: 1: a unit that is named */
    uint32_t *ahead_units;       /* [R][stride] */
    size_t code_stride;
    uint32_t segments;
} pi2_neuron_buffers;

/** Where a token of the pass belongs. */
typedef struct pi2_token_place {
    uint32_t span, position;
    uint32_t logits_row;         /* of the pass's; PI2_NO_LOGITS: nobody wants them */
    uint32_t branches;           /* spans of this number (a bit of each) part from it, or from one that follows it */
} pi2_token_place;
#define PI2_NO_LOGITS UINT32_MAX

/** Buffers of one pass, carved from the scratch memory; strides in floats, multiples of 16. */
typedef struct pi2_forward_buffers {
    float *x;                    /* residual stream       [batch][width_stride] */
    float *out;                  /* a projection's result [batch][width_stride] */
    float *normed;               /* F32 activations only  [batch][width_stride] */
    float *q, *k, *v, *attended; /* [batch][*_stride]; of one matrix a token's q, k and v follow one another */
    float *token_vectors;        /* token_length only: a token's of all layers [batch][token_stride] */
    float *streams;              /* stream_count only: the residual streams of a token [batch][streams_stride] */
    float *features;             /* what some layers read, for one that guesses [batch][features_stride]; none: NULL */
    float *laurel;               /* laurel_rank only: what joins x behind attention [batch][width_stride] */
    float *hidden;               /* F32 Down only         [batch][neuron_stride] */
    float *gates;                /* gelu_topk only: a layer's Gate, whole [batch][neuron_stride] */
    float *cos_sin[PI2_ROPES];   /* of each of the model's rotations: [batch][rope dimensions] */
    float *scratch;              /* of the block that runs: [batch][scratch_stride] */
    float *logits;               /* [logits_tokens][vocabulary_stride] */
    float *kept_logits;          /* of more than one sequence: [sequences][vocabulary_stride] */
    pi2_token_place *places;     /* [batch] */
    float *member;               /* per thread: member_floats each */
    pi2_activation_set normed_set, attended_set, hidden_set;
    /* Of latent attention: what queries are made of [batch][latent_stride]; of each head, one head's tokens behind
     * another's, queries as they are turned and what attention gives [heads * batch][head_query_stride, ...]. */
    float *latent, *head_queries, *head_results;
    pi2_activation_set latent_set, query_set, result_set;
    size_t latent_stride, head_query_stride, head_result_stride;
    size_t scratch_stride, width_stride, q_stride, k_stride, v_stride, attended_stride, neuron_stride;
    size_t vocabulary_stride, token_stride, streams_stride, features_stride;
    size_t member_floats, score_floats, gate_floats;
    uint32_t neuron_chunk;       /* neurons that one FFN chunk computes */
    pi2_expert_buffers experts;
    pi2_neuron_buffers neurons;
    pi2_neuron_buffers mask;     /* shape.masks only: of it what a predictor reads and writes, for a whole batch */
} pi2_forward_buffers;

struct pi2_forward {
    pi2_forward_options options;
    const pi2_model *model;
    pi2_cpu_backend cpu;
    pi2_forward_buffers buffers; /* of the pass under way: one of the next two */
    pi2_forward_buffers few, all; /* of passes by neuron, of those of all neurons: the same where they are not apart */
    float *ones;                 /* [PI2_LONGEST_HEAD]: for norms that have no weights */
    double *rope_frequencies[PI2_ROPES]; /* [rope dimensions / 2] */
    double rope_magnitudes[PI2_ROPES];
    size_t *state_at;            /* [layer_count]: where a layer's keys and values begin in the cache, or its recurrent
                                    states in those of a sequence */
    size_t keys_bytes;           /* of keys and values; behind them lie the sequences' recurrent states */
    size_t recurrent_bytes;      /* of a sequence; behind them as much that is saved, and marked */
    size_t own_bytes;            /* of a sequence: these, and what is saved of its rings */
    pi2_kv_pages *pages;
    uint32_t **ring_pages;       /* [layer_count]: of a layer with rings, the page of each of a sequence's tiles, which
                                    repeat: [sequences][ring_stride]; layers with rings alike have the same; or NULL */
    uint32_t ring_stride;
    bool has_rings;
    pi2_neuron_run *runs;        /* of all layers, one after another */
    uint32_t most_run_count, runs_generation; /* runs were cut for this generation of residents */
    size_t largest_extent;       /* bytes: the stream buffer may leave as much unused where it wraps */
    bool streams;                /* since the last look at residents: some weight of a pass of all neurons does */
    bool all_stream;             /* runs are being cut as if nothing were resident */
    uint32_t *layer_first_run;   /* [layer_count + 1] */
    pi2_stage_list stages;
    pi2_sleepers sleepers;
    pi2_expert_plan plan;
    pi2_look_ahead look_ahead;
    pi2_device_trial device_trials[2]; /* of passes of one token, of many */
    bool has_devices;            /* the pass under way computes with them */
    pi2_device_share share;      /* what of its work is theirs */
    _Atomic uint64_t hot_count;  /* neurons that were computed so, since the creation: of each pass and layer */
    uint32_t *hot;               /* [layer_count]: of a pass by neuron the leading neurons, which are computed whole */
    uint8_t *hot_is_capped;      /* [layer_count]: 1: they would be more, if more were in memory */
    const pi2_neuron_counter *counter; /* NULL: nobody wants to know what neurons give */

    uint32_t *bank_of;           /* [layer_count][FFNs of a layer]: number of its bank, or PI2_NO_BANK */
    uint8_t *has_banks;          /* [layer_count]: 1: all its FFNs have one */
    const pi2_neuron_kernel **gate_kernels, **up_kernels, **down_kernels; /* [layer_count] */
    uint8_t *may_keep;           /* [banks]: 1: a pass of all neurons may leave some of them in the store */
    bool predicts;               /* the next pass leaves out what the predictor does not name */
    bool masks;                  /* the pass under way does, of layers that it computes whole */
    bool foretells;              /* the pass under way asks for the next layer's neurons */
    uint32_t first_logits;       /* index of the next pass's first kept logits */
    _Atomic uint64_t predicted, fired, predict_ns;

    /* the pass under way */
    bool keeps;                  /* it leaves neurons in their store */
    bool by_neuron;              /* layers that have a bank compute the neurons that fire alone */
    pi2_pass_choice choice;      /* whether they do */
    uint64_t expert_bytes;       /* read for one, whole */
    pi2_neuron_store_counters neurons_before; /* this pass */
    bool looks_ahead;
    uint32_t ahead_first;        /* the tokens from here on are asked what the next layer will want */
    const int32_t *tokens;
    const float *given;
    bool given_is_own, is_short; /* as of the batch */
    const pi2_batch_span *spans;
    uint32_t token_count, span_count;
    uint32_t logits_rows;        /* tokens whose logits are wanted */
    const pi2_forward_hooks *hooks;
    _Atomic int failed;          /* a pi2_status; the first failure wins */
    char failure_text[512];
};

/** One thread's walk through the pass. */
typedef struct pi2_forward_walk {
    pi2_forward *forward;
    unsigned member, member_count;
    pi2_backend *device;         /* whom this member works with; NULL: the processor */
    uint32_t stage;              /* number of the next stage */
    uint32_t layer, block;       /* block: its number in the layer */
    uint32_t stream;             /* of the residual streams, where a block goes through them */
    pi2_neuron_run run;
    const pi2_activation_set *input; /* what the block's first matrices read; NULL: normed_set */
    pi2_matrix_role projection;  /* of the layer's matrices, the one that ends the block */
    const char *stage_name;      /* of the next stage only, for a trace: static text */
    uint32_t own_chunks;         /* of the next stage only: its first ones, which are the devices' */
    bool is_kept;                /* weights of the chunk at hand may be kept on a device */
    bool asks_ahead;             /* a predictor is asked of the next layer, not of this one */
    uint32_t foretold_rows;      /* of this layer: rows whose neurons of the next one are still to be asked for */
    uint32_t part_begin, part_end; /* of single neurons: segments of the part under way */
    bool gathers;                /* units that are wanted are asked for together */
    uint32_t wanted_count;       /* those that are not asked for yet: of the layer's bank */
    uint32_t wanted[PI2_WANTED_TOGETHER];
} pi2_forward_walk;

/**
 * How the tiles of a matrix's rows are shared out in a stage: long chunks first, because a kernel
 * streams best where it stays and prepares the activations once a call; short ones at the end, so
 * that the threads finish together. The same plan gives every thread the same chunks.
 */
typedef struct pi2_tile_chunks {
    uint32_t tiles;              /* of the matrix */
    uint32_t own, own_size, own_count; /* its first tiles, which are the devices', and their chunks, the first ones */
    uint32_t coarse, fine;       /* tiles of a long and of a short chunk */
    uint32_t coarse_count;       /* the first of the others are the long ones */
    uint32_t count;
    size_t tile_bytes;
    pi2_share_kind kind;
} pi2_tile_chunks;

/** Of a shape with dense_apart: what passes by neuron, and those of all neurons, have buffers for. */
pi2_forward_shape pi2_forward_shape_by_neuron(const pi2_forward_shape *shape);
pi2_forward_shape pi2_forward_shape_of_all(const pi2_forward_shape *shape);

/** Carves the buffers out of `memory`, or only counts bytes when it is NULL. */
size_t pi2_forward_carve(const pi2_model *model, const pi2_forward_shape *shape, void *memory,
                         pi2_forward_buffers *buffers);

/** Tiles of a ring in which a layer keeps a window of each sequence; 0: it keeps all positions, in pages. */
uint32_t pi2_forward_ring_tiles(const pi2_layer_shape *layer, const pi2_forward_shape *shape);
/** Of a layer's keys and values: room for the cache's positions, or for each sequence's ring. */
pi2_kv_layout pi2_forward_kv_layout(const pi2_layer_shape *layer, const pi2_forward_shape *shape);

/** Which activation kinds an operand needs, as a bit; 0 for none. */
unsigned pi2_operand_kind(const pi2_operand *operand);

/** Quantises one token's floats into every kind of the set but F32. */
void pi2_activation_set_fill(pi2_activation_set *set, uint32_t token, uint32_t column_begin,
                             uint32_t column_count, const float *floats);

/** Notes a failure of this thread (its error text); later work of the pass is skipped. */
void pi2_forward_fail(pi2_forward *forward, pi2_status status);
bool pi2_forward_failed(const pi2_forward *forward);

/** Where the extents of a matrix are found. */
typedef struct pi2_extent_source {
    pi2_expert_cache *experts;   /* NULL: in the weight store, and the two below mean nothing */
    uint32_t key;                /* of the expert */
    uint32_t expert;             /* its number in the layer: of its scale */
    uint32_t first_extent;       /* of its layer's expert 0, by whose extents a matrix tells where its pieces lie */
} pi2_extent_source;

/** Memory of an extent of a matrix: waited for in the weight store, in the cache of experts it has arrived. NULL: the
 *  pass fails. */
const uint8_t *pi2_forward_extent(pi2_forward *forward, const pi2_extent_source *source, uint32_t extent);

/** Tiles of a matrix of the weight store that lie one after the other, in one piece. */
typedef struct pi2_tiles {
    const uint8_t *memory; /* of the tile that was asked for; NULL: the pass fails */
    uint32_t first, end;   /* its number, and that of the one behind the last */
    uint32_t columns;
    size_t bytes;          /* of a tile */
} pi2_tiles;
/** Those from tile `tile` on of the columns from `column` on, where a piece of it begins. */
pi2_tiles pi2_forward_tiles(pi2_forward *forward, const pi2_operand *operand, uint32_t tile, uint32_t column);

/**
 * tiles [tile_begin, tile_begin + tile_count) of the operand's rows times rows [token_begin, + token_count) of the set:
 * out[token - token_begin][row - 16 * tile_begin]. Every column at once.
 * last: the pass uses these tiles no more.
 */
void pi2_forward_source_rows(const pi2_forward_walk *walk, const pi2_extent_source *source, const pi2_operand *operand,
                             uint32_t tile_begin, uint32_t tile_count, const pi2_activation_set *set,
                             uint32_t token_begin, uint32_t token_count, float *out, size_t out_stride, bool last);

/** Down: the same over the columns [column_begin, column_end) only, continuing out's sums from 0; for the last time. */
void pi2_forward_source_columns(const pi2_forward_walk *walk, const pi2_extent_source *source,
                                const pi2_operand *operand, uint32_t tile_begin, uint32_t tile_count,
                                uint32_t column_begin, uint32_t column_end, const pi2_activation_set *set,
                                uint32_t token_begin, uint32_t token_count, float *out, size_t out_stride);

/** Of the weight store: these tiles were used for the last time. */
void pi2_forward_leave_rows(const pi2_forward_walk *walk, const pi2_operand *operand, uint32_t tile_begin,
                            uint32_t tile_count);

/** pi2_forward_source_rows() from the weight store. */
void pi2_forward_rows(const pi2_forward_walk *walk, const pi2_operand *operand, uint32_t tile_begin,
                      uint32_t tile_count, const pi2_activation_set *set, uint32_t token_begin, uint32_t token_count,
                      float *out, size_t out_stride, bool last);

/** Embeds the pass's tokens into x. */
pi2_status pi2_forward_embed(pi2_forward *forward);

/** The layer's FFN that every token uses: its own, whose result ends the block, or the one beside its experts, whose
 *  result stays in `out`. */
void pi2_forward_ffn(pi2_forward_walk *walk);
/** Makes room for the runs of the dense layers' clusters, and cuts them. Errors  MEMORY. forward_ffn.c */
pi2_status pi2_forward_make_runs(pi2_forward *forward);
/** Cuts them, by what is resident now; returns their number, at most most_run_count. */
uint32_t pi2_forward_plan_runs(pi2_forward *forward);
/** Whether the stream buffer holds a run and the one after it, however it wraps. */
bool pi2_forward_two_runs_fit(const pi2_forward *forward, uint32_t run);

/** What a pass of all neurons tells the store of single ones: which of [begin, end) of an FFN (expert: UINT32_MAX in a
 *  dense layer) fire for one of its last tokens, by their Gate with its bias. forward_neurons.c */
void pi2_forward_warm_neurons(const pi2_forward_walk *walk, uint32_t expert, uint32_t token, uint32_t begin,
                              uint32_t end, const float *gate);
/** Whether a pass of all neurons may leave those of a bank in the store; and that, forward_keep.c: rows of
 *  [begin, end), which the caller has computed for all tokens and not left yet, and a stage in which a run's Down is
 *  looked through. */
bool pi2_forward_may_keep(const pi2_forward *forward, const pi2_neuron_bank *bank);
bool pi2_forward_keeps_rows(const pi2_forward_walk *walk); /* of the layer under way */
void pi2_forward_keep_rows(const pi2_forward_walk *walk, uint32_t begin, uint32_t end);
void pi2_forward_keep_columns(pi2_forward_walk *walk);
/** Whether the layer's FFNs are computed by neuron in this pass; and that. forward_neurons.c */
bool pi2_forward_takes_neurons(const pi2_forward_walk *walk);
void pi2_forward_neurons(pi2_forward_walk *walk);
/** Gate of neurons [begin, end) of the layer's FFN number `job`, and what follows at once: reads, and Up rows. */
void pi2_forward_fire(pi2_forward_walk *walk, unsigned member, uint32_t job, uint32_t begin, uint32_t end);
/** Whether the pass leaves neurons out, by a predictor; and the stages that name those that it computes: they are not 0
 *  in `hidden` afterwards. forward_predict.c */
static inline bool pi2_forward_predicts(const pi2_forward *forward) { return forward->by_neuron && forward->predicts; }
void pi2_forward_predict(pi2_forward_walk *walk);
/** Whether the layer under way is computed whole, and what was not named counts as 0 all the same; and that, of neurons
 *  [begin, begin + count) of a row. */
static inline bool pi2_forward_masks(const pi2_forward_walk *walk) {
    const pi2_forward_options *options = &walk->forward->options;
    if (!walk->forward->masks || !walk->forward->has_banks[walk->layer]) return false;
    if (pi2_layer_has_experts(&walk->forward->model->layers[walk->layer])) return options->left_out != 0; /* alike */
    return options->left_out < 0 || options->predictor->layers[walk->layer].left_out > 0;
}
void pi2_forward_mask(const pi2_forward_walk *walk, uint32_t row, uint32_t begin, uint32_t count, float *activations);
/** Stages that name neurons which the next layer will probably want, where the pass does that: returns the rows that
 *  are to be told of, or 0. forward_predict.c */
uint32_t pi2_forward_ask_ahead(pi2_forward_walk *walk);
/** Reads what was named for a row: a thread for each, before the layer's last stage. */
void pi2_forward_foretell(pi2_forward_walk *walk, uint32_t row);
/** The residual stream of a token as the next layer's FFN would norm it. */
void pi2_forward_norm_ahead(const pi2_forward_walk *walk, uint32_t token, float *normed);

/** A pass begins: which neurons are hot in it. One thread. forward_hot.c */
void pi2_forward_find_hot(pi2_forward *forward);
/** What hot neurons [begin, end) give for all tokens. */
void pi2_forward_hot_neurons(const pi2_forward_walk *walk, unsigned member, uint32_t begin, uint32_t end);
/** Down of the layer's hot neurons, from which cold ones' sums go on: chunks of it, all the devices' own, and one. */
pi2_tile_chunks pi2_forward_hot_down_chunks(const pi2_forward_walk *walk);
void pi2_forward_hot_down(pi2_forward_walk *walk, const pi2_tile_chunks *chunks, uint32_t chunk);

/** A pass that takes the shortcut begins; and the stages that stand for the layers left out, behind which walk->layer
 *  is the first one again. forward_shortcut.c */
enum { PI2_STAGES_OF_A_SHORTCUT = 4 }; /* with their tails */
pi2_status pi2_forward_begin_short(pi2_forward *forward);
void pi2_forward_take_shortcut(pi2_forward_walk *walk);

/** A pass by neuron begins: one thread. */
void pi2_forward_begin_neurons(pi2_forward *forward);

/** Where the layer's experts are found in this pass: by neuron only their Gates are asked for. */
pi2_expert_cache *pi2_forward_experts_of(const pi2_forward_walk *walk);

/** What a router with a norm of its own reads of x, by its layer's tables. */
void pi2_forward_norm_router(const pi2_forward *forward, const float *const *tables, const float *x, float *normed);
/** The router, up to asking for the experts that it chose; and their work. forward_experts.c */
void pi2_forward_router(pi2_forward_walk *walk);
void pi2_forward_experts(pi2_forward_walk *walk);
/** By neuron: the Gates of the experts that were chosen; and at last the sum of their results. */
void pi2_forward_expert_gates(pi2_forward_walk *walk);
/** What each chosen expert's rows read, side by side: of one token nothing is to be done. */
void pi2_forward_gather(pi2_forward_walk *walk);
void pi2_forward_sum_experts(pi2_forward_walk *walk, uint32_t token);

/**
 * Looking ahead, forward_look_ahead.c: the next layers' routers are asked with this layer's input. Chunks of the
 * router's stage do it after its own; `x` of a token that is asked for is normed when attention is done with it.
 */
uint32_t pi2_forward_ahead_chunks(const pi2_forward_walk *walk);
void pi2_forward_ahead_chunk(const pi2_forward_walk *walk, uint32_t chunk);
void pi2_forward_ahead_token(const pi2_forward_walk *walk, uint32_t token);
/** Names the experts that were foretold to the cache. One thread, after the layer's own demand. */
void pi2_forward_ahead_ask(const pi2_forward_walk *walk);

/** A unit of an expert's work: a cluster's neurons, its Gate alone, or some of Down's rows. forward_expert_unit.c */
void pi2_forward_expert_gate(pi2_forward_walk *walk, unsigned member, uint32_t job, uint32_t cluster);
void pi2_forward_expert_cluster(pi2_forward_walk *walk, unsigned member, const pi2_expert_job *job, uint32_t cluster);
void pi2_forward_expert_down(pi2_forward_walk *walk, const pi2_expert_job *job, uint32_t chunk);

/** Adds Down's bias, then as pi2_forward_end_block(), of a token's result in `out`. forward_ffn.c */
void pi2_forward_end_ffn(pi2_forward_walk *walk, uint32_t token);

/* ---- what blocks share: forward_layer.c ---- */

/** How often recurrent states lie there: those after the last pass, those that are saved, and marked. */
static inline size_t pi2_forward_state_copies(const pi2_forward_shape *shape) { return shape->marks ? 3 : 2; }
/** A sequence's recurrent states. */
static inline uint8_t *pi2_forward_sequence_states(const pi2_forward *forward, uint32_t sequence) {
    return (uint8_t *)forward->options.cache + forward->keys_bytes + sequence * forward->own_bytes;
}
/** Recurrent states become those of an empty sequence. forward_states.c */
void pi2_forward_clear_states(pi2_forward *forward, uint32_t sequence);
/** Where the recurrent state begins, of a span's sequence, that a block of the layer keeps. */
uint8_t *pi2_forward_state(const pi2_forward_walk *walk, uint32_t span);
/** Where the state of the layer's recurrent block is marked, if that is due before a token of the pass is computed;
 *  NULL: it is not. */
uint8_t *pi2_forward_mark_before(const pi2_forward_walk *walk, uint32_t token);
/** A layer's keys and values, of all sequences; and the pages that a span's sequence has of them. */
uint8_t *pi2_forward_keys(const pi2_forward *forward, uint32_t layer);
const uint32_t *pi2_forward_pages_of(const pi2_forward *forward, uint32_t layer, uint32_t span);
const uint32_t *pi2_forward_layer_pages(const pi2_forward *forward, uint32_t layer, uint32_t sequence);
/** Where in that memory a token's key and value lie: in its sequence, and in those that part from it, where their page
 *  is another. Returns how many places. */
uint32_t pi2_forward_places(const pi2_forward *forward, uint32_t layer, uint32_t token,
                            uint32_t places_out[PI2_BRANCHES_MOST + 1]);
/** A convolution over the tokens of each sequence; the state of the layer's block begins with its last rows. */
void pi2_forward_convolve(const pi2_forward_walk *walk, const pi2_convolution *convolution, float *x, size_t stride,
                          uint32_t begin, uint32_t end);
/** Where a token of the pass is in its sequence. */
static inline uint32_t pi2_forward_position(const pi2_forward *forward, uint32_t token) {
    return forward->buffers.places[token].position;
}
/** The cosines and sines of a token of the pass, for one of the model's rotations. */
const float *pi2_forward_cos_sin(const pi2_forward *forward, uint32_t rope, uint32_t token);

/** Adds what the block gives for a token to the residual stream, normed and scaled as the model does (`out` is
 *  changed); then the norm of the block, or of the head, that comes next. */
void pi2_forward_end_block(pi2_forward_walk *walk, uint32_t token, float *out);
/** The norm of the first block of walk->layer, or of what follows. */
void pi2_forward_enter_layer(pi2_forward_walk *walk, uint32_t token);
/** The norm of the pass's first block. */
void pi2_forward_first_norm(pi2_forward_walk *walk, uint32_t token);
/** A norm of a token's x into a row of normed_set. weight: NULL: x as it is. bias: NULL where its norms have none. */
void pi2_forward_norm_token(pi2_forward *forward, const float *weight, const float *bias, uint32_t token,
                            uint32_t row);

/** What is done for a token behind a stage. */
typedef void pi2_token_tail(pi2_forward_walk *walk, uint32_t token);

/** A token's result in `attended` is whole: quantised into attended_set. */
void pi2_forward_attended(pi2_forward_walk *walk, uint32_t token);
/** A stage in which attended_set times a matrix of the layer's ends the block. */
void pi2_forward_project(pi2_forward_walk *walk, pi2_matrix_role matrix, const char *name);
/** The same, with a tail of the block's own, for what has come to lie in `out`. */
void pi2_forward_project_to(pi2_forward_walk *walk, pi2_matrix_role matrix, const char *name, pi2_token_tail *tail);
/** Sum of a[i] * b[i], each product rounded, in 16 lanes. */
float pi2_forward_dot(const float *a, const float *b, size_t count);
/** A block that adds nothing to the residual stream ends: the norm of the block that comes next. */
void pi2_forward_pass_on(pi2_forward_walk *walk, uint32_t token);

/** A matrix that reads normed_set, or walk->input, and where its rows go: out[token * stride + row]. */
typedef struct pi2_matrix_rows {
    const pi2_operand *operand;
    float *out;
    size_t stride;
} pi2_matrix_rows;

/** Runs a stage; its tail runs for every token of the batch, in parallel when there are many. */
void pi2_forward_stage(pi2_forward_walk *walk, uint32_t chunk_count, pi2_stage_chunk *chunk, pi2_token_tail *tail);
/** A stage of a tail alone. */
void pi2_forward_token_stage(pi2_forward_walk *walk, pi2_token_tail *tail);

/** Works in a stage without a tail until no chunk is left to be claimed, and returns its number for
 *  pi2_forward_stage_wait(), before which its results may not be used. */
uint32_t pi2_forward_stage_work(pi2_forward_walk *walk, uint32_t chunk_count, pi2_stage_chunk *chunk);
void pi2_forward_stage_wait(const pi2_forward_walk *walk, uint32_t stage);

/** tile_bytes: what a chunk reads of each tile. by_columns: a tile lies in many pieces (Down). kind: whose share of it
 *  is the devices'. */
pi2_tile_chunks pi2_forward_plan_chunks(const pi2_forward *forward, uint32_t tiles, size_t tile_bytes,
                                        bool by_columns, pi2_share_kind kind);
/** All of them the devices'. */
pi2_tile_chunks pi2_forward_own_chunks(uint32_t tiles, size_t tile_bytes, pi2_share_kind kind);
/** A stage of them, as pi2_forward_stage(); and what a member says of a chunk that it has computed. */
void pi2_forward_tile_stage(pi2_forward_walk *walk, const pi2_tile_chunks *chunks, pi2_stage_chunk *chunk,
                            pi2_token_tail *tail);
void pi2_forward_tiles_done(const pi2_forward_walk *walk, const pi2_tile_chunks *chunks, uint32_t chunk);
/** The first tile of chunk `chunk`; of chunk `count`: the number of tiles. */
uint32_t pi2_tile_chunk_begin(const pi2_tile_chunks *chunks, uint32_t chunk);

/** How a layer's neurons [begin, end) are shared out in a stage: the first `own` are the devices', in longer chunks. */
typedef struct pi2_neuron_cut {
    uint32_t begin, end, own, own_size, own_count; /* own, own_size: neurons */
    uint32_t count;
    pi2_share_kind kind;
    bool is_capped;              /* the share wants more than memory has: what devices take besides says nothing */
} pi2_neuron_cut;
/** own: a multiple of the buffers' neuron_chunk, or all. forward_ffn.c */
pi2_neuron_cut pi2_forward_cut_neurons(const pi2_forward *forward, uint32_t begin, uint32_t end, uint32_t own);
/** So many of them as the share of this pass says. */
uint32_t pi2_forward_own_neurons(const pi2_forward *forward, uint32_t count);
/** The first neuron of chunk `chunk`; of chunk `count`: the end. */
uint32_t pi2_neuron_cut_begin(const pi2_forward *forward, const pi2_neuron_cut *cut, uint32_t chunk);
/** What a member says of a chunk whose rows of Gate and Up it has computed. */
void pi2_forward_neurons_done(const pi2_forward_walk *walk, const pi2_neuron_cut *cut, uint32_t chunk);

/** A stage that multiplies the block's input with the layer's matrix PI2_MATRIX_MIX_IN, into its scratch. */
void pi2_forward_mix_input(pi2_forward_walk *walk, const char *name);

/** The rows of several matrices, one after another, shared out as those of one, by the first one's tiles; a stage of
 *  them, and a chunk of it. */
pi2_tile_chunks pi2_forward_matrices_chunks(const pi2_forward *forward, const pi2_matrix_rows *rows, uint32_t count);
void pi2_forward_matrices_stage(pi2_forward_walk *walk, const pi2_matrix_rows *rows, uint32_t count,
                                pi2_stage_chunk *chunk, pi2_token_tail *tail);
void pi2_forward_matrices_chunk(const pi2_forward_walk *walk, const pi2_matrix_rows *rows, uint32_t count,
                                uint32_t chunk);

#endif
