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
    "{\"a\":{\"type\":\"integer\"},\"s\":{\"type\":\"string\"},\"l\":{\"type\":\"array\"}}}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"b\"}}]";

#define DEEP "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[" /* a level more than is parsed */

#define CONTENT PI2_BEGINS_CONTENT
#define THOUGHT PI2_BEGINS_THOUGHT
#define HEADER PI2_BEGINS_HEADER

#define DS(words) "<\xef\xbd\x9ctool\xe2\x96\x81" words "\xef\xbd\x9c>"
#define DS_CALLS DS("calls\xe2\x96\x81" "begin") DS("call\xe2\x96\x81" "begin")
#define DS_END DS("call\xe2\x96\x81" "end") DS("calls\xe2\x96\x81" "end")

static const struct example {
    pi2_answer_begin begins;
    bool has_tools;
    const char *text, *parts;
} examples[] = {
    {CONTENT, false, "Plain <b>text</b>.", "C(Plain <b>text</b>.)"},
    {CONTENT, false, "", ""},
    {CONTENT, false, "  led by space", "C(  led by space)"},
    {CONTENT, false, "<think>\nHm.\n</think>\n\nYes.", "R(Hm.)C(Yes.)"},
    {CONTENT, false, "\n<think>a</think>b", "R(a)C(b)"},
    {CONTENT, false, "<think>never ends", "R(never ends)"},
    {CONTENT, false, "<think></think>\n\nb <think> c", "C(b <think> c)"},
    {CONTENT, false, "say <think>x</think>", "C(say <think>x</think>)"},
    {CONTENT, false, "<thin", "C(<thin)"},
    {CONTENT, false, "<thinker>", "C(<thinker>)"},
    {THOUGHT, false, "Hm </thin k> so\n</think>\nYes", "R(Hm </thin k> so)C(Yes)"},
    {THOUGHT, false, "only thought", "R(only thought)"},
    {THOUGHT, false, "a</think>", "R(a)"},
    /* Calls are text where no tools were offered. */
    {CONTENT, false, "<tool_call>\n{\"name\":\"add\",\"arguments\":{}}\n</tool_call>",
     "C(<tool_call>\n{\"name\":\"add\",\"arguments\":{}}\n</tool_call>)"},
    /* Hermes and Qwen */
    {CONTENT, true, "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>", "T(add {\"a\":1})"},
    {CONTENT, true, "I will.\n<tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call>\n"
                  "<tool_call>{\"name\":\"b\",\"arguments\":{}}</tool_call>", "C(I will.\n)T(add {})C(\n)T(b {})"},
    {CONTENT, true, "<think>t</think>\n\n<tool_call>{\"name\":\"add\"}</tool_call>", "R(t)T(add {})"},
    {CONTENT, true, "<tool_call>{\"name\":\"add\",\"arguments\":\"{\\\"a\\\":2}\"}", "T(add {\"a\":2})"},
    {CONTENT, true, "<tool_call>{\"name\":\"add\",\"arguments\":\"" DEEP "\"}</tool_call>",
     "C(<tool_call>{\"name\":\"add\",\"arguments\":\"" DEEP "\"}</tool_call>)"},
    /* The mark that ends a call, within a text of it, is that text's; where no call comes of it, it ended one. */
    {CONTENT, true, "<tool_call>{\"name\":\"add\",\"arguments\":{\"s\":\"<tool_call>a</tool_call>\"}}</tool_call> ok",
     "T(add {\"s\":\"<tool_call>a</tool_call>\"})C( ok)"},
    {CONTENT, true, "<tool_call>{\"name\":\"add\",\"arguments\":{\"s\":\"</tool_call>\\\"</tool_call>\"}}",
     "T(add {\"s\":\"</tool_call>\\\"</tool_call>\"})"},
    {CONTENT, true, "<tool_call>{\"name\": \"add</tool_call> ok <tool_call>{\"name\": \"b\"}</tool_call>",
     "C(<tool_call>{\"name\": \"add</tool_call> ok )T(b {})"},
    {CONTENT, true, "<|tool_call>call:add{s:<|\"|><tool_call|><|\"|>}<tool_call|>", "T(add {\"s\":\"<tool_call|>\"})"},
    {CONTENT, true, "<|tool_call_start|>[add(s='\"<|tool_call_end|>')]<|tool_call_end|>",
     "T(add {\"s\":\"\\\"<|tool_call_end|>\"})"},
    {CONTENT, true, "<tool_call>{\"name\": 5}</tool_call> ok", "C(<tool_call>{\"name\": 5}</tool_call> ok)"},
    {CONTENT, true, "<tool_call>no json</tool_call>", "C(<tool_call>no json</tool_call>)"},
    {CONTENT, true, "<tool_call>{\"name\":\"add\"", "C(<tool_call>{\"name\":\"add\")"},
    {CONTENT, true, "<tool", "C(<tool)"},
    /* Qwen3-Coder: types come from the schema, where it has them */
    {CONTENT, true, "<tool_call>\n<function=add>\n<parameter=a>\n12\n</parameter>\n<parameter=s>\n12\n</parameter>\n"
                  "<parameter=l>\n[1, 2]\n</parameter>\n<parameter=x>\ntwo\nlines\n</parameter>\n</function>\n"
                  "</tool_call>",
     "T(add {\"a\":12,\"s\":\"12\",\"l\":[1,2],\"x\":\"two\\nlines\"})"},
    {CONTENT, true, "<function=add>\n</function>", "T(add {})"},
    {CONTENT, true, "\n\t<function=add", "C(<function=add)"}, /* space before what may become a call waits too */
    {CONTENT, true, "\n<tool_call>{\"name\":\"add\"}</tool_call>\n<tool_call>{\"name\":\"b\"}</tool_call>\n",
     "T(add {})T(b {})"},
    {CONTENT, true, "<function=add><parameter=a>1", "C(<function=add><parameter=a>1)"},
    /* Mistral, the older form and the newer */
    {CONTENT, true, "[TOOL_CALLS][{\"name\":\"add\",\"arguments\":{\"a\":1}},{\"name\":\"b\",\"arguments\":{}}]",
     "T(add {\"a\":1})T(b {})"},
    {CONTENT, true, "[TOOL_CALLS]add[ARGS]{\"a\": 1}[TOOL_CALLS]b{}", "T(add {\"a\":1})T(b {})"},
    {CONTENT, true, "[TOOL_CALLS]add", "C([TOOL_CALLS]add)"},
    /* Llama 3 */
    {CONTENT, true, "{\"name\": \"add\", \"parameters\": {\"a\": 1}}", "T(add {\"a\":1})"},
    {CONTENT, true, "<|python_tag|>{\"name\":\"add\",\"parameters\":{}}; {\"name\":\"b\",\"parameters\":{}}",
     "T(add {})T(b {})"},
    {CONTENT, true, "{\"answer\": 42}", "C({\"answer\": 42})"},
    {CONTENT, true, "See {\"name\":\"add\",\"parameters\":{}}", "C(See {\"name\":\"add\",\"parameters\":{}})"},
    {CONTENT, true, "{{{{", "C({{{{)"},
    /* Arguments within a text are JSON, or this is no call. */
    {CONTENT, true, "<tool_call>{\"name\":\"add\",\"arguments\":\"no JSON\"}</tool_call>",
     "C(<tool_call>{\"name\":\"add\",\"arguments\":\"no JSON\"}</tool_call>)"},
    /* Gemma 4 */
    {CONTENT, true, "<|tool_call>call:add{a:1,s:<|\"|>x, \"y\"<|\"|>,l:[true,{<|\"|>k<|\"|>:-0.5}]}<tool_call|>",
     "T(add {\"a\":1,\"s\":\"x, \\\"y\\\"\",\"l\":[true,{\"k\":-0.5}]})"},
    {CONTENT, true, "ok <|tool_call>call:add{}<tool_call|><|tool_call>call:b{}<tool_call|>", "C(ok )T(add {})T(b {})"},
    {CONTENT, true, "<|tool_call>call:add{a:<|\"|>x<tool_call|>", "C(<|tool_call>call:add{a:<|\"|>x<tool_call|>)"},
    {CONTENT, true, "<|tool_call>call:add{a:1", "C(<|tool_call>call:add{a:1)"},
    /* LFM2 */
    {CONTENT, true, "<|tool_call_start|>[add(a=1, s='it\\'s \"x\"'), b(l=[None, True, {'k': 2.5}])]<|tool_call_end|>ok",
     "T(add {\"a\":1,\"s\":\"it's \\\"x\\\"\"})T(b {\"l\":[null,true,{\"k\":2.5}]})C(ok)"},
    {CONTENT, true, "<|tool_call_start|>[add(s='it's, \"so\"', a=1)]<|tool_call_end|>", /* as its template has */
     "T(add {\"s\":\"it's, \\\"so\\\"\",\"a\":1})"},
    {CONTENT, true, "<function=add>{\"a\": 1}</function>", "T(add {\"a\":1})"},
    {CONTENT, true, "<function=add>{\"a\": 1</function>", "C(<function=add>{\"a\": 1</function>)"},
    {CONTENT, true, "<|function_call|>{\"name\": \"b\", \"arguments\": {}}<|message_sep|>", "T(b {})"},
    {CONTENT, true, "<|tool_call_start|>[{\"name\": \"add\", \"arguments\": {}}]<|tool_call_end|>", "T(add {})"},
    {CONTENT, true, "<|tool_call_start|>[add(a=1]<|tool_call_end|>",
     "C(<|tool_call_start|>[add(a=1]<|tool_call_end|>)"},
    {CONTENT, true, "<|tool_call_start|>[add(a=x)]<|tool_call_end|>",
     "C(<|tool_call_start|>[add(a=x)]<|tool_call_end|>)"},
    /* DeepSeek V3.1 and R1 */
    {CONTENT, true, "So:" DS_CALLS "add" DS("sep") "{\"a\": 1}" DS_END, "C(So:)T(add {\"a\":1})"},
    {CONTENT, true, DS_CALLS "function" DS("sep") "add\n```json\n{\"a\": 1}\n```" DS_END, "T(add {\"a\":1})"},
    {CONTENT, true, DS_CALLS "add" DS("sep") "{\"a\"", "C(" DS_CALLS "add" DS("sep") "{\"a\")"},
    /* A mark that is a word of a text is no call, and the call behind it is one. */
    {CONTENT, true, "Write <|tool_call> and then:<|tool_call>call:add{a:1}<tool_call|>.",
     "C(Write <|tool_call> and then:)T(add {\"a\":1})C(.)"},
    {CONTENT, true, "<function=add is how: <function=add>\n</function>", "C(<function=add is how: )T(add {})"},
    /* GLM 4.5 and later */
    {CONTENT, true, "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>12</arg_value>\n<arg_key>s</arg_key>\n"
                    "<arg_value>12 \"\n</arg_value>\n</tool_call>\n<tool_call>b\n</tool_call>",
     "T(add {\"a\":12,\"s\":\"12 \\\"\"})T(b {})"},
    {CONTENT, true, "<tool_call>add<arg_key>a</arg_key><arg_value>12</arg_value></tool_call><tool_call>b</tool_call>",
     "T(add {\"a\":12})T(b {})"},
    {CONTENT, true, "<tool_call>add", "C(<tool_call>add)"},
    {CONTENT, true, "<tool_call>other\n</tool_call>", "C(<tool_call>other\n</tool_call>)"},
    {CONTENT, true, "<tool_call>add\n<arg_key>a</arg_key></tool_call>",
     "C(<tool_call>add\n<arg_key>a</arg_key></tool_call>)"},
    /* MiniMax M2, Seed-OSS, Nemotron Nano 2, Phi 4, Granite 3, OLMo 3, Hunyuan, Kimi K2, Mistral Small 3.2 */
    {CONTENT, true, "<minimax:tool_call>\n<invoke name=\"add\">\n<parameter name=\"a\">1</parameter>\n"
                    "<parameter name=\"s\">1</parameter>\n</invoke>\n<invoke name=\"b\">\n</invoke>\n"
                    "</minimax:tool_call>", "T(add {\"a\":1,\"s\":\"1\"})T(b {})"},
    {CONTENT, true, "<seed:tool_call>\n<function=add>\n<parameter=a>1</parameter>\n</function>\n</seed:tool_call>",
     "T(add {\"a\":1})"},
    {CONTENT, true, "<TOOLCALL>[{\"name\": \"add\", \"arguments\": {\"a\": 1}}]</TOOLCALL>", "T(add {\"a\":1})"},
    {CONTENT, true, "<|tool_call|>[{\"name\": \"b\", \"arguments\": {}}]<|/tool_call|>", "T(b {})"},
    {CONTENT, true, "<|tool_call|>[{\"name\": \"b\", \"arguments\": {}}]", "T(b {})"},
    {CONTENT, true, "<function_calls>\nadd(a=1)\nb()\n</function_calls>", "T(add {\"a\":1})T(b {})"},
    {CONTENT, true, "<tool_calls>\n<tool_call>add\n```json\n{\"a\": 1}\n```\n</tool_call>\n</tool_calls>",
     "T(add {\"a\":1})"},
    {CONTENT, true, "<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>"
                    "{\"a\": 1}<|tool_call_end|><|tool_calls_section_end|>", "T(add {\"a\":1})"},
    {CONTENT, true, "[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{\"a\": 1}", "T(add {\"a\":1})"},
    /* Thoughts between other marks */
    {CONTENT, false, "<|channel>thought\nHm.\n<channel|>Yes.", "R(Hm.)C(Yes.)"},
    {CONTENT, false, "<|channel>thought\n<channel|>Yes.", "C(Yes.)"},
    {CONTENT, true, "[THINK]Hm.[/THINK][TOOL_CALLS]b{}", "R(Hm.)T(b {})"},
    {CONTENT, false, "<seed:think>Hm. </think></seed:think>\nYes.", "R(Hm. </think>)C(Yes.)"},
    {THOUGHT, false, "Hm.[/THINK]Yes.", "R(Hm.)C(Yes.)"},
    {CONTENT, false, "<|channel>th", "C(<|channel>th)"},
    /* gpt-oss */
    {HEADER, false, "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.",
     "R(Hm.)C(Yes.)"},
    {HEADER, true, "<|channel|>commentary to=functions.add <|constrain|>json<|message|>{\"a\": 1}<|call|>",
     "T(add {\"a\": 1})"},
    {HEADER, true, " to=functions.add<|channel|>commentary json<|message|>{}", "T(add {})"},
    {HEADER, true, "<|channel|>commentary<|message|>I will.<|end|><|start|>assistant<|channel|>commentary "
                   "to=functions.b<|message|>{}<|call|>", "C(I will.)T(b {})"},
    {HEADER, true, "<|channel|>commentary to=functions.add<|message|>{\"a\"",
     "C(<|channel|>commentary to=functions.add<|message|>{\"a\")"},
    {HEADER, false, "<|channel|>commentary to=functions.add<|message|>{}", "C({})"},
    {HEADER, false, "Plain <|text", "C(Plain <|text)"},
    {HEADER, false, "<|channel|>fin", "C(<|channel|>fin)"},
    {HEADER, false, "<|channel|>final<|message|>a<|e", "C(a<|e)"},
    {HEADER, false, "<|channel|>final<|message|>a<|return|>", "C(a)"},
    {HEADER, false, "<|channel|>a b?<|end|><|start|>assistant<|channel|>analysis<|message|>Hm.<|end|>"
                    "<|start|>assistant<|channel|>final<|message|>Yes.", "R(Hm.)C(Yes.)"}, /* one without a message */
    {HEADER, true, "<|channel|>analysis to=functions.add code<|message|>{\"a\": 1}<|call|>", "T(add {\"a\": 1})"},
    {HEADER, true, "<|channel|>commentary to=b<|message|>{}<|call|>", "T(b {})"},
    {HEADER, true, "<|channel|>commentary to=assistant<|message|>{}<|end|>", "C({})"}, /* nobody's tool */
    {HEADER, false, "Yes <|message|>a", "C(Yes <|message|>a)"}, /* no header, whatever stands later in it */
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
    pi2_answer_parser *parser = pi2_answer_parser_create(example->begins, example->has_tools ? tools : NULL, take, out);
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
        pi2_answer_parser *parser = pi2_answer_parser_create(PI2_BEGINS_CONTENT, tools, count_parts, parts);
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
    pi2_answer_parser *parser = pi2_answer_parser_create(PI2_BEGINS_CONTENT, tools, take, &out);
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
    pi2_answer_parser *parser = pi2_answer_parser_create(PI2_BEGINS_CONTENT, NULL, refuse, &count);
    assert_false(pi2_answer_parser_add(parser, "a", 1));
    assert_int_equal(count, 1);
    pi2_answer_parser_free(parser);
}

static pi2_answer_begin begin_of(const char *prompt) { return pi2_prompt_begins(prompt, strlen(prompt)); }

static void test_prompt_begins(void **state) {
    (void)state;
    assert_int_equal(begin_of("<|im_start|>assistant\n<think>\n"), PI2_BEGINS_THOUGHT);
    assert_int_equal(begin_of("<think>\n\n</think>\n\n"), PI2_BEGINS_CONTENT);
    assert_int_equal(begin_of("think>"), PI2_BEGINS_CONTENT);
    assert_int_equal(begin_of(""), PI2_BEGINS_CONTENT);
    assert_int_equal(begin_of("<|end|><|start|>assistant"), PI2_BEGINS_HEADER);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_parts), cmocka_unit_test(test_refusing_taker_ends),
                                       cmocka_unit_test(test_tools_are_not_kept),
                                       cmocka_unit_test(test_large_calls_are_content),
                                       cmocka_unit_test(test_prompt_begins)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
