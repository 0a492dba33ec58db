/*
 * make_type_model.c: writes the tiny model of a weight type (support/type_model.h), or lists them.
 *
 *   make_type_model                their names
 *   make_type_model Q4_K out.gguf
 */
#include <stdio.h>
#include <string.h>

#include "support/type_model.h"

int main(int argument_count, char **arguments) {
    for (size_t i = 0; pi2_type_model_name(i); i++) {
        if (argument_count == 1) (void)printf("%s\n", pi2_type_model_name(i));
        else if (argument_count == 3 && strcmp(arguments[1], pi2_type_model_name(i)) == 0) {
            return pi2_type_model_write(i, arguments[2]) == 0 ? 0 : 2;
        }
    }
    if (argument_count == 1) return 0;
    (void)fprintf(stderr, "make_type_model: cannot write '%s'\n", arguments[1]);
    return 2;
}
