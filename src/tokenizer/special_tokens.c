/*
 * special_tokens.c: which tokens are special, which end an answer, and how they match.
 *
 * GGUF files often lack part of this, so it is completed from well-known texts, by the rules
 * that people's models are used with today (llama.cpp's), with one difference: a token that
 * those rules show as text but that the file calls a control token still comes from trusted
 * text only.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "tokenizer/tokenizer_internal.h"

enum known_role { ROLE_CONTROL = 1, ROLE_ENDS = 2, ROLE_SHOWN = 4 };

/* A token with such a text is a control token whatever its type says. ROLE_ENDS: it ends an
 * answer. ROLE_SHOWN: its text is part of the answer (the channels of gpt-oss). */
static const struct known_text {
    const char *text;
    unsigned role;
} known_texts[] = {
    { "<|eot_id|>", ROLE_ENDS },
    { "<|im_end|>", ROLE_ENDS },
    { "<|end|>", ROLE_ENDS },
    { "<|return|>", ROLE_ENDS },
    { "<|call|>", ROLE_ENDS },
    { "<|flush|>", ROLE_ENDS },
    { "<|calls|>", ROLE_ENDS },
    { "<end_of_turn>", ROLE_ENDS },
    { "<|endoftext|>", ROLE_ENDS },
    { "</s>", ROLE_ENDS },
    { "<|eom_id|>", ROLE_ENDS },
    { "<EOT>", ROLE_ENDS },
    { "_<EOT>", ROLE_ENDS },
    { "[EOT]", ROLE_ENDS },
    { "[EOS]", ROLE_ENDS },
    { "<|end_of_text|>", ROLE_ENDS },
    { "<end_of_utterance>", ROLE_ENDS },
    { "<eos>", ROLE_ENDS },
    { "<turn|>", ROLE_ENDS },
    { "<|tool_response>", ROLE_ENDS },
    { "[e~[", ROLE_ENDS },
    { "<|ifm|im_end|>", ROLE_ENDS },
    { "<\xef\xbd\x9c" "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>", ROLE_ENDS },
    /* fill-in-the-middle: padding, repository and file separators end, the parts do not */
    { "<|fim_pad|>", ROLE_ENDS },
    { "<fim-pad>", ROLE_ENDS },
    { "<fim_pad>", ROLE_ENDS },
    { "<PAD>", ROLE_ENDS },
    { "[PAD]", ROLE_ENDS },
    { "<|fim_repo|>", ROLE_ENDS },
    { "<|repo_name|>", ROLE_ENDS },
    { "<fim-repo>", ROLE_ENDS },
    { "<REPO>", ROLE_ENDS },
    { "<reponame>", ROLE_ENDS },
    { "<|file_sep|>", ROLE_ENDS },
    { "<|fim_prefix|>", ROLE_CONTROL },
    { "<fim-prefix>", ROLE_CONTROL },
    { "<fim_prefix>", ROLE_CONTROL },
    { "<\xef\xbd\x9c" "fim\xe2\x96\x81" "begin\xef\xbd\x9c>", ROLE_CONTROL },
    { "<PRE>", ROLE_CONTROL },
    { "<|code_prefix|>", ROLE_CONTROL },
    { "<|prefix|>", ROLE_CONTROL },
    { "<|fim_suffix|>", ROLE_CONTROL },
    { "<fim-suffix>", ROLE_CONTROL },
    { "<fim_suffix>", ROLE_CONTROL },
    { "<\xef\xbd\x9c" "fim\xe2\x96\x81hole\xef\xbd\x9c>", ROLE_CONTROL },
    { "<SUF>", ROLE_CONTROL },
    { "<|code_suffix|>", ROLE_CONTROL },
    { "<|suffix|>", ROLE_CONTROL },
    { "<|fim_middle|>", ROLE_CONTROL },
    { "<fim-middle>", ROLE_CONTROL },
    { "<fim_middle>", ROLE_CONTROL },
    { "<\xef\xbd\x9c" "fim\xe2\x96\x81" "end\xef\xbd\x9c>", ROLE_CONTROL },
    { "<MID>", ROLE_CONTROL },
    { "<|code_middle|>", ROLE_CONTROL },
    { "<|middle|>", ROLE_CONTROL },
    { "<|channel|>", ROLE_SHOWN },
    { "<|message|>", ROLE_SHOWN },
    { "<|start|>", ROLE_SHOWN },
    { "<|constrain|>", ROLE_SHOWN },
};

