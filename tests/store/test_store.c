/*
 * Goal:   whatever is read through the store arrives whole and is told of once, however many threads come upon it;
 *         neighbours share a read; the first failure is told by every thread and forgotten by the reset; reads that
 *         were taken back are not told of; a reset waits for what is in flight and begins nothing; who comes with the
 *         ticket of a read that has ended is not kept waiting for another one.
 * Method: a file of known bytes, a region of fixed places over it, and hooks that shorten reads, let them fail and
 *         hold them back; by every read method.
 */
#include <errno.h>
#include <pthread.h>

#include "storage/storage_test.h"

#include "base/fail.h"
#include "base/team.h"
#include "store/region.h"
#include "support/read_methods.h"

enum { PARTS = 96, PART_BYTES = 8192, THREADS = 4, FILE_BYTES = PARTS * PART_BYTES };

/* ---- hooks ---- */

typedef struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t opened;
    uint32_t allowed, passed, waiting;   /* reads behind the trial read */
    uint64_t offsets[PARTS];
    uint64_t bad_offset;                 /* a read over this byte fails; UINT64_MAX: none does */
    bool shortens;
} gate;

static int64_t on_read(void *context, const pi2_read_operation *operation, int64_t result) {
    gate *g = context;
    const uint64_t offset = operation->offset;
    (void)pthread_mutex_lock(&g->mutex);
    g->waiting++;
    while (g->passed >= g->allowed) (void)pthread_cond_wait(&g->opened, &g->mutex);
    g->waiting--;
    if (g->passed < PARTS) g->offsets[g->passed] = offset;
    g->passed++;
    const bool is_bad = g->bad_offset >= offset && g->bad_offset - offset < operation->bytes;
    (void)pthread_mutex_unlock(&g->mutex);
    if (is_bad) return -EIO;
    return g->shortens ? test_shorten(operation, result, 4096) : result;
}

static void open_gate(gate *g, uint32_t allowed) {
    (void)pthread_mutex_lock(&g->mutex);
    g->allowed = allowed;
    (void)pthread_cond_broadcast(&g->opened);
    (void)pthread_mutex_unlock(&g->mutex);
}

static uint32_t waiting_at(gate *g) {
    (void)pthread_mutex_lock(&g->mutex);
    const uint32_t waiting = g->waiting;
    (void)pthread_mutex_unlock(&g->mutex);
    return waiting;
}

/* ---- a region: part i has its place at i ---- */

typedef struct fixture {
    test_file file;
    gate gate;
    pi2_read_hooks hooks;
    pi2_store *store;
    pi2_region *region;
    uint8_t *memory;
    pi2_part parts[PARTS];
    _Atomic uint32_t begun, ended, checked;
    _Atomic bool resets;
    uint32_t told[PARTS];             /* how often a part's read was told of; lock */
    _Atomic bool begins_in_reset;     /* a read could begin while the region was reset */
    uint32_t bad_check;               /* a part whose check fails */
    bool is_scattered;                /* parts lie in memory in the opposite order; gaps are read too */
    uint32_t dropped;                 /* parts that were read in a gap; lock */
} fixture;

static void on_end(void *self, const pi2_bring *bring, pi2_status status) {
    fixture *f = self;
    if (status != PI2_OK) (void)pi2_store_fail(f->store, status);
    pi2_region_lock(f->region);
    for (uint32_t i = bring->first; i < bring->first + bring->count; i++) {
        if (bring->is_scattered && !bring->pieces[i - bring->first]) continue;
        f->told[i]++;
        pi2_part_change(&f->parts[i], FROM(PI2_PART_READING), status == PI2_OK ? PI2_PART_ARRIVED : PI2_PART_FAILED);
    }
    if (f->resets && pi2_region_unused(f->region)) f->begins_in_reset = true;
    pi2_region_unlock(f->region);
    f->ended++;
}

