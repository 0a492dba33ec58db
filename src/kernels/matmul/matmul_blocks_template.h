/*
 * matmul_blocks_template.h: strip kernels of every format that is read by whole blocks, for one instruction set. The
 * including file includes block_lanes_<isa>.h first and defines
 *
 *   BLOCKS_SUFFIX    how the names of its kernels end, as in matmul.inc
 *   UNROLLED_UNITS   what stands before the loop over a block's units of 32 columns
 *
 * Sums of products of a sub-block's 16 or 32 columns are integers, in lanes of rows; docs/arithmetic.md says what then
 * comes. `shape`, R and T are constants where a function is inlined, so nothing is left of what it asks; what belongs
 * to one format has its name, so that no function holds the unpacking of all.
 */
#include "kernels/matmul/matmul_driver.h"
#include "kernels/matmul/matmul_kernels.h"
#include "weight_formats/unpack_blocks_template.h"

enum { BLOCK_TOKENS = 4, BLOCK_TILES = 4, TILE_PARTS = PI2_TILE_ROWS / LANE_ROWS };

typedef const pi2_matmul_strip strip;

/* What the list says of a format. */
typedef struct block_shape {
    int columns, sub_columns, largest;
    bool minimums;
} block_shape;

/* A unit of 32 columns of LANE_ROWS rows, and what its one or two sub-blocks have. */
typedef struct block_unit {
    lanes groups[8], factors[2], minimums[2];
    float_lanes steps[2];
} block_unit;

/* Whether weights of a format are moved up: a sum of activations must be there for each sub-block. */
LANES_INLINE bool is_moved(block_shape shape) {
    return MOVES_SIGNED > 0 && !shape.minimums && (shape.columns == 256 || shape.sub_columns == 32);
}

/*
 * total[t] += factor times the sums of `count` groups, which begin at first[t]; a: the first token's activations of the
 * first group.
 */
LANES_INLINE void add_sub_block(block_shape shape, int T, lanes total[BLOCK_TOKENS], const lanes *groups, int count,
                                lanes factor, const lanes first[BLOCK_TOKENS], const int8_t *a, size_t a_stride) {
    const int most = SUM_LIMIT / (2 * 127 * shape.largest); /* groups until sums must be widened */
    const bool moved = is_moved(shape), is_signed = !shape.minimums && !moved;
    lanes sums[BLOCK_TOKENS];
    UNROLLED
    for (int t = 0; t < T; t++) sums[t] = first[t];
    UNROLLED
    for (int g = 0; g < count; g++) {
        const weights w = weights_of(groups[g], is_signed, moved);
        UNROLLED
        for (int t = 0; t < T; t++) {
            sums[t] = add_products(sums[t], w, four_activations(a + (size_t)t * a_stride + 4 * g), is_signed);
        }
        if ((g + 1) % most && g + 1 < count) continue;
        UNROLLED
        for (int t = 0; t < T; t++) {
            total[t] = add_scaled(total[t], sums[t], factor);
            sums[t] = set_lanes(0);
        }
    }
}

/* What the driver prepared of a token's activations in sub-block `sub` of block b of 256: it has that of 16 columns. */
LANES_INLINE lanes prepared_of(strip *s, block_shape shape, size_t b, int sub, int t) {
    const int32_t *entries = (const int32_t *)s->prepared + (size_t)t * s->prepared_stride + 16 * b;
    return set_lanes((uint32_t)(shape.sub_columns == 16 ? entries[sub] : entries[2 * sub] + entries[2 * sub + 1]));
}

/* A block of 256 columns so far: one activation scale. */
typedef struct block_sums {
    lanes total[BLOCK_TOKENS], minimum_total[BLOCK_TOKENS];
} block_sums;

