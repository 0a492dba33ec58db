/* engine_text.c: text to tokens, plain or through the model's chat template. */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "chat_template/chat_template.h"
#include "engine/engine_internal.h"

pi2_status pi2_engine_tokenize(const pi2_engine *engine, const char *text, size_t length, bool add_special,
                               bool parse_special, int32_t **tokens_out, size_t *count_out) {
    const pi2_text_segment segment = { .text = text, .length = length, .trusted = parse_special };
    return pi2_tokenizer_encode(engine->run.source.tokenizer, &segment, 1, add_special, tokens_out, count_out);
}

static pi2_status encode_parts(pi2_encoder *encoder, pi2_text_reader *reader, void *user, bool trusted) {
    char bytes[4096];
    for (;;) {
        size_t length = 0;
        PI2_TRY(reader(user, bytes, sizeof bytes, &length));
        if (length == 0) return pi2_encoder_finish(encoder);
        PI2_TRY(pi2_encoder_add(encoder, bytes, length, trusted));
    }
}

pi2_status pi2_engine_encode_parts(const pi2_tokenizer *tokenizer, pi2_text_reader *reader, void *reader_user,
                                   bool add_special, bool parse_special, pi2_token_taker *taker, void *taker_user) {
    const int32_t begin = pi2_tokenizer_adds_bos(tokenizer) ? pi2_tokenizer_bos(tokenizer) : -1;
    if (add_special && begin >= 0) PI2_TRY(taker(taker_user, &begin, 1));
    pi2_encoder *encoder = NULL;
    PI2_TRY(pi2_encoder_create(tokenizer, taker, taker_user, &encoder));
    const pi2_status status = encode_parts(encoder, reader, reader_user, parse_special);
    pi2_encoder_free(encoder);
    return status;
}

pi2_status pi2_engine_tokenize_parts(const pi2_engine *engine, pi2_text_reader *reader, void *reader_user,
                                     bool add_special, bool parse_special, pi2_token_taker *taker, void *taker_user) {
    return pi2_engine_encode_parts(engine->run.source.tokenizer, reader, reader_user, add_special, parse_special, taker,
                                   taker_user);
}

enum { TEMPLATE_BYTES = 256 << 10, TEMPLATE_BYTES_PER_TOKEN = 72, CONVERSATION_BYTES = 4 << 10,
       CONVERSATION_BYTES_PER_TOKEN = 16 };

uint64_t pi2_engine_text_bytes(const pi2_tokenizer *tokenizer) {
    return pi2_encoder_bytes(tokenizer) + TEMPLATE_BYTES + CONVERSATION_BYTES;
}

uint64_t pi2_engine_conversation_bytes(uint32_t context_tokens) {
    return CONVERSATION_BYTES + (uint64_t)context_tokens * CONVERSATION_BYTES_PER_TOKEN;
}

/* What the messages, and the run of the template over them, may take: both were planned. */
static pi2_status check_conversation(const pi2_engine *engine, uint64_t bytes) {
    const uint64_t most = pi2_engine_conversation_bytes(engine->run.plan.memory.shape.context_tokens);
    if (bytes <= most) return PI2_OK;
    return pi2_fail(PI2_ERR_CONTEXT, "the conversation has %llu bytes of text, and %llu are planned for a context of "
                    "%u tokens: shorten it, or give a longer context (-c)", (unsigned long long)bytes,
                    (unsigned long long)most, engine->run.plan.memory.shape.context_tokens);
}

const char *pi2_chat_template_known(size_t index) { return pi2_chat_template_name(index); }

static pi2_status copy_text(const char *text, size_t length, char **copy_out) {
    *copy_out = malloc(length + 1);
    if (!*copy_out) return pi2_fail(PI2_ERR_MEMORY, "no memory for the chat template");
    if (length) memcpy(*copy_out, text, length);
    (*copy_out)[length] = '\0';
    return PI2_OK;
}

