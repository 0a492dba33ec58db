/*
 * Goal:   a pass that checks a tree of guesses gives the bits of passes over the right tokens alone, wherever the tree
 *         begins and parts, and whatever happens while it is open; no page of the key-value cache is lost; a layer that
 *         guesses sees of it what the text went on with.
 * Method: a drafter that knows the text and proposes random trees, of which some branches are right; every token's
 *         logits against those of an engine that guesses nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/session_internal.h"
#include "support/emulator.h"
#include "support/family_model.h"
#include "support/sanitizer.h"
#include "support/small_budget.h"
#include "support/streamed_model.h"
#include "support/temporary_files.h"

enum {
    LENGTH = PI2_UNDER_TSAN ? 40 : 112, WIDE = 512, MOST = 6, SCARCE = 16000000, TOKENS = 250, STEPS = 120,
    FAMILY_LENGTH = PI2_UNDER_TSAN ? 20 : 34, FAMILIES_LEAST = 15
};

typedef struct place {
    uint32_t context, threads, sequences;
    pi2_cache_type cache;
    uint64_t more_bytes; /* 0: everything in memory */
} place;

static const char *head_path; /* of a layer that guesses */
static char *dense_path, *even_path, *experts_path, *latent_path, *saved_path;
static int32_t text[WIDE]; /* of all sessions */
static uint64_t random_state = 11;
static uint32_t entered, parted; /* right tokens that begin a branch; guesses that part */
static int layers_left = -1; /* until the pass is cancelled; -1: it is not */

static bool cancelled(void *user) {
    (void)user;
    if (layers_left > 0) layers_left--;
    return layers_left == 0;
}

static uint32_t draw(uint32_t below) { return (uint32_t)(pi2_tiny_random(&random_state) % below); }

/* ---- who guesses ---- */

typedef struct tree_state {
    uint8_t is_right[PI2_DRAFT_NODES_MOST], parents[PI2_DRAFT_NODES_MOST];
    uint32_t count;
} tree_state;

static size_t tree_bytes(const struct pi2_planned_run *run, uint32_t context_tokens) {
    (void)run;
    (void)context_tokens;
    return sizeof(tree_state);
}

static pi2_status begin_tree(struct pi2_session *session, void **state_out) {
    (void)session;
    *state_out = calloc(1, sizeof(tree_state));
    assert_non_null(*state_out);
    return PI2_OK;
}

/* Each token follows a token before it, mostly the last one, or the text. */
static pi2_status propose_tree(void *user, const pi2_draft_text *so_far, const pi2_draft_wish *wish, pi2_draft *draft) {
    tree_state *state = user;
    uint32_t depths[PI2_DRAFT_NODES_MOST + 1] = { 0 };
    bool has_right[PI2_DRAFT_NODES_MOST + 1] = { false };
    const uint32_t most = wish->nodes ? wish->nodes : wish->most, count = 1 + draw(most);
    draft->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t parent = wish->nodes == 0 || draw(3) == 0 ? i : draw(i + 1);
        if (depths[parent] == wish->most) continue;
        const uint32_t n = draft->count, at = parent < n ? parent : n, depth = depths[at] + 1;
        const bool follows = at == 0 || state->is_right[at - 1];
        const bool is_right = follows && !has_right[at] && draw(2) && so_far->length + depth <= LENGTH;
        const int32_t right = so_far->length + depth <= LENGTH ? text[so_far->length + depth - 1] : 0;
        if (depth > wish->most) continue;
        draft->tokens[n] = is_right ? right : (right + 1 + (int32_t)draw(TOKENS - 1)) % TOKENS;
        draft->parents[n] = (uint8_t)at;
        draft->chances[n] = 0.5f;
        state->is_right[n] = is_right;
        state->parents[n] = (uint8_t)at;
        has_right[at] |= is_right;
        depths[n + 1] = depth;
        parted += at != n;
        draft->count = n + 1;
    }
    state->count = draft->count;
    return PI2_OK;
}

/* What is told is right: each behind the one before, up to where the guess was cut. */
static void judge_tree(void *user, uint32_t checked, uint32_t right, const uint8_t *path) {
    const tree_state *state = user;
    assert_true(right <= checked && checked <= right + 1);
    for (uint32_t i = 0; i < right; i++) {
        assert_true(path[i] < state->count && state->is_right[path[i]]);
        assert_int_equal(state->parents[path[i]], i ? path[i - 1] + 1 : 0);
        entered += state->parents[path[i]] != path[i];
    }
}

