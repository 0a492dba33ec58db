/* bank_rows.h: rows of Gate and Up, and lengths of Down's columns, as floats, out of a bank of the bundle layout. */
#ifndef PI2_PREDICTOR_BANK_ROWS_H
#define PI2_PREDICTOR_BANK_ROWS_H

#include "clusters/neuron_bundles.h"
#include "file_formats/gguf.h"

/** One bank at work. Closed when zeroed. */
typedef struct pi2_bank_rows {
    const char *path;          /* of the cluster file, for errors */
    const pi2_neuron_bank *bank;
    pi2_neuron_bundles neurons;
    uint32_t begin, count;     /* neurons that were fetched */
    uint8_t *blocks;           /* one row of Gate or Up, or a block of columns of Down, as GGUF blocks */
    uint8_t **rows;            /* [width]: where each row of a block of columns is rebuilt */
    double *squares;           /* [step]: of Down's columns */
} pi2_bank_rows;

/** file: open; it and bank outlive it. Errors  as pi2_neuron_bundles_open() */
pi2_status pi2_bank_rows_open(pi2_bank_rows *self, const char *path, pi2_weight_file *file,
                              const pi2_neuron_bank *bank);
void pi2_bank_rows_close(pi2_bank_rows *self);

/** Fetches neurons [begin, begin + count) of those that the model numbers so: at most neurons.step, which begin is a
 *  multiple of. Errors  IO, FORMAT */
pi2_status pi2_bank_rows_fetch(pi2_bank_rows *self, uint32_t begin, uint32_t count);
/** Neurons of the next fetch from `begin` on; 0: there are no more. */
uint32_t pi2_bank_rows_step(const pi2_bank_rows *self, uint32_t begin);

/** A fetched neuron's row of Gate or Up, [width] floats. Errors  FORMAT (no numbers, or beyond all others) */
pi2_status pi2_bank_rows_take(pi2_bank_rows *self, uint32_t neuron, bool is_up, float *out, double *length_out);
/** *length_in_out times another: what an activation of 1 is worth where nothing is estimated of Up. Errors  FORMAT */
pi2_status pi2_bank_rows_join_lengths(const pi2_bank_rows *self, uint32_t neuron, double length, double *length_in_out);
/** Lengths of the fetched neurons' columns of Down, in `lengths[count]`. Errors  FORMAT */
pi2_status pi2_bank_rows_measure_down(pi2_bank_rows *self, double *lengths);

#endif
