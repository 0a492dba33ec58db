/*
 * Goal:   every family beside the plain llama computes what its definition says: experts, routers,
 *         gating, norms of heads, rotated halves, windows, biases; what is not supported is refused
 *         by name.
 * Method: tiny random models against a float reference that shares nothing with the pipeline.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "file_formats/gguf.h"
#include "kernels/vector/ffn_activation.h"
#include "neuron_cache/cache_trace.h"
#include "powerinfer2/session.h"
#include "support/emulator.h"
#include "support/reference_check.h"
#include "support/sanitizer.h"
#include "support/session_run.h"
#include "support/temporary_files.h"

static const pi2_weight_type types[] = { PI2_F32, PI2_F16, PI2_BF16, PI2_Q8_0, PI2_Q4_0, PI2_Q4_1,
                                         PI2_Q5_0, PI2_Q5_1, PI2_Q4_K, PI2_Q6_K };

static bool is_exact(pi2_weight_type type) { return type == PI2_F32 || type == PI2_F16 || type == PI2_BF16; }

/* Of the logits' spread. Weights whose blocks are 256 long share one scale among as many activations: coarser. */
static double most_error(pi2_weight_type type) {
    return is_exact(type) ? 0.004 : type == PI2_Q4_K || type == PI2_Q6_K ? 0.1 : 0.08;
}

/* Under ThreadSanitizer one type for each way to store activations: the others take the same path. */
static bool is_left_out(pi2_weight_type type) {
    return PI2_UNDER_TSAN && type != PI2_F16 && type != PI2_Q4_0 && type != PI2_Q4_K;
}

/* Of 8-bit activations the router's scores have an error, by which it may prefer another expert. */
static void check_types(pi2_tiny_model_options *options) {
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (is_left_out(types[i])) continue;
        pi2_tiny_model_set_types(options, types[i]);
        pi2_check_against_reference(options, PI2_CACHE_F16, most_error(types[i]), is_exact(types[i]) ? 0.01 : 0.15);
    }
}

static void options_of(pi2_tiny_model_options *options, const char *architecture, uint32_t experts, uint32_t used) {
    pi2_tiny_model_options_init(options);
    options->architecture = architecture;
    options->expert_count = experts;
    options->expert_used_count = used;
}

static void test_mixtral(void **state) {
    (void)state;
    pi2_tiny_model_options options;
    options_of(&options, "llama", 5, 2);
    check_types(&options);
}

static void test_qwen3moe(void **state) {
    (void)state;
    pi2_tiny_model_options options;
    options_of(&options, "qwen3moe", 20, 4);
    options.head_norms = true;
    options.head_dimension = 128;
    options.expert_feed_forward_length = 256;
    options.seed = 2;
    check_types(&options);
}

static void test_smallthinker(void **state) {
    (void)state;
    pi2_tiny_model_options options;
    options_of(&options, "smallthinker", 16, 3);
    options.layer_count = PI2_UNDER_TSAN ? 2 : 5;
    options.expert_feed_forward_length = 256;
    options.expert_gating = 2;
    options.window = 7;
    options.seed = 2;
    check_types(&options);
    pi2_tiny_model_set_types(&options, PI2_F32);
    options.expert_gating = 1;
    pi2_check_against_reference(&options, PI2_CACHE_F16, 0.004, 0.01);
    options.window = 0;
    pi2_check_against_reference(&options, PI2_CACHE_F16, 0.004, 0.01);
}

static void test_dense_qwen(void **state) {
    (void)state;
    pi2_tiny_model_options options;
    options_of(&options, "qwen2", 0, 0);
    options.attention_biases = true;
    pi2_tiny_model_set_types(&options, PI2_F32);
    pi2_check_against_reference(&options, PI2_CACHE_F16, 0.004, 0.01);
    options_of(&options, "qwen3", 0, 0);
    options.head_norms = true;
    pi2_tiny_model_set_types(&options, PI2_F32);
    pi2_check_against_reference(&options, PI2_CACHE_F16, 0.004, 0.01);
}

/* One norm and one key head (7B), two norms and several (40B); a head of its own; an embedding of odd parts. */
static void test_falcon(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        pi2_tiny_model_options options;
        options_of(&options, "falcon", 0, 0);
        options.two_norms = i % 2;
        options.head_count_kv = i % 2 ? 2 : 1;
        options.tied_head = i < 2;
        if (i < 2) {
            check_types(&options);
            continue;
        }
        options.ffn_activation = i == 2 ? "relu" : NULL;
        options.embedding_length = 288;
        options.head_count = 6;
        options.feed_forward_length = 608;
        pi2_tiny_model_set_types(&options, PI2_F32);
        pi2_check_against_reference(&options, PI2_CACHE_F16, 0.004, 0);
    }
}

