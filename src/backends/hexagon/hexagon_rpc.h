/*
 * hexagon_rpc.h: a call by FastRPC as both ends see it: scalars that say which method and how many arguments of which
 * kind, and the arguments, inputs before outputs before handles. Sizes are those of each end's own pointers.
 */
#ifndef PI2_BACKENDS_HEXAGON_HEXAGON_RPC_H
#define PI2_BACKENDS_HEXAGON_HEXAGON_RPC_H

#include <stddef.h>
#include <stdint.h>

typedef struct pi2_rpc_buffer {
    void *data;
    size_t bytes;
} pi2_rpc_buffer;

typedef union pi2_rpc_argument {
    pi2_rpc_buffer buffer;
    uint64_t handle;
} pi2_rpc_argument;

enum { PI2_RPC_OPEN = 0, PI2_RPC_CLOSE = 1, PI2_RPC_COMPUTE = 2 };
enum { PI2_RPC_BAD_PARAMETER = 14, PI2_RPC_UNSUPPORTED = 20 };

/** Method, numbers of input and output buffers, of input and output handles. */
#define PI2_RPC_SCALARS(method, in, out, handles_in, handles_out)                                                     \
    (((uint32_t)(method) & 31u) << 24 | (uint32_t)(in) << 16 | (uint32_t)(out) << 8 | (uint32_t)(handles_in) << 4 |   \
     (uint32_t)(handles_out))

/** Scalars without the caller's attributes. */
static inline uint32_t pi2_rpc_shape(uint32_t scalars) { return scalars & 0x1fffffffu; }

/** What the device writes besides the memory. */
typedef struct pi2_hexagon_answer {
    uint32_t status, written;
} pi2_hexagon_answer;

#endif
