/*
 * neuron_bank_verify.c: goes through the tiles of the matrices in the bank, some neurons at a time, fetches these
 * neurons' bundles, and compares.
 */
#include "clusters/neuron_bank_verify.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/pages.h"
#include "base/progress.h"
#include "clusters/neuron_bundles.h"
#include "file_formats/cluster_file.h"
#include "store/weight_file.h"
#include "weight_formats/neuron_form.h"

enum { STEP_BYTES = 1024 * 1024, MOST_BLOCK_COLUMNS = 256 };

typedef struct bank_verifier {
    const pi2_gguf *gguf;
    const pi2_extent_layout *layout;
    const pi2_neuron_banks *banks;
    pi2_weight_file file;
    pi2_progress progress;
    uint64_t done_bytes;

    /* Of the bank at work. */
    const pi2_neuron_bank *bank;
    pi2_neuron_bundles neurons;
    uint8_t *blocks, *rebuilt;       /* as GGUF blocks: of tiles, and of bundles */
    uint8_t **rows;                  /* [width]: where each row of a block of columns is rebuilt */

    uint8_t *extent_buffer;          /* for reads, with its slack */
    size_t extent_bytes;             /* without it */
} bank_verifier;

/* ---- pieces ---- */

static pi2_status fail_difference(const bank_verifier *self, uint32_t tensor, uint64_t row) {
    char owner[PI2_NEURON_OWNER_BYTES];
    return pi2_fail(PI2_ERR_FORMAT,
                    "%s: row %" PRIu64 " of tensor '%s' is not the same in tiles and in the bank of neurons of %s: "
                    "prepare the model again",
                    self->file.path, row, self->layout->tensors[tensor].name,
                    pi2_neuron_bank_owner(self->bank, owner));
}

/** Row r of a piece, as GGUF blocks. */
static void unpack(const bank_verifier *self, const pi2_piece *piece, const uint8_t *extent, uint32_t r,
                   uint8_t *blocks) {
    const pi2_weight_format *format = self->layout->tensors[piece->tensor].format;
    const uint8_t *tile = extent + piece->offset + r / PI2_TILE_ROWS * pi2_tile_bytes(format, piece->column_count);
    format->unpack_row(blocks, tile, r % PI2_TILE_ROWS, piece->column_count / format->block_columns);
}

/** Rows of Gate or of Up: neurons. */
static pi2_status compare_rows(bank_verifier *self, const pi2_piece *piece, const uint8_t *extent) {
    const pi2_neuron_bank *bank = self->bank;
    const bool is_gate = piece->tensor == bank->gate_tensor;
    const pi2_weight_format *format = is_gate ? bank->gate_format : bank->up_format;
    const size_t scale_bytes = is_gate ? bank->gate_scale_bytes : bank->up_scale_bytes;
    const uint8_t *scales = self->neurons.head + (is_gate ? bank->gate_scales_at : bank->up_scales_at);
    const uint32_t begin = (uint32_t)(piece->row_begin % bank->neuron_count);
    const size_t row_bytes = pi2_row_bytes(format, bank->width), offset = is_gate ? 0 : bank->up_offset;
    const uint32_t step = self->neurons.step;
    for (uint32_t r = 0; r < piece->row_count; r++) {
        const uint32_t neuron = begin + r, left = piece->row_count - r;
        if (r % step == 0) PI2_TRY(pi2_neuron_bundles_fetch(&self->neurons, neuron, left < step ? left : step));
        unpack(self, piece, extent, r, self->blocks);
        const uint8_t *bundle = self->neurons.bundles + (size_t)(neuron - self->neurons.first) * bank->bundle_bytes;
        pi2_neuron_join_row(format, self->rebuilt, bundle + offset, scales + neuron * scale_bytes,
                            bank->width / format->block_columns);
        if (memcmp(self->blocks, self->rebuilt, row_bytes) != 0) {
            return fail_difference(self, piece->tensor, piece->row_begin + r);
        }
    }
    return PI2_OK;
}

/** One block of columns of the neurons that were fetched, from neuron `first + i` on: every row's, in self->rebuilt. */
static void rebuild_block(bank_verifier *self, uint32_t i) {
    const pi2_neuron_bank *bank = self->bank;
    const pi2_weight_format *format = bank->down_format;
    const uint8_t *columns[MOST_BLOCK_COLUMNS];
    const uint32_t block = (self->neurons.first + i) / format->block_columns;
    for (uint32_t c = 0; c < format->block_columns; c++) {
        columns[c] = self->neurons.bundles + (size_t)(i + c) * bank->bundle_bytes + bank->down_offset;
    }
    for (uint32_t r = 0; r < bank->width; r++) self->rows[r] = self->rebuilt + (size_t)r * format->block_bytes;
    const uint8_t *scales = self->neurons.head + bank->down_scales_at + (size_t)block * bank->down_scale_bytes;
    pi2_neuron_join_columns(format, self->rows, columns, scales, bank->width);
}

/** Columns of Down: neurons. Tiles give rows of all columns, bundles all rows of a block of columns. */
static pi2_status compare_down(bank_verifier *self, const pi2_piece *piece, const uint8_t *extent) {
    const pi2_neuron_bank *bank = self->bank;
    const pi2_weight_format *format = bank->down_format;
    const size_t row_bytes = pi2_row_bytes(format, piece->column_count), block_bytes = format->block_bytes;
    const uint32_t first_row = (uint32_t)(piece->row_begin % bank->width);
    for (uint32_t r = 0; r < piece->row_count; r++) unpack(self, piece, extent, r, self->blocks + r * row_bytes);
    const uint32_t step = self->neurons.step;
    for (uint32_t done = 0; done < piece->column_count; done += step) {
        const uint32_t left = piece->column_count - done;
        PI2_TRY(pi2_neuron_bundles_fetch(&self->neurons, piece->column_begin + done, left < step ? left : step));
        for (uint32_t i = 0; i < self->neurons.count; i += format->block_columns) {
            const uint8_t *blocks = self->blocks + (size_t)(done + i) / format->block_columns * block_bytes;
            rebuild_block(self, i);
            for (uint32_t r = 0; r < piece->row_count; r++) {
                if (memcmp(blocks + r * row_bytes, self->rows[first_row + r], block_bytes) != 0) {
                    return fail_difference(self, piece->tensor, piece->row_begin + r);
                }
            }
        }
    }
    return PI2_OK;
}

