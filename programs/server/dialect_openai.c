/* dialect_openai.c: answers as /v1/chat/completions and /v1/completions write them. */
#include <string.h>

#include "answering.h"

static const char stream_type[] = "text/event-stream; charset=utf-8", ping[] = ": ping\n\n";

static const char *finish_reason(const pi2_reply *reply) {
    if (reply->tool_count) return "tool_calls";
    return reply->job.stop == PI2_STOP_EOS || reply->job.stop == PI2_STOP_WORD ? "stop" : "length";
}

/** A token with its chance, as chat completions have it. */
static json_t *chance_json(const pi2_reply *reply, const pi2_token_chance *chance) {
    json_t *bytes = NULL, *text = pi2_token_text_json(reply, chance->token, &bytes);
    return json_pack("{s:o, s:o, s:o, s:i}", "token", text, "logprob", pi2_cli_json_number((double)chance->logprob),
                     "bytes", bytes, "id", (int)chance->token);
}

/** Some of the chances that were not told yet: the mutex is held while they are copied, not while they are written. */
typedef struct chance_rows {
    pi2_token_chance chances[16 * (1 + PI2_JOB_MOST_TOP)]; /* [count][1 + the job's top_count] */
    size_t count;
} chance_rows;

static bool next_chances(pi2_reply *reply, chance_rows *some) {
    (void)pthread_mutex_lock(&reply->job.mutex);
    some->count = pi2_job_take_chances(&reply->job, some->chances, 16);
    (void)pthread_mutex_unlock(&reply->job.mutex);
    return some->count > 0;
}

/** Chances of the tokens that were not told yet, {"content": [...]}; null where none are wanted. */
static json_t *take_chances(pi2_reply *reply) {
    pi2_job *job = &reply->job;
    if (!job->wants_chances) return json_null();
    json_t *content = json_array();
    chance_rows some;
    while (next_chances(reply, &some)) {
        for (size_t row = 0; row < some.count; row++) {
            const pi2_token_chance *chances = some.chances + row * (1 + job->top_count);
            json_t *entry = chance_json(reply, chances), *top = json_array();
            for (uint32_t i = 1; i <= job->top_count; i++) {
                (void)json_array_append_new(top, chance_json(reply, &chances[i]));
            }
            (void)json_object_set_new(entry, "top_logprobs", top);
            (void)json_array_append_new(content, entry);
        }
    }
    return json_pack("{s:o}", "content", content);
}

/** The same as completions have it: arrays beside each other. */
static json_t *take_plain_chances(pi2_reply *reply) {
    pi2_job *job = &reply->job;
    if (!job->wants_chances) return json_null();
    json_t *tokens = json_array(), *logprobs = json_array(), *tops = json_array();
    chance_rows some;
    while (next_chances(reply, &some)) {
        for (size_t row = 0; row < some.count; row++) {
            const pi2_token_chance *chances = some.chances + row * (1 + job->top_count);
            (void)json_array_append_new(tokens, pi2_token_text_json(reply, chances->token, NULL));
            (void)json_array_append_new(logprobs, pi2_cli_json_number((double)chances->logprob));
            json_t *top = json_object();
            for (uint32_t i = 1; i <= job->top_count; i++) {
                json_t *text = pi2_token_text_json(reply, chances[i].token, NULL);
                (void)json_object_set_new(top, json_string_value(text),
                                          pi2_cli_json_number((double)chances[i].logprob));
                json_decref(text);
            }
            (void)json_array_append_new(tops, top);
        }
    }
    return json_pack("{s:o, s:o, s:o}", "tokens", tokens, "token_logprobs", logprobs, "top_logprobs", tops);
}

static json_t *frame(const pi2_reply *reply, const char *object, json_t *choices) {
    return json_pack("{s:s, s:s, s:I, s:s, s:s, s:o}", "id", reply->id, "object", object, "created",
                     (json_int_t)reply->created, "model", pi2_reply_model(reply), "system_fingerprint",
                     "powerinfer2-" PI2_VERSION, "choices", choices);
}

/* ---- chat ---- */

static bool chat_chunk(pi2_reply *reply, json_t *delta, const char *reason) {
    json_t *choice = json_pack("{s:I, s:o, s:s?}", "index", (json_int_t)reply->index, "delta", delta,
                               "finish_reason", reason);
    if (reply->job.wants_chances) (void)json_object_set_new(choice, "logprobs", take_chances(reply));
    return pi2_reply_event(reply, NULL, frame(reply, "chat.completion.chunk", json_pack("[o]", choice)));
}

