/* gbnf.c: reads a grammar in llama.cpp's notation. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "grammar/grammar_internal.h"

/** A run of elements that is being read. */
typedef struct element_list {
    pi2_element *items;
    uint32_t count, room;
} element_list;

typedef struct gbnf_reader {
    const char *text, *at, *end;
    pi2_grammar *grammar;
    json_t *names;      /* {name: index of its rule} */
    const char **rules; /* [rule_room of the grammar]: names, NULL where a rule has none */
    unsigned depth;
} gbnf_reader;

static pi2_status fail_at(const gbnf_reader *reader, pi2_status status, const char *what) {
    size_t line = 1, column = 1;
    for (const char *byte = reader->text; byte < reader->at; byte++) {
        column = *byte == '\n' ? 1 : column + 1;
        line += *byte == '\n';
    }
    return pi2_fail(status, "the grammar, line %zu, column %zu: %s", line, column, what);
}

static pi2_status fail_format(const gbnf_reader *reader, const char *what) {
    return fail_at(reader, PI2_ERR_FORMAT, what);
}

/* ---- the grammar under construction ---- */

static pi2_status add_rule(gbnf_reader *reader, const char *name, uint32_t *rule_out) {
    pi2_grammar *grammar = reader->grammar;
    pi2_rule *grown = pi2_grammar_grow(grammar->rules, grammar->rule_count, PI2_GRAMMAR_MOST_RULES,
                                       &grammar->rule_room, sizeof *grown, "rules");
    if (!grown) return PI2_ERR_UNSUPPORTED;
    grammar->rules = grown;
    const char **names = realloc(reader->rules, grammar->rule_room * sizeof *names);
    if (!names) return pi2_fail(PI2_ERR_MEMORY, "no memory for a grammar");
    reader->rules = names;
    names[grammar->rule_count] = name;
    grown[grammar->rule_count] = (pi2_rule){0};
    *rule_out = grammar->rule_count++;
    return PI2_OK;
}

static pi2_status add_element(element_list *list, pi2_element element) {
    pi2_element *grown = pi2_grammar_grow(list->items, list->count, PI2_GRAMMAR_MOST_ELEMENTS, &list->room,
                                          sizeof *grown, "characters and parts");
    if (!grown) return PI2_ERR_UNSUPPORTED;
    list->items = grown;
    grown[list->count++] = element;
    return PI2_OK;
}

/** A rule's alternatives are put down when all of them are read: those of its groups come before. */
static pi2_status put_alternative(gbnf_reader *reader, const element_list *list) {
    pi2_grammar *grammar = reader->grammar;
    uint32_t *grown = pi2_grammar_grow(grammar->alternatives, grammar->alternative_count, PI2_GRAMMAR_MOST_ELEMENTS,
                                       &grammar->alternative_room, sizeof *grown, "alternatives");
    if (!grown) return PI2_ERR_UNSUPPORTED;
    grammar->alternatives = grown;
    grown[grammar->alternative_count++] = grammar->element_count;
    for (uint32_t i = 0; i <= list->count; i++) {
        pi2_element *elements = pi2_grammar_grow(grammar->elements, grammar->element_count, PI2_GRAMMAR_MOST_ELEMENTS,
                                                 &grammar->element_room, sizeof *elements, "characters and parts");
        if (!elements) return PI2_ERR_UNSUPPORTED;
        grammar->elements = elements;
        elements[grammar->element_count++] = i < list->count ? list->items[i] : (pi2_element){PI2_ELEMENT_END, 0, 0, 0};
    }
    return PI2_OK;
}

/* ---- characters ---- */

static int hex_digit(char byte) {
    if (byte >= '0' && byte <= '9') return byte - '0';
    if (byte >= 'a' && byte <= 'f') return byte - 'a' + 10;
    return byte >= 'A' && byte <= 'F' ? byte - 'A' + 10 : -1;
}

static pi2_status read_hex(gbnf_reader *reader, unsigned digits, uint32_t *character_out) {
    uint32_t value = 0;
    for (unsigned i = 0; i < digits; i++) {
        const int digit = reader->at < reader->end ? hex_digit(*reader->at) : -1;
        if (digit < 0) return fail_format(reader, "a hexadecimal digit is missing");
        value = value << 4 | (uint32_t)digit;
        reader->at++;
    }
    if (value > PI2_LAST_CHARACTER || (value >= 0xd800 && value <= 0xdfff)) {
        return fail_format(reader, "this is the number of no character");
    }
    *character_out = value;
    return PI2_OK;
}

