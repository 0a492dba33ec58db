/* Goal:   every construct gives the text that jinja2 gives, set up as transformers does it.
 * Method: templates beside their text. The texts were made with jinja2 3.1 (the environment of
 *         tests/golden/make_chat_templates.py), over the messages Hi, Yo, Bye on 2026-11-23. */
#include "chat_template/chat_template_test.h"

typedef struct construct {
    const char *source, *text;
} construct;

static void check_all(const construct *constructs, size_t count) {
    for (size_t i = 0; i < count; i++) assert_renders(constructs[i].source, constructs[i].text);
}

static const construct white_space[] = {
    {"a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc"},
    {"a {%- if true %} b {%- endif %} c", "a b c"},
    {"a {% if true -%} b {% endif -%} c", "a b c"},
    {"  {{ 1 }}\n{{ 2 }}\n", "  1\n2"},
    {"  {{- 1 -}}\n\n {{ 2 }}", "12"},
    {"x\n  {# note #}\ny", "x\ny"},
    {"x  {#- note -#}  y", "xy"},
    {"x {%+ if true %} y {%+ endif %} z", "x  y  z"},
    {"  {%+ if true %}a{% endif %}", "  a"},
    {"a{% if true +%}\nb{% endif +%}\nc", "a\nb\nc"},
    {"a\n\t {%- set x = 1 -%} \n b", "ab"},
    {"{% if true %}\n\n\na{% endif %}\n\n", "\n\na"},
    {"a\r\nb\r{% if true %}\r\nc{% endif %}", "a\nb\nc"},
    {"{% raw %}{{ x }} {% if %}{% endraw %}", "{{ x }} {% if %}"},
    {"a {%- raw -%}  {{ x }}  {%- endraw -%} b", "a{{ x }}b"},
    {"{% raw %}\n a\n  {% endraw %}\nb", "\n a\nb"},
    {"{#--#}a{# #}", "a"},
    {"a{#\n{{ x }}\n#}\nb", "ab"},
    {"{{ '{{' }}{{ '%}' }}", "{{%}"},
    {"  {% set x = 1 %}  {% set y = 2 %}\n z", "   z"},
    {"{{ '}}' }}{{ {'a': {'b': 1}}['a']['b'] }}", "}}1"},
    {"one\n    {%- for i in [1,2] %}\n  {{ i }}\n    {%- endfor %}\ntwo", "one  1  2two"},
    {"{% for i in [1,2] -%}\n  {{ i }}\n{% endfor %}\n", "1\n2\n"},
    {"\343\200\200{%- if true -%}\302\240x{% endif %}", "x"},
    {"", ""},
    {"\n", ""},
    {"\n\n", "\n"},
    {"{{ 1 }}\n", "1"},
    {"{{ 1 -}}\n\n", "1"},
};

static const construct literals[] = {
    {"{{ 'a\\nb\\t\\'\\\"\\\\' }}", "a\nb\t'\"\\"},
    {"{{ 'caf\\xe9 \\u4f60 \\U0001F600' }}", "caf\303\251 \344\275\240 \360\237\230\200"},
    {"{{ 'a\\qb\\101' }}", "a\\qbA"},
    {"{{ 'a' \"b\" 'c' }}", "abc"},
    {"{{ 12 }} {{ 1_000 }} {{ 0x1F }} {{ 0o17 }} {{ 0b101 }}", "12 1000 31 15 5"},
    {"{{ 1.5 }} {{ 2.0 }} {{ 1e3 }} {{ 1.25e-2 }} {{ 0.1 }}", "1.5 2.0 1000.0 0.0125 0.1"},
    {"{{ 1e16 }} {{ 123456789012345.0 }} {{ 1e-5 }} {{ 0.0001 }} {{ 1.5e20 }}",
     "1e+16 123456789012345.0 1e-05 0.0001 1.5e+20"},
    {"{{ true }} {{ True }} {{ false }} {{ none }} {{ None }}", "True True False None None"},
    {"{{ [1, 'a', none, 2.5, true] }}", "[1, 'a', None, 2.5, True]"},
    {"{{ {'a': 1, 2: 'b'} }}", "{'a': 1, 2: 'b'}"},
    {"{{ (1, 2) }} {{ (1,) }} {{ () }} {{ [] }} {{ {} }}", "(1, 2) (1,) () [] {}"},
    {"{{ 1, 2 }}", "(1, 2)"},
    {"{{ [1, [2, {'k': (3,)}]] }}", "[1, [2, {'k': (3,)}]]"},
    {"{{ ['it\\'s', 'say \\\"x\\\"', 'both\\' \\\"', 'a\\nb\\\\', '\\x01\\u200b\\u00e9'] }}",
     "[\"it's\", 'say \"x\"', 'both\\' \"', 'a\\nb\\\\', '\\x01\\u200b\303\251']"},
    {"{{ [1,2,] }}{{ {'a':1,} }}", "[1, 2]{'a': 1}"},
    {"{{ 'multi\nline' }}", "multi\nline"},
    {"{{ (1) }}", "1"},
    {"{{ ((1, 2), 3) }}", "((1, 2), 3)"},
};

