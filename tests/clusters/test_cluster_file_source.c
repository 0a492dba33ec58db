/* Goal:   a cluster file is taken for the weights that it was made from, and for no others, however alike their
 *         headers, names, sizes and times are; what tells of them, bounded samples and the remembered time, costs no
 *         whole reading twice.
 * Method: tiny models whose headers are equal, put in each other's place in every way in which files are. */
#define _DEFAULT_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "file_formats/cluster_file.h"
#include "powerinfer2/model_file.h"
#include "support/emulator.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { OLD = 1000000000 }; /* a time long ago */

static char *model_path, *other_path, *cluster_path, *fresh_path;

static void set_time(const char *path, time_t seconds) {
    const struct timespec times[2] = { { .tv_sec = seconds, .tv_nsec = 5 }, { .tv_sec = seconds, .tv_nsec = 5 } };
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void write_model(const char *path, uint32_t seed, time_t seconds) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.seed = seed;
    options.embedding_length = 512;
    options.feed_forward_length = 1024;
    options.tied_head = false;
    options.attention_biases = true;
    assert_int_equal(pi2_tiny_model_write(&options, path), 0);
    set_time(path, seconds);
}

static int set_up(void **state) {
    (void)test_folder_begin_in_memory(state);
    model_path = test_folder_path("tiny.gguf");
    other_path = test_folder_path("other.gguf");
    cluster_path = test_folder_path("tiny.pi2");
    fresh_path = test_folder_path("fresh.pi2");
    write_model(model_path, 1, OLD);
    return setenv("XDG_CACHE_HOME", test_folder, 1);
}

