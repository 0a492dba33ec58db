/* powerinfer_gguf.c: names of a PowerInfer file's own tensors. */
#include "file_formats/powerinfer_gguf.h"

#include <stdio.h>
#include <string.h>

#include "file_formats/gguf_internal.h"

static const char down[] = ".ffn_down.weight", down_by_neuron[] = ".ffn_down_t.weight";

bool pi2_gguf_is_powerinfer(const pi2_gguf *gguf) { return gguf->is_powerinfer; }

/** Whether `text` ends in `end`; *start_out: how many characters come before it. */
static bool ends_with(const char *text, const char *end, size_t *start_out) {
    const size_t length = strlen(text), end_length = strlen(end);
    if (length < end_length || strcmp(text + length - end_length, end) != 0) return false;
    *start_out = length - end_length;
    return true;
}

const pi2_gguf_tensor *pi2_powerinfer_transposed(const pi2_gguf *gguf, const char *name) {
    char stored[PI2_POWERINFER_NAME_BYTES];
    size_t start;
    if (!gguf->is_powerinfer || !ends_with(name, down, &start)) return NULL;
    const int length = snprintf(stored, sizeof stored, "%.*s%s", (int)start, name, down_by_neuron);
    return length > 0 && (size_t)length < sizeof stored ? pi2_gguf_tensor_find(gguf, stored) : NULL;
}

bool pi2_powerinfer_down_name(const char *transposed, char name_out[PI2_POWERINFER_NAME_BYTES]) {
    size_t start;
    if (!ends_with(transposed, down_by_neuron, &start)) return false;
    const int length = snprintf(name_out, PI2_POWERINFER_NAME_BYTES, "%.*s%s", (int)start, transposed, down);
    return length > 0 && length < PI2_POWERINFER_NAME_BYTES;
}

bool pi2_powerinfer_is_predictor(const char *name, uint32_t *layer_out, bool *is_second_out) {
    char wanted[64];
    unsigned layer = 0;
    if (sscanf(name, "blk.%9u.", &layer) != 1) return false;
    for (unsigned matrix = 1; matrix <= 2; matrix++) {
        (void)snprintf(wanted, sizeof wanted, "blk.%u.fc%u.weight", layer, matrix);
        if (strcmp(name, wanted) != 0) continue;
        *layer_out = layer;
        *is_second_out = matrix == 2;
        return true;
    }
    return false;
}

pi2_powerinfer_predictors pi2_powerinfer_count_predictors(const pi2_gguf *gguf) {
    pi2_powerinfer_predictors found = { 0 };
    for (size_t i = 0; i < pi2_gguf_tensor_count(gguf); i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(gguf, i);
        uint32_t layer;
        bool is_second;
        if (!pi2_powerinfer_is_predictor(tensor->name, &layer, &is_second)) continue;
        found.matrix_count++;
        found.bytes += tensor->bytes; /* tensors do not overlap: the sum is at most the files' size */
        if (is_second) continue;
        const uint64_t rank = tensor->dimensions[1];
        if (found.layer_count == 0 || rank < found.rank_least) found.rank_least = rank;
        if (rank > found.rank_most) found.rank_most = rank;
        found.layer_count++;
    }
    return found;
}
