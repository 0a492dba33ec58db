/*
 * bpe_stream.c: text of BPE, from pieces of any size to the pre-tokenizer.
 *
 * Bytes that are no UTF-8 become U+FFFD, and a long run of one character is shortened before the
 * patterns see it: only classes of characters repeat in them, so they treat a run of any length
 * alike once it is longer than any token and than what a pattern counts. The characters left out
 * are put back inside the word in which the run's middle lies. Digits and line ends are never
 * left out: patterns cut those one by one or by threes; nor is white space where they count it.
 */
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "base/fail.h"
#include "tokenizer/tokenizer_internal.h"

enum { LEAST_HALF = 24, COUNTED = 6 /* what patterns count divides it */ };

/** Copies that stay on either side of those left out: no token is as long. */
static size_t half_of(const pi2_bpe_stream *stream) {
    return (size_t)stream->tokenizer->longest_piece + LEAST_HALF;
}

/* ---- words out --------------------------------------------------------------------------- */

/** Whole characters of a word: as many symbols, or one for each byte. */
static pi2_status add_to_word(pi2_bpe_stream *stream, const char *bytes, size_t length) {
    if (!stream->tokenizer->is_of_characters) return pi2_word_stream_bytes_add(&stream->words, bytes, length);
    const bool begins = stream->words.length == 0 && !stream->words.is_cut;
    for (size_t i = 0; i < length;) {
        const size_t character = pi2_utf8_character(bytes + i, length - i);
        const bool is_space = stream->tokenizer->marks_spaces && pi2_is_space_mark(bytes + i, character);
        const bool needs_space = begins && i == 0 && stream->tokenizer->has_space_first && !is_space;
        if (needs_space && bytes[0] != ' ' && bytes[0] != '\n') {
            PI2_TRY(pi2_word_stream_character(&stream->words, " ", 1));
        }
        PI2_TRY(pi2_word_stream_character(&stream->words, is_space ? " " : bytes + i, is_space ? 1 : character));
        i += character;
    }
    return PI2_OK;
}

static pi2_status put_back(pi2_bpe_stream *stream) {
    const pi2_left_out *first = &stream->left_out[0];
    for (uint64_t i = 0; i < first->count; i++) {
        PI2_TRY(add_to_word(stream, first->character, first->length));
    }
    stream->left_out_count--;
    memmove(stream->left_out, stream->left_out + 1, stream->left_out_count * sizeof *first);
    return PI2_OK;
}

/** Part of a word, from the pre-tokenizer; ends: its last one. */
static pi2_status take_word(void *context, const char *bytes, size_t length, bool ends) {
    pi2_bpe_stream *stream = context;
    while (length > 0) {
        size_t count = length;
        if (stream->left_out_count) {
            const uint64_t before = stream->left_out[0].place - stream->bytes_cut;
            if (before == 0) {
                PI2_TRY(put_back(stream));
                continue;
            }
            if (before < count) count = (size_t)before;
        }
        PI2_TRY(add_to_word(stream, bytes, count));
        stream->bytes_cut += count;
        bytes += count;
        length -= count;
    }
    return ends ? pi2_word_stream_end(&stream->words) : PI2_OK;
}

/* ---- text in ----------------------------------------------------------------------------- */

static pi2_status flush(pi2_bpe_stream *stream) {
    const size_t count = stream->out_count;
    stream->out_count = 0;
    stream->bytes_given += count;
    return count ? pi2_word_cutter_add(stream->cutter, stream->out, count) : PI2_OK;
}

static pi2_status put_character(pi2_bpe_stream *stream, const char *character, size_t length) {
    if (stream->out_count + length > sizeof stream->out) PI2_TRY(flush(stream));
    memcpy(stream->out + stream->out_count, character, length);
    stream->out_count += length;
    return PI2_OK;
}

static pi2_status note_left_out(pi2_bpe_stream *stream, uint64_t count) {
    if (stream->left_out_count == stream->left_out_capacity) {
        const size_t capacity = stream->left_out_capacity ? 2 * stream->left_out_capacity : 8;
        pi2_left_out *grown = realloc(stream->left_out, capacity * sizeof *grown);
        if (!grown) return pi2_fail(PI2_ERR_MEMORY, "no memory to tokenize a text");
        stream->left_out = grown;
        stream->left_out_capacity = capacity;
    }
    pi2_left_out *entry = &stream->left_out[stream->left_out_count++];
    *entry = (pi2_left_out){ .place = stream->bytes_given + stream->out_count, .count = count,
                             .length = stream->run_length };
    memcpy(entry->character, stream->run, sizeof entry->character);
    return PI2_OK;
}

