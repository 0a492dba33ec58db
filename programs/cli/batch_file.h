/*
 * batch_file.h: the results of a batch, a line of JSON each, in the order of the lines that were asked.
 *
 * A file of results may be there already, of a run that was ended at any moment: what is whole in it stays, a last line
 * that was cut off is cut away. Each result has a hash of its request and of what else decides it, so that results of
 * other requests are noticed.
 */
#ifndef PI2_CLI_BATCH_FILE_H
#define PI2_CLI_BATCH_FILE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/** Lines of a file, each with its number from 1; read with bounded memory. */
typedef struct pi2_cli_lines {
    FILE *stream;
    const char *path;
    char *text;          /* [most + 1]: the present line, without its end */
    size_t most, length;
    uint64_t number;
    bool is_too_long;    /* the present line is cut at `most` */
    bool has_end;        /* it ended with a newline */
} pi2_cli_lines;

/** most: bytes of a line. Returns PI2_EXIT_OK, or an exit code after an error line. */
int pi2_cli_lines_open(pi2_cli_lines *lines, const char *path, size_t most);
void pi2_cli_lines_close(pi2_cli_lines *lines);
/** The next line. False: there is none; *code_out: PI2_EXIT_OK, or an exit code after an error line. */
bool pi2_cli_lines_next(pi2_cli_lines *lines, int *code_out);

typedef struct pi2_cli_results {
    FILE *stream;
    const char *path;    /* NULL: stdout */
    uint64_t line;       /* of the last result; 0: none */
    uint64_t hash;       /* its request's */
    bool has_error;      /* it has no answer */
    pi2_cli_lines old;   /* results that are there, while they are looked at */
} pi2_cli_results;

/**
 * Opens the file for results, or stdout where path is NULL. inputs: files whose place it must not take, NULL at the
 * end. Returns PI2_EXIT_OK, or an exit code after an error line.
 */
int pi2_cli_results_open(pi2_cli_results *results, const char *path, const char *const *inputs);
/** The next result that is there: line, hash, has_error. False: the following ones are to be written, or *code_out. */
bool pi2_cli_results_skip(pi2_cli_results *results, int *code_out);
/** Writes one and frees it. Returns PI2_EXIT_OK, or an exit code after an error line. */
int pi2_cli_results_write(pi2_cli_results *results, json_t *value);
/** Returns PI2_EXIT_OK, or an exit code after an error line. */
int pi2_cli_results_close(pi2_cli_results *results);

#endif
