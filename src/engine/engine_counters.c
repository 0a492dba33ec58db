/* engine_counters.c: the list of counters as a table, and what lies between two counts. */
#include <stddef.h>

#include "powerinfer2/engine.h"

static const pi2_counter_description descriptions[] = {
#define PI2_COUNTER(name, kind, text) { #name, text, PI2_COUNTER_##kind, offsetof(pi2_engine_counters, name) },
#include "powerinfer2/counters.inc"
#undef PI2_COUNTER
};
enum { COUNTERS = sizeof descriptions / sizeof descriptions[0] };

const pi2_counter_description *pi2_counter_descriptions(size_t *count_out) {
    *count_out = COUNTERS;
    return descriptions;
}

uint64_t pi2_counter_value(const pi2_engine_counters *counters, const pi2_counter_description *description) {
    return *(const uint64_t *)(const void *)((const char *)counters + description->offset);
}

void pi2_counters_between(const pi2_engine_counters *before, const pi2_engine_counters *after,
                          pi2_engine_counters *counters_out) {
    for (size_t i = 0; i < COUNTERS; i++) {
        uint64_t *out = (uint64_t *)(void *)((char *)counters_out + descriptions[i].offset);
        const uint64_t now = pi2_counter_value(after, &descriptions[i]);
        *out = descriptions[i].kind == PI2_COUNTER_NOW ? now : now - pi2_counter_value(before, &descriptions[i]);
    }
}
