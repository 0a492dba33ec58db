/*
 * engine.h: an opened model within a memory budget.
 *
 *   pi2_engine_options options;
 *   pi2_engine_options_init(&options);
 *   options.model_path = "model.gguf";
 *   options.memory_bytes = 64000000;
 *   pi2_engine *engine = NULL;
 *   if (pi2_engine_open(&options, &engine) != PI2_OK) puts(pi2_error_text());
 *
 * An engine is immutable once opened, but for how many of its weights are in memory. What changes
 * (position, key-value cache, sampler) lives in a pi2_session (session.h). The library never prints
 * and never exits.
 */
#ifndef POWERINFER2_ENGINE_H
#define POWERINFER2_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "powerinfer2/callbacks.h"
#include "powerinfer2/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pi2_engine pi2_engine;

/** Numeric type of the key-value cache: halves, which are what is called exact here; blocks of 8 bits; floats, which
 *  round nothing and take twice the memory. */
typedef enum pi2_cache_type { PI2_CACHE_F16, PI2_CACHE_Q8_0, PI2_CACHE_F32 } pi2_cache_type;

/** Name of a type of cache: "f16", "q8_0", "f32"; NULL past the last. Threads: any. */
const char *pi2_cache_type_name(size_t type);

/** Tokens at the beginning of a text that are always computed with all neurons: what comes after leans on them. */
enum { PI2_EXACT_POSITIONS = 4 };

/** Threads that one engine computes with at most. */
enum { PI2_THREADS_MOST = 256 };

/** Sessions that one engine has room for at most. */
enum { PI2_SEQUENCES_MOST = 256 };

/** pi2_engine_options.draft_nodes: the most where weights stream and every token reads the same ones, else none. */
#define PI2_DRAFT_NODES_CHOSEN UINT32_MAX

