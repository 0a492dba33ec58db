/* engine_load.c: resident weights from a plain GGUF, and the way to a cluster file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fail.h"
#include "base/memory_limit.h"
#include "base/parse_size.h"
#include "engine/engine_internal.h"
#include "file_formats/cluster_file.h"
#include "clusters/extent_build.h"
#include "clusters/prepare.h"

enum { LOAD_SCRATCH_BYTES = 2 << 20 };

/* Groups are handed out to the threads one by one; each has a builder of its own. */
typedef struct load_run {
    pi2_engine *engine;
    const pi2_gguf *gguf;
    void **extent_memory;      /* [extent_count] */
    _Atomic uint32_t next_group;
    _Atomic uint64_t done_bytes;
    _Atomic int failed;
    char failure_text[512];
    uint64_t next_progress_ns;
} load_run;

static void fail_load(load_run *run, pi2_status status) {
    int none = PI2_OK;
    if (!atomic_compare_exchange_strong(&run->failed, &none, (int)status)) return;
    (void)snprintf(run->failure_text, sizeof run->failure_text, "%s", pi2_error_text());
}

static void tell_progress(load_run *run, unsigned member) {
    const pi2_callbacks *callbacks = &run->engine->options.callbacks;
    if (member != 0) return;
    if (callbacks->cancelled && callbacks->cancelled(callbacks->user)) {
        fail_load(run, pi2_fail(PI2_ERR_INTERRUPTED, "interrupted while loading %s", run->engine->source.model_path));
    }
    const uint64_t now = pi2_clock_ns();
    if (!callbacks->progress || now < run->next_progress_ns) return;
    run->next_progress_ns = now + 100000000;
    callbacks->progress(callbacks->user, "loading", atomic_load(&run->done_bytes),
                        run->engine->source.model->layout->weight_bytes);
}

static void load_groups(void *argument, unsigned member, unsigned member_count) {
    (void)member_count;
    load_run *run = argument;
    const pi2_extent_layout *layout = run->engine->source.model->layout;
    pi2_extent_builder *builder = NULL;
    pi2_status status = pi2_extent_builder_open(run->gguf, layout, LOAD_SCRATCH_BYTES, &builder);
    while (status == PI2_OK && atomic_load(&run->failed) == PI2_OK) {
        const uint32_t g = atomic_fetch_add(&run->next_group, 1);
        if (g >= layout->group_count) break;
        const pi2_group *group = &layout->groups[g];
        status = pi2_extent_builder_group(builder, g, run->extent_memory + group->first_extent);
        uint64_t bytes = 0;
        for (uint32_t e = 0; e < group->extent_count; e++) bytes += layout->extents[group->first_extent + e].bytes;
        atomic_fetch_add(&run->done_bytes, bytes);
        tell_progress(run, member);
    }
    if (status != PI2_OK) fail_load(run, status);
    pi2_extent_builder_close(builder);
}

pi2_status pi2_engine_load_gguf(pi2_engine *engine, const pi2_gguf *gguf) {
    const pi2_extent_layout *layout = engine->source.model->layout;
    load_run run = { .engine = engine, .gguf = gguf };
    run.extent_memory = calloc(layout->extent_count ? layout->extent_count : 1, sizeof *run.extent_memory);
    if (!run.extent_memory) return pi2_fail(PI2_ERR_MEMORY, "no memory to load %s", engine->source.model_path);
    uint8_t *at = engine->memory.weights.pages;
    for (uint32_t i = 0; i < engine->plan.sequence_count; i++) {
        run.extent_memory[engine->plan.sequence[i]] = at;
        at += pi2_extent_read_bytes(&layout->extents[engine->plan.sequence[i]]);
    }
    at = engine->memory.experts.pages;
    for (uint32_t i = 0; i < engine->plan.expert_extent_count; i++) {
        const uint32_t e = engine->plan.sequence[engine->plan.sequence_count + i];
        run.extent_memory[e] = at;
        at += pi2_extent_read_bytes(&layout->extents[e]);
    }
    pi2_team_run(engine->team, load_groups, &run);
    free(run.extent_memory);
    const pi2_status status = (pi2_status)atomic_load(&run.failed);
    return status == PI2_OK ? PI2_OK : pi2_fail(status, "%s", run.failure_text);
}

