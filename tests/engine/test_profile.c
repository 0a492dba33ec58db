/*
 * Goal:   what profile counts is what the neurons gave: every count of every neuron, layer and expert, whatever the
 *         threads, batch and budget; a count in parts, or merged, is that of one run, bit for bit; statistics of
 *         another model, or counted otherwise, are not gone on with; an interrupted count keeps whole chunks.
 * Method: tiny random models. The direct count keeps every value that the pipeline computed, one token a pass on one
 *         thread, and counts by the definitions of docs/statistics_format.md.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <xxhash.h>

#include "base/little_endian.h"
#include "engine/engine_internal.h"
#include "pipeline/neuron_counter.h"
#include "powerinfer2/profile.h"
#include "statistics/neuron_statistics.h"
#include "support/emulator.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { CHUNK = 50, COLUMNS = 8, WORDS = PI2_STATISTICS_SAMPLED_COLUMNS, PLENTY = PI2_TEST_PLENTY_BYTES };

static char *model_path, *text_paths[3], *stats_path, *other_path, *merged_path;

static int set_up(void **state) {
    (void)test_folder_begin_in_memory(state);
    model_path = test_folder_path("model.gguf");
    stats_path = test_folder_path("stats");
    other_path = test_folder_path("other");
    merged_path = test_folder_path("merged");
    static const char *const names[] = { "first", "second", "third" };
    static const char *const words[] = { "one text of some words, ", "another; it goes on. ", "and a third " };
    for (int i = 0; i < 3; i++) {
        char text[256] = "";
        text_paths[i] = test_folder_path(names[i]);
        for (int k = 0; k < 5 + 2 * i; k++) strcat(text, words[i]);
        test_file_write(text_paths[i], (const uint8_t *)text, strlen(text));
    }
    return 0;
}

static void write_model(bool experts) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.feed_forward_length = 544; /* no whole number of chunks */
    options.ffn_activation = "relu";
    options.vocabulary = PI2_TINY_SPM; /* texts begin with a token of their own */
    if (experts) {
        options.architecture = "qwen3moe";
        options.expert_count = 5;
        options.expert_used_count = 2;
        options.expert_feed_forward_length = 96;
        options.head_norms = true;
    }
    assert_int_equal(pi2_tiny_model_write_apart(&options, model_path), 0);
}

static pi2_engine *open_engine(uint32_t threads, uint32_t batch, uint32_t chunk, bool (*cancelled)(void *user)) {
    pi2_engine_options options;
    pi2_engine *engine;
    pi2_engine_options_init(&options);
    options.model_path = model_path;
    options.memory_bytes = PLENTY;
    options.thread_count = threads;
    options.batch_tokens = batch;
    options.context_tokens = chunk;
    options.sparsity = "off";
    options.counts_neurons = true;
    options.callbacks.cancelled = cancelled;
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    return engine;
}

/* ---- the direct count -------------------------------------------------------------------- */

typedef struct value {
    bool computed, zero, fired;
    float activation;
} value;

/** Of one chunk: every value. */
typedef struct record {
    uint32_t experts, neurons, layers;
    value *values; /* [layers][experts][tokens][neurons] */
} record;

static value *value_at(const record *r, uint32_t layer, uint32_t expert, uint32_t token, uint32_t neuron) {
    return &r->values[(((size_t)layer * r->experts + expert) * CHUNK + token) * r->neurons + neuron];
}

static void keep_values(void *user, unsigned member, const pi2_neuron_values *values) {
    const record *r = user;
    (void)member;
    for (uint32_t i = 0; i < values->count; i++) {
        value *v = value_at(r, values->layer, values->expert == UINT32_MAX ? 0 : values->expert, values->position,
                            values->begin + i);
        assert_false(v->computed);
        *v = (value){ true, values->activations[i] == 0.0f, values->rounded[i] != 0, values->activations[i] };
    }
}

static bool group_is_zero(const record *r, uint32_t layer, uint32_t expert, uint32_t token, uint32_t begin,
                          uint32_t size) {
    for (uint32_t n = begin; n < begin + size && n < r->neurons; n++) {
        if (value_at(r, layer, expert, token, n)->fired) return false;
    }
    return true;
}

static uint64_t count_groups(const record *r, uint32_t layer, uint32_t expert, uint32_t token, uint32_t size) {
    uint64_t zero = 0;
    for (uint32_t n = 0; n < r->neurons; n += size) zero += group_is_zero(r, layer, expert, token, n, size);
    return zero;
}

