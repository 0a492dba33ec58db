/* drafting.c: who is asked for a guess, and how much of it a pass checks. */
#include "engine/drafting.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fail.h"

enum {
    TRIALS = 4,                         /* proposals of a drafter that costs time before it is judged */
    PAUSE_LEAST = 16, PAUSE_MOST = 256, /* passes until one that does not pay is asked again */
    TREE_TRIALS = 8, TREE_PAUSE = 4,    /* the same where it names tokens for a tree: chances are learnt first, and
                                           to ask costs no more than it takes */
    TRIALS_MOST = 16,                   /* that are counted: so many have equal weight, and later ones the last one's */
    TREE_LEAST = 12,                    /* tokens that a tree may have whose drafter is judged by it */
    CAUGHT_UP = PI2_DRAFT_MOST + 1      /* a drafter that has more new text to read does not tell what a token costs */
};

static const double worth_memory = 1.0 / 16, share_memory = 1.0 / 32;
static const double trusted_tokens = 8; /* chances are believed at first, as if they had foretold so many */
static const double place_share = 1.0 / 4; /* of what a place of a tree is reached, what a drafter adds by computing it:
                                              others know something, too */
static const double stop_share = 8; /* a proposal that takes more than so many times what is usual tells of a process
                                       that was stopped meanwhile (draft_times.c) */
/* What guesses may lose in all, beyond what they have gained: so many passes, and that share of the session's. */
static const double lost_passes = 0.5, lost_share = 0.01;

/** One drafter, and what its guesses came to. */
typedef struct draft_slot {
    const pi2_drafter_kind *kind;
    void *state;
    uint32_t unchanged;      /* of the text, since it was asked last */
    bool has_failed;
    double token_ns;         /* it takes for a proposed token, or a pass of it; 0: not measured */
    double tokens, time;     /* of a pass with its guess, drafting included, by those of one without */
    double came, expected;   /* tokens of passes with its guesses, and what chances said of them; old ones fade */
    uint32_t trials, pause, waits; /* passes that it still waits, of `pause` */
    pi2_drafter_counters counters;
} draft_slot;

/** A guess whose end is not known yet. */
typedef struct draft_pending {
    draft_slot *slot;        /* NULL: there is none */
    uint32_t guessed, sharers; /* sessions that had a part in the pass */
    double draft_ns, more_ns; /* that the guess took before the pass, and in it */
    bool is_joined, is_small; /* it is a tree of what the slot's drafter named; as small as first ones are: */
    double expected;         /* tokens of the pass, by chances; */
    uint32_t at, chain_count; /* behind so many tokens; the drafter's own guess there */
    int32_t chain[PI2_DRAFT_MOST];
} draft_pending;

