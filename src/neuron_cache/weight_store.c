/* weight_store.c: a resident part, and a ring for everything else. */
#include "neuron_cache/weight_store.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fail.h"
#include "base/pages.h"
#include "file_formats/cluster_file.h"
#include "store/region.h"

enum {
    UNITS_WANTED = 256, LEAST_UNIT_BYTES = 256 * 1024, LEAST_HUGE_UNIT_BYTES = 8 << 20
};
enum { MAX_READS = 64 };

typedef struct store_extent {
    pi2_part part;
    _Atomic uint32_t tiles_left;
    uint8_t *memory;          /* resident: always; streamed: from READING on */
    uint8_t *home;            /* where it is resident by the plan; NULL: it streams */
    uint32_t tiles;
    bool resident;
    bool returns;             /* resident as soon as its tiles are used */
} store_extent;

/* One extent's room in the ring; rooms are given and taken back in order. */
typedef struct ring_room {
    uint32_t extent;
    uint32_t bytes;           /* with what was skipped at the ring's end */
    bool free;
} ring_room;

/* Resident extents that come and go together: neighbours in memory, in sequence order. */
typedef struct store_unit {
    uint32_t first_position, last_position; /* streamed extents may lie between them */
    uint64_t bytes;
    bool away;                /* its extents stream for now */
} store_unit;

struct pi2_weight_store {
    pi2_weight_store_options options;
    store_extent *extents;
    uint32_t *sequence;
    pi2_region *region;       /* of reads of consecutive positions: first, count; its lock is the pump lock */

    ring_room *rooms;         /* circular */
    uint32_t room_capacity, room_first, room_count;
    size_t ring_head, ring_used; /* next byte to give; bytes given */

    uint32_t cursor;          /* position in the sequence of the next extent to ask for */
    bool cursor_in_next_pass;
    pi2_weight_store_pass pass;
    uint32_t next_floor;      /* position after the last extent that has room in the ring for the next pass */

    store_unit *units;        /* in sequence order */
    uint32_t *unit_order;     /* in the order in which they leave */
    uint32_t unit_count, away_count;
    uint64_t planned_bytes, away_bytes; /* of residents; of those that stream for now */
    bool ring_touched;
    bool ring_is_lent, ring_is_wanted; /* until the next pass; residents should leave, and cannot while it is lent */
    _Atomic uint32_t generation;
    _Atomic bool all_read;    /* the last look found no resident unread, and none has lost its bytes since */
    uint64_t pass_bytes_body, pass_bytes_head, pass_bytes_by_neuron; /* the last: what such a pass does without */
};

size_t pi2_weight_store_list_bytes(uint32_t extent_count) {
    return sizeof(struct pi2_weight_store) + pi2_region_bytes(MAX_READS) +
           (size_t)extent_count * (sizeof(store_extent) + sizeof(uint32_t) + sizeof(ring_room)) +
           (UNITS_WANTED + 8) * (sizeof(store_unit) + 2 * sizeof(uint32_t));
}

static uint32_t read_bytes_of(const pi2_weight_store *store, uint32_t e) {
    return pi2_extent_read_bytes(&store->options.layout->extents[e]);
}

static uint32_t extent_tiles(const pi2_extent_layout *layout, const pi2_extent *extent) {
    uint32_t tiles = 0;
    for (uint32_t p = 0; p < extent->piece_count; p++) {
        tiles += pi2_piece_tiles(&layout->pieces[extent->first_piece + p]);
    }
    return tiles;
}

