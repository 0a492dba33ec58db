/* Goal:   neurons lie in units as the rule says; a bank of any type gives back Up and Down bit for bit in any order;
 *         hot neurons come first; layers with infinite weights have none; a table that was altered is refused.
 * Method: made-up shapes against the rule, counted anew; tiny models of every type, prepared with random statistics and
 *         read back; one weight made infinite; fields of a good header changed under a right checksum. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <xxhash.h>

#include "architectures/model.h"
#include "base/little_endian.h"
#include "clusters/neuron_bank_verify.h"
#include "clusters/neuron_order.h"
#include "clusters/prepare.h"
#include "file_formats/cluster_file.h"
#include "support/model_layout.h"
#include "support/random_weights.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"
#include "weight_formats/neuron_form.h"

static char *model_path, *output_path;

static int set_up(void **state) {
    (void)test_folder_begin_in_memory(state);
    model_path = test_folder_path("tiny.gguf");
    output_path = test_folder_path("tiny.pi2");
    return 0;
}

/* ---- units ---- */

static pi2_gguf_tensor tensor_of(const char *name, uint32_t type, uint64_t columns, uint64_t rows, uint64_t matrices) {
    return (pi2_gguf_tensor){ .name = name, .type = type, .dimension_count = matrices > 1 ? 3 : 2,
                              .dimensions = { columns, rows, matrices, 1 } };
}

static pi2_extent_layout *lay_out(const pi2_gguf_tensor tensors[3], uint32_t tensor_count, uint32_t experts) {
    pi2_group_request requests[8];
    pi2_extent_layout *layout;
    for (uint32_t e = 0; e < experts; e++) {
        requests[e] = (pi2_group_request){ experts > 1 ? PI2_GROUP_EXPERT : PI2_GROUP_FFN, 5,
                                           experts > 1 ? e : UINT32_MAX, experts, tensor_count,
                                           { &tensors[0], &tensors[1], &tensors[2] }, { 0 } };
    }
    if (pi2_extent_layout_build(requests, experts, PI2_LAYOUT_NEURON, &layout)) fail_msg("%s", pi2_error_text());
    return layout;
}

static pi2_neuron_banks *plan(const pi2_gguf_tensor tensors[3], uint32_t tensor_count, uint32_t experts) {
    pi2_extent_layout *layout = lay_out(tensors, tensor_count, experts);
    pi2_neuron_banks *banks;
    if (pi2_neuron_banks_plan(layout, false, &banks)) fail_msg("%s", pi2_error_text());
    pi2_extent_layout_free(layout);
    return banks;
}

static void check_unit(const pi2_neuron_bank *bank) {
    const uint64_t bundle = bank->bundle_bytes, count = bank->unit_neurons, unit = bank->unit_bytes;
    const uint64_t whole = (bundle + 4095) / 4096 * 4096;
    if (bundle <= 4096) {
        assert_int_equal(unit, 4096);
        assert_true(count * bundle <= 4096 && (count + 1) * bundle > 4096);
        return;
    }
    assert_int_equal(count, 1);
    assert_int_equal(unit, (whole - bundle) * 16 > bundle ? bundle : whole);
    assert_int_equal(pi2_neuron_bank_is_fine(bank), unit % 4096 != 0);
}

static void check_parts(const pi2_neuron_bank *bank) {
    const uint64_t parts[] = { bank->order_at, bank->checksums_at, bank->up_scales_at, bank->down_scales_at,
                               bank->head_bytes };
    const uint64_t blocks = bank->neuron_count / bank->down_format->block_columns;
    const uint64_t bytes[] = { bank->neuron_count * 4ull, bank->unit_count * 4ull,
                               (uint64_t)bank->neuron_count * bank->up_scale_bytes, blocks * bank->down_scale_bytes };
    assert_int_equal(parts[0], 0);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(parts[i + 1] % 64, 0);
        assert_true(parts[i + 1] >= parts[i] + bytes[i] && parts[i + 1] - parts[i] - bytes[i] < 64);
    }
    assert_int_equal(bank->down_offset % 64, 0);
    assert_int_equal(bank->bundle_bytes % 64, 0);
    assert_true(bank->down_offset >= pi2_neuron_row_value_bytes(bank->up_format, bank->width));
    assert_true(bank->bundle_bytes - bank->down_offset >=
                pi2_neuron_column_value_bytes(bank->down_format, bank->width));
    assert_true((uint64_t)bank->unit_count * bank->unit_neurons >= bank->neuron_count);
    assert_true((bank->unit_count - 1ull) * bank->unit_neurons < bank->neuron_count);
}

static void test_units_of_many_widths(void **state) {
    (void)state;
    size_t format_count;
    const pi2_weight_format *const *formats = test_formats_of_columns(&format_count);
    unsigned fine = 0;
    for (size_t f = 0; f < format_count; f++) {
        for (uint64_t width = 256; width <= 16384; width += 256) {
            const uint32_t type = (uint32_t)formats[f]->type;
            const pi2_gguf_tensor tensors[] = { tensor_of("gate", type, width, 768, 1),
                                                tensor_of("up", type, width, 768, 1),
                                                tensor_of("down", type, 768, width, 1) };
            pi2_neuron_banks *banks = plan(tensors, 3, 1);
            assert_int_equal(banks->count, 1);
            check_unit(&banks->banks[0]);
            check_parts(&banks->banks[0]);
            fine += pi2_neuron_bank_is_fine(&banks->banks[0]);
            pi2_neuron_banks_free(banks);
        }
    }
    assert_true(fine > 10);
}