static void follow_tree(void *state, const void *from) {
    (void)state;
    (void)from;
}

static const pi2_drafter_kind tree_kind = {
    .name = "tree", .costs = true, .bytes = tree_bytes, .begin = begin_tree, .end = free, .propose = propose_tree,
    .judge = judge_tree, .follow = follow_tree,
};
static const pi2_drafter_kind *const tree_alone[] = { &tree_kind, NULL };

/* ---- a layer that sees trees, and is asked what it would guess ---- */

enum { HEARD = 3, FIRST_HEARD = 4 }; /* before the first pass nobody knows what one takes, and none is asked */
static const pi2_drafter_kind *layer_kind;
static int32_t heard[WIDE][HEARD]; /* what it said behind so many tokens of the text, where passes had no guesses */
static uint32_t compared;          /* places where it was asked again */
static uint32_t beside;            /* and where it went on behind others than its chain */
static bool compares, is_cut;

static size_t layer_bytes(const struct pi2_planned_run *run, uint32_t context_tokens) {
    return layer_kind->bytes(run, context_tokens);
}

static pi2_status begin_layer(struct pi2_session *session, void **state_out) {
    return layer_kind->begin(session, state_out);
}

static void end_layer(void *state) { layer_kind->end(state); }

static pi2_status show_layer(void *state, const pi2_draft_pass *pass) { return layer_kind->saw(state, pass); }

static pi2_status ask_layer(void *state, const pi2_draft_text *so_far, const pi2_draft_wish *wish, pi2_draft *draft) {
    pi2_draft_named named = { .most = PI2_DRAFT_PLACES };
    /* What it names beside its chain leaves nothing behind. */
    const pi2_draft_wish chain = { .most = HEARD, .nodes = wish->nodes, .leaves = wish->leaves,
                                   .named = compares ? &named : NULL };
    assert_int_equal(layer_kind->propose(state, so_far, &chain, draft), PI2_OK);
    /* Of a text that was cut behind what it has kept of passes it knows nothing before the next pass. */
    const bool may_not_know = is_cut;
    is_cut = false;
    if (may_not_know && draft->count == 0) return PI2_OK;
    assert_int_equal(draft->count, HEARD);
    beside += compares && named.count > HEARD;
    draft->count = 0;
    if (!compares) {
        memcpy(heard[so_far->length], draft->tokens, sizeof heard[0]);
    } else if (so_far->length > FIRST_HEARD) {
        compared++;
        if (memcmp(heard[so_far->length], draft->tokens, sizeof heard[0]) == 0) return PI2_OK;
        fail_msg("the layer says something else behind %u tokens", so_far->length);
    }
    return PI2_OK;
}

static void judge_layer(void *state, uint32_t checked, uint32_t right, const uint8_t *path) {
    (void)state;
    (void)checked;
    (void)right;
    (void)path;
}

static const pi2_drafter_kind watching_kind = {
    .name = "watching", .costs = true, .bytes = layer_bytes, .begin = begin_layer, .end = end_layer,
    .saw = show_layer, .propose = ask_layer, .judge = judge_layer, .follow = follow_tree,
};
static const pi2_drafter_kind *const layer_alone[] = { &watching_kind, NULL };
static const pi2_drafter_kind *const layer_and_tree[] = { &watching_kind, &tree_kind, NULL };

/* ---- engines ---- */

static pi2_engine *open_engine(const char *path, const place *p, bool guesses) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.context_tokens = p->context;
    options.thread_count = p->threads;
    options.sequences = p->sequences;
    options.cache_type = p->cache;
    options.draft_tokens = guesses ? MOST : 0;
    options.draft_nodes = guesses ? PI2_DRAFT_NODES_MOST : 0;
    options.draft_always = true;
    options.draft_model_path = head_path;
    options.identifies_weights = true;
    options.callbacks.cancelled = cancelled;
    options.memory_bytes = p->more_bytes ? 0 : PI2_TEST_PLENTY_BYTES;
    pi2_engine *engine = NULL;
    const pi2_status status = p->more_bytes ? pi2_small_budget_open(&options, p->more_bytes, &engine)
                                            : pi2_engine_open(&options, &engine);
    if (status != PI2_OK) fail_msg("%s", pi2_error_text());
    return engine;
}

