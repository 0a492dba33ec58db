/* shortcut_write.c: a shortcut's file is written (shortcut_file.h). */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/shortcut_file.h"
#include "file_formats/gguf_writer.h"
#include "kernels/vector/vector.h"
#include "weight_formats/weight_format.h"

enum { ALIGNMENT = 32 };

/* "GGUF", version, counts; then the first key, which is the architecture's in files of ours and of others. */
static bool recognises(const char *path, const uint8_t *head, size_t count) {
    static const char key[] = "general.architecture", value[] = "shortcut";
    enum { AT_KEY = 24 + 8, AT_VALUE = AT_KEY + sizeof key - 1 + 4 + 8 };
    (void)path;
    return count >= AT_VALUE + sizeof value - 1 && pi2_output_head_is(head, count, "GGUF") &&
           memcmp(head + AT_KEY, key, sizeof key - 1) == 0 && memcmp(head + AT_VALUE, value, sizeof value - 1) == 0;
}

const pi2_output_kind pi2_shortcut_output_kind = { .what = "a shortcut", .recognises = recognises };

static pi2_status write_header(const pi2_shortcut_values *values, pi2_gguf_writer *writer, pi2_output_file *file) {
    const uint64_t sides[] = { values->width, values->width };
    const uint8_t *header;
    size_t bytes;
    pi2_gguf_writer_string(writer, "general.architecture", "shortcut");
    pi2_gguf_writer_u32(writer, "shortcut.block_count", values->layer_count);
    pi2_gguf_writer_u32(writer, "shortcut.embedding_length", values->width);
    pi2_gguf_writer_u32(writer, "shortcut.first_layer", values->first_layer);
    pi2_gguf_writer_u32(writer, "shortcut.end_layer", values->end_layer);
    pi2_gguf_writer_u64(writer, "shortcut.model_hash", values->model_hash);
    (void)pi2_gguf_writer_tensor(writer, "shortcut.weight", PI2_F16, 2, sides);
    (void)pi2_gguf_writer_tensor(writer, "shortcut.bias", PI2_F32, 1, sides);
    (void)pi2_gguf_writer_tensor(writer, "shortcut.scale", PI2_F32, 1, sides);
    PI2_TRY(pi2_gguf_writer_finish(writer, &header, &bytes));
    pi2_output_file_write(file, header, bytes);
    return PI2_OK;
}

/* Widths are multiples of 32, and so is what each tensor takes: nothing lies between them. */
static void write_rows(const pi2_shortcut_values *values, float *floats, uint16_t *halves, pi2_output_file *file) {
    for (uint32_t row = 0; row < values->width; row++) {
        values->row(values->user, row, floats);
        for (uint32_t i = 0; i < values->width; i++) halves[i] = pi2_float_to_half(floats[i]);
        pi2_output_file_write(file, halves, values->width * sizeof *halves);
    }
    pi2_output_file_write(file, values->bias, values->width * sizeof *values->bias);
    pi2_output_file_write(file, values->scales, values->width * sizeof *values->scales);
}

pi2_status pi2_shortcut_file_write(const pi2_shortcut_values *values, pi2_output_file *file) {
    pi2_gguf_writer *writer = NULL;
    float *floats = calloc(values->width, sizeof *floats + sizeof(uint16_t));
    if (!floats) return pi2_fail(PI2_ERR_MEMORY, "no memory for a row");
    pi2_status status = pi2_gguf_writer_open(ALIGNMENT, &writer);
    if (status == PI2_OK) status = write_header(values, writer, file);
    if (status == PI2_OK) write_rows(values, floats, (uint16_t *)(floats + values->width), file);
    pi2_gguf_writer_close(writer);
    free(floats);
    return status;
}
