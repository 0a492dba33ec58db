/*
 * Goal:   every set in attention.inc gives the scalar set's bits, however queries are grouped
 *         and windows lie, and wherever the pages are; memory that a query does not see never
 *         matters; the scalar set computes attention.
 * Method: head memory starts as NaNs, so anything that leaks shows; odd sizes; guard words;
 *         double precision as an independent reference.
 */
#include <stdbool.h>

#include "float_test.h"

#include "base/cpu_features.h"
#include "kernels/attention/attention.h"

enum { CAPACITY = 400, MAX_DIMENSIONS = 160, MAX_QUERIES = 21, GUARD = 16 };

typedef struct shape {
    pi2_kv_type type;
    uint32_t key_dimensions;
    uint32_t value_dimensions;
    bool values_are_keys;
} shape;

static const shape shapes[] = {
    {PI2_KV_F16, 64, 64, false},  {PI2_KV_F16, 128, 128, false}, {PI2_KV_F16, 80, 80, false},
    {PI2_KV_F16, 33, 7, false},   {PI2_KV_F16, 1, 1, false},     {PI2_KV_F16, 16, 100, false},
    {PI2_KV_Q8_0, 64, 64, false}, {PI2_KV_Q8_0, 128, 128, false}, {PI2_KV_Q8_0, 96, 32, false},
    {PI2_KV_Q8_0, 32, 160, false}, {PI2_KV_F32, 128, 128, false}, {PI2_KV_F32, 33, 7, false},
    {PI2_KV_F32, 80, 100, false}, {PI2_KV_F16, 24, 16, true},    {PI2_KV_F16, 160, 144, true},
    {PI2_KV_F16, 80, 64, true},   {PI2_KV_Q8_0, 160, 160, true}, {PI2_KV_Q8_0, 96, 32, true},
    {PI2_KV_F32, 150, 144, true}};
enum { SHAPE_COUNT = sizeof shapes / sizeof shapes[0] };

typedef struct problem {
    pi2_kv_layout layout;
    uint32_t pages[CAPACITY / 16]; /* in pieces, which lie in any order */
    bool has_pages;
    void *head;
    float keys[CAPACITY][MAX_DIMENSIONS];
    float values[CAPACITY][MAX_DIMENSIONS];
    float queries[MAX_QUERIES][MAX_DIMENSIONS];
    uint32_t key_counts[MAX_QUERIES];
    uint32_t first_keys[MAX_QUERIES];
    float cap, sinks[MAX_QUERIES];
    int has_sinks;
    float want[MAX_QUERIES][MAX_DIMENSIONS + GUARD];
    float got[MAX_QUERIES][MAX_DIMENSIONS + GUARD];
    float scores[MAX_QUERIES * (CAPACITY + 16)];
} problem;

static void make_pages(problem *p, float_rng *rng) {
    enum { COUNT = CAPACITY / 16 };
    p->has_pages = float_rng_next(rng) % 3 != 0;
    for (uint32_t t = 0; t < COUNT; t++) p->pages[t] = t;
    for (uint32_t i = 0; p->has_pages && i < 4; i++) { /* two pieces change places */
        uint32_t before[COUNT];
        memcpy(before, p->pages, sizeof before);
        const uint32_t at = (uint32_t)(float_rng_next(rng) % COUNT);
        for (uint32_t t = 0; t < COUNT; t++) p->pages[t] = before[(t + at) % COUNT];
        const uint32_t other = (uint32_t)(float_rng_next(rng) % COUNT), page = p->pages[0];
        p->pages[0] = p->pages[other];
        p->pages[other] = page;
    }
}

/* Where in the head's memory a position lies. */
static uint32_t place_of(const problem *p, uint32_t position) {
    return p->has_pages ? p->pages[position / 16] * 16 + position % 16 : position;
}

static void make_problem(problem *p, const shape *s, float_rng *rng, uint32_t stored) {
    make_pages(p, rng);
    p->layout = (pi2_kv_layout){s->type, s->key_dimensions, s->value_dimensions, CAPACITY, s->values_are_keys};
    const size_t bytes = pi2_kv_head_bytes(&p->layout);
    assert_int_equal(bytes % 64, 0);
    p->head = aligned_alloc(64, bytes); /* exact, so that the sanitizer sees a read too far */
    assert_non_null(p->head);
    memset(p->head, 0xff, bytes); /* NaN halves, and int8 of -1 with NaN scales */
    const pi2_attention_kernels *scalar = pi2_attention_kernel_sets[0];
    for (uint32_t i = 0; i < stored; i++) {
        float_rng_fill(rng, p->keys[i], MAX_DIMENSIONS, -1.0f, 1.0f);
        float_rng_fill(rng, p->values[i], MAX_DIMENSIONS, -1.0f, 1.0f);
        if (s->values_are_keys) memcpy(p->values[i], p->keys[i], sizeof p->values[i]);
        scalar->store(p->head, &p->layout, place_of(p, i), p->keys[i], p->values[i]);
    }
    for (size_t i = 0; i < MAX_QUERIES; i++) {
        float_rng_fill(rng, p->queries[i], MAX_DIMENSIONS, -2.0f, 2.0f);
    }
}

