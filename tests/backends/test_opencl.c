/*
 * Goal:   an OpenCL device gives the processor's bits, by views and by copies of weights, however work is cut; what it
 *         cannot take it leaves as it was; one that does not answer in time is lost, in one line, and harms nothing; a
 *         program kept by an earlier run is used, and one that was altered is compiled anew.
 * Method: every device that the loader has and that can be opened, against the scalar kernels. Without one the program
 *         is skipped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "backends/backend.h"
#include "backends/opencl/opencl_internal.h"
#include "powerinfer2/status.h"
#include "support/matmul_problem.h"

enum { EXIT_SKIPPED = 77 };
extern const pi2_backend_kind pi2_backend_opencl;

static unsigned device_count;
static char names[8][64];
static bool is_simulated; /* the first: scripts/oclgrind.sh, which interprets kernels, and while work is handed over */

static unsigned broken_count;

/* One whose bits differ (Mesa's llvmpipe) is named and left out. PoCL's are the processor's, where it
 * knows the processor: a driver that cannot compile for it is left out too. */
static void note_device(void *user, const pi2_device_facts *facts) {
    (void)user;
    pi2_backend *backend = NULL;
    if (facts->refused || device_count == 8) return;
    if (pi2_backend_open(facts->name, &(pi2_backend_options){ .memory_bytes = 0 }, &backend) == PI2_OK) {
        pi2_backend_close(backend);
        is_simulated = is_simulated || (device_count == 0 && strstr(facts->description, "Oclgrind"));
        (void)snprintf(names[device_count++], 64, "%s", facts->name);
    } else {
        const bool is_broken = strstr(facts->description, "PoCL") && strstr(pi2_error_text(), "other bits");
        (void)printf("%s: %s: %s\n", is_broken ? "failed" : "skipped", facts->name, pi2_error_text());
        broken_count += is_broken;
    }
}

static pi2_backend *open_device(const char *name, const pi2_backend_options *options) {
    pi2_backend *backend = NULL;
    if (pi2_backend_open(name, options, &backend) != PI2_OK) fail_msg("%s: %s", name, pi2_error_text());
    return backend;
}

/* Shapes at the edges: one token and more than a group, one tile, columns of one block, results of several pieces. */
static const shape shapes[] = {
    { 1, 256, 0, 0, 1, true, false },  { 3, 512, 256, 0, 1, false, true },  { 2, 768, 0, 3, 5, true, true },
    { 5, 256, 512, 1, 4, false, false }, { 1, 2048, 0, 0, 67, true, true }, { 4, 1024, 256, 2, 130, false, true },
};

/* Fewer tokens and columns, where that is all one can wait for. */
static shape shape_for_device(shape s) {
    if (!is_simulated) return s;
    if (s.token_count > 9) s.token_count = 9;
    if (s.columns > 512) s.columns = 512;
    return s;
}

static void test_equal_bits(void **state) {
    (void)state;
    size_t format_count;
    const pi2_weight_format *const *formats = pi2_weight_formats(&format_count);
    for (unsigned d = 0; d < device_count; d++) {
        test_random random = test_random_from_env("PI2_TEST_SEED");
        pi2_backend *backend = open_device(names[d], &(pi2_backend_options){ .memory_bytes = 0 });
        unsigned computed = 0;
        for (size_t f = 0; f < format_count; f++) {
            for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
                problem p = make_problem(&random, formats[f], shape_for_device(shapes[s]));
                pi2_backend_work work = work_of(&p, (uint32_t)(f * 16 + s));
                const bool is_done = pi2_backend_multiply(backend, &work);
                assert_null(pi2_backend_loss(backend));
                if (is_done) compute_want(&p);
                computed += is_done;
                check_equal(names[d], &p); /* not done: as it was */
                pi2_backend_forget(backend); /* the memory goes */
                free_problem(&p);
            }
        }
        assert_true(computed >= 7 * sizeof shapes / sizeof shapes[0]); /* Q4_0, Q4_K, Q8_0, Q6_K, F16 and more */
        pi2_backend_counters counters;
        pi2_backend_count(backend, &counters);
        assert_int_equal(counters.calls, computed);
        pi2_backend_close(backend);
    }
}

/* What stays is found again, and another unit's memory at the same place is not taken for it. */
static void test_units(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_TEST_SEED");
    pi2_backend *backend = open_device(names[0], &(pi2_backend_options){ .memory_bytes = 1 << 20 });
    problem p = make_problem(&random, pi2_weight_format_find(PI2_Q4_0), (shape){ 4, 512, 0, 0, 2, true, true });
    for (uint32_t unit = 0; unit < 3; unit++) {
        pi2_backend_work work = work_of(&p, unit * 100);
        for (int again = 0; again < 2; again++) {
            assert_true(pi2_backend_multiply(backend, &work));
            compute_want(&p);
            check_equal(names[0], &p);
        }
        pi2_backend_forget(backend);
        test_random_tiles(&random, p.format, p.unit, p.shape.tile_count + 1, p.shape.columns);
    }
    free_problem(&p);
    pi2_backend_close(backend);
}

/* A device of its own memory: copies of what stays while there is room for them, and of the others each time. No device
 * here is one, so one is told that it is. */
