/*
 * Goal:   layers with a window keep what it sees and no more, whatever the context is, and everything has the bits of
 *         an engine that keeps all positions: prompts, answers, guesses, what is cut, forked, saved and recalled.
 * Method: one engine whose passes are as wide as its context, so that it keeps all, beside others of narrow passes.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "powerinfer2/prompt_cache.h"
#include "powerinfer2/session.h"
#include "support/emulator.h"
#include "support/family_model.h"
#include "support/small_budget.h"
#include "support/temporary_files.h"

/* The tiny models' windows have 12 positions; rings of narrow passes have 64. */
enum { CONTEXT = 320, PROMPT = 230, ANSWER = 70, OTHER = 3, MORE_BYTES = 9500000 };

typedef struct place {
    uint32_t context, batch, threads, sequences, draft;
    bool streams;
} place;
static const place whole = { CONTEXT, CONTEXT, 1, 1, 0, false }, narrow = { CONTEXT, 7, 2, 1, 0, false };

static char *folder, *path, *saved_path;
static bool stop_now;

static bool is_stopped(void *user) {
    (void)user;
    return stop_now;
}

static int make_place(void **state) {
    (void)state;
    folder = test_folder_make();
    path = test_path(folder, "family.gguf");
    saved_path = test_path(folder, "saved.session");
    return 0;
}

static int remove_place(void **state) {
    (void)state;
    free(path);
    free(saved_path);
    test_folder_remove(folder);
    return 0;
}

static void write_family(const char *family, uint32_t scale) {
    char *prepared = test_path(folder, "family.pi2"); /* of the family before */
    (void)remove(prepared);
    free(prepared);
    if (pi2_family_model_write_apart(family, PI2_Q8_0, scale, path) != 0) fail_msg("cannot write %s", path);
}

static pi2_engine *open_engine(const place *p) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.context_tokens = p->context;
    options.batch_tokens = p->batch;
    options.thread_count = p->threads;
    options.sequences = p->sequences;
    options.draft_tokens = p->draft;
    options.draft_always = p->draft > 0;
    options.identifies_weights = true;
    options.callbacks.cancelled = is_stopped;
    options.memory_bytes = p->streams ? 0 : PI2_TEST_PLENTY_BYTES;
    pi2_engine *engine = NULL;
    const pi2_status status = p->streams ? pi2_small_budget_open(&options, MORE_BYTES, &engine)
                                         : pi2_engine_open(&options, &engine);
    if (status != PI2_OK) fail_msg("%s", pi2_error_text());
    return engine;
}

static pi2_session *create(pi2_engine *engine) {
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.temperature = 0;
    pi2_session *session = NULL;
    if (pi2_session_create(engine, &sampling, &session) != PI2_OK) fail_msg("%s", pi2_error_text());
    return session;
}

static size_t logit_bytes(const pi2_engine *engine) {
    return pi2_engine_get_report(engine)->vocabulary_size * sizeof(float);
}

static void draw(int32_t *tokens, size_t count, uint32_t seed) {
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        tokens[i] = (int32_t)(seed >> 24);
    }
}

static void append(pi2_session *session, const int32_t *tokens, size_t count) {
    if (pi2_session_append(session, tokens, count, PI2_LOGITS_LAST) != PI2_OK) fail_msg("%s", pi2_error_text());
}

static void append_each(pi2_session *session, const int32_t *tokens, size_t count) {
    for (size_t i = 0; i < count; i++) append(session, tokens + i, 1);
}

static void cut(pi2_session *session, uint32_t position) {
    assert_int_equal(pi2_session_truncate(session, position), PI2_OK);
}

static void check_same(const pi2_session *want, const pi2_session *got, size_t bytes, const char *what, uint32_t at) {
    if (memcmp(pi2_session_logits(want, 0), pi2_session_logits(got, 0), bytes) != 0) fail_msg("%s: %u", what, at);
}

/* ---- prompts and answers ---- */

