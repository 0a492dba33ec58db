/*
 * drafter_eagle3.c: a layer of its own file that was trained to guess for a model (EAGLE-3): it reads what some
 * layers of the model read.
 */
#include "engine/draft_chain.h"
#include "engine/draft_pairs.h"
#include "engine/run_draft.h"

static size_t bytes(const struct pi2_planned_run *run, uint32_t context_tokens) {
    (void)context_tokens;
    return run && run->draft && run->draft->kind == PI2_DRAFT_FEATURES ? pi2_draft_pairs_bytes(run) : 0;
}

const pi2_drafter_kind pi2_drafter_eagle3 = {
    .name = "eagle3", .costs = true, .bytes = bytes, .begin = pi2_draft_pairs_begin, .end = pi2_draft_pairs_end,
    .saw = pi2_draft_pairs_saw, .propose = pi2_draft_pairs_propose,
    .judge = pi2_draft_chain_judge, .follow = pi2_draft_chain_follow,
};
