/*
 * neuron_template.h: the neuron kernels of one instruction set, given its vectors. Included once by
 * neuron_<isa>.c, after what it defines: a vector of LANES lanes of 128 bits, `vi` of integers and `vf`
 * of floats, and the functions used below. v4i and v4f are vectors of one lane.
 *
 * Rows. A lane holds 16 values of a row's block. Products of a block are added inside its lane to four
 * sums; reduce_rows() turns four rows' sums into one vector: lane l has block l, element r row r. So
 * four rows are four elements of a chain, which takes one block after the other.
 *
 * Columns. The same bytes of four columns, interleaved, are four activations' values for each of a
 * lane's rows, so an int8 dot product adds four neurons to every row's sum. Lane l of sums[4 p + j] has
 * rows 4 j .. 4 j + 3 of a run of 16; order_rows() puts whole tiles together for scales and chains.
 *
 * `type` is a constant where a function is inlined.
 */
#include <string.h>

#include "kernels/neuron/neuron_kernels.h"
#include "weight_formats/tile_values.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

enum {
    WIDTH = 4 * LANES,                     /* floats of a vector */
    BYTES = 16 * LANES,                    /* bytes of a vector */
    VECTORS_OF_TILE = 4 / LANES,           /* 16 rows */
    STEP_ROWS = 32 * LANES,                /* rows of a step over columns */
    PREFETCH_NEURONS = 8,                  /* of blocks of 32 columns: how far ahead neurons are asked for, */
    PREFETCH_BLOCKS = 2,                   /* and blocks' scales */
    FLOAT_GROUPS = LANES == 4 ? 1 : 16 / WIDTH, /* groups of WIDTH rows side by side: 16 rows */
    FLOAT_NEURONS = 8                      /* columns of floats side by side */
};

ALWAYS_INLINE bool has_minimum(pi2_weight_type type) {
    return type == PI2_Q4_1 || type == PI2_Q5_1 || type == PI2_Q4_K;
}

ALWAYS_INLINE bool has_fifth(pi2_weight_type type) { return type == PI2_Q5_0 || type == PI2_Q5_1; }

/* What stored values are above their meaning. */
ALWAYS_INLINE int32_t offset_of(pi2_weight_type type) {
    return type == PI2_Q4_0 ? 8 : type == PI2_Q5_0 ? 16 : type == PI2_Q6_K ? 32 : type == PI2_Q8_0 ? Q8_OFFSET : 0;
}

ALWAYS_INLINE size_t smaller_of(size_t a, size_t b) { return a < b ? a : b; }

/* ---- rows of blocks of 32 ---- */

enum { ROWS = 8 };

/* `quads` times 4 rows at one block. */
typedef struct row_places {
    const uint8_t *values[ROWS], *fifth[ROWS], *scales[ROWS];
    const int8_t *a;
    const float *a_scales;
    const int16_t *a_sums;
} row_places;

/* The products of one row with LANES blocks, four sums a lane. */
ALWAYS_INLINE vi row_dots(pi2_weight_type type, const uint8_t *values, const uint8_t *fifth, vi a_low, vi a_high) {
    vi low, high;
    if (type == PI2_Q8_0) {
        load_halves_of_blocks((const int8_t *)values, &low, &high);
        return dot_bytes(dot_bytes(zeros(), as_bytes(low), a_low), as_bytes(high), a_high);
    }
    split_nibbles(load(values), &low, &high);
    if (has_fifth(type)) add_fifth_bits(fifth, &low, &high);
    return dot(dot(zeros(), low, a_low), high, a_high);
}

/* Adds the first `blocks` of LANES blocks to the chains. */
ALWAYS_INLINE void rows_step(pi2_weight_type type, int quads, v4f chain[2], const row_places *at, int blocks) {
    vi a_low, a_high;
    load_halves_of_blocks(at->a, &a_low, &a_high);
    const vf dx = spread_floats(at->a_scales);
    const vi sums = spread_sums(at->a_sums);
    UNROLLED
    for (int q = 0; q < quads; q++) {
        vi dots[4];
        vf d, m;
        UNROLLED
        for (int r = 0; r < 4; r++) {
            dots[r] = row_dots(type, at->values[4 * q + r], at->fifth[4 * q + r], a_low, a_high);
        }
        vi i = reduce_rows(dots);
        if (offset_of(type)) i = subtract(i, times(sums, offset_of(type)));
        load_row_scales(at->scales + 4 * q, has_minimum(type), &d, &m);
        const vf products = to_floats(i), steps = multiply(d, dx), n = multiply(dx, to_floats(sums));
        UNROLLED
        for (int l = 0; l < LANES; l++) {
            if (l >= blocks) break;
            chain[q] = fma4(lane_of(products, l), lane_of(steps, l), chain[q]);
            if (has_minimum(type)) chain[q] = fma4(lane_of(m, l), lane_of(n, l), chain[q]);
        }
    }
}

