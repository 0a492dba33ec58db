/* Goal:   encoding, special tokens, trust and decoding follow tokenizer.h, for any bytes.
 * Method: vocabularies small enough to work every expected token out by hand. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/small_vocabulary.h"

#define SPACE "\xc4\xa0" /* how byte-level text writes a space */
#define MARK "\xe2\x96\x81" /* how sentencepiece does */

/* ---- the two vocabularies --------------------------------------------------------------- */

enum { END = 0, START, TOOL, AB, ABC, BC, SPACE_A, THE, HE, EIGHT_O, FOUR_O, TWO_O, BYTES };

static const pi2_test_token bpe_tokens[] = {
    { "<|im_end|>", PI2_TEST_CONTROL, 0 },
    { "<|im_start|>", PI2_TEST_CONTROL, 0 },
    { "<tool>", PI2_TEST_USER_DEFINED, 0 },
    { "ab", PI2_TEST_NORMAL, 0 },
    { "abc", PI2_TEST_NORMAL, 0 },
    { "bc", PI2_TEST_NORMAL, 0 },
    { SPACE "a", PI2_TEST_NORMAL, 0 },
    { "the", PI2_TEST_NORMAL, 0 },
    { "he", PI2_TEST_NORMAL, 0 },
    { "oooooooo", PI2_TEST_NORMAL, 0 },
    { "oooo", PI2_TEST_NORMAL, 0 },
    { "oo", PI2_TEST_NORMAL, 0 },
};
static const char *const bpe_merges[] = { "b c",  "a b",       "a bc",  SPACE " a", "h e",
                                          "t he", "o o", "oo oo", "oooo oooo" };

static pi2_test_vocabulary bpe_vocabulary(void) {
    return (pi2_test_vocabulary){ .model = "gpt2",
                                  .pre = "smollm",
                                  .tokens = bpe_tokens,
                                  .token_count = BYTES,
                                  .with_bytes = true,
                                  .merges = bpe_merges,
                                  .merge_count = sizeof bpe_merges / sizeof bpe_merges[0],
                                  .bos = START,
                                  .eos = END };
}

enum { UNK = 0, BOS, EOS, S_T, S_THE, S_HE, S_A, S_B, S_AB, S_MARK, S_MARKS, S_E, S_H, S_TT, S_CHAT,
       S_NAME, SPM_BYTES };

static const pi2_test_token spm_tokens[] = {
    { "<unk>", PI2_TEST_UNKNOWN, 0 },
    { "<s>", PI2_TEST_CONTROL, 0 },
    { "</s>", PI2_TEST_CONTROL, 0 },
    { MARK "t", PI2_TEST_NORMAL, -2 },
    { MARK "the", PI2_TEST_NORMAL, -3 },
    { "he", PI2_TEST_NORMAL, -1 },
    { "a", PI2_TEST_NORMAL, -10 },
    { "b", PI2_TEST_NORMAL, -10 },
    { "ab", PI2_TEST_NORMAL, -4 },
    { MARK, PI2_TEST_NORMAL, -10 },
    { MARK MARK, PI2_TEST_NORMAL, -5 },
    { "e", PI2_TEST_NORMAL, -10 },
    { "h", PI2_TEST_NORMAL, -10 },
    { "t", PI2_TEST_NORMAL, -10 },
    { "<|user|>", PI2_TEST_CONTROL, 0 },
    { "[name]", PI2_TEST_USER_DEFINED, 0 },
};

static pi2_test_vocabulary spm_vocabulary(void) {
    return (pi2_test_vocabulary){ .model = "llama",
                                  .tokens = spm_tokens,
                                  .token_count = SPM_BYTES,
                                  .with_bytes = true,
                                  .add_bos = true,
                                  .add_space_prefix = true,
                                  .bos = BOS,
                                  .eos = EOS };
}

/* ---- checks ------------------------------------------------------------------------------ */

enum { STOP = -1 }; /* ends a list of expected tokens */

static void check_segments(const pi2_tokenizer *tokenizer, const pi2_text_segment *segments,
                           size_t segment_count, bool add_special, const int32_t *expected) {
    int32_t *tokens;
    size_t count, wanted = 0;
    if (pi2_tokenizer_encode(tokenizer, segments, segment_count, add_special, &tokens, &count) !=
        PI2_OK) {
        fail_msg("%s", pi2_error_text());
    }
    while (expected[wanted] != STOP) wanted++;
    for (size_t i = 0; i < count && i < wanted; i++) {
        if (tokens[i] != expected[i]) {
            fail_msg("token %zu is %d, not %d", i, (int)tokens[i], (int)expected[i]);
        }
    }
    assert_int_equal(count, wanted);
    free(tokens);
}

static void check(const pi2_tokenizer *tokenizer, const char *text, bool trusted,
                  const int32_t *expected) {
    const pi2_text_segment segment = { text, strlen(text), trusted };
    check_segments(tokenizer, &segment, 1, false, expected);
}

#define TOKENS(...) ((const int32_t[]){ __VA_ARGS__, STOP })
#define BYTE(byte) (BYTES + (byte))
#define SPM_BYTE(byte) (SPM_BYTES + (byte))

