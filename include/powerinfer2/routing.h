/* routing.h: which experts tokens chose, summed up from a recorded trace. */
#ifndef POWERINFER2_ROUTING_H
#define POWERINFER2_ROUTING_H

#include <stdint.h>

#include "powerinfer2/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Shares of a token's experts in one layer, or the mean over layers. If experts were drawn evenly,
 * repeat and skew would be used / count, and top_quarter a little over 0.25.
 */
typedef struct pi2_routing_shares {
    double repeat;       /* that the token before used too */
    double skew;         /* that a token far away used too (a third of the text or more) */
    double top_quarter;  /* that belong to the quarter of experts used most */
} pi2_routing_shares;

typedef struct pi2_routing {
    uint32_t layer_count, expert_count, used_count;
    uint32_t token_count;          /* tokens that were computed alone, and so count */
    pi2_routing_shares mean;
    pi2_routing_shares *layers;    /* shape [layer_count] */
} pi2_routing;

/**
 * Reads a trace that an engine has recorded (engine.h, record_trace). Tokens that were computed
 * together, as a prompt's are, do not count.
 * skip_tokens  in   so many tokens at the beginning do not count either
 * routing_out  out  pi2_routing_free() it; NULL on any error
 * Errors  IO, FORMAT (file, byte offset), MEMORY, INVALID (fewer than 8 tokens count)
 */
PI2_API pi2_status pi2_routing_read(const char *trace_path, uint32_t skip_tokens,
                                    pi2_routing **routing_out);
PI2_API void pi2_routing_free(pi2_routing *routing); /* NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
