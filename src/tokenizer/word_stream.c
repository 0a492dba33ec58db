/*
 * word_stream.c: merges a word that comes in pieces, in bounded memory, to the tokens that it has
 * as a whole.
 *
 * Merging takes the pair with the best key first, leftmost among equals, and a key depends on the
 * text of the two symbols alone. So what happens on one side of a place that no merge crosses does
 * not depend on the other side: of the word A B the tokens are those of A and those of B, if and
 * only if the last token of A and the first of B, taken alone as a word, stay two. (Take the first
 * merge that crosses any place between two of these tokens: until then both went the same way
 * alone, so alone they would have merged too.)
 *
 * A long word is therefore cut at a place b where that holds whatever follows: for the last token
 * before b, and every prefix of the text after b that becomes one token. All of those are known
 * when as much text is known after b as the longest token has.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "tokenizer/tokenizer_internal.h"

enum { WINDOW_BYTES = 4096, PLACES_TRIED = 64, MOST_GROWTH = 64 };

static size_t window_of(const pi2_word_stream *words) {
    const size_t least = 4 * (size_t)words->tokenizer->longest_piece + 4;
    const size_t wanted = words->window_bytes ? words->window_bytes : WINDOW_BYTES;
    return wanted > least ? wanted : least;
}

size_t pi2_word_stream_bytes(const pi2_tokenizer *tokenizer) {
    const pi2_word_stream words = { .tokenizer = tokenizer };
    /* Text and starts; symbols and heap of the word; of the probe two tokens. */
    const size_t window = window_of(&words);
    return window * (2 + 24 + 16) + 4 * (size_t)tokenizer->longest_piece * (24 + 16);
}

void pi2_word_stream_free(pi2_word_stream *words) {
    pi2_merge_scratch_free(&words->scratch);
    pi2_merge_scratch_free(&words->probe);
    free(words->text);
    free(words->starts);
    words->text = NULL;
    words->starts = NULL;
}

static pi2_status emit(pi2_word_stream *words, int32_t token) {
    return words->function(words->context, &token, 1);
}

/** Symbols of text[from .. to), one for each start. */
static pi2_status make_symbols(const pi2_word_stream *words, pi2_merge_scratch *scratch,
                               size_t from, size_t to, size_t *count_out) {
    const pi2_tokenizer *tokenizer = words->tokenizer;
    size_t count = 0;
    for (size_t i = from; i < to; i++) count += words->starts[i];
    PI2_TRY(pi2_merge_reserve(scratch, count));
    *count_out = count;
    count = 0;
    for (size_t i = from; i < to;) {
        size_t end = i + 1;
        while (end < to && !words->starts[end]) end++;
        scratch->symbols[count] = (pi2_symbol){
            .token = tokenizer->is_of_characters
                         ? pi2_text_token_find(tokenizer, words->text + i, end - i)
                         : tokenizer->byte_tokens[(unsigned char)words->text[i]],
            .start = (uint32_t)(i - from),
            .previous = count == 0 ? PI2_SYMBOL_NONE : (uint32_t)count - 1,
            .next = end == to ? PI2_SYMBOL_NONE : (uint32_t)count + 1,
        };
        count++;
        i = end;
    }
    return PI2_OK;
}

static pi2_status merge(const pi2_word_stream *words, pi2_merge_scratch *scratch, size_t from,
                        size_t to) {
    size_t count = 0;
    PI2_TRY(make_symbols(words, scratch, from, to, &count));
    return pi2_merge_word(words->tokenizer, scratch, words->text + from, to - from, count);
}

static pi2_status emit_bytes(pi2_word_stream *words, const char *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        int32_t token = words->tokenizer->byte_tokens[(unsigned char)bytes[i]];
        if (token < 0 && words->tokenizer->kind == PI2_VOCABULARY_SPM) token = words->tokenizer->unknown;
        if (token >= 0) PI2_TRY(emit(words, token));
    }
    return PI2_OK;
}

/** The tokens of the merged symbols that begin before `end`. */
static pi2_status emit_symbols(pi2_word_stream *words, size_t length, size_t end) {
    const pi2_symbol *symbols = words->scratch.symbols;
    for (uint32_t i = 0; i != PI2_SYMBOL_NONE && symbols[i].start < end; i = symbols[i].next) {
        if (symbols[i].token >= 0) {
            PI2_TRY(emit(words, symbols[i].token));
            continue;
        }
        /* A byte of byte-level text that has no token leaves no trace, there is nothing to write it with. */
        if (!words->tokenizer->is_of_characters) continue;
        const size_t start = symbols[i].start;
        const size_t stop =
            symbols[i].next == PI2_SYMBOL_NONE ? length : symbols[symbols[i].next].start;
        if (stop - start == 1 && words->text[start] == ' ' && words->tokenizer->marks_spaces) {
            PI2_TRY(emit_bytes(words, "\xe2\x96\x81", 3));
        } else {
            PI2_TRY(emit_bytes(words, words->text + start, stop - start));
        }
    }
    return PI2_OK;
}