/* in_runs: of each neuron, added to. */
static uint64_t count_in_runs(const record *r, uint32_t layer, uint32_t expert, uint32_t tokens, uint32_t run,
                              uint32_t *in_runs) {
    uint64_t fired = 0;
    for (uint32_t begin = 0; begin + run <= tokens; begin += run) {
        for (uint32_t n = 0; n < r->neurons; n++) {
            bool any = false;
            for (uint32_t t = begin; t < begin + run; t++) any = any || value_at(r, layer, expert, t, n)->fired;
            fired += any;
            in_runs[n] += any;
        }
    }
    return fired;
}

/* In units of 1/65536, to the nearest. */
static void add_magnitude(pi2_neuron_statistics *want, uint64_t neuron, float activation) {
    const double size = activation < 0.0f ? -(double)activation : (double)activation;
    const uint64_t units = (uint64_t)(size * 65536.0 + 0.5);
    const uint64_t sum = ((uint64_t)want->columns[7][neuron] << 32 | want->columns[6][neuron]) + units;
    assert_true(size < 1000.0);
    want->columns[6][neuron] = (uint32_t)sum;
    want->columns[7][neuron] = (uint32_t)(sum >> 32);
}

/** Adds a chunk of so many tokens to an entry of the statistics that are wanted. */
static void add_direct(const record *r, uint32_t tokens, pi2_neuron_statistics *want, uint32_t e) {
    pi2_statistics_entry *entry = &want->entries[e];
    const uint32_t layer = entry->layer, expert = entry->expert == UINT32_MAX ? 0 : entry->expert;
    uint64_t *sums = pi2_neuron_statistics_sums(want, entry);
    for (uint32_t t = 0; t < tokens; t++) {
        if (!value_at(r, layer, expert, t, 0)->computed) continue;
        entry->token_count++;
        sums[PI2_SUM_ZERO_TILES] += count_groups(r, layer, expert, t, 16);
        sums[PI2_SUM_ZERO_BLOCKS] += count_groups(r, layer, expert, t, 32);
        const bool follows = t > 0 && value_at(r, layer, expert, t - 1, 0)->computed;
        for (uint32_t n = 0; n < r->neurons; n++) {
            const value *v = value_at(r, layer, expert, t, n);
            want->columns[0][entry->first + n] += v->fired;
            want->columns[1][entry->first + n] += v->zero;
            add_magnitude(want, entry->first + n, v->activation);
            sums[PI2_SUM_AGAIN_POSSIBLE] += v->fired && follows;
            sums[PI2_SUM_AGAIN] += v->fired && follows && value_at(r, layer, expert, t - 1, n)->fired;
        }
    }
    static const uint32_t runs[] = { 2, 4, 8, 32 };
    for (int i = 0; i < 4; i++) {
        uint32_t *in_runs = want->columns[2 + i] + entry->first;
        sums[PI2_SUM_IN_2 + i] += count_in_runs(r, layer, expert, tokens, runs[i], in_runs);
    }
}