/* A caller's template and variables are tried at once: a fault in them shows before anything takes long. */
static pi2_status take_callers_template(pi2_planned_run *run) {
    const pi2_engine_options *options = &run->options;
    if (options->chat_template_kwargs) {
        const char *json = options->chat_template_kwargs;
        PI2_TRY(pi2_chat_template_check_variables(json));
        PI2_TRY(copy_text(json, strlen(json), &run->source.template_variables));
    }
    if (!options->chat_template) return PI2_OK;
    const char *known = pi2_chat_template_named(options->chat_template);
    const char *source = known ? known : options->chat_template;
    if (pi2_chat_template_is_blank(source, strlen(source))) {
        return pi2_fail(PI2_ERR_INVALID, "the chat template is empty");
    }
    pi2_chat_template *chat_template = NULL;
    PI2_TRY(pi2_chat_template_parse(source, strlen(source), &chat_template));
    pi2_chat_template_free(chat_template);
    run->source.chat_template_length = strlen(source);
    return copy_text(source, run->source.chat_template_length, &run->source.chat_template);
}

pi2_status pi2_run_read_chat_template(pi2_planned_run *run, const pi2_gguf *gguf) {
    pi2_gguf_string text;
    PI2_TRY(take_callers_template(run));
    if (run->source.chat_template || !pi2_gguf_has(gguf, "tokenizer.chat_template")) return PI2_OK;
    PI2_TRY(pi2_gguf_string_get(gguf, "tokenizer.chat_template", &text));
    if (pi2_chat_template_is_blank(text.text, text.length)) return PI2_OK;
    run->source.chat_template_length = text.length;
    return copy_text(text.text, text.length, &run->source.chat_template);
}

bool pi2_engine_has_chat_template(const pi2_engine *engine) { return engine->run.source.chat_template != NULL; }

bool pi2_engine_ends_generation(const pi2_engine *engine, int32_t token) {
    return pi2_tokenizer_ends_generation(engine->run.source.tokenizer, token);
}

int32_t pi2_engine_bos(const pi2_engine *engine) {
    return pi2_tokenizer_adds_bos(engine->run.source.tokenizer) ? pi2_tokenizer_bos(engine->run.source.tokenizer) : -1;
}

/* BOS is put in front unless the template wrote it itself: a double one spoils answers. */
static pi2_status encode_rendered(const pi2_engine *engine, const pi2_rendered_chat *rendered, const char *bos,
                                  int32_t **tokens_out, size_t *count_out) {
    const size_t bos_length = strlen(bos);
    const bool has_bos = bos_length > 0 && rendered->segment_count > 0 && rendered->segments[0].trusted &&
                         rendered->segments[0].length >= bos_length &&
                         memcmp(rendered->segments[0].text, bos, bos_length) == 0;
    return pi2_tokenizer_encode(engine->run.source.tokenizer, rendered->segments, rendered->segment_count, !has_bos,
                                tokens_out, count_out);
}

/* What a caller wants of a rendered conversation; each may be NULL. */
typedef struct chat_wishes {
    char **text_out;
    size_t *text_length_out;
    int32_t **tokens_out;
    size_t *count_out;
} chat_wishes;

/* Segments lie one after the other in one piece of memory, which becomes the text. */
static void take_text(pi2_rendered_chat *rendered, const chat_wishes *wishes) {
    size_t length = 0;
    for (size_t i = 0; i < rendered->segment_count; i++) length += rendered->segments[i].length;
    *wishes->text_out = rendered->storage;
    *wishes->text_length_out = length;
    rendered->storage = NULL;
}

/* The messages of `inputs`, through the template with what the engine gives to it. */
static pi2_status render(const pi2_engine *engine, pi2_chat_inputs *inputs, const chat_wishes *wishes) {
    pi2_special_texts texts;
    const pi2_run_source *source = &engine->run.source;
    pi2_special_texts_get(source->tokenizer, &texts);
    inputs->bos_token = texts.bos;
    inputs->eos_token = texts.eos;
    inputs->unk_token = texts.unknown;
    inputs->pad_token = texts.padding;
    if (!inputs->variables) inputs->variables = source->template_variables;
    inputs->most_bytes =
        TEMPLATE_BYTES + (size_t)engine->run.plan.memory.shape.context_tokens * TEMPLATE_BYTES_PER_TOKEN;
    pi2_chat_template *chat_template = NULL;
    pi2_rendered_chat rendered = { 0 };
    pi2_status status = pi2_chat_template_parse(source->chat_template, source->chat_template_length, &chat_template);
    if (status == PI2_ERR_FORMAT) { /* the file's: a caller's was tried before */
        return pi2_fail_prefix(status, "%s: its own template cannot be used ('run --chat-template NAME' takes another, "
                               "'run --raw' none)", source->model_path);
    }
    if (status != PI2_OK) return status;
    status = pi2_chat_template_render(chat_template, inputs, &rendered);
    if (status == PI2_OK && wishes->tokens_out) {
        status = encode_rendered(engine, &rendered, texts.bos, wishes->tokens_out, wishes->count_out);
    }
    if (status == PI2_OK && wishes->text_out) take_text(&rendered, wishes);
    pi2_rendered_chat_free(&rendered);
    pi2_chat_template_free(chat_template);
    return status;
}

