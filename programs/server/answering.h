/*
 * answering.h: an answer that is generated, from a request to the last byte of its reply.
 *
 * A dialect is the form in which one route writes answers, whole or as they grow. All of them are fed by the same loop:
 * the thread of the connection takes what text there is, parts it (answer_parser.h) and has the dialect write it. A
 * client that reads slowly gets larger pieces; the thread that computes waits for nobody.
 */
#ifndef PI2_SERVER_ANSWERING_H
#define PI2_SERVER_ANSWERING_H

#include "answer_parser.h"
#include "exchange.h"
#include "cli/request_fields.h"

enum { PI2_REPLY_MOST_CHOICES = 128 };

typedef struct pi2_dialect {
    const char *stream_type; /* "text/event-stream" */
    const char *ping;        /* what is sent while nothing comes; NULL: nothing */
    /** Write into reply->out; false: no memory. begin and end may be NULL. */
    bool (*begin)(pi2_reply *reply);
    bool (*part)(pi2_reply *reply, const pi2_answer_part *part);
    bool (*end)(pi2_reply *reply);
    bool (*fail)(pi2_reply *reply, const char *text);
    /** How far the prompt is, {total, cache, processed, time_ms}, which is taken over; NULL: it is not told. */
    bool (*progress)(pi2_reply *reply, json_t *progress);
    /** The whole answer, of content, reasoning and tool_calls; NULL: no memory. */
    json_t *(*whole)(pi2_reply *reply);
    bool has_choices; /* a request may ask for several answers ("n"): begin, part and end are called for each */
    bool has_prompts; /* and to several prompts: the answers to the first come first */
} pi2_dialect;

extern const pi2_dialect pi2_dialect_chat, pi2_dialect_completion, pi2_dialect_llama, pi2_dialect_messages,
    pi2_dialect_ollama_chat, pi2_dialect_ollama_generate, pi2_dialect_responses;

struct pi2_reply {
    pi2_exchange *exchange;
    const pi2_dialect *dialect;
    pi2_job job;
    int32_t *prompt; /* the job's, and those of further choices up to the next one that has a prompt of its own */
    /* Several answers to one request are replies in a list, of which the exchange has the first; what is sent goes out
     * through that one. */
    pi2_reply *first, *next; /* first NULL: itself */
    uint32_t index;          /* in the list */
    uint32_t answers_per_prompt; /* of the first one */
    bool is_submitted, streams, has_begun, has_ended;
    bool includes_usage, tells_progress;
    bool is_empty; /* nothing is asked: the answer has no text, and nothing is computed */
    uint64_t begin_ns, last_ns; /* when it came; when something was sent last */
    uint64_t progress_told;     /* of the job's */
    char id[64];
    int64_t created;
    pi2_grammar *grammar;       /* of the job's sampling; answer_form.h */
    const char *thought_end;    /* static: what ends the thought that the prompt has begun; NULL: it has begun none */
    pi2_cli_text tool_grammar;  /* of calls that are demanded, whose rule is "pi2-calls"; empty: none are */
    bool takes_one_call;        /* others are left out */
    pi2_answer_parser *parser;
    pi2_cli_text out;            /* of a stream, what is to be sent */
    size_t out_sent;
    pi2_cli_text content, reasoning; /* of a whole answer */
    size_t tool_count;
    json_t *tool_calls;          /* array of {id, name, arguments: text} */
    int open_block;              /* Anthropic's stream: kind of the block that is open, or -1 */
    size_t block_count;
    json_t *items;               /* of a stream of /v1/responses: those that are whole */
    size_t event_count;          /* the same: events that were written */
    char item_id[64];            /* the same: of the item that is open */
};

/** A new reply, which the exchange owns; NULL: no memory. */
pi2_reply *pi2_reply_create(pi2_exchange *exchange, const pi2_dialect *dialect);
void pi2_reply_free(pi2_reply *reply); /* NULL is fine; ends its job */
/** Adds choices up to `count`, before the request is read into the first. False: no memory. */
bool pi2_reply_add_choices(pi2_reply *reply, uint32_t count);
/** Gives what was read into the first one's job to the others', each with a seed of its own. */
void pi2_reply_share_job(pi2_reply *reply);
/** The request is read: queues the jobs and sends the answer, whole or as it grows. */
enum MHD_Result pi2_reply_send(pi2_reply *reply);
/** Sends what is wrong with the request. */
enum MHD_Result pi2_reply_refuse(pi2_exchange *exchange, const pi2_request_fault *fault);

/** Whether the prompt leaves room for an answer; its tokens become the job's. */
bool pi2_reply_take_prompt(pi2_reply *reply, int32_t *tokens, size_t count, pi2_request_fault *fault);
/** Whether the chances of a whole answer have room: a stream tells them as they come. The job is read. */
bool pi2_reply_bound_chances(const pi2_reply *reply, pi2_request_fault *fault);
/** Adds a value to a stream as "data: ..." and frees it. name: of the event; NULL: none. False: no memory. */
bool pi2_reply_event(pi2_reply *reply, const char *name, json_t *value);
bool pi2_reply_line(pi2_reply *reply, json_t *value); /* NDJSON */

/** Has thinking and calls of `tools` (NULL: none) parted from the answer. False: no memory. */
bool pi2_reply_parse_answer(pi2_reply *reply, pi2_answer_begin begin, const json_t *tools);

/** Shared by dialects. */
const char *pi2_reply_model(const pi2_reply *reply);
pi2_reply *pi2_reply_first(const pi2_reply *reply);
/** Whether no choice of the request is still to be written. */
bool pi2_reply_all_ended(const pi2_reply *reply);
json_t *pi2_reply_timings(const pi2_reply *reply);
/** Of all choices together. */
json_t *pi2_reply_usage(const pi2_reply *reply);
/** Of the prompt, {total, cache, processed, time_ms}. The job's mutex is held. */
json_t *pi2_reply_progress(const pi2_reply *reply);
/** Type and status of the error by which the job ended. */
const char *pi2_reply_error_type(const pi2_reply *reply, unsigned *http_status_out);
size_t pi2_reply_answer_tokens(const pi2_reply *reply);
json_t *pi2_token_text_json(const pi2_reply *reply, int32_t token, json_t **bytes_out);

#endif
