/* engine_draft.c: the engine of a model that guesses for another one's engine. */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/engine_internal.h"
#include "engine/run_draft.h"

/* Sessions of both are as long; with as many threads one team computes for both. */
static void fit(pi2_engine *draft, const pi2_engine *engine) {
    const pi2_forward_shape *shape = &engine->run.plan.memory.shape;
    draft->run.options.context_tokens = shape->context_tokens;
    draft->run.options.sequences = shape->sequences;
    draft->run.plan.thread_count = draft->run.plan.threads_wanted = pi2_run_processor_threads(&engine->run);
}

pi2_status pi2_engine_open_draft(pi2_engine *engine) {
    pi2_run_draft *planned = engine->run.draft;
    if (!planned) return PI2_OK;
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
