/* pre_tokenizer.c: cuts text into words with PCRE2, by the patterns of pre_tokenizers.inc. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "tokenizer/pre_tokenizer_patterns.h"
#include "tokenizer/tokenizer_internal.h"

enum { MAX_PATTERNS = 6 };

typedef struct named_patterns {
    const char *name;
    unsigned flags;
    const char *patterns[MAX_PATTERNS];
} named_patterns;

static const named_patterns known[] = {
#define PRE_TOKENIZER(name, flags, ...) { name, flags, { __VA_ARGS__ } },
#include "tokenizer/pre_tokenizers.inc"
#undef PRE_TOKENIZER
};

struct pi2_pre_tokenizer {
    unsigned flags;
    size_t count;
    pcre2_code *codes[MAX_PATTERNS];
    bool cuts_threes[MAX_PATTERNS], joins_threes[MAX_PATTERNS]; /* THREES_FROM_RIGHT, and JOINED_ */
    pcre2_match_context *limits; /* read only once made */
};

static const named_patterns *find_name(const char *name, size_t length) {
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strlen(known[i].name) == length && memcmp(known[i].name, name, length) == 0) {
            return &known[i];
        }
    }
    return NULL;
}

static pi2_status compile(pi2_pre_tokenizer *pre_tokenizer, const char *pattern) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    const bool joins_threes = *pattern == *JOINED_THREES_FROM_RIGHT;
    const bool cuts_threes = joins_threes || *pattern == *THREES_FROM_RIGHT;
    if (cuts_threes) pattern++;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF,
                                     &error, &offset, NULL);
    if (!code) {
        PCRE2_UCHAR text[128];
        (void)pcre2_get_error_message(error, text, sizeof text);
        return pi2_fail(PI2_ERR_UNSUPPORTED,
                        "this build of PCRE2 refuses a pre-tokenizer's pattern: %s (at %zu): "
                        "install PCRE2 with Unicode support",
                        (const char *)text, (size_t)offset);
    }
    /* Where the system forbids executable memory this fails, and matching is interpreted. */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
    pre_tokenizer->cuts_threes[pre_tokenizer->count] = cuts_threes;
    pre_tokenizer->joins_threes[pre_tokenizer->count] = joins_threes;
    pre_tokenizer->codes[pre_tokenizer->count++] = code;
    return PI2_OK;
}

static pi2_status compile_all(pi2_pre_tokenizer *pre_tokenizer, const named_patterns *patterns) {
    pre_tokenizer->flags = patterns->flags;
    pre_tokenizer->limits = pcre2_match_context_create(NULL);
    if (!pre_tokenizer->limits) return pi2_fail(PI2_ERR_MEMORY, "no memory for PCRE2");
    /* Our patterns are linear; the default limit would refuse a megabyte of spaces. */
    (void)pcre2_set_match_limit(pre_tokenizer->limits, UINT32_MAX);
    for (size_t i = 0; i < MAX_PATTERNS && patterns->patterns[i]; i++) {
        PI2_TRY(compile(pre_tokenizer, patterns->patterns[i]));
    }
    return PI2_OK;
}

pi2_status pi2_pre_tokenizer_create(const char *name, size_t name_length,
                                    pi2_pre_tokenizer **pre_tokenizer_out) {
    *pre_tokenizer_out = NULL;
    const named_patterns *patterns = find_name(name, name_length);
    if (!patterns) {
        char printable[64];
        return pi2_fail(PI2_ERR_UNSUPPORTED,
                        "tokenizer.ggml.pre names the pre-tokenizer '%s', which this version "
                        "does not know: use a model with another tokenizer",
                        pi2_tokenizer_printable(printable, sizeof printable, name, name_length));
    }
    pi2_pre_tokenizer *pre_tokenizer = calloc(1, sizeof *pre_tokenizer);
    if (!pre_tokenizer) return pi2_fail(PI2_ERR_MEMORY, "no memory for the pre-tokenizer");
    const pi2_status status = compile_all(pre_tokenizer, patterns);
    if (status != PI2_OK) {
        pi2_pre_tokenizer_free(pre_tokenizer);
        return status;
    }
    *pre_tokenizer_out = pre_tokenizer;
    return PI2_OK;
}

