/*
 * tiny_vocabulary.c: a byte-level BPE vocabulary with a few merges, and a sentencepiece one with
 * byte fallback. Both can write any text and have ChatML's special tokens.
 */
#include "support/tiny_model.h"

#include <stdio.h>
#include <string.h>

/* How the vocabularies write a space: U+0120 and U+2581. */
#define BPE_SPACE "\xc4\xa0"
#define SPM_SPACE "\xe2\x96\x81"

enum { TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_BYTE = 6 };

typedef struct token_table {
    pi2_test_bytes texts, scores, types;
    uint32_t count;
} token_table;

static void add_text(pi2_test_bytes *bytes, const char *text) {
    pi2_test_bytes_add_u64(bytes, strlen(text));
    pi2_test_bytes_add(bytes, text, strlen(text));
}

static uint32_t add_token(token_table *table, const char *text, float score, uint32_t type) {
    add_text(&table->texts, text);
    pi2_test_bytes_add_f32(&table->scores, score);
    pi2_test_bytes_add_u32(&table->types, type);
    return table->count++;
}

/** Fills up with tokens that no text gives. */
static void pad_tokens(token_table *table, uint32_t size) {
    char text[32];
    while (table->count < size) {
        (void)snprintf(text, sizeof text, "<|unused_%u|>", table->count);
        (void)add_token(table, text, -1000.0f, TOKEN_CONTROL);
    }
}

static void add_tables(token_table *table, pi2_gguf_builder *builder, bool with_scores) {
    pi2_gguf_builder_array(builder, "tokenizer.ggml.tokens", PI2_TEST_GGUF_STRING, table->count,
                           &table->texts);
    if (with_scores) {
        pi2_gguf_builder_array(builder, "tokenizer.ggml.scores", PI2_TEST_GGUF_F32, table->count,
                               &table->scores);
    }
    pi2_gguf_builder_array(builder, "tokenizer.ggml.token_type", PI2_TEST_GGUF_I32, table->count,
                           &table->types);
    pi2_test_bytes_free(&table->texts);
    pi2_test_bytes_free(&table->scores);
    pi2_test_bytes_free(&table->types);
}

/** The character by which GPT-2's vocabularies write a byte: itself when it is visible Latin-1,
 *  else the next free one from U+0100 on. All lie below U+0800: one or two UTF-8 bytes. */
