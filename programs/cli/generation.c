/* generation.c: the token loop and the report. */
#include "generation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"
#include "prediction_report.h"
#include "powerinfer2/prompt_cache.h"
#include "powerinfer2/sizes.h"

bool pi2_cli_tokens_add(pi2_cli_tokens *tokens, const int32_t *data, size_t length) {
    int32_t *grown = pi2_cli_grow(tokens->data, tokens->length, length, sizeof *data, &tokens->capacity);
    if (!grown) return false;
    tokens->data = grown;
    if (length) memcpy(grown + tokens->length, data, length * sizeof *data);
    tokens->length += length;
    return true;
}

void pi2_cli_generation_free(pi2_cli_generation *generation) {
    free(generation->text.data);
    free(generation->tokens.data);
    pi2_cli_token_times_free(&generation->times);
    *generation = (pi2_cli_generation){0};
}

/** State of one answer while it is made. */
typedef struct answer {
    pi2_engine *engine;
    const pi2_cli_generation_options *options;
    pi2_cli_generation *result;
    uint64_t prompt_begin_ns, first_ns, last_ns; /* of the prompt, the first token, the last one */
    pi2_engine_counters at_first, at_last;
    bool out_of_memory; /* here, not in the library: its error text tells nothing of it */
} answer;

/** Counts and times a token, when it was picked. */
static bool take_token(void *user, int32_t token) {
    answer *state = user;
    pi2_cli_generation *result = state->result;
    const uint64_t now_ns = pi2_cli_now_ns();
    if (result->tokens.length) pi2_cli_token_times_add(&result->times, now_ns - state->last_ns);
    state->last_ns = now_ns;
    pi2_engine_count(state->engine, &state->at_last);
    if (result->tokens.length == 0) {
        pi2_cli_clear_progress();
        state->first_ns = now_ns;
        state->at_first = state->at_last;
        result->first_token_seconds = pi2_cli_seconds_since_start();
        result->prompt_seconds = (double)(now_ns - state->prompt_begin_ns) / 1e9;
    }
    state->out_of_memory = !pi2_cli_tokens_add(&result->tokens, &token, 1);
    return !state->out_of_memory;
}

static bool take_text(void *user, const char *text, size_t length) {
    answer *state = user;
    state->out_of_memory = !pi2_cli_text_add(&state->result->text, text, length);
    return !state->out_of_memory && (!state->options->show || state->options->show(text, length));
}

/** Room, prompt and tokens. */
static pi2_status generate(pi2_session *session, answer *state, const int32_t *prompt, size_t prompt_count) {
    pi2_cli_generation *result = state->result;
    const uint32_t context = pi2_engine_get_report(state->engine)->context_tokens;
    const int64_t limit = state->options->limit;
    state->out_of_memory = !pi2_cli_text_add(&result->text, "", 0) ||
        !pi2_cli_token_times_reserve(&result->times, limit >= 0 && limit < context ? (uint64_t)limit : context);
    if (state->out_of_memory) return PI2_ERR_MEMORY;
    const pi2_cli_texts *words = state->options->stop_words;
    const pi2_answer_options options = {
        .limit = limit, .special = state->options->print_special, .stop_words = words->items,
        .stop_word_count = words->count, .user = state, .token = take_token, .text = take_text };
    pi2_answer_result made;
    state->prompt_begin_ns = state->last_ns = pi2_cli_now_ns();
    const pi2_status status = pi2_generate(session, prompt, prompt_count, &options, &made);
    pi2_cli_clear_progress();
    result->stop = made.stop;
    result->prompt_count = made.prompt_count;
    if (result->tokens.length) {
        result->decode_seconds = (double)(state->last_ns - state->first_ns) / 1e9;
        pi2_counters_between(&state->at_first, &state->at_last, &result->decode);
    } else {
        result->prompt_seconds = (double)(pi2_cli_now_ns() - state->prompt_begin_ns) / 1e9;
    }
    return status == PI2_OK && state->out_of_memory ? PI2_ERR_MEMORY : status;
}

int pi2_cli_generate(pi2_engine *engine, pi2_session *session, const int32_t *prompt, size_t prompt_count,
                     const pi2_cli_generation_options *options, pi2_cli_generation *result) {
    *result = (pi2_cli_generation){0};
    result->cached_count = pi2_session_recall(session, prompt, prompt_count, &result->recalled_count);
    result->prompt_wanted = prompt_count - result->cached_count;
    answer state = {.engine = engine, .options = options, .result = result};
    pi2_engine_counters before, after;
    pi2_cli_drafts drafts;
    pi2_engine_count(engine, &before);
    pi2_cli_count_drafts(session, &drafts);
    const pi2_status status = generate(session, &state, prompt, prompt_count);
    pi2_engine_count(engine, &after);
    pi2_counters_between(&before, &after, &result->total);
    result->is_cold = before.bytes_needed == 0 && result->total.reads > 0;
    pi2_cli_count_drafts(session, &result->drafts);
    pi2_cli_drafts_since(&drafts, &result->drafts);
    result->latency = pi2_cli_token_percentiles(&result->times);
    if (status == PI2_OK) return PI2_EXIT_OK;
    if (!state.out_of_memory) return pi2_cli_failed(status);
    (void)pi2_cli_usage_error("the machine has no memory left for the answer's text");
    return PI2_EXIT_MEMORY;
}

