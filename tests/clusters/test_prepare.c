/* Goal:   prepare writes a cluster file that holds the source bit for bit, is the same bytes
 *         wherever made, and is never seen half-written; whatever fails is named and cleaned up.
 * Method: in both layouts, tiny models; system calls that fail, stall or write little; children that are killed or
 *         run at the same time; every way in which a source can change. */
#define _DEFAULT_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
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
#include "base/fail.h"
#include "clusters/extent_build.h"
#include "clusters/neuron_bank_verify.h"
#include "clusters/prepare.h"
#include "support/model_layout.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

static char *model_path, *output_path;
static pi2_layout_kind layout_kind; /* of every file that is made here */

static void write_model(uint32_t seed) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.seed = seed;
    options.embedding_length = 512;
    options.feed_forward_length = 1792;
    options.down_type = PI2_Q6_K;
    options.gate_type = PI2_Q8_0;
    options.tied_head = false;
    assert_int_equal(pi2_tiny_model_write(&options, model_path), 0);
}

static int set_up(void **state) {
    (void)test_folder_begin_in_memory(state);
    model_path = test_folder_path("tiny.gguf");
    output_path = test_folder_path("tiny.pi2");
    write_model(1);
    return 0;
}

static pi2_status prepare_at(const char *path, const pi2_prepare_settings *settings) {
    test_model model;
    pi2_prepare_settings laid_out = *settings;
    laid_out.layout = layout_kind;
    test_model_open(model_path, &model);
    const pi2_status status = pi2_prepare(model.gguf, model.requests.groups,
                                          model.requests.group_count, path, &laid_out);
    test_model_close(&model);
    return status;
}

static pi2_status prepare(const pi2_prepare_settings *settings) {
    return prepare_at(output_path, settings);
}

static void expect_prepared(void) {
    const pi2_prepare_settings settings = { 0 };
    if (prepare(&settings) != PI2_OK) fail_msg("%s", pi2_error_text());
}

/** Names in the folder besides the model. */
static size_t count_files(void) {
    DIR *opened = opendir(test_folder);
    assert_non_null(opened);
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(opened));) {
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") &&
            strcmp(entry->d_name, "tiny.gguf")) {
            count++;
        }
    }
    assert_int_equal(closedir(opened), 0);
    return count;
}

/* ---- what is written -------------------------------------------------------------------- */

static void compare_tables(const pi2_gguf *source, const pi2_gguf *cluster,
                           const pi2_extent_layout *layout) {
    size_t source_bytes, cluster_bytes, tables = 0;
    uint8_t *source_data = test_file_read(pi2_gguf_file_path(source, 0), &source_bytes);
    uint8_t *cluster_data = test_file_read(pi2_gguf_file_path(cluster, 0), &cluster_bytes);
    for (size_t i = 0; i < pi2_gguf_tensor_count(source); i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(source, i);
        const pi2_gguf_tensor *table = pi2_gguf_tensor_find(cluster, tensor->name);
        bool is_matrix = false;
        for (uint32_t t = 0; t < layout->tensor_count; t++) {
            if (strcmp(layout->tensors[t].name, tensor->name) == 0) is_matrix = true;
        }
        if (is_matrix) {
            assert_null(table);
            continue;
        }
        tables++;
        assert_non_null(table);
        assert_int_equal(table->type, tensor->type);
        assert_int_equal(table->bytes, tensor->bytes);
        assert_memory_equal(cluster_data + table->file_offset, source_data + tensor->file_offset,
                            tensor->bytes);
        assert_int_equal(
            pi2_cluster_file_check_table(cluster, table, cluster_data + table->file_offset), PI2_OK);
    }
    assert_true(tables > 0);
    free(source_data);
    free(cluster_data);
}

/** Checksums, and that neurons are what tiles are. */
static pi2_status verify(const pi2_gguf *gguf) {
    pi2_extent_layout *layout;
    pi2_source_identity identity;
    pi2_neuron_banks *banks = NULL;
    PI2_TRY(pi2_cluster_file_verify(gguf, NULL));
    PI2_TRY(pi2_cluster_file_layout(gguf, &layout, &identity));
    pi2_status status = pi2_cluster_file_banks(gguf, layout, &banks);
    if (status == PI2_OK && banks) status = pi2_neuron_banks_verify(gguf, layout, banks, NULL);
    pi2_neuron_banks_free(banks);
    pi2_extent_layout_free(layout);
    return status;
}

