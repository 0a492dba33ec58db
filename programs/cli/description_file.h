/*
 * description_file.h: a JSON file that describes a device, a model and runs of it, for "simulate" (docs/simulate.md).
 * Every byte is untrusted: members that nobody knows, and values of another type, are refused by name.
 */
#ifndef PI2_CLI_DESCRIPTION_FILE_H
#define PI2_CLI_DESCRIPTION_FILE_H

#include <jansson.h>

#include "powerinfer2/simulate.h"

enum { PI2_DESCRIBED_RUNS = 64 };

/** What of a run was published, to be put beside it. */
typedef enum pi2_described_figure {
    PI2_FIGURE_NONE, PI2_FIGURE_TOKENS, PI2_FIGURE_PROMPT_TOKENS, PI2_FIGURE_MEAN, PI2_FIGURE_P50, PI2_FIGURE_P90,
    PI2_FIGURE_P99, PI2_FIGURE_JOULES
} pi2_described_figure;

typedef struct pi2_described_run {
    const char *name;         /* in the file's JSON */
    pi2_simulation simulation;
    pi2_described_figure figure;
    double published;
    uint32_t previous;        /* a run with the same simulation, by number; itself: there is none */
} pi2_described_run;

typedef struct pi2_description {
    json_t *json;             /* owned; names and policies point into it */
    const char *name;
    pi2_simulated_device device;
    pi2_simulated_model model;
    pi2_described_run runs[PI2_DESCRIBED_RUNS];
    uint32_t run_count;
} pi2_description;

/** Reads text; path is for messages. Returns PI2_CLI_GO_ON, or an exit code after an error line. */
int pi2_description_read(const char *path, const char *text, size_t length, pi2_description *description_out);
/** The same of `name` and `device` alone: `model` and `runs` may be missing. */
int pi2_description_read_device(const char *path, const char *text, size_t length, pi2_description *description_out);
void pi2_description_free(pi2_description *description);
/** The figure's name as the file has it, and its value in a run; "" and NaN: none. */
const char *pi2_described_figure_name(pi2_described_figure figure);
double pi2_described_figure_of(pi2_described_figure figure, const pi2_simulation *simulation,
                               const pi2_simulated_run *run);

#endif
