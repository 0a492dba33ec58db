/* ffn_activation.h: the activations of a gated FFN: their names and what they promise. */
#ifndef PI2_KERNELS_VECTOR_FFN_ACTIVATION_H
#define PI2_KERNELS_VECTOR_FFN_ACTIVATION_H

#include <stdbool.h>
#include <stddef.h>

/** PI2_FFN_silu, ...: in the order of the list. */
typedef enum pi2_ffn_activation {
#define FFN_ACTIVATION(name, sparse) PI2_FFN_##name,
#include "powerinfer2/ffn_activations.inc"
#undef FFN_ACTIVATION
    PI2_FFN_ACTIVATIONS
} pi2_ffn_activation;

/** Name as in files and options; PI2_FFN_ACTIVATIONS and more give NULL. */
const char *pi2_ffn_activation_name(size_t activation);

/** True when neurons come out as exact zeros: those of relu and its kin. */
bool pi2_ffn_activation_is_sparse(pi2_ffn_activation activation);

/** The activation of a name of `length` bytes; false when there is none. */
bool pi2_ffn_activation_find(const char *name, size_t length, pi2_ffn_activation *activation_out);

/** All names, for an error text: "silu, gelu, ...". */
const char *pi2_ffn_activation_names(void);

#endif
