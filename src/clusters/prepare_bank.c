/*
 * prepare_bank.c: builds and writes one bank of neurons, in a worker's buffer: the head, the places of neurons, then as
 * many units as there is room for. More parts mean that Up and Down are read again for each. All scales are gathered
 * with the first part, before anything is written: a layer with a weight that no sum may leave out, such as an infinite
 * one, has no bank, and its place in the file stays a hole.
 */
#include <string.h>

#include <xxhash.h>

#include "base/fail.h"
#include "clusters/neuron_bank_build.h"
#include "clusters/neuron_order.h"
#include "clusters/prepare_internal.h"

static size_t round_up_to_64(uint64_t bytes) { return (size_t)((bytes + 63) / 64 * 64); }

static size_t fixed_bytes(const pi2_neuron_bank *bank) {
    return round_up_to_64(bank->head_bytes) + round_up_to_64((uint64_t)bank->neuron_count * sizeof(uint32_t));
}

uint64_t pi2_prepare_bank_least_bytes(const pi2_neuron_bank *bank) { return fixed_bytes(bank) + bank->unit_bytes; }

uint64_t pi2_prepare_bank_order_bytes(const pi2_neuron_bank *bank) {
    return (uint64_t)bank->neuron_count * PI2_NEURON_ORDER_BYTES;
}

uint64_t pi2_prepare_bank_most_bytes(const pi2_neuron_bank *bank) {
    return fixed_bytes(bank) + pi2_neuron_bank_units_bytes(bank);
}

/** Writes a part's units, and notes their checksums in the head. */
static pi2_status write_units(pi2_prepare_run *run, uint32_t number, const pi2_neuron_bank_part *part, uint8_t *head,
                              bool may_report) {
    const pi2_neuron_bank *bank = part->bank;
    uint32_t *checksums = (uint32_t *)(head + bank->checksums_at);
    const uint64_t offset = run->header_length + run->header.unit_offsets[number];
    const size_t bytes = (size_t)part->unit_count * bank->unit_bytes;
    for (uint32_t u = 0; u < part->unit_count; u++) {
        checksums[part->first_unit + u] = pi2_neuron_unit_checksum(bank, part->units + (size_t)u * bank->unit_bytes);
    }
    PI2_TRY(pi2_prepare_write(run, offset + (uint64_t)part->first_unit * bank->unit_bytes, part->units, bytes));
    atomic_fetch_add(&run->written_bytes, bytes);
    return may_report ? pi2_prepare_report(run) : PI2_OK;
}

static pi2_status write_head(pi2_prepare_run *run, uint32_t number, const uint8_t *head) {
    const pi2_neuron_bank *bank = &run->banks->banks[number];
    static const uint8_t zeros[PI2_EXTENT_ALIGNMENT];
    const uint64_t offset = run->header_length + run->header.head_offsets[number];
    const uint64_t padded = pi2_neuron_bank_head_read_bytes(bank);
    PI2_TRY(pi2_prepare_write(run, offset, head, (size_t)bank->head_bytes));
    PI2_TRY(pi2_prepare_write(run, offset + bank->head_bytes, zeros, (size_t)(padded - bank->head_bytes)));
    pi2_prepare_patch(run, run->header.bank_checksums_at + number * sizeof(uint64_t),
                      XXH3_64bits(head, (size_t)bank->head_bytes));
    atomic_fetch_add(&run->written_bytes, padded);
    return PI2_OK;
}

static void leave_out(pi2_prepare_run *run, uint32_t number) {
    const pi2_neuron_bank *bank = &run->banks->banks[number];
    const uint8_t yes = 1;
    pi2_gguf_writer_patch(run->header.writer, run->header.bank_left_out_at + number, &yes, sizeof yes);
    atomic_fetch_add(&run->written_bytes, pi2_neuron_bank_head_read_bytes(bank) + pi2_neuron_bank_units_bytes(bank));
}

pi2_status pi2_prepare_bank(pi2_prepare_run *run, pi2_extent_builder *builder, uint32_t number, void *buffer,
                            size_t buffer_bytes, bool may_report) {
    const pi2_neuron_bank *bank = &run->banks->banks[number];
    uint8_t *head = buffer, *places = head + round_up_to_64(bank->head_bytes);
    uint32_t *order = (uint32_t *)(head + bank->order_at), *place_of = (uint32_t *)places;
    const size_t most_units = (buffer_bytes - fixed_bytes(bank)) / bank->unit_bytes;
    memset(head, 0, (size_t)bank->head_bytes);
    PI2_TRY(pi2_neuron_order_make(run->settings->statistics, bank, order));
    for (uint32_t place = 0; place < bank->neuron_count; place++) place_of[order[place]] = place;
    pi2_neuron_bank_part part = { .bank = bank, .place_of = place_of, .units = head + fixed_bytes(bank) };
    for (; part.first_unit < bank->unit_count; part.first_unit += part.unit_count) {
        const uint32_t left = bank->unit_count - part.first_unit;
        bool can_be_skipped;
        part.unit_count = left < most_units ? left : (uint32_t)most_units;
        part.head = part.first_unit == 0 ? head : NULL;
        PI2_TRY(pi2_neuron_bank_build(builder, &part, &can_be_skipped));
        if (!can_be_skipped) {
            leave_out(run, number);
            return PI2_OK;
        }
        PI2_TRY(write_units(run, number, &part, head, may_report));
    }
    return write_head(run, number, head);
}
