/*
 * predictor_svd.c: what all layers read of some tokens, all neurons computed, as predictors read it; then the engine is
 * closed, and the predictor is made of the weights in its place.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/parse_size.h"
#include "engine/neuron_recorder.h"
#include "engine/predictor_recipe.h"
#include "engine/text_chunks.h"
#include "powerinfer2/neuron_predictor.h"
#include "powerinfer2/session.h"
#include "powerinfer2/sizes.h"
#include "predictor/predictor_file.h"

enum { MOST_CHUNK = 128 };

typedef struct sample_run {
    pi2_engine *engine;
    pi2_session *session;
    pi2_neuron_recorder recorder;
    uint32_t layers, width, neurons;
    uint32_t count, most;
    int16_t *values;       /* [layers][most][width] */
    float *scales;         /* [layers][most] */
} sample_run;

void pi2_predictor_svd_init(pi2_predictor_svd *svd) {
    *svd = (pi2_predictor_svd){ .recall = 0.96, .sample_bytes = 512 << 20 };
}

static pi2_status take_chunk(void *user, const int32_t *tokens, size_t count) {
    sample_run *run = user;
    PI2_TRY(pi2_session_truncate(run->session, 0));
    pi2_neuron_recorder_begin(&run->recorder);
    pi2_forward_set_counter(run->engine->forward, &run->recorder.counter);
    const pi2_status status = pi2_session_append(run->session, tokens, count, PI2_LOGITS_NONE);
    pi2_forward_set_counter(run->engine->forward, NULL);
    PI2_TRY(status);
    PI2_TRY(pi2_neuron_recorder_check(&run->recorder, (uint32_t)count, run->engine->run.source.model_path));
    for (uint32_t t = 0; t < count && run->count < run->most; t++, run->count++) {
        for (uint32_t l = 0; l < run->layers; l++) {
            const size_t row = (size_t)l * run->most + run->count;
            run->scales[row] = pi2_predictor_quantize(pi2_recorded_input(&run->recorder, l, t), run->width,
                                                      run->values + row * run->width).scale;
        }
    }
    return PI2_OK;
}

static uint64_t sample_bytes(const sample_run *run, uint32_t chunk) {
    return (uint64_t)run->layers * run->most * (run->width * sizeof *run->values + sizeof *run->scales) +
           pi2_neuron_recorder_bytes(run->layers, chunk, run->width, run->neurons);
}

static pi2_status take_memory(sample_run *run, uint64_t most_bytes, uint32_t *chunk_out) {
    const uint32_t context = run->engine->run.plan.memory.shape.context_tokens;
    char needed[PI2_SIZE_TEXT_BYTES];
    *chunk_out = context < MOST_CHUNK ? context : MOST_CHUNK;
    const uint64_t bytes = sample_bytes(run, *chunk_out);
    if (bytes > most_bytes) {
        return pi2_fail(PI2_ERR_INVALID, "samples of %u tokens take %s: give them as much (--sample-memory), or take "
                        "fewer tokens", run->most, pi2_format_size(bytes, needed));
    }
    const size_t rows = (size_t)run->layers * run->most;
    run->values = malloc(rows * run->width * sizeof *run->values);
    run->scales = malloc(rows * sizeof *run->scales);
    if (!run->values || !run->scales) return pi2_fail(PI2_ERR_MEMORY, "no memory for samples of %u tokens", run->most);
    return pi2_neuron_recorder_open(&run->recorder, 0, run->layers, *chunk_out, run->width, run->neurons, 1);
}

/* Layers lie as far apart as there is room; now as there are samples. */
static void move_together(sample_run *run) {
    for (uint32_t l = 1; l < run->layers; l++) {
        memmove(run->values + (size_t)l * run->count * run->width, run->values + (size_t)l * run->most * run->width,
                (size_t)run->count * run->width * sizeof *run->values);
        memmove(run->scales + (size_t)l * run->count, run->scales + (size_t)l * run->most,
                run->count * sizeof *run->scales);
    }
}

