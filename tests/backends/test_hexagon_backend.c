/*
 * Goal:   the Hexagon DSP behind the boundary of back-ends gives the scalar kernels' bits for work of any size, with
 *         tiles that stay and others; and when it is lost at any moment, whoever asked has the same bits from the
 *         processor.
 * Method: random work under an emulator (PI2_HEXAGON_EMULATOR, PI2_HEXAGON_PROGRAM). This program itself in the
 *         emulator's place becomes the emulator, after it has left behind a process that ends or stops it a random
 *         time later.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "backends/backend.h"
#include "kernels/matmul/matmul.h"
#include "support/random_weights.h"

extern const pi2_backend_kind pi2_backend_hexagon;

static const float guard_value = -77.25f;
static const char *own_path;
static char real_emulator[512];

typedef struct job {
    pi2_backend_work work;
    pi2_activations x;
    void *tiles, *activations;
    size_t out_count;
    float *first, *want, *out;
} job;

static job make_job(test_random *random, pi2_weight_type type, size_t tile_count, size_t columns, size_t tokens) {
    const pi2_weight_format *format = pi2_weight_format_find(type);
    const size_t before = 32 * (test_random_u32(random) % 3), tokens_before = test_random_u32(random) % 2;
    job j = {.work = {.type = type, .tile_count = tile_count, .tile_bytes = pi2_tile_bytes(format, columns),
                      .columns = columns, .column_begin = before, .token_begin = tokens_before, .token_count = tokens,
                      .start = test_random_u32(random) % 2, .stays = test_random_u32(random) % 2,
                      .out_stride = tile_count * PI2_TILE_ROWS + test_random_u32(random) % 20}};
    j.tiles = test_aligned_alloc(tile_count * j.work.tile_bytes);
    const size_t different = tile_count < 4 ? tile_count : 4; /* a few, and copies of them */
    test_random_tiles(random, format, j.tiles, different, columns);
    for (size_t i = different; i < tile_count; i++) {
        memcpy((uint8_t *)j.tiles + i * j.work.tile_bytes, (uint8_t *)j.tiles + i % 4 * j.work.tile_bytes,
               j.work.tile_bytes);
    }
    j.activations = test_aligned_alloc(test_activations_bytes(PI2_ACTIVATION_Q8_32, tokens_before + tokens,
                                                              before + columns));
    test_random_activations(random, &j.x, PI2_ACTIVATION_Q8_32, tokens_before + tokens, before + columns,
                            j.activations);
    j.out_count = tokens * j.work.out_stride + 32;
    j.first = test_aligned_alloc(j.out_count * sizeof(float));
    j.want = test_aligned_alloc(j.out_count * sizeof(float));
    j.out = test_aligned_alloc(j.out_count * sizeof(float));
    for (size_t i = 0; i < j.out_count; i++) {
        const size_t row = (i - 16) % j.work.out_stride, token = (i - 16) / j.work.out_stride;
        const bool is_guard = i < 16 || token >= tokens || row >= tile_count * PI2_TILE_ROWS;
        j.first[i] = is_guard ? guard_value : test_random_float(random);
    }
    memcpy(j.want, j.first, j.out_count * sizeof(float));
    pi2_matmul_select(type, 0)->run(j.want + 16, j.work.out_stride, j.tiles, tile_count, columns, before, &j.x,
                                    tokens_before, tokens, j.work.start);
    return j;
}

static const pi2_backend_work *ready(job *j) {
    memcpy(j->out, j->first, j->out_count * sizeof(float));
    j->work.tiles = j->tiles;
    j->work.x = &j->x;
    j->work.out = j->out + 16;
    return &j->work;
}

static void check_job(const job *j) {
    for (size_t i = 0; i < j->out_count; i++) {
        if (memcmp(&j->out[i], &j->want[i], sizeof(float)) == 0) continue;
        fail_msg("type %d, %zu tiles of %zu columns, %zu tokens, stays %d: number %zu is %a, not %a", j->work.type,
                 j->work.tile_count, j->work.columns, j->work.token_count, j->work.stays, i, (double)j->out[i],
                 (double)j->want[i]);
    }
}

static void free_job(job *j) {
    free(j->tiles);
    free(j->activations);
    free(j->first);
    free(j->want);
    free(j->out);
}

static bool has_emulator(void) {
    const char *emulator = getenv("PI2_HEXAGON_EMULATOR"), *program = getenv("PI2_HEXAGON_PROGRAM");
    if (emulator && program && emulator[0] && program[0]) return true;
    print_message("no Hexagon emulator or program: `make hexagon`, or PI2_HEXAGON_EMULATOR and PI2_HEXAGON_PROGRAM\n");
    return false;
}

