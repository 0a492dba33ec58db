/* memory_plan.h: what a memory budget is spent on. Pure arithmetic: nothing is allocated here. */
#ifndef PI2_PLANNER_MEMORY_PLAN_H
#define PI2_PLANNER_MEMORY_PLAN_H

#include "pipeline/forward.h"

/** Tokens of a pass that computes single neurons, at most: one, and those guessed ahead. */
enum { PI2_NEURON_TOKENS = 8 };
/** Banks that one layer of such a pass uses at most: pi2_neuron_banks.at_once. */
uint32_t pi2_memory_plan_banks_at_once(const pi2_model_shape *shape, uint32_t tokens);

typedef struct pi2_memory_plan_request {
    const pi2_model *model;
    const char *model_path;     /* for the refusal */
    uint64_t budget_bytes;
    bool budget_is_chosen;      /* nobody named it: it is what the machine leaves; for the refusal */
    uint64_t process_bytes;     /* what the process holds already, and will beside the lines below */
    uint32_t sequences;         /* 0: one */
    uint32_t context_tokens;    /* of each; 0: chosen */
    uint32_t branch_tokens;     /* pi2_engine_options.branch_tokens */
    uint32_t batch_tokens;      /* 0: chosen */
    uint32_t logits_tokens;
    uint32_t draft_tokens;      /* guessed ahead: logits of so many tokens more, where the budget affords them */
    uint32_t draft_nodes;       /* likewise of a guess that parts, for which branches are planned too; 0: none does */
    bool draft_nodes_chosen;    /* none part where that is not likely to pay */
    uint32_t feature_count;     /* layers whose inputs are kept of every token of a pass, for one that guesses */
    const uint32_t *feature_layers;
    unsigned thread_count;
    bool threads_are_chosen;    /* nobody named them: fewer compute where their buffers would take too much */
    size_t page_bytes;          /* of the system: stacks are counted in pages */
    pi2_kv_type cache_type;
    uint64_t session_bytes, session_bytes_per_token; /* samplers and texts of all sequences together, by context */
    uint64_t each_session_bytes, each_session_bytes_per_token; /* and of each */
    uint64_t text_bytes, text_bytes_per_token; /* to tokenize and to run a chat template, and by context */
    bool may_lend;              /* weights can leave memory again: they may use room that the cache does not yet */
    const pi2_neuron_banks *banks; /* decoding computes single neurons, from these; NULL: it does not */
    const uint8_t *by_neuron;   /* [extent_count]: 1: decoding does without the extent. NULL where there are no banks */
    double hot_share;           /* of those extents, the leading part of each layer that shall stay: hot neurons, which
                                   a device computes whole */
    bool predicts;              /* a predictor names those neurons */
    bool masks;                 /* pi2_forward_shape.masks */
    bool foretells;             /* one names those that the next layer will probably want */
    uint32_t code_rows;         /* pi2_forward_shape.code_rows */
    bool neurons_always;        /* of experts too where reading them whole is likely to be faster */
} pi2_memory_plan_request;

typedef struct pi2_memory_plan {
    pi2_forward_shape shape;
    uint64_t cache_bytes, scratch_bytes, staging_bytes, ring_bytes, session_bytes, process_bytes;
    uint64_t margin_bytes, text_bytes;
    uint64_t resident_room;     /* for weights; read granularity included */
    uint64_t expert_bytes;      /* of the expert cache; 0: a dense model */
    uint64_t gate_bytes;        /* of a cache of experts' Gates beside it; 0: there is none */
    uint64_t neuron_bytes;      /* of the store of neurons, their heads included; 0: passes are dense */
    uint64_t dense_scratch_bytes; /* beside scratch_bytes, of passes of all neurons; 0: they have none of their own */
    uint64_t shared_bytes;      /* of neuron_bytes: of ring_bytes and dense_scratch_bytes, what the store has while
                                   tokens go by neuron */
    uint64_t neuron_lack_bytes; /* what the budget lacks for such a store, about; 0: nothing, or there are no banks */
    bool whole_is_faster;       /* there are banks, and room for neurons, but whole experts are likely to be faster */
    uint64_t loan_bytes;        /* of these, what the key-value cache lends until it grows */
    uint64_t weight_room;       /* room that would hold all weights of a pass */
    uint32_t draft_tokens;      /* of the request's, what is afforded */
    uint32_t draft_nodes;       /* likewise; 0: guesses are chains. Its leaves: shape.branches and one */
    bool everything_resident;
} pi2_memory_plan;

/**
 * Spends the budget: first what must be there (process, cache, scratch, buffers), the rest on
 * weights. Context, batch and threads, where not given, are chosen so that weights keep most of it.
 * Errors  MEMORY when the minimum does not fit: what the model needs at least, found by planning for more
 */
pi2_status pi2_memory_plan_make(const pi2_memory_plan_request *request, pi2_memory_plan *plan_out);

/** Bytes of the ring through which a model streams under this budget: it holds all of a layer's FFN whose Gate has a
 *  cutoff. */
uint64_t pi2_memory_plan_ring_bytes(const pi2_model *model, uint64_t budget_bytes);

/**
 * Marks the extents that stay: evenly over the sequence, so that reading and computing alternate
 * finely, in runs that are long enough to be read at once. resident[extent_count] is written;
 * returns the bytes marked (read granularity included).
 */
uint64_t pi2_memory_plan_residents(const pi2_extent_layout *layout, const uint32_t *sequence,
                                   uint32_t sequence_count, uint64_t room, uint8_t *resident);

#endif
