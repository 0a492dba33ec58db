/* neuron_store_test.h: a store over a file of banks of two sizes, as the test of the store opens it. */
#ifndef PI2_TESTS_NEURON_CACHE_NEURON_STORE_TEST_H
#define PI2_TESTS_NEURON_CACHE_NEURON_STORE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/pages.h"
#include "neuron_cache/neuron_store.h"
#include "support/neuron_bank_file.h"
#include "support/store_over.h"

enum { BANKS = TEST_BANKS, LAYERS_RUN = 120, MOST_USED = 60,
       SHARED_BYTES = 40 * 8192 + 4096 /* and half a slot */ };

static char *path;
static pi2_neuron_bank banks_list[BANKS];
static const pi2_neuron_banks banks = { .banks = banks_list, .count = BANKS };

enum { COARSE = 8192, FINE = 81 * 64 /* begins anywhere in a page, and lies in two or three */ };
static uint32_t bundle_bytes = COARSE; /* of the larger ones in the file */

static uint32_t gap_units; /* of the stores that are opened */

typedef struct setup {
    pi2_neuron_store *store;
    pi2_reader *reader; /* the way's */
    pi2_store *way;
    void *memory;
    uint64_t bytes;
} setup;

/* Of the stores that are opened; NULL: they have none. */
static void *shared;

/* Whom the stores that are opened tell of uses; NULL: nobody. */
static void tell(void *user, const uint32_t *keys, uint32_t count);
static void (*told_to)(void *user, const uint32_t *keys, uint32_t count) = tell;
static void (*told_near)(void *user, const uint8_t *near, uint32_t count);
static void *told_user;
static const pi2_unit_rule *rule; /* of the stores that are opened; NULL: the default */

static pi2_status try_open_as(const char *method, uint64_t bytes, bool on_demand, bool keeps_nothing, setup *s) {
    *s = (setup){ .bytes = bytes };
    assert_int_equal(pi2_pages_reserve((size_t)bytes, false, "slots", &s->memory), PI2_OK);
    const pi2_reader_options reader = { .path = path, .method = method, .depth = 16 };
    if (pi2_reader_open(&reader, &s->reader) != PI2_OK) fail_msg("%s", pi2_error_text());
    s->way = store_over(s->reader, on_demand);
    const pi2_neuron_store_options options = { .banks = &banks, .path = path, .store = s->way,
                                               .memory = s->memory, .memory_bytes = bytes,
                                               .shared = shared, .shared_bytes = shared ? SHARED_BYTES : 0,
                                               .keeps_nothing = keeps_nothing, .gap_units = gap_units,
                                               .rule = rule,
                                               .on_use = told_user ? told_to : NULL,
                                               .on_near = told_user ? told_near : NULL, .on_use_user = told_user };
    return pi2_neuron_store_create(&options, &s->store);
}

static pi2_status try_open(const char *method, uint64_t bytes, setup *s) {
    return try_open_as(method, bytes, false, false, s);
}

static void close_store(setup *s) {
    pi2_neuron_store_free(s->store);
    pi2_store_free(s->way);
    pi2_pages_release(s->memory, (size_t)s->bytes);
}

#endif
