/*
 * forward.h: a batch of tokens through the model. Prefill and decode are the same walk over the same operands with
 * another number of tokens, so they give the same bits; so do batches of several sequences, which differ in the states
 * that a token's blocks read and in nothing else.
 */
#ifndef PI2_PIPELINE_FORWARD_H
#define PI2_PIPELINE_FORWARD_H

#include "architectures/model.h"
#include "base/team.h"
#include "backends/cpu/cpu_backend.h"
#include "neuron_cache/expert_cache.h"
#include "neuron_cache/neuron_store.h"
#include "neuron_cache/weight_store.h"
#include "pipeline/device_share.h"
#include "pipeline/kv_pages.h"
#include "pipeline/look_ahead.h"
#include "pipeline/neuron_counter.h"
#include "pipeline/shortcut.h"
#include "predictor/predictor.h"

typedef struct pi2_forward pi2_forward;

/** What a forward's memory depends on. */
typedef struct pi2_forward_shape {
    uint32_t batch_tokens;    /* tokens of one pass at most */
    uint32_t logits_tokens;   /* of them, tokens whose logits are kept */
    uint32_t sequences;       /* timelines that are kept at once; 0: one */
    uint32_t branches;        /* sequences beyond these, which part from one of them within a pass (pi2_batch_span):
                                 only where saved states are 0 bytes. They have no room of their own: unused pages */
    uint32_t context_tokens;  /* of each timeline; the key-value cache rounds it up to 16 */
    uint32_t branch_tokens;   /* of each timeline but one, tokens that none of the others has; 0: all its context */
    unsigned thread_count;
    pi2_kv_type cache_type;
    bool embedding_streams;   /* rows of the embedding are read from the file when they are needed */
    uint32_t neuron_tokens;   /* passes of at most so many tokens compute single neurons; 0: none do */
    bool predicts;            /* a predictor names the neurons of those passes */
    bool masks;               /* and those of longer passes too, which compute all neurons and take the others for 0:
                                 the same bits, for measuring */
    bool foretells;           /* one names neurons that the next layer will probably want */
    uint32_t code_rows;       /* of its largest code; 0: it has none */
    bool marks;               /* recurrent states are kept once more, as they were before tokens that were guessed */
    uint32_t feature_count, feature_layers[PI2_MOST_FEATURES]; /* what these layers read of each token is kept until the
                                 next pass (pi2_forward_features()) */
    bool dense_apart;         /* passes of all neurons have scratch of their own, which may serve others between them */
} pi2_forward_shape;

/** Scratch bytes for this shape (batch, logits, per-thread buffers; not the cache). With dense_apart: of passes by
 *  neuron alone, and of the logits of all. */
size_t pi2_forward_scratch_bytes(const pi2_model *model, const pi2_forward_shape *shape);
/** Scratch bytes of passes of all neurons, where those have their own; else 0. */
size_t pi2_forward_dense_scratch_bytes(const pi2_model *model, const pi2_forward_shape *shape);
/** Positions that the key-value cache has memory for: whole pages of 16, which sequences take as they grow and may have
 *  in common (kv_pages.h). */
uint32_t pi2_forward_cache_positions(const pi2_forward_shape *shape);
/** Bytes of what is kept: keys and values of those positions, then each sequence's recurrent states, and those that
 *  are saved and marked. */
size_t pi2_forward_cache_bytes(const pi2_model *model, const pi2_forward_shape *shape);
/** The same of one sequence with its whole context. */
size_t pi2_forward_sequence_bytes(const pi2_model *model, const pi2_forward_shape *shape);
/** Of one sequence's, bytes for saved states: 0 where any position can be gone back to. */
size_t pi2_forward_saved_bytes(const pi2_model *model, const pi2_forward_shape *shape);
/** Bytes of one sequence's recurrent states. */
size_t pi2_forward_recurrent_bytes(const pi2_model *model, const pi2_forward_shape *shape);
/** Bytes of the system's pages that are touched once the cache's first `positions` positions were stored, in memory
 *  that begins with a page of page_bytes; what each sequence has of its own counts with the first position, that of all
 *  sequences. */
size_t pi2_forward_cache_touched_bytes(const pi2_model *model, const pi2_forward_shape *shape, uint32_t positions,
                                       size_t page_bytes);
/** Bytes of the staging buffer through which embedding rows are read; 0 when they do not stream. */
size_t pi2_forward_staging_bytes(const pi2_model *model, const pi2_forward_shape *shape);

