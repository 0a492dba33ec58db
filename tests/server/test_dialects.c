/*
 * Goal:   thinking, text and calls of tools are written as each API has them, streamed and whole.
 * Method: the parts of one answer are given to each dialect, and its bytes are compared with what clients expect, less
 *         ids, dates and times.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/answering.h"

static pi2_server_settings settings;
static struct pi2_server server = {.settings = &settings, .alias = "m"};
static pi2_exchange exchange = {.server = &server};

static const pi2_answer_part parts[] = {
    {PI2_PART_REASONING, "hm", 2, NULL},
    {PI2_PART_CONTENT, "I \"ask\"", 7, NULL},
    {PI2_PART_TOOL, "{\"x\":1}", 7, "f"},
    {PI2_PART_TOOL, "{}", 2, "g"},
};
enum { PARTS = sizeof parts / sizeof parts[0] };

static pi2_reply *begin(const pi2_dialect *dialect) {
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    settings.sampling = sampling;
    pi2_reply *reply = pi2_reply_create(&exchange, dialect);
    assert_non_null(reply);
    reply->job.stop = PI2_STOP_EOS;
    reply->job.prompt_count = 7;
    reply->job.computed_count = 5;
    reply->job.cached_count = 2;
    return reply;
}

/** Everything that the stream holds; each "data:" line, or each line, is JSON or "[DONE]". */
static json_t *stream(const pi2_dialect *dialect) {
    pi2_reply *reply = begin(dialect);
    assert_true(!dialect->begin || dialect->begin(reply));
    for (size_t i = 0; i < PARTS; i++) {
        assert_true(dialect->part(reply, &parts[i]));
        reply->tool_count += parts[i].kind == PI2_PART_TOOL;
    }
    reply->has_ended = true;
    assert_true(dialect->end(reply));
    json_t *values = json_array();
    for (char *line = strtok(reply->out.data, "\n"); line; line = strtok(NULL, "\n")) {
        if (strncmp(line, "event: ", 7) == 0) continue;
        if (strncmp(line, "data: ", 6) == 0) line += 6;
        json_t *value = json_loads(line, 0, NULL);
        assert_true(value || strcmp(line, "[DONE]") == 0);
        (void)json_array_append_new(values, value ? value : json_string(line));
    }
    pi2_reply_free(reply);
    return values;
}

/** The value at "0.choices.0.delta": numbers are places in arrays. */
static json_t *at(json_t *value, const char *path) {
    char copy[256];
    (void)snprintf(copy, sizeof copy, "%s", path);
    for (char *rest = NULL, *step = strtok_r(copy, ".", &rest); step; step = strtok_r(NULL, ".", &rest)) {
        value = json_is_array(value) ? json_array_get(value, strtoul(step, NULL, 10)) : json_object_get(value, step);
    }
    return value;
}

/** In `wanted` ' stands for ", and ` for a quotation mark within a text. */
static void expect(json_t *values, const char *path, const char *wanted) {
    char text[512];
    size_t length = 0;
    for (const char *from = wanted; *from; from++) {
        assert_true(length + 3 < sizeof text);
        if (*from == '`') text[length++] = '\\';
        text[length++] = *from == '\'' || *from == '`' ? '"' : *from;
    }
    text[length] = '\0';
    json_t *expected = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(expected);
    if (!json_equal(at(values, path), expected)) {
        char *got = at(values, path) ? json_dumps(at(values, path), JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
        fail_msg("%s is %s, not %s", path, got ? got : "not there", text);
    }
    json_decref(expected);
}

static void test_openai(void **state) {
    (void)state;
    json_t *values = stream(&pi2_dialect_chat);
    expect(values, "0.choices.0.delta", "{'role':'assistant','content':''}");
    expect(values, "1.choices.0.delta", "{'reasoning_content':'hm'}");
    expect(values, "2.choices.0.delta", "{'content':'I `ask`'}");
    expect(values, "3.choices.0.delta.tool_calls.0.index", "0");
    expect(values, "3.choices.0.delta.tool_calls.0.type", "'function'");
    expect(values, "3.choices.0.delta.tool_calls.0.function", "{'name':'f','arguments':'{`x`:1}'}");
    expect(values, "4.choices.0.delta.tool_calls.0.index", "1");
    expect(values, "5.choices.0.finish_reason", "'tool_calls'");
    expect(values, "5.timings.cache_n", "2");
    expect(values, "6", "'[DONE]'");
    assert_string_not_equal(json_string_value(at(values, "3.choices.0.delta.tool_calls.0.id")),
                            json_string_value(at(values, "4.choices.0.delta.tool_calls.0.id")));
    json_decref(values);
}

static void test_anthropic(void **state) {
    (void)state;
    json_t *values = stream(&pi2_dialect_messages);
    static const char *const types[] = {
        "message_start", "content_block_start", "content_block_delta", "content_block_stop", "content_block_start",
        "content_block_delta", "content_block_stop", "content_block_start", "content_block_delta",
        "content_block_stop", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
        "message_stop"};
    assert_int_equal(json_array_size(values), sizeof types / sizeof types[0]);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        assert_string_equal(json_string_value(json_object_get(json_array_get(values, i), "type")), types[i]);
    }
    expect(values, "1.content_block", "{'type':'thinking','thinking':'','signature':''}");
    expect(values, "2.delta", "{'type':'thinking_delta','thinking':'hm'}");
    expect(values, "5.delta", "{'type':'text_delta','text':'I `ask`'}");
    expect(values, "5.index", "1");
    expect(values, "7.content_block.name", "'f'");
    expect(values, "8.delta", "{'type':'input_json_delta','partial_json':'{`x`:1}'}");
    expect(values, "12.index", "3");
    expect(values, "13.delta", "{'stop_reason':'tool_use','stop_sequence':null}");
    expect(values, "13.usage", "{'input_tokens':5,'cache_read_input_tokens':2,'output_tokens':0}");
    json_decref(values);
}