static void attend(const pi2_attention_kernels *k, problem *p, int windows, size_t begin,
                   size_t count, float out[][MAX_DIMENSIONS + GUARD]) {
    float *outs[MAX_QUERIES];
    const float *queries[MAX_QUERIES];
    for (size_t i = 0; i < count; i++) {
        outs[i] = out[begin + i];
        queries[i] = p->queries[begin + i];
    }
    const pi2_attention_scoring scoring = { 0.125f, p->cap, p->has_sinks ? p->sinks + begin : NULL };
    k->attend(outs, queries, p->key_counts + begin, windows ? p->first_keys + begin : NULL, count,
              p->head, &p->layout, p->has_pages ? p->pages : NULL, &scoring, p->scores, CAPACITY + 16);
}

static void check_outputs(const pi2_attention_kernels *k, const problem *p) {
    for (size_t i = 0; i < MAX_QUERIES; i++) {
        check_same_floats(k->name, p->want[i], p->got[i], p->layout.value_dimensions);
        for (size_t d = 0; d < p->layout.value_dimensions; d++) assert_true(isfinite(p->got[i][d]));
        for (size_t j = 0; j < GUARD; j++) {
            assert_int_equal(bits_of_float(p->got[i][p->layout.value_dimensions + j]), 0x5a5a5a5a);
        }
    }
}

static void check_set(const pi2_attention_kernels *k, problem *p, int windows) {
    static const size_t groupings[] = {MAX_QUERIES, 1, 2, 3, 5, 7, 8, 4, 6};
    memset(p->want, 0x5a, sizeof p->want);
    for (size_t i = 0; i < MAX_QUERIES; i++) {
        attend(pi2_attention_kernel_sets[0], p, windows, i, 1, p->want);
    }
    for (size_t g = 0; g < sizeof groupings / sizeof groupings[0]; g++) {
        memset(p->got, 0x5a, sizeof p->got);
        for (size_t i = 0; i < MAX_QUERIES; i += groupings[g]) {
            const size_t left = MAX_QUERIES - i;
            attend(k, p, windows, i, left < groupings[g] ? left : groupings[g], p->got);
        }
        check_outputs(k, p);
    }
}

/* The softmax of capped scores, and a score more that has no value. */
static void make_scoring(problem *p, float_rng *rng, int is_special) {
    p->cap = is_special ? 1.5f : 0.0f;
    p->has_sinks = is_special;
    float_rng_fill(rng, p->sinks, MAX_QUERIES, -3.0f, 3.0f);
}

/* Ranges: 0 one query per position, as in prefill; 1 windows; 2 anything, empty ones too. */
static void make_ranges(problem *p, float_rng *rng, int kind, uint32_t stored) {
    for (uint32_t i = 0; i < MAX_QUERIES; i++) {
        if (kind == 2) {
            p->key_counts[i] = (uint32_t)(float_rng_next(rng) % (stored + 1));
            p->first_keys[i] = (uint32_t)(float_rng_next(rng) % (p->key_counts[i] + 1));
        } else {
            p->key_counts[i] = stored > i / 3 ? stored - i / 3 : 1;
            p->first_keys[i] = kind == 1 && p->key_counts[i] > 37 ? p->key_counts[i] - 37 : 0;
        }
    }
}

static void test_sets_give_equal_bits(void **state) {
    (void)state;
    static problem p;
    static const uint32_t stored_counts[] = {1, 2, 15, 16, 17, 31, 33, 64, 100, 145, 400};
    float_rng rng = {11};
    const unsigned cpu = pi2_cpu_features();
    for (size_t s = 0; s < SHAPE_COUNT; s++) {
        for (size_t c = 0; c < sizeof stored_counts / sizeof stored_counts[0]; c++) {
            make_problem(&p, &shapes[s], &rng, stored_counts[c]);
            for (size_t i = 0; i < pi2_attention_kernel_set_count; i++) {
                const pi2_attention_kernels *k = pi2_attention_kernel_sets[i];
                if (k->cpu_required & ~cpu) continue;
                for (int kind = 0; kind < 4; kind++) {
                    make_ranges(&p, &rng, kind < 3 ? kind : 2, stored_counts[c]);
                    make_scoring(&p, &rng, kind == 3);
                    check_set(k, &p, kind > 0);
                }
            }
            free(p.head);
        }
    }
}

