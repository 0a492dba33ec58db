/* engine_internal.h: what an engine is made of; for the files of this folder. */
#ifndef PI2_ENGINE_ENGINE_INTERNAL_H
#define PI2_ENGINE_ENGINE_INTERNAL_H

#include <stdatomic.h>

#include "planner/memory_plan.h"
#include "engine/memory_relief.h"
#include "engine/run_trace.h"
#include "neuron_cache/cache_trace.h"
#include "planner/hot_plan.h"
#include "powerinfer2/engine.h"
#include "powerinfer2/session.h"
#include "tokenizer/tokenizer.h"

/** Pages that belong to one engine. */
typedef struct pi2_engine_memory {
    void *pages;
    size_t bytes;
} pi2_engine_memory;

/** What was opened: the model, the text that it is spoken to in, and where its weights are. */
typedef struct pi2_engine_source {
    char model_path[1024], weights_path[1024];
    uint64_t header_hash;           /* pi2_source_identity.header_hash of the GGUF that the weights are from */
    pi2_model *model;
    pi2_tokenizer *tokenizer;
    char *chat_template;            /* source; NULL when the model has none */
    size_t chat_template_length;
    char *template_variables;       /* JSON; NULL: none */
} pi2_engine_source;

/** How it will run: what the budget is spent on, which weights stay, and who computes. */
typedef struct pi2_engine_plan {
    pi2_memory_plan memory;
    uint32_t threads_wanted, thread_count; /* by the options or the processors; of those, how many may compute */
    uint8_t *resident;              /* [extent_count] */
    uint32_t *sequence;             /* extents in pass order, then embedding rows that stay */
    uint32_t sequence_count, head_begin, pass_end;
    uint32_t expert_extent_count;   /* extents of experts: they follow the others in `sequence` */
    const pi2_cache_policy *policy;
    pi2_look_ahead_mode look_ahead;
    const pi2_neuron_banks *banks;  /* the model's, where decoding may go by neuron; else NULL */
    uint8_t *by_neuron;             /* [extent_count]: 1: decoding by neuron does without it; NULL without banks */
    pi2_hot_plan hot;               /* count 0: no expert is hot */
    char hot_reason[160];
} pi2_engine_plan;

/** Pages by what is in them. */
typedef struct pi2_engine_pages {
    pi2_engine_memory weights, experts, neurons, stream, cache, scratch;
    pi2_engine_memory spare_ring;   /* for weights that begin to stream under memory pressure; untouched until then */
} pi2_engine_pages;

/** What is written down about a run; NULL: nothing. */
typedef struct pi2_engine_traces {
    pi2_trace_writer *experts;
    pi2_run_trace *run;
} pi2_engine_traces;

/** Texts that the report points to. */
typedef struct pi2_engine_texts {
    char architecture[64], model_name[128], weight_types[128], budget_reason[384], read_description[256];
} pi2_engine_texts;

struct pi2_engine {
    pi2_engine_options options;     /* strings are copied into the members below */
    pi2_engine_report report;
    pi2_engine_texts texts;
    pi2_engine_source source;
    pi2_engine_plan plan;
    pi2_engine_pages memory;
    pi2_engine_traces traces;
    pi2_team *team;
    pi2_reader *reader;
    pi2_weight_store *store;
    pi2_expert_cache *expert_cache; /* NULL: a dense model */
    pi2_neuron_store *neuron_store; /* NULL: all passes are dense */
    pi2_forward *forward;
    pi2_memory_relief *relief;      /* NULL: weights are kept whatever happens */
    bool plan_only;                 /* header and memory plan; no threads, reader or weights */
    _Atomic int session_count;
};

/** Says one line through the caller's log callback, if there is one. */
void pi2_engine_log(const pi2_engine *engine, const char *format, ...);

/**
 * pi2_engine_open(); plan_only: goes no further than the memory plan and the extents that would
 * stay, prepares nothing, and gives an engine that can only be asked for its report and closed.
 */
pi2_status pi2_engine_open_for(const pi2_engine_options *options, bool plan_only, pi2_engine **engine_out);

/* session.c */

