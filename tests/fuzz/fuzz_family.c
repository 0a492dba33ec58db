/*
 * fuzz_family.c: the tiny model of each family, with bytes of its header changed. The input is
 *
 *   the family's name, a line feed, then three bytes for each change: where (16 bits, the low ones first), what
 *
 * Where there is CUT, the file ends after so many 256ths of its header. It is judged as `inspect` does it, which reads
 * the header alone: the weights are a hole in the file. A layer that guesses (eagle3) is opened as a draft model is.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "architectures/model.h"
#include "file_formats/gguf.h"
#include "powerinfer2/model_file.h"
#include "powerinfer2/status.h"
#include "support/family_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST_FAMILIES = 128, CUT = 0xffff };

static struct {
    uint8_t *header;
    size_t length; /* of the header */
    uint64_t file; /* of all */
} made[MOST_FAMILIES];
static char path[64];
static int file = -1;

static void remove_file(void) { (void)unlink(path); }

static void open_file(void) {
    (void)snprintf(path, sizeof path, "/dev/shm/pi2-fuzz-family-%ld", (long)getpid());
    file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (file < 0 || atexit(remove_file) != 0) abort();
}

static const pi2_family_head head = { .layers = { 1, 2, 4 }, .normed_features = true, .own_rows = true };

static void make(size_t family) {
    pi2_gguf *gguf = NULL;
    const char *name = pi2_family_name(family);
    if ((name ? pi2_family_model_write(name, PI2_Q8_0, 1, path)
              : pi2_family_model_write_head(&head, PI2_Q8_0, 1, path)) != 0) abort();
    if (pi2_gguf_open(path, &gguf) != PI2_OK) abort();
    made[family].length = (size_t)pi2_gguf_file_data_offset(gguf, 0);
    pi2_gguf_close(gguf);
    made[family].file = (uint64_t)lseek(file, 0, SEEK_END);
    made[family].header = malloc(made[family].length);
    if (!made[family].header) abort();
    if (pread(file, made[family].header, made[family].length, 0) != (ssize_t)made[family].length) abort();
}

static void write_changed(size_t family, const uint8_t *changes, size_t count) {
    const size_t length = made[family].length;
    uint64_t end = made[family].file;
    if (ftruncate(file, 0) != 0 || pwrite(file, made[family].header, length, 0) != (ssize_t)length) abort();
    for (; count >= 3; changes += 3, count -= 3) {
        const size_t at = changes[0] + 256u * changes[1];
        if (at == CUT) end = length * changes[2] / 256;
        else if (at < length && pwrite(file, &changes[2], 1, (off_t)at) != 1) abort();
    }
    if (ftruncate(file, (off_t)end) != 0) abort();
}

/* One line says why it does not open. */
static void open_layer(void) {
    pi2_gguf *gguf = NULL;
    pi2_model *model = NULL;
    pi2_status status = pi2_gguf_open(path, &gguf);
    if (status == PI2_OK) status = pi2_model_create_next(gguf, &model);
    if (status != PI2_OK && (!pi2_error_text()[0] || strchr(pi2_error_text(), '\n'))) abort();
    pi2_model_free(model);
    pi2_gguf_close(gguf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *line = memchr(data, '\n', size);
    const size_t length = line ? (size_t)(line - data) : size;
    size_t family = 0;
    if (file < 0) open_file();
    for (const char *name; (name = pi2_family_name(family)); family++) {
        if (strlen(name) == length && memcmp(name, data, length) == 0) break;
    }
    const bool is_layer = length == 6 && memcmp(data, "eagle3", 6) == 0; /* behind the last family */
    if ((!pi2_family_name(family) && !is_layer) || family >= MOST_FAMILIES) return 0;
    if (!made[family].header) make(family);
    write_changed(family, line ? line + 1 : data + size, line ? size - length - 1 : 0);
    if (is_layer) {
        open_layer();
        return 0;
    }
    pi2_model_file *model = NULL;
    const char *text = NULL;
    if (pi2_model_file_open(path, &model) != PI2_OK) text = pi2_error_text();
    else if (!pi2_model_file_summary(model)->runnable) text = pi2_model_file_summary(model)->not_runnable_reason;
    if (text && (!text[0] || strchr(text, '\n'))) abort(); /* one line says why */
    pi2_model_file_close(model);
    return 0;
}
