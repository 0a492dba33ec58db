/*
 * Goal:   a tree has what earlier text, a table of next tokens and the logits of lately name, each token once behind a
 *         place, the likeliest places first, within its bounds; chances follow what was right; a text that was cut and
 *         tokens that no table has are no trouble; without trees the likeliest chain is proposed.
 * Method: tables by hand in a session of nothing else.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/draft_places.h"
#include "engine/session_internal.h"

enum { CONTEXT = 64, VOCABULARY = 200, WIDTH = 4 };

/** What a drafter looks at of a session. */
static struct pi2_session session;
static struct {
    pi2_engine engine;
    pi2_model model;
    void *state;
} made;

static uint32_t entry(uint32_t id, uint32_t halvings) { return id | halvings * PI2_NEXT_STEPS << PI2_NEXT_ID_BITS; }

/* Behind token t come 2 t (a half), 2 t + 1 (a quarter) and 3 (an eighth), as far as these are tokens. */
static pi2_next_table *make_table(void) {
    pi2_next_table *table = malloc(sizeof *table + sizeof(uint32_t) * VOCABULARY * WIDTH);
    assert_non_null(table);
    *table = (pi2_next_table){ .count = VOCABULARY, .width = WIDTH };
    for (uint32_t t = 0; t < VOCABULARY; t++) {
        uint32_t *row = table->entries + (size_t)t * WIDTH;
        for (int i = 0; i < WIDTH; i++) row[i] = PI2_NO_NEXT;
        if (2 * t + 1 >= VOCABULARY || t < 4) continue;
        row[0] = entry(2 * t, 1);
        row[1] = entry(2 * t + 1, 2);
        row[2] = entry(3, 3);
    }
    return table;
}

static void begin(bool has_table) {
    session.engine = &made.engine;
    made.engine.next_table = has_table ? make_table() : NULL;
    made.engine.run.plan.memory.shape.context_tokens = CONTEXT;
    made.engine.run.source.model = &made.model;
    made.model.shape.vocabulary_size = VOCABULARY;
    assert_int_equal(pi2_drafter_tree.begin(&session, &made.state), PI2_OK);
}

static void end(void) {
    pi2_drafter_tree.end(made.state);
    free(made.engine.next_table);
}

static pi2_draws next_draws; /* of the next proposals */
static const pi2_draft_named *next_named; /* what another drafter names for them */

static void propose(const int32_t *tokens, uint32_t length, uint32_t unchanged, pi2_draft_wish wish, pi2_draft *draft) {
    const pi2_draft_text text = { tokens, length, unchanged, &next_draws, next_named };
    draft->count = 99;
    for (uint32_t i = 0; i < PI2_DRAFT_NODES_MOST; i++) draft->parents[i] = (uint8_t)i;
    assert_int_equal(pi2_drafter_tree.propose(made.state, &text, &wish, draft), PI2_OK);
}

static double reach_of(const pi2_draft *draft, uint32_t i) {
    const uint32_t parent = draft->parents[i];
    return (double)draft->chances[i] * (parent ? reach_of(draft, parent - 1) : 1);
}

static uint32_t depth_of(const pi2_draft *draft, uint32_t i) {
    return 1 + (draft->parents[i] ? depth_of(draft, draft->parents[i] - 1u) : 0);
}

static uint32_t leaves_of(const pi2_draft *draft) {
    uint32_t leaves = 0;
    for (uint32_t i = 0; i < draft->count; i++) {
        bool is_followed = false;
        for (uint32_t j = i + 1; j < draft->count; j++) is_followed |= draft->parents[j] == i + 1;
        leaves += !is_followed;
    }
    return leaves;
}

/* Parents come first, no token stands twice behind one place, and none reaches further than those before it. */
static void check(const pi2_draft *draft, const pi2_draft_wish *wish) {
    assert_true(draft->count <= (wish->nodes ? wish->nodes : wish->most));
    if (wish->nodes) assert_true(leaves_of(draft) <= wish->leaves);
    for (uint32_t i = 0; i < draft->count; i++) {
        assert_true(draft->parents[i] <= i);
        assert_true(wish->nodes || draft->parents[i] == i);
        assert_true(depth_of(draft, i) <= wish->most);
        assert_true(draft->chances[i] > 0 && draft->chances[i] < 1);
        assert_true(i == 0 || reach_of(draft, i) <= reach_of(draft, i - 1) + 1e-6);
        for (uint32_t j = 0; j < i; j++) {
            assert_true(draft->parents[j] != draft->parents[i] || draft->tokens[j] != draft->tokens[i]);
        }
    }
}

/* The node with this token behind this one (0: the text), one more; 0: there is none. */
static uint32_t find(const pi2_draft *draft, uint32_t parent, int32_t token) {
    for (uint32_t i = 0; i < draft->count; i++) {
        if (draft->parents[i] == parent && draft->tokens[i] == token) return i + 1;
    }
    return 0;
}

