/*
 * Goal:   a drafter that picks tokens from logits guesses the likeliest chain, or what would be drawn; where a tree is
 *         wanted it names the likeliest tokens of each place, and goes on behind others than the first where these are
 *         likely enough, within the places that are wanted, its model's timeline being that of each.
 * Method: logits that follow from the tokens before, told by a function.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/draft_chain.h"

enum { VOCABULARY = 40, KNOWN = 38 };

/** A model: its timeline behind the text. */
typedef struct made_model {
    pi2_draft_chain chain;
    uint32_t depth, appended;
    int32_t tokens[PI2_DRAFT_MOST];
    float logits[VOCABULARY];
    bool has_no_numbers;
} made_model;

/* Behind a place four tokens are as likely as told, which ones follows from the tokens there; all others are not. */
static const float shares[] = { 0.6f, 0.25f, 0.1f, 0.04f };

static int32_t token_at(const int32_t *path, uint32_t depth, uint32_t k) {
    int32_t sum = 0;
    for (uint32_t i = 0; i < depth; i++) sum += path[i] + 1;
    return (sum * 7 + 5 * (int32_t)k) % KNOWN;
}

static const float *logits_of(void *user) {
    made_model *model = user;
    for (uint32_t i = 0; i < VOCABULARY; i++) model->logits[i] = -9;
    for (uint32_t k = 0; k < 4; k++) model->logits[token_at(model->tokens, model->depth, k)] = logf(shares[k]);
    if (model->has_no_numbers) model->logits[3] = NAN;
    return model->logits;
}

static pi2_status append(void *user, uint32_t depth, int32_t token) {
    made_model *model = user;
    assert_true(depth <= model->depth && depth < PI2_DRAFT_MOST);
    model->tokens[depth] = token;
    model->depth = depth + 1;
    model->appended++;
    return PI2_OK;
}

static void begin(made_model *model) {
    *model = (made_model){ .depth = 0 };
    model->chain = (pi2_draft_chain){ .vocabulary = VOCABULARY, .known = KNOWN, .user = model, .logits = logits_of,
                                      .append = append };
    pi2_draft_chain_begin(&model->chain);
}

static const pi2_draws no_draws = { .count = 0 };

static void guess(made_model *model, const pi2_draws *draws, const pi2_draft_wish *wish, pi2_draft *draft) {
    model->depth = model->appended = 0;
    assert_int_equal(pi2_draft_chain_guess(&model->chain, draws, wish, draft), PI2_OK);
}

/* The tokens that lead to a place, the first one first. */
static uint32_t path_of(const pi2_draft_named *named, uint32_t number, int32_t path[PI2_DRAFT_MOST]) {
    const pi2_draft_place *place = &named->places[number - 1];
    if (place->parent == 0) return 0;
    const uint32_t depth = path_of(named, place->parent, path);
    path[depth] = place->token;
    return depth + 1;
}

static void test_chain_alone(void **state) {
    (void)state;
    made_model model;
    pi2_draft draft;
    begin(&model);
    guess(&model, &no_draws, &(pi2_draft_wish){ .most = 5 }, &draft);
    assert_int_equal(draft.count, 5);
    assert_int_equal(model.appended, 4); /* nothing follows the last one */
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(draft.tokens[i], token_at(draft.tokens, i, 0));
        assert_true(draft.chances[i] > 0.5f && draft.chances[i] < 0.7f);
    }
    guess(&model, &no_draws, &(pi2_draft_wish){ .most = 5, .least_reach = 0.3 }, &draft);
    assert_int_equal(draft.count, 2); /* 0.65, 0.65 ^ 2, ... */
    model.has_no_numbers = true;
    guess(&model, &no_draws, &(pi2_draft_wish){ .most = 5 }, &draft);
    assert_in_range(draft.count, 0, 5);
    for (uint32_t i = 0; i < draft.count; i++) assert_in_range(draft.tokens[i], 0, KNOWN - 1);
}

/* Every place names what its own timeline says. */
static void check_places(const pi2_draft_named *named, uint32_t most) {
    for (uint32_t n = 1; n <= named->count; n++) {
        const pi2_draft_place *place = &named->places[n - 1];
        int32_t path[PI2_DRAFT_MOST];
        assert_true(place->parent < n && (n == 1) == (place->parent == 0));
        const uint32_t depth = path_of(named, n, path);
        assert_true(depth < most && place->count == PI2_DRAFT_NAMED);
        for (uint32_t k = 0; k < 4; k++) {
            assert_int_equal(place->tokens[k], token_at(path, depth, k));
            assert_true(fabsf(place->sure[k] - shares[k]) < 0.02f);
        }
        for (uint32_t k = 4; k < place->count; k++) assert_true(place->sure[k] <= place->sure[k - 1]);
    }
}