static void check_prompt(const char *family, const place *p, size_t prompt) {
    int32_t tokens[PROMPT + ANSWER];
    draw(tokens, PROMPT + ANSWER, 5);
    pi2_engine *all = open_engine(&whole), *ring = open_engine(p);
    const uint64_t kept = pi2_engine_get_report(ring)->cache_bytes / p->sequences;
    if (kept >= pi2_engine_get_report(all)->cache_bytes) fail_msg("%s keeps everything", family);
    pi2_session *want = create(all), *got = create(ring);
    append(want, tokens, prompt);
    append(got, tokens, prompt);
    check_same(want, got, logit_bytes(all), family, (uint32_t)prompt);
    for (uint32_t i = 0; i < 20; i++) {
        append(want, tokens + prompt + i, 1);
        append(got, tokens + prompt + i, 1);
        check_same(want, got, logit_bytes(all), family, (uint32_t)prompt + i);
    }
    pi2_session_free(want);
    pi2_session_free(got);
    pi2_engine_close(all);
    pi2_engine_close(ring);
}

static void test_prompts(void **state) {
    (void)state;
    static const struct { const char *family; uint32_t scale; size_t prompt; place p; } cases[] = {
        { "gemma3", 1, PROMPT, { CONTEXT, 7, 2, 1, 0, false } },
        { "gemma2", 1, PROMPT, { CONTEXT - 20, 1, 1, 1, 0, false } },
        { "gpt-oss", 1, 200, { CONTEXT, 16, 2, 2, 0, false } }, { "olmo3", 1, PROMPT, { CONTEXT, 50, 1, 1, 0, false } },
        { "exaone4", 1, 171, { CONTEXT, 1, 2, 1, 0, false } }, { "gemma4", 1, PROMPT, { CONTEXT, 7, 2, 1, 0, false } },
        { "gemma4-experts", 1, 100, { CONTEXT, 33, 1, 1, 0, false } },
        { "gemma3", 10, 100, { CONTEXT, 7, 2, 1, 0, true } }, { "gpt-oss", 10, 90, { CONTEXT, 1, 2, 1, 0, true } } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_family(cases[i].family, cases[i].scale);
        check_prompt(cases[i].family, &cases[i].p, cases[i].prompt);
    }
}

/* Of a long context a layer with a window costs nothing more. */
static void test_context_costs_what_is_seen(void **state) {
    (void)state;
    static const uint32_t contexts[] = { 8192, 65536 };
    uint64_t bytes[2];
    write_family("gemma3", 1);
    for (size_t i = 0; i < 2; i++) {
        pi2_engine *engine = open_engine(&(place){ contexts[i], 7, 1, 1, 0, false });
        bytes[i] = pi2_engine_get_report(engine)->cache_bytes;
        pi2_engine_close(engine);
    }
    /* One layer sees all positions: 2 heads of keys and values with 32 halves each. */
    assert_int_equal(bytes[1] - bytes[0], (65536 - 8192) * 2 * 32 * 2 * 2);
}

/* ---- going back ---- */

/* Where an answer of 70 tokens behind the prompt can go back to, and where what is kept of the prompt's end serves. */
static void check_going_back(const char *family) {
    static const struct { uint32_t position, kept; } cases[] = {
        { 290, 290 }, { 251, 251 }, { 250, PROMPT }, { PROMPT, PROMPT }, { 229, 229 }, { 214, 214 },
        { 213, 0 }, { 40, 0 }, { 0, 0 } };
    int32_t tokens[PROMPT + ANSWER], other[OTHER];
    draw(tokens, PROMPT + ANSWER, 6);
    draw(other, OTHER, 7);
    write_family(family, 1);
    pi2_engine *all = open_engine(&whole), *ring = open_engine(&narrow);
    pi2_session *want = create(all), *got = create(ring);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const uint32_t position = cases[i].position;
        cut(want, 0);
        append(want, tokens, position);
        append(want, other, OTHER);
        cut(got, 0);
        append(got, tokens, PROMPT);
        append_each(got, tokens + PROMPT, ANSWER);
        assert_int_equal(pi2_session_kept(got, position), cases[i].kept);
        cut(got, position);
        stop_now = i % 2 == 1;
        if (stop_now) {
            assert_int_equal(pi2_session_append(got, tokens + 3, 2, PI2_LOGITS_LAST), PI2_ERR_INTERRUPTED);
        }
        stop_now = false;
        append(got, other, OTHER);
        check_same(want, got, logit_bytes(all), family, position);
        append_each(want, tokens, 20);
        append_each(got, tokens, 20);
        check_same(want, got, logit_bytes(all), family, position);
    }
    pi2_session_free(want);
    pi2_session_free(got);
    pi2_engine_close(all);
    pi2_engine_close(ring);
}