static pi2_status read_escape(gbnf_reader *reader, uint32_t *character_out) {
    static const char names[] = "trn\"\\[]-^/'", characters[] = "\t\r\n\"\\[]-^/'";
    if (reader->at == reader->end) return fail_format(reader, "the text ends behind a backslash");
    const char name = *reader->at++;
    if (name == 'x') return read_hex(reader, 2, character_out);
    if (name == 'u') return read_hex(reader, 4, character_out);
    if (name == 'U') return read_hex(reader, 8, character_out);
    const char *found = name ? strchr(names, name) : NULL;
    if (!found) {
        reader->at--;
        return fail_format(reader, "this escape is not known: \\t \\r \\n \\\" \\\\ \\[ \\] \\- \\^ \\xHH \\uHHHH "
                           "\\UHHHHHHHH are");
    }
    *character_out = (unsigned char)characters[found - names];
    return PI2_OK;
}

/** A character of a literal or a class: one of UTF-8, or an escape. */
static pi2_status read_character(gbnf_reader *reader, uint32_t *character_out) {
    const size_t left = (size_t)(reader->end - reader->at);
    const unsigned char first = (unsigned char)*reader->at;
    if (first == '\\') {
        reader->at++;
        return read_escape(reader, character_out);
    }
    const size_t length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    uint32_t value = length == 1 ? first : first & (0x7fu >> length);
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    bool is_good = length <= left && (length == 1 || first >= 0xc2) && first < 0xf5;
    for (size_t i = 1; is_good && i < length; i++) {
        is_good = ((unsigned char)reader->at[i] & 0xc0) == 0x80;
        value = value << 6 | ((unsigned char)reader->at[i] & 0x3f);
    }
    if (!is_good || value < least[length] || value > PI2_LAST_CHARACTER || (value >= 0xd800 && value <= 0xdfff)) {
        return fail_format(reader, "this is no UTF-8");
    }
    reader->at += length;
    *character_out = value;
    return PI2_OK;
}

static int compare_ranges(const void *a, const void *b) {
    const pi2_character_range *left = a, *right = b;
    return (left->first > right->first) - (left->first < right->first);
}

/** Ranges from `from` on are put in order, joined, turned round where negated; what is no character is left out. */
static pi2_status put_in_order(gbnf_reader *reader, uint32_t from, bool is_negated) {
    pi2_grammar *grammar = reader->grammar;
    /* There are none yet where an empty class is the first. */
    pi2_character_range *ranges = grammar->ranges ? grammar->ranges + from : NULL;
    uint32_t joined = 0, count = grammar->range_count - from;
    if (count) qsort(ranges, count, sizeof *ranges, compare_ranges);
    for (uint32_t i = 0; i < count; i++) {
        if (joined && ranges[i].first <= ranges[joined - 1].last + 1) {
            if (ranges[i].last > ranges[joined - 1].last) ranges[joined - 1].last = ranges[i].last;
        } else {
            ranges[joined++] = ranges[i];
        }
    }
    grammar->range_count = from + joined;
    if (!is_negated) return PI2_OK;
    uint32_t next = 0, kept = 0; /* the gaps take the places of the ranges before them; the last is one more */
    for (uint32_t i = 0; i < joined; i++) {
        const pi2_character_range range = ranges[i];
        if (range.first > next) ranges[kept++] = (pi2_character_range){next, range.first - 1};
        next = range.last + 1;
    }
    grammar->range_count = from + kept;
    if (next > PI2_LAST_CHARACTER) return PI2_OK;
    pi2_character_range *grown = pi2_grammar_grow(grammar->ranges, grammar->range_count, PI2_GRAMMAR_MOST_RANGES,
                                                  &grammar->range_room, sizeof *grown, "ranges of characters");
    if (!grown) return PI2_ERR_UNSUPPORTED;
    grammar->ranges = grown;
    grown[grammar->range_count++] = (pi2_character_range){next, PI2_LAST_CHARACTER};
    return PI2_OK;
}

static pi2_status add_range(gbnf_reader *reader, uint32_t first, uint32_t last) {
    pi2_grammar *grammar = reader->grammar;
    pi2_character_range *grown = pi2_grammar_grow(grammar->ranges, grammar->range_count, PI2_GRAMMAR_MOST_RANGES,
                                                  &grammar->range_room, sizeof *grown, "ranges of characters");
    if (!grown) return PI2_ERR_UNSUPPORTED;
    grammar->ranges = grown;
    grown[grammar->range_count++] = (pi2_character_range){first, last};
    return PI2_OK;
}

