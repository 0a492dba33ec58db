/*
 * synthetic_vocabulary.c: a vocabulary of any size that tokenizers take for real. Its tokens are
 * bytes, then words of syllables ("ba", "ko", "bako", "bakomi"), each made of two shorter tokens,
 * so that a BPE has a merge for each; and the control tokens of ChatML.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "synthetic/synthetic_internal.h"

/* How vocabularies write a space: U+0120 and U+2581. */
#define BPE_SPACE "\xc4\xa0"
#define SPM_SPACE "\xe2\x96\x81"

enum { TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_BYTE = 6 };
enum { CONSONANTS = 20, VOWELS = 5, SYLLABLES = CONSONANTS * VOWELS, TEXT_BYTES = 40 };

static const char chatml_template[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}";

typedef struct token_list {
    char (*texts)[TEXT_BYTES];
    char (*merges)[TEXT_BYTES];
    uint8_t *types, *scores; /* as they lie in the file: 4 bytes each */
    uint32_t count, capacity, merge_count;
    bool is_spm;
} token_list;

static bool is_spm(const pi2_synthetic_shape *shape) { return strcmp(shape->tokenizer, "spm") == 0; }

void pi2_synthetic_control_tokens(const pi2_synthetic_shape *shape, uint32_t *first_count_out,
                                  uint32_t *last_count_out) {
    *first_count_out = is_spm(shape) ? 3 : 0;
    *last_count_out = is_spm(shape) ? 2 : 3;
}

static void add_token(token_list *list, const char *text, uint32_t type) {
    if (list->count == list->capacity) return;
    (void)snprintf(list->texts[list->count], TEXT_BYTES, "%s", text);
    pi2_store_le32(list->types + 4 * (size_t)list->count, type);
    const float score = type == TOKEN_NORMAL ? -(float)list->count : 0.0f;
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    pi2_store_le32(list->scores + 4 * (size_t)list->count, bits);
    list->count++;
}

/** A token made of two that are there already, as long as `end` is not reached. */
static void add_word(token_list *list, const char *left, const char *right, uint32_t end) {
    char text[TEXT_BYTES];
    if (list->count >= end) return;
    (void)snprintf(text, sizeof text, "%s%s", left, right);
    add_token(list, text, TOKEN_NORMAL);
    (void)snprintf(list->merges[list->merge_count++], TEXT_BYTES, "%s %s", left, right);
}

static const char *syllable(uint32_t number, char text[3]) {
    static const char consonants[CONSONANTS + 1] = "bcdfghjklmnpqrstvwyz", vowels[VOWELS + 1] = "aeiou";
    text[0] = consonants[number / VOWELS % CONSONANTS];
    text[1] = vowels[number % VOWELS];
    text[2] = '\0';
    return text;
}

/** Words of one, two, three ... syllables, each with and without a space before, up to `end`. */
static void add_words(token_list *list, uint32_t end) {
    const char *space = list->is_spm ? SPM_SPACE : BPE_SPACE;
    char last[3], letter[2] = "";
    for (uint32_t s = 0; s < SYLLABLES; s++) {
        (void)syllable(s, last);
        letter[0] = last[0];
        add_word(list, letter, last + 1, end);
    }
    const uint32_t plain = list->count - (list->count < SYLLABLES ? list->count : SYLLABLES);
    for (uint32_t s = 0; s < SYLLABLES; s++) add_word(list, space, syllable(s, last), end);
    /* Every word so far, one syllable longer; the list grows while it is read. */
    for (uint32_t word = plain; list->count < end && word < list->count; word++) {
        char left[TEXT_BYTES];
        memcpy(left, list->texts[word], sizeof left);
        for (uint32_t s = 0; s < SYLLABLES; s++) add_word(list, left, syllable(s, last), end);
    }
}

/** The character by which byte-level vocabularies write a byte: itself when it is visible
 *  Latin-1, else the next free one from U+0100 on. */
static void byte_character(uint32_t byte, char text[4]) {
    uint32_t code = 256;
    for (uint32_t i = 0; i <= byte; i++) {
        const bool visible = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174;
        if (i == byte && visible) code = byte;
        else if (i < byte && !visible) code++;
    }
    if (code < 128) (void)snprintf(text, 4, "%c", (int)code);
    else (void)snprintf(text, 4, "%c%c", (int)(0xc0 | code >> 6), (int)(0x80 | (code & 63)));
}

