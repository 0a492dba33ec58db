/* prompt_cache.c: pages of prompts in a folder: by which names they are found, and which of them go. */
#define _DEFAULT_SOURCE
#include "powerinfer2/prompt_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <xxhash.h>

#include "architectures/block.h"
#include "base/fail.h"
#include "engine/session_internal.h"
#include "powerinfer2/identity.h"

enum { HASH_DIGITS = 32, PATH_BYTES = 1024, OLDEST = 16, NS_PER_PAGE = 1000 };
static const char suffix[] = ".page", temporary_suffix[] = ".page.tmp";

struct pi2_prompt_cache {
    pi2_engine *engine;
    uint64_t most_bytes, identity;
    pi2_prompt_cache_counters counters;
    bool is_read_only, told_damage; /* what goes wrong is told once */
    char folder[PATH_BYTES - 64];   /* room for a name is left */
};

/* ---- names ---- */

static bool is_name(const char *name, const char *end) {
    return strspn(name, "0123456789abcdef") == HASH_DIGITS && strcmp(name + HASH_DIGITS, end) == 0;
}

/* A page's, by its tokens and all before. */
static void name_page(const pi2_session *session, const int32_t *tokens, uint32_t end, char path[PATH_BYTES]) {
    const pi2_prompt_cache *cache = session->cache;
    const XXH128_hash_t hash = XXH3_128bits_withSeed(tokens, end * sizeof *tokens, cache->identity);
    (void)snprintf(path, PATH_BYTES, "%s/%016" PRIx64 "%016" PRIx64 "%s", cache->folder, hash.high64, hash.low64,
                   suffix);
}

static uint64_t now_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* When a page is used. The first pages of a prompt count as used last: without them the others are of no use. */
static uint64_t use_ns(const pi2_session *session, uint32_t page) {
    return session->recalled_ns - (uint64_t)page * NS_PER_PAGE;
}

static void touch(const pi2_session *session, const char *path, uint32_t page) {
    const uint64_t ns = use_ns(session, page);
    const struct timespec time = { .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000) };
    const struct timespec times[2] = { time, time };
    (void)utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
}

/* ---- room ---- */

/* What a walk through the folder found. */
typedef struct folder_walk {
    uint64_t bytes;          /* of all pages, and of what is being written */
    size_t count;            /* pages that go first */
    struct { uint64_t used_ns, bytes; char name[HASH_DIGITS + sizeof suffix]; } oldest[OLDEST];
} folder_walk;

static void note_page(folder_walk *walk, const char *name, uint64_t used_ns, uint64_t bytes) {
    size_t at = walk->count;
    while (at > 0 && walk->oldest[at - 1].used_ns > used_ns) at--;
    if (at == OLDEST) return;
    const size_t moved = (walk->count < OLDEST ? walk->count : OLDEST - 1) - at;
    memmove(&walk->oldest[at + 1], &walk->oldest[at], moved * sizeof walk->oldest[0]);
    if (walk->count < OLDEST) walk->count++;
    walk->oldest[at].used_ns = used_ns;
    walk->oldest[at].bytes = bytes;
    memcpy(walk->oldest[at].name, name, sizeof walk->oldest[at].name);
}

/* What a killed run has left goes: nobody holds its lock. */
static bool remove_left_over(int folder, const char *name) {
    const int file = openat(folder, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) return errno == ENOENT;
    const bool is_mine = flock(file, LOCK_EX | LOCK_NB) == 0;
    if (is_mine) (void)unlinkat(folder, name, 0);
    (void)close(file);
    return is_mine;
}

