/* model.c: from a checked file to operands that the pipeline can walk. */
#include "architectures/model.h"

#include <stdlib.h>
#include <string.h>

#include "architectures/decoder.h"
#include "base/fail.h"
#include "base/little_endian.h"
#include "base/pages.h"
#include "file_formats/cluster_file.h"
#include "store/weight_file.h"

static int compare_refs(const pi2_extent_layout *layout, pi2_piece_ref a, pi2_piece_ref b) {
    const pi2_piece *p = &layout->pieces[a.piece], *q = &layout->pieces[b.piece];
    if (p->column_begin != q->column_begin) return p->column_begin < q->column_begin ? -1 : 1;
    if (p->row_begin != q->row_begin) return p->row_begin < q->row_begin ? -1 : 1;
    return 0;
}

/* Pieces come nearly in order, so insertion is linear in practice. */
static void insert_ref(pi2_model *model, pi2_operand *operand, pi2_piece_ref ref) {
    pi2_piece_ref *refs = model->refs + operand->first_ref;
    uint32_t at = operand->ref_count++;
    while (at > 0 && compare_refs(model->layout, refs[at - 1], ref) > 0) {
        refs[at] = refs[at - 1];
        at--;
    }
    refs[at] = ref;
    model->ref_count++;
}

static pi2_status find_tensor(const pi2_model *model, const char *name, uint32_t *index_out) {
    for (uint32_t i = 0; i < model->layout->tensor_count; i++) {
        if (strcmp(model->layout->tensors[i].name, name) == 0) {
            *index_out = i;
            return PI2_OK;
        }
    }
    return pi2_fail(PI2_ERR_FORMAT, "the layout has no tensor '%s'; prepare the model again", name);
}

pi2_status pi2_model_operand_build(pi2_model *model, const pi2_group *group, const pi2_group_request *request,
                                   uint32_t which, pi2_operand *operand) {
    uint32_t tensor_index = 0;
    PI2_TRY(find_tensor(model, request->tensors[which]->name, &tensor_index));
    const pi2_layout_tensor *tensor = &model->layout->tensors[tensor_index];
    *operand = (pi2_operand){ .tensor = tensor, .first_ref = model->ref_count };
    if (request->expert != UINT32_MAX) operand->row_base = tensor->rows / request->expert_count * request->expert;
    for (uint32_t e = group->first_extent; e < group->first_extent + group->extent_count; e++) {
        const pi2_extent *extent = &model->layout->extents[e];
        for (uint32_t p = extent->first_piece; p < extent->first_piece + extent->piece_count; p++) {
            if (model->layout->pieces[p].tensor == tensor_index) {
                insert_ref(model, operand, (pi2_piece_ref){ p, e });
                const pi2_piece *piece = &model->layout->pieces[p];
                const uint64_t end = piece->row_begin + piece->row_count - operand->row_base;
                const uint32_t tiles = (uint32_t)((end + PI2_TILE_ROWS - 1) / PI2_TILE_ROWS);
                if (tiles > operand->tile_count) operand->tile_count = tiles;
            }
        }
    }
    return PI2_OK;
}

static pi2_status check_group(const pi2_model *model, uint32_t group_index, const pi2_group_request *request) {
    const pi2_group *group = &model->layout->groups[group_index];
    if (group->kind != request->kind || group->layer != request->layer || group->expert != request->expert) {
        return pi2_fail(PI2_ERR_FORMAT, "group %u of the layout is not the one that the architecture expects; "
                        "prepare the model again", group_index);
    }
    return PI2_OK;
}

/* The matrices of a model, by their roles. */
static pi2_operand *operand_of(pi2_model *model, uint32_t layer, uint32_t role) {
    pi2_operand *const of_model[] = { &model->head, &model->embedding, &model->token_input, &model->token_table,
                                      &model->stream_input, &model->stream_output };
    return role >= PI2_MATRIX_LAYER_ROLES ? of_model[role - PI2_MATRIX_LAYER_ROLES]
                                          : &model->layers[layer].matrices[role];
}

