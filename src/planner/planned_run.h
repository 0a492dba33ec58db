/*
 * planned_run.h: a run before anything of it runs: what was opened, what the budget is spent on, what is told.
 *
 * An engine is opened from one (engine/engine.c), a plan tells of one (engine/plan.c); neither is known here.
 * Threads: one, until an engine shares it; then only residency and the loan change, as memory_relief.h says.
 */
#ifndef PI2_PLANNER_PLANNED_RUN_H
#define PI2_PLANNER_PLANNED_RUN_H

#include "backends/backend.h"
#include "planner/hot_plan.h"
#include "planner/memory_plan.h"
#include "powerinfer2/engine.h"
#include "powerinfer2/plan.h"
#include "predictor/predictor.h"
#include "tokenizer/tokenizer.h"

/** What was opened: the model, the text that it is spoken to in, and where its weights are. */
typedef struct pi2_run_source {
    char model_path[1024], weights_path[1024];
    uint64_t header_hash;           /* pi2_source_identity.header_hash of the GGUF that the weights are from */
    uint64_t sample_hash;           /* its sample_hash, with options.identifies_weights; else 0 */
    pi2_model *model;
    pi2_tokenizer *tokenizer;
    char *chat_template;            /* source; NULL when the model has none */
    size_t chat_template_length;
    char *template_variables;       /* JSON; NULL: none */
} pi2_run_source;

/** How it will run: what the budget is spent on, which weights stay, and who computes. */
typedef struct pi2_run_plan {
    pi2_memory_plan memory;
    uint64_t held_bytes;            /* by the process, when that was planned (base/memory_ledger.h) */
    uint64_t prepared_bytes;        /* what making the cluster file left in the process: no weight on the run */
    uint64_t loan_returned_bytes;   /* of its loan: weights left for good, for a key-value cache that grew */
    uint32_t threads_wanted, thread_count; /* by the options or the processors; of those, how many may compute */
    uint8_t *resident;              /* [extent_count] */
    uint32_t *sequence;             /* extents in pass order, then embedding rows that stay */
    uint32_t sequence_count, head_begin, pass_end;
    uint32_t expert_extent_count;   /* extents of experts: they follow the others in `sequence` */
    uint32_t left_out_first, left_out_end; /* layers that stay last: the others and the head are all in memory, for
                                       guesses without these; 0, 0: what streams is spread over all */
    uint8_t *kept;                  /* [extent_count]: 1: of those; NULL: of none */
    uint64_t resident_room_bytes;   /* of the extents that stay, as they lie in memory */
    const pi2_cache_policy *policy;
    pi2_look_ahead_mode look_ahead;
    bool approximates;              /* a predictor leaves neurons out: the text is another one */
    bool foretells;                 /* a predictor names neurons that are read ahead: no result depends on it */
    bool gate_foretells;            /* then: it is Gate itself, and there is no other */
    double left_out;                /* then: share of all neurons; negative: by the predictor's thresholds */
    char predictor_path[1024];
    const struct pi2_predictor_recipe *predictor_recipe; /* predictor_path is made by it, and the run ends there; NULL:
                                       it runs */
    pi2_predictor predictor;        /* its data are not loaded; zeros: there is none */
    const pi2_unit_rule *neuron_rule; /* NULL: no single neuron stays */
    const pi2_neuron_banks *banks;  /* the model's, where decoding may go by neuron; else NULL */
    uint8_t *by_neuron;             /* [extent_count]: 1: decoding by neuron does without it; NULL without banks */
    struct pi2_neuron_firing *firing; /* what options.statistics say (run_prediction_neurons.h); NULL: nothing */
    pi2_hot_plan hot;               /* count 0: no expert is hot */
    char hot_reason[160];
} pi2_run_plan;

enum { PI2_DEVICES_MOST = 4 };

/** Who computes beside the processor: opened before memory is planned, for a driver takes some. */
typedef struct pi2_run_devices {
    pi2_backend *of[PI2_DEVICES_MOST];
    bool is_told[PI2_DEVICES_MOST];  /* that it was lost */
    bool is_worth_told[2];           /* that passes of one token, of many, are slower with devices */
    uint32_t count;
    bool has_other_bits;             /* one of them, which was asked for all the same: the text is another one */
    char description[256];
    pi2_device_first_shares shares;  /* that they begin with */
    pi2_device_speed speeds[PI2_DEVICES_MOST]; /* of all that were opened, */
    uint32_t speed_count;
    double gains[PI2_DEVICE_POINTS]; /* of those that are left, together; 0: not measured */
    char shares_text[128];           /* the same in words */
} pi2_run_devices;

/** Texts that the report points to. */
typedef struct pi2_run_texts {
    char architecture[64], model_name[128], weight_types[128], budget_reason[384], read_description[256];
    char arithmetic[120];           /* pi2_engine_arithmetic() */
} pi2_run_texts;