struct pi2_drafting {
    draft_slot slots[PI2_DRAFTERS_MOST];
    size_t slot_count;
    bool always, replays;
    uint32_t most, capacity, length;
    uint32_t nodes, leaves, depth; /* of a tree; 0: there are chains alone */
    uint32_t passes;         /* of the session, since it began */
    double balance_ns;       /* what its guesses have gained, less what they took */
    pi2_draft_times *times;  /* the engine's, or own_times */
    pi2_draft_times own_times;
    draft_pending pending;
    pi2_draft_named named;   /* by a drafter that computes, for the next guess */
    pi2_draws draws;         /* of the next guess */
    int32_t tokens[];
};

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

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
    if (options->trees) {
        drafting->nodes = options->nodes < PI2_DRAFT_NODES_MOST ? options->nodes : PI2_DRAFT_NODES_MOST;
        drafting->leaves = options->leaves;
        drafting->depth = smaller(drafting->nodes, PI2_DRAFT_MOST);
    }
    drafting->capacity = options->context_tokens;
    drafting->always = options->always;
    drafting->replays = options->replays;
    drafting->times = options->times ? options->times : &drafting->own_times;
    if (drafting->times->token_share <= 0) pi2_draft_times_start(drafting->times, options->reads);
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
    if (drafting->times == &drafting->own_times) drafting->own_times = *from->times;
    memcpy(drafting->tokens, from->tokens, from->length * sizeof *from->tokens);
    for (size_t i = 0; i < drafting->slot_count; i++) {
        draft_slot *slot = &drafting->slots[i];
        const draft_slot *other = &from->slots[i];
        slot->kind->follow(slot->state, other->state);
        slot->token_ns = other->token_ns;
        slot->tokens = other->tokens;
        slot->time = other->time;
        slot->came = other->came;
        slot->expected = other->expected;
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

/* Tokens by time are told by those of the pass that is being made, without a guess of this session. */
static double plain_rate(const pi2_draft_times *times) {
    return times->tokens / (pi2_draft_times_pass(times) + pi2_draft_times_more(times, 0, times->more));
}

/* Of a guess of so many tokens, how many are likely to be computed once more: those that are right, unless all are. */
static double expected_replays(const pi2_drafting *drafting, uint32_t count, double right, double all_right) {
    return drafting->replays ? right - count * all_right : 0;
}

/* The chance that a token and all that it follows are right. reaches: of the tokens before it; it is put there. */
static double reach_of(const pi2_draft *draft, uint32_t i, double reaches[PI2_DRAFT_NODES_MOST]) {
    const uint32_t parent = draft->parents[i];
    return reaches[i] = (double)draft->chances[i] * (parent ? reaches[parent - 1] : 1);
}

/* Cuts a proposal where its expected tokens by time are best; returns those, by the plain rate: at least 1. */
static double cut(const pi2_drafting *drafting, pi2_draft *draft) {
    const pi2_draft_times *times = drafting->times;
    const double plain = plain_rate(times), plain_ns = times->tokens / plain;
    double right = 0, best = plain, reaches[PI2_DRAFT_NODES_MOST];
    uint32_t length = 0;
    for (uint32_t i = 0; i < draft->count; i++) {
        const double reach = reach_of(draft, i, reaches);
        right += reach;
        const double more = i + 1 + expected_replays(drafting, i + 1, right, reach);
        const double rate = (times->tokens + right) / (plain_ns + pi2_draft_times_more(times, times->more, more));
        if (rate <= best) continue;
        best = rate;
        length = i + 1;
    }
    draft->count = length;
    return best / plain;
}

/* A proposal of so many tokens behind as many that were not read yet took so long. */
static void learn_time(pi2_drafting *drafting, draft_slot *slot, uint32_t unread, uint32_t count, double time) {
    const double usual = slot->token_ns * (unread + count);
    const bool was_stopped = usual > 0 && time > stop_share * usual;
    drafting->pending.draft_ns = was_stopped ? usual : time;
    if (unread > CAUGHT_UP) return; /* nor is it lost by guessing */
    drafting->balance_ns -= drafting->pending.draft_ns;
    if (count == 0) return;
    const double each = was_stopped ? stop_share * slot->token_ns : time / count;
    slot->token_ns += (slot->token_ns > 0 ? worth_memory : 1) * (each - slot->token_ns);
}

/* What a slot has no more to tell is told once: it is not asked again. */
static pi2_status propose(pi2_drafting *drafting, draft_slot *slot, const pi2_draft_wish *wish, pi2_draft *draft) {
    const pi2_draft_text text = { drafting->tokens, drafting->length, slot->unchanged, &drafting->draws,
                                  slot->kind->joins && drafting->named.count ? &drafting->named : NULL };
    const uint64_t begin_ns = slot->kind->costs ? pi2_clock_ns() : 0;
    draft->count = 0;
    for (uint32_t i = 0; i < PI2_DRAFT_NODES_MOST; i++) draft->parents[i] = (uint8_t)i;
    const pi2_status status = slot->kind->propose(slot->state, &text, wish, draft);
    slot->unchanged = drafting->length;
    if (status != PI2_OK) {
        draft->count = 0;
        slot->has_failed = status != PI2_ERR_INTERRUPTED;
        return slot->has_failed ? PI2_OK : status;
    }
    if (!slot->kind->costs) return PI2_OK;
    const uint64_t time_ns = pi2_clock_ns() - begin_ns;
    slot->counters.draft_ns += time_ns;
    slot->counters.gained_ns -= (int64_t)time_ns;
    const uint32_t passes = !wish->named ? draft->count : wish->named->passes ? wish->named->passes
                                                                              : wish->named->count;
    learn_time(drafting, slot, text.length - text.unchanged, passes, (double)time_ns);
    return PI2_OK;
}

/* Of the tokens that chances promise of a slot's guesses, how many come. */
static double share_that_comes(const draft_slot *slot) {
    return (trusted_tokens + slot->came) / (trusted_tokens + slot->expected);
}

static void learn_share(draft_slot *slot, double came, double expected) {
    slot->came += came - share_memory * slot->came;
    slot->expected += expected - share_memory * slot->expected;
}

/* What a pass with its guess came to. */
static void learn_worth(draft_slot *slot, double tokens, double time) {
    const double mean = 1.0 / (1 + slot->trials), memory = mean > worth_memory ? mean : worth_memory;
    slot->tokens += memory * (tokens - slot->tokens);
    slot->time += memory * (time - slot->time);
    if (slot->trials < TRIALS_MOST) slot->trials++;
}

/* Whether a drafter that takes time is asked, where a pass without it gives so many tokens by time. As everywhere, by
 * the plain rate. */
static bool is_worth_asking(draft_slot *slot, double rate, bool is_for_tree) {
    if (slot->trials < (is_for_tree ? TREE_TRIALS : TRIALS) || slot->tokens > rate * slot->time) {
        slot->waits = 0;
        slot->pause = is_for_tree ? TREE_PAUSE : PAUSE_LEAST;
        return true;
    }
    if (slot->waits == 0) { /* it has just turned out not to pay */
        slot->waits = slot->pause;
        if (slot->pause < PAUSE_MOST) slot->pause *= 2;
    }
    return --slot->waits == 0;
}

/* How many tokens, which cost so much each beside what they take in the pass, may turn out wrong now: what is learnt of
 * chances comes late for a short answer, so guesses lose no more of it than that, whatever they hit. */
static uint32_t affordable(const pi2_drafting *drafting, uint32_t most, double draft_ns) {
    const pi2_draft_times *times = drafting->times;
    const double each_ns = pi2_draft_times_pass(times) / times->sharers;
    const double stake_ns = (lost_passes + lost_share * drafting->passes) * each_ns + drafting->balance_ns;
    if (drafting->always) return most;
    uint32_t count = 0;
    for (; count < most; count++) {
        if (pi2_draft_times_more(times, times->more, count + 1) + (count + 1) * draft_ns > stake_ns) break;
    }
    return count;
}

/* What is worth proposing for nothing. */
static pi2_draft_wish free_wish(const pi2_drafting *drafting, pi2_draft_wish wish) {
    wish.least_reach = pi2_draft_times_more(drafting->times, drafting->times->more, 1) * plain_rate(drafting->times);
    wish.nodes = affordable(drafting, smaller(wish.nodes, pi2_draft_times_tried(drafting->times)), 0);
    wish.most = affordable(drafting, wish.most, 0);
    return wish;
}

/* The best of the free drafters' proposals; returns its tokens by time. */
static pi2_status ask_free(pi2_drafting *drafting, const pi2_draft_wish *wanted, pi2_draft *best, double *rate) {
    const pi2_draft_wish wish = free_wish(drafting, *wanted);
    if (wish.most == 0) return PI2_OK;
    for (size_t i = 0; i < drafting->slot_count; i++) {
        draft_slot *slot = &drafting->slots[i];
        pi2_draft draft;
        if (slot->kind->costs || slot->has_failed) continue;
        PI2_TRY(propose(drafting, slot, &wish, &draft));
        const double with = cut(drafting, &draft);
        if (draft.count == 0 || with <= *rate) continue;
        *rate = with;
        *best = draft;
        drafting->pending.slot = slot;
    }
    return PI2_OK;
}

/* How many of a guess's tokens are likely to be right. */
static double expected_right(const pi2_draft *draft) {
    double right = 0, reaches[PI2_DRAFT_NODES_MOST];
    for (uint32_t i = 0; i < draft->count; i++) right += reach_of(draft, i, reaches);
    return right;
}

static draft_slot *find_joiner(pi2_drafting *drafting) {
    for (size_t i = 0; i < drafting->slot_count; i++) {
        draft_slot *slot = &drafting->slots[i];
        if (slot->kind->joins && !slot->has_failed) return slot;
    }
    return NULL;
}

/* One tree of what a drafter has named and of what is known for nothing, in place of the drafter's chain. */
static pi2_status join(pi2_drafting *drafting, draft_slot *joiner, const pi2_draft_wish *wanted, pi2_draft *draft,
                       draft_pending *pending) {
    const pi2_draft_wish wish = drafting->always ? *wanted : free_wish(drafting, *wanted);
    pi2_draft tree;
    if (drafting->named.count == 0 || wish.most == 0 || wish.nodes == 0) return PI2_OK;
    PI2_TRY(propose(drafting, joiner, &wish, &tree));
    if (tree.count == 0) return PI2_OK;
    pending->is_joined = true;
    pending->is_small = wish.nodes < smaller(wanted->nodes, TREE_LEAST);
    pending->at = drafting->length;
    pending->chain_count = draft->count;
    memcpy(pending->chain, draft->tokens, draft->count * sizeof *draft->tokens);
    *draft = tree;
    return PI2_OK;
}

/* A proposal that was made is compared without what it took: that is spent. */
static pi2_status ask_others(pi2_drafting *drafting, const pi2_draft_wish *wanted, pi2_draft *best, double *rate) {
    const pi2_draft_times *times = drafting->times;
    const double plain = plain_rate(times), plain_ns = times->tokens / plain;
    draft_slot *joiner = wanted->nodes ? find_joiner(drafting) : NULL;
    for (size_t i = 0; i < drafting->slot_count; i++) {
        draft_slot *slot = &drafting->slots[i];
        draft_pending joined = { .is_joined = false };
        pi2_draft draft;
        if (!slot->kind->costs || slot->has_failed) continue;
        /* Of one that was never asked for a token nobody knows what it takes. */
        const bool is_known = slot->token_ns > 0 || drafting->always;
        pi2_draft_wish wish = *wanted;
        wish.most = affordable(drafting, is_known ? smaller(wanted->most, drafting->most) : 1, slot->token_ns);
        if (wish.most == 0 || (!drafting->always && !is_worth_asking(slot, *rate, joiner != NULL))) continue;
        const bool has_paid = slot->time > 0 && slot->tokens > *rate * slot->time;
        if (!drafting->always) {
            const double by_plain = has_paid ? slot->tokens / slot->time : *rate;
            const double asked_ns = joiner ? slot->token_ns / place_share : slot->token_ns;
            wish.least_reach = (pi2_draft_times_more(times, times->more, 1) + asked_ns) * plain * by_plain;
        }
        drafting->named.count = drafting->named.passes = 0;
        drafting->named.most = is_known ? affordable(drafting, PI2_DRAFT_PLACES, slot->token_ns) : 1;
        wish.named = joiner ? &drafting->named : NULL;
        PI2_TRY(propose(drafting, slot, &wish, &draft));
        if (joiner) PI2_TRY(join(drafting, joiner, wanted, &draft, &joined));
        const double with = drafting->always && draft.count ? 2 * *rate
                                                            : cut(drafting, &draft) * share_that_comes(slot);
        if (draft.count == 0 || with <= *rate) {
            const double time = 1 + pi2_draft_times_more(times, times->more, draft.count) / plain_ns;
            /* A first one, of which little is asked, tells nothing of what is asked later. */
            if (wish.most > 1) learn_worth(slot, with * time, time + drafting->pending.draft_ns / plain_ns);
            drafting->pending.draft_ns = 0;
            continue;
        }
        *rate = with;
        *best = draft;
        drafting->pending.slot = slot;
        drafting->pending.is_joined = joined.is_joined;
        drafting->pending.is_small = joined.is_small;
        drafting->pending.at = joined.at;
        drafting->pending.chain_count = joined.chain_count;
        memcpy(drafting->pending.chain, joined.chain, sizeof joined.chain);
    }
    return PI2_OK;
}

static pi2_status guess(pi2_drafting *drafting, pi2_draft_wish wish, pi2_draft *best) {
    pi2_draft_times *times = drafting->times;
    best->count = 0;
    drafting->pending = (draft_pending){ .sharers = times->sharers };
    if (pi2_draft_times_pass(times) <= 0 || wish.most == 0 || drafting->length == 0) return PI2_OK;
    if (times->since_alone >= times->alone_after && !drafting->always) return PI2_OK;
    double rate = 1;
    drafting->named.count = 0;
    PI2_TRY(ask_free(drafting, &wish, best, &rate));
    if (drafting->pending.slot) {
        rate *= share_that_comes(drafting->pending.slot);
        if (rate < 1) rate = 1;
    }
    PI2_TRY(ask_others(drafting, &wish, best, &rate));
    drafting->pending.expected = 1 + expected_right(best);
    drafting->pending.guessed = best->count;
    times->more += best->count;
    times->tokens += expected_right(best);
    return PI2_OK;
}

static void hand_out(pi2_drafting *drafting, const pi2_draft *draft, int32_t *guess_out, uint8_t *parents_out,
                     uint32_t *count_out) {
    drafting->draws.count = 0;
    memcpy(guess_out, draft->tokens, draft->count * sizeof *guess_out);
    memcpy(parents_out, draft->parents, draft->count * sizeof *parents_out);
    *count_out = draft->count;
}

void pi2_drafting_foretell(pi2_drafting *drafting, const pi2_draws *draws) { drafting->draws = *draws; }

pi2_status pi2_drafting_guess_beside(pi2_drafting *drafting, uint32_t room, int32_t *guess_out, uint8_t *parents_out,
                                     uint32_t *count_out) {
    const pi2_draft_wish wish = { .most = smaller(room, drafting->most) };
    pi2_draft best;
    *count_out = 0;
    PI2_TRY(guess(drafting, wish, &best));
    hand_out(drafting, &best, guess_out, parents_out, count_out);
    return PI2_OK;
}

pi2_status pi2_drafting_guess(pi2_drafting *drafting, uint32_t room, int32_t *guess_out, uint8_t *parents_out,
                              uint32_t *count_out) {
    const uint32_t most = drafting->depth > drafting->most ? drafting->depth : drafting->most;
    const pi2_draft_wish wish = { .most = smaller(room, most), .nodes = smaller(room, drafting->nodes),
                                   .leaves = drafting->leaves };
    pi2_draft best;
    *count_out = 0;
    pi2_draft_times_begin(drafting->times, 1);
    PI2_TRY(guess(drafting, wish, &best));
    hand_out(drafting, &best, guess_out, parents_out, count_out);
    return PI2_OK;
}

/* ---- what came of it ---- */

void pi2_drafting_note_part(pi2_drafting *drafting, uint32_t guessed) {
    draft_pending *pending = &drafting->pending;
    drafting->passes++;
    if (!pending->slot || guessed == 0) return;
    pending->more_ns = pi2_draft_times_more(drafting->times, 0, guessed);
    pi2_drafter_counters *counters = &pending->slot->counters;
    counters->passes++;
    counters->guessed += guessed;
    counters->gained_ns -= (int64_t)pending->more_ns;
    drafting->balance_ns -= pending->more_ns;
}

void pi2_drafting_note_pass(pi2_drafting *drafting, uint32_t guessed, uint32_t replayed, uint64_t nanoseconds) {
    pi2_draft_times_learn(drafting->times, guessed + replayed, nanoseconds);
    pi2_drafting_note_part(drafting, guessed);
}

/* Of a tree the drafter that named tokens for it is told what came of its own guess. */
static void judge(const pi2_drafting *drafting, draft_slot *slot, const draft_pending *pending, uint32_t checked,
                  uint32_t right, const uint8_t *path) {
    uint8_t chain[PI2_DRAFT_MOST];
    uint32_t held = 0;
    if (!pending->is_joined) {
        slot->kind->judge(slot->state, checked, right, path);
        return;
    }
    const int32_t *text = drafting->tokens + pending->at;
    for (uint32_t i = 0; i < PI2_DRAFT_MOST; i++) chain[i] = (uint8_t)i;
    while (held < right && held < pending->chain_count && text[held] == pending->chain[held]) held++;
    const uint32_t compared = smaller(held < checked ? held + 1 : held, pending->chain_count);
    slot->kind->judge(slot->state, compared, held, chain);
}

void pi2_drafting_note_guess(pi2_drafting *drafting, uint32_t checked, uint32_t right, const uint8_t *path) {
    const pi2_draft_times *times = drafting->times;
    const draft_pending pending = drafting->pending;
    draft_slot *slot = pending.slot;
    drafting->pending.slot = NULL;
    if (!slot || checked == 0) return;
    judge(drafting, slot, &pending, checked, right, path);
    slot->counters.right += right;
    const double pass_ns = times->pass_ns[pending.sharers - 1], each_ns = pass_ns / pending.sharers;
    const double replay_ns = drafting->replays && right < pending.guessed
                                 ? pi2_draft_times_more(times, pending.guessed, right) : 0;
    slot->counters.gained_ns += (int64_t)(right * each_ns) - (int64_t)replay_ns;
    drafting->balance_ns += right * each_ns - replay_ns;
    if (right == checked && checked < pending.guessed) return; /* the text ended before it */
    learn_share(slot, 1.0 + right, pending.expected);
    /* Small ones do not tell what larger ones come to; losses are bounded all the same. */
    if (!slot->kind->costs || pending.is_small) return;
    learn_worth(slot, 1.0 + (double)right / pending.sharers,
                1 + (pending.more_ns + pending.draft_ns + replay_ns) / pass_ns);
}

size_t pi2_drafting_count(const pi2_drafting *drafting, pi2_drafter_counters *counters_out, size_t most) {
    for (size_t i = 0; i < drafting->slot_count && i < most; i++) counters_out[i] = drafting->slots[i].counters;
    return drafting->slot_count;
}