size_t pi2_cli_decoded_count(const pi2_cli_generation *generation) {
    return generation->tokens.length > 1 ? generation->tokens.length - 1 : 0;
}

double pi2_cli_bytes_per_token(const pi2_cli_generation *generation) {
    const size_t count = pi2_cli_decoded_count(generation);
    return count ? (double)generation->decode.bytes_read / (double)count : (double)NAN;
}

double pi2_cli_hit_rate(const pi2_engine_counters *counters) {
    if (!counters->bytes_needed) return (double)NAN;
    return 1.0 - (double)counters->bytes_read / (double)counters->bytes_needed;
}

void pi2_cli_print_devices(const pi2_engine *engine, const pi2_engine_counters *total) {
    const pi2_engine_report *report = pi2_engine_get_report(engine);
    if (report->device_count == 0) return;
    const double share = total->bytes_needed ? 100.0 * (double)total->device_bytes / (double)total->bytes_needed : 0;
    pi2_cli_note("devices  %.0f %% of the weights' bytes in %.1f s: %s%s", share, (double)total->device_ns / 1e9,
                 report->devices, report->devices_differ ? ": the text is approximate" : "");
    pi2_cli_note("         theirs by now: %.0f %% of each layer's FFN with one token, %.0f %% with %u",
                 100 * pi2_engine_device_share(engine, 1), 100 * pi2_engine_device_share(engine, report->batch_tokens),
                 report->batch_tokens);
}

/* Prompt and answer together: what was read, and how much of it computing had to wait for. */
static void print_waiting(const pi2_engine_counters *total) {
    char read[PI2_SIZE_TEXT_BYTES], needed[PI2_SIZE_TEXT_BYTES], wasted[PI2_SIZE_TEXT_BYTES], computed[48] = "";
    if (total->reads == 0) return;
    if (total->compute_ns) {
        (void)snprintf(computed, sizeof computed, "; %.2f s of computing", (double)total->compute_ns / 1e9);
    }
    pi2_cli_note("reads    %llu of %s for %s of weights, waited for %.2f s%s", (unsigned long long)total->reads,
                 pi2_format_size(total->bytes_read, read), pi2_format_size(total->bytes_needed, needed),
                 (double)total->stall_ns / 1e9, computed);
    if (total->hot_experts && total->expert_uses) {
        pi2_cli_note("hot      %llu experts, %.1f %% of uses found them; %llu were promoted, %llu demoted",
                     (unsigned long long)total->hot_experts,
                     100.0 * (double)total->hot_hits / (double)total->expert_uses,
                     (unsigned long long)total->hot_promotions, (unsigned long long)total->hot_demotions);
    }
    if (total->neuron_uses) {
        pi2_cli_note("neurons  %llu fired, %.1f %% of them were in memory", (unsigned long long)total->neuron_uses,
                     100.0 * (double)total->neuron_hits / (double)total->neuron_uses);
    }
    if (total->prefetched == 0) return;
    pi2_cli_note("ahead    %llu experts (%s) fetched, %s used, %s wasted; %.0f %% of those foretold were used",
                 (unsigned long long)total->prefetched, pi2_format_size(total->prefetched_bytes, read),
                 pi2_format_size(total->prefetch_kept_bytes, needed),
                 pi2_format_size(total->prefetch_wasted_bytes, wasted),
                 100.0 * (double)total->experts_foretold_used / (double)total->experts_foretold);
}

/* Only where memory was short. */
static void print_pressure(const pi2_engine_counters *total, const pi2_engine_report *report) {
    char given[PI2_SIZE_TEXT_BYTES], taken[PI2_SIZE_TEXT_BYTES], away[PI2_SIZE_TEXT_BYTES];
    if (total->give_backs == 0 && total->bytes_away == 0) return;
    pi2_cli_note("pressure %s of weights given back in %llu steps, %s taken again, %s away now (watched: %s)",
                 pi2_format_size(total->bytes_given_back, given), (unsigned long long)total->give_backs,
                 pi2_format_size(total->bytes_taken_again, taken), pi2_format_size(total->bytes_away, away),
                 report->relief_description);
}

