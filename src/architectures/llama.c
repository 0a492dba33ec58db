/* llama.c: Llama 1 to 3, Mistral, SmolLM2, TinyLlama; Mixtral: the same with experts. */
#include "architectures/decoder.h"

const pi2_architecture pi2_architecture_llama = {
    .name = "llama", .activation = PI2_FFN_silu, .has_powerinfer_files = true,
    .read_shape = pi2_decoder_read_shape,
};
