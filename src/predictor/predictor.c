/* predictor.c: the list of kinds, vectors as they read them, and who is chosen by scores. */
#include "predictor/predictor.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "predictor/predictor_kinds.h"

const pi2_predictor_kind *const pi2_predictor_kinds[] = {
#define PREDICTOR(name) &pi2_predictor_##name,
#include "predictor/predictors.inc"
#undef PREDICTOR
};
const size_t pi2_predictor_kind_count = sizeof pi2_predictor_kinds / sizeof pi2_predictor_kinds[0];

const pi2_predictor_kind *pi2_predictor_kind_find(uint32_t number) {
    for (size_t i = 0; i < pi2_predictor_kind_count; i++) {
        if (pi2_predictor_kinds[i]->number == number) return pi2_predictor_kinds[i];
    }
    return NULL;
}

uint64_t pi2_predictor_bytes(const pi2_predictor *predictor) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < predictor->layer_count; i++) bytes += predictor->layers[i].bytes;
    return bytes;
}

void pi2_predictor_free(pi2_predictor *predictor) {
    free(predictor->layers);
    memset(predictor, 0, sizeof *predictor);
}

pi2_predictor_vector pi2_predictor_quantize(const float *floats, size_t count, int16_t *values) {
    float most = 0;
    bool is_whole = true;
    for (size_t i = 0; i < count; i++) {
        const float size = fabsf(floats[i]);
        is_whole = is_whole && size <= FLT_MAX;
        if (size > most) most = size;
    }
    if (!is_whole || most < 1e-30f) { /* 32767 / most might overflow */
        memset(values, 0, count * sizeof *values);
        return (pi2_predictor_vector){ .values = values, .scale = is_whole ? 0.0f : NAN, .norm = 0 };
    }
    const float factor = 32767.0f / most, scale = most / 32767.0f;
    int64_t squares = 0;
    for (size_t i = 0; i < count; i++) {
        /* To the nearest even integer: above 2^23 a float has no fraction. */
        values[i] = (int16_t)(floats[i] * factor + 12582912.0f - 12582912.0f);
        squares += (int32_t)values[i] * values[i];
    }
    return (pi2_predictor_vector){ .values = values, .scale = scale, .norm = sqrtf((float)squares) * scale };
}

void pi2_predictor_choose_firing(float *scores, uint32_t count, float threshold) {
    for (uint32_t i = 0; i < count; i++) scores[i] = scores[i] <= threshold ? 0.0f : 1.0f;
}

/* Ascending as the floats are; what is no number is above all. */
static uint32_t rank_of(float score) {
    uint32_t bits;
    if (isnan(score)) return UINT32_MAX;
    memcpy(&bits, &score, sizeof bits);
    return bits >> 31 ? ~bits : bits | UINT32_C(1) << 31;
}

/* The rank of the kept-th largest score, found byte by byte, and how many of that rank are among the kept. */
static uint32_t find_cut(const float *scores, uint32_t count, uint32_t kept, uint32_t *of_cut_out) {
    uint32_t cut = 0, left = kept;
    for (int shift = 24; shift >= 0; shift -= 8) {
        uint32_t counts[256] = { 0 };
        const uint32_t known = shift == 24 ? 0 : UINT32_MAX << (shift + 8);
        for (uint32_t i = 0; i < count; i++) {
            const uint32_t rank = rank_of(scores[i]);
            if ((rank & known) == (cut & known)) counts[rank >> shift & 255]++;
        }
        uint32_t byte = 255;
        while (counts[byte] < left) left -= counts[byte--];
        cut |= byte << shift;
    }
    *of_cut_out = left;
    return cut;
}

void pi2_predictor_choose_largest(float *scores, uint32_t count, uint32_t kept) {
    if (kept == 0 || kept >= count) {
        for (uint32_t i = 0; i < count; i++) scores[i] = kept ? 1.0f : 0.0f;
        return;
    }
    uint32_t of_cut;
    const uint32_t cut = find_cut(scores, count, kept, &of_cut);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t rank = rank_of(scores[i]);
        const bool is_last = rank == cut && of_cut > 0;
        if (is_last) of_cut--;
        scores[i] = rank > cut || is_last ? 1.0f : 0.0f;
    }
}

bool pi2_predictor_floats_are_good(const float *floats, uint64_t count, float least) {
    for (uint64_t i = 0; i < count; i++) {
        if (!(floats[i] >= least && floats[i] <= FLT_MAX)) return false;
    }
    return true;
}

uint32_t pi2_predictor_kept(uint32_t count, double share) { return count - (uint32_t)(share * count); }
