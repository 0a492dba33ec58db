/* jinja_expressions.c: tokens to expression nodes; precedence as in jinja2:
 * if-else, or, and, not, comparisons, + -, ~, * / // %, **, unary, then filters and tests. */
#include "chat_template/jinja.h"

#include <string.h>

typedef pi2_status parse_function(pi2_jinja_parser *parser, pi2_jinja_node **node_out);

static parse_function parse_or;
static parse_function parse_unary_filtered;

/** One of `operators` (space-separated), as the present token. */
static bool at_one_of(const pi2_jinja_parser *parser, const char *operators) {
    const pi2_jinja_token *token = pi2_jinja_peek(parser);
    if (token->type != PI2_JINJA_TOKEN_OPERATOR) return false;
    for (const char *at = operators; *at != '\0';) {
        const size_t length = strcspn(at, " ");
        if (length == token->text.length && memcmp(at, token->text.bytes, length) == 0) return true;
        at += length;
        at += *at == ' ';
    }
    return false;
}

/** left op right op ...: each joined to what stands on its left. */
static pi2_status parse_left(pi2_jinja_parser *parser, const char *operators,
                             parse_function *operand, pi2_jinja_node **node_out) {
    PI2_TRY(operand(parser, node_out));
    while (at_one_of(parser, operators)) {
        pi2_jinja_node *node = NULL;
        PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_ARITHMETIC, &node));
        node->text = pi2_jinja_peek(parser)->text;
        parser->at++;
        node->a = *node_out;
        PI2_TRY(operand(parser, &node->b));
        *node_out = node;
    }
    return PI2_OK;
}

static pi2_status parse_power(pi2_jinja_parser *parser, pi2_jinja_node **node_out) {
    return parse_left(parser, "**", parse_unary_filtered, node_out);
}

static pi2_status parse_product(pi2_jinja_parser *parser, pi2_jinja_node **node_out) {
    return parse_left(parser, "* / // %", parse_power, node_out);
}

static pi2_status parse_concat(pi2_jinja_parser *parser, pi2_jinja_node **node_out) {
    PI2_TRY(parse_product(parser, node_out));
    if (!pi2_jinja_at_operator(parser, "~")) return PI2_OK;
    pi2_jinja_node *node = NULL;
    PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_CONCAT, &node));
    PI2_TRY(pi2_jinja_node_add(parser, node, *node_out));
    while (pi2_jinja_take_operator(parser, "~")) {
        pi2_jinja_node *part = NULL;
        PI2_TRY(parse_product(parser, &part));
        PI2_TRY(pi2_jinja_node_add(parser, node, part));
    }
    *node_out = node;
    return PI2_OK;
}

static pi2_status parse_sum(pi2_jinja_parser *parser, pi2_jinja_node **node_out) {
    return parse_left(parser, "+ -", parse_concat, node_out);
}

/** The comparison operator at the present token, consumed; an empty string when there is none. */
static pi2_jinja_string take_comparison(pi2_jinja_parser *parser) {
    const pi2_jinja_token *token = pi2_jinja_peek(parser);
    if (at_one_of(parser, "== != < <= > >=") || pi2_jinja_at_name(parser, "in")) {
        parser->at++;
        return token->text;
    }
    if (pi2_jinja_at_name(parser, "not")) {
        parser->at++;
        if (pi2_jinja_take_name(parser, "in")) return pi2_jinja_own_string("not in");
        parser->at--;
    }
    return pi2_jinja_own_string("");
}

static pi2_status parse_compare(pi2_jinja_parser *parser, pi2_jinja_node **node_out) {
    PI2_TRY(parse_sum(parser, node_out));
    pi2_jinja_node *compare = NULL;
    for (;;) {
        pi2_jinja_node *comparison = NULL;
        const size_t before = parser->at;
        const pi2_jinja_string operator_text = take_comparison(parser);
        if (operator_text.length == 0) return PI2_OK;
        const size_t after = parser->at;
        parser->at = before; /* nodes take their place from the present token */
        if (compare == NULL) {
            PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_COMPARE, &compare));
            compare->a = *node_out;
            *node_out = compare;
        }
        PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_COMPARISON, &comparison));
        parser->at = after;
        comparison->text = operator_text;
        PI2_TRY(parse_sum(parser, &comparison->a));
        PI2_TRY(pi2_jinja_node_add(parser, compare, comparison));
    }
}