static size_t decode(const pi2_tokenizer *tokenizer, const int32_t *tokens, size_t count,
                     char *text, size_t capacity) {
    pi2_detokenizer detokenizer;
    pi2_detokenizer_reset(&detokenizer, true);
    size_t length = 0;
    for (size_t i = 0; i < count; i++) {
        length += pi2_detokenizer_push(&detokenizer, tokenizer, tokens[i], text + length,
                                       capacity - length);
    }
    return length + pi2_detokenizer_finish(&detokenizer, text + length, capacity - length);
}

/* ---- BPE --------------------------------------------------------------------------------- */

static void test_bpe_merges_by_rank(void **state) {
    (void)state;
    const pi2_test_vocabulary vocabulary = bpe_vocabulary();
    pi2_tokenizer *tokenizer = pi2_test_tokenizer(&vocabulary);
    check(tokenizer, "ab", false, TOKENS(AB));
    check(tokenizer, "abc", false, TOKENS(ABC)); /* "b c" ranks first, then "a bc" */
    check(tokenizer, "abab", false, TOKENS(AB, AB));
    check(tokenizer, "the", false, TOKENS(THE));
    check(tokenizer, "ooo", false, TOKENS(TWO_O, BYTE('o'))); /* leftmost first */
    check(tokenizer, "ooooooooooooooo", false,
          TOKENS(EIGHT_O, FOUR_O, TWO_O, BYTE('o')));
    check(tokenizer, "b a", false, TOKENS(BYTE('b'), SPACE_A));
    check(tokenizer, "b  a", false, TOKENS(BYTE('b'), BYTE(' '), SPACE_A));
    check(tokenizer, "a1b", false, TOKENS(BYTE('a'), BYTE('1'), BYTE('b')));
    check(tokenizer, " 1", false, TOKENS(BYTE(' '), BYTE('1'))); /* digits stand apart */
    check(tokenizer, "\xc3\xa9", false, TOKENS(BYTE(0xc3), BYTE(0xa9)));
    check(tokenizer, "", false, TOKENS(STOP));
    pi2_tokenizer_free(tokenizer);
}

static void test_bpe_reads_invalid_bytes_as_replacement(void **state) {
    (void)state;
    const pi2_test_vocabulary vocabulary = bpe_vocabulary();
    pi2_tokenizer *tokenizer = pi2_test_tokenizer(&vocabulary);
    const int32_t one[] = { BYTE(0xef), BYTE(0xbf), BYTE(0xbd), STOP };
    check(tokenizer, "\xff", false, one);
    check(tokenizer, "\x80", false, one);
    check(tokenizer, "\xc3", false, one);
    check(tokenizer, "\xc3" "ab", false, TOKENS(BYTE(0xef), BYTE(0xbf), BYTE(0xbd), AB));
    check(tokenizer, "\xe2\x82", false, /* a cut character: each of its bytes */
          TOKENS(BYTE(0xef), BYTE(0xbf), BYTE(0xbd), BYTE(0xef), BYTE(0xbf), BYTE(0xbd)));
    const pi2_text_segment zero = { "\0", 1, false };
    check_segments(tokenizer, &zero, 1, false, TOKENS(BYTE(0)));
    pi2_tokenizer_free(tokenizer);
}

static void test_ignore_merges_takes_whole_words(void **state) {
    (void)state;
    pi2_test_vocabulary vocabulary = bpe_vocabulary();
    vocabulary.merge_count = 1; /* "b c" only: "abc" and "the" cannot be merged */
    pi2_tokenizer *tokenizer = pi2_test_tokenizer(&vocabulary);
    check(tokenizer, "abc", false, TOKENS(BYTE('a'), BC));
    pi2_tokenizer_free(tokenizer);
    vocabulary.pre = "llama-bpe";
    tokenizer = pi2_test_tokenizer(&vocabulary);
    check(tokenizer, "abc", false, TOKENS(ABC));
    check(tokenizer, "abc the", false,
          TOKENS(ABC, BYTE(' '), BYTE('t'), BYTE('h'), BYTE('e'))); /* " the" is no token */
    pi2_tokenizer_free(tokenizer);
}

static void test_special_tokens_need_trust(void **state) {
    (void)state;
    const pi2_test_vocabulary vocabulary = bpe_vocabulary();
    pi2_tokenizer *tokenizer = pi2_test_tokenizer(&vocabulary);
    check(tokenizer, "ab<|im_end|>abc", true, TOKENS(AB, END, ABC));
    check(tokenizer, "<|im_start|><|im_end|>", true, TOKENS(START, END));
    check(tokenizer, "<tool>", false, TOKENS(TOOL)); /* user-defined: text like other text */
    int32_t *tokens;
    size_t count;
    const pi2_text_segment untrusted = { "<|im_end|>", 10, false };
    assert_int_equal(pi2_tokenizer_encode(tokenizer, &untrusted, 1, true, &tokens, &count), PI2_OK);
    assert_int_equal(count, 10); /* add_bos is off; ten bytes, no special token */
    for (size_t i = 0; i < count; i++) assert_true(tokens[i] >= BYTES);
    free(tokens);
    /* Split over segments: whole only where both are trusted. */
    const pi2_text_segment both[] = { { "<|im_", 5, true }, { "", 0, false },
                                      { "end|>ab", 7, true } };
    check_segments(tokenizer, both, 3, false, TOKENS(END, AB));
    const pi2_text_segment half[] = { { "<|im_", 5, true }, { "end|>", 5, false } };
    assert_int_equal(pi2_tokenizer_encode(tokenizer, half, 2, false, &tokens, &count), PI2_OK);
    assert_int_equal(count, 10);
    free(tokens);
    /* The text between is one text: words join over segments. */
    const pi2_text_segment chat[] = { { "<|im_start|>a", 13, true }, { "b<|im_start|>", 13, false },
                                      { "<|im_end|>", 10, true } };
    assert_int_equal(pi2_tokenizer_encode(tokenizer, chat, 3, false, &tokens, &count), PI2_OK);
    assert_int_equal(tokens[0], START);
    assert_int_equal(tokens[1], AB);
    assert_int_equal(tokens[count - 1], END);
    for (size_t i = 1; i + 1 < count; i++) assert_true(tokens[i] > START);
    free(tokens);
    pi2_tokenizer_free(tokenizer);
}

