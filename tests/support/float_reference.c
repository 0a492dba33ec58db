/* float_reference.c: written from the model's definition, for clarity, not for speed. */
#include "support/float_reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file_formats/gguf.h"
#include "weight_formats/weight_format.h"

typedef struct reference {
    pi2_gguf *gguf;
    uint32_t width, layers, heads, kv_heads, head, neurons, rope_dimensions;
    float epsilon, base, scale_factor;
    char scaling[16];
    uint32_t original_context;
    double *rope_factors; /* NULL: none */
    size_t count;
} reference;

/* A tensor as doubles [rows][columns], or NULL when the model has none. */
static double *load(const reference *r, const char *name, int layer) {
    char full[96];
    if (layer < 0) (void)snprintf(full, sizeof full, "%s", name);
    else (void)snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    const pi2_gguf_tensor *tensor = pi2_gguf_tensor_find(r->gguf, full);
    if (!tensor) return NULL;
    const pi2_weight_format *format = pi2_weight_format_find(tensor->type);
    const size_t elements = tensor->dimensions[0] * tensor->dimensions[1];
    unsigned char *raw = malloc(tensor->bytes);
    float *floats = malloc(elements * sizeof *floats);
    double *out = malloc(elements * sizeof *out);
    FILE *file = fopen(pi2_gguf_file_path(r->gguf, tensor->file_index), "rb");
    if (!raw || !floats || !out || !file || fseek(file, (long)tensor->file_offset, SEEK_SET) != 0 ||
        fread(raw, 1, tensor->bytes, file) != tensor->bytes) abort();
    (void)fclose(file);
    format->decode_row(floats, raw, elements / format->block_columns);
    for (size_t i = 0; i < elements; i++) out[i] = floats[i];
    free(raw);
    free(floats);
    return out;
}

/* y[tokens][rows] = x[tokens][columns] times the named matrix, plus the named bias. */
static double *multiply(const reference *r, const char *stem, int layer, const double *x, size_t columns,
                        size_t rows) {
    char name[64];
    (void)snprintf(name, sizeof name, "%s.weight", stem);
    double *weights = load(r, name, layer);
    (void)snprintf(name, sizeof name, "%s.bias", stem);
    double *bias = load(r, name, layer);
    double *y = malloc(r->count * rows * sizeof *y);
    if (!weights || !y) abort();
    for (size_t t = 0; t < r->count; t++) {
        for (size_t i = 0; i < rows; i++) {
            double sum = bias ? bias[i] : 0;
            for (size_t k = 0; k < columns; k++) sum += weights[i * columns + k] * x[t * columns + k];
            y[t * rows + i] = sum;
        }
    }
    free(weights);
    free(bias);
    return y;
}

static double *norm(const reference *r, const char *name, int layer, const double *x) {
    double *weights = load(r, name, layer);
    double *y = malloc(r->count * r->width * sizeof *y);
    if (!weights || !y) abort();
    for (size_t t = 0; t < r->count; t++) {
        double squares = 0;
        for (size_t i = 0; i < r->width; i++) squares += x[t * r->width + i] * x[t * r->width + i];
        const double scale = 1.0 / sqrt(squares / r->width + (double)r->epsilon);
        for (size_t i = 0; i < r->width; i++) y[t * r->width + i] = x[t * r->width + i] * scale * weights[i];
    }
    free(weights);
    return y;
}

static double angle_of(const reference *r, size_t position, uint32_t pair) {
    const double dims = r->rope_dimensions;
    double angle = (double)position * pow((double)r->base, -2.0 * pair / dims);
    if (r->rope_factors) angle /= r->rope_factors[pair];
    if (strcmp(r->scaling, "linear") == 0) return angle / (double)r->scale_factor;
    if (strcmp(r->scaling, "yarn") != 0) return angle;
    const double turns[2] = { 32.0, 1.0 };
    double edge[2];
    for (int i = 0; i < 2; i++) {
        edge[i] = dims * log(r->original_context / (turns[i] * 2 * 3.14159265358979323846)) /
                  (2 * log((double)r->base));
    }
    const double low = fmax(0, floor(edge[0])), high = fmin(dims - 1, ceil(edge[1]));
    const double ramp = 1 - fmin(1, fmax(0, (pair - low) / fmax(0.001, high - low)));
    return angle / (double)r->scale_factor * (1 - ramp) + angle * ramp;
}

static void rotate(const reference *r, double *x, uint32_t heads) {
    const double magnitude = strcmp(r->scaling, "yarn") == 0 ? 1 + 0.1 * log((double)r->scale_factor) : 1;
    for (size_t t = 0; t < r->count; t++) {
        for (uint32_t h = 0; h < heads; h++) {
            double *v = x + (t * heads + h) * r->head;
            for (uint32_t i = 0; i < r->rope_dimensions / 2; i++) {
                const double a = angle_of(r, t, i), c = cos(a) * magnitude, s = sin(a) * magnitude;
                const double x0 = v[2 * i], x1 = v[2 * i + 1];
                v[2 * i] = x0 * c - x1 * s;
                v[2 * i + 1] = x0 * s + x1 * c;
            }
        }
    }
}