static const construct arithmetic[] = {
    {"{{ 1 + 2 * 3 - 4 }}", "3"},
    {"{{ 7 / 2 }} {{ 8 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }}",
     "3.5 4.0 3 -4 1 2 -2"},
    {"{{ 2 ** 10 }} {{ 2 ** 3 ** 2 }}", "1024 64"},
    {"{{ -2 ** 2 }} {{ -(3) }} {{ +4 }} {{ - -1 }}", "4 -3 4 1"},
    {"{{ 'a' + 'b' * 3 }} {{ 2 * 'xy' }} {{ [1] * 2 + [3] }} {{ (1,) + (2,) }}",
     "abbb xyxy [1, 1, 3] (1, 2)"},
    {"{{ 'a' ~ 1 ~ none ~ [1] ~ 2.0 }}", "a1None[1]2.0"},
    {"{{ 1.5 + 1 }} {{ true + 1 }} {{ 3 * 0.5 }} {{ 0.1 + 0.2 }}",
     "2.5 2 1.5 0.30000000000000004"},
    {"{{ 1 - 0.9 }}{{ 1/3 }}", "0.099999999999999980.3333333333333333"},
    {"{{ 'x' * 0 }}{{ 'x' * -1 }}|{{ [1] * 0 }}", "|[]"},
    {"{{ 10 - 2 - 3 }} {{ 100 / 10 / 5 }}", "5 2.0"},
    {"{{ -5 | abs }} {{ (-5) | abs }}", "5 5"},
    {"{{ 9007199254740993 + 1 }}", "9007199254740994"},
};

static const construct comparison[] = {
    {"{{ 1 == 1.0 }} {{ 1 == true }} {{ '1' == 1 }} {{ none == none }} {{ none == false }}",
     "True True False True False"},
    {"{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 3 > 2 >= 2 }}", "True False True"},
    {"{{ 'a' < 'b' }} {{ 'ab' < 'a' }} {{ [1,2] < [1,3] }} {{ 'Z' < 'a' }}",
     "True False True True"},
    {"{{ 'b' in 'abc' }} {{ 'x' not in 'abc' }} {{ 1 in [1,2] }} {{ 'a' in {'a': 1} }} {{ ''"
     " in 'a' }}",
     "True True True True True"},
    {"{{ [1, {'a': 2}] == [1, {'a': 2}] }} {{ (1,) == [1] }} {{ {'a':1,'b':2} == {'b':2,'a':"
     "1} }}",
     "True False True"},
    {"{{ not true }} {{ not 0 }} {{ not '' and not [] }} {{ not 1 in [1] }}",
     "False True True False"},
    {"{{ 0 or 'x' }} {{ 1 and 'y' }} {{ '' or none }} {{ 0 and 1 }} {{ nope or 'd' }}",
     "x y None 0 d"},
    {"{{ 'a' if true else 'b' }} {{ 'a' if false else 'b' }} [{{ 'a' if false }}]", "a b []"},
    {"{{ 'x' if 0 else 'y' if 0 else 'z' }}", "z"},
    {"{{ 1 if true else 2 + 5 }}", "1"},
    {"{{ missing in [1] }} {{ 1 in missing }}", "False False"},
    {"{{ missing == other }}{{ missing == none }}", "TrueFalse"},
    {"{{ 1 != 2 }} {{ 'a' != 'a' }}", "True False"},
    {"{{ 1 == 1 and 2 == 2 or false }}", "True"},
    {"{{ (messages[0]['role'] == 'user') != (0 % 2 == 0) }}", "False"},
};