static void test_merges_never_make_special_tokens(void **state) {
    (void)state;
    static const pi2_test_token tokens[] = {
        { "ab", PI2_TEST_CONTROL, 0 }, { "xy", PI2_TEST_NORMAL, 0 }, { "</s>", PI2_TEST_NORMAL, 0 }
    };
    static const char *const merges[] = { "a b", "x y" };
    pi2_test_vocabulary vocabulary = bpe_vocabulary();
    vocabulary.tokens = tokens;
    vocabulary.token_count = 3;
    vocabulary.merges = merges;
    vocabulary.merge_count = 2;
    vocabulary.bos = vocabulary.eos = -1;
    vocabulary.pre = "llama-bpe"; /* looks whole words up, too */
    pi2_tokenizer *tokenizer = pi2_test_tokenizer(&vocabulary);
    check(tokenizer, "ab", false, TOKENS(3 + 'a', 3 + 'b'));
    check(tokenizer, "ab", true, TOKENS(0));
    check(tokenizer, "xy", false, TOKENS(1));
    assert_true(pi2_tokenizer_ends_generation(tokenizer, 2)); /* a well-known text */
    assert_int_equal(pi2_tokenizer_bos(tokenizer), -1);
    pi2_tokenizer_free(tokenizer);
}

static void test_longer_special_tokens_match_first(void **state) {
    (void)state;
    static const pi2_test_token tokens[] = {
        { "xx", PI2_TEST_USER_DEFINED, 0 },
        { "xxxx", PI2_TEST_USER_DEFINED, 0 },
        { "axx", PI2_TEST_USER_DEFINED, 0 },
        { "yz", PI2_TEST_CONTROL, 0 },
        { "xy", PI2_TEST_USER_DEFINED, 0 },
    };
    pi2_test_vocabulary vocabulary = bpe_vocabulary();
    vocabulary.tokens = tokens;
    vocabulary.token_count = 5;
    vocabulary.merge_count = 0;
    vocabulary.bos = vocabulary.eos = -1;
    pi2_tokenizer *tokenizer = pi2_test_tokenizer(&vocabulary);
    check(tokenizer, "xxxxxxx", false, TOKENS(1, 0, 5 + 'x'));
    check(tokenizer, "axxxx", false, TOKENS(5 + 'a', 1)); /* the longest, not the leftmost */
    check(tokenizer, "axxx", false, TOKENS(2, 5 + 'x'));
    check(tokenizer, "xyz", false, TOKENS(4, 5 + 'z'));
    pi2_tokenizer_free(tokenizer);
}

static void test_pre_tokenizers(void **state) {
    (void)state;
    /* Every merge of this vocabulary joins across a place that some pattern cuts. */
    static const pi2_test_token tokens[] = {
        { "12", 1, 0 }, { "123", 1, 0 }, { "1234", 1, 0 }, { "aB", 1, 0 }, { "'s", 1, 0 },
        { "'S", 1, 0 }, { "!\xc4\x8a", 1, 0 }, { ".a", 1, 0 }, { SPACE SPACE, 1, 0 },
        { "a\xc3\xb0", 1, 0 }, { "!\xc3\xb0", 1, 0 },
    };
    static const char *const merges[] = { "1 2",  "12 3",       "123 4", "a B", "' s",
                                          "' S", "! \xc4\x8a", ". a",   SPACE " " SPACE, "a \xc3\xb0", "! \xc3\xb0" };
    const int base = 11;
    const struct pre_case {
        const char *pre, *text;
        int32_t expected[6];
    } cases[] = {
        { "gpt-2", "1234", { 2, STOP } },
        { "smollm", "1234", { base + '1', base + '2', base + '3', base + '4', STOP } },
        { "qwen2", "1234", { base + '1', base + '2', base + '3', base + '4', STOP } },
        { "llama-bpe", "1234", { 1, base + '4', STOP } },
        { "falcon", "1234", { 1, base + '4', STOP } },
        { "default", "1234", { 1, base + '4', STOP } },
        { "gpt-2", "aB", { 3, STOP } },
        { "tekken", "aB", { base + 'a', base + 'B', STOP } },
        { "gpt-4o", "aB", { base + 'a', base + 'B', STOP } },
        { "gpt-2", "a's", { base + 'a', 4, STOP } },
        { "gpt-2", "a'S", { base + 'a', base + '\'', base + 'S', STOP } },
        { "llama-bpe", "a'S", { base + 'a', 5, STOP } },
        { "gpt-2", "!\n", { base + '!', base + '\n', STOP } },
        { "qwen2", "!\n", { 6, STOP } },
        { "gpt-2", ".a", { base + '.', base + 'a', STOP } },
        { "qwen2", ".a", { 7, STOP } },
        { "gpt-2", "  ", { 8, STOP } },
        { "gpt-2", "  b", { base + ' ', base + ' ', base + 'b', STOP } },
        { "deepseek-v3", "1234", { 1, base + '4', STOP } },
        { "deepseek-coder", "1234", { base + '1', base + '2', base + '3', base + '4', STOP } },
        { "bloom", "1234", { 2, STOP } },
        /* U+2EBF0 is a letter since Unicode 15.1, whatever the installed PCRE2 knows. */
        { "gpt-2", "a\xf0\xae\xaf\xb0", { 9, base + 0xae, base + 0xaf, base + 0xb0, STOP } },
        { "gpt-2", "!\xf0\xae\xaf\xb0",
          { base + '!', base + 0xf0, base + 0xae, base + 0xaf, base + 0xb0, STOP } },
    };
    pi2_test_vocabulary vocabulary = bpe_vocabulary();
    vocabulary.tokens = tokens;
    vocabulary.token_count = 11;
    vocabulary.merges = merges;
    vocabulary.merge_count = 11;
    vocabulary.bos = vocabulary.eos = -1;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vocabulary.pre = cases[i].pre;
        pi2_tokenizer *tokenizer = pi2_test_tokenizer(&vocabulary);
        print_message("%s: %s\n", cases[i].pre, cases[i].text);
        check(tokenizer, cases[i].text, false, cases[i].expected);
        pi2_tokenizer_free(tokenizer);
    }
}

