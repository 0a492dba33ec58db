/* shortcut_maker.h: files of shortcuts (engine/shortcut_file.h), for tests. */
#ifndef PI2_TESTS_SUPPORT_SHORTCUT_MAKER_H
#define PI2_TESTS_SUPPORT_SHORTCUT_MAKER_H

#include "support/gguf_builder.h"
#include "weight_formats/weight_format.h"

typedef struct pi2_shortcut_maker {
    uint32_t layer_count, width;      /* of the model */
    uint32_t first, end;              /* layers left out */
    pi2_weight_type type;             /* of the map */
    float deviation;                  /* of its random weights and biases; 0: it adds nothing */
    float scale;
    uint64_t seed;
    /* What is wrong with it. */
    const char *without;              /* a key or a tensor; NULL: nothing is missing */
    uint32_t rows, length;            /* of the map, and of the bias; 0: width */
    const char *altered;              /* a tensor of F32, whose number 3 is ... */
    float number;
} pi2_shortcut_maker;

/** Of layers [1, 5) of a model of six layers and 512 numbers, Q8_0, and adding nothing. */
void pi2_shortcut_maker_init(pi2_shortcut_maker *maker);
/** The file's contents, to be altered before they are written. Free with pi2_gguf_builder_free(). */
void pi2_shortcut_maker_build(const pi2_shortcut_maker *maker, pi2_gguf_builder *builder);
/** Builds and writes. Returns 0, or an errno value. */
int pi2_shortcut_maker_write(const pi2_shortcut_maker *maker, const char *path);

#endif