static pi2_status on_check(void *self, uint32_t number, const void *memory) {
    fixture *f = self;
    f->checked++;
    const uint8_t *bytes = memory;
    for (uint32_t at = 0; at < PART_BYTES; at++) {
        if (bytes[at] != test_byte((uint64_t)number * PART_BYTES + at)) {
            return pi2_fail(PI2_ERR_FORMAT, "part %u: byte %u is wrong", number, at);
        }
    }
    return number == f->bad_check ? pi2_fail(PI2_ERR_FORMAT, "part %u is bad", number) : PI2_OK;
}

static void on_reset(void *self) {
    fixture *f = self;
    for (uint32_t i = 0; i < PARTS; i++) pi2_part_change(&f->parts[i], FROM_ANY, PI2_PART_ABSENT);
}

static void make(fixture *f, const char *method, uint32_t depth, uint32_t reads) {
    memset(f, 0, sizeof *f);
    test_file_make(&f->file, FILE_BYTES);
    f->gate = (gate){ .allowed = UINT32_MAX, .bad_offset = UINT64_MAX };
    f->bad_check = UINT32_MAX;
    assert_int_equal(pthread_mutex_init(&f->gate.mutex, NULL) | pthread_cond_init(&f->gate.opened, NULL), 0);
    f->hooks = (pi2_read_hooks){ .context = &f->gate, .read_result = on_read };
    pi2_reader *reader = test_open(&f->file, method, depth, &f->hooks);
    assert_non_null(reader);
    f->gate.passed = 0;
    assert_int_equal(pi2_store_create(&(pi2_store_options){ .reader = reader }, &f->store), PI2_OK);
    const pi2_region_owner owner = { .self = f, .ended = on_end, .check = on_check, .reset = on_reset };
    assert_int_equal(pi2_region_create(f->store, &owner, reads, &f->region), PI2_OK);
    f->memory = test_pages(FILE_BYTES);
}

static void end(fixture *f) {
    pi2_store_reset(f->store);
    assert_int_equal(pi2_region_under_way(f->region), 0);
    pi2_region_free(f->region);
    pi2_store_free(f->store);
    pi2_pages_release(f->memory, FILE_BYTES);
    test_file_remove(&f->file);
    (void)pthread_mutex_destroy(&f->gate.mutex);
    (void)pthread_cond_destroy(&f->gate.opened);
}

static uint8_t *place_of(fixture *f, uint32_t i) {
    return f->memory + (size_t)(f->is_scattered ? PARTS - 1 - i : i) * PART_BYTES;
}

/* Widens a read by the next part; of those that are scattered one that is not absent is a gap. */
static bool widen(fixture *f, pi2_bring *bring, uint32_t i) {
    if (!f->is_scattered) return pi2_bring_join(bring, (uint64_t)i * PART_BYTES, PART_BYTES, place_of(f, i));
    const bool is_absent = pi2_part_state(&f->parts[i]) == PI2_PART_ABSENT;
    f->dropped += !is_absent;
    return pi2_bring_scatter(bring, (uint64_t)i * PART_BYTES, PART_BYTES, is_absent ? place_of(f, i) : NULL);
}

/* Begins a read of parts that are neighbours, as far as they join; NULL: none is unused. Lock held. */
static pi2_bring *begin_read(fixture *f, uint32_t first, uint32_t count, bool likely) {
    pi2_bring *bring = pi2_region_unused(f->region);
    if (!bring) return NULL;
    bring->offset = (uint64_t)first * PART_BYTES;
    bring->bytes = PART_BYTES;
    bring->memory = place_of(f, first);
    bring->likely = likely;
    bring->first = bring->number = first;
    bring->count = 1;
    for (uint32_t i = first + 1; i < first + count; i++) {
        if (!widen(f, bring, i)) break;
    }
    for (uint32_t i = 0; i < bring->count; i++) {
        if (!bring->is_scattered || bring->pieces[i]) pi2_bring_part(bring, &f->parts[first + i]);
    }
    pi2_region_add(f->region, bring);
    f->begun++;
    return bring;
}

