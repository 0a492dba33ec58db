/* http_fetch.h: one file, or one short text, from an HTTP server that may break off, redirect, change, or lie. */
#ifndef PI2_CLI_HTTP_FETCH_H
#define PI2_CLI_HTTP_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PI2_URL_BYTES = 4096 };

typedef struct pi2_fetch {
    const char *url;      /* http or https */
    const char *token;    /* sent as a bearer's to the URL's own origin, to no other; NULL: none */
    const char *path;     /* where the file shall be; beside it lie PATH.downloadInProgress and what it is of */
    uint64_t bytes;       /* as another reply told; 0: unknown */
    const char *sha256;   /* likewise; NULL: what this server tells, if it does */
} pi2_fetch;

/**
 * Fetches a GGUF file. What an earlier call left is gone on with, if it is of the same content; the name appears only
 * when length, beginning and checksum are right. Breaks are tried again; each error is one line, without what in the
 * URL or request is secret. Needs pi2_curl_load(). Returns PI2_EXIT_OK or an exit code.
 */
int pi2_fetch_file(const pi2_fetch *fetch);

/** Writes a text where it can: into a file that a link leads to it does not. */
void pi2_fetch_note(const char *path, const char *text);

/** Whether two URLs have one scheme, host and port. */
bool pi2_url_is_same_origin(const char *first, const char *second);

/** A URL without what may be secret: user, query and fragment. It is cut at `capacity`. */
void pi2_url_show(const char *url, char *shown, size_t capacity);

/** Fetches a text of `most` bytes at most into *text_out, malloc'd, with a NUL behind it. */
int pi2_fetch_text(const char *url, const char *token, size_t most, char **text_out, size_t *length_out);

#endif
