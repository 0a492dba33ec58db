/*
 * session.h: one timeline of tokens over an engine: key-value cache, position, sampler.
 *
 * An engine has room for pi2_engine_options.sequences of them. Each one's logits, and so its text, are the bits that
 * it has alone, however calls for several sessions alternate and whichever tokens share a pass. One thread at a time
 * uses a session; threads that use sessions of one engine compute one after another. The engine's callbacks must not
 * call functions of sessions.
 *
 * What an event does to each piece of a session's state ("-": nothing):
 *
 *   event                    timeline   logits    guesses   sampler: window; numbers       character begun
 *   set_sampling             -          -         -         empty; from the seed           -
 *   begin_answer             -          -         -         the prompt; from the seed      forgotten
 *   append                   longer     its own   used up   -                              -
 *   append, refused          -          -         -         -                              -
 *   append, cancelled or     longer by  none      dropped   -                              -
 *     failed                 whole batches
 *   truncate                 cut        none      dropped   -                              -
 *   truncate, refused        -          -         -         -                              -
 *   sample                   -          -         -         the token added; one drawn     -
 *   sample, failed           -          -         -         -                              -
 *   token_text               -          -         -         -                              completed, or begun
 *   token_text, refused      -          -         -         -                              -
 *   text_finish              -          -         -         -                              given out as U+FFFD
 *   save                     -          -         -         -                              -
 *   load                     the file's the file's dropped  -                              forgotten
 *   load, refused            -          -         -         -                              -
 *   load, failed             empty      none      dropped   -                              forgotten
 *   another session computes -          the last  dropped   -                              -
 *                                       one's
 *
 * A grammar's text begins with set_sampling and begin_answer, and goes on with what sample picks. A saved session is in
 * none.
 *
 * "Refused" are calls with an argument that cannot be (errors INVALID and CONTEXT) and files whose header tells that
 * they are not for this session; "failed" are all other errors. So an answer depends on the timeline, the prompt that
 * begin_answer() got, the sampling and the seed, and on nothing that an earlier answer left. What an engine and a
 * session learn meanwhile (which guesses hold, whether looking ahead pays, which experts are kept) outlives turns: it
 * changes how fast a token comes, never which. Counters only grow. docs/chat.md tells what a chat makes of these
 * events.
 */
#ifndef POWERINFER2_SESSION_H
#define POWERINFER2_SESSION_H

#include "powerinfer2/engine.h"
#include "powerinfer2/grammar.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pi2_session pi2_session;

/** Added to a token's logit before anything else looks at it; minus infinity: it is never picked. */
typedef struct pi2_logit_bias {
    int32_t token; /* one that the vocabulary does not have: nothing */
    float bias;
} pi2_logit_bias;
enum { PI2_LOGIT_BIASES_MOST = 1024 };

/** Sampling; defaults, meaning and order as llama.cpp's. temperature <= 0 is greedy. */
typedef struct pi2_sampling {
    float temperature;       /* 0.8 */
    int32_t top_k;           /* 40; 0: all */
    float top_p;             /* 0.95; 1: off */
    float min_p;             /* 0.05; 0: off */
    float typical_p;         /* 1: off; locally typical sampling */
    float top_n_sigma;       /* -1; 0 and below: off */
    float xtc_probability;   /* 0: off; how often the top choices are excluded */
    float xtc_threshold;     /* 0.1; the chance of a top choice; above 0.5: off */
    float dynamic_range;     /* 0: off; the temperature goes so far up and down with the entropy */
    float dynamic_exponent;  /* 1; of the entropy's share */
    float repeat_penalty;    /* 1.0: off */
    int32_t repeat_last_n;   /* 64; 0: off; -1: the context */
    float presence_penalty;  /* 0 */
    float frequency_penalty; /* 0 */
    uint32_t logit_bias_count; /* 0; at most PI2_LOGIT_BIASES_MOST */
    const pi2_logit_bias *logit_biases; /* [logit_bias_count], copied; of a token that is there again the sum */
    uint32_t seed;           /* UINT32_MAX: another one for each answer; pi2_session_seed() tells it */
    bool forbid_end_tokens;  /* false; true: tokens that end an answer are never picked. Those never are that answers
                                do not have, by the model's file (tokenizer.ggml.suppress_tokens) */
    bool grammar_has_special; /* false; true: a control token counts as its text, as pi2_session_token_text() prints it
                                where `special` is asked for; else a grammar never allows one */
    const pi2_grammar *grammar; /* NULL: any text. A session is one of its owners as long as it samples so; not together
                                with forbid_end_tokens */
} pi2_sampling;
PI2_API void pi2_sampling_init(pi2_sampling *sampling);
/** Puts into `sampling` what the model's makers advise in its file (general.sampling.*); the rest of it stays. */
PI2_API void pi2_engine_advise_sampling(const pi2_engine *engine, pi2_sampling *sampling);