typedef struct pi2_engine_options {
    const char *model_path;      /* .gguf (first part of a split model) or .pi2 */
    const char *cluster_path;    /* where to look for or make the .pi2; NULL: beside the model, else the cache folder */
    uint64_t memory_bytes;       /* whole process; 0: what the machine and its cgroup have free, less a margin */
    uint64_t beside_bytes;       /* of memory_bytes, what the caller will use beside the engine */
    uint64_t beside_session_bytes, beside_token_bytes; /* the same for each session, and each token of its context */
    uint32_t sequences;          /* sessions that the engine has room for at once (session.h): 1 to
                                    PI2_SEQUENCES_MOST; 0: 1. Those that begin alike, as a fork and what it came from,
                                    have that part of the key-value cache in common */
    uint32_t branch_tokens;      /* of each session but one, tokens that it has in common with none: the key-value cache
                                    is planned for them and one whole context. 0: for the context of each. A session
                                    that comes to need more is refused it (PI2_ERR_CONTEXT) */
    uint32_t context_tokens;     /* of each session; 0: what the budget affords, at most what the model was trained
                                    for */
    uint32_t batch_tokens;       /* prefill batch; 0: chosen within the budget, at most 512 */
    uint32_t logits_tokens;      /* logits kept by one call: 1, or more for perplexity */
    uint32_t draft_tokens;       /* tokens guessed ahead and checked in one pass, one behind the other, at most 15 and
                                    fewer where the budget is small; 0: none. The text is the same (session.h) */
    uint32_t draft_nodes;        /* the same of a guess that parts, with alternatives, at most 31; 0: none does; or
                                    PI2_DRAFT_NODES_CHOSEN. Models with recurrent states or rings of windows have none,
                                    nor do passes of several sessions */
    const char *draft_model_path; /* a smaller model of the same vocabulary, or a layer that was trained to guess for
                                    this one (EAGLE-3), which guesses them, beside earlier text; it is left out, which
                                    the log says, where it does not pay. NULL: none */
    uint32_t draft_least_tokens; /* fewer of its tokens than this are not checked */
    double draft_least_chance;   /* a token that it gives less than this, 0 .. 1, ends its guess */
    bool draft_always;           /* it guesses also where that seems slower: for measuring */
    uint32_t thread_count;       /* 0: one for each CPU that this process may use, and not more than it may start;
                                    at most these CPUs and PI2_THREADS_MOST, which a line of the log says */
    const char *ffn_activation;  /* of the FFN, by a name of ffn_activations.inc, for files that were converted
                                    without saying it; NULL: what the file or its architecture says */
    const char *devices;         /* who computes beside the processor: names of pi2_device_list() (device.h), commas
                                    between them; NULL or "none": nobody. The text is the same. A device that cannot
                                    be used, or is lost, is left out, which the log says */
    uint64_t device_bytes;       /* for copies of weights on each; 0: three quarters of what a device of its own memory
                                    has, and none on one that shares the machine's */
    bool device_always;          /* also where passes are slower with them, which is tried otherwise: for measuring */
    double device_share;         /* of each matrix, and of the neurons of a sparse layer, the leading part that devices
                                    compute first: 0 .. 1; negative: measured, and corrected by passes */
    bool device_any_precision;   /* a device that gives other bits is taken all the same: another text */
    pi2_cache_type cache_type;
    const char *read_method;     /* "auto", "io_uring", "pread" */
    bool read_on_demand;         /* for ablations: streamed weights and experts are asked for only when they are
                                    waited for, and no expert is fetched ahead */
    const char *neuron_cache;    /* which single neuron leaves memory when another needs its place: "gate" (how near to
                                    firing it was; where that is not known as "mix"), "mix" (how lately and how often
                                    it fired), "heat" (how often), "lru"; "auto": the first; for ablations "off":
                                    none stays from one pass to the next (docs/sparsity.md) */
    bool allow_prepare;          /* make a cluster file when the model does not fit and none is there */
    const char *trace_path;      /* where to write a timeline of reads and computing; NULL: none (docs/tracing.md) */
    const char *stats_path;      /* where to write a table with a line for each append; NULL: none */
    const char *cache_policy;    /* which expert leaves the cache: "auto", or a name of cache_replay.h */
    const char *look_ahead;      /* fetch experts that the next layer will probably want: "off", "on", "auto" (tried) */
    const char *sparsity;        /* "exact": tokens are computed with the neurons that fire alone, where the model has
                                    exact zeros and the cluster file the neuron layout, and that is faster; "always":
                                    also where it is not; "off": with all. The text is the same. Another text gives,
                                    by a predictor, "auto": tokens are computed with the neurons that it expects to
                                    fire, in a model with exact zeros; or a number, 0 up to but not 1: the share
                                    of each layer's neurons that is left out, in any (docs/sparsity.md, Predictors) */
    const char *predictor;       /* for those two: a file of one; "low-bit", or NULL: one made of the weights, which
                                    lies beside the cluster file, and is made there with allow_prepare. With
                                    "exact" and "always" it only says which neurons are read ahead, "gate": the next
                                    layer's Gate says it; NULL or "none": nothing does. With "off" NULL or "none" */
    bool predicts_prompts;       /* for measuring: the predictor serves tokens of prompts too, of all positions from
                                    PI2_EXACT_POSITIONS on; otherwise those that are appended one by one */
    const char *record_trace;    /* file to record uses in, for cache_replay.h: of experts, or of single neurons where
                                    tokens of a model without experts compute those; NULL: none. A model that has
                                    neither is an error */
    const char *routing_trace;   /* experts: a recorded run (record_trace), by whose uses some are hot; NULL: none.
                                    One that cannot be read, or of another model, is an error */
    double hot_share;            /* of the cache, for the hot set: 0 .. 0.75; negative: chosen by replaying the trace */
    const char *chat_template;   /* NULL: the model's; else a name of pi2_chat_template_known(), or Jinja source */
    const char *chat_template_kwargs; /* JSON object of variables for the template; NULL: none. Its texts stay text */
    const char *statistics;      /* counts of neurons (profile.h) by which pi2_engine_predict() will foretell; NULL:
                                    none. They are read while no weight is in memory: later they would exceed the
                                    budget. What is wrong with them is told by pi2_engine_predict() */
    bool counts_neurons;         /* room is planned for counting what neurons give (profile.h, sparsity.h) */
    bool identifies_weights;     /* samples of every tensor are read, for pi2_engine_weights_hash() (identity.h) */
    bool keep_memory;            /* true: weights stay in memory even when others need it (docs/memory.md) */
    const char *const *input_paths; /* other files that the caller reads, NULL at the end: the files above that are
                                    written take the place of none; NULL: none. Read by pi2_engine_open() only */
    const struct pi2_machine_profile *machine; /* what was measured of this machine (plan.h); NULL: nothing. Single
                                    neurons that lie near each other come with one read where that is cheaper by it.
                                    Read by pi2_engine_open() only */
    pi2_callbacks callbacks;
} pi2_engine_options;