static const construct names_and_subscripts[] = {
    {"{{ messages[0].role }} {{ messages[-1]['content'] }} {{ messages[0]['nope'] }}|{{ mess"
     "ages[9] }}|",
     "user Bye ||"},
    {"{{ 'hello'[1] }} {{ 'hello'[-1] }} {{ 'hello'[9] }}|", "e o |"},
    {"{{ 'hello'[1:3] }} {{ 'hello'[:-1] }} {{ 'hello'[::-1] }} {{ 'hello'[::2] }} {{ 'hello"
     "'[4:1:-1] }}",
     "el hell olleh hlo oll"},
    {"{{ [1,2,3,4][1:] }} {{ [1,2,3,4][:2] }} {{ [1,2,3,4][::-1] }} {{ [1,2,3,4][-2:] }} {{ "
     "[1,2,3][5:] }} {{ (1,2,3)[1:] }}",
     "[2, 3, 4] [1, 2] [4, 3, 2, 1] [3, 4] [] (2, 3)"},
    {"{{ 'h\303\251llo\344\275\240'[1:6] }} {{ '\344\275\240\345\245\275'[::-1] }} {{ '\344"
     "\275\240\345\245\275'[1] }}",
     "\303\251llo\344\275\240 \345\245\275\344\275\240 \345\245\275"},
    {"{{ {'a': {'b': [10, 20]}}.a.b[1] }} {{ [[1,2],[3]].0.1 }}", "20 2"},
    {"{{ messages[0].get('role') }} {{ messages[0].get('x') }} {{ messages[0].get('x', 'd') }}",
     "user None d"},
    {"{{ {'items': 5}['items'] }} {{ {'a': 1}.items() | list }}", "5 [('a', 1)]"},
    {"{% set d = {'a': 1} %}{{ d['a'] }}{{ d['b'] is defined }}{{ d.a is defined }}",
     "1FalseTrue"},
    {"{{ messages[1:] | length }} {{ messages[1:][0].role }}", "2 assistant"},
    {"{{ none.x is defined }} {{ (5).x is defined }} {{ 'abc'.nope is defined }}",
     "False False False"},
    {"{{ [1,2,3][true] }}", "2"},
    {"{{ 'abc'[none:2] }}", "ab"},
    {"{{ 'abc'[-100:100] }} {{ 'abc'[2:1] }}|", "abc |"},
};

static const construct set_and_scope[] = {
    {"{% set x = 1 %}{{ x }}{% set x = x + 1 %}{{ x }}", "12"},
    {"{% set x = 1 %}{% for i in [1,2] %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}", "221"},
    {"{% set ns = namespace(n=0) %}{% for i in [1,2,3] %}{% set ns.n = ns.n + i %}{% endfor "
     "%}{{ ns.n }}",
     "6"},
    {"{% set a, b = 1, 2 %}{{ b }}{{ a }}", "21"},
    {"{% set (a, b) = [3, 4] %}{{ a + b }}", "7"},
    {"{% set x %} hi {{ 1 + 1 }} {% endset %}[{{ x }}]", "[ hi 2 ]"},
    {"{% set x | trim | upper %} hi {% endset %}[{{ x }}]", "[HI]"},
    {"{% if true %}{% set y = 5 %}{% endif %}{{ y }}", "5"},
    {"{% set x %}{% set y = 1 %}{{ y }}{% endset %}{{ x }}{{ y is defined }}", "1False"},
    {"{% with a = 4 %}{{ a }}{% endwith %}{{ a is defined }}", "4False"},
    {"{% set ns = namespace(a=1, b='x') %}{{ ns.a }}{{ ns.b }}{{ ns.c is defined }}{% set ns"
     ".c = [1] %}{{ ns.c }}",
     "1xFalse[1]"},
    {"{% set x = 1, 2 %}{{ x }}", "(1, 2)"},
    {"{% set tools = 3 %}{{ tools }}", "3"},
    {"{% for i in [1] %}{% if not q is defined %}{% set q = i %}{% endif %}{{ q }}{% endfor "
     "%}{{ q is defined }}",
     "1False"},
    {"{% set ns = namespace({'a': 2}) %}{{ ns.a }}", "2"},
    {"{% set loop_messages = messages[1:] %}{% for m in loop_messages %}{{ m.content }}{% en"
     "dfor %}",
     "YoBye"},
};

