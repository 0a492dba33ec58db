/* server.c: connections, what a request must be before anybody looks at its content, and the end. */
#include "server.h"

#include <arpa/inet.h>
#include <stdatomic.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "answer_form.h"
#include "answering.h"
#include "connections.h"
#include "exchange.h"

enum { HEADER_BYTES = 16384, STACK_BYTES = 1 << 20, TOUCHED_STACK_BYTES = 96 << 10, MORE_CONNECTIONS = 16,
       OWN_BYTES = 1 << 20, TLS_BYTES = 4 << 20, TLS_CONNECTION_BYTES = 64 << 10, REQUEST_SECONDS = 30,
       DISCARD_BYTES = 64 << 20 };

static unsigned connections_most(const pi2_server_settings *settings) {
    return (unsigned)(settings->queue_most + settings->parallel) + MORE_CONNECTIONS;
}

uint64_t pi2_server_connection_bytes(void) { return HEADER_BYTES + TOUCHED_STACK_BYTES; }

/* Bodies that are read, one as JSON (twice its bytes), and once more as what the template takes; grammars. */
uint64_t pi2_server_beside_bytes(const pi2_server_settings *settings) {
    const uint64_t connections = settings->queue_most + settings->parallel + MORE_CONNECTIONS;
    const uint64_t tls_bytes = settings->certificate ? TLS_BYTES + connections * TLS_CONNECTION_BYTES : 0;
    return OWN_BYTES + tls_bytes + 4 * (uint64_t)settings->body_bytes + 2 * (uint64_t)pi2_answer_form_room(settings) +
           (settings->queue_most + MORE_CONNECTIONS) * pi2_server_connection_bytes();
}

/* ---- who may ask ---- */

/** Takes as long for a key that is wrong in its first byte as for one that is wrong in its last. */
static bool is_same_key(const char *key, const char *given, size_t given_length) {
    const size_t length = strlen(key);
    unsigned difference = length != given_length;
    for (size_t i = 0; i < given_length; i++) {
        difference |= (unsigned)(unsigned char)given[i] ^ (unsigned char)key[length ? i % length : 0];
    }
    return difference == 0;
}

static bool has_key(const pi2_exchange *exchange) {
    const pi2_server_settings *settings = exchange->server->settings;
    static const char scheme[] = "Bearer ";
    const char *given = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, "Authorization");
    if (given) given = strncasecmp(given, scheme, strlen(scheme)) == 0 ? given + strlen(scheme) : "";
    else given = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, "X-Api-Key");
    bool found = false;
    for (size_t i = 0; given && i < settings->key_count; i++) {
        found |= is_same_key(settings->keys[i], given, strlen(given));
    }
    return found;
}

/* An address, not a name that looks like one: whoever owns a name decides where it points. */
bool pi2_server_is_loopback(const char *host) {
    struct in_addr address;
    if (inet_pton(AF_INET, host, &address) == 1) return ntohl(address.s_addr) >> 24 == 127;
    return strcasecmp(host, "localhost") == 0 || strcmp(host, "::1") == 0;
}

/** The name in "name:port" or "[name]:port". */
static void host_name(const char *host, char name[256]) {
    const bool has_brackets = *host == '[';
    const size_t length = has_brackets ? strcspn(host + 1, "]") : strcspn(host, ":");
    (void)snprintf(name, 256, "%.*s", (int)(length < 255 ? length : 255), host + has_brackets);
}

/**
 * A page of another origin may not ask, whatever its browser lets it read of the reply; and a name that was made to
 * point here does not make a page one of ours (DNS rebinding): a server on this machine alone knows its own names.
 */
static const char *refuse_page(const pi2_exchange *exchange) {
    const pi2_server_settings *settings = exchange->server->settings;
    const char *host = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, "Host");
    const char *origin = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, "Origin");
    char name[256];
    if (host && settings->key_count == 0 && exchange->server->is_loopback) {
        host_name(host, name);
        const bool is_own = pi2_server_is_loopback(name) || strcasecmp(name, settings->host) == 0;
        if (!is_own) return "this name is not one of this server's";
    }
    if (!origin) return NULL;
    for (size_t i = 0; i < settings->origins->count; i++) {
        if (strcmp(settings->origins->items[i], origin) == 0) return NULL;
    }
    const char *own = strstr(origin, "://");
    if (own && host && strcasecmp(own + 3, host) == 0) return NULL;
    return "pages of this origin may not ask (--cors-origins names those that may)";
}

