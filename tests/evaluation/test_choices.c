/*
 * Goal:   tasks are read from both forms and refused by line where they are wrong; the ending that is picked is what
 *         the definition gives, whatever the step; intervals are Wilson's; results survive a file, and damaged ones are
 *         refused.
 * Method: small files; a tiny model whose endings are scored here one by one, each from an empty timeline.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "powerinfer2/choices.h"
#include "powerinfer2/scoring.h"
#include "support/family_model.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

static pi2_status open_text(const char *path, const char *text, size_t length, pi2_choice_format format,
                            pi2_choice_file **file_out) {
    test_file_write(path, text, length);
    return pi2_choice_file_open(path, format, file_out);
}

static void assert_text(pi2_choice_text got, const char *want) {
    assert_int_equal(got.length, strlen(want));
    assert_memory_equal(got.text, want, got.length);
}

static void test_six_lines_are_a_task(void **state) {
    (void)state;
    static const char text[] = "\xef\xbb\xbfone\n3\na\nb\nc\nd\r\n\n two \t\n0\n\n  x\ny\nz";
    pi2_choice_file *file = NULL;
    pi2_choice_task task;
    char *path = test_folder_path("tasks");
    assert_int_equal(open_text(path, text, sizeof text - 1, PI2_CHOICES_HELLASWAG, &file), PI2_OK);
    assert_int_equal(pi2_choice_file_count(file), 2);
    for (int round = 0; round < 2; round++) { /* behind the last comes the first */
        assert_int_equal(pi2_choice_file_next(file, &task), PI2_OK);
        assert_text(task.context, "one");
        assert_int_equal(task.answer, 3);
        assert_int_equal(task.choice_count, 4);
        assert_text(task.choices[3], "d");
        assert_false(task.is_joined);
        assert_int_equal(pi2_choice_file_next(file, &task), PI2_OK);
        assert_text(task.context, " two"); /* one space will come between, and no other */
        assert_text(task.choices[0], "");
        assert_text(task.choices[1], "x");
        assert_text(task.choices[3], "z");
        assert_int_equal(task.answer, 0);
    }
    pi2_choice_file_close(file);
}

static void test_an_object_is_a_task(void **state) {
    (void)state;
    static const char text[] =
        "{\"context\": \"one\", \"choices\": [\"a\", \"b\u00e9\"], \"answer\": 1, \"other\": null}\n\n"
        "{\"answer\": 0, \"choices\": [\" a\", \"b\", \"c\"], \"context\": \"two\"}\n"
        "{\"answer\": 0, \"choices\": [\"a\", \"b\"], \"context\": \"Answer:\\n\"}";
    pi2_choice_file *file = NULL;
    pi2_choice_task task;
    char *path = test_folder_path("tasks");
    assert_int_equal(open_text(path, text, sizeof text - 1, PI2_CHOICES_JSON_LINES, &file), PI2_OK);
    assert_int_equal(pi2_choice_file_count(file), 3);
    assert_int_equal(pi2_choice_file_next(file, &task), PI2_OK);
    assert_text(task.choices[1], "b\xc3\xa9");
    assert_true(task.answer == 1 && task.choice_count == 2 && !task.is_joined);
    assert_int_equal(pi2_choice_file_next(file, &task), PI2_OK);
    assert_true(task.answer == 0 && task.choice_count == 3 && task.is_joined);
    assert_int_equal(pi2_choice_file_next(file, &task), PI2_OK);
    assert_true(task.is_joined);
    pi2_choice_file_close(file);
}

