/*
 * pre_tokenizer.c: cuts text into words with PCRE2, by the patterns of pre_tokenizers.inc.
 *
 * The patterns are those that the models were trained with, written so that PCRE2 gives the
 * same words in linear time and constant memory: only single characters and classes repeat,
 * never a group. White space is spelled out: PCRE2's \s differs by option (and has U+180E,
 * which is none), this list does not. Letters, numbers, marks, punctuation and symbols are
 * Unicode's categories in the version of the installed PCRE2.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "tokenizer/tokenizer_internal.h"

#define SPACE                                                                        \
    "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}" \
    "\\x{205F}\\x{3000}"
#define SPACES "[" SPACE "]+"
/* White space before a word leaves its last character to that word. */
#define SPACES_BEFORE_WORD SPACES "(?![^" SPACE "])|" SPACES
#define LINE_ENDS "[" SPACE "]*[\\r\\n]+"
#define ENGLISH_ENDING "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
#define OTHERS " ?[^" SPACE "\\p{L}\\p{N}]+"
/* Letters that are no small (capital) ASCII letters: what [Lu Lt Lm Lo] and [Ll Lm Lo] of the
 * original patterns became in the reference, whose tokens we match. */
#define CAPITALS "[^\\P{L}a-z]"
#define SMALLS "[^\\P{L}A-Z]"
#define BEFORE_WORD "[^\\r\\n\\p{L}\\p{N}]?"

#define PATTERN_GPT2 \
    "'(?:[stmd]|re|ve|ll)| ?\\p{L}+| ?\\p{N}+|" OTHERS "|" SPACES_BEFORE_WORD
#define PATTERN_NUMBER "\\p{N}"
#define PATTERN_NUMBERS "\\p{N}+"
#define PATTERN_3_NUMBERS "\\p{N}{1,3}"
#define PATTERN_3_DIGITS "[0-9][0-9][0-9]"
#define PATTERN_PUNCTUATION "[\\p{P}$+<=>^~|]+"
#define PATTERN_FALCON_PUNCTUATION "[\\p{P}$+<=>^~|`]+"
#define PATTERN_WORDS(number)                                                        \
    ENGLISH_ENDING "|" BEFORE_WORD "\\p{L}+|" number "|" OTHERS "[\\r\\n]*|" LINE_ENDS \
    "|" SPACES_BEFORE_WORD
#define PATTERN_LLAMA3 PATTERN_WORDS("\\p{N}{1,3}")
#define PATTERN_QWEN2 PATTERN_WORDS("\\p{N}")
#define PATTERN_QWEN35                                                                \
    ENGLISH_ENDING "|" BEFORE_WORD "[\\p{L}\\p{M}]+|\\p{N}| ?[^" SPACE                \
    "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" LINE_ENDS "|" SPACES_BEFORE_WORD
#define PATTERN_TEKKEN                                                                \
    BEFORE_WORD CAPITALS "*" SMALLS "+|" BEFORE_WORD CAPITALS "+" SMALLS "*|\\p{N}|"  \
    OTHERS "[\\r\\n/]*|" LINE_ENDS "|" SPACES_BEFORE_WORD
#define PATTERN_GPT4O                                                                 \
    BEFORE_WORD CAPITALS "*" SMALLS "+(?:" ENGLISH_ENDING ")?|"                       \
    BEFORE_WORD CAPITALS "+" SMALLS "*(?:" ENGLISH_ENDING ")?|\\p{N}{1,3}|"           \
    OTHERS "[\\r\\n/]*|" LINE_ENDS "|" SPACES_BEFORE_WORD
#define PATTERN_LINE_END "[\\r\\n]"
#define PATTERN_SPACE_LETTERS "[" SPACE "]?\\p{L}+"
#define PATTERN_SPACE_PUNCTUATION "[" SPACE "]?\\p{P}+"
#define PATTERN_DEEPSEEK_CJK "[\\x{800}-\\x{9FA5}\\x{AC00}-\\x{D7FF}]+"
#define PATTERN_DEEPSEEK3_CJK "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{30FF}]+"
#define PATTERN_DEEPSEEK3                                                             \
    "[!-/:-@\\[-`{-~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"          \
    " ?[\\p{P}\\p{S}]+[\\r\\n]*|" LINE_ENDS "|" SPACES_BEFORE_WORD
