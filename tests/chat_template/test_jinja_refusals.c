/* Goal:   what we do not run is refused by line, column and name; every limit holds and names
 *         itself; nothing of the program can be reached from a template.
 * Method: templates that must fail, with their status and a part of the message. */
#include "chat_template/chat_template_test.h"

#include <stdio.h>

typedef struct refusal {
    const char *source;
    pi2_status status;
    const char *message; /* a part of it */
} refusal;

static void check_refusals(const refusal *refusals, size_t count) {
    for (size_t i = 0; i < count; i++) {
        pi2_rendered_chat rendered;
        const pi2_status status = render_with(refusals[i].source, "Bye", &rendered);
        if (status != refusals[i].status)
            fail_msg("%s\n  status %s: %s", refusals[i].source, pi2_status_name(status),
                     pi2_error_text());
        if (strstr(pi2_error_text(), refusals[i].message) == NULL)
            fail_msg("%s\n  says   %s\n  wanted %s", refusals[i].source, pi2_error_text(),
                     refusals[i].message);
        assert_null(strchr(pi2_error_text(), '\n'));
        assert_int_equal(rendered.segment_count, 0);
        assert_null(rendered.segments);
    }
}
#define CHECK(table) check_refusals(table, sizeof table / sizeof table[0])

#define FORMAT PI2_ERR_FORMAT
#define UNSUPPORTED PI2_ERR_UNSUPPORTED

static void test_unknown_names(void **state) {
    (void)state;
    const refusal refusals[] = {
        {"a\nb {{ x | slice }}", UNSUPPORTED,
         "chat template, line 2, column 10: filter 'slice' is not supported; use 'run --raw' or "
         "'run --chat-template NAME'"},
        {"{{ 1 is filter }}", UNSUPPORTED, "line 1, column 9: test 'filter'"},
        {"{{ x | foo }}", FORMAT, "No filter named 'foo' found."},
        {"{{ 1 is foo }}", FORMAT, "No test named 'foo' found."},
        {"{{ 'a'.zfill(3) }}", UNSUPPORTED, "method 'zfill' of a string"},
        {"{{ [].copy() }}", UNSUPPORTED, "method 'copy' of a list"},
        {"{{ {}.copy() }}", UNSUPPORTED, "method 'copy' of a mapping"},
        {"{{ lipsum() }}", UNSUPPORTED, "line 1, column 4: function 'lipsum'"},
        {"{% include 'x' %}", UNSUPPORTED, "line 1, column 4: tag 'include'"},
        {"{% import 'x' as y %}", UNSUPPORTED, "tag 'import'"},
        {"{% extends 'x' %}", UNSUPPORTED, "tag 'extends'"},
        {"{% block x %}{% endblock %}", UNSUPPORTED, "tag 'block'"},
        {"{% autoescape true %}", UNSUPPORTED, "tag 'autoescape'"},
        {"{% do x %}", UNSUPPORTED, "tag 'do'"},
        {"{% for x in y recursive %}", UNSUPPORTED, "a recursive for"},
        {"{{ f(*x) }}", UNSUPPORTED, "an argument with a star"},
        {"{{ '%s' % 1 }}", UNSUPPORTED, "the operator % on a string"},
        {"{{ (-8) ** 0.5 }}", UNSUPPORTED, "a complex number"},
        {"{{ strftime_now('%Q') }}", UNSUPPORTED, "the date format '%Q'"},
        {"{{ [1] | map('slice') }}", UNSUPPORTED, "filter 'slice'"},
        {"{{ [1] | select('filter') }}", UNSUPPORTED, "test 'filter'"},
        {"{{ [1] | map('upper') }}", UNSUPPORTED, "printing a generator, view or range: put '| list' behind it"},
        {"{{ range(2) }}", UNSUPPORTED, "printing a generator, view or range"},
        {"{{ 'a' | trim(foo=1) }}", UNSUPPORTED, "an argument of this name for 'trim'"},
        {"{% for i in [1] %}{{ loop.foo }}{% endfor %}", UNSUPPORTED, "'foo' of a loop"},
        {"{{ namespace() }}", UNSUPPORTED, "printing a namespace"},
    };
    CHECK(refusals);
}