void pi2_pre_tokenizer_free(pi2_pre_tokenizer *pre_tokenizer) {
    if (!pre_tokenizer) return;
    for (size_t i = 0; i < pre_tokenizer->count; i++) pcre2_code_free(pre_tokenizer->codes[i]);
    pcre2_match_context_free(pre_tokenizer->limits);
    free(pre_tokenizer);
}

unsigned pi2_pre_tokenizer_flags(const pi2_pre_tokenizer *pre_tokenizer) {
    return pre_tokenizer->flags;
}

size_t pi2_pre_tokenizer_memory_bytes(const pi2_pre_tokenizer *pre_tokenizer) {
    size_t bytes = sizeof *pre_tokenizer;
    for (size_t i = 0; i < pre_tokenizer->count; i++) {
        size_t code = 0, machine_code = 0;
        (void)pcre2_pattern_info(pre_tokenizer->codes[i], PCRE2_INFO_SIZE, &code);
        (void)pcre2_pattern_info(pre_tokenizer->codes[i], PCRE2_INFO_JITSIZE, &machine_code);
        bytes += code + machine_code;
    }
    return bytes;
}

/* ---- cutting text that comes in pieces --------------------------------------------------- */

/** Text of one piece of the level before that this level's pattern has not cut yet. */
typedef struct cutter_level {
    char *text;
    size_t begin;      /* what lies before was handed on; some of it is kept for looking back */
    size_t used, capacity;
    size_t wake;       /* bytes: the pattern is not tried again before so many are not cut yet */
    bool has_open_gap; /* part of a piece between two matches was handed on */
} cutter_level;

struct pi2_word_cutter {
    const pi2_pre_tokenizer *pre_tokenizer;
    pcre2_match_data *match;
    pi2_word_part_function *function;
    void *context;
    size_t most_bytes;
    cutter_level levels[MAX_PATTERNS];
};

enum { FIRST_CAPACITY = 1024, LOOK_BACK = 8 };

static pi2_status level_add(pi2_word_cutter *cutter, size_t level, const char *text, size_t length,
                            bool ends);

/** A piece, or a part of one, of this level to the next. */
static pi2_status hand_on(pi2_word_cutter *cutter, size_t level, size_t from, size_t to, bool ends) {
    return level_add(cutter, level + 1, cutter->levels[level].text + from, to - from, ends);
}

/** A match in threes from its right: the first piece has the one or two that are left over. */
static pi2_status hand_on_threes(pi2_word_cutter *cutter, size_t level, size_t from, size_t to) {
    size_t count = 0;
    for (size_t at = from; at < to; at += pi2_utf8_character(cutter->levels[level].text + at, to - at)) count++;
    size_t left = count % 3 ? count % 3 : 3;
    for (size_t at = from; at < to; left--) {
        if (left == 0) {
            PI2_TRY(hand_on(cutter, level, from, at, true));
            from = at;
            left = 3;
        }
        at += pi2_utf8_character(cutter->levels[level].text + at, to - at);
    }
    return hand_on(cutter, level, from, to, true);
}

static pi2_status make_room(pi2_word_cutter *cutter, cutter_level *level, size_t more) {
    const size_t kept = level->begin < LOOK_BACK ? level->begin : LOOK_BACK;
    if (level->begin > kept && (level->begin > FIRST_CAPACITY || level->used + more > level->capacity)) {
        memmove(level->text, level->text + level->begin - kept, level->used - level->begin + kept);
        level->used -= level->begin - kept;
        level->begin = kept;
    }
    if (level->used + more <= level->capacity) return PI2_OK;
    size_t capacity = level->capacity ? 2 * level->capacity : FIRST_CAPACITY;
    if (capacity < level->used + more) capacity = level->used + more;
    if (capacity > cutter->most_bytes) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "the text has a word of more than %zu bytes, which this tokenizer cannot "
                        "cut: put a space or a line's end into it", level->used - level->begin);
    }
    char *grown = realloc(level->text, capacity);
    if (!grown) return pi2_fail(PI2_ERR_MEMORY, "no memory to tokenize a word of %zu bytes", capacity);
    level->text = grown;
    level->capacity = capacity;
    return PI2_OK;
}

/**
 * Tries the pattern once at the level's begin. While more text may come the match is a partial one
 * as soon as it has looked at the end: whether and where it ends may depend on that text. Sets
 * *waits when nothing more can be told now.
 */
