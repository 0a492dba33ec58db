/* store.c: reads of all regions, and all that is waited for. The only file of a pass that calls the reader. */
#include "store/store.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/fail.h"
#include "base/sleepers.h"
#include "storage/reader.h"
#include "store/region.h"

enum { READ_FREE, READ_ACTIVE, READ_ENDING };
enum { SUBMITTED_AT_ONCE = 64, RANGE_READS = 16, TICKETS_OF_A_READ = PI2_REGION_READS_MOST };

typedef struct pooled_read {
    pi2_bring bring;          /* first; written while the read is FREE and nobody holds it */
    pi2_read_request request;
    _Atomic int stage;
    _Atomic uint32_t ticket;  /* as in `bring` since it was added; else none that it ever has */
    _Atomic uint32_t holders; /* threads that look at the request: it serves nobody else meanwhile */
    _Atomic uint64_t order;   /* in which reads were added */
} pooled_read;

struct pi2_region {
    pi2_store *store;
    pi2_region_owner owner;
    pi2_region_memory memory; /* without functions: what the region has stays */
    pi2_region *next_region;  /* made before this one */
    pooled_read *reads;
    uint32_t capacity;
    _Atomic uint32_t under_way;
    bool is_resetting;
    pthread_mutex_t lock;     /* of what the region does, and of what follows */
    uint32_t next;            /* reads are taken in turn */
    uint64_t added;
    pi2_read_request *batch[SUBMITTED_AT_ONCE]; /* added, not submitted */
    uint32_t batch_count;
};

struct pi2_store {
    pi2_store_options options;
    pi2_region *regions;
    pthread_mutex_t failure_lock;
    _Atomic int failure;      /* a pi2_status: the first since the last reset */
    char failure_text[384];   /* its text; failure lock */
    _Atomic uint64_t needed_bytes, stall_ns, stalls;
};

/* ---- the store ---- */

pi2_status pi2_store_create(const pi2_store_options *options, pi2_store **store_out) {
    *store_out = NULL;
    pi2_store *store = calloc(1, sizeof *store);
    if (!store || pthread_mutex_init(&store->failure_lock, NULL) != 0) {
        free(store);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the store");
    }
    store->options = *options;
    *store_out = store;
    return PI2_OK;
}

void pi2_store_free(pi2_store *store) {
    if (!store) return;
    assert(!store->regions);
    pi2_reader_close(store->options.reader);
    (void)pthread_mutex_destroy(&store->failure_lock);
    free(store);
}

const pi2_store_options *pi2_store_options_of(const pi2_store *store) { return &store->options; }

uint32_t pi2_store_sector_bytes(const pi2_store *store) {
    return store->options.reader ? pi2_reader_sector_bytes(store->options.reader) : PI2_READ_ALIGNMENT;
}

void pi2_store_reset(pi2_store *store) {
    for (pi2_region *region = store->regions; region; region = region->next_region) pi2_region_reset(region);
}

pi2_status pi2_store_fail(pi2_store *store, pi2_status status) {
    (void)pthread_mutex_lock(&store->failure_lock);
    if (atomic_load(&store->failure) == PI2_OK) {
        (void)snprintf(store->failure_text, sizeof store->failure_text, "%s", pi2_error_text());
        atomic_store(&store->failure, (int)status);
    }
    (void)pthread_mutex_unlock(&store->failure_lock);
    return status;
}

pi2_status pi2_store_failure(pi2_store *store) {
    if (atomic_load_explicit(&store->failure, memory_order_relaxed) == PI2_OK) return PI2_OK;
    (void)pthread_mutex_lock(&store->failure_lock);
    const pi2_status status = pi2_fail((pi2_status)atomic_load(&store->failure), "%s", store->failure_text);
    (void)pthread_mutex_unlock(&store->failure_lock);
    return status;
}

void pi2_store_pause(unsigned turn) {
    if (turn < 64) pi2_spin_pause();
    else if (turn < 96) (void)sched_yield();
    else (void)nanosleep(&(struct timespec){ .tv_nsec = 50000 }, NULL);
}

