/* predictor_file.c: writes and reads a predictor's file (docs/predictor_format.md). What is read is untrusted. */
#include "predictor/predictor_file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "base/output_file.h"
#include "base/whole_file.h"
#include "predictor/predictor_kinds.h"

enum { VERSION = 1, VERSION_SIGNED = 2, HEADER_BYTES = 128, LAYER_BYTES = 64, LOST_AT = 48, CHECKSUM_AT = 72,
       MOST_LAYERS = 65536, MOST_NEURONS = 1 << 24, FLAG_HAS_UP = 1, FLAG_SIGNED = 1 };
static const char magic[8] = { 'P', 'I', '2', 'P', 'R', 'E', 'D', '\n' };

static uint64_t table_bytes(uint32_t layers) { return HEADER_BYTES + (uint64_t)layers * LAYER_BYTES; }

/* Of header and list, with zeros in the checksum's own place. */
static uint64_t checksum_of(const uint8_t *bytes, uint64_t count) {
    uint8_t header[HEADER_BYTES];
    memcpy(header, bytes, sizeof header);
    memset(header + CHECKSUM_AT, 0, 8);
    return XXH3_64bits_withSeed(bytes + HEADER_BYTES, (size_t)(count - HEADER_BYTES),
                                XXH3_64bits(header, sizeof header));
}

/* ---- reading ---- */

static pi2_status damaged(const char *path, uint64_t at, const char *what) {
    return pi2_fail(PI2_ERR_FORMAT, "%s: %s at byte %" PRIu64 ": the predictor is damaged: make it again", path, what,
                    at);
}

static bool share_is_good(float share) { return share >= 0 && share <= 1; }

static bool losses_are_good(const pi2_predictor_layer *layer) {
    return pi2_predictor_floats_are_good(layer->lost, PI2_PREDICTOR_POINTS, 0);
}

/* Of the two versions one knows of signed layers, and only low_rank has them. */
static uint32_t known_flags(uint32_t version, const pi2_predictor *predictor) {
    return version == VERSION_SIGNED && predictor->kind->number == PI2_PREDICTOR_LOW_RANK ? FLAG_SIGNED : 0;
}

static pi2_status parse_layer(const char *path, const uint8_t *line, uint64_t at, uint32_t version,
                              const pi2_predictor *predictor, pi2_predictor_layer *layer) {
    const uint32_t flags = pi2_load_le32(line + 4);
    *layer = (pi2_predictor_layer){
        .size = pi2_load_le32(line), .is_signed = flags != 0, .threshold = pi2_load_le_f32(line + 8),
        .recall = pi2_load_le_f32(line + 12), .precision = pi2_load_le_f32(line + 16),
        .density = pi2_load_le_f32(line + 20),
        .offset = pi2_load_le64(line + 24), .bytes = pi2_load_le64(line + 32), .checksum = pi2_load_le64(line + 40) };
    for (size_t p = 0; p < PI2_PREDICTOR_POINTS; p++) layer->lost[p] = pi2_load_le_f32(line + LOST_AT + 4 * p);
    if (!isfinite(layer->threshold) || !share_is_good(layer->recall) || !share_is_good(layer->precision) ||
        !share_is_good(layer->density) || !losses_are_good(layer)) {
        return damaged(path, at + 8, "a number that is none");
    }
    if (flags & ~known_flags(version, predictor)) return damaged(path, at + 4, "an impossible kind of layer");
    if (layer->size == 0 ? layer->bytes != 0
                         : layer->bytes == 0 || layer->bytes != predictor->kind->layer_bytes(predictor, layer->size)) {
        return damaged(path, at, "a layer of impossible size");
    }
    return PI2_OK;
}

/* Layers follow each other, and the file ends with the last one's. */
static pi2_status parse_layers(const char *path, const uint8_t *bytes, pi2_predictor *predictor) {
    uint64_t next = predictor->data_begin;
    predictor->layers = calloc(predictor->layer_count, sizeof *predictor->layers);
    if (!predictor->layers) return pi2_fail(PI2_ERR_MEMORY, "%s: no memory for its layers", path);
    for (uint32_t i = 0; i < predictor->layer_count; i++) {
        const uint64_t at = HEADER_BYTES + (uint64_t)i * LAYER_BYTES;
        pi2_predictor_layer *layer = &predictor->layers[i];
        PI2_TRY(parse_layer(path, bytes + at, at, pi2_load_le32(bytes + 8), predictor, layer));
        if (layer->offset != next || layer->bytes > predictor->file_bytes - next) {
            return damaged(path, at + 24, "a layer that lies elsewhere than behind the one before");
        }
        next += layer->bytes;
    }
    return next == predictor->file_bytes ? PI2_OK : damaged(path, next, "another end than its layers have");
}

