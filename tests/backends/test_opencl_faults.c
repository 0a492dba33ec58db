/*
 * Goal:   drivers that allocate late keep fewer copies of weights and lose nothing, those that show no memory get
 *         copies; a device that hangs may read for ever what it was given, though that memory was given back; one that
 *         takes denormal floats for 0 leaves what these may have changed, and nothing else, whether it says so or not;
 *         a kept program that does not build, or is another driver's, is compiled anew; limits of buffers and groups
 *         are kept; drivers that call nobody are asked; what cannot be used is refused in a line; a process that was
 *         stopped for a while loses no device.
 * Method: the system's OpenCL device through a loader with faults (tests/tools/opencl_faults.c), which the build has
 *         this program find first. Without it, or without a device, the program is skipped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <dlfcn.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "backends/opencl/opencl_internal.h"
#include "base/clock.h"
#include "base/pages.h"
#include "powerinfer2/status.h"
#include "support/matmul_problem.h"
#include "support/temporary_files.h"

enum { EXIT_SKIPPED = 77, BUFFERS = PI2_OPENCL_X_BYTES + PI2_OPENCL_OUT_BYTES + PI2_OPENCL_WEIGHT_BYTES };
extern const pi2_backend_kind pi2_backend_opencl;
static const char *kept_folder; /* of compiled programs, which take a driver long */

static void set_faults(const char *format, unsigned long number) {
    char text[64];
    (void)snprintf(text, sizeof text, format, number);
    assert_int_equal(setenv("PI2_OPENCL_FAULTS", text, 1), 0);
}

static pi2_status try_open(void **state_out) {
    pi2_device_facts facts;
    const pi2_backend_options options = { .timeout_ns = PI2_BACKEND_TIMEOUT_NS, .cache_folder = kept_folder };
    return pi2_backend_opencl.open(0, &options, state_out, &facts);
}

static pi2_opencl_device *open_device(void) {
    void *opened = NULL;
    if (try_open(&opened) != PI2_OK) fail_msg("%s", pi2_error_text());
    return opened;
}

/* The device's results are the processor's, or it leaves the work. */
static bool multiply(pi2_opencl_device *device, problem *p, uint32_t unit) {
    const pi2_backend_work work = work_of(p, unit);
    memcpy(p->out, p->first, p->out_count * sizeof(float));
    memcpy(p->want, p->first, p->out_count * sizeof(float));
    const pi2_status status = pi2_backend_opencl.multiply(device, &work);
    if (status != PI2_OK && status != PI2_ERR_UNSUPPORTED) fail_msg("%s", pi2_error_text());
    if (status == PI2_OK) compute_want(p);
    check_equal("opencl:0", p);
    return status == PI2_OK;
}

/* Units of 92 KB: room for two of eight, whoever says so and when. */
static void check_short_memory(const char *faults) {
    test_random random = test_random_from_env("PI2_TEST_SEED");
    problem problems[8];
    set_faults(faults, BUFFERS + 200000);
    pi2_opencl_device *device = open_device();
    assert_false(device->shares_memory);
    for (uint32_t i = 0; i < 8; i++) {
        const shape s = { 4, 2048, 0, 0, 2, i % 2 == 0, true };
        problems[i] = make_problem(&random, pi2_weight_format_find(PI2_Q4_K), s);
        for (int again = 0; again < 2; again++) assert_true(multiply(device, &problems[i], i));
    }
    assert_true(device->copied_bytes <= 200000);
    assert_true(device->most_copied_bytes <= 300000);
    for (uint32_t i = 0; i < 8; i++) {
        assert_true(multiply(device, &problems[i], i));
        free_problem(&problems[i]);
    }
    pi2_backend_opencl.close(device);
}

static void test_memory_that_is_not_there(void **state) {
    (void)state;
    check_short_memory("own-memory,memory=%lu");
}

static void test_memory_that_is_not_there_for_kernels(void **state) {
    (void)state;
    check_short_memory("own-memory,late=%lu");
}

