/* Goal:   a text in pieces of any size gives the tokens of the whole text, with any window: on the known
 *         vocabularies, with every pre-tokenizer, and with vocabularies whose merges reach far.
 * Method: pi2_whole_encode() is the definition, over the whole text. Random texts (runs, words without an
 *         end, white space of all kinds, special tokens, bytes that are no UTF-8, real text), random cuts,
 *         small windows; random vocabularies of few letters, in which nearly everything merges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fail.h"
#include "support/small_vocabulary.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"
#include "support/whole_tokenizer.h"
#include "tokenizer/tokenizer_internal.h"

static uint64_t random_state = 20261129;

static size_t draw(size_t below) { return (size_t)(pi2_tiny_random(&random_state) % below); }

/* ---- texts ---- */

typedef struct test_text {
    char bytes[40000];
    size_t length;
} test_text;

static void add(test_text *text, const char *bytes, size_t length) {
    if (length > sizeof text->bytes - text->length) length = sizeof text->bytes - text->length;
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
}

static const char *const units[] = {
    "a", "b", "Z", "q", "\xc3\xa9", "\xd1\x8f", "\xd0\xaf", "\xe6\xb1\x89", "\xe5\xad\x97", "\xe3\x80\x81",
    "\xe3\x80\x82", "\xef\xbc\x8c", "1", "7", "\xd9\xa3", " ", " ", "\n", "\r", "\t", "\xe3\x80\x80", "\xc2\xa0", "!",
    "/", "'", "s", "ll", "\xf0\x9f\x98\x80", "\xe2\x80\x8d", "\xcc\x81", "<s>", "</s>", "<|im_end|>",
    "<|endoftext|>", "ing", " the", "=", "-", "$", "^", "\x7f", "\xff", "\xc3", "\xe2\x96", "\xf0\x9f", "\xed\x9e\x82",
    "\xea\xb0\x80", "\xe3\x82\xa2", "\xe3\x81\x82", "(", "\xe2\x96\x81"};
enum { UNITS = sizeof units / sizeof units[0] };

static const char *draw_unit(void) { return units[draw(UNITS)]; }

/** Text of one of six kinds, about `length` bytes. */
static void draw_text(test_text *text, size_t length, const char *real, size_t real_length) {
    const char *few[3];
    const size_t kind = draw(real ? 6 : 5), kinds = 1 + draw(3);
    for (int i = 0; i < 3; i++) few[i] = draw_unit();
    text->length = 0;
    while (text->length < length) {
        const char *unit = kind < 2 ? draw_unit() : few[draw(kinds)];
        if (kind == 5) {
            const size_t from = draw(real_length);
            add(text, real + from, real_length - from < length ? real_length - from : length);
        } else if (kind == 4) {
            const char byte = (char)draw(256);
            add(text, &byte, 1);
        } else { /* runs; words of few characters without an end; anything */
            for (size_t n = kind == 1 ? 1 + draw(draw(3) ? 8 : 700) : 1; n > 0; n--) add(text, unit, strlen(unit));
            if (kind == 3 && draw(400) == 0) add(text, "\n", 1);
        }
    }
}

/* ---- comparing ---- */

typedef struct collected {
    int32_t tokens[65536];
    size_t count;
} collected;

static pi2_status collect(void *context, const int32_t *tokens, size_t count) {
    collected *all = context;
    if (count > 65536 - all->count) return pi2_fail(PI2_ERR_MEMORY, "too many tokens for a test");
    memcpy(all->tokens + all->count, tokens, count * sizeof *tokens);
    all->count += count;
    return PI2_OK;
}

static pi2_status encode_pieces(const pi2_tokenizer *tokenizer, size_t window, size_t most_piece,
                                const pi2_text_segment *segments, size_t count, collected *all) {
    pi2_encoder *encoder;
    all->count = 0;
    pi2_status status = pi2_encoder_create_with(tokenizer, window, collect, all, &encoder);
    for (size_t i = 0; status == PI2_OK && i < count; i++) {
        for (size_t done = 0; status == PI2_OK && done < segments[i].length;) {
            size_t piece = 1 + draw(most_piece);
            if (piece > segments[i].length - done) piece = segments[i].length - done;
            status = pi2_encoder_add(encoder, segments[i].text + done, piece, segments[i].trusted);
            done += piece;
        }
    }
    if (status == PI2_OK) status = pi2_encoder_finish(encoder);
    pi2_encoder_free(encoder);
    return status;
}

