/*
 * Goal:   a simulation gives what can be told by arithmetic where that can be told, obeys what holds on any device
 *         (nothing that is faster or larger makes a run slower), is the same every time, and refuses what is none.
 * Method: small made-up devices and models with round numbers.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "powerinfer2/simulate.h"

static const pi2_simulated_device plain_device = {
    .threads = 4, .cpu_bytes_per_second = 40e9, .sparse_efficiency = 0.5, .reads = {{4096, 100000}, {65536, 20000}},
    .read_count = 2, .read_latency_seconds = 1e-4, .sequential_bytes_per_second = 2e9};

static const pi2_simulated_model plain_model = {
    .layers = 6, .neurons = 2048, .experts = 1, .experts_used = 1, .attention_bytes = 4e6, .head_bytes = 8e6,
    .predictor_bytes = 1e6, .fixed_bytes = 50e6, .gate_row_bytes = 1024, .rest_row_bytes = 2048, .weights_per_byte = 2,
    .gate_read_bytes = 4096, .rest_read_bytes = 4096, .cached_bytes = 3072, .active = 0.125, .precision = 1,
    .repeat = 0.25};

static pi2_simulated_run simulate(const pi2_simulated_device *device, const pi2_simulated_model *model,
                                  const pi2_simulation *simulation) {
    pi2_simulated_run run;
    assert_int_equal(pi2_simulate(device, model, simulation, &run), PI2_OK);
    return run;
}

static pi2_simulation usual(double ffn_in_memory) {
    pi2_simulation simulation;
    pi2_simulation_init(&simulation);
    simulation.ffn_in_memory = ffn_in_memory;
    simulation.tokens = 48;
    simulation.warm_tokens = 16;
    return simulation;
}

static void assert_near(double value, double wanted, double share) {
    if (fabs(value - wanted) > share * wanted) fail_msg("%g, not %g within %g", value, wanted, share);
}

/* All there and no accelerator: bytes by their speeds. An eighth of the neurons is computed at half speed. */
static void test_memory_bound(void **state) {
    (void)state;
    const pi2_simulation simulation = usual(1);
    const pi2_simulated_run run = simulate(&plain_device, &plain_model, &simulation);
    const double rows = plain_model.active * plain_model.neurons * 3072 / 0.5;
    const double wanted = (6 * (4e6 + 1e6 + rows) + 8e6) / 40e9;
    assert_near(run.mean_seconds, wanted, 0.05);
    assert_true(run.hit_share == 1 && run.bytes_per_pass == 0 && run.exposed_share == 0);
    assert_near(run.thread_share, 1, 0.06);
    assert_near(run.tokens_per_second * run.mean_seconds, 1, 1e-9);
}

/* Nothing kept and a slow disk: the reads' time. Gate of what fires, then the rest of it. */
static void test_disk_bound(void **state) {
    (void)state;
    pi2_simulated_device device = plain_device;
    device.reads[0].per_second = 2000;
    pi2_simulation simulation = usual(0.5);
    simulation.without_cache = true;
    const pi2_simulated_run run = simulate(&device, &plain_model, &simulation);
    const double reads = 6 * plain_model.active * plain_model.neurons * 2;
    assert_near(run.reads_per_pass, reads, 0.05);
    assert_near(run.mean_seconds, reads / 2000, 0.08);
    assert_near(run.bytes_per_pass, 4096 * run.reads_per_pass, 1e-9);
    assert_true(run.hit_share == 0 && run.exposed_share > 0.9);
}

/* The accelerator's part is dense, and both go on at the same time. */
static void test_accelerator(void **state) {
    (void)state;
    pi2_simulated_device device = plain_device;
    device.accelerator_bytes_per_second = 60e9;
    pi2_simulation simulation = usual(1);
    simulation.hot_share = 1;
    const pi2_simulated_run hot = simulate(&device, &plain_model, &simulation);
    const double wanted = 6 * (4e6 / 100e9 + 2048 * 3072 / 60e9) + 8e6 / 100e9;
    assert_near(hot.mean_seconds, wanted, 0.02);
    assert_near(hot.accelerator_share, 1, 0.05);
    device.both_bytes_per_second = 50e9; /* half of the sum: each is half as fast while both compute */
    assert_near(simulate(&device, &plain_model, &simulation).mean_seconds, 2 * wanted, 0.02);
    device.both_bytes_per_second = 0;
    simulation.hot_share = -1;
    const pi2_simulated_run best = simulate(&device, &plain_model, &simulation);
    simulation.without_accelerator = true;
    const pi2_simulated_run none = simulate(&device, &plain_model, &simulation);
    assert_true(best.mean_seconds <= hot.mean_seconds && best.mean_seconds < none.mean_seconds);
    assert_true(none.accelerator_share == 0 && none.hot_share == 0);
}

