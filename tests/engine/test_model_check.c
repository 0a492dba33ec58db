/*
 * Goal:   what makes a run refuse a model makes inspect, plan and prepare refuse it too, with the same words, and
 *         prepare writes nothing; a model that none of them refuses runs.
 * Method: tiny models with one fault each: in the tensor table, the tensors, the vocabulary, the metadata.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "powerinfer2/model_file.h"
#include "powerinfer2/plan.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

static char *model_path, *cluster_path;

/** Where a text lies in bytes; it must be there. */
static unsigned char *find(const pi2_test_bytes *bytes, const char *text) {
    const size_t length = strlen(text);
    for (size_t at = 0; at + length <= bytes->length; at++) {
        if (memcmp(bytes->data + at, text, length) == 0) return bytes->data + at;
    }
    fail_msg("no '%s' in the model", text);
    return NULL;
}

static void replace(const pi2_test_bytes *bytes, const char *text, const char *other) {
    assert_int_equal(strlen(text), strlen(other));
    memcpy(find(bytes, text), other, strlen(text));
}

/** Fields of a tensor's entry behind its name: dimension count, dimensions, type. */
static unsigned char *entry_of(const pi2_gguf_builder *builder, const char *name) {
    return find(&builder->tensors, name) + strlen(name);
}

static void norm_of_blocks(pi2_gguf_builder *builder) { entry_of(builder, "blk.1.ffn_norm.weight")[4 + 8] = PI2_Q8_0; }
static void bias_of_blocks(pi2_gguf_builder *builder) { entry_of(builder, "blk.0.attn_q.bias")[4 + 8] = PI2_Q4_0; }
static void short_norm(pi2_gguf_builder *builder) {
    memcpy(entry_of(builder, "output_norm.weight") + 4, "\x80\0", 2); /* 128 of 256 */
}
static void low_matrix(pi2_gguf_builder *builder) {
    memcpy(entry_of(builder, "blk.1.ffn_up.weight") + 4 + 8, "\0\1", 2); /* 256 rows of 512 */
}
/* IQ1_S */
static void unknown_type(pi2_gguf_builder *builder) { entry_of(builder, "blk.0.attn_k.weight")[4 + 16] = 19; }
static void no_matrix(pi2_gguf_builder *builder) { replace(&builder->tensors, "blk.1.attn_v", "blk.1.attn_w"); }
static void no_norm(pi2_gguf_builder *builder) { replace(&builder->tensors, "output_norm", "output_worm"); }
static void pre_tokenizer(pi2_gguf_builder *builder) { replace(&builder->entries, "smollm", "smallm"); }
static void tokenizer(pi2_gguf_builder *builder) { replace(&builder->entries, "gpt2", "bert"); }
static void no_tokens(pi2_gguf_builder *builder) { replace(&builder->entries, "ggml.tokens", "ggml.tikens"); }
static void no_merges(pi2_gguf_builder *builder) { replace(&builder->entries, "ggml.merges", "ggml.marges"); }
static void architecture(pi2_gguf_builder *builder) { replace(&builder->entries, "llama", "lxama"); }
static void no_heads(pi2_gguf_builder *builder) { replace(&builder->entries, "head_count", "hoad_count"); }
static void number_as_template(pi2_gguf_builder *builder) {
    pi2_gguf_builder_u32(builder, "tokenizer.chat_template", 1);
}
static void scale_of_a_matrix(pi2_gguf_builder *builder) {
    const uint64_t length = 1;
    static const unsigned char one[4] = { 0, 0, 0x80, 0x3f };
    pi2_gguf_builder_tensor(builder, "token_embd.scale", PI2_F32, 1, &length, one, sizeof one);
}
static void scale_of_a_weight(pi2_gguf_builder *builder) {
    const uint64_t length = 1;
    static const unsigned char one[4] = { 0, 0, 0x80, 0x3f };
    pi2_gguf_builder_tensor(builder, "blk.0.attn_q.weight.scale", PI2_F32, 1, &length, one, sizeof one);
}
static void window(pi2_gguf_builder *builder) { pi2_gguf_builder_u32(builder, "llama.attention.sliding_window", 16); }
static void vector(pi2_gguf_builder *builder, const char *name, uint64_t length) {
    static const float zeros[512];
    pi2_gguf_builder_tensor(builder, name, PI2_F32, 1, &length, zeros, (size_t)length * sizeof zeros[0]);
}
static void norm_of_heads(pi2_gguf_builder *builder) { vector(builder, "blk.1.attn_q_norm.weight", 64); }
static void bias_of_a_norm(pi2_gguf_builder *builder) { vector(builder, "blk.0.ffn_norm.bias", 256); }
static void bias_of_the_head(pi2_gguf_builder *builder) { vector(builder, "output.bias", 256); }
static void sees_ahead(pi2_gguf_builder *builder) {
    pi2_gguf_builder_bool(builder, "llama.attention.causal", false);
}
static void adapter(pi2_gguf_builder *builder) { pi2_gguf_builder_string(builder, "general.type", "adapter"); }
static void importance(pi2_gguf_builder *builder) { pi2_gguf_builder_string(builder, "general.type", "imatrix"); }

