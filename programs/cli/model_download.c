/* model_download.c: which files a name means, where they lie in the cache, and a process that fetches them. */
#include "model_download.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "options.h"
#include "output.h"
#include "signals.h"
#ifdef PI2_HAVE_CURL
#include "curl_library.h"
#include "http_fetch.h"
#endif

enum { PATH_BYTES = 4096, NAME_BYTES = 256, MOST_PARTS = 999, LIST_BYTES = 16 << 20 };

#ifdef PI2_HAVE_CURL
/* ---- the cache ---- */

static bool make_folders(char *path) {
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        const bool made = mkdir(path, 0777) == 0 || errno == EEXIST;
        *slash = '/';
        if (!made) return false;
    }
    return mkdir(path, 0777) == 0 || errno == EEXIST;
}

static int find_cache(char folder[PATH_BYTES]) {
    const char *own = getenv("LLAMA_CACHE"), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length = -1;
    if (own && *own) length = snprintf(folder, PATH_BYTES, "%s", own);
    else if (cache && *cache) length = snprintf(folder, PATH_BYTES, "%s/llama.cpp", cache);
    else if (home && *home) length = snprintf(folder, PATH_BYTES, "%s/.cache/llama.cpp", home);
    if (length <= 0 || length > PATH_BYTES - NAME_BYTES - 64) {
        return pi2_cli_usage_error("there is no folder to keep models in: set LLAMA_CACHE");
    }
    return make_folders(folder) ? PI2_CLI_GO_ON : pi2_cli_io_error("%s: cannot be made, to keep models in", folder);
}

static bool is_there(const char *path) {
    struct stat state;
    return stat(path, &state) == 0 && S_ISREG(state.st_mode);
}

/** A name of the cache: slashes become '_'. False: it is too long, or has what no file's name should. */
static bool cache_path(const char *folder, const char *before, const char *name, char path[PATH_BYTES]) {
    const int length = snprintf(path, PATH_BYTES, "%s/%s%s", folder, before, name);
    char *own = path + strlen(folder) + 1;
    if (length < 0 || length >= PATH_BYTES || strlen(own) >= NAME_BYTES - 32 || *own == '.' || !*own) return false;
    for (; *own; own++) {
        if (*own == '/') *own = '_';
        if ((unsigned char)*own < ' ' || *own == 0x7f || *own == '\\') return false;
    }
    return true;
}

/* ---- names of repositories ---- */

/** "user/repo:quant": the length of what stands before the quant; 0: it is no such name. */
static size_t repository_length(const char *name) {
    const size_t length = strcspn(name, ":");
    const char *slash = memchr(name, '/', length);
    if (!slash || slash == name || slash + 1 == name + length || length > 200) return 0;
    for (size_t i = 0; i < length; i++) {
        const char c = name[i];
        const bool is_word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_word && c != '-' && c != '_' && c != '.' && (c != '/' || name + i != slash)) return 0;
    }
    if (name[0] == '.' || slash[1] == '.') return 0;
    const char *quant = name + length + (name[length] == ':');
    return strlen(quant) < 64 && !strpbrk(quant, "/\\:") ? length : 0;
}

/** "-00001-of-00003.gguf" at the end of a name: how many parts there are; 0: it is whole. */
static unsigned part_count(const char *name) {
    const size_t length = strlen(name);
    unsigned number = 0, count = 0;
    int end = 0;
    if (length < 20 || sscanf(name + length - 20, "-%5u-of-%5u.gguf%n", &number, &count, &end) != 2) return 0;
    return end == 20 && count <= MOST_PARTS ? count : 0;
}

static void name_part(char *name, unsigned number, unsigned count) {
    char end[40]; /* 20 bytes of numbers up to MOST_PARTS */
    (void)snprintf(end, sizeof end, "-%05u-of-%05u.gguf", number, count);
    memcpy(name + strlen(name) - 20, end, 20);
}

/** The part of a URL that names a file. */
static bool file_of_url(const char *url, char name[NAME_BYTES]) {
    const char *host = strstr(url, "://"), *start = host ? host + 3 : url;
    const size_t length = strcspn(start, "?#");
    size_t at = length;
    while (at > 0 && start[at - 1] != '/') at--;
    if (!host || at == 0 || at == length || length - at >= NAME_BYTES) return false;
    (void)snprintf(name, NAME_BYTES, "%.*s", (int)(length - at), start + at);
    return true;
}

/* ---- the list of a repository's files ---- */

static const char *endpoint(void) {
    const char *own = getenv("HF_ENDPOINT");
    return own && *own ? own : "https://huggingface.co";
}

