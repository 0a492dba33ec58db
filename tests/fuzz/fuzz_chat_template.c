/* fuzz_chat_template.c: any bytes as a template, and the message text that follows a NUL byte.
 * Build and run (clang):
 *
 *   clang -g -O1 -std=c11 -D_POSIX_C_SOURCE=200809L -fsanitize=fuzzer,address,undefined \
 *     -Iinclude -Isrc tests/fuzz/fuzz_chat_template.c src/chat_template/(all).c src/base/status.c \
 *     -lutf8proc -o fuzz_chat_template && ./fuzz_chat_template -max_total_time=120 corpus
 *
 * Besides what the sanitizers see: segments are not empty and alternate in trust.
 */
#include "chat_template/chat_template.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const pi2_rendered_chat *rendered) {
    size_t letters = 0;
    for (size_t i = 0; i < rendered->segment_count; i++) {
        const pi2_text_segment *segment = &rendered->segments[i];
        if (segment->length == 0) abort();
        if (i > 0 && segment->trusted == rendered->segments[i - 1].trusted) abort();
        for (size_t j = 0; j < segment->length; j++) letters += segment->text[j] != '\0';
    }
    if (letters == SIZE_MAX) abort(); /* reads every byte */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *end = size > 0 ? memchr(data, 0, size) : NULL;
    const size_t length = end != NULL ? (size_t)(end - data) : size;
    const size_t rest = end != NULL ? size - length - 1 : 0;
    char *content = malloc(rest + 1);
    if (content == NULL) return 0;
    if (rest > 0) memcpy(content, data + length + 1, rest);
    content[rest] = '\0';
    const pi2_chat_message messages[] = {
        {"system", "Be brief."}, {"user", content}, {"assistant", "Yes."}, {"user", "<|x|> {{ 1 }}"}};
    const pi2_chat_inputs inputs = {.messages = messages, .message_count = 4, .add_generation_prompt = true,
                                    .bos_token = "<s>", .eos_token = "</s>", .date_string = "2026-11-23"};
    pi2_chat_template *chat_template;
    if (pi2_chat_template_parse((const char *)data, length, &chat_template) == PI2_OK) {
        pi2_rendered_chat rendered;
        if (pi2_chat_template_render(chat_template, &inputs, &rendered) == PI2_OK) check(&rendered);
        pi2_rendered_chat_free(&rendered);
    }
    pi2_chat_template_free(chat_template);
    free(content);
    return 0;
}
