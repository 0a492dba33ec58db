/* gguf_split.c: one tensor of a file as two, where a family stores two matrices in one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "file_formats/gguf_internal.h"

/* "blk.<layer>.": how many bytes; 0: the name does not begin so, or goes on with something else than `rest`. */
static size_t layer_prefix(const char *name, const char *rest) {
    if (strncmp(name, "blk.", 4) != 0) return 0;
    const size_t digits = strspn(name + 4, "0123456789"), length = 4 + digits + 1;
    if (digits == 0 || name[length - 1] != '.' || strcmp(name + length, rest) != 0) return 0;
    return length;
}

/* A name of a layer's tensor, in memory of the gguf's own; NULL: there is none. */
static const char *layer_name(pi2_gguf *gguf, const char *name, size_t prefix, const char *rest) {
    char *kept = pi2_gguf_keep(gguf, prefix + strlen(rest) + 1);
    if (!kept) return NULL;
    memcpy(kept, name, prefix);
    memcpy(kept + prefix, rest, strlen(rest) + 1);
    return kept;
}

/* Of stacked matrices each has two halves, so that those of a kind do not follow one another in the file. */
static pi2_status split_one(pi2_gguf *gguf, size_t index, size_t prefix, const char *first_name,
                            const char *second_name) {
    pi2_gguf_tensor *tensor = &gguf->tensors[index], *first = &gguf->tensors[gguf->tensor_count];
    const uint64_t rows = tensor->dimensions[1];
    const uint64_t matrices = tensor->dimensions[2], all_rows = rows * matrices;
    if (rows == 0 || rows % 2 != 0 || matrices == 0 || tensor->bytes % all_rows != 0) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: tensor '%s' of %llu rows is not two matrices of equal size, one behind "
                        "the other: convert the model again", pi2_gguf_file_path(gguf, tensor->file_index),
                        tensor->name, (unsigned long long)rows);
    }
    const char *names[2] = { layer_name(gguf, tensor->name, prefix, first_name),
                             layer_name(gguf, tensor->name, prefix, second_name) };
    if (!names[0] || !names[1]) return pi2_fail(PI2_ERR_MEMORY, "no memory for a model's tensor table");
    const uint64_t half_bytes = tensor->bytes / all_rows * (rows / 2), begin = tensor->file_offset;
    uint64_t *offsets = matrices > 1 ? pi2_gguf_keep(gguf, 2 * matrices * sizeof *offsets) : NULL;
    if (matrices > 1 && !offsets) return pi2_fail(PI2_ERR_MEMORY, "no memory for a model's tensor table");
    for (uint64_t i = 0; offsets && i < 2 * matrices; i++) {
        offsets[i] = begin + 2 * half_bytes * (i % matrices) + half_bytes * (i / matrices);
    }
    tensor->dimensions[1] /= 2;
    tensor->bytes /= 2;
    *first = *tensor;
    first->name = names[0];
    first->matrix_offsets = offsets;
    tensor->name = names[1];
    tensor->file_offset += half_bytes;
    tensor->matrix_offsets = offsets ? offsets + matrices : NULL;
    gguf->tensor_count++;
    return PI2_OK;
}

pi2_status pi2_gguf_split_rows(pi2_gguf *gguf, const char *name, const char *first_name, const char *second_name) {
    const size_t count = gguf->tensor_count;
    size_t found = 0;
    for (size_t i = 0; i < count; i++) found += layer_prefix(gguf->tensors[i].name, name) > 0;
    if (found == 0) return PI2_OK;
    pi2_gguf_tensor *tensors = realloc(gguf->tensors, (count + found) * sizeof *tensors);
    if (!tensors) return pi2_fail(PI2_ERR_MEMORY, "no memory for a model's tensor table");
    gguf->tensors = tensors;
    gguf->tensor_capacity = count + found;
    pi2_status status = PI2_OK;
    for (size_t i = 0; i < count && status == PI2_OK; i++) {
        const size_t prefix = layer_prefix(tensors[i].name, name);
        if (prefix) status = split_one(gguf, i, prefix, first_name, second_name);
    }
    const pi2_status indexed = pi2_gguf_index_tensors(gguf); /* also of what a failure left: pointers have moved */
    return status != PI2_OK ? status : indexed;
}

uint64_t pi2_gguf_tensor_span(const pi2_gguf_tensor *tensor) {
    if (!tensor->matrix_offsets) return tensor->bytes;
    uint64_t last = tensor->file_offset;
    for (uint64_t i = 0; i < tensor->dimensions[2]; i++) {
        if (tensor->matrix_offsets[i] > last) last = tensor->matrix_offsets[i];
    }
    return last - tensor->file_offset + tensor->bytes / tensor->dimensions[2];
}

uint64_t pi2_gguf_matrix_offset(const pi2_gguf_tensor *tensor, uint64_t matrix) {
    if (tensor->matrix_offsets) return tensor->matrix_offsets[matrix];
    return tensor->file_offset + tensor->bytes / tensor->dimensions[2] * matrix;
}