static void check_banks(const pi2_gguf *cluster, const pi2_extent_layout *layout) {
    pi2_neuron_banks *banks;
    if (pi2_cluster_file_banks(cluster, layout, &banks) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(banks != NULL, layout_kind == PI2_LAYOUT_NEURON);
    assert_int_equal(pi2_cluster_file_has_neurons(cluster), layout_kind == PI2_LAYOUT_NEURON);
    if (banks) {
        assert_int_equal(banks->count, 2);
        assert_int_equal(banks->left_out_count, 0);
    }
    pi2_neuron_banks_free(banks);
}

static void check_cluster_file(void) {
    test_model model;
    pi2_gguf *cluster;
    pi2_extent_layout *layout;
    pi2_source_identity identity, wanted;
    size_t bytes;
    test_model_open_as(model_path, layout_kind, &model);
    assert_int_equal(pi2_gguf_open(output_path, &cluster), PI2_OK);
    assert_true(pi2_cluster_file_is(cluster));
    assert_false(pi2_cluster_file_is(model.gguf));
    if (pi2_cluster_file_layout(cluster, &layout, &identity)) fail_msg("%s", pi2_error_text());
    assert_int_equal(pi2_source_identity_of(model.gguf, &wanted), PI2_OK);
    assert_true(identity.bytes == wanted.bytes && identity.header_hash == wanted.header_hash);
    assert_int_equal(layout->extent_count, model.layout->extent_count);
    assert_int_equal(layout->piece_count, model.layout->piece_count);
    assert_int_equal(layout->weight_bytes, model.layout->weight_bytes);
    uint8_t *file = test_file_read(output_path, &bytes);
    void **extents = test_extents_make(layout);
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        const pi2_extent *extent = &layout->extents[e];
        assert_int_equal(extent->bytes, model.layout->extents[e].bytes);
        assert_int_equal(extent->file_offset % PI2_EXTENT_ALIGNMENT, 0);
        assert_true(extent->file_offset + pi2_extent_read_bytes(extent) <= bytes);
        memcpy(extents[e], file + extent->file_offset, extent->bytes);
        assert_int_equal(pi2_cluster_file_check_extent(output_path, layout, e, extents[e]), PI2_OK);
    }
    test_extents_check(layout, extents, model.gguf);
    test_extents_free(extents, layout);
    free(file);
    compare_tables(model.gguf, cluster, layout);
    /* The source's metadata are there too. */
    uint32_t layers;
    assert_int_equal(pi2_gguf_u32(cluster, "llama.block_count", &layers), PI2_OK);
    assert_true(pi2_gguf_has(cluster, "tokenizer.ggml.tokens"));
    check_banks(cluster, layout);
    if (verify(cluster)) fail_msg("%s", pi2_error_text());
    pi2_extent_layout_free(layout);
    pi2_gguf_close(cluster);
    test_model_close(&model);
}

static void test_holds_the_source(void **state) {
    (void)state;
    expect_prepared();
    check_cluster_file();
    assert_int_equal(count_files(), 1);
}

