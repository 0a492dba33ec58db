/*
 * Goal:   a file that lacks a tensor which its family needs, or whose keys contradict it, is refused in one line that
 *         names what is wrong, and never believed.
 * Method: each family's tiny model with one tensor renamed after the other; with one key of its metadata after the
 *         other that has an extreme number, another type or another name, or that the file ends in. As `inspect` judges
 *         it, before any weight is read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "file_formats/gguf.h"
#include "powerinfer2/engine.h"
#include "powerinfer2/model_file.h"
#include "support/family_model.h"
#include "support/temporary_files.h"

typedef struct file_bytes {
    unsigned char *data;
    size_t length;
} file_bytes;

static file_bytes read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    const file_bytes bytes = { malloc((size_t)ftell(file)), (size_t)ftell(file) };
    assert_non_null(bytes.data);
    rewind(file);
    assert_int_equal(fread(bytes.data, 1, bytes.length, file), bytes.length);
    assert_int_equal(fclose(file), 0);
    return bytes;
}

/* Where a name or key stands behind its length. */
static size_t find_name(const file_bytes *bytes, const char *name, size_t length) {
    for (size_t at = 8; at + length <= bytes->length; at++) {
        if (memcmp(bytes->data + at, name, length) != 0) continue;
        uint64_t said = 0;
        for (int i = 7; i >= 0; i--) said = said << 8 | bytes->data[at - 8 + (size_t)i];
        if (said == length) return at;
    }
    fail_msg("%.*s is not in the file", (int)length, name);
    return 0;
}

static void patch(const char *path, size_t at, const void *bytes, size_t count) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

/* Tensors that a model may lack: another of its kind then is computed, or none. */
static bool is_optional(const char *family, const char *name) {
    static const char *const parts[] = { "output.weight", "nextn.", "rope_factors_", "attn_q.bias", "attn_k.bias",
                                         "attn_v.bias", "attn_output.bias" };
    const char *end = strrchr(name, '.');
    const bool is_qwen_or_glm = strcmp(family, "qwen35") == 0 || strcmp(family, "glm4moe") == 0;
    if (strcmp(family, "nemotron_h_moe") == 0 && strncmp(name, "blk.6.", 6) == 0) return true; /* it guesses */
    if (is_qwen_or_glm && strncmp(name, "blk.4.", 6) == 0) return true;
    if (strcmp(family, "gemma3n") == 0 && strncmp(name, "blk.2", 5) == 0 && name[5] != '.' &&
        (strstr(name, "attn_k") || strstr(name, "attn_v"))) return true; /* its last layers use earlier ones' */
    if (strcmp(end ? end : "", ".scale") == 0 && strncmp(family, "gemma", 5) != 0) return true;
    for (size_t i = 0; end && i < sizeof parts / sizeof parts[0]; i++) {
        if (strstr(name, parts[i]) && !strstr(name, "attn_output.weight")) return true;
    }
    return false;
}

static void check_tensors(const char *family, const char *path, const file_bytes *bytes) {
    pi2_gguf *gguf = NULL;
    assert_int_equal(pi2_gguf_open(path, &gguf), PI2_OK);
    for (size_t i = 0; i < pi2_gguf_tensor_count(gguf); i++) {
        const char *name = pi2_gguf_tensor_at(gguf, i)->name;
        const size_t at = find_name(bytes, name, strlen(name));
        pi2_model_file *file = NULL;
        if (is_optional(family, name)) continue;
        patch(path, at + strlen(name) - 1, "~", 1);
        if (pi2_model_file_open(path, &file) != PI2_OK) fail_msg("%s: %s", family, pi2_error_text());
        const pi2_model_summary *summary = pi2_model_file_summary(file);
        if (summary->runnable) fail_msg("%s runs without %s", family, name);
        if (!strstr(summary->not_runnable_reason, "tensor '")) fail_msg("%s: %s", name, summary->not_runnable_reason);
        pi2_model_file_close(file);
        patch(path, at + strlen(name) - 1, name + strlen(name) - 1, 1);
    }
    pi2_gguf_close(gguf);
}

static bool begins(const pi2_gguf_string *key, const char *text) {
    return key->length > strlen(text) && memcmp(key->text, text, strlen(text)) == 0;
}