static void test_each_expert_has_a_bank(void **state) {
    (void)state;
    const pi2_gguf_tensor tensors[] = { tensor_of("gate", PI2_Q4_K, 512, 256, 3),
                                        tensor_of("up", PI2_Q4_0, 512, 256, 3),
                                        tensor_of("down", PI2_Q6_K, 256, 512, 3) };
    pi2_neuron_banks *banks = plan(tensors, 3, 3);
    assert_int_equal(banks->count, 3);
    for (uint32_t e = 0; e < 3; e++) {
        const pi2_neuron_bank *bank = &banks->banks[e];
        assert_true(bank->layer == 5 && bank->expert == e && bank->neuron_count == 256 && bank->width == 512);
        assert_true(bank->up_format->type == PI2_Q4_0 && bank->down_format->type == PI2_Q6_K);
    }
    pi2_neuron_banks_free(banks);
}

/* What stands before Down is Gate, and not in the bank. */
static void test_without_gate_a_bundle_is_down_alone(void **state) {
    (void)state;
    const pi2_gguf_tensor tensors[3] = { tensor_of("up", PI2_Q4_K, 512, 256, 1),
                                         tensor_of("down", PI2_Q4_0, 256, 512, 1) };
    pi2_neuron_banks *banks = plan(tensors, 2, 1);
    const pi2_neuron_bank *bank = &banks->banks[0];
    assert_int_equal(banks->count, 1);
    assert_true(bank->neuron_count == 256 && bank->width == 512 && bank->expert == UINT32_MAX);
    assert_true(bank->up_tensor == PI2_NO_UP && bank->up_format == NULL && bank->down_format->type == PI2_Q4_0);
    assert_true(bank->down_offset == 0 && bank->bundle_bytes == 256 && bank->unit_neurons == 16);
    assert_true(bank->up_scale_bytes == 0 && bank->up_scales_at == bank->down_scales_at);
    check_unit(bank);
    pi2_neuron_banks_free(banks);
}

/* Mixtral's FFNs, which are nearly all of its weights: what is held for each neuron, extent and bank, beside weights
 * and scales. Units are addressed by formula; were each listed like an extent, this would be several hundred MB. */
static void test_metadata_of_a_47b_by_neuron(void **state) {
    (void)state;
    enum { LAYERS = 32, EXPERTS = 8, NEURONS = 14336, WIDTH = 4096 };
    const pi2_gguf_tensor tensors[] = { tensor_of("gate", PI2_Q4_0, WIDTH, NEURONS, EXPERTS),
                                        tensor_of("up", PI2_Q4_0, WIDTH, NEURONS, EXPERTS),
                                        tensor_of("down", PI2_Q4_0, NEURONS, WIDTH, EXPERTS) };
    pi2_extent_layout *layout = lay_out(tensors, 3, EXPERTS);
    pi2_neuron_banks *banks = plan(tensors, 3, EXPERTS);
    const size_t shapes = banks->count * sizeof *banks->banks;
    const size_t extents = layout->extent_count * sizeof *layout->extents +
                           layout->piece_count * (sizeof *layout->pieces + sizeof(pi2_piece_ref));
    size_t orders = 0; /* of neurons, and the checksums of their units */
    assert_int_equal(banks->count, EXPERTS);
    for (uint32_t b = 0; b < banks->count; b++) orders += (size_t)banks->banks[b].up_scales_at;
    print_message("%d neurons: %.2f MB of orders and checksums, %.2f of extents, %.2f of banks\n",
                  LAYERS * EXPERTS * NEURONS, 1e-6 * LAYERS * (double)orders, 1e-6 * LAYERS * (double)extents,
                  1e-6 * LAYERS * (double)shapes);
    assert_true(LAYERS * (orders + extents + shapes) < 40000000);
    pi2_neuron_banks_free(banks);
    pi2_extent_layout_free(layout);
}

/* ---- order ---- */

/* Cold neurons of eight kinds, mixed, of which those of a kind fire in the same tokens, but for a few: the kinds lie
 * together, whatever the places of the samples; without enough of those, as for an estimate, they lie by counts. */
static void test_cold_neurons_lie_by_company(void **state) {
    (void)state;
    enum { NEURONS = 200, KINDS = 8, SAMPLES = 128, WORDS = PI2_STATISTICS_SAMPLED_COLUMNS };
    const pi2_statistics_entry entry = { 0, UINT32_MAX, NEURONS, 100000, 0 };
    const uint32_t columns[1 + WORDS] = { PI2_STATISTICS_FIRED, 16, 17, 18, 19, 20, 21, 22, 23 };
    const pi2_neuron_bank bank = { .layer = 0, .expert = UINT32_MAX, .neuron_count = NEURONS };
    uint32_t order[NEURONS], estimate[NEURONS], kind_of[NEURONS];
    uint64_t random = 3;
    pi2_neuron_statistics statistics;
    assert_int_equal(pi2_neuron_statistics_make(&entry, 1, columns, 1 + WORDS, &statistics), PI2_OK);
    statistics.sample_count = SAMPLES;
    for (uint32_t n = 0; n < NEURONS; n++) {
        const uint32_t kind = kind_of[n] = (uint32_t)(pi2_tiny_random(&random) % KINDS);
        statistics.columns[0][n] = n % 20 == 7 ? 90000 : 100 + (uint32_t)(pi2_tiny_random(&random) % 50);
        for (uint32_t s = 0; s < SAMPLES; s++) {
            const bool is_odd = pi2_tiny_random(&random) % 40 == 0;
            if ((s / 3 % KINDS == kind) != is_odd) statistics.columns[1 + s / 32][n] |= UINT32_C(1) << s % 32;
        }
    }
    assert_int_equal(pi2_neuron_order_make(&statistics, &bank, order), PI2_OK);
    assert_int_equal(pi2_neuron_order_estimate(&statistics, &bank, estimate), PI2_OK);
    uint32_t changes = 0, seen[NEURONS] = { 0 };
    const uint32_t hot = 9; /* of ten that fire 90000 times: four fifths of all firings, the others' included */
    assert_memory_equal(order, estimate, hot * sizeof *order);
    for (uint32_t i = 0; i < NEURONS; i++) seen[order[i]]++;
    for (uint32_t i = 0; i < NEURONS; i++) assert_int_equal(seen[i], 1);
    for (uint32_t i = hot + 1; i < NEURONS; i++) {
        changes += kind_of[order[i - 1]] != kind_of[order[i]];
        assert_true(statistics.columns[0][estimate[i - 1]] >= statistics.columns[0][estimate[i]]);
    }
    assert_true(changes < 2 * KINDS); /* mixed, there are about 166 */
    statistics.sample_count = 63;
    assert_int_equal(pi2_neuron_order_make(&statistics, &bank, order), PI2_OK);
    assert_memory_equal(order, estimate, sizeof order);
    pi2_neuron_statistics_free(&statistics);
}

