/*
 * run_draft.h: a small model that guesses for a larger one, as far as it is planned: who it is, what it takes.
 *
 * All of its weights stay in memory, within the budget of the run that it guesses for. Its sessions are that run's, and
 * as long; one team of threads computes for both, one after the other. Of a shortcut both are the run itself.
 */
#ifndef PI2_ENGINE_RUN_DRAFT_H
#define PI2_ENGINE_RUN_DRAFT_H

#include "engine/run_source.h"

typedef enum pi2_draft_kind {
    PI2_DRAFT_MODEL,           /* another model, with the same vocabulary (drafter_model.c) */
    PI2_DRAFT_OWN_LAYER,       /* the model's own layer that guesses (drafter_mtp.c) */
    PI2_DRAFT_FEATURES,        /* a file's layer, which reads what the model's layers read (drafter_eagle3.c) */
    PI2_DRAFT_SHORTCUT         /* the model without its middle layers, by a file's map (drafter_self.c) */
} pi2_draft_kind;

typedef struct pi2_run_draft {
    pi2_planned_run run;       /* opened, not settled; zeros once an engine has it, and of a shortcut */
    pi2_gguf *gguf;            /* its file, while weights may come from it */
    char path[1024];           /* of the file; of a layer, which one of which file */
    pi2_draft_kind kind;
    uint32_t feature_count, feature_layers[PI2_MOST_FEATURES]; /* what it wants of which of the model's layers */
    uint32_t given_length, own_length; /* floats that a layer is given of a token (pi2_model_given_length()) */
    uint64_t bytes, bytes_per_token; /* that it takes beside what is open already, and by token of the context */
    uint64_t token_bytes;      /* weights that one of its tokens uses */
    uint32_t first_layer, end_layer; /* that a shortcut leaves out; the others, and the head, stay in memory: */
    uint64_t kept_bytes;       /* as they lie there */
    bool is_found;             /* nobody named it: it lies beside the model, and what is wrong with it is only told */
} pi2_run_draft;

/**
 * Opens the draft model that the run's options name, or else the layer that the run's GGUF has for guessing, or the
 * shortcut that lies beside it, where there are guesses to make; where there are none, one line says so of a model
 * that was named. The run's model is open.
 * Errors  as pi2_planned_run_open(), and INVALID (another vocabulary, a layer for another model: what differs),
 *         UNSUPPORTED (its states cannot be taken back; the model has several residual streams)
 */
pi2_status pi2_run_open_draft(pi2_planned_run *run, const pi2_gguf *gguf);
/** What stays in memory where the layers [first, end) are left out, as it lies there. */
uint64_t pi2_run_kept_bytes(const pi2_extent_layout *layout, uint32_t first, uint32_t end);
/** What a plan that does not hold all has for them, however long texts become. */
uint64_t pi2_run_kept_room(const pi2_planned_run *run, const pi2_memory_plan *plan);
/** Ends it. Nothing where there is none. */
void pi2_run_close_draft(pi2_planned_run *run);

/** Leaves the draft model out where it does not pay by the plans with and without it, and says so.
 *  with: NULL: the budget has no room for it. True: it stays. */
bool pi2_run_judge_draft(pi2_planned_run *run, const pi2_memory_plan *with, const pi2_memory_plan *without);

#endif
