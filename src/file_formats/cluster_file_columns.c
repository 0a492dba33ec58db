/* cluster_file_columns.c: reads the columns of a cluster file's tables, whose types and lengths are untrusted. */
#include "file_formats/cluster_file_columns.h"

#include <stdio.h>

#include "base/fail.h"

pi2_status pi2_cluster_file_damaged(const pi2_gguf *gguf, const char *what) {
    return pi2_fail(PI2_ERR_FORMAT, "%s: %s: the file is damaged: make it again with prepare",
                    pi2_gguf_file_path(gguf, 0), what);
}

pi2_status pi2_cluster_array_read(const pi2_gguf *gguf, const char *key, uint32_t element_type, uint32_t count,
                                  pi2_gguf_array *array_out) {
    PI2_TRY(pi2_gguf_array_get(gguf, key, array_out));
    if (array_out->element_type != element_type || (count != UINT32_MAX && array_out->count != count) ||
        array_out->count > INT32_MAX) {
        char what[128];
        (void)snprintf(what, sizeof what, "key '%s' has the wrong type or length", key);
        return pi2_cluster_file_damaged(gguf, what);
    }
    return PI2_OK;
}

pi2_status pi2_columns_read(const pi2_gguf *gguf, pi2_column *columns, size_t column_count, uint32_t *row_count_out) {
    PI2_TRY(pi2_cluster_array_read(gguf, columns[0].key, columns[0].type, UINT32_MAX, &columns[0].array));
    *row_count_out = (uint32_t)columns[0].array.count;
    for (size_t i = 1; i < column_count; i++) {
        PI2_TRY(pi2_cluster_array_read(gguf, columns[i].key, columns[i].type, *row_count_out, &columns[i].array));
    }
    return PI2_OK;
}

uint32_t pi2_column_u32(const pi2_column *column, uint32_t row) {
    return (uint32_t)pi2_gguf_array_u64(&column->array, row);
}

uint64_t pi2_column_u64(const pi2_column *column, uint32_t row) { return pi2_gguf_array_u64(&column->array, row); }
