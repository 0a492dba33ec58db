/* slots_internal.h: what a slot is made of; for slots.c and the files slot_*.c. */
#ifndef PI2_CLI_SLOTS_INTERNAL_H
#define PI2_CLI_SLOTS_INTERNAL_H

#include "powerinfer2/generate.h"
#include "slots.h"

typedef struct pi2_slot {
    pi2_slots *slots;       /* whose it is */
    pi2_session *session;   /* NULL: none was needed so far, or there was no memory for a copy */
    int32_t *timeline;      /* [context]: the tokens that the session holds */
    uint32_t length;        /* of these */
    uint32_t prompt_length; /* of these, those that were computed as a prompt's are */
    pi2_slot_state state;
    pi2_job *job;           /* unless idle */
    bool has_logits;        /* of the timeline's last token, from which no token is picked yet */
    pi2_answer *answer;     /* once a token was picked */
    bool lacks_memory;      /* of the answer, while it is taken */
    bool has_line, is_over; /* of the answer: its text has a line's end; its time was up (pi2_job.most_ms) */
    int32_t token;          /* DECODES: picked, and to be computed next */
    bool is_held;           /* DECODES: not in the present pass, because its reader is behind */
    uint32_t part;          /* tokens of the present pass */
    uint64_t used;          /* a greater number was in use later */
    uint64_t begin_ns, first_ns; /* when the job began, and its first token came */
    pi2_slot_report report;
} pi2_slot;

struct pi2_slots {
    pi2_engine *engine;
    uint32_t count, context, batch;
    bool is_exact;
    pi2_slot *slots;            /* [count] */
    pi2_session_tokens *parts;  /* [count] */
    bool is_in_pass;
    uint32_t next_reader;       /* whose turn it is to read first */
    uint64_t clock;             /* of `used` */
    double token_ns, decode_ns; /* of a prompt's token beside others; of a pass without prompts; 0: not known yet */
    pi2_slots_counts counts;
};

/* slot_answer.c */

/** Picks the next token from the session's logits, tells the job, and ends it where it ends. */
void pi2_slot_go_on(pi2_slots *slots, pi2_slot *slot);
/** Ends the slot's job; error: NULL: the library's of this thread. The slot is idle then, and keeps its timeline. */
void pi2_slot_end(pi2_slots *slots, pi2_slot *slot, pi2_status status, const char *error);

/* slot_prefix.c */

/** The free slot that suits the prompt best: it holds most of it, or nothing that is worth keeping. */
pi2_slot *pi2_slot_choose(const pi2_slots *slots, const pi2_job *job);
/**
 * Begins the slot's job with what any slot holds of its prompt, unless another slot is just reading more of it: the job
 * waits for that one then.
 */
void pi2_slot_begin(pi2_slots *slots, pi2_slot *slot);

#endif
