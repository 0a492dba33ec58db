/* neuron_bank.c: sizes of banks of neurons, and the heads that are read from a file. */
#include "clusters/neuron_bank.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "base/fail.h"
#include "base/permutation.h"
#include "weight_formats/neuron_form.h"

enum { MAX_BUNDLE_BYTES = 1 << 24, MAX_MATRICES = 3, UNGATED_MATRICES = 2, LITTLE_WASTE = 16 };

static uint64_t round_up(uint64_t bytes, uint64_t unit) { return (bytes + unit - 1) / unit * unit; }

/* ---- units ---- */

/* As many bundles as fit into a page; of larger ones one, without what fills its last page up unless that is little. */
static void choose_unit(pi2_neuron_bank *bank) {
    const uint32_t bundle = bank->bundle_bytes, page = PI2_EXTENT_ALIGNMENT;
    bank->unit_neurons = bundle <= page ? page / bundle : 1;
    bank->unit_bytes = (uint32_t)round_up(bundle, page);
    if (bundle > page && (bank->unit_bytes - bundle) * LITTLE_WASTE > bundle) bank->unit_bytes = bundle;
}

static bool unit_is_possible(const pi2_neuron_bank *bank) {
    const uint64_t bytes = bank->unit_bytes, page = PI2_EXTENT_ALIGNMENT;
    const bool is_fine = bytes % PI2_NEURON_PART_ALIGNMENT == 0 && bytes <= PI2_NEURON_FINE_MOST_BYTES;
    return bytes != 0 && (bytes % page == 0 || is_fine) && bytes <= round_up(MAX_BUNDLE_BYTES, page) &&
           (uint64_t)bank->unit_neurons * bank->bundle_bytes <= bytes;
}

/* ---- one bank ---- */

const char *pi2_neuron_bank_owner(const pi2_neuron_bank *bank, char text[PI2_NEURON_OWNER_BYTES]) {
    if (bank->expert == UINT32_MAX) {
        (void)snprintf(text, PI2_NEURON_OWNER_BYTES, "layer %" PRIu32, bank->layer);
    } else {
        (void)snprintf(text, PI2_NEURON_OWNER_BYTES, "layer %" PRIu32 ", expert %" PRIu32, bank->layer, bank->expert);
    }
    return text;
}

/** Of Gate and of Up, either of which may lack. */
static bool rows_fit(const pi2_extent_layout *layout, const pi2_neuron_bank *bank, uint32_t tensor, uint64_t experts) {
    _Static_assert(PI2_NO_UP == PI2_NO_GATE, "one number says that there is none");
    if (tensor == PI2_NO_UP) return true;
    if (tensor >= layout->tensor_count) return false;
    const pi2_layout_tensor *rows = &layout->tensors[tensor];
    return !rows->is_raw && pi2_has_columns(rows->format) && rows->rows / rows->matrix_rows == experts &&
           rows->matrix_rows == bank->neuron_count && rows->columns == bank->width;
}

static bool tensors_fit(const pi2_extent_layout *layout, const pi2_neuron_bank *bank) {
    if (bank->down_tensor >= layout->tensor_count) return false;
    const pi2_layout_tensor *down = &layout->tensors[bank->down_tensor];
    const uint64_t experts = down->rows / down->matrix_rows;
    if (down->is_raw || !pi2_has_columns(down->format) || !rows_fit(layout, bank, bank->gate_tensor, experts) ||
        !rows_fit(layout, bank, bank->up_tensor, experts)) return false;
    if (bank->expert == UINT32_MAX ? experts != 1 : bank->expert >= experts) return false;
    return bank->neuron_count != 0 && down->columns == bank->neuron_count && down->matrix_rows == bank->width;
}

static pi2_status fail_too_large(const pi2_extent_layout *layout, const pi2_neuron_bank *bank) {
    return pi2_fail(PI2_ERR_UNSUPPORTED, "tensor '%s': its neurons are larger than this version reads one by one: "
                    "'prepare --layout dense' can be used", layout->tensors[bank->down_tensor].name);
}

/** A row of Gate or Up: its format, NULL where there is none, and the bytes of its values in a bundle and of its
 *  scales. */
static const pi2_weight_format *size_row(const pi2_extent_layout *layout, const pi2_neuron_bank *bank, uint32_t tensor,
                                         uint64_t *values_out, uint64_t *scales_out) {
    *values_out = *scales_out = 0;
    if (tensor == PI2_NO_UP) return NULL;
    const pi2_weight_format *format = layout->tensors[tensor].format;
    *values_out = round_up(pi2_neuron_row_value_bytes(format, bank->width), PI2_NEURON_PART_ALIGNMENT);
    *scales_out = pi2_neuron_row_scale_bytes(format, bank->width);
    return format;
}

