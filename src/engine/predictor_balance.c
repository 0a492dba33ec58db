/*
 * predictor_balance.c: what leaving neurons of one layer out costs the answers: chunks of texts, each with all neurons,
 * and then once for each layer and each of three shares of it, which the predictor leaves out. Of each chunk the second
 * half of the tokens counts, as for perplexity.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/text_chunks.h"
#include "kernels/vector/vector.h"
#include "powerinfer2/neuron_predictor.h"
#include "powerinfer2/session.h"
#include "predictor/layer_shares.h"
#include "predictor/predictor_file.h"

enum { LEAST_CHUNK = 8, MOST_CHUNK = 512 };
static const float least_lost = 1e-9f; /* measured, if nothing can be seen of it */

/** What the model says of one token with all of its neurons. */
typedef struct reference_token {
    double sum, entropy; /* of `likely`; of likely * log of the probability */
} reference_token;

typedef struct balance_run {
    pi2_engine *engine;
    const pi2_predictor_texts *texts;
    pi2_predictor *predictor;
    pi2_session *session;
    const int32_t *tokens;       /* the chunk */
    uint32_t count, vocabulary, chunk_tokens, step;
    float *likely;               /* [scored tokens of a chunk][vocabulary]: probabilities */
    reference_token *references; /* [scored tokens of a chunk] */
    double *lost;                /* [layers][PI2_PREDICTOR_POINTS]: sums over tokens */
    uint64_t scored;
    uint64_t passes_done, passes_all;
} balance_run;

/* What is taken from each logit to make it the logarithm of a probability. */
static double normalizer(const float *logits, uint32_t count) {
    float largest = logits[0];
    double sum = 0;
    for (uint32_t i = 1; i < count; i++) largest = logits[i] > largest ? logits[i] : largest;
    for (uint32_t i = 0; i < count; i++) sum += (double)pi2_expf(logits[i] - largest);
    return (double)largest + log(sum);
}

static void keep_reference(const balance_run *run, uint32_t token, const float *logits) {
    float *likely = run->likely + (size_t)token * run->vocabulary;
    reference_token *reference = &run->references[token];
    const double all = normalizer(logits, run->vocabulary);
    *reference = (reference_token){ .sum = 0 };
    for (uint32_t i = 0; i < run->vocabulary; i++) {
        const double logarithm = (double)logits[i] - all;
        likely[i] = pi2_expf((float)logarithm);
        reference->sum += (double)likely[i];
        reference->entropy += (double)likely[i] * logarithm;
    }
}

/* The divergence of what these logits say from the reference. */
static double diverge(const balance_run *run, uint32_t token, const float *logits) {
    const float *likely = run->likely + (size_t)token * run->vocabulary;
    const reference_token *reference = &run->references[token];
    double cross = 0;
    for (uint32_t i = 0; i < run->vocabulary; i++) cross += (double)likely[i] * (double)logits[i];
    const double divergence = reference->entropy - cross + normalizer(logits, run->vocabulary) * reference->sum;
    return divergence <= 0 ? 0 : divergence; /* what is no number stays none */
}

/* The chunk once. lost NULL: that is the reference. */
static pi2_status run_chunk(balance_run *run, double *lost) {
    const uint32_t first = run->count / 2, last = run->count - 1;
    const pi2_session_part part = { "balancing", run->passes_done, run->passes_done + 1, run->passes_all };
    pi2_session_set_part(run->session, &part);
    run->passes_done += run->passes_done + 1 < run->passes_all;
    PI2_TRY(pi2_session_truncate(run->session, 0));
    PI2_TRY(pi2_session_append(run->session, run->tokens, first, PI2_LOGITS_NONE));
    for (uint32_t at = first; at < last; at += run->step) {
        const uint32_t count = last - at < run->step ? last - at : run->step;
        PI2_TRY(pi2_session_append(run->session, run->tokens + at, count, PI2_LOGITS_ALL));
        for (uint32_t i = 0; i < count; i++) {
            const float *logits = pi2_session_logits(run->session, i);
            if (lost) *lost += diverge(run, at - first + i, logits);
            else keep_reference(run, at - first + i, logits);
        }
    }
    return PI2_OK;
}

static pi2_status take_chunk(void *user, const int32_t *tokens, size_t count) {
    balance_run *run = user;
    if (count < LEAST_CHUNK) return PI2_OK; /* the end of a text */
    run->tokens = tokens;
    run->count = (uint32_t)count;
    PI2_TRY(run_chunk(run, NULL));
    for (uint32_t l = 0; l < run->predictor->layer_count; l++) {
        pi2_predictor_layer *layer = &run->predictor->layers[l];
        for (int p = 0; p < PI2_PREDICTOR_POINTS && layer->size; p++) {
            layer->left_out = PI2_PREDICTOR_SHARE_AT(p);
            const pi2_status status = run_chunk(run, &run->lost[l * PI2_PREDICTOR_POINTS + (size_t)p]);
            layer->left_out = 0;
            PI2_TRY(status);
        }
    }
    run->scored += count - 1 - count / 2;
    return PI2_OK;
}

/* ---- the whole ---- */

