/* cluster_file.c: reads the tables of a cluster file. Every number in them is untrusted. */
#include "file_formats/cluster_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "file_formats/cluster_file_columns.h"
#include "file_formats/cluster_file_keys.h"

enum { MAX_NAME_BYTES = 64 };

bool pi2_cluster_file_is(const pi2_gguf *gguf) { return pi2_gguf_has(gguf, PI2_KEY_VERSION); }

static bool is_text(pi2_gguf_string string, const char *text) {
    return string.length == strlen(text) && memcmp(string.text, text, string.length) == 0;
}

static bool has_feature(const pi2_gguf *gguf, const char *feature) {
    pi2_gguf_array features;
    pi2_gguf_string name;
    size_t cursor = 0;
    if (!pi2_gguf_has(gguf, PI2_KEY_FEATURES) ||
        pi2_cluster_array_read(gguf, PI2_KEY_FEATURES, PI2_GGUF_STRING, UINT32_MAX, &features) != PI2_OK) {
        return false;
    }
    while (pi2_gguf_array_next_string(&features, &cursor, &name)) {
        if (is_text(name, feature)) return true;
    }
    return false;
}

bool pi2_cluster_file_has_neurons(const pi2_gguf *gguf) { return has_feature(gguf, PI2_FEATURE_NEURONS); }

bool pi2_cluster_file_has_bundles(const pi2_gguf *gguf) { return has_feature(gguf, PI2_FEATURE_BUNDLES); }

static void *make_table(uint32_t count, size_t element_bytes) {
    return calloc(count + (size_t)1, element_bytes);
}

/* ---- tensors ---------------------------------------------------------------------------- */

