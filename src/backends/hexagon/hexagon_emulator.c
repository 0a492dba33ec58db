/*
 * hexagon_emulator.c: the DSP as a child process. The memory is a memfd that cannot shrink, so that no access of ours
 * can fail because of what the child did to it; of the child's words a number, a status and a count are read, once
 * each, and compared with what they have to be. A child that has ended is noticed within WATCH_NS, one that hangs when
 * the request's time is over: it is killed, and the memory is ours alone then.
 */
#define _GNU_SOURCE /* syscall(), F_ADD_SEALS */
#include "backends/hexagon/hexagon_link.h"

#include "base/fail.h"

pi2_status pi2_hexagon_check_request(const pi2_hexagon_link *link, const pi2_hexagon_request *request,
                                     uint32_t *written_out) {
    if (request->product_count > PI2_HEXAGON_MOST_PRODUCTS) {
        return pi2_fail(PI2_ERR_INVALID, "a request of %u products for the Hexagon DSP: %d at most",
                        request->product_count, PI2_HEXAGON_MOST_PRODUCTS);
    }
    uint64_t written = 0;
    for (uint32_t i = 0; i < request->product_count; i++) {
        const pi2_hexagon_product *p = &request->products[i];
        if (!pi2_hexagon_product_fits(p, link->memory_bytes)) {
            return pi2_fail(PI2_ERR_INVALID, "product %u for the Hexagon DSP (%u tiles of %u columns, %u tokens) does "
                            "not fit its memory of %u bytes", i, p->tile_count, p->columns, p->token_count,
                            link->memory_bytes);
        }
        written += (uint64_t)p->tile_count * PI2_TILE_ROWS * p->token_count;
    }
    *written_out = (uint32_t)written;
    return PI2_OK;
}

#ifdef __linux__
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/memfd.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum { CHILD_FD = 3 };
static const uint64_t watch_ns = 10000000;
/* What one look counts for at most: of a process that was stopped (Ctrl-Z) no more has passed. */
static const uint64_t most_watch_ns = 100000000;

typedef struct child {
    pid_t process; /* 0: lost, or not started */
    int fd;
    uint32_t number;
    uint64_t timeout_ns;
    char program[256]; /* for messages */
} child;

static pi2_hexagon_words *words_of(const pi2_hexagon_link *link) { return (void *)link->memory; }

/* The child is ended, whatever it does, and waited for: nobody writes the memory any more. */
static void end_child(child *c) {
    if (c->process == 0) return;
    (void)kill(c->process, SIGKILL);
    while (waitpid(c->process, NULL, 0) < 0 && errno == EINTR) continue;
    c->process = 0;
}

/* Whether it has ended by itself; how is put into words. */
static bool has_ended(child *c, char *how, size_t size) {
    int status = 0;
    const pid_t got = waitpid(c->process, &status, WNOHANG);
    if (got == 0 || (got < 0 && errno == EINTR)) return false;
    if (got > 0 && WIFSIGNALED(status)) {
        (void)snprintf(how, size, "was ended by signal %d", WTERMSIG(status));
    } else {
        (void)snprintf(how, size, "ended with exit status %d", got > 0 ? WEXITSTATUS(status) : -1);
    }
    c->process = 0;
    return true;
}

static pi2_status wait_for_answer(pi2_hexagon_link *link, uint32_t previous, uint64_t timeout_ns) {
    child *c = link->state;
    pi2_hexagon_words *words = words_of(link);
    uint64_t last_ns = pi2_clock_ns(), waited_ns = 0;
    for (;;) {
        const uint32_t answered = atomic_load(&words->answered);
        if (answered == c->number) return PI2_OK;
        if (answered != previous) {
            return pi2_fail(PI2_ERR_IO, "the Hexagon DSP (%s) answered request %u, which is not the one it was asked "
                            "(%u)", c->program, answered, c->number);
        }
        const struct timespec slice = {.tv_nsec = (long)watch_ns};
        (void)syscall(SYS_futex, (void *)&words->answered, FUTEX_WAIT, previous, &slice, NULL, 0);
        char how[64];
        if (atomic_load(&words->answered) == previous && has_ended(c, how, sizeof how)) {
            return pi2_fail(PI2_ERR_IO, "the Hexagon DSP's process (%s) %s", c->program, how);
        }
        const uint64_t now_ns = pi2_clock_ns(), passed_ns = now_ns - last_ns;
        waited_ns += passed_ns < most_watch_ns ? passed_ns : most_watch_ns;
        last_ns = now_ns;
        if (waited_ns > timeout_ns && atomic_load(&words->answered) == previous) {
            return pi2_fail(PI2_ERR_IO, "the Hexagon DSP (%s) has not answered within %llu ms", c->program,
                            (unsigned long long)(timeout_ns / 1000000));
        }
    }
}

