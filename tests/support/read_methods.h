/* read_methods.h: which of the methods that this build can read with the system has too. */
#ifndef PI2_TESTS_SUPPORT_READ_METHODS_H
#define PI2_TESTS_SUPPORT_READ_METHODS_H

#include <stdbool.h>

/** False, and told by name: the system (an emulator, a container) has no io_uring. pread is everywhere. */
bool test_has_read_method(const char *method, const char *path);

#endif
