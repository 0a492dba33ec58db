/* exchange.h: one request and its reply, within the server. */
#ifndef PI2_SERVER_EXCHANGE_H
#define PI2_SERVER_EXCHANGE_H

#include <jansson.h>
#include <pthread.h>

#include "cli/job.h"
#include "cli/output.h"
#include "cli/request_fields.h"
#include "cli/scheduler.h"
#include "http_library.h"
#include "server.h"

typedef struct pi2_exchange pi2_exchange;
typedef struct pi2_reply pi2_reply;

/** Whose form errors have. */
typedef enum pi2_api { PI2_API_OPENAI, PI2_API_ANTHROPIC, PI2_API_OLLAMA } pi2_api_form;

/** What a route has to have before it is asked. */
typedef enum pi2_route_needs {
    PI2_NEEDS_NOTHING,
    PI2_NEEDS_LOOK,  /* the model that is there; of a folder's maybe none, and the route says so */
    PI2_NEEDS_MODEL  /* the model that the request names */
} pi2_route_needs;

typedef struct pi2_route {
    const char *method, *path;
    pi2_api_form form;
    bool is_public;
    pi2_route_needs needs;
    enum MHD_Result (*handle)(pi2_exchange *exchange);
} pi2_route;
/** NULL: there is none; then *other_out is the path's route with another method, if it has one. */
const pi2_route *pi2_route_find(const char *method, const char *path, const pi2_route **other_out);
/** Whose client asks for a path at which nothing is. */
pi2_api_form pi2_route_form_of(const char *path);

struct pi2_server {
    const pi2_server_settings *settings;
    struct MHD_Daemon *daemon;
    struct pi2_connections *connections; /* which it is given */
    uint16_t port;
    bool is_loopback;          /* it listens on this machine alone */
    struct pi2_model_holder *holder; /* of a folder's models; NULL: there is one model */
    /* Once is_open; of a folder's models those of the one in memory, for exchanges that have it. */
    pi2_engine *engine;
    pi2_scheduler *scheduler;
    const char *alias;         /* the model's name for clients */
    _Atomic bool is_open, is_stopping;
    _Atomic size_t body_bytes; /* of all requests that are being read */
    _Atomic size_t grammar_bytes; /* of those that requests have */
    _Atomic uint32_t next_id;
    uint64_t id_seed;
    int64_t start_time;        /* seconds since 1970 */
    pthread_mutex_t text_mutex; /* one request at a time is parsed and tokenized: memory is planned for one */
};

struct pi2_exchange {
    struct pi2_server *server;
    struct MHD_Connection *connection;
    const pi2_route *route, *other_route; /* the other: of the same path, where the method has none */
    const char *path;
    char *body;                /* malloc'd, with a NUL behind it */
    size_t body_length, body_reserved;
    uint64_t begin_ns;         /* when its headers were there */
    uint64_t discarded_bytes;  /* of a body that is refused */
    size_t json_room;          /* once the body is JSON: bytes that it leaves of those planned for JSON */
    unsigned refusal;          /* status with which the request is refused once its body has come; 0: it is not */
    const char *refusal_type, *refusal_text;
    bool has_model, only_looks; /* it has the server's model, and lets it go at its end */
    pi2_reply *reply;          /* of an answer that is generated; freed with the exchange */
};

/** Sends a value and frees it; NULL: there was no memory. */
enum MHD_Result pi2_exchange_json(pi2_exchange *exchange, unsigned status, json_t *value);
enum MHD_Result pi2_exchange_text(pi2_exchange *exchange, const char *content_type, const char *text, size_t length);
/** An error in the form of the route's API. */
enum MHD_Result pi2_exchange_error(pi2_exchange *exchange, unsigned status, const char *type, const char *format, ...)
    PI2_CLI_PRINTF(4, 5);
/** The error of a route as JSON text, for a stream that has begun too. */
json_t *pi2_error_json(pi2_api_form form, unsigned status, const char *type, const char *text);
const char *pi2_error_type(pi2_status status, unsigned *http_status_out);
/** Notes the error of this thread's last failed call of the library. Returns false. */
bool pi2_fault_of(pi2_request_fault *fault, pi2_status status);
/** What a client is told of the library's error: this server's own failures, which name its files, go to stderr. */
const char *pi2_error_for_client(pi2_status status, const char *text);
/** Memory for a body is given back: what was needed of it is read. */
void pi2_exchange_drop_body(pi2_exchange *exchange);
/** Sends a response, with what every reply has, and lets go of it. */
enum MHD_Result pi2_exchange_send(pi2_exchange *exchange, unsigned status, struct MHD_Response *response);

/** Whether there is a model to tell of. */
bool pi2_exchange_sees_model(const pi2_exchange *exchange);
/** How tokens are drawn where the request does not say: as the server's options say, or the model's file. */
pi2_sampling pi2_exchange_sampling(const pi2_exchange *exchange);
/** Gets what its route needs of the models. False: an error was sent, and *result_out says whether. */
bool pi2_exchange_take_model(pi2_exchange *exchange, enum MHD_Result *result_out);
/** Once nothing of the reply needs it any more; where it has none nothing happens. */
void pi2_exchange_let_model_go(pi2_exchange *exchange);

/** Whether the model that the body names is the one in memory, which is not asked for. False: an error was sent. */
bool pi2_exchange_find_model(pi2_exchange *exchange, bool *is_loaded_out, enum MHD_Result *result_out);

/** The body as a JSON object within the bounds; NULL: an error was sent, and *result_out says whether. */
json_t *pi2_exchange_body(pi2_exchange *exchange, enum MHD_Result *result_out);

/** When its request has to be answered, of pi2_cli_now_ns(); 0: never. */
uint64_t pi2_exchange_deadline(const pi2_exchange *exchange);

/** "prefix" and a number that no other reply of this server has. */
void pi2_exchange_id(pi2_exchange *exchange, const char *prefix, char id[64]);

#endif
