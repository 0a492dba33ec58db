/* matmul_driver.c: cuts a call into strips and groups; see the header. */
#include "kernels/matmul/matmul_driver.h"

#include <string.h>

enum {
    PREPARED_ENTRIES = 12288, /* 48 KB of stack */
    PANEL_COLUMNS = 32768,    /* one token of a panel needs at most 2048 entries */
    CHUNK_BYTES = 384 * 1024, /* activations of a chunk: well inside a 1 MB second-level cache */
    LEAST_STREAM_BYTES = 16 * 1024, /* shorter ones end before what is asked for ahead of them is of use */
    SPREAD_BYTES = 24 * 1024,       /* of stack, and of a first-level cache of 32 KB */
    LEAST_SPREAD_TOKENS = 8         /* and so every group is of max_tokens - 2 at least */
};

typedef struct call {
    const pi2_matmul_strips *strips;
    const pi2_activations *x;
    float *out;
    size_t out_stride;
    const uint8_t *tiles;
    size_t tile_count, tile_bytes, scale_area_bytes;
    size_t token_begin;
} call;

typedef struct panel {
    size_t first_block, block_count; /* of the tiles */
    size_t x_column;                 /* where its first block meets x */
    bool start;
} panel;

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static bool is_large(const pi2_weight_format *format) { return format->activation == PI2_ACTIVATION_Q8_256; }

static size_t columns_of_a_sum(const pi2_weight_format *format) { return is_large(format) ? 16 : 32; }

static size_t columns_of_an_entry(const pi2_matmul_strips *strips) {
    return strips->prepared == PI2_PREPARED_PAIRS ? 64 : columns_of_a_sum(strips->format);
}

static void prepare_pairs(int16_t *entries, const int16_t *sums, size_t block_count) {
    static const uint8_t order[8] = {0, 2, 1, 3, 4, 6, 5, 7};
    for (size_t b = 0; b < block_count; b++, entries += 8, sums += 16) {
        for (size_t i = 0; i < 8; i++) {
            const size_t s = order[i];
            entries[i] = (int16_t)(sums[2 * s] + sums[2 * s + 1]);
        }
    }
}

/* Fills [token_count][stride] entries for the tokens that begin at `token` of x. */
static void prepare(const call *c, const panel *p, size_t token, size_t token_count, size_t stride,
                    int32_t *entries) {
    const pi2_matmul_strips *strips = c->strips;
    const pi2_activations *x = c->x;
    if (strips->prepared == PI2_PREPARED_NONE) return;
    const size_t columns = p->block_count * strips->format->block_columns;
    const size_t summed = columns_of_a_sum(strips->format), scaled = is_large(strips->format) ? 256 : 32;
    for (size_t t = 0; t < token_count; t++, entries += stride) {
        const int16_t *sums = x->sums + (token + t) * x->sum_stride + p->x_column / summed;
        const float *scales = x->scales + (token + t) * x->block_stride + p->x_column / scaled;
        if (strips->prepared == PI2_PREPARED_PAIRS) {
            prepare_pairs((int16_t *)entries, sums, p->block_count);
        } else if (strips->prepared == PI2_PREPARED_OFFSET) {
            for (size_t i = 0; i < columns / summed; i++) entries[i] = -strips->offset * sums[i];
        } else {
            float *products = (float *)(void *)entries;
            for (size_t i = 0; i < columns / summed; i++) products[i] = scales[i] * (float)sums[i];
        }
    }
}

static pi2_matmul_strip strip_at(const call *c, const panel *p, size_t tile, size_t token,
                                 size_t first_token) {
    const pi2_weight_format *format = c->strips->format;
    const pi2_activations *x = c->x;
    const uint8_t *scales = c->tiles + tile * c->tile_bytes;
    pi2_matmul_strip strip = {
        .out = c->out + (first_token + token) * c->out_stride + tile * PI2_TILE_ROWS,
        .out_stride = c->out_stride,
        .scales = scales + p->first_block * format->tile_scale_bytes,
        .values = scales + c->scale_area_bytes + p->first_block * format->tile_value_bytes,
        .tile_bytes = c->tile_bytes,
        .block_count = p->block_count,
        .start = p->start,
        .stream = token == 0,
    };
    const size_t x_token = c->token_begin + first_token + token;
    if (x->kind == PI2_ACTIVATION_F32) {
        strip.a_scales = x->floats + x_token * x->float_stride + p->x_column;
        strip.a_scale_stride = x->float_stride;
    } else {
        strip.a = x->values + x_token * x->value_stride + p->x_column;
        strip.a_stride = x->value_stride;
        strip.a_scales = x->scales + x_token * x->block_stride + p->x_column / (is_large(format) ? 256 : 32);
        strip.a_scale_stride = x->block_stride;
    }
    return strip;
}

