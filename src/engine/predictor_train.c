/*
 * predictor_train.c: some layers at a time, as many as memory holds samples of: the texts through the model, all
 * neurons computed; then each of these layers is trained, and written beside the output's place with those before it.
 * Of a mixture a "layer" is an expert of one (pi2_ffn_number()), whose samples are the tokens that visit it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fail.h"
#include "base/parse_size.h"
#include "engine/neuron_recorder.h"
#include "engine/predictor_weights.h"
#include "engine/text_chunks.h"
#include "powerinfer2/identity.h"
#include "powerinfer2/neuron_predictor.h"
#include "powerinfer2/session.h"
#include "powerinfer2/sizes.h"
#include "predictor/low_rank_train.h"
#include "predictor/predictor_file.h"

enum { PATH_BYTES = 1024, MOST_CHUNK = 128, COST_SHARE = 10, OWNER_BYTES = 40 };

typedef struct train_run {
    pi2_engine *engine;
    const pi2_predictor_texts *texts;
    const pi2_predictor_training *training;
    pi2_predictor predictor;       /* its layers' data are malloc'd one by one, or lie in part_memory */
    void **owned;                  /* [layer_count] */
    void *part_memory;
    char part_path[PATH_BYTES];
    pi2_session *session;
    pi2_neuron_recorder recorder;
    uint32_t first_layer, group;   /* layers that are sampled now: [first_layer, first_layer + group) */
    uint32_t layer_ffns;           /* of the model's layers */
    uint32_t *sample_counts;       /* [group] */
    uint32_t samples_most;         /* of one */
    uint64_t taken;                /* tokens of the texts */
    float *inputs;                 /* [group][samples_most][width] */
    uint8_t *fires;                /* [group][samples_most][fire_bytes] */
    size_t fire_bytes;
    pi2_gguf *gguf;                /* the model's file, for its weights */
    pi2_predictor_weights weights; /* of the layer that is trained */
} train_run;

void pi2_predictor_training_init(pi2_predictor_training *training) {
    *training = (pi2_predictor_training){ .sample_tokens = 16384, .sample_bytes = 512 << 20, .most_epochs = 24,
                                          .recall = 0.96, .rate = 0.004 };
}

/* ---- what is trained ---- */

static pi2_status check(const train_run *run) {
    const pi2_model_shape *shape = &run->engine->run.source.model->shape;
    const pi2_predictor_training *training = run->training;
    const char *path = run->engine->run.source.model_path;
    if (shape->activation == PI2_FFN_gelu_topk || !pi2_model_shape_fires(shape)) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: a predictor is trained for models whose layers are alike and whose "
                        "activation has zeros (relu, relu_squared, drelu)", path);
    }
    if (!pi2_engine_is_exact(run->engine)) {
        return pi2_fail(PI2_ERR_INVALID, "%s: training needs a run that is exact, and this one is not (%s)", path,
                        pi2_engine_arithmetic(run->engine));
    }
    if (training->rank % PI2_SMALL_BLOCK || training->rank > PI2_PREDICTOR_MOST_RANK) {
        return pi2_fail(PI2_ERR_INVALID, "a rank of %u: it has to be a multiple of %d, %d at most", training->rank,
                        PI2_SMALL_BLOCK, PI2_PREDICTOR_MOST_RANK);
    }
    if (training->sample_tokens < PI2_LOW_RANK_LEAST_SAMPLES || training->sample_tokens > UINT32_MAX / 2 ||
        training->most_epochs == 0 || !(training->recall > 0 && training->recall < 1) || !(training->rate > 0)) {
        return pi2_fail(PI2_ERR_INVALID, "training wants at least %d tokens, an epoch, a rate above 0, and a recall "
                        "between 0 and 1", PI2_LOW_RANK_LEAST_SAMPLES);
    }
    const char *const inputs[] = { run->engine->run.report.weights_path, path, NULL };
    return pi2_predictor_check_place(training->output_path, inputs);
}

static pi2_status describe(train_run *run) {
    PI2_TRY(pi2_run_describe_predictor(&run->engine->run, NULL, PI2_PREDICTOR_LOW_RANK,
                                       &run->predictor));
    run->owned = calloc(run->predictor.layer_count, sizeof *run->owned);
    run->fire_bytes = (run->predictor.neuron_count + (size_t)7) / 8;
    if (!run->owned) return pi2_fail(PI2_ERR_MEMORY, "no memory for a predictor");
    const int length = snprintf(run->part_path, sizeof run->part_path, "%s.part", run->training->output_path);
    if (length > 0 && (size_t)length < sizeof run->part_path) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "%s: too long a path", run->training->output_path);
}