static pi2_status place_extents(pi2_weight_store *store) {
    const pi2_weight_store_options *options = &store->options;
    uint8_t *at = options->resident_memory;
    for (uint32_t i = 0; i < options->sequence_count; i++) {
        const uint32_t e = store->sequence[i];
        const pi2_extent *extent = &options->layout->extents[e];
        store_extent *own = &store->extents[e];
        own->tiles = extent_tiles(options->layout, extent);
        own->resident = options->resident[e] != 0;
        atomic_init(&own->part.state, options->resident_loaded ? PI2_PART_READY : PI2_PART_ABSENT);
        if (i < options->head_begin) {
            store->pass_bytes_body += extent->bytes;
            if (options->by_neuron && options->by_neuron[e]) store->pass_bytes_by_neuron += extent->bytes;
        } else if (i < options->pass_end) {
            store->pass_bytes_head += extent->bytes;
        }
        if (own->resident) {
            own->memory = own->home = at;
            at += pi2_extent_read_bytes(extent);
            store->planned_bytes += pi2_extent_read_bytes(extent);
        } else if (pi2_extent_read_bytes(extent) > options->ring_bytes) {
            return pi2_fail(PI2_ERR_INVALID, "the stream buffer of %zu bytes cannot hold extent %u of %u bytes",
                            options->ring_bytes, e, pi2_extent_read_bytes(extent));
        }
    }
    return PI2_OK;
}

/* Units of the resident memory; huge pages come back whole only, so units are large beside them. */
static uint64_t unit_bytes_for(uint64_t resident_bytes, bool huge_pages) {
    const uint64_t share = resident_bytes / UNITS_WANTED;
    const uint64_t least = huge_pages ? LEAST_HUGE_UNIT_BYTES : LEAST_UNIT_BYTES;
    return share > least ? share : least;
}

static bool leaves_last(const pi2_weight_store *store, uint32_t position) {
    return store->options.leaves_last && store->options.leaves_last[store->sequence[position]];
}

/* Which part of the sequence a position is in. */
static int part_of(const pi2_weight_store *store, uint32_t position) {
    return position < store->options.head_begin ? 0 : position < store->options.pass_end ? 1 : 2;
}

/* Cuts the residents into units; returns how many, and writes them where there is a list. */
static uint32_t cut_units(const pi2_weight_store *store, uint64_t unit_bytes, store_unit *units) {
    uint32_t count = 0, last_kind = 0; /* units keep to one part, and to what leaves last or does not */
    uint64_t bytes = unit_bytes;
    for (uint32_t i = 0; i < store->options.sequence_count; i++) {
        const store_extent *extent = &store->extents[store->sequence[i]];
        if (!extent->home) continue;
        const uint32_t kind = 2 * (uint32_t)part_of(store, i) + leaves_last(store, i);
        if (bytes >= unit_bytes || kind != last_kind) {
            if (units) units[count] = (store_unit){ .first_position = i };
            count++;
            bytes = 0;
        }
        const uint32_t read_bytes = read_bytes_of(store, store->sequence[i]);
        bytes += read_bytes;
        last_kind = kind;
        if (!units) continue;
        units[count - 1].last_position = i;
        units[count - 1].bytes += read_bytes;
    }
    return count;
}

/* Units of the pass in bit-reversed order, so that what has left is spread evenly over it at any time, as the plan
 * spreads what streams; those that leave last, or the others. Returns how many are in the list now. */
static uint32_t order_body(pi2_weight_store *store, uint32_t count, bool last) {
    uint32_t *body = store->unit_order + store->unit_count; /* there is room for as many */
    uint32_t body_count = 0, bits = 0;
    for (uint32_t u = 0; u < store->unit_count; u++) {
        const uint32_t position = store->units[u].first_position;
        if (part_of(store, position) != 2 && leaves_last(store, position) == last) body[body_count++] = u;
    }
    while ((1u << bits) < body_count) bits++;
    for (uint32_t i = 0; i < 1u << bits; i++) {
        uint32_t reversed = 0;
        for (uint32_t b = 0; b < bits; b++) reversed |= (i >> b & 1u) << (bits - 1 - b);
        if (reversed < body_count) store->unit_order[count++] = body[reversed];
    }
    return count;
}

