/* neuron_predictor.h: makes predictors of neurons, and measures what they foretell (docs/sparsity.md, Predictors). */
#ifndef POWERINFER2_NEURON_PREDICTOR_H
#define POWERINFER2_NEURON_PREDICTOR_H

#include "powerinfer2/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Makes a predictor that is copies of the weights with 2 or 3 bits (bits), and writes it.
 * options      in  of the model, as for a run; its sparsity and predictor are not read. A cluster file of the bundle
 *                  layout is made where there is none
 * output_path  in  NULL: beside the cluster file, where runs look for it
 * path_out     out malloc'd: where it was written
 * Errors  as pi2_engine_open(); INVALID (bits, what lies at output_path)
 */
PI2_API pi2_status pi2_predictor_make(const pi2_engine_options *options, uint32_t bits, const char *output_path,
                                      char **path_out);

/** What texts are run through the model. */
typedef struct pi2_predictor_texts {
    const char *const *paths; /* regular files, NULL at the end */
    uint64_t tokens;          /* of all of them at most; 0: all */
} pi2_predictor_texts;

/** How a predictor is made of the directions that Gate's and Up's rows have most of. */
typedef struct pi2_predictor_svd {
    const char *output_path;
    uint32_t rank;            /* a multiple of 32, at most the embedding's length; 0: chosen for each layer, up to a
                                 tenth of its FFN's work */
    double recall;            /* of the neurons that fire in the samples, at least, in every layer */
    uint64_t sample_bytes;    /* memory for what layers read of the texts' tokens: all of it has to fit */
} pi2_predictor_svd;

/** Fills in the defaults: rank 0, recall 0.96, 512 MB. */
PI2_API void pi2_predictor_svd_init(pi2_predictor_svd *svd);

/**
 * Makes such a predictor, and writes it. Of weights alone directions are weighed by the weights of the FFN's norm;
 * with texts, by what the layers read of them, which foretells better, and thresholds and widths are chosen by what a
 * fifth of the tokens wants. Whatever the number of threads the same file comes out.
 * options  in  of the model, as for a run; its sparsity and predictor are not read. A cluster file of the bundle layout
 *              is made where there is none
 * texts    in  NULL: the weights alone
 * log      with texts, one line for each layer
 * Errors  as pi2_engine_open(); INVALID (rank, recall, what lies at output_path, samples that do not fit),
 *         UNSUPPORTED (texts and experts, an embedding that is no multiple of 32)
 */
PI2_API pi2_status pi2_predictor_make_svd(const pi2_engine_options *options, const pi2_predictor_texts *texts,
                                          const pi2_predictor_svd *svd);

/**
 * Writes the predictors that a PowerInfer file (or a cluster file made from one) carries as a predictor's file.
 * options  in  of the model, as for a run; its sparsity and predictor are not used
 * Errors  INVALID (it carries none; what lies at output_path), UNSUPPORTED (LayerNorm, experts), FORMAT, IO, MEMORY
 */
PI2_API pi2_status pi2_predictor_import(const pi2_engine_options *options, const char *output_path);

/** What measuring takes beside the engine, for pi2_engine_options.beside_bytes. */
enum { PI2_PREDICTOR_MEASURE_BYTES = 64 * 1024 * 1024 };

/** Of one layer, of a mixture of its experts together: shares of 1. What a neuron should be: firing, or among the
 *  kept_share that matter most. */
typedef struct pi2_predictor_layer_measure {
    uint32_t size;            /* bits of a weight, or rank; 0: all neurons are computed */
    uint64_t bytes;
    double recall;            /* of those that should be named, those that were */
    double precision;         /* of those that were named, those that should be */
    double wanted, named;     /* of all neurons */
    double magnitude;         /* of all activations' magnitude, what the named ones have */
    double microseconds;      /* of one thread's processor time, for one token */
} pi2_predictor_layer_measure;

typedef struct pi2_predictor_measurement {
    const char *kind;         /* "low_bit" */
    uint64_t token_count;
    uint32_t layer_count;
    pi2_predictor_layer_measure *layers; /* [layer_count] */
    pi2_predictor_layer_measure mean;    /* over layers; bytes and microseconds: the sum */
} pi2_predictor_measurement;

