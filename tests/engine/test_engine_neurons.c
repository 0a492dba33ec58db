/*
 * Goal:   a model with exact zeros gives the same bits whether tokens are computed with the neurons that fire alone or
 *         with all of them: for every weight type and every activation that has zeros, with the least memory, more and
 *         enough, on one thread and several, by every read method and instruction set, in batches of one and more; of
 *         experts too, whose Gates may be in memory all or some; and damage to a neuron ends the run with its place.
 * Method: tiny random models in the neuron layout; each variation's logits, the scalar kernels' among them, against
 *         those of the plain GGUF file in memory, dense, on one thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "file_formats/cluster_file.h"
#include "machine/machine_profile.h"
#include "neuron_cache/cache_trace.h"
#include "powerinfer2/model_file.h"
#include "support/emulator.h"
#include "support/random_weights.h"
#include "support/sanitizer.h"
#include "support/session_run.h"
#include "support/small_budget.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"
#include "weight_formats/neuron_form.h"

/* ThreadSanitizer looks for races only, which hang on no weight type: every eighth variation is enough for it; for
 * AddressSanitizer, which is slow too, every fourth. */
enum { STRIDE = PI2_UNDER_TSAN ? 8 : PI2_UNDER_ASAN ? 4 : 1 };
enum { IS_SLOW = PI2_UNDER_TSAN || PI2_UNDER_EMULATOR, CONTEXT = 64 };
/* Models of a kind of which a release build tries more than one. */
enum { KINDS = PI2_UNDER_TSAN || PI2_UNDER_ASAN ? 1 : 2 };
/* Layers of a model whose neurons are to be more than what else is needed; where budgets are tried at all. */
enum { DEEP = PI2_UNDER_TSAN || PI2_UNDER_ASAN ? 4 : 16 };
enum { PROMPT = IS_SLOW ? 13 : 19, DECODED = IS_SLOW ? 3 : 4 };
/* Tries: an emulator's process grows while it translates, which takes from what is left for neurons. */
enum { PLENTY = 400000000, LEAST_STEP = 500000, STEPS = 200, TRIES = PI2_UNDER_EMULATOR ? 32 : 1 };

static char *model_path, *cluster_path;
static const char *record_trace, *routing_trace;
static const pi2_machine_profile *machine;

typedef struct variation {
    const char *cpu, *read_method, *neuron_cache;
    uint64_t more_bytes; /* than the process holds */
    uint32_t threads, batch;
    int turns; /* more than one */
    bool off, exact, dense; /* dense: off, from the cluster file */
    bool plain;             /* from the GGUF, not off */
} variation;

static pi2_status try_open(const variation *v, pi2_engine **engine_out) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = v->off || v->plain ? model_path : cluster_path;
    options.thread_count = v->threads;
    options.batch_tokens = v->batch;
    options.neuron_cache = v->neuron_cache;
    options.record_trace = record_trace;
    options.routing_trace = routing_trace;
    options.machine = machine;
    options.context_tokens = CONTEXT;
    options.read_method = v->read_method ? v->read_method : "auto";
    options.sparsity = v->off || v->dense ? "off" : v->exact ? "exact" : "always";
    pi2_session_run_cpu(v->cpu);
    return pi2_small_budget_open(&options, v->more_bytes, engine_out);
}