static void test_hot_neurons_come_first(void **state) {
    (void)state;
    enum { NEURONS = 10 };
    const pi2_statistics_entry entry = { 5, UINT32_MAX, NEURONS, 100, 0 };
    const uint32_t columns[] = { PI2_STATISTICS_FIRED };
    /* Of equal ones the lower number. */
    const uint32_t fired[NEURONS] = { 2, 30, 0, 70, 4, 30, 7, 50, 6, 1 };
    const uint32_t wanted[NEURONS] = { 3, 7, 1, 5, 6, 8, 4, 0, 9, 2 };
    const pi2_neuron_bank bank = { .layer = 5, .expert = UINT32_MAX, .neuron_count = NEURONS };
    const pi2_neuron_banks banks = { .banks = (pi2_neuron_bank *)&bank, .count = 1 };
    uint32_t order[NEURONS];
    pi2_neuron_statistics statistics;
    assert_int_equal(pi2_neuron_statistics_make(&entry, 1, columns, 1, &statistics), PI2_OK);
    statistics.model_hash = 77;
    assert_int_equal(pi2_neuron_order_make(&statistics, &bank, order), PI2_OK); /* nothing fired */
    for (uint32_t i = 0; i < NEURONS; i++) assert_int_equal(order[i], i);
    memcpy(statistics.columns[0], fired, sizeof fired);
    assert_int_equal(pi2_neuron_order_make(&statistics, &bank, order), PI2_OK);
    assert_memory_equal(order, wanted, sizeof wanted);
    assert_int_equal(pi2_neuron_order_check(&statistics, "counts", 77, &banks), PI2_OK);
    assert_int_equal(pi2_neuron_order_check(&statistics, "counts", 78, &banks), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "counts: these are statistics of another model"));
    statistics.entries[0].neuron_count = NEURONS - 1;
    assert_int_equal(pi2_neuron_order_check(&statistics, "counts", 77, &banks), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "layer 5"));
    pi2_neuron_statistics_free(&statistics);
}

/* ---- files ---- */

static pi2_status prepare(const pi2_prepare_settings *settings) {
    test_model model;
    test_model_open(model_path, &model);
    const pi2_status status =
        pi2_prepare(model.gguf, model.requests.groups, model.requests.group_count, output_path, settings);
    test_model_close(&model);
    return status;
}

/** A random order for every FFN and expert of a model. */
static void make_statistics(pi2_neuron_statistics *statistics, uint64_t seed) {
    test_model model;
    pi2_neuron_banks *banks;
    pi2_source_identity identity;
    pi2_statistics_entry entries[64];
    const uint32_t columns[] = { PI2_STATISTICS_ORDER };
    test_model_open_as(model_path, PI2_LAYOUT_NEURON, &model);
    assert_int_equal(pi2_neuron_banks_plan(model.layout, false, &banks), PI2_OK);
    assert_int_equal(pi2_source_identity_of(model.gguf, &identity), PI2_OK);
    assert_true(banks->count > 0 && banks->count <= 64);
    for (uint32_t i = 0; i < banks->count; i++) {
        const pi2_neuron_bank *bank = &banks->banks[i];
        entries[i] = (pi2_statistics_entry){ bank->layer, bank->expert, bank->neuron_count, 10, 0 };
    }
    assert_int_equal(pi2_neuron_statistics_make(entries, banks->count, columns, 1, statistics), PI2_OK);
    statistics->model_hash = identity.header_hash;
    statistics->checksum = seed;
    for (uint32_t e = 0; e < banks->count; e++) {
        uint32_t *order = statistics->columns[0] + statistics->entries[e].first;
        for (uint32_t i = 0; i < entries[e].neuron_count; i++) {
            const uint32_t other = (uint32_t)(pi2_tiny_random(&seed) % (i + 1));
            order[i] = order[other];
            order[other] = i;
        }
    }
    pi2_neuron_banks_free(banks);
    test_model_close(&model);
}

typedef struct open_file {
    pi2_gguf *gguf;
    pi2_extent_layout *layout;
    pi2_neuron_banks *banks;
} open_file;

