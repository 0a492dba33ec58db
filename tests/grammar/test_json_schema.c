/*
 * Goal:   every text that a schema's grammar allows is JSON that satisfies the schema, and what a schema says is obeyed
 *         or refused by its place, never left out.
 * Method: schemas beside texts that are theirs and texts that are not (schemas.json, which the server's test gives to a
 *         model with random weights, and to another validator); walks that pick random bytes among those that are
 *         allowed; refusals by a part of their words; references, "oneOf" and expressions in numbers that take long.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "grammar/grammar_state.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

enum { WALKS = 12, WALK_BYTES = 1 << 16 };

static uint32_t random_state = 1;

static uint32_t random_number(uint32_t below) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % below;
}

static pi2_grammar_state *state_of(const json_t *schema) {
    pi2_grammar *grammar = NULL;
    pi2_grammar_state *state = NULL;
    char *text = json_dumps(schema, JSON_ENCODE_ANY);
    assert_non_null(text);
    if (pi2_grammar_from_schema(text, strlen(text), &grammar) != PI2_OK) fail_msg("%s: %s", text, pi2_error_text());
    assert_int_equal(pi2_grammar_state_create(grammar, &state), PI2_OK);
    assert_in_range(pi2_grammar_bytes(grammar), 100, 1 << 20);
    pi2_grammar_free(grammar);
    free(text);
    return state;
}

static bool is_whole(pi2_grammar_state *state, const char *text) {
    pi2_grammar_state_reset(state);
    return pi2_grammar_state_accept(state, text, strlen(text)) && pi2_grammar_state_may_end(state);
}

/* A byte that may come: any at first; once the text is long, mostly what closes something. */
static bool next_byte(pi2_grammar_state *state, size_t length, char *byte_out) {
    static const char closing[] = "\"]},:0"; /* a member's name and the like must come before some brackets can */
    const bool closes = length > 200 && random_number(4) > 0;
    for (size_t i = 0; closes && i < sizeof closing - 1; i++) {
        *byte_out = closing[i];
        if (pi2_grammar_state_allows(state, byte_out, 1)) return true;
    }
    for (unsigned tries = 0, first = random_number(256); tries < 256; tries++) {
        *byte_out = (char)((first + 89 * tries) % 256);
        if (pi2_grammar_state_allows(state, byte_out, 1)) return true;
    }
    return false;
}

/* A text of the grammar, whose bytes are picked blindly. */
static size_t walk(pi2_grammar_state *state, char *text) {
    size_t length = 0;
    pi2_grammar_state_reset(state);
    while (length < WALK_BYTES - 1) {
        if (pi2_grammar_state_may_end(state) && (length > 200 || random_number(2) == 0)) break;
        if (!next_byte(state, length, text + length)) break;
        assert_true(pi2_grammar_state_accept(state, text + length, 1));
        length++;
    }
    assert_true(pi2_grammar_state_may_end(state));
    text[length] = '\0';
    return length;
}

static void test_examples(void **unused) {
    (void)unused;
    static char text[WALK_BYTES];
    json_t *all = json_load_file(PI2_TESTS_FOLDER "/grammar/schemas.json", 0, NULL);
    assert_in_range(json_array_size(all), 50, 1000);
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *one = json_array_get(all, i);
        const json_t *good = json_object_get(one, "good"), *bad = json_object_get(one, "bad");
        pi2_grammar_state *state = state_of(json_object_get(one, "schema"));
        for (size_t j = 0; j < json_array_size(good); j++) {
            const char *theirs = json_string_value(json_array_get(good, j));
            if (!is_whole(state, theirs)) fail_msg("schema %zu does not take %s", i, theirs);
        }
        for (size_t j = 0; j < json_array_size(bad); j++) {
            const char *not_theirs = json_string_value(json_array_get(bad, j));
            if (is_whole(state, not_theirs)) fail_msg("schema %zu takes %s", i, not_theirs);
        }
        for (unsigned j = 0; j < WALKS; j++) {
            const size_t length = walk(state, text);
            json_t *value = json_loadb(text, length, JSON_DECODE_ANY, NULL);
            if (!value) fail_msg("schema %zu: no JSON: %s", i, text);
            json_decref(value);
        }
        pi2_grammar_state_free(state);
    }
    json_decref(all);
}

