/*
 * special_split.c: finds the special tokens in a text.
 *
 * Longer tokens are looked for first, in what text is left over, each from left to right. One
 * pass over the text per length; all tokens of one length are looked up together.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "tokenizer/tokenizer_internal.h"

/** The special tokens of one length, and which pairs of first bytes they may have. */
typedef struct length_group {
    const uint32_t *tokens;
    uint32_t count, length;
    int only_first_byte; /* the first byte of all of them, or -1 */
    bool needs_trust;    /* all of them do */
    uint8_t pair_filter[32];
} length_group;

typedef struct splitter {
    const pi2_tokenizer *tokenizer;
    const char *text;
    const pi2_trusted_run *trusted;
    size_t trusted_count;
} splitter;

static pi2_status push_fragment(pi2_fragment_list *list, uint32_t start, uint32_t length,
                                int32_t token) {
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity ? 2 * list->capacity : 16;
        pi2_text_fragment *items = realloc(list->items, capacity * sizeof *items);
        if (!items) {
            return pi2_fail(PI2_ERR_MEMORY, "no memory for %zu special tokens in a text", capacity);
        }
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = (pi2_text_fragment){ start, length, token };
    return PI2_OK;
}

static unsigned pair_bit(const char *text, uint32_t length) {
    const unsigned second = length > 1 ? (unsigned char)text[1] : 0;
    return ((unsigned char)text[0] * 31u + second) & 255u;
}

/** The group that starts at special token `first`. */
static length_group make_group(const pi2_tokenizer *tokenizer, uint32_t first) {
    const uint32_t *tokens = tokenizer->special_tokens + first;
    length_group group = { .tokens = tokens,
                           .length = pi2_token_length(tokenizer, tokens[0]),
                           .needs_trust = true };
    group.only_first_byte = (unsigned char)pi2_token_text(tokenizer, tokens[0])[0];
    for (; first + group.count < tokenizer->special_count; group.count++) {
        const uint32_t token = tokens[group.count];
        const char *text = pi2_token_text(tokenizer, token);
        if (pi2_token_length(tokenizer, token) != group.length) break;
        if ((unsigned char)text[0] != group.only_first_byte) group.only_first_byte = -1;
        if (!(tokenizer->attributes[token] & PI2_TOKEN_TRUSTED_ONLY)) group.needs_trust = false;
        const unsigned bit = pair_bit(text, group.length);
        group.pair_filter[bit / 8] |= (uint8_t)(1u << bit % 8);
    }
    return group;
}

static bool is_trusted(const splitter *split, uint32_t start, uint32_t end) {
    size_t low = 0, high = split->trusted_count;
    while (low < high) { /* the first run that ends at or after `end` */
        const size_t middle = low + (high - low) / 2;
        if (split->trusted[middle].end < end) low = middle + 1;
        else high = middle;
    }
    return low < split->trusted_count && split->trusted[low].start <= start;
}

/** The token of the group that stands at `position` and may, or -1. */
static int32_t match_at(const splitter *split, const length_group *group, uint32_t position) {
    const char *text = split->text + position;
    uint32_t low = 0, high = group->count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const uint32_t token = group->tokens[middle];
        const int order =
            memcmp(pi2_token_text(split->tokenizer, token), text, group->length);
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    for (; low < group->count; low++) { /* equal texts: one may need no trust */
        const uint32_t token = group->tokens[low];
        if (memcmp(pi2_token_text(split->tokenizer, token), text, group->length) != 0) break;
        if (!(split->tokenizer->attributes[token] & PI2_TOKEN_TRUSTED_ONLY) ||
            is_trusted(split, position, position + group->length)) {
            return (int32_t)token;
        }
    }
    return -1;
}

/** The first match at or after `from` that ends by `end`: its place, or UINT32_MAX. */
static uint32_t find_match(const splitter *split, const length_group *group, uint32_t from,
                           uint32_t end, int32_t *token_out) {
    if (end - from < group->length) return UINT32_MAX;
    const uint32_t last = end - group->length;
    for (uint32_t i = from; i <= last; i++) {
        if (group->only_first_byte >= 0) {
            const char *next = memchr(split->text + i, group->only_first_byte, last - i + 1);
            if (!next) return UINT32_MAX;
            i = (uint32_t)(next - split->text);
        }
        const unsigned bit = pair_bit(split->text + i, group->length);
        if (!(group->pair_filter[bit / 8] >> bit % 8 & 1)) continue;
        *token_out = match_at(split, group, i);
        if (*token_out >= 0) return i;
    }
    return UINT32_MAX;
}

static bool is_white(char byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }

/** Splits one fragment by the group, adding its parts to `parts`. */
static pi2_status split_fragment(const splitter *split, const length_group *group,
                                 pi2_text_fragment fragment, pi2_fragment_list *parts) {
    const uint32_t end = fragment.start + fragment.length;
    uint32_t done = fragment.start;
    while (done < end) {
        int32_t token = -1;
        const uint32_t place = find_match(split, group, done, end, &token);
        const uint32_t text_end = place == UINT32_MAX ? end : place;
        if (text_end > done) PI2_TRY(push_fragment(parts, done, text_end - done, -1));
        if (place == UINT32_MAX) break;
        PI2_TRY(push_fragment(parts, place, group->length, token));
        done = place + group->length;
        if (split->tokenizer->attributes[token] & PI2_TOKEN_STRIPS_RIGHT) {
            while (done < end && is_white(split->text[done])) done++;
        }
    }
    return PI2_OK;
}

/** Splits all text fragments by the group. */
static pi2_status split_by_group(const splitter *split, const length_group *group,
                                 pi2_fragment_list *fragments) {
    pi2_fragment_list parts = { 0 };
    pi2_status status = PI2_OK;
    for (size_t i = 0; status == PI2_OK && i < fragments->count; i++) {
        const pi2_text_fragment fragment = fragments->items[i];
        if (fragment.token >= 0) {
            status = push_fragment(&parts, fragment.start, fragment.length, fragment.token);
        } else {
            status = split_fragment(split, group, fragment, &parts);
        }
    }
    if (status != PI2_OK) {
        free(parts.items);
        return status;
    }
    free(fragments->items);
    *fragments = parts;
    return PI2_OK;
}

pi2_status pi2_special_split(const pi2_tokenizer *tokenizer, const char *text, uint32_t length,
                             const pi2_trusted_run *trusted, size_t trusted_count,
                             pi2_fragment_list *fragments) {
    if (length == 0) return PI2_OK;
    const splitter split = { tokenizer, text, trusted, trusted_count };
    PI2_TRY(push_fragment(fragments, 0, length, -1));
    for (uint32_t first = 0; first < tokenizer->special_count;) {
        const length_group group = make_group(tokenizer, first);
        first += group.count;
        if (group.length > length || (group.needs_trust && trusted_count == 0)) continue;
        PI2_TRY(split_by_group(&split, &group, fragments));
    }
    return PI2_OK;
}
