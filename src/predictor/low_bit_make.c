/*
 * low_bit_make.c: goes through the banks some neurons at a time, as the model numbers them, since Down's blocks are of
 * neurons that follow each other there; neurons whose places follow one another are read together.
 */
#include "predictor/low_bit_make.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/pages.h"
#include "base/progress.h"
#include "predictor/low_bit.h"
#include "store/weight_file.h"
#include "weight_formats/neuron_form.h"

enum { STEP_BYTES = 1024 * 1024, MOST_BLOCK_COLUMNS = 256 };

typedef struct low_bit_maker {
    const pi2_low_bit_request *request;
    pi2_predictor *predictor;
    pi2_weight_file file;
    pi2_progress progress;
    uint64_t done_bytes;
    /* of the bank at work */
    const pi2_neuron_bank *bank;
    uint8_t *head_memory;
    const uint8_t *head;
    uint32_t *place_of;      /* [neuron_count] */
    uint8_t *bundles;        /* [step][bundle_bytes] */
    uint32_t step;           /* neurons: whole blocks of Down */
    uint8_t *units;          /* for reads, with their slack */
    size_t unit_bytes;       /* without it */
    uint8_t *blocks;         /* one row of Gate or Up, or a block of columns of Down, as GGUF blocks */
    uint8_t **rows;          /* [width]: where each row of a block of columns is rebuilt */
    float *floats;           /* [width], or a block's columns */
    double *squares;         /* [step]: of Down's columns */
} low_bit_maker;

static pi2_status fail_memory(void) { return pi2_fail(PI2_ERR_MEMORY, "no memory to make a predictor"); }

/* ---- bundles ---- */

static pi2_status read_units(low_bit_maker *self, uint32_t first, uint32_t count, const uint8_t **units_out) {
    const pi2_neuron_bank *bank = self->bank;
    const uint32_t *checksums = (const uint32_t *)(const void *)(self->head + bank->checksums_at);
    char owner[PI2_NEURON_OWNER_BYTES];
    const uint64_t offset = bank->file_offset + (uint64_t)first * bank->unit_bytes;
    PI2_TRY(pi2_weight_file_read(&self->file, offset, (size_t)count * bank->unit_bytes, self->units, units_out));
    for (uint32_t u = 0; u < count; u++) {
        if (pi2_neuron_unit_checksum(bank, *units_out + (size_t)u * bank->unit_bytes) == checksums[first + u]) continue;
        return pi2_fail(PI2_ERR_FORMAT, "%s: unit %" PRIu32 " of the neurons of %s (%" PRIu32 " bytes at byte %" PRIu64
                        ") does not match its checksum: the file or the disk is damaged: delete the file and prepare "
                        "the model again", self->file.path, first + u, pi2_neuron_bank_owner(bank, owner),
                        bank->unit_bytes, offset + (uint64_t)u * bank->unit_bytes);
    }
    return PI2_OK;
}

/* Units from neuron `first`'s on that hold it and its followers in this order, at most as many as the buffer does. */
static uint32_t units_in_a_row(const low_bit_maker *self, uint32_t first, uint32_t end) {
    const uint32_t place = self->place_of[first], each = self->bank->unit_neurons;
    const uint32_t most = (uint32_t)(self->unit_bytes / self->bank->unit_bytes);
    uint32_t run = 1;
    while (first + run < end && self->place_of[first + run] == place + run) run++;
    const uint32_t units = (place + run - 1) / each - place / each + 1;
    return units < most ? units : most;
}

static pi2_status fetch(low_bit_maker *self, uint32_t begin, uint32_t end) {
    const pi2_neuron_bank *bank = self->bank;
    const uint8_t *units = NULL;
    uint32_t unit_begin = 0, unit_end = 0; /* what the buffer holds */
    for (uint32_t n = begin; n < end; n++) {
        const uint32_t place = self->place_of[n], unit = place / bank->unit_neurons;
        if (unit < unit_begin || unit >= unit_end) {
            unit_begin = unit;
            unit_end = unit + units_in_a_row(self, n, end);
            PI2_TRY(read_units(self, unit_begin, unit_end - unit_begin, &units));
        }
        memcpy(self->bundles + (size_t)(n - begin) * bank->bundle_bytes,
               units + (size_t)(unit - unit_begin) * bank->unit_bytes +
                   (size_t)(place % bank->unit_neurons) * bank->bundle_bytes,
               bank->bundle_bytes);
    }
    return PI2_OK;
}

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