static void guess_by(pi2_session *session, const pi2_drafter_kind *const *kinds) {
    const pi2_memory_plan *plan = &session->engine->run.plan.memory;
    const pi2_drafting_options options = {
        .kinds = kinds, .run = &session->engine->run, .session = session, .always = true, .reads = true,
        .trees = plan->draft_nodes > 0, .nodes = plan->draft_nodes, .leaves = plan->shape.branches + 1,
        .context_tokens = plan->shape.context_tokens, .most = MOST };
    pi2_drafting_free(session->drafting);
    assert_int_equal(pi2_drafting_create(&options, &session->drafting), PI2_OK);
    pi2_drafting_push(session->drafting, session->timeline, session->position);
}

/* Guesses of this session are trees that know the text. */
static void guess_trees(pi2_session *session) { guess_by(session, tree_alone); }

static pi2_session *create(pi2_engine *engine) {
    pi2_session *session = NULL;
    if (pi2_session_create(engine, NULL, &session) != PI2_OK) fail_msg("%s", pi2_error_text());
    if (session->drafting) guess_trees(session);
    return session;
}

/* It gets a drafter of its own: what it took over would be another kind's. */
static pi2_session *fork_of(pi2_session *session) {
    pi2_session *fork = NULL;
    pi2_drafting *drafting = session->drafting;
    session->drafting = NULL;
    if (pi2_session_fork(session, NULL, &fork) != PI2_OK) fail_msg("%s", pi2_error_text());
    session->drafting = drafting;
    guess_trees(fork);
    return fork;
}

/* The logits behind each token of the text, without guesses. */
static float *reference(const char *path, const place *p, uint32_t length) {
    const place whole = { p->context, 1, 1, p->cache, 0 };
    pi2_engine *engine = open_engine(path, &whole, false);
    pi2_session *session = create(engine);
    const size_t row = pi2_engine_get_report(engine)->vocabulary_size;
    float *rows = malloc(length * row * sizeof *rows);
    assert_non_null(rows);
    for (uint32_t t = 0; t < length; t++) {
        assert_int_equal(pi2_session_append(session, &text[t], 1, PI2_LOGITS_LAST), PI2_OK);
        memcpy(rows + t * row, pi2_session_logits(session, 0), row * sizeof *rows);
    }
    pi2_session_free(session);
    pi2_engine_close(engine);
    return rows;
}

static void check(pi2_session *session, const float *rows) {
    const size_t row = pi2_engine_get_report(session->engine)->vocabulary_size;
    const uint32_t position = pi2_session_position(session);
    const float *logits = pi2_session_logits(session, 0);
    assert_non_null(logits);
    if (memcmp(logits, rows + (position - 1) * row, row * sizeof *rows) != 0) {
        fail_msg("other logits behind %u tokens", position);
    }
}

static void append(pi2_session *session, uint32_t count, const float *rows) {
    const int32_t *tokens = text + pi2_session_position(session);
    if (pi2_session_append(session, tokens, count, PI2_LOGITS_LAST) != PI2_OK) fail_msg("%s", pi2_error_text());
    check(session, rows);
}

static uint32_t unused(const pi2_engine *engine) { return pi2_kv_pages_unused(pi2_forward_pages(engine->forward)); }

/* ---- a session alone ---- */

/* The text token by token, from several positions in a page on: trees begin and end at all of them. */
static void follow_text(const char *path, const place *p, uint32_t length) {
    float *rows = reference(path, p, length);
    pi2_engine *engine = open_engine(path, p, true);
    const uint32_t all = unused(engine);
    for (uint32_t begin = 1; begin <= 16; begin += 5) {
        pi2_session *session = create(engine);
        append(session, begin, rows);
        while (pi2_session_position(session) < length) append(session, 1, rows);
        pi2_session_free(session);
        assert_int_equal(unused(engine), all);
    }
    pi2_engine_close(engine);
    free(rows);
}

static void test_dense(void **state) {
    (void)state;
    parted = entered = 0;
    follow_text(dense_path, &(place){ WIDE, 1, 1, PI2_CACHE_F16, 0 }, LENGTH);
    follow_text(dense_path, &(place){ WIDE, 2, 1, PI2_CACHE_Q8_0, 0 }, LENGTH);
    follow_text(even_path, &(place){ WIDE, 2, 1, PI2_CACHE_F32, 0 }, LENGTH);
    assert_true(parted > 1000 && entered > 50);
}

static void test_streamed(void **state) {
    (void)state;
    parted = entered = 0;
    follow_text(dense_path, &(place){ WIDE, 1, 1, PI2_CACHE_F16, SCARCE }, LENGTH);
    follow_text(dense_path, &(place){ WIDE, 2, 1, PI2_CACHE_Q8_0, SCARCE }, LENGTH);
    assert_true(parted > 100 && entered > 10);
}