/* What cannot be shown is copied. */
static void test_no_views(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_TEST_SEED");
    set_faults("no-views", 0);
    pi2_opencl_device *device = open_device();
    for (uint32_t i = 0; i < 3; i++) {
        problem p = make_problem(&random, pi2_weight_format_find(PI2_Q8_0), (shape){ 3, 512, 0, 0, 2, true, i < 2 });
        for (int again = 0; again < 2; again++) assert_true(multiply(device, &p, i));
        pi2_backend_opencl.forget(device);
        free_problem(&p);
    }
    assert_false(device->shares_memory);
    pi2_backend_opencl.close(device);
}

static void test_lost(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_TEST_SEED");
    problem p = make_problem(&random, pi2_weight_format_find(PI2_Q4_0), (shape){ 3, 512, 0, 0, 2, false, true });
    set_faults("own-memory", 0);
    pi2_opencl_device *device = open_device();
    assert_true(multiply(device, &p, 0));
    set_faults("own-memory,lost=%lu", 1);
    const pi2_backend_work work = work_of(&p, 0);
    memcpy(p.out, p.first, p.out_count * sizeof(float));
    memcpy(p.want, p.first, p.out_count * sizeof(float));
    const pi2_status status = pi2_backend_opencl.multiply(device, &work);
    assert_true(status != PI2_OK && status != PI2_ERR_UNSUPPORTED);
    assert_non_null(strstr(pi2_error_text(), "OpenCL: "));
    check_equal("opencl:0", &p);
    pi2_backend_opencl.close(device);
    free_problem(&p);
}

/* Stops this process, and lets it go on. */
static pid_t stop_later(void) {
    const pid_t stopped = getpid(), child = fork();
    assert_true(child >= 0);
    if (child > 0) return child;
    (void)nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
    (void)kill(stopped, SIGSTOP);
    (void)nanosleep(&(struct timespec){ .tv_sec = 3 }, NULL);
    (void)kill(stopped, SIGCONT);
    _exit(0);
}

/* A process that was stopped for longer than a device may take has not waited for it meanwhile. */
static void test_stopped_meanwhile(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_TEST_SEED");
    problem p = make_problem(&random, pi2_weight_format_find(PI2_Q4_0), (shape){ 3, 512, 0, 0, 2, true, true });
    set_faults("", 0);
    pi2_opencl_device *device = open_device();
    device->timeout_ns = UINT64_C(2000000000);
    set_faults("slow=%lu", 40);
    const uint64_t begin_ns = pi2_clock_ns();
    const pid_t child = stop_later();
    assert_true(multiply(device, &p, 0));
    assert_true(pi2_clock_ns() - begin_ns > UINT64_C(2500000000));
    assert_int_equal(waitpid(child, NULL, 0), child);
    pi2_backend_opencl.close(device);
    free_problem(&p);
}

/* The faulty driver reads the weights for as long as the process lives. */
static void test_hangs(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_TEST_SEED");
    problem p = make_problem(&random, pi2_weight_format_find(PI2_Q4_0), (shape){ 3, 512, 0, 0, 2, true, true });
    set_faults("", 0);
    pi2_opencl_device *device = open_device();
    if (!device->shares_memory) {
        pi2_backend_opencl.close(device);
        free_problem(&p);
        skip();
    }
    const size_t bytes = 4 * p.tile_bytes;
    void *pages = NULL;
    assert_int_equal(pi2_pages_reserve(bytes, false, "weights", &pages), PI2_OK);
    memcpy(pages, p.unit, bytes);
    pi2_backend_work work = work_of(&p, 0);
    work.unit_memory = pages;
    work.tiles = (const uint8_t *)pages + p.tile_bytes;
    device->timeout_ns = 50000000;
    set_faults("hang=%lu", 1);
    assert_int_equal(pi2_backend_opencl.multiply(device, &work), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "no answer within"));
    memcpy(p.want, p.first, p.out_count * sizeof(float));
    check_equal("opencl:0", &p);
    pi2_backend_opencl.close(device);
    pi2_pages_vacate(pages, bytes);
    (void)nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL); /* it reads on */
    for (size_t i = 0; i < bytes; i++) assert_int_equal(((const uint8_t *)pages)[i], 0);
    free_problem(&p);
}