static bool is_word_byte(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/** Whether a file's name has the quant as a word of its own: Q4_K is not in Q4_K_M. */
static bool has_quant(const char *name, const char *quant) {
    const size_t length = strlen(quant);
    for (const char *at = name; strlen(at) >= length; at++) {
        if (strncasecmp(at, quant, length) == 0 && !is_word_byte(at[length]) && (at == name || !is_word_byte(at[-1]))) {
            return true;
        }
    }
    return false;
}

static bool is_model_file(const char *name) {
    const size_t length = strlen(name);
    const unsigned parts = part_count(name);
    return length > 5 && length < NAME_BYTES && strcasecmp(name + length - 5, ".gguf") == 0 &&
           !strstr(name, "mmproj") && !strstr(name, "imatrix") &&
           (parts == 0 || strncmp(name + length - 20, "-00001-", 7) == 0);
}

/** The file of a list that a quant means; NULL: none. Of several the one with the shortest name. */
static const json_t *choose(const json_t *list, const char *quant) {
    const json_t *best = NULL;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(entry, "path"));
        if (!name || !is_model_file(name) || (quant && !has_quant(name, quant))) continue;
        const char *best_name = json_string_value(json_object_get(best, "path"));
        if (!best || strlen(name) < strlen(best_name)) best = entry;
    }
    return best;
}

static const json_t *find_entry(const json_t *list, const char *name) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *each = json_string_value(json_object_get(json_array_get(list, i), "path"));
        if (each && strcmp(each, name) == 0) return json_array_get(list, i);
    }
    return NULL;
}

static int no_such_quant(const json_t *list, const char *repository, const char *quant) {
    char names[1024] = "";
    size_t length = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(list, i), "path"));
        if (!name || !is_model_file(name) || length >= sizeof names) continue;
        length += (size_t)snprintf(names + length, sizeof names - length, "%s%s", length ? ", " : "", name);
    }
    if (!length) return pi2_cli_usage_error("%s: the repository has no GGUF file", repository);
    return pi2_cli_usage_error("%s: none of its files is %s; it has: %s", repository, quant, names);
}

/* ---- fetching: in the child ---- */

typedef struct child_work {
    const pi2_cli_download *download;
    char folder[PATH_BYTES], path[PATH_BYTES]; /* of the first part */
    char repository[NAME_BYTES], quant[64], name[NAME_BYTES], list_path[PATH_BYTES];
    json_t *list;
} child_work;

static void encode(const char *name, char *out, size_t capacity) {
    size_t length = 0;
    for (; *name && length + 4 < capacity; name++) {
        const bool is_plain = is_word_byte(*name) || *name == '-' || *name == '.' || *name == '/' || *name == '~';
        length += (size_t)snprintf(out + length, capacity - length, is_plain ? "%c" : "%%%02X", (unsigned char)*name);
    }
}

/** A URL's own file name becomes that of another part; what follows it stays. */
static void url_of_part(const child_work *work, const char *name, char url[PI2_URL_BYTES]) {
    if (work->download->repository) {
        char encoded[3 * NAME_BYTES + 1];
        encode(name, encoded, sizeof encoded);
        (void)snprintf(url, PI2_URL_BYTES, "%s/%s/resolve/main/%s", endpoint(), work->repository, encoded);
        return;
    }
    const size_t end = strcspn(work->download->url, "?#"), start = end - strlen(work->name);
    (void)snprintf(url, PI2_URL_BYTES, "%.*s%s%s", (int)start, work->download->url, name, work->download->url + end);
}

static bool part_path(const child_work *work, const char *name, char path[PATH_BYTES]) {
    char before[NAME_BYTES + 1] = "";
    if (work->download->repository) (void)snprintf(before, sizeof before, "%s_", work->repository);
    return cache_path(work->folder, before, name, path);
}

/* ---- whose a file of the cache is ---- */

static bool origin_path(const char *path, char origin[PATH_BYTES]) {
    const int length = snprintf(origin, PATH_BYTES, "%s.url", path);
    return length > 0 && length < PATH_BYTES;
}

/** Of a URL only the file's name is kept, which files of other places may have too. One whose place nobody noted, such
 *  as llama.cpp's, is believed. */
static int check_origin(const char *url, const char *path) {
    char place[PI2_URL_BYTES], kept[PI2_URL_BYTES] = "", origin[PATH_BYTES];
    FILE *file = origin_path(path, origin) ? fopen(origin, "r") : NULL;
    if (!file) return PI2_EXIT_OK;
    if (!fgets(kept, sizeof kept, file)) kept[0] = '\0';
    (void)fclose(file);
    kept[strcspn(kept, "\n")] = '\0';
    pi2_url_show(url, place, sizeof place);
    if (!kept[0] || strcmp(kept, place) == 0) return PI2_EXIT_OK;
    (void)pi2_cli_usage_error("--model-url %s: %s came from %s: give it with -m, or move it away", place, path, kept);
    return PI2_EXIT_IO;
}