/* jais-2 cuts white space into 512, 256, 128 ... 2, 1: 1103 spaces before a letter are 512 512 64 8 4 2 and its own. In
 * one word four and two spaces would merge to six. */
static void test_counted_spaces(void **state) {
    (void)state;
    static const pi2_test_token tokens[] = {
        { SPACE SPACE, 1, 0 }, { SPACE SPACE SPACE SPACE, 1, 0 },
        { SPACE SPACE SPACE SPACE SPACE SPACE, 1, 0 } };
    static const char *const merges[] = { SPACE " " SPACE, SPACE SPACE " " SPACE SPACE,
                                          SPACE SPACE SPACE SPACE " " SPACE SPACE };
    pi2_test_vocabulary vocabulary = bpe_vocabulary();
    vocabulary.pre = "jais-2";
    vocabulary.tokens = tokens;
    vocabulary.token_count = 3;
    vocabulary.merges = merges;
    vocabulary.merge_count = 3;
    vocabulary.bos = vocabulary.eos = -1;
    pi2_tokenizer *tokenizer = pi2_test_tokenizer(&vocabulary);
    enum { SPACES = 1103, FOURS = (512 + 512 + 64 + 8 + 4) / 4 };
    char text[SPACES + 2];
    memset(text, ' ', SPACES);
    memcpy(text + SPACES, "a", 2);
    int32_t expected[FOURS + 4];
    for (int i = 0; i < FOURS; i++) expected[i] = 1;
    memcpy(expected + FOURS, TOKENS(0, 3 + ' ', 3 + 'a'), 4 * sizeof *expected);
    check(tokenizer, text, false, expected);
    pi2_tokenizer_free(tokenizer);
}

/* Gemma 4: merges over characters and whole lines, a space is U+2581, line ends stay whole, other bytes are <0xHH>. */
static void test_bpe_of_characters(void **state) {
    (void)state;
    static const pi2_test_token tokens[] = {
        { "<bos>", PI2_TEST_CONTROL, 0 }, { "a", 1, 0 }, { "b", 1, 0 }, { MARK, 1, 0 }, { MARK MARK, 1, 0 },
        { "b" MARK, 1, 0 }, { "ab" MARK, 1, 0 }, { "\n", 1, 0 }, { "\n\n", 1, 0 }, { "\xc3\xa9", 1, 0 },
        { "ab", 1, 0 }, { "a\xc3\xa9", 1, 0 }, { "<t>", PI2_TEST_USER_DEFINED, 0 },
    };
    static const char *const merges[] = { MARK " " MARK, "b " MARK, "a b" MARK, "a b", "a \xc3\xa9" };
    enum { COUNT = sizeof tokens / sizeof tokens[0], FIRST_BYTE = COUNT };
    const pi2_test_vocabulary vocabulary = {
        .model = "gemma4", .tokens = tokens, .token_count = COUNT, .with_bytes = true, .merges = merges,
        .merge_count = 5, .bos = 0, .eos = -1 };
    pi2_tokenizer *tokenizer = pi2_test_tokenizer(&vocabulary);
    check(tokenizer, "ab a", false, TOKENS(6, 1));      /* over a space, and none is put before it */
    check(tokenizer, "ab" MARK "a", false, TOKENS(6, 1));
    check(tokenizer, "b  a", false, TOKENS(2, 4, 1));   /* two spaces merge first */
    check(tokenizer, "a\n\nb", false, TOKENS(1, 8, 2));
    check(tokenizer, "a\n\n\nb", false, TOKENS(1, 7, 7, 7, 2)); /* three are no token, and no merge makes two */
    check(tokenizer, "a\xc3\xa9<t>b", false, TOKENS(11, 12, 2));
    check(tokenizer, "\xe6\xbc\xa2x", false,
          TOKENS(FIRST_BYTE + 0xe6, FIRST_BYTE + 0xbc, FIRST_BYTE + 0xa2, FIRST_BYTE + 'x'));
    check(tokenizer, "\xff", false, TOKENS(FIRST_BYTE + 0xef, FIRST_BYTE + 0xbf, FIRST_BYTE + 0xbd));
    check(tokenizer, "<bos>", true, TOKENS(0));
    assert_true(pi2_tokenizer_adds_bos(tokenizer)); /* though add_bos_token is false */
    char text[64];
    const size_t length = decode(tokenizer, TOKENS(6, 1, 8, FIRST_BYTE + 0xc3, FIRST_BYTE + 0xa9, 4), 6, text, 64);
    assert_int_equal(length, 10);
    assert_memory_equal(text, "ab a\n\n\xc3\xa9  ", 10);
    pi2_tokenizer_free(tokenizer);
    /* Some converters call it "llama": its merges tell. */
    pi2_test_vocabulary other = vocabulary;
    other.model = "llama";
    other.pre = "gemma4";
    other.add_space_prefix = true;
    tokenizer = pi2_test_tokenizer(&other);
    check(tokenizer, "ab a", false, TOKENS(6, 1));
    check(tokenizer, "b  a", false, TOKENS(2, 4, 1));
    pi2_tokenizer_free(tokenizer);
}

