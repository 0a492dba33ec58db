/* http_fetch.c: requests, what their replies mean, and when to try again. */
#include "http_fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "curl_library.h"
#include "output.h"
#include "powerinfer2/sizes.h"
#include "sha256.h"
#include "signals.h"

enum {
    MOST_REDIRECTS = 10, MOST_FAILURES = 6, MOST_UNREACHED = 2, MOST_CHANGES = 3, ERROR_TEXT_BYTES = 4096,
    LONGEST_WAIT = 120
};

typedef struct fetch_transfer {
    const char *url, *token;
    pid_t parent;                     /* for whom it is fetched */
    char shown_url[256];              /* without user, query and fragment: they may be secret */
    int file;                         /* -1: into text */
    char *text;
    size_t text_length, text_most;
    uint64_t from, at;                /* the byte that is asked for first, and the next one to come */
    uint64_t total;                   /* of the file; 0: nobody has told */
    char known_etag[256];             /* of the content that the file has the beginning of */
    /* of the reply */
    CURL *easy;
    long status;
    char etag[256], linked_sum[256], type[96];
    uint64_t range_from, range_total;
    long wait_seconds;
    bool has_range, is_judged, has_changed;
    bool was_reached;                 /* the server has answered before: that it cannot be reached will pass */
    char refusal[256];                /* why this side ended it */
    char etag_path[PI2_URL_BYTES];
    char connection_error[CURL_ERROR_SIZE];
} fetch_transfer;

/* ---- names ---- */

/** "https://host:port" of a URL: its length. */
static size_t origin_length(const char *url) {
    const char *host = strstr(url, "://");
    return host ? (size_t)(host + 3 - url) + strcspn(host + 3, "/?#") : 0;
}

bool pi2_url_is_same_origin(const char *first, const char *second) {
    const size_t length = origin_length(first);
    return length > 0 && length == origin_length(second) && strncasecmp(first, second, length) == 0;
}

void pi2_url_show(const char *url, char *shown, size_t capacity) {
    const size_t origin = origin_length(url), scheme = origin ? (size_t)(strstr(url, "://") + 3 - url) : 0;
    const char *host = url + scheme, *user_end = memchr(host, '@', origin - scheme);
    if (user_end) host = user_end + 1;
    (void)snprintf(shown, capacity, "%.*s%.*s", (int)scheme, url, (int)strcspn(host, "?#"), host);
}

/* ---- a reply ---- */

static void copy_value(const char *value, size_t length, char *target, size_t capacity) {
    while (length && (*value == ' ' || *value == '\t')) value++, length--;
    while (length && (unsigned char)value[length - 1] <= ' ') length--;
    if (length >= capacity) length = 0; /* too long to be believed */
    memcpy(target, value, length);
    target[length] = '\0';
}

static size_t take_header(char *line, size_t size, size_t count, void *user) {
    fetch_transfer *transfer = user;
    const size_t length = size * count;
    char value[256];
    if (length > 5 && memcmp(line, "HTTP/", 5) == 0) { /* a reply begins: a proxy's may come before the server's */
        transfer->etag[0] = transfer->type[0] = '\0';
        transfer->has_range = false;
        transfer->wait_seconds = 0;
        return length;
    }
    const char *colon = memchr(line, ':', length);
    if (!colon) return length;
    const size_t name = (size_t)(colon - line);
    copy_value(colon + 1, length - name - 1, value, sizeof value);
#define IS(text) (name == sizeof text - 1 && strncasecmp(line, text, name) == 0)
    if (IS("etag")) (void)snprintf(transfer->etag, sizeof transfer->etag, "%s", value);
    if (IS("x-linked-etag")) (void)snprintf(transfer->linked_sum, sizeof transfer->linked_sum, "%s", value);
    if (IS("content-type")) (void)snprintf(transfer->type, sizeof transfer->type, "%.90s", value);
    if (IS("retry-after")) transfer->wait_seconds = strtol(value, NULL, 10);
    if (IS("content-range")) {
        unsigned long long from = 0, to = 0, total = 0;
        transfer->has_range = sscanf(value, "bytes %llu-%llu/%llu", &from, &to, &total) == 3 ||
                              sscanf(value, "bytes */%llu", &total) == 1;
        transfer->range_from = from;
        transfer->range_total = total;
    }
#undef IS
    return length;
}