void pi2_store_stalled(pi2_store *store, int64_t number, uint64_t begin_ns, unsigned threads) {
    const uint64_t end_ns = pi2_clock_ns();
    (void)atomic_fetch_add_explicit(&store->stall_ns, (end_ns - begin_ns) * threads, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&store->stalls, 1, memory_order_relaxed);
    if (!store->options.trace || number == PI2_NO_NUMBER) return;
    pi2_timeline_stall(store->options.trace, (uint32_t)number, begin_ns, end_ns);
}

void pi2_store_needs(pi2_store *store, uint64_t bytes) {
    (void)atomic_fetch_add_explicit(&store->needed_bytes, bytes, memory_order_relaxed);
}

void pi2_store_count(const pi2_store *store, pi2_store_counters *counters_out) {
    pi2_reader_counters reader = { 0 };
    if (store->options.reader) pi2_reader_count(store->options.reader, &reader);
    *counters_out = (pi2_store_counters){
        .needed_bytes = atomic_load(&store->needed_bytes), .stall_ns = atomic_load(&store->stall_ns),
        .stalls = atomic_load(&store->stalls), .bytes_read = reader.bytes_read, .reads = reader.reads,
        .bytes_dropped = reader.bytes_dropped };
}

/* ---- memory that others need ---- */

void pi2_region_set_memory(pi2_region *region, const pi2_region_memory *memory) { region->memory = *memory; }

pi2_store_bounds pi2_store_find_bounds(const pi2_store *store) {
    pi2_store_bounds bounds = { 0 };
    for (const pi2_region *region = store->regions; region; region = region->next_region) {
        bounds.planned_bytes += region->memory.planned_bytes;
        bounds.least_bytes += region->memory.least_bytes;
        if (bounds.piece_bytes < region->memory.piece_bytes) bounds.piece_bytes = region->memory.piece_bytes;
    }
    return bounds;
}

uint64_t pi2_store_away_bytes(const pi2_store *store) {
    uint64_t bytes = 0;
    for (const pi2_region *region = store->regions; region; region = region->next_region) {
        if (region->memory.away) bytes += region->memory.away(region->owner.self);
    }
    return bytes;
}

uint64_t pi2_store_unread_bytes(const pi2_store *store) {
    uint64_t bytes = 0;
    for (const pi2_region *region = store->regions; region; region = region->next_region) {
        if (region->memory.unread) bytes += region->memory.unread(region->owner.self);
    }
    return bytes;
}

uint64_t pi2_store_give_back(pi2_store *store, uint32_t position, uint64_t bytes) {
    uint64_t given = 0;
    bool later = false;
    for (pi2_region *region = store->regions; region && given < bytes && !later; region = region->next_region) {
        if (!region->memory.give_back) continue;
        given += region->memory.give_back(region->owner.self, position, bytes - given, &later);
    }
    return given;
}

static uint64_t take_again(pi2_region *region, uint32_t position, uint64_t bytes) {
    if (!region) return 0;
    const uint64_t taken = take_again(region->next_region, position, bytes);
    const pi2_region_memory *memory = &region->memory;
    if (taken >= bytes || !memory->take_again || memory->away(region->owner.self) == 0) return taken;
    return taken + memory->take_again(region->owner.self, position, bytes - taken);
}

uint64_t pi2_store_take_again(pi2_store *store, uint32_t position, uint64_t bytes) {
    return take_again(store->regions, position, bytes);
}

/* ---- reading now ---- */

/* Ranges that are being read: the next read to begin and the next to end, in one order. */
typedef struct range_walk {
    const pi2_store_range *ranges;
    uint32_t count;
    uint32_t range;  /* of the next read */
    uint64_t done;   /* bytes of it before the next read */
    uint32_t range_of[RANGE_READS];
    bool is_last[RANGE_READS]; /* of its range */
    pi2_read_request requests[RANGE_READS];
} range_walk;

static void begin_range_read(pi2_store *store, range_walk *walk, uint32_t slot) {
    const pi2_store_range *range = &walk->ranges[walk->range];
    const uint64_t left = range->bytes - walk->done;
    pi2_read_request *request = &walk->requests[slot];
    *request = (pi2_read_request){
        .offset = range->offset + walk->done, .destination = (uint8_t *)range->memory + walk->done,
        .bytes = (uint32_t)(left < PI2_MERGED_READ_BYTES ? left : PI2_MERGED_READ_BYTES),
        .priority = PI2_READ_CERTAIN };
    walk->done += request->bytes;
    walk->range_of[slot] = walk->range;
    walk->is_last[slot] = walk->done >= range->bytes;
    if (walk->is_last[slot]) {
        walk->range++;
        walk->done = 0;
    }
    pi2_reader_submit(store->options.reader, request);
}