/* How many parts a read of part i brings: up to four neighbours that are absent; where they are scattered up to six,
 * of which the first and the last are absent. Lock held. */
static uint32_t count_wanted(fixture *f, uint32_t i) {
    uint32_t count = 0;
    for (uint32_t k = 0; k < (f->is_scattered ? 6 : 4) && i + k < PARTS; k++) {
        const bool is_absent = pi2_part_state(&f->parts[i + k]) == PI2_PART_ABSENT;
        if (!is_absent && (k == 0 || !f->is_scattered)) break;
        if (is_absent) count = k + 1;
    }
    return count;
}

/* As a region does that waits for a part, and begins its read. */
static pi2_status take(fixture *f, uint32_t i) {
    for (unsigned turn = 0;; turn++) {
        const int state = pi2_part_state(&f->parts[i]);
        if (state == PI2_PART_READY) return PI2_OK;
        PI2_TRY(pi2_store_failure(f->store));
        if (state == PI2_PART_READING) {
            pi2_region_await(f->region, atomic_load(&f->parts[i].ticket), turn);
        } else if (state == PI2_PART_ARRIVED) {
            PI2_TRY(pi2_region_check(f->region, &f->parts[i], i, place_of(f, i)));
        } else {
            pi2_region_lock(f->region);
            const uint32_t count = count_wanted(f, i);
            if (count > 0) (void)begin_read(f, i, count, false);
            pi2_region_unlock(f->region);
            (void)pi2_region_collect(f->region); /* also what others wait for */
            pi2_store_pause(turn);
        }
    }
}

typedef struct takers {
    fixture *f;
    pi2_status status[THREADS];
    char text[THREADS][256];
} takers;

/* Every thread takes every part, in an order of its own. */
static void take_all(void *argument, unsigned member, unsigned member_count) {
    takers *t = argument;
    static const uint32_t steps[THREADS] = { 1, 7, 1, 11 }; /* none has a divisor in common with PARTS */
    (void)member_count;
    for (uint32_t n = 0; n < PARTS && t->status[member] == PI2_OK; n++) {
        t->status[member] = take(t->f, (member / 2 * 13 + n * steps[member]) % PARTS);
    }
    (void)snprintf(t->text[member], sizeof t->text[member], "%s", pi2_error_text());
}

static void run_takers(fixture *f, takers *t) {
    pi2_team *team = NULL;
    *t = (takers){ .f = f };
    assert_int_equal(pi2_team_create(THREADS, NULL, &team), PI2_OK);
    pi2_team_run(team, take_all, t);
    pi2_team_destroy(team);
}

/* ---- tests ---- */

static void arrives_once(const char *method) {
    fixture f;
    takers t;
    for (int round = 0; round < 24; round++) {
        make(&f, method, 1 + (uint32_t)round / 2, round % 3 ? 3 : PARTS); /* few reads serve anew while threads wait */
        f.gate.shortens = round / 2 % 2;
        f.is_scattered = round % 2;
        if (f.is_scattered) { /* a gap, whatever the threads do */
            pi2_region_lock(f.region);
            assert_non_null(begin_read(&f, 3, 1, false));
            pi2_region_unlock(f.region);
            assert_int_equal(take(&f, 0), PI2_OK);
            assert_true(f.dropped > 0);
        }
        run_takers(&f, &t);
        for (unsigned i = 0; i < THREADS; i++) {
            if (t.status[i] != PI2_OK) fail_msg("%s, round %d: %s", method, round, t.text[i]);
        }
        for (uint32_t i = 0; i < PARTS; i++) assert_int_equal(f.told[i], 1);
        assert_int_equal(f.begun, f.ended);
        assert_int_equal(f.checked, PARTS);
        pi2_store_counters counters;
        pi2_store_count(f.store, &counters);
        assert_int_equal(counters.bytes_read, FILE_BYTES + f.dropped * PART_BYTES);
        assert_int_equal(counters.bytes_dropped, f.dropped * PART_BYTES);
        assert_int_equal(counters.reads, f.begun);
        end(&f);
    }
}

