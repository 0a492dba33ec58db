/* activations.c: where the members of a batch of quantised activations lie. */
#include "kernels/activations.h"

#include <string.h>

enum { MEMBER_ALIGNMENT = 64 };

static size_t round_up(size_t value, size_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

static size_t block_columns(pi2_activation_kind kind) {
    return kind == PI2_ACTIVATION_Q8_256 ? 256 : 32;
}

static size_t columns_of_a_sum(pi2_activation_kind kind) {
    return kind == PI2_ACTIVATION_Q8_256 ? 16 : 32;
}

/* Strides are whole cache lines: vectors may load past the last column, never past the token. */
static void set_strides(pi2_activations *activations, pi2_activation_kind kind, size_t columns) {
    activations->value_stride = round_up(columns, MEMBER_ALIGNMENT);
    activations->block_stride =
        round_up(columns / block_columns(kind), MEMBER_ALIGNMENT / sizeof(float));
    activations->sum_stride =
        round_up(columns / columns_of_a_sum(kind), MEMBER_ALIGNMENT / sizeof(int16_t));
}

size_t pi2_activations_bytes(pi2_activation_kind kind, size_t token_count, size_t columns) {
    if (kind == PI2_ACTIVATION_F32) return 0;
    pi2_activations strides;
    set_strides(&strides, kind, columns);
    return token_count * (strides.value_stride + strides.block_stride * sizeof(float) +
                          strides.sum_stride * sizeof(int16_t));
}

void pi2_activations_layout(pi2_activations *activations, pi2_activation_kind kind,
                            size_t token_count, size_t columns, void *memory) {
    memset(activations, 0, sizeof *activations);
    activations->kind = kind;
    activations->token_count = (uint32_t)token_count;
    activations->columns = (uint32_t)columns;
    if (kind == PI2_ACTIVATION_F32) return;
    set_strides(activations, kind, columns);
    char *values = memory;
    char *scales = values + token_count * activations->value_stride;
    char *sums = scales + token_count * activations->block_stride * sizeof(float);
    activations->values = (const int8_t *)values;
    activations->scales = (const float *)(const void *)scales;
    activations->sums = (const int16_t *)(const void *)sums;
}