/* Embedding rows leave first: a token needs one. */
static void order_units(pi2_weight_store *store) {
    uint32_t count = 0;
    for (uint32_t u = 0; u < store->unit_count; u++) {
        if (part_of(store, store->units[u].first_position) == 2) store->unit_order[count++] = u;
    }
    count = order_body(store, count, false);
    count = order_body(store, count, true);
    assert(count == store->unit_count);
}

static pi2_status make_units(pi2_weight_store *store) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < store->options.sequence_count; i++) {
        const uint32_t e = store->sequence[i];
        if (store->extents[e].home) bytes += read_bytes_of(store, e);
    }
    const uint64_t unit_bytes = unit_bytes_for(bytes, store->options.huge_pages);
    store->unit_count = cut_units(store, unit_bytes, NULL);
    store->units = calloc(store->unit_count + 1, sizeof *store->units);
    store->unit_order = calloc(2 * (size_t)store->unit_count + 1, sizeof *store->unit_order);
    if (!store->units || !store->unit_order) return pi2_fail(PI2_ERR_MEMORY, "no memory for the weight store's lists");
    (void)cut_units(store, unit_bytes, store->units);
    order_units(store);
    return PI2_OK;
}

/* ---- the ring, under the pump lock ---- */

/* Where the next `bytes` consecutive bytes are; NULL: there is no room. What does not fit before the end is skipped. */
static uint8_t *ring_next(const pi2_weight_store *store, uint32_t bytes) {
    const size_t size = store->options.ring_bytes;
    const bool wraps = store->ring_head + bytes > size;
    const size_t skipped = wraps ? size - store->ring_head : 0;
    if (store->ring_used + skipped + bytes > size || store->room_count == store->room_capacity) return NULL;
    return (uint8_t *)store->options.ring + (wraps ? 0 : store->ring_head);
}

static uint8_t *ring_give(pi2_weight_store *store, uint32_t extent, uint32_t bytes) {
    uint8_t *ring = store->options.ring;
    uint8_t *memory = ring_next(store, bytes);
    if (!memory) return NULL;
    const size_t at = (size_t)(memory - ring);
    const size_t skipped = at == store->ring_head ? 0 : store->options.ring_bytes - store->ring_head;
    ring_room *room = &store->rooms[(store->room_first + store->room_count) % store->room_capacity];
    *room = (ring_room){ .extent = extent, .bytes = (uint32_t)(bytes + skipped) };
    store->room_count++;
    store->ring_used += bytes + skipped;
    store->ring_touched = true;
    store->ring_head = at + bytes;
    return memory;
}

static void ring_take_back(pi2_weight_store *store) {
    while (store->room_count > 0 && store->rooms[store->room_first].free) {
        store->ring_used -= store->rooms[store->room_first].bytes;
        store->room_first = (store->room_first + 1) % store->room_capacity;
        store->room_count--;
    }
    if (store->room_count == 0) store->ring_head = store->ring_used = 0;
}

static void ring_free_extent(pi2_weight_store *store, uint32_t extent) {
    for (uint32_t i = 0; i < store->room_count; i++) {
        ring_room *room = &store->rooms[(store->room_first + i) % store->room_capacity];
        if (room->extent == extent && !room->free) {
            room->free = true;
            break;
        }
    }
    ring_take_back(store);
}

/* ---- the pump: asks for what comes next ---- */

/* Moves the cursor past what needs no read; false when nothing more may be asked for now. */
static bool cursor_find(pi2_weight_store *store) {
    for (;;) {
        const uint32_t end = store->cursor_in_next_pass || !store->pass.with_head ? store->options.head_begin
                                                                                  : store->options.pass_end;
        if (store->cursor >= end) {
            /* Beyond this pass only the body of the next is certain. */
            if (store->cursor_in_next_pass || store->pass.is_last) return false;
            store->cursor_in_next_pass = true;
            store->cursor = 0;
            continue;
        }
        const uint32_t e = store->sequence[store->cursor];
        const store_extent *extent = &store->extents[e];
        if (store->pass.by_neuron && store->options.by_neuron[e]) {
            store->cursor++;
            continue;
        }
        if (pi2_part_state(&extent->part) == PI2_PART_ABSENT) return true;
        if (!extent->resident) return false; /* still in the ring since this very pass */
        store->cursor++;
    }
}

