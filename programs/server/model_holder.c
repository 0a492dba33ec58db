/* model_holder.c: see model_holder.h. */
#include "model_holder.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/timed_wait.h"
#include "exchange.h"

enum { PATH_BYTES = 4096, SPLIT_DIGITS = 5, WAIT_NS = 250000000 };
static const char suffix[] = ".gguf";

/** A request that waits for a model, on its thread's stack. */
typedef struct waiter {
    const char *name;
    enum { WAITS, HAS_IT, FAILED } state;
    char *reason;
    struct waiter *next;
} waiter;

struct pi2_model_holder {
    struct pi2_server *server; /* its engine, scheduler and alias: written by the thread, under the mutex, while nobody
                                  has the model */
    const pi2_model_opener *opener;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pi2_held_model model;      /* of the thread, and of stop and free after it */
    waiter *first;             /* in the order in which they came */
    size_t users;
    uint64_t used_ns;          /* when the last request let it go */
    bool is_stopping;
    pi2_holder_state state;    /* loading: nobody can take the model */
};

/* ---- the folder ---- */

/** Whether a file's name without its suffix is one of a split model's parts behind the first. */
static bool is_later_part(const char *name, size_t length) {
    static const char of[] = "-of-";
    const size_t tail = 1 + 2 * SPLIT_DIGITS + sizeof of - 1;
    if (length <= tail) return false;
    const char *part = name + length - tail;
    if (*part++ != '-' || strspn(part, "0123456789") != SPLIT_DIGITS) return false;
    if (strncmp(part + SPLIT_DIGITS, of, sizeof of - 1) != 0) return false;
    if (strspn(part + SPLIT_DIGITS + sizeof of - 1, "0123456789") < SPLIT_DIGITS) return false;
    return strncmp(part, "00001", SPLIT_DIGITS) != 0;
}

/** Whether a name, `length` bytes of a text, can be a model's: a file in the folder itself, which is not hidden. */
static bool is_model_name(const char *name, size_t length) {
    if (length == 0 || length >= PI2_MODEL_NAME_BYTES - sizeof suffix || *name == '.') return false;
    for (size_t i = 0; i < length; i++) {
        if (name[i] == '/' || (unsigned char)name[i] < ' ' || (name[i] == '.' && name[i + 1] == '.')) return false;
    }
    return !is_later_part(name, length);
}

static bool path_of(const pi2_model_holder *holder, const char *name, size_t length, char path[PATH_BYTES]) {
    const int written =
        snprintf(path, PATH_BYTES, "%s/%.*s%s", holder->opener->folder, (int)length, name, suffix);
    return written > 0 && written < PATH_BYTES;
}

/** Links are followed: a folder's owner may put them where the models really lie. */
static bool is_model(const pi2_model_holder *holder, const char *name, size_t length, uint64_t *bytes_out) {
    char path[PATH_BYTES];
    struct stat file;
    if (!is_model_name(name, length) || !path_of(holder, name, length, path)) return false;
    if (stat(path, &file) != 0 || !S_ISREG(file.st_mode)) return false;
    *bytes_out = (uint64_t)file.st_size;
    return true;
}

bool pi2_model_holder_find(const pi2_model_holder *holder, const char *name, char name_out[PI2_MODEL_NAME_BYTES],
                           uint64_t *bytes_out) {
    static const char latest[] = ":latest";
    size_t length = strlen(name);
    bool is_found = is_model(holder, name, length, bytes_out);
    if (!is_found && length > sizeof latest - 1 && strcmp(name + length - (sizeof latest - 1), latest) == 0) {
        length -= sizeof latest - 1;
        is_found = is_model(holder, name, length, bytes_out);
    }
    if (is_found) (void)snprintf(name_out, PI2_MODEL_NAME_BYTES, "%.*s", (int)length, name);
    return is_found;
}

json_t *pi2_model_holder_names(const pi2_model_holder *holder) {
    struct dirent **entries = NULL;
    const int count = scandir(holder->opener->folder, &entries, NULL, alphasort);
    json_t *names = count >= 0 ? json_array() : NULL;
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        const size_t length = strlen(name), end = sizeof suffix - 1;
        uint64_t bytes;
        if (length > end && strcmp(name + length - end, suffix) == 0 && is_model(holder, name, length - end, &bytes)) {
            (void)json_array_append_new(names, json_stringn(name, length - end)); /* none that is no UTF-8 */
        }
        free(entries[i]);
    }
    free(entries);
    return names;
}

