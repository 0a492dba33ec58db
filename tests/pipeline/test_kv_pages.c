/*
 * Goal:   a sequence reads what it wrote, however pages are shared, cut, copied and taken again; pages come back; a
 *         sequence alone lies in one piece; a full cache refuses and changes nothing.
 * Method: random steps over a cache of numbers, one a position, against a list of each sequence.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pipeline/kv_pages.h"
#include "powerinfer2/engine.h"
#include "support/tiny_model.h"

enum { TILE = 16, SEQUENCES = 5, CONTEXT = 160, TILES = CONTEXT / TILE, STEPS = 4000 };

typedef struct game {
    pi2_kv_pages *pages;
    uint32_t page_count;
    uint64_t random;
    int cache[SEQUENCES * CONTEXT];
    int want[SEQUENCES][CONTEXT];
    uint32_t lengths[SEQUENCES];
    int next;
    uint32_t refused, copied;
} game;

static uint32_t draw(game *g, uint32_t below) { return (uint32_t)(pi2_tiny_random(&g->random) % below); }

static int *at(game *g, uint32_t sequence, uint32_t position) {
    const uint32_t page = pi2_kv_pages_of(g->pages, sequence)[position / TILE];
    assert_true(page < g->page_count);
    return &g->cache[page * TILE + position % TILE];
}

static void check(game *g) {
    uint8_t is_used[SEQUENCES * TILES] = { 0 };
    uint32_t used = 0;
    for (uint32_t s = 0; s < SEQUENCES; s++) {
        for (uint32_t p = 0; p < g->lengths[s]; p++) {
            assert_int_equal(*at(g, s, p), g->want[s][p]);
            uint8_t *mark = &is_used[pi2_kv_pages_of(g->pages, s)[p / TILE]];
            used += *mark == 0;
            *mark = 1;
        }
    }
    assert_int_equal(pi2_kv_pages_unused(g->pages), g->page_count - used);
}

static void copy_pages(game *g, uint32_t sequence) {
    uint32_t from, to;
    while (pi2_kv_pages_next_copy(g->pages, sequence, &from, &to)) {
        memcpy(&g->cache[to * TILE], &g->cache[from * TILE], TILE * sizeof(int));
        g->copied++;
    }
}

/* Behind what is there, or over the end of it, as states that are made again are. */
static void write_some(game *g, uint32_t s) {
    const uint32_t first = draw(g, 4) ? g->lengths[s] : draw(g, g->lengths[s] + 1);
    const uint32_t most = CONTEXT - first, end = first + (most ? draw(g, most < 50 ? most + 1 : 50) : 0);
    const uint32_t wanted = pi2_kv_pages_wanted(g->pages, s, first, end), unused = pi2_kv_pages_unused(g->pages);
    const pi2_status status = pi2_kv_pages_hold(g->pages, s, first, end);
    assert_int_equal(status, wanted > unused ? PI2_ERR_CONTEXT : PI2_OK);
    if (status != PI2_OK) {
        assert_non_null(strstr(pi2_error_text(), "tokens of all sequences together"));
        g->refused++;
        return;
    }
    copy_pages(g, s);
    for (uint32_t p = first; p < end; p++) *at(g, s, p) = g->want[s][p] = g->next++;
    if (g->lengths[s] < end) g->lengths[s] = end;
}

static void cut(game *g, uint32_t s, uint32_t position) {
    pi2_kv_pages_trim(g->pages, s, position);
    g->lengths[s] = position;
}

static void share(game *g, uint32_t from, uint32_t to) {
    if (from == to) return;
    cut(g, to, 0);
    const uint32_t positions = draw(g, g->lengths[from] + 1);
    pi2_kv_pages_share(g->pages, from, to, positions);
    memcpy(g->want[to], g->want[from], positions * sizeof(int));
    g->lengths[to] = positions;
}

/* Goes on from the midst of another one, which then it is or is not. */
static void branch(game *g, uint32_t from, uint32_t to) {
    if (from == to) return;
    cut(g, to, 0);
    const uint32_t unused = pi2_kv_pages_unused(g->pages);
    const uint32_t first = draw(g, g->lengths[from] + 1), most = CONTEXT - first;
    const uint32_t end = first + (most ? draw(g, most < 31 ? most + 1 : 31) : 0);
    if (end == first) return;
    const uint32_t wanted = pi2_kv_pages_branch_wants(first, end);
    const pi2_status status = pi2_kv_pages_branch(g->pages, from, to, first, end);
    assert_int_equal(status, wanted > unused ? PI2_ERR_CONTEXT : PI2_OK);
    if (status != PI2_OK) {
        g->refused++;
        return;
    }
    assert_int_equal(pi2_kv_pages_unused(g->pages), unused - wanted);
    copy_pages(g, to);
    memcpy(g->want[to], g->want[from], first * sizeof(int));
    for (uint32_t p = first; p < end; p++) *at(g, to, p) = g->want[to][p] = g->next++;
    g->lengths[to] = end;
    if (draw(g, 2)) return;
    pi2_kv_pages_swap(g->pages, from, to);
    for (uint32_t p = 0; p < CONTEXT; p++) {
        const int number = g->want[from][p];
        g->want[from][p] = g->want[to][p];
        g->want[to][p] = number;
    }
    const uint32_t length = g->lengths[from];
    g->lengths[from] = g->lengths[to];
    g->lengths[to] = length;
}

