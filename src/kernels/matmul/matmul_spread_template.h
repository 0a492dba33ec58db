/*
 * matmul_spread_template.h: many tokens times formats that are read by whole blocks. Unpacking such a block costs as
 * much as the products of several tokens, so a panel of a few tiles is spread once, into columns of a byte that
 * products take as they are, and all tokens of a chunk are multiplied with it while it is in the first-level cache.
 * matmul_blocks_template.h includes this; the bits are those of its strips.
 *
 * A block of LANE_ROWS rows is spread into lanes: its column groups; for each sub-block a factor, or of blocks of 32
 * and 64 columns a step; of blocks of 256 then d, and where they have minimums these, as two of 16 bits for each 32
 * columns (they meet the sums of both halves), and m.
 */
enum {
    SPREAD_PARTS = SPREAD_TILES * TILE_PARTS,
    SPREAD_TOGETHER = SPREAD_PARTS < SPREAD_MOST_PARTS ? SPREAD_PARTS : SPREAD_MOST_PARTS
};

LANES_INLINE int groups_of_block(block_shape shape) { return shape.columns / PI2_GROUP_COLUMNS; }
LANES_INLINE int place_of_d(block_shape shape) { return groups_of_block(shape) + shape.columns / shape.sub_columns; }
#define LANES_OF_BLOCK(columns, sub_columns, minimums) \
    ((columns) / PI2_GROUP_COLUMNS + (columns) / (sub_columns) + ((columns) < 256 ? 0 : (minimums) ? 10 : 1))
LANES_INLINE size_t lanes_of_block(block_shape shape) {
    return (size_t)LANES_OF_BLOCK(shape.columns, shape.sub_columns, shape.minimums);
}

/* Whether a sub-block's sum, of weights as they are, fits in 16 bits. */
LANES_INLINE bool is_short(block_shape shape) {
    return shape.columns == 256 && shape.sub_columns * 127 * shape.largest <= INT16_MAX;
}

LANES_INLINE void put_floats(lanes *to, float_lanes x) { store_floats((float *)(void *)to, x); }
LANES_INLINE float_lanes get_floats(const lanes *from) { return load_floats((const float *)(const void *)from); }

/* ---- spreading ---- */

LANES_INLINE void spread_unit(block_shape shape, const block_unit *u, int unit, lanes *to) {
    const int subs = 32 / shape.sub_columns;
    UNROLLED
    for (int g = 0; g < 8; g++) to[8 * unit + g] = shape.minimums ? u->groups[g] : moved_columns(u->groups[g]);
    UNROLLED
    for (int i = 0; i < subs; i++) {
        lanes *of_sub = to + groups_of_block(shape) + unit * subs + i;
        if (shape.columns < 256) put_floats(of_sub, u->steps[i]);
        else *of_sub = is_short(shape) ? short_factor(u->factors[i]) : u->factors[i];
    }
    if (shape.minimums) {
        to[place_of_d(shape) + 1 + unit] = either(u->minimums[0], left(u->minimums[subs - 1], 16));
    }
}

LANES_INLINE void spread_floats(block_shape shape, float_lanes d, const block_place *p, lanes *to) {
    if (shape.columns < 256) return;
    put_floats(to + place_of_d(shape), d);
    if (shape.minimums) put_floats(to + place_of_d(shape) + 9, load_halves(scale_halves(p, 1)));
}

/* ---- one group of tokens ---- */

/* What P parts of one block and T tokens meet: the parts lie `apart` lanes apart. */
typedef struct spread_place {
    const lanes *weights;
    size_t apart;
    strip *s;
    size_t block;
} spread_place;

typedef float_lanes spread_chains[SPREAD_TOGETHER][SPREAD_TOKENS];
typedef lanes spread_sums[SPREAD_TOGETHER][SPREAD_TOKENS];