/* ---- the cluster file ---- */

static pi2_status prepare_at(const pi2_gguf *gguf, const char *path, const pi2_prepare_settings *settings) {
    const pi2_architecture *architecture;
    pi2_tensor_directory directory = { 0 };
    pi2_model_requests requests = { 0 };
    pi2_model_shape shape;
    PI2_TRY(pi2_architecture_find(gguf, &architecture));
    PI2_TRY(pi2_tensor_directory_open(gguf, NULL, &directory));
    pi2_status status = pi2_architecture_shape(architecture, &directory, &shape);
    if (status == PI2_OK) status = architecture->list_tensors(&directory, &shape, &requests);
    if (status == PI2_OK) status = pi2_prepare(gguf, requests.groups, requests.group_count, path, settings);
    pi2_model_requests_free(&requests);
    pi2_tensor_directory_close(&directory);
    return status;
}

/* What preparing may use: what the budget leaves beside what the process holds now. */
static uint64_t prepare_budget(const pi2_engine *engine) {
    uint64_t peak = 0, current = 0;
    (void)pi2_process_memory(&peak, &current);
    const uint64_t kept = current + 2000000;
    return engine->report.budget_bytes > kept ? engine->report.budget_bytes - kept : 1;
}

static pi2_status prepare_beside(pi2_engine *engine, const pi2_gguf *gguf, char **path) {
    if (engine->options.cluster_path) {
        *path = malloc(strlen(engine->options.cluster_path) + 1);
        if (!*path) return pi2_fail(PI2_ERR_MEMORY, "no memory for a path");
        memcpy(*path, engine->options.cluster_path, strlen(engine->options.cluster_path) + 1);
    } else {
        PI2_TRY(pi2_cluster_file_default_path(gguf, path));
    }
    char size[PI2_SIZE_TEXT_BYTES];
    pi2_engine_log(engine, "the model does not fit in the budget: preparing %s (about %s of disk), once", *path,
                   pi2_format_size(engine->source.model->layout->weight_bytes, size));
    const bool by_neuron = pi2_model_shape_fires(&engine->source.model->shape) && !pi2_engine_is_dense(engine);
    const pi2_prepare_settings settings = { .memory_bytes = prepare_budget(engine),
                                            .layout = by_neuron ? PI2_LAYOUT_NEURON : PI2_LAYOUT_DENSE,
                                            .callbacks = engine->options.callbacks };
    return prepare_at(gguf, *path, &settings);
}

pi2_status pi2_engine_cluster_file(pi2_engine *engine, const pi2_gguf *gguf, bool may_prepare, bool *found_out,
                                   char *path_out, size_t capacity, uint64_t *header_hash_out) {
    *found_out = false;
    char *path = NULL;
    char note[512] = "";
    PI2_TRY(pi2_cluster_file_find(gguf, engine->options.cluster_path, NULL, &engine->options.callbacks, &path,
                                  note, sizeof note, header_hash_out));
    if (note[0]) pi2_engine_log(engine, "%s", note);
    pi2_status status = PI2_OK;
    if (!path && may_prepare) {
        status = prepare_beside(engine, gguf, &path);
        /* Another run may have made one of other weights there meanwhile. */
        if (status == PI2_OK) {
            status = pi2_cluster_file_matches(path, gguf, NULL, &engine->options.callbacks, header_hash_out);
        }
    }
    if (status == PI2_OK && path) {
        if (strlen(path) >= capacity) {
            status = pi2_fail(PI2_ERR_INVALID, "the cluster file's path is longer than %zu bytes", capacity - 1);
        } else {
            memcpy(path_out, path, strlen(path) + 1);
            *found_out = true;
        }
    }
    free(path);
    return status;
}
