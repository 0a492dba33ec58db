/* engine_internal.h: what an engine is made of; for the files of this folder. */
#ifndef PI2_ENGINE_ENGINE_INTERNAL_H
#define PI2_ENGINE_ENGINE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/advised_sampling.h"
#include "engine/draft_times.h"
#include "engine/memory_relief.h"
#include "engine/next_table_file.h"
#include "engine/run_source.h"
#include "engine/run_trace.h"
#include "neuron_cache/cache_trace.h"
#include "powerinfer2/session.h"

/** Pages that belong to one engine. */
typedef struct pi2_engine_memory {
    void *pages;
    size_t bytes;
} pi2_engine_memory;

/** Pages by what is in them. */
typedef struct pi2_engine_pages {
    pi2_engine_memory weights, experts, gates, neurons, predictor, stream, cache, scratch;
    pi2_engine_memory spare_ring;   /* for weights that begin to stream under memory pressure; untouched until then */
} pi2_engine_pages;

/** What is written down about a run; NULL: nothing. */
typedef struct pi2_engine_traces {
    pi2_trace_writer *uses;
    pi2_run_trace *run;
} pi2_engine_traces;

/** The engine's sessions, and what a call that computes for several of them needs. */
typedef struct pi2_session_table {
    pthread_mutex_t turn;           /* held by whoever computes, or changes what a pass of another session looks at */
    bool has_turn;                  /* it was made */
    pi2_session **sessions;         /* [count], by the sequence that they own; NULL: the sequence is nobody's */
    uint32_t count, used;
    pi2_session *branching;         /* whose guesses have branches, the sequences from `count` on; NULL: nobody's */
    pi2_batch_span *spans;          /* [count] */
    int32_t *tokens;                /* [batch_tokens] */
    void *candidates;               /* of the sampler of whoever has the turn */
    pi2_draft_times draft_times;    /* what passes take */
} pi2_session_table;

/** Sees every pass that stores the model's own states, before the next one. */
typedef struct pi2_pass_watcher {
    void *user;
    pi2_status (*saw)(void *user, const pi2_batch *batch);
} pi2_pass_watcher;

struct pi2_engine {
    pi2_planned_run run;            /* what it was opened from */
    pi2_engine_pages memory;
    pi2_engine_traces traces;
    pi2_advised_sampling advised;   /* by the model's file */
    pi2_team *team;                 /* the process's of so many threads, where others are open */
    pi2_engine *draft;              /* guesses for this one; NULL: none */
    pi2_shortcut *shortcut;         /* by which its own layers guess; NULL: none */
    pi2_next_table *next_table;     /* guesses of its sessions are made of it; NULL: none */
    uint64_t claimed_bytes;         /* of the process's memory (base/memory_ledger.h) */
    pi2_store *store;
    pi2_weight_store *weight_store;
    pi2_expert_cache *expert_cache; /* NULL: a dense model */
    pi2_expert_cache *gate_cache;   /* of experts' Gates, where tokens compute single neurons of them; else NULL */
    pi2_neuron_store *neuron_store; /* NULL: all passes are dense */
    pi2_forward *forward;
    pi2_memory_relief *relief;      /* NULL: weights are kept whatever happens */
    pi2_session_table sessions;
    pi2_pass_watcher watcher;       /* saw NULL: there is none */
    struct pi2_prompt_cache *prompt_cache; /* of sessions that will be made; NULL: none */
};

/* session.c */

/** An append as a part of longer work: its progress goes from `begin` to `end` of `total` units of `what`. */
typedef struct pi2_session_part {
    const char *what;
    uint64_t begin, end, total;
} pi2_session_part;
void pi2_session_set_part(pi2_session *session, const pi2_session_part *part);

/* session_table.c */

/** Makes room for the sessions of the plan. Errors  MEMORY */
pi2_status pi2_engine_start_sessions(pi2_engine *engine);
void pi2_engine_end_sessions(pi2_engine *engine);

/* engine_outputs.c */

/** Refuses options that name one file for two outputs. Errors  INVALID */
pi2_status pi2_engine_check_outputs(const pi2_engine_options *options);
/** Opens the files that a run writes: none may be one that it reads. Errors  INVALID, IO, MEMORY */
pi2_status pi2_engine_open_outputs(pi2_engine *engine, const pi2_gguf *gguf);

/* engine_text.c */

/* What a conversation takes by token of the context: text, its copies in the template's run, and the tokens. */
enum { PI2_ENGINE_TEXT_BYTES_PER_TOKEN = 96 };
/** What the text takes besides: the tokenizer's stages, and the template's own values. */
uint64_t pi2_engine_text_bytes(const pi2_tokenizer *tokenizer);
/** Bytes of messages that are taken, once the memory is planned. */
uint64_t pi2_engine_conversation_bytes(uint32_t context_tokens);

