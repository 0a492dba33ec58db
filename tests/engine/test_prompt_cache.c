/*
 * Goal:   what a prompt cache gives has the bits that computing gives; it keeps to its size, what was used last stays,
 *         and nothing that happens to its folder stops a session or changes its logits.
 * Method: prompts of some pages, by engines that differ in budget, threads, batch and sessions; the folder's files are
 *         counted, damaged, exchanged, locked and taken away.
 */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "powerinfer2/prompt_cache.h"
#include "support/emulator.h"
#include "support/family_model.h"
#include "support/sanitizer.h"
#include "support/small_budget.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { PAGE = PI2_PROMPT_PAGE_TOKENS, CONTEXT = 1100, PLENTY = 100000000 };

typedef struct place {
    uint64_t more_bytes; /* 0: everything in memory */
    uint32_t batch, threads, sequences, draft;
} place;

static const place here = { 0, 128, 1, 1, 0 };
static char *model_path, *large_path, *folder, *page_path;
static int log_lines;
static char last_log[1024];

static void note_log(void *user, const char *line) {
    (void)user;
    if (!strstr(line, folder) && !strstr(line, "prompt")) return;
    log_lines++;
    (void)snprintf(last_log, sizeof last_log, "%s", line);
}

static pi2_engine *open_engine(const char *path, const place *p) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.sequences = p->sequences;
    options.context_tokens = CONTEXT;
    options.batch_tokens = p->batch;
    options.thread_count = p->threads;
    options.draft_tokens = p->draft;
    options.identifies_weights = true;
    options.callbacks.log = note_log;
    options.memory_bytes = p->more_bytes ? 0 : PI2_TEST_PLENTY_BYTES;
    pi2_engine *engine = NULL;
    const pi2_status status = p->more_bytes ? pi2_small_budget_open(&options, p->more_bytes, &engine)
                                            : pi2_engine_open(&options, &engine);
    if (status != PI2_OK) fail_msg("%s", pi2_error_text());
    const pi2_engine_report *report = pi2_engine_get_report(engine);
    assert_int_equal(p->more_bytes != 0, report->resident_bytes < report->weight_bytes);
    return engine;
}

/* An engine with a session that uses the folder. */
typedef struct user {
    pi2_engine *engine;
    pi2_session *session;
    pi2_prompt_cache *cache;
} user;

static user begin(const char *path, const place *p, uint64_t most_bytes) {
    user u = { .engine = open_engine(path, p) };
    if (pi2_session_create(u.engine, NULL, &u.session) != PI2_OK) fail_msg("%s", pi2_error_text());
    if (most_bytes == 0) return u;
    if (pi2_prompt_cache_open(u.engine, folder, most_bytes, &u.cache) != PI2_OK) fail_msg("%s", pi2_error_text());
    pi2_session_use_prompt_cache(u.session, u.cache);
    log_lines = 0;
    return u;
}

static void end(user *u) {
    pi2_session_free(u->session);
    pi2_prompt_cache_close(u->cache);
    pi2_engine_close(u->engine);
}

/* Prompts of one seed begin alike up to `common`. */
static int32_t *make_prompt(uint32_t length, uint32_t common, uint64_t seed) {
    int32_t *tokens = malloc(length * sizeof *tokens);
    assert_non_null(tokens);
    uint64_t first = 3, random = seed;
    for (uint32_t i = 0; i < length; i++) {
        tokens[i] = (int32_t)(10 + pi2_tiny_random(i < common ? &first : &random) % 200);
    }
    return tokens;
}

/* The logits after a prompt, of which `recalled` tokens come from the cache and `kept` need no computing. */
static float *ask(user *u, const int32_t *tokens, uint32_t count, size_t kept, size_t recalled) {
    size_t got = 0;
    const uint32_t vocabulary = pi2_engine_get_report(u->engine)->vocabulary_size;
    const size_t had = pi2_session_recall(u->session, tokens, count, &got);
    assert_int_equal(had, kept);
    assert_int_equal(got, recalled);
    assert_int_equal(pi2_session_position(u->session), kept);
    if (pi2_session_append(u->session, tokens + had, count - had, PI2_LOGITS_LAST) != PI2_OK) {
        fail_msg("%s", pi2_error_text());
    }
    float *logits = malloc(vocabulary * sizeof *logits);
    assert_non_null(logits);
    memcpy(logits, pi2_session_logits(u->session, 0), vocabulary * sizeof *logits);
    return logits;
}

