#include "support/read_methods.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "powerinfer2/status.h"
#include "storage/reader.h"

bool test_has_read_method(const char *method, const char *path) {
    const pi2_reader_options options = { .path = path, .method = method, .depth = 1 };
    pi2_reader *reader = NULL;
    const bool is_there = pi2_reader_open(&options, &reader) == PI2_OK;
    if (!is_there) {
        assert_string_not_equal(method, "pread");
        print_message("not with %s: %s\n", method, pi2_error_text());
    }
    pi2_reader_close(reader);
    return is_there;
}
