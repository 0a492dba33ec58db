/* float_reference.c: written from the model's definition, for clarity, not for speed. */
#include "support/float_reference.h"

#include <math.h>
#include <stdbool.h>
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
    uint32_t experts, used, expert_neurons, window;
    bool neox, sigmoid, early_router, is_gated, is_falcon, is_opt;
    char activation[24];
    size_t count;
    pi2_expert_choice *choice; /* NULL: the best are chosen */
} reference;

/* A tensor as doubles [rows][columns], or NULL when the model has none. */
static double *load(const reference *r, const char *name, int layer) {
    char full[96];
    if (layer < 0) (void)snprintf(full, sizeof full, "%s", name);
    else (void)snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    const pi2_gguf_tensor *tensor = pi2_gguf_tensor_find(r->gguf, full);
    if (!tensor) return NULL;
    const pi2_weight_format *format = pi2_weight_format_find(tensor->type);
    const size_t elements = tensor->dimensions[0] * tensor->dimensions[1] * tensor->dimensions[2];
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

/* By root mean square; LayerNorm where the norm has a bias. */
static double *norm(const reference *r, const char *stem, int layer, const double *x) {
    char name[64];
    (void)snprintf(name, sizeof name, "%s.weight", stem);
    double *weights = load(r, name, layer);
    (void)snprintf(name, sizeof name, "%s.bias", stem);
    double *bias = load(r, name, layer);
    double *y = malloc(r->count * r->width * sizeof *y);
    if (!weights || !y) abort();
    for (size_t t = 0; t < r->count; t++, x += r->width) {
        double squares = 0, mean = 0;
        for (size_t i = 0; bias && i < r->width; i++) mean += x[i] / r->width;
        for (size_t i = 0; i < r->width; i++) squares += (x[i] - mean) * (x[i] - mean);
        const double scale = 1.0 / sqrt(squares / r->width + (double)r->epsilon);
        for (size_t i = 0; i < r->width; i++) {
            y[t * r->width + i] = (x[i] - mean) * scale * weights[i] + (bias ? bias[i] : 0);
        }
    }
    free(weights);
    free(bias);
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
                double *a0 = r->neox ? &v[i] : &v[2 * i];
                double *a1 = r->neox ? &v[i + r->rope_dimensions / 2] : &v[2 * i + 1];
                const double x0 = *a0, x1 = *a1;
                *a0 = x0 * c - x1 * s;
                *a1 = x0 * s + x1 * c;
            }
        }
    }
}

/* Root mean square norm of every head, where the model has weights for it. */
static void norm_heads(const reference *r, const char *name, int l, double *x, uint32_t heads) {
    double *weights = load(r, name, l);
    for (size_t h = 0; weights && h < r->count * heads; h++) {
        double *v = x + h * r->head, squares = 0;
        for (uint32_t i = 0; i < r->head; i++) squares += v[i] * v[i];
        const double scale = 1.0 / sqrt(squares / r->head + (double)r->epsilon);
        for (uint32_t i = 0; i < r->head; i++) v[i] *= scale * weights[i];
    }
    free(weights);
}

static void attend(const reference *r, uint32_t window, const double *q, const double *k, const double *v,
                   double *out) {
    double *p = malloc(r->count * sizeof *p);
    if (!p) abort();
    for (size_t t = 0; t < r->count; t++) {
        for (uint32_t h = 0; h < r->heads; h++) {
            const uint32_t kv = h / (r->heads / r->kv_heads);
            const double *query = q + (t * r->heads + h) * r->head;
            double *result = out + (t * r->heads + h) * r->head, sum = 0;
            const size_t from = window > 0 && t + 1 > window ? t + 1 - window : 0;
            for (size_t s = from; s <= t; s++) {
                double dot = 0;
                for (uint32_t i = 0; i < r->head; i++) dot += query[i] * k[(s * r->kv_heads + kv) * r->head + i];
                p[s] = exp(dot / sqrt(r->head));
                sum += p[s];
            }
            for (uint32_t i = 0; i < r->head; i++) {
                result[i] = 0;
                for (size_t s = from; s <= t; s++) result[i] += p[s] / sum * v[(s * r->kv_heads + kv) * r->head + i];
            }
        }
    }
    free(p);
}

