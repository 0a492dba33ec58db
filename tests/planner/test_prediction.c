/*
 * Goal:   predictions obey what must hold on any machine: more memory, a faster disk or more threads
 *         never slow anything down, limits are never passed, and the bottleneck is named rightly.
 * Method: made-up profiles and workloads with round numbers.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "planner/prediction.h"
#include "planner/prediction_internal.h"

static pi2_machine_profile *make_profile(double disk) {
    pi2_machine_profile *profile = calloc(1, sizeof *profile);
    assert_non_null(profile);
    for (unsigned threads = 1; threads <= 4; threads *= 2) {
        (void)pi2_profile_add(profile, PI2_MEASURED_MEMORY, NULL, threads, 0, 0, 10e9 + 2e9 * threads, 0.01);
        (void)pi2_profile_add(profile, PI2_MEASURED_DECODE, "Q4_0", threads, 0, 0, 9e9 + 2e9 * threads, 0.02);
        (void)pi2_profile_add(profile, PI2_MEASURED_DECODE, "Q8_0", threads, 0, 0, 9.5e9 + 2e9 * threads, 0.02);
        (void)pi2_profile_add(profile, PI2_MEASURED_STAGE, NULL, threads, 0, 0, 1e-6, 0);
        for (unsigned batch = 4; batch <= 256; batch *= 4) {
            (void)pi2_profile_add(profile, PI2_MEASURED_BATCH, "Q4_0", batch, threads, 0, 200e9 * threads, 0.02);
            (void)pi2_profile_add(profile, PI2_MEASURED_BATCH, "Q8_0", batch, threads, 0, 180e9 * threads, 0.02);
        }
    }
    (void)pi2_profile_add(profile, PI2_MEASURED_ATTENTION, NULL, 4, 0, 0, 50e9, 0);
    (void)pi2_profile_add(profile, PI2_MEASURED_VECTOR, NULL, 0, 0, 0, 2e9, 0);
    for (unsigned block = 65536; block <= 1048576; block *= 4) {
        (void)pi2_profile_add(profile, PI2_MEASURED_DISK, "pread", block, 1, 0, disk / 4, 0.05);
        (void)pi2_profile_add(profile, PI2_MEASURED_DISK, "pread", block, 32, 0, disk, 0.05);
    }
    (void)pi2_profile_add(profile, PI2_MEASURED_READ_CPU, "pread", 0, 0, 0, 5e-11, 0);
    return profile;
}

/* 4 GB of Q8_0 weights, of which some stream. */
static pi2_workload make_workload(uint64_t read_bytes) {
    pi2_workload workload = {.part_count = 2, .budget_bytes = 4100000000u - read_bytes, .read_bytes = read_bytes,
                             .resident_bytes = 4000000000u - read_bytes,
                             .read_block = 524288, .read_method = "pread", .layer_count = 32, .stages_per_pass = 200,
                             .width = 4096, .feed_forward = 14336, .query_floats = 4096, .key_value_floats = 2048,
                             .cache_bytes_per_position = 131072, .batch_tokens = 256, .threads = 2, .cores = 4,
                             .embedding_streams = read_bytes != 0};
    workload.parts[0] = (pi2_workload_weights){.type = "Q8_0", .columns = 4096, .bytes = 3900000000u,
                                               .weights = 3670588235u};
    workload.parts[1] = (pi2_workload_weights){.type = "Q8_0", .columns = 4096, .bytes = 100000000,
                                               .weights = 94117647, .is_head = true};
    return workload;
}

static pi2_prediction predict(const pi2_workload *workload, double disk) {
    pi2_machine_profile *profile = make_profile(disk);
    pi2_prediction prediction;
    pi2_predict(workload, profile, &pi2_as_it_is, 512, 512, &prediction);
    free(profile);
    assert_true(prediction.decode.low < prediction.decode.tokens_per_second);
    assert_true(prediction.decode.high > prediction.decode.tokens_per_second);
    assert_true(prediction.prefill.low > 0);
    assert_true(prediction.prefill.tokens_per_second > prediction.decode.tokens_per_second);
    assert_int_equal(prediction.bytes_per_token, workload->read_bytes);
    return prediction;
}