static bool refuse(fetch_transfer *transfer, const char *text) {
    (void)snprintf(transfer->refusal, sizeof transfer->refusal, "%s", text);
    return false;
}

static bool has_room(fetch_transfer *transfer) {
    struct statvfs disk;
    char needed[PI2_SIZE_TEXT_BYTES], free_text[PI2_SIZE_TEXT_BYTES];
    if (transfer->total <= transfer->at || fstatvfs(transfer->file, &disk) != 0) return true;
    const uint64_t room = (uint64_t)disk.f_bavail * disk.f_frsize, more = transfer->total - transfer->at;
    if (more <= room) return true;
    (void)snprintf(transfer->refusal, sizeof transfer->refusal, "%s more are to come, and the disk has room for %s",
                   pi2_format_size(more, needed), pi2_format_size(room, free_text));
    return false;
}

void pi2_fetch_note(const char *path, const char *text) {
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    if (file < 0) return;
    (void)!write(file, text, strlen(text));
    (void)close(file);
}

/* Without it an interrupted file begins anew. */
static void keep_etag(fetch_transfer *transfer) {
    (void)snprintf(transfer->known_etag, sizeof transfer->known_etag, "%s", transfer->etag);
    pi2_fetch_note(transfer->etag_path, transfer->etag);
}

/** Before the first byte of a body that goes into the file: whether it is what was asked for, and where it goes. */
static bool judge(fetch_transfer *transfer) {
    transfer->is_judged = true;
    if (transfer->status == 206) {
        const bool is_known = strcmp(transfer->etag, transfer->known_etag) == 0;
        if (!transfer->has_range || transfer->range_from != transfer->from || !is_known ||
            (transfer->total && transfer->range_total != transfer->total)) {
            transfer->has_changed = true;
            return refuse(transfer, "the server has another content than the one that was begun");
        }
        transfer->total = transfer->range_total;
        return has_room(transfer);
    }
    curl_off_t length = -1;
    (void)pi2_curl.easy_getinfo(transfer->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (transfer->total && length > 0 && transfer->total != (uint64_t)length && transfer->at == 0 &&
        !transfer->known_etag[0]) {
        return refuse(transfer, "the server's list of files tells another length than its reply");
    }
    transfer->at = transfer->from = 0; /* from the beginning, whatever was asked for */
    if (length > 0) transfer->total = (uint64_t)length;
    if (ftruncate(transfer->file, 0) != 0) return refuse(transfer, strerror(errno));
    keep_etag(transfer);
    return has_room(transfer);
}

static size_t take_text(fetch_transfer *transfer, const char *bytes, size_t count) {
    const size_t room = transfer->text_most - transfer->text_length;
    const bool is_error = transfer->status >= 300;
    if (count > room && !is_error) {
        (void)refuse(transfer, "the reply is longer than a list of files can be");
        return 0;
    }
    const size_t taken = count < room ? count : room;
    memcpy(transfer->text + transfer->text_length, bytes, taken);
    transfer->text_length += taken;
    return count;
}

static size_t take_body(char *bytes, size_t size, size_t count, void *user) {
    fetch_transfer *transfer = user;
    const size_t length = size * count;
    (void)pi2_curl.easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &transfer->status);
    if (transfer->file < 0 || (transfer->status != 200 && transfer->status != 206)) {
        return take_text(transfer, bytes, length);
    }
    if (!transfer->is_judged && !judge(transfer)) return 0;
    if (transfer->at == 0 && length >= 4 && memcmp(bytes, "GGUF", 4) != 0) {
        char text[200];
        (void)snprintf(text, sizeof text, "what comes is no GGUF file but %s",
                       transfer->type[0] ? transfer->type : "something else");
        (void)refuse(transfer, text);
        return 0;
    }
    if (transfer->total && length > transfer->total - transfer->at) {
        (void)refuse(transfer, "more comes than the server told");
        return 0;
    }
    for (size_t done = 0; done < length;) {
        const ssize_t written = pwrite(transfer->file, bytes + done, length - done, (off_t)transfer->at);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            (void)refuse(transfer, strerror(errno));
            return 0;
        }
        done += (size_t)written;
        transfer->at += (uint64_t)written;
    }
    pi2_cli_progress("downloading", transfer->at, transfer->total ? transfer->total : transfer->at);
    return length;
}

