/*
 * neuron_bank.h: the FFN neurons of a layer, or of one expert, in units of equal size that are addressed by formula.
 *
 *   neuron   row i of Gate, row i of Up, column i of Down. Gate lies in tiles, in extents of its own, so that it can
 *            be computed first (PI2_LAYOUT_NEURON); where a predictor names neurons beforehand it lies in the bank too
 *            (PI2_LAYOUT_BUNDLE). Of an ungated FFN what stands before Down is Gate, and there is no Up.
 *   bundle   one neuron's Gate values (PI2_LAYOUT_BUNDLE), Up values and Down values in neuron form
 *            (weight_formats/neuron_form.h), each padded to 64 bytes. Their scales are apart, in the head.
 *   place    where a neuron's bundle lies: order[place] = neuron. Hot neurons come first, those that fire together
 *            lie together.
 *   unit     what is read, checked and cached: unit_neurons bundles one after the other, zeros behind them up to
 *            unit_bytes, a multiple of PI2_EXTENT_ALIGNMENT, or of PI2_NEURON_PART_ALIGNMENT up to
 *            PI2_NEURON_FINE_MOST_BYTES (a *fine* unit, which may begin inside a page). Unit u holds the places
 *            u * unit_neurons to (u + 1) * unit_neurons - 1 (the last unit maybe fewer, zeros behind them) and begins
 *            at byte file_offset + u * unit_bytes of the cluster file. So no unit is listed anywhere.
 *   head     what must be resident to use the bank, one block of bytes with one checksum: the order (u32 of each
 *            place), the units' checksums (u32 of each unit: the low half of XXH3 64 over its unit_bytes), the Gate
 *            scales of each neuron where bundles have Gate, the Up scales of each neuron (both by neuron, not by
 *            place), Down's scale blocks (by block of neurons, in the model's order). Numbers are little-endian, as
 *            everywhere in files.
 *
 * The arithmetic keeps the model's order of neurons whatever the order of places is (docs/arithmetic.md).
 */
#ifndef PI2_CLUSTERS_NEURON_BANK_H
#define PI2_CLUSTERS_NEURON_BANK_H

#include <stdint.h>

#include "clusters/extent_layout.h"

#define PI2_NO_UP UINT32_MAX
#define PI2_NO_GATE UINT32_MAX
enum {
    PI2_NEURON_PART_ALIGNMENT = 64,   /* of a bundle's parts, and of the head's */
    PI2_NEURON_FINE_MOST_BYTES = 65536 /* of a unit that is no multiple of PI2_EXTENT_ALIGNMENT */
};

typedef struct pi2_neuron_bank {
    uint32_t layer, expert;                          /* expert: UINT32_MAX in a dense layer */
    uint32_t neuron_count, width;                    /* width: columns of Up, rows of Down */
    uint32_t gate_tensor;                            /* of the extent layout; PI2_NO_GATE: not in the bundles */
    uint32_t up_tensor, down_tensor;                 /* likewise; up: PI2_NO_UP in an ungated FFN */
    const pi2_weight_format *gate_format, *up_format, *down_format; /* gate, up: NULL likewise */
    uint32_t bundle_bytes, up_offset, down_offset;   /* where the values of Up and of Down begin in a bundle */
    uint32_t unit_neurons, unit_bytes, unit_count;
    uint64_t file_offset;                            /* of unit 0: a multiple of PI2_EXTENT_ALIGNMENT */
    uint64_t head_offset, head_bytes, head_checksum; /* head_offset likewise; checksum: XXH3 64 */
    /* Where the head's parts begin, each a multiple of 64. */
    uint64_t order_at, checksums_at, gate_scales_at, up_scales_at, down_scales_at;
    uint32_t gate_scale_bytes;                       /* as the next, of its Gate row */
    uint32_t up_scale_bytes;                         /* of one neuron's Up row; 0: the type has no scales, or no Up */
    uint32_t down_scale_bytes;                       /* of one block of neurons, all rows */
} pi2_neuron_bank;

