/* answering.c: the loop between a job and the bytes of a reply. */
#include "answering.h"

#include "answer_form.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { STREAM_BLOCK_BYTES = 4096, PIECE_BYTES = 4096, CHANCE_BYTES = 1024 /* as JSON */ };
static const uint64_t PING_NS = 15000000000u;

pi2_reply *pi2_reply_create(pi2_exchange *exchange, const pi2_dialect *dialect) {
    pi2_reply *reply = calloc(1, sizeof *reply);
    if (!reply) return NULL;
    reply->exchange = exchange;
    reply->dialect = dialect;
    reply->created = (int64_t)time(NULL);
    reply->begin_ns = reply->last_ns = pi2_cli_now_ns();
    reply->open_block = -1;
    const pi2_sampling sampling = pi2_exchange_sampling(exchange);
    pi2_job_init(&reply->job, &sampling);
    reply->job.limit = exchange->server->settings->limit;
    exchange->reply = reply;
    return reply;
}

bool pi2_reply_add_choices(pi2_reply *reply, uint32_t count) {
    pi2_reply *last = reply;
    for (uint32_t i = 1; i < count; i++, last = last->next) {
        pi2_reply *choice = last->next = calloc(1, sizeof *choice);
        if (!choice) return false;
        choice->exchange = reply->exchange;
        choice->dialect = reply->dialect;
        choice->created = reply->created;
        choice->begin_ns = choice->last_ns = reply->begin_ns;
        choice->open_block = -1;
        choice->first = reply;
        choice->index = i;
        memcpy(choice->id, reply->id, sizeof choice->id);
        pi2_job_init(&choice->job, &reply->job.sampling);
    }
    return true;
}

void pi2_reply_share_job(pi2_reply *reply) {
    const pi2_job *job = &reply->job;
    const pi2_reply *asked = reply; /* whose prompt it is */
    for (pi2_reply *choice = reply->next; choice; choice = choice->next) {
        if (choice->prompt) asked = choice;
        choice->streams = reply->streams;
        choice->job.sampling = job->sampling;
        choice->job.sampling.seed = pi2_job_seed(job->sampling.seed, choice->index - asked->index);
        choice->job.prompt = asked->job.prompt;
        choice->job.prompt_count = asked->job.prompt_count;
        choice->job.limit = job->limit;
        choice->job.most_ms = job->most_ms;
        choice->job.print_special = job->print_special;
        choice->job.wants_chances = job->wants_chances;
        choice->job.top_count = job->top_count;
        for (size_t i = 0; i < job->stop_words.count; i++) {
            (void)pi2_job_add_stop(&choice->job, job->stop_words.items[i]); /* they fit as they did there */
        }
    }
}

static void end_job(pi2_reply *reply) {
    if (reply->is_submitted) pi2_scheduler_finish(reply->exchange->server->scheduler, &reply->job, true);
    reply->is_submitted = false;
}

void pi2_reply_free(pi2_reply *reply) {
    if (!reply) return;
    for (pi2_reply *choice = reply; choice; choice = choice->next) end_job(choice); /* they share the prompt */
    pi2_reply_free(reply->next);
    pi2_job_free(&reply->job);
    pi2_answer_form_free(reply);
    free(reply->tool_grammar.data);
    free(reply->prompt);
    pi2_answer_parser_free(reply->parser);
    free(reply->out.data);
    free(reply->content.data);
    free(reply->reasoning.data);
    json_decref(reply->tool_calls);
    json_decref(reply->items);
    free(reply);
}

enum MHD_Result pi2_reply_refuse(pi2_exchange *exchange, const pi2_request_fault *fault) {
    if (!fault->prompt_tokens || exchange->route->form != PI2_API_OPENAI) {
        return pi2_exchange_error(exchange, fault->status, fault->type, "%s", fault->text);
    }
    json_t *value = pi2_error_json(PI2_API_OPENAI, fault->status, fault->type, fault->text);
    json_t *error = json_object_get(value, "error");
    (void)json_object_set_new(error, "n_prompt_tokens", json_integer((json_int_t)fault->prompt_tokens));
    (void)json_object_set_new(error, "n_ctx", json_integer((json_int_t)fault->context_tokens));
    return pi2_exchange_json(exchange, fault->status, value);
}

