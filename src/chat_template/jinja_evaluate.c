/* jinja_evaluate.c: expression nodes to values. */
#include "chat_template/jinja.h"

#include <stdio.h>
#include <string.h>

static pi2_status look_up(pi2_jinja_run *run, const pi2_jinja_node *node, pi2_jinja_value *out) {
    for (const pi2_jinja_frame *frame = run->frame; frame != NULL; frame = frame->parent) {
        pi2_jinja_charge(run->arena, 1);
        const pi2_jinja_value *found =
            pi2_jinja_dict_find_name(run->arena, &frame->variables, node->text);
        if (found == NULL) continue;
        *out = *found;
        return PI2_OK;
    }
    for (const pi2_jinja_builtin *function = pi2_jinja_functions; function->name != NULL;
         function++) {
        if (!pi2_jinja_is(node->text, function->name)) continue;
        *out = (pi2_jinja_value){.type = PI2_JINJA_FUNCTION, .as.function = function};
        return PI2_OK;
    }
    *out = pi2_jinja_undefined(PI2_JINJA_NO_VARIABLE, node->text);
    return PI2_OK;
}

static pi2_status make_list(pi2_jinja_run *run, const pi2_jinja_node *node, pi2_jinja_value *out) {
    const pi2_jinja_list_kind kind = node->kind == PI2_JINJA_TUPLE_OF ? PI2_JINJA_TUPLE : PI2_JINJA_PLAIN_LIST;
    PI2_TRY(pi2_jinja_list_new(run->arena, node->list_count, kind, out));
    for (size_t i = 0; i < node->list_count; i++) {
        pi2_jinja_value item;
        PI2_TRY(pi2_jinja_evaluate(run, node->list[i], &item));
        PI2_TRY(pi2_jinja_list_add(run->arena, out->as.list, item));
    }
    return PI2_OK;
}

static bool may_be_key(const pi2_jinja_value *value) {
    return pi2_jinja_is_number(value) || value->type == PI2_JINJA_STRING ||
           value->type == PI2_JINJA_NONE;
}

static pi2_status make_dict(pi2_jinja_run *run, const pi2_jinja_node *node, pi2_jinja_value *out) {
    const pi2_jinja_call call = {.run = run, .node = node};
    PI2_TRY(pi2_jinja_dict_new(run->arena, out));
    for (size_t i = 0; i + 1 < node->list_count; i += 2) {
        pi2_jinja_value key, value;
        PI2_TRY(pi2_jinja_evaluate(run, node->list[i], &key));
        PI2_TRY(pi2_jinja_evaluate(run, node->list[i + 1], &value));
        if (!may_be_key(&key))
            return pi2_jinja_refuse(&call, "%s as the key of a mapping",
                                    pi2_jinja_type_name(&key));
        PI2_TRY(pi2_jinja_dict_set(run->arena, out->as.dict, key, value));
    }
    return PI2_OK;
}

/* ---- calls, filters, tests ---- */

static pi2_status evaluate_arguments(pi2_jinja_call *call, const pi2_jinja_node *node) {
    pi2_jinja_arena *arena = call->run->arena;
    size_t named_total = 0;
    for (size_t i = 0; i < node->list_count; i++)
        named_total += node->list[i]->kind == PI2_JINJA_NAMED;
    const size_t total = node->list_count - named_total;
    pi2_jinja_value *arguments = NULL;
    pi2_jinja_named *named = NULL;
    if (total > 0) {
        arguments = pi2_jinja_alloc(arena, total, sizeof *arguments);
        if (arguments == NULL) return pi2_jinja_no_memory(arena);
    }
    if (named_total > 0) {
        named = pi2_jinja_alloc(arena, named_total, sizeof *named);
        if (named == NULL) return pi2_jinja_no_memory(arena);
    }
    size_t count = 0, named_count = 0;
    for (size_t i = 0; i < node->list_count; i++) {
        const pi2_jinja_node *argument = node->list[i];
        if (argument->kind == PI2_JINJA_NAMED) {
            named[named_count].name = argument->text;
            PI2_TRY(pi2_jinja_evaluate(call->run, argument->a, &named[named_count].value));
            named_count++;
        } else {
            PI2_TRY(pi2_jinja_evaluate(call->run, argument, &arguments[count]));
            count++;
        }
    }
    call->arguments = arguments;
    call->named = named;
    call->count = count;
    call->named_count = named_count;
    return PI2_OK;
}

