/*
 * prompt_cache.h: beginnings of prompts that were computed once, kept in a folder and found again by their tokens.
 *
 *   pi2_prompt_cache *cache = NULL;
 *   if (pi2_prompt_cache_open(engine, "prompts", 4000000000, &cache) != PI2_OK) puts(pi2_error_text());
 *   pi2_session_use_prompt_cache(session, cache);
 *   const size_t kept = pi2_session_recall(session, prompt, prompt_count, NULL);
 *   pi2_session_append(session, prompt + kept, prompt_count - kept, PI2_LOGITS_LAST);
 *
 * The folder holds pages: session files (docs/session_file_format.md) of PI2_PROMPT_PAGE_TOKENS tokens each, or of
 * PI2_PROMPT_STATE_TOKENS where the model has recurrent states, which are the state at the page's end. A page is named
 * by all tokens up to its end, by the model and by its arithmetic, so that different prompts share what they have in
 * common. What is recalled has the bits that computing it would give.
 *
 * Several processes may use a folder at once, and each may be killed at any moment: a page appears whole or not at all.
 * Nothing that goes wrong with the folder after it was opened is an error of a session: it is told once, by the
 * engine's log, and the work goes on without. Every byte of a page is untrusted; one that is damaged is removed.
 */
#ifndef POWERINFER2_PROMPT_CACHE_H
#define POWERINFER2_PROMPT_CACHE_H

#include "powerinfer2/session.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PI2_PROMPT_PAGE_TOKENS = 256, PI2_PROMPT_STATE_TOKENS = 512 };

typedef struct pi2_prompt_cache pi2_prompt_cache;

/**
 * Opens a folder for an engine, which must have been opened with identifies_weights and outlives it; makes it where it
 * is not there, for its owner alone. Where pages have more than most_bytes together, those go that were not used for
 * the longest time.
 * Errors  INVALID (no folder lies at `folder`; less room than a page takes; an engine that leaves neurons out, whose
 *         states hang on more than the tokens; no identifies_weights), IO (path, reason), MEMORY
 */
PI2_API pi2_status pi2_prompt_cache_open(pi2_engine *engine, const char *folder, uint64_t most_bytes,
                                         pi2_prompt_cache **cache_out);
/** No session uses it any more. NULL is fine. */
PI2_API void pi2_prompt_cache_close(pi2_prompt_cache *cache);

/** Since it was opened; of all sessions that use it. */
typedef struct pi2_prompt_cache_counters {
    uint64_t tokens_recalled, pages_read, pages_written, pages_removed, bytes_read, bytes_written;
} pi2_prompt_cache_counters;
PI2_API void pi2_prompt_cache_count(pi2_prompt_cache *cache, pi2_prompt_cache_counters *counters_out);

/** Sessions of the engine that are made from now on use the cache; NULL: none. Nobody makes a session meanwhile. */
PI2_API void pi2_engine_use_prompt_cache(pi2_engine *engine, pi2_prompt_cache *cache);
/**
 * From now on each page of the session's timeline is kept when it is whole, as tokens are appended, and
 * pi2_session_recall() looks for pages. NULL: no more. Forks use the same cache.
 */
PI2_API void pi2_session_use_prompt_cache(pi2_session *session, pi2_prompt_cache *cache);

/**
 * Makes the session's timeline a beginning of `tokens`, as long a one as can be had without computing: what it holds
 * already, or what its prompt cache has; at most token_count - 1 tokens, because the last one's logits are wanted.
 * Returns how many they are: the caller appends the rest. Without a prompt cache it is what the timeline and the tokens
 * have in common. recalled_out: of these, tokens that came from the cache; NULL: not wanted.
 */
PI2_API size_t pi2_session_recall(pi2_session *session, const int32_t *tokens, size_t token_count,
                                  size_t *recalled_out);

#ifdef __cplusplus
}
#endif
#endif