static pi2_status build_group(pi2_model *model, uint32_t group_index, const pi2_group_request *request) {
    const pi2_group *group = &model->layout->groups[group_index];
    pi2_layer_weights *layer = request->layer != UINT32_MAX ? &model->layers[request->layer] : NULL;
    if (request->kind == PI2_GROUP_EXPERT) { /* all of a layer at once, by its first one */
        return request->expert == 0 ? pi2_model_experts_build(model, group_index, request) : PI2_OK;
    }
    for (uint32_t i = 0; i < request->tensor_count; i++) {
        const uint8_t role = request->roles[i];
        pi2_operand *operand = operand_of(model, request->layer, role);
        if (role == PI2_MATRIX_DOWN) layer->ffn_group = group_index;
        if (role == PI2_MATRIX_SHARED_DOWN) layer->shared_group = group_index;
        PI2_TRY(pi2_model_operand_build(model, group, request, i, operand));
    }
    return PI2_OK;
}

/* Floats that a table takes: a matrix is kept in tiles of 16 rows. */
static size_t table_floats(const pi2_table_request *request) {
    const size_t rows = request->rows ? (request->rows + (size_t)PI2_TILE_ROWS - 1) / PI2_TILE_ROWS * PI2_TILE_ROWS : 1;
    return (rows * request->length + 15) / 16 * 16;
}

static pi2_status pack_matrix(const pi2_weight_format *format, const pi2_table_request *request, const void *raw,
                              float *out) {
    const size_t columns = request->length;
    float *floats = malloc(columns * PI2_TILE_ROWS * sizeof *floats);
    if (!floats) return pi2_fail(PI2_ERR_MEMORY, "no memory for tensor '%s'", request->tensor->name);
    for (uint32_t row = 0; row < request->rows; row += PI2_TILE_ROWS) {
        const uint8_t *rows[PI2_TILE_ROWS] = { NULL };
        const uint32_t left = request->rows - row;
        const uint32_t count = left < PI2_TILE_ROWS ? left : PI2_TILE_ROWS;
        format->decode_row(floats, (const uint8_t *)raw + pi2_row_bytes(format, columns) * row, columns * count);
        for (uint32_t i = 0; i < count; i++) rows[i] = (const uint8_t *)(floats + columns * i);
        pi2_weight_format_find(PI2_F32)->pack_tile(out + columns * row, rows, columns);
    }
    free(floats);
    return PI2_OK;
}

/* ---- ids of tokens: integers, which floats hold exactly ---- */

enum { TYPE_INTEGERS = 27, ID_BYTES = 8, MOST_IDS = 1 << 22 };

static pi2_status check_ids(const char *path, const pi2_table_request *request) {
    const uint64_t *dims = request->tensor->dimensions;
    if (request->tensor->type != TYPE_INTEGERS) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: tensor '%s' is %s; integers of 64 bits were expected", path,
                        request->tensor->name, pi2_weight_type_name(request->tensor->type));
    }
    if (dims[0] == request->length && dims[1] * dims[2] * dims[3] == 1) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: tensor '%s' has %llu x %llu elements, %u were expected", path,
                    request->tensor->name, (unsigned long long)dims[0],
                    (unsigned long long)(dims[1] * dims[2] * dims[3]), request->length);
}

static pi2_status decode_ids(const pi2_table_request *request, const uint8_t *raw, float *out) {
    for (uint32_t i = 0; i < request->length; i++) {
        const uint64_t id = pi2_load_le64(raw + (size_t)i * ID_BYTES);
        if (id >= MOST_IDS) {
            return pi2_fail(PI2_ERR_FORMAT, "tensor '%s': element %u is %lld, which is no token", request->tensor->name,
                            i, (long long)(int64_t)id);
        }
        out[i] = (float)id;
    }
    return PI2_OK;
}

/* Bytes of a table in its file. */
static size_t table_bytes(const pi2_table_request *request) {
    if (request->role == PI2_TABLE_TOKEN_IDS) return request->length * (size_t)ID_BYTES;
    const size_t rows = request->rows ? request->rows : 1;
    return pi2_row_bytes(pi2_weight_format_find(request->tensor->type), request->length) * rows;
}

