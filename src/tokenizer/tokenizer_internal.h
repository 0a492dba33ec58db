/*
 * tokenizer_internal.h: what the files of this folder share.
 *
 * How a text becomes tokens:
 *
 *   pieces of text --special_split.c--> special tokens, and fragments of text in pieces
 *   fragment, SPM: spm.c cuts it where no merge can cross ------------.
 *   fragment, BPE: bpe_stream.c, and pre_tokenizer.c cuts with PCRE2 -+--> word_stream.c: merge.c
 *                                       joins the best pair of a word until none is left
 *
 * No stage holds more than it needs to decide: encoder.c ties them together.
 *
 * Memory: the vocabulary is one block of text with an offset a token, a byte of attributes, and
 * (SPM) a score; a table of token ids finds a text; (BPE) 8 bytes a merge and a table of merge
 * numbers. Nothing is allocated per token. A vocabulary of 49,152 tokens takes 1.3 MB.
 */
#ifndef PI2_TOKENIZER_TOKENIZER_INTERNAL_H
#define PI2_TOKENIZER_TOKENIZER_INTERNAL_H

#include <limits.h>
#include <string.h>

#include "tokenizer/tokenizer.h"

typedef enum pi2_vocabulary_kind { PI2_VOCABULARY_SPM, PI2_VOCABULARY_BPE } pi2_vocabulary_kind;

/* GGUF's token types, in the low bits of a token's attributes. */
enum {
    PI2_TOKEN_UNDEFINED = 0,
    PI2_TOKEN_NORMAL = 1,
    PI2_TOKEN_UNKNOWN = 2,
    PI2_TOKEN_CONTROL = 3,
    PI2_TOKEN_USER_DEFINED = 4,
    PI2_TOKEN_UNUSED = 5,
    PI2_TOKEN_BYTE = 6,
    PI2_TOKEN_TYPE_MASK = 7,
    PI2_TOKEN_STRIPS_RIGHT = 8,   /* white space after it belongs to it */
    PI2_TOKEN_TRUSTED_ONLY = 16,  /* a special token: only trusted text may produce it */
    PI2_TOKEN_ENDS = 32,          /* ends an answer */
    PI2_TOKEN_NOT_IN_TABLE = 64,  /* no merging gives its text */
    PI2_TOKEN_NEVER_PICKED = 128  /* its logit counts for nothing when an answer's token is picked */
};

/* Merges pack three ids into 64 bits. */
enum { PI2_BPE_ID_BITS = 21, PI2_BPE_ID_LIMIT = 1 << PI2_BPE_ID_BITS };

#define PI2_TABLE_EMPTY UINT32_MAX

/** An open-addressing table of 32-bit values; what is compared lies elsewhere. */
typedef struct pi2_id_table {
    uint32_t *slots; /* PI2_TABLE_EMPTY or a value */
    uint32_t capacity;
} pi2_id_table;

typedef struct pi2_pre_tokenizer pi2_pre_tokenizer;

struct pi2_tokenizer {
    pi2_vocabulary_kind kind;
    uint32_t token_count;
    char *text;           /* the tokens' pieces one after the other, decoded to real bytes */
    uint32_t *text_start; /* shape [token_count + 1] */
    uint8_t *attributes;  /* shape [token_count] */
    float *scores;        /* SPM: shape [token_count] */
    pi2_id_table tokens;  /* text to token; dropped after loading where nothing asks for it */
    uint64_t *merges;     /* BPE: shape [merge_count], ordered by rank: left, right, result */
    uint32_t merge_count;
    pi2_id_table merge_table;   /* (left, right) to rank */
    int32_t byte_tokens[256];   /* the token of one byte, or -1 */
    uint32_t *special_tokens;   /* those the splitter looks for: longest first, then by text */
    uint32_t special_count;
    uint32_t longest_piece;     /* bytes */
    pi2_pre_tokenizer *pre_tokenizer; /* BPE */
    int32_t bos, eos, unknown;        /* -1: none */
    int32_t named_unknown, named_padding; /* what templates call unk_token and pad_token; -1: none */
    bool adds_bos, adds_eos, adds_space_prefix;
    bool is_of_characters;  /* symbols are characters, with a token each or the tokens of their bytes; else bytes */
    bool marks_spaces;      /* the file's tokens write a space as U+2581; here they have ' ' */
    bool ignores_merges;    /* BPE: a word that is a token stays whole */
    bool keeps_line_ends;   /* BPE: one of line ends alone does */
    bool counts_spaces;     /* BPE: PI2_PRE_COUNTS_SPACES */
    bool has_space_first;   /* BPE: PI2_PRE_SPACE_FIRST */
    bool splits_at_spaces;  /* SPM: no token has a space after another character */
};

