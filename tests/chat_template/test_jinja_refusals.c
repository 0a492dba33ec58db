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
        {"a\nb {{ x | foo }}", UNSUPPORTED,
         "chat template, line 2, column 10: filter 'foo' is not supported; use 'run --raw' or "
         "'run --chat-template NAME'"},
        {"{{ 1 is foo }}", UNSUPPORTED, "line 1, column 9: test 'foo'"},
        {"{{ 'a'.zfill(3) }}", UNSUPPORTED, "method 'zfill' of a string"},
        {"{{ [].sort() }}", UNSUPPORTED, "method 'sort' of a list"},
        {"{{ {}.update({}) }}", UNSUPPORTED, "method 'update' of a mapping"},
        {"{{ messages[0].foo() }}", UNSUPPORTED, "method 'foo'"},
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
        {"{{ 2.5 ** 2 }}", UNSUPPORTED, "the operator ** on a float"},
        {"{{ strftime_now('%Q') }}", UNSUPPORTED, "the date format '%Q'"},
        {"{{ [1] | map('foo') }}", UNSUPPORTED, "filter 'foo'"},
        {"{{ [1] | select('foo') }}", UNSUPPORTED, "test 'foo'"},
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
        {"{{ x.y }}", FORMAT, "'x' is undefined"},
        {"{{ messages[0].x.y }}", FORMAT, "'x' is undefined"},
        {"{{ x + 'a' }}", FORMAT, "'x' is undefined"},
        {"{{ 'a' + 1 }}", FORMAT, "a string + an integer has no result"},
        {"{{ none + 'a' }}", FORMAT, "none + a string has no result"},
        {"{{ 1 < 'a' }}", FORMAT, "an integer < a string cannot be compared"},
        {"{{ 1 / 0 }}", FORMAT, "a division by zero"},
        {"{{ 1 // 0 }}{{ 1 % 0 }}", FORMAT, "a division by zero"},
        {"{% for x in none %}{% endfor %}", FORMAT, "none has no items to visit"},
        {"{% for a, b in [[1]] %}{% endfor %}", FORMAT, "2 names are set to 1 values"},
        {"{{ 1 in 5 }}", FORMAT, "an integer holds nothing"},
        {"{{ none | length }}", FORMAT, "none has no length"},
        {"{{ missing | tojson }}", FORMAT, "tojson of 'missing', which is undefined"},
        {"{% set messages[0].x = 1 %}", FORMAT, "expected %}"},
        {"{% set m = messages[0] %}{% set m.x = 1 %}", FORMAT, "only of a namespace"},
        {"{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", FORMAT, "takes 1 arguments, not 2"},
        {"{% macro m(a) %}{% endmacro %}{{ m(b=1) }}", FORMAT, "no parameter of one of these"},
        {"{{ 5() }}", FORMAT, "an integer cannot be called"},
        {"{{ 'a'.split('') }}", FORMAT, "split by an empty separator"},
        {"{{ [1,2][::0] }}", FORMAT, "a slice's step cannot be 0"},
        {"{{ [1, 'a'] | sort }}", FORMAT, "cannot be ordered"},
        {"{{ 5 | indent }}", FORMAT, "'indent' needs a string, not an integer"},
        {"{{ [] in {} }}", FORMAT, "a list cannot be a key"},
        {"{{ [{}] | unique | list }}", FORMAT, "a mapping cannot be a key"},
        {"{% filter length %}a{% endfilter %}", FORMAT, "gives an integer, not a string"},
        {"{{ [].pop() }}", FORMAT, "pop of an item that the list does not have"},
        {"{{ range(9223372036854775807, -9223372036854775807, 1 - 9223372036854775807) | list | "
         "length + 'x' }}", FORMAT, "an integer + a string"},
        {"{{ 9223372036854775807 + 1 }}", UNSUPPORTED, "an integer above 64 bits"},
    };
    CHECK(refusals);
}

/* What jinja2's sandbox is there to stop (CVE-2024-34359 and its kind). */
static void test_nothing_to_escape_to(void **state) {
    (void)state;
    const refusal refusals[] = {
        {"{{ ''.__class__.__mro__[1].__subclasses__() }}", UNSUPPORTED, "attribute '__class__'"},
        {"{{ messages['__class__'] }}", UNSUPPORTED, "attribute '__class__'"},
        {"{{ range.__globals__ }}", UNSUPPORTED, "'__globals__'"},
        {"{{ self.__init__ }}", FORMAT, "'self' is undefined"},
        {"{{ cycler.__init__.__globals__.os.popen('id').read() }}", FORMAT, "'cycler'"},
        {"{{ [''] | map(attribute='__class__') | list }}", UNSUPPORTED, "'__class__'"},
        {"{{ 'a'.format(1) }}", UNSUPPORTED, "method 'format'"},
        {"{{ range.name }}", UNSUPPORTED, "attribute 'name' of a function"},
        {"{{ open('/etc/passwd') }}", UNSUPPORTED, "function 'open'"},
    };
    CHECK(refusals);
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
        {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", FORMAT, "the limit of 200 calls"},
        {"{% set n = namespace(l=[]) %}{% for i in range(99999) %}{% set n.l = n.l + [i] %}"
         "{% endfor %}", FORMAT, "limit of"},
        {"{% set l = [1] %}{% for i in l %}{% set _ = l.append(i) %}{% endfor %}", FORMAT, "limit of"},
        {"{% set l = [] %}{% set _ = l.append(l) %}{{ l }}", FORMAT, "the limit of 100 levels"},
        {"{% set l = [] %}{% set _ = l.append(l) %}{{ l == [l] }}{{ l | tojson }}", FORMAT,
         "the limit of 100 levels"},
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

/* append and pop, which jinja2's immutable sandbox refuses and other interpreters have. */
static void test_changed_lists(void **state) {
    (void)state;
    assert_renders("{% set l = [1] %}{% set _ = l.append(2) %}{{ l }}{{ l.pop(0) }}{{ l.pop() }}{{ l }}",
                   "[1, 2]12[]");
    assert_renders("{% set q = namespace(ids=[]) %}{% set _ = q.ids.append('a') %}{{ q.ids.pop(0) }}", "a");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_names),
        cmocka_unit_test(test_unreached_names),
        cmocka_unit_test(test_syntax),
        cmocka_unit_test(test_run_time_errors),
        cmocka_unit_test(test_nothing_to_escape_to),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_nesting_limits),
        cmocka_unit_test(test_size_and_date),
        cmocka_unit_test(test_changed_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
