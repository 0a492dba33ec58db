/* model_check.c: everything that can make a run refuse a model, asked once. */
#include "engine/model_check.h"

#include <stdio.h>
#include <string.h>

#include "base/cpu_features.h"
#include "base/fail.h"
#include "chat_template/chat_template.h"
#include "engine/advised_sampling.h"

/* A string is absent, or is one. */
static pi2_status check_string(const pi2_gguf *gguf, const char *key) {
    pi2_gguf_string text;
    return pi2_gguf_has(gguf, key) ? pi2_gguf_string_get(gguf, key, &text) : PI2_OK;
}

static pi2_status check_vocabulary(const pi2_gguf *gguf, const pi2_tokenizer *tokenizer, uint32_t rows) {
    const uint32_t tokens = pi2_tokenizer_vocabulary_size(tokenizer);
    if (tokens <= rows) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: the tokenizer has %u tokens, the embedding only %u rows",
                    pi2_gguf_file_path(gguf, 0), tokens, rows);
}

pi2_status pi2_model_can_run(const pi2_gguf *gguf, pi2_model **model_out, pi2_tokenizer **tokenizer_out) {
    pi2_tokenizer *tokenizer = NULL;
    uint32_t rows = 0;
    if (model_out) *model_out = NULL;
    if (tokenizer_out) *tokenizer_out = NULL;
    pi2_status status = pi2_model_check(gguf, &rows);
    if (status == PI2_OK) status = pi2_tokenizer_create(gguf, &tokenizer);
    if (status == PI2_OK) status = check_vocabulary(gguf, tokenizer, rows);
    if (status == PI2_OK) status = check_string(gguf, "general.name");
    if (status == PI2_OK) status = pi2_advised_sampling_read(gguf, &(pi2_advised_sampling){ .fields = 0 });
    if (status == PI2_OK) status = check_string(gguf, "tokenizer.chat_template");
    if (status == PI2_OK && model_out) status = pi2_model_create(gguf, model_out);
    if (status == PI2_OK && tokenizer_out) *tokenizer_out = tokenizer;
    else pi2_tokenizer_free(tokenizer);
    /* Reasons that name a tensor or a key alone get the file's name too. */
    return pi2_fail_in_file(status, pi2_gguf_file_path(gguf, 0));
}

/* ---- the chat template ---- */

static pi2_status try_template(const pi2_gguf_string *source, const pi2_tokenizer *tokenizer) {
    pi2_special_texts texts;
    pi2_special_texts_get(tokenizer, &texts);
    const pi2_chat_message message = { .role = "user", .content = "Hello" };
    const pi2_chat_inputs inputs = { .messages = &message, .message_count = 1, .add_generation_prompt = true,
                                     .bos_token = texts.bos, .eos_token = texts.eos, .unk_token = texts.unknown,
                                     .pad_token = texts.padding };
    pi2_chat_template *chat_template = NULL;
    pi2_rendered_chat rendered = { 0 };
    PI2_TRY(pi2_chat_template_parse(source->text, source->length, &chat_template));
    const pi2_status status = pi2_chat_template_render(chat_template, &inputs, &rendered);
    pi2_rendered_chat_free(&rendered);
    pi2_chat_template_free(chat_template);
    return status;
}

void pi2_model_try_template(const pi2_gguf *gguf, const pi2_tokenizer *tokenizer, char *note, size_t capacity) {
    pi2_gguf_string source;
    note[0] = '\0';
    if (!pi2_gguf_has(gguf, "tokenizer.chat_template")) return;
    if (pi2_gguf_string_get(gguf, "tokenizer.chat_template", &source) != PI2_OK) return;
    if (pi2_chat_template_is_blank(source.text, source.length)) return;
    if (try_template(&source, tokenizer) == PI2_OK) return;
    (void)snprintf(note, capacity, "its chat template cannot be used: %s; 'run --chat-template' names another, "
                   "'run --raw' gives prompts as they are", pi2_error_text());
}
