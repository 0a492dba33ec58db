/* exchange.c: replies, errors, and a body as JSON. */
#include "exchange.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli/json_bounds.h"
#include "cli/sampling_options.h"

const char *pi2_error_type(pi2_status status, unsigned *http_status_out) {
    unsigned http_status = MHD_HTTP_INTERNAL_SERVER_ERROR;
    const char *type = "server_error";
    switch (status) {
    case PI2_ERR_INVALID:
    case PI2_ERR_FORMAT:
        http_status = MHD_HTTP_BAD_REQUEST;
        type = "invalid_request_error";
        break;
    case PI2_ERR_UNSUPPORTED:
        http_status = MHD_HTTP_NOT_IMPLEMENTED;
        type = "not_supported_error";
        break;
    case PI2_ERR_CONTEXT:
        http_status = MHD_HTTP_BAD_REQUEST;
        type = "exceed_context_size_error";
        break;
    case PI2_ERR_INTERRUPTED:
        http_status = MHD_HTTP_SERVICE_UNAVAILABLE;
        type = "unavailable_error";
        break;
    case PI2_OK:
    case PI2_ERR_MEMORY:
    case PI2_ERR_IO: break;
    }
    *http_status_out = http_status;
    return type;
}

const char *pi2_error_for_client(pi2_status status, const char *text) {
    if (status != PI2_ERR_IO && status != PI2_ERR_MEMORY) return text;
    (void)pi2_cli_usage_error("a request failed: %s", text);
    return "the server failed, not the request: its error line says why";
}

bool pi2_fault_of(pi2_request_fault *fault, pi2_status status) {
    (void)snprintf(fault->text, sizeof fault->text, "%s", pi2_error_for_client(status, pi2_error_text()));
    fault->type = pi2_error_type(status, &fault->status);
    return false;
}

json_t *pi2_error_json(pi2_api_form form, unsigned status, const char *type, const char *text) {
    json_t *message = pi2_cli_json_text(text, strlen(text));
    if (form == PI2_API_OLLAMA) return json_pack("{s:o}", "error", message);
    if (form == PI2_API_ANTHROPIC) {
        if (strcmp(type, "exceed_context_size_error") == 0 || strcmp(type, "not_supported_error") == 0) {
            type = "invalid_request_error";
        } else if (strcmp(type, "unavailable_error") == 0) {
            type = "overloaded_error";
        } else if (strcmp(type, "server_error") == 0) {
            type = "api_error";
        }
        return json_pack("{s:s, s:{s:s, s:o}}", "type", "error", "error", "type", type, "message", message);
    }
    return json_pack("{s:{s:i, s:o, s:s}}", "error", "code", (int)status, "message", message, "type", type);
}

static bool is_allowed_origin(const pi2_exchange *exchange, const char *origin) {
    const pi2_cli_texts *origins = exchange->server->settings->origins;
    for (size_t i = 0; i < origins->count; i++) {
        if (strcmp(origins->items[i], origin) == 0) return true;
    }
    return false;
}

