/*
 * Goal:   what the cache of experts fetches ahead never delays what is demanded, is joined when it is
 *         demanded, leaves first when it is not, and fails without ending anything.
 * Method: a file whose words say where they are; random demands that are foretold well or badly; hooks
 *         that hold reads back, watch their order and let them fail.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/pages.h"
#include "powerinfer2/status.h"
#include "storage/read_faults.h"
#include "support/expert_file.h"
#include "support/read_methods.h"
#include "support/store_over.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

static char *path;

typedef struct setup {
    pi2_expert_cache *cache;
    pi2_reader *reader; /* the store's */
    pi2_store *store;
    void *memory;
    size_t bytes;
} setup;

static setup open_cache(const char *method, const pi2_cache_policy *policy, uint32_t slots, uint32_t depth,
                        const pi2_read_hooks *hooks) {
    setup s = { .bytes = (size_t)(slots * pi2_expert_cache_slot_bytes(&expert_layout)) };
    assert_int_equal(pi2_pages_reserve(s.bytes, false, "slots", &s.memory), PI2_OK);
    const pi2_reader_options reader = { .path = path, .method = method, .depth = depth };
    if (pi2_reader_open_with_hooks(&reader, hooks, &s.reader) != PI2_OK) fail_msg("%s", pi2_error_text());
    s.store = store_over(s.reader, false);
    const pi2_expert_cache_options options = { .layout = &expert_layout, .path = path, .memory = s.memory,
                                               .bytes = slots < KEYS ? s.bytes
                                                        : pi2_expert_cache_all_bytes(&expert_layout),
                                               .policy = policy, .layer_keys = EXPERTS, .store = s.store };
    if (pi2_expert_cache_create(&options, &s.cache) != PI2_OK) fail_msg("%s", pi2_error_text());
    return s;
}

static void close_cache(setup *s) {
    pi2_expert_cache_free(s->cache);
    pi2_store_free(s->store);
    pi2_pages_release(s->memory, s->bytes);
}

static pi2_expert_cache_counters count(const setup *s) {
    pi2_expert_cache_counters counters;
    pi2_expert_cache_count(s->cache, &counters);
    return counters;
}

/* Kept and wasted never exceed what was fetched, and what was read is what was missed and what was fetched. */
static void check_counters(const setup *s, uint64_t foreseen) {
    const pi2_expert_cache_counters c = count(s);
    pi2_reader_counters reads;
    pi2_reader_count(s->reader, &reads);
    assert_int_equal(c.foreseen, foreseen);
    assert_true(c.foreseen_demanded <= c.foreseen);
    assert_true(c.ahead_kept + c.ahead_wasted <= c.ahead);
    assert_true(c.ahead_kept_bytes + c.ahead_wasted_bytes <= c.ahead_bytes);
    assert_true(c.hits + c.ahead_kept <= c.touches);
    assert_true(reads.bytes_read >= c.ahead_kept_bytes);
}

/* Demands that were foretold well or badly, under every policy, size and read method: the bytes are right. */
static void test_random(void **state) {
    (void)state;
    static const char *const methods[] = { "auto", "pread" };
    static const uint32_t sizes[] = { 2, 4, 9, 20, KEYS };
    uint64_t kept = 0, wasted = 0;
    for (size_t p = 0; p < pi2_cache_policy_count * 2; p++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            setup s = open_cache(methods[p % 2], pi2_cache_policies[p / 2], sizes[i], 1 + (uint32_t)(p + i) % 5, NULL);
            uint64_t random = p * 100 + i, foreseen = 0;
            uint32_t now[EXPERTS], next[EXPERTS], ahead[EXPERTS];
            uint32_t now_count = expert_choose(&random, 0, EXPERTS / 2, now);
            for (uint32_t d = 1; d < 50; d++) {
                const uint32_t next_count = expert_choose(&random, d % LAYERS, EXPERTS / 2, next);
                const bool well = pi2_tiny_random(&random) % 3 > 0;
                const uint32_t ahead_count = well ? next_count : expert_choose(&random, d % LAYERS, EXPERTS, ahead);
                if (well) memcpy(ahead, next, sizeof next);
                const uint32_t quarter = (sizes[i] < KEYS ? sizes[i] : KEYS) / 4;
                foreseen += ahead_count < quarter ? ahead_count : quarter;
                if (expert_run_demand(s.cache, now, NULL, now_count, ahead, ahead_count) != PI2_OK) {
                    fail_msg("%s", pi2_error_text());
                }
                memcpy(now, next, sizeof next);
                now_count = next_count;
            }
            check_counters(&s, foreseen);
            kept += count(&s).ahead_kept;
            wasted += count(&s).ahead_wasted;
            if (sizes[i] < 4) assert_int_equal(count(&s).ahead, 0);
            pi2_store_reset(s.store); /* with reads ahead in flight */
            if (expert_run_demand(s.cache, now, NULL, now_count, NULL, 0) != PI2_OK) fail_msg("%s", pi2_error_text());
            close_cache(&s);
        }
    }
    assert_true(kept > 0 && wasted > 0);
}

