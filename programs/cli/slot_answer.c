/* slot_answer.c: a slot's answer: the next token, its chances, its text, and the end. */
#include <math.h>
#include <string.h>

#include "output.h"
#include "slots_internal.h"

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

/** Those of a token that was just picked: the session has the logits yet. */
static void measure_picked(const pi2_slot *slot, int32_t token, pi2_token_chance *chances) {
    const float *logits = pi2_session_logits(slot->session, 0);
    const double scale = measure_chances(slot->slots, logits, chances, slot->job->top_count);
    chances[0] = (pi2_token_chance){token, (float)((double)logits[token] - scale)};
}

/** The mutex is held. */
static bool add_chances(pi2_job *job, const pi2_token_chance *chances) {
    const uint32_t width = 1 + job->top_count;
    pi2_token_chance *grown = pi2_cli_grow(job->chances, job->chance_count * width, width, sizeof *grown,
                                           &job->chance_capacity);
    if (!grown) return false;
    job->chances = grown;
    memcpy(grown + job->chance_count++ * width, chances, width * sizeof *grown);
    return true;
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

/** A token was picked. The engine is asked before the mutex is taken: its callbacks take that while it computes. */
static bool take_token(void *user, int32_t token) {
    pi2_slot *slot = user;
    pi2_job *job = slot->job;
    pi2_token_chance chances[1 + PI2_JOB_MOST_TOP];
    const bool has_chances = job->wants_chances && !pi2_engine_ends_generation(slot->slots->engine, token);
    if (has_chances) measure_picked(slot, token, chances);
    (void)pthread_mutex_lock(&job->mutex);
    note_time(slot);
    job->state = PI2_JOB_DECODING;
    slot->lacks_memory = !pi2_cli_tokens_add(&job->tokens, &token, 1) || (has_chances && !add_chances(job, chances));
    (void)pthread_cond_broadcast(&job->changed);
    (void)pthread_mutex_unlock(&job->mutex);
    slot->slots->counts.answer_tokens++;
    slot->report.answer_tokens++;
    slot->report.all_answer_tokens++;
    return !slot->lacks_memory;
}

/** Whoever waits for the text may read it. */
static bool take_text(void *user, const char *text, size_t length) {
    pi2_slot *slot = user;
    pi2_job *job = slot->job;
    (void)pthread_mutex_lock(&job->mutex);
    slot->lacks_memory = !pi2_cli_text_add(&job->text, text, length);
    slot->has_line = slot->has_line || memchr(text, '\n', length) != NULL;
    (void)pthread_cond_broadcast(&job->changed);
    (void)pthread_mutex_unlock(&job->mutex);
    return !slot->lacks_memory;
}

static pi2_status begin_answer(pi2_slot *slot) {
    const pi2_job *job = slot->job;
    const pi2_answer_options options = {
        .limit = job->limit, .special = job->print_special, .stop_words = job->stop_words.items,
        .stop_word_count = job->stop_words.count, .user = slot, .token = take_token, .text = take_text};
    return pi2_answer_create(slot->session, &options, &slot->answer);
}

/** Whether the answer has taken the time that it was given, with a line to show for it: one that ends within its only
 *  line is of use to nobody who bounds completions by time. */
static bool is_over(const pi2_slot *slot) {
    const int64_t most_ms = slot->job->most_ms;
    if (most_ms <= 0 || !slot->answer || !slot->has_line) return false;
    return pi2_cli_now_ns() - slot->first_ns > (uint64_t)most_ms * 1000000u;
}

void pi2_slot_go_on(pi2_slots *slots, pi2_slot *slot) {
    slot->is_over = is_over(slot);
    if (slot->is_over) {
        pi2_slot_end(slots, slot, PI2_OK, NULL);
        return;
    }
    slot->has_logits = false;
    pi2_status status = slot->answer ? PI2_OK : begin_answer(slot);
    if (status == PI2_OK) status = pi2_answer_next(slot->answer, &slot->token);
    if (status != PI2_OK) pi2_slot_end(slots, slot, status, NULL);
    else if (slot->lacks_memory) pi2_slot_end(slots, slot, PI2_ERR_MEMORY, "no memory is left for the answer");
    else if (slot->token < 0) pi2_slot_end(slots, slot, PI2_OK, NULL);
    else slot->state = PI2_SLOT_DECODES;
}

/** How the answer ended. What was held back of its text belongs to it. */
static pi2_status finish_answer(pi2_slot *slot, pi2_status status) {
    pi2_job *job = slot->job;
    job->stop = PI2_STOP_INTERRUPTED;
    if (!slot->answer) return status;
    pi2_answer_interrupt(slot->answer);
    const pi2_answer_result result = pi2_answer_result_of(slot->answer);
    pi2_answer_free(slot->answer);
    slot->answer = NULL;
    if (status != PI2_OK) return status;
    job->stop = result.stop;
    job->stop_word = result.stop_word;
    if (slot->is_over) {
        job->stop = PI2_STOP_LIMIT;
        return PI2_OK;
    }
    return result.stop == PI2_STOP_INTERRUPTED ? PI2_ERR_INTERRUPTED : PI2_OK;
}

void pi2_slot_end(pi2_slots *slots, pi2_slot *slot, pi2_status status, const char *error) {
    pi2_job *job = slot->job;
    if (status != PI2_OK && status != PI2_ERR_INTERRUPTED) {
        (void)snprintf(job->error, sizeof job->error, "%s", error ? error : pi2_error_text());
    }
    status = finish_answer(slot, status);
    if (job->sampling.grammar && slot->session) { /* it takes memory that another answer's may need */
        pi2_sampling plain = job->sampling;
        plain.grammar = NULL;
        (void)pi2_session_set_sampling(slot->session, &plain);
    }
    slot->job = NULL;
    slot->state = PI2_SLOT_IDLE;
    slot->has_logits = slot->lacks_memory = slot->is_held = slot->has_line = slot->is_over = false;
    slot->part = 0;
    slot->used = ++slots->clock;
    slots->counts.running--;
    (void)pthread_mutex_lock(&job->mutex);
    if (!slot->first_ns) job->times.prompt_ms = (double)(pi2_cli_now_ns() - slot->begin_ns) / 1e6;
    slots->counts.prompt_seconds += job->times.prompt_ms / 1e3;
    slots->counts.answer_seconds += job->times.decode_ms / 1e3;
    job->status = status;
    job->state = PI2_JOB_DONE;
    (void)pthread_cond_broadcast(&job->changed);
    (void)pthread_mutex_unlock(&job->mutex);
}