static void test_limits(void **state) {
    (void)state;
    pi2_workload workload = make_workload(2000000000);
    pi2_prediction prediction = predict(&workload, 1e9);
    assert_int_equal(prediction.bottleneck, PI2_LIMIT_DISK);
    assert_true(prediction.decode.tokens_per_second <= 0.5);
    assert_true(prediction.decode.tokens_per_second > 0.49);
    workload = make_workload(0);
    prediction = predict(&workload, 1e9);
    assert_int_equal(prediction.bottleneck, PI2_LIMIT_MEMORY_BANDWIDTH);
    assert_true(prediction.decode.tokens_per_second < 13.5e9 / 4e9);
    assert_true(prediction.decode.tokens_per_second > 0.9 * 13.5e9 / 4e9);
    assert_int_equal(prediction.prefill_bottleneck, PI2_LIMIT_COMPUTE);
    assert_true(prediction.prefill.tokens_per_second < 360e9 / (2 * 3.67e9));
    assert_true(prediction.load_ms > 3999 && prediction.load_ms < 4001);
}

static void test_monotone(void **state) {
    (void)state;
    double before = 0, prefill = 0;
    for (uint64_t gigabytes = 5; gigabytes-- > 0;) { /* more memory: less is read */
        const pi2_workload workload = make_workload(gigabytes * 1000000000u);
        const pi2_prediction prediction = predict(&workload, 1.5e9);
        assert_true(prediction.decode.tokens_per_second > before);
        assert_true(prediction.prefill.tokens_per_second >= prefill);
        before = prediction.decode.tokens_per_second;
        prefill = prediction.prefill.tokens_per_second;
    }
    before = 0;
    for (double disk = 0.25e9; disk < 40e9; disk *= 2) {
        const pi2_workload workload = make_workload(3000000000u);
        const pi2_prediction prediction = predict(&workload, disk);
        assert_true(prediction.decode.tokens_per_second >= before);
        before = prediction.decode.tokens_per_second;
    }
    before = 0;
    for (uint32_t threads = 1; threads <= 4; threads++) {
        pi2_workload workload = make_workload(0);
        workload.threads = threads;
        const pi2_prediction prediction = predict(&workload, 1e9);
        assert_true(prediction.decode.tokens_per_second > before);
        before = prediction.decode.tokens_per_second;
    }
}

static void test_positions(void **state) {
    (void)state;
    pi2_machine_profile *profile = make_profile(1e9);
    const pi2_workload workload = make_workload(0);
    double before = 1e9;
    for (uint32_t position = 0; position < 40000; position += 8000) {
        pi2_prediction prediction;
        pi2_predict(&workload, profile, &pi2_as_it_is, 64, position, &prediction);
        assert_true(prediction.decode.tokens_per_second < before);
        before = prediction.decode.tokens_per_second;
    }
    free(profile);
}

/* Layers with a window see no more of a long context than of a short one; some of the layers: part of it. */
static void test_windows(void **state) {
    (void)state;
    pi2_machine_profile *profile = make_profile(1e9);
    pi2_workload workload = make_workload(0);
    double lost[3];
    workload.attention_layers = 32;
    workload.window = 512;
    for (uint32_t i = 0; i < 3; i++) {
        pi2_prediction early, late;
        workload.window_layers = 16 * i;
        pi2_predict(&workload, profile, &pi2_as_it_is, 64, 600, &early);
        pi2_predict(&workload, profile, &pi2_as_it_is, 64, 30000, &late);
        lost[i] = 1 / late.decode.tokens_per_second - 1 / early.decode.tokens_per_second;
    }
    assert_true(lost[1] > 0.4 * lost[0] && lost[1] < 0.6 * lost[0]);
    assert_true(lost[2] < 0.001 * lost[0] && lost[2] > -0.001 * lost[0]);
    free(profile);
}