static void test_same_bytes_wherever_made(void **state) {
    (void)state;
    size_t first_bytes, second_bytes;
    pi2_prepare_settings settings = { .memory_bytes = 64000000 };
    assert_int_equal(prepare(&settings), PI2_OK);
    uint8_t *first = test_file_read(output_path, &first_bytes);
    const struct timespec times[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
    assert_int_equal(utimensat(AT_FDCWD, model_path, times, 0), 0);
    settings = (pi2_prepare_settings){ .memory_bytes = 2000000, .overwrite = true };
    if (prepare(&settings) != PI2_OK) fail_msg("%s", pi2_error_text());
    uint8_t *second = test_file_read(output_path, &second_bytes);
    assert_int_equal(first_bytes, second_bytes);
    assert_memory_equal(first, second, first_bytes);
    free(first);
    free(second);
}

static void test_memory_too_small(void **state) {
    (void)state;
    const pi2_prepare_settings settings = { .memory_bytes = 400000 };
    assert_int_equal(prepare(&settings), PI2_ERR_MEMORY);
    assert_non_null(strstr(pi2_error_text(), "at least"));
    assert_int_equal(count_files(), 0);
}

/* ---- failures --------------------------------------------------------------------------- */

static _Atomic int calls_left, call_count; /* several threads write */

static ssize_t failing_write(int file, const void *bytes, size_t count, off_t offset) {
    call_count++;
    if (calls_left-- <= 0) {
        errno = ENOSPC;
        return -1;
    }
    return pwrite(file, bytes, count, offset);
}

static ssize_t short_write(int file, const void *bytes, size_t count, off_t offset) {
    if (call_count++ % 3 == 1) {
        errno = EINTR;
        return -1;
    }
    return pwrite(file, bytes, count > 100001 ? 100001 : count, offset);
}

/** Waiting for the disk is not what these tests are about. */
static int good_sync(int file) {
    (void)file;
    return 0;
}

static int failing_sync(int file) {
    if (calls_left-- > 0) return fdatasync(file);
    errno = EIO;
    return -1;
}

static uint64_t much_space(int file) {
    (void)file;
    return UINT64_MAX;
}

static uint64_t little_space(int file) {
    (void)file;
    return 100000;
}

static void test_full_disk(void **state) {
    (void)state;
    const pi2_prepare_calls calls = { failing_write, good_sync, much_space };
    const pi2_prepare_settings settings = { .calls = &calls };
    pi2_status status;
    int tries = 0;
    do { /* every write in turn, the header's at the end included */
        calls_left = tries++;
        status = prepare(&settings);
        if (status == PI2_OK) break;
        assert_int_equal(status, PI2_ERR_IO);
        assert_non_null(strstr(pi2_error_text(), "tiny.pi2"));
        assert_non_null(strstr(pi2_error_text(), "make room"));
        assert_int_equal(count_files(), 0);
    } while (tries < 1000);
    assert_true(tries > 5 && tries < 1000);
    check_cluster_file();
}

static void test_disk_errors(void **state) {
    (void)state;
    const pi2_prepare_calls calls = { pwrite, failing_sync, much_space };
    const pi2_prepare_settings settings = { .calls = &calls };
    for (int i = 0; i < 2; i++) {
        calls_left = i;
        assert_int_equal(prepare(&settings), PI2_ERR_IO);
        assert_non_null(strstr(pi2_error_text(), strerror(EIO)));
        assert_int_equal(count_files(), 0);
    }
}

static void test_free_space_comes_first(void **state) {
    (void)state;
    const pi2_prepare_calls calls = { failing_write, good_sync, little_space };
    const pi2_prepare_settings settings = { .calls = &calls };
    call_count = 0;
    assert_int_equal(prepare(&settings), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "100000 are free"));
    assert_int_equal(call_count, 0);
    assert_int_equal(count_files(), 0);
}

static void test_short_writes(void **state) {
    (void)state;
    const pi2_prepare_calls calls = { short_write, good_sync, much_space };
    const pi2_prepare_settings settings = { .calls = &calls };
    assert_int_equal(prepare(&settings), PI2_OK);
    check_cluster_file();
}

static void test_folder_that_cannot_be_written(void **state) {
    (void)state;
    const pi2_prepare_settings settings = { 0 };
    char *path = test_path(test_folder, "absent/tiny.pi2");
    assert_int_equal(prepare_at(path, &settings), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "absent"));
    free(path);
}

static void test_source_that_breaks_off(void **state) {
    (void)state;
    const pi2_prepare_settings settings = { .layout = layout_kind };
    test_model model;
    test_model_open(model_path, &model);
    assert_int_equal(truncate(model_path, (off_t)pi2_gguf_file_bytes(model.gguf, 0) - 8192), 0);
    assert_int_equal(pi2_prepare(model.gguf, model.requests.groups, model.requests.group_count,
                                 output_path, &settings),
                     PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "tiny.gguf"));
    assert_int_equal(count_files(), 0);
    test_model_close(&model);
}

static bool cancel_later(void *user) { return --*(int *)user < 0; }

