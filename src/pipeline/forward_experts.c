/*
 * forward_experts.c: a layer of experts. The router's tail picks each token's experts; one thread
 * orders the visits by expert and demands the experts; then the threads share units of work: the
 * clusters of every expert (Gate and Up), and Down's rows of an expert whose clusters are all done.
 *
 * A thread takes whatever can be computed now: Down before clusters, so that slots become free, and
 * clusters of whichever expert's extents are in memory. It waits only when there is none. Results
 * are kept apart, one row for each visit of a token to an expert, and summed by ascending expert:
 * the text does not depend on the order in which the disk answers.
 *
 * Where neurons are computed one by one (forward_neurons.c) only the experts' Gates are demanded, and
 * units are clusters of those.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "pipeline/forward_internal.h"

enum {
    ROUTER_TOKENS = 16, GATHER_ROWS = 16, DOWN_UNIT_BYTES = 192 * 1024, UNITS_PER_THREAD = 4,
    LOOK_AGAIN_NS = 50000
};

static const pi2_layer_weights *layer_of(const pi2_forward_walk *walk) {
    return &walk->forward->model->layers[walk->layer];
}

pi2_expert_cache *pi2_forward_experts_of(const pi2_forward_walk *walk) {
    const pi2_forward_options *options = &walk->forward->options;
    return pi2_forward_takes_neurons(walk) ? options->gates : options->experts;
}

/* ---- the router ---- */

static uint32_t router_tiles(const pi2_forward *forward) {
    return (pi2_layer_ffns(&forward->model->shape) + PI2_TILE_ROWS - 1) / PI2_TILE_ROWS;
}

static void router_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const size_t width = forward->model->shape.embedding_length, stride = buffers->experts.expert_stride;
    const uint32_t tiles = router_tiles(forward), tile = chunk % tiles, token = chunk / tiles * ROUTER_TOKENS;
    const uint32_t blocks = (forward->token_count + ROUTER_TOKENS - 1) / ROUTER_TOKENS;
    if (chunk >= blocks * tiles) {
        pi2_forward_ahead_chunk(walk, chunk - blocks * tiles);
        return;
    }
    const uint32_t left = forward->token_count - token;
    const pi2_activations x = {
        .kind = PI2_ACTIVATION_F32, .token_count = forward->token_count, .columns = (uint32_t)width,
        .float_stride = buffers->width_stride,
        .floats = forward->model->shape.router_sees_layer_input ? buffers->x
                  : forward->model->shape.experts_have_norms ? buffers->experts.router_input : buffers->normed };
    const float *weights = layer_of(walk)->tables[PI2_TABLE_ROUTER] + (size_t)tile * PI2_TILE_ROWS * width;
    forward->cpu.matmul[PI2_F32]->run(buffers->experts.probabilities + token * stride + tile * PI2_TILE_ROWS, stride,
                                       weights, 1, width, 0, &x, token, left < ROUTER_TOKENS ? left : ROUTER_TOKENS,
                                       true);
}

/* The best experts; of equal ones the first. Not a number is never better, so there are always enough. */
static void pick_best(const float *scores, uint32_t score_count, uint32_t *chosen, uint32_t count) {
    uint32_t found = 0;
    for (uint32_t e = 0; e < score_count; e++) { /* chosen: the best so far, best first */
        if (found == count && !(scores[e] > scores[chosen[count - 1]])) continue;
        uint32_t at = found < count ? found++ : count - 1;
        for (; at > 0 && scores[e] > scores[chosen[at - 1]]; at--) chosen[at] = chosen[at - 1];
        chosen[at] = e;
    }
    for (uint32_t n = 1; n < count; n++) { /* ascending: the order of the sum */
        const uint32_t expert = chosen[n];
        uint32_t at = n;
        for (; at > 0 && chosen[at - 1] > expert; at--) chosen[at] = chosen[at - 1];
        chosen[at] = expert;
    }
}

