/* engine_load.c: resident weights from a plain GGUF. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fail.h"
#include "clusters/extent_build.h"
#include "engine/engine_internal.h"

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
    const pi2_callbacks *callbacks = &run->engine->run.options.callbacks;
    if (member != 0) return;
    if (callbacks->cancelled && callbacks->cancelled(callbacks->user)) {
        fail_load(run, pi2_fail(PI2_ERR_INTERRUPTED, "interrupted while loading %s",
                                run->engine->run.source.model_path));
    }
    const uint64_t now = pi2_clock_ns();
    if (!callbacks->progress || now < run->next_progress_ns) return;
    run->next_progress_ns = now + 100000000;
    callbacks->progress(callbacks->user, "loading", atomic_load(&run->done_bytes),
                        run->engine->run.source.model->layout->weight_bytes);
}

static void load_groups(void *argument, unsigned member, unsigned member_count) {
    (void)member_count;
    load_run *run = argument;
    const pi2_extent_layout *layout = run->engine->run.source.model->layout;
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
    const pi2_extent_layout *layout = engine->run.source.model->layout;
    load_run run = { .engine = engine, .gguf = gguf };
    run.extent_memory = calloc(layout->extent_count ? layout->extent_count : 1, sizeof *run.extent_memory);
    if (!run.extent_memory) return pi2_fail(PI2_ERR_MEMORY, "no memory to load %s", engine->run.source.model_path);
    uint8_t *at = engine->memory.weights.pages;
    for (uint32_t i = 0; i < engine->run.plan.sequence_count; i++) {
        run.extent_memory[engine->run.plan.sequence[i]] = at;
        at += pi2_extent_read_bytes(&layout->extents[engine->run.plan.sequence[i]]);
    }
    at = engine->memory.experts.pages;
    for (uint32_t i = 0; i < engine->run.plan.expert_extent_count; i++) {
        const uint32_t e = engine->run.plan.sequence[engine->run.plan.sequence_count + i];
        run.extent_memory[e] = at;
        at += pi2_extent_read_bytes(&layout->extents[e]);
    }
    pi2_team_run(engine->team, load_groups, &run);
    free(run.extent_memory);
    const pi2_status status = (pi2_status)atomic_load(&run.failed);
    return status == PI2_OK ? PI2_OK : pi2_fail(status, "%s", run.failure_text);
}