/* The last blocks, fewer than LANES: from copies, since a vector would read past the row. */
ALWAYS_INLINE void rows_rest(pi2_weight_type type, int quads, v4f chain[2], const row_places *at, int blocks) {
    const size_t value_bytes = type == PI2_Q8_0 ? 32 : 16, scale_bytes = has_minimum(type) ? 4 : 2;
    uint8_t values[ROWS][32 * LANES] = {{0}}, fifth[ROWS][4 * LANES] = {{0}}, scales[ROWS][4 * LANES] = {{0}};
    int8_t a[32 * LANES] = {0};
    float a_scales[LANES] = {0};
    int16_t a_sums[LANES] = {0};
    const size_t count = (size_t)blocks;
    row_places copy = {.a = a, .a_scales = a_scales, .a_sums = a_sums};
    for (int r = 0; r < 4 * quads; r++) {
        memcpy(values[r], at->values[r], value_bytes * count);
        if (has_fifth(type)) memcpy(fifth[r], at->fifth[r], 4 * count);
        memcpy(scales[r], at->scales[r], scale_bytes * count);
        copy.values[r] = values[r];
        copy.fifth[r] = fifth[r];
        copy.scales[r] = scales[r];
    }
    memcpy(a, at->a, 32 * count);
    memcpy(a_scales, at->a_scales, count * sizeof a_scales[0]);
    memcpy(a_sums, at->a_sums, count * sizeof a_sums[0]);
    rows_step(type, quads, chain, &copy, blocks);
}

/* Up to 4 * quads rows from `first`; those that are missing are the last one again. */
ALWAYS_INLINE void rows_group(pi2_weight_type type, int quads, float *out, size_t first, size_t count,
                              const uint8_t *const *values, const uint8_t *const *scales, size_t block_count,
                              const pi2_activations *x, size_t token) {
    const size_t value_bytes = type == PI2_Q8_0 ? 32 : 16, scale_bytes = has_minimum(type) ? 4 : 2;
    const uint8_t *next[ROWS], *next_scales[ROWS];
    row_places at = {.a = x->values + token * x->value_stride,
                     .a_scales = x->scales + token * x->block_stride,
                     .a_sums = x->sums + token * x->sum_stride};
    for (size_t r = 0; r < 4 * (size_t)quads; r++) {
        const size_t j = smaller_of(first + r, count - 1);
        at.values[r] = values[j];
        at.fifth[r] = values[j] + 16 * block_count;
        at.scales[r] = scales[j];
        next[r] = values[smaller_of(first + r + 4 * (size_t)quads, count - 1)];
        next_scales[r] = scales[smaller_of(first + r + 4 * (size_t)quads, count - 1)];
    }
    v4f chain[2] = {zeros4(), zeros4()};
    size_t b = 0;
    for (; b + LANES <= block_count; b += LANES) {
        rows_step(type, quads, chain, &at, LANES);
        for (int r = 0; r < 4 * quads; r++) {
            for (size_t line = 0; line < LANES * value_bytes; line += 64) {
                __builtin_prefetch(next[r] + b * value_bytes + line);
            }
            if (b * scale_bytes % 64 == 0) __builtin_prefetch(next_scales[r] + b * scale_bytes);
            at.values[r] += LANES * value_bytes;
            at.fifth[r] += (size_t)LANES * 4;
            at.scales[r] += LANES * scale_bytes;
        }
        at.a += (size_t)LANES * 32;
        at.a_scales += LANES;
        at.a_sums += LANES;
    }
    if (b < block_count) rows_rest(type, quads, chain, &at, (int)(block_count - b));
    float results[ROWS];
    for (int q = 0; q < quads; q++) store4(results + 4 * q, chain[q]);
    memcpy(out + first, results, smaller_of(4 * (size_t)quads, count - first) * sizeof *out);
}

ALWAYS_INLINE void rows_of_32(pi2_weight_type type, float *out, size_t count, const uint8_t *const *values,
                              const uint8_t *const *scales, size_t columns, const pi2_activations *x, size_t token) {
    const size_t scale_bytes = columns / 32 * (has_minimum(type) ? 4 : 2);
    size_t j = 0;
    /* Hardware follows values, which are long; of scales a row has a few lines, and then another begins. */
    for (size_t r = 0; r < smaller_of(ROWS, count); r++) {
        for (size_t line = 0; line < scale_bytes; line += 64) __builtin_prefetch(scales[r] + line);
    }
    for (; j + 4 < count; j += ROWS) rows_group(type, 2, out, j, count, values, scales, columns / 32, x, token);
    if (j < count) rows_group(type, 1, out, j, count, values, scales, columns / 32, x, token);
}

/* ---- rows of blocks of 256 ---- */

