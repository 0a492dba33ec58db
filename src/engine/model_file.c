/* model_file.c: what can be told of a model file from its header alone, its tokenizer, its checksums. */
#include "powerinfer2/model_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "clusters/neuron_bank_verify.h"
#include "engine/engine_internal.h"
#include "engine/model_check.h"
#include "engine/model_file_internal.h"
#include "file_formats/cluster_file.h"
#include "file_formats/powerinfer_gguf.h"
#include "tokenizer/tokenizer.h"

static const char *path_of(const pi2_model_file *file) { return pi2_gguf_file_path(file->gguf, 0); }

/** A string of the metadata as a C string in *storage, cut at capacity; "" when absent. */
static const char *copy_string(const pi2_model_file *file, const char *key, char *storage, size_t capacity) {
    pi2_gguf_string value;
    storage[0] = '\0';
    if (!pi2_gguf_has(file->gguf, key) || pi2_gguf_string_get(file->gguf, key, &value) != PI2_OK) return storage;
    const size_t length = value.length < capacity - 1 ? value.length : capacity - 1;
    memcpy(storage, value.text, length);
    storage[length] = '\0';
    return storage;
}

/** "<architecture>.<suffix>", 0 when it is absent or no such number: a summary tells what it can. */
static uint32_t number(const pi2_model_file *file, const char *suffix) {
    char key[PI2_MODEL_FILE_NAME_BYTES + 64];
    uint32_t value = 0;
    const size_t length = strlen(file->architecture);
    memcpy(key, file->architecture, length);
    key[length] = '.';
    memcpy(key + length + 1, suffix, strlen(suffix) + 1);
    return pi2_gguf_u32_or(file->gguf, key, 0, &value) == PI2_OK ? value : 0;
}

/* ---- tensors: those of the header, and in a cluster file the matrices of the layout first ---- */

static uint32_t matrix_count(const pi2_model_file *file) { return file->layout ? file->layout->tensor_count : 0; }

/** In a cluster file the container's own tensors, which hold extents, are no tensors of the model. */
static bool is_model_tensor(const pi2_model_file *file, const pi2_gguf_tensor *tensor) {
    return !file->layout || strncmp(tensor->name, "pi2.", 4) != 0;
}

/** First offset at which pieces of each matrix lie. */
static pi2_status find_matrix_offsets(pi2_model_file *file) {
    const pi2_extent_layout *layout = file->layout;
    file->matrix_offsets = calloc(layout->tensor_count ? layout->tensor_count : 1, sizeof *file->matrix_offsets);
    if (!file->matrix_offsets) return pi2_fail(PI2_ERR_MEMORY, "%s: no memory for its tensor list", path_of(file));
    for (uint32_t e = layout->extent_count; e-- > 0;) {
        const pi2_extent *extent = &layout->extents[e];
        for (uint32_t p = 0; p < extent->piece_count; p++) {
            const pi2_piece *piece = &layout->pieces[extent->first_piece + p];
            file->matrix_offsets[piece->tensor] = extent->file_offset + piece->offset;
        }
    }
    return PI2_OK;
}

static void matrix_info(const pi2_model_file *file, uint32_t index, pi2_tensor_info *info) {
    const pi2_layout_tensor *matrix = &file->layout->tensors[index];
    *info = (pi2_tensor_info){.name = matrix->name, .type = matrix->format->name, .dimension_count = 2,
                              .dimensions = {matrix->columns, matrix->rows, 1, 1},
                              .bytes = pi2_row_bytes(matrix->format, matrix->columns) * matrix->rows,
                              .file_offset = file->matrix_offsets[index]};
}

static bool is_predictor(const pi2_gguf_tensor *tensor) {
    uint32_t layer;
    bool is_second;
    return pi2_powerinfer_is_predictor(tensor->name, &layer, &is_second);
}

static void tensor_info(const pi2_gguf_tensor *tensor, pi2_tensor_info *info) {
    *info = (pi2_tensor_info){.name = tensor->name, .type = pi2_weight_type_name(tensor->type),
                              .dimension_count = tensor->dimension_count, .bytes = tensor->bytes,
                              .file_offset = tensor->file_offset, .file_index = tensor->file_index};
    memcpy(info->dimensions, tensor->dimensions, sizeof info->dimensions);
}