static void test_table_alone(void **state) {
    (void)state;
    static const int32_t text[] = { 5 };
    const pi2_draft_wish wish = { .most = 15, .nodes = 31, .leaves = 31 };
    pi2_draft draft;
    begin(true);
    propose(text, 1, 0, wish, &draft);
    check(&draft, &wish);
    assert_int_equal(draft.tokens[0], 10);
    const uint32_t first = find(&draft, 0, 10);
    assert_true(first && find(&draft, 0, 11) && find(&draft, 0, 3));
    assert_true(find(&draft, first, 20) && find(&draft, first, 21));
    assert_int_equal(find(&draft, find(&draft, 0, 3), 6), 0); /* nothing is known behind 3 */
    assert_true(draft.chances[find(&draft, 0, 10) - 1] > draft.chances[find(&draft, 0, 11) - 1]);
    end();
}

static void test_bounds(void **state) {
    (void)state;
    static const int32_t text[] = { 5, 9, 5 };
    static const pi2_draft_wish wishes[] = { { .most = 15, .nodes = 1, .leaves = 1 },
                                             { .most = 2, .nodes = 31, .leaves = 31 },
                                             { .most = 1, .nodes = 31, .leaves = 31 },
                                             { .most = 15, .nodes = 31, .leaves = 1 },
                                             { .most = 15, .nodes = 12, .leaves = 3 },
                                             { .most = 15 }, { .most = 2 } };
    pi2_draft draft;
    begin(true);
    for (size_t i = 0; i < sizeof wishes / sizeof wishes[0]; i++) {
        propose(text, 3, 0, wishes[i], &draft);
        assert_true(draft.count > 0);
        check(&draft, &wishes[i]);
    }
    end();
}

static void test_text_and_table_are_joined(void **state) {
    (void)state;
    /* "5 10 30" stands before: 30 is of the text alone, 20 of the table alone; 10 behind 5 is of both. */
    static const int32_t text[] = { 7, 5, 10, 30, 99, 7, 5 };
    const pi2_draft_wish wish = { .most = 15, .nodes = 31, .leaves = 31 };
    pi2_draft draft, alone;
    begin(true);
    propose(text, 7, 0, wish, &draft);
    check(&draft, &wish);
    propose(text, 2, 0, wish, &alone);
    const uint32_t both = find(&draft, 0, 10), of_table = find(&alone, 0, 10);
    assert_true(both && of_table);
    assert_true(draft.chances[both - 1] > alone.chances[of_table - 1]);
    assert_true(find(&draft, both, 30) && find(&draft, both, 20));
    assert_int_equal(find(&alone, of_table, 30), 0); /* that text is gone */
    end();
}

static void test_without_a_table(void **state) {
    (void)state;
    static const int32_t text[] = { 1, 2, 30, 1, 2, 40, 1, 2 };
    const pi2_draft_wish wish = { .most = 15, .nodes = 8, .leaves = 8 };
    pi2_draft draft;
    begin(false);
    propose(text, 1, 0, wish, &draft);
    assert_int_equal(draft.count, 0);
    propose(text, 8, 1, wish, &draft);
    check(&draft, &wish);
    assert_true(find(&draft, 0, 30) && find(&draft, 0, 40));
    assert_int_equal(draft.tokens[0], 40); /* the latest */
    end();
}

/* The longer the match the likelier is what followed it. */
static void test_longer_matches(void **state) {
    (void)state;
    double before = 0;
    for (uint32_t match = 1; match <= PI2_DRAFT_MATCH_MOST; match++) {
        int32_t text[2 * PI2_DRAFT_MATCH_MOST + 2];
        uint32_t length = 0;
        for (uint32_t i = 0; i < match; i++) text[length++] = 150 + (int32_t)i;
        text[length++] = 30;
        for (uint32_t i = 0; i < match; i++) text[length++] = 150 + (int32_t)i;
        const pi2_draft_wish wish = { .most = 1, .nodes = 8, .leaves = 8 };
        pi2_draft draft;
        begin(false);
        propose(text, length, 0, wish, &draft);
        assert_int_equal(find(&draft, 0, 30), 1);
        assert_true((double)draft.chances[0] > before);
        before = (double)draft.chances[0];
        end();
    }
}

/* Logits name what no table has, and what was named is found behind that token alone. */
static void test_what_passes_gave(void **state) {
    (void)state;
    static const int32_t text[] = { 150, 151, 150 };
    const pi2_draft_wish wish = { .most = 1, .nodes = 31, .leaves = 31 };
    float logits[2][VOCABULARY] = { { 0 } };
    pi2_draft draft;
    begin(true);
    logits[0][77] = 9;
    logits[0][78] = 8;
    logits[1][VOCABULARY - 1] = 9;
    const pi2_draft_pass pass = { .tokens = text, .count = 3, .logits = logits[0], .logits_stride = VOCABULARY,
                                  .logits_from = 1 };
    assert_int_equal(pi2_drafter_tree.saw(made.state, &pass), PI2_OK);
    propose(text, 2, 0, wish, &draft);
    assert_int_equal(find(&draft, 0, 77), 0); /* it did not know yet that many tokens are wanted */
    assert_int_equal(pi2_drafter_tree.saw(made.state, &pass), PI2_OK);
    propose(text, 2, 2, wish, &draft);
    check(&draft, &wish);
    assert_int_equal(draft.tokens[0], 77);
    assert_int_equal(draft.tokens[1], 78);
    propose(text, 3, 2, wish, &draft);
    assert_true(find(&draft, 0, VOCABULARY - 1) && find(&draft, 0, 151)); /* it followed before */
    assert_true(find(&draft, 0, 77)); /* named for the place before */
    end();
}

