/* slots.c: which tokens a pass computes, and what comes of it. */
#include "slots_internal.h"

#include <stdlib.h>
#include <string.h>

#include "output.h"

/* Of a prompt, in a pass with answers: at least, and before it is known what a token costs. */
enum { LEAST_SLICE = 32, FIRST_SLICE = 64 };

const char *pi2_slot_state_name(pi2_slot_state state) {
    static const char *const names[] = {"idle", "waiting", "prompt", "decoding", "held"};
    return names[state];
}

pi2_status pi2_slots_create(pi2_engine *engine, pi2_slots **slots_out) {
    const pi2_engine_report *report = pi2_engine_get_report(engine);
    pi2_slots *slots = calloc(1, sizeof *slots);
    *slots_out = slots;
    if (!slots) return PI2_ERR_MEMORY;
    slots->engine = engine;
    slots->count = slots->counts.slots = report->sequences;
    slots->context = report->context_tokens;
    slots->batch = report->batch_tokens;
    slots->is_exact = pi2_engine_is_exact(engine);
    slots->slots = calloc(slots->count, sizeof *slots->slots);
    slots->parts = calloc(slots->count, sizeof *slots->parts);
    bool is_good = slots->slots && slots->parts;
    for (uint32_t i = 0; is_good && i < slots->count; i++) {
        slots->slots[i].slots = slots;
        slots->slots[i].timeline = malloc(report->context_tokens * sizeof(int32_t));
        is_good = slots->slots[i].timeline != NULL;
    }
    if (is_good) return PI2_OK;
    pi2_slots_free(slots);
    *slots_out = NULL;
    return PI2_ERR_MEMORY;
}

void pi2_slots_free(pi2_slots *slots) {
    if (!slots) return;
    for (uint32_t i = 0; slots->slots && i < slots->count; i++) {
        pi2_session_free(slots->slots[i].session);
        free(slots->slots[i].timeline);
    }
    free(slots->slots);
    free(slots->parts);
    free(slots);
}

bool pi2_slots_have_room(const pi2_slots *slots) { return slots->counts.running < slots->count; }

void pi2_slots_admit(pi2_slots *slots, pi2_job *job) {
    pi2_slot *slot = pi2_slot_choose(slots, job);
    slot->job = job;
    slot->state = PI2_SLOT_FOLLOWS;
    slot->begin_ns = pi2_cli_now_ns();
    slot->first_ns = 0;
    slot->report.cached_tokens = slot->report.answer_tokens = 0;
    slot->report.prompt_tokens = (uint32_t)job->prompt_count;
    slot->report.all_jobs++;
    slots->counts.running++;
    (void)pthread_mutex_lock(&job->mutex);
    (void)pi2_job_look_after(job); /* one that is late already is late by its wait */
    job->state = PI2_JOB_PROMPT;
    (void)pthread_mutex_unlock(&job->mutex);
}

/* ---- what a pass computes ---- */

static void add_part(pi2_slots *slots, size_t *count, pi2_slot *slot, const int32_t *tokens, uint32_t token_count,
                     bool wants_logits) {
    slot->part = token_count;
    slots->parts[(*count)++] = (pi2_session_tokens){slot->session, tokens, token_count, wants_logits};
}

/** Tokens of prompts in a pass that computes `answers` tokens of answers: as many as take about as long as those. */
static uint32_t slice_of(const pi2_slots *slots, uint32_t answers) {
    if (answers == 0) return slots->batch;
    double slice = slots->token_ns > 0 && slots->decode_ns > 0 ? slots->decode_ns / slots->token_ns : FIRST_SLICE;
    const uint32_t most = slots->batch > answers + LEAST_SLICE ? slots->batch - answers : LEAST_SLICE;
    if (!(slice > LEAST_SLICE)) slice = LEAST_SLICE;
    return slice < (double)most ? (uint32_t)slice : most;
}

