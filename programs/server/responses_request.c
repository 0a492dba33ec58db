/* responses_request.c: see responses_request.h. */
#include "responses_request.h"

#include <string.h>

#include "conversation.h"

static const char *text_of(const json_t *object, const char *name) {
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static bool append(json_t *messages, json_t *message, pi2_request_fault *fault) {
    return json_array_append_new(messages, message) == 0 || pi2_fault(fault, "no memory for the input");
}

/** The last message where it is the assistant's, or a new one of it, to which thoughts and calls belong. */
static json_t *assistant_of(json_t *messages) {
    json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    if (last && strcmp(text_of(last, "role"), "assistant") == 0) return last;
    (void)json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "assistant", "content", ""));
    return json_array_get(messages, json_array_size(messages) - 1);
}

static bool add_call(json_t *messages, const json_t *item, pi2_request_fault *fault) {
    json_t *message = assistant_of(messages), *calls = json_object_get(message, "tool_calls");
    if (!*text_of(item, "name") || !json_is_string(json_object_get(item, "arguments"))) {
        return pi2_fault(fault, "an input of type 'function_call' must have a 'name' and 'arguments'");
    }
    if (!calls) {
        (void)json_object_set_new(message, "tool_calls", json_array());
        calls = json_object_get(message, "tool_calls");
    }
    return append(calls, json_pack("{s:s, s:s, s:{s:s, s:O}}", "id", text_of(item, "call_id"), "type", "function",
                                   "function", "name", text_of(item, "name"), "arguments",
                                   json_object_get(item, "arguments")), fault);
}

/** The last message, where it is an assistant's that has only thought so far; else NULL. */
static json_t *thought_of(const json_t *messages) {
    json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const bool is_one = last && json_object_get(last, "reasoning_content") && !json_object_get(last, "tool_calls") &&
                        !*text_of(last, "content");
    return is_one ? last : NULL;
}

/** A message: an assistant's own goes on with what its thoughts have begun. */
static bool add_message(json_t *messages, const json_t *item, pi2_request_fault *fault) {
    const char *role = text_of(item, "role");
    json_t *content = json_object_get(item, "content");
    json_t *thought = strcmp(role, "assistant") == 0 ? thought_of(messages) : NULL;
    if (!*role) return pi2_fault(fault, "an input must be an object with a 'role' or a 'type'");
    if (!thought) return append(messages, json_pack("{s:s, s:O?}", "role", role, "content", content), fault);
    return !content || json_object_set(thought, "content", content) == 0 ||
           pi2_fault(fault, "no memory for the input");
}

/** What was thought before: what the client was told of it, in full or as a summary, in one part or several. */
static bool add_reasoning(json_t *messages, const json_t *item, pi2_request_fault *fault) {
    const json_t *parts = json_object_get(item, "content");
    if (!json_array_size(parts)) parts = json_object_get(item, "summary");
    for (size_t i = 0; i < json_array_size(parts); i++) {
        json_t *text = json_object_get(json_array_get(parts, i), "text");
        if (!json_string_length(text)) continue;
        if (!thought_of(messages) &&
            !append(messages, json_pack("{s:s, s:s}", "role", "assistant", "content", ""), fault)) {
            return false;
        }
        json_t *message = json_array_get(messages, json_array_size(messages) - 1);
        if (!pi2_conversation_add_thought(message, text)) return pi2_fault(fault, "no memory for the input");
    }
    return true;
}

static bool add_item(json_t *messages, const json_t *item, pi2_request_fault *fault) {
    const char *type = text_of(item, "type");
    if (!*type || strcmp(type, "message") == 0) return add_message(messages, item, fault);
    if (strcmp(type, "function_call") == 0) return add_call(messages, item, fault);
    if (strcmp(type, "reasoning") == 0) return add_reasoning(messages, item, fault);
    if (strcmp(type, "function_call_output") == 0) {
        return append(messages, json_pack("{s:s, s:s, s:O?}", "role", "tool", "tool_call_id", text_of(item, "call_id"),
                                          "content", json_object_get(item, "output")), fault);
    }
    return pi2_fault(fault, "an input of type '%s' is not supported here", type);
}

