/* schema_internal.h: a JSON Schema on its way into GBNF; for the files of this folder that are named schema*. */
#ifndef PI2_GRAMMAR_SCHEMA_INTERNAL_H
#define PI2_GRAMMAR_SCHEMA_INTERNAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/fail.h"
#include "powerinfer2/grammar.h"

/** A text that grows. After a failure nothing more is added. */
typedef struct pi2_schema_text {
    char *data;
    size_t length, room;
    bool has_failed;
} pi2_schema_text;
void pi2_schema_add(pi2_schema_text *text, const char *format, ...) PI2_PRINTF_LIKE(2, 3);
void pi2_schema_add_bytes(pi2_schema_text *text, const char *bytes, size_t length);
void pi2_schema_text_free(pi2_schema_text *text);
/** Bytes of UTF-8 as a literal of GBNF. */
void pi2_schema_add_literal(pi2_schema_text *text, const char *bytes, size_t length);

/** Where in a schema something is, as its JSON pointer says. */
typedef struct pi2_schema_place {
    const struct pi2_schema_place *up; /* NULL: `name` is the whole pointer */
    const char *name;                  /* NULL: `index` */
    size_t index;
} pi2_schema_place;

typedef struct pi2_schema_writer {
    const json_t *root;
    pi2_schema_text out; /* the rules that are finished */
    json_t *refs;        /* {pointer: number of its rule} */
    uint32_t next_rule;
    unsigned depth, merge_count;
    bool has_value;      /* the rules of any value are there */
} pi2_schema_writer;

/** "at #/...: ", and what is wrong. */
pi2_status pi2_schema_refuse(const pi2_schema_place *place, const char *format, ...) PI2_PRINTF_LIKE(2, 3);

/** A rule of the writer for a schema; its number names it "r12". */
pi2_status pi2_schema_rule(pi2_schema_writer *writer, const json_t *schema, const pi2_schema_place *place,
                           uint32_t *rule_out);
/** Puts a rule into the writer's text; frees the body. */
uint32_t pi2_schema_put_rule(pi2_schema_writer *writer, pi2_schema_text *body);
/** The schema that a "$ref" names; NULL: it is not there, or not in this schema. */
const json_t *pi2_schema_find(const pi2_schema_writer *writer, const char *reference);

/** A member that counts, from least to most; absent: as it is. */
pi2_status pi2_schema_count(const json_t *schema, const char *name, const pi2_schema_place *place, int64_t *value);

static inline int64_t pi2_schema_least_of(int64_t a, int64_t b) { return a < b ? a : b; }

/** Each adds an expression for values of one type. */
pi2_status pi2_schema_object(pi2_schema_writer *writer, const json_t *schema, const pi2_schema_place *place,
                             pi2_schema_text *body);
pi2_status pi2_schema_array(pi2_schema_writer *writer, const json_t *schema, const pi2_schema_place *place,
                            pi2_schema_text *body);
pi2_status pi2_schema_string(const json_t *schema, const pi2_schema_place *place, pi2_schema_text *body);
pi2_status pi2_schema_number(const json_t *schema, bool is_integer, const pi2_schema_place *place,
                             pi2_schema_text *body);
/** A regular expression as what lies between a JSON text's quotes. */
pi2_status pi2_schema_pattern(const char *pattern, size_t length, const pi2_schema_place *place, pi2_schema_text *body);

/** Whether no value satisfies both: what "oneOf" wants of each two. */
bool pi2_schemas_are_apart(const pi2_schema_writer *writer, const json_t *a, const json_t *b);

#endif
