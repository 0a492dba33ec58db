/* tokenizer.c: makes a tokenizer from a GGUF and encodes text with it. */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "tokenizer/tokenizer_internal.h"

/* ---- making ------------------------------------------------------------------------------ */

static bool string_is(pi2_gguf_string string, const char *text) {
    return string.length == strlen(text) && memcmp(string.text, text, string.length) == 0;
}

/** Gemma 4's is called "llama" by some converters; its scores are numbers of tokens then, and merges are there. */
static pi2_status rename_gemma4(const pi2_gguf *gguf, pi2_gguf_string *model) {
    pi2_gguf_string pre;
    if (!string_is(*model, "llama") || !pi2_gguf_has(gguf, "tokenizer.ggml.merges") ||
        !pi2_gguf_has(gguf, "tokenizer.ggml.pre")) return PI2_OK;
    PI2_TRY(pi2_gguf_string_get(gguf, "tokenizer.ggml.pre", &pre));
    if (string_is(pre, "gemma4")) *model = pre;
    return PI2_OK;
}

/** *pre_out: the pre-tokenizer that the kind has by itself; length 0: none. */
static pi2_status load_kind(pi2_tokenizer *tokenizer, const pi2_gguf *gguf, pi2_gguf_string *pre_out) {
    pi2_gguf_string model;
    *pre_out = (pi2_gguf_string){ "", 0 };
    PI2_TRY(pi2_gguf_string_get(gguf, "tokenizer.ggml.model", &model));
    PI2_TRY(rename_gemma4(gguf, &model));
    if (string_is(model, "llama")) {
        tokenizer->kind = PI2_VOCABULARY_SPM;
        tokenizer->is_of_characters = tokenizer->marks_spaces = true;
    } else if (string_is(model, "gpt2")) {
        tokenizer->kind = PI2_VOCABULARY_BPE;
    } else if (string_is(model, "gemma4")) {
        tokenizer->kind = PI2_VOCABULARY_BPE;
        *pre_out = model;
    } else {
        char printable[64];
        return pi2_fail(PI2_ERR_UNSUPPORTED,
                        "tokenizer.ggml.model is '%s'; this version runs 'llama', 'gpt2' and "
                        "'gemma4': use a model with one of those",
                        pi2_tokenizer_printable(printable, sizeof printable, model.text,
                                                model.length));
    }
    return PI2_OK;
}

static pi2_status load_pre_tokenizer(pi2_tokenizer *tokenizer, const pi2_gguf *gguf, pi2_gguf_string name) {
    const bool is_given = name.length > 0;
    if (!is_given) name = (pi2_gguf_string){ "default", 7 };
    if (!is_given && pi2_gguf_has(gguf, "tokenizer.ggml.pre")) {
        PI2_TRY(pi2_gguf_string_get(gguf, "tokenizer.ggml.pre", &name));
    }
    PI2_TRY(pi2_pre_tokenizer_create(name.text, name.length, &tokenizer->pre_tokenizer));
    const unsigned flags = pi2_pre_tokenizer_flags(tokenizer->pre_tokenizer);
    tokenizer->ignores_merges = flags & PI2_PRE_IGNORES_MERGES;
    tokenizer->keeps_line_ends = flags & PI2_PRE_WHOLE_LINE_ENDS;
    tokenizer->counts_spaces = flags & PI2_PRE_COUNTS_SPACES;
    tokenizer->has_space_first = flags & PI2_PRE_SPACE_FIRST;
    tokenizer->is_of_characters = flags & PI2_PRE_CHARACTERS;
    tokenizer->marks_spaces = flags & PI2_PRE_MARKS_SPACES;
    tokenizer->adds_bos = flags & (PI2_PRE_ADDS_BOS | PI2_PRE_ADDS_BOS_ALWAYS);
    return PI2_OK;
}

