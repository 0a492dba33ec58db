/*
 * pre_tokenizer.c: cuts text into words with PCRE2, by the patterns of pre_tokenizers.inc.
 *
 * The patterns are those that the models were trained with, written so that PCRE2 gives the
 * same words in linear time and constant memory: only single characters and classes repeat,
 * never a group. White space is spelled out: PCRE2's \s differs by option (and has U+180E,
 * which is none), this list does not. Categories are those of Unicode 15.1 also with a PCRE2
 * that knows 14 only (before 10.43): what came later is listed.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "tokenizer/tokenizer_internal.h"

#define SPACE                                                                                    \
    "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"              \
    "\\x{205F}\\x{3000}"
/* For use inside a class: the category, and what Unicode 15.0 and 15.1 added to it. */
#define LETTER                                                                                   \
    "\\p{L}\\x{1123F}\\x{11240}\\x{11F02}\\x{11F04}-\\x{11F10}\\x{11F12}-\\x{11F33}"             \
    "\\x{1342F}\\x{13441}-\\x{13446}\\x{1B132}\\x{1B155}\\x{1DF25}-\\x{1DF2A}"                   \
    "\\x{1E030}-\\x{1E06D}\\x{1E4D0}-\\x{1E4EB}\\x{2B739}\\x{2EBF0}-\\x{2EE5D}"                  \
    "\\x{31350}-\\x{323AF}"
#define NUMBER "\\p{N}\\x{11F50}-\\x{11F59}\\x{1D2C0}-\\x{1D2D3}\\x{1E4F0}-\\x{1E4F9}"
#define MARK                                                                                     \
    "\\p{M}\\x{CF3}\\x{ECE}\\x{10EFD}-\\x{10EFF}\\x{11241}\\x{11F00}\\x{11F01}\\x{11F03}"        \
    "\\x{11F34}-\\x{11F3A}\\x{11F3E}-\\x{11F42}\\x{13440}\\x{13447}-\\x{13455}\\x{1E08F}"        \
    "\\x{1E4EC}-\\x{1E4EF}"
#define PUNCTUATION "\\p{P}\\x{11B00}-\\x{11B09}\\x{11F43}-\\x{11F4F}"
#define SYMBOL                                                                                   \
    "\\p{S}\\x{2FFC}-\\x{2FFF}\\x{31EF}\\x{1F6DC}\\x{1F774}-\\x{1F776}"                          \
    "\\x{1F77B}-\\x{1F77F}\\x{1F7D9}\\x{1FA75}-\\x{1FA77}\\x{1FA87}\\x{1FA88}"                   \
    "\\x{1FAAD}-\\x{1FAAF}\\x{1FABB}-\\x{1FABD}\\x{1FABF}\\x{1FACE}\\x{1FACF}\\x{1FADA}"         \
    "\\x{1FADB}\\x{1FAE8}\\x{1FAF7}\\x{1FAF8}"
#define SPACES "[" SPACE "]+"
/* White space before a word leaves its last character to that word. */
#define SPACES_BEFORE_WORD SPACES "(?![^" SPACE "])|" SPACES
#define LINE_ENDS "[" SPACE "]*[\\r\\n]+"
#define ENGLISH_ENDING "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
#define OTHERS " ?[^" SPACE LETTER NUMBER "]+"
/* Letters that are no small (capital) ASCII letters: what [Lu Lt Lm Lo] and [Ll Lm Lo] of the
 * original patterns became in the reference, whose tokens we match. */
#define CAPITALS "[^\\P{L}a-z]"
#define SMALLS "[^\\P{L}A-Z]"
#define BEFORE_WORD "[^\\r\\n" LETTER NUMBER "]?"
#define LETTERS "[" LETTER "]+"
#define ONE_NUMBER "[" NUMBER "]"

#define PATTERN_GPT2                                                                             \
    "'(?:[stmd]|re|ve|ll)| ?" LETTERS "| ?" ONE_NUMBER "+|" OTHERS "|" SPACES_BEFORE_WORD
#define PATTERN_NUMBER ONE_NUMBER
#define PATTERN_NUMBERS ONE_NUMBER "+"
#define PATTERN_3_NUMBERS ONE_NUMBER "{1,3}"
#define PATTERN_3_DIGITS "[0-9][0-9][0-9]"
#define PATTERN_PUNCTUATION "[$+<=>^~|" PUNCTUATION "]+"
#define PATTERN_FALCON_PUNCTUATION "[$+<=>^~|`" PUNCTUATION "]+"
#define PATTERN_WORDS(number)                                                                    \
    ENGLISH_ENDING "|" BEFORE_WORD LETTERS "|" number "|" OTHERS "[\\r\\n]*|" LINE_ENDS          \
    "|" SPACES_BEFORE_WORD
