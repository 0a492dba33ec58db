/*
 * bpe.c: byte-pair encoding (tokenizer.ggml.model "gpt2", "gemma4").
 *
 * GGUF writes a byte-level token with one printable character a byte. We decode that once, at
 * loading: here tokens are bytes, and a merge is a pair of token ids. A few vocabularies
 * (PI2_PRE_CHARACTERS) write plain text, with U+2581 for a space.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "tokenizer/tokenizer_internal.h"

static uint32_t merge_left(uint64_t merge) { return (uint32_t)(merge >> 2 * PI2_BPE_ID_BITS); }
static uint32_t merge_right(uint64_t merge) {
    return (uint32_t)(merge >> PI2_BPE_ID_BITS) & (PI2_BPE_ID_LIMIT - 1);
}
static uint32_t merge_result(uint64_t merge) { return (uint32_t)merge & (PI2_BPE_ID_LIMIT - 1); }

static uint64_t pair_hash(uint32_t left, uint32_t right) {
    uint64_t hash = ((uint64_t)left << 32 | right) * UINT64_C(0x9e3779b97f4a7c15);
    hash ^= hash >> 32;
    return hash * UINT64_C(0xd6e8feb86659fd93);
}

bool pi2_bpe_find_merge(const pi2_tokenizer *tokenizer, int32_t left, int32_t right,
                        uint32_t *rank_out, int32_t *result_out) {
    const pi2_id_table *table = &tokenizer->merge_table;
    if (left < 0 || right < 0 || table->capacity == 0) return false;
    const uint64_t wanted = (uint64_t)left << PI2_BPE_ID_BITS | (uint64_t)right;
    uint32_t slot = pi2_id_table_slot(table, pair_hash((uint32_t)left, (uint32_t)right));
    while (table->slots[slot] != PI2_TABLE_EMPTY) {
        const uint32_t rank = table->slots[slot];
        const uint64_t merge = tokenizer->merges[rank];
        if (merge >> PI2_BPE_ID_BITS == wanted) {
            *rank_out = rank;
            *result_out = (int32_t)merge_result(merge);
            return true;
        }
        if (++slot == table->capacity) slot = 0;
    }
    return false;
}

/** Enters a merge; an earlier one of the same pair stands. */
static void enter_merge(pi2_tokenizer *tokenizer, uint32_t rank) {
    const uint64_t merge = tokenizer->merges[rank];
    uint32_t earlier;
    int32_t result;
    if (pi2_bpe_find_merge(tokenizer, (int32_t)merge_left(merge), (int32_t)merge_right(merge),
                           &earlier, &result)) {
        return;
    }
    const pi2_id_table *table = &tokenizer->merge_table;
    uint32_t slot = pi2_id_table_slot(table, pair_hash(merge_left(merge), merge_right(merge)));
    while (table->slots[slot] != PI2_TABLE_EMPTY) {
        if (++slot == table->capacity) slot = 0;
    }
    table->slots[slot] = rank;
}

/* ---- reading the merges ------------------------------------------------------------------ */

static pi2_status fail_merge(uint64_t index, pi2_gguf_string merge, const char *what) {
    char printable[64];
    return pi2_fail(PI2_ERR_FORMAT, "tokenizer.ggml.merges[%llu] '%s' %s: convert the model again",
                    (unsigned long long)index,
                    pi2_tokenizer_printable(printable, sizeof printable, merge.text, merge.length),
                    what);
}

/** Looks up the three tokens of one merge. */
static pi2_status parse_merge(const pi2_tokenizer *tokenizer, uint64_t index,
                              pi2_gguf_string merge, char *text, uint64_t *merge_out) {
    const char *space =
        merge.length > 1 ? memchr(merge.text + 1, ' ', merge.length - 1) : NULL;
    if (!space) return fail_merge(index, merge, "has no space between its two tokens");
    const size_t left_raw = (size_t)(space - merge.text);
    const size_t right_raw = merge.length - left_raw - 1;
    const size_t left_length = pi2_token_text_decode(tokenizer, merge.text, left_raw, text);
    if (left_length == SIZE_MAX) return fail_merge(index, merge, "is not byte-level text");
    const size_t right_length = pi2_token_text_decode(tokenizer, space + 1, right_raw, text + left_length);
    if (right_length == SIZE_MAX) return fail_merge(index, merge, "is not byte-level text");
    const int32_t left = pi2_token_find(tokenizer, text, left_length);
    const int32_t right = pi2_token_find(tokenizer, text + left_length, right_length);
    const int32_t result = pi2_token_find(tokenizer, text, left_length + right_length);
    if (left < 0 || right < 0 || result < 0) {
        return fail_merge(index, merge, "names text that no token has");
    }
    *merge_out = (uint64_t)left << 2 * PI2_BPE_ID_BITS | (uint64_t)right << PI2_BPE_ID_BITS |
                 (uint64_t)result;
    return PI2_OK;
}

static pi2_status parse_merges(pi2_tokenizer *tokenizer, const pi2_gguf_array *array,
                               char *text, size_t text_bytes) {
    size_t cursor = 0;
    pi2_gguf_string merge;
    uint32_t rank = 0;
    while (pi2_gguf_array_next_string(array, &cursor, &merge)) {
        if (merge.length > text_bytes || rank == tokenizer->merge_count) {
            return fail_merge(rank, merge, "is longer than any token can be");
        }
        PI2_TRY(parse_merge(tokenizer, rank, merge, text, &tokenizer->merges[rank]));
        rank++;
    }
    if (rank != tokenizer->merge_count) {
        return pi2_fail(PI2_ERR_FORMAT, "tokenizer.ggml.merges ends after %u of %u merges",
                        rank, tokenizer->merge_count);
    }
    for (uint32_t i = 0; i < rank; i++) {
        /* A merge into a special token never happens: only trusted text may produce one. */
        const uint8_t attributes = tokenizer->attributes[merge_result(tokenizer->merges[i])];
        if (!(attributes & PI2_TOKEN_TRUSTED_ONLY)) enter_merge(tokenizer, i);
    }
    return PI2_OK;
}

pi2_status pi2_bpe_merges_load(pi2_tokenizer *tokenizer, const pi2_gguf *gguf) {
    static const char key[] = "tokenizer.ggml.merges";
    pi2_gguf_array array;
    PI2_TRY(pi2_gguf_array_get(gguf, key, &array));
    if (array.element_type != 8) {
        return pi2_fail(PI2_ERR_FORMAT, "%s is an array of type %u, not of strings: convert the "
                        "model again", key, array.element_type);
    }
    if (array.count >= UINT32_MAX / 2) {
        return pi2_fail(PI2_ERR_FORMAT, "%s has %llu entries, too many", key,
                        (unsigned long long)array.count);
    }
    /* A byte is at most three bytes of merge text (U+2581), and a space stands between the halves. */
    const size_t text_bytes = 3 * (size_t)tokenizer->longest_piece + 1;
    tokenizer->merge_count = (uint32_t)array.count;
    PI2_TRY(pi2_id_table_create(&tokenizer->merge_table, tokenizer->merge_count));
    tokenizer->merges =
        malloc((tokenizer->merge_count ? tokenizer->merge_count : 1) * sizeof(uint64_t));
    char *text = malloc(text_bytes);
    pi2_status status = PI2_OK;
    if (!tokenizer->merges || !text) {
        status = pi2_fail(PI2_ERR_MEMORY, "no memory for %u merges", tokenizer->merge_count);
    } else {
        status = parse_merges(tokenizer, &array, text, text_bytes);
    }
    free(text);
    return status;
}
