/*
 * io_uring.c: the read method "io_uring": one thread owns a ring and keeps the device busy.
 *
 * The thread takes requests from the queue until `depth` are in the kernel, then sleeps in
 * io_uring_enter until a read completes, so that submitting and waiting cost one system call
 * together. While it could take more it has to hear of new requests as well: a read of an eventfd
 * is always armed in the ring, and wants_wake tells submitters whether anyone sleeps, so that a
 * submit to a busy thread costs no system call.
 *
 *   submitter: puts a request into the queue; if exchange(wants_wake, false): writes the eventfd
 *   thread:    wants_wake = true; if the queue has work: wants_wake = false, takes it; else sleeps
 *
 * Lengths and wants_wake are sequentially consistent, so one of the two sees the other's step.
 *
 * The ring is created, used and destroyed by its thread (IORING_SETUP_SINGLE_ISSUER), and its
 * completions are handled when the thread asks for them, not by interrupting it (DEFER_TASKRUN,
 * else COOP_TASKRUN, else neither).
 */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fail.h"
#include "base/thread_start.h"
#include "storage/read_method.h"

enum {
    STACK_BYTES = 128 * 1024,
    MOST_BUFFERS = 1024, /* that old kernels register */
    NO_SLOT = -1,
    STARTING = 0,
    RUNNING = 1,
    REFUSED = 2
};
static const uint64_t wake_data = UINT64_MAX;        /* user_data of the eventfd's read */
static const size_t most_buffer_bytes = 1024u << 20; /* that the kernel registers as one buffer */

/** One read in the kernel. Free slots are linked by next_free. */
typedef struct ring_slot {
    pi2_read_progress progress;
    int next_free;
} ring_slot;

typedef struct ring_state {
    struct io_uring ring;
    int direct_fd, event_fd;
    uint64_t event_value; /* where the armed read of the eventfd puts its count */
    _Atomic bool wants_wake;
    _Atomic int start; /* STARTING -> RUNNING | REFUSED */
    pi2_status start_status;
    char start_error[PI2_READ_TEXT_BYTES];
    bool fixed_file;
    size_t fixed_buffers;
    char buffers_refusal[PI2_READ_TEXT_BYTES];
    const char *setup_name;
    int broken; /* errno of a ring that no longer takes calls; 0: it works */
    pthread_t thread;
    int first_free;
    uint32_t in_use;
    void *dropped; /* where bytes without a place go, of all reads */
    ring_slot slots[];
} ring_state;

/* ---- Submitting ---- */

static struct io_uring_sqe *next_entry(ring_state *state) {
    struct io_uring_sqe *entry = io_uring_get_sqe(&state->ring);
    assert(entry); /* the ring has room for every slot and the eventfd's read */
    return entry;
}

static void arm_wake(ring_state *state) {
    struct io_uring_sqe *entry = next_entry(state);
    io_uring_prep_read(entry, state->event_fd, &state->event_value, sizeof state->event_value, 0);
    io_uring_sqe_set_data64(entry, wake_data);
}

/* Number of the registered buffer that holds the whole range, or -1. */
static int fixed_buffer_of(const pi2_reader *reader, const ring_state *state,
                           const unsigned char *begin, uint32_t bytes) {
    if (state->fixed_buffers == 0) return -1;
    const uintptr_t base = (uintptr_t)reader->buffer, address = (uintptr_t)begin;
    if (address < base || address - base >= reader->buffer_bytes) return -1;
    if (bytes > reader->buffer_bytes - (address - base)) return -1;
    const size_t index = (address - base) / most_buffer_bytes;
    const size_t last = (address - base + bytes - 1) / most_buffer_bytes;
    return index == last ? (int)index : -1;
}

static void prepare_read(pi2_reader *reader, ring_state *state, int slot_index) {
    pi2_read_progress *progress = &state->slots[slot_index].progress;
    pi2_read_next(progress);
    const pi2_read_operation *operation = &progress->operation;
    unsigned char *begin = operation->places[0].iov_base;
    const bool fixed_file = state->fixed_file && !progress->buffered;
    const bool is_whole = operation->place_count == 1;
    const int fd = progress->buffered ? reader->buffered_fd : fixed_file ? 0 : state->direct_fd;
    const int buffer = progress->buffered || !is_whole ? -1 : fixed_buffer_of(reader, state, begin, operation->bytes);
    struct io_uring_sqe *entry = next_entry(state);
    if (!is_whole) { /* vectors of registered buffers came with Linux 6.15 */
        io_uring_prep_readv(entry, fd, operation->places, operation->place_count, operation->offset);
    } else if (buffer >= 0) {
        io_uring_prep_read_fixed(entry, fd, begin, operation->bytes, operation->offset, buffer);
    } else {
        io_uring_prep_read(entry, fd, begin, operation->bytes, operation->offset);
    }
    if (fixed_file) io_uring_sqe_set_flags(entry, IOSQE_FIXED_FILE);
    io_uring_sqe_set_data64(entry, (unsigned)slot_index);
}

