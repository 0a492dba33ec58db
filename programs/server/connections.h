/*
 * connections.h: accepts clients' connections, so many at a time: others wait until one of those ends.
 *
 * libmicrohttpd with a limit of its own closes connections beyond it, which clients see as a failure.
 */
#ifndef PI2_SERVER_CONNECTIONS_H
#define PI2_SERVER_CONNECTIONS_H

#include "http_library.h"

typedef struct pi2_connections pi2_connections;

/** Takes over the listening socket, also where it fails. NULL: no memory, or descriptors. */
pi2_connections *pi2_connections_create(int listener, unsigned most);
/** The function of MHD_OPTION_NOTIFY_CONNECTION; its user: the connections. */
void pi2_connections_note(void *user, struct MHD_Connection *connection, void **state,
                          enum MHD_ConnectionNotificationCode code);
/** Hands connections to the daemon, which has no socket of its own, from now on. False: no thread. */
bool pi2_connections_start(pi2_connections *connections, struct MHD_Daemon *daemon);
/** Accepts none any more, and closes the socket. Before the daemon is stopped. */
void pi2_connections_stop(pi2_connections *connections);
/** After the daemon is stopped. NULL is fine. */
void pi2_connections_free(pi2_connections *connections);

#endif
