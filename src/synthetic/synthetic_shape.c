/* synthetic_shape.c: the known shapes and types by name, and which numbers are possible. */
#include <string.h>

#include <stdio.h>

#include "base/fail.h"
#include "kernels/vector/ffn_activation.h"
#include "synthetic/synthetic_internal.h"

static const pi2_synthetic_shape known_shapes[] = {
#define SHAPE(name_, architecture_, tokenizer_, layers_, embedding_, ffn_, heads_, kv_heads_,        \
              head_dimension_, vocabulary_, context_, experts_, used_, expert_ffn_, rope_, epsilon_, \
              tied_, skew_, repeat_, activation_, zeros_, hot_, neuron_repeat_)                      \
    { .name = name_, .architecture = architecture_, .tokenizer = tokenizer_,                         \
      .layer_count = layers_, .embedding_length = embedding_, .feed_forward_length = ffn_,           \
      .head_count = heads_, .head_count_kv = kv_heads_, .head_dimension = head_dimension_,           \
      .vocabulary_size = vocabulary_, .context_length = context_, .expert_count = experts_,          \
      .expert_used_count = used_, .expert_feed_forward_length = expert_ffn_, .rope_base = rope_,     \
      .norm_epsilon = epsilon_, .tied_head = tied_, .expert_skew = skew_, .expert_repeat = repeat_,   \
      .ffn_activation = activation_, .ffn_zeros = zeros_, .neuron_hot = hot_,                        \
      .neuron_repeat = neuron_repeat_ },
#define SHAPE_OF(name_, ...) { .name = name_, __VA_ARGS__ },
#include "synthetic/synthetic_shapes.inc"
#undef SHAPE
#undef SHAPE_OF
};

static const char *const shape_names[] = {
#define SHAPE(name_, ...) name_,
#define SHAPE_OF(name_, ...) name_,
#include "synthetic/synthetic_shapes.inc"
#undef SHAPE
#undef SHAPE_OF
    NULL
};

static const pi2_synthetic_family families[] = {
    { .architecture = "llama", .pairs_neighbours = true },
    { .architecture = "qwen3moe", .is_mixture = true, .head_norms = true },
    { .architecture = "smallthinker", .is_mixture = true },
    { .architecture = "qwen35", .kinds = "DA", .ffn_norm = "post_attention_norm", .head_norms = true,
      .gated_queries = true },
    { .architecture = "qwen35moe", .kinds = "DA", .ffn_norm = "post_attention_norm", .is_mixture = true,
      .head_norms = true, .gated_queries = true },
    { .architecture = "qwen3next", .kinds = "DA", .ffn_norm = "post_attention_norm", .is_mixture = true,
      .head_norms = true, .gated_queries = true, .joins_strengths = true },
    { .architecture = "gpt-oss", .ffn_norm = "post_attention_norm", .is_mixture = true, .has_biases = true },
    { .architecture = "lfm2moe", .kinds = "CA", .output_norm = "token_embd_norm", .is_mixture = true,
      .head_norms = true, .router_has_bias = true, .heads_by_layer = true },
    { .architecture = "nemotron_h_moe", .kinds = "MFA", .is_mixture = true, .router_has_bias = true,
      .heads_by_layer = true, .one_block = true },
    { .architecture = "gemma4", .kinds = "WA", .is_gemma = true },
    { .architecture = "deepseek2", .kinds = "L", .is_mixture = true, .router_has_bias = true },
};
enum { FAMILIES = sizeof families / sizeof families[0] };

const pi2_synthetic_family *pi2_synthetic_family_find(const char *architecture) {
    for (size_t i = 0; i < FAMILIES; i++) {
        if (strcmp(architecture, families[i].architecture) == 0) return &families[i];
    }
    return NULL;
}

char pi2_synthetic_layer_kind(const pi2_synthetic_shape *shape, uint32_t layer) {
    return shape->layer_pattern ? shape->layer_pattern[layer % strlen(shape->layer_pattern)] : 'A';
}

uint32_t pi2_synthetic_rotated(const pi2_synthetic_shape *shape) {
    return shape->rope_dimensions ? shape->rope_dimensions : shape->head_dimension;
}

const char *const *pi2_synthetic_shape_names(void) { return shape_names; }

/** Appends a name to those of an error's text, as long as there is room. */
static void add_name(char *list, size_t bytes, const char *name) {
    const size_t length = strlen(list);
    (void)snprintf(list + length, bytes - length, " %s", name);
}

