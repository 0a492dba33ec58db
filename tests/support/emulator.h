/*
 * emulator.h: whether this test was cross-built to run under qemu's user mode.
 *
 * There the process is the emulator's: the system tells what qemu holds, hundreds of megabytes that grow
 * with the code that has been translated, and memory that is given back need not leave it. Budgets are
 * then larger, and what only the system's figures can show is not asked; each such case says so by name.
 */
#ifndef PI2_TESTS_SUPPORT_EMULATOR_H
#define PI2_TESTS_SUPPORT_EMULATOR_H

#include "support/sanitizer.h"

#if defined(PI2_TESTS_ARE_EMULATED)
enum { PI2_UNDER_EMULATOR = 1 };
#else
enum { PI2_UNDER_EMULATOR = 0 };
#endif

/* For a preparation within this process (0: the default), and for an engine that shall have all in memory. After some
   hundred engines qemu holds more than 2 GB, after a thousand 10 (without it the same test's process has 117 MB). */
#define PI2_TEST_PREPARE_BYTES (PI2_UNDER_EMULATOR || PI2_UNDER_ASAN ? 100000000000u : 0u)
enum { PI2_TEST_PLENTY_BYTES = PI2_UNDER_EMULATOR ? 2000000000 : 400000000 };

#endif