static bool has_text(const pi2_tokenizer *tokenizer, uint32_t token, const char *text) {
    const size_t length = pi2_token_length(tokenizer, token);
    return length == strlen(text) && memcmp(pi2_token_text(tokenizer, token), text, length) == 0;
}

static void set_type(pi2_tokenizer *tokenizer, uint32_t token, uint32_t type) {
    uint8_t *attributes = &tokenizer->attributes[token];
    *attributes = (uint8_t)((*attributes & ~(unsigned)PI2_TOKEN_TYPE_MASK) | type);
    if (type == PI2_TOKEN_CONTROL) *attributes |= PI2_TOKEN_TRUSTED_ONLY;
}

static void mark_known_text(pi2_tokenizer *tokenizer, uint32_t token) {
    const uint32_t length = pi2_token_length(tokenizer, token);
    if (length < 4 || length > 32 || !strchr("<[_", pi2_token_text(tokenizer, token)[0])) return;
    for (size_t i = 0; i < sizeof known_texts / sizeof known_texts[0]; i++) {
        if (!has_text(tokenizer, token, known_texts[i].text)) continue;
        set_type(tokenizer, token, PI2_TOKEN_CONTROL);
        if (known_texts[i].role == ROLE_ENDS) tokenizer->attributes[token] |= PI2_TOKEN_ENDS;
        if (known_texts[i].role == ROLE_SHOWN) {
            set_type(tokenizer, token, PI2_TOKEN_USER_DEFINED);
        }
    }
}

static void mark_types(pi2_tokenizer *tokenizer) {
    for (uint32_t token = 0; token < tokenizer->token_count; token++) {
        const uint32_t type = pi2_token_type(tokenizer, token);
        if (type == PI2_TOKEN_CONTROL || type == PI2_TOKEN_UNKNOWN) {
            tokenizer->attributes[token] |= PI2_TOKEN_TRUSTED_ONLY;
        }
        mark_known_text(tokenizer, token);
    }
}

/** The token that ends an answer and has this text, or -1. */
static int32_t find_ending(const pi2_tokenizer *tokenizer, const char *text) {
    for (uint32_t token = 0; token < tokenizer->token_count; token++) {
        if (tokenizer->attributes[token] & PI2_TOKEN_ENDS && has_text(tokenizer, token, text)) {
            return (int32_t)token;
        }
    }
    return -1;
}

/** Takes back what two families of models do not mean by the well-known texts. */
static void correct_endings(pi2_tokenizer *tokenizer) {
    const int32_t end = find_ending(tokenizer, "<|end|>");
    const bool calls = find_ending(tokenizer, "<|call|>") >= 0 ||
                       find_ending(tokenizer, "<|calls|>") >= 0;
    const bool returns = find_ending(tokenizer, "<|return|>") >= 0 ||
                         find_ending(tokenizer, "<|flush|>") >= 0;
    if (end >= 0 && calls && returns) { /* it ends a message, not the answer */
        set_type(tokenizer, (uint32_t)end, PI2_TOKEN_USER_DEFINED);
        tokenizer->attributes[end] &= (uint8_t)~PI2_TOKEN_ENDS;
    }
    const int32_t strike = find_ending(tokenizer, "</s>");
    if (strike >= 0 && find_ending(tokenizer, "<|tool_response>") >= 0) { /* HTML, there */
        tokenizer->attributes[strike] =
            (tokenizer->attributes[strike] & PI2_TOKEN_NOT_IN_TABLE) | PI2_TOKEN_NORMAL;
    }
}

/** Gives the attribute to the tokens that the key lists, where the file has it. */
static pi2_status mark_listed(pi2_tokenizer *tokenizer, const pi2_gguf *gguf, const char *key, unsigned attribute,
                              uint32_t *marked_out) {
    pi2_gguf_array array;
    *marked_out = 0;
    if (!pi2_gguf_has(gguf, key)) return PI2_OK;
    PI2_TRY(pi2_gguf_array_get(gguf, key, &array));
    if (array.element_type == PI2_GGUF_STRING || array.element_type == PI2_GGUF_ARRAY) {
        return pi2_fail(PI2_ERR_FORMAT, "%s is an array of type %u, not of numbers of tokens: convert the model again",
                        key, array.element_type);
    }
    for (uint64_t i = 0; i < array.count; i++) {
        const uint64_t token = pi2_gguf_array_u64(&array, i);
        if (token >= tokenizer->token_count) {
            return pi2_fail(PI2_ERR_FORMAT, "%s has %llu, but there are %u tokens: convert the model again", key,
                            (unsigned long long)token, tokenizer->token_count);
        }
        *marked_out += !(tokenizer->attributes[token] & attribute);
        tokenizer->attributes[token] |= (uint8_t)attribute;
    }
    return PI2_OK;
}