static void prepare(const char *model, const char *output) {
    const pi2_prepare_options options = { .model_path = model, .output_path = output };
    if (pi2_prepare_file(&options, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
}

/* What a run counts that looks for the cluster file. */
static uint64_t compared_bytes;
static bool cancels;
static char told[1024];

static void count_progress(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)user, (void)total;
    if (strcmp(what, "comparing") == 0) compared_bytes = done;
}

static bool is_cancelled(void *user) {
    (void)user;
    return cancels;
}

static void note_line(void *user, const char *line) {
    (void)user;
    (void)snprintf(told, sizeof told, "%s", line);
}

static const pi2_callbacks callbacks = { .log = note_line, .progress = count_progress, .cancelled = is_cancelled };

/* Whether the cluster file of a model is taken; `reason` is what the note must hold when it is not. */
static bool is_taken(const char *model, const char *reason) {
    pi2_gguf *source;
    char *path, note[512];
    compared_bytes = 0;
    told[0] = '\0';
    assert_int_equal(pi2_gguf_open(model, &source), PI2_OK);
    if (pi2_cluster_file_find(source, NULL, NULL, &callbacks, &path, note, sizeof note, NULL)) {
        fail_msg("%s", pi2_error_text());
    }
    pi2_gguf_close(source);
    const bool found = path != NULL;
    if (!found && !strstr(note, reason)) fail_msg("wanted '%s', got: %s", reason, note);
    if (found) assert_string_equal(note, "");
    free(path);
    return found;
}

/* Whatever lies there: what is used afterwards is what the model, as it is now, gives when prepared anew. */
static void expect_right(const char *model) {
    const pi2_prepare_options options = { .model_path = model };
    const pi2_prepare_options anew = { .model_path = model, .output_path = fresh_path, .overwrite = true };
    char *used;
    size_t used_bytes, fresh_bytes;
    if (pi2_prepare_file(&options, &used) != PI2_OK) fail_msg("%s", pi2_error_text());
    if (pi2_prepare_file(&anew, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
    uint8_t *have = test_file_read(used, &used_bytes), *want = test_file_read(fresh_path, &fresh_bytes);
    assert_int_equal(used_bytes, fresh_bytes);
    assert_memory_equal(have, want, want ? fresh_bytes : 0);
    free(have);
    free(want);
    free(used);
    assert_true(is_taken(model, ""));
}

/* ---- times ---- */

static void test_time_is_no_proof(void **state) {
    (void)state;
    static const time_t times[] = { OLD, OLD - 1000, OLD + 1000 }; /* of another checkpoint, by cp -p, tar or rsync */
    for (size_t i = 0; i < 3; i++) {
        write_model(model_path, 1, OLD);
        prepare(model_path, NULL);
        assert_true(is_taken(model_path, ""));
        write_model(other_path, 2, times[i]);
        assert_int_equal(rename(other_path, model_path), 0);
        assert_false(is_taken(model_path, "other weights"));
        expect_right(model_path);
    }
}

static void test_same_weights_with_another_time(void **state) {
    (void)state;
    struct stat whole;
    prepare(model_path, NULL);
    assert_int_equal(stat(model_path, &whole), 0);
    assert_true(is_taken(model_path, ""));
    assert_int_equal(compared_bytes, 0); /* prepare knew the time */
    set_time(model_path, OLD + 7);
    assert_true(is_taken(model_path, ""));
    assert_int_equal(compared_bytes, whole.st_size); /* once */
    assert_string_equal(told, "");
    assert_true(is_taken(model_path, ""));
    assert_int_equal(compared_bytes, 0);
    set_time(cluster_path, OLD + 9); /* copied without its time */
    assert_true(is_taken(model_path, ""));
    assert_int_equal(compared_bytes, whole.st_size);
    assert_true(is_taken(model_path, ""));
    assert_int_equal(compared_bytes, 0);
}

static void test_what_changed_just_now_is_not_remembered(void **state) {
    (void)state;
    set_time(model_path, time(NULL));
    prepare(model_path, NULL);
    for (int i = 0; i < 2; i++) {
        set_time(model_path, time(NULL));
        assert_true(is_taken(model_path, ""));
        assert_true(compared_bytes > 0);
        assert_string_equal(told, "");
    }
}

static void test_comparing_is_cancelled(void **state) {
    (void)state;
    pi2_gguf *source;
    char *path, note[512];
    prepare(model_path, NULL);
    set_time(model_path, OLD + 7);
    assert_int_equal(pi2_gguf_open(model_path, &source), PI2_OK);
    cancels = true;
    assert_int_equal(pi2_cluster_file_find(source, NULL, NULL, &callbacks, &path, note, sizeof note, NULL),
                     PI2_ERR_INTERRUPTED);
    assert_null(path);
    const pi2_prepare_options options = { .model_path = model_path, .callbacks = callbacks };
    assert_int_equal(pi2_prepare_file(&options, NULL), PI2_ERR_INTERRUPTED);
    cancels = false;
    pi2_gguf_close(source);
    assert_true(is_taken(model_path, "")); /* it is still there */
}

/* ---- contents ---- */

static void change_file(const char *path, uint64_t offset, uint64_t count, uint64_t step) {
    const int file = open(path, O_RDWR);
    assert_true(file >= 0);
    for (uint64_t at = offset; at < offset + count; at += step) {
        uint8_t byte;
        assert_int_equal(pread(file, &byte, 1, (off_t)at), 1);
        byte ^= 0x80;
        assert_int_equal(pwrite(file, &byte, 1, (off_t)at), 1);
    }
    assert_int_equal(close(file), 0);
}

/* A fine-tune changes a tensor broadly: with the same time, size and header it is found by samples of that tensor. */
static void test_any_tensor_changed_broadly(void **state) {
    (void)state;
    pi2_gguf *gguf;
    prepare(model_path, NULL);
    assert_int_equal(pi2_gguf_open(model_path, &gguf), PI2_OK);
    assert_true(pi2_gguf_tensor_count(gguf) > 20);
    for (size_t i = 0; i < pi2_gguf_tensor_count(gguf); i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(gguf, i);
        change_file(model_path, tensor->file_offset, tensor->bytes, 1000);
        set_time(model_path, OLD);
        if (is_taken(model_path, "other weights")) fail_msg("tensor '%s' was changed", tensor->name);
        assert_int_equal(compared_bytes, 0);
        change_file(model_path, tensor->file_offset, tensor->bytes, 1000);
        set_time(model_path, OLD);
        assert_true(is_taken(model_path, ""));
    }
    pi2_gguf_close(gguf);
}

/* One byte may lie between the samples; then its file's time is another. */
static void test_any_byte_changed_in_place(void **state) {
    (void)state;
    pi2_gguf *gguf;
    struct stat whole;
    prepare(model_path, NULL);
    assert_int_equal(stat(model_path, &whole), 0);
    assert_int_equal(pi2_gguf_open(model_path, &gguf), PI2_OK);
    const uint64_t data = pi2_gguf_file_data_offset(gguf, 0);
    pi2_gguf_close(gguf);
    size_t hidden = 0;
    for (uint64_t at = data; at < (uint64_t)whole.st_size; at += 20011) {
        change_file(model_path, at, 1, 1);
        assert_false(is_taken(model_path, "other weights"));
        hidden += compared_bytes > 0;
        change_file(model_path, at, 1, 1);
    }
    assert_true(hidden > 5);
    change_file(model_path, (uint64_t)whole.st_size - 70000, 1, 1);
    expect_right(model_path);
}

static void test_headers_and_sizes(void **state) {
    (void)state;
    prepare(model_path, NULL);
    size_t bytes;
    uint8_t *file = test_file_read(model_path, &bytes), *longer = calloc(1, bytes + 32);
    assert_non_null(longer);
    memcpy(longer, file, bytes);
    test_file_write(model_path, longer, bytes + 32);
    set_time(model_path, OLD);
    assert_false(is_taken(model_path, "another version"));
    size_t at = 0;
    while (memcmp(longer + at, "llama", 5) != 0) at++;
    longer[at] ^= 1; /* a text of the metadata */
    test_file_write(model_path, longer, bytes);
    set_time(model_path, OLD);
    assert_false(is_taken(model_path, "another header"));
    free(longer);
    free(file);
}

static void test_what_is_no_cluster_file_of_today(void **state) {
    (void)state;
    pi2_gguf *source;
    char *path, note[512];
    assert_false(is_taken(model_path, "")); /* there is none */
    assert_int_equal(pi2_gguf_open(model_path, &source), PI2_OK);
    assert_int_equal(pi2_cluster_file_find(source, model_path, NULL, NULL, &path, note, sizeof note, NULL), PI2_OK);
    assert_null(path);
    assert_non_null(strstr(note, "not a cluster file"));
    pi2_gguf_close(source);
    prepare(model_path, NULL);
    size_t bytes;
    uint8_t *file = test_file_read(cluster_path, &bytes);
    static const char key[] = "powerinfer2.version";
    size_t at = 0;
    while (memcmp(file + at, key, sizeof key - 1) != 0) at++;
    file[at + sizeof key - 1 + 4] = 1; /* as the program before this one wrote it */
    test_file_write(cluster_path, file, bytes);
    free(file);
    assert_false(is_taken(model_path, "version 1, this program reads 2: make it again"));
    expect_right(model_path);
}

/* ---- names ---- */

static void test_link_that_is_turned(void **state) {
    (void)state;
    char *first = test_path(test_folder, "first.gguf"), *second = test_path(test_folder, "second.gguf");
    write_model(first, 1, OLD);
    write_model(second, 2, OLD);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(unlink(model_path), 0);
        assert_int_equal(symlink(i % 2 ? second : first, model_path), 0);
        if (i > 0) assert_false(is_taken(model_path, "other weights"));
        expect_right(model_path);
    }
    free(first);
    free(second);
}

/* Root may write anywhere, so this is done as somebody else: two folders that are read only, one cache folder. */
static void compare_in_shared_cache(const char *const *models) {
    char *names[2];
    if (getuid() == 0 && setuid(65534) != 0) _exit(2);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 2; i++) {
            pi2_gguf *source;
            const pi2_prepare_options options = { .model_path = models[i] };
            if (pi2_prepare_file(&options, &names[i]) != PI2_OK) _exit(3);
            if (pi2_gguf_open(models[i], &source) != PI2_OK) _exit(4);
            if (pi2_cluster_file_matches(names[i], source, NULL, NULL, NULL) != PI2_OK) _exit(5);
            pi2_gguf_close(source);
            /* It is in the cache, and not the file of the other. */
            if (strncmp(names[i], getenv("XDG_CACHE_HOME"), strlen(getenv("XDG_CACHE_HOME"))) != 0) _exit(6);
        }
        if (strcmp(names[0], names[1]) == 0) _exit(7);
        free(names[0]);
        free(names[1]);
    }
    /* Somebody else's file cannot be given a time: that is told, and the file is taken. */
    if (!is_taken(models[2], "") || !strstr(told, "cannot remember it")) _exit(8);
    _exit(0);
}

