/*
 * Goal:   every member runs once a run, barriers order memory, with futexes and with condition
 *         variables, spinning and sleeping, with fewer and with more members than CPUs; runs of a
 *         shared team take turns.
 * Method: members write to their own slot and read their neighbours' after each barrier.
 */
#if defined(__linux__)
#define _GNU_SOURCE /* sched_setaffinity */
#include <sched.h>
#endif
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/cgroup.h"
#include "base/clock.h"
#include "base/pages.h"
#include "base/shared_team.h"
#include "base/sleepers.h"
#include "base/team.h"

enum { MOST_MEMBERS = 5, ROUNDS = 120, RUNS = 20 };

typedef struct round_test {
    pi2_team *team;
    unsigned slots[MOST_MEMBERS];  /* plain memory: only the barriers order it */
    unsigned wrong[MOST_MEMBERS];
    unsigned calls[MOST_MEMBERS];
    unsigned first_value;
    bool sleeps;
} round_test;

static void nap(long nanoseconds) {
    const struct timespec time = {.tv_sec = 0, .tv_nsec = nanoseconds};
    (void)nanosleep(&time, NULL);
}

static void run_rounds(void *argument, unsigned member_index, unsigned member_count) {
    round_test *test = argument;
    test->calls[member_index]++;
    for (unsigned round = 0; round < ROUNDS; round++) {
        const unsigned value = test->first_value + round;
        test->slots[member_index] = value;
        /* A late member now and then, so that the others leave the spinning loop. */
        if (test->sleeps && round % 100 == member_index) nap(300000);
        pi2_team_barrier(test->team, member_index);
        for (unsigned i = 0; i < member_count; i++) {
            if (test->slots[i] != value) test->wrong[member_index]++;
        }
        pi2_team_barrier(test->team, member_index);
    }
}

static void check_team(unsigned member_count, const pi2_team_options *options) {
    round_test test = {.sleeps = true};
    assert_int_equal(pi2_team_create(member_count, options, &test.team), PI2_OK);
    assert_int_equal(pi2_team_member_count(test.team), member_count);
    for (unsigned run = 0; run < RUNS; run++) {
        test.first_value = run * 1000;
        test.sleeps = run % 10 == 0;
        pi2_team_run(test.team, run_rounds, &test);
        if (run % 16 == 0) nap(200000); /* members fall asleep between runs */
        for (unsigned i = 0; i < member_count; i++) {
            assert_int_equal(test.slots[i], test.first_value + ROUNDS - 1);
        }
    }
    for (unsigned i = 0; i < member_count; i++) {
        assert_int_equal(test.wrong[i], 0);
        assert_int_equal(test.calls[i], RUNS);
    }
    pi2_team_destroy(test.team);
}

static void test_rounds(void **state) {
    (void)state;
    for (unsigned members = 1; members <= MOST_MEMBERS; members++) {
        for (int kind = 0; kind < 8; kind++) {
            const pi2_team_options options = {.portable_sleep = kind & 1, .never_spin = (kind & 2) != 0,
                                              .sleepers = kind & 4 ? members / 2 : 0};
            check_team(members, &options);
        }
    }
    check_team(2, NULL);
    check_team(3, &(pi2_team_options){.sleepers = 7});
}

/* One runs a shared team from two threads: what a run's members write is theirs alone until it ends. */
typedef struct sharer {
    pi2_team *team;
    pthread_t thread;
    round_test test;
} sharer;

static void *share(void *argument) {
    sharer *self = argument;
    self->test.team = self->team;
    for (unsigned run = 0; run < RUNS; run++) {
        self->test.first_value = run * 1000;
        pi2_team_run(self->team, run_rounds, &self->test);
    }
    return NULL;
}

static void test_shared_team(void **state) {
    (void)state;
    pi2_team *first = NULL, *second = NULL, *other = NULL, *with_sleepers = NULL;
    assert_int_equal(pi2_team_join(0, 0, &first), PI2_ERR_INVALID);
    assert_int_equal(pi2_team_join(PI2_TEAM_MAX_MEMBERS + 1, 0, &first), PI2_ERR_INVALID);
    assert_int_equal(pi2_team_join(3, 0, &first), PI2_OK);
    assert_int_equal(pi2_team_join(3, 0, &second), PI2_OK);
    assert_int_equal(pi2_team_join(2, 0, &other), PI2_OK);
    assert_ptr_equal(first, second);
    assert_ptr_not_equal(first, other);
    assert_int_equal(pi2_team_join(3, 1, &with_sleepers), PI2_OK);
    assert_ptr_not_equal(first, with_sleepers);
    pi2_team_leave(with_sleepers);
    static sharer sharers[2];
    for (int i = 0; i < 2; i++) {
        sharers[i].team = first;
        assert_int_equal(pthread_create(&sharers[i].thread, NULL, share, &sharers[i]), 0);
    }
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_join(sharers[i].thread, NULL), 0);
    for (unsigned m = 0; m < 3; m++) {
        for (int i = 0; i < 2; i++) {
            assert_int_equal(sharers[i].test.wrong[m], 0);
            assert_int_equal(sharers[i].test.calls[m], RUNS);
        }
    }
    pi2_team_leave(first);
    round_test test = { .team = second };
    pi2_team_run(second, run_rounds, &test); /* it is there as long as one has it */
    assert_int_equal(test.calls[2], 1);
    pi2_team_leave(second);
    pi2_team_leave(other);
    pi2_team_leave(NULL);
}

enum { PATIENCE = 5000 }; /* of a millisecond each */
static atomic_int begun;