/* Usual numbers are computed; an activation's scale that makes products nearer to 0 than floats are exact is not. */
static void test_flushes(void **state) {
    (void)state;
    static const pi2_weight_type types[] = {
#define PI2_OPENCL_ID(name, id) id,
        PI2_OPENCL_TYPES(PI2_OPENCL_ID)
#undef PI2_OPENCL_ID
    };
    test_random random = test_random_from_env("PI2_TEST_SEED");
    set_faults("flushes", 0);
    pi2_opencl_device *device = open_device();
    assert_true(device->flushes);
    for (size_t i = 0; i < PI2_OPENCL_TYPE_COUNT; i++) {
        const pi2_weight_format *format = pi2_weight_format_find((uint32_t)types[i]);
        assert_true(pi2_backend_opencl.computes(device, types[i]));
        for (int start = 0; start < 2; start++) {
            problem p = make_problem(&random, format, (shape){ 2, 512, 0, 0, 5, start == 1, false });
            if (!multiply(device, &p, 0)) fail_msg("%s: usual numbers are left", format->name);
            const bool is_float = format->activation == PI2_ACTIVATION_F32;
            float *scale = (float *)(uintptr_t)(is_float ? p.x.floats : p.x.scales);
            const size_t count = is_float ? p.x.float_stride : p.x.block_stride;
            for (size_t k = 0; k < count; k++) scale[k] *= 0x1p-110f; /* of the first token */
            assert_false(multiply(device, &p, 0));
            for (size_t k = 0; k < count; k++) scale[k] = 0.0f;
            assert_true(multiply(device, &p, 0));
            if (!p.shape.start) {
                p.first[p.out_stride] = 0x1p-130f; /* a denormal to begin with, of the second token */
                assert_false(multiply(device, &p, 0));
            }
            free_problem(&p);
        }
    }
    pi2_backend_opencl.close(device);
}

/* A device that says that it keeps denormals, and takes them for 0, is found out, and used as one that says so. */
static void test_flushes_and_does_not_say_so(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_TEST_SEED");
    problem p = make_problem(&random, pi2_weight_format_find(PI2_Q4_0), (shape){ 2, 512, 0, 0, 5, true, false });
    set_faults("forgets-small", 0);
    pi2_opencl_device *device = open_device();
    assert_true(device->flushes && !device->has_other_bits);
    assert_int_equal(device->exact_types, (1 << PI2_OPENCL_TYPE_COUNT) - 1);
    assert_true(multiply(device, &p, 0));
    pi2_backend_opencl.close(device);
    free_problem(&p);
}

/* Groups are as large as kernel and device can have them. */
static void test_small_groups(void **state) {
    (void)state;
    static const struct { const char *faults; unsigned long most; } cases[] = { { "groups=%lu", 5 },
                                                                                { "items=%lu", 1 } };
    test_random random = test_random_from_env("PI2_TEST_SEED");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        problem p = make_problem(&random, pi2_weight_format_find(PI2_Q4_K), (shape){ 3, 512, 0, 0, 6, true, true });
        set_faults(cases[i].faults, cases[i].most);
        pi2_opencl_device *device = open_device();
        assert_int_equal(device->group_rows[0], i == 0 ? 4 : 1);
        assert_true(multiply(device, &p, 0));
        pi2_backend_opencl.close(device);
        free_problem(&p);
    }
}

/* A unit of 7 MB, where a buffer has at most 5: shown or copied in parts, and others are kept as ever. */
static void check_large_unit(const char *faults, bool start) {
    enum { MOST = 5000000, PARTS = 4, UNIT = 3 };
    test_random random = test_random_from_env("PI2_TEST_SEED");
    const pi2_weight_format *format = pi2_weight_format_find(PI2_Q8_0);
    problem p = make_problem(&random, format, (shape){ 100, 4096, 0, 0, 2, start, true });
    problem small = make_problem(&random, format, (shape){ 3, 4096, 0, 0, 2, true, true });
    set_faults(faults, MOST);
    pi2_opencl_device *device = open_device();
    memcpy(p.want, p.first, p.out_count * sizeof(float));
    compute_want(&p);
    for (size_t i = 0; i < PARTS; i++) {
        pi2_backend_work work = work_of(&p, UNIT);
        work.tile_count /= PARTS;
        work.tiles = p.tiles + i * work.tile_count * p.tile_bytes;
        work.out += i * work.tile_count * PI2_TILE_ROWS;
        if (pi2_backend_opencl.multiply(device, &work) != PI2_OK) fail_msg("%s", pi2_error_text());
    }
    check_equal(faults, &p);
    for (int again = 0; again < 2; again++) assert_true(multiply(device, &small, 1));
    assert_non_null(device->units[1].memory);
    assert_null(device->units[UNIT].memory);
    pi2_backend_opencl.close(device);
    free_problem(&p);
    free_problem(&small);
}

