/* backend.c: devices by name, their loss, and what they did. */
#include "backends/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/fail.h"

#define BACKEND(name) extern const pi2_backend_kind pi2_backend_##name;
#include "backends/backends.inc"

struct pi2_backend {
    const pi2_backend_kind *kind;
    void *state;
    pi2_device_facts facts;
    _Atomic bool is_lost;
    char loss[512];
    _Atomic uint64_t calls, weight_bytes, busy_ns;
};

static const pi2_backend_kind *const kinds[] = {
#define BACKEND(name) &pi2_backend_##name,
#include "backends/backends.inc"
    NULL
};

static const pi2_backend_kind *added_kind; /* a test's, behind those of the list */

void pi2_backend_add_kind(const pi2_backend_kind *kind) { added_kind = kind; }

/* NULL behind the last. */
static const pi2_backend_kind *kind_at(size_t i) {
    const size_t listed = sizeof kinds / sizeof kinds[0] - 1;
    return i < listed ? kinds[i] : i == listed ? added_kind : NULL;
}

void pi2_backend_list(pi2_device_visitor *visit, void *user) {
    for (size_t i = 0; kind_at(i); i++) kind_at(i)->list(visit, user);
}

/* Lists the names of kinds, for a message. */
static void name_kinds(char *text, size_t size) {
    size_t at = 0;
    text[0] = 0;
    for (size_t i = 0; kind_at(i) && at < size; i++) {
        const int length = snprintf(text + at, size - at, "%s%s", i ? ", " : "", kind_at(i)->name);
        if (length < 0) return;
        at += (size_t)length;
    }
    if (at == 0) (void)snprintf(text, size, "none in this build");
}

enum { MOST_DEVICES = 64 };

/* Devices of a kind that may be used, as far as listing them tells. */
typedef struct device_numbers {
    bool are_processors; /* which are looked for */
    unsigned seen, count, of[MOST_DEVICES];
} device_numbers;

static void look_at(void *user, const pi2_device_facts *facts) {
    device_numbers *numbers = user;
    const bool is_asked_for = !facts->refused && facts->is_processor == numbers->are_processors;
    if (is_asked_for && numbers->count < MOST_DEVICES) numbers->of[numbers->count++] = numbers->seen;
    numbers->seen++;
}

pi2_status pi2_backend_open_kind(const pi2_backend_kind *kind, unsigned device, const pi2_backend_options *options,
                                 pi2_backend **backend_out) {
    *backend_out = NULL;
    pi2_backend *backend = calloc(1, sizeof *backend);
    if (!backend) return pi2_fail(PI2_ERR_MEMORY, "no memory for a device");
    pi2_backend_options filled = *options;
    if (filled.timeout_ns == 0) filled.timeout_ns = PI2_BACKEND_TIMEOUT_NS;
    backend->kind = kind;
    const pi2_status status = kind->open(device, &filled, &backend->state, &backend->facts);
    if (status != PI2_OK) {
        free(backend);
        return status;
    }
    *backend_out = backend;
    return PI2_OK;
}

/* The first that opens: one may lack what its driver needs, or have other bits, which only opening it tells. A driver
 * that has the processor compute often comes first in the list, and is what the processor does better without it. The
 * error is the first one's. */
static pi2_status open_any(const pi2_backend_kind *kind, const pi2_backend_options *options,
                           pi2_backend **backend_out) {
    device_numbers numbers = { .are_processors = false };
    char text[512] = "";
    kind->list(look_at, &numbers);
    numbers.are_processors = true;
    numbers.seen = 0;
    kind->list(look_at, &numbers);
    const pi2_status first = pi2_backend_open_kind(kind, numbers.of[0], options, backend_out);
    if (first != PI2_OK) (void)snprintf(text, sizeof text, "%s", pi2_error_text());
    for (unsigned i = 1; first != PI2_OK && i < numbers.count; i++) {
        if (pi2_backend_open_kind(kind, numbers.of[i], options, backend_out) == PI2_OK) return PI2_OK;
    }
    return first == PI2_OK ? PI2_OK : pi2_fail(first, "%s", text);
}

/* "kind" or "kind:NUMBER". */
static pi2_status read_number(const char *name, const char *text, unsigned *number_out) {
    char *end = NULL;
    const unsigned long number = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || number > 999) {
        return pi2_fail(PI2_ERR_INVALID, "device '%s': behind the colon must be a device's number", name);
    }
    *number_out = (unsigned)number;
    return PI2_OK;
}

pi2_status pi2_backend_open(const char *name, const pi2_backend_options *options, pi2_backend **backend_out) {
    *backend_out = NULL;
    const size_t length = strcspn(name, ":");
    for (size_t i = 0; kind_at(i); i++) {
        const pi2_backend_kind *kind = kind_at(i);
        if (strlen(kind->name) != length || strncasecmp(kind->name, name, length) != 0) continue;
        unsigned number = 0;
        if (!name[length]) return open_any(kind, options, backend_out);
        PI2_TRY(read_number(name, name + length + 1, &number));
        return pi2_backend_open_kind(kind, number, options, backend_out);
    }
    char known[128];
    name_kinds(known, sizeof known);
    return pi2_fail(PI2_ERR_INVALID, "there is no kind of device '%s' (%s): 'powerinfer2 machine --list-devices' "
                    "names those that are there", name, known);
}

void pi2_backend_close(pi2_backend *backend) {
    if (!backend) return;
    backend->kind->close(backend->state);
    free(backend);
}

const pi2_device_facts *pi2_backend_facts(const pi2_backend *backend) { return &backend->facts; }

const char *pi2_backend_loss(const pi2_backend *backend) {
    return atomic_load_explicit(&backend->is_lost, memory_order_acquire) ? backend->loss : NULL;
}

bool pi2_backend_multiply(pi2_backend *backend, const pi2_backend_work *work) {
    if (atomic_load_explicit(&backend->is_lost, memory_order_relaxed)) return false;
    if (!backend->kind->computes(backend->state, work->type)) return false;
    const uint64_t begin = pi2_clock_ns();
    const pi2_status status = backend->kind->multiply(backend->state, work);
    if (status == PI2_ERR_UNSUPPORTED) return false;
    if (status != PI2_OK) {
        (void)snprintf(backend->loss, sizeof backend->loss, "device '%s' is lost: %s", backend->facts.name,
                       pi2_error_text());
        atomic_store_explicit(&backend->is_lost, true, memory_order_release);
        return false;
    }
    atomic_fetch_add_explicit(&backend->calls, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&backend->weight_bytes, work->tile_count * work->tile_bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&backend->busy_ns, pi2_clock_ns() - begin, memory_order_relaxed);
    return true;
}

void pi2_backend_forget(pi2_backend *backend) {
    if (!pi2_backend_loss(backend)) backend->kind->forget(backend->state);
}

void pi2_backend_count(const pi2_backend *backend, pi2_backend_counters *counters_out) {
    *counters_out = (pi2_backend_counters){
        .calls = atomic_load_explicit(&backend->calls, memory_order_relaxed),
        .weight_bytes = atomic_load_explicit(&backend->weight_bytes, memory_order_relaxed),
        .busy_ns = atomic_load_explicit(&backend->busy_ns, memory_order_relaxed) };
}
