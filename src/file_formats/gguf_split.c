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

/* The first half goes by another name, in memory of the gguf's own. */
static pi2_status split_one(pi2_gguf *gguf, size_t index, size_t prefix, const char *first_name) {
    pi2_gguf_tensor *tensor = &gguf->tensors[index], *first = &gguf->tensors[gguf->tensor_count];
    const uint64_t rows = tensor->dimensions[1];
    if (rows == 0 || rows % 2 != 0 || tensor->bytes % rows != 0 || tensor->dimensions[2] != 1) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: tensor '%s' of %llu rows is not two matrices of equal size, one behind "
                        "the other: convert the model again", pi2_gguf_file_path(gguf, tensor->file_index),
                        tensor->name, (unsigned long long)rows);
    }
    pi2_gguf_addition *addition = malloc(sizeof *addition + prefix + strlen(first_name) + 1);
    if (!addition) return pi2_fail(PI2_ERR_MEMORY, "no memory for a model's tensor table");
    memcpy(addition->bytes, tensor->name, prefix);
    memcpy(addition->bytes + prefix, first_name, strlen(first_name) + 1);
    addition->next = gguf->additions;
    gguf->additions = addition;
    tensor->dimensions[1] /= 2;
    tensor->bytes /= 2;
    *first = *tensor;
    first->name = (const char *)addition->bytes;
    tensor->file_offset += tensor->bytes;
    gguf->tensor_count++;
    return PI2_OK;
}

pi2_status pi2_gguf_split_rows(pi2_gguf *gguf, const char *name, const char *first_name) {
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
        if (prefix) status = split_one(gguf, i, prefix, first_name);
    }
    const pi2_status indexed = pi2_gguf_index_tensors(gguf); /* also of what a failure left: pointers have moved */
    return status != PI2_OK ? status : indexed;
}
