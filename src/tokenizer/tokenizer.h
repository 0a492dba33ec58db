/* tokenizer.h: text to token ids and back, from a GGUF's tokenizer keys. */
#ifndef PI2_TOKENIZER_TOKENIZER_H
#define PI2_TOKENIZER_TOKENIZER_H

#include "file_formats/gguf.h"

typedef struct pi2_tokenizer pi2_tokenizer;

/**
 * Builds from tokenizer.ggml.*: model "llama" (SPM) or "gpt2" (BPE with tokenizer.ggml.pre).
 * Keeps no pointer into gguf. Immutable afterwards: any thread may use it.
 * Errors  UNSUPPORTED (model or pre-tokenizer, by name), FORMAT, MEMORY
 */
pi2_status pi2_tokenizer_create(const pi2_gguf *gguf, pi2_tokenizer **tokenizer_out);
void pi2_tokenizer_free(pi2_tokenizer *tokenizer);

/** Text with a mark: special tokens are recognised only in trusted text. */
typedef struct pi2_text_segment {
    const char *text;
    size_t length;
    bool trusted;
} pi2_text_segment;

/** Takes tokens as they become certain. What it returns but OK ends the call that it came from. */
typedef pi2_status pi2_token_function(void *context, const int32_t *tokens, size_t count);

/**
 * Tokenizes a text that comes in pieces, cut anywhere, to the tokens that it has as a whole.
 * A special token (control, unknown) matches only where it lies wholly in trusted text, and nothing
 * else gives one: no merge, no word (but SPM's unknown token stands for a byte that has no token).
 * User-defined tokens are text and match anywhere.
 * Any bytes are accepted, zeros too: SPM writes invalid UTF-8 as byte tokens, BPE reads each such
 * byte as U+FFFD.
 * Memory: pi2_encoder_bytes(), and with BPE at most 5 MB more where a word (a run that the
 * pre-tokenizer does not cut) has more than 1 KB of different characters.
 * Errors  UNSUPPORTED (BPE: such a word of more than 1 MiB; any: a word whose merges reach further
 *         than 64 windows), MEMORY, what the function returned. After one it can only be freed.
 */
typedef struct pi2_encoder pi2_encoder;
pi2_status pi2_encoder_create(const pi2_tokenizer *tokenizer, pi2_token_function *function,
                              void *context, pi2_encoder **encoder_out);
void pi2_encoder_free(pi2_encoder *encoder);
pi2_status pi2_encoder_add(pi2_encoder *encoder, const char *text, size_t length, bool trusted);
/** The text ends. Once, as the last call. */
pi2_status pi2_encoder_finish(pi2_encoder *encoder);
/** What an encoder takes where words are short. */
size_t pi2_encoder_bytes(const pi2_tokenizer *tokenizer);

/**
 * Tokenizes the segments as one text, as an encoder does.
 * add_special: put BOS before it as the model asks. Never EOS behind it, whatever the file's
 * add_eos_token says: that is how encoders and trainers end a text, and a prompt goes on. Empty
 * text gives 0 tokens (plus BOS).
 * Tokens go to *tokens_out, malloc'd, caller frees; *count_out of them.
 * Errors  as an encoder's
 */
pi2_status pi2_tokenizer_encode(const pi2_tokenizer *tokenizer, const pi2_text_segment *segments,
                                size_t segment_count, bool add_special, int32_t **tokens_out,
                                size_t *count_out);

/** Bytes of one token's text. Special tokens give "" unless `special`. Not NUL-terminated;
 *  *length_out bytes, valid as long as the tokenizer. */
const char *pi2_tokenizer_piece(const pi2_tokenizer *tokenizer, int32_t token, bool special,
                                size_t *length_out);

/** The text of a special token such as BOS, NUL-terminated; "" for -1, and where it does not fit. */
void pi2_tokenizer_special_text(const pi2_tokenizer *tokenizer, int32_t token, char *text, size_t capacity);

uint32_t pi2_tokenizer_vocabulary_size(const pi2_tokenizer *tokenizer);
int32_t pi2_tokenizer_bos(const pi2_tokenizer *tokenizer); /* -1: none */
int32_t pi2_tokenizer_eos(const pi2_tokenizer *tokenizer);
int32_t pi2_tokenizer_unknown(const pi2_tokenizer *tokenizer); /* as templates name them; -1: none */
int32_t pi2_tokenizer_padding(const pi2_tokenizer *tokenizer);
bool pi2_tokenizer_adds_bos(const pi2_tokenizer *tokenizer);
/** Whether texts that the model was trained on ended with EOS (tokenizer.ggml.add_eos_token). */
bool pi2_tokenizer_adds_eos(const pi2_tokenizer *tokenizer);
/** Bytes of the longest piece: 3 * (this + 4) bytes hold what any one push gives. */
size_t pi2_tokenizer_longest_piece(const pi2_tokenizer *tokenizer);
/** EOS, EOT and other tokens that end an answer. */
bool pi2_tokenizer_ends_generation(const pi2_tokenizer *tokenizer, int32_t token);
/** Tokens that an answer never has, whatever their logits (tokenizer.ggml.suppress_tokens). */
bool pi2_tokenizer_is_suppressed(const pi2_tokenizer *tokenizer, int32_t token);
size_t pi2_tokenizer_memory_bytes(const pi2_tokenizer *tokenizer);

/** Turns a stream of tokens into text that never splits a UTF-8 character. */
typedef struct pi2_detokenizer {
    unsigned char pending[8];
    unsigned pending_count;
    bool at_start;   /* SPM: the first piece loses its leading space when set */
} pi2_detokenizer;
void pi2_detokenizer_reset(pi2_detokenizer *detokenizer, bool at_start);
/** Writes what `token` completes to out, without a NUL; returns bytes written. Each invalid byte
 *  or cut character becomes U+FFFD (3 bytes), so 3 * (piece + 4) bytes always suffice; of a
 *  smaller buffer it never writes past `capacity`, and characters that do not fit are lost. */
size_t pi2_detokenizer_push(pi2_detokenizer *detokenizer, const pi2_tokenizer *tokenizer,
                            int32_t token, char *out, size_t capacity);
/** The same; special: a control token's text too, before which a character that was begun ends. */
size_t pi2_detokenizer_push_special(pi2_detokenizer *detokenizer, const pi2_tokenizer *tokenizer, int32_t token,
                                    bool special, char *out, size_t capacity);
/** The rest at the end of an answer: an unfinished character becomes U+FFFD. */
size_t pi2_detokenizer_finish(pi2_detokenizer *detokenizer, char *out, size_t capacity);

#endif
