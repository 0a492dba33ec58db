/*
 * Goal:   the Hexagon DSP gives the bits of the scalar kernels for every shape, and whatever it or its host says, no
 *         side reads or writes outside its areas, waits for ever, or ends without one line that says why.
 * Method: random tiles and activations in a shared memory, with guards; the kernels as plain C, then as HVX under
 *         qemu-hexagon with one and two threads. Devices that lie are this program itself, started in the emulator's
 *         place. PI2_HEXAGON_EMULATOR and PI2_HEXAGON_PROGRAM say where the emulator and the device's program are.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "backends/hexagon/device/hexagon_kernel.h"
#include "backends/hexagon/hexagon_link.h"
#include "base/clock.h"
#include "kernels/matmul/matmul.h"
#include "support/random_weights.h"

enum { MEMORY_BYTES = 1 << 20 };
static const uint64_t long_ns = UINT64_C(60000000000);
static const float guard_value = -77.25f;
static const char *own_path;

typedef struct shape {
    uint32_t tile_count, blocks, token_count;
    bool start;
} shape;

static const shape shapes[] = {
    {1, 1, 1, true},  {1, 2, 1, false}, {2, 3, 1, true},  {3, 1, 2, false},  {5, 8, 1, true},
    {4, 5, 3, false}, {1, 32, 4, true}, {7, 11, 5, true}, {16, 4, 2, false}, {3, 17, 7, true},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static const pi2_matmul_kernel *scalar_kernel(pi2_weight_type type) { return pi2_matmul_select(type, 0); }

/* What the scalar kernel is asked, and where in the device's memory the same lies. */
typedef struct problem {
    const pi2_weight_format *format;
    pi2_hexagon_product product;
    void *tiles, *activations;
    pi2_activations x;
    size_t out_count;
    float *want;
} problem;

/* Any half, and activations' scales at both ends of what floats hold: infinities, NaNs, subnormal products. */
static void make_scales_extreme(test_random *random, problem *p) {
    const size_t tile_bytes = pi2_tile_bytes(p->format, p->product.columns);
    for (size_t tile = 0; tile < p->product.tile_count; tile++) {
        for (size_t b = 0; b < p->product.columns / 2; b++) {
            ((uint8_t *)p->tiles)[tile * tile_bytes + b] = (uint8_t)test_random_u32(random);
        }
    }
    static const float scales[] = {0x1p-149f, 0x1.8p-130f, 0x1p-126f, 0x1.234p-112f,
                                   0x1p90f,   0x1.8p120f,  INFINITY,  NAN};
    float *all = (float *)(uintptr_t)p->x.scales;
    for (size_t i = 0; i < p->x.token_count * p->x.block_stride; i++) all[i] = scales[test_random_u32(random) % 8];
}

static uint32_t put(uint8_t *memory, uint32_t *end, const void *bytes, size_t count) {
    const uint32_t begin = (*end + 127) / 64 * 64; /* some room between, and not always at a vector's beginning */
    assert_true(begin + count <= MEMORY_BYTES);
    memcpy(memory + begin, bytes, count);
    *end = begin + (uint32_t)count;
    return begin;
}

static problem make_problem(test_random *random, pi2_weight_type type, shape s, bool extreme, uint8_t *memory,
                            uint32_t *end) {
    problem p = {.format = pi2_weight_format_find(type)};
    pi2_hexagon_product *product = &p.product;
    const uint32_t rows = s.tile_count * PI2_TILE_ROWS, columns = s.blocks * 32;
    *product = (pi2_hexagon_product){.type = type, .tile_count = s.tile_count, .columns = columns,
                                     .token_count = s.token_count, .start = s.start, .out_stride = rows + 1};
    const size_t tile_bytes = pi2_tile_bytes(p.format, columns);
    assert_int_equal(pi2_hexagon_tile_bytes(type, columns), tile_bytes);
    p.tiles = test_aligned_alloc(s.tile_count * tile_bytes);
    test_random_tiles(random, p.format, p.tiles, s.tile_count, columns);
    p.activations = test_aligned_alloc(test_activations_bytes(PI2_ACTIVATION_Q8_32, s.token_count, columns));
    test_random_activations(random, &p.x, PI2_ACTIVATION_Q8_32, s.token_count, columns, p.activations);
    if (extreme) make_scales_extreme(random, &p);
    p.out_count = (size_t)s.token_count * product->out_stride + 16;
    p.want = test_aligned_alloc(p.out_count * sizeof(float));
    for (size_t i = 0; i < p.out_count; i++) p.want[i] = guard_value;
    for (size_t t = 0; t < s.token_count && !s.start; t++) {
        for (size_t r = 0; r < rows; r++) p.want[t * product->out_stride + r] = test_random_float(random);
    }
    product->tiles = put(memory, end, p.tiles, s.tile_count * tile_bytes);
    product->values = put(memory, end, p.x.values, s.token_count * p.x.value_stride);
    product->scales = put(memory, end, p.x.scales, s.token_count * p.x.block_stride * sizeof(float));
    product->sums = put(memory, end, p.x.sums, s.token_count * p.x.sum_stride * sizeof(int16_t));
    product->out = put(memory, end, p.want, p.out_count * sizeof(float));
    product->value_stride = (uint32_t)p.x.value_stride;
    product->scale_stride = (uint32_t)p.x.block_stride;
    product->sum_stride = (uint32_t)p.x.sum_stride;
    scalar_kernel(type)->run(p.want, product->out_stride, p.tiles, s.tile_count, columns, 0, &p.x, 0, s.token_count,
                             s.start);
    return p;
}