pi2_status pi2_model_file_tensor(const pi2_model_file *file, uint32_t index, pi2_tensor_info *info_out) {
    if (index < matrix_count(file)) {
        matrix_info(file, index, info_out);
        return PI2_OK;
    }
    if (!file->layout && index < pi2_gguf_tensor_count(file->gguf)) {
        tensor_info(pi2_gguf_tensor_at(file->gguf, index), info_out);
        return PI2_OK;
    }
    uint32_t at = matrix_count(file);
    for (size_t i = 0; i < pi2_gguf_tensor_count(file->gguf); i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(file->gguf, i);
        if (!is_model_tensor(file, tensor)) continue;
        if (at++ != index) continue;
        tensor_info(tensor, info_out);
        return PI2_OK;
    }
    return pi2_fail(PI2_ERR_INVALID, "%s has %u tensors, number %u was asked for", path_of(file), at,
                    (unsigned)index);
}

/* ---- summary ---- */

/** "layers 3, 5 (expert 7)", cut where it grows long: what has no bank of neurons. */
static void write_left_out(pi2_model_file *file) {
    const pi2_neuron_banks *banks = file->banks;
    char *text = file->left_out;
    const size_t capacity = sizeof file->left_out;
    size_t length = 0;
    for (uint32_t i = 0; i < banks->left_out_count && length < capacity; i++) {
        const pi2_neuron_place *place = &banks->left_out[i];
        length += (size_t)snprintf(text + length, capacity - length, "%s%lu", i ? ", " : "layers ",
                                   (unsigned long)place->layer);
        if (place->expert != UINT32_MAX && length < capacity) {
            length += (size_t)snprintf(text + length, capacity - length, " (expert %lu)", (unsigned long)place->expert);
        }
    }
    if (length >= capacity) memcpy(text + capacity - 4, "...", 4);
}

static void count_banks(pi2_model_file *file) {
    pi2_model_summary *summary = &file->summary;
    summary->left_out = file->left_out;
    if (!file->banks) return;
    summary->bank_count = file->banks->count;
    summary->banks_left_out = file->banks->left_out_count;
    for (uint32_t i = 0; i < file->banks->count; i++) {
        const pi2_neuron_bank *bank = &file->banks->banks[i];
        summary->bank_unit_count += bank->unit_count;
        summary->bank_bytes += pi2_neuron_bank_units_bytes(bank);
        summary->bank_head_bytes += bank->head_bytes;
    }
    write_left_out(file);
}

typedef struct type_share {
    const char *name;
    uint64_t bytes;
} type_share;
enum { MAX_TYPES = 64 };

static void add_share(type_share *shares, size_t *count, const char *name, uint64_t bytes) {
    for (size_t i = 0; i < *count; i++) {
        if (strcmp(shares[i].name, name) == 0) {
            shares[i].bytes += bytes;
            return;
        }
    }
    if (*count < MAX_TYPES) shares[(*count)++] = (type_share){name, bytes};
}

/** "Q4_1, Q8_0": the type with most bytes first. */
static void write_types(pi2_model_file *file, type_share *shares, size_t count) {
    size_t length = 0;
    file->weight_types[0] = '\0';
    for (; count; count--) {
        size_t largest = 0;
        for (size_t i = 1; i < count; i++) largest = shares[i].bytes > shares[largest].bytes ? i : largest;
        const size_t bytes = strlen(shares[largest].name);
        if (length + bytes + 3 > sizeof file->weight_types) return;
        if (length) {
            memcpy(file->weight_types + length, ", ", 2);
            length += 2;
        }
        memcpy(file->weight_types + length, shares[largest].name, bytes + 1);
        length += bytes;
        shares[largest] = shares[count - 1];
    }
}

/** Bytes, parameters and types of the tensors, but for predictors. Vectors are no weights by type: always F32. */
static void count_tensors(pi2_model_file *file) {
    pi2_model_summary *summary = &file->summary;
    type_share shares[MAX_TYPES];
    size_t share_count = 0;
    pi2_tensor_info info;
    for (uint32_t i = 0; i < matrix_count(file); i++) {
        matrix_info(file, i, &info);
        summary->parameter_count += info.dimensions[0] * info.dimensions[1];
        summary->weight_bytes += info.bytes;
        add_share(shares, &share_count, info.type, info.bytes);
    }
    summary->tensor_count = matrix_count(file);
    for (size_t i = 0; i < pi2_gguf_tensor_count(file->gguf); i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(file->gguf, i);
        if (!is_model_tensor(file, tensor)) continue;
        tensor_info(tensor, &info);
        summary->tensor_count++;
        if (is_predictor(tensor)) continue; /* told apart */
        summary->weight_bytes += info.bytes;
        summary->parameter_count += info.dimensions[0] * info.dimensions[1] * info.dimensions[2] * info.dimensions[3];
        if (info.dimension_count > 1) add_share(shares, &share_count, info.type, info.bytes);
    }
    write_types(file, shares, share_count);
}

