/*
 * Goal:   a plan of a model in the neuron layout goes by the statistics that it is given: the share of neurons that
 *         fire, the pages that a token uses, what of them memory holds; what is not this model's is refused by name.
 * Method: a tiny model; statistics with counts of which everything can be told by hand; a made-up profile.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "machine/machine_profile.h"
#include "file_formats/cluster_file.h"
#include "powerinfer2/model_file.h"
#include "powerinfer2/plan.h"
#include "powerinfer2/simulate_model.h"
#include "statistics/neuron_statistics.h"
#include "support/emulator.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { LAYERS = 8, NEURONS = 2048, TOKENS = 100, PLENTY = 400000000 };

static char *model_path, *cluster_path, *statistics_path;
static pi2_machine_profile *profile;
static uint64_t model_hash;

static void make_model(const char *activation) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.layer_count = LAYERS;
    options.embedding_length = 512;
    options.feed_forward_length = NEURONS;
    options.ffn_activation = activation;
    (void)remove(cluster_path);
    assert_int_equal(pi2_tiny_model_write_apart(&options, model_path), 0);
    const pi2_prepare_options prepare = { .model_path = model_path, .output_path = cluster_path,
                                          .layout = PI2_LAYOUT_NEURON };
    if (pi2_prepare_file(&prepare, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
    pi2_gguf *gguf;
    pi2_source_identity source;
    assert_int_equal(pi2_gguf_open(model_path, &gguf), PI2_OK);
    assert_int_equal(pi2_source_identity_of(gguf, &source), PI2_OK);
    pi2_gguf_close(gguf);
    model_hash = source.header_hash;
}

/* In every layer `often` neurons fire in `times` tokens, and `once` in one; the numbers of the former are spread. */
static void write_statistics(uint32_t layers, uint32_t often, uint32_t times, uint32_t once, uint64_t hash) {
    pi2_statistics_entry entries[LAYERS] = { { 0 } };
    const uint32_t columns[] = { PI2_STATISTICS_FIRED };
    pi2_neuron_statistics statistics;
    for (uint32_t i = 0; i < layers; i++) {
        entries[i] = (pi2_statistics_entry){ i, UINT32_MAX, NEURONS, TOKENS, 0 };
    }
    assert_int_equal(pi2_neuron_statistics_make(entries, layers, columns, 1, &statistics), PI2_OK);
    statistics.model_hash = hash;
    statistics.token_count = TOKENS;
    for (uint32_t i = 0; i < layers; i++) {
        uint32_t *fired = statistics.columns[0] + statistics.entries[i].first;
        for (uint32_t n = 0; n < often; n++) fired[n * (NEURONS / often)] = times;
        for (uint32_t n = 0; n < once; n++) fired[n * (NEURONS / often) + 1] = 1;
    }
    (void)remove(statistics_path);
    assert_int_equal(pi2_neuron_statistics_write(statistics_path, &statistics), PI2_OK);
    pi2_neuron_statistics_free(&statistics);
}

static pi2_status try_plan(uint64_t memory_bytes, pi2_plan **plan_out) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = cluster_path;
    options.memory_bytes = memory_bytes;
    options.context_tokens = 64;
    options.thread_count = 1;
    const pi2_prediction_request request = { .prompt_tokens = 32, .statistics = statistics_path };
    return pi2_plan_make(&options, profile, &request, plan_out);
}

static pi2_prediction predict(uint64_t memory_bytes) {
    pi2_plan *plan;
    if (try_plan(memory_bytes, &plan) != PI2_OK) fail_msg("%s", pi2_error_text());
    const pi2_prediction prediction = *pi2_plan_prediction(plan);
    pi2_plan_free(plan);
    return prediction;
}

/* A budget that holds some of the units, at least so large a share. */
static pi2_prediction predict_part(double share) {
    if (PI2_UNDER_EMULATOR) {
        print_message("not under an emulator: a budget for a part of so small a model, beside what qemu holds\n");
        skip();
    }
    for (uint64_t budget = 4000000; budget < PLENTY; budget += 100000) {
        pi2_plan *plan;
        if (try_plan(budget, &plan) != PI2_OK) continue;
        const pi2_prediction prediction = *pi2_plan_prediction(plan);
        pi2_plan_free(plan);
        if (prediction.neuron_units == 0) continue;
        if ((double)prediction.neuron_slots >= share * (double)prediction.neuron_units) return prediction;
    }
    fail_msg("no budget is enough");
    return (pi2_prediction){ 0 };
}

static void assert_near(double value, double expected, double most_apart) {
    if (fabs(value - expected) > most_apart) fail_msg("%.9g is not %.9g", value, expected);
}

