/*
 * shortcut_file.h: a shortcut's file: a GGUF whose architecture is "shortcut".
 *
 *   shortcut.block_count, shortcut.embedding_length   of the model, which must be the same
 *   shortcut.first_layer, shortcut.end_layer          the layers that are left out: [first, end)
 *   shortcut.model_hash                               of the model's header (pi2_run_source.header_hash); optional
 *   shortcut.weight   [width][width], any type that we read: what is added to x is weight * x + bias
 *   shortcut.bias     [width]
 *   shortcut.scale    [width], larger than 0: how large the numbers of x are as a rule, each
 */
#ifndef PI2_ENGINE_SHORTCUT_FILE_H
#define PI2_ENGINE_SHORTCUT_FILE_H

#include "base/output_file.h"
#include "file_formats/gguf.h"
#include "pipeline/shortcut.h"
#include "planner/planned_run.h"

/** Whether a model can have one, at `path`. Errors  UNSUPPORTED (why not) */
pi2_status pi2_shortcut_file_suits(const char *path, const pi2_run_source *source);
/** Whether it is such a file. */
bool pi2_shortcut_file_is(const pi2_gguf *gguf);
/** Which layers it stands for, of a model that it is for.
 *  Errors  FORMAT, INVALID (another model's: what differs), UNSUPPORTED (a type that is not read) */
pi2_status pi2_shortcut_file_check(const pi2_gguf *gguf, const pi2_run_source *source, uint32_t *first_out,
                                   uint32_t *end_out);
/** What is written into one. */
typedef struct pi2_shortcut_values {
    uint64_t model_hash;
    uint32_t layer_count, width, first_layer, end_layer;
    const float *bias, *scales;  /* [width] */
    void (*row)(const void *user, uint32_t row, float *out); /* of the matrix, out[width] */
    const void *user;
} pi2_shortcut_values;
/** How such a file is known, by its head. */
extern const pi2_output_kind pi2_shortcut_output_kind;
/** Writes it into a file that is open, and stays so. Errors  MEMORY; IO: told when the file is finished */
pi2_status pi2_shortcut_file_write(const pi2_shortcut_values *values, pi2_output_file *file);
/** Memory of a shortcut. */
size_t pi2_shortcut_bytes(uint32_t width);
/** Reads one from a file that was checked. Errors  IO, FORMAT (a number that is none), MEMORY */
pi2_status pi2_shortcut_load(const pi2_gguf *gguf, pi2_shortcut **shortcut_out);
void pi2_shortcut_free(pi2_shortcut *shortcut); /* NULL is fine */

#endif
