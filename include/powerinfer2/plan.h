/*
 * plan.h: what this machine can do, and how fast a model will therefore run on it.
 *
 * A device profile is measured once (about 15 seconds) and kept in a file. From it, a model's
 * header and a memory budget a plan is made without reading any weights.
 */
#ifndef POWERINFER2_PLAN_H
#define POWERINFER2_PLAN_H

#include "powerinfer2/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the device profile ---- */

typedef struct pi2_device_profile pi2_device_profile;

/** What a profile was measured on: it holds as long as all of this is the same. */
typedef struct pi2_device_identity {
    char cpu[96];     /* "AMD EPYC 9554" */
    char isa[32];     /* instruction set in use: "AVX-512 VNNI" */
    char system[128]; /* "Linux 6.1.0 x86_64" */
    uint32_t cores;   /* CPUs that this process may use */
} pi2_device_identity;
/** The machine that this process runs on. */
PI2_API void pi2_device_identify(pi2_device_identity *identity_out);

/** What one line of a profile says; `name`, `a` and `b` as told here. */
typedef enum pi2_measured {
    PI2_MEASURED_MEMORY,    /* a: threads. Bytes/s of plain reading */
    PI2_MEASURED_DECODE,    /* name: weight type, a: threads. Bytes of weights/s, one token */
    PI2_MEASURED_BATCH,     /* name: weight type, a: tokens, b: threads. Operations/s */
    PI2_MEASURED_ATTENTION, /* a: queries at once. Operations/s of one thread */
    PI2_MEASURED_VECTOR,    /* floats/s of one thread through norm, addition and quantising */
    PI2_MEASURED_STAGE,     /* a: threads. Seconds that a stage's meeting of threads takes */
    PI2_MEASURED_CORE,      /* a: thread, all computing at once. Operations/s */
    PI2_MEASURED_DISK,      /* name: read method, a: bytes of a read, b: reads in flight. Bytes/s */
    PI2_MEASURED_READ_CPU,  /* name: read method. Seconds of processor time for a byte read */
    PI2_MEASURED_KINDS
} pi2_measured;

typedef struct pi2_measurement {
    pi2_measured what;
    char name[24];
    uint64_t a, b;
    double value;
    double spread; /* half the width of the middle three fifths, as a share of the value */
} pi2_measurement;

typedef struct pi2_device_options {
    const char *profile_path; /* NULL: ${XDG_CACHE_HOME:-~/.cache}/powerinfer2/device.profile */
    const char *disk_path;    /* a large file to read, or a folder to make one in for the time; NULL:
                                 the profile's folder */
    bool quick;               /* a tenth of the time, with the noise that this brings */
    pi2_callbacks callbacks;
} pi2_device_options;

/**
 * Measures this machine and keeps the result in the profile's file.
 * Errors  IO (disk or profile file), MEMORY, INTERRUPTED
 */
PI2_API pi2_status pi2_device_measure(const pi2_device_options *options, pi2_device_profile **profile_out);

/**
 * Reads a kept profile. path NULL: where it is kept by default.
 * Errors  IO (there is none), FORMAT (damaged), UNSUPPORTED (of another machine, system or version:
 *         which), MEMORY
 */
PI2_API pi2_status pi2_device_load(const char *path, pi2_device_profile **profile_out);
PI2_API void pi2_device_free(pi2_device_profile *profile);

PI2_API const pi2_device_identity *pi2_device_profile_identity(const pi2_device_profile *profile);
/** When it was measured: seconds since 1970. */
PI2_API int64_t pi2_device_profile_time(const pi2_device_profile *profile);
/** The file that it was read from or written to. */
PI2_API const char *pi2_device_profile_path(const pi2_device_profile *profile);
PI2_API size_t pi2_device_measurement_count(const pi2_device_profile *profile);
PI2_API const pi2_measurement *pi2_device_measurement(const pi2_device_profile *profile, size_t index);
PI2_API const char *pi2_measured_name(pi2_measured what);

#ifdef __cplusplus
}
#endif
#endif
