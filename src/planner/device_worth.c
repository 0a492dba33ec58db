/* device_worth.c: see the header. */
#include "planner/device_worth.h"

#include <math.h>

/* As passes cut a device's part (pipeline/forward_matmul.c). */
static const double CALLS_MOST = 4, CALL_BYTES = 256 * 1024;

static double share_with(const pi2_device_rates *rates, double stage_bytes, double calls) {
    const double threads = stage_bytes / rates->beside, device = stage_bytes / rates->device;
    return fmin(1, (threads - calls * rates->call_seconds) / (threads + device));
}

pi2_device_worth_of_stage pi2_device_worth_in(const pi2_device_rates *rates, double stage_bytes) {
    const pi2_device_worth_of_stage none = { 0, 1 };
    if (!(rates->device > 0 && rates->alone > 0 && rates->beside > 0 && stage_bytes > 0)) return none;
    double share = share_with(rates, stage_bytes, 1), calls = 1;
    for (; calls < CALLS_MOST && share * stage_bytes > calls * CALL_BYTES; calls++) {
        share = share_with(rates, stage_bytes, calls + 1);
    }
    const double alone = stage_bytes / rates->alone;
    if (share <= 0) {
        return (pi2_device_worth_of_stage){ 0, alone / fmax(stage_bytes / rates->beside, rates->call_seconds) };
    }
    const double of_device = calls * rates->call_seconds + share * stage_bytes / rates->device;
    return (pi2_device_worth_of_stage){ share, alone / fmax((1 - share) * stage_bytes / rates->beside, of_device) };
}
