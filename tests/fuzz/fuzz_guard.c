/* fuzz_guard.c: any bytes at all as a guard; what is accepted has finite figures, and survives being written. */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "powerinfer2/guard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[64], other_path[80];

static void remove_files(void) {
    (void)unlink(path);
    (void)unlink(other_path);
}

static void require(bool condition) {
    if (!condition) abort();
}

static void check(const pi2_guard *guard) {
    pi2_guard *again = NULL;
    require(pi2_guard_write(guard, other_path) == PI2_OK);
    require(pi2_guard_read(other_path, &again) == PI2_OK);
    require(pi2_guard_weights_hash(again) == pi2_guard_weights_hash(guard));
    for (size_t i = 0; pi2_guard_entry_at(guard, i); i++) {
        const pi2_guard_entry *entry = pi2_guard_entry_at(guard, i), *same = pi2_guard_entry_at(again, i);
        require(isfinite(entry->divergence.value) && entry->tokens > 0);
        require(memchr(entry->text, '\0', sizeof entry->text) != NULL);
        require(memchr(entry->arithmetic, '\0', sizeof entry->arithmetic) != NULL);
        require(pi2_guard_find(guard, entry->arithmetic) != NULL);
        require(same && memcmp(entry, same, sizeof *entry) == 0);
    }
    pi2_guard_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int descriptor = -1;
    pi2_guard *guard = NULL;
    if (descriptor < 0) {
        (void)snprintf(path, sizeof path, "/dev/shm/pi2-fuzz-guard-%ld", (long)getpid());
        (void)snprintf(other_path, sizeof other_path, "%s.again", path);
        descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (descriptor < 0 || atexit(remove_files) != 0) abort();
    }
    if (ftruncate(descriptor, 0) != 0 || pwrite(descriptor, data, size, 0) != (ssize_t)size) abort();
    if (pi2_guard_read(path, &guard) == PI2_OK) check(guard);
    pi2_guard_free(guard);
    return 0;
}