/** Adds slices of prompts, one after another from the one on whose turn it is. Returns their tokens. */
static uint32_t add_prompts(pi2_slots *slots, size_t *count, uint32_t left) {
    const uint32_t first = slots->next_reader;
    uint32_t all = 0;
    for (uint32_t i = 0; i < slots->count && left; i++) {
        const uint32_t at = (first + i) % slots->count;
        pi2_slot *slot = &slots->slots[at];
        if (slot->state != PI2_SLOT_READS) continue;
        const uint32_t wanted = (uint32_t)slot->job->prompt_count - slot->length;
        uint32_t part = wanted < left ? wanted : left;
        /* A token alone is computed as an answer's where a predictor leaves neurons out: a prompt has none. */
        if (!slots->is_exact && part + 1 == wanted) part--;
        if (part == 0 || (!slots->is_exact && part == 1 && wanted > 1)) continue;
        add_part(slots, count, slot, slot->job->prompt + slot->length, part, part == wanted);
        if (all == 0) slots->next_reader = (at + 1) % slots->count;
        left -= part;
        all += part;
    }
    return all;
}

/** Tokens that were guessed and take no pass: they go before others, whose pass would drop the guesses behind them. */
static size_t fill_guessed(pi2_slots *slots) {
    size_t count = 0;
    for (uint32_t i = 0; i < slots->count; i++) {
        pi2_slot *slot = &slots->slots[i];
        slot->part = 0;
        const bool is_guessed = slot->state == PI2_SLOT_DECODES && !pi2_job_is_full(slot->job) &&
                                pi2_session_expects(slot->session, slot->token);
        if (is_guessed) add_part(slots, &count, slot, &slot->token, 1, true);
    }
    return count;
}

/** The parts of the next pass; the tokens of answers and of prompts. */
static size_t fill_parts(pi2_slots *slots, uint32_t *answers_out, uint32_t *prompts_out) {
    size_t count = 0;
    *answers_out = 0;
    for (uint32_t i = 0; i < slots->count; i++) {
        pi2_slot *slot = &slots->slots[i];
        slot->part = 0;
        slot->is_held = slot->state == PI2_SLOT_DECODES && pi2_job_is_full(slot->job);
        if (slot->state != PI2_SLOT_DECODES || slot->is_held) continue;
        add_part(slots, &count, slot, &slot->token, 1, true);
        ++*answers_out;
    }
    *prompts_out = add_prompts(slots, &count, slice_of(slots, *answers_out));
    return count;
}

/* ---- what comes of it ---- */

static void smooth(double *value, double sample) { *value = *value > 0 ? 0.75 * *value + 0.25 * sample : sample; }

/** Learns how long passes take: it says only how large slices are, never what a token is. */
static void note_pass(pi2_slots *slots, uint32_t answers, uint32_t prompts, uint64_t ns, size_t parts) {
    slots->counts.passes++;
    slots->counts.passes_slots += parts;
    if (prompts == 0) {
        smooth(&slots->decode_ns, (double)ns);
    } else if (prompts >= LEAST_SLICE) {
        const double base = answers ? slots->decode_ns : 0;
        const double each = ((double)ns - base) / prompts;
        smooth(&slots->token_ns, each > 1 ? each : 1);
    }
}

static void tell_progress(pi2_slot *slot, uint64_t part_done, uint64_t part_total) {
    pi2_job *job = slot->job;
    enum { UNIT = 1000 };
    (void)pthread_mutex_lock(&job->mutex);
    job->progress_total = (uint64_t)(job->prompt_count - job->cached_count) * UNIT;
    job->progress_done = (uint64_t)(slot->length - job->cached_count) * UNIT;
    if (part_total) job->progress_done += (uint64_t)slot->part * UNIT * part_done / part_total;
    (void)pthread_cond_broadcast(&job->changed);
    (void)pthread_mutex_unlock(&job->mutex);
}

/** The slot's part was computed. */
static void advance(pi2_slots *slots, pi2_slot *slot) {
    pi2_job *job = slot->job;
    if (slot->state == PI2_SLOT_DECODES) {
        slot->timeline[slot->length++] = slot->token;
        slot->has_logits = true;
        return;
    }
    memcpy(slot->timeline + slot->length, job->prompt + slot->length, slot->part * sizeof *slot->timeline);
    slot->length += slot->part;
    slot->prompt_length = slot->length;
    slot->has_logits = slot->length == job->prompt_count;
    slots->counts.prompt_tokens += slot->part;
    slot->report.all_prompt_tokens += slot->part;
    (void)pthread_mutex_lock(&job->mutex);
    job->computed_count += slot->part;
    (void)pthread_mutex_unlock(&job->mutex);
    tell_progress(slot, 0, 0);
}

