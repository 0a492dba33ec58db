/*
 * Goal:   an answer's text becomes thinking, content and calls by the marks of each family, however it is cut into
 *         pieces; what looks like a mark or a call and is none is content, and nothing is lost.
 * Method: texts beside their parts, each fed whole, in single bytes and in pieces of 2, 3 and 7.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/answer_parser.h"

static const char tools_text[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"add\",\"parameters\":{\"type\":\"object\",\"properties\":"
    "{\"a\":{\"type\":\"integer\"},\"s\":{\"type\":\"string\"},\"l\":{\"type\":\"array\"}}}}}]";

#define DEEP "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[" /* a level more than is parsed */

static const struct example {
    bool thinks, has_tools;
    const char *text, *parts;
} examples[] = {
    {false, false, "Plain <b>text</b>.", "C(Plain <b>text</b>.)"},
    {false, false, "", ""},
    {false, false, "  led by space", "C(  led by space)"},
    {false, false, "<think>\nHm.\n</think>\n\nYes.", "R(Hm.)C(Yes.)"},
    {false, false, "\n<think>a</think>b", "R(a)C(b)"},
    {false, false, "<think>never ends", "R(never ends)"},
    {false, false, "<think></think>\n\nb <think> c", "C(b <think> c)"},
    {false, false, "say <think>x</think>", "C(say <think>x</think>)"},
    {false, false, "<thin", "C(<thin)"},
    {false, false, "<thinker>", "C(<thinker>)"},
    {true, false, "Hm </thin k> so\n</think>\nYes", "R(Hm </thin k> so)C(Yes)"},
    {true, false, "only thought", "R(only thought)"},
    {true, false, "a</think>", "R(a)"},
    /* Calls are text where no tools were offered. */
    {false, false, "<tool_call>\n{\"name\":\"add\",\"arguments\":{}}\n</tool_call>",
     "C(<tool_call>\n{\"name\":\"add\",\"arguments\":{}}\n</tool_call>)"},
    /* Hermes and Qwen */
    {false, true, "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>", "T(add {\"a\":1})"},
    {false, true, "I will.\n<tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call>\n"
                  "<tool_call>{\"name\":\"b\",\"arguments\":{}}</tool_call>", "C(I will.\n)T(add {})C(\n)T(b {})"},
    {false, true, "<think>t</think>\n\n<tool_call>{\"name\":\"add\"}</tool_call>", "R(t)T(add {})"},
    {false, true, "<tool_call>{\"name\":\"add\",\"arguments\":\"{\\\"a\\\":2}\"}", "T(add {\"a\":2})"},
    {false, true, "<tool_call>{\"name\":\"add\",\"arguments\":\"" DEEP "\"}</tool_call>",
     "C(<tool_call>{\"name\":\"add\",\"arguments\":\"" DEEP "\"}</tool_call>)"},
    {false, true, "<tool_call>{\"name\": 5}</tool_call> ok", "C(<tool_call>{\"name\": 5}</tool_call> ok)"},
    {false, true, "<tool_call>no json</tool_call>", "C(<tool_call>no json</tool_call>)"},
    {false, true, "<tool_call>{\"name\":\"add\"", "C(<tool_call>{\"name\":\"add\")"},
    {false, true, "<tool", "C(<tool)"},
    /* Qwen3-Coder: types come from the schema, where it has them */
    {false, true, "<tool_call>\n<function=add>\n<parameter=a>\n12\n</parameter>\n<parameter=s>\n12\n</parameter>\n"
                  "<parameter=l>\n[1, 2]\n</parameter>\n<parameter=x>\ntwo\nlines\n</parameter>\n</function>\n"
                  "</tool_call>",
     "T(add {\"a\":12,\"s\":\"12\",\"l\":[1,2],\"x\":\"two\\nlines\"})"},
    {false, true, "<function=add>\n</function>", "T(add {})"},
    {false, true, "\n\t<function=add", "C(<function=add)"}, /* space before what may become a call waits too */
    {false, true, "\n<tool_call>{\"name\":\"add\"}</tool_call>\n<tool_call>{\"name\":\"b\"}</tool_call>\n",
     "T(add {})T(b {})"},
    {false, true, "<function=add><parameter=a>1", "C(<function=add><parameter=a>1)"},
    /* Mistral, the older form and the newer */
    {false, true, "[TOOL_CALLS][{\"name\":\"add\",\"arguments\":{\"a\":1}},{\"name\":\"b\",\"arguments\":{}}]",
     "T(add {\"a\":1})T(b {})"},
    {false, true, "[TOOL_CALLS]add[ARGS]{\"a\": 1}[TOOL_CALLS]b{}", "T(add {\"a\":1})T(b {})"},
    {false, true, "[TOOL_CALLS]add", "C([TOOL_CALLS]add)"},
    /* Llama 3 */
    {false, true, "{\"name\": \"add\", \"parameters\": {\"a\": 1}}", "T(add {\"a\":1})"},
    {false, true, "<|python_tag|>{\"name\":\"add\",\"parameters\":{}}; {\"name\":\"b\",\"parameters\":{}}",
     "T(add {})T(b {})"},
    {false, true, "{\"answer\": 42}", "C({\"answer\": 42})"},
    {false, true, "See {\"name\":\"add\",\"parameters\":{}}", "C(See {\"name\":\"add\",\"parameters\":{}})"},
    {false, true, "{{{{", "C({{{{)"},
};

