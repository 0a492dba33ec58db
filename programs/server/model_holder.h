/*
 * model_holder.h: a folder of models, of which one at a time is in memory.
 *
 * A request takes the model that it names, and lets it go when its reply is complete. Where another is in memory, the
 * request waits until all who have that one have let it go; from then on nobody passes it, so that two models that are
 * always asked for take turns. The holder's thread opens and closes engines; while anybody has the model, the server's
 * engine, scheduler and alias stay what they are.
 */
#ifndef PI2_SERVER_MODEL_HOLDER_H
#define PI2_SERVER_MODEL_HOLDER_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/scheduler.h"
#include "powerinfer2/prompt_cache.h"

struct pi2_server;
typedef struct pi2_model_holder pi2_model_holder;

enum { PI2_MODEL_NAME_BYTES = 256, PI2_MODEL_REASON_BYTES = 1024 };

/** What a model in memory is; all NULL: none. */
typedef struct pi2_held_model {
    pi2_engine *engine;
    pi2_scheduler *scheduler;
    pi2_prompt_cache *cache; /* NULL: none */
} pi2_held_model;

typedef struct pi2_model_opener {
    void *user;
    /** Opens a file's model. False: reason[PI2_MODEL_REASON_BYTES] says why, and there is nothing to be closed. */
    bool (*open)(void *user, const char *path, pi2_held_model *model, char *reason);
    /** Closes what there is of it, and empties it; its scheduler was stopped. */
    void (*close)(void *user, pi2_held_model *model);
    const char *folder;
    unsigned idle_seconds; /* after which a model that nobody uses leaves memory; 0: never */
    size_t most_waiting;   /* requests that wait for a model */
} pi2_model_opener;

typedef enum pi2_take_result {
    PI2_TAKE_GOOD,
    PI2_TAKE_UNNAMED, /* none was named, and it is not clear which is meant */
    PI2_TAKE_UNKNOWN,
    PI2_TAKE_FULL,    /* too many wait */
    PI2_TAKE_FAILED,  /* it does not load; reason says why */
    PI2_TAKE_LATE,    /* the deadline has passed */
    PI2_TAKE_LEFT     /* the client has gone, or the server ends */
} pi2_take_result;

typedef struct pi2_holder_state {
    char loaded[PI2_MODEL_NAME_BYTES], loading[PI2_MODEL_NAME_BYTES]; /* empty: none */
    char failure[PI2_MODEL_REASON_BYTES]; /* of the last model that was opened; empty: it was no failure */
    uint64_t loads, unloads;
    size_t waiting;
} pi2_holder_state;

/** Both are kept by pointer; the server is filled in whenever the model changes. NULL: no memory, or no thread. */
pi2_model_holder *pi2_model_holder_create(struct pi2_server *server, const pi2_model_opener *opener);
/** Opens nothing more; who waits for a model is refused, and what is computed ends, as interrupted. */
void pi2_model_holder_stop(pi2_model_holder *holder);
/** After stop, when nobody has the model. NULL is fine. */
void pi2_model_holder_free(pi2_model_holder *holder);

/**
 * The model `name` is the caller's to use until it is let go. name NULL: the one in memory, or the folder's only one.
 * Waits for it as long as the client at the socket is there, until deadline_ns of pi2_cli_now_ns() (0: for ever).
 */
pi2_take_result pi2_model_holder_take(pi2_model_holder *holder, const char *name, int socket, uint64_t deadline_ns,
                                      char *reason);
/** Takes what is in memory to look at it. False: nothing is, or it is about to leave. */
bool pi2_model_holder_look(pi2_model_holder *holder);
/** looked: by pi2_model_holder_look(), which is no use that keeps the model in memory. */
void pi2_model_holder_let_go(pi2_model_holder *holder, bool looked);

void pi2_model_holder_tell(pi2_model_holder *holder, pi2_holder_state *state_out);
/** Finds `name` in the folder, or without the ":latest" of Ollama's clients; name_out as the folder has it. */
bool pi2_model_holder_find(const pi2_model_holder *holder, const char *name, char name_out[PI2_MODEL_NAME_BYTES],
                           uint64_t *bytes_out);
/** The folder's models, by name: an array of strings; NULL: no memory, or the folder cannot be read. */
struct json_t *pi2_model_holder_names(const pi2_model_holder *holder);

#endif
