/* model_file_internal.h: the struct behind pi2_model_file. */
#ifndef PI2_ENGINE_MODEL_FILE_INTERNAL_H
#define PI2_ENGINE_MODEL_FILE_INTERNAL_H

#include "clusters/neuron_bank.h"
#include "powerinfer2/model_file.h"
#include "tokenizer/tokenizer.h"

enum { PI2_MODEL_FILE_NAME_BYTES = 256 };

struct pi2_model_file {
    pi2_gguf *gguf;
    pi2_extent_layout *layout;   /* of a cluster file; NULL for a plain GGUF */
    pi2_neuron_banks *banks;     /* of a cluster file in the neuron layout; else NULL */
    uint64_t *matrix_offsets;    /* [layout->tensor_count] */
    pi2_tokenizer *tokenizer;    /* of a model that cannot be run: made when first asked for */
    pi2_model_summary summary;
    char architecture[PI2_MODEL_FILE_NAME_BYTES], name[PI2_MODEL_FILE_NAME_BYTES];
    char tokenizer_name[PI2_MODEL_FILE_NAME_BYTES], weight_types[PI2_MODEL_FILE_NAME_BYTES];
    char left_out[PI2_MODEL_FILE_NAME_BYTES], reason[1024], note[1024];
};

#endif