static pi2_status read_table(const pi2_gguf *gguf, pi2_weight_file *file, const pi2_table_request *request,
                             void *buffer, float *out) {
    const pi2_gguf_tensor *tensor = request->tensor;
    const pi2_weight_format *format = pi2_weight_format_find(tensor->type);
    const uint8_t *raw = NULL;
    pi2_status status = pi2_weight_file_open(file, pi2_gguf_file_path(gguf, tensor->file_index));
    if (status == PI2_OK) {
        status = pi2_weight_file_read(file, tensor->file_offset, table_bytes(request), buffer, &raw);
    }
    if (status != PI2_OK) return pi2_fail_prefix(status, "tensor '%s'", tensor->name);
    if (pi2_cluster_file_is(gguf)) PI2_TRY(pi2_cluster_file_check_table(gguf, tensor, raw));
    if (request->role == PI2_TABLE_TOKEN_IDS) return decode_ids(request, raw, out);
    if (request->rows && !request->keeps_rows) return pack_matrix(format, request, raw, out);
    const size_t rows = request->rows ? request->rows : 1;
    format->decode_row(out, raw, request->length / format->block_columns * rows);
    return PI2_OK;
}

static pi2_status check_table(const pi2_gguf *gguf, const pi2_table_request *request) {
    const char *path = pi2_gguf_file_path(gguf, 0);
    if (!request->tensor) {
        if (!request->required) return PI2_OK;
        if (request->layer == UINT32_MAX) {
            return pi2_fail(PI2_ERR_FORMAT, "%s: tensor '%s' is missing", path, request->name);
        }
        return pi2_fail(PI2_ERR_FORMAT, "%s: tensor '%s' is missing (layer %u)", path, request->name, request->layer);
    }
    if (request->role == PI2_TABLE_TOKEN_IDS) return check_ids(path, request);
    const pi2_weight_format *format = pi2_weight_format_find(request->tensor->type);
    if (!format || (format->block_columns != 1 && !request->keeps_rows)) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: tensor '%s' is %s; F32, F16 or BF16 was expected", path,
                        request->tensor->name, pi2_weight_type_name(request->tensor->type));
    }
    const uint64_t *dims = request->tensor->dimensions;
    const uint32_t rows = request->rows ? request->rows : 1;
    if (dims[0] != request->length || dims[1] * dims[2] * dims[3] != rows) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: tensor '%s' has %llu x %llu elements, %u x %u were expected", path,
                        request->tensor->name, (unsigned long long)dims[0],
                        (unsigned long long)(dims[1] * dims[2] * dims[3]), request->length, rows);
    }
    return PI2_OK;
}

/* Every table lies at a multiple of 16 floats in one allocation. */
static pi2_status read_each_table(pi2_model *model, const pi2_gguf *gguf, const pi2_model_requests *requests,
                                  void *buffer) {
    pi2_weight_file file = { 0 };
    pi2_status status = PI2_OK;
    float *at = model->table_memory;
    for (size_t i = 0; i < requests->table_count && status == PI2_OK; i++) {
        const pi2_table_request *request = &requests->tables[i];
        if (!request->tensor) continue;
        status = read_table(gguf, &file, request, buffer, at);
        if (request->role == PI2_TABLE_OUTPUT_NORM) model->output_norm = at;
        else if (request->role == PI2_TABLE_OUTPUT_NORM_BIAS) model->output_norm_bias = at;
        else if (request->role == PI2_TABLE_TOKEN_NORM) model->token_norm = at;
        else if (request->role == PI2_TABLE_POSITIONS) model->positions = at;
        else if (request->role == PI2_TABLE_ROPE_FACTORS) model->rope_factors = at;
        else if (request->role == PI2_TABLE_TOKEN_IDS) model->token_ids = at;
        else if (request->role == PI2_TABLE_MATRIX_SCALE) {
            operand_of(model, request->layer, request->matrix)->scales = at;
        }
        else model->layers[request->layer].tables[request->role] = at;
        at += table_floats(request);
    }
    pi2_weight_file_close(&file);
    return status;
}

