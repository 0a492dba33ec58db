/*
 * matmul_blocks_template.h: strip kernels of every format that is read by whole blocks, for one instruction set. The
 * including file includes block_lanes_<isa>.h first and defines
 *
 *   BLOCKS_SUFFIX    how the names of its kernels end, as in matmul.inc
 *   UNROLLED_UNITS   what stands before the loop over a block's units of 32 columns
 *
 * Sums of products of a sub-block's 16 or 32 columns are integers, in lanes of rows; docs/arithmetic.md says what then
 * comes. `type` is a constant where a function is inlined, so nothing is left of what it asks.
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

LANES_INLINE block_shape shape_of(pi2_weight_type type) {
    switch ((int)type) {
#define BLOCK_FORMAT(lower, upper, id, columns, sub_columns, largest, minimums) \
    case id: return (block_shape){columns, sub_columns, largest, minimums};
#include "weight_formats/weight_formats.inc"
    default: return (block_shape){0};
    }
}

LANES_INLINE void unpack(pi2_weight_type type, const block_place *p, int unit, lanes groups[8]) {
    switch ((int)type) {
#define BLOCK_FORMAT(lower, upper, id, columns, sub_columns, largest, minimums) \
    case id: unpack_##lower(p, unit, groups); break;
#include "weight_formats/weight_formats.inc"
    default: break;
    }
}

LANES_INLINE float_lanes step_of(pi2_weight_type type, const block_place *p, int sub) {
    switch ((int)type) {
#define BLOCK_FORMAT(lower, upper, id, columns, sub_columns, largest, minimums) \
    case id: return step_##lower(p, sub);
#include "weight_formats/weight_formats.inc"
    default: return set_floats(0.0f);
    }
}

/* Of blocks of 256 columns alone. */
#define SCALE_256(lower, p, sub) scale_##lower(p, sub)
#define SCALE_64(lower, p, sub) set_lanes(1)
#define SCALE_32(lower, p, sub) set_lanes(1)
LANES_INLINE lanes scale_of(pi2_weight_type type, const block_place *p, int sub) {
    switch ((int)type) {
#define BLOCK_FORMAT(lower, upper, id, columns, sub_columns, largest, minimums) \
    case id: return SCALE_##columns(lower, p, sub);
#include "weight_formats/weight_formats.inc"
    default: return set_lanes(1);
    }
}

#define MINIMUM_true(lower, p, sub) minimum_##lower(p, sub)
#define MINIMUM_false(lower, p, sub) set_lanes(0)
LANES_INLINE lanes minimum_of(pi2_weight_type type, const block_place *p, int sub) {
    switch ((int)type) {
#define BLOCK_FORMAT(lower, upper, id, columns, sub_columns, largest, minimums) \
    case id: return MINIMUM_##minimums(lower, p, sub);
#include "weight_formats/weight_formats.inc"
    default: return set_lanes(0);
    }
}

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