static pi2_status size_bundle(const pi2_extent_layout *layout, pi2_neuron_bank *bank) {
    uint64_t gate, gate_scales, up, up_scales;
    bank->gate_format = size_row(layout, bank, bank->gate_tensor, &gate, &gate_scales);
    bank->up_format = size_row(layout, bank, bank->up_tensor, &up, &up_scales);
    bank->down_format = layout->tensors[bank->down_tensor].format;
    const uint64_t down =
        round_up(pi2_neuron_column_value_bytes(bank->down_format, bank->width), PI2_NEURON_PART_ALIGNMENT);
    const uint64_t down_scales = pi2_neuron_scale_block_bytes(bank->down_format, bank->width);
    if (gate + up + down > MAX_BUNDLE_BYTES || gate_scales > MAX_BUNDLE_BYTES || up_scales > MAX_BUNDLE_BYTES ||
        down_scales > INT32_MAX) {
        return fail_too_large(layout, bank);
    }
    bank->up_offset = (uint32_t)gate;
    bank->down_offset = (uint32_t)(gate + up);
    bank->bundle_bytes = (uint32_t)(gate + up + down);
    bank->gate_scale_bytes = (uint32_t)gate_scales;
    bank->up_scale_bytes = (uint32_t)up_scales;
    bank->down_scale_bytes = (uint32_t)down_scales;
    return PI2_OK;
}

/** With at most 2^24 neurons of at most 2^24 and 2^31 bytes no sum passes 2^56. */
static void size_head(pi2_neuron_bank *bank) {
    const uint64_t neurons = bank->neuron_count, align = PI2_NEURON_PART_ALIGNMENT;
    const uint64_t blocks = neurons / bank->down_format->block_columns;
    bank->order_at = 0;
    bank->checksums_at = round_up(neurons * sizeof(uint32_t), align);
    bank->gate_scales_at = bank->checksums_at + round_up(bank->unit_count * (uint64_t)sizeof(uint32_t), align);
    bank->up_scales_at = bank->gate_scales_at + round_up(neurons * bank->gate_scale_bytes, align);
    bank->down_scales_at = bank->up_scales_at + round_up(neurons * bank->up_scale_bytes, align);
    bank->head_bytes = bank->down_scales_at + round_up(blocks * bank->down_scale_bytes, align);
}

pi2_status pi2_neuron_bank_complete(const pi2_extent_layout *layout, pi2_neuron_bank *bank) {
    char owner[PI2_NEURON_OWNER_BYTES];
    if (!tensors_fit(layout, bank)) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: its bank of neurons does not fit its tensors",
                        pi2_neuron_bank_owner(bank, owner));
    }
    PI2_TRY(size_bundle(layout, bank));
    if (bank->unit_neurons == 0) choose_unit(bank);
    if (!unit_is_possible(bank)) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: units of %" PRIu32 " bytes for %" PRIu32 " neurons are impossible",
                        pi2_neuron_bank_owner(bank, owner), bank->unit_bytes, bank->unit_neurons);
    }
    bank->unit_count = (bank->neuron_count + bank->unit_neurons - 1) / bank->unit_neurons;
    size_head(bank);
    return bank->head_bytes > SIZE_MAX / 2 ? fail_too_large(layout, bank) : PI2_OK;
}

/* Units begin at all places of a page that their length leads to, the same ones again and again. */
uint32_t pi2_neuron_bank_read_bytes(const pi2_neuron_bank *bank) {
    const uint64_t page = PI2_EXTENT_ALIGNMENT, most = page / PI2_NEURON_PART_ALIGNMENT;
    const uint64_t count = bank->unit_count < most ? bank->unit_count : most;
    uint64_t bytes = 0;
    for (uint64_t u = 0; u < count; u++) {
        const uint64_t begin = u * bank->unit_bytes;
        bytes += round_up(begin + bank->unit_bytes, page) - begin / page * page;
    }
    return count ? (uint32_t)(bytes / count) : 0;
}

uint64_t pi2_neuron_bank_units_bytes(const pi2_neuron_bank *bank) {
    return (uint64_t)bank->unit_count * bank->unit_bytes;
}

uint64_t pi2_neuron_bank_head_read_bytes(const pi2_neuron_bank *bank) {
    return round_up(bank->head_bytes, PI2_EXTENT_ALIGNMENT);
}

/* ---- all banks of a layout ---- */

/** The tensors of a group in the order of their first pieces: gate, up (of a gated FFN), down. Returns how many,
 *  at most MAX_MATRICES. */
static uint32_t list_matrices(const pi2_extent_layout *layout, const pi2_group *group, uint32_t numbers[MAX_MATRICES]) {
    uint32_t count = 0;
    for (uint32_t e = 0; e < group->extent_count; e++) {
        const pi2_extent *extent = &layout->extents[group->first_extent + e];
        for (uint32_t p = 0; p < extent->piece_count; p++) {
            const uint32_t tensor = layout->pieces[extent->first_piece + p].tensor;
            uint32_t i = 0;
            while (i < count && numbers[i] != tensor) i++;
            if (i == count && count < MAX_MATRICES) numbers[count++] = tensor;
        }
    }
    return count;
}

