/* text_routes.c: routes about text alone, which generate nothing: tokens, templates, counts. */
#include <stdlib.h>

#include "prompt_request.h"
#include "server_routes.h"

/* What a token and a piece take at most, as JSON and as the text of it. */
enum { TOKEN_REPLY_BYTES = 64, PIECE_REPLY_BYTES = 1024, REPLY_TIMES = 8 };

typedef json_t *text_work(pi2_exchange *exchange, const json_t *body, pi2_request_fault *fault);

/** The work is done under the mutex that guards the engine's text functions, and its result is sent. */
static enum MHD_Result work_on_text(pi2_exchange *exchange, text_work *work) {
    enum MHD_Result result = MHD_NO;
    pi2_request_fault fault = {0};
    (void)pthread_mutex_lock(&exchange->server->text_mutex);
    json_t *body = pi2_exchange_body(exchange, &result);
    json_t *value = body ? work(exchange, body, &fault) : NULL;
    const bool has_body = body != NULL;
    json_decref(body);
    (void)pthread_mutex_unlock(&exchange->server->text_mutex);
    if (!has_body) return result;
    if (fault.status) {
        json_decref(value);
        return pi2_reply_refuse(exchange, &fault);
    }
    return pi2_exchange_json(exchange, MHD_HTTP_OK, value);
}

/** Adds to what a reply takes, which has the room of a body's JSON. */
static bool add_reply_bytes(const pi2_exchange *exchange, size_t bytes, size_t *sum, pi2_request_fault *fault) {
    const size_t most = 2 * exchange->server->settings->body_bytes;
    *sum += bytes;
    return *sum <= most || pi2_fault(fault, "the reply would take more than %zu bytes of memory: ask for less at a "
                                     "time", most);
}

/** A token as tokenize tells it, alone or with its text; NULL: a fault was noted. */
static json_t *token_json(const pi2_exchange *exchange, int32_t token, bool with_piece, size_t *sum,
                          pi2_request_fault *fault) {
    if (!with_piece) {
        return add_reply_bytes(exchange, TOKEN_REPLY_BYTES, sum, fault) ? json_integer(token) : NULL;
    }
    char *piece = NULL;
    size_t length = 0;
    json_t *value = NULL;
    const pi2_status status = pi2_engine_detokenize(exchange->server->engine, &token, 1, true, &piece, &length);
    if (status != PI2_OK) {
        (void)pi2_fault_of(fault, status);
    } else if (add_reply_bytes(exchange, PIECE_REPLY_BYTES + REPLY_TIMES * length, sum, fault)) {
        value = json_pack("{s:i, s:o}", "id", (int)token, "piece", pi2_cli_json_text(piece, length));
    }
    free(piece);
    return value;
}

static json_t *tokenize(pi2_exchange *exchange, const json_t *body, pi2_request_fault *fault) {
    bool add_special = false, parse_special = true, with_pieces = false;
    uint64_t room = pi2_prompt_room(exchange);
    int32_t *tokens = NULL;
    size_t count = 0;
    if (!pi2_field_flag(body, "add_special", &add_special, fault) ||
        !pi2_field_flag(body, "parse_special", &parse_special, fault) ||
        !pi2_field_flag(body, "with_pieces", &with_pieces, fault) ||
        !pi2_prompt_of_value(exchange, json_object_get(body, "content"), add_special, parse_special, &room, &tokens,
                             &count, fault)) {
        return NULL;
    }
    json_t *array = json_array();
    size_t sum = 0;
    for (size_t i = 0; i < count && !fault->status; i++) {
        (void)json_array_append_new(array, token_json(exchange, tokens[i], with_pieces, &sum, fault));
    }
    free(tokens);
    return json_pack("{s:o}", "tokens", array);
}

static json_t *detokenize(pi2_exchange *exchange, const json_t *body, pi2_request_fault *fault) {
    const json_t *array = json_object_get(body, "tokens");
    uint64_t room = pi2_prompt_room(exchange);
    int32_t *tokens = NULL;
    size_t count = 0, length = 0;
    char *text = NULL;
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (!json_is_integer(json_array_get(array, i))) (void)pi2_fault(fault, "token %zu must be a whole number", i);
    }
    if (!json_is_array(array)) (void)pi2_fault(fault, "'tokens' must be an array");
    if (fault->status || !pi2_prompt_of_value(exchange, array, false, false, &room, &tokens, &count, fault)) {
        return NULL;
    }
    pi2_status status = PI2_OK;
    size_t sum = 0;
    for (size_t i = 0; status == PI2_OK && i < count && !fault->status; i++) { /* what the text will take, before it */
        status = pi2_engine_detokenize(exchange->server->engine, &tokens[i], 1, true, &text, &length);
        if (status == PI2_OK) (void)add_reply_bytes(exchange, REPLY_TIMES * length, &sum, fault);
        free(text);
        text = NULL;
    }
    if (fault->status) {
        free(tokens);
        return NULL;
    }
    if (status == PI2_OK) {
        status = pi2_engine_detokenize(exchange->server->engine, tokens, count, true, &text, &length);
    }
    json_t *value = NULL;
    if (status == PI2_OK) value = json_pack("{s:o}", "content", pi2_cli_json_text(text, length));
    else (void)pi2_fault_of(fault, status);
    free(text);
    free(tokens);
    return value;
}

static json_t *apply_template(pi2_exchange *exchange, const json_t *body, pi2_request_fault *fault) {
    pi2_conversation_json conversation = {.json_room = exchange->json_room};
    char *text = NULL;
    size_t length = 0;
    json_t *value = NULL;
    if (pi2_conversation_from_openai(body, &conversation, fault) &&
        pi2_prompt_of_conversation(exchange, &conversation, &text, &length, NULL, NULL, fault)) {
        value = json_pack("{s:o}", "prompt", pi2_cli_json_text(text, length));
    }
    free(text);
    pi2_conversation_json_free(&conversation);
    return value;
}

static json_t *count_tokens(pi2_exchange *exchange, const json_t *body, pi2_request_fault *fault) {
    pi2_conversation_json conversation = {.json_room = exchange->json_room};
    int32_t *tokens = NULL;
    size_t count = 0;
    json_t *value = NULL;
    if (pi2_conversation_from_anthropic(body, &conversation, fault) &&
        pi2_prompt_of_conversation(exchange, &conversation, NULL, NULL, &tokens, &count, fault)) {
        value = json_pack("{s:I}", "input_tokens", (json_int_t)count);
    }
    free(tokens);
    pi2_conversation_json_free(&conversation);
    return value;
}

enum MHD_Result pi2_route_tokenize(pi2_exchange *exchange) { return work_on_text(exchange, tokenize); }
enum MHD_Result pi2_route_detokenize(pi2_exchange *exchange) { return work_on_text(exchange, detokenize); }
enum MHD_Result pi2_route_apply_template(pi2_exchange *exchange) { return work_on_text(exchange, apply_template); }
enum MHD_Result pi2_route_count_tokens(pi2_exchange *exchange) { return work_on_text(exchange, count_tokens); }
