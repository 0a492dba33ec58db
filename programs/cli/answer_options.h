/*
 * answer_options.h: what every command that answers takes (run, batch, serve): a model, memory, how tokens are drawn
 * and guessed, prompts that are kept, the guard, and what is recorded.
 */
#ifndef PI2_CLI_ANSWER_OPTIONS_H
#define PI2_CLI_ANSWER_OPTIONS_H

#include "draft_options.h"
#include "engine_options.h"
#include "guard_report.h"
#include "prompt_cache_options.h"
#include "sampling_options.h"

typedef struct pi2_cli_answer_settings {
    pi2_cli_model_settings model;
    pi2_cli_size_settings size;
    pi2_cli_sampling_settings sampling;
    pi2_cli_draft_settings draft;
    pi2_cli_prompt_cache_settings prompt_cache;
    pi2_cli_guard_settings guard;
    pi2_cli_trace_settings trace;
} pi2_cli_answer_settings;

enum { PI2_CLI_ANSWER_SECTIONS = 8 };
/** sections  [PI2_CLI_ANSWER_SECTIONS]: those of the settings, and options without effect; a command's last ones. */
void pi2_cli_answer_sections(pi2_cli_answer_settings *settings, pi2_cli_section *sections);

#endif
