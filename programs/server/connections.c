/* connections.c: see connections.h. */
#include "connections.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cli/output.h"
#include "cli/timed_wait.h"

struct pi2_connections {
    int listener, wake[2];   /* a byte in the pipe ends the wait for clients */
    struct MHD_Daemon *daemon;
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    unsigned most, count;    /* connections that the daemon has */
    uint64_t started;        /* connections that it ever began with */
    bool is_stopping;
};

pi2_connections *pi2_connections_create(int listener, unsigned most) {
    pi2_connections *connections = calloc(1, sizeof *connections);
    if (!connections || pipe(connections->wake) != 0) {
        free(connections);
        (void)close(listener);
        return NULL;
    }
    for (int i = 0; i < 2; i++) (void)fcntl(connections->wake[i], F_SETFD, FD_CLOEXEC);
    /* Whoever left between poll() and accept() must not hold the thread. */
    (void)fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) | O_NONBLOCK);
    connections->listener = listener;
    connections->most = most;
    (void)pthread_mutex_init(&connections->mutex, NULL);
    pi2_timed_condition_init(&connections->changed);
    return connections;
}

void pi2_connections_note(void *user, struct MHD_Connection *connection, void **state,
                          enum MHD_ConnectionNotificationCode code) {
    pi2_connections *connections = user;
    (void)connection;
    (void)state;
    (void)pthread_mutex_lock(&connections->mutex);
    connections->started += code == MHD_CONNECTION_NOTIFY_STARTED;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) connections->count++;
    else connections->count--;
    (void)pthread_cond_broadcast(&connections->changed);
    (void)pthread_mutex_unlock(&connections->mutex);
}

/** Waits until there is room for a connection. False: no more are to be accepted. */
static bool wait_for_room(pi2_connections *connections) {
    (void)pthread_mutex_lock(&connections->mutex);
    while (connections->count >= connections->most && !connections->is_stopping) {
        (void)pthread_cond_wait(&connections->changed, &connections->mutex);
    }
    const bool goes_on = !connections->is_stopping;
    (void)pthread_mutex_unlock(&connections->mutex);
    return goes_on;
}

/** Waits until the daemon's own thread has begun with the connection; one that it could not begin with is closed. */
static void wait_for_start(pi2_connections *connections, uint64_t started_before) {
    const uint64_t until_ns = pi2_cli_now_ns() + 1000000000u;
    (void)pthread_mutex_lock(&connections->mutex);
    while (connections->started == started_before && !connections->is_stopping &&
           pi2_timed_wait(&connections->changed, &connections->mutex, until_ns)) {}
    (void)pthread_mutex_unlock(&connections->mutex);
}

static void accept_one(pi2_connections *connections) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    const int client = accept(connections->listener, (struct sockaddr *)&address, &length);
    if (client >= 0) {
        (void)fcntl(client, F_SETFD, FD_CLOEXEC);
        (void)pthread_mutex_lock(&connections->mutex);
        const uint64_t started = connections->started;
        (void)pthread_mutex_unlock(&connections->mutex);
        const bool is_taken = MHD_add_connection(connections->daemon, client, (struct sockaddr *)&address, length);
        if (is_taken) wait_for_start(connections, started);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        const struct timespec moment = {0, 10000000}; /* others have to close theirs first */
        (void)nanosleep(&moment, NULL);
    }
}

static void *work(void *argument) {
    pi2_connections *connections = argument;
    while (wait_for_room(connections)) {
        struct pollfd polled[] = {{.fd = connections->listener, .events = POLLIN},
                                  {.fd = connections->wake[0], .events = POLLIN}};
        if (poll(polled, 2, -1) > 0 && polled[0].revents) accept_one(connections);
    }
    return NULL;
}

bool pi2_connections_start(pi2_connections *connections, struct MHD_Daemon *daemon) {
    connections->daemon = daemon;
    connections->has_thread = pthread_create(&connections->thread, NULL, work, connections) == 0;
    return connections->has_thread;
}

void pi2_connections_stop(pi2_connections *connections) {
    (void)pthread_mutex_lock(&connections->mutex);
    connections->is_stopping = true;
    (void)pthread_cond_broadcast(&connections->changed);
    (void)pthread_mutex_unlock(&connections->mutex);
    (void)!write(connections->wake[1], "", 1);
    if (connections->has_thread) (void)pthread_join(connections->thread, NULL);
    (void)close(connections->listener);
    connections->has_thread = false;
}

void pi2_connections_free(pi2_connections *connections) {
    if (!connections) return;
    for (int i = 0; i < 2; i++) (void)close(connections->wake[i]);
    (void)pthread_mutex_destroy(&connections->mutex);
    (void)pthread_cond_destroy(&connections->changed);
    free(connections);
}
