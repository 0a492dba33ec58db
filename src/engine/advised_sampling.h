/* advised_sampling.h: how a model's makers would have its tokens drawn, as its file says it (general.sampling.*). */
#ifndef PI2_ENGINE_ADVISED_SAMPLING_H
#define PI2_ENGINE_ADVISED_SAMPLING_H

#include "file_formats/gguf.h"
#include "powerinfer2/session.h"

typedef struct pi2_advised_sampling {
    pi2_sampling values;
    uint32_t fields; /* which of them the file has: bits, by the table in advised_sampling.c */
} pi2_advised_sampling;

/** Errors  FORMAT: a value of the wrong type, or one that no sampler takes (file, key) */
pi2_status pi2_advised_sampling_read(const pi2_gguf *gguf, pi2_advised_sampling *advised_out);

/** Puts what is advised into `sampling`; the rest of it stays. */
void pi2_advised_sampling_apply(const pi2_advised_sampling *advised, pi2_sampling *sampling);

#endif
