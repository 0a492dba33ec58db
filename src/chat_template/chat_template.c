/* chat_template.c: a template with its variables in, text in segments out. */
#include "chat_template/chat_template.h"

#include "chat_template/jinja.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct pi2_chat_template {
    pi2_jinja_arena arena; /* the nodes; never changed after the parse */
    const pi2_jinja_node *body;
};

pi2_status pi2_chat_template_parse(const char *source, size_t length,
                                   pi2_chat_template **template_out) {
    *template_out = NULL;
    pi2_chat_template *chat_template = calloc(1, sizeof *chat_template);
    if (chat_template == NULL)
        return pi2_fail(PI2_ERR_MEMORY, "chat template: the machine has no memory to parse it");
    pi2_jinja_node *body = NULL;
    const pi2_status status = pi2_jinja_parse(&chat_template->arena, source, length, &body);
    if (status != PI2_OK) {
        pi2_chat_template_free(chat_template);
        return status;
    }
    chat_template->body = body;
    *template_out = chat_template;
    return PI2_OK;
}

void pi2_chat_template_free(pi2_chat_template *chat_template) {
    if (chat_template == NULL) return;
    pi2_jinja_arena_free(&chat_template->arena);
    free(chat_template);
}

void pi2_rendered_chat_free(pi2_rendered_chat *rendered) {
    free(rendered->segments);
    free(rendered->storage);
    *rendered = (pi2_rendered_chat){0};
}