static void test_experts(void **state) {
    (void)state;
    follow_text(experts_path, &(place){ WIDE, 2, 1, PI2_CACHE_F16, 0 }, LENGTH);
}

/* Every family: those that keep more than pages have no trees. */
static void test_families(void **state) {
    (void)state;
    char *path = test_folder_path("family.gguf"), *prepared = test_folder_path("family.pi2");
    uint32_t with = 0, without = 0;
    for (size_t i = 0; pi2_family_name(i); i++) {
        (void)remove(prepared);
        assert_int_equal(pi2_family_model_write_apart(pi2_family_name(i), PI2_Q8_0, 1, path), 0);
        const place p = { WIDE, 2, 1, PI2_CACHE_F16, 0 };
        pi2_engine *engine = open_engine(path, &p, true);
        const uint32_t nodes = pi2_engine_get_report(engine)->draft_nodes;
        const pi2_model *model = engine->run.source.model;
        const size_t saved = pi2_forward_saved_bytes(model, &engine->run.plan.memory.shape);
        if (nodes) assert_int_equal(saved, 0);
        pi2_engine_close(engine);
        *(nodes ? &with : &without) += 1;
        if (nodes) follow_text(path, &p, FAMILY_LENGTH);
    }
    assert_in_range(with, FAMILIES_LEAST, 1000);
    assert_true(without > 2);
}

/* The last positions of a context have few pages left, and then no room for a guess. */
static void test_context_ends(void **state) {
    (void)state;
    const place p = { LENGTH, 2, 1, PI2_CACHE_F16, 0 };
    float *rows = reference(dense_path, &p, LENGTH);
    pi2_engine *engine = open_engine(dense_path, &p, true);
    for (uint32_t begin = LENGTH - 40; begin < LENGTH - 30; begin++) {
        pi2_session *session = create(engine);
        append(session, begin, rows);
        while (pi2_session_position(session) < LENGTH) append(session, 1, rows);
        assert_int_equal(pi2_session_append(session, text, 1, PI2_LOGITS_LAST), PI2_ERR_CONTEXT);
        pi2_session_free(session);
        assert_int_equal(unused(engine), (LENGTH + 15) / 16);
    }
    pi2_engine_close(engine);
    free(rows);
}

/* ---- whatever happens while a tree is open ---- */

/* Until the next pass would have branches; false: the text ended. */
static bool open_tree(pi2_session *session, const float *rows) {
    while (pi2_session_position(session) < LENGTH) {
        append(session, 1, rows);
        if (session->engine->sessions.branching == session) return true;
    }
    return false;
}

/* A pass that is cancelled at any layer gives its branches' pages back. */
static void test_cancelled(void **state) {
    (void)state;
    const place p = { WIDE, 2, 1, PI2_CACHE_F16, 0 };
    float *rows = reference(dense_path, &p, LENGTH);
    pi2_engine *engine = open_engine(dense_path, &p, true);
    pi2_session *session = create(engine);
    uint32_t stopped = 0;
    append(session, 9, rows);
    while (pi2_session_position(session) < LENGTH) {
        const uint32_t position = pi2_session_position(session);
        layers_left = 1 + (int)draw(8);
        const pi2_status status = pi2_session_append(session, text + position, 1, PI2_LOGITS_LAST);
        layers_left = -1;
        if (status == PI2_OK) {
            check(session, rows);
            continue;
        }
        assert_int_equal(status, PI2_ERR_INTERRUPTED);
        assert_int_equal(pi2_session_position(session), position);
        assert_null(engine->sessions.branching);
        assert_int_equal(unused(engine), WIDE / 16 - (position + 15) / 16);
        stopped++;
        append(session, 1, rows);
    }
    assert_true(stopped > 10);
    pi2_session_free(session);
    assert_int_equal(unused(engine), WIDE / 16);
    pi2_engine_close(engine);
    free(rows);
}

/* A session alone, and one in common passes. */
static void append_some(pi2_session *const sessions[2], const float *rows) {
    pi2_session_tokens parts[2];
    size_t count = 0;
    for (int s = 0; s < 2; s++) {
        const uint32_t position = pi2_session_position(sessions[s]);
        if (position == LENGTH || draw(4) == 0) continue;
        parts[count++] = (pi2_session_tokens){ sessions[s], text + position, 1, true };
    }
    if (pi2_sessions_append(parts, count) != PI2_OK) fail_msg("%s", pi2_error_text());
    for (size_t i = 0; i < count; i++) check(parts[i].session, rows);
}