static void test_operations_bound(void **state) {
    (void)state;
    pi2_simulated_device device = plain_device;
    device.cpu_operations_per_second = 80e9; /* two for each weight, two weights a byte: 20 GB a second */
    const pi2_simulation simulation = usual(1);
    const pi2_simulated_run bound = simulate(&device, &plain_model, &simulation);
    device.cpu_operations_per_second = 0;
    device.cpu_bytes_per_second = 20e9;
    device.sparse_efficiency = 1;
    assert_near(bound.mean_seconds, simulate(&device, &plain_model, &simulation).mean_seconds, 0.05);
}

/* What is faster or larger makes no run slower. */
static void test_more_is_not_slower(void **state) {
    (void)state;
    double before = INFINITY;
    for (int i = 1; i <= 4; i++) { /* memory */
        const pi2_simulation simulation = usual(0.25 * i);
        const pi2_simulated_run run = simulate(&plain_device, &plain_model, &simulation);
        assert_true(run.mean_seconds < before * 1.01);
        assert_true(run.p50_seconds <= run.p90_seconds && run.p90_seconds <= run.p99_seconds);
        before = run.mean_seconds;
    }
    pi2_simulation simulation = usual(0.5);
    const pi2_simulated_run half = simulate(&plain_device, &plain_model, &simulation);
    pi2_simulated_device device = plain_device;
    device.reads[0].per_second *= 4;
    assert_true(simulate(&device, &plain_model, &simulation).mean_seconds < half.mean_seconds);
    simulation.without_pipeline = true;
    assert_true(simulate(&plain_device, &plain_model, &simulation).mean_seconds > half.mean_seconds);
    simulation.without_cache = true;
    assert_true(simulate(&plain_device, &plain_model, &simulation).hit_share == 0);
    simulation = usual(0.5);
    simulation.batch = 4; /* together they use more than one, and less than four times as much */
    const pi2_simulated_run four = simulate(&plain_device, &plain_model, &simulation);
    assert_true(four.mean_seconds > half.mean_seconds && four.tokens_per_second > half.tokens_per_second);
}

/* The share of hits is that of the hottest half, and what repeats comes on top. */
static void test_hits(void **state) {
    (void)state;
    pi2_simulated_model model = plain_model;
    model.repeat = 0;
    model.skew = 4;
    pi2_simulation simulation = usual(0.5);
    const double fixed = simulate(&plain_device, &model, &simulation).hit_share;
    assert_near(fixed, 1 - pow(0.5, 4), 0.04);
    model.repeat = 0.5;
    assert_true(simulate(&plain_device, &model, &simulation).hit_share > fixed);
    model.experts = 4;
    model.experts_used = 2;
    model.layers = 2;
    const pi2_simulated_run experts = simulate(&plain_device, &model, &simulation);
    assert_true(experts.hit_share > 0.8 && experts.hit_share < 1);
}

static void test_prompts(void **state) {
    (void)state;
    pi2_simulation simulation = usual(0.5);
    simulation.tokens = 1;
    simulation.prompt_tokens = 10;
    const double reading = 0.5 * 2048 * 8192 / 2e9, computing = (4e6 + 2048 * 3072.0) / 40e9;
    double seconds = simulate(&plain_device, &plain_model, &simulation).prompt_seconds;
    assert_near(seconds, 6 * reading + computing, 1e-9); /* the disk is the slower one */
    simulation.without_pipeline = true;
    seconds = simulate(&plain_device, &plain_model, &simulation).prompt_seconds;
    assert_near(seconds, 6 * (reading + computing), 1e-9);
}

