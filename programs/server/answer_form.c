/* answer_form.c: see answer_form.h. */
#include "answer_form.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "cli/json_bounds.h"

enum { MOST_ROOM = 4 << 20, ROOM_PER_TEXT = 16 /* bytes that a byte of a grammar's text may take while it is read */ };

/* ---- what is asked for ---- */

static bool take_one(pi2_answer_form *form, const char *grammar, const json_t *schema, bool is_any_object,
                     pi2_request_fault *fault) {
    if (form->grammar || form->schema || form->is_any_object) {
        return pi2_fault(fault, "a request can have one form of its answer: a grammar, a schema, or a format");
    }
    *form = (pi2_answer_form){grammar, schema, is_any_object};
    return true;
}

/** {"type": "json_schema", "schema": ...}, also within "json_schema", or {"type": "json_object"}. */
static bool read_typed(const json_t *object, const char *name, pi2_answer_form *form, pi2_request_fault *fault) {
    const char *type = json_string_value(json_object_get(object, "type"));
    const json_t *inner = json_object_get(object, "json_schema");
    const json_t *schema = json_object_get(json_is_object(inner) ? inner : object, "schema");
    if (!json_is_object(object) || !type) return pi2_fault(fault, "'%s' must be an object with a 'type'", name);
    if (strcmp(type, "text") == 0) return true;
    if (strcmp(type, "json_object") == 0) return take_one(form, NULL, schema, !schema, fault);
    if (strcmp(type, "json_schema") != 0) {
        return pi2_fault(fault, "'%s' of type '%s' is not supported here", name, type);
    }
    if (!schema) return pi2_fault(fault, "'%s' of type 'json_schema' has no 'schema'", name);
    return take_one(form, NULL, schema, false, fault);
}

static bool read_ollama(const json_t *body, pi2_answer_form *form, pi2_request_fault *fault) {
    const json_t *format = json_object_get(body, "format");
    const char *name = json_string_value(format);
    if (!format || json_is_null(format) || (name && !*name)) return true;
    if (json_is_object(format)) return take_one(form, NULL, format, false, fault);
    if (name && strcmp(name, "json") == 0) return take_one(form, NULL, NULL, true, fault);
    return pi2_fault(fault, "'format' must be \"json\" or a JSON schema");
}

bool pi2_answer_form_read(const json_t *body, pi2_answer_form *form, pi2_request_fault *fault) {
    const json_t *config = json_object_get(body, "output_config"), *schema = json_object_get(body, "json_schema");
    const struct { const char *name; const json_t *value; } typed[] = {
        {"response_format", json_object_get(body, "response_format")},
        {"output_format", json_object_get(body, "output_format")},
        {"output_config.format", json_object_get(config, "format")},
        {"text.format", json_object_get(json_object_get(body, "text"), "format")}};
    const char *grammar = NULL;
    *form = (pi2_answer_form){NULL, NULL, false};
    if (!pi2_field_text(body, "grammar", &grammar, fault)) return false;
    if (grammar && *grammar && !take_one(form, grammar, NULL, false, fault)) return false;
    if (schema && !json_is_null(schema) && !take_one(form, NULL, schema, false, fault)) return false;
    for (size_t i = 0; i < sizeof typed / sizeof typed[0]; i++) {
        const bool is_there = typed[i].value && !json_is_null(typed[i].value);
        if (is_there && !read_typed(typed[i].value, typed[i].name, form, fault)) return false;
    }
    return read_ollama(body, form, fault);
}

/* ---- its grammar ---- */

size_t pi2_answer_form_room(const pi2_server_settings *settings) {
    const size_t share = settings->body_bytes / 2;
    return share < MOST_ROOM ? share : MOST_ROOM;
}

/** What is wrong with a form is the request's fault. */
static bool refuse_form(pi2_request_fault *fault, pi2_status status) {
    return status == PI2_ERR_MEMORY ? pi2_fault_of(fault, status) : pi2_fault(fault, "%s", pi2_error_text());
}

/** A thought up to its mark, whose first character stands nowhere else in it: each rule has read so many of that. */
static bool add_thought(pi2_cli_text *text, const char *mark, const char *root) {
    char line[128];
    bool is_good = true;
    for (size_t i = 0; is_good && mark[i]; i++) {
        int length = snprintf(line, sizeof line, "pi2-thought-%zu ::= [^\\x%02x\\x%02x] pi2-thought-0 | \"\\x%02x\"", i,
                              (unsigned)mark[0], (unsigned)mark[i], (unsigned)mark[i]);
        is_good = pi2_cli_text_add(text, line, (size_t)length);
        length = mark[i + 1] ? snprintf(line, sizeof line, " pi2-thought-%zu", i + 1) : 0;
        is_good = is_good && pi2_cli_text_add(text, line, (size_t)length);
        length = i ? snprintf(line, sizeof line, " | \"\\x%02x\" pi2-thought-1", (unsigned)mark[0]) : 0;
        is_good = is_good && pi2_cli_text_add(text, line, (size_t)length) && pi2_cli_text_add(text, "\n", 1);
    }
    const int length = snprintf(line, sizeof line, "pi2-answer ::= pi2-thought-0 [ \\n]{0,4} %s\n", root);
    return is_good && pi2_cli_text_add(text, line, (size_t)length);
}