static void ask_for(user *u, const int32_t *tokens, uint32_t count, size_t recalled, const float *want) {
    assert_int_equal(pi2_session_truncate(u->session, 0), PI2_OK);
    float *got = ask(u, tokens, count, recalled, recalled);
    if (want) assert_memory_equal(got, want, pi2_engine_get_report(u->engine)->vocabulary_size * sizeof *got);
    free(got);
}

/* Pages in the folder, and their bytes; any other file fails the test. */
static size_t count_pages(uint64_t *bytes_out) {
    size_t count = 0;
    *bytes_out = 0;
    DIR *all = opendir(folder);
    assert_non_null(all);
    for (const struct dirent *entry = readdir(all); entry; entry = readdir(all)) {
        char path[2048];
        struct stat there;
        if (entry->d_name[0] == '.' && strlen(entry->d_name) < 3) continue;
        if (!strstr(entry->d_name, ".page") || entry->d_name[0] == '.') fail_msg("%s is left", entry->d_name);
        (void)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        assert_int_equal(stat(path, &there), 0);
        assert_int_equal(there.st_mode & 0777, 0600);
        (void)snprintf(page_path, 2048, "%s", path);
        *bytes_out += (uint64_t)there.st_size;
        count++;
    }
    (void)closedir(all);
    return count;
}

static size_t pages(void) {
    uint64_t bytes;
    return count_pages(&bytes);
}

static void empty_folder(void) {
    while (pages()) assert_int_equal(unlink(page_path), 0);
}

/* ---- the same bits ---- */

static void recall_elsewhere(const char *path, uint32_t page, const place *there) {
    const uint32_t length = page * 2 + 60;
    int32_t *prompt = make_prompt(length, length, 0), *other = make_prompt(length, page + 30, 7);
    user plain = begin(path, &here, 0), first = begin(path, &here, PLENTY);
    float *want = ask(&plain, prompt, length, 0, 0);
    assert_int_equal(pi2_session_truncate(plain.session, 0), PI2_OK);
    float *want_other = ask(&plain, other, length, 0, 0);
    end(&plain);
    ask_for(&first, prompt, length, 0, want);
    assert_int_equal(pages(), 2);
    end(&first);
    user second = begin(path, there, PLENTY);
    ask_for(&second, prompt, length, 2 * page, want);
    ask_for(&second, other, length, page, want_other);
    assert_int_equal(pages(), 3);
    ask_for(&second, other, length, 2 * page, want_other);
    /* A session that holds more of it than a page, and less than two. */
    assert_int_equal(pi2_session_truncate(second.session, page + 40), PI2_OK);
    free(ask(&second, prompt, length, 2 * page, page == PAGE ? page - 30 : 2 * page));
    assert_int_equal(log_lines, 0);
    pi2_prompt_cache_counters counters;
    pi2_prompt_cache_count(second.cache, &counters);
    assert_int_equal(counters.pages_written, 1);
    assert_true(counters.pages_read >= 6 && counters.bytes_read > counters.bytes_written);
    end(&second);
    empty_folder();
    free(prompt);
    free(other);
    free(want);
    free(want_other);
}

static void test_same_bits(void **state) {
    (void)state;
    recall_elsewhere(model_path, PAGE, &(place){ 0, 100, 1, 1, 4 });
    recall_elsewhere(large_path, PAGE, &(place){ 12500000, 128, 2, 1, 0 });
}

static void test_recurrent_states(void **state) {
    (void)state;
    static const char *const families[] = { "lfm2", "qwen35" };
    for (size_t i = 0; i < (PI2_UNDER_ASAN || PI2_UNDER_TSAN ? 1 : sizeof families / sizeof families[0]); i++) {
        char *own = test_folder_make(), *path = test_path(own, "family.gguf");
        assert_int_equal(pi2_family_model_write_apart(families[i], PI2_Q8_0, 1, path), 0);
        recall_elsewhere(path, PI2_PROMPT_STATE_TOKENS, &(place){ 0, 200, 1, 1, 0 });
        free(path);
        test_folder_remove(own);
    }
}

