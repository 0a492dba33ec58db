/*
 * Goal:   a call that a model writes as its template writes calls is read as that call.
 * Method: each template of PI2_TEST_DATA/templates writes a conversation that ends with an answer; what it writes
 *         behind the beginning of that answer goes into the parser. Those that write no calls, and those of families
 *         that are not run here, are named.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "chat_template/chat_template.h"
#include "server/answer_parser.h"
#include "support/temporary_files.h"

static const char tools_text[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"add\",\"description\":\"Adds.\",\"parameters\":{\"type\":"
    "\"object\",\"properties\":{\"a\":{\"type\":\"integer\",\"description\":\"A number.\"},\"s\":{\"type\":\"string\","
    "\"description\":\"A text.\"}},\"required\":[\"a\",\"s\"]}}}]";
static const char ask[] = "{\"role\":\"user\",\"content\":\"Add.\"}";
static const char calls[] =
    "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"abcdefghi\",\"type\":\"function\","
    "\"function\":{\"name\":\"add\",\"arguments\":{\"a\":12,\"s\":\"12, \\\"it\\u0027s\\\"\"}}}]}";

static const char *const others[] = {
    /* write no call that a model made */
    "google-gemma-2-2b-it.jinja", "deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja", "LFM2-8B-A1B.jinja",
    "ibm-granite-granite-3.3-2B-Instruct.jinja", "llama-cpp-rwkv-world.jinja", "microsoft-Phi-3.5-mini-instruct.jinja",
    /* refuse this conversation, as jinja2 does */
    "fireworks-ai-llama-3-firefunction-v2.jinja", "Kimi-K2-Instruct.jinja", "llama-cpp-deepseek-r1.jinja",
    /* of families that are not run here */
    "Apertus-8B-Instruct.jinja", "CohereForAI-c4ai-command-r-plus-tool_use.jinja",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use.jinja", "deepseek-ai-DeepSeek-V4.jinja",
    "GigaChat3-10B-A1.8B.jinja", /* a message of another role */
};

/* What ends an answer, where the template writes it. */
static const char *const ends[] = {
    "<EOS>", "<|im_end|>", "<|eot_id|>", "</s>", "<|return|>", "<|call|>", "<turn|>", "<|tool_response>",
    "<|end_of_text|>", "<|END_OF_TURN_TOKEN|>", "<end_of_turn>", "<seed:eos>", "<SPECIAL_12>", "<|user|>", "<|end|>",
};

static bool is_other(const char *name) {
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (strcmp(others[i], name) == 0) return true;
    }
    return false;
}

/* What the template writes for a question and an answer (or none); malloc'd. NULL: it refuses. */
static char *render(const pi2_chat_template *chat_template, const char *answer) {
    char messages[2048];
    pi2_rendered_chat rendered;
    (void)snprintf(messages, sizeof messages, "[%s%s%s]", ask, answer ? "," : "", answer ? answer : "");
    const pi2_chat_inputs inputs = {
        .messages_json = { messages, strlen(messages) }, .tools_json = { tools_text, strlen(tools_text) },
        .add_generation_prompt = !answer, .bos_token = "<BOS>", .eos_token = "<EOS>", .date_string = "2026-11-23" };
    if (pi2_chat_template_render(chat_template, &inputs, &rendered) != PI2_OK) return NULL;
    size_t length = 0;
    for (size_t i = 0; i < rendered.segment_count; i++) length += rendered.segments[i].length;
    char *text = malloc(length + 1), *at = text;
    assert_non_null(text);
    for (size_t i = 0; i < rendered.segment_count; at += rendered.segments[i++].length) {
        memcpy(at, rendered.segments[i].text, rendered.segments[i].length);
    }
    *at = '\0';
    pi2_rendered_chat_free(&rendered);
    return text;
}

/* Where the answer begins: behind what both have in common, and not within a mark. */
static size_t answer_begin(const char *prompt, const char *whole) {
    size_t common = 0;
    while (prompt[common] && prompt[common] == whole[common]) common++;
    if (prompt[common]) {
        while (common && !strchr(">]\n", prompt[common - 1])) common--;
    }
    return common;
}

typedef struct taken {
    char reasoning[256], content[4096], name[64];
    json_t *arguments;
} taken;

static bool take(void *user, const pi2_answer_part *part) {
    taken *got = user;
    if (part->kind == PI2_PART_TOOL) {
        (void)snprintf(got->name, sizeof got->name, "%s", part->name);
        json_decref(got->arguments);
        got->arguments = json_loadb(part->text, part->length, 0, NULL);
        return true;
    }
    char *out = part->kind == PI2_PART_REASONING ? got->reasoning : got->content;
    const size_t room = part->kind == PI2_PART_REASONING ? sizeof got->reasoning : sizeof got->content;
    const size_t used = strlen(out);
    (void)snprintf(out + used, room - used, "%.*s", (int)part->length, part->text);
    return true;
}

static void check_template(const char *name, const pi2_chat_template *chat_template, const json_t *tools) {
    taken got = { .arguments = NULL };
    char *prompt = render(chat_template, NULL), *whole = render(chat_template, calls);
    if (!prompt || !whole) fail_msg("%s: %s", name, pi2_error_text());
    const size_t begin = answer_begin(prompt, whole);
    char *answer = whole + begin;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        char *end = strstr(answer, ends[i]);
        if (end) *end = '\0';
    }
    pi2_answer_parser *parser = pi2_answer_parser_create(pi2_prompt_begins(prompt, begin), tools, take, &got);
    assert_non_null(parser);
    assert_true(pi2_answer_parser_add(parser, answer, strlen(answer)) && pi2_answer_parser_finish(parser));
    pi2_answer_parser_free(parser);
    json_t *want = json_pack("{s:i, s:s}", "a", 12, "s", "12, \"it's\"");
    if (strcmp(got.name, "add") != 0 || !json_equal(got.arguments, want)) {
        char *arguments = json_dumps(got.arguments, JSON_COMPACT | JSON_ENCODE_ANY);
        fail_msg("%s: of '%s' came the call '%s' of %s, thought '%s', content '%s'", name, answer, got.name,
                 arguments ? arguments : "nothing", got.reasoning, got.content);
    }
    json_decref(want);
    json_decref(got.arguments);
    free(prompt);
    free(whole);
}

static void test_calls_of_templates(void **state) {
    (void)state;
    char folder[1024], path[2048];
    size_t checked = 0;
    json_t *tools = json_loads(tools_text, 0, NULL);
    (void)snprintf(folder, sizeof folder, "%s/templates", getenv("PI2_TEST_DATA"));
    DIR *listing = opendir(folder);
    assert_non_null(listing);
    for (const struct dirent *entry = readdir(listing); entry; entry = readdir(listing)) {
        size_t length;
        pi2_chat_template *chat_template;
        const char *end = strstr(entry->d_name, ".jinja");
        if (!end || is_other(entry->d_name)) continue;
        (void)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        char *source = (char *)test_file_read(path, &length);
        assert_int_equal(pi2_chat_template_parse(source, length, &chat_template), PI2_OK);
        check_template(entry->d_name, chat_template, tools);
        pi2_chat_template_free(chat_template);
        free(source);
        checked++;
    }
    (void)closedir(listing);
    json_decref(tools);
    assert_true(checked > 20);
}

int main(void) {
    if (!getenv("PI2_TEST_DATA")) {
        (void)puts("skipped: PI2_TEST_DATA does not name the folder of test data");
        return 77;
    }
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_calls_of_templates) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
