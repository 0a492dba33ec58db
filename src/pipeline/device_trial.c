/* device_trial.c: see the header. */
#include "pipeline/device_trial.h"

#include "base/median.h"

/* Without devices only where that takes less than so many hundredths of the time with them. */
enum { BETTER_BELOW_PERCENT = 98 };

static bool in_trial(const pi2_device_trial *trial) { return trial->pass < 2 * PI2_DEVICE_TRIAL; }

/* with, without, without, with, with, ... */
bool pi2_device_trial_wanted(const pi2_device_trial *trial) {
    return in_trial(trial) ? trial->pass % 4 == 0 || trial->pass % 4 == 3 : !trial->is_off;
}

bool pi2_device_trial_note(pi2_device_trial *trial, uint64_t token_ns) {
    if (in_trial(trial)) {
        const bool with = pi2_device_trial_wanted(trial);
        trial->times[with][trial->counts[with]++] = token_ns;
    }
    trial->pass++;
    if (trial->pass == 2 * PI2_DEVICE_TRIAL) {
        for (int with = 0; with < 2; with++) trial->medians[with] = pi2_median(trial->times[with], PI2_DEVICE_TRIAL);
        trial->is_off = trial->medians[0] < trial->medians[1] / 100 * BETTER_BELOW_PERCENT;
        return true;
    }
    if (trial->pass == 2 * PI2_DEVICE_TRIAL + PI2_DEVICE_HOLD) {
        trial->pass = 0;
        trial->counts[0] = trial->counts[1] = 0;
    }
    return false;
}
