/* engine_draft.c: what the guesses of an engine's sessions are made of: a table, the engine of another model. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fail.h"
#include "engine/engine_internal.h"
#include "engine/run_draft.h"
#include "engine/shortcut_file.h"

/* Sessions of both are as long; with as many threads one team computes for both. */
static void fit(pi2_engine *draft, const pi2_engine *engine) {
    const pi2_forward_shape *shape = &engine->run.plan.memory.shape;
    draft->run.options.context_tokens = shape->context_tokens;
    draft->run.options.sequences = shape->sequences;
    draft->run.plan.thread_count = draft->run.plan.threads_wanted = pi2_run_processor_threads(&engine->run);
}

pi2_status pi2_engine_open_draft(pi2_engine *engine) {
    pi2_run_draft *planned = engine->run.draft;
    if (!planned || planned->kind == PI2_DRAFT_SHORTCUT) return PI2_OK;
    pi2_engine *draft = calloc(1, sizeof *draft);
    if (!draft) return pi2_fail(PI2_ERR_MEMORY, "no memory for a draft model");
    engine->draft = draft;
    draft->run = planned->run;
    memset(&planned->run, 0, sizeof planned->run);
    fit(draft, engine);
    PI2_TRY(pi2_planned_run_settle(&draft->run, true, NULL, &planned->gguf));
    PI2_TRY(pi2_engine_start(draft, planned->gguf));
    pi2_gguf_close(planned->gguf);
    planned->gguf = NULL;
    return PI2_OK;
}

pi2_status pi2_engine_load_shortcut(pi2_engine *engine) {
    pi2_run_draft *planned = engine->run.draft;
    if (!planned || planned->kind != PI2_DRAFT_SHORTCUT) return PI2_OK;
    const pi2_status status = pi2_shortcut_load(planned->gguf, &engine->shortcut);
    pi2_gguf_close(planned->gguf);
    planned->gguf = NULL;
    if (status == PI2_OK || status == PI2_ERR_MEMORY || !planned->is_found) return status;
    pi2_planned_run_log(&engine->run, "%s is left out: %s", planned->path, pi2_error_text());
    return PI2_OK;
}

pi2_status pi2_engine_load_next_table(pi2_engine *engine) {
    const pi2_planned_run *run = &engine->run;
    char path[PI2_NEXT_TABLE_PATH_BYTES];
    if (run->plan.memory.draft_tokens == 0 || run->is_next || !pi2_next_table_path(run, path)) return PI2_OK;
    if (access(path, F_OK) != 0) return PI2_OK;
    const pi2_status status = pi2_next_table_read(path, run->source.header_hash,
                                                  run->source.model->shape.vocabulary_size, &engine->next_table);
    if (status == PI2_OK || status == PI2_ERR_MEMORY) return status;
    pi2_planned_run_log(run, "%s", pi2_error_text());
    return PI2_OK;
}
