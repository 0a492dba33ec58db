/* fuzz_server_request.c: any bytes as the body of a request, as each API reads it; and as a model's answer. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/answer_parser.h"
#include "server/conversation.h"
#include "cli/json_bounds.h"
#include "cli/request_fields.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef bool reader(const json_t *body, pi2_conversation_json *out, pi2_request_fault *fault);

static void require(bool is_true) {
    if (!is_true) abort();
}

/* A request is read, or refused with a line. */
static void read_body(const json_t *body) {
    static reader *const readers[] = {pi2_conversation_from_openai, pi2_conversation_from_anthropic,
                                      pi2_conversation_from_ollama};
    for (size_t i = 0; i < 3; i++) {
        pi2_conversation_json out = {.json_room = 1 << 20};
        pi2_request_fault fault = {0};
        const bool is_read = readers[i](body, &out, &fault);
        require(is_read == (fault.status == 0) && is_read == (fault.text[0] == '\0'));
        require(!is_read || json_array_size(out.messages) > 0);
        pi2_conversation_json_free(&out);
    }
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    pi2_job job = {0};
    pi2_request_fault fault = {0};
    pi2_job_init(&job, &sampling);
    const bool is_read = pi2_fields_unsupported(body, &fault) && pi2_fields_sampling(body, &job, &fault);
    require(is_read == (fault.status == 0));
    pi2_job_free(&job);
}

static bool take(void *user, const pi2_answer_part *part) {
    size_t *length = user;
    *length += part->length;
    require(part->kind != PI2_PART_TOOL || part->name);
    return true;
}

/* All at once and in single bytes gives as much. */
static size_t parse_answer(const char *text, size_t length, size_t piece, json_t *tools) {
    size_t taken = 0;
    pi2_answer_parser *parser = pi2_answer_parser_create((pi2_answer_begin)(length % 3), tools, take, &taken);
    require(parser != NULL);
    for (size_t i = 0; i < length; i += piece) {
        require(pi2_answer_parser_add(parser, text + i, length - i < piece ? length - i : piece));
    }
    require(pi2_answer_parser_finish(parser));
    pi2_answer_parser_free(parser);
    return taken;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data;
    const pi2_json_bounds bounds = pi2_json_measure(text, size);
    if (bounds.depth <= PI2_JSON_DEPTH && bounds.memory < 64u << 20) {
        json_t *body = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
        if (json_is_object(body)) read_body(body);
        json_decref(body);
    }
    if (size > 4096) return 0; /* single bytes of more take long and show no more */
    json_t *tools = json_array();
    require(parse_answer(text, size, size + 1, NULL) == parse_answer(text, size, 1, NULL));
    require(parse_answer(text, size, size + 1, tools) == parse_answer(text, size, 1, tools));
    json_decref(tools);
    return 0;
}
