/* Goal:   statistics come back from a file as they were written; what was cut, altered or made up is refused by name
 *         and place; a failed write leaves nothing.
 * Method: random statistics of dense layers and experts; every byte changed, every length cut; numbers that break one
 *         rule each, under a checksum that is right. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <xxhash.h>

#include "base/little_endian.h"
#include "base/permutation.h"
#include "statistics/neuron_samples.h"
#include "statistics/neuron_statistics.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { UNKNOWN_COLUMN = 4000, HEADER_BYTES = 72, ENTRY_BYTES = 88, TEXT_BYTES = 48, TEXTS = 2, ENTRIES = 4 };

static char *path;

static const pi2_statistics_entry entries[ENTRIES] = {
    { .layer = 0, .expert = UINT32_MAX, .neuron_count = 70, .token_count = 100 },
    { .layer = 3, .expert = 0, .neuron_count = 33, .token_count = 40 },
    { .layer = 3, .expert = 2, .neuron_count = 33, .token_count = 0 },
    { .layer = 4, .expert = 1, .neuron_count = 1, .token_count = 7 },
};
static const uint32_t columns[] = { PI2_STATISTICS_ORDER, UNKNOWN_COLUMN, PI2_STATISTICS_FIRED };

static int set_up(void **state) {
    (void)test_folder_begin_in_memory(state);
    path = test_folder_path("statistics");
    return 0;
}

static void count_text(pi2_neuron_statistics *statistics, uint64_t bytes, uint64_t hash, uint64_t tokens) {
    pi2_statistics_text *text = pi2_neuron_statistics_text(statistics, bytes, hash);
    text->token_count = text->end = tokens;
}

/** The second text's counts are those of two of three parts: of its three chunks the first and the last. */
static void fill(pi2_neuron_statistics *statistics) {
    uint64_t random = 5;
    assert_int_equal(pi2_neuron_statistics_make(entries, ENTRIES, columns, 3, statistics), PI2_OK);
    statistics->model_hash = 0x1234567890abcdef;
    statistics->token_count = 1000;
    statistics->chunk_tokens = 512;
    memcpy(statistics->activation, "drelu", 6);
    count_text(statistics, 70, 8, 400);
    count_text(statistics, 90, 8, 1112);
    statistics->texts[1].part_count = 3;
    statistics->texts[1].parts = 5;
    statistics->texts[1].token_count = 600;
    for (uint32_t e = 0; e < ENTRIES; e++) {
        const pi2_statistics_entry *entry = &statistics->entries[e];
        uint64_t *sums = pi2_neuron_statistics_sums(statistics, entry);
        for (int i = 0; i < PI2_STATISTICS_SUMS; i++) sums[i] = entry->token_count ? (uint64_t)i % 3 : 0;
        uint32_t *order = pi2_neuron_statistics_column(statistics, PI2_STATISTICS_ORDER, entry);
        uint32_t *fired = pi2_neuron_statistics_column(statistics, PI2_STATISTICS_FIRED, entry);
        uint32_t *unknown = pi2_neuron_statistics_column(statistics, UNKNOWN_COLUMN, entry);
        for (uint32_t i = 0; i < entry->neuron_count; i++) {
            const uint32_t other = (uint32_t)(pi2_tiny_random(&random) % (i + 1));
            order[i] = order[other];
            order[other] = i;
            fired[i] = (uint32_t)(pi2_tiny_random(&random) % (entry->token_count + 1));
            unknown[i] = (uint32_t)pi2_tiny_random(&random);
        }
    }
}

static void write_good(pi2_neuron_statistics *statistics) {
    fill(statistics);
    if (pi2_neuron_statistics_write(path, statistics) != PI2_OK) fail_msg("%s", pi2_error_text());
}