/* Layers that an earlier run was done with. */
static pi2_status take_part(train_run *run) {
    struct stat what;
    pi2_predictor part;
    if (!run->training->resume || stat(run->part_path, &what) != 0) return PI2_OK;
    PI2_TRY(pi2_predictor_read(run->part_path, &part));
    pi2_predictor *own = &run->predictor;
    pi2_status status = PI2_OK;
    if (part.kind != own->kind || part.header_hash != own->header_hash || part.content_hash != own->content_hash ||
        part.layer_count != own->layer_count || part.width != own->width || part.neuron_count != own->neuron_count ||
        part.activation_number != own->activation_number) {
        status = pi2_fail(PI2_ERR_INVALID, "%s: these layers are of other weights: remove it, or name another output",
                          run->part_path);
    }
    const uint64_t bytes = pi2_predictor_data_bytes(&part) + PI2_PREDICTOR_ALIGNMENT;
    if (status == PI2_OK && posix_memalign(&run->part_memory, PI2_PREDICTOR_ALIGNMENT, (size_t)bytes) != 0) {
        run->part_memory = NULL;
        status = pi2_fail(PI2_ERR_MEMORY, "no memory for %s", run->part_path);
    }
    if (status == PI2_OK) status = pi2_predictor_load(run->part_path, &part, run->part_memory);
    uint32_t done = 0;
    for (uint32_t i = 0; status == PI2_OK && i < own->layer_count; i++) {
        own->layers[i] = part.layers[i];
        done += part.layers[i].size > 0;
    }
    if (status == PI2_OK) {
        pi2_planned_run_log(&run->engine->run, "%s: %u of %u layers stay as they were trained there, whatever the "
                            "options were", run->part_path, done, own->layer_count);
    }
    pi2_predictor_free(&part);
    return status;
}

/* ---- samples ---- */

/* What a token gave, to the samples of a layer of the group that it visits. */
static void take_sample(train_run *run, uint32_t g, uint32_t token) {
    const pi2_neuron_recorder *recorder = &run->recorder;
    const uint32_t layer = run->first_layer + g;
    if (run->sample_counts[g] == run->samples_most || !pi2_recorded_visit(recorder, layer, token)) return;
    const size_t row = (size_t)g * run->samples_most + run->sample_counts[g]++;
    const uint16_t *sizes = pi2_recorded_sizes(recorder, layer, token);
    uint8_t *fires = run->fires + row * run->fire_bytes;
    memcpy(run->inputs + row * recorder->width, pi2_recorded_input(recorder, layer, token),
           recorder->width * sizeof(float));
    for (uint32_t n = 0; n < recorder->neurons; n++) {
        if (sizes[n]) fires[n / 8] = (uint8_t)(fires[n / 8] | 1u << (n % 8));
    }
}

/* What a chunk's tokens gave, to the samples of each layer. */
static pi2_status take_chunk(void *user, const int32_t *tokens, size_t count) {
    train_run *run = user;
    const pi2_neuron_recorder *recorder = &run->recorder;
    PI2_TRY(pi2_session_truncate(run->session, 0));
    pi2_neuron_recorder_begin(&run->recorder);
    pi2_forward_set_counter(run->engine->forward, &recorder->counter);
    const pi2_status status = pi2_session_append(run->session, tokens, count, PI2_LOGITS_NONE);
    pi2_forward_set_counter(run->engine->forward, NULL);
    PI2_TRY(status);
    PI2_TRY(pi2_neuron_recorder_check(recorder, (uint32_t)count, run->engine->run.source.model_path));
    const uint64_t left = run->training->sample_tokens - run->taken;
    for (uint32_t t = 0; t < count && t < left; t++) {
        for (uint32_t g = 0; g < run->group; g++) take_sample(run, g, t);
    }
    run->taken += count;
    return PI2_OK;
}

