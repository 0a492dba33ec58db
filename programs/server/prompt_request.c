/* prompt_request.c: see prompt_request.h. */
#include "prompt_request.h"

#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES = 4096, TEXT_BYTES_PER_TOKEN = 16 }; /* of a prompt at most: as of a conversation */

char *pi2_prompt_variables(const pi2_exchange *exchange, const json_t *variables, pi2_request_fault *fault) {
    const char *own = exchange->server->settings->template_kwargs;
    json_t *all = own ? json_loads(own, 0, NULL) : json_object();
    if (!all || (variables && json_object_update(all, (json_t *)(uintptr_t)variables) != 0)) {
        json_decref(all);
        (void)pi2_fault(fault, "no memory for the template's variables");
        return NULL;
    }
    char *text = json_object_size(all) ? json_dumps(all, JSON_COMPACT) : strdup("");
    json_decref(all);
    if (!text) (void)pi2_fault(fault, "no memory for the template's variables");
    return text;
}

bool pi2_prompt_of_conversation(pi2_exchange *exchange, const pi2_conversation_json *conversation, char **text_out,
                                size_t *length_out, int32_t **tokens_out, size_t *count_out, pi2_request_fault *fault) {
    if (!pi2_engine_has_chat_template(exchange->server->engine)) {
        return pi2_fault(fault, "the model %s has no chat template: the server can be given one (--chat-template), and "
                         "/v1/completions needs none", exchange->server->alias);
    }
    char *variables = pi2_prompt_variables(exchange, conversation->variables, fault);
    if (!variables) return false;
    char *messages = json_dumps(conversation->messages, JSON_COMPACT);
    char *tools = conversation->tools ? json_dumps(conversation->tools, JSON_COMPACT) : NULL;
    const pi2_conversation asked = {messages, tools, messages ? strlen(messages) : 0, tools ? strlen(tools) : 0,
                                    *variables ? variables : NULL, true};
    pi2_status status = PI2_ERR_MEMORY;
    if (messages && (tools || !conversation->tools)) {
        status = pi2_engine_conversation_tokens(exchange->server->engine, &asked, text_out, length_out, tokens_out,
                                                count_out);
        if (status != PI2_OK) (void)pi2_fault_of(fault, status);
        /* A template's refusal is the request's fault. */
        if (status == PI2_ERR_UNSUPPORTED) fault->status = MHD_HTTP_BAD_REQUEST;
    } else {
        (void)pi2_fault(fault, "no memory for the conversation");
    }
    free(messages);
    free(tools);
    free(variables);
    return status == PI2_OK;
}

/** Takes the text's bytes from what the prompt may still have. */
static bool take_room(const pi2_exchange *exchange, size_t bytes, uint64_t *room, pi2_request_fault *fault) {
    if (bytes <= *room) {
        *room -= bytes;
        return true;
    }
    (void)pi2_fault(fault, "the text has more than %llu bytes, which the context of %u tokens does not hold: shorten "
                    "it, or start the server with a longer context (-c)", (unsigned long long)pi2_prompt_room(exchange),
                    pi2_engine_get_report(exchange->server->engine)->context_tokens);
    fault->type = "exceed_context_size_error";
    return false;
}

/** Adds what an element of a prompt gives: a token, or those of a text. */
static bool add_element(pi2_exchange *exchange, const json_t *element, bool add_special, bool parse_special,
                        uint64_t *room, pi2_cli_tokens *tokens, pi2_request_fault *fault) {
    const pi2_engine *engine = exchange->server->engine;
    if (json_is_integer(element)) {
        const json_int_t id = json_integer_value(element);
        const int32_t token = (int32_t)id;
        if (id < 0 || id >= (json_int_t)pi2_engine_get_report(engine)->vocabulary_size) {
            return pi2_fault(fault, "token %lld lies outside the vocabulary of %u tokens", (long long)id,
                             pi2_engine_get_report(engine)->vocabulary_size);
        }
        return pi2_cli_tokens_add(tokens, &token, 1) || pi2_fault(fault, "no memory for the prompt");
    }
    if (!json_is_string(element)) {
        return pi2_fault(fault, "a prompt must be a text, or an array of texts and token ids");
    }
    int32_t *own = NULL;
    size_t count = 0;
    if (!take_room(exchange, json_string_length(element), room, fault)) return false;
    const pi2_status status = pi2_engine_tokenize(engine, json_string_value(element), json_string_length(element),
                                                  add_special, parse_special, &own, &count);
    if (status != PI2_OK) return pi2_fault_of(fault, status);
    const bool is_added = pi2_cli_tokens_add(tokens, own, count) || pi2_fault(fault, "no memory for the prompt");
    free(own);
    return is_added;
}

uint64_t pi2_prompt_room(const pi2_exchange *exchange) {
    const uint32_t context = pi2_engine_get_report(exchange->server->engine)->context_tokens;
    return TEXT_BYTES + (uint64_t)context * TEXT_BYTES_PER_TOKEN;
}

bool pi2_prompt_of_value(pi2_exchange *exchange, const json_t *value, bool add_special, bool parse_special,
                         uint64_t *room, int32_t **tokens_out, size_t *count_out, pi2_request_fault *fault) {
    pi2_cli_tokens tokens = {0};
    const size_t count = json_is_array(value) ? json_array_size(value) : 1;
    bool is_good = true;
    for (size_t i = 0; is_good && i < count; i++) {
        const json_t *element = json_is_array(value) ? json_array_get(value, i) : value;
        is_good = add_element(exchange, element, add_special && i == 0, parse_special, room, &tokens, fault);
    }
    if (is_good) {
        *tokens_out = tokens.data;
        *count_out = tokens.length;
    } else {
        free(tokens.data);
    }
    return is_good;
}