/** Whether nobody waits for it any more: Ctrl-C, or the process that wanted it was killed. */
static bool is_over(const fetch_transfer *transfer) {
    return pi2_cli_interrupted() || getppid() != transfer->parent;
}

static int is_cancelled(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) {
    (void)a, (void)b, (void)c, (void)d;
    return is_over(user);
}

/* ---- a request ---- */

static struct curl_slist *headers_of(const fetch_transfer *transfer, const char *url) {
    struct curl_slist *headers = NULL;
    char line[1024];
    if (transfer->token && pi2_url_is_same_origin(transfer->url, url)) {
        (void)snprintf(line, sizeof line, "Authorization: Bearer %s", transfer->token);
        headers = pi2_curl.slist_append(headers, line);
    }
    if (transfer->from > 0) { /* another content comes whole instead */
        (void)snprintf(line, sizeof line, "Range: bytes=%llu-", (unsigned long long)transfer->from);
        headers = pi2_curl.slist_append(headers, line);
        (void)snprintf(line, sizeof line, "If-Range: %s", transfer->known_etag);
        headers = pi2_curl.slist_append(headers, line);
    }
    return headers;
}

static CURLcode ask(fetch_transfer *transfer, const char *url) {
    CURL *easy = transfer->easy;
    struct curl_slist *headers = headers_of(transfer, url);
    (void)pi2_curl.easy_setopt(easy, CURLOPT_URL, url);
    (void)pi2_curl.easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    transfer->status = 0;
    transfer->is_judged = false;
    transfer->text_length = 0;
    const CURLcode code = pi2_curl.easy_perform(easy);
    (void)pi2_curl.easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &transfer->status);
    (void)pi2_curl.easy_setopt(easy, CURLOPT_HTTPHEADER, NULL);
    pi2_curl.slist_free_all(headers);
    return code;
}

/** Asks, and where it is sent on asks there. A token stays with its origin, and TLS is not given up on the way. */
static CURLcode follow(fetch_transfer *transfer) {
    char url[PI2_URL_BYTES];
    (void)snprintf(url, sizeof url, "%s", transfer->url);
    transfer->linked_sum[0] = '\0';
    for (int redirects = 0;; redirects++) {
        const CURLcode code = ask(transfer, url);
        char *next = NULL;
        if (code == CURLE_OK) (void)pi2_curl.easy_getinfo(transfer->easy, CURLINFO_REDIRECT_URL, &next);
        if (!next || transfer->status < 300 || transfer->status > 399) return code;
        if (redirects == MOST_REDIRECTS) (void)refuse(transfer, "it redirects in a circle");
        else if (strncasecmp(url, "https:", 6) == 0 && strncasecmp(next, "https:", 6) != 0) {
            (void)refuse(transfer, "it redirects from https to something without encryption");
        } else if (strlen(next) >= sizeof url) (void)refuse(transfer, "it redirects to an endless address");
        if (transfer->refusal[0]) return CURLE_TOO_MANY_REDIRECTS;
        (void)snprintf(url, sizeof url, "%s", next);
    }
}

