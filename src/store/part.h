/*
 * part.h: the states of what is read, checked and used as one, each in one atomic word:
 *
 *   ABSENT -> READING     it has memory, and a read that brings it was begun     (lock of its region held)
 *   READING -> ARRIVED    that read ended well                                   (lock of its region held)
 *   READING -> FAILED     it failed; the pass ends                               (lock of its region held)
 *   ARRIVED -> CHECKING   its first user takes the checksum, where this process has not (compare-and-swap)
 *   ABSENT -> CHECKING    it was loaded by hand, pi2_region_load()
 *   CHECKING -> READY     the checksum matched; it may be used
 *   CHECKING -> FAILED    it did not; the pass ends
 *   any -> ABSENT         its region says when
 *
 * The list stands once more below, as a table that every change is asserted against.
 */
#ifndef PI2_STORE_PART_H
#define PI2_STORE_PART_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { PI2_PART_ABSENT, PI2_PART_READING, PI2_PART_ARRIVED, PI2_PART_CHECKING, PI2_PART_READY, PI2_PART_FAILED };

typedef struct pi2_part {
    _Atomic uint8_t state;
    bool verified;           /* its checksum was taken in this process */
    _Atomic uint32_t ticket; /* READING: of the read that brings it */
} pi2_part;

/** A set of states. */
#define FROM(state) (1u << (state))
#define FROM_ANY 0xffu

/** Whether something in one of the states `from` may come to be in the state `to`. */
static inline bool pi2_part_may_change(unsigned from, uint8_t to) {
    static const uint8_t comes_from[] = {
        [PI2_PART_ABSENT] = FROM_ANY,
        [PI2_PART_READING] = FROM(PI2_PART_ABSENT),
        [PI2_PART_ARRIVED] = FROM(PI2_PART_READING),
        [PI2_PART_CHECKING] = FROM(PI2_PART_ARRIVED) | FROM(PI2_PART_ABSENT),
        [PI2_PART_READY] = FROM(PI2_PART_CHECKING),
        [PI2_PART_FAILED] = FROM(PI2_PART_READING) | FROM(PI2_PART_CHECKING),
    };
    return (from & ~(unsigned)comes_from[to]) == 0;
}

static inline int pi2_part_state(const pi2_part *part) {
    return atomic_load_explicit(&part->state, memory_order_acquire);
}

/** from: the states that the caller may come from. This and the next are the only ways to change a state. */
static inline void pi2_part_change(pi2_part *part, unsigned from, uint8_t to) {
    const uint8_t before = atomic_exchange(&part->state, to);
    assert(pi2_part_may_change(from, to) && (from >> before & 1u));
    (void)from, (void)before;
}

/** False: another thread was first. */
static inline bool pi2_part_try(pi2_part *part, uint8_t from, uint8_t to) {
    assert(pi2_part_may_change(FROM(from), to));
    return atomic_compare_exchange_strong(&part->state, &from, to);
}

#endif
