/* answer_parser.c: finds the marks; tool_calls.c reads what lies between them. */
#include "answer_parser.h"

#include <stdlib.h>
#include <string.h>

#include "answer_parser_internal.h"
#include "cli/answer_text.h"
#include "tool_call_texts.h"
#include "tool_calls.h"

/* Thoughts, which stand before everything else. */
static const struct thought_mark {
    const char *begin, *end;
} thought_marks[] = {
    {"<think>", "</think>"},               /* DeepSeek, Qwen, Nemotron and most others */
    {"<|channel>thought", "<channel|>"},   /* Gemma 4 */
    {"[THINK]", "[/THINK]"},               /* Mistral */
    {"<seed:think>", "</seed:think>"},     /* Seed-OSS */
};
enum { THOUGHT_MARKS = sizeof thought_marks / sizeof thought_marks[0] };

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
    {"<|tool_call|>", "<|/tool_call|>", false},          /* Phi 4; Granite 3, where nothing ends it */
    {"<seed:tool_call>", "</seed:tool_call>", false},    /* Seed-OSS */
    {"<minimax:tool_call>", "</minimax:tool_call>", false},
    {"<|function_call|>", "<|message_sep|>", false},     /* GigaChat 3.1 */
    {"<TOOLCALL>", "</TOOLCALL>", false},                /* Nemotron Nano 2 */
    {"<tool_calls>", "</tool_calls>", false},            /* Hunyuan */
    {"<function_calls>", "</function_calls>", false},    /* OLMo 3 */
    {"<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", false}, /* Kimi K2 */
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
    parser->thought = THOUGHT_MARKS;
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

const char *pi2_prompt_thought_end(const char *prompt, size_t length) {
    while (length && strchr(" \n\r\t", prompt[length - 1])) length--;
    for (size_t i = 0; i < THOUGHT_MARKS; i++) {
        if (ends_with(prompt, length, thought_marks[i].begin)) return thought_marks[i].end;
    }
    return NULL;
}

pi2_answer_begin pi2_prompt_begins(const char *prompt, size_t length) {
    if (pi2_prompt_thought_end(prompt, length)) return PI2_BEGINS_THOUGHT;
    while (length && strchr(" \n\r\t", prompt[length - 1])) length--;
    return ends_with(prompt, length, "<|start|>assistant") ? PI2_BEGINS_HEADER : PI2_BEGINS_CONTENT;
}

const char *pi2_thought_mark(size_t index) { return index < THOUGHT_MARKS ? thought_marks[index].begin : NULL; }

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

/** Whether the answer begins with a thought's mark, which is dropped then; *waits: it may yet. */
static bool begin_thought(pi2_answer_parser *parser, size_t space, bool *waits) {
    const pi2_cli_text *pending = &parser->pending;
    const size_t length = pending->length - space;
    for (size_t i = 0; i < THOUGHT_MARKS; i++) {
        const size_t wanted = strlen(thought_marks[i].begin);
        if (memcmp(pending->data + space, thought_marks[i].begin, length < wanted ? length : wanted) != 0) continue;
        if (length < wanted) {
            *waits = true;
            continue;
        }
        pi2_parser_drop(parser, space + wanted);
        parser->thought = i;
        parser->has_thought = true;
        parser->state = IN_THOUGHT;
        return true;
    }
    return false;
}

/** Content up to the next mark. *more: a mark was found, and what follows it is to be looked at. */
static bool read_content(pi2_answer_parser *parser, bool is_end, bool *more) {
    const pi2_cli_text *pending = &parser->pending;
    size_t first = pending->length, mark = CALL_MARKS, held = 0, space = 0;
    while (space < pending->length && is_space(pending->data[space])) space++;
    if (!parser->has_content && !parser->has_thought) {
        bool waits = false;
        if (begin_thought(parser, space, &waits)) return *more = true;
        if (!is_end && waits) return true;
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

/** A thought up to its end, without white space before that. Which one the prompt begun is not known. */
static bool read_thought(pi2_answer_parser *parser, bool is_end, bool *more) {
    const pi2_cli_text *pending = &parser->pending;
    size_t place = pending->length, held = 0, mark_length = 0;
    for (size_t i = 0; i < THOUGHT_MARKS; i++) {
        if (parser->thought != THOUGHT_MARKS && parser->thought != i) continue;
        const char *end = thought_marks[i].end;
        const size_t found = pi2_parser_find(pending->data, pending->length, 0, end);
        const size_t begun = pi2_parser_partial(pending->data, pending->length, end);
        if (found < place) {
            place = found;
            mark_length = strlen(end);
        }
        if (begun > held) held = begun;
    }
    const bool has_end = mark_length > 0;
    const size_t count = has_end || is_end ? place : place - held;
    size_t kept = count;
    while (kept && is_space(pending->data[kept - 1])) kept--;
    if (!pi2_parser_give(parser, PI2_PART_REASONING, kept)) return false;
    if (!has_end) return true;
    pi2_parser_drop(parser, count - kept + mark_length);
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

/** Where the last mark that begins another call stands before `place`; place: nowhere. */
static size_t last_call(const pi2_answer_parser *parser, size_t place) {
    const bool is_own = parser->call < CALL_MARKS && call_marks[parser->call].keeps_begin; /* at the beginning */
    size_t last = place;
    for (size_t i = 0; i < CALL_MARKS; i++) {
        size_t found = pi2_parser_find(parser->pending.data, place, is_own, call_marks[i].begin);
        for (; found < place; found = pi2_parser_find(parser->pending.data, place, found + 1, call_marks[i].begin)) {
            if (last == place || found > last) last = found;
        }
    }
    return last;
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
    if (!pi2_tool_calls_read(pending->data, place, has_end, parser->tools, parser->taker, parser->user, &is_taken)) {
        if (has_end && parser->ends < MOST_ENDS && pi2_call_ends_within_text((pi2_text_rest){pending->data, place})) {
            parser->scanned = place + strlen(end);
            parser->ends++;
            return *more = true;
        }
        if (parser->ends) place = pi2_parser_find(pending->data, pending->length, 0, end); /* the first ended it */
        has_end = place < pending->length;
        const size_t last = last_call(parser, place);
        if (last < place) { /* the mark was a word of a text, and a call may follow */
            if (!give_back(parser, last, "")) return false;
            pi2_parser_drop(parser, last);
            parser->state = IN_CONTENT;
            return *more = true;
        }
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
