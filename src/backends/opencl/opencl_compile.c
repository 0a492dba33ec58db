/*
 * opencl_compile.c: the program for a device. What its driver compiled is kept in the cache folder under a name made of
 * the driver, the device and the source, with a checksum and what was found when it was tried: a file that is cut or
 * altered is compiled anew, and so is one with which the device fails, or computes otherwise than it did.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "backends/opencl/opencl_internal.h"
#include "base/cache_folder.h"
#include "base/cpu_features.h"
#include "base/fail.h"
#include "base/output_file.h"
#include "base/whole_file.h"

enum { HEAD_BYTES = 32, MOST_BINARY_BYTES = 64 << 20, PATH_BYTES = 1200, MOST_TEXT_BYTES = 1 << 20,
       MOST_DIMENSIONS = 16 };
static const char magic[8] = "pi2ocl02";

/* ---- the file ---- */

/* Head: magic, key, which types had the processor's bits, checksum of the rest; 8 bytes each. */
static bool is_program_file(const char *path, const uint8_t *head, size_t count) {
    (void)path;
    return count >= sizeof magic && memcmp(head, magic, sizeof magic) == 0;
}
static const pi2_output_kind program_kind = { .what = "a compiled OpenCL program", .recognises = is_program_file };

/* ---- what the device is ---- */

char *pi2_opencl_text(const pi2_opencl_device *device, bool is_platform, cl_uint info) {
    const pi2_opencl_library *cl = device->cl;
    cl_platform_id platform = NULL;
    size_t length = 0;
    if (is_platform && cl->GetDeviceInfo(device->id, CL_DEVICE_PLATFORM, sizeof platform, &platform, NULL) !=
                           CL_SUCCESS) return NULL;
    const cl_int error = is_platform ? cl->GetPlatformInfo(platform, info, 0, NULL, &length)
                                     : cl->GetDeviceInfo(device->id, info, 0, NULL, &length);
    if (error != CL_SUCCESS || length > MOST_TEXT_BYTES) return NULL;
    char *text = calloc(1, length + 1);
    if (text && (is_platform ? cl->GetPlatformInfo(platform, info, length, text, NULL)
                             : cl->GetDeviceInfo(device->id, info, length, text, NULL)) != CL_SUCCESS) {
        free(text);
        return NULL;
    }
    return text;
}

/* Whether it compiles OpenCL C 3.0, which says whether the integer dot product is there; 1.2 is what every device has.
 * A device of OpenCL 3.0 need not name it as its version (Intel's has 1.2 there): it lists all. */
static bool has_version_3(const pi2_opencl_device *device) {
    enum { ALL_VERSIONS = 0x1066, MOST_VERSIONS = 32, MAJOR_BIT = 22 };
    struct { cl_uint version; char name[64]; } versions[MOST_VERSIONS];
    size_t length = 0;
    char *version = pi2_opencl_text(device, false, CL_DEVICE_OPENCL_C_VERSION);
    bool is_new = version && strncmp(version, "OpenCL C 3", strlen("OpenCL C 3")) == 0;
    free(version);
    if (device->cl->GetDeviceInfo(device->id, ALL_VERSIONS, sizeof versions, versions, &length) != CL_SUCCESS) {
        return is_new;
    }
    for (size_t i = 0; i < length / sizeof versions[0] && i < MOST_VERSIONS; i++) {
        is_new = is_new || versions[i].version >> MAJOR_BIT == 3;
    }
    return is_new;
}

static const char *options_of(const pi2_opencl_device *device, bool is_new) {
    if (device->flushes) return is_new ? "-cl-std=CL3.0 -DFLUSHES" : "-cl-std=CL1.2 -DFLUSHES";
    return is_new ? "-cl-std=CL3.0" : "-cl-std=CL1.2";
}

static void add_text(XXH3_state_t *state, const pi2_opencl_device *device, bool is_platform, cl_uint info) {
    char *text = pi2_opencl_text(device, is_platform, info);
    const char *known = text ? text : "";
    (void)XXH3_64bits_update(state, known, strlen(known) + 1);
    free(text);
}

/* All that tells one driver and device from another: a driver's version alone need not say with which compiler it was
 * built, and a processor's name not which instructions it has here. */
