/* answer_parser_internal.h: what a parser of answers is made of; for answer_parser.c and harmony_answer.c. */
#ifndef PI2_SERVER_ANSWER_PARSER_INTERNAL_H
#define PI2_SERVER_ANSWER_PARSER_INTERNAL_H

#include "answer_parser.h"
#include "cli/answer_text.h"

typedef enum parser_state { IN_CONTENT, IN_THOUGHT, IN_CALL, IN_HEADER, IN_MESSAGE } parser_state;

struct pi2_answer_parser {
    pi2_part_taker *taker;
    void *user;
    json_t *tools; /* {tool: {parameter: true}}, as pi2_tool_types makes it */
    parser_state state;
    size_t thought;   /* of thought_marks, or behind the last: any, as the prompt began it */
    size_t call;      /* of call_marks, or BARE_JSON */
    size_t scanned;   /* bytes of pending that hold no end of the call */
    unsigned ends;    /* marks among them that stand within a text of the call, and end nothing */
    bool has_thought; /* a thought stands before everything else, once */
    bool has_content, has_reasoning; /* something other than white space came out since the last mark */
    pi2_part_kind kind;  /* IN_MESSAGE: what its text is */
    char recipient[128]; /* IN_MESSAGE, of a call: the tool's name */
    pi2_cli_text pending;
};

/* Text that is looked for. */
size_t pi2_parser_find(const char *text, size_t length, size_t from, const char *mark); /* length: it is not there */
/** Bytes at the end of the text that may begin the mark. */
size_t pi2_parser_partial(const char *text, size_t length, const char *mark);
/** The first bytes were read. */
void pi2_parser_drop(pi2_answer_parser *parser, size_t count);
/** Gives out the first bytes as content or reasoning, less white space before the first of them. */
bool pi2_parser_give(pi2_answer_parser *parser, pi2_part_kind kind, size_t count);

/**
 * harmony_answer.c: gpt-oss' messages: <|channel|>name to=functions.tool <|constrain|>json<|message|>text<|end|>,
 * behind <|start|>assistant, of which the prompt has the first. analysis is reasoning, what has a recipient is a call,
 * all else is content. States IN_HEADER and IN_MESSAGE. *more: there is more to read.
 */
bool pi2_parser_read_harmony(pi2_answer_parser *parser, bool is_end, bool *more);

#endif
