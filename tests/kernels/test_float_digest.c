/*
 * Goal:   the bits are those of every other machine and compiler, not only of this machine's
 *         scalar set. The digest was the same from x86-64 (scalar, AVX2, AVX-512) and aarch64
 *         (scalar, NEON). It changes only when docs/arithmetic.md does.
 * Method: a chain of operations on fixed pseudo-random numbers, hashed with FNV-1a.
 */
#include "float_test.h"

#include "base/cpu_features.h"
#include "kernels/attention/attention.h"
#include "kernels/vector/vector.h"

enum { COUNT = 1000, DIMENSIONS = 64, QUERIES = 9, POSITIONS = 300 };
static const uint64_t expected = UINT64_C(0x56c20d9a0785a63e);

typedef struct digest {
    uint64_t random;
    uint64_t hash;
} digest;

static float next_float(digest *s) {
    s->random = s->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (float)(s->random >> 40) * 0x1p-23f - 1.0f;
}

static void add_bytes(digest *s, const void *bytes, size_t count) {
    const unsigned char *at = bytes;
    for (size_t i = 0; i < count; i++) s->hash = (s->hash ^ at[i]) * UINT64_C(1099511628211);
}

static void digest_vectors(digest *s, const pi2_vector_kernels *k) {
    static float x[COUNT];
    static float y[COUNT];
    static float w[COUNT];
    for (size_t round = 0; round < 20; round++) {
        for (size_t i = 0; i < COUNT; i++) {
            x[i] = next_float(s) * 9.0f;
            y[i] = next_float(s);
            w[i] = next_float(s);
        }
        k->rms_norm(x, x, w, COUNT - round, 1e-5f);
        k->activate[PI2_FFN_silu](y, x, y, COUNT - round);
        add_bytes(s, y, sizeof y);
        k->rope_neox(x, w, COUNT - 2);
        k->rope_norm(x, w, COUNT - 2);
        add_bytes(s, x, sizeof x);
        k->add_scaled(x, y, 0.3f, COUNT);
        k->softmax(x, COUNT - round);
        add_bytes(s, x, sizeof x);
        signed char values[768];
        float scales[24];
        short sums[48];
        k->quantize_q8_32(values, scales, sums, y, 768);
        add_bytes(s, values, sizeof values);
        add_bytes(s, scales, sizeof scales);
        k->quantize_q8_256(values, scales, sums, y, 768);
        add_bytes(s, values, sizeof values);
        add_bytes(s, sums, sizeof sums);
    }
}

static void digest_attention(digest *s, const pi2_attention_kernels *k, pi2_kv_type type) {
    static float rows[2][DIMENSIONS];
    static float queries[QUERIES][DIMENSIONS];
    static float out[QUERIES][DIMENSIONS];
    static float scores[PI2_ATTENTION_GROUP * 320];
    const pi2_kv_layout layout = {type, DIMENSIONS, DIMENSIONS, 304, false};
    const size_t bytes = pi2_kv_head_bytes(&layout);
    void *head = calloc(1, bytes);
    assert_non_null(head);
    for (uint32_t p = 0; p < POSITIONS; p++) {
        for (size_t d = 0; d < DIMENSIONS; d++) {
            rows[0][d] = next_float(s);
            rows[1][d] = next_float(s);
        }
        k->store(head, &layout, p, rows[0], rows[1]);
    }
    float *outs[QUERIES];
    const float *query_rows[QUERIES];
    uint32_t key_counts[QUERIES];
    uint32_t first_keys[QUERIES];
    for (uint32_t i = 0; i < QUERIES; i++) {
        for (size_t d = 0; d < DIMENSIONS; d++) queries[i][d] = next_float(s) * 3.0f;
        outs[i] = out[i];
        query_rows[i] = queries[i];
        key_counts[i] = 290 + i;
        first_keys[i] = i * 5;
    }
    const pi2_attention_scoring scoring = { .scale = 0.125f };
    k->attend(outs, query_rows, key_counts, first_keys, QUERIES, head, &layout, NULL, &scoring, scores,
              320);
    add_bytes(s, out, sizeof out);
    add_bytes(s, head, bytes);
    free(head);
}

static void test_bits_of_every_machine(void **state) {
    (void)state;
    const unsigned cpu = pi2_cpu_features();
    assert_int_equal(pi2_vector_kernel_set_count, pi2_attention_kernel_set_count);
    for (size_t i = 0; i < pi2_vector_kernel_set_count; i++) {
        const pi2_vector_kernels *k = pi2_vector_kernel_sets[i];
        if (k->cpu_required & ~cpu) continue;
        digest s = {7, UINT64_C(14695981039346656037)};
        digest_vectors(&s, k);
        digest_attention(&s, pi2_attention_kernel_sets[i], PI2_KV_F16);
        digest_attention(&s, pi2_attention_kernel_sets[i], PI2_KV_Q8_0);
        for (size_t n = 0; n < COUNT; n++) {
            const double angle = (double)next_float(&s);
            const double sum = pi2_sin(angle * 1e6) + pi2_cos(angle * 100.0) + pi2_pow(1e4, angle);
            add_bytes(&s, &sum, sizeof sum);
        }
        if (s.hash != expected) {
            fail_msg("%s: digest %016llx", k->name, (unsigned long long)s.hash);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bits_of_every_machine)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