static void byte_character(int byte, char *text) {
    int code = byte;
    if (!((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174)) {
        code = 256;
        for (int i = 0; i < byte; i++) {
            if (!((i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174)) code++;
        }
    }
    if (code < 128) {
        (void)snprintf(text, 4, "%c", code);
    } else {
        (void)snprintf(text, 4, "%c%c", 0xc0 | code >> 6, 0x80 | (code & 63));
    }
}

static uint32_t add_bpe(const pi2_tiny_model_options *options, pi2_gguf_builder *builder) {
    /* A merge's parts are bytes or earlier merges. */
    static const char *const merges[] = {
        "h e",         "t he", BPE_SPACE " the", "i n",  BPE_SPACE " a",  "e r", "o n",
        "r e",         "n d",  BPE_SPACE " o",   "l l",  "o u",           "in g", BPE_SPACE " w",
        BPE_SPACE " s", "u s", BPE_SPACE " t",   "e n",  BPE_SPACE "a nd", "a t"};
    token_table table = {0};
    pi2_test_bytes merge_texts = {0};
    char text[32];
    const uint32_t end_of_text = add_token(&table, "<|endoftext|>", 0.0f, TOKEN_CONTROL);
    const uint32_t begin = add_token(&table, "<|im_start|>", 0.0f, TOKEN_CONTROL);
    const uint32_t end = add_token(&table, "<|im_end|>", 0.0f, TOKEN_CONTROL);
    for (int byte = 0; byte < 256; byte++) {
        byte_character(byte, text);
        (void)add_token(&table, text, 0.0f, TOKEN_NORMAL);
    }
    const size_t merge_count = sizeof merges / sizeof merges[0];
    for (size_t i = 0; i < merge_count; i++) {
        const char *space = strchr(merges[i], ' ');
        (void)snprintf(text, sizeof text, "%.*s%s", (int)(space - merges[i]), merges[i], space + 1);
        (void)add_token(&table, text, 0.0f, TOKEN_NORMAL);
        add_text(&merge_texts, merges[i]);
    }
    pad_tokens(&table, options->vocabulary_size);
    const uint32_t count = table.count;
    pi2_gguf_builder_string(builder, "tokenizer.ggml.model", "gpt2");
    pi2_gguf_builder_string(builder, "tokenizer.ggml.pre", "smollm");
    add_tables(&table, builder, false);
    pi2_gguf_builder_array(builder, "tokenizer.ggml.merges", PI2_TEST_GGUF_STRING, merge_count,
                           &merge_texts);
    pi2_test_bytes_free(&merge_texts);
    pi2_gguf_builder_u32(builder, "tokenizer.ggml.bos_token_id", begin);
    pi2_gguf_builder_u32(builder, "tokenizer.ggml.eos_token_id", end);
    pi2_gguf_builder_u32(builder, "tokenizer.ggml.unknown_token_id", end_of_text);
    return count;
}

static uint32_t add_spm(const pi2_tiny_model_options *options, pi2_gguf_builder *builder) {
    static const char *const words[] = {
        SPM_SPACE,       SPM_SPACE "t", "he", SPM_SPACE "the", SPM_SPACE "a", "in", "er",
        "on",            "re",          "nd", SPM_SPACE "and", "ll",          "ou", SPM_SPACE "w",
        SPM_SPACE "s",   "ing",         "us", "en",            "at"};
    token_table table = {0};
    char text[32];
    (void)add_token(&table, "<unk>", 0.0f, TOKEN_UNKNOWN);
    const uint32_t begin = add_token(&table, "<s>", 0.0f, TOKEN_CONTROL);
    const uint32_t end = add_token(&table, "</s>", 0.0f, TOKEN_CONTROL);
    for (int byte = 0; byte < 256; byte++) {
        (void)snprintf(text, sizeof text, "<0x%02X>", byte);
        (void)add_token(&table, text, 0.0f, TOKEN_BYTE);
    }
    float score = 0.0f;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        (void)add_token(&table, words[i], score -= 1.0f, TOKEN_NORMAL);
    }
    for (int letter = 33; letter <= 126; letter++) {
        (void)snprintf(text, sizeof text, "%c", letter);
        (void)add_token(&table, text, score -= 1.0f, TOKEN_NORMAL);
    }
    (void)add_token(&table, "<|im_start|>", 0.0f, TOKEN_CONTROL);
    (void)add_token(&table, "<|im_end|>", 0.0f, TOKEN_CONTROL);
    pad_tokens(&table, options->vocabulary_size);
    const uint32_t count = table.count;
    pi2_gguf_builder_string(builder, "tokenizer.ggml.model", "llama");
    add_tables(&table, builder, true);
    pi2_gguf_builder_u32(builder, "tokenizer.ggml.bos_token_id", begin);
    pi2_gguf_builder_u32(builder, "tokenizer.ggml.eos_token_id", end);
    pi2_gguf_builder_u32(builder, "tokenizer.ggml.unknown_token_id", 0);
    return count;
}

uint32_t pi2_tiny_vocabulary_add(const pi2_tiny_model_options *options, pi2_gguf_builder *builder) {
    const bool is_spm = options->vocabulary == PI2_TINY_SPM;
    const uint32_t count = is_spm ? add_spm(options, builder) : add_bpe(options, builder);
    pi2_gguf_builder_bool(builder, "tokenizer.ggml.add_bos_token", is_spm || options->add_bos);
    pi2_gguf_builder_bool(builder, "tokenizer.ggml.add_eos_token", options->add_eos);
    if (options->chat_template) {
        pi2_gguf_builder_string(builder, "tokenizer.chat_template", options->chat_template);
    }
    return count;
}
