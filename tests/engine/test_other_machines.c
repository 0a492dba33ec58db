/*
 * Goal:   what is chosen from the machine fits every machine: 384 processors with sparse numbers, fewer
 *         processes than processors, pages of 16 and 64 KB; the text is the same, and what was lowered is
 *         said in one line.
 * Method: this program's own sched_getaffinity() and sysconf() take the place of libc's.
 */
#if defined(__linux__)
#define _GNU_SOURCE /* sched_getaffinity, RTLD_NEXT */
#endif
#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory_limit.h"
#include "base/pages.h"
#include "base/team.h"
#include "engine/engine_internal.h"
#include "support/emulator.h"
#include "support/sanitizer.h"
#include "support/session_run.h"
#include "support/small_budget.h"
#include "support/streamed_model.h"
#include "support/temporary_files.h"

enum { NUMBER_STEP = 8, LEAST_MASK_BYTES = 512, PLENTY = PI2_TEST_PLENTY_BYTES };

static char *model_path, *cluster_path;
static unsigned cpus = 2;
static long page_bytes = 4096;
static unsigned lines_told;
static char last_line[512];

/* Processors 0, 8, 16, ...: most of the numbers below the largest are offline or not ours. */
int sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *mask) {
    (void)process;
    if (bytes < LEAST_MASK_BYTES) {
        errno = EINVAL;
        return -1;
    }
    memset(mask, 0, bytes);
    for (unsigned i = 0; i < cpus; i++) CPU_SET_S(i * NUMBER_STEP, bytes, mask);
    return 0;
}

long sysconf(int name) {
    if (name == _SC_PAGESIZE) return page_bytes;
    long (*real)(int) = NULL;
    void *address = dlsym(RTLD_NEXT, "sysconf");
    memcpy(&real, &address, sizeof real);
    return real ? real(name) : -1;
}

static void on_log(void *user, const char *line) {
    (void)user;
    if (!strstr(line, "threads compute")) return;
    lines_told++;
    (void)snprintf(last_line, sizeof last_line, "%s", line);
}

static pi2_engine *open_engine(uint32_t threads, uint64_t memory_bytes) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = model_path;
    options.cluster_path = cluster_path;
    options.context_tokens = 64;
    options.thread_count = threads;
    options.memory_bytes = memory_bytes;
    options.callbacks.log = on_log;
    pi2_engine *engine = NULL;
    lines_told = 0;
    *last_line = '\0';
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    return engine;
}

static void run_and_close(pi2_engine *engine, pi2_session_run *run) {
    pi2_session_run_make(engine, 5, 2, run);
    pi2_engine_close(engine);
}

static void test_more_processors_than_threads(void **state) {
    (void)state;
    pi2_session_run want, got;
    run_and_close(open_engine(1, PLENTY), &want);
    assert_int_equal(lines_told, 0);
    cpus = 384;
    assert_int_equal(pi2_allowed_cpus(), 384);
    static const uint32_t asked[] = { 0, 300, 1024 };
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        pi2_engine *engine = open_engine(asked[i], PLENTY);
        assert_int_equal(pi2_engine_get_report(engine)->thread_count, PI2_THREADS_MOST);
        assert_int_equal(lines_told, 1);
        assert_string_equal(last_line, asked[i] == 300 ? "256 of 300 threads compute: more are not used"
                                                       : "256 of 384 threads compute: more are not used");
        if (i == 0) {
            run_and_close(engine, &got);
            pi2_session_run_compare(&want, &got, i);
            pi2_session_run_free(&got);
        } else {
            pi2_engine_close(engine);
        }
    }
    cpus = 256;
    pi2_engine_close(open_engine(0, PLENTY));
    assert_int_equal(lines_told, 0);
    cpus = 2;
    pi2_session_run_free(&want);
}

