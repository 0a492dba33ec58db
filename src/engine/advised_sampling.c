/* advised_sampling.c: the keys, and what each may say. */
#include "engine/advised_sampling.h"

#include <float.h>

#include "base/fail.h"

typedef struct advised_field {
    const char *key;
    size_t offset; /* in pi2_sampling */
    bool is_whole;
    double least, most;
} advised_field;

#define FIELD(name) offsetof(pi2_sampling, name)
static const advised_field fields[] = {
    {"general.sampling.temp", FIELD(temperature), false, -FLT_MAX, FLT_MAX},
    {"general.sampling.top_k", FIELD(top_k), true, INT32_MIN, INT32_MAX},
    {"general.sampling.top_p", FIELD(top_p), false, 0, 1},
    {"general.sampling.min_p", FIELD(min_p), false, 0, 1},
    {"general.sampling.xtc_probability", FIELD(xtc_probability), false, 0, 1},
    {"general.sampling.xtc_threshold", FIELD(xtc_threshold), false, 0, FLT_MAX},
    {"general.sampling.penalty_repeat", FIELD(repeat_penalty), false, FLT_MIN, FLT_MAX},
    {"general.sampling.penalty_last_n", FIELD(repeat_last_n), true, -1, INT32_MAX},
};
enum { FIELDS = sizeof fields / sizeof fields[0] };

static int32_t *whole_of(pi2_sampling *sampling, const advised_field *field) {
    return (int32_t *)((char *)sampling + field->offset);
}
static float *number_of(pi2_sampling *sampling, const advised_field *field) {
    return (float *)((char *)sampling + field->offset);
}

pi2_status pi2_advised_sampling_read(const pi2_gguf *gguf, pi2_advised_sampling *advised_out) {
    advised_out->fields = 0;
    pi2_sampling_init(&advised_out->values);
    for (size_t i = 0; i < FIELDS; i++) {
        const advised_field *field = &fields[i];
        double value;
        if (!pi2_gguf_has(gguf, field->key)) continue;
        PI2_TRY(pi2_gguf_number_or(gguf, field->key, 0, &value));
        if (!(value >= field->least && value <= field->most) || (field->is_whole && value != (double)(int32_t)value)) {
            return pi2_fail(PI2_ERR_FORMAT, "%s: key '%s' is %g, which no sampler takes: convert the model again",
                            pi2_gguf_file_path(gguf, 0), field->key, value);
        }
        if (field->is_whole) *whole_of(&advised_out->values, field) = (int32_t)value;
        else *number_of(&advised_out->values, field) = (float)value;
        advised_out->fields |= 1u << i;
    }
    if (advised_out->values.top_k < 0) advised_out->values.top_k = 0; /* both mean all tokens */
    return PI2_OK;
}

void pi2_advised_sampling_apply(const pi2_advised_sampling *advised, pi2_sampling *sampling) {
    pi2_sampling values = advised->values;
    for (size_t i = 0; i < FIELDS; i++) {
        if ((advised->fields & 1u << i) == 0) continue;
        if (fields[i].is_whole) *whole_of(sampling, &fields[i]) = *whole_of(&values, &fields[i]);
        else *number_of(sampling, &fields[i]) = *number_of(&values, &fields[i]);
    }
}
