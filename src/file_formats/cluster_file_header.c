/* cluster_file_header.c: writes a source's metadata and a layout's tables as one GGUF header. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "file_formats/cluster_file.h"
#include "file_formats/cluster_file_bank_names.h"
#include "file_formats/cluster_file_keys.h"
#include "file_formats/powerinfer_gguf.h"

enum { GROUP_NAME_BYTES = PI2_CLUSTER_NAME_BYTES };

/** "pi2.blk.3.attn", "pi2.blk.3.ffn", "pi2.blk.3.expert.7", "pi2.output", "pi2.token_embd",
 *  "pi2.blk.3.rows", "pi2.rows", "pi2.table"; the second of a layer's rows "pi2.blk.3.rows.2". */
static void name_group(char name[GROUP_NAME_BYTES], const pi2_extent_layout *layout, uint32_t number) {
    const pi2_group *group = &layout->groups[number];
    const unsigned long layer = group->layer, expert = group->expert;
    unsigned long turn = 1;
    for (uint32_t i = 0; group->kind == PI2_GROUP_ROWS && i < number; i++) {
        turn += layout->groups[i].kind == PI2_GROUP_ROWS && layout->groups[i].layer == group->layer;
    }
    switch (group->kind) {
    case PI2_GROUP_ATTENTION:
        (void)snprintf(name, GROUP_NAME_BYTES, "pi2.blk.%lu.attn", layer);
        break;
    case PI2_GROUP_FFN: (void)snprintf(name, GROUP_NAME_BYTES, "pi2.blk.%lu.ffn", layer); break;
    case PI2_GROUP_EXPERT:
        (void)snprintf(name, GROUP_NAME_BYTES, "pi2.blk.%lu.expert.%lu", layer, expert);
        break;
    case PI2_GROUP_HEAD: (void)snprintf(name, GROUP_NAME_BYTES, "pi2.output"); break;
    case PI2_GROUP_EMBEDDING: (void)snprintf(name, GROUP_NAME_BYTES, "pi2.token_embd"); break;
    case PI2_GROUP_TABLE: (void)snprintf(name, GROUP_NAME_BYTES, "pi2.table"); break;
    case PI2_GROUP_ROWS:
        if (group->layer == UINT32_MAX) (void)snprintf(name, GROUP_NAME_BYTES, "pi2.rows");
        else (void)snprintf(name, GROUP_NAME_BYTES, "pi2.blk.%lu.rows", layer);
        if (turn > 1) {
            const size_t length = strlen(name);
            (void)snprintf(name + length, GROUP_NAME_BYTES - length, ".%lu", turn);
        }
        break;
    case PI2_GROUP_KINDS: break;
    }
}

uint64_t pi2_cluster_extent_stride(const pi2_extent *extent) {
    return pi2_extent_read_bytes(extent);
}

/* ---- metadata --------------------------------------------------------------------------- */

static bool begins_with(pi2_gguf_string text, const char *start) {
    const size_t length = strlen(start);
    return text.length >= length && memcmp(text.text, start, length) == 0;
}

/** All keys of the source, but for those that speak of its parts. */
static void write_source_metadata(pi2_gguf_writer *writer, const pi2_gguf *source) {
    for (size_t i = 0; i < pi2_gguf_entry_count(source); i++) {
        const pi2_gguf_entry entry = pi2_gguf_entry_at(source, i);
        if (begins_with(entry.key, "split.")) continue;
        pi2_gguf_writer_entry(writer, &entry);
    }
}

static pi2_status write_identity(pi2_cluster_header *header, const pi2_gguf *source) {
    pi2_gguf_writer *writer = header->writer;
    pi2_source_identity identity;
    PI2_TRY(pi2_source_identity_of(source, &identity));
    PI2_TRY(pi2_source_sample_hash(source, &identity.sample_hash));
    const char *path = pi2_gguf_file_path(source, 0), *slash = strrchr(path, '/');
    const uint64_t zero = 0;
    pi2_gguf_writer_u32(writer, PI2_KEY_VERSION, PI2_CLUSTER_FILE_VERSION);
    pi2_gguf_writer_u64(writer, PI2_GGUF_HEADER_CHECKSUM_KEY, zero);
    /* The value is what was appended last. */
    header->header_checksum_at = pi2_gguf_writer_position(writer) - sizeof zero;
    pi2_gguf_writer_string(writer, PI2_KEY_SOURCE_NAME, slash ? slash + 1 : path);
    pi2_gguf_writer_u64(writer, PI2_KEY_SOURCE_BYTES, identity.bytes);
    pi2_gguf_writer_u64(writer, PI2_KEY_SOURCE_HEADER_HASH, identity.header_hash);
    pi2_gguf_writer_u64(writer, PI2_KEY_SOURCE_SAMPLE_HASH, identity.sample_hash);
    pi2_gguf_writer_u64(writer, PI2_KEY_SOURCE_CONTENT_HASH, zero);
    header->content_hash_at = pi2_gguf_writer_position(writer) - sizeof zero;
    pi2_gguf_writer_u32(writer, PI2_KEY_TILE_ROWS, PI2_TILE_ROWS);
    pi2_gguf_writer_u32(writer, PI2_KEY_TILE_ALIGNMENT, PI2_TILE_ALIGNMENT);
    return PI2_OK;
}

