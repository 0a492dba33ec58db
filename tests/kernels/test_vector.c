/*
 * Goal:   every set in vector.inc gives the scalar set's bits and writes nothing else, and
 *         the scalar set computes what its header says.
 * Method: sizes 0 .. 70 and larger odd ones, awkward values, guard words behind the output;
 *         then double precision as an independent reference.
 */
#include "float_test.h"

#include "base/cpu_features.h"
#include "kernels/activations.h"
#include "kernels/vector/vector.h"

enum { MAX_COUNT = 2311, GUARD = 16, GUARD_BITS = 0x5a5a5a5a };

static const float awkward_floats[] = {
    0.0f,       -0.0f,     1.0f,       -1.0f,     0x1p-149f, -0x1p-149f, 0x1p-126f,
    -0x1p-126f, 0x1p-120f, 0x1p-119f,  3e38f,     -3e38f,    88.0f,      88.72f,
    88.73f,     -87.3f,    -87.4f,     -103.9f,   -104.1f,   127.5f,     -126.5f,
    65504.0f,   65520.0f,  6.1035e-5f, 5.96e-8f,  0.5f,      1.5f,       2.5f,
    INFINITY,   -INFINITY, NAN};
enum { AWKWARD_COUNT = sizeof awkward_floats / sizeof awkward_floats[0] };

static const size_t counts[] = {0,   1,   2,   3,   5,   7,    8,    9,    15,   16,  17,
                                23,  24,  31,  32,  33,  47,   48,   49,   63,   64,  65,
                                79,  80,  95,  127, 128, 129,  255,  256,  257,  576, 1000,
                                1023, 1024, 1536, 2048, 2311};
enum { COUNT_COUNT = sizeof counts / sizeof counts[0] };

typedef struct buffers {
    float want[MAX_COUNT + GUARD];
    float got[MAX_COUNT + GUARD];
    float a[MAX_COUNT + GUARD];
    float b[MAX_COUNT + GUARD];
} buffers;

static void set_guard(float *x, size_t count) {
    for (size_t i = 0; i < GUARD; i++) x[count + i] = float_of_bits(GUARD_BITS);
}

static void check_guard(const char *what, const float *x, size_t count) {
    for (size_t i = 0; i < GUARD; i++) {
        if (bits_of_float(x[count + i]) != GUARD_BITS) fail_msg("%s: wrote behind %zu", what, count);
    }
}

/* kind 0: ordinary numbers; 1: large ones; 2: mixed with awkward ones; 3: any bits at all. */
enum { KINDS = 4 };
static void fill(float_rng *rng, float *x, size_t count, int kind) {
    for (size_t i = 0; i < count; i++) {
        const uint64_t random = float_rng_next(rng);
        if (kind == 3) x[i] = float_of_bits((uint32_t)random);
        else if (kind == 2 && random % 8 == 0) x[i] = awkward_floats[(random >> 8) % AWKWARD_COUNT];
        else x[i] = float_rng_uniform(rng, -1.0f, 1.0f) * (kind == 1 ? 100.0f : 4.0f);
    }
}

/* The activations of the list come first, by their numbers. */
typedef enum operation {
    RMS_NORM = PI2_FFN_ACTIVATIONS, LAYER_NORM, ADD, ADD_SCALED, SOFTMAX, ROPE_NORM, ROPE_NEOX, OPERATIONS
} operation;
static const char *const operation_names[OPERATIONS] = {
#define FFN_ACTIVATION(name, sparse) [PI2_FFN_##name] = #name,
#include "powerinfer2/ffn_activations.inc"
#undef FFN_ACTIVATION
    [RMS_NORM] = "rms_norm", [LAYER_NORM] = "layer_norm", [ADD] = "add", [ADD_SCALED] = "add_scaled",
    [SOFTMAX] = "softmax", [ROPE_NORM] = "rope_norm", [ROPE_NEOX] = "rope_neox"};
static bool is_activation(operation op) { return op < RMS_NORM; }

