/*
 * next_learnt.h: what a model's logits named behind tokens lately: of each token the last time, whether it was right of
 * the text or guessed wrongly.
 */
#ifndef PI2_ENGINE_NEXT_LEARNT_H
#define PI2_ENGINE_NEXT_LEARNT_H

#include <stddef.h>
#include <stdint.h>

enum { PI2_LEARNT_WIDTH = 16, PI2_LEARNT_TOKENS = 1024 };

/** Entries are those of a table (next_table_file.h), the likeliest first. */
typedef struct pi2_next_row {
    int32_t token;           /* one more; 0: nothing is learnt here */
    uint32_t entries[PI2_LEARNT_WIDTH];
} pi2_next_row;

/** Rows lie by their token's hash; of two with one place the later is kept. */
typedef struct pi2_next_learnt {
    pi2_next_row rows[PI2_LEARNT_TOKENS];
} pi2_next_learnt;

/**
 * The largest logits, the largest first, and whose they are; of equal ones the lower id is first. What is no number is
 * left out. logits [count]; values, ids [PI2_LEARNT_WIDTH]. Returns how many there are.
 */
uint32_t pi2_next_likeliest(const float *logits, uint32_t count, float *values, uint32_t *ids);
/** Takes the likeliest tokens behind this one. logits [count] */
void pi2_next_learn(pi2_next_learnt *learnt, int32_t token, const float *logits, uint32_t count);
/** Its entries [PI2_LEARNT_WIDTH]; NULL: nothing is known. */
const uint32_t *pi2_next_find(const pi2_next_learnt *learnt, int32_t token);

#endif