/* The 8 scales and the 8 minimums of a block of Q4_K, one a byte, from its 12 bytes. */
ALWAYS_INLINE void q4_k_bytes(const uint8_t *packed, uint64_t *scales, uint64_t *minimums) {
    uint32_t word[3];
    memcpy(word, packed, sizeof word);
    *scales = (word[0] & 0x3f3f3f3fu) | (uint64_t)((word[2] & 0x0f0f0f0fu) | (word[0] >> 2 & 0x30303030u)) << 32;
    *minimums = (word[1] & 0x3f3f3f3fu) | (uint64_t)((word[2] >> 4 & 0x0f0f0f0fu) | (word[1] >> 2 & 0x30303030u)) << 32;
}

/* Four rows' block of Q4_K: 128 bytes of values and 16 of scales each. */
ALWAYS_INLINE v4f q4_k_block(v4f chain, const uint8_t *const values[4], const uint8_t *const scales[4],
                             const int8_t *a, float dx, const int16_t *sums) {
    uint64_t bytes[4], minimums[4];
    vi dots[4];
    v4i minimum_sums[4];
    v4f d, m;
    UNROLLED
    for (int r = 0; r < 4; r++) {
        q4_k_bytes(scales[r] + 4, &bytes[r], &minimums[r]);
        minimum_sums[r] = minimum_products(minimums[r], sums);
        dots[r] = zeros();
    }
    UNROLLED
    for (int chunk = 0; chunk < 8 / LANES; chunk++) {
        vi a_low, a_high;
        load_q4_k_activations(a, chunk, &a_low, &a_high);
        UNROLLED
        for (int r = 0; r < 4; r++) {
            vi low, high;
            split_nibbles(load(values[r] + BYTES * chunk), &low, &high);
            dots[r] = scaled_dot_q4_k(dots[r], low, a_low, bytes[r], chunk, 0);
            dots[r] = scaled_dot_q4_k(dots[r], high, a_high, bytes[r], chunk, 1);
        }
    }
    load_four_halves(scales, 0, &d);
    load_four_halves(scales, 2, &m);
    const v4f step = multiply4(d, set4(dx)), minimum_step = multiply4(m, set4(dx));
    chain = fma4(to_floats4(add_lanes(reduce_rows(dots))), step, chain);
    return fnma4(to_floats4(reduce_rows4(minimum_sums)), minimum_step, chain);
}

/* Four rows' block of Q6_K: 192 bytes of values, 16 scales and a half each. */
ALWAYS_INLINE v4f q6_k_block(v4f chain, const uint8_t *const values[4], const uint8_t *const scales[4],
                             const int8_t *a, float dx, const int16_t *sums) {
    vi dots[4];
    v4f d;
    UNROLLED
    for (int r = 0; r < 4; r++) {
        const q6_k_scales sub = load_q6_k_scales(scales[r]);
        dots[r] = times(scale_products(scales[r], sums), -32);
        UNROLLED
        for (int chunk = 0; chunk < 8 / LANES; chunk++) {
            const int column = BYTES * chunk / 64 * 128 + BYTES * chunk % 64;
            vi low, high;
            load_q6_k_values(values[r], chunk, &low, &high);
            dots[r] = scaled_dot_q6_k(dots[r], low, load((const uint8_t *)a + column), &sub, column / 16);
            dots[r] = scaled_dot_q6_k(dots[r], high, load((const uint8_t *)a + column + 64), &sub, column / 16 + 4);
        }
    }
    load_four_halves(scales, 16, &d);
    return fma4(to_floats4(add_lanes(reduce_rows(dots))), multiply4(d, set4(dx)), chain);
}

ALWAYS_INLINE void rows_of_256(pi2_weight_type type, float *out, size_t count, const uint8_t *const *values,
                               const uint8_t *const *scales, size_t columns, const pi2_activations *x, size_t token) {
    const size_t value_bytes = type == PI2_Q6_K ? 192 : 128, scale_bytes = type == PI2_Q6_K ? 18 : 16;
    for (size_t j = 0; j < count; j += 4) {
        const int8_t *a = x->values + token * x->value_stride;
        const float *dx = x->scales + token * x->block_stride;
        const int16_t *sums = x->sums + token * x->sum_stride;
        const uint8_t *v[4], *s[4], *next[4];
        for (size_t r = 0; r < 4; r++) {
            v[r] = values[smaller_of(j + r, count - 1)];
            s[r] = scales[smaller_of(j + r, count - 1)];
            next[r] = values[smaller_of(j + r + 4, count - 1)];
        }
        v4f chain = zeros4();
        for (size_t b = 0; b < columns / 256; b++, a += 256, sums += 16) {
            if (type == PI2_Q6_K) chain = q6_k_block(chain, v, s, a, dx[b], sums);
            else chain = q4_k_block(chain, v, s, a, dx[b], sums);
            for (size_t r = 0; r < 4; r++) {
                for (size_t line = 0; line < value_bytes; line += 64) __builtin_prefetch(next[r] + line);
                next[r] += value_bytes;
                v[r] += value_bytes;
                s[r] += scale_bytes;
            }
        }
        float results[4];
        store4(results, chain);
        memcpy(out + j, results, smaller_of(4, count - j) * sizeof *out);
    }
}

