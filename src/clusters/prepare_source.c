/*
 * prepare_source.c: the hash of the whole source, taken by a thread of its own while groups are built: the builders
 * read in an order of their own and some rows twice, so none of them sees the source as it lies in its files.
 */
#include <stdio.h>
#include <time.h>

#include "base/fail.h"
#include "base/thread_start.h"
#include "clusters/prepare_internal.h"

enum { STACK_BYTES = 256 * 1024 };

static bool is_stopped(void *user) {
    const pi2_source_hashing *self = user;
    return atomic_load(&self->stop);
}

static void *hash_source(void *user) {
    pi2_source_hashing *self = user;
    const pi2_callbacks callbacks = { .user = self, .cancelled = is_stopped };
    self->status = pi2_source_hash(self->source, PI2_SOURCE_HASH_BYTES, &callbacks, &self->hash);
    if (self->status == PI2_OK) self->status = pi2_source_check_unchanged(self->source);
    if (self->status != PI2_OK) (void)snprintf(self->error, sizeof self->error, "%s", pi2_error_text());
    atomic_store(&self->is_done, true);
    return NULL;
}

void pi2_prepare_hash_begin(pi2_prepare_run *run) {
    pi2_source_hashing *self = &run->hashing;
    self->source = run->source;
    self->is_started = pi2_thread_start(&self->thread, STACK_BYTES, hash_source, self) == 0;
}

pi2_status pi2_prepare_hash_end(pi2_prepare_run *run, pi2_status groups) {
    pi2_source_hashing *self = &run->hashing;
    pi2_status status = groups;
    if (!self->is_started && status == PI2_OK) (void)hash_source(self);
    while (self->is_started && status == PI2_OK && !atomic_load(&self->is_done)) {
        const struct timespec pause = { .tv_nsec = 2000000 };
        (void)nanosleep(&pause, NULL);
        status = pi2_prepare_report(run);
    }
    atomic_store(&self->stop, true);
    if (self->is_started) (void)pthread_join(self->thread, NULL);
    PI2_TRY(status);
    if (self->status != PI2_OK) return pi2_fail(self->status, "%s", self->error);
    pi2_prepare_patch(run, run->header.content_hash_at, self->hash);
    return PI2_OK;
}
