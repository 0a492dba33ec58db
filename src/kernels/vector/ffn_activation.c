/* ffn_activation.c: the list of activations as tables. */
#include "kernels/vector/ffn_activation.h"

#include <string.h>

static const struct {
    const char *name;
    bool is_sparse;
} activations[] = {
#define FFN_ACTIVATION(name, sparse) { #name, sparse },
#include "powerinfer2/ffn_activations.inc"
#undef FFN_ACTIVATION
};

const char *pi2_ffn_activation_name(size_t activation) {
    return activation < PI2_FFN_ACTIVATIONS ? activations[activation].name : NULL;
}

bool pi2_ffn_activation_is_sparse(pi2_ffn_activation activation) { return activations[activation].is_sparse; }

bool pi2_ffn_activation_find(const char *name, size_t length, pi2_ffn_activation *activation_out) {
    for (size_t i = 0; i < PI2_FFN_ACTIVATIONS; i++) {
        if (strlen(activations[i].name) != length || memcmp(activations[i].name, name, length) != 0) continue;
        *activation_out = (pi2_ffn_activation)i;
        return true;
    }
    return false;
}

const char *pi2_ffn_activation_names(void) {
#define FFN_ACTIVATION(name, sparse) ", " #name
    static const char names[] =
#include "powerinfer2/ffn_activations.inc"
        ;
#undef FFN_ACTIVATION
    return names + 2;
}
