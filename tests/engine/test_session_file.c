/*
 * Goal:   a saved session goes on in another engine with the bits that it would have had in its own; a file that is
 *         cut, altered, of another model, arithmetic or context is refused in one line, and leaves no half of itself.
 * Method: models and engines vary by pairs: budget, threads, context, batch, read method, kind of cache, room for
 *         sessions. A small file is cut and altered at every few bytes, and its header's numbers are made up with a
 *         right checksum.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <xxhash.h>

#include "base/little_endian.h"
#include "powerinfer2/session.h"
#include "support/emulator.h"
#include "support/family_model.h"
#include "support/sanitizer.h"
#include "support/small_budget.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { CONTEXT = 96, PROMPT = 37, ANSWER = 9, HEADER = 256 };

typedef struct place {
    uint64_t more_bytes; /* 0: everything in memory */
    uint32_t context, batch, threads, sequences, draft;
    const char *method;
} place;

static const place here = { 0, CONTEXT, 16, 1, 1, 0, "auto" };
static char *small_path, *dense_path, *saved_path, *middle_path, *memory_folder, *copy_path;

static pi2_engine *open_engine(const char *path, const place *p, pi2_cache_type cache) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.sequences = p->sequences;
    options.context_tokens = p->context;
    options.batch_tokens = p->batch;
    options.thread_count = p->threads;
    options.draft_tokens = p->draft;
    options.read_method = p->method;
    options.cache_type = cache;
    options.identifies_weights = true;
    options.memory_bytes = p->more_bytes ? 0 : PI2_TEST_PLENTY_BYTES;
    pi2_engine *engine = NULL;
    const pi2_status status = p->more_bytes ? pi2_small_budget_open(&options, p->more_bytes, &engine)
                                            : pi2_engine_open(&options, &engine);
    if (status != PI2_OK) fail_msg("%s", pi2_error_text());
    return engine;
}

static pi2_session *create(pi2_engine *engine) {
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.temperature = 0;
    sampling.forbid_end_tokens = true;
    pi2_session *session = NULL;
    if (pi2_session_create(engine, &sampling, &session) != PI2_OK) fail_msg("%s", pi2_error_text());
    return session;
}

static void append(pi2_session *session, const int32_t *tokens, size_t count) {
    if (pi2_session_append(session, tokens, count, PI2_LOGITS_LAST) != PI2_OK) fail_msg("%s", pi2_error_text());
}

static void draw_prompt(int32_t tokens[PROMPT]) {
    for (int i = 0; i < PROMPT; i++) tokens[i] = i < 7 ? 20 + 3 * i : tokens[i - 7];
}

/* Tokens of the answer, and the logits of each but the first, which is picked from those that are there. */
typedef struct answer {
    int32_t tokens[ANSWER];
    float *logits;
} answer;

static answer make_answer(pi2_session *session, uint32_t vocabulary) {
    answer a = { .logits = malloc(ANSWER * (size_t)vocabulary * sizeof(float)) };
    assert_non_null(a.logits);
    for (size_t i = 0; i < ANSWER; i++) {
        assert_int_equal(pi2_session_sample(session, &a.tokens[i]), PI2_OK);
        append(session, &a.tokens[i], 1);
        memcpy(a.logits + i * vocabulary, pi2_session_logits(session, 0), vocabulary * sizeof(float));
    }
    return a;
}

static void expect_same(const answer *want, answer *got, uint32_t vocabulary) {
    assert_memory_equal(want->tokens, got->tokens, sizeof want->tokens);
    assert_memory_equal(want->logits, got->logits, ANSWER * (size_t)vocabulary * sizeof(float));
    free(got->logits);
}

static void save(pi2_session *session, const char *note) {
    const size_t length = note ? strlen(note) : 0;
    if (pi2_session_save(session, saved_path, note, length) != PI2_OK) fail_msg("%s", pi2_error_text());
}

