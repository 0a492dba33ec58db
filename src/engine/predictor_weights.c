/* predictor_weights.c: two matrices as they lie in the file, decoded row by row. */
#include "engine/predictor_weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "file_formats/cluster_file.h"
#include "store/weight_file.h"

enum { NAME_BYTES = 40 };

/* Experts' matrices are stacked in one tensor. */
static const pi2_gguf_tensor *find(const pi2_gguf *gguf, uint32_t layer, uint32_t expert, const char *end,
                                   uint32_t width, uint32_t neurons) {
    char name[NAME_BYTES];
    const bool is_stacked = expert != UINT32_MAX;
    (void)snprintf(name, sizeof name, "blk.%u.%s%s.weight", layer, end, is_stacked ? "_exps" : "");
    const pi2_gguf_tensor *tensor = pi2_gguf_tensor_find(gguf, name);
    if (!tensor || tensor->dimensions[0] != width || tensor->dimensions[1] != neurons) return NULL;
    if (is_stacked && tensor->dimensions[2] <= expert) return NULL;
    const pi2_weight_format *format = pi2_weight_format_find(tensor->type);
    return format && width % format->block_columns == 0 ? tensor : NULL;
}

static pi2_status read_matrix(const pi2_gguf *gguf, const pi2_gguf_tensor *tensor, uint32_t expert,
                              pi2_predictor_weights *weights, int which) {
    const bool is_stacked = expert != UINT32_MAX;
    const uint64_t bytes = is_stacked ? tensor->bytes / tensor->dimensions[2] : tensor->bytes;
    const uint64_t offset = is_stacked ? pi2_gguf_matrix_offset(tensor, expert) : tensor->file_offset;
    const size_t room = (size_t)bytes + PI2_WEIGHT_FILE_SLACK;
    void *memory;
    if (posix_memalign(&memory, PI2_READ_ALIGNMENT, room / PI2_READ_ALIGNMENT * PI2_READ_ALIGNMENT +
                       PI2_READ_ALIGNMENT) != 0) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the weights that a predictor is made from");
    }
    weights->of[which].memory = memory;
    weights->of[which].format = pi2_weight_format_find(tensor->type);
    pi2_weight_file file = { .path = NULL };
    pi2_status status = pi2_weight_file_open(&file, pi2_gguf_file_path(gguf, tensor->file_index));
    if (status == PI2_OK) {
        status = pi2_weight_file_read(&file, offset, (size_t)bytes, memory,
                                      &weights->of[which].bytes);
    }
    pi2_weight_file_close(&file);
    return status;
}

static void rows(void *user, bool is_up, uint32_t first, uint32_t count, float *out) {
    const pi2_predictor_weights *weights = user;
    const int which = is_up ? PI2_WEIGHTS_UP : PI2_WEIGHTS_GATE;
    const pi2_weight_format *format = weights->of[which].format;
    const size_t blocks = weights->width / format->block_columns, row_bytes = blocks * format->block_bytes;
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *row = weights->of[which].bytes + (first + i) * row_bytes;
        format->decode_row(out + (size_t)i * weights->width, row, blocks);
    }
}

pi2_status pi2_predictor_weights_open(const pi2_gguf *gguf, uint32_t layer, uint32_t expert, uint32_t width,
                                      uint32_t neurons, bool up_decides, pi2_predictor_weights *weights) {
    *weights = (pi2_predictor_weights){ .rows = { .rows = rows, .user = weights, .up_decides = up_decides },
                                        .width = width };
    if (!gguf || pi2_cluster_file_is(gguf)) return PI2_OK;
    const pi2_gguf_tensor *gate = find(gguf, layer, expert, "ffn_gate", width, neurons);
    const pi2_gguf_tensor *up = find(gguf, layer, expert, "ffn_up", width, neurons);
    if (!gate && !up_decides) gate = up;
    if (!gate || (up_decides && !up)) return PI2_OK;
    pi2_status status = read_matrix(gguf, gate, expert, weights, PI2_WEIGHTS_GATE);
    if (status == PI2_OK && up_decides) status = read_matrix(gguf, up, expert, weights, PI2_WEIGHTS_UP);
    if (status == PI2_OK) weights->are_there = true;
    else pi2_predictor_weights_close(weights);
    return status;
}

void pi2_predictor_weights_close(pi2_predictor_weights *weights) {
    for (int i = 0; i < PI2_WEIGHTS_OF_A_LAYER; i++) free(weights->of[i].memory);
    memset(weights, 0, sizeof *weights);
}