static void test_read_only_folders_share_the_cache(void **state) {
    (void)state;
    char *cache = test_path(test_folder, "cache");
    char *folders[2] = { test_path(test_folder, "a"), test_path(test_folder, "b") };
    char *models[3] = { test_path(folders[0], "tiny.gguf"), test_path(folders[1], "tiny.gguf"), model_path };
    if (getuid() != 0) skip();
    assert_int_equal(chmod(test_folder, 0755), 0);
    assert_int_equal(mkdir(cache, 0777), 0);
    assert_int_equal(chmod(cache, 0777), 0);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(mkdir(folders[i], 0755), 0);
        write_model(models[i], i + 1, OLD);
    }
    prepare(model_path, NULL);
    set_time(model_path, OLD + 7);
    assert_int_equal(setenv("XDG_CACHE_HOME", cache, 1), 0);
    const pid_t child = fork();
    if (child == 0) compare_in_shared_cache((const char *const *)models);
    int how;
    assert_true(waitpid(child, &how, 0) > 0);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 0);
    free(cache);
    for (int i = 0; i < 2; i++) {
        free(folders[i]);
        free(models[i]);
    }
}

/* ---- several parts ---- */

/* Part `number` of two of a model: its metadata and the first half of its tensors, or the second. */
static void write_part(const char *whole_path, const char *path, uint32_t number, time_t seconds) {
    pi2_gguf *gguf;
    pi2_gguf_writer *writer;
    const uint8_t *header;
    size_t header_bytes, whole_bytes;
    assert_int_equal(pi2_gguf_open(whole_path, &gguf), PI2_OK);
    uint8_t *whole = test_file_read(whole_path, &whole_bytes);
    assert_int_equal(pi2_gguf_writer_open(32, &writer), PI2_OK);
    for (size_t i = 0; number == 0 && i < pi2_gguf_entry_count(gguf); i++) {
        const pi2_gguf_entry entry = pi2_gguf_entry_at(gguf, i);
        pi2_gguf_writer_entry(writer, &entry);
    }
    const size_t count = pi2_gguf_tensor_count(gguf), from = number ? count / 2 : 0, to = number ? count : count / 2;
    pi2_gguf_writer_u32(writer, "split.no", number);
    pi2_gguf_writer_u32(writer, "split.count", 2);
    pi2_gguf_writer_u32(writer, "split.tensors.count", (uint32_t)count);
    uint64_t offsets[128];
    assert_true(count <= 128);
    for (size_t i = from; i < to; i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(gguf, i);
        offsets[i] = pi2_gguf_writer_tensor(writer, tensor->name, tensor->type, tensor->dimension_count,
                                            tensor->dimensions);
    }
    assert_int_equal(pi2_gguf_writer_finish(writer, &header, &header_bytes), PI2_OK);
    const size_t bytes = header_bytes + (size_t)pi2_gguf_writer_data_bytes(writer);
    uint8_t *image = calloc(1, bytes);
    assert_non_null(image);
    memcpy(image, header, header_bytes);
    for (size_t i = from; i < to; i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(gguf, i);
        memcpy(image + header_bytes + offsets[i], whole + tensor->file_offset, tensor->bytes);
    }
    test_file_write(path, image, bytes);
    set_time(path, seconds);
    free(image);
    free(whole);
    pi2_gguf_writer_close(writer);
    pi2_gguf_close(gguf);
}

