/* simulated_disk.c: see simulated_disk.h. */
#include "simulator/simulated_disk.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "planner/prediction_internal.h"
#include "store/region.h"

enum { MOST_IN_FLIGHT = 4 * PI2_REGION_READS_MOST, SPEED_PAGES = PI2_MERGED_READ_BYTES / PI2_READ_ALIGNMENT };

/* ---- how long a read takes ---- */

/** Bytes a second of reads of so many bytes, so many in flight. */
static double speed_of(pi2_simulated_disk *disk, uint32_t bytes, uint32_t in_flight) {
    const uint32_t pages = bytes / PI2_READ_ALIGNMENT, row = pages < SPEED_PAGES ? pages : SPEED_PAGES;
    const uint32_t depth = in_flight < disk->depth ? in_flight : disk->depth;
    float *known = &disk->speeds[row * (disk->depth + 1) + depth];
    if (*known <= 0) {
        const pi2_prediction_setting setting = {disk->workload, disk->profile, &pi2_as_it_is};
        const double speed = pi2_prediction_disk(&setting, row * PI2_READ_ALIGNMENT, depth, NULL);
        *known = (float)(speed > 0 ? speed : INFINITY);
    }
    return (double)*known;
}

static uint32_t in_flight(pi2_simulated_disk *disk) {
    while (disk->end_count && disk->ends[disk->first_end] <= disk->now) {
        disk->first_end = (disk->first_end + 1) % MOST_IN_FLIGHT;
        disk->end_count--;
    }
    return disk->end_count;
}

/** When a read that is asked for now has ended. */
static double serve(pi2_simulated_disk *disk, uint32_t bytes) {
    const uint32_t own = in_flight(disk) + 1, asked = own > disk->together ? own : disk->together;
    const uint64_t most = disk->most_bytes == 0 ? asked : disk->most_bytes > bytes ? disk->most_bytes / bytes : 1;
    const uint32_t many = asked < most ? asked : (uint32_t)most;
    const double alone = bytes / speed_of(disk, bytes, 1), begin = fmax(disk->now, disk->last_end);
    const double end = fmax(disk->last_end + bytes / speed_of(disk, bytes, many), disk->now + alone);
    disk->busy += end - begin;
    disk->last_end = end;
    if (disk->end_count == MOST_IN_FLIGHT) {
        disk->first_end = (disk->first_end + 1) % MOST_IN_FLIGHT;
        disk->end_count--;
    }
    disk->ends[(disk->first_end + disk->end_count++) % MOST_IN_FLIGHT] = end;
    const pi2_prediction_setting setting = {disk->workload, disk->profile, &pi2_as_it_is};
    disk->lost += pi2_prediction_lost(&setting, bytes, bytes, many);
    disk->bytes += bytes;
    disk->reads++;
    return end;
}

/* ---- what it brings ---- */

static void bring_units(pi2_simulated_disk *disk, uint32_t b, uint64_t begin, uint64_t end, double there) {
    const pi2_neuron_bank *bank = &disk->banks->banks[b];
    const uint64_t from = begin > bank->file_offset ? begin - bank->file_offset : 0;
    uint64_t until = (end - bank->file_offset) / bank->unit_bytes;
    if (until > bank->unit_count) until = bank->unit_count;
    for (uint64_t u = (from + bank->unit_bytes - 1) / bank->unit_bytes; u < until; u++) {
        disk->unit_there[disk->first_unit[b] + u] = there;
    }
}

/* The last bank that begins before `end`; banks ascend in the file. PI2_NO_RUN: there is none. */
static uint32_t bank_before(const pi2_simulated_disk *disk, uint64_t end) {
    uint32_t low = 0, high = disk->banks ? disk->banks->count : 0;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (disk->banks->banks[middle].file_offset < end) low = middle + 1;
        else high = middle;
    }
    return low ? low - 1 : PI2_NO_RUN;
}

static void bring_extents(pi2_simulated_disk *disk, uint64_t begin, uint64_t end, double there) {
    const pi2_extent *extents = disk->layout->extents;
    uint32_t low = 0, high = disk->layout->extent_count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (disk->by_offset[middle].offset < begin) low = middle + 1;
        else high = middle;
    }
    for (; low < disk->layout->extent_count; low++) {
        const pi2_extent *extent = &extents[disk->by_offset[low].extent];
        if (extent->file_offset + pi2_extent_read_bytes(extent) > end) return;
        disk->extent_there[disk->by_offset[low].extent] = there;
    }
}

