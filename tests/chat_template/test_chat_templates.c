/* Goal:   the templates that real models come with give what transformers would give.
 * Method: tests/golden/chat_templates.json (made by make_chat_templates.py beside it) holds, for
 *         each template of PI2_TEST_DATA/templates and each conversation, jinja2's text or the
 *         fact that it raised. Those that raise for every conversation are listed here too. */
#include "chat_template/chat_template_test.h"

#include <stdio.h>

#include <jansson.h>

/* They ask for a list of tools, and transformers gives none where there are no tools. */
static const char *const never_run[] = {
    "CohereForAI-c4ai-command-r-plus-tool_use.jinja",        /* for tool in tools */
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja",   /* for tool in tools */
    "fireworks-ai-llama-3-firefunction-v2.jinja",            /* adds `functions` to a text */
};

static json_t *golden;
static const char *data_folder;

static char *read_template(const char *name, size_t *length) {
    char path[1024];
    assert_true(snprintf(path, sizeof path, "%s/templates/%s", data_folder, name) <
                (int)sizeof path);
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail_msg("%s cannot be opened", path);
    char *text = malloc(1 << 20);
    assert_non_null(text);
    *length = fread(text, 1, 1 << 20, file);
    assert_int_equal(fclose(file), 0);
    return text;
}

static pi2_status render_case(const pi2_chat_template *chat_template, const char *case_name,
                              pi2_rendered_chat *rendered) {
    const json_t *conversation = json_object_get(json_object_get(golden, "cases"), case_name);
    const json_t *list = json_object_get(conversation, "messages");
    pi2_chat_message messages[8];
    assert_in_range(json_array_size(list), 1, 8);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *pair = json_array_get(list, i);
        messages[i].role = json_string_value(json_array_get(pair, 0));
        messages[i].content = json_string_value(json_array_get(pair, 1));
    }
    const pi2_chat_inputs inputs = {
        .messages = messages,
        .message_count = json_array_size(list),
        .add_generation_prompt = json_is_true(json_object_get(conversation,
                                                              "add_generation_prompt")),
        .bos_token = json_string_value(json_object_get(golden, "bos_token")),
        .eos_token = json_string_value(json_object_get(golden, "eos_token")),
        .date_string = json_string_value(json_object_get(golden, "date")),
    };
    return pi2_chat_template_render(chat_template, &inputs, rendered);
}

static void check_case(const pi2_chat_template *chat_template, const char *name,
                       const char *case_name, const json_t *want) {
    pi2_rendered_chat rendered;
    const pi2_status status = render_case(chat_template, case_name, &rendered);
    if (json_is_object(want)) {
        if (status != PI2_ERR_FORMAT)
            fail_msg("%s, %s: jinja2 raised '%s'", name, case_name,
                     json_string_value(json_object_get(want, "raises")));
        assert_int_equal(rendered.segment_count, 0);
        return;
    }
    if (status != PI2_OK) fail_msg("%s, %s: %s", name, case_name, pi2_error_text());
    char *text = joined_text(&rendered);
    if (strcmp(text, json_string_value(want)) != 0)
        fail_msg("%s, %s:\n%s\n---- wanted\n%s", name, case_name, text, json_string_value(want));
    free(text);
    pi2_rendered_chat_free(&rendered);
}

static void test_every_template(void **state) {
    (void)state;
    const char *name, *case_name;
    json_t *cases, *want;
    size_t compared = 0;
    json_object_foreach(json_object_get(golden, "templates"), name, cases) {
        size_t length;
        char *source = read_template(name, &length);
        pi2_chat_template *chat_template;
        if (pi2_chat_template_parse(source, length, &chat_template) != PI2_OK)
            fail_msg("%s: %s", name, pi2_error_text());
        free(source); /* nothing of it is kept */
        json_object_foreach(cases, case_name, want) {
            check_case(chat_template, name, case_name, want);
            compared++;
        }
        pi2_chat_template_free(chat_template);
    }
    assert_true(compared >= 39 * 6);
}

static void test_which_never_run(void **state) {
    (void)state;
    const char *name, *case_name;
    json_t *cases, *want;
    size_t found = 0;
    json_object_foreach(json_object_get(golden, "templates"), name, cases) {
        bool runs = false, listed = false;
        json_object_foreach(cases, case_name, want) runs = runs || json_is_string(want);
        for (size_t i = 0; i < sizeof never_run / sizeof never_run[0]; i++)
            listed = listed || strcmp(name, never_run[i]) == 0;
        if (runs == listed) fail_msg("%s: the list of those that never run is wrong", name);
        found += listed;
    }
    assert_int_equal(found, sizeof never_run / sizeof never_run[0]);
}

/* Cut anywhere, a real template is refused or still a template; it never goes wrong. */
static void test_truncated_templates(void **state) {
    (void)state;
    size_t length, refused = 0;
    char *source = read_template("meta-llama-Llama-3.1-8B-Instruct.jinja", &length);
    for (size_t cut = 0; cut < length; cut += 7) {
        pi2_chat_template *chat_template;
        const pi2_status status = pi2_chat_template_parse(source, cut, &chat_template);
        if (status == PI2_OK) {
            pi2_rendered_chat rendered;
            (void)render_case(chat_template, "turns", &rendered);
            pi2_rendered_chat_free(&rendered);
        } else {
            assert_int_equal(status, PI2_ERR_FORMAT);
            assert_null(chat_template);
            assert_non_null(strstr(pi2_error_text(), "chat template, line "));
            refused++;
        }
        pi2_chat_template_free(chat_template);
    }
    assert_true(refused > length / 7 / 2);
    free(source);
}

int main(void) {
    data_folder = getenv("PI2_TEST_DATA");
    if (data_folder == NULL) {
        puts("skipped: PI2_TEST_DATA does not name the folder of test data");
        return 77;
    }
    json_error_t error;
    golden = json_load_file(PI2_TESTS_FOLDER "/golden/chat_templates.json", 0, &error);
    if (golden == NULL) {
        printf("golden/chat_templates.json: %s\n", error.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_template),
        cmocka_unit_test(test_which_never_run),
        cmocka_unit_test(test_truncated_templates),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(golden);
    return failed;
}
