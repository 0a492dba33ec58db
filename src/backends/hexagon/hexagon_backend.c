/*
 * hexagon_backend.c: the Hexagon DSP as a back-end. Its memory has the words of the protocol, tiles that stay, and room
 * for one request: tiles that do not stay, activations, results. Tiles that stay are copied at their first use, as long
 * as there is room, and found again by their address; what finds none is copied each time. A call is cut into requests
 * by what that room holds, along tokens and tiles, which are chains of their own.
 */
#include "backends/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/hexagon/hexagon_link.h"
#include "base/fail.h"

enum {
    TILE_ROOM = 8 << 20,
    ACTIVATION_ROOM = 4 << 20,
    OUT_ROOM = 8 << 20,
    DEVICE_THREADS = 2,
    MOST_KEPT = 1 << 20 /* tiles */
};
static const uint64_t most_memory = (UINT64_C(1) << 31) - (1 << 20);

/* A tile that stays: where it comes from, and where it is on the device. */
typedef struct kept_tile {
    const void *tile; /* NULL: free */
    uint32_t offset;
} kept_tile;

typedef struct dsp {
    pi2_hexagon_link link;
    char description[256];
    uint32_t tile_room, activation_room, out_room; /* offsets */
    uint32_t keep_begin, keep_end, keep_at;
    kept_tile *kept; /* a hash table, open addressing; at most half of it is taken */
    uint32_t slot_count, kept_count;
} dsp;

/* ---- which device ---- */

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}

typedef struct device_choice {
    const char *emulator, *program; /* both or neither, else `refused` says what is missing */
    const char *refused;
    bool is_there;
} device_choice;

static device_choice choose(void) {
    device_choice c = {.emulator = setting("PI2_HEXAGON_EMULATOR"), .program = setting("PI2_HEXAGON_PROGRAM")};
    if (c.emulator && !c.program) c.refused = "PI2_HEXAGON_PROGRAM does not say where powerinfer2-hexagon is";
    if (!c.emulator && c.program) c.refused = "PI2_HEXAGON_EMULATOR does not say where qemu-hexagon is";
    c.is_there = c.emulator || c.program || pi2_hexagon_has_fastrpc(PI2_HEXAGON_FASTRPC_LIBRARY);
    return c;
}

static void describe(const device_choice *c, char *text, size_t size) {
    if (c->emulator) {
        (void)snprintf(text, size, "Hexagon DSP, emulated by %s", c->emulator);
    } else {
        (void)snprintf(text, size, "Hexagon DSP by FastRPC");
    }
}

static pi2_device_facts facts_of(const device_choice *c, const char *description) {
    return (pi2_device_facts){.name = "hexagon:0", .description = description, .memory_bytes = most_memory,
                              .refused = c->refused};
}

static void list(pi2_device_visitor *visit, void *user) {
    const device_choice choice = choose();
    if (!choice.is_there) return;
    char description[256];
    describe(&choice, description, sizeof description);
    const pi2_device_facts facts = facts_of(&choice, description);
    visit(user, &facts);
}

/* ---- opening ---- */

static void close_dsp(void *state) {
    dsp *d = state;
    if (d->link.close) d->link.close(&d->link);
    free(d->kept);
    free(d);
}

static void forget(void *state) {
    dsp *d = state;
    memset(d->kept, 0, d->slot_count * sizeof *d->kept);
    d->kept_count = 0;
    d->keep_at = d->keep_begin;
}

/* Everything is laid out here: nothing is allocated by a call. */
static pi2_status open_memory(dsp *d, const device_choice *choice, const pi2_backend_options *options) {
    d->tile_room = PI2_HEXAGON_FIRST_AREA;
    d->activation_room = d->tile_room + TILE_ROOM;
    d->out_room = d->activation_room + ACTIVATION_ROOM;
    d->keep_begin = d->keep_at = d->out_room + OUT_ROOM;
    const uint64_t most_kept = most_memory - d->keep_begin;
    const uint64_t kept = (options->memory_bytes < most_kept ? options->memory_bytes : most_kept) / 4096 * 4096;
    d->keep_end = d->keep_begin + (uint32_t)kept;
    /* Tiles of small matrices have 1 KB, of large ones tens: where the table is full, tiles are copied each time. */
    d->slot_count = 64;
    while (d->slot_count < 2 * MOST_KEPT && d->slot_count < kept / 1024) d->slot_count *= 2;
    d->kept = calloc(d->slot_count, sizeof *d->kept);
    if (d->kept == NULL) return pi2_fail(PI2_ERR_MEMORY, "no memory for a list of tiles on the Hexagon DSP");
    if (!choice->emulator) return pi2_hexagon_open_fastrpc(PI2_HEXAGON_FASTRPC_LIBRARY, d->keep_end, &d->link);
    const pi2_hexagon_emulator emulator = {.emulator = choice->emulator, .program = choice->program,
                                           .processor = setting("PI2_HEXAGON_PROCESSOR"), .memory_bytes = d->keep_end,
                                           .thread_count = DEVICE_THREADS, .start_timeout_ns = options->timeout_ns,
                                           .timeout_ns = options->timeout_ns};
    return pi2_hexagon_open_emulator(&emulator, &d->link);
}

