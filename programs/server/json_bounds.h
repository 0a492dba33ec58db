/* json_bounds.h: how much memory a JSON text will take, told before it is parsed. */
#ifndef PI2_SERVER_JSON_BOUNDS_H
#define PI2_SERVER_JSON_BOUNDS_H

#include <stddef.h>

enum { PI2_SERVER_JSON_DEPTH = 64 };

typedef struct pi2_json_bounds {
    size_t depth;  /* of arrays and objects in each other */
    size_t memory; /* bytes that jansson takes for it at most: many small values take far more than their text */
} pi2_json_bounds;

/** Any bytes; what is no JSON gives bounds too, for parsing it takes no more. */
pi2_json_bounds pi2_json_measure(const char *text, size_t length);

#endif
