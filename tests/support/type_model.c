/* type_model.c: see type_model.h. */
#include "support/type_model.h"

#include "support/tiny_model.h"

/* Of the seven matrices of a layer, in this order, and the embedding. */
static const struct { const char *name; pi2_weight_type query, key, value, output, gate, up, down, embedding; }
    mixes[] = {
        { "mix-of-32", PI2_Q8_0, PI2_Q4_0, PI2_Q4_1, PI2_Q5_0, PI2_Q5_1, PI2_IQ4_NL, PI2_MXFP4, PI2_NVFP4 },
        { "mix-of-256", PI2_Q2_K, PI2_Q3_K, PI2_Q4_K, PI2_Q5_K, PI2_Q6_K, PI2_IQ4_XS, PI2_IQ3_S, PI2_Q4_K },
        { "mix-of-low", PI2_IQ3_XXS, PI2_IQ2_S, PI2_IQ2_XS, PI2_IQ2_XXS, PI2_TQ1_0, PI2_TQ2_0, PI2_Q2_K, PI2_IQ2_S },
        { "mix-of-all", PI2_Q6_K, PI2_Q4_0, PI2_Q5_K, PI2_IQ4_XS, PI2_IQ3_XXS, PI2_F32, PI2_Q3_K, PI2_Q8_0 } };
enum { MIXES = sizeof mixes / sizeof mixes[0] };

static size_t type_count(void) {
    size_t count;
    (void)pi2_weight_formats(&count);
    return count;
}

const char *pi2_type_model_name(size_t index) {
    size_t count;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    if (index < count) return formats[index]->name;
    return index < count + MIXES ? mixes[index - count].name : NULL;
}

int pi2_type_model_write(size_t index, unsigned seed, const char *path) {
    size_t count = type_count();
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    if (index < count) {
        pi2_tiny_model_set_types(&options, pi2_weight_formats(&count)[index]->type);
    } else {
        options.query_type = mixes[index - count].query;
        options.key_type = mixes[index - count].key;
        options.value_type = mixes[index - count].value;
        options.attention_output_type = mixes[index - count].output;
        options.gate_type = mixes[index - count].gate;
        options.up_type = mixes[index - count].up;
        options.down_type = mixes[index - count].down;
        options.embedding_type = mixes[index - count].embedding;
    }
    options.seed = seed;
    options.tied_head = false;
    options.head_type = PI2_F32;
    options.head_gain = 4.0f;
    return pi2_tiny_model_write(&options, path);
}
