/* cache_trace.c: writes and reads traces of uses. A file that is read is untrusted. */
#include "neuron_cache/cache_trace.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "base/output_file.h"
#include "base/whole_file.h"

enum {
    VERSION = 2, VERSION_OF_USES = 1, HEADER_BYTES = 32,
    LAYERS_MOST = 65536, EXPERTS_MOST = 1 << 20, KEYS_MOST = 1 << 24
};
static const char magic[8] = { 'P', 'I', '2', 'T', 'R', 'A', 'C', 'E' };
static const uint32_t pass_bit = 0x80000000u, near_bit = 0x40000000u;

/* ---- writing ---- */

struct pi2_trace_writer {
    pi2_output_file file;
    bool has_passes;
};

static void put_word(pi2_trace_writer *writer, uint32_t word) {
    uint8_t bytes[4];
    pi2_store_le32(bytes, word);
    pi2_output_file_write(&writer->file, bytes, sizeof bytes);
}

static bool recognises_trace(const char *path, const uint8_t *head, size_t count) {
    (void)path;
    return count >= sizeof magic && memcmp(head, magic, sizeof magic) == 0;
}

static const pi2_output_kind trace_kind = { .what = "a trace of uses", .recognises = recognises_trace,
                                            .may_flow = true };

pi2_status pi2_trace_writer_open(const char *path, const char *const *inputs, const pi2_trace_header *header,
                                 pi2_trace_writer **writer_out) {
    *writer_out = NULL;
    pi2_trace_writer *writer = calloc(1, sizeof *writer);
    if (!writer) return pi2_fail(PI2_ERR_MEMORY, "no memory to write a trace");
    const pi2_output_request request = { .path = path, .kind = &trace_kind, .inputs = inputs };
    const pi2_status status = pi2_output_file_open(&writer->file, &request);
    if (status != PI2_OK) {
        free(writer);
        return status;
    }
    *writer_out = writer;
    return header ? pi2_trace_writer_begin(writer, header) : PI2_OK;
}

/* KEYS_MOST keys keep the numbers of a replay within 32 bits, and its memory within what a machine has. */
static bool is_possible(const pi2_trace_header *header) {
    const uint32_t layers = header->layer_count, experts = header->expert_count;
    return layers > 0 && layers <= LAYERS_MOST && experts > 0 && experts <= EXPERTS_MOST &&
           (uint64_t)layers * experts <= KEYS_MOST && header->used_count <= experts && header->slot_bytes > 0 &&
           header->slot_bytes <= (uint64_t)1 << 40;
}

pi2_status pi2_trace_writer_begin(pi2_trace_writer *writer, const pi2_trace_header *header) {
    if (!is_possible(header)) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: a trace has at most %d keys, not %u layers of %u",
                        writer->file.place.path, KEYS_MOST, header->layer_count, header->expert_count);
    }
    uint8_t bytes[HEADER_BYTES];
    memcpy(bytes, magic, sizeof magic);
    pi2_store_le32(bytes + 8, header->used_count ? VERSION_OF_USES : VERSION);
    pi2_store_le32(bytes + 12, header->layer_count);
    pi2_store_le32(bytes + 16, header->expert_count);
    pi2_store_le32(bytes + 20, header->used_count);
    pi2_store_le64(bytes + 24, header->slot_bytes);
    pi2_output_file_write(&writer->file, bytes, sizeof bytes);
    return PI2_OK;
}

void pi2_trace_writer_pass(pi2_trace_writer *writer, uint32_t token_count) {
    writer->has_passes = true;
    put_word(writer, pass_bit | token_count);
}

void pi2_trace_writer_demand(pi2_trace_writer *writer, const uint32_t *keys, uint32_t count) {
    put_word(writer, count);
    for (uint32_t i = 0; i < count; i++) put_word(writer, keys[i]);
}

void pi2_trace_writer_near(pi2_trace_writer *writer, const uint8_t *near, uint32_t count) {
    static const uint8_t rest[3] = { 0 };
    put_word(writer, near_bit | count);
    pi2_output_file_write(&writer->file, near, count);
    pi2_output_file_write(&writer->file, rest, (4 - count % 4) % 4);
}

pi2_status pi2_trace_writer_close(pi2_trace_writer *writer) {
    if (!writer) return PI2_OK;
    const pi2_status status = writer->has_passes ? pi2_output_file_finish(&writer->file) : PI2_OK;
    pi2_output_file_discard(&writer->file);
    free(writer);
    return status;
}

/* ---- reading ---- */

static pi2_status damaged(const char *path, size_t at, const char *what) {
    return pi2_fail(PI2_ERR_FORMAT, "%s: %s at byte %zu: this is no whole trace; record it again", path, what, at);
}