static pi2_status read_tables(pi2_model *model, const pi2_gguf *gguf, const pi2_model_requests *requests) {
    size_t floats = 0, largest = 0;
    for (size_t i = 0; i < requests->table_count; i++) {
        if (!requests->tables[i].tensor) continue;
        floats += table_floats(&requests->tables[i]);
        if (largest < table_bytes(&requests->tables[i])) largest = table_bytes(&requests->tables[i]);
    }
    model->table_bytes = (floats ? floats : 16) * sizeof(float);
    if (posix_memalign((void **)&model->table_memory, 64, model->table_bytes) != 0) {
        model->table_memory = NULL;
        return pi2_fail(PI2_ERR_MEMORY, "no memory for %zu bytes of norms", model->table_bytes);
    }
    void *buffer;
    PI2_TRY(pi2_pages_reserve(largest + PI2_WEIGHT_FILE_SLACK, false, "norms", &buffer));
    const pi2_status status = read_each_table(model, gguf, requests, buffer);
    pi2_pages_release(buffer, largest + PI2_WEIGHT_FILE_SLACK);
    return status;
}

static void count_parameters(pi2_model *model) {
    for (uint32_t i = 0; i < model->layout->tensor_count; i++) {
        model->parameter_count += model->layout->tensors[i].rows * model->layout->tensors[i].columns;
    }
}

static pi2_status fill_model(pi2_model *model, const pi2_gguf *gguf, const pi2_tensor_directory *directory,
                             pi2_model_requests *requests) {
    const pi2_architecture *architecture;
    PI2_TRY(pi2_architecture_find(gguf, &architecture));
    PI2_TRY(pi2_architecture_shape(architecture, directory, &model->shape));
    PI2_TRY(pi2_decoder_list_tensors(directory, &model->shape, requests));
    pi2_model_list_scales(directory, architecture, requests);
    if (!model->layout) {
        PI2_TRY(pi2_extent_layout_build(requests->groups, requests->group_count, PI2_LAYOUT_DENSE,
                                        &model->layout));
    }
    if (model->layout->group_count != requests->group_count) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: the layout has %u groups, the architecture needs %zu; prepare again",
                        pi2_gguf_file_path(gguf, 0), model->layout->group_count, requests->group_count);
    }
    model->layers = calloc(model->shape.layer_count, sizeof *model->layers);
    model->refs = calloc(model->layout->piece_count ? model->layout->piece_count : 1, sizeof *model->refs);
    if (!model->layers || !model->refs) return pi2_fail(PI2_ERR_MEMORY, "no memory for the model's lists");
    for (uint32_t g = 0; g < model->layout->group_count; g++) {
        PI2_TRY(check_group(model, g, &requests->groups[g]));
    }
    for (uint32_t g = 0; g < model->layout->group_count; g++) {
        PI2_TRY(build_group(model, g, &requests->groups[g]));
    }
    count_parameters(model);
    for (uint32_t i = 0, key = 0; i < model->shape.layer_count; i++) {
        model->layers[i].first_key = key;
        if (pi2_layer_has_experts(&model->layers[i])) key += model->shape.expert_count;
    }
    for (size_t i = 0; i < requests->table_count; i++) PI2_TRY(check_table(gguf, &requests->tables[i]));
    PI2_TRY(pi2_model_check_left_over(directory, &model->shape, requests));
    return pi2_model_check_scales(directory, &model->shape, requests);
}

/* A bank is of its layer's own matrices, and lacks Up where the layer does. */
static pi2_status check_banks(const pi2_model *model, const char *path) {
    for (uint32_t b = 0; model->banks && b < model->banks->count; b++) {
        const pi2_neuron_bank *bank = &model->banks->banks[b];
        const pi2_layout_tensor *tensors = model->layout->tensors;
        const pi2_layer_weights *layer = &model->layers[bank->layer];
        const bool is_shared = bank->expert == UINT32_MAX && pi2_layer_has_experts(layer);
        const pi2_operand *matrices = &layer->matrices[is_shared ? PI2_MATRIX_SHARED_GATE : PI2_MATRIX_GATE];
        const uint32_t up = matrices[1].tensor ? (uint32_t)(matrices[1].tensor - tensors) : PI2_NO_UP;
        const bool is_own_gate = bank->gate_tensor == PI2_NO_GATE ||
                                 bank->gate_tensor == (uint32_t)(matrices[0].tensor - tensors);
        const uint32_t down = (uint32_t)(matrices[2].tensor - tensors);
        if (is_own_gate && bank->up_tensor == up && bank->down_tensor == down) continue;
        return pi2_fail(PI2_ERR_FORMAT, "%s: the bank of neurons of layer %u is of other matrices than the layer's; "
                        "prepare the model again", path, bank->layer);
    }
    return PI2_OK;
}

