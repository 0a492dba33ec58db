/* vocabulary.c: reads the tokens of a GGUF into compact tables, and finds a token by its text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "tokenizer/tokenizer_internal.h"

enum { GGUF_F32 = 6, GGUF_STRING = 8 };

const char *pi2_tokenizer_printable(char *out, size_t out_bytes, const char *text,
                                    size_t length) {
    size_t count = 0;
    for (; count < length && count + 4 < out_bytes; count++) {
        out[count] = text[count] >= ' ' && text[count] <= '~' ? text[count] : '?';
    }
    if (count < length) {
        memcpy(out + count, "...", 3);
        count += 3;
    }
    out[count] = '\0';
    return out;
}

/* ---- tables ------------------------------------------------------------------------------ */

pi2_status pi2_id_table_create(pi2_id_table *table, uint32_t count) {
    const uint64_t capacity = (uint64_t)count + count / 3 + 8;
    *table = (pi2_id_table){ 0 };
    if (capacity > UINT32_MAX / 2) {
        return pi2_fail(PI2_ERR_MEMORY, "%u entries are too many", count);
    }
    table->slots = malloc((size_t)capacity * sizeof *table->slots);
    if (!table->slots) return pi2_fail(PI2_ERR_MEMORY, "no memory for a table of %u", count);
    memset(table->slots, 0xff, (size_t)capacity * sizeof *table->slots);
    table->capacity = (uint32_t)capacity;
    return PI2_OK;
}

void pi2_id_table_free(pi2_id_table *table) {
    free(table->slots);
    *table = (pi2_id_table){ 0 };
}

/** One byte of text at *position, with U+2581 read as a space. */
static unsigned char plain_byte(const char *text, size_t length, size_t *position) {
    if (length - *position >= 3 && memcmp(text + *position, "\xe2\x96\x81", 3) == 0) {
        *position += 3;
        return ' ';
    }
    return (unsigned char)text[(*position)++];
}

static uint64_t text_hash(bool marks_spaces, const char *text, size_t length) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < length;) {
        const unsigned char byte =
            marks_spaces ? plain_byte(text, length, &i) : (unsigned char)text[i++];
        hash = (hash ^ byte) * UINT64_C(0x100000001b3);
    }
    hash ^= hash >> 32;
    return hash * UINT64_C(0xd6e8feb86659fd93);
}

/** Only a user-defined token may have kept U+2581 in its text. */
static bool same_text(bool marks_spaces, const char *a, size_t a_length, const char *b,
                      size_t b_length) {
    if (a_length == b_length && memcmp(a, b, a_length) == 0) return true;
    if (!marks_spaces || a_length == b_length) return false;
    size_t i = 0, j = 0;
    while (i < a_length && j < b_length) {
        if (plain_byte(a, a_length, &i) != plain_byte(b, b_length, &j)) return false;
    }
    return i == a_length && j == b_length;
}

/** The slot of this text, or the empty one where it would go. */
static uint32_t find_slot(const pi2_tokenizer *tokenizer, const char *text, size_t length) {
    const bool marks_spaces = tokenizer->marks_spaces;
    const pi2_id_table *table = &tokenizer->tokens;
    uint32_t slot = pi2_id_table_slot(table, text_hash(marks_spaces, text, length));
    while (table->slots[slot] != PI2_TABLE_EMPTY) {
        const uint32_t token = table->slots[slot];
        if (same_text(marks_spaces, pi2_token_text(tokenizer, token),
                      pi2_token_length(tokenizer, token), text, length)) {
            break;
        }
        if (++slot == table->capacity) slot = 0;
    }
    return slot;
}

int32_t pi2_token_find(const pi2_tokenizer *tokenizer, const char *text, size_t length) {
    if (length > tokenizer->longest_piece || tokenizer->tokens.capacity == 0) return -1;
    const uint32_t token = tokenizer->tokens.slots[find_slot(tokenizer, text, length)];
    return token == PI2_TABLE_EMPTY ? -1 : (int32_t)token;
}

