/* answer_parser.c: finds the marks; tool_calls.c reads what lies between them. */
#include "answer_parser.h"

#include <stdlib.h>
#include <string.h>

#include "answer_parser_internal.h"
#include "cli/answer_text.h"
#include "tool_call_texts.h"
#include "tool_calls.h"

static const char think_begin[] = "<think>", think_end[] = "</think>";

/* What begins a call, and what ends it; NULL: the end of the answer. */
static const struct call_mark {
    const char *begin, *end;
    bool keeps_begin; /* it is a part of what is read */
} call_marks[] = {
    {"<tool_call>", "</tool_call>", false},   /* Hermes, Qwen: JSON, or what the next line has */
    {"<function=", "</function>", true},      /* Qwen3-Coder */
    {"[TOOL_CALLS]", NULL, false},            /* Mistral */
    {"<|python_tag|>", NULL, false},          /* Llama 3.1 */
    {"<|tool_call>", "<tool_call|>", false},  /* Gemma 4 */
    {"<|tool_call_start|>", "<|tool_call_end|>", false}, /* LFM2 */
    {"<\xef\xbd\x9ctool\xe2\x96\x81" "calls\xe2\x96\x81" "begin\xef\xbd\x9c>",
     "<\xef\xbd\x9ctool\xe2\x96\x81" "calls\xe2\x96\x81" "end\xef\xbd\x9c>", false}, /* DeepSeek */
};
enum { CALL_MARKS = sizeof call_marks / sizeof call_marks[0], BARE_JSON = CALL_MARKS, MOST_ENDS = 64 };

pi2_answer_parser *pi2_answer_parser_create(pi2_answer_begin begin, const json_t *tools, pi2_part_taker *taker,
                                            void *user) {
    pi2_answer_parser *parser = calloc(1, sizeof *parser);
    if (!parser) return NULL;
    parser->taker = taker;
    parser->user = user;
    parser->tools = tools ? pi2_tool_types(tools) : NULL;
    parser->state = begin == PI2_BEGINS_THOUGHT ? IN_THOUGHT : begin == PI2_BEGINS_HEADER ? IN_HEADER : IN_CONTENT;
    parser->has_thought = begin == PI2_BEGINS_THOUGHT;
    if ((tools && !parser->tools) || !pi2_cli_text_add(&parser->pending, "", 0)) {
        pi2_answer_parser_free(parser);
        return NULL;
    }
    return parser;
}

void pi2_answer_parser_free(pi2_answer_parser *parser) {
    if (!parser) return;
    json_decref(parser->tools);
    free(parser->pending.data);
    free(parser);
}

static bool ends_with(const char *text, size_t length, const char *mark) {
    return length >= strlen(mark) && memcmp(text + length - strlen(mark), mark, strlen(mark)) == 0;
}

pi2_answer_begin pi2_prompt_begins(const char *prompt, size_t length) {
    while (length && strchr(" \n\r\t", prompt[length - 1])) length--;
    if (ends_with(prompt, length, "<|start|>assistant")) return PI2_BEGINS_HEADER;
    return ends_with(prompt, length, think_begin) ? PI2_BEGINS_THOUGHT : PI2_BEGINS_CONTENT;
}