/* Where an extent that is asked for now comes to lie; NULL: there is no room. */
static uint8_t *place_of(const pi2_weight_store *store, uint32_t e) {
    const store_extent *extent = &store->extents[e];
    return extent->resident ? extent->memory : ring_next(store, read_bytes_of(store, e));
}

/* The extent at the cursor becomes the next one of a read. */
static void take_place(pi2_weight_store *store, const pi2_bring *bring, uint32_t e) {
    store_extent *extent = &store->extents[e];
    if (!extent->resident) {
        extent->memory = ring_give(store, e, read_bytes_of(store, e));
        if (store->cursor_in_next_pass) store->next_floor = store->cursor + 1;
    }
    atomic_store_explicit(&extent->tiles_left, extent->tiles, memory_order_relaxed);
    pi2_bring_part(bring, &extent->part);
    store->cursor++;
}

/* Asks for what comes next, in at most so many reads, as far as there is room. Neighbours in the file that are
 * neighbours in memory too share a read. Pump lock held. */
static void ask(pi2_weight_store *store, size_t most_reads) {
    const pi2_extent *places = store->options.layout->extents;
    while (most_reads-- > 0 && cursor_find(store)) {
        uint32_t e = store->sequence[store->cursor];
        uint8_t *memory = place_of(store, e);
        pi2_bring *bring = memory ? pi2_region_unused(store->region) : NULL;
        if (!bring) break;
        bring->offset = places[e].file_offset;
        bring->bytes = read_bytes_of(store, e);
        bring->memory = memory;
        bring->first = store->cursor;
        bring->count = 1;
        bring->number = e;
        take_place(store, bring, e);
        while (cursor_find(store) && store->cursor == bring->first + bring->count) {
            e = store->sequence[store->cursor];
            if (!pi2_bring_join(bring, places[e].file_offset, read_bytes_of(store, e), place_of(store, e))) break;
            take_place(store, bring, e);
        }
        pi2_region_add(store->region, bring);
    }
}

/* Asks for all that has room now. Pump lock held. */
static void pump(pi2_weight_store *store) {
    const pi2_store_options *options = pi2_store_options_of(store->options.store);
    if (options->reader && !options->on_demand_only) ask(store, MAX_READS);
}

static void note_arrival(void *self, const pi2_bring *bring, pi2_status status) {
    pi2_weight_store *store = self;
    if (status != PI2_OK) (void)pi2_store_fail(store->options.store, status);
    pi2_region_lock(store->region);
    for (uint32_t i = 0; i < bring->count; i++) {
        pi2_part_change(&store->extents[store->sequence[bring->first + i]].part, FROM(PI2_PART_READING),
                        status == PI2_OK ? PI2_PART_ARRIVED : PI2_PART_FAILED);
    }
    pump(store);
    pi2_region_unlock(store->region);
}

/* ---- passes ---- */

void pi2_weight_store_begin_pass(pi2_weight_store *store, const pi2_weight_store_pass *pass) {
    /* What the ring holds for a pass of the other kind would be in the way of this one's order. */
    if (pass->by_neuron != store->pass.by_neuron) pi2_weight_store_reset(store);
    pi2_region_lock(store->region);
    store->pass = *pass;
    store->ring_is_lent = false;
    if (store->cursor_in_next_pass) store->cursor_in_next_pass = false;
    else store->cursor = 0;
    store->next_floor = 0;
    if (store->ring_touched && store->away_count == 0 && store->room_count == 0 && !store->options.ring_planned) {
        (void)pi2_pages_discard(store->options.ring, store->options.ring_bytes); /* nothing streams any more */
        store->ring_touched = false;
    }
    pi2_store_needs(store->options.store, store->pass_bytes_body + (pass->with_head ? store->pass_bytes_head : 0) -
                                              (pass->by_neuron ? store->pass_bytes_by_neuron : 0));
    pump(store);
    pi2_region_unlock(store->region);
}