/* ---- SPM --------------------------------------------------------------------------------- */

static void test_spm_merges_by_score(void **state) {
    (void)state;
    const pi2_test_vocabulary vocabulary = spm_vocabulary();
    pi2_tokenizer *tokenizer = pi2_test_tokenizer(&vocabulary);
    check(tokenizer, "the", false, TOKENS(S_THE)); /* a space stands before the text */
    check(tokenizer, "the the", false, TOKENS(S_THE, S_THE));
    check(tokenizer, "hehe", false, TOKENS(S_MARK, S_HE, S_HE));
    check(tokenizer, "ab", false, TOKENS(S_MARK, S_AB));
    check(tokenizer, "a  b", false, TOKENS(S_MARK, S_A, S_MARKS, S_B));
    check(tokenizer, "a" MARK "b", false, TOKENS(S_MARK, S_A, S_MARK, S_B)); /* is a space */
    check(tokenizer, "z", false, TOKENS(S_MARK, SPM_BYTE('z')));
    check(tokenizer, "\xf0\x9f\x98\x80", false,
          TOKENS(S_MARK, SPM_BYTE(0xf0), SPM_BYTE(0x9f), SPM_BYTE(0x98), SPM_BYTE(0x80)));
    check(tokenizer, "\xff", false, TOKENS(S_MARK, SPM_BYTE(0xff)));
    /* A stray lead byte takes what follows with it, the bytes of a space's mark included. */
    check(tokenizer, "\xf0 a", false,
          TOKENS(S_MARK, SPM_BYTE(0xf0), SPM_BYTE(0xe2), SPM_BYTE(0x96), SPM_BYTE(0x81), S_A));
    check(tokenizer, "\xc3 a", false,
          TOKENS(S_MARK, SPM_BYTE(0xc3), SPM_BYTE(0xe2), SPM_BYTE(0x96), SPM_BYTE(0x81), S_A));
    check(tokenizer, "<s>", false,
          TOKENS(S_MARK, SPM_BYTE('<'), SPM_BYTE('s'), SPM_BYTE('>')));
    pi2_tokenizer_free(tokenizer);
}

/* Of pairs with one score the left one merges first, and 0 is -0. */
static void test_spm_equal_scores(void **state) {
    (void)state;
    enum { E_C = 5, E_AB, E_BC, E_BYTES };
    static const pi2_test_token tokens[] = {
        { "<unk>", PI2_TEST_UNKNOWN, 0 }, { "<s>", PI2_TEST_CONTROL, 0 }, { "</s>", PI2_TEST_CONTROL, 0 },
        { "a", PI2_TEST_NORMAL, -10 },    { "b", PI2_TEST_NORMAL, -10 },  { "c", PI2_TEST_NORMAL, -10 },
        { "ab", PI2_TEST_NORMAL, -0.0f }, { "bc", PI2_TEST_NORMAL, 0.0f },
    };
    const pi2_test_vocabulary vocabulary = { .model = "llama", .tokens = tokens, .token_count = E_BYTES,
                                             .with_bytes = true, .bos = BOS, .eos = EOS };
    pi2_tokenizer *tokenizer = pi2_test_tokenizer(&vocabulary);
    check(tokenizer, "abc", false, TOKENS(E_AB, E_C));
    check(tokenizer, "abcbc", false, TOKENS(E_AB, E_C, E_BC));
    pi2_tokenizer_free(tokenizer);
}

