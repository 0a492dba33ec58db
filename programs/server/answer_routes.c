/* answer_routes.c: the routes that generate: a request is read into a reply's job. */
#include <stdlib.h>
#include <string.h>

#include "answer_form.h"
#include "prompt_request.h"
#include "responses_request.h"
#include "server_routes.h"
#include "tool_form.h"

typedef bool conversation_reader(const json_t *body, pi2_conversation_json *out, pi2_request_fault *fault);

/** Whether what begins a thought is a control token of the model's: its text is needed to find where it ends. */
static bool has_hidden_thoughts(const pi2_engine *engine) {
    bool is_hidden = false;
    for (size_t i = 0; pi2_thought_mark(i) && !is_hidden; i++) {
        const char *mark = pi2_thought_mark(i);
        int32_t *tokens = NULL;
        size_t count = 0, length = 1;
        char *text = NULL;
        if (pi2_engine_tokenize(engine, mark, strlen(mark), false, true, &tokens, &count) == PI2_OK && count > 0 &&
            pi2_engine_detokenize(engine, tokens, 1, false, &text, &length) == PI2_OK) is_hidden = length == 0;
        free(text);
        free(tokens);
    }
    return is_hidden;
}

/** The conversation becomes the job's prompt. */
static bool take_conversation(pi2_reply *reply, const json_t *body, conversation_reader *read,
                              pi2_request_fault *fault) {
    pi2_conversation_json conversation = {.json_room = reply->exchange->json_room};
    char *text = NULL;
    int32_t *tokens = NULL;
    size_t length = 0, count = 0;
    bool is_good = read(body, &conversation, fault) &&
                   pi2_prompt_of_conversation(reply->exchange, &conversation, &text, &length, &tokens, &count, fault) &&
                   pi2_reply_take_prompt(reply, tokens, count, fault);
    if (is_good) {
        const pi2_answer_begin begin = pi2_prompt_begins(text, length);
        reply->job.print_special = conversation.tools || begin == PI2_BEGINS_HEADER || /* marks may be control tokens */
                                   has_hidden_thoughts(reply->exchange->server->engine);
        reply->thought_end = pi2_prompt_thought_end(text, length);
        reply->takes_one_call = conversation.wants_one_call;
        is_good = (pi2_reply_parse_answer(reply, begin, conversation.tools) ||
                   pi2_fault(fault, "no memory for the answer")) &&
                  (!conversation.demands_call || pi2_tool_form_take(reply, &conversation, fault));
    }
    free(text);
    pi2_conversation_json_free(&conversation);
    return is_good;
}

static bool take_chances(pi2_job *job, bool is_wanted, int64_t top) {
    job->wants_chances = is_wanted;
    job->top_count = (uint32_t)top;
    return true;
}

static bool read_chat(pi2_reply *reply, const json_t *body, pi2_request_fault *fault) {
    bool wants = false;
    int64_t top = 0;
    return pi2_field_flag(body, "logprobs", &wants, fault) &&
           pi2_field_integer(body, "top_logprobs", 0, PI2_JOB_MOST_TOP, &top, fault) &&
           pi2_field_flag(json_object_get(body, "stream_options"), "include_usage", &reply->includes_usage, fault) &&
           take_chances(&reply->job, wants, wants ? top : 0) &&
           take_conversation(reply, body, pi2_conversation_from_openai, fault);
}

/** An array of texts, or of arrays, alone is one of prompts for every client, however llama.cpp joins texts and ids. */
static size_t count_prompts(const json_t *prompt) {
    size_t texts = 0;
    for (size_t i = 0; i < json_array_size(prompt); i++) texts += !json_is_integer(json_array_get(prompt, i));
    return texts > 1 && texts == json_array_size(prompt) ? texts : 1;
}

/** Each of several prompts becomes that of its choices, of which there are `answers`. */
static bool take_prompts(pi2_reply *reply, const json_t *prompts, pi2_request_fault *fault) {
    const uint32_t answers = reply->answers_per_prompt;
    uint64_t room = pi2_prompt_room(reply->exchange); /* of all together: memory is planned for it once */
    for (pi2_reply *choice = reply; choice; choice = choice->next) {
        if (choice->index % answers) continue;
        int32_t *tokens = NULL;
        size_t count = 0;
        if (!pi2_prompt_of_value(reply->exchange, json_array_get(prompts, choice->index / answers), true, true, &room,
                                 &tokens, &count, fault) ||
            !pi2_reply_take_prompt(choice, tokens, count, fault)) {
            return false;
        }
    }
    return true;
}