pi2_status pi2_token_table_build(pi2_tokenizer *tokenizer) {
    uint32_t count = 0;
    for (uint32_t token = 0; token < tokenizer->token_count; token++) {
        count += !(tokenizer->attributes[token] & PI2_TOKEN_NOT_IN_TABLE);
    }
    PI2_TRY(pi2_id_table_create(&tokenizer->tokens, count));
    for (uint32_t token = 0; token < tokenizer->token_count; token++) {
        if (tokenizer->attributes[token] & PI2_TOKEN_NOT_IN_TABLE) continue;
        const uint32_t slot = find_slot(tokenizer, pi2_token_text(tokenizer, token),
                                        pi2_token_length(tokenizer, token));
        tokenizer->tokens.slots[slot] = token; /* of two with one text the later counts */
    }
    return PI2_OK;
}

/* ---- the text of a token ----------------------------------------------------------------- */

/** The byte that a character of byte-level text stands for, or -1. The 68 bytes that are not
 *  visible Latin-1 characters are written U+0100, U+0101 and so on. */
static int byte_of_character(unsigned code) {
    if ((code >= 33 && code <= 126) || (code >= 161 && code <= 172) ||
        (code >= 174 && code <= 255)) {
        return (int)code;
    }
    if (code < 256) return -1;
    const unsigned n = code - 256;
    if (n < 33) return (int)n;
    if (n < 67) return (int)(127 + n - 33);
    return n == 67 ? 173 : -1;
}

size_t pi2_byte_level_decode(const char *text, size_t length, char *out) {
    size_t count = 0;
    for (size_t i = 0; i < length; count++) {
        const unsigned lead = (unsigned char)text[i];
        const size_t character = pi2_utf8_character(text + i, length - i);
        if (character != 1 && character != 2) return SIZE_MAX;
        const int byte = byte_of_character(
            character == 1 ? lead : (lead & 31) << 6 | ((unsigned char)text[i + 1] & 63));
        if (byte < 0) return SIZE_MAX;
        out[count] = (char)byte;
        i += character;
    }
    return count;
}

size_t pi2_token_text_decode(const pi2_tokenizer *tokenizer, const char *text, size_t length, char *out) {
    size_t count = 0;
    if (!tokenizer->is_of_characters) return pi2_byte_level_decode(text, length, out);
    for (size_t i = 0; i < length;) {
        out[count++] = tokenizer->marks_spaces ? (char)plain_byte(text, length, &i) : text[i++];
    }
    return count;
}