/* ---- one request ---- */

static void refuse(pi2_exchange *exchange, unsigned status, const char *type, const char *text) {
    if (exchange->refusal) return;
    exchange->refusal = status;
    exchange->refusal_type = type;
    exchange->refusal_text = text;
}

static void check_request(pi2_exchange *exchange, const char *method, const char *path) {
    exchange->route = pi2_route_find(method, path, &exchange->other_route);
    const char *refused = refuse_page(exchange);
    if (refused) refuse(exchange, MHD_HTTP_FORBIDDEN, "permission_error", refused);
    if (strcmp(method, "OPTIONS") == 0) return;
    if (!exchange->route || !exchange->route->is_public) {
        if (exchange->server->settings->key_count && !has_key(exchange)) {
            refuse(exchange, MHD_HTTP_UNAUTHORIZED, "authentication_error",
                   "this server wants a key, and the request has none or another");
        }
    }
    if (!exchange->route && exchange->other_route) {
        refuse(exchange, MHD_HTTP_METHOD_NOT_ALLOWED, "invalid_request_error", "this path has other methods");
    } else if (!exchange->route) {
        refuse(exchange, MHD_HTTP_NOT_FOUND, "not_found_error", "nothing is at this path");
    } else if (exchange->route->needs && !exchange->server->is_open) {
        refuse(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "unavailable_error", "Loading model");
    } else if (exchange->server->is_stopping) {
        refuse(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "unavailable_error", "the server ends");
    }
}

/** Takes room for a body from what all of them have together. */
static bool reserve_body(pi2_exchange *exchange, size_t bytes) {
    const size_t most = exchange->server->settings->body_bytes + OWN_BYTES / 4; /* beside a long one short ones come */
    const size_t before = atomic_fetch_add(&exchange->server->body_bytes, bytes);
    if (before + bytes > most) {
        (void)atomic_fetch_sub(&exchange->server->body_bytes, bytes);
        return false;
    }
    exchange->body_reserved += bytes;
    return true;
}

void pi2_exchange_drop_body(pi2_exchange *exchange) {
    free(exchange->body);
    exchange->body = NULL;
    (void)atomic_fetch_sub(&exchange->server->body_bytes, exchange->body_reserved);
    exchange->body_reserved = 0;
}

/** A body that comes too slowly, or that has no end though it is refused, is worth no connection. */
static bool is_endless(pi2_exchange *exchange, size_t length) {
    if (exchange->refusal) exchange->discarded_bytes += length;
    return exchange->discarded_bytes > DISCARD_BYTES ||
           (pi2_cli_now_ns() - exchange->begin_ns) / 1000000000 >= exchange->server->settings->timeout_seconds;
}

/** What is refused is read to its end, so that the client reads why. */
static void take_body(pi2_exchange *exchange, const char *data, size_t length) {
    const size_t most = exchange->server->settings->body_bytes;
    if (length > most || exchange->body_length + length > most) {
        refuse(exchange, MHD_HTTP_CONTENT_TOO_LARGE, "invalid_request_error", "the body is too long");
    }
    if (exchange->refusal) {
        pi2_exchange_drop_body(exchange);
        return;
    }
    const size_t needed = exchange->body_length + length + 1;
    if (needed > exchange->body_reserved) {
        const size_t wanted = needed < 4096 ? 4096 : 2 * needed;
        const size_t bytes = wanted < most + 1 ? wanted : most + 1;
        char *grown = bytes <= most + 1 && (reserve_body(exchange, bytes - exchange->body_reserved) ||
                                            reserve_body(exchange, needed - exchange->body_reserved))
                          ? realloc(exchange->body, exchange->body_reserved) : NULL;
        if (!grown) {
            refuse(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "unavailable_error",
                   "other requests have the memory for bodies: try again");
            return;
        }
        exchange->body = grown;
    }
    memcpy(exchange->body + exchange->body_length, data, length);
    exchange->body_length += length;
    exchange->body[exchange->body_length] = '\0';
}