/* ---- with hooks: which reads come, in what order, and what they come to ---- */

typedef struct watch {
    pthread_mutex_t mutex;
    pthread_cond_t opened;
    size_t allowed, passed;      /* reads that may pass, and that did */
    uint32_t waiting;            /* reads that are held back */
    uint64_t offsets[256];       /* of those that passed */
    uint64_t bad_begin, bad_end; /* reads that begin here fail */
} watch;

static int64_t on_read(void *context, const pi2_read_operation *operation, int64_t result) {
    const uint64_t offset = operation->offset;
    watch *w = context;
    (void)pthread_mutex_lock(&w->mutex);
    w->waiting++;
    while (w->passed >= w->allowed) (void)pthread_cond_wait(&w->opened, &w->mutex);
    w->waiting--;
    if (w->passed < 256) w->offsets[w->passed] = offset;
    w->passed++;
    const bool bad = offset >= w->bad_begin && offset < w->bad_end;
    (void)pthread_mutex_unlock(&w->mutex);
    return bad ? -EIO : result;
}

static void watch_allow(watch *w, size_t more) {
    (void)pthread_mutex_lock(&w->mutex);
    w->allowed += more;
    (void)pthread_mutex_unlock(&w->mutex);
    (void)pthread_cond_broadcast(&w->opened);
}

static void watch_init(watch *w) {
    memset(w, 0, sizeof *w);
    assert_int_equal(pthread_mutex_init(&w->mutex, NULL), 0);
    assert_int_equal(pthread_cond_init(&w->opened, NULL), 0);
    w->allowed = 1000000;
}

static void watch_free(watch *w) {
    (void)pthread_cond_destroy(&w->opened);
    (void)pthread_mutex_destroy(&w->mutex);
}

/* A cache of 24 slots that reads one at a time; from now on every read is held back. */
static setup open_held(const char *method, watch *w, const pi2_read_hooks *hooks) {
    watch_init(w);
    setup s = open_cache(method, pi2_cache_policy_find("lru"), 24, 1, hooks);
    (void)pthread_mutex_lock(&w->mutex);
    w->passed = w->allowed = 0;
    (void)pthread_mutex_unlock(&w->mutex);
    return s;
}

static uint64_t first_byte(uint32_t key) { return expert_extents[key * EXTENTS].file_offset; }
static uint64_t end_byte(uint32_t key) {
    const pi2_extent *last = &expert_extents[key * EXTENTS + EXTENTS - 1];
    return last->file_offset + pi2_extent_read_bytes(last);
}

/* Which key a read is of. */
static uint32_t key_of(uint64_t offset) {
    uint32_t key = 0;
    while (key + 1 < KEYS && first_byte(key + 1) <= offset) key++;
    return key;
}

/* Polls until all of the experts arrived; lets one held read pass at a time, or all. */
static void await_all(const setup *s, watch *w, const uint32_t *chosen, uint32_t chosen_count, bool one_by_one) {
    for (;;) {
        int mark = 0;
        if (pi2_expert_cache_poll(s->cache, &mark) != PI2_OK) fail_msg("%s", pi2_error_text());
        uint32_t left = 0;
        for (uint32_t k = 0; k < chosen_count; k++) {
            for (uint32_t x = 0; x < EXTENTS; x++) left += !pi2_expert_cache_arrived(s->cache, chosen[k], x);
        }
        if (left == 0) return;
        watch_allow(w, one_by_one ? 1 : 1000);
        pi2_expert_cache_wait(s->cache, mark);
    }
}