static pi2_status sample(train_run *run) {
    const uint32_t context = run->engine->run.plan.memory.shape.context_tokens;
    const uint32_t chunk = context < MOST_CHUNK ? context : MOST_CHUNK;
    uint64_t tokens;
    run->taken = 0;
    run->sample_counts = calloc(run->group, sizeof *run->sample_counts);
    run->inputs = malloc((size_t)run->group * run->samples_most * run->predictor.width * sizeof *run->inputs);
    run->fires = calloc((size_t)run->group * run->samples_most, run->fire_bytes);
    if (!run->inputs || !run->fires || !run->sample_counts) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for samples of %u layers", run->group);
    }
    PI2_TRY(pi2_neuron_recorder_open(&run->recorder, run->first_layer, run->group, chunk, run->predictor.width,
                                     run->predictor.neuron_count, run->layer_ffns));
    const pi2_text_chunks chunks = { .engine = run->engine, .paths = run->texts->paths,
                                     .most_tokens = run->training->sample_tokens, .chunk_tokens = chunk,
                                     .take = take_chunk, .user = run };
    const pi2_status status = pi2_text_chunks_run(&chunks, &tokens);
    pi2_neuron_recorder_close(&run->recorder);
    return status;
}

static void forget_samples(train_run *run) {
    free(run->inputs);
    free(run->fires);
    free(run->sample_counts);
    run->inputs = NULL;
    run->fires = NULL;
    run->sample_counts = NULL;
}

/* A layer's samples, and what is recorded of a chunk. */
static uint64_t bytes_of_layer(const train_run *run) {
    const uint32_t width = run->predictor.width, neurons = run->predictor.neuron_count;
    return (uint64_t)run->samples_most * (width * sizeof(float) + run->fire_bytes) +
           pi2_neuron_recorder_bytes(1, MOST_CHUNK, width, neurons);
}

/* Layers of which that fits. */
static uint32_t layers_at_once(const train_run *run, uint32_t left) {
    const uint64_t most = run->training->sample_bytes / bytes_of_layer(run);
    return most < 1 ? 1 : most < left ? (uint32_t)most : left;
}

/* Where memory holds samples of some layers only, how much would hold all. */
static void tell_passes(const train_run *run, uint32_t left) {
    char bytes[PI2_SIZE_TEXT_BYTES];
    if (run->group == left) return;
    const uint32_t passes = (left + run->group - 1) / run->group;
    pi2_planned_run_log(&run->engine->run, "samples of %u of %u layers fit at once, so the texts are computed %u "
                        "times: --sample-memory %s would hold all", run->group, left, passes,
                        pi2_format_size(left * bytes_of_layer(run), bytes));
}

/* ---- one layer ---- */

/* Multiplications of a token that a predictor of this rank leaves, its own included. */
static double work_left(const train_run *run, uint32_t rank, double named) {
    const double width = run->predictor.width, neurons = run->predictor.neuron_count;
    return rank * (width + neurons) + named * 3 * width * neurons;
}

static pi2_status train_rank(train_run *run, uint32_t layer, uint32_t rank, uint8_t **data_out,
                             pi2_low_rank_result *result) {
    const size_t at = (size_t)(layer - run->first_layer) * run->samples_most;
    const pi2_low_rank_samples samples = { .count = run->sample_counts[layer - run->first_layer],
                                           .width = run->predictor.width,
                                           .neurons = run->predictor.neuron_count,
                                           .inputs = run->inputs + at * run->predictor.width,
                                           .fires = run->fires + at * run->fire_bytes,
                                           .weights = run->weights.are_there ? &run->weights.rows : NULL };
    const pi2_low_rank_training training = {
        .rank = rank, .most_epochs = run->training->most_epochs, .rate = (float)run->training->rate,
        .recall = run->training->recall, .seed = layer + 1, .team = run->engine->team,
        .callbacks = &run->engine->run.options.callbacks };
    const uint64_t bytes = run->predictor.kind->layer_bytes(&run->predictor, rank);
    void *data = NULL;
    *data_out = NULL;
    if (posix_memalign(&data, PI2_PREDICTOR_ALIGNMENT, (size_t)bytes) != 0) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for a predictor of rank %u", rank);
    }
    memset(data, 0, (size_t)bytes);
    const pi2_status status = pi2_low_rank_train(&samples, &training, &run->predictor, data, result);
    if (status == PI2_OK) *data_out = data;
    else free(data);
    return status;
}