/** What a predictor named, and whether the text is another than the model's own. */
static void print_predictor(const pi2_engine_report *report, const pi2_engine_counters *total) {
    char bytes[PI2_SIZE_TEXT_BYTES], share[96] = "by its thresholds";
    if (!report->predictor) return;
    if (!report->leaves_out) {
        pi2_cli_note("foretold by %s (%s), which says what to read early: no text depends on it", report->predictor,
                     pi2_format_size(report->predictor_bytes, bytes));
        return;
    }
    if (report->left_out_least < report->left_out_most) {
        (void)snprintf(share, sizeof share, "%.4g %% of the neurons, %.3g to %.3g %% of a layer's",
                       100 * report->left_out, 100 * report->left_out_least, 100 * report->left_out_most);
    } else if (report->left_out >= 0) {
        (void)snprintf(share, sizeof share, "%.4g %% of each layer's neurons", 100 * report->left_out);
    }
    pi2_cli_note("left out %s, by %s (%s): the text is approximate", share, report->predictor,
                 pi2_format_size(report->predictor_bytes, bytes));
    if (total->neurons_predicted == 0) return;
    pi2_cli_note("named    %llu neurons, %.1f %% of them not zero; predicting took %.3f s",
                 (unsigned long long)total->neurons_predicted,
                 100.0 * (double)total->neurons_predicted_used / (double)total->neurons_predicted,
                 (double)total->predict_ns / 1e9);
}

void pi2_cli_print_report(const pi2_engine *engine, const pi2_cli_generation *generation, uint32_t seed) {
    const pi2_engine_report *report = pi2_engine_get_report(engine);
    char peak[PI2_SIZE_TEXT_BYTES], budget[PI2_SIZE_TEXT_BYTES], read[PI2_SIZE_TEXT_BYTES];
    const size_t decoded = pi2_cli_decoded_count(generation);
    const double prompt_speed = (double)generation->prompt_count / generation->prompt_seconds;
    if (generation->prompt_count < generation->prompt_wanted) {
        pi2_cli_note("prompt   %zu of %zu tokens, %.1f tokens/s (interrupted)", generation->prompt_count,
                     generation->prompt_wanted, generation->prompt_seconds > 0 ? prompt_speed : 0.0);
    } else if (generation->prompt_seconds > 0) {
        pi2_cli_note("prompt   %zu tokens, %.1f tokens/s", generation->prompt_count, prompt_speed);
    }
    if (generation->recalled_count) {
        pi2_cli_note("cache    %zu of the prompt's %zu tokens were recalled from the prompt cache",
                     generation->recalled_count, generation->cached_count + generation->prompt_wanted);
    }
    if (decoded && generation->decode_seconds > 0) {
        pi2_cli_note("decode   %zu tokens, %.2f tokens/s (ended by: %s)", generation->tokens.length,
                     (double)decoded / generation->decode_seconds, pi2_stop_name(generation->stop));
    } else {
        pi2_cli_note("decode   %zu tokens (ended by: %s)", generation->tokens.length,
                     pi2_stop_name(generation->stop));
    }
    if (generation->tokens.length) {
        pi2_cli_note("first token after %.2f s", generation->first_token_seconds);
    }
    if (decoded) {
        pi2_cli_note("latency  P50 %.2f, P90 %.2f, P99 %.2f ms from token to token", generation->latency.p50,
                     generation->latency.p90, generation->latency.p99);
    }
    pi2_cli_note("memory   peak %s of %s (%s)", pi2_format_size(pi2_peak_memory_bytes(), peak),
                 pi2_format_size(report->budget_bytes, budget), report->budget_reason);
    if (decoded) {
        const double hit_rate = pi2_cli_hit_rate(&generation->decode);
        const bool reads = *report->read_description != '\0';
        pi2_cli_note("weights  %s read per token, hit rate %.1f %% (%s)",
                     pi2_format_size((uint64_t)pi2_cli_bytes_per_token(generation), read),
                     100.0 * (hit_rate > 0 ? hit_rate : 0.0),
                     reads ? report->read_description : "all weights are in memory");
    }
    print_waiting(&generation->total);
    pi2_cli_print_devices(engine, &generation->total);
    pi2_cli_print_drafts(&generation->drafts);
    print_pressure(&generation->total, report);
    print_predictor(report, &generation->total);
    pi2_cli_note_prediction(engine, generation);
    if (strcmp(report->ffn_activation, report->own_ffn_activation) != 0) {
        pi2_cli_note("ffn      %s (%s otherwise has %s)", report->ffn_activation, report->architecture,
                     report->own_ffn_activation);
    }
    pi2_cli_note("context  %u tokens, seed %u", (unsigned)report->context_tokens, (unsigned)seed);
}
