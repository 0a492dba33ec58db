/* prediction_report.c: never measures by itself: a run shall not wait for that. */
#include "prediction_report.h"

#include <stdlib.h>

#include "output.h"
#include "powerinfer2/plan.h"

static const char *routing_trace, *statistics;

void pi2_cli_predict_with(const char *trace_path, const char *statistics_path) {
    routing_trace = trace_path;
    statistics = statistics_path;
}

/** A profile that is not there is told in our words: the library's tell of a file. */
static pi2_status predict(const pi2_engine *engine, const pi2_prediction_request *request,
                          pi2_prediction *prediction, bool *unmeasured) {
    pi2_machine_profile *profile = NULL;
    pi2_status status = pi2_machine_load(NULL, &profile);
    *unmeasured = status == PI2_ERR_IO;
    if (status == PI2_OK) status = pi2_engine_predict(engine, profile, request, prediction);
    pi2_machine_free(profile);
    return status;
}

static pi2_status predict_answer(const pi2_engine *engine, const pi2_cli_generation *generation,
                                 pi2_prediction *prediction, bool *unmeasured) {
    const size_t before = generation->cached_count + generation->prompt_count, answer = generation->tokens.length;
    const pi2_prediction_request request = {
        .prompt_tokens = (uint32_t)generation->prompt_count, .position = (uint32_t)(before + answer / 2),
        .answer_tokens = answer > 1 ? (uint32_t)answer : 1, .routing_trace = routing_trace, .statistics = statistics,
        .fills_neurons = generation->is_cold};
    return predict(engine, &request, prediction, unmeasured);
}

/** Tokens a second of a prompt; with a cold one everything that stays in memory is read. */
static double prompt_speed(const pi2_prediction *prediction, double tokens, bool is_cold) {
    return is_cold ? 1e3 * tokens / prediction->time_to_first_token_ms : prediction->prefill.tokens_per_second;
}

/** Predicted and measured tokens a second; 0: nothing was measured. */
typedef struct comparison {
    double predicted_prompt, prompt, predicted_decode, decode;
} comparison;

static comparison compare(const pi2_prediction *prediction, const pi2_cli_generation *generation) {
    const double prompt = (double)generation->prompt_count, decoded = (double)pi2_cli_decoded_count(generation);
    comparison both = {.predicted_prompt = prompt_speed(prediction, prompt, generation->is_cold),
                       .predicted_decode = prediction->decode.tokens_per_second};
    if (generation->prompt_seconds > 0) both.prompt = prompt / generation->prompt_seconds;
    /* What was predicted is a pass for each token: right guesses save passes, and making them takes time beside. */
    const double seconds = generation->decode_seconds - pi2_cli_drafting_seconds(&generation->drafts);
    if (seconds > 0) both.decode = decoded / seconds / pi2_cli_tokens_per_pass(&generation->drafts);
    return both;
}

/** A number as its text says it. */
static double as_shown(double value, int digits) {
    char text[400];
    (void)snprintf(text, sizeof text, "%.*f", digits, value);
    return strtod(text, NULL);
}

double pi2_cli_percent_off(double predicted, double measured, int digits) {
    const double shown = as_shown(measured, digits);
    return shown > 0 ? 100 * (as_shown(predicted, digits) / shown - 1) : 100 * (predicted / measured - 1);
}

void pi2_cli_note_prediction(const pi2_engine *engine, const pi2_cli_generation *generation) {
    pi2_prediction prediction;
    bool unmeasured;
    const pi2_status status = predict_answer(engine, generation, &prediction, &unmeasured);
    if (unmeasured) {
        pi2_cli_note("predicted nothing: this machine was not measured yet ('powerinfer2 machine')");
        return;
    }
    if (status != PI2_OK) {
        pi2_cli_note("predicted nothing: %s", pi2_error_text());
        return;
    }
    if (prediction.expert_total) {
        pi2_cli_note("predicted %.1f %% of a token's experts in memory; routing %s",
                     100 * prediction.expert_hit_rate, prediction.routing);
    }
    if (prediction.neuron_units) {
        pi2_cli_note("predicted %.1f %% of a token's neurons in memory, %.0f reads; %s",
                     100 * prediction.neuron_hit_rate, prediction.neuron_reads, prediction.sparsity);
    }
    const comparison both = compare(&prediction, generation);
    if (both.prompt > 0) {
        pi2_cli_note("predicted %.1f tokens/s of prompt%s, measured %.1f: off by %+.0f %%", both.predicted_prompt,
                     generation->is_cold ? ", which reads what stays in memory too" : "", both.prompt,
                     pi2_cli_percent_off(both.predicted_prompt, both.prompt, 1));
    }
    if (both.decode > 0) {
        pi2_cli_note("predicted %.2f tokens/s of decoding (%.2f to %.2f; limited by: %s), measured %.2f%s: off by "
                     "%+.0f %%", both.predicted_decode, prediction.decode.low, prediction.decode.high,
                     pi2_bottleneck_name(prediction.bottleneck), both.decode,
                     generation->drafts.all.right ? " passes/s" : "",
                     pi2_cli_percent_off(both.predicted_decode, both.decode, 2));
    }
}