/** Reads the id of a special token; *token_out keeps its value where the key is absent. The largest number is -1. */
static pi2_status get_id(const pi2_tokenizer *tokenizer, const pi2_gguf *gguf, const char *key,
                         int32_t *token_out) {
    if (!pi2_gguf_has(gguf, key)) return PI2_OK;
    uint32_t token;
    PI2_TRY(pi2_gguf_u32(gguf, key, &token));
    if (token == UINT32_MAX) {
        *token_out = -1;
        return PI2_OK;
    }
    if (token >= tokenizer->token_count) {
        return pi2_fail(PI2_ERR_FORMAT, "%s is %u, but there are %u tokens: convert the model "
                        "again", key, token, tokenizer->token_count);
    }
    *token_out = (int32_t)token;
    return PI2_OK;
}

/** The token that a file without the key means: the places where sentencepiece puts them, and
 *  Falcon's 11, for which the converter once wrote no key. */
static int32_t default_token(const pi2_tokenizer *tokenizer, uint32_t spm_token) {
    const uint32_t token = tokenizer->kind == PI2_VOCABULARY_SPM ? spm_token : 11;
    if (tokenizer->kind == PI2_VOCABULARY_BPE && tokenizer->is_of_characters) return -1;
    if (token >= tokenizer->token_count) return -1;
    return tokenizer->attributes[token] & PI2_TOKEN_TRUSTED_ONLY ? (int32_t)token : -1;
}

static pi2_status load_ids(pi2_tokenizer *tokenizer, const pi2_gguf *gguf) {
    static const char *const ending_keys[] = {
        "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id",
        "tokenizer.ggml.fim_pad_token_id", "tokenizer.ggml.fim_rep_token_id",
        "tokenizer.ggml.fim_sep_token_id",
    };
    tokenizer->bos = default_token(tokenizer, 1);
    tokenizer->eos = default_token(tokenizer, 2);
    tokenizer->unknown =
        tokenizer->kind == PI2_VOCABULARY_SPM ? default_token(tokenizer, 0) : -1;
    PI2_TRY(get_id(tokenizer, gguf, "tokenizer.ggml.bos_token_id", &tokenizer->bos));
    PI2_TRY(get_id(tokenizer, gguf, "tokenizer.ggml.eos_token_id", &tokenizer->eos));
    PI2_TRY(get_id(tokenizer, gguf, "tokenizer.ggml.unknown_token_id", &tokenizer->unknown));
    tokenizer->named_unknown = tokenizer->unknown;
    tokenizer->named_padding = -1;
    PI2_TRY(get_id(tokenizer, gguf, "tokenizer.ggml.padding_token_id", &tokenizer->named_padding));
    for (size_t i = 0; i < sizeof ending_keys / sizeof ending_keys[0]; i++) {
        int32_t token = -1;
        PI2_TRY(get_id(tokenizer, gguf, ending_keys[i], &token));
        if (token >= 0) tokenizer->attributes[token] |= PI2_TOKEN_ENDS;
    }
    if (tokenizer->eos >= 0) tokenizer->attributes[tokenizer->eos] |= PI2_TOKEN_ENDS;
    uint32_t marked; /* Ollama's files list all that end an answer */
    PI2_TRY(mark_listed(tokenizer, gguf, "tokenizer.ggml.eos_token_ids", PI2_TOKEN_ENDS, &marked));
    /* Any text may give the unknown token, so it must not steer the model. */
    if (tokenizer->unknown >= 0 &&
        (pi2_token_type(tokenizer, (uint32_t)tokenizer->unknown) == PI2_TOKEN_CONTROL ||
         tokenizer->attributes[tokenizer->unknown] & PI2_TOKEN_ENDS)) {
        tokenizer->unknown = -1;
    }
    return PI2_OK;
}

/** Phi-3's special tokens swallow the white space after them; GGUF does not say so, the model's
 *  name does. */
