/* opencl_internal.h: an opened OpenCL device; for the files of this folder. */
#ifndef PI2_BACKENDS_OPENCL_OPENCL_INTERNAL_H
#define PI2_BACKENDS_OPENCL_OPENCL_INTERNAL_H

#include <pthread.h>

#include "backends/backend.h"
#include "backends/opencl/opencl_library.h"
#include "weight_formats/weight_format.h"

/** Types that opencl_program.cl multiplies: X(name, TYPE). */
#define PI2_OPENCL_TYPES(X)                                                                                    \
    X(f32, PI2_F32) X(f16, PI2_F16) X(bf16, PI2_BF16) X(q4_0, PI2_Q4_0) X(q4_1, PI2_Q4_1) X(q5_0, PI2_Q5_0) \
    X(q5_1, PI2_Q5_1) X(q8_0, PI2_Q8_0) X(q4_k, PI2_Q4_K) X(q6_k, PI2_Q6_K)
#define PI2_OPENCL_COUNT(name, type) +1
enum { PI2_OPENCL_TYPE_COUNT = 0 PI2_OPENCL_TYPES(PI2_OPENCL_COUNT) };
#undef PI2_OPENCL_COUNT

/** Work is cut so that activations and results of a piece fit buffers of these sizes, made once. */
enum { PI2_OPENCL_X_BYTES = 1 << 20, PI2_OPENCL_OUT_BYTES = 4 << 20, PI2_OPENCL_WEIGHT_BYTES = 4 << 20,
       PI2_OPENCL_GROUP_TOKENS = 4, PI2_OPENCL_TEXT_BYTES = 200 };
/** And so that no kernel runs for long: drivers end one that keeps a screen waiting. Multiply-adds. */
#define PI2_OPENCL_PIECE_PRODUCTS (UINT64_C(1) << 30)

/** As `shape` in opencl_program.cl. */
typedef struct pi2_opencl_shape {
    cl_ulong tiles, tile_bytes, value_area;
    cl_ulong values, scales, sums;
    cl_uint value_stride, scale_stride, sum_stride;
    cl_uint blocks, tokens, rows;
    cl_uint start;
} pi2_opencl_shape;

/** Weights that stay: a view of the pass's memory, or a copy on the device. */
typedef struct pi2_opencl_unit {
    cl_mem memory;               /* NULL: there is none */
    const void *host;            /* of a view: what it shows */
    size_t bytes;
} pi2_opencl_unit;

typedef struct pi2_opencl_device {
    const pi2_opencl_library *cl;
    cl_device_id id;
    cl_context context;
    cl_command_queue queue;
    cl_program program;
    cl_kernel kernels[PI2_OPENCL_TYPE_COUNT];
    size_t group_rows[PI2_OPENCL_TYPE_COUNT]; /* of a work group: a divisor of a tile's */
    bool computes[PI2_OPENCL_TYPE_COUNT];
    uint32_t exact_types;        /* bit i: the bits of type i are the processor's */
    bool is_kept;                /* the program was compiled by an earlier run, */
    uint32_t kept_exact_types;   /* which found these */
    cl_mem x, out, weights;      /* weights: what does not stay, where memory is not shared; else NULL */
    uint8_t *x_memory;           /* [PI2_OPENCL_X_BYTES]: what goes into x */
    float *out_memory;           /* [PI2_OPENCL_OUT_BYTES / 4]: what comes out of `out` */
    pi2_opencl_unit *units;      /* [unit_count], by number */
    uint32_t unit_count;
    uint64_t copied_bytes, most_copied_bytes;
    uint64_t most_buffer_bytes;  /* of one buffer: some drivers make larger ones, which do not work */
    bool shares_memory, has_other_bits, is_processor;
    bool flushes;                /* it takes denormal floats for 0: results that these may have changed are NaN */
    uint64_t timeout_ns;
    pthread_mutex_t lock;        /* of what the driver's callback tells */
    pthread_cond_t told;
    cl_int result;               /* CL_QUEUED: not yet; CL_COMPLETE; else an error */
    bool asks;                   /* the driver does not tell, at least not always: it is asked */
    bool is_stuck;               /* work is still under way that nobody waits for: nothing of this may be freed */
    cl_event stuck_event;        /* what it belongs to, kept for as long as the process */
    cl_mem stuck_view;
    struct pi2_opencl_device *next_stuck;
    char name[PI2_OPENCL_TEXT_BYTES], description[3 * PI2_OPENCL_TEXT_BYTES];
} pi2_opencl_device;

/** The program's source, a part of the binary. */
extern const unsigned char pi2_opencl_program[];
extern const size_t pi2_opencl_program_bytes;

/** Number of the type in PI2_OPENCL_TYPES; -1: it is not there. */
int pi2_opencl_type(pi2_weight_type type);
/** The back-end's multiply(), of any type that has a kernel. opencl_multiply.c */
pi2_status pi2_opencl_multiply(void *state, const pi2_backend_work *work);
/** Of the buffer for copies of weights that do not stay. */
size_t pi2_opencl_weight_bytes(const pi2_opencl_device *device);
/** From now on weights are copied to the device. Errors  UNSUPPORTED (there is no memory for the buffer) */
pi2_status pi2_opencl_keep_copies(pi2_opencl_device *device);
/** Gives up all that stays. */
void pi2_opencl_forget(void *state);
/** Compiles the program, or takes what an earlier run compiled, unless is_anew. What was there before is released.
 *  opencl_compile.c
 *  Errors  UNSUPPORTED (the compiler's first line), MEMORY */
pi2_status pi2_opencl_compile(pi2_opencl_device *device, const char *cache_folder, bool is_anew);
/** Keeps the program with what was found of it (exact_types). */
void pi2_opencl_keep(const pi2_opencl_device *device, const char *cache_folder);
/** Removes what is kept of such a program: the next run compiles it. */
void pi2_opencl_remove_kept(const pi2_opencl_device *device, const char *cache_folder);
/** Releases the program and its kernels. */
void pi2_opencl_drop_program(pi2_opencl_device *device);
/** Text about a device or its platform (is_platform), as long as it is: to be freed; NULL: there is none. */
char *pi2_opencl_text(const pi2_opencl_device *device, bool is_platform, cl_uint info);
/** Tries every kernel against the processor's scalar one, and sets exact_types and computes[] (all of them, where any
 *  precision will do). opencl_check.c
 *  Errors  those of multiply() but UNSUPPORTED */
pi2_status pi2_opencl_check(pi2_opencl_device *device, bool any_precision);
/** Whether a kernel sees what the processor writes into memory that a buffer shows: the device says so of itself, and
 *  may have a copy all the same. True also where it cannot be told. Errors  those of multiply() */
pi2_status pi2_opencl_check_views(pi2_opencl_device *device, bool *sees_out);
/** Text of an error that a function of OpenCL returned. */
const char *pi2_opencl_error(cl_int error);

#endif
