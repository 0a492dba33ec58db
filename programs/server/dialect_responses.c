/* dialect_responses.c: answers as /v1/responses writes them: items of reasoning, messages and calls of functions. */
#include <stdlib.h>
#include <string.h>

#include "answering.h"

static json_t *text_json(const pi2_cli_text *text) { return json_stringn(text->data ? text->data : "", text->length); }

static json_t *part_json(pi2_part_kind kind, json_t *text) {
    if (kind == PI2_PART_REASONING) return json_pack("{s:s, s:o}", "type", "reasoning_text", "text", text);
    return json_pack("{s:s, s:o, s:[], s:[]}", "type", "output_text", "text", text, "annotations", "logprobs");
}

/** A message, or a thought; part NULL: it has only begun. */
static json_t *item_json(pi2_part_kind kind, const char *id, const char *status, json_t *part) {
    json_t *content = json_array();
    if (part) (void)json_array_append_new(content, part);
    if (kind == PI2_PART_REASONING) {
        return json_pack("{s:s, s:s, s:s, s:[], s:o}", "type", "reasoning", "id", id, "status", status, "summary",
                         "content", content);
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:o}", "type", "message", "id", id, "status", status, "role", "assistant",
                     "content", content);
}

static json_t *call_json(const char *id, const char *call_id, const char *name, const char *status, json_t *arguments) {
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "type", "function_call", "id", id, "call_id", call_id, "name",
                     name, "status", status, "arguments", arguments);
}

static bool is_incomplete(const pi2_reply *reply) {
    return !reply->tool_count && (reply->job.stop == PI2_STOP_LIMIT || reply->job.stop == PI2_STOP_CONTEXT);
}

static json_t *usage_json(const pi2_reply *reply) {
    const json_int_t input = (json_int_t)reply->job.prompt_count, output = (json_int_t)reply->job.tokens.length;
    return json_pack("{s:I, s:{s:I}, s:I, s:{s:I}, s:I}", "input_tokens", input, "input_tokens_details",
                     "cached_tokens", (json_int_t)reply->job.cached_count, "output_tokens", output,
                     "output_tokens_details", "reasoning_tokens", (json_int_t)0, "total_tokens", input + output);
}

/** The response; output is taken over. */
static json_t *response_json(const pi2_reply *reply, const char *status, json_t *output, bool has_ended) {
    const pi2_job *job = &reply->job;
    json_t *value = json_pack("{s:s, s:s, s:I, s:s, s:s, s:o, s:n, s:n, s:n, s:{}}", "id", reply->id, "object",
                              "response", "created_at", (json_int_t)reply->created, "status", status, "model",
                              pi2_reply_model(reply), "output", output, "error", "incomplete_details",
                              "previous_response_id", "metadata");
    (void)json_object_update_new(value, json_pack("{s:f, s:f, s:b, s:s, s:[], s:b, s:s, s:o}", "temperature",
                                                  (double)job->sampling.temperature, "top_p",
                                                  (double)job->sampling.top_p, "parallel_tool_calls",
                                                  !reply->takes_one_call, "tool_choice", "auto", "tools", "store", 0,
                                                  "truncation", "disabled", "usage",
                                                  has_ended ? usage_json(reply) : json_null()));
    if (has_ended && is_incomplete(reply)) {
        (void)json_object_set_new(value, "incomplete_details", json_pack("{s:s}", "reason", "max_output_tokens"));
    }
    if (has_ended) (void)json_object_set_new(value, "timings", pi2_reply_timings(reply));
    return value;
}

static const char *final_status(const pi2_reply *reply) { return is_incomplete(reply) ? "incomplete" : "completed"; }

/* ---- streams ---- */

/** Adds an event; value is taken over. */
static bool add_event(pi2_reply *reply, const char *type, json_t *value) {
    (void)json_object_set_new(value, "type", json_string(type));
    (void)json_object_set_new(value, "sequence_number", json_integer((json_int_t)reply->event_count++));
    return pi2_reply_event(reply, type, value);
}

static json_t *place_json(const pi2_reply *reply) {
    return json_pack("{s:s, s:I, s:i}", "item_id", reply->item_id, "output_index", (json_int_t)reply->block_count,
                     "content_index", 0);
}

static bool add_item_event(pi2_reply *reply, const char *type, json_t *item) {
    const json_int_t index = (json_int_t)reply->block_count;
    return add_event(reply, type, json_pack("{s:I, s:o}", "output_index", index, "item", item));
}

static bool responses_begin(pi2_reply *reply) {
    reply->items = json_array();
    return reply->items &&
           add_event(reply, "response.created",
                     json_pack("{s:o}", "response", response_json(reply, "in_progress", json_array(), false))) &&
           add_event(reply, "response.in_progress",
                     json_pack("{s:o}", "response", response_json(reply, "in_progress", json_array(), false)));
}

/** An item is whole: it is told once more, and kept for the response at the end. */
static bool end_item(pi2_reply *reply, json_t *item) {
    const bool is_told = add_item_event(reply, "response.output_item.done", json_incref(item));
    const bool is_kept = json_array_append_new(reply->items, item) == 0;
    reply->block_count++;
    return is_told && is_kept;
}