pi2_status pi2_synthetic_shape_find(const char *name, pi2_synthetic_shape *shape_out) {
    char list[640] = "";
    for (size_t i = 0; shape_names[i]; i++) {
        if (strcmp(name, shape_names[i]) == 0) {
            *shape_out = known_shapes[i];
            return PI2_OK;
        }
        add_name(list, sizeof list, shape_names[i]);
    }
    return pi2_fail(PI2_ERR_INVALID, "there is no shape '%s'; known are%s, and --layers, --embedding "
                    "and so on make others", name, list);
}

void pi2_synthetic_shape_default(pi2_synthetic_shape *shape_out) {
    *shape_out = (pi2_synthetic_shape){
        .name = "custom", .architecture = "llama", .tokenizer = "smollm", .layer_count = 2,
        .embedding_length = 256, .feed_forward_length = 512, .head_count = 4, .head_count_kv = 2,
        .vocabulary_size = 4096, .context_length = 4096, .rope_base = 10000.0f, .norm_epsilon = 1e-5f };
}

void pi2_synthetic_options_init(pi2_synthetic_options *options) {
    *options = (pi2_synthetic_options){ .type = "q4_0", .seed = 1 };
    pi2_synthetic_shape_default(&options->shape);
}

/** Mixtures that have a name of their own, and what general.file_type calls types; of others it says "guessed". */
static const struct { const char *name; pi2_weight_type type; uint32_t file_type; } named_types[] = {
    { "f32", PI2_F32, 0 },        { "f16", PI2_F16, 1 },    { "q4_0", PI2_Q4_0, 2 },      { "q4_1", PI2_Q4_1, 3 },
    { "q8_0", PI2_Q8_0, 7 },      { "q5_0", PI2_Q5_0, 8 },  { "q5_1", PI2_Q5_1, 9 },      { "q4_k", PI2_Q4_K, 14 },
    { "q4_k_s", PI2_Q4_K, 14 },   { "q4_k_m", PI2_Q4_K, 15 }, { "q6_k", PI2_Q6_K, 18 },   { "bf16", PI2_BF16, 32 } };
enum { NAMED_TYPES = sizeof named_types / sizeof named_types[0], FILE_TYPE_GUESSED = 1024 };

/** Every format of the list by its name in small letters. */
static const struct { const char *name; pi2_weight_type type; } listed_types[] = {
#define WEIGHT_FORMAT(lower, upper, id) { #lower, PI2_##upper },
#include "weight_formats/weight_formats.inc"
};
enum { LISTED_TYPES = sizeof listed_types / sizeof listed_types[0] };

static pi2_status fail_unknown_type(const char *name) {
    char list[512] = "";
    for (size_t i = 0; i < LISTED_TYPES; i++) {
        add_name(list, sizeof list, listed_types[i].name);
    }
    return pi2_fail(PI2_ERR_INVALID, "there is no type '%s'; known are q4_k_s q4_k_m%s", name, list);
}

pi2_status pi2_synthetic_type_find(const char *name, const pi2_weight_format **format_out,
                                   uint32_t *file_type_out) {
    for (size_t i = 0; i < NAMED_TYPES; i++) {
        if (strcmp(name, named_types[i].name) != 0) continue;
        *format_out = pi2_weight_format_find((uint32_t)named_types[i].type);
        *file_type_out = named_types[i].file_type;
        return PI2_OK;
    }
    for (size_t i = 0; i < LISTED_TYPES; i++) {
        if (strcmp(name, listed_types[i].name) != 0) continue;
        *format_out = pi2_weight_format_find((uint32_t)listed_types[i].type);
        *file_type_out = FILE_TYPE_GUESSED;
        return PI2_OK;
    }
    return fail_unknown_type(name);
}

static pi2_status check_limits(const pi2_synthetic_shape *shape) {
    const struct { const char *flag; uint64_t value, least, most; } limits[] = {
        { "--layers", shape->layer_count, 1, 1024 },
        { "--embedding", shape->embedding_length, 32, 1u << 16 },
        { "--ffn", shape->feed_forward_length, 32, 1u << 20 },
        { "--heads", shape->head_count, 1, 1024 },
        { "--kv-heads", shape->head_count_kv, 1, shape->head_count },
        { "--head-dim", shape->head_dimension, 2, 4096 },
        { "--vocab", shape->vocabulary_size, 512, 1u << 20 },
        { "--context", shape->context_length, 1, 1u << 26 },
        { "--experts", shape->expert_count, 0, 4096 },
        { "--experts-used", shape->expert_used_count, shape->expert_count ? 1 : 0, shape->expert_count },
        { "--expert-ffn", shape->expert_feed_forward_length, 32, 1u << 20 },
    };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        if (limits[i].value >= limits[i].least && limits[i].value <= limits[i].most) continue;
        return pi2_fail(PI2_ERR_INVALID, "%s %llu is impossible: it must lie within %llu .. %llu",
                        limits[i].flag, (unsigned long long)limits[i].value,
                        (unsigned long long)limits[i].least, (unsigned long long)limits[i].most);
    }
    return PI2_OK;
}

