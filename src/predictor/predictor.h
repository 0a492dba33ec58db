/*
 * predictor.h: which neurons of a layer's FFN will matter for a token, told before any of their weights is read
 * (PowerInfer-2, sections 2.3 and 4.3). Whoever leaves the others out computes another text than the model's: nothing
 * here is used unless a run asks for it (docs/sparsity.md, Predictors).
 *
 *   score     one number for each neuron, from the normed input of the FFN; larger: it matters more
 *   fires     what a run with --sparsity auto computes: neurons whose score is above the layer's threshold
 *   worth     what a run that leaves a share out computes: those whose score is among the largest
 *
 * Scores are made of exact integer sums (kernels/small_rows) and a few float operations in one order, so they are the
 * same on every machine, however many threads share them out.
 *
 * A predictor lies in a file of its own (predictor_file.h), which says of which weights it is.
 */
#ifndef PI2_PREDICTOR_PREDICTOR_H
#define PI2_PREDICTOR_PREDICTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/small_rows/small_rows.h"
#include "kernels/vector/vector.h"
#include "powerinfer2/status.h"

typedef struct pi2_predictor pi2_predictor;

enum { PI2_PREDICTOR_ALIGNMENT = 64, PI2_PREDICTOR_ACTIVATION_BYTES = 16, PI2_PREDICTOR_MOST_RANK = 8192,
       PI2_PREDICTOR_POINTS = 3 };

/** Of one FFN: a layer's, or one of its experts'. A mixture's experts follow each other, layer by layer. */
typedef struct pi2_predictor_layer {
    uint32_t size;         /* low_bit: bits of a weight; others: rank. 0: nothing is known, and every neuron fires */
    bool is_signed;        /* low_rank: what of the code is below 0 stays so, in place of 0 */
    float threshold;       /* a neuron fires whose score is above it */
    float recall, precision, density; /* measured where it was made: of the neurons that fired, of those predicted, of
                                         all; 0: not measured */
    float lost[PI2_PREDICTOR_POINTS]; /* KL divergence of the model's answers when a quarter, a half or three quarters
                                         of this layer's neurons are left out, and none of others; 0: not measured */
    double left_out;       /* of a run, not of the file: share of its neurons that is left out (layer_shares.h) */
    uint64_t offset, bytes, checksum; /* in the file: a multiple of PI2_PREDICTOR_ALIGNMENT; XXH3 64 */
    const uint8_t *data;   /* NULL: not loaded */
} pi2_predictor_layer;

/** Numbers of kinds in files: never given to another. */
enum { PI2_PREDICTOR_LOW_BIT = 1, PI2_PREDICTOR_LOW_RANK = 2, PI2_PREDICTOR_SVD = 3 };

/** What a layer's scores may be asked for. */
typedef enum pi2_score_kind { PI2_SCORE_FIRES, PI2_SCORE_WORTH } pi2_score_kind;

/** A vector as predictors read it. */
typedef struct pi2_predictor_vector {
    const int16_t *values; /* [length] */
    float scale;           /* of a value; NaN where the floats had an infinity or a NaN */
    float norm;            /* length of the vector */
} pi2_predictor_vector;

/** What scores of a layer are made of. */
typedef struct pi2_predictor_query {
    const pi2_predictor *predictor;
    const pi2_predictor_layer *layer;
    const pi2_small_kernel *kernel;
    const pi2_vector_kernels *vector;
    const float *gate_bias, *up_bias; /* the FFN's; NULL: there is none */
    pi2_score_kind score;
} pi2_predictor_query;

typedef struct pi2_predictor_kind {
    const char *name;
    uint32_t number; /* in files */
    /** Bytes of a layer of this size; 0: there is no such size. */
    uint64_t (*layer_bytes)(const pi2_predictor *predictor, uint32_t size);
    /** Whether a layer's numbers, which were read, can be computed with: no float of them is infinite or a NaN. */
    bool (*is_good)(const pi2_predictor *predictor, const pi2_predictor_layer *layer);
    /** What an activation of 1 is worth, by neuron, of a layer that it knows; NULL: the kind does not tell. */
    const float *(*worths)(const pi2_predictor *predictor, const pi2_predictor_layer *layer);
    /** Rows of the code, a vector between input and scores; 0: scores are made of the input. */
    uint32_t (*code_rows)(const pi2_predictor_layer *layer);
    /** Code [begin, end) from the input. */
    void (*code)(const pi2_predictor_query *query, const pi2_predictor_vector *input, uint32_t begin, uint32_t end,
                 float *code);
    /** Scores of neurons [begin, end), in scores[0 .. end - begin), from the code, or the input where there is none. */
    void (*scores)(const pi2_predictor_query *query, const pi2_predictor_vector *from, uint32_t begin, uint32_t end,
                   float *scores);
    /** The same numbers, of these neurons. */
    void (*scores_of)(const pi2_predictor_query *query, const pi2_predictor_vector *from, const uint32_t *neurons,
                      uint32_t count, float *scores);
} pi2_predictor_kind;

struct pi2_predictor {
    const pi2_predictor_kind *kind;
    uint64_t header_hash, content_hash; /* of the source of the weights: pi2_source_identity */
    uint32_t layer_count, width, neuron_count; /* of every layer's FFN */
    bool has_up;                     /* low_bit, svd: there are copies of Up too */
    char activation[PI2_PREDICTOR_ACTIVATION_BYTES]; /* by its name; zeros behind it */
    uint32_t activation_number;      /* of pi2_ffn_activation */
    pi2_predictor_layer *layers;     /* [layer_count]: by FFN (pi2_ffn_number()); owned */
    uint64_t data_begin, file_bytes; /* of its layers' data: [data_begin, file_bytes) of the file */
};

extern const pi2_predictor_kind *const pi2_predictor_kinds[];
extern const size_t pi2_predictor_kind_count;
/** NULL: no kind has this number. */
const pi2_predictor_kind *pi2_predictor_kind_find(uint32_t number);

/** Bytes of its layers' data, all together. */
uint64_t pi2_predictor_bytes(const pi2_predictor *predictor);

/** Frees the list of layers; their data belongs to who loaded it. Zeroed is fine. */
void pi2_predictor_free(pi2_predictor *predictor);

/** `count` floats (a multiple of PI2_SMALL_BLOCK) as int16 into values, and what describes them. */
pi2_predictor_vector pi2_predictor_quantize(const float *floats, size_t count, int16_t *values);

/**
 * Turns the scores of a whole layer into 1 for neurons that are computed and 0 for others.
 *   fires: those above `threshold`, or which are no number
 *   worth: `kept` of them, the largest; of equal ones the first. What is no number counts as largest
 */
void pi2_predictor_choose_firing(float *scores, uint32_t count, float threshold);
void pi2_predictor_choose_largest(float *scores, uint32_t count, uint32_t kept);

/** Neurons of `count` that are kept when this share is left out. */
uint32_t pi2_predictor_kept(uint32_t count, double share);

#endif