static void test_same_every_time(void **state) {
    (void)state;
    pi2_simulated_model model = plain_model;
    model.spread = 0.5;
    pi2_simulation simulation = usual(0.5);
    const pi2_simulated_run one = simulate(&plain_device, &model, &simulation);
    const pi2_simulated_run two = simulate(&plain_device, &model, &simulation);
    assert_true(one.tokens_per_second == two.tokens_per_second && one.hit_share == two.hit_share);
    assert_true(one.p99_seconds > 1.1 * one.p50_seconds);
    simulation.seed = 2;
    assert_true(simulate(&plain_device, &model, &simulation).tokens_per_second != one.tokens_per_second);
    for (int cluster = 1; cluster <= 64; cluster *= 4) { /* sizes that divide nothing too */
        simulation.cluster = (uint32_t)cluster + 2;
        (void)simulate(&plain_device, &model, &simulation);
    }
    simulation.cluster = 1;
    simulation.without_pipeline = true;
    (void)simulate(&plain_device, &model, &simulation);
    simulation.policy = "lru";
    assert_true(simulate(&plain_device, &model, &simulation).hit_share > 0.5);
}

/* A part of the predictor names more than 2^16 neurons, each a cluster of its own; a third of them find no room in a
 * cache that the layer uses up. The numbers are far above any model's, and the time is still what arithmetic gives. */
static void test_large_layer(void **state) {
    (void)state;
    pi2_simulated_model model = plain_model;
    pi2_simulation simulation = usual(1);
    model.layers = 1;
    model.neurons = 17 << 16;
    model.active = 1;
    model.repeat = 0;
    const double fires = model.neurons;
    simulation.tokens = 1;
    simulation.warm_tokens = 0;
    simulation.cluster = 1;
    const pi2_simulated_run all = simulate(&plain_device, &model, &simulation);
    assert_near(all.mean_seconds, (13e6 + fires * 3072.0 / 0.5) / 40e9, 0.01);
    simulation.cluster = 0;
    simulation.ffn_in_memory = 0.7;
    const pi2_simulated_run some = simulate(&plain_device, &model, &simulation);
    assert_near(some.reads_per_pass, 2 * 0.3 * fires, 0.01);
    assert_near(some.hit_share, 0.7, 0.01);
}

static void expect_refusal(const pi2_simulated_device *device, const pi2_simulated_model *model,
                           const pi2_simulation *simulation, const char *part) {
    pi2_simulated_run run;
    assert_int_equal(pi2_simulate(device, model, simulation, &run), PI2_ERR_INVALID);
    if (!strstr(pi2_error_text(), part)) fail_msg("'%s' has no '%s'", pi2_error_text(), part);
}

static void test_refusals(void **state) {
    (void)state;
    pi2_simulated_device device = plain_device;
    pi2_simulated_model model = plain_model;
    pi2_simulation simulation = usual(0.5);
    device.cpu_bytes_per_second = (double)NAN;
    expect_refusal(&device, &model, &simulation, "'cpu_bytes_per_second' is nan");
    device = plain_device;
    device.reads[1].bytes = 4096;
    expect_refusal(&device, &model, &simulation, "'bytes of a read' is 4096");
    device = plain_device;
    model.layers = 1024;
    model.neurons = 1 << 20;
    expect_refusal(&device, &model, &simulation, "'neurons of all layers'");
    model.layers = 1;
    model.neurons = 1 << 22;
    expect_refusal(&device, &model, &simulation, "'neurons of a layer'");
    model.neurons = 1 << 20;
    simulation.batch = 64;
    expect_refusal(&device, &model, &simulation, "'batch times neurons'");
    simulation = usual(0.5);
    simulation.warm_tokens = 100000;
    expect_refusal(&device, &model, &simulation, "'neurons drawn in all passes'");
    simulation = usual(0.5);
    model = plain_model;
    model.experts_used = 2;
    expect_refusal(&device, &model, &simulation, "'experts_used' is 2");
    model = plain_model;
    simulation.memory_bytes = 49e6;
    expect_refusal(&device, &model, &simulation, "does not hold the 50000000");
    simulation = usual(0.25);
    simulation.hot_share = 0.5;
    (void)simulate(&device, &model, &simulation); /* without an accelerator nothing is hot */
    device.accelerator_bytes_per_second = 1e9;
    expect_refusal(&device, &model, &simulation, "'hot_share' is 0.5");
    simulation.policy = "keep";
    simulation.hot_share = 0;
    expect_refusal(&device, &model, &simulation, "'keep' is no policy");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_bound), cmocka_unit_test(test_disk_bound), cmocka_unit_test(test_accelerator),
        cmocka_unit_test(test_operations_bound), cmocka_unit_test(test_more_is_not_slower), cmocka_unit_test(test_hits),
        cmocka_unit_test(test_prompts), cmocka_unit_test(test_same_every_time), cmocka_unit_test(test_large_layer),
        cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
