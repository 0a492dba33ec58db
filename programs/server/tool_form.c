/* tool_form.c: see tool_form.h. */
#include "tool_form.h"

#include <stdlib.h>
#include <string.h>

#include "prompt_request.h"

#define DEEPSEEK(words) "<\xef\xbd\x9ctool\xe2\x96\x81" words "\xef\xbd\x9c>"

/* How a family writes calls, as GBNF: the arguments lie between `middle` and `behind`. */
typedef struct call_form {
    const char *sign;     /* what a template writes for a call has it; NULL: any other */
    const char *begin, *before, *middle, *behind, *between, *end; /* between NULL: there is one call only */
} call_form;

static const call_form forms[] = {
    {"<|channel|>commentary", "(\"<|channel|>analysis<|message|>\" [^<]* \"<|end|><|start|>assistant\")?",
     "<|channel|>commentary to=functions.", " <|constrain|>json<|message|>", "", NULL, ""},
    {DEEPSEEK("call\xe2\x96\x81" "begin") "function", "\"" DEEPSEEK("calls\xe2\x96\x81" "begin") "\"",
     DEEPSEEK("call\xe2\x96\x81" "begin") "function" DEEPSEEK("sep"), "\\n```json\\n",
     "\\n```" DEEPSEEK("call\xe2\x96\x81" "end"), "\\n", "\"" DEEPSEEK("calls\xe2\x96\x81" "end") "\""},
    {DEEPSEEK("call\xe2\x96\x81" "begin"), "\"" DEEPSEEK("calls\xe2\x96\x81" "begin") "\"",
     DEEPSEEK("call\xe2\x96\x81" "begin"), DEEPSEEK("sep"), DEEPSEEK("call\xe2\x96\x81" "end"), "",
     "\"" DEEPSEEK("calls\xe2\x96\x81" "end") "\""},
    {"<tool_call>", "", "<tool_call>\\n{\\\"name\\\": \\\"", "\\\", \\\"arguments\\\": ", "}\\n</tool_call>", "\\n",
     ""},
    {"[ARGS]", "", "[TOOL_CALLS]", "[ARGS]", "", "", ""},
    {"[TOOL_CALLS]", "\"[TOOL_CALLS][\"", "{\\\"name\\\": \\\"", "\\\", \\\"arguments\\\": ", "}", ", ", "\"]\""},
    {NULL, "", "{\\\"name\\\": \\\"", "\\\", \\\"parameters\\\": ", "}", NULL, ""},
};

