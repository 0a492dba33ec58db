/*
 * drafter_tree.c: alternatives of what may follow, in one tree, from what costs nothing: earlier text, what the model
 * says behind one token alone (a table, next_table_file.h), and what its logits named lately; and, where one was asked,
 * from what a drafter that computes names. The tree grows where the chance of all tokens up to a place is largest.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/draft_chances.h"
#include "engine/draft_places.h"
#include "engine/next_learnt.h"
#include "engine/next_table_file.h"
#include "engine/session_internal.h"

static const float most_sum = 0.98f; /* of the chances of what may follow one place */
static const double cheap_reach = 1.0 / 8;

enum {
    FOLLOWERS_MOST = 64,  /* that one place has */
    WAITING_MOST = 512    /* that may become nodes */
};

/** What may follow a place. */
typedef struct follower {
    int32_t token;
    float reach;          /* the chance that it and all before it are right */
    uint8_t parent;       /* as of pi2_draft */
    pi2_draft_classes classes;
} follower;

/** A token of the tree. */
typedef struct node {
    int32_t token;
    float reach;
    uint8_t parent, depth;
    uint8_t place;        /* for which another drafter names what follows (pi2_draft_named), and one; 0: none */
    bool is_followed;     /* by others */
    pi2_draft_classes classes;
} node;

typedef struct tree_state {
    const pi2_next_table *table; /* the engine's; NULL: there is none */
    uint32_t vocabulary;
    bool is_cheap;               /* many tokens are worth guessing, as far as the last proposal tells */
    pi2_draft_chances chances;
    pi2_next_learnt learnt;
    follower waiting[WAITING_MOST]; /* a heap: none reaches further than its parent, (i - 1) / 2 */
    uint32_t waiting_count;
    uint32_t proposed_at, count, leaves; /* the last proposal: behind so many tokens of the text, so many nodes */
    node nodes[PI2_DRAFT_NODES_MOST];
    pi2_draft_places places;     /* last */
} tree_state;

static size_t bytes(const struct pi2_planned_run *run, uint32_t context_tokens) {
    if (run && run->is_next) return 0;
    return sizeof(tree_state) + pi2_draft_places_bytes(context_tokens);
}

static pi2_status begin(struct pi2_session *session, void **state_out) {
    const pi2_planned_run *run = &session->engine->run;
    const uint32_t context = run->plan.memory.shape.context_tokens;
    tree_state *state = calloc(1, sizeof *state + pi2_draft_places_bytes(context));
    *state_out = state;
    if (!state) return pi2_fail(PI2_ERR_MEMORY, "no memory for guessing ahead");
    state->table = session->engine->next_table;
    state->vocabulary = run->source.model->shape.vocabulary_size;
    pi2_draft_chances_begin(&state->chances);
    pi2_draft_places_begin(&state->places, context);
    return PI2_OK;
}

/* Looking through a row takes some 20 us: where guesses are few it is not worth them. */
static pi2_status saw(void *user, const pi2_draft_pass *pass) {
    tree_state *state = user;
    for (uint32_t i = state->is_cheap ? pass->logits_from : pass->count; i < pass->count; i++) {
        const float *logits = pass->logits + (size_t)(i - pass->logits_from) * pass->logits_stride;
        pi2_next_learn(&state->learnt, pass->tokens[i], logits, state->vocabulary);
    }
    return PI2_OK;
}

/* ---- what may follow a place ---- */

/** The followers of one place. */
typedef struct branch {
    bool is_first;        /* behind the text itself */
    bool has_table;
    const pi2_draft_place *named; /* NULL: nobody computed what follows */
    const uint64_t *draw; /* of its followers; NULL: the likeliest one follows, or who knows */
    uint32_t count;
    follower followers[FOLLOWERS_MOST];
} branch;

/* A token that comes from several sources is one follower. */
static void add(branch *place, int32_t token, pi2_draft_source source, uint32_t class) {
    uint32_t at = 0;
    while (at < place->count && place->followers[at].token != token) at++;
    if (at == FOLLOWERS_MOST) return;
    if (at == place->count) {
        place->followers[at] = (follower){ .token = token };
        pi2_draft_classes *classes = &place->followers[at].classes;
        if (!place->is_first) classes->of[PI2_DRAFT_FROM_BEFORE] = PI2_DRAFT_UNKNOWN;
        if (!place->has_table) classes->of[PI2_DRAFT_FROM_TABLE] = PI2_DRAFT_UNKNOWN;
        if (place->named) classes->of[PI2_DRAFT_FROM_DRAFT] = PI2_DRAFT_UNNAMED;
        if (place->draw) classes->of[PI2_DRAFT_FROM_DRAW] = pi2_draft_time_class(pi2_draw_time(*place->draw, token));
        place->count++;
    }
    uint8_t *known = &place->followers[at].classes.of[source];
    if (*known == 0 || *known == PI2_DRAFT_UNNAMED) *known = (uint8_t)class;
}

