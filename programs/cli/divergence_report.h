/* divergence_report.h: what divergence.h measured, for people and for programs. */
#ifndef PI2_CLI_DIVERGENCE_REPORT_H
#define PI2_CLI_DIVERGENCE_REPORT_H

#include <jansson.h>

#include "powerinfer2/divergence.h"

/** A table on stdout. what: "2 chunks of 512 tokens". */
void pi2_cli_print_divergence(const pi2_divergence_summary *summary, const char *what);
/** Puts the figures into an object. */
void pi2_cli_divergence_json(const pi2_divergence_summary *summary, json_t *object);

#endif