static void failure_is_told_by_all(const char *method) {
    fixture f;
    takers t;
    for (int round = 0; round < 4; round++) {
        const bool by_check = round % 2;
        make(&f, method, 4, 8);
        f.is_scattered = round / 2;
        if (by_check) f.bad_check = 40;
        else f.gate.bad_offset = 40 * PART_BYTES;
        run_takers(&f, &t);
        for (unsigned i = 0; i < THREADS; i++) {
            assert_int_equal(t.status[i], by_check ? PI2_ERR_FORMAT : PI2_ERR_IO);
            assert_string_equal(t.text[i], t.text[0]);
        }
        assert_non_null(strstr(t.text[0], by_check ? "part 40 is bad" : "cannot read at byte"));
        assert_int_equal(pi2_store_fail(f.store, pi2_fail(PI2_ERR_MEMORY, "a later one")), PI2_ERR_MEMORY);
        assert_int_equal(pi2_store_failure(f.store), t.status[0]); /* the first is kept, with its text */
        assert_string_equal(pi2_error_text(), t.text[0]);
        pi2_store_reset(f.store);
        assert_int_equal(pi2_store_failure(f.store), PI2_OK);
        f.gate.bad_offset = UINT64_MAX;
        f.bad_check = UINT32_MAX;
        run_takers(&f, &t); /* it works on */
        for (unsigned i = 0; i < THREADS; i++) assert_int_equal(t.status[i], PI2_OK);
        assert_true(f.checked <= PARTS + 2); /* what was checked is not checked again */
        end(&f);
    }
}

/* The first read is held back, the others wait behind it. */
static void cancelled_and_raised(const char *method) {
    fixture f;
    make(&f, method, 1, 8);
    open_gate(&f.gate, 0);
    pi2_bring *reads[4];
    pi2_region_lock(f.region);
    reads[0] = begin_read(&f, 0, 1, false);
    pi2_region_unlock(f.region);
    while (waiting_at(&f.gate) == 0) pi2_store_pause(100);
    pi2_region_lock(f.region);
    for (uint32_t i = 1; i < 4; i++) reads[i] = begin_read(&f, 10 * i, 1, true);
    pi2_region_unlock(f.region);
    pi2_region_lock(f.region);
    assert_int_equal(pi2_region_under_way(f.region), 4);
    uint32_t seen = 0;
    for (pi2_bring *b = pi2_region_next(f.region, NULL); b; b = pi2_region_next(f.region, b)) seen++;
    assert_int_equal(seen, 4);
    assert_false(pi2_region_cancel(f.region, reads[0])); /* it has begun */
    assert_true(pi2_region_cancel(f.region, reads[1]));
    pi2_part_change(&f.parts[10], FROM(PI2_PART_READING), PI2_PART_ABSENT);
    pi2_region_raise(f.region, reads[3]);
    assert_int_equal(pi2_region_under_way(f.region), 3);
    pi2_region_unlock(f.region);
    const int mark = pi2_region_mark(f.region);
    uint32_t number = UINT32_MAX;
    open_gate(&f.gate, UINT32_MAX);
    if (pi2_region_await_any(f.region, mark, &number)) assert_int_equal(number, 0); /* the oldest's, or it had ended */
    while (pi2_region_under_way(f.region) > 0) (void)pi2_region_collect(f.region);
    assert_false(pi2_region_await_any(f.region, pi2_region_mark(f.region), NULL));
    assert_int_equal(f.gate.passed, 3);
    assert_int_equal(f.gate.offsets[1], 30 * PART_BYTES); /* the raised one came first */
    assert_int_equal(f.told[10], 0);
    assert_int_equal(f.ended, 3);
    assert_int_equal(take(&f, 10), PI2_OK);
    end(&f);
}