LANES_INLINE void add_unit_of_256(block_shape shape, int T, const block_unit *u, int unit, strip *s, size_t b,
                                  block_sums *sums) {
    const int sub_groups = shape.sub_columns / PI2_GROUP_COLUMNS, subs = 8 / sub_groups;
    UNROLLED
    for (int i = 0; i < subs; i++) {
        const int sub = unit * subs + i;
        lanes first[BLOCK_TOKENS];
        UNROLLED
        for (int t = 0; t < T; t++) first[t] = is_moved(shape) ? prepared_of(s, shape, b, sub, t) : set_lanes(0);
        add_sub_block(shape, T, sums->total, u->groups + sub_groups * i, sub_groups, u->factors[i], first,
                      s->a + 256 * b + 32 * (size_t)unit + (size_t)(shape.sub_columns * i), s->a_stride);
        if (!shape.minimums) continue;
        UNROLLED
        for (int t = 0; t < T; t++) {
            const lanes sum = prepared_of(s, shape, b, sub, t);
            sums->minimum_total[t] = add_integers(sums->minimum_total[t], multiply_integers(u->minimums[i], sum));
        }
    }
}

/* chain[t] += block b of LANE_ROWS rows. */
LANES_INLINE void add_sums_of_256(block_shape shape, int T, float_lanes d, const block_place *p, strip *s, size_t b,
                                  const block_sums *sums, float_lanes chain[BLOCK_TOKENS]) {
    UNROLLED
    for (int t = 0; t < T; t++) {
        const float_lanes dx = set_floats(s->a_scales[(size_t)t * s->a_scale_stride + b]);
        chain[t] = fused(to_floats(sums->total[t]), multiply(d, dx), chain[t]);
        if (shape.minimums) {
            const float_lanes m = load_halves(scale_halves(p, 1));
            chain[t] = fused_negative(to_floats(sums->minimum_total[t]), multiply(m, dx), chain[t]);
        }
    }
}

/* chain[t] += a unit of block b of LANE_ROWS rows: blocks of 32 or 64 columns, a float for each sub-block. */
LANES_INLINE void add_small_unit(block_shape shape, int T, const block_unit *u, int unit, strip *s, size_t b,
                                 float_lanes chain[BLOCK_TOKENS]) {
    const int sub_groups = shape.sub_columns / PI2_GROUP_COLUMNS, subs = 8 / sub_groups, units = shape.columns / 32;
    const size_t at = b * (size_t)units + (size_t)unit; /* the block of 32 activations */
    UNROLLED
    for (int i = 0; i < subs; i++) {
        lanes total[BLOCK_TOKENS], first[BLOCK_TOKENS];
        UNROLLED
        for (int t = 0; t < T; t++) {
            const int32_t *entries = (const int32_t *)s->prepared + (size_t)t * s->prepared_stride;
            total[t] = set_lanes(0);
            first[t] = set_lanes(is_moved(shape) ? (uint32_t)entries[at] : 0);
        }
        add_sub_block(shape, T, total, u->groups + sub_groups * i, sub_groups, factor_of(set_lanes(1)), first,
                      s->a + 32 * at + (size_t)(shape.sub_columns * i), s->a_stride);
        UNROLLED
        for (int t = 0; t < T; t++) {
            const float_lanes dx = set_floats(s->a_scales[(size_t)t * s->a_scale_stride + at]);
            chain[t] = fused(to_floats(total[t]), multiply(u->steps[i], dx), chain[t]);
        }
    }
}

/* ---- strips ---- */

typedef struct block_strip {
    float_lanes chain[BLOCK_TILES][TILE_PARTS][BLOCK_TOKENS];
    const uint8_t *scales, *values; /* of the block under way, of the first tile */
    uintptr_t ahead;
} block_strip;

LANES_INLINE float *out_at(strip *s, size_t tile, int r, int part, int t) {
    const size_t row = (tile + (size_t)r * s->tiles_apart) * PI2_TILE_ROWS + (size_t)(part * LANE_ROWS);
    return s->out + (size_t)t * s->out_stride + row;
}

