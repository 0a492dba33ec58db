/* chat_template.h: a bounded Jinja interpreter for tokenizer.chat_template. */
#ifndef PI2_CHAT_TEMPLATE_CHAT_TEMPLATE_H
#define PI2_CHAT_TEMPLATE_CHAT_TEMPLATE_H

#include "tokenizer/tokenizer.h"

typedef struct pi2_chat_template pi2_chat_template;

typedef struct pi2_chat_message {
    const char *role;     /* "system", "user", "assistant" */
    const char *content;  /* UTF-8, NUL-terminated */
} pi2_chat_message;

/** Parses a template. Errors  FORMAT or UNSUPPORTED with line, column and construct; MEMORY. */
pi2_status pi2_chat_template_parse(const char *source, size_t length, pi2_chat_template **template_out);
void pi2_chat_template_free(pi2_chat_template *chat_template);

/** A rendered conversation: text in segments, trusted where the template itself wrote it. */
typedef struct pi2_rendered_chat {
    pi2_text_segment *segments;
    size_t segment_count;
    char *storage;
} pi2_rendered_chat;
void pi2_rendered_chat_free(pi2_rendered_chat *rendered);

typedef struct pi2_chat_inputs {
    const pi2_chat_message *messages;
    size_t message_count;
    bool add_generation_prompt;
    const char *bos_token, *eos_token; /* text; NULL: "" */
    const char *date_string;           /* strftime_now and date_string; NULL: today */
} pi2_chat_inputs;

/**
 * Runs the template. Bounded: steps, depth, output bytes; a template that passes a limit, or
 * calls raise_exception, fails and says so (FORMAT with the template's own message).
 * Bytes that came from a message are untrusted in the result, through every filter.
 */
pi2_status pi2_chat_template_render(const pi2_chat_template *chat_template, const pi2_chat_inputs *inputs,
                                    pi2_rendered_chat *rendered_out);
#endif
