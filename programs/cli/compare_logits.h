/* compare_logits.h: a model against the logits that a reference left in a file (perplexity --kl-divergence). */
#ifndef PI2_CLI_COMPARE_LOGITS_H
#define PI2_CLI_COMPARE_LOGITS_H

#include <stdbool.h>
#include <stdint.h>

#include "powerinfer2/engine.h"

/** Opens with room for as many logits as the budget allows: more of them, fewer passes. */
pi2_status pi2_cli_open_for_logits(pi2_engine_options *options, pi2_engine **engine_out);

/** chunks: at most so many; negative: all. options: context_tokens 0: the file's. Returns an exit code, after an error
 *  line or the figures. */
int pi2_cli_compare_logits(const char *path, int64_t chunks, bool json, pi2_engine_options *options);

#endif