static pi2_engine *open_variation(const variation *v) {
    pi2_engine *engine;
    if (try_open(v, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    return engine;
}

static pi2_engine *open_by_neuron(variation v) {
    for (int i = 0; i < TRIES; i++, v.more_bytes += LEAST_STEP) {
        pi2_engine *engine = open_variation(&v);
        if (pi2_engine_get_report(engine)->neuron_bytes > 0) return engine;
        pi2_engine_close(engine);
    }
    fail_msg("with %llu bytes more all neurons are computed", (unsigned long long)v.more_bytes);
    return NULL;
}

static void write_model(const pi2_tiny_model_options *options) {
    (void)remove(cluster_path);
    assert_int_equal(pi2_tiny_model_write_apart(options, model_path), 0);
    const pi2_prepare_options prepare = { .model_path = model_path, .output_path = cluster_path,
                                          .layout = PI2_LAYOUT_NEURON, .memory_bytes = PI2_TEST_PREPARE_BYTES };
    if (pi2_prepare_file(&prepare, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
}

static bool is_enough(uint64_t more_bytes, void *is_part) {
    const variation v = { .more_bytes = more_bytes, .threads = 1, .batch = 16 };
    pi2_engine *engine;
    if (try_open(&v, &engine) != PI2_OK) return false;
    const pi2_engine_report *report = pi2_engine_get_report(engine);
    const bool by_neuron = report->neuron_bytes > 0;
    if (by_neuron) *(bool *)is_part = report->neuron_bytes < report->neuron_all_bytes;
    pi2_engine_close(engine);
    return by_neuron;
}

/* The least that is enough beside what the process holds for tokens to be computed by neuron; is_part: not for all. */
static uint64_t least_budget(bool *is_part) {
    /* A sanitizer's own memory moves budgets about; what leaves and comes again is tested by test_neuron_store too. */
    if (PI2_UNDER_ASAN || PI2_UNDER_TSAN || PI2_UNDER_EMULATOR) {
        if (PI2_UNDER_EMULATOR) print_message("budgets for a part of the neurons: left out, the process is qemu's\n");
        *is_part = false;
        return PLENTY;
    }
    const uint64_t least = pi2_small_budget_least(LEAST_STEP, STEPS, is_enough, is_part);
    if (least == 0) fail_msg("no budget is enough");
    return least + LEAST_STEP; /* what the process holds differs a little from run to run */
}

/* Runs the variation and compares; returns what it counted. */
static pi2_engine_counters compare(const pi2_session_run *want, const variation *v, size_t number) {
    pi2_session_run got;
    pi2_engine_counters counters;
    pi2_engine *engine = open_by_neuron(*v);
    for (int turn = 0; turn < v->turns; turn++) { /* a prompt after tokens that went by neuron */
        pi2_session_run_make(engine, PROMPT, DECODED, &got);
        pi2_session_run_compare(want, &got, number);
        pi2_session_run_free(&got);
    }
    pi2_session_run_make(engine, PROMPT, DECODED, &got);
    pi2_engine_count(engine, &counters);
    pi2_engine_close(engine);
    pi2_session_run_compare(want, &got, number);
    pi2_session_run_free(&got);
    if (counters.neuron_uses == 0 || counters.neuron_hits > counters.neuron_uses) {
        fail_msg("variation %zu: %llu uses, %llu hits", number, (unsigned long long)counters.neuron_uses,
                 (unsigned long long)counters.neuron_hits);
    }
    return counters;
}

static pi2_session_run dense_run(void) {
    const variation plain = { .more_bytes = PLENTY, .threads = 1, .batch = 64, .off = true };
    pi2_session_run run;
    pi2_engine *engine = open_variation(&plain);
    assert_int_equal(pi2_engine_get_report(engine)->neuron_bytes, 0);
    pi2_session_run_make(engine, PROMPT, DECODED, &run);
    pi2_engine_close(engine);
    return run;
}

static pi2_tiny_model_options sparse_model(void) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.layer_count = 4;
    options.feed_forward_length = 2816; /* not a whole number of segments, nor of units */
    options.ffn_activation = "relu";
    return options;
}

/* Budgets from the least on, in steps of `step`, threads, read methods, instruction sets and batches; of a second model
 * of a kind, whose numbers begin with 100, every other one. */
static void compare_variations(uint64_t step, bool has_experts, size_t first_number) {
    pi2_session_run want = dense_run(); /* first: what the process holds grows by it */
    bool is_part;
    const uint64_t least = least_budget(&is_part);
    assert_true(is_part || PI2_UNDER_ASAN || PI2_UNDER_TSAN || PI2_UNDER_EMULATOR);
    const variation variations[] = {
        { .more_bytes = least, .threads = 1, .batch = 16, .read_method = "pread" },
        { .more_bytes = least, .threads = 2, .batch = 16, .turns = 1 },
        { .more_bytes = least, .threads = 4, .batch = 1 },
        { .more_bytes = least + step, .threads = 2, .batch = 7 },
        { .more_bytes = least, .threads = 2, .batch = 16, .neuron_cache = "mix" },
        { .more_bytes = least, .threads = 3, .batch = 16, .neuron_cache = "heat" },
        { .more_bytes = least, .threads = 2, .batch = 16, .neuron_cache = "lru" },
        { .more_bytes = least + step, .threads = 2, .batch = 16, .neuron_cache = "off" },
        { .more_bytes = least + 2 * step, .threads = 3, .batch = 8, .read_method = "pread" },
        { .more_bytes = PLENTY, .threads = 1, .batch = 16 },
        { .more_bytes = PLENTY, .threads = 2, .batch = 1 },
        { .more_bytes = PLENTY, .threads = 2, .batch = 5, .cpu = "scalar" },
        { .more_bytes = PLENTY, .threads = 2, .batch = 3, .cpu = "avx2" },
    };
    const size_t step_of_list = first_number >= 100 ? 2 : STRIDE;
    for (size_t i = STRIDE > 1; i < sizeof variations / sizeof variations[0]; i += step_of_list) {
        const pi2_engine_counters counters = compare(&want, &variations[i], first_number + i);
        if (variations[i].more_bytes == PLENTY) assert_int_equal(counters.neuron_hits, counters.neuron_uses);
        if (i > 0 || !is_part) continue;
        assert_true(counters.neuron_hits < counters.neuron_uses);
        if (has_experts) assert_true(counters.expert_hits < counters.expert_uses); /* not all Gates are in memory */
    }
    pi2_session_run_free(&want);
}

static void every_budget_thread_method_and_batch(void **state) {
    (void)state;
    pi2_tiny_model_options options = sparse_model();
    options.layer_count = 10; /* more neurons than the stream buffer's memory holds */
    options.up_type = PI2_Q4_1;
    options.down_type = PI2_Q4_K;
    options.feed_forward_biases = true;
    write_model(&options);
    compare_variations(750000, false, 0);
}

/* Without Gate a neuron is its Down alone, and the matrix before it tells who fires. */
static void ungated_on_every_budget_thread_method_and_batch(void **state) {
    (void)state;
    static const char *const activations[] = { "relu", "relu_squared" };
    for (size_t a = 0; a < KINDS; a++) {
        pi2_tiny_model_options options = sparse_model();
        options.ungated = true;
        options.layer_count = DEEP;
        options.ffn_activation = activations[a];
        options.down_type = a ? PI2_Q4_K : PI2_Q4_0;
        options.feed_forward_biases = a == 0;
        write_model(&options);
        compare_variations(400000, false, 100 * a);
    }
}

/* The same beside attention, where what tells who fires was normed before attention. */
static void falcons_on_every_budget_thread_method_and_batch(void **state) {
    (void)state;
    for (int two = 0; two < KINDS; two++) {
        pi2_tiny_model_options options = sparse_model();
        options.architecture = "falcon";
        options.layer_count = DEEP;
        options.two_norms = two;
        options.head_count_kv = two ? 2 : 1;
        options.down_type = two ? PI2_F16 : PI2_Q4_0;
        write_model(&options);
        compare_variations(400000, false, 100 * (size_t)two);
    }
}

static void an_opt_on_every_budget_thread_method_and_batch(void **state) {
    (void)state;
    pi2_tiny_model_options options = sparse_model();
    options.architecture = "opt";
    options.head_count_kv = options.head_count;
    options.layer_count = 10;
    options.down_type = PI2_F16;
    options.ffn_activation = NULL;
    write_model(&options);
    compare_variations(400000, false, 0);
}

/* On a disk whose reads of 16 KB take as long as those of 4 KB, what lies between two neurons comes with them. */
static void gaps_are_read_where_that_is_cheaper(void **state) {
    (void)state;
    pi2_tiny_model_options options = sparse_model();
    options.layer_count = 10; /* more neurons than the stream buffer's memory holds */
    write_model(&options);
    bool is_part;
    const uint64_t least = least_budget(&is_part);
    if (!is_part) skip();
    pi2_machine_profile *profile = calloc(1, sizeof *profile);
    pi2_machine_disk disk;
    assert_int_equal(pi2_profile_place(cluster_path, &disk), PI2_OK);
    const uint32_t number = pi2_profile_add_disk(profile, &disk);
    for (uint64_t bytes = 4096; bytes <= 16384; bytes *= 2) {
        const double rate = 1e4 * (double)bytes;
        assert_true(pi2_profile_add(profile, PI2_MEASURED_SMALL_READ, "pread", bytes, 128, number, rate, 0));
    }
    pi2_session_run want = dense_run();
    const variation v = { .more_bytes = least, .threads = 2, .batch = 16, .read_method = "pread" };
    assert_int_equal(compare(&want, &v, 0).neuron_gap_bytes, 0);
    machine = profile;
    const pi2_engine_counters counters = compare(&want, &v, 1);
    machine = NULL;
    assert_true(counters.neuron_gap_bytes > 0 && counters.neuron_gap_bytes < counters.bytes_read);
    pi2_session_run_free(&want);
    free(profile);
}

/* Gate is computed as ever. */
static void check_weight_types(bool is_ungated) {
    size_t count;
    const pi2_weight_format *const *formats = test_formats_of_columns(&count);
    for (size_t i = 0; i < count; i += STRIDE) {
        pi2_tiny_model_options options = sparse_model();
        options.layer_count = 2;
        options.ungated = is_ungated;
        options.up_type = formats[is_ungated ? (i + 3) % count : i]->type;
        options.down_type = formats[i]->type;
        write_model(&options);
        pi2_session_run want = dense_run();
        bool is_part;
        const uint64_t least = least_budget(&is_part);
        const pi2_engine_counters counters =
            compare(&want, &(variation){ .more_bytes = least, .threads = 2, .batch = 16 }, i);
        /* Its prompt leaves neurons behind, where Up and Down can be taken out of its tiles. */
        assert_int_equal(counters.neurons_kept > 0, pi2_neuron_comes_of_tiles(formats[i]));
        (void)compare(&want, &(variation){ .more_bytes = PLENTY, .threads = 2, .batch = 4 }, 100 + i);
        const variation scalar = { .more_bytes = PLENTY, .threads = 1, .batch = 4, .cpu = "scalar" };
        if (i % 3 == 0) (void)compare(&want, &scalar, 200 + i);
        pi2_session_run_free(&want);
    }
}

static void every_weight_type(void **state) {
    (void)state;
    check_weight_types(false);
}

static void every_weight_type_without_gate(void **state) {
    (void)state;
    check_weight_types(true);
}

static void every_activation_with_zeros(void **state) {
    (void)state;
    static const char *const activations[] = { "relu", "relu_squared", "drelu" };
    for (size_t i = 0; i < 3; i++) {
        pi2_tiny_model_options options = sparse_model();
        options.ffn_activation = activations[i];
        options.down_type = PI2_Q6_K;
        write_model(&options);
        pi2_session_run want = dense_run();
        bool is_part;
        const uint64_t least = least_budget(&is_part);
        (void)compare(&want, &(variation){ .more_bytes = least, .threads = 2, .batch = 6 }, i);
        pi2_session_run_free(&want);
    }
}

/* Two clusters an expert, so that Gates arrive in parts; segments and units that are not whole. */
static pi2_tiny_model_options expert_model(const char *architecture) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.architecture = architecture;
    options.layer_count = 3;
    options.embedding_length = 1024;
    options.head_dimension = 64;
    options.feed_forward_length = options.expert_feed_forward_length = 768;
    options.expert_count = 10;
    options.expert_used_count = 3;
    if (strcmp(architecture, "smallthinker") == 0) options.expert_gating = 2;
    if (strcmp(architecture, "qwen3moe") == 0) options.head_norms = true;
    if (strcmp(architecture, "smallthinker") != 0) options.ffn_activation = "relu";
    return options;
}

static void experts_on_every_budget_thread_method_and_batch(void **state) {
    (void)state;
    static const char *const architectures[] = { "smallthinker", "qwen3moe" };
    for (size_t a = 0; a < KINDS; a++) {
        pi2_tiny_model_options options = expert_model(architectures[a]);
        options.down_type = PI2_Q4_K;
        write_model(&options);
        compare_variations(4000000, true, 100 * a);
    }
}

/* Where all Gates fit and neurons do not, a token reads nothing but neurons: of experts that it was not told of before
 * too. */
static void gates_that_fit_are_read_once(void **state) {
    (void)state;
    const pi2_tiny_model_options options = expert_model("smallthinker");
    write_model(&options);
    bool is_part;
    const uint64_t least = least_budget(&is_part);
    if (!is_part) skip();
    for (uint64_t more = least; more < least + STEPS * LEAST_STEP; more += LEAST_STEP) {
        pi2_engine *engine = open_variation(&(variation){ .more_bytes = more, .threads = 2, .batch = 1 });
        const pi2_engine_report *report = pi2_engine_get_report(engine);
        if (report->neuron_bytes == 0 || report->gate_slots < options.layer_count * options.expert_count) {
            pi2_engine_close(engine);
            continue;
        }
        assert_true(report->gate_bytes > 0 && report->gate_bytes + report->neuron_bytes < report->weight_bytes);
        assert_true(report->expert_slots >= options.expert_used_count);
        pi2_session_run run;
        pi2_engine_counters counters;
        pi2_session_run_make(engine, 29, 6, &run);
        pi2_engine_count(engine, &counters);
        assert_true(counters.expert_uses - counters.expert_hits <= options.layer_count * options.expert_count);
        pi2_session_run_free(&run);
        pi2_engine_close(engine);
        return;
    }
    fail_msg("no budget holds all Gates and a part of the neurons");
}

/* Small experts of which many neurons fire are read whole unless asked otherwise, and the text is the same. */
static void experts_that_are_faster_whole_stay_so(void **state) {
    (void)state;
    const pi2_tiny_model_options options = expert_model("qwen3moe");
    write_model(&options);
    bool is_part;
    const uint64_t least = least_budget(&is_part);
    if (!is_part) skip();
    pi2_session_run want = dense_run(), got;
    pi2_engine *always = open_variation(&(variation){ .more_bytes = least, .threads = 2, .batch = 16 });
    assert_true(pi2_engine_get_report(always)->neuron_bytes > 0);
    pi2_engine_close(always);
    pi2_engine *exact = open_variation(&(variation){ .more_bytes = least, .threads = 2, .batch = 16, .exact = true });
    assert_int_equal(pi2_engine_get_report(exact)->neuron_bytes, 0);
    pi2_session_run_make(exact, PROMPT, DECODED, &got);
    pi2_engine_close(exact);
    pi2_session_run_compare(&want, &got, 0);
    pi2_session_run_free(&want);
    pi2_session_run_free(&got);
}

static bool goes_by_neuron(const variation *v) {
    pi2_engine *engine = open_variation(v);
    const bool by_neuron = pi2_engine_get_report(engine)->neuron_bytes > 0;
    pi2_engine_close(engine);
    return by_neuron;
}

static void experts_of_every_weight_type(void **state) {
    (void)state;
    size_t count, parts = 0;
    const pi2_weight_format *const *formats = test_formats_of_columns(&count);
    const size_t step = IS_SLOW || PI2_UNDER_ASAN ? 3 : 1; /* all would take minutes */
    for (size_t i = 0; i < count; i += step) {
        pi2_tiny_model_options options = expert_model("smallthinker");
        options.layer_count = 3;
        options.embedding_length = 256;
        options.expert_count = 8;
        options.gate_type = options.up_type = options.down_type = formats[i]->type;
        write_model(&options);
        pi2_session_run want = dense_run();
        bool is_part;
        /* Of the smallest types little more than what is enough holds whole experts, and tokens are dense. */
        const variation least = { .more_bytes = least_budget(&is_part), .threads = 2, .batch = 16 };
        if (goes_by_neuron(&least)) {
            (void)compare(&want, &least, i);
            parts += is_part;
        }
        (void)compare(&want, &(variation){ .more_bytes = PLENTY, .threads = 2, .batch = 4 }, 100 + i);
        pi2_session_run_free(&want);
    }
    assert_true(parts >= 3 || PI2_UNDER_ASAN || PI2_UNDER_TSAN || PI2_UNDER_EMULATOR);
}

/* Gate's cutoff is known when all of a token's Gate is there: by neuron and dense, in memory and streamed, whatever
 * computes it. One layer has none, and is computed whole. */
static void a_cutoff_for_gate(void **state) {
    (void)state;
    static const float sparsity[] = { 0.95f, 0.0f, 0.7f, 0.9f, 0.6f, 0.8f, 0.95f, 0.5f,
                                      0.9f, 0.0f, 0.2f, 0.9f, 0.7f, 0.8f, 0.9f, 0.9f };
    pi2_tiny_model_options options = sparse_model();
    options.ffn_activation = "gelu_topk";
    options.layer_count = DEEP; /* what streams has room for a whole layer */
    options.gate_sparsity = sparsity;
    options.gate_values = options.layer_count;
    options.feed_forward_biases = true;
    options.down_type = PI2_Q4_K;
    write_model(&options);
    compare_variations(750000, false, 0);
    pi2_session_run want = dense_run();
    bool is_part;
    const uint64_t least = least_budget(&is_part);
    const variation streamed[] = { { .more_bytes = least, .threads = 1, .batch = 70, .dense = true },
                                   { .more_bytes = least, .threads = 3, .batch = 5, .dense = true, .cpu = "avx2" } };
    for (size_t i = 0; i < 2; i++) {
        pi2_session_run got;
        pi2_engine *engine = open_variation(&streamed[i]);
        assert_true(!is_part || pi2_engine_get_report(engine)->stream_buffer_bytes > 0);
        pi2_session_run_make(engine, PROMPT, DECODED, &got);
        pi2_engine_close(engine);
        pi2_session_run_compare(&want, &got, 100 + i);
        pi2_session_run_free(&got);
    }
    pi2_session_run_free(&want);
}

static void others_stay_dense(void **state) {
    (void)state;
    pi2_tiny_model_options options = sparse_model();
    options.ffn_activation = "gelu";
    write_model(&options);
    pi2_engine *engine = open_variation(&(variation){ .more_bytes = PLENTY, .threads = 1 });
    assert_int_equal(pi2_engine_get_report(engine)->neuron_bytes, 0);
    pi2_engine_close(engine);
    pi2_engine_options wrong;
    pi2_engine_options_init(&wrong);
    wrong.model_path = model_path;
    wrong.memory_bytes = PLENTY;
    wrong.sparsity = "much";
    assert_int_equal(pi2_engine_open(&wrong, &engine), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "exact, always, off"));
}

/* Flips a bit of a neuron's bundle of a bank, in a file that was made right. */
static void damage_bank(uint32_t number, uint32_t bank_count) {
    pi2_gguf *gguf;
    pi2_extent_layout *layout;
    pi2_source_identity source;
    pi2_neuron_banks *banks;
    assert_int_equal(pi2_gguf_open(cluster_path, &gguf), PI2_OK);
    assert_int_equal(pi2_cluster_file_layout(gguf, &layout, &source), PI2_OK);
    assert_int_equal(pi2_cluster_file_banks(gguf, layout, &banks), PI2_OK);
    assert_int_equal(banks->count, bank_count);
    const uint64_t at = banks->banks[number].file_offset + 3;
    size_t size;
    uint8_t *bytes = test_file_read(cluster_path, &size);
    bytes[at] ^= 1;
    test_file_write(cluster_path, bytes, size);
    free(bytes);
    pi2_neuron_banks_free(banks);
    pi2_extent_layout_free(layout);
    pi2_gguf_close(gguf);
}

/* The first pass that needs a damaged neuron says whose it is. */
static void damage_ends_the_run_with_its_place(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        const bool experts = i == 1;
        pi2_tiny_model_options options = experts ? expert_model("smallthinker") : sparse_model();
        options.ungated = i == 2;
        write_model(&options);
        const uint32_t each = experts ? options.expert_count : 1;
        damage_bank(2 * each + each / 2, options.layer_count * each);
        pi2_engine *engine = open_variation(&(variation){ .more_bytes = PLENTY, .threads = 2, .batch = 16 });
        pi2_session *session;
        assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
        const int32_t token = 5;
        assert_int_equal(pi2_session_append(session, &token, 1, PI2_LOGITS_LAST), PI2_ERR_FORMAT);
        assert_non_null(strstr(pi2_error_text(), experts ? "layer 2, expert 5 (" : "layer 2 ("));
        pi2_session_free(session);
        pi2_engine_close(engine);
    }
}