/** A schema, NULL: of any object, as GBNF, read again within what the request leaves of the memory for JSON. */
static bool add_schema(pi2_reply *reply, const json_t *schema, pi2_cli_text *text, pi2_request_fault *fault) {
    char *given = schema ? json_dumps(schema, JSON_ENCODE_ANY | JSON_COMPACT) : strdup("{\"type\": \"object\"}");
    char *gbnf = NULL;
    if (!given) return pi2_fault(fault, "no memory for a schema");
    const size_t memory = pi2_json_measure(given, strlen(given)).memory;
    bool is_good = memory <= reply->exchange->json_room ||
                   pi2_fault(fault, "the schema would take up to %zu more bytes of memory, %zu are left of what a "
                             "request may take", memory, reply->exchange->json_room);
    if (is_good) {
        const pi2_status status = pi2_schemas_to_gbnf((const char *const[]){given}, 1, &gbnf);
        is_good = status == PI2_OK || refuse_form(fault, status);
    }
    is_good = is_good && (pi2_cli_text_add(text, gbnf, strlen(gbnf)) || pi2_fault(fault, "no memory for a grammar"));
    free(given);
    free(gbnf);
    return is_good;
}

/** Takes the grammar's memory from what all of them have together. */
static bool reserve(pi2_reply *reply, pi2_grammar *grammar, pi2_request_fault *fault) {
    struct pi2_server *server = reply->exchange->server;
    const size_t bytes = pi2_grammar_bytes(grammar), most = pi2_answer_form_room(server->settings);
    if (bytes > most) return pi2_fault(fault, "the grammar takes %zu bytes of memory, %zu are allowed", bytes, most);
    const size_t before = atomic_fetch_add(&server->grammar_bytes, bytes);
    reply->grammar = grammar;
    reply->job.sampling.grammar = grammar;
    if (before + bytes <= most) return true;
    (void)pi2_fault(fault, "other requests have the memory for grammars: try again");
    fault->status = MHD_HTTP_SERVICE_UNAVAILABLE;
    fault->type = "unavailable_error";
    return false;
}

static bool parse(pi2_reply *reply, const pi2_cli_text *text, const char *root, pi2_request_fault *fault) {
    const size_t most = pi2_answer_form_room(reply->exchange->server->settings) / ROOM_PER_TEXT;
    pi2_grammar *grammar = NULL;
    if (text->length > most) {
        return pi2_fault(fault, "the grammar has %zu bytes, %zu are allowed", text->length, most);
    }
    const pi2_status status = pi2_grammar_parse(text->data, text->length, root, &grammar);
    if (status != PI2_OK) return refuse_form(fault, status);
    if (reserve(reply, grammar, fault)) return true;
    if (!reply->grammar) pi2_grammar_free(grammar);
    return false;
}

bool pi2_answer_form_take(pi2_reply *reply, const pi2_answer_form *form, const char *thought_end,
                          pi2_request_fault *fault) {
    pi2_cli_text text = {0};
    const bool has_form = form->grammar || form->schema || form->is_any_object;
    const bool has_calls = reply->tool_grammar.length > 0;
    const char *root = has_calls ? "pi2-calls" : "root";
    if (!has_form && !has_calls) return true;
    if (has_form && has_calls) {
        return pi2_fault(fault, "a form of the answer, and a 'tool_choice' that demands a call, exclude each other");
    }
    bool is_good = true;
    if (has_calls) {
        text = reply->tool_grammar;
        reply->tool_grammar = (pi2_cli_text){0};
    } else if (form->grammar) {
        is_good = pi2_cli_text_add(&text, form->grammar, strlen(form->grammar)) ||
                  pi2_fault(fault, "no memory for a grammar");
    } else {
        is_good = add_schema(reply, form->schema, &text, fault);
    }
    if (is_good && thought_end) {
        is_good = (pi2_cli_text_add(&text, "\n", 1) && add_thought(&text, thought_end, root)) ||
                  pi2_fault(fault, "no memory for a grammar");
        root = "pi2-answer";
    }
    reply->job.sampling.grammar_has_special = reply->job.print_special;
    is_good = is_good && parse(reply, &text, root, fault);
    free(text.data);
    return is_good && (!reply->job.sampling.forbid_end_tokens ||
                       pi2_fault(fault, "'ignore_eos' and a form of the answer exclude each other"));
}

void pi2_answer_form_free(pi2_reply *reply) {
    if (!reply->grammar) return;
    (void)atomic_fetch_sub(&reply->exchange->server->grammar_bytes, pi2_grammar_bytes(reply->grammar));
    pi2_grammar_free(reply->grammar);
}
