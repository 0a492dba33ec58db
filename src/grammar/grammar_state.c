/*
 * grammar_state.c: walks all readings of a text at once.
 *
 * A frame is a place in the grammar (an element, and how often a repetition there has run) over the frame to which its
 * rule returns. Equal frames are the same frame, found by a hash table, so that readings share what they have in
 * common.
 * Frames lie in one array, each above the one that it returns to. What is tried is taken off its end again; what the
 * text no longer needs is dropped by moving the others down (compact).
 */
#include "grammar/grammar_state.h"

#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "grammar/grammar_internal.h"

enum { FRAMES = 8192, TABLE = 2 * FRAMES, READINGS = 1024 };
#define NO_FRAME UINT32_MAX /* the whole text ends there */

typedef struct frame {
    uint32_t element, count, parent;
    uint32_t seen; /* the step that looked at it last */
} frame;

/** The frames at which the next character is awaited. */
typedef struct reading_set {
    uint32_t frames[READINGS];
    uint32_t count;
    bool may_end;
} reading_set;

/** A character that has begun. */
typedef struct begun_character {
    uint32_t value;
    unsigned missing; /* bytes; 0: none has begun */
    uint32_t least;   /* shorter forms are not UTF-8 */
} begun_character;

struct pi2_grammar_state {
    pi2_grammar *grammar;
    reading_set readings, tried[2];
    begun_character begun;
    uint32_t used, step;
    uint32_t work[READINGS];
    frame frames[FRAMES];
    uint32_t table[TABLE]; /* 1 + index of a frame; 0: free */
    uint32_t moved[FRAMES];
    bool begins[256];      /* bytes that may come next, once they are known */
    bool knows_begins;
};

size_t pi2_grammar_session_bytes(void) { return sizeof(pi2_grammar_state); }

/* ---- frames ---- */

static uint32_t table_place(const pi2_grammar_state *state, uint32_t element, uint32_t count, uint32_t parent) {
    uint64_t hash = (uint64_t)element * UINT64_C(0x9e3779b97f4a7c15) ^ (uint64_t)parent * UINT64_C(0xc2b2ae3d27d4eb4f) ^
                    (uint64_t)count * UINT64_C(0x165667b19e3779f9);
    hash ^= hash >> 32;
    hash *= UINT64_C(0x9e3779b97f4a7c15);
    uint32_t place = (uint32_t)(hash >> 40) % TABLE;
    for (; state->table[place]; place = (place + 1) % TABLE) {
        const frame *there = &state->frames[state->table[place] - 1];
        if (there->element == element && there->count == count && there->parent == parent) break;
    }
    return place;
}

/** The frame, which is made where it is not there; NO_FRAME: there is no room. */
static uint32_t find_frame(pi2_grammar_state *state, uint32_t element, uint32_t count, uint32_t parent) {
    const uint32_t place = table_place(state, element, count, parent);
    if (state->table[place]) return state->table[place] - 1;
    if (state->used == FRAMES) return NO_FRAME;
    state->frames[state->used] = (frame){element, count, parent, 0};
    state->table[place] = ++state->used;
    return state->used - 1;
}

/** Takes off the frames that were made last: in a table with open places the last that came can leave it. */
static void cut_frames(pi2_grammar_state *state, uint32_t used) {
    while (state->used > used) {
        const frame *last = &state->frames[state->used - 1];
        state->table[table_place(state, last->element, last->count, last->parent)] = 0;
        state->used--;
    }
}

/** Keeps what the readings need alone. */
static void compact(pi2_grammar_state *state) {
    memset(state->moved, 0, sizeof state->moved);
    for (uint32_t i = 0; i < state->readings.count; i++) state->moved[state->readings.frames[i]] = 1;
    for (uint32_t i = state->used; i > 0; i--) {
        const uint32_t parent = state->frames[i - 1].parent;
        if (state->moved[i - 1] && parent != NO_FRAME) state->moved[parent] = 1;
    }
    uint32_t kept = 0;
    memset(state->table, 0, sizeof state->table);
    for (uint32_t i = 0; i < state->used; i++) {
        if (!state->moved[i]) continue;
        const frame old = state->frames[i];
        state->frames[kept] = old;
        if (old.parent != NO_FRAME) state->frames[kept].parent = state->moved[old.parent];
        const frame *now = &state->frames[kept];
        state->table[table_place(state, now->element, now->count, now->parent)] = kept + 1;
        state->moved[i] = kept++;
    }
    state->used = kept;
    for (uint32_t i = 0; i < state->readings.count; i++) {
        state->readings.frames[i] = state->moved[state->readings.frames[i]];
    }
}

/* ---- one step ---- */