static pi2_status parse_not(pi2_jinja_parser *parser, pi2_jinja_node **node_out) {
    if (!pi2_jinja_at_name(parser, "not")) return parse_compare(parser, node_out);
    PI2_TRY(pi2_jinja_enter(parser));
    PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_NOT, node_out));
    parser->at++;
    PI2_TRY(parse_not(parser, &(*node_out)->a));
    parser->depth--;
    return PI2_OK;
}

static pi2_status parse_logic(pi2_jinja_parser *parser, const char *word, pi2_jinja_kind kind,
                              parse_function *operand, pi2_jinja_node **node_out) {
    PI2_TRY(operand(parser, node_out));
    while (pi2_jinja_at_name(parser, word)) {
        pi2_jinja_node *node = NULL;
        PI2_TRY(pi2_jinja_node_new(parser, kind, &node));
        parser->at++;
        node->a = *node_out;
        PI2_TRY(operand(parser, &node->b));
        *node_out = node;
    }
    return PI2_OK;
}

static pi2_status parse_and(pi2_jinja_parser *parser, pi2_jinja_node **node_out) {
    return parse_logic(parser, "and", PI2_JINJA_AND, parse_not, node_out);
}

static pi2_status parse_or(pi2_jinja_parser *parser, pi2_jinja_node **node_out) {
    return parse_logic(parser, "or", PI2_JINJA_OR, parse_and, node_out);
}

pi2_status pi2_jinja_parse_expression(pi2_jinja_parser *parser, bool conditional,
                                      pi2_jinja_node **node_out) {
    PI2_TRY(pi2_jinja_enter(parser));
    PI2_TRY(parse_or(parser, node_out));
    while (conditional && pi2_jinja_at_name(parser, "if")) {
        pi2_jinja_node *node = NULL;
        PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_CONDITIONAL, &node));
        parser->at++;
        node->b = *node_out;
        PI2_TRY(parse_or(parser, &node->a));
        if (pi2_jinja_take_name(parser, "else"))
            PI2_TRY(pi2_jinja_parse_expression(parser, true, &node->c));
        *node_out = node;
    }
    parser->depth--;
    return PI2_OK;
}

/* ---- primaries ---- */

static bool at_tuple_end(const pi2_jinja_parser *parser) {
    const pi2_jinja_token_type type = pi2_jinja_peek(parser)->type;
    return type == PI2_JINJA_TOKEN_PRINT_END || type == PI2_JINJA_TOKEN_BLOCK_END ||
           type == PI2_JINJA_TOKEN_END || pi2_jinja_at_operator(parser, ")");
}

pi2_status pi2_jinja_parse_tuple(pi2_jinja_parser *parser, bool conditional,
                                 pi2_jinja_node **node_out) {
    PI2_TRY(pi2_jinja_parse_expression(parser, conditional, node_out));
    if (!pi2_jinja_at_operator(parser, ",")) return PI2_OK;
    pi2_jinja_node *tuple = NULL;
    PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_TUPLE_OF, &tuple));
    PI2_TRY(pi2_jinja_node_add(parser, tuple, *node_out));
    while (pi2_jinja_take_operator(parser, ",") && !at_tuple_end(parser)) {
        pi2_jinja_node *item = NULL;
        PI2_TRY(pi2_jinja_parse_expression(parser, conditional, &item));
        PI2_TRY(pi2_jinja_node_add(parser, tuple, item));
    }
    *node_out = tuple;
    return PI2_OK;
}

