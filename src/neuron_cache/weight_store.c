/* weight_store.c: a resident part, and a ring for everything else. */
#include "neuron_cache/weight_store.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/fail.h"
#include "base/pages.h"
#include "base/sleepers.h"
#include "file_formats/cluster_file.h"

enum { STATE_ABSENT, STATE_READING, STATE_ARRIVED, STATE_CHECKING, STATE_READY, STATE_FAILED };
enum {
    UNITS_WANTED = 256, LEAST_UNIT_BYTES = 256 * 1024, LEAST_HUGE_UNIT_BYTES = 8 << 20
};
enum { MAX_READS = 64, MERGED_READ_BYTES = 1024 * 1024, NO_READ = 0xffff };

typedef struct store_extent {
    _Atomic int state;
    _Atomic uint32_t tiles_left;
    uint8_t *memory;          /* resident: always; streamed: from READING on */
    uint8_t *home;            /* where it is resident by the plan; NULL: it streams */
    uint32_t tiles;
    uint16_t read;            /* which read brings it; NO_READ */
    bool resident, verified;
    bool returns;             /* resident as soon as its tiles are used */
} store_extent;

/* A read of one or more consecutive extents of the sequence. */
typedef struct store_read {
    pi2_read_request request;
    uint32_t first_position, count;
    bool active;
} store_read;

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
    pthread_mutex_t pump_lock;
    store_read reads[MAX_READS];
    uint32_t next_read;       /* slots are taken in turn, so that one is reused as late as can be */

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
    uint64_t away_bytes;
    bool ring_touched;
    _Atomic uint32_t generation;
    uint64_t pass_bytes_body, pass_bytes_head, pass_bytes_by_neuron; /* the last: what such a pass does without */
    uint64_t needed_bytes;
    _Atomic uint64_t stall_ns, stalls;
    pi2_status failure;       /* the first since the last reset, with its text; pump lock */
    char failure_text[384];
};

/* A set of states. */
#define FROM(state) (1u << (state))
#define FROM_ANY 0xffu

/* The header's list of changes: what may become it. Those two below are the only ways to change a state. */
static const uint8_t comes_from[] = {
    [STATE_ABSENT] = FROM_ANY,
    [STATE_READING] = FROM(STATE_ABSENT),
    [STATE_ARRIVED] = FROM(STATE_READING),
    [STATE_CHECKING] = FROM(STATE_ARRIVED) | FROM(STATE_ABSENT),
    [STATE_READY] = FROM(STATE_CHECKING),
    [STATE_FAILED] = FROM(STATE_READING) | FROM(STATE_CHECKING),
};

/* from: the states that the caller may come from. */
static void change_state(store_extent *extent, unsigned from, int to) {
    const int before = atomic_exchange(&extent->state, to);
    assert((from & ~(unsigned)comes_from[to]) == 0 && (from >> before & 1u));
    (void)comes_from, (void)from, (void)before;
}

/* False: another thread was first. */
static bool try_change(store_extent *extent, int from, int to) {
    assert(comes_from[to] & FROM(from));
    return atomic_compare_exchange_strong(&extent->state, &from, to);
}

size_t pi2_weight_store_list_bytes(uint32_t extent_count) {
    return sizeof(struct pi2_weight_store) +
           (size_t)extent_count * (sizeof(store_extent) + sizeof(uint32_t) + sizeof(ring_room)) +
           (UNITS_WANTED + 8) * (sizeof(store_unit) + sizeof(uint32_t));
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
        own->read = NO_READ;
        atomic_init(&own->state, options->resident_loaded ? STATE_READY : STATE_ABSENT);
        if (i < options->head_begin) store->pass_bytes_body += extent->bytes;
        if (i < options->head_begin && options->by_neuron && options->by_neuron[e]) {
            store->pass_bytes_by_neuron += extent->bytes;
        }
        else if (i < options->pass_end) store->pass_bytes_head += extent->bytes;
        if (own->resident) {
            own->memory = own->home = at;
            at += pi2_extent_read_bytes(extent);
        } else if (pi2_extent_read_bytes(extent) > options->ring_bytes) {
            return pi2_fail(PI2_ERR_INVALID, "the stream buffer of %zu bytes cannot hold extent %u of %u bytes",
                            options->ring_bytes, e, pi2_extent_read_bytes(extent));
        }
    }
    return PI2_OK;
}