/** The copies of the run that were held back. */
static pi2_status end_run(pi2_bpe_stream *stream) {
    const uint64_t half = half_of(stream);
    uint64_t held = stream->run_count > half ? stream->run_count - half : 0;
    stream->run_count = 0;
    if (held >= half + COUNTED) {
        const uint64_t left_out = (held - half) / COUNTED * COUNTED;
        PI2_TRY(note_left_out(stream, left_out));
        held -= left_out;
    }
    for (; held > 0; held--) PI2_TRY(put_character(stream, stream->run, stream->run_length));
    return PI2_OK;
}

/** Patterns cut digits and line ends one by one, so a run of them is many words. */
static bool is_cut_apart(const pi2_bpe_stream *stream, const char *character, size_t length) {
    if (length == 1) {
        return *character == '\n' || *character == '\r' || (*character >= '0' && *character <= '9') ||
               (stream->tokenizer->counts_spaces && (*character == ' ' || (*character >= '\t' && *character <= '\r')));
    }
    utf8proc_int32_t code = 0;
    (void)utf8proc_iterate((const utf8proc_uint8_t *)character, (utf8proc_ssize_t)length, &code);
    const utf8proc_category_t category = utf8proc_category(code);
    return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
           category == UTF8PROC_CATEGORY_NO || category == UTF8PROC_CATEGORY_CN ||
           (stream->tokenizer->counts_spaces && (code == 0x85 || category == UTF8PROC_CATEGORY_ZS ||
                                                 category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP));
}

static pi2_status take_character(pi2_bpe_stream *stream, const char *character, size_t length) {
    if (stream->run_count && stream->run_length == length &&
        memcmp(stream->run, character, length) == 0) {
        stream->run_count++;
        if (stream->run_count > half_of(stream) && !is_cut_apart(stream, character, length)) return PI2_OK;
        if (stream->run_count > half_of(stream)) stream->run_count = 1;
        return put_character(stream, character, length);
    }
    PI2_TRY(end_run(stream));
    memcpy(stream->run, character, length);
    stream->run_length = (uint32_t)length;
    stream->run_count = 1;
    return put_character(stream, character, length);
}

/** Takes the whole characters of text[0 .. length); *taken_out: the rest may be the start of one. */
static pi2_status take_characters(pi2_bpe_stream *stream, const char *text, size_t length,
                                  bool is_last, size_t *taken_out) {
    size_t i = 0;
    while (i < length && (is_last || length - i >= 4)) {
        const size_t character = pi2_utf8_character(text + i, length - i);
        PI2_TRY(take_character(stream, character ? text + i : "\xef\xbf\xbd",
                               character ? character : 3));
        i += character ? character : 1;
    }
    *taken_out = i;
    return PI2_OK;
}

pi2_status pi2_bpe_stream_add(pi2_bpe_stream *stream, const char *text, size_t length) {
    while (length > 0) { /* what was kept of the last piece, and this one's beginning */
        size_t taken;
        if (stream->kept_count == 0) {
            PI2_TRY(take_characters(stream, text, length, false, &taken));
            text += taken;
            length -= taken;
            memcpy(stream->kept, text, length);
            stream->kept_count = (uint32_t)length;
            return PI2_OK;
        }
        stream->kept[stream->kept_count++] = *text++;
        length--;
        PI2_TRY(take_characters(stream, stream->kept, stream->kept_count, false, &taken));
        stream->kept_count -= (uint32_t)taken;
        memmove(stream->kept, stream->kept + taken, stream->kept_count);
    }
    return PI2_OK;
}

pi2_status pi2_bpe_stream_end(pi2_bpe_stream *stream) {
    size_t taken;
    PI2_TRY(take_characters(stream, stream->kept, stream->kept_count, true, &taken));
    stream->kept_count = 0;
    PI2_TRY(end_run(stream));
    const size_t count = stream->out_count;
    stream->out_count = 0;
    stream->bytes_given += count;
    return pi2_word_cutter_end(stream->cutter, stream->out, count);
}

pi2_status pi2_bpe_stream_open(pi2_bpe_stream *stream) {
    return pi2_word_cutter_create(stream->tokenizer->pre_tokenizer, stream->most_bytes, take_word,
                                  stream, &stream->cutter);
}

void pi2_bpe_stream_close(pi2_bpe_stream *stream) {
    pi2_word_cutter_free(stream->cutter);
    pi2_word_stream_free(&stream->words);
    free(stream->left_out);
}