/* Banks of layers without exact zeros are in the file, and of no use: those layers are computed whole. */
static void drop_unused_banks(pi2_model *model) {
    pi2_neuron_banks *banks = model->banks;
    uint32_t kept = 0;
    for (uint32_t b = 0; banks && pi2_model_shape_fires(&model->shape) && b < banks->count; b++) {
        if (pi2_layer_fires(&model->shape, banks->banks[b].layer)) banks->banks[kept++] = banks->banks[b];
    }
    if (banks && pi2_model_shape_fires(&model->shape)) banks->count = kept;
}

/* first_layer: 0, or that of the layer that the model is to be. */
static pi2_status make_model(const pi2_gguf *gguf, bool with_tables, uint32_t first_layer,
                             pi2_model **model_out) {
    *model_out = NULL;
    pi2_model *model = calloc(1, sizeof *model);
    if (!model) return pi2_fail(PI2_ERR_MEMORY, "no memory for the model");
    pi2_tensor_directory directory = { 0 };
    pi2_model_requests requests = { 0 };
    pi2_status status = PI2_OK;
    model->has_file = pi2_cluster_file_is(gguf);
    if (model->has_file) {
        status = pi2_cluster_file_layout(gguf, &model->layout, &model->source);
        if (status == PI2_OK) status = pi2_cluster_file_banks(gguf, model->layout, &model->banks);
    }
    if (status == PI2_OK) status = pi2_tensor_directory_open(gguf, model->layout, &directory);
    directory.first_layer = first_layer;
    if (status == PI2_OK) status = fill_model(model, gguf, &directory, &requests);
    if (status == PI2_OK) status = check_banks(model, pi2_gguf_file_path(gguf, 0));
    if (status == PI2_OK) drop_unused_banks(model);
    if (status == PI2_OK && with_tables) status = read_tables(model, gguf, &requests);
    pi2_model_requests_free(&requests);
    pi2_tensor_directory_close(&directory);
    if (status != PI2_OK) {
        pi2_model_free(model);
        return status;
    }
    *model_out = model;
    return PI2_OK;
}

pi2_status pi2_model_create(const pi2_gguf *gguf, pi2_model **model_out) {
    return make_model(gguf, true, 0, model_out);
}

pi2_status pi2_model_create_next(const pi2_gguf *gguf, pi2_model **model_out) {
    uint32_t layer = 0;
    *model_out = NULL;
    if (pi2_architecture_guesses(gguf)) return make_model(gguf, true, 0, model_out);
    PI2_TRY(pi2_decoder_find_next(gguf, &layer));
    if (layer == 0) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: no layer guesses further tokens", pi2_gguf_file_path(gguf, 0));
    }
    return make_model(gguf, true, layer, model_out);
}

pi2_status pi2_model_check(const pi2_gguf *gguf, uint32_t *vocabulary_size_out) {
    pi2_model *model = NULL;
    if (pi2_architecture_guesses(gguf)) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: it is no model, but a layer that guesses for one: give it beside "
                        "that model, as its draft model", pi2_gguf_file_path(gguf, 0));
    }
    PI2_TRY(make_model(gguf, false, 0, &model));
    *vocabulary_size_out = model->shape.vocabulary_size;
    pi2_model_free(model);
    return PI2_OK;
}

void pi2_model_free(pi2_model *model) {
    if (!model) return;
    for (uint32_t i = 0; model->layers && i < model->shape.layer_count; i++) free(model->layers[i].clusters);
    pi2_neuron_banks_free(model->banks);
    pi2_extent_layout_free(model->layout);
    free(model->layers);
    free(model->refs);
    free(model->table_memory);
    free(model);
}

size_t pi2_model_memory_bytes(const pi2_model *model) {
    const pi2_extent_layout *layout = model->layout;
    return sizeof *model + model->shape.layer_count * sizeof *model->layers +
           layout->piece_count * (sizeof *model->refs + sizeof *layout->pieces) +
           layout->extent_count * sizeof *layout->extents + layout->group_count * sizeof *layout->groups +
           layout->tensor_count * (sizeof *layout->tensors + 32) + model->table_bytes +
           pi2_extent_layout_lookup_runs(layout) * (model->has_file ? sizeof *layout->lookup_checksums : 0);
}
