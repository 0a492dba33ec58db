/* engine_plan.c: from a model and its memory plan to what decides about its speed, and to a plan. */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/team.h"
#include "device/prediction.h"
#include "engine/engine_internal.h"
#include "powerinfer2/plan.h"

enum { DEFAULT_PROMPT = 512, STAGES_OF_ATTENTION = 3, STAGES_OF_A_RUN = 2 };

struct pi2_plan {
    pi2_engine *engine;
    pi2_prediction prediction;
    pi2_advice advice[PI2_ADVICE_MOST];
    size_t advice_count;
    pi2_plan_line lines[PI2_PLAN_LINES_MOST];
    size_t line_count;
};

const char *pi2_bottleneck_name(pi2_bottleneck bottleneck) {
    static const char *const names[] = {"disk", "memory bandwidth", "compute"};
    return (unsigned)bottleneck <= PI2_LIMIT_COMPUTE ? names[bottleneck] : "unknown";
}

/* ---- the workload ---- */

static void add_piece(pi2_workload *workload, const pi2_extent_layout *layout, const pi2_piece *piece, bool is_head) {
    const char *type = layout->tensors[piece->tensor].format->name;
    uint32_t at = 0;
    while (at < workload->type_count && strcmp(workload->types[at].type, type) != 0) at++;
    if (at == PI2_WORKLOAD_TYPES) return; /* there are fewer formats than this */
    if (at == workload->type_count) workload->types[workload->type_count++].type = type;
    pi2_workload_weights *part = &workload->types[at];
    const uint64_t bytes = pi2_piece_bytes(layout, piece);
    const uint64_t weights = (uint64_t)piece->row_count * piece->column_count;
    part->bytes += bytes;
    part->weights += weights;
    part->head_bytes += is_head ? bytes : 0;
    part->head_weights += is_head ? weights : 0;
}

/* Weights by type, and what streams. */
static void add_extents(const pi2_engine *engine, pi2_workload *workload) {
    const pi2_extent_layout *layout = engine->model->layout;
    uint64_t streamed = 0;
    for (uint32_t i = 0; i < engine->pass_end; i++) {
        const uint32_t e = engine->sequence[i];
        const pi2_extent *extent = &layout->extents[e];
        const bool is_head = layout->groups[extent->group].kind == PI2_GROUP_HEAD;
        for (uint32_t p = 0; p < extent->piece_count; p++) {
            add_piece(workload, layout, &layout->pieces[extent->first_piece + p], is_head);
        }
        if (engine->resident[e]) continue;
        workload->read_bytes += pi2_extent_read_bytes(extent);
        streamed++;
    }
    workload->read_block = streamed ? (uint32_t)(workload->read_bytes / streamed) : PI2_EXTENT_TARGET_BYTES;
}

static const char *method_of(const pi2_engine *engine, const pi2_device_profile *profile) {
    const char *method = engine->reader ? pi2_reader_method(engine->reader) : engine->options.read_method;
    if (strcmp(method, "pread") == 0) return "pread";
    const bool has_ring = pi2_profile_value(profile, PI2_MEASURED_DISK, "io_uring", 1, 32, NULL) > 0;
    return has_ring ? "io_uring" : "pread";
}

static pi2_status make_workload(const pi2_engine *engine, const pi2_device_profile *profile, pi2_workload *workload) {
    const pi2_model_shape *shape = &engine->model->shape;
    const pi2_memory_plan *plan = &engine->plan;
    if (shape->expert_count) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s is a mixture of experts: its speed is not predicted yet",
                        engine->model_path);
    }
    memset(workload, 0, sizeof *workload);
    add_extents(engine, workload);
    workload->resident_bytes = engine->report.resident_bytes;
    workload->read_method = method_of(engine, profile);
    workload->layer_count = shape->layer_count;
    workload->width = shape->embedding_length;
    workload->feed_forward = shape->feed_forward_length;
    workload->query_floats = shape->head_count * shape->key_length;
    workload->key_value_floats = shape->head_count_kv * (shape->key_length + shape->value_length);
    workload->cache_bytes_per_position = plan->cache_bytes / plan->shape.context_tokens;
    workload->batch_tokens = plan->shape.batch_tokens;
    workload->threads = plan->shape.thread_count;
    workload->cores = pi2_allowed_cpus();
    workload->embedding_streams = !plan->everything_resident;
    const uint64_t run_bytes = plan->ring_bytes / 2;
    const uint64_t runs = shape->layer_count + (run_bytes ? workload->read_bytes / run_bytes : 0);
    workload->stages_per_pass = (uint32_t)(2 + STAGES_OF_ATTENTION * (uint64_t)shape->layer_count +
                                           STAGES_OF_A_RUN * runs);
    return PI2_OK;
}

