/*
 * plan.h: what this machine can do, and how fast a model will therefore run on it.
 *
 * A machine profile is measured once (about three quarters of a minute) and kept in a file. From it, a model's
 * header and a memory budget a plan is made without reading any weights.
 */
#ifndef POWERINFER2_PLAN_H
#define POWERINFER2_PLAN_H

#include "powerinfer2/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the machine profile ---- */

typedef struct pi2_machine_profile pi2_machine_profile;

/** What a profile was measured on: it holds as long as all of this is the same. */
typedef struct pi2_machine_identity {
    char cpu[96];     /* "AMD EPYC 9554" */
    char isa[32];     /* instruction set in use: "AVX-512 VNNI" */
    char system[128]; /* "Linux 6.1.0 x86_64" */
    uint32_t cores;   /* CPUs that this process may use */
} pi2_machine_identity;
/** The machine that this process runs on. */
PI2_API void pi2_machine_identify(pi2_machine_identity *identity_out);

/** What one line of a profile says; `name`, `a` and `b` as told here. */
typedef enum pi2_measured {
    PI2_MEASURED_BUFFER,    /* a: bytes of the last level of caches, 0: unknown. Bytes of the largest buffer that the
                               next two were measured with: what is less than twice a tells of the cache */
    PI2_MEASURED_MEMORY,    /* a: threads, b: bytes gone through again and again. Bytes/s of plain reading */
    PI2_MEASURED_DECODE,    /* name: weight type, a: threads, b: as memory's, c: columns of a row. Bytes of weights/s,
                               one token */
    PI2_MEASURED_BATCH,     /* name: weight type, a: tokens, b: threads, c: columns. Operations/s */
    PI2_MEASURED_ROWS,      /* name: weight type, a: threads, c: columns. Bytes/s of single neurons' rows that lie apart
                               in memory: of Up */
    PI2_MEASURED_COLUMNS,   /* name: weight type, a: threads, b: neurons of 256 that give something, c: rows. Bytes/s
                               of single neurons' columns, as many as they have in a whole matrix: of Down */
    PI2_MEASURED_PREDICTOR, /* name: "2-bit", "3-bit", "int8", a: threads, c: columns. Bytes/s of a predictor's rows */
    PI2_MEASURED_STORE,     /* a: threads; name: what the store of single neurons takes beside reading and computing:
                               "tell": neurons/s whose Gates it is told, "find": units/s that are there, "bring":
                               units/s that are not, "check": bytes/s of checksums */
    PI2_MEASURED_ATTENTION, /* a: queries at once. Operations/s of one thread */
    PI2_MEASURED_VECTOR,    /* floats/s of one thread through norm, addition and quantising */
    PI2_MEASURED_STAGE,     /* a: threads. Seconds that a stage takes beside its work: the meeting of threads, and
                               waiting for the one that ends last */
    PI2_MEASURED_CORE,      /* a: thread, all computing at once. Operations/s */
    PI2_MEASURED_DISK,      /* name: read method, a: bytes of a read, b: reads in flight, c: disk. Bytes/s */
    PI2_MEASURED_SMALL_READ, /* as the disk's, of reads below 64 KB that ascend with gaps, as those of neurons do,
                               while threads compute on every processor */
    PI2_MEASURED_READ_CPU,  /* name: read method, a: bytes of a read, b: reads in flight, c: disk. Seconds of processor
                               time for a byte */
    PI2_MEASURED_KINDS
} pi2_measured;

typedef struct pi2_measurement {
    pi2_measured what;
    char name[24];
    uint64_t a, b, c;
    double value;
    double spread; /* half the width of the middle three fifths, as a share of the value */
} pi2_measurement;

/** A disk that a profile knows. */
typedef struct pi2_machine_disk {
    uint64_t device;   /* the system's number of it */
    char place[256];   /* topmost folder on it */
    int64_t time;      /* when it was measured: seconds since 1970 */
} pi2_machine_disk;

typedef struct pi2_machine_options {
    const char *profile_path; /* NULL: ${XDG_CACHE_HOME:-~/.cache}/powerinfer2/machine.profile */
    const char *disk_path;    /* a large file to read, or a folder to make one in for the time; NULL:
                                 the profile's folder */
    bool quick;               /* a tenth of the time, with the noise that this brings */
    pi2_callbacks callbacks;
} pi2_machine_options;

/**
 * Measures this machine and keeps the result in the profile's file.
 * Errors  IO (disk or profile file), MEMORY, INTERRUPTED
 */
