/* fuzz_cluster_file.c: a cluster file whose header was altered by somebody who knows checksums.
 *
 * A small model is prepared once in each layout. An input is a list of changes to such a file's
 * header, 4 bytes each: where (u16), how, and with what; a byte behind them: the neuron layout's. The
 * header's checksum is then made right again, so that the changes reach the tables. What is still
 * accepted must lie inside the file.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/little_endian.h"
#include "file_formats/cluster_file.h"
#include "clusters/neuron_bank_verify.h"
#include "clusters/prepare.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/** A file that is changed. */
typedef struct base_file {
    uint8_t *bytes;
    size_t count, header_bytes, checksum_at;
} base_file;

static char source_path[64], base_path[64], path[64];
static base_file bases[2]; /* by pi2_layout_kind */
static const base_file *written; /* which of them the changed file is, but for its header */
static int file = -1;

static void require(bool condition) {
    if (!condition) abort();
}

static void remove_files(void) {
    (void)unlink(source_path);
    (void)unlink(base_path);
    (void)unlink(path);
}

static uint8_t *read_whole(const char *name, size_t *bytes_out) {
    const int opened = open(name, O_RDONLY);
    require(opened >= 0);
    const off_t bytes = lseek(opened, 0, SEEK_END);
    uint8_t *memory = malloc((size_t)bytes);
    require(memory && pread(opened, memory, (size_t)bytes, 0) == bytes);
    (void)close(opened);
    *bytes_out = (size_t)bytes;
    return memory;
}

static void write_source(void) {
    static const struct { const char *name; uint32_t type; uint64_t dimensions[3]; } tensors[] = {
        { "blk.0.ffn_gate_exps.weight", PI2_Q4_0, { 64, 96, 2 } },
        { "blk.0.ffn_up_exps.weight", PI2_Q8_0, { 64, 96, 2 } },
        { "blk.0.ffn_down_exps.weight", PI2_F16, { 96, 64, 2 } },
        { "blk.0.attn_q.weight", PI2_Q5_1, { 64, 40, 1 } },
        { "token_embd.weight", PI2_Q4_1, { 64, 50, 1 } },
        { "blk.0.attn_norm.weight", PI2_F32, { 64, 1, 1 } },
    };
    pi2_gguf_writer *writer;
    const uint8_t *header;
    size_t bytes;
    require(pi2_gguf_writer_open(32, &writer) == PI2_OK);
    pi2_gguf_writer_string(writer, "general.architecture", "llama");
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        (void)pi2_gguf_writer_tensor(writer, tensors[i].name, tensors[i].type,
                                     tensors[i].dimensions[2] > 1 ? 3 : 2, tensors[i].dimensions);
    }
    require(pi2_gguf_writer_finish(writer, &header, &bytes) == PI2_OK);
    const size_t total = bytes + (size_t)pi2_gguf_writer_data_bytes(writer);
    uint8_t *image = malloc(total);
    require(image != NULL);
    /* Without the highest bit of exponents: a layer with infinite weights would have no bank of neurons. */
    for (size_t i = 0; i < total; i++) image[i] = i < bytes ? header[i] : (uint8_t)((i * 37 + i / 251) & 0xbf);
    const int opened = open(source_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    require(opened >= 0 && write(opened, image, total) == (ssize_t)total);
    (void)close(opened);
    free(image);
    pi2_gguf_writer_close(writer);
}

static void prepare_base(pi2_layout_kind layout) {
    pi2_gguf *gguf;
    require(pi2_gguf_open(source_path, &gguf) == PI2_OK);
    const pi2_gguf_tensor *experts[3] = { pi2_gguf_tensor_find(gguf, "blk.0.ffn_gate_exps.weight"),
                                          pi2_gguf_tensor_find(gguf, "blk.0.ffn_up_exps.weight"),
                                          pi2_gguf_tensor_find(gguf, "blk.0.ffn_down_exps.weight") };
    pi2_group_request requests[4] = {
        { PI2_GROUP_EMBEDDING, UINT32_MAX, UINT32_MAX, 1, 1,
          { pi2_gguf_tensor_find(gguf, "token_embd.weight") } },
        { PI2_GROUP_ATTENTION, 0, UINT32_MAX, 1, 1,
          { pi2_gguf_tensor_find(gguf, "blk.0.attn_q.weight") } },
        { PI2_GROUP_EXPERT, 0, 0, 2, 3, { experts[0], experts[1], experts[2] } },
        { PI2_GROUP_EXPERT, 0, 1, 2, 3, { experts[0], experts[1], experts[2] } },
    };
    const pi2_prepare_settings settings = { .overwrite = true, .layout = layout };
    require(pi2_prepare(gguf, requests, 4, base_path, &settings) == PI2_OK);
    pi2_gguf_close(gguf);
}

/** Banks that are there, after all of them were compared with the tiles. */
static uint32_t count_banks(const pi2_gguf *gguf) {
    pi2_extent_layout *layout;
    pi2_source_identity source;
    pi2_neuron_banks *banks;
    require(pi2_cluster_file_layout(gguf, &layout, &source) == PI2_OK);
    require(pi2_cluster_file_banks(gguf, layout, &banks) == PI2_OK);
    const uint32_t count = banks ? banks->count : 0;
    require(!banks || pi2_neuron_banks_verify(gguf, layout, banks, NULL) == PI2_OK);
    pi2_neuron_banks_free(banks);
    pi2_extent_layout_free(layout);
    return count;
}