bool pi2_weight_store_lend_ring(pi2_weight_store *store) {
    pi2_region_lock(store->region);
    store->ring_is_lent = store->pass.by_neuron && store->away_count == 0 && store->room_count == 0 &&
                          !store->ring_is_wanted;
    store->ring_is_wanted = false;
    const bool is_lent = store->ring_is_lent;
    pi2_region_unlock(store->region);
    return is_lent;
}

bool pi2_weight_store_streams(const pi2_weight_store *store) {
    for (uint32_t i = 0; i < store->options.pass_end; i++) {
        if (!store->extents[store->sequence[i]].resident) return true;
    }
    return false;
}

uint64_t pi2_weight_store_spared_bytes(const pi2_weight_store *store) {
    const pi2_weight_store_options *options = &store->options;
    uint64_t bytes = 0;
    for (uint32_t i = 0; options->by_neuron && i < options->head_begin; i++) {
        const uint32_t e = store->sequence[i];
        if (options->by_neuron[e] && !store->extents[e].resident) {
            bytes += pi2_extent_read_bytes(&options->layout->extents[e]);
        }
    }
    return bytes;
}

static pi2_status check_extent(void *self, uint32_t e, const void *memory) {
    const pi2_weight_store *store = self;
    return pi2_cluster_file_check_extent(store->options.path, store->options.layout, e, memory);
}

static pi2_status await_extent(pi2_weight_store *store, uint32_t e) {
    store_extent *extent = &store->extents[e];
    for (unsigned turn = 0;; turn++) {
        const int state = pi2_part_state(&extent->part);
        if (state == PI2_PART_READY) return PI2_OK;
        PI2_TRY(pi2_store_failure(store->options.store));
        if (state == PI2_PART_READING) {
            pi2_region_await(store->region, atomic_load_explicit(&extent->part.ticket, memory_order_relaxed), turn);
        } else if (state == PI2_PART_ARRIVED) {
            PI2_TRY(pi2_region_check(store->region, &extent->part, e, extent->memory));
        } else {
            if (state == PI2_PART_ABSENT) {
                pi2_region_lock(store->region);
                ask(store, pi2_store_options_of(store->options.store)->on_demand_only ? 1 : MAX_READS);
                pi2_region_unlock(store->region);
            }
            pi2_store_pause(turn);
        }
    }
}

pi2_status pi2_weight_store_extent(pi2_weight_store *store, uint32_t e, const uint8_t **memory_out) {
    const store_extent *extent = &store->extents[e];
    if (pi2_part_state(&extent->part) != PI2_PART_READY) {
        const uint64_t begin = pi2_clock_ns();
        const pi2_status status = await_extent(store, e);
        pi2_store_stalled(store->options.store, e, begin, 1);
        if (status != PI2_OK) {
            *memory_out = NULL;
            return status;
        }
    }
    *memory_out = extent->memory;
    return PI2_OK;
}

/* An extent that is not in memory has its home from now on, or none. */
static void set_resident(pi2_weight_store *store, uint32_t e, bool resident) {
    store_extent *extent = &store->extents[e];
    extent->resident = resident;
    extent->returns = false;
    extent->memory = resident ? extent->home : NULL;
    store->options.resident[e] = resident;
    atomic_store(&store->all_read, false);
    atomic_fetch_add(&store->generation, 1);
}

