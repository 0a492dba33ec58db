/* grammar_check.c: what cannot be walked is refused before anybody walks it. */
#include <stdlib.h>

#include "base/fail.h"
#include "grammar/grammar_internal.h"

/** Whether the element can be left without a character, as far as is known. */
static bool may_be_empty(const pi2_grammar *grammar, const pi2_element *element) {
    if (element->kind == PI2_ELEMENT_RULE) return grammar->rules[element->value].is_nullable;
    return element->kind == PI2_ELEMENT_REPEAT && (element->least == 0 || grammar->rules[element->value].is_nullable);
}

static bool may_be_finished(const pi2_grammar *grammar, const pi2_element *element) {
    switch (element->kind) {
    case PI2_ELEMENT_CHARACTER: return true;
    case PI2_ELEMENT_CLASS: return grammar->classes[element->value].range_count > 0;
    case PI2_ELEMENT_RULE: return grammar->rules[element->value].is_productive;
    case PI2_ELEMENT_REPEAT: return element->least == 0 || grammar->rules[element->value].is_productive;
    case PI2_ELEMENT_END:
    default: return true;
    }
}

/** Looks at a rule's alternatives again; true: more is known than before. */
static bool learn(pi2_grammar *grammar, uint32_t index) {
    pi2_rule *rule = &grammar->rules[index];
    const bool was_nullable = rule->is_nullable, was_productive = rule->is_productive;
    for (uint32_t i = 0; i < rule->alternative_count; i++) {
        const pi2_element *element = grammar->elements + grammar->alternatives[rule->first_alternative + i];
        bool is_empty = true, is_finished = true;
        for (; element->kind != PI2_ELEMENT_END; element++) {
            is_empty = is_empty && may_be_empty(grammar, element);
            is_finished = is_finished && may_be_finished(grammar, element);
        }
        rule->is_nullable = rule->is_nullable || is_empty;
        rule->is_productive = rule->is_productive || is_finished;
    }
    return rule->is_nullable != was_nullable || rule->is_productive != was_productive;
}

/** Forwards and backwards in turn, so that long chains of rules take few rounds in either order. */
static void learn_all(pi2_grammar *grammar) {
    for (bool changes = true, backwards = true; changes; backwards = !backwards) {
        changes = false;
        for (uint32_t i = 0; i < grammar->rule_count; i++) {
            if (learn(grammar, backwards ? grammar->rule_count - 1 - i : i)) changes = true;
        }
    }
}

static const char *name_of(const char *const *names, uint32_t rule) {
    return names[rule] ? names[rule] : "(...)";
}

/** A path of rules, each of which may begin with the next. */
typedef struct left_path {
    uint32_t rule, alternative;
    const pi2_element *element; /* NULL: the alternative is not begun */
} left_path;

/** The next rule that the path's last one may begin with; false: there is none. */
static bool next_left(const pi2_grammar *grammar, left_path *at, uint32_t *rule_out) {
    const pi2_rule *rule = &grammar->rules[at->rule];
    while (at->alternative < rule->alternative_count) {
        const pi2_element *element = at->element;
        if (!element) element = grammar->elements + grammar->alternatives[rule->first_alternative + at->alternative];
        else element = may_be_empty(grammar, element) ? element + 1 : NULL;
        if (!element || element->kind < PI2_ELEMENT_RULE) {
            at->alternative++;
            at->element = NULL;
            continue;
        }
        at->element = element;
        *rule_out = element->value;
        return true;
    }
    return false;
}

/** Walks from one rule through all that it may begin with. states: 0 not seen, 1 on the path, 2 done. */
static pi2_status walk_left(const pi2_grammar *grammar, const char *const *names, uint32_t from, unsigned char *states,
                            left_path *path) {
    uint32_t depth = 0;
    path[depth++] = (left_path){from, 0, NULL};
    states[from] = 1;
    while (depth) {
        uint32_t next;
        if (!next_left(grammar, &path[depth - 1], &next)) {
            states[path[--depth].rule] = 2;
            continue;
        }
        if (states[next] == 1) {
            /* Every circle has a rule with a name. */
            for (uint32_t i = depth; i && !names[next]; i--) next = path[i - 1].rule;
            return pi2_fail(PI2_ERR_UNSUPPORTED, "the grammar's rule '%s' begins with itself (left recursion): write "
                            "it so that something else comes first, such as a repetition", name_of(names, next));
        }
        if (states[next] == 0) {
            states[next] = 1;
            path[depth++] = (left_path){next, 0, NULL};
        }
    }
    return PI2_OK;
}

static pi2_status refuse_left_recursion(const pi2_grammar *grammar, const char *const *names) {
    unsigned char *states = calloc(grammar->rule_count, 1);
    left_path *path = malloc(grammar->rule_count * sizeof *path);
    pi2_status status = states && path ? PI2_OK : pi2_fail(PI2_ERR_MEMORY, "no memory for a grammar");
    for (uint32_t i = 0; status == PI2_OK && i < grammar->rule_count; i++) {
        if (states[i] == 0) status = walk_left(grammar, names, i, states, path);
    }
    free(states);
    free(path);
    return status;
}

/* What may be empty counts as often as one likes: none of a count's lower steps need to be walked. */
static pi2_status check_repeats(pi2_grammar *grammar) {
    for (uint32_t i = 0; i < grammar->element_count; i++) {
        pi2_element *element = &grammar->elements[i];
        if (element->kind != PI2_ELEMENT_REPEAT || !grammar->rules[element->value].is_nullable) continue;
        element->least = 0;
        if (element->most != PI2_GRAMMAR_NO_LIMIT && element->most > 64) {
            return pi2_fail(PI2_ERR_UNSUPPORTED, "the grammar repeats up to %u times what may be empty: make what is "
                            "repeated begin with a character, or repeat it 64 times at most", element->most);
        }
    }
    return PI2_OK;
}

pi2_status pi2_grammar_check(pi2_grammar *grammar, const char *const *names) {
    learn_all(grammar);
    for (uint32_t i = 0; i < grammar->rule_count; i++) {
        if (!grammar->rules[i].is_productive) {
            return pi2_fail(PI2_ERR_UNSUPPORTED, "the grammar's rule '%s' has no end: no text satisfies it",
                            name_of(names, i));
        }
    }
    PI2_TRY(refuse_left_recursion(grammar, names));
    return check_repeats(grammar);
}