/** The ranges from `from` on become a class, and an element of the list. */
static pi2_status add_class(gbnf_reader *reader, uint32_t from, bool is_negated, element_list *list) {
    pi2_grammar *grammar = reader->grammar;
    /* Half characters are taken out by naming them in what is turned round, twice where it was not. */
    if (!is_negated) PI2_TRY(put_in_order(reader, from, true));
    PI2_TRY(add_range(reader, 0xd800, 0xdfff));
    PI2_TRY(put_in_order(reader, from, true));
    if (grammar->range_count == from) return fail_format(reader, "this class takes no character");
    pi2_character_class *grown = pi2_grammar_grow(grammar->classes, grammar->class_count, PI2_GRAMMAR_MOST_RANGES,
                                                  &grammar->class_room, sizeof *grown, "classes of characters");
    if (!grown) return PI2_ERR_UNSUPPORTED;
    grammar->classes = grown;
    grown[grammar->class_count] = (pi2_character_class){from, grammar->range_count - from};
    return add_element(list, (pi2_element){PI2_ELEMENT_CLASS, grammar->class_count++, 0, 0});
}

/** [...], behind its bracket. */
static pi2_status read_class(gbnf_reader *reader, element_list *list) {
    const uint32_t from = reader->grammar->range_count;
    const bool is_negated = reader->at < reader->end && *reader->at == '^';
    reader->at += is_negated;
    for (;;) {
        uint32_t first, last;
        if (reader->at == reader->end) return fail_format(reader, "']' is missing");
        if (*reader->at == ']') break;
        PI2_TRY(read_character(reader, &first));
        last = first;
        if (reader->end - reader->at >= 2 && reader->at[0] == '-' && reader->at[1] != ']') {
            reader->at++;
            PI2_TRY(read_character(reader, &last));
        }
        if (last < first) return fail_format(reader, "this range ends before it begins");
        PI2_TRY(add_range(reader, first, last));
    }
    PI2_TRY(add_class(reader, from, is_negated, list));
    reader->at++;
    return PI2_OK;
}

static pi2_status read_literal(gbnf_reader *reader, element_list *list) {
    for (;;) {
        uint32_t character;
        if (reader->at == reader->end || *reader->at == '\n') return fail_format(reader, "'\"' is missing");
        if (*reader->at == '"') break;
        PI2_TRY(read_character(reader, &character));
        PI2_TRY(add_element(list, (pi2_element){PI2_ELEMENT_CHARACTER, character, 0, 0}));
    }
    reader->at++;
    return PI2_OK;
}

/* ---- structure ---- */

/** White space and remarks; the ends of lines only where a rule may go on behind them. */
static void skip_space(gbnf_reader *reader, bool with_lines) {
    for (; reader->at < reader->end; reader->at++) {
        const char byte = *reader->at;
        if (byte == '#') {
            while (reader->at < reader->end && *reader->at != '\n') reader->at++;
            reader->at--;
        } else if (byte != ' ' && byte != '\t' && byte != '\r' && !(with_lines && byte == '\n')) {
            return;
        }
    }
}

static bool is_name_byte(char byte) {
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
           byte == '-' || byte == '_';
}

/** A rule by its name, which need not have been read yet. */
static pi2_status read_name(gbnf_reader *reader, uint32_t *rule_out) {
    const char *begin = reader->at;
    while (reader->at < reader->end && is_name_byte(*reader->at)) reader->at++;
    char name[256];
    const size_t length = (size_t)(reader->at - begin);
    if (length == 0) return fail_format(reader, "a rule's name, a literal, a class or '(' was expected");
    if (length >= sizeof name) return fail_at(reader, PI2_ERR_UNSUPPORTED, "this name has more than 255 bytes");
    memcpy(name, begin, length);
    name[length] = '\0';
    const json_t *known = json_object_get(reader->names, name);
    if (known) {
        *rule_out = (uint32_t)json_integer_value(known);
        return PI2_OK;
    }
    PI2_TRY(add_rule(reader, NULL, rule_out));
    if (json_object_set_new(reader->names, name, json_integer(*rule_out)) != 0) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for a grammar");
    }
    reader->rules[*rule_out] = json_object_iter_key(json_object_iter_at(reader->names, name));
    return PI2_OK;
}

static pi2_status read_number(gbnf_reader *reader, uint32_t *number_out) {
    const char *begin = reader->at;
    uint32_t number = 0;
    for (; reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9'; reader->at++) {
        number = 10 * number + (uint32_t)(*reader->at - '0');
        if (number > PI2_GRAMMAR_MOST_REPEATS) {
            return fail_at(reader, PI2_ERR_UNSUPPORTED, "nothing is repeated more than 1000000 times");
        }
    }
    if (reader->at == begin) return fail_format(reader, "a number was expected");
    *number_out = number;
    return PI2_OK;
}