/* An unknown name in a branch that is not taken does no harm. */
static void test_unreached_names(void **state) {
    (void)state;
    assert_renders("{% if false %}{{ x | foo is bar }}{{ lipsum() }}{% endif %}ok", "ok");
}

static void test_syntax(void **state) {
    (void)state;
    const refusal refusals[] = {
        {"{{ 1", FORMAT, "line 1, column 1: {{ without its end, }}"},
        {"{% if 1", FORMAT, "{% without its end, %}"},
        {"a {# b", FORMAT, "line 1, column 3: a comment without its end"},
        {"{% raw %} x", FORMAT, "without its {% endraw %}"},
        {"{{ 'a }}", FORMAT, "a string without its closing quote"},
        {"{{ '\\xZZ' }}", FORMAT, "an escape in a string"},
        {"{{ ( }}", FORMAT, "line 1, column 6: a closing bracket without its opening one"},
        {"{{ (", FORMAT, "line 1, column 1: {{ without its end"},
        {"{{ ) }}", FORMAT, "a closing bracket without its opening one"},
        {"{{ ! }}", FORMAT, "a character that has no meaning in a tag"},
        {"{{ }}", FORMAT, "expected an expression, found '}}'"},
        {"{{ 1 2 }}", FORMAT, "expected }}, found '2'"},
        {"{{ a b }}", FORMAT, "expected }}, found 'b'"},
        {"{% if 1 %}x", FORMAT, "expected elif else endif, found the template's end"},
        {"{% endif %}", FORMAT, "'endif' has nothing that it belongs to"},
        {"{% for x in y %}{% endif %}", FORMAT, "'endif' has nothing"},
        {"{% for 1 in y %}", FORMAT, "expected a name, found '1'"},
        {"{% set true = 1 %}", FORMAT, "expected a name to assign to, found 'true'"},
        {"{% break %}", FORMAT, "break or continue outside of a for"},
        {"{% for x in y %}{% macro m() %}{% break %}", FORMAT, "outside of a for"},
        {"{{ 99999999999999999999 }}", FORMAT, "an integer above 64 bits"},
        {"{{ x[] }}", FORMAT, "expected a subscript"},
        {"{{ {'a' 1} }}", FORMAT, "expected :, found '1'"},
        {"{{ m(a=1, 2) }}", FORMAT, "expected a named argument"},
        {"{% set %}", FORMAT, "expected a name, found '%}'"},
    };
    CHECK(refusals);
}

static void test_run_time_errors(void **state) {
    (void)state;
    const refusal refusals[] = {
        {"\n{{ raise_exception('Not so.') }}", FORMAT,
         "chat template, line 2, column 4: it refuses this conversation: Not so."},
        {"{{ raise_exception('two\nlines\x1b[31m') }}", FORMAT, "two lines [31m"},
        /* as jinja2 and Python say it */
        {"{{ x.y }}", FORMAT, "'x' is undefined"},
        {"{{ messages[0].x.y }}", FORMAT, "'dict object' has no attribute 'x'"},
        {"{{ messages[0].foo() }}", FORMAT, "'dict object' has no attribute 'foo'"},
        {"{{ messages[7].x }}", FORMAT, "list object has no element 7"},
        {"{{ none.x.y }}", FORMAT, "'None' has no attribute 'x'"},
        {"{{ none[0].y }}", FORMAT, "None has no element 0"},
        {"{{ 'a'.b.c }}", FORMAT, "'str object' has no attribute 'b'"},
        {"{{ (1, 2)[2] + 1 }}", FORMAT, "tuple object has no element 2"},
        {"{{ {'items': 1}.items.x.y }}", FORMAT, "'builtin_function_or_method object' has no attribute 'x'"},
        {"{% set n = namespace() %}{{ n.x.y }}", FORMAT, "'jinja2.utils.Namespace object' has no attribute 'x'"},
        {"{{ ([] | first).x }}", FORMAT, "No first item, sequence was empty."},
        {"{{ ([] | last).x }}", FORMAT, "No last item, sequence was empty."},
        {"{{ ([] | max).x }}", FORMAT, "No aggregated item, sequence was empty."},
        {"\n{{ ('a' if false).x }}", FORMAT,
         "the inline if-expression on line 2 evaluated to false and no else section was defined."},
        {"{% macro m(a) %}{{ a.b }}{% endmacro %}{{ m() }}", FORMAT, "parameter 'a' was not provided"},
        {"{% for i in [1] %}{{ loop.previtem.x }}{% endfor %}", FORMAT, "there is no previous item"},
    };
    CHECK(refusals);
}