static int compare_name_pointers(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static pi2_status check_names_differ(const pi2_gguf *gguf, const pi2_extent_layout *layout) {
    const char **names = make_table(layout->tensor_count, sizeof *names);
    if (!names) return pi2_fail(PI2_ERR_MEMORY, "no memory for the names of tensors");
    for (uint32_t i = 0; i < layout->tensor_count; i++) names[i] = layout->tensors[i].name;
    qsort(names, layout->tensor_count, sizeof *names, compare_name_pointers);
    bool differ = true;
    for (uint32_t i = 1; i < layout->tensor_count; i++) {
        if (strcmp(names[i - 1], names[i]) == 0) differ = false;
    }
    free(names);
    return differ ? PI2_OK : pi2_cluster_file_damaged(gguf, "two tensors of its layout have one name");
}

static pi2_status read_names(const pi2_gguf *gguf, const pi2_gguf_array *array,
                             pi2_extent_layout *layout) {
    pi2_gguf_string string;
    size_t cursor = 0;
    uint32_t i = 0;
    layout->names = malloc(array->data_bytes + 1); /* 8 bytes of length leave room for the zero */
    if (!layout->names) return pi2_fail(PI2_ERR_MEMORY, "no memory for the names of tensors");
    char *at = layout->names;
    while (i < layout->tensor_count && pi2_gguf_array_next_string(array, &cursor, &string)) {
        if (string.length == 0 || string.length > MAX_NAME_BYTES ||
            memchr(string.text, '\0', string.length)) {
            return pi2_cluster_file_damaged(gguf, "a tensor of its layout has an impossible name");
        }
        memcpy(at, string.text, string.length);
        at[string.length] = '\0';
        layout->tensors[i++].name = at;
        at += string.length + 1;
    }
    return check_names_differ(gguf, layout);
}

static pi2_status read_tensors(const pi2_gguf *gguf, pi2_extent_layout *layout) {
    pi2_column columns[] = { { .key = PI2_KEY_TENSOR_NAMES, .type = PI2_GGUF_STRING },
                             { .key = PI2_KEY_TENSOR_TYPES, .type = PI2_GGUF_U32 },
                             { .key = PI2_KEY_TENSOR_ROWS, .type = PI2_GGUF_U64 },
                             { .key = PI2_KEY_TENSOR_MATRIX_ROWS, .type = PI2_GGUF_U64 },
                             { .key = PI2_KEY_TENSOR_COLUMNS, .type = PI2_GGUF_U32 },
                             { .key = PI2_KEY_TENSOR_IS_RAW, .type = PI2_GGUF_BOOL } };
    PI2_TRY(pi2_columns_read(gguf, columns, 6, &layout->tensor_count));
    layout->tensors = make_table(layout->tensor_count, sizeof *layout->tensors);
    if (!layout->tensors) return pi2_fail(PI2_ERR_MEMORY, "no memory for the layout's tensors");
    PI2_TRY(read_names(gguf, &columns[0].array, layout));
    for (uint32_t i = 0; i < layout->tensor_count; i++) {
        pi2_layout_tensor *tensor = &layout->tensors[i];
        const uint32_t type = pi2_column_u32(&columns[1], i);
        tensor->format = pi2_weight_format_find(type);
        if (!tensor->format) {
            return pi2_fail(PI2_ERR_UNSUPPORTED,
                            "%s: tensor '%s': the weight type %s is not supported",
                            pi2_gguf_file_path(gguf, 0), tensor->name, pi2_weight_type_name(type));
        }
        tensor->rows = pi2_column_u64(&columns[2], i);
        tensor->matrix_rows = pi2_column_u64(&columns[3], i);
        tensor->columns = pi2_column_u32(&columns[4], i);
        tensor->is_raw = pi2_column_u32(&columns[5], i) != 0;
    }
    return PI2_OK;
}

/* ---- groups, extents, pieces ------------------------------------------------------------ */

static pi2_status read_groups(const pi2_gguf *gguf, pi2_extent_layout *layout) {
    pi2_column columns[] = { { .key = PI2_KEY_GROUP_KINDS, .type = PI2_GGUF_U32 },
                             { .key = PI2_KEY_GROUP_LAYERS, .type = PI2_GGUF_U32 },
                             { .key = PI2_KEY_GROUP_EXPERTS, .type = PI2_GGUF_U32 },
                             { .key = PI2_KEY_GROUP_EXTENT_COUNTS, .type = PI2_GGUF_U32 },
                             { .key = PI2_KEY_GROUP_CLUSTER_NEURONS, .type = PI2_GGUF_U32 } };
    PI2_TRY(pi2_columns_read(gguf, columns, 5, &layout->group_count));
    layout->groups = make_table(layout->group_count, sizeof *layout->groups);
    if (!layout->groups) return pi2_fail(PI2_ERR_MEMORY, "no memory for the layout's groups");
    uint64_t first_extent = 0;
    for (uint32_t i = 0; i < layout->group_count; i++) {
        const uint32_t kind = pi2_column_u32(&columns[0], i);
        if (kind >= PI2_GROUP_KINDS || first_extent > INT32_MAX) {
            return pi2_cluster_file_damaged(gguf, "a group of extents is impossible");
        }
        layout->groups[i] = (pi2_group){ .kind = (pi2_group_kind)kind,
                                         .layer = pi2_column_u32(&columns[1], i),
                                         .expert = pi2_column_u32(&columns[2], i),
                                         .first_extent = (uint32_t)first_extent,
                                         .extent_count = pi2_column_u32(&columns[3], i),
                                         .cluster_neurons = pi2_column_u32(&columns[4], i) };
        first_extent += layout->groups[i].extent_count;
    }
    return PI2_OK;
}

static pi2_status read_extents(const pi2_gguf *gguf, pi2_extent_layout *layout) {
    pi2_column columns[] = { { .key = PI2_KEY_EXTENT_BYTES, .type = PI2_GGUF_U32 },
                             { .key = PI2_KEY_EXTENT_CHECKSUMS, .type = PI2_GGUF_U64 },
                             { .key = PI2_KEY_EXTENT_PIECE_COUNTS, .type = PI2_GGUF_U32 },
                             { .key = PI2_KEY_EXTENT_OFFSETS, .type = PI2_GGUF_U64 } };
    PI2_TRY(pi2_columns_read(gguf, columns, 4, &layout->extent_count));
    layout->extents = make_table(layout->extent_count, sizeof *layout->extents);
    if (!layout->extents) return pi2_fail(PI2_ERR_MEMORY, "no memory for the layout's extents");
    uint64_t first_piece = 0;
    for (uint32_t i = 0; i < layout->extent_count; i++) {
        if (first_piece > INT32_MAX) return pi2_cluster_file_damaged(gguf, "its extents have too many pieces");
        layout->extents[i] = (pi2_extent){ .bytes = pi2_column_u32(&columns[0], i),
                                           .checksum = pi2_column_u64(&columns[1], i),
                                           .first_piece = (uint32_t)first_piece,
                                           .piece_count = pi2_column_u32(&columns[2], i),
                                           .file_offset = pi2_column_u64(&columns[3], i) };
        first_piece += layout->extents[i].piece_count;
        layout->weight_bytes += layout->extents[i].bytes;
    }
    return PI2_OK;
}

static pi2_status read_pieces(const pi2_gguf *gguf, pi2_extent_layout *layout) {
    pi2_column columns[] = { { .key = PI2_KEY_PIECE_TENSORS, .type = PI2_GGUF_U32 },
                             { .key = PI2_KEY_PIECE_OFFSETS, .type = PI2_GGUF_U32 },
                             { .key = PI2_KEY_PIECE_ROW_BEGINS, .type = PI2_GGUF_U64 },
                             { .key = PI2_KEY_PIECE_ROW_COUNTS, .type = PI2_GGUF_U32 },
                             { .key = PI2_KEY_PIECE_COLUMN_BEGINS, .type = PI2_GGUF_U32 },
                             { .key = PI2_KEY_PIECE_COLUMN_COUNTS, .type = PI2_GGUF_U32 } };
    PI2_TRY(pi2_columns_read(gguf, columns, 6, &layout->piece_count));
    layout->pieces = make_table(layout->piece_count, sizeof *layout->pieces);
    if (!layout->pieces) return pi2_fail(PI2_ERR_MEMORY, "no memory for the layout's pieces");
    for (uint32_t i = 0; i < layout->piece_count; i++) {
        layout->pieces[i] = (pi2_piece){ .tensor = pi2_column_u32(&columns[0], i),
                                         .offset = pi2_column_u32(&columns[1], i),
                                         .row_begin = pi2_column_u64(&columns[2], i),
                                         .row_count = pi2_column_u32(&columns[3], i),
                                         .column_begin = pi2_column_u32(&columns[4], i),
                                         .column_count = pi2_column_u32(&columns[5], i) };
    }
    return PI2_OK;
}

/* ---- places in the file ----------------------------------------------------------------- */

/** Makes a group's extents' offsets absolute; `end` is where the extents before them ended. */
static pi2_status place_group(const pi2_gguf *gguf, pi2_extent_layout *layout, uint32_t number,
                              pi2_gguf_string name, uint64_t *end) {
    const pi2_group *group = &layout->groups[number];
    char text[MAX_NAME_BYTES + 1], what[160];
    const pi2_gguf_tensor *tensor = NULL;
    if (name.length <= MAX_NAME_BYTES) {
        memcpy(text, name.text, name.length);
        text[name.length] = '\0';
        tensor = pi2_gguf_tensor_find(gguf, text);
    }
    if (!tensor || tensor->type != PI2_CLUSTER_GROUP_TENSOR_TYPE || tensor->file_index != 0) {
        (void)snprintf(what, sizeof what, "the tensor of group %" PRIu32 " is missing", number);
        return pi2_cluster_file_damaged(gguf, what);
    }
    if (group->extent_count > layout->extent_count - group->first_extent) {
        return pi2_cluster_file_damaged(gguf, "its groups name more extents than it has");
    }
    for (uint32_t i = 0; i < group->extent_count; i++) {
        pi2_extent *extent = &layout->extents[group->first_extent + i];
        const uint64_t offset = extent->file_offset;
        extent->group = number;
        if (extent->bytes > INT32_MAX || offset > tensor->bytes ||
            pi2_extent_read_bytes(extent) > tensor->bytes - offset ||
            (tensor->file_offset + offset) % PI2_EXTENT_ALIGNMENT != 0 ||
            tensor->file_offset + offset < *end) {
            (void)snprintf(what, sizeof what,
                           "extent %" PRIu32 " (offset %" PRIu64 " in tensor '%s') is impossible",
                           group->first_extent + i, offset, tensor->name);
            return pi2_cluster_file_damaged(gguf, what);
        }
        extent->file_offset = tensor->file_offset + offset;
        *end = extent->file_offset + pi2_extent_read_bytes(extent);
    }
    return PI2_OK;
}

static pi2_status place_extents(const pi2_gguf *gguf, pi2_extent_layout *layout) {
    pi2_gguf_array names;
    pi2_gguf_string name;
    size_t cursor = 0;
    uint64_t end = 0;
    PI2_TRY(pi2_cluster_array_read(gguf, PI2_KEY_GROUP_NAMES, PI2_GGUF_STRING, layout->group_count, &names));
    for (uint32_t i = 0; i < layout->group_count; i++) {
        if (layout->groups[i].first_extent > layout->extent_count ||
            !pi2_gguf_array_next_string(&names, &cursor, &name)) {
            return pi2_cluster_file_damaged(gguf, "its groups name more extents than it has");
        }
        PI2_TRY(place_group(gguf, layout, i, name, &end));
    }
    return PI2_OK;
}

static pi2_status read_lookup(const pi2_gguf *gguf, pi2_extent_layout *layout) {
    const uint32_t count = pi2_extent_layout_lookup_runs(layout);
    pi2_gguf_array array;
    PI2_TRY(pi2_cluster_array_read(gguf, PI2_KEY_LOOKUP_CHECKSUMS, PI2_GGUF_U64, count, &array));
    layout->lookup_checksums = make_table(count, sizeof *layout->lookup_checksums);
    if (!layout->lookup_checksums) return pi2_fail(PI2_ERR_MEMORY, "no memory for the layout's checksums");
    for (uint32_t i = 0; i < count; i++) layout->lookup_checksums[i] = pi2_gguf_array_u64(&array, i);
    return PI2_OK;
}

/* ---- the whole -------------------------------------------------------------------------- */

/** Only features that this program knows. */
static pi2_status check_features(const pi2_gguf *gguf) {
    pi2_gguf_array features;
    pi2_gguf_string name;
    size_t cursor = 0;
    if (!pi2_gguf_has(gguf, PI2_KEY_FEATURES)) return PI2_OK;
    PI2_TRY(pi2_cluster_array_read(gguf, PI2_KEY_FEATURES, PI2_GGUF_STRING, UINT32_MAX, &features));
    while (pi2_gguf_array_next_string(&features, &cursor, &name)) {
        if (is_text(name, PI2_FEATURE_NEURONS) || is_text(name, PI2_FEATURE_UNGATED) ||
            is_text(name, PI2_FEATURE_BUNDLES) || is_text(name, PI2_FEATURE_FINE_UNITS)) {
            continue;
        }
        return pi2_fail(PI2_ERR_UNSUPPORTED,
                        "%s: made by a newer program, with features that this one lacks: update it, or make the "
                        "file again with prepare",
                        pi2_gguf_file_path(gguf, 0));
    }
    return PI2_OK;
}

static pi2_status check_version(const pi2_gguf *gguf) {
    const char *path = pi2_gguf_file_path(gguf, 0);
    uint32_t version, tile_rows, tile_alignment;
    PI2_TRY(pi2_gguf_u32(gguf, PI2_KEY_VERSION, &version));
    if (version != PI2_CLUSTER_FILE_VERSION) {
        return pi2_fail(PI2_ERR_UNSUPPORTED,
                        "%s: cluster file version %" PRIu32 ", this program reads %d: make it again "
                        "with prepare",
                        path, version, PI2_CLUSTER_FILE_VERSION);
    }
    uint64_t checksum;
    PI2_TRY(pi2_gguf_u64_or(gguf, PI2_GGUF_HEADER_CHECKSUM_KEY, 0, &checksum));
    if (checksum != pi2_gguf_file_header_hash(gguf, 0)) {
        return pi2_cluster_file_damaged(gguf, "the header (from byte 0) does not match its checksum");
    }
    PI2_TRY(check_features(gguf));
    PI2_TRY(pi2_gguf_u32(gguf, PI2_KEY_TILE_ROWS, &tile_rows));
    PI2_TRY(pi2_gguf_u32(gguf, PI2_KEY_TILE_ALIGNMENT, &tile_alignment));
    if (tile_rows != PI2_TILE_ROWS || tile_alignment != PI2_TILE_ALIGNMENT) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: tiles of %" PRIu32 " rows: make it again with prepare",
                        path, tile_rows);
    }
    return PI2_OK;
}

