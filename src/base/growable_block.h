/* growable_block.h: memory that grows without moving and goes back to the system when closed. */
#ifndef PI2_BASE_GROWABLE_BLOCK_H
#define PI2_BASE_GROWABLE_BLOCK_H

#include <stddef.h>
#include <stdint.h>

#include "powerinfer2/status.h"

/**
 * Address space is reserved at once and costs nothing; memory is added page by page from
 * the front, so that pointers into the block stay valid while it grows.
 */
typedef struct pi2_growable_block {
    uint8_t *memory;
    size_t reserved_bytes;
    size_t usable_bytes;
} pi2_growable_block;

/** Reserves address space. Errors  MEMORY. Threads: a block belongs to one thread. */
pi2_status pi2_growable_block_open(pi2_growable_block *block, size_t reserve_bytes);

/** Makes the first `bytes` usable (zeros where they are new). Errors  MEMORY, INVALID (beyond
 *  what was reserved). */
pi2_status pi2_growable_block_grow(pi2_growable_block *block, size_t bytes);

/** Gives back all but the first `bytes`; the block cannot grow any more. */
void pi2_growable_block_trim(pi2_growable_block *block, size_t bytes);

/** Gives everything back. A zeroed block is fine. */
void pi2_growable_block_close(pi2_growable_block *block);

#endif