static void free_lists(pi2_weight_store *store) {
    free(store->extents);
    free(store->sequence);
    free(store->rooms);
    free(store->units);
    free(store->unit_order);
    free(store);
}

/* Units of the resident memory; huge pages come back whole only, so units are large beside them. */
static uint64_t unit_bytes_for(uint64_t resident_bytes, bool huge_pages) {
    const uint64_t share = resident_bytes / UNITS_WANTED;
    const uint64_t least = huge_pages ? LEAST_HUGE_UNIT_BYTES : LEAST_UNIT_BYTES;
    return share > least ? share : least;
}

/* Which part of the sequence a position is in: units keep to one. */
static int part_of(const pi2_weight_store *store, uint32_t position) {
    return position < store->options.head_begin ? 0 : position < store->options.pass_end ? 1 : 2;
}

/* Cuts the residents into units; returns how many, and writes them where there is a list. */
static uint32_t cut_units(const pi2_weight_store *store, uint64_t unit_bytes, store_unit *units) {
    uint32_t count = 0, last_part = 0;
    uint64_t bytes = unit_bytes;
    for (uint32_t i = 0; i < store->options.sequence_count; i++) {
        const store_extent *extent = &store->extents[store->sequence[i]];
        if (!extent->home) continue;
        const uint32_t part = (uint32_t)part_of(store, i);
        if (bytes >= unit_bytes || part != last_part) {
            if (units) units[count] = (store_unit){ .first_position = i };
            count++;
            bytes = 0;
        }
        const uint32_t read_bytes = pi2_extent_read_bytes(&store->options.layout->extents[store->sequence[i]]);
        bytes += read_bytes;
        last_part = part;
        if (!units) continue;
        units[count - 1].last_position = i;
        units[count - 1].bytes += read_bytes;
    }
    return count;
}

/*
 * Embedding rows leave first: a token needs one. Then the rest in bit-reversed order, so that what
 * has left is spread evenly over the pass at any time, as the plan spreads what streams.
 */
static void order_units(pi2_weight_store *store) {
    uint32_t count = 0, body = 0, bits = 0;
    for (uint32_t u = 0; u < store->unit_count; u++) {
        if (part_of(store, store->units[u].first_position) == 2) store->unit_order[count++] = u;
        else body++;
    }
    while ((1u << bits) < body) bits++;
    for (uint32_t i = 0; i < 1u << bits; i++) {
        uint32_t reversed = 0;
        for (uint32_t b = 0; b < bits; b++) reversed |= (i >> b & 1u) << (bits - 1 - b);
        if (reversed < body) store->unit_order[count++] = reversed;
    }
    assert(count == store->unit_count);
}

static pi2_status make_units(pi2_weight_store *store) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < store->options.sequence_count; i++) {
        const uint32_t e = store->sequence[i];
        if (store->extents[e].home) bytes += pi2_extent_read_bytes(&store->options.layout->extents[e]);
    }
    const uint64_t unit_bytes = unit_bytes_for(bytes, store->options.huge_pages);
    store->unit_count = cut_units(store, unit_bytes, NULL);
    store->units = calloc(store->unit_count + 1, sizeof *store->units);
    store->unit_order = calloc(store->unit_count + 1, sizeof *store->unit_order);
    if (!store->units || !store->unit_order) return pi2_fail(PI2_ERR_MEMORY, "no memory for the weight store's lists");
    (void)cut_units(store, unit_bytes, store->units);
    order_units(store);
    return PI2_OK;
}

