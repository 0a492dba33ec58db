/* chat_template_test.h: renders one template over three short messages, for the tests beside. */
#ifndef PI2_TESTS_CHAT_TEMPLATE_TEST_H
#define PI2_TESTS_CHAT_TEMPLATE_TEST_H

#include "base/fail.h"
#include "chat_template/chat_template.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/** Renders over user "Hi", assistant "Yo", user `last`; frees nothing of *rendered. */
static inline pi2_status render_with(const char *source, const char *last,
                                     pi2_rendered_chat *rendered) {
    const pi2_chat_message messages[] = {{"user", "Hi"}, {"assistant", "Yo"}, {"user", last}};
    const pi2_chat_inputs inputs = {.messages = messages, .message_count = 3, .add_generation_prompt = true,
                                    .bos_token = "<s>", .eos_token = "</s>", .date_string = "2026-11-23"};
    pi2_chat_template *chat_template;
    *rendered = (pi2_rendered_chat){0};
    PI2_TRY(pi2_chat_template_parse(source, strlen(source), &chat_template));
    const pi2_status status = pi2_chat_template_render(chat_template, &inputs, rendered);
    pi2_chat_template_free(chat_template);
    return status;
}

/** The segments one after another, malloc'd; segments must be merged and not empty. */
static inline char *joined_text(const pi2_rendered_chat *rendered) {
    size_t length = 0;
    for (size_t i = 0; i < rendered->segment_count; i++) {
        assert_true(rendered->segments[i].length > 0);
        if (i > 0) assert_true(rendered->segments[i].trusted != rendered->segments[i - 1].trusted);
        length += rendered->segments[i].length;
    }
    char *text = malloc(length + 1);
    assert_non_null(text);
    length = 0;
    for (size_t i = 0; i < rendered->segment_count; i++) {
        memcpy(text + length, rendered->segments[i].text, rendered->segments[i].length);
        length += rendered->segments[i].length;
    }
    text[length] = '\0';
    return text;
}

static inline void assert_renders(const char *source, const char *text) {
    pi2_rendered_chat rendered;
    const pi2_status status = render_with(source, "Bye", &rendered);
    if (status != PI2_OK) fail_msg("%s\n  %s", source, pi2_error_text());
    char *got = joined_text(&rendered);
    if (strcmp(got, text) != 0) fail_msg("%s\n  gives  %s\n  wanted %s", source, got, text);
    free(got);
    pi2_rendered_chat_free(&rendered);
}

#endif
