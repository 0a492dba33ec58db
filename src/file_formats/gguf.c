/*
 * gguf.c: reads and checks the header of GGUF files.
 *
 * A header is read with pread into private memory, a chunk at a time as far as parsing has
 * come, so that a false length never makes us read or reserve more than the file has, and so
 * that the page cache keeps nothing. Layout of a file (little-endian):
 *
 *   magic "GGUF" (or "PWRI": powerinfer_gguf.h), version u32, tensor count u64, metadata count u64
 *   metadata: key (u64 length, bytes), value type u32, value
 *   tensors:  name (u64 length, bytes), dimension count u32, dimensions u64 each,
 *             type u32, offset u64 (from the start of the data)
 *   padding to general.alignment, then the data
 */
#include "file_formats/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "base/whole_file.h"
#include "file_formats/gguf_internal.h"

enum {
    READ_CHUNK_BYTES = 256 * 1024,
    FIXED_HEADER_BYTES = 24,
    MAX_HEADER_BYTES = 1 << 30,
    MAX_KEY_BYTES = 65535,
    MAX_TENSOR_NAME_BYTES = 64,
    MAX_ARRAY_DEPTH = 4,
    MAX_ALIGNMENT = 1 << 20,
    DEFAULT_ALIGNMENT = 32,
    MAX_PARTS = 99999,
    SUBJECT_BYTES = 112
};

/** The state of reading one file. */
typedef struct header_parser {
    pi2_gguf_part *part;
    int file;
    size_t position;
    size_t loaded_bytes;
    size_t limit_bytes;          /* the file's bytes, or our own limit for a header */
    char subject[SUBJECT_BYTES]; /* what is being read, for error texts: "key 'x'" */
} header_parser;

/* ---- sizes of tensor types ------------------------------------------------------------- */

typedef struct tensor_type_size { uint16_t type, block_columns, block_bytes; } tensor_type_size;

/* Every type that GGUF files of today hold, also those that we cannot compute with: the
 * checks on offsets and `inspect` need their sizes. */
static const tensor_type_size tensor_type_sizes[] = {
    { 0, 1, 4 },      { 1, 1, 2 },      { 2, 32, 18 },    { 3, 32, 20 },    { 6, 32, 22 },
    { 7, 32, 24 },    { 8, 32, 34 },    { 9, 32, 36 },    { 10, 256, 84 },  { 11, 256, 110 },
    { 12, 256, 144 }, { 13, 256, 176 }, { 14, 256, 210 }, { 15, 256, 292 }, { 16, 256, 66 },
    { 17, 256, 74 },  { 18, 256, 98 },  { 19, 256, 50 },  { 20, 32, 18 },   { 21, 256, 110 },
    { 22, 256, 82 },  { 23, 256, 136 }, { 24, 1, 1 },     { 25, 1, 2 },     { 26, 1, 4 },
    { 27, 1, 8 },     { 28, 1, 8 },     { 29, 256, 56 },  { 30, 1, 2 },     { 34, 256, 54 },
    { 35, 256, 66 },  { 39, 32, 17 },   { 40, 64, 36 },   { 41, 128, 18 },
};

bool pi2_gguf_tensor_type_size(uint32_t tensor_type, uint32_t *block_columns_out,
                               uint32_t *block_bytes_out) {
    for (size_t i = 0; i < sizeof tensor_type_sizes / sizeof tensor_type_sizes[0]; i++) {
        if (tensor_type_sizes[i].type == tensor_type) {
            *block_columns_out = tensor_type_sizes[i].block_columns;
            *block_bytes_out = tensor_type_sizes[i].block_bytes;
            return true;
        }
    }
    return false;
}

/* ---- reading ---------------------------------------------------------------------------- */

static pi2_status load_up_to(header_parser *parser, size_t end) {
    const size_t limit = parser->limit_bytes;
    size_t wanted = limit - parser->loaded_bytes > READ_CHUNK_BYTES
                        ? parser->loaded_bytes + READ_CHUNK_BYTES
                        : limit;
    if (wanted < end) wanted = end;
    PI2_TRY(pi2_growable_block_grow(&parser->part->header, wanted));
    PI2_TRY(pi2_file_read_at(parser->file, parser->part->path, parser->loaded_bytes, wanted - parser->loaded_bytes,
                             parser->part->header.memory + parser->loaded_bytes));
    parser->loaded_bytes = wanted;
    return PI2_OK;
}

