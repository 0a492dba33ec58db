/*
 * synthetic_weights.c: the data of each tensor, in the order of the file. Bulk comes from pools of
 * random blocks; what planted signals need is encoded row by row.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "synthetic/synthetic_internal.h"

enum { POOL_COUNT = 8, DATA_ALIGNMENT = 32 };

typedef struct weight_writer {
    const pi2_synthetic_plan *plan;
    pi2_file_stream *stream;
    pi2_block_pool pools[POOL_COUNT]; /* the last ones used; next_pool is replaced */
    uint32_t next_pool;
    uint8_t *row;      /* one row of any tensor, as blocks or as floats */
    int8_t *values;
} weight_writer;

/** Pools are few: most matrices of a layer share a type, and many a deviation. */
static pi2_status find_pool(weight_writer *writer, const pi2_synthetic_tensor *tensor,
                            const pi2_block_pool **pool_out) {
    /* Tokens of one length see the constants alike, so that attention to the last ones is as it was planned. */
    const bool is_even = writer->plan->neurons.is_planted && tensor->fill == PI2_FILL_EMBEDDING;
    for (uint32_t i = 0; i < POOL_COUNT; i++) {
        const pi2_block_pool *pool = &writer->pools[i];
        if (pool->blocks && pool->format == tensor->format && pool->is_even == is_even &&
            fabsf(pool->deviation - tensor->deviation) < 1e-6f * tensor->deviation) {
            *pool_out = pool;
            return PI2_OK;
        }
    }
    pi2_block_pool *pool = &writer->pools[writer->next_pool++ % POOL_COUNT];
    pi2_block_pool_close(pool);
    *pool_out = pool;
    return pi2_block_pool_open(pool, tensor->format, tensor->deviation, is_even, writer->plan->options->seed);
}

/** `bytes` bytes of random blocks. */
static pi2_status write_random(weight_writer *writer, const pi2_block_pool *pool, pi2_random *random,
                               uint64_t bytes) {
    const uint64_t run = PI2_BLOCK_RUN_BYTES / pool->format->block_bytes * pool->format->block_bytes;
    while (bytes > 0) {
        const size_t step = (size_t)(bytes < run ? bytes : run);
        PI2_TRY(pi2_file_stream_write(writer->stream, pi2_block_pool_run(pool, random, step), step));
        bytes -= step;
    }
    return PI2_OK;
}

/** Rows of exact zeros. */
static pi2_status write_zero_rows(weight_writer *writer, const pi2_synthetic_tensor *tensor,
                                  uint64_t rows) {
    const size_t columns = (size_t)tensor->dimensions[0];
    memset(writer->values, 0, columns);
    pi2_block_encode(tensor->format, writer->row, 0.0f, writer->values, columns, NULL);
    const size_t bytes = pi2_row_bytes(tensor->format, columns);
    for (uint64_t i = 0; i < rows; i++) PI2_TRY(pi2_file_stream_write(writer->stream, writer->row, bytes));
    return PI2_OK;
}

/** A matrix whose rows are the residual stream, or any other. */
static pi2_status write_matrix(weight_writer *writer, const pi2_synthetic_tensor *tensor,
                               pi2_random *random) {
    const pi2_signal_plan *signals = &writer->plan->signals;
    const pi2_block_pool *pool = NULL;
    PI2_TRY(find_pool(writer, tensor, &pool));
    const uint64_t row_bytes = pi2_row_bytes(tensor->format, (size_t)tensor->dimensions[0]);
    const uint64_t rows = tensor->dimensions[1], matrices = tensor->dimensions[2];
    if (!tensor->keeps_signals || !signals->signals) {
        return write_random(writer, pool, random, row_bytes * rows * matrices);
    }
    /* The recency layer's attention writes the slow signals; whatever else keeps out of them. */
    const bool writes_slow = tensor->layer == signals->recency_layer &&
                             strstr(tensor->name, "attn_output") != NULL;
    const uint64_t zeros = writes_slow ? PI2_SIGNAL_FAST + signals->signals : signals->end_column;
    for (uint64_t i = 0; i < matrices; i++) {
        PI2_TRY(write_zero_rows(writer, tensor, zeros));
        PI2_TRY(write_random(writer, pool, random, row_bytes * (rows - zeros)));
    }
    return PI2_OK;
}