static bool activation_is_good(const uint8_t *name, uint32_t *number_out) {
    for (uint32_t a = 0; a < PI2_FFN_ACTIVATIONS; a++) {
        const char *known = pi2_ffn_activation_name((pi2_ffn_activation)a);
        uint8_t padded[PI2_PREDICTOR_ACTIVATION_BYTES] = { 0 };
        memcpy(padded, known, strlen(known) < sizeof padded ? strlen(known) : sizeof padded);
        *number_out = a;
        if (memcmp(name, padded, sizeof padded) == 0) return true;
    }
    return false;
}

static pi2_status parse_header(const char *path, const uint8_t *bytes, uint64_t count, pi2_predictor *predictor) {
    if (count < HEADER_BYTES || memcmp(bytes, magic, sizeof magic) != 0) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: this is no predictor", path);
    }
    const uint32_t version = pi2_load_le32(bytes + 8), kind = pi2_load_le32(bytes + 12);
    if (version != VERSION && version != VERSION_SIGNED) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: a predictor of version %" PRIu32 ", versions %d and %d are read: "
                        "make it again", path, version, VERSION, VERSION_SIGNED);
    }
    predictor->kind = pi2_predictor_kind_find(kind);
    if (!predictor->kind) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: a predictor of kind %" PRIu32 ", which this program does not know: "
                        "update it", path, kind);
    }
    predictor->header_hash = pi2_load_le64(bytes + 16);
    predictor->content_hash = pi2_load_le64(bytes + 24);
    predictor->layer_count = pi2_load_le32(bytes + 32);
    predictor->width = pi2_load_le32(bytes + 36);
    predictor->neuron_count = pi2_load_le32(bytes + 40);
    predictor->has_up = pi2_load_le32(bytes + 44) & FLAG_HAS_UP;
    memcpy(predictor->activation, bytes + 48, sizeof predictor->activation);
    if (predictor->layer_count == 0 || predictor->layer_count > MOST_LAYERS || predictor->width == 0 ||
        predictor->width > PI2_SMALL_MOST_COLUMNS || predictor->width % PI2_SMALL_BLOCK ||
        predictor->neuron_count == 0 || predictor->neuron_count > MOST_NEURONS ||
        pi2_load_le32(bytes + 44) & ~(uint32_t)FLAG_HAS_UP) {
        return damaged(path, 32, "impossible numbers");
    }
    if (!activation_is_good(bytes + 48, &predictor->activation_number)) {
        return damaged(path, 48, "an activation that there is not");
    }
    return PI2_OK;
}

pi2_status pi2_predictor_parse(const char *path, const uint8_t *bytes, uint64_t count, uint64_t file_bytes,
                               pi2_predictor *predictor_out) {
    *predictor_out = (pi2_predictor){ .kind = NULL };
    pi2_predictor predictor = { .file_bytes = file_bytes };
    PI2_TRY(parse_header(path, bytes, count, &predictor));
    const uint64_t table = table_bytes(predictor.layer_count);
    predictor.data_begin = table;
    if (table > count || table > file_bytes || pi2_load_le64(bytes + 64) != file_bytes) {
        return damaged(path, 64, "another length than the file's");
    }
    if (checksum_of(bytes, table) != pi2_load_le64(bytes + CHECKSUM_AT)) {
        return damaged(path, CHECKSUM_AT, "another checksum than that of the header");
    }
    const pi2_status status = parse_layers(path, bytes, &predictor);
    if (status != PI2_OK) {
        pi2_predictor_free(&predictor);
        return status;
    }
    *predictor_out = predictor;
    return PI2_OK;
}

uint64_t pi2_predictor_head_bytes(const uint8_t *bytes, uint64_t count, uint64_t file_bytes) {
    const uint32_t layers = count < HEADER_BYTES ? 0 : pi2_load_le32(bytes + 32);
    const uint64_t wanted = layers > MOST_LAYERS ? HEADER_BYTES : table_bytes(layers);
    return file_bytes < wanted ? file_bytes : wanted;
}