/** Makes the next `bytes` bytes readable, or says that the file ends before them. */
static pi2_status need(header_parser *parser, uint64_t bytes) {
    if (bytes > parser->limit_bytes - parser->position) {
        if (parser->limit_bytes < parser->part->bytes) {
            return pi2_fail(PI2_ERR_UNSUPPORTED,
                            "%s: %s at byte %zu: the header is larger than %d bytes: the file is "
                            "damaged, or no language model",
                            parser->part->path, parser->subject, parser->position,
                            MAX_HEADER_BYTES);
        }
        return pi2_fail(PI2_ERR_FORMAT,
                        "%s: %s at byte %zu needs %" PRIu64 " bytes, and the file ends at byte "
                        "%" PRIu64 ": it is truncated or damaged: download it again",
                        parser->part->path, parser->subject, parser->position, bytes,
                        parser->part->bytes);
    }
    const size_t end = parser->position + (size_t)bytes;
    return end <= parser->loaded_bytes ? PI2_OK : load_up_to(parser, end);
}

static const uint8_t *at_position(const header_parser *parser) {
    return parser->part->header.memory + parser->position;
}

static pi2_status read_number(header_parser *parser, size_t bytes, uint64_t *value_out) {
    PI2_TRY(need(parser, bytes));
    *value_out = pi2_load_le(at_position(parser), bytes);
    parser->position += bytes;
    return PI2_OK;
}

static pi2_status read_string(header_parser *parser, pi2_gguf_string *string_out) {
    uint64_t length;
    PI2_TRY(read_number(parser, 8, &length));
    PI2_TRY(need(parser, length));
    *string_out = (pi2_gguf_string){ (const char *)at_position(parser), (size_t)length };
    parser->position += (size_t)length;
    return PI2_OK;
}

static void set_subject(header_parser *parser, const char *kind, pi2_gguf_string name) {
    char text[SUBJECT_BYTES - 24];
    (void)snprintf(parser->subject, sizeof parser->subject, "%s '%s'", kind,
                   pi2_gguf_printable(text, sizeof text, name));
}

/** An error in what the subject says, at a byte offset; `what` ends the line. */
static pi2_status bad(const header_parser *parser, size_t offset, const char *what) {
    return pi2_fail(PI2_ERR_FORMAT,
                    "%s: %s at byte %zu: %s: the file is damaged: download or convert it again",
                    parser->part->path, parser->subject, offset, what);
}

/** Doubles an array when it is full: counts in a file are never trusted for an allocation. */
static pi2_status make_room(void **array, size_t element_bytes, size_t count, size_t *capacity) {
    if (count < *capacity) return PI2_OK;
    const size_t wanted = *capacity ? *capacity * 2 : 64;
    void *grown = wanted > SIZE_MAX / element_bytes ? NULL : realloc(*array, wanted * element_bytes);
    if (!grown) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for %zu entries of a model's header", wanted);
    }
    *array = grown;
    *capacity = wanted;
    return PI2_OK;
}

/* ---- metadata --------------------------------------------------------------------------- */

static pi2_status check_bools(header_parser *parser, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        if (at_position(parser)[i] > 1) {
            return bad(parser, parser->position + (size_t)i, "a bool is neither 0 nor 1");
        }
    }
    return PI2_OK;
}

static pi2_status skip_numbers(header_parser *parser, uint32_t type, uint64_t count) {
    const size_t bytes = pi2_gguf_value_bytes(type);
    if (bytes == 0) {
        char what[64];
        (void)snprintf(what, sizeof what, "unknown value type %" PRIu32, type);
        return bad(parser, parser->position, what);
    }
    PI2_TRY(need(parser, count > UINT64_MAX / bytes ? UINT64_MAX : count * bytes));
    if (type == PI2_GGUF_BOOL) PI2_TRY(check_bools(parser, count));
    parser->position += (size_t)(count * bytes);
    return PI2_OK;
}

/** Passes over one value. Arrays nest at most MAX_ARRAY_DEPTH deep, so recursion is bounded. */
static pi2_status skip_value(header_parser *parser, uint32_t type, unsigned depth) {
    pi2_gguf_string string;
    if (type == PI2_GGUF_STRING) return read_string(parser, &string);
    if (type != PI2_GGUF_ARRAY) return skip_numbers(parser, type, 1);
    if (depth >= MAX_ARRAY_DEPTH) {
        return bad(parser, parser->position, "its arrays are nested too deep");
    }
    uint64_t element_type, count;
    PI2_TRY(read_number(parser, 4, &element_type));
    PI2_TRY(read_number(parser, 8, &count));
    if (element_type != PI2_GGUF_STRING && element_type != PI2_GGUF_ARRAY) {
        return skip_numbers(parser, (uint32_t)element_type, count);
    }
    /* Each string takes 8 bytes at least and each array 12: this bounds the loop. */
    PI2_TRY(need(parser, count > UINT64_MAX / 8 ? UINT64_MAX : count * 8));
    for (uint64_t i = 0; i < count; i++) {
        PI2_TRY(skip_value(parser, (uint32_t)element_type, depth + 1));
    }
    return PI2_OK;
}

