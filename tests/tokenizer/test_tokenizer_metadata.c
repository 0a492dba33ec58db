/* Goal:   tokenizer metadata that does not follow the format is refused in one line that names
 *         the key, and never read past its end.
 * Method: a good vocabulary, then one change at a time; the message must name what is wrong. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/small_vocabulary.h"

/** The parts of a vocabulary; each test changes some. */
typedef struct parts {
    const char *model, *pre;
    const char *texts[4];
    uint32_t token_type;            /* element type of the tokens array: 8 is a string */
    uint32_t types[4], type_count;
    uint32_t type_type;
    float scores[4];
    uint32_t score_count, score_type;
    const char *merge;              /* NULL: no merges key */
    bool merges_are_numbers;
    const char *id_key;             /* NULL: none */
    uint32_t id;
    bool id_is_listed;              /* in an array that has no more */
} parts;

static parts good_parts(const char *model) {
    const parts good = { .model = model,
                         .pre = "gpt-2",
                         .texts = { "a", "b", "ab", "<|end|>" },
                         .token_type = PI2_TEST_GGUF_STRING,
                         .types = { 1, 1, 1, 3 },
                         .type_count = 4,
                         .type_type = PI2_TEST_GGUF_I32,
                         .score_count = 4,
                         .score_type = PI2_TEST_GGUF_F32,
                         .merge = "a b" };
    return good;
}

static void add_text(pi2_test_bytes *bytes, const char *text) {
    pi2_test_bytes_add_u64(bytes, strlen(text));
    pi2_test_bytes_add(bytes, text, strlen(text));
}

static void add_arrays(const parts *p, pi2_gguf_builder *builder) {
    pi2_test_bytes texts = { 0 }, types = { 0 }, scores = { 0 }, merges = { 0 };
    for (int i = 0; i < 4; i++) {
        if (p->token_type == PI2_TEST_GGUF_STRING) add_text(&texts, p->texts[i]);
        else pi2_test_bytes_add_u32(&texts, 0);
    }
    for (uint32_t i = 0; i < p->type_count; i++) pi2_test_bytes_add_u32(&types, p->types[i]);
    for (uint32_t i = 0; i < p->score_count; i++) pi2_test_bytes_add_f32(&scores, p->scores[i]);
    if (p->merges_are_numbers) pi2_test_bytes_add_u32(&merges, 1);
    else if (p->merge) add_text(&merges, p->merge);
    pi2_gguf_builder_array(builder, "tokenizer.ggml.tokens", p->token_type, 4, &texts);
    pi2_gguf_builder_array(builder, "tokenizer.ggml.token_type", p->type_type, p->type_count,
                           &types);
    pi2_gguf_builder_array(builder, "tokenizer.ggml.scores", p->score_type, p->score_count,
                           &scores);
    if (p->merge) {
        pi2_gguf_builder_array(builder, "tokenizer.ggml.merges",
                               p->merges_are_numbers ? PI2_TEST_GGUF_U32 : PI2_TEST_GGUF_STRING,
                               1, &merges);
    }
    pi2_test_bytes_free(&texts);
    pi2_test_bytes_free(&types);
    pi2_test_bytes_free(&scores);
    pi2_test_bytes_free(&merges);
}

static pi2_status make(const parts *p, pi2_tokenizer **tokenizer_out) {
    pi2_gguf_builder builder;
    pi2_gguf_builder_init(&builder);
    pi2_gguf_builder_string(&builder, "general.architecture", "llama");
    if (p->model) pi2_gguf_builder_string(&builder, "tokenizer.ggml.model", p->model);
    if (p->pre) pi2_gguf_builder_string(&builder, "tokenizer.ggml.pre", p->pre);
    add_arrays(p, &builder);
    if (p->id_key && p->id_is_listed) {
        pi2_test_bytes bytes = { 0 };
        pi2_test_bytes_add_u32(&bytes, p->id);
        pi2_gguf_builder_array(&builder, p->id_key, PI2_TEST_GGUF_I32, 1, &bytes);
        pi2_test_bytes_free(&bytes);
    } else if (p->id_key) {
        pi2_gguf_builder_u32(&builder, p->id_key, p->id);
    }
    const pi2_status status = pi2_test_tokenizer_from(&builder, tokenizer_out);
    pi2_gguf_builder_free(&builder);
    return status;
}

