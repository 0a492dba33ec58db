/* answer_options.c: the sections, in the order of --help. */
#include "answer_options.h"

#include <string.h>

void pi2_cli_answer_sections(pi2_cli_answer_settings *settings, pi2_cli_section *sections) {
    const pi2_cli_section all[PI2_CLI_ANSWER_SECTIONS] = {
        pi2_cli_model_section(&settings->model),
        pi2_cli_size_section(&settings->size),
        pi2_cli_sampling_section(&settings->sampling),
        pi2_cli_draft_section(&settings->draft),
        pi2_cli_prompt_cache_section(&settings->prompt_cache),
        pi2_cli_guard_section(&settings->guard),
        pi2_cli_trace_section(&settings->trace),
        pi2_cli_no_effect_section()};
    memcpy(sections, all, sizeof all);
}
