/* json_bounds.h: how much memory a JSON text will take, told before it is parsed. */
#ifndef PI2_CLI_JSON_BOUNDS_H
#define PI2_CLI_JSON_BOUNDS_H

#include <stddef.h>
#include <stdint.h>

enum { PI2_JSON_DEPTH = 64 };

typedef struct pi2_json_bounds {
    size_t depth;  /* of arrays and objects in each other */
    size_t memory; /* bytes that jansson takes for it at most: many small values take far more than their text */
} pi2_json_bounds;

/** Bytes that a JSON text may have, of a request: as suits a budget (0: unknown). Its value may take twice as many. */
size_t pi2_json_text_bytes(uint64_t memory_bytes);

/** Any bytes; what is no JSON gives bounds too, for parsing it takes no more. */
pi2_json_bounds pi2_json_measure(const char *text, size_t length);

#endif