typedef struct pi2_forward_hooks {
    void *user;
    bool (*cancelled)(void *user);                                  /* asked once a layer; may be NULL */
    void (*layer_done)(void *user, uint32_t layer, uint32_t layers); /* may be NULL */
} pi2_forward_hooks;

typedef struct pi2_forward_options {
    const pi2_model *model;
    pi2_forward_shape shape;
    pi2_team *team;
    pi2_weight_store *weights;
    pi2_expert_cache *experts; /* NULL: a dense model */
    pi2_expert_cache *gates;   /* whom passes by neuron ask for experts' Gates: a cache of those alone, or `experts`;
                                  NULL: there are no such passes */
    pi2_neuron_store *neurons; /* passes of few tokens compute single neurons; NULL: all passes are dense */
    const pi2_neuron_banks *banks; /* its banks */
    bool neurons_always;      /* whatever it costs, where a pass may */
    const pi2_predictor *predictor; /* loaded; only passes that were asked to (pi2_forward_set_prediction()) go by
                                 neuron, and those that it names; NULL: there is none, and every pass is exact */
    const pi2_predictor *foreteller; /* loaded; names neurons of the next layer, which are read ahead; NULL: none are */
    bool gate_foretells;      /* the next layer's Gate does, asked with this layer's input: without a foreteller */
    pi2_shortcut *shortcut;   /* passes may take it (pi2_batch.is_short); NULL: there is none */
    bool foretells_firing;    /* those that will fire; otherwise all but the share that a layer leaves out */
    double left_out;          /* share of all neurons that such passes leave out, of a layer its left_out; negative:
                                 those that do not fire by the predictor's thresholds */
    pi2_store *store;         /* for embedding rows that are not resident */
    const char *path;         /* of the file that it reads, for messages */
    unsigned cpu_features;
    unsigned spin_us, device_spin_us; /* how long threads spin before they sleep; in passes with devices */
    pi2_backend *const *devices; /* [device_count]: each computes what a member of the team claims, the last ones */
    uint32_t device_count;
    bool devices_always;         /* also where passes are slower with them */
    pi2_device_first_shares device_shares;
    pi2_look_ahead_mode look_ahead; /* for experts */
    pi2_timeline *trace;         /* gets a span of every stage of every thread; may be NULL */
    size_t stream_bytes;      /* of the buffer that weights stream through; 0: none do */
    const uint8_t *resident;  /* [extent_count], for cutting clusters into runs */
    void *cache;              /* pi2_forward_cache_bytes(), 64-byte aligned, may be untouched */
    void *scratch;            /* pi2_forward_scratch_bytes(), 64-byte aligned */
    void *dense_scratch;      /* pi2_forward_dense_scratch_bytes(), 64-byte aligned; NULL when 0. The store of neurons
                                 has its shared memory for as long as passes go by neuron */
    bool ring_is_shared;      /* with it the store of neurons shares the memory of `weights`' ring */
    void *staging;            /* pi2_forward_staging_bytes(), page aligned; may be NULL when 0 */
} pi2_forward_options;

/**
 * Stages that a pass of one token has: each is a meeting of all threads. Those of many tokens have up to one more for
 * each, the tail, and experts one to gather rows (PI2_STAGES_OF_A_GATHER).
 */
enum {
    PI2_STAGES_BESIDE_LAYERS = 2, /* the first norm, the head */
    PI2_STAGES_OF_ATTENTION = 3,  /* q+k+v, attention, output */
    PI2_STAGES_OF_A_RUN = 2,      /* of a dense FFN: gate+up, down */
    PI2_STAGES_OF_EXPERTS = 3,    /* router, choice, experts */
    PI2_STAGES_OF_A_GATHER = 1,
    PI2_STAGES_OF_A_CUTOFF = 1,   /* Gate, before what it says who fires */
    PI2_STAGES_OF_NEURONS = 4,    /* gate, neurons, quantise, columns */
    PI2_STAGES_OF_A_PREDICTION = 3 /* input, code, scores, before what they say who fires */
};

/** Stages of a pass beside its layers': logits may be scaled or capped in one of their own. */
static inline uint32_t pi2_stages_beside_layers(const pi2_model_shape *shape) {
    return shape->logit_scale > 0.0f || shape->logit_cap > 0.0f ? PI2_STAGES_BESIDE_LAYERS + 1
                                                                : PI2_STAGES_BESIDE_LAYERS;
}

/** Streamed bytes of one run of FFN clusters at most, for a stream buffer of so many bytes; 0: no limit. */
size_t pi2_forward_run_bytes(size_t stream_bytes);

