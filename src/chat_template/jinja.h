/* jinja.h: what the parts of the chat-template interpreter share; private to this folder.
 *
 * Source text -> tokens (jinja_lexer.c) -> nodes (jinja_parser.c, jinja_expressions.c) -> a run
 * (jinja_run.c, jinja_evaluate.c) that writes text whose every byte knows whether it came from a
 * message. The meaning is that of jinja2 as transformers sets it up: trim_blocks, lstrip_blocks,
 * loop controls, its own tojson. What jinja2 would do differently is refused, not approximated.
 *
 * A template is untrusted: it reaches nothing but the values of one run, and time, memory, depth
 * and output are bounded. All memory of a parse or a run comes from one arena and goes with it. */
#ifndef PI2_CHAT_TEMPLATE_JINJA_H
#define PI2_CHAT_TEMPLATE_JINJA_H

#include "base/fail.h"
#include "chat_template/chat_template.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PI2_JINJA_SOURCE_BYTES = 1 << 20,    /* of a template */
    PI2_JINJA_STRING_BYTES = 16 << 20,   /* of one string, the output included */
    PI2_JINJA_MEMORY_BYTES = 128 << 20,  /* of one parse or one run */
    PI2_JINJA_WORK = 5000000,            /* steps: a node run, an item visited, 64 bytes moved */
    PI2_JINJA_PARSE_DEPTH = 100,         /* nested statements and brackets */
    PI2_JINJA_RUN_DEPTH = 200,          /* nested evaluations, macro calls included */
    PI2_JINJA_RANGE_ITEMS = 100000       /* of range(), as jinja2's sandbox has it */
};

/* ---- memory (jinja_arena.c) ---- */

typedef struct pi2_jinja_chunk pi2_jinja_chunk;

typedef struct pi2_jinja_arena {
    pi2_jinja_chunk *chunks;
    size_t bytes;  /* given out */
    size_t most_bytes; /* the caller's limit; 0: PI2_JINJA_MEMORY_BYTES */
    uint64_t work; /* done so far; see pi2_jinja_charge() */
} pi2_jinja_arena;

/** 16-byte aligned, zeroed; NULL past the limit or when the machine has none. */
void *pi2_jinja_alloc(pi2_jinja_arena *arena, size_t count, size_t size);
void pi2_jinja_arena_free(pi2_jinja_arena *arena);
/** The error after a NULL: FORMAT when the template passed its limit, else MEMORY. */
pi2_status pi2_jinja_no_memory(const pi2_jinja_arena *arena);
/** Counts work that grows with `items` or bytes / 64; every node checks the sum. */
void pi2_jinja_charge(pi2_jinja_arena *arena, size_t items);

/* ---- values ---- */

/** Bytes with their origin. marks: per byte, 1 where trusted; NULL: all are as `trusted` says. */
typedef struct pi2_jinja_string {
    const char *bytes;
    const unsigned char *marks;
    size_t length;
    bool trusted;
    bool markup; /* after `safe` or `escape`: what is added to it is escaped for HTML, as jinja2's Markup does */
} pi2_jinja_string;

typedef enum pi2_jinja_type {
    PI2_JINJA_UNDEFINED,
    PI2_JINJA_NONE,
    PI2_JINJA_BOOLEAN,
    PI2_JINJA_INTEGER,
    PI2_JINJA_FLOAT,
    PI2_JINJA_STRING,
    PI2_JINJA_LIST,      /* lists, tuples and what else is visited like them */
    PI2_JINJA_DICT,
    PI2_JINJA_NAMESPACE, /* a dict that {% set ns.name = ... %} may change */
    PI2_JINJA_LOOP,
    PI2_JINJA_MACRO,
    PI2_JINJA_FUNCTION,
    PI2_JINJA_METHOD
} pi2_jinja_type;

typedef struct pi2_jinja_value pi2_jinja_value;
typedef struct pi2_jinja_node pi2_jinja_node;
typedef struct pi2_jinja_run pi2_jinja_run;
typedef struct pi2_jinja_call pi2_jinja_call;
typedef struct pi2_jinja_frame pi2_jinja_frame;
typedef struct pi2_jinja_loop pi2_jinja_loop;