void pi2_weight_store_used(pi2_weight_store *store, uint32_t e, uint32_t tiles) {
    store_extent *extent = &store->extents[e];
    if (extent->resident) return;
    const uint32_t before = atomic_fetch_sub_explicit(&extent->tiles_left, tiles, memory_order_acq_rel);
    assert(before >= tiles);
    if (before != tiles) return;
    pi2_region_lock(store->region);
    if (extent->returns) set_resident(store, e, true);
    pi2_part_change(&extent->part, FROM(PI2_PART_READY), PI2_PART_ABSENT);
    ring_free_extent(store, e);
    pump(store);
    pi2_region_unlock(store->region);
}

pi2_status pi2_weight_store_load(pi2_weight_store *store, uint32_t e) {
    store_extent *extent = &store->extents[e];
    assert(extent->resident);
    const pi2_store_range range = { .offset = store->options.layout->extents[e].file_offset,
                                    .bytes = read_bytes_of(store, e), .memory = extent->memory, .number = e };
    return pi2_region_load(store->region, &extent->part, &range);
}

const uint8_t *pi2_weight_store_peek(const pi2_weight_store *store, uint32_t e) {
    const store_extent *extent = &store->extents[e];
    if (!extent->resident) return NULL;
    return pi2_part_state(&extent->part) == PI2_PART_READY ? extent->memory : NULL;
}

static void reset(void *self) {
    pi2_weight_store *store = self;
    for (uint32_t i = 0; i < store->options.sequence_count; i++) {
        store_extent *extent = &store->extents[store->sequence[i]];
        if (extent->resident && pi2_part_state(&extent->part) == PI2_PART_READY) continue;
        if (extent->returns) set_resident(store, store->sequence[i], true);
        pi2_part_change(&extent->part, FROM_ANY, PI2_PART_ABSENT); /* a resident one is asked for again */
    }
    atomic_store(&store->all_read, false);
    store->room_first = store->room_count = 0;
    store->ring_head = store->ring_used = 0;
    store->cursor = store->next_floor = 0;
    store->cursor_in_next_pass = false;
}

void pi2_weight_store_reset(pi2_weight_store *store) { pi2_region_reset(store->region); }

/* ---- giving memory back, and taking it again ---- */

/* The first resident's address of a unit. Its residents lie side by side. */
static uint8_t *unit_home(const pi2_weight_store *store, const store_unit *unit) {
    return store->extents[store->sequence[unit->first_position]].home;
}

/* Whether every extent of the unit is at home or not asked for: none is on its way. */
static bool unit_is_still(const pi2_weight_store *store, const store_unit *unit) {
    for (uint32_t i = unit->first_position; i <= unit->last_position; i++) {
        const store_extent *extent = &store->extents[store->sequence[i]];
        if (!extent->home) continue;
        const int state = pi2_part_state(&extent->part);
        if (!extent->resident || (state != PI2_PART_READY && state != PI2_PART_ABSENT)) return false;
    }
    return true;
}

static void send_away(pi2_weight_store *store, store_unit *unit) {
    for (uint32_t i = unit->first_position; i <= unit->last_position; i++) {
        store_extent *extent = &store->extents[store->sequence[i]];
        if (!extent->home) continue;
        set_resident(store, store->sequence[i], false);
        pi2_part_change(&extent->part, FROM(PI2_PART_READY) | FROM(PI2_PART_ABSENT) | FROM(PI2_PART_FAILED),
                        PI2_PART_ABSENT);
    }
    unit->away = true;
    store->away_bytes += unit->bytes;
    store->away_count++;
}

/* What is in the ring, or on its way there, returns when it has been used. */
static void bring_home(pi2_weight_store *store, store_unit *unit) {
    for (uint32_t i = unit->first_position; i <= unit->last_position; i++) {
        store_extent *extent = &store->extents[store->sequence[i]];
        if (!extent->home) continue;
        if (pi2_part_state(&extent->part) == PI2_PART_ABSENT) set_resident(store, store->sequence[i], true);
        else extent->returns = true;
    }
    atomic_store(&store->all_read, false);
    unit->away = false;
    store->away_bytes -= unit->bytes;
    store->away_count--;
}