/* Twice: what is kept of the prompt's end serves the timeline as far as it is still the prompt's. */
static void test_going_back_again(void **state) {
    (void)state;
    int32_t tokens[PROMPT + ANSWER], other[ANSWER];
    draw(tokens, PROMPT + ANSWER, 14);
    draw(other, ANSWER, 15);
    write_family("gemma3", 1);
    pi2_engine *all = open_engine(&whole), *ring = open_engine(&narrow);
    pi2_session *want = create(all), *got = create(ring);
    append(got, tokens, PROMPT);
    append_each(got, tokens + PROMPT, ANSWER);
    cut(got, PROMPT - 5);
    append_each(got, other, ANSWER);
    assert_int_equal(pi2_session_kept(got, PROMPT - 2), PROMPT - 5);
    cut(got, PROMPT - 14);
    append(got, other, 2); /* a prompt, of whose end no more is kept than there was */
    append_each(got, other + 2, ANSWER - 2);
    assert_int_equal(pi2_session_kept(got, PROMPT - 17), 0);
    assert_int_equal(pi2_session_kept(got, PROMPT - 1), PROMPT - 12);
    assert_int_equal(pi2_session_kept(got, PROMPT - 13), PROMPT - 13);
    cut(got, PROMPT - 13);
    append(got, tokens, 9);
    append(want, tokens, PROMPT - 14);
    append(want, other, 1);
    append(want, tokens, 9);
    check_same(want, got, logit_bytes(all), "again", 0);
    pi2_session_free(want);
    pi2_session_free(got);
    pi2_engine_close(all);
    pi2_engine_close(ring);
}

static void test_going_back(void **state) {
    (void)state;
    check_going_back("gemma3");
    check_going_back("gpt-oss");
}

/* ---- guesses ---- */

/* How much is guessed hangs on what passes take. */
static void test_guesses(void **state) {
    (void)state;
    int32_t tokens[PROMPT + ANSWER];
    draw(tokens, 20, 8);
    for (size_t i = 20; i < PROMPT + ANSWER; i++) tokens[i] = i % 13 ? tokens[i - 20] : 7; /* some guesses are wrong */
    write_family("gemma3", 1);
    pi2_engine *all = open_engine(&whole), *ring = open_engine(&(place){ CONTEXT, 5, 2, 1, 4, false });
    pi2_session *want = create(all), *got = create(ring);
    append(want, tokens, PROMPT);
    append(got, tokens, PROMPT);
    for (uint32_t i = PROMPT; i < PROMPT + ANSWER; i++) {
        append(want, tokens + i, 1);
        append(got, tokens + i, 1);
        check_same(want, got, logit_bytes(all), "guessing", i);
    }
    pi2_session_free(want);
    pi2_session_free(got);
    pi2_engine_close(all);
    pi2_engine_close(ring);
}

/* Back to behind what is kept, by a pass that computes tokens once more and is interrupted: it is as if it had not been
 * begun, though the windows have what was kept already. */
static void test_interrupted_guesses(void **state) {
    (void)state;
    int32_t tokens[PROMPT + ANSWER], other[OTHER];
    draw(tokens, PROMPT + ANSWER, 17);
    draw(other, OTHER, 18);
    write_family("gemma3", 1);
    pi2_engine *all = open_engine(&whole), *ring = open_engine(&(place){ CONTEXT, 5, 2, 1, 4, false });
    pi2_session *want = create(all), *got = create(ring);
    append(got, tokens, PROMPT);
    append_each(got, tokens + PROMPT, ANSWER);
    cut(got, PROMPT + 2);
    assert_int_equal(pi2_session_kept(got, PROMPT + 2), PROMPT);
    stop_now = true;
    assert_int_equal(pi2_session_append(got, other, 1, PI2_LOGITS_LAST), PI2_ERR_INTERRUPTED);
    stop_now = false;
    assert_int_equal(pi2_session_kept(got, PROMPT + 2), PROMPT);
    append_each(got, other, OTHER);
    append(want, tokens, PROMPT + 2);
    append(want, other, OTHER);
    check_same(want, got, logit_bytes(all), "interrupted", 0);
    pi2_session_free(want);
    pi2_session_free(got);
    pi2_engine_close(all);
    pi2_engine_close(ring);
}