/** The embedding: constant, fast signals and zeros for the slow ones, then random columns. */
static pi2_status write_embedding(weight_writer *writer, const pi2_synthetic_tensor *tensor,
                                  pi2_random *random) {
    const pi2_signal_plan *signals = &writer->plan->signals;
    const pi2_weight_format *format = tensor->format;
    const size_t span = signals->span_columns, columns = (size_t)tensor->dimensions[0];
    const int limit = pi2_block_limit(format->type);
    const float step = tensor->deviation / pi2_block_deviation(format->type);
    if (!signals->signals) return write_matrix(writer, tensor, random);
    const pi2_block_pool *pool = NULL;
    PI2_TRY(find_pool(writer, tensor, &pool));
    const size_t span_bytes = pi2_row_bytes(format, span);
    const uint64_t rest_bytes = pi2_row_bytes(format, columns) - span_bytes;
    for (uint64_t token = 0; token < tensor->dimensions[1]; token++) {
        for (size_t i = 0; i < span; i++) writer->values[i] = pi2_random_integer(random, limit);
        writer->values[PI2_SIGNAL_CONSTANT] = (int8_t)limit;
        if (writer->plan->neurons.is_planted) memset(writer->values, limit, PI2_SIGNAL_FAST);
        memset(writer->values + PI2_SIGNAL_FAST + signals->signals, 0, signals->signals);
        pi2_block_encode(format, writer->row, step, writer->values, span, NULL);
        PI2_TRY(pi2_file_stream_write(writer->stream, writer->row, span_bytes));
        PI2_TRY(write_random(writer, pool, random, rest_bytes));
    }
    return PI2_OK;
}

/** The beginning of a row of values: random, but for the constants' columns. Returns the step. */
static float value_row(const pi2_synthetic_plan *plan, const pi2_synthetic_tensor *tensor, pi2_random *random,
                       int8_t *values) {
    const int limit = pi2_block_limit(tensor->format->type);
    memset(values, 0, PI2_SIGNAL_FAST);
    for (size_t i = PI2_SIGNAL_FAST; i < plan->signals.span_columns; i++) {
        values[i] = pi2_random_integer(random, limit);
    }
    return tensor->deviation / pi2_block_deviation(tensor->format->type);
}

/** Rows whose beginning is chosen one by one, because it reads signals; the rest is from the pool. */
static pi2_status write_readers(weight_writer *writer, const pi2_synthetic_tensor *tensor, pi2_random *random) {
    const pi2_synthetic_plan *plan = writer->plan;
    const pi2_weight_format *format = tensor->format;
    const size_t span = plan->signals.span_columns, columns = (size_t)tensor->dimensions[0];
    const int limit = pi2_block_limit(format->type);
    const bool is_up = tensor->fill == PI2_FILL_UP;
    const pi2_block_pool *pool = NULL;
    PI2_TRY(find_pool(writer, tensor, &pool));
    const size_t span_bytes = pi2_row_bytes(format, span);
    const uint64_t rest_bytes = pi2_row_bytes(format, columns) - span_bytes;
    for (uint64_t row = 0; row < tensor->dimensions[1] * tensor->dimensions[2]; row++) {
        const uint64_t neurons = tensor->dimensions[1];
        const double rank = ((double)(row % neurons) + 0.5) / (double)neurons;
        const float step = tensor->fill == PI2_FILL_VALUE
            ? value_row(plan, tensor, random, writer->values)
            : pi2_synthetic_neuron_row(plan, tensor->layer, rank, is_up, limit, random, writer->values);
        pi2_block_encode(format, writer->row, step, writer->values, span, NULL);
        PI2_TRY(pi2_file_stream_write(writer->stream, writer->row, span_bytes));
        PI2_TRY(write_random(writer, pool, random, rest_bytes));
    }
    return PI2_OK;
}

