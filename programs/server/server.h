/*
 * server.h: what answers HTTP requests.
 *
 * A thread for each connection (libmicrohttpd) reads a request, bounded in every way, and hands what is to be generated
 * to the scheduler; one after another uses the engine's text functions, whose memory is planned once. The server
 * listens before the model is opened, and says so on /health.
 */
#ifndef PI2_SERVER_SERVER_H
#define PI2_SERVER_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/options.h"
#include "cli/scheduler.h"
#include "model_holder.h"
#include "powerinfer2/session.h"

typedef struct pi2_server pi2_server;

typedef struct pi2_server_settings {
    const char *host;
    uint16_t port;                 /* 0: any that is free */
    const char *const *keys;       /* [key_count]; none: everybody may ask */
    size_t key_count;
    const char *certificate, *private_key; /* PEM texts, for HTTPS; NULL: HTTP */
    const pi2_cli_texts *origins;  /* web pages that may ask, such as "https://example.org" */
    const char *template_kwargs;   /* as in pi2_engine_options, or NULL */
    size_t queue_most, parallel;   /* requests that wait, and that are answered at the same time, at most */
    unsigned timeout_seconds;      /* without a byte from or to a client */
    unsigned request_seconds;      /* from a request's headers to the end of its answer; 0: as long as it takes */
    size_t body_bytes;             /* of one request at most, and of all together that are read at a time */
    pi2_sampling sampling;         /* as asked for; pi2_exchange_sampling() is what a request begins with */
    int64_t limit;                 /* tokens of an answer where a request does not say; negative: none */
} pi2_server_settings;

/** Whether a name or address means this machine alone. */
bool pi2_server_is_loopback(const char *host);
/** Memory that the server takes beside the engine, but for requests that are answered at the moment. */
uint64_t pi2_server_beside_bytes(const pi2_server_settings *settings);
/** The same for the connection of one of those. */
uint64_t pi2_server_connection_bytes(void);

/**
 * Listens; every request is answered 503 until pi2_server_open(). Settings are kept by pointer. Returns PI2_EXIT_OK, or
 * an exit code after an error line.
 */
int pi2_server_start(const pi2_server_settings *settings, pi2_server **server_out);
/** The port that it listens on. */
uint16_t pi2_server_port(const pi2_server *server);
/** From now on requests are answered with this engine, whose name for clients is kept by pointer. */
void pi2_server_open(pi2_server *server, pi2_engine *engine, pi2_scheduler *scheduler, const char *alias);
/** The same with the models of a folder; the opener is kept by pointer. False: no memory, or no thread. */
bool pi2_server_open_folder(pi2_server *server, const pi2_model_opener *opener);
/** Ends what runs, as interrupted, and stops listening. */
void pi2_server_stop(pi2_server *server);

#endif
