/* jinja_lexer.c: template text to tokens, with jinja2's rules for white space.
 *
 * trim_blocks: a newline right after a block or comment goes. lstrip_blocks: blanks between the
 * start of a line and a block or comment go. "-" at a tag's edge takes all white space there, "+"
 * keeps it. One newline at the end of the template goes; \r\n and \r count as \n. */
#include "chat_template/jinja.h"

#include <string.h>

enum { MOST_BRACKETS = 200 };

typedef struct lexer {
    pi2_jinja_arena *arena;
    const char *text;
    size_t length;
    size_t at;
    size_t line_at;   /* the position that line and line_start describe */
    uint32_t line;
    size_t line_start;
    bool at_line_start; /* the last tag ended with a newline, or there was none yet */
    pi2_jinja_token *tokens;
    size_t count, capacity;
} lexer;

static void locate(lexer *lex, size_t at, uint32_t *line, uint32_t *column) {
    if (at < lex->line_at) { /* only an error looks back */
        lex->line_at = 0;
        lex->line = 1;
        lex->line_start = 0;
    }
    for (; lex->line_at < at; lex->line_at++) {
        if (lex->text[lex->line_at] != '\n') continue;
        lex->line++;
        lex->line_start = lex->line_at + 1;
    }
    *line = lex->line;
    *column = (uint32_t)(at - lex->line_start + 1);
}

static pi2_status fail_here(lexer *lex, size_t at, const char *message) {
    uint32_t line, column;
    locate(lex, at, &line, &column);
    return pi2_jinja_fail_at(line, column, PI2_ERR_FORMAT, "%s", message);
}

static pi2_jinja_string piece(const lexer *lex, size_t start, size_t end) {
    return (pi2_jinja_string){.bytes = lex->text + start, .length = end - start, .trusted = true};
}

static pi2_status add_token(lexer *lex, pi2_jinja_token_type type, size_t start, size_t end,
                            pi2_jinja_token **token_out) {
    if (lex->count == lex->capacity) {
        const size_t capacity = lex->capacity * 2 + 64;
        pi2_jinja_token *tokens = pi2_jinja_alloc(lex->arena, capacity, sizeof *tokens);
        if (tokens == NULL) return pi2_jinja_no_memory(lex->arena);
        if (lex->count > 0) memcpy(tokens, lex->tokens, lex->count * sizeof *tokens);
        lex->tokens = tokens;
        lex->capacity = capacity;
    }
    pi2_jinja_token *token = &lex->tokens[lex->count++];
    *token = (pi2_jinja_token){.type = type, .text = piece(lex, start, end)};
    locate(lex, start, &token->line, &token->column);
    if (token_out != NULL) *token_out = token;
    return PI2_OK;
}

static bool starts(const lexer *lex, size_t at, const char *text) {
    const size_t length = strlen(text);
    return at <= lex->length && length <= lex->length - at &&
           memcmp(lex->text + at, text, length) == 0;
}

static size_t skip_space(const lexer *lex, size_t at) {
    const pi2_jinja_string all = piece(lex, 0, lex->length);
    while (at < lex->length) {
        int32_t code_point;
        const size_t bytes = pi2_jinja_character(all, at, &code_point);
        if (!pi2_jinja_is_space(code_point)) break;
        at += bytes;
    }
    return at;
}

