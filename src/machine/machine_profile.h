/*
 * machine_profile.h: a list of measurements with the identity of the machine, and its text file.
 *
 *   powerinfer2-machine-profile 8
 *   cpu AMD EPYC 9554
 *   isa AVX-512 VNNI
 *   system Linux 6.1.0 x86_64
 *   cores 2
 *   time 1760000000
 *   place 0 65024 1760000000 /             a disk: number, system's number, time, topmost folder
 *   decode Q4_0 1 33554432 4096 1.31e+10 0.02   kind, name ("-": none), a, b, c, value, spread
 *   ...
 *   checksum 0123456789abcdef               XXH3 64 of every byte before this line
 */
#ifndef PI2_MACHINE_MACHINE_PROFILE_H
#define PI2_MACHINE_MACHINE_PROFILE_H

#include "base/output_file.h"
#include "powerinfer2/plan.h"

enum { PI2_PROFILE_VERSION = 8, PI2_PROFILE_MOST = 4096, PI2_PROFILE_DISKS = 8,
       PI2_PROFILE_SHARES = 256 /* neurons, of which b of PI2_MEASURED_COLUMNS give something */ };
/** No disk of a profile: what is asked of it is 0. */
#define PI2_PROFILE_NO_DISK UINT32_MAX

struct pi2_machine_profile {
    pi2_machine_identity identity;
    int64_t time;
    size_t count;
    char path[1024];
    pi2_machine_disk disks[PI2_PROFILE_DISKS];
    uint32_t disk_count;
    pi2_measurement items[PI2_PROFILE_MOST];
};

/** Whether `c` of such a measurement is a disk's number. */
bool pi2_measured_of_disk(pi2_measured what);

/** Adds one; false when the list is full. name may be NULL. */
bool pi2_profile_add(pi2_machine_profile *profile, pi2_measured what, const char *name, uint64_t a, uint64_t b,
                     uint64_t c, double value, double spread);

/**
 * The value at (a, b, c); that of the nearest end outside of what was measured. Between two lines:
 *   a   linear
 *   b   reads in flight, memory gone through: linear in its logarithm; neurons of 256: the seconds for a weight are
 *       linear in 1 / b; threads, and memory of a kernel: the nearest by ratio
 *   c   columns: the seconds for a weight are linear in 1 / columns; disks: the same one only
 * 0 when nothing of the kind and name was measured. spread_out may be NULL.
 */
double pi2_profile_value(const pi2_machine_profile *profile, pi2_measured what, const char *name, uint64_t a,
                         uint64_t b, uint64_t c, double *spread_out);

/** The disk of a file or folder, with time 0. Errors  IO, MEMORY */
pi2_status pi2_profile_place(const char *path, pi2_machine_disk *disk_out);
/** Its number in the profile, or PI2_PROFILE_NO_DISK. */
uint32_t pi2_profile_find_disk(const pi2_machine_profile *profile, const pi2_machine_disk *disk);
/** Its number; what was measured of it (or of the oldest disk, where there is no room) is forgotten. */
uint32_t pi2_profile_add_disk(pi2_machine_profile *profile, const pi2_machine_disk *disk);

/** Where the profile is kept. Errors  INVALID (too long), IO (neither XDG_CACHE_HOME nor HOME is set) */
pi2_status pi2_profile_default_path(char *path_out, size_t capacity);

/**
 * Opens a profile's file for writing, before anything is measured for it; makes missing folders.
 * measured_path: what is read for it, or NULL. Errors  IO, INVALID (something else than a profile lies there)
 */
pi2_status pi2_profile_open(const char *path, const char *measured_path, pi2_output_file *file);
/** Writes the profile and gives the file its name. Errors  IO, INVALID, MEMORY */
pi2_status pi2_profile_save(const pi2_machine_profile *profile, pi2_output_file *file);

/** Reads the file whatever machine it is of. Errors  IO, FORMAT, UNSUPPORTED (version) */
pi2_status pi2_profile_read(const char *path, pi2_machine_profile *profile_out);

/** Errors  UNSUPPORTED: what is not the same */
pi2_status pi2_profile_check_identity(const pi2_machine_profile *profile, const pi2_machine_identity *now);

#endif