/** Writes one array whose element i is the expression `value`, little-endian. */
#define WRITE_COLUMN(writer, key, type, count, value)                                     \
    do {                                                                                  \
        const size_t element_bytes = pi2_gguf_value_bytes(type);                          \
        const size_t start = pi2_gguf_writer_array(writer, key, type, count, NULL);       \
        for (uint32_t i = 0; i < (count); i++) {                                          \
            uint8_t element[8];                                                           \
            pi2_store_le64(element, (uint64_t)(value));                                   \
            pi2_gguf_writer_patch(writer, start + i * element_bytes, element, element_bytes); \
        }                                                                                 \
    } while (0)

static pi2_status write_tensors(pi2_gguf_writer *writer, const pi2_extent_layout *layout) {
    const pi2_layout_tensor *tensors = layout->tensors;
    const uint32_t count = layout->tensor_count;
    const char **names = malloc((count + (size_t)1) * sizeof *names);
    if (!names) return pi2_fail(PI2_ERR_MEMORY, "no memory for the names of tensors");
    for (uint32_t i = 0; i < count; i++) names[i] = tensors[i].name;
    pi2_gguf_writer_string_array(writer, PI2_KEY_TENSOR_NAMES, names, count);
    free(names);
    WRITE_COLUMN(writer, PI2_KEY_TENSOR_TYPES, PI2_GGUF_U32, count, tensors[i].format->type);
    WRITE_COLUMN(writer, PI2_KEY_TENSOR_ROWS, PI2_GGUF_U64, count, tensors[i].rows);
    WRITE_COLUMN(writer, PI2_KEY_TENSOR_MATRIX_ROWS, PI2_GGUF_U64, count, tensors[i].matrix_rows);
    WRITE_COLUMN(writer, PI2_KEY_TENSOR_COLUMNS, PI2_GGUF_U32, count, tensors[i].columns);
    WRITE_COLUMN(writer, PI2_KEY_TENSOR_IS_RAW, PI2_GGUF_BOOL, count, tensors[i].is_raw);
    return PI2_OK;
}

static pi2_status write_groups(pi2_gguf_writer *writer, const pi2_extent_layout *layout) {
    const pi2_group *groups = layout->groups;
    const uint32_t count = layout->group_count;
    char(*names)[GROUP_NAME_BYTES] = malloc((count + (size_t)1) * sizeof *names);
    const char **pointers = malloc((count + (size_t)1) * sizeof *pointers);
    if (!names || !pointers) {
        free(names);
        free(pointers);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the names of groups");
    }
    for (uint32_t i = 0; i < count; i++) {
        name_group(names[i], layout, i);
        pointers[i] = names[i];
    }
    pi2_gguf_writer_string_array(writer, PI2_KEY_GROUP_NAMES, pointers, count);
    free(pointers);
    free(names);
    WRITE_COLUMN(writer, PI2_KEY_GROUP_KINDS, PI2_GGUF_U32, count, groups[i].kind);
    WRITE_COLUMN(writer, PI2_KEY_GROUP_LAYERS, PI2_GGUF_U32, count, groups[i].layer);
    WRITE_COLUMN(writer, PI2_KEY_GROUP_EXPERTS, PI2_GGUF_U32, count, groups[i].expert);
    WRITE_COLUMN(writer, PI2_KEY_GROUP_EXTENT_COUNTS, PI2_GGUF_U32, count, groups[i].extent_count);
    WRITE_COLUMN(writer, PI2_KEY_GROUP_CLUSTER_NEURONS, PI2_GGUF_U32, count,
                 groups[i].cluster_neurons);
    return PI2_OK;
}