static void add_entries(branch *place, const uint32_t *entries, uint32_t count, pi2_draft_source source) {
    for (uint32_t i = 0; i < count && entries[i] != PI2_NO_NEXT; i++) {
        add(place, (int32_t)pi2_next_id(entries[i]), source, pi2_draft_chance_class(pi2_next_unlikeliness(entries[i])));
    }
}

/* The last tokens at a place, the last one first. */
static uint32_t find_tail(const pi2_draft_text *text, const pi2_draft *draft, uint32_t parent,
                          int32_t tail[PI2_DRAFT_MATCH_MOST]) {
    uint32_t count = 0;
    for (; parent && count < PI2_DRAFT_MATCH_MOST; parent = draft->parents[parent - 1]) {
        tail[count++] = draft->tokens[parent - 1];
    }
    for (uint32_t i = text->length; i > 0 && count < PI2_DRAFT_MATCH_MOST; i--) tail[count++] = text->tokens[i - 1];
    return count;
}

/* The place behind this token, itself behind the place `parent`, and one; 0: it is not among those. */
static uint32_t find_place(const pi2_draft_named *named, uint32_t parent, int32_t token) {
    for (uint32_t i = 0; named && i < named->count; i++) {
        const pi2_draft_place *place = &named->places[i];
        if (place->parent == parent && (parent == 0 || place->token == token)) return i + 1;
    }
    return 0;
}

static void list_followers(const tree_state *state, const pi2_draft_text *text, const pi2_draft *draft,
                           uint32_t parent, branch *place) {
    int32_t tail[PI2_DRAFT_MATCH_MOST];
    pi2_draft_follower matches[PI2_DRAFT_FOLLOWERS_MOST];
    const uint32_t tail_count = find_tail(text, draft, parent, tail);
    const uint32_t match_count = pi2_draft_places_find(&state->places, text, tail, tail_count, matches);
    place->count = 0;
    place->is_first = parent == 0;
    place->has_table = state->table != NULL;
    const uint32_t depth = parent ? state->nodes[parent - 1].depth : 0;
    const uint32_t number = parent ? state->nodes[parent - 1].place : find_place(text->named, 0, 0);
    place->named = number ? &text->named->places[number - 1] : NULL;
    place->draw = depth < text->draws->count ? &text->draws->numbers[depth] : NULL;
    for (uint32_t i = 0; place->named && i < place->named->count; i++) {
        add(place, place->named->tokens[i], PI2_DRAFT_FROM_DRAFT,
            pi2_draft_sure_class(place->named->sure[i], place->draw != NULL));
    }
    for (uint32_t i = 0; i < match_count; i++) {
        add(place, matches[i].token, PI2_DRAFT_FROM_TEXT, 1 + PI2_DRAFT_FOLLOWERS_MOST * (matches[i].match - 1) + i);
    }
    if (state->table && (uint32_t)tail[0] < state->table->count) {
        add_entries(place, state->table->entries + (size_t)tail[0] * state->table->width, state->table->width,
                    PI2_DRAFT_FROM_TABLE);
    }
    const uint32_t *learnt = pi2_next_find(&state->learnt, tail[0]);
    if (learnt) add_entries(place, learnt, PI2_LEARNT_WIDTH, PI2_DRAFT_FROM_LEARNT);
    const uint32_t *before = parent == 0 && tail_count > 1 ? pi2_next_find(&state->learnt, tail[1]) : NULL;
    if (before) add_entries(place, before, PI2_LEARNT_WIDTH, PI2_DRAFT_FROM_BEFORE);
}

/* ---- the heap ---- */

static void swap(follower *a, follower *b) {
    const follower kept = *a;
    *a = *b;
    *b = kept;
}

static void push(tree_state *state, const follower *added) {
    if (state->waiting_count == WAITING_MOST) return; /* there are more than enough that reach further */
    uint32_t at = state->waiting_count++;
    state->waiting[at] = *added;
    for (; at && state->waiting[(at - 1) / 2].reach < state->waiting[at].reach; at = (at - 1) / 2) {
        swap(&state->waiting[at], &state->waiting[(at - 1) / 2]);
    }
}

static follower pop(tree_state *state) {
    const follower first = state->waiting[0];
    const uint32_t count = --state->waiting_count;
    state->waiting[0] = state->waiting[count];
    for (uint32_t at = 0, next; (next = 2 * at + 1) < count; at = next) {
        if (next + 1 < count && state->waiting[next + 1].reach > state->waiting[next].reach) next++;
        if (state->waiting[next].reach <= state->waiting[at].reach) break;
        swap(&state->waiting[at], &state->waiting[next]);
    }
    return first;
}

