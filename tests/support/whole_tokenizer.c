/*
 * whole_tokenizer.c: the definition of what a text's tokens are, over the whole text at once: special
 * tokens of one length after the other, each pattern over each whole piece, each word merged whole.
 */
#include "support/whole_tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "tokenizer/tokenizer_internal.h"

enum { TEXT = -1, GONE = -2 };

typedef struct whole_text {
    const pi2_tokenizer *tokenizer;
    char *text;
    bool *trusted;
    int32_t *owner; /* of each byte: TEXT, GONE, or at a special token's first byte that token */
    size_t length;
    int32_t *tokens;
    size_t count, capacity;
    char *part; /* of a word that came in several */
    size_t part_length;
} whole_text;

static void *allocate(size_t bytes) {
    void *memory = malloc(bytes ? bytes : 1);
    if (!memory) abort();
    return memory;
}

static void push(whole_text *whole, int32_t token) {
    if (whole->count == whole->capacity) {
        whole->capacity = 2 * whole->capacity + 64;
        whole->tokens = realloc(whole->tokens, whole->capacity * sizeof *whole->tokens);
        if (!whole->tokens) abort();
    }
    whole->tokens[whole->count++] = token;
}

static bool stands_at(const whole_text *whole, uint32_t token, size_t place) {
    const uint32_t length = pi2_token_length(whole->tokenizer, token);
    const bool needs_trust = whole->tokenizer->attributes[token] & PI2_TOKEN_TRUSTED_ONLY;
    if (length > whole->length - place) return false;
    if (memcmp(whole->text + place, pi2_token_text(whole->tokenizer, token), length) != 0) return false;
    for (uint32_t i = 0; i < length; i++) {
        if (whole->owner[place + i] != TEXT || (needs_trust && !whole->trusted[place + i])) return false;
    }
    return true;
}

/** Takes the special tokens of one length, [first, end) of the list, from left to right. */
static void take_length(whole_text *whole, uint32_t first, uint32_t end) {
    const pi2_tokenizer *tokenizer = whole->tokenizer;
    for (size_t place = 0; place < whole->length;) {
        uint32_t i = first;
        while (i < end && !stands_at(whole, tokenizer->special_tokens[i], place)) i++;
        if (i == end) {
            place++;
            continue;
        }
        const uint32_t token = tokenizer->special_tokens[i];
        for (uint32_t k = 0; k < pi2_token_length(tokenizer, token); k++) whole->owner[place++] = GONE;
        whole->owner[place - pi2_token_length(tokenizer, token)] = (int32_t)token;
        while (tokenizer->attributes[token] & PI2_TOKEN_STRIPS_RIGHT && place < whole->length &&
               whole->owner[place] == TEXT && strchr(" \t\n\v\f\r", whole->text[place]) && whole->text[place]) {
            whole->owner[place++] = GONE;
        }
    }
}

static void push_merged(whole_text *whole, pi2_merge_scratch *scratch, const char *word, size_t length) {
    static const char mark[3] = {'\xe2', '\x96', '\x81'};
    const pi2_tokenizer *tokenizer = whole->tokenizer;
    const pi2_symbol *symbols = scratch->symbols;
    for (uint32_t i = 0; i != PI2_SYMBOL_NONE; i = symbols[i].next) {
        if (symbols[i].token >= 0) push(whole, symbols[i].token);
        if (symbols[i].token >= 0 || !tokenizer->is_of_characters) continue;
        const size_t end = symbols[i].next == PI2_SYMBOL_NONE ? length : symbols[symbols[i].next].start;
        const bool is_space = tokenizer->marks_spaces && end - symbols[i].start == 1 && word[symbols[i].start] == ' ';
        const char *bytes = is_space ? mark : word + symbols[i].start;
        for (size_t k = 0; k < (is_space ? 3 : end - symbols[i].start); k++) {
            int32_t token = tokenizer->byte_tokens[(unsigned char)bytes[k]];
            if (token < 0 && tokenizer->kind == PI2_VOCABULARY_SPM) token = tokenizer->unknown;
            if (token >= 0) push(whole, token);
        }
    }
}

