/*
 * low_rank_train.h: trains the two matrices of a low_rank predictor to tell from an FFN's input which neurons fire
 * (logistic regression through a narrow layer of ReLU, Adam, mini-batches).
 *
 * The same samples, options and seed give the same bytes whatever the number of threads: each sum has one order, and
 * losses are added up as integers.
 */
#ifndef PI2_PREDICTOR_LOW_RANK_TRAIN_H
#define PI2_PREDICTOR_LOW_RANK_TRAIN_H

#include "powerinfer2/callbacks.h"
#include "predictor/trial.h"

/** Who fires by the weights, where they are at hand. */
typedef struct pi2_low_rank_weights {
    /** Rows [first, first + count) of Gate (is_up: of Up), [count][width] floats. Any thread. */
    void (*rows)(void *user, bool is_up, uint32_t first, uint32_t count, float *out);
    void *user;
    const float *gate_bias, *up_bias; /* [neurons]; NULL: there is none */
    bool up_decides;                  /* a neuron fires where Up, too, is above zero (drelu) */
} pi2_low_rank_weights;

/** What one layer read and what fired then. Every fifth sample is held out: it measures and is not learned from. */
typedef struct pi2_low_rank_samples {
    uint32_t count, width, neurons; /* count: at least PI2_LOW_RANK_LEAST_SAMPLES */
    const float *inputs;            /* [count][width] */
    const uint8_t *fires;           /* [count][(neurons + 7) / 8]: bit n % 8 of byte n / 8 */
    const pi2_low_rank_weights *weights; /* NULL: only the samples tell */
} pi2_low_rank_samples;

enum { PI2_LOW_RANK_LEAST_SAMPLES = 64, PI2_LOW_RANK_HELD_OUT = 5 };

typedef struct pi2_low_rank_training {
    uint32_t rank, most_epochs;
    float rate;                     /* of learning, at first */
    double recall;                  /* of the samples held out, at least: the threshold is set so */
    uint64_t seed;
    pi2_team *team;
    const pi2_callbacks *callbacks; /* asked whether to go on; NULL: nobody */
} pi2_low_rank_training;

/** What the samples held out say of the result. */
typedef struct pi2_low_rank_result {
    pi2_predictor_rating held;
    uint32_t epochs;
    uint32_t rank;  /* of what was written: half where it is signed */
    bool is_signed; /* nothing better was found than what it starts from, which is a linear map (pi2_low_rank_fold()) */
} pi2_low_rank_result;

/**
 * data  out  of the layer: layer_bytes(predictor, rank) bytes, aligned to PI2_PREDICTOR_ALIGNMENT
 * Errors  INVALID (it diverges; too few samples), MEMORY, INTERRUPTED
 */
pi2_status pi2_low_rank_train(const pi2_low_rank_samples *samples, const pi2_low_rank_training *training,
                              const pi2_predictor *predictor, uint8_t *data, pi2_low_rank_result *result_out);

#endif
