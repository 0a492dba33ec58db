/*
 * Goal:   guesses continue the latest of the longest matches; how long they are follows from what
 *         guesses and passes came to; nothing is guessed where that would be slower.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/drafting.h"

enum { CONTEXT = 64, PASS_NS = 1000000 };

static const pi2_drafter_kind *const ngram_alone[] = { &pi2_drafter_ngram, NULL };

static pi2_drafting *make_in(bool reads, uint32_t most, const int32_t *tokens, size_t count) {
    pi2_drafting *drafter = NULL;
    const pi2_drafting_options options = { .kinds = ngram_alone, .reads = reads, .context_tokens = CONTEXT,
                                           .most = most };
    assert_int_equal(pi2_drafting_create(&options, &drafter), PI2_OK);
    pi2_drafting_push(drafter, tokens, count);
    return drafter;
}

static pi2_drafting *make_drafter(uint32_t most, const int32_t *tokens, size_t count) {
    return make_in(true, most, tokens, count);
}

/* Those of a chain. */
static uint32_t guess_of(pi2_drafting *drafter, uint32_t room, int32_t *guess) {
    uint8_t parents[PI2_DRAFT_NODES_MOST];
    uint32_t count = 0;
    assert_int_equal(pi2_drafting_guess(drafter, room, guess, parents, &count), PI2_OK);
    for (uint32_t i = 0; i < count; i++) assert_int_equal(parents[i], i);
    return count;
}

static uint32_t guess_beside(pi2_drafting *drafter, uint32_t room, int32_t *guess) {
    uint8_t parents[PI2_DRAFT_NODES_MOST];
    uint32_t count = 0;
    assert_int_equal(pi2_drafting_guess_beside(drafter, room, guess, parents, &count), PI2_OK);
    for (uint32_t i = 0; i < count; i++) assert_int_equal(parents[i], i);
    return count;
}