/** Fills in the defaults: everything 0 or "auto", sparsity "exact", logits_tokens 1, allow_prepare true,
 *  hot_share and device_share -1. */
PI2_API void pi2_engine_options_init(pi2_engine_options *options);

/**
 * Opens a model. Reads its header, plans the memory, starts the threads.
 * Errors  FORMAT, UNSUPPORTED (the file: what and where), MEMORY (how much is needed, when the minimum
 *         does not fit), IO, INVALID (options), INTERRUPTED
 * Threads one engine may be opened per thread at a time; engines are independent, but for memory: one that is opened
 *         beside others has what its memory_bytes leave of what these were planned with, touched or not; and but for
 *         processors: with as many threads, more than one, they compute with the same ones, so that a pass, or the
 *         loading of a model, waits for the other engine's.
 */
PI2_API pi2_status pi2_engine_open(const pi2_engine_options *options, pi2_engine **engine_out);

/**
 * Ends the files of trace_path, stats_path and record_trace; later calls do nothing, later passes are in no file.
 * pi2_engine_close() does it too, but can only log a failure. Between passes.
 * Errors  IO (path, reason), MEMORY
 */
PI2_API pi2_status pi2_engine_finish_trace(pi2_engine *engine);

/** Closes; every session of it must be freed before. NULL is fine. */
PI2_API void pi2_engine_close(pi2_engine *engine);

/** What was planned: fixed at open. Strings live as long as the engine. */
typedef struct pi2_engine_report {
    const char *architecture, *model_name, *weight_types; /* "llama", "SmolLM2 135M Instruct", "Q4_1, Q8_0" */
    const char *cpu_name;            /* instruction set in use: "AVX-512 VNNI" */
    const char *weights_path;        /* the file that weights come from */
    const char *read_method;         /* "io_uring", "pread" or "none" when all weights are resident */
    const char *read_description;    /* in words, with the reason of a fallback */
    const char *budget_reason;       /* where the budget came from: "--memory", "cgroup v1 limit ..." */
    const char *ffn_activation;      /* "silu", ...: as computed */
    const char *own_ffn_activation;  /* what the architecture has where neither file nor options say otherwise */
    uint64_t budget_bytes;
    uint64_t weight_bytes;           /* all weights; of a mixture of experts too */
    uint64_t resident_bytes;         /* of those kept in memory */
    uint64_t cache_bytes;            /* key-value cache at full context, of all sessions */
    uint64_t scratch_bytes, stream_buffer_bytes, tokenizer_bytes, table_bytes, process_bytes;
    uint64_t text_bytes;             /* planned for tokenizing and for the chat template's run */
    uint64_t conversation_bytes;     /* of messages, all together, that pi2_engine_chat_tokens() takes */
    uint64_t parameter_count;
    uint32_t context_tokens, trained_context_tokens, batch_tokens, thread_count;
    uint32_t sequences;              /* sessions that there is room for */
    uint32_t draft_tokens;           /* of options.draft_tokens, what the budget affords */
    uint32_t draft_nodes;            /* the same of options.draft_nodes; 0: guesses are chains */
    const char *draft_model;         /* the file of the draft model in use, or which layer of the model's own
                                        file guesses in its place; NULL: none */
    uint64_t draft_bytes;            /* memory that it takes, of process and sessions */
    uint32_t layer_count, vocabulary_size;
    uint32_t token_text_bytes;       /* room that any token's text fits in */
    uint32_t expert_count, expert_used_count; /* in each layer; 0: a dense model */
    uint64_t expert_cache_bytes;     /* memory for experts, all of them or a cache */
    uint32_t expert_slots;           /* experts that it holds, of layer_count * expert_count */
    uint64_t gate_bytes;             /* where tokens compute single neurons of experts, memory for their Gates beside
                                        whole experts for prompts; 0: whole experts' are used, or there are none */
    uint32_t gate_slots;             /* Gates that it holds */
    const char *cache_policy;        /* NULL: a dense model */
    uint32_t hot_experts;            /* of the slots: experts that stay, at first */
    double hot_share;                /* of the slots, as chosen */
    const char *hot_reason;          /* why so many are hot; NULL: a dense model */
    uint64_t neuron_bytes;           /* memory for single neurons, with which tokens compute those that fire; 0: all
                                        passes are dense (docs/sparsity.md) */
    uint64_t neuron_all_bytes;       /* what all neurons would take */
    uint64_t shared_bytes;           /* of neuron_bytes: memory that is scratch and stream buffer while a prompt runs */
    const char *predictor;           /* kind of the predictor in use: "low_bit", "gate"; NULL: none. In exact runs it
                                        only says what to read early (pi2_engine_is_exact()) */
    uint64_t predictor_bytes;        /* of it, in memory */
    bool leaves_out;                 /* neurons that it does not name are left out: the text is another one */
    double left_out;                 /* share of all neurons that it leaves out; negative: by its thresholds */
    double left_out_least, left_out_most; /* of a layer: they differ where the predictor was balanced */
    const char *devices;             /* those in use beside the processor, described; NULL: none */
    uint32_t device_count;
    const char *device_shares;       /* in words: which share of a pass's matrices they begin with; NULL: none */
    bool devices_differ;             /* results of one of them are not the processor's, and the text is another one */
    const char *relief_description;  /* what is watched for memory pressure, or why weights cannot be given back */
} pi2_engine_report;
PI2_API const pi2_engine_report *pi2_engine_get_report(const pi2_engine *engine);