static void test_wrong_tasks_are_refused_by_line(void **state) {
    (void)state;
    static const struct { const char *text, *line; pi2_choice_format format; } wrong[] = {
        { "", "no task", PI2_CHOICES_HELLASWAG },
        { "\n\n \n", "no task", PI2_CHOICES_HELLASWAG },
        { "one", "line 1", PI2_CHOICES_HELLASWAG },
        { "one\n4\na\nb\nc\nd\n", "line 2", PI2_CHOICES_HELLASWAG },
        { "one\n-1\na\nb\nc\nd\n", "line 2", PI2_CHOICES_HELLASWAG },
        { "one\n\na\nb\nc\nd\n", "line 2", PI2_CHOICES_HELLASWAG },
        { "one\n1\na\nb\nc\n", "line 5", PI2_CHOICES_HELLASWAG },
        { "one\n1\na\nb\nc\nd\ntwo\n1 \n", "line 8", PI2_CHOICES_HELLASWAG },
        { "\n", "no task", PI2_CHOICES_JSON_LINES },
        { "one\n", "line 1", PI2_CHOICES_JSON_LINES },
        { "[]\n", "line 1: \"context\"", PI2_CHOICES_JSON_LINES },
        { "{\"choices\": [\"a\", \"b\"], \"answer\": 0}", "\"context\"", PI2_CHOICES_JSON_LINES },
        { "{\"context\": \"\", \"choices\": [\"a\", \"b\"], \"answer\": 0}", "\"context\"", PI2_CHOICES_JSON_LINES },
        { "{\"context\": \"c\", \"choices\": [\"a\"], \"answer\": 0}", "\"choices\"", PI2_CHOICES_JSON_LINES },
        { "{\"context\": \"c\", \"choices\": {\"a\": 1}, \"answer\": 0}", "\"choices\"", PI2_CHOICES_JSON_LINES },
        { "{\"context\": \"c\", \"choices\": [\"a\", 1], \"answer\": 0}", "\"choices\"", PI2_CHOICES_JSON_LINES },
        { "{\"context\": \"c\", \"choices\": [\"a\", \"\"], \"answer\": 0}", "\"choices\"", PI2_CHOICES_JSON_LINES },
        { "{\"context\": \"c\", \"choices\": [\"a\", \"b\"], \"answer\": 2}", "\"answer\"", PI2_CHOICES_JSON_LINES },
        { "{\"context\": \"c\", \"choices\": [\"a\", \"b\"], \"answer\": -1}", "\"answer\"", PI2_CHOICES_JSON_LINES },
        { "{\"context\": \"c\", \"choices\": [\"a\", \"b\"], \"answer\": \"a\"}", "\"answer\"",
          PI2_CHOICES_JSON_LINES },
        { "{\"context\": \"c\", \"choices\": [\"a\", \"b\"], \"answer\": 0}\n{\"context\": \"c\"", "line 2",
          PI2_CHOICES_JSON_LINES },
        { "{\"context\": \"\\u0000\", \"choices\": [\"a\", \"b\"], \"answer\": 0}", "line 1", PI2_CHOICES_JSON_LINES },
        { "{\"context\": \"\xff\", \"choices\": [\"a\", \"b\"], \"answer\": 0}", "line 1", PI2_CHOICES_JSON_LINES },
    };
    char *path = test_folder_path("tasks");
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        pi2_choice_file *file = NULL;
        if (open_text(path, wrong[i].text, strlen(wrong[i].text), wrong[i].format, &file) != PI2_ERR_FORMAT) {
            fail_msg("%zu is taken: %s", i, wrong[i].text);
        }
        if (!strstr(pi2_error_text(), wrong[i].line)) fail_msg("%zu: %s", i, pi2_error_text());
    }
}

static void test_intervals_are_wilsons(void **state) {
    (void)state;
    double low, high;
    pi2_wilson_interval(50, 100, &low, &high); /* published: 0.4038 to 0.5962 */
    assert_true(fabs(low - 0.4038) < 1e-4 && fabs(high - 0.5962) < 1e-4);
    pi2_wilson_interval(0, 10, &low, &high); /* 0 to 0.2775 */
    assert_true(fabs(low) < 1e-12 && fabs(high - 0.2775) < 1e-4);
    pi2_wilson_interval(10, 10, &low, &high);
    assert_true(fabs(low - 0.7225) < 1e-4 && fabs(high - 1) < 1e-12);
}

/* ---- picking ---- */

/** Asked once a layer and pass, and so counts them. */
static bool count_asking(void *user) {
    ++*(int *)user;
    return false;
}

static int asked;

static pi2_engine *open_model(const char *path, uint32_t context) {
    pi2_engine_options options;
    pi2_engine *engine = NULL;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.context_tokens = context;
    options.logits_tokens = 8;
    options.thread_count = 2;
    options.callbacks.cancelled = count_asking;
    options.callbacks.user = &asked;
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    return engine;
}

static pi2_engine *open_engine(uint32_t context) {
    pi2_tiny_model_options model;
    char *path = test_folder_path("tiny.gguf");
    pi2_tiny_model_options_init(&model);
    pi2_tiny_model_set_types(&model, PI2_Q8_0);
    assert_int_equal(pi2_tiny_model_write(&model, path), 0);
    return open_model(path, context);
}

