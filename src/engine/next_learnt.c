/* next_learnt.c: see next_learnt.h. A row of logits is looked through twice, whatever the vocabulary. */
#include "engine/next_learnt.h"

#include <math.h>

#include "engine/next_table_file.h"

enum { BLOCK = 64 };

static uint32_t place_of(int32_t token) { return ((uint32_t)token * 2654435761u) >> 22; }
_Static_assert(PI2_LEARNT_TOKENS == 1 << 10, "the hash has as many bits");

static float block_largest(const float *logits, uint32_t count) {
    float largest = -INFINITY; /* what is no number is none */
    for (uint32_t i = 0; i < count; i++) largest = logits[i] > largest ? logits[i] : largest;
    return largest;
}

/* Puts a value among the largest ones, the largest first; returns how many there are. */
static uint32_t insert(float *values, uint32_t *ids, uint32_t found, float value, uint32_t id) {
    uint32_t at = found < PI2_LEARNT_WIDTH ? found++ : PI2_LEARNT_WIDTH - 1;
    for (; at > 0 && values[at - 1] < value; at--) {
        values[at] = values[at - 1];
        if (ids) ids[at] = ids[at - 1];
    }
    values[at] = value;
    if (ids) ids[at] = id;
    return found;
}

/* Of the blocks' largest values the last of the first ones: so many tokens at least are as likely. */
static float threshold_of(const float *logits, uint32_t count) {
    float values[PI2_LEARNT_WIDTH];
    uint32_t found = 0;
    for (uint32_t at = 0; at < count; at += BLOCK) {
        const float largest = block_largest(logits + at, count - at < BLOCK ? count - at : BLOCK);
        if (found < PI2_LEARNT_WIDTH || largest > values[found - 1]) found = insert(values, NULL, found, largest, 0);
    }
    return found == PI2_LEARNT_WIDTH ? values[found - 1] : -INFINITY;
}

/* What is less likely than those that are kept is not added up: chances are a little too large. */
static void write_row(pi2_next_row *row, const float *values, const uint32_t *ids, uint32_t found) {
    const uint32_t most = UINT32_MAX >> PI2_NEXT_ID_BITS;
    double sum = 0;
    for (uint32_t i = 0; i < found; i++) sum += exp((double)values[i] - (double)values[0]);
    for (uint32_t i = 0; i < PI2_LEARNT_WIDTH; i++) row->entries[i] = PI2_NO_NEXT;
    if (!isfinite(sum)) return;
    for (uint32_t i = 0; i < found; i++) {
        const double below = (double)values[0] - (double)values[i] + log(sum);
        const double steps = below * PI2_NEXT_STEPS / log(2);
        if (!(steps < most)) return;
        row->entries[i] = ids[i] | (uint32_t)steps << PI2_NEXT_ID_BITS;
    }
}

uint32_t pi2_next_likeliest(const float *logits, uint32_t count, float *values, uint32_t *ids) {
    const float threshold = threshold_of(logits, count);
    uint32_t found = 0;
    for (uint32_t at = 0; at < count; at += BLOCK) {
        const uint32_t length = count - at < BLOCK ? count - at : BLOCK;
        if (block_largest(logits + at, length) < threshold) continue;
        for (uint32_t i = at; i < at + length; i++) {
            if (!(logits[i] >= threshold) || (found == PI2_LEARNT_WIDTH && !(logits[i] > values[found - 1]))) continue;
            found = insert(values, ids, found, logits[i], i);
        }
    }
    return found;
}

void pi2_next_learn(pi2_next_learnt *learnt, int32_t token, const float *logits, uint32_t count) {
    float values[PI2_LEARNT_WIDTH];
    uint32_t ids[PI2_LEARNT_WIDTH];
    const uint32_t found = pi2_next_likeliest(logits, count, values, ids);
    pi2_next_row *row = &learnt->rows[place_of(token)];
    row->token = token + 1;
    write_row(row, values, ids, found);
}

const uint32_t *pi2_next_find(const pi2_next_learnt *learnt, int32_t token) {
    const pi2_next_row *row = &learnt->rows[place_of(token)];
    return row->token == token + 1 ? row->entries : NULL;
}