static void test_copies(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_TEST_SEED");
    void *opened = NULL;
    pi2_device_facts facts;
    const pi2_backend_options options = { .timeout_ns = PI2_BACKEND_TIMEOUT_NS };
    assert_int_equal(pi2_backend_opencl.open(0, &options, &opened, &facts), PI2_OK);
    pi2_opencl_device *device = opened;
    cl_int error = CL_SUCCESS;
    device->shares_memory = false;
    device->weights =
        device->cl->CreateBuffer(device->context, CL_MEM_READ_ONLY, PI2_OPENCL_WEIGHT_BYTES, NULL, &error);
    assert_int_equal(error, CL_SUCCESS);
    device->most_copied_bytes = 200000;
    for (uint32_t i = 0; i < 4; i++) { /* two have room */
        const shape s = { 4, 2048, 0, 0, 2, i % 2 == 0, i < 3 };
        problem p = make_problem(&random, pi2_weight_format_find(PI2_Q4_K), s);
        pi2_backend_work work = work_of(&p, i);
        for (int again = 0; again < 2; again++) {
            memcpy(p.out, p.first, p.out_count * sizeof(float));
            memcpy(p.want, p.first, p.out_count * sizeof(float));
            assert_int_equal(pi2_backend_opencl.multiply(device, &work), PI2_OK);
            compute_want(&p);
            check_equal(names[0], &p);
        }
        assert_true(device->copied_bytes <= device->most_copied_bytes);
        assert_true(i != 1 || device->copied_bytes > 0);
        free_problem(&p);
    }
    pi2_backend_opencl.forget(device);
    assert_int_equal(device->copied_bytes, 0);
    pi2_backend_opencl.close(device);
}

/* Results of a chain that goes on, larger than the device's buffer: left to the processor, and nothing is lost. */
static void test_too_large(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_TEST_SEED");
    pi2_backend *backend = open_device(names[0], &(pi2_backend_options){ .memory_bytes = 0 });
    problem p = make_problem(&random, pi2_weight_format_find(PI2_Q8_0), (shape){ 160, 32, 0, 0, 512, false, false });
    pi2_backend_work work = work_of(&p, 0);
    assert_false(pi2_backend_multiply(backend, &work));
    assert_null(pi2_backend_loss(backend));
    check_equal(names[0], &p);
    free_problem(&p);
    pi2_backend_close(backend);
}

/* The time for an answer is over before it can come: one line, and `out` is as it was, then and later. */
static void test_no_answer(void **state) {
    (void)state;
    if (is_simulated) skip(); /* it answers before anybody waits */
    test_random random = test_random_from_env("PI2_TEST_SEED");
    void *device = NULL;
    pi2_device_facts facts;
    const pi2_backend_options options = { .timeout_ns = PI2_BACKEND_TIMEOUT_NS };
    const unsigned number = (unsigned)strtoul(names[0] + strlen("opencl:"), NULL, 10);
    assert_int_equal(pi2_backend_opencl.open(number, &options, &device, &facts), PI2_OK);
    problem p = make_problem(&random, pi2_weight_format_find(PI2_Q4_K), (shape){ 64, 2048, 0, 0, 64, true, false });
    pi2_backend_work work = work_of(&p, 0);
    ((pi2_opencl_device *)device)->timeout_ns = 1;
    assert_int_equal(pi2_backend_opencl.multiply(device, &work), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "no answer within"));
    pi2_backend_opencl.close(device);
    nanosleep(&(struct timespec){ .tv_nsec = 300 * 1000 * 1000 }, NULL); /* the late answer reads what is still there */
    memcpy(p.want, p.first, p.out_count * sizeof(float));
    check_equal(names[0], &p);
    free_problem(&p);
}

static void spoil(const char *path) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, -1, SEEK_END), 0);
    assert_int_equal(fputc(0x5a, file), 0x5a);
    assert_int_equal(fclose(file), 0);
}

static void test_kept_program(void **state) {
    (void)state;
    char above[] = "/tmp/pi2-opencl-XXXXXX", folder[sizeof above + 16], path[sizeof folder + 300] = "";
    assert_non_null(mkdtemp(above));
    (void)snprintf(folder, sizeof folder, "%s/not/there", above); /* as on a machine that nothing was kept on yet */
    for (int run = 0; run < 3; run++) {
        pi2_backend_close(open_device(names[0], &(pi2_backend_options){ .cache_folder = folder }));
        DIR *listing = opendir(folder);
        unsigned files = 0;
        assert_non_null(listing);
        for (struct dirent *entry = readdir(listing); entry; entry = readdir(listing)) {
            if (entry->d_name[0] == '.') continue;
            (void)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
            files++;
        }
        assert_int_equal(closedir(listing), 0);
        assert_int_equal(files, 1);
        if (run == 1) spoil(path);
    }
    assert_int_equal(remove(path), 0);
    assert_int_equal(rmdir(folder), 0);
    *strrchr(folder, '/') = '\0';
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(rmdir(above), 0);
}

static void test_no_such_device(void **state) {
    (void)state;
    pi2_backend *backend = NULL;
    const pi2_backend_options options = { .memory_bytes = 0 };
    assert_int_equal(pi2_backend_open("opencl:99", &options, &backend), PI2_ERR_UNSUPPORTED);
    assert_non_null(strstr(pi2_error_text(), "no device 99"));
    assert_int_equal(pi2_backend_open("OpenCL:99", &options, &backend), PI2_ERR_UNSUPPORTED);
    assert_int_equal(pi2_backend_open("opencl:x", &options, &backend), PI2_ERR_INVALID);
    assert_int_equal(pi2_backend_open("vulkan", &options, &backend), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "opencl"));
    assert_null(backend);
}

int main(void) {
    pi2_backend_list(note_device, NULL);
    if (broken_count > 0) return 1;
    if (device_count == 0) {
        (void)puts("skipped: no OpenCL device that has the processor's bits");
        return EXIT_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_bits), cmocka_unit_test(test_units),        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_no_answer),  cmocka_unit_test(test_kept_program), cmocka_unit_test(test_no_such_device),
        cmocka_unit_test(test_copies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