static const struct refusal { const char *schema, *words; } refusals[] = {
    {"", "no JSON"},
    {"{'a':1,'a':1}", "no JSON"},
    {"5", "at #: this allows no value"},
    {"false", "at #: this allows no value"},
    {"{'type':'text'}", "at #: 'text' is no type"},
    {"{'type':5}", "at #/type"},
    {"{'type':'object','properties':{'x':{'type':'string','patternx':'a'}}}", "at #/properties/x/patternx: this"},
    {"{'not':{}}", "at #/not"},
    {"{'if':{}}", "at #/if"},
    {"{'patternProperties':{}}", "at #/patternProperties"},
    {"{'type':'array','contains':{}}", "at #/contains"},
    {"{'type':'array','uniqueItems':true}", "at #/uniqueItems"},
    {"{'type':'array','items':{'not':{}}}", "at #/items/not"},
    {"{'type':'array','prefixItems':[{},{'if':1}]}", "at #/prefixItems/1/if"},
    {"{'type':'array','prefixItems':5}", "at #/prefixItems"},
    {"{'type':'array','minItems':3,'maxItems':2}", "at #/minItems"},
    {"{'type':'array','minItems':-1}", "at #/minItems: this must be a whole number"},
    {"{'type':'array','prefixItems':[{}],'minItems':2}", "at #/minItems"},
    {"{'type':'string','minLength':3,'maxLength':2}", "at #/minLength"},
    {"{'type':'string','maxLength':'a'}", "at #/maxLength"},
    {"{'type':'string','format':'regex'}", "at #/format: 'regex' is not supported"},
    {"{'type':'string','format':'date','maxLength':9}", "at #/format"},
    {"{'type':'string','format':'date','pattern':'a'}", "at #/format"},
    {"{'type':'string','pattern':'a','maxLength':9}", "at #/pattern"},
    {"{'type':'string','pattern':5}", "at #/pattern"},
    {"{'type':'string','pattern':'(?=a)'}", "at #/pattern: of groups"},
    {"{'type':'string','pattern':'(a)\\\\1'}", "this escape is not supported"},
    {"{'type':'string','pattern':'a\\\\b'}", "this escape is not supported"},
    {"{'type':'string','pattern':'a^b'}", "'^' and '$'"},
    {"{'type':'string','pattern':'(a$)'}", "'^' and '$'"},
    {"{'type':'string','pattern':'(a'}", "')' is missing"},
    {"{'type':'string','pattern':'a)'}", "')' without '('"},
    {"{'type':'string','pattern':'[a'}", "']' is missing"},
    {"{'type':'string','pattern':'[b-a]'}", "ends before it begins"},
    {"{'type':'string','pattern':'*'}", "nothing is before"},
    {"{'type':'string','pattern':'a**'}", "a repetition is repeated"},
    {"{'type':'string','pattern':'a{,3}'}", "a repetition is {3}"},
    {"{'type':'string','pattern':'a{2'}", "'}' is missing"},
    {"{'type':'string','pattern':'^[\\\\x01]$'}", "no character that JSON can write"},
    {"{'type':'string','pattern':'a\\\\'}", "behind a backslash"},
    {"{'type':'number','multipleOf':0.1}", "at #/multipleOf"},
    {"{'type':'integer','multipleOf':2}", "at #/multipleOf"},
    {"{'type':'number','minimum':0.5}", "at #/minimum: a bound that is no whole number"},
    {"{'type':'number','minimum':'a'}", "at #/minimum"},
    {"{'type':'integer','minimum':3,'maximum':2}", "at #: no number"},
    {"{'type':'integer','exclusiveMinimum':3,'exclusiveMaximum':4}", "at #: no number"},
    {"{'type':'integer','minimum':1e18}", "at #: no number"},
    {"{'type':'integer','format':'uint8'}", "at #/format"},
    {"{'enum':[]}", "at #/enum"},
    {"{'enum':5}", "at #/enum"},
    {"{'type':'integer','enum':['a']}", "at #/enum: no value"},
    {"{'enum':['a'],'minLength':3}", "at #/minLength: this keyword is not supported beside 'enum'"},
    {"{'anyOf':[]}", "at #/anyOf"},
    {"{'anyOf':[{'not':1}]}", "at #/anyOf/0/not"},
    {"{'anyOf':[{}],'type':'object'}", "at #/type: this keyword is not supported beside 'anyOf'"},
    {"{'oneOf':[{'type':'integer'},{'type':'number'}]}", "at #/oneOf/1: a value might satisfy this and number 0"},
    {"{'oneOf':[{'type':'object'},{'type':'object','properties':{'a':{'const':1}}}]}", "at #/oneOf/1"},
    {"{'oneOf':[{'const':1},{'const':1.0}]}", "at #/oneOf/1"},
    {"{'allOf':[{'minimum':1},{'minimum':2}]}", "at #/allOf/1/minimum: this keyword differs"},
    {"{'allOf':[{'properties':{'a':{}}},{'properties':{'a':true}}]}", "'a' is described twice"},
    {"{'allOf':[{'properties':{'a':{}},'additionalProperties':false},{'properties':{'b':{}}}]}",
     "at #: 'b' is a property of 'allOf' that 'additionalProperties' of another schema there is about"},
    {"{'allOf':[{'properties':{'a':{}}}],'properties':{'b':{}},'additionalProperties':{'type':'null'}}", "'a' is a"},
    {"{'allOf':[{'properties':{'a':{}}},{'additionalProperties':{'type':'null'}}]}", "'a' is a property of 'allOf'"},
    {"{'allOf':[{'properties':{'a':{}},'unevaluatedProperties':false},{'properties':{'b':{}}}]}", "'b' is a property"},
    {"{'allOf':[{'prefixItems':[{'type':'null'}]},{'items':{'type':'string'}}]}", "at #: 'items' of one schema"},
    {"{'items':[{'type':'null'}],'prefixItems':[{'type':'string'}]}", "at #/prefixItems"},
    {"{'oneOf':[{'type':'string','nullable':true},{'type':'integer','nullable':true}]}", "at #/oneOf/1"},
    {"{'oneOf':[{'enum':['a'],'nullable':true},{'enum':['b',null]}]}", "at #/oneOf/1"},
    {"{'oneOf':[{'required':['a'],'type':'object','properties':{'a':{'const':1,'nullable':true}}},{'required':['a'],"
     "'type':'object','properties':{'a':{'const':2,'nullable':true}}}]}", "at #/oneOf/1"},
    {"{'$ref':'#'}", "at #/$ref: this refers to itself"},
    {"{'$ref':'#/$defs/a','$defs':{'a':{'$ref':'#/$defs/b'},'b':{'$ref':'#/$defs/a'}}}", "refers to itself"},
    {"{'$ref':'#/$defs/a'}", "at #/$ref: '#/$defs/a' is no place"},
    {"{'$ref':'http://example.org/a.json'}", "is no place of this schema"},
    {"{'$ref':'#/$defs/a','minLength':1,'$defs':{'a':{}}}", "at #/minLength"},
    {"{'allOf':[{'$ref':'#'}]}", "cannot be merged"},
    {"{'$ref':'#/$defs/a','$defs':{'a':{'not':1}}}", "at #/$defs/a/not"},
    {"{'type':'object','properties':5}", "at #/properties"},
    {"{'type':'object','required':5}", "at #/required"},
    {"{'type':'object','required':[5]}", "at #/required/0"},
    {"{'type':'object','required':['a'],'additionalProperties':false}", "'a' is required and not allowed"},
    {"{'type':'object','properties':{'a':false},'required':['a']}", "at #/properties/a: this allows no value"},
    {"{'type':'object','minProperties':1}", "at #/minProperties"},
    {"{'type':'object','maxProperties':1}", "at #/maxProperties"},
    {"{'type':'object','unevaluatedProperties':{}}", "at #/unevaluatedProperties"},
    {"{'type':'object','properties':{'n':{'$ref':'#'}},'required':['n']}", "has no end"},
};