pi2_status pi2_store_read(pi2_store *store, const pi2_store_range *ranges, uint32_t count,
                          pi2_status (*arrived)(void *user, uint32_t i), void *user, unsigned threads) {
    range_walk walk = { .ranges = ranges, .count = count };
    pi2_status status = PI2_OK; /* whatever fails, reads that were begun are waited for: they write into memory */
    uint32_t begun = 0, ended = 0;
    for (;;) {
        if (walk.range < count && begun - ended < RANGE_READS && status == PI2_OK) {
            begin_range_read(store, &walk, begun++ % RANGE_READS);
            continue;
        }
        if (ended == begun) return status;
        const uint32_t slot = ended++ % RANGE_READS;
        const uint64_t begin_ns = pi2_clock_ns();
        const pi2_status waited = pi2_reader_wait(store->options.reader, &walk.requests[slot], store->options.spin_us);
        if (threads) pi2_store_stalled(store, ranges[walk.range_of[slot]].number, begin_ns, threads);
        if (status != PI2_OK) continue;
        status = waited;
        if (status == PI2_OK && arrived && walk.is_last[slot]) status = arrived(user, walk.range_of[slot]);
    }
}

/* ---- regions ---- */

size_t pi2_region_bytes(uint32_t reads) { return sizeof(pi2_region) + reads * sizeof(pooled_read); }

pi2_status pi2_region_create(pi2_store *store, const pi2_region_owner *owner, uint32_t reads, pi2_region **region_out) {
    assert(reads > 0 && reads <= PI2_REGION_READS_MOST);
    *region_out = NULL;
    pi2_region *region = calloc(1, sizeof *region);
    pooled_read *pool = calloc(reads, sizeof *pool);
    if (!region || !pool || pthread_mutex_init(&region->lock, NULL) != 0) {
        free(region);
        free(pool);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for a list of %u reads", reads);
    }
    for (uint32_t i = 0; i < reads; i++) pool[i].bring.ticket = i;
    region->store = store;
    region->owner = *owner;
    region->reads = pool;
    region->capacity = reads;
    region->next_region = store->regions;
    store->regions = region;
    *region_out = region;
    return PI2_OK;
}

/* Why a read that somebody holds is not used: the holder first counts itself, then looks at the ticket; here first the
 * ticket changes, then the holders are looked at. One of the two sees the other. */
pi2_bring *pi2_region_unused(pi2_region *region) {
    for (uint32_t i = 0; i < region->capacity && !region->is_resetting; i++) {
        pooled_read *read = &region->reads[region->next];
        region->next = region->next + 1 == region->capacity ? 0 : region->next + 1;
        if (atomic_load(&read->stage) != READ_FREE) continue;
        read->bring = (pi2_bring){ .ticket = read->bring.ticket + TICKETS_OF_A_READ };
        atomic_store(&read->ticket, read->bring.ticket ^ 1u); /* another read's, so nobody comes with it */
        if (atomic_load(&read->holders) == 0) return &read->bring;
    }
    return NULL;
}

bool pi2_bring_join(pi2_bring *bring, uint64_t offset, uint32_t bytes, const uint8_t *memory) {
    if (bring->offset + bring->bytes != offset || bring->memory + bring->bytes != memory ||
        bring->bytes + bytes > PI2_MERGED_READ_BYTES) return false;
    bring->bytes += bytes;
    bring->count++;
    return true;
}

bool pi2_bring_scatter(pi2_bring *bring, uint64_t offset, uint32_t bytes, uint8_t *memory) {
    if (bring->offset + bring->bytes != offset || bring->count >= PI2_READ_PIECES) return false;
    assert(bring->bytes == bring->count * bytes);
    if (!bring->is_scattered) bring->pieces[0] = bring->memory;
    bring->is_scattered = true;
    bring->bytes += bytes;
    bring->pieces[bring->count++] = memory;
    return true;
}

static pooled_read *pooled(pi2_bring *bring) { return (pooled_read *)(void *)bring; }