/* Probabilities in place of scores. */
static void weigh_experts(const pi2_forward *forward, float *p) {
    const pi2_model_shape *shape = &forward->model->shape;
    if (shape->gating == PI2_GATING_SOFTMAX) {
        forward->cpu.vector->softmax(p, pi2_layer_ffns(shape));
    } else {
        for (uint32_t e = 0; e < pi2_layer_ffns(shape); e++) p[e] = 1.0f / (1.0f + pi2_expf(-p[e]));
    }
}

/* Experts of groups that are not among the best are worth less than any other. */
static void leave_groups_out(const pi2_model_shape *shape, float *worth) {
    const uint32_t groups = shape->expert_groups, each = pi2_layer_ffns(shape) / groups;
    float sums[PI2_MOST_EXPERT_GROUPS] = { 0.0f };
    uint32_t best[PI2_MOST_EXPERT_GROUPS] = { 0 }, two[2] = { 0 };
    for (uint32_t g = 0; g < groups; g++) {
        pick_best(worth + (size_t)g * each, each, two, 2);
        sums[g] = worth[(size_t)g * each + two[0]] + worth[(size_t)g * each + two[1]];
    }
    pick_best(sums, groups, best, shape->expert_groups_used);
    for (uint32_t g = 0, at = 0; g < groups; g++) {
        if (at < shape->expert_groups_used && best[at] == g) at++;
        else for (uint32_t e = 0; e < each; e++) worth[(size_t)g * each + e] = -INFINITY;
    }
}

static void pick_token(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    const pi2_expert_buffers *experts = &forward->buffers.experts;
    float *p = experts->probabilities + token * experts->expert_stride; /* scores, as yet */
    uint32_t *chosen = experts->chosen + (size_t)token * pi2_token_ffns(shape);
    const float *bias = layer_of(walk)->tables[PI2_TABLE_ROUTER_BIAS];
    const float *score_bias = layer_of(walk)->tables[PI2_TABLE_SCORE_BIAS];
    if (score_bias) forward->cpu.vector->add(p, score_bias, pi2_layer_ffns(shape));
    /* Scores, since probabilities of 1 and of 0 are alike where scores are not; but a bias goes to probabilities. */
    const bool has_groups = shape->expert_groups > 1;
    if (!bias && !has_groups) pick_best(p, pi2_layer_ffns(shape), chosen, pi2_token_ffns(shape));
    weigh_experts(forward, p);
    if (bias || has_groups) {
        float *worth = experts->worth + token * experts->expert_stride;
        for (uint32_t e = 0; e < pi2_layer_ffns(shape); e++) worth[e] = bias ? p[e] + bias[e] : p[e];
        if (has_groups) leave_groups_out(shape, worth);
        pick_best(worth, pi2_layer_ffns(shape), chosen, pi2_token_ffns(shape));
    }
    float *weights = experts->weights + (size_t)token * pi2_token_ffns(shape);
    float sum = 0.0f;
    for (uint32_t i = 0; i < pi2_token_ffns(shape); i++) sum += p[chosen[i]];
    if (sum < 0x1p-14f) sum = 0x1p-14f;
    if (shape->keeps_probabilities) sum = 1.0f;
    const float scale = shape->expert_scale != 0.0f ? shape->expert_scale : 1.0f;
    const float *scales = layer_of(walk)->tables[PI2_TABLE_EXPERT_SCALE];
    for (uint32_t i = 0; i < pi2_token_ffns(shape); i++) {
        weights[i] = p[chosen[i]] / sum * scale;
        if (scales) weights[i] *= scales[chosen[i]];
    }
}

/* ---- the plan ---- */

