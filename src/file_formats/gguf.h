/* gguf.h: a checked reader of GGUF v2 and v3, single or split. Every byte is untrusted. */
#ifndef PI2_FILE_FORMATS_GGUF_H
#define PI2_FILE_FORMATS_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "powerinfer2/status.h"

typedef struct pi2_gguf pi2_gguf;

typedef struct pi2_gguf_tensor {
    const char *name;        /* NUL-terminated, owned by the pi2_gguf */
    uint32_t type;           /* GGUF type id, maybe one that we cannot read */
    uint32_t dimension_count;
    uint64_t dimensions[4];  /* [0] is the row length; unused ones are 1 */
    uint32_t file_index;     /* which part of a split model */
    uint64_t file_offset;    /* absolute, checked: offset + bytes lies inside the file */
    uint64_t bytes;          /* 0 when the size of this type is not known to us */
    const uint64_t *matrix_offsets; /* of stacked matrices, where each lies, absolute; the gguf's; NULL: one behind the
                                       other (pi2_gguf_split_rows(), pi2_gguf_stack_experts()) */
} pi2_gguf_tensor;

/** Value types of GGUF metadata. */
typedef enum pi2_gguf_value_type {
    PI2_GGUF_U8 = 0, PI2_GGUF_I8 = 1, PI2_GGUF_U16 = 2, PI2_GGUF_I16 = 3, PI2_GGUF_U32 = 4,
    PI2_GGUF_I32 = 5, PI2_GGUF_F32 = 6, PI2_GGUF_BOOL = 7, PI2_GGUF_STRING = 8,
    PI2_GGUF_ARRAY = 9, PI2_GGUF_U64 = 10, PI2_GGUF_I64 = 11, PI2_GGUF_F64 = 12
} pi2_gguf_value_type;

/** Bytes of a number or bool of this type; 0 for strings, arrays and unknown types. */
size_t pi2_gguf_value_bytes(uint32_t value_type);

/** A file that has this key says what pi2_gguf_file_header_hash() must be. */
#define PI2_GGUF_HEADER_CHECKSUM_KEY "powerinfer2.header_checksum"

/** Columns and bytes of one block of a tensor type; false when we do not know the type. */
bool pi2_gguf_tensor_type_size(uint32_t tensor_type, uint32_t *block_columns_out,
                               uint32_t *block_bytes_out);

/** Key that names the activation of a model's FFN where its architecture does not (ffn_activations.inc). */
#define PI2_KEY_FFN_ACTIVATION "powerinfer2.ffn_activation"

/** Of gelu_topk: the share of Gates that each layer leaves out, a float or an array of them; and Gemma 3n's own, an
 *  array that has the same as standard deviations above the mean. */
#define PI2_KEY_GATE_SPARSITY "powerinfer2.ffn_activation_sparsity"
#define PI2_KEY_GATE_DEVIATIONS "gemma3n.activation_sparsity_scale"

/** A string inside the metadata: not NUL-terminated, owned by the pi2_gguf. */
typedef struct pi2_gguf_string { const char *text; size_t length; } pi2_gguf_string;

/**
 * Opens a model and checks its whole header. A name "...-00001-of-0000N.gguf" opens all N
 * parts, which must lie in the same folder and agree. Reads the header only, in memory that
 * pi2_gguf_close() gives back to the system.
 * Every tensor lies inside its file, aligned, and none overlaps another; a tensor of a type
 * whose size we do not know has bytes 0, and its user refuses it by name.
 * Threads: a pi2_gguf never changes once open, but by pi2_gguf_put_string().
 * Errors  FORMAT (what, file, byte offset), UNSUPPORTED (version 1, big-endian, newer), IO, MEMORY
 */
pi2_status pi2_gguf_open(const char *path, pi2_gguf **gguf_out);
void pi2_gguf_close(pi2_gguf *gguf); /* NULL is fine */

size_t pi2_gguf_file_count(const pi2_gguf *gguf);
const char *pi2_gguf_file_path(const pi2_gguf *gguf, size_t file_index);
uint64_t pi2_gguf_file_bytes(const pi2_gguf *gguf, size_t file_index);
/** When the file was last changed, in nanoseconds since 1970. */
int64_t pi2_gguf_file_modified_ns(const pi2_gguf *gguf, size_t file_index);
/** XXH3 64 of the file's bytes up to the end of the tensor table: names a model cheaply. The value
 *  of the key PI2_GGUF_HEADER_CHECKSUM_KEY, a u64, counts as zeros. */
uint64_t pi2_gguf_file_header_hash(const pi2_gguf *gguf, size_t file_index);
uint64_t pi2_gguf_file_header_bytes(const pi2_gguf *gguf, size_t file_index);
/** Where the tensors' data begin. */
uint64_t pi2_gguf_file_data_offset(const pi2_gguf *gguf, size_t file_index);

