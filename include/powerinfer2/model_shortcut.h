/*
 * model_shortcut.h: the map by which a model that streams guesses for itself without its middle layers
 * (docs/guesses.md), made of the model alone. It lies beside the model and is used by itself.
 */
#ifndef POWERINFER2_MODEL_SHORTCUT_H
#define POWERINFER2_MODEL_SHORTCUT_H

#include "powerinfer2/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pi2_shortcut_request {
    uint64_t tokens;             /* that the model writes, about, and of the texts at most */
    const char *const *texts;    /* files to learn from as well, NULL at the end; NULL: none */
    uint32_t first_layer, end_layer; /* left out are [first, end), counted from 0; both 0: chosen, by what the budget
                                    has room for */
    const char *output_path;     /* NULL: "model.gguf" and "model.pi2" have "model.shortcut" */
} pi2_shortcut_request;

enum { PI2_SHORTCUT_PATH_BYTES = 1024 };

typedef struct pi2_shortcut_report {
    char path[PI2_SHORTCUT_PATH_BYTES];
    uint32_t first_layer, end_layer, layer_count;
    uint64_t kept_bytes;         /* of the weights that it computes with */
    uint64_t tokens;             /* that it was made of */
    uint64_t counted;            /* tokens of greedy answers that it was not made of; 0: none could be counted */
    uint64_t first, among_eight; /* of these, named as the likeliest, and among the eight likeliest */
} pi2_shortcut_report;

/**
 * Makes it: opens the model, has it write texts, fits the map to what its layers read, counts how often it is right as
 * a run would use it, and gives the file its name only then. Within options->memory_bytes, which are those of the runs
 * that it is for. Progress and cancelling are the options'.
 * options  in   their sequences, context and guesses are chosen here
 * Errors  UNSUPPORTED (a model that has no shortcut: why), INVALID (layers; what lies there; a text), MEMORY (what the
 *         layers take, and what there is), IO, INTERRUPTED, as pi2_engine_open() and pi2_session_append()
 */
PI2_API pi2_status pi2_shortcut_make(const pi2_engine_options *options, const pi2_shortcut_request *request,
                                     pi2_shortcut_report *report_out);

#ifdef __cplusplus
}
#endif
#endif