static void begin_reads(void *user, size_t count) {
    pi2_simulated_disk *disk = user;
    disk->together = in_flight(disk) + (uint32_t)count;
}

static void read_one(void *user, uint64_t offset, uint32_t bytes) {
    pi2_simulated_disk *disk = user;
    const uint64_t end = offset + bytes;
    const double there = serve(disk, bytes);
    const uint32_t b = bank_before(disk, end);
    if (b != PI2_NO_RUN) {
        const pi2_neuron_bank *bank = &disk->banks->banks[b];
        if (offset < bank->file_offset + (uint64_t)bank->unit_count * bank->unit_bytes) {
            bring_units(disk, b, offset, end, there);
            return;
        }
    }
    bring_extents(disk, offset, end, there);
}

/* ---- making ---- */

static int compare_places(const void *a, const void *b) {
    const uint64_t left = ((const pi2_extent_place *)a)->offset, right = ((const pi2_extent_place *)b)->offset;
    return (left > right) - (left < right);
}

pi2_status pi2_simulated_disk_make(const pi2_extent_layout *layout, const pi2_neuron_banks *banks,
                                   const pi2_workload *workload, const pi2_machine_profile *profile, uint32_t depth,
                                   pi2_simulated_disk *disk) {
    size_t units = 0;
    *disk = (pi2_simulated_disk){ .layout = layout, .banks = banks, .workload = workload, .profile = profile,
                                  .depth = depth };
    for (uint32_t b = 0; banks && b < banks->count; b++) units += banks->banks[b].unit_count;
    disk->extent_there = calloc(layout->extent_count + (size_t)1, sizeof *disk->extent_there);
    disk->unit_there = calloc(units + 1, sizeof *disk->unit_there);
    disk->first_unit = calloc(banks ? banks->count + (size_t)1 : 1, sizeof *disk->first_unit);
    disk->by_offset = calloc(layout->extent_count + (size_t)1, sizeof *disk->by_offset);
    disk->speeds = calloc((SPEED_PAGES + (size_t)1) * (depth + 1), sizeof *disk->speeds);
    disk->ends = calloc(MOST_IN_FLIGHT, sizeof *disk->ends);
    if (!disk->extent_there || !disk->unit_there || !disk->first_unit || !disk->by_offset || !disk->speeds ||
        !disk->ends) {
        pi2_simulated_disk_free(disk);
        return pi2_fail(PI2_ERR_MEMORY, "no memory to simulate a disk");
    }
    for (uint32_t b = 1; banks && b < banks->count; b++) {
        disk->first_unit[b] = disk->first_unit[b - 1] + banks->banks[b - 1].unit_count;
    }
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        disk->by_offset[e] = (pi2_extent_place){ layout->extents[e].file_offset, e };
    }
    qsort(disk->by_offset, layout->extent_count, sizeof *disk->by_offset, compare_places);
    return PI2_OK;
}

void pi2_simulated_disk_free(pi2_simulated_disk *disk) {
    free(disk->extent_there);
    free(disk->unit_there);
    free(disk->first_unit);
    free(disk->by_offset);
    free(disk->speeds);
    free(disk->ends);
    memset(disk, 0, sizeof *disk);
}

pi2_status pi2_simulated_disk_open(pi2_simulated_disk *disk, const char *path, struct pi2_reader **reader_out) {
    /* Every place that the store has memory for lies in it. */
    disk->described = (pi2_described_disk){ .file_bytes = UINT64_MAX / 2, .user = disk, .begin = begin_reads,
                                            .read = read_one };
    return pi2_reader_open_described(path, disk->depth, &disk->described, reader_out);
}

void pi2_simulated_disk_forgive(pi2_simulated_disk *disk) {
    disk->first_end = disk->end_count = 0;
    disk->last_end = disk->lost = 0;
    for (uint32_t e = 0; e < disk->layout->extent_count; e++) disk->extent_there[e] = 0;
    for (uint32_t b = 0; disk->banks && b < disk->banks->count; b++) {
        for (uint32_t u = 0; u < disk->banks->banks[b].unit_count; u++) disk->unit_there[disk->first_unit[b] + u] = 0;
    }
}