static void keep_layer(train_run *run, uint32_t layer, uint8_t *data, const pi2_low_rank_result *result) {
    free(run->owned[layer]);
    run->owned[layer] = data;
    run->predictor.layers[layer] = (pi2_predictor_layer){
        .size = result->rank, .is_signed = result->is_signed, .threshold = result->held.threshold,
        .recall = (float)result->held.recall, .precision = (float)result->held.precision,
        .density = (float)result->held.density, .data = data };
}

static pi2_status take_weights(train_run *run, uint32_t layer) {
    const pi2_model *model = run->engine->run.source.model;
    const uint32_t neurons = run->predictor.neuron_count, number = layer / run->layer_ffns;
    const uint32_t expert = pi2_layer_has_experts(&model->layers[number]) ? layer % run->layer_ffns : UINT32_MAX;
    const float *const *tables = model->layers[number].tables;
    const float *gate_bias = tables[PI2_TABLE_GATE_BIAS], *up_bias = tables[PI2_TABLE_UP_BIAS];
    const size_t row = layer % run->layer_ffns * (size_t)neurons;
    PI2_TRY(pi2_predictor_weights_open(run->gguf, number, expert, run->predictor.width, neurons,
                                       model->shape.activation == PI2_FFN_drelu, &run->weights));
    run->weights.rows.gate_bias = gate_bias ? gate_bias + row : NULL;
    run->weights.rows.up_bias = up_bias ? up_bias + row : NULL;
    return PI2_OK;
}

static const char *name_of(const train_run *run, uint32_t layer, char text[OWNER_BYTES]) {
    const uint32_t number = layer / run->layer_ffns;
    if (run->layer_ffns == 1) (void)snprintf(text, OWNER_BYTES, "layer %u", number);
    else (void)snprintf(text, OWNER_BYTES, "layer %u, expert %u", number, layer % run->layer_ffns);
    return text;
}

/* Of ranks that double, up to a tenth of the FFN's work, the first that the next one saves nothing beside. */
static pi2_status train_layer(train_run *run, uint32_t layer) {
    const uint32_t asked = run->training->rank, first = asked ? asked : PI2_SMALL_BLOCK;
    const double width = run->predictor.width, neurons = run->predictor.neuron_count;
    pi2_low_rank_result best = { .epochs = 0 };
    uint32_t kept = 0;
    for (uint32_t rank = first; rank <= PI2_PREDICTOR_MOST_RANK; rank *= 2) {
        if (rank > first && (asked || rank * (width + neurons) * COST_SHARE > 3 * width * neurons)) break;
        uint8_t *data;
        pi2_low_rank_result result;
        PI2_TRY(train_rank(run, layer, rank, &data, &result));
        if (kept && work_left(run, result.rank, result.held.named) >= work_left(run, kept, best.held.named)) {
            free(data);
            break;
        }
        keep_layer(run, layer, data, &result);
        best = result;
        kept = result.rank;
    }
    char owner[OWNER_BYTES];
    pi2_planned_run_log(&run->engine->run, "%s: rank %u, recall %.2f %%, precision %.2f %%; %.2f %% of the neurons "
                        "fire, %.2f %% are named", name_of(run, layer, owner), kept, 100 * best.held.recall,
                        100 * best.held.precision, 100 * best.held.density, 100 * best.held.named);
    return PI2_OK;
}

/* An expert that the texts hardly visit learns nothing: of it all neurons are computed. */
static bool is_passed_over(const train_run *run, uint32_t layer) {
    const uint32_t visits = run->sample_counts[layer - run->first_layer];
    char owner[OWNER_BYTES];
    if (run->layer_ffns == 1 || visits >= PI2_LOW_RANK_LEAST_SAMPLES) return false;
    pi2_planned_run_log(&run->engine->run, "%s: %u tokens visit it, too few to learn from: all of its neurons will be "
                        "computed; more text (-f, --tokens) mends that", name_of(run, layer, owner), visits);
    return true;
}

/* ---- all of them ---- */

