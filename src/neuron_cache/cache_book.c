/* cache_book.c: the policy's keys, and those that pass. */
#include "neuron_cache/cache_book.h"

#include <math.h>
#include <string.h>

#include "neuron_cache/key_list.h"

enum { ABSENT, KNOWN, PASSING };
enum { ALIGNMENT = 16, HALVINGS = 48, MOST_TIMES = 16 };

/* As `blend` has it: recent uses and frequent ones, with half-lives of 1 and 40 tokens. */
static const float recent_worth = 0.7f * 0.5f, frequent_worth = 0.3f * 0.0172f, frequent_half_life = 40.0f;

struct pi2_cache_book {
    const pi2_cache_policy *policy;
    void *policy_state;
    pi2_key_links links;
    pi2_key_list passing;
    uint8_t *where;      /* of each key */
    uint8_t *leaves;     /* of each key: a demand under way lets it pass */
    uint8_t *times;      /* of each key: uses in the batch under way */
    float *worth;        /* [layer_keys]: of the demand under way */
    uint32_t key_count, slot_count, layer_keys, known_count;
};

static size_t aligned(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

size_t pi2_cache_book_bytes(const pi2_cache_policy *policy, uint32_t key_count, uint32_t slot_count,
                            uint32_t layer_keys) {
    return aligned(sizeof(pi2_cache_book)) + aligned((size_t)key_count * 2 * sizeof(uint32_t)) +
           3 * aligned(key_count) + aligned(layer_keys * sizeof(float)) + policy->bytes(key_count, slot_count);
}

static void *carve(uint8_t **at, size_t bytes) {
    void *block = *at;
    *at += aligned(bytes);
    return memset(block, 0, bytes);
}

pi2_cache_book *pi2_cache_book_init(void *memory, const pi2_cache_policy *policy, uint32_t key_count,
                                    uint32_t slot_count, uint32_t layer_keys) {
    uint8_t *at = memory;
    pi2_cache_book *book = carve(&at, sizeof *book);
    book->policy = policy;
    book->key_count = key_count;
    book->slot_count = slot_count;
    book->layer_keys = layer_keys;
    book->links.next = carve(&at, (size_t)key_count * 2 * sizeof(uint32_t));
    book->links.prev = book->links.next + key_count;
    book->where = carve(&at, key_count);
    book->leaves = carve(&at, key_count);
    book->times = carve(&at, key_count);
    book->worth = carve(&at, layer_keys * sizeof(float));
    book->policy_state = at;
    pi2_key_list_init(&book->passing);
    policy->init(book->policy_state, key_count, slot_count);
    return book;
}

float pi2_batch_worth(uint32_t tokens_after) {
    const float age = (float)tokens_after;
    return recent_worth * exp2f(-age) + frequent_worth * exp2f(-age / frequent_half_life);
}

/* ---- moving keys ---- */

static void know(pi2_cache_book *book, uint32_t key) {
    book->policy->admit(book->policy_state, key);
    book->where[key] = KNOWN;
    book->known_count++;
}

static void unknow(pi2_cache_book *book, uint32_t key) {
    if (book->where[key] == KNOWN) {
        book->policy->forget(book->policy_state, key);
        book->known_count--;
    } else {
        pi2_key_list_remove(&book->passing, &book->links, key);
    }
    book->where[key] = ABSENT;
}

static void let_pass(pi2_cache_book *book, uint32_t key) {
    pi2_key_list_push(&book->passing, &book->links, key);
    book->where[key] = PASSING;
}

/* ---- a batch ---- */

/* A layer's share of what stays: of all slots but those through which a whole layer passes at a time. */
static uint32_t share_of(const pi2_cache_book *book, uint32_t layer) {
    const uint32_t passage = book->layer_keys < book->slot_count / 2 ? book->layer_keys : book->slot_count / 2;
    const uint64_t stay = book->slot_count - passage, layers = book->key_count / book->layer_keys;
    return (uint32_t)(stay * (layer + 1) / layers - stay * layer / layers);
}

/* Experts of the layer that stay: as many as it has of the policy's, or its share where there is room. */
static uint32_t quota_of(const pi2_cache_book *book, uint32_t first) {
    uint32_t held = 0;
    for (uint32_t i = 0; i < book->layer_keys; i++) held += book->where[first + i] == KNOWN;
    const uint32_t share = share_of(book, first / book->layer_keys);
    const uint32_t room = book->slot_count > book->known_count ? book->slot_count - book->known_count : 0;
    const uint32_t most = held + room < share ? held + room : share;
    return held > most ? held : most;
}

/* The worth that fewer than `quota` exceed, by halving the range. */
static float threshold_of(const float *worth, uint32_t count, uint32_t quota) {
    float low = 0, high = 0;
    for (uint32_t i = 0; i < count; i++) high = fmaxf(high, worth[i]);
    for (int n = 0; n < HALVINGS; n++) {
        const float middle = 0.5f * (low + high);
        uint32_t above = 0;
        for (uint32_t i = 0; i < count; i++) above += worth[i] > middle;
        *(above > quota ? &low : &high) = middle;
    }
    return high;
}

static void choose_who_passes(pi2_cache_book *book, uint32_t first, uint32_t quota) {
    const float threshold = threshold_of(book->worth, book->layer_keys, quota);
    uint32_t above = 0;
    for (uint32_t i = 0; i < book->layer_keys; i++) above += book->worth[i] > threshold;
    uint32_t equal = quota - above; /* of those of equal worth the first stay */
    for (uint32_t i = 0; i < book->layer_keys; i++) {
        bool stays = book->worth[i] > threshold;
        if (!stays && equal > 0 && book->worth[i] > 0) {
            stays = true;
            equal--;
        }
        book->leaves[first + i] = !stays;
        if (stays || book->where[first + i] != KNOWN) continue;
        unknow(book, first + i);
        let_pass(book, first + i);
    }
}

void pi2_cache_book_demand(pi2_cache_book *book, const uint32_t *keys, const pi2_batch_use *uses, uint32_t count) {
    if (count == 0) return;
    const uint32_t first = keys[0] / book->layer_keys * book->layer_keys;
    memset(book->leaves + first, 0, book->layer_keys);
    memset(book->times + first, 0, book->layer_keys);
    if (book->policy->begin_layer) book->policy->begin_layer(book->policy_state, first + book->layer_keys);
    if (!uses) return;
    const uint32_t quota = quota_of(book, first);
    if (count <= quota) return;
    memset(book->worth, 0, book->layer_keys * sizeof *book->worth);
    for (uint32_t i = 0; i < count; i++) {
        book->worth[keys[i] - first] = uses[i].worth;
        book->times[keys[i]] = (uint8_t)(uses[i].times < MOST_TIMES ? uses[i].times : MOST_TIMES);
    }
    choose_who_passes(book, first, quota);
}

/* A batch's uses of one that stays count one by one. */
static void repeat_hits(pi2_cache_book *book, uint32_t key) {
    for (uint32_t i = 1; i < book->times[key]; i++) book->policy->hit(book->policy_state, key);
}

void pi2_cache_book_hit(pi2_cache_book *book, uint32_t key) {
    if (book->leaves[key]) return; /* it passes already */
    if (book->where[key] == PASSING) {
        unknow(book, key);
        know(book, key);
    } else {
        book->policy->hit(book->policy_state, key);
    }
    repeat_hits(book, key);
}

void pi2_cache_book_admit(pi2_cache_book *book, uint32_t key) {
    if (book->leaves[key]) {
        let_pass(book, key);
        return;
    }
    know(book, key);
    repeat_hits(book, key);
}

uint32_t pi2_cache_book_evict(pi2_cache_book *book, pi2_cache_may_evict *may, const void *user) {
    for (uint32_t key = book->passing.last; key != UINT32_MAX; key = book->links.prev[key]) {
        if (!may(user, key)) continue;
        unknow(book, key);
        return key;
    }
    const uint32_t key = book->policy->evict(book->policy_state, may, user);
    if (key == UINT32_MAX) return key;
    book->where[key] = ABSENT;
    book->known_count--;
    return key;
}

void pi2_cache_book_forget(pi2_cache_book *book, uint32_t key) { unknow(book, key); }

/* A batch's uses count one by one, those of a few tokens at once as one token's. */
void pi2_cache_book_tell_near(pi2_cache_book *book, uint32_t first_key, const uint8_t *near, uint32_t count) {
    if (book->policy->tell_near) book->policy->tell_near(book->policy_state, first_key, near, count);
}

void pi2_cache_book_begin_pass(pi2_cache_book *book, uint32_t tokens) {
    if (!book->policy->begin_pass) return;
    book->policy->begin_pass(book->policy_state, tokens < PI2_BATCH_LEAST ? 1 : tokens);
}

void pi2_cache_book_resize(pi2_cache_book *book, uint32_t slot_count) {
    book->slot_count = slot_count; /* layers' shares follow */
    book->policy->resize(book->policy_state, slot_count);
}
