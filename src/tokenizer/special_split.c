/*
 * special_split.c: finds the special tokens in a text that comes in pieces.
 *
 * Longer tokens are looked for first, in what text is left over, each from left to right. There is
 * one level for each length; all tokens of one length are looked up together. A level has decided
 * about every byte before its front, which trails that of the level before it by less than its
 * length: that much text is held back, however the pieces are cut.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "tokenizer/tokenizer_internal.h"

enum { TRUSTED = 1, TAKEN = 2, PIECE_BYTES = 1024 };

/** The special tokens of one length, and which pairs of first bytes they may have. */
typedef struct length_group {
    const uint32_t *tokens;
    uint32_t count, length;
    int only_first_byte; /* the first byte of all of them, or -1 */
    bool needs_trust;    /* all of them do */
    bool strips;         /* white space that follows belongs to a token that was found */
    uint8_t pair_filter[32];
    size_t front;        /* in the buffer: what lies before is decided */
} length_group;

struct pi2_special_splitter {
    const pi2_tokenizer *tokenizer;
    const pi2_fragment_sink *sink;
    void *context;
    length_group *groups;
    size_t group_count;
    bool has_trusted;    /* some text was trusted */
    size_t used, capacity;
    char *text;          /* [capacity] */
    uint8_t *marks;      /* [capacity]: TRUSTED, TAKEN: part of a token, or stripped after one */
    int32_t *tokens;     /* [capacity]: the token that begins here, or -1 */
};

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

size_t pi2_special_splitter_bytes(const pi2_tokenizer *tokenizer) {
    size_t held = PIECE_BYTES, groups = 0;
    uint32_t length = 0;
    for (uint32_t i = 0; i < tokenizer->special_count; i++) {
        const uint32_t own = pi2_token_length(tokenizer, tokenizer->special_tokens[i]);
        if (own == length) continue;
        length = own;
        held += own;
        groups++;
    }
    return sizeof(pi2_special_splitter) + groups * sizeof(length_group) +
           held * (2 + sizeof(int32_t));
}

pi2_status pi2_special_splitter_create(const pi2_tokenizer *tokenizer,
                                       const pi2_fragment_sink *sink, void *context,
                                       pi2_special_splitter **splitter_out) {
    size_t count = 0, held = PIECE_BYTES;
    for (uint32_t first = 0; first < tokenizer->special_count; count++) {
        const length_group group = make_group(tokenizer, first);
        first += group.count;
        held += group.length;
    }
    pi2_special_splitter *splitter = calloc(1, sizeof *splitter);
    *splitter_out = splitter;
    if (!splitter) return pi2_fail(PI2_ERR_MEMORY, "no memory to tokenize a text");
    *splitter = (pi2_special_splitter){ .tokenizer = tokenizer, .sink = sink, .context = context,
                                        .group_count = count, .capacity = held };
    splitter->groups = malloc((count ? count : 1) * sizeof *splitter->groups);
    splitter->text = malloc(held);
    splitter->marks = malloc(held);
    splitter->tokens = malloc(held * sizeof *splitter->tokens);
    if (!splitter->groups || !splitter->text || !splitter->marks || !splitter->tokens) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory to tokenize a text");
    }
    uint32_t first = 0;
    for (size_t i = 0; i < count; i++) {
        splitter->groups[i] = make_group(tokenizer, first);
        first += splitter->groups[i].count;
    }
    return PI2_OK;
}

void pi2_special_splitter_free(pi2_special_splitter *splitter) {
    if (!splitter) return;
    free(splitter->groups);
    free(splitter->text);
    free(splitter->marks);
    free(splitter->tokens);
    free(splitter);
}

/* ---- one level --------------------------------------------------------------------------- */

/** Whether a token may stand at `position`: on text alone that no token has taken. */
static bool is_free(const pi2_special_splitter *splitter, size_t position, uint32_t length,
                    bool needs_trust) {
    for (uint32_t i = 0; i < length; i++) {
        const uint8_t marks = splitter->marks[position + i];
        if (marks & TAKEN || (needs_trust && !(marks & TRUSTED))) return false;
    }
    return true;
}

/** The token of the group that stands at `position` and may, or -1. */
static int32_t match_at(const pi2_special_splitter *splitter, const length_group *group,
                        size_t position) {
    const pi2_tokenizer *tokenizer = splitter->tokenizer;
    const char *text = splitter->text + position;
    uint32_t low = 0, high = group->count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const int order =
            memcmp(pi2_token_text(tokenizer, group->tokens[middle]), text, group->length);
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    for (; low < group->count; low++) { /* equal texts: one may need no trust */
        const uint32_t token = group->tokens[low];
        if (memcmp(pi2_token_text(tokenizer, token), text, group->length) != 0) break;
        const bool needs_trust = tokenizer->attributes[token] & PI2_TOKEN_TRUSTED_ONLY;
        if (is_free(splitter, position, group->length, needs_trust)) return (int32_t)token;
    }
    return -1;
}