static bool prepare(fetch_transfer *transfer) {
    transfer->easy = pi2_curl.easy_init();
    if (!transfer->easy) return false;
    CURL *easy = transfer->easy;
#define SET(option, value) (void)pi2_curl.easy_setopt(easy, option, value)
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_USERAGENT, "powerinfer2/" PI2_VERSION);
    SET(CURLOPT_CONNECTTIMEOUT, 30L);
    SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
    SET(CURLOPT_LOW_SPEED_TIME, 60L);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_HEADERFUNCTION, take_header);
    SET(CURLOPT_HEADERDATA, transfer);
    SET(CURLOPT_WRITEFUNCTION, take_body);
    SET(CURLOPT_WRITEDATA, transfer);
    SET(CURLOPT_NOPROGRESS, 0L);
    SET(CURLOPT_XFERINFOFUNCTION, is_cancelled);
    SET(CURLOPT_XFERINFODATA, transfer);
    SET(CURLOPT_ERRORBUFFER, transfer->connection_error);
#undef SET
    return true;
}

/* ---- what came of it ---- */

typedef enum reply_outcome { DONE, AGAIN, ANEW, FAILED } reply_outcome;

static int fail_with(const fetch_transfer *transfer, const char *why) {
    pi2_cli_clear_progress();
    (void)pi2_cli_usage_error("%s: %s", transfer->shown_url, why);
    return PI2_EXIT_IO;
}

/** Of a reply that is no file. why: [256]. */
static reply_outcome judge_status(const fetch_transfer *transfer, char *why) {
    const long status = transfer->status;
    (void)snprintf(why, 256, "the server answers %ld", status);
    if (status == 401 || status == 403) {
        (void)snprintf(why, 256, "the server answers %ld: %s", status, transfer->token
            ? "the token does not allow it; some models ask for consent on their page first"
            : "it wants to know who asks: put a token into HF_TOKEN");
    }
    if (status == 404) (void)snprintf(why, 256, "there is no such file (404)");
    if (status == 429) (void)snprintf(why, 256, "the server has enough of requests (429)");
    if (status == 416 && transfer->from > 0) return ANEW;
    return status == 408 || status == 429 || status >= 500 ? AGAIN : FAILED;
}

static reply_outcome judge_reply(const fetch_transfer *transfer, CURLcode code, char *why) {
    if (transfer->has_changed) return ANEW;
    if (transfer->refusal[0]) {
        (void)snprintf(why, 256, "%s", transfer->refusal);
        return FAILED;
    }
    const bool is_end = transfer->status == 416 && transfer->from > 0 && transfer->has_range &&
                        transfer->range_total == transfer->from;
    if (is_end) return DONE; /* all of it had come before */
    if (transfer->status && transfer->status != 200 && transfer->status != 206) return judge_status(transfer, why);
    if (code == CURLE_OK && transfer->file >= 0 && !transfer->is_judged) {
        (void)snprintf(why, 256, "the reply is empty");
        return AGAIN;
    }
    if (code == CURLE_OK && transfer->status && (!transfer->total || transfer->at == transfer->total)) return DONE;
    (void)snprintf(why, 256, "the connection broke off: %.180s",
                   transfer->connection_error[0] ? transfer->connection_error : pi2_curl.easy_strerror(code));
    const bool is_hopeless = code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL ||
                             code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE;
    return is_hopeless ? FAILED : AGAIN;
}

/** Nobody has ever answered there: mostly a machine without a network, or an address that is wrong. */
static bool is_unreached(fetch_transfer *transfer, CURLcode code, char *why) {
    if (transfer->status) transfer->was_reached = true;
    if (transfer->was_reached || (code != CURLE_COULDNT_RESOLVE_HOST && code != CURLE_COULDNT_RESOLVE_PROXY &&
                                  code != CURLE_COULDNT_CONNECT)) return false;
    (void)snprintf(why, 256, "cannot be reached (is there a network?): %.180s",
                   transfer->connection_error[0] ? transfer->connection_error : pi2_curl.easy_strerror(code));
    return true;
}

/** Seconds of the first wait: 1, or $POWERINFER2_RETRY_SECONDS. */
static double first_wait(void) {
    const char *text = getenv("POWERINFER2_RETRY_SECONDS");
    const double seconds = text ? strtod(text, NULL) : 1;
    return seconds > 0 && seconds < LONGEST_WAIT ? seconds : 1;
}