/* ---- rows of floats ---- */

/* Elements of chain[g] are WIDTH rows; `columns` of at most 4 columns of all of them. */
ALWAYS_INLINE void float_columns(pi2_weight_type type, vf chain[FLOAT_GROUPS], const uint8_t *const *at,
                                 const float *x, int columns) {
    UNROLLED
    for (int g = 0; g < FLOAT_GROUPS; g++) {
        vf w[4];
        UNROLLED
        for (int i = 0; i < 4; i++) w[i] = load_quads(type, at + WIDTH * g + i);
        transpose_quads(w);
        UNROLLED
        for (int c = 0; c < 4; c++) {
            if (c < columns) chain[g] = fused(w[c], set_floats(x[c]), chain[g]);
        }
    }
}

ALWAYS_INLINE void rows_of_floats(pi2_weight_type type, float *out, size_t count, const uint8_t *const *values,
                                  size_t columns, const pi2_activations *x, size_t token) {
    enum { GROUP_ROWS = FLOAT_GROUPS * WIDTH };
    const size_t bytes = type == PI2_F32 ? 4 : 2;
    for (size_t j = 0; j < count; j += GROUP_ROWS) {
        const float *a = x->floats + token * x->float_stride;
        const uint8_t *at[GROUP_ROWS];
        vf chain[FLOAT_GROUPS];
        for (size_t r = 0; r < GROUP_ROWS; r++) at[r] = values[smaller_of(j + r, count - 1)];
        for (int g = 0; g < FLOAT_GROUPS; g++) chain[g] = set_floats(0.0f);
        size_t k = 0;
        for (; k + 4 <= columns; k += 4) {
            float_columns(type, chain, at, a + k, 4);
            for (size_t r = 0; r < GROUP_ROWS; r++) at[r] += 4 * bytes;
        }
        if (k < columns) {
            uint8_t copies[GROUP_ROWS][16] = {{0}};
            float last[4] = {0};
            for (size_t r = 0; r < GROUP_ROWS; r++) {
                memcpy(copies[r], at[r], (columns - k) * bytes);
                at[r] = copies[r];
            }
            memcpy(last, a + k, (columns - k) * sizeof *a);
            float_columns(type, chain, at, last, (int)(columns - k));
        }
        float results[GROUP_ROWS];
        for (int g = 0; g < FLOAT_GROUPS; g++) store(results + WIDTH * g, chain[g]);
        memcpy(out + j, results, smaller_of(GROUP_ROWS, count - j) * sizeof *out);
    }
}

/* ---- columns of blocks of 32 and 256 ---- */

/* Four neurons of one unit; those that are missing are the first one again with activation 0. */
typedef struct quad {
    const uint8_t *values[4];
    const uint8_t *next[4]; /* neurons further on, to be asked for */
    int32_t activations;    /* four bytes */
} quad;

/* Neurons that share a scale: a block of 32, a sub-block of 32 or 16. */
typedef struct unit {
    uint32_t first, end; /* of the quads */
    int32_t sum;         /* of the activations */
} unit;

typedef struct block_plan {
    unit units[16];
    quad quads[64];
    const uint8_t *scales;
    const uint8_t *next_scales; /* of a block further on, to be asked for */
    float dx;
} block_plan;

static void plan_block(block_plan *plan, const pi2_neuron_columns *x, size_t b, size_t unit_columns, size_t units) {
    const pi2_neuron_block *block = &x->blocks[b];
    const pi2_neuron_block *last_block = &x->blocks[x->block_count - 1];
    const size_t end = (size_t)block->first + block->count, last_end = (size_t)last_block->first + last_block->count;
    const size_t all = end < last_end ? last_end : end;
    /* Of 256 columns: the next block's neurons, at the end of the rows. */
    const size_t ahead = units > 1 ? block->count : PREFETCH_NEURONS;
    size_t k = block->first;
    uint32_t quads = 0;
    plan->scales = block->scales;
    plan->next_scales = x->blocks[smaller_of(b + PREFETCH_BLOCKS, x->block_count - 1)].scales;
    plan->dx = block->scale;
    for (size_t u = 0; u < units; u++) {
        unit *to = &plan->units[u];
        *to = (unit){.first = quads};
        while (k < end && x->places[k] / unit_columns == u) {
            quad *four = &plan->quads[quads++];
            int8_t a[4] = {0};
            size_t n = 0;
            for (; n < 4 && k < end && x->places[k] / unit_columns == u; n++, k++) {
                four->values[n] = x->values[k];
                four->next[n] = x->values[smaller_of(k + ahead, all - 1)];
                a[n] = x->activations[k];
                to->sum += a[n];
            }
            for (; n < 4; n++) {
                four->values[n] = four->values[0];
                four->next[n] = four->next[0];
            }
            memcpy(&four->activations, a, sizeof a);
        }
        to->end = quads;
    }
}