/* ---- what came of the last tree ---- */

/* At every place that the text came to, one token was right, or none of those. What was not checked tells as much. */
static void learn(tree_state *state, const pi2_draft_text *text) {
    uint32_t parent = 0, at = state->proposed_at;
    if (text->unchanged < at) return;
    for (bool goes_on = state->count > 0; goes_on && at < text->length; at++) {
        const uint32_t here = parent;
        goes_on = false;
        for (uint32_t i = 0; i < state->count; i++) {
            const node *one = &state->nodes[i];
            if (one->parent != here) continue;
            const bool is_right = one->token == text->tokens[at];
            pi2_draft_chances_learn(&state->chances, &one->classes, is_right);
            if (!is_right) continue;
            parent = i + 1;
            goes_on = true;
        }
    }
}

/* ---- the tree ---- */

/* What may follow waits; where chances add up to more than one they are made smaller. */
static void expand(tree_state *state, const pi2_draft_text *text, const pi2_draft *draft, uint32_t parent,
                   const pi2_draft_wish *wish) {
    branch place;
    float sum = 0, scale = parent ? state->nodes[parent - 1].reach : 1;
    const follower *best = NULL;
    list_followers(state, text, draft, parent, &place);
    for (uint32_t i = 0; i < place.count; i++) {
        follower *one = &place.followers[i];
        one->reach = pi2_draft_chance(&state->chances, &one->classes);
        one->parent = (uint8_t)parent;
        sum += one->reach;
        if (!best || one->reach > best->reach) best = one;
    }
    if (sum > most_sum) scale *= most_sum / sum;
    for (uint32_t i = 0; i < place.count; i++) {
        follower *one = &place.followers[i];
        if (wish->nodes == 0 && one != best) continue; /* a chain is wanted */
        one->reach *= scale;
        push(state, one);
    }
}

/* Whether the tree may have this token more; it has it then. */
static bool grow(tree_state *state, const pi2_draft_named *named, const pi2_draft_wish *wish, const follower *next,
                 pi2_draft *draft) {
    node *parent = next->parent ? &state->nodes[next->parent - 1] : NULL;
    const bool is_leaf_more = !parent || parent->is_followed;
    if (wish->nodes && is_leaf_more && state->leaves == wish->leaves) return false;
    state->leaves += is_leaf_more;
    if (parent) parent->is_followed = true;
    const uint32_t before = parent ? parent->place : find_place(named, 0, 0);
    state->nodes[draft->count] = (node){ .token = next->token, .parent = next->parent, .classes = next->classes,
                                         .reach = next->reach, .depth = (uint8_t)(parent ? parent->depth + 1 : 1),
                                         .place = (uint8_t)(before ? find_place(named, before, next->token) : 0) };
    draft->tokens[draft->count] = next->token;
    draft->parents[draft->count] = next->parent;
    draft->chances[draft->count++] = parent ? next->reach / parent->reach : next->reach;
    return true;
}

static pi2_status propose(void *user, const pi2_draft_text *text, const pi2_draft_wish *wish, pi2_draft *draft_out) {
    tree_state *state = user;
    const uint32_t most = wish->nodes ? wish->nodes : wish->most;
    learn(state, text);
    state->is_cheap = wish->nodes && wish->least_reach < cheap_reach;
    pi2_draft_places_list(&state->places, text);
    state->waiting_count = state->leaves = 0;
    draft_out->count = 0;
    expand(state, text, draft_out, 0, wish);
    while (state->waiting_count && draft_out->count < most) {
        const follower next = pop(state);
        if ((double)next.reach < wish->least_reach) break;
        if (!grow(state, text->named, wish, &next, draft_out)) continue;
        if (state->nodes[draft_out->count - 1].depth < wish->most) {
            expand(state, text, draft_out, draft_out->count, wish);
        }
    }
    state->count = draft_out->count;
    state->proposed_at = text->length;
    return PI2_OK;
}

/* Chances were learnt from the text. */
static void judge(void *user, uint32_t checked, uint32_t right, const uint8_t *path) {
    (void)user;
    (void)checked;
    (void)right;
    (void)path;
}

static void follow(void *user, const void *from) {
    tree_state *state = user;
    const tree_state *other = from;
    state->chances = other->chances;
    state->learnt = other->learnt;
}

const pi2_drafter_kind pi2_drafter_tree = {
    .name = "tree", .joins = true, .bytes = bytes, .begin = begin, .end = free, .saw = saw, .propose = propose,
    .judge = judge, .follow = follow,
};