static float layer_norm_bias[MAX_COUNT]; /* filled by each test that applies it */

/* out holds x before an in-place operation. */
static void apply(const pi2_vector_kernels *k, operation op, float *out, const float *a,
                  const float *b, size_t count) {
    if (is_activation(op)) {
        k->activate[op](out, a, b, count);
        return;
    }
    switch ((int)op) {
    case RMS_NORM: k->rms_norm(out, a, b, count, 1e-5f); break;
    case LAYER_NORM: k->layer_norm(out, a, b, layer_norm_bias, count, 1e-5f); break;
    case ADD: k->add(out, b, count); break;
    case ADD_SCALED: k->add_scaled(out, b, 0.37f, count); break;
    case SOFTMAX: k->softmax(out, count); break;
    case ROPE_NORM: k->rope_norm(out, b, count / 2 * 2); break;
    case ROPE_NEOX: k->rope_neox(out, b, count / 2 * 2); break;
    }
}

static void check_operation(const pi2_vector_kernels *k, operation op, float_rng *rng) {
    static buffers t;
    const pi2_vector_kernels *scalar = pi2_vector_kernel_sets[0];
    char what[64];
    (void)snprintf(what, sizeof what, "%s %s", k->name, operation_names[op]);
    for (size_t c = 0; c < COUNT_COUNT; c++) {
        for (int kind = 0; kind < KINDS; kind++) {
            const size_t count = counts[c];
            fill(rng, t.a, count, kind);
            fill(rng, t.b, count, kind);
            fill(rng, layer_norm_bias, count, kind);
            memcpy(t.want, t.a, count * sizeof(float));
            memcpy(t.got, t.a, count * sizeof(float));
            set_guard(t.got, count);
            apply(scalar, op, t.want, t.a, t.b, count);
            apply(k, op, t.got, t.a, t.b, count);
            check_same_floats(what, t.want, t.got, count);
            check_guard(what, t.got, count);
            if (op == RMS_NORM || op == LAYER_NORM || is_activation(op)) { /* out may be an input */
                memcpy(t.got, t.a, count * sizeof(float));
                apply(k, op, t.got, t.got, t.b, count);
                check_same_floats(what, t.want, t.got, count);
                memcpy(t.got, t.b, count * sizeof(float));
                if (is_activation(op)) {
                    apply(k, op, t.got, t.a, t.got, count);
                    check_same_floats(what, t.want, t.got, count);
                }
            }
        }
    }
}

static void check_exp(const pi2_vector_kernels *k, float_rng *rng) {
    /* silu with up = 1 shows every bit of exp that matters; softmax with max 0 shows the rest. */
    static float gate[4096];
    static float up[4096];
    static float want[4096];
    static float got[4096];
    for (size_t i = 0; i < 4096; i++) up[i] = 1.0f;
    for (int round = 0; round < 60; round++) {
        for (size_t i = 0; i < 4096; i++) {
            gate[i] = round % 2 ? float_of_bits((uint32_t)float_rng_next(rng))
                                : float_rng_uniform(rng, -110.0f, 90.0f);
        }
        pi2_vector_kernel_sets[0]->activate[PI2_FFN_silu](want, gate, up, 4096);
        k->activate[PI2_FFN_silu](got, gate, up, 4096);
        check_same_floats(k->name, want, got, 4096);
        for (size_t i = 0; i < 16; i++) want[i] = got[i] = -(gate[i] < 0 ? -gate[i] : gate[i]);
        want[0] = got[0] = 0.0f;
        pi2_vector_kernel_sets[0]->softmax(want, 16);
        k->softmax(got, 16);
        check_same_floats(k->name, want, got, 16);
    }
}

typedef struct quantized {
    signed char values[2560 + 64];
    float scales[80 + 4];
    short sums[160 + 4];
} quantized;