static void test_places(void **state) {
    (void)state;
    made_model model;
    pi2_draft draft;
    pi2_draft_named named = { .most = PI2_DRAFT_PLACES };
    const pi2_draft_wish wish = { .most = 4, .nodes = 31, .leaves = 15, .named = &named };
    begin(&model);
    guess(&model, &no_draws, &wish, &draft);
    assert_int_equal(draft.count, 4);
    assert_int_equal(model.appended + 1, named.count);
    assert_true(named.count > 6); /* the chain's, behind the text's second token, ... */
    check_places(&named, wish.most);
    for (uint32_t n = 2; n <= 4; n++) { /* the chain comes first */
        assert_int_equal(named.places[n - 1].parent, n - 1);
        assert_int_equal(named.places[n - 1].token, draft.tokens[n - 2]);
    }
    uint32_t beside = 0;
    for (uint32_t n = 5; n <= named.count; n++) {
        beside += named.places[n - 1].parent == 1 && named.places[n - 1].token == token_at(NULL, 0, 1);
    }
    assert_int_equal(beside, 1);
    named.most = 3; /* no more than wanted */
    guess(&model, &no_draws, &wish, &draft);
    assert_int_equal(named.count, 3);
    assert_int_equal(model.appended, 2);
    assert_int_equal(draft.count, 3);
    check_places(&named, wish.most);
    named.most = PI2_DRAFT_PLACES;
    model.chain.least_sure = 0.2; /* nor what is given less */
    guess(&model, &no_draws, &wish, &draft);
    for (uint32_t n = 0; n < named.count; n++) assert_int_equal(named.places[n].count, 2);
    pi2_draft_chain_keep(&draft, &wish, 4);
    assert_int_equal(draft.count, 4);
    pi2_draft_chain_keep(&draft, &wish, 5);
    assert_true(draft.count == 0 && named.count == 0);
}

/* What is drawn by these weights with the same numbers comes first; what waits longer comes later. */
static void test_draws(void **state) {
    (void)state;
    made_model model;
    pi2_draft draft;
    pi2_draft_named named = { .most = PI2_DRAFT_PLACES };
    const pi2_draft_wish wish = { .most = 3, .nodes = 31, .leaves = 15, .named = &named };
    uint32_t firsts = 0;
    begin(&model);
    for (uint64_t seed = 1; seed < 40; seed++) {
        pi2_draws draws = { .count = 3, .temperature = 0.9f };
        for (uint32_t i = 0; i < 3; i++) draws.numbers[i] = seed * 0x9e3779b97f4a7c15u + i * 0xda942042e4dd58b5u;
        guess(&model, &draws, &wish, &draft);
        for (uint32_t n = 1; n <= named.count; n++) {
            const pi2_draft_place *place = &named.places[n - 1];
            int32_t path[PI2_DRAFT_MOST];
            const uint32_t depth = path_of(&named, n, path);
            double before = INFINITY;
            for (uint32_t k = 0; k < place->count; k++) {
                double weight = exp(-9 / 0.9);
                for (uint32_t j = 0; j < 4; j++) {
                    if (place->tokens[k] == token_at(path, depth, j)) weight = pow((double)shares[j], 1 / 0.9);
                }
                const double lead = weight / pi2_draw_time(draws.numbers[depth], place->tokens[k]);
                assert_true(lead <= before * 1.001);
                before = lead;
            }
            firsts += place->tokens[0] == token_at(path, depth, 0);
        }
    }
    assert_in_range(firsts, 39, 39 * PI2_DRAFT_PLACES / 2 + 39 * 4);
}

static void test_what_held(void **state) {
    (void)state;
    made_model model;
    pi2_draft draft;
    const pi2_draft_wish wish = { .most = 5 };
    begin(&model);
    for (int i = 0; i < 40; i++) {
        guess(&model, &no_draws, &wish, &draft);
        pi2_draft_chain_judge(&model, 1, 0, NULL); /* never right, sure or not */
    }
    guess(&model, &no_draws, &wish, &draft);
    assert_true(draft.chances[0] < 0.3f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chain_alone), cmocka_unit_test(test_places), cmocka_unit_test(test_draws),
        cmocka_unit_test(test_what_held),
    };
    return cmocka_run_group_tests_name("draft chain", tests, NULL, NULL);
}