static void submit(pi2_region *region) {
    if (region->batch_count) pi2_reader_submit_many(region->store->options.reader, region->batch, region->batch_count);
    region->batch_count = 0;
}

void pi2_region_lock(pi2_region *region) { (void)pthread_mutex_lock(&region->lock); }

void pi2_region_unlock(pi2_region *region) {
    submit(region);
    (void)pthread_mutex_unlock(&region->lock);
}

void pi2_region_add(pi2_region *region, pi2_bring *bring) {
    pooled_read *read = pooled(bring);
    if (region->batch_count == SUBMITTED_AT_ONCE) submit(region);
    read->request.offset = bring->offset;
    read->request.bytes = bring->bytes;
    read->request.destination = bring->memory;
    read->request.pieces = bring->is_scattered ? bring->pieces : NULL;
    read->request.piece_bytes = bring->is_scattered ? bring->bytes / bring->count : 0;
    read->request.priority = bring->likely ? PI2_READ_LIKELY : PI2_READ_CERTAIN;
    atomic_store(&read->request.state, PI2_READ_IDLE);
    atomic_store(&read->ticket, bring->ticket);
    atomic_store_explicit(&read->order, region->added++, memory_order_relaxed);
    (void)atomic_fetch_add(&region->under_way, 1);
    atomic_store(&read->stage, READ_ACTIVE);
    region->batch[region->batch_count++] = &read->request;
}

pi2_bring *pi2_region_next(pi2_region *region, pi2_bring *bring) {
    const pooled_read *end = region->reads + region->capacity;
    for (pooled_read *read = bring ? pooled(bring) + 1 : region->reads; read < end; read++) {
        if (atomic_load_explicit(&read->stage, memory_order_relaxed) == READ_ACTIVE) return &read->bring;
    }
    return NULL;
}

void pi2_region_raise(pi2_region *region, pi2_bring *bring) {
    pi2_reader_raise(region->store->options.reader, &pooled(bring)->request);
}

bool pi2_region_cancel(pi2_region *region, pi2_bring *bring) {
    pooled_read *read = pooled(bring);
    if (!pi2_reader_cancel(region->store->options.reader, &read->request)) return false;
    atomic_store(&read->stage, READ_FREE);
    (void)atomic_fetch_sub(&region->under_way, 1);
    return true;
}

uint32_t pi2_region_under_way(const pi2_region *region) { return atomic_load(&region->under_way); }

/* ---- the end of a read ---- */

static bool has_ended(const pooled_read *read) {
    const int state = atomic_load_explicit(&read->request.state, memory_order_acquire);
    return state == PI2_READ_DONE || state == PI2_READ_FAILED;
}

/* Tells of a read's end, if it has ended and nobody has. */
static bool end_read(pi2_region *region, pooled_read *read) {
    int active = READ_ACTIVE;
    if (!has_ended(read) || !atomic_compare_exchange_strong(&read->stage, &active, READ_ENDING)) return false;
    if (!has_ended(read)) { /* it was told of since the first look, and serves anew */
        atomic_store(&read->stage, READ_ACTIVE);
        return false;
    }
    const pi2_bring bring = read->bring;
    const pi2_status status = pi2_reader_wait(region->store->options.reader, &read->request, 0); /* has ended */
    /* Free only then: the next read into its window must not come while the owner copies from there. */
    region->owner.ended(region->owner.self, &bring, status);
    atomic_store(&read->stage, READ_FREE);
    (void)atomic_fetch_sub(&region->under_way, 1);
    return true;
}

bool pi2_region_collect(pi2_region *region) {
    bool some = false;
    for (uint32_t i = 0; i < region->capacity && atomic_load(&region->under_way) > 0; i++) {
        pooled_read *read = &region->reads[i];
        if (atomic_load_explicit(&read->stage, memory_order_acquire) != READ_ACTIVE) continue;
        if (end_read(region, read)) some = true;
    }
    return some;
}

/* Takes hold of a read; NULL: it has ended, or is not added yet. The holder lets go of it. */
static pooled_read *hold(pi2_region *region, uint32_t ticket) {
    pooled_read *read = &region->reads[ticket % TICKETS_OF_A_READ];
    (void)atomic_fetch_add(&read->holders, 1);
    if (atomic_load(&read->ticket) == ticket) return read;
    (void)atomic_fetch_sub(&read->holders, 1);
    return NULL;
}