static pi2_status write_extents(pi2_cluster_header *header, const pi2_extent_layout *layout) {
    pi2_gguf_writer *writer = header->writer;
    const pi2_extent *extents = layout->extents;
    const uint32_t count = layout->extent_count;
    uint64_t *offsets = malloc((count + (size_t)1) * sizeof *offsets);
    if (!offsets) return pi2_fail(PI2_ERR_MEMORY, "no memory for the table of extents");
    for (uint32_t i = 0; i < count; i++) {
        const bool is_first = layout->groups[extents[i].group].first_extent == i;
        offsets[i] = is_first ? 0 : offsets[i - 1] + pi2_cluster_extent_stride(&extents[i - 1]);
    }
    WRITE_COLUMN(writer, PI2_KEY_EXTENT_OFFSETS, PI2_GGUF_U64, count, offsets[i]);
    free(offsets);
    WRITE_COLUMN(writer, PI2_KEY_EXTENT_BYTES, PI2_GGUF_U32, count, extents[i].bytes);
    WRITE_COLUMN(writer, PI2_KEY_EXTENT_PIECE_COUNTS, PI2_GGUF_U32, count, extents[i].piece_count);
    header->extent_checksums_at =
        pi2_gguf_writer_array(writer, PI2_KEY_EXTENT_CHECKSUMS, PI2_GGUF_U64, count, NULL);
    return PI2_OK;
}

static void write_pieces(pi2_gguf_writer *writer, const pi2_extent_layout *layout) {
    const pi2_piece *pieces = layout->pieces;
    const uint32_t count = layout->piece_count;
    WRITE_COLUMN(writer, PI2_KEY_PIECE_TENSORS, PI2_GGUF_U32, count, pieces[i].tensor);
    WRITE_COLUMN(writer, PI2_KEY_PIECE_OFFSETS, PI2_GGUF_U32, count, pieces[i].offset);
    WRITE_COLUMN(writer, PI2_KEY_PIECE_ROW_BEGINS, PI2_GGUF_U64, count, pieces[i].row_begin);
    WRITE_COLUMN(writer, PI2_KEY_PIECE_ROW_COUNTS, PI2_GGUF_U32, count, pieces[i].row_count);
    WRITE_COLUMN(writer, PI2_KEY_PIECE_COLUMN_BEGINS, PI2_GGUF_U32, count, pieces[i].column_begin);
    WRITE_COLUMN(writer, PI2_KEY_PIECE_COLUMN_COUNTS, PI2_GGUF_U32, count, pieces[i].column_count);
}

/** The table of banks, and the features that say so: nothing of it is in a file of the dense layout. */
static void write_banks(pi2_cluster_header *header, const pi2_neuron_banks *banks, uint64_t statistics) {
    const char *features[4] = { PI2_FEATURE_NEURONS };
    uint32_t feature_count = 1;
    pi2_gguf_writer *writer = header->writer;
    if (!banks) return;
    const pi2_neuron_bank *bank = banks->banks;
    const uint32_t count = banks->count;
    bool lacks_up = false, is_fine = false;
    for (uint32_t i = 0; i < count; i++) {
        lacks_up |= bank[i].up_tensor == PI2_NO_UP;
        is_fine |= pi2_neuron_bank_is_fine(&bank[i]);
    }
    if (lacks_up) features[feature_count++] = PI2_FEATURE_UNGATED;
    if (banks->with_gate) features[feature_count++] = PI2_FEATURE_BUNDLES;
    if (is_fine) features[feature_count++] = PI2_FEATURE_FINE_UNITS;
    pi2_gguf_writer_string_array(writer, PI2_KEY_FEATURES, features, feature_count);
    WRITE_COLUMN(writer, PI2_KEY_BANK_LAYERS, PI2_GGUF_U32, count, bank[i].layer);
    WRITE_COLUMN(writer, PI2_KEY_BANK_EXPERTS, PI2_GGUF_U32, count, bank[i].expert);
    WRITE_COLUMN(writer, PI2_KEY_BANK_NEURONS, PI2_GGUF_U32, count, bank[i].neuron_count);
    WRITE_COLUMN(writer, PI2_KEY_BANK_WIDTHS, PI2_GGUF_U32, count, bank[i].width);
    WRITE_COLUMN(writer, PI2_KEY_BANK_UP_TENSORS, PI2_GGUF_U32, count, bank[i].up_tensor);
    WRITE_COLUMN(writer, PI2_KEY_BANK_DOWN_TENSORS, PI2_GGUF_U32, count, bank[i].down_tensor);
    WRITE_COLUMN(writer, PI2_KEY_BANK_UNIT_NEURONS, PI2_GGUF_U32, count, bank[i].unit_neurons);
    WRITE_COLUMN(writer, PI2_KEY_BANK_UNIT_BYTES, PI2_GGUF_U32, count, bank[i].unit_bytes);
    WRITE_COLUMN(writer, PI2_KEY_BANK_HEAD_BYTES, PI2_GGUF_U64, count, bank[i].head_bytes);
    header->bank_checksums_at =
        pi2_gguf_writer_array(writer, PI2_KEY_BANK_HEAD_CHECKSUMS, PI2_GGUF_U64, count, NULL);
    header->bank_left_out_at =
        pi2_gguf_writer_array(writer, PI2_KEY_BANK_IS_LEFT_OUT, PI2_GGUF_BOOL, count, NULL);
    pi2_gguf_writer_u64(writer, PI2_KEY_BANK_STATISTICS, statistics);
}

