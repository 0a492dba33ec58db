/*
 * fuzz_grammar.c: any bytes as a grammar, or as a schema where they begin with "{"; what lies behind a NUL is a text
 * for it. What is read can be followed, and a text is taken or not as it was allowed or not, in pieces and at once.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/grammar_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
    if (!condition) abort();
}

static void follow(pi2_grammar_state *state, const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        const bool is_allowed = pi2_grammar_state_allows(state, text + i, 1);
        require(!is_allowed || pi2_grammar_state_may_begin(state, (unsigned char)text[i]));
        require(pi2_grammar_state_accept(state, text + i, 1) == is_allowed);
        if (!is_allowed) return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data, *end = size ? memchr(data, 0, size) : NULL;
    const size_t length = end ? (size_t)(end - text) : size;
    pi2_grammar *grammar = NULL;
    pi2_grammar_state *state = NULL;
    const bool is_schema = length && *text == '{';
    const pi2_status status = is_schema ? pi2_grammar_from_schema(text, length, &grammar)
                                        : pi2_grammar_parse(text, length, NULL, &grammar);
    require((status == PI2_OK) == (grammar != NULL));
    if (!grammar) return 0;
    require(pi2_grammar_bytes(grammar) > 0 && pi2_grammar_state_create(grammar, &state) == PI2_OK);
    if (end) follow(state, end + 1, size - length - 1);
    pi2_grammar_state_reset(state);
    if (end && size > length + 1) {
        const bool is_allowed = pi2_grammar_state_allows(state, end + 1, size - length - 1);
        require(pi2_grammar_state_accept(state, end + 1, size - length - 1) == is_allowed);
    }
    pi2_grammar_state_free(state);
    pi2_grammar_free(grammar);
    return 0;
}