/** The present token of `names`, moved past. */
static pi2_jinja_string next_name(const char **names) {
    const size_t length = strcspn(*names, " ");
    const pi2_jinja_string name = {.bytes = *names, .length = length, .trusted = true};
    *names += length;
    *names += **names == ' ';
    return name;
}

pi2_status pi2_jinja_arguments(pi2_jinja_call *call, const char *names, size_t least, size_t most,
                               pi2_jinja_value *arguments_out, unsigned *given_out) {
    unsigned given = 0;
    if (call->count > most)
        return pi2_jinja_fail(call, "'%.*s' takes at most %zu arguments, not %zu",
                              PI2_JINJA_SHOWN(call->name), most, call->count);
    size_t named_used = 0;
    for (size_t i = 0; i < most; i++) {
        const pi2_jinja_string name = next_name(&names);
        arguments_out[i] = pi2_jinja_undefined(PI2_JINJA_NO_VARIABLE, name);
        if (i < call->count) {
            arguments_out[i] = call->arguments[i];
            given |= 1u << i;
        }
        for (size_t j = 0; j < call->named_count; j++) {
            if (name.length == 0 || !pi2_jinja_same_bytes(call->named[j].name, name)) continue;
            arguments_out[i] = call->named[j].value;
            given |= 1u << i;
            named_used++;
        }
    }
    if (named_used != call->named_count || (named_used > 0 && call->count + named_used > most))
        return pi2_jinja_refuse(call, "an argument of this name for '%.*s'",
                                PI2_JINJA_SHOWN(call->name));
    for (size_t i = 0; i < least; i++)
        if ((given >> i & 1u) == 0)
            return pi2_jinja_fail(call, "'%.*s' needs at least %zu arguments",
                                  PI2_JINJA_SHOWN(call->name), least);
    if (given_out != NULL) *given_out = given;
    return PI2_OK;
}

/** Functions of jinja2 that we do not have. */
static bool is_missing_function(pi2_jinja_string name) {
    return pi2_jinja_is(name, "lipsum") || pi2_jinja_is(name, "cycler") || pi2_jinja_is(name, "joiner");
}

pi2_status pi2_jinja_evaluate_call(pi2_jinja_run *run, const pi2_jinja_node *node,
                                   const pi2_jinja_value *caller, pi2_jinja_value *out) {
    pi2_jinja_call call = {.run = run, .node = node, .name = node->a->text, .caller = caller};
    pi2_jinja_value callee;
    PI2_TRY(pi2_jinja_evaluate(run, node->a, &callee));
    if (callee.type == PI2_JINJA_UNDEFINED && node->a->kind == PI2_JINJA_NAME && is_missing_function(node->a->text))
        return pi2_jinja_refuse(&call, "function '%.*s'", PI2_JINJA_SHOWN(node->a->text));
    if (callee.type == PI2_JINJA_UNDEFINED) return pi2_jinja_fail_undefined(&call, &callee);
    PI2_TRY(evaluate_arguments(&call, node));
    if (callee.type == PI2_JINJA_MACRO) return pi2_jinja_call_macro(&call, callee.as.macro, out);
    if (callee.type == PI2_JINJA_FUNCTION && caller == NULL)
        return callee.as.function->run(&call, out);
    if (callee.type == PI2_JINJA_METHOD && caller == NULL) {
        call.subject = *callee.as.method->receiver;
        call.name = callee.as.method->name;
        return pi2_jinja_call_method(&call, out);
    }
    return pi2_jinja_fail(&call, "'%s' object is not callable", pi2_jinja_python_type(&callee));
}

static pi2_status evaluate_filter(pi2_jinja_run *run, const pi2_jinja_node *node,
                                  pi2_jinja_value *out) {
    pi2_jinja_call call = {.run = run, .node = node, .name = node->text};
    PI2_TRY(pi2_jinja_evaluate(run, node->a, &call.subject));
    PI2_TRY(evaluate_arguments(&call, node));
    return pi2_jinja_apply_filter(&call, out);
}

static pi2_status evaluate_test(pi2_jinja_run *run, const pi2_jinja_node *node,
                                pi2_jinja_value *out) {
    pi2_jinja_call call = {.run = run, .node = node, .name = node->text};
    bool result;
    PI2_TRY(pi2_jinja_evaluate(run, node->a, &call.subject));
    PI2_TRY(evaluate_arguments(&call, node));
    PI2_TRY(pi2_jinja_apply_test(&call, &result));
    *out = pi2_jinja_boolean(result);
    return PI2_OK;
}