/* ---- tensors ---------------------------------------------------------------------------- */

/** Layers that the model runs: those behind them guess further tokens, and are left out. */
static uint64_t count_layers(const pi2_gguf *source) {
    pi2_gguf_string architecture;
    char key[128];
    uint64_t all = UINT64_MAX, left_out = 0;
    if (pi2_gguf_string_get(source, "general.architecture", &architecture) != PI2_OK) return all;
    const int length = architecture.length < 64 ? (int)architecture.length : 64;
    (void)snprintf(key, sizeof key, "%.*s.nextn_predict_layers", length, architecture.text);
    if (pi2_gguf_u64_or(source, key, 0, &left_out) != PI2_OK || left_out == 0) return all;
    (void)snprintf(key, sizeof key, "%.*s.block_count", length, architecture.text);
    if (pi2_gguf_u64_or(source, key, all, &all) != PI2_OK) return UINT64_MAX;
    return all > left_out ? all - left_out : all;
}

static bool is_behind(const pi2_gguf_tensor *tensor, uint64_t layers) {
    static const char prefix[] = "blk.";
    if (strncmp(tensor->name, prefix, sizeof prefix - 1) != 0) return false;
    return strtoull(tensor->name + sizeof prefix - 1, NULL, 10) >= layers;
}

/** The source's tensors that no group holds: norms, biases, routers, predictors. */
static pi2_status list_tables(pi2_cluster_header *header, const pi2_gguf *source,
                              const pi2_extent_layout *layout) {
    const size_t count = pi2_gguf_tensor_count(source);
    bool *is_covered = calloc(count + 1, sizeof *is_covered);
    header->tables = malloc((count + 1) * sizeof *header->tables);
    header->table_offsets = calloc(count + 1, sizeof *header->table_offsets);
    if (!is_covered || !header->tables || !header->table_offsets) {
        free(is_covered);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the list of tensors");
    }
    for (uint32_t i = 0; i < layout->tensor_count; i++) {
        const char *name = layout->tensors[i].name;
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_find(source, name);
        if (!tensor) tensor = pi2_powerinfer_transposed(source, name);
        if (tensor) is_covered[tensor - pi2_gguf_tensor_at(source, 0)] = true;
    }
    const uint64_t layers = count_layers(source);
    pi2_status status = PI2_OK;
    for (size_t i = 0; i < count && status == PI2_OK; i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(source, i);
        if (is_covered[i] || is_behind(tensor, layers)) continue;
        if (tensor->bytes == 0) {
            status = pi2_fail(PI2_ERR_UNSUPPORTED,
                              "%s: tensor '%s' at byte %" PRIu64 ": the weight type %s is not supported",
                              pi2_gguf_file_path(source, tensor->file_index), tensor->name,
                              tensor->file_offset, pi2_weight_type_name(tensor->type));
        }
        header->tables[header->table_count++] = tensor;
    }
    free(is_covered);
    return status;
}

static pi2_status write_table_names(pi2_cluster_header *header) {
    const uint32_t count = header->table_count;
    const char **names = malloc((count + (size_t)1) * sizeof *names);
    if (!names) return pi2_fail(PI2_ERR_MEMORY, "no memory for the names of tensors");
    for (uint32_t i = 0; i < count; i++) names[i] = header->tables[i]->name;
    pi2_gguf_writer_string_array(header->writer, PI2_KEY_TABLE_NAMES, names, count);
    free(names);
    header->table_checksums_at = pi2_gguf_writer_array(header->writer, PI2_KEY_TABLE_CHECKSUMS,
                                                       PI2_GGUF_U64, count, NULL);
    return PI2_OK;
}

