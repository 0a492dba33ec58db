/*
 * Goal:   what comes from a file cannot command a terminal, in lines or in JSON; the percent beside two numbers is
 *         that of these numbers as they are shown.
 * Method: every byte and every control character of Unicode; numbers at the edges of rounding.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/output.h"
#include "cli/prediction_report.h"

static char printed[4096];

/** What print_safely() makes of so many bytes. */
static const char *safe(const char *text, size_t length) {
    FILE *stream = tmpfile();
    assert_non_null(stream);
    pi2_cli_print_safely(stream, text, length);
    rewind(stream);
    const size_t count = fread(printed, 1, sizeof printed - 1, stream);
    printed[count] = '\0';
    assert_int_equal(fclose(stream), 0);
    return printed;
}

static bool has_control(const char *text) {
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        if (*at < 32 || *at == 127 || (at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0)) return true;
    }
    return false;
}

static void test_safe_text(void **state) {
    (void)state;
    static const char plain[] = "plain, \xc3\xa4\xe4\xb8\xad\xf0\x9f\x98\x80";
    assert_string_equal(safe(plain, sizeof plain - 1), plain);
    assert_string_equal(safe("\033[2J\a\n\t\x7f", 8), "\\x1b[2J\\x07\\n\\t\\x7f");
    assert_string_equal(safe("\xc2\x9b" "31m", 5), "\\u009b31m");
    assert_string_equal(safe("\xc2\xa0", 2), "\xc2\xa0"); /* the first that is none */
    assert_string_equal(safe("\x9b" "31m\xc2", 5), "\\x9b31m\\xc2"); /* no UTF-8: CSI to a terminal of one byte */
    assert_string_equal(safe("\xe0\x82\x9b\xc0\x9b", 5), "\\xe0\\x82\\x9b\\xc0\\x9b"); /* the same, written longer */
    for (unsigned byte = 0; byte < 256; byte++) {
        const char text[2] = { (char)byte, 'x' };
        if (has_control(safe(text, 2))) fail_msg("byte %u is printed as it is", byte);
    }
}

static void test_safe_json(void **state) {
    (void)state;
    static const char text[] = "a\033\a\x7f\xc2\x80\xc2\x9b\xc2\x9f\xc2\xa0\xe4\xb8\xad";
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    const int kept = dup(STDOUT_FILENO);
    assert_int_equal(fflush(stdout), 0);
    assert_true(dup2(pipes[1], STDOUT_FILENO) >= 0);
    json_t *object = json_object();
    json_object_set_new(object, "k\xc2\x9b", pi2_cli_json_text(text, sizeof text - 1));
    const int code = pi2_cli_print_json(object, JSON_COMPACT);
    assert_true(dup2(kept, STDOUT_FILENO) >= 0);
    assert_int_equal(close(pipes[1]) | close(kept), 0);
    const ssize_t count = read(pipes[0], printed, sizeof printed - 1);
    assert_int_equal(close(pipes[0]), 0);
    assert_int_equal(code, PI2_EXIT_OK);
    assert_true(count > 1 && printed[count - 1] == '\n');
    printed[count - 1] = '\0';
    assert_false(has_control(printed));
    json_t *again = json_loads(printed, 0, NULL);
    assert_non_null(again);
    assert_string_equal(json_string_value(json_object_get(again, "k\xc2\x9b")), text);
    json_decref(again);
}

static void test_percent(void **state) {
    (void)state;
    /* 2.04 and 1.96 are shown as 2.0 and 2.0: nothing is off. */
    assert_true(pi2_cli_percent_off(2.04, 1.96, 1) == 0.0);
    assert_true(pi2_cli_percent_off(1.96, 2.04, 1) == 0.0);
    /* 0.144 and 0.136 are 0.14 and 0.14; 0.146 and 0.144 are 0.15 and 0.14. */
    assert_true(pi2_cli_percent_off(0.144, 0.136, 2) == 0.0);
    assert_true(pi2_cli_percent_off(0.146, 0.144, 2) > 7.1 && pi2_cli_percent_off(0.146, 0.144, 2) < 7.2);
    assert_true(pi2_cli_percent_off(3.0, 1.5, 1) == 100.0);
    assert_true(pi2_cli_percent_off(0.002, 0.001, 2) == 100.0); /* nothing is shown that could be divided by */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safe_text), cmocka_unit_test(test_safe_json), cmocka_unit_test(test_percent),
    };
    return cmocka_run_group_tests_name("text on a terminal", tests, NULL, NULL);
}
