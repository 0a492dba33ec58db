/* cluster_file_path.c: where a model's cluster file lies, and whether it is still the right one. */
#define _XOPEN_SOURCE 700 /* realpath */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/cache_folder.h"
#include "base/fail.h"
#include "file_formats/cluster_file.h"

enum { COMPARE_BYTES = 1024 * 1024 };

/** Formats into new memory; NULL when there is none. */
static char *make_text(const char *format, ...) PI2_PRINTF_LIKE(1, 2);
static char *make_text(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *text = length < 0 ? NULL : malloc((size_t)length + 1);
    if (!text) return NULL;
    va_start(arguments, format);
    (void)vsnprintf(text, (size_t)length + 1, format, arguments);
    va_end(arguments);
    return text;
}

/** Length of a model's path without ".gguf" and without "-00001-of-00002". */
static size_t stem_length(const char *path) {
    size_t length = strlen(path);
    if (length > 5 && strcasecmp(path + length - 5, ".gguf") == 0) length -= 5;
    static const char part[] = "-00001-of-";
    if (length > 15 && memcmp(path + length - 15, part, sizeof part - 1) == 0) length -= 15;
    return length;
}

static pi2_status fail_no_memory(void) {
    return pi2_fail(PI2_ERR_MEMORY, "no memory for a file name");
}

static pi2_status path_beside(const pi2_gguf *source, char **path_out) {
    const char *path = pi2_gguf_file_path(source, 0);
    *path_out = make_text("%.*s.pi2", (int)stem_length(path), path);
    return *path_out ? PI2_OK : fail_no_memory();
}

/** NULL path and PI2_OK when neither XDG_CACHE_HOME nor HOME is set. */
static pi2_status cache_folder(char **folder_out) {
    char folder[1024];
    *folder_out = NULL;
    if (!pi2_cache_folder(folder, sizeof folder)) return PI2_OK;
    *folder_out = make_text("%s", folder);
    return *folder_out ? PI2_OK : fail_no_memory();
}

static pi2_status path_in_cache(const pi2_gguf *source, char **path_out) {
    const char *path = pi2_gguf_file_path(source, 0), *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    pi2_source_identity identity;
    char *folder;
    *path_out = NULL;
    PI2_TRY(pi2_source_identity_of(source, &identity));
    PI2_TRY(cache_folder(&folder));
    if (!folder) return PI2_OK;
    char *resolved = realpath(path, NULL);
    const char *whose = resolved ? resolved : path;
    const uint64_t number = XXH3_64bits_withSeed(whose, strlen(whose), identity.header_hash);
    free(resolved);
    *path_out = make_text("%s/%.*s-%016" PRIx64 ".pi2", folder, (int)stem_length(name), name, number);
    free(folder);
    return *path_out ? PI2_OK : fail_no_memory();
}

static bool folder_is_writable(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return access(".", W_OK | X_OK) == 0;
    char *folder = make_text("%.*s", slash == path ? 1 : (int)(slash - path), path);
    const bool is_writable = folder && access(folder, W_OK | X_OK) == 0;
    free(folder);
    return is_writable;
}

/** Makes the folders that a file's path needs. */
static pi2_status make_folders(const char *path) {
    char *text = make_text("%s", path);
    if (!text) return fail_no_memory();
    pi2_status status = PI2_OK;
    for (char *slash = strchr(text + 1, '/'); slash && status == PI2_OK;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(text, 0755) != 0 && errno != EEXIST) {
            status = pi2_fail(PI2_ERR_IO, "%s: cannot make the folder: %s", text, strerror(errno));
        }
        *slash = '/';
    }
    free(text);
    return status;
}

pi2_status pi2_cluster_file_default_path(const pi2_gguf *source, char **path_out) {
    *path_out = NULL;
    char *beside, *cached;
    PI2_TRY(path_beside(source, &beside));
    if (folder_is_writable(beside)) {
        *path_out = beside;
        return PI2_OK;
    }
    pi2_status status = path_in_cache(source, &cached);
    if (status == PI2_OK && !cached) {
        status = pi2_fail(PI2_ERR_IO,
                          "%s: its folder cannot be written and there is no cache folder: say where "
                          "the cluster file shall go, or set HOME",
                          beside);
    }
    free(beside);
    if (status == PI2_OK) status = make_folders(cached);
    if (status != PI2_OK) {
        free(cached);
        return status;
    }
    *path_out = cached;
    return PI2_OK;
}

/* ---- finding ---------------------------------------------------------------------------- */

/** The next time samples are enough. Where that cannot be, the reason is told: each time costs a whole reading. */
static pi2_status remember(const char *path, const pi2_gguf *source, const pi2_callbacks *callbacks) {
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    const bool is_remembered = file >= 0 && pi2_source_remember(source, file);
    if (file >= 0) (void)close(file);
    char *line = is_remembered || !callbacks || !callbacks->log ? NULL : make_text(
        "%s was compared whole with %s, and cannot remember it: that is done each time until both have one time "
        "('touch -r' does it)", path, pi2_gguf_file_path(source, 0));
    if (line) callbacks->log(callbacks->user, line);
    free(line);
    return PI2_OK;
}

