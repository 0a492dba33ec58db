/*
 * drafter_mtp.c: the layer that a model has for guessing (multi-token prediction): it reads what the model's head
 * reads.
 */
#include "engine/draft_chain.h"
#include "engine/draft_pairs.h"
#include "engine/run_draft.h"

static size_t bytes(const struct pi2_planned_run *run, uint32_t context_tokens) {
    (void)context_tokens;
    return run && run->draft && run->draft->kind == PI2_DRAFT_OWN_LAYER ? pi2_draft_pairs_bytes(run) : 0;
}

const pi2_drafter_kind pi2_drafter_mtp = {
    .name = "mtp", .costs = true, .bytes = bytes, .begin = pi2_draft_pairs_begin, .end = pi2_draft_pairs_end,
    .saw = pi2_draft_pairs_saw, .propose = pi2_draft_pairs_propose,
    .judge = pi2_draft_chain_judge, .follow = pi2_draft_chain_follow,
};
