/* dialect_anthropic.c: answers as /v1/messages writes them: blocks of thinking, text and calls of tools. */
#include <string.h>

#include "answering.h"

static const char *stop_reason(const pi2_reply *reply) {
    if (reply->tool_count) return "tool_use";
    switch (reply->job.stop) {
    case PI2_STOP_EOS: return "end_turn";
    case PI2_STOP_WORD: return "stop_sequence";
    case PI2_STOP_LIMIT:
    case PI2_STOP_CONTEXT:
    case PI2_STOP_INTERRUPTED:
    default: return "max_tokens";
    }
}

static const char *stop_sequence(const pi2_reply *reply) {
    if (reply->tool_count || reply->job.stop != PI2_STOP_WORD) return NULL;
    return reply->job.stop_words.items[reply->job.stop_word];
}

static json_t *usage(const pi2_reply *reply, bool has_ended) {
    const pi2_job *job = &reply->job;
    const json_int_t cached = has_ended ? (json_int_t)job->cached_count : 0;
    return json_pack("{s:I, s:I, s:I}", "input_tokens", (json_int_t)job->prompt_count - cached,
                     "cache_read_input_tokens", cached, "output_tokens",
                     has_ended ? (json_int_t)job->tokens.length : 0);
}

static json_t *message(const pi2_reply *reply, json_t *content, bool has_ended) {
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:s?, s:s?, s:o}", "id", reply->id, "type", "message", "role",
                     "assistant", "model", pi2_reply_model(reply), "content", content, "stop_reason",
                     has_ended ? stop_reason(reply) : NULL, "stop_sequence", has_ended ? stop_sequence(reply) : NULL,
                     "usage", usage(reply, has_ended));
}

static bool messages_begin(pi2_reply *reply) {
    return pi2_reply_event(reply, "message_start", json_pack("{s:s, s:o}", "type", "message_start", "message",
                                                             message(reply, json_array(), false)));
}

static bool close_block(pi2_reply *reply) {
    if (reply->open_block < 0) return true;
    reply->open_block = -1;
    return pi2_reply_event(reply, "content_block_stop", json_pack("{s:s, s:I}", "type", "content_block_stop", "index",
                                                                  (json_int_t)reply->block_count++));
}

static bool open_block(pi2_reply *reply, pi2_part_kind kind, json_t *block) {
    if (!close_block(reply)) {
        json_decref(block);
        return false;
    }
    reply->open_block = (int)kind;
    return pi2_reply_event(reply, "content_block_start",
                           json_pack("{s:s, s:I, s:o}", "type", "content_block_start", "index",
                                     (json_int_t)reply->block_count, "content_block", block));
}

static bool messages_part(pi2_reply *reply, const pi2_answer_part *part) {
    const bool is_tool = part->kind == PI2_PART_TOOL, is_text = part->kind == PI2_PART_CONTENT;
    if (is_tool) {
        char id[64];
        pi2_exchange_id(reply->exchange, "toolu_", id);
        if (!open_block(reply, part->kind, json_pack("{s:s, s:s, s:s, s:{}}", "type", "tool_use", "id", id, "name",
                                                     part->name, "input"))) {
            return false;
        }
    } else if (reply->open_block != (int)part->kind) {
        json_t *block = is_text ? json_pack("{s:s, s:s}", "type", "text", "text", "")
                                : json_pack("{s:s, s:s, s:s}", "type", "thinking", "thinking", "", "signature", "");
        if (!open_block(reply, part->kind, block)) return false;
    }
    const char *type = is_tool ? "input_json_delta" : is_text ? "text_delta" : "thinking_delta";
    const char *name = is_tool ? "partial_json" : is_text ? "text" : "thinking";
    return pi2_reply_event(reply, "content_block_delta",
                           json_pack("{s:s, s:I, s:{s:s, s:o}}", "type", "content_block_delta", "index",
                                     (json_int_t)reply->block_count, "delta", "type", type, name,
                                     json_stringn(part->text, part->length)));
}

static bool messages_end(pi2_reply *reply) {
    return close_block(reply) &&
           pi2_reply_event(reply, "message_delta",
                           json_pack("{s:s, s:{s:s, s:s?}, s:o}", "type", "message_delta", "delta", "stop_reason",
                                     stop_reason(reply), "stop_sequence", stop_sequence(reply), "usage",
                                     usage(reply, true))) &&
           pi2_reply_event(reply, "message_stop", json_pack("{s:s}", "type", "message_stop"));
}

static bool messages_fail(pi2_reply *reply, const char *text) {
    unsigned status;
    const char *type = pi2_reply_error_type(reply, &status);
    return pi2_reply_event(reply, "error", pi2_error_json(PI2_API_ANTHROPIC, status, type, text));
}

static json_t *messages_whole(pi2_reply *reply) {
    json_t *content = json_array();
    if (reply->reasoning.length) {
        (void)json_array_append_new(content,
                                    json_pack("{s:s, s:o, s:s}", "type", "thinking", "thinking",
                                              json_stringn(reply->reasoning.data, reply->reasoning.length), "signature",
                                              ""));
    }
    if (reply->content.length || !reply->tool_count) {
        (void)json_array_append_new(content, json_pack("{s:s, s:o}", "type", "text", "text",
                                                       json_stringn(reply->content.data, reply->content.length)));
    }
    for (size_t i = 0; i < json_array_size(reply->tool_calls); i++) {
        const json_t *call = json_array_get(reply->tool_calls, i);
        json_t *input = json_loads(json_string_value(json_object_get(call, "arguments")), 0, NULL);
        (void)json_array_append_new(content, json_pack("{s:s, s:O, s:O, s:o}", "type", "tool_use", "id",
                                                       json_object_get(call, "id"), "name",
                                                       json_object_get(call, "name"), "input",
                                                       input ? input : json_object()));
    }
    return message(reply, content, true);
}

const pi2_dialect pi2_dialect_messages = {
    "text/event-stream; charset=utf-8", "event: ping\ndata: {\"type\":\"ping\"}\n\n", messages_begin, messages_part,
    messages_end, messages_fail, NULL, messages_whole, false, false};