/** Errors MEMORY. Keeps the pointers; the caller owns what they point at. */
pi2_status pi2_forward_create(const pi2_forward_options *options, pi2_forward **forward_out);
void pi2_forward_free(pi2_forward *forward);

/** Logits of which of the pass's tokens. */
typedef enum pi2_forward_logits {
    PI2_FORWARD_NO_LOGITS, PI2_FORWARD_LAST_LOGITS, PI2_FORWARD_ALL_LOGITS
} pi2_forward_logits;

/** Branches of a pass at most. */
enum { PI2_BRANCHES_MOST = 31 };

/** The tokens of a batch that are one sequence's: they follow one another, from `position` on. */
typedef struct pi2_batch_span {
    uint32_t sequence;           /* below shape.sequences, or of a branch behind them; once in a batch */
    uint32_t position, token_count;
    uint32_t follows;            /* of a branch: it goes on from a token of this span, an earlier one, 1 and up; its
                                    sequence gets what that branch's tokens, from there back, write. 0: it is none */
    pi2_forward_logits logits;
    uint32_t replayed;           /* so many of its tokens, the first, were computed before: they want no logits */
    uint32_t marked;             /* recurrent states are marked as they are after so many of its tokens; 0: they are
                                    not. Only with shape.marks */
} pi2_batch_span;

/** What one pass computes. */
typedef struct pi2_batch {
    const int32_t *tokens;       /* [token_count], 1 .. batch_tokens: those of the spans one after another; valid ids */
    const pi2_batch_span *spans; /* [span_count], 1 .. shape.sequences; with branches at most PI2_BRANCHES_MOST more */
    const float *given;          /* [token_count][pi2_model_given_length()], of a layer that guesses: what the model
                                    that it guesses for gave for the token before each, */
    bool given_is_own;           /* or it gave itself */
    bool is_short;               /* it takes the shortcut, with at most PI2_SHORTCUT_TOKENS tokens: keys and values
                                    that it stores are about those of the model, its logits guess what they will be */
    uint32_t token_count, span_count;
} pi2_batch;

/**
 * One pass. Writes the states of its sequences at the positions of its tokens, and the logits that its spans want: one
 * row after another, in the tokens' order.
 * Errors  IO, FORMAT (checksum), INTERRUPTED, INVALID (it cannot take the shortcut): keys and values of earlier
 *         positions, and other sequences, are untouched
 */
pi2_status pi2_forward_run(pi2_forward *forward, const pi2_batch *batch, const pi2_forward_hooks *hooks);

/** Whether a pass could take the shortcut now: there is one, and what it computes with is in memory. Between passes. */
bool pi2_forward_has_shortcut(const pi2_forward *forward);

/**
 * What of a sequence's states cannot be taken back: saved, and made what was saved. Recurrent states are those after
 * its last pass; a pass at position 0 begins with none whatever was before, after one that failed they are of no
 * position. Of windows it is what tokens see at `position` and at up to PI2_TAKEN_BACK before. Between passes.
 */
enum { PI2_TAKEN_BACK = 16 };
void pi2_forward_save_states(pi2_forward *forward, uint32_t sequence, uint32_t position);
void pi2_forward_restore_states(pi2_forward *forward, uint32_t sequence, uint32_t position);
/** Recurrent states become those that were marked by a span. Only with shape.marks. */
void pi2_forward_return_to_mark(pi2_forward *forward, uint32_t sequence);
/** The least position that can be gone back to when those up to `written` were written: what a token there sees has not
 *  been overwritten. 0: any. */
uint32_t pi2_forward_least_return(const pi2_forward *forward, uint32_t written);
/** A multiple of 16: the first position that a token at `position` sees in layers with a window, with those of its tile
 *  of 16; UINT32_MAX: no layer has one. */
uint32_t pi2_forward_first_seen(const pi2_forward *forward, uint32_t position);
/** Makes what sequence `to` has of its own that of `from`, of its first `positions` positions: recurrent states, what
 *  windows see, and what is kept of both. */
void pi2_forward_copy_own(pi2_forward *forward, uint32_t from, uint32_t to, uint32_t positions);

/** Which pages of the cache each sequence has. A pass, and whoever fills states, writes positions that the sequence
 *  holds (pi2_kv_pages_hold()), after the copies were made. */
pi2_kv_pages *pi2_forward_pages(const pi2_forward *forward);
/** Makes the copies that a hold of the sequence's has left, in all layers. */
void pi2_forward_copy_pages(pi2_forward *forward, uint32_t sequence);