static pi2_status parse_parentheses(pi2_jinja_parser *parser, pi2_jinja_node **node_out) {
    parser->at++;
    if (pi2_jinja_at_operator(parser, ")"))
        PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_TUPLE_OF, node_out));
    else
        PI2_TRY(pi2_jinja_parse_tuple(parser, true, node_out));
    return pi2_jinja_expect_operator(parser, ")");
}

static pi2_status parse_list(pi2_jinja_parser *parser, pi2_jinja_node **node_out) {
    PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_LIST_OF, node_out));
    parser->at++;
    while (!pi2_jinja_at_operator(parser, "]")) {
        pi2_jinja_node *item = NULL;
        if ((*node_out)->list_count > 0) PI2_TRY(pi2_jinja_expect_operator(parser, ","));
        if (pi2_jinja_at_operator(parser, "]")) break;
        PI2_TRY(pi2_jinja_parse_expression(parser, true, &item));
        PI2_TRY(pi2_jinja_node_add(parser, *node_out, item));
    }
    return pi2_jinja_expect_operator(parser, "]");
}

static pi2_status parse_dict(pi2_jinja_parser *parser, pi2_jinja_node **node_out) {
    PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_DICT_OF, node_out));
    parser->at++;
    while (!pi2_jinja_at_operator(parser, "}")) {
        pi2_jinja_node *key = NULL, *value = NULL;
        if ((*node_out)->list_count > 0) PI2_TRY(pi2_jinja_expect_operator(parser, ","));
        if (pi2_jinja_at_operator(parser, "}")) break;
        PI2_TRY(pi2_jinja_parse_expression(parser, true, &key));
        PI2_TRY(pi2_jinja_expect_operator(parser, ":"));
        PI2_TRY(pi2_jinja_parse_expression(parser, true, &value));
        PI2_TRY(pi2_jinja_node_add(parser, *node_out, key));
        PI2_TRY(pi2_jinja_node_add(parser, *node_out, value));
    }
    return pi2_jinja_expect_operator(parser, "}");
}

static pi2_status parse_string(pi2_jinja_parser *parser, pi2_jinja_node **node_out) {
    PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_CONSTANT, node_out));
    pi2_jinja_text text = {.arena = parser->arena};
    for (; pi2_jinja_peek(parser)->type == PI2_JINJA_TOKEN_STRING; parser->at++)
        PI2_TRY(pi2_jinja_text_add(&text, pi2_jinja_peek(parser)->text));
    (*node_out)->constant = pi2_jinja_of_string(pi2_jinja_text_string(&text));
    return PI2_OK;
}

static bool constant_of_name(pi2_jinja_string name, pi2_jinja_value *value) {
    if (pi2_jinja_is(name, "true") || pi2_jinja_is(name, "True"))
        *value = pi2_jinja_boolean(true);
    else if (pi2_jinja_is(name, "false") || pi2_jinja_is(name, "False"))
        *value = pi2_jinja_boolean(false);
    else if (pi2_jinja_is(name, "none") || pi2_jinja_is(name, "None"))
        *value = pi2_jinja_none();
    else
        return false;
    return true;
}

static pi2_status parse_primary(pi2_jinja_parser *parser, pi2_jinja_node **node_out) {
    const pi2_jinja_token *token = pi2_jinja_peek(parser);
    if (token->type == PI2_JINJA_TOKEN_STRING) return parse_string(parser, node_out);
    if (pi2_jinja_at_operator(parser, "(")) return parse_parentheses(parser, node_out);
    if (pi2_jinja_at_operator(parser, "[")) return parse_list(parser, node_out);
    if (pi2_jinja_at_operator(parser, "{")) return parse_dict(parser, node_out);
    pi2_jinja_kind kind = PI2_JINJA_CONSTANT;
    pi2_jinja_value constant = pi2_jinja_none();
    if (token->type == PI2_JINJA_TOKEN_INTEGER) constant = pi2_jinja_integer(token->integer);
    else if (token->type == PI2_JINJA_TOKEN_FLOAT) constant = pi2_jinja_float(token->number);
    else if (token->type != PI2_JINJA_TOKEN_NAME)
        return pi2_jinja_unexpected(parser, "an expression");
    else if (!constant_of_name(token->text, &constant)) kind = PI2_JINJA_NAME;
    PI2_TRY(pi2_jinja_node_new(parser, kind, node_out));
    (*node_out)->text = token->text;
    (*node_out)->constant = constant;
    parser->at++;
    return PI2_OK;
}

