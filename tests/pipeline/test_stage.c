/*
 * Goal:   each chunk of a stage is done once and its tail after them, whoever owns how many; a member that is alone
 *         takes its own in order, then the others' from their end; a stage behind the list's end touches nothing
 *         outside the list, lets no thread wait for ever, and is told.
 * Method: three threads walk more stages than the list has; what lies behind it is compared afterwards.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/team.h"
#include "pipeline/stage.h"

enum { MEMBERS = 3, STAGES = 4, BEHIND = 3, CHUNKS = 50 };

typedef struct stage_walk {
    pi2_stage_list list;
    pi2_sleepers sleepers;
    uint32_t stage_count, chunk_count, own_count, owners; /* owners: the first members */
    _Atomic uint32_t chunks[STAGES + BEHIND], tails[STAGES + BEHIND];
    _Atomic bool is_early; /* a tail ran before its chunks */
} stage_walk;

typedef struct stage_call {
    stage_walk *walk;
    uint32_t stage;
} stage_call;

static void chunk(void *argument, unsigned member, uint32_t number) {
    const stage_call *call = argument;
    (void)member, (void)number;
    atomic_fetch_add(&call->walk->chunks[call->stage], 1);
}

static void tail(void *argument, unsigned member) {
    const stage_call *call = argument;
    (void)member;
    const uint32_t done = atomic_load(&call->walk->chunks[call->stage]);
    if (done != call->walk->chunk_count) atomic_store(&call->walk->is_early, true);
    atomic_fetch_add(&call->walk->tails[call->stage], 1);
}

static void walk_stages(void *argument, unsigned member, unsigned member_count) {
    stage_walk *walk = argument;
    (void)member_count;
    for (uint32_t i = 0; i < walk->stage_count; i++) {
        stage_call call = { walk, i };
        const pi2_stage_parts parts = { walk->chunk_count, walk->own_count, member < walk->owners };
        pi2_stage_run(&walk->list, i, parts, chunk, tail, &call, member);
    }
}

static void run_owned(uint32_t stage_count, uint32_t chunk_count, uint32_t own_count, uint32_t owners) {
    static const unsigned char untouched[BEHIND * sizeof(pi2_stage)] = { 0 };
    stage_walk walk = { .stage_count = stage_count, .chunk_count = chunk_count, .own_count = own_count,
                        .owners = owners };
    pi2_team *team = NULL;
    void *memory = NULL;
    assert_int_equal(posix_memalign(&memory, 64, (STAGES + BEHIND) * sizeof(pi2_stage)), 0);
    memset(memory, 0, (STAGES + BEHIND) * sizeof(pi2_stage));
    walk.list.stages = memory;
    walk.list.capacity = STAGES;
    walk.list.sleepers = &walk.sleepers;
    assert_int_equal(pi2_sleepers_init(&walk.sleepers, false), PI2_OK);
    assert_int_equal(pi2_team_create(MEMBERS, NULL, &team), PI2_OK);
    pi2_stage_list_reset(&walk.list);
    pi2_team_run(team, walk_stages, &walk);
    for (uint32_t i = 0; i < STAGES + BEHIND; i++) {
        const bool is_run = i < stage_count && i < STAGES;
        assert_int_equal(atomic_load(&walk.chunks[i]), is_run ? chunk_count : 0);
        assert_int_equal(atomic_load(&walk.tails[i]), is_run ? 1 : 0);
    }
    assert_false(atomic_load(&walk.is_early));
    assert_int_equal(atomic_load(&walk.list.is_overrun), stage_count > STAGES);
    assert_memory_equal(walk.list.stages + STAGES, untouched, sizeof untouched);
    pi2_stage_list_reset(&walk.list);
    assert_false(atomic_load(&walk.list.is_overrun));
    pi2_team_destroy(team);
    pi2_sleepers_destroy(&walk.sleepers);
    free(memory);
}

static void run(uint32_t stage_count, uint32_t chunk_count) { run_owned(stage_count, chunk_count, 0, 0); }

static void test_owners(void **state) {
    (void)state;
    for (uint32_t owners = 0; owners <= MEMBERS; owners++) {
        for (uint32_t own = 0; own <= CHUNKS; own += 5) run_owned(STAGES, CHUNKS, own, owners);
        run_owned(STAGES, 1, 1, owners);
    }
}

typedef struct order {
    uint32_t chunks[8], count;
} order;

static void note_chunk(void *argument, unsigned member, uint32_t number) {
    order *seen = argument;
    (void)member;
    seen->chunks[seen->count++] = number;
}

/* Where nobody owns anything owners come in order, too: weights that stream do. */
static void test_order(void **state) {
    (void)state;
    static const struct { uint32_t own; bool is_owner; uint32_t chunks[7]; } cases[] = {
        { 3, true, { 0, 1, 2, 6, 5, 4, 3 } }, { 3, false, { 3, 4, 5, 6, 2, 1, 0 } },
        { 0, true, { 0, 1, 2, 3, 4, 5, 6 } }, { 0, false, { 0, 1, 2, 3, 4, 5, 6 } },
        { 7, true, { 0, 1, 2, 3, 4, 5, 6 } }, { 7, false, { 6, 5, 4, 3, 2, 1, 0 } } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pi2_sleepers sleepers;
        assert_int_equal(pi2_sleepers_init(&sleepers, false), PI2_OK);
        static pi2_stage stage;
        pi2_stage_list list = { .stages = &stage, .capacity = 1, .sleepers = &sleepers };
        order seen = { .count = 0 };
        pi2_stage_list_reset(&list);
        pi2_stage_work(&list, 0, (pi2_stage_parts){ 7, cases[i].own, cases[i].is_owner }, note_chunk, NULL, &seen, 0);
        assert_int_equal(seen.count, 7);
        assert_memory_equal(seen.chunks, cases[i].chunks, sizeof cases[i].chunks);
        pi2_sleepers_destroy(&sleepers);
    }
}

static void test_within_the_list(void **state) {
    (void)state;
    for (uint32_t count = 0; count <= STAGES; count++) run(count, CHUNKS);
    run(STAGES, 1);
    run(STAGES, 0);
}

static void test_behind_the_list(void **state) {
    (void)state;
    for (uint32_t count = STAGES + 1; count <= STAGES + BEHIND; count++) {
        run(count, CHUNKS);
        run(count, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_owners), cmocka_unit_test(test_order),
        cmocka_unit_test(test_within_the_list), cmocka_unit_test(test_behind_the_list),
    };
    return cmocka_run_group_tests_name("stages", tests, NULL, NULL);
}
