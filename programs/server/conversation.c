/* conversation.c: see conversation.h. */
#include "conversation.h"

#include <stdlib.h>
#include <string.h>

#include "cli/json_bounds.h"

void pi2_conversation_json_free(pi2_conversation_json *conversation) {
    json_decref(conversation->messages);
    json_decref(conversation->tools);
    json_decref(conversation->variables);
    *conversation = (pi2_conversation_json){0};
}

static const char *text_of(const json_t *object, const char *name) {
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static bool is_text_type(const char *type) {
    return strcmp(type, "text") == 0 || strcmp(type, "input_text") == 0 || strcmp(type, "output_text") == 0;
}

/** Content that is a text, null, or an array of parts that are texts, as one text. NULL: a fault was noted. */
static json_t *flat_text(json_t *content, pi2_request_fault *fault) {
    if (json_is_string(content)) return json_incref(content);
    if (!content || json_is_null(content)) return json_string("");
    if (!json_is_array(content)) {
        (void)pi2_fault(fault, "a message's content must be a text or an array of parts");
        return NULL;
    }
    pi2_cli_text text = {0};
    bool is_good = pi2_cli_text_add(&text, "", 0);
    for (size_t i = 0; is_good && i < json_array_size(content); i++) {
        const json_t *part = json_array_get(content, i), *words = json_object_get(part, "text");
        const char *type = text_of(part, "type");
        if (json_is_string(part)) words = part;
        if (!json_is_string(words) || (*type && !is_text_type(type))) {
            is_good = pi2_fault(fault, "content of type '%s' is not supported here: this model reads text",
                                *type ? type : "unknown");
        } else {
            is_good = pi2_cli_text_add(&text, json_string_value(words), json_string_length(words));
        }
    }
    json_t *flat = is_good ? json_stringn(text.data, text.length) : NULL;
    if (!flat && !fault->status) (void)pi2_fault(fault, "no memory for a message");
    free(text.data);
    return flat;
}

/** Parses JSON that a text holds, within the bounds that a body has. *value_out NULL: it is none. */
static bool parse_text(const json_t *text, size_t *room, json_t **value_out, pi2_request_fault *fault) {
    const pi2_json_bounds bounds = pi2_json_measure(json_string_value(text), json_string_length(text));
    if (bounds.depth > PI2_JSON_DEPTH) {
        return pi2_fault(fault, "a call's arguments are nested %zu levels deep, %d are allowed", bounds.depth,
                         PI2_JSON_DEPTH);
    }
    if (bounds.memory > *room) {
        return pi2_fault(fault, "the calls' arguments would take up to %zu more bytes of memory, %zu are left of what "
                         "a request may take", bounds.memory, *room);
    }
    *room -= bounds.memory;
    *value_out = json_loadb(json_string_value(text), json_string_length(text), 0, NULL);
    return true;
}

/** The call with its arguments, which the API writes as text, as the object that templates want. A new reference. */
static json_t *open_call(json_t *call, size_t *room, pi2_request_fault *fault) {
    const json_t *function = json_object_get(call, "function"), *text = json_object_get(function, "arguments");
    json_t *object = NULL;
    if (json_is_string(text) && !parse_text(text, room, &object, fault)) return NULL;
    if (!json_is_object(object)) {
        json_decref(object);
        return json_incref(call);
    }
    json_t *opened = json_copy(call), *inner = json_copy((json_t *)(uintptr_t)function);
    (void)json_object_set_new(inner, "arguments", object);
    (void)json_object_set_new(opened, "function", inner);
    return opened;
}

/** Opens the arguments of the message's calls; the calls are copied, for the body has them too. */
static bool open_arguments(json_t *message, size_t *room, pi2_request_fault *fault) {
    const json_t *calls = json_object_get(message, "tool_calls");
    if (!json_is_array(calls)) return true;
    json_t *opened = json_array();
    for (size_t i = 0; i < json_array_size(calls); i++) {
        json_t *call = open_call(json_array_get(calls, i), room, fault);
        if (fault->status) {
            json_decref(opened);
            return false;
        }
        (void)json_array_append_new(opened, call);
    }
    return json_object_set_new(message, "tool_calls", opened) == 0 || pi2_fault(fault, "no memory for a message");
}

bool pi2_conversation_add_thought(json_t *message, json_t *text) {
    json_t *parts = json_object_get(message, "reasoning_content");
    if (!json_is_string(text)) return true;
    if (!parts) {
        (void)json_object_set_new(message, "reasoning_content", json_array());
        parts = json_object_get(message, "reasoning_content");
    }
    return json_array_append(parts, text) == 0;
}

/** Thoughts in parts become one text. */
static bool join_thoughts(json_t *message, pi2_request_fault *fault) {
    json_t *parts = json_object_get(message, "reasoning_content");
    if (!json_is_array(parts)) return true;
    json_t *text = flat_text(parts, fault);
    return text && (json_object_set_new(message, "reasoning_content", text) == 0 ||
                    pi2_fault(fault, "no memory for a message"));
}

/** A message as templates want it, added to the conversation. */
static bool add_openai_message(pi2_conversation_json *out, json_t *given, pi2_request_fault *fault) {
    json_t *message = json_copy(given);
    json_t *content = flat_text(json_object_get(message, "content"), fault);
    if (content) (void)json_object_set_new(message, "content", content);
    if (strcmp(text_of(message, "role"), "developer") == 0) { /* OpenAI's new name, which few templates know */
        (void)json_object_set_new(message, "role", json_string("system"));
    }
    if (!content || !join_thoughts(message, fault) || !open_arguments(message, &out->json_room, fault)) {
        json_decref(message);
        return false;
    }
    return json_array_append_new(out->messages, message) == 0 || pi2_fault(fault, "no memory for a message");
}

static bool check_messages(const json_t *messages, pi2_request_fault *fault) {
    if (!json_is_array(messages) || json_array_size(messages) == 0) {
        return pi2_fault(fault, "'messages' must be an array of messages, one at least");
    }
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        if (!json_is_object(message) || !json_is_string(json_object_get(message, "role"))) {
            return pi2_fault(fault, "message %zu must be an object with a 'role'", i);
        }
    }
    return true;
}