/* Equal bits, guards included; of NaNs that they are NaNs. */
static void check_problem(const problem *p, const uint8_t *memory) {
    const float *out = (const float *)(const void *)(memory + p->product.out);
    for (size_t i = 0; i < p->out_count; i++) {
        if (memcmp(&out[i], &p->want[i], sizeof(float)) == 0 || (isnan(out[i]) && isnan(p->want[i]))) continue;
        fail_msg("%s, %u tiles of %u columns, %u tokens, start %u: number %zu is %a, not %a", p->format->name,
                 p->product.tile_count, p->product.columns, p->product.token_count, p->product.start, i,
                 (double)out[i], (double)p->want[i]);
    }
}

static void free_problem(problem *p) {
    free(p->tiles);
    free(p->activations);
    free(p->want);
}

static const pi2_weight_type types[] = {PI2_Q4_0, PI2_Q8_0};

static void plain_c_gives_the_scalar_kernels_bits(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_SEED");
    uint8_t *memory = test_aligned_alloc(MEMORY_BYTES);
    for (size_t i = 0; i < 4 * SHAPES; i++) {
        uint32_t end = PI2_HEXAGON_FIRST_AREA;
        problem p = make_problem(&random, types[i % 2], shapes[i / 4], i & 2, memory, &end);
        assert_true(pi2_hexagon_product_fits(&p.product, end));
        for (uint32_t part = 0; part < 3; part++) pi2_hexagon_multiply(&p.product, memory, part, 3);
        check_problem(&p, memory);
        free_problem(&p);
    }
    free(memory);
}

/* Every word of a product that fits is damaged in every way; what is said to fit lies in the memory. */
static void products_outside_the_memory_are_refused(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_SEED");
    uint8_t *memory = test_aligned_alloc(MEMORY_BYTES);
    uint32_t end = PI2_HEXAGON_FIRST_AREA;
    problem p = make_problem(&random, PI2_Q4_0, shapes[7], false, memory, &end);
    pi2_hexagon_request request = {.product_count = 1, .products = {p.product}};
    uint32_t written = 0;
    assert_true(pi2_hexagon_check(&request, end, &written));
    assert_int_equal(written, p.product.tile_count * PI2_TILE_ROWS * p.product.token_count);
    assert_true(pi2_hexagon_check(&request, end - 68, &written)); /* 17 floats behind the result are guards */
    assert_false(pi2_hexagon_check(&request, end - 69, &written));
    request.product_count = PI2_HEXAGON_MOST_PRODUCTS + 1;
    assert_false(pi2_hexagon_check(&request, end, &written));
    static const uint32_t bad[] = {UINT32_MAX, UINT32_MAX - 63, UINT32_C(1) << 31, MEMORY_BYTES, 0xffffffe0u};
    const uint32_t word_count = sizeof p.product / sizeof(uint32_t);
    for (uint32_t word = 0; word < word_count; word++) {
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            pi2_hexagon_product product = p.product;
            ((uint32_t *)&product)[word] = bad[i];
            /* Of one token strides are not used, but here are five. */
            assert_false(pi2_hexagon_product_fits(&product, end));
        }
    }
    const size_t zeros[] = {offsetof(pi2_hexagon_product, tile_count), offsetof(pi2_hexagon_product, columns),
                            offsetof(pi2_hexagon_product, token_count), offsetof(pi2_hexagon_product, out),
                            offsetof(pi2_hexagon_product, tiles), offsetof(pi2_hexagon_product, out_stride)};
    for (size_t i = 0; i < sizeof zeros / sizeof zeros[0]; i++) {
        pi2_hexagon_product product = p.product;
        ((uint32_t *)&product)[zeros[i] / sizeof(uint32_t)] = 0;
        assert_false(pi2_hexagon_product_fits(&product, end));
    }
    free_problem(&p);
    free(memory);
}

