/*
 * make_type_model.c: writes the tiny model of a weight type (support/type_model.h), or lists them: each several times,
 * with other random weights.
 *
 *   make_type_model                their names
 *   make_type_model Q4_K-1 out.gguf
 */
#include <stdio.h>
#include <string.h>

#include "support/type_model.h"

int main(int argument_count, char **arguments) {
    for (size_t i = 0; pi2_type_model_name(i); i++) {
        for (unsigned seed = 1; seed <= PI2_TYPE_MODEL_SEEDS; seed++) {
            char name[64];
            (void)snprintf(name, sizeof name, "%s-%u", pi2_type_model_name(i), seed);
            if (argument_count == 1) (void)printf("%s\n", name);
            else if (argument_count == 3 && strcmp(arguments[1], name) == 0) {
                return pi2_type_model_write(i, seed, arguments[2]) == 0 ? 0 : 2;
            }
        }
    }
    if (argument_count == 1) return 0;
    (void)fprintf(stderr, "make_type_model: cannot write '%s'\n", arguments[1]);
    return 2;
}
