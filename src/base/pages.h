/* pages.h: large, page-aligned, zeroed memory straight from the system. */
#ifndef PI2_BASE_PAGES_H
#define PI2_BASE_PAGES_H

#include <stdbool.h>
#include <stddef.h>

#include "powerinfer2/status.h"

/** What the hint below hopes for; the systems that have another size only lose the hint's effect. */
enum { PI2_HUGE_PAGE_BYTES = 2 * 1024 * 1024 };

/**
 * Reserves at least `bytes` bytes of zeroed private memory; a page counts against the process's
 * memory only once it is touched. huge_pages is a hint: fewer TLB misses, and reads into
 * it that are few pieces of memory to the device (virtio: 1.2 to 3.1 GB/s). But a touched byte may
 * then cost 2 MB, so use it for memory that will be touched throughout.
 *
 * what       in   what it is for, for the error text, such as "weights"
 * pages_out  out  aligned to pi2_page_bytes(), and to 2 MB with huge_pages where the system can.
 *                 Release with the same `bytes`. NULL on any error.
 *
 * Errors   MEMORY, INVALID (0 bytes)
 * Threads  any
 */
pi2_status pi2_pages_reserve(size_t bytes, bool huge_pages, const char *what, void **pages_out);

/** The same of memory that nobody will touch, only addresses: however much, it takes none. */
pi2_status pi2_pages_reserve_addresses(size_t bytes, const char *what, void **pages_out);

/** Gives everything back. NULL is fine. */
void pi2_pages_release(void *pages, size_t bytes);

/** Gives the memory back, but not its addresses, for as long as the process lives: whoever still reads there finds
 *  zeros, and whoever writes there is at fault. NULL is fine. */
void pi2_pages_vacate(void *pages, size_t bytes);

/**
 * Gives back the memory of a part of reserved pages: it reads as zeros afterwards and may be
 * touched again. Only whole pages inside the part are given back. No other thread may use the
 * part meanwhile, and no I/O may be in flight on it or have it registered.
 * Errors   MEMORY
 */
pi2_status pi2_pages_discard(void *part, size_t bytes);

/**
 * Takes the memory of a part of reserved pages from the system now, so that the first use does not
 * have to wait for it. What is in them stays, so others may read and write them meanwhile.
 * Returns whether the system can do that; if it cannot, nothing happened. Threads: any.
 */
bool pi2_pages_populate(void *part, size_t bytes);

/** The system's page size: 4096 or 16384 on most. */
size_t pi2_page_bytes(void);

#endif