/* ---- the device under an emulator ---- */

static bool open_device(pi2_hexagon_link *link, uint32_t threads, uint64_t timeout_ns) {
    const char *emulator = getenv("PI2_HEXAGON_EMULATOR"), *program = getenv("PI2_HEXAGON_PROGRAM");
    if (!emulator || !program || !emulator[0] || !program[0]) {
        print_message("no Hexagon emulator or program: `make hexagon`, or PI2_HEXAGON_EMULATOR and "
                      "PI2_HEXAGON_PROGRAM\n");
        skip();
        return false;
    }
    const pi2_hexagon_emulator options = {.emulator = emulator, .program = program, .memory_bytes = MEMORY_BYTES,
                                          .processor = getenv("PI2_HEXAGON_PROCESSOR"), .thread_count = threads,
                                          .start_timeout_ns = long_ns, .timeout_ns = timeout_ns};
    const pi2_status status = pi2_hexagon_open_emulator(&options, link);
    if (status != PI2_OK) fail_msg("%s", pi2_error_text());
    return true;
}

static void vectors_give_the_scalar_kernels_bits(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_SEED");
    for (uint32_t threads = 1; threads <= 2; threads++) {
        pi2_hexagon_link link;
        if (!open_device(&link, threads, long_ns)) return;
        for (size_t i = 0; i < SHAPES; i++) { /* four products a request */
            uint32_t end = PI2_HEXAGON_FIRST_AREA;
            problem p[4];
            pi2_hexagon_request request = {.product_count = 4};
            for (size_t j = 0; j < 4; j++) {
                p[j] = make_problem(&random, types[j % 2], shapes[i], j & 2, link.memory, &end);
                request.products[j] = p[j].product;
            }
            if (link.ask(&link, &request) != PI2_OK) fail_msg("%s", pi2_error_text());
            for (size_t j = 0; j < 4; j++) {
                check_problem(&p[j], link.memory);
                free_problem(&p[j]);
            }
        }
        link.close(&link);
    }
}

/* The host is made to believe in more memory than there is: the device refuses for itself, and is lost. */
static void the_device_checks_what_it_is_asked(void **state) {
    (void)state;
    pi2_hexagon_link link;
    if (!open_device(&link, 1, long_ns)) return;
    test_random random = test_random_from_env("PI2_SEED");
    uint32_t end = PI2_HEXAGON_FIRST_AREA;
    problem p = make_problem(&random, PI2_Q8_0, shapes[1], false, link.memory, &end);
    pi2_hexagon_request request = {.product_count = 1, .products = {p.product}};
    request.products[0].out = MEMORY_BYTES + 64;
    assert_int_equal(link.ask(&link, &request), PI2_ERR_INVALID); /* the host does not even ask */
    assert_non_null(strstr(pi2_error_text(), "does not fit its memory"));
    assert_true(pi2_hexagon_emulator_process(&link) > 0);
    pi2_hexagon_link credulous = link;
    credulous.memory_bytes = UINT32_MAX;
    assert_int_equal(credulous.ask(&credulous, &request), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "answers with status 2"));
    request.products[0] = p.product;
    assert_int_equal(link.ask(&link, &request), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "was lost"));
    link.close(&link);
    free_problem(&p);
}

/* ---- devices that die, hang and lie: this program in the emulator's place ---- */

static const char *const lies[] = {"wrong number", "wrong status", "wrong count", "silent",
                                   "ends",         "killed",       "shrinks",     "never there"};
static const char *const told[] = {"is not the one it was asked", "status 7", "and 3 results", "has not answered",
                                   "ended with exit status 9", "was ended by signal 9", "ended with exit status 11",
                                   "does not run"};