/*
 * What the next pass reads through the ring lies before next_floor: an extent that begins to stream
 * before it would get its room too late. Behind it the cursor goes back to what has left.
 */
static bool unit_may_leave(const pi2_weight_store *store, const store_unit *unit, uint32_t end) {
    const bool is_part_of_pass = unit->first_position < store->options.pass_end;
    if (unit->away || unit->last_position >= end || !unit_is_still(store, unit)) return false;
    if (!is_part_of_pass) return end == UINT32_MAX;
    return store->cursor_in_next_pass ? unit->first_position >= store->next_floor
                                      : end == UINT32_MAX || unit->last_position < store->cursor;
}

/* The ring takes its memory while what was given back is still free, and not bit by bit later. */
static void touch_ring(pi2_weight_store *store) {
    volatile uint8_t *ring = store->options.ring;
    pi2_region_lock(store->region);
    for (size_t at = 0; !store->ring_touched && at < store->options.ring_bytes; at += pi2_page_bytes()) ring[at] = 0;
    store->ring_touched = true;
    pi2_region_unlock(store->region);
}

/* Those extents stream from now on; only what lies before `end` can leave. What is given is told less a ring that is
 * needed from now on. A pass may run beyond `end`: what it comes to is asked for again after each layer. */
static uint64_t give_back(void *self, uint32_t end, uint64_t bytes, bool *later) {
    pi2_weight_store *store = self;
    (void)later;
    uint64_t given = 0;
    if (store->ring_is_lent) {
        store->ring_is_wanted = bytes > 0;
        return 0;
    }
    const bool starts_ring = store->away_count == 0 && !store->options.ring_planned && !store->ring_touched;
    if (starts_ring && bytes) bytes += store->options.ring_bytes;
    bool others_stay = false; /* some cannot leave at this moment: those that leave last do not go in their place */
    for (uint32_t i = 0; i < store->unit_count && given < bytes; i++) {
        store_unit *unit = &store->units[store->unit_order[i]];
        if (others_stay && leaves_last(store, unit->first_position)) break;
        pi2_region_lock(store->region);
        const bool leaves = unit_may_leave(store, unit, end);
        if (leaves) {
            send_away(store, unit);
            if (store->cursor_in_next_pass && unit->first_position < store->cursor) {
                store->cursor = unit->first_position;
            }
        }
        pi2_region_unlock(store->region);
        others_stay = others_stay || !unit->away;
        if (!leaves) continue;
        /* Nobody reads into this memory now but take_again(), on this thread. */
        (void)pi2_pages_discard(unit_home(store, unit), (size_t)unit->bytes);
        given += unit->bytes;
    }
    const uint64_t started = starts_ring && given ? store->options.ring_bytes : 0;
    if (started) touch_ring(store);
    return given > started ? given - started : 0;
}

/* Embedding rows are loaded at once: no pass asks for them. */
static bool load_unit(pi2_weight_store *store, const store_unit *unit) {
    for (uint32_t i = unit->first_position; i <= unit->last_position; i++) {
        if (pi2_weight_store_load(store, store->sequence[i]) != PI2_OK) return false;
    }
    return true;
}

/* At least one unit becomes resident when it is read next. Embedding rows, which are read at once, only where no pass
 * runs. */
