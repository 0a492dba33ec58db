/* run_devices.c: who computes beside the processor: opened by name, described, missed when lost. */
#include <stdio.h>
#include <string.h>

#include "base/cache_folder.h"
#include "base/fail.h"
#include "planner/planned_run.h"

enum { NAME_BYTES = 64 };

/* Those that are open. */
static void describe(pi2_run_devices *devices) {
    size_t at = 0;
    devices->has_other_bits = false;
    devices->description[0] = '\0';
    for (uint32_t i = 0; i < devices->count && at < sizeof devices->description; i++) {
        const pi2_device_facts *facts = pi2_backend_facts(devices->of[i]);
        devices->has_other_bits |= facts->has_other_bits;
        (void)snprintf(devices->description + at, sizeof devices->description - at, "%s%s (%s)", at ? ", " : "",
                       facts->name, facts->description);
        at = strlen(devices->description);
    }
}

/* A device that is not there, or not usable, leaves the work to the processor; a name that means nothing is an error.
 */
static pi2_status open_device(pi2_planned_run *run, const char *name, const pi2_backend_options *options) {
    pi2_run_devices *devices = &run->devices;
    if (devices->count == PI2_DEVICES_MOST) {
        return pi2_fail(PI2_ERR_INVALID, "more than %d devices", PI2_DEVICES_MOST);
    }
    const pi2_status status = pi2_backend_open(name, options, &devices->of[devices->count]);
    if (status == PI2_ERR_INVALID) return status;
    if (status != PI2_OK) {
        pi2_planned_run_log(run, "%s; the processor computes alone", pi2_error_text());
        return PI2_OK;
    }
    const pi2_device_facts *facts = pi2_backend_facts(devices->of[devices->count++]);
    for (uint32_t i = 0; i + 1 < devices->count; i++) {
        if (strcmp(pi2_backend_facts(devices->of[i])->name, facts->name) != 0) continue;
        return pi2_fail(PI2_ERR_INVALID, "device '%s' is named twice", facts->name);
    }
    describe(devices);
    return PI2_OK;
}

void pi2_run_devices_leave_out(pi2_planned_run *run, uint32_t device) {
    pi2_run_devices *devices = &run->devices;
    pi2_backend_close(devices->of[device]);
    devices->count--;
    for (uint32_t i = device; i < devices->count; i++) {
        devices->of[i] = devices->of[i + 1];
        devices->is_told[i] = devices->is_told[i + 1];
    }
    run->plan.threads_wanted--; /* whoever waits for it */
    run->plan.thread_count--;
    describe(devices);
}

pi2_status pi2_run_devices_open(pi2_planned_run *run) {
    const char *names = run->options.devices;
    char folder[1024];
    if (!names || strcmp(names, "none") == 0) return PI2_OK;
    const bool has_folder = pi2_cache_folder(folder, sizeof folder);
    const pi2_backend_options options = { .memory_bytes = run->options.device_bytes,
                                          .cache_folder = has_folder ? folder : NULL,
                                          .any_precision = run->options.device_any_precision };
    while (*names) {
        const size_t length = strcspn(names, ",");
        char name[NAME_BYTES];
        if (length == 0 || length >= sizeof name) {
            return pi2_fail(PI2_ERR_INVALID, "devices '%s': names have 1 to %d characters, and commas between them",
                            run->options.devices, NAME_BYTES - 1);
        }
        (void)snprintf(name, sizeof name, "%.*s", (int)length, names);
        PI2_TRY(open_device(run, name, &options));
        names += length;
        if (*names == ',' && *++names == '\0') {
            return pi2_fail(PI2_ERR_INVALID, "devices '%s': nothing behind the last comma", run->options.devices);
        }
    }
    return PI2_OK;
}

void pi2_run_devices_close(pi2_planned_run *run) {
    for (uint32_t i = 0; i < run->devices.count; i++) pi2_backend_close(run->devices.of[i]);
    run->devices.count = 0;
}

void pi2_run_devices_tell(pi2_planned_run *run) {
    for (uint32_t i = 0; i < run->devices.count; i++) {
        const char *loss = run->devices.is_told[i] ? NULL : pi2_backend_loss(run->devices.of[i]);
        if (!loss) continue;
        run->devices.is_told[i] = true;
        pi2_planned_run_log(run, "%s; the processor goes on, with the same text", loss);
    }
}

uint32_t pi2_run_processor_threads(const pi2_planned_run *run) {
    const uint32_t members = run->plan.memory.shape.thread_count;
    return members > run->devices.count ? members - run->devices.count : members;
}