static pi2_status load_switches(pi2_tokenizer *tokenizer, const pi2_gguf *gguf) {
    PI2_TRY(pi2_gguf_bool_or(gguf, "tokenizer.ggml.add_bos_token", tokenizer->adds_bos,
                             &tokenizer->adds_bos));
    PI2_TRY(pi2_gguf_bool_or(gguf, "tokenizer.ggml.add_eos_token", tokenizer->adds_eos,
                             &tokenizer->adds_eos));
    if (tokenizer->pre_tokenizer && pi2_pre_tokenizer_flags(tokenizer->pre_tokenizer) & PI2_PRE_ADDS_BOS_ALWAYS) {
        tokenizer->adds_bos = true;
    }
    if (tokenizer->bos < 0) tokenizer->adds_bos = false;
    if (tokenizer->eos < 0) tokenizer->adds_eos = false;
    if (tokenizer->kind == PI2_VOCABULARY_BPE) return PI2_OK;
    return pi2_gguf_bool_or(gguf, "tokenizer.ggml.add_space_prefix", true,
                            &tokenizer->adds_space_prefix);
}

/** A byte without a token <0x..> may be a token by itself. */
static void complete_byte_tokens(pi2_tokenizer *tokenizer) {
    for (int byte = 0; byte < 256; byte++) {
        const char text[1] = { (char)byte };
        int32_t *token = &tokenizer->byte_tokens[byte];
        if (!tokenizer->is_of_characters) *token = -1; /* there <0x..> is plain text */
        if (*token < 0) *token = pi2_text_token_find(tokenizer, text, 1);
    }
}

/** Whether sentencepiece text may be cut before each space that follows another character. */
static bool can_split_at_spaces(const pi2_tokenizer *tokenizer) {
    for (uint32_t token = 0; token < tokenizer->token_count; token++) {
        if (tokenizer->attributes[token] & (PI2_TOKEN_NOT_IN_TABLE | PI2_TOKEN_TRUSTED_ONLY)) {
            continue;
        }
        const char *text = pi2_token_text(tokenizer, token);
        const uint32_t length = pi2_token_length(tokenizer, token);
        bool after_space = true;
        for (uint32_t i = 0; i < length;) {
            const size_t character = pi2_utf8_character(text + i, length - i);
            const bool is_space =
                text[i] == ' ' || pi2_is_space_mark(text + i, character);
            if (character == 0 || (is_space && !after_space)) return false;
            after_space = is_space;
            i += (uint32_t)character;
        }
    }
    return true;
}

static pi2_status load(pi2_tokenizer *tokenizer, const pi2_gguf *gguf) {
    pi2_gguf_string pre;
    PI2_TRY(load_kind(tokenizer, gguf, &pre));
    const bool is_bpe = tokenizer->kind == PI2_VOCABULARY_BPE;
    tokenizer->adds_bos = !is_bpe;
    if (is_bpe) PI2_TRY(load_pre_tokenizer(tokenizer, gguf, pre));
    PI2_TRY(pi2_vocabulary_load(tokenizer, gguf));
    PI2_TRY(pi2_special_tokens_load(tokenizer, gguf));
    PI2_TRY(load_switches(tokenizer, gguf));
    PI2_TRY(pi2_token_table_build(tokenizer));
    complete_byte_tokens(tokenizer);
    if (is_bpe) {
        PI2_TRY(pi2_bpe_merges_load(tokenizer, gguf));
        /* Merging knows tokens by their ids; only whole words and characters are looked up by text. */
        if (!tokenizer->ignores_merges && !tokenizer->is_of_characters) pi2_id_table_free(&tokenizer->tokens);
    } else {
        tokenizer->splits_at_spaces = can_split_at_spaces(tokenizer);
    }
    return PI2_OK;
}

pi2_status pi2_tokenizer_create(const pi2_gguf *gguf, pi2_tokenizer **tokenizer_out) {
    *tokenizer_out = NULL;
    pi2_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer) return pi2_fail(PI2_ERR_MEMORY, "no memory for a tokenizer");
    const pi2_status status = load(tokenizer, gguf);
    if (status != PI2_OK) {
        pi2_tokenizer_free(tokenizer);
        return pi2_fail_in_file(status, pi2_gguf_file_path(gguf, 0));
    }
    *tokenizer_out = tokenizer;
    return PI2_OK;
}

