/* Goal:   conversations with tools, calls, results, thinking and variables give what transformers gives with the
 *         templates that real models come with, byte for byte; what it refuses is refused, with its message.
 * Method: tests/golden/chat_prompts.json (made by make_chat_prompts.py beside it): for each template of
 *         PI2_TEST_DATA/templates and each case the size and XXH3 of jinja2's text, or its exception. The script prints
 *         one of the texts when it is given their names. */
#include "chat_template/chat_template_test.h"

#include <stdio.h>

#include <jansson.h>
#include <xxhash.h>

#include "support/temporary_files.h"

static json_t *golden;

static pi2_json_text text_of(const json_t *object, const char *name) {
    const json_t *text = json_object_get(object, name);
    return (pi2_json_text){json_string_value(text), json_string_length(text)};
}

static pi2_status render_case(const pi2_chat_template *chat_template, const json_t *conversation,
                              pi2_rendered_chat *rendered) {
    const pi2_chat_inputs inputs = {
        .messages_json = text_of(conversation, "messages"),
        .tools_json = text_of(conversation, "tools"),
        .variables = json_string_value(json_object_get(conversation, "variables")),
        .variables_set_special_tokens = true,
        .add_generation_prompt = json_is_true(json_object_get(conversation, "add_generation_prompt")),
        .bos_token = json_string_value(json_object_get(golden, "bos_token")),
        .eos_token = json_string_value(json_object_get(golden, "eos_token")),
        .date_string = json_string_value(json_object_get(golden, "date")),
    };
    return pi2_chat_template_render(chat_template, &inputs, rendered);
}

static void check_refusal(const char *name, const char *case_name, pi2_status status, const json_t *want) {
    const char *message = json_string_value(json_object_get(want, "message"));
    if (status == PI2_OK) fail_msg("%s, %s: jinja2 raised '%s'", name, case_name, message);
    if (!strstr(pi2_error_text(), message)) {
        fail_msg("%s, %s: says '%s', not '%s'", name, case_name, pi2_error_text(), message);
    }
}

static void check_text(const char *name, const char *case_name, const pi2_rendered_chat *rendered, const json_t *want) {
    char digest[64];
    char *text = joined_text(rendered);
    const size_t length = strlen(text);
    (void)snprintf(digest, sizeof digest, "%zu %016llx", length, (unsigned long long)XXH3_64bits(text, length));
    if (strcmp(digest, json_string_value(want)) != 0) fail_msg("%s, %s:\n%s", name, case_name, text);
    free(text);
}

static size_t check_template(const char *name, const json_t *cases) {
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/templates/%s", getenv("PI2_TEST_DATA"), name);
    size_t length, refused = 0;
    char *source = (char *)test_file_read(path, &length);
    pi2_chat_template *chat_template;
    if (pi2_chat_template_parse(source, length, &chat_template) != PI2_OK) fail_msg("%s: %s", name, pi2_error_text());
    const char *case_name;
    json_t *want;
    json_object_foreach((json_t *)(uintptr_t)cases, case_name, want) {
        pi2_rendered_chat rendered;
        const json_t *conversation = json_object_get(json_object_get(golden, "cases"), case_name);
        const pi2_status status = render_case(chat_template, conversation, &rendered);
        if (json_is_object(want)) {
            check_refusal(name, case_name, status, want);
            refused++;
        } else if (status != PI2_OK) {
            fail_msg("%s, %s: %s", name, case_name, pi2_error_text());
        } else {
            check_text(name, case_name, &rendered, want);
        }
        pi2_rendered_chat_free(&rendered);
    }
    pi2_chat_template_free(chat_template);
    free(source);
    return refused;
}

static void test_every_template(void **state) {
    (void)state;
    const char *name;
    json_t *cases;
    size_t refused = 0, compared = 0;
    json_object_foreach(json_object_get(golden, "templates"), name, cases) {
        refused += check_template(name, cases);
        compared += json_object_size(cases);
    }
    assert_true(compared >= 39 * 25);
    assert_true(refused > 20 && refused < compared / 2);
}

int main(void) {
    if (!getenv("PI2_TEST_DATA")) {
        (void)puts("skipped: PI2_TEST_DATA does not name the folder of test data");
        return 77;
    }
    json_error_t error;
    golden = json_load_file(PI2_TESTS_FOLDER "/golden/chat_prompts.json", 0, &error);
    if (!golden) {
        (void)printf("golden/chat_prompts.json: %s\n", error.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_template)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(golden);
    return failed;
}
