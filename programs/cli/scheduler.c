/* scheduler.c: the queue, the thread that computes, and one answer. */
#include "scheduler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"

enum { PIECE_BYTES = 65536 };

struct pi2_scheduler {
    pi2_engine *engine;
    pi2_session *session;
    pi2_scheduler_watch *watch;
    uint32_t context;
    char *piece;             /* PIECE_BYTES: of the thread alone */
    pi2_cli_tokens timeline; /* what the session holds: of the thread alone */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pi2_job *first, *last;   /* waiting */
    pi2_scheduler_counts counts;
};

bool pi2_scheduler_is_cancelled(void *user) {
    pi2_scheduler_watch *watch = user;
    if (watch->is_stopping) return true;
    return watch->job && pi2_job_is_unwanted(watch->job);
}

bool pi2_scheduler_note_progress(pi2_scheduler_watch *watch, const char *what, uint64_t done, uint64_t total) {
    pi2_job *job = watch->job;
    if (!job || strcmp(what, "prompt") != 0) return false;
    (void)pthread_mutex_lock(&job->mutex);
    if (job->state == PI2_JOB_PROMPT) {
        job->progress_done = done;
        job->progress_total = total;
        (void)pthread_cond_broadcast(&job->changed);
    }
    (void)pthread_mutex_unlock(&job->mutex);
    return true;
}

/* ---- one answer ---- */

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

/** Room for one more token's chances, of which the likeliest are filled in; NULL: no memory. The mutex is not held. */
static pi2_token_chance *take_chances(const pi2_scheduler *scheduler, pi2_job *job, double *scale_out) {
    const float *logits = pi2_session_logits(scheduler->session, 0);
    const uint32_t count = pi2_engine_get_report(scheduler->engine)->vocabulary_size, width = 1 + job->top_count;
    (void)pthread_mutex_lock(&job->mutex);
    pi2_token_chance *grown = pi2_cli_grow(job->chances, job->chance_count * width, width, sizeof *grown,
                                           &job->chance_capacity);
    if (grown) job->chances = grown;
    (void)pthread_mutex_unlock(&job->mutex);
    if (!grown || !logits) return NULL;
    double most = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        if ((double)logits[i] > most) most = (double)logits[i];
    }
    for (uint32_t i = 0; i < count; i++) sum += exp((double)logits[i] - most);
    *scale_out = most + log(sum);
    pi2_token_chance *chances = grown + job->chance_count * width;
    if (job->top_count) rank(logits, count, chances + 1, job->top_count);
    for (uint32_t i = 1; i < width; i++) chances[i].logprob = (float)((double)chances[i].logprob - *scale_out);
    return chances;
}

/** Picks a token; with its chances where they are wanted. */
static pi2_status pick(const pi2_scheduler *scheduler, pi2_job *job, int32_t *token_out) {
    if (!job->wants_chances) return pi2_session_sample(scheduler->session, token_out);
    double scale = 0;
    pi2_token_chance *chances = take_chances(scheduler, job, &scale);
    if (!chances) return no_memory(job);
    const pi2_status status = pi2_session_sample(scheduler->session, token_out);
    if (status != PI2_OK) return status;
    const float *logits = pi2_session_logits(scheduler->session, 0);
    chances[0] = (pi2_token_chance){*token_out, (float)((double)logits[*token_out] - scale)};
    return PI2_OK;
}

/** Adds a token to the answer, which whoever waits for it may then read. */
static pi2_status add_token(pi2_scheduler *scheduler, pi2_job *job, int32_t token, bool ends) {
    size_t length = 0;
    pi2_status status = PI2_OK;
    if (!ends) {
        status = pi2_session_token_text(scheduler->session, token, job->print_special, scheduler->piece, PIECE_BYTES,
                                        &length);
    }
    if (status != PI2_OK) return status;
    (void)pthread_mutex_lock(&job->mutex);
    bool is_added = pi2_cli_tokens_add(&job->tokens, &token, 1);
    if (is_added && !ends) {
        is_added = pi2_cli_answer_text_add(&job->text, scheduler->piece, length);
        job->chance_count += job->wants_chances;
    }
    (void)pthread_cond_broadcast(&job->changed);
    (void)pthread_mutex_unlock(&job->mutex);
    return is_added ? PI2_OK : no_memory(job);
}