/* ---- several timelines ---- */

/* Before a window's room is full, in the midst of a tile: the fork has all that is in it. */
static void test_forks_at_the_beginning(void **state) {
    (void)state;
    enum { BEGUN = 21 };
    int32_t tokens[BEGUN + 30];
    draw(tokens, BEGUN + 30, 11);
    write_family("gemma3", 1);
    pi2_engine *all = open_engine(&whole), *ring = open_engine(&(place){ CONTEXT, 24, 2, 2, 0, false });
    pi2_session *want = create(all), *first = create(ring), *fork = NULL;
    append(first, tokens, BEGUN);
    assert_int_equal(pi2_session_fork(first, NULL, &fork), PI2_OK);
    append_each(first, tokens + 5, 20); /* what it writes is not the fork's */
    append_each(fork, tokens + BEGUN, 30);
    append(want, tokens, BEGUN + 30);
    check_same(want, fork, logit_bytes(all), "the fork", BEGUN);
    pi2_session_free(want);
    pi2_session_free(first);
    pi2_session_free(fork);
    pi2_engine_close(all);
    pi2_engine_close(ring);
}

static void test_forks(void **state) {
    (void)state;
    int32_t tokens[PROMPT + ANSWER], other[20];
    draw(tokens, PROMPT + ANSWER, 9);
    draw(other, 20, 10);
    write_family("gemma3", 1);
    pi2_engine *all = open_engine(&whole), *ring = open_engine(&(place){ CONTEXT, 24, 2, 3, 0, false });
    pi2_session *want = create(all), *first = create(ring), *fork = NULL, *early = NULL;
    append(first, tokens, PROMPT);
    append_each(first, tokens + PROMPT, ANSWER - 20);
    assert_int_equal(pi2_session_fork(first, NULL, &fork), PI2_OK);
    assert_int_equal(pi2_session_fork(first, NULL, &early), PI2_OK);
    cut(early, 100); /* what windows saw there is gone */
    for (uint32_t i = 0; i < 20; i++) {
        const pi2_session_tokens parts[] = { { first, tokens + PROMPT + ANSWER - 20 + i, 1, true },
                                             { fork, other + i, 1, true }, { early, tokens + i, 1, true } };
        if (pi2_sessions_append(parts, 3) != PI2_OK) fail_msg("%s", pi2_error_text());
    }
    append(want, tokens, PROMPT + ANSWER);
    check_same(want, first, logit_bytes(all), "the first timeline", 0);
    cut(want, PROMPT + ANSWER - 20);
    append(want, other, 20);
    check_same(want, fork, logit_bytes(all), "the fork", 0);
    cut(want, 100);
    append(want, tokens, 20);
    check_same(want, early, logit_bytes(all), "the early fork", 0);
    pi2_session_free(want);
    pi2_session_free(first);
    pi2_session_free(fork);
    pi2_session_free(early);
    pi2_engine_close(all);
    pi2_engine_close(ring);
}

/* ---- files ---- */

static void save(pi2_session *session) {
    if (pi2_session_save(session, saved_path, NULL, 0) != PI2_OK) fail_msg("%s", pi2_error_text());
}

/* From an engine into another, in the middle of an answer and cut to where windows' positions are gone; both go on, and
 * back to before what the file has. */