static bool take_tools(const json_t *body, pi2_conversation_json *out, pi2_request_fault *fault) {
    json_t *tools = json_object_get(body, "tools");
    if (!tools || json_is_null(tools)) return true;
    if (!json_is_array(tools)) return pi2_fault(fault, "'tools' must be an array");
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *function = json_object_get(json_array_get(tools, i), "function");
        if (!json_is_string(json_object_get(function, "name"))) {
            return pi2_fault(fault, "tool %zu must have a 'function' with a 'name'", i);
        }
    }
    if (json_array_size(tools)) out->tools = json_incref(tools);
    return true;
}

/** "none", "auto", "required", or the tool that is to be called. */
static bool read_choice(const json_t *choice, pi2_conversation_json *out, pi2_request_fault *fault) {
    const char *word = json_string_value(choice), *type = text_of(choice, "type");
    const json_t *function = json_object_get(choice, "function");
    if (!choice || json_is_null(choice) || (word && strcmp(word, "auto") == 0)) return true;
    if (word && strcmp(word, "none") == 0) {
        json_decref(out->tools);
        out->tools = NULL;
        return true;
    }
    const bool is_named = strcmp(type, "function") == 0 || (json_is_object(choice) && function && !*type);
    if (is_named) out->tool_name = text_of(json_is_object(function) ? function : choice, "name");
    else if (!word || strcmp(word, "required") != 0) {
        return pi2_fault(fault, "'tool_choice' can be \"auto\", \"none\", \"required\" or a function here");
    }
    out->demands_call = true;
    return out->tools || pi2_fault(fault, "'tool_choice' demands a call, and there are no 'tools'");
}