static pi2_status check_columns(const pi2_synthetic_shape *shape) {
    const struct { const char *flag; uint32_t value, unit; } columns[] = {
        { "--embedding", shape->embedding_length, 32 },
        { "--ffn", shape->feed_forward_length, 32 },
        { "--expert-ffn", shape->expert_feed_forward_length, 32 },
        { "--head-dim", shape->head_dimension, 2 },
    };
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        if (columns[i].value % columns[i].unit == 0) continue;
        return pi2_fail(PI2_ERR_INVALID, "%s %u is impossible: it must be a multiple of %u",
                        columns[i].flag, columns[i].value, columns[i].unit);
    }
    if ((uint64_t)shape->head_count * shape->head_dimension % 32 != 0) {
        return pi2_fail(PI2_ERR_INVALID, "--heads %u of --head-dim %u are impossible: their product must "
                        "be a multiple of 32", shape->head_count, shape->head_dimension);
    }
    if (shape->head_count % shape->head_count_kv != 0) {
        return pi2_fail(PI2_ERR_INVALID, "--heads %u cannot share --kv-heads %u: the one must be a "
                        "multiple of the other", shape->head_count, shape->head_count_kv);
    }
    if (!(shape->rope_base >= 1.0f && shape->rope_base < 1e12f)) {
        return pi2_fail(PI2_ERR_INVALID, "--rope-base %g is impossible: it must lie within 1 .. 1e12",
                        (double)shape->rope_base);
    }
    return PI2_OK;
}

static bool is_share(double value) { return value > 0.0 && value < 1.0; }

/** Planted zeros: possible shares, of an activation that has zeros. */
static pi2_status check_neurons(const pi2_synthetic_shape *shape) {
    const char *name = shape->ffn_activation;
    pi2_ffn_activation activation = PI2_FFN_silu;
    if (name && !pi2_ffn_activation_find(name, strlen(name), &activation)) {
        return pi2_fail(PI2_ERR_INVALID, "there is no FFN activation '%s'; known are %s", name,
                        pi2_ffn_activation_names());
    }
    if (!name && strcmp(shape->architecture, "smallthinker") == 0) activation = PI2_FFN_relu;
    const bool is_planted = shape->ffn_zeros != 0.0;
    if (!is_planted && (shape->ffn_zeros_last != 0.0 || shape->neuron_hot != 0.0 || shape->neuron_repeat != 0.0 ||
                        shape->hot_first)) {
        return pi2_fail(PI2_ERR_INVALID, "--ffn-zeros-last, --neuron-hot, --neuron-repeat and --hot-first "
                        "need --ffn-zeros");
    }
    if (!is_planted) return PI2_OK;
    if (!pi2_ffn_activation_is_sparse(activation)) {
        return pi2_fail(PI2_ERR_INVALID, "--ffn-zeros needs an activation that has zeros, as --ffn-activation relu");
    }
    if (activation == PI2_FFN_gelu_topk) {
        return pi2_fail(PI2_ERR_INVALID, "--ffn-zeros is not for gelu_topk: its zeros follow from Gate's mean and "
                        "deviation, whatever the weights are");
    }
    const struct { const char *flag; double value; } shares[] = {
        { "--ffn-zeros", shape->ffn_zeros }, { "--ffn-zeros-last", shape->ffn_zeros_last },
        { "--neuron-hot", shape->neuron_hot }, { "--neuron-repeat", shape->neuron_repeat } };
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        if (is_share(shares[i].value) || (i > 0 && shares[i].value == 0.0)) continue;
        return pi2_fail(PI2_ERR_INVALID, "%s %g is impossible: it must lie between 0 and 1", shares[i].flag,
                        shares[i].value);
    }
    if (shape->embedding_length >= 256) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "--embedding %u is too small for --ffn-zeros: at least 256",
                    shape->embedding_length);
}

