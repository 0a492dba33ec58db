/* shortcut_file.c: see shortcut_file.h. */
#include "engine/shortcut_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "architectures/block.h"
#include "base/fail.h"
#include "kernels/small_rows/small_rows.h"
#include "store/weight_file.h"
#include "weight_formats/weight_format.h"

#define ARCHITECTURE "shortcut"
enum { LARGEST_VALUE = 127 };

bool pi2_shortcut_file_is(const pi2_gguf *gguf) {
    pi2_gguf_string name;
    return pi2_gguf_string_get(gguf, "general.architecture", &name) == PI2_OK &&
           name.length == sizeof ARCHITECTURE - 1 && memcmp(name.text, ARCHITECTURE, name.length) == 0;
}

/* ---- whether it is for the model ---- */

static pi2_status check_key(const pi2_gguf *gguf, const pi2_run_source *source, const char *key, uint32_t wanted) {
    uint32_t value;
    PI2_TRY(pi2_gguf_u32(gguf, key, &value));
    if (value == wanted) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "%s cannot guess for %s: its %s is %u, the model's is %u",
                    pi2_gguf_file_path(gguf, 0), source->model_path, key, value, wanted);
}

static pi2_status check_tensor(const pi2_gguf *gguf, const char *name, uint32_t columns, uint32_t rows) {
    const pi2_gguf_tensor *tensor = pi2_gguf_tensor_find(gguf, name);
    const char *path = pi2_gguf_file_path(gguf, tensor ? tensor->file_index : 0);
    if (!tensor) return pi2_fail(PI2_ERR_FORMAT, "%s: tensor '%s' is missing", path, name);
    uint64_t count = 1;
    for (uint32_t i = 1; i < tensor->dimension_count; i++) count *= tensor->dimensions[i];
    if (tensor->dimensions[0] != columns || count != rows) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: tensor '%s' at byte %llu: %llu x %llu weights where %u x %u are wanted",
                        path, name, (unsigned long long)tensor->file_offset,
                        (unsigned long long)tensor->dimensions[0], (unsigned long long)count, columns, rows);
    }
    const pi2_weight_format *format = pi2_weight_format_find(tensor->type);
    if (format && columns % format->block_columns == 0) return PI2_OK;
    return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: tensor '%s' at byte %llu: its type cannot be read", path, name,
                    (unsigned long long)tensor->file_offset);
}

/* Of others a pass that leaves layers out is not made: their tokens choose what they read, or their states cannot be
 * written over. */
pi2_status pi2_shortcut_file_suits(const char *path, const pi2_run_source *source) {
    const pi2_model_shape *shape = &source->model->shape;
    const char *what = pi2_model_has_experts(shape) ? "has experts"
                       : pi2_model_is_recurrent(shape) ? "keeps states that cannot be taken back"
                       : shape->stream_count ? "has several residual streams" : NULL;
    for (uint32_t i = 0; i < shape->layer_count && !what; i++) {
        if (shape->layers[i].window) what = "has layers with a window";
        if (shape->layers[i].kv_layer != i) what = "has layers that read others' keys";
    }
    if (!what && shape->embedding_length % PI2_SMALL_BLOCK) what = "has rows that are no multiple of 32";
    if (!what) return PI2_OK;
    return pi2_fail(PI2_ERR_UNSUPPORTED, "%s cannot guess for %s, which %s", path, source->model_path, what);
}

/* Other weights of the same shape would be guessed for as well, and badly. */
static pi2_status check_hash(const pi2_gguf *gguf, const pi2_run_source *source) {
    uint64_t hash;
    PI2_TRY(pi2_gguf_u64_or(gguf, "shortcut.model_hash", source->header_hash, &hash));
    if (hash == source->header_hash) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "%s cannot guess for %s: it was made of another model: make it again with "
                    "'powerinfer2 guesses --shortcut'", pi2_gguf_file_path(gguf, 0), source->model_path);
}

