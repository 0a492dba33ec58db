/* prediction_report.c: never measures by itself: a run shall not wait for that. */
#include "prediction_report.h"

#include "output.h"
#include "powerinfer2/plan.h"

static pi2_status predict(const pi2_engine *engine, uint32_t prompt, uint32_t position, pi2_prediction *prediction) {
    pi2_device_profile *profile = NULL;
    pi2_status status = pi2_device_load(NULL, &profile);
    if (status == PI2_OK) status = pi2_engine_predict(engine, profile, prompt, position, prediction);
    pi2_device_free(profile);
    return status;
}

static pi2_status predict_answer(const pi2_engine *engine, const pi2_cli_generation *generation,
                                 pi2_prediction *prediction) {
    const size_t position = generation->cached_count + generation->prompt_count + generation->tokens.length / 2;
    return predict(engine, (uint32_t)generation->prompt_count, (uint32_t)position, prediction);
}

void pi2_cli_note_prediction(const pi2_engine *engine, const pi2_cli_generation *generation) {
    pi2_prediction prediction;
    const size_t decoded = pi2_cli_decoded_count(generation);
    const pi2_status status = predict_answer(engine, generation, &prediction);
    if (status == PI2_ERR_IO) {
        pi2_cli_note("predicted nothing: this machine was not measured yet ('powerinfer2 device')");
    } else if (status != PI2_OK) {
        pi2_cli_note("predicted nothing: %s", pi2_error_text());
    } else if (decoded && generation->decode_seconds > 0) {
        /* What was predicted is a pass for each token: right guesses save passes. */
        const double actual = (double)decoded / generation->decode_seconds / pi2_cli_tokens_per_pass(generation);
        pi2_cli_note("predicted %.1f tokens/s of prompt, %.2f of decoding (%.2f to %.2f; limited by: %s), off by "
                     "%+.0f %%", prediction.prefill.tokens_per_second, prediction.decode.tokens_per_second,
                     prediction.decode.low, prediction.decode.high, pi2_bottleneck_name(prediction.bottleneck),
                     100 * (prediction.decode.tokens_per_second / actual - 1));
    }
}

json_t *pi2_cli_predicted_json(const pi2_engine *engine, const pi2_cli_generation *generation) {
    pi2_prediction prediction;
    if (predict_answer(engine, generation, &prediction) != PI2_OK) return json_null();
    json_t *object = json_object();
    json_object_set_new(object, "decode", pi2_cli_json_number(prediction.decode.tokens_per_second));
    json_object_set_new(object, "prefill", pi2_cli_json_number(prediction.prefill.tokens_per_second));
    return object;
}

void pi2_cli_add_predicted(json_t *result, const pi2_engine *engine, uint32_t prompt, uint32_t answer,
                           uint32_t depth) {
    pi2_prediction prediction;
    if ((prompt != 0) == (answer != 0)) return;
    if (predict(engine, prompt, depth + answer / 2, &prediction) != PI2_OK) return;
    const double actual = json_number_value(json_object_get(result, "avg_ts"));
    const double predicted = prompt ? prediction.prefill.tokens_per_second : prediction.decode.tokens_per_second;
    json_object_set_new(result, "predicted_ts", pi2_cli_json_number(predicted));
    json_object_set_new(result, "predicted_error", pi2_cli_json_number(predicted / actual - 1));
}
