/*
 * Goal:   a machine profile comes back from its file as it was; one that is damaged, cut, of another
 *         version or machine is refused with the reason; measuring gives every kind of value.
 * Method: a made-up profile, changed byte by byte; one quick measurement of this machine.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cache_size.h"
#include "machine/machine_profile.h"
#include "machine/read_gaps.h"
#include "support/temporary_files.h"

static void fill(pi2_machine_profile *profile) {
    memset(profile, 0, sizeof *profile);
    pi2_machine_identify(&profile->identity);
    profile->time = 1760000000;
    profile->disks[0] = (pi2_machine_disk){.device = 4711, .place = "/", .time = 1760000000};
    profile->disk_count = 1;
    assert_true(pi2_profile_add(profile, PI2_MEASURED_MEMORY, NULL, 1, 0, 0, 10e9, 0.01));
    assert_true(pi2_profile_add(profile, PI2_MEASURED_MEMORY, NULL, 4, 0, 0, 16e9, 0.03));
    assert_true(pi2_profile_add(profile, PI2_MEASURED_BATCH, "Q4_0", 16, 2, 0, 1e11, 0));
    assert_true(pi2_profile_add(profile, PI2_MEASURED_BATCH, "Q4_0", 16, 4, 0, 2e11, 0));
    assert_true(pi2_profile_add(profile, PI2_MEASURED_DISK, "pread", 524288, 32, 0, 1.5e9, 0.1));
}

static void save(pi2_machine_profile *profile, const char *path) {
    pi2_output_file file;
    memcpy(profile->path, path, strlen(path) + 1);
    if (pi2_profile_open(path, NULL, &file) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(pi2_profile_save(profile, &file), PI2_OK);
}

static void test_round_trip(void **state) {
    (void)state;
    pi2_machine_profile *profile = malloc(sizeof *profile), *loaded = NULL;
    assert_non_null(profile);
    fill(profile);
    char *path = test_path(test_folder, "a/b/machine.profile");
    save(profile, path);
    if (pi2_machine_load(path, &loaded) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(loaded->count, profile->count);
    assert_string_equal(loaded->path, path);
    assert_true(pi2_machine_profile_time(loaded) == 1760000000);
    assert_string_equal(loaded->identity.cpu, profile->identity.cpu);
    for (size_t i = 0; i < profile->count; i++) {
        assert_memory_equal(&loaded->items[i], &profile->items[i], sizeof profile->items[i]);
    }
    pi2_machine_free(loaded);
    free(profile);
    free(path);
}

static void test_damage(void **state) {
    (void)state;
    pi2_machine_profile *profile = malloc(sizeof *profile), *loaded = NULL;
    assert_non_null(profile);
    fill(profile);
    char *path = test_path(test_folder, "damaged.profile");
    save(profile, path);
    size_t length;
    uint8_t *bytes = test_file_read(path, &length);
    for (size_t i = 0; i < length; i++) {
        const uint8_t byte = bytes[i];
        bytes[i] ^= 5;
        test_file_write(path, bytes, length);
        assert_int_not_equal(pi2_machine_load(path, &loaded), PI2_OK);
        assert_null(loaded);
        assert_non_null(strstr(pi2_error_text(), "damaged.profile"));
        bytes[i] = byte;
    }
    for (size_t cut = 32; cut < length; cut++) { /* past the line with the version */
        test_file_write(path, bytes, cut);
        assert_int_equal(pi2_machine_load(path, &loaded), PI2_ERR_FORMAT);
        assert_non_null(strstr(pi2_error_text(), "damaged"));
    }
    free(bytes);
    assert_int_equal(pi2_machine_load("/nonexistent/machine.profile", &loaded), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "powerinfer2 machine"));
    free(profile);
    free(path);
}

static void expect_outdated(pi2_machine_profile *profile, const char *what) {
    char *path = test_path(test_folder, "outdated.profile");
    pi2_machine_profile *loaded = NULL;
    save(profile, path);
    assert_int_equal(pi2_machine_load(path, &loaded), PI2_ERR_UNSUPPORTED);
    assert_non_null(strstr(pi2_error_text(), "outdated"));
    if (!strstr(pi2_error_text(), what)) fail_msg("no '%s' in: %s", what, pi2_error_text());
    free(path);
    fill(profile);
}