/* ---- what follows a primary ---- */

/* ( ... ) after a callee: adds to call->list. */
static pi2_status parse_arguments(pi2_jinja_parser *parser, pi2_jinja_node *call) {
    PI2_TRY(pi2_jinja_expect_operator(parser, "("));
    bool named = false;
    for (bool first = true; !pi2_jinja_at_operator(parser, ")"); first = false) {
        if (!first) PI2_TRY(pi2_jinja_expect_operator(parser, ","));
        if (pi2_jinja_at_operator(parser, ")")) break;
        const pi2_jinja_token *token = pi2_jinja_peek(parser);
        if (at_one_of(parser, "* **"))
            return pi2_jinja_refuse_at(token->line, token->column, "an argument with a star");
        pi2_jinja_node *argument = NULL;
        const pi2_jinja_token *next = token + 1;
        if (token->type == PI2_JINJA_TOKEN_NAME && next->type == PI2_JINJA_TOKEN_OPERATOR &&
            pi2_jinja_is(next->text, "=")) {
            PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_NAMED, &argument));
            argument->text = token->text;
            parser->at += 2;
            named = true;
            PI2_TRY(pi2_jinja_parse_expression(parser, true, &argument->a));
        } else {
            if (named) return pi2_jinja_unexpected(parser, "a named argument");
            PI2_TRY(pi2_jinja_parse_expression(parser, true, &argument));
        }
        if (call->list_count == PI2_JINJA_ARGUMENTS)
            return pi2_jinja_refuse_at(token->line, token->column, "a call with %d arguments",
                                       PI2_JINJA_ARGUMENTS + 1);
        PI2_TRY(pi2_jinja_node_add(parser, call, argument));
    }
    return pi2_jinja_expect_operator(parser, ")");
}

/** After "[": one expression, or start:stop:step. */
static pi2_status parse_subscript(pi2_jinja_parser *parser, pi2_jinja_node *base,
                                  pi2_jinja_node **node_out) {
    pi2_jinja_node *parts[3] = {NULL, NULL, NULL};
    size_t part = 0;
    PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_SUBSCRIPT, node_out));
    parser->at++;
    for (;;) {
        if (!at_one_of(parser, ": ] ,"))
            PI2_TRY(pi2_jinja_parse_expression(parser, true, &parts[part]));
        if (part == 2 || !pi2_jinja_take_operator(parser, ":")) break;
        (*node_out)->kind = PI2_JINJA_SLICE;
        part++;
    }
    if (pi2_jinja_at_operator(parser, ","))
        return pi2_jinja_refuse_at((*node_out)->line, (*node_out)->column,
                                   "a subscript with a comma");
    if ((*node_out)->kind == PI2_JINJA_SUBSCRIPT && parts[0] == NULL)
        return pi2_jinja_unexpected(parser, "a subscript");
    (*node_out)->a = base;
    (*node_out)->b = parts[0];
    (*node_out)->c = parts[1];
    (*node_out)->d = parts[2];
    return pi2_jinja_expect_operator(parser, "]");
}

static pi2_status parse_attribute(pi2_jinja_parser *parser, pi2_jinja_node *base,
                                  pi2_jinja_node **node_out) {
    parser->at++;
    const pi2_jinja_token *token = pi2_jinja_peek(parser);
    if (token->type == PI2_JINJA_TOKEN_INTEGER) { /* list.0 */
        PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_SUBSCRIPT, node_out));
        PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_CONSTANT, &(*node_out)->b));
        (*node_out)->b->constant = pi2_jinja_integer(token->integer);
        parser->at++;
    } else {
        PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_ATTRIBUTE, node_out));
        PI2_TRY(pi2_jinja_expect_any_name(parser, &(*node_out)->text));
    }
    (*node_out)->a = base;
    return PI2_OK;
}