static bool take_plain_prompt(pi2_reply *reply, const json_t *body, pi2_request_fault *fault) {
    const json_t *prompt = json_object_get(body, "prompt"), *first = json_array_get(prompt, 0);
    int32_t *tokens = NULL;
    size_t count = 0;
    const size_t prompts = count_prompts(prompt);
    if (prompts > 1 && !reply->dialect->has_prompts) {
        return pi2_fault(fault, "'prompt' holds %zu prompts: one a request is answered here", prompts);
    }
    if (prompts > 1) return take_prompts(reply, prompt, fault);
    if (!json_is_string(prompt) && !json_is_array(prompt)) {
        return pi2_fault(fault, "'prompt' must be a text, or an array of texts and token ids");
    }
    if (json_array_size(prompt) == 1 && json_is_array(first)) prompt = first;
    uint64_t room = pi2_prompt_room(reply->exchange);
    return pi2_prompt_of_value(reply->exchange, prompt, true, true, &room, &tokens, &count, fault) &&
           pi2_reply_take_prompt(reply, tokens, count, fault);
}

static bool read_completion(pi2_reply *reply, const json_t *body, pi2_request_fault *fault) {
    int64_t top = -1;
    return pi2_field_integer(body, "logprobs", 0, PI2_JOB_MOST_TOP, &top, fault) &&
           pi2_field_flag(json_object_get(body, "stream_options"), "include_usage", &reply->includes_usage, fault) &&
           take_chances(&reply->job, top >= 0, top > 0 ? top : 0) && take_plain_prompt(reply, body, fault);
}

static bool read_llama(pi2_reply *reply, const json_t *body, pi2_request_fault *fault) {
    int64_t top = 0;
    return pi2_field_integer(body, "n_probs", 0, PI2_JOB_MOST_TOP, &top, fault) &&
           take_chances(&reply->job, top > 0, top) && take_plain_prompt(reply, body, fault);
}

static bool read_messages(pi2_reply *reply, const json_t *body, pi2_request_fault *fault) {
    int64_t limit = 0;
    if (!pi2_field_integer(body, "max_tokens", 1, INT32_MAX, &limit, fault)) return false;
    if (limit == 0) return pi2_fault(fault, "'max_tokens' is missing");
    return take_conversation(reply, body, pi2_conversation_from_anthropic, fault);
}

static bool read_responses(pi2_reply *reply, const json_t *body, pi2_request_fault *fault) {
    if (!pi2_field_integer(body, "max_output_tokens", 1, INT32_MAX, &reply->job.limit, fault)) return false;
    json_t *chat = pi2_responses_as_chat(body, fault);
    const bool is_good = chat && take_conversation(reply, chat, pi2_conversation_from_openai, fault);
    json_decref(chat);
    return is_good;
}

static bool read_ollama_options(pi2_reply *reply, const json_t *body, pi2_request_fault *fault) {
    const json_t *options = json_object_get(body, "options");
    if (options && !json_is_null(options) && !json_is_object(options)) {
        return pi2_fault(fault, "'options' must be an object");
    }
    return pi2_fields_sampling(options, &reply->job, fault);
}

/** Without a message Ollama's clients have a model loaded, which this one is. */
static bool read_ollama_chat(pi2_reply *reply, const json_t *body, pi2_request_fault *fault) {
    const json_t *messages = json_object_get(body, "messages");
    reply->is_empty = !messages || (json_is_array(messages) && json_array_size(messages) == 0);
    if (reply->is_empty) return true;
    return read_ollama_options(reply, body, fault) &&
           take_conversation(reply, body, pi2_conversation_from_ollama, fault);
}

/** A prompt as a conversation of one message, unless it is raw. */
static bool read_ollama_generate(pi2_reply *reply, const json_t *body, pi2_request_fault *fault) {
    bool is_raw = false;
    const char *system = NULL, *prompt = NULL;
    if (!read_ollama_options(reply, body, fault) || !pi2_field_flag(body, "raw", &is_raw, fault) ||
        !pi2_field_text(body, "system", &system, fault) || !pi2_field_text(body, "prompt", &prompt, fault)) {
        return false;
    }
    if (pi2_field_is_set(body, "images") || pi2_field_is_set(body, "template")) {
        return pi2_fault(fault, "'images' and 'template' are not supported here");
    }
    reply->is_empty = !prompt || !*prompt;
    if (reply->is_empty) return true;
    if (is_raw || !pi2_engine_has_chat_template(reply->exchange->server->engine)) {
        return take_plain_prompt(reply, body, fault);
    }
    json_t *chat = json_pack("{s:[{s:s, s:s}]}", "messages", "role", "user", "content", prompt);
    json_t *think = json_object_get(body, "think");
    if (think) (void)json_object_set(chat, "think", think);
    if (system) {
        (void)json_array_insert_new(json_object_get(chat, "messages"), 0,
                                    json_pack("{s:s, s:s}", "role", "system", "content", system));
    }
    const bool is_good = take_conversation(reply, chat, pi2_conversation_from_ollama, fault);
    json_decref(chat);
    return is_good;
}