LANES_INLINE void begin_strip(int R, int T, strip *s, size_t tile, block_strip *work) {
    work->scales = s->scales + tile * s->tile_bytes;
    work->values = s->values + tile * s->tile_bytes;
    work->ahead = pi2_prefetch_begin(s, tile);
    for (int i = 0; i < R * TILE_PARTS; i++) {
        for (int t = 0; t < T; t++) {
            const float *from = out_at(s, tile, i / TILE_PARTS, i % TILE_PARTS, t);
            work->chain[i / TILE_PARTS][i % TILE_PARTS][t] = s->start ? set_floats(0.0f) : load_floats(from);
        }
    }
}

LANES_INLINE void end_strip(int R, int T, strip *s, size_t tile, const block_strip *work) {
    for (int i = 0; i < R * TILE_PARTS; i++) {
        for (int t = 0; t < T; t++) {
            store_floats(out_at(s, tile, i / TILE_PARTS, i % TILE_PARTS, t),
                         work->chain[i / TILE_PARTS][i % TILE_PARTS][t]);
        }
    }
}

/* The i-th LANE_ROWS rows of the strip, of the block under way. */
LANES_INLINE block_place place_of(strip *s, const block_strip *work, int i) {
    const size_t apart = s->tiles_apart * s->tile_bytes * (size_t)(i / TILE_PARTS);
    return (block_place){work->scales + apart, work->values + apart, (size_t)(i % TILE_PARTS * LANE_ROWS)};
}

LANES_INLINE void next_block(const pi2_weight_format *format, block_strip *work) {
    work->scales += format->tile_scale_bytes;
    work->values += format->tile_value_bytes;
}

LANES_INLINE void prefetch_block(const pi2_weight_format *format, int R, int T, strip *s, block_strip *work) {
    const size_t bytes = format->tile_scale_bytes + format->tile_value_bytes;
    if (work->ahead) work->ahead = pi2_prefetch_strip(work->ahead, s, R, T, bytes);
}

/* ---- what each format has of its own ---- */

/* What a format's unit has, by the columns of its blocks: those of 256 have integers for sub-blocks, others floats. */
#define FACTOR_256(lower, p, sub) factor_of(scale_##lower(p, sub))
#define FACTOR_64(lower, p, sub) set_lanes(0)
#define FACTOR_32(lower, p, sub) set_lanes(0)
#define STEP_256(lower, p, sub) set_floats(0.0f)
#define STEP_64(lower, p, sub) step_##lower(p, sub)
#define STEP_32(lower, p, sub) step_##lower(p, sub)
#define MINIMUM_true(lower, p, sub) minimum_##lower(p, sub)
#define MINIMUM_false(lower, p, sub) set_lanes(0)

#define ADD_BLOCK_256(lower)                                          \
    block_sums sums;                                                  \
    UNROLLED                                                          \
    for (int t = 0; t < T; t++) sums.total[t] = sums.minimum_total[t] = set_lanes(0); \
    UNROLLED_UNITS                                                    \
    for (int unit = 0; unit < 8; unit++) {                            \
        const block_unit u = read_##lower(p, unit);                   \
        add_unit_of_256(shape, T, &u, unit, s, b, &sums);             \
    }                                                                 \
    add_sums_of_256(shape, T, step_##lower(p, 0), p, s, b, &sums, chain);
#define ADD_SMALL_BLOCK(lower)                                        \
    UNROLLED                                                          \
    for (int unit = 0; unit < shape.columns / 32; unit++) {           \
        const block_unit u = read_##lower(p, unit);                   \
        add_small_unit(shape, T, &u, unit, s, b, chain);              \
    }
#define ADD_BLOCK_64(lower) ADD_SMALL_BLOCK(lower)
#define ADD_BLOCK_32(lower) ADD_SMALL_BLOCK(lower)

#define BLOCK_FORMAT(lower, upper, id, width, sub_width, most, has_minimums)                                         \
    LANES_INLINE block_unit read_##lower(const block_place *p, int unit) {                                       \
        block_unit u;                                                                                            \
        unpack_##lower(p, unit, u.groups);                                                                       \
        UNROLLED                                                                                                 \
        for (int i = 0; i < 32 / (sub_width); i++) {                                                           \
            const int sub = unit * (32 / (sub_width)) + i;                                                     \
            u.factors[i] = FACTOR_##width(lower, p, sub);                                                      \
            u.minimums[i] = MINIMUM_##has_minimums(lower, p, sub);                                                   \
            u.steps[i] = STEP_##width(lower, p, sub);                                                          \
            (void)sub;                                                                                           \
        }                                                                                                        \
        return u;                                                                                                \
    }                                                                                                            \
    LANES_INLINE void add_block_##lower(int T, const block_place *p, strip *s, size_t b,                         \
                                        float_lanes chain[BLOCK_TOKENS]) {                                       \
        const block_shape shape = {width, sub_width, most, has_minimums};                                     \
        ADD_BLOCK_##width(lower)                                                                               \
    }
