/*
 * Goal:   an output takes the place of nothing but what may give way: no input, by whatever name; no file of another
 *         kind; no device, folder or socket. What was refused is as it was, and no temporary file is left.
 * Method: a kind of text that begins with "kind:", in a folder of its own; pipes, links, sockets, /dev.
 */
#define _DEFAULT_SOURCE /* flock */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/output_file.h"
#include "support/temporary_files.h"

static char *path, *temporary, *other, *input;

static bool recognises(const char *at, const uint8_t *head, size_t count) {
    (void)at;
    return pi2_output_head_is(head, count, "kind:");
}

static const pi2_output_kind flowing = { .what = "a test's text", .recognises = recognises, .may_flow = true };
static const pi2_output_kind fixed = { .what = "a test's file", .recognises = recognises };

static void put(const char *at, const char *text) { test_file_write(at, text, strlen(text)); }

static void expect_text(const char *at, const char *text) {
    size_t count = 0;
    uint8_t *bytes = test_file_read(at, &count);
    assert_int_equal(count, strlen(text));
    assert_memory_equal(bytes, text, count);
    free(bytes);
}

static pi2_status write_kind(const char *at, const pi2_output_kind *kind, bool force) {
    const char *const inputs[] = { input, NULL };
    const pi2_output_request request = { .path = at, .kind = kind, .inputs = inputs, .force = force };
    pi2_output_file file;
    const pi2_status status = pi2_output_file_open(&file, &request);
    if (status != PI2_OK) return status;
    pi2_output_file_print(&file, "kind: %s", "new");
    return pi2_output_file_finish(&file);
}

static void expect_refusal(const char *at, const pi2_output_kind *kind, bool force, const char *word) {
    assert_int_equal(write_kind(at, kind, force), PI2_ERR_INVALID);
    if (!strstr(pi2_error_text(), word)) fail_msg("no '%s' in: %s", word, pi2_error_text());
    assert_int_not_equal(access(temporary, F_OK), 0);
}

static void test_new_and_old_files(void **state) {
    (void)state;
    assert_int_equal(write_kind(path, &flowing, false), PI2_OK);
    expect_text(path, "kind: new");
    put(path, "kind: old, and longer");
    assert_int_equal(write_kind(path, &flowing, false), PI2_OK);
    expect_text(path, "kind: new");
    put(path, ""); /* mktemp's */
    assert_int_equal(write_kind(path, &flowing, false), PI2_OK);
    expect_text(path, "kind: new");
    assert_int_not_equal(access(temporary, F_OK), 0);
}

static void test_other_kinds(void **state) {
    (void)state;
    put(path, "my notes");
    expect_refusal(path, &flowing, false, "is not a test's text: it is not replaced");
    put(path, "kind"); /* shorter than what tells it */
    expect_refusal(path, &flowing, false, "is not replaced");
    expect_text(path, "kind");
    assert_int_equal(symlink(path, other), 0); /* a link to it is no way around */
    expect_refusal(other, &flowing, false, "is not replaced");
    expect_text(path, "kind");
    assert_int_equal(write_kind(other, &flowing, true), PI2_OK);
    expect_text(path, "kind: new");
    struct stat link_status;
    assert_int_equal(lstat(other, &link_status), 0);
    assert_true(S_ISLNK(link_status.st_mode)); /* the link stays one */
}

static void test_inputs(void **state) {
    (void)state;
    put(input, "kind: input");
    expect_refusal(input, &flowing, false, "is an input");
    expect_refusal(input, &flowing, true, "is an input");
    assert_int_equal(link(input, path), 0);
    expect_refusal(path, &flowing, true, "is an input of this command, by the name ");
    assert_int_equal(symlink("input", other), 0);
    expect_refusal(other, &flowing, true, "is an input");
    assert_int_equal(link(input, temporary), 0); /* under the name that would be written first */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(write_kind(path, &flowing, false), PI2_ERR_INVALID);
    expect_text(input, "kind: input");
    assert_int_equal(unlink(temporary), 0);
}