/** A token more; who looks at the counts while a long answer grows sees it grow. */
static void count_token(pi2_scheduler *scheduler) {
    pi2_engine_counters counters;
    pi2_engine_count(scheduler->engine, &counters);
    (void)pthread_mutex_lock(&scheduler->mutex);
    scheduler->counts.counters = counters;
    scheduler->counts.answer_tokens++;
    (void)pthread_mutex_unlock(&scheduler->mutex);
}

/** Picks tokens until something stops it. */
static pi2_status decode(pi2_scheduler *scheduler, pi2_job *job, uint64_t begin_ns) {
    uint64_t first_ns = 0;
    pi2_status status = PI2_OK;
    job->stop = PI2_STOP_LIMIT;
    while (job->limit < 0 || job->tokens.length < (size_t)job->limit) {
        int32_t token = 0;
        status = pick(scheduler, job, &token);
        const uint64_t now_ns = pi2_cli_now_ns();
        if (status != PI2_OK) break;
        if (!first_ns) {
            first_ns = now_ns;
            job->times.prompt_ms = (double)(now_ns - begin_ns) / 1e6;
        }
        job->times.decode_ms = (double)(now_ns - first_ns) / 1e6;
        const bool ends = !job->sampling.forbid_end_tokens && pi2_engine_ends_generation(scheduler->engine, token);
        status = add_token(scheduler, job, token, ends);
        count_token(scheduler);
        if (status != PI2_OK) break;
        if (ends) { job->stop = PI2_STOP_EOS; break; }
        if (job->text.is_stopped) { job->stop = PI2_STOP_WORD; break; }
        if (job->limit >= 0 && job->tokens.length >= (size_t)job->limit) break;
        if (pi2_session_position(scheduler->session) >= scheduler->context) { job->stop = PI2_STOP_CONTEXT; break; }
        status = pi2_session_append(scheduler->session, &token, 1, PI2_LOGITS_LAST);
        if (status != PI2_OK) break;
    }
    return status;
}

/** Cuts the session back to what it shares with the prompt, all but one token at most, whose logits are needed. */
static pi2_status keep_common(pi2_scheduler *scheduler, pi2_job *job) {
    pi2_cli_tokens *timeline = &scheduler->timeline;
    size_t kept = 0;
    while (kept < timeline->length && kept + 1 < job->prompt_count && timeline->data[kept] == job->prompt[kept]) kept++;
    timeline->length = kept;
    (void)pthread_mutex_lock(&job->mutex);
    job->cached_count = kept;
    (void)pthread_mutex_unlock(&job->mutex);
    return pi2_session_truncate(scheduler->session, (uint32_t)kept);
}

static pi2_status answer(pi2_scheduler *scheduler, pi2_job *job) {
    pi2_session *session = scheduler->session;
    pi2_status status = pi2_session_set_sampling(session, &job->sampling);
    if (status == PI2_OK) status = keep_common(scheduler, job);
    if (status != PI2_OK) return status;
    const size_t kept = job->cached_count;
    const uint64_t begin_ns = pi2_cli_now_ns();
    pi2_session_begin_answer(session, job->prompt, job->prompt_count);
    job->seed = pi2_session_seed(session);
    status = pi2_session_append(session, job->prompt + kept, job->prompt_count - kept, PI2_LOGITS_LAST);
    (void)pthread_mutex_lock(&job->mutex);
    job->computed_count = pi2_session_position(session) - kept;
    job->times.prompt_ms = (double)(pi2_cli_now_ns() - begin_ns) / 1e6;
    if (status == PI2_OK) job->state = PI2_JOB_DECODING;
    (void)pthread_mutex_unlock(&job->mutex);
    if (!pi2_cli_tokens_add(&scheduler->timeline, job->prompt + kept, job->computed_count)) return no_memory(job);
    if (status == PI2_OK) status = decode(scheduler, job, begin_ns);
    /* The session may lack the last tokens: what was added for them is cut off again. */
    if (!pi2_cli_tokens_add(&scheduler->timeline, job->tokens.data, job->tokens.length)) status = no_memory(job);
    const uint32_t position = pi2_session_position(session);
    if (position < scheduler->timeline.length) scheduler->timeline.length = position;
    return status;
}