static void test_outdated(void **state) {
    (void)state;
    pi2_machine_profile *profile = malloc(sizeof *profile);
    assert_non_null(profile);
    fill(profile);
    strcpy(profile->identity.cpu, "Abacus 3000");
    expect_outdated(profile, "processor 'Abacus 3000'");
    strcpy(profile->identity.isa, "beads");
    expect_outdated(profile, "instruction set 'beads'");
    strcpy(profile->identity.system, "Merchant 1.0");
    expect_outdated(profile, "system 'Merchant 1.0'");
    profile->identity.cores += 3;
    expect_outdated(profile, "processors");
    free(profile);
}

static void test_values(void **state) {
    (void)state;
    pi2_machine_profile *profile = malloc(sizeof *profile);
    assert_non_null(profile);
    fill(profile);
    double spread = -1;
    assert_true(pi2_profile_value(profile, PI2_MEASURED_MEMORY, "", 1, 0, 0, NULL) == 10e9);
    assert_true(pi2_profile_value(profile, PI2_MEASURED_MEMORY, "", 2, 0, 0, &spread) == 12e9);
    assert_true(spread == 0.03);
    assert_true(pi2_profile_value(profile, PI2_MEASURED_MEMORY, "", 64, 0, 0, NULL) == 16e9);
    assert_true(pi2_profile_value(profile, PI2_MEASURED_BATCH, "Q4_0", 500, 2, 0, NULL) == 1e11);
    assert_true(pi2_profile_value(profile, PI2_MEASURED_BATCH, "Q4_0", 1, 5, 0, NULL) == 2e11);
    assert_true(pi2_profile_value(profile, PI2_MEASURED_BATCH, "Q8_0", 1, 4, 0, NULL) == 0);
    while (pi2_profile_add(profile, PI2_MEASURED_CORE, NULL, 0, 0, 0, 1, 0)) continue;
    assert_int_equal(profile->count, PI2_PROFILE_MOST);
    free(profile);
}

/* Between what a cache holds and what none does, and between shares of neurons that fire. */
static void test_reaches_and_shares(void **state) {
    (void)state;
    pi2_machine_profile *profile = calloc(1, sizeof *profile);
    assert_non_null(profile);
    assert_true(pi2_profile_add(profile, PI2_MEASURED_MEMORY, NULL, 2, 1 << 20, 0, 40e9, 0));
    assert_true(pi2_profile_add(profile, PI2_MEASURED_MEMORY, NULL, 2, 16 << 20, 0, 10e9, 0));
    assert_true(pi2_profile_value(profile, PI2_MEASURED_MEMORY, "", 2, 0, 0, NULL) == 40e9);
    assert_true(pi2_profile_value(profile, PI2_MEASURED_MEMORY, "", 2, 1 << 19, 0, NULL) == 40e9);
    assert_true(pi2_profile_value(profile, PI2_MEASURED_MEMORY, "", 2, UINT64_MAX, 0, NULL) == 10e9);
    const double middle = pi2_profile_value(profile, PI2_MEASURED_MEMORY, "", 2, 4 << 20, 0, NULL);
    assert_true(middle > 24.9e9 && middle < 25.1e9);
    assert_true(pi2_profile_add(profile, PI2_MEASURED_DECODE, "Q4_0", 2, 1 << 20, 256, 30e9, 0));
    assert_true(pi2_profile_add(profile, PI2_MEASURED_DECODE, "Q4_0", 2, 16 << 20, 256, 9e9, 0));
    assert_true(pi2_profile_value(profile, PI2_MEASURED_DECODE, "Q4_0", 2, 0, 256, NULL) == 30e9);
    assert_true(pi2_profile_value(profile, PI2_MEASURED_DECODE, "Q4_0", 2, UINT64_MAX, 256, NULL) == 9e9);
    /* Half as many neurons share what a block takes: a column's seconds are a + b / share. */
    assert_true(pi2_profile_add(profile, PI2_MEASURED_COLUMNS, "Q4_0", 2, 8, 256, 1 / (1.0 + 8.0 / 8), 0));
    assert_true(pi2_profile_add(profile, PI2_MEASURED_COLUMNS, "Q4_0", 2, 64, 256, 1 / (1.0 + 8.0 / 64), 0));
    for (uint32_t share = 8; share <= 64; share++) {
        const double value = pi2_profile_value(profile, PI2_MEASURED_COLUMNS, "Q4_0", 2, share, 256, NULL);
        assert_true(value * (1.0 + 8.0 / share) > 0.999999 && value * (1.0 + 8.0 / share) < 1.000001);
    }
    assert_true(pi2_profile_value(profile, PI2_MEASURED_COLUMNS, "Q4_0", 2, 1, 256, NULL) == 0.5);
    free(profile);
}

