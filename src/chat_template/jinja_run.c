/* jinja_run.c: executes statements; scopes as in jinja2: for, macro, call, with, filter and block
 * set open one, if does not. */
#include "chat_template/jinja.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static pi2_status execute_node(pi2_jinja_run *run, const pi2_jinja_node *node);

pi2_status pi2_jinja_fail(const pi2_jinja_call *call, const char *format, ...) {
    char text[600];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return pi2_jinja_fail_at(call->node->line, call->node->column, PI2_ERR_FORMAT, "%s", text);
}

pi2_status pi2_jinja_refuse(const pi2_jinja_call *call, const char *format, ...) {
    char text[600];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return pi2_jinja_refuse_at(call->node->line, call->node->column, "%s", text);
}

/* What jinja2 calls the owner of a missing attribute: Python's type, but for None, and its own types by module. */
static const char *owner_name(const char *python_type, char text[64]) {
    if (strcmp(python_type, "NoneType") == 0) return "None";
    const bool is_own = strcmp(python_type, "Namespace") == 0;
    const bool is_runtime = strcmp(python_type, "LoopContext") == 0 || strcmp(python_type, "Macro") == 0;
    const bool is_markup = strcmp(python_type, "Markup") == 0;
    const char *module = is_own ? "jinja2.utils." : is_runtime ? "jinja2.runtime." : is_markup ? "markupsafe." : "";
    (void)snprintf(text, 64, "%s%s object", module, python_type);
    return text;
}

pi2_status pi2_jinja_fail_undefined(const pi2_jinja_call *call, const pi2_jinja_value *value) {
    const pi2_jinja_missing *missing = &value->as.missing;
    char text[64];
    const char *owner = owner_name(missing->owner, text);
    const bool has_name = missing->absence != PI2_JINJA_NO_ELEMENT;
    const pi2_jinja_string name = {.bytes = missing->bytes, .length = has_name ? (size_t)missing->number : 0};
    switch (missing->absence) {
    case PI2_JINJA_NO_VARIABLE: return pi2_jinja_fail(call, "'%.*s' is undefined", PI2_JINJA_SHOWN(name));
    case PI2_JINJA_NO_ATTRIBUTE:
        return pi2_jinja_fail(call, "'%s' has no attribute '%.*s'", owner, PI2_JINJA_SHOWN(name));
    case PI2_JINJA_NO_ELEMENT:
        return pi2_jinja_fail(call, "%s has no element %lld", owner, (long long)missing->number);
    case PI2_JINJA_UNSAFE:
        return pi2_jinja_fail(call, "access to attribute '%.*s' of '%s' object is unsafe.", PI2_JINJA_SHOWN(name),
                              missing->owner);
    case PI2_JINJA_NOT_GIVEN:
        return pi2_jinja_fail(call, "parameter '%.*s' was not provided", PI2_JINJA_SHOWN(name));
    case PI2_JINJA_HINT: break;
    }
    return pi2_jinja_fail(call, "%.*s", (int)missing->number, missing->bytes);
}

pi2_status pi2_jinja_step(pi2_jinja_run *run, const pi2_jinja_node *node) {
    run->arena->work++;
    if (run->arena->work > PI2_JINJA_WORK)
        return pi2_jinja_fail_at(node->line, node->column, PI2_ERR_FORMAT,
                                 "it takes more than the limit of %d steps", PI2_JINJA_WORK);
    if (run->depth == PI2_JINJA_RUN_DEPTH)
        return pi2_jinja_fail_at(node->line, node->column, PI2_ERR_FORMAT,
                                 "maximum recursion depth exceeded: it nests more than the limit of %d calls",
                                 PI2_JINJA_RUN_DEPTH);
    run->depth++;
    return PI2_OK;
}

pi2_status pi2_jinja_push_frame(pi2_jinja_run *run, pi2_jinja_frame *parent) {
    pi2_jinja_frame *frame = pi2_jinja_alloc(run->arena, 1, sizeof *frame);
    if (frame == NULL) return pi2_jinja_no_memory(run->arena);
    frame->parent = parent;
    run->frame = frame;
    return PI2_OK;
}

static pi2_status set_variable(pi2_jinja_run *run, pi2_jinja_string name, pi2_jinja_value value) {
    return pi2_jinja_dict_set(run->arena, &run->frame->variables, pi2_jinja_of_string(name), value);
}