static void quantize(const pi2_vector_kernels *k, size_t block, quantized *out, const float *x,
                     size_t count) {
    memset(out, 0x5a, sizeof *out);
    if (block == 32) k->quantize_q8_32(out->values, out->scales, out->sums, x, count);
    else k->quantize_q8_256(out->values, out->scales, out->sums, x, count);
}

static void check_quantize(const pi2_vector_kernels *k, size_t block, float_rng *rng) {
    static float x[2560];
    static quantized want;
    static quantized got;
    for (size_t count = 0; count <= 2560; count += block) {
        for (int kind = 0; kind <= KINDS; kind++) {
            fill(rng, x, count, kind % KINDS);
            for (size_t i = 0; kind == KINDS && i < count; i++) { /* ties, in every block */
                x[i] = i % block ? (float)((int)(float_rng_next(rng) % 509) - 254) * 0.5f : 127.0f;
            }
            quantize(pi2_vector_kernel_sets[0], block, &want, x, count);
            quantize(k, block, &got, x, count);
            assert_memory_equal(want.values, got.values, sizeof want.values);
            assert_memory_equal(want.sums, got.sums, sizeof want.sums);
            assert_memory_equal(want.scales, got.scales, sizeof want.scales);
        }
    }
}

static void test_sets_give_equal_bits(void **state) {
    (void)state;
    float_rng rng = {3};
    const unsigned cpu = pi2_cpu_features();
    for (size_t i = 0; i < pi2_vector_kernel_set_count; i++) {
        const pi2_vector_kernels *k = pi2_vector_kernel_sets[i];
        if (k->cpu_required & ~cpu) {
            print_message("skipped %s: this CPU, or PI2_CPU, lacks it\n", k->name);
            continue;
        }
        for (int op = 0; op < OPERATIONS; op++) check_operation(k, (operation)op, &rng);
        check_exp(k, &rng);
        check_quantize(k, 32, &rng);
        check_quantize(k, 256, &rng);
    }
}

static void test_against_double(void **state) {
    (void)state;
    static buffers t;
    float_rng rng = {4};
    const pi2_vector_kernels *k = pi2_vector_kernel_sets[0];
    for (size_t c = 1; c < COUNT_COUNT; c++) {
        const size_t n = counts[c];
        fill(&rng, t.a, n, 0);
        fill(&rng, t.b, n, 0);
        fill(&rng, layer_norm_bias, n, 0);
        double squares = 0.0, sum = 0.0, mean = 0.0, variance = 0.0;
        for (size_t i = 0; i < n; i++) mean += (double)t.a[i] / (double)n;
        for (size_t i = 0; i < n; i++) variance += pow((double)t.a[i] - mean, 2) / (double)n;
        for (size_t i = 0; i < n; i++) {
            squares += (double)t.a[i] * (double)t.a[i];
            sum += exp((double)t.a[i]);
        }
        const double norm = 1.0 / sqrt(squares / (double)n + (double)1e-5f);
        for (int op = 0; op <= SOFTMAX; op++) {
            memcpy(t.got, t.a, sizeof t.a);
            apply(k, (operation)op, t.got, t.a, t.b, n);
            for (size_t i = 0; i < n; i++) {
                const double a = (double)t.a[i];
                const double b = (double)t.b[i];
                const double positive = a > 0 ? a : 0;
                const double want[] = {
                    [PI2_FFN_silu] = a / (1.0 + exp(-a)) * b,
                    [PI2_FFN_gelu] =
                        0.5 * a * (1.0 + tanh(0.7978845608028654 * (a + 0.044715 * a * a * a))) * b,
                    [PI2_FFN_relu] = positive * b, [PI2_FFN_relu_squared] = positive * positive * b,
                    [PI2_FFN_drelu] = positive * (b > 0 ? b : 0),
                    [PI2_FFN_gelu_topk] = 0.5 * positive * b *
                        (1.0 + tanh(0.7978845608028654 * (positive + 0.044715 * positive * positive * positive))),
                    [PI2_FFN_silu_clamped] = fmin(a, 7) / (1.0 + exp(-1.702 * fmin(a, 7))) *
                        (fmax(fmin(b, 7), -7) + 1),
                    [RMS_NORM] = a * norm * b, [ADD] = a + b,
                    [LAYER_NORM] = (a - mean) / sqrt(variance + (double)1e-5f) * b + (double)layer_norm_bias[i],
                    [ADD_SCALED] = a + (double)0.37f * b, [SOFTMAX] = exp(a) / sum};
                assert_near((double)t.got[i], want[op], 2e-6, 5e-7);
                if (op == SOFTMAX) assert_near((double)t.got[i], want[op], 2e-6, 0.0);
            }
        }
    }
}

