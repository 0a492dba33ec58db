/* described_machine.c: see described_machine.h. */
#include "simulator/described_machine.h"

#include <math.h>
#include <string.h>

#include "base/fail.h"
#include "store/region.h"
#include "weight_formats/weight_format.h"

/* With so many in flight, as many times as fast as one by itself, up to what the disk gives with its queue full. */
static void add_read(pi2_machine_profile *profile, double bytes, double full, double latency) {
    static const uint32_t depths[] = {1, 2, 4, 8, 16, PI2_READ_DEPTH, 64, PI2_SMALL_READ_DEPTH};
    for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++) {
        const double value = latency > 0 ? fmin(full, depths[i] * bytes / latency) : full;
        (void)pi2_profile_add(profile, PI2_MEASURED_DISK, PI2_DESCRIBED_READ_METHOD, (uint64_t)bytes, depths[i], 0,
                              value, 0);
        (void)pi2_profile_add(profile, PI2_MEASURED_SMALL_READ, PI2_DESCRIBED_READ_METHOD, (uint64_t)bytes, depths[i],
                              0, value, 0);
    }
}

static void add_disk(pi2_machine_profile *profile, const pi2_simulated_device *d) {
    const double long_read = PI2_MERGED_READ_BYTES;
    double last = 0;
    for (uint32_t i = 0; i < d->read_count; i++) {
        last = d->reads[i].bytes;
        add_read(profile, last, last * d->reads[i].per_second, d->read_latency_seconds);
    }
    if (last < long_read) add_read(profile, long_read, d->sequential_bytes_per_second, d->read_latency_seconds);
}

/* A token's product is bound by the bytes of its weights, or by two operations a weight. */
static void add_type(pi2_machine_profile *profile, const pi2_simulated_device *d, const pi2_weight_format *format) {
    const uint32_t columns = 4096;
    const double operations = d->cpu_operations_per_second;
    const double bytes_a_weight = (double)pi2_row_bytes(format, columns) / columns;
    const double by_operations = operations > 0 ? operations / 2 * bytes_a_weight : INFINITY;
    (void)pi2_profile_add(profile, PI2_MEASURED_DECODE, format->name, d->threads, 0, columns,
                          fmin(d->cpu_bytes_per_second, by_operations), 0);
    if (operations <= 0) return;
    (void)pi2_profile_add(profile, PI2_MEASURED_BATCH, format->name, 64, d->threads, columns, operations, 0);
}

pi2_status pi2_described_machine(const pi2_simulated_device *device, pi2_machine_profile *profile) {
    PI2_TRY(pi2_simulated_device_check(device));
    memset(profile, 0, sizeof *profile);
    profile->identity.cores = device->threads + 1; /* reads are one more's */
    profile->disk_count = 1;
    memcpy(profile->disks[0].place, "/", 2);
    (void)pi2_profile_add(profile, PI2_MEASURED_MEMORY, "", device->threads, 0, 0, device->cpu_bytes_per_second, 0);
    if (device->cpu_operations_per_second > 0) {
        (void)pi2_profile_add(profile, PI2_MEASURED_ATTENTION, "", 1, 0, 0,
                              device->cpu_operations_per_second / device->threads, 0);
    }
    size_t formats = 0;
    const pi2_weight_format *const *format = pi2_weight_formats(&formats);
    for (size_t i = 0; i < formats; i++) add_type(profile, device, format[i]);
    add_disk(profile, device);
    return PI2_OK;
}
