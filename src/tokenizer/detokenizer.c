/* detokenizer.c: UTF-8, and a stream of tokens as text that never splits a character. */
#include <string.h>

#include "tokenizer/tokenizer_internal.h"

/** Whether `byte` may follow the `count` bytes of an unfinished character. */
static bool continues(const unsigned char *bytes, unsigned count, unsigned char byte) {
    if ((byte & 0xc0) != 0x80) return false;
    if (count > 1) return true;
    switch (bytes[0]) { /* the second byte: no overlong form, no surrogate, below U+110000 */
    case 0xe0: return byte >= 0xa0;
    case 0xed: return byte < 0xa0;
    case 0xf0: return byte >= 0x90;
    case 0xf4: return byte < 0x90;
    default: return true;
    }
}

/** Bytes of the character that `lead` starts, or 0 when it starts none. */
static unsigned length_of(unsigned char lead) {
    if (lead < 0x80) return 1;
    if (lead < 0xc2 || lead > 0xf4) return 0;
    return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

size_t pi2_utf8_character(const char *text, size_t length) {
    const unsigned char *bytes = (const unsigned char *)text;
    const unsigned wanted = length ? length_of(bytes[0]) : 0;
    if (wanted == 0 || wanted > length) return 0;
    for (unsigned i = 1; i < wanted; i++) {
        if (!continues(bytes, i, bytes[i])) return 0;
    }
    return wanted;
}

void pi2_detokenizer_reset(pi2_detokenizer *detokenizer, bool at_start) {
    *detokenizer = (pi2_detokenizer){ .at_start = at_start };
}

/** Text being written; what does not fit is dropped whole. */
typedef struct text_sink {
    char *out;
    size_t count, capacity;
} text_sink;

static void write_bytes(text_sink *sink, const void *bytes, size_t length) {
    if (length > sink->capacity - sink->count) return;
    memcpy(sink->out + sink->count, bytes, length);
    sink->count += length;
}

static void write_replacement(text_sink *sink) { write_bytes(sink, "\xef\xbf\xbd", 3); }

static void push_byte(pi2_detokenizer *detokenizer, unsigned char byte, text_sink *sink) {
    if (detokenizer->pending_count > 0) {
        if (continues(detokenizer->pending, detokenizer->pending_count, byte)) {
            detokenizer->pending[detokenizer->pending_count++] = byte;
            if (detokenizer->pending_count == length_of(detokenizer->pending[0])) {
                write_bytes(sink, detokenizer->pending, detokenizer->pending_count);
                detokenizer->pending_count = 0;
            }
            return;
        }
        write_replacement(sink); /* one for the cut character; the byte starts anew */
        detokenizer->pending_count = 0;
    }
    const unsigned wanted = length_of(byte);
    if (wanted == 0) write_replacement(sink);
    else if (wanted == 1) write_bytes(sink, &byte, 1);
    else detokenizer->pending[detokenizer->pending_count++] = byte;
}

size_t pi2_detokenizer_push(pi2_detokenizer *detokenizer, const pi2_tokenizer *tokenizer,
                            int32_t token, char *out, size_t capacity) {
    text_sink sink = { out, 0, capacity };
    size_t length;
    const char *piece = pi2_tokenizer_piece(tokenizer, token, false, &length);
    if (length > 0 && detokenizer->at_start) {
        detokenizer->at_start = false;
        if (tokenizer->adds_space_prefix && piece[0] == ' ') {
            piece++;
            length--;
        }
    }
    for (size_t i = 0; i < length; i++) push_byte(detokenizer, (unsigned char)piece[i], &sink);
    return sink.count;
}

size_t pi2_detokenizer_finish(pi2_detokenizer *detokenizer, char *out, size_t capacity) {
    text_sink sink = { out, 0, capacity };
    if (detokenizer->pending_count > 0) write_replacement(&sink);
    detokenizer->pending_count = 0;
    return sink.count;
}

size_t pi2_detokenizer_push_special(pi2_detokenizer *detokenizer, const pi2_tokenizer *tokenizer, int32_t token,
                                    bool special, char *out, size_t capacity) {
    size_t length = 0;
    (void)pi2_tokenizer_piece(tokenizer, token, false, &length);
    if (length > 0 || !special) return pi2_detokenizer_push(detokenizer, tokenizer, token, out, capacity);
    const char *piece = pi2_tokenizer_piece(tokenizer, token, true, &length);
    text_sink sink = { out, pi2_detokenizer_finish(detokenizer, out, capacity), capacity };
    write_bytes(&sink, piece, length);
    return sink.count;
}
