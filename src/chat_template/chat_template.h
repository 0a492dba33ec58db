/* chat_template.h: a bounded Jinja interpreter for tokenizer.chat_template. */
#ifndef PI2_CHAT_TEMPLATE_CHAT_TEMPLATE_H
#define PI2_CHAT_TEMPLATE_CHAT_TEMPLATE_H

#include "tokenizer/tokenizer.h"

typedef struct pi2_chat_template pi2_chat_template;

typedef struct pi2_chat_message {
    const char *role;    /* "system", "user", "assistant"; another one is untrusted text */
    const char *content; /* UTF-8, NUL-terminated */
} pi2_chat_message;

/**
 * Parses a template; `source` is not kept. The meaning is jinja2's as transformers sets it up.
 * The result never changes: any thread may render it. NULL on error.
 * Errors  FORMAT or UNSUPPORTED with line, column and construct; MEMORY
 */
pi2_status pi2_chat_template_parse(const char *source, size_t length,
                                   pi2_chat_template **template_out);
void pi2_chat_template_free(pi2_chat_template *chat_template); /* NULL is allowed */

/** Whether it is nothing but ASCII white space: every prompt would be empty, so it is as good as none. */
bool pi2_chat_template_is_blank(const char *source, size_t length);
/** Source of the template that has this name here ("chatml"), static; NULL when none has. */
const char *pi2_chat_template_named(const char *name);
/** The name of template number `index`, in rising order; NULL at the end. */
const char *pi2_chat_template_name(size_t index);

/** The texts of a model's special tokens; "": none. */
typedef struct pi2_special_texts {
    char bos[256], eos[256], unknown[256], padding[256];
} pi2_special_texts;
/** tokenizer NULL: none of them. */
void pi2_special_texts_get(const pi2_tokenizer *tokenizer, pi2_special_texts *texts_out);

/** A rendered conversation: text in segments, trusted where the template itself wrote it. */
typedef struct pi2_rendered_chat {
    pi2_text_segment *segments;
    size_t segment_count;
    char *storage;
} pi2_rendered_chat;
void pi2_rendered_chat_free(pi2_rendered_chat *rendered);

/** JSON, UTF-8; bytes NULL: none. Untrusted: at most 16 MiB, nesting at most 100 deep. */
typedef struct pi2_json_text {
    const char *bytes;
    size_t length;
} pi2_json_text;

typedef struct pi2_chat_inputs {
    const pi2_chat_message *messages;
    size_t message_count;
    pi2_json_text messages_json; /* an array of objects in OpenAI's form, in place of `messages` */
    pi2_json_text tools_json;    /* the same of tools: `tools`, else none */
    bool add_generation_prompt;
    const char *bos_token, *eos_token; /* text; NULL: "" */
    const char *unk_token, *pad_token; /* text; NULL or "": there is no such variable, as in transformers */
    const char *date_string; /* what strftime_now shows: YYYY-MM-DD[ HH:MM:SS]; NULL: now */
    size_t most_bytes;     /* of memory that the run takes; 0: the limit of every run */
    const char *variables; /* a JSON object of more variables; NULL: none */
    bool variables_set_special_tokens; /* bos_token and eos_token may be among them */
} pi2_chat_inputs;
/** Whether render would take these variables. Errors  INVALID: no JSON object, or a reserved name */
pi2_status pi2_chat_template_check_variables(const char *variables);

/**
 * Runs the template with the variables of transformers: messages, tools, documents (none),
 * add_generation_prompt, bos_token, eos_token, strftime_now, raise_exception; and `variables`,
 * whose texts are untrusted as a message is.
 * Bounded: steps, depth (200 KB of stack), memory, output bytes; a template that passes a limit,
 * or calls raise_exception, fails and says so (FORMAT with the template's own message). A filter,
 * test, method or function that we do not have fails when it is reached (UNSUPPORTED, by name).
 * Bytes that came from a message are untrusted in the result, through every filter; neighbouring
 * segments differ in trust. rendered_out: free with pi2_rendered_chat_free(); empty on error.
 * Errors  FORMAT, UNSUPPORTED, INVALID (date_string, JSON), CONTEXT (most_bytes), MEMORY
 */
pi2_status pi2_chat_template_render(const pi2_chat_template *chat_template,
                                    const pi2_chat_inputs *inputs,
                                    pi2_rendered_chat *rendered_out);
#endif