static open_file open_output(void) {
    open_file file;
    pi2_source_identity identity;
    if (pi2_gguf_open(output_path, &file.gguf)) fail_msg("%s", pi2_error_text());
    if (pi2_cluster_file_layout(file.gguf, &file.layout, &identity)) fail_msg("%s", pi2_error_text());
    if (pi2_cluster_file_banks(file.gguf, file.layout, &file.banks)) fail_msg("%s", pi2_error_text());
    assert_non_null(file.banks);
    return file;
}

static void close_output(open_file *file) {
    pi2_neuron_banks_free(file->banks);
    pi2_extent_layout_free(file->layout);
    pi2_gguf_close(file->gguf);
}

/** Rebuilds Gate or Up of a bank from the file's bytes, and compares with the model's own. */
static void check_rows(const pi2_neuron_bank *bank, bool is_gate, const uint8_t *file, const uint8_t *head,
                       const uint8_t *rows) {
    const pi2_weight_format *format = is_gate ? bank->gate_format : bank->up_format;
    const uint64_t scales_at = is_gate ? bank->gate_scales_at : bank->up_scales_at;
    const uint32_t scale_bytes = is_gate ? bank->gate_scale_bytes : bank->up_scale_bytes;
    const size_t row_bytes = pi2_row_bytes(format, bank->width);
    const uint32_t *order = (const uint32_t *)(head + bank->order_at);
    uint8_t *row = malloc(row_bytes);
    assert_non_null(row);
    for (uint32_t place = 0; place < bank->neuron_count; place++) {
        const uint8_t *bundle = file + bank->file_offset + (uint64_t)(place / bank->unit_neurons) * bank->unit_bytes +
                                (size_t)(place % bank->unit_neurons) * bank->bundle_bytes +
                                (is_gate ? 0 : bank->up_offset);
        pi2_neuron_join_row(format, row, bundle, head + scales_at + (size_t)order[place] * scale_bytes,
                            bank->width / format->block_columns);
        assert_memory_equal(row, rows + order[place] * row_bytes, row_bytes);
    }
    free(row);
}

static void check_down(const pi2_neuron_bank *bank, const uint8_t *file, const uint8_t *head, const uint8_t *down) {
    const pi2_weight_format *format = bank->down_format;
    const uint32_t *order = (const uint32_t *)(head + bank->order_at);
    const uint8_t **columns = malloc(bank->neuron_count * sizeof *columns);
    assert_non_null(columns);
    for (uint32_t place = 0; place < bank->neuron_count; place++) {
        columns[order[place]] = file + bank->file_offset + (uint64_t)(place / bank->unit_neurons) * bank->unit_bytes +
                                (size_t)(place % bank->unit_neurons) * bank->bundle_bytes + bank->down_offset;
    }
    const uint32_t blocks = bank->neuron_count / format->block_columns;
    uint8_t *rebuilt = malloc((size_t)bank->width * format->block_bytes);
    uint8_t **rows = malloc(bank->width * sizeof *rows);
    assert_true(rebuilt && rows);
    for (uint32_t r = 0; r < bank->width; r++) rows[r] = rebuilt + (size_t)r * format->block_bytes;
    for (uint32_t b = 0; b < blocks; b++) {
        pi2_neuron_join_columns(format, rows, columns + (size_t)b * format->block_columns,
                                head + bank->down_scales_at + (size_t)b * bank->down_scale_bytes, bank->width);
        for (uint32_t r = 0; r < bank->width; r++) {
            assert_memory_equal(rows[r], down + ((size_t)r * blocks + b) * format->block_bytes, format->block_bytes);
        }
    }
    free(rows);
    free(rebuilt);
    free(columns);
}

static void check_file(const pi2_neuron_statistics *statistics) {
    open_file output = open_output();
    pi2_gguf *source;
    size_t bytes, source_bytes;
    uint8_t *file = test_file_read(output_path, &bytes), *model = test_file_read(model_path, &source_bytes);
    assert_int_equal(pi2_gguf_open(model_path, &source), PI2_OK);
    for (uint32_t i = 0; i < output.banks->count; i++) {
        const pi2_neuron_bank *bank = &output.banks->banks[i];
        const uint8_t *head = file + bank->head_offset;
        assert_true(bank->head_offset % 4096 == 0 && bank->file_offset % 4096 == 0);
        if (pi2_neuron_bank_check_head(bank, output_path, head)) fail_msg("%s", pi2_error_text());
        const uint32_t *checksums = (const uint32_t *)(head + bank->checksums_at);
        for (uint32_t u = 0; u < bank->unit_count; u++) {
            assert_int_equal(checksums[u],
                             pi2_neuron_unit_checksum(bank, file + bank->file_offset + (uint64_t)u * bank->unit_bytes));
        }
        const pi2_statistics_entry *entry =
            statistics ? pi2_neuron_statistics_find(statistics, bank->layer, bank->expert) : NULL;
        const uint32_t *wanted = entry ? pi2_neuron_statistics_column(statistics, PI2_STATISTICS_ORDER, entry) : NULL;
        for (uint32_t p = 0; p < bank->neuron_count; p++) {
            assert_int_equal(pi2_load_le32(head + bank->order_at + 4 * p), wanted ? wanted[p] : p);
        }
        const uint64_t expert = bank->expert == UINT32_MAX ? 0 : bank->expert;
        for (int up = 0; up < 2; up++) {
            if (!(up ? bank->up_format : bank->gate_format)) continue;
            const uint32_t number = up ? bank->up_tensor : bank->gate_tensor;
            const pi2_gguf_tensor *rows = pi2_gguf_tensor_find(source, output.layout->tensors[number].name);
            check_rows(bank, !up, file, head, model + rows->file_offset + expert * (rows->bytes / rows->dimensions[2]));
        }
        const pi2_gguf_tensor *down =
            pi2_gguf_tensor_find(source, output.layout->tensors[bank->down_tensor].name);
        check_down(bank, file, head, model + down->file_offset + expert * (down->bytes / down->dimensions[2]));
    }
    if (pi2_cluster_file_verify(output.gguf, NULL)) fail_msg("%s", pi2_error_text());
    if (pi2_neuron_banks_verify(output.gguf, output.layout, output.banks, NULL)) fail_msg("%s", pi2_error_text());
    pi2_gguf_close(source);
    free(model);
    free(file);
    close_output(&output);
}