static pi2_status sample(sample_run *run, const pi2_predictor_texts *texts, uint64_t most_bytes) {
    const pi2_model_shape *shape = &run->engine->run.source.model->shape;
    uint32_t chunk;
    uint64_t tokens;
    if (pi2_model_has_experts(shape)) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: a mixture of experts: main directions are taken of its weights "
                        "alone, without texts", run->engine->run.source.model_path);
    }
    run->layers = shape->layer_count;
    run->width = shape->embedding_length;
    run->neurons = shape->feed_forward_length;
    if (texts->tokens < PI2_SVD_LEAST_SAMPLES || texts->tokens > UINT32_MAX / 2) {
        return pi2_fail(PI2_ERR_INVALID, "samples want %d tokens at least", PI2_SVD_LEAST_SAMPLES);
    }
    run->most = (uint32_t)texts->tokens;
    PI2_TRY(take_memory(run, most_bytes, &chunk));
    PI2_TRY(pi2_session_create(run->engine, NULL, &run->session));
    const pi2_text_chunks chunks = { .engine = run->engine, .paths = texts->paths, .most_tokens = run->most,
                                     .chunk_tokens = chunk, .take = take_chunk, .user = run };
    PI2_TRY(pi2_text_chunks_run(&chunks, &tokens));
    if (run->count < PI2_SVD_LEAST_SAMPLES) {
        return pi2_fail(PI2_ERR_INVALID, "the texts have %u tokens: %d are the least", run->count,
                        PI2_SVD_LEAST_SAMPLES);
    }
    move_together(run);
    return PI2_OK;
}

static pi2_status open_and_sample(const pi2_engine_options *options, const pi2_predictor_texts *texts,
                                  uint64_t most_bytes, sample_run *run) {
    pi2_engine_options own = *options;
    own.sparsity = "off"; /* what is learned from is computed whole */
    own.predictor = NULL;
    own.beside_bytes = most_bytes;
    PI2_TRY(pi2_engine_open(&own, &run->engine));
    const pi2_status status = sample(run, texts, most_bytes);
    pi2_session_free(run->session);
    pi2_neuron_recorder_close(&run->recorder);
    pi2_engine_close(run->engine);
    return status;
}

pi2_status pi2_predictor_make_svd(const pi2_engine_options *options, const pi2_predictor_texts *texts,
                                  const pi2_predictor_svd *svd) {
    const char *const inputs[] = { options->model_path, NULL };
    pi2_predictor_recipe recipe = { .rank = svd->rank, .recall = svd->recall };
    sample_run run = { .engine = NULL };
    pi2_svd_samples samples = { .count = 0 };
    char *path = NULL;
    if (svd->rank % PI2_SMALL_BLOCK || svd->rank > PI2_PREDICTOR_MOST_RANK || !(svd->recall > 0 && svd->recall < 1)) {
        return pi2_fail(PI2_ERR_INVALID, "a predictor wants a width that is a multiple of %d, %d at most, and a recall "
                        "between 0 and 1", PI2_SMALL_BLOCK, PI2_PREDICTOR_MOST_RANK);
    }
    if (!svd->output_path) return pi2_fail(PI2_ERR_INVALID, "where should the predictor be written?");
    PI2_TRY(pi2_predictor_check_place(svd->output_path, inputs));
    pi2_status status = texts ? open_and_sample(options, texts, svd->sample_bytes, &run) : PI2_OK;
    if (texts) {
        samples = (pi2_svd_samples){ .count = run.count, .values = run.values, .scales = run.scales };
        recipe.samples = &samples;
    }
    if (status == PI2_OK) status = pi2_predictor_make_by(options, &recipe, svd->output_path, &path);
    free(path);
    free(run.values);
    free(run.scales);
    return status;
}
