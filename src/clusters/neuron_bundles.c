/* neuron_bundles.c: neurons whose places follow one another are read together. */
#include "clusters/neuron_bundles.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"

enum { STEP_BYTES = 1024 * 1024 };

static pi2_status check_unit(const pi2_neuron_bundles *self, uint32_t unit, const uint8_t *bytes) {
    const pi2_neuron_bank *bank = self->bank;
    const uint32_t *checksums = (const uint32_t *)(const void *)(self->head + bank->checksums_at);
    char owner[PI2_NEURON_OWNER_BYTES];
    if (pi2_neuron_unit_checksum(bank, bytes) == checksums[unit]) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT,
                    "%s: unit %" PRIu32 " of the neurons of %s (%" PRIu32 " bytes at byte %" PRIu64
                    ") does not match its checksum: the file or the disk is damaged: delete the file and prepare the "
                    "model again",
                    self->file->path, unit, pi2_neuron_bank_owner(bank, owner), bank->unit_bytes,
                    bank->file_offset + (uint64_t)unit * bank->unit_bytes);
}

/** How many units from that of neuron `first` on hold the neurons first, first + 1, ... in this order. */
static uint32_t units_in_a_row(const pi2_neuron_bundles *self, uint32_t first, uint32_t count) {
    const uint32_t place = self->place_of[first], each = self->bank->unit_neurons;
    const uint32_t most = (uint32_t)(self->unit_bytes / self->bank->unit_bytes);
    uint32_t run = 1;
    while (run < count && self->place_of[first + run] == place + run) run++;
    const uint32_t units = (place + run - 1) / each - place / each + 1;
    return units < most ? units : most;
}

pi2_status pi2_neuron_bundles_fetch(pi2_neuron_bundles *self, uint32_t first, uint32_t count) {
    const pi2_neuron_bank *bank = self->bank;
    if (self->first == first && self->count == count) return PI2_OK;
    uint32_t unit_begin = 0, unit_end = 0; /* what the buffer holds */
    const uint8_t *units = NULL;
    self->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t place = self->place_of[first + i], unit = place / bank->unit_neurons;
        if (unit < unit_begin || unit >= unit_end) {
            unit_begin = unit;
            unit_end = unit + units_in_a_row(self, first + i, count - i);
            PI2_TRY(pi2_weight_file_read(self->file, bank->file_offset + (uint64_t)unit * bank->unit_bytes,
                                         (size_t)(unit_end - unit_begin) * bank->unit_bytes, self->units, &units));
            for (uint32_t u = unit_begin; u < unit_end; u++) {
                PI2_TRY(check_unit(self, u, units + (size_t)(u - unit_begin) * bank->unit_bytes));
            }
        }
        memcpy(self->memory + (size_t)i * bank->bundle_bytes,
               units + (size_t)(unit - unit_begin) * bank->unit_bytes +
                   (size_t)(place % bank->unit_neurons) * bank->bundle_bytes,
               bank->bundle_bytes);
    }
    self->first = first;
    self->count = count;
    return PI2_OK;
}

static pi2_status read_head(pi2_neuron_bundles *self) {
    const pi2_neuron_bank *bank = self->bank;
    PI2_TRY(pi2_weight_file_read(self->file, bank->head_offset, (size_t)bank->head_bytes, self->head_memory,
                                 &self->head));
    PI2_TRY(pi2_neuron_bank_check_head(bank, self->file->path, self->head));
    const uint32_t *order = (const uint32_t *)(const void *)(self->head + bank->order_at);
    for (uint32_t place = 0; place < bank->neuron_count; place++) self->place_of[order[place]] = place;
    return PI2_OK;
}

pi2_status pi2_neuron_bundles_open(pi2_neuron_bundles *self, pi2_weight_file *file, const pi2_neuron_bank *bank) {
    const uint32_t block = bank->down_format->block_columns;
    uint32_t blocks_in_step = STEP_BYTES / bank->bundle_bytes / block;
    if (blocks_in_step == 0) blocks_in_step = 1;
    *self = (pi2_neuron_bundles){ .bank = bank, .file = file, .step = blocks_in_step * block };
    self->unit_bytes = bank->unit_bytes > STEP_BYTES ? bank->unit_bytes : STEP_BYTES;
    self->head_memory =
        aligned_alloc(PI2_READ_ALIGNMENT, (size_t)pi2_neuron_bank_head_read_bytes(bank) + PI2_WEIGHT_FILE_SLACK);
    self->units = aligned_alloc(PI2_READ_ALIGNMENT, self->unit_bytes + PI2_WEIGHT_FILE_SLACK);
    self->place_of = malloc(bank->neuron_count * sizeof *self->place_of);
    self->bundles = self->memory = malloc((size_t)self->step * bank->bundle_bytes);
    const pi2_status status =
        self->head_memory && self->units && self->place_of && self->memory
            ? read_head(self)
            : pi2_fail(PI2_ERR_MEMORY, "no memory for the bundles of %" PRIu32 " neurons", bank->neuron_count);
    if (status != PI2_OK) pi2_neuron_bundles_close(self);
    return status;
}

void pi2_neuron_bundles_close(pi2_neuron_bundles *self) {
    free(self->head_memory);
    free(self->units);
    free(self->place_of);
    free(self->memory);
    memset(self, 0, sizeof *self);
}