/* Learned positions, biases, in every type; heads are not shared. */
static void test_opt(void **state) {
    (void)state;
    pi2_tiny_model_options options;
    options_of(&options, "opt", 0, 0);
    options.head_count_kv = options.head_count;
    options.feed_forward_length = 608;
    pi2_tiny_model_set_types(&options, PI2_F32);
    pi2_check_against_reference(&options, PI2_CACHE_F16, 0.004, 0);
    options.feed_forward_length = 512;
    check_types(&options);
    options.tied_head = false;
    pi2_tiny_model_set_types(&options, PI2_F16);
    pi2_check_against_reference(&options, PI2_CACHE_F16, 0.004, 0);
}

/* A context ends where the model has no position any more: as chosen, and refused as asked for. */
static void test_learned_positions_bound_the_context(void **state) {
    (void)state;
    char *folder = test_folder_make(), *path = test_path(folder, "opt.gguf");
    pi2_tiny_model_options options;
    options_of(&options, "opt", 0, 0);
    options.head_count_kv = options.head_count;
    options.context_length = 50; /* and so many positions, no multiple of 16 */
    assert_int_equal(pi2_tiny_model_write(&options, path), 0);
    pi2_engine_options engine_options;
    pi2_engine_options_init(&engine_options);
    engine_options.model_path = path;
    engine_options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    pi2_engine *engine = NULL;
    pi2_session *session = NULL;
    if (pi2_engine_open(&engine_options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(pi2_engine_get_report(engine)->context_tokens, 50);
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    int32_t tokens[51];
    for (int32_t i = 0; i < 51; i++) tokens[i] = i;
    assert_int_equal(pi2_session_append(session, tokens, 50, PI2_LOGITS_LAST), PI2_OK);
    assert_int_not_equal(pi2_session_append(session, tokens, 1, PI2_LOGITS_LAST), PI2_OK);
    pi2_session_free(session);
    pi2_engine_close(engine);
    engine_options.context_tokens = 51;
    assert_int_equal(pi2_engine_open(&engine_options, &engine), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "a context of 51 tokens is asked for, and the model has positions for"));
    free(path);
    test_folder_remove(folder);
}

/* Every activation of the list, dense and in experts, with activations kept as floats and in 8 bits. */
static void test_activations(void **state) {
    (void)state;
    static const pi2_weight_type kept[] = { PI2_F32, PI2_Q4_0 };
    for (int i = 0; i < 2 * PI2_FFN_ACTIVATIONS; i++) {
        pi2_tiny_model_options options;
        options_of(&options, i % 2 ? "llama" : "qwen2", i % 2 ? 4 : 0, i % 2 ? 2 : 0);
        if (i % 2 && i / 2 == PI2_FFN_gelu_topk) continue; /* dense only: test_gate_keys */
        options.ffn_activation = pi2_ffn_activation_name((size_t)i / 2);
        options.layer_count = 1;
        options.feed_forward_length = 256;
        for (size_t t = 0; t < sizeof kept / sizeof kept[0]; t++) {
            pi2_tiny_model_set_types(&options, kept[t]);
            pi2_check_against_reference(&options, PI2_CACHE_F16, is_exact(kept[t]) ? 0.004 : 0.06,
                                        is_exact(kept[t]) ? 0 : 8);
        }
    }
}

/* f of one matrix and its bias goes to Down: every activation that can do without a Gate, in floats and in 8 bits. */
static void test_ungated(void **state) {
    (void)state;
    static const char *const activations[] = { "relu", "relu_squared", "gelu", "silu" };
    for (int i = 0; i < 8; i++) {
        pi2_tiny_model_options options;
        options_of(&options, i % 2 ? "llama" : "qwen2", 0, 0);
        options.ungated = true;
        options.ffn_activation = activations[i / 2];
        options.feed_forward_length = i % 2 ? 608 : 256;
        options.feed_forward_biases = i % 2;
        pi2_tiny_model_set_types(&options, PI2_F32);
        pi2_check_against_reference(&options, PI2_CACHE_F16, 0.004, 0);
        pi2_tiny_model_set_types(&options, i % 2 ? PI2_Q8_0 : PI2_Q4_0);
        pi2_check_against_reference(&options, PI2_CACHE_F16, 0.06, 0);
    }
    pi2_tiny_model_options options;
    options_of(&options, "llama", 0, 0);
    options.ungated = true;
    check_types(&options);
}

/* The option says what the file does not say, goes before what it says, and is told; it changes the result. */
static void test_activation_by_option(void **state) {
    (void)state;
    char *folder = test_folder_make(), *path = test_path(folder, "tiny.gguf");
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    pi2_session_run runs[3];
    static const struct { const char *file, *option; } cases[] = {
        { "drelu", NULL }, { NULL, "drelu" }, { "gelu", "drelu" } };
    for (size_t i = 0; i < 3; i++) {
        options.ffn_activation = cases[i].file;
        assert_int_equal(pi2_tiny_model_write(&options, path), 0);
        pi2_engine_options engine_options;
        pi2_engine_options_init(&engine_options);
        engine_options.model_path = path;
        engine_options.memory_bytes = PI2_TEST_PLENTY_BYTES;
        engine_options.ffn_activation = cases[i].option;
        pi2_engine *engine = NULL;
        if (pi2_engine_open(&engine_options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
        assert_string_equal(pi2_engine_get_report(engine)->ffn_activation, "drelu");
        assert_string_equal(pi2_engine_get_report(engine)->own_ffn_activation, "silu");
        pi2_session_run_make(engine, 20, 4, &runs[i]);
        pi2_engine_close(engine);
        if (i) pi2_session_run_compare(&runs[0], &runs[i], i);
        engine_options.ffn_activation = "reglu";
        assert_int_equal(pi2_engine_open(&engine_options, &engine), PI2_ERR_INVALID);
        assert_non_null(strstr(pi2_error_text(), "'reglu' is none of silu, gelu, relu, relu_squared, drelu, gelu_t"));
    }
    for (size_t i = 0; i < 3; i++) pi2_session_run_free(&runs[i]);
    free(path);
    test_folder_remove(folder);
}

/* gelu_topk cuts each layer's Gate where its key says: a share for all, one each, none; or Gemma 3n's own key. */
static void test_gate_keys(void **state) {
    (void)state;
    static const float one[] = { 0.9f }, shares[] = { 0.95f, 0.0f, 0.3f, 0.5f };
    static const float deviations[] = { 1.6448536f, -INFINITY, 0.0f, -0.5f };
    const struct { const float *shares, *deviations; uint32_t count; } cases[] = {
        { one, NULL, 0 }, { shares, NULL, 4 }, { NULL, deviations, 4 }, { shares, deviations, 4 } };
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        pi2_tiny_model_options options;
        options_of(&options, "qwen2", 0, 0);
        options.ffn_activation = "gelu_topk";
        options.layer_count = 4;
        options.feed_forward_length = 352;
        options.feed_forward_biases = true;
        options.gate_sparsity = cases[i / 2].shares;
        options.gate_deviations = cases[i / 2].deviations;
        options.gate_values = cases[i / 2].count;
        pi2_tiny_model_set_types(&options, i % 2 ? PI2_Q8_0 : PI2_F32);
        pi2_check_against_reference(&options, PI2_CACHE_F16, i % 2 ? 0.06 : 0.004, 0);
    }
}

/* Clusters of several extents, one cluster only, every expert used, one expert. */
static void test_shapes(void **state) {
    (void)state;
    pi2_tiny_model_options options;
    options_of(&options, "llama", 3, 3);
    pi2_tiny_model_set_types(&options, PI2_F32);
    options.embedding_length = 1024;
    options.head_count = 8;
    options.feed_forward_length = 352;
    options.layer_count = 1;
    pi2_check_against_reference(&options, PI2_CACHE_F16, 0.004, 0.01);
    options.expert_count = options.expert_used_count = 1;
    options.feed_forward_length = 32;
    pi2_check_against_reference(&options, PI2_CACHE_F16, 0.004, 0.01);
    options.expert_count = 17;
    options.expert_used_count = 2;
    options.gate_type = PI2_Q4_0;
    options.up_type = PI2_F16;
    options.down_type = PI2_Q8_0;
    pi2_check_against_reference(&options, PI2_CACHE_F16, 0.08, 0.15);
}

/* Where all scores are equal the experts with the lowest numbers are chosen. */
static void test_equal_scores(void **state) {
    (void)state;
    char *folder = test_folder_make();
    char *path = test_path(folder, "equal.gguf"), *trace_path = test_path(folder, "trace");
    pi2_tiny_model_options options;
    options_of(&options, "llama", 7, 3);
    assert_int_equal(pi2_tiny_model_write(&options, path), 0);
    pi2_gguf *gguf = NULL;
    assert_int_equal(pi2_gguf_open(path, &gguf), PI2_OK);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    for (uint32_t l = 0; l < options.layer_count; l++) {
        char name[64];
        (void)snprintf(name, sizeof name, "blk.%u.ffn_gate_inp.weight", l);
        const pi2_gguf_tensor *router = pi2_gguf_tensor_find(gguf, name);
        assert_non_null(router);
        assert_int_equal(fseek(file, (long)router->file_offset, SEEK_SET), 0);
        for (uint64_t i = 0; i < router->bytes; i++) assert_int_equal(fputc(0, file), 0);
    }
    assert_int_equal(fclose(file), 0);
    pi2_gguf_close(gguf);
    pi2_engine_options engine_options;
    pi2_engine_options_init(&engine_options);
    engine_options.model_path = path;
    engine_options.record_trace = trace_path;
    pi2_engine *engine = NULL;
    pi2_session *session = NULL;
    if (pi2_engine_open(&engine_options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    const int32_t token = 5;
    assert_int_equal(pi2_session_append(session, &token, 1, PI2_LOGITS_LAST), PI2_OK);
    pi2_session_free(session);
    pi2_engine_close(engine);
    pi2_trace trace;
    if (pi2_trace_read(trace_path, &trace) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(trace.key_count, 3 * options.layer_count);
    for (uint32_t i = 0; i < trace.key_count; i++) assert_int_equal(trace.keys[i] % 7, i % 3);
    pi2_trace_free(&trace);
    free(path);
    free(trace_path);
    test_folder_remove(folder);
}

static void refuse(const pi2_tiny_model_options *options, const char *tensor, pi2_status want, const char *text) {
    char *folder = test_folder_make(), *path = test_path(folder, "odd.gguf");
    pi2_gguf_builder builder;
    pi2_tiny_model_build(options, &builder);
    const uint64_t length = 16;
    const float zeros[16] = { 0 };
    if (tensor) {
        pi2_gguf_builder_tensor(&builder, tensor, PI2_F32, 1, &length, (const unsigned char *)zeros, sizeof zeros);
    }
    assert_int_equal(pi2_gguf_builder_write(&builder, path), 0);
    pi2_gguf_builder_free(&builder);
    pi2_engine_options engine_options;
    pi2_engine_options_init(&engine_options);
    engine_options.model_path = path;
    pi2_engine *engine = NULL;
    assert_int_equal(pi2_engine_open(&engine_options, &engine), want);
    if (!strstr(pi2_error_text(), text)) fail_msg("'%s' is not in: %s", text, pi2_error_text());
    free(path);
    test_folder_remove(folder);
}

static void test_refusals(void **state) {
    (void)state;
    pi2_tiny_model_options options;
    options_of(&options, "qwen3moe", 4, 2);
    options.head_norms = true;
    refuse(&options, "blk.1.ffn_gate_shexp.weight", PI2_ERR_UNSUPPORTED, "blk.1.ffn_gate_shexp.weight");
    refuse(&options, "blk.0.exp_probs_b.bias", PI2_ERR_UNSUPPORTED, "exp_probs_b");
    options.head_norms = false;
    refuse(&options, NULL, PI2_ERR_FORMAT, "attn_q_norm.weight");
    options_of(&options, "qwen3moe", 4, 5);
    refuse(&options, NULL, PI2_ERR_FORMAT, "expert_used_count");
    options_of(&options, "qwen3moe", 4, 0);
    refuse(&options, NULL, PI2_ERR_FORMAT, "expert_used_count");
    options_of(&options, "qwen3moe", 0, 0);
    refuse(&options, NULL, PI2_ERR_FORMAT, "expert_count");
    options_of(&options, "qwen2", 4, 2);
    refuse(&options, NULL, PI2_ERR_UNSUPPORTED, "4 experts");
    options_of(&options, "llama", 0, 0);
    options.ffn_activation = "swish\n";
    refuse(&options, NULL, PI2_ERR_UNSUPPORTED, "'powerinfer2.ffn_activation' is 'swish?'; this version computes");
    options.ffn_activation = "gelu_topk";
    static const float wrong[] = { 0.5f, 1.0f, -0.1f, NAN, 13.0f, INFINITY };
    options.gate_sparsity = wrong;
    options.gate_values = options.layer_count + 1;
    refuse(&options, NULL, PI2_ERR_FORMAT, "'powerinfer2.ffn_activation_sparsity' has 3 values, the model 2 layers");
    options.gate_values = 2;
    refuse(&options, NULL, PI2_ERR_FORMAT, "'powerinfer2.ffn_activation_sparsity' has 1 for layer 1");
    for (options.gate_values = 0; options.gate_values < 3; options.gate_values += 2) {
        options.gate_sparsity = wrong + 2;
        refuse(&options, NULL, PI2_ERR_FORMAT, "has -0.1 for layer 0: a share of zeros is at least 0 and less than 1");
        options.gate_sparsity = wrong + 3;
        refuse(&options, NULL, PI2_ERR_FORMAT, "'powerinfer2.ffn_activation_sparsity' has nan for layer 0");
    }
    options.gate_sparsity = NULL;
    options.gate_values = 2;
    float pair[] = { -INFINITY, 0.0f };
    options.gate_deviations = pair;
    for (int i = 3; i < 6; i++) {
        pair[1] = wrong[i];
        refuse(&options, NULL, PI2_ERR_FORMAT, "standard deviations above the mean: at most 12 is possible");
    }
    options.gate_values = 1;
    refuse(&options, NULL, PI2_ERR_FORMAT, "'gemma3n.activation_sparsity_scale' has 1 values, the model 2 layers");
    options_of(&options, "llama", 0, 0);
    options.ungated = true;
    refuse(&options, "blk.1.ffn_gate.weight", PI2_ERR_UNSUPPORTED, "'blk.1.ffn_gate.weight' is there, but layer 0 has");
    static const char *const gated[] = { "drelu", "gelu_topk" };
    for (int i = 0; i < 2; i++) {
        options.ffn_activation = gated[i];
        refuse(&options, NULL, PI2_ERR_UNSUPPORTED, "needs a Gate and an Up, and this model's FFN has no");
    }
    options_of(&options, "falcon", 0, 0);
    refuse(&options, "blk.1.attn_norm_2.weight", PI2_ERR_UNSUPPORTED, "'blk.1.attn_norm_2.weight' is there, but layer");
    refuse(&options, "blk.1.attn_qkv.bias", PI2_ERR_UNSUPPORTED, "'blk.1.attn_qkv.bias' is not supported in a falcon");
    refuse(&options, "blk.0.ffn_norm.weight", PI2_ERR_UNSUPPORTED, "'blk.0.ffn_norm.weight' is not supported in a fal");
    options_of(&options, "llama", 4, 2);
    options.ffn_activation = "gelu_topk";
    refuse(&options, NULL, PI2_ERR_UNSUPPORTED, "gelu_topk is computed in dense FFNs only, and this model has 4");
    options_of(&options, "gptoss", 4, 2);
    refuse(&options, NULL, PI2_ERR_UNSUPPORTED, "Ollama's own form of gpt-oss");
    options_of(&options, "llama", 0, 0);
    options.rope_scaling = "longrope";
    refuse(&options, NULL, PI2_ERR_FORMAT, "'rope_factors_short.weight' is missing");
    options.rope_scaling = "dynamic";
    refuse(&options, NULL, PI2_ERR_UNSUPPORTED, "llama.rope.scaling.type is 'dynamic'; linear, yarn and longrope are");
    options_of(&options, "smallthinker", 4, 2);
    options.expert_gating = 3;
    refuse(&options, NULL, PI2_ERR_UNSUPPORTED, "expert_gating_func is 3");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixtral), cmocka_unit_test(test_qwen3moe), cmocka_unit_test(test_smallthinker),
        cmocka_unit_test(test_dense_qwen), cmocka_unit_test(test_falcon), cmocka_unit_test(test_activations),
        cmocka_unit_test(test_opt), cmocka_unit_test(test_learned_positions_bound_the_context),
        cmocka_unit_test(test_ungated),
        cmocka_unit_test(test_activation_by_option), cmocka_unit_test(test_gate_keys), cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_equal_scores),
    };
    return cmocka_run_group_tests_name("families of models", tests, NULL, NULL);
}