static void test_wrong_types(void **state) {
    (void)state;
    const refusal refusals[] = {
        {"{{ x + 'a' }}", FORMAT, "'x' is undefined"},
        {"{{ x < 1 }}", FORMAT, "'x' is undefined"},
        {"{{ x() }}", FORMAT, "'x' is undefined"},
        {"{{ 'a' + 1 }}", FORMAT, "can only concatenate str (not \"int\") to str"},
        {"{{ [] + (1, 2) }}", FORMAT, "can only concatenate list (not \"tuple\") to list"},
        {"{{ none + 'a' }}", FORMAT, "unsupported operand type(s) for +: 'NoneType' and 'str'"},
        {"{{ 'a' * 'b' }}", FORMAT, "can't multiply sequence by non-int of type 'str'"},
        {"{{ 'a' ** 2 }}", FORMAT, "unsupported operand type(s) for ** or pow(): 'str' and 'int'"},
        {"{{ 1.5 // 0 }}", FORMAT, "division by zero"},
        {"{{ 'a' | abs }}", FORMAT, "bad operand type for abs(): 'str'"},
        {"{{ 'a' | round }}", FORMAT, "type str doesn't define __round__ method"},
        {"{{ none is odd }}", FORMAT, "unsupported operand type(s) for %: 'NoneType' and 'int'"},
        {"{{ [1].index('a') }}", FORMAT, "'a' is not in list"},
        {"{{ 5 | last }}", FORMAT, "'int' object is not reversible"},
        {"{{ 5 | dictsort }}", FORMAT, "'int' object has no attribute 'items'"},
        {"{{ messages[0][1:] }}", FORMAT, "unhashable type: 'slice'"},
        {"{{ ('a' | safe).x.y }}", FORMAT, "'markupsafe.Markup object' has no attribute 'x'"},
        {"{{ 1 < 'a' }}", FORMAT, "'<' not supported between instances of 'int' and 'str'"},
        {"{{ 1 / 0 }}", FORMAT, "division by zero"},
        {"{{ 1 // 0 }}", FORMAT, "integer division or modulo by zero"},
        {"{{ 1 % 0 }}", FORMAT, "integer modulo by zero"},
        {"{% for x in none %}{% endfor %}", FORMAT, "'NoneType' object is not iterable"},
        {"{% for a, b in [[1]] %}{% endfor %}", FORMAT, "not enough values to unpack (expected 2, got 1)"},
        {"{% for a, b in [[1, 2, 3]] %}{% endfor %}", FORMAT, "too many values to unpack (expected 2)"},
        {"{{ 1 in 5 }}", FORMAT, "argument of type 'int' is not iterable"},
        {"{{ 1 in 'a' }}", FORMAT, "'in <string>' requires string as left operand, not int"},
        {"{{ none | length }}", FORMAT, "object of type 'NoneType' has no len()"},
        {"{{ 'a' | items }}", FORMAT, "Can only get item pairs from a mapping."},
        {"{% set x = none %}{{ x[1:] }}", FORMAT, "'NoneType' object is not subscriptable"},
        {"{{ missing | tojson }}", FORMAT, "Object of type Undefined is not JSON serializable"},
        /* generators, views and ranges are no lists */
        {"{{ [1] | map('upper') | tojson }}", FORMAT, "Object of type generator is not JSON serializable"},
        {"{{ {'a': 1}.items() | tojson }}", FORMAT, "Object of type dict_items is not JSON serializable"},
        {"{{ [1] | select | length }}", FORMAT, "object of type 'generator' has no len()"},
        {"{{ ([1] | select)[0].x }}", FORMAT, "generator object has no element 0"},
        {"{{ {'a': 1}.keys()[0].x }}", FORMAT, "dict_keys object has no element 0"},
        {"{{ ([1] | select)[:1] }}", FORMAT, "'generator' object is not subscriptable"},
        {"{{ [1] + ([2] | select) }}", FORMAT, "can only concatenate list (not \"generator\") to list"},
        {"{{ [1] | map('string') | last }}", FORMAT, "'generator' object is not reversible"},
    };
    CHECK(refusals);
}