/* Dense, of experts, and ungated; with Gate in the bundles and without. */
static void check_every_type(pi2_layout_kind layout) {
    size_t format_count;
    const pi2_weight_format *const *formats = test_formats_of_columns(&format_count);
    for (size_t i = 0; i < 2 * format_count; i++) {
        const size_t f = i % format_count;
        pi2_tiny_model_options options;
        pi2_neuron_statistics statistics;
        pi2_tiny_model_options_init(&options);
        options.up_type = formats[f]->type;
        options.down_type = formats[(f + 3) % format_count]->type;
        options.layer_count = 1;
        options.ungated = i >= format_count;
        options.expert_count = f % 2 && !options.ungated ? 3 : 0;
        options.expert_used_count = options.expert_count ? 2 : 0;
        assert_int_equal(pi2_tiny_model_write(&options, model_path), 0);
        pi2_prepare_settings settings = { .layout = layout, .overwrite = true };
        if (prepare(&settings)) fail_msg("%s", pi2_error_text());
        check_file(NULL);
        make_statistics(&statistics, 3 + f);
        settings.statistics = &statistics;
        settings.statistics_name = "counts";
        if (prepare(&settings)) fail_msg("%s", pi2_error_text());
        check_file(&statistics);
        pi2_neuron_statistics_free(&statistics);
    }
}

static void test_every_type_comes_back(void **state) {
    (void)state;
    check_every_type(PI2_LAYOUT_NEURON);
    check_every_type(PI2_LAYOUT_BUNDLE);
}

static void write_model(bool is_ungated) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.ungated = is_ungated;
    options.feed_forward_length = 1024;
    options.down_type = PI2_Q8_0;
    assert_int_equal(pi2_tiny_model_write(&options, model_path), 0);
}

static void test_little_memory_gives_the_same_bytes(void **state) {
    (void)state;
    pi2_neuron_statistics statistics;
    size_t bytes, other_bytes;
    write_model(false);
    make_statistics(&statistics, 9);
    pi2_prepare_settings settings = { .layout = PI2_LAYOUT_NEURON, .overwrite = true, .statistics = &statistics };
    assert_int_equal(prepare(&settings), PI2_OK);
    uint8_t *file = test_file_read(output_path, &bytes);
    settings.memory_bytes = 1400000; /* several parts for each bank */
    if (prepare(&settings)) fail_msg("%s", pi2_error_text());
    uint8_t *other = test_file_read(output_path, &other_bytes);
    assert_int_equal(bytes, other_bytes);
    assert_memory_equal(file, other, bytes);
    free(file);
    free(other);
    pi2_neuron_statistics_free(&statistics);
}

/** Overwrites some bytes of a tensor of the model. */
static void change_model(const char *tensor_name, uint64_t offset, const void *bytes, size_t count) {
    pi2_gguf *gguf;
    assert_int_equal(pi2_gguf_open(model_path, &gguf), PI2_OK);
    const pi2_gguf_tensor *tensor = pi2_gguf_tensor_find(gguf, tensor_name);
    assert_non_null(tensor);
    const int file = open(model_path, O_RDWR);
    assert_true(file >= 0);
    assert_int_equal(pwrite(file, bytes, count, (off_t)(tensor->file_offset + offset)), (ssize_t)count);
    assert_int_equal(close(file), 0);
    pi2_gguf_close(gguf);
}

static void test_infinite_weights_have_no_bank(void **state) {
    (void)state;
    static const struct { const char *tensor; uint64_t offset; uint8_t value[2]; } changes[] = {
        { "blk.1.ffn_down.weight", 34 * 5, { 0x00, 0x7c } },         /* Q8_0: d is infinite */
        { "blk.1.ffn_down.weight", 34 * 32 * 256 - 34, { 1, 0xfe } },  /* the last block: d is no number */
        { "blk.1.ffn_up.weight", 18 * 7, { 0x00, 0xfc } },           /* Q4_0: minus infinity */
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        size_t bytes, other_bytes;
        write_model(false);
        change_model(changes[i].tensor, changes[i].offset, changes[i].value, 2);
        pi2_prepare_settings settings = { .layout = PI2_LAYOUT_NEURON, .overwrite = true };
        if (prepare(&settings)) fail_msg("%s", pi2_error_text());
        open_file output = open_output();
        assert_int_equal(output.banks->count, 1);
        assert_int_equal(output.banks->banks[0].layer, 0);
        assert_int_equal(output.banks->left_out_count, 1);
        assert_int_equal(output.banks->left_out[0].layer, 1);
        close_output(&output);
        check_file(NULL);
        uint8_t *file = test_file_read(output_path, &bytes);
        settings.memory_bytes = 1400000;
        assert_int_equal(prepare(&settings), PI2_OK);
        uint8_t *other = test_file_read(output_path, &other_bytes);
        assert_true(bytes == other_bytes && memcmp(file, other, bytes) == 0);
        free(file);
        free(other);
    }
}