/* Orders the visits by expert, then token, and makes a job of every expert that is visited. */
static void order_visits(pi2_forward_walk *walk) {
    pi2_forward *forward = walk->forward;
    const pi2_model_shape *shape = &forward->model->shape;
    pi2_expert_buffers *experts = &forward->buffers.experts;
    pi2_expert_plan *plan = &forward->plan;
    const uint32_t visits = forward->token_count * pi2_token_ffns(shape);
    uint32_t *rows = experts->expert_rows;
    memset(rows, 0, (pi2_layer_ffns(shape) + (size_t)1) * sizeof *rows);
    for (uint32_t v = 0; v < visits; v++) rows[experts->chosen[v]]++;
    uint32_t first = 0;
    plan->job_count = plan->first_open = 0;
    for (uint32_t e = 0; e < pi2_layer_ffns(shape); e++) {
        const uint32_t count = rows[e];
        rows[e] = first; /* from now on: the expert's next row */
        if (count > 0) {
            experts->keys[plan->job_count] = layer_of(walk)->first_key + e;
            experts->jobs[plan->job_count++] = (pi2_expert_job){ .expert = e, .first_row = first, .row_count = count };
        }
        first += count;
    }
    for (uint32_t v = 0; v < visits; v++) {
        experts->row_of[v] = rows[experts->chosen[v]]++;
        experts->row_token[experts->row_of[v]] = v / pi2_token_ffns(shape);
    }
}

/* What the tokens of a batch did with each expert that they visit. */
static void weigh_uses(pi2_forward *forward) {
    pi2_expert_buffers *experts = &forward->buffers.experts;
    for (uint32_t j = 0; j < forward->plan.job_count; j++) {
        const pi2_expert_job *job = &experts->jobs[j];
        experts->uses[j] = (pi2_batch_use){ 0, job->row_count };
        for (uint32_t row = job->first_row; row < job->first_row + job->row_count; row++) {
            experts->uses[j].worth += pi2_batch_worth(forward->token_count - 1 - experts->row_token[row]);
        }
    }
}

static void plan_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    (void)chunk;
    pi2_forward_walk *walk = argument;
    pi2_forward *forward = walk->forward;
    pi2_expert_plan *plan = &forward->plan;
    const pi2_layer_weights *layer = layer_of(walk);
    if (pi2_forward_failed(forward)) return;
    order_visits(walk);
    const pi2_layout_tensor *down = layer->down.tensor;
    const uint32_t tiles = (uint32_t)((down->matrix_rows + PI2_TILE_ROWS - 1) / PI2_TILE_ROWS);
    const size_t tile_bytes = pi2_tile_bytes(down->format, down->columns);
    uint32_t step = (uint32_t)(DOWN_UNIT_BYTES / tile_bytes) / 4 * 4;
    const uint32_t wanted = forward->options.shape.thread_count * UNITS_PER_THREAD;
    const uint32_t fair = (uint32_t)((uint64_t)tiles * plan->job_count / wanted);
    if (step > fair) step = fair;
    plan->down_tiles = step < 4 ? 4 : step;
    plan->down_chunks = pi2_forward_takes_neurons(walk) ? 0 : (tiles + plan->down_tiles - 1) / plan->down_tiles;
    plan->unit_counts[walk->layer] = plan->job_count * (layer->cluster_count + plan->down_chunks);
    plan->busy = 0;
    if (pi2_forward_takes_neurons(walk) && pi2_forward_predicts(forward)) { /* of experts nothing else is wanted */
        plan->unit_counts[walk->layer] = plan->job_count;
        return;
    }
    memset(forward->buffers.experts.taken, 0, (size_t)plan->job_count * forward->buffers.experts.cluster_most);
    const bool is_batch = forward->token_count >= PI2_BATCH_LEAST;
    if (is_batch) weigh_uses(forward);
    pi2_expert_cache_demand(pi2_forward_experts_of(walk), forward->buffers.experts.keys,
                            is_batch ? forward->buffers.experts.uses : NULL, plan->job_count);
    pi2_forward_ahead_ask(walk);
}

