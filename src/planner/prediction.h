/*
 * prediction.h: how long a pass takes, from what it must move and compute and from what the
 * machine can do. Pure arithmetic.
 *
 *   dense    max(reading, computing) + what neither hides: reads run ahead across layers and tokens
 *   experts  computing of what every token uses
 *            + for each layer the mean of max(reading of the experts that are missed, computing of
 *              the layer's experts): a layer's choice is known only when its router has run
 *   neurons  computing of what every token uses + for each layer max(Gate and Up, reading of the neurons that are
 *            missed, Gate and one read) + Down: reads begin as Gate tells who fires. Passes of few tokens only.
 *            Of experts those that are chosen, whose Gates may have to be read before
 *   reading    bytes / disk's speed at the size of the reads and the number in flight
 *   computing  weights / kernel's speed at these tokens and columns, summed over the matrices
 *              + attention + the steps between matrices + what stages take beside their work
 *              + the processor time that reading takes from computing threads
 */
#ifndef PI2_PLANNER_PREDICTION_H
#define PI2_PLANNER_PREDICTION_H

#include "machine/machine_profile.h"

enum { PI2_WORKLOAD_PARTS = 64, PI2_DISTINCT_POINTS = 14 };

/** What a matrix is to a pass. */
typedef enum pi2_weight_role {
    PI2_ROLE_PLAIN,           /* every token uses all of it */
    PI2_ROLE_EXPERT,          /* of all experts; a token uses `used` of `count` */
    PI2_ROLE_GATE,            /* of FFNs that passes of few tokens compute neuron by neuron: they use all of it, */
    PI2_ROLE_UP,              /* rows of it */
    PI2_ROLE_DOWN             /* and columns of it */
} pi2_weight_role;

/** Matrices of one type and width that a pass computes with. */
typedef struct pi2_workload_weights {
    const char *type;
    uint32_t columns;         /* of a tile */
    pi2_weight_role role;
    bool is_head;             /* one token of a pass needs it */
    bool is_table;            /* keeps its type whatever the quantisation */
    uint64_t bytes;           /* as stored */
    uint64_t weights;         /* elements */
} pi2_workload_weights;

/** A mixture of experts: sizes, and what the replay of a routing said. */
typedef struct pi2_workload_experts {
    uint32_t count, used;     /* of a layer; 0: a dense model */
    uint32_t layers;          /* that have experts; 0: all */
    uint32_t slots;           /* experts that memory holds, of all layers */
    uint32_t read_block;      /* bytes of one read */
    uint64_t expert_bytes;    /* read for one */
    bool loaded;              /* all are in memory before the first pass */
    double cold_hits;         /* share of the experts a first prompt uses that it finds in memory */
    double prompt_hits;       /* of a prompt after others */
    double decode_hits;       /* of single tokens after the prompt */
    double distinct[PI2_DISTINCT_POINTS]; /* experts of a layer that a batch of 2^i tokens uses */
} pi2_workload_experts;

/** FFNs whose neurons are read and computed one by one, where a pass has few tokens. */
typedef struct pi2_workload_neurons {
    uint64_t units, slots;    /* of all layers: what there is, what memory holds; units 0: all passes are dense */
    uint32_t layers;          /* that go by neuron */
    uint32_t unit_bytes;      /* of one, on average */
    uint32_t read_bytes;      /* read for one: the pages that it lies in */
    uint32_t pass_tokens;     /* passes of at most so many may go by neuron */
    bool is_always;           /* and do, whatever it costs */
    uint32_t stages_per_pass; /* of such a pass */
    uint32_t fill_tokens;     /* the first of so many decoded tokens fills the slots; 0: that was done before */
    double fires;             /* share of neurons that one token reads, and whose Up it computes */
    double gives;             /* share of neurons whose Down it computes */
    double used_units;        /* of one token */
    bool is_named;            /* by a predictor: Gate of what it names alone is computed */
    uint64_t predictor_bytes; /* then: of its rows, in all layers, */
    const char *predictor_type; /* which a profile knows by this name, */
    uint32_t predictor_columns; /* and their length */
    double hits;              /* of those, the share that is found in memory */
    /* Neurons of experts, whose weights all have PI2_ROLE_EXPERT: */
    double gate_part, up_part, down_part; /* of experts' bytes, the share that is Gate's and so on */
    uint64_t gate_bytes;      /* read for one expert's Gate; 0: Gates are those of whole experts that all fit */
    uint32_t gate_slots;      /* Gates that memory holds, of all layers */
    double gate_hits;         /* of the Gates that a token uses, the share that is found there */
    uint64_t token_expert_bytes, most_expert_bytes; /* of the whole experts that a dense pass reads, by token; of all */
} pi2_workload_neurons;