static void answer_as(const char *lie, pi2_hexagon_words *words, uint32_t asked) {
    const bool first = asked == 1;
    const bool is_number = strcmp(lie, "wrong number") == 0, is_silent = strcmp(lie, "silent") == 0;
    if (strcmp(lie, "ends") == 0 && !first) _exit(9);
    if (strcmp(lie, "killed") == 0 && !first) (void)raise(SIGKILL);
    if (strcmp(lie, "shrinks") == 0 && !first) _exit(ftruncate(3, 0) == 0 ? 10 : 11);
    if (strcmp(lie, "never there") == 0) _exit(12);
    if (is_silent && !first) return;
    atomic_store(&words->status, strcmp(lie, "wrong status") == 0 && !first ? 7 : PI2_HEXAGON_DONE);
    atomic_store(&words->written, strcmp(lie, "wrong count") == 0 && !first ? 3 : 0);
    atomic_store(&words->answered, is_number && !first ? UINT32_MAX : asked);
}

/* The emulator's arguments: the lie in the program's place, the memory's file, its bytes. */
static int lie_for_ever(char **arguments) {
    const size_t bytes = strtoul(arguments[3], NULL, 10);
    pi2_hexagon_words *words = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(arguments[2]), 0);
    if (words == MAP_FAILED) return 13;
    for (uint32_t done = 0, waits = 0; waits < 60000; waits++) {
        const uint32_t asked = atomic_load(&words->asked);
        if (asked != done) {
            answer_as(arguments[1], words, asked);
            done = asked;
        }
        const struct timespec pause = {.tv_nsec = 1000000};
        (void)nanosleep(&pause, NULL);
    }
    return 0;
}

static void a_lie_ends_in_one_line(void **state) {
    (void)state;
#ifdef PI2_TESTS_ARE_EMULATED
    skip(); /* this program is of another machine than the one that would have to start it */
#endif
    test_random random = test_random_from_env("PI2_SEED");
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        const pi2_hexagon_emulator options = {.emulator = own_path, .program = lies[i], .memory_bytes = MEMORY_BYTES,
                                              .thread_count = 1, .start_timeout_ns = long_ns,
                                              .timeout_ns = strcmp(lies[i], "silent") == 0 ? 100000000 : long_ns};
        pi2_hexagon_link link;
        pi2_status status = pi2_hexagon_open_emulator(&options, &link);
        if (strcmp(lies[i], "never there") != 0) {
            if (status != PI2_OK) fail_msg("%s: %s", lies[i], pi2_error_text());
            uint32_t end = PI2_HEXAGON_FIRST_AREA;
            problem p = make_problem(&random, PI2_Q8_0, shapes[0], false, link.memory, &end);
            const pi2_hexagon_request request = {.product_count = 1, .products = {p.product}};
            status = link.ask(&link, &request);
            free_problem(&p);
        }
        assert_int_equal(status, PI2_ERR_IO);
        if (!strstr(pi2_error_text(), told[i])) fail_msg("%s: %s", lies[i], pi2_error_text());
        assert_null(strchr(pi2_error_text(), '\n'));
        if (link.close) {
            assert_int_equal(pi2_hexagon_emulator_process(&link), 0);
            link.memory[MEMORY_BYTES - 1] = 1; /* still there */
            link.close(&link);
        }
    }
}

/* Stops this process, and lets it go on; then the device, which was stopped before. */
static pid_t stop_both(pid_t device) {
    const pid_t host = getpid();
    (void)kill(device, SIGSTOP);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0) return child;
    (void)nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    (void)kill(host, SIGSTOP);
    (void)nanosleep(&(struct timespec){.tv_sec = 3}, NULL);
    (void)kill(host, SIGCONT);
    (void)nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    (void)kill(device, SIGCONT);
    _exit(0);
}