/* total[p][t] += sub-block `sub`. */
LANES_INLINE void add_spread_sub_block(block_shape shape, int P, int T, spread_sums total, const spread_place *place,
                                       int sub) {
    const int count = shape.sub_columns / PI2_GROUP_COLUMNS, most = SUM_LIMIT / (2 * 127 * shape.largest);
    const bool is_signed = !shape.minimums && MOVES_SIGNED == 0, starts = !shape.minimums && MOVES_SIGNED > 0;
    const size_t at = place->block * (size_t)(shape.columns / shape.sub_columns) + (size_t)sub, apart = place->apart;
    const lanes *columns = place->weights + sub * count;
    const lanes *factor = place->weights + groups_of_block(shape) + sub;
    const int8_t *a = place->s->a + at * (size_t)shape.sub_columns;
    const int32_t *first = (const int32_t *)place->s->prepared + at;
    spread_sums sums;
    UNROLLED
    for (int t = 0; t < T; t++) {
        UNROLLED
        for (int p = 0; p < P; p++) {
            sums[p][t] = set_lanes(starts ? (uint32_t)first[(size_t)t * place->s->prepared_stride] : 0);
        }
    }
    UNROLLED
    for (int g = 0; g < count; g++) {
        weights w[SPREAD_TOGETHER];
        UNROLLED
        for (int p = 0; p < P; p++) w[p] = weights_of(columns[(size_t)p * apart + (size_t)g], is_signed, false);
        UNROLLED
        for (int t = 0; t < T; t++) {
            const lanes x = four_activations(a + (size_t)t * place->s->a_stride + 4 * g);
            UNROLLED
            for (int p = 0; p < P; p++) sums[p][t] = add_products(sums[p][t], w[p], x, is_signed);
        }
        if ((g + 1) % most && g + 1 < count) continue;
        UNROLLED
        for (int p = 0; p < P; p++) {
            const lanes f = shape.columns < 256 ? factor_of(set_lanes(1)) : factor[(size_t)p * apart];
            UNROLLED
            for (int t = 0; t < T; t++) {
                total[p][t] = is_short(shape) ? add_scaled_short(total[p][t], sums[p][t], f)
                                              : add_scaled(total[p][t], sums[p][t], f);
                sums[p][t] = set_lanes(0);
            }
        }
    }
}

/* chain -= the minimums of a block of 256 columns. */
LANES_INLINE void add_spread_minimums(block_shape shape, int P, int T, const spread_place *place, spread_chains chain) {
    const lanes *minimums = place->weights + place_of_d(shape) + 1;
    UNROLLED
    for (int t = 0; t < T; t++) {
        const int32_t *pairs = (const int32_t *)place->s->prepared + (size_t)t * place->s->prepared_stride +
                               8 * place->block;
        const float_lanes dx = set_floats(place->s->a_scales[(size_t)t * place->s->a_scale_stride + place->block]);
        UNROLLED
        for (int p = 0; p < P; p++) {
            lanes sum = set_lanes(0);
            UNROLLED
            for (int i = 0; i < 8; i++) {
                sum = add_pairs(sum, minimums[(size_t)p * place->apart + (size_t)i], set_lanes((uint32_t)pairs[i]));
            }
            const float_lanes m = get_floats(minimums + (size_t)p * place->apart + 8);
            chain[p][t] = fused_negative(to_floats(sum), multiply(m, dx), chain[p][t]);
        }
    }
}

/* chain += total: sums of a block of 256 columns, or of a smaller one's sub-block `sub`. */
LANES_INLINE void add_spread_sums(block_shape shape, int P, int T, spread_sums total, const spread_place *place,
                                  int sub, spread_chains chain) {
    const bool is_small = shape.columns < 256;
    const lanes *steps = place->weights + (is_small ? groups_of_block(shape) + sub : place_of_d(shape));
    const size_t scales = (size_t)(is_small ? shape.columns / 32 : 1); /* of the activations of a block */
    const size_t at = place->block * scales + (size_t)(is_small ? sub * shape.sub_columns / 32 : 0);
    UNROLLED
    for (int p = 0; p < P; p++) {
        const float_lanes step = get_floats(steps + (size_t)p * place->apart);
        UNROLLED
        for (int t = 0; t < T; t++) {
            const float_lanes dx = set_floats(place->s->a_scales[(size_t)t * place->s->a_scale_stride + at]);
            chain[p][t] = fused(to_floats(total[p][t]), multiply(step, dx), chain[p][t]);
            total[p][t] = set_lanes(0);
        }
    }
}

LANES_INLINE void add_spread_block(block_shape shape, int P, int T, const spread_place *place, spread_chains chain) {
    spread_sums total;
    UNROLLED
    for (int p = 0; p < P; p++) {
        UNROLLED
        for (int t = 0; t < T; t++) total[p][t] = set_lanes(0);
    }
    for (int sub = 0; sub < shape.columns / shape.sub_columns; sub++) {
        add_spread_sub_block(shape, P, T, total, place, sub);
        if (shape.columns < 256) add_spread_sums(shape, P, T, total, place, sub, chain);
    }
    if (shape.columns < 256) return;
    add_spread_sums(shape, P, T, total, place, 0, chain);
    if (shape.minimums) add_spread_minimums(shape, P, T, place, chain);
}

