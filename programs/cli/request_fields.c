/* request_fields.c: see request_fields.h. */
#include "request_fields.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

bool pi2_fault(pi2_request_fault *fault, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(fault->text, sizeof fault->text, format, arguments);
    va_end(arguments);
    fault->status = 400; /* the request is bad */
    fault->type = "invalid_request_error";
    return false;
}

static const json_t *member(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

bool pi2_field_number(const json_t *object, const char *name, double least, double most, double *value,
                      pi2_request_fault *fault) {
    const json_t *found = member(object, name);
    if (!found) return true;
    if (!json_is_number(found)) return pi2_fault(fault, "'%s' must be a number", name);
    const double number = json_number_value(found);
    if (!(number >= least && number <= most)) {
        return pi2_fault(fault, "'%s' is %g, it must be from %g to %g", name, number, least, most);
    }
    *value = number;
    return true;
}

bool pi2_field_integer(const json_t *object, const char *name, int64_t least, int64_t most, int64_t *value,
                       pi2_request_fault *fault) {
    const json_t *found = member(object, name);
    if (!found) return true;
    int64_t number = json_integer_value(found);
    if (json_is_real(found)) { /* some clients write 128.0 */
        const double real = json_real_value(found);
        if (real != floor(real) || fabs(real) > 9e15) return pi2_fault(fault, "'%s' must be a whole number", name);
        number = (int64_t)real;
    } else if (!json_is_integer(found)) {
        return pi2_fault(fault, "'%s' must be a whole number", name);
    }
    if (number < least || number > most) {
        return pi2_fault(fault, "'%s' is %lld, it must be from %lld to %lld", name, (long long)number,
                         (long long)least, (long long)most);
    }
    *value = number;
    return true;
}

bool pi2_field_flag(const json_t *object, const char *name, bool *value, pi2_request_fault *fault) {
    const json_t *found = member(object, name);
    if (!found) return true;
    if (!json_is_boolean(found)) return pi2_fault(fault, "'%s' must be true or false", name);
    *value = json_is_true(found);
    return true;
}

bool pi2_field_text(const json_t *object, const char *name, const char **value, pi2_request_fault *fault) {
    const json_t *found = member(object, name);
    if (!found) return true;
    if (!json_is_string(found)) return pi2_fault(fault, "'%s' must be a text", name);
    *value = json_string_value(found);
    return true;
}

bool pi2_field_stops(const json_t *object, const char *name, pi2_job *job, pi2_request_fault *fault) {
    const json_t *found = member(object, name);
    if (!found) return true;
    const size_t count = json_is_array(found) ? json_array_size(found) : 1;
    for (size_t i = 0; i < count; i++) {
        const json_t *word = json_is_array(found) ? json_array_get(found, i) : found;
        if (!json_is_string(word)) return pi2_fault(fault, "'%s' must be a text or an array of texts", name);
        if (!pi2_job_add_stop(job, json_string_value(word))) {
            return pi2_fault(fault, "'%s' has more than %d texts, or more than %d bytes", name, PI2_CLI_MAX_TEXTS,
                             PI2_JOB_STOP_BYTES);
        }
    }
    return true;
}

bool pi2_field_is_set(const json_t *object, const char *name) {
    const json_t *found = member(object, name);
    if (!found || json_is_false(found)) return false;
    if (json_is_number(found)) return json_number_value(found) != 0;
    if (json_is_string(found)) return json_string_length(found) > 0;
    if (json_is_array(found)) return json_array_size(found) > 0;
    return !json_is_object(found) || json_object_size(found) > 0;
}

/* The same thing has many names; of several that are given the last in this order counts. */
static bool read_limit(const json_t *object, pi2_job *job, pi2_request_fault *fault) {
    static const char *const names[] = {"n_predict", "num_predict", "max_tokens", "max_completion_tokens"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!pi2_field_integer(object, names[i], -2, INT32_MAX, &job->limit, fault)) return false;
    }
    return pi2_field_integer(object, "t_max_predict_ms", INT32_MIN, INT32_MAX, &job->most_ms, fault);
}

/** A bias: from `token`'s text, or number, and a number or false, which is minus infinity. */
static bool read_bias(const json_t *token, const char *text, const json_t *value, pi2_logit_bias *bias,
                      pi2_request_fault *fault) {
    int64_t id = json_is_integer(token) ? json_integer_value(token) : -1;
    if (text) {
        id = 0;
        for (const char *digit = text; *digit && id >= 0; digit++) {
            id = *digit >= '0' && *digit <= '9' && id <= INT32_MAX ? id * 10 + (*digit - '0') : -1;
        }
        if (!*text) id = -1;
    }
    if (id < 0 || id > INT32_MAX) {
        return pi2_fault(fault, "'logit_bias' must name tokens by their ids, which /tokenize tells");
    }
    const double number = json_is_false(value) ? -INFINITY : json_number_value(value);
    if (!json_is_false(value) && (!json_is_number(value) || !(fabs(number) <= 1e6))) {
        return pi2_fault(fault, "'logit_bias' of token %lld must be a number from -1e6 to 1e6, or false",
                         (long long)id);
    }
    *bias = (pi2_logit_bias){.token = (int32_t)id, .bias = (float)number};
    return true;
}