static pi2_backend *open_or_fail(uint64_t memory_bytes) {
    pi2_backend *backend = NULL;
    const pi2_backend_options options = {.memory_bytes = memory_bytes, .timeout_ns = UINT64_C(60000000000)};
    if (pi2_backend_open("hexagon", &options, &backend) != PI2_OK) fail_msg("%s", pi2_error_text());
    return backend;
}

static void multiply_and_check(pi2_backend *backend, job *j) {
    if (!pi2_backend_multiply(backend, ready(j))) fail_msg("%s", pi2_backend_loss(backend));
    check_job(j);
}

static const pi2_weight_type types[] = {PI2_Q4_0, PI2_Q8_0};

/* Room for some of the tiles that stay; the rest are copied each time. Then other tiles at the same addresses. */
static void work_of_any_shape_has_the_scalar_kernels_bits(void **state) {
    (void)state;
    if (!has_emulator()) skip();
    test_random random = test_random_from_env("PI2_SEED");
    pi2_backend *backend = open_or_fail(100000);
    job jobs[24];
    const size_t count = sizeof jobs / sizeof jobs[0];
    for (size_t i = 0; i < count; i++) {
        jobs[i] = make_job(&random, types[i % 2], 1 + test_random_u32(&random) % 9,
                           32 * (1 + test_random_u32(&random) % 12), 1 + test_random_u32(&random) % 5);
    }
    for (size_t round = 0; round < 3; round++) {
        for (size_t i = 0; i < count; i++) multiply_and_check(backend, &jobs[(i * 5 + round) % count]);
    }
    pi2_backend_forget(backend);
    for (size_t i = 0; i + 2 < count; i += 2) { /* what lay there is something else now */
        job other = make_job(&random, jobs[i].work.type, jobs[i].work.tile_count, jobs[i].work.columns, 2);
        other.work.stays = true;
        void *there = jobs[i].tiles;
        memcpy(there, other.tiles, other.work.tile_count * other.work.tile_bytes);
        free(other.tiles);
        other.tiles = there;
        multiply_and_check(backend, &other);
        multiply_and_check(backend, &other);
        jobs[i].tiles = NULL;
        free_job(&other);
    }
    for (size_t i = 0; i < count; i++) free_job(&jobs[i]);
    assert_false(pi2_backend_multiply(backend, &(pi2_backend_work){.type = PI2_Q6_K})); /* the processor's */
    assert_null(pi2_backend_loss(backend));
    pi2_backend_close(backend);
}

/* More tiles and more tokens than a request has room for, with and without places where they stay. */
static void work_larger_than_a_request_is_cut(void **state) {
    (void)state;
    if (!has_emulator()) skip();
    test_random random = test_random_from_env("PI2_SEED");
    static const struct {
        size_t tiles, columns, tokens;
    } sizes[] = {{32, 16384, 1}, {1, 16384, 216}};
    for (uint64_t memory = 0; memory <= 6 << 20; memory += 6 << 20) {
        pi2_backend *backend = open_or_fail(memory);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            job j = make_job(&random, PI2_Q8_0, sizes[i].tiles, sizes[i].columns, sizes[i].tokens);
            j.work.stays = true;
            multiply_and_check(backend, &j);
            free_job(&j);
            pi2_backend_forget(backend);
        }
        pi2_backend_close(backend);
    }
}

static void count_devices(void *user, const pi2_device_facts *facts) {
    if (strcmp(facts->name, "hexagon:0") != 0) return;
    (*(int *)user)++;
    assert_non_null(facts->refused);
    assert_non_null(strstr(facts->refused, "PI2_HEXAGON_PROGRAM"));
}

static void what_is_missing_is_said(void **state) {
    (void)state;
    const char *program = getenv("PI2_HEXAGON_PROGRAM"), *emulator = getenv("PI2_HEXAGON_EMULATOR");
    char kept_program[512], kept_emulator[512];
    (void)snprintf(kept_program, sizeof kept_program, "%s", program ? program : "");
    (void)snprintf(kept_emulator, sizeof kept_emulator, "%s", emulator ? emulator : "");
    const pi2_backend_options options = {.memory_bytes = 4096};
    pi2_backend *backend = NULL;
    assert_int_equal(setenv("PI2_HEXAGON_EMULATOR", "/an/emulator", 1) | setenv("PI2_HEXAGON_PROGRAM", "", 1), 0);
    int seen = 0;
    pi2_backend_list(count_devices, &seen);
    assert_int_equal(seen, 1);
    assert_int_equal(pi2_backend_open("hexagon", &options, &backend), PI2_ERR_UNSUPPORTED);
    assert_non_null(strstr(pi2_error_text(), "PI2_HEXAGON_PROGRAM does not say"));
    assert_int_equal(setenv("PI2_HEXAGON_PROGRAM", "/a/program", 1), 0);
    assert_int_equal(pi2_backend_open("hexagon:1", &options, &backend), PI2_ERR_UNSUPPORTED);
    assert_non_null(strstr(pi2_error_text(), "there is one Hexagon DSP"));
    assert_int_equal(setenv("PI2_HEXAGON_EMULATOR", kept_emulator, 1), 0);
    assert_int_equal(setenv("PI2_HEXAGON_PROGRAM", kept_program, 1), 0);
}