static void attend(const reference *r, const double *q, const double *k, const double *v, double *out) {
    double *p = malloc(r->count * sizeof *p);
    if (!p) abort();
    for (size_t t = 0; t < r->count; t++) {
        for (uint32_t h = 0; h < r->heads; h++) {
            const uint32_t kv = h / (r->heads / r->kv_heads);
            const double *query = q + (t * r->heads + h) * r->head;
            double *result = out + (t * r->heads + h) * r->head, sum = 0;
            for (size_t s = 0; s <= t; s++) {
                double dot = 0;
                for (uint32_t i = 0; i < r->head; i++) dot += query[i] * k[(s * r->kv_heads + kv) * r->head + i];
                p[s] = exp(dot / sqrt(r->head));
                sum += p[s];
            }
            for (uint32_t i = 0; i < r->head; i++) {
                result[i] = 0;
                for (size_t s = 0; s <= t; s++) result[i] += p[s] / sum * v[(s * r->kv_heads + kv) * r->head + i];
            }
        }
    }
    free(p);
}

static void add(double *x, double *y, size_t count) {
    for (size_t i = 0; i < count; i++) x[i] += y[i];
    free(y);
}

static void layer(const reference *r, int l, double *x) {
    const size_t q_width = (size_t)r->heads * r->head, kv_width = (size_t)r->kv_heads * r->head;
    double *n = norm(r, "attn_norm.weight", l, x);
    double *q = multiply(r, "attn_q", l, n, r->width, q_width);
    double *k = multiply(r, "attn_k", l, n, r->width, kv_width);
    double *v = multiply(r, "attn_v", l, n, r->width, kv_width);
    double *attended = malloc(r->count * q_width * sizeof *attended);
    if (!attended) abort();
    rotate(r, q, r->heads);
    rotate(r, k, r->kv_heads);
    attend(r, q, k, v, attended);
    add(x, multiply(r, "attn_output", l, attended, q_width, r->width), r->count * r->width);
    free(n); free(q); free(k); free(v); free(attended);

    n = norm(r, "ffn_norm.weight", l, x);
    double *gate = multiply(r, "ffn_gate", l, n, r->width, r->neurons);
    double *up = multiply(r, "ffn_up", l, n, r->width, r->neurons);
    for (size_t i = 0; i < r->count * r->neurons; i++) gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
    add(x, multiply(r, "ffn_down", l, gate, r->neurons, r->width), r->count * r->width);
    free(n); free(gate); free(up);
}

static int read_shape(reference *r) {
    pi2_gguf_string text;
    uint32_t head = 0;
    if (pi2_gguf_u32(r->gguf, "llama.embedding_length", &r->width) != PI2_OK ||
        pi2_gguf_u32(r->gguf, "llama.block_count", &r->layers) != PI2_OK ||
        pi2_gguf_u32(r->gguf, "llama.attention.head_count", &r->heads) != PI2_OK ||
        pi2_gguf_u32_or(r->gguf, "llama.attention.head_count_kv", r->heads, &r->kv_heads) != PI2_OK ||
        pi2_gguf_u32(r->gguf, "llama.feed_forward_length", &r->neurons) != PI2_OK ||
        pi2_gguf_u32_or(r->gguf, "llama.attention.key_length", r->width / r->heads, &head) != PI2_OK ||
        pi2_gguf_u32_or(r->gguf, "llama.rope.dimension_count", head, &r->rope_dimensions) != PI2_OK ||
        pi2_gguf_f32_or(r->gguf, "llama.attention.layer_norm_rms_epsilon", 1e-5f, &r->epsilon) != PI2_OK ||
        pi2_gguf_f32_or(r->gguf, "llama.rope.freq_base", 10000.0f, &r->base) != PI2_OK ||
        pi2_gguf_f32_or(r->gguf, "llama.rope.scaling.factor", 1.0f, &r->scale_factor) != PI2_OK ||
        pi2_gguf_u32_or(r->gguf, "llama.rope.scaling.original_context_length", 0, &r->original_context) != PI2_OK) {
        return -1;
    }
    r->head = head;
    if (pi2_gguf_has(r->gguf, "llama.rope.scaling.type") &&
        pi2_gguf_string_get(r->gguf, "llama.rope.scaling.type", &text) == PI2_OK) {
        (void)snprintf(r->scaling, sizeof r->scaling, "%.*s", (int)text.length, text.text);
    }
    r->rope_factors = load(r, "rope_freqs.weight", -1);
    return 0;
}

int pi2_float_reference(const char *path, const int32_t *tokens, size_t count, double **logits_out,
                        size_t *vocabulary_out) {
    reference r = { .count = count };
    if (pi2_gguf_open(path, &r.gguf) != PI2_OK) return -1;
    if (read_shape(&r) != 0) {
        pi2_gguf_close(r.gguf);
        return -1;
    }
    double *embedding = load(&r, "token_embd.weight", -1);
    double *x = malloc(count * r.width * sizeof *x);
    if (!embedding || !x) abort();
    for (size_t t = 0; t < count; t++) {
        memcpy(x + t * r.width, embedding + (size_t)tokens[t] * r.width, r.width * sizeof *x);
    }
    for (uint32_t l = 0; l < r.layers; l++) layer(&r, (int)l, x);
    double *n = norm(&r, "output_norm.weight", -1, x);
    const bool tied = pi2_gguf_tensor_find(r.gguf, "output.weight") == NULL;
    *vocabulary_out = pi2_gguf_tensor_find(r.gguf, "token_embd.weight")->dimensions[1];
    *logits_out = multiply(&r, tied ? "token_embd" : "output", -1, n, r.width, *vocabulary_out);
    free(n); free(x); free(embedding); free(r.rope_factors);
    pi2_gguf_close(r.gguf);
    return 0;
}