static void test_what_is_no_file(void **state) {
    (void)state;
    expect_refusal(test_folder, &flowing, true, "is a folder");
    char *below = test_path(test_folder, "");
    expect_refusal(below, &flowing, true, "names no file");
    free(below);
    const int socket_file = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    assert_true(socket_file >= 0 && strlen(path) < sizeof address.sun_path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    assert_int_equal(bind(socket_file, (struct sockaddr *)&address, sizeof address), 0);
    expect_refusal(path, &flowing, true, "is a socket");
    assert_int_equal(close(socket_file), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_refusal(path, &fixed, true, "is a pipe");
    expect_refusal("/dev/null", &fixed, true, "is a device");
    expect_refusal("/dev/zero", &fixed, false, "is a device");
    assert_int_equal(write_kind("/dev/null", &flowing, false), PI2_OK);
    struct stat status;
    assert_int_equal(stat("/dev/null", &status), 0);
    assert_true(S_ISCHR(status.st_mode));
}

static void test_pipe_is_written_into(void **state) {
    (void)state;
    assert_int_equal(mkfifo(path, 0600), 0);
    const int reader = open(path, O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    assert_int_equal(write_kind(path, &flowing, false), PI2_OK);
    char text[32];
    assert_int_equal(read(reader, text, sizeof text), 9);
    assert_memory_equal(text, "kind: new", 9);
    assert_int_equal(close(reader), 0);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_true(S_ISFIFO(status.st_mode));
}

/* What /dev/stdout is when it goes to a file: written on from where it stands, and never replaced. */
static void test_open_descriptor(void **state) {
    (void)state;
    char link_path[64];
    if (access("/dev/fd", X_OK) != 0 || access("/proc/self/fd", X_OK) != 0) skip();
    const int file = open(path, O_RDWR | O_CREAT, 0600);
    assert_true(file >= 0);
    assert_int_equal(write(file, "before, ", 8), 8);
    (void)snprintf(link_path, sizeof link_path, "/dev/fd/%d", file);
    assert_int_equal(write_kind(link_path, &flowing, false), PI2_OK);
    expect_text(path, "before, kind: new");
    struct stat open_status, named;
    assert_int_equal(fstat(file, &open_status), 0);
    assert_int_equal(stat(path, &named), 0);
    assert_true(open_status.st_ino == named.st_ino);
    expect_refusal(link_path, &fixed, true, "is a file that is open already");
    assert_int_equal(symlink(link_path, other), 0);
    assert_int_equal(write_kind(other, &flowing, false), PI2_OK);
    expect_text(path, "before, kind: newkind: new");
    assert_int_equal(close(file), 0);
}

static void test_temporary_file(void **state) {
    (void)state;
    put(temporary, "kind: left by a run that was killed");
    assert_int_equal(write_kind(path, &flowing, false), PI2_OK);
    expect_text(path, "kind: new");
    test_file_write(temporary, "\0\0\0\0", 4); /* a header that would have come last */
    assert_int_equal(write_kind(path, &flowing, false), PI2_OK);
    put(temporary, "somebody's");
    assert_int_equal(write_kind(path, &flowing, false), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "is in the way"));
    expect_text(temporary, "somebody's");
    assert_int_equal(unlink(temporary), 0);
    put(other, "kind: a file that a link names");
    assert_int_equal(symlink("other", temporary), 0);
    assert_int_equal(write_kind(path, &flowing, false), PI2_ERR_IO);
    expect_text(other, "kind: a file that a link names");
    assert_int_equal(unlink(temporary), 0);
    put(temporary, "kind: ");
    const int held = open(temporary, O_RDWR);
    assert_int_equal(flock(held, LOCK_EX), 0);
    assert_int_equal(write_kind(path, &flowing, false), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "another run is writing it"));
    expect_text(temporary, "kind: ");
    assert_int_equal(close(held), 0);
    assert_int_equal(unlink(temporary), 0);
}

/* What comes to lie there while a run lasts is not replaced either. */
static void test_asked_again_at_the_end(void **state) {
    (void)state;
    const pi2_output_request request = { .path = path, .kind = &flowing };
    for (int is_folder = 0; is_folder < 2; is_folder++) {
        pi2_output_file file;
        assert_int_equal(pi2_output_file_open(&file, &request), PI2_OK);
        pi2_output_file_print(&file, "kind: new");
        if (is_folder) assert_int_equal(mkdir(path, 0700), 0);
        else put(path, "written meanwhile");
        assert_int_equal(pi2_output_file_finish(&file), PI2_ERR_INVALID);
        assert_int_not_equal(access(temporary, F_OK), 0);
        if (is_folder) assert_int_equal(rmdir(path), 0);
        else expect_text(path, "written meanwhile");
        if (!is_folder) assert_int_equal(unlink(path), 0);
    }
}

static void test_same_place(void **state) {
    (void)state;
    assert_true(pi2_output_is_same(path, path)); /* where nothing is yet */
    assert_false(pi2_output_is_same(path, other));
    assert_int_equal(symlink("output", other), 0); /* which dangles */
    assert_true(pi2_output_is_same(path, other));
    put(path, "kind: ");
    assert_true(pi2_output_is_same(path, other));
    assert_int_equal(link(path, input), 0);
    assert_true(pi2_output_is_same(input, other));
    assert_false(pi2_output_is_same("/dev/null", "/dev/null"));
}

static void test_what_would_fail_at_the_end(void **state) {
    (void)state;
    pi2_output_request request = { .path = path, .kind = &fixed };
    char *below = test_folder_path("none/output");
    assert_int_equal(pi2_output_check_ahead(&request), PI2_OK);
    request.path = "output"; /* in this folder, which the test may write */
    assert_int_equal(pi2_output_check_ahead(&request), access(".", W_OK | X_OK) == 0 ? PI2_OK : PI2_ERR_IO);
    request.path = below;
    assert_int_equal(pi2_output_check_ahead(&request), PI2_ERR_IO);
    if (!strstr(pi2_error_text(), "none: No such file")) fail_msg("%s", pi2_error_text());
    assert_int_equal(mkdir(other, 0555), 0);
    request.path = test_folder_path("other/output");
    assert_int_equal(pi2_output_check_ahead(&request), access(other, W_OK) == 0 ? PI2_OK : PI2_ERR_IO); /* root may */
    put(path, "another kind");
    request.path = path;
    assert_int_equal(pi2_output_check_ahead(&request), PI2_ERR_INVALID);
    request.kind = &flowing;
    request.path = "/dev/null";
    assert_int_equal(pi2_output_check_ahead(&request), PI2_OK);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    path = test_folder_path("output");
    temporary = test_folder_path(".output.tmp");
    other = test_folder_path("other");
    input = test_folder_path("input");
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, test_folder_end)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_new_and_old_files), TEST(test_other_kinds), TEST(test_inputs), TEST(test_what_is_no_file),
        TEST(test_pipe_is_written_into), TEST(test_open_descriptor), TEST(test_temporary_file),
        TEST(test_asked_again_at_the_end), TEST(test_same_place), TEST(test_what_would_fail_at_the_end),
    };
    return cmocka_run_group_tests_name("files that are written", tests, NULL, NULL);
}
