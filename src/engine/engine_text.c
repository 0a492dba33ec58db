/* engine_text.c: text to tokens, plain or through the model's chat template. */
#include <string.h>

#include "base/fail.h"
#include "chat_template/chat_template.h"
#include "engine/engine_internal.h"

pi2_status pi2_engine_tokenize(const pi2_engine *engine, const char *text, size_t length, bool add_special,
                               bool parse_special, int32_t **tokens_out, size_t *count_out) {
    const pi2_text_segment segment = { .text = text, .length = length, .trusted = parse_special };
    return pi2_tokenizer_encode(engine->tokenizer, &segment, 1, add_special, tokens_out, count_out);
}

bool pi2_engine_has_chat_template(const pi2_engine *engine) { return engine->chat_template != NULL; }

bool pi2_engine_ends_generation(const pi2_engine *engine, int32_t token) {
    return pi2_tokenizer_ends_generation(engine->tokenizer, token);
}

int32_t pi2_engine_bos(const pi2_engine *engine) {
    return pi2_tokenizer_adds_bos(engine->tokenizer) ? pi2_tokenizer_bos(engine->tokenizer) : -1;
}

/* The text of a special token, NUL-terminated; "" when there is none. */
static void special_text(const pi2_engine *engine, int32_t token, char *text, size_t capacity) {
    text[0] = '\0';
    if (token < 0) return;
    size_t length = 0;
    const char *piece = pi2_tokenizer_piece(engine->tokenizer, token, true, &length);
    if (length >= capacity) return;
    memcpy(text, piece, length);
    text[length] = '\0';
}

/* BOS is put in front unless the template wrote it itself: a double one spoils answers. */
static pi2_status encode_rendered(const pi2_engine *engine, const pi2_rendered_chat *rendered, const char *bos,
                                  int32_t **tokens_out, size_t *count_out) {
    const size_t bos_length = strlen(bos);
    const bool has_bos = bos_length > 0 && rendered->segment_count > 0 && rendered->segments[0].trusted &&
                         rendered->segments[0].length >= bos_length &&
                         memcmp(rendered->segments[0].text, bos, bos_length) == 0;
    return pi2_tokenizer_encode(engine->tokenizer, rendered->segments, rendered->segment_count, !has_bos,
                                tokens_out, count_out);
}

pi2_status pi2_engine_chat_tokens(const pi2_engine *engine, const pi2_message *messages, size_t message_count,
                                  bool add_generation_prompt, int32_t **tokens_out, size_t *count_out) {
    *tokens_out = NULL;
    *count_out = 0;
    if (!engine->chat_template) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s has no chat template: give the prompt as it is (--raw)",
                        engine->model_path);
    }
    char bos[256], eos[256];
    special_text(engine, pi2_tokenizer_bos(engine->tokenizer), bos, sizeof bos);
    special_text(engine, pi2_tokenizer_eos(engine->tokenizer), eos, sizeof eos);
    const pi2_chat_inputs inputs = {
        .messages = (const pi2_chat_message *)messages, .message_count = message_count,
        .add_generation_prompt = add_generation_prompt, .bos_token = bos, .eos_token = eos,
    };
    pi2_chat_template *chat_template = NULL;
    PI2_TRY(pi2_chat_template_parse(engine->chat_template, engine->chat_template_length, &chat_template));
    pi2_rendered_chat rendered = { 0 };
    pi2_status status = pi2_chat_template_render(chat_template, &inputs, &rendered);
    if (status == PI2_OK) status = encode_rendered(engine, &rendered, bos, tokens_out, count_out);
    pi2_rendered_chat_free(&rendered);
    pi2_chat_template_free(chat_template);
    return status;
}