/** What of Python's a list stands for: they differ in what else can be done with them than visiting. */
typedef enum pi2_jinja_list_kind {
    PI2_JINJA_PLAIN_LIST,
    PI2_JINJA_TUPLE,
    PI2_JINJA_GENERATOR, /* map, select and so on: visited once, has no length, no items by number and no text */
    PI2_JINJA_REVERSED,  /* the same, of reverse */
    PI2_JINJA_RANGE,
    PI2_JINJA_DICT_ITEMS,
    PI2_JINJA_DICT_KEYS,
    PI2_JINJA_DICT_VALUES
} pi2_jinja_list_kind;

typedef struct pi2_jinja_list {
    pi2_jinja_value *items;
    size_t count, capacity;
    pi2_jinja_list_kind kind;
} pi2_jinja_list;

typedef struct pi2_jinja_entry pi2_jinja_entry;
typedef struct pi2_jinja_dict {
    pi2_jinja_entry *entries; /* in the order of insertion */
    size_t count, capacity;
} pi2_jinja_dict;

typedef struct pi2_jinja_macro {
    const pi2_jinja_node *node;
    pi2_jinja_frame *frame; /* where it was defined: macros see those names, not the caller's */
} pi2_jinja_macro;

/** A filter, a method or a global function. */
typedef pi2_status pi2_jinja_callable(pi2_jinja_call *call, pi2_jinja_value *out);
typedef struct pi2_jinja_builtin {
    const char *name;
    pi2_jinja_callable *run;
} pi2_jinja_builtin;

/** Why a value is undefined: what jinja2 says when it is used all the same. */
typedef enum pi2_jinja_absence {
    PI2_JINJA_NO_VARIABLE,  /* bytes: its name */
    PI2_JINJA_NO_ATTRIBUTE, /* bytes: its name, of an `owner` */
    PI2_JINJA_NO_ELEMENT,   /* element `number` of an `owner` */
    PI2_JINJA_UNSAFE,       /* as NO_ATTRIBUTE: the sandbox keeps it back */
    PI2_JINJA_NOT_GIVEN,    /* bytes: the name of a macro's parameter */
    PI2_JINJA_HINT          /* bytes: the sentence itself */
} pi2_jinja_absence;
typedef struct pi2_jinja_missing {
    const char *bytes;
    const char *owner; /* Python's name of its type */
    int64_t number;    /* the length of bytes, or the element */
    pi2_jinja_absence absence;
} pi2_jinja_missing;

typedef struct pi2_jinja_method {
    const pi2_jinja_value *receiver;
    pi2_jinja_string name;
} pi2_jinja_method;

struct pi2_jinja_value {
    pi2_jinja_type type;
    union {
        bool boolean;
        int64_t integer;
        double number;
        pi2_jinja_string string;
        pi2_jinja_missing missing; /* UNDEFINED */
        pi2_jinja_list *list;
        pi2_jinja_dict *dict; /* NAMESPACE too */
        pi2_jinja_loop *loop;
        pi2_jinja_macro *macro;
        const pi2_jinja_builtin *function;
        pi2_jinja_method *method;
    } as;
};

struct pi2_jinja_entry {
    pi2_jinja_value key, value;
};

struct pi2_jinja_loop {
    const pi2_jinja_list *items;
    size_t index;
    size_t depth;
};

/* ---- text that grows (jinja_value.c) ---- */

typedef struct pi2_jinja_text {
    pi2_jinja_arena *arena;
    char *bytes;
    unsigned char *marks; /* NULL while every byte is as `trusted` says */
    size_t length, capacity;
    bool trusted;
} pi2_jinja_text;

pi2_status pi2_jinja_text_add(pi2_jinja_text *text, pi2_jinja_string string);
pi2_status pi2_jinja_text_add_bytes(pi2_jinja_text *text, const char *bytes, size_t length,
                                    bool trusted);
/** A C string of our own, trusted. */
pi2_status pi2_jinja_text_add_own(pi2_jinja_text *text, const char *bytes);
/** What was added so far; the text must not grow afterwards. */
pi2_jinja_string pi2_jinja_text_string(const pi2_jinja_text *text);

/* ---- strings (jinja_value.c) ---- */

pi2_jinja_string pi2_jinja_own_string(const char *bytes); /* not copied; trusted */
pi2_jinja_string pi2_jinja_part(pi2_jinja_string string, size_t start, size_t length);
/** Trust of one byte. */
bool pi2_jinja_is_trusted(pi2_jinja_string string, size_t index);
bool pi2_jinja_same_bytes(pi2_jinja_string a, pi2_jinja_string b);
bool pi2_jinja_is(pi2_jinja_string string, const char *text);
/** First position of `part` at or after `from`; SIZE_MAX when there is none. Charges the search. */
size_t pi2_jinja_find(pi2_jinja_arena *arena, pi2_jinja_string string, pi2_jinja_string part,
                      size_t from);