/** The folder's only model. */
static bool find_only(const pi2_model_holder *holder, char name_out[PI2_MODEL_NAME_BYTES]) {
    json_t *names = pi2_model_holder_names(holder);
    const bool is_one = json_array_size(names) == 1;
    if (is_one) {
        (void)snprintf(name_out, PI2_MODEL_NAME_BYTES, "%s", json_string_value(json_array_get(names, 0)));
    }
    json_decref(names);
    return is_one;
}

/* ---- the thread; its functions are called with the mutex held ---- */

/** Waits for a change, until the deadline (0: none) and a quarter of a second at most: clients leave, and time passes,
 *  without a signal. */
static void wait_for_change(pi2_model_holder *holder, uint64_t deadline_ns) {
    uint64_t until_ns = pi2_cli_now_ns() + WAIT_NS;
    if (deadline_ns && deadline_ns < until_ns) until_ns = deadline_ns;
    (void)pi2_timed_wait(&holder->changed, &holder->mutex, until_ns);
}

/** All who wait for the model have it, or learn why not. */
static void answer_waiters(pi2_model_holder *holder, const char *name, bool is_good) {
    for (waiter **link = &holder->first; *link;) {
        waiter *one = *link;
        if (strcmp(one->name, name) != 0) {
            link = &one->next;
            continue;
        }
        *link = one->next;
        holder->state.waiting--;
        holder->users += is_good;
        one->state = is_good ? HAS_IT : FAILED;
        if (!is_good) (void)snprintf(one->reason, PI2_MODEL_REASON_BYTES, "%s", holder->state.failure);
    }
    (void)pthread_cond_broadcast(&holder->changed);
}

static void publish(pi2_model_holder *holder) {
    holder->server->engine = holder->model.engine;
    holder->server->scheduler = holder->model.scheduler;
    holder->server->alias = holder->state.loaded;
}

/** Nobody has the model, and nobody can take it: loading is set, or the server ends. */
static void unload(pi2_model_holder *holder) {
    pi2_held_model model = holder->model;
    if (!model.engine) return;
    holder->model = (pi2_held_model){0};
    *holder->state.loaded = '\0';
    holder->state.unloads++;
    publish(holder);
    (void)pthread_mutex_unlock(&holder->mutex);
    pi2_scheduler_stop(model.scheduler);
    holder->opener->close(holder->opener->user, &model);
    (void)pthread_mutex_lock(&holder->mutex);
}

static void load(pi2_model_holder *holder) {
    char path[PATH_BYTES], reason[PI2_MODEL_REASON_BYTES] = "";
    pi2_holder_state *state = &holder->state;
    pi2_held_model model = {0};
    (void)snprintf(state->loading, sizeof state->loading, "%s", holder->first->name);
    unload(holder);
    (void)pthread_mutex_unlock(&holder->mutex);
    const bool is_good = path_of(holder, state->loading, strlen(state->loading), path) &&
                         holder->opener->open(holder->opener->user, path, &model, reason);
    (void)pthread_mutex_lock(&holder->mutex);
    holder->model = model;
    state->loads += is_good;
    if (is_good) *state->failure = '\0';
    else (void)snprintf(state->failure, sizeof state->failure, "%.200s: %.800s", state->loading, reason);
    if (is_good) memcpy(state->loaded, state->loading, sizeof state->loaded);
    publish(holder);
    holder->used_ns = pi2_cli_now_ns();
    answer_waiters(holder, state->loading, is_good);
    *state->loading = '\0';
}

static bool is_idle_long(const pi2_model_holder *holder) {
    return holder->model.engine && holder->opener->idle_seconds && !holder->users && !holder->first &&
           pi2_cli_now_ns() - holder->used_ns >= holder->opener->idle_seconds * 1000000000ull;
}

static void *work(void *argument) {
    pi2_model_holder *holder = argument;
    (void)pthread_mutex_lock(&holder->mutex);
    while (!holder->is_stopping) {
        if (holder->first && strcmp(holder->first->name, holder->state.loaded) == 0) {
            answer_waiters(holder, holder->state.loaded, true); /* who wanted another has left */
        } else if (holder->first && !holder->users) {
            load(holder);
        } else if (is_idle_long(holder)) {
            unload(holder);
        } else {
            wait_for_change(holder, 0);
        }
    }
    (void)pthread_mutex_unlock(&holder->mutex);
    return NULL;
}

/* ---- who asks ---- */