void pi2_forward_norm_router(const pi2_forward *forward, const float *const *tables, const float *x, float *normed) {
    const uint32_t width = forward->model->shape.embedding_length;
    const float scale = 1.0f / sqrtf((float)width);
    forward->cpu.vector->rms_norm(normed, x, tables[PI2_TABLE_ROUTER_NORM], width, forward->model->shape.norm_epsilon);
    for (uint32_t i = 0; i < width; i++) normed[i] *= scale;
}

static void norm_router_token(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward_buffers *buffers = &walk->forward->buffers;
    const size_t at = token * buffers->width_stride;
    pi2_forward_norm_router(walk->forward, layer_of(walk)->tables, buffers->x + at,
                            buffers->experts.router_input + at);
}

void pi2_forward_router(pi2_forward_walk *walk) {
    const pi2_forward *forward = walk->forward;
    if (forward->model->shape.experts_have_norms) {
        walk->stage_name = "router norm";
        pi2_forward_token_stage(walk, norm_router_token);
    }
    const uint32_t blocks = (forward->token_count + ROUTER_TOKENS - 1) / ROUTER_TOKENS;
    walk->stage_name = "router";
    pi2_forward_stage(walk, blocks * router_tiles(forward) + pi2_forward_ahead_chunks(walk), router_chunk,
                      pick_token);
    walk->stage_name = "choose experts";
    pi2_forward_stage(walk, 1, plan_chunk, NULL);
}

/* ---- gathering ---- */

static void copy_row(const pi2_activation_set *to, uint32_t row, const pi2_activation_set *from, uint32_t token) {
    for (int kind = 0; kind < PI2_ACTIVATION_KINDS; kind++) {
        if (!(to->kinds & (1u << kind))) continue;
        const pi2_activations *a = &to->of[kind], *b = &from->of[kind];
        if (kind == PI2_ACTIVATION_F32) {
            memcpy((float *)a->floats + row * a->float_stride, b->floats + token * b->float_stride,
                   a->columns * sizeof(float));
            continue;
        }
        assert(a->value_stride == b->value_stride && a->block_stride == b->block_stride);
        memcpy((int8_t *)a->values + row * a->value_stride, b->values + token * b->value_stride, a->value_stride);
        memcpy((float *)a->scales + row * a->block_stride, b->scales + token * b->block_stride,
               a->block_stride * sizeof(float));
        memcpy((int16_t *)a->sums + row * a->sum_stride, b->sums + token * b->sum_stride,
               a->sum_stride * sizeof(int16_t));
    }
}

static void gather_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward *forward = ((pi2_forward_walk *)argument)->forward;
    const pi2_expert_buffers *experts = &forward->buffers.experts;
    const uint32_t visits = forward->token_count * pi2_token_ffns(&forward->model->shape);
    for (uint32_t row = chunk * GATHER_ROWS; row < (chunk + 1) * GATHER_ROWS && row < visits; row++) {
        copy_row(&experts->gathered_set, row, &forward->buffers.normed_set, experts->row_token[row]);
    }
}

/* ---- taking units ---- */

/* A cluster (down false) or some of Down's rows of a job. */
typedef struct expert_unit {
    pi2_expert_job *job;
    uint32_t index;
    bool down;
} expert_unit;

static bool extents_arrived(const pi2_forward_walk *walk, uint32_t key, uint32_t first, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        if (!pi2_expert_cache_arrived(pi2_forward_experts_of(walk), key, first + i)) return false;
    }
    return true;
}

static bool cluster_arrived(const pi2_forward_walk *walk, uint32_t key, const pi2_expert_cluster *cluster) {
    const bool gate_alone = pi2_forward_experts_of(walk) != walk->forward->options.experts;
    return extents_arrived(walk, key, cluster->first_gate, cluster->gate_count) &&
           (gate_alone || extents_arrived(walk, key, cluster->first_extent, cluster->extent_count));
}