static void test_largest_finite_scales_have_a_bank(void **state) {
    (void)state;
    const uint8_t largest[2] = { 0xff, 0x7b };
    write_model(false);
    change_model("blk.0.ffn_down.weight", 34 * 5, largest, 2);
    change_model("blk.1.ffn_up.weight", 18 * 7, largest, 2);
    const pi2_prepare_settings settings = { .layout = PI2_LAYOUT_NEURON };
    assert_int_equal(prepare(&settings), PI2_OK);
    open_file output = open_output();
    assert_int_equal(output.banks->count, 2);
    close_output(&output);
}

/* ---- which file serves ---- */

static pi2_status matches(pi2_layout_kind kind, uint64_t statistics) {
    pi2_gguf *source;
    assert_int_equal(pi2_gguf_open(model_path, &source), PI2_OK);
    const pi2_cluster_wish wish = { kind, statistics };
    const pi2_status status = pi2_cluster_file_matches(output_path, source, &wish, NULL, NULL);
    pi2_gguf_close(source);
    return status;
}

static void test_which_file_serves(void **state) {
    (void)state;
    pi2_neuron_statistics statistics;
    write_model(false);
    pi2_prepare_settings settings = { .layout = PI2_LAYOUT_DENSE };
    assert_int_equal(prepare(&settings), PI2_OK);
    assert_int_equal(matches(PI2_LAYOUT_DENSE, 0), PI2_OK);
    assert_int_equal(matches(PI2_LAYOUT_NEURON, 0), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "dense layout"));
    settings.layout = PI2_LAYOUT_NEURON;
    assert_int_equal(prepare(&settings), PI2_OK); /* made again, though a good one of the other layout is there */
    assert_int_equal(matches(PI2_LAYOUT_NEURON, 0), PI2_OK);
    assert_int_equal(matches(PI2_LAYOUT_DENSE, 0), PI2_OK);
    size_t bytes, kept_bytes;
    uint8_t *file = test_file_read(output_path, &bytes);
    settings.layout = PI2_LAYOUT_DENSE;
    assert_int_equal(prepare(&settings), PI2_OK); /* it serves: nothing is made */
    uint8_t *kept = test_file_read(output_path, &kept_bytes);
    assert_true(bytes == kept_bytes && memcmp(file, kept, bytes) == 0);
    free(kept);
    free(file);
    assert_int_equal(matches(PI2_LAYOUT_BUNDLE, 0), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "the bundle layout is wanted"));
    settings.layout = PI2_LAYOUT_BUNDLE;
    assert_int_equal(prepare(&settings), PI2_OK);
    for (int kind = PI2_LAYOUT_DENSE; kind <= PI2_LAYOUT_BUNDLE; kind++) {
        assert_int_equal(matches((pi2_layout_kind)kind, 0), PI2_OK);
    }
    make_statistics(&statistics, 11);
    settings = (pi2_prepare_settings){ .layout = PI2_LAYOUT_NEURON, .statistics = &statistics };
    assert_int_equal(matches(PI2_LAYOUT_NEURON, 11), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "other statistics"));
    assert_int_equal(prepare(&settings), PI2_OK);
    assert_int_equal(matches(PI2_LAYOUT_NEURON, 11), PI2_OK);
    assert_int_equal(matches(PI2_LAYOUT_NEURON, 0), PI2_OK);
    check_file(&statistics);
    statistics.model_hash++;
    settings.overwrite = true;
    settings.statistics_name = "counts";
    assert_int_equal(prepare(&settings), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "counts: these are statistics of another model"));
    settings.layout = PI2_LAYOUT_DENSE;
    assert_int_equal(prepare(&settings), PI2_ERR_INVALID);
    pi2_neuron_statistics_free(&statistics);
}

/* ---- damage ---- */

/** Makes the checksum of a header that was changed right again. */
static void renew_header_checksum(void) {
    size_t bytes, at = 0;
    uint8_t *file = test_file_read(output_path, &bytes);
    pi2_gguf *gguf;
    assert_int_equal(pi2_gguf_open(output_path, &gguf), PI2_OK);
    while (memcmp(file + at, PI2_GGUF_HEADER_CHECKSUM_KEY, sizeof PI2_GGUF_HEADER_CHECKSUM_KEY - 1) != 0) at++;
    at += sizeof PI2_GGUF_HEADER_CHECKSUM_KEY - 1 + 4;
    pi2_store_le64(file + at, pi2_gguf_file_header_hash(gguf, 0));
    pi2_gguf_close(gguf);
    test_file_write(output_path, file, bytes);
    free(file);
}

/** Changes element 1 of a table's column in the header, and makes its checksum right again. */
static void change_header(const char *key, size_t element_bytes, uint64_t value) {
    size_t bytes;
    uint8_t *file = test_file_read(output_path, &bytes);
    const size_t length = strlen(key);
    size_t at = 0;
    while (memcmp(file + at, key, length) != 0) at++;
    at += length + 4 + 4 + 8; /* type of the value, of the elements, their number */
    pi2_store_le(file + at + element_bytes, element_bytes, value);
    test_file_write(output_path, file, bytes);
    free(file);
    renew_header_checksum();
}