static void test_comes_back(void **state) {
    (void)state;
    pi2_neuron_statistics written, read;
    write_good(&written);
    if (pi2_neuron_statistics_read(path, &read) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_true(read.model_hash == written.model_hash && read.token_count == written.token_count);
    assert_true(read.neuron_total == 137 && read.checksum == written.checksum && read.checksum != 0);
    for (uint32_t e = 0; e < ENTRIES; e++) {
        const pi2_statistics_entry *entry = pi2_neuron_statistics_find(&read, entries[e].layer, entries[e].expert);
        assert_non_null(entry);
        assert_true(entry->token_count == entries[e].token_count);
        assert_memory_equal(pi2_neuron_statistics_sums(&read, entry),
                            pi2_neuron_statistics_sums(&written, &written.entries[e]), PI2_STATISTICS_SUMS * 8);
        for (uint32_t c = 0; c < 3; c++) {
            assert_memory_equal(pi2_neuron_statistics_column(&read, columns[c], entry),
                                pi2_neuron_statistics_column(&written, columns[c], &written.entries[e]),
                                entries[e].neuron_count * sizeof(uint32_t));
        }
    }
    assert_int_equal(read.chunk_tokens, 512);
    assert_string_equal(read.activation, "drelu");
    assert_int_equal(read.text_count, TEXTS);
    assert_true(read.texts[0].bytes == 70 && read.texts[0].end == 400 && read.texts[0].part_count == 1);
    assert_true(read.texts[1].bytes == 90 && read.texts[1].end == 1112 && read.texts[1].parts == 5);
    for (uint32_t t = 0; t < TEXTS; t++) {
        assert_true(read.texts[t].hash == 8 && read.texts[t].token_count == written.texts[t].token_count);
        assert_int_equal(read.texts[t].part_count, t == 0 ? 1 : 3);
    }
    assert_null(pi2_neuron_statistics_find(&read, 3, 1));
    assert_null(pi2_neuron_statistics_find(&read, 9, 0));
    assert_null(pi2_neuron_statistics_column(&read, 77, &read.entries[0]));
    pi2_neuron_statistics_free(&read);
    pi2_neuron_statistics_free(&written);
}

static void test_every_changed_byte_is_found(void **state) {
    (void)state;
    pi2_neuron_statistics statistics;
    size_t bytes;
    write_good(&statistics);
    pi2_neuron_statistics_free(&statistics);
    uint8_t *file = test_file_read(path, &bytes);
    for (size_t at = 0; at < bytes; at++) {
        file[at] ^= 0x20;
        test_file_write(path, file, bytes);
        const pi2_status status = pi2_neuron_statistics_read(path, &statistics);
        assert_true(status == PI2_ERR_FORMAT || (status == PI2_ERR_UNSUPPORTED && at >= 8 && at < 12));
        assert_non_null(strstr(pi2_error_text(), path));
        file[at] ^= 0x20;
    }
    for (size_t length = 0; length < bytes; length++) {
        test_file_write(path, file, length);
        assert_int_equal(pi2_neuron_statistics_read(path, &statistics), PI2_ERR_FORMAT);
    }
    free(file);
}

/** Writes good statistics with one number changed and the checksum made right, and expects a refusal. */
static void expect_refused(size_t at, uint32_t value, const char *reason) {
    pi2_neuron_statistics statistics;
    size_t bytes;
    write_good(&statistics);
    pi2_neuron_statistics_free(&statistics);
    uint8_t *file = test_file_read(path, &bytes);
    assert_true(at + 4 <= bytes - 8);
    pi2_store_le32(file + at, value);
    pi2_store_le64(file + bytes - 8, XXH3_64bits(file, bytes - 8));
    test_file_write(path, file, bytes);
    free(file);
    assert_int_equal(pi2_neuron_statistics_read(path, &statistics), PI2_ERR_FORMAT);
    if (!strstr(pi2_error_text(), reason)) fail_msg("wanted '%s', got: %s", reason, pi2_error_text());
    assert_null(statistics.entries);
}

static void test_made_up_numbers_are_refused(void **state) {
    (void)state;
    const size_t entry = HEADER_BYTES, texts = HEADER_BYTES + ENTRIES * ENTRY_BYTES;
    const size_t ids = texts + TEXTS * TEXT_BYTES, numbers = ids + 12;
    expect_refused(12, 5, "another end");
    expect_refused(16, 4, "another end");
    expect_refused(16, 33, "impossible numbers");
    expect_refused(40, 138, "another end");
    expect_refused(44, 1, "impossible numbers");
    expect_refused(20, 3, "another end");
    expect_refused(20, UINT32_MAX, "impossible numbers");
    expect_refused(36, 1, "impossible texts");                /* tokens */
    expect_refused(48, 0, "impossible texts");                /* chunks of nothing */
    expect_refused(56, 0x1b1b1b1b, "impossible texts");       /* no name */
    expect_refused(68, 0x61000000, "impossible texts");       /* a name without an end */
    expect_refused(texts, 90, "impossible texts");            /* a text twice */
    expect_refused(texts + 16, 399, "impossible texts");      /* not the sum of the header */
    expect_refused(texts + 24, 401, "impossible texts");      /* not so many tokens as are counted */
    expect_refused(texts + 32, 0, "impossible texts");        /* no part */
    expect_refused(texts + 32, 3, "impossible texts");        /* more parts than it has */
    expect_refused(texts + 40, 0, "impossible texts");
    expect_refused(texts + TEXT_BYTES + 32, 7, "impossible texts"); /* all of its parts, and not whole */
    expect_refused(texts + TEXT_BYTES + 32, 3, "impossible texts"); /* other parts have other tokens */
    expect_refused(texts + TEXT_BYTES + 32, 13, "impossible texts");
    expect_refused(texts + TEXT_BYTES + 40, 2, "impossible texts");  /* the third part of two */
    expect_refused(texts + TEXT_BYTES + 40, 65, "impossible texts");
    expect_refused(entry + 16, 1001, "sums of layer 0");      /* more tokens than the texts have */
    expect_refused(entry + 24, 501, "sums of layer 0");       /* tiles: 5 of 100 tokens */
    expect_refused(entry + 24 + 8, 301, "sums of layer 0");   /* blocks: 3 */
    expect_refused(entry + 24 + 24, 3, "sums of layer 0");    /* more than are possible: 2 */
    expect_refused(entry + 24 + 60, 1, "sums of layer 0");
    expect_refused(entry + ENTRY_BYTES, 5, "impossible layers");     /* a layer above the next one's */
    expect_refused(entry + ENTRY_BYTES + 4, 2, "impossible layers"); /* an expert twice */
    expect_refused(entry + 8, 0, "impossible layers");
    expect_refused(entry + 8, 71, "impossible layers");       /* not the sum of the header */
    expect_refused(entry + 8, UINT32_MAX, "impossible layers");
    expect_refused(ids + 4, PI2_STATISTICS_FIRED, "impossible columns");
    expect_refused(numbers + 4 * 5, 70, "order of layer 0");
    expect_refused(numbers + 4 * (137 + 137 + 5), 101, "counts of layer 0");
    expect_refused(numbers + 4 * (137 + 137 + 70), 41, "counts of layer 3");
}

/** Statistics of counts with one number changed are not written. */
static void expect_not_written(const uint32_t *ids, uint32_t changed, uint32_t value, const char *reason) {
    pi2_neuron_statistics statistics;
    assert_int_equal(pi2_neuron_statistics_make(entries, ENTRIES, ids, 3, &statistics), PI2_OK);
    statistics.token_count = 1000;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pi2_neuron_statistics_write(path, &statistics), i ? PI2_ERR_INVALID : PI2_OK);
        statistics.columns[changed][5] = value;
    }
    if (!strstr(pi2_error_text(), reason)) fail_msg("wanted '%s', got: %s", reason, pi2_error_text());
    pi2_neuron_statistics_free(&statistics);
}

