/* opencl_device.c: which OpenCL devices there are, and the opening and closing of one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/opencl/opencl_internal.h"
#include "base/fail.h"

enum { MOST_PLATFORMS = 16, MOST_DEVICES = 64, FIRST_PATIENCE = 6 };
#define NO_LOADER "there is no OpenCL loader (libOpenCL.so.1; Debian: ocl-icd-libopencl1), or it is older than 1.2"
#define NO_DRIVER "OpenCL: no driver is installed that works here: /etc/OpenCL/vendors names them (Debian: " \
                  "intel-opencl-icd, mesa-opencl-icd, pocl-opencl-icd and others)"
#define NO_DEVICE "OpenCL: %u driver%s, and none of them shows a device: is it one of theirs, may this user open it " \
                  "(/dev/dri, group 'render'), and can a driver that keeps what it compiled write there " \
                  "(HOME, XDG_CACHE_HOME)?"

extern const pi2_backend_kind pi2_backend_opencl;

/* ---- which there are ---- */

/* Devices of all platforms, which are drivers, in the loader's order. */
static unsigned find_devices(const pi2_opencl_library *cl, cl_device_id devices[MOST_DEVICES],
                             unsigned *platforms_out) {
    cl_platform_id platforms[MOST_PLATFORMS];
    cl_uint platform_count = 0;
    unsigned count = 0;
    *platforms_out = 0;
    if (cl->GetPlatformIDs(MOST_PLATFORMS, platforms, &platform_count) != CL_SUCCESS) return 0;
    *platforms_out = platform_count;
    for (cl_uint i = 0; i < platform_count && i < MOST_PLATFORMS && count < MOST_DEVICES; i++) {
        cl_uint found = 0;
        if (cl->GetDeviceIDs(platforms[i], CL_DEVICE_TYPE_ALL, MOST_DEVICES - count, devices + count, &found) !=
            CL_SUCCESS) continue;
        count += found < MOST_DEVICES - count ? found : MOST_DEVICES - count;
    }
    return count;
}

static void text_of(const pi2_opencl_library *cl, cl_device_id id, cl_device_info info, char *text, size_t size) {
    char long_text[1024] = { 0 };
    (void)cl->GetDeviceInfo(id, info, sizeof long_text - 1, long_text, NULL);
    (void)snprintf(text, size, "%s", long_text + strspn(long_text, " "));
}

static uint64_t number_of(const pi2_opencl_library *cl, cl_device_id id, cl_device_info info, size_t bytes) {
    cl_uint word = 0;
    cl_ulong number = 0;
    void *to = bytes == sizeof word ? (void *)&word : (void *)&number;
    if (cl->GetDeviceInfo(id, info, bytes, to, NULL) != CL_SUCCESS) return 0;
    return bytes == sizeof word ? word : number;
}

static void describe(const pi2_opencl_library *cl, cl_device_id id, unsigned number, pi2_opencl_device *device) {
    cl_device_type type = 0;
    char name[PI2_OPENCL_TEXT_BYTES], version[PI2_OPENCL_TEXT_BYTES - 8], driver[PI2_OPENCL_TEXT_BYTES - 8];
    text_of(cl, id, CL_DEVICE_NAME, name, sizeof name);
    text_of(cl, id, CL_DEVICE_VERSION, version, sizeof version);
    text_of(cl, id, CL_DRIVER_VERSION, driver, sizeof driver);
    (void)snprintf(device->name, sizeof device->name, "opencl:%u", number);
    (void)snprintf(device->description, sizeof device->description, "%s, %s, driver %s", name, version, driver);
    device->shares_memory = number_of(cl, id, CL_DEVICE_HOST_UNIFIED_MEMORY, sizeof(cl_bool)) != 0;
    device->is_processor = cl->GetDeviceInfo(id, CL_DEVICE_TYPE, sizeof type, &type, NULL) == CL_SUCCESS &&
                           (type & CL_DEVICE_TYPE_CPU);
}