static void test_spm_spaces_around_special_tokens(void **state) {
    (void)state;
    pi2_test_vocabulary vocabulary = spm_vocabulary();
    pi2_tokenizer *tokenizer = pi2_test_tokenizer(&vocabulary);
    check(tokenizer, "<|user|>the", true, TOKENS(S_CHAT, S_THE));
    check(tokenizer, "<|user|> ab", true, TOKENS(S_CHAT, S_MARKS, S_AB));
    check(tokenizer, "[name]ab", false, TOKENS(S_NAME, S_MARK, S_AB));
    const pi2_text_segment segment = { "the", 3, false };
    check_segments(tokenizer, &segment, 1, true, TOKENS(BOS, S_THE));
    check_segments(tokenizer, NULL, 0, true, TOKENS(BOS));
    check_segments(tokenizer, NULL, 0, false, TOKENS(STOP));
    pi2_tokenizer_free(tokenizer);
    vocabulary.add_space_prefix = false;
    vocabulary.add_bos = false;
    vocabulary.add_eos = true;
    tokenizer = pi2_test_tokenizer(&vocabulary);
    assert_false(pi2_tokenizer_adds_bos(tokenizer));
    check_segments(tokenizer, &segment, 1, true, TOKENS(S_TT, S_HE)); /* a prompt does not end */
    assert_true(pi2_tokenizer_adds_eos(tokenizer));
    pi2_tokenizer_free(tokenizer);
    vocabulary.name = "Phi-3-mini"; /* its special tokens take the white space after them */
    tokenizer = pi2_test_tokenizer(&vocabulary);
    check(tokenizer, "<|user|> \n\tab", true, TOKENS(S_CHAT, S_AB));
    check(tokenizer, "<s> ab", true, TOKENS(BOS, S_MARK, S_AB));
    pi2_tokenizer_free(tokenizer);
}

/** A token with a space inside it forbids cutting the text at spaces. */
static void test_spm_tokens_over_spaces(void **state) {
    (void)state;
    static const pi2_test_token tokens[] = {
        { "<unk>", PI2_TEST_UNKNOWN, 0 }, { "a", 1, -3 }, { "b", 1, -3 }, { MARK, 1, -3 },
        { MARK "b", 1, -1 }, { "a" MARK "b", 1, -2 }, { "a" MARK, 1, -0.5f },
    };
    pi2_test_vocabulary vocabulary = spm_vocabulary();
    vocabulary.tokens = tokens;
    vocabulary.token_count = 6;
    vocabulary.add_space_prefix = false;
    vocabulary.bos = vocabulary.eos = -1;
    pi2_tokenizer *tokenizer = pi2_test_tokenizer(&vocabulary);
    check(tokenizer, "a b", false, TOKENS(5));
    pi2_tokenizer_free(tokenizer);
    vocabulary.token_count = 7;
    tokenizer = pi2_test_tokenizer(&vocabulary);
    check(tokenizer, "a b b", false, TOKENS(5, 4)); /* "a " first, and then "a b" */
    pi2_tokenizer_free(tokenizer);
}

/* ---- large and hostile text ---------------------------------------------------------------- */

static void check_long(const pi2_tokenizer *tokenizer, const char *pattern, size_t length,
                       size_t expected_count) {
    char *text = malloc(length);
    assert_non_null(text);
    const size_t period = strlen(pattern);
    for (size_t i = 0; i < length; i++) text[i] = pattern[i % period];
    const pi2_text_segment segment = { text, length, true };
    int32_t *tokens;
    size_t count;
    assert_int_equal(pi2_tokenizer_encode(tokenizer, &segment, 1, false, &tokens, &count), PI2_OK);
    assert_int_equal(count, expected_count);
    free(tokens);
    free(text);
}

/** A quadratic step would take minutes here. */
static void test_long_runs(void **state) {
    (void)state;
    enum { LENGTH = 1 << 20 };
    const pi2_test_vocabulary bpe = bpe_vocabulary(), spm = spm_vocabulary();
    pi2_tokenizer *tokenizer = pi2_test_tokenizer(&bpe);
    check_long(tokenizer, "o", LENGTH, LENGTH / 8);
    check_long(tokenizer, " ", LENGTH, LENGTH);
    check_long(tokenizer, "\n", LENGTH, LENGTH);
    check_long(tokenizer, "7", LENGTH, LENGTH);
    check_long(tokenizer, "<|im_end|", LENGTH - LENGTH % 9, LENGTH - LENGTH % 9);
    check_long(tokenizer, "<|im_end|>", LENGTH - LENGTH % 10, LENGTH / 10);
    check_long(tokenizer, "\xff", LENGTH / 4, LENGTH / 4 * 3);
    pi2_tokenizer_free(tokenizer);
    tokenizer = pi2_test_tokenizer(&spm);
    check_long(tokenizer, "a", LENGTH, LENGTH + 1);
    check_long(tokenizer, "ab", LENGTH, LENGTH / 2 + 1);
    check_long(tokenizer, " ", LENGTH - 1, LENGTH / 2);
    check_long(tokenizer, "\xf0 ", LENGTH / 4, LENGTH / 8 * 4 + 1);
    pi2_tokenizer_free(tokenizer);
    pi2_test_vocabulary other = bpe_vocabulary();
    static const char *const names[] = { "llama-bpe", "qwen2", "gpt-4o", "tekken", "deepseek-v3",
                                         "deepseek-llm", "default", "falcon", "bailingmoe", "bloom" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        other.pre = names[i];
        tokenizer = pi2_test_tokenizer(&other);
        check_long(tokenizer, " ", LENGTH / 4, LENGTH / 4);
        check_long(tokenizer, "A", LENGTH / 4, LENGTH / 4);
        check_long(tokenizer, "\xc3\x80" "AAAAAAAAAA", LENGTH / 4 / 12 * 12, LENGTH / 4 / 12 * 12);
        check_long(tokenizer, "'", LENGTH / 4, LENGTH / 4);
        pi2_tokenizer_free(tokenizer);
    }
}