PI2_API pi2_status pi2_machine_measure(const pi2_machine_options *options, pi2_machine_profile **profile_out);

/**
 * Reads a kept profile. path NULL: where it is kept by default.
 * Errors  IO (there is none), FORMAT (damaged), UNSUPPORTED (of another machine, system or version:
 *         which), MEMORY
 */
PI2_API pi2_status pi2_machine_load(const char *path, pi2_machine_profile **profile_out);
/** Reads a profile of whatever machine, for simulate_model.h. Errors  IO, FORMAT, UNSUPPORTED (version), MEMORY */
PI2_API pi2_status pi2_machine_read(const char *path, pi2_machine_profile **profile_out);
PI2_API void pi2_machine_free(pi2_machine_profile *profile);

/** Whether the profile has no figures of the disk of a file or folder, or has older ones than a day. */
PI2_API bool pi2_machine_needs_disk(const pi2_machine_profile *profile, const char *path);
/**
 * Measures the disk of options->disk_path for about a second and keeps the profile's file. A file of 8 MB
 * or more is read itself; otherwise one of 8 MB is made beside it for the time. What the disk gave
 * before counts for the spread. The other options are those of pi2_machine_measure(); profile_path is not used.
 * Errors  IO, MEMORY, INTERRUPTED; the profile is as it was
 */
PI2_API pi2_status pi2_machine_measure_disk(pi2_machine_profile *profile, const pi2_machine_options *options);
PI2_API size_t pi2_machine_disk_count(const pi2_machine_profile *profile);
/** Disk number `index`, which `c` of a measurement names. */
PI2_API const pi2_machine_disk *pi2_machine_get_disk(const pi2_machine_profile *profile, size_t index);

PI2_API const pi2_machine_identity *pi2_machine_profile_identity(const pi2_machine_profile *profile);
/** When it was measured: seconds since 1970. */
PI2_API int64_t pi2_machine_profile_time(const pi2_machine_profile *profile);
/** The file that it was read from or written to. */
PI2_API const char *pi2_machine_profile_path(const pi2_machine_profile *profile);
PI2_API size_t pi2_machine_measurement_count(const pi2_machine_profile *profile);
PI2_API const pi2_measurement *pi2_machine_measurement(const pi2_machine_profile *profile, size_t index);
PI2_API const char *pi2_measured_name(pi2_measured what);

/* ---- predictions ---- */

typedef struct pi2_speed {
    double tokens_per_second, low, high;
} pi2_speed;

typedef enum pi2_bottleneck { PI2_LIMIT_DISK, PI2_LIMIT_MEMORY_BANDWIDTH, PI2_LIMIT_COMPUTE } pi2_bottleneck;
/** "disk", "memory bandwidth", "compute". */
PI2_API const char *pi2_bottleneck_name(pi2_bottleneck bottleneck);

typedef struct pi2_prediction {
    pi2_speed decode, prefill;
    uint64_t bytes_per_token;      /* read from storage for each decoded token */
    uint64_t resident_bytes;       /* weights that stay in memory */
    double load_ms;                /* reading what stays in memory, once */
    double time_to_first_token_ms; /* load_ms and the prompt */
    pi2_bottleneck bottleneck;     /* of decoding: what would speed it up most, were it twice as fast */
    pi2_bottleneck prefill_bottleneck;
    char disk[256];                /* the topmost folder of the disk that was counted on */
    double disk_speed, disk_low, disk_high; /* bytes/s with many large reads in flight; 0: unknown, not needed */
    /* Mixtures of experts; else 0, and no text. */
    uint32_t expert_slots;         /* experts that memory holds, of expert_total in all layers */
    uint32_t expert_total;
    double expert_hit_rate;        /* share of a decoded token's experts that are found in memory */
    char routing[256];             /* what was assumed of the routing, or where it was recorded */
    /* Sparse models whose tokens read and compute single neurons; else 0, and no text. */
    uint64_t neuron_units;         /* in all layers; one is read at once: a neuron's Up and Down, or those of a few */
    uint64_t neuron_slots;         /* units that memory holds */
    double neuron_share;           /* of all neurons, those that a decoded token uses */
    double neuron_hit_rate;        /* of its units, those that are found in memory */
    double neuron_reads;           /* of its units, those that are read */
    char sparsity[256];            /* what was assumed of the neurons, or where they were counted */
    /* With devices whose worth was measured, the same of the processor alone; else 0. */
    pi2_speed decode_alone, prefill_alone;
} pi2_prediction;