/* Why a device is not asked at all; NULL: it may do. */
static const char *refusal(const pi2_opencl_library *cl, cl_device_id id) {
    if (!number_of(cl, id, CL_DEVICE_AVAILABLE, sizeof(cl_bool))) return "it is not available";
    if (!number_of(cl, id, CL_DEVICE_COMPILER_AVAILABLE, sizeof(cl_bool))) return "its driver has no compiler";
    if (!number_of(cl, id, CL_DEVICE_ENDIAN_LITTLE, sizeof(cl_bool))) return "it is big-endian";
    return NULL;
}

static pi2_device_facts facts_of(const pi2_opencl_library *cl, cl_device_id id, const pi2_opencl_device *device) {
    return (pi2_device_facts){ .name = device->name, .description = device->description,
                               .memory_bytes = number_of(cl, id, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof(cl_ulong)),
                               .shares_memory = device->shares_memory, .refused = refusal(cl, id),
                               .is_processor = device->is_processor, .has_other_bits = device->has_other_bits };
}

static void list(pi2_device_visitor *visit, void *user) {
    const pi2_opencl_library *cl = pi2_opencl_load();
    cl_device_id devices[MOST_DEVICES];
    unsigned platforms = 0;
    const unsigned count = cl ? find_devices(cl, devices, &platforms) : 0;
    for (unsigned i = 0; i < count; i++) {
        pi2_opencl_device device = { .cl = cl };
        describe(cl, devices[i], i, &device);
        const pi2_device_facts facts = facts_of(cl, devices[i], &device);
        visit(user, &facts);
    }
}

/* ---- opening ---- */

/* Devices that are stuck, so that what they have stays known. */
static pi2_opencl_device *first_stuck;
static pthread_mutex_t stuck_lock = PTHREAD_MUTEX_INITIALIZER;

static void keep_stuck(pi2_opencl_device *device) {
    (void)pthread_mutex_lock(&stuck_lock);
    device->next_stuck = first_stuck;
    first_stuck = device;
    (void)pthread_mutex_unlock(&stuck_lock);
}

static void close_device(void *state) {
    pi2_opencl_device *device = state;
    if (!device) return;
    if (device->is_stuck) { /* what is under way still writes into it */
        keep_stuck(device);
        return;
    }
    const pi2_opencl_library *cl = device->cl;
    pi2_opencl_forget(device);
    pi2_opencl_drop_program(device);
    const cl_mem buffers[] = { device->x, device->out, device->weights };
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        if (buffers[i]) (void)cl->ReleaseMemObject(buffers[i]);
    }
    if (device->queue) (void)cl->ReleaseCommandQueue(device->queue);
    if (device->context) (void)cl->ReleaseContext(device->context);
    free(device->x_memory);
    free(device->out_memory);
    free(device->units);
    if (device->asks) { /* the driver may tell yet of what it was asked about */
        keep_stuck(device);
        return;
    }
    (void)pthread_cond_destroy(&device->told);
    (void)pthread_mutex_destroy(&device->lock);
    free(device);
}

static pi2_status fail_open(const pi2_opencl_device *device, cl_int error) {
    return pi2_fail(PI2_ERR_UNSUPPORTED, "OpenCL: %s cannot be opened: %s (%d)", device->description,
                    pi2_opencl_error(error), (int)error);
}

size_t pi2_opencl_weight_bytes(const pi2_opencl_device *device) {
    return device->most_buffer_bytes < PI2_OPENCL_WEIGHT_BYTES ? device->most_buffer_bytes : PI2_OPENCL_WEIGHT_BYTES;
}

pi2_status pi2_opencl_keep_copies(pi2_opencl_device *device) {
    cl_int error = CL_SUCCESS;
    device->weights =
        device->cl->CreateBuffer(device->context, CL_MEM_READ_ONLY, pi2_opencl_weight_bytes(device), NULL, &error);
    if (error != CL_SUCCESS) return fail_open(device, error);
    device->shares_memory = false;
    return PI2_OK;
}