static pi2_status assign_attribute(pi2_jinja_run *run, const pi2_jinja_node *target,
                                   pi2_jinja_value value) {
    const pi2_jinja_call call = {.run = run, .node = target};
    pi2_jinja_value owner;
    PI2_TRY(pi2_jinja_evaluate(run, target->a, &owner));
    if (owner.type != PI2_JINJA_NAMESPACE)
        return pi2_jinja_fail(&call, "cannot assign attribute on non-namespace object: '%.*s' of %s",
                              PI2_JINJA_SHOWN(target->text), pi2_jinja_type_name(&owner));
    return pi2_jinja_dict_set(run->arena, owner.as.dict, pi2_jinja_of_string(target->text), value);
}

static pi2_status assign(pi2_jinja_run *run, const pi2_jinja_node *target, pi2_jinja_value value) {
    if (target->kind == PI2_JINJA_NAME) return set_variable(run, target->text, value);
    if (target->kind == PI2_JINJA_ATTRIBUTE) return assign_attribute(run, target, value);
    const pi2_jinja_call call = {.run = run, .node = target};
    if (target->kind != PI2_JINJA_TUPLE_OF) return pi2_jinja_fail(&call, "this cannot be set");
    pi2_jinja_list *items;
    PI2_TRY(pi2_jinja_iterate(&call, &value, &items));
    if (items->count != target->list_count)
        return items->count < target->list_count
                   ? pi2_jinja_fail(&call, "not enough values to unpack (expected %zu, got %zu)", target->list_count,
                                    items->count)
                   : pi2_jinja_fail(&call, "too many values to unpack (expected %zu)", target->list_count);
    for (size_t i = 0; i < items->count; i++)
        PI2_TRY(assign(run, target->list[i], items->items[i]));
    return PI2_OK;
}

/* ---- statements ---- */

pi2_status pi2_jinja_execute(pi2_jinja_run *run, const pi2_jinja_node *body) {
    for (size_t i = 0; i < body->list_count && run->flow == PI2_JINJA_ON; i++)
        PI2_TRY(execute_node(run, body->list[i]));
    return PI2_OK;
}

static pi2_status execute_scoped(pi2_jinja_run *run, const pi2_jinja_node *body) {
    pi2_jinja_frame *outer = run->frame;
    PI2_TRY(pi2_jinja_push_frame(run, outer));
    PI2_TRY(pi2_jinja_execute(run, body));
    run->frame = outer;
    return PI2_OK;
}

/** Runs node->list into a text of its own, then node->b over that text. */
static pi2_status execute_captured(pi2_jinja_run *run, const pi2_jinja_node *node,
                                   pi2_jinja_value *out) {
    pi2_jinja_text text = {.arena = run->arena}, *output = run->output;
    run->output = &text;
    PI2_TRY(execute_scoped(run, node));
    run->output = output;
    const pi2_jinja_value captured = run->captured;
    run->captured = pi2_jinja_of_string(pi2_jinja_text_string(&text));
    PI2_TRY(pi2_jinja_evaluate(run, node->b, out));
    run->captured = captured;
    return PI2_OK;
}

static pi2_status execute_if(pi2_jinja_run *run, const pi2_jinja_node *node) {
    for (size_t i = 0; i < node->list_count; i++) {
        const pi2_jinja_node *branch = node->list[i];
        pi2_jinja_value test = pi2_jinja_boolean(true);
        if (branch->a != NULL) PI2_TRY(pi2_jinja_evaluate(run, branch->a, &test));
        if (pi2_jinja_truth(&test)) return pi2_jinja_execute(run, branch);
    }
    return PI2_OK;
}

/** The items that pass node->c; it sees the target's names, not `loop`. */
static pi2_status filter_items(pi2_jinja_run *run, const pi2_jinja_node *node,
                               pi2_jinja_list **items) {
    pi2_jinja_value kept;
    PI2_TRY(pi2_jinja_list_new(run->arena, 0, PI2_JINJA_PLAIN_LIST, &kept));
    pi2_jinja_frame *outer = run->frame;
    PI2_TRY(pi2_jinja_push_frame(run, outer));
    for (size_t i = 0; i < (*items)->count; i++) {
        const pi2_jinja_value item = (*items)->items[i];
        pi2_jinja_value test;
        PI2_TRY(assign(run, node->a, item));
        PI2_TRY(pi2_jinja_evaluate(run, node->c, &test));
        if (pi2_jinja_truth(&test)) PI2_TRY(pi2_jinja_list_add(run->arena, kept.as.list, item));
    }
    run->frame = outer;
    *items = kept.as.list;
    return PI2_OK;
}

