/*
 * make_family_model.c: writes the tiny model of a family (support/family_model.h), or lists the families.
 *
 *   make_family_model                  their names
 *   make_family_model gemma3 out.gguf  in F32
 *   make_family_model eagle3 out.gguf  a layer that guesses for the llama; eagle3-other: with all that can be otherwise
 */
#include <stdio.h>
#include <string.h>

#include "support/family_model.h"

int main(int argument_count, char **arguments) {
    if (argument_count == 1) {
        for (size_t i = 0; pi2_family_name(i); i++) (void)printf("%s\n", pi2_family_name(i));
        return 0;
    }
    if (argument_count == 3 && strncmp(arguments[1], "eagle3", 6) == 0) {
        const bool other = strcmp(arguments[1], "eagle3-other") == 0;
        const pi2_family_head head = { .layers = { 1, 2, 3 }, .normed_residual = other, .normed_features = other,
                                       .own_rows = other, .whole_vocabulary = other };
        if (pi2_family_model_write_head(&head, PI2_F32, 1, arguments[2]) == 0) return 0;
    } else if (argument_count == 3 && pi2_family_model_write(arguments[1], PI2_F32, 1, arguments[2]) == 0) return 0;
    (void)fprintf(stderr, "make_family_model: cannot write '%s'\n", argument_count > 1 ? arguments[1] : "");
    return 2;
}