static void test_measuring(void **state) {
    (void)state;
    char *path = test_path(test_folder, "measured.profile");
    const pi2_machine_options options = {.profile_path = path, .quick = true};
    pi2_machine_profile *profile = NULL, *loaded = NULL;
    if (pi2_machine_measure(&options, &profile) != PI2_OK) fail_msg("%s", pi2_error_text());
    size_t counts[PI2_MEASURED_KINDS] = {0};
    for (size_t i = 0; i < pi2_machine_measurement_count(profile); i++) {
        const pi2_measurement *item = pi2_machine_measurement(profile, i);
        counts[item->what]++;
        assert_true(item->value > 0);
        assert_true(item->spread >= 0);
    }
    for (int what = 0; what < PI2_MEASURED_KINDS; what++) {
        if (counts[what] == 0) fail_msg("nothing was measured of '%s'", pi2_measured_name((pi2_measured)what));
    }
    const uint64_t cache = pi2_last_level_cache_bytes("");
    const pi2_measurement *buffer = pi2_machine_measurement(profile, 0);
    assert_true(buffer->what == PI2_MEASURED_BUFFER && buffer->a == cache && buffer->value >= 12 << 20);
    for (size_t i = 0; i < pi2_machine_measurement_count(profile); i++) {
        const pi2_measurement *item = pi2_machine_measurement(profile, i);
        if (item->what == PI2_MEASURED_MEMORY) assert_true((double)item->b <= buffer->value);
    }
    for (unsigned share = 8; share <= 128; share *= 4) {
        assert_true(pi2_profile_value(profile, PI2_MEASURED_COLUMNS, "Q4_0", 1, share, 4096, NULL) > 0);
    }
    assert_true(pi2_profile_value(profile, PI2_MEASURED_ROWS, "Q8_0", 1, 0, 4096, NULL) > 0);
    assert_true(pi2_profile_value(profile, PI2_MEASURED_ROWS, "IQ4_XS", 1, 0, 4096, NULL) == 0); /* has no columns */
    assert_true(pi2_profile_value(profile, PI2_MEASURED_PREDICTOR, "2-bit", 1, 0, 4096, NULL) > 0);
    static const char *const of_store[] = {"tell", "find", "bring", "check"};
    for (size_t i = 0; i < sizeof of_store / sizeof of_store[0]; i++) {
        const double speed = pi2_profile_value(profile, PI2_MEASURED_STORE, of_store[i], 1, 0, 0, NULL);
        if (!(speed > 0 && speed < 1e12)) fail_msg("%s: %g", of_store[i], speed);
    }
    assert_true(pi2_profile_value(profile, PI2_MEASURED_SMALL_READ, "pread", 4096, 1, 0, NULL) > 0);
    assert_true(pi2_profile_value(profile, PI2_MEASURED_READ_CPU, "pread", 4096, 1, 0, NULL) > 0);
    assert_true(pi2_profile_value(profile, PI2_MEASURED_DISK, "pread", 524288, 32, 0, NULL) > 0);
    assert_int_equal(pi2_machine_disk_count(profile), 1);
    assert_false(pi2_machine_needs_disk(profile, path));
    if (pi2_machine_load(path, &loaded) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(loaded->count, profile->count);
    pi2_machine_free(loaded);
    pi2_machine_free(profile);
    free(path);
}

static size_t lines_of_disk(const pi2_machine_profile *profile, uint64_t disk) {
    size_t count = 0;
    for (size_t i = 0; i < profile->count; i++) {
        count += profile->items[i].what == PI2_MEASURED_DISK && profile->items[i].c == disk;
    }
    return count;
}

static void count_progress(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)what, (void)done, (void)total;
    ++*(uint32_t *)user;
}

/* Where a profile cannot be kept, nothing is measured for it. */
static void test_place_comes_first(void **state) {
    (void)state;
    uint32_t steps = 0;
    char *notes = test_path(test_folder, "notes.txt"), *below = test_path(test_folder, "notes.txt/machine.profile");
    test_file_write(notes, "notes", 5);
    const char *const paths[] = {notes, below, test_folder, "/dev/null"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        pi2_machine_profile *profile = NULL;
        const pi2_machine_options options = {.profile_path = paths[i], .quick = true,
                                            .callbacks = {.user = &steps, .progress = count_progress}};
        const pi2_status status = pi2_machine_measure(&options, &profile);
        assert_int_equal(status, i == 1 ? PI2_ERR_IO : PI2_ERR_INVALID);
        if (!strstr(pi2_error_text(), paths[i]) && i != 1) fail_msg("%s", pi2_error_text());
        assert_null(profile);
        assert_int_equal(steps, 0);
    }
    free(notes);
    free(below);
}