bool pi2_reply_take_prompt(pi2_reply *reply, int32_t *tokens, size_t count, pi2_request_fault *fault) {
    const uint32_t context = pi2_engine_get_report(reply->exchange->server->engine)->context_tokens;
    free(reply->prompt);
    reply->job.prompt = reply->prompt = tokens;
    reply->job.prompt_count = count;
    if (count == 0) return pi2_fault(fault, "the prompt is empty");
    if (count < context) return true;
    (void)pi2_fault(fault, "the request has %zu tokens, and the context holds %u: shorten it, or start the server with "
                    "a longer context (-c)", count, context);
    fault->type = "exceed_context_size_error";
    fault->prompt_tokens = count;
    fault->context_tokens = context;
    return false;
}

bool pi2_reply_bound_chances(const pi2_reply *reply, pi2_request_fault *fault) {
    const pi2_job *job = &reply->job;
    if (!job->wants_chances || reply->streams || reply->is_empty) return true;
    const uint64_t most = 2 * (uint64_t)reply->exchange->server->settings->body_bytes;
    const uint64_t context = pi2_engine_get_report(reply->exchange->server->engine)->context_tokens;
    uint64_t choices = 0, shortest = job->prompt_count;
    for (const pi2_reply *choice = reply; choice; choice = choice->next, choices++) {
        if (choice->prompt && choice->job.prompt_count < shortest) shortest = choice->job.prompt_count;
    }
    uint64_t tokens = context - shortest;
    if (job->limit >= 0 && (uint64_t)job->limit < tokens) tokens = (uint64_t)job->limit;
    const uint64_t bytes = choices * tokens * (1 + job->top_count) * CHANCE_BYTES;
    return bytes <= most ||
           pi2_fault(fault, "the chances of %llu tokens would take up to %llu bytes of memory, %llu are allowed: ask "
                     "for fewer tokens (max_tokens) or fewer of each (top_logprobs), or stream the answer",
                     (unsigned long long)(choices * tokens), (unsigned long long)bytes, (unsigned long long)most);
}

/* ---- what dialects write ---- */

bool pi2_reply_event(pi2_reply *reply, const char *name, json_t *value) {
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    pi2_cli_text *out = &reply->out;
    bool is_added = text != NULL;
    if (name) {
        is_added = is_added && pi2_cli_text_add(out, "event: ", 7) && pi2_cli_text_add(out, name, strlen(name)) &&
                   pi2_cli_text_add(out, "\n", 1);
    }
    is_added = is_added && pi2_cli_text_add(out, "data: ", 6) && pi2_cli_text_add(out, text, strlen(text)) &&
               pi2_cli_text_add(out, "\n\n", 2);
    free(text);
    json_decref(value);
    return is_added;
}

bool pi2_reply_line(pi2_reply *reply, json_t *value) {
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    const bool is_added = text && pi2_cli_text_add(&reply->out, text, strlen(text)) &&
                          pi2_cli_text_add(&reply->out, "\n", 1);
    free(text);
    json_decref(value);
    return is_added;
}

const char *pi2_reply_model(const pi2_reply *reply) { return reply->exchange->server->alias; }

size_t pi2_reply_answer_tokens(const pi2_reply *reply) { return reply->job.tokens.length; }

static json_t *per_second(double count, double ms) { return pi2_cli_json_number(ms > 0 ? 1e3 * count / ms : 0.0); }