/** A character that was begun, and what was held back for a stop word, belong to an answer that ended otherwise. */
static void end_text(pi2_scheduler *scheduler, pi2_job *job) {
    if (job->text.is_stopped || job->status != PI2_OK) return;
    const size_t rest = pi2_session_text_finish(scheduler->session, scheduler->piece, PIECE_BYTES);
    (void)pi2_cli_answer_text_add(&job->text, scheduler->piece, rest);
    pi2_cli_answer_text_finish(&job->text);
    if (job->text.is_stopped) job->stop = PI2_STOP_WORD;
}

static void run(pi2_scheduler *scheduler, pi2_job *job) {
    scheduler->watch->job = job;
    (void)pthread_mutex_lock(&job->mutex);
    job->state = PI2_JOB_PROMPT;
    (void)pthread_mutex_unlock(&job->mutex);
    const pi2_status status = pi2_job_is_unwanted(job) ? PI2_ERR_INTERRUPTED : answer(scheduler, job);
    scheduler->watch->job = NULL;
    (void)pthread_mutex_lock(&scheduler->mutex);
    scheduler->counts.running = 0;
    scheduler->counts.prompt_tokens += job->computed_count;
    scheduler->counts.cached_tokens += job->cached_count;
    scheduler->counts.prompt_seconds += job->times.prompt_ms / 1e3;
    scheduler->counts.answer_seconds += job->times.decode_ms / 1e3;
    scheduler->counts.timeline_tokens = scheduler->timeline.length;
    (void)pthread_mutex_unlock(&scheduler->mutex);
    (void)pthread_mutex_lock(&job->mutex);
    job->status = status;
    if (status == PI2_ERR_INTERRUPTED) {
        job->stop = PI2_STOP_INTERRUPTED;
    } else if (status != PI2_OK && !job->error[0]) {
        (void)snprintf(job->error, sizeof job->error, "%s", pi2_error_text());
    }
    end_text(scheduler, job);
    job->state = PI2_JOB_DONE;
    (void)pthread_cond_broadcast(&job->changed);
    (void)pthread_mutex_unlock(&job->mutex);
}

/* ---- the queue ---- */

static pi2_job *take_first(pi2_scheduler *scheduler) {
    (void)pthread_mutex_lock(&scheduler->mutex);
    while (!scheduler->first && !scheduler->watch->is_stopping) {
        (void)pthread_cond_wait(&scheduler->changed, &scheduler->mutex);
    }
    pi2_job *job = scheduler->first;
    if (job) {
        scheduler->first = job->next;
        if (!scheduler->first) scheduler->last = NULL;
        scheduler->counts.waiting--;
        scheduler->counts.running = 1;
    }
    (void)pthread_mutex_unlock(&scheduler->mutex);
    return job;
}

/* When the server ends, jobs that wait are run too: the callback ends each at once. */
static void *work(void *argument) {
    pi2_scheduler *scheduler = argument;
    for (pi2_job *job; (job = take_first(scheduler)) != NULL;) run(scheduler, job);
    return NULL;
}