static void test_one_part_of_two(void **state) {
    (void)state;
    char *parts[2] = { test_path(test_folder, "two-00001-of-00002.gguf"),
                       test_path(test_folder, "two-00002-of-00002.gguf") };
    write_model(other_path, 2, OLD);
    for (uint32_t i = 0; i < 2; i++) write_part(model_path, parts[i], i, OLD + i);
    expect_right(parts[0]);
    assert_int_equal(compared_bytes, 0);
    for (uint32_t i = 0; i < 2; i++) {
        static const time_t times[] = { OLD - 1000, OLD, OLD + 1 };
        for (size_t t = 0; t < 3; t++) {
            write_part(other_path, parts[i], i, times[t]);
            assert_false(is_taken(parts[0], "other weights"));
            expect_right(parts[0]);
            write_part(model_path, parts[i], i, OLD + i);
            expect_right(parts[0]);
        }
        /* The newest part's time is as it was; the other's tells. */
        set_time(parts[i], OLD - 5 - (time_t)i);
        assert_true(is_taken(parts[0], ""));
        assert_true(compared_bytes > 0);
        assert_true(is_taken(parts[0], ""));
        assert_int_equal(compared_bytes, 0);
    }
    free(parts[0]);
    free(parts[1]);
}

/* ---- while it is prepared ---- */

