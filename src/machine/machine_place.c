/* machine_place.c: which disk a file lies on, and which of a profile's disks that is. */
/* realpath() is of the X/Open part of POSIX. */
#define _XOPEN_SOURCE 700
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fail.h"
#include "machine/machine_profile.h"

/** Cuts an absolute path to the folder that holds it; false at the root. */
static bool parent(char *path) {
    char *slash = strrchr(path, '/');
    if (!slash || path[1] == '\0') return false;
    slash[slash == path] = '\0';
    return true;
}

/* The system's number of a file system may change when it is mounted again, so the place counts too:
   the topmost folder that is still on it. */
pi2_status pi2_profile_place(const char *path, pi2_machine_disk *disk_out) {
    struct stat info;
    char *whole = realpath(path, NULL);
    memset(disk_out, 0, sizeof *disk_out);
    if (!whole || stat(whole, &info) != 0) {
        const int error = errno;
        free(whole);
        return pi2_fail(PI2_ERR_IO, "%s: %s", path, strerror(error));
    }
    const dev_t device = info.st_dev;
    if (!S_ISDIR(info.st_mode)) (void)parent(whole);
    char *above = malloc(strlen(whole) + 2);
    if (!above) {
        free(whole);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for a path");
    }
    memcpy(above, whole, strlen(whole) + 1);
    while (parent(above) && stat(above, &info) == 0 && info.st_dev == device) memcpy(whole, above, strlen(above) + 1);
    disk_out->device = (uint64_t)device;
    const size_t length = strlen(whole) < sizeof disk_out->place ? strlen(whole) : sizeof disk_out->place - 1;
    memcpy(disk_out->place, whole, length);
    for (char *c = disk_out->place; *c; c++) {
        if (*c == '\n') *c = ' '; /* it becomes a line of the profile */
    }
    free(above);
    free(whole);
    return PI2_OK;
}

uint32_t pi2_profile_find_disk(const pi2_machine_profile *profile, const pi2_machine_disk *disk) {
    for (uint32_t i = 0; i < profile->disk_count; i++) {
        const pi2_machine_disk *known = &profile->disks[i];
        if (known->device == disk->device && strcmp(known->place, disk->place) == 0) return i;
    }
    return PI2_PROFILE_NO_DISK;
}

static bool is_of_disk(const pi2_measurement *item, uint32_t disk) {
    return pi2_measured_of_disk(item->what) && item->c == disk;
}

static void forget_disk(pi2_machine_profile *profile, uint32_t disk) {
    size_t kept = 0;
    for (size_t i = 0; i < profile->count; i++) {
        if (!is_of_disk(&profile->items[i], disk)) profile->items[kept++] = profile->items[i];
    }
    profile->count = kept;
}

uint32_t pi2_profile_add_disk(pi2_machine_profile *profile, const pi2_machine_disk *disk) {
    uint32_t at = pi2_profile_find_disk(profile, disk);
    if (at == PI2_PROFILE_NO_DISK && profile->disk_count < PI2_PROFILE_DISKS) at = profile->disk_count++;
    if (at == PI2_PROFILE_NO_DISK) { /* the one that was measured longest ago makes room */
        at = 0;
        for (uint32_t i = 1; i < profile->disk_count; i++) {
            if (profile->disks[i].time < profile->disks[at].time) at = i;
        }
    }
    forget_disk(profile, at);
    profile->disks[at] = *disk;
    return at;
}

size_t pi2_machine_disk_count(const pi2_machine_profile *profile) { return profile->disk_count; }
const pi2_machine_disk *pi2_machine_get_disk(const pi2_machine_profile *profile, size_t index) {
    return index < profile->disk_count ? &profile->disks[index] : NULL;
}