static pi2_status walk_folder(const pi2_prompt_cache *cache, folder_walk *walk) {
    *walk = (folder_walk){ 0 };
    DIR *folder = opendir(cache->folder);
    if (!folder) return pi2_fail(PI2_ERR_IO, "%s: cannot read the folder: %s", cache->folder, strerror(errno));
    for (const struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
        const char *name = entry->d_name;
        const bool is_page = is_name(name, suffix);
        struct stat there;
        if (!is_page && (name[0] != '.' || !is_name(name + 1, temporary_suffix))) continue;
        if (fstatat(dirfd(folder), name, &there, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(there.st_mode)) continue;
        if (!is_page && remove_left_over(dirfd(folder), name)) continue;
        walk->bytes += (uint64_t)there.st_size;
        if (!is_page) continue;
        const uint64_t used_ns = (uint64_t)there.st_mtim.tv_sec * 1000000000 + (uint64_t)there.st_mtim.tv_nsec;
        note_page(walk, name, used_ns, (uint64_t)there.st_size);
    }
    (void)closedir(folder);
    return PI2_OK;
}

/* Pages that were used before `before_ns` go until there is room for `bytes` more; *has_room_out: there is. */
static pi2_status make_room(pi2_prompt_cache *cache, uint64_t bytes, uint64_t before_ns, bool *has_room_out) {
    for (;;) {
        folder_walk walk;
        PI2_TRY(walk_folder(cache, &walk));
        uint64_t removed = 0;
        for (size_t i = 0; i < walk.count && walk.bytes + bytes > cache->most_bytes; i++) {
            char path[PATH_BYTES];
            if (walk.oldest[i].used_ns >= before_ns) break;
            (void)snprintf(path, sizeof path, "%s/%s", cache->folder, walk.oldest[i].name);
            if (unlink(path) != 0 && errno != ENOENT) {
                return pi2_fail(PI2_ERR_IO, "%s: cannot remove the page: %s", path, strerror(errno));
            }
            walk.bytes -= walk.oldest[i].bytes;
            removed++;
        }
        cache->counters.pages_removed += removed;
        *has_room_out = walk.bytes + bytes <= cache->most_bytes;
        if (*has_room_out || removed == 0) return PI2_OK;
    }
}

/* ---- opening ---- */

static pi2_status make_folder(const char *folder) {
    struct stat there;
    if (mkdir(folder, 0700) == 0) return PI2_OK;
    const int reason = errno;
    if (stat(folder, &there) != 0) {
        return pi2_fail(PI2_ERR_IO, "%s: cannot make the folder: %s", folder, strerror(reason));
    }
    if (S_ISDIR(there.st_mode)) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "%s is no folder: name one for the prompt cache", folder);
}

/* A session of this engine, as far as states are looked at: every sequence's are laid out alike. */
static pi2_session stand_in(pi2_engine *engine) {
    return (pi2_session){ .engine = engine,
                          .is_recurrent = pi2_model_is_recurrent(&engine->run.source.model->shape) };
}

static pi2_status check_engine(pi2_engine *engine, uint64_t most_bytes, uint64_t *identity_out) {
    const pi2_session session = stand_in(engine);
    PI2_TRY(pi2_session_identity(&session, identity_out));
    if (!pi2_engine_is_exact(engine)) {
        return pi2_fail(PI2_ERR_INVALID, "a prompt cache keeps what exact runs compute, and this run is not one (%s): "
                        "leave one of the two out", pi2_engine_arithmetic(engine));
    }
    const uint64_t page = pi2_session_page_bytes(&session, 0, pi2_session_page_tokens(&session));
    if (page <= most_bytes) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "a prompt cache of %llu bytes holds no page: one of this model, of %u tokens, has "
                    "%llu", (unsigned long long)most_bytes, pi2_session_page_tokens(&session),
                    (unsigned long long)page);
}

static pi2_status open_folder(pi2_prompt_cache *cache, const char *folder) {
    if (strlen(folder) >= sizeof cache->folder) {
        return pi2_fail(PI2_ERR_INVALID, "the name of the prompt cache's folder has %zu bytes, more than %zu",
                        strlen(folder), sizeof cache->folder - 1);
    }
    memcpy(cache->folder, folder, strlen(folder) + 1);
    PI2_TRY(make_folder(folder));
    if (access(folder, R_OK | X_OK) != 0) {
        return pi2_fail(PI2_ERR_IO, "%s: cannot read the folder: %s", folder, strerror(errno));
    }
    bool has_room;
    if (access(folder, W_OK) == 0) return make_room(cache, 0, UINT64_MAX, &has_room);
    pi2_planned_run_log(&cache->engine->run, "%s: cannot write into the folder (%s): prompts are looked for in it, and "
                        "none are kept", folder, strerror(errno));
    cache->is_read_only = true;
    return PI2_OK;
}

