/*
 * grammar_internal.h: a grammar as it is walked; for the files of this folder.
 *
 * A rule has alternatives, each a run of elements that ends with PI2_ELEMENT_END. Groups and repeated parts are rules
 * without a name. A repetition keeps its count in the walk, so {0,100000} takes one element.
 */
#ifndef PI2_GRAMMAR_GRAMMAR_INTERNAL_H
#define PI2_GRAMMAR_GRAMMAR_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "powerinfer2/grammar.h"

enum { PI2_GRAMMAR_MOST_RULES = 16384, PI2_GRAMMAR_MOST_ELEMENTS = 65536, PI2_GRAMMAR_MOST_RANGES = 32768,
       PI2_GRAMMAR_MOST_DEPTH = 64, PI2_GRAMMAR_MOST_REPEATS = 1000000, PI2_LAST_CHARACTER = 0x10ffff };
#define PI2_GRAMMAR_NO_LIMIT UINT32_MAX

typedef enum pi2_element_kind {
    PI2_ELEMENT_END,
    PI2_ELEMENT_CHARACTER, /* value: a code point */
    PI2_ELEMENT_CLASS,     /* value: of the grammar's classes */
    PI2_ELEMENT_RULE,      /* value: of the grammar's rules */
    PI2_ELEMENT_REPEAT     /* value: a rule, least to most times; most PI2_GRAMMAR_NO_LIMIT: any number */
} pi2_element_kind;

typedef struct pi2_element {
    pi2_element_kind kind;
    uint32_t value, least, most;
} pi2_element;

typedef struct pi2_character_range {
    uint32_t first, last;
} pi2_character_range;

/** Ranges in order, none of which touches the next. */
typedef struct pi2_character_class {
    uint32_t first_range, range_count;
} pi2_character_class;

typedef struct pi2_rule {
    uint32_t first_alternative, alternative_count;
    bool is_nullable, is_productive;
} pi2_rule;

struct pi2_grammar {
    _Atomic uint32_t owners;
    uint32_t root;
    pi2_rule *rules;
    uint32_t *alternatives; /* each the index of its first element */
    pi2_element *elements;
    pi2_character_class *classes;
    pi2_character_range *ranges;
    uint32_t rule_count, alternative_count, element_count, class_count, range_count;
    uint32_t rule_room, alternative_room, element_room, class_room, range_room;
};

/** Room for one more item of `size` bytes in an array of a grammar; NULL: too many, or no memory: the error is set. */
void *pi2_grammar_grow(void *items, uint32_t count, uint32_t most, uint32_t *room, size_t size, const char *what);

/**
 * Notes which rules may be empty, and refuses what cannot be walked: left recursion, rules that no text satisfies,
 * bounded repetitions of what may be empty. names: [rule_count]; NULL where a rule has none.
 */
pi2_status pi2_grammar_check(pi2_grammar *grammar, const char *const *names);

/** Whether a class or character element takes the code point. */
bool pi2_element_takes(const pi2_grammar *grammar, const pi2_element *element, uint32_t character);
/** Whether it takes any of first to last. */
bool pi2_element_takes_any(const pi2_grammar *grammar, const pi2_element *element, uint32_t first, uint32_t last);

#endif
