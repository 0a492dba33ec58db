/*
 * emulator.h: whether this test was cross-built to run under qemu's user mode.
 *
 * There the process is the emulator's: the system tells what qemu holds, hundreds of megabytes that grow
 * with the code that has been translated, and memory that is given back need not leave it. Budgets are
 * then larger, and what only the system's figures can show is not asked; each such case says so by name.
 */
#ifndef PI2_TESTS_SUPPORT_EMULATOR_H
#define PI2_TESTS_SUPPORT_EMULATOR_H

#if defined(PI2_TESTS_ARE_EMULATED)
enum { PI2_UNDER_EMULATOR = 1 };
#else
enum { PI2_UNDER_EMULATOR = 0 };
#endif

#endif
