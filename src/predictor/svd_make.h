/* svd_make.h: an svd predictor out of a cluster file of the bundle layout, and of samples of what its layers read. */
#ifndef PI2_PREDICTOR_SVD_MAKE_H
#define PI2_PREDICTOR_SVD_MAKE_H

#include "base/team.h"
#include "file_formats/gguf.h"
#include "clusters/neuron_bank.h"
#include "powerinfer2/callbacks.h"
#include "predictor/predictor.h"

/** What layers read of some tokens. Every fifth is held out: it measures. */
typedef struct pi2_svd_samples {
    uint32_t count;        /* at least PI2_SVD_LEAST_SAMPLES */
    const int16_t *values; /* [layers][count][width]: pi2_predictor_quantize() */
    const float *scales;   /* [layers][count] */
} pi2_svd_samples;

enum { PI2_SVD_LEAST_SAMPLES = 64, PI2_SVD_HELD_OUT = 5, PI2_SVD_HELD_MOST = 512 };

typedef struct pi2_svd_request {
    const pi2_gguf *gguf;          /* the cluster file */
    const pi2_neuron_banks *banks; /* its banks, with Gate: of one shape, one an FFN at most */
    uint32_t layer_ffns;           /* FFNs of a layer of the model: experts, or 1; "layers" are FFNs below */
    bool fires;                    /* its activation has zeros: samples want what fires, else the half that gives
                                      most */
    uint32_t rank;                 /* a multiple of 32; 0: chosen for each layer, up to a tenth of the FFN's work */
    double recall;                 /* of the samples held out, at least: thresholds are set so */
    const pi2_svd_samples *samples; /* NULL: the weights alone tell */
    /** Of a layer: `width` weights of the FFN's norm, which says how large inputs are; biases of Gate and Up; NULL:
     *  there are none. */
    const float *const *norms, *const *gate_biases, *const *up_biases; /* [layers] */
    pi2_team *team;
    const pi2_callbacks *callbacks; /* progress: "decomposing", bytes of units, twice; log: a line for each layer */
} pi2_svd_request;

/**
 * predictor    in, out  described, without layers' data; layers gets data that the caller frees, one by one
 * The same on any number of threads. Errors  IO, FORMAT, MEMORY, INTERRUPTED: data that are there are freed by the
 *                       caller all the same
 */
pi2_status pi2_svd_make(const pi2_svd_request *request, pi2_predictor *predictor);

/** The most a layer's rank may be that takes a tenth of its FFN's multiplications, at least 32. */
uint32_t pi2_svd_most_rank(const pi2_predictor *predictor);

#endif