/* Whatever a key says, the file is judged, in one line; what runs then is of no interest. */
static void judge(const char *family, const char *path, const char *key) {
    pi2_model_file *file = NULL;
    const char *text = NULL;
    if (pi2_model_file_open(path, &file) != PI2_OK) {
        text = pi2_error_text();
    } else if (!pi2_model_file_summary(file)->runnable) {
        text = pi2_model_file_summary(file)->not_runnable_reason;
    }
    if (text && (!text[0] || strchr(text, '\n'))) fail_msg("%s, %s: no line: '%s'", family, key, text);
    pi2_model_file_close(file);
}

static void write_file(const char *path, const file_bytes *bytes, size_t length) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes->data, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

/* Another number, another type, another name, an end of the file: some for each key, others in another family. */
static void check_key(const char *family, const char *path, const file_bytes *bytes, const pi2_gguf_entry *entry,
                      size_t turn) {
    static const uint32_t values[] = { 0, 1, 3, 0x7fffffff, 0xffffffff, 0x7f800000, 0x00000001 };
    static const uint32_t types[] = { PI2_GGUF_U8, PI2_GGUF_F32, PI2_GGUF_BOOL, PI2_GGUF_STRING, PI2_GGUF_ARRAY,
                                      PI2_GGUF_U64, 255 };
    enum { VALUES = sizeof values / sizeof values[0], TYPES = sizeof types / sizeof types[0] };
    const size_t name_at = find_name(bytes, entry->key.text, entry->key.length);
    const size_t type_at = name_at + entry->key.length;
    const size_t skipped = entry->value_type == PI2_GGUF_ARRAY ? 12 : 0, value_at = type_at + 4 + skipped;
    char key[128];
    (void)snprintf(key, sizeof key, "%.*s", (int)entry->key.length, entry->key.text);
    const bool is_number = entry->value_type != PI2_GGUF_STRING && entry->value_bytes >= skipped + 4;
    for (size_t v = turn % 2; is_number && v < VALUES; v += 2) {
        patch(path, value_at, &values[v], 4);
        judge(family, path, key);
        patch(path, value_at, bytes->data + value_at, 4);
    }
    patch(path, type_at, &types[turn % TYPES], 4);
    judge(family, path, key);
    patch(path, type_at, bytes->data + type_at, 4);
    patch(path, type_at - 1, "~", 1); /* the key is missing */
    judge(family, path, key);
    patch(path, type_at - 1, bytes->data + type_at - 1, 1);
    if (turn % 4 != 0) return;
    write_file(path, bytes, type_at + turn % 8); /* the file ends here */
    judge(family, path, key);
    write_file(path, bytes, bytes->length);
}

static void check_keys(const char *family, const char *path, const file_bytes *bytes, size_t turn) {
    pi2_gguf *gguf = NULL;
    assert_int_equal(pi2_gguf_open(path, &gguf), PI2_OK);
    for (size_t i = 0; i < pi2_gguf_entry_count(gguf); i++) {
        const pi2_gguf_entry entry = pi2_gguf_entry_at(gguf, i);
        if (begins(&entry.key, "general.") || begins(&entry.key, "tokenizer.")) continue;
        check_key(family, path, bytes, &entry, turn++);
    }
    pi2_gguf_close(gguf);
}

/* The fuzzer begins with each family. */
static void check_seed(const char *family) {
    char seed[512];
    (void)snprintf(seed, sizeof seed, "%s/fuzz/seeds/family/%s", PI2_TESTS_FOLDER, family);
    const file_bytes bytes = read_file(seed);
    assert_int_equal(bytes.length, strlen(family));
    assert_memory_equal(bytes.data, family, bytes.length);
    free(bytes.data);
}

static void test_damage(void **state) {
    (void)state;
    char *folder = test_folder_make(), *path = test_path(folder, "family.gguf");
    for (size_t i = 0; pi2_family_name(i); i++) {
        assert_int_equal(pi2_family_model_write(pi2_family_name(i), PI2_Q8_0, 1, path), 0);
        check_seed(pi2_family_name(i));
        const file_bytes bytes = read_file(path);
        if (strcmp(pi2_family_name(i), "exaone4") != 0) check_tensors(pi2_family_name(i), path, &bytes);
        check_keys(pi2_family_name(i), path, &bytes, i);
        free(bytes.data);
    }
    free(path);
    test_folder_remove(folder);
}