/** Heads first: whoever opens the file reads all of them, one after the other. */
static void write_bank_lines(pi2_cluster_header *header, const pi2_neuron_banks *banks) {
    for (uint32_t pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; banks && i < banks->count; i++) {
            const pi2_neuron_bank *bank = &banks->banks[i];
            char name[PI2_CLUSTER_NAME_BYTES];
            pi2_cluster_name_bank(name, bank, pass == 0);
            const uint64_t bytes =
                pass == 0 ? pi2_neuron_bank_head_read_bytes(bank) : pi2_neuron_bank_units_bytes(bank);
            (pass == 0 ? header->head_offsets : header->unit_offsets)[i] =
                pi2_gguf_writer_tensor(header->writer, name, PI2_CLUSTER_GROUP_TENSOR_TYPE, 1, &bytes);
        }
    }
}

/** The lines of the tensor table: the small tensors first, then one line of bytes a group, then the banks. */
static void write_tensor_lines(pi2_cluster_header *header, const pi2_extent_layout *layout,
                               const pi2_neuron_banks *banks) {
    for (uint32_t i = 0; i < header->table_count; i++) {
        const pi2_gguf_tensor *table = header->tables[i];
        header->table_offsets[i] = pi2_gguf_writer_tensor(
            header->writer, table->name, table->type, table->dimension_count, table->dimensions);
    }
    for (uint32_t i = 0; i < layout->group_count; i++) {
        const pi2_group *group = &layout->groups[i];
        char name[GROUP_NAME_BYTES];
        uint64_t bytes = 0;
        for (uint32_t e = 0; e < group->extent_count; e++) {
            bytes += pi2_cluster_extent_stride(&layout->extents[group->first_extent + e]);
        }
        name_group(name, layout, i);
        header->group_offsets[i] = pi2_gguf_writer_tensor(
            header->writer, name, PI2_CLUSTER_GROUP_TENSOR_TYPE, 1, &bytes);
    }
    write_bank_lines(header, banks);
    header->data_bytes = pi2_gguf_writer_data_bytes(header->writer);
    header->table_end = pi2_gguf_writer_position(header->writer);
}

static pi2_status make_header(const pi2_gguf *source, const pi2_extent_layout *layout, const pi2_neuron_banks *banks,
                              uint64_t statistics, pi2_cluster_header *header) {
    const size_t bank_count = banks ? banks->count : 0;
    PI2_TRY(pi2_gguf_writer_open(PI2_EXTENT_ALIGNMENT, &header->writer));
    header->group_offsets = calloc(layout->group_count + (size_t)1, sizeof *header->group_offsets);
    header->unit_offsets = calloc(bank_count + 1, sizeof *header->unit_offsets);
    header->head_offsets = calloc(bank_count + 1, sizeof *header->head_offsets);
    if (!header->group_offsets || !header->unit_offsets || !header->head_offsets) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for groups");
    }
    PI2_TRY(list_tables(header, source, layout));
    write_source_metadata(header->writer, source);
    PI2_TRY(write_identity(header, source));
    PI2_TRY(write_table_names(header));
    PI2_TRY(write_tensors(header->writer, layout));
    PI2_TRY(write_groups(header->writer, layout));
    PI2_TRY(write_extents(header, layout));
    write_pieces(header->writer, layout);
    header->lookup_checksums_at =
        pi2_gguf_writer_array(header->writer, PI2_KEY_LOOKUP_CHECKSUMS, PI2_GGUF_U64,
                              pi2_extent_layout_lookup_runs(layout), NULL);
    write_banks(header, banks, statistics);
    write_tensor_lines(header, layout, banks);
    return PI2_OK;
}

pi2_status pi2_cluster_header_make(const pi2_gguf *source, const pi2_extent_layout *layout,
                                   const pi2_neuron_banks *banks, uint64_t statistics,
                                   pi2_cluster_header *header_out) {
    *header_out = (pi2_cluster_header){ 0 };
    const pi2_status status = make_header(source, layout, banks, statistics, header_out);
    if (status != PI2_OK) pi2_cluster_header_free(header_out);
    return status;
}

void pi2_cluster_header_free(pi2_cluster_header *header) {
    pi2_gguf_writer_close(header->writer);
    free(header->tables);
    free(header->table_offsets);
    free(header->group_offsets);
    free(header->unit_offsets);
    free(header->head_offsets);
    *header = (pi2_cluster_header){ 0 };
}
