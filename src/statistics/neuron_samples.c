/* neuron_samples.c: the tokens with the lowest numbers, and the bits of neurons that go with them. */
#include "statistics/neuron_samples.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "base/little_endian.h"

enum { WORDS = PI2_STATISTICS_SAMPLES / 32 };

/* ---- which tokens ---- */

static int compare_numbers(const void *a, const void *b) {
    const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static int compare_positions(const void *a, const void *b) {
    const uint32_t left = ((const pi2_neuron_sample *)a)->position, right = ((const pi2_neuron_sample *)b)->position;
    return left < right ? -1 : left > right;
}

static uint64_t number_of(const pi2_statistics_text *text, uint64_t position) {
    uint8_t bytes[24];
    pi2_store_le64(bytes, text->hash);
    pi2_store_le64(bytes + 8, text->bytes);
    pi2_store_le64(bytes + 16, position);
    return XXH3_64bits(bytes, sizeof bytes);
}

uint32_t pi2_neuron_samples_of_chunk(const pi2_statistics_text *text, uint64_t begin, size_t token_count,
                                     pi2_neuron_sample samples_out[PI2_CHUNK_SAMPLES]) {
    uint32_t count = 0;
    for (size_t i = 0; i < token_count; i++) {
        const pi2_neuron_sample sample = { number_of(text, begin + i), (uint32_t)i };
        uint32_t highest = 0;
        if (count < PI2_CHUNK_SAMPLES) {
            samples_out[count++] = sample;
            continue;
        }
        for (uint32_t k = 1; k < count; k++) {
            if (samples_out[k].number > samples_out[highest].number) highest = k;
        }
        if (sample.number < samples_out[highest].number) samples_out[highest] = sample;
    }
    qsort(samples_out, count, sizeof *samples_out, compare_positions);
    return count;
}

bool pi2_neuron_samples_share_one(const pi2_neuron_statistics *a, const pi2_neuron_statistics *b) {
    for (uint32_t i = 0; i < a->sample_count; i++) {
        for (uint32_t k = 0; k < b->sample_count; k++) {
            if (a->samples[i] == b->samples[k]) return true;
        }
    }
    return false;
}

/* ---- their bits ---- */

/** Column w of the bits, of all neurons. */
static uint32_t *bits_of(const pi2_neuron_statistics *statistics, uint32_t w) {
    return pi2_neuron_statistics_column(statistics, PI2_STATISTICS_SAMPLED + w, &statistics->entries[0]);
}

static void clear_bits(pi2_neuron_statistics *statistics, const uint32_t gone[WORDS]) {
    for (uint32_t w = 0; w < WORDS; w++) {
        uint32_t *bits = bits_of(statistics, w);
        for (uint64_t i = 0; gone[w] && i < statistics->neuron_total; i++) bits[i] &= ~gone[w];
    }
}

void pi2_neuron_samples_take(pi2_neuron_statistics *statistics, const uint64_t *numbers, uint32_t count,
                             int16_t *places_out) {
    uint64_t all[2 * PI2_STATISTICS_SAMPLES];
    uint32_t gone[WORDS] = { 0 }, place = 0;
    const uint32_t before = statistics->sample_count, total = before + count;
    memcpy(all, statistics->samples, before * sizeof *all);
    memcpy(all + before, numbers, count * sizeof *all);
    qsort(all, total, sizeof *all, compare_numbers);
    const uint32_t kept = total < PI2_STATISTICS_SAMPLES ? total : PI2_STATISTICS_SAMPLES;
    const uint64_t highest = kept ? all[kept - 1] : 0;
    for (uint32_t i = 0; i < count; i++) {
        places_out[i] = -1;
        if (numbers[i] > highest) continue;
        while (place < before && statistics->samples[place] <= highest) place++;
        if (place == PI2_STATISTICS_SAMPLES) continue; /* never, unless two tokens had one number */
        if (place < before) gone[place / 32] |= UINT32_C(1) << place % 32;
        else statistics->sample_count++;
        statistics->samples[place] = numbers[i];
        places_out[i] = (int16_t)place++;
    }
    clear_bits(statistics, gone);
}

void pi2_neuron_samples_get(const pi2_neuron_statistics *statistics, const pi2_statistics_entry *entry, uint32_t neuron,
                            uint32_t *words) {
    for (uint32_t w = 0; w < WORDS; w++) words[w] = bits_of(statistics, w)[entry->first + neuron];
}

/** Moves the bits of a neuron to other places; -1: nowhere. */
static void move_bits(const uint32_t from[WORDS], const int16_t *places, uint32_t count, uint32_t into[WORDS]) {
    for (uint32_t i = 0; i < count; i++) {
        if (places[i] < 0 || !(from[i / 32] >> i % 32 & 1)) continue;
        into[places[i] / 32] |= UINT32_C(1) << places[i] % 32;
    }
}

/** Adds the bits of `from`, which may be `into` itself whose bits are then moved, at their places. */
static void place_bits(pi2_neuron_statistics *into, const pi2_neuron_statistics *from, const int16_t *places) {
    uint32_t *bits[WORDS], *other[WORDS];
    for (uint32_t w = 0; w < WORDS; w++) {
        bits[w] = bits_of(into, w);
        other[w] = bits_of(from, w);
    }
    for (uint64_t i = 0; i < into->neuron_total; i++) {
        uint32_t moved[WORDS] = { 0 }, words[WORDS];
        for (uint32_t w = 0; w < WORDS; w++) words[w] = other[w][i];
        move_bits(words, places, from->sample_count, moved);
        for (uint32_t w = 0; w < WORDS; w++) bits[w][i] = into == from ? moved[w] : bits[w][i] | moved[w];
    }
}

void pi2_neuron_samples_add(pi2_neuron_statistics *into, const pi2_neuron_statistics *from) {
    int16_t places[PI2_STATISTICS_SAMPLES];
    pi2_neuron_samples_take(into, from->samples, from->sample_count, places);
    if (from->sample_count > 0) place_bits(into, from, places);
}

void pi2_neuron_samples_sort(pi2_neuron_statistics *statistics) {
    uint64_t sorted[PI2_STATISTICS_SAMPLES];
    int16_t places[PI2_STATISTICS_SAMPLES];
    const uint32_t count = statistics->sample_count;
    bool is_sorted = true;
    for (uint32_t i = 1; i < count; i++) is_sorted &= statistics->samples[i - 1] < statistics->samples[i];
    if (is_sorted || !bits_of(statistics, 0)) return;
    memcpy(sorted, statistics->samples, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare_numbers);
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t *at = bsearch(&statistics->samples[i], sorted, count, sizeof *sorted, compare_numbers);
        places[i] = (int16_t)(at - sorted);
    }
    place_bits(statistics, statistics, places);
    memcpy(statistics->samples, sorted, count * sizeof *sorted);
}
