/*
 * Goal:   each event does to each piece of a session's state what the table in powerinfer2/session.h says.
 * Method: a session is brought into a state in which every piece holds something; then one event happens,
 *         and one piece is looked at. Logits are flattened by hand before a token is sampled, so that what
 *         is picked tells the penalty window (greedy: the lowest token outside it) or the random numbers.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/engine_internal.h"
#include "powerinfer2/session.h"
#include "support/emulator.h"
#include "support/small_budget.h"
#include "support/streamed_model.h"
#include "support/temporary_files.h"

enum { CONTEXT = 64, BATCH = 8, HELD = 13, SAVED = 7, AFTER = 40, BYTE_TOKEN = 3, MORE_BYTES = 11500000 };

/* Two tokens and a passage that repeats: after HELD tokens it is guessed how it goes on. */
static const int32_t timeline[] = { 1, 2, 20, 21, 22, 23, 24, 25, 20, 21, 22, 23, 24, 25, 20, 21 };
static const int32_t other_prompt[] = { 3, 5 };

typedef enum event {
    NOTHING, BEGIN_ANSWER, APPEND_GUESSED, APPEND_OTHER, APPEND_MANY, REFUSE_CONTEXT, REFUSE_TOKEN, REFUSE_LOGITS,
    CANCEL_ONE, CANCEL_MANY, FAIL_ONE, FAIL_MANY, CUT, CUT_NOTHING, CUT_ALL, REFUSE_CUT, SAMPLE, FAIL_SAMPLE,
    SAVE, LOAD, REFUSE_LOAD, FAIL_LOAD, TEXT_ENDS, TEXT_BEGINS, REFUSE_TEXT, TEXT_SPECIAL, TEXT_FINISH, EVENTS
} event;
typedef enum piece { TIMELINE, LOGITS, GUESSES, WINDOW, NUMBERS, CHARACTER, PIECES } piece;

/* What is left: tokens of the timeline; whether logits and guesses are there; the window is one of those
   below; random numbers drawn since the seed; and the character that was begun, if any. */
typedef enum window { PROMPT_AND_0, PROMPT_0_AND_3, OTHER } window;
static const struct expectation {
    const char *name;
    uint32_t position;
    bool logits, guesses;
    window window;
    unsigned drawn;
    const char *character; /* what a byte that continues a character gives */
} expected[EVENTS] = {
    [NOTHING] = { "nothing", HELD, true, true, PROMPT_AND_0, 1, "\xc3\xa9" },
    [BEGIN_ANSWER] = { "begin_answer", HELD, true, true, OTHER, 0, "\xef\xbf\xbd" },
    [APPEND_GUESSED] = { "append a guessed token", HELD + 1, true, false, PROMPT_AND_0, 1, "\xc3\xa9" },
    [APPEND_OTHER] = { "append another token", HELD + 1, true, false, PROMPT_AND_0, 1, "\xc3\xa9" },
    [APPEND_MANY] = { "append many", HELD + 3 * BATCH, true, false, PROMPT_AND_0, 1, "\xc3\xa9" },
    [REFUSE_CONTEXT] = { "append too many", HELD, true, true, PROMPT_AND_0, 1, "\xc3\xa9" },
    [REFUSE_TOKEN] = { "append a bad token", HELD, true, true, PROMPT_AND_0, 1, "\xc3\xa9" },
    [REFUSE_LOGITS] = { "want too many logits", HELD, true, true, PROMPT_AND_0, 1, "\xc3\xa9" },
    [CANCEL_ONE] = { "cancel one token", HELD, false, false, PROMPT_AND_0, 1, "\xc3\xa9" },
    [CANCEL_MANY] = { "cancel many tokens", HELD + BATCH, false, false, PROMPT_AND_0, 1, "\xc3\xa9" },
    [FAIL_ONE] = { "fail to read for one token", HELD, false, false, PROMPT_AND_0, 1, "\xc3\xa9" },
    [FAIL_MANY] = { "fail to read for many tokens", HELD, false, false, PROMPT_AND_0, 1, "\xc3\xa9" },
    [CUT] = { "truncate", 5, false, false, PROMPT_AND_0, 1, "\xc3\xa9" },
    [CUT_NOTHING] = { "truncate at the end", HELD, false, false, PROMPT_AND_0, 1, "\xc3\xa9" },
    [CUT_ALL] = { "truncate to nothing", 0, false, false, PROMPT_AND_0, 1, "\xc3\xa9" },
    [REFUSE_CUT] = { "truncate beyond the end", HELD, true, true, PROMPT_AND_0, 1, "\xc3\xa9" },
    [SAMPLE] = { "sample", HELD, true, true, PROMPT_0_AND_3, 2, "\xc3\xa9" },
    [FAIL_SAMPLE] = { "sample from no numbers", HELD, true, true, PROMPT_AND_0, 1, "\xc3\xa9" },
    [SAVE] = { "save", HELD, true, true, PROMPT_AND_0, 1, "\xc3\xa9" },
    [LOAD] = { "load", SAVED, true, false, PROMPT_AND_0, 1, "\xef\xbf\xbd" },
    [REFUSE_LOAD] = { "load of something else", HELD, true, true, PROMPT_AND_0, 1, "\xc3\xa9" },
    [FAIL_LOAD] = { "load of a damaged file", 0, false, false, PROMPT_AND_0, 1, "\xef\xbf\xbd" },
    [TEXT_ENDS] = { "text that ends a character", HELD, true, true, PROMPT_AND_0, 1, "\xef\xbf\xbd" },
    [TEXT_BEGINS] = { "text that begins another", HELD, true, true, PROMPT_AND_0, 1, "\xc2\xa9" },
    [REFUSE_TEXT] = { "text without room", HELD, true, true, PROMPT_AND_0, 1, "\xc3\xa9" },
    [TEXT_SPECIAL] = { "a special token's text", HELD, true, true, PROMPT_AND_0, 1, "\xef\xbf\xbd" },
    [TEXT_FINISH] = { "text_finish", HELD, true, true, PROMPT_AND_0, 1, "\xef\xbf\xbd" },
};