static void add(double *x, double *y, size_t count) {
    for (size_t i = 0; i < count; i++) x[i] += y[i];
    free(y);
}

static double positive(double x) { return x > 0 ? x : 0; }

static double gelu(double x) { return x * (1 + tanh(0.79788456080286536 * (x + 0.044715 * pow(x, 3)))) / 2; }

static double activation(const reference *r, double gate, double up) {
    const char *name = r->activation;
    if (strcmp(name, "silu") == 0) return gate / (1 + exp(-gate)) * up;
    if (strcmp(name, "gelu") == 0) return gelu(gate) * up;
    if (strcmp(name, "relu") == 0) return positive(gate) * up;
    if (strcmp(name, "relu_squared") == 0) return positive(gate) * positive(gate) * up;
    if (strcmp(name, "drelu") == 0) return positive(gate) * positive(up);
    if (strcmp(name, "gelu_topk") == 0) return gelu(gate) * up; /* cut already, where the layer has a cutoff */
    if (strcmp(name, "silu_clamped") == 0) {
        return fmin(gate, 7) / (1 + exp(-1.702 * fmin(gate, 7))) * (fmax(fmin(up, 7), -7) + 1);
    }
    abort(); /* a new line of ffn_activations.inc */
}

/* The number of standard deviations below which so much of a normal distribution lies. */
static double deviations_of(double share) {
    double low = -10, high = 10;
    while (high - low > 1e-13) {
        const double middle = (low + high) / 2;
        if (erfc(-middle / sqrt(2)) / 2 < share) low = middle;
        else high = middle;
    }
    return low;
}

/* gelu_topk: of each token those Gates stay that lie above its cutoff, less it. */
static void cut_gates(const reference *r, uint32_t l, double *gate) {
    pi2_gguf_array array;
    float share = 0.95f;
    double deviations;
    if (pi2_gguf_array_get(r->gguf, PI2_KEY_GATE_SPARSITY, &array) == PI2_OK) {
        share = pi2_gguf_array_f32(&array, l);
        if (share == 0) return;
        deviations = deviations_of((double)share);
    } else if (pi2_gguf_array_get(r->gguf, PI2_KEY_GATE_DEVIATIONS, &array) == PI2_OK) {
        deviations = (double)pi2_gguf_array_f32(&array, l);
        if (deviations == 0 || isinf(deviations)) return;
    } else {
        if (pi2_gguf_f32_or(r->gguf, PI2_KEY_GATE_SPARSITY, share, &share) != PI2_OK) abort();
        deviations = deviations_of((double)share);
    }
    for (size_t t = 0; t < r->count; t++, gate += r->neurons) {
        double mean = 0, variance = 0;
        for (size_t i = 0; i < r->neurons; i++) mean += gate[i] / r->neurons;
        for (size_t i = 0; i < r->neurons; i++) variance += (gate[i] - mean) * (gate[i] - mean) / r->neurons;
        for (size_t i = 0; i < r->neurons; i++) gate[i] = positive(gate[i] - mean - deviations * sqrt(variance));
    }
}

/* One token through one expert, times a weight, added to out. */
static void add_expert(const reference *r, const double *gate, const double *up, const double *down, uint32_t e,
                       const double *n, double weight, double *out) {
    double *hidden = malloc(r->expert_neurons * sizeof *hidden);
    if (!hidden) abort();
    for (size_t i = 0; i < r->expert_neurons; i++) {
        const double *g = gate + ((size_t)e * r->expert_neurons + i) * r->width;
        const double *u = up + ((size_t)e * r->expert_neurons + i) * r->width;
        double a = 0, b = 0;
        for (size_t k = 0; k < r->width; k++) {
            a += g[k] * n[k];
            b += u[k] * n[k];
        }
        hidden[i] = activation(r, a, b);
    }
    for (size_t i = 0; i < r->width; i++) {
        const double *d = down + ((size_t)e * r->width + i) * r->expert_neurons;
        double sum = 0;
        for (size_t k = 0; k < r->expert_neurons; k++) sum += d[k] * hidden[k];
        out[i] += weight * sum;
    }
    free(hidden);
}