/*
 * One read at a time, held back and let pass one by one: all that is demanded is read before what is likely; what is
 * demanded later passes likely reads that were asked for before it; what nobody demanded is not read, but for
 * what had begun.
 */
static void test_demanded_first(void **state) {
    (void)state;
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        if (!test_has_read_method(*method, path)) continue;
        watch w;
        const pi2_read_hooks hooks = { .context = &w, .read_result = on_read };
        setup s = open_held(*method, &w, &hooks);
        static const uint32_t first[] = { 0, 1 }, likely[] = { 11, 9, 8, 10 }, second[] = { 9, 13 };
        pi2_expert_cache_demand(s.cache, first, NULL, 2);
        pi2_expert_cache_look_ahead(s.cache, likely, 4);
        await_all(&s, &w, first, 2, true);
        const size_t demanded_reads = w.passed;
        for (size_t i = 0; i < demanded_reads; i++) assert_true(key_of(w.offsets[i]) < 2);
        for (uint32_t k = 0; k < 2; k++) pi2_expert_cache_release(s.cache, first[k]);
        for (uint32_t begun = 0; begun == 0;) { /* the first likely read has begun, and is held back */
            (void)pthread_mutex_lock(&w.mutex);
            begun = w.waiting;
            (void)pthread_mutex_unlock(&w.mutex);
        }
        pi2_expert_cache_demand(s.cache, second, NULL, 2);
        await_all(&s, &w, second, 2, false);
        for (uint32_t k = 0; k < 2; k++) {
            for (uint32_t x = 0; x < EXTENTS; x++) assert_int_equal(expert_use_extent(s.cache, second[k], x), PI2_OK);
            pi2_expert_cache_release(s.cache, second[k]);
        }
        const pi2_expert_cache_counters c = count(&s);
        assert_int_equal(c.ahead, 4);
        assert_int_equal(c.ahead_kept, 1);
        close_cache(&s);
        assert_int_equal(key_of(w.offsets[demanded_reads]), 11);
        for (size_t i = demanded_reads + 1; i < w.passed; i++) {
            assert_true(key_of(w.offsets[i]) == 9 || key_of(w.offsets[i]) == 13);
        }
        watch_free(&w);
    }
}

/*
 * A read ahead that fails is nobody's failure: the run goes on, and who demands the expert later reads it
 * again. If that fails too it is told, with the place.
 */
static void test_failed_read_ahead(void **state) {
    (void)state;
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        if (!test_has_read_method(*method, path)) continue;
        for (uint32_t slots = 12; slots <= KEYS; slots += KEYS - 12) {
            watch w;
            watch_init(&w);
            const pi2_read_hooks hooks = { .context = &w, .read_result = on_read };
            setup s = open_cache(*method, pi2_cache_policy_find("auto"), slots, 4, &hooks);
            static const uint32_t zero[] = { 0, 1 }, bad[] = { 12 }, one[] = { 13 }, both[] = { 12, 13 };
            w.bad_begin = first_byte(12);
            w.bad_end = end_byte(12);
            if (expert_run_demand(s.cache, zero, NULL, 2, bad, 1) != PI2_OK) fail_msg("%s", pi2_error_text());
            for (int i = 0; i < 100; i++) { /* until the failure is there, and noted */
                int mark = 0;
                assert_int_equal(pi2_expert_cache_poll(s.cache, &mark), PI2_OK);
                pi2_expert_cache_wait(s.cache, mark);
            }
            assert_int_equal(count(&s).ahead, 1);
            assert_int_equal(count(&s).ahead_wasted, 1);
            if (expert_run_demand(s.cache, one, NULL, 1, zero, 2) != PI2_OK) fail_msg("%s", pi2_error_text());
            assert_int_equal(expert_run_demand(s.cache, both, NULL, 2, NULL, 0), PI2_ERR_IO);
            assert_non_null(strstr(pi2_error_text(), path));
            assert_non_null(strstr(pi2_error_text(), "cannot read at byte"));
            pi2_store_reset(s.store);
            (void)pthread_mutex_lock(&w.mutex);
            w.bad_end = 0;
            (void)pthread_mutex_unlock(&w.mutex);
            if (expert_run_demand(s.cache, both, NULL, 2, NULL, 0) != PI2_OK) fail_msg("%s", pi2_error_text());
            close_cache(&s);
            watch_free(&w);
        }
    }
}

