/*
 * spm.c: sentencepiece's unigram-scored merging (tokenizer.ggml.model "llama").
 *
 * Sentencepiece writes a space as U+2581. Our vocabulary and the words here hold plain spaces
 * instead; to give the same tokens for any bytes, characters are still cut as if the spaces
 * were those three bytes (a stray lead byte swallows part of one).
 */
#include <string.h>

#include "base/fail.h"
#include "tokenizer/tokenizer_internal.h"

static const char space_mark[3] = { '\xe2', '\x96', '\x81' };

/** Bytes that a character has by its first one; a stray byte stands alone. */
static uint32_t length_by_lead(char lead) {
    const unsigned char byte = (unsigned char)lead;
    if (byte < 0xc0) return 1;
    return byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

/** The character that was gathered; a whole mark becomes ' '. */
static pi2_status take_character(pi2_spm_stream *stream) {
    const bool is_space = pi2_is_space_mark(stream->character, stream->count);
    /* No token reaches over this place, so merges on its two sides do not meet. */
    if (is_space && !stream->after_space && stream->words.tokenizer->splits_at_spaces) {
        PI2_TRY(pi2_word_stream_end(&stream->words));
    }
    const uint32_t count = stream->count;
    stream->after_space = is_space;
    stream->count = 0;
    return is_space ? pi2_word_stream_character(&stream->words, " ", 1)
                    : pi2_word_stream_character(&stream->words, stream->character, count);
}

static pi2_status take_bytes(pi2_spm_stream *stream, const char *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        stream->character[stream->count++] = bytes[i];
        if (stream->count == length_by_lead(stream->character[0])) PI2_TRY(take_character(stream));
    }
    return PI2_OK;
}

pi2_status pi2_spm_stream_begin(pi2_spm_stream *stream, bool space_first) {
    stream->after_space = true;
    stream->count = 0;
    return space_first ? take_bytes(stream, space_mark, sizeof space_mark) : PI2_OK;
}

pi2_status pi2_spm_stream_add(pi2_spm_stream *stream, const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (text[i] == ' ') PI2_TRY(take_bytes(stream, space_mark, sizeof space_mark));
        else PI2_TRY(take_bytes(stream, text + i, 1));
    }
    return PI2_OK;
}

pi2_status pi2_spm_stream_end(pi2_spm_stream *stream) {
    if (stream->count) PI2_TRY(take_character(stream));
    return pi2_word_stream_end(&stream->words);
}
