/* dialect_ollama.c: answers as Ollama's /api/chat and /api/generate write them: a JSON object a line. */
#include <string.h>
#include <time.h>

#include "answering.h"

static json_t *frame(const pi2_reply *reply, bool is_done) {
    char date[32];
    const time_t created = (time_t)reply->created;
    struct tm parts;
    (void)gmtime_r(&created, &parts);
    (void)strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &parts);
    json_t *value = json_pack("{s:s, s:s, s:b}", "model", pi2_reply_model(reply), "created_at", date, "done", is_done);
    if (!is_done) return value;
    const pi2_job *job = &reply->job;
    const bool has_ended = job->stop == PI2_STOP_EOS || job->stop == PI2_STOP_WORD;
    const char *reason = reply->is_empty ? "load" : has_ended ? "stop" : "length";
    (void)json_object_update_new(
        value, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "done_reason", reason,
                         "total_duration", (json_int_t)(pi2_cli_now_ns() - reply->begin_ns), "load_duration",
                         (json_int_t)0, "prompt_eval_count", (json_int_t)job->prompt_count, "prompt_eval_duration",
                         (json_int_t)(1e6 * job->times.prompt_ms), "eval_count", (json_int_t)job->tokens.length,
                         "eval_duration", (json_int_t)(1e6 * job->times.decode_ms)));
    return value;
}

static json_t *text_json(const pi2_cli_text *text) { return json_stringn(text->data ? text->data : "", text->length); }

/** Ollama gives a call's arguments as an object. */
static json_t *call_json(const char *name, const char *arguments, size_t length) {
    json_t *object = json_loadb(arguments, length, 0, NULL);
    return json_pack("{s:{s:s, s:o}}", "function", "name", name, "arguments", object ? object : json_object());
}

static bool chat_part(pi2_reply *reply, const pi2_answer_part *part) {
    json_t *message = json_pack("{s:s, s:s}", "role", "assistant", "content", "");
    if (part->kind == PI2_PART_TOOL) {
        (void)json_object_set_new(message, "tool_calls",
                                  json_pack("[o]", call_json(part->name, part->text, part->length)));
    } else {
        (void)json_object_set_new(message, part->kind == PI2_PART_REASONING ? "thinking" : "content",
                                  json_stringn(part->text, part->length));
    }
    json_t *value = frame(reply, false);
    (void)json_object_set_new(value, "message", message);
    return pi2_reply_line(reply, value);
}

static bool chat_end(pi2_reply *reply) {
    json_t *value = frame(reply, true);
    (void)json_object_set_new(value, "message", json_pack("{s:s, s:s}", "role", "assistant", "content", ""));
    return pi2_reply_line(reply, value);
}

static json_t *chat_whole(pi2_reply *reply) {
    json_t *message = json_pack("{s:s, s:o}", "role", "assistant", "content", text_json(&reply->content));
    if (reply->reasoning.length) (void)json_object_set_new(message, "thinking", text_json(&reply->reasoning));
    json_t *calls = json_array();
    for (size_t i = 0; i < json_array_size(reply->tool_calls); i++) {
        const json_t *call = json_array_get(reply->tool_calls, i), *arguments = json_object_get(call, "arguments");
        (void)json_array_append_new(calls, call_json(json_string_value(json_object_get(call, "name")),
                                                     json_string_value(arguments), json_string_length(arguments)));
    }
    if (reply->tool_count) (void)json_object_set(message, "tool_calls", calls);
    json_decref(calls);
    json_t *value = frame(reply, true);
    (void)json_object_set_new(value, "message", message);
    return value;
}

static bool generate_part(pi2_reply *reply, const pi2_answer_part *part) {
    if (part->kind == PI2_PART_TOOL) return true; /* no tools are offered there */
    json_t *value = frame(reply, false);
    if (part->kind == PI2_PART_REASONING) (void)json_object_set_new(value, "response", json_string(""));
    (void)json_object_set_new(value, part->kind == PI2_PART_REASONING ? "thinking" : "response",
                              json_stringn(part->text, part->length));
    return pi2_reply_line(reply, value);
}

static json_t *generate_whole(pi2_reply *reply) {
    json_t *value = frame(reply, true);
    (void)json_object_set_new(value, "response", text_json(&reply->content));
    if (reply->reasoning.length) (void)json_object_set_new(value, "thinking", text_json(&reply->reasoning));
    return value;
}

static bool generate_end(pi2_reply *reply) {
    json_t *value = frame(reply, true);
    (void)json_object_set_new(value, "response", json_string(""));
    return pi2_reply_line(reply, value);
}

static bool ollama_fail(pi2_reply *reply, const char *text) {
    return pi2_reply_line(reply, pi2_error_json(PI2_API_OLLAMA, 0, "", text));
}

static const char stream_type[] = "application/x-ndjson";
const pi2_dialect pi2_dialect_ollama_chat = {stream_type, NULL,        NULL, chat_part,
                                             chat_end,    ollama_fail, NULL, chat_whole, false, false};
const pi2_dialect pi2_dialect_ollama_generate = {stream_type,  NULL,        NULL, generate_part,
                                                 generate_end, ollama_fail, NULL, generate_whole, false, false};