static pi2_status read_entry(header_parser *parser, pi2_gguf_entry *entry) {
    const size_t start = parser->position;
    (void)snprintf(parser->subject, sizeof parser->subject, "a metadata key");
    PI2_TRY(read_string(parser, &entry->key));
    if (entry->key.length == 0 || entry->key.length > MAX_KEY_BYTES) {
        return bad(parser, start, "its name is empty or longer than 65535 bytes");
    }
    if (memchr(entry->key.text, '\0', entry->key.length)) {
        return bad(parser, start, "its name holds a zero byte");
    }
    set_subject(parser, "key", entry->key);
    uint64_t type;
    PI2_TRY(read_number(parser, 4, &type));
    entry->value_type = (uint32_t)type;
    const size_t value_start = parser->position;
    PI2_TRY(skip_value(parser, entry->value_type, 0));
    entry->value = parser->part->header.memory + value_start;
    entry->value_bytes = parser->position - value_start;
    return PI2_OK;
}

static pi2_status read_table(header_parser *parser, pi2_gguf_table *table, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        PI2_TRY(make_room((void **)&table->entries, sizeof *table->entries, table->count,
                          &table->capacity));
        PI2_TRY(read_entry(parser, &table->entries[table->count]));
        table->count++;
    }
    PI2_TRY(pi2_gguf_table_index(table));
    for (size_t i = 1; i < table->count; i++) {
        if (pi2_gguf_string_compare(&table->by_key[i - 1]->key, &table->by_key[i]->key) == 0) {
            set_subject(parser, "key", table->by_key[i]->key);
            return bad(parser,
                       (size_t)((const uint8_t *)table->by_key[i]->key.text -
                                parser->part->header.memory),
                       "it appears twice");
        }
    }
    return PI2_OK;
}

static void free_table(pi2_gguf_table *table) {
    free(table->entries);
    free(table->by_key);
    *table = (pi2_gguf_table){ 0 };
}

static pi2_status read_alignment(header_parser *parser, const pi2_gguf_table *table) {
    const pi2_gguf_entry *entry = pi2_gguf_table_find(table, "general.alignment");
    uint64_t alignment = DEFAULT_ALIGNMENT;
    if (entry) {
        set_subject(parser, "key", entry->key);
        if (entry->value_type != PI2_GGUF_U32 || !pi2_gguf_entry_u64(entry, &alignment) ||
            alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > MAX_ALIGNMENT) {
            return bad(parser, (size_t)(entry->value - parser->part->header.memory),
                       "it must be a power of two up to 1048576, as a u32");
        }
    }
    parser->part->alignment = (uint32_t)alignment;
    return PI2_OK;
}

/* ---- tensors ---------------------------------------------------------------------------- */

static pi2_status read_dimensions(header_parser *parser, pi2_gguf_tensor *tensor) {
    uint64_t count, elements = 1;
    const size_t start = parser->position;
    PI2_TRY(read_number(parser, 4, &count));
    if (count < 1 || count > 4) return bad(parser, start, "it must have 1 to 4 dimensions");
    tensor->dimension_count = (uint32_t)count;
    for (size_t i = 0; i < 4; i++) {
        tensor->dimensions[i] = 1;
        if (i >= count) continue;
        PI2_TRY(read_number(parser, 8, &tensor->dimensions[i]));
        if (tensor->dimensions[i] == 0) return bad(parser, start, "a dimension is 0");
        if (tensor->dimensions[i] > (uint64_t)INT64_MAX / elements) {
            return bad(parser, start, "its dimensions give an impossible number of elements");
        }
        elements *= tensor->dimensions[i];
    }
    return PI2_OK;
}

static pi2_status compute_bytes(header_parser *parser, pi2_gguf_tensor *tensor, size_t start) {
    uint32_t block_columns, block_bytes;
    tensor->bytes = 0;
    if (!pi2_gguf_tensor_type_size(tensor->type, &block_columns, &block_bytes)) return PI2_OK;
    if (tensor->dimensions[0] % block_columns != 0) {
        return bad(parser, start, "its row length is no multiple of its type's block");
    }
    uint64_t blocks = tensor->dimensions[0] / block_columns;
    for (size_t i = 1; i < 4; i++) blocks *= tensor->dimensions[i]; /* elements were checked */
    if (blocks > (uint64_t)INT64_MAX / block_bytes) {
        return bad(parser, start, "its dimensions give an impossible number of bytes");
    }
    tensor->bytes = blocks * block_bytes;
    return PI2_OK;
}