/** Bytes of the character at `at` (1 .. 4; 1 where the bytes are no UTF-8) and its code point. */
size_t pi2_jinja_character(pi2_jinja_string string, size_t at, int32_t *code_point);
size_t pi2_jinja_character_count(pi2_jinja_arena *arena, pi2_jinja_string string);
bool pi2_jinja_is_space(int32_t code_point); /* as Python's str.isspace() */
/** Strips characters of `set` (NULL: white space) from the sides asked for. */
pi2_jinja_string pi2_jinja_strip(pi2_jinja_arena *arena, pi2_jinja_string string,
                                 const pi2_jinja_string *set, bool left, bool right);
/** UTF-8 of a code point (U+FFFD for what is none); returns the bytes written, 1 .. 4. */
size_t pi2_jinja_encode(int32_t code_point, char out[4]);

/* ---- values (jinja_value.c) ---- */

/** What is missing: a variable's, attribute's or parameter's name, or a sentence. */
pi2_jinja_value pi2_jinja_undefined(pi2_jinja_absence absence, pi2_jinja_string name);
/** The attribute (or with PI2_JINJA_UNSAFE what is kept back) of a value. */
pi2_jinja_value pi2_jinja_undefined_of(const pi2_jinja_value *owner, pi2_jinja_absence absence, pi2_jinja_string name);
pi2_jinja_value pi2_jinja_undefined_element(const pi2_jinja_value *owner, int64_t element);
pi2_jinja_value pi2_jinja_none(void);
pi2_jinja_value pi2_jinja_boolean(bool boolean);
pi2_jinja_value pi2_jinja_integer(int64_t integer);
pi2_jinja_value pi2_jinja_float(double number);
pi2_jinja_value pi2_jinja_of_string(pi2_jinja_string string);

pi2_status pi2_jinja_list_new(pi2_jinja_arena *arena, size_t capacity, pi2_jinja_list_kind kind,
                              pi2_jinja_value *out);
/** A list or a tuple: its items have numbers, and it can be joined, compared and printed. */
bool pi2_jinja_is_sequence(const pi2_jinja_list *list);
/** Whether it is gone once it was visited. */
bool pi2_jinja_is_once(const pi2_jinja_list *list);
pi2_status pi2_jinja_list_add(pi2_jinja_arena *arena, pi2_jinja_list *list, pi2_jinja_value item);
pi2_status pi2_jinja_dict_new(pi2_jinja_arena *arena, pi2_jinja_value *out);
pi2_status pi2_jinja_dict_set(pi2_jinja_arena *arena, pi2_jinja_dict *dict, pi2_jinja_value key,
                              pi2_jinja_value value);
/** The same of a key that is surely not there yet: without looking. */
pi2_status pi2_jinja_dict_add(pi2_jinja_arena *arena, pi2_jinja_dict *dict, pi2_jinja_value key,
                              pi2_jinja_value value);
/** NULL when the key is absent. */
pi2_jinja_value *pi2_jinja_dict_find(pi2_jinja_arena *arena, const pi2_jinja_dict *dict,
                                     const pi2_jinja_value *key);
pi2_jinja_value *pi2_jinja_dict_find_name(pi2_jinja_arena *arena, const pi2_jinja_dict *dict,
                                          pi2_jinja_string name);

/* ---- values from JSON (template_variables.c); all their text is untrusted ---- */

/** Sets the members of a JSON object. INVALID when it is none, or names one of `reserved` (space-separated). */
pi2_status pi2_jinja_set_variables(pi2_jinja_arena *arena, const char *json, const char *reserved,
                                   pi2_jinja_dict *variables);
/** The list of a JSON array of objects; `what`: what they are, in errors. INVALID when it is none. */
pi2_status pi2_jinja_list_of_objects(pi2_jinja_arena *arena, pi2_json_text text, const char *what,
                                     pi2_jinja_value *out);

