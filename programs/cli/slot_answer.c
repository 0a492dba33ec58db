/* slot_answer.c: a slot's answer: the next token, its chances, its text, and the end. */
#include <math.h>
#include <string.h>

#include "output.h"
#include "slots_internal.h"

static pi2_status no_memory(pi2_job *job) {
    (void)snprintf(job->error, sizeof job->error, "the machine has no memory left for the answer");
    return PI2_ERR_MEMORY;
}

/** Puts the likeliest tokens in order behind the one that was picked. */
static void rank(const float *logits, uint32_t count, pi2_token_chance *top, uint32_t top_count) {
    uint32_t used = 0;
    for (uint32_t token = 0; token < count; token++) {
        const float logit = logits[token];
        if (used == top_count && !(logit > top[used - 1].logprob)) continue;
        uint32_t place = used < top_count ? used++ : used - 1;
        for (; place > 0 && logit > top[place - 1].logprob; place--) top[place] = top[place - 1];
        top[place] = (pi2_token_chance){(int32_t)token, logit};
    }
    for (; used < top_count; used++) top[used] = (pi2_token_chance){-1, -INFINITY};
}

/** One token's chances, of which the likeliest are filled in: [1 + top_count]. Returns the logarithm of the sum. */
static double measure_chances(const pi2_slots *slots, const float *logits, pi2_token_chance *chances,
                              uint32_t top_count) {
    const uint32_t count = pi2_engine_get_report(slots->engine)->vocabulary_size;
    double most = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        if ((double)logits[i] > most) most = (double)logits[i];
    }
    for (uint32_t i = 0; i < count; i++) sum += exp((double)logits[i] - most);
    const double scale = most + log(sum);
    if (top_count) rank(logits, count, chances + 1, top_count);
    for (uint32_t i = 1; i <= top_count; i++) chances[i].logprob = (float)((double)chances[i].logprob - scale);
    return scale;
}

/** Picks a token; with its chances where they are wanted. */
static pi2_status pick(const pi2_slots *slots, const pi2_slot *slot, int32_t *token_out,
                       pi2_token_chance chances[1 + PI2_JOB_MOST_TOP]) {
    const pi2_job *job = slot->job;
    if (!job->wants_chances) return pi2_session_sample(slot->session, token_out);
    const float *logits = pi2_session_logits(slot->session, 0);
    const double scale = measure_chances(slots, logits, chances, job->top_count);
    const pi2_status status = pi2_session_sample(slot->session, token_out);
    if (status != PI2_OK) return status;
    chances[0] = (pi2_token_chance){*token_out, (float)((double)logits[*token_out] - scale)};
    return PI2_OK;
}

static bool add_chances(pi2_job *job, const pi2_token_chance *chances) {
    const uint32_t width = 1 + job->top_count;
    pi2_token_chance *grown = pi2_cli_grow(job->chances, job->chance_count * width, width, sizeof *grown,
                                           &job->chance_capacity);
    if (!grown) return false;
    job->chances = grown;
    memcpy(grown + job->chance_count++ * width, chances, width * sizeof *grown);
    return true;
}

/** Adds a token to the answer, which whoever waits for it may then read. */
static pi2_status add_token(pi2_slots *slots, pi2_slot *slot, int32_t token, bool ends,
                            const pi2_token_chance *chances) {
    pi2_job *job = slot->job;
    size_t length = 0;
    pi2_status status = PI2_OK;
    if (!ends) {
        status = pi2_session_token_text(slot->session, token, job->print_special, slots->piece, PI2_SLOT_PIECE_BYTES,
                                        &length);
    }
    if (status != PI2_OK) return status;
    (void)pthread_mutex_lock(&job->mutex);
    job->state = PI2_JOB_DECODING;
    bool is_added = pi2_cli_tokens_add(&job->tokens, &token, 1);
    if (is_added && !ends) {
        is_added = pi2_cli_answer_text_add(&job->text, slots->piece, length) &&
                   (!job->wants_chances || add_chances(job, chances));
    }
    (void)pthread_cond_broadcast(&job->changed);
    (void)pthread_mutex_unlock(&job->mutex);
    slots->counts.answer_tokens++;
    slot->report.answer_tokens++;
    slot->report.all_answer_tokens++;
    return is_added ? PI2_OK : no_memory(job);
}