static void test_advice(void **state) {
    (void)state;
    pi2_machine_profile *profile = make_profile(1e9);
    pi2_advice advice[PI2_ADVICE_MOST];
    pi2_workload workload = make_workload(3000000000u);
    size_t count = pi2_predict_advice(&workload, profile, 64, 64, advice);
    assert_true(count >= 4);
    assert_non_null(strstr(advice[0].what, "memory for all weights"));
    bool disk = false, quantisation = false;
    for (size_t i = 0; i < count; i++) {
        if (i) assert_true(advice[i].tokens_per_second <= advice[i - 1].tokens_per_second);
        assert_true(advice[i].factor >= 1.05);
        disk = disk || strcmp(advice[i].what, "a disk twice as fast") == 0;
        quantisation = quantisation || strstr(advice[i].what, "Q6_K");
        assert_null(strstr(advice[i].what, "bandwidth"));
    }
    assert_true(disk && quantisation);
    workload = make_workload(0);
    count = pi2_predict_advice(&workload, profile, 64, 64, advice);
    assert_true(count >= 2);
    for (size_t i = 0; i < count; i++) assert_null(strstr(advice[i].what, "disk"));
    for (uint32_t i = 0; i < workload.part_count; i++) { /* nothing is smaller */
        workload.parts[i].type = "Q4_0";
        workload.parts[i].weights = workload.parts[i].bytes * 2;
    }
    count = pi2_predict_advice(&workload, profile, 64, 64, advice);
    for (size_t i = 0; i < count; i++) assert_null(strstr(advice[i].what, "smaller"));
    free(profile);
}

/* ---- mixtures of experts ---- */

static void even_hits(void *user, pi2_workload *workload) {
    (void)user;
    pi2_workload_experts *e = &workload->experts;
    e->cold_hits = 0;
    e->prompt_hits = e->decode_hits = (double)e->slots / (e->count * workload->layer_count);
}

/* 32 layers of 8 experts of 100 MB, 2 used: 1 GB stays, and some of 25.6 GB. */
static pi2_workload make_experts(uint32_t slots) {
    pi2_workload workload = make_workload(0);
    workload.resident_bytes = 1000000000u;
    workload.budget_bytes = 1100000000u + slots * (uint64_t)100000000u;
    workload.part_count = 2;
    workload.parts[0] = (pi2_workload_weights){.type = "Q8_0", .columns = 4096, .bytes = 1000000000u,
                                               .weights = 941176470u};
    workload.parts[1] = (pi2_workload_weights){.type = "Q4_0", .columns = 4096, .bytes = 25600000000u,
                                               .weights = 45511111111u, .role = PI2_ROLE_EXPERT};
    workload.experts = (pi2_workload_experts){.count = 8, .used = 2, .slots = slots, .read_block = 1048576,
                                              .expert_bytes = 100000000u};
    double left = 1;
    for (uint32_t i = 0, tokens = 0; i < PI2_DISTINCT_POINTS; i++) {
        for (; tokens < 1u << i; tokens++) left *= 0.75;
        workload.experts.distinct[i] = 8 * (1 - left);
    }
    workload.embedding_streams = slots < 256;
    workload.replay = even_hits;
    even_hits(NULL, &workload);
    return workload;
}

static void test_experts(void **state) {
    (void)state;
    pi2_machine_profile *profile = make_profile(2e9);
    double before = 0, reads = 1e12;
    for (uint32_t slots = 2; slots <= 256; slots += slots < 16 ? 2 : 16) {
        const pi2_workload workload = make_experts(slots);
        pi2_prediction prediction;
        pi2_predict(&workload, profile, &pi2_as_it_is, 128, 128, &prediction);
        assert_true(prediction.decode.tokens_per_second > before);
        assert_true((double)prediction.bytes_per_token < reads);
        assert_true(prediction.expert_hit_rate * 256 > slots - 0.01 && prediction.expert_hit_rate * 256 < slots + 0.01);
        assert_int_equal(prediction.expert_slots, slots);
        /* Neither the disk's limit nor that of memory is passed. */
        assert_true(prediction.decode.tokens_per_second * (double)prediction.bytes_per_token <= 2e9 * 1.001);
        assert_true(prediction.decode.tokens_per_second < 13.5e9 / 7.4e9);
        before = prediction.decode.tokens_per_second;
        reads = (double)prediction.bytes_per_token;
        if (slots < 128) assert_int_equal(prediction.bottleneck, PI2_LIMIT_DISK);
        /* A batch reads each expert once at most. */
        assert_true(prediction.prefill.tokens_per_second > 128 / 14.0);
        assert_true(prediction.time_to_first_token_ms > 1e3 * 26.5 / 2);
    }
    assert_true(reads == 0);
    const pi2_workload workload = make_experts(256);
    pi2_prediction prediction;
    pi2_predict(&workload, profile, &pi2_as_it_is, 128, 128, &prediction);
    assert_int_equal(prediction.bottleneck, PI2_LIMIT_MEMORY_BANDWIDTH);
    free(profile);
}

