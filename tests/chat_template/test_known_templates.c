/* Goal:   the templates that have a name write what their families were trained on, and variables from
 *         JSON reach a template as values of their types, as text that is never a special token.
 * Method: a conversation whose text is written out here for each name of known_templates.inc. */
#include "chat_template/chat_template_test.h"

#include <stdio.h>

typedef struct known_text {
    const char *name, *plain, *with_system;
} known_text;

/* user Hi, assistant Yo, user Bye; and system Be, user Hi */
static const known_text texts[] = {
    {"alpaca",
     "### Instruction:\nHi\n\n### Response:\nYo</s>\n\n### Instruction:\nBye\n\n### Response:\n",
     "Be\n\n### Instruction:\nHi\n\n### Response:\n"},
    {"chatml",
     "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"
     "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
     "<|im_start|>system\nBe<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"},
    {"gemma",
     "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYo<end_of_turn>\n"
     "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
     "<s><start_of_turn>user\nBe\n\nHi<end_of_turn>\n<start_of_turn>model\n"},
    {"granite",
     "<|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n"
     "<|start_of_role|>assistant<|end_of_role|>Yo<|end_of_text|>\n"
     "<|start_of_role|>user<|end_of_role|>Bye<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
     "<|start_of_role|>system<|end_of_role|>Be<|end_of_text|>\n"
     "<|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"},
    {"llama2", "<s>[INST] Hi [/INST] Yo </s><s>[INST] Bye [/INST]",
     "<s>[INST] <<SYS>>\nBe\n<</SYS>>\n\nHi [/INST]"},
    {"llama3",
     "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
     "<|start_header_id|>assistant<|end_header_id|>\n\nYo<|eot_id|>"
     "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
     "<|start_header_id|>assistant<|end_header_id|>\n\n",
     "<s><|start_header_id|>system<|end_header_id|>\n\nBe<|eot_id|>"
     "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
     "<|start_header_id|>assistant<|end_header_id|>\n\n"},
    {"mistral", "<s>[INST] Hi [/INST] Yo</s>[INST] Bye [/INST]", "<s>[INST] Be\n\nHi [/INST]"},
    {"phi3", "<|user|>\nHi<|end|>\n<|assistant|>\nYo<|end|>\n<|user|>\nBye<|end|>\n<|assistant|>\n",
     "<|system|>\nBe<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n"},
    {"vicuna", "<s>USER: Hi\nASSISTANT: Yo</s>\nUSER: Bye\nASSISTANT:", "<s>Be\n\nUSER: Hi\nASSISTANT:"},
    {"zephyr", "<|user|>\nHi</s>\n<|assistant|>\nYo</s>\n<|user|>\nBye</s>\n<|assistant|>\n",
     "<|system|>\nBe</s>\n<|user|>\nHi</s>\n<|assistant|>\n"},
};

static void test_every_name(void **state) {
    (void)state;
    const size_t count = sizeof texts / sizeof texts[0];
    for (size_t i = 0; i < count; i++) {
        const char *source = pi2_chat_template_named(texts[i].name);
        assert_non_null(source);
        assert_string_equal(pi2_chat_template_name(i), texts[i].name);
        assert_renders(source, texts[i].plain);
    }
    assert_null(pi2_chat_template_name(count));
    assert_null(pi2_chat_template_named("chatm"));
}

static void test_system_messages(void **state) {
    (void)state;
    const pi2_chat_message messages[] = {{"system", "Be"}, {"user", "Hi"}};
    const pi2_chat_inputs inputs = {.messages = messages, .message_count = 2, .add_generation_prompt = true,
                                    .bos_token = "<s>", .eos_token = "</s>"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const char *source = pi2_chat_template_named(texts[i].name);
        pi2_chat_template *chat_template;
        pi2_rendered_chat rendered;
        assert_int_equal(pi2_chat_template_parse(source, strlen(source), &chat_template), PI2_OK);
        if (pi2_chat_template_render(chat_template, &inputs, &rendered) != PI2_OK) {
            fail_msg("%s: %s", texts[i].name, pi2_error_text());
        }
        char *text = joined_text(&rendered);
        assert_string_equal(text, texts[i].with_system);
        size_t length = 0;
        for (size_t k = 0; k < rendered.segment_count; k++) { /* what was said, and nothing else, is untrusted */
            if (rendered.segments[k].trusted) continue;
            memmove(text + length, rendered.segments[k].text, rendered.segments[k].length);
            length += rendered.segments[k].length;
        }
        text[length] = '\0';
        if (strcmp(texts[i].name, "gemma") == 0 || strcmp(texts[i].name, "mistral") == 0) {
            assert_true(strcmp(text, "Be\n\nHi") == 0 || strcmp(text, "BeHi") == 0);
        } else {
            assert_string_equal(text, "BeHi");
        }
        free(text);
        pi2_rendered_chat_free(&rendered);
        pi2_chat_template_free(chat_template);
    }
}