pi2_status pi2_engine_predict(const pi2_engine *engine, const pi2_device_profile *profile, uint32_t prompt_tokens,
                              uint32_t position, pi2_prediction *prediction_out) {
    pi2_workload workload;
    PI2_TRY(make_workload(engine, profile, &workload));
    pi2_predict(&workload, profile, &pi2_as_it_is, prompt_tokens, position, prediction_out);
    return PI2_OK;
}

/* ---- the plan ---- */

static void add_line(pi2_plan *plan, const char *what, uint64_t bytes, uint64_t resident, const char *why) {
    if (bytes == 0 || plan->line_count == PI2_PLAN_LINES_MOST) return;
    pi2_plan_line *line = &plan->lines[plan->line_count++];
    *line = (pi2_plan_line){.bytes = bytes, .resident_bytes = resident, .why = why};
    const size_t length = strlen(what) < sizeof line->what - 1 ? strlen(what) : sizeof line->what - 1;
    memcpy(line->what, what, length);
}

static void add_weights(pi2_plan *plan) {
    static const char *const names[] = {"attention weights", "feed-forward weights", "expert weights", "output head",
                                        "embedding"};
    const pi2_engine *engine = plan->engine;
    const pi2_extent_layout *layout = engine->model->layout;
    const bool all = engine->plan.everything_resident;
    for (int kind = PI2_GROUP_ATTENTION; kind <= PI2_GROUP_EMBEDDING; kind++) {
        uint64_t bytes = 0, resident = 0;
        for (uint32_t e = 0; e < layout->extent_count; e++) {
            if ((int)layout->groups[layout->extents[e].group].kind != kind) continue;
            bytes += layout->extents[e].bytes;
            resident += engine->resident[e] ? layout->extents[e].bytes : 0;
        }
        add_line(plan, names[kind], bytes, resident,
                 all ? "the budget holds all weights"
                 : kind == PI2_GROUP_EMBEDDING ? "a token needs one row, which is read when it is needed"
                                               : "each token uses all: an even share stays, the rest streams");
    }
}

static void add_lines(pi2_plan *plan) {
    const pi2_memory_plan *memory = &plan->engine->plan;
    add_weights(plan);
    add_line(plan, "key-value cache", memory->cache_bytes, memory->cache_bytes, "grows with the context, stays");
    add_line(plan, "scratch", memory->scratch_bytes, memory->scratch_bytes, "activations of one batch");
    add_line(plan, "stream buffer", memory->ring_bytes + memory->staging_bytes,
             memory->ring_bytes + memory->staging_bytes, "reads ahead of computing");
    add_line(plan, "sampler", memory->sampler_bytes, memory->sampler_bytes, "candidates of a token");
    add_line(plan, "program, tokenizer, tables", memory->process_bytes, memory->process_bytes,
             "norms, vocabulary, code, stacks");
    if (!memory->everything_resident) {
        add_line(plan, "margin", memory->margin_bytes, 0, "left free, so that the budget holds");
    }
}

pi2_status pi2_plan_make(const pi2_engine_options *options, const pi2_device_profile *profile, uint32_t prompt_tokens,
                         pi2_plan **plan_out) {
    *plan_out = NULL;
    pi2_plan *plan = calloc(1, sizeof *plan);
    if (!plan) return pi2_fail(PI2_ERR_MEMORY, "no memory for the plan");
    pi2_workload workload;
    pi2_status status = pi2_engine_open_for(options, true, &plan->engine);
    if (status == PI2_OK && profile) status = make_workload(plan->engine, profile, &workload);
    if (status != PI2_OK) {
        pi2_plan_free(plan);
        return status;
    }
    if (prompt_tokens == 0) prompt_tokens = DEFAULT_PROMPT;
    if (prompt_tokens > plan->engine->plan.shape.context_tokens) {
        prompt_tokens = plan->engine->plan.shape.context_tokens;
    }
    if (profile) {
        pi2_predict(&workload, profile, &pi2_as_it_is, prompt_tokens, prompt_tokens, &plan->prediction);
        plan->advice_count = pi2_predict_advice(&workload, profile, prompt_tokens, prompt_tokens, plan->advice);
    }
    add_lines(plan);
    *plan_out = plan;
    return PI2_OK;
}

void pi2_plan_free(pi2_plan *plan) {
    if (!plan) return;
    pi2_engine_close(plan->engine);
    free(plan);
}

const pi2_engine_report *pi2_plan_report(const pi2_plan *plan) { return &plan->engine->report; }
const pi2_prediction *pi2_plan_prediction(const pi2_plan *plan) { return &plan->prediction; }
const pi2_advice *pi2_plan_advice(const pi2_plan *plan, size_t *count_out) {
    *count_out = plan->advice_count;
    return plan->advice;
}
const pi2_plan_line *pi2_plan_lines(const pi2_plan *plan, size_t *count_out) {
    *count_out = plan->line_count;
    return plan->lines;
}
