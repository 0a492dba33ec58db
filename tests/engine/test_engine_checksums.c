/*
 * Goal:   no byte of a cluster file that means something reaches a kernel unchecked: one that is flipped in any kind
 *         of place ends the run with the file, the tensor and the place, at every budget and with every read method;
 *         padding changes nothing.
 * Method: models that have every kind of place: dense with a tied head and without one, with every table, and a
 *         mixture of experts. One byte of each kind is flipped, the engine is opened and run, the byte is mended.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/memory_relief.h"
#include "file_formats/cluster_file.h"
#include "powerinfer2/model_file.h"
#include "powerinfer2/session.h"
#include "support/emulator.h"
#include "support/small_budget.h"
#include "support/streamed_model.h"
#include "support/temporary_files.h"

enum {
    PLENTY = PI2_TEST_PLENTY_BYTES, LEAST_MORE = 3000000, STEP = 500000, TOKENS = 24, LOOKED_UP = 40, MOST_KINDS = 64
};

static char *model_path, *cluster_path;

/* One byte of the file, and what the failure must name. */
typedef struct place {
    uint64_t offset;
    char kind[80]; /* places are of one kind when their tensor's name is the same but for the layer, and the group's */
    char tensor[72];
} place;

typedef struct place_list {
    place places[MOST_KINDS];
    size_t count;
} place_list;

/* ---- places ---- */

static void add_place(place_list *list, uint64_t offset, const char *tensor, int group_kind) {
    place added = { .offset = offset };
    const char *role = strncmp(tensor, "blk.", 4) == 0 ? strchr(tensor + 4, '.') + 1 : tensor;
    (void)snprintf(added.kind, sizeof added.kind, "%.64s %d", role, group_kind);
    (void)snprintf(added.tensor, sizeof added.tensor, "%.64s", tensor);
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->places[i].kind, added.kind) == 0) return;
    }
    assert_true(list->count < MOST_KINDS);
    list->places[list->count++] = added;
}

/* Of a piece that is looked up, the row of a token that the run uses; else its middle. */
static uint64_t offset_in_piece(const pi2_extent_layout *layout, const pi2_extent *extent, const pi2_piece *piece) {
    const bool looked_up = layout->groups[extent->group].kind == PI2_GROUP_EMBEDDING;
    uint32_t bytes;
    const uint32_t run = pi2_piece_run(layout, piece, LOOKED_UP / 16 * 16, &bytes);
    return extent->file_offset + (looked_up ? run + bytes / 2 : piece->offset + pi2_piece_bytes(layout, piece) / 2);
}

static void list_places(place_list *list) {
    pi2_gguf *gguf = NULL;
    pi2_extent_layout *layout = NULL;
    pi2_source_identity source;
    list->count = 0;
    assert_int_equal(pi2_gguf_open(cluster_path, &gguf), PI2_OK);
    if (pi2_cluster_file_layout(gguf, &layout, &source) != PI2_OK) fail_msg("%s", pi2_error_text());
    for (size_t i = 0; i < pi2_gguf_tensor_count(gguf); i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(gguf, i);
        if (strncmp(tensor->name, "pi2.", 4) == 0) continue;
        add_place(list, tensor->file_offset + tensor->bytes / 2, tensor->name, -1);
    }
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        const pi2_extent *extent = &layout->extents[e];
        for (uint32_t p = extent->first_piece; p < extent->first_piece + extent->piece_count; p++) {
            const pi2_piece *piece = &layout->pieces[p];
            add_place(list, offset_in_piece(layout, extent, piece), layout->tensors[piece->tensor].name,
                      (int)layout->groups[extent->group].kind);
        }
    }
    pi2_extent_layout_free(layout);
    pi2_gguf_close(gguf);
}