/* A request that was checked, its answer checked. */
static pi2_status exchange(pi2_hexagon_link *link, const pi2_hexagon_request *request, uint32_t written,
                           uint64_t timeout_ns) {
    child *c = link->state;
    pi2_hexagon_words *words = words_of(link);
    const uint32_t previous = c->number++;
    if (c->number == 0) c->number = 1; /* 0 is: nothing yet */
    words->request = *request;
    atomic_store(&words->asked, c->number);
    (void)syscall(SYS_futex, (void *)&words->asked, FUTEX_WAKE, 1, NULL, NULL, 0);
    PI2_TRY(wait_for_answer(link, previous, timeout_ns));
    const uint32_t status = atomic_load(&words->status), count = atomic_load(&words->written);
    if (status != PI2_HEXAGON_DONE || count != written) {
        return pi2_fail(PI2_ERR_IO, "the Hexagon DSP (%s) answers with status %u and %u results where status %d and %u "
                        "are due", c->program, status, count, PI2_HEXAGON_DONE, written);
    }
    return PI2_OK;
}

static pi2_status ask(pi2_hexagon_link *link, const pi2_hexagon_request *request) {
    child *c = link->state;
    uint32_t written = 0;
    if (c->process == 0) return pi2_fail(PI2_ERR_IO, "the Hexagon DSP (%s) was lost", c->program);
    PI2_TRY(pi2_hexagon_check_request(link, request, &written));
    const pi2_status status = exchange(link, request, written, c->timeout_ns);
    if (status != PI2_OK) end_child(c);
    return status;
}

static void close_link(pi2_hexagon_link *link) {
    child *c = link->state;
    end_child(c);
    if (link->memory) (void)munmap(link->memory, link->memory_bytes);
    if (c->fd >= 0) (void)close(c->fd);
    free(c);
    *link = (pi2_hexagon_link){0};
}