static pi2_status parse_call(pi2_jinja_parser *parser, pi2_jinja_node *base,
                             pi2_jinja_node **node_out) {
    PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_CALL, node_out));
    (*node_out)->a = base;
    (*node_out)->line = base->line; /* an error names the callee's place */
    (*node_out)->column = base->column;
    return parse_arguments(parser, *node_out);
}

static pi2_status parse_postfix_of(pi2_jinja_parser *parser, pi2_jinja_node **node) {
    for (;;) {
        if (pi2_jinja_at_operator(parser, ".")) PI2_TRY(parse_attribute(parser, *node, node));
        else if (pi2_jinja_at_operator(parser, "[")) PI2_TRY(parse_subscript(parser, *node, node));
        else if (pi2_jinja_at_operator(parser, "(")) PI2_TRY(parse_call(parser, *node, node));
        else return PI2_OK;
    }
}

pi2_status pi2_jinja_parse_postfix(pi2_jinja_parser *parser, pi2_jinja_node **node_out) {
    PI2_TRY(parse_primary(parser, node_out));
    return parse_postfix_of(parser, node_out);
}

/** A dotted name, as filters and tests may have. */
static pi2_status parse_dotted(pi2_jinja_parser *parser, pi2_jinja_string *name) {
    PI2_TRY(pi2_jinja_expect_any_name(parser, name));
    while (pi2_jinja_take_operator(parser, ".")) {
        pi2_jinja_string more;
        PI2_TRY(pi2_jinja_expect_any_name(parser, &more));
        pi2_jinja_text text = {.arena = parser->arena};
        PI2_TRY(pi2_jinja_text_add(&text, *name));
        PI2_TRY(pi2_jinja_text_add_own(&text, "."));
        PI2_TRY(pi2_jinja_text_add(&text, more));
        *name = pi2_jinja_text_string(&text);
    }
    return PI2_OK;
}

pi2_status pi2_jinja_parse_filters(pi2_jinja_parser *parser, pi2_jinja_node *operand, bool at_name,
                                   pi2_jinja_node **node_out) {
    *node_out = operand;
    while (at_name || pi2_jinja_at_operator(parser, "|")) {
        pi2_jinja_node *node = NULL;
        if (!at_name) parser->at++;
        at_name = false;
        PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_FILTER, &node));
        PI2_TRY(parse_dotted(parser, &node->text));
        node->a = *node_out;
        if (pi2_jinja_at_operator(parser, "(")) PI2_TRY(parse_arguments(parser, node));
        *node_out = node;
    }
    return PI2_OK;
}

/** May the present token begin the one argument of a test without brackets? */
static bool at_test_argument(const pi2_jinja_parser *parser) {
    const pi2_jinja_token_type type = pi2_jinja_peek(parser)->type;
    if (type == PI2_JINJA_TOKEN_NAME)
        return !pi2_jinja_at_name(parser, "else") && !pi2_jinja_at_name(parser, "or") &&
               !pi2_jinja_at_name(parser, "and") && !pi2_jinja_at_name(parser, "if") &&
               !pi2_jinja_at_name(parser, "is");
    return type == PI2_JINJA_TOKEN_STRING || type == PI2_JINJA_TOKEN_INTEGER ||
           type == PI2_JINJA_TOKEN_FLOAT || at_one_of(parser, "[ {");
}