pi2_status pi2_weight_store_create(const pi2_weight_store_options *options, pi2_weight_store **store_out) {
    *store_out = NULL;
    pi2_weight_store *store = calloc(1, sizeof *store);
    if (!store) return pi2_fail(PI2_ERR_MEMORY, "no memory for the weight store");
    store->options = *options;
    const uint32_t extents = options->layout->extent_count;
    store->room_capacity = options->sequence_count + 1;
    store->extents = calloc(extents ? extents : 1, sizeof *store->extents);
    store->sequence = malloc((options->sequence_count + 1) * sizeof *store->sequence);
    store->rooms = calloc(store->room_capacity, sizeof *store->rooms);
    if (!store->extents || !store->sequence || !store->rooms ||
        pthread_mutex_init(&store->pump_lock, NULL) != 0) {
        free_lists(store);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the weight store's lists");
    }
    memcpy(store->sequence, options->sequence, options->sequence_count * sizeof *store->sequence);
    store->options.sequence = store->sequence;
    pi2_status status = place_extents(store);
    if (status == PI2_OK && options->may_give_back) status = make_units(store);
    if (status != PI2_OK) {
        pi2_weight_store_free(store);
        return status;
    }
    *store_out = store;
    return PI2_OK;
}

void pi2_weight_store_free(pi2_weight_store *store) {
    if (!store) return;
    pi2_weight_store_reset(store);
    (void)pthread_mutex_destroy(&store->pump_lock);
    free_lists(store);
}

/* ---- the ring, under the pump lock ---- */

/* Room for `bytes` consecutive bytes, or NULL. What does not fit before the end is skipped. */
static uint8_t *ring_give(pi2_weight_store *store, uint32_t extent, uint32_t bytes) {
    const size_t size = store->options.ring_bytes;
    const bool wraps = store->ring_head + bytes > size;
    const size_t skipped = wraps ? size - store->ring_head : 0;
    if (store->ring_used + skipped + bytes > size || store->room_count == store->room_capacity) return NULL;
    const size_t at = wraps ? 0 : store->ring_head;
    ring_room *room = &store->rooms[(store->room_first + store->room_count) % store->room_capacity];
    *room = (ring_room){ .extent = extent, .bytes = (uint32_t)(bytes + skipped) };
    store->room_count++;
    store->ring_used += bytes + skipped;
    store->ring_touched = true;
    store->ring_head = at + bytes;
    return (uint8_t *)store->options.ring + at;
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
        if (atomic_load_explicit(&extent->state, memory_order_relaxed) == STATE_ABSENT) return true;
        if (!extent->resident) return false; /* still in the ring since this very pass */
        store->cursor++;
    }
}

static uint8_t *give_memory(pi2_weight_store *store, uint32_t e) {
    store_extent *extent = &store->extents[e];
    if (!extent->resident) {
        extent->memory = ring_give(store, e, pi2_extent_read_bytes(&store->options.layout->extents[e]));
        if (extent->memory && store->cursor_in_next_pass) store->next_floor = store->cursor + 1;
    }
    return extent->memory;
}

static store_read *unused_read(pi2_weight_store *store) {
    for (uint32_t i = 0; i < MAX_READS; i++) {
        store_read *read = &store->reads[store->next_read];
        store->next_read = (store->next_read + 1) % MAX_READS;
        if (!read->active) return read;
    }
    return NULL;
}

static void mark_reading(pi2_weight_store *store, uint32_t e, const store_read *read) {
    store_extent *extent = &store->extents[e];
    extent->read = (uint16_t)(read - store->reads);
    atomic_store_explicit(&extent->tiles_left, extent->tiles, memory_order_relaxed);
    change_state(extent, FROM(STATE_ABSENT), STATE_READING);
}

