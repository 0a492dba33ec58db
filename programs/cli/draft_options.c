/* draft_options.c: the table, and how it becomes pi2_engine_options. */
#include "draft_options.h"

#define DRAFT(field) offsetof(pi2_cli_draft_settings, field)
static const pi2_cli_option draft_options[] = {
    {"--draft-max, --draft, --draft-n, --spec-draft-n-max", "N", PI2_CLI_INTEGER, DRAFT(most), "8",
     "Tokens at most that are guessed ahead and checked in one pass, where that is faster; fewer where memory is "
     "small. They are guessed from earlier text, and by a draft model. 0: none. The text is the same.",
     "LLAMA_ARG_SPEC_DRAFT_N_MAX, LLAMA_ARG_DRAFT_MAX", 0, INT32_MAX},
    {"--draft-nodes", "N", PI2_CLI_INTEGER, DRAFT(nodes), "-1",
     "The same of a guess with alternatives, at most 31: what may come next, and what may follow each of that, up to "
     "15 tokens one behind the other. 0: guesses are chains. -1: 31 where weights stream and every token reads the "
     "same ones, else 0.", NULL, -1, INT32_MAX},
    {"-md, --model-draft, --spec-draft-model", "FILE", PI2_CLI_TEXT, DRAFT(model), NULL,
     "A smaller model with the same vocabulary, which guesses too, or a layer that was trained to guess for this model "
     "(EAGLE-3). It stays in memory, within --memory; where its guesses save less time than they and its memory cost, "
     "it is left out.", "LLAMA_ARG_SPEC_DRAFT_MODEL, LLAMA_ARG_MODEL_DRAFT", 0, 0},
    {"--draft-min, --draft-n-min, --spec-draft-n-min", "N", PI2_CLI_INTEGER, DRAFT(least), "0",
     "Fewer tokens of the draft model than this are not checked.", "LLAMA_ARG_SPEC_DRAFT_N_MIN, LLAMA_ARG_DRAFT_MIN", 0,
     INT32_MAX},
    {"--draft-p-min, --spec-draft-p-min", "P", PI2_CLI_NUMBER, DRAFT(least_chance), "0",
     "A token that the draft model gives a smaller probability than this ends its guess. 0: guesses end where a token "
     "more costs more time than it saves, as measured.", "LLAMA_ARG_SPEC_DRAFT_P_MIN, LLAMA_ARG_DRAFT_P_MIN", 0, 1},
    {"--draft-always", NULL, PI2_CLI_FLAG, DRAFT(always), NULL,
     "The draft model guesses also where that is slower: for measuring.", NULL, 0, 0},
};

pi2_cli_section pi2_cli_draft_section(pi2_cli_draft_settings *settings) {
    return (pi2_cli_section){"Guessing ahead", draft_options, sizeof draft_options / sizeof draft_options[0], settings};
}

void pi2_cli_fill_draft_options(const pi2_cli_draft_settings *settings, pi2_engine_options *options) {
    options->draft_tokens = (uint32_t)settings->most;
    options->draft_nodes = settings->nodes < 0 ? PI2_DRAFT_NODES_CHOSEN : (uint32_t)settings->nodes;
    options->draft_model_path = settings->model;
    options->draft_least_tokens = (uint32_t)settings->least;
    options->draft_least_chance = settings->least_chance;
    options->draft_always = settings->always;
}