/* chain[t] += block b of LANE_ROWS rows: 256 columns, one activation scale. */
LANES_INLINE void add_block_of_256(pi2_weight_type type, int T, const block_place *p, strip *s, size_t b,
                                   float_lanes chain[BLOCK_TOKENS]) {
    const block_shape shape = shape_of(type);
    const int sub_groups = shape.sub_columns / PI2_GROUP_COLUMNS, subs = 8 / sub_groups;
    lanes total[BLOCK_TOKENS], minimum_total[BLOCK_TOKENS];
    UNROLLED
    for (int t = 0; t < T; t++) total[t] = minimum_total[t] = set_lanes(0);
    UNROLLED_UNITS
    for (int unit = 0; unit < 8; unit++) {
        lanes groups[8];
        unpack(type, p, unit, groups);
        UNROLLED
        for (int i = 0; i < subs; i++) {
            const int sub = unit * subs + i;
            lanes first[BLOCK_TOKENS];
            UNROLLED
            for (int t = 0; t < T; t++) first[t] = is_moved(shape) ? prepared_of(s, shape, b, sub, t) : set_lanes(0);
            add_sub_block(shape, T, total, groups + sub_groups * i, sub_groups, factor_of(scale_of(type, p, sub)),
                          first, s->a + 256 * b + 32 * (size_t)unit + (size_t)(shape.sub_columns * i), s->a_stride);
            if (!shape.minimums) continue;
            const lanes minimum = minimum_of(type, p, sub);
            UNROLLED
            for (int t = 0; t < T; t++) {
                const lanes sum = prepared_of(s, shape, b, sub, t);
                minimum_total[t] = add_integers(minimum_total[t], multiply_integers(minimum, sum));
            }
        }
    }
    const float_lanes d = step_of(type, p, 0);
    UNROLLED
    for (int t = 0; t < T; t++) {
        const float_lanes dx = set_floats(s->a_scales[(size_t)t * s->a_scale_stride + b]);
        chain[t] = fused(to_floats(total[t]), multiply(d, dx), chain[t]);
        if (shape.minimums) {
            const float_lanes m = load_halves(scale_halves(p, 1));
            chain[t] = fused_negative(to_floats(minimum_total[t]), multiply(m, dx), chain[t]);
        }
    }
}

/* chain[t] += block b of LANE_ROWS rows: 32 or 64 columns, a float for each sub-block. */
LANES_INLINE void add_small_block(pi2_weight_type type, int T, const block_place *p, strip *s, size_t b,
                                  float_lanes chain[BLOCK_TOKENS]) {
    const block_shape shape = shape_of(type);
    const int sub_groups = shape.sub_columns / PI2_GROUP_COLUMNS, subs = 8 / sub_groups, units = shape.columns / 32;
    UNROLLED
    for (int unit = 0; unit < units; unit++) {
        const size_t at = b * (size_t)units + (size_t)unit; /* the block of 32 activations */
        lanes groups[8];
        unpack(type, p, unit, groups);
        UNROLLED
        for (int i = 0; i < subs; i++) {
            lanes total[BLOCK_TOKENS], first[BLOCK_TOKENS];
            UNROLLED
            for (int t = 0; t < T; t++) {
                const int32_t *entries = (const int32_t *)s->prepared + (size_t)t * s->prepared_stride;
                total[t] = set_lanes(0);
                first[t] = set_lanes(is_moved(shape) ? (uint32_t)entries[at] : 0);
            }
            add_sub_block(shape, T, total, groups + sub_groups * i, sub_groups, factor_of(set_lanes(1)), first,
                          s->a + 32 * at + (size_t)(shape.sub_columns * i), s->a_stride);
            const float_lanes d = step_of(type, p, unit * subs + i);
            UNROLLED
            for (int t = 0; t < T; t++) {
                const float_lanes dx = set_floats(s->a_scales[(size_t)t * s->a_scale_stride + at]);
                chain[t] = fused(to_floats(total[t]), multiply(d, dx), chain[t]);
            }
        }
    }
}

LANES_INLINE float *out_at(strip *s, size_t tile, int r, int part, int t) {
    const size_t row = (tile + (size_t)r * s->tiles_apart) * PI2_TILE_ROWS + (size_t)(part * LANE_ROWS);
    return s->out + (size_t)t * s->out_stride + row;
}