static void flip(uint64_t offset) {
    FILE *file = fopen(cluster_path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    const int byte = fgetc(file);
    assert_int_not_equal(byte, EOF);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    assert_int_not_equal(fputc(byte ^ 0x40, file), EOF);
    assert_int_equal(fclose(file), 0);
}

/* Every byte of padding: behind the header, the tables and the extents. Returns how many were flipped. */
static size_t flip_padding(void) {
    pi2_gguf *gguf = NULL;
    pi2_extent_layout *layout = NULL;
    pi2_source_identity source;
    size_t count = 0;
    assert_int_equal(pi2_gguf_open(cluster_path, &gguf), PI2_OK);
    if (pi2_cluster_file_layout(gguf, &layout, &source) != PI2_OK) fail_msg("%s", pi2_error_text());
    if (pi2_gguf_file_header_bytes(gguf, 0) < pi2_gguf_file_data_offset(gguf, 0)) {
        flip(pi2_gguf_file_data_offset(gguf, 0) - 1);
        count++;
    }
    for (size_t i = 0; i < pi2_gguf_tensor_count(gguf); i++) {
        const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(gguf, i);
        if (tensor->bytes % 4096 == 0) continue;
        flip(tensor->file_offset + tensor->bytes);
        count++;
    }
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        if (pi2_extent_read_bytes(&layout->extents[e]) == layout->extents[e].bytes) continue;
        flip(layout->extents[e].file_offset + layout->extents[e].bytes);
        count++;
    }
    pi2_extent_layout_free(layout);
    pi2_gguf_close(gguf);
    return count;
}

/* ---- runs ---- */

typedef struct variation {
    const char *method;
    uint64_t more_bytes; /* beyond what the process holds; 0: PLENTY */
} variation;

static pi2_status open_engine(const variation *v, pi2_engine **engine) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = model_path;
    options.cluster_path = cluster_path;
    options.context_tokens = 64;
    options.batch_tokens = 16;
    options.thread_count = 2;
    options.read_method = v->method;
    options.memory_bytes = PLENTY;
    return v->more_bytes ? pi2_small_budget_open(&options, v->more_bytes, engine) : pi2_engine_open(&options, engine);
}

/* The logits behind a prompt that uses LOOKED_UP, and behind one token more; compared with what is there unless
 * `fill`. */
static pi2_status run(pi2_engine *engine, float *logits, bool fill) {
    const size_t vocabulary = pi2_engine_get_report(engine)->vocabulary_size;
    int32_t tokens[TOKENS];
    for (int32_t i = 0; i < TOKENS; i++) tokens[i] = i == 5 ? LOOKED_UP : i * 11 + 1;
    pi2_session *session = NULL;
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    pi2_status status = pi2_session_append(session, tokens, TOKENS, PI2_LOGITS_LAST);
    if (status == PI2_OK) status = pi2_session_append(session, tokens, 1, PI2_LOGITS_LAST);
    if (status == PI2_OK) {
        const float *now = pi2_session_logits(session, 0);
        if (fill) memcpy(logits, now, vocabulary * sizeof *logits);
        else assert_memory_equal(logits, now, vocabulary * sizeof *logits);
    }
    pi2_session_free(session);
    return status;
}

static pi2_status open_and_run(const variation *v, float *logits, bool fill) {
    pi2_engine *engine = NULL;
    pi2_status status = open_engine(v, &engine);
    if (status == PI2_OK) {
        const pi2_engine_report *report = pi2_engine_get_report(engine);
        assert_string_equal(report->weights_path, cluster_path);
        if (v->more_bytes && report->resident_bytes == report->weight_bytes) {
            assert_true(PI2_UNDER_EMULATOR); /* what qemu holds shrinks by more than such a model, too */
            print_message("all in memory with a small budget: what the process holds is not this program's\n");
        }
        status = run(engine, logits, fill);
    }
    pi2_engine_close(engine);
    return status;
}