#define PATTERN_LLAMA3 PATTERN_WORDS(PATTERN_3_NUMBERS)
#define PATTERN_QWEN2 PATTERN_WORDS(ONE_NUMBER)
#define PATTERN_QWEN35                                                                           \
    ENGLISH_ENDING "|" BEFORE_WORD "[" MARK LETTER "]+|" ONE_NUMBER "| ?[^" MARK SPACE           \
    LETTER NUMBER "]+[\\r\\n]*|" LINE_ENDS "|" SPACES_BEFORE_WORD
#define PATTERN_TEKKEN                                                                           \
    BEFORE_WORD CAPITALS "*" SMALLS "+|" BEFORE_WORD CAPITALS "+" SMALLS "*|" ONE_NUMBER "|"     \
    OTHERS "[\\r\\n/]*|" LINE_ENDS "|" SPACES_BEFORE_WORD
#define PATTERN_GPT4O                                                                            \
    BEFORE_WORD CAPITALS "*" SMALLS "+(?:" ENGLISH_ENDING ")?|"                                  \
    BEFORE_WORD CAPITALS "+" SMALLS "*(?:" ENGLISH_ENDING ")?|" PATTERN_3_NUMBERS "|"            \
    OTHERS "[\\r\\n/]*|" LINE_ENDS "|" SPACES_BEFORE_WORD
#define PATTERN_LINE_END "[\\r\\n]"
#define PATTERN_SPACE_LETTERS "[" SPACE "]?" LETTERS
#define PATTERN_SPACE_PUNCTUATION "[" SPACE "]?[" PUNCTUATION "]+"
/* U+0800 to U+9FA5 without its white space, and Hangul. */
#define PATTERN_DEEPSEEK_CJK                                                                     \
    "[\\x{800}-\\x{167F}\\x{1681}-\\x{1FFF}\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}"               \
    "\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}\\x{3001}-\\x{9FA5}\\x{AC00}-\\x{D7FF}]+"
/* The letters that DeepSeek's first models count as words: those with two cases. */
#define PATTERN_DEEPSEEK_LETTERS                                                                 \
    "[" SPACE "]?["                                                                              \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}"               \
    "\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}"       \
    "\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}"                \
    "\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}"                     \
    "\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}"               \
    "\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}"               \
    "\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}"      \
    "\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}"       \
    "\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}"               \
    "\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}"                \
    "\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}"                 \
    "\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}"      \
    "\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}"       \
    "\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}"                \
    "\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}"               \
    "\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}"             \
    "\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}"       \
    "\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"                                                 \
    "]+"
/* The last of it is U+3001 and U+3002: U+3000, where that range began, is white space. */
#define PATTERN_DEEPSEEK_MARKS                                                                   \
    "[" SPACE "]?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}"               \
    "\\x{3001}\\x{3002}]+"
/* A run of spaces at the end, looked at once, from its beginning. */
#define PATTERN_LAST_SPACES "(?<![" SPACE "])[" SPACE "]++\\z"
#define PATTERN_DEEPSEEK3_CJK "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{30FF}]+"
#define PATTERN_DEEPSEEK3                                                                        \
    "[!-/:-@\\[-`{-~][A-Za-z]+|[^\\r\\n" PUNCTUATION SYMBOL LETTER "]?[" MARK LETTER "]+|"       \
    " ?[" PUNCTUATION SYMBOL "]+[\\r\\n]*|" LINE_ENDS "|" SPACES_BEFORE_WORD
#define PATTERN_SEED_CODER                                                                       \
    ENGLISH_ENDING "|" BEFORE_WORD LETTERS "|" ONE_NUMBER "|" OTHERS "|" LINE_ENDS "|"           \
    SPACES_BEFORE_WORD
#define PATTERN_BAILING                                                                          \
    ENGLISH_ENDING "|" BEFORE_WORD LETTERS "|" ONE_NUMBER "|" OTHERS "[\\r\\n]*|"                \
    "[" SPACE "]*[\\r\\n]|" SPACES_BEFORE_WORD
#define PATTERN_BLOOM                                                                            \
    " ?[^(|.,!?)" SPACE "\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C}]+"

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
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
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
    if (start > begin || (matches && level->has_open_gap)) { /* what lies before the match */
        level->has_open_gap = !matches && !ends;
        PI2_TRY(hand_on(cutter, index, begin, start, matches || ends));
    }
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