static void test_cancelling(void **state) {
    (void)state;
    int left = 3;
    const pi2_prepare_settings settings = { .callbacks = { .user = &left,
                                                           .cancelled = cancel_later } };
    assert_int_equal(prepare(&settings), PI2_ERR_INTERRUPTED);
    assert_int_equal(count_files(), 0);
}

static uint64_t last_done, last_total;

static void note_progress(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)user;
    assert_string_equal(what, "preparing");
    assert_true(done >= last_done);
    last_done = done;
    last_total = total;
}

static void test_progress_ends_at_the_total(void **state) {
    (void)state;
    last_done = 0;
    const pi2_prepare_settings settings = { .callbacks = { .progress = note_progress } };
    assert_int_equal(prepare(&settings), PI2_OK);
    assert_true(last_total > 0);
    assert_int_equal(last_done, last_total);
}

/* ---- other processes -------------------------------------------------------------------- */

static ssize_t killing_write(int file, const void *bytes, size_t count, off_t offset) {
    if (calls_left-- <= 0) (void)raise(SIGKILL);
    return pwrite(file, bytes, count, offset);
}

static ssize_t slow_write(int file, const void *bytes, size_t count, off_t offset) {
    const struct timespec pause = { .tv_nsec = 20 * 1000 * 1000 };
    (void)nanosleep(&pause, NULL);
    return pwrite(file, bytes, count, offset);
}

/** Runs prepare in a child; returns its process id. */
static pid_t prepare_in_child(const pi2_prepare_calls *calls) {
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const pi2_prepare_settings settings = { .calls = calls };
        _exit(prepare(&settings) == PI2_OK ? 0 : 1);
    }
    return child;
}

static void test_killed_at_any_write(void **state) {
    (void)state;
    const pi2_prepare_calls calls = { killing_write, good_sync, much_space };
    int how = 0, kills = 0;
    for (calls_left = 0; kills < 1000; calls_left = ++kills) {
        assert_int_equal(waitpid(prepare_in_child(&calls), &how, 0) > 0, 1);
        if (!WIFSIGNALED(how)) break;
        assert_int_equal(WTERMSIG(how), SIGKILL);
        assert_int_equal(access(output_path, F_OK), -1); /* nothing looks finished */
        char *temporary = test_path(test_folder, ".tiny.pi2.tmp");
        pi2_gguf *gguf;
        assert_true(pi2_gguf_open(temporary, &gguf) != PI2_OK);
        free(temporary);
    }
    assert_true(kills > 5 && kills < 1000);
    assert_int_equal(WEXITSTATUS(how), 0);
    assert_int_equal(count_files(), 1); /* what the killed ones left was used over */
    check_cluster_file();
}

static int waiting_lines;

static void note_waiting(void *user, const char *line) {
    (void)user;
    if (strstr(line, "waiting")) waiting_lines++;
}