/* What was foretold does not leave for what is only fetched, nor before the policy has anything else. */
static void test_foreseen_stays(void **state) {
    (void)state;
    setup s = open_cache("auto", pi2_cache_policy_find("lru"), 8, 4, NULL);
    static const uint32_t a[] = { 0, 1, 2, 3 }, b[] = { 8, 9, 10, 11 }, c[] = { 16, 17 };
    static const uint32_t foretold[] = { 0, 1 };
    assert_int_equal(expert_run_demand(s.cache, a, NULL, 4, NULL, 0), PI2_OK);
    assert_int_equal(expert_run_demand(s.cache, b, NULL, 4, foretold, 2), PI2_OK); /* full; a is the oldest */
    const uint64_t hits = count(&s).hits;
    pi2_expert_cache_demand(s.cache, c, NULL, 2); /* forgets what was foretold, so 0 and 1 leave */
    pi2_store_reset(s.store);
    assert_int_equal(expert_run_demand(s.cache, foretold, NULL, 2, NULL, 0), PI2_OK);
    assert_int_equal(count(&s).hits, hits);
    close_cache(&s);
    s = open_cache("auto", pi2_cache_policy_find("lru"), 8, 4, NULL);
    static const uint32_t two_ahead[] = { 16, 0 };
    assert_int_equal(expert_run_demand(s.cache, a, NULL, 4, NULL, 0), PI2_OK);
    assert_int_equal(expert_run_demand(s.cache, b, NULL, 4, two_ahead, 2), PI2_OK); /* 16 leaves 0, takes 1 */
    assert_int_equal(count(&s).ahead, 1);
    assert_int_equal(expert_run_demand(s.cache, two_ahead + 1, NULL, 1, NULL, 0), PI2_OK);
    assert_int_equal(count(&s).hits, 1);
    close_cache(&s);
}

/* What was foretold for a later layer than the demanded one goes on; what was for that layer, in vain, does not. */
static void test_two_layers(void **state) {
    (void)state;
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        if (!test_has_read_method(*method, path)) continue;
        watch w;
        const pi2_read_hooks hooks = { .context = &w, .read_result = on_read };
        setup s = open_held(*method, &w, &hooks);
        static const uint32_t first[] = { 0 }, likely[] = { 8, 9, 16 }, second[] = { 10 }, third[] = { 16 };
        pi2_expert_cache_demand(s.cache, first, NULL, 1);
        pi2_expert_cache_look_ahead(s.cache, likely, 3);
        await_all(&s, &w, first, 1, true);
        pi2_expert_cache_release(s.cache, 0);
        pi2_expert_cache_demand(s.cache, second, NULL, 1);
        await_all(&s, &w, second, 1, false);
        pi2_expert_cache_release(s.cache, 10);
        await_all(&s, &w, third, 1, false); /* it was not demanded yet */
        pi2_expert_cache_demand(s.cache, third, NULL, 1);
        for (uint32_t x = 0; x < EXTENTS; x++) assert_int_equal(expert_use_extent(s.cache, 16, x), PI2_OK);
        pi2_expert_cache_release(s.cache, 16);
        const pi2_expert_cache_counters c = count(&s);
        assert_int_equal(c.ahead, 3);
        assert_int_equal(c.ahead_kept, 1);
        assert_int_equal(c.foreseen, 2); /* of the next layer */
        assert_int_equal(c.hits, 0);
        close_cache(&s);
        for (size_t i = 0; i < w.passed; i++) assert_int_not_equal(key_of(w.offsets[i]), 9);
        watch_free(&w);
    }
}

