/* prepare_place.c: where a cluster file goes, and what it may replace there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fail.h"
#include "clusters/prepare_internal.h"
#include "file_formats/cluster_file_keys.h"

enum { CHUNK_BYTES = 64 * 1024, MOST_HEADER_BYTES = 64 * 1024 * 1024 };

/* A cluster file may be damaged, and shall then be made again: it is known by a key of its own alone. */
static bool has_key(FILE *file) {
    static const char key[] = PI2_KEY_VERSION;
    const size_t key_bytes = sizeof key - 1;
    uint8_t *chunk = malloc(CHUNK_BYTES);
    bool is_found = false;
    size_t kept = 0;
    for (size_t done = 0; chunk && !is_found && done < MOST_HEADER_BYTES;) {
        const size_t got = fread(chunk + kept, 1, CHUNK_BYTES - kept, file);
        if (got == 0) break;
        const size_t count = kept + got;
        for (size_t at = 0; !is_found && at + key_bytes <= count; at++) {
            const uint8_t *first = memchr(chunk + at, key[0], count - key_bytes + 1 - at);
            if (!first) break;
            at = (size_t)(first - chunk);
            is_found = memcmp(first, key, key_bytes) == 0;
        }
        done += got;
        kept = count < key_bytes - 1 ? count : key_bytes - 1;
        memmove(chunk, chunk + count - kept, kept);
    }
    free(chunk);
    return is_found;
}

/* Whether the head is that of our writer, whose first entry is the alignment of extents: others have none there. */
static bool begins_as_ours(const uint8_t *head, size_t count) {
    enum { COUNTS_BEGIN = 8, COUNTS_END = 24 };
    pi2_gguf_writer *writer = NULL;
    const uint8_t *ours = NULL;
    size_t length = 0;
    if (pi2_gguf_writer_open(PI2_EXTENT_ALIGNMENT, &writer) != PI2_OK) return false;
    const size_t compared = pi2_gguf_writer_position(writer);
    const bool is_same = count >= compared && pi2_gguf_writer_finish(writer, &ours, &length) == PI2_OK &&
                         memcmp(head, ours, COUNTS_BEGIN) == 0 &&
                         memcmp(head + COUNTS_END, ours + COUNTS_END, compared - COUNTS_END) == 0;
    pi2_gguf_writer_close(writer);
    return is_same;
}

/* Our key comes behind the source's metadata: a file that is cut within them is known by how it begins. */
static bool is_cut(const char *path, const uint8_t *head, size_t count) {
    pi2_gguf *whole = NULL;
    if (!begins_as_ours(head, count)) return false;
    const pi2_status status = pi2_gguf_open(path, &whole);
    pi2_gguf_close(whole);
    return status == PI2_ERR_FORMAT;
}

static bool recognises_cluster_file(const char *path, const uint8_t *head, size_t count) {
    if (memcmp(head, "GGUF", count < 4 ? count : 4) != 0) return false;
    if (count < PI2_OUTPUT_HEAD_BYTES) return true; /* cut off: it holds nothing */
    FILE *file = fopen(path, "rb");
    if (!file) return false;
    const bool is_found = has_key(file);
    (void)fclose(file);
    return is_found || is_cut(path, head, count);
}

static const pi2_output_kind cluster_kind = { .what = "a cluster file", .recognises = recognises_cluster_file };

static bool string_of(const pi2_gguf *gguf, const char *key, pi2_gguf_string *text) {
    *text = (pi2_gguf_string){ "", 0 };
    return pi2_gguf_has(gguf, key) && pi2_gguf_string_get(gguf, key, text) == PI2_OK;
}

static bool has_same_string(const pi2_gguf *cluster, const pi2_gguf *source, const char *key) {
    pi2_gguf_string then, now;
    const bool had = string_of(cluster, key, &then), has = string_of(source, key, &now);
    return had == has && then.length == now.length && memcmp(then.text, now.text, now.length) == 0;
}

/* By the names that it keeps: an older version of this model gives way, another model does not. */
static pi2_status check_model(const char *path, const pi2_gguf *cluster, const pi2_gguf *source) {
    pi2_gguf_string then;
    const char *source_path = pi2_gguf_file_path(source, 0), *slash = strrchr(source_path, '/');
    const char *name = slash ? slash + 1 : source_path;
    if (!string_of(cluster, PI2_KEY_SOURCE_NAME, &then)) return PI2_OK; /* damaged */
    const bool is_same = then.length == strlen(name) && memcmp(then.text, name, then.length) == 0 &&
                         has_same_string(cluster, source, "general.name") &&
                         has_same_string(cluster, source, "general.architecture");
    if (is_same) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "%s is another model's cluster file, made from %.*s: it is not replaced; name "
                    "another file, or remove that one", path, then.length < 256 ? (int)then.length : 256, then.text);
}

pi2_status pi2_prepare_find_place(pi2_prepare_run *run) {
    const size_t count = pi2_gguf_file_count(run->source);
    struct stat there;
    run->inputs = calloc(count + 1, sizeof *run->inputs);
    if (!run->inputs) return pi2_fail(PI2_ERR_MEMORY, "no memory for a list of files");
    for (size_t i = 0; i < count; i++) run->inputs[i] = pi2_gguf_file_path(run->source, i);
    const pi2_output_request request = { .path = run->output_path, .kind = &cluster_kind, .inputs = run->inputs,
                                         .force = run->settings->overwrite };
    PI2_TRY(pi2_output_find(&request, &run->place));
    run->output_path = run->place.path;
    pi2_output_name_temporary(&run->place, run->temporary_path);
    if (run->settings->overwrite || stat(run->output_path, &there) != 0 || there.st_size == 0) return PI2_OK;
    pi2_gguf *cluster = NULL;
    if (pi2_gguf_open(run->output_path, &cluster) != PI2_OK) return PI2_OK; /* damaged */
    const pi2_status status = check_model(run->output_path, cluster, run->source);
    pi2_gguf_close(cluster);
    return status;
}