bool pi2_jinja_truth(const pi2_jinja_value *value);
bool pi2_jinja_is_number(const pi2_jinja_value *value); /* booleans too, as in Python */
double pi2_jinja_as_double(const pi2_jinja_value *value);
const char *pi2_jinja_type_name(const pi2_jinja_value *value);   /* "a string" */
const char *pi2_jinja_python_type(const pi2_jinja_value *value); /* "str" */
/** Python's ==. Too deep a nesting counts as different. */
bool pi2_jinja_equal(pi2_jinja_arena *arena, const pi2_jinja_value *a, const pi2_jinja_value *b);
/** Python's <: false when the two have no order. *order_out: -1, 0, 1; 2: not a number. */
bool pi2_jinja_order(pi2_jinja_arena *arena, const pi2_jinja_value *a, const pi2_jinja_value *b,
                     int *order_out);

/* ---- printing (jinja_print.c) ---- */

/** Python's str(). FORMAT or UNSUPPORTED for a value that has no text. */
pi2_status pi2_jinja_print(pi2_jinja_call *call, pi2_jinja_text *text,
                           const pi2_jinja_value *value);
pi2_status pi2_jinja_to_string(pi2_jinja_call *call, const pi2_jinja_value *value,
                               pi2_jinja_string *out);
pi2_jinja_callable pi2_jinja_tojson;
pi2_jinja_callable pi2_jinja_strftime_now; /* jinja_dates.c */

/* ---- tokens (jinja_lexer.c) ---- */

typedef enum pi2_jinja_token_type {
    PI2_JINJA_TOKEN_END,
    PI2_JINJA_TOKEN_TEXT,
    PI2_JINJA_TOKEN_PRINT_BEGIN, /* {{ */
    PI2_JINJA_TOKEN_PRINT_END,
    PI2_JINJA_TOKEN_BLOCK_BEGIN, /* {% */
    PI2_JINJA_TOKEN_BLOCK_END,
    PI2_JINJA_TOKEN_NAME,
    PI2_JINJA_TOKEN_STRING,
    PI2_JINJA_TOKEN_INTEGER,
    PI2_JINJA_TOKEN_FLOAT,
    PI2_JINJA_TOKEN_OPERATOR /* text says which */
} pi2_jinja_token_type;

typedef struct pi2_jinja_token {
    pi2_jinja_token_type type;
    uint32_t line, column; /* from 1; columns count bytes */
    pi2_jinja_string text; /* of a string literal: decoded */
    int64_t integer;
    double number;
} pi2_jinja_token;

/** The last token is END. Strings and tokens live in the arena; `source` is not kept. */
pi2_status pi2_jinja_tokenize(pi2_jinja_arena *arena, const char *source, size_t length,
                              pi2_jinja_token **tokens_out, size_t *count_out);

/** Sets "chat template, line L, column C: ..." as one printable line. */
pi2_status pi2_jinja_fail_at(uint32_t line, uint32_t column, pi2_status status, const char *format,
                             ...) PI2_PRINTF_LIKE(4, 5);
/** The same, for what we do not run: adds what to do instead. */
pi2_status pi2_jinja_refuse_at(uint32_t line, uint32_t column, const char *format, ...)
    PI2_PRINTF_LIKE(3, 4);
/** Precision and pointer for "%.*s". */
#define PI2_JINJA_SHOWN(string) \
    (int)((string).length < 80 ? (string).length : 80), (string).length ? (string).bytes : ""

/* ---- nodes ---- */