static pi2_status train_group(train_run *run) {
    const pi2_callbacks *callbacks = &run->engine->run.options.callbacks;
    const char *const inputs[] = { run->engine->run.report.weights_path, run->engine->run.source.model_path, NULL };
    PI2_TRY(sample(run));
    for (uint32_t i = run->first_layer; i < run->first_layer + run->group; i++) {
        if (run->predictor.layers[i].size || is_passed_over(run, i)) continue;
        PI2_TRY(take_weights(run, i));
        const pi2_status status = train_layer(run, i);
        pi2_predictor_weights_close(&run->weights);
        PI2_TRY(status);
        PI2_TRY(pi2_predictor_write(run->part_path, inputs, &run->predictor));
        if (callbacks->progress) callbacks->progress(callbacks->user, "layers", i + 1, run->predictor.layer_count);
    }
    return PI2_OK;
}

/* Samples that there is room for: of a mixture for twice as many tokens as visit an expert if all are as likely. */
static uint32_t room_of_layer(const train_run *run) {
    const pi2_model_shape *shape = &run->engine->run.source.model->shape;
    const uint64_t tokens = run->training->sample_tokens;
    const uint64_t visits = 2 * tokens * pi2_token_ffns(shape) / run->layer_ffns + PI2_LOW_RANK_LEAST_SAMPLES;
    return (uint32_t)(run->layer_ffns > 1 && visits < tokens ? visits : tokens);
}

/* Something has to be learned, or the predictor would name all neurons of all layers. */
static pi2_status check_learned(const train_run *run) {
    for (uint32_t i = 0; i < run->predictor.layer_count; i++) {
        if (run->predictor.layers[i].size) return PI2_OK;
    }
    return pi2_fail(PI2_ERR_INVALID, "no expert is visited by the %d tokens that are the least to learn from: give "
                    "more text (-f, --tokens)", PI2_LOW_RANK_LEAST_SAMPLES);
}

static pi2_status train_layers(train_run *run) {
    const uint32_t count = run->predictor.layer_count;
    PI2_TRY(pi2_session_create(run->engine, NULL, &run->session));
    run->samples_most = room_of_layer(run);
    for (uint32_t layer = 0; layer < count; layer += run->group) {
        run->group = 1;
        if (run->predictor.layers[layer].size) continue;
        run->first_layer = layer;
        run->group = layers_at_once(run, count - layer);
        if (layer == 0) tell_passes(run, count);
        const pi2_status status = train_group(run);
        forget_samples(run);
        PI2_TRY(status);
    }
    return check_learned(run);
}

/* The line of the failure is told still. */
static pi2_status tell_part(const train_run *run, pi2_status failure) {
    char line[512];
    uint32_t done = 0;
    for (uint32_t i = 0; run->predictor.layers && i < run->predictor.layer_count; i++) {
        done += run->predictor.layers[i].size > 0;
    }
    (void)snprintf(line, sizeof line, "%s", pi2_error_text());
    if (done) {
        pi2_planned_run_log(&run->engine->run, "%s: %u of %u layers are trained; 'predictor train --resume' goes on",
                            run->part_path, done, run->predictor.layer_count);
    }
    return pi2_fail(failure, "%s", line);
}

static pi2_status train(train_run *run) {
    const char *const inputs[] = { run->engine->run.report.weights_path, run->engine->run.source.model_path, NULL };
    run->layer_ffns = pi2_layer_ffns(&run->engine->run.source.model->shape);
    PI2_TRY(check(run));
    PI2_TRY(describe(run));
    PI2_TRY(take_part(run));
    PI2_TRY(pi2_gguf_open(run->engine->run.source.model_path, &run->gguf));
    PI2_TRY(pi2_architecture_adapt(run->gguf));
    const pi2_status status = train_layers(run);
    if (status != PI2_OK) return tell_part(run, status);
    PI2_TRY(pi2_predictor_write(run->training->output_path, inputs, &run->predictor));
    (void)remove(run->part_path);
    return PI2_OK;
}

pi2_status pi2_predictor_train(pi2_engine *engine, const pi2_predictor_texts *texts,
                               const pi2_predictor_training *training) {
    train_run run = { .engine = engine, .texts = texts, .training = training };
    if (!training->output_path) return pi2_fail(PI2_ERR_INVALID, "where should the predictor be written?");
    const pi2_status status = train(&run);
    for (uint32_t i = 0; run.owned && i < run.predictor.layer_count; i++) free(run.owned[i]);
    free(run.owned);
    free(run.part_memory);
    pi2_session_free(run.session);
    pi2_gguf_close(run.gguf);
    pi2_predictor_free(&run.predictor);
    return status;
}
