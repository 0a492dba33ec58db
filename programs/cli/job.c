/* job.c: see job.h. */
#define _GNU_SOURCE /* POLLRDHUP */
#include "job.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "output.h"
#include "timed_wait.h"

static const uint64_t LOOK_NS = 250000000; /* clients leave without a signal */

uint32_t pi2_job_seed(uint32_t seed, uint32_t index) {
    return seed == UINT32_MAX ? seed : (uint32_t)(((uint64_t)seed + index) % UINT32_MAX);
}

void pi2_job_init(pi2_job *job, const pi2_sampling *sampling) {
    job->sampling = *sampling;
    job->limit = -1;
    job->socket = -1;
    (void)pthread_mutex_init(&job->mutex, NULL);
    pi2_timed_condition_init(&job->changed);
}

void pi2_job_free(pi2_job *job) {
    (void)pthread_mutex_destroy(&job->mutex);
    (void)pthread_cond_destroy(&job->changed);
    free(job->biases);
    free(job->text.data);
    free(job->tokens.data);
    free(job->chances);
}

bool pi2_job_add_stop(pi2_job *job, const char *word) {
    const size_t bytes = strlen(word) + 1;
    if (bytes == 1) return true;
    if (job->stop_words.count == PI2_CLI_MAX_TEXTS || bytes > sizeof job->stop_text - job->stop_length) return false;
    char *copy = memcpy(job->stop_text + job->stop_length, word, bytes);
    job->stop_length += bytes;
    job->stop_words.items[job->stop_words.count++] = copy;
    return true;
}

bool pi2_job_is_full(pi2_job *job) {
    (void)pthread_mutex_lock(&job->mutex);
    job->is_held = job->is_streamed && (job->text.length - job->text_taken >= PI2_JOB_UNTAKEN_BYTES ||
                                        job->chance_count - job->chances_taken >= PI2_JOB_UNTAKEN_CHANCES);
    const bool is_full = job->is_held;
    (void)pthread_mutex_unlock(&job->mutex);
    return is_full;
}

size_t pi2_job_take_text(pi2_job *job, char *text_out, size_t capacity) {
    pi2_cli_text *text = &job->text;
    const char *from = text->data + job->text_taken;
    size_t length = text->length - job->text_taken;
    if (length > capacity) { /* at a character's beginning */
        length = capacity;
        while (length > 1 && ((unsigned char)from[length] & 0xc0) == 0x80) length--;
    }
    if (length == 0) return 0;
    memcpy(text_out, from, length);
    job->text_taken += length;
    if (job->text_taken == text->length || job->text_taken >= PI2_JOB_UNTAKEN_BYTES) {
        memmove(text->data, text->data + job->text_taken, text->length - job->text_taken + 1);
        text->length -= job->text_taken;
        job->text_taken = 0;
    }
    return length;
}

size_t pi2_job_take_chances(pi2_job *job, pi2_token_chance *chances_out, size_t most) {
    const size_t width = 1 + job->top_count, left = job->chance_count - job->chances_taken;
    const size_t count = left < most ? left : most;
    if (count == 0) return 0;
    memcpy(chances_out, job->chances + job->chances_taken * width, count * width * sizeof *chances_out);
    job->chances_taken += count;
    if (job->is_streamed && job->chances_taken == job->chance_count) job->chances_taken = job->chance_count = 0;
    return count;
}

/* A client that has closed its side is gone, also one that only said that it sends no more: none of the API's does. */
bool pi2_client_has_left(int socket) {
    if (socket < 0) return false;
#ifdef POLLRDHUP
    struct pollfd polled = {.fd = socket, .events = POLLRDHUP}; /* also behind bytes that nobody has read */
    return poll(&polled, 1, 0) > 0;
#else
    char byte;
    const ssize_t count = recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return count == 0 || (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
#endif
}

bool pi2_job_look_after(pi2_job *job) {
    if (!job->is_cancelled && pi2_client_has_left(job->socket)) job->is_cancelled = true;
    if (!job->is_late && job->deadline_ns && job->state != PI2_JOB_DONE && pi2_cli_now_ns() >= job->deadline_ns) {
        job->is_late = true;
        job->was_queued = job->state == PI2_JOB_WAITING;
    }
    return !job->is_cancelled && !job->is_late;
}

bool pi2_job_is_unwanted(pi2_job *job) {
    (void)pthread_mutex_lock(&job->mutex);
    const bool is_unwanted = !pi2_job_look_after(job);
    (void)pthread_mutex_unlock(&job->mutex);
    return is_unwanted;
}

bool pi2_job_wait(pi2_job *job) {
    uint64_t until_ns = pi2_cli_now_ns() + LOOK_NS;
    if (!job->is_late && job->deadline_ns && job->deadline_ns < until_ns) until_ns = job->deadline_ns;
    (void)pi2_timed_wait(&job->changed, &job->mutex, until_ns);
    return pi2_job_look_after(job);
}

bool pi2_job_is_done(pi2_job *job) {
    (void)pthread_mutex_lock(&job->mutex);
    const bool is_done = job->state == PI2_JOB_DONE;
    (void)pthread_mutex_unlock(&job->mutex);
    return is_done;
}
