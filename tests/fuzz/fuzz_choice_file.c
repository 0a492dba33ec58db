/* fuzz_choice_file.c: any bytes at all as tasks of both forms; what is accepted has texts, choices and an answer. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "powerinfer2/choices.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[64];

static void remove_file(void) { (void)unlink(path); }

static void require(bool condition) {
    if (!condition) abort();
}

static uint32_t sum_bytes(pi2_choice_text text) {
    uint32_t sum = 0;
    for (size_t i = 0; i < text.length; i++) sum += (unsigned char)text.text[i]; /* every byte can be read */
    return sum;
}

static void read_tasks(pi2_choice_format format) {
    pi2_choice_file *file = NULL;
    if (pi2_choice_file_open(path, format, &file) != PI2_OK) return;
    const uint64_t count = pi2_choice_file_count(file);
    uint32_t first = 0;
    require(count > 0);
    for (uint64_t i = 0; i <= count; i++) {
        pi2_choice_task task;
        require(pi2_choice_file_next(file, &task) == PI2_OK);
        require(task.choice_count >= 2 && task.choice_count <= PI2_CHOICES_MOST && task.answer < task.choice_count);
        uint32_t sum = sum_bytes(task.context);
        for (uint32_t c = 0; c < task.choice_count; c++) sum += sum_bytes(task.choices[c]);
        if (i == 0) first = sum;
        require(i < count || sum == first); /* behind the last comes the first */
    }
    pi2_choice_file_close(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int descriptor = -1;
    if (descriptor < 0) {
        (void)snprintf(path, sizeof path, "/dev/shm/pi2-fuzz-choices-%ld", (long)getpid());
        descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (descriptor < 0 || atexit(remove_file) != 0) abort();
    }
    if (ftruncate(descriptor, 0) != 0 || pwrite(descriptor, data, size, 0) != (ssize_t)size) abort();
    read_tasks(PI2_CHOICES_HELLASWAG);
    read_tasks(PI2_CHOICES_JSON_LINES);
    return 0;
}
