/* gguf_internal.h: what gguf.c (parsing) and gguf_metadata.c (look-up) share. */
#ifndef PI2_FILE_FORMATS_GGUF_INTERNAL_H
#define PI2_FILE_FORMATS_GGUF_INTERNAL_H

#include "base/growable_block.h"
#include "file_formats/gguf.h"

/** Metadata of one file: entries in file order, and the same sorted by key. */
typedef struct pi2_gguf_table {
    pi2_gguf_entry *entries;
    const pi2_gguf_entry **by_key;
    size_t count, capacity;
} pi2_gguf_table;

/** One file of a model. */
typedef struct pi2_gguf_part {
    char *path;
    uint64_t bytes;
    int64_t modified_ns;
    uint64_t header_bytes;     /* up to the padding before the tensors' data */
    uint64_t header_hash;      /* XXH3 64 of them */
    uint64_t data_offset, data_end; /* data_end: of the last tensor */
    uint32_t alignment;
    pi2_growable_block header; /* a private copy: tensor names are terminated in place */
} pi2_gguf_part;

/** Memory of what no file holds. */
typedef struct pi2_gguf_addition {
    struct pi2_gguf_addition *next;
    _Alignas(8) uint8_t bytes[]; /* of an entry: the value, then the key */
} pi2_gguf_addition;

struct pi2_gguf {
    pi2_gguf_part *parts;
    size_t part_count;
    pi2_gguf_table table; /* the first part's */
    pi2_gguf_tensor *tensors;
    const pi2_gguf_tensor **by_name;
    size_t tensor_count, tensor_capacity;
    bool is_powerinfer;           /* the files begin with "PWRI" */
    pi2_gguf_addition *additions;
};

/** Orders strings by their bytes, shorter first where one begins the other. */
int pi2_gguf_string_compare(const pi2_gguf_string *a, const pi2_gguf_string *b);

/** Makes a key or name fit for an error text of one line; returns `out`. */
const char *pi2_gguf_printable(char *out, size_t out_bytes, pi2_gguf_string string);

/** Sorts by_key anew after `entries` has changed. Errors MEMORY. */
pi2_status pi2_gguf_table_index(pi2_gguf_table *table);

/** Sorts by_name anew after `tensors` has changed, and checks that no name is there twice. Errors MEMORY, FORMAT. */
pi2_status pi2_gguf_index_tensors(pi2_gguf *gguf);

/** Memory that is freed with the gguf; NULL: there is none. */
void *pi2_gguf_keep(pi2_gguf *gguf, size_t bytes);

/** Frees what pi2_gguf_keep() and pi2_gguf_put_string() took. */
void pi2_gguf_free_additions(pi2_gguf *gguf);

/** The entry of a key in a sorted table, or NULL. */
const pi2_gguf_entry *pi2_gguf_table_find(const pi2_gguf_table *table, const char *key);

/** Reads an unsigned integer of any width; false when the type or the sign does not allow it. */
bool pi2_gguf_entry_u64(const pi2_gguf_entry *entry, uint64_t *value_out);

#endif