static uint64_t key_of(const pi2_opencl_device *device) {
    static const cl_uint of_platform[] = { CL_PLATFORM_NAME, CL_PLATFORM_VENDOR, CL_PLATFORM_VERSION };
    static const cl_uint of_device[] = { CL_DEVICE_NAME, CL_DEVICE_VENDOR, CL_DEVICE_VERSION, CL_DRIVER_VERSION,
                                         CL_DEVICE_EXTENSIONS };
    XXH3_state_t *state = XXH3_createState();
    if (!state) return 0;
    (void)XXH3_64bits_reset(state);
    for (size_t i = 0; i < sizeof of_platform / sizeof of_platform[0]; i++) {
        add_text(state, device, true, of_platform[i]);
    }
    for (size_t i = 0; i < sizeof of_device / sizeof of_device[0]; i++) add_text(state, device, false, of_device[i]);
    const uint32_t features = device->is_processor ? pi2_cpu_features() : 0;
    (void)XXH3_64bits_update(state, &features, sizeof features);
    const char *options = options_of(device, has_version_3(device));
    (void)XXH3_64bits_update(state, options, strlen(options));
    (void)XXH3_64bits_update(state, pi2_opencl_program, pi2_opencl_program_bytes);
    const uint64_t key = XXH3_64bits_digest(state);
    (void)XXH3_freeState(state);
    return key;
}

/* False: there is no such place. */
static bool path_of(const char *folder, uint64_t key, char path[PATH_BYTES]) {
    if (!folder) return false;
    const int length = snprintf(path, PATH_BYTES, "%s/opencl-%016" PRIx64 ".bin", folder, key);
    return length > 0 && length < PATH_BYTES;
}