/* Numbers that each are possible, and that a family cannot compute, or not with the others: refused by name. */
static void test_refused_numbers(void **state) {
    (void)state;
    static const struct { const char *family, *key; size_t skipped; uint32_t value; const char *word; } cases[] = {
        { "qwen35", "qwen35.attention.value_length", 0, 64,
          "attention.key_length is 32 and attention.value_length 64" },
        { "lfm2moe", "lfm2moe.leading_dense_block_count", 0, 4, "leading_dense_block_count is 4 of 4 layers" },
        { "phi3", "phi3.attention.head_count_kv", 12, 1, "layer 0 has 1 key-value heads and another 2" },
        { "glm4moe", "glm4moe.leading_dense_block_count", 0, 4, "leading_dense_block_count is 4 of 4 layers" },
        { "glm4moe", "glm4moe.expert_group_count", 0, 4, "expert_group_count is 4, of which expert_group_used_co" },
        { "glm4moe", "glm4moe.expert_group_count", 0, 6, "no groups of 6 experts, 2 of which are used" },
        { "glm4moe", "glm4moe.expert_group_used_count", 0, 4, "expert_group_used_count 4: these are no groups" },
        { "glm4moe", "glm4moe.expert_shared_count", 0, 1u << 20, "expert_shared_count is 1048576, with experts of 64" },
        { "glm4moe", "glm4moe.expert_weights_scale", 0, 0x7fc00000, "expert_weights_scale is nan" },
        { "deepseek2", "deepseek2.attention.key_length_mla", 0, 8, "key_length_mla 8, " },
        { "deepseek2", "deepseek2.attention.value_length_mla", 0, 0, "key_length_mla or value_length_mla is missing" },
        { "deepseek2", "deepseek2.attention.kv_lora_rank", 0, 40, "kv_lora_rank 40" },
        { "gemma4", "gemma4.attention.shared_kv_layers", 0, 5, "shared_kv_layers is 5 of 6 layers" },
        { "gemma4", "gemma4.attention.shared_kv_layers", 0, 1, "layer 5 cannot use the keys and values of layer 4" },
        { "gemma4", "gemma4.attention.key_length_swa", 0, 5000, "key_length_swa 5000" },
        { "gemma4-experts", "gemma4.attention.value_length", 0, 16, "value_length 16, but keys are the values" },
        { "gemma3", "gemma3.rope.freq_base_swa", 0, 0, "freq_base_swa 0 " },
        { "qwen35", "qwen35.ssm.state_size", 0, 8, "heads of at most 256 values, as many as the second, make up" },
        { "qwen35", "qwen35.ssm.group_count", 0, 3, "a delta net of ssm.inner_size" },
        { "nemotron_h", "nemotron_h.ssm.group_count", 0, 3, "a state space of ssm.inner_size" },
        { "granitehybrid", "granitehybrid.ssm.state_size", 0, 5000, "ssm.state_size 5000, " },
        { "gemma3", "gemma3.rope.freq_base_swa", 0, 0xc3480000, "freq_base_swa -200 " },
        { "gemma3", "gemma3.rope.freq_base_swa", 0, 0x7fc00000, "freq_base_swa nan " },
    };
    char *folder = test_folder_make(), *path = test_path(folder, "family.gguf");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pi2_model_file *file = NULL;
        assert_int_equal(pi2_family_model_write(cases[i].family, PI2_Q8_0, 1, path), 0);
        const file_bytes bytes = read_file(path);
        const size_t length = strlen(cases[i].key);
        patch(path, find_name(&bytes, cases[i].key, length) + length + 4 + cases[i].skipped, &cases[i].value, 4);
        free(bytes.data);
        if (pi2_model_file_open(path, &file) != PI2_OK) fail_msg("%s", pi2_error_text());
        const pi2_model_summary *summary = pi2_model_file_summary(file);
        if (summary->runnable) fail_msg("%s runs with %s %u", cases[i].family, cases[i].key, cases[i].value);
        if (!strstr(summary->not_runnable_reason, cases[i].word)) fail_msg("%s", summary->not_runnable_reason);
        pi2_model_file_close(file);
    }
    free(path);
    test_folder_remove(folder);
}

/* A cache of 8-bit blocks does not fit heads of 16. */
static void test_small_heads(void **state) {
    (void)state;
    char *folder = test_folder_make(), *path = test_path(folder, "family.gguf");
    assert_int_equal(pi2_family_model_write("phi3", PI2_Q8_0, 1, path), 0);
    pi2_engine_options options;
    pi2_engine *engine = NULL;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.cache_type = PI2_CACHE_Q8_0;
    assert_int_equal(pi2_engine_open(&options, &engine), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "holds blocks of 32 values"));
    free(path);
    test_folder_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_damage), cmocka_unit_test(test_refused_numbers),
                                        cmocka_unit_test(test_small_heads) };
    return cmocka_run_group_tests_name("damaged families", tests, NULL, NULL);
}
