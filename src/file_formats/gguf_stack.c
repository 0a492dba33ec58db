/*
 * gguf_stack.c: experts that a file has one by one, as files of 2023 and early 2024 do (blk.N.ffn_gate.E.weight), as
 * the stacks that all of this program knows (blk.N.ffn_gate_exps.weight).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "file_formats/gguf_internal.h"

enum { NAME_BYTES = 96, MOST_EXPERTS = 4096 };

static const char *const kinds[] = { "ffn_gate", "ffn_up", "ffn_down" };
enum { KINDS = sizeof kinds / sizeof kinds[0] };

/* "blk.<layer>.<kind>.0.weight": the layer and the kind. */
static bool is_first(const char *name, uint32_t *layer_out, const char **kind_out) {
    if (strncmp(name, "blk.", 4) != 0) return false;
    char *end;
    const unsigned long layer = strtoul(name + 4, &end, 10);
    if (end == name + 4 || *end != '.' || layer >= UINT32_MAX) return false;
    for (size_t k = 0; k < KINDS; k++) {
        const size_t length = strlen(kinds[k]);
        if (strncmp(end + 1, kinds[k], length) != 0 || strcmp(end + 1 + length, ".0.weight") != 0) continue;
        *layer_out = (uint32_t)layer;
        *kind_out = kinds[k];
        return true;
    }
    return false;
}

static const pi2_gguf_tensor *find(const pi2_gguf *gguf, uint32_t layer, const char *kind, uint32_t expert) {
    char name[NAME_BYTES];
    (void)snprintf(name, sizeof name, "blk.%" PRIu32 ".%s.%" PRIu32 ".weight", layer, kind, expert);
    return pi2_gguf_tensor_find(gguf, name);
}

/* An expert's matrix that is missing, or not like its fellows. */
static pi2_status check(const pi2_gguf *gguf, const pi2_gguf_tensor *first, const pi2_gguf_tensor *one, uint32_t layer,
                        const char *kind, uint32_t expert) {
    const char *path = pi2_gguf_file_path(gguf, first->file_index);
    if (!one) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: tensor 'blk.%" PRIu32 ".%s.%" PRIu32 ".weight' is missing: download the "
                        "model again", path, layer, kind, expert);
    }
    const char *differs = one->file_index != first->file_index ? "lies in another file"
                          : one->type != first->type ? "is of another type"
                          : memcmp(one->dimensions, first->dimensions, sizeof one->dimensions) != 0 ||
                                    one->dimensions[2] != 1 || one->dimensions[3] != 1 ? "has other dimensions" : NULL;
    if (!differs) return PI2_OK;
    return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: tensor '%s' %s than that of expert 0: experts of a layer are alike here: "
                    "get the model converted anew (experts as ffn_gate_exps, ffn_up_exps, ffn_down_exps)", path,
                    one->name, differs);
}

/* Makes the stack of the first expert's tensor, whose name stays until all are found; the others have no dimensions
 * then, and are taken out. */
static pi2_status stack(pi2_gguf *gguf, size_t index, uint32_t layer, const char *kind, uint32_t experts) {
    pi2_gguf_tensor *first = &gguf->tensors[index];
    uint64_t *offsets = pi2_gguf_keep(gguf, experts * sizeof *offsets);
    if (!offsets) return pi2_fail(PI2_ERR_MEMORY, "no memory for a model's tensor table");
    for (uint32_t e = 0; e < experts; e++) {
        const pi2_gguf_tensor *one = e ? find(gguf, layer, kind, e) : first;
        PI2_TRY(check(gguf, first, one, layer, kind, e));
        offsets[e] = one->file_offset;
        if (e) gguf->tensors[one - gguf->tensors].dimension_count = 0;
    }
    first->dimension_count = 3;
    first->dimensions[2] = experts;
    first->bytes *= experts;
    first->matrix_offsets = offsets;
    return PI2_OK;
}

/* How many experts a layer has: what the file says, or as many as there are. */
static pi2_status count_experts(const pi2_gguf *gguf, uint32_t layer, const char *kind, uint32_t *count_out) {
    char key[NAME_BYTES];
    pi2_gguf_string architecture;
    *count_out = 1;
    PI2_TRY(pi2_gguf_string_get(gguf, "general.architecture", &architecture));
    (void)snprintf(key, sizeof key, "%.*s.expert_count", (int)(architecture.length < 64 ? architecture.length : 64),
                   architecture.text);
    PI2_TRY(pi2_gguf_u32_or(gguf, key, 0, count_out));
    if (*count_out > 0 && *count_out <= MOST_EXPERTS) return PI2_OK;
    for (*count_out = 1; *count_out < MOST_EXPERTS && find(gguf, layer, kind, *count_out); ++*count_out) { }
    return PI2_OK;
}

static pi2_status rename_stack(pi2_gguf *gguf, pi2_gguf_tensor *tensor) {
    uint32_t layer;
    const char *kind;
    if (!is_first(tensor->name, &layer, &kind)) return PI2_OK;
    char *name = pi2_gguf_keep(gguf, NAME_BYTES);
    if (!name) return pi2_fail(PI2_ERR_MEMORY, "no memory for a model's tensor table");
    (void)snprintf(name, NAME_BYTES, "blk.%" PRIu32 ".%s_exps.weight", layer, kind);
    tensor->name = name;
    return PI2_OK;
}

pi2_status pi2_gguf_stack_experts(pi2_gguf *gguf) {
    bool is_stacked = false;
    for (size_t i = 0; i < gguf->tensor_count; i++) {
        uint32_t layer, experts;
        const char *kind;
        if (!is_first(gguf->tensors[i].name, &layer, &kind)) continue;
        PI2_TRY(count_experts(gguf, layer, kind, &experts));
        PI2_TRY(stack(gguf, i, layer, kind, experts));
        is_stacked = true;
    }
    if (!is_stacked) return PI2_OK;
    size_t count = 0;
    for (size_t i = 0; i < gguf->tensor_count; i++) {
        if (gguf->tensors[i].dimension_count == 0) continue;
        gguf->tensors[count] = gguf->tensors[i];
        PI2_TRY(rename_stack(gguf, &gguf->tensors[count++]));
    }
    gguf->tensor_count = count;
    return pi2_gguf_index_tensors(gguf);
}
