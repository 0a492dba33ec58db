/* grammar.c: the life of a grammar, and the questions that characters ask of it. */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "grammar/grammar_internal.h"

pi2_grammar *pi2_grammar_share(const pi2_grammar *grammar) {
    pi2_grammar *shared = (pi2_grammar *)(uintptr_t)grammar; /* its count of owners alone changes */
    if (shared) (void)atomic_fetch_add(&shared->owners, 1);
    return shared;
}

void pi2_grammar_free(pi2_grammar *grammar) {
    if (!grammar || atomic_fetch_sub(&grammar->owners, 1) != 1) return;
    free(grammar->rules);
    free(grammar->alternatives);
    free(grammar->elements);
    free(grammar->classes);
    free(grammar->ranges);
    free(grammar);
}

size_t pi2_grammar_bytes(const pi2_grammar *grammar) {
    return sizeof *grammar + grammar->rule_room * sizeof *grammar->rules +
           grammar->alternative_room * sizeof *grammar->alternatives +
           grammar->element_room * sizeof *grammar->elements + grammar->class_room * sizeof *grammar->classes +
           grammar->range_room * sizeof *grammar->ranges;
}

void *pi2_grammar_grow(void *items, uint32_t count, uint32_t most, uint32_t *room, size_t size, const char *what) {
    if (count < *room) return items;
    if (count >= most) {
        (void)pi2_fail(PI2_ERR_UNSUPPORTED, "the grammar has more than %u %s", most, what);
        return NULL;
    }
    const uint32_t wanted = *room ? 2 * *room : 16;
    void *grown = realloc(items, wanted * size);
    if (!grown) (void)pi2_fail(PI2_ERR_MEMORY, "no memory for a grammar");
    else *room = wanted;
    return grown;
}

bool pi2_element_takes_any(const pi2_grammar *grammar, const pi2_element *element, uint32_t first, uint32_t last) {
    if (element->kind == PI2_ELEMENT_CHARACTER) return first <= element->value && element->value <= last;
    if (element->kind != PI2_ELEMENT_CLASS) return false;
    const pi2_character_class *class = &grammar->classes[element->value];
    const pi2_character_range *ranges = grammar->ranges + class->first_range;
    uint32_t low = 0, high = class->range_count; /* the first range that does not end before `first` */
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (ranges[middle].last < first) low = middle + 1;
        else high = middle;
    }
    return low < class->range_count && ranges[low].first <= last;
}

bool pi2_element_takes(const pi2_grammar *grammar, const pi2_element *element, uint32_t character) {
    return pi2_element_takes_any(grammar, element, character, character);
}
