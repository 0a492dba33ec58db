/* harmony_answer.c: see answer_parser_internal.h. */
#include <string.h>

#include "answer_parser_internal.h"
#include "tool_calls.h"

static const char channel_mark[] = "<|channel|>", message_mark[] = "<|message|>", recipient_mark[] = "to=";
static const char *const end_marks[] = {"<|end|>", "<|call|>", "<|return|>", "<|start|>"};
enum { END_MARKS = sizeof end_marks / sizeof end_marks[0] };

/** What a header names behind a mark, up to white space or another mark; its bytes, 0: nothing. */
static size_t named(const char *header, size_t length, const char *mark, const char **name_out) {
    const size_t place = pi2_parser_find(header, length, 0, mark);
    if (place == length) return 0;
    const size_t begin = place + strlen(mark);
    size_t count = 0;
    while (begin + count < length && !strchr(" <\n\t", header[begin + count])) count++;
    *name_out = header + begin;
    return count;
}

static bool is_word(const char *text, size_t length, const char *word) {
    return length == strlen(word) && memcmp(text, word, length) == 0;
}

/** Where a header begins: behind what was begun and ended without a message. */
static size_t header_begin(const char *text, size_t length) {
    static const char start_mark[] = "<|start|>";
    size_t begin = 0;
    for (size_t i = pi2_parser_find(text, length, 0, start_mark); i < length;
         i = pi2_parser_find(text, length, begin, start_mark)) begin = i + strlen(start_mark);
    return begin;
}

/** Takes the tool that a header's message is for: a function, or one of those that were offered. */
static bool take_recipient(pi2_answer_parser *parser, const char *header, size_t length) {
    static const char prefix[] = "functions.";
    const char *name = "";
    size_t name_length = named(header, length, recipient_mark, &name);
    const bool is_function = name_length > strlen(prefix) && memcmp(name, prefix, strlen(prefix)) == 0;
    if (is_function) {
        name += strlen(prefix);
        name_length -= strlen(prefix);
    }
    if (!parser->tools || name_length == 0 || name_length >= sizeof parser->recipient) return false;
    memcpy(parser->recipient, name, name_length);
    parser->recipient[name_length] = '\0';
    return is_function || json_object_get(parser->tools, parser->recipient);
}

/** What the message behind a header is. */
static void read_header(pi2_answer_parser *parser, size_t length) {
    const size_t begin = header_begin(parser->pending.data, length);
    const char *header = parser->pending.data + begin, *channel = "";
    const size_t channel_length = named(header, length - begin, channel_mark, &channel);
    const bool is_call = take_recipient(parser, header, length - begin);
    parser->kind = is_call ? PI2_PART_TOOL : is_word(channel, channel_length, "analysis") ? PI2_PART_REASONING
                                                                                          : PI2_PART_CONTENT;
    parser->has_thought = true; /* white space around messages is none of their texts */
    parser->has_reasoning = parser->has_content = false;
    parser->state = IN_MESSAGE;
    parser->scanned = 0;
}

/** Whether the text may be a header, as far as it has come: others are answers that have none. */
static bool may_be_header(const char *text, size_t length) {
    static const char *const begins[] = {"<|", " to=", "to=", "assistant"};
    for (size_t i = 0; i < sizeof begins / sizeof begins[0]; i++) {
        const size_t count = strlen(begins[i]);
        if (memcmp(text, begins[i], length < count ? length : count) == 0) return true;
    }
    return false;
}

static bool read_begin(pi2_answer_parser *parser, bool is_end, bool *more) {
    const pi2_cli_text *pending = &parser->pending;
    const size_t place = pi2_parser_find(pending->data, pending->length, 0, message_mark);
    if (pending->length && !may_be_header(pending->data, pending->length)) { /* whatever mark comes after it */
        parser->kind = PI2_PART_CONTENT;
        parser->state = IN_MESSAGE;
        *more = true;
    } else if (place < pending->length) {
        read_header(parser, place);
        pi2_parser_drop(parser, place + strlen(message_mark));
        *more = true;
    } else if (is_end) { /* one that was cut off; the mark behind the last message says nothing */
        const bool is_mark = pi2_parser_find(pending->data, pending->length, 0, channel_mark) == pending->length;
        if (is_mark) pi2_parser_drop(parser, pending->length);
        else return pi2_parser_give(parser, PI2_PART_CONTENT, pending->length);
    }
    return true;
}

/** A call's arguments; what is no JSON object comes out as content, with its header. */
static bool give_call(pi2_answer_parser *parser, size_t length) {
    pi2_answer_part part = {PI2_PART_TOOL, parser->pending.data, length, parser->recipient};
    if (pi2_tool_arguments_are_good(parser->pending.data, length)) {
        if (!parser->taker(parser->user, &part)) return false;
        pi2_parser_drop(parser, length);
        return true;
    }
    const char *const before[] = {channel_mark, "commentary to=functions.", parser->recipient, message_mark};
    for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
        part = (pi2_answer_part){PI2_PART_CONTENT, before[i], strlen(before[i]), NULL};
        if (!parser->taker(parser->user, &part)) return false;
    }
    parser->has_content = true;
    return pi2_parser_give(parser, PI2_PART_CONTENT, length);
}

/** A message's text, up to what ends it. */
static bool read_message(pi2_answer_parser *parser, bool is_end, bool *more) {
    const pi2_cli_text *pending = &parser->pending;
    size_t place = pending->length, held = 0, mark = END_MARKS;
    for (size_t i = 0; i < END_MARKS; i++) {
        const size_t found = pi2_parser_find(pending->data, pending->length, parser->scanned, end_marks[i]);
        const size_t begun = pi2_parser_partial(pending->data, pending->length, end_marks[i]);
        if (found < place) {
            place = found;
            mark = i;
        }
        if (begun > held) held = begun;
    }
    if (mark == END_MARKS && !is_end) {
        if (parser->kind == PI2_PART_TOOL) { /* it comes when it is complete */
            parser->scanned = pending->length - held;
            return true;
        }
        return pi2_parser_give(parser, parser->kind, pending->length - held);
    }
    const bool is_taken = parser->kind == PI2_PART_TOOL ? give_call(parser, place)
                                                        : pi2_parser_give(parser, parser->kind, place);
    if (!is_taken) return false;
    parser->state = IN_HEADER;
    parser->scanned = 0;
    if (mark < END_MARKS) pi2_parser_drop(parser, strlen(end_marks[mark]));
    *more = mark < END_MARKS;
    return true;
}

bool pi2_parser_read_harmony(pi2_answer_parser *parser, bool is_end, bool *more) {
    return parser->state == IN_HEADER ? read_begin(parser, is_end, more) : read_message(parser, is_end, more);
}