static double chance_of(const int32_t *text, uint32_t length, uint32_t unchanged, int32_t token) {
    const pi2_draft_wish wish = { .most = 1, .nodes = 31, .leaves = 31 };
    pi2_draft draft;
    propose(text, length, unchanged, wish, &draft);
    const uint32_t at = find(&draft, 0, token);
    assert_true(at > 0);
    return (double)draft.chances[at - 1];
}

/* A text in which the table's first token, or none of its tokens, is right: how likely that token is behind another. */
static double chance_after(bool is_right) {
    int32_t text[CONTEXT];
    uint32_t length = 0;
    begin(true);
    for (int32_t token = 20; token < 44; token++) {
        text[length] = token;
        (void)chance_of(text, length + 1, length, 2 * token);
        length++;
        text[length++] = is_right ? 2 * token : 19;
    }
    text[length] = 50;
    const double chance = chance_of(text, length + 1, length, 100);
    end();
    return chance;
}

static void test_chances_are_learnt(void **state) {
    (void)state;
    begin(true);
    const double first = chance_of((const int32_t[]){ 50 }, 1, 0, 100);
    end();
    assert_true(chance_after(true) > 1.2 * first);
    assert_true(chance_after(false) < 0.8 * first);
}

/* What a drafter that computes names for the text, and behind two of these tokens. */
static const pi2_draft_named named = {
    .count = 3, .places = {
        { .count = 3, .tokens = { 100, 101, 10 }, .sure = { 0.7f, 0.2f, 0.05f } },
        { .parent = 1, .token = 100, .count = 1, .tokens = { 110 }, .sure = { 0.9f } },
        { .parent = 1, .token = 101, .count = 2, .tokens = { 120, 121 }, .sure = { 0.6f, 0.3f } } } };

static void test_what_another_names(void **state) {
    (void)state;
    static const int32_t text[] = { 5, 9, 8, 5, 60, 110, 42, 5 };
    const pi2_draft_wish wish = { .most = 15, .nodes = 31, .leaves = 31 };
    pi2_draft draft, alone;
    begin(true);
    propose(text, 8, 0, wish, &alone);
    next_named = &named;
    propose(text, 8, 8, wish, &draft);
    next_named = NULL;
    check(&draft, &wish);
    assert_int_equal(draft.tokens[0], 100);
    assert_int_equal(find(&alone, 0, 100), 0);
    const uint32_t first = find(&draft, 0, 100), second = find(&draft, 0, 101), of_table = find(&draft, 0, 10);
    const uint32_t before = find(&alone, 0, 10);
    assert_true(second && of_table && before);
    assert_true(draft.chances[of_table - 1] < draft.chances[second - 1]); /* the table's first one */
    assert_true(draft.chances[of_table - 1] < alone.chances[before - 1]);
    const uint32_t behind = find(&draft, first, 110);
    assert_true(behind && find(&draft, second, 120) && find(&draft, second, 121));
    assert_int_equal(find(&draft, second, 110), 0);
    assert_true(find(&draft, behind, 42)); /* nobody names what comes there: earlier text does */
    end();
}

/* How often what is named is right is learnt by itself. */
static void test_named_is_learnt(void **state) {
    (void)state;
    const pi2_draft_wish wish = { .most = 1, .nodes = 31, .leaves = 31 };
    int32_t text[CONTEXT];
    pi2_draft draft;
    begin(true);
    const double alone = chance_of((const int32_t[]){ 50 }, 1, 0, 100);
    double first = 0, last = 0;
    for (uint32_t i = 0; i < CONTEXT / 2; i++) {
        text[i] = 150 + (int32_t)i % 40;
        next_named = &named;
        propose(text, i + 1, i, wish, &draft);
        const uint32_t at = find(&draft, 0, 100);
        assert_true(at > 0);
        last = (double)draft.chances[at - 1];
        if (i == 0) first = last;
    }
    next_named = NULL;
    assert_true(last < 0.8 * first);
    text[0] = 50;
    const double now = chance_of(text, 1, 0, 100);
    assert_true(now > 0.99 * alone && now < 1.01 * alone);
    end();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_alone), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_text_and_table_are_joined), cmocka_unit_test(test_without_a_table),
        cmocka_unit_test(test_longer_matches),
        cmocka_unit_test(test_what_passes_gave), cmocka_unit_test(test_chances_are_learnt),
        cmocka_unit_test(test_what_another_names), cmocka_unit_test(test_named_is_learnt),
    };
    return cmocka_run_group_tests_name("drafter tree", tests, NULL, NULL);
}
