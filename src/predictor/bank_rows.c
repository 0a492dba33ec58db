/*
 * bank_rows.c: goes through a bank some neurons at a time, as the model numbers them, since Down's blocks are of
 * neurons that follow each other there.
 */
#include "predictor/bank_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "weight_formats/neuron_form.h"

enum { MOST_BLOCK_COLUMNS = 256 };
/* Lengths of rows whose squares are floats. */
#define MOST_LENGTH 1e18

static pi2_status check(const pi2_bank_rows *self, uint32_t neuron, double length) {
    if (length <= MOST_LENGTH) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: neuron %u of layer %u has weights that are no numbers, or beyond all others: "
                    "no predictor can be made of them", self->path, neuron, self->bank->layer);
}

pi2_status pi2_bank_rows_join_lengths(const pi2_bank_rows *self, uint32_t neuron, double length,
                                      double *length_in_out) {
    *length_in_out *= length;
    return check(self, neuron, *length_in_out);
}

pi2_status pi2_bank_rows_take(pi2_bank_rows *self, uint32_t neuron, bool is_up, float *out, double *length_out) {
    const pi2_neuron_bank *bank = self->bank;
    const pi2_weight_format *format = is_up ? bank->up_format : bank->gate_format;
    const size_t blocks = bank->width / format->block_columns;
    const uint8_t *values = self->neurons.bundles + (size_t)(neuron - self->begin) * bank->bundle_bytes;
    const uint8_t *scales = self->neurons.head;
    if (is_up) {
        values += bank->up_offset;
        scales += bank->up_scales_at + (size_t)neuron * bank->up_scale_bytes;
    } else {
        scales += bank->gate_scales_at + (size_t)neuron * bank->gate_scale_bytes;
    }
    double squares = 0;
    pi2_neuron_join_row(format, self->blocks, values, scales, blocks);
    format->decode_row(out, self->blocks, blocks);
    for (uint32_t c = 0; c < bank->width; c++) squares += (double)out[c] * out[c];
    *length_out = sqrt(squares);
    return check(self, neuron, *length_out);
}

static void add_squares(pi2_bank_rows *self, uint32_t first) {
    const pi2_neuron_bank *bank = self->bank;
    const pi2_weight_format *format = bank->down_format;
    const uint32_t each = format->block_columns;
    const uint8_t *columns[MOST_BLOCK_COLUMNS];
    float of_row[MOST_BLOCK_COLUMNS];
    for (uint32_t c = 0; c < each; c++) {
        columns[c] = self->neurons.bundles + (size_t)(first + c) * bank->bundle_bytes + bank->down_offset;
    }
    pi2_neuron_join_columns(format, self->rows, columns,
                            self->neurons.head + bank->down_scales_at +
                                (size_t)((self->begin + first) / each) * bank->down_scale_bytes,
                            bank->width);
    for (uint32_t r = 0; r < bank->width; r++) {
        format->decode_row(of_row, self->rows[r], 1);
        for (uint32_t c = 0; c < each; c++) self->squares[first + c] += (double)of_row[c] * of_row[c];
    }
}

pi2_status pi2_bank_rows_measure_down(pi2_bank_rows *self, double *lengths) {
    const pi2_weight_format *format = self->bank->down_format;
    memset(self->squares, 0, self->count * sizeof *self->squares);
    for (uint32_t r = 0; r < self->bank->width; r++) self->rows[r] = self->blocks + (size_t)r * format->block_bytes;
    for (uint32_t n = 0; n < self->count; n += format->block_columns) add_squares(self, n);
    for (uint32_t n = 0; n < self->count; n++) {
        lengths[n] = sqrt(self->squares[n]);
        PI2_TRY(check(self, self->begin + n, lengths[n]));
    }
    return PI2_OK;
}

uint32_t pi2_bank_rows_step(const pi2_bank_rows *self, uint32_t begin) {
    const uint32_t left = self->bank->neuron_count - begin;
    return left < self->neurons.step ? left : self->neurons.step;
}

pi2_status pi2_bank_rows_fetch(pi2_bank_rows *self, uint32_t begin, uint32_t count) {
    PI2_TRY(pi2_neuron_bundles_fetch(&self->neurons, begin, count));
    self->begin = begin;
    self->count = count;
    return PI2_OK;
}

pi2_status pi2_bank_rows_open(pi2_bank_rows *self, const char *path, pi2_weight_file *file,
                              const pi2_neuron_bank *bank) {
    const size_t row = (size_t)bank->width * sizeof(float);
    const size_t column = (size_t)bank->width * bank->down_format->block_bytes;
    *self = (pi2_bank_rows){ .path = path, .bank = bank };
    PI2_TRY(pi2_neuron_bundles_open(&self->neurons, file, bank));
    self->blocks = malloc(row > column ? row : column);
    self->rows = malloc(bank->width * sizeof *self->rows);
    self->squares = malloc(self->neurons.step * sizeof *self->squares);
    if (self->blocks && self->rows && self->squares) return PI2_OK;
    pi2_bank_rows_close(self);
    return pi2_fail(PI2_ERR_MEMORY, "no memory to make a predictor");
}

void pi2_bank_rows_close(pi2_bank_rows *self) {
    pi2_neuron_bundles_close(&self->neurons);
    free(self->blocks);
    free(self->rows);
    free(self->squares);
    memset(self, 0, sizeof *self);
}