/** Whether the file is a cluster file at all, and made from a source with this header. */
static pi2_status compare_header(const char *path, const pi2_gguf *cluster, const pi2_gguf *source,
                                 pi2_source_identity *then) {
    pi2_source_identity now;
    pi2_extent_layout *layout;
    pi2_neuron_banks *banks = NULL;
    if (!pi2_cluster_file_is(cluster)) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: this is a GGUF model, not a cluster file", path);
    }
    PI2_TRY(pi2_source_identity_of(source, &now));
    PI2_TRY(pi2_cluster_file_layout(cluster, &layout, then));
    const pi2_status status = pi2_cluster_file_banks(cluster, layout, &banks);
    pi2_neuron_banks_free(banks);
    pi2_extent_layout_free(layout);
    PI2_TRY(status);
    const char *source_path = pi2_gguf_file_path(source, 0);
    if (now.bytes != then->bytes) {
        return pi2_fail(PI2_ERR_FORMAT,
                        "%s: made from another version of %s, which had %" PRIu64 " bytes and has "
                        "%" PRIu64,
                        path, source_path, then->bytes, now.bytes);
    }
    if (now.header_hash != then->header_hash) {
        return pi2_fail(PI2_ERR_FORMAT,
                        "%s: made from another version of %s, which had another header", path,
                        source_path);
    }
    return PI2_OK;
}

/** Whether the weights are the source's: samples always, all of them where that was not remembered. */
static pi2_status compare_weights(const char *path, const pi2_gguf *cluster, const pi2_gguf *source,
                                  const pi2_source_identity *then, const pi2_callbacks *callbacks) {
    uint64_t hash;
    PI2_TRY(pi2_source_sample_hash(source, &hash));
    if (hash == then->sample_hash && pi2_source_is_remembered(source, cluster)) return PI2_OK;
    if (hash == then->sample_hash) {
        PI2_TRY(pi2_source_hash(source, COMPARE_BYTES, callbacks, &hash));
        if (hash == then->content_hash) return remember(path, source, callbacks);
    }
    return pi2_fail(PI2_ERR_FORMAT, "%s: made from another version of %s, which had other weights", path,
                    pi2_gguf_file_path(source, 0));
}

/** Whether the file is of a layout that serves, its neurons in the wanted order. */
static pi2_status compare_layout(const char *path, const pi2_gguf *cluster, const pi2_cluster_wish *wish) {
    if (!wish || wish->layout == PI2_LAYOUT_DENSE) return PI2_OK;
    if (!pi2_cluster_file_has_neurons(cluster)) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: made in the dense layout, and the neuron layout is wanted", path);
    }
    if (wish->layout == PI2_LAYOUT_BUNDLE && !pi2_cluster_file_has_bundles(cluster)) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: its single neurons lack Gate, and the bundle layout is wanted", path);
    }
    if (wish->statistics != 0 && pi2_cluster_file_statistics(cluster) != wish->statistics) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: its neurons are in the order of other statistics", path);
    }
    return PI2_OK;
}

pi2_status pi2_cluster_file_matches(const char *path, const pi2_gguf *source, const pi2_cluster_wish *wish,
                                    const pi2_callbacks *callbacks, uint64_t *header_hash_out) {
    pi2_gguf *cluster;
    pi2_source_identity then;
    PI2_TRY(pi2_gguf_open(path, &cluster));
    pi2_status status = compare_header(path, cluster, source, &then);
    if (status == PI2_OK) status = compare_layout(path, cluster, wish);
    if (status == PI2_OK) status = compare_weights(path, cluster, source, &then, callbacks);
    if (header_hash_out) *header_hash_out = pi2_gguf_file_header_hash(cluster, 0);
    pi2_gguf_close(cluster);
    return status;
}

/** Takes the path over when its file is good, else frees it and notes the reason. Errors INTERRUPTED */
static pi2_status try_path(const pi2_gguf *source, char *path, const pi2_cluster_wish *wish,
                           const pi2_callbacks *callbacks, char **path_out, char *note, size_t note_bytes,
                           uint64_t *header_hash_out) {
    struct stat status;
    if (!path) return PI2_OK;
    if (stat(path, &status) == 0) {
        const pi2_status matches = pi2_cluster_file_matches(path, source, wish, callbacks, header_hash_out);
        if (matches == PI2_OK) {
            *path_out = path;
            return PI2_OK;
        }
        if (note_bytes && !*note) (void)snprintf(note, note_bytes, "%s", pi2_error_text());
        if (matches == PI2_ERR_INTERRUPTED) {
            free(path);
            return matches;
        }
    }
    free(path);
    return PI2_OK;
}

pi2_status pi2_cluster_file_find(const pi2_gguf *source, const char *wanted_path, const pi2_cluster_wish *wish,
                                 const pi2_callbacks *callbacks, char **path_out, char *note, size_t note_bytes,
                                 uint64_t *header_hash_out) {
    char *path;
    *path_out = NULL;
    if (note_bytes) *note = '\0';
    if (wanted_path) {
        path = make_text("%s", wanted_path);
        if (!path) return fail_no_memory();
        return try_path(source, path, wish, callbacks, path_out, note, note_bytes, header_hash_out);
    }
    PI2_TRY(path_beside(source, &path));
    PI2_TRY(try_path(source, path, wish, callbacks, path_out, note, note_bytes, header_hash_out));
    if (*path_out) return PI2_OK;
    PI2_TRY(path_in_cache(source, &path));
    return try_path(source, path, wish, callbacks, path_out, note, note_bytes, header_hash_out);
}