static void test_random_bytes(void **state) {
    (void)state;
    const pi2_test_vocabulary bpe = bpe_vocabulary(), spm = spm_vocabulary();
    pi2_tokenizer *tokenizers[] = { pi2_test_tokenizer(&bpe), pi2_test_tokenizer(&spm) };
    static const char alphabet[] = "abc the<|im_end|>12\n \xe2\x96\x81\xf0\xff\xc3\xa9'";
    uint32_t random = 1;
    for (int round = 0; round < 2000; round++) {
        char text[64];
        size_t length = 0;
        while (length < sizeof text) {
            random = random * 1664525u + 1013904223u;
            text[length++] = round % 2 ? (char)(random >> 24)
                                       : alphabet[(random >> 8) % (sizeof alphabet - 1)];
        }
        const size_t half = (random >> 16) % sizeof text;
        const pi2_text_segment segments[] = { { text, half, round % 3 == 0 },
                                              { text + half, sizeof text - half, round % 3 == 1 } };
        for (int i = 0; i < 2; i++) {
            int32_t *tokens;
            size_t count;
            char decoded[1024];
            const pi2_status status =
                pi2_tokenizer_encode(tokenizers[i], segments, 2, true, &tokens, &count);
            assert_int_equal(status, PI2_OK);
            for (size_t t = 0; t < count; t++) {
                assert_in_range(tokens[t], 0, pi2_tokenizer_vocabulary_size(tokenizers[i]) - 1);
            }
            (void)decode(tokenizers[i], tokens, count, decoded, sizeof decoded);
            free(tokens);
        }
    }
    pi2_tokenizer_free(tokenizers[0]);
    pi2_tokenizer_free(tokenizers[1]);
}

/** Encodes the same text again and again; returns the tokenizer if it always gave the same. */
static void *encode_often(void *context) {
    const pi2_tokenizer *tokenizer = context;
    const pi2_text_segment segment = { "ab<|im_end|>abc the 12 oooo", 27, true };
    for (int i = 0; i < 200; i++) {
        int32_t *tokens;
        size_t count;
        if (pi2_tokenizer_encode(tokenizer, &segment, 1, true, &tokens, &count) != PI2_OK) {
            return NULL;
        }
        const bool right = count > 3 && tokens[0] == AB && tokens[1] == END && tokens[2] == ABC;
        free(tokens);
        if (!right) return NULL;
    }
    return context;
}

static void test_threads_share_a_tokenizer(void **state) {
    (void)state;
    const pi2_test_vocabulary vocabulary = bpe_vocabulary();
    pi2_tokenizer *tokenizer = pi2_test_tokenizer(&vocabulary);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, tokenizer), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *result;
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_ptr_equal(result, tokenizer);
    }
    pi2_tokenizer_free(tokenizer);
}

/* ---- decoding ---------------------------------------------------------------------------- */

static void check_decoded(const pi2_tokenizer *tokenizer, const int32_t *tokens,
                          const char *expected) {
    char text[256];
    size_t count = 0;
    while (tokens[count] != STOP) count++;
    const size_t length = decode(tokenizer, tokens, count, text, sizeof text);
    assert_int_equal(length, strlen(expected));
    assert_memory_equal(text, expected, length);
}

