/*
 * Goal:   weights are given back in small steps, spread over the pass, and the stream buffer that they then
 *         need takes its memory at once, while it is free.
 * Method: a store over made-up extents that are all in memory; nothing is read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/pages.h"
#include "neuron_cache/weight_store.h"
#include "support/store_over.h"

enum { EXTENTS = 256, EXTENT_BYTES = 256 * 1024, RING_BYTES = 2 << 20 };

typedef struct fixture {
    pi2_extent extents[EXTENTS];
    pi2_extent_layout layout;
    uint32_t sequence[EXTENTS];
    uint8_t resident[EXTENTS], by_neuron[EXTENTS];
    void *memory, *ring;
    pi2_store *way;
    pi2_weight_store *store;
} fixture;

enum { HEAD_BEGIN = EXTENTS - 16, BY_NEURON = 40 }; /* the last 16 extents are the head; the first 40 single neurons */

static void make(fixture *f) {
    memset(f, 0, sizeof *f);
    memset(f->by_neuron, 1, BY_NEURON);
    for (uint32_t i = 0; i < EXTENTS; i++) {
        f->extents[i] = (pi2_extent){ .file_offset = (uint64_t)i * EXTENT_BYTES, .bytes = EXTENT_BYTES };
        f->sequence[i] = i;
        f->resident[i] = 1;
    }
    f->layout = (pi2_extent_layout){ .extents = f->extents, .extent_count = EXTENTS };
    assert_int_equal(pi2_pages_reserve((size_t)EXTENTS * EXTENT_BYTES, false, "weights", &f->memory), PI2_OK);
    assert_int_equal(pi2_pages_reserve(RING_BYTES, false, "ring", &f->ring), PI2_OK);
    memset(f->ring, 0xff, RING_BYTES); /* so that a first write shows */
    f->way = store_over(NULL, false);
    const pi2_weight_store_options options = {
        .layout = &f->layout, .path = "none", .store = f->way, .sequence = f->sequence, .sequence_count = EXTENTS,
        .head_begin = HEAD_BEGIN, .pass_end = EXTENTS,
        .by_neuron = f->by_neuron, .resident = f->resident, .resident_memory = f->memory,
        .resident_loaded = true, .ring = f->ring, .ring_bytes = RING_BYTES, .may_give_back = true };
    if (pi2_weight_store_create(&options, &f->store) != PI2_OK) fail_msg("%s", pi2_error_text());
}

static void end(fixture *f) {
    pi2_weight_store_free(f->store);
    pi2_store_free(f->way);
    pi2_pages_release(f->memory, (size_t)EXTENTS * EXTENT_BYTES);
    pi2_pages_release(f->ring, RING_BYTES);
}

static void test_small_steps(void **state) {
    (void)state;
    fixture f;
    make(&f);
    assert_in_range(pi2_store_find_bounds(f.way).piece_bytes, EXTENT_BYTES, 2 * EXTENT_BYTES);
    assert_int_equal(pi2_store_away_bytes(f.way), 0);
    uint64_t away = 0;
    for (int i = 0; i < 20; i++) {
        const uint64_t given = pi2_store_give_back(f.way, UINT32_MAX, 1);
        assert_in_range(given, 1, 2 * EXTENT_BYTES);
        away += given;
        /* The buffer's own memory was given back too, and is not counted. */
        assert_int_equal(pi2_store_away_bytes(f.way), away + RING_BYTES);
    }
    end(&f);
}

/* What has come home and was not read yet is told of, also after a look that found nothing. */
static void test_what_came_home_is_unread(void **state) {
    (void)state;
    fixture f;
    make(&f);
    assert_int_equal(pi2_store_unread_bytes(f.way), 0);
    const uint64_t given = pi2_store_give_back(f.way, UINT32_MAX, 5 * EXTENT_BYTES);
    assert_true(given > 0);
    assert_int_equal(pi2_store_unread_bytes(f.way), 0);
    assert_true(pi2_store_take_again(f.way, UINT32_MAX, EXTENTS * EXTENT_BYTES) > 0);
    assert_int_equal(pi2_store_unread_bytes(f.way), given + RING_BYTES); /* what left made room for the ring, too */
    assert_int_equal(pi2_store_unread_bytes(f.way), given + RING_BYTES);
    end(&f);
}

static void test_the_buffer_takes_its_memory_at_once(void **state) {
    (void)state;
    fixture f;
    make(&f);
    const uint8_t *ring = f.ring;
    assert_int_equal(ring[0], 0xff);
    assert_true(pi2_store_give_back(f.way, UINT32_MAX, 1) > 0);
    for (size_t at = 0; at < RING_BYTES; at += pi2_page_bytes()) {
        if (ring[at]) fail_msg("the page at %zu was not touched", at);
    }
    end(&f);
}