static void add_bpe(token_list *list) {
    char text[4];
    for (uint32_t byte = 0; byte < 256; byte++) {
        byte_character(byte, text);
        add_token(list, text, TOKEN_NORMAL);
    }
    add_words(list, list->capacity - 3);
    add_token(list, "<|endoftext|>", TOKEN_CONTROL);
    add_token(list, "<|im_start|>", TOKEN_CONTROL);
    add_token(list, "<|im_end|>", TOKEN_CONTROL);
}

static void add_spm(token_list *list) {
    char text[8];
    add_token(list, "<unk>", TOKEN_UNKNOWN);
    add_token(list, "<s>", TOKEN_CONTROL);
    add_token(list, "</s>", TOKEN_CONTROL);
    for (unsigned byte = 0; byte < 256; byte++) {
        (void)snprintf(text, sizeof text, "<0x%02X>", byte);
        add_token(list, text, TOKEN_BYTE);
    }
    for (int letter = 33; letter <= 126; letter++) {
        (void)snprintf(text, sizeof text, "%c", letter);
        add_token(list, text, TOKEN_NORMAL);
    }
    add_token(list, SPM_SPACE, TOKEN_NORMAL);
    add_words(list, list->capacity - 2);
    add_token(list, "<|im_start|>", TOKEN_CONTROL);
    add_token(list, "<|im_end|>", TOKEN_CONTROL);
}

static void add_strings(pi2_gguf_writer *writer, const char *key, char (*texts)[TEXT_BYTES],
                        const char **pointers, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) pointers[i] = texts[i];
    pi2_gguf_writer_string_array(writer, key, pointers, count);
}

static void write_list(const pi2_synthetic_shape *shape, token_list *list, const char **pointers,
                       pi2_gguf_writer *writer) {
    const bool spm = list->is_spm;
    pi2_gguf_writer_string(writer, "tokenizer.ggml.model", spm ? "llama" : "gpt2");
    pi2_gguf_writer_string(writer, "tokenizer.ggml.pre", spm ? "default" : shape->tokenizer);
    add_strings(writer, "tokenizer.ggml.tokens", list->texts, pointers, list->count);
    if (spm) {
        (void)pi2_gguf_writer_array(writer, "tokenizer.ggml.scores", PI2_GGUF_F32, list->count,
                                    list->scores);
    }
    (void)pi2_gguf_writer_array(writer, "tokenizer.ggml.token_type", PI2_GGUF_I32, list->count,
                                list->types);
    if (!spm) add_strings(writer, "tokenizer.ggml.merges", list->merges, pointers, list->merge_count);
    /* A generation ends with ChatML's <|im_end|>, the last token. */
    const uint32_t last = list->count - 1;
    pi2_gguf_writer_u32(writer, "tokenizer.ggml.bos_token_id", spm ? 1 : last - 2);
    pi2_gguf_writer_u32(writer, "tokenizer.ggml.eos_token_id", last);
    pi2_gguf_writer_u32(writer, "tokenizer.ggml.padding_token_id", spm ? 2 : last - 2);
    if (spm) pi2_gguf_writer_u32(writer, "tokenizer.ggml.unknown_token_id", 0);
    pi2_gguf_writer_bool(writer, "tokenizer.ggml.add_bos_token",
                         spm || strcmp(shape->tokenizer, "llama-bpe") == 0);
    pi2_gguf_writer_string(writer, "tokenizer.chat_template", chatml_template);
}

pi2_status pi2_synthetic_write_vocabulary(const pi2_synthetic_plan *plan, pi2_gguf_writer *writer) {
    const uint32_t count = plan->shape.vocabulary_size;
    token_list list = { .capacity = count, .is_spm = is_spm(&plan->shape),
                        .texts = calloc(count, TEXT_BYTES), .merges = calloc(count, TEXT_BYTES),
                        .types = calloc(count, 4), .scores = calloc(count, 4) };
    const char **pointers = calloc(count, sizeof *pointers);
    pi2_status status = PI2_OK;
    if (!list.texts || !list.merges || !list.types || !list.scores || !pointers) {
        status = pi2_fail(PI2_ERR_MEMORY, "no memory for a vocabulary of %u tokens", count);
    } else {
        if (list.is_spm) add_spm(&list);
        else add_bpe(&list);
        write_list(&plan->shape, &list, pointers, writer);
    }
    free(pointers);
    free(list.texts);
    free(list.merges);
    free(list.types);
    free(list.scores);
    return status;
}