/* The file's header and list, and no more: the memory for a list of the most layers is nobody's. */
static pi2_status read_head(const char *path, FILE **file_out, uint8_t **bytes_out, size_t *count_out,
                            uint64_t *length_out) {
    uint8_t header[HEADER_BYTES];
    PI2_TRY(pi2_regular_file_open(path, "a predictor", INT64_MAX, file_out, length_out));
    const size_t first = fread(header, 1, sizeof header, *file_out);
    const size_t count = (size_t)pi2_predictor_head_bytes(header, first, *length_out);
    const size_t have = first < count ? first : count;
    *bytes_out = malloc(count ? count : 1);
    *count_out = 0;
    if (*bytes_out) {
        memcpy(*bytes_out, header, have);
        *count_out = have + fread(*bytes_out + have, 1, count - have, *file_out);
    }
    const pi2_status status = !*bytes_out ? pi2_fail(PI2_ERR_MEMORY, "%s: no memory for its header", path)
                              : *count_out < count ? pi2_fail(PI2_ERR_IO, "%s: cannot be read", path) : PI2_OK;
    if (status == PI2_OK) return PI2_OK;
    free(*bytes_out);
    (void)fclose(*file_out);
    return status;
}

pi2_status pi2_predictor_read(const char *path, pi2_predictor *predictor_out) {
    FILE *file;
    uint8_t *bytes;
    size_t count;
    uint64_t length;
    *predictor_out = (pi2_predictor){ .kind = NULL };
    PI2_TRY(read_head(path, &file, &bytes, &count, &length));
    const pi2_status status = pi2_predictor_parse(path, bytes, count, length, predictor_out);
    free(bytes);
    (void)fclose(file);
    return status;
}

uint64_t pi2_predictor_data_bytes(const pi2_predictor *predictor) {
    return predictor->file_bytes - predictor->data_begin;
}

static pi2_status check_layer(const char *path, const pi2_predictor *predictor, uint32_t number) {
    const pi2_predictor_layer *layer = &predictor->layers[number];
    if (XXH3_64bits(layer->data, (size_t)layer->bytes) != layer->checksum) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: layer %" PRIu32 " of the predictor (%" PRIu64 " bytes at byte %" PRIu64
                        ") does not match its checksum: make it again", path, number, layer->bytes, layer->offset);
    }
    if (predictor->kind->is_good(predictor, layer)) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: layer %" PRIu32 " of the predictor, at byte %" PRIu64
                    ", has numbers that are none: make it again", path, number, layer->offset);
}

static pi2_status load_data(const char *path, FILE *file, pi2_predictor *predictor, uint8_t *memory) {
    const uint64_t bytes = pi2_predictor_data_bytes(predictor);
    if (fseeko(file, (off_t)predictor->data_begin, SEEK_SET) != 0 || fread(memory, 1, (size_t)bytes, file) != bytes) {
        return pi2_fail(PI2_ERR_IO, "%s: cannot be read", path);
    }
    (void)posix_fadvise(fileno(file), 0, 0, POSIX_FADV_DONTNEED); /* it is in memory: not in the page cache, too */
    for (uint32_t i = 0; i < predictor->layer_count; i++) {
        if (predictor->layers[i].size == 0) continue;
        predictor->layers[i].data = memory + (predictor->layers[i].offset - predictor->data_begin);
        PI2_TRY(check_layer(path, predictor, i));
    }
    return PI2_OK;
}

static bool is_same(const pi2_predictor *a, const pi2_predictor *b) {
    bool same = a->kind == b->kind && a->header_hash == b->header_hash && a->content_hash == b->content_hash &&
                a->layer_count == b->layer_count && a->file_bytes == b->file_bytes;
    for (uint32_t i = 0; same && i < a->layer_count; i++) same = a->layers[i].checksum == b->layers[i].checksum;
    return same;
}

pi2_status pi2_predictor_load(const char *path, pi2_predictor *predictor, void *memory) {
    FILE *file;
    uint8_t *bytes;
    size_t count;
    uint64_t length;
    pi2_predictor now;
    PI2_TRY(read_head(path, &file, &bytes, &count, &length));
    pi2_status status = pi2_predictor_parse(path, bytes, count, length, &now);
    if (status == PI2_OK && !is_same(&now, predictor)) {
        status = pi2_fail(PI2_ERR_IO, "%s: another file took its place while it was opened: run again", path);
    }
    if (status == PI2_OK) status = load_data(path, file, predictor, memory);
    pi2_predictor_free(&now);
    free(bytes);
    (void)fclose(file);
    return status;
}

/* ---- writing ---- */

