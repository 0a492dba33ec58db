/* library_functions.h: functions of a library that is loaded where it is used alone. */
#ifndef PI2_CLI_LIBRARY_FUNCTIONS_H
#define PI2_CLI_LIBRARY_FUNCTIONS_H

#include <stdbool.h>
#include <stddef.h>

/** Puts a function's address into the pointer to it, of so many bytes; false: the library has none of this name. */
bool pi2_cli_find_function(void *library, const char *name, void *pointer, size_t bytes);

#endif