static int compare_numbers(const void *a, const void *b) {
    const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

/* A token's number by chance: docs/statistics_format.md. */
static uint64_t number_of(uint64_t text_hash, uint64_t text_bytes, uint64_t position) {
    uint8_t bytes[24];
    pi2_store_le64(bytes, text_hash);
    pi2_store_le64(bytes + 8, text_bytes);
    pi2_store_le64(bytes + 16, position);
    return XXH3_64bits(bytes, sizeof bytes);
}

/** Of a chunk, the 32 tokens with the lowest numbers were sampled, with what fired in them. Returns how many. */
static uint32_t check_samples(const record *r, const pi2_neuron_statistics *got, uint32_t tokens, uint64_t begin,
                              uint64_t text_hash, uint64_t text_bytes) {
    uint64_t numbers[CHUNK];
    uint32_t found = 0;
    for (uint32_t t = 0; t < tokens; t++) numbers[t] = number_of(text_hash, text_bytes, begin + t);
    qsort(numbers, tokens, sizeof *numbers, compare_numbers);
    for (uint32_t t = 0; t < tokens; t++) {
        const uint64_t number = number_of(text_hash, text_bytes, begin + t);
        const uint64_t *at = bsearch(&number, got->samples, got->sample_count, sizeof number, compare_numbers);
        assert_true((at != NULL) == (tokens <= 32 || number <= numbers[31]));
        if (!at) continue;
        const size_t s = (size_t)(at - got->samples);
        found++;
        for (uint32_t e = 0; e < got->entry_count; e++) {
            const pi2_statistics_entry *entry = &got->entries[e];
            const uint32_t expert = entry->expert == UINT32_MAX ? 0 : entry->expert;
            for (uint32_t n = 0; n < entry->neuron_count; n++) {
                const bool bit = got->columns[COLUMNS + s / 32][entry->first + n] >> s % 32 & 1;
                assert_true(bit == value_at(r, entry->layer, expert, t, n)->fired);
            }
        }
    }
    return found;
}

/** Counts a text into statistics that have the entries and columns of what was counted, and compares samples. Returns
 *  how many of those there are. */
static uint32_t count_directly(const char *text_path, const record *r, const pi2_neuron_statistics *got,
                               pi2_neuron_statistics *want) {
    uint32_t samples = 0;
    size_t length, count;
    int32_t *tokens;
    const pi2_neuron_counter counter = { (void *)r, keep_values };
    pi2_session *session;
    pi2_engine *engine = open_engine(1, 1, CHUNK, NULL);
    char *text = (char *)test_file_read(text_path, &length);
    assert_int_equal(pi2_engine_tokenize(engine, text, length, true, false, &tokens, &count), PI2_OK);
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    pi2_forward_set_counter(engine->forward, &counter);
    for (size_t begin = 0; begin < count; begin += CHUNK) {
        const size_t size = count - begin < CHUNK ? count - begin : CHUNK;
        memset(r->values, 0, (size_t)r->layers * r->experts * CHUNK * r->neurons * sizeof *r->values);
        assert_int_equal(pi2_session_truncate(session, 0), PI2_OK);
        if (pi2_engine_bos(engine) >= 0) tokens[begin] = pi2_engine_bos(engine);
        assert_int_equal(pi2_session_append(session, tokens + begin, size, PI2_LOGITS_NONE), PI2_OK);
        for (uint32_t e = 0; e < want->entry_count; e++) add_direct(r, (uint32_t)size, want, e);
        want->token_count += size;
        samples += check_samples(r, got, (uint32_t)size, begin, XXH3_64bits(text, length), length);
    }
    assert_true(count > CHUNK && count % CHUNK != 0);
    pi2_session_free(session);
    free(tokens);
    free(text);
    pi2_engine_close(engine);
    return samples;
}

/* ---- counting ---------------------------------------------------------------------------- */

static pi2_status try_options(pi2_engine *engine, const pi2_profile_options *options) {
    pi2_sparsity *sparsity;
    const pi2_status status = pi2_profile_texts(engine, options, &sparsity);
    assert_true((status == PI2_OK) == (sparsity != NULL));
    pi2_sparsity_free(sparsity);
    pi2_engine_close(engine);
    return status;
}

static pi2_status try_count(pi2_engine *engine, const char *const *texts, const char *output, uint64_t tokens,
                            bool resume) {
    const pi2_profile_options options = { .text_paths = texts, .output_path = output, .text_tokens = tokens,
                                          .resume = resume };
    return try_options(engine, &options);
}

static void count_texts(const char *const *texts, const char *output, uint64_t tokens, bool resume, uint32_t threads,
                        uint32_t batch) {
    if (try_count(open_engine(threads, batch, CHUNK, NULL), texts, output, tokens, resume) != PI2_OK) {
        fail_msg("%s", pi2_error_text());
    }
}

static void expect_same_file(const char *a, const char *b) {
    size_t length, other_length;
    uint8_t *bytes = test_file_read(a, &length), *other = test_file_read(b, &other_length);
    assert_int_equal(length, other_length);
    assert_memory_equal(bytes, other, length);
    free(bytes);
    free(other);
}

static void check_counts(bool experts) {
    const char *const texts[] = { text_paths[0], text_paths[1], NULL };
    pi2_neuron_statistics got, want;
    write_model(experts);
    count_texts(texts, stats_path, 0, false, 3, 7);
    if (pi2_neuron_statistics_read(stats_path, &got) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(got.entry_count, experts ? 10 : 2);
    const record r = { .experts = experts ? 5 : 1, .neurons = got.entries[0].neuron_count, .layers = 2,
                       .values = malloc((size_t)10 * CHUNK * 544 * sizeof(value)) };
    pi2_statistics_entry *entries = malloc(got.entry_count * sizeof *entries);
    for (uint32_t e = 0; e < got.entry_count; e++) {
        entries[e] = got.entries[e];
        entries[e].token_count = 0;
    }
    const uint32_t all = COLUMNS + WORDS;
    assert_int_equal(pi2_neuron_statistics_make(entries, got.entry_count, got.column_ids, all, &want), PI2_OK);
    uint32_t samples = 0;
    for (int i = 0; i < 2; i++) samples += count_directly(text_paths[i], &r, &got, &want);
    assert_true(samples == got.sample_count && samples > 100);
    assert_true(got.token_count == want.token_count && got.text_count == 2 && got.chunk_tokens == CHUNK);
    assert_string_equal(got.activation, "relu");
    for (uint32_t e = 0; e < got.entry_count; e++) {
        assert_true(got.entries[e].token_count == want.entries[e].token_count);
        for (int i = 0; i < PI2_STATISTICS_SUMS; i++) {
            assert_int_equal(got.sums[e * PI2_STATISTICS_SUMS + (size_t)i],
                             want.sums[e * PI2_STATISTICS_SUMS + (size_t)i]);
        }
    }
    for (int c = 0; c < COLUMNS; c++) {
        assert_memory_equal(got.columns[c], want.columns[c], (size_t)got.neuron_total * 4);
    }
    for (uint32_t id = PI2_STATISTICS_IN_2; id <= PI2_STATISTICS_IN_32; id++) { /* a sum is its column's */
        const uint32_t *column = pi2_neuron_statistics_column(&got, id, &got.entries[0]);
        uint64_t sum = 0;
        for (uint32_t n = 0; n < got.entries[0].neuron_count; n++) sum += column[n];
        assert_true(sum == got.sums[PI2_SUM_IN_2 + id - PI2_STATISTICS_IN_2]);
    }
    for (int i = 0; i < PI2_STATISTICS_SUMS; i++) {
        if (i > PI2_SUM_ZERO_BLOCKS) assert_true(got.sums[i] > 0);
    }
    pi2_neuron_statistics_free(&got);
    pi2_neuron_statistics_free(&want);
    free(entries);
    free(r.values);
}

static void dense_layers(void **state) {
    (void)state;
    check_counts(false);
}

static void experts(void **state) {
    (void)state;
    check_counts(true);
}

static void in_parts_as_at_once(void **state) {
    (void)state;
    const char *const all[] = { text_paths[0], text_paths[1], text_paths[2], NULL };
    const char *const last[] = { text_paths[2], text_paths[0], NULL }, *const second[] = { text_paths[1], NULL };
    const char *const parts[] = { stats_path, other_path, NULL };
    write_model(true);
    count_texts(all, merged_path, 0, false, 2, 16);
    /* Go on: first a chunk of one text, then others, then what is left. */
    count_texts(second, stats_path, 1, false, 1, 3);
    count_texts(last, stats_path, CHUNK + 1, true, 2, 50);
    count_texts(all, stats_path, 0, true, 1, 16);
    expect_same_file(stats_path, merged_path);
    count_texts(all, stats_path, 0, true, 1, 16); /* nothing is left */
    expect_same_file(stats_path, merged_path);
    /* Merge: each of two processes counts its own texts. */
    char *at_once = test_path(test_folder, "at_once");
    count_texts(all, at_once, 0, false, 1, 8);
    count_texts(second, stats_path, 0, false, 1, 8);
    count_texts(last, other_path, 0, false, 2, 8);
    pi2_sparsity *sparsity;
    if (pi2_profile_merge(parts, merged_path, &sparsity) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(sparsity->layer_count, 2);
    pi2_sparsity_free(sparsity);
    expect_same_file(merged_path, at_once);
    free(at_once);
}

/* Several processes share the texts, chunk by chunk; one is stopped and goes on; more parts than a text has chunks. */
static void by_several_processes(void **state) {
    (void)state;
    enum { MOST = 11 };
    static const uint32_t shared[] = { 2, 3, MOST };
    const char *const texts[] = { text_paths[0], text_paths[1], NULL };
    char *at_once = test_path(test_folder, "at_once"), *paths[MOST + 1] = { NULL };
    write_model(true);
    for (int i = 0; i < 3; i++) {
        const uint64_t tokens = i == 1 ? CHUNK + 1 : 0;
        count_texts(texts, at_once, tokens, false, 1, 8);
        for (uint32_t part = 0; part < shared[i]; part++) {
            char name[16];
            (void)snprintf(name, sizeof name, "part%u", part);
            paths[part] = test_path(test_folder, name);
            pi2_profile_options options = { .text_paths = texts, .output_path = paths[part], .text_tokens = 1,
                                            .part = part, .part_count = shared[i] };
            for (int resumed = 0; resumed < 2; resumed++) { /* the first chunk, then what is left */
                if (try_options(open_engine(2, 8, CHUNK, NULL), &options) != PI2_OK) fail_msg("%s", pi2_error_text());
                options.text_tokens = tokens;
                options.resume = true;
            }
            options.part = (part + 1) % shared[i];
            assert_int_equal(try_options(open_engine(1, 8, CHUNK, NULL), &options), PI2_ERR_INVALID);
            assert_non_null(strstr(pi2_error_text(), "counted other parts of"));
        }
        pi2_sparsity *sparsity;
        if (pi2_profile_merge((const char *const *)paths, merged_path, &sparsity) != PI2_OK) {
            fail_msg("%s", pi2_error_text());
        }
        pi2_sparsity_free(sparsity);
        expect_same_file(merged_path, at_once);
        for (uint32_t part = 0; part < shared[i]; part++) free(paths[part]);
        memset(paths, 0, sizeof paths);
    }
    free(at_once);
    const pi2_profile_options beyond = { .text_paths = texts, .output_path = stats_path, .part = 2, .part_count = 2 };
    assert_int_equal(try_options(open_engine(1, 8, CHUNK, NULL), &beyond), PI2_ERR_INVALID);
    const pi2_profile_options many = { .text_paths = texts, .output_path = stats_path, .part_count = 65 };
    assert_int_equal(try_options(open_engine(1, 8, CHUNK, NULL), &many), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "64 parts at most"));
}

/* ---- what is refused, and what an end leaves --------------------------------------------- */

static void other_statistics(void **state) {
    (void)state;
    const char *const texts[] = { text_paths[0], NULL }, *const twice[] = { text_paths[0], text_paths[0], NULL };
    const char *const parts[] = { stats_path, other_path, NULL };
    pi2_sparsity *sparsity;
    write_model(true);
    count_texts(texts, stats_path, 0, false, 1, 8);
    assert_int_equal(try_count(open_engine(1, 8, CHUNK - 1, NULL), texts, stats_path, 0, true), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "lengths of chunks"));
    assert_int_equal(try_count(open_engine(1, 8, CHUNK, NULL), twice, other_path, 0, false), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "the same text"));
    assert_int_equal(try_count(open_engine(1, 8, CHUNK, NULL), texts, text_paths[0], 0, false), PI2_ERR_INVALID);
    count_texts(texts, other_path, 0, false, 1, 8);
    assert_int_equal(pi2_profile_merge(parts, merged_path, &sparsity), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "both counted a text"));
    write_model(false);
    assert_int_equal(try_count(open_engine(1, 8, CHUNK, NULL), texts, stats_path, 0, true), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "different models"));
    const char *const second[] = { text_paths[1], NULL };
    count_texts(second, other_path, 0, false, 1, 8);
    assert_int_equal(pi2_profile_merge(parts, merged_path, &sparsity), PI2_ERR_FORMAT);
    assert_null(sparsity);
    FILE *file = fopen(merged_path, "rb");
    assert_null(file);
}

