/*
 * hexagon_skel.c: the DSP's end of FastRPC, as a shared library that a phone's cDSP loads (libpi2_skel.so). The
 * arguments are marshalled by hand, as qaic would (docs/devices.md); hexagon_fastrpc.c is the other end. The memory
 * comes as an input and as an output, both the same buffer, which FastRPC maps once: nothing is copied.
 */
#include "backends/hexagon/device/hexagon_kernel.h"
#include "backends/hexagon/hexagon_rpc.h"

#define EXPORTED __attribute__((visibility("default")))

EXPORTED int pi2_skel_handle_invoke(uint64_t handle, uint32_t scalars, pi2_rpc_argument *arguments);

/* in: request, memory; out: answer, memory. */
static int compute(const pi2_rpc_argument *arguments) {
    const pi2_rpc_buffer *request = &arguments[0].buffer, *memory = &arguments[1].buffer;
    const pi2_rpc_buffer *answer = &arguments[2].buffer, *same = &arguments[3].buffer;
    if (request->bytes != sizeof(pi2_hexagon_request) || answer->bytes != sizeof(pi2_hexagon_answer) ||
        memory->data != same->data || memory->bytes != same->bytes || memory->bytes > UINT32_MAX) {
        return PI2_RPC_BAD_PARAMETER;
    }
    pi2_hexagon_request copy;
    pi2_hexagon_answer *out = answer->data;
    pi2_hexagon_copy_request(&copy, request->data);
    const bool fits = pi2_hexagon_check(&copy, (uint32_t)memory->bytes, &out->written);
    for (uint32_t i = 0; fits && i < copy.product_count; i++) {
        pi2_hexagon_multiply(&copy.products[i], memory->data, 0, 1);
    }
    out->status = fits ? PI2_HEXAGON_DONE : PI2_HEXAGON_REFUSED;
    return 0;
}

int pi2_skel_handle_invoke(uint64_t handle, uint32_t scalars, pi2_rpc_argument *arguments) {
    (void)handle;
    switch (pi2_rpc_shape(scalars)) {
    case PI2_RPC_SCALARS(PI2_RPC_OPEN, 2, 0, 0, 1): /* the length of the name, the name; a handle */
        arguments[2].handle = 1;
        return 0;
    case PI2_RPC_SCALARS(PI2_RPC_CLOSE, 0, 0, 1, 0): return 0;
    case PI2_RPC_SCALARS(PI2_RPC_COMPUTE, 2, 2, 0, 0): return compute(arguments);
    default: return PI2_RPC_UNSUPPORTED;
    }
}