static void test_large_units(void **state) {
    (void)state;
    check_large_unit("largest=%lu", true);
    check_large_unit("own-memory,largest=%lu", true);
}

/* Weights of 7 MB that are not kept go to the device in parts, also where a chain goes on. */
static void test_large_copies(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_TEST_SEED");
    set_faults("own-memory", 0);
    pi2_opencl_device *device = open_device();
    for (int start = 0; start < 2; start++) {
        const shape s = { 100, 4096, 0, 0, 2, start == 1, false };
        problem p = make_problem(&random, pi2_weight_format_find(PI2_Q8_0), s);
        assert_true(multiply(device, &p, 0));
        free_problem(&p);
    }
    pi2_backend_opencl.close(device);
}

/* A driver whose views are copies gets copies, which are counted. */
static void test_views_that_are_copies(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_TEST_SEED");
    problem p = make_problem(&random, pi2_weight_format_find(PI2_Q6_K), (shape){ 3, 512, 0, 0, 2, true, true });
    set_faults("", 0);
    pi2_opencl_device *device = open_device();
    const bool shares = device->shares_memory;
    pi2_backend_opencl.close(device);
    set_faults("shadow", 0);
    device = open_device();
    assert_false(device->shares_memory);
    if (shares) assert_int_equal(device->most_copied_bytes, 0); /* such memory is the processor's, and the budget's */
    assert_true(multiply(device, &p, 0));
    pi2_backend_opencl.close(device);
    free_problem(&p);
}

/* Drivers that call nobody back are asked: no device is lost, and one that failed says why. */
static void test_nobody_is_told(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_TEST_SEED");
    problem p = make_problem(&random, pi2_weight_format_find(PI2_Q4_0), (shape){ 3, 512, 0, 0, 2, false, true });
    set_faults("tells-nothing", 0);
    pi2_opencl_device *device = open_device();
    assert_true(device->asks);
    for (int again = 0; again < 3; again++) assert_true(multiply(device, &p, 0));
    pi2_backend_opencl.close(device);
    set_faults("", 0);
    device = open_device();
    set_faults("fails=%lu", 1);
    const pi2_backend_work work = work_of(&p, 0);
    memcpy(p.out, p.first, p.out_count * sizeof(float));
    memcpy(p.want, p.first, p.out_count * sizeof(float));
    assert_int_equal(pi2_backend_opencl.multiply(device, &work), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "a kernel's run: the driver refuses it (-9999)"));
    check_equal("opencl:0", &p);
    pi2_backend_opencl.close(device);
    free_problem(&p);
}

/* OpenCL C 3.0, which has the integer dot product, where it is only in the list of versions; 1.2 where it fails. */
static void test_language_versions(void **state) {
    (void)state;
    void *loader = dlopen("libOpenCL.so.1", RTLD_NOW);
    char *options = dlsym(loader, "pi2_opencl_options");
    const char *folder = kept_folder;
    assert_non_null(options);
    kept_folder = NULL;
    static const char *const faults[] = { "lists-c3", "lists-c3,no-c3" };
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        set_faults(faults[i], 0);
        options[0] = '\0';
        pi2_backend_opencl.close(open_device());
        assert_non_null(strstr(options, "-cl-std=CL3.0"));
    }
    kept_folder = folder;
    (void)dlclose(loader);
}

static unsigned count_kept(void) {
    DIR *listing = opendir(kept_folder);
    unsigned files = 0;
    assert_non_null(listing);
    for (struct dirent *entry = readdir(listing); entry; entry = readdir(listing)) {
        files += strncmp(entry->d_name, "opencl-", strlen("opencl-")) == 0;
    }
    assert_int_equal(closedir(listing), 0);
    return files;
}