/** Whether a group has a bank, and then the bank. None: a type is read by whole blocks, and the FFN stays dense. */
static bool begin_bank(const pi2_extent_layout *layout, const pi2_group *group, bool with_gate, pi2_neuron_bank *bank) {
    uint32_t numbers[MAX_MATRICES];
    if (group->kind != PI2_GROUP_FFN && group->kind != PI2_GROUP_EXPERT) return false;
    const uint32_t count = list_matrices(layout, group, numbers);
    if (count != MAX_MATRICES && count != UNGATED_MATRICES) return false;
    const pi2_layout_tensor *down = &layout->tensors[numbers[count - 1]];
    if (!pi2_has_columns(down->format)) return false;
    if (count == MAX_MATRICES && !pi2_has_columns(layout->tensors[numbers[1]].format)) return false;
    if (with_gate && !pi2_has_columns(layout->tensors[numbers[0]].format)) return false;
    *bank = (pi2_neuron_bank){ .layer = group->layer, .expert = group->expert, .neuron_count = down->columns,
                               .width = (uint32_t)down->matrix_rows, .down_tensor = numbers[count - 1],
                               .gate_tensor = with_gate ? numbers[0] : PI2_NO_GATE,
                               .up_tensor = count == MAX_MATRICES ? numbers[1] : PI2_NO_UP };
    return true;
}

static int compare_banks(const void *a, const void *b) {
    const pi2_neuron_bank *left = a, *right = b;
    if (left->layer != right->layer) return left->layer < right->layer ? -1 : 1;
    return left->expert < right->expert ? -1 : left->expert > right->expert;
}

/* Room for so many banks; NULL: no memory. */
static pi2_neuron_banks *make_banks(uint32_t most) {
    pi2_neuron_banks *banks = calloc(1, sizeof *banks);
    if (!banks) return NULL;
    banks->banks = calloc(most + (size_t)1, sizeof *banks->banks);
    banks->left_out = calloc(most + (size_t)1, sizeof *banks->left_out);
    if (banks->banks && banks->left_out) return banks;
    pi2_neuron_banks_free(banks);
    return NULL;
}

pi2_status pi2_neuron_banks_plan(const pi2_extent_layout *layout, bool with_gate, pi2_neuron_banks **banks_out) {
    *banks_out = NULL;
    pi2_neuron_banks *banks = make_banks(layout->group_count);
    if (!banks) return pi2_fail(PI2_ERR_MEMORY, "no memory for banks of neurons");
    pi2_status status = PI2_OK;
    banks->with_gate = with_gate;
    for (uint32_t g = 0; g < layout->group_count && status == PI2_OK; g++) {
        pi2_neuron_bank *bank = &banks->banks[banks->count];
        if (!begin_bank(layout, &layout->groups[g], with_gate, bank)) continue;
        status = pi2_neuron_bank_complete(layout, bank);
        banks->count++;
    }
    if (status != PI2_OK) {
        pi2_neuron_banks_free(banks);
        return status;
    }
    qsort(banks->banks, banks->count, sizeof *banks->banks, compare_banks);
    *banks_out = banks;
    return PI2_OK;
}

void pi2_neuron_banks_free(pi2_neuron_banks *banks) {
    if (!banks) return;
    free(banks->banks);
    free(banks->left_out);
    free(banks);
}

/* ---- heads ---- */

pi2_status pi2_neuron_bank_check_head(const pi2_neuron_bank *bank, const char *path, const void *head) {
    bool is_permutation = false;
    char owner[PI2_NEURON_OWNER_BYTES];
    if (XXH3_64bits(head, (size_t)bank->head_bytes) != bank->head_checksum) {
        return pi2_fail(PI2_ERR_FORMAT,
                        "%s: the head of the bank of neurons of %s (%" PRIu64 " bytes at byte %" PRIu64
                        ") does not match its checksum: the file or the disk is damaged: delete the file and prepare "
                        "the model again",
                        path, pi2_neuron_bank_owner(bank, owner), bank->head_bytes, bank->head_offset);
    }
    PI2_TRY(pi2_permutation_check((const uint32_t *)((const uint8_t *)head + bank->order_at), bank->neuron_count,
                                  &is_permutation));
    if (is_permutation) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: the order of the neurons of %s at byte %" PRIu64
                    " does not name each once: delete the file and prepare the model again",
                    path, pi2_neuron_bank_owner(bank, owner), bank->head_offset + bank->order_at);
}

uint32_t pi2_neuron_unit_checksum(const pi2_neuron_bank *bank, const void *unit) {
    return (uint32_t)XXH3_64bits(unit, bank->unit_bytes);
}
