/* growable_block.c: reserve with PROT_NONE, make usable with mprotect. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS: in every libc, in POSIX since 2024 */
#define _DARWIN_C_SOURCE

#include "base/growable_block.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/fail.h"
#include "base/pages.h"

static size_t whole_pages(size_t bytes) {
    const size_t page = pi2_page_bytes();
    return bytes > SIZE_MAX - page ? SIZE_MAX / page * page : (bytes + page - 1) / page * page;
}

pi2_status pi2_growable_block_open(pi2_growable_block *block, size_t reserve_bytes) {
    const size_t bytes = whole_pages(reserve_bytes ? reserve_bytes : 1);
    *block = (pi2_growable_block){ 0 };
    void *memory = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return pi2_fail(PI2_ERR_MEMORY, "cannot reserve %zu bytes of address space: %s", bytes,
                        strerror(errno));
    }
    block->memory = memory;
    block->reserved_bytes = bytes;
    return PI2_OK;
}

pi2_status pi2_growable_block_grow(pi2_growable_block *block, size_t bytes) {
    if (bytes <= block->usable_bytes) return PI2_OK;
    if (bytes > block->reserved_bytes) {
        return pi2_fail(PI2_ERR_INVALID, "%zu bytes are more than the %zu reserved", bytes,
                        block->reserved_bytes);
    }
    const size_t usable = whole_pages(bytes);
    if (mprotect(block->memory, usable, PROT_READ | PROT_WRITE) != 0) {
        return pi2_fail(PI2_ERR_MEMORY, "cannot get %zu bytes of memory: %s", usable,
                        strerror(errno));
    }
    block->usable_bytes = usable;
    return PI2_OK;
}

void pi2_growable_block_trim(pi2_growable_block *block, size_t bytes) {
    const size_t kept = whole_pages(bytes ? bytes : 1);
    if (kept >= block->reserved_bytes) return;
    if (munmap(block->memory + kept, block->reserved_bytes - kept) != 0) return;
    block->reserved_bytes = kept;
    if (block->usable_bytes > kept) block->usable_bytes = kept;
}

void pi2_growable_block_close(pi2_growable_block *block) {
    if (block->memory) (void)munmap(block->memory, block->reserved_bytes);
    *block = (pi2_growable_block){ 0 };
}
