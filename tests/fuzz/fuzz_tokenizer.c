/* fuzz_tokenizer.c: any vocabulary and any text. The input is
 *
 *   one byte of options, lines of a vocabulary, a NUL, the text
 *
 * The text in pieces, with the smallest window, must have the tokens of the text at once.
 * Both OPTION_SPM and OPTION_WHOLE_WORDS: Gemma 4's, BPE over characters.
 * A line is a token (its type as one byte, then its text) or, if it starts with a tab, a merge.
 * A line "*" adds the 256 tokens of the bytes. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tokenizer/tokenizer_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OPTION_SPM = 1, OPTION_WHOLE_WORDS = 2, OPTION_FEW_TYPES = 4, OPTION_TRUST_FIRST = 8,
       OPTION_TRUST_LAST = 16, OPTION_PHI3 = 32, OPTION_NO_PREFIX = 64, OPTION_BAD_ID = 128 };
enum { LIMIT = 1 << 18, CONTROL = 3 };

/* ---- a GGUF file ------------------------------------------------------------------------- */

typedef struct buffer {
    uint8_t bytes[LIMIT];
    size_t length;
} buffer;

static void put(buffer *out, const void *bytes, size_t count) {
    if (count > LIMIT - out->length) abort();
    memcpy(out->bytes + out->length, bytes, count);
    out->length += count;
}

static void put_number(buffer *out, size_t bytes, uint64_t value) {
    uint8_t raw[8];
    for (size_t i = 0; i < 8; i++) raw[i] = (uint8_t)(value >> 8 * i);
    put(out, raw, bytes);
}

static void put_string(buffer *out, const void *text, size_t length) {
    put_number(out, 8, length);
    put(out, text, length);
}

static void put_key(buffer *out, const char *key, uint32_t type) {
    put_string(out, key, strlen(key));
    put_number(out, 4, type);
}

static void put_array(buffer *out, const char *key, uint32_t type, uint64_t count,
                      const buffer *elements) {
    put_key(out, key, 9);
    put_number(out, 4, type);
    put_number(out, 8, count);
    put(out, elements->bytes, elements->length);
}

static void put_text(buffer *out, const char *key, const char *text) {
    put_key(out, key, 8);
    put_string(out, text, strlen(text));
}

/* ---- the vocabulary ---------------------------------------------------------------------- */

static buffer texts, types, scores, merges, file;
static uint64_t token_count, merge_count;

static void add_token(uint32_t type, const void *text, size_t length) {
    put_string(&texts, text, length);
    put_number(&types, 4, type);
    const float score = -(float)((length * 7 + type) % 5);
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    put_number(&scores, 4, bits);
    token_count++;
}

static void add_byte_tokens(unsigned options) {
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[8];
        unsigned code = byte;
        if (options & OPTION_SPM) {
            (void)snprintf(text, sizeof text, "<0x%02X>", byte);
            add_token(6, text, 6);
            continue;
        }
        if (byte < 33) code = 256 + byte;
        else if (byte > 126 && byte < 161) code = 256 + 33 + byte - 127;
        else if (byte == 173) code = 256 + 67;
        text[0] = code < 128 ? (char)code : (char)(0xc0 | code >> 6);
        text[1] = (char)(0x80 | (code & 63));
        add_token(1, text, code < 128 ? 1 : 2);
    }
}

static void read_vocabulary(const uint8_t *data, size_t size, unsigned options) {
    texts.length = types.length = scores.length = merges.length = file.length = 0;
    token_count = merge_count = 0;
    for (size_t start = 0; start < size;) {
        size_t end = start;
        while (end < size && data[end] != '\n') end++;
        if (texts.length > LIMIT - 16384 || end - start > 4096) break;
        if (end - start == 1 && data[start] == '*') add_byte_tokens(options);
        else if (end > start && data[start] == '\t') {
            put_string(&merges, data + start + 1, end - start - 1);
            merge_count++;
        } else if (end > start) {
            add_token(data[start] & 7, data + start + 1, end - start - 1);
        }
        start = end + 1;
    }
}

static void write_file(unsigned options) {
    put(&file, "GGUF", 4);
    put_number(&file, 4, 3);
    put_number(&file, 8, 0);
    put_number(&file, 8, 9);
    const bool is_gemma4 = options & OPTION_SPM && options & OPTION_WHOLE_WORDS;
    put_text(&file, "tokenizer.ggml.model", is_gemma4 ? "gemma4" : options & OPTION_SPM ? "llama" : "gpt2");
    put_text(&file, "tokenizer.ggml.pre", options & OPTION_WHOLE_WORDS ? "llama-bpe" : "smollm");
    put_text(&file, "general.name", options & OPTION_PHI3 ? "Phi-3" : "a");
    put_array(&file, "tokenizer.ggml.tokens", 8, token_count, &texts);
    put_array(&file, "tokenizer.ggml.scores", 6, token_count, &scores);
    if (options & OPTION_FEW_TYPES && token_count) types.length -= 4;
    put_array(&file, "tokenizer.ggml.token_type", 5, types.length / 4, &types);
    put_array(&file, "tokenizer.ggml.merges", 8, merge_count, &merges);
    put_key(&file, "tokenizer.ggml.add_space_prefix", 7);
    put_number(&file, 1, !(options & OPTION_NO_PREFIX));
    put_key(&file, "tokenizer.ggml.bos_token_id", 4);
    put_number(&file, 4, options & OPTION_BAD_ID ? token_count : 0);
}