/** What was measured, and predicted / measured - 1; null where nothing was. */
static void set_measured(json_t *object, const char *measured_name, const char *error_name, double predicted,
                         double measured) {
    json_object_set_new(object, measured_name, measured > 0 ? pi2_cli_json_number(measured) : json_null());
    json_object_set_new(object, error_name,
                        measured > 0 ? pi2_cli_json_number(predicted / measured - 1) : json_null());
}

json_t *pi2_cli_predicted_json(const pi2_engine *engine, const pi2_cli_generation *generation) {
    pi2_prediction prediction;
    bool unmeasured;
    if (predict_answer(engine, generation, &prediction, &unmeasured) != PI2_OK) return json_null();
    const comparison both = compare(&prediction, generation);
    json_t *object = json_object();
    json_object_set_new(object, "decode", pi2_cli_json_number(prediction.decode.tokens_per_second));
    set_measured(object, "decode_measured", "decode_error", both.predicted_decode, both.decode);
    json_object_set_new(object, "prefill", pi2_cli_json_number(prediction.prefill.tokens_per_second));
    json_object_set_new(object, "prompt_is_cold", json_boolean(generation->is_cold));
    json_object_set_new(object, "prompt", pi2_cli_json_number(both.predicted_prompt));
    set_measured(object, "prompt_measured", "prompt_error", both.predicted_prompt, both.prompt);
    json_object_set_new(object, "time_to_first_token_ms", pi2_cli_json_number(prediction.time_to_first_token_ms));
    json_object_set_new(object, "bytes_per_token", json_integer((json_int_t)prediction.bytes_per_token));
    if (prediction.expert_total) {
        json_object_set_new(object, "expert_hit_rate", pi2_cli_json_number(prediction.expert_hit_rate));
    }
    if (prediction.neuron_units) {
        json_object_set_new(object, "neuron_hit_rate", pi2_cli_json_number(prediction.neuron_hit_rate));
        json_object_set_new(object, "neuron_reads", pi2_cli_json_number(prediction.neuron_reads));
    }
    return object;
}

void pi2_cli_add_predicted(json_t *result, const pi2_engine *engine, const pi2_cli_bench_case *bench) {
    pi2_prediction prediction;
    bool unmeasured;
    if ((bench->prompt != 0) == (bench->answer != 0)) return;
    const uint64_t answers = (uint64_t)bench->answer * bench->repetitions;
    const uint32_t before = bench->warm_tokens > bench->depth ? bench->warm_tokens : bench->depth;
    const pi2_prediction_request request = {
        .prompt_tokens = bench->prompt ? bench->prompt : before, .position = bench->depth + bench->answer / 2,
        .answer_tokens = bench->prompt ? 1 : answers < UINT32_MAX ? (uint32_t)answers : UINT32_MAX,
        .routing_trace = routing_trace, .statistics = statistics, .fills_neurons = bench->fills_neurons};
    if (predict(engine, &request, &prediction, &unmeasured) != PI2_OK) return;
    /* Tokens over time: the mean of the repetitions' rates would forget what a cold cache cost. */
    const double ns = json_number_value(json_object_get(result, "avg_ns"));
    const double actual = 1e9 * (bench->prompt + bench->answer) / (ns > 0 ? ns : 1);
    const double predicted = bench->prompt ? prompt_speed(&prediction, bench->prompt, bench->is_cold)
                                           : prediction.decode.tokens_per_second;
    json_object_set_new(result, "predicted_ts", pi2_cli_json_number(predicted));
    json_object_set_new(result, "predicted_error", pi2_cli_json_number(predicted / actual - 1));
    if (!bench->answer) return;
    json_object_set_new(result, "predicted_bytes_per_token", json_integer((json_int_t)prediction.bytes_per_token));
    if (prediction.expert_total || prediction.neuron_units) {
        json_object_set_new(result, "predicted_hit_rate", pi2_cli_json_number(
            prediction.expert_total ? prediction.expert_hit_rate : prediction.neuron_hit_rate));
    }
}