static pi2_status mark_stripping(pi2_tokenizer *tokenizer, const pi2_gguf *gguf) {
    if (!pi2_gguf_has(gguf, "general.name")) return PI2_OK;
    pi2_gguf_string name;
    PI2_TRY(pi2_gguf_string_get(gguf, "general.name", &name));
    bool is_phi3 = false;
    for (size_t i = 0; i + 4 <= name.length && !is_phi3; i++) {
        char lower[5];
        for (size_t j = 0; j < 5; j++) {
            const char c = i + j < name.length ? name.text[i + j] : '\0';
            lower[j] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
        }
        is_phi3 = memcmp(lower, "phi3", 4) == 0 || memcmp(lower, "phi-3", 5) == 0;
    }
    for (uint32_t i = 0; is_phi3 && i < tokenizer->special_count; i++) {
        const uint32_t token = tokenizer->special_tokens[i];
        if (has_text(tokenizer, token, "<unk>") || has_text(tokenizer, token, "<s>") ||
            has_text(tokenizer, token, "<|endoftext|>")) {
            continue;
        }
        tokenizer->attributes[token] |= PI2_TOKEN_STRIPS_RIGHT;
    }
    return PI2_OK;
}

/* Models that read more than text have tokens for what they read, which no answer may have. */
static pi2_status mark_suppressed(pi2_tokenizer *tokenizer, const pi2_gguf *gguf) {
    static const char key[] = "tokenizer.ggml.suppress_tokens";
    uint32_t marked;
    PI2_TRY(mark_listed(tokenizer, gguf, key, PI2_TOKEN_NEVER_PICKED, &marked));
    if (marked < tokenizer->token_count) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s has all %u tokens: convert the model again", key, tokenizer->token_count);
}

/* ---- the list that the splitter walks ---------------------------------------------------- */

/** Longest first, then by text, then by id. */
static bool comes_before(const pi2_tokenizer *tokenizer, uint32_t a, uint32_t b) {
    const uint32_t a_length = pi2_token_length(tokenizer, a);
    const uint32_t b_length = pi2_token_length(tokenizer, b);
    if (a_length != b_length) return a_length > b_length;
    const int order =
        memcmp(pi2_token_text(tokenizer, a), pi2_token_text(tokenizer, b), a_length);
    return order != 0 ? order < 0 : a < b;
}

/** Moves the token at `root` down until no child comes after it. */
static void sift_down(const pi2_tokenizer *tokenizer, uint32_t *tokens, uint32_t root,
                      uint32_t count) {
    const uint32_t token = tokens[root];
    for (uint64_t child = 2 * (uint64_t)root + 1; child < count; child = 2 * child + 1) {
        if (child + 1 < count && comes_before(tokenizer, tokens[child], tokens[child + 1])) {
            child++;
        }
        if (!comes_before(tokenizer, token, tokens[child])) break;
        tokens[root] = tokens[child];
        root = (uint32_t)child;
    }
    tokens[root] = token;
}

/** Heap sort: qsort() cannot be told which tokenizer the ids belong to. */
static void sort_tokens(const pi2_tokenizer *tokenizer, uint32_t *tokens, uint32_t count) {
    for (uint32_t i = count / 2; i-- > 0;) sift_down(tokenizer, tokens, i, count);
    for (uint32_t end = count; end-- > 1;) {
        const uint32_t last = tokens[0];
        tokens[0] = tokens[end];
        tokens[end] = last;
        sift_down(tokenizer, tokens, 0, end);
    }
}

static bool is_split_off(const pi2_tokenizer *tokenizer, uint32_t token) {
    const uint32_t type = pi2_token_type(tokenizer, token);
    return pi2_token_length(tokenizer, token) > 0 &&
           (type == PI2_TOKEN_CONTROL || type == PI2_TOKEN_UNKNOWN ||
            type == PI2_TOKEN_USER_DEFINED);
}

static pi2_status list_special_tokens(pi2_tokenizer *tokenizer) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < tokenizer->token_count; i++) count += is_split_off(tokenizer, i);
    tokenizer->special_tokens = malloc((count ? count : 1) * sizeof(uint32_t));
    if (!tokenizer->special_tokens) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for %u special tokens", count);
    }
    for (uint32_t i = 0; i < tokenizer->token_count; i++) {
        if (is_split_off(tokenizer, i)) {
            tokenizer->special_tokens[tokenizer->special_count++] = i;
        }
    }
    sort_tokens(tokenizer, tokenizer->special_tokens, tokenizer->special_count);
    return PI2_OK;
}

pi2_status pi2_special_tokens_load(pi2_tokenizer *tokenizer, const pi2_gguf *gguf) {
    mark_types(tokenizer);
    correct_endings(tokenizer);
    PI2_TRY(load_ids(tokenizer, gguf));
    PI2_TRY(mark_suppressed(tokenizer, gguf));
    PI2_TRY(list_special_tokens(tokenizer));
    return mark_stripping(tokenizer, gguf);
}