/* ---- vocabulary ------------------------------------------------------------------------- */

pi2_status pi2_vocabulary_load(pi2_tokenizer *tokenizer, const pi2_gguf *gguf);
/** Marks special tokens, their attributes and those that end an answer; sorts special_tokens. */
pi2_status pi2_special_tokens_load(pi2_tokenizer *tokenizer, const pi2_gguf *gguf);
pi2_status pi2_bpe_merges_load(pi2_tokenizer *tokenizer, const pi2_gguf *gguf);

static inline uint32_t pi2_token_type(const pi2_tokenizer *tokenizer, uint32_t token) {
    return tokenizer->attributes[token] & PI2_TOKEN_TYPE_MASK;
}
static inline const char *pi2_token_text(const pi2_tokenizer *tokenizer, uint32_t token) {
    return tokenizer->text + tokenizer->text_start[token];
}
static inline uint32_t pi2_token_length(const pi2_tokenizer *tokenizer, uint32_t token) {
    return tokenizer->text_start[token + 1] - tokenizer->text_start[token];
}

/** A table with room for `count` values at three quarters full. */
pi2_status pi2_id_table_create(pi2_id_table *table, uint32_t count);
void pi2_id_table_free(pi2_id_table *table);
/** Where a hash starts probing. */
static inline uint32_t pi2_id_table_slot(const pi2_id_table *table, uint64_t hash) {
    return (uint32_t)(((hash >> 32) * table->capacity) >> 32);
}
pi2_status pi2_token_table_build(pi2_tokenizer *tokenizer);
/** The token with this text, or -1. Where tokens mark spaces, a space is ' ', not U+2581. */
int32_t pi2_token_find(const pi2_tokenizer *tokenizer, const char *text, size_t length);
/** The same without special tokens: what text by itself may become. */
static inline int32_t pi2_text_token_find(const pi2_tokenizer *tokenizer, const char *text,
                                          size_t length) {
    const int32_t token = pi2_token_find(tokenizer, text, length);
    if (token < 0 || tokenizer->attributes[token] & PI2_TOKEN_TRUSTED_ONLY) return -1;
    return token;
}
/** Bytes that byte-level text stands for (out holds `length` bytes); SIZE_MAX if it is none. */
size_t pi2_byte_level_decode(const char *text, size_t length, char *out);
/** Text of normal tokens as the tokenizer holds it (out holds `length` bytes): real bytes, plain spaces. SIZE_MAX as
 *  above. */
size_t pi2_token_text_decode(const pi2_tokenizer *tokenizer, const char *text, size_t length, char *out);

/** A GGUF string for an error message: printable ASCII, cut. out_bytes at least 8. */
const char *pi2_tokenizer_printable(char *out, size_t out_bytes, const char *text, size_t length);

/* ---- UTF-8 ------------------------------------------------------------------------------ */

/** Bytes of the well-formed character at text, or 0 (overlong, surrogate, cut, stray). */
size_t pi2_utf8_character(const char *text, size_t length);

/** Whether a character is U+2581, by which sentencepiece marks a space. */
static inline bool pi2_is_space_mark(const char *character, size_t length) {
    return length == 3 && memcmp(character, "\xe2\x96\x81", 3) == 0;
}

/* ---- special tokens in text that comes in pieces (special_split.c) ------------------------ */

/** Takes the text between special tokens, in parts, and each special token, in order. */
typedef struct pi2_fragment_sink {
    pi2_status (*text)(void *context, const char *text, size_t length);
    pi2_status (*token)(void *context, int32_t token);
} pi2_fragment_sink;
typedef struct pi2_special_splitter pi2_special_splitter;

/** *splitter_out is to be freed on errors too. */
pi2_status pi2_special_splitter_create(const pi2_tokenizer *tokenizer,
                                       const pi2_fragment_sink *sink, void *context,
                                       pi2_special_splitter **splitter_out);
