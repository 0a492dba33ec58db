/* Goal:   a model's own template and special tokens make the prompt; with tools, its template for tools.
 * Method: files that hold a vocabulary and templates alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "powerinfer2/prompt.h"
#include "support/gguf_builder.h"
#include "support/small_vocabulary.h"
#include "support/temporary_files.h"

static const char messages[] = "[{\"role\": \"user\", \"content\": \"a\\u0000b\"}]";
static const char tools[] = "[{\"name\": \"t\"}]";

static pi2_model_file *model_with(const char *plain, const char *for_tools) {
    static const pi2_test_token tokens[] = {{"<s>", PI2_TEST_CONTROL, 0}, {"</s>", PI2_TEST_CONTROL, 0}};
    const pi2_test_vocabulary vocabulary = {
        .model = "gpt2", .pre = "gpt-2", .tokens = tokens, .token_count = 2, .with_bytes = true, .bos = 0, .eos = 1};
    pi2_gguf_builder builder;
    pi2_test_vocabulary_build(&vocabulary, &builder);
    if (plain) pi2_gguf_builder_string(&builder, "tokenizer.chat_template", plain);
    pi2_gguf_builder_u32(&builder, "tokenizer.ggml.padding_token_id", 1);
    if (for_tools) pi2_gguf_builder_string(&builder, "tokenizer.chat_template.tool_use", for_tools);
    const char *path = test_folder_path("model.gguf");
    assert_int_equal(pi2_gguf_builder_write(&builder, path), 0);
    pi2_gguf_builder_free(&builder);
    pi2_model_file *model;
    if (pi2_model_file_open(path, &model) != PI2_OK) fail_msg("%s", pi2_error_text());
    return model;
}

static pi2_prompt_options options_of(pi2_model_file *model) {
    return (pi2_prompt_options){.model = model, .messages = messages, .messages_length = sizeof messages - 1};
}

static void expect(const pi2_prompt_options *options, const char *wanted, size_t wanted_length) {
    char *text;
    size_t length;
    if (pi2_prompt_make(options, &text, &length) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(length, wanted_length);
    assert_memory_equal(text, wanted, wanted_length + 1); /* with the NUL behind it */
    free(text);
}

static void test_which_template(void **state) {
    (void)state;
    pi2_model_file *model =
        model_with("{{ bos_token }}P{{ messages[0].content }}{{ eos_token }}", "T{{ tools | length }}");
    pi2_prompt_options options = options_of(model);
    expect(&options, "<s>Pa\0b</s>", 11);
    options.tools = tools;
    options.tools_length = sizeof tools - 1;
    expect(&options, "T1", 2);
    options.chat_template = "own {{ tools[0].name }}{{ bos_token }}";
    expect(&options, "own t<s>", 8);
    options.variables = "{\"bos_token\": \"B\"}";
    expect(&options, "own tB", 6);
    options.variables = NULL; /* tokens that the model does not name are no variables, nor is any without a model */
    options.chat_template = "{{ pad_token }}{{ unk_token is defined }}";
    expect(&options, "</s>False", 9);
    options.model = NULL;
    options.chat_template = "{{ pad_token is defined }}{{ eos_token }}";
    expect(&options, "False", 5);
    pi2_model_file_close(model);
}

static void test_refusals(void **state) {
    (void)state;
    pi2_model_file *model = model_with(NULL, NULL);
    pi2_prompt_options options = options_of(model);
    char *text = (char *)options.messages;
    size_t length = 7;
    assert_int_equal(pi2_prompt_make(&options, &text, &length), PI2_ERR_UNSUPPORTED);
    assert_non_null(strstr(pi2_error_text(), "model.gguf has no chat template"));
    assert_null(text);
    assert_int_equal(length, 0);
    options.model = NULL;
    assert_int_equal(pi2_prompt_make(&options, &text, &length), PI2_ERR_INVALID);
    options.chat_template = " \n";
    assert_int_equal(pi2_prompt_make(&options, &text, &length), PI2_ERR_INVALID);
    options.chat_template = "{{ raise_exception('No.') }}";
    assert_int_equal(pi2_prompt_make(&options, &text, &length), PI2_ERR_FORMAT);
    options.chat_template = "chatml";
    options.messages_length = 5;
    assert_int_equal(pi2_prompt_make(&options, &text, &length), PI2_ERR_INVALID);
    options.messages_length = sizeof messages - 1;
    options.date = "yesterday";
    assert_int_equal(pi2_prompt_make(&options, &text, &length), PI2_ERR_INVALID);
    pi2_model_file_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_which_template, test_folder_begin, test_folder_end),
        cmocka_unit_test_setup_teardown(test_refusals, test_folder_begin, test_folder_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