/** Reads one line of the tensor table; file_offset is relative until place_tensors(). */
static pi2_status read_tensor(header_parser *parser, pi2_gguf_tensor *tensor,
                              uint32_t part_index) {
    const size_t start = parser->position;
    pi2_gguf_string name;
    (void)snprintf(parser->subject, sizeof parser->subject, "a tensor's name");
    PI2_TRY(read_string(parser, &name));
    if (name.length == 0 || name.length > MAX_TENSOR_NAME_BYTES) {
        return bad(parser, start, "it is empty or longer than 64 bytes");
    }
    if (memchr(name.text, '\0', name.length)) return bad(parser, start, "it holds a zero byte");
    set_subject(parser, "tensor", name);
    *tensor = (pi2_gguf_tensor){ .name = name.text };
    PI2_TRY(read_dimensions(parser, tensor));
    uint64_t type;
    PI2_TRY(read_number(parser, 4, &type));
    PI2_TRY(read_number(parser, 8, &tensor->file_offset));
    tensor->type = (uint32_t)type;
    tensor->file_index = part_index;
    if (tensor->file_offset % parser->part->alignment != 0) {
        return bad(parser, start, "its offset is not a multiple of the file's alignment");
    }
    return compute_bytes(parser, tensor, start);
}

/**
 * Ends each name with a zero byte, one byte before where the file has it: over the last byte of
 * its length, whose value is not needed any more. The header's hash was taken before.
 */
static void terminate_names(pi2_gguf_tensor *tensors, size_t count, uint8_t *header) {
    for (size_t i = 0; i < count; i++) {
        uint8_t *name = header + ((const uint8_t *)tensors[i].name - header);
        const size_t length = (size_t)pi2_load_le64(name - 8);
        memmove(name - 1, name, length);
        name[length - 1] = '\0';
        tensors[i].name = (const char *)name - 1;
    }
}

/**
 * Whether a name goes on behind ".gguf" as those of pieces do that a model's file was cut into for a store's limit:
 * "x.gguf.part1of3", "x.gguf-split-a", "x.gguf.001". (Parts of a split model end in ".gguf" and are models.)
 */
static bool is_piece_name(const char *path) {
    const char *ending = NULL;
    for (const char *at = path; *at; at++) {
        if (strncasecmp(at, ".gguf", 5) == 0) ending = at + 5;
    }
    if (!ending) return false;
    const size_t digits = *ending == '.' ? strspn(ending + 1, "0123456789") : 0;
    unsigned number, count;
    int end = -1;
    if (digits > 0 && ending[1 + digits] == '\0') return true;
    if (sscanf(ending, ".part%5uof%5u%n", &number, &count, &end) == 2 && end > 0 && ending[end] == '\0') return true;
    return strncmp(ending, "-split-", 7) == 0 && ending[7] >= 'a' && ending[7] <= 'z' && ending[8] == '\0';
}

/** What a reader does whose file ends too soon, or does not begin as a model does. */
static const char *remedy(const char *path, const char *otherwise) {
    return is_piece_name(path) ? "by its name it is a piece of a file: join all pieces into one with cat" : otherwise;
}

/** Turns offsets into absolute ones and checks that the file has the tensors' bytes. */
static pi2_status place_tensors(header_parser *parser, pi2_gguf_tensor *tensors, size_t count) {
    const pi2_gguf_part *part = parser->part;
    for (size_t i = 0; i < count; i++) {
        pi2_gguf_tensor *tensor = &tensors[i];
        const bool has_data = part->bytes >= part->data_offset;
        const uint64_t available = has_data ? part->bytes - part->data_offset : 0;
        if (!has_data || tensor->file_offset > available ||
            tensor->bytes > available - tensor->file_offset) {
            set_subject(parser, "tensor",
                        (pi2_gguf_string){ tensor->name, strlen(tensor->name) });
            const uint64_t begin = tensor->file_offset > UINT64_MAX - part->data_offset
                                       ? UINT64_MAX
                                       : tensor->file_offset + part->data_offset;
            return pi2_fail(PI2_ERR_FORMAT,
                            "%s: %s has %" PRIu64 " bytes at byte %" PRIu64 ", and the file ends at "
                            "byte %" PRIu64 ": %s",
                            part->path, parser->subject, tensor->bytes, begin, part->bytes,
                            remedy(part->path, "it is truncated: download it again"));
        }
        tensor->file_offset += part->data_offset;
        const uint64_t end = tensor->file_offset + tensor->bytes;
        if (end > parser->part->data_end) parser->part->data_end = end;
    }
    return PI2_OK;
}