static void test_counts_beyond_tokens_are_refused(void **state) {
    (void)state;
    static const uint32_t ids[] = { PI2_STATISTICS_FIRED, PI2_STATISTICS_MAGNITUDE, PI2_STATISTICS_MAGNITUDE_HIGH };
    static const uint32_t runs[] = { PI2_STATISTICS_FIRED, PI2_STATISTICS_IN_2, PI2_STATISTICS_IN_32 };
    static const uint32_t alone[] = { PI2_STATISTICS_IN_4, PI2_STATISTICS_IN_8, PI2_STATISTICS_IN_32 };
    expect_not_written(ids, 2, 50 + 1, "counts of layer 0"); /* 100 tokens of 2^31 are 50 * 2^32 */
    expect_not_written(runs, 1, 1, "are more than its firings");
    expect_not_written(runs, 2, 101, "counts of layer 0");
    expect_not_written(alone, 2, 101, "are more than its tokens");
}

static void test_order_with_a_neuron_twice(void **state) {
    (void)state;
    pi2_neuron_statistics statistics;
    fill(&statistics);
    uint32_t *order = pi2_neuron_statistics_column(&statistics, PI2_STATISTICS_ORDER, &statistics.entries[1]);
    order[3] = order[4];
    assert_int_equal(pi2_neuron_statistics_write(path, &statistics), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "order of layer 3"));
    DIR *opened = opendir(test_folder);
    size_t count = 0;
    while (readdir(opened)) count++;
    assert_int_equal(closedir(opened), 0);
    assert_int_equal(count, 2); /* "." and "..": nothing was written */
    pi2_neuron_statistics_free(&statistics);
}

