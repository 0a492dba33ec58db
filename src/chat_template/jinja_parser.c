/* jinja_parser.c: tokens to statement nodes. Tags that we do not run are refused here, by name. */
#include "chat_template/jinja.h"

#include <string.h>

static pi2_status parse_body(pi2_jinja_parser *parser, pi2_jinja_node *into, const char *ends);

const pi2_jinja_token *pi2_jinja_peek(const pi2_jinja_parser *parser) {
    return &parser->tokens[parser->at];
}

static bool at_text(const pi2_jinja_parser *parser, pi2_jinja_token_type type, const char *text) {
    const pi2_jinja_token *token = pi2_jinja_peek(parser);
    return token->type == type && pi2_jinja_is(token->text, text);
}

bool pi2_jinja_at_operator(const pi2_jinja_parser *parser, const char *text) {
    return at_text(parser, PI2_JINJA_TOKEN_OPERATOR, text);
}

bool pi2_jinja_at_name(const pi2_jinja_parser *parser, const char *text) {
    return at_text(parser, PI2_JINJA_TOKEN_NAME, text);
}

bool pi2_jinja_take_operator(pi2_jinja_parser *parser, const char *text) {
    const bool here = pi2_jinja_at_operator(parser, text);
    parser->at += here;
    return here;
}

bool pi2_jinja_take_name(pi2_jinja_parser *parser, const char *text) {
    const bool here = pi2_jinja_at_name(parser, text);
    parser->at += here;
    return here;
}

pi2_status pi2_jinja_unexpected(const pi2_jinja_parser *parser, const char *wanted) {
    const pi2_jinja_token *token = pi2_jinja_peek(parser);
    if (token->type == PI2_JINJA_TOKEN_END)
        return pi2_jinja_fail_at(token->line, token->column, PI2_ERR_FORMAT,
                                 "expected %s, found the template's end", wanted);
    return pi2_jinja_fail_at(token->line, token->column, PI2_ERR_FORMAT,
                             "expected %s, found '%.*s'", wanted, PI2_JINJA_SHOWN(token->text));
}

pi2_status pi2_jinja_expect_operator(pi2_jinja_parser *parser, const char *text) {
    if (pi2_jinja_take_operator(parser, text)) return PI2_OK;
    return pi2_jinja_unexpected(parser, text);
}

pi2_status pi2_jinja_expect_any_name(pi2_jinja_parser *parser, pi2_jinja_string *name_out) {
    const pi2_jinja_token *token = pi2_jinja_peek(parser);
    if (token->type != PI2_JINJA_TOKEN_NAME) return pi2_jinja_unexpected(parser, "a name");
    *name_out = token->text;
    parser->at++;
    return PI2_OK;
}

static pi2_status expect_name(pi2_jinja_parser *parser, const char *text) {
    if (pi2_jinja_take_name(parser, text)) return PI2_OK;
    return pi2_jinja_unexpected(parser, text);
}

static pi2_status expect_block_end(pi2_jinja_parser *parser) {
    if (pi2_jinja_peek(parser)->type != PI2_JINJA_TOKEN_BLOCK_END)
        return pi2_jinja_unexpected(parser, "%}");
    parser->at++;
    return PI2_OK;
}

pi2_status pi2_jinja_node_new(pi2_jinja_parser *parser, pi2_jinja_kind kind,
                              pi2_jinja_node **node_out) {
    pi2_jinja_node *node = pi2_jinja_alloc(parser->arena, 1, sizeof *node);
    if (node == NULL) return pi2_jinja_no_memory(parser->arena);
    node->kind = kind;
    node->line = pi2_jinja_peek(parser)->line;
    node->column = pi2_jinja_peek(parser)->column;
    *node_out = node;
    return PI2_OK;
}

pi2_status pi2_jinja_node_add(pi2_jinja_parser *parser, pi2_jinja_node *node,
                              pi2_jinja_node *child) {
    if (node->list_count == node->list_capacity) {
        const size_t capacity = node->list_capacity * 2 + 4;
        pi2_jinja_node **list = pi2_jinja_alloc(parser->arena, capacity, sizeof(pi2_jinja_node *));
        if (list == NULL) return pi2_jinja_no_memory(parser->arena);
        if (node->list_count > 0)
            memcpy(list, node->list, node->list_count * sizeof(pi2_jinja_node *));
        node->list = list;
        node->list_capacity = capacity;
    }
    node->list[node->list_count++] = child;
    return PI2_OK;
}