/* Two sessions whose prompts share passes keep pages as one does, and what one has kept the other recalls. */
static void test_common_passes(void **state) {
    (void)state;
    enum { LENGTH = 2 * PI2_PROMPT_STATE_TOKENS + 20 };
    char *path = test_folder_path("lfm2.gguf");
    assert_int_equal(pi2_family_model_write_apart("lfm2", PI2_Q8_0, 1, path), 0);
    int32_t *prompt = make_prompt(LENGTH, LENGTH, 0), *other = make_prompt(LENGTH, 0, 5);
    user plain = begin(path, &here, 0), u = begin(path, &(place){ 0, 150, 2, 2, 0 }, PLENTY);
    float *want = ask(&plain, other, LENGTH, 0, 0);
    end(&plain);
    pi2_session *fork = NULL;
    assert_int_equal(pi2_session_fork(u.session, NULL, &fork), PI2_OK);
    const pi2_session_tokens parts[] = { { u.session, prompt, LENGTH - 7, false }, { fork, other, LENGTH, true } };
    if (pi2_sessions_append(parts, 2) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_memory_equal(pi2_session_logits(fork, 0), want,
                        pi2_engine_get_report(u.engine)->vocabulary_size * sizeof *want);
    assert_int_equal(pages(), 4);
    ask_for(&u, other, LENGTH, 2 * PI2_PROMPT_STATE_TOKENS, want);
    pi2_session_free(fork);
    end(&u);
    empty_folder();
    free(prompt);
    free(other);
    free(want);
}

/* ---- size ---- */

static void test_size(void **state) {
    (void)state;
    enum { LENGTH = 2 * PAGE + 9, LONG = 4 * PAGE + 9 };
    int32_t *a = make_prompt(LENGTH, 0, 1), *b = make_prompt(LENGTH, 0, 2), *c = make_prompt(LONG, 0, 3);
    uint64_t page_bytes = 0, bytes = 0;
    user u = begin(model_path, &here, PLENTY);
    ask_for(&u, a, LENGTH, 0, NULL);
    assert_int_equal(count_pages(&page_bytes), 2);
    page_bytes /= 2;
    end(&u);
    u = begin(model_path, &here, 3 * page_bytes + 3 * 4 * PAGE);
    ask_for(&u, b, LENGTH, 0, NULL); /* takes the place of a's second page: the first is worth something without it */
    assert_int_equal(count_pages(&bytes), 3);
    ask_for(&u, a, LENGTH, PAGE, NULL); /* and that now takes b's */
    ask_for(&u, b, LENGTH, PAGE, NULL);
    ask_for(&u, b, LENGTH, 2 * PAGE, NULL);
    /* Of a prompt that has more pages than there is room for the first ones are kept, and stay whole. */
    ask_for(&u, c, LONG, 0, NULL);
    assert_int_equal(count_pages(&bytes), 3);
    assert_true(bytes <= 3 * page_bytes + 3 * 4 * PAGE);
    ask_for(&u, c, LONG, 3 * PAGE, NULL);
    assert_int_equal(log_lines, 0);
    end(&u);
    u = begin(model_path, &here, page_bytes + 4 * PAGE); /* less than before */
    assert_int_equal(pages(), 1);
    ask_for(&u, c, LONG, PAGE, NULL);
    end(&u);
    empty_folder();
    free(a);
    free(b);
    free(c);
}

/* ---- what happens to a folder ---- */

enum { SOME = 2 * PAGE + 30 };

/* A folder that has both pages of a prompt, whose logits are in *want_out. */
static user fill(int32_t **prompt_out, float **want_out) {
    user u = begin(model_path, &here, PLENTY);
    *prompt_out = make_prompt(SOME, SOME, 0);
    *want_out = ask(&u, *prompt_out, SOME, 0, 0);
    assert_int_equal(pages(), 2);
    return u;
}

static void empty(user *u, int32_t *prompt, float *want) {
    end(u);
    empty_folder();
    free(prompt);
    free(want);
}

/* The name of the page that holds a prompt's first tokens, or the next ones: they differ in length. */
static void find_page(bool is_second, char path_out[2048]) {
    uint64_t sizes[2];
    char paths[2][2048];
    assert_int_equal(pages(), 2);
    for (int i = 0; i < 2; i++) {
        struct stat there;
        char hidden[2100];
        (void)pages();
        assert_int_equal(stat(page_path, &there), 0);
        sizes[i] = (uint64_t)there.st_size;
        (void)snprintf(paths[i], sizeof paths[i], "%s", page_path);
        (void)snprintf(hidden, sizeof hidden, "%s/../hidden-%d", folder, i);
        assert_int_equal(rename(page_path, hidden), 0);
    }
    for (int i = 0; i < 2; i++) {
        char hidden[2100];
        (void)snprintf(hidden, sizeof hidden, "%s/../hidden-%d", folder, i);
        assert_int_equal(rename(hidden, paths[i]), 0);
    }
    const int second = sizes[1] > sizes[0];
    (void)snprintf(path_out, 2048, "%s", paths[is_second ? second : 1 - second]);
}

static void expect_log(const char *text) {
    if (log_lines != 1) fail_msg("%d lines and not '%s': %s", log_lines, text, last_log);
    if (!strstr(last_log, text)) fail_msg("'%s' is not in: %s", text, last_log);
    log_lines = 0;
}

static void test_damaged_pages(void **state) {
    (void)state;
    static const struct { bool is_second; long at; const char *text; } damages[] = {
        { false, 9, "version" }, { false, 20, "header" }, { true, 300, "belongs there" }, { true, 4000, "checksum" },
        { false, -5, "checksum" } };
    int32_t *prompt;
    float *want;
    user u = fill(&prompt, &want);
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i += PI2_UNDER_ASAN || PI2_UNDER_TSAN ? 2 : 1) {
        char path[2048];
        size_t length = 0;
        find_page(damages[i].is_second, path);
        uint8_t *bytes = test_file_read(path, &length);
        bytes[damages[i].at < 0 ? length - (size_t)-damages[i].at : (size_t)damages[i].at] ^= 8;
        test_file_write(path, bytes, length);
        free(bytes);
        end(&u);
        u = begin(model_path, &here, PLENTY);
        ask_for(&u, prompt, SOME, damages[i].is_second ? PAGE : 0, want);
        expect_log(damages[i].text);
        ask_for(&u, prompt, SOME, 2 * PAGE, want); /* it was made again */
        assert_int_equal(log_lines, 0);
    }
    /* Cut, and another prompt's page by this one's name. */
    char path[2048], other[2048];
    find_page(true, path);
    assert_int_equal(truncate(path, 5000), 0);
    end(&u);
    u = begin(model_path, &here, PLENTY);
    ask_for(&u, prompt, SOME, PAGE, want);
    expect_log("cut");
    find_page(false, other);
    find_page(true, path);
    test_file_copy(other, path);
    ask_for(&u, prompt, SOME, PAGE, want);
    ask_for(&u, prompt, SOME, 2 * PAGE, want);
    empty(&u, prompt, want);
}