static void let_go(pooled_read *read) { (void)atomic_fetch_sub(&read->holders, 1); }

void pi2_region_await(pi2_region *region, uint32_t ticket, unsigned turn) {
    pooled_read *read = hold(region, ticket);
    bool was_told = false;
    if (read) {
        if (atomic_load(&read->request.state) != PI2_READ_IDLE) { /* else whoever added it is about to submit it */
            (void)pi2_reader_wait(region->store->options.reader, &read->request, region->store->options.spin_us);
            was_told = end_read(region, read);
        }
        let_go(read);
    }
    if (!was_told) pi2_store_pause(turn); /* whoever ended it is telling, or whoever begins it is about to add it */
}

int pi2_region_mark(const pi2_region *region) {
    const pi2_reader *reader = region->store->options.reader;
    return reader ? pi2_reader_ended(reader) : 0;
}

bool pi2_region_await_any(pi2_region *region, int mark, uint32_t *number_out) {
    uint64_t least = UINT64_MAX;
    uint32_t ticket = 0;
    for (uint32_t i = 0; i < region->capacity; i++) {
        const pooled_read *read = &region->reads[i];
        if (atomic_load_explicit(&read->stage, memory_order_acquire) != READ_ACTIVE) continue;
        if (has_ended(read)) return false; /* since the caller looked */
        const uint64_t order = atomic_load_explicit(&read->order, memory_order_relaxed);
        if (order >= least) continue;
        least = order;
        ticket = atomic_load(&read->ticket);
    }
    if (least == UINT64_MAX) return false;
    pooled_read *oldest = hold(region, ticket);
    if (!oldest) return false; /* it has ended meanwhile */
    if (number_out) *number_out = oldest->bring.number;
    pi2_reader_wait_next(region->store->options.reader, mark, &oldest->request, region->store->options.spin_us);
    let_go(oldest);
    return true;
}

/* Nothing begins meanwhile. */
static void await_all(pi2_region *region) {
    region->is_resetting = true;
    for (uint32_t i = 0; i < region->capacity; i++) {
        pooled_read *read = &region->reads[i];
        if (atomic_load(&read->stage) != READ_ACTIVE) continue;
        (void)pi2_reader_wait(region->store->options.reader, &read->request, 0);
        (void)end_read(region, read);
    }
    region->is_resetting = false;
}

void pi2_region_reset(pi2_region *region) {
    await_all(region);
    if (region->owner.reset) region->owner.reset(region->owner.self);
    atomic_store(&region->store->failure, PI2_OK);
}

void pi2_region_free(pi2_region *region) {
    if (!region) return;
    await_all(region);
    pi2_region **link = &region->store->regions;
    while (*link != region) link = &(*link)->next_region;
    *link = region->next_region;
    (void)pthread_mutex_destroy(&region->lock);
    free(region->reads);
    free(region);
}

/* ---- checks ---- */

static pi2_status finish_check(pi2_region *region, pi2_part *part, uint32_t number, const void *memory, bool is_kept) {
    const bool is_checked = part->verified || region->store->options.is_described;
    const pi2_status status = is_checked ? PI2_OK : region->owner.check(region->owner.self, number, memory);
    if (status != PI2_OK && is_kept) (void)pi2_store_fail(region->store, status);
    part->verified = status == PI2_OK;
    pi2_part_change(part, FROM(PI2_PART_CHECKING), status == PI2_OK ? PI2_PART_READY : PI2_PART_FAILED);
    return status;
}

pi2_status pi2_region_check(pi2_region *region, pi2_part *part, uint32_t number, const void *memory) {
    if (!pi2_part_try(part, PI2_PART_ARRIVED, PI2_PART_CHECKING)) return PI2_OK;
    return finish_check(region, part, number, memory, true);
}

pi2_status pi2_region_load(pi2_region *region, pi2_part *part, const pi2_store_range *range) {
    PI2_TRY(pi2_store_read(region->store, range, 1, NULL, NULL, 0));
    pi2_part_change(part, FROM(PI2_PART_ABSENT), PI2_PART_CHECKING);
    return finish_check(region, part, range->number, range->memory, false);
}