static void test_counted(void **state) {
    (void)state;
    make_model("relu");
    /* An eighth fires always, the others never: an eighth of the pages is used, and all those stay in half of them. */
    write_statistics(LAYERS, NEURONS / 8, TOKENS, 0, model_hash);
    pi2_prediction prediction = predict_part(0.5);
    assert_near(prediction.neuron_share, 0.125, 1e-12);
    assert_true(prediction.neuron_slots < prediction.neuron_units);
    assert_near(prediction.neuron_hit_rate, 1, 1e-12);
    assert_int_equal(prediction.bytes_per_token, 0);
    char grounds[512];
    (void)snprintf(grounds, sizeof grounds, "counted in %s (100 tokens)", statistics_path);
    assert_string_equal(prediction.sparsity, grounds);
    /* Those that never fired fire as often as those that did once: 256 of 2048 do, 1536 share their hundredths. */
    write_statistics(LAYERS, NEURONS / 8, TOKENS, NEURONS / 8, model_hash);
    prediction = predict(PLENTY);
    assert_near(prediction.neuron_share, (256 + 256 / 100.0 + 256 / 100.0) / 2048, 1e-9);
    assert_near(prediction.neuron_reads, 0, 1e-9);
    prediction = predict_part(0.5);
    assert_true(prediction.neuron_hit_rate > 0.9 && prediction.neuron_hit_rate < 1 && prediction.neuron_reads > 0);
    assert_near((double)prediction.bytes_per_token, 4096 * prediction.neuron_reads, 4096);
}

/* What 8 bits round to zero is read all the same: a neuron that fires in 10 tokens and is zero in 80 is read in 20. */
static void test_rounded(void **state) {
    (void)state;
    const pi2_statistics_entry entry = { 0, UINT32_MAX, NEURONS, TOKENS, 0 };
    pi2_statistics_entry entries[LAYERS];
    const uint32_t columns[] = { PI2_STATISTICS_FIRED, PI2_STATISTICS_ZEROS };
    pi2_neuron_statistics statistics;
    make_model("relu");
    for (uint32_t i = 0; i < LAYERS; i++) {
        entries[i] = entry;
        entries[i].layer = i;
    }
    assert_int_equal(pi2_neuron_statistics_make(entries, LAYERS, columns, 2, &statistics), PI2_OK);
    statistics.model_hash = model_hash;
    statistics.token_count = TOKENS;
    for (uint32_t n = 0; n < LAYERS * NEURONS; n++) {
        statistics.columns[0][n] = n % 4 ? 0 : 10;
        statistics.columns[1][n] = n % 4 ? TOKENS : 80;
    }
    (void)remove(statistics_path);
    if (pi2_neuron_statistics_write(statistics_path, &statistics) != PI2_OK) fail_msg("%s", pi2_error_text());
    pi2_neuron_statistics_free(&statistics);
    assert_near(predict(PLENTY).neuron_share, 0.25 * 0.2, 1e-12);
}

/* Of drelu's neurons four fifths of those that are read give something. */
static void test_drelu(void **state) {
    (void)state;
    make_model("drelu");
    write_statistics(LAYERS, NEURONS / 8, 40, 0, model_hash);
    const pi2_prediction prediction = predict(PLENTY);
    assert_near(prediction.neuron_share, 0.125 * 0.4 / 0.8, 1e-12);
}

static void test_in_part(void **state) {
    (void)state;
    make_model("relu");
    write_statistics(1, NEURONS / 8, TOKENS, 0, model_hash); /* the other layers: 10 % */
    const pi2_prediction prediction = predict(PLENTY);
    assert_near(prediction.neuron_share, (0.125 + 0.1 * (LAYERS - 1)) / LAYERS, 1e-9);
    assert_non_null(strstr(prediction.sparsity, "assumed where it has no layer"));
}

static void test_refused(void **state) {
    (void)state;
    pi2_plan *plan = NULL;
    make_model("relu");
    write_statistics(LAYERS, NEURONS / 8, TOKENS, 0, model_hash + 1);
    assert_int_equal(try_plan(PLENTY, &plan), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "these are statistics of another model"));
    assert_null(plan);
    make_model("silu");
    write_statistics(LAYERS, NEURONS / 8, TOKENS, 0, model_hash);
    assert_int_equal(try_plan(PLENTY, &plan), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "is planned without them"));
    assert_null(plan);
}

/* An engine reads them when it opens: while weights are in memory there is no room for them. */
static void test_an_engine_reads_them_at_once(void **state) {
    (void)state;
    make_model("relu");
    for (int is_other = 0; is_other < 2; is_other++) {
        write_statistics(LAYERS, NEURONS / 8, TOKENS, 0, model_hash + (uint64_t)is_other);
        pi2_engine_options options;
        pi2_engine_options_init(&options);
        options.model_path = cluster_path;
        options.memory_bytes = PLENTY;
        options.context_tokens = 64;
        options.thread_count = 1;
        options.statistics = statistics_path;
        pi2_engine *engine;
        if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
        assert_int_equal(remove(statistics_path), 0);
        for (int i = 0; i < 2; i++) {
            pi2_prediction prediction;
            const pi2_prediction_request request = { .prompt_tokens = 32, .statistics = statistics_path };
            const pi2_status status = pi2_engine_predict(engine, profile, &request, &prediction);
            assert_int_equal(status, is_other ? PI2_ERR_FORMAT : PI2_OK);
            if (is_other) assert_non_null(strstr(pi2_error_text(), "these are statistics of another model"));
            else assert_near(prediction.neuron_share, 0.125, 1e-12);
        }
        pi2_engine_close(engine);
    }
}