/* Files that a killed run left go; those that a run is writing, and strangers' files, stay. */
static void test_left_overs(void **state) {
    (void)state;
    int32_t *prompt;
    float *want;
    user u = fill(&prompt, &want);
    char path[2048], left[2100], stranger[2100];
    find_page(true, path);
    (void)snprintf(left, sizeof left, "%s/.%s.tmp", folder, strrchr(path, '/') + 1);
    (void)snprintf(stranger, sizeof stranger, "%s/my notes.page", folder);
    test_file_write(stranger, "mine", 4);
    assert_int_equal(rename(path, left), 0);
    end(&u);
    u = begin(model_path, &here, PLENTY);
    assert_int_not_equal(access(left, F_OK), 0);
    ask_for(&u, prompt, SOME, PAGE, want);
    assert_int_equal(access(stranger, F_OK), 0);
    assert_int_equal(unlink(stranger), 0);
    /* Another run is writing the second page: this one goes on without. */
    assert_int_equal(rename(path, left), 0);
    const int file = open(left, O_WRONLY);
    assert_true(file >= 0);
    assert_int_equal(flock(file, LOCK_EX), 0);
    ask_for(&u, prompt, SOME, PAGE, want);
    assert_int_equal(log_lines, 0);
    assert_int_equal(access(left, F_OK), 0);
    assert_int_equal(rename(left, path), 0);
    assert_int_equal(close(file), 0);
    ask_for(&u, prompt, SOME, 2 * PAGE, want);
    /* A link that leads nowhere yet lies under the page's name: no prompt is written where it points to. */
    char elsewhere[2100];
    (void)snprintf(elsewhere, sizeof elsewhere, "%s/../elsewhere", folder);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink(elsewhere, path), 0);
    ask_for(&u, prompt, SOME, PAGE, want);
    ask_for(&u, prompt, SOME, PAGE, want);
    assert_int_not_equal(access(elsewhere, F_OK), 0);
    assert_int_equal(log_lines, 0);
    assert_int_equal(unlink(path), 0);
    empty(&u, prompt, want);
}