static void play(uint32_t page_count, bool may_refuse) {
    game g = { .page_count = page_count, .random = page_count };
    assert_int_equal(pi2_kv_pages_create(page_count, SEQUENCES, TILES, &g.pages), PI2_OK);
    for (int i = 0; i < STEPS; i++) {
        const uint32_t s = draw(&g, SEQUENCES), act = draw(&g, 7);
        if (act == 0) share(&g, s, draw(&g, SEQUENCES));
        else if (act == 1) cut(&g, s, draw(&g, g.lengths[s] + 1));
        else if (act == 2) branch(&g, s, draw(&g, SEQUENCES));
        else write_some(&g, s);
        check(&g);
    }
    assert_int_equal(g.refused > 0, may_refuse);
    assert_true(g.copied > 100);
    for (uint32_t s = 0; s < SEQUENCES; s++) cut(&g, s, 0);
    assert_int_equal(pi2_kv_pages_unused(g.pages), page_count);
    pi2_kv_pages_free(g.pages);
}

static void test_what_is_written_is_read(void **state) {
    (void)state;
    play(SEQUENCES * TILES, false);
    play(TILES + 7, true);
}

/* A sequence alone has the cache's pages in their order; two that grow in turn lie in pieces of at least a block. */
static void test_pages_lie_together(void **state) {
    (void)state;
    enum { LONG = 64 };
    pi2_kv_pages *pages;
    assert_int_equal(pi2_kv_pages_create(2 * LONG, 2, LONG, &pages), PI2_OK);
    for (uint32_t p = 0; p < LONG * TILE; p += 8) assert_int_equal(pi2_kv_pages_hold(pages, 0, p, p + 8), PI2_OK);
    for (uint32_t t = 0; t < LONG; t++) assert_int_equal(pi2_kv_pages_of(pages, 0)[t], t);
    assert_int_equal(pi2_kv_pages_touched(pages), LONG);
    pi2_kv_pages_trim(pages, 0, 0);
    for (uint32_t t = 0; t < LONG; t++) {
        for (uint32_t s = 0; s < 2; s++) {
            assert_int_equal(pi2_kv_pages_hold(pages, s, t * TILE, (t + 1) * TILE), PI2_OK);
        }
    }
    uint32_t pieces = 0;
    for (uint32_t s = 0; s < 2; s++) {
        const uint32_t *of = pi2_kv_pages_of(pages, s);
        for (uint32_t t = 1; t < LONG; t++) pieces += of[t] != of[t - 1] + 1;
    }
    assert_in_range(pieces, 1, 2 * LONG / 16);
    assert_int_equal(pi2_kv_pages_unused(pages), 0);
    assert_int_equal(pi2_kv_pages_touched(pages), 2 * LONG);
    pi2_kv_pages_free(pages);
}

/* Branches take what is unused nearest to the cache's beginning, so that little of it is touched. */
static void test_branches_lie_near(void **state) {
    (void)state;
    enum { BRANCHES = 6, LONG = 64 };
    pi2_kv_pages *pages;
    assert_int_equal(pi2_kv_pages_create(LONG, 1 + BRANCHES, LONG, &pages), PI2_OK);
    assert_int_equal(pi2_kv_pages_hold(pages, 0, 0, 40), PI2_OK);
    for (uint32_t b = 0; b < BRANCHES; b++) {
        uint32_t from, to;
        assert_int_equal(pi2_kv_pages_branch_wants(40, 41), 1);
        assert_int_equal(pi2_kv_pages_branch(pages, 0, 1 + b, 40, 41), PI2_OK);
        assert_true(pi2_kv_pages_next_copy(pages, 1 + b, &from, &to));
        assert_int_equal(from, 2);
        assert_int_equal(to, 3 + b);
        assert_false(pi2_kv_pages_next_copy(pages, 1 + b, &from, &to));
    }
    assert_int_equal(pi2_kv_pages_touched(pages), 3 + BRANCHES);
    pi2_kv_pages_free(pages);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_what_is_written_is_read),
                                        cmocka_unit_test(test_pages_lie_together),
                                        cmocka_unit_test(test_branches_lie_near) };
    return cmocka_run_group_tests_name("kv pages", tests, NULL, NULL);
}