static bool read_input(const json_t *body, json_t *messages, pi2_request_fault *fault) {
    const json_t *input = json_object_get(body, "input");
    const char *instructions = NULL;
    if (!pi2_field_text(body, "instructions", &instructions, fault)) return false;
    if (instructions && *instructions &&
        !append(messages, json_pack("{s:s, s:s}", "role", "system", "content", instructions), fault)) {
        return false;
    }
    if (json_is_string(input)) {
        return append(messages, json_pack("{s:s, s:O}", "role", "user", "content", input), fault);
    }
    if (!json_array_size(input)) return pi2_fault(fault, "'input' must be a text, or an array of inputs");
    for (size_t i = 0; i < json_array_size(input); i++) {
        if (!add_item(messages, json_array_get(input, i), fault)) return false;
    }
    return true;
}

static bool read_tools(const json_t *body, json_t *chat, pi2_request_fault *fault) {
    const json_t *tools = json_object_get(body, "tools");
    if (!tools || json_is_null(tools)) return true;
    if (!json_is_array(tools)) return pi2_fault(fault, "'tools' must be an array");
    json_t *out = json_array();
    (void)json_object_set_new(chat, "tools", out);
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *tool = json_array_get(tools, i);
        if (strcmp(text_of(tool, "type"), "function") != 0) {
            return pi2_fault(fault, "tool %zu of type '%s' is not supported here: this server has none of its own", i,
                             text_of(tool, "type"));
        }
        json_t *function = json_pack("{s:O?, s:O?, s:O?}", "name", json_object_get(tool, "name"), "description",
                                     json_object_get(tool, "description"), "parameters",
                                     json_object_get(tool, "parameters"));
        if (!append(out, json_pack("{s:s, s:o}", "type", "function", "function", function), fault)) return false;
    }
    return true;
}

/** What could only be answered by somebody who keeps answers, or works on when the client has gone. */
static bool refuse_kept(const json_t *body, pi2_request_fault *fault) {
    static const char *const names[] = {"previous_response_id", "conversation"}, *const others[] = {
        "background", "prompt", "max_tool_calls", "top_logprobs"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (pi2_field_is_set(body, names[i])) {
            return pi2_fault(fault, "'%s' is not supported here: no answer is kept; send the conversation as 'input'",
                             names[i]);
        }
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (pi2_field_is_set(body, others[i])) return pi2_fault(fault, "'%s' is not supported here", others[i]);
    }
    const char *truncation = text_of(body, "truncation");
    return !*truncation || strcmp(truncation, "disabled") == 0 ||
           pi2_fault(fault, "'truncation' of '%s' is not supported here: nothing is left out silently", truncation);
}

json_t *pi2_responses_as_chat(const json_t *body, pi2_request_fault *fault) {
    static const char *const same[] = {"tool_choice", "parallel_tool_calls", "chat_template_kwargs"};
    json_t *messages = json_array(), *chat = json_pack("{s:o}", "messages", messages);
    const json_t *effort = json_object_get(json_object_get(body, "reasoning"), "effort");
    bool is_good = chat ? refuse_kept(body, fault) && read_input(body, messages, fault) && read_tools(body, chat, fault)
                        : pi2_fault(fault, "no memory for the input");
    for (size_t i = 0; is_good && i < sizeof same / sizeof same[0]; i++) {
        json_t *value = json_object_get(body, same[i]);
        is_good = !value || json_object_set(chat, same[i], value) == 0 || pi2_fault(fault, "no memory for the input");
    }
    if (is_good && json_is_string(effort)) {
        (void)json_object_set(chat, "reasoning_effort", (json_t *)(uintptr_t)effort);
    }
    if (is_good) return chat;
    json_decref(chat);
    return NULL;
}
