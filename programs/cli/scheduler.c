/* scheduler.c: the queue, and the thread that computes. */
#include "scheduler.h"

#include <stdlib.h>
#include <string.h>

#include "output.h"
#include "timed_wait.h"

struct pi2_scheduler {
    pi2_engine *engine;
    pi2_slots *slots;         /* of the thread alone */
    pi2_slot_report *reports; /* [slots]: the thread's, to be published */
    pi2_scheduler_watch *watch;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pi2_job *first, *last;    /* waiting */
    size_t taken;             /* jobs that left the queue and are not in counts.slots.running yet */
    bool is_woken;            /* something changed while the thread was not waiting */
    pi2_scheduler_counts counts;
    pi2_slot_report *published; /* [slots] */
};

bool pi2_scheduler_is_cancelled(void *user) {
    const pi2_scheduler_watch *watch = user;
    if (watch->is_stopping) return true;
    return watch->slots && pi2_slots_are_unwanted(watch->slots);
}

bool pi2_scheduler_note_progress(const pi2_scheduler_watch *watch, const char *what, uint64_t done, uint64_t total) {
    if (!watch->slots || strcmp(what, "prompt") != 0) return false;
    pi2_slots_note_progress(watch->slots, done, total);
    return true;
}

/* ---- the thread ---- */

/** What others may look at. */
static void publish(pi2_scheduler *scheduler) {
    pi2_engine_counters counters;
    pi2_slots_counts counts;
    pi2_engine_count(scheduler->engine, &counters);
    pi2_slots_count(scheduler->slots, &counts, scheduler->reports);
    (void)pthread_mutex_lock(&scheduler->mutex);
    scheduler->taken = 0;
    scheduler->counts.counters = counters;
    scheduler->counts.slots = counts;
    memcpy(scheduler->published, scheduler->reports, counts.slots * sizeof *scheduler->reports);
    (void)pthread_mutex_unlock(&scheduler->mutex);
}

/** The job that has waited longest, while a slot is free; the mutex is held. */
static pi2_job *take_first(pi2_scheduler *scheduler) {
    pi2_job *job = scheduler->first;
    if (!job || !pi2_slots_have_room(scheduler->slots)) return NULL;
    scheduler->first = job->next;
    if (!scheduler->first) scheduler->last = NULL;
    scheduler->counts.waiting--;
    scheduler->taken++;
    return job;
}

/** Waits until something changes, or a job whose reader is behind has to end. The mutex is held. */
static void wait_for_change(pi2_scheduler *scheduler) {
    const uint64_t deadline_ns = pi2_slots_deadline(scheduler->slots);
    bool is_in_time = true;
    while (is_in_time && !scheduler->is_woken && !scheduler->watch->is_stopping &&
           !(scheduler->first && pi2_slots_have_room(scheduler->slots))) {
        if (deadline_ns) is_in_time = pi2_timed_wait(&scheduler->changed, &scheduler->mutex, deadline_ns);
        else (void)pthread_cond_wait(&scheduler->changed, &scheduler->mutex);
    }
}

/** Gives free slots to jobs that wait. must_wait: nothing can be computed before something changes. */
static void admit(pi2_scheduler *scheduler, bool must_wait) {
    (void)pthread_mutex_lock(&scheduler->mutex);
    if (must_wait) wait_for_change(scheduler);
    scheduler->is_woken = false;
    for (pi2_job *job; (job = take_first(scheduler)) != NULL;) {
        (void)pthread_mutex_unlock(&scheduler->mutex);
        pi2_slots_admit(scheduler->slots, job);
        (void)pthread_mutex_lock(&scheduler->mutex);
    }
    (void)pthread_mutex_unlock(&scheduler->mutex);
}

static void *work(void *argument) {
    pi2_scheduler *scheduler = argument;
    bool can_go_on = false, has_jobs = true;
    while (!scheduler->watch->is_stopping || has_jobs) {
        admit(scheduler, !can_go_on);
        publish(scheduler);
        if (scheduler->watch->is_stopping) {
            pi2_slots_end_all(scheduler->slots);
            (void)pthread_mutex_lock(&scheduler->mutex);
            has_jobs = scheduler->first != NULL;
            (void)pthread_mutex_unlock(&scheduler->mutex);
        } else {
            scheduler->watch->slots = scheduler->slots;
            can_go_on = pi2_slots_step(scheduler->slots);
            scheduler->watch->slots = NULL;
        }
        publish(scheduler);
    }
    return NULL;
}