/* Neighbours in the file that are neighbours in memory too join the read. */
static void extend_read(pi2_weight_store *store, store_read *read) {
    const pi2_extent_layout *layout = store->options.layout;
    while (cursor_find(store)) {
        const uint32_t e = store->sequence[store->cursor];
        const uint32_t bytes = pi2_extent_read_bytes(&layout->extents[e]);
        if (store->cursor != read->first_position + read->count ||
            layout->extents[e].file_offset != read->request.offset + read->request.bytes ||
            read->request.bytes + bytes > MERGED_READ_BYTES) return;
        uint8_t *next = (uint8_t *)read->request.destination + read->request.bytes;
        if (store->extents[e].resident) {
            if (store->extents[e].memory != next) return;
        } else if ((uint8_t *)store->options.ring + store->ring_head != next ||
                   store->ring_head + bytes > store->options.ring_bytes || !give_memory(store, e)) {
            return;
        }
        assert(store->extents[e].memory == next);
        read->request.bytes += bytes;
        read->count++;
        mark_reading(store, e, read);
        store->cursor++;
    }
}

/* Asks for what comes next, in at most so many reads, as far as there is room. Pump lock held. */
static void ask(pi2_weight_store *store, size_t most_reads) {
    pi2_read_request *batch[MAX_READS];
    size_t batch_count = 0;
    while (store->options.reader && batch_count < most_reads && cursor_find(store)) {
        const uint32_t e = store->sequence[store->cursor];
        store_read *read = unused_read(store);
        uint8_t *memory = read ? give_memory(store, e) : NULL;
        if (!memory) break;
        const pi2_extent *extent = &store->options.layout->extents[e];
        read->active = true;
        read->first_position = store->cursor;
        read->count = 1;
        read->request.offset = extent->file_offset;
        read->request.bytes = pi2_extent_read_bytes(extent);
        read->request.destination = memory;
        read->request.priority = PI2_READ_CERTAIN;
        atomic_store_explicit(&read->request.state, PI2_READ_IDLE, memory_order_relaxed);
        mark_reading(store, e, read);
        store->cursor++;
        extend_read(store, read);
        batch[batch_count++] = &read->request;
    }
    if (batch_count) pi2_reader_submit_many(store->options.reader, batch, batch_count);
}

/* Asks for all that has room now. Pump lock held. */
static void pump(pi2_weight_store *store) {
    if (!store->options.on_demand_only) ask(store, MAX_READS);
}

/*
 * The read may have ended: then its extents are ARRIVED and its slot can serve another. Several
 * threads may come here for one read, and late ones find the slot in use again: hence the look
 * at the state under the lock.
 */
static void complete_read(pi2_weight_store *store, store_read *read) {
    (void)pthread_mutex_lock(&store->pump_lock);
    if (!read->active || atomic_load(&read->request.state) != PI2_READ_DONE) {
        (void)pthread_mutex_unlock(&store->pump_lock);
        return;
    }
    for (uint32_t i = 0; i < read->count; i++) {
        change_state(&store->extents[store->sequence[read->first_position + i]], FROM(STATE_READING), STATE_ARRIVED);
    }
    read->active = false;
    pump(store);
    (void)pthread_mutex_unlock(&store->pump_lock);
}

/* ---- passes ---- */

void pi2_weight_store_begin_pass(pi2_weight_store *store, const pi2_weight_store_pass *pass) {
    /* What the ring holds for a pass of the other kind would be in the way of this one's order. */
    if (pass->by_neuron != store->pass.by_neuron) pi2_weight_store_reset(store);
    (void)pthread_mutex_lock(&store->pump_lock);
    store->pass = *pass;
    if (store->cursor_in_next_pass) store->cursor_in_next_pass = false;
    else store->cursor = 0;
    store->next_floor = 0;
    if (store->ring_touched && store->away_count == 0 && store->room_count == 0 && !store->options.ring_planned) {
        (void)pi2_pages_discard(store->options.ring, store->options.ring_bytes); /* nothing streams any more */
        store->ring_touched = false;
    }
    store->needed_bytes += store->pass_bytes_body + (pass->with_head ? store->pass_bytes_head : 0) -
                           (pass->by_neuron ? store->pass_bytes_by_neuron : 0);
    pump(store);
    (void)pthread_mutex_unlock(&store->pump_lock);
}

