/* drafting.c: who is asked for a guess, and how much of it a pass checks. */
#include "engine/drafting.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fail.h"

enum {
    TRIALS = 4,                         /* proposals of a drafter that costs time before it is judged */
    ALONE_FIRST = 8, ALONE_LAST = 32,   /* passes with guesses until one without is measured: at first, later */
    FIRST_PASSES = 4,                   /* what is taken for known of a token's cost counts as so many passes */
    PAUSE_LEAST = 16, PAUSE_MOST = 256, /* passes until one that does not pay is asked again */
    CAUGHT_UP = PI2_DRAFT_MOST + 1      /* a drafter that has more new text to read does not tell what a token costs */
};

static const double pass_memory = 1.0 / 8, rare_memory = 3.0 / 4, token_memory = 1.0 / 32, worth_memory = 1.0 / 16;
static const double return_rate = 1.0 / 256, known_fading = 1.0 / 8;
/* A token more in a pass, as a share of a pass over one, before one was measured: where passes read, and where all
 * weights are in memory. */
static const double token_share_reading = 1.0 / 32, token_share_computing = 1.0 / 3;

/** One drafter, and what its guesses came to. */
typedef struct draft_slot {
    const pi2_drafter_kind *kind;
    void *state;
    uint32_t unchanged;      /* of the text, since it was asked last */
    bool has_failed;
    double token_ns;         /* it takes for a proposed token; 0: not measured */
    double tokens, time;     /* of a pass with its guess, drafting included */
    uint32_t trials, pause, waits; /* passes that it still waits, of `pause` */
    pi2_drafter_counters counters;
} draft_slot;

/** A guess whose end is not known yet. */
typedef struct draft_pending {
    draft_slot *slot;        /* NULL: there is none */
    uint32_t guessed;
    double draft_ns, pass_ns;
} draft_pending;

struct pi2_drafting {
    draft_slot slots[PI2_DRAFTERS_MOST];
    size_t slot_count;
    bool always, replays;
    uint32_t most, capacity, length;
    double pass_ns, token_ns; /* a pass over one token; each token more. 0: not seen yet */
    double token_share;      /* token_ns by pass_ns, as far as nothing is known */
    double known;            /* passes with guesses whose cost is remembered, up to 1 / token_memory */
    uint32_t alone_after, since_alone; /* passes with guesses until one without; since the last one */
    double since_guessed;    /* tokens of these guesses */
    draft_pending pending;
    int32_t tokens[];
};

const pi2_drafter_kind *const *pi2_drafter_kinds(void) {
    static const pi2_drafter_kind *const kinds[] = {
#define PI2_DRAFTER(name) &pi2_drafter_##name,
#include "engine/drafters.inc"
#undef PI2_DRAFTER
        NULL };
    _Static_assert(sizeof kinds / sizeof kinds[0] <= PI2_DRAFTERS_MOST + 1, "a session has a slot for every drafter");
    return kinds;
}

size_t pi2_drafting_bytes(const struct pi2_planned_run *run, uint32_t context_tokens) {
    size_t bytes = sizeof(pi2_drafting) + (size_t)context_tokens * sizeof(int32_t);
    for (const pi2_drafter_kind *const *kind = pi2_drafter_kinds(); *kind; kind++) {
        bytes += (*kind)->bytes(run, context_tokens);
    }
    return bytes;
}

static pi2_status begin_slots(pi2_drafting *drafting, const pi2_drafting_options *options) {
    for (const pi2_drafter_kind *const *kind = options->kinds; *kind; kind++) {
        if ((*kind)->bytes(options->run, options->context_tokens) == 0) continue;
        draft_slot *slot = &drafting->slots[drafting->slot_count];
        PI2_TRY((*kind)->begin(options->session, &slot->state));
        drafting->slot_count++;
        slot->kind = *kind;
        slot->pause = PAUSE_LEAST;
        slot->counters.name = (*kind)->name;
    }
    return PI2_OK;
}