/* Attention as the textbook has it, over what the cache keeps. */
static void reference(const problem *p, size_t query, double *out) {
    double weights[CAPACITY];
    double sum = 0.0;
    for (uint32_t i = p->first_keys[query]; i < p->key_counts[query]; i++) {
        double score = 0.0;
        for (size_t d = 0; d < p->layout.key_dimensions; d++) {
            score += (double)p->queries[query][d] * (double)p->keys[i][d];
        }
        score *= 0.125;
        if (p->cap > 0) score = (double)p->cap * tanh(score / (double)p->cap);
        weights[i] = exp(score); /* scores are small: no maximum needed */
        sum += weights[i];
    }
    if (p->has_sinks) sum += exp((double)p->sinks[query]);
    for (size_t d = 0; d < p->layout.value_dimensions; d++) {
        out[d] = 0.0;
        for (uint32_t i = p->first_keys[query]; i < p->key_counts[query]; i++) {
            out[d] += weights[i] / sum * (double)p->values[i][d];
        }
    }
}

static void test_against_double(void **state) {
    (void)state;
    static problem p;
    float_rng rng = {12};
    for (size_t s = 0; s < SHAPE_COUNT; s++) {
        for (int kind = 0; kind < 4; kind++) {
            make_problem(&p, &shapes[s], &rng, 150);
            make_ranges(&p, &rng, kind % 2, 150);
            make_scoring(&p, &rng, kind > 1);
            attend(pi2_attention_kernel_sets[0], &p, 1, 0, MAX_QUERIES, p.want);
            /* Halves keep 11 bits, int8 about 8: the error is that of what was stored. */
            const double bound = p.layout.type == PI2_KV_F32 ? 1e-6 : p.layout.type == PI2_KV_F16 ? 1e-3 : 8e-3;
            for (size_t i = 0; i < MAX_QUERIES; i++) {
                double want[MAX_DIMENSIONS];
                reference(&p, i, want);
                for (size_t d = 0; d < p.layout.value_dimensions; d++) {
                    assert_true(fabs((double)p.want[i][d] - want[d]) < bound);
                }
            }
            free(p.head);
        }
    }
}

/* With keys and values that halves hold exactly, only float rounding is left. */
static void test_against_double_exactly_stored(void **state) {
    (void)state;
    static problem p;
    float_rng rng = {13};
    make_problem(&p, &shapes[0], &rng, 0);
    for (uint32_t i = 0; i < 300; i++) {
        for (size_t d = 0; d < 64; d++) {
            p.keys[i][d] = (float)((int)(float_rng_next(&rng) % 65) - 32) / 32.0f;
            p.values[i][d] = (float)((int)(float_rng_next(&rng) % 65) - 32) / 32.0f;
        }
        pi2_attention_kernel_sets[0]->store(p.head, &p.layout, place_of(&p, i), p.keys[i], p.values[i]);
    }
    make_ranges(&p, &rng, 1, 300);
    make_scoring(&p, &rng, 1);
    attend(pi2_attention_kernel_sets[0], &p, 1, 0, MAX_QUERIES, p.want);
    for (size_t i = 0; i < MAX_QUERIES; i++) {
        double want[MAX_DIMENSIONS];
        reference(&p, i, want);
        for (size_t d = 0; d < 64; d++) assert_true(fabs((double)p.want[i][d] - want[d]) < 2e-6);
    }
    free(p.head);
}

/* A value that one query sees and its neighbour does not may be infinite. */
static void test_infinite_values_do_not_leak(void **state) {
    (void)state;
    static problem p;
    float_rng rng = {14};
    const unsigned cpu = pi2_cpu_features();
    make_problem(&p, &shapes[0], &rng, 40);
    for (size_t d = 0; d < 64; d++) p.values[39][d] = d % 2 ? INFINITY : -1e9f;
    pi2_attention_kernel_sets[0]->store(p.head, &p.layout, place_of(&p, 39), p.keys[39], p.values[39]);
    make_ranges(&p, &rng, 0, 40);
    for (size_t i = 0; i < 3; i++) p.key_counts[i] = 40;
    for (size_t s = 0; s < pi2_attention_kernel_set_count; s++) {
        const pi2_attention_kernels *k = pi2_attention_kernel_sets[s];
        if (k->cpu_required & ~cpu) continue;
        attend(k, &p, 0, 0, 8, p.got);
        for (size_t d = 0; d < 64; d++) {
            for (size_t i = 0; i < 8; i++) assert_true(isfinite(p.got[i][d]) == (i >= 3));
        }
    }
    free(p.head);
}