/** How often what came before is repeated; *is_there_out false: nothing of the kind follows. */
static pi2_status read_repeat(gbnf_reader *reader, uint32_t *least, uint32_t *most, bool *is_there_out) {
    const char mark = reader->at < reader->end ? *reader->at : '\0';
    *is_there_out = mark == '*' || mark == '+' || mark == '?' || mark == '{';
    if (!*is_there_out) return PI2_OK;
    reader->at++;
    *least = mark == '+';
    *most = mark == '?' ? 1 : PI2_GRAMMAR_NO_LIMIT;
    if (mark != '{') return PI2_OK;
    skip_space(reader, true);
    if (reader->at < reader->end && *reader->at != ',') PI2_TRY(read_number(reader, least));
    *most = *least;
    skip_space(reader, true);
    if (reader->at < reader->end && *reader->at == ',') {
        reader->at++;
        skip_space(reader, true);
        *most = PI2_GRAMMAR_NO_LIMIT;
        if (reader->at < reader->end && *reader->at != '}') PI2_TRY(read_number(reader, most));
        skip_space(reader, true);
    }
    if (reader->at == reader->end || *reader->at != '}') return fail_format(reader, "'}' is missing");
    reader->at++;
    return *most < *least ? fail_format(reader, "the most is less than the least") : PI2_OK;
}

/** What the list has from `from` on becomes a rule that is repeated. */
static pi2_status wrap_repeat(gbnf_reader *reader, element_list *list, uint32_t from, uint32_t least, uint32_t most) {
    if (list->count == from) return PI2_OK; /* an empty literal */
    uint32_t rule = 0;
    if (list->count == from + 1 && list->items[from].kind == PI2_ELEMENT_RULE) {
        rule = list->items[from].value;
    } else {
        const element_list part = {list->items + from, list->count - from, 0};
        const uint32_t first = reader->grammar->alternative_count;
        PI2_TRY(add_rule(reader, NULL, &rule));
        PI2_TRY(put_alternative(reader, &part));
        reader->grammar->rules[rule].first_alternative = first;
        reader->grammar->rules[rule].alternative_count = 1;
    }
    list->count = from;
    if (most == 0) return PI2_OK;
    return add_element(list, (pi2_element){PI2_ELEMENT_REPEAT, rule, least, most});
}

static pi2_status read_alternatives(gbnf_reader *reader, uint32_t rule, bool is_group);

static pi2_status read_group(gbnf_reader *reader, element_list *list) {
    uint32_t rule;
    if (reader->depth == PI2_GRAMMAR_MOST_DEPTH) {
        return fail_at(reader, PI2_ERR_UNSUPPORTED, "groups are nested more than 64 deep: give some a name");
    }
    reader->depth++;
    PI2_TRY(add_rule(reader, NULL, &rule));
    PI2_TRY(read_alternatives(reader, rule, true));
    reader->depth--;
    if (reader->at == reader->end || *reader->at != ')') return fail_format(reader, "')' is missing");
    reader->at++;
    return add_element(list, (pi2_element){PI2_ELEMENT_RULE, rule, 0, 0});
}

static pi2_status read_part(gbnf_reader *reader, element_list *list) {
    uint32_t rule;
    switch (*reader->at) {
    case '"': reader->at++; return read_literal(reader, list);
    case '[': reader->at++; return read_class(reader, list);
    case '(': reader->at++; return read_group(reader, list);
    case '.':
        reader->at++;
        PI2_TRY(add_range(reader, 0, PI2_LAST_CHARACTER));
        return add_class(reader, reader->grammar->range_count - 1, false, list);
    case '<':
    case '!': return fail_at(reader, PI2_ERR_UNSUPPORTED, "single tokens are not supported: write their text");
    default:
        PI2_TRY(read_name(reader, &rule));
        return add_element(list, (pi2_element){PI2_ELEMENT_RULE, rule, 0, 0});
    }
}

static bool ends_alternative(const gbnf_reader *reader) {
    return reader->at == reader->end || *reader->at == '|' || *reader->at == ')' || *reader->at == '\n';
}

