/* choice_pick.c: the endings of a task, one after the other, behind the tokens that all of them begin with. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "powerinfer2/choices.h"
#include "powerinfer2/scoring.h"

typedef struct picking {
    const pi2_engine *engine;
    const pi2_engine_report *report;
    pi2_session *session;
    const pi2_choice_task *task;
    uint32_t step;
    size_t common;                 /* tokens that all endings begin with, the context's among them */
    int32_t *tokens[PI2_CHOICES_MOST]; /* of the context and each choice; malloc'd */
    size_t counts[PI2_CHOICES_MOST];
    double sums[PI2_CHOICES_MOST]; /* of the logarithms of the probabilities, behind the common tokens */
} picking;

static pi2_status tokenize(picking *self, uint32_t choice) {
    const pi2_choice_text context = self->task->context, ending = self->task->choices[choice];
    const size_t between = self->task->is_joined ? 0 : 1, length = context.length + between + ending.length;
    char *text = malloc(length + 1);
    if (!text) return pi2_fail(PI2_ERR_MEMORY, "no memory for a task's text");
    memcpy(text, context.text, context.length);
    text[context.length] = ' ';
    memcpy(text + context.length + between, ending.text, ending.length);
    const pi2_status status = pi2_engine_tokenize(self->engine, text, length, true, false, &self->tokens[choice],
                                                  &self->counts[choice]);
    free(text);
    return status;
}

/** What all have in common; at least one token of each ending is left to be scored. */
static pi2_status find_common(picking *self) {
    size_t shortest = self->counts[0], longest = self->counts[0];
    for (uint32_t i = 1; i < self->task->choice_count; i++) {
        shortest = self->counts[i] < shortest ? self->counts[i] : shortest;
        longest = self->counts[i] > longest ? self->counts[i] : longest;
    }
    for (bool is_same = true; is_same && self->common + 1 < shortest;) {
        for (uint32_t i = 1; i < self->task->choice_count; i++) {
            is_same &= self->tokens[i][self->common] == self->tokens[0][self->common];
        }
        self->common += is_same;
    }
    if (self->common == 0) {
        return pi2_fail(PI2_ERR_INVALID, "its context and endings have no first token in common: give it a longer "
                        "context");
    }
    if (longest - 1 > self->report->context_tokens) {
        return pi2_fail(PI2_ERR_CONTEXT, "it needs a context of %zu tokens, and there are %u: give -c %zu", longest - 1,
                        self->report->context_tokens, longest - 1);
    }
    return PI2_OK;
}

static pi2_status add(picking *self, uint32_t choice, const float *logits, int32_t token) {
    const double surprise = pi2_surprise(logits, self->report->vocabulary_size, token);
    self->sums[choice] -= surprise;
    if (isfinite(surprise)) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: its logits are no numbers: the model file may be damaged ('powerinfer2 "
                    "inspect --verify' checks a cluster file)", self->report->weights_path);
}

static pi2_status score_ending(picking *self, uint32_t choice) {
    const int32_t *tokens = self->tokens[choice];
    const size_t last = self->counts[choice] - 1; /* which predicts nothing */
    PI2_TRY(pi2_session_truncate(self->session, (uint32_t)self->common));
    for (size_t at = self->common; at < last; at += self->step) {
        const size_t count = last - at < self->step ? last - at : self->step;
        PI2_TRY(pi2_session_append(self->session, tokens + at, count, PI2_LOGITS_ALL));
        for (size_t i = 0; i < count; i++) {
            PI2_TRY(add(self, choice, pi2_session_logits(self->session, i), tokens[at + i + 1]));
        }
    }
    return PI2_OK;
}

static pi2_status score(picking *self) {
    PI2_TRY(pi2_session_truncate(self->session, 0));
    PI2_TRY(pi2_session_append(self->session, self->tokens[0], self->common, PI2_LOGITS_LAST));
    for (uint32_t i = 0; i < self->task->choice_count; i++) {
        PI2_TRY(add(self, i, pi2_session_logits(self->session, 0), self->tokens[i][self->common]));
    }
    for (uint32_t i = 0; i < self->task->choice_count; i++) PI2_TRY(score_ending(self, i));
    return PI2_OK;
}

static size_t count_characters(pi2_choice_text text) {
    size_t count = 0;
    for (size_t i = 0; i < text.length; i++) count += ((unsigned char)text.text[i] & 0xc0) != 0x80;
    return count ? count : 1;
}

static double by_rule(const picking *self, uint32_t choice, pi2_choice_rule rule) {
    const double sum = self->sums[choice];
    switch (rule) {
    case PI2_CHOICE_PER_TOKEN: return sum / (double)(self->counts[choice] - self->common);
    case PI2_CHOICE_PER_CHARACTER: return sum / (double)count_characters(self->task->choices[choice]);
    default: return sum;
    }
}

pi2_status pi2_choice_pick(const pi2_engine *engine, pi2_session *session, const pi2_choice_task *task, uint32_t step,
                           pi2_choice_result *result_out) {
    picking self = { .engine = engine, .report = pi2_engine_get_report(engine), .session = session, .task = task,
                     .step = step };
    pi2_status status = PI2_OK;
    for (uint32_t i = 0; i < task->choice_count && status == PI2_OK; i++) status = tokenize(&self, i);
    if (status == PI2_OK) status = find_common(&self);
    if (status == PI2_OK) status = score(&self);
    memset(result_out, 0, sizeof *result_out);
    result_out->answer = (uint8_t)task->answer;
    result_out->choice_count = (uint8_t)task->choice_count;
    for (int rule = 0; rule < PI2_CHOICE_RULES && status == PI2_OK; rule++) {
        for (uint32_t i = 1; i < task->choice_count; i++) {
            const double best = by_rule(&self, result_out->picked[rule], (pi2_choice_rule)rule);
            if (by_rule(&self, i, (pi2_choice_rule)rule) > best) result_out->picked[rule] = (uint8_t)i;
        }
    }
    for (uint32_t i = 0; i < task->choice_count; i++) free(self.tokens[i]);
    return status;
}