static pi2_status require_template(const pi2_engine *engine) {
    if (engine->run.source.chat_template) return PI2_OK;
    return pi2_fail(PI2_ERR_UNSUPPORTED, "%s has no chat template: name one with --chat-template, or give the "
                    "prompt as it is (--raw)", engine->run.source.model_path);
}

pi2_status pi2_engine_chat_tokens(const pi2_engine *engine, const pi2_message *messages, size_t message_count,
                                  bool add_generation_prompt, int32_t **tokens_out, size_t *count_out) {
    *tokens_out = NULL;
    *count_out = 0;
    PI2_TRY(require_template(engine));
    uint64_t bytes = 0;
    for (size_t i = 0; i < message_count; i++) bytes += strlen(messages[i].content);
    PI2_TRY(check_conversation(engine, bytes));
    pi2_chat_inputs inputs = {.messages = (const pi2_chat_message *)messages, .message_count = message_count,
                              .add_generation_prompt = add_generation_prompt};
    const chat_wishes wishes = {.tokens_out = tokens_out, .count_out = count_out};
    return render(engine, &inputs, &wishes);
}

pi2_status pi2_engine_conversation_tokens(const pi2_engine *engine, const pi2_conversation *conversation,
                                          char **text_out, size_t *text_length_out, int32_t **tokens_out,
                                          size_t *count_out) {
    const chat_wishes wishes = {text_out, text_length_out, tokens_out, count_out};
    if (text_out) *text_out = NULL;
    if (tokens_out) *tokens_out = NULL;
    PI2_TRY(require_template(engine));
    PI2_TRY(check_conversation(engine, (uint64_t)conversation->messages_length + conversation->tools_length));
    pi2_chat_inputs inputs = {
        .messages_json = {conversation->messages, conversation->messages_length},
        .tools_json = {conversation->tools, conversation->tools ? conversation->tools_length : 0},
        .add_generation_prompt = conversation->add_generation_prompt, .variables = conversation->variables};
    const pi2_status status = render(engine, &inputs, &wishes);
    if (status != PI2_OK && tokens_out) {
        free(*tokens_out);
        *tokens_out = NULL;
    }
    return status;
}

/* Bytes that the texts of all tokens take at most: each may begin with a space, or end a character as U+FFFD. */
static pi2_status measure(const pi2_tokenizer *tokenizer, const int32_t *tokens, size_t count, size_t *bytes_out) {
    *bytes_out = 16;
    for (size_t i = 0; i < count; i++) {
        size_t length = 0;
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= pi2_tokenizer_vocabulary_size(tokenizer)) {
            return pi2_fail(PI2_ERR_INVALID, "token %d at index %zu lies outside the vocabulary of %u tokens",
                            (int)tokens[i], i, pi2_tokenizer_vocabulary_size(tokenizer));
        }
        (void)pi2_tokenizer_piece(tokenizer, tokens[i], true, &length);
        *bytes_out += 3 * (length + 4);
    }
    return PI2_OK;
}

pi2_status pi2_engine_detokenize(const pi2_engine *engine, const int32_t *tokens, size_t count, bool special,
                                 char **text_out, size_t *length_out) {
    const pi2_tokenizer *tokenizer = engine->run.source.tokenizer;
    pi2_detokenizer detokenizer;
    size_t capacity = 0, length = 0;
    *text_out = NULL;
    *length_out = 0;
    PI2_TRY(measure(tokenizer, tokens, count, &capacity));
    char *text = malloc(capacity);
    if (!text) return pi2_fail(PI2_ERR_MEMORY, "no memory for the text of %zu tokens", count);
    pi2_detokenizer_reset(&detokenizer, false);
    for (size_t i = 0; i < count; i++) {
        length += pi2_detokenizer_push_special(&detokenizer, tokenizer, tokens[i], special, text + length,
                                               capacity - length);
    }
    length += pi2_detokenizer_finish(&detokenizer, text + length, capacity - length);
    text[length] = '\0';
    *text_out = text;
    *length_out = length;
    return PI2_OK;
}