static pi2_status read_layout(const pi2_gguf *gguf, pi2_extent_layout *layout) {
    PI2_TRY(read_tensors(gguf, layout));
    PI2_TRY(read_groups(gguf, layout));
    PI2_TRY(read_extents(gguf, layout));
    PI2_TRY(read_pieces(gguf, layout));
    PI2_TRY(place_extents(gguf, layout));
    PI2_TRY(pi2_extent_layout_check(layout, pi2_gguf_file_path(gguf, 0)));
    pi2_extent_layout_note(layout);
    return read_lookup(gguf, layout);
}

static pi2_status read_source(const pi2_gguf *gguf, pi2_source_identity *source_out) {
    const struct { const char *key; uint64_t *value; } numbers[] = {
        { PI2_KEY_SOURCE_BYTES, &source_out->bytes },
        { PI2_KEY_SOURCE_HEADER_HASH, &source_out->header_hash },
        { PI2_KEY_SOURCE_SAMPLE_HASH, &source_out->sample_hash },
        { PI2_KEY_SOURCE_CONTENT_HASH, &source_out->content_hash },
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (!pi2_gguf_has(gguf, numbers[i].key)) {
            char what[128];
            (void)snprintf(what, sizeof what, "key '%s' is missing", numbers[i].key);
            return pi2_cluster_file_damaged(gguf, what);
        }
        PI2_TRY(pi2_gguf_u64_or(gguf, numbers[i].key, 0, numbers[i].value));
    }
    return PI2_OK;
}

