/* low_bit_make.h: a low_bit predictor out of a cluster file of the bundle layout. */
#ifndef PI2_PREDICTOR_LOW_BIT_MAKE_H
#define PI2_PREDICTOR_LOW_BIT_MAKE_H

#include "file_formats/cluster_file.h"
#include "predictor/predictor.h"

/** What it is made for. */
typedef struct pi2_low_bit_request {
    const pi2_gguf *gguf;            /* the cluster file */
    const pi2_neuron_banks *banks;   /* its banks, with Gate: of one shape, one an FFN at most */
    const pi2_source_identity *source; /* of its weights */
    uint32_t layer_count, width, neuron_count; /* layers of the predictor: FFNs */
    uint32_t layer_ffns;             /* FFNs of a layer of the model: experts, or 1 */
    pi2_ffn_activation activation;
    uint32_t bits;                   /* 2 or 3 */
    uint64_t room_bytes;             /* that there is for the copies; UINT64_MAX: nobody asks */
    const pi2_callbacks *callbacks;  /* progress: "copying", bytes of units; NULL: none */
} pi2_low_bit_request;

/**
 * Makes it, in memory of its own: free(*memory_out) after the predictor. An FFN without a bank has size 0.
 * There are copies of Up where they say what Gate does not: not of relu and relu_squared, nor without Up.
 * Errors  UNSUPPORTED (a width that is no multiple of 32), IO, FORMAT (a checksum: layer, byte offset), MEMORY (no
 *         room among others: nothing was read then), INTERRUPTED
 */
pi2_status pi2_low_bit_make(const pi2_low_bit_request *request, pi2_predictor *predictor_out, void **memory_out);

#endif