static void fill_ring(pi2_reader *reader, ring_state *state) {
    if (state->in_use == reader->depth || !pi2_read_has_work(reader)) return;
    pi2_read_request *next = NULL;
    for (pi2_read_request *r = pi2_read_take(reader, reader->depth - state->in_use); r; r = next) {
        next = r->next;
        const int slot_index = state->first_free;
        assert(slot_index != NO_SLOT);
        ring_slot *slot = &state->slots[slot_index];
        state->first_free = slot->next_free;
        state->in_use++;
        pi2_read_begin(reader, r, &slot->progress);
        slot->progress.dropped = state->dropped;
        prepare_read(reader, state, slot_index);
    }
}

/* ---- Completing ---- */

static void finish_slot(pi2_reader *reader, ring_state *state, int slot_index) {
    ring_slot *slot = &state->slots[slot_index];
    if (slot->progress.buffered) pi2_read_drop_behind(reader, slot->progress.request);
    pi2_read_finish(reader, &slot->progress);
    slot->progress.request = NULL;
    slot->next_free = state->first_free;
    state->first_free = slot_index;
    state->in_use--;
}

static void complete(pi2_reader *reader, ring_state *state, uint64_t data, int result) {
    if (data == wake_data) {
        arm_wake(state);
        return;
    }
    const int slot_index = (int)data;
    pi2_read_progress *progress = &state->slots[slot_index].progress;
    assert(progress->request);
    if (pi2_read_book(reader, progress, pi2_read_hooked(reader, progress, result))) {
        finish_slot(reader, state, slot_index);
    } else {
        prepare_read(reader, state, slot_index);
    }
}

/* Each entry is given back before its read is booked, because booking may prepare the next. */
static unsigned complete_all(pi2_reader *reader, ring_state *state) {
    unsigned count = 0;
    struct io_uring_cqe *completion = NULL;
    while (io_uring_peek_cqe(&state->ring, &completion) == 0) {
        const uint64_t data = io_uring_cqe_get_data64(completion);
        const int result = completion->res;
        io_uring_cqe_seen(&state->ring, completion);
        complete(reader, state, data, result);
        count++;
    }
    return count;
}

static void nap(void) {
    const struct timespec time = {.tv_sec = 0, .tv_nsec = 1000000};
    (void)nanosleep(&time, NULL);
}

/* Submits what is prepared and sleeps until something completes. */
static void submit_and_sleep(pi2_reader *reader, ring_state *state) {
    const pi2_read_hooks *hooks = reader->hooks;
    int result = hooks->ring_enter ? -hooks->ring_enter(hooks->context) : 0;
    if (result == 0) result = io_uring_submit_and_wait(&state->ring, 1);
    atomic_store(&state->wants_wake, false);
    if (complete_all(reader, state) > 0 || result >= 0 || result == -EINTR) return;
    if (result == -EAGAIN || result == -EBUSY) { /* the kernel is short of memory: try again */
        nap();
    } else {
        state->broken = -result;
    }
}

/* ---- The thread ---- */

static void fail_read(pi2_reader *reader, const ring_state *state, pi2_read_progress *progress) {
    progress->request->status = PI2_ERR_IO;
    progress->request->error_number = state->broken;
    pi2_read_finish(reader, progress);
}

/*
 * The ring refused a call for good, which no working kernel does. Every read fails with its
 * error; one that is in the kernel may still write to its destination, as the device does.
 * Nothing but naps here: the armed read may take the eventfd's count.
 */
static void serve_broken(pi2_reader *reader, ring_state *state) {
    for (uint32_t i = 0; i < reader->depth; i++) {
        pi2_read_progress *progress = &state->slots[i].progress;
        if (progress->request) fail_read(reader, state, progress);
    }
    while (!atomic_load(&reader->queue.closing)) {
        pi2_read_request *next = NULL;
        for (pi2_read_request *r = pi2_read_take(reader, reader->depth); r; r = next) {
            next = r->next;
            pi2_read_progress progress;
            pi2_read_begin(reader, r, &progress);
            fail_read(reader, state, &progress);
        }
        nap();
    }
}