static bool is_space(char byte) { return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t'; }

size_t pi2_parser_find(const char *text, size_t length, size_t from, const char *mark) {
    const size_t mark_length = strlen(mark);
    for (size_t i = from; i + mark_length <= length; i++) {
        if (memcmp(text + i, mark, mark_length) == 0) return i;
    }
    return length;
}

size_t pi2_parser_partial(const char *text, size_t length, const char *mark) {
    size_t count = strlen(mark) - 1;
    if (count > length) count = length;
    while (count && memcmp(text + length - count, mark, count) != 0) count--;
    return count;
}

void pi2_parser_drop(pi2_answer_parser *parser, size_t count) {
    pi2_cli_text *pending = &parser->pending;
    memmove(pending->data, pending->data + count, pending->length - count);
    pending->length -= count;
}

bool pi2_parser_give(pi2_answer_parser *parser, pi2_part_kind kind, size_t count) {
    bool *has_some = kind == PI2_PART_REASONING ? &parser->has_reasoning : &parser->has_content;
    size_t begin = 0;
    if (kind == PI2_PART_REASONING || parser->has_thought) {
        while (!*has_some && begin < count && is_space(parser->pending.data[begin])) begin++;
    }
    const pi2_answer_part part = {kind, parser->pending.data + begin, count - begin, NULL};
    for (size_t i = begin; i < count && !*has_some; i++) *has_some = !is_space(parser->pending.data[i]);
    const bool is_taken = count == begin || parser->taker(parser->user, &part);
    pi2_parser_drop(parser, count);
    return is_taken;
}

static void begin_call(pi2_answer_parser *parser, size_t call) {
    parser->state = IN_CALL;
    parser->call = call;
    parser->scanned = 0;
    parser->ends = 0;
}

/** Content up to the next mark. *more: a mark was found, and what follows it is to be looked at. */
static bool read_content(pi2_answer_parser *parser, bool is_end, bool *more) {
    const pi2_cli_text *pending = &parser->pending;
    size_t first = pending->length, mark = CALL_MARKS, held = 0, space = 0;
    while (space < pending->length && is_space(pending->data[space])) space++;
    if (!parser->has_content && !parser->has_thought) {
        const size_t length = pending->length - space, wanted = strlen(think_begin);
        if (length >= wanted && memcmp(pending->data + space, think_begin, wanted) == 0) {
            pi2_parser_drop(parser, space + wanted);
            parser->has_thought = *more = true;
            parser->state = IN_THOUGHT;
            return true;
        }
        if (!is_end && length < wanted && memcmp(pending->data + space, think_begin, length) == 0) return true;
    }
    for (size_t i = 0; parser->tools && i < CALL_MARKS; i++) {
        const size_t place = pi2_parser_find(pending->data, pending->length, 0, call_marks[i].begin);
        if (place < first) {
            first = place;
            mark = i;
        }
        const size_t begun = pi2_parser_partial(pending->data, pending->length, call_marks[i].begin);
        if (begun > held) held = begun;
    }
    if (parser->tools && !parser->has_content) {
        if (space < pending->length && pending->data[space] == '{' && first > space) {
            begin_call(parser, BARE_JSON);
            *more = true;
            return true;
        }
        const bool is_certain = mark < CALL_MARKS || is_end;
        if (space >= (is_certain ? first : first - held)) { /* nothing but space before a call is no content */
            if (!is_certain) return true;
            pi2_parser_drop(parser, first);
            first = 0;
        }
    }
    if (mark == CALL_MARKS) return pi2_parser_give(parser, PI2_PART_CONTENT, is_end ? first : first - held);
    if (!pi2_parser_give(parser, PI2_PART_CONTENT, first)) return false;
    if (!call_marks[mark].keeps_begin) pi2_parser_drop(parser, strlen(call_marks[mark].begin));
    begin_call(parser, mark);
    *more = true;
    return true;
}

/** A thought up to its end, without white space before that. */
static bool read_thought(pi2_answer_parser *parser, bool is_end, bool *more) {
    const pi2_cli_text *pending = &parser->pending;
    const size_t place = pi2_parser_find(pending->data, pending->length, 0, think_end);
    const bool has_end = place < pending->length;
    size_t count = place;
    if (!has_end && !is_end) count -= pi2_parser_partial(pending->data, pending->length, think_end);
    size_t kept = count;
    while (kept && is_space(pending->data[kept - 1])) kept--;
    if (!pi2_parser_give(parser, PI2_PART_REASONING, kept)) return false;
    if (!has_end) return true;
    pi2_parser_drop(parser, count - kept + strlen(think_end));
    parser->state = IN_CONTENT;
    parser->has_content = false;
    *more = true;
    return true;
}

/** What was taken for a call is none: it is content, with its marks. */
static bool give_back(pi2_answer_parser *parser, size_t length, const char *end) {
    const struct call_mark *mark = parser->call < CALL_MARKS ? &call_marks[parser->call] : NULL;
    pi2_answer_part part = {PI2_PART_CONTENT, mark && !mark->keeps_begin ? mark->begin : "", 0, NULL};
    part.length = strlen(part.text);
    if (part.length && !parser->taker(parser->user, &part)) return false;
    part = (pi2_answer_part){PI2_PART_CONTENT, parser->pending.data, length, NULL};
    if (length && !parser->taker(parser->user, &part)) return false;
    part = (pi2_answer_part){PI2_PART_CONTENT, end, strlen(end), NULL};
    parser->has_content = true;
    return !*end || parser->taker(parser->user, &part);
}

static bool read_call(pi2_answer_parser *parser, bool is_end, bool *more) {
    const pi2_cli_text *pending = &parser->pending;
    const char *end = parser->call < CALL_MARKS ? call_marks[parser->call].end : NULL;
    size_t place = end ? pi2_parser_find(pending->data, pending->length, parser->scanned, end) : pending->length;
    bool has_end = place < pending->length, is_taken = true;
    if (!has_end && !is_end) {
        const size_t scanned = end && pending->length > strlen(end) ? pending->length - strlen(end) : 0;
        if (scanned > parser->scanned) parser->scanned = scanned;
        return true;
    }
    if (!pi2_tool_calls_read(pending->data, place, parser->tools, parser->taker, parser->user, &is_taken)) {
        if (has_end && parser->ends < MOST_ENDS && pi2_call_ends_within_text((pi2_text_rest){pending->data, place})) {
            parser->scanned = place + strlen(end);
            parser->ends++;
            return *more = true;
        }
        if (parser->ends) place = pi2_parser_find(pending->data, pending->length, 0, end); /* the first ended it */
        has_end = place < pending->length;
        is_taken = give_back(parser, place, has_end ? end : "");
    }
    pi2_parser_drop(parser, has_end ? place + strlen(end) : place);
    parser->state = IN_CONTENT;
    *more = has_end;
    return is_taken;
}

static bool read_on(pi2_answer_parser *parser, bool is_end) {
    for (bool more = true; more;) {
        more = false;
        bool is_taken;
        switch (parser->state) {
        case IN_THOUGHT: is_taken = read_thought(parser, is_end, &more); break;
        case IN_CALL: is_taken = read_call(parser, is_end, &more); break;
        case IN_HEADER:
        case IN_MESSAGE: is_taken = pi2_parser_read_harmony(parser, is_end, &more); break;
        case IN_CONTENT:
        default: is_taken = read_content(parser, is_end, &more); break;
        }
        if (!is_taken) return false;
    }
    return true;
}

bool pi2_answer_parser_add(pi2_answer_parser *parser, const char *text, size_t length) {
    return pi2_cli_text_add(&parser->pending, text, length) && read_on(parser, false);
}

bool pi2_answer_parser_finish(pi2_answer_parser *parser) { return read_on(parser, true); }