pi2_status pi2_prompt_cache_open(pi2_engine *engine, const char *folder, uint64_t most_bytes,
                                 pi2_prompt_cache **cache_out) {
    *cache_out = NULL;
    uint64_t identity;
    PI2_TRY(check_engine(engine, most_bytes, &identity));
    pi2_prompt_cache *cache = calloc(1, sizeof *cache);
    if (!cache) return pi2_fail(PI2_ERR_MEMORY, "no memory for a prompt cache");
    cache->engine = engine;
    cache->most_bytes = most_bytes;
    cache->identity = identity;
    const pi2_status status = open_folder(cache, folder);
    if (status == PI2_OK) *cache_out = cache;
    else free(cache);
    return status;
}

void pi2_prompt_cache_close(pi2_prompt_cache *cache) { free(cache); }

void pi2_prompt_cache_count(pi2_prompt_cache *cache, pi2_prompt_cache_counters *counters_out) {
    pi2_engine_take_turn(cache->engine);
    *counters_out = cache->counters;
    pi2_engine_end_turn(cache->engine);
}

void pi2_engine_use_prompt_cache(pi2_engine *engine, pi2_prompt_cache *cache) { engine->prompt_cache = cache; }

void pi2_session_use_prompt_cache(pi2_session *session, pi2_prompt_cache *cache) {
    pi2_engine_take_turn(session->engine);
    session->cache = cache;
    session->pages_kept = 0;
    pi2_engine_end_turn(session->engine);
}

/* ---- keeping ---- */

uint32_t pi2_session_page_tokens(const pi2_session *session) {
    return session->is_recurrent ? PI2_PROMPT_STATE_TOKENS : PI2_PROMPT_PAGE_TOKENS;
}

uint32_t pi2_session_until_page(const pi2_session *session, uint32_t count) {
    if (!session->cache || !session->is_recurrent) return count;
    const uint32_t left = PI2_PROMPT_STATE_TOKENS - session->position % PI2_PROMPT_STATE_TOKENS;
    return count < left ? count : left;
}

/* Something lies there: a link too, which is not followed to where it would have a page written. */
static bool is_taken(const char *path) {
    struct stat there;
    return lstat(path, &there) == 0;
}

/* Another run is writing the same page, or has written it meanwhile: then it is there, which is all that was wanted. */
static bool is_anothers(const char *path) {
    char temporary[PATH_BYTES + 8];
    const char *name = strrchr(path, '/') + 1;
    (void)snprintf(temporary, sizeof temporary, "%.*s.%s.tmp", (int)(name - path), path, name);
    return access(path, F_OK) == 0 || access(temporary, F_OK) == 0;
}

/* *has_room_out: the page is there; else all room is of pages that were used since. */
static pi2_status write_page(pi2_session *session, const char *path, uint32_t page, bool *has_room_out) {
    pi2_prompt_cache *cache = session->cache;
    const uint32_t tokens = pi2_session_page_tokens(session), first = page * tokens, end = first + tokens;
    const uint64_t bytes = pi2_session_page_bytes(session, first, end);
    PI2_TRY(make_room(cache, bytes, use_ns(session, page), has_room_out));
    if (!*has_room_out) return PI2_OK;
    PI2_TRY(pi2_session_write_page(session, path, first, end));
    cache->counters.pages_written++;
    cache->counters.bytes_written += bytes;
    return PI2_OK;
}

static void keep_page(pi2_session *session, uint32_t page) {
    pi2_prompt_cache *cache = session->cache;
    bool has_room = true;
    char path[PATH_BYTES];
    name_page(session, session->timeline, (page + 1) * pi2_session_page_tokens(session), path);
    const pi2_status status = is_taken(path) ? PI2_OK : write_page(session, path, page, &has_room);
    if (status == PI2_OK && has_room) touch(session, path, page);
    if (status == PI2_OK && !has_room) session->pages_kept = UINT32_MAX; /* nor for those that follow it */
    if (status == PI2_OK || status == PI2_ERR_INTERRUPTED || is_anothers(path)) return;
    cache->is_read_only = true;
    pi2_planned_run_log(&cache->engine->run, "no more prompts are kept: %s", pi2_error_text());
}

