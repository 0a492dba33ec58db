/*
 * small_vocabulary.h: tokenizers from vocabularies written in a test.
 *
 *   static const pi2_test_token tokens[] = { { "<s>", PI2_TEST_CONTROL, 0 }, { "ab", 1, -1 } };
 *   static const char *const merges[] = { "a b" };
 *   pi2_test_vocabulary v = { .model = "gpt2", .tokens = tokens, .token_count = 2, ... };
 */
#ifndef PI2_TESTS_SUPPORT_SMALL_VOCABULARY_H
#define PI2_TESTS_SUPPORT_SMALL_VOCABULARY_H

#include "support/gguf_builder.h"
#include "tokenizer/tokenizer.h"

enum {
    PI2_TEST_NORMAL = 1, PI2_TEST_UNKNOWN = 2, PI2_TEST_CONTROL = 3, PI2_TEST_USER_DEFINED = 4,
    PI2_TEST_UNUSED = 5, PI2_TEST_BYTE = 6
};

typedef struct pi2_test_token {
    const char *text;
    uint32_t type;
    float score;
} pi2_test_token;

typedef struct pi2_test_vocabulary {
    const char *model;            /* "gpt2", "llama" or "gemma4" */
    const char *pre;              /* NULL: no key */
    const char *name;             /* general.name; NULL: no key */
    const pi2_test_token *tokens; /* numbered from 0 */
    size_t token_count;
    bool with_bytes;              /* then 256 tokens for the bytes follow */
    const char *const *merges;
    size_t merge_count;
    bool add_bos, add_eos, add_space_prefix; /* written as keys */
    int bos, eos;                 /* token ids; negative: no key */
} pi2_test_vocabulary;

/** The metadata, to be altered before writing. */
void pi2_test_vocabulary_build(const pi2_test_vocabulary *vocabulary, pi2_gguf_builder *builder);
/** Writes a temporary file, opens it, makes the tokenizer and removes the file. */
pi2_status pi2_test_tokenizer_from(const pi2_gguf_builder *builder, pi2_tokenizer **tokenizer_out);
/** Both; failure ends the test. */
pi2_tokenizer *pi2_test_tokenizer(const pi2_test_vocabulary *vocabulary);

/** The character by which byte-level text writes a byte, as a C string of at most 2 bytes. */
void pi2_test_byte_character(int byte, char text[4]);

#endif
