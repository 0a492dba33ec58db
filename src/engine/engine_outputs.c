/* engine_outputs.c: the files that a run writes beside its answer, and what they may not replace. */
#include <stdlib.h>

#include "base/fail.h"
#include "base/output_file.h"
#include "engine/engine_internal.h"
#include "engine/run_draft.h"
#include "file_formats/gguf.h"

/* Whichever of two files with one name is ended last would take the place of the other. */
pi2_status pi2_engine_check_outputs(const pi2_engine_options *options) {
    const struct { const char *what, *path; } files[] = {
        { "timeline (--trace)", options->trace_path }, { "table (--stats)", options->stats_path },
        { "trace of uses (--record-trace)", options->record_trace },
        { "cluster file (--cluster-file)", options->cluster_path } };
    for (size_t i = 0; i < 4; i++) {
        for (size_t j = 0; j < i; j++) {
            if (!files[i].path || !files[j].path || !pi2_output_is_same(files[j].path, files[i].path)) continue;
            return pi2_fail(PI2_ERR_INVALID, "the %s and the %s have one file, %s: name another for one of them",
                            files[j].what, files[i].what, files[i].path);
        }
    }
    return PI2_OK;
}

static size_t count_paths(const char *const *paths) {
    size_t count = 0;
    while (paths && paths[count]) count++;
    return count;
}

pi2_status pi2_engine_open_outputs(pi2_engine *engine, const pi2_gguf *gguf) {
    pi2_engine_options options = engine->run.options;
    const pi2_gguf *draft = engine->run.draft ? engine->run.draft->gguf : NULL;
    const size_t parts = pi2_gguf_file_count(gguf), others = count_paths(options.input_paths);
    const size_t draft_parts = draft ? pi2_gguf_file_count(draft) : 0;
    const char **inputs = calloc(parts + others + draft_parts + 2, sizeof *inputs);
    if (!inputs) return pi2_fail(PI2_ERR_MEMORY, "no memory for a list of files");
    size_t count = 0;
    for (size_t i = 0; i < parts; i++) inputs[count++] = pi2_gguf_file_path(gguf, i);
    for (size_t i = 0; i < draft_parts; i++) inputs[count++] = pi2_gguf_file_path(draft, i);
    for (size_t i = 0; i < others; i++) inputs[count++] = options.input_paths[i];
    if (options.routing_trace) inputs[count++] = options.routing_trace;
    options.input_paths = inputs;
    pi2_status status = pi2_run_trace_open(&options, engine->run.report.budget_bytes, &engine->traces.run);
    if (status == PI2_OK) status = pi2_engine_open_use_trace(engine, inputs);
    free(inputs);
    return status;
}
