/* prompt.c: a conversation in JSON to the text of a prompt, by a chat template alone or a model's. */
#include "powerinfer2/prompt.h"

#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "chat_template/chat_template.h"
#include "engine/model_file_internal.h"

/* The source of the template to use; its text is the options', a constant or the model's. */
static pi2_status find_template(const pi2_prompt_options *options, pi2_gguf_string *source_out) {
    static const char own[] = "tokenizer.chat_template", with_tools[] = "tokenizer.chat_template.tool_use";
    if (options->chat_template) {
        const char *known = pi2_chat_template_named(options->chat_template);
        source_out->text = known ? known : options->chat_template;
        source_out->length = strlen(source_out->text);
        if (!pi2_chat_template_is_blank(source_out->text, source_out->length)) return PI2_OK;
        return pi2_fail(PI2_ERR_INVALID, "the chat template is empty");
    }
    if (!options->model) return pi2_fail(PI2_ERR_INVALID, "no chat template: give one, or a model that has one");
    const pi2_gguf *gguf = options->model->gguf;
    const char *key = options->tools && pi2_gguf_has(gguf, with_tools) ? with_tools : own;
    *source_out = (pi2_gguf_string){ "", 0 };
    if (pi2_gguf_has(gguf, key)) PI2_TRY(pi2_gguf_string_get(gguf, key, source_out));
    if (!pi2_chat_template_is_blank(source_out->text, source_out->length)) return PI2_OK;
    return pi2_fail(PI2_ERR_UNSUPPORTED, "%s has no chat template: name one with --chat-template",
                    pi2_gguf_file_path(gguf, 0));
}

static pi2_status find_special_tokens(pi2_model_file *model, pi2_special_texts *texts_out) {
    if (model && !model->tokenizer) PI2_TRY(pi2_tokenizer_create(model->gguf, &model->tokenizer));
    pi2_special_texts_get(model ? model->tokenizer : NULL, texts_out);
    return PI2_OK;
}

/* Takes the text over: its segments lie one after the other in one piece of memory. */
static void take_text(pi2_rendered_chat *rendered, char **text_out, size_t *length_out) {
    size_t length = 0;
    for (size_t i = 0; i < rendered->segment_count; i++) length += rendered->segments[i].length;
    *text_out = rendered->storage;
    *length_out = length;
    rendered->storage = NULL;
    pi2_rendered_chat_free(rendered);
}

pi2_status pi2_prompt_make(const pi2_prompt_options *options, char **text_out, size_t *length_out) {
    pi2_special_texts texts;
    pi2_gguf_string source;
    *text_out = NULL;
    *length_out = 0;
    PI2_TRY(find_template(options, &source));
    PI2_TRY(find_special_tokens(options->model, &texts));
    const pi2_chat_inputs inputs = {
        .messages_json = { options->messages, options->messages_length },
        .tools_json = { options->tools, options->tools_length },
        .add_generation_prompt = options->add_generation_prompt, .bos_token = texts.bos, .eos_token = texts.eos,
        .unk_token = texts.unknown, .pad_token = texts.padding,
        .date_string = options->date, .variables = options->variables, .variables_set_special_tokens = true,
    };
    pi2_chat_template *chat_template = NULL;
    PI2_TRY(pi2_chat_template_parse(source.text, source.length, &chat_template));
    pi2_rendered_chat rendered = { 0 };
    const pi2_status status = pi2_chat_template_render(chat_template, &inputs, &rendered);
    pi2_chat_template_free(chat_template);
    if (status == PI2_OK) take_text(&rendered, text_out, length_out);
    return status;
}