static uint64_t word_at(const uint8_t *bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

/* ---- compiling ---- */

/* The compiler's first line that says something. Its log is asked for as long as it is: of a shorter one nothing comes.
 */
static pi2_status fail_build(const pi2_opencl_device *device, cl_int error) {
    size_t length = 0;
    char *log = NULL;
    if (device->cl->GetProgramBuildInfo(device->program, device->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &length) ==
        CL_SUCCESS && length > 0 && length <= MOST_TEXT_BYTES) log = calloc(1, length + 1);
    if (log && device->cl->GetProgramBuildInfo(device->program, device->id, CL_PROGRAM_BUILD_LOG, length, log, NULL) !=
                   CL_SUCCESS) log[0] = '\0';
    const char *line = log ? log + strspn(log, " \t\r\n") : "";
    const pi2_status status = pi2_fail(PI2_ERR_UNSUPPORTED, "OpenCL: %s: %s: %.*s", device->description,
                                       pi2_opencl_error(error), (int)strcspn(line, "\r\n"),
                                       *line ? line : "the compiler says nothing");
    free(log);
    return status;
}

/* A compiler that says that it knows OpenCL C 3.0 and fails with it may know 1.2. */
static pi2_status build(pi2_opencl_device *device) {
    const bool is_new = has_version_3(device);
    cl_int error = device->cl->BuildProgram(device->program, 1, &device->id, options_of(device, is_new), NULL, NULL);
    if (error != CL_SUCCESS && is_new) {
        error = device->cl->BuildProgram(device->program, 1, &device->id, options_of(device, false), NULL, NULL);
    }
    return error == CL_SUCCESS ? PI2_OK : fail_build(device, error);
}

void pi2_opencl_drop_program(pi2_opencl_device *device) {
    for (size_t i = 0; i < PI2_OPENCL_TYPE_COUNT; i++) {
        if (device->kernels[i]) (void)device->cl->ReleaseKernel(device->kernels[i]);
        device->kernels[i] = NULL;
    }
    if (device->program) (void)device->cl->ReleaseProgram(device->program);
    device->program = NULL;
}

/* The largest group of rows that the kernel can have, so that all groups are whole. */
static size_t group_rows_of(const pi2_opencl_device *device, cl_kernel kernel) {
    const pi2_opencl_library *cl = device->cl;
    size_t of_kernel = 0, items[MOST_DIMENSIONS] = { 0 }, rows = PI2_TILE_ROWS;
    if (cl->GetKernelWorkGroupInfo(kernel, device->id, CL_KERNEL_WORK_GROUP_SIZE, sizeof of_kernel, &of_kernel, NULL) !=
        CL_SUCCESS) of_kernel = 0;
    if (cl->GetDeviceInfo(device->id, CL_DEVICE_MAX_WORK_ITEM_SIZES, sizeof items, items, NULL) != CL_SUCCESS) {
        items[0] = 0;
    }
    while (rows > 1 && ((of_kernel && rows > of_kernel) || (items[0] && rows > items[0]))) rows /= 2;
    return rows;
}

static pi2_status make_kernels(pi2_opencl_device *device) {
    static const char *const names[] = {
#define PI2_OPENCL_NAME(name, type) "multiply_" #name,
        PI2_OPENCL_TYPES(PI2_OPENCL_NAME)
#undef PI2_OPENCL_NAME
    };
    for (size_t i = 0; i < PI2_OPENCL_TYPE_COUNT; i++) {
        cl_int error = CL_SUCCESS;
        cl_kernel kernel = device->cl->CreateKernel(device->program, names[i], &error);
        if (error != CL_SUCCESS) {
            return pi2_fail(PI2_ERR_UNSUPPORTED, "OpenCL: %s: no kernel %s: %s", device->description, names[i],
                            pi2_opencl_error(error));
        }
        device->kernels[i] = kernel;
        device->group_rows[i] = group_rows_of(device, kernel);
    }
    return PI2_OK;
}

/* Whatever is wrong with a kept program, it is compiled anew. */
static void take_kept(pi2_opencl_device *device, const char *path, uint64_t key) {
    uint8_t *bytes = NULL;
    size_t length = 0;
    struct stat there;
    if (stat(path, &there) != 0 || pi2_whole_file_read(path, "a compiled OpenCL program", MOST_BINARY_BYTES, &bytes,
                                                       &length) != PI2_OK) return;
    const bool is_whole = length > HEAD_BYTES && memcmp(bytes, magic, sizeof magic) == 0 && word_at(bytes + 8) == key &&
                          word_at(bytes + 24) == XXH3_64bits(bytes + HEAD_BYTES, length - HEAD_BYTES);
    if (is_whole) {
        const unsigned char *binary = bytes + HEAD_BYTES;
        const size_t binary_bytes = length - HEAD_BYTES;
        cl_int status = CL_SUCCESS, error = CL_SUCCESS;
        device->program = device->cl->CreateProgramWithBinary(device->context, 1, &device->id, &binary_bytes, &binary,
                                                              &status, &error);
        if (error != CL_SUCCESS) device->program = NULL;
        device->is_kept = device->program && status == CL_SUCCESS && build(device) == PI2_OK &&
                          make_kernels(device) == PI2_OK;
        device->kept_exact_types = (uint32_t)word_at(bytes + 16);
        if (!device->is_kept) pi2_opencl_drop_program(device);
    }
    free(bytes);
}

/* Nobody misses a file that could not be written. */
void pi2_opencl_keep(const pi2_opencl_device *device, const char *cache_folder) {
    char path[PATH_BYTES];
    const uint64_t key = key_of(device), exact_types = device->exact_types;
    size_t length = 0;
    if (key == 0 || !path_of(cache_folder, key, path) ||
        device->cl->GetProgramInfo(device->program, CL_PROGRAM_BINARY_SIZES, sizeof length, &length, NULL) !=
            CL_SUCCESS || length == 0 || length > MOST_BINARY_BYTES - HEAD_BYTES) return;
    uint8_t *bytes = malloc(HEAD_BYTES + length);
    if (!bytes) return;
    unsigned char *binary = bytes + HEAD_BYTES;
    pi2_output_file file;
    pi2_folders_make_above(path);
    if (device->cl->GetProgramInfo(device->program, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL) == CL_SUCCESS &&
        pi2_output_file_open(&file, &(pi2_output_request){ .path = path, .kind = &program_kind }) == PI2_OK) {
        const uint64_t checksum = XXH3_64bits(binary, length);
        memcpy(bytes, magic, sizeof magic);
        memcpy(bytes + 8, &key, sizeof key);
        memcpy(bytes + 16, &exact_types, sizeof exact_types);
        memcpy(bytes + 24, &checksum, sizeof checksum);
        pi2_output_file_write(&file, bytes, HEAD_BYTES + length);
        (void)pi2_output_file_finish(&file);
    }
    free(bytes);
}

void pi2_opencl_remove_kept(const pi2_opencl_device *device, const char *cache_folder) {
    char path[PATH_BYTES];
    const uint64_t key = key_of(device);
    if (key != 0 && path_of(cache_folder, key, path)) (void)remove(path);
}

pi2_status pi2_opencl_compile(pi2_opencl_device *device, const char *cache_folder, bool is_anew) {
    char path[PATH_BYTES];
    pi2_opencl_drop_program(device);
    device->is_kept = false;
    const uint64_t key = is_anew ? 0 : key_of(device);
    if (key != 0 && path_of(cache_folder, key, path)) take_kept(device, path, key);
    if (device->is_kept) return PI2_OK;
    const char *source = (const char *)pi2_opencl_program;
    cl_int error = CL_SUCCESS;
    device->program = device->cl->CreateProgramWithSource(device->context, 1, &source, &pi2_opencl_program_bytes,
                                                          &error);
    if (error != CL_SUCCESS) {
        device->program = NULL;
        return pi2_fail(PI2_ERR_MEMORY, "OpenCL: %s: %s", device->description, pi2_opencl_error(error));
    }
    PI2_TRY(build(device));
    return make_kernels(device);
}