/** Merges a word whose symbols begin where `starts` is set. */
static void merge_word(whole_text *whole, const char *word, const bool *starts, size_t length) {
    const pi2_tokenizer *tokenizer = whole->tokenizer;
    pi2_merge_scratch scratch = {0};
    uint32_t count = 0;
    if (length == 0) return;
    if (pi2_merge_reserve(&scratch, length) != PI2_OK) abort();
    for (size_t i = 0; i < length;) {
        size_t end = i + 1;
        while (end < length && !starts[end]) end++;
        scratch.symbols[count] = (pi2_symbol){
            .token = tokenizer->is_of_characters ? pi2_text_token_find(tokenizer, word + i, end - i)
                                                 : tokenizer->byte_tokens[(unsigned char)word[i]],
            .start = (uint32_t)i,
            .previous = count ? count - 1 : PI2_SYMBOL_NONE,
            .next = end == length ? PI2_SYMBOL_NONE : count + 1,
        };
        count++;
        i = end;
    }
    if (pi2_merge_word(tokenizer, &scratch, word, length, count) != PI2_OK) abort();
    push_merged(whole, &scratch, word, length);
    pi2_merge_scratch_free(&scratch);
}

/* ---- BPE ---- */

/** Where tokens are of characters each is a symbol, and a mark is a space; else each byte is one. */
static size_t cut_symbols(const pi2_tokenizer *tokenizer, const char *text, size_t length, char *word, bool *starts) {
    size_t count = 0;
    const bool has_space = length > 0 && (text[0] == ' ' || (length > 2 && memcmp(text, "\xe2\x96\x81", 3) == 0));
    if (tokenizer->has_space_first && length > 0 && !has_space && text[0] != '\n') {
        starts[count] = true;
        word[count++] = ' ';
    }
    for (size_t i = 0; i < length;) {
        const size_t character = tokenizer->is_of_characters ? pi2_utf8_character(text + i, length - i) : 1;
        const bool is_space = tokenizer->marks_spaces && character == 3 && memcmp(text + i, "\xe2\x96\x81", 3) == 0;
        memset(starts + count, false, character);
        starts[count] = true;
        if (is_space) word[count] = ' ';
        else memcpy(word + count, text + i, character);
        count += is_space ? 1 : character;
        i += character;
    }
    return count;
}

static void take_whole_word(whole_text *whole, const char *text, size_t length) {
    char *word = allocate(length + 1);
    bool *starts = allocate(length + 1);
    const size_t count = cut_symbols(whole->tokenizer, text, length, word, starts);
    bool is_kept = whole->tokenizer->keeps_line_ends;
    for (size_t i = 0; i < count; i++) is_kept = is_kept && word[i] == '\n';
    is_kept = is_kept || whole->tokenizer->ignores_merges;
    const int32_t token = is_kept ? pi2_text_token_find(whole->tokenizer, word, count) : -1;
    if (token >= 0) push(whole, token);
    else merge_word(whole, word, starts, count);
    free(word);
    free(starts);
}

static pi2_status take_bpe_word(void *context, const char *text, size_t length, bool ends) {
    whole_text *whole = context;
    char *both = allocate(whole->part_length + length);
    if (whole->part_length) memcpy(both, whole->part, whole->part_length);
    if (length) memcpy(both + whole->part_length, text, length);
    free(whole->part);
    whole->part = both;
    whole->part_length += length;
    if (!ends) return PI2_OK;
    take_whole_word(whole, both, whole->part_length);
    free(both);
    whole->part = NULL;
    whole->part_length = 0;
    return PI2_OK;
}