/* ---- one file --------------------------------------------------------------------------- */

static pi2_status refuse_magic(const header_parser *parser, const uint8_t *start) {
    static const struct { char magic[5]; const char *what; } others[] = {
        { "GGML", "an old GGML file: convert the model to GGUF" },
        { "lmgg", "an old GGML file: convert the model to GGUF" },
        { "fmgg", "an old GGML file: convert the model to GGUF" },
        { "tjgg", "an old GGML file: convert the model to GGUF" },
        { "vers", "a Git LFS pointer, not the model itself: run git lfs pull" },
        { "PK\3\4", "a ZIP archive or PyTorch checkpoint: convert the model to GGUF" },
        { "<!DO", "a web page, not a model: check the address that it came from" },
        { "<htm", "a web page, not a model: check the address that it came from" },
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (memcmp(start, others[i].magic, 4) == 0) {
            return pi2_fail(PI2_ERR_FORMAT, "%s: at byte 0: this is %s", parser->part->path,
                            others[i].what);
        }
    }
    return pi2_fail(PI2_ERR_FORMAT,
                    "%s: at byte 0: this is no GGUF file (it begins with %02x %02x %02x %02x): %s",
                    parser->part->path, start[0], start[1], start[2], start[3],
                    remedy(parser->part->path, "give the path of a .gguf model"));
}

static pi2_status check_version(header_parser *parser, uint32_t version) {
    const char *path = parser->part->path;
    if (version == 2 || version == 3) return PI2_OK;
    if (version == 1) {
        return pi2_fail(PI2_ERR_UNSUPPORTED,
                        "%s: at byte 4: GGUF version 1 is not read: convert the model again", path);
    }
    if (version != 0 && (version & 0xffff) == 0) {
        return pi2_fail(PI2_ERR_UNSUPPORTED,
                        "%s: at byte 4: this is a big-endian GGUF file: get the little-endian one",
                        path);
    }
    return pi2_fail(PI2_ERR_UNSUPPORTED,
                    "%s: at byte 4: GGUF version %" PRIu32 " is not read, only 2 and 3: convert the "
                    "model again, or update this program",
                    path, version);
}

/** "GGUF", or "PWRI" of PowerInfer's files; all parts of a model begin alike. */
static pi2_status read_magic(const header_parser *parser, pi2_gguf *gguf, uint32_t part_index) {
    const bool is_powerinfer = memcmp(at_position(parser), "PWRI", 4) == 0;
    if (!is_powerinfer && memcmp(at_position(parser), "GGUF", 4) != 0) {
        return refuse_magic(parser, at_position(parser));
    }
    if (part_index > 0 && is_powerinfer != gguf->is_powerinfer) {
        return pi2_fail(PI2_ERR_FORMAT,
                        "%s: at byte 0: it begins otherwise than the first part: download the parts again",
                        parser->part->path);
    }
    gguf->is_powerinfer = is_powerinfer;
    return PI2_OK;
}

static pi2_status read_fixed_header(header_parser *parser, pi2_gguf *gguf, uint32_t part_index, uint64_t *tensor_count,
                                    uint64_t *entry_count) {
    const pi2_gguf_part *part = parser->part;
    (void)snprintf(parser->subject, sizeof parser->subject, "the header");
    if (part->bytes == 0) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: the file is empty: download it again", part->path);
    }
    PI2_TRY(need(parser, 4));
    PI2_TRY(read_magic(parser, gguf, part_index));
    PI2_TRY(need(parser, 8));
    PI2_TRY(check_version(parser, pi2_load_le32(at_position(parser) + 4)));
    PI2_TRY(need(parser, FIXED_HEADER_BYTES));
    *tensor_count = pi2_load_le64(at_position(parser) + 8);
    *entry_count = pi2_load_le64(at_position(parser) + 16);
    parser->position = FIXED_HEADER_BYTES;
    /* An entry takes at least 14 bytes and a tensor 33: more cannot be in the file. */
    if (*entry_count > part->bytes / 14 || *tensor_count > part->bytes / 33) {
        return pi2_fail(PI2_ERR_FORMAT,
                        "%s: at byte 8: %" PRIu64 " tensors and %" PRIu64 " keys do not fit into a "
                        "file of %" PRIu64 " bytes: it is truncated or damaged: download it again",
                        part->path, *tensor_count, *entry_count, part->bytes);
    }
    return PI2_OK;
}

/** XXH3 64 of the header, in which the value of PI2_GGUF_HEADER_CHECKSUM_KEY counts as zeros: so
 *  a file can carry the hash of its own header. */