/** Waits in the queue; the mutex is held. */
static pi2_take_result queue_for(pi2_model_holder *holder, const char *name, int socket, uint64_t deadline_ns,
                                 char *reason) {
    waiter own = {name, WAITS, reason, NULL}, **link = &holder->first;
    if (holder->state.waiting >= holder->opener->most_waiting) return PI2_TAKE_FULL;
    while (*link) link = &(*link)->next;
    *link = &own;
    holder->state.waiting++;
    (void)pthread_cond_broadcast(&holder->changed);
    bool is_late;
    for (;;) {
        is_late = deadline_ns && pi2_cli_now_ns() >= deadline_ns;
        if (own.state != WAITS || is_late || holder->is_stopping || pi2_client_has_left(socket)) break;
        wait_for_change(holder, deadline_ns);
    }
    if (own.state == HAS_IT) return PI2_TAKE_GOOD;
    if (own.state == FAILED) return PI2_TAKE_FAILED;
    for (link = &holder->first; *link != &own;) link = &(*link)->next;
    *link = own.next;
    holder->state.waiting--;
    (void)pthread_cond_broadcast(&holder->changed);
    return is_late ? PI2_TAKE_LATE : PI2_TAKE_LEFT;
}

pi2_take_result pi2_model_holder_take(pi2_model_holder *holder, const char *name, int socket, uint64_t deadline_ns,
                                      char *reason) {
    char wanted[PI2_MODEL_NAME_BYTES] = "";
    uint64_t bytes;
    if (name && !pi2_model_holder_find(holder, name, wanted, &bytes)) return PI2_TAKE_UNKNOWN;
    (void)pthread_mutex_lock(&holder->mutex);
    const pi2_holder_state *state = &holder->state;
    if (!*wanted) memcpy(wanted, *state->loading ? state->loading : state->loaded, sizeof wanted);
    if (!*wanted && !find_only(holder, wanted)) {
        (void)pthread_mutex_unlock(&holder->mutex);
        return PI2_TAKE_UNNAMED;
    }
    pi2_take_result result = PI2_TAKE_GOOD;
    if (holder->is_stopping) result = PI2_TAKE_LEFT;
    else if (holder->first || *state->loading || strcmp(wanted, state->loaded) != 0) {
        result = queue_for(holder, wanted, socket, deadline_ns, reason);
    } else holder->users++;
    (void)pthread_mutex_unlock(&holder->mutex);
    return result;
}

bool pi2_model_holder_look(pi2_model_holder *holder) {
    (void)pthread_mutex_lock(&holder->mutex);
    const bool is_there = *holder->state.loaded && !holder->is_stopping;
    holder->users += is_there;
    (void)pthread_mutex_unlock(&holder->mutex);
    return is_there;
}

void pi2_model_holder_let_go(pi2_model_holder *holder, bool looked) {
    (void)pthread_mutex_lock(&holder->mutex);
    if (!looked) holder->used_ns = pi2_cli_now_ns();
    if (--holder->users == 0) (void)pthread_cond_broadcast(&holder->changed);
    (void)pthread_mutex_unlock(&holder->mutex);
}

void pi2_model_holder_tell(pi2_model_holder *holder, pi2_holder_state *state_out) {
    (void)pthread_mutex_lock(&holder->mutex);
    *state_out = holder->state;
    (void)pthread_mutex_unlock(&holder->mutex);
}

/* ---- begin and end ---- */

static void destroy(pi2_model_holder *holder) {
    (void)pthread_mutex_destroy(&holder->mutex);
    (void)pthread_cond_destroy(&holder->changed);
    free(holder);
}

pi2_model_holder *pi2_model_holder_create(struct pi2_server *server, const pi2_model_opener *opener) {
    pi2_model_holder *holder = calloc(1, sizeof *holder);
    if (!holder) return NULL;
    holder->server = server;
    holder->opener = opener;
    (void)pthread_mutex_init(&holder->mutex, NULL);
    pi2_timed_condition_init(&holder->changed);
    if (pthread_create(&holder->thread, NULL, work, holder) == 0) return holder;
    destroy(holder);
    return NULL;
}

void pi2_model_holder_stop(pi2_model_holder *holder) {
    (void)pthread_mutex_lock(&holder->mutex);
    holder->is_stopping = true;
    (void)pthread_cond_broadcast(&holder->changed);
    (void)pthread_mutex_unlock(&holder->mutex);
    (void)pthread_join(holder->thread, NULL);
    if (holder->model.scheduler) pi2_scheduler_stop(holder->model.scheduler);
}

void pi2_model_holder_free(pi2_model_holder *holder) {
    if (!holder) return;
    holder->opener->close(holder->opener->user, &holder->model);
    destroy(holder);
}