/** Work that is to be done: frames, each looked at once a step. */
typedef struct step_work {
    pi2_grammar_state *state;
    reading_set *set;
    uint32_t count;
    bool is_full; /* some reading found no room: the step gives none */
} step_work;

static void add_frame(step_work *work, uint32_t index) {
    pi2_grammar_state *state = work->state;
    if (state->frames[index].seen == state->step) return;
    state->frames[index].seen = state->step;
    if (work->count == READINGS) work->is_full = true;
    else state->work[work->count++] = index;
}

/** Goes to a place over a parent. */
static void add_place(step_work *work, uint32_t element, uint32_t count, uint32_t parent) {
    pi2_grammar_state *state = work->state;
    if (state->grammar->elements[element].kind == PI2_ELEMENT_END) { /* and on to where the rule returns to */
        if (parent == NO_FRAME) work->set->may_end = true;
        else add_frame(work, parent);
        return;
    }
    const uint32_t index = find_frame(state, element, count, parent);
    if (index == NO_FRAME) work->is_full = true;
    else add_frame(work, index);
}

static void add_rule(step_work *work, uint32_t index, uint32_t parent) {
    const pi2_grammar *grammar = work->state->grammar;
    const pi2_rule *rule = &grammar->rules[index];
    for (uint32_t i = 0; i < rule->alternative_count; i++) {
        add_place(work, grammar->alternatives[rule->first_alternative + i], 0, parent);
    }
}

/** Enters the rule behind which the place `next` comes. */
static void enter_rule(step_work *work, uint32_t rule, uint32_t next, uint32_t parent) {
    if (work->state->grammar->elements[next].kind != PI2_ELEMENT_END) {
        parent = find_frame(work->state, next, 0, parent);
        if (parent == NO_FRAME) {
            work->is_full = true;
            return;
        }
    }
    add_rule(work, rule, parent);
}

static void repeat(step_work *work, const pi2_element *element, const frame *at) {
    const bool is_limited = element->most != PI2_GRAMMAR_NO_LIMIT;
    if (at->count >= element->least) add_place(work, at->element + 1, 0, at->parent);
    if (is_limited && at->count >= element->most) return;
    uint32_t count = at->count + 1;
    if (is_limited && count == element->most) { /* the last time leads on, not back */
        enter_rule(work, element->value, at->element + 1, at->parent);
        return;
    }
    if (!is_limited && count > element->least) count = element->least; /* more is the same */
    const uint32_t back = find_frame(work->state, at->element, count, at->parent);
    if (back == NO_FRAME) work->is_full = true;
    else add_rule(work, element->value, back);
}

/** Follows everything that takes no character. False: too many readings. */
static bool finish_step(step_work *work) {
    pi2_grammar_state *state = work->state;
    while (work->count && !work->is_full) {
        const uint32_t index = state->work[--work->count];
        const frame at = state->frames[index];
        const pi2_element *element = &state->grammar->elements[at.element];
        if (element->kind == PI2_ELEMENT_RULE) {
            enter_rule(work, element->value, at.element + 1, at.parent);
        } else if (element->kind == PI2_ELEMENT_REPEAT) {
            repeat(work, element, &at);
        } else if (work->set->count == READINGS) {
            work->is_full = true;
        } else {
            work->set->frames[work->set->count++] = index;
        }
    }
    return !work->is_full;
}

static step_work begin_step(pi2_grammar_state *state, reading_set *set) {
    if (++state->step == 0) { /* all numbers were used: none of the old marks may count */
        for (uint32_t i = 0; i < state->used; i++) state->frames[i].seen = 0;
        state->step = 1;
    }
    set->count = 0;
    set->may_end = false;
    return (step_work){state, set, 0, false};
}

/** The readings after a character. False: none, or too many. */
static bool take_character(pi2_grammar_state *state, const reading_set *from, uint32_t character, reading_set *to) {
    step_work work = begin_step(state, to);
    for (uint32_t i = 0; i < from->count; i++) {
        const frame at = state->frames[from->frames[i]];
        if (!pi2_element_takes(state->grammar, &state->grammar->elements[at.element], character)) continue;
        add_place(&work, at.element + 1, 0, at.parent);
    }
    return finish_step(&work) && (to->count || to->may_end);
}

/* ---- bytes ---- */

/** Adds a byte. False: this is no UTF-8. A character is whole when none of its bytes is missing. */
static bool add_byte(begun_character *begun, unsigned char byte) {
    if (begun->missing) {
        if ((byte & 0xc0) != 0x80) return false;
        begun->value = begun->value << 6 | (byte & 0x3f);
        if (--begun->missing) return true;
        return begun->value >= begun->least && begun->value <= PI2_LAST_CHARACTER &&
               (begun->value < 0xd800 || begun->value > 0xdfff);
    }
    const unsigned missing = byte < 0x80 ? 0 : byte >= 0xc2 && byte < 0xe0 ? 1 : byte >= 0xe0 && byte < 0xf0 ? 2
                             : byte >= 0xf0 && byte < 0xf5 ? 3 : 4;
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    if (missing == 4) return false;
    *begun = (begun_character){missing ? byte & (0x3fu >> missing) : byte, missing, least[missing]};
    return true;
}

