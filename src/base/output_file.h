/*
 * output_file.h: a file that we write as a whole: under a temporary name beside its place, which it
 * takes when it is complete. Nothing else than what may be replaced is ever replaced: not a file that
 * the same command reads, not a file of another kind, never a device or a folder. A pipe, a terminal,
 * /dev/null and /dev/stdout are written into, where the kind can be written from front to back.
 */
#ifndef PI2_BASE_OUTPUT_FILE_H
#define PI2_BASE_OUTPUT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/fail.h"

enum { PI2_OUTPUT_HEAD_BYTES = 256, PI2_OUTPUT_PATH_BYTES = 1024, PI2_OUTPUT_TEMPORARY_BYTES = 1032 };

/** What is written, and how a file of that kind is known by its content. */
typedef struct pi2_output_kind {
    const char *what; /* "a machine profile" */
    /** Whether a file is of this kind. head: its first bytes, `count` of them, at least 1. */
    bool (*recognises)(const char *path, const uint8_t *head, size_t count);
    bool may_flow;    /* written from front to back, so that it may go into a pipe */
    bool is_private;  /* only its owner may read it (0600), whatever the umask lets */
} pi2_output_kind;

typedef struct pi2_output_request {
    const char *path;
    const pi2_output_kind *kind;
    const char *const *inputs; /* files that the same command reads, NULL at the end; NULL: none */
    bool force;                /* a file of another kind may be replaced */
} pi2_output_request;

/** Where an output goes: decided before anything is written. */
typedef struct pi2_output_place {
    pi2_output_request request; /* path: the place's own */
    bool is_direct;             /* a pipe or a device, or `descriptor`: there is no temporary file */
    int descriptor;             /* of this process, by /dev/fd/N and links to it; -1: none */
    char path[PI2_OUTPUT_PATH_BYTES]; /* with links followed: what is replaced is what was looked at */
} pi2_output_place;

/**
 * Looks where an output would go. Inputs must live as long as the place is used, or be set to NULL in it.
 * Errors  INVALID (an input, a file of another kind, a folder, a device: which, and what to do; too long a path)
 */
pi2_status pi2_output_find(const pi2_output_request *request, pi2_output_place *place_out);
/** Whether an output may be written and its folder lets us, for work that takes long and would find out at its end.
 *  Errors  as pi2_output_find(); IO (folder, reason) */
pi2_status pi2_output_check_ahead(const pi2_output_request *request);
/** Whether both name one place for a file, so that one would replace the other; pipes and devices may be shared. */
bool pi2_output_is_same(const char *path, const char *other);
/** The hidden name under which a file is written first: ".<name>.tmp" in its folder. */
void pi2_output_name_temporary(const pi2_output_place *place, char path_out[PI2_OUTPUT_TEMPORARY_BYTES]);
/**
 * Opens the temporary file, making it where there is none; what a killed run left is used over. It is neither
 * emptied nor locked (flock) here. flags: as those of open(). Errors  IO, INVALID (something else lies there)
 */
pi2_status pi2_output_open_temporary(const pi2_output_place *place, const char *temporary_path, int flags,
                                     int *file_out);
/** The same, and locks and empties it. Errors  IO (another run is writing it, too) */
pi2_status pi2_output_lock_temporary(const pi2_output_place *place, const char *temporary_path, int flags,
                                     int *file_out);
/** Gives the temporary file its name, unless by now something lies there that may not be replaced.
 *  Errors  IO, INVALID; the temporary file is left to the caller. */
pi2_status pi2_output_take_place(const pi2_output_place *place, const char *temporary_path);

/* ---- files of text, and others that are written through stdio ---- */

typedef struct pi2_output_file {
    FILE *stream;              /* NULL: not open */
    int error_number;          /* of the first write that failed */
    pi2_output_place place;
    char temporary_path[PI2_OUTPUT_TEMPORARY_BYTES];
} pi2_output_file;

/** Errors  as pi2_output_find(); IO (path, reason). The file is then not open. */
pi2_status pi2_output_file_open(pi2_output_file *file, const pi2_output_request *request);
/** Writes text, or bytes. A failure is kept, and told by pi2_output_file_finish(). */
void pi2_output_file_write(pi2_output_file *file, const void *bytes, size_t count);
void pi2_output_file_print(pi2_output_file *file, const char *format, ...) PI2_PRINTF_LIKE(2, 3);
/** Ends the file and gives it its name. Errors  IO (path, reason), INVALID (what lies there by now): nothing is
 *  left behind. */
pi2_status pi2_output_file_finish(pi2_output_file *file);
/** Closes and removes what was not finished. */
void pi2_output_file_discard(pi2_output_file *file);

/** Whether the head begins with the text: for kinds that are known by their first line. */
bool pi2_output_head_is(const uint8_t *head, size_t count, const char *text);

#endif