static void *open_later(void *argument) {
    fixture *f = argument;
    while (!f->resets || waiting_at(&f->gate) == 0) pi2_store_pause(100);
    open_gate(&f->gate, UINT32_MAX);
    return NULL;
}

static void reset_waits(const char *method) {
    fixture f;
    make(&f, method, 4, 16);
    open_gate(&f.gate, 0);
    f.gate.bad_offset = 3 * PART_BYTES;
    pi2_region_lock(f.region);
    for (uint32_t i = 0; i < 10; i++) (void)begin_read(&f, i, 1, i % 2);
    pi2_region_unlock(f.region);
    pthread_t opener;
    assert_int_equal(pthread_create(&opener, NULL, open_later, &f), 0);
    f.resets = true;
    pi2_store_reset(f.store);
    f.resets = false;
    assert_int_equal(pthread_join(opener, NULL), 0);
    assert_int_equal(f.ended, 10);
    assert_int_equal(pi2_region_under_way(f.region), 0);
    assert_false(f.begins_in_reset);
    assert_int_equal(pi2_store_failure(f.store), PI2_OK); /* the failure of part 3 is forgotten */
    f.gate.bad_offset = UINT64_MAX;
    assert_int_equal(take(&f, 3), PI2_OK);
    end(&f);
}

/* The only read serves another part, which is held back: the old ticket's holder does not wait for that one. */
static void old_tickets(const char *method) {
    fixture f;
    make(&f, method, 1, 1);
    assert_int_equal(take(&f, 0), PI2_OK);
    const uint32_t old = atomic_load(&f.parts[0].ticket);
    open_gate(&f.gate, 0);
    pi2_region_lock(f.region);
    assert_non_null(begin_read(&f, 50, 1, false));
    assert_null(pi2_region_unused(f.region));
    pi2_region_unlock(f.region);
    pi2_region_await(f.region, old, 0);
    assert_int_equal(pi2_part_state(&f.parts[50]), PI2_PART_READING);
    open_gate(&f.gate, UINT32_MAX);
    assert_int_equal(take(&f, 50), PI2_OK);
    end(&f);
}

static void run_by_method(void (*test)(const char *)) {
    test_file file;
    test_file_make(&file, 8192);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        if (test_has_read_method(*method, file.path)) test(*method);
    }
    test_file_remove(&file);
}

static void test_arrives_once(void **state) { (void)state; run_by_method(arrives_once); }
static void test_failure_is_told_by_all(void **state) { (void)state; run_by_method(failure_is_told_by_all); }
static void test_cancelled_and_raised(void **state) { (void)state; run_by_method(cancelled_and_raised); }
static void test_reset_waits(void **state) { (void)state; run_by_method(reset_waits); }
static void test_old_tickets(void **state) { (void)state; run_by_method(old_tickets); }

static void test_join(void **state) {
    (void)state;
    uint8_t *memory = test_pages(8192);
    pi2_bring bring = { .offset = 4096, .bytes = 4096, .memory = memory, .count = 1 };
    assert_false(pi2_bring_join(&bring, 12288, 4096, memory + 4096)); /* a gap in the file */
    assert_false(pi2_bring_join(&bring, 8192, 4096, memory + 8192));  /* a gap in memory */
    assert_false(pi2_bring_join(&bring, 8192, PI2_MERGED_READ_BYTES, memory + 4096));
    assert_int_equal(bring.bytes, 4096);
    assert_true(pi2_bring_join(&bring, 8192, PI2_MERGED_READ_BYTES - 4096, memory + 4096));
    assert_int_equal(bring.bytes, PI2_MERGED_READ_BYTES);
    assert_int_equal(bring.count, 2);
    bring = (pi2_bring){ .offset = 4096, .bytes = 4096, .memory = memory + 4096, .count = 1 };
    assert_false(pi2_bring_scatter(&bring, 12288, 4096, memory)); /* a gap in the file */
    for (uint32_t i = 1; i < PI2_READ_PIECES; i++) {
        assert_true(pi2_bring_scatter(&bring, 4096 * (1 + i), 4096, i % 2 ? NULL : memory));
    }
    assert_false(pi2_bring_scatter(&bring, 4096 * (1 + PI2_READ_PIECES), 4096, memory)); /* it is full */
    assert_int_equal(bring.bytes, PI2_READ_PIECES * 4096);
    assert_int_equal(bring.count, PI2_READ_PIECES);
    assert_ptr_equal(bring.pieces[0], memory + 4096);
    assert_null(bring.pieces[1]);
    assert_ptr_equal(bring.pieces[2], memory);
    pi2_pages_release(memory, 8192);
}