bool pi2_conversation_from_openai(const json_t *body, pi2_conversation_json *out, pi2_request_fault *fault) {
    const json_t *messages = json_object_get(body, "messages"), *choice = json_object_get(body, "tool_choice");
    if (!check_messages(messages, fault) || !take_tools(body, out, fault)) return false;
    if (!read_choice(choice, out, fault)) return false;
    bool takes_many = true;
    if (!pi2_field_flag(body, "parallel_tool_calls", &takes_many, fault)) return false;
    out->wants_one_call = !takes_many;
    out->messages = json_array();
    for (size_t i = 0; i < json_array_size(messages); i++) {
        if (!add_openai_message(out, json_array_get(messages, i), fault)) return false;
    }
    json_t *variables = json_object_get(body, "chat_template_kwargs");
    if (variables && !json_is_null(variables) && !json_is_object(variables)) {
        return pi2_fault(fault, "'chat_template_kwargs' must be an object");
    }
    out->variables = json_is_object(variables) ? json_copy(variables) : NULL;
    const char *effort = NULL;
    if (!pi2_field_text(body, "reasoning_effort", &effort, fault)) return false;
    if (effort) {
        if (!out->variables) out->variables = json_object();
        (void)json_object_set_new(out->variables, "reasoning_effort", json_string(effort));
    }
    return true;
}

/* ---- Anthropic ---- */

/** The blocks of an assistant's message: text, thoughts, calls. */
static bool add_assistant(json_t *messages, const json_t *blocks, pi2_request_fault *fault) {
    json_t *message = json_pack("{s:s}", "role", "assistant"), *texts = json_array(), *calls = json_array();
    bool is_good = true;
    for (size_t i = 0; i < json_array_size(blocks); i++) {
        json_t *block = json_array_get(blocks, i);
        const char *type = text_of(block, "type");
        if (strcmp(type, "thinking") == 0) {
            is_good = is_good && pi2_conversation_add_thought(message, json_object_get(block, "thinking"));
        } else if (strcmp(type, "tool_use") == 0) {
            json_t *input = json_object_get(block, "input");
            (void)json_array_append_new(
                calls, json_pack("{s:s, s:s, s:{s:s, s:o}}", "id", text_of(block, "id"), "type", "function",
                                 "function", "name", text_of(block, "name"), "arguments",
                                 json_is_object(input) ? json_incref(input) : json_object()));
        } else if (strcmp(type, "redacted_thinking") != 0) {
            (void)json_array_append(texts, block);
        }
    }
    json_t *content = flat_text(texts, fault);
    (void)json_object_set_new(message, "content", content);
    if (json_array_size(calls)) (void)json_object_set(message, "tool_calls", calls);
    (void)json_array_append_new(messages, message);
    json_decref(texts);
    json_decref(calls);
    return content && (is_good || pi2_fault(fault, "no memory for a message")) && join_thoughts(message, fault);
}

/** The blocks of a user's message: results of tools first, as messages of their own, then what is said. */
static bool add_user(json_t *messages, const json_t *blocks, pi2_request_fault *fault) {
    json_t *texts = json_array();
    bool is_good = true;
    for (size_t i = 0; is_good && i < json_array_size(blocks); i++) {
        json_t *block = json_array_get(blocks, i);
        if (strcmp(text_of(block, "type"), "tool_result") != 0) {
            (void)json_array_append(texts, block);
            continue;
        }
        json_t *content = flat_text(json_object_get(block, "content"), fault);
        is_good = content != NULL;
        if (is_good) {
            (void)json_array_append_new(messages, json_pack("{s:s, s:s, s:o}", "role", "tool", "tool_call_id",
                                                            text_of(block, "tool_use_id"), "content", content));
        }
    }
    if (is_good && json_array_size(texts)) {
        json_t *content = flat_text(texts, fault);
        is_good = content != NULL;
        if (is_good) {
            (void)json_array_append_new(messages, json_pack("{s:s, s:o}", "role", "user", "content", content));
        }
    }
    json_decref(texts);
    return is_good;
}