/** -surprise of each ending's tokens behind the first `common` ones, with all tokens run anew. */
static double score_alone(pi2_engine *engine, pi2_session *session, const char *context, const char *ending,
                          size_t common, size_t *count_out) {
    char text[256];
    int32_t *tokens = NULL;
    double sum = 0;
    (void)snprintf(text, sizeof text, "%s %s", context, ending);
    assert_int_equal(pi2_engine_tokenize(engine, text, strlen(text), true, false, &tokens, count_out), PI2_OK);
    assert_int_equal(pi2_session_truncate(session, 0), PI2_OK);
    for (size_t i = 0; i + 1 < *count_out; i++) {
        assert_int_equal(pi2_session_append(session, tokens + i, 1, PI2_LOGITS_LAST), PI2_OK);
        const uint32_t vocabulary = pi2_engine_get_report(engine)->vocabulary_size;
        if (i + 1 >= common) sum -= pi2_surprise(pi2_session_logits(session, 0), vocabulary, tokens[i + 1]);
    }
    free(tokens);
    return sum;
}

static size_t common_tokens(const pi2_engine *engine, const char *context, const char *const endings[3]) {
    int32_t *tokens[3];
    size_t counts[3], common = 0;
    for (int i = 0; i < 3; i++) {
        char text[256];
        (void)snprintf(text, sizeof text, "%s %s", context, endings[i]);
        assert_int_equal(pi2_engine_tokenize(engine, text, strlen(text), true, false, &tokens[i], &counts[i]), PI2_OK);
    }
    while (common < counts[0] && common < counts[1] && common < counts[2] && tokens[0][common] == tokens[1][common] &&
           tokens[0][common] == tokens[2][common]) common++;
    for (int i = 0; i < 3; i++) {
        if (common == counts[i]) common--;
        free(tokens[i]);
    }
    return common;
}

static void test_the_likeliest_ending_is_picked(void **state) {
    (void)state;
    static const char *const tasks[][4] = {
        { "the hand and the", "other one", "of the line and all that is in it", "in" },
        { "one", "and the hand", "and the hand", "and" }, /* the same twice, and one that begins the others */
        { "he is in the hand of", "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9", "the", "that other one there" },
        { "line", "a b c d e f g h i j k l m n o p", "b", "c d" },
    };
    pi2_engine *engine = open_engine(64);
    pi2_session *session = NULL;
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    int differences = 0;
    for (size_t t = 0; t < sizeof tasks / sizeof tasks[0]; t++) {
        const char *const *endings = tasks[t] + 1;
        pi2_choice_task task = { .context = { tasks[t][0], strlen(tasks[t][0]) }, .choice_count = 3, .answer = 1 };
        double best[PI2_CHOICE_RULES] = { -INFINITY, -INFINITY, -INFINITY };
        int want[PI2_CHOICE_RULES] = { 0 };
        const size_t common = common_tokens(engine, tasks[t][0], endings);
        for (int i = 0; i < 3; i++) {
            size_t count, characters = 0;
            task.choices[i] = (pi2_choice_text){ endings[i], strlen(endings[i]) };
            for (const char *c = endings[i]; *c; c++) characters += (*c & 0xc0) != 0x80;
            const double sum = score_alone(engine, session, tasks[t][0], endings[i], common, &count);
            const double scores[] = { sum, sum / (double)(count - common), sum / (double)characters };
            for (int rule = 0; rule < PI2_CHOICE_RULES; rule++) {
                if (scores[rule] > best[rule]) want[rule] = i, best[rule] = scores[rule];
            }
        }
        differences += want[0] != want[1] || want[1] != want[2];
        for (uint32_t step = 1; step <= 8; step += 7) {
            pi2_choice_result result;
            assert_int_equal(pi2_choice_pick(engine, session, &task, step, &result), PI2_OK);
            assert_true(result.answer == 1 && result.choice_count == 3);
            for (int rule = 0; rule < PI2_CHOICE_RULES; rule++) assert_int_equal(result.picked[rule], want[rule]);
        }
    }
    assert_true(differences > 0); /* or the rules could not be told apart */
    pi2_session_free(session);
    pi2_engine_close(engine);
}