/* Reading hides under computing within a layer only: what is exposed is more than the difference of the sums. */
static void test_exposed(void **state) {
    (void)state;
    pi2_machine_profile *profile = make_profile(8e9);
    const pi2_workload workload = make_experts(128);
    const pi2_pass pass = {1, 128, 0.5, false};
    const pi2_pass_time time = pi2_predict_pass(&workload, profile, &pi2_as_it_is, &pass);
    assert_true(time.read > 3.2 / 8.01 && time.read < 3.2 / 5);
    assert_true(time.seconds > time.read && time.seconds > time.compute);
    assert_true(time.seconds < time.read + time.compute);
    free(profile);
}

static double exposed(const pi2_workload *workload, const pi2_machine_profile *profile, uint32_t tokens) {
    const pi2_pass pass = {tokens, 0, workload->experts.prompt_hits, false};
    return pi2_predict_pass(workload, profile, &pi2_as_it_is, &pass).exposed;
}

/* Returns the smallest batch that hides its reading, after a look at its neighbours. */
static uint32_t check_hiding(const pi2_workload *workload, const pi2_machine_profile *profile) {
    const double hits = workload->experts.prompt_hits;
    const uint32_t batch = pi2_predict_hiding_batch(workload, profile, hits, 5000);
    assert_true(batch > 1 && batch < 5000);
    assert_true(exposed(workload, profile, batch) <= 0);
    assert_true(exposed(workload, profile, batch - 1) > 0);
    assert_int_equal(pi2_predict_hiding_batch(workload, profile, hits, batch), batch);
    assert_int_equal(pi2_predict_hiding_batch(workload, profile, hits, batch - 1), 0);
    return batch;
}

/* A batch hides its reading once computing takes longer, at 49 tokens/s here: 2 s hide under 98 tokens. */
static void test_hiding_batch(void **state) {
    (void)state;
    pi2_machine_profile *profile = make_profile(1e9), *fast = make_profile(2e9);
    pi2_workload workload = make_workload(2000000000);
    const uint32_t batch = check_hiding(&workload, profile);
    assert_true(batch > 80 && batch <= 98);
    assert_true(check_hiding(&workload, fast) < batch);
    workload = make_workload(0);
    assert_int_equal(pi2_predict_hiding_batch(&workload, profile, 0, 512), 1);
    const pi2_workload experts = make_experts(64);
    const uint32_t many = check_hiding(&experts, profile);
    assert_true(check_hiding(&experts, fast) < many);
    const pi2_workload all = make_experts(256);
    assert_int_equal(pi2_predict_hiding_batch(&all, profile, 1, 512), 1);
    free(fast);
    free(profile);
}

/* ---- single neurons ---- */

static void hits_of_slots(void *user, pi2_workload *workload) {
    (void)user;
    workload->neurons.hits = (double)workload->neurons.slots / (double)workload->neurons.units;
}

/* Round numbers: 10 GB/s of weights; small reads at `disk`, whatever their depth. Nothing else takes time. */
static pi2_machine_profile *make_neuron_profile(double disk) {
    pi2_machine_profile *profile = calloc(1, sizeof *profile);
    assert_non_null(profile);
    (void)pi2_profile_add(profile, PI2_MEASURED_MEMORY, NULL, 2, 0, 0, 10e9, 0);
    (void)pi2_profile_add(profile, PI2_MEASURED_DECODE, "Q8_0", 2, 0, 0, 10e9, 0);
    (void)pi2_profile_add(profile, PI2_MEASURED_BATCH, "Q8_0", 4, 2, 0, 200e9, 0);
    (void)pi2_profile_add(profile, PI2_MEASURED_SMALL_READ, "pread", 4096, 1, 0, disk, 0);
    (void)pi2_profile_add(profile, PI2_MEASURED_SMALL_READ, "pread", 4096, 128, 0, disk, 0);
    (void)pi2_profile_add(profile, PI2_MEASURED_DISK, "pread", 524288, 32, 0, 1e9, 0);
    (void)pi2_profile_add(profile, PI2_MEASURED_READ_CPU, "pread", 4096, 0, 0, 1e-9, 0);
    return profile;
}

