/*
 * backend.h: who computes. A back-end multiplies tiles of weights with activations, for whoever of a pass's members
 * works with it: the processor's (backends/cpu) for its compute threads; a device's for a member of its own, which
 * claims chunks of a stage as the threads do and waits for the device while they go on (docs/devices.md). Whoever
 * finishes first takes the next chunk, so work is shared out by speed, and no result depends on who computed it: every
 * back-end gives the bits of docs/arithmetic.md.
 *
 * A device shares no memory with the pass unless it can: its back-end brings weights to it and results back. What it
 * keeps of weights is a copy or a view, never the only one. So a device can be lost at any moment: its member computes
 * the chunk at hand once more, on the processor, and goes on there.
 *
 * A back-end is a folder and a line in backends.inc.
 */
#ifndef PI2_BACKENDS_BACKEND_H
#define PI2_BACKENDS_BACKEND_H

#include <stdatomic.h>
#include <stdbool.h>

#include "kernels/activations.h"
#include "powerinfer2/status.h"

/**
 * Tiles times activations, as pi2_matmul_fn of kernels/matmul/matmul.h: for each token t of [token_begin,
 * + token_count) and each row r of the tiles, out[(t - token_begin) * out_stride + r] goes on with its chain over the
 * columns column_begin .. column_begin + columns of x, from 0 where `start` is true.
 */
typedef struct pi2_backend_work {
    float *out;
    size_t out_stride;
    pi2_weight_type type;
    const void *tiles;           /* tile_count tiles of `columns` columns, tile_bytes each, 64-byte aligned */
    size_t tile_count, tile_bytes;
    size_t columns, column_begin;
    const pi2_activations *x;    /* of the type's kind */
    size_t token_begin, token_count;
    bool start;
    /* Where the tiles lie in what is kept as one: its number among the model's, all of it, and whether it stays at this
     * address, unchanged, until pi2_backend_forget(). What does not stay is only there during the call. */
    uint32_t unit;
    const void *unit_memory;
    size_t unit_bytes;
    bool stays;
} pi2_backend_work;

/** What a device says of itself. Text belongs to the caller of a visitor's call, and holds for its duration. */
typedef struct pi2_device_facts {
    const char *name;            /* as it is asked for: "opencl:0" */
    const char *description;     /* of the device, its driver and the driver's version */
    uint64_t memory_bytes;       /* its own, or what it may have of the machine's; 0: unknown */
    bool shares_memory;          /* with the processor: weights are not copied */
    bool is_processor;           /* it is the processor itself, by a driver: taken by name alone if there is no other */
    const char *refused;         /* why it cannot be used; NULL: it can */
    bool has_other_bits;         /* it was opened with any_precision, and its results are not the processor's */
} pi2_device_facts;
typedef void pi2_device_visitor(void *user, const pi2_device_facts *facts);

typedef struct pi2_backend_options {
    uint64_t memory_bytes;       /* that copies of weights may take on the device; 0: what its back-end finds right */
    const char *cache_folder;    /* for programs that a driver compiled; NULL: they are compiled anew */
    uint64_t timeout_ns;         /* a piece of work that takes longer means that the device is lost; 0: the default */
    bool any_precision;          /* a device whose bits differ is taken all the same */
} pi2_backend_options;
#define PI2_BACKEND_TIMEOUT_NS UINT64_C(20000000000)

typedef struct pi2_backend_kind {
    const char *name;            /* as in backends.inc: of its devices' names what is before the colon */
    /** Shows every device that is there; none is no error. */
    void (*list)(pi2_device_visitor *visit, void *user);
    /** Opens device number `device`. facts_out: as it is listed, with text that lives as long as the state.
     *  Errors  UNSUPPORTED (no driver, no such device, its bits differ), MEMORY, IO */
    pi2_status (*open)(unsigned device, const pi2_backend_options *options, void **state_out,
                       pi2_device_facts *facts_out);
    void (*close)(void *state);
    /** Whether it multiplies weights of this type; what it does not is the processor's. */
    bool (*computes)(const void *state, pi2_weight_type type);
    /** Returns when the result is in work->out. UNSUPPORTED: it does not take this work, whose `out` is as it was. Any
     *  other error: the device is lost, `out` is as it was (a chain goes on from
     *  it), and nothing of the work is written any more; a device that hangs may still read its tiles.
     *  Threads: one at a time for a state. */
    pi2_status (*multiply)(void *state, const pi2_backend_work *work);
    /** Forgets every tile that was to stay. Between passes. */
    void (*forget)(void *state);
} pi2_backend_kind;

/** What a device did since it was opened. */
typedef struct pi2_backend_counters {
    uint64_t calls, weight_bytes, busy_ns;
} pi2_backend_counters;

/** An opened device. */
typedef struct pi2_backend pi2_backend;

/** Shows the devices of every kind but the processor. Threads: any. */
void pi2_backend_list(pi2_device_visitor *visit, void *user);

/**
 * Opens the device of this name ("opencl:1"; without a number the first that can be opened, one that is the processor
 * itself after all others).
 * Errors  INVALID (no such kind), and those of pi2_backend_kind.open
 */
pi2_status pi2_backend_open(const char *name, const pi2_backend_options *options, pi2_backend **backend_out);
/** Opens one of a kind that need not be listed. */
pi2_status pi2_backend_open_kind(const pi2_backend_kind *kind, unsigned device, const pi2_backend_options *options,
                                 pi2_backend **backend_out);
/** For tests: one kind more, behind those of the list; NULL: none. Not while a device is opened or listed. */
void pi2_backend_add_kind(const pi2_backend_kind *kind);
void pi2_backend_close(pi2_backend *backend);

const pi2_device_facts *pi2_backend_facts(const pi2_backend *backend);

/** True: the result is in work->out. False: the device does not compute this type, or is lost: whoever asked computes
 *  it. Threads: one at a time for a backend. */
bool pi2_backend_multiply(pi2_backend *backend, const pi2_backend_work *work);
void pi2_backend_forget(pi2_backend *backend);

/** Why the device was lost, in one line; NULL: it was not. Threads: any. */
const char *pi2_backend_loss(const pi2_backend *backend);
void pi2_backend_count(const pi2_backend *backend, pi2_backend_counters *counters_out);

#endif