/* What came out: neighbours of one kind are one part, as their cut says nothing. */
typedef struct record {
    char text[1024];
    pi2_part_kind kind;
    bool is_open;
} record;

static bool take(void *user, const pi2_answer_part *part) {
    record *out = user;
    static const char letters[] = "CRT";
    const size_t length = strlen(out->text), room = sizeof out->text - length;
    assert_true(part->length > 0);
    if (out->is_open && out->kind == part->kind && part->kind != PI2_PART_TOOL) {
        out->text[length - 1] = '\0';
        (void)snprintf(out->text + length - 1, room, "%.*s)", (int)part->length, part->text);
    } else {
        (void)snprintf(out->text + length, room, "%c(%s%s%.*s)", letters[part->kind], part->name ? part->name : "",
                       part->name ? " " : "", (int)part->length, part->text);
    }
    out->kind = part->kind;
    out->is_open = true;
    return true;
}

static void parse(const struct example *example, json_t *tools, size_t piece, record *out) {
    *out = (record){.text = ""};
    pi2_answer_parser *parser = pi2_answer_parser_create(example->thinks, example->has_tools ? tools : NULL, take, out);
    assert_non_null(parser);
    const size_t length = strlen(example->text);
    for (size_t i = 0; i < length; i += piece) {
        const size_t count = length - i < piece ? length - i : piece;
        assert_true(pi2_answer_parser_add(parser, example->text + i, count));
    }
    assert_true(pi2_answer_parser_finish(parser));
    pi2_answer_parser_free(parser);
}

static void test_parts(void **state) {
    (void)state;
    static const size_t pieces[] = {SIZE_MAX / 2, 1, 2, 3, 7};
    json_t *tools = json_loads(tools_text, 0, NULL);
    assert_non_null(tools);
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        for (size_t k = 0; k < sizeof pieces / sizeof pieces[0]; k++) {
            record out;
            parse(&examples[i], tools, pieces[k], &out);
            if (strcmp(out.text, examples[i].parts) != 0) {
                fail_msg("'%s' in pieces of %zu gives '%s', not '%s'", examples[i].text, pieces[k], out.text,
                         examples[i].parts);
            }
        }
    }
    json_decref(tools);
}

static bool count_parts(void *user, const pi2_answer_part *part) {
    ++((size_t *)user)[part->kind];
    return true;
}

/* A model that was told to write many empty objects makes no call of them: they would take far more than their text. */
static void test_large_calls_are_content(void **state) {
    (void)state;
    static const char begin[] = "<tool_call>{\"name\":\"add\",\"arguments\":{\"l\":[0";
    json_t *tools = json_array();
    for (size_t count = 4000; count <= 16000; count += 12000) {
        size_t parts[3] = {0};
        pi2_answer_parser *parser = pi2_answer_parser_create(false, tools, count_parts, parts);
        assert_non_null(parser);
        assert_true(pi2_answer_parser_add(parser, begin, strlen(begin)));
        for (size_t i = 0; i < count; i++) assert_true(pi2_answer_parser_add(parser, ",{}", 3));
        assert_true(pi2_answer_parser_add(parser, "]}}</tool_call>", 15) && pi2_answer_parser_finish(parser));
        assert_int_equal(parts[PI2_PART_TOOL], count == 4000);
        assert_int_equal(parts[PI2_PART_CONTENT] > 0, count != 4000);
        pi2_answer_parser_free(parser);
    }
    json_decref(tools);
}

/* A request that waits keeps no schemas: nothing of the tools is held. */
static void test_tools_are_not_kept(void **state) {
    (void)state;
    record out = {.text = ""};
    json_t *tools = json_loads(tools_text, 0, NULL), *tool = json_array_get(tools, 0);
    pi2_answer_parser *parser = pi2_answer_parser_create(false, tools, take, &out);
    assert_non_null(parser);
    assert_int_equal(tools->refcount, 1);
    assert_int_equal(tool->refcount, 1);
    assert_int_equal(json_object_get(tool, "function")->refcount, 1);
    json_decref(tools);
    static const char call[] = "<function=add><parameter=a>1</parameter><parameter=s>1</parameter></function>";
    assert_true(pi2_answer_parser_add(parser, call, strlen(call)) && pi2_answer_parser_finish(parser));
    assert_string_equal(out.text, "T(add {\"a\":1,\"s\":\"1\"})");
    pi2_answer_parser_free(parser);
}

static bool refuse(void *user, const pi2_answer_part *part) {
    (void)part;
    ++*(int *)user;
    return false;
}

static void test_refusing_taker_ends(void **state) {
    (void)state;
    int count = 0;
    pi2_answer_parser *parser = pi2_answer_parser_create(false, NULL, refuse, &count);
    assert_false(pi2_answer_parser_add(parser, "a", 1));
    assert_int_equal(count, 1);
    pi2_answer_parser_free(parser);
}

static void test_prompt_thinks(void **state) {
    (void)state;
    assert_true(pi2_prompt_thinks("<|im_start|>assistant\n<think>\n", 30));
    assert_false(pi2_prompt_thinks("<think>\n\n</think>\n\n", 19));
    assert_false(pi2_prompt_thinks("think>", 6));
    assert_false(pi2_prompt_thinks("", 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_parts), cmocka_unit_test(test_refusing_taker_ends),
                                       cmocka_unit_test(test_tools_are_not_kept),
                                       cmocka_unit_test(test_large_calls_are_content),
                                       cmocka_unit_test(test_prompt_thinks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