static enum MHD_Result answer_preflight(pi2_exchange *exchange) {
    struct MHD_Response *response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (response) {
        (void)MHD_add_response_header(response, "Access-Control-Allow-Methods", "GET, POST");
        (void)MHD_add_response_header(response, "Access-Control-Allow-Headers",
                                      "Authorization, Content-Type, X-Api-Key, anthropic-version");
        (void)MHD_add_response_header(response, "Access-Control-Max-Age", "86400");
    }
    return pi2_exchange_send(exchange, MHD_HTTP_NO_CONTENT, response);
}

/** The model is let go at once where the reply is whole; one that grows has it to its end (on_completed). */
static enum MHD_Result answer(pi2_exchange *exchange) {
    enum MHD_Result result = MHD_NO;
    if (!pi2_exchange_take_model(exchange, &result)) return result;
    result = exchange->route->handle(exchange);
    if (exchange->reply && !exchange->reply->streams) {
        pi2_reply_free(exchange->reply);
        exchange->reply = NULL;
    }
    if (!exchange->reply) pi2_exchange_let_model_go(exchange);
    return result;
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *path, const char *method,
                                  const char *version, const char *data, size_t *data_length, void **state) {
    (void)version;
    pi2_exchange *exchange = *state;
    if (!exchange) {
        exchange = calloc(1, sizeof *exchange);
        if (!exchange) return MHD_NO;
        *state = exchange;
        exchange->server = user;
        exchange->connection = connection;
        exchange->path = path;
        exchange->begin_ns = pi2_cli_now_ns();
        check_request(exchange, method, path);
        const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");
        if (length && strtoull(length, NULL, 10) > DISCARD_BYTES) { /* too much to be read for a reply's sake */
            return pi2_exchange_error(exchange, MHD_HTTP_CONTENT_TOO_LARGE, "invalid_request_error",
                                      "the body is too long");
        }
        return MHD_YES;
    }
    if (*data_length) {
        if (is_endless(exchange, *data_length)) return MHD_NO;
        take_body(exchange, data, *data_length);
        *data_length = 0;
        return MHD_YES;
    }
    if (exchange->refusal == MHD_HTTP_CONTENT_TOO_LARGE) {
        return pi2_exchange_error(exchange, exchange->refusal, exchange->refusal_type,
                                  "%s: %zu bytes at most", exchange->refusal_text,
                                  exchange->server->settings->body_bytes);
    }
    if (exchange->refusal) {
        return pi2_exchange_error(exchange, exchange->refusal, exchange->refusal_type, "%s", exchange->refusal_text);
    }
    if (strcmp(method, "OPTIONS") == 0) return answer_preflight(exchange);
    return answer(exchange);
}

/** Who sends nothing gives the connection up sooner than who reads slowly. */
static unsigned request_timeout(const pi2_server_settings *settings) {
    return settings->timeout_seconds < REQUEST_SECONDS ? settings->timeout_seconds : REQUEST_SECONDS;
}

static void on_completed(void *user, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code) {
    (void)user;
    (void)code;
    pi2_exchange *exchange = *state;
    if (!exchange) return;
    (void)MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT,
                                    request_timeout(exchange->server->settings)); /* of the next request's wait */
    pi2_reply_free(exchange->reply);
    pi2_exchange_let_model_go(exchange);
    pi2_exchange_drop_body(exchange);
    free(exchange);
    *state = NULL;
}

/* ---- start and end ---- */

static bool is_loopback_address(const struct sockaddr_storage *address) {
    if (address->ss_family == AF_INET6) {
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
    }
    return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24 == 127;
}

/** A socket that listens, or -1 after an error line. What counts is the address that the host's name came to. */
static int listen_on(const pi2_server_settings *settings, uint16_t *port_out, bool *is_loopback_out) {
    char port[8];
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    (void)snprintf(port, sizeof port, "%u", (unsigned)settings->port);
    const int code = getaddrinfo(settings->host, port, &hints, &found);
    if (code != 0) {
        (void)pi2_cli_usage_error("--host %s: %s", settings->host, gai_strerror(code));
        return -1;
    }
    const int on = 1, listener = socket(found->ai_family, SOCK_STREAM, 0);
    if (listener >= 0) {
        (void)fcntl(listener, F_SETFD, FD_CLOEXEC);
        (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    }
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    const bool is_bound = listener >= 0 && bind(listener, found->ai_addr, found->ai_addrlen) == 0 &&
                          listen(listener, 64) == 0 &&
                          getsockname(listener, (struct sockaddr *)&address, &length) == 0;
    freeaddrinfo(found);
    if (!is_bound) {
        (void)pi2_cli_io_error("cannot listen on %s, port %u", settings->host, (unsigned)settings->port);
        if (listener >= 0) (void)close(listener);
        return -1;
    }
    *is_loopback_out = is_loopback_address(&address);
    *port_out = ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                                    : ((struct sockaddr_in *)&address)->sin_port);
    return listener;
}