/* Whatever is wrong with a kept program, it is compiled anew, and the new one is kept. */
static void test_kept_programs(void **state) {
    (void)state;
    static const char *const faults[] = { "bad-binary", "no-kernels", "bad-bits" };
    set_faults("", 0);
    pi2_backend_opencl.close(open_device());
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        set_faults(faults[i], 0);
        pi2_opencl_device *device = open_device();
        assert_false(device->is_kept);
        assert_false(device->has_other_bits || device->flushes);
        pi2_backend_opencl.close(device);
        set_faults("", 0);
        device = open_device();
        assert_true(device->is_kept);
        pi2_backend_opencl.close(device);
    }
    const unsigned files = count_kept();
    set_faults("updated", 0); /* another version of the platform has programs of its own */
    pi2_opencl_device *device = open_device();
    assert_false(device->is_kept);
    pi2_backend_opencl.close(device);
    assert_int_equal(count_kept(), files + 1);
}

static void test_refused(void **state) {
    (void)state;
    void *opened = NULL;
    const char *folder = kept_folder;
    set_faults("no-devices", 0);
    assert_int_equal(try_open(&opened), PI2_ERR_UNSUPPORTED);
    assert_non_null(strstr(pi2_error_text(), ", and none of them shows a device"));
    set_faults("no-drivers", 0);
    assert_int_equal(try_open(&opened), PI2_ERR_UNSUPPORTED);
    assert_non_null(strstr(pi2_error_text(), "no driver is installed"));
    set_faults("no-build", 0);
    kept_folder = NULL;
    assert_int_equal(try_open(&opened), PI2_ERR_UNSUPPORTED);
    assert_non_null(strstr(pi2_error_text(), "the kernels do not compile: error: this is why"));
    kept_folder = folder;
    set_faults("other-bits", 0);
    assert_int_equal(try_open(&opened), PI2_ERR_UNSUPPORTED);
    assert_non_null(strstr(pi2_error_text(), "computes other bits than the processor"));
    set_faults("lost=%lu", 3);
    assert_true(try_open(&opened) != PI2_OK); /* while it is tried */
    assert_non_null(strstr(pi2_error_text(), "OpenCL: "));
    set_faults("own-memory,memory=%lu", PI2_OPENCL_X_BYTES);
    assert_true(try_open(&opened) != PI2_OK); /* not even its buffers have memory */
    assert_non_null(strstr(pi2_error_text(), "no memory"));
}

static int set_up(void **state) {
    if (test_folder_begin(state) != 0) return -1;
    kept_folder = test_folder;
    return 0;
}

int main(void) {
    void *loader = dlopen("libOpenCL.so.1", RTLD_NOW);
    void *opened = NULL;
    if (!loader || !dlsym(loader, "pi2_opencl_faults")) {
        (void)puts("skipped: not by the loader with faults");
        return EXIT_SKIPPED;
    }
    (void)unsetenv("PI2_OPENCL_FAULTS");
    if (try_open(&opened) != PI2_OK) {
        (void)printf("skipped: %s\n", pi2_error_text());
        return EXIT_SKIPPED;
    }
    pi2_backend_opencl.close(opened);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_that_is_not_there), cmocka_unit_test(test_memory_that_is_not_there_for_kernels),
        cmocka_unit_test(test_no_views), cmocka_unit_test(test_lost), cmocka_unit_test(test_stopped_meanwhile),
        cmocka_unit_test(test_flushes), cmocka_unit_test(test_flushes_and_does_not_say_so),
        cmocka_unit_test(test_small_groups), cmocka_unit_test(test_large_units), cmocka_unit_test(test_large_copies),
        cmocka_unit_test(test_views_that_are_copies), cmocka_unit_test(test_nobody_is_told),
        cmocka_unit_test(test_language_versions), cmocka_unit_test(test_kept_programs),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_hangs), /* last: a thread of the driver's goes on */
    };
    return cmocka_run_group_tests(tests, set_up, test_folder_end);
}
