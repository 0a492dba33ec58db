/* cluster_file_banks.c: reads the table of banks of neurons. Every number in it is untrusted. */
#include <inttypes.h>
#include <stdio.h>

#include "base/fail.h"
#include "file_formats/cluster_file_bank_names.h"
#include "file_formats/cluster_file_columns.h"
#include "file_formats/cluster_file_keys.h"

enum { LAYER, EXPERT, NEURONS, WIDTH, UP_TENSOR, DOWN_TENSOR, UNIT_NEURONS, UNIT_BYTES, HEAD_BYTES, HEAD_CHECKSUM,
       IS_LEFT_OUT, COLUMNS };

void pi2_cluster_name_bank(char name[PI2_CLUSTER_NAME_BYTES], const pi2_neuron_bank *bank, bool is_head) {
    const char *end = is_head ? ".head" : "";
    if (bank->expert == UINT32_MAX) {
        (void)snprintf(name, PI2_CLUSTER_NAME_BYTES, "pi2.blk.%" PRIu32 ".neurons%s", bank->layer, end);
    } else {
        (void)snprintf(name, PI2_CLUSTER_NAME_BYTES, "pi2.blk.%" PRIu32 ".expert.%" PRIu32 ".neurons%s", bank->layer,
                       bank->expert, end);
    }
}

uint64_t pi2_cluster_file_statistics(const pi2_gguf *gguf) {
    uint64_t statistics = 0;
    return pi2_gguf_u64_or(gguf, PI2_KEY_BANK_STATISTICS, 0, &statistics) == PI2_OK ? statistics : 0;
}

/** Finds where a bank's tensor lies; it must have exactly these bytes, at a place that can be read directly. */
static pi2_status place(const pi2_gguf *gguf, const pi2_neuron_bank *bank, bool is_head, uint64_t bytes,
                        uint64_t *offset_out) {
    char name[PI2_CLUSTER_NAME_BYTES], what[160];
    pi2_cluster_name_bank(name, bank, is_head);
    const pi2_gguf_tensor *tensor = pi2_gguf_tensor_find(gguf, name);
    if (!tensor || tensor->type != PI2_CLUSTER_GROUP_TENSOR_TYPE || tensor->file_index != 0 ||
        tensor->bytes != bytes || tensor->file_offset % PI2_EXTENT_ALIGNMENT != 0) {
        (void)snprintf(what, sizeof what, "tensor '%s' is missing or has another size than its bank of neurons", name);
        return pi2_cluster_file_damaged(gguf, what);
    }
    *offset_out = tensor->file_offset;
    return PI2_OK;
}

/** Row `row` of the table as a bank that fits the layout and the file; `planned` is what the layout says of it. */
static pi2_status read_bank(const pi2_gguf *gguf, const pi2_extent_layout *layout, const pi2_column *columns,
                            uint32_t row, const pi2_neuron_bank *planned, pi2_neuron_bank *bank) {
    *bank = (pi2_neuron_bank){ .layer = pi2_column_u32(&columns[LAYER], row),
                               .expert = pi2_column_u32(&columns[EXPERT], row),
                               .neuron_count = pi2_column_u32(&columns[NEURONS], row),
                               .width = pi2_column_u32(&columns[WIDTH], row),
                               .gate_tensor = planned->gate_tensor,
                               .up_tensor = pi2_column_u32(&columns[UP_TENSOR], row),
                               .down_tensor = pi2_column_u32(&columns[DOWN_TENSOR], row),
                               .unit_neurons = pi2_column_u32(&columns[UNIT_NEURONS], row),
                               .unit_bytes = pi2_column_u32(&columns[UNIT_BYTES], row),
                               .head_checksum = pi2_column_u64(&columns[HEAD_CHECKSUM], row) };
    if (bank->layer != planned->layer || bank->expert != planned->expert ||
        bank->neuron_count != planned->neuron_count || bank->width != planned->width ||
        bank->up_tensor != planned->up_tensor || bank->down_tensor != planned->down_tensor ||
        bank->unit_neurons == 0) {
        return pi2_cluster_file_damaged(gguf, "a bank of neurons is not that of its layer");
    }
    const pi2_status status = pi2_neuron_bank_complete(layout, bank);
    if (status != PI2_OK) return pi2_fail_in_file(status, pi2_gguf_file_path(gguf, 0));
    if (pi2_column_u64(&columns[HEAD_BYTES], row) != bank->head_bytes) {
        return pi2_cluster_file_damaged(gguf, "the head of a bank of neurons has another size than its parts");
    }
    PI2_TRY(place(gguf, bank, false, pi2_neuron_bank_units_bytes(bank), &bank->file_offset));
    return place(gguf, bank, true, pi2_neuron_bank_head_read_bytes(bank), &bank->head_offset);
}