/** Whether the last token before `place`, which begins at `last`, surely stays as it is. */
static pi2_status is_certain(pi2_word_stream *words, size_t last, size_t place, bool *certain_out) {
    const size_t most = words->tokenizer->longest_piece;
    *certain_out = false;
    for (size_t end = place + 1; end <= place + most; end++) {
        if (!words->starts[end]) continue; /* in the middle of a character */
        PI2_TRY(merge(words, &words->probe, place, end));
        if (words->probe.symbols[0].next != PI2_SYMBOL_NONE) continue; /* no one token */
        PI2_TRY(merge(words, &words->probe, last, end));
        const uint32_t second = words->probe.symbols[0].next;
        if (second == PI2_SYMBOL_NONE || words->probe.symbols[second].start != place - last ||
            words->probe.symbols[second].next != PI2_SYMBOL_NONE) {
            return PI2_OK;
        }
    }
    *certain_out = true;
    return PI2_OK;
}

/** The last place at which the merged word can be cut, 0: none was found. */
static pi2_status find_cut(pi2_word_stream *words, size_t *cut_out) {
    const pi2_symbol *symbols = words->scratch.symbols;
    const size_t known = words->length - words->tokenizer->longest_piece - 1;
    uint32_t right = 0;
    *cut_out = 0;
    while (symbols[right].next != PI2_SYMBOL_NONE && symbols[symbols[right].next].start <= known) {
        right = symbols[right].next;
    }
    for (int tried = 0; tried < PLACES_TRIED && right != 0; tried++) {
        uint32_t left = right; /* symbols keep their places, the dead ones lie between */
        do left--;
        while (symbols[left].token == PI2_SYMBOL_DEAD);
        bool certain = false;
        PI2_TRY(is_certain(words, symbols[left].start, symbols[right].start, &certain));
        if (certain) {
            *cut_out = symbols[right].start;
            return PI2_OK;
        }
        right = left;
    }
    return PI2_OK;
}

/** Hands on the tokens of the word's first part, or makes room for more of it. */
static pi2_status cut_word(pi2_word_stream *words) {
    size_t cut = 0;
    PI2_TRY(merge(words, &words->scratch, 0, words->length));
    PI2_TRY(find_cut(words, &cut));
    if (cut == 0) {
        if (words->capacity >= window_of(words) * MOST_GROWTH) {
            return pi2_fail(PI2_ERR_UNSUPPORTED, "a word of more than %zu bytes, whose tokens depend on what follows "
                            "it: put a space or a line's end into it", words->length);
        }
        return PI2_OK;
    }
    PI2_TRY(emit_symbols(words, words->length, cut));
    words->length -= cut;
    memmove(words->text, words->text + cut, words->length);
    memmove(words->starts, words->starts + cut, words->length);
    words->is_cut = true;
    return PI2_OK;
}

static pi2_status reserve(pi2_word_stream *words, size_t more) {
    if (words->length + more <= words->capacity) return PI2_OK;
    if (words->capacity >= window_of(words)) {
        PI2_TRY(cut_word(words));
        if (words->length + more <= words->capacity) return PI2_OK;
    }
    size_t capacity = words->capacity ? 2 * words->capacity : 256;
    if (words->capacity < window_of(words) && capacity > window_of(words)) capacity = window_of(words);
    if (capacity < words->length + more) capacity = words->length + more;
    char *text = realloc(words->text, capacity);
    if (text) words->text = text;
    uint8_t *starts = text ? realloc(words->starts, capacity) : NULL;
    if (!starts) return pi2_fail(PI2_ERR_MEMORY, "no memory to tokenize a word of %zu bytes", capacity);
    words->starts = starts;
    words->capacity = capacity;
    return PI2_OK;
}

pi2_status pi2_word_stream_character(pi2_word_stream *words, const char *bytes, size_t length) {
    PI2_TRY(reserve(words, length));
    memcpy(words->text + words->length, bytes, length);
    memset(words->starts + words->length, 0, length);
    words->starts[words->length] = 1;
    words->length += length;
    return PI2_OK;
}

pi2_status pi2_word_stream_bytes_add(pi2_word_stream *words, const char *bytes, size_t length) {
    while (length > 0) {
        PI2_TRY(reserve(words, 1));
        size_t count = words->capacity - words->length;
        if (count > length) count = length;
        memcpy(words->text + words->length, bytes, count);
        memset(words->starts + words->length, 1, count);
        words->length += count;
        bytes += count;
        length -= count;
    }
    return PI2_OK;
}

/** Whether a word that is a token stays whole, whatever merging would give. */
static bool is_kept_whole(const pi2_word_stream *words, size_t length) {
    if (words->tokenizer->ignores_merges) return true;
    for (size_t i = 0; words->tokenizer->keeps_line_ends && i < length; i++) {
        if (words->text[i] != '\n') return false;
    }
    return words->tokenizer->keeps_line_ends;
}

pi2_status pi2_word_stream_end(pi2_word_stream *words) {
    const size_t length = words->length;
    const bool is_whole = !words->is_cut;
    words->length = 0;
    words->is_cut = false;
    if (length == 0) return PI2_OK;
    if (is_whole && is_kept_whole(words, length)) {
        const int32_t token = pi2_text_token_find(words->tokenizer, words->text, length);
        if (token >= 0) return emit(words, token);
    }
    PI2_TRY(merge(words, &words->scratch, 0, length));
    return emit_symbols(words, length, length);
}