/* What reading takes of the processors: each read as much as was measured with so many in flight, none where threads
 * leave a processor free; a profile that knows one figure alone says it of all. */
static void test_processor_time_of_reads(void **state) {
    (void)state;
    static const struct { double in_flight, seconds; } reads[] = {
        { 0, 32e-6 }, { 1, 32e-6 }, { 8, 8e-6 }, { 128, 4e-6 }, { 5000, 4e-6 } };
    pi2_machine_profile *profile = calloc(1, sizeof *profile);
    assert_non_null(profile);
    pi2_workload w = {.read_method = "pread", .threads = 2, .cores = 2};
    const pi2_prediction_setting setting = {&w, profile, &pi2_as_it_is};
    for (size_t i = 1; i < 4; i++) {
        (void)pi2_profile_add(profile, PI2_MEASURED_READ_CPU, "pread", 4096, (uint64_t)reads[i].in_flight, 0,
                              reads[i].seconds / 4096, 0);
    }
    for (size_t i = 0; i < sizeof reads / sizeof reads[0]; i++) {
        const double lost = pi2_prediction_lost(&setting, 10 * 4096, 4096, reads[i].in_flight);
        if (fabs(lost - 10 * reads[i].seconds / 2) > 1e-9) fail_msg("%g in flight: %g s", reads[i].in_flight, lost);
    }
    const double between = pi2_prediction_lost(&setting, 4096, 4096, 3);
    assert_true(between < 16e-6 && between > 4e-6);
    w.threads = 1;
    assert_true(pi2_prediction_lost(&setting, 4096, 4096, 1) == 0);
    w.threads = 2;
    profile->count = 0;
    (void)pi2_profile_add(profile, PI2_MEASURED_READ_CPU, "pread", 4096, 0, 0, 6e-6 / 4096, 0);
    assert_true(fabs(pi2_prediction_lost(&setting, 4096, 4096, 8) - 3e-6) < 1e-12);
    free(profile);
}

/* 4 layers of 1000 units, half of which have slots; a token uses a fifth of them and gives a tenth. */
static pi2_workload make_neurons(void) {
    pi2_workload workload = {.part_count = 4, .budget_bytes = 200000000u, .read_bytes = 80000000u,
                             .resident_bytes = 140000000u, .read_block = 524288, .read_method = "pread",
                             .layer_count = 4, .stages_per_pass = 20, .batch_tokens = 256, .threads = 2, .cores = 4,
                             .replay = hits_of_slots};
    static const pi2_weight_role roles[] = {PI2_ROLE_PLAIN, PI2_ROLE_GATE, PI2_ROLE_UP, PI2_ROLE_DOWN};
    for (int i = 0; i < 4; i++) {
        workload.parts[i] = (pi2_workload_weights){.type = "Q8_0", .columns = 4096, .role = roles[i],
                                                   .bytes = i ? 40000000u : 100000000u,
                                                   .weights = i ? 37647058u : 94117647u};
    }
    workload.neurons = (pi2_workload_neurons){.units = 4000, .slots = 2000, .layers = 4, .unit_bytes = 4096,
                                              .read_bytes = 4096, .pass_tokens = 8, .stages_per_pass = 30,
                                              .fires = 0.2, .gives = 0.1, .used_units = 800, .hits = 0.5};
    return workload;
}

static void assert_near(double value, double expected) {
    if (fabs(value - expected) > 1e-6 * expected) fail_msg("%.9g is not %.9g", value, expected);
}

