/*
 * Goal:   planted zeros come out: their share by layer, how hot neurons are, how many fire again; and counting is the
 *         same whatever the threads and batches, and changes nothing.
 * Method: small models, dense and with experts, of types whose activations are kept in three ways; 512 tokens that
 *         are drawn. Bounds are absolute shares: 0.02 of zeros, 0.05 of hot neurons (of 1,024 that are drawn), 0.04 of
 *         those that repeat.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "powerinfer2/session.h"
#include "powerinfer2/sparsity.h"
#include "powerinfer2/synthetic.h"
#include "support/emulator.h"
#include "support/sanitizer.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { TOKENS = 512, VOCABULARY = 8192 };

static char *path;

static int set_up(void **state) {
    (void)test_folder_begin(state);
    path = test_folder_path("model.gguf");
    return 0;
}

static pi2_engine *open_engine(uint32_t threads, uint32_t batch) {
    pi2_engine_options options;
    pi2_engine *engine = NULL;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    options.context_tokens = TOKENS;
    options.thread_count = threads;
    options.batch_tokens = batch;
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    return engine;
}

static void fill_tokens(int32_t tokens[TOKENS], uint32_t vocabulary) {
    uint64_t random = 5;
    for (int i = 0; i < TOKENS; i++) tokens[i] = (int32_t)(pi2_tiny_random(&random) % vocabulary);
}

static pi2_sparsity *measure(pi2_engine *engine, uint32_t vocabulary, size_t count) {
    int32_t tokens[TOKENS];
    pi2_sparsity *sparsity = NULL;
    fill_tokens(tokens, vocabulary);
    if (pi2_sparsity_measure(engine, tokens, count, &sparsity) != PI2_OK) fail_msg("%s", pi2_error_text());
    return sparsity;
}

static void expect_near(const char *what, const char *name, double got, double wanted, double bound) {
    if (fabs(got - wanted) <= bound) return;
    fail_msg("%s: %s is %.3f, not within %.2f of %.3f", name, what, got, bound, wanted);
}

/* ---- planted and counted ---------------------------------------------------------------- */

static void small_shape(pi2_synthetic_options *options, const char *type, const char *activation) {
    pi2_synthetic_options_init(options);
    options->type = type;
    options->output_path = path;
    options->overwrite = true;
    options->shape.layer_count = 4;
    options->shape.embedding_length = 512;
    options->shape.feed_forward_length = 1024;
    options->shape.head_count = 8;
    options->shape.head_count_kv = 4;
    options->shape.vocabulary_size = VOCABULARY;
    options->shape.ffn_activation = activation;
}

