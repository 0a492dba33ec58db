/*
 * opencl_check.c: whether a device computes the bits of docs/arithmetic.md. It is asked, not believed: random blocks of
 * every type, with scales from zero through the smallest denormal to the largest half, for several tokens, one of them
 * so small that its sums are denormal floats, by its kernels and by the scalar ones. One that takes denormals for 0
 * may leave work to the processor, but not that of usual numbers.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backends/opencl/opencl_internal.h"
#include "base/fail.h"
#include "kernels/matmul/matmul.h"

enum { CHECK_TILES = 2, CHECK_TOKENS = 6, ZERO_TOKEN = 4, CHECK_COLUMNS = 512,
       CHECK_ROWS = CHECK_TILES * PI2_TILE_ROWS };

typedef struct trial {
    uint8_t *tiles;
    void *memory;                /* of the activations */
    float floats[CHECK_TOKENS * CHECK_COLUMNS], first[CHECK_TOKENS * CHECK_ROWS], want[CHECK_TOKENS * CHECK_ROWS],
        got[CHECK_TOKENS * CHECK_ROWS];
    pi2_activations x;
    uint64_t seed;
} trial;

static uint32_t next(trial *t) {
    t->seed = t->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(t->seed >> 33);
}

/* Bytes as they come, but no halves that are infinite or no numbers: their bits may differ in what NaN they are. */
static void fill_block(trial *t, const pi2_weight_format *format, uint8_t *block, bool is_usual, bool is_denormal) {
    for (uint32_t i = 0; i < format->block_bytes; i++) block[i] = (uint8_t)next(t);
    const uint32_t halves = format->type == PI2_F16 ? 1 : format->parts.half_count;
    for (uint32_t h = 0; h < halves; h++) {
        uint8_t *half = block + format->parts.halves + 2 * h;
        if ((half[1] & 0x7c) == 0x7c) half[1] ^= 0x40;
        if (is_denormal || next(t) % 8 == 0) half[1] &= 0x83;
    }
    if (format->type == PI2_F32 && (block[3] & 0x7f) == 0x7f) block[3] ^= 0x40;
    if (format->type == PI2_BF16 && (block[1] & 0x7f) == 0x7f) block[1] ^= 0x40;
    if (format->type == PI2_F32 && is_usual) block[3] = (block[3] & 0x81) | 0x3e;
    if (format->type == PI2_BF16 && is_usual) block[1] = (block[1] & 0x81) | 0x3e;
    if (format->type == PI2_F32 && is_denormal) block[3] &= 0x80, block[2] &= 0x7f;
    if (format->type == PI2_BF16 && is_denormal) block[1] &= 0x80, block[0] &= 0x7f;
}

/* Of a token's activations. Those of the last, times scales or weights of the last tile, which are denormal, give
 * products and sums that are denormal floats: a device that takes these for 0 differs nowhere else. */
static const int exponents[CHECK_TOKENS] = { -24, -8, 0, 8, 0, -122 };