/* Keeps the first failure, so that every thread that meets it tells the same cause. from: the extent's state, unless
 * another thread was first. */
static pi2_status fail_extent(pi2_weight_store *store, store_extent *extent, int from, pi2_status status) {
    (void)pthread_mutex_lock(&store->pump_lock);
    if (try_change(extent, from, STATE_FAILED) && store->failure == PI2_OK) {
        store->failure = status;
        (void)snprintf(store->failure_text, sizeof store->failure_text, "%s", pi2_error_text());
    }
    (void)pthread_mutex_unlock(&store->pump_lock);
    return status;
}

static pi2_status first_failure(pi2_weight_store *store) {
    (void)pthread_mutex_lock(&store->pump_lock);
    const pi2_status status = pi2_fail(store->failure, "%s", store->failure_text);
    (void)pthread_mutex_unlock(&store->pump_lock);
    return status;
}

static pi2_status check_extent(pi2_weight_store *store, uint32_t e) {
    store_extent *extent = &store->extents[e];
    if (!extent->verified) {
        const pi2_status status =
            pi2_cluster_file_check_extent(store->options.path, store->options.layout, e, extent->memory);
        if (status != PI2_OK) return fail_extent(store, extent, STATE_CHECKING, status);
    }
    extent->verified = true;
    change_state(extent, FROM(STATE_CHECKING), STATE_READY);
    return PI2_OK;
}

static void short_pause(unsigned turn) {
    if (turn < 64) {
        pi2_spin_pause();
    } else if (turn < 96) {
        (void)sched_yield();
    } else {
        const struct timespec pause = { .tv_sec = 0, .tv_nsec = 50000 };
        (void)nanosleep(&pause, NULL);
    }
}

static pi2_status await_extent(pi2_weight_store *store, uint32_t e) {
    store_extent *extent = &store->extents[e];
    for (unsigned turn = 0;; turn++) {
        const int state = atomic_load_explicit(&extent->state, memory_order_acquire);
        if (state == STATE_READY) return PI2_OK;
        if (state == STATE_READING) {
            store_read *read = &store->reads[extent->read];
            const pi2_status status = pi2_reader_wait(store->options.reader, &read->request,
                                                      store->options.spin_us);
            /* The pump marks an extent before it has queued the read: such a read is no failure. */
            if (status == PI2_OK) complete_read(store, read);
            else if (atomic_load(&read->request.state) != PI2_READ_FAILED) short_pause(turn);
            else (void)fail_extent(store, extent, STATE_READING, status); /* the next turn tells it */
        } else if (state == STATE_ARRIVED) {
            if (try_change(extent, STATE_ARRIVED, STATE_CHECKING)) return check_extent(store, e);
        } else if (state == STATE_FAILED) {
            return first_failure(store);
        } else if (state == STATE_ABSENT) {
            (void)pthread_mutex_lock(&store->pump_lock);
            ask(store, store->options.on_demand_only ? 1 : MAX_READS);
            (void)pthread_mutex_unlock(&store->pump_lock);
            short_pause(turn);
        } else {
            short_pause(turn);
        }
    }
}

void pi2_weight_store_add_stall(pi2_weight_store *store, uint32_t e, uint64_t begin_ns, unsigned threads) {
    const uint64_t end_ns = pi2_clock_ns();
    atomic_fetch_add_explicit(&store->stall_ns, (end_ns - begin_ns) * threads, memory_order_relaxed);
    atomic_fetch_add_explicit(&store->stalls, 1, memory_order_relaxed);
    if (store->options.trace) pi2_timeline_stall(store->options.trace, e, begin_ns, end_ns);
}