/* ---- begin and end ---- */

void pi2_scheduler_plan(pi2_engine_options *options, uint32_t slots, size_t queue_most) {
    enum { STREAM = 128 << 10 /* untaken text, and chances as JSON */, TOKEN = sizeof(int32_t), TEXT_OF_TOKEN = 8 };
    const uint64_t waiting = (queue_most + slots - 1) / slots; /* prompts for each slot */
    options->sequences = slots;
    options->beside_session_bytes = STREAM + (1 + waiting) * sizeof(pi2_job);
    options->beside_token_bytes = 3 * TOKEN + TEXT_OF_TOKEN + waiting * TOKEN; /* timeline, prompt, answer, its text */
}

static void release(pi2_scheduler *scheduler) {
    pi2_slots_free(scheduler->slots);
    free(scheduler->reports);
    free(scheduler->published);
    free(scheduler);
}

pi2_status pi2_scheduler_create(pi2_engine *engine, pi2_scheduler_watch *watch, size_t queue_most,
                                pi2_scheduler **scheduler_out) {
    *scheduler_out = NULL;
    pi2_scheduler *scheduler = calloc(1, sizeof *scheduler);
    if (!scheduler) return PI2_ERR_MEMORY;
    const uint32_t slots = pi2_engine_get_report(engine)->sequences;
    scheduler->engine = engine;
    scheduler->watch = watch;
    scheduler->counts.queue_most = queue_most;
    scheduler->counts.slots.slots = slots;
    scheduler->reports = calloc(slots, sizeof *scheduler->reports);
    scheduler->published = calloc(slots, sizeof *scheduler->published);
    const pi2_status status = pi2_slots_create(engine, &scheduler->slots);
    if (status != PI2_OK || !scheduler->reports || !scheduler->published) {
        release(scheduler);
        return PI2_ERR_MEMORY;
    }
    (void)pthread_mutex_init(&scheduler->mutex, NULL);
    pi2_timed_condition_init(&scheduler->changed);
    if (pthread_create(&scheduler->thread, NULL, work, scheduler) != 0) {
        release(scheduler);
        return PI2_ERR_MEMORY;
    }
    *scheduler_out = scheduler;
    return PI2_OK;
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
    (void)pthread_mutex_destroy(&scheduler->mutex);
    (void)pthread_cond_destroy(&scheduler->changed);
    release(scheduler);
}

/* ---- the queue ---- */

static void wake(pi2_scheduler *scheduler) {
    scheduler->is_woken = true;
    (void)pthread_cond_signal(&scheduler->changed);
}

void pi2_scheduler_wake(pi2_scheduler *scheduler) {
    (void)pthread_mutex_lock(&scheduler->mutex);
    wake(scheduler);
    (void)pthread_mutex_unlock(&scheduler->mutex);
}

bool pi2_scheduler_submit(pi2_scheduler *scheduler, pi2_job *const *jobs, size_t count) {
    (void)pthread_mutex_lock(&scheduler->mutex);
    pi2_scheduler_counts *counts = &scheduler->counts;
    const size_t there = counts->waiting + scheduler->taken + counts->slots.running;
    const bool has_room = there + count <= counts->queue_most + counts->slots.slots && !scheduler->watch->is_stopping;
    for (size_t i = 0; has_room && i < count; i++) {
        if (scheduler->last) scheduler->last->next = jobs[i];
        else scheduler->first = jobs[i];
        scheduler->last = jobs[i];
        jobs[i]->next = NULL;
        counts->waiting++;
    }
    counts->requests += has_room;
    counts->refused += !has_room;
    if (has_room) wake(scheduler);
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
    wake(scheduler); /* a job that is held is looked after */
    (void)pthread_mutex_unlock(&scheduler->mutex);
}

void pi2_scheduler_finish(pi2_scheduler *scheduler, pi2_job *job, bool cancel) {
    (void)pthread_mutex_lock(&job->mutex);
    if (cancel) {
        job->is_cancelled = true;
        job->socket = -1;
    }
    bool is_wanted = !cancel && pi2_job_look_after(job);
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

pi2_slot_report pi2_scheduler_slot(pi2_scheduler *scheduler, uint32_t index) {
    (void)pthread_mutex_lock(&scheduler->mutex);
    const pi2_slot_report report = scheduler->published[index];
    (void)pthread_mutex_unlock(&scheduler->mutex);
    return report;
}