/* Where a step is: 32 * `groups` rows from group `group` of all `all_groups`. */
typedef struct step_place {
    size_t group, groups, all_groups;
    size_t ahead;    /* the group to be asked for, */
    bool next_block; /* of the quads' `next`, else of the quads' own neurons */
} step_place;

/*
 * A block of 32 columns has few active neurons, whose columns hardware follows; the neurons further on
 * are asked for. A block of 256 has too many to follow: the next step's lines are.
 */
ALWAYS_INLINE step_place place_of(pi2_weight_type type, const pi2_neuron_columns *x, size_t group, size_t groups,
                                  size_t first_group, bool last) {
    const bool large = type == PI2_Q4_K || type == PI2_Q6_K;
    return (step_place){.group = group,
                        .groups = groups,
                        .all_groups = (x->rows + 31) / 32,
                        .ahead = !large ? group : last ? first_group : group + LANES,
                        .next_block = !large || last};
}

ALWAYS_INLINE void ask_for(pi2_weight_type type, const quad *four, step_place at) {
    const size_t bytes = type == PI2_Q8_0 ? 32 : 16, plane = 16 * at.all_groups + 4 * at.ahead;
    const uint8_t *const *columns = at.next_block ? four->next : four->values;
    UNROLLED
    for (int n = 0; n < 4; n++) {
        for (size_t line = 0; line < bytes * LANES; line += 64) {
            __builtin_prefetch(columns[n] + bytes * at.ahead + line);
        }
        if (type != PI2_Q6_K) continue;
        __builtin_prefetch(columns[n] + plane);
        __builtin_prefetch(columns[n] + plane + 4 * at.all_groups);
    }
}

/* Four neurons' bytes of the step's rows, interleaved. tail: fewer than LANES groups. */
ALWAYS_INLINE void load_interleaved(const quad *four, size_t offset, size_t bytes, bool tail, vi to[4]) {
    vi columns[4];
    UNROLLED
    for (int n = 0; n < 4; n++) {
        columns[n] = tail ? load_some(four->values[n] + offset, bytes) : load(four->values[n] + offset);
    }
    interleave(columns, to);
}

ALWAYS_INLINE void add_quad(pi2_weight_type type, const quad *four, step_place at, bool tail, vi sums[8]) {
    const vi a = set_ints(four->activations);
    if (type == PI2_Q8_0) {
        UNROLLED
        for (int part = 0; part < 2; part++) {
            const size_t begin = (size_t)BYTES * (size_t)part, all = 32 * at.groups;
            vi rows[4];
            if (tail && begin >= all) break;
            load_interleaved(four, 32 * at.group + begin, tail ? smaller_of(all - begin, BYTES) : BYTES, tail, rows);
            UNROLLED
            for (int j = 0; j < 4; j++) sums[4 * part + j] = dot_bytes(sums[4 * part + j], as_bytes(rows[j]), a);
        }
        return;
    }
    vi rows[4], upper[2];
    const size_t plane = 16 * at.all_groups + 4 * at.group;
    load_interleaved(four, 16 * at.group, 16 * at.groups, tail, rows);
    if (has_fifth(type) || type == PI2_Q6_K) upper[0] = load_upper(four->values, plane, at.groups, tail);
    if (type == PI2_Q6_K) upper[1] = load_upper(four->values, plane + 4 * at.all_groups, at.groups, tail);
    UNROLLED
    for (int j = 0; j < 4; j++) {
        vi low, high;
        split_nibbles(rows[j], &low, &high);
        if (has_fifth(type)) {
            low = with_fifth_bit(low, upper[0], j);
            high = with_fifth_bit(high, upper[0], 4 + j);
        }
        if (type == PI2_Q6_K) {
            low = with_upper_bits(low, upper[0], j);
            high = with_upper_bits(high, upper[1], j);
        }
        sums[j] = dot(sums[j], low, a);
        sums[4 + j] = dot(sums[4 + j], high, a);
    }
}

/* The sums of a unit, not yet in the order of rows. */
ALWAYS_INLINE void unit_sums(pi2_weight_type type, const block_plan *plan, const unit *u, step_place at, bool tail,
                             vi sums[8]) {
    const vi begin = set_ints(-offset_of(type) * u->sum);
    UNROLLED
    for (int j = 0; j < 8; j++) sums[j] = begin;
    for (uint32_t q = u->first; q < u->end; q++) {
        const quad *four = &plan->quads[q];
        add_quad(type, four, at, tail, sums);
        ask_for(type, four, at);
    }
}