pi2_status pi2_jinja_enter(pi2_jinja_parser *parser) {
    if (parser->depth == PI2_JINJA_PARSE_DEPTH) {
        const pi2_jinja_token *token = pi2_jinja_peek(parser);
        return pi2_jinja_fail_at(token->line, token->column, PI2_ERR_FORMAT,
                                 "it nests more than the limit of %d levels",
                                 PI2_JINJA_PARSE_DEPTH);
    }
    parser->depth++;
    return PI2_OK;
}

/* ---- statements; each begins after its word and ends after the last "%}" ---- */

static pi2_status parse_if(pi2_jinja_parser *parser, pi2_jinja_node *node) {
    node->kind = PI2_JINJA_IF;
    for (bool more = true; more;) {
        pi2_jinja_node *branch = NULL;
        PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_BRANCH, &branch));
        PI2_TRY(pi2_jinja_parse_tuple(parser, false, &branch->a));
        PI2_TRY(expect_block_end(parser));
        PI2_TRY(parse_body(parser, branch, "elif else endif"));
        PI2_TRY(pi2_jinja_node_add(parser, node, branch));
        more = pi2_jinja_take_name(parser, "elif");
    }
    if (pi2_jinja_take_name(parser, "else")) {
        pi2_jinja_node *branch = NULL;
        PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_BRANCH, &branch));
        PI2_TRY(expect_block_end(parser));
        PI2_TRY(parse_body(parser, branch, "endif"));
        PI2_TRY(pi2_jinja_node_add(parser, node, branch));
    }
    PI2_TRY(expect_name(parser, "endif"));
    return expect_block_end(parser);
}

static pi2_status parse_for(pi2_jinja_parser *parser, pi2_jinja_node *node) {
    node->kind = PI2_JINJA_FOR;
    PI2_TRY(pi2_jinja_parse_target(parser, false, &node->a));
    PI2_TRY(expect_name(parser, "in"));
    PI2_TRY(pi2_jinja_parse_tuple(parser, false, &node->b));
    if (pi2_jinja_take_name(parser, "if"))
        PI2_TRY(pi2_jinja_parse_expression(parser, true, &node->c));
    if (pi2_jinja_at_name(parser, "recursive"))
        return pi2_jinja_refuse_at(node->line, node->column, "a recursive for");
    PI2_TRY(expect_block_end(parser));
    parser->loops++;
    PI2_TRY(parse_body(parser, node, "else endfor"));
    parser->loops--;
    if (pi2_jinja_take_name(parser, "else")) {
        PI2_TRY(expect_block_end(parser));
        PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_BODY, &node->d));
        PI2_TRY(parse_body(parser, node->d, "endfor"));
    }
    PI2_TRY(expect_name(parser, "endfor"));
    return expect_block_end(parser);
}

static pi2_status parse_set(pi2_jinja_parser *parser, pi2_jinja_node *node) {
    node->kind = PI2_JINJA_SET;
    PI2_TRY(pi2_jinja_parse_target(parser, true, &node->a));
    if (pi2_jinja_take_operator(parser, "=")) {
        PI2_TRY(pi2_jinja_parse_tuple(parser, true, &node->b));
        return expect_block_end(parser);
    }
    node->kind = PI2_JINJA_SET_BLOCK;
    pi2_jinja_node *captured = NULL;
    PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_CAPTURED, &captured));
    PI2_TRY(pi2_jinja_parse_filters(parser, captured, false, &node->b));
    PI2_TRY(expect_block_end(parser));
    PI2_TRY(parse_body(parser, node, "endset"));
    PI2_TRY(expect_name(parser, "endset"));
    return expect_block_end(parser);
}

static pi2_status parse_filter_block(pi2_jinja_parser *parser, pi2_jinja_node *node) {
    node->kind = PI2_JINJA_FILTER_BLOCK;
    pi2_jinja_node *captured = NULL;
    PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_CAPTURED, &captured));
    PI2_TRY(pi2_jinja_parse_filters(parser, captured, true, &node->b));
    PI2_TRY(expect_block_end(parser));
    PI2_TRY(parse_body(parser, node, "endfilter"));
    PI2_TRY(expect_name(parser, "endfilter"));
    return expect_block_end(parser);
}