static void expect_refusal(const place *damaged, const variation *v, float *logits) {
    flip(damaged->offset);
    const pi2_status status = open_and_run(v, logits, false);
    if (status != PI2_ERR_FORMAT) {
        fail_msg("a flipped byte in '%s' (%s, %s budget): %s", damaged->tensor, v->method,
                 v->more_bytes ? "small" : "large", status == PI2_OK ? "not noticed" : pi2_error_text());
    }
    const char *text = pi2_error_text();
    /* Of an extent the first tensor is named, of those that lie in it. */
    const bool named = strstr(text, damaged->tensor) || strstr(text, "and what lies with it");
    if (!named || !strstr(text, cluster_path) || !strstr(text, "at byte ")) fail_msg("no place in: %s", text);
    flip(damaged->offset);
}

static void make_model(const pi2_tiny_model_options *model) {
    assert_int_equal(pi2_tiny_model_write_apart(model, model_path), 0);
    (void)remove(cluster_path);
    const pi2_prepare_options prepare = { .model_path = model_path, .output_path = cluster_path,
                                          .memory_bytes = PI2_TEST_PREPARE_BYTES };
    if (pi2_prepare_file(&prepare, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
}

/* Little more than the least that is enough. */
static uint64_t small_budget(void) {
    variation v = { .method = "pread", .more_bytes = LEAST_MORE };
    for (;; v.more_bytes += STEP) {
        pi2_engine *engine = NULL;
        const pi2_status status = open_engine(&v, &engine);
        pi2_engine_close(engine);
        if (status == PI2_OK) return v.more_bytes + STEP;
        if (status != PI2_ERR_MEMORY) fail_msg("%s", pi2_error_text());
    }
}

static void check_model(const pi2_tiny_model_options *model, size_t least_kinds) {
    make_model(model);
    const uint64_t small = small_budget();
    const variation variations[] = { { "auto", 0 }, { "pread", 0 }, { "auto", small }, { "pread", small } };
    static place_list list;
    list_places(&list);
    if (list.count < least_kinds) fail_msg("only %zu kinds of places", list.count);
    float *logits = calloc(1 << 16, sizeof *logits);
    assert_non_null(logits);
    if (open_and_run(&variations[0], logits, true) != PI2_OK) fail_msg("%s", pi2_error_text());
    for (size_t v = 0; v < sizeof variations / sizeof variations[0]; v++) {
        for (size_t i = 0; i < list.count; i++) expect_refusal(&list.places[i], &variations[v], logits);
        assert_true(flip_padding() > 3);
        if (open_and_run(&variations[v], logits, false) != PI2_OK) fail_msg("padding: %s", pi2_error_text());
        (void)flip_padding();
    }
    free(logits);
}

static void dense_options(pi2_tiny_model_options *options) {
    pi2_streamed_model_options_init(options);
    options->vocabulary_size = 700;
    options->attention_biases = true;
    options->rope_scaling = "llama3";
}

static void test_untied(void **state) {
    (void)state;
    pi2_tiny_model_options options;
    dense_options(&options);
    options.tied_head = false;
    options.feed_forward_biases = true;
    check_model(&options, 20); /* 11 tables, 4 of attention, 3 of the FFN, head, embedding */
}

static void test_tied(void **state) {
    (void)state;
    pi2_tiny_model_options options;
    dense_options(&options);
    options.tied_head = true;
    check_model(&options, 15);
}

static void test_experts(void **state) {
    (void)state;
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.architecture = "qwen3moe";
    options.embedding_length = 512;
    options.feed_forward_length = 768;
    options.head_count = 8;
    options.expert_count = 4;
    options.expert_used_count = 2;
    options.head_norms = true;
    options.tied_head = false;
    check_model(&options, 15); /* 6 tables, 4 of attention, 3 of experts, head, embedding */
}

/* The row that is looked up is read through the head's tiles, or from rows of their own, each time anew. */
static uint64_t nothing(void *user, uint64_t planned_bytes) {
    (void)user, (void)planned_bytes;
    return 0;
}

static void test_rows_that_left_memory(void **state) {
    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        pi2_tiny_model_options options;
        dense_options(&options);
        options.tied_head = tied != 0;
        make_model(&options);
        float *logits = calloc(1 << 16, sizeof *logits);
        assert_non_null(logits);
        pi2_engine *engine = NULL;
        const variation v = { "auto", 0 };
        if (open_engine(&v, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
        if (run(engine, logits, true) != PI2_OK) fail_msg("%s", pi2_error_text());
        pi2_engine_simulate_pressure(engine, nothing, NULL);
        if (run(engine, logits, false) != PI2_OK || run(engine, logits, false) != PI2_OK) {
            fail_msg("%s", pi2_error_text());
        }
        pi2_gguf *gguf = NULL;
        pi2_extent_layout *layout = NULL;
        pi2_source_identity source;
        assert_int_equal(pi2_gguf_open(cluster_path, &gguf), PI2_OK);
        assert_int_equal(pi2_cluster_file_layout(gguf, &layout, &source), PI2_OK);
        const pi2_extent *extent = &layout->extents[pi2_extent_layout_lookup(layout)->first_extent];
        uint32_t bytes;
        const uint32_t at = pi2_piece_run(layout, &layout->pieces[extent->first_piece], LOOKED_UP / 16 * 16, &bytes);
        flip(extent->file_offset + at + 3);
        assert_int_equal(run(engine, logits, false), PI2_ERR_FORMAT);
        if (!strstr(pi2_error_text(), "rows from 32 on of tensor 'token_embd.weight'")) {
            fail_msg("no rows in: %s", pi2_error_text());
        }
        flip(extent->file_offset + at + 3);
        if (run(engine, logits, false) != PI2_OK) fail_msg("%s", pi2_error_text());
        pi2_extent_layout_free(layout);
        pi2_gguf_close(gguf);
        pi2_engine_close(engine);
        free(logits);
    }
}

static void test_header(void **state) {
    (void)state;
    pi2_tiny_model_options options;
    dense_options(&options);
    make_model(&options);
    pi2_gguf *gguf = NULL;
    assert_int_equal(pi2_gguf_open(cluster_path, &gguf), PI2_OK);
    const uint64_t end = pi2_gguf_file_header_bytes(gguf, 0);
    pi2_gguf_close(gguf);
    pi2_engine_options engine_options;
    pi2_engine_options_init(&engine_options);
    engine_options.model_path = cluster_path; /* named itself, it is not made again */
    for (uint64_t at = 0; at < end; at += end / 37) {
        pi2_engine *engine = NULL;
        flip(at);
        const pi2_status status = pi2_engine_open(&engine_options, &engine);
        if (status != PI2_ERR_FORMAT && status != PI2_ERR_UNSUPPORTED) {
            fail_msg("byte %llu of the header: %d", (unsigned long long)at, (int)status);
        }
        assert_null(engine);
        assert_non_null(strstr(pi2_error_text(), cluster_path));
        flip(at);
    }
}

static int name_paths(void) {
    model_path = test_folder_path("tiny.gguf");
    cluster_path = test_folder_path("tiny.pi2");
    return 0;
}

/* A disk, where reads are direct, and memory, where they are not (or are not on every kernel). */
static int set_up_disk(void **state) { return test_folder_begin(state) + name_paths(); }
static int set_up_memory(void **state) { return test_folder_begin_in_memory(state) + name_paths(); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_untied, set_up_disk, test_folder_end),
        cmocka_unit_test_setup_teardown(test_tied, set_up_memory, test_folder_end),
        cmocka_unit_test_setup_teardown(test_experts, set_up_disk, test_folder_end),
        cmocka_unit_test_setup_teardown(test_rows_that_left_memory, set_up_memory, test_folder_end),
        cmocka_unit_test_setup_teardown(test_header, set_up_memory, test_folder_end),
    };
    return cmocka_run_group_tests_name("checksums on every way", tests, NULL, NULL);
}
