/* samples.h: several answers to one prompt, made together: run -np. */
#ifndef PI2_CLI_SAMPLES_H
#define PI2_CLI_SAMPLES_H

#include "options.h"
#include "powerinfer2/engine.h"
#include "powerinfer2/session.h"

typedef struct pi2_cli_samples {
    pi2_engine *engine;      /* opened with pi2_scheduler_plan() for `count` slots; it has no session */
    const int32_t *prompt;   /* [prompt_count] */
    size_t prompt_count;
    pi2_sampling sampling;   /* of the first; the others' seeds follow its seed */
    int64_t limit;           /* tokens of each at most; negative: none */
    bool print_special;
    const pi2_cli_texts *stop_words;
    uint32_t count;
    bool json;               /* one array, instead of texts with a line of their own before each */
} pi2_cli_samples;

/**
 * Reads the prompt once, makes the answers in common passes and prints them, each as it is alone with its seed; a
 * report goes to stderr. Returns PI2_EXIT_OK, or an exit code after an error line.
 */
int pi2_cli_answer_samples(const pi2_cli_samples *asked);

#endif