typedef enum pi2_jinja_kind {
    /* expressions */
    PI2_JINJA_CONSTANT,    /* constant */
    PI2_JINJA_NAME,        /* text */
    PI2_JINJA_LIST_OF,     /* list */
    PI2_JINJA_TUPLE_OF,    /* list */
    PI2_JINJA_DICT_OF,     /* list: key, value, key, value ... */
    PI2_JINJA_ATTRIBUTE,   /* a.text */
    PI2_JINJA_SUBSCRIPT,   /* a[b] */
    PI2_JINJA_SLICE,       /* a[b:c:d]; each may be NULL */
    PI2_JINJA_CALL,        /* a(list) */
    PI2_JINJA_NAMED,       /* an argument text=a, inside the list of a call */
    PI2_JINJA_FILTER,      /* a | text(list) */
    PI2_JINJA_TEST,        /* a is text(list) */
    PI2_JINJA_NEGATIVE,    /* -a */
    PI2_JINJA_POSITIVE,    /* +a */
    PI2_JINJA_NOT,         /* not a */
    PI2_JINJA_AND,         /* a and b */
    PI2_JINJA_OR,          /* a or b */
    PI2_JINJA_ARITHMETIC,  /* a text b */
    PI2_JINJA_CONCAT,      /* list[0] ~ list[1] ~ ... */
    PI2_JINJA_COMPARE,     /* a, then list of COMPARISON */
    PI2_JINJA_COMPARISON,  /* text a, such as < 3 */
    PI2_JINJA_CONDITIONAL, /* b if a else c; c may be NULL */
    PI2_JINJA_CAPTURED,    /* the text of the filter or set block around */
    /* statements */
    PI2_JINJA_TEXT,        /* text */
    PI2_JINJA_PRINT,       /* a */
    PI2_JINJA_BODY,        /* list, in a scope of its own: with, generation */
    PI2_JINJA_IF,          /* list of BRANCH */
    PI2_JINJA_BRANCH,      /* when a (NULL: else) run list */
    PI2_JINJA_FOR,         /* for a in b if c: list; d: BODY of else */
    PI2_JINJA_SET,         /* a = b */
    PI2_JINJA_SET_BLOCK,   /* a = b(text of list) */
    PI2_JINJA_FILTER_BLOCK,/* b(text of list) */
    PI2_JINJA_MACRO_OF,    /* text, parameters: list of NAMED (a: default), b: BODY */
    PI2_JINJA_CALL_BLOCK,  /* a: CALL, b: MACRO_OF "caller" */
    PI2_JINJA_BREAK,
    PI2_JINJA_CONTINUE
} pi2_jinja_kind;

struct pi2_jinja_node {
    pi2_jinja_kind kind;
    uint32_t line, column;
    pi2_jinja_string text;
    pi2_jinja_value constant;
    pi2_jinja_node *a, *b, *c, *d;
    pi2_jinja_node **list;
    size_t list_count, list_capacity;
};

/* ---- parsing (jinja_parser.c, jinja_expressions.c) ---- */

typedef struct pi2_jinja_parser {
    pi2_jinja_arena *arena;
    const pi2_jinja_token *tokens;
    size_t at;
    int depth;
    int loops; /* for blocks around, within the present macro */
} pi2_jinja_parser;

/** A template's nodes as one BODY. */
pi2_status pi2_jinja_parse(pi2_jinja_arena *arena, const char *source, size_t length,
                           pi2_jinja_node **body_out);

const pi2_jinja_token *pi2_jinja_peek(const pi2_jinja_parser *parser);
bool pi2_jinja_at_operator(const pi2_jinja_parser *parser, const char *text);
bool pi2_jinja_at_name(const pi2_jinja_parser *parser, const char *text);
/** Consumes the token when it is this operator (this name). */
bool pi2_jinja_take_operator(pi2_jinja_parser *parser, const char *text);
bool pi2_jinja_take_name(pi2_jinja_parser *parser, const char *text);
pi2_status pi2_jinja_expect_operator(pi2_jinja_parser *parser, const char *text);
pi2_status pi2_jinja_expect_any_name(pi2_jinja_parser *parser, pi2_jinja_string *name_out);
pi2_status pi2_jinja_unexpected(const pi2_jinja_parser *parser, const char *wanted);
pi2_status pi2_jinja_node_new(pi2_jinja_parser *parser, pi2_jinja_kind kind,
                              pi2_jinja_node **node_out);
pi2_status pi2_jinja_node_add(pi2_jinja_parser *parser, pi2_jinja_node *node,
                              pi2_jinja_node *child);
pi2_status pi2_jinja_enter(pi2_jinja_parser *parser); /* counts depth; leave with depth-- */

/** One expression; conditional: `a if b else c` is allowed. */
pi2_status pi2_jinja_parse_expression(pi2_jinja_parser *parser, bool conditional,
                                      pi2_jinja_node **node_out);
/** An expression, or several with commas between: a tuple. */
pi2_status pi2_jinja_parse_tuple(pi2_jinja_parser *parser, bool conditional,
                                 pi2_jinja_node **node_out);
/** `name, other` or `name.attribute`: what set and for assign to. */
pi2_status pi2_jinja_parse_target(pi2_jinja_parser *parser, bool attribute,
                                  pi2_jinja_node **node_out);
/** name, or name(arguments), then `| name` ...: filters over `operand`. */
pi2_status pi2_jinja_parse_filters(pi2_jinja_parser *parser, pi2_jinja_node *operand,
                                   bool at_name, pi2_jinja_node **node_out);