static uint64_t take_again(void *self, uint32_t end, uint64_t bytes) {
    pi2_weight_store *store = self;
    uint64_t taken = 0;
    for (uint32_t i = store->unit_count; i-- > 0 && store->away_count > 0 && taken < bytes;) {
        store_unit *unit = &store->units[store->unit_order[i]];
        const bool is_part_of_pass = unit->first_position < store->options.pass_end;
        const bool may_return = is_part_of_pass || end == UINT32_MAX;
        if (!unit->away || (taken > 0 && taken + unit->bytes > bytes) || !may_return) continue;
        pi2_region_lock(store->region);
        bring_home(store, unit);
        pi2_region_unlock(store->region);
        if (!is_part_of_pass && !load_unit(store, unit)) {
            pi2_region_lock(store->region);
            send_away(store, unit);
            pi2_region_unlock(store->region);
            break;
        }
        taken += unit->bytes;
    }
    return taken;
}

static uint64_t largest_unit(const pi2_weight_store *store) {
    uint64_t most = 0;
    for (uint32_t u = 0; u < store->unit_count; u++) {
        if (store->units[u].bytes > most) most = store->units[u].bytes;
    }
    return most;
}

/* Bytes of residents that nobody has asked for yet. While others compute nothing: a 7B has nine thousand extents. */
static uint64_t unread(void *self) {
    pi2_weight_store *store = self;
    uint64_t bytes = 0;
    if (atomic_load(&store->all_read)) return 0;
    pi2_region_lock(store->region);
    for (uint32_t e = 0; e < store->options.layout->extent_count; e++) {
        const store_extent *extent = &store->extents[e];
        /* The kernel holds the pages of a read from its beginning on. */
        const bool is_unread = extent->resident && pi2_part_state(&extent->part) == PI2_PART_ABSENT;
        if (is_unread || extent->returns) bytes += read_bytes_of(store, e);
    }
    atomic_store(&store->all_read, bytes == 0);
    pi2_region_unlock(store->region);
    return bytes;
}

static uint64_t away(void *self) { return ((const pi2_weight_store *)self)->away_bytes; }

uint32_t pi2_weight_store_generation(const pi2_weight_store *store) { return atomic_load(&store->generation); }

/* ---- creation ---- */

static pi2_status make_lists(pi2_weight_store *store) {
    const pi2_weight_store_options *options = &store->options;
    store->room_capacity = options->sequence_count + 1;
    store->extents = calloc(options->layout->extent_count + 1, sizeof *store->extents);
    store->sequence = malloc((options->sequence_count + 1) * sizeof *store->sequence);
    store->rooms = calloc(store->room_capacity, sizeof *store->rooms);
    if (!store->extents || !store->sequence || !store->rooms) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the weight store's lists");
    }
    memcpy(store->sequence, options->sequence, options->sequence_count * sizeof *store->sequence);
    return PI2_OK;
}

pi2_status pi2_weight_store_create(const pi2_weight_store_options *options, pi2_weight_store **store_out) {
    *store_out = NULL;
    pi2_weight_store *store = calloc(1, sizeof *store);
    if (!store) return pi2_fail(PI2_ERR_MEMORY, "no memory for the weight store");
    store->options = *options;
    const pi2_region_owner owner = { .self = store, .ended = note_arrival, .check = check_extent, .reset = reset };
    pi2_status status = make_lists(store);
    if (status == PI2_OK) status = place_extents(store);
    if (status == PI2_OK && options->may_give_back) status = make_units(store);
    if (status == PI2_OK) status = pi2_region_create(options->store, &owner, MAX_READS, &store->region);
    if (status != PI2_OK) {
        pi2_weight_store_free(store);
        return status;
    }
    pi2_region_set_memory(store->region, &(pi2_region_memory){
        .planned_bytes = store->planned_bytes, .piece_bytes = largest_unit(store), .away = away,
        .unread = unread, .give_back = give_back, .take_again = take_again });
    *store_out = store;
    return PI2_OK;
}

void pi2_weight_store_free(pi2_weight_store *store) {
    if (!store) return;
    pi2_region_free(store->region);
    free(store->extents);
    free(store->sequence);
    free(store->rooms);
    free(store->units);
    free(store->unit_order);
    free(store);
}
