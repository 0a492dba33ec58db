/*
 * Goal:   sizes are read exactly or refused by name, and printed as people write them.
 * Method: tables of texts and values, the largest values and one more among them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/parse_size.h"

static void test_good(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {
        {"0", 0},
        {"123456", 123456},
        {"7B", 7},
        {"64M", 64000000},
        {"64m", 64000000},
        {"64MB", 64000000},
        {"1.5G", 1500000000},
        {"0.1G", 100000000},
        {"1k", 1000},
        {"1KiB", 1024},
        {"1Ki", 1024},
        {"1kib", 1024},
        {"48MiB", 48u << 20},
        {"1.5GiB", 3ull << 29},
        {"2T", 2000000000000},
        {"2TiB", 2ull << 40},
        {"0.0009K", 0},
        {"1.9999999999999999999999999999999999999999K", 1999},
        {"1.0000000000000000000000000000000000000001K", 1000},
        {"18446744073709551615", UINT64_MAX},
        {"18446744073709551.615K", UINT64_MAX},
        {"00012K", 12000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t bytes = 1;
        assert_int_equal(pi2_parse_size(cases[i].text, &bytes), PI2_OK);
        if (bytes != cases[i].bytes) fail_msg("%s: %llu", cases[i].text, (unsigned long long)bytes);
    }
}

static void test_bad(void **state) {
    (void)state;
    static const char *const cases[] = {
        "", " ", "-1", "-64M", "+1", "G", ".5G", "1.G", "1.5", "1.5B", "64Q", "64MM", "64 M",
        "64M ", "64Mib/s", "0x10", "1e9", "nan", "inf", "1,5G", "1.5.5G", "64iB", "KiB", "\xff",
        "18446744073709551616", "18446744073709551.616K", "18446745T", "99999999999999999999999999",
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t bytes = 1;
        const pi2_status status = pi2_parse_size(cases[i], &bytes);
        if (status != PI2_ERR_INVALID) fail_msg("\"%s\" was taken", cases[i]);
        assert_int_equal(bytes, 0);
        assert_non_null(strstr(pi2_error_text(), cases[i]));
    }
}

static void test_format(void **state) {
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        {0, "0 B"},
        {999, "999 B"},
        {1000, "1.0 kB"},
        {1049, "1.0 kB"},
        {1050, "1.1 kB"},
        {999949, "999.9 kB"},
        {999950, "1.0 MB"},
        {64000000, "64.0 MB"},
        {999949999, "999.9 MB"},
        {999950000, "1.00 GB"},
        {4110000000, "4.11 GB"},
        {1050000000, "1.05 GB"},
        {999994999999, "999.99 GB"},
        {999995000000, "1.00 TB"},
        {UINT64_MAX, "18446744.07 TB"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[PI2_SIZE_TEXT_BYTES];
        assert_string_equal(pi2_format_size(cases[i].bytes, text), cases[i].text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_format),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