/** What of a model and its memory plan decides about its speed. */
typedef struct pi2_workload pi2_workload;
struct pi2_workload {
    pi2_workload_weights parts[PI2_WORKLOAD_PARTS];
    uint32_t part_count;
    uint64_t budget_bytes;
    uint64_t read_bytes;      /* streamed by one pass, of neurons by a dense one; without experts */
    uint64_t resident_bytes;  /* read once, before or in the first pass; without experts and slots */
    bool load_before;         /* before the first pass */
    uint64_t touched_bytes;   /* of memory that passes go through again and again; 0: more than any cache holds */
    uint32_t read_block;      /* bytes of a streamed extent, on average */
    uint32_t read_depth;      /* streamed reads in flight, as far as the stream buffer holds them */
    const char *read_method;
    uint32_t disk;            /* number in the profile */
    uint32_t layer_count, stages_per_pass;
    uint32_t width, feed_forward, query_floats, key_value_floats; /* of a layer; feed_forward: of a token */
    uint64_t cache_bytes_per_position; /* of all layers */
    uint32_t attention_layers, window_layers, window; /* that attend; of them, to the last `window` positions alone */
    uint32_t batch_tokens, threads, cores;
    double device_gains[PI2_DEVICE_POINTS]; /* devices compute beside the threads: how many times as fast whole matrices
                                 are with 1, 8 and 64 tokens; 0: none do */
    bool embedding_streams;   /* a small read at the beginning of each pass */
    pi2_workload_experts experts;
    pi2_workload_neurons neurons;
    /** Sets the hits anew after slots changed; NULL: they stay. */
    void (*replay)(void *user, pi2_workload *workload);
    void *replay_user;
};

/** Layers that have experts. */
static inline uint32_t pi2_prediction_expert_layers(const pi2_workload *workload) {
    return workload->experts.layers ? workload->experts.layers : workload->layer_count;
}

/** Changes for the question "what would help?": factors on the machine, 1 for none. */
typedef struct pi2_what_if {
    double disk, memory, compute;
} pi2_what_if;
extern const pi2_what_if pi2_as_it_is;

typedef struct pi2_pass {
    uint32_t tokens, position;
    double hits;              /* of experts */
    bool cold;                /* what stays in memory is read in this pass */
} pi2_pass;

typedef struct pi2_pass_time {
    double read, compute, seconds; /* seconds >= both where they overlap fully */
    double exposed;                /* of reading, as far as no computing hides it; the embedding's rows aside */
    double spread;                 /* of what the limit was measured with */
} pi2_pass_time;

/** One pass; logits of its last token. */
pi2_pass_time pi2_predict_pass(const pi2_workload *workload, const pi2_machine_profile *profile,
                               const pi2_what_if *what_if, const pi2_pass *pass);

/**
 * The batch from which on, up to `most` tokens, computing hides all of the reading; 0: there is none.
 * hits: of experts, in a batch.
 */
uint32_t pi2_predict_hiding_batch(const pi2_workload *workload, const pi2_machine_profile *profile, double hits,
                                  uint32_t most);

/** Whether such a pass reads and computes single neurons. */
bool pi2_predict_goes_by_neuron(const pi2_workload_neurons *neurons, uint64_t streamed_bytes, uint32_t tokens);

/** Units of neurons that a pass of so many tokens reads. */
double pi2_predict_neuron_misses(const pi2_workload *workload, uint32_t tokens);

/** Experts of a layer that a batch of so many tokens uses. */
double pi2_predict_distinct(const pi2_workload *workload, uint32_t tokens);

/** Decode at `position`, prefill of prompt_tokens, and the time to the first token from a cold start. */
void pi2_predict(const pi2_workload *workload, const pi2_machine_profile *profile, const pi2_what_if *what_if,
                 uint32_t prompt_tokens, uint32_t position, pi2_prediction *prediction_out);

/**
 * What helps decoding, each predicted anew: twice the memory, memory for all weights (for all neurons), a disk twice as
 * fast, memory of twice the bandwidth, processors twice as fast, all processors, the next smaller
 * weight types (not where neurons are read one by one); best first; only what gains 5 %.
 * Returns how many were written, at most PI2_ADVICE_MOST.
 */
size_t pi2_predict_advice(const pi2_workload *workload, const pi2_machine_profile *profile, uint32_t prompt_tokens,
                          uint32_t position, pi2_advice advice_out[PI2_ADVICE_MOST]);

#endif