static void save_and_load(pi2_session *session, pi2_session *other, const float *rows) {
    if (pi2_session_save(session, saved_path, NULL, 0) != PI2_OK) fail_msg("%s", pi2_error_text());
    if (pi2_session_load(other, saved_path, NULL, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
    guess_trees(other);
    assert_int_equal(pi2_session_position(session), pi2_session_position(other));
    check(session, rows);
    if (pi2_session_position(other) < LENGTH) append(other, 1, rows);
}

static void step(pi2_session *sessions[2], const float *rows) {
    const uint32_t i = draw(2), position = pi2_session_position(sessions[i]), left = LENGTH - position;
    switch (draw(9)) {
    case 0:
        pi2_session_free(sessions[!i]);
        sessions[!i] = fork_of(sessions[i]);
        break;
    case 1: save_and_load(sessions[i], sessions[!i], rows); break;
    case 2:
        if (position > 1) assert_int_equal(pi2_session_truncate(sessions[i], 1 + draw(position)), PI2_OK);
        if (pi2_session_position(sessions[i]) < LENGTH) append(sessions[i], 1, rows);
        break;
    case 3:
        if (left) append(sessions[i], 1 + draw(left < 20 ? left : 20), rows);
        break;
    case 4:
    case 5: append_some(sessions, rows); break;
    default:
        if (open_tree(sessions[i], rows)) break;
        assert_int_equal(pi2_session_truncate(sessions[i], 1 + draw(20)), PI2_OK);
        append(sessions[i], 1, rows);
        break;
    }
}

static void follow_steps(const char *path, const place *p) {
    float *rows = reference(path, p, LENGTH);
    pi2_engine *engine = open_engine(path, p, true);
    const uint32_t all = unused(engine);
    pi2_session *sessions[2] = { create(engine), create(engine) };
    for (int s = 0; s < 2; s++) append(sessions[s], 5, rows);
    for (int i = 0; i < (p->more_bytes ? STEPS / 4 : STEPS); i++) step(sessions, rows);
    for (int s = 0; s < 2; s++) pi2_session_free(sessions[s]);
    assert_int_equal(unused(engine), all);
    pi2_engine_close(engine);
    free(rows);
}

static void test_steps(void **state) {
    (void)state;
    follow_steps(dense_path, &(place){ WIDE, 2, 2, PI2_CACHE_F16, 0 });
    follow_steps(even_path, &(place){ LENGTH, 1, 2, PI2_CACHE_Q8_0, 0 }); /* few pages are unused */
    follow_steps(latent_path, &(place){ WIDE, 2, 2, PI2_CACHE_F16, 0 });
    follow_steps(dense_path, &(place){ WIDE, 2, 2, PI2_CACHE_F16, SCARCE });
}

/* A token of any branch is expected, and no other one. */
static void test_expects(void **state) {
    (void)state;
    const place p = { WIDE, 1, 1, PI2_CACHE_F16, 0 };
    float *rows = reference(dense_path, &p, LENGTH);
    pi2_engine *engine = open_engine(dense_path, &p, true);
    pi2_session *session = create(engine);
    uint32_t all = 0;
    append(session, 5, rows);
    for (int i = 0; i < 8 && open_tree(session, rows); i++) {
        uint32_t expected = 0, children = 0;
        for (int32_t token = 0; token < TOKENS; token++) expected += pi2_session_expects(session, token);
        for (uint32_t n = 0; n < session->ahead_count; n++) {
            const bool is_next = session->ahead_parents[n] == session->ahead_at;
            if (is_next) assert_true(pi2_session_expects(session, session->ahead[n]));
            children += is_next;
        }
        assert_in_range(expected, children > 0, children);
        all += expected;
    }
    assert_true(all > 8);
    pi2_session_free(session);
    pi2_engine_close(engine);
    free(rows);
}

/* Tokens whose branches have ended are marked by what is no token: which stays refused. */
static void test_no_token(void **state) {
    (void)state;
    const place p = { WIDE, 1, 1, PI2_CACHE_F16, 0 };
    const int32_t none = PI2_NO_TOKEN;
    float *rows = reference(dense_path, &p, LENGTH);
    pi2_engine *engine = open_engine(dense_path, &p, true);
    pi2_session *session = create(engine);
    uint32_t marked = 0;
    append(session, 5, rows);
    for (int i = 0; i < 8 && open_tree(session, rows); i++) {
        pi2_engine_end_branches(engine, NULL); /* as where another session wants pages, and its pass fails */
        for (uint32_t n = 0; n < session->ahead_count; n++) {
            marked += session->ahead_parents[n] == session->ahead_at && session->ahead[n] == none;
        }
        assert_false(pi2_session_expects(session, none));
        const pi2_session_tokens part = { session, &none, 1, true };
        assert_int_equal(pi2_sessions_append(&part, 1), PI2_ERR_INVALID);
        assert_int_equal(pi2_session_append(session, &none, 1, PI2_LOGITS_LAST), PI2_ERR_INVALID);
    }
    assert_true(marked > 0);
    pi2_session_free(session);
    pi2_engine_close(engine);
    free(rows);
}

/* ---- layers that guess ---- */

/* The text twice: token by token, and in trees; with cuts, after which the layer sees other tokens there. */
static void check_layer(const char *path, const place *p, const pi2_drafter_kind *kind) {
    float *rows = reference(path, p, FAMILY_LENGTH);
    layer_kind = kind;
    compared = 0;
    for (compares = false;; compares = true) {
        pi2_engine *engine = open_engine(path, p, true);
        assert_true(engine->run.draft && engine->run.plan.memory.draft_nodes > 0);
        for (int turn = 0; turn < (compares ? 8 : 1); turn++) {
            pi2_session *session = create(engine);
            guess_by(session, compares ? layer_and_tree : layer_alone);
            append(session, FIRST_HEARD - 1, rows);
            while (pi2_session_position(session) < FAMILY_LENGTH) {
                append(session, 1, rows);
                if (!compares || draw(9)) continue;
                assert_int_equal(pi2_session_truncate(session, 2 + draw(pi2_session_position(session) - 1)), PI2_OK);
                is_cut = true;
                if (pi2_session_position(session) < FAMILY_LENGTH) append(session, 1, rows);
            }
            pi2_session_free(session);
        }
        pi2_engine_close(engine);
        if (compares) break;
    }
    free(rows);
}

static void test_layers_see_trees(void **state) {
    (void)state;
    char *path = test_folder_path("seen.gguf"), *head = test_folder_path("head.gguf");
    const place p = { WIDE, 2, 1, PI2_CACHE_F16, 0 };
    parted = entered = 0;
    assert_int_equal(pi2_family_model_write_apart("glm4moe", PI2_Q8_0, 1, path), 0);
    check_layer(path, &p, &pi2_drafter_mtp);
    assert_true(compared > 20);
    assert_int_equal(pi2_family_model_write_apart("llama", PI2_Q8_0, 1, path), 0);
    assert_int_equal(pi2_family_model_write_head(&(pi2_family_head){ .layers = { 1, 2, 4 } }, PI2_Q8_0, 1, head), 0);
    head_path = head;
    check_layer(path, &p, &pi2_drafter_eagle3);
    head_path = NULL;
    assert_true(compared > 20 && entered > 10 && beside > 0);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    dense_path = test_folder_path("dense.gguf");
    even_path = test_folder_path("even.gguf");
    experts_path = test_folder_path("experts.gguf");
    latent_path = test_folder_path("latent.gguf");
    saved_path = test_folder_path("saved.session");
    for (int t = 0; t < WIDE; t++) text[t] = (int32_t)draw(TOKENS);
    pi2_tiny_model_options options;
    pi2_streamed_model_options_init(&options);
    options.tied_head = false;
    if (pi2_tiny_model_write_apart(&options, dense_path)) return 1;
    pi2_tiny_model_options_init(&options);
    options.head_count_kv = options.head_count;
    if (pi2_tiny_model_write_apart(&options, even_path)) return 1;
    pi2_tiny_model_options_init(&options);
    options.expert_count = 8;
    options.expert_used_count = 2;
    if (pi2_tiny_model_write_apart(&options, experts_path)) return 1;
    return pi2_family_model_write_apart("deepseek2", PI2_Q8_0, 1, latent_path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense), cmocka_unit_test(test_streamed), cmocka_unit_test(test_experts),
        cmocka_unit_test(test_families), cmocka_unit_test(test_context_ends), cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_steps), cmocka_unit_test(test_expects), cmocka_unit_test(test_no_token),
        cmocka_unit_test(test_layers_see_trees),
    };
    return cmocka_run_group_tests_name("draft trees", tests, set_up, test_folder_end);
}