/* What is_sparse promises: a gate, or for drelu an up, that is not above zero gives a zero. */
static void test_sparse_activations_give_zeros(void **state) {
    (void)state;
    const float off[] = {-1.0f, -0.0f, 0.0f, -3e38f, -0x1p-149f}, on[] = {1.0f, 2.0f, 3.0f, 0.5f, 0.25f};
    for (int i = 0; i < PI2_FFN_ACTIVATIONS; i++) {
        float out[5];
        size_t zeros = 0;
        pi2_vector_kernel_sets[0]->activate[i](out, off, on, 5);
        for (size_t j = 0; j < 5; j++) zeros += out[j] == 0.0f;
        assert_int_equal(zeros == 5, pi2_ffn_activation_is_sparse((pi2_ffn_activation)i));
        pi2_ffn_activation found;
        const char *name = pi2_ffn_activation_name((size_t)i);
        assert_true(pi2_ffn_activation_find(name, strlen(name), &found) && found == (pi2_ffn_activation)i);
        assert_non_null(strstr(pi2_ffn_activation_names(), name));
    }
    pi2_ffn_activation none;
    assert_false(pi2_ffn_activation_find("rel", 3, &none));
    assert_false(pi2_ffn_activation_find("", 0, &none));
}

static void test_rope_rotates_the_right_pairs(void **state) {
    (void)state;
    const pi2_vector_kernels *k = pi2_vector_kernel_sets[0];
    const float cos_sin[] = {0.6f, 0.8f, 0.0f, 1.0f, 1.0f, 0.0f};
    float norm[] = {1, 2, 3, 4, 5, 6};
    k->rope_norm(norm, cos_sin, 6);
    const double want_norm[] = {0.6 - 1.6, 1.2 + 0.8, -4, 3, 5, 6};
    float neox[] = {1, 3, 5, 2, 4, 6};
    k->rope_neox(neox, cos_sin, 6);
    const double want_neox[] = {0.6 - 1.6, -4, 5, 1.2 + 0.8, 3, 6};
    for (size_t i = 0; i < 6; i++) {
        assert_near((double)norm[i], want_norm[i], 1e-6, 0.0);
        assert_near((double)neox[i], want_neox[i], 1e-6, 0.0);
    }
}

static void test_quantize_meaning(void **state) {
    (void)state;
    static float x[512];
    static quantized q;
    float_rng rng = {5};
    for (size_t block = 32; block <= 256; block *= 8) {
        const size_t group = block == 32 ? 32 : 16;
        float_rng_fill(&rng, x, 512, -3.0f, 3.0f);
        memset(x, 0, block * sizeof(float)); /* the first block is zeros */
        quantize(pi2_vector_kernel_sets[0], block, &q, x, 512);
        assert_true(bits_of_float(q.scales[0]) == 0);
        for (size_t i = 0; i < 512; i++) {
            const float scale = q.scales[i / block];
            assert_in_range(q.values[i] + 127, 0, 254);
            assert_near((double)scale * q.values[i], (double)x[i], 0.0, 0.50001 * (double)scale);
        }
        for (size_t g = 0; g < 512 / group; g++) {
            int sum = 0;
            for (size_t i = 0; i < group; i++) sum += q.values[g * group + i];
            assert_int_equal(q.sums[g], sum);
        }
        for (size_t b = block; b < 512; b += block) {
            float amax = 0.0f;
            int largest = 0;
            for (size_t i = b; i < b + block; i++) {
                amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
                largest = abs(q.values[i]) > largest ? abs(q.values[i]) : largest;
            }
            assert_true(q.scales[b / block] == amax / 127.0f);
            assert_int_equal(largest, 127);
        }
    }
}

