/*
 * answer_parser.h: an answer's text as its parts: thinking, content, calls of tools.
 *
 * Text comes in pieces of any size and leaves as soon as it is certain what it is: only what may yet become a mark is
 * held back. Marks are those that families of models were trained to write; calls are looked for only where tools were
 * offered. What looks like a call and is none comes out as content: nothing is lost.
 */
#ifndef PI2_SERVER_ANSWER_PARSER_H
#define PI2_SERVER_ANSWER_PARSER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct pi2_answer_parser pi2_answer_parser;

typedef enum pi2_part_kind { PI2_PART_CONTENT, PI2_PART_REASONING, PI2_PART_TOOL } pi2_part_kind;

typedef struct pi2_answer_part {
    pi2_part_kind kind;
    const char *text; /* UTF-8, not NUL-terminated; of a tool its arguments, a JSON object */
    size_t length;
    const char *name; /* of the tool */
} pi2_answer_part;

/** Takes a part; false ends the parsing. */
typedef bool pi2_part_taker(void *user, const pi2_answer_part *part);

/** How an answer begins, as its prompt ends: within a thought, or with the header of a message (gpt-oss). */
typedef enum pi2_answer_begin { PI2_BEGINS_CONTENT, PI2_BEGINS_THOUGHT, PI2_BEGINS_HEADER } pi2_answer_begin;
pi2_answer_begin pi2_prompt_begins(const char *prompt, size_t length);
/** What ends the thought that a prompt has begun; NULL: none. ASCII, and its first character stands only there. */
const char *pi2_prompt_thought_end(const char *prompt, size_t length);
/** What begins thoughts, one after the other from 0; NULL: there are no more. */
const char *pi2_thought_mark(size_t index);

/**
 * tools: those that were offered, in OpenAI's form, by whose schemas
 * arguments that are no JSON get their types, of which alone a copy is kept; NULL: none. NULL: no memory.
 */
pi2_answer_parser *pi2_answer_parser_create(pi2_answer_begin begin, const json_t *tools, pi2_part_taker *taker,
                                            void *user);
void pi2_answer_parser_free(pi2_answer_parser *parser);
/** False: the taker said so, or there is no memory. */
bool pi2_answer_parser_add(pi2_answer_parser *parser, const char *text, size_t length);
/** The answer has ended. */
bool pi2_answer_parser_finish(pi2_answer_parser *parser);

#endif
