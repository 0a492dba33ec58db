/*
 * low_bit_make.c: goes through the banks some neurons at a time, as the model numbers them, since Down's blocks are of
 * neurons that follow each other there.
 */
#include "predictor/low_bit_make.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/progress.h"
#include "clusters/neuron_bundles.h"
#include "predictor/low_bit.h"
#include "weight_formats/neuron_form.h"

enum { MOST_BLOCK_COLUMNS = 256 };

typedef struct low_bit_maker {
    const pi2_low_bit_request *request;
    pi2_predictor *predictor;
    pi2_weight_file file;
    pi2_progress progress;
    uint64_t done_bytes;
    /* of the bank at work */
    const pi2_neuron_bank *bank;
    pi2_neuron_bundles neurons;
    uint8_t *blocks;         /* one row of Gate or Up, or a block of columns of Down, as GGUF blocks */
    uint8_t **rows;          /* [width]: where each row of a block of columns is rebuilt */
    float *floats;           /* [width], or a block's columns */
    double *squares;         /* [step]: of Down's columns */
} low_bit_maker;

static pi2_status fail_memory(void) { return pi2_fail(PI2_ERR_MEMORY, "no memory to make a predictor"); }

/* ---- one neuron's copies ---- */

/* A row of Gate or Up into self->floats; returns its length. */
static double decode_row(low_bit_maker *self, const pi2_weight_format *format, const uint8_t *values,
                         const uint8_t *scales) {
    const size_t blocks = self->bank->width / format->block_columns;
    double squares = 0;
    pi2_neuron_join_row(format, self->blocks, values, scales, blocks);
    format->decode_row(self->floats, self->blocks, blocks);
    for (uint32_t c = 0; c < self->bank->width; c++) squares += (double)self->floats[c] * self->floats[c];
    return sqrt(squares);
}

/* Lengths of rows whose squares are floats. */
#define MOST_LENGTH 1e18

static pi2_status fail_numbers(const low_bit_maker *self, uint32_t neuron) {
    return pi2_fail(PI2_ERR_FORMAT, "%s: neuron %u of layer %u has weights that are no numbers, or beyond all others: "
                    "no predictor can be made of them", pi2_gguf_file_path(self->request->gguf, 0), neuron,
                    self->bank->layer);
}

static pi2_status copy_neuron(low_bit_maker *self, uint8_t *data, uint32_t neuron, const uint8_t *bundle,
                              double worth) {
    const pi2_neuron_bank *bank = self->bank;
    const pi2_predictor *predictor = self->predictor;
    const uint32_t bits = self->request->bits;
    const double gate = decode_row(self, bank->gate_format, bundle,
                                   self->neurons.head + bank->gate_scales_at + (size_t)neuron * bank->gate_scale_bytes);
    if (!(gate <= MOST_LENGTH)) return fail_numbers(self, neuron);
    pi2_low_bit_put_row(predictor, bits, data, false, neuron, self->floats);
    if (bank->up_format) {
        const uint8_t *scales = self->neurons.head + bank->up_scales_at + (size_t)neuron * bank->up_scale_bytes;
        const double length = decode_row(self, bank->up_format, bundle + bank->up_offset, scales);
        if (!(length <= MOST_LENGTH)) return fail_numbers(self, neuron);
        if (predictor->has_up) pi2_low_bit_put_row(predictor, bits, data, true, neuron, self->floats);
        else worth *= length;
    }
    if (!(worth <= MOST_LENGTH)) return fail_numbers(self, neuron);
    pi2_low_bit_put_worth(predictor, bits, data, neuron, (float)worth);
    return PI2_OK;
}

/* The squared lengths of Down's columns [begin, end), whole blocks. */
static void measure_down(low_bit_maker *self, uint32_t begin, uint32_t end) {
    const pi2_neuron_bank *bank = self->bank;
    const pi2_weight_format *format = bank->down_format;
    const uint32_t each = format->block_columns;
    float columns_of_row[MOST_BLOCK_COLUMNS];
    memset(self->squares, 0, (end - begin) * sizeof *self->squares);
    for (uint32_t r = 0; r < bank->width; r++) self->rows[r] = self->blocks + (size_t)r * format->block_bytes;
    for (uint32_t n = begin; n < end; n += each) {
        const uint8_t *columns[MOST_BLOCK_COLUMNS];
        for (uint32_t c = 0; c < each; c++) {
            columns[c] = self->neurons.bundles + (size_t)(n - begin + c) * bank->bundle_bytes + bank->down_offset;
        }
        pi2_neuron_join_columns(format, self->rows, columns,
                                self->neurons.head + bank->down_scales_at + (size_t)(n / each) * bank->down_scale_bytes,
                                bank->width);
        for (uint32_t r = 0; r < bank->width; r++) {
            format->decode_row(columns_of_row, self->rows[r], 1);
            for (uint32_t c = 0; c < each; c++) {
                self->squares[n - begin + c] += (double)columns_of_row[c] * columns_of_row[c];
            }
        }
    }
}

