/* neuron_statistics_add.c: counts of one model, made apart, become one. Sums of whole numbers: no order matters. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "statistics/neuron_samples.h"
#include "statistics/neuron_statistics_internal.h"

static bool has_same_entries(const pi2_neuron_statistics *a, const pi2_neuron_statistics *b) {
    if (a->entry_count != b->entry_count) return false;
    for (uint32_t i = 0; i < a->entry_count; i++) {
        const pi2_statistics_entry *left = &a->entries[i], *right = &b->entries[i];
        if (left->layer != right->layer || left->expert != right->expert ||
            left->neuron_count != right->neuron_count) return false;
    }
    return true;
}

static bool is_sampled(uint32_t column_id) {
    return column_id - PI2_STATISTICS_SAMPLED < PI2_STATISTICS_SAMPLED_COLUMNS;
}

/** Whether it can be added: numbers, halves of numbers, bits of samples. */
static bool is_count(uint32_t column_id) {
    return column_id == PI2_STATISTICS_FIRED || column_id == PI2_STATISTICS_ZEROS ||
           (column_id >= PI2_STATISTICS_MAGNITUDE && column_id <= PI2_STATISTICS_IN_32) || is_sampled(column_id);
}

/** Whether both have the same columns, in one order, and all of them count. */
static bool has_same_counts(const pi2_neuron_statistics *a, const pi2_neuron_statistics *b) {
    if (a->column_count != b->column_count) return false;
    for (uint32_t c = 0; c < a->column_count; c++) {
        if (a->column_ids[c] != b->column_ids[c] || !is_count(a->column_ids[c])) return false;
    }
    return true;
}

pi2_status pi2_neuron_statistics_check_same(const pi2_neuron_statistics *a, const char *a_name,
                                            const pi2_neuron_statistics *b, const char *b_name) {
    if (a->model_hash != b->model_hash || !has_same_entries(a, b)) {
        return pi2_fail(PI2_ERR_FORMAT, "%s and %s cannot be added: they are of different models", a_name, b_name);
    }
    const char *differs = memcmp(a->activation, b->activation, sizeof a->activation) ? "activations of the FFN"
                        : a->chunk_tokens != b->chunk_tokens                         ? "lengths of chunks (-c)"
                        : !has_same_counts(a, b) ? "columns, or such as are no counts" : NULL;
    if (!differs) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "%s and %s cannot be added: they have different %s", a_name, b_name, differs);
}

static pi2_status check(const pi2_neuron_statistics *into, const char *into_name, const pi2_neuron_statistics *from,
                        const char *from_name) {
    PI2_TRY(pi2_neuron_statistics_check_same(into, into_name, from, from_name));
    if (into->text_count == 0 || from->text_count == 0) {
        return pi2_fail(PI2_ERR_INVALID, "%s does not say which texts it counted: it cannot be added to others",
                        into->text_count ? from_name : into_name);
    }
    if (into->token_count + from->token_count > PI2_STATISTICS_MOST_TOKENS ||
        into->text_count + from->text_count > PI2_STATISTICS_MOST_TEXTS) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s and %s cannot be added: together they have more than %" PRIu32
                        " tokens or %d texts", into_name, from_name, PI2_STATISTICS_MOST_TOKENS,
                        (int)PI2_STATISTICS_MOST_TEXTS);
    }
    return PI2_OK;
}

/** Adds other parts of a text that is there, which with its last part becomes whole. NULL, or why they do not fit. */
static const char *join_parts(pi2_statistics_text *into, const pi2_statistics_text *from) {
    if (into->part_count == 1 || from->part_count == 1) return "both counted";
    if (into->part_count != from->part_count) return "divided into different numbers of parts";
    if (into->parts & from->parts) return "both counted a part of";
    if (into->end != from->end) return "counted to different ends parts of";
    into->token_count += from->token_count;
    into->parts |= from->parts;
    if (into->parts == pi2_statistics_all_parts(into->part_count)) into->part_count = 1, into->parts = 1;
    return NULL;
}

/** Both lists in one, in order. Errors  INVALID: a text is in both, and not in parts that fit together */
static pi2_status join_texts(const pi2_neuron_statistics *into, const char *into_name,
                             const pi2_neuron_statistics *from, const char *from_name,
                             pi2_neuron_statistics *joined) {
    for (uint32_t i = 0; i < into->text_count + from->text_count; i++) {
        const pi2_statistics_text *text =
            i < into->text_count ? &into->texts[i] : &from->texts[i - into->text_count];
        const uint32_t before = joined->text_count;
        pi2_statistics_text *place = pi2_neuron_statistics_text(joined, text->bytes, text->hash);
        if (!place) return PI2_ERR_MEMORY;
        if (joined->text_count > before) {
            *place = *text;
            continue;
        }
        const char *wrong = join_parts(place, text);
        if (!wrong) continue;
        return pi2_fail(PI2_ERR_INVALID, "%s and %s %s a text of %" PRIu64 " bytes: they cannot be added", into_name,
                        from_name, wrong, text->bytes);
    }
    return PI2_OK;
}

/** Numbers of 64 bits, of which each of two columns has half. */
static void add_magnitudes(pi2_neuron_statistics *into, const pi2_neuron_statistics *from) {
    if (!pi2_neuron_statistics_column(into, PI2_STATISTICS_MAGNITUDE, &into->entries[0])) return;
    for (uint32_t e = 0; e < into->entry_count; e++) {
        const pi2_statistics_entry *entry = &into->entries[e];
        for (uint32_t i = 0; i < entry->neuron_count; i++) {
            const uint64_t units = pi2_neuron_statistics_magnitude(from, &from->entries[e], i);
            pi2_neuron_statistics_add_magnitude(into, entry, i, units);
        }
    }
}

/** Whether a column's numbers are added one by one. */
static bool is_plain(uint32_t column_id) {
    return column_id != PI2_STATISTICS_MAGNITUDE && column_id != PI2_STATISTICS_MAGNITUDE_HIGH &&
           !is_sampled(column_id);
}

pi2_status pi2_neuron_statistics_add(pi2_neuron_statistics *into, const char *into_name,
                                     const pi2_neuron_statistics *from, const char *from_name) {
    pi2_neuron_statistics joined = { 0 };
    PI2_TRY(check(into, into_name, from, from_name));
    pi2_status status = join_texts(into, into_name, from, from_name, &joined);
    if (status == PI2_OK && pi2_neuron_samples_share_one(into, from)) {
        status = pi2_fail(PI2_ERR_INVALID, "%s and %s both sampled one token: it would count twice", into_name,
                          from_name);
    }
    if (status != PI2_OK) {
        pi2_neuron_statistics_free(&joined);
        return status;
    }
    free(into->texts);
    into->texts = joined.texts;
    into->text_count = joined.text_count;
    into->token_count += from->token_count;
    for (uint32_t i = 0; i < into->entry_count; i++) into->entries[i].token_count += from->entries[i].token_count;
    const size_t sums = (size_t)into->entry_count * PI2_STATISTICS_SUMS;
    for (size_t i = 0; i < sums; i++) into->sums[i] += from->sums[i];
    add_magnitudes(into, from);
    if (from->sample_count > 0) pi2_neuron_samples_add(into, from);
    for (uint32_t c = 0; c < into->column_count; c++) {
        if (!is_plain(into->column_ids[c])) continue;
        for (uint64_t i = 0; i < into->neuron_total; i++) into->columns[c][i] += from->columns[c][i];
    }
    return PI2_OK;
}