static void load(pi2_session *session) {
    if (pi2_session_load(session, saved_path, NULL, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
}

static void expect(pi2_status got, pi2_status want, const char *text) {
    if (got != want) fail_msg("%s: %s", pi2_status_name(got), pi2_error_text());
    if (!strstr(pi2_error_text(), text)) fail_msg("'%s' is not in: %s", text, pi2_error_text());
}

/* ---- pages in any order ---- */

/* Of sessions that share pages and grew in turn, whose keys and values so lie in pieces: a file has them in order. */
static void test_pieces_are_saved(void **state) {
    (void)state;
    enum { SESSIONS = 3, STEP = 7 };
    const place several = { 0, CONTEXT, 16, 1, SESSIONS, 0, "auto" };
    pi2_engine *engine = open_engine(small_path, &several, PI2_CACHE_F16);
    const uint32_t vocabulary = pi2_engine_get_report(engine)->vocabulary_size;
    int32_t prompt[PROMPT];
    draw_prompt(prompt);
    pi2_session *sessions[SESSIONS] = { create(engine) };
    append(sessions[0], prompt, PROMPT);
    for (int s = 1; s < SESSIONS; s++) assert_int_equal(pi2_session_fork(sessions[0], NULL, &sessions[s]), PI2_OK);
    for (int i = 0; i + STEP < PROMPT; i += STEP) {
        for (int s = 0; s < SESSIONS; s++) append(sessions[s], prompt + i, STEP);
    }
    pi2_session_free(sessions[0]);
    pi2_session_free(sessions[2]);
    sessions[0] = create(engine); /* takes what they left */
    append(sessions[0], prompt, 5);
    save(sessions[1], NULL);
    load(sessions[0]);
    answer want = make_answer(sessions[1], vocabulary), got = make_answer(sessions[0], vocabulary);
    expect_same(&want, &got, vocabulary);
    free(want.logits);
    for (int s = 0; s < 2; s++) pi2_session_free(sessions[s]);
    pi2_engine_close(engine);
}

/* ---- going on elsewhere ---- */

/* Saved at the end of a prompt and in the middle of an answer, and cut afterwards. */
static void move(const char *path, pi2_cache_type cache, const place *there) {
    int32_t prompt[PROMPT];
    draw_prompt(prompt);
    pi2_engine *engine = open_engine(path, &here, cache), *other = NULL;
    const uint32_t vocabulary = pi2_engine_get_report(engine)->vocabulary_size;
    pi2_session *session = create(engine);
    append(session, prompt, PROMPT);
    save(session, "a note");
    answer first = make_answer(session, vocabulary);
    assert_int_equal(pi2_session_save(session, middle_path, NULL, 0), PI2_OK);
    answer second = make_answer(session, vocabulary);
    assert_int_equal(pi2_session_truncate(session, PROMPT + 3), PI2_OK);
    append(session, prompt, 5);
    answer third = make_answer(session, vocabulary);
    pi2_session_free(session);
    pi2_engine_close(engine);

    other = open_engine(path, there, cache);
    pi2_session *stranger = create(other);
    if (there->sequences > 1) append(stranger, prompt + 3, 3); /* whose logits are in the pass's rows */
    pi2_session *moved = there->sequences > 1 ? create(other) : stranger;
    char *note = NULL;
    size_t length = 0;
    if (pi2_session_load(moved, saved_path, &note, &length) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_string_equal(note, "a note");
    assert_int_equal(length, 6);
    free(note);
    assert_int_equal(pi2_session_position(moved), PROMPT);
    answer got = make_answer(moved, vocabulary);
    expect_same(&first, &got, vocabulary);
    assert_int_equal(pi2_session_load(moved, middle_path, &note, &length), PI2_OK);
    assert_null(note);
    got = make_answer(moved, vocabulary);
    expect_same(&second, &got, vocabulary);
    assert_int_equal(pi2_session_truncate(moved, PROMPT + 3), PI2_OK);
    append(moved, prompt, 5);
    got = make_answer(moved, vocabulary);
    expect_same(&third, &got, vocabulary);
    if (moved != stranger) pi2_session_free(moved);
    pi2_session_free(stranger);
    pi2_engine_close(other);
    free(first.logits);
    free(second.logits);
    free(third.logits);
}

static void test_moves(void **state) {
    (void)state;
    move(small_path, PI2_CACHE_F16, &(place){ 0, 200, 5, 2, 3, 4, "auto" });
    move(dense_path, PI2_CACHE_F16, &(place){ 11500000, 128, 12, 2, 1, 3, "pread" });
    move(dense_path, PI2_CACHE_Q8_0, &(place){ 11500000, CONTEXT, 16, 1, 1, 0, "auto" });
}

/* Recurrent states, windows, and layers that keep nothing. */
static void test_families_move(void **state) {
    (void)state;
    static const struct { const char *family; place there; } families[] = {
        { "lfm2", { 0, 128, 7, 2, 2, 0, "auto" } }, { "qwen35", { 0, CONTEXT, 3, 2, 1, 0, "auto" } },
        { "nemotron_h", { 0, 77, 16, 1, 1, 0, "auto" } }, { "gpt-oss", { 0, 160, 16, 2, 1, 4, "auto" } } };
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        char *folder = test_folder_make(), *path = test_path(folder, "family.gguf");
        assert_int_equal(pi2_family_model_write_apart(families[i].family, PI2_Q8_0, 1, path), 0);
        move(path, PI2_CACHE_F16, &families[i].there);
        free(path);
        test_folder_remove(folder);
    }
}

/* ---- damage ---- */

/* A session that holds something else, which a refusal leaves as it is and a failure empties. */
typedef struct holder {
    pi2_engine *engine;
    pi2_session *session;
    uint8_t *bytes;     /* of the saved file */
    size_t length;
} holder;

static const int32_t held[] = { 9, 8, 7 };

static holder make_holder(void) {
    int32_t prompt[PROMPT];
    draw_prompt(prompt);
    holder h = { .engine = open_engine(small_path, &here, PI2_CACHE_F16) };
    h.session = create(h.engine);
    append(h.session, prompt, PROMPT);
    save(h.session, "a note");
    h.bytes = test_file_read(saved_path, &h.length);
    return h;
}

static void free_holder(holder *h) {
    pi2_session_free(h->session);
    pi2_engine_close(h->engine);
    free(h->bytes);
}

/* Returns what loading these bytes came to. */
static pi2_status try_bytes(const holder *h, const uint8_t *bytes, size_t length) {
    assert_int_equal(pi2_session_truncate(h->session, 0), PI2_OK);
    append(h->session, held, 3);
    test_file_write(copy_path, bytes, length);
    char *note = NULL;
    const pi2_status status = pi2_session_load(h->session, copy_path, &note, NULL);
    if (status != PI2_OK) {
        assert_null(note);
        assert_non_null(strstr(pi2_error_text(), copy_path));
        assert_null(strchr(pi2_error_text(), '\n'));
        const uint32_t position = pi2_session_position(h->session);
        if (position == 0) assert_null(pi2_session_logits(h->session, 0));
        else assert_int_equal(position, 3);
    }
    free(note);
    return status;
}

static void test_cut_anywhere(void **state) {
    (void)state;
    holder h = make_holder();
    const size_t step = PI2_UNDER_ASAN || PI2_UNDER_TSAN ? 1201 : 211;
    assert_int_equal(try_bytes(&h, h.bytes, h.length), PI2_OK);
    for (size_t length = 0; length < h.length; length += length < HEADER + 64 ? 31 : step) {
        assert_int_equal(try_bytes(&h, h.bytes, length), PI2_ERR_FORMAT);
        assert_int_equal(pi2_session_position(h.session), 3); /* told by the header alone */
    }
    assert_int_equal(try_bytes(&h, h.bytes, h.length - 1), PI2_ERR_FORMAT);
    free_holder(&h);
}

static void test_altered_anywhere(void **state) {
    (void)state;
    holder h = make_holder();
    const size_t step = PI2_UNDER_ASAN || PI2_UNDER_TSAN ? 1009 : 173;
    for (size_t at = 0; at < h.length; at += at < HEADER ? 1 : step) {
        h.bytes[at] ^= 0x10;
        const pi2_status status = try_bytes(&h, h.bytes, h.length);
        assert_int_equal(status, at / 4 == 2 ? PI2_ERR_UNSUPPORTED : PI2_ERR_FORMAT);
        assert_int_equal(pi2_session_position(h.session), at < HEADER ? 3 : 0);
        if (at >= HEADER) assert_non_null(strstr(pi2_error_text(), "at byte"));
        h.bytes[at] ^= 0x10;
    }
    /* Mended, the same session takes it. */
    assert_int_equal(try_bytes(&h, h.bytes, h.length), PI2_OK);
    free_holder(&h);
}

/* Keys and values that are no numbers, in a file that fails afterwards: what is computed next sees nothing of them. */
static void test_nothing_is_left(void **state) {
    (void)state;
    static const pi2_cache_type caches[] = { PI2_CACHE_F16, PI2_CACHE_Q8_0 };
    int32_t prompt[PROMPT];
    draw_prompt(prompt);
    for (size_t c = 0; c < 2; c++) {
        pi2_engine *engine = open_engine(small_path, &here, caches[c]);
        const size_t logits_bytes = pi2_engine_get_report(engine)->vocabulary_size * sizeof(float);
        pi2_session *session = create(engine);
        float *want = malloc(logits_bytes);
        assert_non_null(want);
        append(session, held, 3);
        memcpy(want, pi2_session_logits(session, 0), logits_bytes);
        assert_int_equal(pi2_session_truncate(session, 0), PI2_OK);
        append(session, prompt, PROMPT);
        save(session, NULL);
        size_t length = 0;
        uint8_t *bytes = test_file_read(saved_path, &length);
        const size_t layers = HEADER + 4 * PROMPT + 8 + logits_bytes + 8;
        memset(bytes + layers, 0xff, length - layers);
        test_file_write(copy_path, bytes, length);
        expect(pi2_session_load(session, copy_path, NULL, NULL), PI2_ERR_FORMAT, "keys and values of layer 0");
        append(session, held, 3);
        assert_memory_equal(pi2_session_logits(session, 0), want, logits_bytes);
        free(bytes);
        free(want);
        pi2_session_free(session);
        pi2_engine_close(engine);
    }
}

/* Numbers that somebody made up, whose checksum is right. */
static void test_made_up_headers(void **state) {
    (void)state;
    static const struct { uint32_t at, value; pi2_status status; const char *text; } made_up[] = {
        { 12, 16, PI2_ERR_FORMAT, "byte 12" }, { 12, 3, PI2_ERR_FORMAT, "byte 48" },
        { 12, 5, PI2_ERR_FORMAT, "byte 52" },
        { 16, 1, PI2_ERR_UNSUPPORTED, "another model" }, { 24, 1, PI2_ERR_UNSUPPORTED, "another version" },
        { 32, 0, PI2_ERR_FORMAT, "byte 32" }, { 36, 0x80000000, PI2_ERR_FORMAT, "the file was cut" },
        { 40, 1, PI2_ERR_FORMAT, "byte 40" }, { 40, 48, PI2_ERR_FORMAT, "byte 40" },
        { 40, 16, PI2_ERR_FORMAT, "bytes" },
        { 44, 0, PI2_ERR_FORMAT, "byte 44" }, { 44, 0xffffffff, PI2_ERR_FORMAT, "byte 44" },
        { 44, CONTEXT + 1, PI2_ERR_CONTEXT, "97 tokens, and the context holds 96" },
        { 44, 49, PI2_ERR_FORMAT, "bytes" }, { 44, 33, PI2_ERR_FORMAT, "bytes" }, { 48, 1, PI2_ERR_FORMAT, "byte 48" },
        { 52, 1, PI2_ERR_FORMAT, "byte 52" },
        { 56, 7, PI2_ERR_UNSUPPORTED, "another model" }, { 56, 0, PI2_ERR_FORMAT, "byte 56" },
        { 60, 0, PI2_ERR_FORMAT, "bytes" }, { 60, 0xfffffff0, PI2_ERR_FORMAT, "bytes" },
        { 64, 0, PI2_ERR_FORMAT, "byte 64" }, { 64, 0x41414141, PI2_ERR_UNSUPPORTED, "another arithmetic (AAAA" },
        { 180, 0x41414141, PI2_ERR_FORMAT, "byte 64" } };
    holder h = make_holder();
    for (size_t i = 0; i < sizeof made_up / sizeof made_up[0]; i++) {
        uint8_t *bytes = malloc(h.length);
        assert_non_null(bytes);
        memcpy(bytes, h.bytes, h.length);
        pi2_store_le32(bytes + made_up[i].at, made_up[i].value);
        pi2_store_le64(bytes + HEADER - 8, XXH3_64bits(bytes, HEADER - 8));
        expect(try_bytes(&h, bytes, h.length), made_up[i].status, made_up[i].text);
        assert_int_equal(pi2_session_position(h.session), 3);
        free(bytes);
    }
    /* A token that the vocabulary has not, in a section whose checksum is right. */
    pi2_store_le32(h.bytes + HEADER + 8, 1 << 30);
    pi2_store_le64(h.bytes + HEADER + 4 * PROMPT, XXH3_64bits(h.bytes + HEADER, 4 * PROMPT));
    expect(try_bytes(&h, h.bytes, h.length), PI2_ERR_FORMAT,
           "token 1073741824 at byte 264 is not one of the vocabulary");
    assert_int_equal(pi2_session_position(h.session), 0);
    free_holder(&h);
}

/* ---- what is refused ---- */

static void test_whose(void **state) {
    (void)state;
    holder h = make_holder();
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.seed = 2;
    char *other_path = test_folder_path("other.gguf");
    assert_int_equal(pi2_tiny_model_write_apart(&options, other_path), 0);
    pi2_engine *other = open_engine(other_path, &here, PI2_CACHE_F16), *small = NULL;
    pi2_engine *rounded = open_engine(small_path, &here, PI2_CACHE_Q8_0);
    pi2_session *session = create(other), *rounding = create(rounded);
    expect(pi2_session_load(session, saved_path, NULL, NULL), PI2_ERR_UNSUPPORTED, "another model");
    expect(pi2_session_load(rounding, saved_path, NULL, NULL), PI2_ERR_UNSUPPORTED,
           "another arithmetic (exact) than this run has (cache q8_0)");
    pi2_session_free(session);
    pi2_session_free(rounding);
    pi2_engine_close(other);
    pi2_engine_close(rounded);
    small = open_engine(small_path, &(place){ 0, 32, 16, 1, 1, 0, "auto" }, PI2_CACHE_F16);
    session = create(small);
    expect(pi2_session_load(session, saved_path, NULL, NULL), PI2_ERR_CONTEXT, "37 tokens, and the context holds 32");
    expect(pi2_session_load(session, small_path, NULL, NULL), PI2_ERR_FORMAT, "no saved session");
    expect(pi2_session_load(session, test_folder, NULL, NULL), PI2_ERR_IO, test_folder);
    expect(pi2_session_load(session, "/none/such", NULL, NULL), PI2_ERR_IO, "/none/such");
    expect(pi2_session_save(session, saved_path, NULL, 0), PI2_ERR_INVALID, "no tokens yet");
    append(session, held, 3);
    char *long_note = calloc(1, pi2_session_note_most(session) + 1);
    assert_non_null(long_note);
    expect(pi2_session_save(session, saved_path, long_note, pi2_session_note_most(session) + 1), PI2_ERR_INVALID,
           "is too long");
    free(long_note);
    expect(pi2_session_save(session, small_path, NULL, 0), PI2_ERR_INVALID, small_path); /* stays a model */
    expect(pi2_session_save(session, "/none/such", NULL, 0), PI2_ERR_IO, "/none");
    expect(pi2_session_save(session, "/dev/full", NULL, 0), PI2_ERR_INVALID, "/dev/full");
    load(h.session); /* what was refused has changed nothing */
    pi2_session_free(session);
    pi2_engine_close(small);
    free_holder(&h);
}

/* A disk that is full leaves the file that was there; what is written is its owner's alone. */
static void test_full_disk(void **state) {
    (void)state;
    holder h = make_holder();
    struct stat there;
    assert_int_equal(stat(saved_path, &there), 0);
    assert_int_equal(there.st_mode & 0777, 0600);
    const struct rlimit little = { 30000, RLIM_INFINITY };
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    void (*const handler)(int) = signal(SIGXFSZ, SIG_IGN);
    append(h.session, held, 3);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
    const pi2_status status = pi2_session_save(h.session, saved_path, NULL, 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    (void)signal(SIGXFSZ, handler);
    expect(status, PI2_ERR_IO, "cannot write");
    assert_int_not_equal(access(test_folder_path(".saved.session.tmp"), F_OK), 0);
    load(h.session);
    assert_int_equal(pi2_session_position(h.session), PROMPT);
    free_holder(&h);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    small_path = test_folder_path("small.gguf");
    dense_path = test_folder_path("dense.gguf");
    saved_path = test_folder_path("saved.session");
    middle_path = test_folder_path("middle.session");
    memory_folder = test_folder_make_in_memory(); /* thousands of files, which a disk would be waited for */
    copy_path = test_path(memory_folder, "copy.session");
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    const int failed = pi2_tiny_model_write_apart(&options, small_path);
    options.layer_count = 4;
    options.embedding_length = 512;
    options.feed_forward_length = 3072;
    options.head_count = 8;
    return failed ? failed : pi2_tiny_model_write_apart(&options, dense_path);
}

static int tear_down(void **state) {
    test_folder_remove(memory_folder);
    free(copy_path);
    return test_folder_end(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_are_saved), cmocka_unit_test(test_moves), cmocka_unit_test(test_families_move),
        cmocka_unit_test(test_cut_anywhere),
        cmocka_unit_test(test_altered_anywhere), cmocka_unit_test(test_nothing_is_left),
        cmocka_unit_test(test_made_up_headers), cmocka_unit_test(test_whose),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests_name("session_file", tests, set_up, tear_down);
}