static void test_impossible_statistics(void **state) {
    (void)state;
    pi2_neuron_statistics statistics;
    const uint32_t twice[] = { 1, 1 };
    const pi2_statistics_entry swapped[] = { entries[1], entries[0] };
    assert_int_equal(pi2_neuron_statistics_make(entries, 0, columns, 1, &statistics), PI2_ERR_INVALID);
    assert_int_equal(pi2_neuron_statistics_make(entries, 1, columns, 0, &statistics), PI2_ERR_INVALID);
    assert_int_equal(pi2_neuron_statistics_make(entries, 1, twice, 2, &statistics), PI2_ERR_INVALID);
    const uint32_t low[] = { PI2_STATISTICS_FIRED, PI2_STATISTICS_MAGNITUDE }; /* the other half is missing */
    assert_int_equal(pi2_neuron_statistics_make(entries, 1, low, 2, &statistics), PI2_ERR_INVALID);
    assert_int_equal(pi2_neuron_statistics_make(swapped, 2, columns, 1, &statistics), PI2_ERR_INVALID);
    char *absent = test_path(test_folder, "absent/statistics");
    fill(&statistics);
    assert_int_equal(pi2_neuron_statistics_write(absent, &statistics), PI2_ERR_IO);
    pi2_neuron_statistics_free(&statistics);
    assert_int_equal(pi2_neuron_statistics_read(absent, &statistics), PI2_ERR_IO);
    assert_int_equal(pi2_neuron_statistics_read(test_folder, &statistics), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "a folder"));
    free(absent);
}

/* ---- samples ---- */

enum { WORDS = PI2_STATISTICS_SAMPLED_COLUMNS };
static const uint32_t sampled[] = { PI2_STATISTICS_FIRED, 16, 17, 18, 19, 20, 21, 22, 23 };

/** Whether a neuron of an entry fires in a token, by chance but always the same. */
static bool fires(uint64_t number, uint64_t neuron) {
    uint64_t random = number ^ neuron * 77777;
    return pi2_tiny_random(&random) % 3 == 0;
}

static void make_sampled(pi2_neuron_statistics *statistics, uint64_t text) {
    assert_int_equal(pi2_neuron_statistics_make(entries, ENTRIES, sampled, 1 + WORDS, statistics), PI2_OK);
    statistics->chunk_tokens = 64;
    count_text(statistics, text, 5, 0);
}