static void test_wrong_values(void **state) {
    (void)state;
    const refusal refusals[] = {
        {"{% set messages[0].x = 1 %}", FORMAT, "expected %}"},
        {"{% set m = messages[0] %}{% set m.x = 1 %}", FORMAT, "cannot assign attribute on non-namespace object"},
        {"{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", FORMAT, "macro 'm' takes not more than 1 argument(s)"},
        {"{% macro m(a) %}{% endmacro %}{{ m(b=1) }}", FORMAT, "macro 'm' takes no keyword argument 'b'"},
        {"{{ 5() }}", FORMAT, "'int' object is not callable"},
        {"{{ 'a'.split('') }}", FORMAT, "empty separator"},
        {"{{ [1,2][::0] }}", FORMAT, "slice step cannot be zero"},
        {"{{ [1, 'a'] | sort }}", FORMAT, "'<' not supported between instances of 'str' and 'int'"},
        {"{{ 5 | indent }}", FORMAT, "unsupported operand type(s) for +=: 'int' and 'str'"},
        {"{{ [] in {} }}", FORMAT, "unhashable type: 'list'"},
        {"{{ [{}] | unique | list }}", FORMAT, "unhashable type: 'dict'"},
        {"{% filter length %}a{% endfilter %}", FORMAT, "gives an integer, not a string"},
        {"{{ range(9223372036854775807, -9223372036854775807, 1 - 9223372036854775807) | list | "
         "length + 'x' }}", FORMAT, "unsupported operand type(s) for +: 'int' and 'str'"},
        {"{{ 9223372036854775807 + 1 }}", UNSUPPORTED, "an integer above 64 bits"},
    };
    CHECK(refusals);
}

/* What jinja2's sandbox is there to stop (CVE-2024-34359 and its kind). */
static void test_nothing_to_escape_to(void **state) {
    (void)state;
    const refusal refusals[] = {
        {"{{ ''.__class__.__mro__[1].__subclasses__() }}", FORMAT,
         "access to attribute '__class__' of 'str' object is unsafe."},
        {"{{ messages['__class__'].x }}", FORMAT, "access to attribute '__class__' of 'list' object is unsafe."},
        {"{{ range.__globals__.x }}", FORMAT, "access to attribute '__globals__' of 'function' object is unsafe."},
        {"{{ [].append(1) }}", FORMAT, "access to attribute 'append' of 'list' object is unsafe."},
        {"{{ {}.update({}) }}", FORMAT, "access to attribute 'update' of 'dict' object is unsafe."},
        {"{{ messages[0].pop('role') }}", FORMAT, "access to attribute 'pop' of 'dict' object is unsafe."},
        {"{{ self.__init__ }}", FORMAT, "'self' is undefined"},
        {"{{ cycler.__init__.__globals__.os.popen('id').read() }}", FORMAT, "'cycler'"},
        {"{{ ([''] | map(attribute='__class__') | first).x }}", FORMAT, "'__class__' of 'str' object is unsafe."},
        {"{{ 'a'.format(1) }}", UNSUPPORTED, "method 'format'"},
        {"{{ range.name.x }}", FORMAT, "'function object' has no attribute 'name'"},
        {"{{ open('/etc/passwd') }}", FORMAT, "'open' is undefined"},
    };
    CHECK(refusals);
    assert_renders("{{ ''.__class__ }}{{ [].append is defined }}|{{ {'_id': 1}._id }}", "False|1"); /* as jinja2 */
}

static void test_limits(void **state) {
    (void)state;
    const refusal refusals[] = {
        {"{% set r = range(1000) %}{% for i in r %}{% for j in r %}{% for k in r %}{% endfor %}"
         "{% endfor %}{% endfor %}", FORMAT, "the limit of 5000000 steps"},
        {"{% for i in range(1000) %}{% set x = range(100000) %}{% endfor %}", FORMAT,
         "its limit of 128 MiB of memory"},
        {"{% for i in range(100001) %}{% endfor %}", FORMAT, "the limit of 100000 items"},
        {"{{ 'aaaaaaaaaaaaaaaa' * 1048577 }}", FORMAT, "the limit of 16 MiB of output"},
        {"{% set ns = namespace(s='a') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}"
         "{% endfor %}", FORMAT, "the limit of 16 MiB of output"},
        {"{% set s = 'a' * 1000 %}{% for i in range(100000) %}{{ s }}{% endfor %}", FORMAT,
         "the limit of 16 MiB of output"},
        {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", FORMAT,
         "maximum recursion depth exceeded: it nests more than the limit of 200 calls"},
        {"{% set n = namespace(l=[]) %}{% for i in range(99999) %}{% set n.l = n.l + [i] %}"
         "{% endfor %}", FORMAT, "limit of"},
    };
    CHECK(refusals);
}