json_t *pi2_reply_timings(const pi2_reply *reply) {
    const pi2_job *job = &reply->job;
    const double prompt = (double)job->computed_count;
    const double decoded = job->tokens.length ? (double)job->tokens.length - 1 : 0;
    return json_pack("{s:I, s:I, s:f, s:f, s:o, s:I, s:f, s:f, s:o}", "cache_n", (json_int_t)job->cached_count,
                     "prompt_n", (json_int_t)job->computed_count, "prompt_ms", job->times.prompt_ms,
                     "prompt_per_token_ms", prompt > 0 ? job->times.prompt_ms / prompt : 0.0, "prompt_per_second",
                     per_second(prompt, job->times.prompt_ms), "predicted_n", (json_int_t)job->tokens.length,
                     "predicted_ms", job->times.decode_ms, "predicted_per_token_ms",
                     decoded > 0 ? job->times.decode_ms / decoded : 0.0, "predicted_per_second",
                     per_second(decoded, job->times.decode_ms));
}

pi2_reply *pi2_reply_first(const pi2_reply *reply) {
    return reply->first ? reply->first : (pi2_reply *)(uintptr_t)reply;
}

bool pi2_reply_all_ended(const pi2_reply *reply) {
    const pi2_reply *choice = pi2_reply_first(reply);
    while (choice && choice->has_ended) choice = choice->next;
    return choice == NULL;
}

json_t *pi2_reply_usage(const pi2_reply *reply) {
    json_int_t answer = 0, prompt = 0, cached = 0;
    for (const pi2_reply *choice = pi2_reply_first(reply); choice; choice = choice->next) {
        answer += (json_int_t)choice->job.tokens.length;
        if (!choice->prompt) continue; /* counted with the first of its choices */
        prompt += (json_int_t)choice->job.prompt_count;
        cached += (json_int_t)choice->job.cached_count;
    }
    return json_pack("{s:I, s:I, s:I, s:{s:I}}", "prompt_tokens", prompt, "completion_tokens", answer, "total_tokens",
                     prompt + answer, "prompt_tokens_details", "cached_tokens", cached);
}

json_t *pi2_token_text_json(const pi2_reply *reply, int32_t token, json_t **bytes_out) {
    char *text = NULL;
    size_t length = 0;
    const pi2_engine *engine = reply->exchange->server->engine;
    if (token < 0 || pi2_engine_detokenize(engine, &token, 1, true, &text, &length) != PI2_OK) {
        if (bytes_out) *bytes_out = json_null();
        return json_string("");
    }
    json_t *value = pi2_cli_json_text(text, length);
    if (bytes_out) {
        *bytes_out = json_array();
        for (size_t i = 0; i < length; i++) {
            (void)json_array_append_new(*bytes_out, json_integer((unsigned char)text[i]));
        }
    }
    free(text);
    return value;
}

/* ---- feeding ---- */

/** A part of the answer: written at once in a stream, collected otherwise. */
static bool take_part(void *user, const pi2_answer_part *part) {
    pi2_reply *reply = user;
    bool is_taken;
    if (part->kind == PI2_PART_TOOL && reply->takes_one_call && reply->tool_count) return true;
    if (reply->streams) {
        is_taken = reply->dialect->part(reply, part);
    } else if (part->kind == PI2_PART_CONTENT) {
        is_taken = pi2_cli_text_add(&reply->content, part->text, part->length);
    } else if (part->kind == PI2_PART_REASONING) {
        is_taken = pi2_cli_text_add(&reply->reasoning, part->text, part->length);
    } else {
        char id[64];
        pi2_exchange_id(reply->exchange, "call_", id);
        if (!reply->tool_calls) reply->tool_calls = json_array();
        is_taken = json_array_append_new(reply->tool_calls, json_pack("{s:s, s:s, s:o}", "id", id, "name", part->name,
                                                                      "arguments",
                                                                      json_stringn(part->text, part->length))) == 0;
    }
    reply->tool_count += part->kind == PI2_PART_TOOL;
    return is_taken;
}

static bool feed(pi2_reply *reply, const char *text, size_t length) {
    if (reply->parser) return pi2_answer_parser_add(reply->parser, text, length);
    const pi2_answer_part part = {PI2_PART_CONTENT, text, length, NULL};
    return length == 0 || take_part(reply, &part);
}

static bool finish_feeding(pi2_reply *reply) { return !reply->parser || pi2_answer_parser_finish(reply->parser); }