static void expect_table_refused(const char *key, size_t element_bytes, uint64_t value) {
    pi2_gguf *gguf;
    pi2_extent_layout *layout;
    pi2_source_identity identity;
    pi2_neuron_banks *banks;
    const pi2_prepare_settings settings = { .layout = PI2_LAYOUT_NEURON, .overwrite = true };
    assert_int_equal(prepare(&settings), PI2_OK);
    change_header(key, element_bytes, value);
    assert_int_equal(pi2_gguf_open(output_path, &gguf), PI2_OK);
    if (pi2_cluster_file_layout(gguf, &layout, &identity)) fail_msg("%s", pi2_error_text());
    if (pi2_cluster_file_banks(gguf, layout, &banks) != PI2_ERR_FORMAT) fail_msg("%s = %lu", key, (unsigned long)value);
    assert_non_null(strstr(pi2_error_text(), output_path));
    assert_null(banks);
    pi2_extent_layout_free(layout);
    pi2_gguf_close(gguf);
}

static void test_altered_tables_are_refused(void **state) {
    (void)state;
    write_model(false);
    expect_table_refused("powerinfer2.bank.layers", 4, 0);
    expect_table_refused("powerinfer2.bank.layers", 4, 7);
    expect_table_refused("powerinfer2.bank.experts", 4, 0);
    expect_table_refused("powerinfer2.bank.neurons", 4, 1023);
    expect_table_refused("powerinfer2.bank.neurons", 4, UINT32_MAX);
    expect_table_refused("powerinfer2.bank.widths", 4, 512);
    expect_table_refused("powerinfer2.bank.up_tensors", 4, UINT32_MAX);
    expect_table_refused("powerinfer2.bank.down_tensors", 4, 0);
    expect_table_refused("powerinfer2.bank.unit_neurons", 4, 0);
    expect_table_refused("powerinfer2.bank.unit_neurons", 4, 1);
    expect_table_refused("powerinfer2.bank.unit_neurons", 4, UINT32_MAX);
    expect_table_refused("powerinfer2.bank.unit_bytes", 4, 0);
    expect_table_refused("powerinfer2.bank.unit_bytes", 4, 4097);
    expect_table_refused("powerinfer2.bank.unit_bytes", 4, 8192);
    expect_table_refused("powerinfer2.bank.unit_bytes", 4, 0xfffff000u);
    expect_table_refused("powerinfer2.bank.head_bytes", 8, UINT64_MAX);
    expect_table_refused("powerinfer2.bank.head_bytes", 8, 64);
}

/* A file says that its banks lack Up, so that a reader that does not know such banks leaves it alone; a bank that has
 * one all the same, or lacks it in a gated model, is none of its layer's. */
static void test_a_file_without_up_says_so(void **state) {
    (void)state;
    for (int ungated = 0; ungated < 2; ungated++) {
        const pi2_prepare_settings settings = { .layout = PI2_LAYOUT_NEURON, .overwrite = true };
        pi2_gguf_array features;
        pi2_gguf_string name;
        size_t cursor = 0;
        write_model(ungated);
        assert_int_equal(prepare(&settings), PI2_OK);
        open_file output = open_output();
        assert_int_equal(pi2_gguf_array_get(output.gguf, "powerinfer2.features", &features), PI2_OK);
        assert_int_equal(features.count, ungated ? 2 : 1);
        while (pi2_gguf_array_next_string(&features, &cursor, &name)) {
            assert_true(name.length == 7 && (memcmp(name.text, "neurons", 7) == 0 ||
                                             (ungated && memcmp(name.text, "ungated", 7) == 0)));
        }
        close_output(&output);
    }
    expect_table_refused("powerinfer2.bank.up_tensors", 4, 0);
    expect_table_refused("powerinfer2.bank.up_tensors", 4, 1000);
    expect_table_refused("powerinfer2.bank.down_tensors", 4, UINT32_MAX);
}

static void test_order_that_names_a_neuron_twice(void **state) {
    (void)state;
    write_model(false);
    const pi2_prepare_settings settings = { .layout = PI2_LAYOUT_NEURON };
    assert_int_equal(prepare(&settings), PI2_OK);
    open_file output = open_output();
    size_t bytes;
    uint8_t *file = test_file_read(output_path, &bytes);
    pi2_neuron_bank bank = output.banks->banks[1];
    uint8_t *head = file + bank.head_offset;
    pi2_store_le32(head + bank.order_at + 4 * 9, 8);
    assert_int_equal(pi2_neuron_bank_check_head(&bank, "some.pi2", head), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "does not match its checksum"));
    bank.head_checksum = XXH3_64bits(head, bank.head_bytes);
    assert_int_equal(pi2_neuron_bank_check_head(&bank, "some.pi2", head), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "some.pi2: the order of the neurons of layer 1 at"));
    free(file);
    close_output(&output);
}

/** Changes a byte of the second bank's units or of its head, and makes every checksum right again. */
static void change_bank(bool is_head, uint64_t offset) {
    open_file output = open_output();
    const pi2_neuron_bank bank = output.banks->banks[1];
    size_t bytes;
    uint8_t *file = test_file_read(output_path, &bytes), *head = file + bank.head_offset;
    close_output(&output);
    file[(is_head ? bank.head_offset : bank.file_offset) + offset] ^= 4;
    if (!is_head) {
        const uint64_t unit = offset / bank.unit_bytes;
        pi2_store_le32(head + bank.checksums_at + 4 * unit,
                       pi2_neuron_unit_checksum(&bank, file + bank.file_offset + unit * bank.unit_bytes));
    }
    const uint64_t checksum = XXH3_64bits(head, bank.head_bytes);
    test_file_write(output_path, file, bytes);
    free(file);
    change_header("powerinfer2.bank.head_checksums", 8, checksum);
}

