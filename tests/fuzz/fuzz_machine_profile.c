/* fuzz_machine_profile.c: a machine profile that was altered by somebody who knows checksums.
 *
 * The input is read as it is, and again with the right checksum behind it, so that it reaches the
 * lines. What is accepted answers questions with finite numbers and survives being saved.
 */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "machine/machine_profile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[64], saved_path[64];
static int file = -1;

static void remove_files(void) {
    (void)unlink(path);
    (void)unlink(saved_path);
}

static void require(bool condition) {
    if (!condition) abort();
}

static void ask(const pi2_machine_profile *profile) {
    for (size_t i = 0; i < profile->count; i++) {
        const pi2_measurement *item = &profile->items[i];
        const uint64_t places[] = { 0, 1, item->a, item->a / 2 + 1, item->a + 1, UINT64_MAX };
        for (size_t p = 0; p < sizeof places / sizeof places[0]; p++) {
            double spread = -1;
            for (uint64_t c = item->c / 2; c <= item->c / 2 + 1; c++) {
                const double value = pi2_profile_value(profile, item->what, item->name, places[p], item->b, c, &spread);
                require(isfinite(value) && isfinite(spread) && spread >= 0);
            }
        }
        require(strlen(item->name) < sizeof item->name && (unsigned)item->what < PI2_MEASURED_KINDS);
    }
}

/* A profile read from what was saved is the same but for the digits that saving leaves out. */
static void save(pi2_machine_profile *profile) {
    static pi2_machine_profile again;
    pi2_output_file saved;
    require(pi2_profile_open(saved_path, NULL, &saved) == PI2_OK);
    require(pi2_profile_save(profile, &saved) == PI2_OK);
    require(pi2_profile_read(saved_path, &again) == PI2_OK);
    require(again.count == profile->count && again.time == profile->time);
    require(pi2_profile_check_identity(&again, &profile->identity) == PI2_OK);
    for (size_t i = 0; i < again.count; i++) {
        const pi2_measurement *before = &profile->items[i], *after = &again.items[i];
        require(before->what == after->what && strcmp(before->name, after->name) == 0);
        require(before->a == after->a && before->b == after->b && before->c == after->c);
        require(fabs(before->value - after->value) <= 1e-5 * before->value);
    }
}

static void read_bytes(const uint8_t *data, size_t size, const char *end) {
    static pi2_machine_profile profile;
    const size_t end_bytes = strlen(end);
    require(ftruncate(file, 0) == 0 && pwrite(file, data, size, 0) == (ssize_t)size);
    require(pwrite(file, end, end_bytes, (off_t)size) == (ssize_t)end_bytes);
    if (pi2_profile_read(path, &profile) != PI2_OK) return;
    ask(&profile);
    save(&profile);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (file < 0) {
        (void)snprintf(path, sizeof path, "/dev/shm/pi2-fuzz-profile-%ld", (long)getpid());
        (void)snprintf(saved_path, sizeof saved_path, "/dev/shm/pi2-fuzz-saved-profile-%ld", (long)getpid());
        file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        require(file >= 0 && atexit(remove_files) == 0);
    }
    char end[32];
    (void)snprintf(end, sizeof end, "checksum %016llx\n", (unsigned long long)XXH3_64bits(data, size));
    read_bytes(data, size, "");
    read_bytes(data, size, end);
    return 0;
}