static void test_second_run_waits(void **state) {
    (void)state;
    const pi2_prepare_calls slow = { slow_write, good_sync, much_space };
    const pi2_prepare_calls counting = { failing_write, good_sync, much_space };
    const pi2_prepare_settings settings = { .calls = &counting,
                                            .callbacks = { .log = note_waiting } };
    char *temporary = test_path(test_folder, ".tiny.pi2.tmp");
    struct stat status;
    const struct timespec pause = { .tv_nsec = 1000 * 1000 };
    const pid_t child = prepare_in_child(&slow);
    while (stat(temporary, &status) != 0 || status.st_size == 0) (void)nanosleep(&pause, NULL);
    call_count = 0;
    calls_left = 0;
    waiting_lines = 0;
    if (prepare(&settings) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(waiting_lines, 1);
    assert_int_equal(call_count, 0); /* the first run's result was taken */
    int how;
    assert_true(waitpid(child, &how, 0) > 0);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    check_cluster_file();
    free(temporary);
}

static void test_second_run_takes_over_from_a_killed_one(void **state) {
    (void)state;
    const pi2_prepare_calls slow = { slow_write, good_sync, much_space };
    char *temporary = test_path(test_folder, ".tiny.pi2.tmp");
    struct stat status;
    const struct timespec pause = { .tv_nsec = 1000 * 1000 };
    const pid_t child = prepare_in_child(&slow);
    while (stat(temporary, &status) != 0 || status.st_size == 0) (void)nanosleep(&pause, NULL);
    assert_int_equal(kill(child, SIGKILL), 0);
    expect_prepared();
    int how;
    assert_true(waitpid(child, &how, 0) > 0);
    check_cluster_file();
    free(temporary);
}

/* ---- damage and change ------------------------------------------------------------------ */

static pi2_status verify_file(const char *path) {
    pi2_gguf *gguf;
    pi2_status status = pi2_gguf_open(path, &gguf);
    if (status == PI2_OK) status = verify(gguf);
    pi2_gguf_close(gguf);
    return status;
}

/** Marks the bytes that mean something: all but padding. */
static uint8_t *mark_meaning(size_t file_bytes) {
    pi2_gguf *gguf;
    pi2_extent_layout *layout;
    pi2_source_identity identity;
    uint8_t *marks = calloc(file_bytes, 1);
    assert_non_null(marks);
    assert_int_equal(pi2_gguf_open(output_path, &gguf), PI2_OK);
    assert_int_equal(pi2_cluster_file_layout(gguf, &layout, &identity), PI2_OK);
    memset(marks, 1, pi2_gguf_file_header_bytes(gguf, 0));
    for (size_t i = 0; i < pi2_gguf_tensor_count(gguf); i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(gguf, i);
        if (tensor->type != 24) memset(marks + tensor->file_offset, 1, tensor->bytes);
    }
    for (uint32_t i = 0; i < layout->extent_count; i++) {
        memset(marks + layout->extents[i].file_offset, 1, layout->extents[i].bytes);
    }
    pi2_neuron_banks *banks;
    assert_int_equal(pi2_cluster_file_banks(gguf, layout, &banks), PI2_OK);
    for (uint32_t i = 0; banks && i < banks->count; i++) {
        const pi2_neuron_bank *bank = &banks->banks[i];
        memset(marks + bank->file_offset, 1, pi2_neuron_bank_units_bytes(bank));
        memset(marks + bank->head_offset, 1, bank->head_bytes);
    }
    pi2_neuron_banks_free(banks);
    pi2_extent_layout_free(layout);
    pi2_gguf_close(gguf);
    return marks;
}

static void test_flipped_bytes_are_found(void **state) {
    (void)state;
    size_t bytes;
    expect_prepared();
    uint8_t *marks, *file = test_file_read(output_path, &bytes);
    marks = mark_meaning(bytes);
    const int opened = open(output_path, O_RDWR);
    assert_true(opened >= 0);
    size_t found = 0;
    for (size_t at = 0; at < bytes; at += at < 20000 ? 331 : 17011) {
        uint8_t changed = file[at] ^ 0x10;
        assert_int_equal(pwrite(opened, &changed, 1, (off_t)at), 1);
        const pi2_status status = verify_file(output_path);
        if (marks[at]) {
            if (status != PI2_ERR_FORMAT && status != PI2_ERR_UNSUPPORTED) {
                fail_msg("byte %zu: %s", at, pi2_status_name(status));
            }
            assert_non_null(strstr(pi2_error_text(), "tiny.pi2"));
            found++;
        } else {
            assert_int_equal(status, PI2_OK);
        }
        assert_int_equal(pwrite(opened, file + at, 1, (off_t)at), 1);
    }
    assert_true(found > 100);
    assert_int_equal(verify_file(output_path), PI2_OK);
    assert_int_equal(close(opened), 0);
    free(marks);
    free(file);
}

static void test_damage_is_named(void **state) {
    (void)state;
    pi2_gguf *gguf;
    pi2_extent_layout *layout;
    pi2_source_identity identity;
    char wanted[64];
    expect_prepared();
    assert_int_equal(pi2_gguf_open(output_path, &gguf), PI2_OK);
    assert_int_equal(pi2_cluster_file_layout(gguf, &layout, &identity), PI2_OK);
    const pi2_gguf_tensor *norm = pi2_gguf_tensor_find(gguf, "blk.1.ffn_norm.weight");
    assert_non_null(norm);
    const uint32_t e = layout->extent_count / 2;
    const int opened = open(output_path, O_RDWR);
    assert_int_equal(pwrite(opened, "\xfe\xdc", 2, (off_t)layout->extents[e].file_offset + 77), 2);
    assert_int_equal(verify_file(output_path), PI2_ERR_FORMAT);
    (void)snprintf(wanted, sizeof wanted, "extent %u, tensor '", e);
    assert_non_null(strstr(pi2_error_text(), wanted));
    (void)snprintf(wanted, sizeof wanted, "at byte %lu",
                   (unsigned long)layout->extents[e].file_offset);
    assert_non_null(strstr(pi2_error_text(), wanted));
    assert_int_equal(pwrite(opened, "\xfe\xdc", 2, (off_t)norm->file_offset), 2);
    assert_int_equal(verify_file(output_path), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "'blk.1.ffn_norm.weight'"));
    assert_int_equal(close(opened), 0);
    pi2_extent_layout_free(layout);
    pi2_gguf_close(gguf);
}

