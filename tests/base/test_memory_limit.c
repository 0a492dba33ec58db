/*
 * Goal:   the smallest limit wins and is named: machine, control groups of both versions at every
 *         level, resource limits; broken or missing files are as good as no limit.
 * Method: fake /proc and /sys trees in a temporary folder.
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

#include "base/cgroup.h"
#include "base/memory_limit.h"
#include "base/team.h"

enum { MOST_FILES = 32, PATH_BYTES = 512 };

typedef struct fake_tree {
    char root[PATH_BYTES];
    char made[MOST_FILES][PATH_BYTES]; /* in the order of making; folders before their files */
    size_t made_count;
} fake_tree;

static void remember(fake_tree *tree, const char *path) {
    assert_true(tree->made_count < MOST_FILES);
    (void)snprintf(tree->made[tree->made_count++], PATH_BYTES, "%s", path);
}

static void write_file(fake_tree *tree, const char *name, const char *text) {
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s%s", tree->root, name);
    for (char *slash = strchr(path + strlen(tree->root) + 1, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(path, 0700) == 0) remember(tree, path);
        *slash = '/';
    }
    if (access(path, F_OK) != 0) remember(tree, path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void begin_tree(fake_tree *tree) {
    const char *folder = getenv("TMPDIR");
    memset(tree, 0, sizeof *tree);
    (void)snprintf(tree->root, sizeof tree->root, "%s/pi2-limit-XXXXXX", folder ? folder : "/tmp");
    assert_non_null(mkdtemp(tree->root));
    write_file(tree, "/proc/meminfo",
               "MemTotal:       24000000 kB\nMemFree: 1 kB\nMemAvailable:   8000000 kB\n");
    write_file(tree, "/proc/self/status", "Name:\tx\nVmSize:\t  100000 kB\nVmData:\t 20000 kB\n");
}

static void end_tree(fake_tree *tree) {
    while (tree->made_count) assert_int_equal(remove(tree->made[--tree->made_count]), 0);
    assert_int_equal(rmdir(tree->root), 0);
}

static pi2_memory_limit find(const fake_tree *tree) {
    const pi2_memory_limit_sources sources = {.root = tree->root,
                                              .address_space_bytes = UINT64_MAX,
                                              .data_bytes = UINT64_MAX};
    pi2_memory_limit limit;
    pi2_memory_limit_find_in(&sources, &limit);
    return limit;
}

static const char v1_mounts[] =
    "23 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 master:2 - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
static const char v2_mounts[] =
    "23 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

static void test_machine(void **state) {
    (void)state;
    fake_tree tree;
    begin_tree(&tree);
    pi2_memory_limit limit = find(&tree);
    assert_int_equal(limit.bytes, 8000000ull * 1024);
    assert_string_equal(limit.reason, "the machine has 8.19 GB available");

    write_file(&tree, "/proc/meminfo", "MemTotal: 5 kB\nMemAvailable: lots\n");
    const pi2_memory_limit_sources sources = {.root = tree.root,
                                              .address_space_bytes = UINT64_MAX,
                                              .data_bytes = UINT64_MAX,
                                              .physical_bytes = 4000000000};
    pi2_memory_limit_find_in(&sources, &limit);
    assert_int_equal(limit.bytes, 2000000000);
    assert_non_null(strstr(limit.reason, "half of the machine's 4.00 GB"));
    end_tree(&tree);
}

static void test_nothing_known(void **state) {
    (void)state;
    const pi2_memory_limit_sources sources = {.root = "/nonexistent",
                                              .address_space_bytes = UINT64_MAX,
                                              .data_bytes = UINT64_MAX};
    pi2_memory_limit limit;
    pi2_memory_limit_find_in(&sources, &limit);
    assert_true(limit.bytes == UINT64_MAX);
    assert_string_equal(limit.reason, "no limit is known");
}

static void test_version_1(void **state) {
    (void)state;
    fake_tree tree;
    begin_tree(&tree);
    write_file(&tree, "/proc/self/mountinfo", v1_mounts);
    write_file(&tree, "/proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/a/b\n0::/c\n");
#define MEMORY "/sys/fs/cgroup/memory"
    write_file(&tree, MEMORY "/memory.limit_in_bytes", "9223372036854771712\n");
    write_file(&tree, MEMORY "/memory.usage_in_bytes", "1000\n");
    write_file(&tree, MEMORY "/a/memory.limit_in_bytes", "100000000\n");
    write_file(&tree, MEMORY "/a/memory.usage_in_bytes", "30000000\n");
    write_file(&tree, MEMORY "/a/memory.stat", "inactive_file 3\ntotal_inactive_file 20000000\n");
    write_file(&tree, MEMORY "/a/b/memory.limit_in_bytes", "200000000\n");
    write_file(&tree, MEMORY "/a/b/memory.usage_in_bytes", "5000000\n");
    pi2_memory_limit limit = find(&tree); /* the parent is the tighter one */
    assert_int_equal(limit.bytes, 90000000);
    assert_non_null(strstr(limit.reason, "cgroup v1 limit 100.0 MB less 10.0 MB in use"));
    assert_non_null(strstr(limit.reason, "/memory/a)"));

    write_file(&tree, MEMORY "/a/b/memory.limit_in_bytes", "4000000\n"); /* below what is used */
    assert_int_equal(find(&tree).bytes, 0);

    write_file(&tree, MEMORY "/a/b/memory.limit_in_bytes", "what?\n");
    write_file(&tree, MEMORY "/a/memory.limit_in_bytes", "99999999999999999999999\n");
    assert_int_equal(find(&tree).bytes, 8000000ull * 1024);
    end_tree(&tree);
}

static void test_version_2(void **state) {
    (void)state;
    fake_tree tree;
    begin_tree(&tree);
    write_file(&tree, "/proc/self/mountinfo", v2_mounts);
    write_file(&tree, "/proc/self/cgroup", "0::/user.slice/app\n");
#define UNIFIED "/sys/fs/cgroup"
    write_file(&tree, UNIFIED "/user.slice/memory.max", "max\n");
    write_file(&tree, UNIFIED "/user.slice/memory.high", "70000000\n");
    write_file(&tree, UNIFIED "/user.slice/memory.current", "10000000\n");
    write_file(&tree, UNIFIED "/user.slice/memory.stat", "anon 5\ninactive_file 4000000\n");
    write_file(&tree, UNIFIED "/user.slice/app/memory.max", "65000000\n");
    write_file(&tree, UNIFIED "/user.slice/app/memory.current", "1000000\n");
    pi2_memory_limit limit = find(&tree);
    assert_int_equal(limit.bytes, 64000000);
    assert_non_null(strstr(limit.reason, "cgroup v2 limit 65.0 MB less 1.0 MB in use"));

    write_file(&tree, UNIFIED "/user.slice/app/memory.max", "max\n");
    limit = find(&tree);
    assert_int_equal(limit.bytes, 64000000);
    assert_non_null(strstr(limit.reason, "limit 70.0 MB less 6.0 MB"));
    end_tree(&tree);
}

/* A container sees its own group as the mount's root, or a path from another namespace. */
static void test_container_mounts(void **state) {
    (void)state;
    fake_tree tree;
    begin_tree(&tree);
    write_file(&tree, "/proc/self/mountinfo",
               "35 31 0:32 /docker/12ab /sys/fs/cg\\040roup ro - cgroup cgroup rw,memory\n");
    write_file(&tree, "/sys/fs/cg roup/memory.limit_in_bytes", "50000000\n");
    write_file(&tree, "/sys/fs/cg roup/memory.usage_in_bytes", "0\n");
    static const char *const paths[] = {"9:memory:/docker/12ab\n", "9:memory:/docker/12abc\n",
                                        "9:memory:/../other\n", "9:memory:/\n"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        write_file(&tree, "/proc/self/cgroup", paths[i]);
        assert_int_equal(find(&tree).bytes, 50000000);
    }
    end_tree(&tree);
}

static void test_broken_files(void **state) {
    (void)state;
    static const char *const texts[] = {"", "\n\n", ":", "::", "4:memory", "garbage - x", "- - -",
                                        "1 2 3 4 5 - cgroup2", "0::/x"};
    enum { COUNT = sizeof texts / sizeof texts[0] };
    fake_tree tree;
    begin_tree(&tree);
    for (size_t i = 0; i < COUNT; i++) {
        for (size_t k = 0; k < COUNT; k++) {
            write_file(&tree, "/proc/self/mountinfo", texts[i]);
            write_file(&tree, "/proc/self/cgroup", texts[k]);
            assert_int_equal(find(&tree).bytes, 8000000ull * 1024);
            assert_int_equal(pi2_cgroup_cpu_quota(tree.root), 0);
        }
    }
    end_tree(&tree);
}

static void test_resource_limits(void **state) {
    (void)state;
    fake_tree tree;
    begin_tree(&tree);
    pi2_memory_limit_sources sources = {.root = tree.root,
                                        .address_space_bytes = 200000ull * 1024,
                                        .data_bytes = UINT64_MAX};
    pi2_memory_limit limit;
    pi2_memory_limit_find_in(&sources, &limit);
    assert_int_equal(limit.bytes, 100000ull * 1024);
    assert_non_null(strstr(limit.reason, "ulimit -v"));
    sources.data_bytes = 30000ull * 1024;
    pi2_memory_limit_find_in(&sources, &limit);
    assert_int_equal(limit.bytes, 10000ull * 1024);
    assert_non_null(strstr(limit.reason, "ulimit -d"));
    end_tree(&tree);
}

static void test_cpu_quota(void **state) {
    (void)state;
    fake_tree tree;
    begin_tree(&tree);
    write_file(&tree, "/proc/self/mountinfo", v1_mounts);
    write_file(&tree, "/proc/self/cgroup", "5:cpu,cpuacct:/a\n");
#define CPU "/sys/fs/cgroup/cpu,cpuacct"
    write_file(&tree, CPU "/cpu.cfs_quota_us", "-1\n");
    write_file(&tree, CPU "/cpu.cfs_period_us", "100000\n");
    write_file(&tree, CPU "/a/cpu.cfs_quota_us", "150000\n");
    write_file(&tree, CPU "/a/cpu.cfs_period_us", "100000\n");
    assert_int_equal(pi2_cgroup_cpu_quota(tree.root), 2);
    write_file(&tree, CPU "/cpu.cfs_quota_us", "50000\n");
    assert_int_equal(pi2_cgroup_cpu_quota(tree.root), 1);

    write_file(&tree, "/proc/self/mountinfo", v2_mounts);
    write_file(&tree, "/proc/self/cgroup", "0::/a\n");
    write_file(&tree, "/sys/fs/cgroup/a/cpu.max", "max 100000\n");
    assert_int_equal(pi2_cgroup_cpu_quota(tree.root), 0);
    write_file(&tree, "/sys/fs/cgroup/a/cpu.max", "300001 100000\n");
    assert_int_equal(pi2_cgroup_cpu_quota(tree.root), 4);
    end_tree(&tree);
}

/* What the system calls say is limited by the group's quota and its processes, and by what one engine takes. */
static void test_threads(void **state) {
    (void)state;
    fake_tree tree;
    begin_tree(&tree);
    static const struct { unsigned affinity, online, cpus, threads; } machines[] = {
        {2, 8, 2, 2},         {256, 256, 256, 256}, {384, 384, 384, 256}, {4096, 4096, 4096, 256},
        {0, 12, 12, 12},      {0, 0, 1, 1},         {48, 96, 48, 48} /* half of them are offline or not ours */
    };
    for (size_t i = 0; i < sizeof machines / sizeof machines[0]; i++) {
        /* Without /proc and /sys, and with files that limit nothing. */
        const char *const roots[] = {"/nonexistent", tree.root};
        for (size_t r = 0; r < 2; r++) {
            const pi2_cpu_sources sources = {roots[r], machines[i].affinity, machines[i].online};
            assert_int_equal(pi2_allowed_cpus_in(&sources), machines[i].cpus);
            assert_int_equal(pi2_default_threads_in(&sources), machines[i].threads);
        }
        if (i) continue;
        write_file(&tree, "/proc/self/mountinfo", v2_mounts);
        write_file(&tree, "/proc/self/cgroup", "0::/a\n");
        write_file(&tree, "/sys/fs/cgroup/a/cpu.max", "max 100000\n");
        write_file(&tree, "/sys/fs/cgroup/a/pids.max", "max\n");
        write_file(&tree, "/sys/fs/cgroup/a/pids.current", "7\n");
    }
    const pi2_cpu_sources large = {tree.root, 384, 384};
    write_file(&tree, "/sys/fs/cgroup/a/pids.max", "100\n");
    assert_int_equal(pi2_allowed_cpus_in(&large), 384);
    assert_int_equal(pi2_default_threads_in(&large), 77); /* 93 are left, 16 are for others */
    write_file(&tree, "/sys/fs/cgroup/a/pids.current", "100\n");
    assert_int_equal(pi2_default_threads_in(&large), 1);
    write_file(&tree, "/sys/fs/cgroup/a/pids.current", "nothing\n");
    assert_int_equal(pi2_default_threads_in(&large), 256);
    write_file(&tree, "/sys/fs/cgroup/a/cpu.max", "600000 100000\n");
    assert_int_equal(pi2_default_threads_in(&large), 6);
    write_file(&tree, "/proc/self/mountinfo",
               "33 31 0:30 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n");
    write_file(&tree, "/proc/self/cgroup", "8:pids:/\n");
    write_file(&tree, "/sys/fs/cgroup/pids/pids.max", "50\n");
    write_file(&tree, "/sys/fs/cgroup/pids/pids.current", "4\n");
    assert_int_equal(pi2_default_threads_in(&large), 30);
    end_tree(&tree);
}

/* Terabytes of memory, in groups without a limit of either version. */
static void test_large_machine(void **state) {
    (void)state;
    fake_tree tree;
    begin_tree(&tree);
    write_file(&tree, "/proc/meminfo", "MemTotal: 12884901888 kB\nMemAvailable: 12000000000 kB\n"); /* 12 TB */
    write_file(&tree, "/proc/self/mountinfo", v2_mounts);
    write_file(&tree, "/proc/self/cgroup", "0::/a\n");
    write_file(&tree, "/sys/fs/cgroup/a/memory.max", "max\n");
    write_file(&tree, "/sys/fs/cgroup/a/memory.current", "5000000000000\n");
    assert_int_equal(find(&tree).bytes, 12000000000ull * 1024);
    write_file(&tree, "/sys/fs/cgroup/a/memory.max", "8000000000000\n");
    pi2_memory_limit limit = find(&tree);
    assert_int_equal(limit.bytes, 3000000000000);
    assert_non_null(strstr(limit.reason, "limit 8.00 TB less 5.00 TB in use"));
    /* No limit of version 1, in whole pages of 64 KB. */
    write_file(&tree, "/proc/self/mountinfo", v1_mounts);
    write_file(&tree, "/proc/self/cgroup", "4:memory:/\n");
    write_file(&tree, MEMORY "/memory.limit_in_bytes", "9223372036854710272\n");
    write_file(&tree, MEMORY "/memory.usage_in_bytes", "1000\n");
    assert_int_equal(find(&tree).bytes, 12000000000ull * 1024);
    end_tree(&tree);
}

static void test_this_process(void **state) {
    (void)state;
    pi2_memory_limit limit;
    pi2_memory_limit_find(&limit);
    assert_true(limit.bytes > 0);
    assert_true(strlen(limit.reason) > 5);
    uint64_t peak = 0, current = 0;
    assert_true(pi2_process_memory(&peak, &current));
    assert_true(peak >= 100000);
    if (current) assert_true(current <= peak);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_machine),      cmocka_unit_test(test_nothing_known),
        cmocka_unit_test(test_version_1),    cmocka_unit_test(test_version_2),
        cmocka_unit_test(test_container_mounts), cmocka_unit_test(test_broken_files),
        cmocka_unit_test(test_resource_limits), cmocka_unit_test(test_cpu_quota),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_large_machine), cmocka_unit_test(test_this_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