/** A pass that did not come to its end: sessions are where they were before it, or before one of its parts. */
static void fail_pass(pi2_slots *slots, pi2_status status) {
    char error[PI2_JOB_ERROR_BYTES];
    (void)snprintf(error, sizeof error, "%s", pi2_error_text());
    for (uint32_t i = 0; i < slots->count; i++) {
        pi2_slot *slot = &slots->slots[i];
        if (!slot->part) continue;
        const uint32_t position = pi2_session_position(slot->session), computed = position - slot->length;
        if (computed) {
            slot->part = computed;
            advance(slots, slot);
        }
        pi2_slot_end(slots, slot, status, error);
    }
}

/** takes_pass: not all parts were guessed. */
static void run_pass(pi2_slots *slots, size_t count, bool takes_pass, uint32_t answers, uint32_t prompts) {
    const uint64_t begin_ns = pi2_cli_now_ns();
    slots->is_in_pass = true;
    const pi2_status status = pi2_sessions_append(slots->parts, count);
    slots->is_in_pass = false;
    if (status != PI2_OK) {
        fail_pass(slots, status);
        return;
    }
    if (takes_pass) note_pass(slots, answers, prompts, pi2_cli_now_ns() - begin_ns, count);
    for (uint32_t i = 0; i < slots->count; i++) {
        if (slots->slots[i].part) advance(slots, &slots->slots[i]);
    }
}

/** Jobs that wait for another's prompt begin where they can, before tokens are picked: they may copy its logits. */
static void go_on(pi2_slots *slots) {
    for (uint32_t i = 0; i < slots->count; i++) {
        if (slots->slots[i].state == PI2_SLOT_FOLLOWS) pi2_slot_begin(slots, &slots->slots[i]);
    }
    for (uint32_t i = 0; i < slots->count; i++) {
        if (slots->slots[i].has_logits) pi2_slot_go_on(slots, &slots->slots[i]);
    }
}

bool pi2_slots_step(pi2_slots *slots) {
    for (uint32_t i = 0; i < slots->count; i++) {
        pi2_slot *slot = &slots->slots[i];
        if (slot->job && pi2_job_is_unwanted(slot->job)) {
            pi2_slot_end(slots, slot, PI2_ERR_INTERRUPTED, NULL);
        }
    }
    go_on(slots);
    uint32_t answers = 0, prompts = 0;
    const size_t guessed = fill_guessed(slots), count = guessed ? guessed : fill_parts(slots, &answers, &prompts);
    if (count == 0) return false;
    run_pass(slots, count, guessed == 0, answers, prompts);
    go_on(slots);
    return true;
}

uint64_t pi2_slots_deadline(const pi2_slots *slots) {
    uint64_t first_ns = 0;
    for (uint32_t i = 0; i < slots->count; i++) {
        const pi2_job *job = slots->slots[i].job;
        if (job && job->deadline_ns && (!first_ns || job->deadline_ns < first_ns)) first_ns = job->deadline_ns;
    }
    return first_ns;
}

void pi2_slots_end_all(pi2_slots *slots) {
    for (uint32_t i = 0; i < slots->count; i++) {
        if (!slots->slots[i].job) continue;
        pi2_slot_end(slots, &slots->slots[i], PI2_ERR_INTERRUPTED, NULL);
    }
}

bool pi2_slots_are_unwanted(const pi2_slots *slots) {
    if (!slots->is_in_pass) return false;
    for (uint32_t i = 0; i < slots->count; i++) {
        if (slots->slots[i].part && !pi2_job_is_unwanted(slots->slots[i].job)) return false;
    }
    return true;
}

void pi2_slots_note_progress(const pi2_slots *slots, uint64_t done, uint64_t total) {
    if (!slots->is_in_pass) return;
    for (uint32_t i = 0; i < slots->count; i++) {
        pi2_slot *slot = &slots->slots[i];
        if (slot->part && slot->state == PI2_SLOT_READS) tell_progress(slot, done, total);
    }
}

void pi2_slots_count(const pi2_slots *slots, pi2_slots_counts *counts_out, pi2_slot_report *reports_out) {
    *counts_out = slots->counts;
    for (uint32_t i = 0; i < slots->count; i++) {
        reports_out[i] = slots->slots[i].report;
        reports_out[i].state = slots->slots[i].is_held ? PI2_SLOT_HELD : slots->slots[i].state;
        reports_out[i].timeline_tokens = slots->slots[i].length;
    }
}