/** Compares; false: the encoder refused a word whose merges reach further than it looks. */
static bool check_pieces(const pi2_tokenizer *tokenizer, const test_text *text, size_t window, const char *name) {
    static collected all;
    static const size_t most_pieces[] = {1, 3, 50, 5000, 100000};
    const size_t half = draw(text->length + 1);
    const pi2_text_segment segments[] = {{text->bytes, half, draw(2) == 0},
                                         {text->bytes + half, text->length - half, draw(2) == 0}};
    int32_t *tokens;
    size_t count;
    pi2_whole_encode(tokenizer, segments, 2, &tokens, &count);
    const size_t most_piece = most_pieces[draw(5)];
    const pi2_status status = encode_pieces(tokenizer, window, most_piece, segments, 2, &all);
    if (status != PI2_OK && status != PI2_ERR_UNSUPPORTED) fail_msg("%s: %s", name, pi2_error_text());
    if (status == PI2_OK && (all.count != count || memcmp(all.tokens, tokens, count * sizeof *tokens) != 0)) {
        size_t at = 0;
        while (at < count && at < all.count && tokens[at] == all.tokens[at]) at++;
        fail_msg("%s, window %zu, pieces of %zu: token %zu differs, of %zu and %zu, in '%.60s'", name, window,
                 most_piece, at, all.count, count, text->bytes);
    }
    free(tokens);
    return status == PI2_OK;
}

/* ---- the known vocabularies ---- */

static void check_vocabulary(void **state) {
    const char *name = *state;
    if (!getenv("PI2_TEST_DATA")) skip();
    char path[1024];
    static test_text text;
    size_t real_length;
    (void)snprintf(path, sizeof path, "%s/text/wiki.test.raw", getenv("PI2_TEST_DATA"));
    char *real = (char *)test_file_read(path, &real_length);
    (void)snprintf(path, sizeof path, "%s/vocab/ggml-vocab-%s.gguf", getenv("PI2_TEST_DATA"), name);
    pi2_gguf *gguf;
    pi2_tokenizer *tokenizer;
    if (pi2_gguf_open(path, &gguf) != PI2_OK || pi2_tokenizer_create(gguf, &tokenizer) != PI2_OK) {
        fail_msg("%s", pi2_error_text());
    }
    pi2_gguf_close(gguf);
    for (int i = 0; i < 60; i++) {
        draw_text(&text, 1 + draw(i % 4 ? 3000 : 30000), real, real_length);
        if (!check_pieces(tokenizer, &text, draw(2) ? 1 : 0, name)) fail_msg("%s: %s", name, pi2_error_text());
    }
    pi2_tokenizer_free(tokenizer);
    free(real);
}

/* ---- every pre-tokenizer ---- */

static const char *const pre_tokenizers[] = {
#define PRE_TOKENIZER(name, flags, ...) name,
#include "tokenizer/pre_tokenizers.inc"
#undef PRE_TOKENIZER
};

static void test_every_pre_tokenizer(void **state) {
    (void)state;
    static const pi2_test_token tokens[] = {
        {"<s>", PI2_TEST_CONTROL, 0}, {"</s>", PI2_TEST_CONTROL, 0},  {"\xc4\xa0\xc4\xa0", PI2_TEST_NORMAL, 0},
        {"aa", PI2_TEST_NORMAL, 0},   {"\xc4\xa0""a", PI2_TEST_NORMAL, 0}, {"ss", PI2_TEST_NORMAL, 0},
        {"\xc4\x8a\xc4\x8a", PI2_TEST_NORMAL, 0}, {"11", PI2_TEST_NORMAL, 0}};
    static const char *const merges[] = {"\xc4\xa0 \xc4\xa0", "a a", "\xc4\xa0 a", "s s", "\xc4\x8a \xc4\x8a", "1 1"};
    static test_text text;
    for (size_t i = 0; i < sizeof pre_tokenizers / sizeof pre_tokenizers[0]; i++) {
        const pi2_test_vocabulary vocabulary = {
            .model = "gpt2", .pre = pre_tokenizers[i], .tokens = tokens, .token_count = 8, .with_bytes = true,
            .merges = merges, .merge_count = 6, .bos = 0, .eos = 1};
        pi2_tokenizer *tokenizer = pi2_test_tokenizer(&vocabulary);
        for (int k = 0; k < 25; k++) {
            draw_text(&text, 1 + draw(2000), NULL, 0);
            if (!check_pieces(tokenizer, &text, 1, pre_tokenizers[i])) fail_msg("%s", pi2_error_text());
        }
        pi2_tokenizer_free(tokenizer);
    }
}

/* ---- vocabularies in which nearly everything merges ---- */

enum { RANDOM_TOKENS = 40 };

