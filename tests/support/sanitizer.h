/*
 * sanitizer.h: whether this test was built with ThreadSanitizer or AddressSanitizer.
 *
 * ThreadSanitizer makes computing tens of times slower and looks for races only, which do not
 * depend on how large a model is, nor on weight types that take the same path. A test may do less
 * of that under it; the other builds do it all. AddressSanitizer makes some kernels as slow: what takes
 * minutes under it may be shorter there too.
 */
#ifndef PI2_TESTS_SUPPORT_SANITIZER_H
#define PI2_TESTS_SUPPORT_SANITIZER_H

#if defined(__SANITIZE_THREAD__)
enum { PI2_UNDER_TSAN = 1 };
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
enum { PI2_UNDER_TSAN = 1 };
#else
enum { PI2_UNDER_TSAN = 0 };
#endif
#else
enum { PI2_UNDER_TSAN = 0 };
#endif

#if defined(__SANITIZE_ADDRESS__)
enum { PI2_UNDER_ASAN = 1 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
enum { PI2_UNDER_ASAN = 1 };
#else
enum { PI2_UNDER_ASAN = 0 };
#endif
#else
enum { PI2_UNDER_ASAN = 0 };
#endif

#endif