void pi2_special_texts_get(const pi2_tokenizer *tokenizer, pi2_special_texts *texts_out) {
    *texts_out = (pi2_special_texts){{0}, {0}, {0}, {0}};
    if (tokenizer == NULL) return;
    const struct {
        int32_t token;
        char *text;
    } all[] = {{pi2_tokenizer_bos(tokenizer), texts_out->bos},
               {pi2_tokenizer_eos(tokenizer), texts_out->eos},
               {pi2_tokenizer_unknown(tokenizer), texts_out->unknown},
               {pi2_tokenizer_padding(tokenizer), texts_out->padding}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        pi2_tokenizer_special_text(tokenizer, all[i].token, all[i].text, sizeof texts_out->bos);
}

/* ---- variables ---- */

static pi2_status set_global(pi2_jinja_run *run, const char *name, pi2_jinja_value value) {
    return pi2_jinja_dict_set(run->arena, &run->frame->variables,
                              pi2_jinja_of_string(pi2_jinja_own_string(name)), value);
}

/** Roles that this library's callers mean by name: as good as the template's own text. */
static bool is_known_role(const char *role) {
    static const char *const known[] = {"system", "user", "assistant", "tool", "developer"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(role, known[i]) == 0) return true;
    return false;
}

static pi2_status make_message(pi2_jinja_run *run, const pi2_chat_message *message,
                               pi2_jinja_value *out) {
    pi2_jinja_string role = pi2_jinja_own_string(message->role);
    pi2_jinja_string content = pi2_jinja_own_string(message->content);
    role.trusted = is_known_role(message->role);
    content.trusted = false;
    PI2_TRY(pi2_jinja_dict_new(run->arena, out));
    PI2_TRY(pi2_jinja_dict_set(run->arena, out->as.dict,
                               pi2_jinja_of_string(pi2_jinja_own_string("role")),
                               pi2_jinja_of_string(role)));
    return pi2_jinja_dict_set(run->arena, out->as.dict,
                              pi2_jinja_of_string(pi2_jinja_own_string("content")),
                              pi2_jinja_of_string(content));
}

static pi2_status make_messages(pi2_jinja_run *run, const pi2_chat_inputs *inputs, pi2_jinja_value *out) {
    if (inputs->messages_json.bytes != NULL)
        return pi2_jinja_list_of_objects(run->arena, inputs->messages_json, "messages", out);
    PI2_TRY(pi2_jinja_list_new(run->arena, inputs->message_count, PI2_JINJA_PLAIN_LIST, out));
    for (size_t i = 0; i < inputs->message_count; i++) {
        pi2_jinja_value message;
        PI2_TRY(make_message(run, &inputs->messages[i], &message));
        PI2_TRY(pi2_jinja_list_add(run->arena, out->as.list, message));
    }
    return PI2_OK;
}

/** Variables that the inputs set already. */
static const char *reserved_names(const pi2_chat_inputs *inputs) {
    const bool has_tools = inputs->tools_json.bytes != NULL;
    if (inputs->variables_set_special_tokens)
        return has_tools ? "messages add_generation_prompt tools" : "messages add_generation_prompt";
    return has_tools ? "messages add_generation_prompt bos_token eos_token tools"
                     : "messages add_generation_prompt bos_token eos_token";
}

/** What transformers gives a template: tools or none, no documents, and no date_string. */
static pi2_status set_globals(pi2_jinja_run *run, const pi2_chat_inputs *inputs) {
    pi2_jinja_value messages, tools = pi2_jinja_none();
    PI2_TRY(pi2_jinja_push_frame(run, NULL));
    PI2_TRY(make_messages(run, inputs, &messages));
    if (inputs->tools_json.bytes != NULL)
        PI2_TRY(pi2_jinja_list_of_objects(run->arena, inputs->tools_json, "tools", &tools));
    const char *bos = inputs->bos_token != NULL ? inputs->bos_token : "";
    const char *eos = inputs->eos_token != NULL ? inputs->eos_token : "";
    PI2_TRY(set_global(run, "messages", messages));
    PI2_TRY(set_global(run, "tools", tools));
    PI2_TRY(set_global(run, "documents", pi2_jinja_none()));
    PI2_TRY(set_global(run, "add_generation_prompt",
                       pi2_jinja_boolean(inputs->add_generation_prompt)));
    PI2_TRY(set_global(run, "bos_token", pi2_jinja_of_string(pi2_jinja_own_string(bos))));
    PI2_TRY(set_global(run, "eos_token", pi2_jinja_of_string(pi2_jinja_own_string(eos))));
    if (inputs->unk_token != NULL && *inputs->unk_token != '\0')
        PI2_TRY(set_global(run, "unk_token", pi2_jinja_of_string(pi2_jinja_own_string(inputs->unk_token))));
    if (inputs->pad_token != NULL && *inputs->pad_token != '\0')
        PI2_TRY(set_global(run, "pad_token", pi2_jinja_of_string(pi2_jinja_own_string(inputs->pad_token))));
    if (inputs->variables != NULL)
        PI2_TRY(pi2_jinja_set_variables(run->arena, inputs->variables, reserved_names(inputs),
                                        &run->frame->variables));
    return pi2_jinja_push_frame(run, run->frame);
}

pi2_status pi2_chat_template_check_variables(const char *variables) {
    pi2_jinja_arena arena = {0};
    pi2_jinja_dict dict = {0};
    const pi2_chat_inputs inputs = {0};
    const pi2_status status = pi2_jinja_set_variables(&arena, variables, reserved_names(&inputs), &dict);
    pi2_jinja_arena_free(&arena);
    return status;
}

/** Reads `digits` digits at *at, moved past; -1 when they are not there. */
static int take_number(const char **at, int digits) {
    int number = 0;
    for (int i = 0; i < digits; i++, (*at)++) {
        if (**at < '0' || **at > '9') return -1;
        number = number * 10 + (**at - '0');
    }
    return number;
}

static bool take_separator(const char **at, char separator) {
    if (**at != separator) return false;
    (*at)++;
    return true;
}

/** YYYY-MM-DD, and perhaps " HH:MM:SS". */
static bool parse_date(const char *at, pi2_jinja_date *date) {
    date->year = take_number(&at, 4);
    if (!take_separator(&at, '-')) return false;
    date->month = take_number(&at, 2);
    if (!take_separator(&at, '-')) return false;
    date->day = take_number(&at, 2);
    if (*at != '\0') {
        if (!take_separator(&at, ' ')) return false;
        date->hour = take_number(&at, 2);
        if (!take_separator(&at, ':')) return false;
        date->minute = take_number(&at, 2);
        if (!take_separator(&at, ':')) return false;
        date->second = take_number(&at, 2);
    }
    return *at == '\0' && date->year > 0 && date->month >= 1 && date->month <= 12 &&
           date->day >= 1 && date->day <= 31 && date->hour >= 0 && date->hour < 24 &&
           date->minute >= 0 && date->minute < 60 && date->second >= 0 && date->second < 61;
}

static pi2_status set_date(pi2_jinja_run *run, const char *date_string) {
    if (date_string != NULL) {
        if (parse_date(date_string, &run->date)) return PI2_OK;
        return pi2_fail(PI2_ERR_INVALID, "'%.40s' is no date; write YYYY-MM-DD", date_string);
    }
    const time_t now = time(NULL);
    struct tm local = {0};
    if (now == (time_t)-1 || localtime_r(&now, &local) == NULL)
        return pi2_fail(PI2_ERR_IO, "the machine does not tell the time; give a date");
    run->date = (pi2_jinja_date){local.tm_year + 1900, local.tm_mon + 1, local.tm_mday,
                                 local.tm_hour, local.tm_min, local.tm_sec};
    return PI2_OK;
}

/* ---- segments ---- */

static size_t count_segments(pi2_jinja_string string) {
    size_t count = string.length > 0;
    for (size_t i = 1; string.marks != NULL && i < string.length; i++)
        count += string.marks[i] != string.marks[i - 1];
    return count;
}

static pi2_status make_segments(pi2_jinja_string string, pi2_rendered_chat *out) {
    const size_t count = count_segments(string);
    pi2_text_segment *segments = calloc(count + 1, sizeof *segments);
    char *storage = malloc(string.length + 1);
    if (segments == NULL || storage == NULL) {
        free(segments);
        free(storage);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for a prompt of %zu bytes", string.length);
    }
    if (string.length > 0) memcpy(storage, string.bytes, string.length);
    storage[string.length] = '\0';
    size_t start = 0;
    for (size_t i = 0; i < count; i++) {
        size_t end = start + 1;
        const bool trusted = pi2_jinja_is_trusted(string, start);
        while (end < string.length && pi2_jinja_is_trusted(string, end) == trusted) end++;
        segments[i] = (pi2_text_segment){storage + start, end - start, trusted};
        start = end;
    }
    *out = (pi2_rendered_chat){segments, count, storage};
    return PI2_OK;
}

static pi2_status render(pi2_jinja_run *run, const pi2_chat_template *chat_template,
                         const pi2_chat_inputs *inputs, pi2_rendered_chat *out) {
    PI2_TRY(set_date(run, inputs->date_string));
    PI2_TRY(set_globals(run, inputs));
    PI2_TRY(pi2_jinja_execute(run, chat_template->body));
    return make_segments(pi2_jinja_text_string(run->output), out);
}

pi2_status pi2_chat_template_render(const pi2_chat_template *chat_template,
                                    const pi2_chat_inputs *inputs,
                                    pi2_rendered_chat *rendered_out) {
    pi2_jinja_arena arena = {.most_bytes = inputs->most_bytes};
    pi2_jinja_text output = {.arena = &arena};
    pi2_jinja_run run = {.arena = &arena, .output = &output};
    *rendered_out = (pi2_rendered_chat){0};
    const pi2_status status = render(&run, chat_template, inputs, rendered_out);
    pi2_jinja_arena_free(&arena);
    return status;
}