/**
 * Runs texts through the model, all neurons computed, and compares what each layer gave with what the engine's
 * predictor says of it.
 * engine           in   opened with a sparsity of "auto" or a share; context_tokens: those of a chunk; no session
 * measurement_out  out  pi2_predictor_measurement_free() it; NULL on any error
 * Errors  INVALID (an exact engine, no text), IO, MEMORY, INTERRUPTED
 */
PI2_API pi2_status pi2_predictor_measure(pi2_engine *engine, const pi2_predictor_texts *texts,
                                         pi2_predictor_measurement **measurement_out);
PI2_API void pi2_predictor_measurement_free(pi2_predictor_measurement *measurement); /* NULL is fine */

/** What balancing takes beside the engine, for pi2_engine_options.beside_bytes. */
enum { PI2_PREDICTOR_BALANCE_BYTES = 64 * 1024 * 1024 };

/** Of one layer. */
typedef struct pi2_predictor_layer_balance {
    double lost[3];  /* mean KL divergence, in nats, when a quarter, a half or three quarters of its neurons are left
                        out; 0: the predictor knows nothing of the layer */
    double left_out; /* what the engine's share comes to in this layer */
} pi2_predictor_layer_balance;

typedef struct pi2_predictor_balancing {
    const char *path;     /* of the predictor; the engine's own text */
    uint64_t token_count; /* that were scored */
    uint32_t layer_count;
    pi2_predictor_layer_balance *layers; /* [layer_count] */
} pi2_predictor_balancing;

/**
 * Measures what leaving out neurons of each layer costs, and writes it into the predictor's file, which takes the place
 * of the one before: from then on a share of neurons is left out where it costs least.
 * engine         in   opened with a share, predicts_prompts and logits_tokens (the more, the fewer passes);
 *                     context_tokens: those of a chunk, at least 8; no session. It goes on with the shares it found
 * balancing_out  out  pi2_predictor_balancing_free() it before the engine is closed; NULL on any error: the file is as
 *                     it was
 * Errors  INVALID (no share, no text, too few tokens), IO, FORMAT (logits that are no numbers), MEMORY, INTERRUPTED
 */
PI2_API pi2_status pi2_predictor_balance(pi2_engine *engine, const pi2_predictor_texts *texts,
                                         pi2_predictor_balancing **balancing_out);
PI2_API void pi2_predictor_balancing_free(pi2_predictor_balancing *balancing); /* NULL is fine */

/** How a predictor of two small matrices is trained. */
typedef struct pi2_predictor_training {
    const char *output_path;  /* has its name only once it is whole; layers that are done lie in "<it>.part" until
                                 then */
    uint64_t sample_tokens;   /* of the texts at most, at least 64 */
    uint64_t sample_bytes;    /* memory for what layers read and what fired: as many layers at once as it holds */
    uint32_t rank;            /* a multiple of 32; 0: chosen for each layer by what it saves */
    uint32_t most_epochs;     /* each layer ends earlier where it learns no more */
    double recall;            /* of the neurons that fire, at least, in every layer */
    double rate;              /* of learning */
    bool resume;              /* layers that lie in "<output_path>.part" are passed over */
} pi2_predictor_training;

/** Fills in the defaults: 16384 tokens, 512 MB, rank 0, 24 epochs, recall 0.96, rate 0.004. */
PI2_API void pi2_predictor_training_init(pi2_predictor_training *training);

/**
 * Trains one on what texts make a model's neurons do, for runs with a sparsity of "auto". A fifth of the tokens is held
 * out, and tells recall, precision and when to stop. Whatever the number of threads the same file comes out.
 * engine  in  exact, of a model whose activation has zeros; without a session. Of a mixture each expert learns from the
 *             tokens that visit it. What training takes
 *             beside it is its beside_bytes
 * log     one line for each layer
 * Errors  INVALID (no text, too few tokens, training that diverges: nothing is written; what lies at output_path),
 *         UNSUPPORTED (layers that differ, no zeros, a width that is no multiple of 32), IO, FORMAT (.part), MEMORY,
 *         INTERRUPTED: layers that were done are kept, and a line of the log says so
 */
PI2_API pi2_status pi2_predictor_train(pi2_engine *engine, const pi2_predictor_texts *texts,
                                       const pi2_predictor_training *training);

#ifdef __cplusplus
}
#endif
#endif