/** Takes a chunk's samples, with the bits of all neurons. */
static void sample_chunk(pi2_neuron_statistics *statistics, uint64_t chunk) {
    pi2_neuron_sample samples[PI2_CHUNK_SAMPLES];
    uint64_t numbers[PI2_CHUNK_SAMPLES];
    int16_t places[PI2_CHUNK_SAMPLES];
    pi2_statistics_text *text = &statistics->texts[0];
    const uint32_t count = pi2_neuron_samples_of_chunk(text, 64 * chunk, 64, samples);
    assert_int_equal(count, PI2_CHUNK_SAMPLES);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(samples[i].position < 64 && (i == 0 || samples[i - 1].position < samples[i].position));
        numbers[i] = samples[i].number;
    }
    pi2_neuron_samples_take(statistics, numbers, count, places);
    for (uint32_t i = 0; i < count; i++) {
        for (uint64_t n = 0; n < statistics->neuron_total && places[i] >= 0; n++) {
            uint32_t *word = &statistics->columns[1 + places[i] / 32][n];
            assert_false(*word >> places[i] % 32 & 1);
            if (fires(numbers[i], n)) *word |= UINT32_C(1) << places[i] % 32;
        }
    }
    text->token_count = text->end = text->end + 64;
    statistics->token_count += 64;
}

static void check_bits(const pi2_neuron_statistics *statistics) {
    for (uint32_t s = 0; s < PI2_STATISTICS_SAMPLES; s++) {
        for (uint64_t n = 0; n < statistics->neuron_total; n++) {
            const bool has_bit = statistics->columns[1 + s / 32][n] >> s % 32 & 1;
            assert_true(has_bit == (s < statistics->sample_count && fires(statistics->samples[s], n)));
        }
    }
}

/* In whatever order chunks come, and however they are shared, the same tokens are kept, each with its bits. */
static void test_samples_do_not_depend_on_the_order(void **state) {
    (void)state;
    enum { CHUNKS = 24 };
    uint64_t first[PI2_STATISTICS_SAMPLES] = { 0 };
    for (uint64_t step = 1; step < 12; step += 2) {
        pi2_neuron_statistics parts[3], read;
        for (int p = 0; p < 3; p++) make_sampled(&parts[p], 1);
        for (uint64_t i = 0; i < CHUNKS; i++) {
            const uint64_t chunk = i * (step == 3 || step == 9 ? 5 : step) % CHUNKS;
            sample_chunk(&parts[step == 1 ? 0 : chunk % 3], chunk);
        }
        for (int p = 1; p < 3 && step > 1; p++) {
            assert_false(pi2_neuron_samples_share_one(&parts[0], &parts[p]));
            pi2_neuron_samples_add(&parts[0], &parts[p]);
        }
        check_bits(&parts[0]);
        assert_int_equal(parts[0].sample_count, PI2_STATISTICS_SAMPLES);
        parts[0].token_count = parts[0].texts[0].token_count = parts[0].texts[0].end = 64 * CHUNKS;
        if (pi2_neuron_statistics_write(path, &parts[0]) != PI2_OK) fail_msg("%s", pi2_error_text());
        assert_int_equal(pi2_neuron_statistics_read(path, &read), PI2_OK);
        check_bits(&read);
        if (step == 1) memcpy(first, read.samples, sizeof first);
        assert_memory_equal(read.samples, first, sizeof first);
        pi2_neuron_statistics_free(&read);
        for (int p = 0; p < 3; p++) pi2_neuron_statistics_free(&parts[p]);
    }
}