/** Bytes that one token takes in an F16 key-value cache. */
static uint64_t cache_bytes(const pi2_model_file *file) {
    const pi2_model_summary *summary = &file->summary;
    const uint64_t head = summary->head_count ? summary->embedding_length / summary->head_count : 0;
    const uint64_t key = number(file, "attention.key_length"), value = number(file, "attention.value_length");
    /* Latent attention keeps what its heads have in common once, as keys that are values too. */
    if (key && number(file, "attention.kv_lora_rank")) return 2 * (uint64_t)summary->layer_count * key;
    return 2 * (uint64_t)summary->layer_count * summary->head_count_kv * ((key ? key : head) + (value ? value : head));
}

static void fill_summary(pi2_model_file *file) {
    pi2_model_summary *summary = &file->summary;
    summary->architecture = copy_string(file, "general.architecture", file->architecture, sizeof file->architecture);
    summary->name = copy_string(file, "general.name", file->name, sizeof file->name);
    summary->tokenizer = copy_string(file, "tokenizer.ggml.model", file->tokenizer_name, sizeof file->tokenizer_name);
    summary->weight_types = file->weight_types;
    summary->is_cluster_file = file->layout != NULL;
    summary->file_count = (uint32_t)pi2_gguf_file_count(file->gguf);
    summary->metadata_count = (uint32_t)pi2_gguf_entry_count(file->gguf);
    for (size_t i = 0; i < summary->file_count; i++) summary->file_bytes += pi2_gguf_file_bytes(file->gguf, i);
    summary->layer_count = number(file, "block_count");
    summary->embedding_length = number(file, "embedding_length");
    summary->feed_forward_length = number(file, "feed_forward_length");
    summary->head_count = number(file, "attention.head_count");
    summary->head_count_kv = number(file, "attention.head_count_kv");
    if (!summary->head_count_kv) summary->head_count_kv = summary->head_count;
    summary->context_length = number(file, "context_length");
    summary->expert_count = number(file, "expert_count");
    summary->expert_used_count = number(file, "expert_used_count");
    summary->cache_bytes_per_token = cache_bytes(file);
    pi2_gguf_array tokens;
    if (pi2_gguf_has(file->gguf, "tokenizer.ggml.tokens") &&
        pi2_gguf_array_get(file->gguf, "tokenizer.ggml.tokens", &tokens) == PI2_OK) {
        summary->vocabulary_size = tokens.count <= UINT32_MAX ? (uint32_t)tokens.count : 0;
    }
    for (uint32_t i = 0; file->layout && i < file->layout->group_count; i++) {
        if (summary->cluster_neurons < file->layout->groups[i].cluster_neurons) {
            summary->cluster_neurons = file->layout->groups[i].cluster_neurons;
        }
    }
    if (file->layout) {
        summary->group_count = file->layout->group_count;
        summary->extent_count = file->layout->extent_count;
    }
    count_tensors(file);
    count_banks(file);
    const pi2_powerinfer_predictors predictors = pi2_powerinfer_count_predictors(file->gguf);
    summary->is_powerinfer = pi2_gguf_is_powerinfer(file->gguf);
    summary->predictor_matrix_count = predictors.matrix_count;
    summary->predictor_bytes = predictors.bytes;
    summary->predictor_rank_least = predictors.rank_least;
    summary->predictor_rank_most = predictors.rank_most;
}

/** Of a file that can be run. */
static pi2_ffn_activation activation_of(const pi2_gguf *gguf) {
    const pi2_architecture *architecture = NULL;
    pi2_ffn_activation activation = PI2_FFN_silu;
    if (pi2_architecture_find(gguf, &architecture) != PI2_OK) return activation;
    (void)pi2_architecture_activation(architecture, gguf, &activation);
    return activation;
}

static bool has_tensor(const pi2_model_file *file, const char *name) {
    pi2_tensor_info info;
    for (uint32_t i = 0; i < matrix_count(file); i++) {
        matrix_info(file, i, &info);
        if (strcmp(info.name, name) == 0) return true;
    }
    return pi2_gguf_tensor_find(file->gguf, name) != NULL;
}