#include "weight_formats/weight_formats.inc"

#include "kernels/matmul/matmul_spread_template.h"

/* ---- one function for each format and strip ---- */

#define STRIP_FUNCTION(name, R, T)                                                    \
    static void name##_##R##x##T(const pi2_matmul_strip *s) {                         \
        for (size_t tile = 0; tile < s->tile_end; tile += s->tile_step) {             \
            block_strip work;                                                         \
            begin_strip(R, T, s, tile, &work);                                        \
            for (size_t b = 0; b < s->block_count; b++) {                             \
                prefetch_block(&pi2_weight_format_##name, R, T, s, &work);            \
                for (int i = 0; i < (R) * TILE_PARTS; i++) {                          \
                    const block_place p = place_of(s, &work, i);                      \
                    add_block_##name(T, &p, s, b, work.chain[i / TILE_PARTS][i % TILE_PARTS]); \
                }                                                                     \
                next_block(&pi2_weight_format_##name, &work);                         \
            }                                                                         \
            end_strip(R, T, s, tile, &work);                                          \
        }                                                                             \
    }

#define SYMBOL_OF(name, suffix) pi2_matmul_##name##_##suffix
#define KERNEL_SYMBOL(name, suffix) SYMBOL_OF(name, suffix)

/*
 * One token: four streams of weights. The driver's entries are the sums of activations themselves for minimums, and
 * what moved weights have too much for them.
 */
#define BLOCK_FORMAT(lower, upper, id, columns, sub_columns, largest, minimums)                                  \
    STRIP_FUNCTION(lower, 1, 1)                                                                                   \
    STRIP_FUNCTION(lower, 4, 1)                                                                                   \
    STRIP_FUNCTION(lower, 1, 2)                                                                                   \
    STRIP_FUNCTION(lower, 1, 3)                                                                                   \
    STRIP_FUNCTION(lower, 1, 4)                                                                                   \
    static const pi2_matmul_strips lower##_strips = {                                                            \
        .format = &pi2_weight_format_##lower,                                                                    \
        .prepared = (minimums) || MOVES_SIGNED > 0 ? PI2_PREPARED_OFFSET : PI2_PREPARED_NONE,                    \
        .offset = (minimums) ? -1 : MOVES_SIGNED,                                                                \
        .max_tokens = BLOCK_TOKENS,                                                                              \
        .wide_tiles = {BLOCK_TILES},                                                                             \
        .one_tile = {lower##_1x1, lower##_1x2, lower##_1x3, lower##_1x4},                                        \
        .wide = {lower##_4x1},                                                                                   \
        .many = &lower##_spread,                                                                                 \
    };                                                                                                           \
    void KERNEL_SYMBOL(lower, BLOCKS_SUFFIX)(float *out, size_t out_stride, const void *tiles, size_t tile_count, \
                                             size_t tile_columns, size_t column_begin, const pi2_activations *x, \
                                             size_t token_begin, size_t token_count, bool start) {               \
        pi2_matmul_drive(&lower##_strips, out, out_stride, tiles, tile_count, tile_columns, column_begin, x,     \
                         token_begin, token_count, start);                                                       \
    }
#include "weight_formats/weight_formats.inc"
