/*
 * draft_chances.h: how likely a token is to follow, from what each source of guesses says of it. Each source puts it in
 * one class of a few; the classes' weights are added up, as logarithms of odds, and learnt from what was right.
 */
#ifndef PI2_ENGINE_DRAFT_CHANCES_H
#define PI2_ENGINE_DRAFT_CHANCES_H

#include <stdbool.h>
#include <stdint.h>

/** Where a token may come from. Class 0 says that it does not come from there. */
typedef enum pi2_draft_source {
    PI2_DRAFT_FROM_TEXT,     /* 1 + 4 * (the match's length - 1) + its place among others */
    PI2_DRAFT_FROM_TABLE,    /* 1 + halvings of its chance, up to 11; PI2_DRAFT_UNKNOWN: there is no table */
    PI2_DRAFT_FROM_LEARNT,   /* 1 + halvings, likewise */
    PI2_DRAFT_FROM_BEFORE,   /* likewise, of the logits that gave the token before; or PI2_DRAFT_UNKNOWN */
    PI2_DRAFT_FROM_DRAW,     /* 1 + steps of what it waits for in its draw (draws.h), the longest first, up to 12 */
    PI2_DRAFT_FROM_DRAFT,    /* 1 + steps of what a drafter that computes gives it, the most first, up to 14; 15 more
                                where tokens are drawn; PI2_DRAFT_UNNAMED: not that token; 0: none was asked */
    PI2_DRAFT_SOURCES
} pi2_draft_source;
enum { PI2_DRAFT_CLASSES = 33, PI2_DRAFT_UNKNOWN = 13, PI2_DRAFT_UNNAMED = 31 };

typedef struct pi2_draft_classes {
    uint8_t of[PI2_DRAFT_SOURCES];
} pi2_draft_classes;

typedef struct pi2_draft_weights {
    float base, of[PI2_DRAFT_SOURCES][PI2_DRAFT_CLASSES];
} pi2_draft_weights;

/** Beside a drafter that computes, what others say weighs less. */
typedef struct pi2_draft_chances {
    pi2_draft_weights alone, beside;
} pi2_draft_chances;

/** What answers of small models came to. */
void pi2_draft_chances_begin(pi2_draft_chances *chances);
/** The class of an unlikeliness of a table's entry (next_table_file.h). */
uint8_t pi2_draft_chance_class(uint32_t unlikeliness);
/** The class of what a token waits for. */
uint8_t pi2_draft_time_class(double time);
/** The class of what a drafter that computes gives a token, 0 .. 1. */
uint8_t pi2_draft_sure_class(float sure, bool is_drawn);
/** 0 .. 1 */
float pi2_draft_chance(const pi2_draft_chances *chances, const pi2_draft_classes *classes);
/** A token of these classes was right, or not. */
void pi2_draft_chances_learn(pi2_draft_chances *chances, const pi2_draft_classes *classes, bool is_right);

#endif
