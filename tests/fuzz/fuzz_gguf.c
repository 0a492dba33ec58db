/* fuzz_gguf.c: any bytes at all as a GGUF file, or as one of PowerInfer, whose layers are checked too. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "architectures/decoder.h"
#include "file_formats/powerinfer_gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void touch_arrays(const pi2_gguf *gguf, const char *key) {
    pi2_gguf_array array;
    pi2_gguf_string string;
    if (pi2_gguf_array_get(gguf, key, &array) != PI2_OK) return;
    size_t cursor = 0, total = 0;
    while (pi2_gguf_array_next_string(&array, &cursor, &string)) {
        for (size_t i = 0; i < string.length; i++) total += (unsigned char)string.text[i];
    }
    for (uint64_t i = 0; i < array.count && i < 64; i++) {
        (void)pi2_gguf_array_f32(&array, i);
        (void)pi2_gguf_array_u64(&array, i);
    }
    if (total == 1) (void)fputs("", stderr);
}

static void touch(const pi2_gguf *gguf, size_t size) {
    for (size_t i = 0; i < pi2_gguf_entry_count(gguf); i++) {
        const pi2_gguf_entry entry = pi2_gguf_entry_at(gguf, i);
        char key[128];
        if (entry.key.length >= sizeof key) continue;
        memcpy(key, entry.key.text, entry.key.length);
        key[entry.key.length] = '\0';
        uint32_t u32;
        float f32;
        bool flag;
        pi2_gguf_string string;
        (void)pi2_gguf_u32(gguf, key, &u32);
        (void)pi2_gguf_f32_or(gguf, key, 0, &f32);
        (void)pi2_gguf_bool_or(gguf, key, false, &flag);
        (void)pi2_gguf_string_get(gguf, key, &string);
        touch_arrays(gguf, key);
    }
    for (size_t i = 0; i < pi2_gguf_tensor_count(gguf); i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(gguf, i);
        if (tensor->file_offset > size || tensor->bytes > size - tensor->file_offset) abort();
        if (pi2_gguf_tensor_find(gguf, tensor->name) != tensor) abort();
    }
}

/** What an engine would do before it refuses or takes the file: nothing is read but the header. */
static void list_layers(const pi2_gguf *gguf) {
    const pi2_architecture *architecture;
    pi2_tensor_directory directory = { 0 };
    pi2_model_requests requests = { 0 };
    pi2_model_shape shape;
    char name[PI2_POWERINFER_NAME_BYTES];
    const pi2_powerinfer_predictors predictors = pi2_powerinfer_count_predictors(gguf);
    if (predictors.layer_count > predictors.matrix_count) abort();
    for (size_t i = 0; i < pi2_gguf_tensor_count(gguf); i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(gguf, i);
        if (pi2_powerinfer_down_name(tensor->name, name) && pi2_powerinfer_transposed(gguf, name) != tensor) abort();
    }
    if (pi2_architecture_find(gguf, &architecture) != PI2_OK) return;
    if (pi2_tensor_directory_open(gguf, NULL, &directory) == PI2_OK &&
        pi2_architecture_shape(architecture, &directory, &shape) == PI2_OK) {
        (void)pi2_decoder_list_tensors(&directory, &shape, &requests);
    }
    pi2_model_requests_free(&requests);
    pi2_tensor_directory_close(&directory);
}

static char path[64];

static void remove_file(void) { (void)unlink(path); }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int file = -1;
    if (file < 0) {
        (void)snprintf(path, sizeof path, "/dev/shm/pi2-fuzz-gguf-%ld", (long)getpid());
        file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (file < 0 || atexit(remove_file) != 0) abort();
    }
    if (ftruncate(file, 0) != 0 || pwrite(file, data, size, 0) != (ssize_t)size) abort();
    pi2_gguf *gguf;
    if (pi2_gguf_open(path, &gguf) == PI2_OK) {
        touch(gguf, size);
        if (pi2_gguf_is_powerinfer(gguf)) list_layers(gguf);
    }
    pi2_gguf_close(gguf);
    return 0;
}