static void test_decoding(void **state) {
    (void)state;
    const pi2_test_vocabulary bpe = bpe_vocabulary(), spm = spm_vocabulary();
    pi2_tokenizer *tokenizer = pi2_test_tokenizer(&bpe);
    check_decoded(tokenizer, TOKENS(SPACE_A, START, ABC, TOOL, END), " aabc<tool>");
    check_decoded(tokenizer, TOKENS(BYTE(0xc3), BYTE(0xa9)), "\xc3\xa9");
    check_decoded(tokenizer, TOKENS(BYTE(0xc3), AB), "\xef\xbf\xbd" "ab");
    check_decoded(tokenizer, TOKENS(BYTE(0xff), BYTE(0x80)), "\xef\xbf\xbd\xef\xbf\xbd");
    check_decoded(tokenizer, TOKENS(BYTE(0xe2), BYTE(0x82)), "\xef\xbf\xbd"); /* cut at the end */
    check_decoded(tokenizer, TOKENS(BYTE(0xe0), BYTE(0x80)), "\xef\xbf\xbd\xef\xbf\xbd");
    check_decoded(tokenizer, TOKENS(BYTE(0xed), BYTE(0xa0), BYTE(0x80)),
                  "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* a surrogate */
    check_decoded(tokenizer, TOKENS(1 << 30), "");
    size_t length;
    (void)pi2_tokenizer_piece(tokenizer, END, false, &length);
    assert_int_equal(length, 0);
    assert_memory_equal(pi2_tokenizer_piece(tokenizer, END, true, &length), "<|im_end|>", 10);
    assert_int_equal(length, 10);
    pi2_tokenizer_free(tokenizer);
    tokenizer = pi2_test_tokenizer(&spm);
    check_decoded(tokenizer, TOKENS(BOS, S_THE, S_THE, S_NAME), "the the[name]");
    check_decoded(tokenizer, TOKENS(S_MARKS, S_A, SPM_BYTE('z')), " az");
    pi2_detokenizer detokenizer;
    char text[64];
    pi2_detokenizer_reset(&detokenizer, false); /* going on: the space stays */
    length = pi2_detokenizer_push(&detokenizer, tokenizer, S_THE, text, sizeof text);
    assert_int_equal(length, 4);
    assert_memory_equal(text, " the", 4);
    pi2_tokenizer_free(tokenizer);
}

/** Each push ends at the end of a character; a buffer too small is never overrun. */
static void test_stream_never_splits_a_character(void **state) {
    (void)state;
    const pi2_test_vocabulary vocabulary = bpe_vocabulary();
    pi2_tokenizer *tokenizer = pi2_test_tokenizer(&vocabulary);
    static const char text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z";
    static const size_t expected[] = { 1, 0, 2, 0, 0, 3, 0, 0, 0, 4, 1 };
    pi2_detokenizer detokenizer;
    pi2_detokenizer_reset(&detokenizer, true);
    for (size_t i = 0; i < sizeof text - 1; i++) {
        char out[16];
        assert_int_equal(pi2_detokenizer_push(&detokenizer, tokenizer,
                                              BYTE((unsigned char)text[i]), out, sizeof out),
                         expected[i]);
    }
    char guarded[4] = { 0, 0, 0, 'x' };
    assert_int_equal(pi2_detokenizer_push(&detokenizer, tokenizer, EIGHT_O, guarded, 3), 3);
    assert_int_equal(guarded[3], 'x');
    assert_int_equal(pi2_detokenizer_finish(&detokenizer, guarded, 0), 0);
    pi2_tokenizer_free(tokenizer);
}

static void test_ends_of_generation(void **state) {
    (void)state;
    static const pi2_test_token tokens[] = {
        { "<|endoftext|>", PI2_TEST_NORMAL, 0 }, { "<|end|>", PI2_TEST_CONTROL, 0 },
        { "<|return|>", PI2_TEST_CONTROL, 0 },   { "<|call|>", PI2_TEST_CONTROL, 0 },
        { "<|channel|>", PI2_TEST_CONTROL, 0 },  { "<|other|>", PI2_TEST_CONTROL, 0 },
        { "fin", PI2_TEST_CONTROL, 0 },          { "[e~[", PI2_TEST_CONTROL, 0 },
        { "<|prefix|>", PI2_TEST_NORMAL, 0 },
    };
    pi2_test_vocabulary vocabulary = bpe_vocabulary();
    vocabulary.tokens = tokens;
    vocabulary.token_count = 9;
    vocabulary.merge_count = 0;
    vocabulary.bos = -1;
    vocabulary.eos = 6;
    pi2_tokenizer *tokenizer = pi2_test_tokenizer(&vocabulary);
    static const bool ends[] = { true, false, true, true, false, false, true, true, false };
    for (int32_t token = 0; token < 9; token++) {
        assert_int_equal(pi2_tokenizer_ends_generation(tokenizer, token), ends[token]);
    }
    assert_false(pi2_tokenizer_ends_generation(tokenizer, -1));
    assert_false(pi2_tokenizer_ends_generation(tokenizer, INT32_MAX));
    size_t length; /* gpt-oss's channels are shown, but no user can write one */
    (void)pi2_tokenizer_piece(tokenizer, 4, false, &length);
    assert_int_equal(length, 11);
    check(tokenizer, "<|channel|>", true, TOKENS(4));
    int32_t *list;
    size_t count;
    const pi2_text_segment untrusted = { "<|channel|>", 11, false };
    assert_int_equal(pi2_tokenizer_encode(tokenizer, &untrusted, 1, false, &list, &count), PI2_OK);
    assert_int_equal(count, 11);
    free(list);
    assert_int_equal(pi2_tokenizer_eos(tokenizer), 6);
    pi2_tokenizer_free(tokenizer);
    vocabulary.token_count = 2; /* without <|return|>, <|end|> does end */
    vocabulary.eos = -1;
    tokenizer = pi2_test_tokenizer(&vocabulary);
    assert_true(pi2_tokenizer_ends_generation(tokenizer, 1));
    pi2_tokenizer_free(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bpe_merges_by_rank),
        cmocka_unit_test(test_bpe_reads_invalid_bytes_as_replacement),
        cmocka_unit_test(test_ignore_merges_takes_whole_words),
        cmocka_unit_test(test_special_tokens_need_trust),
        cmocka_unit_test(test_merges_never_make_special_tokens),
        cmocka_unit_test(test_longer_special_tokens_match_first),
        cmocka_unit_test(test_pre_tokenizers),
        cmocka_unit_test(test_bpe_of_characters),
        cmocka_unit_test(test_counted_spaces),
        cmocka_unit_test(test_spm_merges_by_score),
        cmocka_unit_test(test_spm_equal_scores),
        cmocka_unit_test(test_spm_spaces_around_special_tokens),
        cmocka_unit_test(test_spm_tokens_over_spaces),
        cmocka_unit_test(test_long_runs),
        cmocka_unit_test(test_random_bytes),
        cmocka_unit_test(test_threads_share_a_tokenizer),
        cmocka_unit_test(test_decoding),
        cmocka_unit_test(test_stream_never_splits_a_character),
        cmocka_unit_test(test_ends_of_generation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