static void test_neurons(void **state) {
    (void)state;
    pi2_machine_profile *fast = make_neuron_profile(409.6e6), *slow = make_neuron_profile(204.8e6);
    pi2_workload workload = make_neurons();
    const pi2_pass one = {1, 0, 0, false}, two = {2, 0, 0, false}, nine = {9, 0, 0, false};
    /* All of 100 MB: 10 ms; a tenth of Down: 0.4 ms. In each layer Gate 1 ms, a fifth of Up 0.2 ms; 100 units are
     * read in 1 ms, which hides under these. */
    pi2_pass_time time = pi2_predict_pass(&workload, fast, &pi2_as_it_is, &one);
    assert_near(time.seconds, 15.2e-3);
    assert_near(time.read, 4e-3);
    assert_true(fabs(time.exposed) < 1e-12);
    /* In 2 ms they do not. */
    time = pi2_predict_pass(&workload, slow, &pi2_as_it_is, &one);
    assert_near(time.seconds, 10.4e-3 + 4 * 2e-3);
    assert_near(time.exposed, 4 * 0.8e-3);
    /* Units that lie in two pages are read in twice the time. */
    workload.neurons.read_bytes = 8192;
    assert_near(pi2_predict_pass(&workload, slow, &pi2_as_it_is, &one).read, 16e-3);
    workload.neurons.read_bytes = 4096;
    /* A reading thread without a processor of its own takes half of 0.4096 ms from the two that compute. */
    workload.cores = 2;
    time = pi2_predict_pass(&workload, fast, &pi2_as_it_is, &one);
    assert_near(time.seconds, 10.4e-3 + 4 * 1.4048e-3);
    workload.cores = 4;
    /* One read is waited for, where the last Gate rows ask for it. */
    workload.neurons.hits = 0.995; /* 1 of 200 in each layer */
    workload.neurons.fires = 0;
    time = pi2_predict_pass(&workload, fast, &pi2_as_it_is, &one);
    assert_near(time.seconds, 10.4e-3 + 4 * (1e-3 + 4096 / 409.6e6));
    workload = make_neurons();
    /* Two tokens use 1 - 0.8^2 of the units, half of which are read. */
    time = pi2_predict_pass(&workload, slow, &pi2_as_it_is, &two);
    assert_near(time.read, 1440 * 0.5 * 4096 / 204.8e6);
    /* A prompt streams the tiles of Up and Down, at 1 GB/s. */
    const pi2_workload_neurons *n = &workload.neurons;
    assert_true(pi2_predict_goes_by_neuron(n, workload.read_bytes, 1) &&
                !pi2_predict_goes_by_neuron(n, workload.read_bytes, 9));
    time = pi2_predict_pass(&workload, slow, &pi2_as_it_is, &nine);
    assert_near(time.read, 80e-3);
    free(slow);
    free(fast);
}

/* Single neurons are slower than whole matrices where that was measured, the fewer of a block's columns the more so. */
static void test_neuron_speeds(void **state) {
    (void)state;
    pi2_machine_profile *profile = make_neuron_profile(409.6e9);
    pi2_workload workload = make_neurons();
    const pi2_pass one = {1, 0, 0, false};
    workload.width = 4096;
    workload.layer_count = 0; /* no norms, whose width that is */
    workload.neurons.hits = 1;
    assert_near(pi2_predict_pass(&workload, profile, &pi2_as_it_is, &one).seconds, 15.2e-3);
    (void)pi2_profile_add(profile, PI2_MEASURED_ROWS, "Q8_0", 2, 0, 4096, 5e9, 0);
    (void)pi2_profile_add(profile, PI2_MEASURED_COLUMNS, "Q8_0", 2, 8, 4096, 1e9, 0);
    (void)pi2_profile_add(profile, PI2_MEASURED_COLUMNS, "Q8_0", 2, 128, 4096, 4e9, 0);
    /* A fifth of Up in 1.6 ms instead of 0.8. */
    const double share = (1.0 / 26 - 1.0 / 128) / (1.0 / 8 - 1.0 / 128); /* a tenth of 256, in whole neurons */
    const double column = 1 / 4e9 + share * (1 / 1e9 - 1 / 4e9);
    const double seconds = pi2_predict_pass(&workload, profile, &pi2_as_it_is, &one).seconds;
    assert_near(seconds, 10e-3 + 4e-3 + 1.6e-3 + 4e6 * column);
    /* A predictor's 40 MB at 8 GB/s, and Gate of a fifth, instead of all of Gate. */
    (void)pi2_profile_add(profile, PI2_MEASURED_PREDICTOR, "2-bit", 2, 0, 4096, 8e9, 0);
    workload.neurons.is_named = true;
    workload.neurons.predictor_type = "2-bit";
    workload.neurons.predictor_bytes = 40000000;
    workload.neurons.predictor_columns = 4096;
    assert_near(pi2_predict_pass(&workload, profile, &pi2_as_it_is, &one).seconds,
                seconds - 4e-3 + 5e-3 + 1.6e-3);
    /* Twice the computing: all of it in half the time. */
    const pi2_what_if twice = {1, 2, 2};
    assert_near(pi2_predict_pass(&workload, profile, &twice, &one).seconds, (seconds + 2.6e-3) / 2);
    free(profile);
}

