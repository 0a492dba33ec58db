/* fuzz_prompt_json.c: any bytes as the JSON of messages, tools and variables, with a NUL between each. A template that
 * visits and prints all of it runs over what is accepted; it is refused with one line otherwise. */
#include "chat_template/chat_template.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char template_text[] =
    "{% for m in messages %}{{ m.role }}{{ m.content }}{{ m | tojson(indent=2) }}{% for c in m.tool_calls %}"
    "{% for k, v in c.function.arguments | items %}{{ k }}={{ v }}{% endfor %}{% endfor %}{% endfor %}"
    "{{ tools | tojson }}{{ tools }}{{ x }}{{ x | tojson(sort_keys=true) }}";

/** The bytes up to the next NUL as a C string of its own; *at moves past it. NULL: no memory. */
static char *next_text(const uint8_t *data, size_t size, size_t *at, size_t *length) {
    const size_t left = size - *at;
    const uint8_t *end = left > 0 ? memchr(data + *at, 0, left) : NULL;
    *length = end != NULL ? (size_t)(end - data) - *at : left;
    char *text = malloc(*length + 1);
    if (text == NULL) return NULL;
    if (*length > 0) memcpy(text, data + *at, *length);
    text[*length] = '\0';
    *at += *length + (end != NULL);
    return text;
}

static void render(pi2_json_text messages, pi2_json_text tools, const char *variables) {
    const pi2_chat_inputs inputs = {.messages_json = messages, .tools_json = tools, .variables = variables,
                                    .variables_set_special_tokens = true, .date_string = "2026-11-23"};
    pi2_chat_template *chat_template = NULL;
    pi2_rendered_chat rendered;
    if (pi2_chat_template_parse(template_text, strlen(template_text), &chat_template) != PI2_OK) abort();
    const pi2_status status = pi2_chat_template_render(chat_template, &inputs, &rendered);
    if (status != PI2_OK && (rendered.segments != NULL || strchr(pi2_error_text(), '\n') != NULL)) abort();
    pi2_rendered_chat_free(&rendered);
    pi2_chat_template_free(chat_template);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t at = 0, messages_length, tools_length, variables_length;
    char *messages = next_text(data, size, &at, &messages_length);
    char *tools = next_text(data, size, &at, &tools_length);
    char *variables = next_text(data, size, &at, &variables_length);
    if (messages != NULL && tools != NULL && variables != NULL) {
        render((pi2_json_text){messages, messages_length},
               (pi2_json_text){tools_length > 0 ? tools : NULL, tools_length}, variables_length > 0 ? variables : NULL);
    }
    free(messages);
    free(tools);
    free(variables);
    return 0;
}