/* Returns the share of tiles of 16 neurons that are zero wholly. */
static double check(const pi2_synthetic_options *options, const char *name) {
    const pi2_synthetic_shape *shape = &options->shape;
    if (pi2_synthetic_write(options, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
    pi2_engine *engine = open_engine(0, 0);
    pi2_sparsity *sparsity = measure(engine, VOCABULARY, TOKENS);
    const double last = shape->ffn_zeros_last != 0 ? shape->ffn_zeros_last : shape->ffn_zeros;
    assert_int_equal(sparsity->token_count, TOKENS);
    for (uint32_t i = 0; i < sparsity->layer_count; i++) {
        const pi2_layer_sparsity *layer = &sparsity->layers[i];
        const double wanted = shape->ffn_zeros + (last - shape->ffn_zeros) * i / (sparsity->layer_count - 1);
        expect_near("zeros", name, layer->zeros, wanted, 0.02);
        expect_near("hot", name, layer->hot, shape->neuron_hot, 0.05);
        assert_true(layer->rounded_zeros >= layer->zeros && layer->zero_tiles >= layer->zero_blocks);
        for (int r = 1; r < PI2_SPARSITY_RANKS; r++) assert_true(layer->by_rank[r] >= layer->by_rank[r - 1]);
    }
    expect_near("repeat", name, sparsity->mean.repeat, shape->neuron_repeat, 0.04);
    const double zero_tiles = sparsity->mean.zero_tiles;
    pi2_sparsity_free(sparsity);
    pi2_engine_close(engine);
    return zero_tiles;
}

static void planted_shares_come_out(void **state) {
    (void)state;
    pi2_synthetic_options options;
    static const char *const types[] = { "q4_0", "q4_k", "f16" };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (PI2_UNDER_TSAN && i > 0) break; /* the same threads */
        small_shape(&options, types[i], "drelu");
        options.shape.ffn_zeros = 0.9;
        options.shape.neuron_hot = 0.3;
        options.shape.neuron_repeat = 0.5;
        (void)check(&options, types[i]);
    }
    small_shape(&options, "q8_0", "relu");
    options.shape.ffn_zeros = 0.8;
    options.shape.ffn_zeros_last = 0.92;
    options.shape.neuron_hot = 0.4;
    options.shape.neuron_repeat = 0.4;
    const double at_random = check(&options, "by layer");
    /* Hot neurons in front lie in tiles together, and so do cold ones. */
    options.shape.hot_first = true;
    const double hot_first = check(&options, "hot first");
    assert_true(hot_first > at_random + 0.1);
}

static void experts_are_planted_too(void **state) {
    (void)state;
    pi2_synthetic_options options;
    small_shape(&options, "q4_0", "drelu");
    options.shape.expert_count = 4;
    options.shape.expert_used_count = 2;
    options.shape.ffn_zeros = 0.85;
    options.shape.neuron_hot = 0.36;
    options.shape.neuron_repeat = 0.55;
    (void)check(&options, "experts");
}

/* ---- refused ---------------------------------------------------------------------------- */

static void refuse(const pi2_synthetic_options *options, const char *text) {
    assert_int_equal(pi2_synthetic_write(options, NULL), PI2_ERR_INVALID);
    if (!strstr(pi2_error_text(), text)) fail_msg("'%s' is not in: %s", text, pi2_error_text());
}

static void impossible_shares_are_refused(void **state) {
    (void)state;
    pi2_synthetic_options options;
    small_shape(&options, "q4_0", "silu");
    options.shape.ffn_zeros = 0.9;
    refuse(&options, "--ffn-zeros needs an activation");
    options.shape.ffn_activation = "swish";
    refuse(&options, "there is no FFN activation 'swish'");
    options.shape.ffn_activation = NULL;
    refuse(&options, "--ffn-zeros needs an activation");
    options.shape.ffn_activation = "relu";
    options.shape.ffn_zeros = 1.5;
    refuse(&options, "--ffn-zeros 1.5");
    options.shape.ffn_zeros = 0.9;
    options.shape.neuron_repeat = 0.99;
    refuse(&options, "--neuron-repeat 0.99");
    options.shape.neuron_repeat = 0.0;
    options.shape.neuron_hot = 0.9;
    refuse(&options, "--neuron-hot 0.9");
    options.shape.ffn_zeros = 0.0;
    refuse(&options, "need --ffn-zeros");
    options.shape.neuron_hot = 0.0;
    options.shape.ffn_zeros = 0.9;
    options.shape.embedding_length = 128;
    refuse(&options, "--embedding 128");
    /* Of drelu's gates at least as many must be above zero as of its neurons. */
    small_shape(&options, "q4_0", "drelu");
    options.shape.ffn_zeros = 0.1;
    refuse(&options, "--neuron-hot");
}

/* ---- counting --------------------------------------------------------------------------- */

static void make_tiny(const char *architecture, const char *activation, pi2_weight_type type, uint32_t experts) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    pi2_tiny_model_set_types(&options, type);
    options.architecture = architecture;
    options.ffn_activation = activation;
    options.expert_count = experts;
    options.expert_used_count = experts ? 2 : 0;
    assert_int_equal(pi2_tiny_model_write(&options, path), 0);
}