pi2_status pi2_weight_store_extent(pi2_weight_store *store, uint32_t e, const uint8_t **memory_out) {
    store_extent *extent = &store->extents[e];
    if (atomic_load_explicit(&extent->state, memory_order_acquire) != STATE_READY) {
        const uint64_t begin = pi2_clock_ns();
        const pi2_status status = await_extent(store, e);
        pi2_weight_store_add_stall(store, e, begin, 1);
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
    atomic_fetch_add(&store->generation, 1);
}

void pi2_weight_store_used(pi2_weight_store *store, uint32_t e, uint32_t tiles) {
    store_extent *extent = &store->extents[e];
    if (extent->resident) return;
    const uint32_t before = atomic_fetch_sub_explicit(&extent->tiles_left, tiles, memory_order_acq_rel);
    assert(before >= tiles);
    if (before != tiles) return;
    (void)pthread_mutex_lock(&store->pump_lock);
    if (extent->returns) set_resident(store, e, true);
    change_state(extent, FROM(STATE_READY), STATE_ABSENT);
    ring_free_extent(store, e);
    pump(store);
    (void)pthread_mutex_unlock(&store->pump_lock);
}

pi2_status pi2_weight_store_load(pi2_weight_store *store, uint32_t e) {
    store_extent *extent = &store->extents[e];
    assert(extent->resident);
    const pi2_extent *place = &store->options.layout->extents[e];
    pi2_read_request request = { .offset = place->file_offset, .bytes = pi2_extent_read_bytes(place),
                                 .destination = extent->memory, .priority = PI2_READ_CERTAIN };
    pi2_reader_submit(store->options.reader, &request);
    PI2_TRY(pi2_reader_wait(store->options.reader, &request, store->options.spin_us));
    change_state(extent, FROM(STATE_ABSENT), STATE_CHECKING);
    return check_extent(store, e);
}

const uint8_t *pi2_weight_store_peek(const pi2_weight_store *store, uint32_t e) {
    const store_extent *extent = &store->extents[e];
    if (!extent->resident) return NULL;
    return atomic_load_explicit(&extent->state, memory_order_acquire) == STATE_READY ? extent->memory : NULL;
}

void pi2_weight_store_reset(pi2_weight_store *store) {
    for (uint32_t i = 0; i < MAX_READS; i++) {
        store_read *read = &store->reads[i];
        if (!read->active) continue;
        (void)pi2_reader_wait(store->options.reader, &read->request, 0);
        read->active = false;
    }
    for (uint32_t i = 0; i < store->options.sequence_count; i++) {
        store_extent *extent = &store->extents[store->sequence[i]];
        const int state = atomic_load(&extent->state);
        if (extent->resident && state == STATE_READY) continue;
        if (extent->returns) set_resident(store, store->sequence[i], true);
        change_state(extent, FROM_ANY, STATE_ABSENT); /* a resident one that had not arrived is asked for again */
    }
    store->room_first = store->room_count = 0;
    store->ring_head = store->ring_used = 0;
    store->cursor = store->next_floor = 0;
    store->cursor_in_next_pass = false;
    store->failure = PI2_OK;
}

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
        const int state = atomic_load(&extent->state);
        if (!extent->resident || (state != STATE_READY && state != STATE_ABSENT)) return false;
    }
    return true;
}

static void send_away(pi2_weight_store *store, store_unit *unit) {
    for (uint32_t i = unit->first_position; i <= unit->last_position; i++) {
        store_extent *extent = &store->extents[store->sequence[i]];
        if (!extent->home) continue;
        set_resident(store, store->sequence[i], false);
        change_state(extent, FROM(STATE_READY) | FROM(STATE_ABSENT) | FROM(STATE_FAILED), STATE_ABSENT);
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
        if (atomic_load(&extent->state) == STATE_ABSENT) set_resident(store, store->sequence[i], true);
        else extent->returns = true;
    }
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
    (void)pthread_mutex_lock(&store->pump_lock);
    for (size_t at = 0; !store->ring_touched && at < store->options.ring_bytes; at += pi2_page_bytes()) ring[at] = 0;
    store->ring_touched = true;
    (void)pthread_mutex_unlock(&store->pump_lock);
}