/** ( name, name = default ... ) of a macro or a call block. */
static pi2_status parse_parameters(pi2_jinja_parser *parser, pi2_jinja_node *macro) {
    PI2_TRY(pi2_jinja_expect_operator(parser, "("));
    while (!pi2_jinja_at_operator(parser, ")")) {
        pi2_jinja_node *parameter = NULL;
        if (macro->list_count > 0) PI2_TRY(pi2_jinja_expect_operator(parser, ","));
        if (macro->list_count == PI2_JINJA_ARGUMENTS)
            return pi2_jinja_refuse_at(macro->line, macro->column, "a macro with %d parameters",
                                       PI2_JINJA_ARGUMENTS + 1);
        PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_NAMED, &parameter));
        PI2_TRY(pi2_jinja_expect_any_name(parser, &parameter->text));
        if (pi2_jinja_take_operator(parser, "="))
            PI2_TRY(pi2_jinja_parse_expression(parser, true, &parameter->a));
        PI2_TRY(pi2_jinja_node_add(parser, macro, parameter));
    }
    return pi2_jinja_expect_operator(parser, ")");
}

/** A macro's body: the loops around it are not its own. */
static pi2_status parse_macro_body(pi2_jinja_parser *parser, pi2_jinja_node *macro,
                                   const char *end) {
    PI2_TRY(expect_block_end(parser));
    const int loops = parser->loops;
    parser->loops = 0;
    PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_BODY, &macro->b));
    PI2_TRY(parse_body(parser, macro->b, end));
    parser->loops = loops;
    PI2_TRY(expect_name(parser, end));
    return expect_block_end(parser);
}

static pi2_status parse_macro(pi2_jinja_parser *parser, pi2_jinja_node *node) {
    node->kind = PI2_JINJA_MACRO_OF;
    PI2_TRY(pi2_jinja_expect_any_name(parser, &node->text));
    PI2_TRY(parse_parameters(parser, node));
    return parse_macro_body(parser, node, "endmacro");
}

static pi2_status parse_call_block(pi2_jinja_parser *parser, pi2_jinja_node *node) {
    node->kind = PI2_JINJA_CALL_BLOCK;
    PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_MACRO_OF, &node->b));
    node->b->text = pi2_jinja_own_string("caller");
    if (pi2_jinja_at_operator(parser, "(")) PI2_TRY(parse_parameters(parser, node->b));
    PI2_TRY(pi2_jinja_parse_postfix(parser, &node->a));
    if (node->a->kind != PI2_JINJA_CALL) return pi2_jinja_unexpected(parser, "a call");
    return parse_macro_body(parser, node->b, "endcall");
}

/** {% with a = 1, b = 2 %}: a BODY that begins with its assignments. */
static pi2_status parse_with(pi2_jinja_parser *parser, pi2_jinja_node *node) {
    node->kind = PI2_JINJA_BODY;
    while (pi2_jinja_peek(parser)->type != PI2_JINJA_TOKEN_BLOCK_END) {
        pi2_jinja_node *set = NULL;
        if (node->list_count > 0) PI2_TRY(pi2_jinja_expect_operator(parser, ","));
        PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_SET, &set));
        /* One name each: a comma separates the assignments. */
        PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_NAME, &set->a));
        PI2_TRY(pi2_jinja_expect_any_name(parser, &set->a->text));
        PI2_TRY(pi2_jinja_expect_operator(parser, "="));
        PI2_TRY(pi2_jinja_parse_expression(parser, true, &set->b));
        PI2_TRY(pi2_jinja_node_add(parser, node, set));
        if (node->list_count > 1) /* jinja2 evaluates all before it assigns any */
            return pi2_jinja_refuse_at(node->line, node->column, "with of several names");
    }
    PI2_TRY(expect_block_end(parser));
    PI2_TRY(parse_body(parser, node, "endwith"));
    PI2_TRY(expect_name(parser, "endwith"));
    return expect_block_end(parser);
}

/** {% generation %} marks what the assistant wrote, for training: the text is as without it. */
static pi2_status parse_generation(pi2_jinja_parser *parser, pi2_jinja_node *node) {
    node->kind = PI2_JINJA_BODY;
    PI2_TRY(expect_block_end(parser));
    PI2_TRY(parse_body(parser, node, "endgeneration"));
    PI2_TRY(expect_name(parser, "endgeneration"));
    return expect_block_end(parser);
}

static pi2_status parse_jump(pi2_jinja_parser *parser, pi2_jinja_node *node, pi2_jinja_kind kind) {
    node->kind = kind;
    if (parser->loops == 0)
        return pi2_jinja_fail_at(node->line, node->column, PI2_ERR_FORMAT,
                                 "break or continue outside of a for");
    return expect_block_end(parser);
}

