#include "support/small_budget.h"

#include "base/memory_ledger.h"
#include "base/memory_limit.h"
#include "support/emulator.h"
#include "support/sanitizer.h"

enum {
    STEP = 500000,
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