/* The first `right` tokens of the last guess, a chain, were right. */
static void note_guess(pi2_drafting *drafter, uint32_t checked, uint32_t right) {
    uint8_t path[PI2_DRAFT_NODES_MOST];
    for (uint32_t i = 0; i < right; i++) path[i] = (uint8_t)i;
    pi2_drafting_note_guess(drafter, checked, right, path);
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void test_longest_then_latest(void **state) {
    (void)state;
    /* "1 2" stands twice, "9 1 2" once before: the longer match is continued. */
    static const int32_t tokens[] = { 9, 1, 2, 30, 31, 1, 2, 40, 41, 9, 1, 2 };
    pi2_drafting *drafter = make_drafter(1, tokens, COUNT(tokens));
    pi2_drafting_note_pass(drafter, 0, 0, PASS_NS);
    int32_t guess[PI2_DRAFT_NODES_MOST];
    assert_int_equal(guess_of(drafter, 8, guess), 1);
    assert_int_equal(guess[0], 30);
    static const int32_t more[] = { 5, 1, 2 }; /* now "1 2" alone: the latest place */
    pi2_drafting_push(drafter, more, COUNT(more));
    assert_int_equal(guess_of(drafter, 8, guess), 1);
    assert_int_equal(guess[0], 5);
    pi2_drafting_free(drafter);
}

/* How sure earlier text is of a first token, and of those behind it, follows what its guesses came to: after a match of
 * one length, the others' stay. */
static void test_what_matches_learn(void **state) {
    (void)state;
    static const int32_t tokens[] = { 1, 2, 3, 4, 1 }, longer[] = { 6, 1, 2, 8, 6, 1 };
    const pi2_drafter_kind *kind = &pi2_drafter_ngram;
    const pi2_draft_text text = { .tokens = tokens, .length = COUNT(tokens) };
    const pi2_draft_text other = { .tokens = longer, .length = COUNT(longer) };
    const pi2_draft_wish wish = { .most = 3 };
    pi2_draft draft;
    void *drafter = NULL;
    assert_int_equal(kind->begin(NULL, &drafter), PI2_OK);
    assert_int_equal(kind->propose(drafter, &other, &wish, &draft), PI2_OK);
    const float other_first = draft.chances[0], other_later = draft.chances[1];
    assert_int_equal(kind->propose(drafter, &text, &wish, &draft), PI2_OK);
    assert_int_equal(draft.count, 3);
    float first = draft.chances[0], later = draft.chances[1];
    for (int turn = 0; turn < 60; turn++) { /* wrong from the first token on: of those behind it nothing is learnt */
        kind->judge(drafter, 1, 0, NULL);
        assert_int_equal(kind->propose(drafter, &text, &wish, &draft), PI2_OK);
        assert_true(draft.chances[0] < first && draft.chances[1] == later);
        first = draft.chances[0];
    }
    assert_true(first < 0.01f);
    for (int turn = 0; turn < 60; turn++) { /* the first token right, the next one wrong */
        kind->judge(drafter, 2, 1, NULL);
        assert_int_equal(kind->propose(drafter, &text, &wish, &draft), PI2_OK);
        assert_true(draft.chances[0] > first && draft.chances[1] < later);
        first = draft.chances[0];
        later = draft.chances[1];
    }
    assert_true(first > 0.95f && later < 0.01f);
    kind->judge(drafter, 3, 3, NULL);
    assert_int_equal(kind->propose(drafter, &text, &wish, &draft), PI2_OK);
    assert_true(draft.chances[1] > later);
    assert_int_equal(kind->propose(drafter, &other, &wish, &draft), PI2_OK);
    assert_true(draft.chances[0] == other_first && draft.chances[1] == other_later);
    kind->end(drafter);
}

static void test_nothing_to_guess(void **state) {
    (void)state;
    static const int32_t tokens[] = { 1, 2, 3, 4, 5 };
    pi2_drafting *drafter = make_drafter(8, tokens, COUNT(tokens));
    int32_t guess[PI2_DRAFT_NODES_MOST];
    pi2_drafting_note_pass(drafter, 0, 0, PASS_NS);
    assert_int_equal(guess_of(drafter, 8, guess), 0);
    pi2_drafting_truncate(drafter, 0);
    assert_int_equal(guess_of(drafter, 8, guess), 0);
    static const int32_t pair[] = { 7, 7 };
    pi2_drafting_push(drafter, pair, 1);
    assert_int_equal(guess_of(drafter, 8, guess), 0);
    pi2_drafting_push(drafter, pair, 1);
    assert_int_equal(guess_of(drafter, 0, guess), 0); /* the context is full */
    pi2_drafting_free(drafter);
}

static void test_before_a_pass_was_timed(void **state) {
    (void)state;
    static const int32_t tokens[] = { 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4 };
    pi2_drafting *drafter = make_drafter(8, tokens, COUNT(tokens));
    int32_t guess[PI2_DRAFT_NODES_MOST];
    assert_int_equal(guess_of(drafter, 8, guess), 0);
    pi2_drafting_note_pass(drafter, 0, 0, PASS_NS);
    assert_true(guess_of(drafter, 8, guess) > 1);
    assert_int_equal(guess[0], 1);
    assert_int_equal(guess[1], 2);
    pi2_drafting_free(drafter);
}

/* Repeating text; each guess is noted with `right` right tokens at most. Returns what the last 100 passes guessed. */
static uint32_t guess_often(pi2_drafting *drafter, uint32_t right, uint64_t token_ns) {
    uint32_t guessed = 0;
    pi2_drafting_note_pass(drafter, 0, 0, PASS_NS);
    for (int i = 0; i < 500; i++) {
        int32_t guess[PI2_DRAFT_NODES_MOST];
        const uint32_t count = guess_of(drafter, 8, guess);
        pi2_drafting_note_pass(drafter, count, 0, PASS_NS + token_ns * count);
        if (count) note_guess(drafter, count, right < count ? right : count);
        if (i >= 400) guessed += count;
    }
    return guessed;
}

static void test_length_follows_what_was_seen(void **state) {
    (void)state;
    int32_t tokens[40];
    for (int i = 0; i < 40; i++) tokens[i] = i % 10;
    pi2_drafting *right = make_drafter(8, tokens, COUNT(tokens));
    assert_in_range(guess_often(right, 8, PASS_NS / 100), 750, 780); /* cheap and right: all, but for a pass in 25 */
    pi2_drafting_free(right);
    pi2_drafting *wrong = make_drafter(8, tokens, COUNT(tokens));
    assert_in_range(guess_often(wrong, 0, PASS_NS / 2), 0, 5); /* wrong and not free */
    pi2_drafting_free(wrong);
    pi2_drafting *dear = make_drafter(8, tokens, COUNT(tokens));
    assert_in_range(guess_often(dear, 8, 2 * PASS_NS), 0, 10); /* right, but a token more costs two passes */
    assert_true(guess_often(dear, 8, PASS_NS / 100) > 0);   /* and then it costs less: tried again */
    pi2_drafting_free(dear);
}

/* Where all weights are in memory a token more in a pass is not nearly free: less is guessed from the first time on.
 * What it costs is known after a few passes. */
static void test_guesses_in_memory(void **state) {
    (void)state;
    int32_t tokens[40], guess[PI2_DRAFT_NODES_MOST];
    for (int i = 0; i < 40; i++) tokens[i] = i % 10;
    pi2_drafting *reading = make_in(true, 8, tokens, COUNT(tokens));
    pi2_drafting *computing = make_in(false, 8, tokens, COUNT(tokens));
    pi2_drafting_note_pass(reading, 0, 0, PASS_NS);
    pi2_drafting_note_pass(computing, 0, 0, PASS_NS);
    assert_int_equal(guess_of(reading, 8, guess), 8);
    assert_int_equal(guess_of(computing, 8, guess), 1);
    uint32_t guessed = 0;
    for (int i = 0; i < 100; i++) { /* right ones, of which each costs two passes */
        const uint32_t count = guess_of(reading, 8, guess);
        guessed += count;
        pi2_drafting_note_pass(reading, count, 0, (1 + 2 * count) * PASS_NS);
        if (count) note_guess(reading, count, count);
    }
    assert_in_range(guessed, 8, 80);
    pi2_drafting_free(reading);
    pi2_drafting_free(computing);
}

/* An answer of which no guess holds: what they cost is bounded from the first pass on, before chances are learnt, and
 * what they gain is there to be lost. Tokens cost what is taken for known of them. */
static void test_what_guesses_may_lose(void **state) {
    (void)state;
    enum { SHORT = 40, COST = PASS_NS / 64 };
    int32_t tokens[40], guess[PI2_DRAFT_NODES_MOST];
    for (int i = 0; i < 40; i++) tokens[i] = i % 10;
    for (uint32_t right = 0; right <= 8; right += 8) {
        pi2_drafting *drafter = make_drafter(8, tokens, COUNT(tokens));
        uint32_t guessed = 0, lost = 0;
        pi2_drafting_note_pass(drafter, 0, 0, PASS_NS);
        for (int i = 0; i < SHORT; i++) { /* of the first two guesses everything may be right */
            const uint32_t count = guess_of(drafter, 8, guess), most = i < 2 ? right : 0;
            const uint32_t hit = count < most ? count : most;
            guessed += count;
            lost += count > hit ? count - hit : 0;
            pi2_drafting_note_pass(drafter, count, 0, PASS_NS + (uint64_t)count * COST);
            if (count) note_guess(drafter, hit < count ? hit + 1 : count, hit);
        }
        if (right == 0) assert_in_range(guessed, 8, (PASS_NS / 2 + SHORT * PASS_NS / 100) / COST);
        else assert_in_range(lost, 60, 8 * SHORT); /* it has gained more than that */
        pi2_drafting_free(drafter);
    }
}

/* A process that was stopped in the midst of a pass, and goes on a thousand passes later, guesses as before. */
static void test_guesses_after_a_stop(void **state) {
    (void)state;
    int32_t tokens[40];
    for (int i = 0; i < 40; i++) tokens[i] = i % 10;
    pi2_drafting *drafter = make_drafter(8, tokens, COUNT(tokens));
    (void)guess_often(drafter, 8, PASS_NS / 100);
    for (int i = 0; i < 200; i++) {
        int32_t guess[PI2_DRAFT_NODES_MOST];
        const uint32_t count = guess_of(drafter, 8, guess);
        const uint64_t stop_ns = i % 100 == 50 ? 1000ull * PASS_NS : 0;
        pi2_drafting_note_pass(drafter, count, 0, PASS_NS + PASS_NS / 100 * count + stop_ns);
        if (count) note_guess(drafter, count, count);
    }
    assert_in_range(guess_often(drafter, 8, PASS_NS / 100), 750, 780);
    pi2_drafting_free(drafter);
}

/* What passes take is learnt once for all sessions, of passes that several share apart; beside others a guess must be
 * right more often to be worth its time, since all wait for it. */
static void test_guesses_beside_others(void **state) {
    (void)state;
    enum { SHARERS = 4 };
    int32_t tokens[40], guess[PI2_DRAFT_NODES_MOST];
    uint32_t alone = 0, beside = 0;
    pi2_draft_times times = { .token_share = 0 };
    pi2_drafting *sessions[2];
    for (int i = 0; i < 40; i++) tokens[i] = i % 10;
    for (int s = 0; s < 2; s++) {
        const pi2_drafting_options options = { .kinds = ngram_alone, .context_tokens = CONTEXT, .most = 8,
                                               .times = &times };
        assert_int_equal(pi2_drafting_create(&options, &sessions[s]), PI2_OK);
        pi2_drafting_push(sessions[s], tokens, COUNT(tokens));
    }
    pi2_draft_times_begin(&times, SHARERS);
    beside = guess_beside(sessions[0], 8, guess);
    assert_int_equal(beside, 0); /* nobody knows what such a pass takes */
    pi2_draft_times_learn(&times, 0, PASS_NS);
    assert_int_equal(guess_of(sessions[1], 8, guess), 0); /* nor one of a session alone */
    pi2_drafting_note_pass(sessions[1], 0, 0, PASS_NS);
    alone = guess_of(sessions[1], 8, guess);
    pi2_draft_times_begin(&times, SHARERS);
    beside = guess_beside(sessions[0], 8, guess);
    assert_in_range(alone, 1, 8);
    assert_true(beside < alone);
    pi2_draft_times_begin(&times, PI2_DRAFT_SHARERS_MOST + 1);
    beside = guess_beside(sessions[0], 8, guess);
    assert_int_equal(beside, 0);
    for (int s = 0; s < 2; s++) pi2_drafting_free(sessions[s]);
}

/* Beside reading the first tokens are computed for nothing, later ones are not: passes with few and with many tell. */
static void test_what_many_tokens_take(void **state) {
    (void)state;
    enum { FREE = 16, EACH = PASS_NS / 25 };
    pi2_draft_times times = { .token_share = 0 };
    pi2_draft_times_start(&times, true);
    pi2_draft_times_begin(&times, 1);
    pi2_draft_times_learn(&times, 0, PASS_NS);
    for (uint32_t i = 0; i < 300; i++) {
        const uint32_t count = i % 10 == 9 ? 0 : 1 + i * 7 % 31, dear = count > FREE ? count - FREE : 0;
        pi2_draft_times_learn(&times, count, PASS_NS + dear * EACH);
    }
    assert_true(pi2_draft_times_more(&times, 0, FREE) < pi2_draft_times_more(&times, FREE, 15) / 2);
    assert_in_range(pi2_draft_times_more(&times, FREE, 15), 15 * EACH / 2, 15 * EACH * 5 / 4);
    const double sum = pi2_draft_times_more(&times, 0, 20) + pi2_draft_times_more(&times, 20, 11);
    assert_float_equal(sum, pi2_draft_times_more(&times, 0, 31), 1e-3);
}

/* What a pass waits for reads tells how many tokens more are nearly free; what a disk takes more now and then is not
 * put down to a few tokens. Where nothing is told it is. */
static void test_what_waiting_tells(void **state) {
    (void)state;
    pi2_draft_times told = { .token_share = 0 };
    pi2_draft_times_start(&told, true);
    pi2_draft_times_begin(&told, 1);
    pi2_draft_times_tell(&told, 0.5);
    assert_false(told.is_told); /* no pass was seen */
    pi2_draft_times_learn(&told, 0, PASS_NS);
    pi2_draft_times_tell(&told, 1.5);
    pi2_draft_times_tell(&told, (double)NAN);
    assert_false(told.is_told);
    pi2_draft_times_tell(&told, 0.9);
    assert_true(pi2_draft_times_more(&told, 0, 31) < PASS_NS / 10.0);
    pi2_draft_times_tell(&told, 0.6); /* 10.5 tokens of 4/70 of a pass each */
    assert_true(pi2_draft_times_more(&told, 0, 8) < PASS_NS / 50.0);
    assert_in_range(pi2_draft_times_more(&told, 16, 10), PASS_NS * 55 / 100, PASS_NS * 59 / 100);
    pi2_draft_times untold = told;
    untold.is_told = false;
    for (int i = 0; i < 4; i++) {
        pi2_draft_times_learn(&told, 1, PASS_NS * 5 / 4);
        pi2_draft_times_learn(&untold, 1, PASS_NS * 5 / 4);
    }
    assert_true(pi2_draft_times_more(&told, 0, 8) < PASS_NS / 10.0);
    assert_true(pi2_draft_times_more(&untold, 0, 8) > PASS_NS / 2.0);
}

/* What more tokens than ever in a pass take is not known: as those before them, until it is seen. */
static void test_more_tokens_than_ever(void **state) {
    (void)state;
    pi2_draft_times times = { .token_share = 0 };
    pi2_draft_times_start(&times, true);
    pi2_draft_times_begin(&times, 1);
    pi2_draft_times_learn(&times, 0, PASS_NS);
    assert_int_equal(pi2_draft_times_tried(&times), PI2_DRAFT_BAND_TOKENS); /* no guess tries much more than that */
    for (int i = 0; i < 100; i++) pi2_draft_times_learn(&times, i % 10 == 9 ? 0 : 8, PASS_NS);
    assert_int_equal(pi2_draft_times_tried(&times), 2 * PI2_DRAFT_BAND_TOKENS);
    assert_true(pi2_draft_times_more(&times, 8, 23) < PASS_NS / 10);
    for (int i = 0; i < 100; i++) pi2_draft_times_learn(&times, i % 10 == 9 ? 0 : 12, (i % 10 == 9 ? 1 : 2) * PASS_NS);
    assert_true(pi2_draft_times_more(&times, 12, 19) > PASS_NS);
}

/* A guess that may part is as deep as its tokens allow, also where a chain may have fewer. */
static void test_depth_of_trees(void **state) {
    (void)state;
    int32_t tokens[40], guess[PI2_DRAFT_NODES_MOST];
    for (int i = 0; i < 40; i++) tokens[i] = i % 20;
    for (uint32_t nodes = 4; nodes <= 31; nodes += 27) {
        const pi2_drafting_options options = { .kinds = ngram_alone, .reads = true, .context_tokens = CONTEXT,
                                               .most = 6, .trees = true, .nodes = nodes, .leaves = 2 };
        pi2_drafting *drafter = NULL;
        assert_int_equal(pi2_drafting_create(&options, &drafter), PI2_OK);
        pi2_drafting_push(drafter, tokens, COUNT(tokens));
        pi2_drafting_note_pass(drafter, 0, 0, PASS_NS);
        const uint32_t count = guess_of(drafter, 31, guess);
        if (nodes == 4) assert_int_equal(count, 6);
        else assert_in_range(count, 7, PI2_DRAFT_MOST);
        pi2_drafting_free(drafter);
    }
}

static void test_capacity(void **state) {
    (void)state;
    int32_t tokens[CONTEXT + 9] = { 0 };
    for (int i = 0; i < CONTEXT + 9; i++) tokens[i] = i < CONTEXT ? i : 0;
    pi2_drafting *drafter = make_drafter(8, tokens, CONTEXT + 9); /* what does not fit is dropped */
    int32_t guess[PI2_DRAFT_NODES_MOST];
    pi2_drafting_note_pass(drafter, 0, 0, PASS_NS);
    assert_int_equal(guess_of(drafter, 8, guess), 0);
    pi2_drafting_free(drafter);
}

/* A drafter that takes time, as far as anybody can tell: sure of a token that is right, or wrong. */
typedef struct told_drafter {
    uint32_t asked, unchanged;
    bool fails, stops;       /* stops: in the midst of the next proposal the process is stopped for long */
    uint32_t named, judged, held; /* places that were wanted; what it heard of its own guess last */
} told_drafter;
static told_drafter told;
static uint64_t stopped_ns;

uint64_t __real_pi2_clock_ns(void);
uint64_t __wrap_pi2_clock_ns(void);
uint64_t __wrap_pi2_clock_ns(void) { return __real_pi2_clock_ns() + stopped_ns; }

static size_t told_bytes(const struct pi2_planned_run *run, uint32_t context_tokens) {
    (void)run;
    return context_tokens ? 1 : 0;
}

static pi2_status begin_told(struct pi2_session *session, void **state_out) {
    (void)session;
    told = (told_drafter){ 0 };
    *state_out = &told;
    return PI2_OK;
}

static void end_told(void *state) { (void)state; }

static pi2_status propose_told(void *state, const pi2_draft_text *text, const pi2_draft_wish *wish,
                               pi2_draft *draft_out) {
    told_drafter *drafter = state;
    drafter->asked++;
    drafter->unchanged = text->unchanged;
    if (drafter->fails) return PI2_ERR_IO;
    if (drafter->stops) stopped_ns += 1000000000000;
    drafter->stops = false;
    draft_out->count = wish->most < 4 ? wish->most : 4;
    for (uint32_t i = 0; i < draft_out->count; i++) {
        draft_out->tokens[i] = 500 + (int32_t)i;
        draft_out->chances[i] = 0.9f;
    }
    drafter->named = wish->named ? wish->named->most : 0;
    if (wish->named) wish->named->count = 1;
    return PI2_OK;
}

static void judge_told(void *state, uint32_t checked, uint32_t right, const uint8_t *path) {
    told_drafter *drafter = state;
    drafter->judged = checked;
    drafter->held = right;
    assert_true(right <= checked);
    for (uint32_t i = 0; i < right; i++) assert_int_equal(path[i], i);
}

static void follow_told(void *state, const void *from) {
    (void)state;
    (void)from;
}

static const pi2_drafter_kind told_kind = {
    .name = "told", .costs = true, .bytes = told_bytes, .begin = begin_told, .end = end_told,
    .propose = propose_told, .judge = judge_told, .follow = follow_told,
};

enum { TOLD_PASSES = 500 };
static const uint64_t slow_pass_ns = 1000000000; /* beside which what the test itself takes is nothing */

/* Passes over text that never repeats; of each guess so many tokens are right. */
static void pass_often(pi2_drafting *drafting, uint32_t right, uint64_t token_ns) {
    for (int i = 0; i < TOLD_PASSES; i++) {
        int32_t guess[PI2_DRAFT_NODES_MOST];
        const int32_t token = i;
        pi2_drafting_truncate(drafting, CONTEXT / 2);
        pi2_drafting_push(drafting, &token, 1);
        const uint32_t count = guess_of(drafting, 8, guess);
        pi2_drafting_note_pass(drafting, count, 0, slow_pass_ns + count * token_ns);
        if (count) note_guess(drafting, right < count ? right + 1 : count, right < count ? right : count);
    }
}

static pi2_drafting *make_told(void) {
    static const pi2_drafter_kind *const kinds[] = { &pi2_drafter_ngram, &told_kind, NULL };
    pi2_drafting *drafting = NULL;
    const pi2_drafting_options options = { .kinds = kinds, .reads = true, .context_tokens = CONTEXT, .most = 8 };
    assert_int_equal(pi2_drafting_create(&options, &drafting), PI2_OK);
    return drafting;
}

static void test_a_drafter_that_costs(void **state) {
    (void)state;
    pi2_drafter_counters counters[2];
    pi2_drafting *drafting = make_told();
    pass_often(drafting, 4, slow_pass_ns / 100);
    assert_in_range(told.asked, TOLD_PASSES - TOLD_PASSES / 24, TOLD_PASSES - 1); /* it pays: nearly always asked */
    assert_int_equal(pi2_drafting_count(drafting, counters, 2), 2);
    assert_string_equal(counters[1].name, "told");
    assert_int_equal(counters[1].right, counters[1].guessed);
    assert_true(counters[1].gained_ns > (int64_t)(TOLD_PASSES * slow_pass_ns));
    assert_int_equal(counters[0].guessed, 0);
    pi2_drafting_free(drafting);

    drafting = make_told();
    pass_often(drafting, 0, slow_pass_ns / 10);
    assert_true(told.asked > 4); /* wrong and not free: tried now and then */
    assert_true(told.asked < TOLD_PASSES / 10);
    assert_int_equal(pi2_drafting_count(drafting, counters, 2), 2);
    assert_int_equal(counters[1].right, 0);
    assert_true(counters[1].gained_ns < 0);
    pass_often(drafting, 4, slow_pass_ns / 100);
    pass_often(drafting, 4, slow_pass_ns / 100);
    assert_true(told.asked > TOLD_PASSES); /* and then it pays: asked again */
    pi2_drafting_free(drafting);
}

/* What a process was stopped for is not lost by guessing. */
static void test_a_drafter_after_a_stop(void **state) {
    (void)state;
    pi2_drafting *drafting = make_told();
    pass_often(drafting, 4, slow_pass_ns / 100);
    const uint32_t asked = told.asked;
    told.stops = true;
    pass_often(drafting, 4, slow_pass_ns / 100);
    assert_false(told.stops);
    assert_in_range(told.asked - asked, TOLD_PASSES - TOLD_PASSES / 24, TOLD_PASSES);
    pi2_drafting_free(drafting);
}

/* In a short answer one that is never right has lost no more than guesses may; one that is right is not held up. */
static void test_what_a_drafter_may_lose(void **state) {
    (void)state;
    enum { SHORT = 40 };
    const uint64_t token_ns = slow_pass_ns / 32;
    for (uint32_t right = 0; right <= 4; right += 4) {
        pi2_drafter_counters counters[2];
        pi2_drafting *drafting = make_told();
        int32_t guess[PI2_DRAFT_NODES_MOST];
        for (int32_t i = 0; i < SHORT; i++) {
            pi2_drafting_truncate(drafting, CONTEXT / 2);
            pi2_drafting_push(drafting, &i, 1);
            const uint32_t count = guess_of(drafting, 8, guess), hit = right < count ? right : count;
            pi2_drafting_note_pass(drafting, count, 0, slow_pass_ns + count * token_ns);
            if (count) note_guess(drafting, right ? count : 1, hit);
        }
        assert_int_equal(pi2_drafting_count(drafting, counters, 2), 2);
        if (right) assert_in_range(counters[1].right, 100, 8 * SHORT);
        else assert_true(counters[1].gained_ns < 0 && counters[1].gained_ns > -(int64_t)slow_pass_ns);
        pi2_drafting_free(drafting);
    }
}

/* What of the text a drafter has read already is told; one that fails is left alone. */
static void test_what_a_drafter_is_told(void **state) {
    (void)state;
    static const int32_t tokens[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 }; /* none twice */
    int32_t guess[PI2_DRAFT_NODES_MOST];
    pi2_drafting *drafting = make_told();
    pi2_drafting_note_pass(drafting, 0, 0, slow_pass_ns);
    pi2_drafting_push(drafting, tokens, 8);
    assert_int_equal(guess_of(drafting, 3, guess), 1); /* nobody knows what it takes */
    assert_int_equal(told.unchanged, 0);
    pi2_drafting_push(drafting, tokens + 8, 2);
    (void)guess_of(drafting, 3, guess);
    assert_int_equal(told.unchanged, 8);
    pi2_drafting_truncate(drafting, 5);
    pi2_drafting_push(drafting, tokens + 10, 5);
    (void)guess_of(drafting, 3, guess);
    assert_int_equal(told.unchanged, 5);
    told.fails = true;
    const uint32_t asked = told.asked;
    assert_int_equal(guess_of(drafting, 3, guess), 0);
    assert_int_equal(guess_of(drafting, 3, guess), 0);
    assert_int_equal(told.asked, asked + 1);
    pi2_drafting_free(drafting);
}

/* Makes a tree where another drafter has named something: 600, and beside it 500 and 501 behind that. */
static pi2_status propose_joined(void *state, const pi2_draft_text *text, const pi2_draft_wish *wish,
                                 pi2_draft *draft_out) {
    static const pi2_draft tree = { .count = 3, .tokens = { 600, 500, 501 }, .parents = { 0, 0, 2 },
                                    .chances = { 0.4f, 0.5f, 0.9f } };
    (void)state;
    (void)wish;
    draft_out->count = 0;
    if (text->named) *draft_out = tree;
    return PI2_OK;
}

static void judge_joined(void *state, uint32_t checked, uint32_t right, const uint8_t *path) {
    (void)state;
    (void)checked;
    (void)right;
    (void)path;
    fail_msg("a tree of what another drafter names is that one's");
}

static const pi2_drafter_kind joining_kind = {
    .name = "joining", .joins = true, .bytes = told_bytes, .begin = begin_told, .end = end_told,
    .propose = propose_joined, .judge = judge_joined, .follow = follow_told,
};

/* A drafter that computes hears of its own guess alone what came of a tree that was made of it. */
static void test_what_is_joined(void **state) {
    (void)state;
    static const pi2_drafter_kind *const kinds[] = { &told_kind, &joining_kind, NULL };
    static const struct {
        uint32_t checked, right;
        int32_t text[2];
        uint8_t path[2];
        uint32_t judged, held;
    } cases[] = {
        { 3, 2, { 500, 501 }, { 1, 2 }, 3, 2 }, { 2, 2, { 500, 501 }, { 1, 2 }, 2, 2 }, { 2, 1, { 500 }, { 1 }, 2, 1 },
        { 2, 1, { 600 }, { 0 }, 1, 0 }, { 1, 0, { 0 }, { 0 }, 1, 0 } };
    const pi2_drafting_options options = { .kinds = kinds, .reads = true, .context_tokens = CONTEXT, .most = 8,
                                           .trees = true, .nodes = 16, .leaves = 16 };
    int32_t guess[PI2_DRAFT_NODES_MOST];
    uint8_t parents[PI2_DRAFT_NODES_MOST];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pi2_drafting *drafting = NULL;
        uint32_t count = 0;
        pi2_drafter_counters counters[2];
        assert_int_equal(pi2_drafting_create(&options, &drafting), PI2_OK);
        pi2_drafting_note_pass(drafting, 0, 0, slow_pass_ns);
        pi2_drafting_push(drafting, &(int32_t){ 7 }, 1);
        assert_int_equal(pi2_drafting_guess(drafting, 8, guess, parents, &count), PI2_OK);
        assert_int_equal(told.named, 1); /* nobody knows what it takes */
        assert_int_equal(count, 3);
        assert_true(guess[1] == 500 && guess[2] == 501 && parents[2] == 2);
        pi2_drafting_note_pass(drafting, count, 0, slow_pass_ns);
        pi2_drafting_push(drafting, cases[i].text, cases[i].right);
        pi2_drafting_note_guess(drafting, cases[i].checked, cases[i].right, cases[i].path);
        assert_int_equal(told.held, cases[i].held < 1 ? cases[i].held : 1); /* its chain had one token */
        assert_int_equal(told.judged, 1);
        pi2_drafting_push(drafting, &(int32_t){ 9 }, 1);
        assert_int_equal(pi2_drafting_guess(drafting, 8, guess, parents, &count), PI2_OK);
        assert_true(told.named > 1 && count == 3);
        pi2_drafting_note_pass(drafting, count, 0, slow_pass_ns);
        pi2_drafting_push(drafting, cases[i].text, cases[i].right);
        pi2_drafting_note_guess(drafting, cases[i].checked, cases[i].right, cases[i].path);
        assert_int_equal(told.judged, cases[i].judged);
        assert_int_equal(told.held, cases[i].held);
        assert_int_equal(pi2_drafting_count(drafting, counters, 2), 2);
        assert_int_equal(counters[0].right, 2 * cases[i].right);
        assert_int_equal(counters[1].guessed, 0);
        assert_int_equal(pi2_drafting_guess_beside(drafting, 8, guess, parents, &count), PI2_OK);
        assert_int_equal(told.named, 0); /* a chain */
        pi2_drafting_free(drafting);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_longest_then_latest),
        cmocka_unit_test(test_what_matches_learn), cmocka_unit_test(test_nothing_to_guess),
        cmocka_unit_test(test_before_a_pass_was_timed),
        cmocka_unit_test(test_length_follows_what_was_seen),
        cmocka_unit_test(test_guesses_in_memory), cmocka_unit_test(test_what_guesses_may_lose),
        cmocka_unit_test(test_guesses_after_a_stop), cmocka_unit_test(test_guesses_beside_others),
        cmocka_unit_test(test_what_many_tokens_take), cmocka_unit_test(test_what_waiting_tells),
        cmocka_unit_test(test_more_tokens_than_ever),
        cmocka_unit_test(test_depth_of_trees), cmocka_unit_test(test_capacity),
        cmocka_unit_test(test_a_drafter_that_costs), cmocka_unit_test(test_a_drafter_after_a_stop),
        cmocka_unit_test(test_what_a_drafter_may_lose),
        cmocka_unit_test(test_what_a_drafter_is_told), cmocka_unit_test(test_what_is_joined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
