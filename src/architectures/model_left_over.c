/* model_left_over.c: biases and norms of a file that nothing computes with: a text without them would be another. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "architectures/model.h"
#include "base/fail.h"

static bool ends_with(const char *text, const char *end) {
    const size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

static bool begins_with(const char *text, const char *begin) { return strncmp(text, begin, strlen(begin)) == 0; }

/* Whether a tensor of the model or of one of its layers changes what is computed, whatever the family is. */
static bool matters(const pi2_tensor_directory *directory, const pi2_model_shape *shape, const char *name) {
    if (strcmp(name, "output.bias") == 0 || strcmp(name, "output_norm.bias") == 0) return directory->first_layer == 0;
    if (!begins_with(name, "blk.")) return false;
    char *end;
    const unsigned long number = strtoul(name + 4, &end, 10);
    if (end == name + 4 || *end != '.' || number < directory->first_layer) return false;
    const unsigned long layer = number - directory->first_layer;
    const char *part = end + 1;
    if (layer >= shape->layer_count || begins_with(part, "nextn.")) return false;
    const bool borrows_keys = shape->layers[layer].kv_layer != layer;
    if (borrows_keys && (begins_with(part, "attn_k") || begins_with(part, "attn_v"))) return false;
    return ends_with(part, ".bias") || (strstr(part, "norm") && ends_with(part, ".weight"));
}

static bool is_asked_for(const pi2_model_requests *requests, const char *name) {
    for (size_t i = 0; i < requests->table_count; i++) {
        if (requests->tables[i].tensor && strcmp(requests->tables[i].tensor->name, name) == 0) return true;
    }
    return false;
}

pi2_status pi2_model_check_left_over(const pi2_tensor_directory *directory, const pi2_model_shape *shape,
                                     const pi2_model_requests *requests) {
    for (size_t i = 0; i < pi2_gguf_tensor_count(directory->gguf); i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(directory->gguf, i);
        if (!matters(directory, shape, tensor->name) || is_asked_for(requests, tensor->name)) continue;
        return pi2_fail(PI2_ERR_UNSUPPORTED, "tensor '%s' at byte %" PRIu64 " has no place in a %s, and without it the "
                        "text would be another: get a file that was converted as the family of its model", tensor->name,
                        tensor->file_offset, shape->architecture);
    }
    return PI2_OK;
}
