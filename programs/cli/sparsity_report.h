/* sparsity_report.h: what "inspect --sparsity", "perplexity --count-zeros" and "profile" print. */
#ifndef PI2_CLI_SPARSITY_REPORT_H
#define PI2_CLI_SPARSITY_REPORT_H

#include <jansson.h>
#include <stdbool.h>

#include "powerinfer2/sparsity.h"

/** The table, and the same as JSON. */
void pi2_cli_print_sparsity(const pi2_sparsity *sparsity);
json_t *pi2_cli_sparsity_json(const pi2_sparsity *sparsity);
/** Prints one of them, which is all that stdout gets; returns the exit code. */
int pi2_cli_report_sparsity(const pi2_sparsity *sparsity, bool json);

#endif