static pi2_status parse_test(pi2_jinja_parser *parser, pi2_jinja_node *operand,
                             pi2_jinja_node **node_out) {
    parser->at++;
    pi2_jinja_node *negation = NULL, *node = NULL;
    if (pi2_jinja_at_name(parser, "not")) {
        PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_NOT, &negation));
        parser->at++;
    }
    PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_TEST, &node));
    PI2_TRY(parse_dotted(parser, &node->text));
    node->a = operand;
    if (pi2_jinja_at_operator(parser, "(")) {
        PI2_TRY(parse_arguments(parser, node));
    } else if (at_test_argument(parser)) {
        pi2_jinja_node *argument = NULL;
        PI2_TRY(pi2_jinja_parse_postfix(parser, &argument));
        PI2_TRY(pi2_jinja_node_add(parser, node, argument));
    }
    if (negation != NULL) negation->a = node;
    *node_out = negation != NULL ? negation : node;
    return PI2_OK;
}

/** Unary signs, a primary with what follows it, and (filtered) its filters and tests. */
static pi2_status parse_unary(pi2_jinja_parser *parser, bool filtered, pi2_jinja_node **node_out) {
    PI2_TRY(pi2_jinja_enter(parser));
    if (at_one_of(parser, "- +")) {
        const bool negative = pi2_jinja_at_operator(parser, "-");
        PI2_TRY(pi2_jinja_node_new(
            parser, negative ? PI2_JINJA_NEGATIVE : PI2_JINJA_POSITIVE, node_out));
        parser->at++;
        PI2_TRY(parse_unary(parser, false, &(*node_out)->a));
    } else {
        PI2_TRY(pi2_jinja_parse_postfix(parser, node_out));
    }
    while (filtered) {
        if (pi2_jinja_at_operator(parser, "|"))
            PI2_TRY(pi2_jinja_parse_filters(parser, *node_out, false, node_out));
        else if (pi2_jinja_at_name(parser, "is"))
            PI2_TRY(parse_test(parser, *node_out, node_out));
        else if (pi2_jinja_at_operator(parser, "("))
            PI2_TRY(parse_call(parser, *node_out, node_out));
        else
            break;
    }
    parser->depth--;
    return PI2_OK;
}

static pi2_status parse_unary_filtered(pi2_jinja_parser *parser, pi2_jinja_node **node_out) {
    return parse_unary(parser, true, node_out);
}

/* ---- what set and for assign to ---- */

static pi2_status parse_one_target(pi2_jinja_parser *parser, pi2_jinja_node **node_out) {
    if (pi2_jinja_take_operator(parser, "(")) {
        PI2_TRY(pi2_jinja_enter(parser));
        PI2_TRY(pi2_jinja_parse_target(parser, false, node_out));
        parser->depth--;
        return pi2_jinja_expect_operator(parser, ")");
    }
    const pi2_jinja_token *token = pi2_jinja_peek(parser);
    pi2_jinja_value constant;
    if (token->type == PI2_JINJA_TOKEN_NAME && constant_of_name(token->text, &constant))
        return pi2_jinja_unexpected(parser, "a name to assign to");
    PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_NAME, node_out));
    return pi2_jinja_expect_any_name(parser, &(*node_out)->text);
}

pi2_status pi2_jinja_parse_target(pi2_jinja_parser *parser, bool attribute,
                                  pi2_jinja_node **node_out) {
    PI2_TRY(parse_one_target(parser, node_out));
    if (attribute && (*node_out)->kind == PI2_JINJA_NAME && pi2_jinja_at_operator(parser, "."))
        return parse_attribute(parser, *node_out, node_out);
    if (!pi2_jinja_at_operator(parser, ",")) return PI2_OK;
    pi2_jinja_node *tuple = NULL;
    PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_TUPLE_OF, &tuple));
    PI2_TRY(pi2_jinja_node_add(parser, tuple, *node_out));
    while (pi2_jinja_take_operator(parser, ",")) {
        if (pi2_jinja_peek(parser)->type != PI2_JINJA_TOKEN_NAME &&
            !pi2_jinja_at_operator(parser, "("))
            break;
        if (pi2_jinja_at_name(parser, "in")) break;
        pi2_jinja_node *item = NULL;
        PI2_TRY(parse_one_target(parser, &item));
        PI2_TRY(pi2_jinja_node_add(parser, tuple, item));
    }
    *node_out = tuple;
    return PI2_OK;
}