static void meet(void *met, unsigned member_index, unsigned member_count) {
    (void)member_index;
    (void)member_count;
    const struct timespec pause = { .tv_nsec = 1000000 };
    atomic_fetch_add(&begun, 1);
    for (int i = 0; i < PATIENCE && atomic_load(&begun) < 2; i++) (void)nanosleep(&pause, NULL);
    *(bool *)met = atomic_load(&begun) == 2;
}

typedef struct single {
    pthread_t thread;
    pi2_team *team;
    bool met;
} single;

static void *run_alone(void *argument) {
    single *self = argument;
    pi2_team_run(self->team, meet, &self->met);
    return NULL;
}

/* With one thread each nobody waits for another: both runs are under way at once. */
static void test_single_threads_share_nothing(void **state) {
    (void)state;
    static single singles[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pi2_team_join(1, 0, &singles[i].team), PI2_OK);
        assert_int_equal(pthread_create(&singles[i].thread, NULL, run_alone, &singles[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(singles[i].thread, NULL), 0);
        pi2_team_leave(singles[i].team);
    }
    assert_true(singles[0].met && singles[1].met);
}

static void test_unused_team(void **state) {
    (void)state;
    pi2_team *team = NULL;
    assert_int_equal(pi2_team_create(3, NULL, &team), PI2_OK);
    pi2_team_destroy(team);
    pi2_team_destroy(NULL);
}

static void test_bad_arguments(void **state) {
    (void)state;
    pi2_team *team = (pi2_team *)1;
    assert_int_equal(pi2_team_create(0, NULL, &team), PI2_ERR_INVALID);
    assert_null(team);
    assert_int_equal(pi2_team_create(PI2_TEAM_MAX_MEMBERS + 1, NULL, &team), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "257"));
    /* A stack that no system gives: the threads cannot start, and the error says so. */
    const pi2_team_options options = {.stack_bytes = SIZE_MAX / 4 & ~(size_t)0xffff};
    assert_int_equal(pi2_team_create(2, &options, &team), PI2_ERR_MEMORY);
    assert_null(team);
    assert_non_null(strstr(pi2_error_text(), "thread 2 of 2"));
}

static void test_wait_times_out(void **state) {
    (void)state;
    for (int by_condition = 0; by_condition < 2; by_condition++) {
        pi2_sleepers sleepers;
        assert_int_equal(pi2_sleepers_init(&sleepers, by_condition != 0), PI2_OK);
        _Atomic int word = 7;
        const uint64_t begin = pi2_clock_ns();
        assert_false(pi2_wait_for_change(&sleepers, &word, 7, 0, 2000000));
        assert_true(pi2_clock_ns() - begin >= 2000000);
        assert_true(pi2_wait_for_change(&sleepers, &word, 6, 0, 0));
        assert_int_equal(atomic_load(&sleepers.count), 0);
        pi2_sleepers_destroy(&sleepers);
    }
}

static void test_allowed_cpus(void **state) {
    (void)state;
#if defined(__linux__)
    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof all, &all) != 0) skip(); /* more than 1024 processor numbers */
    const unsigned count = (unsigned)CPU_COUNT(&all), quota = pi2_cgroup_cpu_quota("");
    assert_int_equal(pi2_allowed_cpus(), quota && quota < count ? quota : count);
    size_t last = CPU_SETSIZE - 1; /* a number that is larger than the count, where others are */
    while (!CPU_ISSET(last, &all)) last--;
    CPU_ZERO(&one);
    CPU_SET(last, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    const unsigned allowed = pi2_allowed_cpus(), threads = pi2_default_threads();
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    assert_int_equal(allowed, 1);
    assert_int_equal(threads, 1);
#else
    skip(); /* there is no affinity here to compare with */
#endif
}

static void test_pages(void **state) {
    (void)state;
    const size_t sizes[] = {1, 4096, 100001, 5u << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int huge = 0; huge < 2; huge++) {
            void *pages = NULL;
            assert_int_equal(pi2_pages_reserve(sizes[i], huge != 0, "test", &pages), PI2_OK);
            assert_int_equal((uintptr_t)pages % pi2_page_bytes(), 0);
            if (huge && sizes[i] >= 2u << 20) assert_int_equal((uintptr_t)pages % (2u << 20), 0);
            unsigned char *bytes = pages;
            for (size_t k = 0; k < sizes[i]; k++) assert_int_equal(bytes[k], 0);
            memset(bytes, 0xab, sizes[i]);
            assert_int_equal(pi2_pages_discard(bytes, sizes[i]), PI2_OK);
            const size_t whole = sizes[i] / pi2_page_bytes() * pi2_page_bytes();
            for (size_t k = 0; k < sizes[i]; k++) {
                assert_int_equal(bytes[k], k < whole ? 0 : 0xab);
            }
            pi2_pages_release(pages, sizes[i]);
        }
    }
    void *pages = (void *)1;
    assert_int_equal(pi2_pages_reserve(SIZE_MAX - 5, true, "weights", &pages), PI2_ERR_MEMORY);
    assert_null(pages);
    assert_non_null(strstr(pi2_error_text(), "weights"));
    assert_int_equal(pi2_pages_reserve(0, false, "nothing", &pages), PI2_ERR_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounds),       cmocka_unit_test(test_shared_team),
        cmocka_unit_test(test_single_threads_share_nothing), cmocka_unit_test(test_unused_team),
        cmocka_unit_test(test_bad_arguments), cmocka_unit_test(test_wait_times_out),
        cmocka_unit_test(test_allowed_cpus), cmocka_unit_test(test_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