/** pi2_engine_tokenize_parts() with a tokenizer that may be a file's alone. */
pi2_status pi2_engine_encode_parts(const pi2_tokenizer *tokenizer, pi2_text_reader *reader, void *reader_user,
                                   bool add_special, bool parse_special, pi2_token_taker *taker, void *taker_user);

/** Keeps the chat template and its variables: the caller's, else the model's. Errors  INVALID, UNSUPPORTED,
 *  FORMAT (the caller's: a model's own is only refused when it is used), MEMORY */
pi2_status pi2_run_read_chat_template(pi2_planned_run *run, const pi2_gguf *gguf);

/* engine_uses.c */

/** Opens the trace of uses, where one was asked for. inputs: what it may not replace, NULL at the end.
 *  Errors  INVALID (the model has neither experts nor neurons that are computed one by one; what lies there), IO,
 *  MEMORY */
pi2_status pi2_engine_open_use_trace(pi2_engine *engine, const char *const *inputs);
/** Begins one of single neurons, once it is known whether tokens go by neuron.
 *  Errors  INVALID (they do not), UNSUPPORTED (too many neurons) */
pi2_status pi2_engine_begin_use_trace(pi2_engine *engine);
/** user: the engine. keys NULL: a pass over so many tokens begins. */
void pi2_engine_record_uses(void *user, const uint32_t *keys, uint32_t count);
/** How near the units of the next uses' layer are to firing. */
void pi2_engine_record_near(void *user, const uint8_t *near, uint32_t count);

/* engine_identity.c */

/** Says what of a settled run makes results differ from the exact ones (pi2_engine_arithmetic()). */
void pi2_run_describe_arithmetic(pi2_planned_run *run);

/* engine_experts.c */

/** Makes the expert cache, where the model has experts. loaded: its memory is filled already. */
pi2_status pi2_engine_start_experts(pi2_engine *engine, bool loaded);

/* engine_neurons.c */

/** Makes the store of neurons, where the plan has one. Errors as pi2_neuron_store_create() */
pi2_status pi2_engine_start_neurons(pi2_engine *engine);

/* run_predictor.c */

/**
 * Finds the predictor of a run that wants one, in the options' file or beside the cluster file, and reads its header;
 * makes it there where it may and shall. gguf: the cluster file.
 * Errors  INVALID (of other weights, of another activation; what to do), IO, FORMAT, UNSUPPORTED, MEMORY, INTERRUPTED
 */
pi2_status pi2_run_open_predictor(pi2_planned_run *run, bool is_to_run, const pi2_gguf *gguf);
/**
 * A predictor of this kind of the run's model, without its layers' numbers; pi2_predictor_free() it. gguf: the model's
 * file where it is open; NULL: it is opened. A cluster file tells whose it is, of a GGUF every byte is read for that.
 * Errors  UNSUPPORTED (an embedding that no predictor reads), IO, FORMAT, MEMORY, INTERRUPTED
 */
pi2_status pi2_run_describe_predictor(const pi2_planned_run *run, const pi2_gguf *gguf, uint32_t kind,
                                      pi2_predictor *predictor_out);
/** Memory that it will take; 0: there is none. */
uint64_t pi2_run_predictor_bytes(const pi2_planned_run *run);
/** Whether what was planned leaves neurons room: what is approximate must not hang on the budget. Errors MEMORY */
pi2_status pi2_run_check_prediction(const pi2_planned_run *run);

/* engine_draft.c */

/** Opens the draft model of the run, where it has one. Errors  as pi2_engine_open() */
pi2_status pi2_engine_open_draft(pi2_engine *engine);
/** Reads the table of next tokens, where sessions guess and there is one. What is wrong with one is told: the text is
 *  the same without. Errors  MEMORY */
pi2_status pi2_engine_load_next_table(pi2_engine *engine);
/** Reads the shortcut that its sessions guess by, before they can. What is wrong with one that nobody named is told.
 *  Errors  as pi2_shortcut_load() */
pi2_status pi2_engine_load_shortcut(pi2_engine *engine);

/* engine.c */

/** From a settled run to an engine that is ready. Errors  as pi2_engine_open() */
pi2_status pi2_engine_start(pi2_engine *engine, const pi2_gguf *gguf);
/** Looks at the model of a run that is open, and may change what its memory is planned for. */
typedef pi2_status pi2_run_adjuster(void *user, pi2_planned_run *run);
/** pi2_engine_open(), with what `adjust` makes of the run. Errors  likewise, and what it returned */
pi2_status pi2_engine_open_adjusted(const pi2_engine_options *options, pi2_run_adjuster *adjust, void *user,
                                    pi2_engine **engine_out);

/* engine_load.c */

/** Fills the resident weights from a plain GGUF, with every thread of the team. */
pi2_status pi2_engine_load_gguf(pi2_engine *engine, const pi2_gguf *gguf);

#endif