static void test_impossible_samples(void **state) {
    (void)state;
    pi2_neuron_statistics statistics;
    assert_int_equal(pi2_neuron_statistics_make(entries, 1, sampled + 1, WORDS - 1, &statistics), PI2_ERR_INVALID);
    make_sampled(&statistics, 1);
    for (uint64_t chunk = 0; chunk < 2; chunk++) sample_chunk(&statistics, chunk);
    assert_int_equal(pi2_neuron_statistics_write(path, &statistics), PI2_OK); /* which puts them in order */
    statistics.columns[3][5] = 1; /* of a 65th token */
    assert_int_equal(pi2_neuron_statistics_write(path, &statistics), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "are of more tokens than were sampled"));
    statistics.columns[3][5] = 0;
    statistics.samples[3] = statistics.samples[4]; /* one token twice */
    assert_int_equal(pi2_neuron_statistics_write(path, &statistics), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "impossible samples"));
    pi2_neuron_statistics_free(&statistics);
    make_sampled(&statistics, 1);
    sample_chunk(&statistics, 0);
    statistics.token_count = statistics.texts[0].token_count = statistics.texts[0].end = 31;
    assert_int_equal(pi2_neuron_statistics_write(path, &statistics), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "impossible samples"));
    pi2_neuron_statistics_free(&statistics);
}

/* ---- adding ---- */

enum { MERGED = 3, COUNTS = 4, MAGNITUDES = 2 };
static const uint32_t counts[] = { PI2_STATISTICS_FIRED, PI2_STATISTICS_ZEROS, PI2_STATISTICS_MAGNITUDE_HIGH,
                                   PI2_STATISTICS_MAGNITUDE };

/** Counts of one of several texts. */
static void fill_counts(pi2_neuron_statistics *statistics, uint64_t text) {
    uint64_t random = text;
    assert_int_equal(pi2_neuron_statistics_make(entries, ENTRIES, counts, COUNTS, statistics), PI2_OK);
    statistics->model_hash = 3;
    statistics->token_count = 100 + text;
    statistics->chunk_tokens = 64;
    count_text(statistics, text, 99 - text, 100 + text);
    for (uint32_t e = 0; e < ENTRIES; e++) {
        const pi2_statistics_entry *entry = &statistics->entries[e];
        for (int i = 0; i < PI2_STATISTICS_SUMS; i++) {
            pi2_neuron_statistics_sums(statistics, entry)[i] = entry->token_count ? text : 0;
        }
        for (uint32_t i = 0; i < entry->neuron_count; i++) {
            for (uint32_t c = 0; c < MAGNITUDES; c++) {
                statistics->columns[c][entry->first + i] =
                    (uint32_t)(pi2_tiny_random(&random) % (entry->token_count / 2 + 1));
            }
            const uint64_t most = entry->token_count * PI2_STATISTICS_MOST_MAGNITUDE;
            const uint64_t magnitude = pi2_tiny_random(&random) % (most + 1);
            statistics->columns[2][entry->first + i] = (uint32_t)(magnitude >> 32);
            statistics->columns[3][entry->first + i] = (uint32_t)magnitude;
        }
    }
}

/** Adds the texts in the order, and gives the bytes of the file. */
static uint8_t *add_in_order(const uint64_t order[MERGED], size_t *bytes_out) {
    pi2_neuron_statistics into, from;
    fill_counts(&into, order[0]);
    for (int i = 1; i < MERGED; i++) {
        fill_counts(&from, order[i]);
        const uint32_t want = into.columns[1][70] + from.columns[1][70];
        const uint64_t magnitude = pi2_neuron_statistics_magnitude(&into, &into.entries[0], 7) +
                                   pi2_neuron_statistics_magnitude(&from, &from.entries[0], 7);
        assert_true(magnitude > UINT32_MAX);
        if (pi2_neuron_statistics_add(&into, "a", &from, "b") != PI2_OK) fail_msg("%s", pi2_error_text());
        assert_int_equal(into.columns[1][70], want);
        assert_true(pi2_neuron_statistics_magnitude(&into, &into.entries[0], 7) == magnitude);
        pi2_neuron_statistics_free(&from);
    }
    assert_int_equal(into.entries[0].token_count, MERGED * entries[0].token_count);
    assert_true(into.token_count == 300 + order[0] + order[1] + order[2]);
    /* Runs of 32: of 100 + n tokens in chunks of 64, 3 each. */
    assert_int_equal(pi2_neuron_statistics_runs(&into, 3), 3 * MERGED);
    for (uint32_t e = 0; e < ENTRIES; e++) into.entries[e].token_count = entries[e].token_count ? 300 : 0;
    if (pi2_neuron_statistics_write(path, &into) != PI2_OK) fail_msg("%s", pi2_error_text());
    pi2_neuron_statistics_free(&into);
    return test_file_read(path, bytes_out);
}