static void copy_neuron(low_bit_maker *self, uint8_t *data, uint32_t neuron, const uint8_t *bundle, double worth) {
    const pi2_neuron_bank *bank = self->bank;
    const pi2_predictor *predictor = self->predictor;
    const uint32_t bits = self->request->bits;
    (void)decode_row(self, bank->gate_format, bundle,
                     self->head + bank->gate_scales_at + (size_t)neuron * bank->gate_scale_bytes);
    pi2_low_bit_put_row(predictor, bits, data, false, neuron, self->floats);
    if (bank->up_format) {
        const double length = decode_row(self, bank->up_format, bundle + bank->up_offset,
                                         self->head + bank->up_scales_at + (size_t)neuron * bank->up_scale_bytes);
        if (predictor->has_up) pi2_low_bit_put_row(predictor, bits, data, true, neuron, self->floats);
        else worth *= length;
    }
    pi2_low_bit_put_worth(predictor, bits, data, neuron, (float)worth);
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
            columns[c] = self->bundles + (size_t)(n - begin + c) * bank->bundle_bytes + bank->down_offset;
        }
        pi2_neuron_join_columns(format, self->rows, columns,
                                self->head + bank->down_scales_at + (size_t)(n / each) * bank->down_scale_bytes,
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
    PI2_TRY(pi2_weight_file_read(&self->file, bank->head_offset, (size_t)bank->head_bytes, self->head_memory,
                                 &self->head));
    PI2_TRY(pi2_neuron_bank_check_head(bank, self->file.path, self->head));
    const uint32_t *order = (const uint32_t *)(const void *)(self->head + bank->order_at);
    for (uint32_t place = 0; place < bank->neuron_count; place++) self->place_of[order[place]] = place;
    for (uint32_t begin = 0; begin < bank->neuron_count; begin += self->step) {
        const uint32_t left = bank->neuron_count - begin, count = left < self->step ? left : self->step;
        PI2_TRY(fetch(self, begin, begin + count));
        measure_down(self, begin, begin + count);
        for (uint32_t i = 0; i < count; i++) {
            copy_neuron(self, data, begin + i, self->bundles + (size_t)i * bank->bundle_bytes, sqrt(self->squares[i]));
        }
        self->done_bytes += (uint64_t)count * bank->bundle_bytes;
        PI2_TRY(pi2_progress_tell(&self->progress, self->done_bytes));
    }
    return PI2_OK;
}

/* ---- all banks ---- */

static pi2_status open_bank(low_bit_maker *self, const pi2_neuron_bank *bank) {
    const uint32_t block = bank->down_format->block_columns;
    uint32_t blocks_in_step = STEP_BYTES / bank->bundle_bytes / block;
    if (blocks_in_step == 0) blocks_in_step = 1;
    const size_t row = (size_t)bank->width * 4, column = (size_t)bank->width * bank->down_format->block_bytes;
    const uint32_t floats = bank->width > MOST_BLOCK_COLUMNS ? bank->width : MOST_BLOCK_COLUMNS;
    self->bank = bank;
    self->step = blocks_in_step * block;
    self->unit_bytes = bank->unit_bytes > STEP_BYTES ? bank->unit_bytes : STEP_BYTES;
    self->head_memory = aligned_alloc(PI2_READ_ALIGNMENT,
                                      (size_t)pi2_neuron_bank_head_read_bytes(bank) + PI2_WEIGHT_FILE_SLACK);
    self->units = aligned_alloc(PI2_READ_ALIGNMENT, self->unit_bytes + PI2_WEIGHT_FILE_SLACK);
    self->place_of = malloc(bank->neuron_count * sizeof *self->place_of);
    self->bundles = malloc((size_t)self->step * bank->bundle_bytes);
    self->blocks = malloc(row > column ? row : column);
    self->rows = malloc(bank->width * sizeof *self->rows);
    self->floats = malloc(floats * sizeof *self->floats);
    self->squares = malloc(self->step * sizeof *self->squares);
    return self->head_memory && self->units && self->place_of && self->bundles && self->blocks && self->rows &&
           self->floats && self->squares ? PI2_OK : fail_memory();
}

static void close_bank(low_bit_maker *self) {
    free(self->head_memory);
    free(self->units);
    free(self->place_of);
    free(self->bundles);
    free(self->blocks);
    free(self->rows);
    free(self->floats);
    free(self->squares);
    self->head_memory = self->units = self->bundles = self->blocks = NULL;
    self->place_of = NULL;
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