/** Tokens over two or three letters: each is two earlier ones, so that merges chain; scores or ranks at random. */
static pi2_tokenizer *draw_tokenizer(bool is_spm) {
    static char texts[RANDOM_TOKENS][64], lines[RANDOM_TOKENS][130];
    static pi2_test_token tokens[RANDOM_TOKENS];
    static const char *merges[RANDOM_TOKENS];
    const size_t letters = 2 + draw(2);
    size_t count = 0, merge_count = 0;
    for (; count < letters; count++) {
        (void)snprintf(texts[count], sizeof texts[count], "%c", (char)('a' + count));
        tokens[count] = (pi2_test_token){texts[count], PI2_TEST_NORMAL, 0};
    }
    const size_t most = letters + 1 + draw(RANDOM_TOKENS - letters - 1);
    for (int tries = 0; count < most && tries < 400; tries++) {
        const char *left = texts[draw(count)], *right = texts[draw(count)];
        if (strlen(left) + strlen(right) > 12) continue;
        char joined[64];
        (void)snprintf(joined, sizeof joined, "%s%s", left, right);
        memcpy(texts[count], joined, sizeof joined);
        (void)snprintf(lines[merge_count], sizeof lines[merge_count], "%s %s", left, right);
        bool is_new = true;
        for (size_t i = 0; i < count; i++) is_new = is_new && strcmp(texts[i], texts[count]) != 0;
        merges[merge_count] = lines[merge_count];
        if (is_new || draw(2)) merge_count++;
        if (is_new) tokens[count] = (pi2_test_token){texts[count], PI2_TEST_NORMAL, -(float)draw(8)};
        count += is_new;
        if (merge_count == RANDOM_TOKENS) break;
    }
    for (size_t i = merge_count; i > 1; i--) { /* ranks that no training would give */
        const size_t other = draw(i);
        const char *line = merges[i - 1];
        merges[i - 1] = merges[other];
        merges[other] = line;
    }
    const pi2_test_vocabulary vocabulary = {
        .model = is_spm ? "llama" : "gpt2", .pre = is_spm ? NULL : "gpt-2", .tokens = tokens, .token_count = count,
        .with_bytes = is_spm, .merges = merges, .merge_count = merge_count, .bos = -1, .eos = -1};
    return pi2_test_tokenizer(&vocabulary);
}

static void test_merges_that_reach_far(void **state) {
    (void)state;
    static test_text text;
    size_t refused = 0, checked = 0;
    for (int i = 0; i < 400; i++) {
        pi2_tokenizer *tokenizer = draw_tokenizer(i % 2 == 0);
        for (int k = 0; k < 6; k++) {
            const size_t letters = 1 + draw(3), period = draw(2) ? 1 + draw(5) : 2000;
            for (text.length = 0; text.length < 1200; text.length++) {
                text.bytes[text.length] = text.length < period ? (char)('a' + draw(letters))
                                                               : text.bytes[text.length - period];
            }
            refused += !check_pieces(tokenizer, &text, 1, "random vocabulary");
            checked++;
        }
        pi2_tokenizer_free(tokenizer);
    }
    assert_true(refused * 20 < checked);
}

/* ---- bounds ---- */

static pi2_status count_tokens(void *context, const int32_t *tokens, size_t count) {
    (void)tokens;
    *(size_t *)context += count;
    return PI2_OK;
}

/* A window's memory is enough for words of many megabytes. */
static void test_long_words_take_no_more(void **state) {
    (void)state;
    static const pi2_test_token tokens[] = {{"<s>", PI2_TEST_CONTROL, 0}, {"aa", PI2_TEST_NORMAL, -1},
                                            {"\xe2\x96\x81\xe2\x96\x81", PI2_TEST_NORMAL, -1},
                                            {"aaaa", PI2_TEST_NORMAL, -2}};
    const pi2_test_vocabulary vocabulary = {.model = "llama", .tokens = tokens, .token_count = 4, .with_bytes = true,
                                            .bos = -1, .eos = -1};
    pi2_tokenizer *tokenizer = pi2_test_tokenizer(&vocabulary);
    static char piece[65536];
    for (int letter = 0; letter < 2; letter++) {
        pi2_encoder *encoder;
        size_t count = 0;
        memset(piece, letter ? 'a' : ' ', sizeof piece);
        assert_int_equal(pi2_encoder_create(tokenizer, count_tokens, &count, &encoder), PI2_OK);
        for (int i = 0; i < 16; i++) assert_int_equal(pi2_encoder_add(encoder, piece, sizeof piece, false), PI2_OK);
        assert_true(count > 15 * sizeof piece / 4); /* tokens came while the word went on */
        assert_int_equal(pi2_encoder_finish(encoder), PI2_OK);
        assert_int_equal(count, 16 * sizeof piece / (letter ? 4 : 2));
        pi2_encoder_free(encoder);
    }
    assert_in_range(pi2_encoder_bytes(tokenizer), 1000, 400000);
    pi2_tokenizer_free(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"falcon", check_vocabulary, NULL, NULL, "falcon"},
        {"gpt-2", check_vocabulary, NULL, NULL, "gpt-2"},
        {"llama-bpe", check_vocabulary, NULL, NULL, "llama-bpe"},
        {"llama-spm", check_vocabulary, NULL, NULL, "llama-spm"},
        {"phi-3", check_vocabulary, NULL, NULL, "phi-3"},
        {"qwen2", check_vocabulary, NULL, NULL, "qwen2"},
        cmocka_unit_test(test_every_pre_tokenizer),
        cmocka_unit_test(test_merges_that_reach_far),
        cmocka_unit_test(test_long_words_take_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