static pi2_status open_dsp(unsigned device, const pi2_backend_options *options, void **state_out,
                           pi2_device_facts *facts_out) {
    *state_out = NULL;
    const device_choice choice = choose();
    if (!choice.is_there) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "no Hexagon DSP: there is no %s here, and PI2_HEXAGON_EMULATOR and "
                        "PI2_HEXAGON_PROGRAM name no emulated one", PI2_HEXAGON_FASTRPC_LIBRARY);
    }
    if (choice.refused) return pi2_fail(PI2_ERR_UNSUPPORTED, "no Hexagon DSP: %s", choice.refused);
    if (device > 0) return pi2_fail(PI2_ERR_UNSUPPORTED, "no device 'hexagon:%u': there is one Hexagon DSP", device);
    dsp *d = calloc(1, sizeof *d);
    if (d == NULL) return pi2_fail(PI2_ERR_MEMORY, "no memory for a Hexagon DSP's state");
    describe(&choice, d->description, sizeof d->description);
    const pi2_status status = open_memory(d, &choice, options);
    if (status != PI2_OK) {
        close_dsp(d);
        return status;
    }
    /* It is memory of this machine: whoever plans with what is left sees all of it taken. */
    memset(d->link.memory + PI2_HEXAGON_FIRST_AREA, 0, d->link.memory_bytes - PI2_HEXAGON_FIRST_AREA);
    *facts_out = facts_of(&choice, d->description);
    *state_out = d;
    return PI2_OK;
}

static bool computes(const void *state, pi2_weight_type type) {
    (void)state;
    return pi2_hexagon_computes(type);
}

/* ---- tiles ---- */

/* The tile's slot, or the free one where it would be. */
static kept_tile *slot_of(dsp *d, const void *tile) {
    uint64_t at = ((uint64_t)(uintptr_t)tile >> 6) * UINT64_C(0x9e3779b97f4a7c15) >> 32;
    for (;; at++) {
        kept_tile *slot = &d->kept[at & (d->slot_count - 1)];
        if (slot->tile == tile || slot->tile == NULL) return slot;
    }
}

/* Where on the device the tile is now; false: it does not stay, or there is no room for it. */
static bool keep_tile(dsp *d, const void *tile, uint32_t bytes, uint32_t *offset_out) {
    kept_tile *slot = slot_of(d, tile);
    if (slot->tile == NULL) {
        if (d->kept_count >= d->slot_count / 2 || bytes > d->keep_end - d->keep_at) return false;
        *slot = (kept_tile){.tile = tile, .offset = d->keep_at};
        memcpy(d->link.memory + d->keep_at, tile, bytes);
        d->keep_at += bytes;
        d->kept_count++;
    }
    *offset_out = slot->offset;
    return true;
}

/* ---- one call ---- */

/* Some tokens of a call, and the tiles of one request. Results have the call's rows and tokens, until all are there. */
typedef struct request_part {
    size_t token_begin, token_count;
    size_t tile_begin, tile_count;
} request_part;

static size_t rows_of(const pi2_backend_work *work) { return work->tile_count * PI2_TILE_ROWS; }

/* Puts the tokens' columns where the device reads them, and says where. */
static void bring_activations(dsp *d, const pi2_backend_work *work, const request_part *part,
                              pi2_hexagon_product *shared) {
    const pi2_activations *x = work->x;
    const size_t blocks = work->columns / 32, value_stride = (work->columns + 63) / 64 * 64;
    const size_t scale_stride = (blocks + 15) / 16 * 16, sum_stride = (blocks + 31) / 32 * 32;
    *shared = (pi2_hexagon_product){.type = work->type, .columns = (uint32_t)work->columns,
                                    .token_count = (uint32_t)part->token_count, .start = work->start,
                                    .values = d->activation_room, .value_stride = (uint32_t)value_stride,
                                    .scale_stride = (uint32_t)scale_stride, .sum_stride = (uint32_t)sum_stride,
                                    .out_stride = (uint32_t)rows_of(work)};
    shared->scales = shared->values + (uint32_t)(part->token_count * value_stride);
    shared->sums = shared->scales + (uint32_t)(part->token_count * scale_stride * sizeof(float));
    for (size_t t = 0; t < part->token_count; t++) {
        const size_t token = work->token_begin + part->token_begin + t, block = work->column_begin / 32;
        uint8_t *memory = d->link.memory;
        memcpy(memory + shared->values + t * value_stride, x->values + token * x->value_stride + work->column_begin,
               work->columns);
        memcpy(memory + shared->scales + t * scale_stride * sizeof(float),
               x->scales + token * x->block_stride + block, blocks * sizeof(float));
        memcpy(memory + shared->sums + t * sum_stride * sizeof(int16_t), x->sums + token * x->sum_stride + block,
               blocks * sizeof(int16_t));
    }
}