static pi2_status compare_extent(bank_verifier *self, uint32_t number) {
    const pi2_extent *extent = &self->layout->extents[number];
    const uint8_t *data = NULL;
    for (uint32_t p = 0; p < extent->piece_count; p++) {
        const pi2_piece *piece = &self->layout->pieces[extent->first_piece + p];
        const bool is_down = piece->tensor == self->bank->down_tensor;
        if (!is_down && piece->tensor != self->bank->up_tensor && piece->tensor != self->bank->gate_tensor) continue;
        if (!data) {
            PI2_TRY(pi2_weight_file_read(&self->file, extent->file_offset, extent->bytes, self->extent_buffer, &data));
            PI2_TRY(pi2_cluster_file_check_extent(self->file.path, self->layout, number, data));
        }
        PI2_TRY(is_down ? compare_down(self, piece, data) : compare_rows(self, piece, data));
    }
    return PI2_OK;
}

/* ---- banks ---- */

static const pi2_group *group_of(const bank_verifier *self) {
    for (uint32_t g = 0; g < self->layout->group_count; g++) {
        const pi2_group *group = &self->layout->groups[g];
        if ((group->kind == PI2_GROUP_FFN || group->kind == PI2_GROUP_EXPERT) && group->layer == self->bank->layer &&
            group->expert == self->bank->expert) {
            return group;
        }
    }
    return NULL;
}

static pi2_status compare_bank(bank_verifier *self) {
    const pi2_group *group = group_of(self);
    for (uint32_t e = 0; group && e < group->extent_count; e++) {
        PI2_TRY(compare_extent(self, group->first_extent + e));
        self->done_bytes += self->layout->extents[group->first_extent + e].bytes;
        PI2_TRY(pi2_progress_tell(&self->progress, self->done_bytes));
    }
    return PI2_OK;
}

/** Memory of a bank: `blocks` for a piece, which takes no more than its tiles did, or for a row. */
static pi2_status open_bank(bank_verifier *self, const pi2_neuron_bank *bank) {
    const size_t gate_row = bank->gate_format ? pi2_row_bytes(bank->gate_format, bank->width) : 0;
    const size_t up_row = bank->up_format ? pi2_row_bytes(bank->up_format, bank->width) : 0;
    const size_t row = gate_row > up_row ? gate_row : up_row;
    const size_t column = (size_t)bank->width * bank->down_format->block_bytes;
    self->bank = bank;
    PI2_TRY(pi2_neuron_bundles_open(&self->neurons, &self->file, bank));
    self->rows = malloc(bank->width * sizeof *self->rows);
    self->blocks = calloc(1, row > self->extent_bytes ? row : self->extent_bytes);
    self->rebuilt = calloc(1, row > column ? row : column);
    if (self->rows && self->blocks && self->rebuilt) return PI2_OK;
    return pi2_fail(PI2_ERR_MEMORY, "no memory to compare %" PRIu32 " neurons", bank->neuron_count);
}

static void close_bank(bank_verifier *self) {
    pi2_neuron_bundles_close(&self->neurons);
    free(self->rows);
    free(self->blocks);
    free(self->rebuilt);
    self->blocks = self->rebuilt = NULL;
    self->rows = NULL;
}

static pi2_status compare_all(bank_verifier *self) {
    self->extent_bytes = STEP_BYTES;
    if (self->extent_bytes < pi2_extent_layout_largest(self->layout)) {
        self->extent_bytes = pi2_extent_layout_largest(self->layout);
    }
    for (uint32_t i = 0; i < self->banks->count; i++) {
        self->bank = &self->banks->banks[i];
        const pi2_group *group = group_of(self);
        for (uint32_t e = 0; group && e < group->extent_count; e++) {
            self->progress.total_bytes += self->layout->extents[group->first_extent + e].bytes;
        }
    }
    void *buffer;
    PI2_TRY(pi2_pages_reserve(self->extent_bytes + PI2_WEIGHT_FILE_SLACK, false, "comparing", &buffer));
    self->extent_buffer = buffer;
    PI2_TRY(pi2_weight_file_open(&self->file, pi2_gguf_file_path(self->gguf, 0)));
    for (uint32_t i = 0; i < self->banks->count; i++) {
        pi2_status status = open_bank(self, &self->banks->banks[i]);
        if (status == PI2_OK) status = compare_bank(self);
        close_bank(self);
        PI2_TRY(status);
    }
    return PI2_OK;
}

pi2_status pi2_neuron_banks_verify(const pi2_gguf *gguf, const pi2_extent_layout *layout, const pi2_neuron_banks *banks,
                                   const pi2_callbacks *callbacks) {
    bank_verifier self = { .gguf = gguf, .layout = layout, .banks = banks,
                           .progress = { .callbacks = callbacks, .what = "comparing neurons" } };
    const pi2_status status = compare_all(&self);
    pi2_weight_file_close(&self.file);
    pi2_pages_release(self.extent_buffer, self.extent_bytes + PI2_WEIGHT_FILE_SLACK);
    return status;
}