/** Whether a reading takes a character that may come of what has begun. */
static bool may_complete(const pi2_grammar_state *state, const reading_set *set, const begun_character *begun) {
    const unsigned bits = 6 * begun->missing;
    uint32_t first = begun->value << bits, last = first | ((1u << bits) - 1);
    if (first < begun->least) first = begun->least;
    if (last > PI2_LAST_CHARACTER) last = PI2_LAST_CHARACTER;
    for (uint32_t i = 0; first <= last && i < set->count; i++) {
        const pi2_element *element = &state->grammar->elements[state->frames[set->frames[i]].element];
        if (pi2_element_takes_any(state->grammar, element, first, last)) return true;
    }
    return false;
}

/** Goes over the bytes; *end_out: the readings behind them. */
static bool walk(pi2_grammar_state *state, const char *text, size_t length, begun_character *begun,
                 const reading_set **end_out) {
    const reading_set *from = &state->readings;
    unsigned turn = 0;
    if (length == 0) return false;
    for (size_t i = 0; i < length; i++) {
        if (!add_byte(begun, (unsigned char)text[i])) return false;
        if (begun->missing) continue;
        if (!take_character(state, from, begun->value, &state->tried[turn])) return false;
        from = &state->tried[turn];
        turn ^= 1;
    }
    *end_out = from;
    return !begun->missing || may_complete(state, from, begun);
}

bool pi2_grammar_state_allows(pi2_grammar_state *state, const char *text, size_t length) {
    const uint32_t used = state->used;
    begun_character begun = state->begun;
    const reading_set *end;
    const bool is_allowed = walk(state, text, length, &begun, &end);
    cut_frames(state, used);
    return is_allowed;
}

bool pi2_grammar_state_accept(pi2_grammar_state *state, const char *text, size_t length) {
    const uint32_t used = state->used;
    begun_character begun = state->begun;
    const reading_set *end;
    if (!walk(state, text, length, &begun, &end)) {
        cut_frames(state, used);
        return false;
    }
    state->begun = begun;
    state->knows_begins = false;
    if (end != &state->readings) {
        state->readings.count = end->count;
        state->readings.may_end = end->may_end;
        memcpy(state->readings.frames, end->frames, end->count * sizeof *end->frames);
    }
    if (state->used > FRAMES / 4) compact(state);
    return true;
}

/** Bytes that begin a character which some reading takes. */
static void learn_begins(pi2_grammar_state *state) {
    for (unsigned byte = 0; byte < 256; byte++) {
        begun_character begun = {0, 0, 0};
        state->begins[byte] = add_byte(&begun, (unsigned char)byte) && may_complete(state, &state->readings, &begun);
    }
    state->knows_begins = true;
}

bool pi2_grammar_state_may_begin(pi2_grammar_state *state, unsigned char byte) {
    if (state->begun.missing) return (byte & 0xc0) == 0x80;
    if (!state->knows_begins) learn_begins(state);
    return state->begins[byte];
}

bool pi2_grammar_state_may_end(const pi2_grammar_state *state) {
    return state->readings.may_end && !state->begun.missing;
}

/* ---- life ---- */

void pi2_grammar_state_reset(pi2_grammar_state *state) {
    memset(state->table, 0, sizeof state->table);
    state->used = state->step = 0;
    state->begun = (begun_character){0, 0, 0};
    state->knows_begins = false;
    step_work work = begin_step(state, &state->readings);
    add_rule(&work, state->grammar->root, NO_FRAME);
    if (!finish_step(&work)) { /* too many to begin with: nothing is allowed */
        state->readings.count = 0;
        state->readings.may_end = false;
    }
}

pi2_status pi2_grammar_state_create(const pi2_grammar *grammar, pi2_grammar_state **state_out) {
    pi2_grammar_state *state = malloc(sizeof *state);
    *state_out = state;
    if (!state) return pi2_fail(PI2_ERR_MEMORY, "no memory for a grammar's state");
    state->grammar = pi2_grammar_share(grammar);
    pi2_grammar_state_reset(state);
    return PI2_OK;
}

void pi2_grammar_state_free(pi2_grammar_state *state) {
    if (!state) return;
    pi2_grammar_free(state->grammar);
    free(state);
}

void pi2_grammar_state_follow(pi2_grammar_state *state, const pi2_grammar_state *from) {
    pi2_grammar *own = state->grammar;
    *state = *from;
    state->grammar = own;
}