/* ---- all of them ---- */

typedef bool reply_reader(pi2_reply *reply, const json_t *body, pi2_request_fault *fault);

/** Makes a choice for each answer that is asked for: as many at most as there is ever room for. */
static bool take_choices(pi2_reply *reply, const json_t *body, pi2_request_fault *fault) {
    const pi2_server_settings *settings = reply->exchange->server->settings;
    const size_t room = settings->parallel + settings->queue_most;
    const size_t prompts = reply->dialect->has_prompts ? count_prompts(json_object_get(body, "prompt")) : 1;
    uint32_t count, most = 1;
    if (reply->dialect->has_choices) most = room < PI2_REPLY_MOST_CHOICES ? (uint32_t)room : PI2_REPLY_MOST_CHOICES;
    if (!pi2_field_choices(body, most, &count, fault)) return false;
    if (prompts > most / count) {
        return pi2_fault(fault, "%zu prompts with %u answers each are asked for, a request gets at most %u answers",
                         prompts, (unsigned)count, (unsigned)most);
    }
    reply->answers_per_prompt = count;
    return pi2_reply_add_choices(reply, (uint32_t)prompts * count) ||
           pi2_fault(fault, "no memory for %zu answers", prompts * count);
}

/** Reads a request with the functions that use planned memory under the mutex, then lets the job be computed. */
static enum MHD_Result generate(pi2_exchange *exchange, const pi2_dialect *dialect, const char *id, bool streams,
                                reply_reader *read) {
    enum MHD_Result result = MHD_NO;
    pi2_request_fault fault = {0};
    pi2_answer_form form;
    pi2_reply *reply = pi2_reply_create(exchange, dialect);
    if (!reply) return pi2_exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "server_error", "no memory");
    reply->streams = streams;
    pi2_exchange_id(exchange, id, reply->id);
    (void)pthread_mutex_lock(&exchange->server->text_mutex);
    json_t *body = pi2_exchange_body(exchange, &result);
    const bool is_good = body && pi2_field_flag(body, "stream", &reply->streams, &fault) &&
                         pi2_field_flag(body, "return_progress", &reply->tells_progress, &fault) &&
                         take_choices(reply, body, &fault) && pi2_fields_unsupported(body, &fault) &&
                         pi2_fields_sampling(body, &reply->job, &fault) &&
                         pi2_answer_form_read(body, &form, &fault) &&
                         read(reply, body, &fault) && pi2_reply_bound_chances(reply, &fault) &&
                         (reply->is_empty || pi2_answer_form_take(reply, &form, reply->thought_end, &fault));
    if (is_good) pi2_reply_share_job(reply);
    const bool has_body = body != NULL;
    json_decref(body);
    (void)pthread_mutex_unlock(&exchange->server->text_mutex);
    if (!has_body) return result;
    return is_good ? pi2_reply_send(reply) : pi2_reply_refuse(exchange, &fault);
}

enum MHD_Result pi2_route_chat(pi2_exchange *exchange) {
    return generate(exchange, &pi2_dialect_chat, "chatcmpl-", false, read_chat);
}

enum MHD_Result pi2_route_completions(pi2_exchange *exchange) {
    return generate(exchange, &pi2_dialect_completion, "cmpl-", false, read_completion);
}

enum MHD_Result pi2_route_llama(pi2_exchange *exchange) {
    return generate(exchange, &pi2_dialect_llama, "cmpl-", false, read_llama);
}

enum MHD_Result pi2_route_messages(pi2_exchange *exchange) {
    return generate(exchange, &pi2_dialect_messages, "msg_", false, read_messages);
}

enum MHD_Result pi2_route_responses(pi2_exchange *exchange) {
    return generate(exchange, &pi2_dialect_responses, "resp_", false, read_responses);
}

enum MHD_Result pi2_route_ollama_chat(pi2_exchange *exchange) {
    return generate(exchange, &pi2_dialect_ollama_chat, "", true, read_ollama_chat);
}

enum MHD_Result pi2_route_ollama_generate(pi2_exchange *exchange) {
    return generate(exchange, &pi2_dialect_ollama_generate, "", true, read_ollama_generate);
}