/** Whose neurons a bank's are, in words: "layer 3", "layer 3, expert 5". Returns text, of PI2_NEURON_OWNER_BYTES. */
enum { PI2_NEURON_OWNER_BYTES = 48 };
const char *pi2_neuron_bank_owner(const pi2_neuron_bank *bank, char text[PI2_NEURON_OWNER_BYTES]);

/** Which layer or expert. */
typedef struct pi2_neuron_place {
    uint32_t layer, expert; /* expert: UINT32_MAX in a dense layer */
} pi2_neuron_place;

/** Immutable once built; in the order of layers, then experts. Free with pi2_neuron_banks_free(). */
typedef struct pi2_neuron_banks {
    pi2_neuron_bank *banks;
    uint32_t count;
    /* Those that have no bank, because leaving a neuron out that is zero would change what they compute: a weight of
     * theirs is infinite or no number, or a float very close to zero (pi2_neuron_weights_can_be_skipped()). */
    pi2_neuron_place *left_out;
    uint32_t left_out_count;
    bool with_gate;   /* the bundle layout, also where no FFN has a bank */
    uint32_t at_once; /* banks of one layer that a pass uses at most, where they are more than one; else 0 */
} pi2_neuron_banks;

void pi2_neuron_banks_free(pi2_neuron_banks *banks); /* NULL is fine */

/**
 * Plans a bank for each group of a layout that is an FFN or an expert, gated or not; with_gate: whose bundles have
 * Gate. A pure function of shapes and types: the same layout gives the same banks on every machine. Offsets and the
 * head's checksum are 0.
 *
 * A unit is chosen so that reading one neuron reads little, and keeping it keeps no other: as many bundles as fit into
 * 4096 bytes; where a bundle is larger than that, one bundle, rounded up to a multiple of 4096 unless that would waste
 * more than a sixteenth of it.
 *
 * Errors  UNSUPPORTED (neurons larger than this version reads: tensor), MEMORY
 */
pi2_status pi2_neuron_banks_plan(const pi2_extent_layout *layout, bool with_gate, pi2_neuron_banks **banks_out);

/**
 * Checks layer, expert, neuron_count, width, the tensors, unit_neurons and unit_bytes against the layout and fills in
 * what follows from them. unit_neurons 0: the unit is chosen, as above.
 * Errors  FORMAT (no Up and Down of one FFN; a unit that does not hold its bundles), UNSUPPORTED (too large)
 */
pi2_status pi2_neuron_bank_complete(const pi2_extent_layout *layout, pi2_neuron_bank *bank);

/** Whether units may begin inside a page, so that reads begin before them and end behind. */
static inline bool pi2_neuron_bank_is_fine(const pi2_neuron_bank *bank) {
    return bank->unit_bytes % PI2_EXTENT_ALIGNMENT != 0;
}

/** Bytes that reading a unit by itself brings, in whole pages: on average over the units. */
uint32_t pi2_neuron_bank_read_bytes(const pi2_neuron_bank *bank);

/** Bytes in the file of the units, unit_count * unit_bytes, and of the head, rounded up to PI2_EXTENT_ALIGNMENT. */
uint64_t pi2_neuron_bank_units_bytes(const pi2_neuron_bank *bank);
uint64_t pi2_neuron_bank_head_read_bytes(const pi2_neuron_bank *bank);

/**
 * Checks a head that was read, head_bytes of it, aligned to 64.
 * Errors  FORMAT (file, layer, byte offset: another checksum, an order that is none), MEMORY. Threads: any.
 */
pi2_status pi2_neuron_bank_check_head(const pi2_neuron_bank *bank, const char *path, const void *head);

/** The checksum of a unit's unit_bytes bytes, to be compared with the head's. */
uint32_t pi2_neuron_unit_checksum(const pi2_neuron_bank *bank, const void *unit);

#endif