/* Standard deviations of the scores by which the least of `chosen` lies under the least of `best`. */
static double gap_of(const reference *r, const double *scores, const uint32_t *best, const uint32_t *chosen) {
    double mean = 0, squares = 0, least_best = INFINITY, least_chosen = INFINITY;
    for (uint32_t e = 0; e < r->experts; e++) mean += scores[e] / r->experts;
    for (uint32_t e = 0; e < r->experts; e++) squares += (scores[e] - mean) * (scores[e] - mean) / r->experts;
    for (uint32_t i = 0; i < r->used; i++) {
        least_best = fmin(least_best, scores[best[i]]);
        least_chosen = fmin(least_chosen, scores[chosen[i]]);
    }
    return least_best > least_chosen ? (least_best - least_chosen) / sqrt(squares) : 0;
}

/* The experts of a token with the highest scores. */
static void choose_best(const reference *r, const double *scores, uint32_t *best) {
    for (uint32_t i = 0; i < r->used; i++) {
        double highest = -INFINITY;
        for (uint32_t e = 0; e < r->experts; e++) {
            bool taken = false;
            for (uint32_t k = 0; k < i; k++) taken |= best[k] == e;
            if (taken || scores[e] <= highest) continue;
            highest = scores[e];
            best[i] = e;
        }
    }
}

/* Adds the experts' result to x; routed[tokens][width] is what the router reads. */
static void mixture(const reference *r, int l, const double *n, const double *routed, double *x) {
    double *gate = load(r, "ffn_gate_exps.weight", l), *up = load(r, "ffn_up_exps.weight", l);
    double *down = load(r, "ffn_down_exps.weight", l);
    double *scores = multiply(r, "ffn_gate_inp", l, routed, r->width, r->experts);
    if (!gate || !up || !down) abort();
    for (size_t t = 0; t < r->count; t++) {
        const double *score = scores + t * r->experts;
        uint32_t best[64];
        const uint32_t *chosen = best;
        choose_best(r, score, best);
        if (r->choice) {
            chosen = r->choice->experts + (t * r->layers + (size_t)l) * r->used;
            r->choice->largest_gap = fmax(r->choice->largest_gap, gap_of(r, score, best, chosen));
        }
        double weight[64], sum = 0; /* softmax's own sum cancels out */
        for (uint32_t i = 0; i < r->used; i++) {
            weight[i] = r->sigmoid ? 1 / (1 + exp(-score[chosen[i]])) : exp(score[chosen[i]]);
            sum += weight[i];
        }
        for (uint32_t i = 0; i < r->used; i++) {
            add_expert(r, gate, up, down, chosen[i], n + t * r->width, weight[i] / sum, x + t * r->width);
        }
    }
    free(gate); free(up); free(down); free(scores);
}

/* Adds a dense FFN's result to x. */
static void feed_forward(const reference *r, int l, const double *n, double *x) {
    double *up = multiply(r, "ffn_up", l, n, r->width, r->neurons), *hidden = up, *gate = NULL;
    if (r->is_gated) {
        hidden = gate = multiply(r, "ffn_gate", l, n, r->width, r->neurons);
        if (strcmp(r->activation, "gelu_topk") == 0) cut_gates(r, (uint32_t)l, gate);
    }
    for (size_t i = 0; i < r->count * r->neurons; i++) {
        hidden[i] = gate ? activation(r, gate[i], up[i]) : activation(r, up[i], 1);
    }
    add(x, multiply(r, "ffn_down", l, hidden, r->neurons, r->width), r->count * r->width);
    free(gate); free(up);
}

static double *part_of_rows(const reference *r, const double *rows, size_t row_width, size_t first, size_t width) {
    double *part = malloc(r->count * width * sizeof *part);
    if (!part) abort();
    for (size_t t = 0; t < r->count; t++) memcpy(part + t * width, rows + t * row_width + first, width * sizeof *part);
    return part;
}