static void test_added_in_any_order(void **state) {
    (void)state;
    const uint64_t orders[][MERGED] = { { 1, 2, 3 }, { 3, 1, 2 }, { 2, 3, 1 } };
    size_t bytes, other_bytes;
    uint8_t *file = add_in_order(orders[0], &bytes);
    for (int i = 1; i < 3; i++) {
        uint8_t *other = add_in_order(orders[i], &other_bytes);
        assert_int_equal(other_bytes, bytes);
        assert_memory_equal(other, file, bytes);
        free(other);
    }
    free(file);
}

/** Counts of some of the four parts of one text of 5 chunks and a rest. */
static void fill_parts(pi2_neuron_statistics *statistics, uint64_t parts, uint64_t end) {
    static const uint64_t tokens[] = { 128, 74, 64, 64 }; /* chunks 0 and 4, 1 and 5 (the rest), 2, 3 */
    fill_counts(statistics, 1);
    pi2_statistics_text *text = &statistics->texts[0];
    text->part_count = 4;
    text->parts = parts;
    text->end = end;
    text->token_count = 0;
    for (int part = 0; part < 4; part++) text->token_count += parts >> part & 1 ? tokens[part] : 0;
    statistics->token_count = text->token_count;
}

/* Parts of a text make it whole in any order; before, it is not. */
static void test_parts_become_whole(void **state) {
    (void)state;
    static const uint64_t orders[][3] = { { 1, 4, 10 }, { 10, 1, 4 }, { 4, 10, 1 } };
    for (int i = 0; i < 3; i++) {
        pi2_neuron_statistics into, from;
        fill_parts(&into, orders[i][0], 330);
        for (int k = 1; k < 3; k++) {
            fill_parts(&from, orders[i][k], 330);
            if (pi2_neuron_statistics_add(&into, "a", &from, "b") != PI2_OK) fail_msg("%s", pi2_error_text());
            pi2_neuron_statistics_free(&from);
            assert_int_equal(into.text_count, 1);
            assert_int_equal(into.texts[0].part_count, k == 1 ? 4 : 1);
        }
        assert_true(into.texts[0].parts == 1 && into.texts[0].token_count == 330 && into.token_count == 330);
        for (uint32_t e = 0; e < ENTRIES; e++) into.entries[e].token_count = entries[e].token_count ? 330 : 0;
        if (pi2_neuron_statistics_write(path, &into) != PI2_OK) fail_msg("%s", pi2_error_text());
        pi2_neuron_statistics_free(&into);
    }
}

static void expect_parts_not_added(uint64_t parts, uint64_t other_parts, uint32_t other_count, uint64_t other_end,
                                   const char *reason) {
    pi2_neuron_statistics into, from;
    fill_parts(&into, parts, 330);
    fill_parts(&from, other_parts, other_end);
    from.texts[0].part_count = other_count;
    assert_int_equal(pi2_neuron_statistics_add(&into, "a", &from, "b"), PI2_ERR_INVALID);
    if (!strstr(pi2_error_text(), reason)) fail_msg("wanted '%s', got: %s", reason, pi2_error_text());
    pi2_neuron_statistics_free(&into);
    pi2_neuron_statistics_free(&from);
}

static void test_parts_that_do_not_fit(void **state) {
    (void)state;
    expect_parts_not_added(1, 3, 4, 330, "a and b both counted a part of a text of 1 bytes");
    expect_parts_not_added(1, 2, 3, 330, "divided into different numbers of parts a text");
    expect_parts_not_added(1, 2, 4, 320, "counted to different ends parts of a text");
    expect_parts_not_added(1, 1, 1, 330, "both counted a text");
}