/* ---- reading now ---- */

typedef struct arrivals {
    const fixture *f;
    const pi2_store_range *ranges;
    uint32_t count, refused;
} arrivals;

static pi2_status on_arrival(void *user, uint32_t i) {
    arrivals *a = user;
    assert_int_equal(i, a->count++);
    const uint8_t *bytes = a->ranges[i].memory;
    for (uint64_t at = 0; at < a->ranges[i].bytes; at++) {
        if (bytes[at] != test_byte(a->ranges[i].offset + at)) fail_msg("range %u: byte %lu", i, (unsigned long)at);
    }
    return i == a->refused ? pi2_fail(PI2_ERR_FORMAT, "refused") : PI2_OK;
}

static void test_read_now(void **state) {
    (void)state;
    enum { RANGES = 40, LONG_BYTES = 3 * PI2_MERGED_READ_BYTES / 2 };
    fixture f;
    make(&f, "pread", 4, 1);
    test_file_remove(&f.file);
    pi2_region_free(f.region);
    pi2_store_free(f.store);
    test_file_make(&f.file, LONG_BYTES);
    assert_int_equal(pi2_store_create(&(pi2_store_options){ .reader = test_open(&f.file, "pread", 4, &f.hooks) },
                                      &f.store), PI2_OK);
    uint8_t *memory = test_pages(LONG_BYTES + RANGES * 8192);
    pi2_store_range ranges[RANGES];
    for (uint32_t i = 0; i < RANGES; i++) {
        ranges[i] = (pi2_store_range){ .offset = (uint64_t)i * 20480, .bytes = 8192,
                                       .memory = memory + LONG_BYTES + i * 8192 };
    }
    ranges[5] = (pi2_store_range){ .offset = 0, .bytes = LONG_BYTES, .memory = memory }; /* in two reads */
    arrivals a = { .f = &f, .ranges = ranges, .refused = UINT32_MAX };
    assert_int_equal(pi2_store_read(f.store, ranges, RANGES, on_arrival, &a, 3), PI2_OK);
    assert_int_equal(a.count, RANGES);
    pi2_store_counters counters;
    pi2_store_count(f.store, &counters);
    assert_int_equal(counters.reads, RANGES + 1);
    assert_int_equal(counters.stalls, RANGES + 1);
    a.count = 0;
    a.refused = 7;
    assert_int_equal(pi2_store_read(f.store, ranges, RANGES, on_arrival, &a, 0), PI2_ERR_FORMAT);
    assert_int_equal(a.count, 8);
    f.gate.bad_offset = ranges[9].offset + 100;
    a.count = 0;
    a.refused = UINT32_MAX;
    ranges[5].bytes = 8192;
    assert_int_equal(pi2_store_read(f.store, ranges, RANGES, on_arrival, &a, 0), PI2_ERR_IO);
    assert_int_equal(a.count, 9);
    assert_int_equal(pi2_store_failure(f.store), PI2_OK); /* it is the caller's */
    pi2_store_free(f.store);
    pi2_pages_release(memory, LONG_BYTES + RANGES * 8192);
    pi2_pages_release(f.memory, FILE_BYTES);
    test_file_remove(&f.file);
}