/* ---- operators ---- */

static pi2_status evaluate_sign(pi2_jinja_run *run, const pi2_jinja_node *node,
                                pi2_jinja_value *out) {
    pi2_jinja_call call = {.run = run, .node = node};
    const pi2_jinja_value zero = pi2_jinja_integer(0);
    pi2_jinja_value value;
    PI2_TRY(pi2_jinja_evaluate(run, node->a, &value));
    if (!pi2_jinja_is_number(&value))
        return pi2_jinja_fail(&call, "%s has no sign", pi2_jinja_type_name(&value));
    if (node->kind == PI2_JINJA_NEGATIVE && value.type == PI2_JINJA_FLOAT) {
        *out = pi2_jinja_float(-value.as.number);
        return PI2_OK;
    }
    const char *sign = node->kind == PI2_JINJA_NEGATIVE ? "-" : "+";
    return pi2_jinja_arithmetic(&call, pi2_jinja_own_string(sign), &zero, &value, out);
}

static pi2_status evaluate_arithmetic(pi2_jinja_run *run, const pi2_jinja_node *node,
                                      pi2_jinja_value *out) {
    pi2_jinja_call call = {.run = run, .node = node};
    pi2_jinja_value left, right;
    PI2_TRY(pi2_jinja_evaluate(run, node->a, &left));
    PI2_TRY(pi2_jinja_evaluate(run, node->b, &right));
    return pi2_jinja_arithmetic(&call, node->text, &left, &right, out);
}

static pi2_status evaluate_concat(pi2_jinja_run *run, const pi2_jinja_node *node,
                                  pi2_jinja_value *out) {
    pi2_jinja_call call = {.run = run, .node = node};
    pi2_jinja_text text = {.arena = run->arena};
    for (size_t i = 0; i < node->list_count; i++) {
        pi2_jinja_value part;
        PI2_TRY(pi2_jinja_evaluate(run, node->list[i], &part));
        PI2_TRY(pi2_jinja_print(&call, &text, &part));
    }
    *out = pi2_jinja_of_string(pi2_jinja_text_string(&text));
    return PI2_OK;
}

/** a < b < c: every neighbouring pair, up to the first that fails. */
static pi2_status evaluate_compare(pi2_jinja_run *run, const pi2_jinja_node *node,
                                   pi2_jinja_value *out) {
    pi2_jinja_value left, right;
    bool holds = true;
    PI2_TRY(pi2_jinja_evaluate(run, node->a, &left));
    for (size_t i = 0; i < node->list_count && holds; i++, left = right) {
        const pi2_jinja_call call = {.run = run, .node = node->list[i]};
        PI2_TRY(pi2_jinja_evaluate(run, node->list[i]->a, &right));
        PI2_TRY(pi2_jinja_compare(&call, node->list[i]->text, &left, &right, &holds));
    }
    *out = pi2_jinja_boolean(holds);
    return PI2_OK;
}

static pi2_status evaluate_logic(pi2_jinja_run *run, const pi2_jinja_node *node,
                                 pi2_jinja_value *out) {
    PI2_TRY(pi2_jinja_evaluate(run, node->a, out));
    if (node->kind == PI2_JINJA_NOT) {
        *out = pi2_jinja_boolean(!pi2_jinja_truth(out));
        return PI2_OK;
    }
    /* As in Python, the value that decided is the result. */
    if (pi2_jinja_truth(out) == (node->kind == PI2_JINJA_OR)) return PI2_OK;
    return pi2_jinja_evaluate(run, node->b, out);
}

/** What an inline if without else gives: an undefined value that tells where it came from. */
static pi2_status undefined_conditional(pi2_jinja_run *run, const pi2_jinja_node *node, pi2_jinja_value *out) {
    enum { HINT_BYTES = 112 };
    char *hint = pi2_jinja_alloc(run->arena, HINT_BYTES, 1);
    if (hint == NULL) return pi2_jinja_no_memory(run->arena);
    (void)snprintf(hint, HINT_BYTES, "the inline if-expression on line %lu evaluated to false and no else section was "
                   "defined.", (unsigned long)node->line);
    *out = pi2_jinja_undefined(PI2_JINJA_HINT, pi2_jinja_own_string(hint));
    return PI2_OK;
}