uint64_t pi2_weight_store_give_back(pi2_weight_store *store, uint32_t end, uint64_t bytes) {
    uint64_t given = 0;
    const bool starts_ring = store->away_count == 0 && !store->options.ring_planned && !store->ring_touched;
    if (starts_ring && bytes) bytes += store->options.ring_bytes;
    for (uint32_t i = 0; i < store->unit_count && given < bytes; i++) {
        store_unit *unit = &store->units[store->unit_order[i]];
        (void)pthread_mutex_lock(&store->pump_lock);
        const bool leaves = unit_may_leave(store, unit, end);
        if (leaves) {
            send_away(store, unit);
            if (store->cursor_in_next_pass && unit->first_position < store->cursor) {
                store->cursor = unit->first_position;
            }
        }
        (void)pthread_mutex_unlock(&store->pump_lock);
        if (!leaves) continue;
        /* Nobody reads into this memory now but pi2_weight_store_take_again(), on this thread. */
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

uint64_t pi2_weight_store_take_again(pi2_weight_store *store, uint64_t bytes, bool between_passes) {
    uint64_t taken = 0;
    for (uint32_t i = store->unit_count; i-- > 0 && store->away_count > 0 && taken < bytes;) {
        store_unit *unit = &store->units[store->unit_order[i]];
        const bool is_part_of_pass = unit->first_position < store->options.pass_end;
        if (!unit->away || (taken > 0 && taken + unit->bytes > bytes) || !(is_part_of_pass || between_passes)) continue;
        (void)pthread_mutex_lock(&store->pump_lock);
        bring_home(store, unit);
        (void)pthread_mutex_unlock(&store->pump_lock);
        if (!is_part_of_pass && !load_unit(store, unit)) {
            (void)pthread_mutex_lock(&store->pump_lock);
            send_away(store, unit);
            (void)pthread_mutex_unlock(&store->pump_lock);
            break;
        }
        taken += unit->bytes;
    }
    return taken;
}

uint64_t pi2_weight_store_unit_bytes(const pi2_weight_store *store) {
    uint64_t most = 0;
    for (uint32_t u = 0; u < store->unit_count; u++) {
        if (store->units[u].bytes > most) most = store->units[u].bytes;
    }
    return most;
}

uint64_t pi2_weight_store_unread_bytes(pi2_weight_store *store) {
    uint64_t bytes = 0;
    (void)pthread_mutex_lock(&store->pump_lock);
    for (uint32_t e = 0; e < store->options.layout->extent_count; e++) {
        const store_extent *extent = &store->extents[e];
        const int state = atomic_load_explicit(&extent->state, memory_order_relaxed);
        /* The kernel holds the pages of a read from its beginning on. */
        const bool is_unread = extent->resident && state == STATE_ABSENT;
        if (is_unread || extent->returns) bytes += pi2_extent_read_bytes(&store->options.layout->extents[e]);
    }
    (void)pthread_mutex_unlock(&store->pump_lock);
    return bytes;
}

uint64_t pi2_weight_store_away_bytes(const pi2_weight_store *store) { return store->away_bytes; }

uint32_t pi2_weight_store_generation(const pi2_weight_store *store) { return atomic_load(&store->generation); }

void pi2_weight_store_count(const pi2_weight_store *store, pi2_weight_store_counters *counters_out) {
    counters_out->needed_bytes = store->needed_bytes;
    counters_out->stall_ns = atomic_load_explicit(&store->stall_ns, memory_order_relaxed);
    counters_out->stalls = atomic_load_explicit(&store->stalls, memory_order_relaxed);
}