/** A primary with its attributes, subscripts and calls. */
pi2_status pi2_jinja_parse_postfix(pi2_jinja_parser *parser, pi2_jinja_node **node_out);

/* ---- running (jinja_run.c, jinja_evaluate.c) ---- */

struct pi2_jinja_frame {
    pi2_jinja_frame *parent;
    pi2_jinja_dict variables;
    bool captured; /* a macro refers to it: it must stay as it is */
};

typedef enum pi2_jinja_flow { PI2_JINJA_ON, PI2_JINJA_BREAKS, PI2_JINJA_CONTINUES } pi2_jinja_flow;

/** The clock that strftime_now shows. */
typedef struct pi2_jinja_date {
    int year, month, day, hour, minute, second; /* month 1 .. 12 */
} pi2_jinja_date;

struct pi2_jinja_run {
    pi2_jinja_arena *arena;
    pi2_jinja_frame *frame;
    pi2_jinja_text *output;
    pi2_jinja_value captured;
    pi2_jinja_date date;
    pi2_jinja_flow flow;
    int depth;
};

/** Runs the statements of body->list in the run's present frame. */
pi2_status pi2_jinja_execute(pi2_jinja_run *run, const pi2_jinja_node *body);
/** A new innermost frame; leave with run->frame = run->frame->parent. */
pi2_status pi2_jinja_push_frame(pi2_jinja_run *run, pi2_jinja_frame *parent);
pi2_status pi2_jinja_evaluate(pi2_jinja_run *run, const pi2_jinja_node *node,
                              pi2_jinja_value *out);
/** Counts a step and a level; leave with run->depth--. */
pi2_status pi2_jinja_step(pi2_jinja_run *run, const pi2_jinja_node *node);
pi2_status pi2_jinja_call_macro(pi2_jinja_call *call, const pi2_jinja_macro *macro,
                                pi2_jinja_value *out);
/** The CALL `node`, with the macro of a call block or NULL. */
pi2_status pi2_jinja_evaluate_call(pi2_jinja_run *run, const pi2_jinja_node *node,
                                   const pi2_jinja_value *caller, pi2_jinja_value *out);
pi2_status pi2_jinja_fail(const pi2_jinja_call *call, const char *format, ...)
    PI2_PRINTF_LIKE(2, 3);
pi2_status pi2_jinja_refuse(const pi2_jinja_call *call, const char *format, ...)
    PI2_PRINTF_LIKE(2, 3);
/** Fails with what jinja2 says of this use of an UNDEFINED value. */
pi2_status pi2_jinja_fail_undefined(const pi2_jinja_call *call, const pi2_jinja_value *value);

/* ---- calls ---- */

typedef struct pi2_jinja_named {
    pi2_jinja_string name;
    pi2_jinja_value value;
} pi2_jinja_named;

enum { PI2_JINJA_ARGUMENTS = 16 };

/** A filter, test, method, function or macro being called. */
struct pi2_jinja_call {
    pi2_jinja_run *run;
    const pi2_jinja_node *node;
    pi2_jinja_string name;
    pi2_jinja_value subject; /* what is filtered or tested; whose method it is */
    size_t count, named_count;
    const pi2_jinja_value *arguments; /* [count] */
    const pi2_jinja_named *named;     /* [named_count] */
    const pi2_jinja_value *caller;    /* of a call block; NULL without one */
};

/**
 * Puts the arguments in the order of `names` (space-separated; "" where an argument has no name),
 * at most `most` of them; absent ones are UNDEFINED with *given_out bits clear.
 * FORMAT when there are too many, one is unknown, or fewer than `least` are given.
 */
pi2_status pi2_jinja_arguments(pi2_jinja_call *call, const char *names, size_t least, size_t most,
                               pi2_jinja_value *arguments_out, unsigned *given_out);
/** The string, integer or list of an argument, or FORMAT with its type. */
pi2_status pi2_jinja_want_string(const pi2_jinja_call *call, const pi2_jinja_value *value,
                                 pi2_jinja_string *out);
pi2_status pi2_jinja_want_integer(const pi2_jinja_call *call, const pi2_jinja_value *value,
                                  int64_t *out);
