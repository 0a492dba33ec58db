/* key_list.h: doubly linked lists of keys in arrays, for cache policies. A key is in one list at most. */
#ifndef PI2_NEURON_CACHE_KEY_LIST_H
#define PI2_NEURON_CACHE_KEY_LIST_H

#include <stdint.h>

/** next and prev of every key, shared by the lists of one policy; UINT32_MAX ends a list. */
typedef struct pi2_key_links {
    uint32_t *next, *prev;
} pi2_key_links;

/** first: the newest; last: the oldest. */
typedef struct pi2_key_list {
    uint32_t first, last, count;
} pi2_key_list;

static inline void pi2_key_list_init(pi2_key_list *list) {
    *list = (pi2_key_list){ UINT32_MAX, UINT32_MAX, 0 };
}

static inline void pi2_key_list_push(pi2_key_list *list, pi2_key_links *links, uint32_t key) {
    links->next[key] = list->first;
    links->prev[key] = UINT32_MAX;
    if (list->first != UINT32_MAX) links->prev[list->first] = key;
    else list->last = key;
    list->first = key;
    list->count++;
}

static inline void pi2_key_list_remove(pi2_key_list *list, pi2_key_links *links, uint32_t key) {
    const uint32_t next = links->next[key], prev = links->prev[key];
    if (next != UINT32_MAX) links->prev[next] = prev;
    else list->last = prev;
    if (prev != UINT32_MAX) links->next[prev] = next;
    else list->first = next;
    list->count--;
}

#endif