/* ---- loss ---- */

/* In the emulator's place: leaves behind a process that sends it a signal, and becomes the emulator. */
static int become_emulator(char **arguments) {
    const char *emulator = getenv("TEST_EMULATOR"), *after = getenv("TEST_AFTER_US"), *number = getenv("TEST_SIGNAL");
    if (!emulator || !after || !number) return 14;
    const pid_t self = getpid();
    const long us = strtol(after, NULL, 10);
    const int signal_number = (int)strtol(number, NULL, 10);
    if (fork() == 0) {
        const struct timespec pause = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
        (void)nanosleep(&pause, NULL);
        if (getppid() == self) (void)kill(self, signal_number);
        _exit(0);
    }
    arguments[0] = (char *)(uintptr_t)emulator;
    (void)execv(emulator, arguments);
    return 15;
}

static void a_device_lost_at_any_moment_loses_no_bits(void **state) {
    (void)state;
    if (!has_emulator()) skip();
    test_random random = test_random_from_env("PI2_SEED");
    (void)snprintf(real_emulator, sizeof real_emulator, "%s", getenv("PI2_HEXAGON_EMULATOR"));
    assert_int_equal(setenv("TEST_EMULATOR", real_emulator, 1) | setenv("PI2_HEXAGON_EMULATOR", own_path, 1), 0);
    job jobs[3];
    for (size_t i = 0; i < 3; i++) jobs[i] = make_job(&random, types[i % 2], 6, 512, 1 + i);
    int in_the_middle = 0;
    uint32_t most_us = 40000; /* more, where a busy machine takes longer to begin */
    for (int moment = 0; moment < 50; moment++) {
        const bool hangs = moment % 10 == 9;
        char text[32];
        (void)snprintf(text, sizeof text, "%u", test_random_u32(&random) % most_us);
        assert_int_equal(setenv("TEST_AFTER_US", text, 1), 0);
        assert_int_equal(setenv("TEST_SIGNAL", hangs ? "19" : "9", 1), 0); /* SIGSTOP, SIGKILL of Linux */
        const pi2_backend_options options = {.memory_bytes = 65536, .timeout_ns = UINT64_C(60000000000)};
        pi2_backend_options impatient = options;
        impatient.timeout_ns = 50000000;
        pi2_backend *backend = NULL;
        if (pi2_backend_open("hexagon", hangs ? &impatient : &options, &backend) != PI2_OK) {
            assert_null(strchr(pi2_error_text(), '\n'));
            if (most_us < 4000000) most_us += most_us / 4;
            continue; /* before its first answer: the run goes without */
        }
        for (size_t i = 0; !pi2_backend_loss(backend); i++) {
            job *j = &jobs[i % 3];
            if (!pi2_backend_multiply(backend, ready(j))) { /* `out` is as it was */
                pi2_matmul_select(j->work.type, 0)->run(j->work.out, j->work.out_stride, j->tiles, j->work.tile_count,
                                                        j->work.columns, j->work.column_begin, &j->x,
                                                        j->work.token_begin, j->work.token_count, j->work.start);
                in_the_middle++;
            }
            check_job(j);
        }
        assert_non_null(strstr(pi2_backend_loss(backend), "device 'hexagon:0' is lost: the Hexagon DSP"));
        assert_null(strchr(pi2_backend_loss(backend), '\n'));
        pi2_backend_close(backend);
    }
    print_message("lost in the middle of work: %d of 50\n", in_the_middle);
    assert_true(in_the_middle > 0);
    for (size_t i = 0; i < 3; i++) free_job(&jobs[i]);
    assert_int_equal(setenv("PI2_HEXAGON_EMULATOR", real_emulator, 1), 0);
}

int main(int argc, char **argv) {
    if (argc > 4) return become_emulator(argv);
    own_path = argv[0];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_of_any_shape_has_the_scalar_kernels_bits),
        cmocka_unit_test(work_larger_than_a_request_is_cut),
        cmocka_unit_test(what_is_missing_is_said),
        cmocka_unit_test(a_device_lost_at_any_moment_loses_no_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