pi2_status pi2_drafting_create(const pi2_drafting_options *options, pi2_drafting **drafting_out) {
    *drafting_out = NULL;
    pi2_drafting *drafting = calloc(1, sizeof *drafting + (size_t)options->context_tokens * sizeof(int32_t));
    if (!drafting) return pi2_fail(PI2_ERR_MEMORY, "no memory for guessing ahead");
    drafting->most = options->most < PI2_DRAFT_MOST ? options->most : PI2_DRAFT_MOST;
    drafting->capacity = options->context_tokens;
    drafting->always = options->always;
    drafting->replays = options->replays;
    drafting->alone_after = ALONE_FIRST;
    drafting->token_share = options->reads ? token_share_reading : token_share_computing;
    const pi2_status status = begin_slots(drafting, options);
    if (status != PI2_OK) {
        pi2_drafting_free(drafting);
        return status;
    }
    *drafting_out = drafting;
    return PI2_OK;
}

void pi2_drafting_free(pi2_drafting *drafting) {
    if (!drafting) return;
    for (size_t i = 0; i < drafting->slot_count; i++) drafting->slots[i].kind->end(drafting->slots[i].state);
    free(drafting);
}

/* ---- the text ---- */

void pi2_drafting_push(pi2_drafting *drafting, const int32_t *tokens, size_t count) {
    const size_t room = drafting->capacity - drafting->length;
    if (count > room) count = room;
    if (count) memcpy(drafting->tokens + drafting->length, tokens, count * sizeof *tokens);
    drafting->length += (uint32_t)count;
}

void pi2_drafting_truncate(pi2_drafting *drafting, uint32_t length) {
    if (length >= drafting->length) return;
    drafting->length = length;
    for (size_t i = 0; i < drafting->slot_count; i++) {
        if (drafting->slots[i].unchanged > length) drafting->slots[i].unchanged = length;
    }
}

void pi2_drafting_follow(pi2_drafting *drafting, const pi2_drafting *from) {
    drafting->length = from->length;
    drafting->pass_ns = from->pass_ns;
    drafting->token_ns = from->token_ns;
    drafting->known = from->known;
    memcpy(drafting->tokens, from->tokens, from->length * sizeof *from->tokens);
    for (size_t i = 0; i < drafting->slot_count; i++) {
        draft_slot *slot = &drafting->slots[i];
        const draft_slot *other = &from->slots[i];
        slot->kind->follow(slot->state, other->state);
        slot->token_ns = other->token_ns;
        slot->tokens = other->tokens;
        slot->time = other->time;
        slot->trials = other->trials;
        slot->pause = other->pause;
        slot->waits = other->waits;
    }
}

pi2_status pi2_drafting_saw(pi2_drafting *drafting, const pi2_draft_pass *pass) {
    for (size_t i = 0; i < drafting->slot_count; i++) {
        draft_slot *slot = &drafting->slots[i];
        if (!slot->kind->saw || slot->has_failed) continue;
        const pi2_status status = slot->kind->saw(slot->state, pass);
        if (status == PI2_ERR_INTERRUPTED) return status;
        slot->has_failed = status != PI2_OK;
    }
    return PI2_OK;
}

/* ---- what is worth a guess ---- */

/* Of a guess of so many tokens, how many are likely to be computed once more: those that are right, unless all are. */
static double expected_replays(const pi2_drafting *drafting, uint32_t count, double right, double all_right) {
    return drafting->replays ? right - count * all_right : 0;
}

/* Cuts a proposal where its expected tokens by time are best; returns those, at least a pass's alone. */
static double cut(const pi2_drafting *drafting, pi2_draft *draft) {
    double tokens = 1, reach = 1, best = tokens / drafting->pass_ns;
    uint32_t length = 0;
    for (uint32_t i = 0; i < draft->count; i++) {
        reach *= (double)draft->chances[i];
        tokens += reach;
        const double more = i + 1 + expected_replays(drafting, i + 1, tokens - 1, reach);
        const double time = drafting->pass_ns + more * drafting->token_ns;
        if (tokens / time <= best) continue;
        best = tokens / time;
        length = i + 1;
    }
    draft->count = length;
    return best;
}