/* Attention and FFN read the layer's input side by side. */
static void falcon_layer(const reference *r, int l, double *x) {
    const size_t q_width = (size_t)r->heads * r->head, kv_width = (size_t)r->kv_heads * r->head;
    const bool has_two = pi2_gguf_tensor_find(r->gguf, "blk.0.attn_norm_2.weight") != NULL;
    double *for_ffn = norm(r, "attn_norm", l, x), *n = norm(r, has_two ? "attn_norm_2" : "attn_norm", l, x);
    double *all = multiply(r, "attn_qkv", l, n, r->width, q_width + 2 * kv_width);
    double *q = part_of_rows(r, all, q_width + 2 * kv_width, 0, q_width);
    double *k = part_of_rows(r, all, q_width + 2 * kv_width, q_width, kv_width);
    double *v = part_of_rows(r, all, q_width + 2 * kv_width, q_width + kv_width, kv_width);
    double *attended = malloc(r->count * q_width * sizeof *attended);
    if (!attended) abort();
    rotate(r, q, r->heads);
    rotate(r, k, r->kv_heads);
    attend(r, 0, q, k, v, attended);
    add(x, multiply(r, "attn_output", l, attended, q_width, r->width), r->count * r->width);
    feed_forward(r, l, for_ffn, x);
    free(for_ffn); free(n); free(all); free(q); free(k); free(v); free(attended);
}

static void layer(const reference *r, int l, double *x) {
    if (r->is_falcon) {
        falcon_layer(r, l, x);
        return;
    }
    double *input = malloc(r->count * r->width * sizeof *input);
    if (!input) abort();
    memcpy(input, x, r->count * r->width * sizeof *input);
    const bool windowed = r->window > 0 && l % 4 != 0;
    const size_t q_width = (size_t)r->heads * r->head, kv_width = (size_t)r->kv_heads * r->head;
    double *n = norm(r, "attn_norm", l, x);
    double *q = multiply(r, "attn_q", l, n, r->width, q_width);
    double *k = multiply(r, "attn_k", l, n, r->width, kv_width);
    double *v = multiply(r, "attn_v", l, n, r->width, kv_width);
    double *attended = malloc(r->count * q_width * sizeof *attended);
    if (!attended) abort();
    norm_heads(r, "attn_q_norm.weight", l, q, r->heads);
    norm_heads(r, "attn_k_norm.weight", l, k, r->kv_heads);
    if (!r->is_opt && (r->window == 0 || windowed)) {
        rotate(r, q, r->heads);
        rotate(r, k, r->kv_heads);
    }
    attend(r, windowed ? r->window : 0, q, k, v, attended);
    add(x, multiply(r, "attn_output", l, attended, q_width, r->width), r->count * r->width);
    free(n); free(q); free(k); free(v); free(attended);

    n = norm(r, "ffn_norm", l, x);
    if (r->experts > 0) {
        mixture(r, l, n, r->early_router ? input : n, x);
        free(n); free(input);
        return;
    }
    feed_forward(r, l, n, x);
    free(n); free(input);
}

/* A number of the metadata under the architecture's name. */
static uint32_t number(const reference *r, const char *suffix, uint32_t fallback) {
    char name[128];
    pi2_gguf_string architecture;
    uint32_t value = fallback;
    if (pi2_gguf_string_get(r->gguf, "general.architecture", &architecture) != PI2_OK) abort();
    (void)snprintf(name, sizeof name, "%.*s.%s", (int)architecture.length, architecture.text, suffix);
    return pi2_gguf_u32_or(r->gguf, name, fallback, &value) == PI2_OK ? value : fallback;
}

static float real(const reference *r, const char *suffix, float fallback) {
    char name[128];
    pi2_gguf_string architecture;
    float value = fallback;
    if (pi2_gguf_string_get(r->gguf, "general.architecture", &architecture) != PI2_OK) abort();
    (void)snprintf(name, sizeof name, "%.*s.%s", (int)architecture.length, architecture.text, suffix);
    return pi2_gguf_f32_or(r->gguf, name, fallback, &value) == PI2_OK ? value : fallback;
}

