/*
 * state_file.h: what a session keeps of its tokens, as a file (docs/session_file_format.md). Here are its header and
 * its sections, each with a checksum behind it; session_file.c says what lies in them. Written from front to back,
 * read so too, in pieces of any size and in bounded memory. Every byte that is read is untrusted.
 */
#ifndef PI2_ENGINE_STATE_FILE_H
#define PI2_ENGINE_STATE_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/output_file.h"

#define PI2_NO_POSITION UINT32_MAX

enum { PI2_STATE_HEADER_BYTES = 256, PI2_STATE_ARITHMETIC_BYTES = 120, PI2_STATE_VERSION = 1 };

/** Whose states a file has, of which positions. */
typedef struct pi2_state_header {
    uint64_t weights_hash, states_hash; /* pi2_engine_weights_hash(), pi2_forward_hash_states() */
    uint64_t body_bytes;     /* of all sections with their checksums */
    uint32_t first, position; /* keys and values of these positions: first a multiple of 16, below position */
    uint32_t state_position; /* whose the recurrent states are; PI2_NO_POSITION: there are none */
    uint32_t saved_position; /* the same of the saved ones */
    bool seen_only;          /* of layers with a window, keys and values that the token at `position` sees alone */
    uint32_t vocabulary_size;
    uint32_t note_bytes;     /* of the caller's own; 0: there are none */
    bool has_logits;         /* those of the last token */
    char arithmetic[PI2_STATE_ARITHMETIC_BYTES]; /* pi2_engine_arithmetic(): a text, with a NUL */
} pi2_state_header;

/** Whether a file begins as one of states: for those that may be replaced. */
bool pi2_state_file_is(const uint8_t *head, size_t count);

/* ---- writing ---- */

typedef struct pi2_state_writer {
    pi2_output_file file;
    void *hash;              /* of the section that is written */
    uint64_t unsettled;      /* bytes that the page cache may hold */
} pi2_state_writer;

/**
 * Begins a file that only its owner may read.
 * Errors  as pi2_output_file_open(), MEMORY; nothing is open then
 */
pi2_status pi2_state_writer_open(pi2_state_writer *writer, const char *path, const pi2_state_header *header);
/** Bytes of the section that began after the last one ended. Errors  IO, of this write or an earlier one */
pi2_status pi2_state_writer_put(pi2_state_writer *writer, const void *bytes, size_t count);
/** Ends it with its checksum. */
void pi2_state_writer_end(pi2_state_writer *writer);
/** Closes the file: gives it its name where `status` is OK, else removes it. Returns `status`, or what failed now. */
pi2_status pi2_state_writer_close(pi2_state_writer *writer, pi2_status status);

/* ---- reading ---- */

typedef struct pi2_state_reader {
    const char *path;        /* the caller's */
    FILE *stream;
    void *hash;              /* of the section that is read */
    uint64_t at, section_at; /* byte offsets of what comes next, and of its section */
    uint64_t unsettled;
    pi2_state_header header;
} pi2_state_reader;

/**
 * Opens a file and checks its header as far as it can be checked without a model: numbers fit each other, and the
 * file's length fits body_bytes. pi2_state_reader_close() it, whatever is returned.
 * Errors  IO, FORMAT (what and where), UNSUPPORTED (of another version), MEMORY
 */
pi2_status pi2_state_reader_open(pi2_state_reader *reader, const char *path);
/** The section's next bytes. Errors  IO, FORMAT (the file ends) */
pi2_status pi2_state_reader_get(pi2_state_reader *reader, void *bytes, size_t count);
/** Ends a section, and compares its checksum. what: the section, for the error text. Errors  IO, FORMAT */
pi2_status pi2_state_reader_end(pi2_state_reader *reader, const char *what);
void pi2_state_reader_close(pi2_state_reader *reader);

#endif
