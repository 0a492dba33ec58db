/*
 * cache_book.h: what a cache of experts knows of who is in it, and who leaves next: a policy, and before it
 * the experts that a batch only passed through.
 *
 * A batch of a prompt wants nearly all experts of a layer, one layer after the other. A policy that took each
 * for a use like another would be left with the experts of the last layers, or of the first, and with none of
 * the others. So a batch does not exchange whole layers: of the experts that a layer wants and has, as many
 * stay as it held (or its share, while there is room), those that the batch's last tokens used most. The
 * others pass: the policy does not know them, they are the first to leave, and whoever is demanded by single
 * tokens later becomes known.
 *
 * The cache and the offline replay make the same calls, so that they agree. Nothing is allocated: a book is
 * one block of bytes. Threads: one at a time.
 */
#ifndef PI2_NEURON_CACHE_CACHE_BOOK_H
#define PI2_NEURON_CACHE_CACHE_BOOK_H

#include "neuron_cache/cache_policy.h"

/** Fewer tokens than this are no batch: they foretell too little of who should stay. */
enum { PI2_BATCH_LEAST = 16 };

typedef struct pi2_cache_book pi2_cache_book;

/** What a batch did with one expert of a layer. */
typedef struct pi2_batch_use {
    float worth;    /* sum of pi2_batch_worth() over the tokens that use it */
    uint32_t times; /* such tokens */
} pi2_batch_use;

/** What a use by a token is worth, when so many tokens of the batch come after it. */
float pi2_batch_worth(uint32_t tokens_after);

/** layer_keys: experts of a layer; keys of a layer are neighbours. */
size_t pi2_cache_book_bytes(const pi2_cache_policy *policy, uint32_t key_count, uint32_t slot_count,
                            uint32_t layer_keys);
/** In `memory`, aligned as malloc() does, of so many bytes; nothing is present. */
pi2_cache_book *pi2_cache_book_init(void *memory, const pi2_cache_policy *policy, uint32_t key_count,
                                    uint32_t slot_count, uint32_t layer_keys);

/**
 * A demand begins (keys ascending, of one layer). uses NULL: of single tokens. Then follow, for each key, hit (it
 * is present) or admit.
 */
void pi2_cache_book_demand(pi2_cache_book *book, const uint32_t *keys, const pi2_batch_use *uses, uint32_t count);
/** As in pi2_cache_policy. */
void pi2_cache_book_hit(pi2_cache_book *book, uint32_t key);
void pi2_cache_book_admit(pi2_cache_book *book, uint32_t key);
uint32_t pi2_cache_book_evict(pi2_cache_book *book, pi2_cache_may_evict *may, const void *user);
void pi2_cache_book_forget(pi2_cache_book *book, uint32_t key);
void pi2_cache_book_resize(pi2_cache_book *book, uint32_t slot_count);
/** How near the units of a layer, from this key on, are to firing (unit_near.h): before its demand. */
void pi2_cache_book_tell_near(pi2_cache_book *book, uint32_t first_key, const uint8_t *near, uint32_t count);
/** A pass over so many tokens begins. */
void pi2_cache_book_begin_pass(pi2_cache_book *book, uint32_t tokens);

#endif