pi2_status pi2_shortcut_file_check(const pi2_gguf *gguf, const pi2_run_source *source, uint32_t *first_out,
                                   uint32_t *end_out) {
    const pi2_model_shape *shape = &source->model->shape;
    PI2_TRY(check_key(gguf, source, "shortcut.block_count", shape->layer_count));
    PI2_TRY(check_key(gguf, source, "shortcut.embedding_length", shape->embedding_length));
    PI2_TRY(pi2_shortcut_file_suits(pi2_gguf_file_path(gguf, 0), source));
    PI2_TRY(check_hash(gguf, source));
    PI2_TRY(pi2_gguf_u32(gguf, "shortcut.first_layer", first_out));
    PI2_TRY(pi2_gguf_u32(gguf, "shortcut.end_layer", end_out));
    if (*first_out >= *end_out || *end_out > shape->layer_count || *end_out - *first_out == shape->layer_count) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: it leaves out layers %u to %u, and the model has %u",
                        pi2_gguf_file_path(gguf, 0), *first_out, *end_out, shape->layer_count);
    }
    PI2_TRY(check_tensor(gguf, "shortcut.bias", shape->embedding_length, 1));
    PI2_TRY(check_tensor(gguf, "shortcut.scale", shape->embedding_length, 1));
    return check_tensor(gguf, "shortcut.weight", shape->embedding_length, shape->embedding_length);
}

/* ---- what it says ---- */

size_t pi2_shortcut_bytes(uint32_t width) {
    return sizeof(pi2_shortcut) + 3 * (size_t)width * sizeof(float) + PI2_SHORTCUT_TOKENS * sizeof(float) +
           PI2_SHORTCUT_TOKENS * (size_t)width * sizeof(int16_t) + (size_t)width * width;
}

void pi2_shortcut_free(pi2_shortcut *shortcut) { free(shortcut); }

/* A row's blocks, as floats. */
static pi2_status read_row(const pi2_gguf *gguf, const pi2_gguf_tensor *tensor, pi2_weight_file *file, uint32_t row,
                           uint8_t *buffer, float *floats) {
    const pi2_weight_format *format = pi2_weight_format_find(tensor->type);
    const size_t blocks = (size_t)tensor->dimensions[0] / format->block_columns, bytes = blocks * format->block_bytes;
    const uint8_t *data = NULL;
    PI2_TRY(pi2_weight_file_read(file, tensor->file_offset + row * (uint64_t)bytes, bytes, buffer, &data));
    format->decode_row(floats, data, blocks);
    for (uint64_t i = 0; i < tensor->dimensions[0]; i++) {
        if (isfinite(floats[i])) continue;
        return pi2_fail(PI2_ERR_FORMAT, "%s: tensor '%s': row %u has a number that is none",
                        pi2_gguf_file_path(gguf, tensor->file_index), tensor->name, row);
    }
    return PI2_OK;
}

/* What is read of a file goes through these. */
typedef struct shortcut_loader {
    const pi2_gguf *gguf;
    pi2_weight_file file;
    uint8_t *buffer;
    float *floats;               /* [width] */
    float *biases, *row_scales, *scales; /* scales: in the end what they are divided by */
    int8_t *rows;
    uint32_t width;
} shortcut_loader;

static pi2_status round_row(shortcut_loader *loader, uint32_t row) {
    float largest = 0;
    for (uint32_t i = 0; i < loader->width; i++) {
        loader->floats[i] *= loader->scales[i];
        if (fabsf(loader->floats[i]) > largest) largest = fabsf(loader->floats[i]);
    }
    if (!isfinite(largest)) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: tensor 'shortcut.weight': row %u is too large",
                        pi2_gguf_file_path(loader->gguf, 0), row);
    }
    const float unit = largest / LARGEST_VALUE;
    loader->row_scales[row] = unit;
    for (uint32_t i = 0; i < loader->width; i++) {
        const float value = unit > 0 ? loader->floats[i] / unit : 0;
        loader->rows[(size_t)row * loader->width + i] = (int8_t)lrintf(value);
    }
    return PI2_OK;
}