/* All tiles times the group of `count` tokens at `token` of the chunk, wide strips first. */
static void run_tiles(const call *c, const panel *p, size_t tile_begin, size_t tile_end,
                      size_t first_token, size_t token, size_t count, size_t stride,
                      const int32_t *entries) {
    const pi2_matmul_strips *strips = c->strips;
    const size_t wide = strips->wide_tiles[count - 1];
    const size_t tiles = tile_end - tile_begin;
    const bool apart = count == 1 && wide && tiles / wide * c->tile_bytes >= LEAST_STREAM_BYTES;
    /* Floats add each row in sequence: they want several rows at once however short they are. */
    const bool together = count > 1 || c->x->kind == PI2_ACTIVATION_F32;
    const size_t wide_tiles = wide && (apart || together) ? tiles / wide * wide : 0;
    if (wide_tiles) {
        pi2_matmul_strip strip = strip_at(c, p, tile_begin, token, first_token);
        strip.tiles_apart = apart ? wide_tiles / wide : 1;
        strip.tile_step = apart ? 1 : wide;
        strip.tile_end = apart ? wide_tiles / wide : wide_tiles;
        strip.prepared = entries + token * stride;
        strip.prepared_stride = stride;
        strips->wide[count - 1](&strip);
    }
    if (wide_tiles < tiles) {
        pi2_matmul_strip strip = strip_at(c, p, tile_begin + wide_tiles, token, first_token);
        strip.tile_step = 1;
        strip.tile_end = tiles - wide_tiles;
        strip.prepared = entries + token * stride;
        strip.prepared_stride = stride;
        strips->one_tile[count - 1](&strip);
    }
}

static void run_chunk(const call *c, const panel *p, size_t first_token, size_t token_count,
                      size_t stride, int32_t *entries) {
    prepare(c, p, c->token_begin + first_token, token_count, stride, entries);
    const size_t max_tokens = c->strips->max_tokens;
    if (token_count <= max_tokens) {
        run_tiles(c, p, 0, c->tile_count, first_token, 0, token_count, stride, entries);
        return;
    }
    /* Groups of nearly equal size: 7 tokens are 4 and 3, not 6 and 1. */
    const size_t group_count = (token_count + max_tokens - 1) / max_tokens;
    const size_t wide = c->strips->wide_tiles[max_tokens - 1];
    const size_t step = wide ? wide : 1;
    for (size_t tile = 0; tile < c->tile_count; tile += step) {
        const size_t tile_end = smaller(tile + step, c->tile_count);
        for (size_t group = 0, token = 0; group < group_count; group++) {
            const size_t rest = group_count - group;
            const size_t count = (token_count - token + rest - 1) / rest;
            run_tiles(c, p, tile, tile_end, first_token, token, count, stride, entries);
            token += count;
        }
    }
}

/* ---- formats that are spread ---- */

/* The sum of the activations of sub-block `sub` of a panel; from the values where sums of so few are not kept. */
static int32_t sum_of(const call *c, const panel *p, size_t token, size_t sub) {
    const pi2_activations *x = c->x;
    const size_t kept = columns_of_a_sum(c->strips->format), columns = c->strips->format->sub_columns;
    const size_t column = p->x_column + sub * columns;
    const int16_t *sums = x->sums + token * x->sum_stride + column / kept;
    if (columns == kept) return sums[0];
    if (columns > kept) return sums[0] + sums[1];
    const int8_t *values = x->values + token * x->value_stride + column;
    int32_t sum = 0;
    for (size_t i = 0; i < columns; i++) sum += values[i];
    return sum;
}

/* Entries of a panel: what each sub-block's sums start at, or for minimums the kept sums, two in an entry. */
static void prepare_spread(const call *c, const panel *p, size_t token, size_t token_count, size_t stride,
                           int32_t *entries) {
    const pi2_weight_format *format = c->strips->format;
    const size_t columns = p->block_count * format->block_columns;
    for (size_t t = 0; t < token_count; t++, entries += stride) {
        if (format->sub_minimums) {
            const int16_t *sums = c->x->sums + (token + t) * c->x->sum_stride + p->x_column / 16;
            memcpy(entries, sums, columns / 16 * sizeof *sums);
        } else if (c->strips->many->offset) {
            for (size_t i = 0; i < columns / format->sub_columns; i++) {
                entries[i] = -c->strips->many->offset * sum_of(c, p, token + t, i);
            }
        }
    }
}