static pi2_status parse_statement(pi2_jinja_parser *parser, pi2_jinja_node **node_out) {
    static const char *const stray[] = {"elif",    "else",     "endif",     "endfor",  "endset",
                                        "endmacro", "endcall", "endfilter", "endwith", "endraw",
                                        "endgeneration"};
    const pi2_jinja_token *token = pi2_jinja_peek(parser);
    pi2_jinja_string word;
    PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_BODY, node_out));
    PI2_TRY(pi2_jinja_expect_any_name(parser, &word));
    pi2_jinja_node *node = *node_out;
    if (pi2_jinja_is(word, "if")) return parse_if(parser, node);
    if (pi2_jinja_is(word, "for")) return parse_for(parser, node);
    if (pi2_jinja_is(word, "set")) return parse_set(parser, node);
    if (pi2_jinja_is(word, "macro")) return parse_macro(parser, node);
    if (pi2_jinja_is(word, "call")) return parse_call_block(parser, node);
    if (pi2_jinja_is(word, "filter")) return parse_filter_block(parser, node);
    if (pi2_jinja_is(word, "with")) return parse_with(parser, node);
    if (pi2_jinja_is(word, "generation")) return parse_generation(parser, node);
    if (pi2_jinja_is(word, "break")) return parse_jump(parser, node, PI2_JINJA_BREAK);
    if (pi2_jinja_is(word, "continue")) return parse_jump(parser, node, PI2_JINJA_CONTINUE);
    for (size_t i = 0; i < sizeof stray / sizeof stray[0]; i++)
        if (pi2_jinja_is(word, stray[i]))
            return pi2_jinja_fail_at(token->line, token->column, PI2_ERR_FORMAT,
                                     "'%s' has nothing that it belongs to", stray[i]);
    return pi2_jinja_refuse_at(token->line, token->column, "tag '%.*s'", PI2_JINJA_SHOWN(word));
}

/** Is the token after "{%" one of the words `ends`? */
static bool at_end_word(const pi2_jinja_parser *parser, const char *ends) {
    const pi2_jinja_token *token = &parser->tokens[parser->at + 1];
    if (token->type != PI2_JINJA_TOKEN_NAME) return false;
    for (const char *at = ends; *at != '\0';) {
        const size_t length = strcspn(at, " ");
        if (length == token->text.length && memcmp(at, token->text.bytes, length) == 0) return true;
        at += length;
        at += *at == ' ';
    }
    return false;
}

/** Statements up to a tag whose word is in `ends` ("": the template's end); stops at the word. */
static pi2_status parse_body(pi2_jinja_parser *parser, pi2_jinja_node *into, const char *ends) {
    PI2_TRY(pi2_jinja_enter(parser));
    for (;;) {
        const pi2_jinja_token *token = pi2_jinja_peek(parser);
        pi2_jinja_node *node = NULL;
        if (token->type == PI2_JINJA_TOKEN_END) {
            if (*ends != '\0') return pi2_jinja_unexpected(parser, ends);
            break;
        }
        if (token->type == PI2_JINJA_TOKEN_TEXT) {
            PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_TEXT, &node));
            node->text = token->text;
            parser->at++;
        } else if (token->type == PI2_JINJA_TOKEN_PRINT_BEGIN) {
            PI2_TRY(pi2_jinja_node_new(parser, PI2_JINJA_PRINT, &node));
            parser->at++;
            PI2_TRY(pi2_jinja_parse_tuple(parser, true, &node->a));
            if (pi2_jinja_peek(parser)->type != PI2_JINJA_TOKEN_PRINT_END)
                return pi2_jinja_unexpected(parser, "}}");
            parser->at++;
        } else { /* the lexer gives nothing else between tags */
            if (at_end_word(parser, ends)) {
                parser->at++;
                break;
            }
            parser->at++;
            PI2_TRY(parse_statement(parser, &node));
        }
        PI2_TRY(pi2_jinja_node_add(parser, into, node));
    }
    parser->depth--;
    return PI2_OK;
}

pi2_status pi2_jinja_parse(pi2_jinja_arena *arena, const char *source, size_t length,
                           pi2_jinja_node **body_out) {
    pi2_jinja_token *tokens;
    size_t count;
    PI2_TRY(pi2_jinja_tokenize(arena, source, length, &tokens, &count));
    pi2_jinja_parser parser = {.arena = arena, .tokens = tokens};
    PI2_TRY(pi2_jinja_node_new(&parser, PI2_JINJA_BODY, body_out));
    return parse_body(&parser, *body_out, "");
}