/* What a slot has no more to tell is told once: it is not asked again. */
static pi2_status propose(pi2_drafting *drafting, draft_slot *slot, const pi2_draft_wish *wish, pi2_draft *draft) {
    const pi2_draft_text text = { drafting->tokens, drafting->length, slot->unchanged };
    const uint64_t begin_ns = slot->kind->costs ? pi2_clock_ns() : 0;
    draft->count = 0;
    const pi2_status status = slot->kind->propose(slot->state, &text, wish, draft);
    slot->unchanged = drafting->length;
    if (status != PI2_OK) {
        draft->count = 0;
        slot->has_failed = status != PI2_ERR_INTERRUPTED;
        return slot->has_failed ? PI2_OK : status;
    }
    if (!slot->kind->costs) return PI2_OK;
    const double time = (double)(pi2_clock_ns() - begin_ns);
    slot->counters.draft_ns += (uint64_t)time;
    slot->counters.gained_ns -= (int64_t)time;
    drafting->pending.draft_ns = time;
    if (draft->count && text.length - text.unchanged <= CAUGHT_UP) {
        const double each = time / draft->count;
        slot->token_ns += (slot->token_ns > 0 ? worth_memory : 1) * (each - slot->token_ns);
    }
    return PI2_OK;
}

/* What a pass with its guess came to. */
static void learn_worth(draft_slot *slot, double tokens, double time) {
    const double memory = slot->time > 0 ? worth_memory : 1;
    slot->tokens += memory * (tokens - slot->tokens);
    slot->time += memory * (time - slot->time);
    if (slot->trials < TRIALS) slot->trials++;
}

/* Whether a drafter that takes time is asked, where a pass without it gives so many tokens by time. */
static bool is_worth_asking(draft_slot *slot, double rate) {
    if (slot->trials < TRIALS || slot->tokens > rate * slot->time) {
        slot->waits = 0;
        slot->pause = PAUSE_LEAST;
        return true;
    }
    if (slot->waits == 0) { /* it has just turned out not to pay */
        slot->waits = slot->pause;
        if (slot->pause < PAUSE_MOST) slot->pause *= 2;
    }
    return --slot->waits == 0;
}

/* The best of the free drafters' proposals; returns its tokens by time. */
static pi2_status ask_free(pi2_drafting *drafting, const pi2_draft_wish *wish, pi2_draft *best, double *rate) {
    for (size_t i = 0; i < drafting->slot_count; i++) {
        draft_slot *slot = &drafting->slots[i];
        pi2_draft draft;
        if (slot->kind->costs || slot->has_failed) continue;
        PI2_TRY(propose(drafting, slot, wish, &draft));
        const double with = cut(drafting, &draft);
        if (draft.count == 0 || with <= *rate) continue;
        *rate = with;
        *best = draft;
        drafting->pending.slot = slot;
    }
    return PI2_OK;
}

/* A proposal that was made is compared without what it took: that is spent. */
static pi2_status ask_others(pi2_drafting *drafting, pi2_draft_wish wish, pi2_draft *best, double *rate) {
    for (size_t i = 0; i < drafting->slot_count; i++) {
        draft_slot *slot = &drafting->slots[i];
        pi2_draft draft;
        if (!slot->kind->costs || slot->has_failed) continue;
        if (!drafting->always && !is_worth_asking(slot, *rate)) continue;
        const bool has_paid = slot->time > 0 && slot->tokens > *rate * slot->time;
        if (!drafting->always) {
            wish.least_reach = (drafting->token_ns + slot->token_ns) * (has_paid ? slot->tokens / slot->time : *rate);
        }
        PI2_TRY(propose(drafting, slot, &wish, &draft));
        const double with = drafting->always && draft.count ? 2 * *rate : cut(drafting, &draft);
        if (draft.count == 0 || with <= *rate) {
            const double time = drafting->pass_ns + draft.count * drafting->token_ns;
            learn_worth(slot, with * time, time + drafting->pending.draft_ns);
            drafting->pending.draft_ns = 0;
            continue;
        }
        *rate = with;
        *best = draft;
        drafting->pending.slot = slot;
    }
    return PI2_OK;
}

pi2_status pi2_drafting_guess(pi2_drafting *drafting, uint32_t room, int32_t *guess_out, uint32_t *count_out) {
    *count_out = 0;
    drafting->pending = (draft_pending){ NULL, 0, 0, 0 };
    const pi2_draft_wish wish = { .most = room < drafting->most ? room : drafting->most };
    if (drafting->pass_ns <= 0 || wish.most == 0 || drafting->length == 0) return PI2_OK;
    if (drafting->since_alone >= drafting->alone_after && !drafting->always) return PI2_OK;
    pi2_draft best = { .count = 0 };
    double rate = 1 / drafting->pass_ns;
    PI2_TRY(ask_free(drafting, &wish, &best, &rate));
    PI2_TRY(ask_others(drafting, wish, &best, &rate));
    memcpy(guess_out, best.tokens, best.count * sizeof *guess_out);
    drafting->pending.guessed = *count_out = best.count;
    return PI2_OK;
}

