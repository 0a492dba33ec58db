/*
 * mock_device.h: a device for tests of whoever works with devices: a thread that computes with the portable kernels, in
 * memory of its own, and that is slow, fails or hangs when it is told to.
 */
#ifndef PI2_TESTS_SUPPORT_MOCK_DEVICE_H
#define PI2_TESTS_SUPPORT_MOCK_DEVICE_H

#include "backends/backend.h"

typedef enum mock_ending {
    MOCK_FAILS,     /* at once */
    MOCK_FAILS_LATE, /* when half of the results are computed */
    MOCK_HANGS      /* until it is closed, when it computes all the same, and reads its weights where the engine had
                       them: the result comes too late for anybody */
} mock_ending;

/** Set while no device is open; read by those that are opened afterwards. */
typedef struct mock_orders {
    uint32_t devices;        /* that are there */
    uint32_t processors;     /* the first of them, which are the processor itself */
    const char *description; /* NULL: "a thread of a test" */
    const char *refused;     /* why none can be used; NULL: they can */
    bool first_is_broken;    /* mock:0 cannot be opened, which nobody knows before */
    uint64_t ends_at;        /* the piece of work, from 1, at which a device ends; 0: none */
    mock_ending ending;
    unsigned slow_us;        /* for each piece of work */
    bool looks_at_pages;     /* counts work whose weights lie in no page of their own (nobody has written there) */
    bool leaves_q6_k;        /* does not compute this type */
    bool has_other_bits;     /* every result is a little too large: refused, unless any precision will do */
} mock_orders;
extern mock_orders mock_device_orders;

/** What all devices did since the test set it to zeros. */
typedef struct mock_counts {
    _Atomic uint64_t opened, closed, works, kept, used_again, passing, forgotten, too_late, in_no_page;
    _Atomic uint64_t kept_types; /* bit 1 << type: of work whose tiles were kept, or had been */
    _Atomic(const char *) broken; /* what the caller did wrong; NULL: nothing */
} mock_counts;
extern mock_counts mock_device_counts;

/** Whether a page that was read is the one of zeros that all have that nobody has written to; as far as the system
 *  tells. */
bool mock_is_no_page(const void *memory);

/** "mock:0", "mock:1": for pi2_backend_add_kind(). */
extern const pi2_backend_kind mock_device_kind;

#endif