/** Keeps the banks that are there in `banks`, whose rows the layout planned, and lists the others. */
static pi2_status read_banks(const pi2_gguf *gguf, const pi2_extent_layout *layout, pi2_neuron_banks *banks) {
    pi2_column columns[COLUMNS] = { [LAYER] = { .key = PI2_KEY_BANK_LAYERS, .type = PI2_GGUF_U32 },
                                    [EXPERT] = { .key = PI2_KEY_BANK_EXPERTS, .type = PI2_GGUF_U32 },
                                    [NEURONS] = { .key = PI2_KEY_BANK_NEURONS, .type = PI2_GGUF_U32 },
                                    [WIDTH] = { .key = PI2_KEY_BANK_WIDTHS, .type = PI2_GGUF_U32 },
                                    [UP_TENSOR] = { .key = PI2_KEY_BANK_UP_TENSORS, .type = PI2_GGUF_U32 },
                                    [DOWN_TENSOR] = { .key = PI2_KEY_BANK_DOWN_TENSORS, .type = PI2_GGUF_U32 },
                                    [UNIT_NEURONS] = { .key = PI2_KEY_BANK_UNIT_NEURONS, .type = PI2_GGUF_U32 },
                                    [UNIT_BYTES] = { .key = PI2_KEY_BANK_UNIT_BYTES, .type = PI2_GGUF_U32 },
                                    [HEAD_BYTES] = { .key = PI2_KEY_BANK_HEAD_BYTES, .type = PI2_GGUF_U64 },
                                    [HEAD_CHECKSUM] = { .key = PI2_KEY_BANK_HEAD_CHECKSUMS, .type = PI2_GGUF_U64 },
                                    [IS_LEFT_OUT] = { .key = PI2_KEY_BANK_IS_LEFT_OUT, .type = PI2_GGUF_BOOL } };
    uint32_t rows = 0;
    const uint32_t planned = banks->count;
    PI2_TRY(pi2_columns_read(gguf, columns, COLUMNS, &rows));
    if (rows != planned) return pi2_cluster_file_damaged(gguf, "it has another number of banks than of FFNs");
    banks->count = 0;
    for (uint32_t i = 0; i < rows; i++) {
        const pi2_neuron_bank *at = &banks->banks[i];
        pi2_neuron_bank bank;
        if (i > 0 && at->layer == banks->banks[i - 1].layer && at->expert == banks->banks[i - 1].expert) {
            return pi2_cluster_file_damaged(gguf, "two groups are one layer's FFN");
        }
        PI2_TRY(read_bank(gguf, layout, columns, i, at, &bank));
        if (pi2_column_u32(&columns[IS_LEFT_OUT], i) != 0) {
            banks->left_out[banks->left_out_count++] = (pi2_neuron_place){ bank.layer, bank.expert };
        } else {
            banks->banks[banks->count++] = bank;
        }
    }
    return PI2_OK;
}

pi2_status pi2_cluster_file_banks(const pi2_gguf *gguf, const pi2_extent_layout *layout, pi2_neuron_banks **banks_out) {
    *banks_out = NULL;
    if (!pi2_cluster_file_has_neurons(gguf)) return PI2_OK;
    pi2_neuron_banks *banks;
    PI2_TRY(pi2_neuron_banks_plan(layout, pi2_cluster_file_has_bundles(gguf), &banks));
    const pi2_status status = read_banks(gguf, layout, banks);
    if (status != PI2_OK) {
        pi2_neuron_banks_free(banks);
        return status;
    }
    *banks_out = banks;
    return PI2_OK;
}