/** The output matrix: control tokens never win, so that a run is as long as it was asked to be. */
static pi2_status write_head(weight_writer *writer, const pi2_synthetic_tensor *tensor,
                             pi2_random *random) {
    uint32_t first = 0, last = 0;
    const pi2_block_pool *pool = NULL;
    PI2_TRY(find_pool(writer, tensor, &pool));
    pi2_synthetic_control_tokens(&writer->plan->shape, &first, &last);
    const uint64_t row_bytes = pi2_row_bytes(tensor->format, (size_t)tensor->dimensions[0]);
    PI2_TRY(write_zero_rows(writer, tensor, first));
    PI2_TRY(write_random(writer, pool, random, row_bytes * (tensor->dimensions[1] - first - last)));
    return write_zero_rows(writer, tensor, last);
}

static pi2_status write_norm(weight_writer *writer, const pi2_synthetic_tensor *tensor,
                             pi2_random *random) {
    const size_t count = (size_t)tensor->dimensions[0];
    const bool is_residual = count == writer->plan->shape.embedding_length;
    for (size_t i = 0; i < count; i++) {
        float value = tensor->deviation * pi2_random_uniform(random, 0.9f, 1.1f);
        /* Planted signals pass unchanged. */
        if (writer->plan->signals.signals && (!is_residual || i < writer->plan->signals.end_column)) {
            value = tensor->deviation;
        }
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        pi2_store_le32(writer->row + 4 * i, bits);
    }
    return pi2_file_stream_write(writer->stream, writer->row, 4 * count);
}

static pi2_status write_floats(weight_writer *writer, const pi2_synthetic_tensor *tensor, pi2_random *random) {
    const size_t columns = (size_t)tensor->dimensions[0];
    const pi2_signal_plan *signals = &writer->plan->signals;
    const bool is_residual = columns == writer->plan->shape.embedding_length && signals->signals;
    const size_t zeros = is_residual ? signals->end_column : 0;
    for (uint64_t row = 0; row < tensor->dimensions[1]; row++) {
        for (size_t i = 0; i < columns; i++) {
            const float spread = tensor->spread * pi2_random_uniform(random, -1.0f, 1.0f);
            const float value = i < zeros ? 0.0f : tensor->deviation + spread;
            uint32_t bits;
            memcpy(&bits, &value, sizeof bits);
            pi2_store_le32(writer->row + 4 * i, bits);
        }
        PI2_TRY(pi2_file_stream_write(writer->stream, writer->row, 4 * columns));
    }
    return PI2_OK;
}

/** Frequencies are divided by them: what is divided by so much does not turn. */
static pi2_status write_rope_factors(weight_writer *writer, const pi2_synthetic_tensor *tensor) {
    const size_t count = (size_t)tensor->dimensions[0];
    for (size_t i = 0; i < count; i++) {
        const float value = i < count / 4 ? 1.0f : 1e30f;
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        pi2_store_le32(writer->row + 4 * i, bits);
    }
    return pi2_file_stream_write(writer->stream, writer->row, 4 * count);
}

static pi2_status write_router(weight_writer *writer, const pi2_synthetic_tensor *tensor,
                               pi2_random *random) {
    const size_t columns = (size_t)tensor->dimensions[0];
    float *row = (float *)(void *)writer->row;
    for (uint64_t expert = 0; expert < tensor->dimensions[1]; expert++) {
        pi2_synthetic_router_row(writer->plan, tensor->layer, random, row);
        for (size_t i = 0; i < columns; i++) {
            uint32_t bits;
            memcpy(&bits, &row[i], sizeof bits);
            pi2_store_le32(writer->row + 4 * i, bits);
        }
        PI2_TRY(pi2_file_stream_write(writer->stream, writer->row, 4 * columns));
    }
    return PI2_OK;
}

