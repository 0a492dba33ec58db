/* pages.c: anonymous mmap. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS, madvise */
#if defined(__APPLE__)
#define _DARWIN_C_SOURCE
#endif
#include "base/pages.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fail.h"

size_t pi2_page_bytes(void) {
    const long bytes = sysconf(_SC_PAGESIZE);
    return bytes > 0 ? (size_t)bytes : 4096;
}

/* 0 when the sum does not fit. `unit` is a power of two. */
static size_t round_up(size_t bytes, size_t unit) {
    return bytes > SIZE_MAX - (unit - 1) ? 0 : (bytes + unit - 1) & ~(unit - 1);
}

/* Maps more than asked for and unmaps both ends, so that huge pages can begin at the first byte. */
static void *map_aligned(size_t bytes, size_t alignment, int protection, int flags) {
    const size_t extra = alignment > pi2_page_bytes() ? alignment : 0;
    if (bytes > SIZE_MAX - extra) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    unsigned char *map = mmap(NULL, bytes + extra, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (map == MAP_FAILED || extra == 0) return map;
    const size_t head = (size_t)(-(uintptr_t)map & (alignment - 1));
    if (head) (void)munmap(map, head);
    if (extra > head) (void)munmap(map + head + bytes, extra - head);
    return map + head;
}

static pi2_status reserve(size_t bytes, size_t alignment, int protection, int flags, const char *what,
                          void **pages_out) {
    *pages_out = NULL;
    if (bytes == 0) return pi2_fail(PI2_ERR_INVALID, "%s: no bytes asked for", what);
    const size_t whole = round_up(bytes, pi2_page_bytes());
    void *pages = whole ? map_aligned(whole, alignment, protection, flags) : MAP_FAILED;
    if (pages == MAP_FAILED) {
        return pi2_fail(PI2_ERR_MEMORY, "%s: cannot reserve %zu bytes of memory: %s", what, bytes,
                        strerror(whole ? errno : ENOMEM));
    }
    *pages_out = pages;
    return PI2_OK;
}

pi2_status pi2_pages_reserve(size_t bytes, bool huge_pages, const char *what, void **pages_out) {
    const bool is_huge = huge_pages && bytes >= PI2_HUGE_PAGE_BYTES;
    PI2_TRY(reserve(bytes, is_huge ? PI2_HUGE_PAGE_BYTES : 1, PROT_READ | PROT_WRITE, 0, what, pages_out));
#ifdef MADV_HUGEPAGE
    /* Only a hint: refusal costs speed. */
    if (is_huge) (void)madvise(*pages_out, round_up(bytes, pi2_page_bytes()), MADV_HUGEPAGE);
#endif
    return PI2_OK;
}

pi2_status pi2_pages_reserve_addresses(size_t bytes, const char *what, void **pages_out) {
    return reserve(bytes, 1, PROT_NONE, MAP_NORESERVE, what, pages_out);
}

void pi2_pages_release(void *pages, size_t bytes) {
    if (!pages) return;
    const size_t whole = round_up(bytes, pi2_page_bytes());
    const int result = munmap(pages, whole);
    assert(result == 0);
    (void)result;
}

void pi2_pages_vacate(void *pages, size_t bytes) {
    if (!pages) return;
    void *map = mmap(pages, round_up(bytes, pi2_page_bytes()), PROT_READ,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    assert(map == pages); /* else the memory stays as it is, which nobody misses */
    (void)map;
}

pi2_status pi2_pages_discard(void *part, size_t bytes) {
    const size_t page = pi2_page_bytes();
    const size_t head = (size_t)(-(uintptr_t)part & (page - 1));
    if (bytes <= head || bytes - head < page) return PI2_OK;
    unsigned char *first = (unsigned char *)part + head;
    const size_t whole = (bytes - head) & ~(page - 1);
#if defined(__linux__)
    /* Linux's MADV_DONTNEED frees at once and keeps the mapping, its hint included. */
    if (madvise(first, whole, MADV_DONTNEED) == 0) return PI2_OK;
#else
    if (mmap(first, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
             0) != MAP_FAILED) {
        return PI2_OK;
    }
#endif
    return pi2_fail(PI2_ERR_MEMORY, "cannot give back %zu bytes of memory: %s", whole,
                    strerror(errno));
}

bool pi2_pages_populate(void *part, size_t bytes) {
#ifdef MADV_POPULATE_WRITE
    const size_t head = (size_t)((uintptr_t)part & (pi2_page_bytes() - 1));
    const size_t whole = round_up(bytes + head, pi2_page_bytes());
    return madvise((unsigned char *)part - head, whole, MADV_POPULATE_WRITE) == 0;
#else
    (void)part;
    (void)bytes;
    return false;
#endif
}
