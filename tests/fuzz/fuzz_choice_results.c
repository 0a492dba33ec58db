/* fuzz_choice_results.c: any bytes at all as results of 'eval'; what is accepted can be summed up. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "powerinfer2/choices.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TASKS = 16 };
static char path[64];

static void remove_file(void) { (void)unlink(path); }

static void require(bool condition) {
    if (!condition) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const pi2_choice_subject subject = { .task_hash = 1, .weights_hash = 2, .arithmetic = "exact" };
    static int descriptor = -1;
    pi2_choice_results *results = NULL;
    if (descriptor < 0) {
        (void)snprintf(path, sizeof path, "/dev/shm/pi2-fuzz-results-%ld", (long)getpid());
        descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (descriptor < 0 || atexit(remove_file) != 0) abort();
    }
    if (ftruncate(descriptor, 0) != 0 || pwrite(descriptor, data, size, 0) != (ssize_t)size) abort();
    require(pi2_choice_results_create(&subject, TASKS, &results) == PI2_OK);
    const pi2_status status = pi2_choice_results_read(results, path);
    const uint64_t count = pi2_choice_results_count(results);
    require(count <= TASKS && (status == PI2_OK || count == 0));
    if (count) {
        pi2_choice_summary summary;
        pi2_choice_results_summarize(results, count, &summary);
        require(summary.chance > 0 && summary.chance <= 0.5);
        for (int rule = 0; rule < PI2_CHOICE_RULES; rule++) {
            require(summary.rules[rule].low <= summary.rules[rule].share + 1e-9);
            require(summary.rules[rule].share <= summary.rules[rule].high + 1e-9 && summary.rules[rule].high <= 1);
        }
    }
    pi2_choice_results_free(results);
    return 0;
}