static pi2_status copy_bank(low_bit_maker *self, uint8_t *data) {
    const pi2_neuron_bank *bank = self->bank;
    for (uint32_t begin = 0; begin < bank->neuron_count; begin += self->neurons.step) {
        const uint32_t left = bank->neuron_count - begin, count = left < self->neurons.step ? left : self->neurons.step;
        PI2_TRY(pi2_neuron_bundles_fetch(&self->neurons, begin, count));
        measure_down(self, begin, begin + count);
        for (uint32_t i = 0; i < count; i++) {
            const uint8_t *bundle = self->neurons.bundles + (size_t)i * bank->bundle_bytes;
            PI2_TRY(copy_neuron(self, data, begin + i, bundle, sqrt(self->squares[i])));
        }
        self->done_bytes += (uint64_t)count * bank->bundle_bytes;
        PI2_TRY(pi2_progress_tell(&self->progress, self->done_bytes));
    }
    return PI2_OK;
}

/* ---- all banks ---- */

static pi2_status open_bank(low_bit_maker *self, const pi2_neuron_bank *bank) {
    const size_t row = (size_t)bank->width * sizeof(float);
    const size_t column = (size_t)bank->width * bank->down_format->block_bytes;
    self->bank = bank;
    PI2_TRY(pi2_neuron_bundles_open(&self->neurons, &self->file, bank));
    self->blocks = malloc(row > column ? row : column);
    self->rows = malloc(bank->width * sizeof *self->rows);
    self->floats = malloc(bank->width * sizeof *self->floats);
    self->squares = malloc(self->neurons.step * sizeof *self->squares);
    return self->blocks && self->rows && self->floats && self->squares ? PI2_OK : fail_memory();
}

static void close_bank(low_bit_maker *self) {
    pi2_neuron_bundles_close(&self->neurons);
    free(self->blocks);
    free(self->rows);
    free(self->floats);
    free(self->squares);
    self->blocks = NULL;
    self->rows = NULL;
    self->floats = NULL;
    self->squares = NULL;
}

static pi2_status copy_banks(low_bit_maker *self, uint8_t *memory) {
    const pi2_neuron_banks *banks = self->request->banks;
    const uint64_t each = self->predictor->kind->layer_bytes(self->predictor, self->request->bits);
    PI2_TRY(pi2_weight_file_open(&self->file, pi2_gguf_file_path(self->request->gguf, 0)));
    for (uint32_t b = 0; b < banks->count; b++) {
        const pi2_neuron_bank *bank = &banks->banks[b];
        uint8_t *data = memory + each * b;
        pi2_status status = open_bank(self, bank);
        if (status == PI2_OK) status = copy_bank(self, data);
        close_bank(self);
        PI2_TRY(status);
        self->predictor->layers[bank->layer] =
            (pi2_predictor_layer){ .size = self->request->bits, .threshold = -PI2_LOW_BIT_DOUBT, .data = data };
    }
    return PI2_OK;
}

static pi2_status describe(const pi2_low_bit_request *request, pi2_predictor *predictor) {
    const char *activation = pi2_ffn_activation_name(request->activation);
    const bool is_relu = request->activation == PI2_FFN_relu || request->activation == PI2_FFN_relu_squared;
    if (request->width % PI2_SMALL_BLOCK || request->width > PI2_SMALL_MOST_COLUMNS) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: an embedding of %" PRIu32 " numbers: a predictor reads multiples of "
                        "%d up to %d", pi2_gguf_file_path(request->gguf, 0), request->width, PI2_SMALL_BLOCK,
                        PI2_SMALL_MOST_COLUMNS);
    }
    *predictor = (pi2_predictor){
        .kind = pi2_predictor_kind_find(PI2_PREDICTOR_LOW_BIT), .header_hash = request->source->header_hash,
        .content_hash = request->source->content_hash, .layer_count = request->layer_count, .width = request->width,
        .neuron_count = request->neuron_count, .activation_number = request->activation };
    predictor->has_up = !is_relu && request->banks->count > 0 && request->banks->banks[0].up_format;
    memcpy(predictor->activation, activation, strlen(activation));
    predictor->layers = calloc(request->layer_count, sizeof *predictor->layers);
    return predictor->layers ? PI2_OK : fail_memory();
}

pi2_status pi2_low_bit_make(const pi2_low_bit_request *request, pi2_predictor *predictor_out, void **memory_out) {
    low_bit_maker self = { .request = request, .predictor = predictor_out,
                           .progress = { .callbacks = request->callbacks, .what = "copying" } };
    *memory_out = NULL;
    PI2_TRY(describe(request, predictor_out));
    const uint64_t each = predictor_out->kind->layer_bytes(predictor_out, request->bits);
    for (uint32_t b = 0; b < request->banks->count; b++) {
        const pi2_neuron_bank *bank = &request->banks->banks[b];
        self.progress.total_bytes += (uint64_t)bank->neuron_count * bank->bundle_bytes;
    }
    pi2_status status = PI2_OK;
    const uint64_t bytes = each * request->banks->count + PI2_PREDICTOR_ALIGNMENT;
    if (posix_memalign(memory_out, PI2_PREDICTOR_ALIGNMENT, (size_t)bytes) != 0) {
        *memory_out = NULL;
        status = fail_memory();
    }
    if (status == PI2_OK) {
        memset(*memory_out, 0, (size_t)bytes);
        status = copy_banks(&self, *memory_out);
    }
    pi2_weight_file_close(&self.file);
    if (status == PI2_OK) return PI2_OK;
    pi2_predictor_free(predictor_out);
    free(*memory_out);
    *memory_out = NULL;
    return status;
}