/* A budget that is enough for two processors is enough for 384: fewer threads compute, unless they were named. */
static void test_threads_give_way_to_the_budget(void **state) {
    (void)state;
    /* Their memory is more than these budgets differ by. */
    if (PI2_UNDER_ASAN || PI2_UNDER_TSAN || PI2_UNDER_EMULATOR) skip();
    pi2_session_run want, got;
    run_and_close(open_engine(1, PLENTY), &want);
    uint64_t peak = 0, current = 0;
    assert_true(pi2_process_memory(&peak, &current));
    if (!current) skip(); /* the system does not tell what a process holds */
    cpus = 384;
    pi2_engine *engine = open_engine(0, current + 30000000);
    const uint32_t threads = pi2_engine_get_report(engine)->thread_count;
    assert_in_range(threads, 8, 128);
    assert_int_equal(lines_told, 1);
    assert_non_null(strstr(last_line, "too much of the memory"));
    run_and_close(engine, &got);
    pi2_session_run_compare(&want, &got, 0);
    pi2_session_run_free(&got);
    engine = open_engine(threads + 9, current + 60000000);
    assert_int_equal(pi2_engine_get_report(engine)->thread_count, threads + 9);
    pi2_engine_close(engine);
    cpus = 2;
    pi2_session_run_free(&want);
}

static void test_page_sizes(void **state) {
    (void)state;
    pi2_session_run want, got;
    run_and_close(open_engine(1, PLENTY), &want);
    static const long sizes[] = { 16384, 65536 };
    for (size_t i = 0; i < 2; i++) {
        page_bytes = sizes[i];
        assert_int_equal(pi2_page_bytes(), sizes[i]);
        pi2_engine_options options;
        pi2_engine_options_init(&options);
        options.model_path = model_path;
        options.cluster_path = cluster_path;
        options.context_tokens = 64;
        options.thread_count = 2;
        pi2_engine *engine = NULL;
        if (pi2_small_budget_open(&options, 13000000, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
        if (!PI2_UNDER_EMULATOR) assert_false(engine->run.plan.memory.everything_resident);
        assert_int_equal(engine->memory.weights.bytes % PI2_EXTENT_ALIGNMENT, 0);
        run_and_close(engine, &got);
        pi2_session_run_compare(&want, &got, i);
        pi2_session_run_free(&got);
    }
    page_bytes = 4096;
    pi2_session_run_free(&want);
}

/* What is given back is whole pages of the system, never a byte of a neighbour. */
static void test_discarding_by_page_size(void **state) {
    (void)state;
    static const long sizes[] = { 4096, 16384, 65536 };
    for (size_t i = 0; i < 3; i++) {
        page_bytes = sizes[i];
        const size_t page = (size_t)sizes[i], bytes = 4 * page + 100;
        void *pages = NULL;
        assert_int_equal(pi2_pages_reserve(bytes, false, "test", &pages), PI2_OK);
        uint8_t *all = pages;
        memset(all, 0xab, bytes);
        assert_int_equal(pi2_pages_discard(all + 50, 3 * page), PI2_OK);
        const uintptr_t first = ((uintptr_t)all + 50 + page - 1) / page * page;
        const uintptr_t end = ((uintptr_t)all + 50 + 3 * page) / page * page;
        for (size_t k = 0; k < bytes; k++) {
            const uintptr_t at = (uintptr_t)all + k;
            if (all[k] != (at >= first && at < end ? 0 : 0xab)) fail_msg("byte %zu with pages of %zu", k, page);
        }
        pi2_pages_release(pages, bytes);
    }
    page_bytes = 4096;
}

static int set_up(void **state) {
    pi2_tiny_model_options options;
    pi2_streamed_model_options_init(&options);
    (void)test_folder_begin(state);
    model_path = test_folder_path("tiny.gguf");
    cluster_path = test_folder_path("tiny.pi2");
    return pi2_tiny_model_write_apart(&options, model_path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_more_processors_than_threads), cmocka_unit_test(test_threads_give_way_to_the_budget),
        cmocka_unit_test(test_page_sizes), cmocka_unit_test(test_discarding_by_page_size),
    };
    return cmocka_run_group_tests(tests, set_up, test_folder_end);
}
