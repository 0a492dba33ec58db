/* read_sizes.h: what reads are multiples of, and how many of them an engine has in flight. */
#ifndef PI2_STORAGE_READ_SIZES_H
#define PI2_STORAGE_READ_SIZES_H

enum { PI2_READ_ALIGNMENT = 4096 };
/** Places in memory that one read fills at most. */
enum { PI2_READ_PIECES = 16 };
/** Reads in flight that an engine allows: of extents; of neurons, which are small: below 64 KB. */
enum { PI2_READ_DEPTH = 32, PI2_SMALL_READ_DEPTH = 128, PI2_SMALL_READ_BYTES = 64 << 10 };

#endif
