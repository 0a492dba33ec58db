/* generate.c: the loop from a prompt to the end of its answer. */
#include "powerinfer2/generate.h"

#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/session_internal.h"

struct pi2_answer {
    pi2_session *session;
    pi2_answer_options options;
    pi2_answer_result result;
    bool has_ended, is_lost; /* is_lost: nobody takes its text any more */
    size_t held, capacity;
    char text[];             /* [capacity]: `held` bytes are held back, and behind them there is room for one token's */
};

const char *pi2_stop_name(pi2_stop stop) {
    static const char *const names[] = { "eos", "limit", "word", "context", "interrupted" };
    return (unsigned)stop <= PI2_STOP_INTERRUPTED ? names[stop] : "unknown";
}

pi2_status pi2_answer_create(pi2_session *session, const pi2_answer_options *options, pi2_answer **answer_out) {
    *answer_out = NULL;
    size_t longest = 0;
    for (size_t i = 0; i < options->stop_word_count; i++) {
        const size_t length = strlen(options->stop_words[i]);
        if (length > longest) longest = length;
    }
    const size_t capacity = longest + session->text_bytes;
    pi2_answer *answer = calloc(1, sizeof *answer + capacity);
    if (!answer) return pi2_fail(PI2_ERR_MEMORY, "no memory for an answer");
    answer->session = session;
    answer->options = *options;
    answer->capacity = capacity;
    *answer_out = answer;
    return PI2_OK;
}

void pi2_answer_free(pi2_answer *answer) { free(answer); }

pi2_answer_result pi2_answer_result_of(const pi2_answer *answer) { return answer->result; }

/* ---- its text ---- */

static void hand_out(pi2_answer *answer, size_t length) {
    const pi2_answer_options *options = &answer->options;
    if (length && options->text && !answer->is_lost) {
        answer->is_lost = !options->text(options->user, answer->text, length);
    }
    answer->held -= length;
    memmove(answer->text, answer->text + length, answer->held);
}

/* Takes `length` bytes more, which lie behind those held back. */
static void add_text(pi2_answer *answer, size_t length) {
    const size_t seen = answer->held;
    const pi2_text_end end = pi2_text_find_end(answer->text, seen + length, seen, answer->options.stop_words,
                                               answer->options.stop_word_count);
    answer->held = end.is_stopped ? end.certain : seen + length;
    if (end.is_stopped) {
        answer->has_ended = true;
        answer->result.stop = PI2_STOP_WORD;
        answer->result.stop_word = end.stop_word;
    }
    hand_out(answer, end.certain);
}

/* A character that was begun, and what was held back for a stop word, belong to an answer that ended otherwise. */
static void end_by(pi2_answer *answer, pi2_stop stop) {
    if (answer->has_ended) return;
    answer->result.stop = stop;
    const size_t rest =
        pi2_session_text_finish(answer->session, answer->text + answer->held, answer->capacity - answer->held);
    add_text(answer, rest);
    answer->has_ended = true;
    hand_out(answer, answer->held);
}

void pi2_answer_interrupt(pi2_answer *answer) { end_by(answer, PI2_STOP_INTERRUPTED); }

/* ---- its tokens ---- */

static bool is_cancelled(const pi2_answer *answer) {
    const pi2_callbacks *callbacks = &answer->session->engine->run.options.callbacks;
    return callbacks->cancelled && callbacks->cancelled(callbacks->user);
}

static bool is_full(const pi2_answer *answer) {
    return answer->options.limit >= 0 && answer->result.token_count >= (uint64_t)answer->options.limit;
}

/* False: a callback wants no more. */
static pi2_status take(pi2_answer *answer, int32_t token, bool ends, bool *goes_on_out) {
    const pi2_answer_options *options = &answer->options;
    answer->result.token_count++;
    *goes_on_out = !options->token || options->token(options->user, token);
    if (ends) return PI2_OK;
    size_t length = 0;
    PI2_TRY(pi2_session_token_text(answer->session, token, options->special, answer->text + answer->held,
                                   answer->capacity - answer->held, &length));
    add_text(answer, length);
    if (answer->is_lost) *goes_on_out = false;
    return PI2_OK;
}

pi2_status pi2_answer_next(pi2_answer *answer, int32_t *token_out) {
    *token_out = -1;
    const pi2_session *session = answer->session;
    const uint32_t context = session->engine->run.plan.memory.shape.context_tokens;
    if (answer->has_ended) return PI2_OK;
    if (is_full(answer)) {
        end_by(answer, PI2_STOP_LIMIT);
        return PI2_OK;
    }
    int32_t token = 0;
    bool goes_on = true;
    PI2_TRY(pi2_session_sample(answer->session, &token));
    const bool ends = pi2_engine_ends_generation(session->engine, token);
    PI2_TRY(take(answer, token, ends, &goes_on));
    if (ends) end_by(answer, PI2_STOP_EOS);
    else if (!goes_on || is_cancelled(answer)) end_by(answer, PI2_STOP_INTERRUPTED);
    else if (is_full(answer)) end_by(answer, PI2_STOP_LIMIT);
    else if (session->position >= context) end_by(answer, PI2_STOP_CONTEXT);
    else if (!answer->has_ended) *token_out = token;
    return PI2_OK;
}

/* ---- a prompt and its answer ---- */

static pi2_status decode(pi2_answer *answer) {
    pi2_status status = PI2_OK;
    for (int32_t token = 0; status == PI2_OK && token >= 0;) {
        status = pi2_answer_next(answer, &token);
        if (status == PI2_OK && token >= 0) status = pi2_session_append(answer->session, &token, 1, PI2_LOGITS_LAST);
    }
    return status;
}

pi2_status pi2_generate(pi2_session *session, const int32_t *prompt, size_t prompt_count,
                        const pi2_answer_options *options, pi2_answer_result *result_out) {
    *result_out = (pi2_answer_result){ .stop = PI2_STOP_INTERRUPTED };
    const size_t cached = session->position;
    if (cached >= prompt_count) {
        return pi2_fail(PI2_ERR_INVALID, "the timeline holds %zu tokens, and the prompt has %zu: one at least must be "
                        "left to compute", cached, prompt_count);
    }
    pi2_answer *answer = NULL;
    PI2_TRY(pi2_answer_create(session, options, &answer));
    pi2_session_begin_answer(session, prompt, prompt_count);
    pi2_status status = pi2_session_append(session, prompt + cached, prompt_count - cached, PI2_LOGITS_LAST);
    const size_t computed = session->position - cached;
    if (status == PI2_OK) status = decode(answer);
    if (status == PI2_ERR_INTERRUPTED) {
        pi2_answer_interrupt(answer);
        status = PI2_OK;
    }
    *result_out = answer->result;
    result_out->prompt_count = computed;
    pi2_answer_free(answer);
    return status;
}