static bool chat_begin(pi2_reply *reply) {
    return chat_chunk(reply, json_pack("{s:s, s:s}", "role", "assistant", "content", ""), NULL);
}

static bool chat_part(pi2_reply *reply, const pi2_answer_part *part) {
    json_t *text = json_stringn(part->text, part->length);
    if (part->kind != PI2_PART_TOOL) {
        const char *name = part->kind == PI2_PART_REASONING ? "reasoning_content" : "content";
        return chat_chunk(reply, json_pack("{s:o}", name, text), NULL);
    }
    char id[64];
    pi2_exchange_id(reply->exchange, "call_", id);
    return chat_chunk(reply, json_pack("{s:[{s:i, s:s, s:s, s:{s:s, s:o}}]}", "tool_calls", "index",
                                       (int)reply->tool_count, "id", id, "type", "function", "function", "name",
                                       part->name, "arguments", text), NULL);
}

/** Usage comes in a chunk of its own where it was asked for, and timings with it, else with the last one. */
static bool end_stream(pi2_reply *reply, json_t *last, const char *object) {
    const pi2_reply *first = pi2_reply_first(reply);
    const bool is_last = pi2_reply_all_ended(reply);
    if (is_last && !first->includes_usage) (void)json_object_set_new(last, "timings", pi2_reply_timings(first));
    if (!pi2_reply_event(reply, NULL, last)) return false;
    if (is_last && first->includes_usage) {
        json_t *usage = frame(reply, object, json_array());
        (void)json_object_set_new(usage, "usage", pi2_reply_usage(first));
        (void)json_object_set_new(usage, "timings", pi2_reply_timings(first));
        if (!pi2_reply_event(reply, NULL, usage)) return false;
    }
    return !is_last || pi2_cli_text_add(&reply->out, "data: [DONE]\n\n", 14);
}

static bool chat_progress(pi2_reply *reply, json_t *progress) {
    json_t *choice = json_pack("{s:i, s:{}, s:n}", "index", 0, "delta", "finish_reason");
    json_t *value = frame(reply, "chat.completion.chunk", json_pack("[o]", choice));
    (void)json_object_set_new(value, "prompt_progress", progress);
    return pi2_reply_event(reply, NULL, value);
}

static bool chat_end(pi2_reply *reply) {
    json_t *choice = json_pack("{s:I, s:{}, s:s}", "index", (json_int_t)reply->index, "delta", "finish_reason",
                               finish_reason(reply));
    if (reply->job.wants_chances) (void)json_object_set_new(choice, "logprobs", take_chances(reply));
    return end_stream(reply, frame(reply, "chat.completion.chunk", json_pack("[o]", choice)), "chat.completion.chunk");
}

static bool openai_fail(pi2_reply *reply, const char *text) {
    unsigned status;
    const char *type = pi2_reply_error_type(reply, &status);
    return pi2_reply_event(reply, NULL, pi2_error_json(PI2_API_OPENAI, status, type, text));
}

static json_t *chat_choice(pi2_reply *reply) {
    json_t *message = json_pack("{s:s, s:o}", "role", "assistant", "content",
                                reply->tool_count && !reply->content.length
                                    ? json_null() : json_stringn(reply->content.data, reply->content.length));
    if (reply->reasoning.length) {
        (void)json_object_set_new(message, "reasoning_content",
                                  json_stringn(reply->reasoning.data, reply->reasoning.length));
    }
    json_t *calls = json_array();
    for (size_t i = 0; i < json_array_size(reply->tool_calls); i++) {
        const json_t *call = json_array_get(reply->tool_calls, i);
        (void)json_array_append_new(
            calls, json_pack("{s:O, s:s, s:{s:O, s:O}}", "id", json_object_get(call, "id"), "type", "function",
                             "function", "name", json_object_get(call, "name"), "arguments",
                             json_object_get(call, "arguments")));
    }
    if (reply->tool_count) (void)json_object_set(message, "tool_calls", calls);
    json_decref(calls);
    return json_pack("{s:I, s:o, s:s, s:o}", "index", (json_int_t)reply->index, "message", message, "finish_reason",
                     finish_reason(reply), "logprobs", take_chances(reply));
}

