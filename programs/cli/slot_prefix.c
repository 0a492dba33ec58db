/* slot_prefix.c: what of a prompt some slot holds already, and how a job comes to it. */
#include <stdio.h>
#include <string.h>

#include "powerinfer2/prompt_cache.h"
#include "slots_internal.h"

/* So many tokens more that another slot will soon hold are worth a wait. */
enum { WORTH_WAITING = 64 };

static uint32_t shared(const int32_t *tokens, size_t count, const pi2_job *job) {
    const size_t most = count < job->prompt_count ? count : job->prompt_count;
    uint32_t same = 0;
    while (same < most && tokens[same] == job->prompt[same]) same++;
    return same;
}

/**
 * Of `same` first tokens of a prompt, those that need not be computed when its logits are not there: the last one
 * gives them. A token alone is computed as an answer's where a predictor leaves neurons out: there two are.
 */
static uint32_t without_logits(const pi2_slots *slots, const pi2_job *job, uint32_t same) {
    const uint32_t count = (uint32_t)job->prompt_count, tail = slots->is_exact || count == 1 ? 1 : 2;
    return same < count - tail ? same : count - tail;
}

/** Tokens of the prompt that the slot holds; all of them where its logits are there, too. */
static uint32_t held(const pi2_slots *slots, const pi2_slot *slot, const pi2_job *job) {
    if (!slot->session || job->prompt_count == 0) return 0;
    /* What an answer computed by a predictor a prompt would compute with all neurons. */
    const uint32_t same = shared(slot->timeline, slots->is_exact ? slot->length : slot->prompt_length, job);
    if (slot->has_logits && same == slot->length && same == job->prompt_count) return same;
    return pi2_session_kept(slot->session, without_logits(slots, job, same));
}

/** The slot that holds most of the prompt, `preferred` before others; *held_out: how much. */
static pi2_slot *richest(const pi2_slots *slots, pi2_slot *preferred, const pi2_job *job, uint32_t *held_out) {
    pi2_slot *best = preferred;
    *held_out = preferred ? held(slots, preferred, job) : 0;
    for (uint32_t i = 0; i < slots->count; i++) {
        const uint32_t tokens = held(slots, &slots->slots[i], job);
        if (tokens <= *held_out) continue;
        best = &slots->slots[i];
        *held_out = tokens;
    }
    return best;
}

pi2_slot *pi2_slot_choose(const pi2_slots *slots, const pi2_job *job) {
    pi2_slot *oldest = NULL;
    for (uint32_t i = 0; i < slots->count; i++) {
        pi2_slot *slot = &slots->slots[i];
        if (slot->state == PI2_SLOT_IDLE && (!oldest || slot->used < oldest->used)) oldest = slot;
    }
    uint32_t tokens;
    pi2_slot *best = richest(slots, NULL, job, &tokens);
    /* One that would lose most of what it holds is copied instead, and its own text may go on. */
    return best && best->state == PI2_SLOT_IDLE && 2 * tokens >= best->length ? best : oldest;
}

/** Whether another slot is reading what the prompt begins with, and will soon hold more of it than `held_now`. */
static bool is_worth_waiting(const pi2_slots *slots, const pi2_job *job, uint32_t held_now) {
    for (uint32_t i = 0; i < slots->count; i++) {
        const pi2_slot *slot = &slots->slots[i];
        if (slot->state != PI2_SLOT_READS || slot->has_logits) continue;
        const uint32_t count = (uint32_t)slot->job->prompt_count, same = shared(slot->job->prompt, count, job);
        const bool is_all = same == count && same == job->prompt_count;
        const uint32_t expected = is_all ? same : without_logits(slots, job, same);
        if (slot->length >= expected || expected < held_now + (is_all ? 1 : WORTH_WAITING)) continue;
        /* States that cannot be taken back are there only when the prompt is read to its end. */
        const bool can_be_cut = slot->length == 0 || pi2_session_kept(slot->session, slot->length - 1) > 0;
        if (can_be_cut || expected == count) return true;
    }
    return false;
}

/** The slot's session holds `tokens` of the prompt, from the source's timeline, and has the job's sampling. */
static pi2_status take(pi2_slots *slots, pi2_slot *slot, const pi2_slot *source, uint32_t tokens) {
    const pi2_sampling *sampling = &slot->job->sampling;
    slot->has_logits = tokens == slot->job->prompt_count;
    if (source != slot) {
        pi2_session_free(slot->session);
        slot->session = NULL;
        slot->length = slot->prompt_length = 0;
        const pi2_status status = pi2_session_fork(source->session, sampling, &slot->session);
        if (status != PI2_OK) return status;
        memcpy(slot->timeline, source->timeline, source->length * sizeof *slot->timeline);
        slot->length = source->length;
        slot->prompt_length = source->prompt_length;
    } else {
        const pi2_status status = slot->session ? pi2_session_set_sampling(slot->session, sampling)
                                                : pi2_session_create(slots->engine, sampling, &slot->session);
        if (status != PI2_OK) return status;
    }
    if (tokens == slot->length) return PI2_OK;
    slot->length = tokens;
    if (slot->prompt_length > tokens) slot->prompt_length = tokens;
    return pi2_session_truncate(slot->session, tokens);
}

/** What the session's prompt cache has of the prompt beyond what slots hold; returns how much is there then. */
static uint32_t recall(pi2_slot *slot) {
    const pi2_job *job = slot->job;
    if (slot->has_logits) return slot->length;
    slot->length = (uint32_t)pi2_session_recall(slot->session, job->prompt, job->prompt_count, NULL);
    memcpy(slot->timeline, job->prompt, slot->length * sizeof *slot->timeline);
    if (slot->prompt_length > slot->length) slot->prompt_length = slot->length;
    return slot->length;
}

/** Ends a job whose prompt no slot can hold. */
static bool refuse(pi2_slots *slots, pi2_slot *slot) {
    const size_t count = slot->job->prompt_count;
    char text[128];
    if (count > 0 && count <= slots->context) return false;
    (void)snprintf(text, sizeof text, "the prompt has %zu tokens, and the context holds 1 to %u", count,
                   (unsigned)slots->context);
    pi2_slot_end(slots, slot, PI2_ERR_CONTEXT, text);
    return true;
}

void pi2_slot_begin(pi2_slots *slots, pi2_slot *slot) {
    pi2_job *job = slot->job;
    uint32_t tokens;
    if (refuse(slots, slot)) return;
    const pi2_slot *source = richest(slots, slot, job, &tokens);
    if (is_worth_waiting(slots, job, tokens)) return;
    const pi2_status status = take(slots, slot, source, tokens);
    if (status != PI2_OK) {
        pi2_slot_end(slots, slot, status, NULL);
        return;
    }
    tokens = recall(slot);
    pi2_session_begin_answer(slot->session, job->prompt, job->prompt_count);
    slot->state = PI2_SLOT_READS;
    slot->report.cached_tokens = tokens;
    slot->report.all_cached_tokens += tokens;
    slots->counts.cached_tokens += tokens;
    (void)pthread_mutex_lock(&job->mutex);
    job->seed = pi2_session_seed(slot->session);
    job->cached_count = tokens;
    (void)pthread_mutex_unlock(&job->mutex);
}
