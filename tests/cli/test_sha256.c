/*
 * Goal:   checksums are those of the standard.
 * Method: its published examples, each also in pieces of every size up to a block and one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cli/sha256.h"

static void check(const char *text, size_t repeats, const char *expected) {
    char sum[PI2_SHA256_TEXT_BYTES];
    for (size_t piece = repeats == 1 ? 1 : 65; piece <= 65; piece++) {
        pi2_sha256 state;
        pi2_sha256_begin(&state);
        const size_t length = strlen(text);
        for (size_t k = 0; k < repeats; k++) {
            for (size_t at = 0; at < length; at += piece) {
                pi2_sha256_add(&state, (const unsigned char *)text + at, length - at < piece ? length - at : piece);
            }
        }
        pi2_sha256_end(&state, sum);
        assert_string_equal(sum, expected);
    }
}

static void test_published_examples(void **state) {
    (void)state;
    check("", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check("abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    check("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrst"
          "nopqrstu", 1, "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
    check("aaaaaaaaaa", 100000, /* a million of them */
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_published_examples)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