/* The first row, from the step's, of ordered vector v. */
ALWAYS_INLINE size_t vector_row(pi2_weight_type type, int v) {
    const int part = v / 4, lane = v % 4 / VECTORS_OF_TILE, vector = v % VECTORS_OF_TILE;
    const int tile = type == PI2_Q8_0 ? part * LANES + lane : 2 * lane + part;
    return (size_t)(16 * tile + WIDTH * vector);
}

/* Adds the blocks' integers to the chains of ordered vector v. */
ALWAYS_INLINE vf finish(pi2_weight_type type, vf chain, vi sum, const uint8_t *scales, size_t in_tile, float dx,
                        int32_t n) {
    const vf d = load_halves(scales + 2 * in_tile);
    chain = fused(to_floats(sum), multiply(d, set_floats(dx)), chain);
    if (type == PI2_Q4_1 || type == PI2_Q5_1) {
        chain = fused(load_halves(scales + 32 + 2 * in_tile), set_floats(dx * (float)n), chain);
    }
    return chain;
}

/* One block of 32 columns for up to STEP_ROWS rows. */
ALWAYS_INLINE void step_of_32(pi2_weight_type type, float *chains, const block_plan *plan, step_place at, size_t rows,
                              bool tail) {
    const size_t scale_bytes = has_minimum(type) ? 64 : 32;
    const uint8_t *scales = plan->scales + 2 * at.group * scale_bytes;
    vi raw[8], sums[8];
    for (size_t line = 0; line < STEP_ROWS / PI2_TILE_ROWS * scale_bytes; line += 64) {
        __builtin_prefetch(plan->next_scales + 2 * at.group * scale_bytes + line);
    }
    unit_sums(type, plan, &plan->units[0], at, tail, raw);
    order_rows(raw, sums);
    order_rows(raw + 4, sums + 4);
    UNROLLED
    for (int v = 0; v < 8; v++) {
        const size_t row = vector_row(type, v);
        if (tail && row >= rows) continue;
        const uint8_t *tile = scales + row / PI2_TILE_ROWS * scale_bytes;
        store(chains + row, finish(type, load_floats(chains + row), sums[v], tile, row % PI2_TILE_ROWS, plan->dx,
                                   plan->units[0].sum));
    }
}

/* Where the scales of ordered vector v begin: its tile's, and its row in the tile. */
typedef struct scale_place {
    const uint8_t *tile;
    size_t in_tile;
    bool present;
} scale_place;

ALWAYS_INLINE scale_place scales_of(pi2_weight_type type, const block_plan *plan, step_place at, size_t rows,
                                    bool tail, int v) {
    const size_t scale_bytes = type == PI2_Q6_K ? 288 : 256, row = vector_row(type, v);
    return (scale_place){.tile = plan->scales + (2 * at.group + row / PI2_TILE_ROWS) * scale_bytes,
                         .in_tile = row % PI2_TILE_ROWS,
                         .present = !tail || row < rows};
}

/* Q4_K: bytes[h][j] are, for the rows of sums[j], the scales of the sub-blocks 4 h .. 4 h + 3. */
ALWAYS_INLINE void load_q4_k_scales(const block_plan *plan, step_place at, size_t rows, bool tail, vi bytes[2][8]) {
    vi low[8], high[8];
    UNROLLED
    for (int v = 0; v < 8; v++) {
        const scale_place p = scales_of(PI2_Q4_K, plan, at, rows, tail, v);
        low[v] = high[v] = zeros();
        if (p.present) q4_k_scales(p.tile + 64 + 4 * p.in_tile, &low[v], &high[v]);
    }
    disorder_rows(low, bytes[0]);
    disorder_rows(low + 4, bytes[0] + 4);
    disorder_rows(high, bytes[1]);
    disorder_rows(high + 4, bytes[1] + 4);
}

/* Q4_K: the sums of all sub-blocks. Scales are put into the order of sums once instead of sums eight times. */
ALWAYS_INLINE void q4_k_totals(const block_plan *plan, step_place at, size_t rows, bool tail, vi totals[8]) {
    vi bytes[2][8], raw[8];
    load_q4_k_scales(plan, at, rows, tail, bytes);
    UNROLLED
    for (int j = 0; j < 8; j++) raw[j] = zeros();
    for (int u = 0; u < 8; u++) {
        vi sums[8];
        if (plan->units[u].first == plan->units[u].end) continue;
        unit_sums(PI2_Q4_K, plan, &plan->units[u], at, tail, sums);
        UNROLLED
        for (int j = 0; j < 8; j++) {
            raw[j] = add(raw[j], multiply_ints(sums[j], byte_of_words(bytes[u / 4][j], u % 4)));
        }
    }
    order_rows(raw, totals);
    order_rows(raw + 4, totals + 4);
}

