/* cluster_file_columns.h: the tables of a cluster file are columns, arrays of equal length; how they are read. */
#ifndef PI2_FILE_FORMATS_CLUSTER_FILE_COLUMNS_H
#define PI2_FILE_FORMATS_CLUSTER_FILE_COLUMNS_H

#include "file_formats/gguf.h"

typedef struct pi2_column {
    const char *key;
    uint32_t type; /* of an element: pi2_gguf_value_type */
    pi2_gguf_array array;
} pi2_column;

/** "FILE: what: the file is damaged: ...". Returns FORMAT. */
pi2_status pi2_cluster_file_damaged(const pi2_gguf *gguf, const char *what);

/** An array of this element type with exactly `count` elements; count UINT32_MAX: any number up to INT32_MAX.
 *  Errors  FORMAT (the key) */
pi2_status pi2_cluster_array_read(const pi2_gguf *gguf, const char *key, uint32_t element_type, uint32_t count,
                                  pi2_gguf_array *array_out);

/** Reads the arrays of all columns, whose keys and types are given. Errors FORMAT (the key of the first that has
 *  another type, or another length than the first column) */
pi2_status pi2_columns_read(const pi2_gguf *gguf, pi2_column *columns, size_t column_count, uint32_t *row_count_out);

/** Numbers of a column that was read; row < row count. */
uint32_t pi2_column_u32(const pi2_column *column, uint32_t row);
uint64_t pi2_column_u64(const pi2_column *column, uint32_t row);

#endif
