/* draft_report.h: what guesses ahead came to, by drafter. */
#ifndef PI2_CLI_DRAFT_REPORT_H
#define PI2_CLI_DRAFT_REPORT_H

#include <jansson.h>

#include "powerinfer2/session.h"

/** Counters of a session, or of a part of its work; starts as {0}. */
typedef struct pi2_cli_drafts {
    pi2_draft_counters all;
    pi2_drafter_counters drafters[PI2_DRAFTERS_MOST];
    size_t count;
} pi2_cli_drafts;

void pi2_cli_count_drafts(const pi2_session *session, pi2_cli_drafts *drafts_out);
/** Takes off what was counted before, by the same session. */
void pi2_cli_drafts_since(const pi2_cli_drafts *before, pi2_cli_drafts *drafts);
/** Tokens for each pass of one token and its guesses: more than 1 where guesses were right. */
double pi2_cli_tokens_per_pass(const pi2_cli_drafts *drafts);
/** Time that drafters took beside passes. */
double pi2_cli_drafting_seconds(const pi2_cli_drafts *drafts);

/** Lines on stderr; none where nothing was guessed. */
void pi2_cli_print_drafts(const pi2_cli_drafts *drafts);
/** An array, with an object for each drafter. */
json_t *pi2_cli_drafters_json(const pi2_cli_drafts *drafts);

#endif