/** FORMAT for lists and mappings: Python has no keys that may change. */
pi2_status pi2_jinja_want_key(const pi2_jinja_call *call, const pi2_jinja_value *value);
/** Takes the first items of a generator, which were looked at. */
void pi2_jinja_skip(pi2_jinja_list *once, size_t count);
/** What `for` would visit: a list's items, a dict's keys, a string's characters. A generator is empty afterwards. */
pi2_status pi2_jinja_iterate(const pi2_jinja_call *call, const pi2_jinja_value *value,
                             pi2_jinja_list **out);
/** Python's value.name and value[key]; UNDEFINED where there is none. */
pi2_status pi2_jinja_attribute(const pi2_jinja_call *call, const pi2_jinja_value *value,
                               pi2_jinja_string name, pi2_jinja_value *out);
pi2_status pi2_jinja_subscript(const pi2_jinja_call *call, const pi2_jinja_value *value,
                               const pi2_jinja_value *key, pi2_jinja_value *out);
/** Python's value[start:stop:step]; UNDEFINED or NONE where one is left out. */
pi2_status pi2_jinja_slice(pi2_jinja_call *call, const pi2_jinja_value *value,
                           const pi2_jinja_value bounds[3], pi2_jinja_value *out);
/** a operator b for + - * / // % **. */
pi2_status pi2_jinja_arithmetic(pi2_jinja_call *call, pi2_jinja_string operator_text,
                                const pi2_jinja_value *a, const pi2_jinja_value *b,
                                pi2_jinja_value *out);
/** a operator b for == != < <= > >= in "not in". */
pi2_status pi2_jinja_compare(const pi2_jinja_call *call, pi2_jinja_string operator_text,
                             const pi2_jinja_value *a, const pi2_jinja_value *b, bool *out);
/** Python's `part in whole`. */
pi2_status pi2_jinja_contains(const pi2_jinja_call *call, const pi2_jinja_value *whole,
                              const pi2_jinja_value *part, bool *out);
/** value | name(arguments of call); the call's name and subject are set here. */
pi2_status pi2_jinja_apply_filter(pi2_jinja_call *call, pi2_jinja_value *out);
pi2_status pi2_jinja_apply_test(pi2_jinja_call *call, bool *out);
pi2_status pi2_jinja_call_method(pi2_jinja_call *call, pi2_jinja_value *out);
bool pi2_jinja_has_method(const pi2_jinja_value *value, pi2_jinja_string name);
/** Whether jinja2's immutable sandbox gives no such attribute: what begins with "_", what changes a value. */
bool pi2_jinja_is_kept_back(const pi2_jinja_value *value, pi2_jinja_string name);

extern const pi2_jinja_builtin pi2_jinja_functions[]; /* ends with a NULL name */
extern const pi2_jinja_builtin pi2_jinja_list_filters[];
extern const pi2_jinja_builtin pi2_jinja_string_methods[];

/* Shared by the filters and the methods of the same name (jinja_strings.c). */
typedef enum pi2_jinja_letter_case {
    PI2_JINJA_UPPER,
    PI2_JINJA_LOWER,
    PI2_JINJA_CAPITALIZE,
    PI2_JINJA_TITLE_FILTER, /* a word begins after white space or one of -({[< */
    PI2_JINJA_TITLE_METHOD  /* a word begins after anything but a letter */
} pi2_jinja_letter_case;
pi2_status pi2_jinja_change_case(pi2_jinja_call *call, pi2_jinja_string string,
                                 pi2_jinja_letter_case to, pi2_jinja_value *out);
/** The string with & < > ' " escaped, as markup; one that is markup stays as it is. */
pi2_status pi2_jinja_escape(pi2_jinja_call *call, pi2_jinja_string string, pi2_jinja_string *out);
/** Up to `most` times (negative: all). */
pi2_status pi2_jinja_replace(pi2_jinja_call *call, pi2_jinja_string string, pi2_jinja_string old,
                             pi2_jinja_string new_text, int64_t most, pi2_jinja_value *out);
/** separator.join(list); strings_only: other items fail instead of being printed. */
pi2_status pi2_jinja_join(pi2_jinja_call *call, pi2_jinja_string separator,
                          const pi2_jinja_list *list, bool strings_only, pi2_jinja_value *out);
/** Python's splitlines(). */
pi2_status pi2_jinja_lines(pi2_jinja_call *call, pi2_jinja_string string, pi2_jinja_list **out);
/** [(key, value), ...] of a mapping. */
pi2_status pi2_jinja_items(pi2_jinja_call *call, const pi2_jinja_dict *dict, pi2_jinja_value *out);

#endif