LANES_INLINE void strip_of_blocks(pi2_weight_type type, const pi2_weight_format *format, int R, int T, strip *s) {
    const size_t apart = s->tiles_apart * s->tile_bytes;
    const size_t scale_bytes = format->tile_scale_bytes, value_bytes = format->tile_value_bytes;
    for (size_t tile = 0; tile < s->tile_end; tile += s->tile_step) {
        const uint8_t *scales = s->scales + tile * s->tile_bytes, *values = s->values + tile * s->tile_bytes;
        uintptr_t ahead = pi2_prefetch_begin(s, tile);
        float_lanes chain[BLOCK_TILES][TILE_PARTS][BLOCK_TOKENS];
        for (int i = 0; i < R * TILE_PARTS; i++) {
            for (int t = 0; t < T; t++) {
                const float *from = out_at(s, tile, i / TILE_PARTS, i % TILE_PARTS, t);
                chain[i / TILE_PARTS][i % TILE_PARTS][t] = s->start ? set_floats(0.0f) : load_floats(from);
            }
        }
        for (size_t b = 0; b < s->block_count; b++, scales += scale_bytes, values += value_bytes) {
            if (ahead) ahead = pi2_prefetch_strip(ahead, s, R, T, scale_bytes + value_bytes);
            for (int i = 0; i < R * TILE_PARTS; i++) {
                const size_t r = (size_t)(i / TILE_PARTS), row = (size_t)(i % TILE_PARTS * LANE_ROWS);
                const block_place p = {scales + r * apart, values + r * apart, row};
                float_lanes *own = chain[r][i % TILE_PARTS];
                if (shape_of(type).columns == 256) add_block_of_256(type, T, &p, s, b, own);
                else add_small_block(type, T, &p, s, b, own);
            }
        }
        for (int i = 0; i < R * TILE_PARTS; i++) {
            for (int t = 0; t < T; t++) {
                store_floats(out_at(s, tile, i / TILE_PARTS, i % TILE_PARTS, t),
                             chain[i / TILE_PARTS][i % TILE_PARTS][t]);
            }
        }
    }
}

/* ---- one function for each format and strip ---- */

#define STRIP_FUNCTION(name, type, R, T)                             \
    static void name##_##R##x##T(const pi2_matmul_strip *s) {        \
        strip_of_blocks(type, &pi2_weight_format_##name, R, T, s);   \
    }

#define SYMBOL_OF(name, suffix) pi2_matmul_##name##_##suffix
#define KERNEL_SYMBOL(name, suffix) SYMBOL_OF(name, suffix)

/*
 * One token: four streams of weights. The driver's entries are the sums of activations themselves for minimums, and
 * what moved weights have too much for them.
 */
#define BLOCK_FORMAT(lower, upper, id, columns, sub_columns, largest, minimums)                                  \
    STRIP_FUNCTION(lower, PI2_##upper, 1, 1)                                                                     \
    STRIP_FUNCTION(lower, PI2_##upper, 4, 1)                                                                     \
    STRIP_FUNCTION(lower, PI2_##upper, 1, 2)                                                                     \
    STRIP_FUNCTION(lower, PI2_##upper, 1, 3)                                                                     \
    STRIP_FUNCTION(lower, PI2_##upper, 1, 4)                                                                     \
    static const pi2_matmul_strips lower##_strips = {                                                            \
        .format = &pi2_weight_format_##lower,                                                                    \
        .prepared = (minimums) || MOVES_SIGNED > 0 ? PI2_PREPARED_OFFSET : PI2_PREPARED_NONE,                    \
        .offset = (minimums) ? -1 : MOVES_SIGNED,                                                                \
        .max_tokens = BLOCK_TOKENS,                                                                              \
        .wide_tiles = {BLOCK_TILES},                                                                             \
        .one_tile = {lower##_1x1, lower##_1x2, lower##_1x3, lower##_1x4},                                        \
        .wide = {lower##_4x1},                                                                                   \
    };                                                                                                           \
    void KERNEL_SYMBOL(lower, BLOCKS_SUFFIX)(float *out, size_t out_stride, const void *tiles, size_t tile_count, \
                                             size_t tile_columns, size_t column_begin, const pi2_activations *x, \
                                             size_t token_begin, size_t token_count, bool start) {               \
        pi2_matmul_drive(&lower##_strips, out, out_stride, tiles, tile_count, tile_columns, column_begin, x,     \
                         token_begin, token_count, start);                                                       \
    }
#include "weight_formats/weight_formats.inc"