/* Adds tiles to the request, neighbours on the device to one product, until it is full: part->tile_count of them. */
static void bring_tiles(dsp *d, const pi2_backend_work *work, request_part *part, const pi2_hexagon_product *shared,
                        pi2_hexagon_request *request) {
    const uint32_t bytes = (uint32_t)work->tile_bytes;
    uint32_t room = d->tile_room;
    request->product_count = 0;
    for (part->tile_count = 0; part->tile_begin + part->tile_count < work->tile_count; part->tile_count++) {
        const size_t at = part->tile_begin + part->tile_count;
        const uint8_t *tile = (const uint8_t *)work->tiles + at * bytes;
        uint32_t offset = room;
        const bool stays = work->stays && keep_tile(d, tile, bytes, &offset);
        if (!stays && bytes > d->tile_room + TILE_ROOM - room) return;
        pi2_hexagon_product *last = request->product_count ? &request->products[request->product_count - 1] : NULL;
        if (!last || last->tiles + last->tile_count * bytes != offset) {
            if (request->product_count == PI2_HEXAGON_MOST_PRODUCTS) return;
            last = &request->products[request->product_count++];
            *last = *shared;
            last->tiles = offset;
            last->out = d->out_room +
                        (uint32_t)((part->token_begin * rows_of(work) + at * PI2_TILE_ROWS) * sizeof(float));
        }
        if (!stays) {
            memcpy(d->link.memory + room, tile, bytes);
            room += bytes;
        }
        last->tile_count++;
    }
}

/* All chains to the device, where they go on, or back. */
static void move_results(dsp *d, const pi2_backend_work *work, bool to_device) {
    const size_t bytes = rows_of(work) * sizeof(float);
    for (size_t t = 0; t < work->token_count; t++) {
        float *out = work->out + t * work->out_stride;
        void *there = d->link.memory + d->out_room + t * bytes;
        memcpy(to_device ? there : out, to_device ? out : there, bytes);
    }
}

static pi2_status multiply_tokens(dsp *d, const pi2_backend_work *work, request_part *part) {
    pi2_hexagon_product shared;
    pi2_hexagon_request request;
    bring_activations(d, work, part, &shared);
    for (part->tile_begin = 0; part->tile_begin < work->tile_count; part->tile_begin += part->tile_count) {
        bring_tiles(d, work, part, &shared, &request);
        PI2_TRY(d->link.ask(&d->link, &request));
    }
    return PI2_OK;
}

/* `out` is written when the whole call has succeeded: a chain that somebody else goes on with is as it was. */
static pi2_status multiply(void *state, const pi2_backend_work *work) {
    dsp *d = state;
    /* Values, scales and sums of a token, each padded. */
    const size_t token_bytes = (work->columns + 63) / 64 * 64 + work->columns / 32 * 6 + 128;
    if (work->columns > ACTIVATION_ROOM / 2 || work->tile_bytes > TILE_ROOM ||
        work->tile_bytes != pi2_hexagon_tile_bytes(work->type, work->columns) ||
        work->token_count > OUT_ROOM / sizeof(float) / rows_of(work)) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "the Hexagon DSP has no room for %zu tiles of %zu columns and %zu tokens",
                        work->tile_count, work->columns, work->token_count);
    }
    if (!work->start) move_results(d, work, true);
    request_part part = {.token_count = 0};
    for (; part.token_begin < work->token_count; part.token_begin += part.token_count) {
        const size_t left = work->token_count - part.token_begin, most = ACTIVATION_ROOM / token_bytes;
        part.token_count = left < most ? left : most;
        PI2_TRY(multiply_tokens(d, work, &part));
    }
    move_results(d, work, false);
    return PI2_OK;
}

const pi2_backend_kind pi2_backend_hexagon = {
    .name = "hexagon",
    .list = list,
    .open = open_dsp,
    .close = close_dsp,
    .computes = computes,
    .multiply = multiply,
    .forget = forget,
};