void pi2_session_keep_pages(pi2_session *session) {
    const uint32_t tokens = pi2_session_page_tokens(session);
    if (!session->cache || session->is_loaded) return;
    while (session->pages_kept < session->position / tokens && !session->cache->is_read_only) {
        const uint32_t page = session->pages_kept++, end = (page + 1) * tokens;
        if (session->recalled_ns == 0) session->recalled_ns = now_ns();
        if (session->is_recurrent && (end != session->position || end != session->state_position)) continue;
        if (end < session->kept_from) continue; /* what a window saw there is gone */
        keep_page(session, page);
    }
}

/* ---- recalling ---- */

static uint32_t common_tokens(const pi2_session *session, const int32_t *tokens, uint32_t most) {
    uint32_t count = 0;
    while (count < session->position && count < most && session->timeline[count] == tokens[count]) count++;
    return count;
}

/* A page that cannot be used is told of once, and goes where it is damaged. */
static void note_failure(pi2_prompt_cache *cache, pi2_status status, const char *path) {
    if (status == PI2_ERR_INTERRUPTED || access(path, F_OK) != 0) return; /* another run has removed it */
    if (!cache->told_damage) {
        pi2_planned_run_log(&cache->engine->run, "the prompt is computed from there on: %s", pi2_error_text());
    }
    cache->told_damage = true;
    if (status == PI2_ERR_FORMAT || status == PI2_ERR_UNSUPPORTED) (void)unlink(path);
}

/* Pages [first, end), behind what the session has; and before, as far as a window sees from their end and has not. */
static void read_pages(pi2_session *session, const int32_t *tokens, uint32_t first, uint32_t end) {
    pi2_prompt_cache *cache = session->cache;
    const uint32_t length = pi2_session_page_tokens(session);
    const uint32_t seen = pi2_forward_first_seen(session->engine->forward, end * length) / length;
    const bool lacks = first * length < session->kept_from;
    if (lacks && seen < first) first = seen;
    pi2_session_cut(session, first * length);
    if (lacks && first > 0) session->kept_from = PI2_NO_POSITION;
    for (uint32_t page = first; page < end; page++) {
        char path[PATH_BYTES];
        name_page(session, tokens, (page + 1) * length, path);
        const pi2_status status = pi2_session_read_page(session, path, tokens, page * length, (page + 1) * length,
                                                        page + 1 == end);
        if (status != PI2_OK) {
            note_failure(cache, status, path);
            return;
        }
        session->pages_kept = page + 1;
        if (page + 1 == end && lacks) pi2_session_keep_from(session, session->position);
        cache->counters.pages_read++;
        cache->counters.bytes_read += pi2_session_page_bytes(session, page * length, (page + 1) * length);
    }
}

/* Returns how many tokens of the timeline come from the cache, which has pages of more than `ready` tokens. */
static uint32_t recall_pages(pi2_session *session, const int32_t *tokens, uint32_t most, uint32_t ready) {
    const uint32_t length = pi2_session_page_tokens(session), first = ready / length;
    uint32_t end = 0;
    for (; (end + 1) * length <= most; end++) {
        char path[PATH_BYTES];
        name_page(session, tokens, (end + 1) * length, path);
        if (access(path, R_OK) == 0) touch(session, path, end);
        else if (end >= first) break;
    }
    if (end <= first) return 0;
    read_pages(session, tokens, first, end);
    return session->position > ready ? session->position - ready : 0;
}

size_t pi2_session_recall(pi2_session *session, const int32_t *tokens, size_t token_count, size_t *recalled_out) {
    const size_t context = session->engine->run.plan.memory.shape.context_tokens;
    const uint32_t most = (uint32_t)(token_count == 0 ? 0 : token_count - 1 < context ? token_count - 1 : context);
    uint32_t recalled = 0;
    pi2_engine_take_turn(session->engine);
    const uint32_t common = common_tokens(session, tokens, most), ready = pi2_session_kept(session, common);
    pi2_session_cut(session, common);
    if (session->cache) {
        session->recalled_ns = now_ns();
        recalled = recall_pages(session, tokens, most, ready);
        session->cache->counters.tokens_recalled += recalled;
    }
    const size_t kept = session->position;
    pi2_engine_end_turn(session->engine);
    if (recalled_out) *recalled_out = recalled;
    return kept;
}