static void check_computed_once(pi2_engine *engine) {
    static const char *const endings[] = { "one", "other two of them", "line" };
    static const char context[] = "the hand and the other one are in that line of the other hand";
    enum { STEP = 8 };
    pi2_session *session = NULL;
    pi2_choice_result result;
    pi2_choice_task task = { .context = { context, sizeof context - 1 }, .choice_count = 3 };
    const size_t common = common_tokens(engine, context, endings);
    size_t passes = 1;
    for (int i = 0; i < 3; i++) {
        char text[256];
        int32_t *tokens;
        size_t count;
        (void)snprintf(text, sizeof text, "%s %s", context, endings[i]);
        assert_int_equal(pi2_engine_tokenize(engine, text, strlen(text), true, false, &tokens, &count), PI2_OK);
        passes += (count - 1 - common + STEP - 1) / STEP; /* the last token predicts nothing */
        free(tokens);
        task.choices[i] = (pi2_choice_text){ endings[i], strlen(endings[i]) };
    }
    assert_true(common > 2 * STEP); /* or another pass over it would not be seen */
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    const int32_t token = 5;
    asked = 0;
    assert_int_equal(pi2_session_append(session, &token, 1, PI2_LOGITS_LAST), PI2_OK);
    const int a_pass = asked;
    assert_true(a_pass > 0);
    asked = 0;
    assert_int_equal(pi2_choice_pick(engine, session, &task, STEP, &result), PI2_OK);
    assert_int_equal(asked, (int)passes * a_pass);
    pi2_session_free(session);
    pi2_engine_close(engine);
}

static void test_what_endings_share_is_computed_once(void **state) {
    (void)state;
    char *path = test_folder_path("recurrent.gguf");
    check_computed_once(open_engine(128));
    assert_int_equal(pi2_family_model_write("lfm2", PI2_Q8_0, 1, path), 0); /* goes back to a state that was saved */
    check_computed_once(open_model(path, 128));
}

static void test_a_task_that_does_not_fit_is_told(void **state) {
    (void)state;
    pi2_engine *engine = open_engine(8);
    pi2_session *session = NULL;
    pi2_choice_result result;
    static const char context[] = "a b c d e f g h i j k l m n o p q r s t u v w x y z";
    pi2_choice_task task = { .context = { context, sizeof context - 1 }, .choice_count = 2,
                             .choices = { { "a", 1 }, { "b", 1 } } };
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    assert_int_equal(pi2_choice_pick(engine, session, &task, 1, &result), PI2_ERR_CONTEXT);
    assert_non_null(strstr(pi2_error_text(), "there are 8: give -c"));
    task.context.length = 0;
    task.is_joined = true; /* nothing before the endings: no token in common */
    assert_int_equal(pi2_choice_pick(engine, session, &task, 1, &result), PI2_ERR_INVALID);
    pi2_session_free(session);
    pi2_engine_close(engine);
}

/* ---- results ---- */

enum { TASKS = 7 };

static pi2_choice_results *make_results(const pi2_choice_subject *subject, uint64_t count) {
    pi2_choice_results *results = NULL;
    assert_int_equal(pi2_choice_results_create(subject, TASKS, &results), PI2_OK);
    for (uint64_t i = 0; i < count; i++) {
        const pi2_choice_result result = { .answer = i % 4, .choice_count = 4, .picked = { 1, i % 4, 3 } };
        assert_int_equal(pi2_choice_results_add(results, &result), PI2_OK);
    }
    return results;
}

static const pi2_choice_subject subject = { .format = PI2_CHOICES_HELLASWAG, .task_hash = 0x123456789abcdef0u,
                                            .weights_hash = 42, .arithmetic = "exact" };

static void test_results_survive_a_file(void **state) {
    (void)state;
    char *path = test_folder_path("results.jsonl");
    pi2_choice_summary summary;
    pi2_choice_results *written = make_results(&subject, TASKS - 1), *read = make_results(&subject, 0);
    assert_int_equal(pi2_choice_results_write(written, path), PI2_OK);
    assert_int_equal(pi2_choice_results_write(written, path), PI2_OK); /* its own kind gives way */
    assert_int_equal(pi2_choice_results_read(read, path), PI2_OK);
    assert_int_equal(pi2_choice_results_count(read), TASKS - 1);
    for (uint64_t i = 0; i < TASKS - 1; i++) {
        assert_memory_equal(pi2_choice_results_at(read, i), pi2_choice_results_at(written, i),
                            sizeof(pi2_choice_result));
    }
    pi2_choice_results_summarize(read, TASKS - 1, &summary);
    assert_int_equal(summary.rules[PI2_CHOICE_SUM].hits, 2);       /* tasks 1 and 5 */
    assert_int_equal(summary.rules[PI2_CHOICE_PER_TOKEN].hits, 6); /* all */
    assert_int_equal(summary.rules[PI2_CHOICE_PER_CHARACTER].hits, 1);
    assert_true(fabs(summary.chance - 0.25) < 1e-12);
    pi2_choice_results_summarize(read, 2, &summary);
    assert_true(summary.count == 2 && summary.rules[PI2_CHOICE_SUM].hits == 1);
    char *notes = test_folder_path("notes");
    test_file_write(notes, "notes", 5);
    assert_int_equal(pi2_choice_results_write(written, notes), PI2_ERR_INVALID);
    pi2_choice_results_free(written);
    pi2_choice_results_free(read);
}