/** Parts up to '|', or the end of the alternatives. */
static pi2_status read_sequence(gbnf_reader *reader, element_list *list, bool is_group) {
    skip_space(reader, is_group);
    while (!ends_alternative(reader)) {
        const uint32_t from = list->count;
        bool is_repeated = true;
        PI2_TRY(read_part(reader, list));
        for (unsigned times = 0; is_repeated; times++) {
            uint32_t least, most;
            skip_space(reader, is_group);
            PI2_TRY(read_repeat(reader, &least, &most, &is_repeated));
            if (is_repeated && times == PI2_GRAMMAR_MOST_DEPTH) {
                return fail_at(reader, PI2_ERR_UNSUPPORTED, "more than 64 repetitions of one another");
            }
            if (is_repeated) PI2_TRY(wrap_repeat(reader, list, from, least, most));
        }
    }
    return PI2_OK;
}

/** The alternatives of one rule, each in a list of its own until the last is read. */
typedef struct alternative_lists {
    element_list *items;
    uint32_t count, room;
} alternative_lists;

static pi2_status read_lists(gbnf_reader *reader, alternative_lists *lists, bool is_group) {
    for (;;) {
        element_list *grown = pi2_grammar_grow(lists->items, lists->count, PI2_GRAMMAR_MOST_ELEMENTS, &lists->room,
                                               sizeof *grown, "alternatives");
        if (!grown) return PI2_ERR_UNSUPPORTED;
        lists->items = grown;
        grown[lists->count] = (element_list){0};
        PI2_TRY(read_sequence(reader, &grown[lists->count++], is_group));
        const char *end = reader->at;
        skip_space(reader, true); /* '|' may begin a line */
        if (reader->at == reader->end || *reader->at != '|') {
            reader->at = end;
            return PI2_OK;
        }
        reader->at++;
        skip_space(reader, true);
    }
}

static pi2_status read_alternatives(gbnf_reader *reader, uint32_t rule, bool is_group) {
    alternative_lists lists = {0};
    pi2_status status = read_lists(reader, &lists, is_group);
    const uint32_t first = reader->grammar->alternative_count;
    for (uint32_t i = 0; i < lists.count; i++) {
        if (status == PI2_OK) status = put_alternative(reader, &lists.items[i]);
        free(lists.items[i].items);
    }
    reader->grammar->rules[rule].first_alternative = first;
    reader->grammar->rules[rule].alternative_count = lists.count;
    free(lists.items);
    return status;
}

static pi2_status read_rule(gbnf_reader *reader) {
    uint32_t rule;
    const char *begin = reader->at;
    PI2_TRY(read_name(reader, &rule));
    if (reader->grammar->rules[rule].alternative_count) {
        reader->at = begin;
        return fail_format(reader, "this rule is there twice");
    }
    skip_space(reader, false);
    if (reader->end - reader->at < 3 || memcmp(reader->at, "::=", 3) != 0) {
        return fail_format(reader, "'::=' was expected");
    }
    reader->at += 3;
    skip_space(reader, true);
    PI2_TRY(read_alternatives(reader, rule, false));
    if (reader->at < reader->end && *reader->at != '\n') return fail_format(reader, "')' without '('");
    return PI2_OK;
}

static pi2_status read_rules(gbnf_reader *reader, const char *root_name) {
    for (skip_space(reader, true); reader->at < reader->end; skip_space(reader, true)) PI2_TRY(read_rule(reader));
    const char *name;
    json_t *index;
    json_object_foreach(reader->names, name, index) {
        if (reader->grammar->rules[json_integer_value(index)].alternative_count == 0) {
            return pi2_fail(PI2_ERR_FORMAT, "the grammar has no rule '%s'", name);
        }
    }
    const json_t *root = json_object_get(reader->names, root_name);
    if (!root) return pi2_fail(PI2_ERR_FORMAT, "the grammar has no rule '%s'", root_name);
    reader->grammar->root = (uint32_t)json_integer_value(root);
    return pi2_grammar_check(reader->grammar, reader->rules);
}

pi2_status pi2_grammar_parse(const char *text, size_t length, const char *root, pi2_grammar **grammar_out) {
    *grammar_out = NULL;
    if (length > PI2_GRAMMAR_TEXT_BYTES) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "the grammar has %zu bytes, %zu are read", length, PI2_GRAMMAR_TEXT_BYTES);
    }
    gbnf_reader reader = {text, text, text + length, calloc(1, sizeof(pi2_grammar)), json_object(), NULL, 0};
    pi2_status status = reader.grammar && reader.names ? PI2_OK : pi2_fail(PI2_ERR_MEMORY, "no memory for a grammar");
    if (reader.grammar) atomic_init(&reader.grammar->owners, 1);
    if (status == PI2_OK) status = read_rules(&reader, root ? root : "root");
    if (status == PI2_OK) *grammar_out = reader.grammar;
    else pi2_grammar_free(reader.grammar);
    free(reader.rules);
    json_decref(reader.names);
    return status;
}