/** OpenAI's {"15043": 1}, and llama.cpp's [[15043, 1], [15044, false]]. */
static bool read_biases(const json_t *object, pi2_job *job, pi2_request_fault *fault) {
    json_t *found = json_object_get(object, "logit_bias");
    if (!found || json_is_null(found)) return true;
    const size_t count = json_is_array(found) ? json_array_size(found) : json_object_size(found);
    if (!json_is_array(found) && !json_is_object(found)) {
        return pi2_fault(fault, "'logit_bias' must be an object of tokens' ids and numbers, or an array of such pairs");
    }
    if (count > PI2_LOGIT_BIASES_MOST) {
        return pi2_fault(fault, "'logit_bias' has %zu tokens; it may have %d", count, PI2_LOGIT_BIASES_MOST);
    }
    job->sampling.logit_bias_count = 0; /* those of the server are not added */
    free(job->biases);
    job->biases = count ? malloc(count * sizeof *job->biases) : NULL;
    if (count && !job->biases) {
        (void)pi2_fault(fault, "no memory for %zu biases", count);
        fault->status = 503;
        fault->type = "server_error";
        return false;
    }
    job->sampling.logit_biases = job->biases;
    uint32_t *used = &job->sampling.logit_bias_count;
    if (json_is_object(found)) {
        const char *key;
        json_t *value;
        json_object_foreach(found, key, value) {
            if (!read_bias(NULL, key, value, &job->biases[(*used)++], fault)) return false;
        }
        return true;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *pair = json_array_get(found, i);
        if (json_array_size(pair) != 2) return pi2_fault(fault, "'logit_bias' must be an array of pairs");
        if (!read_bias(json_array_get(pair, 0), NULL, json_array_get(pair, 1), &job->biases[(*used)++], fault)) {
            return false;
        }
    }
    return true;
}

bool pi2_fields_sampling(const json_t *object, pi2_job *job, pi2_request_fault *fault) {
    pi2_sampling *sampling = &job->sampling;
    const struct { const char *name; double least, most; float *value; } numbers[] = {
        {"temperature", 0, 1000, &sampling->temperature},
        {"top_p", 0, 1, &sampling->top_p},
        {"min_p", 0, 1, &sampling->min_p},
        {"typical_p", 0, 1, &sampling->typical_p},
        {"top_n_sigma", -1000, 1000, &sampling->top_n_sigma},
        {"xtc_probability", 0, 1, &sampling->xtc_probability},
        {"xtc_threshold", 0, 1000, &sampling->xtc_threshold},
        {"dynatemp_range", 0, 1000, &sampling->dynamic_range},
        {"dynatemp_exponent", 0, 1000, &sampling->dynamic_exponent},
        {"repeat_penalty", 0.001, 1000, &sampling->repeat_penalty},
        {"repetition_penalty", 0.001, 1000, &sampling->repeat_penalty},
        {"presence_penalty", -1000, 1000, &sampling->presence_penalty},
        {"frequency_penalty", -1000, 1000, &sampling->frequency_penalty}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        double value = (double)*numbers[i].value;
        if (!pi2_field_number(object, numbers[i].name, numbers[i].least, numbers[i].most, &value, fault)) return false;
        *numbers[i].value = (float)value;
    }
    int64_t top_k = sampling->top_k, last_n = sampling->repeat_last_n, seed = sampling->seed;
    if (!pi2_field_integer(object, "top_k", -1, INT32_MAX, &top_k, fault) ||
        !pi2_field_integer(object, "repeat_last_n", -1, INT32_MAX, &last_n, fault) ||
        !pi2_field_integer(object, "seed", INT64_MIN, INT64_MAX, &seed, fault) ||
        !pi2_field_flag(object, "ignore_eos", &sampling->forbid_end_tokens, fault) ||
        !read_biases(object, job, fault) || !pi2_field_stops(object, "stop", job, fault) ||
        !pi2_field_stops(object, "stop_sequences", job, fault)) {
        return false;
    }
    sampling->top_k = top_k > 0 ? (int32_t)top_k : 0;
    sampling->repeat_last_n = (int32_t)last_n;
    sampling->seed = (uint32_t)seed; /* -1, as 32 bits, asks for another one each time */
    return read_limit(object, job, fault);
}

bool pi2_field_choices(const json_t *object, uint32_t most, uint32_t *count, pi2_request_fault *fault) {
    int64_t value = 1;
    const bool is_good = pi2_field_integer(object, "n", 1, most, &value, fault);
    *count = (uint32_t)value;
    return is_good;
}

bool pi2_fields_unsupported(const json_t *object, pi2_request_fault *fault) {
    static const char *const names[] = {"mirostat", "dry_multiplier", "echo",          "suffix",
                                        "lora",     "functions",      "function_call", "audio"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (pi2_field_is_set(object, names[i])) return pi2_fault(fault, "'%s' is not supported here", names[i]);
    }
    int64_t count = 1;
    return pi2_field_integer(object, "best_of", 1, 1, &count, fault);
}

bool pi2_fields_of_text(const json_t *object, pi2_request_fault *fault) {
    static const char *const forms[] = {"grammar", "json_schema", "response_format", "format", "output_format",
                                        "output_config"};
    static const char *const others[] = {"tools", "chat_template_kwargs", "logprobs", "top_logprobs", "n_probs"};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        const char *type = json_string_value(json_object_get(json_object_get(object, forms[i]), "type"));
        const json_t *value = json_object_get(object, forms[i]);
        const bool is_there = json_is_object(value) || pi2_field_is_set(object, forms[i]); /* {}: any JSON */
        if (!is_there || (type && strcmp(type, "text") == 0)) continue;
        return pi2_fault(fault, "'%s' is not supported here", forms[i]);
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (pi2_field_is_set(object, others[i])) return pi2_fault(fault, "'%s' is not supported here", others[i]);
    }
    return true;
}
