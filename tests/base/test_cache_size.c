/*
 * Goal:   the largest of the first processor's caches is found as the system writes it, and nothing where it is silent.
 * Method: made-up folders in the place of /sys.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/cache_size.h"
#include "support/temporary_files.h"

static void write_size(const char *root, int index, const char *text) {
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu0/cache/index%d/size", root, index);
    for (char *slash = strchr(path + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0700);
        *slash = '/';
    }
    test_file_write(path, text, strlen(text));
}

static void test_sizes(void **state) {
    (void)state;
    const char *root = test_folder_path("root");
    (void)mkdir(root, 0700);
    assert_true(pi2_last_level_cache_bytes(root) == 0);
    write_size(root, 0, "48K\n");
    assert_true(pi2_last_level_cache_bytes(root) == 48 << 10);
    write_size(root, 1, "266240K\n");
    write_size(root, 2, "2M\n");
    assert_true(pi2_last_level_cache_bytes(root) == (uint64_t)266240 << 10);
    write_size(root, 3, "1G");
    assert_true(pi2_last_level_cache_bytes(root) == 1 << 30);
    write_size(root, 3, "none");
    write_size(root, 1, "99999999999999999999G");
    assert_true(pi2_last_level_cache_bytes(root) == 2 << 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sizes)};
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