/** Whether the text is that of all neurons, to the bit: not where a predictor leaves some out, or a device computes
 *  that has other bits. Threads: any. */
PI2_API bool pi2_engine_is_exact(const pi2_engine *engine);

/** The share of an FFN that devices compute by now in passes of so many tokens, 0 .. 1; negative: there is none.
 *  Between calls that compute. */
PI2_API double pi2_engine_device_share(const pi2_engine *engine, uint32_t tokens);

/** Counters since the engine was opened; counters.inc says what each counts. */
typedef struct pi2_engine_counters {
#define PI2_COUNTER(name, kind, text) uint64_t name;
#include "powerinfer2/counters.inc"
#undef PI2_COUNTER
} pi2_engine_counters;
PI2_API void pi2_engine_count(const pi2_engine *engine, pi2_engine_counters *counters_out);

/** SUM and TIME (nanoseconds) grow, NOW is a state. */
typedef enum pi2_counter_kind { PI2_COUNTER_SUM, PI2_COUNTER_NOW, PI2_COUNTER_TIME } pi2_counter_kind;

typedef struct pi2_counter_description {
    const char *name, *text; /* "bytes_read", and in words */
    pi2_counter_kind kind;
    size_t offset;           /* in pi2_engine_counters */
} pi2_counter_description;

/** Every counter, in the order of counters.inc. Threads: any. */
PI2_API const pi2_counter_description *pi2_counter_descriptions(size_t *count_out);
PI2_API uint64_t pi2_counter_value(const pi2_engine_counters *counters, const pi2_counter_description *description);
/** What was counted between two counts; states are those of the later one. counters_out may be either. */
PI2_API void pi2_counters_between(const pi2_engine_counters *before, const pi2_engine_counters *after,
                                  pi2_engine_counters *counters_out);

/** Peak resident memory of this process so far (VmHWM), 0 if the system does not tell. */
PI2_API uint64_t pi2_peak_memory_bytes(void);

/* ---- text ---- */