static pi2_status fail_unknown_architecture(const char *name) {
    char list[256] = "";
    for (size_t i = 0; i < FAMILIES; i++) {
        add_name(list, sizeof list, families[i].architecture);
    }
    return pi2_fail(PI2_ERR_INVALID, "there is no architecture '%s' here; known are%s", name, list);
}

/** A family's layers are of its kinds, and its first is always of one: an architecture alone does not make a shape. */
static pi2_status check_pattern(const pi2_synthetic_shape *shape, const pi2_synthetic_family *family) {
    const char *kinds = family->kinds ? family->kinds : "A";
    bool is_possible = pi2_synthetic_layer_kind(shape, 0) == kinds[0] &&
                       (shape->window > 0) == (family->has_biases || family->is_gemma);
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        is_possible = is_possible && strchr(kinds, pi2_synthetic_layer_kind(shape, i));
    }
    if (!is_possible) {
        return pi2_fail(PI2_ERR_INVALID, "--architecture %s does not go with the layers of this shape: take --shape of "
                        "a model of that architecture", shape->architecture);
    }
    if (pi2_synthetic_rotated(shape) > shape->head_dimension) {
        return pi2_fail(PI2_ERR_INVALID, "--head-dim %u is too small: %u dimensions are rotated", shape->head_dimension,
                        shape->rope_dimensions);
    }
    const bool is_odd = shape->keyed_layers % strlen(shape->layer_pattern ? shape->layer_pattern : "A") != 0;
    if (is_odd || shape->local_head_dimension % 32 != 0) {
        return pi2_fail(PI2_ERR_INVALID, "keys of %u layers and heads of %u dimensions with a window are impossible: "
                        "they must be multiples of the pattern's length and of 32", shape->keyed_layers,
                        shape->local_head_dimension);
    }
    if (shape->latent_length && shape->shared_length % shape->expert_feed_forward_length != 0) {
        return pi2_fail(PI2_ERR_INVALID, "--expert-ffn %u is impossible: it must divide the %u neurons beside experts",
                        shape->expert_feed_forward_length, shape->shared_length);
    }
    return PI2_OK;
}

static pi2_status check_architecture(const pi2_synthetic_shape *shape) {
    const pi2_synthetic_family *family = pi2_synthetic_family_find(shape->architecture);
    size_t i = 0;
    if (!family) return fail_unknown_architecture(shape->architecture);
    PI2_TRY(check_pattern(shape, family));
    if (family->is_mixture && shape->expert_count == 0) {
        return pi2_fail(PI2_ERR_INVALID, "--architecture %s always has experts: give --experts and "
                        "--experts-used", shape->architecture);
    }
    if (shape->leading_dense >= shape->layer_count) {
        return pi2_fail(PI2_ERR_INVALID, "--layers %u are too few: the first %u have no experts", shape->layer_count,
                        shape->leading_dense);
    }
    if (shape->expert_count && shape->embedding_length < 128) {
        return pi2_fail(PI2_ERR_INVALID, "--embedding %u is too small for experts: at least 128",
                        shape->embedding_length);
    }
    static const char *const tokenizers[] = { "spm", "llama-bpe", "qwen2", "smollm", "gpt-2", "qwen35", "gpt-4o",
                                              "lfm2", "glm4" };
    for (i = 0; i < sizeof tokenizers / sizeof tokenizers[0]; i++) {
        if (strcmp(shape->tokenizer, tokenizers[i]) == 0) return PI2_OK;
    }
    return pi2_fail(PI2_ERR_INVALID, "there is no tokenizer '%s' here; known are spm, llama-bpe, qwen2, "
                    "smollm, gpt-2, qwen35, gpt-4o, lfm2 and glm4", shape->tokenizer);
}

pi2_status pi2_synthetic_check_shape(pi2_synthetic_shape *shape) {
    if (shape->head_dimension == 0 && shape->head_count) {
        if (shape->embedding_length % shape->head_count != 0) {
            return pi2_fail(PI2_ERR_INVALID, "--embedding %u cannot be shared by --heads %u: give "
                            "--head-dim too", shape->embedding_length, shape->head_count);
        }
        shape->head_dimension = shape->embedding_length / shape->head_count;
    }
    if (shape->expert_feed_forward_length == 0) {
        shape->expert_feed_forward_length = shape->feed_forward_length;
    }
    PI2_TRY(check_limits(shape));
    PI2_TRY(check_columns(shape));
    PI2_TRY(check_neurons(shape));
    return check_architecture(shape);
}
