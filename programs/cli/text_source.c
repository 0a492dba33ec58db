/* text_source.c: reads a text piece by piece. */
#include "text_source.h"

#include <string.h>
#include <sys/stat.h>

#include "output.h"
#include "signals.h"

int pi2_cli_text_open(const char *path, pi2_cli_text_source *source) {
    *source = (pi2_cli_text_source){.path = strcmp(path, "-") == 0 ? "stdin" : path};
    source->stream = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    return source->stream ? PI2_EXIT_OK : pi2_cli_io_error("%s", path);
}

void pi2_cli_text_close(pi2_cli_text_source *source) {
    if (source->stream && source->stream != stdin) (void)fclose(source->stream);
    source->stream = NULL;
}

int pi2_cli_drop_mark(const char *path, char *text, size_t *length) {
    static const char mark[] = "\xef\xbb\xbf";
    const size_t bytes = sizeof mark - 1;
    if (*length >= 2 && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0)) {
        (void)pi2_cli_usage_error("%s: this is written as UTF-16, and texts are read as UTF-8: iconv turns one into "
                                  "the other", path);
        return PI2_EXIT_BAD_FILE;
    }
    if (*length < bytes || memcmp(text, mark, bytes) != 0) return PI2_EXIT_OK;
    *length -= bytes;
    memmove(text, text + bytes, *length);
    return PI2_EXIT_OK;
}

pi2_status pi2_cli_text_read(void *user, char *bytes, size_t capacity, size_t *length_out) {
    pi2_cli_text_source *source = user;
    const size_t held = source->has_newline;
    *length_out = 0;
    if (pi2_cli_interrupted()) { /* one endless word gives no token at which its taker could ask */
        source->code = PI2_EXIT_INTERRUPTED;
        return PI2_ERR_INTERRUPTED;
    }
    if (held) bytes[0] = '\n';
    size_t got = fread(bytes + held, 1, capacity - held, source->stream);
    if (ferror(source->stream)) {
        const int code = pi2_cli_io_error("%s", source->path);
        source->code = pi2_cli_interrupted() ? PI2_EXIT_INTERRUPTED : code;
        return PI2_ERR_IO;
    }
    if (!source->has_text && !source->is_exact) {
        source->code = pi2_cli_drop_mark(source->path, bytes, &got);
        if (source->code != PI2_EXIT_OK) return PI2_ERR_FORMAT;
    }
    if (got == 0) return PI2_OK; /* the newline that was held is the last byte */
    source->has_text = true;
    source->has_newline = !source->is_exact && bytes[held + got - 1] == '\n';
    *length_out = held + got - source->has_newline;
    /* A lone newline says nothing yet: nothing would mean the end. */
    return *length_out ? PI2_OK : pi2_cli_text_read(user, bytes, capacity, length_out);
}