pi2_status pi2_source_header_hash(const pi2_gguf *gguf, uint64_t *hash_out) {
    pi2_source_identity identity = { 0 };
    PI2_TRY(pi2_cluster_file_is(gguf) ? read_source(gguf, &identity) : pi2_source_identity_of(gguf, &identity));
    *hash_out = identity.header_hash;
    return PI2_OK;
}

pi2_status pi2_source_known_samples(const pi2_gguf *gguf, uint64_t *hash_out) {
    pi2_source_identity identity = { 0 };
    if (!pi2_cluster_file_is(gguf)) return pi2_source_sample_hash(gguf, hash_out);
    PI2_TRY(read_source(gguf, &identity));
    *hash_out = identity.sample_hash;
    return PI2_OK;
}

pi2_status pi2_cluster_file_layout(const pi2_gguf *gguf, pi2_extent_layout **layout_out,
                                   pi2_source_identity *source_out) {
    *layout_out = NULL;
    *source_out = (pi2_source_identity){ 0 };
    PI2_TRY(check_version(gguf));
    PI2_TRY(read_source(gguf, source_out));
    pi2_extent_layout *layout = calloc(1, sizeof *layout);
    if (!layout) return pi2_fail(PI2_ERR_MEMORY, "no memory for a cluster file's layout");
    const pi2_status status = read_layout(gguf, layout);
    if (status != PI2_OK) {
        pi2_extent_layout_free(layout);
        return status;
    }
    *layout_out = layout;
    return PI2_OK;
}
