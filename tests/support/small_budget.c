#include "support/small_budget.h"

#include "base/memory_ledger.h"
#include "base/memory_limit.h"
#include "support/emulator.h"
#include "support/sanitizer.h"

enum {
    STEP = 500000,
    STRIDE = 8, /* steps, until one is enough */
    MOST_MORE = PI2_UNDER_EMULATOR ? 16000000 : PI2_UNDER_ASAN || PI2_UNDER_TSAN ? 8000000 : 0
};

pi2_status pi2_small_budget_open(const pi2_engine_options *options, uint64_t more_bytes, pi2_engine **engine_out) {
    pi2_status status = PI2_ERR_MEMORY;
    for (uint64_t added = 0; status == PI2_ERR_MEMORY && added <= MOST_MORE; added += STEP) {
        uint64_t peak = 0, current = 0;
        (void)pi2_process_memory(&peak, &current);
        pi2_engine_options with_budget = *options;
        with_budget.memory_bytes = pi2_memory_spoken_for(current) + more_bytes + added;
        status = pi2_engine_open(&with_budget, engine_out);
    }
    return status;
}

uint64_t pi2_small_budget_least(uint64_t step, uint64_t steps, bool (*is_enough)(uint64_t more_bytes, void *user),
                                void *user) {
    uint64_t too_little = 0, enough = 0;
    while (enough ? enough - too_little > 1 : too_little < steps) {
        const uint64_t at = enough ? (too_little + enough) / 2 : too_little + STRIDE;
        if (is_enough(at * step, user)) enough = at;
        else too_little = at;
    }
    return enough * step;
}
