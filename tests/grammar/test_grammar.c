/*
 * Goal:   GBNF means what llama.cpp's users mean by it; a text is followed the same way whatever pieces it comes in;
 *         what cannot be walked in bounded time and memory is refused, never let through.
 * Method: grammars beside texts that are theirs, beginnings of theirs, and neither; refusals by a part of their words.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "grammar/grammar_state.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

typedef enum verdict { NEITHER, BEGINNING, WHOLE } verdict;

static pi2_grammar_state *state_of(const char *text) {
    pi2_grammar *grammar = NULL;
    pi2_grammar_state *grammar_state = NULL;
    const pi2_status status = pi2_grammar_parse(text, strlen(text), NULL, &grammar);
    if (status != PI2_OK) fail_msg("%s: %s", text, pi2_error_text());
    assert_int_equal(pi2_grammar_state_create(grammar, &grammar_state), PI2_OK);
    pi2_grammar_free(grammar);
    return grammar_state;
}

/* What comes of a text in pieces of so many bytes; each piece is tried before it is taken. */
static verdict verdict_of(pi2_grammar_state *grammar_state, const char *text, size_t piece) {
    pi2_grammar_state_reset(grammar_state);
    for (size_t i = 0, length = strlen(text); i < length; i += piece) {
        const size_t count = length - i < piece ? length - i : piece;
        const bool is_allowed = pi2_grammar_state_allows(grammar_state, text + i, count);
        const bool may_begin = pi2_grammar_state_may_begin(grammar_state, (unsigned char)text[i]);
        assert_int_equal(pi2_grammar_state_accept(grammar_state, text + i, count), is_allowed);
        assert_true(may_begin || !is_allowed);
        if (!is_allowed) return NEITHER;
    }
    return pi2_grammar_state_may_end(grammar_state) ? WHOLE : BEGINNING;
}