/** What a client is told whose time has passed, in the job's place for that. */
static const char *tell_late(pi2_reply *reply) {
    pi2_job *job = &reply->job;
    const unsigned seconds = reply->exchange->server->settings->request_seconds;
    if (job->was_queued) {
        (void)snprintf(job->error, sizeof job->error, "the request waited in the queue for the %u s that "
                       "--request-timeout allows; try again", seconds);
    } else {
        (void)snprintf(job->error, sizeof job->error, "the answer was not complete within the %u s that "
                       "--request-timeout allows: it had %zu tokens", seconds, job->tokens.length);
    }
    return job->error;
}

const char *pi2_reply_error_type(const pi2_reply *reply, unsigned *http_status_out) {
    const pi2_job *job = &reply->job;
    const bool is_late = job->is_late && job->status == PI2_ERR_INTERRUPTED;
    if (!is_late || job->was_queued) return pi2_error_type(job->status, http_status_out);
    *http_status_out = MHD_HTTP_GATEWAY_TIMEOUT;
    return "timeout_error"; /* as Anthropic calls it */
}

/** What is written in place of the rest of an answer that failed, or was ended from here. */
static const char *failure(pi2_reply *reply) {
    const pi2_job *job = &reply->job;
    if (job->status == PI2_OK) return NULL;
    if (job->is_late && job->status == PI2_ERR_INTERRUPTED) return tell_late(reply);
    return job->status == PI2_ERR_INTERRUPTED ? "the server ends" : pi2_error_for_client(job->status, job->error);
}

static bool end_stream(pi2_reply *reply) {
    const char *failed = failure(reply);
    reply->has_ended = true;
    if (failed) { /* nothing of the others is told behind an error */
        for (pi2_reply *choice = pi2_reply_first(reply); choice; choice = choice->next) choice->has_ended = true;
        return reply->dialect->fail(reply, failed);
    }
    return finish_feeding(reply) && (!reply->dialect->end || reply->dialect->end(reply));
}

/* Chances that come while text is held back, for a stop word or a call of a tool, are told before the job waits. */
static bool has_chances(const pi2_reply *reply) {
    return reply->job.chance_count - reply->job.chances_taken >= PI2_JOB_UNTAKEN_CHANCES / 2;
}

/** Whether text or chances have come that are not taken. */
static bool has_more(const pi2_reply *reply) {
    return reply->job.text.length > reply->job.text_taken || has_chances(reply);
}

json_t *pi2_reply_progress(const pi2_reply *reply) {
    const pi2_job *job = &reply->job;
    const uint64_t wanted = job->prompt_count - job->cached_count;
    const uint64_t computed = job->progress_total ? wanted * job->progress_done / job->progress_total : 0;
    return json_pack("{s:I, s:I, s:I, s:f}", "total", (json_int_t)job->prompt_count, "cache",
                     (json_int_t)job->cached_count, "processed", (json_int_t)(job->cached_count + computed), "time_ms",
                     (double)(pi2_cli_now_ns() - reply->begin_ns) / 1e6);
}

/** Whether the prompt has come further than was told to a client that asked for it. */
static bool has_progress(const pi2_reply *reply) {
    return reply->tells_progress && reply->dialect->progress && reply->job.state == PI2_JOB_PROMPT &&
           reply->job.progress_done != reply->progress_told;
}

/** Whether a choice has something to be written, its end too. */
static bool is_ready(pi2_reply *reply) {
    pi2_job *job = &reply->job;
    (void)pthread_mutex_lock(&job->mutex);
    const bool is_ready = has_more(reply) || job->state == PI2_JOB_DONE || has_progress(reply);
    (void)pthread_mutex_unlock(&job->mutex);
    return is_ready;
}

static bool must_ping(const pi2_reply *reply) {
    const pi2_reply *first = pi2_reply_first(reply);
    return reply->dialect->ping && pi2_cli_now_ns() - first->last_ns > PING_NS;
}