/* ---- what the store takes of the processors, simulated ---- */

static pi2_status try_simulation(uint64_t memory_bytes, pi2_model_simulated *run) {
    pi2_engine_options options;
    pi2_model_simulation simulation;
    pi2_engine_options_init(&options);
    pi2_model_simulation_init(&simulation);
    options.model_path = cluster_path;
    options.memory_bytes = memory_bytes;
    options.context_tokens = 64;
    options.thread_count = 1;
    simulation.profile = profile;
    simulation.statistics = statistics_path;
    simulation.tokens = 8;
    return pi2_simulate_model(&options, &simulation, run);
}

/* With a line more in the profile, which name NULL leaves out. */
static pi2_model_simulated simulate(const char *name, double value) {
    const size_t before = profile->count;
    pi2_model_simulated run;
    if (name) (void)pi2_profile_add(profile, PI2_MEASURED_STORE, name, 1, 0, 0, value, 0);
    if (try_simulation(PLENTY, &run) != PI2_OK) fail_msg("%s", pi2_error_text());
    profile->count = before;
    return run;
}

/* Within so little memory that units are read; what the process holds moves from one plan to the next, so a budget at
 * the edge may hold none then. Returns how much longer a pass takes for each unit; 0: this budget is none. */
static double more_for_a_unit(uint64_t budget, const char *name, double value) {
    const size_t before = profile->count;
    pi2_model_simulated without, with;
    if (try_simulation(budget, &without) != PI2_OK || without.reads_per_token < 1) return 0;
    (void)pi2_profile_add(profile, PI2_MEASURED_STORE, name, 1, 0, 0, value, 0);
    const bool is_planned = try_simulation(budget, &with) == PI2_OK && with.reads_per_token >= 1;
    profile->count = before;
    return is_planned ? (with.mean_seconds - without.mean_seconds) / (with.bytes_per_token / 4096) : 0;
}

static double least_more_for_a_unit(const char *name, double value) {
    for (uint64_t budget = 4000000; budget < PLENTY; budget += 100000) {
        const double more = more_for_a_unit(budget, name, value);
        if (more > 0) return more;
    }
    fail_msg("no budget holds a part");
    return 0;
}

static void test_simulated_store(void **state) {
    (void)state;
    make_model("relu");
    /* An eighth of the units is used by every token. */
    write_statistics(LAYERS, NEURONS / 8, TOKENS, 0, model_hash);
    const pi2_prediction all = predict(PLENTY);
    const double base = simulate(NULL, 0).mean_seconds, used = all.neuron_share * (double)all.neuron_units;
    assert_near(used, (double)all.neuron_units / 8, 1e-6);
    assert_near(simulate("find", 1e4).mean_seconds - base, used / 1e4, 1e-9);
    assert_near(simulate("tell", 1e5).mean_seconds - base, LAYERS * NEURONS / 1e5, 1e-9);
    assert_near(simulate("bring", 1).mean_seconds, base, 1e-12);
    if (PI2_UNDER_EMULATOR) return; /* a budget for a part of so small a model, beside what qemu holds */
    /* They fire half of the time, as many others do once: what is not there is brought, and its checksum taken. */
    write_statistics(LAYERS, NEURONS / 8, TOKENS / 2, NEURONS / 8, model_hash);
    assert_near(least_more_for_a_unit("bring", 100), 0.01, 0.005);
    assert_near(least_more_for_a_unit("check", 409600), 0.01, 0.005);
}

static int setup(void **state) {
    (void)test_folder_begin(state);
    model_path = test_folder_path("model.gguf");
    cluster_path = test_folder_path("model.pi2");
    statistics_path = test_folder_path("counts");
    profile = calloc(1, sizeof *profile);
    if (!profile) return 1;
    pi2_machine_disk disk;
    if (pi2_profile_place(test_folder, &disk) != PI2_OK) return 1;
    const uint32_t number = pi2_profile_add_disk(profile, &disk);
    (void)pi2_profile_add(profile, PI2_MEASURED_MEMORY, NULL, 1, 0, 0, 10e9, 0);
    (void)pi2_profile_add(profile, PI2_MEASURED_SMALL_READ, "pread", 4096, 1, number, 100e6, 0);
    (void)pi2_profile_add(profile, PI2_MEASURED_DISK, "pread", 524288, 32, number, 1e9, 0);
    return 0;
}

static int teardown(void **state) {
    free(profile);
    return test_folder_end(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counted), cmocka_unit_test(test_rounded),
                                       cmocka_unit_test(test_drelu),
                                       cmocka_unit_test(test_in_part), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_simulated_store),
                                       cmocka_unit_test(test_an_engine_reads_them_at_once)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