/* Heads of each of the two layers, in place of one number. */
static void heads_of_layers(pi2_gguf_builder *builder, uint32_t second) {
    pi2_test_bytes heads = { 0 };
    replace(&builder->entries, "llama.attention.head_count", "llama.attention.hoad_count");
    pi2_test_bytes_add_u32(&heads, 4);
    pi2_test_bytes_add_u32(&heads, second);
    pi2_gguf_builder_array(builder, "llama.attention.head_count", PI2_TEST_GGUF_U32, 2, &heads);
    pi2_test_bytes_free(&heads);
}
static void equal_heads(pi2_gguf_builder *builder) { heads_of_layers(builder, 4); }
static void other_heads(pi2_gguf_builder *builder) { heads_of_layers(builder, 2); }
static void own_word(pi2_gguf_builder *builder) {
    pi2_gguf_builder_string(builder, "llama.hidden_activation", "relu2");
}
static void none(pi2_gguf_builder *builder) { (void)builder; }

static void write_model(void (*spoil)(pi2_gguf_builder *builder)) {
    pi2_tiny_model_options options;
    pi2_gguf_builder builder;
    pi2_tiny_model_options_init(&options);
    options.attention_biases = true;
    options.chat_template = NULL;
    pi2_tiny_model_build(&options, &builder);
    spoil(&builder);
    assert_int_equal(pi2_gguf_builder_write(&builder, model_path), 0);
    pi2_gguf_builder_free(&builder);
}

static pi2_status open_engine(void) {
    pi2_engine_options options;
    pi2_engine *engine = NULL;
    pi2_engine_options_init(&options);
    options.model_path = model_path;
    const pi2_status status = pi2_engine_open(&options, &engine);
    pi2_engine_close(engine);
    return status;
}

static pi2_status plan(void) {
    pi2_engine_options options;
    pi2_plan *made = NULL;
    pi2_engine_options_init(&options);
    options.model_path = model_path;
    const pi2_status status = pi2_plan_make(&options, NULL, NULL, &made);
    pi2_plan_free(made);
    return status;
}

static pi2_status prepare(void) {
    const pi2_prepare_options options = { .model_path = model_path, .output_path = cluster_path };
    return pi2_prepare_file(&options, NULL);
}

static void expect_refusal(void (*spoil)(pi2_gguf_builder *builder), const char *word) {
    char reason[1024];
    pi2_model_file *file = NULL;
    write_model(spoil);
    const pi2_status status = open_engine();
    if (status != PI2_ERR_FORMAT && status != PI2_ERR_UNSUPPORTED) fail_msg("%s: %s", word, pi2_error_text());
    (void)snprintf(reason, sizeof reason, "%s", pi2_error_text());
    if (!strstr(reason, word) || !strstr(reason, "tiny.gguf")) fail_msg("no '%s' or no file in: %s", word, reason);
    assert_int_equal(plan(), status);
    assert_string_equal(pi2_error_text(), reason);
    assert_int_equal(prepare(), status);
    assert_string_equal(pi2_error_text(), reason);
    assert_int_not_equal(access(cluster_path, F_OK), 0);
    assert_int_equal(pi2_model_file_open(model_path, &file), PI2_OK);
    assert_false(pi2_model_file_summary(file)->runnable);
    assert_string_equal(pi2_model_file_summary(file)->not_runnable_reason, reason);
    pi2_model_file_close(file);
}