/* All parts of the tiles that were spread, s->values, times a group of T tokens. */
LANES_INLINE void strip_of_spread(block_shape shape, int T, strip *s) {
    const lanes *parts = (const lanes *)(const void *)s->values;
    const size_t apart = lanes_of_block(shape);
    for (int part = 0; part < SPREAD_PARTS; part += SPREAD_TOGETHER) {
        spread_chains chain;
        float *out = s->out + (size_t)(part * LANE_ROWS);
        UNROLLED
        for (int p = 0; p < SPREAD_TOGETHER; p++) {
            UNROLLED
            for (int t = 0; t < T; t++) {
                const float *from = out + (size_t)t * s->out_stride + (size_t)(p * LANE_ROWS);
                chain[p][t] = s->start ? set_floats(0.0f) : load_floats(from);
            }
        }
        for (size_t b = 0; b < s->block_count; b++) {
            const spread_place place = {parts + (b * SPREAD_PARTS + (size_t)part) * apart, apart, s, b};
            add_spread_block(shape, SPREAD_TOGETHER, T, &place, chain);
        }
        UNROLLED
        for (int p = 0; p < SPREAD_TOGETHER; p++) {
            UNROLLED
            for (int t = 0; t < T; t++) {
                store_floats(out + (size_t)t * s->out_stride + (size_t)(p * LANE_ROWS), chain[p][t]);
            }
        }
    }
}

/* ---- what each format has of its own ---- */

#define D_256(lower, p) step_##lower(p, 0)
#define D_64(lower, p) set_floats(0.0f)
#define D_32(lower, p) set_floats(0.0f)

#define BLOCK_FORMAT(lower, upper, id, width, sub_width, most, has_minimums)                              \
    static void spread_##lower(void *to, const pi2_matmul_strip *s) {                                     \
        const block_shape shape = {width, sub_width, most, has_minimums};                                 \
        block_strip work = {.scales = s->scales, .values = s->values};                                    \
        lanes *next = to;                                                                                 \
        for (size_t b = 0; b < s->block_count; b++) {                                                     \
            for (int i = 0; i < SPREAD_PARTS; i++, next += lanes_of_block(shape)) {                       \
                const block_place p = place_of(s, &work, i);                                              \
                for (int unit = 0; unit < (width) / 32; unit++) {                                         \
                    const block_unit u = read_##lower(&p, unit);                                          \
                    spread_unit(shape, &u, unit, next);                                                   \
                }                                                                                         \
                spread_floats(shape, D_##width(lower, &p), &p, next);                                     \
            }                                                                                             \
            next_block(&pi2_weight_format_##lower, &work);                                                \
        }                                                                                                 \
    }                                                                                                     \
    SPREAD_STRIP(lower, least, SPREAD_TOKENS - 2, width, sub_width, most, has_minimums)                   \
    SPREAD_STRIP(lower, less, SPREAD_TOKENS - 1, width, sub_width, most, has_minimums)                    \
    SPREAD_STRIP(lower, full, SPREAD_TOKENS, width, sub_width, most, has_minimums)                        \
    static const pi2_matmul_spread lower##_spread = {                                                     \
        .tiles = SPREAD_TILES,                                                                            \
        .max_tokens = SPREAD_TOKENS,                                                                      \
        .block_bytes = SPREAD_PARTS * sizeof(lanes) * LANES_OF_BLOCK(width, sub_width, has_minimums),     \
        .offset = (has_minimums) ? 0 : MOVES_SIGNED,                                                      \
        .spread = spread_##lower,                                                                         \
        .strips = {lower##_spread_least, lower##_spread_less, lower##_spread_full},                       \
    };

#define SPREAD_STRIP(lower, name, T, width, sub_width, most, has_minimums) \
    static void lower##_spread_##name(const pi2_matmul_strip *s) {         \
        const block_shape shape = {width, sub_width, most, has_minimums};  \
        strip_of_spread(shape, T, s);                                      \
    }
#include "weight_formats/weight_formats.inc"