static void expect(const parts *p, pi2_status expected, const char *word) {
    pi2_tokenizer *tokenizer;
    const pi2_status status = make(p, &tokenizer);
    if (status != expected) {
        fail_msg("%s: status %d (%s)", word, (int)status, status ? pi2_error_text() : "");
    }
    if (status == PI2_OK) {
        pi2_tokenizer_free(tokenizer);
        return;
    }
    assert_null(tokenizer);
    const char *file = strstr(pi2_error_text(), ".gguf");
    if (!strstr(pi2_error_text(), word) || !file || strstr(file + 1, ".gguf")) {
        fail_msg("'%s' does not name '%s' and the file, once", pi2_error_text(), word);
    }
    assert_null(strchr(pi2_error_text(), '\n'));
}

static void test_good_ones(void **state) {
    (void)state;
    parts p = good_parts("gpt2");
    expect(&p, PI2_OK, "");
    p.pre = NULL; /* the default pre-tokenizer */
    expect(&p, PI2_OK, "");
    p = good_parts("llama");
    p.merge = NULL;
    expect(&p, PI2_OK, "");
}

static void test_unknown_kinds(void **state) {
    (void)state;
    parts p = good_parts("bert");
    expect(&p, PI2_ERR_UNSUPPORTED, "'bert'");
    p = good_parts("gpt2");
    p.pre = "gpt-99\n";
    expect(&p, PI2_ERR_UNSUPPORTED, "'gpt-99?'");
    p.pre = "";
    expect(&p, PI2_ERR_UNSUPPORTED, "tokenizer.ggml.pre");
    p.model = NULL;
    expect(&p, PI2_ERR_FORMAT, "tokenizer.ggml.model");
}

static void test_arrays(void **state) {
    (void)state;
    parts p = good_parts("gpt2");
    p.token_type = PI2_TEST_GGUF_U32;
    expect(&p, PI2_ERR_FORMAT, "tokenizer.ggml.tokens");
    p = good_parts("gpt2");
    p.type_count = 3;
    expect(&p, PI2_ERR_FORMAT, "tokenizer.ggml.token_type");
    p = good_parts("gpt2");
    p.type_type = PI2_TEST_GGUF_F32;
    expect(&p, PI2_ERR_FORMAT, "tokenizer.ggml.token_type");
    p = good_parts("gpt2");
    p.types[1] = 4000000000u; /* no type that exists: not a normal token, but no error */
    expect(&p, PI2_OK, "");
    p = good_parts("llama");
    p.score_count = 0;
    expect(&p, PI2_ERR_FORMAT, "tokenizer.ggml.scores");
    p = good_parts("llama");
    p.score_count = 3;
    expect(&p, PI2_ERR_FORMAT, "tokenizer.ggml.scores");
    p = good_parts("llama");
    p.score_type = PI2_TEST_GGUF_I32;
    expect(&p, PI2_ERR_FORMAT, "tokenizer.ggml.scores");
    p = good_parts("llama");
    p.scores[2] = NAN;
    expect(&p, PI2_ERR_FORMAT, "tokenizer.ggml.scores[2]");
    p = good_parts("llama");
    p.types[0] = PI2_TEST_BYTE;
    expect(&p, PI2_ERR_FORMAT, "tokenizer.ggml.tokens[0]");
    p.texts[0] = "<0x0G>";
    expect(&p, PI2_ERR_FORMAT, "'<0x0G>'");
    p.texts[0] = "<0x0a>";
    expect(&p, PI2_OK, "");
}

static void test_merges(void **state) {
    (void)state;
    static const char *const bad[] = { "", " ", "ab", "a b ", "a ", " b", "a c", "b a",
                                       "a \xc3", "a \xe2\x96\x81", "a  b", "a abababababababab" };
    parts p = good_parts("gpt2");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        p.merge = bad[i];
        expect(&p, PI2_ERR_FORMAT, "tokenizer.ggml.merges[0]");
    }
    p.merge = NULL;
    expect(&p, PI2_ERR_FORMAT, "tokenizer.ggml.merges");
    p.merge = "a b";
    p.merges_are_numbers = true;
    expect(&p, PI2_ERR_FORMAT, "tokenizer.ggml.merges");
}