static void note_origin(const char *url, const char *path) {
    char place[PI2_URL_BYTES], origin[PATH_BYTES];
    FILE *file = origin_path(path, origin) ? fopen(origin, "w") : NULL;
    if (!file) return; /* then it is believed */
    pi2_url_show(url, place, sizeof place);
    (void)fprintf(file, "%s\n", place);
    (void)fclose(file);
}

static int fetch_part(child_work *work, const char *name, const char *path) {
    char url[PI2_URL_BYTES];
    url_of_part(work, name, url);
    if (is_there(path)) return work->download->url ? check_origin(url, path) : PI2_EXIT_OK;
    if (work->download->is_offline) {
        (void)pi2_cli_usage_error("--offline: %s is not in the cache (%s)", name, path);
        return PI2_EXIT_IO;
    }
    const json_t *entry = find_entry(work->list, name), *lfs = json_object_get(entry, "lfs");
    const json_int_t bytes = json_integer_value(json_object_get(entry, "size"));
    const char *sum = json_string_value(json_object_get(lfs, "oid"));
    /* The token is Hugging Face's: an address of somebody else gets none, wherever it came from. */
    const bool is_trusted = pi2_url_is_same_origin(url, endpoint());
    const pi2_fetch fetch = {.url = url, .token = is_trusted ? work->download->token : NULL, .path = path,
                             .bytes = bytes > 0 ? (uint64_t)bytes : 0,
                             .sha256 = sum && strlen(sum) == 64 ? sum : NULL};
    pi2_cli_note("downloading %s to %s", name, path);
    const int code = pi2_fetch_file(&fetch);
    if (code == PI2_EXIT_OK && work->download->url) note_origin(url, path);
    return code;
}

static int fetch_all(child_work *work) {
    const unsigned parts = part_count(work->name);
    char name[NAME_BYTES], path[PATH_BYTES];
    (void)snprintf(name, sizeof name, "%s", work->name);
    for (unsigned number = 1; number <= (parts ? parts : 1); number++) {
        if (parts) name_part(name, number, parts);
        if (!part_path(work, name, path)) {
            return pi2_cli_usage_error("the file's name is none that could be kept: %s", name);
        }
        if (number == 1) (void)snprintf(work->path, sizeof work->path, "%s", path);
        const int code = fetch_part(work, name, path);
        if (code != PI2_EXIT_OK) return code;
    }
    return PI2_EXIT_OK;
}

/** What a name meant when it was last asked for, so that it means the same without a network. */
static bool recall(child_work *work) {
    FILE *file = fopen(work->list_path, "r");
    if (!file) return false;
    const bool found = fgets(work->name, sizeof work->name, file) != NULL;
    (void)fclose(file);
    work->name[strcspn(work->name, "\n")] = '\0';
    return found && is_model_file(work->name) && part_path(work, work->name, work->path) &&
           (is_there(work->path) || work->download->is_offline);
}

static void remember(const child_work *work) {
    char line[NAME_BYTES + 1];
    (void)snprintf(line, sizeof line, "%s\n", work->name);
    pi2_fetch_note(work->list_path, line); /* else it is asked again */
}

static int ask_list(child_work *work) {
    char url[PI2_URL_BYTES], *text = NULL;
    size_t length = 0;
    (void)snprintf(url, sizeof url, "%s/api/models/%s/tree/main?recursive=true", endpoint(), work->repository);
    const int code = pi2_fetch_text(url, work->download->token, LIST_BYTES, &text, &length);
    if (code != PI2_EXIT_OK) return code;
    work->list = json_loadb(text, length, 0, NULL);
    free(text);
    if (json_is_array(work->list)) return PI2_EXIT_OK;
    (void)pi2_cli_usage_error("%s: what the server tells of the repository is no list of files", work->repository);
    return PI2_EXIT_IO;
}

static int choose_file(child_work *work) {
    if (work->download->file) {
        if (strlen(work->download->file) >= sizeof work->name) return pi2_cli_usage_error("--hf-file: too long a name");
        (void)snprintf(work->name, sizeof work->name, "%s", work->download->file);
        return PI2_EXIT_OK;
    }
    if (!cache_path(work->folder, "manifest=", work->repository, work->list_path)) return PI2_EXIT_IO;
    const size_t length = strlen(work->list_path);
    (void)snprintf(work->list_path + length, sizeof work->list_path - length, "=%s.file",
                   work->quant[0] ? work->quant : "default");
    if (recall(work)) return PI2_EXIT_OK;
    if (work->download->is_offline) {
        (void)pi2_cli_usage_error("--offline: %s is not in the cache (%s)", work->download->repository, work->folder);
        return PI2_EXIT_IO;
    }
    const int code = ask_list(work);
    if (code != PI2_EXIT_OK) return code;
    static const char *const usual[] = {"Q4_K_M", "Q4_0", "Q8_0", NULL};
    const json_t *entry = work->quant[0] ? choose(work->list, work->quant) : NULL;
    for (size_t i = 0; !entry && !work->quant[0]; i++) {
        entry = choose(work->list, usual[i]);
        if (!usual[i]) break; /* any was good */
    }
    if (!entry) return no_such_quant(work->list, work->repository, work->quant[0] ? work->quant : "a model");
    (void)snprintf(work->name, sizeof work->name, "%s", json_string_value(json_object_get(entry, "path")));
    return PI2_EXIT_OK;
}

