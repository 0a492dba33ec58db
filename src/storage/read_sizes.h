/* read_sizes.h: what reads are multiples of, and how many of them an engine has in flight. */
#ifndef PI2_STORAGE_READ_SIZES_H
#define PI2_STORAGE_READ_SIZES_H

enum { PI2_READ_ALIGNMENT = 4096 };
/** Places in memory that one read fills at most. */
enum { PI2_READ_PIECES = 16 };
/** Reads in flight that an engine allows: of extents; of neurons, which are small: below 64 KB. */
enum { PI2_READ_DEPTH = 32, PI2_SMALL_READ_DEPTH = 128, PI2_SMALL_READ_BYTES = 64 << 10 };

/**
 * Bytes in flight at most where weights stream through a ring of so many: a quarter of it, at least 2 MB. A disk serves
 * what is in flight side by side: with all of the ring in flight all of it would come at once, and while threads
 * compute with it nothing could be asked for. 0 of no ring: no limit.
 */
static inline unsigned long long pi2_ring_bytes_in_flight(unsigned long long ring_bytes) {
    const unsigned long long least = 2 << 20, part = ring_bytes / 4;
    return ring_bytes == 0 ? 0 : part > least ? part : least;
}

#endif