/* The store is told of 4000 Gates, looks for 800 units, brings 400 of 4096 bytes and takes their checksums. */
static void test_store_of_neurons(void **state) {
    (void)state;
    static const struct { const char *name; double speed, more; } lines[] = {
        { "tell", 10e6, 0.4e-3 }, { "find", 2e6, 0.4e-3 }, { "bring", 0.5e6, 0.8e-3 }, { "check", 4.096e9, 0.4e-3 } };
    enum { LINES = sizeof lines / sizeof lines[0] };
    const pi2_pass one = {1, 0, 0, false};
    const pi2_what_if twice = {1, 1, 2};
    for (size_t i = 0; i < LINES; i++) {
        pi2_machine_profile *profile = make_neuron_profile(409.6e9);
        pi2_workload workload = make_neurons();
        workload.feed_forward = 1000;
        const double before = pi2_predict_pass(&workload, profile, &pi2_as_it_is, &one).seconds;
        const double before_twice = pi2_predict_pass(&workload, profile, &twice, &one).seconds;
        (void)pi2_profile_add(profile, PI2_MEASURED_STORE, lines[i].name, 2, 0, 0, lines[i].speed, 0);
        assert_near(pi2_predict_pass(&workload, profile, &pi2_as_it_is, &one).seconds, before + lines[i].more);
        assert_near(pi2_predict_pass(&workload, profile, &twice, &one).seconds, before_twice + lines[i].more / 2);
        /* Nothing tells of Gates where a predictor names who fires. */
        workload.neurons.is_named = true;
        const double named = pi2_predict_pass(&workload, profile, &pi2_as_it_is, &one).seconds;
        profile->count--;
        assert_near(named, pi2_predict_pass(&workload, profile, &pi2_as_it_is, &one).seconds +
                               (i == 0 ? 0 : lines[i].more));
        free(profile);
    }
}

/* What a cache holds is as fast as was measured there; what lies between, as far between as plain reading is. */
static void test_caches(void **state) {
    (void)state;
    pi2_machine_profile *profile = calloc(1, sizeof *profile);
    assert_non_null(profile);
    (void)pi2_profile_add(profile, PI2_MEASURED_MEMORY, NULL, 2, 8000000, 0, 40e9, 0);
    (void)pi2_profile_add(profile, PI2_MEASURED_MEMORY, NULL, 2, 64000000, 0, 20e9, 0);
    (void)pi2_profile_add(profile, PI2_MEASURED_MEMORY, NULL, 2, 512000000, 0, 10e9, 0);
    (void)pi2_profile_add(profile, PI2_MEASURED_DECODE, "Q8_0", 2, 8000000, 4096, 30e9, 0);
    (void)pi2_profile_add(profile, PI2_MEASURED_DECODE, "Q8_0", 2, 512000000, 4096, 12e9, 0);
    pi2_workload workload = {.part_count = 1, .read_method = "pread", .layer_count = 1, .threads = 2, .cores = 4};
    workload.parts[0] = (pi2_workload_weights){.type = "Q8_0", .columns = 4096, .bytes = 60000000, .weights = 56470588};
    const pi2_pass one = {1, 0, 0, false};
    const struct { uint64_t touched; double seconds; } cases[] = {
        {1, 2e-3}, {8000000, 2e-3}, {64000000, 3e-3}, {512000000, 5e-3}, {4000000000u, 5e-3},
        {0, 5e-3}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        workload.touched_bytes = cases[i].touched;
        assert_near(pi2_predict_pass(&workload, profile, &pi2_as_it_is, &one).seconds, cases[i].seconds);
    }
    free(profile);
}