static void test_store_touches_one_tile(void **state) {
    (void)state;
    float_rng rng = {15};
    float row[MAX_DIMENSIONS];
    float_rng_fill(&rng, row, MAX_DIMENSIONS, -1.0f, 1.0f);
    const unsigned cpu = pi2_cpu_features();
    for (size_t n = 0; n < SHAPE_COUNT * pi2_attention_kernel_set_count; n++) {
        const shape *s = &shapes[n % SHAPE_COUNT];
        const pi2_attention_kernels *k = pi2_attention_kernel_sets[n / SHAPE_COUNT];
        if (k->cpu_required & ~cpu) continue;
        const pi2_kv_layout layout = {s->type, s->key_dimensions, s->value_dimensions, 64, s->values_are_keys};
        const pi2_kv_layout first_tile = {s->type, s->key_dimensions, s->value_dimensions, 16, s->values_are_keys};
        const size_t bytes = pi2_kv_head_bytes(&layout);
        unsigned char *head = aligned_alloc(64, bytes);
        assert_non_null(head);
        memset(head, 0xee, bytes);
        k->store(head, &layout, 37, row, row);
        size_t begin = bytes;
        size_t written = 0;
        for (size_t i = 0; i < bytes; i++) {
            if (head[i] == 0xee) continue;
            begin = i < begin ? i : begin;
            written++;
        }
        /* Position 37 is in the third tile: keys behind two tiles of keys. */
        const size_t elements = s->key_dimensions + (s->values_are_keys ? 0 : s->value_dimensions);
        assert_true(begin >= 2 * 16 * (size_t)s->key_dimensions);
        assert_true(written <= pi2_kv_head_bytes(&first_tile));
        assert_true(written >= elements / 2);
        free(head);
    }
}

/* Each set stores the same bytes, in any order of positions. */
static void test_store_gives_equal_bytes(void **state) {
    (void)state;
    static problem p;
    float_rng rng = {16};
    const unsigned cpu = pi2_cpu_features();
    for (size_t s = 0; s < SHAPE_COUNT; s++) {
        make_problem(&p, &shapes[s], &rng, 70);
        for (size_t d = 0; d < MAX_DIMENSIONS; d++) { /* a row of every kind of float */
            p.keys[7][d] = float_of_bits((uint32_t)float_rng_next(&rng));
            p.values[7][d] = float_rng_uniform(&rng, -1.0f, 1.0f) * (d % 2 ? 2e5f : 1e-5f);
        }
        pi2_attention_kernel_sets[0]->store(p.head, &p.layout, place_of(&p, 7), p.keys[7], p.values[7]);
        const size_t bytes = pi2_kv_head_bytes(&p.layout);
        for (size_t n = 0; n < pi2_attention_kernel_set_count; n++) {
            const pi2_attention_kernels *k = pi2_attention_kernel_sets[n];
            if (k->cpu_required & ~cpu) continue;
            void *head = aligned_alloc(64, bytes);
            assert_non_null(head);
            memset(head, 0xff, bytes);
            for (uint32_t i = 70; i-- > 0;) {
                k->store(head, &p.layout, place_of(&p, i), p.keys[i], p.values[i]);
            }
            assert_memory_equal(head, p.head, bytes);
            free(head);
        }
        free(p.head);
    }
}

static void test_select_obeys_the_features(void **state) {
    (void)state;
    assert_string_equal(pi2_attention_select(PI2_CPU_NONE)->name, "scalar");
    for (size_t i = 0; i < pi2_attention_kernel_set_count; i++) {
        const pi2_attention_kernels *k = pi2_attention_kernel_sets[i];
        assert_ptr_equal(pi2_attention_select(k->cpu_required), k);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sets_give_equal_bits),
        cmocka_unit_test(test_against_double),
        cmocka_unit_test(test_against_double_exactly_stored),
        cmocka_unit_test(test_infinite_values_do_not_leak),
        cmocka_unit_test(test_store_touches_one_tile),
        cmocka_unit_test(test_store_gives_equal_bytes),
        cmocka_unit_test(test_select_obeys_the_features),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