static void check_move(const place *from, const place *to) {
    static const uint32_t positions[] = { PROMPT + ANSWER, PROMPT + 2, 60, 20 };
    int32_t tokens[PROMPT + ANSWER];
    draw(tokens, PROMPT + ANSWER, 11);
    pi2_engine *all = open_engine(&whole), *here = open_engine(from), *there = open_engine(to);
    pi2_session *want = create(all), *source = create(here), *got = create(there);
    for (size_t i = 0; i < sizeof positions / sizeof positions[0]; i++) {
        const uint32_t position = positions[i];
        cut(source, 0);
        append(source, tokens, PROMPT);
        append_each(source, tokens + PROMPT, ANSWER);
        cut(source, position);
        save(source);
        if (pi2_session_load(got, saved_path, NULL, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
        assert_int_equal(pi2_session_kept(got, position), position);
        for (uint32_t back = 0; back < 3; back++) {
            const uint32_t at = position - back * 9;
            cut(got, at);
            append(got, tokens + 1, 10);
            cut(want, 0);
            append(want, tokens, at);
            append(want, tokens + 1, 10);
            check_same(want, got, logit_bytes(all), "loaded", at);
        }
    }
    pi2_session_free(want);
    pi2_session_free(source);
    pi2_session_free(got);
    pi2_engine_close(all);
    pi2_engine_close(here);
    pi2_engine_close(there);
}

static void test_files(void **state) {
    (void)state;
    write_family("gemma3", 1);
    check_move(&narrow, &whole);
    check_move(&(place){ CONTEXT + 9, CONTEXT + 9, 1, 2, 0, false }, &narrow);
    check_move(&(place){ 400, 60, 1, 1, 0, false }, &(place){ 2000, 1, 2, 2, 0, false });
}

/* ---- a prompt cache ---- */

/* Another window in the file: a number behind its key and its type. */
static void set_window(uint32_t window) {
    static const char key[] = "gemma3.attention.sliding_window";
    static char bytes[1 << 16];
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    const size_t count = fread(bytes, 1, sizeof bytes, file);
    size_t at = 0;
    while (at + sizeof key < count && memcmp(bytes + at, key, sizeof key - 1) != 0) at++;
    assert_true(at + sizeof key < count);
    assert_int_equal(fseek(file, (long)(at + sizeof key - 1 + 4), SEEK_SET), 0);
    assert_int_equal(fwrite(&window, sizeof window, 1, file), 1);
    assert_int_equal(fclose(file), 0);
}

enum { LONG = 1024, ASKED = 900 };

static void ask(pi2_session *session, pi2_session *want, const int32_t *tokens, size_t count, size_t recalled,
                size_t bytes) {
    size_t got = 0;
    const size_t kept = pi2_session_recall(session, tokens, count, &got);
    assert_int_equal(got, recalled);
    append(session, tokens + kept, count - kept);
    cut(want, 0);
    append(want, tokens, count);
    check_same(want, session, bytes, "asked", (uint32_t)count);
}

/* A session that gets a cache when its windows have left pages behind: of those none is kept. */
static void ask_late(pi2_engine *engine, pi2_session **session, pi2_prompt_cache *cache, pi2_session *want,
                     size_t bytes) {
    int32_t tokens[ASKED];
    draw(tokens, ASKED, 16);
    pi2_session_use_prompt_cache(*session, NULL);
    cut(*session, 0);
    append(*session, tokens, 700);
    append_each(*session, tokens + 700, 60);
    pi2_session_use_prompt_cache(*session, cache);
    append_each(*session, tokens + 760, 4);
    pi2_session_free(*session);
    *session = create(engine);
    pi2_session_use_prompt_cache(*session, cache);
    ask(*session, want, tokens, ASKED, 0, bytes);
}

/* Windows that are shorter and longer than a page. Pages that one engine writes serve the other. */
static void test_prompt_cache(void **state) {
    (void)state;
    static const uint32_t windows[] = { 12, 300 };
    static const place all_of_it = { LONG, LONG, 1, 1, 0, false }, rings[] = { { LONG, 64, 2, 1, 0, false },
                                                                              { LONG, 9, 1, 1, 0, false } };
    int32_t tokens[ASKED], other[ASKED];
    draw(tokens, ASKED, 12);
    draw(other, ASKED, 13);
    memcpy(other, tokens, 600 * sizeof *tokens);
    for (size_t w = 0; w < 2; w++) {
        char *pages = test_path(folder, w ? "long" : "short");
        pi2_prompt_cache *caches[3];
        pi2_session *sessions[3];
        pi2_engine *engines[3];
        write_family("gemma3", 1);
        set_window(windows[w]);
        pi2_engine *all = open_engine(&all_of_it);
        pi2_session *want = create(all);
        const size_t bytes = logit_bytes(all);
        for (size_t i = 0; i < 3; i++) {
            engines[i] = open_engine(i < 2 ? &rings[i] : &all_of_it);
            sessions[i] = create(engines[i]);
            if (pi2_prompt_cache_open(engines[i], pages, 1 << 30, &caches[i]) != PI2_OK) {
                fail_msg("%s", pi2_error_text());
            }
            pi2_session_use_prompt_cache(sessions[i], caches[i]);
        }
        ask(sessions[0], want, tokens, ASKED, 0, bytes);
        ask(sessions[1], want, tokens, ASKED, 768, bytes);    /* its pages */
        ask(sessions[1], want, other, ASKED, 512, bytes);     /* back to before what the windows still have */
        ask(sessions[2], want, other, ASKED, 768, bytes);     /* three pages, of which the last is the other ring's */
        ask(sessions[2], want, tokens, 700, 512, bytes);      /* windows have no more than the pages had */
        ask(sessions[0], want, other, ASKED, 768, bytes);
        cut(sessions[0], 0);
        append(sessions[0], tokens, 600);
        append_each(sessions[0], other + 600, 300);
        ask(sessions[0], want, tokens, ASKED, 168, bytes); /* behind what is kept of the 600 */
        ask_late(engines[0], &sessions[0], caches[0], want, bytes);
        for (size_t i = 0; i < 3; i++) {
            pi2_session_free(sessions[i]);
            pi2_prompt_cache_close(caches[i]);
            pi2_engine_close(engines[i]);
        }
        pi2_session_free(want);
        pi2_engine_close(all);
        free(pages);
    }
}

/* Another last byte in the page that ends at a position: the last layer's checksum. */
static void damage_page(const char *pages, uint32_t end) {
    DIR *listed = opendir(pages);
    assert_non_null(listed);
    size_t count = 0;
    for (const struct dirent *entry; (entry = readdir(listed)) != NULL;) {
        char *name = test_path(pages, entry->d_name);
        uint8_t bytes[48] = { 0 };
        FILE *file = entry->d_name[0] == '.' ? NULL : fopen(name, "r+b");
        if (file && fread(bytes, 1, sizeof bytes, file) == sizeof bytes && bytes[44] == (end & 255) &&
            bytes[45] == end >> 8) {
            assert_int_equal(fseek(file, -1, SEEK_END), 0);
            const int last = fgetc(file);
            assert_int_equal(fseek(file, -1, SEEK_END), 0);
            assert_int_equal(fputc(last ^ 1, file), last ^ 1);
            count++;
        }
        if (file) assert_int_equal(fclose(file), 0);
        free(name);
    }
    assert_int_equal(closedir(listed), 0);
    assert_int_equal(count, 1);
}

/* A page that turns out to be damaged when windows have begun anew with it: what they saw before it is gone. */
static void test_damaged_pages(void **state) {
    (void)state;
    int32_t tokens[ASKED];
    draw(tokens, ASKED, 19);
    char *pages = test_path(folder, "damaged");
    write_family("gemma3", 1);
    pi2_engine *all = open_engine(&(place){ LONG, LONG, 1, 1, 0, false });
    pi2_engine *ring = open_engine(&(place){ LONG, 64, 2, 1, 0, false });
    pi2_session *want = create(all);
    pi2_prompt_cache *writer = NULL, *reader = NULL;
    if (pi2_prompt_cache_open(all, pages, 1 << 30, &writer) != PI2_OK ||
        pi2_prompt_cache_open(ring, pages, 1 << 30, &reader) != PI2_OK) fail_msg("%s", pi2_error_text());
    pi2_session_use_prompt_cache(want, writer);
    append(want, tokens, ASKED);
    for (uint32_t end = 512; end <= 768; end += 256) {
        pi2_session *got = create(ring);
        pi2_session_use_prompt_cache(got, reader);
        damage_page(pages, end);
        ask(got, want, tokens, ASKED, end - 256, logit_bytes(all));
        pi2_session_free(got);
    }
    pi2_session_free(want);
    pi2_prompt_cache_close(writer);
    pi2_prompt_cache_close(reader);
    pi2_engine_close(all);
    pi2_engine_close(ring);
    free(pages);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts), cmocka_unit_test(test_context_costs_what_is_seen),
        cmocka_unit_test(test_going_back), cmocka_unit_test(test_going_back_again), cmocka_unit_test(test_guesses),
        cmocka_unit_test(test_interrupted_guesses), cmocka_unit_test(test_forks),
        cmocka_unit_test(test_forks_at_the_beginning), cmocka_unit_test(test_files),
        cmocka_unit_test(test_prompt_cache), cmocka_unit_test(test_damaged_pages) };
    return cmocka_run_group_tests(tests, make_place, remove_place);
}