ALWAYS_INLINE void q6_k_totals(const block_plan *plan, step_place at, size_t rows, bool tail, vi totals[8]) {
    UNROLLED
    for (int v = 0; v < 8; v++) totals[v] = zeros();
    for (int u = 0; u < 16; u++) {
        vi raw[8], sums[8];
        if (plan->units[u].first == plan->units[u].end) continue;
        unit_sums(PI2_Q6_K, plan, &plan->units[u], at, tail, raw);
        order_rows(raw, sums);
        order_rows(raw + 4, sums + 4);
        UNROLLED
        for (int v = 0; v < 8; v++) {
            const scale_place p = scales_of(PI2_Q6_K, plan, at, rows, tail, v);
            if (!p.present) continue;
            totals[v] = add(totals[v], multiply_ints(sums[v], load_sub_scales(p.tile + 32 + 16 * u + p.in_tile)));
        }
    }
}

/* Q4_K: the sum over sub-blocks of their minimum times the sum of their activations. */
ALWAYS_INLINE vi q4_k_minimum_sum(const block_plan *plan, const uint8_t *words) {
    vi low, high, n = zeros();
    q4_k_minimums(words, &low, &high);
    UNROLLED
    for (int u = 0; u < 8; u++) {
        n = add(n, multiply_ints(byte_of_words(u < 4 ? low : high, u % 4), set_ints(plan->units[u].sum)));
    }
    return n;
}

/* One block of 256 columns for up to STEP_ROWS rows. */
ALWAYS_INLINE void step_of_256(pi2_weight_type type, float *chains, const block_plan *plan, step_place at, size_t rows,
                               bool tail) {
    vi totals[8];
    if (type == PI2_Q6_K) q6_k_totals(plan, at, rows, tail, totals);
    else q4_k_totals(plan, at, rows, tail, totals);
    UNROLLED
    for (int v = 0; v < 8; v++) {
        const scale_place p = scales_of(type, plan, at, rows, tail, v);
        float *to = chains + vector_row(type, v);
        if (!p.present) continue;
        vf chain = finish(type, load_floats(to), totals[v], p.tile, p.in_tile, plan->dx, 0);
        if (type == PI2_Q4_K) {
            const vf step = multiply(load_halves(p.tile + 32 + 2 * p.in_tile), set_floats(plan->dx));
            const vi n = q4_k_minimum_sum(plan, p.tile + 64 + 4 * p.in_tile);
            chain = fused_negative(to_floats(n), step, chain);
        }
        store(to, chain);
    }
}

ALWAYS_INLINE void step(pi2_weight_type type, float *chains, const block_plan *plan, step_place at, size_t rows,
                        bool tail) {
    if (type == PI2_Q4_K || type == PI2_Q6_K) step_of_256(type, chains, plan, at, rows, tail);
    else step_of_32(type, chains, plan, at, rows, tail);
}

/* Whole steps go block by block, so that columns stream; the rest of the rows from a copy of its chains. */
ALWAYS_INLINE void columns_of_blocks(pi2_weight_type type, float *out, size_t row_begin, size_t row_count,
                                     const pi2_neuron_columns *x, bool start) {
    const size_t unit_columns = type == PI2_Q6_K ? 16 : 32, units = type == PI2_Q6_K ? 16 : type == PI2_Q4_K ? 8 : 1;
    const size_t rest = row_count % STEP_ROWS, whole = row_count - rest, first_group = row_begin / 32;
    float chains[STEP_ROWS] = {0};
    if (start) memset(out + row_begin, 0, row_count * sizeof *out);
    memcpy(chains, out + row_begin + whole, rest * sizeof *out);
    for (size_t b = 0; b < x->block_count; b++) {
        block_plan plan;
        plan_block(&plan, x, b, unit_columns, units);
        for (size_t row = 0; row < whole; row += STEP_ROWS) {
            const bool last = row + STEP_ROWS == row_count;
            const step_place at = place_of(type, x, first_group + row / 32, LANES, first_group, last);
            step(type, out + row_begin + row, &plan, at, STEP_ROWS, false);
        }
        if (rest) {
            const size_t tiled = (rest + PI2_TILE_ROWS - 1) / PI2_TILE_ROWS * PI2_TILE_ROWS;
            const step_place at = place_of(type, x, first_group + whole / 32, (rest + 31) / 32, first_group, true);
            step(type, chains, &plan, at, tiled, true);
        }
    }
    memcpy(out + row_begin + whole, chains, rest * sizeof *out);
}

/* ---- columns of floats ---- */

ALWAYS_INLINE vf add_float_columns(pi2_weight_type type, vf chain, const uint8_t *const *at, size_t offset,
                                   const float *a, size_t neurons) {
    for (size_t n = 0; n < neurons; n++) chain = fused(load_weights(type, at[n] + offset), set_floats(a[n]), chain);
    return chain;
}