static pi2_status fill(trial *t, const pi2_weight_format *format, bool flushes) {
    const size_t blocks = CHECK_COLUMNS / format->block_columns, row_bytes = blocks * format->block_bytes;
    const size_t tile_bytes = pi2_tile_bytes(format, CHECK_COLUMNS);
    const size_t memory_bytes = pi2_activations_bytes(format->activation, CHECK_TOKENS, CHECK_COLUMNS);
    uint8_t *row = malloc(row_bytes * PI2_TILE_ROWS);
    if (!row || posix_memalign((void **)&t->tiles, 64, CHECK_TILES * tile_bytes) != 0 ||
        posix_memalign(&t->memory, 64, memory_bytes + 64) != 0) {
        free(row);
        return pi2_fail(PI2_ERR_MEMORY, "no memory to try a device");
    }
    for (size_t i = 0; i < CHECK_TILES; i++) {
        const uint8_t *rows[PI2_TILE_ROWS];
        for (size_t r = 0; r < PI2_TILE_ROWS; r++) {
            rows[r] = row + r * row_bytes;
            for (size_t b = 0; b < blocks; b++) {
                const bool is_last = i == CHECK_TILES - 1;
                fill_block(t, format, row + r * row_bytes + b * format->block_bytes, flushes && !is_last, is_last);
            }
        }
        format->pack_tile(t->tiles + i * tile_bytes, rows, blocks);
    }
    free(row);
    for (size_t i = 0; i < CHECK_TOKENS * CHECK_COLUMNS; i++) {
        t->floats[i] = ldexpf((float)(int32_t)(next(t) % 2001) - 1000.0f, exponents[i / CHECK_COLUMNS]);
        if (i / CHECK_COLUMNS == ZERO_TOKEN) t->floats[i] = 0.0f; /* zeros have signs, too */
    }
    for (size_t i = 0; i < CHECK_TOKENS * CHECK_ROWS; i++) t->first[i] = (float)(next(t) % 1000) * 0.37f;
    pi2_activations_layout(&t->x, format->activation, CHECK_TOKENS, CHECK_COLUMNS, t->memory);
    for (size_t i = 0; i < CHECK_TOKENS; i++) {
        pi2_activations_quantize(&t->x, i, 0, CHECK_COLUMNS, t->floats + i * CHECK_COLUMNS);
    }
    if (format->activation == PI2_ACTIVATION_F32) {
        t->x.floats = t->floats;
        t->x.float_stride = CHECK_COLUMNS;
    }
    return PI2_OK;
}

/* Tiles and tokens of the trial that are computed at once. */
typedef struct part {
    size_t tile, tile_count, token, token_count;
    bool start;
} part;

/* equal: stays true as long as every float is. A device that flushes may leave the last tile and the last token. */
static pi2_status compare(pi2_opencl_device *device, trial *t, const pi2_weight_format *format, const part *p,
                          bool *equal) {
    const size_t tile_bytes = pi2_tile_bytes(format, CHECK_COLUMNS), first = p->tile * PI2_TILE_ROWS;
    const pi2_backend_work work = { .out = t->got + first, .out_stride = CHECK_ROWS, .type = format->type,
                                    .tiles = t->tiles + p->tile * tile_bytes, .tile_count = p->tile_count,
                                    .tile_bytes = tile_bytes, .columns = CHECK_COLUMNS, .x = &t->x,
                                    .token_begin = p->token, .token_count = p->token_count, .start = p->start,
                                    .unit_memory = t->tiles, .unit_bytes = CHECK_TILES * tile_bytes };
    memcpy(t->got, t->first, sizeof t->got);
    memcpy(t->want, t->first, sizeof t->want);
    const pi2_status status = pi2_opencl_multiply(device, &work);
    const bool may_be_left = device->flushes && (p->tile == CHECK_TILES - 1 || p->token == CHECK_TOKENS - 1);
    if (status == PI2_ERR_UNSUPPORTED && may_be_left) return PI2_OK;
    if (status == PI2_ERR_UNSUPPORTED) *equal = false;
    if (status != PI2_OK) return status == PI2_ERR_UNSUPPORTED ? PI2_OK : status;
    pi2_matmul_select(format->type, 0)->run(t->want + first, CHECK_ROWS, work.tiles, p->tile_count, CHECK_COLUMNS, 0,
                                            &t->x, p->token, p->token_count, p->start);
    for (size_t i = 0; i < CHECK_TOKENS * CHECK_ROWS; i++) {
        const bool both_none = isnan(t->want[i]) && isnan(t->got[i]);
        if (!both_none && memcmp(&t->want[i], &t->got[i], sizeof(float)) != 0) *equal = false;
    }
    return PI2_OK;
}