/* A chunk of tokens times all tiles of a panel. */
static void run_spread_chunk(const call *c, const panel *p, size_t first_token, size_t token_count, size_t stride,
                             int32_t *entries) {
    _Alignas(64) uint8_t spread[SPREAD_BYTES];
    const pi2_matmul_spread *many = c->strips->many;
    const size_t whole = c->tile_count - c->tile_count % many->tiles;
    const size_t group_count = (token_count + many->max_tokens - 1) / many->max_tokens;
    prepare_spread(c, p, c->token_begin + first_token, token_count, stride, entries);
    for (size_t tile = 0; tile < whole; tile += many->tiles) {
        pi2_matmul_strip tiles = strip_at(c, p, tile, 0, first_token);
        tiles.tiles_apart = 1;
        many->spread(spread, &tiles);
        for (size_t group = 0, token = 0; group < group_count; group++) {
            const size_t rest = group_count - group, count = (token_count - token + rest - 1) / rest;
            pi2_matmul_strip strip = strip_at(c, p, tile, token, first_token);
            strip.values = spread;
            strip.prepared = entries + token * stride;
            strip.prepared_stride = stride;
            many->strips[count + 2 - many->max_tokens](&strip);
            token += count;
        }
    }
}

/* The tiles that fill strips, times many tokens; returns how many tiles that are. */
static size_t drive_spread(const call *c, panel p, size_t block_count, size_t column_begin, size_t token_count,
                           int32_t *entries) {
    const pi2_weight_format *format = c->strips->format;
    const size_t panel_blocks = SPREAD_BYTES / c->strips->many->block_bytes;
    for (; p.first_block < block_count; p.first_block += p.block_count, p.start = false) {
        p.block_count = smaller(panel_blocks, block_count - p.first_block);
        p.x_column = column_begin + p.first_block * format->block_columns;
        const size_t columns = p.block_count * format->block_columns;
        const size_t stride = columns / smaller(format->sub_columns, 32) + 1;
        const size_t most = smaller(CHUNK_BYTES / columns, PREPARED_ENTRIES / stride);
        /* Chunks of nearly equal size, so that none is too short to be spread for. */
        const size_t chunk_count = (token_count + most - 1) / most;
        for (size_t chunk = 0, token = 0; chunk < chunk_count; chunk++) {
            const size_t rest = chunk_count - chunk, count = (token_count - token + rest - 1) / rest;
            run_spread_chunk(c, &p, token, count, stride, entries);
            token += count;
        }
    }
    return c->tile_count - c->tile_count % c->strips->many->tiles;
}

void pi2_matmul_drive(const pi2_matmul_strips *strips, float *out, size_t out_stride,
                      const void *tiles, size_t tile_count, size_t columns, size_t column_begin,
                      const pi2_activations *x, size_t token_begin, size_t token_count,
                      bool start) {
    int32_t entries[PREPARED_ENTRIES];
    const pi2_weight_format *format = strips->format;
    const size_t panel_blocks = PANEL_COLUMNS / format->block_columns;
    const size_t block_count = columns / format->block_columns;
    call c = {.strips = strips,
                    .x = x,
                    .out = out,
                    .out_stride = out_stride,
                    .tiles = tiles,
                    .tile_count = tile_count,
                    .tile_bytes = pi2_tile_bytes(format, columns),
                    .scale_area_bytes = pi2_tile_scale_area_bytes(format, columns),
                    .token_begin = token_begin};
    panel p = {.start = start};
    if (strips->many && token_count >= LEAST_SPREAD_TOKENS) {
        const size_t done = drive_spread(&c, p, block_count, column_begin, token_count, entries);
        if (done == tile_count) return;
        c.out += done * PI2_TILE_ROWS;
        c.tiles += done * c.tile_bytes;
        c.tile_count -= done;
    }
    do {
        p.block_count = smaller(panel_blocks, block_count - p.first_block);
        p.x_column = column_begin + p.first_block * format->block_columns;
        const size_t panel_columns = p.block_count * format->block_columns;
        const size_t stride = panel_columns / columns_of_an_entry(strips) + 1;
        const size_t activation_bytes = format->block_columns == 1 ? sizeof(float) : 1;
        size_t chunk = CHUNK_BYTES / (panel_columns * activation_bytes + 1);
        if (strips->prepared != PI2_PREPARED_NONE)
            chunk = smaller(chunk, PREPARED_ENTRIES / stride);
        if (chunk > strips->max_tokens) chunk -= chunk % strips->max_tokens;
        if (chunk == 0) chunk = 1;
        for (size_t token = 0; token < token_count; token += chunk) {
            run_chunk(&c, &p, token, smaller(chunk, token_count - token), stride, entries);
        }
        p.first_block += p.block_count;
        p.start = false;
    } while (p.first_block < block_count);
}