static int calls_left;
static bool ends_soon(void *user) {
    (void)user;
    return calls_left-- <= 0;
}

static void an_end_keeps_whole_chunks(void **state) {
    (void)state;
    const char *const all[] = { text_paths[0], text_paths[1], text_paths[2], NULL };
    pi2_neuron_statistics statistics;
    int kept = 0, nothing = 0;
    write_model(false);
    count_texts(all, merged_path, 0, false, 1, 8);
    for (int calls = 0; calls < 120; calls += 7) {
        (void)remove(stats_path);
        calls_left = 1000;
        pi2_engine *engine = open_engine(1, 8, CHUNK, ends_soon);
        calls_left = calls;
        const pi2_status status = try_count(engine, all, stats_path, 0, false);
        if (status == PI2_OK) break;
        assert_int_equal(status, PI2_ERR_INTERRUPTED);
        if (pi2_neuron_statistics_read(stats_path, &statistics) == PI2_OK) {
            kept++;
            assert_true(statistics.token_count >= CHUNK);
        } else {
            nothing++;
        }
        pi2_neuron_statistics_free(&statistics);
        count_texts(all, stats_path, 0, true, 2, 16);
        expect_same_file(stats_path, merged_path);
    }
    assert_true(kept > 2 && nothing > 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, test_folder_end)
    const struct CMUnitTest tests[] = {
        TEST(dense_layers), TEST(experts), TEST(in_parts_as_at_once), TEST(by_several_processes),
        TEST(other_statistics),
        TEST(an_end_keeps_whole_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