/**
 * Tokenizes `length` bytes of text. parse_special: text such as <|im_start|> becomes its token. add_special: the
 * beginning-of-sequence token where the model's text begins with it; an end token never, a prompt goes on.
 * tokens_out is malloc'd: free() it.
 */
PI2_API pi2_status pi2_engine_tokenize(const pi2_engine *engine, const char *text, size_t length,
                                       bool add_special, bool parse_special,
                                       int32_t **tokens_out, size_t *count_out);

/** Reads the next part of a text into bytes[capacity]; *length_out 0: its end. */
typedef pi2_status pi2_text_reader(void *user, char *bytes, size_t capacity, size_t *length_out);
/** Takes tokens of a text, in order. */
typedef pi2_status pi2_token_taker(void *user, const int32_t *tokens, size_t count);
/**
 * Tokenizes a text that is read in parts, to the tokens that it has as a whole. Memory: what the engine's plan
 * holds for it, however long the text is (with BPE up to 5 MB more for a word of different characters without an end).
 * Errors  UNSUPPORTED (such a word of more than 1 MiB), MEMORY, what reader or taker returned
 */
PI2_API pi2_status pi2_engine_tokenize_parts(const pi2_engine *engine, pi2_text_reader *reader, void *reader_user,
                                             bool add_special, bool parse_special, pi2_token_taker *taker,
                                             void *taker_user);

typedef struct pi2_message {
    const char *role;    /* "system", "user", "assistant" */
    const char *content; /* NUL-terminated UTF-8 */
} pi2_message;

/**
 * Renders messages with the model's chat template and tokenizes the result; special tokens come
 * from the template only, never from a message's content. tokens_out is malloc'd: free() it.
 * Errors  UNSUPPORTED (no template, or one that we cannot run: named), FORMAT (it raised an exception), CONTEXT (more
 *         text, or a template that needs more memory for it, than was planned: both numbers)
 */
PI2_API pi2_status pi2_engine_chat_tokens(const pi2_engine *engine, const pi2_message *messages,
                                          size_t message_count, bool add_generation_prompt,
                                          int32_t **tokens_out, size_t *count_out);

/** A conversation in JSON, which is untrusted: UTF-8, at most 16 MiB, nested at most 100 deep. */
typedef struct pi2_conversation {
    const char *messages, *tools; /* arrays of objects in OpenAI's form; tools NULL: none */
    size_t messages_length, tools_length;
    const char *variables;        /* a JSON object for the template in place of options.chat_template_kwargs, or NULL */
    bool add_generation_prompt;
} pi2_conversation;

/**
 * The same of a conversation in JSON, with tools. text_out: what the template wrote, malloc'd, text_length_out bytes
 * and a NUL behind them; NULL: not wanted. tokens_out: as above; NULL: not wanted.
 * Errors  as above, and INVALID (JSON, its form, a variable)
 */
PI2_API pi2_status pi2_engine_conversation_tokens(const pi2_engine *engine, const pi2_conversation *conversation,
                                                  char **text_out, size_t *text_length_out, int32_t **tokens_out,
                                                  size_t *count_out);

/**
 * Text of tokens: whole characters, what is none becomes U+FFFD; control tokens are left out unless `special`.
 * text_out: malloc'd, length_out bytes and a NUL behind them: free() it.
 * Errors  INVALID (a token that the vocabulary has not, and which), MEMORY
 */
PI2_API pi2_status pi2_engine_detokenize(const pi2_engine *engine, const int32_t *tokens, size_t count, bool special,
                                         char **text_out, size_t *length_out);

/** Name of built-in chat template `index` ("chatml"), NULL at the end. */
PI2_API const char *pi2_chat_template_known(size_t index);
/** True when the model carries a chat template, or the options gave one. */
PI2_API bool pi2_engine_has_chat_template(const pi2_engine *engine);
/** True for end-of-sequence, end-of-turn and the like. */
PI2_API bool pi2_engine_ends_generation(const pi2_engine *engine, int32_t token);
/** The beginning-of-sequence token that this model's text starts with, or -1. */
PI2_API int32_t pi2_engine_bos(const pi2_engine *engine);

#ifdef __cplusplus
}
#endif
#endif
