/* model_scales.c: scales of matrices. */
#include <string.h>

#include "architectures/model.h"
#include "base/fail.h"

/* Whether a tensor is the scale of a matrix: "blk.0.ffn_up.scale", or "blk.0.ffn_up.weight.scale". */
static bool is_scale(const pi2_gguf *gguf, const pi2_gguf_tensor *tensor) {
    static const char scale[] = ".scale", weight[] = ".weight";
    const size_t length = strlen(tensor->name);
    char matrix[256];
    if (length < sizeof scale || length + sizeof weight > sizeof matrix) return false;
    const size_t stem = length - (sizeof scale - 1);
    if (strcmp(tensor->name + stem, scale) != 0) return false;
    memcpy(matrix, tensor->name, stem);
    matrix[stem] = '\0';
    if (pi2_gguf_tensor_find(gguf, matrix)) return true;
    memcpy(matrix + stem, weight, sizeof weight);
    return pi2_gguf_tensor_find(gguf, matrix) != NULL;
}

static bool is_asked_for(const pi2_model_requests *requests, const pi2_gguf_tensor *tensor) {
    for (size_t i = 0; i < requests->table_count; i++) {
        if (requests->tables[i].tensor && strcmp(requests->tables[i].tensor->name, tensor->name) == 0) return true;
    }
    return false;
}

/*
 * Some quantisers (of NVFP4, of ternary weights) put a float beside a matrix by which its results are multiplied.
 * Where nothing here does so, the text would be another.
 */
pi2_status pi2_model_check_scales(const pi2_gguf *gguf, const pi2_model_requests *requests) {
    for (size_t i = 0; i < pi2_gguf_tensor_count(gguf); i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(gguf, i);
        if (!is_scale(gguf, tensor) || is_asked_for(requests, tensor)) continue;
        return pi2_fail(PI2_ERR_UNSUPPORTED, "tensor '%s' at byte %llu: a scale of a whole matrix is not supported: "
                        "get the model in another quantisation, such as Q4_0 or Q4_K", tensor->name,
                        (unsigned long long)tensor->file_offset);
    }
    return PI2_OK;
}