static pi2_status read_vector(shortcut_loader *loader, const char *name, float *floats) {
    const pi2_gguf_tensor *tensor = pi2_gguf_tensor_find(loader->gguf, name);
    PI2_TRY(pi2_weight_file_open(&loader->file, pi2_gguf_file_path(loader->gguf, tensor->file_index)));
    return read_row(loader->gguf, tensor, &loader->file, 0, loader->buffer, floats);
}

static pi2_status read_all(shortcut_loader *loader) {
    const pi2_gguf *gguf = loader->gguf;
    const pi2_gguf_tensor *weight = pi2_gguf_tensor_find(gguf, "shortcut.weight");
    PI2_TRY(read_vector(loader, "shortcut.bias", loader->biases));
    PI2_TRY(read_vector(loader, "shortcut.scale", loader->scales));
    for (uint32_t i = 0; i < loader->width; i++) {
        if (loader->scales[i] > 0 && isfinite(1 / loader->scales[i])) continue;
        return pi2_fail(PI2_ERR_FORMAT, "%s: tensor 'shortcut.scale': number %u is not above 0, or too small",
                        pi2_gguf_file_path(gguf, 0), i);
    }
    PI2_TRY(pi2_weight_file_open(&loader->file, pi2_gguf_file_path(gguf, weight->file_index)));
    for (uint32_t row = 0; row < loader->width; row++) {
        PI2_TRY(read_row(gguf, weight, &loader->file, row, loader->buffer, loader->floats));
        PI2_TRY(round_row(loader, row));
    }
    for (uint32_t i = 0; i < loader->width; i++) loader->scales[i] = 1 / loader->scales[i];
    return PI2_OK;
}

pi2_status pi2_shortcut_load(const pi2_gguf *gguf, pi2_shortcut **shortcut_out) {
    uint32_t width = 0, first = 0, end = 0;
    *shortcut_out = NULL;
    PI2_TRY(pi2_gguf_u32(gguf, "shortcut.embedding_length", &width));
    PI2_TRY(pi2_gguf_u32(gguf, "shortcut.first_layer", &first));
    PI2_TRY(pi2_gguf_u32(gguf, "shortcut.end_layer", &end));
    pi2_shortcut *shortcut = calloc(1, pi2_shortcut_bytes(width));
    shortcut_loader loader = { .gguf = gguf, .width = width, .floats = calloc(width, sizeof(float)) };
    loader.buffer = aligned_alloc(PI2_READ_ALIGNMENT, (width * sizeof(float) / PI2_READ_ALIGNMENT + 1) *
                                                              PI2_READ_ALIGNMENT + PI2_WEIGHT_FILE_SLACK);
    pi2_status status = shortcut && loader.floats && loader.buffer
                            ? PI2_OK : pi2_fail(PI2_ERR_MEMORY, "no memory for the shortcut");
    if (status == PI2_OK) {
        loader.biases = (float *)(shortcut + 1);
        loader.row_scales = loader.biases + width;
        loader.scales = loader.row_scales + width;
        *shortcut = (pi2_shortcut){ .first = first, .end = end, .width = width };
        shortcut->biases = loader.biases;
        shortcut->row_scales = loader.row_scales;
        shortcut->input_scales = loader.scales;
        shortcut->input_units = loader.scales + width;
        shortcut->inputs = (int16_t *)(shortcut->input_units + PI2_SHORTCUT_TOKENS);
        loader.rows = (int8_t *)(shortcut->inputs + PI2_SHORTCUT_TOKENS * (size_t)width);
        shortcut->rows = loader.rows;
        status = read_all(&loader);
    }
    pi2_weight_file_close(&loader.file);
    free(loader.floats);
    free(loader.buffer);
    if (status == PI2_OK) *shortcut_out = shortcut;
    else free(shortcut);
    return status;
}