/* No room on the disk, and no folder any more: one line, and the same logits. */
static void test_folder_fails(void **state) {
    (void)state;
    int32_t *prompt = make_prompt(SOME, SOME, 0);
    user plain = begin(model_path, &here, 0);
    float *want = ask(&plain, prompt, SOME, 0, 0);
    end(&plain);
    user u = begin(model_path, &here, PLENTY);
    const struct rlimit little = { 30000, RLIM_INFINITY };
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    void (*const handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
    ask_for(&u, prompt, SOME, 0, want);
    expect_log("no more prompts are kept: cannot write");
    ask_for(&u, prompt, SOME, 0, want);
    assert_int_equal(log_lines, 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    (void)signal(SIGXFSZ, handler);
    assert_int_equal(pages(), 0);
    end(&u);
    u = begin(model_path, &here, PLENTY);
    assert_int_equal(rmdir(folder), 0);
    ask_for(&u, prompt, SOME, 0, want);
    expect_log("no more prompts are kept");
    end(&u);
    free(prompt);
    free(want);
}

/* What a session file made up goes no further. */
static void test_loaded_sessions_are_not_kept(void **state) {
    (void)state;
    int32_t *prompt;
    float *want;
    user u = fill(&prompt, &want);
    char *saved = test_folder_path("saved.session");
    assert_int_equal(pi2_session_save(u.session, saved, NULL, 0), PI2_OK);
    empty_folder();
    assert_int_equal(pi2_session_load(u.session, saved, NULL, NULL), PI2_OK);
    assert_int_equal(pi2_session_append(u.session, prompt, 2 * PAGE, PI2_LOGITS_LAST), PI2_OK);
    assert_int_equal(pages(), 0);
    ask_for(&u, prompt, SOME, 0, want); /* anew */
    assert_int_equal(pages(), 2);
    char path[2048];
    find_page(true, path);
    assert_int_equal(pi2_session_load(u.session, path, NULL, NULL), PI2_ERR_UNSUPPORTED);
    empty(&u, prompt, want);
}

/* ---- what is refused ---- */

static void expect(pi2_status got, pi2_status want, const char *text) {
    assert_int_equal(got, want);
    if (!strstr(pi2_error_text(), text)) fail_msg("'%s' is not in: %s", text, pi2_error_text());
}

static void test_refusals(void **state) {
    (void)state;
    pi2_prompt_cache *cache = NULL;
    user u = begin(model_path, &here, PLENTY);
    struct stat there;
    assert_int_equal(stat(folder, &there), 0);
    assert_int_equal(there.st_mode & 0777, 0700);
    expect(pi2_prompt_cache_open(u.engine, model_path, PLENTY, &cache), PI2_ERR_INVALID, "is no folder");
    expect(pi2_prompt_cache_open(u.engine, "/none/such", PLENTY, &cache), PI2_ERR_IO, "/none/such: cannot make");
    expect(pi2_prompt_cache_open(u.engine, folder, 1000, &cache), PI2_ERR_INVALID, "1000 bytes holds no page");
    assert_null(cache);
    end(&u);
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = model_path;
    options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    assert_int_equal(pi2_engine_open(&options, &u.engine), PI2_OK);
    expect(pi2_prompt_cache_open(u.engine, folder, PLENTY, &cache), PI2_ERR_INVALID, "identify");
    pi2_engine_close(u.engine);
}

static int set_up(void **state) {
    (void)test_folder_begin_in_memory(state);
    model_path = test_folder_path("tiny.gguf");
    large_path = test_folder_path("large.gguf");
    folder = test_folder_path("prompts");
    page_path = malloc(2048);
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.context_length = 2048;
    const int failed = page_path ? pi2_tiny_model_write_apart(&options, model_path) : -1;
    options.feed_forward_length = 4096; /* so that something streams */
    options.layer_count = 4;
    return failed ? failed : pi2_tiny_model_write_apart(&options, large_path);
}

static int tear_down(void **state) {
    free(page_path);
    return test_folder_end(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits), cmocka_unit_test(test_recurrent_states),
        cmocka_unit_test(test_common_passes), cmocka_unit_test(test_size), cmocka_unit_test(test_damaged_pages),
        cmocka_unit_test(test_left_overs), cmocka_unit_test(test_folder_fails),
        cmocka_unit_test(test_loaded_sessions_are_not_kept), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("prompt_cache", tests, set_up, tear_down);
}
