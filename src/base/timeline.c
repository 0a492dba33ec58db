/* timeline.c: the bounded buffer of events. */
#include "base/timeline.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/fail.h"
#include "base/pages.h"

struct pi2_timeline {
    pi2_timeline_event *events;
    uint64_t capacity;
    size_t bytes;
    uint64_t begin_ns;
    _Atomic uint64_t claimed; /* places asked for: beyond the capacity they are dropped events */
    _Atomic uint64_t busy_ns;
};

static _Thread_local uint8_t own_member;

pi2_status pi2_timeline_create(size_t bytes, pi2_timeline **trace_out) {
    *trace_out = NULL;
    pi2_timeline *trace = calloc(1, sizeof *trace);
    if (!trace) return pi2_fail(PI2_ERR_MEMORY, "no memory for a trace");
    trace->bytes = bytes;
    trace->capacity = bytes / sizeof *trace->events;
    trace->begin_ns = pi2_clock_ns();
    if (bytes) {
        void *pages = NULL;
        const pi2_status status = pi2_pages_reserve(bytes, false, "the trace's events", &pages);
        if (status != PI2_OK) {
            free(trace);
            return status;
        }
        trace->events = pages;
    }
    *trace_out = trace;
    return PI2_OK;
}

void pi2_timeline_free(pi2_timeline *trace) {
    if (!trace) return;
    pi2_pages_release(trace->events, trace->bytes);
    free(trace);
}

void pi2_timeline_set_member(unsigned member) { own_member = (uint8_t)(member < 255 ? member : 255); }

/* A place for one event, with its times; NULL when there is none. */
static pi2_timeline_event *claim(pi2_timeline *trace, uint64_t begin_ns, uint64_t end_ns) {
    if (trace->capacity == 0) return NULL;
    const uint64_t index = atomic_fetch_add_explicit(&trace->claimed, 1, memory_order_relaxed);
    if (index >= trace->capacity) return NULL;
    pi2_timeline_event *event = &trace->events[index];
    event->begin_ns = begin_ns;
    event->end_ns = end_ns;
    return event;
}

/* The kind is written last, so that whoever sees it sees the rest. */
static void publish(pi2_timeline_event *event, pi2_timeline_kind kind) {
    atomic_store_explicit(&event->kind, (uint8_t)kind, memory_order_release);
}

void pi2_timeline_pass(pi2_timeline *trace, uint32_t position, uint32_t tokens, uint64_t begin_ns, uint64_t end_ns) {
    pi2_timeline_event *event = claim(trace, begin_ns, end_ns);
    if (!event) return;
    event->of.place = position;
    event->count = tokens;
    publish(event, PI2_TIMELINE_PASS);
}

void pi2_timeline_stage(pi2_timeline *trace, const char *name, uint32_t layer, bool is_tail, uint64_t begin_ns,
                     uint64_t end_ns) {
    pi2_timeline_add_busy(trace, end_ns - begin_ns);
    pi2_timeline_event *event = claim(trace, begin_ns, end_ns);
    if (!event) return;
    event->of.name = name;
    event->layer = (uint16_t)(layer < PI2_TIMELINE_NO_LAYER ? layer : PI2_TIMELINE_NO_LAYER);
    event->member = own_member;
    publish(event, is_tail ? PI2_TIMELINE_TAIL : PI2_TIMELINE_STAGE);
}

void pi2_timeline_stall(pi2_timeline *trace, uint32_t extent, uint64_t begin_ns, uint64_t end_ns) {
    pi2_timeline_event *event = claim(trace, begin_ns, end_ns);
    if (!event) return;
    event->count = extent;
    event->member = own_member;
    publish(event, PI2_TIMELINE_STALL);
}

void pi2_timeline_read(pi2_timeline *trace, uint64_t offset, uint32_t bytes, bool is_likely, uint64_t begin_ns,
                    uint64_t end_ns) {
    pi2_timeline_event *event = claim(trace, begin_ns, end_ns);
    if (!event) return;
    event->of.place = offset;
    event->count = bytes;
    event->member = is_likely;
    publish(event, PI2_TIMELINE_READ);
}

void pi2_timeline_memory(pi2_timeline *trace, uint64_t kept_bytes, uint64_t now_ns) {
    pi2_timeline_event *event = claim(trace, now_ns, now_ns);
    if (!event) return;
    event->of.place = kept_bytes;
    publish(event, PI2_TIMELINE_MEMORY);
}

void pi2_timeline_ahead(pi2_timeline *trace, uint64_t offset, uint32_t bytes, bool is_kept, uint64_t begin_ns,
                        uint64_t end_ns) {
    pi2_timeline_event *event = claim(trace, begin_ns, end_ns);
    if (!event) return;
    event->of.place = offset;
    event->count = bytes;
    event->member = is_kept;
    publish(event, PI2_TIMELINE_AHEAD);
}

void pi2_timeline_add_busy(pi2_timeline *trace, uint64_t busy_ns) {
    atomic_fetch_add_explicit(&trace->busy_ns, busy_ns, memory_order_relaxed);
}

uint64_t pi2_timeline_busy_ns(const pi2_timeline *trace) {
    return atomic_load_explicit(&trace->busy_ns, memory_order_relaxed);
}

uint64_t pi2_timeline_count(const pi2_timeline *trace) {
    const uint64_t claimed = atomic_load_explicit(&trace->claimed, memory_order_relaxed);
    return claimed < trace->capacity ? claimed : trace->capacity;
}

uint64_t pi2_timeline_dropped(const pi2_timeline *trace) {
    return atomic_load_explicit(&trace->claimed, memory_order_relaxed) - pi2_timeline_count(trace);
}

const pi2_timeline_event *pi2_timeline_at(const pi2_timeline *trace, uint64_t index) {
    const pi2_timeline_event *event = &trace->events[index];
    return atomic_load_explicit(&event->kind, memory_order_acquire) == PI2_TIMELINE_NONE ? NULL : event;
}

uint64_t pi2_timeline_begin_ns(const pi2_timeline *trace) { return trace->begin_ns; }
