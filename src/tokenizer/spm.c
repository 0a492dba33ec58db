/*
 * spm.c: sentencepiece's unigram-scored merging (tokenizer.ggml.model "llama").
 *
 * Sentencepiece writes a space as U+2581. Our vocabulary and the words here hold plain spaces
 * instead; to give the same tokens for any bytes, characters are still cut as if the spaces
 * were those three bytes (a stray lead byte swallows part of one).
 */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "tokenizer/tokenizer_internal.h"

static const char space_mark[3] = { '\xe2', '\x96', '\x81' };

/** Reads text byte by byte with each space as its three-byte mark. */
typedef struct marked_reader {
    const char *text;
    size_t length, position;
    unsigned mark_position; /* bytes of the present space's mark already read */
    bool space_first;       /* a space stands before the text */
} marked_reader;

static bool reader_at_end(const marked_reader *reader) {
    return !reader->space_first && reader->position == reader->length;
}

static char next_byte(marked_reader *reader) {
    if (!reader->space_first && reader->text[reader->position] != ' ') {
        return reader->text[reader->position++];
    }
    const char byte = space_mark[reader->mark_position++];
    if (reader->mark_position == sizeof space_mark) {
        reader->mark_position = 0;
        if (reader->space_first) reader->space_first = false;
        else reader->position++;
    }
    return byte;
}

/** Bytes that a character has by its first one; a stray byte stands alone. */
static size_t length_by_lead(char lead) {
    const unsigned char byte = (unsigned char)lead;
    if (byte < 0xc0) return 1;
    return byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

/** Reads one character into out (4 bytes); a whole mark becomes ' '. Returns its length. */
static size_t next_character(marked_reader *reader, char *out) {
    size_t length = 0;
    out[length++] = next_byte(reader);
    const size_t wanted = length_by_lead(out[0]);
    while (length < wanted && !reader_at_end(reader)) out[length++] = next_byte(reader);
    if (length == 3 && memcmp(out, space_mark, 3) == 0) {
        out[0] = ' ';
        length = 1;
    }
    return length;
}

static pi2_status push_bytes(const pi2_tokenizer *tokenizer, const char *bytes, size_t length,
                             pi2_token_list *tokens) {
    for (size_t i = 0; i < length; i++) {
        int32_t token = tokenizer->byte_tokens[(unsigned char)bytes[i]];
        if (token < 0) token = tokenizer->unknown;
        if (token >= 0) PI2_TRY(pi2_token_list_push(tokens, token));
    }
    return PI2_OK;
}

static pi2_status finish_word(const pi2_tokenizer *tokenizer, pi2_merge_scratch *scratch,
                              size_t symbol_count, size_t length, pi2_token_list *tokens) {
    if (symbol_count == 0) return PI2_OK;
    scratch->symbols[symbol_count - 1].next = PI2_SYMBOL_NONE;
    PI2_TRY(pi2_merge_word(tokenizer, scratch, scratch->text, length, symbol_count));
    const pi2_symbol *symbols = scratch->symbols;
    for (uint32_t i = 0; i != PI2_SYMBOL_NONE; i = symbols[i].next) {
        if (symbols[i].token >= 0) {
            PI2_TRY(pi2_token_list_push(tokens, symbols[i].token));
            continue;
        }
        const uint32_t start = symbols[i].start;
        const size_t end =
            symbols[i].next == PI2_SYMBOL_NONE ? length : symbols[symbols[i].next].start;
        if (end - start == 1 && scratch->text[start] == ' ') {
            PI2_TRY(push_bytes(tokenizer, space_mark, sizeof space_mark, tokens));
        } else {
            PI2_TRY(push_bytes(tokenizer, scratch->text + start, end - start, tokens));
        }
    }
    return PI2_OK;
}

static pi2_status reserve_text(pi2_merge_scratch *scratch, size_t length) {
    if (length <= scratch->text_capacity) return PI2_OK;
    const size_t capacity = length < 128 ? 256 : 2 * length;
    char *text = realloc(scratch->text, capacity);
    if (!text) return pi2_fail(PI2_ERR_MEMORY, "no memory to tokenize a long word");
    scratch->text = text;
    scratch->text_capacity = capacity;
    return PI2_OK;
}

pi2_status pi2_spm_encode(const pi2_tokenizer *tokenizer, pi2_merge_scratch *scratch,
                          const char *text, size_t length, bool space_first,
                          pi2_token_list *tokens) {
    marked_reader reader = { .text = text, .length = length, .space_first = space_first };
    size_t count = 0, word_length = 0;
    bool after_space = true;
    while (!reader_at_end(&reader)) {
        char character[4];
        const size_t character_length = next_character(&reader, character);
        const bool is_space = character_length == 1 && character[0] == ' ';
        /* No token reaches over this place, so merges on its two sides do not meet. */
        if (is_space && !after_space && tokenizer->splits_at_spaces) {
            PI2_TRY(finish_word(tokenizer, scratch, count, word_length, tokens));
            count = word_length = 0;
        }
        after_space = is_space;
        PI2_TRY(reserve_text(scratch, word_length + character_length));
        PI2_TRY(pi2_merge_reserve(scratch, count + 1));
        memcpy(scratch->text + word_length, character, character_length);
        scratch->symbols[count] = (pi2_symbol){
            .token = pi2_text_token_find(tokenizer, character, character_length),
            .start = (uint32_t)word_length,
            .previous = count == 0 ? PI2_SYMBOL_NONE : (uint32_t)count - 1,
            .next = (uint32_t)count + 1,
        };
        count++;
        word_length += character_length;
    }
    return finish_word(tokenizer, scratch, count, word_length, tokens);
}