/**
 * Makes a session. Its memory was counted when the engine was opened.
 * Errors  INVALID (a sampling value, by name; the engine's sequences are all in use), MEMORY
 */
PI2_API pi2_status pi2_session_create(pi2_engine *engine, const pi2_sampling *sampling, pi2_session **session_out);
/**
 * Makes a session that goes on as `session` would: it has the same timeline, logits of the last token (where there
 * are some), penalty window and begun character, and does not read the prompt again. Keys and values they have in
 * common from then on; the page of 16 positions that one of them writes to is copied then. sampling: NULL: the same,
 * with the same random numbers to come; else another, whose numbers start from its seed. Guesses are not copied.
 * Errors  as pi2_session_create()
 */
PI2_API pi2_status pi2_session_fork(pi2_session *session, const pi2_sampling *sampling, pi2_session **fork_out);
/** Its room in the engine becomes free. NULL is fine. */
PI2_API void pi2_session_free(pi2_session *session);

/**
 * Sampling of the answers that begin from now on (pi2_session_begin_answer()); the timeline stays as it is.
 * Errors  INVALID (a sampling value, by name), MEMORY; the session samples as before then
 */
PI2_API pi2_status pi2_session_set_sampling(pi2_session *session, const pi2_sampling *sampling);

/** Which logits a call of pi2_session_append() leaves behind. */
typedef enum pi2_logits_wanted { PI2_LOGITS_NONE, PI2_LOGITS_LAST, PI2_LOGITS_ALL } pi2_logits_wanted;

/**
 * Appends tokens to the timeline: prefill when there are many, decode when there is one.
 * PI2_LOGITS_ALL: token_count <= the engine's logits_tokens.
 * Errors  CONTEXT (position and capacity named, or what the key-value cache of all sessions has left, where that was
 *         planned by branch_tokens; nothing was appended), INVALID (token id out of
 *         range), IO (file and offset; the session is at the position before the failing batch), INTERRUPTED
 */
PI2_API pi2_status pi2_session_append(pi2_session *session, const int32_t *tokens, size_t token_count,
                                      pi2_logits_wanted wanted);

/** Tokens that a session's timeline shall get. */
typedef struct pi2_session_tokens {
    pi2_session *session;
    const int32_t *tokens; /* [token_count], at least 1 */
    size_t token_count;
    bool wants_logits;     /* of the last one */
} pi2_session_tokens;

/**
 * pi2_session_append() for several sessions of one engine, each named once: prompts, parts of prompts and single tokens
 * share passes, of which there are as few as the engine's batch allows. A part alone is pi2_session_append(). Where
 * all parts are single tokens, each session has guesses of its own, within the batch and the logits that were planned;
 * those that are open when the next pass begins are dropped: tokens that were guessed (pi2_session_expects()) are best
 * appended before. Where a predictor leaves neurons out, sessions have passes of their own.
 * Errors  INVALID, CONTEXT (the part is named; nothing was appended), as pi2_session_append(): every session is at a
 *         position that it had between two passes, and its logits are gone
 */
PI2_API pi2_status pi2_sessions_append(const pi2_session_tokens *parts, size_t part_count);

/**
 * Guesses, with pi2_engine_options.draft_tokens: appending one token with its logits computes tokens
 * that followed the like of it earlier in the timeline in the same pass. Where the token appended next
 * is the guessed one, its logits are there at once; else the guess is dropped. Logits, text and
 * position are the same as without guesses.
 */
typedef struct pi2_draft_counters {
    uint64_t passes;         /* of one token and guesses, or of one token alone */
    uint64_t guessed, right; /* tokens; right ones were appended later and took no pass */
} pi2_draft_counters;
/** Whether this token was guessed to be the next one: appending it takes no pass. */
PI2_API bool pi2_session_expects(pi2_session *session, int32_t token);
PI2_API void pi2_session_count_drafts(const pi2_session *session, pi2_draft_counters *counters_out);

/** The same by drafter. */
typedef struct pi2_drafter_counters {
    const char *name;        /* "ngram": from earlier text */
    uint64_t passes;         /* that checked its guesses */
    uint64_t guessed, right;
    uint64_t draft_ns;       /* that guessing took, where it takes time */
    int64_t gained_ns;       /* about: the passes that right tokens saved, less what guessing and checking took */
} pi2_drafter_counters;
enum { PI2_DRAFTERS_MOST = 8 };
/** Fills in the first `most`; returns how many there are: at most PI2_DRAFTERS_MOST, 0 where nothing is guessed. */
PI2_API size_t pi2_session_count_drafters(const pi2_session *session, pi2_drafter_counters *counters_out, size_t most);

