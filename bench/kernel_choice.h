/* kernel_choice.h: what kernel_bench and neuron_bench share: their reference, and what was asked for. */
#ifndef PI2_BENCH_KERNEL_CHOICE_H
#define PI2_BENCH_KERNEL_CHOICE_H

#include <stdbool.h>
#include <string.h>

#include "base/cpu_features.h"
#include "machine/plain_read.h"
#include "weight_formats/weight_format.h"

/* Whether the command line asks for a kernel. best: it is what this CPU would choose. */
static inline bool kernel_is_wanted(const char *name, pi2_weight_type type, unsigned cpu_required, bool best,
                                    const char *format, const char *isa) {
    if (cpu_required & ~pi2_cpu_features()) return false;
    if (strcmp(format, "all") != 0 && strcmp(format, pi2_weight_type_name((uint32_t)type)) != 0) return false;
    if (strcmp(isa, "best") == 0) return best;
    return strcmp(isa, "all") == 0 || strstr(name, isa) != NULL;
}

#endif