static void wait_for(const fetch_transfer *transfer, double seconds) {
    const struct timespec moment = {0, 50000000};
    for (; seconds > 0 && !is_over(transfer); seconds -= 0.05) (void)nanosleep(&moment, NULL);
}

/** Asks until there is an answer. */
static int persist(fetch_transfer *transfer) {
    int failures = 0, changes = 0;
    uint64_t furthest = transfer->at;
    for (;;) {
        char why[256] = "";
        transfer->from = transfer->at;
        transfer->has_changed = false;
        transfer->refusal[0] = transfer->connection_error[0] = '\0';
        const CURLcode code = follow(transfer);
        if (is_over(transfer)) return PI2_EXIT_INTERRUPTED;
        const reply_outcome outcome = judge_reply(transfer, code, why);
        if (outcome == DONE) return PI2_EXIT_OK;
        if (outcome == FAILED) return fail_with(transfer, why);
        if (outcome == ANEW) {
            if (++changes > MOST_CHANGES) return fail_with(transfer, "its content changes while it is fetched");
            transfer->at = transfer->total = 0;
            transfer->known_etag[0] = '\0';
            continue;
        }
        failures = transfer->at > furthest ? 1 : failures + 1;
        if (transfer->at > furthest) furthest = transfer->at;
        const int most = is_unreached(transfer, code, why) ? MOST_UNREACHED : MOST_FAILURES;
        if (failures > most) return fail_with(transfer, why);
        if (transfer->wait_seconds > LONGEST_WAIT) {
            (void)snprintf(why, sizeof why, "the server asks to come back in %ld seconds", transfer->wait_seconds);
            return fail_with(transfer, why);
        }
        double seconds = first_wait() * (double)(1 << (failures - 1));
        if ((double)transfer->wait_seconds > seconds) seconds = (double)transfer->wait_seconds;
        pi2_cli_note("%s: %s; tried again in %.3g s", transfer->shown_url, why, seconds);
        wait_for(transfer, seconds);
        if (transfer->at > 0 && !transfer->known_etag[0]) transfer->at = 0; /* of what, nobody could tell */
    }
}

int pi2_fetch_text(const char *url, const char *token, size_t most, char **text_out, size_t *length_out) {
    fetch_transfer transfer = {.url = url, .token = token, .parent = getppid(), .file = -1, .text_most = most};
    pi2_url_show(url, transfer.shown_url, sizeof transfer.shown_url);
    transfer.text = malloc(most + 1);
    int code = PI2_EXIT_MEMORY;
    if (!transfer.text || !prepare(&transfer)) (void)fail_with(&transfer, "there is no memory for its reply");
    else code = persist(&transfer);
    if (transfer.easy) pi2_curl.easy_cleanup(transfer.easy);
    if (code == PI2_EXIT_OK) {
        transfer.text[transfer.text_length] = '\0';
        *text_out = transfer.text;
        *length_out = transfer.text_length;
    } else free(transfer.text);
    return code;
}

/* ---- a file ---- */

static bool sum_of(const fetch_transfer *transfer, char text_out[PI2_SHA256_TEXT_BYTES]) {
    pi2_sha256 sum;
    pi2_sha256_begin(&sum);
    static unsigned char buffer[1 << 18];
    for (uint64_t at = 0; at < transfer->at && !is_over(transfer);) {
        const ssize_t got = pread(transfer->file, buffer, sizeof buffer, (off_t)at);
        if (got <= 0) return false;
        pi2_sha256_add(&sum, buffer, (size_t)got);
        at += (uint64_t)got;
        pi2_cli_progress("checking", at, transfer->at);
    }
    pi2_sha256_end(&sum, text_out);
    return !is_over(transfer);
}

/** The 64 digits of "abc..." with or without quotes, or NULL: a checksum of another kind. */
static const char *sum_in(char *etag) {
    char *sum = etag + strspn(etag, "\"");
    sum[strcspn(sum, "\"")] = '\0';
    return strlen(sum) == 64 && strspn(sum, "0123456789abcdefABCDEF") == 64 ? sum : NULL;
}

