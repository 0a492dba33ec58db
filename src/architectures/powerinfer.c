/* powerinfer.c: Down of a PowerInfer file turned round in the list of tensors; what each layer must have. */
#include "architectures/powerinfer.h"

#include <stdlib.h>

#include "base/fail.h"
#include "file_formats/powerinfer_gguf.h"

static size_t count_downs(const pi2_gguf *gguf) {
    char name[PI2_POWERINFER_NAME_BYTES];
    size_t count = 0;
    for (size_t i = 0; i < pi2_gguf_tensor_count(gguf); i++) {
        count += pi2_powerinfer_down_name(pi2_gguf_tensor_at(gguf, i)->name, name);
    }
    return count;
}

pi2_status pi2_powerinfer_directory(pi2_tensor_directory *directory) {
    const pi2_gguf *gguf = directory->gguf;
    if (!pi2_gguf_is_powerinfer(gguf)) return PI2_OK;
    const size_t count = count_downs(gguf);
    directory->matrices = calloc(count + 1, sizeof *directory->matrices);
    directory->names = calloc(count + 1, PI2_POWERINFER_NAME_BYTES);
    if (!directory->matrices || !directory->names) {
        pi2_tensor_directory_close(directory);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the list of tensors");
    }
    for (size_t i = 0; i < pi2_gguf_tensor_count(gguf); i++) {
        const pi2_gguf_tensor *stored = pi2_gguf_tensor_at(gguf, i);
        char *name = directory->names + directory->matrix_count * PI2_POWERINFER_NAME_BYTES;
        if (!pi2_powerinfer_down_name(stored->name, name)) continue;
        const pi2_weight_format *format = pi2_weight_format_find(stored->type); /* NULL: refused by its name later */
        pi2_gguf_tensor *matrix = &directory->matrices[directory->matrix_count++];
        *matrix = (pi2_gguf_tensor){ .name = name, .type = stored->type, .dimension_count = stored->dimension_count,
                                     .dimensions = { stored->dimensions[1], stored->dimensions[0],
                                                     stored->dimensions[2], stored->dimensions[3] } };
        if (format && format->block_columns > 1) matrix->type = PI2_F32;
    }
    return PI2_OK;
}

static pi2_status refuse_matrix(const pi2_tensor_directory *model, const pi2_gguf_tensor *tensor,
                                const char *expected) {
    return pi2_fail(PI2_ERR_FORMAT, "%s: tensor '%s' is %llu x %llu, %s: download or convert the model again",
                    pi2_gguf_file_path(model->gguf, 0), tensor->name, (unsigned long long)tensor->dimensions[0],
                    (unsigned long long)tensor->dimensions[1], expected);
}

/* How wide a predictor is between its matrices is each layer's own matter. */
static pi2_status check_predictor(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer) {
    const pi2_gguf_tensor *matrices[2];
    static const char *const names[2] = { "fc1.weight", "fc2.weight" };
    for (size_t i = 0; i < 2; i++) {
        matrices[i] = pi2_architecture_tensor(model, layer, names[i]);
        if (matrices[i]) continue;
        return pi2_fail(PI2_ERR_FORMAT, "%s: tensor 'blk.%u.%s' of the predictor is missing: download or convert the "
                        "model again", pi2_gguf_file_path(model->gguf, 0), layer, names[i]);
    }
    for (size_t i = 0; i < 2; i++) {
        if (matrices[i]->dimensions[2] == 1 && matrices[i]->dimensions[3] == 1) continue;
        return refuse_matrix(model, matrices[i], "and stacked, which no predictor is");
    }
    if (matrices[0]->dimensions[0] != shape->embedding_length) {
        return refuse_matrix(model, matrices[0], "but a predictor's first matrix has as many columns as the embedding");
    }
    if (matrices[1]->dimensions[1] != shape->feed_forward_length) {
        return refuse_matrix(model, matrices[1], "but a predictor's second matrix has a row for each neuron");
    }
    if (matrices[1]->dimensions[0] != matrices[0]->dimensions[1]) {
        return refuse_matrix(model, matrices[1], "but its columns are not as many as the rows of the predictor's first "
                             "matrix");
    }
    return PI2_OK;
}

pi2_status pi2_powerinfer_check_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer) {
    const pi2_architecture *architecture;
    const pi2_gguf_tensor *down;
    if (!pi2_gguf_is_powerinfer(model->gguf)) return PI2_OK;
    PI2_TRY(pi2_architecture_find(model->gguf, &architecture));
    if (!architecture->has_powerinfer_files) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: a file of PowerInfer (PWRI) with architecture '%s' is not known: its "
                        "models are llama, bamboo, falcon and opt here", pi2_gguf_file_path(model->gguf, 0),
                        architecture->name);
    }
    PI2_TRY(pi2_architecture_matrix(model, layer, "ffn_down_t.weight", shape->embedding_length,
                                    shape->feed_forward_length, &down));
    return check_predictor(model, shape, layer);
}