/** Queries or keys that are one constant in slowly turning pairs: attention to the last tokens. */
static pi2_status write_recency(weight_writer *writer, const pi2_synthetic_tensor *tensor) {
    const pi2_synthetic_plan *plan = writer->plan;
    const size_t columns = (size_t)tensor->dimensions[0];
    const uint32_t head = tensor->head_rows ? tensor->head_rows : plan->shape.head_dimension;
    const int limit = pi2_block_limit(tensor->format->type);
    for (uint64_t row = 0; row < tensor->dimensions[1]; row++) {
        memset(writer->values, 0, columns);
        const bool is_set = pi2_synthetic_recency_row(plan, (uint32_t)(row % head));
        if (is_set) writer->values[PI2_SIGNAL_CONSTANT] = (int8_t)limit;
        pi2_block_encode(tensor->format, writer->row, plan->signals.recency_weight / (float)limit,
                         writer->values, columns, NULL);
        PI2_TRY(pi2_file_stream_write(writer->stream, writer->row, pi2_row_bytes(tensor->format, columns)));
    }
    return PI2_OK;
}

static pi2_status write_tensor(weight_writer *writer, const pi2_synthetic_tensor *tensor) {
    pi2_random random = pi2_random_named(writer->plan->options->seed, tensor->name);
    switch (tensor->fill) {
    case PI2_FILL_RANDOM: return write_matrix(writer, tensor, &random);
    case PI2_FILL_EMBEDDING: return write_embedding(writer, tensor, &random);
    case PI2_FILL_NORM: return write_norm(writer, tensor, &random);
    case PI2_FILL_GATE:
    case PI2_FILL_UP:
    case PI2_FILL_VALUE: return write_readers(writer, tensor, &random);
    case PI2_FILL_ROUTER: return write_router(writer, tensor, &random);
    case PI2_FILL_RECENCY: return write_recency(writer, tensor);
    case PI2_FILL_HEAD: return write_head(writer, tensor, &random);
    case PI2_FILL_ROPE_FACTORS: return write_rope_factors(writer, tensor);
    case PI2_FILL_FLOATS: return write_floats(writer, tensor, &random);
    }
    return PI2_OK;
}

static pi2_status write_all(weight_writer *writer) {
    static const uint8_t padding[DATA_ALIGNMENT];
    const pi2_synthetic_plan *plan = writer->plan;
    for (uint32_t i = 0; i < plan->tensor_count; i++) {
        PI2_TRY(write_tensor(writer, &plan->tensors[i]));
        const uint64_t over = pi2_file_stream_position(writer->stream) % DATA_ALIGNMENT;
        if (over) PI2_TRY(pi2_file_stream_write(writer->stream, padding, (size_t)(DATA_ALIGNMENT - over)));
    }
    return PI2_OK;
}

pi2_status pi2_synthetic_write_tensors(const pi2_synthetic_plan *plan, pi2_file_stream *stream) {
    weight_writer writer = { .plan = plan, .stream = stream };
    uint64_t columns = 0;
    for (uint32_t i = 0; i < plan->tensor_count; i++) {
        if (plan->tensors[i].dimensions[0] > columns) columns = plan->tensors[i].dimensions[0];
    }
    writer.row = malloc((size_t)columns * 4);
    writer.values = calloc((size_t)columns, 1);
    const pi2_status status = writer.row && writer.values
        ? write_all(&writer) : pi2_fail(PI2_ERR_MEMORY, "no memory for a row of %u weights", (unsigned)columns);
    for (uint32_t i = 0; i < POOL_COUNT; i++) pi2_block_pool_close(&writer.pools[i]);
    free(writer.values);
    free(writer.row);
    return status;
}