/** Takes a part of a state, to copy it or to fill it. */
typedef pi2_status pi2_state_visitor(void *user, void *bytes, size_t count);
/** Those from `first`, a multiple of 16, to `end`; seen_only: of layers with a window those that a token at `end` sees.
 */
typedef struct pi2_positions {
    uint32_t first, end;
    bool seen_only;
} pi2_positions;
/**
 * Shows in a fixed order what a layer keeps of positions, in whole tiles of 16, which the sequence must hold. The bytes
 * hang neither on the context nor on the instruction set, how they are parted on where they lie. Nothing is touched
 * here.
 * Errors  what the visitor returned: the rest was not shown then
 */
pi2_status pi2_forward_visit_positions(const pi2_forward *forward, uint32_t sequence, uint32_t layer,
                                       const pi2_positions *positions, pi2_state_visitor *visit, void *user);
/** Bytes that it shows. */
uint64_t pi2_forward_positions_bytes(const pi2_forward *forward, uint32_t layer, const pi2_positions *positions);
typedef enum pi2_kept_states { PI2_STATES_LAST, PI2_STATES_SAVED, PI2_STATES_MARKED } pi2_kept_states;
/** The same of a sequence's recurrent states, of all layers: those after its last pass, or others that it keeps. */
pi2_status pi2_forward_visit_recurrent(const pi2_forward *forward, uint32_t sequence, pi2_kept_states which,
                                       pi2_state_visitor *visit, void *user);
/** A number that names these parts: states of two models, or of two ways to lay them out, have different ones. */
uint64_t pi2_forward_hash_states(const pi2_forward *forward);

/** Tokens' median times without and with devices, of passes of one token or of many, in nanoseconds, and whether they
 *  are left out by that. 0: it has not been tried. */
typedef struct pi2_device_worth {
    uint64_t without_ns, with_ns;
    bool is_off;
} pi2_device_worth;
pi2_device_worth pi2_forward_device_worth(const pi2_forward *forward, bool of_many);

/** The devices' share of an FFN by now, in passes of so many tokens, by neuron or by all neurons. Between passes. */
double pi2_forward_device_share(const pi2_forward *forward, uint32_t tokens, bool by_neuron);
/** Neurons that were computed whole in passes by neuron, because they are the devices', of each pass and layer. */
uint64_t pi2_forward_hot_count(const pi2_forward *forward);

/** Tells `counter`, which must live as long, what every neuron gives from the next pass on; NULL: nobody. Between
 *  passes. */
void pi2_forward_set_counter(pi2_forward *forward, const pi2_neuron_counter *counter);

/**
 * Whether the next passes leave neurons out, as the options' predictor says: without shape.masks they have at most
 * shape.neuron_tokens tokens then. Between passes; without a predictor it must stay false.
 */
void pi2_forward_set_prediction(pi2_forward *forward, bool predicts);
/** The next passes' kept logits begin with the index-th of those that there is room for: passes that are one call's. */
void pi2_forward_set_first_logits(pi2_forward *forward, uint32_t index);

/** What predictions took and gave, since the creation. */
typedef struct pi2_prediction_counters {
    uint64_t predicted, fired;   /* neurons that were computed because a predictor named them; of those, that were
                                    not 0 */
    uint64_t predict_ns;         /* of threads, together */
} pi2_prediction_counters;
void pi2_forward_count_predictions(const pi2_forward *forward, pi2_prediction_counters *counters_out);

/** What the last pass gave for one of its tokens, as the head would read it: out[embedding_length]. Before the next
 *  pass. */
void pi2_forward_given(const pi2_forward *forward, uint32_t token, float *out);
/** The same before its norm. */
void pi2_forward_made(const pi2_forward *forward, uint32_t token, float *out);
/** What the layers of shape.feature_layers read of a token of the last pass: out[feature_count][embedding_length].
 *  Before the next pass. */
void pi2_forward_features(const pi2_forward *forward, uint32_t token, float *out);
/** Rows of the embedding, as they are in the file: out[i * stride]. Between passes. Errors IO, FORMAT (checksum) */
pi2_status pi2_forward_look_up(pi2_forward *forward, const int32_t *tokens, uint32_t count, float *out, size_t stride);

/** [vocabulary_size] of the index-th kept token of the last pass. */
const float *pi2_forward_logits_at(const pi2_forward *forward, uint32_t index);
/** [vocabulary_size]: room for one token's logits of a sequence, which no pass writes. NULL: there is one sequence. */
float *pi2_forward_kept_logits(const pi2_forward *forward, uint32_t sequence);

#endif