static void test_ollama(void **state) {
    (void)state;
    json_t *values = stream(&pi2_dialect_ollama_chat);
    expect(values, "0.message", "{'role':'assistant','content':'','thinking':'hm'}");
    expect(values, "1.message", "{'role':'assistant','content':'I `ask`'}");
    expect(values, "2.message.tool_calls", "[{'function':{'name':'f','arguments':{'x':1}}}]");
    expect(values, "4.done", "true");
    expect(values, "4.done_reason", "'stop'");
    json_decref(values);
}

static json_t *whole(const pi2_dialect *dialect) {
    pi2_reply *reply = begin(dialect);
    assert_true(pi2_cli_text_add(&reply->reasoning, "hm", 2) && pi2_cli_text_add(&reply->content, "", 0));
    reply->tool_calls = json_pack("[{s:s, s:s, s:s}]", "id", "1", "name", "f", "arguments", "{\"x\":1}");
    reply->tool_count = 1;
    json_t *value = dialect->whole(reply);
    assert_non_null(value);
    pi2_reply_free(reply);
    return value;
}

static void test_whole(void **state) {
    (void)state;
    json_t *value = whole(&pi2_dialect_chat);
    expect(value, "choices.0.message",
           "{'role':'assistant','content':null,'reasoning_content':'hm','tool_calls':[{'id':'1','type':'function',"
           "'function':{'name':'f','arguments':'{`x`:1}'}}]}");
    expect(value, "choices.0.finish_reason", "'tool_calls'");
    json_decref(value);
    value = whole(&pi2_dialect_messages);
    expect(value, "content", "[{'type':'thinking','thinking':'hm','signature':''},"
                             "{'type':'tool_use','id':'1','name':'f','input':{'x':1}}]");
    expect(value, "stop_reason", "'tool_use'");
    json_decref(value);
    value = whole(&pi2_dialect_ollama_chat);
    expect(value, "message", "{'role':'assistant','content':'','thinking':'hm','tool_calls':[{'function':{'name':'f',"
                             "'arguments':{'x':1}}}]}");
    json_decref(value);
}

static void test_progress(void **state) {
    (void)state;
    const pi2_dialect *const dialects[] = {&pi2_dialect_chat, &pi2_dialect_llama};
    for (size_t i = 0; i < 2; i++) {
        pi2_reply *reply = begin(dialects[i]);
        reply->job.progress_done = 30;
        reply->job.progress_total = 50; /* three of the five tokens that are not there */
        assert_true(dialects[i]->progress(reply, pi2_reply_progress(reply)));
        json_t *value = json_loads(reply->out.data + 6, JSON_DISABLE_EOF_CHECK, NULL);
        expect(value, "prompt_progress.total", "7");
        expect(value, "prompt_progress.cache", "2");
        expect(value, "prompt_progress.processed", "5");
        json_decref(value);
        pi2_reply_free(reply);
    }
}

static void test_errors(void **state) {
    (void)state;
    json_t *value = pi2_error_json(PI2_API_OPENAI, 400, "invalid_request_error", "no");
    expect(value, "error", "{'code':400,'message':'no','type':'invalid_request_error'}");
    json_decref(value);
    value = pi2_error_json(PI2_API_ANTHROPIC, 503, "unavailable_error", "full");
    expect(value, "error", "{'type':'overloaded_error','message':'full'}");
    expect(value, "type", "'error'");
    json_decref(value);
    value = pi2_error_json(PI2_API_OLLAMA, 400, "invalid_request_error", "no \xff");
    expect(value, "error", "'no \xef\xbf\xbd'");
    json_decref(value);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_openai), cmocka_unit_test(test_anthropic),
                                       cmocka_unit_test(test_ollama), cmocka_unit_test(test_whole),
                                       cmocka_unit_test(test_progress), cmocka_unit_test(test_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