static void test_bad_blocks_show_themselves(void **state) {
    (void)state;
    static float x[256];
    static quantized q;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++) {
        for (size_t j = 0; j < 256; j++) x[j] = 1.0f;
        x[77] = bad[i];
        quantize(pi2_vector_kernel_sets[0], 256, &q, x, 256);
        assert_true(isnan(q.scales[0]));
        assert_int_equal(q.values[0], 0);
        assert_int_equal(q.values[77], 0);
    }
    for (size_t j = 0; j < 256; j++) x[j] = 0x1p-140f; /* 127 / amax would overflow */
    quantize(pi2_vector_kernel_sets[0], 256, &q, x, 256);
    assert_true(q.scales[0] == 0.0f);
    assert_int_equal(q.values[0], 0);
}

static void test_activations_go_to_their_slot(void **state) {
    (void)state;
    enum { COLUMNS = 512, TOKENS = 3 };
    static int8_t values[TOKENS * COLUMNS];
    static float scales[TOKENS * 16];
    static int16_t sums[TOKENS * 32];
    static float x[COLUMNS];
    static quantized want;
    float_rng rng = {6};
    float_rng_fill(&rng, x, COLUMNS, -1.0f, 1.0f);
    for (size_t block = 32; block <= 256; block *= 8) {
        const size_t group = block == 32 ? 32 : 16;
        memset(values, 0x11, sizeof values);
        memset(scales, 0x11, sizeof scales);
        memset(sums, 0x11, sizeof sums);
        pi2_activations a = {
            .kind = block == 32 ? PI2_ACTIVATION_Q8_32 : PI2_ACTIVATION_Q8_256,
            .token_count = TOKENS, .columns = COLUMNS, .value_stride = COLUMNS,
            .block_stride = 16, .sum_stride = 32, .values = values, .scales = scales,
            .sums = sums};
        pi2_activations_quantize(&a, 1, 256, 256, x + 256);
        quantize(pi2_vector_kernel_sets[0], block, &want, x + 256, 256);
        assert_memory_equal(values + COLUMNS + 256, want.values, 256);
        assert_memory_equal(scales + 16 + 256 / block, want.scales, 256 / block * sizeof(float));
        assert_memory_equal(sums + 32 + 256 / group, want.sums, 256 / group * sizeof(short));
        assert_int_equal(values[COLUMNS + 255], 0x11); /* and nowhere else */
        assert_int_equal(values[2 * COLUMNS], 0x11);
        assert_int_equal(sums[32 + 256 / group - 1], 0x1111);
        assert_int_equal(bits_of_float(scales[16 + 256 / block - 1]), 0x11111111);
        assert_int_equal(bits_of_float(scales[16 + 512 / block]), 0x11111111);
    }
}

static void test_select_obeys_the_features(void **state) {
    (void)state;
    assert_string_equal(pi2_vector_select(PI2_CPU_NONE)->name, "scalar");
    for (size_t i = 0; i < pi2_vector_kernel_set_count; i++) {
        const pi2_vector_kernels *k = pi2_vector_kernel_sets[i];
        assert_ptr_equal(pi2_vector_select(k->cpu_required), k);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sets_give_equal_bits),
        cmocka_unit_test(test_against_double),
        cmocka_unit_test(test_sparse_activations_give_zeros),
        cmocka_unit_test(test_rope_rotates_the_right_pairs),
        cmocka_unit_test(test_quantize_meaning),
        cmocka_unit_test(test_bad_blocks_show_themselves),
        cmocka_unit_test(test_activations_go_to_their_slot),
        cmocka_unit_test(test_select_obeys_the_features),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
