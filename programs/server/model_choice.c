/* model_choice.c: which model a request gets, and what it is told where it gets none. */
#include <string.h>

#include "exchange.h"

bool pi2_exchange_sees_model(const pi2_exchange *exchange) {
    return !exchange->server->holder || exchange->has_model;
}

/** The name that the body has, empty where it has none. It is read once more when the model is there: the memory for
 *  one body's JSON is not kept from others until then. */
static bool read_name(pi2_exchange *exchange, char name[PI2_MODEL_NAME_BYTES], enum MHD_Result *result_out) {
    static const char message[] = "'model' must be the name of a model";
    (void)pthread_mutex_lock(&exchange->server->text_mutex);
    json_t *body = pi2_exchange_body(exchange, result_out);
    const json_t *value = json_object_get(body, "model");
    if (!value && exchange->route->form == PI2_API_OLLAMA) value = json_object_get(body, "name");
    const bool is_text = !value || json_is_null(value) || json_is_string(value), has_body = body != NULL;
    const char *text = json_string_value(value);
    if (text && strlen(text) < PI2_MODEL_NAME_BYTES) (void)snprintf(name, PI2_MODEL_NAME_BYTES, "%s", text);
    else (void)snprintf(name, PI2_MODEL_NAME_BYTES, "%s", text ? "/" : ""); /* too long a name is none of a file */
    json_decref(body);
    (void)pthread_mutex_unlock(&exchange->server->text_mutex);
    if (has_body && !is_text) {
        *result_out = pi2_exchange_error(exchange, MHD_HTTP_BAD_REQUEST, "invalid_request_error", "%s", message);
    }
    return has_body && is_text;
}

static enum MHD_Result tell_unknown(pi2_exchange *exchange, const char *name) {
    return pi2_exchange_error(exchange, MHD_HTTP_NOT_FOUND, "not_found_error",
                              "there is no model '%s': GET /v1/models lists those that are there", name);
}

static enum MHD_Result tell(pi2_exchange *exchange, pi2_take_result taken, const char *name, const char *reason) {
    switch (taken) {
    case PI2_TAKE_UNKNOWN: return tell_unknown(exchange, name);
    case PI2_TAKE_UNNAMED:
        return pi2_exchange_error(exchange, MHD_HTTP_BAD_REQUEST, "invalid_request_error",
                                  "'model' is missing, and no model is loaded: GET /v1/models lists those that are "
                                  "there");
    case PI2_TAKE_FULL:
        return pi2_exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "unavailable_error",
                                  "the queue is full: %zu requests wait for another model; try again",
                                  exchange->server->settings->queue_most);
    case PI2_TAKE_FAILED:
        return pi2_exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "unavailable_error",
                                  "the model does not load: %s", reason);
    case PI2_TAKE_LATE:
        return pi2_exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "unavailable_error",
                                  "the request waited for its model for the %u s that --request-timeout allows; try "
                                  "again", exchange->server->settings->request_seconds);
    case PI2_TAKE_GOOD:
    case PI2_TAKE_LEFT: break;
    }
    if (!exchange->server->is_stopping) return MHD_NO; /* nobody reads it */
    return pi2_exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "unavailable_error", "the server ends");
}

bool pi2_exchange_take_model(pi2_exchange *exchange, enum MHD_Result *result_out) {
    struct pi2_model_holder *holder = exchange->server->holder;
    char name[PI2_MODEL_NAME_BYTES], reason[PI2_MODEL_REASON_BYTES] = "";
    if (!holder || exchange->route->needs == PI2_NEEDS_NOTHING) return true;
    if (exchange->route->needs == PI2_NEEDS_LOOK) {
        exchange->has_model = exchange->only_looks = pi2_model_holder_look(holder);
        return true;
    }
    if (!read_name(exchange, name, result_out)) return false;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(exchange->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    (void)MHD_set_connection_option(exchange->connection, MHD_CONNECTION_OPTION_TIMEOUT, 0);
    const pi2_take_result taken =
        pi2_model_holder_take(holder, *name ? name : NULL, info ? info->connect_fd : -1,
                              pi2_exchange_deadline(exchange), reason);
    (void)MHD_set_connection_option(exchange->connection, MHD_CONNECTION_OPTION_TIMEOUT,
                                    exchange->server->settings->timeout_seconds);
    exchange->has_model = taken == PI2_TAKE_GOOD;
    if (!exchange->has_model) *result_out = tell(exchange, taken, name, reason);
    return exchange->has_model;
}

void pi2_exchange_let_model_go(pi2_exchange *exchange) {
    if (exchange->has_model) pi2_model_holder_let_go(exchange->server->holder, exchange->only_looks);
    exchange->has_model = exchange->only_looks = false;
}

bool pi2_exchange_find_model(pi2_exchange *exchange, bool *is_loaded_out, enum MHD_Result *result_out) {
    char name[PI2_MODEL_NAME_BYTES], found[PI2_MODEL_NAME_BYTES];
    uint64_t bytes;
    *is_loaded_out = true;
    if (!exchange->server->holder) return true;
    if (!read_name(exchange, name, result_out)) return false;
    if (*name && !pi2_model_holder_find(exchange->server->holder, name, found, &bytes)) {
        *result_out = tell_unknown(exchange, name);
        return false;
    }
    *is_loaded_out = exchange->has_model && (!*name || strcmp(found, exchange->server->alias) == 0);
    return true;
}