static void test_truncation_is_found(void **state) {
    (void)state;
    struct stat status;
    expect_prepared();
    assert_int_equal(stat(output_path, &status), 0);
    for (off_t length = status.st_size - 1; length >= 0; length -= length < 20000 ? 97 : 8191) {
        assert_int_equal(truncate(output_path, length), 0);
        assert_int_equal(verify_file(output_path), PI2_ERR_FORMAT);
        assert_non_null(strstr(pi2_error_text(), "tiny.pi2"));
    }
    expect_prepared(); /* a damaged file is made again */
    check_cluster_file();
}

static void test_folder_that_is_read_only(void **state) {
    (void)state;
    /* Root may write anywhere, so the check is done as somebody else. */
    assert_int_equal(chmod(test_folder, 0755), 0);
    char *cache = test_path(test_folder, "cache");
    assert_int_equal(mkdir(cache, 0777), 0);
    assert_int_equal(chmod(cache, 0777), 0);
    const pid_t child = fork();
    if (child == 0) {
        if (getuid() == 0 && setuid(65534) != 0) _exit(2);
        if (getuid() != 65534 && chmod(test_folder, 0555) != 0) _exit(3);
        pi2_gguf *source;
        char *path, *found, note[512];
        if (setenv("XDG_CACHE_HOME", cache, 1) || pi2_gguf_open(model_path, &source)) _exit(4);
        if (pi2_cluster_file_default_path(source, &path) != PI2_OK) _exit(5);
        if (strncmp(path, cache, strlen(cache)) != 0) _exit(6);
        const pi2_prepare_settings settings = { 0 };
        if (prepare_at(path, &settings) != PI2_OK) _exit(7);
        if (pi2_cluster_file_find(source, NULL, NULL, NULL, &found, note, sizeof note, NULL)) _exit(8);
        if (!found || strcmp(found, path) != 0) _exit(9);
        if (prepare(&settings) != PI2_ERR_IO) _exit(10);
        if (!strstr(pi2_error_text(), "choose another place")) _exit(11);
        free(found);
        free(path);
        pi2_gguf_close(source);
        _exit(0);
    }
    int how;
    assert_true(waitpid(child, &how, 0) > 0);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 0);
    assert_int_equal(chmod(test_folder, 0755), 0);
    free(cache);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, test_folder_end)
    const struct CMUnitTest tests[] = {
        TEST(test_holds_the_source),
        TEST(test_same_bytes_wherever_made),
        TEST(test_memory_too_small),
        TEST(test_full_disk),
        TEST(test_disk_errors),
        TEST(test_free_space_comes_first),
        TEST(test_short_writes),
        TEST(test_folder_that_cannot_be_written),
        TEST(test_source_that_breaks_off),
        TEST(test_cancelling),
        TEST(test_progress_ends_at_the_total),
        TEST(test_killed_at_any_write),
        TEST(test_second_run_waits),
        TEST(test_second_run_takes_over_from_a_killed_one),
        TEST(test_flipped_bytes_are_found),
        TEST(test_damage_is_named),
        TEST(test_truncation_is_found),
        TEST(test_folder_that_is_read_only),
    };
    const int failed = cmocka_run_group_tests_name("dense layout", tests, NULL, NULL);
    layout_kind = PI2_LAYOUT_NEURON;
    return failed + cmocka_run_group_tests_name("neuron layout", tests, NULL, NULL);
}
