/*
 * answer_form.h: what a request says an answer must look like: a grammar, a JSON Schema, any JSON.
 *
 * "grammar" and "json_schema" of llama.cpp, "response_format" of OpenAI, "format" of Ollama, "output_config" and
 * "output_format" of Anthropic: each route knows all of them, and a request has one.
 */
#ifndef PI2_SERVER_ANSWER_FORM_H
#define PI2_SERVER_ANSWER_FORM_H

#include "answering.h"

typedef struct pi2_answer_form {
    const char *grammar;  /* GBNF; NULL: none */
    const json_t *schema; /* NULL: none; both borrowed from the request */
    bool is_any_object;
} pi2_answer_form;

/** The form that the request asks for; false: it is none that can be asked for, or more than one. */
bool pi2_answer_form_read(const json_t *body, pi2_answer_form *form, pi2_request_fault *fault);

/** Memory for grammars of requests: one that is read, and those that wait and are followed. */
size_t pi2_answer_form_room(const pi2_server_settings *settings);

/**
 * The form becomes the grammar of the job's sampling, behind the mark that ends a thought where the prompt has begun
 * one (thought_end, else NULL). The reply owns it. Called under the server's mutex for text.
 */
bool pi2_answer_form_take(pi2_reply *reply, const pi2_answer_form *form, const char *thought_end,
                          pi2_request_fault *fault);
/** Gives the grammar's memory back. */
void pi2_answer_form_free(pi2_reply *reply);

#endif
