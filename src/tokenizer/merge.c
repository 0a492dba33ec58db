/*
 * merge.c: joins neighbouring symbols of a word, the best pair first, with a heap.
 *
 * A heap entry is (pair key, left symbol) in 64 bits. It is not removed when its pair changes:
 * an entry counts only while the left symbol's present pair has the same key, and equal keys
 * at the same place would be merged next anyway.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "tokenizer/tokenizer_internal.h"

void pi2_merge_scratch_free(pi2_merge_scratch *scratch) {
    free(scratch->symbols);
    free(scratch->queue);
    *scratch = (pi2_merge_scratch){ 0 };
}

static size_t grown(size_t capacity, size_t wanted) {
    const size_t doubled = capacity < 64 ? 128 : capacity * 2;
    return doubled > wanted ? doubled : wanted;
}

pi2_status pi2_merge_reserve(pi2_merge_scratch *scratch, size_t symbol_count) {
    if (symbol_count <= scratch->symbol_capacity) return PI2_OK;
    const size_t capacity = grown(scratch->symbol_capacity, symbol_count);
    pi2_symbol *symbols = realloc(scratch->symbols, capacity * sizeof *symbols);
    if (!symbols) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory to tokenize a word of %zu characters",
                        symbol_count);
    }
    scratch->symbols = symbols;
    scratch->symbol_capacity = capacity;
    return PI2_OK;
}

static pi2_status queue_push(pi2_merge_scratch *scratch, uint64_t entry) {
    if (scratch->queue_count == scratch->queue_capacity) {
        const size_t capacity = grown(scratch->queue_capacity, scratch->queue_count + 1);
        uint64_t *queue = realloc(scratch->queue, capacity * sizeof *queue);
        if (!queue) return pi2_fail(PI2_ERR_MEMORY, "no memory to tokenize a long word");
        scratch->queue = queue;
        scratch->queue_capacity = capacity;
    }
    uint64_t *queue = scratch->queue;
    size_t hole = scratch->queue_count++;
    while (hole > 0 && queue[(hole - 1) / 2] > entry) {
        queue[hole] = queue[(hole - 1) / 2];
        hole = (hole - 1) / 2;
    }
    queue[hole] = entry;
    return PI2_OK;
}

static uint64_t queue_pop(pi2_merge_scratch *scratch) {
    uint64_t *queue = scratch->queue;
    const uint64_t smallest = queue[0];
    const size_t count = --scratch->queue_count;
    const uint64_t last = queue[count];
    size_t hole = 0;
    for (size_t child = 1; child < count; child = 2 * hole + 1) {
        if (child + 1 < count && queue[child + 1] < queue[child]) child++;
        if (queue[child] >= last) break;
        queue[hole] = queue[child];
        hole = child;
    }
    queue[hole] = last;
    return smallest;
}

/** Scores in falling order as integers in rising order. No score is NaN (checked at loading). */
static uint32_t score_key(float score) {
    uint32_t bits;
    score += 0.0f; /* -0 and 0 are equal */
    memcpy(&bits, &score, sizeof bits);
    return bits >> 31 ? bits : ~(bits | UINT32_C(0x80000000));
}

typedef struct merge_word {
    const pi2_tokenizer *tokenizer;
    pi2_merge_scratch *scratch;
    const char *text;
    size_t length;
} merge_word;

/** Sets the pair of (left, its next) and queues it if the two may merge. */
static pi2_status refresh_pair(const merge_word *word, uint32_t left) {
    pi2_symbol *symbols = word->scratch->symbols;
    pi2_symbol *symbol = &symbols[left];
    symbol->pair_key = PI2_NO_PAIR;
    if (symbol->next == PI2_SYMBOL_NONE) return PI2_OK;
    const pi2_symbol *right = &symbols[symbol->next];
    if (word->tokenizer->kind == PI2_VOCABULARY_BPE) {
        if (!pi2_bpe_find_merge(word->tokenizer, symbol->token, right->token, &symbol->pair_key,
                                &symbol->pair_token)) {
            return PI2_OK;
        }
    } else {
        const size_t end =
            right->next == PI2_SYMBOL_NONE ? word->length : symbols[right->next].start;
        symbol->pair_token = pi2_text_token_find(word->tokenizer, word->text + symbol->start,
                                            end - symbol->start);
        if (symbol->pair_token < 0) return PI2_OK;
        symbol->pair_key = score_key(word->tokenizer->scores[symbol->pair_token]);
    }
    return queue_push(word->scratch, (uint64_t)symbol->pair_key << 32 | left);
}

pi2_status pi2_merge_word(const pi2_tokenizer *tokenizer, pi2_merge_scratch *scratch,
                          const char *text, size_t length, size_t symbol_count) {
    const merge_word word = { tokenizer, scratch, text, length };
    scratch->queue_count = 0;
    for (size_t i = 0; i < symbol_count; i++) PI2_TRY(refresh_pair(&word, (uint32_t)i));
    while (scratch->queue_count > 0) {
        const uint64_t entry = queue_pop(scratch);
        const uint32_t left = (uint32_t)entry;
        pi2_symbol *symbol = &scratch->symbols[left];
        if (symbol->token == PI2_SYMBOL_DEAD || symbol->pair_key != entry >> 32) continue;
        pi2_symbol *right = &scratch->symbols[symbol->next];
        symbol->token = symbol->pair_token;
        symbol->next = right->next;
        right->token = PI2_SYMBOL_DEAD;
        if (symbol->next != PI2_SYMBOL_NONE) scratch->symbols[symbol->next].previous = left;
        PI2_TRY(refresh_pair(&word, left));
        if (symbol->previous != PI2_SYMBOL_NONE) PI2_TRY(refresh_pair(&word, symbol->previous));
    }
    return PI2_OK;
}