/** The form whose sign is in what the template writes for a conversation with a call. */
static const call_form *form_of(const pi2_engine *engine, const char *variables) {
    static const char messages[] =
        "[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": ["
        "{\"id\": \"abcdefghi\", \"type\": \"function\", \"function\": {\"name\": \"b\", \"arguments\": {\"c\": "
        "\"d\"}}}]}]";
    static const char tools[] = "[{\"type\": \"function\", \"function\": {\"name\": \"b\", \"description\": \"\", "
                                "\"parameters\": {\"type\": \"object\", \"properties\": {}}}}]";
    const pi2_conversation probe = {messages, tools, strlen(messages), strlen(tools), *variables ? variables : NULL,
                                    false};
    char *text = NULL;
    size_t length = 0;
    const call_form *form = forms;
    if (pi2_engine_conversation_tokens(engine, &probe, &text, &length, NULL, NULL) != PI2_OK) text = NULL;
    for (; form->sign && (!text || !strstr(text, form->sign)); form++) {}
    free(text);
    return form;
}

static bool add(pi2_cli_text *text, const char *part) { return pi2_cli_text_add(text, part, strlen(part)); }

static bool add_literal(pi2_cli_text *text, const char *part) {
    return !*part || (add(text, " \"") && add(text, part) && add(text, "\""));
}

/** Names are written as they are: none of them may need an escape, or begin a mark. */
static bool is_plain(const char *name) {
    return *name && strlen(name) <= 128 && !strpbrk(name, "\"\\<>[]{}() \t\r\n");
}

/** One call: an alternative for each tool, whose arguments are the rule "root-N". */
static bool add_calls(pi2_cli_text *text, const call_form *form, const char *const *names, size_t count,
                      bool is_single) {
    char rule[32];
    bool is_good = add(text, "\npi2-call ::=");
    for (size_t i = 0; is_good && i < count; i++) {
        (void)snprintf(rule, sizeof rule, " root-%zu", i);
        is_good = (i == 0 || add(text, " |")) && add_literal(text, form->before) && add_literal(text, names[i]) &&
                  add_literal(text, form->middle) && add(text, rule) && add_literal(text, form->behind);
    }
    is_good = is_good && add(text, "\npi2-calls ::= ") && add(text, form->begin) && add(text, " pi2-call");
    if (form->between && !is_single) {
        is_good = is_good && add(text, " (") && add_literal(text, form->between) && add(text, " pi2-call){0,15}");
    }
    return is_good && add(text, " ") && add(text, form->end) && add(text, "\n");
}

/** The tools that may be called, and their schemas as text: [count] each. Returns how many; 0: a fault was noted. */
static size_t list_tools(const pi2_conversation_json *conversation, const char **names, char **schemas,
                         pi2_request_fault *fault) {
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(conversation->tools); i++) {
        const json_t *function = json_object_get(json_array_get(conversation->tools, i), "function");
        const char *name = json_string_value(json_object_get(function, "name"));
        const json_t *parameters = json_object_get(function, "parameters");
        if (conversation->tool_name && (!name || strcmp(name, conversation->tool_name) != 0)) continue;
        if (!name || !is_plain(name)) {
            (void)pi2_fault(fault, "tool %zu has a name that a call cannot be made to have", i);
            return 0;
        }
        names[count] = name;
        schemas[count] = json_object_size(parameters) ? json_dumps(parameters, JSON_COMPACT)
                                                    : strdup("{\"type\": \"object\"}");
        if (!schemas[count++]) {
            (void)pi2_fault(fault, "no memory for the tools");
            return 0;
        }
        if (conversation->tool_name) break;
    }
    if (count == 0) (void)pi2_fault(fault, "'tool_choice' demands a call, and no tool of its name is offered");
    return count;
}

static bool write_form(pi2_reply *reply, const pi2_conversation_json *conversation, const char **names, char **schemas,
                       pi2_request_fault *fault) {
    const size_t count = list_tools(conversation, names, schemas, fault);
    char *gbnf = NULL;
    if (count == 0) return false;
    const pi2_status status = pi2_schemas_to_gbnf((const char *const *)schemas, count, &gbnf);
    if (status != PI2_OK) {
        return status == PI2_ERR_MEMORY ? pi2_fault_of(fault, status)
                                        : pi2_fault(fault, "the tools' parameters: %s", pi2_error_text());
    }
    char *variables = pi2_prompt_variables(reply->exchange, conversation->variables, fault);
    const bool is_good = variables && add(&reply->tool_grammar, gbnf) &&
                         add_calls(&reply->tool_grammar, form_of(reply->exchange->server->engine, variables), names,
                                   count, conversation->wants_one_call);
    free(variables);
    free(gbnf);
    return is_good || (!fault->status && pi2_fault(fault, "no memory for a grammar"));
}

bool pi2_tool_form_take(pi2_reply *reply, const pi2_conversation_json *conversation, pi2_request_fault *fault) {
    const size_t count = json_array_size(conversation->tools);
    const char **names = calloc(count + 1, sizeof *names);
    char **schemas = calloc(count + 1, sizeof *schemas);
    const bool is_good = names && schemas ? write_form(reply, conversation, names, schemas, fault)
                                          : pi2_fault(fault, "no memory for the tools");
    for (size_t i = 0; schemas && i < count; i++) free(schemas[i]);
    free(schemas);
    free(names);
    return is_good;
}