/* `neurons` columns, at most FLOAT_NEURONS, into all rows of a call. */
ALWAYS_INLINE void float_neurons(pi2_weight_type type, float *out, size_t row_begin, size_t row_count,
                                 const uint8_t *const *at, const uint8_t *const *next, const float *a,
                                 size_t neurons) {
    const size_t bytes = type == PI2_F32 ? 4 : 2;
    size_t row = row_begin;
    for (; row + WIDTH <= row_begin + row_count; row += WIDTH) {
        for (size_t n = 0; n < neurons; n++) __builtin_prefetch(next[n] + row * bytes);
        store(out + row, add_float_columns(type, load_floats(out + row), at, row * bytes, a, neurons));
    }
    if (row < row_begin + row_count) { /* a column has whole groups of rows, `out` has not */
        float chains[WIDTH] = {0};
        memcpy(chains, out + row, (row_begin + row_count - row) * sizeof *out);
        store(chains, add_float_columns(type, load_floats(chains), at, row * bytes, a, neurons));
        memcpy(out + row, chains, (row_begin + row_count - row) * sizeof *out);
    }
}

ALWAYS_INLINE void columns_of_floats(pi2_weight_type type, float *out, size_t row_begin, size_t row_count,
                                     const pi2_neuron_columns *x, bool start) {
    if (start) memset(out + row_begin, 0, row_count * sizeof *out);
    for (size_t b = 0; b < x->block_count; b += FLOAT_NEURONS) {
        const size_t neurons = smaller_of(FLOAT_NEURONS, x->block_count - b);
        const uint8_t *at[FLOAT_NEURONS] = {0}, *next[FLOAT_NEURONS] = {0};
        float a[FLOAT_NEURONS] = {0};
        for (size_t n = 0; n < neurons; n++) {
            at[n] = x->values[x->blocks[b + n].first];
            next[n] = x->values[x->blocks[smaller_of(b + n + FLOAT_NEURONS, x->block_count - 1)].first];
            a[n] = x->blocks[b + n].scale;
        }
        if (neurons == FLOAT_NEURONS) {
            float_neurons(type, out, row_begin, row_count, at, next, a, FLOAT_NEURONS);
        } else {
            float_neurons(type, out, row_begin, row_count, at, next, a, neurons);
        }
    }
}

/* ---- the kernels ---- */

#define NEURON_NAME2(what, name, suffix) pi2_neuron_##what##_##name##_##suffix
#define NEURON_NAME1(what, name, suffix) NEURON_NAME2(what, name, suffix)
#define NEURON_NAME(what, name) NEURON_NAME1(what, name, NEURON_SUFFIX)

#define KERNELS_OF_BLOCKS(name, type, rows_function)                                                       \
    void NEURON_NAME(rows, name)(float *out, size_t count, const uint8_t *const *values,                   \
                                 const uint8_t *const *scales, size_t columns, const pi2_activations *x,   \
                                 size_t token) {                                                           \
        rows_function(type, out, count, values, scales, columns, x, token);                                \
    }                                                                                                      \
    void NEURON_NAME(columns, name)(float *out, size_t row_begin, size_t row_count,                        \
                                    const pi2_neuron_columns *x, bool start) {                             \
        columns_of_blocks(type, out, row_begin, row_count, x, start);                                      \
    }

#define KERNELS_OF_FLOATS(name, type)                                                                      \
    void NEURON_NAME(rows, name)(float *out, size_t count, const uint8_t *const *values,                   \
                                 const uint8_t *const *scales, size_t columns, const pi2_activations *x,   \
                                 size_t token) {                                                           \
        (void)scales;                                                                                      \
        rows_of_floats(type, out, count, values, columns, x, token);                                       \
    }                                                                                                      \
    void NEURON_NAME(columns, name)(float *out, size_t row_begin, size_t row_count,                        \
                                    const pi2_neuron_columns *x, bool start) {                             \
        columns_of_floats(type, out, row_begin, row_count, x, start);                                      \
    }

KERNELS_OF_FLOATS(f32, PI2_F32)
KERNELS_OF_FLOATS(f16, PI2_F16)
KERNELS_OF_FLOATS(bf16, PI2_BF16)
KERNELS_OF_BLOCKS(q4_0, PI2_Q4_0, rows_of_32)
KERNELS_OF_BLOCKS(q4_1, PI2_Q4_1, rows_of_32)
KERNELS_OF_BLOCKS(q5_0, PI2_Q5_0, rows_of_32)
KERNELS_OF_BLOCKS(q5_1, PI2_Q5_1, rows_of_32)
KERNELS_OF_BLOCKS(q8_0, PI2_Q8_0, rows_of_32)
KERNELS_OF_BLOCKS(q4_k, PI2_Q4_K, rows_of_256)
KERNELS_OF_BLOCKS(q6_k, PI2_Q6_K, rows_of_256)
