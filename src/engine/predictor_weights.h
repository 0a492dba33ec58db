/* predictor_weights.h: the rows of a layer's Gate and Up as floats, out of a GGUF, for training a predictor. */
#ifndef PI2_ENGINE_PREDICTOR_WEIGHTS_H
#define PI2_ENGINE_PREDICTOR_WEIGHTS_H

#include "file_formats/gguf.h"
#include "predictor/low_rank_train.h"
#include "weight_formats/weight_format.h"

enum { PI2_WEIGHTS_GATE, PI2_WEIGHTS_UP, PI2_WEIGHTS_OF_A_LAYER };

/** Closed when zeroed. It stays where it is while `rows` is used. */
typedef struct pi2_predictor_weights {
    pi2_low_rank_weights rows;
    bool are_there;
    uint32_t width;
    struct {
        void *memory;
        const uint8_t *bytes;
        const pi2_weight_format *format;
    } of[PI2_WEIGHTS_OF_A_LAYER];
} pi2_predictor_weights;

/**
 * Reads a layer's, or of an expert (UINT32_MAX: there are none) its own: of an ungated model what stands in Gate's
 * place; Up only where it decides. are_there is false where the file has no such matrices of this shape (a cluster
 * file, whose weights lie in tiles; matrices in one).
 * Errors  IO, MEMORY
 */
pi2_status pi2_predictor_weights_open(const pi2_gguf *gguf, uint32_t layer, uint32_t expert, uint32_t width,
                                      uint32_t neurons, bool up_decides, pi2_predictor_weights *weights);
void pi2_predictor_weights_close(pi2_predictor_weights *weights);

#endif
