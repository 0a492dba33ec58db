/*
 * opencl_compile.c: the program for a device. What its driver compiled is kept in the cache folder under a name made of
 * the driver, the device and the source, with a checksum: a file that is cut or altered is compiled anew.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "backends/opencl/opencl_internal.h"
#include "base/fail.h"
#include "base/output_file.h"
#include "base/whole_file.h"

enum { HEAD_BYTES = 24, MOST_BINARY_BYTES = 64 << 20, PATH_BYTES = 1200 };
static const char magic[8] = "pi2ocl01";

/* ---- the file ---- */

/* Head: magic, key, checksum of the rest; 8 bytes each. */
static bool is_program_file(const char *path, const uint8_t *head, size_t count) {
    (void)path;
    return count >= sizeof magic && memcmp(head, magic, sizeof magic) == 0;
}
static const pi2_output_kind program_kind = { .what = "a compiled OpenCL program", .recognises = is_program_file };

/* OpenCL C 3.0 says whether the integer dot product is there; that of 1.2 is what every device has. */
static const char *options_of(const pi2_opencl_device *device) {
    char version[256] = { 0 };
    (void)device->cl->GetDeviceInfo(device->id, CL_DEVICE_OPENCL_C_VERSION, sizeof version - 1, version, NULL);
    const bool is_new = strncmp(version, "OpenCL C 3", strlen("OpenCL C 3")) == 0;
    if (device->flushes) return is_new ? "-cl-std=CL3.0 -DFLUSHES" : "-cl-std=CL1.2 -DFLUSHES";
    return is_new ? "-cl-std=CL3.0" : "-cl-std=CL1.2";
}

static uint64_t key_of(const pi2_opencl_device *device) {
    char text[256] = { 0 };
    XXH3_state_t *state = XXH3_createState();
    if (!state) return 0;
    (void)XXH3_64bits_reset(state);
    const cl_device_info infos[] = { CL_DEVICE_NAME, CL_DEVICE_VERSION, CL_DRIVER_VERSION };
    for (size_t i = 0; i < sizeof infos / sizeof infos[0]; i++) {
        size_t length = 0;
        if (device->cl->GetDeviceInfo(device->id, infos[i], sizeof text, text, &length) != CL_SUCCESS) length = 0;
        (void)XXH3_64bits_update(state, text, length);
    }
    (void)XXH3_64bits_update(state, options_of(device), strlen(options_of(device)));
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

/* The compiler's first line that says something. */
static pi2_status fail_build(const pi2_opencl_device *device, cl_int error) {
    char log[2048] = { 0 };
    (void)device->cl->GetProgramBuildInfo(device->program, device->id, CL_PROGRAM_BUILD_LOG, sizeof log - 1, log, NULL);
    const char *line = log + strspn(log, " \t\r\n");
    return pi2_fail(PI2_ERR_UNSUPPORTED, "OpenCL: %s: %s: %.*s", device->description, pi2_opencl_error(error),
                    (int)strcspn(line, "\r\n"), *line ? line : "the compiler says nothing");
}

static pi2_status build(pi2_opencl_device *device) {
    const cl_int error =
        device->cl->BuildProgram(device->program, 1, &device->id, options_of(device), NULL, NULL);
    return error == CL_SUCCESS ? PI2_OK : fail_build(device, error);
}

static void drop_program(pi2_opencl_device *device) {
    if (device->program) (void)device->cl->ReleaseProgram(device->program);
    device->program = NULL;
}

/* True: a kept program was taken. Whatever is wrong with it, it is compiled anew. */
static bool take_kept(pi2_opencl_device *device, const char *path, uint64_t key) {
    uint8_t *bytes = NULL;
    size_t length = 0;
    struct stat there;
    if (stat(path, &there) != 0 || pi2_whole_file_read(path, "a compiled OpenCL program", MOST_BINARY_BYTES, &bytes,
                                                       &length) != PI2_OK) return false;
    const bool is_whole = length > HEAD_BYTES && memcmp(bytes, magic, sizeof magic) == 0 && word_at(bytes + 8) == key &&
                          word_at(bytes + 16) == XXH3_64bits(bytes + HEAD_BYTES, length - HEAD_BYTES);
    if (is_whole) {
        const unsigned char *binary = bytes + HEAD_BYTES;
        const size_t binary_bytes = length - HEAD_BYTES;
        cl_int status = CL_SUCCESS, error = CL_SUCCESS;
        device->program = device->cl->CreateProgramWithBinary(device->context, 1, &device->id, &binary_bytes, &binary,
                                                              &status, &error);
        if (error != CL_SUCCESS || status != CL_SUCCESS || build(device) != PI2_OK) drop_program(device);
    }
    free(bytes);
    return device->program != NULL;
}

/* Nobody misses a file that could not be written. */
static void keep(const pi2_opencl_device *device, const char *path, uint64_t key) {
    size_t length = 0;
    if (device->cl->GetProgramInfo(device->program, CL_PROGRAM_BINARY_SIZES, sizeof length, &length, NULL) !=
            CL_SUCCESS || length == 0 || length > MOST_BINARY_BYTES - HEAD_BYTES) return;
    uint8_t *bytes = malloc(HEAD_BYTES + length);
    if (!bytes) return;
    unsigned char *binary = bytes + HEAD_BYTES;
    pi2_output_file file;
    if (device->cl->GetProgramInfo(device->program, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL) == CL_SUCCESS &&
        pi2_output_file_open(&file, &(pi2_output_request){ .path = path, .kind = &program_kind }) == PI2_OK) {
        const uint64_t checksum = XXH3_64bits(binary, length);
        memcpy(bytes, magic, sizeof magic);
        memcpy(bytes + 8, &key, sizeof key);
        memcpy(bytes + 16, &checksum, sizeof checksum);
        pi2_output_file_write(&file, bytes, HEAD_BYTES + length);
        (void)pi2_output_file_finish(&file);
    }
    free(bytes);
}

static pi2_status make_kernels(pi2_opencl_device *device) {
    static const char *const names[] = {
#define PI2_OPENCL_NAME(name, type) "multiply_" #name,
        PI2_OPENCL_TYPES(PI2_OPENCL_NAME)
#undef PI2_OPENCL_NAME
    };
    for (size_t i = 0; i < PI2_OPENCL_TYPE_COUNT; i++) {
        cl_int error = CL_SUCCESS;
        device->kernels[i] = device->cl->CreateKernel(device->program, names[i], &error);
        if (error != CL_SUCCESS) {
            return pi2_fail(PI2_ERR_UNSUPPORTED, "OpenCL: %s: no kernel %s: %s", device->description, names[i],
                            pi2_opencl_error(error));
        }
    }
    return PI2_OK;
}

pi2_status pi2_opencl_compile(pi2_opencl_device *device, const char *cache_folder) {
    char path[PATH_BYTES];
    const uint64_t key = key_of(device);
    const bool has_place = key != 0 && path_of(cache_folder, key, path);
    if (has_place && take_kept(device, path, key)) return make_kernels(device);
    const char *source = (const char *)pi2_opencl_program;
    cl_int error = CL_SUCCESS;
    device->program = device->cl->CreateProgramWithSource(device->context, 1, &source, &pi2_opencl_program_bytes,
                                                          &error);
    if (error != CL_SUCCESS) {
        device->program = NULL;
        return pi2_fail(PI2_ERR_MEMORY, "OpenCL: %s: %s", device->description, pi2_opencl_error(error));
    }
    PI2_TRY(build(device));
    if (has_place) keep(device, path, key);
    return make_kernels(device);
}