static pi2_neuron_bank second_bank(pi2_layout_kind layout) {
    const pi2_prepare_settings settings = { .layout = layout, .overwrite = true };
    assert_int_equal(prepare(&settings), PI2_OK);
    open_file output = open_output();
    const pi2_neuron_bank bank = output.banks->banks[1];
    close_output(&output);
    return bank;
}

/* Gated, and ungated, where there is no Up that could differ. */
static void test_neurons_that_are_not_those_of_the_tiles(void **state) {
    (void)state;
    const pi2_prepare_settings settings = { .layout = PI2_LAYOUT_BUNDLE, .overwrite = true };
    for (int ungated = 0; ungated < 2; ungated++) {
        write_model(ungated);
        const pi2_neuron_bank bank = second_bank(PI2_LAYOUT_BUNDLE);
        const uint64_t last_unit = (bank.unit_count - 1ull) * bank.unit_bytes;
        static const char up[] = "'blk.1.ffn_up.weight'", down[] = "'blk.1.ffn_down.weight'";
        const char *gate = ungated ? up : "'blk.1.ffn_gate.weight'";
        const struct { bool is_head; uint64_t offset; const char *tensor; } changes[] = {
            { false, bank.up_offset, up }, { true, bank.up_scales_at, up },
            { false, 0, gate }, { true, bank.gate_scales_at, gate }, { false, bank.down_offset, down },
            { false, last_unit + bank.bundle_bytes - 1, down }, { true, bank.down_scales_at, down },
            { true, bank.head_bytes - 1, down },
        };
        for (size_t i = ungated ? 2 : 0; i < sizeof changes / sizeof changes[0]; i++) {
            assert_int_equal(prepare(&settings), PI2_OK);
            change_bank(changes[i].is_head, changes[i].offset);
            open_file output = open_output();
            assert_int_equal(pi2_cluster_file_verify(output.gguf, NULL), PI2_OK); /* every checksum is right */
            assert_int_equal(pi2_neuron_banks_verify(output.gguf, output.layout, output.banks, NULL), PI2_ERR_FORMAT);
            if (!strstr(pi2_error_text(), changes[i].tensor)) fail_msg("change %zu: %s", i, pi2_error_text());
            assert_non_null(strstr(pi2_error_text(), "not the same in tiles"));
            close_output(&output);
        }
    }
}

/* Gate and Up change their names in the table of tensors: each is what the other was, and the bank is Gate's. */
static void test_a_bank_of_other_matrices_is_refused(void **state) {
    (void)state;
    static const char gate[] = "blk.1.ffn_gate.weight", up[] = "blk.1.ffn_up.weight";
    enum { GATE = sizeof gate - 1, UP = sizeof up - 1 };
    write_model(false);
    (void)second_bank(PI2_LAYOUT_NEURON);
    size_t bytes, at = 0;
    uint32_t vocabulary_size;
    pi2_gguf *gguf;
    assert_int_equal(pi2_gguf_open(output_path, &gguf), PI2_OK);
    assert_int_equal(pi2_model_check(gguf, &vocabulary_size), PI2_OK);
    pi2_gguf_close(gguf);
    uint8_t *file = test_file_read(output_path, &bytes);
    while (memcmp(file + at, gate, GATE) != 0) at++;
    assert_memory_equal(file + at + GATE + 8, up, UP); /* strings have their lengths before them */
    pi2_store_le64(file + at - 8, UP);
    memcpy(file + at, up, UP);
    pi2_store_le64(file + at + UP, GATE);
    memcpy(file + at + UP + 8, gate, GATE);
    test_file_write(output_path, file, bytes);
    free(file);
    renew_header_checksum();
    assert_int_equal(pi2_gguf_open(output_path, &gguf), PI2_OK);
    assert_int_equal(pi2_model_check(gguf, &vocabulary_size), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "the bank of neurons of layer 1 is of other matrices than the layer's"));
    pi2_gguf_close(gguf);
}

static void a_read_brings_whole_pages(void **state) {
    (void)state;
    for (uint32_t size = 64; size < 65536; size = (5 * size / 4 + 63) / 64 * 64) {
        const pi2_neuron_bank bank = { .unit_bytes = size, .unit_count = 640 };
        uint64_t pages = 640;
        for (uint64_t u = 0; u < 640; u++) pages += ((u + 1) * size - 1) / 4096 - u * size / 4096;
        assert_int_equal(pi2_neuron_bank_read_bytes(&bank), (uint32_t)(4096 * pages / 640));
    }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, test_folder_end)
    const struct CMUnitTest tests[] = {
        TEST(test_units_of_many_widths),
        TEST(test_each_expert_has_a_bank),
        TEST(test_without_gate_a_bundle_is_down_alone),
        TEST(test_metadata_of_a_47b_by_neuron),
        TEST(test_hot_neurons_come_first),
        TEST(test_cold_neurons_lie_by_company),
        TEST(test_every_type_comes_back),
        TEST(test_little_memory_gives_the_same_bytes),
        TEST(test_infinite_weights_have_no_bank),
        TEST(test_largest_finite_scales_have_a_bank),
        TEST(test_which_file_serves),
        TEST(test_altered_tables_are_refused),
        TEST(test_a_file_without_up_says_so),
        TEST(test_a_bank_of_other_matrices_is_refused), TEST(test_order_that_names_a_neuron_twice),
        TEST(test_neurons_that_are_not_those_of_the_tiles), TEST(a_read_brings_whole_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