static pi2_status make_buffers(pi2_opencl_device *device) {
    const pi2_opencl_library *cl = device->cl;
    cl_int error = CL_SUCCESS;
    device->x_memory = calloc(1, PI2_OPENCL_X_BYTES);
    device->out_memory = calloc(1, PI2_OPENCL_OUT_BYTES);
    if (!device->x_memory || !device->out_memory) return pi2_fail(PI2_ERR_MEMORY, "no memory for a device's buffers");
    device->x = cl->CreateBuffer(device->context, CL_MEM_READ_ONLY, PI2_OPENCL_X_BYTES, NULL, &error);
    if (error == CL_SUCCESS) {
        device->out = cl->CreateBuffer(device->context, CL_MEM_READ_WRITE, PI2_OPENCL_OUT_BYTES, NULL, &error);
    }
    if (error != CL_SUCCESS) return fail_open(device, error);
    return device->shares_memory ? PI2_OK : pi2_opencl_keep_copies(device);
}

static pi2_status make_queue(pi2_opencl_device *device) {
    cl_int error = CL_SUCCESS;
    device->context = device->cl->CreateContext(NULL, 1, &device->id, NULL, NULL, &error);
    if (error != CL_SUCCESS) return fail_open(device, error);
    device->queue = device->cl->CreateCommandQueue(device->context, device->id, 0, &error);
    return error == CL_SUCCESS ? PI2_OK : fail_open(device, error);
}

/* Compiles the program and tries it. A kept one with which the device fails, or computes otherwise than it did, is not
 * this driver's any more, whatever its version says. */
static pi2_status try_program(pi2_opencl_device *device, const pi2_backend_options *options) {
    pi2_status status = PI2_OK;
    for (int turn = 0; turn < 2; turn++) {
        status = pi2_opencl_compile(device, options->cache_folder, turn == 1);
        if (status == PI2_OK) status = pi2_opencl_check(device, options->any_precision);
        const bool is_stale = device->is_kept && (status != PI2_OK || device->exact_types != device->kept_exact_types);
        if (!is_stale) break;
        pi2_opencl_remove_kept(device, options->cache_folder);
        if (device->is_stuck) break;
    }
    if (status == PI2_OK && !device->is_kept) pi2_opencl_keep(device, options->cache_folder);
    return status;
}

/* A device may take denormals for 0 though it says that it does not: that is tried where bits differ. */
static pi2_status find_program(pi2_opencl_device *device, const pi2_backend_options *options) {
    const uint32_t all = (UINT32_C(1) << PI2_OPENCL_TYPE_COUNT) - 1;
    PI2_TRY(try_program(device, options));
    const uint32_t before = device->exact_types;
    if (device->flushes || before == all) return PI2_OK;
    device->flushes = true;
    PI2_TRY(try_program(device, options));
    if ((device->exact_types & before) == before && device->exact_types != before) return PI2_OK;
    device->flushes = false;
    return try_program(device, options);
}

/* What the device cannot be shown it gets copies of. */
static pi2_status find_memory(pi2_opencl_device *device) {
    bool sees = true;
    if (!device->shares_memory) return PI2_OK;
    PI2_TRY(pi2_opencl_check_views(device, &sees));
    if (sees || !device->shares_memory) return PI2_OK;
    pi2_opencl_forget(device);
    return pi2_opencl_keep_copies(device);
}

static pi2_status make_ready(pi2_opencl_device *device, const pi2_backend_options *options) {
    PI2_TRY(find_program(device, options));
    device->has_other_bits = options->any_precision && device->exact_types + 1 != UINT32_C(1) << PI2_OPENCL_TYPE_COUNT;
    if (device->exact_types == 0 && !options->any_precision) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "OpenCL: %s computes other bits than the processor ('run "
                        "--backend-precision fast' takes it all the same: the text changes)", device->description);
    }
    return find_memory(device);
}

