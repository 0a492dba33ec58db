/* encoder.c: text to tokens, in pieces or at once. */
#include <stdlib.h>

#include "base/fail.h"
#include "tokenizer/tokenizer_internal.h"

enum { MOST_WORD_BYTES = 1 << 20 };

struct pi2_encoder {
    const pi2_tokenizer *tokenizer;
    pi2_token_function *function;
    void *context;
    pi2_special_splitter *splitter;
    pi2_bpe_stream bpe;
    pi2_spm_stream spm;
    bool in_text;       /* the present fragment has begun */
    bool after_special; /* sentencepiece's space also stands at the start */
};

static pi2_status end_text(pi2_encoder *encoder) {
    const bool in_text = encoder->in_text;
    encoder->in_text = false;
    if (!in_text) return PI2_OK;
    if (encoder->tokenizer->kind == PI2_VOCABULARY_BPE) return pi2_bpe_stream_end(&encoder->bpe);
    return pi2_spm_stream_end(&encoder->spm);
}

static pi2_status take_text(void *context, const char *text, size_t length) {
    pi2_encoder *encoder = context;
    const bool is_bpe = encoder->tokenizer->kind == PI2_VOCABULARY_BPE;
    if (!encoder->in_text && !is_bpe) {
        PI2_TRY(pi2_spm_stream_begin(&encoder->spm, encoder->tokenizer->adds_space_prefix &&
                                                        encoder->after_special));
    }
    encoder->in_text = true;
    encoder->after_special = false;
    return is_bpe ? pi2_bpe_stream_add(&encoder->bpe, text, length)
                  : pi2_spm_stream_add(&encoder->spm, text, length);
}

static pi2_status take_token(void *context, int32_t token) {
    pi2_encoder *encoder = context;
    PI2_TRY(end_text(encoder));
    encoder->after_special = true;
    return encoder->function(encoder->context, &token, 1);
}

static const pi2_fragment_sink fragment_sink = { take_text, take_token };

static pi2_status open_encoder(pi2_encoder *encoder, size_t window_bytes) {
    const pi2_word_stream words = { .tokenizer = encoder->tokenizer,
                                    .window_bytes = window_bytes,
                                    .function = encoder->function,
                                    .context = encoder->context };
    PI2_TRY(pi2_special_splitter_create(encoder->tokenizer, &fragment_sink, encoder, &encoder->splitter));
    encoder->spm.words = words;
    if (encoder->tokenizer->kind == PI2_VOCABULARY_SPM) return PI2_OK;
    encoder->bpe = (pi2_bpe_stream){ .tokenizer = encoder->tokenizer, .words = words,
                                     .most_bytes = MOST_WORD_BYTES };
    return pi2_bpe_stream_open(&encoder->bpe);
}

pi2_status pi2_encoder_create_with(const pi2_tokenizer *tokenizer, size_t window_bytes,
                                   pi2_token_function *function, void *context,
                                   pi2_encoder **encoder_out) {
    *encoder_out = NULL;
    pi2_encoder *encoder = calloc(1, sizeof *encoder);
    if (!encoder) return pi2_fail(PI2_ERR_MEMORY, "no memory to tokenize a text");
    encoder->tokenizer = tokenizer;
    encoder->function = function;
    encoder->context = context;
    encoder->after_special = true;
    const pi2_status status = open_encoder(encoder, window_bytes);
    if (status != PI2_OK) {
        pi2_encoder_free(encoder);
        return status;
    }
    *encoder_out = encoder;
    return PI2_OK;
}

pi2_status pi2_encoder_create(const pi2_tokenizer *tokenizer, pi2_token_function *function,
                              void *context, pi2_encoder **encoder_out) {
    return pi2_encoder_create_with(tokenizer, 0, function, context, encoder_out);
}

void pi2_encoder_free(pi2_encoder *encoder) {
    if (!encoder) return;
    pi2_special_splitter_free(encoder->splitter);
    pi2_bpe_stream_close(&encoder->bpe);
    pi2_word_stream_free(&encoder->spm.words);
    free(encoder);
}

pi2_status pi2_encoder_add(pi2_encoder *encoder, const char *text, size_t length, bool trusted) {
    return pi2_special_splitter_add(encoder->splitter, text, length, trusted);
}

pi2_status pi2_encoder_finish(pi2_encoder *encoder) {
    PI2_TRY(pi2_special_splitter_finish(encoder->splitter));
    return end_text(encoder);
}

size_t pi2_encoder_bytes(const pi2_tokenizer *tokenizer) {
    enum { CUTTER_BYTES = 16 << 10 }; /* text that patterns hold while words are short */
    return sizeof(pi2_encoder) + pi2_special_splitter_bytes(tokenizer) +
           pi2_word_stream_bytes(tokenizer) + CUTTER_BYTES;
}

/* ---- at once ----------------------------------------------------------------------------- */

typedef struct token_list {
    int32_t *items;
    size_t count, capacity;
} token_list;

static pi2_status list_tokens(void *context, const int32_t *tokens, size_t count) {
    token_list *list = context;
    for (size_t i = 0; i < count; i++) {
        if (list->count == list->capacity) {
            const size_t capacity = list->capacity ? list->capacity + list->capacity / 2 : 64;
            int32_t *items = realloc(list->items, capacity * sizeof *items);
            if (!items) return pi2_fail(PI2_ERR_MEMORY, "no memory for %zu tokens", capacity);
            list->items = items;
            list->capacity = capacity;
        }
        list->items[list->count++] = tokens[i];
    }
    return PI2_OK;
}

pi2_status pi2_tokenizer_encode(const pi2_tokenizer *tokenizer, const pi2_text_segment *segments,
                                size_t segment_count, bool add_special, int32_t **tokens_out,
                                size_t *count_out) {
    *tokens_out = NULL;
    *count_out = 0;
    token_list list = { 0 };
    pi2_encoder *encoder = NULL;
    pi2_status status = pi2_encoder_create(tokenizer, list_tokens, &list, &encoder);
    if (status == PI2_OK && add_special && tokenizer->adds_bos) {
        status = list_tokens(&list, &tokenizer->bos, 1);
    }
    for (size_t i = 0; status == PI2_OK && i < segment_count; i++) {
        status = pi2_encoder_add(encoder, segments[i].text, segments[i].length, segments[i].trusted);
    }
    if (status == PI2_OK) status = pi2_encoder_finish(encoder);
    pi2_encoder_free(encoder);
    if (status != PI2_OK) {
        free(list.items);
        return status;
    }
    int32_t *fitted = realloc(list.items, (list.count ? list.count : 1) * sizeof *fitted);
    if (!fitted && !list.items) return pi2_fail(PI2_ERR_MEMORY, "no memory for tokens");
    *tokens_out = fitted ? fitted : list.items;
    *count_out = list.count;
    return PI2_OK;
}