static bool take_anthropic_tools(const json_t *body, pi2_conversation_json *out, pi2_request_fault *fault) {
    const json_t *tools = json_object_get(body, "tools"), *choice = json_object_get(body, "tool_choice");
    const char *type = text_of(choice, "type");
    const bool is_named = strcmp(type, "tool") == 0;
    out->demands_call = is_named || strcmp(type, "any") == 0;
    if (*type && !out->demands_call && strcmp(type, "auto") != 0 && strcmp(type, "none") != 0) {
        return pi2_fault(fault, "'tool_choice' of type '%s' is not supported here", type);
    }
    if (is_named) out->tool_name = text_of(choice, "name");
    out->wants_one_call = json_is_true(json_object_get(choice, "disable_parallel_tool_use"));
    if (out->demands_call && !json_array_size(tools)) {
        return pi2_fault(fault, "'tool_choice' demands a call, and there are no 'tools'");
    }
    if (!json_array_size(tools) || strcmp(type, "none") == 0) return true;
    out->tools = json_array();
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *tool = json_array_get(tools, i);
        json_t *schema = json_object_get(tool, "input_schema");
        if (!*text_of(tool, "name") || !json_is_object(schema)) {
            return pi2_fault(fault, "tool %zu must have a 'name' and an 'input_schema': this server has none of its "
                             "own", i);
        }
        (void)json_array_append_new(out->tools,
                                    json_pack("{s:s, s:{s:s, s:s, s:O}}", "type", "function", "function", "name",
                                              text_of(tool, "name"), "description", text_of(tool, "description"),
                                              "parameters", schema));
    }
    return true;
}

bool pi2_conversation_from_anthropic(const json_t *body, pi2_conversation_json *out, pi2_request_fault *fault) {
    const json_t *messages = json_object_get(body, "messages");
    json_t *system = json_object_get(body, "system");
    if (!check_messages(messages, fault) || !take_anthropic_tools(body, out, fault)) return false;
    out->messages = json_array();
    if (system && !json_is_null(system)) {
        json_t *text = flat_text(system, fault);
        if (!text) return false;
        (void)json_array_append_new(out->messages, json_pack("{s:s, s:o}", "role", "system", "content", text));
    }
    for (size_t i = 0; i < json_array_size(messages); i++) {
        json_t *message = json_array_get(messages, i), *content = json_object_get(message, "content");
        const char *role = text_of(message, "role");
        const bool is_assistant = strcmp(role, "assistant") == 0;
        if (!is_assistant && strcmp(role, "user") != 0) {
            return pi2_fault(fault, "message %zu has the role '%s'; \"user\" and \"assistant\" are allowed", i, role);
        }
        if (!json_is_array(content)) {
            json_t *text = flat_text(content, fault);
            if (!text) return false;
            (void)json_array_append_new(out->messages, json_pack("{s:s, s:o}", "role", role, "content", text));
        } else if (!(is_assistant ? add_assistant : add_user)(out->messages, content, fault)) {
            return false;
        }
    }
    const char *thinking = text_of(json_object_get(body, "thinking"), "type");
    if (*thinking) {
        out->variables = json_pack("{s:b}", "enable_thinking", strcmp(thinking, "disabled") != 0);
    }
    return true;
}

/* ---- Ollama ---- */

bool pi2_conversation_from_ollama(const json_t *body, pi2_conversation_json *out, pi2_request_fault *fault) {
    json_t *messages = json_object_get(body, "messages");
    const json_t *think = json_object_get(body, "think");
    if (!check_messages(messages, fault) || !take_tools(body, out, fault) ||
        !read_choice(json_object_get(body, "tool_choice"), out, fault)) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(messages); i++) {
        if (pi2_field_is_set(json_array_get(messages, i), "images")) {
            return pi2_fault(fault, "message %zu has images, which this model does not read", i);
        }
    }
    out->messages = json_incref(messages);
    if (json_is_boolean(think)) out->variables = json_pack("{s:b}", "enable_thinking", json_is_true(think));
    return true;
}