/* A weight of one expert is so small that no zero may be left out beside it: that expert has no bank, and its layer is
 * computed whole while the others go by neuron. */
static void a_layer_without_all_banks_is_computed_whole(void **state) {
    (void)state;
    pi2_tiny_model_options options = expert_model("smallthinker");
    options.down_type = PI2_F32;
    options.embedding_length = 256;
    assert_int_equal(pi2_tiny_model_write_apart(&options, model_path), 0);
    pi2_gguf *gguf;
    assert_int_equal(pi2_gguf_open(model_path, &gguf), PI2_OK);
    const pi2_gguf_tensor *tensor = pi2_gguf_tensor_find(gguf, "blk.1.ffn_down_exps.weight");
    assert_non_null(tensor);
    const uint64_t expert = 4, at = tensor->file_offset + expert * (tensor->bytes / options.expert_count) + 400;
    pi2_gguf_close(gguf);
    size_t size;
    uint8_t *bytes = test_file_read(model_path, &size);
    memcpy(bytes + at, &(float){ 1e-20f }, sizeof(float));
    test_file_write(model_path, bytes, size);
    free(bytes);
    (void)remove(cluster_path);
    const pi2_prepare_options prepare = { .model_path = model_path, .output_path = cluster_path,
                                          .layout = PI2_LAYOUT_NEURON, .memory_bytes = PI2_TEST_PREPARE_BYTES };
    if (pi2_prepare_file(&prepare, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
    pi2_session_run want = dense_run();
    bool is_part;
    const uint64_t budgets[] = { least_budget(&is_part), PLENTY };
    for (size_t i = 0; i < 2; i++) {
        (void)compare(&want, &(variation){ .more_bytes = budgets[i], .threads = 2, .batch = 16 }, i);
        (void)compare(&want, &(variation){ .more_bytes = budgets[i], .threads = 3, .batch = 5 }, 10 + i);
    }
    pi2_session_run_free(&want);
}

/* The visits of experts that a run records are the same, whatever of them is asked for. */
static void recorded_visits_are_those_of_whole_experts(void **state) {
    (void)state;
    const pi2_tiny_model_options options = expert_model("smallthinker");
    write_model(&options);
    bool is_part;
    const uint64_t least = least_budget(&is_part);
    char *paths[2] = { test_path(test_folder, "whole.trace"), test_path(test_folder, "gates.trace") };
    pi2_trace traces[2];
    for (int i = 0; i < 2; i++) {
        pi2_session_run run;
        record_trace = paths[i];
        const variation v = { .more_bytes = least, .threads = 2, .batch = 16, .off = i == 0 };
        pi2_engine *engine = open_variation(&v);
        assert_int_equal(pi2_engine_get_report(engine)->neuron_bytes > 0, i == 1);
        pi2_session_run_make(engine, PROMPT, DECODED, &run);
        pi2_engine_close(engine);
        pi2_session_run_free(&run);
        record_trace = NULL;
        if (pi2_trace_read(paths[i], &traces[i]) != PI2_OK) fail_msg("%s", pi2_error_text());
        free(paths[i]);
    }
    assert_int_equal(traces[0].key_count, traces[1].key_count);
    assert_int_equal(traces[0].pass_count, traces[1].pass_count);
    assert_memory_equal(traces[0].keys, traces[1].keys, traces[0].key_count * sizeof *traces[0].keys);
    for (int i = 0; i < 2; i++) pi2_trace_free(&traces[i]);
}

/* The units that a run records are those whose neurons fire, whatever is in memory and whoever computes; a pass of all
 * neurons has none. An engine with experts refuses such a trace as their routing. */
static void recorded_units_are_those_that_fire(void **state) {
    (void)state;
    const pi2_tiny_model_options options = sparse_model();
    write_model(&options);
    bool is_part;
    const uint64_t least = least_budget(&is_part);
    const variation variations[] = { { .more_bytes = least, .threads = 1, .batch = 16 },
                                     { .more_bytes = least, .threads = 3, .batch = 16, .read_method = "pread" },
                                     { .more_bytes = PLENTY, .threads = 2, .batch = 16 } };
    enum { VARIATIONS = sizeof variations / sizeof variations[0] };
    char *path = test_path(test_folder, "units.trace");
    pi2_trace traces[VARIATIONS];
    record_trace = path;
    for (size_t i = 0; i < VARIATIONS; i++) {
        pi2_session_run run;
        pi2_engine_counters counters;
        pi2_engine *engine = open_by_neuron(variations[i]);
        pi2_session_run_make(engine, PROMPT, DECODED, &run);
        pi2_engine_count(engine, &counters);
        pi2_engine_close(engine);
        pi2_session_run_free(&run);
        if (pi2_trace_read(path, &traces[i]) != PI2_OK) fail_msg("%s", pi2_error_text());
        assert_int_equal(traces[i].header.layer_count, options.layer_count);
        assert_int_equal(traces[i].header.used_count, 0);
        const uint64_t in_a_unit = (options.feed_forward_length + traces[i].header.expert_count - 1) /
                                   traces[i].header.expert_count;
        assert_true(traces[i].key_count <= counters.neuron_uses);
        assert_true(traces[i].key_count * in_a_unit >= counters.neuron_uses);
        assert_true(traces[i].token_count > traces[i].demand_count / options.layer_count); /* the prompt's, too */
        assert_int_equal(traces[i].key_count, traces[0].key_count);
        assert_int_equal(traces[i].token_count, traces[0].token_count);
        assert_non_null(traces[i].near_of);
        for (uint32_t d = 0; d < traces[i].demand_count; d++) {
            assert_int_equal(traces[i].near_of[d].count, traces[i].header.expert_count);
            for (uint32_t k = traces[i].demands[d].begin; k < traces[i].demands[d + 1].begin; k++) {
                const uint32_t unit = traces[i].keys[k] % traces[i].header.expert_count;
                assert_true(traces[i].near[traces[i].near_of[d].begin + unit] > 0); /* its Gates were told */
            }
        }
        assert_memory_equal(traces[i].keys, traces[0].keys, traces[0].key_count * sizeof *traces[0].keys);
    }
    assert_true(traces[0].demand_count >= DECODED);
    for (size_t i = 0; i < VARIATIONS; i++) pi2_trace_free(&traces[i]);
    pi2_engine *engine;
    const variation dense = { .more_bytes = PLENTY, .threads = 2, .batch = 16, .dense = true };
    assert_int_equal(try_open(&dense, &engine), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "sparsity off"));
    (void)remove(cluster_path);
    const variation plain = { .more_bytes = PLENTY, .threads = 2, .batch = 16, .plain = true };
    assert_int_equal(try_open(&plain, &engine), PI2_ERR_INVALID); /* it fits: no file of the neuron layout is made */
    assert_non_null(strstr(pi2_error_text(), "every token uses all neurons"));
    record_trace = NULL;
    const pi2_tiny_model_options experts = expert_model("smallthinker");
    write_model(&experts);
    routing_trace = path;
    assert_int_equal(try_open(&dense, &engine), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "another kind of model"));
    routing_trace = NULL;
    const variation unknown = { .more_bytes = PLENTY, .threads = 2, .batch = 16, .neuron_cache = "fifo" };
    assert_int_equal(try_open(&unknown, &engine), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "auto, off, gate, mix, heat, lru"));
    free(path);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    model_path = test_folder_path("sparse.gguf");
    cluster_path = test_folder_path("sparse.pi2");
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_budget_thread_method_and_batch), cmocka_unit_test(every_weight_type),
        cmocka_unit_test(ungated_on_every_budget_thread_method_and_batch),
        cmocka_unit_test(falcons_on_every_budget_thread_method_and_batch),
        cmocka_unit_test(an_opt_on_every_budget_thread_method_and_batch),
        cmocka_unit_test(every_weight_type_without_gate),
        cmocka_unit_test(gaps_are_read_where_that_is_cheaper),
        cmocka_unit_test(every_activation_with_zeros),          cmocka_unit_test(a_cutoff_for_gate),
        cmocka_unit_test(others_stay_dense),
        cmocka_unit_test(experts_on_every_budget_thread_method_and_batch),
        cmocka_unit_test(gates_that_fit_are_read_once), cmocka_unit_test(experts_that_are_faster_whole_stay_so),
        cmocka_unit_test(experts_of_every_weight_type),
        cmocka_unit_test(damage_ends_the_run_with_its_place),
        cmocka_unit_test(a_layer_without_all_banks_is_computed_whole),
        cmocka_unit_test(recorded_visits_are_those_of_whole_experts),
        cmocka_unit_test(recorded_units_are_those_that_fire),
    };
    const struct CMUnitTest races[] = { /* which take minutes there: what has threads of its own */
        cmocka_unit_test(every_budget_thread_method_and_batch),
        cmocka_unit_test(a_cutoff_for_gate),
        cmocka_unit_test(experts_on_every_budget_thread_method_and_batch),
        cmocka_unit_test(damage_ends_the_run_with_its_place),
    };
    if (PI2_UNDER_TSAN) return cmocka_run_group_tests_name("engine by neuron", races, set_up, test_folder_end);
    return cmocka_run_group_tests_name("engine by neuron", tests, set_up, test_folder_end);
}