static int read_shape(reference *r) {
    pi2_gguf_string text;
    if (pi2_gguf_string_get(r->gguf, "general.architecture", &text) != PI2_OK) return -1;
    r->neox = text.length != 5 || memcmp(text.text, "llama", 5) != 0;
    r->early_router = text.length == 12 && memcmp(text.text, "smallthinker", 12) == 0;
    r->is_falcon = text.length == 6 && memcmp(text.text, "falcon", 6) == 0;
    r->is_opt = text.length == 3 && memcmp(text.text, "opt", 3) == 0;
    (void)snprintf(r->activation, sizeof r->activation, "%s",
                   r->early_router || r->is_opt ? "relu" : r->is_falcon ? "gelu" : "silu");
    if (pi2_gguf_has(r->gguf, PI2_KEY_FFN_ACTIVATION)) {
        if (pi2_gguf_string_get(r->gguf, PI2_KEY_FFN_ACTIVATION, &text) != PI2_OK) return -1;
        (void)snprintf(r->activation, sizeof r->activation, "%.*s", (int)text.length, text.text);
    }
    r->is_gated = pi2_gguf_tensor_find(r->gguf, "blk.0.ffn_gate.weight") != NULL;
    r->width = number(r, "embedding_length", 0);
    r->layers = number(r, "block_count", 0);
    r->heads = number(r, "attention.head_count", 0);
    if (r->width == 0 || r->layers == 0 || r->heads == 0) return -1;
    r->kv_heads = number(r, "attention.head_count_kv", r->heads);
    r->neurons = number(r, "feed_forward_length", 0);
    r->head = number(r, "attention.key_length", r->width / r->heads);
    r->rope_dimensions = number(r, "rope.dimension_count", r->head);
    r->experts = number(r, "expert_count", 0);
    r->used = number(r, "expert_used_count", 0);
    r->expert_neurons = number(r, "expert_feed_forward_length", r->neurons);
    r->sigmoid = number(r, "expert_gating_func", 1) == 2;
    r->window = number(r, "attention.sliding_window", 0);
    r->epsilon = real(r, "attention.layer_norm_rms_epsilon", 1e-5f);
    if (r->is_falcon || r->is_opt) r->epsilon = real(r, "attention.layer_norm_epsilon", 1e-5f);
    r->base = real(r, "rope.freq_base", 10000.0f);
    r->scale_factor = real(r, "rope.scaling.factor", 1.0f);
    r->original_context = number(r, "rope.scaling.original_context_length", 0);
    if (pi2_gguf_has(r->gguf, "llama.rope.scaling.type") &&
        pi2_gguf_string_get(r->gguf, "llama.rope.scaling.type", &text) == PI2_OK) {
        (void)snprintf(r->scaling, sizeof r->scaling, "%.*s", (int)text.length, text.text);
    }
    r->rope_factors = load(r, "rope_freqs.weight", -1);
    return 0;
}

int pi2_float_reference(const char *path, const int32_t *tokens, size_t count, pi2_expert_choice *choice,
                        double **logits_out, size_t *vocabulary_out) {
    reference r = { .count = count, .choice = choice };
    if (choice) choice->largest_gap = 0;
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
    double *positions = load(&r, "position_embd.weight", -1); /* OPT's, of which the first two are of no token */
    for (size_t i = 0; positions && i < count * r.width; i++) x[i] += positions[2 * r.width + i];
    free(positions);
    for (uint32_t l = 0; l < r.layers; l++) layer(&r, (int)l, x);
    double *n = norm(&r, "output_norm", -1, x);
    const bool tied = pi2_gguf_tensor_find(r.gguf, "output.weight") == NULL;
    *vocabulary_out = pi2_gguf_tensor_find(r.gguf, "token_embd.weight")->dimensions[1];
    *logits_out = multiply(&r, tied ? "token_embd" : "output", -1, n, r.width, *vocabulary_out);
    free(n); free(x); free(embedding); free(r.rope_factors);
    pi2_gguf_close(r.gguf);
    return 0;
}