static void serve(pi2_reader *reader, ring_state *state) {
    while (!state->broken) {
        fill_ring(reader, state);
        if (state->in_use < reader->depth) {
            atomic_store(&state->wants_wake, true);
            const bool closing = atomic_load(&reader->queue.closing);
            if (closing && state->in_use == 0) return;
            if (pi2_read_has_work(reader)) {
                atomic_store(&state->wants_wake, false);
                continue;
            }
        }
        submit_and_sleep(reader, state);
    }
    serve_broken(reader, state);
}

/* ---- Setting up, on the thread ---- */

static int init_ring(pi2_reader *reader, ring_state *state) {
    static const struct {
        unsigned flags;
        const char *name;
    } setups[] = {
#if defined(IORING_SETUP_SINGLE_ISSUER) && defined(IORING_SETUP_DEFER_TASKRUN)
        {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, "deferred completions"},
#endif
#if defined(IORING_SETUP_COOP_TASKRUN)
        {IORING_SETUP_COOP_TASKRUN, "cooperative completions"},
#endif
        {0, "plain ring"},
    };
    const pi2_read_hooks *hooks = reader->hooks;
    int result = hooks->ring_setup ? -hooks->ring_setup(hooks->context) : 0;
    if (result) return result;
    for (size_t i = 0; i < sizeof setups / sizeof setups[0]; i++) {
        struct io_uring_params parameters;
        memset(&parameters, 0, sizeof parameters);
        parameters.flags = setups[i].flags;
        state->setup_name = setups[i].name;
        result = io_uring_queue_init_params(reader->depth + 1, &state->ring, &parameters);
        if (result != -EINVAL) break; /* only an unknown flag is worth another try */
    }
    return result;
}

static void register_buffers(pi2_reader *reader, ring_state *state) {
    struct iovec buffers[MOST_BUFFERS];
    const pi2_read_hooks *hooks = reader->hooks;
    const size_t count = reader->buffer_bytes / most_buffer_bytes +
                         (reader->buffer_bytes % most_buffer_bytes != 0);
    if (count == 0) return;
    int result = hooks->register_buffers ? -hooks->register_buffers(hooks->context) : 0;
    if (count > MOST_BUFFERS) result = -E2BIG;
    for (size_t i = 0; i < count && !result; i++) {
        const size_t begin = i * most_buffer_bytes, left = reader->buffer_bytes - begin;
        buffers[i].iov_base = (unsigned char *)reader->buffer + begin;
        buffers[i].iov_len = left < most_buffer_bytes ? left : most_buffer_bytes;
    }
    if (!result) result = io_uring_register_buffers(&state->ring, buffers, (unsigned)count);
    if (result == 0) {
        state->fixed_buffers = count;
        return;
    }
    (void)snprintf(state->buffers_refusal, sizeof state->buffers_refusal,
                   "plain buffers (registering refused: %.80s%s)", strerror(-result),
                   result == -ENOMEM ? "; see ulimit -l" : "");
}

/* Reads the first block on trial: the ring, O_DIRECT and the file system in one go. */
static int try_read(pi2_reader *reader, ring_state *state) {
    void *block = NULL;
    if (posix_memalign(&block, PI2_READ_ALIGNMENT, PI2_READ_ALIGNMENT) != 0) return -ENOMEM;
    pi2_read_request request = {.bytes = PI2_READ_ALIGNMENT, .destination = block};
    state->slots[0].progress = (pi2_read_progress){.request = &request};
    int result = 0;
    for (int attempts = 0; attempts < 100; attempts++) {
        prepare_read(reader, state, 0);
        do {
            result = io_uring_submit_and_wait(&state->ring, 1);
        } while (result == -EINTR);
        struct io_uring_cqe *completion = NULL;
        if (result >= 0) result = io_uring_peek_cqe(&state->ring, &completion);
        if (result < 0) break; /* the read may still come: the ring's end waits for it */
        result = completion->res;
        io_uring_cqe_seen(&state->ring, completion);
        result = (int)pi2_read_hooked(reader, &state->slots[0].progress, result);
        if (result != -EINTR && result != -EAGAIN) break;
    }
    state->slots[0].progress.request = NULL;
    free(block);
    return result < 0 ? result : 0;
}

/*
 * The kernel tears a ring down some 50 ms after its last close, and pages that are still
 * registered then count as used memory until it has: in a small control group the next process
 * would find no room. So they are given back first.
 */
static void end_ring(ring_state *state) {
    if (state->fixed_buffers) (void)io_uring_unregister_buffers(&state->ring);
    if (state->fixed_file) (void)io_uring_unregister_files(&state->ring);
    io_uring_queue_exit(&state->ring);
}

