/* inspect_routing.h: "inspect --routing": runs a model and tells how its experts are chosen. */
#ifndef PI2_CLI_INSPECT_ROUTING_H
#define PI2_CLI_INSPECT_ROUTING_H

#include <stdbool.h>
#include <stdint.h>

/** Runs `tokens` tokens of the model's own greedy text and prints the shares; returns the exit code.
 *  memory: bytes for the whole process, 0: what is free. */
int pi2_cli_inspect_routing(const char *model, uint32_t tokens, uint64_t memory, bool json);

#endif