/*
 * A likely read that nobody took back, since it is for a later layer, waits until what was demanded after it has been
 * read. One read at a time, so that the order is that of the priorities.
 */
static void test_likely_reads_wait(void **state) {
    (void)state;
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        if (!test_has_read_method(*method, path)) continue;
        watch w;
        const pi2_read_hooks hooks = { .context = &w, .read_result = on_read };
        setup s = open_held(*method, &w, &hooks);
        static const uint32_t first[] = { 0 }, likely[] = { 16, 17, 18 }, second[] = { 10, 12 };
        pi2_expert_cache_demand(s.cache, first, NULL, 1);
        pi2_expert_cache_look_ahead(s.cache, likely, 3);
        await_all(&s, &w, first, 1, true);
        const size_t first_reads = w.passed;
        pi2_expert_cache_release(s.cache, 0);
        for (uint32_t begun = 0; begun == 0;) { /* the first likely read has begun, and is held back */
            (void)pthread_mutex_lock(&w.mutex);
            begun = w.waiting;
            (void)pthread_mutex_unlock(&w.mutex);
        }
        pi2_expert_cache_demand(s.cache, second, NULL, 2);
        await_all(&s, &w, second, 2, true);
        for (uint32_t k = 0; k < 2; k++) pi2_expert_cache_release(s.cache, second[k]);
        await_all(&s, &w, likely, 3, false);
        close_cache(&s);
        assert_int_equal(key_of(w.offsets[first_reads]), 16); /* that had begun */
        uint32_t demanded_left = 0;
        for (size_t i = first_reads + 1; i < w.passed; i++) {
            const uint32_t key = key_of(w.offsets[i]);
            demanded_left += key == 10 || key == 12;
        }
        assert_true(demanded_left >= 2);
        for (size_t i = first_reads + 1; i <= first_reads + demanded_left; i++) {
            if (key_of(w.offsets[i]) >= 16) fail_msg("read %zu is likely only, and came before one that is certain", i);
        }
        watch_free(&w);
    }
}

/* What was fetched ahead in vain leaves before anything that was demanded, however long ago that was. */
static void test_wasted_leaves_first(void **state) {
    (void)state;
    setup s = open_cache("pread", pi2_cache_policy_find("lru"), 8, 4, NULL);
    static const uint32_t a[] = { 0, 1, 2, 3 }, b[] = { 8, 9, 10 }, c[] = { 17 }, wasted[] = { 16 };
    assert_int_equal(expert_run_demand(s.cache, a, NULL, 4, NULL, 0), PI2_OK);
    assert_int_equal(expert_run_demand(s.cache, b, NULL, 3, wasted, 1), PI2_OK); /* the cache is full */
    for (uint32_t x = 0; x < EXTENTS; x++) {
        while (!pi2_expert_cache_arrived(s.cache, 16, x)) {
            int mark = 0;
            assert_int_equal(pi2_expert_cache_poll(s.cache, &mark), PI2_OK);
            if (!pi2_expert_cache_arrived(s.cache, 16, x)) pi2_expert_cache_wait(s.cache, mark);
        }
    }
    assert_int_equal(expert_run_demand(s.cache, c, NULL, 1, NULL, 0), PI2_OK); /* its layer came, without it */
    assert_int_equal(count(&s).ahead_wasted, 1);
    const uint64_t hits = count(&s).hits;
    assert_int_equal(expert_run_demand(s.cache, a, NULL, 4, NULL, 0), PI2_OK);
    assert_int_equal(count(&s).hits, hits + 4);
    close_cache(&s);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    path = test_folder_path("experts");
    expert_layout_make();
    expert_file_write(path, 0);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random), cmocka_unit_test(test_demanded_first),
        cmocka_unit_test(test_failed_read_ahead), cmocka_unit_test(test_foreseen_stays),
        cmocka_unit_test(test_two_layers), cmocka_unit_test(test_likely_reads_wait),
        cmocka_unit_test(test_wasted_leaves_first),
    };
    return cmocka_run_group_tests_name("looking ahead in the expert cache", tests, set_up, test_folder_end);
}