static pi2_status fill(pi2_opencl_device *device, const pi2_backend_options *options) {
    const char *refused = refusal(device->cl, device->id);
    if (refused) return pi2_fail(PI2_ERR_UNSUPPORTED, "OpenCL: %s: %s", device->description, refused);
    const uint64_t memory = number_of(device->cl, device->id, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof(cl_ulong));
    const uint64_t own = device->shares_memory ? 0 : memory / 4 * 3; /* shared memory is the budget's */
    const uint64_t most = number_of(device->cl, device->id, CL_DEVICE_MAX_MEM_ALLOC_SIZE, sizeof(cl_ulong));
    device->most_copied_bytes = options->memory_bytes ? options->memory_bytes : own;
    device->most_buffer_bytes = most ? most : UINT64_MAX;
    cl_device_fp_config floats = 0;
    (void)device->cl->GetDeviceInfo(device->id, CL_DEVICE_SINGLE_FP_CONFIG, sizeof floats, &floats, NULL);
    device->flushes = !(floats & CL_FP_DENORM);
    PI2_TRY(make_queue(device));
    PI2_TRY(make_buffers(device));
    /* A driver may compile a kernel when it runs first. */
    device->timeout_ns = options->timeout_ns < UINT64_MAX / FIRST_PATIENCE ? options->timeout_ns * FIRST_PATIENCE
                                                                             : options->timeout_ns;
    const pi2_status status = make_ready(device, options);
    device->timeout_ns = options->timeout_ns;
    return status;
}

/* Of the clock that nobody sets: a clock set forward is no device that does not answer. */
static bool make_condition(pthread_cond_t *condition) {
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0) return false;
    const bool is_made = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0 &&
                         pthread_cond_init(condition, &attributes) == 0;
    (void)pthread_condattr_destroy(&attributes);
    return is_made;
}

static pi2_opencl_device *new_device(const pi2_opencl_library *cl, cl_device_id id, unsigned number) {
    pi2_opencl_device *device = calloc(1, sizeof *device);
    if (!device) return NULL;
    *device = (pi2_opencl_device){ .cl = cl, .id = id };
    if (pthread_mutex_init(&device->lock, NULL) != 0) {
        free(device);
        return NULL;
    }
    if (!make_condition(&device->told)) {
        (void)pthread_mutex_destroy(&device->lock);
        free(device);
        return NULL;
    }
    describe(cl, id, number, device);
    return device;
}

static pi2_status open_device(unsigned number, const pi2_backend_options *options, void **state_out,
                              pi2_device_facts *facts_out) {
    const pi2_opencl_library *cl = pi2_opencl_load();
    if (!cl) return pi2_fail(PI2_ERR_UNSUPPORTED, NO_LOADER);
    cl_device_id devices[MOST_DEVICES];
    unsigned platforms = 0;
    const unsigned count = find_devices(cl, devices, &platforms);
    if (platforms == 0) return pi2_fail(PI2_ERR_UNSUPPORTED, NO_DRIVER);
    if (count == 0) return pi2_fail(PI2_ERR_UNSUPPORTED, NO_DEVICE, platforms, platforms == 1 ? "" : "s");
    if (number >= count) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "OpenCL: there is no device %u: the last is %u", number, count - 1);
    }
    pi2_opencl_device *device = new_device(cl, devices[number], number);
    if (!device) return pi2_fail(PI2_ERR_MEMORY, "no memory for a device");
    const pi2_status status = fill(device, options);
    if (status != PI2_OK) {
        close_device(device);
        return status;
    }
    *facts_out = facts_of(cl, device->id, device);
    *state_out = device;
    return PI2_OK;
}

static bool computes(const void *state, pi2_weight_type type) {
    const pi2_opencl_device *device = state;
    const int number = pi2_opencl_type(type);
    return number >= 0 && device->computes[number];
}

const pi2_backend_kind pi2_backend_opencl = { .name = "opencl", .list = list, .open = open_device,
                                              .close = close_device, .computes = computes,
                                              .multiply = pi2_opencl_multiply, .forget = pi2_opencl_forget };