static void encode_bpe(whole_text *whole, const char *text, size_t length) {
    char *valid = allocate(3 * length);
    size_t count = 0;
    for (size_t i = 0; i < length;) {
        const size_t character = pi2_utf8_character(text + i, length - i);
        memcpy(valid + count, character ? text + i : "\xef\xbf\xbd", character ? character : 3);
        count += character ? character : 3;
        i += character ? character : 1;
    }
    pi2_word_cutter *cutter;
    if (pi2_word_cutter_create(whole->tokenizer->pre_tokenizer, SIZE_MAX, take_bpe_word, whole, &cutter) != PI2_OK ||
        pi2_word_cutter_end(cutter, valid, count) != PI2_OK) {
        abort();
    }
    pi2_word_cutter_free(cutter);
    free(valid);
}

/* ---- SPM ---- */

/** Writes every space as its mark, cuts characters by their lead bytes, and makes whole marks spaces again. */
static void encode_spm(whole_text *whole, const char *text, size_t length, bool space_first) {
    char *marked = allocate(3 * length + 3), *word = allocate(3 * length + 3);
    bool *starts = allocate(3 * length + 3), after_space = true;
    size_t marked_length = 0, count = 0;
    for (size_t i = space_first ? 0 : 1; i <= length; i++) {
        if (i == 0 || text[i - 1] == ' ') {
            memcpy(marked + marked_length, "\xe2\x96\x81", 3);
            marked_length += 3;
        } else {
            marked[marked_length++] = text[i - 1];
        }
    }
    for (size_t i = 0; i < marked_length;) {
        const unsigned lead = (unsigned char)marked[i];
        size_t character = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
        if (character > marked_length - i) character = marked_length - i;
        const bool is_space = character == 3 && memcmp(marked + i, "\xe2\x96\x81", 3) == 0;
        if (is_space && !after_space && whole->tokenizer->splits_at_spaces) {
            merge_word(whole, word, starts, count);
            count = 0;
        }
        after_space = is_space;
        memset(starts + count, false, character);
        starts[count] = true;
        if (is_space) word[count] = ' ';
        else memcpy(word + count, marked + i, character);
        count += is_space ? 1 : character;
        i += character;
    }
    merge_word(whole, word, starts, count);
    free(marked);
    free(word);
    free(starts);
}

/* ---- all of it ---- */

static void encode_fragments(whole_text *whole) {
    bool after_special = true;
    for (size_t i = 0; i < whole->length;) {
        if (whole->owner[i] != TEXT) {
            if (whole->owner[i] >= 0) push(whole, whole->owner[i]);
            after_special = true;
            i++;
            continue;
        }
        size_t end = i;
        while (end < whole->length && whole->owner[end] == TEXT) end++;
        if (whole->tokenizer->kind == PI2_VOCABULARY_BPE) encode_bpe(whole, whole->text + i, end - i);
        else encode_spm(whole, whole->text + i, end - i, whole->tokenizer->adds_space_prefix && after_special);
        after_special = false;
        i = end;
    }
}

void pi2_whole_encode(const pi2_tokenizer *tokenizer, const pi2_text_segment *segments, size_t segment_count,
                      int32_t **tokens_out, size_t *count_out) {
    whole_text whole = {.tokenizer = tokenizer};
    size_t length = 0;
    for (size_t i = 0; i < segment_count; i++) length += segments[i].length;
    whole.text = allocate(length);
    whole.trusted = allocate(length * sizeof *whole.trusted);
    whole.owner = allocate(length * sizeof *whole.owner);
    for (size_t i = 0; i < segment_count; i++) {
        for (size_t k = 0; k < segments[i].length; k++) {
            whole.text[whole.length] = segments[i].text[k];
            whole.trusted[whole.length] = segments[i].trusted;
            whole.owner[whole.length++] = TEXT;
        }
    }
    for (uint32_t first = 0, end = 0; first < tokenizer->special_count; first = end) {
        const uint32_t own = pi2_token_length(tokenizer, tokenizer->special_tokens[first]);
        while (end < tokenizer->special_count &&
               pi2_token_length(tokenizer, tokenizer->special_tokens[end]) == own) end++;
        take_length(&whole, first, end);
    }
    encode_fragments(&whole);
    free(whole.text);
    free(whole.trusted);
    free(whole.owner);
    *tokens_out = whole.tokens ? whole.tokens : allocate(1);
    *count_out = whole.count;
}