static pi2_status evaluate_conditional(pi2_jinja_run *run, const pi2_jinja_node *node,
                                       pi2_jinja_value *out) {
    pi2_jinja_value test;
    PI2_TRY(pi2_jinja_evaluate(run, node->a, &test));
    if (pi2_jinja_truth(&test)) return pi2_jinja_evaluate(run, node->b, out);
    if (node->c != NULL) return pi2_jinja_evaluate(run, node->c, out);
    return undefined_conditional(run, node, out);
}

static pi2_status evaluate_attribute(pi2_jinja_run *run, const pi2_jinja_node *node,
                                     pi2_jinja_value *out) {
    const pi2_jinja_call call = {.run = run, .node = node};
    pi2_jinja_value owner;
    PI2_TRY(pi2_jinja_evaluate(run, node->a, &owner));
    return pi2_jinja_attribute(&call, &owner, node->text, out);
}

static pi2_status evaluate_subscript(pi2_jinja_run *run, const pi2_jinja_node *node,
                                     pi2_jinja_value *out) {
    const pi2_jinja_call call = {.run = run, .node = node};
    pi2_jinja_value owner, key;
    PI2_TRY(pi2_jinja_evaluate(run, node->a, &owner));
    PI2_TRY(pi2_jinja_evaluate(run, node->b, &key));
    return pi2_jinja_subscript(&call, &owner, &key, out);
}

static pi2_status evaluate_slice(pi2_jinja_run *run, const pi2_jinja_node *node,
                                 pi2_jinja_value *out) {
    pi2_jinja_call call = {.run = run, .node = node};
    const pi2_jinja_node *const parts[3] = {node->b, node->c, node->d};
    pi2_jinja_value owner, bounds[3];
    PI2_TRY(pi2_jinja_evaluate(run, node->a, &owner));
    for (size_t i = 0; i < 3; i++) {
        bounds[i] = pi2_jinja_none();
        if (parts[i] != NULL) PI2_TRY(pi2_jinja_evaluate(run, parts[i], &bounds[i]));
    }
    return pi2_jinja_slice(&call, &owner, bounds, out);
}

static pi2_status evaluate_kind(pi2_jinja_run *run, const pi2_jinja_node *node,
                                pi2_jinja_value *out) {
    switch (node->kind) {
    case PI2_JINJA_CONSTANT: *out = node->constant; return PI2_OK;
    case PI2_JINJA_CAPTURED: *out = run->captured; return PI2_OK;
    case PI2_JINJA_NAME: return look_up(run, node, out);
    case PI2_JINJA_LIST_OF:
    case PI2_JINJA_TUPLE_OF: return make_list(run, node, out);
    case PI2_JINJA_DICT_OF: return make_dict(run, node, out);
    case PI2_JINJA_ATTRIBUTE: return evaluate_attribute(run, node, out);
    case PI2_JINJA_SUBSCRIPT: return evaluate_subscript(run, node, out);
    case PI2_JINJA_SLICE: return evaluate_slice(run, node, out);
    case PI2_JINJA_CALL: return pi2_jinja_evaluate_call(run, node, NULL, out);
    case PI2_JINJA_FILTER: return evaluate_filter(run, node, out);
    case PI2_JINJA_TEST: return evaluate_test(run, node, out);
    case PI2_JINJA_NEGATIVE:
    case PI2_JINJA_POSITIVE: return evaluate_sign(run, node, out);
    case PI2_JINJA_NOT:
    case PI2_JINJA_AND:
    case PI2_JINJA_OR: return evaluate_logic(run, node, out);
    case PI2_JINJA_ARITHMETIC: return evaluate_arithmetic(run, node, out);
    case PI2_JINJA_CONCAT: return evaluate_concat(run, node, out);
    case PI2_JINJA_COMPARE: return evaluate_compare(run, node, out);
    case PI2_JINJA_CONDITIONAL: return evaluate_conditional(run, node, out);
    default: break; /* statements and arguments: the parser puts none here */
    }
    const pi2_jinja_call call = {.run = run, .node = node};
    return pi2_jinja_refuse(&call, "this expression");
}

pi2_status pi2_jinja_evaluate(pi2_jinja_run *run, const pi2_jinja_node *node,
                              pi2_jinja_value *out) {
    PI2_TRY(pi2_jinja_step(run, node));
    PI2_TRY(evaluate_kind(run, node, out));
    run->depth--;
    return PI2_OK;
}