static void test_neuron_prediction(void **state) {
    (void)state;
    pi2_machine_profile *slow = make_neuron_profile(204.8e6);
    pi2_workload workload = make_neurons();
    pi2_prediction prediction;
    pi2_predict(&workload, slow, &pi2_as_it_is, 64, 64, &prediction);
    assert_near(prediction.decode.tokens_per_second, 1 / 18.4e-3);
    assert_int_equal(prediction.bytes_per_token, 400 * 4096);
    assert_int_equal(prediction.resident_bytes, 140000000u + 2000 * 4096);
    assert_int_equal(prediction.neuron_units, 4000);
    assert_int_equal(prediction.neuron_slots, 2000);
    assert_near(prediction.neuron_hit_rate, 0.5);
    assert_near(prediction.neuron_share, 0.2);
    assert_near(prediction.neuron_reads, 400);
    /* The first of 16 tokens fills the slots: 8.192 MB at 1 GB/s. */
    workload.neurons.fill_tokens = 16;
    pi2_predict(&workload, slow, &pi2_as_it_is, 64, 64, &prediction);
    assert_near(prediction.decode.tokens_per_second, 1 / (18.4e-3 + 8.192e-3 / 16));
    /* A cold prompt of few tokens does that itself, and reads what else stays. */
    pi2_predict(&workload, slow, &pi2_as_it_is, 1, 1, &prediction);
    assert_near(prediction.time_to_first_token_ms, 18.4 + 140 + 8.192);
    workload.neurons.fill_tokens = 0;
    /* More memory goes to the neurons: with all of them a token takes 10.4 ms and 4.8 ms. */
    pi2_advice advice[PI2_ADVICE_MOST];
    const size_t count = pi2_predict_advice(&workload, slow, 64, 64, advice);
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        assert_null(strstr(advice[i].what, "weights"));
        if (strcmp(advice[i].what, "memory for all neurons (208.2 MB)") != 0) continue;
        assert_near(advice[i].tokens_per_second, 1 / 15.2e-3);
        found = true;
    }
    assert_true(found);
    assert_near(workload.neurons.hits, 0.5);
    free(slow);
}

static void test_expert_advice(void **state) {
    (void)state;
    pi2_machine_profile *profile = make_profile(1e9);
    pi2_advice advice[PI2_ADVICE_MOST];
    const pi2_workload workload = make_experts(64);
    const size_t count = pi2_predict_advice(&workload, profile, 64, 64, advice);
    bool twice = false;
    assert_non_null(strstr(advice[0].what, "memory for all weights"));
    for (size_t i = 0; i < count; i++) {
        if (!strstr(advice[i].what, "twice the memory")) continue;
        twice = true; /* 64 experts of 256 become 139 */
        assert_true(advice[i].factor > 1.5 && advice[i].factor < 1.8);
    }
    assert_true(twice);
    free(profile);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_limits), cmocka_unit_test(test_monotone),
                                       cmocka_unit_test(test_positions), cmocka_unit_test(test_windows),
                                       cmocka_unit_test(test_advice),
                                       cmocka_unit_test(test_experts), cmocka_unit_test(test_exposed),
                                       cmocka_unit_test(test_hiding_batch),
                                       cmocka_unit_test(test_neurons), cmocka_unit_test(test_neuron_speeds),
                                       cmocka_unit_test(test_store_of_neurons),
                                       cmocka_unit_test(test_caches),
                                       cmocka_unit_test(test_neuron_prediction), cmocka_unit_test(test_expert_advice),
                                       cmocka_unit_test(test_processor_time_of_reads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