/** Writes a choice's next piece. waits: until there is one. False: the client has gone, or there is no memory. */
static bool write_choice(pi2_reply *reply, bool waits) {
    pi2_job *job = &reply->job;
    char piece[PIECE_BYTES];
    bool is_there = true;
    (void)pthread_mutex_lock(&job->mutex);
    while (waits && is_there && !has_more(reply) && job->state != PI2_JOB_DONE && !has_progress(reply)) {
        is_there = pi2_job_wait(job);
        if (!is_there && job->is_late && !job->is_cancelled) { /* it ends, and what it has is told before that */
            (void)pthread_mutex_unlock(&job->mutex);
            pi2_scheduler_finish(reply->exchange->server->scheduler, job, false);
            (void)pthread_mutex_lock(&job->mutex);
            is_there = !job->is_cancelled;
        }
        if (must_ping(reply)) break;
        waits = reply->next == NULL && !reply->first; /* another choice may have come further */
    }
    const size_t length = pi2_job_take_text(job, piece, sizeof piece);
    const bool tells_chances = has_chances(reply), was_held = job->is_held;
    const bool is_done = job->state == PI2_JOB_DONE && job->text_taken == job->text.length;
    json_t *progress = has_progress(reply) ? pi2_reply_progress(reply) : NULL;
    if (progress) reply->progress_told = job->progress_done;
    (void)pthread_mutex_unlock(&job->mutex);
    if (progress && !reply->dialect->progress(reply, progress)) return false;
    if (!is_there) return false;
    if (length && !feed(reply, piece, length)) return false;
    if (tells_chances && !reply->out.length) { /* no text came of it yet */
        const pi2_answer_part nothing = {PI2_PART_CONTENT, "", 0, NULL};
        if (!reply->dialect->part(reply, &nothing)) return false;
    }
    if (was_held) pi2_scheduler_wake(reply->exchange->server->scheduler);
    return !is_done || end_stream(reply);
}

/** What was written of a choice goes out through the first one. */
static bool hand_over(pi2_reply *choice) {
    if (!choice->first || choice->out.length == 0) return true;
    const bool is_added = pi2_cli_text_add(&choice->first->out, choice->out.data, choice->out.length);
    choice->out.length = 0;
    return is_added;
}

/** Writes what there is of every choice; waits for it where there is nothing. False: as above. */
static bool write_more(pi2_reply *reply) {
    bool waits = true;
    for (pi2_reply *choice = reply; choice && waits; choice = choice->next) {
        waits = choice->has_ended || !is_ready(choice);
    }
    for (pi2_reply *choice = reply; choice; choice = choice->next) {
        if (choice->has_ended) continue;
        if (!write_choice(choice, waits) || !hand_over(choice)) return false;
        waits = false;
    }
    if (!reply->out.length && must_ping(reply) && !pi2_reply_all_ended(reply)) {
        return pi2_cli_text_add(&reply->out, reply->dialect->ping, strlen(reply->dialect->ping));
    }
    return true;
}

static bool begin_stream(pi2_reply *reply) {
    for (pi2_reply *choice = reply; choice; choice = choice->next) {
        if (reply->dialect->begin && !(reply->dialect->begin(choice) && hand_over(choice))) return false;
    }
    return true;
}

static void set_timeout(const pi2_reply *reply, unsigned seconds) {
    (void)MHD_set_connection_option(reply->exchange->connection, MHD_CONNECTION_OPTION_TIMEOUT, seconds);
}

/* While the model computes no byte comes or goes, and that is not the client's fault. */
static ssize_t read_stream(void *user, uint64_t position, char *buffer, size_t most) {
    pi2_reply *reply = user;
    (void)position;
    set_timeout(reply, 0);
    bool is_good = true;
    if (!reply->has_begun) {
        reply->has_begun = true;
        is_good = begin_stream(reply);
    }
    while (is_good && !reply->out.length && !pi2_reply_all_ended(reply)) is_good = write_more(reply);
    set_timeout(reply, reply->exchange->server->settings->timeout_seconds);
    if (!is_good) return MHD_CONTENT_READER_END_WITH_ERROR;
    size_t count = reply->out.length - reply->out_sent;
    if (count == 0) return MHD_CONTENT_READER_END_OF_STREAM;
    if (count > most) count = most;
    memcpy(buffer, reply->out.data + reply->out_sent, count);
    reply->out_sent += count;
    if (reply->out_sent == reply->out.length) reply->out.length = reply->out_sent = 0;
    reply->last_ns = pi2_cli_now_ns();
    return (ssize_t)count;
}