static pi2_status set_up(pi2_reader *reader, ring_state *state) {
    int result = init_ring(reader, state);
    if (result < 0) return pi2_fail(PI2_ERR_INVALID, "%s", strerror(-result));
    state->fixed_file = io_uring_register_files(&state->ring, &state->direct_fd, 1) == 0;
    register_buffers(reader, state);
    result = try_read(reader, state);
    if (result < 0) {
        end_ring(state);
        return pi2_fail(PI2_ERR_INVALID, "an O_DIRECT read came to: %s", strerror(-result));
    }
    arm_wake(state);
    return PI2_OK;
}

static void *thread_main(void *argument) {
    pi2_reader *reader = argument;
    ring_state *state = reader->method_state;
    _Alignas(PI2_READ_ALIGNMENT) unsigned char dropped[PI2_READ_ALIGNMENT];
    pi2_thread_ask_for_short_slices();
    state->dropped = dropped;
    const pi2_status status = set_up(reader, state);
    state->start_status = status;
    if (status != PI2_OK) {
        (void)snprintf(state->start_error, sizeof state->start_error, "%s", pi2_error_text());
    }
    atomic_store(&state->start, status == PI2_OK ? RUNNING : REFUSED);
    pi2_wake_sleepers(&reader->sleepers, &state->start);
    if (status != PI2_OK) return NULL;
    serve(reader, state);
    end_ring(state);
    return NULL;
}

/* ---- The method ---- */

static void free_state(pi2_reader *reader) {
    ring_state *state = reader->method_state;
    if (state->direct_fd >= 0) (void)close(state->direct_fd);
    if (state->event_fd >= 0) (void)close(state->event_fd);
    free(state);
    reader->method_state = NULL;
}

static pi2_status start_thread(pi2_reader *reader, ring_state *state) {
    const pi2_read_hooks *hooks = reader->hooks;
    state->direct_fd = pi2_read_open_direct(reader);
    if (state->direct_fd < 0) {
        return pi2_fail(PI2_ERR_INVALID, "O_DIRECT refused: %s", strerror(errno));
    }
    state->event_fd = eventfd(0, EFD_CLOEXEC);
    if (state->event_fd < 0) return pi2_fail(PI2_ERR_INVALID, "eventfd: %s", strerror(errno));
    int error = hooks->thread_create ? hooks->thread_create(hooks->context, 0) : 0;
    if (!error) error = pi2_thread_start(&state->thread, STACK_BYTES, thread_main, reader);
    if (error) return pi2_fail(PI2_ERR_MEMORY, "cannot start its thread: %s", strerror(error));
    (void)pi2_wait_for_change(&reader->sleepers, &state->start, STARTING, 0, 0);
    if (atomic_load(&state->start) == RUNNING) return PI2_OK;
    (void)pthread_join(state->thread, NULL);
    return pi2_fail(state->start_status, "%s", state->start_error);
}

static pi2_status uring_open(pi2_reader *reader) {
#if defined(__ANDROID__)
    return pi2_fail(PI2_ERR_INVALID, "Android ends an application that calls it");
#endif
    ring_state *state = calloc(1, sizeof *state + reader->depth * sizeof state->slots[0]);
    if (!state) return pi2_fail(PI2_ERR_MEMORY, "no memory for %u reads", (unsigned)reader->depth);
    reader->method_state = state;
    state->direct_fd = -1;
    state->event_fd = -1;
    atomic_init(&state->wants_wake, false);
    atomic_init(&state->start, STARTING);
    for (uint32_t i = 0; i < reader->depth; i++) {
        state->slots[i].next_free = i + 1 < reader->depth ? (int)i + 1 : NO_SLOT;
    }
    const pi2_status status = start_thread(reader, state);
    if (status != PI2_OK) {
        free_state(reader);
        return status;
    }
    (void)snprintf(reader->description, sizeof reader->description,
                   "io_uring, depth %u, O_DIRECT, %s, %s", (unsigned)reader->depth,
                   state->fixed_buffers         ? "registered buffers"
                   : state->buffers_refusal[0] ? state->buffers_refusal
                                                : "plain buffers",
                   state->setup_name);
    return PI2_OK;
}

static void uring_wake(pi2_reader *reader, size_t count) {
    (void)count;
    ring_state *state = reader->method_state;
    if (!atomic_exchange(&state->wants_wake, false)) return;
    const uint64_t one = 1;
    while (write(state->event_fd, &one, sizeof one) < 0 && errno == EINTR) continue;
}

static void uring_close(pi2_reader *reader) {
    ring_state *state = reader->method_state;
    (void)pthread_join(state->thread, NULL);
    free_state(reader);
}

const pi2_read_method pi2_read_method_io_uring = {
    .name = "io_uring",
    .open = uring_open,
    .wake = uring_wake,
    .close = uring_close,
};
