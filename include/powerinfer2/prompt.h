/* prompt.h: a conversation as the text that a model reads, by its chat template, without running the model. */
#ifndef POWERINFER2_PROMPT_H
#define POWERINFER2_PROMPT_H

#include <stdbool.h>
#include <stddef.h>

#include "powerinfer2/model_file.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pi2_prompt_options {
    pi2_model_file *model;     /* whose template and special tokens; NULL: bos_token and eos_token are "" */
    const char *chat_template; /* source, or a name of pi2_chat_template_known(); NULL: the model's own */
    const char *messages, *tools; /* JSON arrays of objects in OpenAI's form, UTF-8; tools NULL: none */
    size_t messages_length, tools_length; /* bytes; at most 16 MiB each */
    const char *variables;     /* a JSON object of more variables, bos_token and eos_token too; NULL: none */
    const char *date;          /* what strftime_now tells: "YYYY-MM-DD" or "YYYY-MM-DD HH:MM:SS"; NULL: now */
    bool add_generation_prompt;
} pi2_prompt_options;

/**
 * Renders the conversation as transformers does: its settings of jinja2, its variables. Of a model with several
 * templates the one for tools is taken where there are tools. No beginning-of-sequence token is added to what the
 * template writes.
 * text_out: malloc'd, *length_out bytes and a NUL behind them; free(). NULL on errors.
 * Errors  INVALID (JSON, its form, a variable, the date), FORMAT (the template, or it refuses the conversation, with
 *         its own words), UNSUPPORTED (no template; a construct, by name), MEMORY
 * Threads: one at a time for one model.
 */
PI2_API pi2_status pi2_prompt_make(const pi2_prompt_options *options, char **text_out, size_t *length_out);

#ifdef __cplusplus
}
#endif
#endif