static pi2_status read_header(const char *path, const uint8_t *bytes, size_t length, pi2_trace_header *header) {
    if (length < HEADER_BYTES || memcmp(bytes, magic, sizeof magic) != 0) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: this is no trace of uses ('run --record-trace' makes one)", path);
    }
    const uint32_t version = pi2_load_le32(bytes + 8);
    if (version != VERSION && version != VERSION_OF_USES) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: a trace of version %u, versions %d and %d are read; record it again",
                        path, version, VERSION_OF_USES, VERSION);
    }
    *header = (pi2_trace_header){ .layer_count = pi2_load_le32(bytes + 12), .expert_count = pi2_load_le32(bytes + 16),
                                  .used_count = pi2_load_le32(bytes + 20), .slot_bytes = pi2_load_le64(bytes + 24) };
    return is_possible(header) ? PI2_OK : damaged(path, 12, "impossible numbers");
}

/* One demand of `count` keys whose first word is at `at`. */
static pi2_status read_demand(const char *path, const uint8_t *bytes, size_t at, uint32_t count, pi2_trace *trace) {
    const uint32_t experts = trace->header.expert_count, all = experts * trace->header.layer_count;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t key = pi2_load_le32(bytes + at + (size_t)i * 4);
        const bool first = i == 0;
        const uint32_t before = first ? 0 : trace->keys[trace->key_count - 1];
        if (key >= all || (!first && (key <= before || key / experts != before / experts))) {
            return damaged(path, at + (size_t)i * 4, "an impossible key");
        }
        trace->keys[trace->key_count++] = key;
    }
    return PI2_OK;
}

/* How near the units of the next demand's layer are: a word has told of `count`. */
static pi2_status read_near(const char *path, const uint8_t *bytes, size_t length, size_t at, uint32_t count,
                            pi2_trace *trace, size_t *near_count) {
    const uint32_t words = (count + 3) / 4;
    if (count == 0 || count > trace->header.expert_count || (length - at) / 4 < words) {
        return damaged(path, at - 4, "an impossible count of units");
    }
    if (!trace->near) trace->near = malloc(length);
    if (!trace->near_of) trace->near_of = calloc(length / 8 + 2, sizeof *trace->near_of);
    if (!trace->near || !trace->near_of) return pi2_fail(PI2_ERR_MEMORY, "%s: no memory for the trace", path);
    memcpy(trace->near + *near_count, bytes + at, count);
    trace->near_of[trace->demand_count] = (pi2_trace_near){ *near_count, count };
    *near_count += count;
    return PI2_OK;
}

static pi2_status read_words(const char *path, const uint8_t *bytes, size_t length, pi2_trace *trace) {
    uint32_t pass_tokens = 0;
    size_t near_count = 0;
    for (size_t at = HEADER_BYTES; at < length;) {
        if (length - at < 4) return damaged(path, at, "half a number");
        const uint32_t word = pi2_load_le32(bytes + at);
        at += 4;
        if (word & pass_bit) {
            pass_tokens = word & ~pass_bit;
            trace->pass_count++;
            trace->token_count += pass_tokens;
            if (pass_tokens == 0) return damaged(path, at - 4, "a pass over no tokens");
            continue;
        }
        if (word & near_bit) {
            const uint32_t count = word & ~near_bit;
            PI2_TRY(read_near(path, bytes, length, at, count, trace, &near_count));
            at += (size_t)(count + 3) / 4 * 4;
            continue;
        }
        if (word == 0 || word > trace->header.expert_count || (length - at) / 4 < word || pass_tokens == 0) {
            return damaged(path, at - 4, "an impossible count");
        }
        trace->demands[trace->demand_count++] = (pi2_trace_demand){ trace->key_count, pass_tokens };
        PI2_TRY(read_demand(path, bytes, at, word, trace));
        at += (size_t)word * 4;
    }
    trace->demands[trace->demand_count] = (pi2_trace_demand){ trace->key_count, 0 };
    return PI2_OK;
}

pi2_status pi2_trace_read(const char *path, pi2_trace *trace) {
    memset(trace, 0, sizeof *trace);
    uint8_t *bytes = NULL;
    size_t length = 0;
    PI2_TRY(pi2_whole_file_read(path, "a trace", UINT32_MAX, &bytes, &length));
    pi2_status status = read_header(path, bytes, length, &trace->header);
    if (status == PI2_OK) { /* no more demands or keys than words */
        trace->keys = malloc((length / 4 + 1) * sizeof *trace->keys);
        trace->demands = malloc((length / 8 + 2) * sizeof *trace->demands);
        status = trace->keys && trace->demands ? read_words(path, bytes, length, trace)
                                               : pi2_fail(PI2_ERR_MEMORY, "%s: no memory for the trace", path);
    }
    free(bytes);
    if (status != PI2_OK) pi2_trace_free(trace);
    return status;
}

pi2_status pi2_trace_read_experts(const char *path, pi2_trace *trace) {
    PI2_TRY(pi2_trace_read(path, trace));
    if (trace->header.used_count) return PI2_OK;
    pi2_trace_free(trace);
    return pi2_fail(PI2_ERR_INVALID, "%s: a trace of another kind of model: it tells the uses of single neurons, not "
                    "of experts", path);
}

void pi2_trace_free(pi2_trace *trace) {
    free(trace->keys);
    free(trace->uses);
    free(trace->near_of);
    free(trace->near);
    free(trace->demands);
    memset(trace, 0, sizeof *trace);
}