static void test_refusals(void **state) {
    (void)state;
    expect_refusal(norm_of_blocks, "blk.1.ffn_norm.weight' is Q8_0");
    expect_refusal(bias_of_blocks, "blk.0.attn_q.bias' is Q4_0");
    expect_refusal(short_norm, "output_norm.weight' has 128 x 1");
    expect_refusal(low_matrix, "blk.1.ffn_up.weight' is");
    expect_refusal(unknown_type, "blk.0.attn_k.weight");
    expect_refusal(scale_of_a_matrix, "token_embd.scale' at byte ");
    expect_refusal(scale_of_a_weight, "blk.0.attn_q.weight.scale' at byte ");
    expect_refusal(no_matrix, "blk.1.attn_v.weight' is missing");
    expect_refusal(no_norm, "output_norm.weight' is missing");
    expect_refusal(pre_tokenizer, "pre-tokenizer 'smallm'");
    expect_refusal(tokenizer, "is 'bert'");
    expect_refusal(no_tokens, "tokenizer.ggml.tokens");
    expect_refusal(no_merges, "tokenizer.ggml.merges");
    expect_refusal(architecture, "architecture 'lxama'");
    expect_refusal(no_heads, "attention.head_count");
    expect_refusal(window, "key 'llama.attention.sliding_window' is 16");
    expect_refusal(number_as_template, "tokenizer.chat_template");
    expect_refusal(norm_of_heads, "'blk.1.attn_q_norm.weight' at byte ");
    expect_refusal(bias_of_a_norm, "'blk.0.ffn_norm.bias' at byte ");
    expect_refusal(bias_of_the_head, "'output.bias' at byte ");
    expect_refusal(sees_ahead, "key 'llama.attention.causal' is false");
    expect_refusal(adapter, "this is an adapter (LoRA)");
    expect_refusal(importance, "this is an importance matrix");
    expect_refusal(other_heads, "key 'llama.attention.head_count' has 2 for layer 1 and 4 for another");
}

/* Nor does the check refuse what runs: as it is, and from its cluster file. */
static void test_what_runs(void **state) {
    (void)state;
    pi2_model_file *file = NULL;
    write_model(equal_heads);
    if (open_engine() != PI2_OK) fail_msg("%s", pi2_error_text());
    write_model(none);
    for (int is_cluster = 0; is_cluster < 2; is_cluster++) {
        if (open_engine() != PI2_OK || plan() != PI2_OK) fail_msg("%s", pi2_error_text());
        if (pi2_model_file_open(model_path, &file) != PI2_OK) fail_msg("%s", pi2_error_text());
        assert_true(pi2_model_file_summary(file)->runnable);
        assert_string_equal(pi2_model_file_summary(file)->not_runnable_reason, "");
        assert_string_equal(pi2_model_file_summary(file)->note, "");
        pi2_model_file_close(file);
        if (is_cluster) break;
        if (prepare() != PI2_OK) fail_msg("%s", pi2_error_text());
        memcpy(model_path, cluster_path, strlen(cluster_path) + 1); /* the shorter one */
    }
}

/* What a model's makers call its activation, by the key that converters write: from its cluster file too. */
static void test_own_word(void **state) {
    (void)state;
    pi2_model_file *file = NULL;
    write_model(own_word);
    if (prepare() != PI2_OK) fail_msg("%s", pi2_error_text());
    for (int is_cluster = 0; is_cluster < 2; is_cluster++) {
        assert_int_equal(pi2_model_file_open(is_cluster ? cluster_path : model_path, &file), PI2_OK);
        assert_string_equal(pi2_model_file_summary(file)->ffn_activation, "relu_squared");
        pi2_model_file_close(file);
    }
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    model_path = test_folder_path("tiny.gguf");
    cluster_path = test_folder_path("tiny.pi2");
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_refusals, set_up, test_folder_end),
        cmocka_unit_test_setup_teardown(test_what_runs, set_up, test_folder_end),
        cmocka_unit_test_setup_teardown(test_own_word, set_up, test_folder_end),
    };
    return cmocka_run_group_tests_name("whether a model can run", tests, NULL, NULL);
}