static uint64_t hash_header(const pi2_gguf_part *part, const pi2_gguf_table *table, size_t bytes) {
    const pi2_gguf_entry *entry = pi2_gguf_table_find(table, PI2_GGUF_HEADER_CHECKSUM_KEY);
    if (!entry || entry->value_type != PI2_GGUF_U64) {
        return XXH3_64bits(part->header.memory, bytes);
    }
    uint8_t *value = part->header.memory + (entry->value - part->header.memory), kept[8];
    memcpy(kept, value, sizeof kept);
    memset(value, 0, sizeof kept);
    const uint64_t hash = XXH3_64bits(part->header.memory, bytes);
    memcpy(value, kept, sizeof kept);
    return hash;
}

static pi2_status parse_header(header_parser *parser, pi2_gguf *gguf, pi2_gguf_table *table,
                               uint32_t part_index) {
    pi2_gguf_part *part = parser->part;
    uint64_t tensor_count = 0, entry_count = 0;
    const size_t first = gguf->tensor_count;
    PI2_TRY(read_fixed_header(parser, gguf, part_index, &tensor_count, &entry_count));
    PI2_TRY(read_table(parser, table, entry_count));
    PI2_TRY(read_alignment(parser, table));
    for (uint64_t i = 0; i < tensor_count; i++) {
        PI2_TRY(make_room((void **)&gguf->tensors, sizeof *gguf->tensors, gguf->tensor_count,
                          &gguf->tensor_capacity));
        PI2_TRY(read_tensor(parser, &gguf->tensors[gguf->tensor_count], part_index));
        gguf->tensor_count++;
    }
    part->header_bytes = parser->position;
    part->header_hash = hash_header(part, table, parser->position);
    part->data_offset = (parser->position + (uint64_t)part->alignment - 1) / part->alignment *
                        part->alignment;
    part->data_end = part->data_offset;
    pi2_growable_block_trim(&part->header, parser->position);
    if (tensor_count == 0) return PI2_OK;
    terminate_names(gguf->tensors + first, gguf->tensor_count - first, part->header.memory);
    return place_tensors(parser, gguf->tensors + first, gguf->tensor_count - first);
}

static pi2_status open_file(pi2_gguf_part *part, int *file_out) {
    struct stat status;
    /* Not blocking: a named pipe must be refused, not waited for. */
    const int file = open(part->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) {
        return pi2_fail(PI2_ERR_IO, "%s: cannot open the file: %s", part->path, strerror(errno));
    }
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
        (void)close(file);
        return pi2_fail(PI2_ERR_IO, "%s: this is not a regular file: give the path of a .gguf model",
                        part->path);
    }
    part->bytes = (uint64_t)status.st_size;
    part->modified_ns = (int64_t)status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec;
    *file_out = file;
    return PI2_OK;
}

static pi2_status read_part(pi2_gguf *gguf, uint32_t part_index, pi2_gguf_table *table) {
    pi2_gguf_part *part = &gguf->parts[part_index];
    header_parser parser = { .part = part };
    PI2_TRY(open_file(part, &parser.file));
    parser.limit_bytes = part->bytes < MAX_HEADER_BYTES ? (size_t)part->bytes : MAX_HEADER_BYTES;
    /* Random access: read-ahead would fill the page cache with data that we do not want. */
    (void)posix_fadvise(parser.file, 0, 0, POSIX_FADV_RANDOM);
    pi2_status status = pi2_growable_block_open(&part->header, parser.limit_bytes);
    if (status == PI2_OK) status = parse_header(&parser, gguf, table, part_index);
    else status = pi2_fail_prefix(status, "%s", part->path);
    (void)posix_fadvise(parser.file, 0, (off_t)parser.loaded_bytes, POSIX_FADV_DONTNEED);
    (void)close(parser.file);
    return status;
}

/* ---- checks over all parts -------------------------------------------------------------- */