/** An append as a part of longer work: its progress goes from `begin` to `end` of `total` units of `what`. */
typedef struct pi2_session_part {
    const char *what;
    uint64_t begin, end, total;
} pi2_session_part;
void pi2_session_set_part(pi2_session *session, const pi2_session_part *part);

/* engine_outputs.c */

/** Refuses options that name one file for two outputs. Errors  INVALID */
pi2_status pi2_engine_check_outputs(const pi2_engine_options *options);
/** Opens the files that a run writes: none may be one that it reads. Errors  INVALID, IO, MEMORY */
pi2_status pi2_engine_open_outputs(pi2_engine *engine, const pi2_gguf *gguf);

/* engine_text.c */

/* What a conversation takes by token of the context: text, its copies in the template's run, and the tokens. */
enum { PI2_ENGINE_TEXT_BYTES_PER_TOKEN = 96 };
/** What the text takes besides: the tokenizer's stages, and the template's own values. */
uint64_t pi2_engine_text_bytes(const pi2_engine *engine);
/** Bytes of messages that are taken, once the memory is planned. */
uint64_t pi2_engine_conversation_bytes(const pi2_engine *engine);

/** pi2_engine_tokenize_parts() with a tokenizer that may be a file's alone. */
pi2_status pi2_engine_encode_parts(const pi2_tokenizer *tokenizer, pi2_text_reader *reader, void *reader_user,
                                   bool add_special, bool parse_special, pi2_token_taker *taker, void *taker_user);

/** Keeps the chat template and its variables: the caller's, else the model's. Errors  INVALID, UNSUPPORTED,
 *  FORMAT (the caller's: a model's own is only refused when it is used), MEMORY */
pi2_status pi2_engine_read_chat_template(pi2_engine *engine, const pi2_gguf *gguf);

/* engine_experts.c */

/** Begins the trace of experts, where one was asked for. inputs: what it may not replace, NULL at the end.
 *  Errors  INVALID (the model has no experts; what lies there), IO, MEMORY */
pi2_status pi2_engine_open_expert_trace(pi2_engine *engine, const char *const *inputs);

/** Makes the expert cache, where the model has experts. loaded: its memory is filled already. */
pi2_status pi2_engine_start_experts(pi2_engine *engine, bool loaded);

/** Experts that memory holds by the plan, once the key-value cache has grown to `position`; 0: a dense model. */
uint32_t pi2_engine_expert_slots(const pi2_engine *engine, uint32_t position);
/** Why so many slots are too few, in a line; an empty one where they hold what one token uses. */
void pi2_engine_explain_experts(const pi2_engine *engine, uint32_t slots, char *text, size_t capacity);

/* engine_neurons.c */

/** Whether every pass shall be dense: --sparsity off. */
bool pi2_engine_is_dense(const pi2_engine *engine);
/** Tells from the model whether decoding may go by neuron: banks and by_neuron. Errors  MEMORY */
pi2_status pi2_engine_find_neurons(pi2_engine *engine);
/** Marks what stays where decoding goes by neuron: all but by_neuron's extents, and of those what `room` still holds.
 *  Returns the bytes marked. */
uint64_t pi2_engine_mark_by_neuron(pi2_engine *engine, uint64_t room);
/** Makes the store of neurons, where the plan has one. Errors as pi2_neuron_store_create() */
pi2_status pi2_engine_start_neurons(pi2_engine *engine, unsigned spin_us);

/* engine_hot.c */

/** Refuses a routing trace that cannot be used. Errors  IO, FORMAT, MEMORY, INVALID (another model's; no experts) */
pi2_status pi2_engine_check_routing(const pi2_engine *engine);
/** Chooses the hot experts from the routing trace. Errors  as above */
pi2_status pi2_engine_choose_hot(pi2_engine *engine);

/* engine_load.c */

/** Fills the resident weights from a plain GGUF, with every thread of the team. */
pi2_status pi2_engine_load_gguf(pi2_engine *engine, const pi2_gguf *gguf);

/** Finds a good cluster file of the model, or makes one. path_out[capacity]; header_hash_out: by which it is known. */
pi2_status pi2_engine_cluster_file(pi2_engine *engine, const pi2_gguf *gguf, bool may_prepare, bool *found_out,
                                   char *path_out, size_t capacity,
                                   uint64_t *header_hash_out);

#endif