void pi2_special_splitter_free(pi2_special_splitter *splitter);
pi2_status pi2_special_splitter_add(pi2_special_splitter *splitter, const char *text,
                                    size_t length, bool trusted);
pi2_status pi2_special_splitter_finish(pi2_special_splitter *splitter);
size_t pi2_special_splitter_bytes(const pi2_tokenizer *tokenizer);

/* ---- merging ---------------------------------------------------------------------------- */

enum { PI2_SYMBOL_NO_TOKEN = -1, PI2_SYMBOL_DEAD = -2 };
#define PI2_SYMBOL_NONE UINT32_MAX
#define PI2_NO_PAIR UINT32_MAX

/** Text between two cuts. The symbols of a word form a chain; index 0 is always its head. */
typedef struct pi2_symbol {
    int32_t token;      /* PI2_SYMBOL_NO_TOKEN: no token has this text */
    uint32_t start;     /* byte offset in the word; its end is where the next symbol starts */
    uint32_t previous, next;
    uint32_t pair_key;  /* of (this, next): smaller merges first; PI2_NO_PAIR */
    int32_t pair_token; /* what the two become */
} pi2_symbol;

/** Working memory of one encode call, reused from word to word. Starts as {0}. */
typedef struct pi2_merge_scratch {
    pi2_symbol *symbols;
    size_t symbol_capacity;
    uint64_t *queue; /* a binary heap of (pair key, left symbol) */
    size_t queue_count, queue_capacity;
} pi2_merge_scratch;
void pi2_merge_scratch_free(pi2_merge_scratch *scratch);
pi2_status pi2_merge_reserve(pi2_merge_scratch *scratch, size_t symbol_count);
/**
 * Merges the symbols of one word, best pair first, leftmost first among equals. The symbols'
 * token, start, previous and next are set; `text` is the word of `length` bytes.
 * O(n log n) time; at most 24 + 16 bytes a symbol.
 */
pi2_status pi2_merge_word(const pi2_tokenizer *tokenizer, pi2_merge_scratch *scratch,
                          const char *text, size_t length, size_t symbol_count);

/** Whether two BPE tokens merge: rank and result. */
bool pi2_bpe_find_merge(const pi2_tokenizer *tokenizer, int32_t left, int32_t right,
                        uint32_t *rank_out, int32_t *result_out);

/* ---- words that come in parts (word_stream.c) -------------------------------------------- */

/** Starts as zeros with the first four set. */
typedef struct pi2_word_stream {
    const pi2_tokenizer *tokenizer;
    size_t window_bytes; /* of a word that are held before it is cut: four of the longest piece at
                            least; 0: chosen */
    pi2_token_function *function;
    void *context;
    pi2_merge_scratch scratch, probe;
    char *text;      /* what of the word has given no tokens yet */
    uint8_t *starts; /* 1 where a symbol begins */
    size_t length, capacity;
    bool is_cut;     /* its first part has given tokens */
} pi2_word_stream;
void pi2_word_stream_free(pi2_word_stream *words);
/** One symbol of the word, of 1 to 4 bytes. */
pi2_status pi2_word_stream_character(pi2_word_stream *words, const char *bytes, size_t length);
/** Bytes of the word, each a symbol. */
pi2_status pi2_word_stream_bytes_add(pi2_word_stream *words, const char *bytes, size_t length);
pi2_status pi2_word_stream_end(pi2_word_stream *words);
/** What it takes where no word has to wait for more than a window. */
size_t pi2_word_stream_bytes(const pi2_tokenizer *tokenizer);

/** Text of SPM, fragment by fragment. `words` is set. */
typedef struct pi2_spm_stream {
    pi2_word_stream words;
    char character[4];
    uint32_t count;   /* of its bytes that are there */
    bool after_space;
} pi2_spm_stream;
/** space_first: put a space before the fragment, as sentencepiece does at the start. */
pi2_status pi2_spm_stream_begin(pi2_spm_stream *stream, bool space_first);
pi2_status pi2_spm_stream_add(pi2_spm_stream *stream, const char *text, size_t length);
pi2_status pi2_spm_stream_end(pi2_spm_stream *stream);

/* ---- pre-tokenizer ---------------------------------------------------------------------- */

