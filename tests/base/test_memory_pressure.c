/*
 * Goal:   a group that fills, a limit that is lowered, and a machine that runs out are noticed, with how
 *         much is missing; a process that was given exactly its limit is not alarmed by its own plan.
 * Method: a fake /proc and a group of version 1, then of 2 with its stall information, in a temporary
 *         folder, rewritten between questions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory_pressure.h"

static const char *const folders[] = { "/proc", "/proc/self", "/g" };
static const char *const files[] = { "/proc/meminfo", "/proc/self/cgroup", "/proc/self/mountinfo",
                                     "/g/memory.limit_in_bytes", "/g/memory.usage_in_bytes", "/g/memory.stat",
                                     "/g/memory.high", "/g/memory.max", "/g/memory.current", "/g/memory.pressure" };
static char root[64];

static void put(const char *name, const char *text) {
    char path[128];
    (void)snprintf(path, sizeof path, "%s%s", root, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void test_group(void **state) {
    (void)state;
    put("/proc/meminfo", "MemTotal: 32000000 kB\nMemAvailable: 16000000 kB\n");
    put("/proc/self/cgroup", "4:memory:/\n");
    put("/proc/self/mountinfo", "35 31 0:32 / /g rw - cgroup cgroup rw,memory\n");
    put("/g/memory.limit_in_bytes", "320000000\n");
    put("/g/memory.usage_in_bytes", "20000000\n");
    put("/g/memory.stat", "total_inactive_file 0\ntotal_active_file 0\n");
    pi2_memory_pressure *pressure = NULL;
    pi2_memory_reading reading;
    assert_int_equal(pi2_memory_pressure_open(root, &pressure), PI2_OK);
    assert_non_null(strstr(pi2_memory_pressure_description(pressure), "cgroup v1"));
    pi2_memory_pressure_expect(pressure, 290000000); /* leaves 10 MB: 5 are wanted */
    pi2_memory_pressure_ask(pressure, 1, 290000000, &reading);
    assert_int_equal(reading.missing, 0);
    put("/g/memory.usage_in_bytes", "318000000\n");
    pi2_memory_pressure_ask(pressure, 2, 0, &reading);
    assert_int_equal(reading.missing, 3000000);
    assert_non_null(strstr(reading.source, "/g"));
    put("/g/memory.stat", "total_inactive_file 50000000\ntotal_active_file 1000000\n"); /* file cache is free */
    pi2_memory_pressure_ask(pressure, 3, 0, &reading);
    assert_int_equal(reading.missing, 0);
    assert_true(reading.spare > 40000000);
    put("/g/memory.limit_in_bytes", "200000000\n");
    pi2_memory_pressure_ask(pressure, 4, 0, &reading);
    assert_int_equal(reading.missing, 72000000);
    put("/g/memory.limit_in_bytes", "9223372036854771712\n"); /* none */
    put("/proc/meminfo", "MemTotal: 32000000 kB\nMemAvailable: 500000 kB\n");
    pi2_memory_pressure_ask(pressure, 5, 0, &reading);
    assert_int_equal(reading.missing, 500000 * 1024); /* a 32nd is wanted */
    assert_non_null(strstr(reading.source, "machine"));
    pi2_memory_pressure_close(pressure);
}

/* What "some" tasks have lost so far, in microseconds. */
static void put_stall(unsigned total_us) {
    char text[160];
    (void)snprintf(text, sizeof text, "some avg10=0.00 avg60=0.00 avg300=0.00 total=%u\n"
                                      "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", total_us);
    put("/g/memory.pressure", text);
}

static void test_group_of_version_2(void **state) {
    (void)state;
    put("/proc/meminfo", "MemTotal: 32000000 kB\nMemAvailable: 16000000 kB\n");
    put("/proc/self/cgroup", "0::/\n");
    put("/proc/self/mountinfo", "35 31 0:32 / /g rw - cgroup2 cgroup2 rw\n");
    put("/g/memory.high", "320000000\n");
    put("/g/memory.max", "400000000\n");
    put("/g/memory.current", "20000000\n");
    put("/g/memory.stat", "anon 5\ninactive_file 0\nactive_file 0\n");
    put_stall(1000);
    pi2_memory_pressure *pressure = NULL;
    pi2_memory_reading reading;
    assert_int_equal(pi2_memory_pressure_open(root, &pressure), PI2_OK);
    assert_non_null(strstr(pi2_memory_pressure_description(pressure), "cgroup v2"));
    assert_non_null(strstr(pi2_memory_pressure_description(pressure), "PSI"));
    pi2_memory_pressure_expect(pressure, 290000000); /* leaves 10 MB below memory.high: 5 are wanted */
    pi2_memory_pressure_ask(pressure, 1000000000, 290000000, &reading);
    assert_int_equal(reading.missing, 0);
    put("/g/memory.current", "318000000\n");
    pi2_memory_pressure_ask(pressure, 1100000000, 0, &reading);
    assert_int_equal(reading.missing, 3000000);
    assert_false(reading.urgent);
    put_stall(301000); /* 300 ms of the second since the first look */
    pi2_memory_pressure_ask(pressure, 2000000000, 0, &reading);
    assert_true(reading.urgent);
    put_stall(351000); /* 50 ms of a second: less than a tenth */
    pi2_memory_pressure_ask(pressure, 3000000000, 0, &reading);
    assert_false(reading.urgent);
    put("/g/memory.stat", "anon 5\ninactive_file 50000000\nactive_file 1000000\n");
    put_stall(851000); /* others stall: room is not scarce here */
    pi2_memory_pressure_ask(pressure, 4000000000, 0, &reading);
    assert_int_equal(reading.missing, 0);
    assert_true(reading.spare > 40000000);
    assert_false(reading.urgent);
    put("/g/memory.high", "max\n"); /* then memory.max counts */
    put("/g/memory.max", "200000000\n");
    pi2_memory_pressure_ask(pressure, 4100000000, 0, &reading);
    assert_int_equal(reading.missing, 318000000 - 51000000 - 200000000 + 200000000 / 32); /* a 32nd is wanted */
    assert_non_null(strstr(reading.source, "cgroup v2"));
    pi2_memory_pressure_close(pressure);
}

static int set_up(void **state) {
    (void)state;
    (void)snprintf(root, sizeof root, "/tmp/pi2-pressure-XXXXXX");
    if (!mkdtemp(root)) return -1;
    char path[128];
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        (void)snprintf(path, sizeof path, "%s%s", root, folders[i]);
        if (mkdir(path, 0700) != 0) return -1;
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char path[128];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        (void)snprintf(path, sizeof path, "%s%s", root, files[i]);
        (void)remove(path);
    }
    for (size_t i = sizeof folders / sizeof folders[0]; i-- > 0;) {
        (void)snprintf(path, sizeof path, "%s%s", root, folders[i]);
        (void)remove(path);
    }
    return remove(root);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_group), cmocka_unit_test(test_group_of_version_2) };
    return cmocka_run_group_tests_name("memory pressure", tests, set_up, tear_down);
}
