/*
 * s3_fifo.c: three queues (Yang et al., SOSP 2023). What is new enters a small queue of a tenth of
 * the slots; what is used again before it reaches the end moves on to the main queue, the rest
 * leaves, remembered in a ghost queue: what returns from there enters the main queue at once. In the
 * main queue a use earns another round, three at most. One scan passes through the small queue.
 */
#include <string.h>

#include "neuron_cache/cache_policy.h"
#include "neuron_cache/key_list.h"

enum { MOST_USES = 3, SMALL_SHARE = 10 };
enum { NOWHERE, IN_SMALL, IN_MAIN, IN_GHOST };

typedef struct s3_state {
    pi2_key_links links;
    pi2_key_list small, main, ghost;
    uint8_t *where, *uses;
    uint32_t small_most, ghost_most;
} s3_state;

static size_t s3_bytes(uint32_t key_count, uint32_t slot_count) {
    (void)slot_count;
    return sizeof(s3_state) + (size_t)key_count * (2 * sizeof(uint32_t) + 2);
}

static void set_sizes(s3_state *s3, uint32_t slot_count) {
    s3->small_most = slot_count / SMALL_SHARE ? slot_count / SMALL_SHARE : 1;
    s3->ghost_most = slot_count > s3->small_most ? slot_count - s3->small_most : 1;
}

static void s3_init(void *state, uint32_t key_count, uint32_t slot_count) {
    s3_state *s3 = state;
    s3->links.next = (uint32_t *)(s3 + 1);
    s3->links.prev = s3->links.next + key_count;
    s3->where = (uint8_t *)(s3->links.prev + key_count);
    s3->uses = s3->where + key_count;
    memset(s3->where, NOWHERE, key_count);
    memset(s3->uses, 0, key_count);
    pi2_key_list_init(&s3->small);
    pi2_key_list_init(&s3->main);
    pi2_key_list_init(&s3->ghost);
    set_sizes(s3, slot_count);
}

static pi2_key_list *list_of(s3_state *s3, uint32_t key) {
    return s3->where[key] == IN_SMALL ? &s3->small : s3->where[key] == IN_MAIN ? &s3->main : &s3->ghost;
}

static void take_out(s3_state *s3, uint32_t key) {
    if (s3->where[key] != NOWHERE) pi2_key_list_remove(list_of(s3, key), &s3->links, key);
    s3->where[key] = NOWHERE;
}

static void put_in(s3_state *s3, uint32_t key, uint8_t where) {
    s3->where[key] = where;
    pi2_key_list_push(list_of(s3, key), &s3->links, key);
}

static void s3_hit(void *state, uint32_t key) {
    s3_state *s3 = state;
    if (s3->uses[key] < MOST_USES) s3->uses[key]++;
}

static void s3_admit(void *state, uint32_t key) {
    s3_state *s3 = state;
    const bool was_ghost = s3->where[key] == IN_GHOST;
    take_out(s3, key);
    s3->uses[key] = 0;
    put_in(s3, key, was_ghost ? IN_MAIN : IN_SMALL);
}

static void s3_forget(void *state, uint32_t key) { take_out(state, key); }

static void s3_resize(void *state, uint32_t slot_count) {
    s3_state *s3 = state;
    set_sizes(s3, slot_count);
    while (s3->ghost.count > s3->ghost_most) take_out(s3, s3->ghost.last);
}

static void to_ghost(s3_state *s3, uint32_t key) {
    take_out(s3, key);
    put_in(s3, key, IN_GHOST);
    if (s3->ghost.count > s3->ghost_most) take_out(s3, s3->ghost.last);
}

/* One look at each key of the small queue, oldest first. */
static uint32_t evict_small(s3_state *s3, pi2_cache_may_evict *may, const void *user) {
    for (uint32_t key = s3->small.last, next; key != UINT32_MAX; key = next) {
        next = s3->links.prev[key];
        if (!may(user, key)) continue;
        if (s3->uses[key] > 0) {
            take_out(s3, key);
            s3->uses[key] = 0;
            put_in(s3, key, IN_MAIN);
            continue;
        }
        to_ghost(s3, key);
        return key;
    }
    return UINT32_MAX;
}

/* Each key is met at most MOST_USES + 1 times before it has no use left. */
static uint32_t evict_main(s3_state *s3, pi2_cache_may_evict *may, const void *user) {
    const uint64_t turns = (uint64_t)s3->main.count * (MOST_USES + 1);
    for (uint64_t i = 0; i < turns; i++) {
        const uint32_t key = s3->main.last;
        take_out(s3, key);
        const bool stays = s3->uses[key] > 0 || !may(user, key);
        if (!stays) return key;
        if (s3->uses[key] > 0) s3->uses[key]--;
        put_in(s3, key, IN_MAIN);
    }
    return UINT32_MAX;
}

static uint32_t s3_evict(void *state, pi2_cache_may_evict *may, const void *user) {
    s3_state *s3 = state;
    uint32_t key = UINT32_MAX;
    if (s3->small.count >= s3->small_most) key = evict_small(s3, may, user);
    if (key == UINT32_MAX) key = evict_main(s3, may, user);
    if (key == UINT32_MAX) key = evict_small(s3, may, user);
    return key;
}

const pi2_cache_policy pi2_cache_policy_s3_fifo = {
    .name = "s3_fifo", .description = "S3-FIFO: small, main and ghost queue", .bytes = s3_bytes, .init = s3_init,
    .hit = s3_hit, .admit = s3_admit, .evict = s3_evict, .forget = s3_forget, .resize = s3_resize,
};