typedef struct pi2_planned_run {
    pi2_engine_options options;     /* its strings are the caller's, and live as long as opening takes */
    pi2_engine_report report;
    pi2_run_texts texts;
    pi2_run_source source;
    pi2_run_plan plan;
    pi2_run_devices devices;
    uint32_t kept_inputs[2];        /* layers, those after them included, whose inputs a pass keeps of every token... */
    bool keeps_inputs;              /* ...for a shortcut that is made of them (engine/shortcut_make.c) */
    bool is_next;                   /* of a model's layer that guesses, as a model of its own; the tokenizer is not */
    struct pi2_run_draft *draft;    /* a smaller model that guesses ahead (engine/run_draft.h); NULL: none */
} pi2_planned_run;

/** Says one line through the caller's log callback, if there is one. */
void pi2_planned_run_log(const pi2_planned_run *run, const char *format, ...);

/* ---- run_plan.c: what does not ask for the model ---- */

/** Settles policy, look-ahead, budget and threads by the options and the machine. Errors  INVALID (unknown words) */
pi2_status pi2_run_plan_begin(pi2_planned_run *run);
/** Opens the devices that options.devices names, as far as they can be used, and closes them. run_devices.c
 *  Errors  INVALID (no such kind; more than PI2_DEVICES_MOST) */
pi2_status pi2_run_devices_open(pi2_planned_run *run);
void pi2_run_devices_close(pi2_planned_run *run);
/** Closes one of them, which is not to compute. */
void pi2_run_devices_leave_out(pi2_planned_run *run, uint32_t device);
/** Which share of a pass's work they begin with: options.device_share, or by their speed, which is measured; then those
 *  that do not pay are left out, with a line. When the model is known, before its memory is planned. device_speed.c */
void pi2_run_devices_measure(pi2_planned_run *run);
/** Says once of each that was lost why. Between passes, one thread. */
void pi2_run_devices_tell(pi2_planned_run *run);
/** Members of a pass that are threads of the processor; the devices' come behind them. */
uint32_t pi2_run_processor_threads(const pi2_planned_run *run);
/** Says how many threads compute, where that is not what was wanted. */
void pi2_run_plan_tell_threads(const pi2_planned_run *run);

/* ---- and what does ---- */

/** What the plan cannot know of those who run it. */
typedef struct pi2_run_costs {
    uint64_t list_bytes;            /* beside what the process holds now */
    uint64_t text_bytes, text_bytes_per_token;
    uint64_t session_bytes, session_bytes_per_token; /* of all sequences together */
    uint64_t each_session_bytes, each_session_bytes_per_token; /* of each: samplers, and what they remember */
    uint32_t draft_tokens, draft_nodes;
    uint32_t feature_count;         /* layers whose inputs a layer that guesses wants of every token, */
    const uint32_t *feature_layers; /* and which ones */
} pi2_run_costs;

/** Tells from the model whether decoding may go by neuron: banks and by_neuron. Errors  INVALID (--sparsity), MEMORY */
pi2_status pi2_run_plan_find_neurons(pi2_planned_run *run);
/** Whether every pass shall be dense: --sparsity off. */
bool pi2_run_plan_is_dense(const pi2_planned_run *run);
/** Whether passes shall go by neuron where they can, whatever it costs: --sparsity always. */
bool pi2_run_plan_is_always(const pi2_planned_run *run);
/** Spends the budget. Errors as pi2_memory_plan_make() */
pi2_status pi2_run_plan_spend(pi2_planned_run *run, const pi2_run_costs *costs);
/** Whether an extent is of the head, or of another layer than [first, end). */
bool pi2_run_plan_is_kept(const pi2_extent_layout *layout, uint32_t extent, uint32_t first, uint32_t end);
/** Lists the extents in the order of a pass, and marks those that stay. Errors  MEMORY */
pi2_status pi2_run_plan_place(pi2_planned_run *run);
void pi2_run_plan_free(pi2_run_plan *plan);

/** What the plan adds to what the process held when it was made. */
uint64_t pi2_run_plan_claim_bytes(const pi2_run_plan *plan);

/** Bytes of the loan that are due once the key-value cache has grown to so many positions; once each session has. */
uint64_t pi2_run_plan_loan_due(const pi2_planned_run *run, uint32_t positions);
uint64_t pi2_run_plan_loan_due_at(const pi2_planned_run *run, uint32_t position);
/** Experts that memory holds by the plan, once the key-value cache has grown to `position`; 0: a dense model. */
uint32_t pi2_run_plan_expert_slots(const pi2_planned_run *run, uint32_t position);
/** Why so many slots are too few, in a line; an empty one where they hold what one token uses. */
void pi2_run_plan_explain_experts(const pi2_planned_run *run, uint32_t slots, char *text, size_t capacity);

/* ---- run_plan_hot.c ---- */

/** Refuses a routing trace that cannot be used. Errors  IO, FORMAT, MEMORY, INVALID (another model's; no experts) */
pi2_status pi2_run_plan_check_routing(const pi2_planned_run *run);
/** Chooses the hot experts from the routing trace. Errors  as above */
pi2_status pi2_run_plan_choose_hot(pi2_planned_run *run);

#endif