/* What streams, and what does no more when all came home. */
static void test_streams(void **state) {
    (void)state;
    fixture f;
    make(&f);
    assert_false(pi2_weight_store_streams(f.store));
    assert_true(pi2_store_give_back(f.way, UINT32_MAX, 1) > 0);
    assert_true(pi2_weight_store_streams(f.store));
    assert_true(pi2_store_take_again(f.way, UINT32_MAX, EXTENTS * EXTENT_BYTES) > 0);
    assert_false(pi2_weight_store_streams(f.store));
    end(&f);
}

/* Bytes that passes need are counted once each, whatever they do without. */
static void test_needed_bytes(void **state) {
    (void)state;
    static const struct { pi2_weight_store_pass pass; uint32_t extents; } passes[] = {
        { { .with_head = true }, EXTENTS }, { { .with_head = false }, HEAD_BEGIN },
        { { .with_head = true, .by_neuron = true }, EXTENTS - BY_NEURON },
        { { .with_head = false, .by_neuron = true }, HEAD_BEGIN - BY_NEURON } };
    fixture f;
    make(&f);
    uint64_t before = 0;
    for (size_t i = 0; i < sizeof passes / sizeof passes[0]; i++) {
        pi2_store_counters counters;
        pi2_weight_store_begin_pass(f.store, &passes[i].pass);
        pi2_store_count(f.way, &counters);
        assert_int_equal(counters.needed_bytes - before, (uint64_t)passes[i].extents * EXTENT_BYTES);
        before = counters.needed_bytes;
    }
    end(&f);
}

/* While the ring serves others nothing begins to stream; the next pass has it, and gives what should have left. */
static void test_a_ring_that_is_lent(void **state) {
    (void)state;
    fixture f;
    make(&f);
    const pi2_weight_store_pass by_neuron = { .with_head = true, .by_neuron = true };
    pi2_weight_store_begin_pass(f.store, &(pi2_weight_store_pass){ .with_head = true });
    assert_false(pi2_weight_store_lend_ring(f.store)); /* a pass of all neurons streams */
    pi2_weight_store_begin_pass(f.store, &by_neuron);
    assert_true(pi2_weight_store_lend_ring(f.store));
    assert_int_equal(pi2_store_give_back(f.way, UINT32_MAX, EXTENT_BYTES), 0);
    assert_int_equal(((const uint8_t *)f.ring)[0], 0xff);
    pi2_weight_store_begin_pass(f.store, &by_neuron);
    assert_false(pi2_weight_store_lend_ring(f.store)); /* it is wanted */
    assert_true(pi2_store_give_back(f.way, UINT32_MAX, EXTENT_BYTES) > 0);
    pi2_weight_store_begin_pass(f.store, &by_neuron);
    assert_false(pi2_weight_store_lend_ring(f.store)); /* it is in use */
    assert_true(pi2_store_take_again(f.way, UINT32_MAX, EXTENTS * EXTENT_BYTES) > 0);
    pi2_weight_store_begin_pass(f.store, &by_neuron);
    assert_true(pi2_weight_store_lend_ring(f.store));
    end(&f);
}

/* Of every sixteenth of the pass about as much has left, after whatever was given back. */
static void test_what_leaves_is_spread(void **state) {
    (void)state;
    enum { PARTS = 16, PART = EXTENTS / PARTS };
    fixture f;
    make(&f);
    (void)pi2_store_give_back(f.way, UINT32_MAX, 1);
    for (int step = 0; step < 6; step++) {
        uint32_t least = PART, most = 0;
        for (uint32_t p = 0; p < PARTS; p++) {
            uint32_t gone = 0;
            for (uint32_t i = 0; i < PART; i++) gone += !f.resident[p * PART + i];
            if (gone < least) least = gone;
            if (gone > most) most = gone;
        }
        if (most > least + 2) fail_msg("step %d: %u of %d extents left one part, %u another", step, most, PART, least);
        (void)pi2_store_give_back(f.way, UINT32_MAX, 17 * EXTENT_BYTES);
    }
    end(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_small_steps),
                                        cmocka_unit_test(test_what_came_home_is_unread),
                                        cmocka_unit_test(test_the_buffer_takes_its_memory_at_once),
                                        cmocka_unit_test(test_streams),
                                        cmocka_unit_test(test_needed_bytes),
                                        cmocka_unit_test(test_a_ring_that_is_lent),
                                        cmocka_unit_test(test_what_leaves_is_spread) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