/* ---- what came of it ---- */

/* What a pass without guesses takes less than was taken for a pass's own is what the guesses before took more. */
static void learn_alone(pi2_drafting *drafting, double surprise) {
    const bool is_rare = drafting->since_alone >= drafting->alone_after;
    const double change = (is_rare ? rare_memory : pass_memory) * surprise;
    drafting->pass_ns += change;
    if (is_rare) {
        drafting->token_ns -= change * drafting->since_alone / drafting->since_guessed;
        if (drafting->token_ns < 0) drafting->token_ns = 0;
        if (drafting->alone_after < ALONE_LAST) drafting->alone_after *= 2;
    }
    drafting->since_alone = 0;
    drafting->since_guessed = 0;
    /* A cost that was once seen too high would end guessing for good: it fades, and with it that it is known. */
    drafting->known -= drafting->known > known_fading ? known_fading : drafting->known;
    drafting->token_ns += return_rate * (drafting->token_share * drafting->pass_ns - drafting->token_ns);
}

/*
 * A disk's speed changes from pass to pass by more than a token costs. So what a pass took beyond what was expected is
 * put down to tokens slowly, and to the pass itself in part: how much of it is the pass's own one without guesses says.
 */
static void learn_times(pi2_drafting *drafting, double more, double time) {
    if (drafting->pass_ns <= 0) {
        if (more > 0) return;
        drafting->pass_ns = time;
        drafting->token_ns = drafting->token_share * time;
        return;
    }
    const double surprise = time - drafting->pass_ns - more * drafting->token_ns;
    if (more > 0) {
        const double weight = 1.0 / (FIRST_PASSES + drafting->known);
        const double memory = weight > token_memory ? weight : token_memory;
        drafting->known += weight > token_memory;
        drafting->since_alone++;
        drafting->since_guessed += more;
        drafting->pass_ns += token_memory * surprise;
        drafting->token_ns += memory * surprise / more;
        if (drafting->token_ns < 0) drafting->token_ns = 0;
    } else {
        learn_alone(drafting, surprise);
    }
}

void pi2_drafting_note_pass(pi2_drafting *drafting, uint32_t guessed, uint32_t replayed, uint64_t nanoseconds) {
    learn_times(drafting, (double)guessed + replayed, (double)nanoseconds);
    draft_pending *pending = &drafting->pending;
    if (!pending->slot || guessed == 0) return;
    pending->pass_ns = drafting->pass_ns + guessed * drafting->token_ns;
    pi2_drafter_counters *counters = &pending->slot->counters;
    counters->passes++;
    counters->guessed += guessed;
    counters->gained_ns -= (int64_t)(guessed * drafting->token_ns);
}

void pi2_drafting_note_guess(pi2_drafting *drafting, uint32_t checked, uint32_t right) {
    const draft_pending pending = drafting->pending;
    draft_slot *slot = pending.slot;
    drafting->pending.slot = NULL;
    if (!slot || checked == 0) return;
    slot->kind->judge(slot->state, checked, right);
    slot->counters.right += right;
    slot->counters.gained_ns += (int64_t)(right * drafting->pass_ns);
    const double replay_ns = drafting->replays && right < pending.guessed ? right * drafting->token_ns : 0;
    slot->counters.gained_ns -= (int64_t)replay_ns;
    if (!slot->kind->costs || (right == checked && checked < pending.guessed)) return; /* the text ended before it */
    learn_worth(slot, 1.0 + right, pending.pass_ns + pending.draft_ns + replay_ns);
}

size_t pi2_drafting_count(const pi2_drafting *drafting, pi2_drafter_counters *counters_out, size_t most) {
    for (size_t i = 0; i < drafting->slot_count && i < most; i++) counters_out[i] = drafting->slots[i].counters;
    return drafting->slot_count;
}