pi2_status pi2_scheduler_create(pi2_engine *engine, pi2_scheduler_watch *watch, size_t queue_most,
                                pi2_scheduler **scheduler_out) {
    pi2_scheduler *scheduler = calloc(1, sizeof *scheduler);
    *scheduler_out = scheduler;
    if (!scheduler) return PI2_ERR_MEMORY;
    (void)pthread_mutex_init(&scheduler->mutex, NULL);
    (void)pthread_cond_init(&scheduler->changed, NULL);
    scheduler->engine = engine;
    scheduler->watch = watch;
    scheduler->context = pi2_engine_get_report(engine)->context_tokens;
    scheduler->counts.queue_most = queue_most;
    scheduler->piece = malloc(PIECE_BYTES);
    scheduler->timeline.data = malloc(scheduler->context * sizeof *scheduler->timeline.data);
    scheduler->timeline.capacity = scheduler->timeline.data ? scheduler->context : 0;
    const pi2_status status = pi2_session_create(engine, NULL, &scheduler->session);
    if (status == PI2_OK && scheduler->piece && scheduler->timeline.data &&
        pthread_create(&scheduler->thread, NULL, work, scheduler) == 0) {
        return PI2_OK;
    }
    pi2_session_free(scheduler->session);
    free(scheduler->piece);
    free(scheduler->timeline.data);
    free(scheduler);
    *scheduler_out = NULL;
    return status == PI2_OK ? PI2_ERR_MEMORY : status;
}

void pi2_scheduler_stop(pi2_scheduler *scheduler) {
    (void)pthread_mutex_lock(&scheduler->mutex);
    scheduler->watch->is_stopping = true;
    (void)pthread_cond_broadcast(&scheduler->changed);
    (void)pthread_mutex_unlock(&scheduler->mutex);
    (void)pthread_join(scheduler->thread, NULL);
}

void pi2_scheduler_free(pi2_scheduler *scheduler) {
    if (!scheduler) return;
    pi2_session_free(scheduler->session);
    (void)pthread_mutex_destroy(&scheduler->mutex);
    (void)pthread_cond_destroy(&scheduler->changed);
    free(scheduler->piece);
    free(scheduler->timeline.data);
    free(scheduler);
}

bool pi2_scheduler_submit(pi2_scheduler *scheduler, pi2_job *job) {
    (void)pthread_mutex_lock(&scheduler->mutex);
    pi2_scheduler_counts *counts = &scheduler->counts;
    const bool has_room = counts->waiting + counts->running <= counts->queue_most && !scheduler->watch->is_stopping;
    if (has_room) {
        if (scheduler->last) scheduler->last->next = job;
        else scheduler->first = job;
        scheduler->last = job;
        counts->waiting++;
        counts->requests++;
        (void)pthread_cond_signal(&scheduler->changed);
    } else {
        counts->refused++;
    }
    (void)pthread_mutex_unlock(&scheduler->mutex);
    return has_room;
}

/** A job that nobody waits for gives its place in the queue to another. */
static void leave_queue(pi2_scheduler *scheduler, pi2_job *job) {
    (void)pthread_mutex_lock(&scheduler->mutex);
    pi2_job *before = NULL, *found = scheduler->first;
    for (; found && found != job; found = found->next) before = found;
    if (found) {
        if (before) before->next = job->next;
        else scheduler->first = job->next;
        if (scheduler->last == job) scheduler->last = before;
        scheduler->counts.waiting--;
        (void)pthread_mutex_lock(&job->mutex);
        job->state = PI2_JOB_DONE;
        job->stop = PI2_STOP_INTERRUPTED;
        job->status = PI2_ERR_INTERRUPTED;
        (void)pthread_mutex_unlock(&job->mutex);
    }
    (void)pthread_mutex_unlock(&scheduler->mutex);
}

void pi2_scheduler_finish(pi2_scheduler *scheduler, pi2_job *job, bool cancel) {
    (void)pthread_mutex_lock(&job->mutex);
    if (cancel) {
        job->is_cancelled = true;
        job->socket = -1;
    }
    bool is_wanted = !cancel;
    while (is_wanted && job->state != PI2_JOB_DONE) is_wanted = pi2_job_wait(job);
    (void)pthread_mutex_unlock(&job->mutex);
    if (is_wanted) return;
    leave_queue(scheduler, job);
    (void)pthread_mutex_lock(&job->mutex);
    while (job->state != PI2_JOB_DONE) (void)pi2_job_wait(job);
    (void)pthread_mutex_unlock(&job->mutex);
}

void pi2_scheduler_count(pi2_scheduler *scheduler, pi2_scheduler_counts *counts_out) {
    (void)pthread_mutex_lock(&scheduler->mutex);
    *counts_out = scheduler->counts;
    (void)pthread_mutex_unlock(&scheduler->mutex);
}
