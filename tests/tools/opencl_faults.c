/*
 * opencl_faults.c: a loader of OpenCL in the place of the system's, which hands every call on to it and, as
 * PI2_OPENCL_FAULTS says at the time of the call (words with commas between them), behaves as drivers of other devices
 * do, and as broken ones:
 *
 *   other-bits     results are a little too large
 *   own-memory     the device says that it shares no memory with the processor
 *   memory=N       buffers are made, but only the first N bytes of them have memory: using others fails, as where a
 *                  driver allocates late
 *   late=N         as memory=N, but only kernels that use them fail
 *   no-views       no buffer shows the processor's memory
 *   flushes        the device says that it may take denormal floats for 0
 *   lost=N         the Nth kernel from here fails in the middle, and everything after it
 *   hang=N         the Nth kernel from here and everything after it never ends, and the weights that it was given are
 *                  read for as long as the process lives
 *   slow=N         an answer comes N times 10 ms later
 *   tells-nothing  nobody is called when work is done; who asks is told
 *   fails=N        the Nth kernel from here fails, of which nobody is called; who asks is told
 *   groups=N       a work group of a kernel has at most N items; items=N: in its first dimension
 *   largest=N      no buffer may be larger; larger ones are made, and kernels that read them do nothing
 *   shadow         what shows the processor's memory is a copy of it
 *   forgets-small  the device does not say so, and takes denormal floats for 0
 *   lists-c3       OpenCL C 3.0 is only in the list of all versions; no-c3: it does not compile
 *   updated        the platform has another version
 *   no-drivers     there is no platform; no-devices: it has no device
 *   no-build       no program compiles, and the compiler has much to say
 *   bad-binary     what was kept of a program is taken, and then does not build; no-kernels: or has no kernels;
 *                  bad-bits: or computes other bits
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/opencl/opencl_library.h"

enum { MOST_BUFFERS = 1 << 16 };

static pi2_opencl_library real;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* What was made, so that it is known how large it is and what it shows. */
static struct {
    cl_mem memory;
    size_t bytes;
    const volatile unsigned char *host;
    bool is_backed;
} buffers[MOST_BUFFERS];
static size_t buffer_count, backed_bytes;
static cl_mem argument; /* the weights of the kernel that is set up */
static unsigned long kernels; /* since lost= or hang= was said */
static bool is_lost, is_hung, has_failed, runs_binary;
static _Atomic unsigned sum_of_reads;

/** So that a test knows that it has this loader. */
extern const char pi2_opencl_faults[];
const char pi2_opencl_faults[] = "faults";