static pi2_status cut_once(pi2_word_cutter *cutter, size_t index, bool ends, bool *waits) {
    cutter_level *level = &cutter->levels[index];
    const pcre2_code *code = cutter->pre_tokenizer->codes[index];
    const uint32_t options = PCRE2_NO_UTF_CHECK | (ends ? 0 : PCRE2_PARTIAL_HARD);
    int count = pcre2_match(code, (PCRE2_SPTR)level->text, level->used, level->begin, options, cutter->match,
                            cutter->pre_tokenizer->limits);
    if (count == PCRE2_ERROR_JIT_STACKLIMIT) {
        count = pcre2_match(code, (PCRE2_SPTR)level->text, level->used, level->begin, options | PCRE2_NO_JIT,
                            cutter->match, cutter->pre_tokenizer->limits);
    }
    if (count < 0 && count != PCRE2_ERROR_NOMATCH && count != PCRE2_ERROR_PARTIAL) {
        return pi2_fail(PI2_ERR_MEMORY, "PCRE2 stopped with error %d in a text of %zu bytes", count, level->used);
    }
    const PCRE2_SIZE *offsets = pcre2_get_ovector_pointer(cutter->match);
    const bool matches = count >= 0 && offsets[1] > offsets[0]; /* no pattern matches nothing */
    const size_t begin = level->begin;
    const size_t start = matches || count == PCRE2_ERROR_PARTIAL ? offsets[0] : level->used;
    *waits = !matches;
    level->begin = matches ? offsets[1] : start;
    const bool ends_gap = matches ? !cutter->pre_tokenizer->joins_threes[index] : ends;
    if (start > begin || (matches && level->has_open_gap)) { /* what lies before the match */
        level->has_open_gap = !matches && !ends;
        PI2_TRY(hand_on(cutter, index, begin, start, ends_gap));
    }
    if (matches && cutter->pre_tokenizer->cuts_threes[index]) return hand_on_threes(cutter, index, start, level->begin);
    if (matches) return hand_on(cutter, index, start, level->begin, true);
    level->wake = 2 * (level->used - level->begin);
    return PI2_OK;
}

static pi2_status level_add(pi2_word_cutter *cutter, size_t index, const char *text, size_t length, bool ends) {
    if (index == cutter->pre_tokenizer->count) return cutter->function(cutter->context, text, length, ends);
    cutter_level *level = &cutter->levels[index];
    PI2_TRY(make_room(cutter, level, length));
    if (length) memcpy(level->text + level->used, text, length);
    level->used += length;
    bool waits = !ends && level->used - level->begin < level->wake;
    while (!waits && level->begin < level->used) PI2_TRY(cut_once(cutter, index, ends, &waits));
    if (!ends) return PI2_OK;
    const bool has_open_gap = level->has_open_gap;
    level->begin = level->used = level->wake = 0;
    level->has_open_gap = false;
    return has_open_gap ? level_add(cutter, index + 1, "", 0, true) : PI2_OK;
}

pi2_status pi2_word_cutter_create(const pi2_pre_tokenizer *pre_tokenizer, size_t most_bytes,
                                  pi2_word_part_function *function, void *context, pi2_word_cutter **cutter_out) {
    pi2_word_cutter *cutter = calloc(1, sizeof *cutter);
    *cutter_out = cutter;
    if (!cutter) return pi2_fail(PI2_ERR_MEMORY, "no memory for PCRE2");
    *cutter = (pi2_word_cutter){ .pre_tokenizer = pre_tokenizer, .match = pcre2_match_data_create(1, NULL),
                                 .function = function, .context = context, .most_bytes = most_bytes };
    return cutter->match ? PI2_OK : pi2_fail(PI2_ERR_MEMORY, "no memory for PCRE2");
}

void pi2_word_cutter_free(pi2_word_cutter *cutter) {
    if (!cutter) return;
    for (size_t i = 0; i < MAX_PATTERNS; i++) free(cutter->levels[i].text);
    pcre2_match_data_free(cutter->match);
    free(cutter);
}

pi2_status pi2_word_cutter_add(pi2_word_cutter *cutter, const char *text, size_t length) {
    return level_add(cutter, 0, text, length, false);
}

pi2_status pi2_word_cutter_end(pi2_word_cutter *cutter, const char *text, size_t length) {
    return level_add(cutter, 0, text, length, true);
}
