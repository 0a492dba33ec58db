/* stop_words.c: where a text ends that stop words end. */
#include <string.h>

#include "powerinfer2/generate.h"

/* The length of the longest stop word that ends at text[end]; 0: none. */
static size_t stop_that_ends(const char *text, size_t end, const char *const *words, size_t count, size_t *index_out) {
    size_t longest = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t length = strlen(words[i]);
        if (length <= longest || length > end) continue;
        if (memcmp(text + end - length, words[i], length) != 0) continue;
        longest = length;
        *index_out = i;
    }
    return longest;
}

/* Whether the text's last `length` bytes begin a stop word that is longer. */
static bool may_become_stop(const char *tail, size_t length, const char *const *words, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (strlen(words[i]) > length && memcmp(tail, words[i], length) == 0) return true;
    }
    return false;
}

/* No stop word begins before text: what could have begun one was not certain. */
pi2_text_end pi2_text_find_end(const char *text, size_t length, size_t seen, const char *const *stop_words,
                               size_t stop_word_count) {
    pi2_text_end found = { 0 };
    for (size_t end = seen + 1; end <= length; end++) {
        const size_t stop = stop_that_ends(text, end, stop_words, stop_word_count, &found.stop_word);
        if (stop == 0) continue;
        found.certain = end - stop;
        found.is_stopped = true;
        return found;
    }
    while (found.certain < length &&
           !may_become_stop(text + found.certain, length - found.certain, stop_words, stop_word_count)) {
        found.certain++;
    }
    return found;
}