static int hexadecimal(char digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/** The byte that a text such as <0x0A> names, or -1. */
static int named_byte(pi2_gguf_string raw) {
    if (raw.length != 6 || memcmp(raw.text, "<0x", 3) != 0 || raw.text[5] != '>') return -1;
    const int high = hexadecimal(raw.text[3]), low = hexadecimal(raw.text[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

static bool is_visible_ascii(pi2_gguf_string raw) {
    for (size_t i = 0; i < raw.length; i++) {
        if (raw.text[i] <= ' ' || raw.text[i] > '~') return false;
    }
    return true;
}

static bool is_special_type(uint32_t type) {
    return type == PI2_TOKEN_UNKNOWN || type == PI2_TOKEN_CONTROL ||
           type == PI2_TOKEN_USER_DEFINED;
}

/** Writes a token's piece to out, which holds raw.length bytes; returns its length and sets
 *  PI2_TOKEN_NOT_IN_TABLE in *attributes where it applies. */
static size_t decode_piece(const pi2_tokenizer *tokenizer, pi2_gguf_string raw, uint8_t *attributes,
                           char *out) {
    const uint32_t type = *attributes & PI2_TOKEN_TYPE_MASK;
    if (raw.length == 0) *attributes |= PI2_TOKEN_NOT_IN_TABLE;
    if (type == PI2_TOKEN_BYTE && named_byte(raw) >= 0) {
        *attributes |= PI2_TOKEN_NOT_IN_TABLE;
        out[0] = (char)named_byte(raw);
        return 1;
    }
    if (!tokenizer->is_of_characters && is_special_type(type)) {
        if (!is_visible_ascii(raw)) *attributes |= PI2_TOKEN_NOT_IN_TABLE;
    } else {
        /* Spaces of a text are marked before it is looked up, so such a token is never found. */
        if (tokenizer->marks_spaces && raw.length && memchr(raw.text, ' ', raw.length)) {
            *attributes |= PI2_TOKEN_NOT_IN_TABLE;
        }
        if (!is_special_type(type)) {
            const size_t length = pi2_token_text_decode(tokenizer, raw.text, raw.length, out);
            if (length != SIZE_MAX) return length;
            *attributes |= PI2_TOKEN_NOT_IN_TABLE;
        }
    }
    if (raw.length) memcpy(out, raw.text, raw.length);
    return raw.length;
}

/* ---- loading ----------------------------------------------------------------------------- */

static pi2_status get_tokens(pi2_tokenizer *tokenizer, const pi2_gguf *gguf,
                             pi2_gguf_array *array) {
    static const char key[] = "tokenizer.ggml.tokens";
    PI2_TRY(pi2_gguf_array_get(gguf, key, array));
    if (array->element_type != GGUF_STRING) {
        return pi2_fail(PI2_ERR_FORMAT, "%s is an array of type %u, not of strings: convert the "
                        "model again", key, array->element_type);
    }
    const bool is_spm = tokenizer->kind == PI2_VOCABULARY_SPM;
    const uint64_t limit = is_spm ? INT32_MAX / 2 : PI2_BPE_ID_LIMIT - 1;
    if (array->count == 0 || array->count > limit) {
        return pi2_fail(PI2_ERR_FORMAT, "%s has %llu entries; 1 to %llu can be read", key,
                        (unsigned long long)array->count, (unsigned long long)limit);
    }
    if (array->data_bytes > INT32_MAX) {
        return pi2_fail(PI2_ERR_FORMAT, "%s takes %zu bytes; at most 2 GiB can be read", key,
                        array->data_bytes);
    }
    tokenizer->token_count = (uint32_t)array->count;
    return PI2_OK;
}

/** An optional array with one number a token. */
static pi2_status get_numbers(const pi2_tokenizer *tokenizer, const pi2_gguf *gguf,
                              const char *key, pi2_gguf_array *array) {
    PI2_TRY(pi2_gguf_array_get(gguf, key, array));
    if (array->count != tokenizer->token_count) {
        return pi2_fail(PI2_ERR_FORMAT, "%s has %llu entries for %u tokens: convert the model "
                        "again", key, (unsigned long long)array->count, tokenizer->token_count);
    }
    return PI2_OK;
}

static pi2_status load_types(pi2_tokenizer *tokenizer, const pi2_gguf *gguf) {
    static const char key[] = "tokenizer.ggml.token_type";
    const uint32_t count = tokenizer->token_count;
    tokenizer->attributes = malloc(count);
    if (!tokenizer->attributes) return pi2_fail(PI2_ERR_MEMORY, "no memory for %u tokens", count);
    memset(tokenizer->attributes, PI2_TOKEN_NORMAL, count);
    if (!pi2_gguf_has(gguf, key)) return PI2_OK;
    pi2_gguf_array array;
    PI2_TRY(get_numbers(tokenizer, gguf, key, &array));
    if (array.element_type >= GGUF_F32 && array.element_type != 10 && array.element_type != 11) {
        return pi2_fail(PI2_ERR_FORMAT, "%s is an array of type %u, not of integers: convert the "
                        "model again", key, array.element_type);
    }
    for (uint32_t token = 0; token < count; token++) {
        const uint64_t type = pi2_gguf_array_u64(&array, token);
        tokenizer->attributes[token] =
            type <= PI2_TOKEN_BYTE ? (uint8_t)type : PI2_TOKEN_UNDEFINED;
    }
    return PI2_OK;
}

static pi2_status load_scores(pi2_tokenizer *tokenizer, const pi2_gguf *gguf) {
    static const char key[] = "tokenizer.ggml.scores";
    pi2_gguf_array array;
    PI2_TRY(get_numbers(tokenizer, gguf, key, &array));
    if (array.element_type != GGUF_F32) {
        return pi2_fail(PI2_ERR_FORMAT, "%s is an array of type %u, not of 32-bit floats: convert "
                        "the model again", key, array.element_type);
    }
    const uint32_t count = tokenizer->token_count;
    tokenizer->scores = malloc(count * sizeof *tokenizer->scores);
    if (!tokenizer->scores) return pi2_fail(PI2_ERR_MEMORY, "no memory for %u scores", count);
    for (uint32_t token = 0; token < count; token++) {
        tokenizer->scores[token] = pi2_gguf_array_f32(&array, token);
        if (isnan(tokenizer->scores[token])) {
            return pi2_fail(PI2_ERR_FORMAT, "%s[%u] is not a number: convert the model again", key,
                            token);
        }
    }
    return PI2_OK;
}

/** Fills the text block. Pieces are never longer than the texts, so one upper bound serves; the
 *  block is cut to size afterwards. */
static pi2_status load_texts(pi2_tokenizer *tokenizer, const pi2_gguf_array *array) {
    const uint32_t count = tokenizer->token_count;
    const size_t bound = array->data_bytes - 8 * (size_t)count; /* without the lengths */
    tokenizer->text = malloc(bound ? bound : 1);
    tokenizer->text_start = malloc(((size_t)count + 1) * sizeof *tokenizer->text_start);
    if (!tokenizer->text || !tokenizer->text_start) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the text of %u tokens", count);
    }
    for (int byte = 0; byte < 256; byte++) tokenizer->byte_tokens[byte] = -1;
    size_t cursor = 0, used = 0;
    pi2_gguf_string raw;
    for (uint32_t token = 0; token < count; token++) {
        if (!pi2_gguf_array_next_string(array, &cursor, &raw)) {
            return pi2_fail(PI2_ERR_FORMAT, "tokenizer.ggml.tokens ends after %u of %u tokens",
                            token, count);
        }
        uint8_t *attributes = &tokenizer->attributes[token];
        const int byte = named_byte(raw);
        if (byte < 0 && *attributes == PI2_TOKEN_BYTE) {
            char printable[32];
            return pi2_fail(PI2_ERR_FORMAT, "tokenizer.ggml.tokens[%u] is a byte but reads '%s', "
                            "not as <0x0A>: convert the model again", token,
                            pi2_tokenizer_printable(printable, sizeof printable, raw.text,
                                                    raw.length));
        }
        if (byte >= 0) tokenizer->byte_tokens[byte] = (int32_t)token;
        const size_t length =
            decode_piece(tokenizer, raw, attributes, tokenizer->text + used);
        tokenizer->text_start[token] = (uint32_t)used;
        used += length;
        if (length > tokenizer->longest_piece) tokenizer->longest_piece = (uint32_t)length;
    }
    tokenizer->text_start[count] = (uint32_t)used;
    char *fitted = realloc(tokenizer->text, used ? used : 1);
    if (fitted) tokenizer->text = fitted;
    return PI2_OK;
}

pi2_status pi2_vocabulary_load(pi2_tokenizer *tokenizer, const pi2_gguf *gguf) {
    pi2_gguf_array array;
    PI2_TRY(get_tokens(tokenizer, gguf, &array));
    PI2_TRY(load_types(tokenizer, gguf));
    if (tokenizer->kind == PI2_VOCABULARY_SPM) PI2_TRY(load_scores(tokenizer, gguf));
    return load_texts(tokenizer, &array);
}