/** The first match at or after `from` that ends by `end`: its place, or SIZE_MAX. */
static size_t find_match(const pi2_special_splitter *splitter, const length_group *group,
                         size_t from, size_t end, int32_t *token_out) {
    if (end < from + group->length) return SIZE_MAX;
    const size_t last = end - group->length;
    for (size_t i = from; i <= last; i++) {
        if (group->only_first_byte >= 0) {
            const char *next =
                memchr(splitter->text + i, group->only_first_byte, last - i + 1);
            if (!next) return SIZE_MAX;
            i = (size_t)(next - splitter->text);
        }
        const unsigned bit = pair_bit(splitter->text + i, group->length);
        if (!(group->pair_filter[bit / 8] >> bit % 8 & 1)) continue;
        *token_out = match_at(splitter, group, i);
        if (*token_out >= 0) return i;
    }
    return SIZE_MAX;
}

static bool is_white(char byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }

/** Takes the white space at the group's front; it ends before `end`, or goes on in text to come. */
static void strip(pi2_special_splitter *splitter, length_group *group, size_t end) {
    while (group->front < end && !(splitter->marks[group->front] & TAKEN) &&
           is_white(splitter->text[group->front])) {
        splitter->tokens[group->front] = -1;
        splitter->marks[group->front++] |= TAKEN;
    }
    group->strips = group->front == end;
}

/** Decides as far as the text before `end`, which the level before has decided, allows. */
static void run_level(pi2_special_splitter *splitter, length_group *group, size_t end,
                      bool is_last) {
    if (group->strips) strip(splitter, group, end);
    const bool may_match = splitter->has_trusted || !group->needs_trust;
    while (may_match && !group->strips) {
        int32_t token = -1;
        const size_t place = find_match(splitter, group, group->front, end, &token);
        if (place == SIZE_MAX) break;
        for (uint32_t i = 0; i < group->length; i++) {
            splitter->marks[place + i] |= TAKEN;
            splitter->tokens[place + i] = -1;
        }
        splitter->tokens[place] = token;
        group->front = place + group->length;
        if (splitter->tokenizer->attributes[token] & PI2_TOKEN_STRIPS_RIGHT) {
            strip(splitter, group, end);
        }
    }
    const size_t behind = is_last || group->strips ? 0 : group->length - 1;
    if (end > behind && end - behind > group->front) group->front = end - behind;
}

/* ---- text in, fragments out -------------------------------------------------------------- */

/** Hands on what lies before `end`, and forgets it. */
static pi2_status emit(pi2_special_splitter *splitter, size_t end) {
    for (size_t i = 0; i < end;) {
        size_t next = i + 1;
        if (splitter->marks[i] & TAKEN) {
            if (splitter->tokens[i] >= 0) {
                PI2_TRY(splitter->sink->token(splitter->context, splitter->tokens[i]));
            }
        } else {
            while (next < end && !(splitter->marks[next] & TAKEN)) next++;
            PI2_TRY(splitter->sink->text(splitter->context, splitter->text + i, next - i));
        }
        i = next;
    }
    splitter->used -= end;
    memmove(splitter->text, splitter->text + end, splitter->used);
    memmove(splitter->marks, splitter->marks + end, splitter->used);
    memmove(splitter->tokens, splitter->tokens + end, splitter->used * sizeof *splitter->tokens);
    for (size_t i = 0; i < splitter->group_count; i++) splitter->groups[i].front -= end;
    return PI2_OK;
}

static pi2_status decide(pi2_special_splitter *splitter, bool is_last) {
    size_t end = splitter->used;
    for (size_t i = 0; i < splitter->group_count; i++) {
        run_level(splitter, &splitter->groups[i], end, is_last);
        end = splitter->groups[i].front;
    }
    return emit(splitter, end);
}

pi2_status pi2_special_splitter_add(pi2_special_splitter *splitter, const char *text,
                                    size_t length, bool trusted) {
    if (trusted && length) splitter->has_trusted = true;
    while (length > 0) {
        const size_t room = splitter->capacity - splitter->used;
        const size_t count = length < room ? length : room;
        memcpy(splitter->text + splitter->used, text, count);
        memset(splitter->marks + splitter->used, trusted ? TRUSTED : 0, count);
        splitter->used += count;
        text += count;
        length -= count;
        if (splitter->used == splitter->capacity) PI2_TRY(decide(splitter, false));
    }
    return PI2_OK;
}

pi2_status pi2_special_splitter_finish(pi2_special_splitter *splitter) {
    return decide(splitter, true);
}