size_t pi2_gguf_tensor_count(const pi2_gguf *gguf);
const pi2_gguf_tensor *pi2_gguf_tensor_at(const pi2_gguf *gguf, size_t index);
/** NULL when absent. */
const pi2_gguf_tensor *pi2_gguf_tensor_find(const pi2_gguf *gguf, const char *name);

/* Metadata. `found_out` style: *_or returns the default when the key is absent; a key of the
 * wrong type fails with FORMAT and names the key. Integers of any width and sign are accepted
 * where the value fits. */
bool pi2_gguf_has(const pi2_gguf *gguf, const char *key);
pi2_status pi2_gguf_u32(const pi2_gguf *gguf, const char *key, uint32_t *value_out);
pi2_status pi2_gguf_u32_or(const pi2_gguf *gguf, const char *key, uint32_t fallback, uint32_t *value_out);
pi2_status pi2_gguf_u64_or(const pi2_gguf *gguf, const char *key, uint64_t fallback, uint64_t *value_out);
pi2_status pi2_gguf_f32_or(const pi2_gguf *gguf, const char *key, float fallback, float *value_out);
/** An integer or float of any width and sign. */
pi2_status pi2_gguf_number_or(const pi2_gguf *gguf, const char *key, double fallback, double *value_out);
pi2_status pi2_gguf_bool_or(const pi2_gguf *gguf, const char *key, bool fallback, bool *value_out);
pi2_status pi2_gguf_string_get(const pi2_gguf *gguf, const char *key, pi2_gguf_string *value_out);

/**
 * Adds a key of type string to the metadata in memory, or gives one that is there this value: for what the
 * user knows and the file does not say. The file, its identity and its hash stay as they are.
 * Errors  MEMORY.  Threads: before anyone else uses the gguf
 */
pi2_status pi2_gguf_put_string(pi2_gguf *gguf, const char *key, const char *text);

/**
 * Makes two tensors of each "blk.N.<name>", in memory only: the first half of its rows is "blk.N.<first_name>", the
 * second "blk.N.<second_name>"; of stacked matrices each one's halves. No pointer to a tensor from before is good any
 * more.
 * Errors  FORMAT (rows that cannot be halved, a name that is there already), MEMORY.  Threads: before anyone else uses
 * the gguf
 */
pi2_status pi2_gguf_split_rows(pi2_gguf *gguf, const char *name, const char *first_name, const char *second_name);
/**
 * Makes one tensor "blk.N.ffn_gate_exps.weight" of all "blk.N.ffn_gate.E.weight", and so of ffn_up and ffn_down, in
 * memory only: files of 2023 have experts one by one. No pointer to a tensor from before is good any more.
 * Errors  FORMAT (one is missing), UNSUPPORTED (they differ), MEMORY.  Threads: before anyone else uses the gguf
 */
pi2_status pi2_gguf_stack_experts(pi2_gguf *gguf);
/** Where a stacked matrix lies in the tensor's file; matrix < dimensions[2]. */
uint64_t pi2_gguf_matrix_offset(const pi2_gguf_tensor *tensor, uint64_t matrix);
/** Bytes of the file from the tensor's first one to behind its last one: more than its own where others lie between. */
uint64_t pi2_gguf_tensor_span(const pi2_gguf_tensor *tensor);

/** Arrays. element type ids as in GGUF (0 u8, 4 u32, 5 i32, 6 f32, 8 string, 10 u64 ...). */
typedef struct pi2_gguf_array {
    uint32_t element_type;
    uint64_t count;
    const uint8_t *data;  /* raw little-endian bytes, unaligned; strings: use the iterator */
    size_t data_bytes;
} pi2_gguf_array;
/** Whether a key is there and is an array. */
bool pi2_gguf_is_array(const pi2_gguf *gguf, const char *key);
pi2_status pi2_gguf_array_get(const pi2_gguf *gguf, const char *key, pi2_gguf_array *array_out);
/** Walks a string array: *cursor starts at 0; false at the end. */
bool pi2_gguf_array_next_string(const pi2_gguf_array *array, size_t *cursor, pi2_gguf_string *string_out);
/** Element of a numeric array as the wanted type; index < count. */
uint64_t pi2_gguf_array_u64(const pi2_gguf_array *array, uint64_t index);
float pi2_gguf_array_f32(const pi2_gguf_array *array, uint64_t index);

/** Iterates metadata in file order (inspect, prepare). Raw value bytes follow the type id. */
typedef struct pi2_gguf_entry {
    pi2_gguf_string key;
    uint32_t value_type;
    const uint8_t *value;
    size_t value_bytes;
} pi2_gguf_entry;
size_t pi2_gguf_entry_count(const pi2_gguf *gguf);
pi2_gguf_entry pi2_gguf_entry_at(const pi2_gguf *gguf, size_t index);

#endif
