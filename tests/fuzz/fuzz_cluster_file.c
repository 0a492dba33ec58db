/* fuzz_cluster_file.c: a cluster file whose header was altered by somebody who knows checksums.
 *
 * A small model is prepared once. An input is a list of changes to that file's header, 4 bytes
 * each: where (u16), how, and with what. The header's checksum is then made right again, so that
 * the changes reach the tables. What is still accepted must lie inside the file.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/little_endian.h"
#include "file_formats/cluster_file.h"
#include "clusters/prepare.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char source_path[64], base_path[64], path[64];
static uint8_t *base;
static size_t base_bytes, header_bytes, checksum_at;
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
    for (size_t i = 0; i < total; i++) image[i] = i < bytes ? header[i] : (uint8_t)(i * 37 + i / 251);
    const int opened = open(source_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    require(opened >= 0 && write(opened, image, total) == (ssize_t)total);
    (void)close(opened);
    free(image);
    pi2_gguf_writer_close(writer);
}

static void prepare_base(void) {
    pi2_gguf *gguf;
    require(pi2_gguf_open(source_path, &gguf) == PI2_OK);
    const pi2_gguf_tensor *experts[3] = { pi2_gguf_tensor_find(gguf, "blk.0.ffn_gate_exps.weight"),
                                          pi2_gguf_tensor_find(gguf, "blk.0.ffn_up_exps.weight"),
                                          pi2_gguf_tensor_find(gguf, "blk.0.ffn_down_exps.weight") };
    pi2_group_request requests[4] = {
        { PI2_GROUP_EMBEDDING, UINT32_MAX, UINT32_MAX, 1, 1,
          { pi2_gguf_tensor_find(gguf, "token_embd.weight") }, { 0 } },
        { PI2_GROUP_ATTENTION, 0, UINT32_MAX, 1, 1,
          { pi2_gguf_tensor_find(gguf, "blk.0.attn_q.weight") }, { 0 } },
        { PI2_GROUP_EXPERT, 0, 0, 2, 3, { experts[0], experts[1], experts[2] }, { 0 } },
        { PI2_GROUP_EXPERT, 0, 1, 2, 3, { experts[0], experts[1], experts[2] }, { 0 } },
    };
    const pi2_prepare_settings settings = { .overwrite = true };
    require(pi2_prepare(gguf, requests, 4, base_path, &settings) == PI2_OK);
    pi2_gguf_close(gguf);
}

static void set_up(void) {
    const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    (void)snprintf(source_path, sizeof source_path, "%s/pi2-fuzz-%ld.gguf", folder, (long)getpid());
    (void)snprintf(base_path, sizeof base_path, "%s/pi2-fuzz-%ld.pi2", folder, (long)getpid());
    (void)snprintf(path, sizeof path, "%s/pi2-fuzz-%ld.changed", folder, (long)getpid());
    require(atexit(remove_files) == 0);
    write_source();
    prepare_base();
    base = read_whole(base_path, &base_bytes);
    pi2_gguf *gguf;
    require(pi2_gguf_open(base_path, &gguf) == PI2_OK);
    header_bytes = (size_t)pi2_gguf_file_header_bytes(gguf, 0);
    require(header_bytes < 65536 && pi2_cluster_file_verify(gguf, NULL) == PI2_OK);
    pi2_gguf_close(gguf);
    static const char key[] = PI2_GGUF_HEADER_CHECKSUM_KEY;
    while (memcmp(base + checksum_at, key, sizeof key - 1) != 0) checksum_at++;
    checksum_at += sizeof key - 1 + 4;
    file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    require(file >= 0 && pwrite(file, base, base_bytes, 0) == (ssize_t)base_bytes);
}

static void change(uint8_t *header, const uint8_t *record) {
    uint8_t *at = header + pi2_load_le16(record) % header_bytes;
    switch (record[2] % 4) {
    case 0: *at = record[3]; break;
    case 1: *at = (uint8_t)(*at ^ record[3]); break;
    case 2: *at = (uint8_t)(*at + record[3]); break;
    default: *at = 0xff; break;
    }
}

static void check_accepted(const pi2_extent_layout *layout) {
    for (uint32_t i = 0; i < layout->extent_count; i++) {
        const pi2_extent *extent = &layout->extents[i];
        require(extent->file_offset <= base_bytes &&
                pi2_extent_read_bytes(extent) <= base_bytes - extent->file_offset);
        for (uint32_t p = 0; p < extent->piece_count; p++) {
            const pi2_piece *piece = &layout->pieces[extent->first_piece + p];
            require(piece->tensor < layout->tensor_count);
            require(piece->offset + pi2_piece_bytes(layout, piece) <= extent->bytes);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (file < 0) set_up();
    uint8_t *header = malloc(header_bytes);
    require(header != NULL);
    memcpy(header, base, header_bytes);
    for (size_t i = 0; i + 4 <= size && i < 64; i += 4) change(header, data + i);
    require(pwrite(file, header, header_bytes, 0) == (ssize_t)header_bytes);
    pi2_gguf *gguf;
    if (pi2_gguf_open(path, &gguf) == PI2_OK) {
        pi2_store_le64(header + checksum_at, pi2_gguf_file_header_hash(gguf, 0));
        require(pwrite(file, header, header_bytes, 0) == (ssize_t)header_bytes);
    }
    pi2_gguf_close(gguf);
    free(header);
    if (pi2_gguf_open(path, &gguf) != PI2_OK) return 0;
    pi2_extent_layout *layout;
    pi2_source_identity source;
    if (pi2_cluster_file_is(gguf) && pi2_cluster_file_layout(gguf, &layout, &source) == PI2_OK) {
        check_accepted(layout);
        (void)pi2_cluster_file_verify(gguf, NULL);
        pi2_extent_layout_free(layout);
    }
    pi2_gguf_close(gguf);
    return 0;
}