static bool close_block(pi2_reply *reply) {
    if (reply->open_block < 0) return true;
    const pi2_part_kind kind = (pi2_part_kind)reply->open_block;
    const bool is_thought = kind == PI2_PART_REASONING;
    json_t *done = place_json(reply), *part_done = place_json(reply), *text = text_json(&reply->content);
    (void)json_object_set(done, "text", text);
    if (!is_thought) (void)json_object_set_new(done, "logprobs", json_array());
    (void)json_object_set_new(part_done, "part", part_json(kind, json_incref(text)));
    reply->open_block = -1;
    reply->content.length = 0;
    const bool is_good = add_event(reply, is_thought ? "response.reasoning_text.done" : "response.output_text.done",
                                   done);
    return add_event(reply, "response.content_part.done", part_done) && is_good &&
           end_item(reply, item_json(kind, reply->item_id, "completed", part_json(kind, text)));
}

static bool open_block(pi2_reply *reply, pi2_part_kind kind) {
    if (!close_block(reply)) return false;
    pi2_exchange_id(reply->exchange, kind == PI2_PART_REASONING ? "rs_" : "msg_", reply->item_id);
    reply->open_block = (int)kind;
    json_t *part = place_json(reply);
    (void)json_object_set_new(part, "part", part_json(kind, json_string("")));
    const bool is_good = add_item_event(reply, "response.output_item.added",
                                        item_json(kind, reply->item_id, "in_progress", NULL));
    return add_event(reply, "response.content_part.added", part) && is_good;
}

static bool add_call(pi2_reply *reply, const pi2_answer_part *part) {
    char call_id[64];
    if (!close_block(reply)) return false;
    pi2_exchange_id(reply->exchange, "fc_", reply->item_id);
    pi2_exchange_id(reply->exchange, "call_", call_id);
    json_t *arguments = json_stringn(part->text, part->length), *delta = place_json(reply), *done = place_json(reply);
    (void)json_object_del(delta, "content_index");
    (void)json_object_del(done, "content_index");
    (void)json_object_set(delta, "delta", arguments);
    (void)json_object_set(done, "arguments", arguments);
    (void)json_object_set_new(done, "name", json_string(part->name));
    bool is_good = add_item_event(reply, "response.output_item.added",
                                  call_json(reply->item_id, call_id, part->name, "in_progress", json_string("")));
    is_good = add_event(reply, "response.function_call_arguments.delta", delta) && is_good;
    is_good = add_event(reply, "response.function_call_arguments.done", done) && is_good;
    return end_item(reply, call_json(reply->item_id, call_id, part->name, "completed", arguments)) && is_good;
}

static bool responses_part(pi2_reply *reply, const pi2_answer_part *part) {
    if (part->kind == PI2_PART_TOOL) return add_call(reply, part);
    if (reply->open_block != (int)part->kind && !open_block(reply, part->kind)) return false;
    const bool is_thought = part->kind == PI2_PART_REASONING;
    json_t *delta = place_json(reply);
    (void)json_object_set_new(delta, "delta", json_stringn(part->text, part->length));
    if (!is_thought) (void)json_object_set_new(delta, "logprobs", json_array());
    return pi2_cli_text_add(&reply->content, part->text, part->length) &&
           add_event(reply, is_thought ? "response.reasoning_text.delta" : "response.output_text.delta", delta);
}

static bool responses_end(pi2_reply *reply) {
    if (!close_block(reply)) return false;
    json_t *response = response_json(reply, final_status(reply), json_incref(reply->items), true);
    return add_event(reply, is_incomplete(reply) ? "response.incomplete" : "response.completed",
                     json_pack("{s:o}", "response", response));
}

static bool responses_fail(pi2_reply *reply, const char *text) {
    json_t *response = response_json(reply, "failed", json_incref(reply->items), false);
    (void)json_object_set_new(response, "error", json_pack("{s:s, s:s}", "code", "server_error", "message", text));
    return add_event(reply, "response.failed", json_pack("{s:o}", "response", response));
}

/* ---- whole ---- */

static void add_whole(const pi2_reply *reply, json_t *output, pi2_part_kind kind, const pi2_cli_text *text) {
    char id[64];
    pi2_exchange_id(reply->exchange, kind == PI2_PART_REASONING ? "rs_" : "msg_", id);
    (void)json_array_append_new(output, item_json(kind, id, final_status(reply), part_json(kind, text_json(text))));
}

static json_t *responses_whole(pi2_reply *reply) {
    json_t *output = json_array();
    if (reply->reasoning.length) add_whole(reply, output, PI2_PART_REASONING, &reply->reasoning);
    if (reply->content.length || !reply->tool_count) add_whole(reply, output, PI2_PART_CONTENT, &reply->content);
    for (size_t i = 0; i < json_array_size(reply->tool_calls); i++) {
        char id[64];
        const json_t *call = json_array_get(reply->tool_calls, i);
        pi2_exchange_id(reply->exchange, "fc_", id);
        (void)json_array_append_new(output, call_json(id, json_string_value(json_object_get(call, "id")),
                                                      json_string_value(json_object_get(call, "name")), "completed",
                                                      json_incref(json_object_get(call, "arguments"))));
    }
    return response_json(reply, final_status(reply), output, true);
}

const pi2_dialect pi2_dialect_responses = {
    "text/event-stream; charset=utf-8", ": ping\n\n", responses_begin, responses_part, responses_end, responses_fail,
    NULL, responses_whole, false, false};