static void expect_not_added(pi2_neuron_statistics *from, pi2_status status, const char *reason) {
    pi2_neuron_statistics into, before;
    fill_counts(&into, 1);
    fill_counts(&before, 1);
    assert_int_equal(pi2_neuron_statistics_add(&into, "a", from, "b"), status);
    if (!strstr(pi2_error_text(), reason)) fail_msg("wanted '%s', got: %s", reason, pi2_error_text());
    assert_true(into.token_count == before.token_count && into.text_count == before.text_count);
    assert_memory_equal(into.columns[0], before.columns[0], (size_t)before.neuron_total * 4);
    pi2_neuron_statistics_free(&into);
    pi2_neuron_statistics_free(&before);
    pi2_neuron_statistics_free(from);
}

static void test_what_cannot_be_added(void **state) {
    (void)state;
    pi2_neuron_statistics from;
    fill_counts(&from, 1);
    expect_not_added(&from, PI2_ERR_INVALID, "both counted a text of 1 bytes");
    fill_counts(&from, 2);
    from.model_hash++;
    expect_not_added(&from, PI2_ERR_FORMAT, "different models");
    fill_counts(&from, 2);
    from.entries[3].neuron_count++;
    expect_not_added(&from, PI2_ERR_FORMAT, "different models");
    fill_counts(&from, 2);
    from.activation[0] = 'r';
    expect_not_added(&from, PI2_ERR_INVALID, "different activations");
    fill_counts(&from, 2);
    from.chunk_tokens++;
    expect_not_added(&from, PI2_ERR_INVALID, "different lengths of chunks");
    fill_counts(&from, 2);
    from.column_ids[1] = PI2_STATISTICS_ORDER;
    expect_not_added(&from, PI2_ERR_INVALID, "different columns");
    fill_counts(&from, 2);
    from.text_count = 0;
    expect_not_added(&from, PI2_ERR_INVALID, "b does not say which texts");
    fill_counts(&from, 2);
    from.token_count = UINT32_MAX - 100;
    expect_not_added(&from, PI2_ERR_UNSUPPORTED, "more than 4294967295 tokens");
}

static void test_permutations(void **state) {
    (void)state;
    const uint32_t good[] = { 8, 0, 3, 1, 2, 7, 4, 6, 5 };
    bool is_permutation = false;
    assert_int_equal(pi2_permutation_check(good, 9, &is_permutation), PI2_OK);
    assert_true(is_permutation);
    assert_int_equal(pi2_permutation_check(good, 8, &is_permutation), PI2_OK); /* 8 is one too many, 5 missing */
    assert_false(is_permutation);
    uint32_t bad[9];
    for (uint32_t i = 0; i < 9; i++) {
        memcpy(bad, good, sizeof bad);
        bad[i] = good[(i + 1) % 9];
        assert_int_equal(pi2_permutation_check(bad, 9, &is_permutation), PI2_OK);
        assert_false(is_permutation);
    }
    assert_int_equal(pi2_permutation_check(good, 0, &is_permutation), PI2_OK);
    assert_true(is_permutation);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, test_folder_end)
    const struct CMUnitTest tests[] = {
        TEST(test_comes_back),
        TEST(test_every_changed_byte_is_found),
        TEST(test_made_up_numbers_are_refused),
        TEST(test_counts_beyond_tokens_are_refused),
        TEST(test_order_with_a_neuron_twice),
        TEST(test_impossible_statistics),
        TEST(test_samples_do_not_depend_on_the_order),
        TEST(test_impossible_samples),
        TEST(test_added_in_any_order),
        TEST(test_parts_become_whole),
        TEST(test_parts_that_do_not_fit),
        TEST(test_what_cannot_be_added),
        TEST(test_permutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