static void test_ids(void **state) {
    (void)state;
    static const char *const keys[] = {
        "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id",
        "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.fim_pad_token_id",
    };
    static const char *const models[] = { "gpt2", "llama" };
    for (size_t i = 0; i < 2 * sizeof keys / sizeof keys[0]; i++) {
        parts p = good_parts(models[i % 2]);
        p.id_key = keys[i / 2];
        p.id = 4;
        expect(&p, PI2_ERR_FORMAT, keys[i / 2]);
        p.id = UINT32_MAX - 1;
        expect(&p, PI2_ERR_FORMAT, keys[i / 2]);
        p.id = UINT32_MAX; /* some converters' way to say that there is none */
        expect(&p, PI2_OK, "");
        p.id = 3;
        expect(&p, PI2_OK, "");
    }
}

/** Ollama's files list all tokens that end an answer. */
static void test_listed_ends(void **state) {
    (void)state;
    parts p = good_parts("gpt2");
    pi2_tokenizer *tokenizer;
    p.texts[3] = "[end of turn]";
    for (int listed = 0; listed < 2; listed++) {
        p.id_key = listed ? "tokenizer.ggml.eos_token_ids" : NULL;
        p.id = 3;
        p.id_is_listed = true;
        assert_int_equal(make(&p, &tokenizer), PI2_OK);
        assert_int_equal(pi2_tokenizer_ends_generation(tokenizer, 3), listed);
        pi2_tokenizer_free(tokenizer);
    }
    p.id = 4;
    expect(&p, PI2_ERR_FORMAT, "tokenizer.ggml.eos_token_ids has 4");
    p.id_is_listed = false;
    expect(&p, PI2_ERR_FORMAT, "tokenizer.ggml.eos_token_ids");
}

static void test_empty_tokens(void **state) {
    (void)state;
    static const char *const models[] = { "gpt2", "llama" };
    for (int i = 0; i < 2; i++) {
        parts p = good_parts(models[i]);
        p.texts[3] = ""; /* a control token without text matches nowhere */
        pi2_tokenizer *tokenizer;
        assert_int_equal(make(&p, &tokenizer), PI2_OK);
        const pi2_text_segment segment = { "abba", 4, true };
        int32_t *tokens;
        size_t count;
        assert_int_equal(pi2_tokenizer_encode(tokenizer, &segment, 1, false, &tokens, &count),
                         PI2_OK);
        assert_true(count > 0);
        for (size_t t = 0; t < count; t++) assert_true(tokens[t] < 3);
        free(tokens);
        pi2_tokenizer_free(tokenizer);
    }
}

/** No byte has a token here but a and b: the rest leaves no token, or the unknown one. */
static void test_missing_bytes(void **state) {
    (void)state;
    parts p = good_parts("gpt2");
    pi2_tokenizer *tokenizer;
    int32_t *tokens;
    size_t count;
    const pi2_text_segment segment = { "azb", 3, false };
    assert_int_equal(make(&p, &tokenizer), PI2_OK);
    assert_int_equal(pi2_tokenizer_encode(tokenizer, &segment, 1, false, &tokens, &count), PI2_OK);
    assert_int_equal(count, 2);
    free(tokens);
    pi2_tokenizer_free(tokenizer);
    p = good_parts("llama");
    p.id_key = "tokenizer.ggml.unknown_token_id";
    p.id = 3;
    p.texts[3] = "<unk>";
    p.types[3] = PI2_TEST_UNKNOWN;
    assert_int_equal(make(&p, &tokenizer), PI2_OK);
    assert_int_equal(pi2_tokenizer_encode(tokenizer, &segment, 1, false, &tokens, &count), PI2_OK);
    assert_int_equal(count, 6); /* the three bytes of the space's mark, a, z, b */
    assert_int_equal(tokens[0], 3);
    assert_int_equal(tokens[4], 3);
    free(tokens);
    pi2_tokenizer_free(tokenizer);
    p.types[3] = PI2_TEST_CONTROL; /* then text may not give it */
    assert_int_equal(make(&p, &tokenizer), PI2_OK);
    assert_int_equal(pi2_tokenizer_encode(tokenizer, &segment, 1, false, &tokens, &count), PI2_OK);
    assert_int_equal(count, 2);
    free(tokens);
    pi2_tokenizer_free(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_ones),   cmocka_unit_test(test_unknown_kinds),
        cmocka_unit_test(test_arrays),      cmocka_unit_test(test_merges),
        cmocka_unit_test(test_ids),         cmocka_unit_test(test_listed_ends),
        cmocka_unit_test(test_empty_tokens),
        cmocka_unit_test(test_missing_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