/** Without memory nothing can be told; every other failure is the reason that is told. */
static pi2_status judge(pi2_model_file *file) {
    pi2_model_summary *summary = &file->summary;
    const pi2_status status = pi2_model_can_run(file->gguf, NULL, &file->tokenizer);
    if (status == PI2_ERR_MEMORY) return status;
    summary->runnable = status == PI2_OK;
    summary->ffn_activation = summary->runnable ? pi2_ffn_activation_name(activation_of(file->gguf)) : "";
    summary->ffn_is_ungated = summary->runnable && has_tensor(file, "blk.0.ffn_up.weight") &&
                              !has_tensor(file, "blk.0.ffn_gate.weight");
    summary->not_runnable_reason = file->reason;
    summary->note = file->note;
    if (summary->runnable) pi2_model_try_template(file->gguf, file->tokenizer, file->note, sizeof file->note);
    else (void)snprintf(file->reason, sizeof file->reason, "%s", pi2_error_text());
    return PI2_OK;
}

static pi2_status open_file(const char *path, pi2_model_file *file) {
    PI2_TRY(pi2_gguf_open(path, &file->gguf));
    PI2_TRY(pi2_architecture_adapt(file->gguf));
    if (pi2_cluster_file_is(file->gguf)) {
        pi2_source_identity source;
        PI2_TRY(pi2_cluster_file_layout(file->gguf, &file->layout, &source));
        PI2_TRY(pi2_cluster_file_banks(file->gguf, file->layout, &file->banks));
        PI2_TRY(find_matrix_offsets(file));
    }
    fill_summary(file);
    return judge(file);
}

pi2_status pi2_model_file_open(const char *path, pi2_model_file **file_out) {
    *file_out = NULL;
    pi2_model_file *file = calloc(1, sizeof *file);
    if (!file) return pi2_fail(PI2_ERR_MEMORY, "%s: no memory to open it", path);
    const pi2_status status = open_file(path, file);
    if (status != PI2_OK) {
        pi2_model_file_close(file);
        return status;
    }
    *file_out = file;
    return PI2_OK;
}

void pi2_model_file_close(pi2_model_file *file) {
    if (!file) return;
    pi2_tokenizer_free(file->tokenizer);
    pi2_neuron_banks_free(file->banks);
    pi2_extent_layout_free(file->layout);
    pi2_gguf_close(file->gguf);
    free(file->matrix_offsets);
    free(file);
}

const pi2_model_summary *pi2_model_file_summary(const pi2_model_file *file) { return &file->summary; }

/* ---- tokenizer and checksums ---- */

pi2_status pi2_model_file_tokenize(pi2_model_file *file, const char *text, size_t length, bool add_special,
                                   bool parse_special, int32_t **tokens_out, size_t *count_out) {
    if (!file->tokenizer) PI2_TRY(pi2_tokenizer_create(file->gguf, &file->tokenizer));
    const pi2_text_segment segment = {.text = text, .length = length, .trusted = parse_special};
    return pi2_tokenizer_encode(file->tokenizer, &segment, 1, add_special, tokens_out, count_out);
}

pi2_status pi2_model_file_tokenize_parts(pi2_model_file *file, pi2_text_reader *reader, void *reader_user,
                                         bool add_special, bool parse_special, pi2_token_taker *taker,
                                         void *taker_user) {
    if (!file->tokenizer) PI2_TRY(pi2_tokenizer_create(file->gguf, &file->tokenizer));
    return pi2_engine_encode_parts(file->tokenizer, reader, reader_user, add_special, parse_special, taker, taker_user);
}

pi2_status pi2_model_file_text_ends(pi2_model_file *file, int32_t *begin_out, int32_t *end_out) {
    if (!file->tokenizer) PI2_TRY(pi2_tokenizer_create(file->gguf, &file->tokenizer));
    *begin_out = pi2_tokenizer_adds_bos(file->tokenizer) ? pi2_tokenizer_bos(file->tokenizer) : -1;
    *end_out = pi2_tokenizer_adds_eos(file->tokenizer) ? pi2_tokenizer_eos(file->tokenizer) : -1;
    return PI2_OK;
}

pi2_status pi2_model_file_verify(const pi2_model_file *file, const pi2_callbacks *callbacks) {
    if (!file->layout) {
        return pi2_fail(PI2_ERR_INVALID,
                        "%s is a plain GGUF, which has no checksums: only a cluster file can be verified",
                        path_of(file));
    }
    PI2_TRY(pi2_cluster_file_verify(file->gguf, callbacks));
    return file->banks ? pi2_neuron_banks_verify(file->gguf, file->layout, file->banks, callbacks) : PI2_OK;
}
