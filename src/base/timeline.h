/*
 * timeline.h: what happened when, for a trace: a bounded buffer of events.
 *
 * Any thread appends without a lock: it claims the next place with one atomic addition, and
 * publishes the event by its kind. Nothing is allocated after creation; events that find the
 * buffer full are counted and dropped. Without a trace (NULL) a caller's only cost is one branch.
 */
#ifndef PI2_BASE_TIMELINE_H
#define PI2_BASE_TIMELINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "powerinfer2/status.h"

typedef struct pi2_timeline pi2_timeline;

typedef enum pi2_timeline_kind {
    PI2_TIMELINE_NONE,   /* claimed, not published yet */
    PI2_TIMELINE_PASS,   /* place: position of the first token; count: tokens */
    PI2_TIMELINE_STAGE,  /* name, layer, member: one thread's work in a stage */
    PI2_TIMELINE_TAIL,   /* the same: the stage's end, token by token */
    PI2_TIMELINE_STALL,  /* count: the extent that `member` waited for */
    PI2_TIMELINE_READ,   /* place: offset in the file; count: bytes; member: 1 when only likely needed */
    PI2_TIMELINE_MEMORY, /* place: bytes of weights kept from begin_ns on */
    PI2_TIMELINE_AHEAD   /* the same of what was fetched ahead, until it was used (member: 1) or gone */
} pi2_timeline_kind;

enum { PI2_TIMELINE_NO_LAYER = 0xffff };

typedef struct pi2_timeline_event {
    uint64_t begin_ns, end_ns; /* of the monotonic clock */
    union {
        uint64_t place;
        const char *name;      /* static text */
    } of;
    uint32_t count;
    uint16_t layer;
    uint8_t member;            /* compute thread; 255 stands for all from 255 on */
    _Atomic uint8_t kind;
} pi2_timeline_event;

/**
 * Makes room for `bytes` of events; 0: none are kept and only busy time is summed.
 * Errors  MEMORY
 */
pi2_status pi2_timeline_create(size_t bytes, pi2_timeline **trace_out);
/** NULL is fine. */
void pi2_timeline_free(pi2_timeline *trace);

/** This thread is compute thread `member` from now on: the one that stalls are booked on. */
void pi2_timeline_set_member(unsigned member);

/* Each appends one event. Threads: any. */
void pi2_timeline_pass(pi2_timeline *trace, uint32_t position, uint32_t tokens, uint64_t begin_ns, uint64_t end_ns);
/** Work of this thread; adds to the busy time too. */
void pi2_timeline_stage(pi2_timeline *trace, const char *name, uint32_t layer, bool is_tail, uint64_t begin_ns,
                     uint64_t end_ns);
void pi2_timeline_stall(pi2_timeline *trace, uint32_t extent, uint64_t begin_ns, uint64_t end_ns);
void pi2_timeline_read(pi2_timeline *trace, uint64_t offset, uint32_t bytes, bool is_likely, uint64_t begin_ns,
                    uint64_t end_ns);

/** From now_ns on so many bytes of the planned weights are kept in memory. */
void pi2_timeline_memory(pi2_timeline *trace, uint64_t kept_bytes, uint64_t now_ns);
void pi2_timeline_ahead(pi2_timeline *trace, uint64_t offset, uint32_t bytes, bool is_kept, uint64_t begin_ns,
                        uint64_t end_ns);

/** Adds time of work that is no stage of its own. */
void pi2_timeline_add_busy(pi2_timeline *trace, uint64_t busy_ns);
/** Working time summed over the compute threads, their stalls included. */
uint64_t pi2_timeline_busy_ns(const pi2_timeline *trace);

/** Events that were claimed so far and fit; and those that did not. */
uint64_t pi2_timeline_count(const pi2_timeline *trace);
uint64_t pi2_timeline_dropped(const pi2_timeline *trace);
/** Event `index`, or NULL while it is being written. */
const pi2_timeline_event *pi2_timeline_at(const pi2_timeline *trace, uint64_t index);
/** When the trace was created. */
uint64_t pi2_timeline_begin_ns(const pi2_timeline *trace);

#endif
