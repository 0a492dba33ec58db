/*
 * hexagon_link.h: how the host reaches a Hexagon DSP: a memory that both have, and a request whose products are in it
 * (hexagon_protocol.h). One kind starts the DSP as a child process in an emulator, the other is FastRPC on a phone.
 */
#ifndef PI2_BACKENDS_HEXAGON_HEXAGON_LINK_H
#define PI2_BACKENDS_HEXAGON_HEXAGON_LINK_H

#include "backends/hexagon/hexagon_protocol.h"
#include "powerinfer2/status.h"

typedef struct pi2_hexagon_link {
    uint8_t *memory;        /* shared, aligned to pages; areas begin at PI2_HEXAGON_FIRST_AREA */
    uint32_t memory_bytes;
    void *state;
    /**
     * Returns when all products are computed. Every product must fit the memory. Any error means that the device is
     * lost: it writes nothing more, every later call fails, and only close() is of use.
     * Errors  INVALID (a product does not fit), IO (it ended, hangs or answers what it cannot have done)
     */
    pi2_status (*ask)(struct pi2_hexagon_link *link, const pi2_hexagon_request *request);
    void (*close)(struct pi2_hexagon_link *link);
} pi2_hexagon_link;

typedef struct pi2_hexagon_emulator {
    const char *emulator;   /* path of the program that runs Hexagon programs, such as qemu-hexagon */
    const char *program;    /* path of the device's program (hexagon_linux.c) */
    const char *processor;  /* given to the emulator behind -cpu; NULL or "": nothing is */
    uint32_t memory_bytes;  /* rounded up to pages; 2^31 at most */
    uint32_t thread_count;  /* of vectors, on the device: 1 .. PI2_HEXAGON_MOST_THREADS */
    uint64_t start_timeout_ns; /* until its first answer */
    uint64_t timeout_ns;    /* for one request */
} pi2_hexagon_emulator;

/**
 * Starts the emulator, in a process group of its own with no input or output, and waits for its first answer. Nothing
 * is left behind by a failure. Threads: any.
 * Errors  INVALID (sizes), MEMORY, IO (it does not start, or does not answer), UNSUPPORTED (no Linux)
 */
pi2_status pi2_hexagon_open_emulator(const pi2_hexagon_emulator *options, pi2_hexagon_link *link_out);

/** The emulator's process, while it has not been lost; else 0. */
long pi2_hexagon_emulator_process(const pi2_hexagon_link *link);

#define PI2_HEXAGON_FASTRPC_LIBRARY "libcdsprpc.so"

/**
 * Loads the vendor's library and our module on the DSP, and has its first answer. Errors  INVALID (sizes), MEMORY,
 * UNSUPPORTED (no such library, or the module is not loaded; a static program), IO (it does not answer)
 */
pi2_status pi2_hexagon_open_fastrpc(const char *library, uint32_t memory_bytes, pi2_hexagon_link *link_out);

/** Whether the vendor's library is there: it is loaded, and let go. */
bool pi2_hexagon_has_fastrpc(const char *library);

/** Checks a request against the link's memory: INVALID names the product. written_out: the floats that it writes. */
pi2_status pi2_hexagon_check_request(const pi2_hexagon_link *link, const pi2_hexagon_request *request,
                                     uint32_t *written_out);

#endif
