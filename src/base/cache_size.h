/* cache_size.h: how much the processor's caches hold. */
#ifndef PI2_BASE_CACHE_SIZE_H
#define PI2_BASE_CACHE_SIZE_H

#include <stdint.h>

/**
 * Bytes of the largest cache of the first processor, as the system tells it; 0: it does not. Others may share it, also
 * such as this system knows nothing of. root: in front of /sys, "" for the machine. Threads: any.
 */
uint64_t pi2_last_level_cache_bytes(const char *root);

#endif