static json_t *chat_whole(pi2_reply *reply) {
    json_t *choices = json_array();
    for (pi2_reply *choice = reply; choice; choice = choice->next) {
        (void)json_array_append_new(choices, chat_choice(choice));
    }
    json_t *whole = frame(reply, "chat.completion", choices);
    (void)json_object_set_new(whole, "usage", pi2_reply_usage(reply));
    (void)json_object_set_new(whole, "timings", pi2_reply_timings(reply));
    return whole;
}

const pi2_dialect pi2_dialect_chat = {stream_type, ping,        chat_begin,    chat_part,
                                      chat_end,    openai_fail, chat_progress, chat_whole, true, false};

/* ---- plain completions ---- */

static json_t *plain_choice(pi2_reply *reply, json_t *text, const char *reason) {
    return json_pack("{s:I, s:o, s:s?, s:o}", "index", (json_int_t)reply->index, "text", text, "finish_reason", reason,
                     "logprobs", take_plain_chances(reply));
}

static bool plain_part(pi2_reply *reply, const pi2_answer_part *part) {
    json_t *choice = plain_choice(reply, json_stringn(part->text, part->length), NULL);
    return pi2_reply_event(reply, NULL, frame(reply, "text_completion", json_pack("[o]", choice)));
}

static bool plain_end(pi2_reply *reply) {
    json_t *choice = plain_choice(reply, json_string(""), finish_reason(reply));
    return end_stream(reply, frame(reply, "text_completion", json_pack("[o]", choice)), "text_completion");
}

static json_t *plain_whole(pi2_reply *reply) {
    json_t *choices = json_array();
    for (pi2_reply *choice = reply; choice; choice = choice->next) {
        json_t *text = json_stringn(choice->content.data, choice->content.length);
        (void)json_array_append_new(choices, plain_choice(choice, text, finish_reason(choice)));
    }
    json_t *whole = frame(reply, "text_completion", choices);
    (void)json_object_set_new(whole, "usage", pi2_reply_usage(reply));
    (void)json_object_set_new(whole, "timings", pi2_reply_timings(reply));
    return whole;
}

const pi2_dialect pi2_dialect_completion = {stream_type, ping,        NULL, plain_part,
                                            plain_end,   openai_fail, NULL, plain_whole, true, true};

/* ---- llama.cpp's own /completion ---- */

/** Chances of the tokens that were not told yet, as "completion_probabilities"; nothing where none are wanted. */
static void set_probabilities(pi2_reply *reply, json_t *value) {
    if (!reply->job.wants_chances) return;
    json_t *chances = take_chances(reply);
    (void)json_object_set(value, "completion_probabilities", json_object_get(chances, "content"));
    json_decref(chances);
}

static bool llama_part(pi2_reply *reply, const pi2_answer_part *part) {
    json_t *value = json_pack("{s:o, s:b}", "content", json_stringn(part->text, part->length), "stop", 0);
    set_probabilities(reply, value);
    return pi2_reply_event(reply, NULL, value);
}

static json_t *llama_end_json(pi2_reply *reply, json_t *content) {
    const pi2_job *job = &reply->job;
    const bool is_word = job->stop == PI2_STOP_WORD;
    const char *kind = is_word ? "word" : job->stop == PI2_STOP_EOS ? "eos" : "limit";
    const char *word = is_word ? job->stop_words.items[job->stop_word] : "";
    json_t *value = json_pack("{s:o, s:b, s:s, s:s, s:s, s:I, s:I, s:I, s:b, s:I, s:o}", "content", content, "stop", 1,
                              "stop_type", kind, "stopping_word", word, "model", pi2_reply_model(reply),
                              "tokens_predicted", (json_int_t)job->tokens.length, "tokens_evaluated",
                              (json_int_t)job->prompt_count, "tokens_cached", (json_int_t)job->cached_count,
                              "truncated", 0, "seed", (json_int_t)job->seed, "timings", pi2_reply_timings(reply));
    set_probabilities(reply, value);
    return value;
}

static bool llama_progress(pi2_reply *reply, json_t *progress) {
    return pi2_reply_event(reply, NULL, json_pack("{s:s, s:b, s:o}", "content", "", "stop", 0, "prompt_progress",
                                                  progress));
}

static bool llama_end(pi2_reply *reply) { return pi2_reply_event(reply, NULL, llama_end_json(reply, json_string(""))); }

static json_t *llama_whole(pi2_reply *reply) {
    return llama_end_json(reply, json_stringn(reply->content.data, reply->content.length));
}

const pi2_dialect pi2_dialect_llama = {stream_type, ping,        NULL,           llama_part,
                                       llama_end,   openai_fail, llama_progress, llama_whole, false, false};