#define PATTERN_SEED_CODER                                                            \
    ENGLISH_ENDING "|" BEFORE_WORD "\\p{L}+|\\p{N}| ?[^" SPACE "\\p{L}\\p{N}]+|"      \
    LINE_ENDS "|" SPACES_BEFORE_WORD
#define PATTERN_BAILING                                                               \
    ENGLISH_ENDING "|" BEFORE_WORD "\\p{L}+|\\p{N}|" OTHERS "[\\r\\n]*|[" SPACE "]*[\\r\\n]|" \
    SPACES_BEFORE_WORD
#define PATTERN_BLOOM                                                                 \
    " ?[^(|.,!?)" SPACE "\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C}]+"

enum { MAX_PATTERNS = 5 };

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
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
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

typedef struct word_cutter {
    const pi2_pre_tokenizer *pre_tokenizer;
    pcre2_match_data *match;
    pi2_word_function *function;
    void *context;
} word_cutter;

/** Finds the next match at or after `from`. *found_out is false when there is none. */
static pi2_status find_match(const word_cutter *cutter, size_t level, const char *text,
                             size_t length, size_t from, size_t *start_out, size_t *end_out,
                             bool *found_out) {
    const pcre2_code *code = cutter->pre_tokenizer->codes[level];
    int count = pcre2_match(code, (PCRE2_SPTR)text, length, from, PCRE2_NO_UTF_CHECK,
                            cutter->match, cutter->pre_tokenizer->limits);
    if (count == PCRE2_ERROR_JIT_STACKLIMIT) {
        count = pcre2_match(code, (PCRE2_SPTR)text, length, from,
                            PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, cutter->match,
                            cutter->pre_tokenizer->limits);
    }
    *found_out = count >= 0;
    if (count == PCRE2_ERROR_NOMATCH) return PI2_OK;
    if (count < 0) {
        return pi2_fail(PI2_ERR_MEMORY, "PCRE2 stopped with error %d in a text of %zu bytes",
                        count, length);
    }
    const PCRE2_SIZE *offsets = pcre2_get_ovector_pointer(cutter->match);
    *start_out = offsets[0];
    *end_out = offsets[1];
    return PI2_OK;
}

/** Cuts one piece by the pattern of `level`, its parts by those after it. At most MAX_PATTERNS
 *  deep. The subject is the piece alone, so no pattern sees beyond it. */
static pi2_status cut(const word_cutter *cutter, size_t level, const char *text, size_t length) {
    if (length == 0) return PI2_OK;
    if (level == cutter->pre_tokenizer->count) {
        return cutter->function(cutter->context, text, length);
    }
    size_t done = 0;
    while (done < length) {
        size_t start = length, end = length;
        bool found = false;
        PI2_TRY(find_match(cutter, level, text, length, done, &start, &end, &found));
        if (!found || end <= start) start = end = length; /* no pattern matches nothing */
        PI2_TRY(cut(cutter, level + 1, text + done, start - done));
        PI2_TRY(cut(cutter, level + 1, text + start, end - start));
        done = end;
    }
    return PI2_OK;
}

pi2_status pi2_pre_tokenize(const pi2_pre_tokenizer *pre_tokenizer, const char *text,
                            size_t length, pi2_word_function *function, void *context) {
    word_cutter cutter = { pre_tokenizer, pcre2_match_data_create(1, NULL), function, context };
    if (!cutter.match) return pi2_fail(PI2_ERR_MEMORY, "no memory for PCRE2");
    const pi2_status status = cut(&cutter, 0, text, length);
    pcre2_match_data_free(cutter.match);
    return status;
}