enum { PI2_DEVICE_POINTS = 3 };
/** What a device beside the processor is worth, measured when the run was planned, with 1, 8 and 64 tokens. */
typedef struct pi2_device_speed {
    char name[64];
    double shares[PI2_DEVICE_POINTS]; /* of a matrix, that it should compute */
    double gains[PI2_DEVICE_POINTS];  /* how many times as fast matrices are with it; 0: not measured */
    bool is_left_out;                 /* it does not pay, and was closed */
} pi2_device_speed;

/** What shall be predicted. */
typedef struct pi2_prediction_request {
    uint32_t prompt_tokens;    /* of the prefill */
    uint32_t position;         /* at which decoding is predicted */
    uint32_t answer_tokens;    /* experts: so many tokens after the prompt decide about the hit rate, those that
                                  find a cold cache too; 0: many */
    const char *routing_trace; /* experts: a recorded run (pi2_engine_options.record_trace) whose routing is
                                  taken; NULL: every expert is as likely as any other, for each token anew */
    const char *statistics;    /* single neurons: how often each fires (docs/statistics_format.md); NULL: a share is
                                  assumed, and every neuron as likely as any other */
    bool fills_neurons;        /* single neurons: the first of the answer_tokens reads those that stay in memory */
} pi2_prediction_request;

enum { PI2_ADVICE_MOST = 8 };
/** A change and the speed of decoding that it would bring. */
typedef struct pi2_advice {
    char what[64];
    double tokens_per_second, factor;
} pi2_advice;

/** One line of what the memory is spent on. */
typedef struct pi2_plan_line {
    char what[64];
    uint64_t bytes, resident_bytes; /* of weights: how much of them stays */
    char why[96];
} pi2_plan_line;
enum { PI2_PLAN_LINES_MOST = 16 };

/** Whether a prompt's reading hides under its computing. */
typedef struct pi2_batch_check {
    uint32_t tokens;            /* of a batch of the prompt; 0: nothing is read, or there was no profile */
    double read_ms, compute_ms; /* of such a batch */
    bool reading_hides;
    uint32_t hides_from;        /* tokens of a batch from which on it does, with the same weights in memory; 0: none
                                   within the context */
} pi2_batch_check;

typedef struct pi2_plan pi2_plan;

/**
 * Plans a model without loading weights: header, memory plan, prediction. The options are those of
 * pi2_engine_open(); nothing is prepared.
 *
 * profile  NULL: nothing is predicted, all speeds are 0
 * request  NULL, or 0 for the prompt: 512 tokens, and what fits the context; position 0: after them
 * Errors  as pi2_engine_open(); of the routing trace IO, FORMAT, INVALID (of another model)
 */
PI2_API pi2_status pi2_plan_make(const pi2_engine_options *options, const pi2_machine_profile *profile,
                                 const pi2_prediction_request *request, pi2_plan **plan_out);
PI2_API void pi2_plan_free(pi2_plan *plan);
/** What an engine opened with these options would report; strings live as long as the plan. */
PI2_API const pi2_engine_report *pi2_plan_report(const pi2_plan *plan);
/** pi2_engine_arithmetic() of the run. */
PI2_API const char *pi2_plan_arithmetic(const pi2_plan *plan);
PI2_API const pi2_prediction *pi2_plan_prediction(const pi2_plan *plan);
PI2_API const pi2_advice *pi2_plan_advice(const pi2_plan *plan, size_t *count_out);
PI2_API const pi2_plan_line *pi2_plan_lines(const pi2_plan *plan, size_t *count_out);
/** Of each device that was opened, in the order of the options. */
PI2_API const pi2_device_speed *pi2_plan_device_speeds(const pi2_plan *plan, size_t *count_out);
PI2_API const pi2_batch_check *pi2_plan_batch_check(const pi2_plan *plan);
/** Why the experts that memory holds are too few, in a line; NULL: they hold what one token uses, or a dense model. */
PI2_API const char *pi2_plan_expert_note(const pi2_plan *plan);

/** The same for an engine that runs. Errors  of the routing trace: IO, FORMAT, INVALID; MEMORY */
PI2_API pi2_status pi2_engine_predict(const pi2_engine *engine, const pi2_machine_profile *profile,
                                      const pi2_prediction_request *request, pi2_prediction *prediction_out);

#ifdef __cplusplus
}
#endif
#endif