static int compare_names(const void *a, const void *b) {
    const pi2_gguf_tensor *const *left = a, *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

static int compare_places(const void *a, const void *b) {
    const pi2_gguf_tensor *left = *(const pi2_gguf_tensor *const *)a;
    const pi2_gguf_tensor *right = *(const pi2_gguf_tensor *const *)b;
    if (left->file_index != right->file_index) return left->file_index < right->file_index ? -1 : 1;
    if (left->file_offset != right->file_offset) {
        return left->file_offset < right->file_offset ? -1 : 1;
    }
    return left->bytes < right->bytes ? -1 : left->bytes > right->bytes;
}

/* Matrices that are stacked in memory alone lie in each other's gaps, where they were apart when they were read. */
static uint64_t bytes_before(const pi2_gguf_tensor *before) {
    return before->matrix_offsets ? before->bytes / before->dimensions[2] : before->bytes;
}

static pi2_status check_overlap(const pi2_gguf *gguf) {
    for (size_t i = 1; i < gguf->tensor_count; i++) {
        const pi2_gguf_tensor *before = gguf->by_name[i - 1], *tensor = gguf->by_name[i];
        if (before->file_index == tensor->file_index &&
            bytes_before(before) > tensor->file_offset - before->file_offset) {
            char name[80], other[80];
            return pi2_fail(
                PI2_ERR_FORMAT,
                "%s: tensor '%s' at byte %" PRIu64 " overlaps tensor '%s': the file is damaged: "
                "download or convert it again",
                gguf->parts[tensor->file_index].path,
                pi2_gguf_printable(name, sizeof name,
                                   (pi2_gguf_string){ tensor->name, strlen(tensor->name) }),
                tensor->file_offset,
                pi2_gguf_printable(other, sizeof other,
                                   (pi2_gguf_string){ before->name, strlen(before->name) }));
        }
    }
    return PI2_OK;
}

pi2_status pi2_gguf_index_tensors(pi2_gguf *gguf) {
    free(gguf->by_name);
    gguf->by_name = malloc((gguf->tensor_count + 1) * sizeof *gguf->by_name);
    if (!gguf->by_name) return pi2_fail(PI2_ERR_MEMORY, "no memory for a model's tensor table");
    for (size_t i = 0; i < gguf->tensor_count; i++) gguf->by_name[i] = &gguf->tensors[i];
    qsort(gguf->by_name, gguf->tensor_count, sizeof *gguf->by_name, compare_places);
    PI2_TRY(check_overlap(gguf));
    qsort(gguf->by_name, gguf->tensor_count, sizeof *gguf->by_name, compare_names);
    for (size_t i = 1; i < gguf->tensor_count; i++) {
        const pi2_gguf_tensor *tensor = gguf->by_name[i];
        if (strcmp(gguf->by_name[i - 1]->name, tensor->name) == 0) {
            char name[80];
            const pi2_gguf_part *part = &gguf->parts[tensor->file_index];
            return pi2_fail(PI2_ERR_FORMAT,
                            "%s: tensor '%s' at byte %zu appears twice: the file is damaged: "
                            "download or convert it again",
                            part->path,
                            pi2_gguf_printable(name, sizeof name,
                                               (pi2_gguf_string){ tensor->name,
                                                                  strlen(tensor->name) }),
                            (size_t)((const uint8_t *)tensor->name - part->header.memory));
        }
    }
    return PI2_OK;
}

/* ---- split models ----------------------------------------------------------------------- */

enum { SPLIT_SUFFIX_BYTES = 20, SPLIT_NUMBER_BYTES = 15 }; /* "-00001-of-00002.gguf" */

static bool parse_digits(const char *text, unsigned *value_out) {
    unsigned value = 0;
    for (int i = 0; i < 5; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    *value_out = value;
    return true;
}

/** Reads "-00001-of-00002.gguf" at the end of a path; ".GGUF" will do. */
static bool parse_split_name(const char *path, unsigned *number_out, unsigned *count_out) {
    const size_t length = strlen(path);
    if (length <= SPLIT_SUFFIX_BYTES) return false;
    const char *suffix = path + length - SPLIT_SUFFIX_BYTES;
    return suffix[0] == '-' && parse_digits(suffix + 1, number_out) &&
           memcmp(suffix + 6, "-of-", 4) == 0 && parse_digits(suffix + 10, count_out) &&
           strcasecmp(suffix + SPLIT_NUMBER_BYTES, ".gguf") == 0;
}

static uint64_t table_number_or(const pi2_gguf_table *table, const char *key, uint64_t fallback) {
    const pi2_gguf_entry *entry = pi2_gguf_table_find(table, key);
    uint64_t value;
    return entry && pi2_gguf_entry_u64(entry, &value) ? value : fallback;
}

static pi2_status check_split_keys(const pi2_gguf *gguf, const pi2_gguf_table *table,
                                   size_t part_index, size_t part_count) {
    const char *path = gguf->parts[part_index].path;
    const uint64_t count = table_number_or(table, "split.count", part_count > 1 ? 0 : 1);
    const uint64_t number = table_number_or(table, "split.no", part_count > 1 ? UINT64_MAX : 0);
    const pi2_gguf_part *part = &gguf->parts[part_index];
    if (part_count == 1 && count > 1 && part->bytes > part->data_end + part->alignment + FIXED_HEADER_BYTES) {
        return pi2_fail(PI2_ERR_FORMAT,
                        "%s: more follows the first of the %" PRIu64 " parts of a split model, at byte %" PRIu64
                        ": parts that were joined with cat are no model: get the parts again, each as a file",
                        path, count, part->data_end);
    }
    if (part_count == 1 && count > 1) {
        return pi2_fail(PI2_ERR_FORMAT,
                        "%s: this is one of the %" PRIu64 " parts of a split model, but its name does "
                        "not end in -00001-of-%05" PRIu64 ".gguf: give all parts their names again",
                        path, count, count);
    }
    if (part_count > 1 && (count != part_count || number != part_index)) {
        return pi2_fail(PI2_ERR_FORMAT,
                        "%s: its name says part %zu of %zu, but its keys split.no and split.count "
                        "do not: download the parts again",
                        path, part_index + 1, part_count);
    }
    return PI2_OK;
}

static pi2_status read_other_parts(pi2_gguf *gguf) {
    const char *first_path = gguf->parts[0].path;
    const size_t length = strlen(first_path);
    for (size_t i = 1; i < gguf->part_count; i++) {
        char *path = malloc(length + 1);
        if (!path) return pi2_fail(PI2_ERR_MEMORY, "no memory for a file name");
        memcpy(path, first_path, length + 1);
        char number[SPLIT_NUMBER_BYTES + 1];
        (void)snprintf(number, sizeof number, "-%05u-of-%05u", (unsigned)(i + 1) % 100000,
                       (unsigned)gguf->part_count % 100000);
        memcpy(path + length - SPLIT_SUFFIX_BYTES, number, SPLIT_NUMBER_BYTES); /* the ending keeps its letters */
        gguf->parts[i].path = path;
        pi2_gguf_table table = { 0 };
        pi2_status status = read_part(gguf, (uint32_t)i, &table);
        if (status == PI2_OK) status = check_split_keys(gguf, &table, i, gguf->part_count);
        free_table(&table);
        if (status == PI2_ERR_IO) {
            return pi2_fail_prefix(status, "part %zu of %zu of a split model", i + 1,
                                   gguf->part_count);
        }
        PI2_TRY(status);
    }
    const uint64_t tensors = table_number_or(&gguf->table, "split.tensors.count",
                                             gguf->tensor_count);
    if (tensors != gguf->tensor_count) {
        return pi2_fail(PI2_ERR_FORMAT,
                        "%s: split.tensors.count is %" PRIu64 ", but the parts hold %zu tensors: "
                        "download the parts again",
                        first_path, tensors, gguf->tensor_count);
    }
    return PI2_OK;
}

static pi2_status open_parts(pi2_gguf *gguf, const char *path) {
    unsigned number = 1, count = 1;
    if (parse_split_name(path, &number, &count) && number != 1) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: this is part %u of %u: open the first part", path,
                        number, count);
    }
    if (count < 1 || count > MAX_PARTS) count = 1;
    const size_t path_bytes = strlen(path) + 1;
    gguf->parts = calloc(count, sizeof *gguf->parts);
    if (!gguf->parts) return pi2_fail(PI2_ERR_MEMORY, "no memory for %u parts", count);
    gguf->part_count = count;
    gguf->parts[0].path = malloc(path_bytes);
    if (!gguf->parts[0].path) return pi2_fail(PI2_ERR_MEMORY, "no memory for a file name");
    memcpy(gguf->parts[0].path, path, path_bytes);
    PI2_TRY(read_part(gguf, 0, &gguf->table));
    PI2_TRY(check_split_keys(gguf, &gguf->table, 0, count));
    if (count > 1) PI2_TRY(read_other_parts(gguf));
    return pi2_gguf_index_tensors(gguf);
}

pi2_status pi2_gguf_open(const char *path, pi2_gguf **gguf_out) {
    *gguf_out = NULL;
    pi2_gguf *gguf = calloc(1, sizeof *gguf);
    if (!gguf) return pi2_fail(PI2_ERR_MEMORY, "no memory for a model's header");
    const pi2_status status = open_parts(gguf, path);
    if (status != PI2_OK) {
        pi2_gguf_close(gguf);
        return status;
    }
    *gguf_out = gguf;
    return PI2_OK;
}

void pi2_gguf_close(pi2_gguf *gguf) {
    if (!gguf) return;
    for (size_t i = 0; i < gguf->part_count; i++) {
        pi2_growable_block_close(&gguf->parts[i].header);
        free(gguf->parts[i].path);
    }
    free(gguf->parts);
    free_table(&gguf->table);
    pi2_gguf_free_additions(gguf);
    free(gguf->tensors);
    free(gguf->by_name);
    free(gguf);
}