/** Logits of the last call: index 0 for LAST, 0 .. token_count - 1 for ALL; [vocabulary_size]; NULL if none. Valid
 *  until any session of the engine computes: left then are the last one's, as index 0, at another address. */
PI2_API const float *pi2_session_logits(const pi2_session *session, size_t index);

/**
 * Picks the next token from the last logits and tells the sampler. Does not append it. With a grammar only tokens are
 * picked with which the answer's text can become one of the grammar's.
 * Errors  INVALID (no logits), FORMAT (the logits are no numbers), UNSUPPORTED (no token of the vocabulary may come
 *         next by the grammar, or there are too many ways to read the text so far)
 */
PI2_API pi2_status pi2_session_sample(pi2_session *session, int32_t *token_out);
/**
 * Begins an answer to a prompt, all of it: also what the timeline holds of it already. Penalties then
 * know these tokens and no others, random numbers start from the seed, and a character that an earlier
 * answer left unfinished is forgotten. The timeline stays as it is: pi2_session_truncate() cuts it.
 */
PI2_API void pi2_session_begin_answer(pi2_session *session, const int32_t *prompt, size_t token_count);
/** The seed in use: of this answer, where each has another. */
PI2_API uint32_t pi2_session_seed(const pi2_session *session);

/** Tokens in the timeline. */
PI2_API uint32_t pi2_session_position(const pi2_session *session);
/**
 * The longest beginning of the timeline, of at most `position` tokens, that it can be cut back to and go on from
 * without computing tokens again: `position` itself, but where states cannot be taken back (recurrent layers; layers
 * with a window, of which no more is kept than what it sees and a pass of tokens) what was kept of them, at the end of
 * the last prompt or before guessed tokens; of windows up to 16 tokens before that end, too.
 */
PI2_API uint32_t pi2_session_kept(const pi2_session *session, uint32_t position);
/** Cuts the timeline back to `position` tokens; 0: all of it. INVALID when it is shorter. */
PI2_API pi2_status pi2_session_truncate(pi2_session *session, uint32_t position);

/**
 * Writes what the session holds into a file that only its owner may read, which replaces a saved session at `path` and
 * nothing else, and only when it is complete: tokens, keys and values, recurrent states, logits of the last token. The
 * sampler is not in it: an answer begins with pi2_session_begin_answer(). docs/session_file_format.md
 * note: bytes of the caller's, at most pi2_session_note_most(), that go with it; NULL: none.
 * Errors  INVALID (an empty timeline; too long a note; what lies at `path`; the engine was opened without
 *         identifies_weights), IO (path, reason), MEMORY, INTERRUPTED: nothing is left behind
 */
PI2_API pi2_status pi2_session_save(pi2_session *session, const char *path, const char *note, size_t note_length);
/**
 * Makes the session what was saved, whichever budget, context, threads and instruction set the engine then had: what
 * follows has the bits that it would have had there. The file is untrusted: one whose checksums are right and whose
 * numbers are made up gives a text of no meaning, and nothing worse.
 * note_out: the caller's bytes, malloc'd, with a NUL behind them: free() it; NULL where there are none. NULL: not
 * wanted.
 * Errors  FORMAT (what and where), UNSUPPORTED (of another version, another model, another arithmetic), CONTEXT (more
 *         tokens than the context holds, a longer note than fits), IO, MEMORY, INVALID (as above), INTERRUPTED
 */
PI2_API pi2_status pi2_session_load(pi2_session *session, const char *path, char **note_out, size_t *note_length_out);
/** Bytes that a note may have: room for a conversation of the engine's context. */
PI2_API size_t pi2_session_note_most(const pi2_session *session);

/**
 * Text of one generated token, in whole UTF-8 characters: writes what `token` completes, no NUL.
 * capacity: pi2_engine_report.token_text_bytes holds any token; less fails with INVALID where a
 * token's text is longer. special: print control tokens as text too.
 */
PI2_API pi2_status pi2_session_token_text(pi2_session *session, int32_t token, bool special, char *text_out,
                                          size_t capacity, size_t *length_out);
/** What is left of an unfinished character at the end of an answer. */
PI2_API size_t pi2_session_text_finish(pi2_session *session, char *text_out, size_t capacity);

#ifdef __cplusplus
}
#endif
#endif