/** What a pre-tokenizer's name says besides how it cuts. */
enum {
    PI2_PRE_IGNORES_MERGES = 1,   /* a word that is a token stays whole */
    PI2_PRE_ADDS_BOS = 2,         /* where the file does not say */
    PI2_PRE_ADDS_BOS_ALWAYS = 4,  /* whatever the file says: published ones say it wrong */
    PI2_PRE_COUNTS_SPACES = 8,    /* the pattern counts white space: a long run of it is no other one */
    PI2_PRE_CHARACTERS = 16,      /* tokens are text of characters, not of bytes; <0x0A> stands for a byte */
    PI2_PRE_MARKS_SPACES = 32,    /* tokens write a space as U+2581 */
    PI2_PRE_WHOLE_LINE_ENDS = 64, /* line ends that are a token stay whole */
    PI2_PRE_SPACE_FIRST = 128     /* every word but line ends begins with a space: where it has none, it gets one */
};

/** Errors  UNSUPPORTED: no pre-tokenizer has this name; MEMORY */
pi2_status pi2_pre_tokenizer_create(const char *name, size_t name_length,
                                    pi2_pre_tokenizer **pre_tokenizer_out);
void pi2_pre_tokenizer_free(pi2_pre_tokenizer *pre_tokenizer);
unsigned pi2_pre_tokenizer_flags(const pi2_pre_tokenizer *pre_tokenizer);
size_t pi2_pre_tokenizer_memory_bytes(const pi2_pre_tokenizer *pre_tokenizer);

/** Part of a word; ends: the last one, perhaps of no bytes. */
typedef pi2_status pi2_word_part_function(void *context, const char *bytes, size_t length,
                                          bool ends);
typedef struct pi2_word_cutter pi2_word_cutter;

/** most_bytes: of a word that is held. *cutter_out is to be freed on errors too. */
pi2_status pi2_word_cutter_create(const pi2_pre_tokenizer *pre_tokenizer, size_t most_bytes,
                                  pi2_word_part_function *function, void *context,
                                  pi2_word_cutter **cutter_out);
void pi2_word_cutter_free(pi2_word_cutter *cutter);
/** Whole characters of valid UTF-8. Words come out in order; no byte is left out.
 *  Errors  UNSUPPORTED: a word is longer than most_bytes; MEMORY; what the function returns */
pi2_status pi2_word_cutter_add(pi2_word_cutter *cutter, const char *text, size_t length);
/** The same for the last of the text; another text may follow. Without an add before it, this is
 *  one match after the other over the whole text. */
pi2_status pi2_word_cutter_end(pi2_word_cutter *cutter, const char *text, size_t length);

/** Copies of one character that the patterns do not see. */
typedef struct pi2_left_out {
    uint64_t place;  /* in the text that they see */
    uint64_t count;
    char character[4];
    uint32_t length;
} pi2_left_out;

/** Text of BPE, fragment by fragment (bpe_stream.c). tokenizer, words and most_bytes are set. */
typedef struct pi2_bpe_stream {
    const pi2_tokenizer *tokenizer;
    pi2_word_stream words;
    size_t most_bytes;
    pi2_word_cutter *cutter;
    char kept[4];               /* bytes that may be the start of a character */
    uint32_t kept_count;
    char run[4];                /* the last character, and how often it came in a row */
    uint32_t run_length;
    uint64_t run_count;
    char out[512];
    size_t out_count;
    uint64_t bytes_given, bytes_cut; /* to the pre-tokenizer, and back from it */
    pi2_left_out *left_out;     /* ascending */
    size_t left_out_count, left_out_capacity;
} pi2_bpe_stream;
pi2_status pi2_bpe_stream_open(pi2_bpe_stream *stream);
void pi2_bpe_stream_close(pi2_bpe_stream *stream);
pi2_status pi2_bpe_stream_add(pi2_bpe_stream *stream, const char *text, size_t length);
pi2_status pi2_bpe_stream_end(pi2_bpe_stream *stream);

/** pi2_encoder_create() with a window of another size, for tests. */
pi2_status pi2_encoder_create_with(const pi2_tokenizer *tokenizer, size_t window_bytes,
                                   pi2_token_function *function, void *context,
                                   pi2_encoder **encoder_out);

#endif
