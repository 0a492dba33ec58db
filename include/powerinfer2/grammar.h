/*
 * grammar.h: what an answer's text must look like: a grammar in GBNF, as llama.cpp's users write it, or a JSON Schema.
 *
 * A grammar in pi2_sampling.grammar lets a session pick only tokens with which the text can still become one of the
 * grammar's, and a token that ends the answer only where the text is one. docs/grammars.md has both languages.
 */
#ifndef POWERINFER2_GRAMMAR_H
#define POWERINFER2_GRAMMAR_H

#include <stddef.h>

#include "powerinfer2/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Immutable: sessions of any thread may share one. */
typedef struct pi2_grammar pi2_grammar;

/** Bytes of a grammar's or a schema's text at most. */
#define PI2_GRAMMAR_TEXT_BYTES ((size_t)1 << 18)

/**
 * Reads GBNF. root: the rule that is the whole text; NULL: "root".
 * Errors  FORMAT (line, column, what was expected), UNSUPPORTED (left recursion; rules that no text satisfies; more
 *         than the bounds of docs/grammars.md), MEMORY
 */
PI2_API pi2_status pi2_grammar_parse(const char *text, size_t length, const char *root,
                                     pi2_grammar **grammar_out);

/**
 * Makes the grammar of JSON texts that the schema allows; not of all of them: members come in the schema's order, and
 * white space is bounded. Whatever the schema says is obeyed: a keyword that cannot be is refused by its place.
 * schema: UTF-8 JSON text. "{}": any JSON value. {"type": "object"}: any object.
 * Errors  FORMAT (no JSON), UNSUPPORTED ("at #/properties/name: ..."), MEMORY
 */
PI2_API pi2_status pi2_grammar_from_schema(const char *schema, size_t length, pi2_grammar **grammar_out);

/**
 * The same of several schemas as GBNF text, malloc'd and NUL-terminated, which the caller frees and may build on: the
 * rules "root-0", "root-1" and so on are theirs, "root" is any of them.
 * schemas: [count], NUL-terminated; of errors the place is that in its schema
 */
PI2_API pi2_status pi2_schemas_to_gbnf(const char *const *schemas, size_t count, char **gbnf_out);

/** Another owner; each of them frees it. NULL gives NULL. */
PI2_API pi2_grammar *pi2_grammar_share(const pi2_grammar *grammar);
/** One owner less. NULL is fine. */
PI2_API void pi2_grammar_free(pi2_grammar *grammar);
/** Memory of the grammar. */
PI2_API size_t pi2_grammar_bytes(const pi2_grammar *grammar);
/** Memory that a session takes beside it while it has a grammar. */
PI2_API size_t pi2_grammar_session_bytes(void);

#ifdef __cplusplus
}
#endif
#endif