/* Texts here have ' for ", as in the other tests of JSON. */
static char *with_quotes(const char *text) {
    char *copy = strdup(text);
    assert_non_null(copy);
    for (char *byte = copy; *byte; byte++) *byte = *byte == '\'' ? '"' : *byte;
    return copy;
}

static void test_refusals(void **unused) {
    (void)unused;
    for (size_t i = 0; i < COUNT(refusals); i++) {
        char *text = with_quotes(refusals[i].schema);
        pi2_grammar *grammar = NULL;
        if (pi2_grammar_from_schema(text, strlen(text), &grammar) == PI2_OK) fail_msg("%s is taken", text);
        assert_null(grammar);
        if (!strstr(pi2_error_text(), refusals[i].words)) fail_msg("%s: %s", text, pi2_error_text());
        free(text);
    }
}

/** Types that are named twice at every depth, so that a walk through all of them would double with each. */
static json_t *doubled(size_t depth) {
    json_t *schema = json_object();
    while (depth--) schema = json_pack("{s:[s,s], s:{s:o}}", "type", "object", "object", "properties", "a", schema);
    return schema;
}

/* Many of something, which would take long if each looked at each. */
static json_t *many(const char *what, size_t count) {
    json_t *schema = json_object(), *list = json_array(), *map = json_object();
    for (size_t i = 0; i < count; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "%s%zu", what, i);
        json_t *reference = json_pack("{s:s}", "$ref", "#/$defs/a");
        (void)json_array_append_new(list, strcmp(what, "ref") ? json_string(name) : json_incref(reference));
        json_decref(reference);
        (void)json_object_set_new(map, name, json_pack("{s:s}", "type", "null"));
    }
    if (strcmp(what, "enum") == 0) (void)json_object_set(schema, "enum", list);
    else if (strcmp(what, "ref")) (void)json_object_set(schema, "properties", map);
    if (strcmp(what, "ref") == 0) {
        (void)json_object_set_new(schema, "$defs", json_pack("{s:{s:O}}", "a", "allOf", list));
        (void)json_object_set(schema, "allOf", list);
    }
    if (strcmp(what, "other") == 0) (void)json_object_set_new(schema, "additionalProperties", json_true());
    json_decref(list);
    json_decref(map);
    return schema;
}

static void test_large_schemas(void **unused) {
    (void)unused;
    static const struct { const char *what; size_t count; const char *words; } large[] = {
        {"enum", 1500, NULL}, {"property", 1000, NULL}, {"other", 300, NULL}, {"other", 5000, "too large"},
        {"ref", 1000, "cannot be merged"}, {"enum", 20000, "too large"}, {"enum", 30000, "bytes"},
        {"doubled", 3, NULL}, {"doubled", 60, "more than 16384 rules"}};
    for (size_t i = 0; i < COUNT(large); i++) {
        const bool is_doubled = strcmp(large[i].what, "doubled") == 0;
        json_t *schema = is_doubled ? doubled(large[i].count) : many(large[i].what, large[i].count);
        char *text = json_dumps(schema, JSON_COMPACT);
        pi2_grammar *grammar = NULL;
        const pi2_status status = pi2_grammar_from_schema(text, strlen(text), &grammar);
        if ((status == PI2_OK) != !large[i].words) fail_msg("%zu: %s", i, pi2_error_text());
        if (large[i].words && !strstr(pi2_error_text(), large[i].words)) fail_msg("%zu: %s", i, pi2_error_text());
        pi2_grammar_free(grammar);
        free(text);
        json_decref(schema);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_large_schemas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