/* Whoever was stopped for longer than the device may take has not waited for it meanwhile. */
static void a_process_that_was_stopped_loses_no_device(void **state) {
    (void)state;
#ifdef PI2_TESTS_ARE_EMULATED
    skip(); /* whoever starts an emulated program's children is not who stops it */
#endif
    test_random random = test_random_from_env("PI2_SEED");
    pi2_hexagon_link link;
    if (!open_device(&link, 1, UINT64_C(2000000000))) return;
    uint32_t end = PI2_HEXAGON_FIRST_AREA;
    problem p = make_problem(&random, PI2_Q8_0, shapes[0], false, link.memory, &end);
    const pi2_hexagon_request request = {.product_count = 1, .products = {p.product}};
    const pid_t child = stop_both((pid_t)pi2_hexagon_emulator_process(&link));
    const uint64_t begin_ns = pi2_clock_ns();
    if (link.ask(&link, &request) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_true(pi2_clock_ns() - begin_ns > UINT64_C(2500000000));
    assert_int_equal(waitpid(child, NULL, 0), child);
    check_problem(&p, link.memory);
    free_problem(&p);
    link.close(&link);
}

static void what_cannot_be_started_says_so(void **state) {
    (void)state;
    pi2_hexagon_link link;
    pi2_hexagon_emulator options = {.emulator = "/no/such/emulator", .program = "p", .memory_bytes = MEMORY_BYTES,
                                    .thread_count = 1, .start_timeout_ns = long_ns, .timeout_ns = long_ns};
    assert_int_equal(pi2_hexagon_open_emulator(&options, &link), PI2_ERR_IO);
#ifdef PI2_TESTS_ARE_EMULATED /* the emulator copies the process, so that only the copy learns why */
    assert_non_null(strstr(pi2_error_text(), "ended with exit status 127"));
#else
    assert_non_null(strstr(pi2_error_text(), "'/no/such/emulator' cannot be started"));
#endif
    options.thread_count = PI2_HEXAGON_MOST_THREADS + 1;
    assert_int_equal(pi2_hexagon_open_emulator(&options, &link), PI2_ERR_INVALID);
    options.thread_count = 1;
    options.memory_bytes = UINT32_MAX;
    assert_int_equal(pi2_hexagon_open_emulator(&options, &link), PI2_ERR_INVALID);
}

/* ---- FastRPC, both ends in one process ---- */

static void a_call_by_fastrpc_gives_the_same_bits(void **state) {
    (void)state;
    test_random random = test_random_from_env("PI2_SEED");
    static const char *const modes[] = {"", "lost", "liar"}, *const errors[] = {"", "error 0x27", "1 and 273 results"};
    for (size_t mode = 0; mode < 3; mode++) {
        assert_int_equal(unsetenv("FAKE_CDSPRPC"), 0);
        pi2_hexagon_link link;
        const pi2_status opened = pi2_hexagon_open_fastrpc(FAKE_CDSPRPC, MEMORY_BYTES, &link);
        if (opened == PI2_ERR_UNSUPPORTED && strstr(pi2_error_text(), "a static program")) skip();
        if (opened != PI2_OK) fail_msg("%s", pi2_error_text());
        assert_int_equal(setenv("FAKE_CDSPRPC", modes[mode], 1), 0);
        uint32_t end = PI2_HEXAGON_FIRST_AREA;
        problem p[2];
        pi2_hexagon_request request = {.product_count = 2};
        for (size_t i = 0; i < 2; i++) {
            p[i] = make_problem(&random, types[i], shapes[4 + i], true, link.memory, &end);
            request.products[i] = p[i].product;
        }
        const pi2_status status = link.ask(&link, &request);
        if (mode > 0) {
            assert_int_equal(status, PI2_ERR_IO);
            if (!strstr(pi2_error_text(), errors[mode])) fail_msg("%s", pi2_error_text());
            assert_int_equal(link.ask(&link, &request), PI2_ERR_IO);
            assert_non_null(strstr(pi2_error_text(), "was lost"));
        } else if (status != PI2_OK) {
            fail_msg("%s", pi2_error_text());
        }
        for (size_t i = 0; i < 2; i++) {
            if (mode != 1) check_problem(&p[i], link.memory);
            free_problem(&p[i]);
        }
        link.close(&link);
    }
    pi2_hexagon_link link;
    assert_int_equal(pi2_hexagon_open_fastrpc("libno_such_library.so", MEMORY_BYTES, &link), PI2_ERR_UNSUPPORTED);
    assert_non_null(strstr(pi2_error_text(), "libno_such_library.so"));
}

int main(int argc, char **argv) {
    if (argc == 5) return lie_for_ever(argv);
    own_path = argv[0];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_c_gives_the_scalar_kernels_bits),
        cmocka_unit_test(products_outside_the_memory_are_refused),
        cmocka_unit_test(vectors_give_the_scalar_kernels_bits),
        cmocka_unit_test(the_device_checks_what_it_is_asked),
        cmocka_unit_test(a_lie_ends_in_one_line),
        cmocka_unit_test(a_process_that_was_stopped_loses_no_device),
        cmocka_unit_test(what_cannot_be_started_says_so),
        cmocka_unit_test(a_call_by_fastrpc_gives_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