static void counts_do_not_depend_on_threads_and_batches(void **state) {
    (void)state;
    static const struct { uint32_t threads, batch; } runs[] = { { 1, 128 }, { 2, 128 }, { 2, 1 }, { 2, 33 } };
    for (uint32_t experts = 0; experts <= 4; experts += 4) {
        make_tiny("llama", "relu", PI2_Q4_0, experts);
        pi2_sparsity *first = NULL;
        for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
            pi2_engine *engine = open_engine(runs[i].threads, runs[i].batch);
            pi2_sparsity *sparsity = measure(engine, 256, 200);
            if (!first) first = sparsity;
            assert_memory_equal(&sparsity->mean, &first->mean, sizeof first->mean);
            for (uint32_t l = 0; l < first->layer_count; l++) {
                assert_memory_equal(&sparsity->layers[l], &first->layers[l], sizeof first->layers[l]);
            }
            if (sparsity != first) pi2_sparsity_free(sparsity);
            pi2_engine_close(engine);
        }
        pi2_sparsity_free(first);
    }
}

static void counted_run_gives_the_same_logits(void **state) {
    (void)state;
    int32_t tokens[TOKENS];
    pi2_session *session = NULL;
    pi2_sparsity *sparsity = NULL;
    float before[64];
    fill_tokens(tokens, 256);
    make_tiny("llama", "drelu", PI2_Q8_0, 0);
    pi2_engine *engine = open_engine(2, 0);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
        assert_int_equal(pi2_sparsity_measure(engine, tokens, 8, &sparsity), PI2_ERR_INVALID); /* one session */
        assert_int_equal(pi2_session_append(session, tokens, 40, PI2_LOGITS_LAST), PI2_OK);
        if (round) assert_memory_equal(pi2_session_logits(session, 0), before, sizeof before);
        else memcpy(before, pi2_session_logits(session, 0), sizeof before);
        pi2_session_free(session);
        assert_int_equal(pi2_sparsity_measure(engine, tokens, 40, &sparsity), PI2_OK);
        pi2_sparsity_free(sparsity);
    }
    assert_int_equal(pi2_sparsity_measure(engine, tokens, TOKENS + 1, &sparsity), PI2_ERR_CONTEXT);
    assert_null(sparsity);
    pi2_engine_close(engine);
}

/* Random gates: SiLU gives no zero but by rounding, ReLU half of them, both on Gate and Up three quarters. */
static void counted_zeros_are_the_activations(void **state) {
    (void)state;
    static const struct { const char *activation; pi2_weight_type type; double zeros, bound; bool rounds; } cases[] = {
        { "silu", PI2_F32, 0.0, 0.0, false }, { "silu", PI2_Q4_K, 0.0, 0.0, true },
        { "gelu", PI2_Q4_0, 0.0, 0.0, true }, { "relu", PI2_F16, 0.5, 0.06, false },
        { "relu", PI2_Q8_0, 0.5, 0.06, true }, { "relu_squared", PI2_Q8_0, 0.5, 0.06, true },
        { "drelu", PI2_Q8_0, 0.75, 0.06, true } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make_tiny("llama", cases[i].activation, cases[i].type, 0);
        pi2_engine *engine = open_engine(2, 0);
        pi2_sparsity *sparsity = measure(engine, 256, 64);
        expect_near("zeros", cases[i].activation, sparsity->mean.zeros, cases[i].zeros, cases[i].bound);
        assert_int_equal(sparsity->mean.rounded_zeros > sparsity->mean.zeros, cases[i].rounds);
        pi2_sparsity_free(sparsity);
        pi2_engine_close(engine);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(planted_shares_come_out), cmocka_unit_test(experts_are_planted_too),
        cmocka_unit_test(impossible_shares_are_refused),
        cmocka_unit_test(counts_do_not_depend_on_threads_and_batches),
        cmocka_unit_test(counted_run_gives_the_same_logits), cmocka_unit_test(counted_zeros_are_the_activations),
    };
    return cmocka_run_group_tests_name("planted and counted sparsity", tests, set_up, test_folder_end);
}
