/*
 * shortcut_texts.h: the texts that a shortcut is made of: what the model itself writes, and files. Of each token what
 * two layers read (pi2_planned_run.kept_inputs) goes into a fit, but of the first of a text, which is like no other.
 *
 * The model writes texts of its own beginnings: a turn of a user, which it begins and goes on with, and its answer,
 * greedy and drawn by turns; where it has no chat template, text. Some greedy answers are held back, to count by.
 */
#ifndef PI2_ENGINE_SHORTCUT_TEXTS_H
#define PI2_ENGINE_SHORTCUT_TEXTS_H

#include "engine/engine_internal.h"
#include "engine/shortcut_fit.h"

enum { PI2_SHORTCUT_CONTEXT = 256, PI2_HELD_TEXTS = 8 };

typedef struct pi2_held_text {
    int32_t tokens[PI2_SHORTCUT_CONTEXT];
    uint32_t count, answer;      /* answer: the first token that the model picked greedily */
} pi2_held_text;

typedef struct pi2_shortcut_texts {
    pi2_engine *engine;          /* without guesses, of PI2_SHORTCUT_CONTEXT tokens; it keeps what two layers read */
    pi2_shortcut_fit *fit;
    const char *const *paths;    /* files, NULL at the end; NULL: none */
    uint64_t tokens;             /* of all files together at most, and again what the model writes at least */
    pi2_held_text *held;         /* [PI2_HELD_TEXTS], filled in */
} pi2_shortcut_texts;

/** Memory that pi2_shortcut_texts_run() takes, beside the fit. */
uint64_t pi2_shortcut_texts_bytes(uint32_t width, uint32_t sequences);
/** Errors  as pi2_text_chunks_run(), pi2_sessions_append() and pi2_session_sample() */
pi2_status pi2_shortcut_texts_run(const pi2_shortcut_texts *texts);

#endif