void pi2_tokenizer_free(pi2_tokenizer *tokenizer) {
    if (!tokenizer) return;
    free(tokenizer->text);
    free(tokenizer->text_start);
    free(tokenizer->attributes);
    free(tokenizer->scores);
    pi2_id_table_free(&tokenizer->tokens);
    free(tokenizer->merges);
    pi2_id_table_free(&tokenizer->merge_table);
    free(tokenizer->special_tokens);
    pi2_pre_tokenizer_free(tokenizer->pre_tokenizer);
    free(tokenizer);
}

/* ---- asking ------------------------------------------------------------------------------ */

uint32_t pi2_tokenizer_vocabulary_size(const pi2_tokenizer *tokenizer) {
    return tokenizer->token_count;
}
int32_t pi2_tokenizer_bos(const pi2_tokenizer *tokenizer) { return tokenizer->bos; }
int32_t pi2_tokenizer_eos(const pi2_tokenizer *tokenizer) { return tokenizer->eos; }
int32_t pi2_tokenizer_unknown(const pi2_tokenizer *tokenizer) { return tokenizer->named_unknown; }
int32_t pi2_tokenizer_padding(const pi2_tokenizer *tokenizer) { return tokenizer->named_padding; }
bool pi2_tokenizer_adds_bos(const pi2_tokenizer *tokenizer) { return tokenizer->adds_bos; }
bool pi2_tokenizer_adds_eos(const pi2_tokenizer *tokenizer) { return tokenizer->adds_eos; }
size_t pi2_tokenizer_longest_piece(const pi2_tokenizer *tokenizer) {
    return tokenizer->longest_piece;
}

bool pi2_tokenizer_is_suppressed(const pi2_tokenizer *tokenizer, int32_t token) {
    return token >= 0 && (uint32_t)token < tokenizer->token_count &&
           (tokenizer->attributes[token] & PI2_TOKEN_NEVER_PICKED) != 0;
}

bool pi2_tokenizer_ends_generation(const pi2_tokenizer *tokenizer, int32_t token) {
    return token >= 0 && (uint32_t)token < tokenizer->token_count &&
           (tokenizer->attributes[token] & PI2_TOKEN_ENDS) != 0;
}

const char *pi2_tokenizer_piece(const pi2_tokenizer *tokenizer, int32_t token, bool special,
                                size_t *length_out) {
    *length_out = 0;
    if (token < 0 || (uint32_t)token >= tokenizer->token_count) return "";
    switch (pi2_token_type(tokenizer, (uint32_t)token)) {
    case PI2_TOKEN_CONTROL:
    case PI2_TOKEN_UNKNOWN:
        if (!special) return "";
        break;
    case PI2_TOKEN_UNUSED:
    case PI2_TOKEN_UNDEFINED:
        return "";
    default: break;
    }
    *length_out = pi2_token_length(tokenizer, (uint32_t)token);
    return pi2_token_text(tokenizer, (uint32_t)token);
}

void pi2_tokenizer_special_text(const pi2_tokenizer *tokenizer, int32_t token, char *text, size_t capacity) {
    size_t length = 0;
    const char *piece = pi2_tokenizer_piece(tokenizer, token, true, &length);
    if (length >= capacity) length = 0;
    memcpy(text, piece, length);
    text[length] = '\0';
}

size_t pi2_tokenizer_memory_bytes(const pi2_tokenizer *tokenizer) {
    const size_t count = tokenizer->token_count;
    size_t bytes = sizeof *tokenizer + tokenizer->text_start[count] + count;
    bytes += (count + 1) * sizeof *tokenizer->text_start;
    if (tokenizer->scores) bytes += count * sizeof *tokenizer->scores;
    bytes += tokenizer->merge_count * sizeof *tokenizer->merges;
    bytes += tokenizer->special_count * sizeof *tokenizer->special_tokens;
    bytes += tokenizer->tokens.capacity * sizeof *tokenizer->tokens.slots;
    bytes += tokenizer->merge_table.capacity * sizeof *tokenizer->merge_table.slots;
    if (tokenizer->pre_tokenizer) {
        bytes += pi2_pre_tokenizer_memory_bytes(tokenizer->pre_tokenizer);
    }
    return bytes;
}
