/* model_scales.c: scales of matrices. */
#include <stdio.h>
#include <stdlib.h>
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

/* "<prefix>.scale" of a matrix's name "<prefix>.weight", where the prefix ends in `stem`, with `other` in its place. */
static const pi2_gguf_tensor *find_scale(const pi2_gguf *gguf, const char *matrix, const char *stem,
                                         const char *other) {
    static const char weight[] = ".weight";
    const size_t length = strlen(matrix), tail = strlen(stem) + sizeof weight - 1;
    char name[256];
    if (length < tail || length >= sizeof name - 64 || strcmp(matrix + length - (sizeof weight - 1), weight) != 0 ||
        memcmp(matrix + length - tail, stem, strlen(stem)) != 0) return NULL;
    (void)snprintf(name, sizeof name, "%.*s%s.scale", (int)(length - tail), matrix, other);
    return pi2_gguf_tensor_find(gguf, name);
}

/* Its own, or that of the tensor which the file had it in. */
static const pi2_gguf_tensor *scale_of(const pi2_gguf *gguf, const pi2_architecture *architecture,
                                       const char *matrix) {
    static const char both[] = "ffn_gate_up_exps";
    const pi2_gguf_tensor *scale = find_scale(gguf, matrix, "", "");
    if (!scale) scale = find_scale(gguf, matrix, "ffn_gate_exps", both);
    if (!scale) scale = find_scale(gguf, matrix, "ffn_up_exps", both);
    if (!scale && architecture->fuses_gate) scale = find_scale(gguf, matrix, "ffn_gate", "ffn_up");
    return scale;
}

/* Rows that are looked up are not multiplied. */
static bool is_looked_up(const char *matrix, uint8_t role) {
    return role == PI2_MATRIX_EMBEDDING || role == PI2_MATRIX_TOKEN_TABLE ||
           strcmp(matrix, "token_embd.weight") == 0;
}

void pi2_model_list_scales(const pi2_tensor_directory *model, const pi2_architecture *architecture,
                           pi2_model_requests *requests) {
    for (size_t g = 0; g < requests->group_count; g++) {
        const pi2_group_request *group = &requests->groups[g];
        const bool is_expert = group->kind == PI2_GROUP_EXPERT;
        for (uint32_t i = 0; i < group->tensor_count && (!is_expert || group->expert == 0); i++) {
            const char *matrix = group->tensors[i]->name;
            const pi2_gguf_tensor *scale = scale_of(model->gguf, architecture, matrix);
            if (!scale || is_looked_up(matrix, group->roles[i])) continue;
            if (is_expert && group->roles[i] == PI2_MATRIX_DOWN) continue; /* its block asks for it */
            pi2_table_request *request = &requests->tables[requests->table_count++];
            *request = (pi2_table_request){ .role = PI2_TABLE_MATRIX_SCALE, .layer = group->layer, .tensor = scale,
                                            .matrix = (pi2_matrix_role)group->roles[i], .required = true,
                                            .length = is_expert ? group->expert_count : 1 };
        }
    }
}

static bool is_asked_for(const pi2_model_requests *requests, const pi2_gguf_tensor *tensor) {
    for (size_t i = 0; i < requests->table_count; i++) {
        if (requests->tables[i].tensor && strcmp(requests->tables[i].tensor->name, tensor->name) == 0) return true;
    }
    return false;
}

static bool begins_with(const char *text, const char *begin) { return strncmp(text, begin, strlen(begin)) == 0; }

/* Whether the model has what this tensor belongs to: layers that guess may be left out, eyes and ears are. */
static bool is_of_model(const pi2_tensor_directory *directory, const pi2_model_shape *shape, const char *name) {
    static const char *const others[] = { "v.", "a.", "mm.", "mtp." };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (begins_with(name, others[i])) return false;
    }
    if (!begins_with(name, "blk.")) return true;
    char *end;
    const unsigned long number = strtoul(name + strlen("blk."), &end, 10);
    if (number < directory->first_layer || number - directory->first_layer >= shape->layer_count) return false;
    return directory->first_layer > 0 || !begins_with(end, ".nextn.");
}

/*
 * Some quantisers (of NVFP4, of ternary weights) put a float beside a matrix by which its results are multiplied.
 * Where that is not done, as of rows that are looked up, the text would be another.
 */
pi2_status pi2_model_check_scales(const pi2_tensor_directory *directory, const pi2_model_shape *shape,
                                  const pi2_model_requests *requests) {
    const pi2_gguf *gguf = directory->gguf;
    for (size_t i = 0; i < pi2_gguf_tensor_count(gguf); i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(gguf, i);
        if (!is_scale(gguf, tensor) || is_asked_for(requests, tensor)) continue;
        if (!is_of_model(directory, shape, tensor->name)) continue;
        return pi2_fail(PI2_ERR_UNSUPPORTED, "tensor '%s' at byte %llu: a scale of this matrix is not supported: get "
                        "the model in another quantisation, such as Q4_0 or Q4_K", tensor->name,
                        (unsigned long long)tensor->file_offset);
    }
    return PI2_OK;
}