static const struct grammar_example { const char *grammar, *text; verdict wanted; } examples[] = {
    {"root ::= \"ab\" | \"ac\"", "ab", WHOLE},
    {"root ::= \"ab\" | \"ac\"", "a", BEGINNING},
    {"root ::= \"ab\" | \"ac\"", "ad", NEITHER},
    {"root ::= \"ab\" | \"ac\"", "abc", NEITHER},
    {"root ::= [a-c]+ [^a-c\\n]", "abcx", WHOLE},
    {"root ::= [a-c]+ [^a-c\\n]", "abc\n", NEITHER},
    {"root ::= [\\]\\-^\\x41\\u00e9]{2}", "]-", WHOLE},
    {"root ::= [\\]\\-^\\x41\\u00e9]{2}", "^A", WHOLE},
    {"root ::= [\\]\\-^\\x41\\u00e9]{2}", "A\xc3\xa9", WHOLE},
    {"root ::= [\\]\\-^\\x41\\u00e9]{2}", "A\xc3\xa8", NEITHER},
    {"root ::= [a-]+", "-a", WHOLE},
    {"root ::= . \"\\U0001F600\"", "\xf0\x9f\x98\x81\xf0\x9f\x98\x80", WHOLE},
    {"root ::= . \"\\U0001F600\"", "x\xf0\x9f\x98\x80", WHOLE},
    {"root ::= . \"\\U0001F600\"", "x\xf0\x9f\x98\x81", NEITHER},
    {"root ::= .", "\xed\xa0\x80", NEITHER},     /* half a character */
    {"root ::= .", "\xc0\x80", NEITHER},         /* too long a form */
    {"root ::= .", "\xf4\x90\x80\x80", NEITHER}, /* beyond the last character */
    {"root ::= .", "\n", WHOLE},
    {"root ::= \"x\"*", "", WHOLE},
    {"root ::= \"x\"*", "xxxxx", WHOLE},
    {"root ::= \"xy\"{2,3}", "xy", BEGINNING},
    {"root ::= \"xy\"{2,3}", "xyxyxy", WHOLE},
    {"root ::= \"xy\"{2,3}", "xyxyxyx", NEITHER},
    {"root ::= \"x\"{2}", "xxx", NEITHER},
    {"root ::= \"x\"{2,}", "xxxx", WHOLE},
    {"root ::= \"x\"{0}", "", WHOLE},
    {"root ::= \"x\"{0,1000000}", "xxx", WHOLE},
    {"root ::= \"x\"? \"y\"", "y", WHOLE},
    {"root ::= (\"a\" | \"b\" (\"c\" | \"d\")*)+ \"!\"", "abcdcab!", WHOLE},
    {"root ::= (\"a\"?)* \"b\"", "aab", WHOLE},
    {"root ::= (\"a\"?){2,3} \"b\"", "b", WHOLE},
    {"root ::= (\"a\"?){2,3} \"b\"", "aaab", WHOLE},
    {"root ::= (\"a\"?){2,3} \"b\"", "aaaab", NEITHER},
    {"root ::= (\"a\"+)+ \"b\"", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", WHOLE},
    {"# a remark\nroot ::= a # another\n\na ::= \"1\" |\n  \"2\"\n", "2", WHOLE},
    {"root ::= \"1\"\n | \"2\" # on the next line\n | \"3\"\n\n", "3", WHOLE},
    {"root ::= (\n \"1\"\n \"2\"\n)\r\n", "12", WHOLE},
    {"root ::= \"a\" | ", "", WHOLE},
    {"s-1 ::= \"(\" s-1* \")\"\nroot ::= s-1", "(()(()))", WHOLE},
    {"s-1 ::= \"(\" s-1* \")\"\nroot ::= s-1", "(()", BEGINNING},
    {"s-1 ::= \"(\" s-1* \")\"\nroot ::= s-1", "())", NEITHER},
    {"root ::= e\ne ::= t ([-+] t)*\nt ::= [0-9]+ | \"(\" e \")\"", "(1+2)-33+(4-(5))", WHOLE},
    {"root ::= e\ne ::= t ([-+] t)*\nt ::= [0-9]+ | \"(\" e \")\"", "1+", BEGINNING},
    {"root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"x\"", "aaxbc", WHOLE},
    {"root ::= \"\\\"\\\\\\t\"", "\"\\\t", WHOLE},
    {"root ::= \"\\x0A\"", "\n", WHOLE},
    {"root ::= [ab]{1,50} [ab]{1,50} \"!\"", "abababababababababab!", WHOLE},
};

static void test_texts(void **unused) {
    (void)unused;
    for (size_t i = 0; i < COUNT(examples); i++) {
        pi2_grammar_state *grammar_state = state_of(examples[i].grammar);
        for (size_t piece = 1; piece < 8; piece += piece < 3 ? 1 : 4) {
            const verdict found = verdict_of(grammar_state, examples[i].text, piece);
            if (found != examples[i].wanted) {
                fail_msg("%s, \"%s\" in pieces of %zu: %d", examples[i].grammar, examples[i].text, piece, (int)found);
            }
        }
        assert_false(pi2_grammar_state_allows(grammar_state, "", 0));
        pi2_grammar_state_free(grammar_state);
    }
}

static const struct refusal { const char *grammar, *words; } refusals[] = {
    {"", "no rule 'root'"},
    {"a ::= \"b\"", "no rule 'root'"},
    {"root ::= b", "no rule 'b'"},
    {"root ::= \"a", "line 1, column 12"},
    {"root ::= \"a\nroot2 ::= \"b\"", "'\"' is missing"},
    {"root ::= [a", "']' is missing"},
    {"root ::= [b-a]", "ends before it begins"},
    {"root ::= []", "takes no character"},
    {"root ::= [^\\x00-\\U0010FFFF]", "takes no character"},
    {"root ::= \"\\uD800\"", "no character"},
    {"root ::= \"\\U00110000\"", "no character"},
    {"root ::= \"\\q\"", "escape is not known"},
    {"root ::= \"\xff\"", "no UTF-8"},
    {"root ::= (\"a\"", "')' is missing"},
    {"root ::= \"a\")", "')' without '('"},
    {"root ::= \"a\"{3,2}", "less than the least"},
    {"root ::= \"a\"{1000001}", "1000000 times"},
    {"root ::= \"a\"{x", "number was expected"},
    {"root ::= \"a\"{2", "'}' is missing"},
    {"root = \"a\"", "'::=' was expected"},
    {"root ::= \"a\"\nroot ::= \"b\"", "line 2, column 1: this rule is there twice"},
    {"root ::= root \"a\" | \"b\"", "'root' begins with itself"},
    {"root ::= a\na ::= \"x\"? b\nb ::= a \"y\" | \"z\"", "begins with itself"},
    {"root ::= (\"x\"* root)? \"y\"", "'root' begins with itself"},
    {"root ::= \"a\" root", "'root' has no end"},
    {"root ::= \"a\" | b\nb ::= \"b\" b", "'b' has no end"},
    {"root ::= (\"a\"?){1,65}", "may be empty"},
    {"root ::= <[5]>", "single tokens"},
    {"root ::= %", "was expected"},
};

static void test_refusals(void **unused) {
    (void)unused;
    for (size_t i = 0; i < COUNT(refusals); i++) {
        pi2_grammar *grammar = NULL;
        const char *text = refusals[i].grammar;
        assert_int_not_equal(pi2_grammar_parse(text, strlen(text), NULL, &grammar), PI2_OK);
        assert_null(grammar);
        const bool says_so = strstr(pi2_error_text(), refusals[i].words) != NULL;
        if (!says_so) fail_msg("%s: %s", refusals[i].grammar, pi2_error_text());
    }
}

/* Parts that are repeated many times in a grammar's text. */
static char *repeated(const char *before, const char *part, size_t times, const char *behind) {
    const size_t length = strlen(part);
    char *text = malloc(strlen(before) + times * length + strlen(behind) + 1), *end = text;
    assert_non_null(text);
    end += sprintf(end, "%s", before);
    for (size_t i = 0; i < times; i++, end += length) memcpy(end, part, length);
    (void)sprintf(end, "%s", behind);
    return text;
}

static void test_bounds(void **unused) {
    (void)unused;
    const struct { const char *before, *part; size_t times; const char *behind, *words; } large[] = {
        {"root ::= ", "(", 65, "\"a\"", "nested more than 64 deep"},
        {"root ::= \"a\"", "*", 66, "", "more than 64 repetitions"},
        {"root ::= \"a\"", " | \"a\"", 40000, "", "more than"},
        {"root ::= \"", "a", 100000, "\"", "more than 65536"},
        {"root ::= \"", "a", 300000, "\"", "bytes"},
        {"root ::= ", "(\"a\" | \"b\")", 17000, "", "more than 16384 rules"},
    };
    for (size_t i = 0; i < COUNT(large); i++) {
        char *text = repeated(large[i].before, large[i].part, large[i].times, large[i].behind);
        pi2_grammar *grammar = NULL;
        assert_int_equal(pi2_grammar_parse(text, strlen(text), NULL, &grammar), PI2_ERR_UNSUPPORTED);
        if (!strstr(pi2_error_text(), large[i].words)) fail_msg("%zu: %s", i, pi2_error_text());
        free(text);
    }
}

/* Twice as many ways with each character: as long as they have room they are followed, then nothing more is allowed. */
static void test_too_many_readings(void **unused) {
    (void)unused;
    pi2_grammar_state *grammar_state = state_of("root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"x\"");
    size_t depth = 0;
    while (depth < 100 && pi2_grammar_state_accept(grammar_state, "a", 1)) depth++;
    assert_in_range(depth, 5, 20);
    assert_false(pi2_grammar_state_may_end(grammar_state));
    assert_true(pi2_grammar_state_accept(grammar_state, "x", 1)); /* the way back is open */
    for (size_t i = 0; i < depth; i++) assert_true(pi2_grammar_state_accept(grammar_state, i % 2 ? "b" : "c", 1));
    assert_true(pi2_grammar_state_may_end(grammar_state));
    pi2_grammar_state_free(grammar_state);
}

/* Nesting has an end too; texts without nesting have none. */
static void test_long_texts(void **unused) {
    (void)unused;
    pi2_grammar_state *grammar_state = state_of("root ::= \"(\" root \")\" | list\nlist ::= [0-9]+ (\",\" list)?");
    for (size_t i = 0; i < 200000; i++) assert_true(pi2_grammar_state_accept(grammar_state, "12,345,", 7));
    assert_true(pi2_grammar_state_accept(grammar_state, "6", 1) && pi2_grammar_state_may_end(grammar_state));
    pi2_grammar_state_reset(grammar_state);
    size_t depth = 0;
    while (depth < 100000 && pi2_grammar_state_accept(grammar_state, "(", 1)) depth++;
    assert_in_range(depth, 1000, 9000);
    assert_true(pi2_grammar_state_accept(grammar_state, "1", 1));
    for (size_t i = 0; i < depth; i++) {
        assert_false(pi2_grammar_state_may_end(grammar_state));
        assert_true(pi2_grammar_state_accept(grammar_state, ")", 1));
    }
    assert_true(pi2_grammar_state_may_end(grammar_state));
    pi2_grammar_state_free(grammar_state);
}

/* What is only tried leaves nothing behind; a state that follows another goes its own way then. */
static void test_trying(void **unused) {
    (void)unused;
    static const char text[] = "{\"a\":[1,{\"b\":\"c\"}]}";
    pi2_grammar *grammar = NULL;
    pi2_grammar_state *tried = NULL, *other = NULL;
    assert_int_equal(pi2_grammar_from_schema("{}", 2, &grammar), PI2_OK);
    assert_int_equal(pi2_grammar_state_create(grammar, &tried), PI2_OK);
    assert_int_equal(pi2_grammar_state_create(grammar, &other), PI2_OK);
    pi2_grammar_free(grammar);
    for (size_t i = 0; i + 1 < sizeof text; i++) {
        for (unsigned byte = 1; byte < 256; byte++) {
            const char one = (char)byte;
            const bool is_allowed = pi2_grammar_state_allows(tried, &one, 1);
            pi2_grammar_state_follow(other, tried);
            assert_int_equal(pi2_grammar_state_accept(other, &one, 1), is_allowed);
            assert_true(!is_allowed || pi2_grammar_state_may_begin(tried, (unsigned char)byte));
        }
        assert_true(pi2_grammar_state_accept(tried, text + i, 1));
    }
    assert_true(pi2_grammar_state_may_end(tried));
    pi2_grammar_state_free(tried);
    pi2_grammar_state_free(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),      cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_bounds),     cmocka_unit_test(test_too_many_readings),
        cmocka_unit_test(test_long_texts), cmocka_unit_test(test_trying),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