static void make_base(pi2_layout_kind layout) {
    static const char key[] = PI2_GGUF_HEADER_CHECKSUM_KEY;
    base_file *base = &bases[layout];
    pi2_gguf *gguf;
    prepare_base(layout);
    base->bytes = read_whole(base_path, &base->count);
    require(pi2_gguf_open(base_path, &gguf) == PI2_OK);
    base->header_bytes = (size_t)pi2_gguf_file_header_bytes(gguf, 0);
    require(base->header_bytes < 65536 && pi2_cluster_file_verify(gguf, NULL) == PI2_OK);
    require(count_banks(gguf) == (layout == PI2_LAYOUT_NEURON ? 2u : 0u));
    pi2_gguf_close(gguf);
    while (memcmp(base->bytes + base->checksum_at, key, sizeof key - 1) != 0) base->checksum_at++;
    base->checksum_at += sizeof key - 1 + 4;
}

static void set_up(void) {
    const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    (void)snprintf(source_path, sizeof source_path, "%s/pi2-fuzz-%ld.gguf", folder, (long)getpid());
    (void)snprintf(base_path, sizeof base_path, "%s/pi2-fuzz-%ld.pi2", folder, (long)getpid());
    (void)snprintf(path, sizeof path, "%s/pi2-fuzz-%ld.changed", folder, (long)getpid());
    require(atexit(remove_files) == 0);
    write_source();
    file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    require(file >= 0);
    make_base(PI2_LAYOUT_DENSE);
    make_base(PI2_LAYOUT_NEURON);
}

static void change(uint8_t *header, size_t header_bytes, const uint8_t *record) {
    uint8_t *at = header + pi2_load_le16(record) % header_bytes;
    switch (record[2] % 4) {
    case 0: *at = record[3]; break;
    case 1: *at = (uint8_t)(*at ^ record[3]); break;
    case 2: *at = (uint8_t)(*at + record[3]); break;
    default: *at = 0xff; break;
    }
}

static void check_accepted(const pi2_extent_layout *layout, size_t file_bytes) {
    for (uint32_t i = 0; i < layout->extent_count; i++) {
        const pi2_extent *extent = &layout->extents[i];
        require(extent->file_offset <= file_bytes &&
                pi2_extent_read_bytes(extent) <= file_bytes - extent->file_offset);
        for (uint32_t p = 0; p < extent->piece_count; p++) {
            const pi2_piece *piece = &layout->pieces[extent->first_piece + p];
            require(piece->tensor < layout->tensor_count);
            require(piece->offset + pi2_piece_bytes(layout, piece) <= extent->bytes);
        }
    }
}

static void check_banks(const pi2_gguf *gguf, const pi2_extent_layout *layout, size_t file_bytes) {
    pi2_neuron_banks *banks;
    if (pi2_cluster_file_banks(gguf, layout, &banks) != PI2_OK || !banks) return;
    for (uint32_t i = 0; i < banks->count; i++) {
        const pi2_neuron_bank *bank = &banks->banks[i];
        require(bank->file_offset <= file_bytes &&
                pi2_neuron_bank_units_bytes(bank) <= file_bytes - bank->file_offset);
        require(bank->head_offset <= file_bytes &&
                pi2_neuron_bank_head_read_bytes(bank) <= file_bytes - bank->head_offset);
        require(bank->unit_neurons > 0 && (uint64_t)bank->unit_neurons * bank->bundle_bytes <= bank->unit_bytes);
        require((uint64_t)bank->unit_count * bank->unit_neurons >= bank->neuron_count);
        require(bank->up_tensor < layout->tensor_count && bank->down_tensor < layout->tensor_count);
    }
    (void)pi2_neuron_banks_verify(gguf, layout, banks, NULL);
    pi2_neuron_banks_free(banks);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (file < 0) set_up();
    const base_file *base = &bases[size % 4 ? PI2_LAYOUT_NEURON : PI2_LAYOUT_DENSE];
    uint8_t *header = malloc(base->header_bytes);
    require(header != NULL);
    if (written != base) {
        require(ftruncate(file, 0) == 0 && pwrite(file, base->bytes, base->count, 0) == (ssize_t)base->count);
        written = base;
    }
    memcpy(header, base->bytes, base->header_bytes);
    for (size_t i = 0; i + 4 <= size && i < 64; i += 4) change(header, base->header_bytes, data + i);
    require(pwrite(file, header, base->header_bytes, 0) == (ssize_t)base->header_bytes);
    pi2_gguf *gguf;
    if (pi2_gguf_open(path, &gguf) == PI2_OK) {
        pi2_store_le64(header + base->checksum_at, pi2_gguf_file_header_hash(gguf, 0));
        require(pwrite(file, header, base->header_bytes, 0) == (ssize_t)base->header_bytes);
    }
    pi2_gguf_close(gguf);
    free(header);
    if (pi2_gguf_open(path, &gguf) != PI2_OK) return 0;
    pi2_extent_layout *layout;
    pi2_source_identity source;
    if (pi2_cluster_file_is(gguf) && pi2_cluster_file_layout(gguf, &layout, &source) == PI2_OK) {
        check_accepted(layout, base->count);
        (void)pi2_cluster_file_verify(gguf, NULL);
        check_banks(gguf, layout, base->count);
        pi2_extent_layout_free(layout);
    }
    pi2_gguf_close(gguf);
    return 0;
}