static void change_meanwhile(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)user, (void)what, (void)done, (void)total;
    set_time(model_path, OLD + 70);
}

static void test_changed_while_it_is_prepared(void **state) {
    (void)state;
    const pi2_prepare_options options = { .model_path = model_path, .callbacks.progress = change_meanwhile };
    assert_int_equal(pi2_prepare_file(&options, NULL), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "tiny.gguf: the file was changed while it was read"));
    assert_int_not_equal(access(cluster_path, F_OK), 0);
}

/* ---- while it is opened ---- */

/* The other model's cluster file takes the place of this one's when it was compared, and before it is opened. */
static void turn_place(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)user;
    if (strcmp(what, "comparing") == 0 && done == total) (void)rename(fresh_path, cluster_path);
}

static void test_replaced_while_it_is_opened(void **state) {
    (void)state;
    pi2_engine *engine = NULL;
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = model_path;
    options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    options.context_tokens = 64;
    options.callbacks.progress = turn_place;
    write_model(other_path, 2, OLD);
    prepare(model_path, cluster_path);
    prepare(other_path, fresh_path);
    set_time(model_path, OLD + 7); /* it is compared whole */
    assert_int_equal(pi2_engine_open(&options, &engine), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "tiny.pi2: another file took its place"));
    assert_null(engine);
    assert_false(is_taken(model_path, "other weights")); /* and now it is known */
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, test_folder_end)
    const struct CMUnitTest tests[] = {
        TEST(test_time_is_no_proof),
        TEST(test_same_weights_with_another_time),
        TEST(test_what_changed_just_now_is_not_remembered),
        TEST(test_comparing_is_cancelled),
        TEST(test_any_tensor_changed_broadly),
        TEST(test_any_byte_changed_in_place),
        TEST(test_headers_and_sizes),
        TEST(test_what_is_no_cluster_file_of_today),
        TEST(test_link_that_is_turned),
        TEST(test_read_only_folders_share_the_cache),
        TEST(test_one_part_of_two),
        TEST(test_changed_while_it_is_prepared),
        TEST(test_replaced_while_it_is_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