static pi2_tokenizer *make_tokenizer(void) {
    static char path[64];
    static int descriptor = -1;
    if (descriptor < 0) {
        (void)snprintf(path, sizeof path, "/dev/shm/pi2-fuzz-tokenizer-%ld", (long)getpid());
        descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (descriptor < 0) abort();
    }
    if (ftruncate(descriptor, 0) != 0 ||
        pwrite(descriptor, file.bytes, file.length, 0) != (ssize_t)file.length) {
        abort();
    }
    pi2_gguf *gguf;
    pi2_tokenizer *tokenizer = NULL;
    if (pi2_gguf_open(path, &gguf) == PI2_OK) (void)pi2_tokenizer_create(gguf, &tokenizer);
    pi2_gguf_close(gguf);
    return tokenizer;
}

/* ---- what must hold ---------------------------------------------------------------------- */

static void check_tokens(const pi2_tokenizer *tokenizer, const int32_t *tokens, size_t count,
                         bool trusted) {
    const size_t room = 3 * (pi2_tokenizer_longest_piece(tokenizer) + 4);
    char *out = malloc(room);
    if (!out) abort();
    pi2_detokenizer detokenizer;
    pi2_detokenizer_reset(&detokenizer, true);
    for (size_t i = 0; i < count; i++) {
        if (tokens[i] < 0 || (uint64_t)tokens[i] >= token_count) abort();
        if (!trusted && types.bytes[4 * tokens[i]] == CONTROL) abort();
        const size_t written =
            pi2_detokenizer_push(&detokenizer, tokenizer, tokens[i], out, room);
        if (written > room) abort();
        if (written > 0 && ((unsigned char)out[0] & 0xc0) == 0x80) abort(); /* a split one */
        if (written > 0 && (unsigned char)out[written - 1] >= 0xc0) abort();
    }
    (void)pi2_detokenizer_finish(&detokenizer, out, room);
    free(out);
}

typedef struct expected {
    const int32_t *tokens;
    size_t count, done;
} expected;

static pi2_status compare(void *context, const int32_t *tokens, size_t count) {
    expected *all = context;
    if (count > all->count - all->done) abort();
    if (memcmp(tokens, all->tokens + all->done, count * sizeof *tokens) != 0) abort();
    all->done += count;
    return PI2_OK;
}

/** In pieces of 1, 2, 3, ... bytes. A word whose merges reach too far for the window may be refused. */
static void check_pieces(const pi2_tokenizer *tokenizer, const pi2_text_segment *segments,
                         const int32_t *tokens, size_t count) {
    expected all = { tokens, count, 0 };
    pi2_encoder *encoder;
    size_t piece = 0;
    pi2_status status = pi2_encoder_create_with(tokenizer, 1, compare, &all, &encoder);
    for (int i = 0; i < 2; i++) {
        for (size_t done = 0; status == PI2_OK && done < segments[i].length; done += piece) {
            piece = piece % 7 + 1;
            if (piece > segments[i].length - done) piece = segments[i].length - done;
            status = pi2_encoder_add(encoder, segments[i].text + done, piece, segments[i].trusted);
        }
    }
    if (status == PI2_OK) status = pi2_encoder_finish(encoder);
    if (status == PI2_OK && all.done != count) abort();
    pi2_encoder_free(encoder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    const unsigned options = data[0];
    const uint8_t *end = memchr(data + 1, '\0', size - 1);
    const size_t lines = end ? (size_t)(end - data) - 1 : size - 1;
    read_vocabulary(data + 1, lines, options);
    write_file(options);
    pi2_tokenizer *tokenizer = make_tokenizer();
    if (!tokenizer) return 0;
    const char *text = (const char *)data + 1 + lines + (end ? 1 : 0);
    const size_t length = (size_t)((const char *)data + size - text);
    const pi2_text_segment segments[] = {
        { text, length / 2, (options & OPTION_TRUST_FIRST) != 0 },
        { text + length / 2, length - length / 2, (options & OPTION_TRUST_LAST) != 0 },
    };
    int32_t *tokens;
    size_t count;
    if (pi2_tokenizer_encode(tokenizer, segments, 2, false, &tokens, &count) == PI2_OK) {
        check_tokens(tokenizer, tokens, count,
                     (options & (OPTION_TRUST_FIRST | OPTION_TRUST_LAST)) != 0);
        check_pieces(tokenizer, segments, tokens, count);
        free(tokens);
    }
    pi2_tokenizer_free(tokenizer);
    return 0;
}