static bool take_cluster(const pi2_forward_walk *walk, uint32_t job_index, expert_unit *unit) {
    const pi2_expert_buffers *experts = &walk->forward->buffers.experts;
    const pi2_layer_weights *layer = layer_of(walk);
    pi2_expert_job *job = &experts->jobs[job_index];
    uint8_t *taken = experts->taken + (size_t)job_index * experts->cluster_most;
    for (uint32_t c = job->first_untaken; c < layer->cluster_count; c++) {
        if (taken[c] || !cluster_arrived(walk, experts->keys[job_index], &layer->clusters[c])) continue;
        taken[c] = 1;
        job->clusters_taken++;
        while (job->first_untaken < layer->cluster_count && taken[job->first_untaken]) job->first_untaken++;
        *unit = (expert_unit){ job, c, false };
        return true;
    }
    return false;
}

/* Whether somebody has taken every unit of a job. By neuron it has none of Down. */
static bool is_taken(const pi2_expert_plan *plan, const pi2_expert_job *job, uint32_t clusters) {
    return job->clusters_taken == clusters && job->down_taken == plan->down_chunks;
}

/* Under the plan's lock. */
static bool find_unit(const pi2_forward_walk *walk, expert_unit *unit) {
    pi2_expert_plan *plan = &walk->forward->plan;
    pi2_expert_job *jobs = walk->forward->buffers.experts.jobs;
    const uint32_t clusters = layer_of(walk)->cluster_count;
    while (plan->first_open < plan->job_count && is_taken(plan, &jobs[plan->first_open], clusters)) plan->first_open++;
    for (uint32_t j = plan->first_open; j < plan->job_count; j++) {
        if (jobs[j].clusters_done < clusters || jobs[j].down_taken == plan->down_chunks) continue;
        *unit = (expert_unit){ &jobs[j], jobs[j].down_taken++, true };
        return true;
    }
    for (uint32_t j = plan->first_open; j < plan->job_count; j++) {
        if (jobs[j].clusters_taken < clusters && take_cluster(walk, j, unit)) return true;
    }
    return false;
}

/* A unit of work, waiting for one if need be: every caller gets exactly one. False: the pass failed. */
static bool take_unit(pi2_forward_walk *walk, expert_unit *unit) {
    pi2_forward *forward = walk->forward;
    pi2_expert_plan *plan = &forward->plan;
    pi2_expert_cache *cache = pi2_forward_experts_of(walk);
    while (!pi2_forward_failed(forward)) {
        const int generation = atomic_load(&plan->generation);
        int mark = 0;
        const pi2_status status = pi2_expert_cache_poll(cache, &mark);
        if (status != PI2_OK) {
            pi2_forward_fail(forward, status);
            return false;
        }
        (void)pthread_mutex_lock(&plan->lock);
        const bool found = find_unit(walk, unit);
        if (found) plan->busy++;
        const bool others_compute = plan->busy > 0;
        (void)pthread_mutex_unlock(&plan->lock);
        if (found) return true;
        if (pi2_expert_cache_populate(cache)) continue;
        /* Work appears when a read ends or when another thread finishes an expert's last cluster. */
        if (others_compute) {
            (void)pi2_wait_for_change(&forward->sleepers, &plan->generation, generation, forward->stages.spin_us,
                                      LOOK_AGAIN_NS);
        } else {
            pi2_expert_cache_wait(cache, mark);
        }
    }
    return false;
}