/* Both ways to begin a chain; all at once, or each tile of each token, where some may be left. */
static pi2_status compare_all(pi2_opencl_device *device, trial *t, const pi2_weight_format *format, bool *equal) {
    for (int start = 0; start < 2; start++) {
        if (!device->flushes) {
            PI2_TRY(compare(device, t, format, &(part){ 0, CHECK_TILES, 0, CHECK_TOKENS, start == 1 }, equal));
        }
        for (size_t i = 0; device->flushes && i < CHECK_TILES * CHECK_TOKENS; i++) {
            PI2_TRY(compare(device, t, format, &(part){ i % CHECK_TILES, 1, i / CHECK_TILES, 1, start == 1 }, equal));
        }
    }
    return PI2_OK;
}

static pi2_status try_type(pi2_opencl_device *device, pi2_weight_type type, trial *t, bool *equal) {
    const pi2_weight_format *format = pi2_weight_format_find((uint32_t)type);
    t->seed = (uint64_t)type + 1;
    *equal = true;
    pi2_status status = fill(t, format, device->flushes);
    if (status == PI2_OK) status = compare_all(device, t, format, equal);
    if (!device->is_stuck) free(t->tiles); /* which a device that hangs may read for ever */
    free(t->memory);
    t->tiles = NULL;
    t->memory = NULL;
    return status;
}

pi2_status pi2_opencl_check(pi2_opencl_device *device, bool any_precision) {
    static const pi2_weight_type types[] = {
#define PI2_OPENCL_ID(name, id) id,
        PI2_OPENCL_TYPES(PI2_OPENCL_ID)
#undef PI2_OPENCL_ID
    };
    trial *t = calloc(1, sizeof *t);
    if (!t) return pi2_fail(PI2_ERR_MEMORY, "no memory to try a device");
    pi2_status status = PI2_OK;
    device->exact_types = 0;
    for (size_t i = 0; i < PI2_OPENCL_TYPE_COUNT && status == PI2_OK; i++) {
        bool equal = false;
        status = try_type(device, types[i], t, &equal);
        device->exact_types |= (uint32_t)equal << i;
        device->computes[i] = equal || any_precision;
    }
    free(t);
    return status;
}

/* ---- what a kernel sees ---- */

enum { PAGE_BYTES = 4096, VIEW_COLUMNS = 16 };

/* One tile of F32 in a page of its own, as drivers want memory that they show; every weight is `weight`. */
static pi2_status multiply_page(pi2_opencl_device *device, float *page, float weight, float *out) {
    static const float ones[VIEW_COLUMNS] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 };
    const pi2_activations x = { .kind = PI2_ACTIVATION_F32, .columns = VIEW_COLUMNS, .token_count = 1, .floats = ones,
                                .float_stride = VIEW_COLUMNS };
    const pi2_backend_work work = { .out = out, .out_stride = PI2_TILE_ROWS, .type = PI2_F32, .tiles = page,
                                    .tile_count = 1,
                                    .tile_bytes = VIEW_COLUMNS * PI2_TILE_ROWS * sizeof(float),
                                    .columns = VIEW_COLUMNS, .x = &x, .token_count = 1, .start = true,
                                    .unit_memory = page, .unit_bytes = PAGE_BYTES, .stays = true };
    for (size_t i = 0; i < PAGE_BYTES / sizeof *page; i++) page[i] = weight;
    return pi2_opencl_multiply(device, &work);
}

pi2_status pi2_opencl_check_views(pi2_opencl_device *device, bool *sees_out) {
    float out[2][PI2_TILE_ROWS] = { { 0 } };
    void *page = NULL;
    *sees_out = true;
    if (posix_memalign(&page, PAGE_BYTES, PAGE_BYTES) != 0) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory to try a device");
    }
    pi2_status status = multiply_page(device, page, 1.0f, out[0]);
    if (status == PI2_OK) status = multiply_page(device, page, 2.0f, out[1]);
    if (status == PI2_OK) *sees_out = memcmp(out[0], out[1], sizeof out[0]) != 0;
    if (device->is_stuck) return status; /* which may read the page for ever */
    pi2_opencl_forget(device);
    free(page);
    return status == PI2_ERR_UNSUPPORTED ? PI2_OK : status;
}