static enum MHD_Result send_stream(pi2_reply *reply) {
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, read_stream, reply, NULL);
    if (response) {
        (void)MHD_add_response_header(response, "Content-Type", reply->dialect->stream_type);
        (void)MHD_add_response_header(response, "Cache-Control", "no-cache");
        (void)MHD_add_response_header(response, "X-Accel-Buffering", "no");
    }
    return pi2_exchange_send(reply->exchange, MHD_HTTP_OK, response);
}

/** Takes a choice's whole answer, which has come. */
static bool collect(pi2_reply *reply) {
    const pi2_cli_text *text = &reply->job.text;
    return feed(reply, text->data ? text->data : "", text->length) && finish_feeding(reply) &&
           pi2_cli_text_add(&reply->content, "", 0);
}

static enum MHD_Result send_whole(pi2_reply *reply) {
    pi2_exchange *exchange = reply->exchange;
    set_timeout(reply, 0);
    for (pi2_reply *choice = reply; choice; choice = choice->next) {
        pi2_scheduler_finish(exchange->server->scheduler, &choice->job, false);
    }
    set_timeout(reply, exchange->server->settings->timeout_seconds);
    bool is_fed = true;
    for (pi2_reply *choice = reply; choice; choice = choice->next) {
        const char *failed = failure(choice);
        if (failed && choice->job.is_cancelled) return MHD_NO; /* nobody reads it */
        if (failed) {
            unsigned status;
            const char *type = pi2_reply_error_type(choice, &status);
            return pi2_exchange_error(exchange, status, type, "%s", failed);
        }
        is_fed = is_fed && collect(choice);
    }
    const bool is_large = reply->job.wants_chances; /* it takes the memory that is planned for one body's JSON */
    if (is_large) (void)pthread_mutex_lock(&exchange->server->text_mutex);
    const enum MHD_Result result =
        pi2_exchange_json(exchange, MHD_HTTP_OK, is_fed ? reply->dialect->whole(reply) : NULL);
    if (is_large) (void)pthread_mutex_unlock(&exchange->server->text_mutex);
    return result;
}

/** Queues the jobs of all choices, or none. */
static bool submit(pi2_reply *reply) {
    pi2_job *jobs[PI2_REPLY_MOST_CHOICES];
    size_t count = 0;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(reply->exchange->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    for (pi2_reply *choice = reply; choice; choice = choice->next) {
        if (info) choice->job.socket = info->connect_fd;
        choice->job.is_streamed = reply->streams;
        choice->job.deadline_ns = pi2_exchange_deadline(reply->exchange);
        jobs[count++] = &choice->job;
    }
    const bool has_room = pi2_scheduler_submit(reply->exchange->server->scheduler, jobs, count);
    for (pi2_reply *choice = reply; choice; choice = choice->next) choice->is_submitted = has_room;
    return has_room;
}

enum MHD_Result pi2_reply_send(pi2_reply *reply) {
    pi2_exchange *exchange = reply->exchange;
    pi2_exchange_drop_body(exchange);
    if (reply->is_empty) {
        reply->job.state = PI2_JOB_DONE;
    } else if (!submit(reply)) {
        return pi2_exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "unavailable_error",
                                  "the queue is full: %zu requests wait; try again",
                                  exchange->server->settings->queue_most);
    }
    return reply->streams ? send_stream(reply) : send_whole(reply);
}

bool pi2_reply_parse_answer(pi2_reply *reply, pi2_answer_begin begin, const json_t *tools) {
    for (pi2_reply *choice = reply; choice; choice = choice->next) {
        choice->parser = pi2_answer_parser_create(begin, tools, take_part, choice);
        choice->takes_one_call = reply->takes_one_call;
        if (!choice->parser) return false;
    }
    return true;
}