/* A memory whose size nobody can change, filled with zeros. */
static pi2_status make_memory(pi2_hexagon_link *link) {
    child *c = link->state;
    c->fd = (int)syscall(SYS_memfd_create, "powerinfer2-hexagon", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (c->fd < 0) {
        return pi2_fail(PI2_ERR_IO, "memory that is shared with the Hexagon DSP: %s", strerror(errno));
    }
    /* All of it is there from now on: later, memory that cannot be had would be a signal. */
    const int error = posix_fallocate(c->fd, 0, (off_t)link->memory_bytes);
    if (error != 0) {
        return pi2_fail(PI2_ERR_MEMORY, "no %u bytes to share with the Hexagon DSP: %s", link->memory_bytes,
                        strerror(error));
    }
    if (fcntl(c->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        return pi2_fail(PI2_ERR_IO, "memory that is shared with the Hexagon DSP: %s", strerror(errno));
    }
    void *map = mmap(NULL, link->memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
    if (map == MAP_FAILED) {
        return pi2_fail(PI2_ERR_MEMORY, "no %u bytes to share with the Hexagon DSP: %s", link->memory_bytes,
                        strerror(errno));
    }
    link->memory = map;
    return PI2_OK;
}

/* No input or output, the memory as CHILD_FD, signals as a new process has them, no part in the terminal's. */
static int prepare_spawn(const child *c, posix_spawn_file_actions_t *files, posix_spawnattr_t *attributes) {
    sigset_t none, all;
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    int bad = 0;
    for (int fd = 0; fd < 3; fd++) bad |= posix_spawn_file_actions_addopen(files, fd, "/dev/null", O_RDWR, 0);
    bad |= posix_spawn_file_actions_adddup2(files, c->fd, CHILD_FD);
    bad |= posix_spawnattr_setsigmask(attributes, &none) | posix_spawnattr_setsigdefault(attributes, &all);
    bad |= posix_spawnattr_setpgroup(attributes, 0);
    const int flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP;
    return bad | posix_spawnattr_setflags(attributes, (short)flags);
}

static pi2_status start_child(pi2_hexagon_link *link, const pi2_hexagon_emulator *options) {
    extern char **environ;
    child *c = link->state;
    char bytes[16], threads[16], fd[16];
    (void)snprintf(bytes, sizeof bytes, "%u", link->memory_bytes);
    (void)snprintf(threads, sizeof threads, "%u", options->thread_count);
    (void)snprintf(fd, sizeof fd, "%d", CHILD_FD);
    const bool has_processor = options->processor && options->processor[0];
    const char *const named[] = {options->emulator, "-cpu", options->processor, options->program, fd, bytes, threads,
                                 NULL};
    const char *const plain[] = {options->emulator, options->program, fd, bytes, threads, NULL};
    char *arguments[sizeof named / sizeof named[0]];
    memcpy(arguments, has_processor ? named : plain, has_processor ? sizeof named : sizeof plain);
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    if (posix_spawn_file_actions_init(&files) != 0) return pi2_fail(PI2_ERR_MEMORY, "no memory to start a process");
    if (posix_spawnattr_init(&attributes) != 0) {
        (void)posix_spawn_file_actions_destroy(&files);
        return pi2_fail(PI2_ERR_MEMORY, "no memory to start a process");
    }
    int error = prepare_spawn(c, &files, &attributes);
    pid_t process = 0;
    if (error == 0) error = posix_spawn(&process, options->emulator, &files, &attributes, arguments, environ);
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&files);
    if (error != 0) {
        return pi2_fail(PI2_ERR_IO, "the Hexagon emulator '%s' cannot be started: %s", options->emulator,
                        strerror(error));
    }
    c->process = process;
    return PI2_OK;
}

static pi2_status open_link(pi2_hexagon_link *link, const pi2_hexagon_emulator *options) {
    PI2_TRY(make_memory(link));
    pi2_hexagon_words *words = words_of(link);
    words->magic = PI2_HEXAGON_MAGIC;
    words->version = PI2_HEXAGON_VERSION;
    words->memory_bytes = link->memory_bytes;
    words->thread_count = options->thread_count;
    PI2_TRY(start_child(link, options));
    const pi2_hexagon_request nothing = {0};
    const pi2_status status = exchange(link, &nothing, 0, options->start_timeout_ns);
    return status == PI2_OK ? status : pi2_fail_prefix(status, "'%s' does not run", options->program);
}

pi2_status pi2_hexagon_open_emulator(const pi2_hexagon_emulator *options, pi2_hexagon_link *link_out) {
    const uint32_t page = 65536, most = UINT32_C(1) << 31;
    *link_out = (pi2_hexagon_link){0};
    if (options->memory_bytes <= PI2_HEXAGON_FIRST_AREA || options->memory_bytes > most ||
        options->thread_count < 1 || options->thread_count > PI2_HEXAGON_MOST_THREADS) {
        return pi2_fail(PI2_ERR_INVALID, "a Hexagon DSP with %u bytes and %u threads: it has up to 2 GiB and %d",
                        options->memory_bytes, options->thread_count, PI2_HEXAGON_MOST_THREADS);
    }
    child *c = calloc(1, sizeof *c);
    if (c == NULL) return pi2_fail(PI2_ERR_MEMORY, "no memory for a Hexagon DSP's state");
    c->fd = -1;
    c->timeout_ns = options->timeout_ns;
    (void)snprintf(c->program, sizeof c->program, "%s", options->program);
    *link_out = (pi2_hexagon_link){.state = c, .ask = ask, .close = close_link};
    link_out->memory_bytes = (options->memory_bytes + page - 1) / page * page;
    const pi2_status status = open_link(link_out, options);
    if (status != PI2_OK) close_link(link_out);
    return status;
}

long pi2_hexagon_emulator_process(const pi2_hexagon_link *link) {
    return link->state ? ((const child *)link->state)->process : 0;
}
#else

pi2_status pi2_hexagon_open_emulator(const pi2_hexagon_emulator *options, pi2_hexagon_link *link_out) {
    *link_out = (pi2_hexagon_link){0};
    return pi2_fail(PI2_ERR_UNSUPPORTED, "'%s': a Hexagon DSP is emulated on Linux only", options->program);
}

long pi2_hexagon_emulator_process(const pi2_hexagon_link *link) {
    (void)link;
    return 0;
}
#endif