static char *model_path, *cluster_path, *copy_path, *saved_path, *again_path, *damaged_path;
static int layers_left = -1; /* until the work is cancelled; -1: it is not */

static bool cancelled(void *user) {
    (void)user;
    if (layers_left > 0) layers_left--;
    return layers_left == 0;
}

static uint32_t vocabulary_size(const pi2_engine *engine) { return pi2_engine_get_report(engine)->vocabulary_size; }

static pi2_engine *open_engine(bool streams) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = model_path;
    options.cluster_path = cluster_path;
    options.context_tokens = CONTEXT;
    options.batch_tokens = BATCH;
    options.draft_tokens = 4;
    options.thread_count = 2;
    options.identifies_weights = true;
    options.callbacks.cancelled = cancelled;
    pi2_engine *engine = NULL;
    const uint64_t more = streams ? MORE_BYTES : 400000000;
    if (pi2_small_budget_open(&options, more, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    const pi2_engine_report *report = pi2_engine_get_report(engine);
    assert_int_equal(streams, report->resident_bytes < report->weight_bytes);
    assert_int_equal(report->batch_tokens, BATCH);
    return engine;
}

/* Makes all logits equal, or no numbers. */
static void flatten(pi2_engine *engine, pi2_session *session, float value) {
    float *logits = (float *)(uintptr_t)pi2_session_logits(session, 0);
    assert_non_null(logits);
    for (uint32_t i = 0; i < vocabulary_size(engine); i++) logits[i] = value;
}

static void append(pi2_session *session, const int32_t *tokens, size_t count) {
    if (pi2_session_append(session, tokens, count, PI2_LOGITS_LAST) != PI2_OK) fail_msg("%s", pi2_error_text());
}

static const char *text_of(pi2_session *session, unsigned char byte) {
    static char text[64];
    size_t length = 0;
    assert_int_equal(pi2_session_token_text(session, BYTE_TOKEN + byte, false, text, sizeof text - 1, &length), PI2_OK);
    text[length] = '\0';
    return text;
}

static pi2_session *create(pi2_engine *engine, bool is_greedy) {
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.temperature = is_greedy ? 0 : 1;
    sampling.top_k = 0;
    sampling.top_p = 1;
    sampling.min_p = 0;
    sampling.presence_penalty = is_greedy ? 1e9f : 0;
    sampling.repeat_last_n = -1;
    sampling.seed = 11;
    pi2_session *session = NULL;
    assert_int_equal(pi2_session_create(engine, &sampling, &session), PI2_OK);
    return session;
}

static uint64_t passes(const pi2_session *session) {
    pi2_draft_counters counters;
    pi2_session_count_drafts(session, &counters);
    return counters.passes;
}

/* The session with HELD tokens, guesses after them, the prompt and one sampled token in the window. */
static pi2_session *begin(pi2_engine *engine, bool is_greedy) {
    engine->sessions.draft_times = (pi2_draft_times){ .token_share = 0 }; /* as if nobody had computed here before */
    pi2_session *session = create(engine, is_greedy);
    pi2_session_begin_answer(session, timeline, HELD - 2);
    append(session, timeline, HELD - 2);
    flatten(engine, session, 1);
    int32_t token = -1;
    assert_int_equal(pi2_session_sample(session, &token), PI2_OK);
    if (is_greedy) assert_int_equal(token, 0);
    append(session, timeline + HELD - 2, 1); /* measures a pass */
    append(session, timeline + HELD - 1, 1); /* guesses */
    pi2_draft_counters counters;
    pi2_session_count_drafts(session, &counters);
    assert_true(counters.guessed > 0);
    assert_string_equal(text_of(session, 0xc3), "");
    return session;
}

static void damage(bool begins) {
    struct stat whole;
    if (begins) {
        assert_int_equal(stat(cluster_path, &whole), 0);
        test_file_copy(cluster_path, copy_path);
        assert_int_equal(truncate(cluster_path, whole.st_size / 2), 0);
    } else {
        test_file_copy(copy_path, cluster_path);
    }
}

/* The work is cancelled or fails in one token, or after the first batch of several (cancelled). */
static void stop_work(pi2_session *session, bool fails, bool many) {
    int32_t tokens[3 * BATCH];
    for (int i = 0; i < 3 * BATCH; i++) tokens[i] = 50 + i;
    if (fails) damage(true);
    else layers_left = many ? 4 + 2 : 1; /* asked once a layer, and the model has four */
    assert_int_equal(pi2_session_append(session, tokens, many ? 3 * BATCH : 1, PI2_LOGITS_LAST),
                     fails ? PI2_ERR_IO : PI2_ERR_INTERRUPTED);
    layers_left = -1;
    if (fails) damage(false);
}

static void append_event(event what, pi2_session *session) {
    int32_t many[CONTEXT];
    for (int i = 0; i < CONTEXT; i++) many[i] = 50 + i;
    const int32_t bad = 1 << 24;
    switch (what) {
    case APPEND_GUESSED: append(session, timeline + HELD, 1); break;
    case APPEND_OTHER: append(session, many, 1); break;
    case APPEND_MANY: append(session, many, 3 * BATCH); break;
    case REFUSE_CONTEXT:
        assert_int_equal(pi2_session_append(session, many, CONTEXT, PI2_LOGITS_LAST), PI2_ERR_CONTEXT);
        break;
    case REFUSE_TOKEN: assert_int_equal(pi2_session_append(session, &bad, 1, PI2_LOGITS_LAST), PI2_ERR_INVALID); break;
    case REFUSE_LOGITS:
        assert_int_equal(pi2_session_append(session, many, 3 * BATCH, PI2_LOGITS_ALL), PI2_ERR_INVALID);
        break;
    default: stop_work(session, what == FAIL_ONE || what == FAIL_MANY, what == CANCEL_MANY || what == FAIL_MANY); break;
    }
}

static void text_event(event what, pi2_session *session) {
    char text[64];
    size_t length = 0;
    switch (what) {
    case TEXT_ENDS: assert_string_equal(text_of(session, 0xa8), "\xc3\xa8"); break;
    case TEXT_BEGINS: assert_string_equal(text_of(session, 0xc2), "\xef\xbf\xbd"); break;
    case REFUSE_TEXT:
        assert_int_equal(pi2_session_token_text(session, BYTE_TOKEN + 0xa8, false, text, 1, &length), PI2_ERR_INVALID);
        assert_int_equal(length, 0);
        break;
    case TEXT_SPECIAL:
        assert_int_equal(pi2_session_token_text(session, 2, true, text, sizeof text, &length), PI2_OK);
        assert_int_equal(length, 3 + strlen("<|im_end|>"));
        assert_memory_equal(text, "\xef\xbf\xbd<|im_end|>", length);
        break;
    default:
        assert_int_equal(pi2_session_text_finish(session, text, sizeof text), 3);
        assert_memory_equal(text, "\xef\xbf\xbd", 3);
        break;
    }
}

/* Of the timeline's beginning; and a copy of which only the last checksum is wrong. */
static void make_saved(pi2_engine *engine) {
    pi2_session *session = create(engine, true);
    append(session, timeline, SAVED);
    if (pi2_session_save(session, saved_path, NULL, 0) != PI2_OK) fail_msg("%s", pi2_error_text());
    pi2_session_free(session);
    size_t length = 0;
    uint8_t *bytes = test_file_read(saved_path, &length);
    bytes[length - 1] ^= 1;
    test_file_write(damaged_path, bytes, length);
    free(bytes);
}

static void file_event(event what, pi2_session *session) {
    switch (what) {
    case SAVE: assert_int_equal(pi2_session_save(session, again_path, "", 0), PI2_OK); break;
    case LOAD: assert_int_equal(pi2_session_load(session, saved_path, NULL, NULL), PI2_OK); break;
    case REFUSE_LOAD:
        assert_int_equal(pi2_session_load(session, model_path, NULL, NULL), PI2_ERR_FORMAT);
        break;
    default: assert_int_equal(pi2_session_load(session, damaged_path, NULL, NULL), PI2_ERR_FORMAT); break;
    }
}

static void happen(event what, pi2_engine *engine, pi2_session *session) {
    int32_t token = -1;
    switch (what) {
    case NOTHING: break;
    case BEGIN_ANSWER: pi2_session_begin_answer(session, other_prompt, 2); break;
    case CUT: assert_int_equal(pi2_session_truncate(session, 5), PI2_OK); break;
    case CUT_NOTHING: assert_int_equal(pi2_session_truncate(session, HELD), PI2_OK); break;
    case CUT_ALL: assert_int_equal(pi2_session_truncate(session, 0), PI2_OK); break;
    case REFUSE_CUT: assert_int_equal(pi2_session_truncate(session, HELD + 1), PI2_ERR_INVALID); break;
    case SAMPLE:
    case FAIL_SAMPLE:
        flatten(engine, session, what == SAMPLE ? 1 : -INFINITY);
        assert_int_equal(pi2_session_sample(session, &token), what == SAMPLE ? PI2_OK : PI2_ERR_FORMAT);
        break;
    default:
        if (what >= TEXT_ENDS) text_event(what, session);
        else if (what >= SAVE) file_event(what, session);
        else append_event(what, session);
    }
}

/* The next token's logits, against those of a session that has seen nothing else. */
static void check_timeline(event what, pi2_engine *engine, pi2_session *session) {
    const uint32_t position = expected[what].position;
    assert_int_equal(pi2_session_position(session), position);
    int32_t tokens[CONTEXT];
    for (uint32_t i = 0; i < position; i++) tokens[i] = i < HELD ? timeline[i] : 50 + (int32_t)(i - HELD);
    if (what == APPEND_GUESSED) tokens[HELD] = timeline[HELD];
    tokens[position] = AFTER;
    append(session, tokens + position, 1);
    const size_t bytes = vocabulary_size(engine) * sizeof(float);
    float *got = malloc(bytes);
    assert_non_null(got);
    memcpy(got, pi2_session_logits(session, 0), bytes);
    pi2_session_free(session);
    session = create(engine, true);
    append(session, tokens, position + 1);
    assert_memory_equal(got, pi2_session_logits(session, 0), bytes);
    pi2_session_free(session);
    free(got);
}

/* Where an event left no logits, there are some again after one token more, which the sampler is not told. */
static void need_logits(pi2_engine *engine, pi2_session *session) {
    const int32_t after = AFTER;
    if (!pi2_session_logits(session, 0)) append(session, &after, 1);
    flatten(engine, session, 1);
}

static void check_window(event what, pi2_engine *engine, pi2_session *session) {
    bool is_in[32] = { false };
    need_logits(engine, session);
    switch (expected[what].window) {
    case PROMPT_0_AND_3: is_in[3] = true; /* falls through */
    case PROMPT_AND_0:
        is_in[0] = true;
        for (int i = 0; i < HELD - 2; i++) is_in[timeline[i]] = true;
        break;
    case OTHER: is_in[3] = is_in[5] = true; break;
    }
    for (int32_t wanted = 0; wanted < 32; wanted++) {
        int32_t token = -1;
        if (is_in[wanted]) continue;
        assert_int_equal(pi2_session_sample(session, &token), PI2_OK);
        assert_int_equal(token, wanted);
    }
}

static void check_numbers(event what, pi2_engine *engine, pi2_session *session) {
    int32_t got[6], wanted[6 + 2];
    need_logits(engine, session);
    for (int i = 0; i < 6; i++) assert_int_equal(pi2_session_sample(session, &got[i]), PI2_OK);
    pi2_session_free(session);
    session = create(engine, false);
    append(session, timeline, 1);
    flatten(engine, session, 1);
    for (int i = 0; i < 6 + 2; i++) assert_int_equal(pi2_session_sample(session, &wanted[i]), PI2_OK);
    assert_memory_equal(got, wanted + expected[what].drawn, sizeof got);
    pi2_session_free(session);
}

static void check_guesses(event what, pi2_session *session) {
    if (expected[what].guesses) {
        const uint64_t before = passes(session);
        append(session, timeline + HELD, 1);
        assert_int_equal(passes(session), before);
        return;
    }
    /* What was guessed before is guessed no more: a token that was computed then takes a pass now. */
    const uint64_t before = passes(session);
    const int32_t other = 90;
    if (what != CUT && what != CUT_ALL && what != FAIL_LOAD) {
        append(session, what == APPEND_GUESSED ? &other : timeline + HELD, 1);
        assert_int_equal(passes(session), before + 1);
        return;
    }
    /* And guesses come from the text that is left: in one without repetition there is nothing to guess. */
    pi2_draft_counters counters;
    pi2_session_count_drafts(session, &counters);
    const uint64_t guessed = counters.guessed;
    static const int32_t gone[] = { 60, 23, 24, 25 }; /* 23 to 25 were in the text that was cut */
    for (int i = 0; i < 4; i++) append(session, &gone[i], 1);
    pi2_session_count_drafts(session, &counters);
    assert_int_equal(counters.guessed, guessed);
}

static void check(event what, piece which, pi2_engine *engine) {
    pi2_session *session = begin(engine, which != NUMBERS);
    happen(what, engine, session);
    switch (which) {
    case TIMELINE: check_timeline(what, engine, session); return;
    case NUMBERS: check_numbers(what, engine, session); return;
    case LOGITS: {
        int32_t token = -1;
        assert_int_equal(pi2_session_logits(session, 0) != NULL, expected[what].logits);
        assert_null(pi2_session_logits(session, 1));
        if (!expected[what].logits) assert_int_equal(pi2_session_sample(session, &token), PI2_ERR_INVALID);
        break;
    }
    case GUESSES: check_guesses(what, session); break;
    case WINDOW: check_window(what, engine, session); break;
    case CHARACTER: assert_string_equal(text_of(session, 0xa9), expected[what].character); break;
    case PIECES: break;
    }
    pi2_session_free(session);
}

static void check_events(bool streams) {
    pi2_engine *engine = open_engine(streams);
    make_saved(engine);
    for (event what = NOTHING; what < EVENTS; what++) {
        if ((what == FAIL_ONE || what == FAIL_MANY) != streams) continue;
        assert_non_null(expected[what].name);
        for (piece which = TIMELINE; which < PIECES; which++) {
            /* All pairs take an emulator minutes on a busy machine: there each event is tried with two pieces. */
            if (PI2_UNDER_EMULATOR && ((unsigned)what + (unsigned)which) % 3 != 0) continue;
            print_message("%s, piece %d\n", expected[what].name, (int)which);
            check(what, which, engine);
        }
    }
    pi2_engine_close(engine);
}

static void test_events(void **state) {
    (void)state;
    check_events(false);
}

static void test_failures(void **state) {
    (void)state;
    check_events(true);
}

/* Where no seed was given, each answer has another one; it can be given again. */
static void test_seeds(void **state) {
    (void)state;
    pi2_engine *engine = open_engine(false);
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    pi2_session *session = NULL;
    assert_int_equal(pi2_session_create(engine, &sampling, &session), PI2_OK);
    const uint32_t first = pi2_session_seed(session);
    bool differs = false;
    for (int i = 0; i < 4; i++) {
        pi2_session_begin_answer(session, NULL, 0);
        differs = differs || pi2_session_seed(session) != first;
    }
    assert_true(differs);
    pi2_session_free(session);
    sampling.seed = 5;
    assert_int_equal(pi2_session_create(engine, &sampling, &session), PI2_OK);
    pi2_session_begin_answer(session, NULL, 0);
    assert_int_equal(pi2_session_seed(session), 5);
    pi2_session_free(session);
    pi2_engine_close(engine);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    model_path = test_folder_path("tiny.gguf");
    cluster_path = test_folder_path("tiny.pi2");
    copy_path = test_folder_path("copy.pi2");
    saved_path = test_folder_path("saved.session");
    again_path = test_folder_path("again.session");
    damaged_path = test_folder_path("damaged.session");
    pi2_tiny_model_options options;
    pi2_streamed_model_options_init(&options);
    return pi2_tiny_model_write_apart(&options, model_path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events), cmocka_unit_test(test_failures), cmocka_unit_test(test_seeds),
    };
    return cmocka_run_group_tests_name("session states", tests, set_up, test_folder_end);
}