static void load(void) {
    void *library = NULL;
    static const char *const places[] = { "/usr/lib/" MULTIARCH "/libOpenCL.so.1", "/usr/lib64/libOpenCL.so.1",
                                          "/usr/lib/libOpenCL.so.1" };
    for (size_t i = 0; i < sizeof places / sizeof places[0] && !library; i++) {
        library = dlopen(places[i], RTLD_NOW | RTLD_LOCAL);
    }
#define PI2_OPENCL_FIND(name)                                                   \
    {                                                                           \
        void *address = library ? dlsym(library, "cl" #name) : NULL;            \
        memcpy(&real.name, &address, sizeof address);                           \
    }
    PI2_OPENCL_FUNCTIONS(PI2_OPENCL_FIND)
#undef PI2_OPENCL_FIND
}

static bool has_real(void) {
    (void)pthread_once(&once, load);
    return real.GetPlatformIDs != NULL;
}

/* Whether a word is among the faults; the number behind its '=' is left in *number. */
static bool has_fault(const char *word, unsigned long *number) {
    const char *at = getenv("PI2_OPENCL_FAULTS");
    const size_t length = strlen(word);
    while (at && *at) {
        if (strncmp(at, word, length) == 0 && (at[length] == 0 || at[length] == ',' || at[length] == '=')) {
            if (number) *number = at[length] == '=' ? strtoul(at + length + 1, NULL, 10) : 0;
            return true;
        }
        at = strchr(at, ',');
        at += at != NULL;
    }
    return false;
}

/* ---- devices and programs ---- */

cl_int clGetPlatformIDs(cl_uint most, cl_platform_id *platforms, cl_uint *count) {
    if (!has_real() || has_fault("no-drivers", NULL)) return -1001; /* CL_PLATFORM_NOT_FOUND_KHR */
    return real.GetPlatformIDs(most, platforms, count);
}

cl_int clGetPlatformInfo(cl_platform_id platform, cl_platform_info info, size_t bytes, void *to, size_t *length) {
    const cl_int error = real.GetPlatformInfo(platform, info, bytes, to, length);
    if (error == CL_SUCCESS && to && info == CL_PLATFORM_VERSION && has_fault("updated", NULL)) ((char *)to)[0] = 'o';
    return error;
}

cl_int clGetDeviceIDs(cl_platform_id platform, cl_device_type type, cl_uint most, cl_device_id *devices,
                      cl_uint *count) {
    if (has_fault("no-devices", NULL)) return CL_DEVICE_NOT_FOUND;
    return real.GetDeviceIDs(platform, type, most, devices, count);
}

static cl_int list_versions(size_t bytes, void *to, size_t *length) {
    const struct { cl_uint version; char name[64]; } versions[] = { { 1 << 22 | 2 << 12, "OpenCL C" },
                                                                    { 3 << 22, "OpenCL C" } };
    if (length) *length = sizeof versions;
    if (!to) return CL_SUCCESS;
    if (bytes < sizeof versions) return CL_INVALID_VALUE;
    memcpy(to, versions, sizeof versions);
    return CL_SUCCESS;
}

cl_int clGetDeviceInfo(cl_device_id device, cl_device_info info, size_t bytes, void *to, size_t *length) {
    enum { ALL_VERSIONS = 0x1066 };
    unsigned long number = 0;
    if (info == ALL_VERSIONS) {
        return has_fault("lists-c3", NULL) ? list_versions(bytes, to, length) : CL_INVALID_VALUE;
    }
    const cl_int error = real.GetDeviceInfo(device, info, bytes, to, length);
    if (error != CL_SUCCESS || !to) return error;
    if (info == CL_DEVICE_HOST_UNIFIED_MEMORY && has_fault("own-memory", NULL)) *(cl_bool *)to = CL_FALSE;
    if (info == CL_DEVICE_SINGLE_FP_CONFIG && has_fault("flushes", NULL)) {
        *(cl_device_fp_config *)to &= ~(cl_device_fp_config)CL_FP_DENORM;
    }
    if (info == CL_DEVICE_MAX_WORK_ITEM_SIZES && has_fault("items", &number)) *(size_t *)to = number;
    if (info == CL_DEVICE_MAX_MEM_ALLOC_SIZE && has_fault("largest", &number)) *(cl_ulong *)to = number;
    return error;
}

cl_context clCreateContext(const cl_context_properties *properties, cl_uint count, const cl_device_id *devices,
                           void(CL_CALLBACK *notify)(const char *, const void *, size_t, void *), void *user,
                           cl_int *error) {
    return real.CreateContext(properties, count, devices, notify, user, error);
}

cl_int clReleaseContext(cl_context context) { return real.ReleaseContext(context); }

cl_command_queue clCreateCommandQueue(cl_context context, cl_device_id device, cl_command_queue_properties properties,
                                      cl_int *error) {
    kernels = 0;
    is_lost = is_hung = has_failed = false;
    return real.CreateCommandQueue(context, device, properties, error);
}

cl_int clReleaseCommandQueue(cl_command_queue queue) { return real.ReleaseCommandQueue(queue); }

cl_program clCreateProgramWithSource(cl_context context, cl_uint count, const char **texts, const size_t *lengths,
                                     cl_int *error) {
    runs_binary = false;
    return real.CreateProgramWithSource(context, count, texts, lengths, error);
}

static bool is_from_binary;

cl_program clCreateProgramWithBinary(cl_context context, cl_uint count, const cl_device_id *devices,
                                     const size_t *lengths, const unsigned char **binaries, cl_int *status,
                                     cl_int *error) {
    is_from_binary = runs_binary = true;
    return real.CreateProgramWithBinary(context, count, devices, lengths, binaries, status, error);
}

/** With which options a program was built first since a test set it to an empty text. */
extern char pi2_opencl_options[];
char pi2_opencl_options[256];

cl_int clBuildProgram(cl_program program, cl_uint count, const cl_device_id *devices, const char *options,
                      void(CL_CALLBACK *notify)(cl_program, void *), void *user) {
    const bool is_bad = has_fault("no-build", NULL) || (is_from_binary && has_fault("bad-binary", NULL)) ||
                        (strstr(options, "CL3.0") && has_fault("no-c3", NULL));
    is_from_binary = false;
    if (!pi2_opencl_options[0]) (void)snprintf(pi2_opencl_options, sizeof pi2_opencl_options, "%s", options);
    return is_bad ? CL_BUILD_PROGRAM_FAILURE : real.BuildProgram(program, count, devices, options, notify, user);
}

cl_int clGetProgramBuildInfo(cl_program program, cl_device_id device, cl_program_build_info info, size_t bytes,
                             void *to, size_t *length) {
    enum { LONG_LOG = 100000 };
    if (info != CL_PROGRAM_BUILD_LOG || !has_fault("no-build", NULL)) {
        return real.GetProgramBuildInfo(program, device, info, bytes, to, length);
    }
    if (length) *length = LONG_LOG;
    if (!to) return CL_SUCCESS;
    if (bytes < LONG_LOG) return CL_INVALID_VALUE;
    memset(to, 'x', LONG_LOG);
    memcpy(to, "\nerror: this is why\n", strlen("\nerror: this is why\n"));
    ((char *)to)[LONG_LOG - 1] = '\0';
    return CL_SUCCESS;
}

cl_int clGetProgramInfo(cl_program program, cl_program_info info, size_t bytes, void *to, size_t *length) {
    return real.GetProgramInfo(program, info, bytes, to, length);
}

cl_int clReleaseProgram(cl_program program) { return real.ReleaseProgram(program); }

cl_kernel clCreateKernel(cl_program program, const char *name, cl_int *error) {
    if (runs_binary && has_fault("no-kernels", NULL)) {
        *error = CL_INVALID_KERNEL_NAME;
        return NULL;
    }
    return real.CreateKernel(program, name, error);
}

cl_int clReleaseKernel(cl_kernel kernel) { return real.ReleaseKernel(kernel); }

cl_int clSetKernelArg(cl_kernel kernel, cl_uint number, size_t bytes, const void *value) {
    if (number == 0 && bytes == sizeof argument) memcpy(&argument, value, sizeof argument);
    return real.SetKernelArg(kernel, number, bytes, value);
}

cl_int clGetKernelWorkGroupInfo(cl_kernel kernel, cl_device_id device, cl_kernel_work_group_info info, size_t bytes,
                                void *to, size_t *length) {
    unsigned long number = 0;
    const cl_int error = real.GetKernelWorkGroupInfo(kernel, device, info, bytes, to, length);
    if (error == CL_SUCCESS && to && info == CL_KERNEL_WORK_GROUP_SIZE && has_fault("groups", &number)) {
        *(size_t *)to = number;
    }
    return error;
}

/* ---- memory ---- */

/* The number of a buffer; buffer_count: it is not known. */
static size_t find(cl_mem memory) {
    size_t i = 0;
    while (i < buffer_count && buffers[i].memory != memory) i++;
    return i;
}

cl_mem clCreateBuffer(cl_context context, cl_mem_flags flags, size_t bytes, void *host, cl_int *error) {
    unsigned long most = 0;
    const bool is_view = (flags & CL_MEM_USE_HOST_PTR) != 0;
    if (is_view && has_fault("no-views", NULL)) {
        *error = CL_INVALID_BUFFER_SIZE;
        return NULL;
    }
    const bool is_copy = is_view && has_fault("shadow", NULL);
    const cl_mem_flags copied = (flags & ~(cl_mem_flags)CL_MEM_USE_HOST_PTR) | CL_MEM_COPY_HOST_PTR;
    cl_mem memory = real.CreateBuffer(context, is_copy ? copied : flags, bytes, host, error);
    (void)pthread_mutex_lock(&lock);
    if (memory && buffer_count < MOST_BUFFERS) {
        const bool is_short = has_fault("memory", &most) || has_fault("late", &most);
        const bool is_backed = is_view || !is_short || backed_bytes + bytes <= most;
        buffers[buffer_count].memory = memory;
        buffers[buffer_count].bytes = bytes;
        buffers[buffer_count].host = is_view ? host : NULL;
        buffers[buffer_count++].is_backed = is_backed;
        if (is_backed && !is_view) backed_bytes += bytes;
    }
    (void)pthread_mutex_unlock(&lock);
    return memory;
}

cl_int clReleaseMemObject(cl_mem memory) {
    (void)pthread_mutex_lock(&lock);
    const size_t i = find(memory);
    if (i < buffer_count) {
        if (buffers[i].is_backed && !buffers[i].host) backed_bytes -= buffers[i].bytes;
        buffers[i] = buffers[--buffer_count];
    }
    (void)pthread_mutex_unlock(&lock);
    return real.ReleaseMemObject(memory);
}

static bool is_too_large(cl_mem memory) {
    unsigned long most = 0;
    if (!has_fault("largest", &most)) return false;
    (void)pthread_mutex_lock(&lock);
    const size_t i = find(memory);
    const bool is_large = i < buffer_count && buffers[i].bytes > most;
    (void)pthread_mutex_unlock(&lock);
    return is_large;
}

static bool has_memory(cl_mem memory) {
    (void)pthread_mutex_lock(&lock);
    const size_t i = find(memory);
    const bool is_backed = i == buffer_count || buffers[i].is_backed;
    (void)pthread_mutex_unlock(&lock);
    return is_backed;
}

/* ---- work ---- */

/* A driver's thread that reads what a kernel was given, and never comes to an end. */
static void *read_always(void *user) {
    const size_t number = (size_t)user;
    (void)pthread_mutex_lock(&lock);
    const volatile unsigned char *host = buffers[number].host;
    const size_t bytes = buffers[number].bytes;
    (void)pthread_mutex_unlock(&lock);
    if (!host) return NULL;
    for (unsigned sum = 0;;) {
        for (size_t i = 0; i < bytes; i += 64) sum += host[i];
        sum_of_reads += sum;
        (void)nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
}

static void begin_to_hang(void) {
    pthread_t thread;
    is_hung = true;
    const size_t number = find(argument);
    if (number < buffer_count && pthread_create(&thread, NULL, read_always, (void *)number) == 0) {
        (void)pthread_detach(thread);
    }
}

/* An answer that comes late: a thread of the driver's asks for it. */
typedef struct late_answer {
    cl_event event;
    cl_int state;
    void(CL_CALLBACK *notify)(cl_event, cl_int, void *);
    void *user;
    unsigned long parts;
} late_answer;

static void *answer_late(void *argument_) {
    late_answer *late = argument_;
    /* In parts, each of which a process that is stopped sleeps once. */
    for (unsigned long i = 0; i < late->parts; i++) (void)nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
    (void)real.SetEventCallback(late->event, late->state, late->notify, late->user);
    free(late);
    return NULL;
}

static bool begin_late(const late_answer *asked) {
    pthread_t thread;
    late_answer *late = malloc(sizeof *late);
    if (!late) return false;
    *late = *asked;
    if (pthread_create(&thread, NULL, answer_late, late) != 0) {
        free(late);
        return false;
    }
    (void)pthread_detach(thread);
    return true;
}

/* Of an event that never comes nobody is told. */
cl_int clSetEventCallback(cl_event event, cl_int state, void(CL_CALLBACK *notify)(cl_event, cl_int, void *),
                          void *user) {
    late_answer late = { .event = event, .state = state, .notify = notify, .user = user };
    if (is_hung || has_failed || has_fault("tells-nothing", NULL)) return CL_SUCCESS;
    if (has_fault("slow", &late.parts)) return begin_late(&late) ? CL_SUCCESS : CL_OUT_OF_HOST_MEMORY;
    return is_lost ? CL_OUT_OF_RESOURCES : real.SetEventCallback(event, state, notify, user);
}

cl_int clGetEventInfo(cl_event event, cl_event_info info, size_t bytes, void *to, size_t *length) {
    enum { FAILED = -9999 }; /* as a driver has it that knows more errors than OpenCL */
    const cl_int error = real.GetEventInfo(event, info, bytes, to, length);
    if (error != CL_SUCCESS || info != CL_EVENT_COMMAND_EXECUTION_STATUS || !to) return error;
    if (is_hung || has_fault("slow", NULL)) *(cl_int *)to = CL_RUNNING;
    if (has_failed) *(cl_int *)to = FAILED;
    return error;
}

cl_int clReleaseEvent(cl_event event) { return real.ReleaseEvent(event); }

cl_int clFlush(cl_command_queue queue) { return is_lost ? CL_OUT_OF_RESOURCES : real.Flush(queue); }

cl_int clEnqueueWriteBuffer(cl_command_queue queue, cl_mem memory, cl_bool is_blocking, size_t offset, size_t bytes,
                            const void *from, cl_uint count, const cl_event *before, cl_event *event) {
    if (is_lost) return CL_INVALID_COMMAND_QUEUE;
    if (!has_memory(memory) && !has_fault("late", NULL)) return CL_MEM_OBJECT_ALLOCATION_FAILURE;
    return real.EnqueueWriteBuffer(queue, memory, is_blocking, offset, bytes, from, count, before, event);
}

cl_int clEnqueueReadBuffer(cl_command_queue queue, cl_mem memory, cl_bool is_blocking, size_t offset, size_t bytes,
                           void *to, cl_uint count, const cl_event *before, cl_event *event) {
    if (is_lost) return CL_INVALID_COMMAND_QUEUE;
    if (!has_memory(memory)) return CL_MEM_OBJECT_ALLOCATION_FAILURE;
    const bool is_rough = has_fault("other-bits", NULL) || (runs_binary && has_fault("bad-bits", NULL));
    const bool forgets = has_fault("forgets-small", NULL);
    const cl_int error = real.EnqueueReadBuffer(queue, memory, is_rough || forgets ? CL_TRUE : is_blocking, offset,
                                                bytes, to, count, before, event);
    for (size_t i = 0; error == CL_SUCCESS && (is_rough || forgets) && i < bytes / sizeof(float); i++) {
        float *result = (float *)to + i;
        if (is_rough) *result *= 1.0f + 0x1p-10f;
        if (forgets && *result < 0x1p-126f && *result > -0x1p-126f) *result = *result < 0 ? -0.0f : 0.0f;
    }
    return error;
}

cl_int clEnqueueNDRangeKernel(cl_command_queue queue, cl_kernel kernel, cl_uint dimensions, const size_t *first,
                              const size_t *global, const size_t *local, cl_uint count, const cl_event *before,
                              cl_event *event) {
    unsigned long number = 0, most = 0;
    if (has_fault("groups", &most) && local && local[0] * local[1] > most) return CL_INVALID_WORK_GROUP_SIZE;
    if (has_fault("items", &most) && local && local[0] > most) return CL_INVALID_WORK_ITEM_SIZE;
    const bool may_hang = has_fault("hang", &number), may_fail = !may_hang && has_fault("fails", &number);
    const bool may_be_lost = !may_hang && !may_fail && has_fault("lost", &number);
    if (may_hang || may_fail || may_be_lost) kernels++;
    if (may_hang && kernels == number) begin_to_hang();
    if (may_fail && kernels == number) has_failed = true;
    if (may_be_lost && kernels >= number) is_lost = true;
    if (is_lost) return CL_OUT_OF_RESOURCES;
    if (!has_memory(argument)) return CL_MEM_OBJECT_ALLOCATION_FAILURE;
    if (is_too_large(argument)) return CL_SUCCESS;
    return real.EnqueueNDRangeKernel(queue, kernel, dimensions, first, global, local, count, before, event);
}