static const construct loops[] = {
    {"{% for i in [1,2,3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revi"
     "ndex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }};{% endfor %}",
     "1032TrueFalse3;2121FalseFalse3;3210FalseTrue3;"},
    {"{% for i in [] %}x{% else %}none{% endfor %}", "none"},
    {"{% for i in [1,2,3,4] if i % 2 == 0 %}{{ i }}/{{ loop.length }} {% else %}e{% endfor %}",
     "2/2 4/2 "},
    {"{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}", "a=1;b=2;"},
    {"{% for k in {'a': 1} %}{{ k }}{% endfor %}{% for c in 'h\303\251' %}<{{ c }}>{% endfor %}",
     "a<h><\303\251>"},
    {"{% for a, (b, c) in [[1, (2, 3)]] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "123"},
    {"{% for x in [1,2,3] %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }}{{ loop.previtem "
     "is defined }}{% endfor %}",
     "<1>2False1<2>3True2<3>True"},
    {"{% for i in [1,2,3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "13"},
    {"{% for i in [1,2,3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"},
    {"{% for i in [1,2] %}{% for j in [1,2] %}{{ loop.index }}{% if j == 1 %}{% continue %}{"
     "% endif %}x{% endfor %}{{ loop.index }}{% endfor %}",
     "12x112x2"},
    {"{% for i in range(3) %}{{ i }}{% endfor %}{{ range(1, 10, 4) | list }}{{ range(3, 0, -"
     "1) | list }}{{ range(0) | list }}",
     "012[1, 5, 9][3, 2, 1][]"},
    {"{% for i in missing %}x{% else %}y{% endfor %}", "y"},
    {"{% for i in 1, 2 %}{{ i }}{% endfor %}", "12"},
    {"{% for m in messages[::-1] %}{{ m.role[0] }}{% endfor %}", "uau"},
    {"{% for i in [3] %}{{ i }}{% endfor %}{{ i is defined }}{{ loop is defined }}",
     "3FalseFalse"},
    {"{% for i in [1,2] if i > 5 %}{% else %}none{% endfor %}", "none"},
    {"{% for i in [1,2,3] %}{{ i }}{{ ', ' if not loop.last }}{% endfor %}", "1, 2, 3"},
    {"{% for i in (1,2) %}{{ loop.index0 % 2 == 0 }}{% endfor %}", "TrueFalse"},
};

static const construct branches[] = {
    {"{% if 0 %}a{% elif '' %}b{% elif 1 %}c{% else %}d{% endif %}", "c"},
    {"{% if none %}a{% else %}b{% endif %}", "b"},
    {"{% if messages %}y{% endif %}{% if tools %}n{% endif %}", "y"},
    {"{% if 1 == 1 and 'a' in 'abc' %}y{% endif %}", "y"},
    {"{% if not (1 == 2) %}y{% endif %}", "y"},
    {"{% if tools is not none and tools %}a{% else %}b{% endif %}", "b"},
    {"{% if missing %}a{% else %}b{% endif %}", "b"},
    {"{% if {} or [] or 0.0 or false %}a{% else %}b{% endif %}", "b"},
};

static const construct macros[] = {
    {"{% macro m(a, b=2) %}{{ a }}-{{ b }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=4, a="
     "5) }}{{ m() }}",
     "1-2;1-3;5-4;-2;"},
    {"{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
     "321"},
    {"{% set g = 'G' %}{% macro m() %}{{ g }}{% set g = 'L' %}{{ g }}{% endmacro %}{{ m() }}"
     "{{ g }}",
     "GLG"},
    {"{% macro m(x) -%}\n  {{ x }}\n{%- endmacro %}[{{ m('a') | upper }}]{{ m('b') ~ 'c' }}",
     "[A]bc"},
    {"{% macro box(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call box('p') %}hi"
     "{% endcall %}",
     "<p>hi</p>"},
    {"{% macro each(xs) %}{% for x in xs %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call("
     "y) each([1,2]) %}[{{ y }}]{% endcall %}",
     "[1][2]"},
    {"{% macro m(a, b=a ~ '!') %}{{ b }}{% endmacro %}{{ m('x') }}", "x!"},
    {"{% for i in [1,2] %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}", "12"},
    {"{% macro m(x) %}{{ x is defined }}{% endmacro %}{{ m() }}{{ m(1) }}", "FalseTrue"},
    {"{% macro m() %}{% for i in [1,2] %}{{ i }}{% endfor %}{% endmacro %}{{ m() }}{{ m()|le"
     "ngth }}",
     "122"},
    {"{% macro m(a) %}{{ a }}{% endmacro %}{% set r = m('q') %}{{ r is string }}{{ r }}",
     "Trueq"},
};

static const construct blocks[] = {
    {"{% filter upper %}a{{ 'b' }}{% endfilter %}", "AB"},
    {"{% filter trim | replace('a', 'b') %}  aXa {% endfilter %}|", "bXb|"},
    {"{% generation %}a{{ 1 }}{% endgeneration %}b", "a1b"},
};

static const construct tests_after_is[] = {
    {"{{ x is defined }} {{ x is not defined }} {{ messages is defined }} {{ x is undefined }}",
     "False True True True"},
    {"{{ none is none }} {{ 1 is none }} {{ tools is not none }}", "True False False"},
    {"{{ 'a' is string }} {{ 1 is string }} {{ 1 is number }} {{ 1.5 is number }} {{ true is"
     " number }} {{ 'a' is number }}",
     "True False True True True False"},
    {"{{ {} is mapping }} {{ [] is mapping }} {{ [] is iterable }} {{ 'a' is iterable }} {{ "
     "1 is iterable }} {{ {} is iterable }}",
     "True False True True False True"},
    {"{{ [] is sequence }} {{ 'a' is sequence }} {{ {} is sequence }} {{ 1 is sequence }} {{"
     " none is sequence }}",
     "True True True False False"},
    {"{{ true is boolean }} {{ 1 is boolean }} {{ true is true }} {{ 1 is true }} {{ false i"
     "s false }}",
     "True False True False True"},
    {"{{ 1 is integer }} {{ true is integer }} {{ 1.0 is float }} {{ 1 is float }}",
     "True False True False"},
    {"{{ 3 is odd }} {{ 3 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }}",
     "True False True False"},
    {"{{ 1 is eq 1 }} {{ 1 is equalto(2) }} {{ 2 is gt 1 }} {{ 2 is lt(1) }} {{ 2 is ne 3 }}"
     " {{ 2 is ge 2 }} {{ 1 is in [1,2] }} {{ 'a' is in 'b' }}",
     "True False True False True True True False"},
    {"{{ 'ab' is lower }} {{ 'AB' is upper }} {{ 'Ab' is upper }} {{ '1' is lower }}",
     "True True False False"},
    {"{{ raise_exception is callable }} {{ 1 is callable }}", "True False"},
    {"{{ none is sameas none }} {{ false is sameas(true) }}", "True False"},
    {"{{ x is string }} {{ x is mapping }} {{ x is iterable }} {{ x is sequence }} {{ x is n"
     "one }}",
     "False False True True False"},
    {"{{ 'a' is string and 1 is number }} {{ 'a' is string or x }}", "True True"},
    {"{{ not x is defined }} {{ 1 + 1 is number }}", "True 2"},
    {"{{ messages is iterable and messages is not string and messages is not mapping }}",
     "True"},
    {"{{ strftime_now is defined }}", "True"},
    {"{{ 'x' if 1 is defined else 'y' }}", "x"},
};

static const construct text_filters[] = {
    {"[{{ '  a b \n' | trim }}] [{{ 'xxaxx' | trim('x') }}]", "[a b] [a]"},
    {"{{ 'abc' | upper }} {{ 'ABC' | lower }} {{ 'hello wORLD-foo (bar' | title }} {{ 'hELLO"
     "' | capitalize }}",
     "ABC abc Hello World-Foo (Bar Hello"},
    {"{{ '\303\251\303\237' | upper }} {{ '\303\211' | lower }} {{ '\320\264\320\260' | capi"
     "talize }}",
     "\303\211SS \303\251 \320\224\320\260"},
    {"{{ 'aXbXc' | replace('X', '-') }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 'ab' | replace"
     "('', '.') }}",
     "a-b-c bba .a.b."},
    {"{{ 12 | string | length }} {{ none | string }} {{ [1] | string }} {{ missing | string }}|",
     "2 None [1] |"},
    {"{{ 'a\nb\n\nc' | indent }}", "a\n    b\n\n    c"},
    {"{{ 'a\nb' | indent(2, true) }}", "  a\n  b"},
    {"{{ 'a\n\nb' | indent(2, first=true, blank=true) }}", "  a\n  \n  b"},
    {"{{ 'a\nb' | indent('> ') }}", "a\n> b"},
    {"{{ 'a\n' | indent(2) }}|", "a\n|"},
    {"{{ '<b>' | safe }}", "<b>"},
    {"{{ 5 | upper }} {{ 1.5 | trim }} {{ missing | upper }}|", "5 1.5 |"},
    {"{{ '\302\240 a\343\200\200' | trim }}|", "a|"},
    {"{{ 'h\303\251llo' | length }} {{ '\360\237\230\200' | count }}", "5 1"},
};

static const construct number_filters[] = {
    {"{{ '12' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ 3.9 | int }} {{ ' -4 ' | int }}"
     " {{ '3.7' | int }} {{ none | int }} {{ true | int }} {{ '1e2' | int }}",
     "12 0 7 3 -4 3 0 1 100"},
    {"{{ '1.5' | float }} {{ 2 | float }} {{ 'x' | float }} {{ 'x' | float(1.0) }}",
     "1.5 2.0 0.0 1.0"},
    {"{{ [1, 5, 3] | max }} {{ [4, 2] | min }} {{ [1, 2.5] | sum }} {{ [] | sum }} {{ [{'n':"
     " 2}, {'n': 3}] | sum(attribute='n') }}",
     "5 2 3.5 0 5"},
    {"{{ -3.5 | abs }} {{ (-3.5) | abs }}", "3.5 3.5"},
    {"{{ ['b', 'A'] | max }}", "b"},
};

static const construct value_filters[] = {
    {"{{ missing | default('d') }} {{ '' | default('d') }}| {{ '' | default('d', true) }} {{"
     " none | d('x') }} {{ none | d('x', true) }} {{ missing | default }}|",
     "d | d None x |"},
    {"{{ [1,2] | length }} {{ {'a': 1} | length }} {{ missing | length }} {{ (1,2,3) | count }}",
     "2 1 0 3"},
    {"{{ (messages | length) - 1 }}", "2"},
};

static const construct list_filters[] = {
    {"{{ [1, 'a', none] | join('-') }} {{ ['x', 'y'] | join }} {{ 'abc' | join(',') }} {{ [{"
     "'n': 1}, {'n': 2}] | join('+', attribute='n') }}",
     "1-a-None xy a,b,c 1+2"},
    {"{{ [1,2,3] | first }} {{ [1,2,3] | last }} {{ 'abc' | first }} {{ [] | first }}|",
     "1 3 a |"},
    {"{{ 'abc' | list }} {{ {'a': 1} | list }} {{ (1,2) | list }}",
     "['a', 'b', 'c'] ['a'] [1, 2]"},
    {"{{ [3,1,2] | sort }} {{ [3,1,2] | sort(reverse=true) }} {{ ['b','A','c'] | sort }} {{ "
     "['b','A','c'] | sort(case_sensitive=true) }} {{ [{'n': 2}, {'n': 1}] | sort(attribute="
     "'n') }}",
     "[1, 2, 3] [3, 2, 1] ['A', 'b', 'c'] ['A', 'b', 'c'] [{'n': 1}, {'n': 2}]"},
    {"{{ 2.5 ** 2 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 7.5 % -2 }} {{ 2 ** -1 }} {{ -7 // 2.0 }}",
     "6.25 3.0 0.5 -0.5 0.5 -4.0"},
    {"{{ 2.5 | round }} {{ 3.5 | round }} {{ 7 | round }} {{ 3.14159 | round(2) }} {{ 2.675 | round(2) }} {{ 3.2 | "
     "round(0, 'ceil') }} {{ 3.79 | round(1, 'floor') }} {{ true | round }}", "2.0 4.0 7 3.14 2.67 4.0 3.7 1"},
    {"{{ [1, 2, 1].count(1) }} {{ ('a', 'b').index('b') }} {{ [{}, {}] | sort }}", "2 1 [{}, {}]"},
    {"{{ '<' | e }} {{ '<b>' | safe + '<' }} {{ '&' + ('<' | safe) }} {{ ['<' | safe] }} {{ '<' | safe ~ '<' }} "
     "{{ 'a' | safe is escaped }} {{ ('<' | safe).replace('<', '>') }} {{ ('<' | safe) | replace('<', '>') }} "
     "{{ '&'|safe|e }}",
     "&lt; <b>&lt; &amp;< [Markup('<')] << True &gt; > &"},
    {"{% for i in [1, 2] %}{{ i }}{% continue %}{% else %}e{% endfor %}{% for i in [1, 2] %}{% if i == 2 %}{% break %}"
     "{% endif %}{% else %}f{% endfor %}{% for i in [1] %}{% break %}{% else %}g{% endfor %}", "12eg"},
    {"{% set g = [1, 2, 3] | select %}{{ g | first }}{{ 2 in g }}{{ g | list }}{{ g | list }}{% if g %}y{% endif %}",
     "1True[3][]y"},
    {"{{ {'a': 1}.items() }} {{ {'a': 1}.keys() }} {{ {'a': 1}.values() }} {{ {'a': 1}.items() | length }} {{ range(3)"
     "[1] }} {{ range(3) is sequence }} {{ {}.keys() is sequence }} {{ {}.keys() is iterable }}",
     "dict_items([('a', 1)]) dict_keys(['a']) dict_values([1]) 1 1 True False True"},
    {"{{ [1,2,3] | reverse | list }} {{ 'h\303\251y' | reverse }}", "[3, 2, 1] y\303\251h"},
    {"{{ ['a', 'A', 'b', 'a'] | unique | list }} {{ [1, 1.0, 2] | unique | list }}",
     "['a', 'b'] [1, 2]"},
    {"{{ {'b': 1, 'A': 2} | dictsort }} {{ {'b': 1, 'a': 2} | dictsort(by='value') }} {{ {'b"
     "': 1, 'a': 2} | dictsort(reverse=true) }}",
     "[('A', 2), ('b', 1)] [('b', 1), ('a', 2)] [('b', 1), ('a', 2)]"},
    {"{{ {'a': 1} | items | list }} {{ missing | items | list }}", "[('a', 1)] []"},
    {"{{ ['a', 'b'] | map('upper') | list }} {{ messages | map(attribute='role') | join(',')"
     " }} {{ [{'a': 1}, {}] | map(attribute='a', default=0) | list }} {{ [' a'] | map('trim'"
     ") | list }} {{ ['a-b'] | map('replace', '-', '+') | list }}",
     "['A', 'B'] user,assistant,user [1, 0] ['a'] ['a+b']"},
    {"{{ [1,2,3,4] | select('odd') | list }} {{ [1,2,3,4] | reject('gt', 2) | list }} {{ [0,"
     " 1, ''] | select | list }} {{ none | select('odd') | list }}",
     "[1, 3] [1, 2] [1] []"},
    {"{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | r"
     "ejectattr('role', 'eq', 'user') | map(attribute='role') | list }} {{ [{'a': 1}, {}] | "
     "selectattr('a') | list }} {{ [{'a': {'b': 2}}] | selectattr('a.b', 'eq', 2) | list | l"
     "ength }}",
     "2 ['assistant'] [{'a': 1}] 1"},
    {"{{ [[1, 2], [3]] | map('first') | list }} {{ [(1, 'a')] | map(attribute=1) | list }}",
     "[1, 3] ['a']"},
    {"{{ 'b,a' | list | sort | join }}", ",ab"},
};

static const construct tojson[] = {
    {"{{ {'a': [1, 2.5, none, true], 'b': 'x\"\\n\303\251'} | tojson }}",
     "{\"a\": [1, 2.5, null, true], \"b\": \"x\\\"\\n\303\251\"}"},
    {"{{ {'a': [1, {'b': []}], 'c': {}} | tojson(indent=2) }}",
     "{\n  \"a\": [\n    1,\n    {\n      \"b\": []\n    }\n  ],\n  \"c\": {}\n}"},
    {"{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }} {{ [1, 2] | tojson(separators=(',', ':"
     "')) }}",
     "{\"a\": 2, \"b\": 1} [1,2]"},
    {"{{ '\303\251\360\237\230\200\177' | tojson(ensure_ascii=true) }} {{ '\303\251<>&\\u000"
     "1' | tojson }}",
     "\"\\u00e9\\ud83d\\ude00\\u007f\" \"\303\251<>&\\u0001\""},
    {"{{ (1, 2) | tojson }} {{ 'a/b' | tojson }} {{ 1.0 | tojson }} {{ {1: 2, none: 3, true:"
     " 4} | tojson }}",
     "[1, 2] \"a/b\" 1.0 {\"1\": 4, \"null\": 3}"},
    {"{{ [] | tojson(indent=4) }} {{ [1] | tojson(indent='\\t') }}", "[] [\n\t1\n]"},
    {"{{ messages[0] | tojson }}", "{\"role\": \"user\", \"content\": \"Hi\"}"},
    {"{{ {'a': {'b': [1, 2]}} | tojson(indent=4) }}",
     "{\n    \"a\": {\n        \"b\": [\n            1,\n            2\n        ]\n    }\n}"},
    {"{{ [1, [2]] | tojson(indent=0) }}", "[\n1,\n[\n2\n]\n]"},
};

static const construct methods[] = {
    {"[{{ '  a '.strip() }}] [{{ ' a '.lstrip() }}] [{{ ' a '.rstrip() }}] [{{ 'xyaxy'.strip"
     "('yx') }}] [{{ '\n\na'.lstrip('\n') }}]",
     "[a] [a ] [ a] [a] [a]"},
    {"{{ 'a,b,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ ' a  b '.split() }} {{ 'abc'.s"
     "plit('x') }} {{ 'a b c'.split(none, 1) }} {{ ''.split(',') }} {{ ''.split() }} {{ 'a,b"
     "'.split(sep=',', maxsplit=-1) }}",
     "['a', 'b', 'c'] ['a', 'b,c'] ['a', 'b'] ['abc'] ['a', 'b c'] [''] [] ['a', 'b']"},
    {"{{ 'a,b,c'.rsplit(',', 1) }} {{ 'a<x>b<x>c'.rsplit('<x>', 5) }}",
     "['a,b', 'c'] ['a', 'b', 'c']"},
    {"{{ 'a\nb\r\nc\n'.splitlines() }}", "['a', 'b', 'c']"},
    {"{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('bc') }} {{ 'abc'.startswith(('x', 'a')"
     ") }} {{ 'abc'.endswith('abcd') }} {{ 'abc'.startswith('') }}",
     "True True True False True"},
    {"{{ 'aB'.upper() }} {{ 'aB'.lower() }} {{ \"it's a1b\".title() }} {{ 'aB'.capitalize() }}",
     "AB ab It'S A1B Ab"},
    {"{{ 'aaa'.replace('a', 'b') }} {{ 'aaa'.replace('a', 'b', 1) }} {{ 'abc'.replace('b', '"
     "') }}",
     "bbb baa ac"},
    {"{{ '-'.join(['a', 'b']) }} {{ ''.join([]) }}|", "a-b |"},
    {"{{ 'h\303\251llo'.find('l') }} {{ 'abc'.find('x') }} {{ 'banana'.count('an') }} {{ '12"
     "'.isdigit() }} {{ ''.isdigit() }} {{ ' \t'.isspace() }}",
     "2 -1 2 True False True"},
    {"{{ 'abcd'.removeprefix('ab') }} {{ 'abcd'.removesuffix('cd') }} {{ 'abcd'.removesuffix"
     "('x') }}",
     "cd ab abcd"},
    {"{{ {'a': 1, 'b': 2}.keys() | list }} {{ {'a': 1}.values() | list }} {{ {'a': 1}.items("
     ") | list }}",
     "['a', 'b'] [1] [('a', 1)]"},
    {"{{ 'a</think>b</think>c'.split('</think>')[-1].strip() }}", "c"},
    {"{{ 'x'.strip().upper().lower() }}", "x"},
};

static const construct functions[] = {
    {"{{ dict(a=1, b=2) }} {{ dict({'x': 1}, y=2) }}", "{'a': 1, 'b': 2} {'x': 1, 'y': 2}"},
    {"{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %b %Y') }} {{ strftime_now('%B %d, "
     "%Y') }} {{ strftime_now('%A %a %j %H:%M:%S %p %y %I%%') }}",
     "2026-11-23 23 Nov 2026 November 23, 2026 Monday Mon 327 00:00:00 AM 26 12%"},
    {"{{ range(5) | list }}", "[0, 1, 2, 3, 4]"},
};

static void test_white_space(void **state) {
    (void)state;
    check_all(white_space, sizeof white_space / sizeof white_space[0]);
}

static void test_literals(void **state) {
    (void)state;
    check_all(literals, sizeof literals / sizeof literals[0]);
}

static void test_arithmetic(void **state) {
    (void)state;
    check_all(arithmetic, sizeof arithmetic / sizeof arithmetic[0]);
}

static void test_comparison(void **state) {
    (void)state;
    check_all(comparison, sizeof comparison / sizeof comparison[0]);
}

static void test_names_and_subscripts(void **state) {
    (void)state;
    check_all(names_and_subscripts, sizeof names_and_subscripts / sizeof names_and_subscripts[0]);
}

static void test_set_and_scope(void **state) {
    (void)state;
    check_all(set_and_scope, sizeof set_and_scope / sizeof set_and_scope[0]);
}

static void test_loops(void **state) {
    (void)state;
    check_all(loops, sizeof loops / sizeof loops[0]);
}

static void test_branches(void **state) {
    (void)state;
    check_all(branches, sizeof branches / sizeof branches[0]);
}

static void test_macros(void **state) {
    (void)state;
    check_all(macros, sizeof macros / sizeof macros[0]);
}

static void test_blocks(void **state) {
    (void)state;
    check_all(blocks, sizeof blocks / sizeof blocks[0]);
}

static void test_tests_after_is(void **state) {
    (void)state;
    check_all(tests_after_is, sizeof tests_after_is / sizeof tests_after_is[0]);
}

static void test_text_filters(void **state) {
    (void)state;
    check_all(text_filters, sizeof text_filters / sizeof text_filters[0]);
}

static void test_number_filters(void **state) {
    (void)state;
    check_all(number_filters, sizeof number_filters / sizeof number_filters[0]);
}

static void test_value_filters(void **state) {
    (void)state;
    check_all(value_filters, sizeof value_filters / sizeof value_filters[0]);
}

static void test_list_filters(void **state) {
    (void)state;
    check_all(list_filters, sizeof list_filters / sizeof list_filters[0]);
}

static void test_tojson(void **state) {
    (void)state;
    check_all(tojson, sizeof tojson / sizeof tojson[0]);
}

static void test_methods(void **state) {
    (void)state;
    check_all(methods, sizeof methods / sizeof methods[0]);
}

static void test_functions(void **state) {
    (void)state;
    check_all(functions, sizeof functions / sizeof functions[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_white_space),
        cmocka_unit_test(test_literals),
        cmocka_unit_test(test_arithmetic),
        cmocka_unit_test(test_comparison),
        cmocka_unit_test(test_names_and_subscripts),
        cmocka_unit_test(test_set_and_scope),
        cmocka_unit_test(test_loops),
        cmocka_unit_test(test_branches),
        cmocka_unit_test(test_macros),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_tests_after_is),
        cmocka_unit_test(test_text_filters),
        cmocka_unit_test(test_number_filters),
        cmocka_unit_test(test_value_filters),
        cmocka_unit_test(test_list_filters),
        cmocka_unit_test(test_tojson),
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_functions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