/* prefix, then `middle` many times, then suffix. */
static char *repeated(const char *prefix, const char *middle, size_t times, const char *suffix) {
    const size_t length = strlen(middle);
    char *text = malloc(strlen(prefix) + length * times + strlen(suffix) + 1);
    assert_non_null(text);
    strcpy(text, prefix);
    char *at = text + strlen(prefix);
    for (size_t i = 0; i < times; i++, at += length) memcpy(at, middle, length + 1);
    strcpy(at, suffix);
    return text;
}

static void test_nesting_limits(void **state) {
    (void)state;
    const char *const middles[] = {"(", "[", "not ", "- ", "{% if 1 %}", "x if 1 else ", "{'a':",
                                   "f(", "x[", "{% set x %}", "{% filter upper %}"};
    for (size_t i = 0; i < sizeof middles / sizeof middles[0]; i++) {
        const bool tag = middles[i][0] == '{' && middles[i][1] == '%';
        char *source = repeated(tag ? "" : "{{ ", middles[i], 5000, tag ? "" : " }}");
        pi2_rendered_chat rendered;
        assert_int_equal(render_with(source, "Bye", &rendered), PI2_ERR_FORMAT);
        if (strstr(pi2_error_text(), "limit of 100 levels") == NULL &&
            strstr(pi2_error_text(), "nest too deeply") == NULL)
            fail_msg("%.40s: %s", source, pi2_error_text());
        free(source);
    }
    char *chain = repeated("{{ 1", " + 1", 5000, " }}"); /* parsed in a row, but run as a tree */
    pi2_rendered_chat rendered;
    assert_int_equal(render_with(chain, "Bye", &rendered), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "the limit of 200 calls"));
    free(chain);
    chain = repeated("{{ 1", " + 1", 150, " }}");
    assert_renders(chain, "151");
    free(chain);
}

static void test_size_and_date(void **state) {
    (void)state;
    char *source = repeated("", "0123456789abcdef", (1 << 16) + 1, "");
    pi2_chat_template *chat_template = NULL;
    pi2_rendered_chat rendered;
    assert_int_equal(pi2_chat_template_parse(source, strlen(source), &chat_template),
                     PI2_ERR_FORMAT);
    assert_null(chat_template);
    assert_non_null(strstr(pi2_error_text(), "the limit is 1048576"));
    free(source);
    const char *const dates[] = {"2026-13-01", "2026-1-1", "today", "2026-11-23 ", "2026-11-23 25:00:00"};
    assert_int_equal(pi2_chat_template_parse("x", 1, &chat_template), PI2_OK);
    for (size_t i = 0; i < sizeof dates / sizeof dates[0]; i++) {
        const pi2_chat_inputs inputs = {.date_string = dates[i]};
        assert_int_equal(pi2_chat_template_render(chat_template, &inputs, &rendered),
                         PI2_ERR_INVALID);
        assert_non_null(strstr(pi2_error_text(), dates[i]));
    }
    const pi2_chat_inputs nothing = {0}; /* no messages, no tokens, the present day */
    assert_int_equal(pi2_chat_template_render(chat_template, &nothing, &rendered), PI2_OK);
    assert_int_equal(rendered.segment_count, 1);
    pi2_rendered_chat_free(&rendered);
    pi2_rendered_chat_free(&rendered); /* a second time does nothing */
    pi2_chat_template_free(chat_template);
    pi2_chat_template_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_names),
        cmocka_unit_test(test_unreached_names),
        cmocka_unit_test(test_syntax),
        cmocka_unit_test(test_run_time_errors),
        cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_wrong_values),
        cmocka_unit_test(test_nothing_to_escape_to),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_nesting_limits),
        cmocka_unit_test(test_size_and_date),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