static bool recognises_predictor(const char *path, const uint8_t *head, size_t count) {
    (void)path;
    return count >= sizeof magic && memcmp(head, magic, sizeof magic) == 0;
}

static const pi2_output_kind predictor_kind = { .what = "a predictor", .recognises = recognises_predictor,
                                                .may_flow = true };

pi2_status pi2_predictor_check_place(const char *path, const char *const *inputs) {
    const pi2_output_request request = { .path = path, .kind = &predictor_kind, .inputs = inputs };
    return pi2_output_check_ahead(&request);
}

static void put_f32(uint8_t *to, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    pi2_store_le32(to, bits);
}

/* Programs that know of no signed layers read the files that have none. */
static uint32_t version_of(const pi2_predictor *predictor) {
    for (uint32_t i = 0; i < predictor->layer_count; i++) {
        if (predictor->layers[i].is_signed) return VERSION_SIGNED;
    }
    return VERSION;
}

static void put_header(const pi2_predictor *predictor, uint8_t *bytes) {
    memcpy(bytes, magic, sizeof magic);
    pi2_store_le32(bytes + 8, version_of(predictor));
    pi2_store_le32(bytes + 12, predictor->kind->number);
    pi2_store_le64(bytes + 16, predictor->header_hash);
    pi2_store_le64(bytes + 24, predictor->content_hash);
    pi2_store_le32(bytes + 32, predictor->layer_count);
    pi2_store_le32(bytes + 36, predictor->width);
    pi2_store_le32(bytes + 40, predictor->neuron_count);
    pi2_store_le32(bytes + 44, predictor->has_up ? FLAG_HAS_UP : 0);
    memcpy(bytes + 48, predictor->activation, sizeof predictor->activation);
    pi2_store_le64(bytes + 64, predictor->file_bytes);
    for (uint32_t i = 0; i < predictor->layer_count; i++) {
        const pi2_predictor_layer *layer = &predictor->layers[i];
        uint8_t *line = bytes + HEADER_BYTES + (size_t)i * LAYER_BYTES;
        pi2_store_le32(line, layer->size);
        pi2_store_le32(line + 4, layer->is_signed ? FLAG_SIGNED : 0);
        put_f32(line + 8, layer->threshold);
        put_f32(line + 12, layer->recall);
        put_f32(line + 16, layer->precision);
        put_f32(line + 20, layer->density);
        pi2_store_le64(line + 24, layer->offset);
        pi2_store_le64(line + 32, layer->bytes);
        pi2_store_le64(line + 40, layer->checksum);
        for (size_t p = 0; p < PI2_PREDICTOR_POINTS; p++) put_f32(line + LOST_AT + 4 * p, layer->lost[p]);
    }
    pi2_store_le64(bytes + CHECKSUM_AT, checksum_of(bytes, table_bytes(predictor->layer_count)));
}

static void place_layers(pi2_predictor *predictor) {
    uint64_t at = predictor->data_begin = table_bytes(predictor->layer_count);
    for (uint32_t i = 0; i < predictor->layer_count; i++) {
        pi2_predictor_layer *layer = &predictor->layers[i];
        layer->offset = at;
        layer->bytes = layer->size ? predictor->kind->layer_bytes(predictor, layer->size) : 0;
        layer->checksum = layer->size ? XXH3_64bits(layer->data, (size_t)layer->bytes) : 0;
        at += layer->bytes;
    }
    predictor->file_bytes = at;
}

pi2_status pi2_predictor_write(const char *path, const char *const *inputs, pi2_predictor *predictor) {
    const pi2_output_request request = { .path = path, .kind = &predictor_kind, .inputs = inputs };
    pi2_output_file file = { .stream = NULL };
    place_layers(predictor);
    uint8_t *bytes = calloc(1, (size_t)table_bytes(predictor->layer_count));
    if (!bytes) return pi2_fail(PI2_ERR_MEMORY, "no memory for a predictor's header");
    put_header(predictor, bytes);
    pi2_status status = pi2_output_file_open(&file, &request);
    if (status == PI2_OK) {
        pi2_output_file_write(&file, bytes, (size_t)table_bytes(predictor->layer_count));
        for (uint32_t i = 0; i < predictor->layer_count; i++) {
            const pi2_predictor_layer *layer = &predictor->layers[i];
            if (layer->bytes) pi2_output_file_write(&file, layer->data, (size_t)layer->bytes);
        }
        status = pi2_output_file_finish(&file);
    }
    pi2_output_file_discard(&file);
    free(bytes);
    return status;
}