/** The HTTP library, which is given connections. NULL: it cannot start. */
static struct MHD_Daemon *start_daemon(pi2_server *server) {
    const pi2_server_settings *settings = server->settings;
    const struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)settings->certificate},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)settings->private_key},
        {MHD_OPTION_END, 0, NULL}};
    const bool has_tls = settings->certificate != NULL;
    const unsigned flags = MHD_USE_POLL | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION |
                           MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC;
    return MHD_start_daemon(
        has_tls ? flags | MHD_USE_TLS : flags, 0, NULL, NULL, on_request, server, MHD_OPTION_ARRAY,
        has_tls ? tls : tls + 2, MHD_OPTION_NOTIFY_COMPLETED, on_completed, server, MHD_OPTION_NOTIFY_CONNECTION,
        pi2_connections_note, server->connections, MHD_OPTION_CONNECTION_LIMIT, 2 * connections_most(settings),
        MHD_OPTION_CONNECTION_TIMEOUT, request_timeout(settings), MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)HEADER_BYTES, MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_BYTES, MHD_OPTION_END);
}

/** Listens and answers. Returns false after an error line. */
static bool start(pi2_server *server) {
    const pi2_server_settings *settings = server->settings;
    const int listener = listen_on(settings, &server->port, &server->is_loopback);
    if (listener < 0) return false;
    server->connections = pi2_connections_create(listener, connections_most(settings));
    if (server->connections) server->daemon = start_daemon(server);
    if (server->daemon && pi2_connections_start(server->connections, server->daemon)) return true;
    (void)pi2_cli_usage_error("the HTTP library cannot start%s", settings->certificate
                              ? ": look whether the certificate and the key are PEM, and belong together" : "");
    if (server->connections) pi2_connections_stop(server->connections);
    if (server->daemon) MHD_stop_daemon(server->daemon);
    return false;
}

static void free_server(pi2_server *server) {
    pi2_model_holder_free(server->holder);
    pi2_connections_free(server->connections);
    (void)pthread_mutex_destroy(&server->text_mutex);
    free(server);
}

int pi2_server_start(const pi2_server_settings *settings, pi2_server **server_out) {
    *server_out = NULL;
    pi2_server *server = calloc(1, sizeof *server);
    if (!server) return pi2_cli_usage_error("no memory for the server");
    server->settings = settings;
    server->start_time = (int64_t)time(NULL);
    server->id_seed = pi2_cli_now_ns() ^ (uint64_t)server->start_time << 32 ^ (uint64_t)getpid(); /* no secret */
    (void)pthread_mutex_init(&server->text_mutex, NULL);
    if (start(server)) {
        *server_out = server;
        return PI2_EXIT_OK;
    }
    free_server(server);
    return PI2_EXIT_IO;
}

uint16_t pi2_server_port(const pi2_server *server) { return server->port; }

void pi2_server_open(pi2_server *server, pi2_engine *engine, pi2_scheduler *scheduler, const char *alias) {
    server->engine = engine;
    server->scheduler = scheduler;
    server->alias = alias;
    server->is_open = true;
}

bool pi2_server_open_folder(pi2_server *server, const pi2_model_opener *opener) {
    server->holder = pi2_model_holder_create(server, opener);
    if (server->holder) server->is_open = true;
    return server->holder != NULL;
}

void pi2_server_stop(pi2_server *server) {
    if (!server) return;
    server->is_stopping = true;
    if (server->holder) pi2_model_holder_stop(server->holder); /* replies end, with what there is */
    else if (server->is_open) pi2_scheduler_stop(server->scheduler);
    pi2_connections_stop(server->connections);
    MHD_stop_daemon(server->daemon);
    free_server(server);
}
