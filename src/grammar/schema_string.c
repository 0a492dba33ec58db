/* schema_string.c: texts of a JSON Schema: their length, their format. */
#include <string.h>

#include "grammar/grammar_internal.h"
#include "grammar/schema_internal.h"

#define TWO_DIGITS "[0-9] [0-9]"
#define HEX(times) "[0-9a-fA-F]{" #times "}"
#define DATE "([12] [0-9]{3} \"-\" (" \
             "(\"01\" | \"03\" | \"05\" | \"07\" | \"08\" | \"10\" | \"12\") \"-\" " \
             "(\"0\" [1-9] | [12] [0-9] | \"3\" [01])" \
             " | (\"04\" | \"06\" | \"09\" | \"11\") \"-\" (\"0\" [1-9] | [12] [0-9] | \"30\")" \
             " | \"02\" \"-\" (\"0\" [1-9] | \"1\" [0-9] | \"2\" [0-8]))" \
             " | (\"1600\" | \"2000\" | [12] [0-9] (\"0\" [48] | [2468] [048] | [13579] [26])) \"-02-29\")"
#define TIME "(([01] [0-9] | \"2\" [0-3]) \":\" [0-5] [0-9] \":\" [0-5] [0-9] (\".\" [0-9]{1,6})?" \
             " (\"Z\" | [-+] ([01] [0-9] | \"2\" [0-3]) \":\" [0-5] [0-9]))"
#define LABEL "[a-zA-Z0-9] ([a-zA-Z0-9-]{0,61} [a-zA-Z0-9])?"
#define HOST LABEL " (\".\" " LABEL "){0,7}"
#define BYTE "(\"25\" [0-5] | \"2\" [0-4] [0-9] | \"1\" [0-9] [0-9] | [1-9]? [0-9])"

/* Not every text of the format, but none that is not of it. */
static const struct text_format { const char *name, *gbnf; size_t least, most; } formats[] = {
    {"date", DATE, 10, 10},
    {"time", TIME, 9, 21},
    {"date-time", DATE " \"T\" " TIME, 20, 32},
    {"uuid", HEX(8) " \"-\" " HEX(4) " \"-\" " HEX(4) " \"-\" " HEX(4) " \"-\" " HEX(12), 36, 36},
    {"uuid4", HEX(8) " \"-\" " HEX(4) " \"-4\" " HEX(3) " \"-\" [89abAB] " HEX(3) " \"-\" " HEX(12), 36, 36},
    {"ipv4", BYTE " (\".\" " BYTE "){3}", 7, 15},
    {"ipv6", "[0-9a-fA-F]{1,4} (\":\" [0-9a-fA-F]{1,4}){7}", 15, 39},
    {"hostname", HOST, 1, 511},
    {"email", "[a-zA-Z0-9_+-]{1,20} (\".\" [a-zA-Z0-9_+-]{1,20}){0,1} \"@\" " HOST, 3, 553},
    {"uri", "\"http\" \"s\"? \"://\" " HOST " (\":\" [1-9] [0-9]{0,3})? (\"/\" [a-zA-Z0-9_.~-]*)*"
     " (\"?\" [a-zA-Z0-9_.~=&-]*)?"
     " (\"#\" [a-zA-Z0-9_.~-]*)?", 8, 1000000},
};

static pi2_status add_format(const json_t *schema, const char *name, int64_t least, int64_t most,
                             const pi2_schema_place *place, pi2_schema_text *body) {
    const pi2_schema_place at = {place, "format", 0};
    if (json_object_get(schema, "pattern")) return pi2_schema_refuse(&at, "this is not supported beside 'pattern'");
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        if (strcmp(formats[i].name, name) != 0) continue;
        if (least > (int64_t)formats[i].least || most < (int64_t)formats[i].most) {
            return pi2_schema_refuse(&at, "'%s' has from %zu to %zu characters: other lengths cannot be asked for",
                                     name, formats[i].least, formats[i].most);
        }
        pi2_schema_add_bytes(body, formats[i].gbnf, strlen(formats[i].gbnf));
        return PI2_OK;
    }
    return pi2_schema_refuse(&at, "'%s' is not supported", name);
}

static void add_characters(pi2_schema_text *body, int64_t least, int64_t most) {
    pi2_schema_add(body, "character{%lld,", (long long)least);
    if (most != INT64_MAX) {
        pi2_schema_add(body, "%lld", (long long)pi2_schema_least_of(most, PI2_GRAMMAR_MOST_REPEATS));
    }
    pi2_schema_add(body, "}");
}

pi2_status pi2_schema_string(const json_t *schema, const pi2_schema_place *place, pi2_schema_text *body) {
    int64_t least = 0, most = INT64_MAX;
    const json_t *pattern = json_object_get(schema, "pattern"), *format = json_object_get(schema, "format");
    const pi2_schema_place pattern_at = {place, "pattern", 0}, least_at = {place, "minLength", 0};
    PI2_TRY(pi2_schema_count(schema, "minLength", place, &least));
    PI2_TRY(pi2_schema_count(schema, "maxLength", place, &most));
    if (least > most || least > PI2_GRAMMAR_MOST_REPEATS) {
        return pi2_schema_refuse(&least_at, "no text has this length");
    }
    pi2_schema_add(body, "\"\\\"\" (");
    if (pattern) {
        if (!json_is_string(pattern)) return pi2_schema_refuse(&pattern_at, "this must be a text");
        if (least > 0 || most != INT64_MAX) {
            return pi2_schema_refuse(&pattern_at, "a length beside it is not supported: say it in the pattern");
        }
        PI2_TRY(pi2_schema_pattern(json_string_value(pattern), json_string_length(pattern), &pattern_at, body));
    }
    if (format) {
        const char *name = json_string_value(format);
        PI2_TRY(add_format(schema, name ? name : "", least, most, place, body));
    } else if (!pattern) {
        add_characters(body, least, most);
    }
    pi2_schema_add(body, ") \"\\\"\"");
    return PI2_OK;
}
