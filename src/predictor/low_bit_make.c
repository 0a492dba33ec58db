/* low_bit_make.c: goes through the banks some neurons at a time. */
#include "predictor/low_bit_make.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/parse_size.h"
#include "base/progress.h"
#include "predictor/bank_rows.h"
#include "predictor/estimates.h"
#include "predictor/low_bit.h"

typedef struct low_bit_maker {
    const pi2_low_bit_request *request;
    pi2_predictor *predictor;
    pi2_weight_file file;
    pi2_progress progress;
    uint64_t done_bytes;
    pi2_bank_rows rows;      /* of the bank at work */
    float *floats;           /* [width] */
    double *lengths;         /* [step]: of Down's columns */
} low_bit_maker;

static pi2_status fail_memory(void) { return pi2_fail(PI2_ERR_MEMORY, "no memory to make a predictor"); }

/* Who runs with them has them in memory, too. */
static pi2_status fail_room(const pi2_low_bit_request *request, uint64_t bytes) {
    char wanted[PI2_SIZE_TEXT_BYTES], room[PI2_SIZE_TEXT_BYTES];
    return pi2_fail(PI2_ERR_MEMORY, "%s: its copies with %" PRIu32 " bits, a predictor, take %s, and the budget has "
                    "room for %s of it: give more, or name a smaller predictor's file ('predictor train' makes one)",
                    pi2_gguf_file_path(request->gguf, 0), request->bits, pi2_format_size(bytes, wanted),
                    pi2_format_size(request->room_bytes, room));
}

static pi2_status copy_neuron(low_bit_maker *self, uint8_t *data, uint32_t neuron, double worth) {
    const pi2_predictor *predictor = self->predictor;
    const uint32_t bits = self->request->bits;
    double length;
    PI2_TRY(pi2_bank_rows_take(&self->rows, neuron, false, self->floats, &length));
    pi2_low_bit_put_row(predictor, bits, data, false, neuron, self->floats);
    if (self->rows.bank->up_format) {
        PI2_TRY(pi2_bank_rows_take(&self->rows, neuron, true, self->floats, &length));
        if (predictor->has_up) pi2_low_bit_put_row(predictor, bits, data, true, neuron, self->floats);
        else PI2_TRY(pi2_bank_rows_join_lengths(&self->rows, neuron, length, &worth));
    }
    pi2_low_bit_put_worth(predictor, bits, data, neuron, (float)worth);
    return PI2_OK;
}

static pi2_status copy_bank(low_bit_maker *self, uint8_t *data) {
    const pi2_neuron_bank *bank = self->rows.bank;
    for (uint32_t begin = 0, count; (count = pi2_bank_rows_step(&self->rows, begin)) > 0; begin += count) {
        PI2_TRY(pi2_bank_rows_fetch(&self->rows, begin, count));
        PI2_TRY(pi2_bank_rows_measure_down(&self->rows, self->lengths));
        for (uint32_t i = 0; i < count; i++) PI2_TRY(copy_neuron(self, data, begin + i, self->lengths[i]));
        self->done_bytes += (uint64_t)count * bank->bundle_bytes;
        PI2_TRY(pi2_progress_tell(&self->progress, self->done_bytes));
    }
    return PI2_OK;
}

/* ---- all banks ---- */

static pi2_status open_bank(low_bit_maker *self, const pi2_neuron_bank *bank) {
    PI2_TRY(pi2_bank_rows_open(&self->rows, pi2_gguf_file_path(self->request->gguf, 0), &self->file, bank));
    self->floats = malloc(bank->width * sizeof *self->floats);
    self->lengths = malloc(self->rows.neurons.step * sizeof *self->lengths);
    return self->floats && self->lengths ? PI2_OK : fail_memory();
}

static void close_bank(low_bit_maker *self) {
    pi2_bank_rows_close(&self->rows);
    free(self->floats);
    free(self->lengths);
    self->floats = NULL;
    self->lengths = NULL;
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
        const uint32_t expert = bank->expert == UINT32_MAX ? 0 : bank->expert;
        self->predictor->layers[bank->layer * self->request->layer_ffns + expert] =
            (pi2_predictor_layer){ .size = self->request->bits, .threshold = -PI2_ESTIMATES_DOUBT, .data = data };
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
    const uint64_t bytes = each * request->banks->count + PI2_PREDICTOR_ALIGNMENT;
    pi2_status status = bytes > request->room_bytes ? fail_room(request, bytes) : PI2_OK;
    if (status == PI2_OK && posix_memalign(memory_out, PI2_PREDICTOR_ALIGNMENT, (size_t)bytes) != 0) {
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