/* As many tokens as the memory beside the engine holds what half of them are likely to be followed by. */
static pi2_status take_memory(balance_run *run) {
    const pi2_forward_shape *shape = &run->engine->run.plan.memory.shape;
    const uint64_t each = (uint64_t)run->vocabulary * sizeof *run->likely + sizeof *run->references;
    uint64_t most = 2 * (PI2_PREDICTOR_BALANCE_BYTES / each);
    if (most > shape->context_tokens) most = shape->context_tokens;
    if (most > MOST_CHUNK) most = MOST_CHUNK;
    if (most < LEAST_CHUNK) {
        return pi2_fail(PI2_ERR_INVALID, "chunks of %u tokens are too short to balance by: %d are the least (-c)",
                        (unsigned)most, LEAST_CHUNK);
    }
    run->chunk_tokens = (uint32_t)most;
    run->step = shape->logits_tokens;
    run->likely = malloc((size_t)(most / 2) * run->vocabulary * sizeof *run->likely);
    run->references = malloc((size_t)(most / 2) * sizeof *run->references);
    run->lost = calloc((size_t)run->predictor->layer_count * PI2_PREDICTOR_POINTS, sizeof *run->lost);
    if (run->likely && run->references && run->lost) return PI2_OK;
    return pi2_fail(PI2_ERR_MEMORY, "no memory to balance a predictor");
}

static void count_passes(balance_run *run) {
    uint32_t known = 0;
    for (uint32_t l = 0; l < run->predictor->layer_count; l++) known += run->predictor->layers[l].size != 0;
    const uint64_t chunks = run->texts->tokens ? (run->texts->tokens + run->chunk_tokens - 1) / run->chunk_tokens : 1;
    run->passes_all = chunks * (1 + (uint64_t)PI2_PREDICTOR_POINTS * known);
}

static pi2_status write(const balance_run *run) {
    const pi2_run_source *source = &run->engine->run.source;
    const char *const inputs[] = { source->weights_path, source->model_path, NULL };
    for (uint32_t l = 0; l < run->predictor->layer_count; l++) {
        pi2_predictor_layer *layer = &run->predictor->layers[l];
        for (size_t p = 0; p < PI2_PREDICTOR_POINTS && layer->size; p++) {
            const float mean = (float)(run->lost[l * PI2_PREDICTOR_POINTS + p] / (double)run->scored);
            layer->lost[p] = mean > least_lost ? mean : least_lost;
            if (!(mean <= 1e30f)) {
                return pi2_fail(PI2_ERR_FORMAT, "%s: with neurons of layer %u left out the logits are no numbers",
                                source->weights_path, (unsigned)l);
            }
        }
    }
    return pi2_predictor_write(run->engine->run.plan.predictor_path, inputs, run->predictor);
}

static pi2_status balance(balance_run *run) {
    uint64_t tokens = 0;
    PI2_TRY(take_memory(run));
    count_passes(run);
    PI2_TRY(pi2_session_create(run->engine, NULL, &run->session));
    const pi2_text_chunks chunks = { .engine = run->engine, .paths = run->texts->paths,
                                     .most_tokens = run->texts->tokens, .chunk_tokens = run->chunk_tokens,
                                     .take = take_chunk, .user = run };
    PI2_TRY(pi2_text_chunks_run(&chunks, &tokens));
    if (run->scored == 0) {
        return pi2_fail(PI2_ERR_INVALID, "the texts have too few tokens to balance a predictor by: %d are the least",
                        LEAST_CHUNK);
    }
    return write(run);
}

pi2_status pi2_predictor_balance(pi2_engine *engine, const pi2_predictor_texts *texts,
                                 pi2_predictor_balancing **balancing_out) {
    pi2_predictor *predictor = &engine->run.plan.predictor;
    *balancing_out = NULL;
    if (pi2_model_has_experts(&engine->run.source.model->shape)) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: a mixture of experts: shares are given to layers of models without "
                        "experts", engine->run.source.model_path);
    }
    if (engine->run.plan.left_out < 0 || !engine->run.options.predicts_prompts || !predictor->kind) {
        return pi2_fail(PI2_ERR_INVALID, "there is no share to balance: open the engine with one to leave out, and for "
                        "measuring");
    }
    pi2_predictor_balancing *balancing =
        calloc(1, sizeof *balancing + predictor->layer_count * sizeof *balancing->layers);
    if (!balancing) return pi2_fail(PI2_ERR_MEMORY, "no memory for what balancing finds");
    balance_run run = { .engine = engine, .texts = texts, .predictor = predictor,
                        .vocabulary = engine->run.source.model->shape.vocabulary_size };
    pi2_predictor_share_out(predictor, 0);
    const pi2_status status = balance(&run);
    pi2_predictor_share_out(predictor, engine->run.plan.left_out);
    *balancing = (pi2_predictor_balancing){ .path = engine->run.plan.predictor_path, .token_count = run.scored,
                                            .layer_count = predictor->layer_count,
                                            .layers = (pi2_predictor_layer_balance *)(balancing + 1) };
    for (uint32_t l = 0; l < predictor->layer_count; l++) {
        const pi2_predictor_layer *layer = &predictor->layers[l];
        balancing->layers[l].left_out = layer->left_out;
        for (size_t p = 0; p < PI2_PREDICTOR_POINTS; p++) balancing->layers[l].lost[p] = (double)layer->lost[p];
    }
    free(run.likely);
    free(run.references);
    free(run.lost);
    pi2_session_free(run.session);
    if (status == PI2_OK) *balancing_out = balancing;
    else free(balancing);
    return status;
}

void pi2_predictor_balancing_free(pi2_predictor_balancing *balancing) { free(balancing); }
