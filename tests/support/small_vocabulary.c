/* small_vocabulary.c: see small_vocabulary.h. */
#include "support/small_vocabulary.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/temporary_files.h"

void pi2_test_byte_character(int byte, char text[4]) {
    int code = byte;
    if (byte < 33 || (byte > 126 && byte < 161) || byte == 173) {
        code = byte < 33 ? 256 + byte : byte == 173 ? 256 + 67 : 256 + 33 + byte - 127;
    }
    if (code < 128) (void)snprintf(text, 4, "%c", code);
    else (void)snprintf(text, 4, "%c%c", 0xc0 | code >> 6, 0x80 | (code & 63));
}

static void add_text(pi2_test_bytes *bytes, const char *text) {
    pi2_test_bytes_add_u64(bytes, strlen(text));
    pi2_test_bytes_add(bytes, text, strlen(text));
}

static void add_tokens(const pi2_test_vocabulary *vocabulary, pi2_gguf_builder *builder) {
    const bool is_spm = strcmp(vocabulary->model, "gpt2") != 0; /* bytes are written <0x0A>, by Gemma 4 too */
    pi2_test_bytes texts = { 0 }, types = { 0 }, scores = { 0 };
    for (size_t i = 0; i < vocabulary->token_count; i++) {
        add_text(&texts, vocabulary->tokens[i].text);
        pi2_test_bytes_add_u32(&types, vocabulary->tokens[i].type);
        pi2_test_bytes_add_f32(&scores, vocabulary->tokens[i].score);
    }
    for (int byte = 0; vocabulary->with_bytes && byte < 256; byte++) {
        char text[8];
        if (is_spm) (void)snprintf(text, sizeof text, "<0x%02X>", (unsigned)byte);
        else pi2_test_byte_character(byte, text);
        add_text(&texts, text);
        pi2_test_bytes_add_u32(&types, is_spm ? PI2_TEST_BYTE : PI2_TEST_NORMAL);
        pi2_test_bytes_add_f32(&scores, 0.0f);
    }
    const size_t count = vocabulary->token_count + (vocabulary->with_bytes ? 256 : 0);
    pi2_gguf_builder_array(builder, "tokenizer.ggml.tokens", PI2_TEST_GGUF_STRING, count, &texts);
    pi2_gguf_builder_array(builder, "tokenizer.ggml.token_type", PI2_TEST_GGUF_I32, count, &types);
    if (is_spm) {
        pi2_gguf_builder_array(builder, "tokenizer.ggml.scores", PI2_TEST_GGUF_F32, count, &scores);
    }
    pi2_test_bytes_free(&texts);
    pi2_test_bytes_free(&types);
    pi2_test_bytes_free(&scores);
}

void pi2_test_vocabulary_build(const pi2_test_vocabulary *vocabulary, pi2_gguf_builder *builder) {
    pi2_gguf_builder_init(builder);
    pi2_gguf_builder_string(builder, "general.architecture", "llama");
    if (vocabulary->name) pi2_gguf_builder_string(builder, "general.name", vocabulary->name);
    pi2_gguf_builder_string(builder, "tokenizer.ggml.model", vocabulary->model);
    if (vocabulary->pre) pi2_gguf_builder_string(builder, "tokenizer.ggml.pre", vocabulary->pre);
    add_tokens(vocabulary, builder);
    if (vocabulary->merge_count || strcmp(vocabulary->model, "llama") != 0) {
        pi2_test_bytes merges = { 0 };
        for (size_t i = 0; i < vocabulary->merge_count; i++) {
            add_text(&merges, vocabulary->merges[i]);
        }
        pi2_gguf_builder_array(builder, "tokenizer.ggml.merges", PI2_TEST_GGUF_STRING,
                               vocabulary->merge_count, &merges);
        pi2_test_bytes_free(&merges);
    }
    pi2_gguf_builder_bool(builder, "tokenizer.ggml.add_bos_token", vocabulary->add_bos);
    pi2_gguf_builder_bool(builder, "tokenizer.ggml.add_eos_token", vocabulary->add_eos);
    pi2_gguf_builder_bool(builder, "tokenizer.ggml.add_space_prefix", vocabulary->add_space_prefix);
    if (vocabulary->bos >= 0) {
        pi2_gguf_builder_u32(builder, "tokenizer.ggml.bos_token_id", (uint32_t)vocabulary->bos);
    }
    if (vocabulary->eos >= 0) {
        pi2_gguf_builder_u32(builder, "tokenizer.ggml.eos_token_id", (uint32_t)vocabulary->eos);
    }
}

pi2_status pi2_test_tokenizer_from(const pi2_gguf_builder *builder,
                                   pi2_tokenizer **tokenizer_out) {
    char *folder = test_folder_make();
    char *path = test_path(folder, "vocabulary.gguf");
    pi2_gguf *gguf = NULL;
    *tokenizer_out = NULL;
    assert_int_equal(pi2_gguf_builder_write(builder, path), 0);
    assert_int_equal(pi2_gguf_open(path, &gguf), PI2_OK);
    const pi2_status status = pi2_tokenizer_create(gguf, tokenizer_out);
    pi2_gguf_close(gguf);
    free(path);
    test_folder_remove(folder);
    return status;
}

pi2_tokenizer *pi2_test_tokenizer(const pi2_test_vocabulary *vocabulary) {
    pi2_gguf_builder builder;
    pi2_tokenizer *tokenizer;
    pi2_test_vocabulary_build(vocabulary, &builder);
    if (pi2_test_tokenizer_from(&builder, &tokenizer) != PI2_OK) {
        fail_msg("%s", pi2_error_text());
    }
    pi2_gguf_builder_free(&builder);
    return tokenizer;
}