/* ---- memory that others need ---- */

/* A region of so many bytes, which leave in pieces of 10; `waits`: it gives between passes only. */
typedef struct heap {
    uint64_t planned, away;
    bool waits;
} heap;

static void no_end(void *self, const pi2_bring *bring, pi2_status status) { (void)self, (void)bring, (void)status; }
static uint64_t heap_away(void *self) { return ((heap *)self)->away; }
static uint64_t heap_unread(void *self) { return ((heap *)self)->planned / 2; }

static uint64_t heap_give(void *self, uint32_t position, uint64_t bytes, bool *later) {
    heap *h = self;
    *later = h->waits && position != UINT32_MAX && h->away < h->planned;
    uint64_t given = 0;
    for (; !*later && given < bytes && h->away < h->planned; given += 10) h->away += 10;
    return given;
}

static uint64_t heap_take(void *self, uint32_t position, uint64_t bytes) {
    heap *h = self;
    uint64_t taken = 0;
    (void)position;
    for (; taken < bytes && h->away > 0; taken += 10) h->away -= 10;
    return taken;
}

/* The region that was made last gives first and takes last; who gives later keeps the others from giving. */
static void test_memory(void **state) {
    (void)state;
    pi2_store *store = NULL;
    pi2_region *regions[3];
    heap heaps[3] = { { .planned = 100 }, { .planned = 50 }, { .planned = 30, .waits = true } };
    assert_int_equal(pi2_store_create(&(pi2_store_options){ 0 }, &store), PI2_OK);
    for (int i = 0; i < 3; i++) {
        const pi2_region_owner owner = { .self = &heaps[i], .ended = no_end };
        assert_int_equal(pi2_region_create(store, &owner, 1, &regions[i]), PI2_OK);
        pi2_region_set_memory(regions[i], &(pi2_region_memory){
            .planned_bytes = heaps[i].planned, .least_bytes = 5, .piece_bytes = i == 1 ? 20 : 10, .away = heap_away,
            .unread = heap_unread, .give_back = heap_give, .take_again = heap_take });
    }
    const pi2_store_bounds bounds = pi2_store_find_bounds(store);
    assert_int_equal(bounds.planned_bytes, 180);
    assert_int_equal(bounds.least_bytes, 15);
    assert_int_equal(bounds.piece_bytes, 20);
    assert_int_equal(pi2_store_unread_bytes(store), 90);
    assert_int_equal(pi2_store_give_back(store, 7, 40), 0); /* the last one will */
    assert_int_equal(pi2_store_give_back(store, UINT32_MAX, 40), 40);
    assert_true(heaps[2].away == 30 && heaps[1].away == 10 && heaps[0].away == 0);
    assert_int_equal(pi2_store_give_back(store, 7, 60), 60); /* it has nothing left to give */
    assert_true(heaps[2].away == 30 && heaps[1].away == 50 && heaps[0].away == 20);
    assert_int_equal(pi2_store_away_bytes(store), 100);
    assert_int_equal(pi2_store_take_again(store, UINT32_MAX, 30), 30);
    assert_true(heaps[2].away == 30 && heaps[1].away == 40 && heaps[0].away == 0);
    assert_int_equal(pi2_store_give_back(store, UINT32_MAX, 1000), 110);
    assert_int_equal(pi2_store_take_again(store, UINT32_MAX, 1000), 180);
    assert_int_equal(pi2_store_away_bytes(store), 0);
    for (int i = 0; i < 3; i++) pi2_region_free(regions[i]);
    pi2_store_free(store);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arrives_once), cmocka_unit_test(test_failure_is_told_by_all),
        cmocka_unit_test(test_cancelled_and_raised), cmocka_unit_test(test_reset_waits),
        cmocka_unit_test(test_old_tickets), cmocka_unit_test(test_join), cmocka_unit_test(test_read_now),
        cmocka_unit_test(test_memory) };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