static pi2_status execute_for(pi2_jinja_run *run, const pi2_jinja_node *node) {
    const pi2_jinja_call call = {.run = run, .node = node->b};
    pi2_jinja_value iterable;
    pi2_jinja_list *items;
    PI2_TRY(pi2_jinja_evaluate(run, node->b, &iterable));
    PI2_TRY(pi2_jinja_iterate(&call, &iterable, &items));
    if (node->c != NULL) PI2_TRY(filter_items(run, node, &items));
    bool has_ended = false; /* an iteration came to its end; in jinja2 one that continue or break left does not count */
    pi2_jinja_loop *loop = pi2_jinja_alloc(run->arena, 1, sizeof *loop);
    if (loop == NULL) return pi2_jinja_no_memory(run->arena);
    loop->items = items;
    loop->depth = 1;
    const pi2_jinja_value loop_value = {.type = PI2_JINJA_LOOP, .as.loop = loop};
    pi2_jinja_frame *outer = run->frame, *frame = NULL;
    for (size_t i = 0; i < items->count; i++) {
        loop->index = i;
        if (frame == NULL || frame->captured) {
            PI2_TRY(pi2_jinja_push_frame(run, outer));
            frame = run->frame;
        }
        run->frame = frame;
        frame->variables.count = 0;
        run->arena->work++;
        PI2_TRY(set_variable(run, pi2_jinja_own_string("loop"), loop_value));
        PI2_TRY(assign(run, node->a, items->items[i]));
        PI2_TRY(pi2_jinja_execute(run, node));
        const bool breaks = run->flow == PI2_JINJA_BREAKS;
        has_ended = has_ended || run->flow == PI2_JINJA_ON;
        run->flow = PI2_JINJA_ON;
        if (breaks) break;
    }
    run->frame = outer;
    return has_ended || node->d == NULL ? PI2_OK : execute_scoped(run, node->d);
}

static pi2_status make_macro(pi2_jinja_run *run, const pi2_jinja_node *node,
                             pi2_jinja_value *out) {
    pi2_jinja_macro *macro = pi2_jinja_alloc(run->arena, 1, sizeof *macro);
    if (macro == NULL) return pi2_jinja_no_memory(run->arena);
    macro->node = node;
    macro->frame = run->frame;
    for (pi2_jinja_frame *frame = run->frame; frame != NULL && !frame->captured;
         frame = frame->parent)
        frame->captured = true;
    *out = (pi2_jinja_value){.type = PI2_JINJA_MACRO, .as.macro = macro};
    return PI2_OK;
}

static pi2_status execute_call_block(pi2_jinja_run *run, const pi2_jinja_node *node) {
    pi2_jinja_call call = {.run = run, .node = node};
    pi2_jinja_value caller, result;
    PI2_TRY(make_macro(run, node->b, &caller));
    PI2_TRY(pi2_jinja_evaluate_call(run, node->a, &caller, &result));
    return pi2_jinja_print(&call, run->output, &result);
}

static pi2_status execute_kind(pi2_jinja_run *run, const pi2_jinja_node *node) {
    pi2_jinja_call call = {.run = run, .node = node};
    pi2_jinja_value value;
    switch (node->kind) {
    case PI2_JINJA_TEXT: return pi2_jinja_text_add(run->output, node->text);
    case PI2_JINJA_PRINT:
        PI2_TRY(pi2_jinja_evaluate(run, node->a, &value));
        return pi2_jinja_print(&call, run->output, &value);
    case PI2_JINJA_BODY: return execute_scoped(run, node);
    case PI2_JINJA_IF: return execute_if(run, node);
    case PI2_JINJA_FOR: return execute_for(run, node);
    case PI2_JINJA_SET:
        PI2_TRY(pi2_jinja_evaluate(run, node->b, &value));
        return assign(run, node->a, value);
    case PI2_JINJA_SET_BLOCK:
        PI2_TRY(execute_captured(run, node, &value));
        return assign(run, node->a, value);
    case PI2_JINJA_FILTER_BLOCK:
        PI2_TRY(execute_captured(run, node, &value));
        if (value.type != PI2_JINJA_STRING)
            return pi2_jinja_fail(&call, "the filter of this block gives %s, not a string",
                                  pi2_jinja_type_name(&value));
        return pi2_jinja_text_add(run->output, value.as.string);
    case PI2_JINJA_MACRO_OF:
        PI2_TRY(make_macro(run, node, &value));
        return set_variable(run, node->text, value);
    case PI2_JINJA_CALL_BLOCK: return execute_call_block(run, node);
    case PI2_JINJA_BREAK: run->flow = PI2_JINJA_BREAKS; return PI2_OK;
    case PI2_JINJA_CONTINUE: run->flow = PI2_JINJA_CONTINUES; return PI2_OK;
    default: return pi2_jinja_refuse(&call, "this statement"); /* the parser makes no other */
    }
}