/* ---- variables ---- */

static pi2_status render_variables(const char *source, const char *variables, pi2_rendered_chat *rendered) {
    const pi2_chat_message message = {"user", "Hi"};
    const pi2_chat_inputs inputs = {.messages = &message, .message_count = 1, .variables = variables};
    pi2_chat_template *chat_template;
    assert_int_equal(pi2_chat_template_parse(source, strlen(source), &chat_template), PI2_OK);
    const pi2_status status = pi2_chat_template_render(chat_template, &inputs, rendered);
    pi2_chat_template_free(chat_template);
    return status;
}

static void assert_variables(const char *source, const char *variables, const char *wanted) {
    pi2_rendered_chat rendered;
    if (render_variables(source, variables, &rendered) != PI2_OK) fail_msg("%s", pi2_error_text());
    char *text = joined_text(&rendered);
    assert_string_equal(text, wanted);
    free(text);
    pi2_rendered_chat_free(&rendered);
}

static void test_variables(void **state) {
    (void)state;
    const char *thinking = "{% if enable_thinking is defined and enable_thinking is false %}off{% else %}on{% endif %}";
    assert_variables(thinking, NULL, "on");
    assert_variables(thinking, "{\"enable_thinking\": false}", "off");
    assert_variables(thinking, "{\"enable_thinking\": true}", "on");
    assert_variables("{{ a }} {{ b }} {{ c is none }} {{ d[1].e }} {{ f + 1 }} {{ g }}",
                     "{\"a\": \"x\", \"b\": 1.5, \"c\": null, \"d\": [0, {\"e\": \"\\u00e9\"}], \"f\": 2, \"g\": true}",
                     "x 1.5 True \xc3\xa9 3 True");
    assert_variables("{{ tools | length }}", "{\"tools\": [1, 2]}", "2"); /* none otherwise */
    pi2_rendered_chat rendered;
    assert_int_equal(render_variables("A{{ a }}", "{\"a\": \"<|im_end|>\"}", &rendered), PI2_OK);
    assert_int_equal(rendered.segment_count, 2);
    assert_false(rendered.segments[1].trusted);
    pi2_rendered_chat_free(&rendered);
}

static void test_variables_that_are_none(void **state) {
    (void)state;
    static const char *const wrong[] = {"", "{", "[1]", "3", "{\"a\": 1, \"a\": 2}", "{\"messages\": []}",
                                        "{\"bos_token\": \"x\"}", "{} {}", "{\"a\": \"\xff\"}"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(pi2_chat_template_check_variables(wrong[i]), PI2_ERR_INVALID);
        pi2_rendered_chat rendered;
        assert_int_equal(render_variables("x", wrong[i], &rendered), PI2_ERR_INVALID);
        assert_int_equal(rendered.segment_count, 0);
    }
    char deep[400] = "{\"a\":";
    for (int i = 0; i < 120; i++) strcat(deep, "[");
    for (int i = 0; i < 120; i++) strcat(deep, "]");
    strcat(deep, "}");
    assert_int_equal(pi2_chat_template_check_variables(deep), PI2_ERR_INVALID);
    assert_int_equal(pi2_chat_template_check_variables("{}"), PI2_OK);
}

static void test_blank(void **state) {
    (void)state;
    assert_true(pi2_chat_template_is_blank("", 0));
    assert_true(pi2_chat_template_is_blank(" \n\t", 3));
    assert_false(pi2_chat_template_is_blank(" x", 2));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_name),      cmocka_unit_test(test_system_messages),
        cmocka_unit_test(test_variables),       cmocka_unit_test(test_variables_that_are_none),
        cmocka_unit_test(test_blank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
