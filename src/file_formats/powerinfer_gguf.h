/*
 * powerinfer_gguf.h: what the files of PowerInfer (*.powerinfer.gguf) have that a GGUF has not: "PWRI" in place of
 * "GGUF" at byte 0; Down stored by neuron as blk.N.ffn_down_t.weight, neuron n being row n; and for each layer the two
 * matrices of a predictor, blk.N.fc1.weight and blk.N.fc2.weight. All else is as in GGUF. docs/sparsity.md
 */
#ifndef PI2_FILE_FORMATS_POWERINFER_GGUF_H
#define PI2_FILE_FORMATS_POWERINFER_GGUF_H

#include "file_formats/gguf.h"

enum { PI2_POWERINFER_NAME_BYTES = 72 };

/** Whether a file begins with "PWRI". Of a cluster file never, whatever it was made from. */
bool pi2_gguf_is_powerinfer(const pi2_gguf *gguf);

/** The tensor that holds the matrix `name` ("blk.3.ffn_down.weight") by neuron, that is transposed, in a file of
 *  PowerInfer; NULL where it has none, or is no such file. */
const pi2_gguf_tensor *pi2_powerinfer_transposed(const pi2_gguf *gguf, const char *name);

/** The inverse for names: of "blk.3.ffn_down_t.weight" it writes "blk.3.ffn_down.weight"; false: it is another name. */
bool pi2_powerinfer_down_name(const char *transposed, char name_out[PI2_POWERINFER_NAME_BYTES]);

/** Whether this is a matrix of a predictor; *layer_out: of which layer. The same in cluster files. */
bool pi2_powerinfer_is_predictor(const char *name, uint32_t *layer_out, bool *is_second_out);

/** The predictors of a file: their matrices together, and the least and the largest width between the two. */
typedef struct pi2_powerinfer_predictors {
    uint32_t matrix_count, layer_count; /* layers that have a first matrix */
    uint64_t rank_least, rank_most;     /* rows of the first matrices; 0: there is none */
    uint64_t bytes;
} pi2_powerinfer_predictors;
pi2_powerinfer_predictors pi2_powerinfer_count_predictors(const pi2_gguf *gguf);

#endif