static bool is_name_start(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* ---- between the tags ---- */

/** The end of the text [start, end) once the tag after it has taken its white space. */
static size_t strip_before(lexer *lex, size_t start, size_t end, char sign, bool is_print) {
    if (sign == '-') {
        const pi2_jinja_string text = piece(lex, start, end);
        return start + pi2_jinja_strip(lex->arena, text, NULL, false, true).length;
    }
    if (sign == '+' || is_print) return end;
    size_t line = end;
    while (line > start && lex->text[line - 1] != '\n') line--;
    if (line == start && !lex->at_line_start) return end;
    return skip_space(lex, line) >= end ? line : end;
}

static pi2_status add_text(lexer *lex, size_t start, size_t end, char sign, bool is_print) {
    const size_t kept = strip_before(lex, start, end, sign, is_print);
    if (kept > start) PI2_TRY(add_token(lex, PI2_JINJA_TOKEN_TEXT, start, kept, NULL));
    return PI2_OK;
}

static char sign_at(const lexer *lex, size_t at) {
    if (at < lex->length && (lex->text[at] == '-' || lex->text[at] == '+')) return lex->text[at];
    return 0;
}

/** Moves past a tag's end ("%}", "#}" or "}}") and the white space that it takes. */
static void take_end(lexer *lex, size_t end, char sign, bool is_print) {
    lex->at = end;
    if (sign == '-') lex->at = skip_space(lex, end);
    else if (sign != '+' && !is_print && lex->at < lex->length && lex->text[lex->at] == '\n')
        lex->at++;
    lex->at_line_start = lex->text[lex->at - 1] == '\n';
}

static pi2_status take_comment(lexer *lex) {
    const size_t start = lex->at + 2 + (sign_at(lex, lex->at + 2) != 0);
    size_t end = start;
    while (end < lex->length && !starts(lex, end, "#}")) end++;
    if (end >= lex->length) return fail_here(lex, lex->at, "a comment without its end, #}");
    const char before = end > start ? lex->text[end - 1] : (char)0;
    take_end(lex, end + 2, before == '-' || before == '+' ? before : (char)0, false);
    return PI2_OK;
}

/** Matches "{%- word -%}" at `at`; sets where it ends and the signs on its edges. */
static bool match_tag(const lexer *lex, size_t at, const char *word, size_t *end, char *left,
                      char *right) {
    if (!starts(lex, at, "{%")) return false;
    *left = sign_at(lex, at + 2);
    at = skip_space(lex, at + 2 + (*left != 0));
    if (!starts(lex, at, word)) return false;
    at = skip_space(lex, at + strlen(word));
    *right = sign_at(lex, at);
    at += *right != 0;
    if (!starts(lex, at, "%}")) return false;
    *end = at + 2;
    return true;
}

/** {% raw %} ... {% endraw %}: everything between is text. `begin_end`: after the first tag. */
static pi2_status take_raw(lexer *lex, size_t begin_end, char begin_right) {
    const size_t begin = lex->at;
    /* trim_blocks does not apply to {% raw %} itself, as in jinja2. */
    const size_t start = begin_right == '-' ? skip_space(lex, begin_end) : begin_end;
    lex->at_line_start = lex->text[start - 1] == '\n';
    for (size_t end = start; end < lex->length; end++) {
        size_t tag_end;
        char left, right;
        if (lex->text[end] != '{' || !match_tag(lex, end, "endraw", &tag_end, &left, &right))
            continue;
        PI2_TRY(add_text(lex, start, end, left, false));
        take_end(lex, tag_end, right, false);
        return PI2_OK;
    }
    return fail_here(lex, begin, "{% raw %} without its {% endraw %}");
}

/* ---- inside the tags ---- */

static int digit_value(char c) {
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return 99;
}

/** Reads up to `most` digits of a base after an escape; returns how many. */
static size_t take_digits(const char *text, size_t length, int base, size_t most, int64_t *value) {
    size_t count = 0;
    *value = 0;
    while (count < most && count < length && digit_value(text[count]) < base)
        *value = *value * base + digit_value(text[count++]);
    return count;
}

/** One escape after the backslash at text[0]; *taken bytes of text become *written of out. */
static bool decode_escape(const char *text, size_t length, char *out, size_t *taken,
                          size_t *written) {
    static const char names[] = "n\nt\tr\ra\ab\bf\fv\v\\\\''\"\"";
    const char kind = length > 0 ? text[0] : (char)0;
    *taken = 1;
    *written = 1;
    for (size_t i = 0; i + 1 < sizeof names; i += 2) {
        if (names[i] != kind) continue;
        out[0] = names[i + 1];
        return true;
    }
    int64_t code;
    if (kind == '\n') {
        *written = 0;
    } else if (kind >= '0' && kind <= '7') {
        *taken = take_digits(text, length, 8, 3, &code);
        *written = pi2_jinja_encode((int32_t)code, out);
    } else if (kind == 'x' || kind == 'u' || kind == 'U') {
        const size_t digits = kind == 'x' ? 2 : kind == 'u' ? 4 : 8;
        if (take_digits(text + 1, length - 1, 16, digits, &code) != digits) return false;
        if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return false;
        *taken = 1 + digits;
        *written = pi2_jinja_encode((int32_t)code, out);
    } else if (kind == 'N') {
        return false; /* a character by its name */
    } else {
        *taken = 0; /* Python keeps the backslash of an escape that it does not know */
        out[0] = '\\';
    }
    return true;
}

static pi2_status take_string(lexer *lex) {
    const size_t begin = lex->at;
    const char quote = lex->text[begin];
    size_t end = begin + 1;
    while (end < lex->length && lex->text[end] != quote) end += lex->text[end] == '\\' ? 2 : 1;
    if (end >= lex->length) return fail_here(lex, begin, "a string without its closing quote");
    char *out = pi2_jinja_alloc(lex->arena, end - begin + 4, 1);
    if (out == NULL) return pi2_jinja_no_memory(lex->arena);
    size_t length = 0;
    for (size_t at = begin + 1; at < end;) {
        if (lex->text[at] != '\\') {
            out[length++] = lex->text[at++];
            continue;
        }
        size_t taken, written;
        if (!decode_escape(lex->text + at + 1, end - at - 1, out + length, &taken, &written))
            return fail_here(lex, at, "an escape in a string that is not a valid one");
        at += 1 + taken;
        length += written;
    }
    pi2_jinja_token *token;
    PI2_TRY(add_token(lex, PI2_JINJA_TOKEN_STRING, begin, end, &token));
    token->text = (pi2_jinja_string){.bytes = out, .length = length, .trusted = true};
    lex->at = end + 1;
    return PI2_OK;
}

static size_t skip_digits(const lexer *lex, size_t at) {
    while (at < lex->length &&
           (is_digit(lex->text[at]) || (lex->text[at] == '_' && at + 1 < lex->length &&
                                        is_digit(lex->text[at + 1]))))
        at++;
    return at;
}

/** A decimal of few digits and a small exponent: then one operation rounds correctly. */
static pi2_status float_value(lexer *lex, size_t start, size_t end, double *value) {
    int64_t mantissa = 0, exponent = 0, scale = 0;
    size_t at = start;
    bool fraction = false;
    for (; at < end && lex->text[at] != 'e' && lex->text[at] != 'E'; at++) {
        if (lex->text[at] == '.') fraction = true;
        if (!is_digit(lex->text[at])) continue;
        mantissa = mantissa * 10 + (lex->text[at] - '0');
        scale -= fraction;
        if (mantissa > INT64_C(9007199254740992)) /* 2^53: up to here a double is exact */
            return fail_here(lex, start, "a number with more digits than a float holds");
    }
    if (at < end) {
        const bool negative = lex->text[at + 1] == '-';
        for (at++; at < end; at++) {
            if (is_digit(lex->text[at])) exponent = exponent * 10 + (lex->text[at] - '0');
            if (exponent > 99) break;
        }
        scale += negative ? -exponent : exponent;
    }
    if (scale < -22 || scale > 22) return fail_here(lex, start, "a number with a large exponent");
    double power = 1.0;
    for (int64_t i = scale < 0 ? -scale : scale; i > 0; i--) power *= 10.0;
    *value = scale < 0 ? (double)mantissa / power : (double)mantissa * power;
    return PI2_OK;
}

static pi2_status integer_value(lexer *lex, size_t start, size_t end, int base, int64_t *value) {
    *value = 0;
    for (size_t at = start; at < end; at++) {
        if (lex->text[at] == '_') continue;
        const int digit = digit_value(lex->text[at]);
        if (*value > (INT64_MAX - digit) / base)
            return fail_here(lex, start, "an integer above 64 bits");
        *value = *value * base + digit;
    }
    return PI2_OK;
}

static pi2_status take_number(lexer *lex) {
    const size_t begin = lex->at;
    pi2_jinja_token *token;
    const char marker = begin + 1 < lex->length ? (char)(lex->text[begin + 1] | 0x20) : (char)0;
    const int base = marker == 'x' ? 16 : marker == 'o' ? 8 : marker == 'b' ? 2 : 10;
    if (lex->text[begin] == '0' && base != 10) {
        size_t end = begin + 2;
        while (end < lex->length &&
               (digit_value(lex->text[end]) < base || lex->text[end] == '_'))
            end++;
        if (end == begin + 2) return fail_here(lex, begin, "a number without digits");
        PI2_TRY(add_token(lex, PI2_JINJA_TOKEN_INTEGER, begin, end, &token));
        lex->at = end;
        return integer_value(lex, begin + 2, end, base, &token->integer);
    }
    size_t end = skip_digits(lex, begin);
    const size_t whole = end;
    const bool index = begin > 0 && lex->text[begin - 1] == '.'; /* list.0.1 is no fraction */
    if (!index && end + 1 < lex->length && lex->text[end] == '.' && is_digit(lex->text[end + 1]))
        end = skip_digits(lex, end + 1);
    if (!index && end < lex->length && (lex->text[end] | 0x20) == 'e') {
        size_t digits = end + 1;
        digits += sign_at(lex, digits) != 0;
        if (digits < lex->length && is_digit(lex->text[digits])) end = skip_digits(lex, digits);
    }
    lex->at = end;
    if (end == whole) {
        PI2_TRY(add_token(lex, PI2_JINJA_TOKEN_INTEGER, begin, end, &token));
        return integer_value(lex, begin, end, 10, &token->integer);
    }
    PI2_TRY(add_token(lex, PI2_JINJA_TOKEN_FLOAT, begin, end, &token));
    return float_value(lex, begin, end, &token->number);
}

static pi2_status take_operator(lexer *lex, char *brackets, size_t *depth) {
    static const char *const operators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                            "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                            ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (size_t i = 0; i < sizeof operators / sizeof operators[0]; i++) {
        if (!starts(lex, lex->at, operators[i])) continue;
        const char c = operators[i][0];
        if (c == '(' || c == '[' || c == '{') {
            if (*depth == MOST_BRACKETS) return fail_here(lex, lex->at, "brackets nest too deeply");
            brackets[(*depth)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
        } else if (c == ')' || c == ']' || c == '}') {
            if (*depth == 0 || brackets[*depth - 1] != c)
                return fail_here(lex, lex->at, "a closing bracket without its opening one");
            (*depth)--;
        }
        const size_t end = lex->at + strlen(operators[i]);
        PI2_TRY(add_token(lex, PI2_JINJA_TOKEN_OPERATOR, lex->at, end, NULL));
        lex->at = end;
        return PI2_OK;
    }
    return fail_here(lex, lex->at, "a character that has no meaning in a tag");
}

/** Where this tag ends when it ends at `at`: 0 when it does not; sets the sign before the end. */
static size_t tag_end_at(const lexer *lex, size_t at, bool is_print, char *sign) {
    *sign = 0;
    if (starts(lex, at, is_print ? "}}" : "%}")) return at + 2;
    const char first = sign_at(lex, at);
    if (first == 0 || (first == '+' && is_print)) return 0;
    if (!starts(lex, at + 1, is_print ? "}}" : "%}")) return 0;
    *sign = first;
    return at + 3;
}

/** From after "{{" or "{%" to after the end. */
static pi2_status take_tag(lexer *lex, size_t begin, bool is_print) {
    char brackets[MOST_BRACKETS];
    size_t depth = 0;
    for (;;) {
        lex->at = skip_space(lex, lex->at);
        if (lex->at >= lex->length)
            return fail_here(lex, begin, is_print ? "{{ without its end, }}"
                                                  : "{% without its end, %}");
        char sign;
        const size_t end = depth == 0 ? tag_end_at(lex, lex->at, is_print, &sign) : 0;
        if (end != 0) {
            PI2_TRY(add_token(lex, is_print ? PI2_JINJA_TOKEN_PRINT_END : PI2_JINJA_TOKEN_BLOCK_END,
                              lex->at, end, NULL));
            take_end(lex, end, sign, is_print);
            return PI2_OK;
        }
        const char c = lex->text[lex->at];
        if (is_name_start(c)) {
            size_t name_end = lex->at;
            while (name_end < lex->length &&
                   (is_name_start(lex->text[name_end]) || is_digit(lex->text[name_end])))
                name_end++;
            PI2_TRY(add_token(lex, PI2_JINJA_TOKEN_NAME, lex->at, name_end, NULL));
            lex->at = name_end;
        } else if (is_digit(c)) {
            PI2_TRY(take_number(lex));
        } else if (c == '"' || c == '\'') {
            PI2_TRY(take_string(lex));
        } else {
            PI2_TRY(take_operator(lex, brackets, &depth));
        }
    }
}

/** The next "{{", "{%" or "{#" at or after `at`; the length when there is none. */
static size_t next_tag(const lexer *lex, size_t at) {
    for (; at + 1 < lex->length; at++) {
        const char second = lex->text[at + 1];
        if (lex->text[at] == '{' && (second == '{' || second == '%' || second == '#')) return at;
    }
    return lex->length;
}

static pi2_status run_lexer(lexer *lex) {
    while (lex->at < lex->length) {
        const size_t start = lex->at, begin = next_tag(lex, start);
        if (begin == lex->length) {
            PI2_TRY(add_token(lex, PI2_JINJA_TOKEN_TEXT, start, begin, NULL));
            break;
        }
        const char kind = lex->text[begin + 1];
        const char sign = sign_at(lex, begin + 2);
        PI2_TRY(add_text(lex, start, begin, sign, kind == '{'));
        lex->at = begin;
        size_t raw_end;
        char left, right;
        if (kind == '#') {
            PI2_TRY(take_comment(lex));
        } else if (match_tag(lex, begin, "raw", &raw_end, &left, &right) && right != '+') {
            PI2_TRY(take_raw(lex, raw_end, right));
        } else {
            PI2_TRY(add_token(lex, kind == '{' ? PI2_JINJA_TOKEN_PRINT_BEGIN
                                               : PI2_JINJA_TOKEN_BLOCK_BEGIN,
                              begin, begin + 2, NULL));
            lex->at = begin + 2 + (sign != 0);
            PI2_TRY(take_tag(lex, begin, kind == '{'));
        }
    }
    return add_token(lex, PI2_JINJA_TOKEN_END, lex->length, lex->length, NULL);
}

pi2_status pi2_jinja_tokenize(pi2_jinja_arena *arena, const char *source, size_t length,
                              pi2_jinja_token **tokens_out, size_t *count_out) {
    if (length > PI2_JINJA_SOURCE_BYTES)
        return pi2_fail(PI2_ERR_FORMAT, "chat template: it has %zu bytes; the limit is %d", length,
                        PI2_JINJA_SOURCE_BYTES);
    char *text = pi2_jinja_alloc(arena, length + 1, 1);
    if (text == NULL) return pi2_jinja_no_memory(arena);
    size_t kept = 0;
    for (size_t i = 0; i < length; i++) {
        if (source[i] == '\r' && i + 1 < length && source[i + 1] == '\n') continue;
        text[kept++] = source[i] == '\r' ? '\n' : source[i];
    }
    if (kept > 0 && text[kept - 1] == '\n') kept--;
    lexer lex = {.arena = arena, .text = text, .length = kept, .line = 1, .at_line_start = true};
    PI2_TRY(run_lexer(&lex));
    *tokens_out = lex.tokens;
    *count_out = lex.count;
    return PI2_OK;
}
