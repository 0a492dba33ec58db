/*
 * next_table.h: a table of what a model says behind each single token, made of the model alone, from which guesses are
 * made where earlier text has none (docs/guesses.md). It lies beside the model and is used by itself.
 */
#ifndef POWERINFER2_NEXT_TABLE_H
#define POWERINFER2_NEXT_TABLE_H

#include "powerinfer2/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Bytes of a table's path. */
enum { PI2_NEXT_TABLE_PATH_BYTES = 1088 };

/**
 * Makes the table: the model computes each token of its vocabulary once, behind the token that texts begin with, where
 * there is one, as many in a pass as the engine has sequences. The file has its name only once it is whole. Progress
 * and cancelling are the engine's.
 * engine    in   without a session, without guesses
 * path_out  out  where it lies: "model.gguf" and "model.pi2" have "model.next-tokens"
 * Errors  INVALID (what lies there is no such table; too long a path), IO, MEMORY, INTERRUPTED, as pi2_session_append()
 */
PI2_API pi2_status pi2_next_table_make(pi2_engine *engine, char path_out[PI2_NEXT_TABLE_PATH_BYTES]);

#ifdef __cplusplus
}
#endif
#endif