/** Whether what has come is whole and right; what is wrong is thrown away, so that it is not gone on with. */
static int verify(fetch_transfer *transfer, const pi2_fetch *fetch) {
    char magic[4] = "", sum[PI2_SHA256_TEXT_BYTES] = "";
    const char *expected = fetch->sha256 ? fetch->sha256 : sum_in(transfer->linked_sum);
    const char *why = NULL;
    if (pread(transfer->file, magic, 4, 0) != 4 || memcmp(magic, "GGUF", 4) != 0) why = "what came is no GGUF file";
    else if (fetch->bytes && fetch->bytes != transfer->at) why = "its length is not that of the server's list";
    else if (expected) {
        if (!sum_of(transfer, sum)) {
            if (is_over(transfer)) return PI2_EXIT_INTERRUPTED;
            return pi2_cli_io_error("%s: cannot be read", fetch->path);
        }
        if (strcasecmp(sum, expected) != 0) why = "its SHA-256 is not the one that the server tells";
    }
    if (!why) return PI2_EXIT_OK;
    (void)ftruncate(transfer->file, 0);
    return fail_with(transfer, why);
}

/** Opens what is being fetched, for this process alone, and looks how far it had come. */
static int open_part(fetch_transfer *transfer, const char *path) {
    struct stat state;
    transfer->file = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    if (transfer->file < 0) return pi2_cli_io_error("%s: cannot be written", path);
    if (fstat(transfer->file, &state) != 0 || !S_ISREG(state.st_mode) || state.st_nlink > 1) {
        return pi2_cli_usage_error("%s is in the way: it is no file of a download: remove it", path);
    }
    if (flock(transfer->file, LOCK_EX | LOCK_NB) != 0) {
        return errno == EWOULDBLOCK ? fail_with(transfer, "another process is fetching it")
                                    : pi2_cli_io_error("%s: cannot be locked", path);
    }
    FILE *file = fopen(transfer->etag_path, "r");
    if (!file) return PI2_EXIT_OK;
    if (!fgets(transfer->known_etag, sizeof transfer->known_etag, file)) transfer->known_etag[0] = '\0';
    (void)fclose(file);
    if (transfer->known_etag[0] && fstat(transfer->file, &state) == 0) transfer->at = (uint64_t)state.st_size;
    if (transfer->at == 0) transfer->known_etag[0] = '\0';
    return PI2_EXIT_OK;
}

int pi2_fetch_file(const pi2_fetch *fetch) {
    static fetch_transfer transfer;
    char part[PI2_URL_BYTES], error_text[ERROR_TEXT_BYTES];
    memset(&transfer, 0, sizeof transfer);
    transfer.url = fetch->url;
    transfer.parent = getppid();
    transfer.token = fetch->token;
    transfer.total = fetch->bytes;
    transfer.text = error_text;
    transfer.text_most = sizeof error_text;
    pi2_url_show(fetch->url, transfer.shown_url, sizeof transfer.shown_url);
    (void)snprintf(part, sizeof part, "%s.downloadInProgress", fetch->path);
    (void)snprintf(transfer.etag_path, sizeof transfer.etag_path, "%s.downloadInProgress.etag", fetch->path);
    int code = open_part(&transfer, part);
    if (code == PI2_EXIT_OK && !prepare(&transfer)) code = fail_with(&transfer, "libcurl gives no handle");
    if (code == PI2_EXIT_OK) code = persist(&transfer);
    if (code == PI2_EXIT_OK) code = verify(&transfer, fetch);
    if (code == PI2_EXIT_OK && (fsync(transfer.file) != 0 || rename(part, fetch->path) != 0)) {
        code = pi2_cli_io_error("%s: cannot be written", fetch->path);
    }
    if (code == PI2_EXIT_OK) (void)unlink(transfer.etag_path);
    if (transfer.easy) pi2_curl.easy_cleanup(transfer.easy);
    if (transfer.file >= 0) (void)close(transfer.file);
    return code;
}