static void test_results_of_something_else_are_refused(void **state) {
    (void)state;
    char *path = test_folder_path("results.jsonl");
    pi2_choice_results *written = make_results(&subject, TASKS);
    assert_int_equal(pi2_choice_results_write(written, path), PI2_OK);
    pi2_choice_subject others[4] = { subject, subject, subject, subject };
    others[0].format = PI2_CHOICES_JSON_LINES;
    others[1].task_hash++;
    others[2].weights_hash++;
    others[3].arithmetic = "cache q8_0";
    for (int i = 0; i < 4; i++) {
        pi2_choice_results *read = make_results(&others[i], 0);
        assert_int_equal(pi2_choice_results_read(read, path), PI2_ERR_INVALID);
        assert_int_equal(pi2_choice_results_count(read), 0);
        pi2_choice_results_free(read);
    }
    pi2_choice_results_free(written);
}

static void test_damaged_results_are_refused(void **state) {
    (void)state;
    char *path = test_folder_path("results.jsonl");
    pi2_choice_results *results = make_results(&subject, TASKS);
    size_t count;
    assert_int_equal(pi2_choice_results_write(results, path), PI2_OK);
    char *bytes = (char *)test_file_read(path, &count);
    for (size_t length = 0; length < count; length++) { /* whole lines are taken, as of a run that was not finished */
        test_file_write(path, bytes, length);
        const bool is_whole = length && (bytes[length - 1] == '\n' || bytes[length] == '\n');
        assert_int_equal(pi2_choice_results_read(results, path), is_whole ? PI2_OK : PI2_ERR_FORMAT);
    }
    static const char *const changes[][2] = {
        { "\"task\": 3", "\"task\": 4" }, { "\"answer\": 3", "\"answer\": 4" }, { "\"choices\": 4", "\"choices\": 1" },
        { "\"sum\": 1", "\"sum\": 9" }, { "\"per_token\": 2", "\"per_token\": -" }, { "_eval\": 1", "_eval\": 2" },
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        char *at = strstr(bytes, changes[i][0]);
        assert_non_null(at);
        memcpy(at, changes[i][1], strlen(changes[i][1]));
        test_file_write(path, bytes, count);
        assert_int_equal(pi2_choice_results_read(results, path), PI2_ERR_FORMAT);
        memcpy(at, changes[i][0], strlen(changes[i][0]));
    }
    char *twice = malloc(2 * count); /* more tasks than there are */
    memcpy(twice, bytes, count);
    const size_t used = count + (size_t)sprintf(twice + count, "{\"task\": %d, \"choices\": 2, \"answer\": 0, "
                                                "\"sum\": 0, "
                                                "\"per_token\": 0, \"per_character\": 0}\n", TASKS);
    test_file_write(path, twice, used);
    assert_int_equal(pi2_choice_results_read(results, path), PI2_ERR_INVALID);
    free(twice);
    free(bytes);
    pi2_choice_results_free(results);
}

#define TEST_IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, test_folder_begin_in_memory, test_folder_end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST_IN_FOLDER(test_six_lines_are_a_task),
        TEST_IN_FOLDER(test_an_object_is_a_task),
        TEST_IN_FOLDER(test_wrong_tasks_are_refused_by_line),
        TEST_IN_FOLDER(test_intervals_are_wilsons),
        TEST_IN_FOLDER(test_the_likeliest_ending_is_picked),
        TEST_IN_FOLDER(test_what_endings_share_is_computed_once),
        TEST_IN_FOLDER(test_a_task_that_does_not_fit_is_told),
        TEST_IN_FOLDER(test_results_survive_a_file),
        TEST_IN_FOLDER(test_results_of_something_else_are_refused),
        TEST_IN_FOLDER(test_damaged_results_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