/* A profile that was made on another disk is measured on this one, and remembers both. */
static void test_disks(void **state) {
    (void)state;
    pi2_machine_profile *profile = malloc(sizeof *profile), *loaded = NULL;
    assert_non_null(profile);
    fill(profile);
    profile->disks[0] = (pi2_machine_disk){.device = 4711, .place = "/mnt/a far away disk", .time = 1760000000};
    profile->disk_count = 1;
    char *path = test_path(test_folder, "disks.profile");
    save(profile, path);
    assert_true(pi2_machine_needs_disk(profile, test_folder));
    assert_false(pi2_machine_needs_disk(profile, "/nonexistent/file"));
    const pi2_machine_options options = {.disk_path = test_folder, .quick = true};
    if (pi2_machine_measure_disk(profile, &options) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_false(pi2_machine_needs_disk(profile, test_folder));
    if (pi2_machine_load(path, &loaded) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(pi2_machine_disk_count(loaded), 2);
    assert_null(pi2_machine_get_disk(loaded, 2));
    assert_string_equal(pi2_machine_get_disk(loaded, 0)->place, "/mnt/a far away disk");
    assert_true(pi2_machine_get_disk(loaded, 0)->device == 4711);
    const pi2_machine_disk *here = pi2_machine_get_disk(loaded, 1);
    assert_int_equal(strncmp(test_folder, here->place, strlen(here->place)), 0);
    assert_true(lines_of_disk(loaded, 1) >= 2 && lines_of_disk(loaded, 0) == 1);
    assert_true(pi2_profile_value(loaded, PI2_MEASURED_DISK, "pread", 524288, 32, 0, NULL) == 1.5e9);
    assert_true(pi2_profile_value(loaded, PI2_MEASURED_DISK, "pread", 524288, 32, 1, NULL) > 0);
    assert_true(pi2_profile_value(loaded, PI2_MEASURED_DISK, "pread", 524288, 32, 2, NULL) == 0);

    /* After a day it is measured again: in the same place, and the spread covers what it gave before. */
    for (size_t i = 0; i < loaded->count; i++) {
        if (loaded->items[i].what == PI2_MEASURED_DISK && loaded->items[i].c == 1) loaded->items[i].value *= 1000;
    }
    loaded->disks[1].time -= 100000;
    assert_true(pi2_machine_needs_disk(loaded, test_folder));
    const size_t before = lines_of_disk(loaded, 1);
    assert_int_equal(pi2_machine_measure_disk(loaded, &options), PI2_OK);
    assert_int_equal(pi2_machine_disk_count(loaded), 2);
    assert_int_equal(lines_of_disk(loaded, 1), before);
    double spread = 0;
    assert_true(pi2_profile_value(loaded, PI2_MEASURED_DISK, "pread", 524288, 32, 1, &spread) > 0);
    assert_true(spread > 0.9);
    pi2_machine_free(loaded);
    free(profile);
    free(path);
}

static void test_disk_list(void **state) {
    (void)state;
    pi2_machine_profile *profile = malloc(sizeof *profile);
    assert_non_null(profile);
    fill(profile);
    profile->count = profile->disk_count = 0;
    for (uint32_t i = 0; i < PI2_PROFILE_DISKS; i++) {
        const pi2_machine_disk disk = {.device = i, .place = "/", .time = 100 + (i + 3) % PI2_PROFILE_DISKS};
        assert_int_equal(pi2_profile_add_disk(profile, &disk), i);
        assert_true(pi2_profile_add(profile, PI2_MEASURED_DISK, "pread", 1, 1, i, 1 + i, 0));
    }
    const pi2_machine_disk more = {.device = 99, .place = "/", .time = 200};
    const uint32_t oldest = PI2_PROFILE_DISKS - 3; /* its time is the first */
    assert_int_equal(pi2_profile_find_disk(profile, &more), PI2_PROFILE_NO_DISK);
    assert_int_equal(pi2_profile_add_disk(profile, &more), oldest);
    assert_true(pi2_profile_value(profile, PI2_MEASURED_DISK, "pread", 1, 1, oldest, NULL) == 0);
    assert_true(pi2_profile_value(profile, PI2_MEASURED_DISK, "pread", 1, 1, 0, NULL) == 1);
    free(profile);
}

/* Between columns the time of a weight is linear in 1 / columns; between depths the logarithm counts. */
static void test_between(void **state) {
    (void)state;
    pi2_machine_profile *profile = malloc(sizeof *profile);
    assert_non_null(profile);
    fill(profile);
    assert_true(pi2_profile_add(profile, PI2_MEASURED_DECODE, "Q8_0", 2, 0, 64, 1e9, 0.2));
    assert_true(pi2_profile_add(profile, PI2_MEASURED_DECODE, "Q8_0", 2, 0, 256, 2e9, 0.1));
    assert_true(pi2_profile_value(profile, PI2_MEASURED_DECODE, "Q8_0", 2, 0, 32, NULL) == 1e9);
    assert_true(pi2_profile_value(profile, PI2_MEASURED_DECODE, "Q8_0", 2, 0, 64, NULL) == 1e9);
    assert_true(pi2_profile_value(profile, PI2_MEASURED_DECODE, "Q8_0", 2, 0, 4096, NULL) == 2e9);
    double spread = 0;
    const double middle = pi2_profile_value(profile, PI2_MEASURED_DECODE, "Q8_0", 2, 0, 128, &spread);
    assert_true(middle > 1.49e9 && middle < 1.51e9); /* a third of the way from 1/256 to 1/64 */
    assert_true(spread == 0.2);
    assert_true(pi2_profile_add(profile, PI2_MEASURED_DISK, "pread", 524288, 8, 0, 1e9, 0));
    const double depth = pi2_profile_value(profile, PI2_MEASURED_DISK, "pread", 524288, 16, 0, NULL);
    assert_true(depth > 1.2e9 && depth < 1.3e9);
    free(profile);
}

static bool always(void *user) {
    (void)user;
    return true;
}

/* Reads a second of 4, 8 and 16 KB, of which two of 4 KB are compared with one of 12, and of 16. */
static uint32_t gap_of(double reads_of_4, double reads_of_8, double reads_of_16) {
    pi2_machine_profile *profile = calloc(1, sizeof *profile);
    assert_true(pi2_profile_add(profile, PI2_MEASURED_SMALL_READ, "pread", 4096, 128, 0, 4096 * reads_of_4, 0));
    assert_true(pi2_profile_add(profile, PI2_MEASURED_SMALL_READ, "pread", 8192, 128, 0, 8192 * reads_of_8, 0));
    assert_true(pi2_profile_add(profile, PI2_MEASURED_SMALL_READ, "pread", 16384, 128, 0, 16384 * reads_of_16, 0));
    assert_int_equal(pi2_read_gap_units(profile, "io_uring", 0, 4096), 0); /* not measured */
    assert_int_equal(pi2_read_gap_units(profile, "pread", 1, 4096), 0);
    const uint32_t units = pi2_read_gap_units(profile, "pread", 0, 4096);
    free(profile);
    return units;
}

static void test_gaps(void **state) {
    (void)state;
    assert_int_equal(gap_of(100e3, 50e3, 25e3), 0);  /* bytes cost, reads do not */
    assert_int_equal(gap_of(115e3, 79e3, 55e3), 0);  /* 12 KB cost 1.83 of 4 KB: no clear gain */
    assert_int_equal(gap_of(115e3, 90e3, 60e3), 1);  /* 1.69; 16 KB 1.92 */
    assert_int_equal(gap_of(100e3, 100e3, 80e3), 3); /* 16 KB 1.25; 20 KB at the same rate 1.56, 24 KB 1.88 */
    assert_int_equal(gap_of(100e3, 100e3, 4e6), 14); /* 16 places at most */
}

static void test_interrupted(void **state) {
    (void)state;
    char *path = test_path(test_folder, "interrupted.profile");
    const pi2_machine_options options = {.profile_path = path, .quick = true, .callbacks = {.cancelled = always}};
    pi2_machine_profile *profile = NULL;
    assert_int_equal(pi2_machine_measure(&options, &profile), PI2_ERR_INTERRUPTED);
    assert_null(profile);
    assert_int_equal(pi2_machine_load(path, &profile), PI2_ERR_IO);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_damage),
                                       cmocka_unit_test(test_outdated),   cmocka_unit_test(test_values),
                                       cmocka_unit_test(test_reaches_and_shares),
                                       cmocka_unit_test(test_measuring),  cmocka_unit_test(test_interrupted),
                                       cmocka_unit_test(test_disks),      cmocka_unit_test(test_disk_list),
                                       cmocka_unit_test(test_between),    cmocka_unit_test(test_place_comes_first),
                                       cmocka_unit_test(test_gaps)};
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