static void end_unit(pi2_forward_walk *walk, const expert_unit *unit) {
    pi2_forward *forward = walk->forward;
    pi2_expert_plan *plan = &forward->plan;
    pi2_expert_job *job = unit->job;
    (void)pthread_mutex_lock(&plan->lock);
    plan->busy--;
    const bool cluster_end = !unit->down && ++job->clusters_done == layer_of(walk)->cluster_count;
    const bool job_end = unit->down ? ++job->down_done == plan->down_chunks : cluster_end && plan->down_chunks == 0;
    (void)pthread_mutex_unlock(&plan->lock);
    if (job_end && !pi2_forward_failed(forward)) {
        pi2_expert_cache_release(pi2_forward_experts_of(walk),
                                 layer_of(walk)->first_key + job->expert);
    }
    if (!cluster_end && !job_end) return;
    atomic_fetch_add(&plan->generation, 1);
    pi2_wake_sleepers(&forward->sleepers, &plan->generation);
}

static void unit_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)chunk;
    pi2_forward_walk *walk = argument;
    expert_unit unit;
    if (!take_unit(walk, &unit)) return;
    const uint32_t job = (uint32_t)(unit.job - walk->forward->buffers.experts.jobs);
    if (unit.down) pi2_forward_expert_down(walk, unit.job, unit.index);
    else if (pi2_forward_takes_neurons(walk)) pi2_forward_expert_gate(walk, member, job, unit.index);
    else pi2_forward_expert_cluster(walk, member, unit.job, unit.index);
    end_unit(walk, &unit);
}

/* ---- the sum ---- */

void pi2_forward_sum_experts(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const pi2_forward_buffers *buffers = &forward->buffers;
    const pi2_expert_buffers *experts = &buffers->experts;
    const uint32_t used = pi2_token_ffns(&forward->model->shape);
    const size_t width = forward->model->shape.embedding_length;
    float *out = buffers->out + token * buffers->width_stride;
    const float *biases = layer_of(walk)->tables[PI2_TABLE_DOWN_BIAS]; /* of each expert's result */
    const float *post_norm = layer_of(walk)->tables[PI2_TABLE_POST_EXPERT_NORM];
    /* An FFN beside the experts has left its result in `out`; what experts read is used up by now. */
    float *sum = post_norm ? buffers->normed + token * buffers->width_stride : out;
    if (post_norm || !layer_of(walk)->shared_down.tensor) memset(sum, 0, width * sizeof *sum);
    for (uint32_t i = 0; i < used; i++) {
        const size_t visit = (size_t)token * used + i;
        forward->cpu.vector->add_scaled(sum, experts->y + experts->row_of[visit] * buffers->width_stride,
                                    experts->weights[visit], width);
        if (!biases) continue;
        forward->cpu.vector->add_scaled(sum, biases + experts->chosen[visit] * width, experts->weights[visit], width);
    }
    if (post_norm) {
        forward->cpu.vector->rms_norm(sum, sum, post_norm, width, forward->model->shape.norm_epsilon);
        forward->cpu.vector->add(out, sum, width);
    }
    pi2_forward_end_block(walk, token, out);
}

void pi2_forward_gather(pi2_forward_walk *walk) {
    const pi2_forward *forward = walk->forward;
    const uint32_t visits = forward->token_count * pi2_token_ffns(&forward->model->shape);
    if (forward->token_count == 1) return;
    walk->stage_name = "gather";
    pi2_forward_stage(walk, (visits + GATHER_ROWS - 1) / GATHER_ROWS, gather_chunk, NULL);
}

/* Units of every expert, and then the tail. */
static void compute_experts(pi2_forward_walk *walk, const char *name, pi2_token_tail *tail) {
    const pi2_forward *forward = walk->forward;
    pi2_forward_gather(walk);
    if (pi2_forward_masks(walk)) pi2_forward_predict(walk);
    /* Every thread reads the same number, a stale one if the pass failed before: then units are skipped. */
    walk->stage_name = name;
    pi2_forward_stage(walk, forward->plan.unit_counts[walk->layer], unit_chunk, tail);
}

void pi2_forward_experts(pi2_forward_walk *walk) { compute_experts(walk, "experts", pi2_forward_sum_experts); }

void pi2_forward_expert_gates(pi2_forward_walk *walk) { compute_experts(walk, "gate", NULL); }