static void note_time(pi2_slot *slot) {
    pi2_job *job = slot->job;
    const uint64_t now_ns = pi2_cli_now_ns();
    if (!slot->first_ns) {
        slot->first_ns = now_ns;
        job->times.prompt_ms = (double)(now_ns - slot->begin_ns) / 1e6;
    }
    job->times.decode_ms = (double)(now_ns - slot->first_ns) / 1e6;
}

/** Whether the answer ends with the token that was added last, and why. */
static bool has_ended(const pi2_slots *slots, const pi2_slot *slot, bool ends, pi2_stop *stop_out) {
    const pi2_job *job = slot->job;
    *stop_out = ends ? PI2_STOP_EOS : job->text.is_stopped ? PI2_STOP_WORD : PI2_STOP_LIMIT;
    if (ends || job->text.is_stopped || (job->limit >= 0 && job->tokens.length >= (size_t)job->limit)) return true;
    *stop_out = PI2_STOP_CONTEXT;
    return slot->length >= slots->context;
}

void pi2_slot_go_on(pi2_slots *slots, pi2_slot *slot) {
    pi2_job *job = slot->job;
    pi2_token_chance chances[1 + PI2_JOB_MOST_TOP];
    int32_t token = 0;
    slot->has_logits = false;
    if (job->limit == 0) {
        pi2_slot_end(slots, slot, PI2_OK, PI2_STOP_LIMIT, NULL);
        return;
    }
    pi2_status status = pick(slots, slot, &token, chances);
    note_time(slot);
    const bool ends = !job->sampling.forbid_end_tokens && pi2_engine_ends_generation(slots->engine, token);
    if (status == PI2_OK) status = add_token(slots, slot, token, ends, chances);
    pi2_stop stop = PI2_STOP_INTERRUPTED;
    if (status != PI2_OK || has_ended(slots, slot, ends, &stop)) {
        pi2_slot_end(slots, slot, status, stop, NULL);
        return;
    }
    slot->token = token;
    slot->state = PI2_SLOT_DECODES;
}

/** A character that was begun, and what was held back for a stop word, belong to an answer that ended otherwise. */
static void end_text(const pi2_slots *slots, const pi2_slot *slot, pi2_job *job) {
    if (job->text.is_stopped || job->status != PI2_OK) return;
    const size_t rest = pi2_session_text_finish(slot->session, slots->piece, PI2_SLOT_PIECE_BYTES);
    (void)pi2_cli_answer_text_add(&job->text, slots->piece, rest);
    pi2_cli_answer_text_finish(&job->text);
    if (job->text.is_stopped) job->stop = PI2_STOP_WORD;
}

void pi2_slot_end(pi2_slots *slots, pi2_slot *slot, pi2_status status, pi2_stop stop, const char *error) {
    pi2_job *job = slot->job;
    slot->job = NULL;
    slot->state = PI2_SLOT_IDLE;
    slot->has_logits = false;
    slot->part = 0;
    slot->used = ++slots->clock;
    slots->counts.running--;
    (void)pthread_mutex_lock(&job->mutex);
    if (!slot->first_ns) job->times.prompt_ms = (double)(pi2_cli_now_ns() - slot->begin_ns) / 1e6;
    slots->counts.prompt_seconds += job->times.prompt_ms / 1e3;
    slots->counts.answer_seconds += job->times.decode_ms / 1e3;
    job->status = status;
    job->stop = status == PI2_ERR_INTERRUPTED ? PI2_STOP_INTERRUPTED : stop;
    if (status != PI2_OK && status != PI2_ERR_INTERRUPTED && !job->error[0]) {
        (void)snprintf(job->error, sizeof job->error, "%s", error ? error : pi2_error_text());
    }
    end_text(slots, slot, job);
    job->state = PI2_JOB_DONE;
    (void)pthread_cond_broadcast(&job->changed);
    (void)pthread_mutex_unlock(&job->mutex);
}
