/* hot_experts.c: uses weighted by age, and what follows from them. */
#include "neuron_cache/hot_experts.h"

#include <assert.h>
#include <string.h>

enum { OTHER, WANTED, HELD, AWAY };
enum { ALIGNMENT = 16, REVIEW_PASSES = 16, MOST_TIMES = 16, MOVE_SHARE = 64, MOST_MOVES = 16, GHOST_SHARE = 4 };

/* Half-life of a use: 64 passes, 2^(1 / 64) by hand, the same on every system. */
static const double growth = 1.0108892860517005, too_large = 1e200, difference = 1.25, much = 2;

struct pi2_hot_experts {
    double *uses;         /* of every key */
    uint32_t *left_at;    /* of every key: number of the eviction that it left by; 0: none */
    uint8_t *where;       /* of every key */
    double amount;        /* of a use now: it grows, so that nothing has to be aged */
    double missed;        /* uses of those that left as few evictions ago as a ghost remembers */
    uint32_t key_count, slot_count, ghost, evictions, passes;
    uint32_t wanted, held;
    pi2_hot_counters counters;
};

static size_t aligned(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

uint32_t pi2_hot_experts_most(uint32_t slot_count) {
    return slot_count - (slot_count / 4 > 1 ? slot_count / 4 : slot_count > 0);
}

size_t pi2_hot_experts_bytes(uint32_t key_count) {
    return aligned(sizeof(pi2_hot_experts)) + aligned(key_count * sizeof(double)) +
           aligned(key_count * sizeof(uint32_t)) + aligned(key_count);
}

pi2_hot_experts *pi2_hot_experts_init(void *memory, uint32_t key_count, uint32_t slot_count, const uint32_t *keys,
                                      uint32_t count) {
    assert(count <= pi2_hot_experts_most(slot_count));
    uint8_t *at = memset(memory, 0, pi2_hot_experts_bytes(key_count));
    pi2_hot_experts *hot = memory;
    at += aligned(sizeof *hot);
    hot->uses = (double *)(void *)at;
    at += aligned(key_count * sizeof *hot->uses);
    hot->left_at = (uint32_t *)(void *)at;
    hot->where = at + aligned(key_count * sizeof *hot->left_at);
    hot->amount = 1;
    hot->key_count = key_count;
    hot->slot_count = slot_count;
    hot->ghost = slot_count / GHOST_SHARE ? slot_count / GHOST_SHARE : 1;
    for (uint32_t i = 0; i < count; i++) {
        assert(keys[i] < key_count && hot->where[keys[i]] == OTHER);
        hot->where[keys[i]] = WANTED;
    }
    hot->wanted = count;
    return hot;
}

bool pi2_hot_experts_is_hot(const pi2_hot_experts *hot, uint32_t key) {
    return hot->where[key] == WANTED || hot->where[key] == HELD;
}
uint32_t pi2_hot_experts_count(const pi2_hot_experts *hot) { return hot->wanted + hot->held; }
uint32_t pi2_hot_experts_wanted(const pi2_hot_experts *hot) { return hot->wanted; }
pi2_hot_counters pi2_hot_experts_counters(const pi2_hot_experts *hot) { return hot->counters; }

/* The only way to change a state. from: the one that it must be in. */
static void change(pi2_hot_experts *hot, uint32_t key, uint8_t from, uint8_t to) {
    assert(hot->where[key] == from);
    hot->where[key] = to;
    hot->wanted += (uint32_t)(to == WANTED) - (from == WANTED);
    hot->held += (uint32_t)(to == HELD) - (from == HELD);
}

void pi2_hot_experts_hold(pi2_hot_experts *hot, uint32_t key) { change(hot, key, WANTED, HELD); }
void pi2_hot_experts_lose(pi2_hot_experts *hot, uint32_t key) { change(hot, key, HELD, WANTED); }

void pi2_hot_experts_use(pi2_hot_experts *hot, uint32_t key, uint32_t times) {
    hot->uses[key] += hot->amount * (times < MOST_TIMES ? times : MOST_TIMES);
}

/* Were the others' slots as many more as the ghost remembers, it would have been there. */
void pi2_hot_experts_missed(pi2_hot_experts *hot, uint32_t key) {
    const uint32_t left_at = hot->left_at[key];
    if (left_at && hot->evictions - left_at < hot->ghost) hot->missed += hot->amount;
}

void pi2_hot_experts_evicted(pi2_hot_experts *hot, uint32_t key) {
    hot->evictions += hot->evictions < UINT32_MAX;
    hot->left_at[key] = hot->evictions;
}

/* ---- changing places ---- */

static void next_pass(pi2_hot_experts *hot) {
    hot->passes++;
    hot->amount *= growth;
    if (hot->amount < too_large) return;
    for (uint32_t key = 0; key < hot->key_count; key++) hot->uses[key] /= hot->amount;
    hot->missed /= hot->amount;
    hot->amount = 1;
}

static uint32_t least_used(const pi2_hot_experts *hot, pi2_cache_may_evict *may, const void *user) {
    uint32_t least = UINT32_MAX;
    for (uint32_t key = 0; key < hot->key_count; key++) {
        if (hot->where[key] != HELD || (least != UINT32_MAX && hot->uses[key] >= hot->uses[least])) continue;
        if (may(user, key)) least = key;
    }
    return least;
}

static uint32_t most_used(const pi2_hot_experts *hot, uint8_t where, pi2_cache_may_evict *may, const void *user) {
    uint32_t most = UINT32_MAX;
    for (uint32_t key = 0; key < hot->key_count; key++) {
        if (hot->where[key] != where || (most != UINT32_MAX && hot->uses[key] <= hot->uses[most])) continue;
        if (may(user, key)) most = key;
    }
    return most;
}

/* The policy has the slots that are not hot experts'. */
static void resize(const pi2_hot_experts *hot, pi2_cache_book *book) {
    pi2_cache_book_resize(book, hot->slot_count - pi2_hot_experts_count(hot));
}

static void demote(pi2_hot_experts *hot, pi2_cache_book *book, uint32_t key) {
    change(hot, key, HELD, OTHER);
    resize(hot, book);
    pi2_cache_book_admit(book, key);
    hot->counters.demotions++;
}

static void promote(pi2_hot_experts *hot, pi2_cache_book *book, uint32_t key) {
    pi2_cache_book_forget(book, key);
    change(hot, key, OTHER, WANTED);
    change(hot, key, WANTED, HELD);
    resize(hot, book);
    hot->counters.promotions++;
}

/* One of the hot experts leaves, one of the others comes, or both. False: things are as they should be. */
static bool move_one(pi2_hot_experts *hot, pi2_cache_book *book, pi2_cache_may_evict *may, const void *user) {
    const uint32_t least = least_used(hot, may, user);
    if (least == UINT32_MAX) return false;
    const uint32_t most = most_used(hot, OTHER, may, user);
    const double slot = hot->missed / hot->ghost; /* what one more would bring the others */
    const bool pays_less = hot->uses[least] * difference < slot && hot->held > 1;
    const bool comes = most != UINT32_MAX && hot->uses[most] > hot->uses[least] * difference;
    const bool grows = hot->uses[least] > slot * much &&
                       pi2_hot_experts_count(hot) < pi2_hot_experts_most(hot->slot_count);
    if (comes) promote(hot, book, most);
    if (pays_less || (comes && !grows)) demote(hot, book, least);
    return comes || pays_less;
}

void pi2_hot_experts_begin_pass(pi2_hot_experts *hot, pi2_cache_book *book, pi2_cache_may_evict *may,
                                const void *user) {
    next_pass(hot);
    if (hot->passes % REVIEW_PASSES != 0) return;
    uint32_t moves = hot->slot_count / MOVE_SHARE;
    moves = moves < 1 ? 1 : moves < MOST_MOVES ? moves : MOST_MOVES;
    while (moves-- > 0 && move_one(hot, book, may, user)) {}
}

/* ---- memory that is short ---- */

void pi2_hot_experts_set_slots(pi2_hot_experts *hot, uint32_t slot_count) { hot->slot_count = slot_count; }

uint32_t pi2_hot_experts_set_aside(pi2_hot_experts *hot, pi2_cache_may_evict *may, const void *user, bool *held) {
    uint32_t key = UINT32_MAX;
    *held = hot->wanted == 0;
    if (*held) key = least_used(hot, may, user);
    for (uint32_t k = 0; !*held && k < hot->key_count; k++) {
        if (hot->where[k] == WANTED && (key == UINT32_MAX || hot->uses[k] < hot->uses[key])) key = k;
    }
    if (key != UINT32_MAX) change(hot, key, *held ? HELD : WANTED, AWAY);
    return key;
}

uint32_t pi2_hot_experts_bring_back(pi2_hot_experts *hot, pi2_cache_may_evict *may, const void *user) {
    const uint32_t key = most_used(hot, AWAY, may, user);
    if (key != UINT32_MAX) change(hot, key, AWAY, WANTED);
    return key;
}