/** An address that is cut would be another one. Behind it there is room for a repository and an encoded name. */
static int check_address(const pi2_cli_download *download) {
    enum { MOST = PI2_URL_BYTES - 4 * NAME_BYTES };
    const char *address = download->url ? download->url : endpoint();
    if (strlen(address) < MOST) return PI2_EXIT_OK;
    return pi2_cli_usage_error("%s: %zu bytes, an address can have %d", download->url ? "--model-url" : "HF_ENDPOINT",
                               strlen(address), MOST - 1);
}

static int fetch_in_child(child_work *work) {
    const char *reason;
    int code = check_address(work->download);
    if (code != PI2_EXIT_OK) return code;
    if (!work->download->is_offline && !pi2_curl_load(&reason)) {
        return pi2_cli_usage_error("models cannot be downloaded: %s: install libcurl (Debian: libcurl4), or give a "
                                   "file with -m", reason);
    }
    if (work->download->repository) code = choose_file(work);
    else if (!file_of_url(work->download->url, work->name)) {
        return pi2_cli_usage_error("--model-url: '%s' names no file", work->download->url);
    }
    if (code == PI2_EXIT_OK) code = fetch_all(work);
    if (code == PI2_EXIT_OK && work->list) remember(work);
    json_decref(work->list);
    pi2_cli_clear_progress();
    return code;
}

/** Runs the work in a process of its own; the path that it found is read from it. */
static int run_child(child_work *work) {
    int ends[2];
    if (pipe(ends) != 0) return pi2_cli_io_error("a pipe cannot be made");
    (void)fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        (void)close(ends[0]);
        const int code = fetch_in_child(work);
        const size_t length = code == PI2_EXIT_OK ? strlen(work->path) : 0;
        const bool told = write(ends[1], work->path, length) == (ssize_t)length;
        (void)fflush(NULL);
        _exit(told ? code : PI2_EXIT_IO);
    }
    (void)close(ends[1]);
    size_t length = 0;
    for (;;) {
        const ssize_t got = read(ends[0], work->path + length, sizeof work->path - 1 - length);
        if (got > 0) length += (size_t)got;
        else if (got == 0 || errno != EINTR) break;
        /* A terminal asks both to end; who asks this process alone means the download too. */
        if (pi2_cli_interrupted() && child > 0) (void)kill(child, SIGTERM);
    }
    work->path[length] = '\0';
    (void)close(ends[0]);
    int status = 0;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    if (child < 0) return pi2_cli_io_error("a process cannot be made");
    if (!WIFEXITED(status) && !pi2_cli_interrupted()) {
        (void)pi2_cli_usage_error("the download was ended by signal %d", WTERMSIG(status));
        return PI2_EXIT_IO;
    }
    if (!WIFEXITED(status)) return PI2_EXIT_INTERRUPTED;
    if (WEXITSTATUS(status) != PI2_EXIT_OK) return WEXITSTATUS(status);
    return length > 0 ? PI2_CLI_GO_ON : PI2_EXIT_IO;
}
#endif

int pi2_cli_find_download(const pi2_cli_download *download, const char **path_out) {
#ifdef PI2_HAVE_CURL
    static child_work work;
    memset(&work, 0, sizeof work);
    work.download = download;
    const size_t length = download->repository ? repository_length(download->repository) : 0;
    if (download->repository && length == 0) {
        return pi2_cli_usage_error("-hf: '%s' is not USER/REPO or USER/REPO:QUANT", download->repository);
    }
    if (download->repository) {
        (void)snprintf(work.repository, sizeof work.repository, "%.*s", (int)length, download->repository);
        (void)snprintf(work.quant, sizeof work.quant, "%s",
                       download->repository + length + (download->repository[length] == ':'));
    }
    int code = find_cache(work.folder);
    pi2_cli_catch_signals();
    if (code == PI2_CLI_GO_ON) code = run_child(&work);
    *path_out = work.path;
    return code;
#else
    (void)download, (void)path_out;
#ifdef PI2_STATIC_PROGRAM
    return pi2_cli_usage_error("this build cannot download models, because it is linked statically: fetch the file by "
                               "other means and give it with -m");
#else
    return pi2_cli_usage_error("this build cannot download models: it was made without libcurl; give a file with -m");
#endif
#endif
}