enum MHD_Result pi2_exchange_send(pi2_exchange *exchange, unsigned status, struct MHD_Response *response) {
    pi2_exchange_drop_body(exchange); /* before the client sees an end: its next request has room then */
    if (!response) return MHD_NO;
    const char *origin = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, "Origin");
    if (origin && is_allowed_origin(exchange, origin)) {
        (void)MHD_add_response_header(response, "Access-Control-Allow-Origin", origin);
        (void)MHD_add_response_header(response, "Vary", "Origin");
    }
    if (status == MHD_HTTP_SERVICE_UNAVAILABLE) (void)MHD_add_response_header(response, "Retry-After", "1");
    /* OpenAI's and Anthropic's clients ask twice more of their own accord, and the same would take as long again. */
    if (status == MHD_HTTP_GATEWAY_TIMEOUT) (void)MHD_add_response_header(response, "X-Should-Retry", "false");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED && exchange->other_route) {
        const bool is_read = strcmp(exchange->other_route->method, "GET") == 0;
        (void)MHD_add_response_header(response, "Allow", is_read ? "GET, HEAD, OPTIONS" : "POST, OPTIONS");
    }
    if (status == MHD_HTTP_UNAUTHORIZED) (void)MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
    (void)MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    const enum MHD_Result result = MHD_queue_response(exchange->connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result send_text(pi2_exchange *exchange, unsigned status, const char *content_type, void *text,
                                 size_t length, enum MHD_ResponseMemoryMode mode) {
    struct MHD_Response *response = MHD_create_response_from_buffer(length, text, mode);
    if (response) (void)MHD_add_response_header(response, "Content-Type", content_type);
    else if (mode == MHD_RESPMEM_MUST_FREE) free(text);
    return pi2_exchange_send(exchange, status, response);
}

enum MHD_Result pi2_exchange_text(pi2_exchange *exchange, const char *content_type, const char *text, size_t length) {
    return send_text(exchange, MHD_HTTP_OK, content_type, (void *)(uintptr_t)text, length, MHD_RESPMEM_MUST_COPY);
}

enum MHD_Result pi2_exchange_json(pi2_exchange *exchange, unsigned status, json_t *value) {
    static const char no_memory[] = "{\"error\":{\"code\":500,\"message\":\"no memory for the reply\","
                                    "\"type\":\"server_error\"}}";
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    json_decref(value);
    if (text) {
        return send_text(exchange, status, "application/json; charset=utf-8", text, strlen(text),
                         MHD_RESPMEM_MUST_FREE);
    }
    return send_text(exchange, MHD_HTTP_INTERNAL_SERVER_ERROR, "application/json; charset=utf-8",
                     (void *)(uintptr_t)no_memory, strlen(no_memory), MHD_RESPMEM_PERSISTENT);
}

enum MHD_Result pi2_exchange_error(pi2_exchange *exchange, unsigned status, const char *type, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    const pi2_route *route = exchange->route ? exchange->route : exchange->other_route;
    const pi2_api_form form = route ? route->form : pi2_route_form_of(exchange->path);
    return pi2_exchange_json(exchange, status, pi2_error_json(form, status, type, text));
}

json_t *pi2_exchange_body(pi2_exchange *exchange, enum MHD_Result *result_out) {
    const char *body = exchange->body ? exchange->body : "";
    const size_t most = 2 * exchange->server->settings->body_bytes;
    const pi2_json_bounds bounds = pi2_json_measure(body, exchange->body_length);
    if (bounds.depth > PI2_JSON_DEPTH) {
        *result_out = pi2_exchange_error(exchange, MHD_HTTP_BAD_REQUEST, "invalid_request_error",
                                         "the JSON is nested %zu levels deep, %d are allowed", bounds.depth,
                                         PI2_JSON_DEPTH);
        return NULL;
    }
    if (bounds.memory > most) {
        *result_out = pi2_exchange_error(exchange, MHD_HTTP_CONTENT_TOO_LARGE, "invalid_request_error",
                                         "the JSON would take up to %zu bytes of memory, %zu are allowed",
                                         bounds.memory, most);
        return NULL;
    }
    exchange->json_room = most - bounds.memory;
    json_error_t error;
    json_t *value = json_loadb(body, exchange->body_length, JSON_REJECT_DUPLICATES, &error);
    if (json_is_object(value)) return value;
    if (value) {
        *result_out = pi2_exchange_error(exchange, MHD_HTTP_BAD_REQUEST, "invalid_request_error",
                                         "the body must be a JSON object");
    } else {
        *result_out = pi2_exchange_error(exchange, MHD_HTTP_BAD_REQUEST, "invalid_request_error",
                                         "the body is no JSON: line %d, column %d: %s", error.line, error.column,
                                         error.text);
    }
    json_decref(value);
    return NULL;
}

uint64_t pi2_exchange_deadline(const pi2_exchange *exchange) {
    const uint64_t seconds = exchange->server->settings->request_seconds;
    return seconds ? exchange->begin_ns + seconds * 1000000000u : 0;
}

void pi2_exchange_id(pi2_exchange *exchange, const char *prefix, char id[64]) {
    (void)snprintf(id, 64, "%s%016llx%08x", prefix, (unsigned long long)exchange->server->id_seed,
                   (unsigned)exchange->server->next_id++);
}

pi2_sampling pi2_exchange_sampling(const pi2_exchange *exchange) {
    pi2_sampling sampling = exchange->server->settings->sampling;
    if (exchange->server->engine) pi2_cli_advise_sampling(exchange->server->engine, &sampling);
    return sampling;
}