static pi2_status execute_node(pi2_jinja_run *run, const pi2_jinja_node *node) {
    PI2_TRY(pi2_jinja_step(run, node));
    PI2_TRY(execute_kind(run, node));
    run->depth--;
    return PI2_OK;
}

/* ---- macros ---- */

/** Names the first argument that the macro has no parameter for. */
static pi2_status fail_unknown_name(const pi2_jinja_call *call, const pi2_jinja_node *macro) {
    size_t unknown = 0;
    for (bool found = true; unknown < call->named_count && found; unknown += found) {
        found = false;
        for (size_t i = 0; i < macro->list_count; i++)
            found = found || pi2_jinja_same_bytes(call->named[unknown].name, macro->list[i]->text);
    }
    if (unknown == call->named_count) unknown = 0; /* a name was given twice */
    return pi2_jinja_fail(call, "macro '%.*s' takes no keyword argument '%.*s'", PI2_JINJA_SHOWN(macro->text),
                          PI2_JINJA_SHOWN(call->named[unknown].name));
}

/** Binds the arguments in the macro's new frame, which is the present one. */
static pi2_status bind_parameters(pi2_jinja_call *call, const pi2_jinja_macro *macro) {
    pi2_jinja_run *run = call->run;
    const pi2_jinja_node *node = macro->node;
    if (call->count > node->list_count)
        return pi2_jinja_fail(call, "macro '%.*s' takes not more than %zu argument(s)",
                              PI2_JINJA_SHOWN(node->text), node->list_count);
    size_t named_used = 0;
    for (size_t i = 0; i < node->list_count; i++) {
        const pi2_jinja_node *parameter = node->list[i];
        pi2_jinja_value value = pi2_jinja_undefined(PI2_JINJA_NOT_GIVEN, parameter->text);
        bool given = i < call->count;
        if (given) value = call->arguments[i];
        for (size_t j = 0; j < call->named_count; j++) {
            if (!pi2_jinja_same_bytes(call->named[j].name, parameter->text)) continue;
            if (given)
                return pi2_jinja_fail(call, "argument '%.*s' is given twice",
                                      PI2_JINJA_SHOWN(parameter->text));
            given = true;
            value = call->named[j].value;
            named_used++;
        }
        if (!given && parameter->a != NULL) PI2_TRY(pi2_jinja_evaluate(run, parameter->a, &value));
        PI2_TRY(set_variable(run, parameter->text, value));
    }
    if (named_used != call->named_count) return fail_unknown_name(call, node);
    if (call->caller == NULL) return PI2_OK;
    return set_variable(run, pi2_jinja_own_string("caller"), *call->caller);
}

pi2_status pi2_jinja_call_macro(pi2_jinja_call *call, const pi2_jinja_macro *macro,
                                pi2_jinja_value *out) {
    pi2_jinja_run *run = call->run;
    pi2_jinja_frame *frame = run->frame;
    pi2_jinja_text text = {.arena = run->arena}, *output = run->output;
    PI2_TRY(pi2_jinja_push_frame(run, macro->frame));
    run->output = &text;
    PI2_TRY(bind_parameters(call, macro));
    PI2_TRY(pi2_jinja_execute(run, macro->node->b));
    run->output = output;
    run->frame = frame;
    *out = pi2_jinja_of_string(pi2_jinja_text_string(&text));
    return PI2_OK;
}
