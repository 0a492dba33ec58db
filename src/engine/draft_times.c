/* draft_times.c: what a pass of an engine takes, and each token more in it. */
#include <string.h>

#include "engine/drafting.h"

enum { ALONE_FIRST = 8, ALONE_LAST = 32, /* passes with guesses until one without is measured: at first, later */
       FIRST_PASSES = 4 };               /* what is taken for known of a token's cost counts as so many passes */

static const double pass_memory = 1.0 / 8, rare_memory = 3.0 / 4, token_memory = 1.0 / 32;
static const double stop_share = 8; /* what takes more than so many times what was expected tells of a process that was
                                       stopped meanwhile, or a machine that slept */
static const double return_rate = 1.0 / 256, known_fading = 1.0 / 8;
/* A token more in a pass, as a share of a pass over one, before one was measured: where passes read, and where all
 * weights are in memory. */
static const double token_share_reading = 1.0 / 64, token_share_computing = 1.0 / 3;
/* Where a pass waits for reads: a token more that is computed meanwhile, as a share of the pass; one that is not, of
 * what the pass computes (bench/EXPERIMENTS.md, "What a pass over a tree takes": 0.11 to 0.15). */
static const double token_share_hidden = 1.0 / 512, token_share_computed = 1.0 / 7;

void pi2_draft_times_start(pi2_draft_times *times, bool reads) {
    *times = (pi2_draft_times){ .alone_after = ALONE_FIRST, .sharers = 1 };
    times->token_share = reads ? token_share_reading : token_share_computing;
}

void pi2_draft_times_begin(pi2_draft_times *times, uint32_t sharers) {
    times->sharers = sharers;
    times->tokens = sharers;
    times->more = 0;
}

double pi2_draft_times_pass(const pi2_draft_times *times) {
    return times->sharers <= PI2_DRAFT_SHARERS_MOST ? times->pass_ns[times->sharers - 1] : 0;
}

uint32_t pi2_draft_times_tried(const pi2_draft_times *times) {
    uint32_t bands = 0;
    while (bands < PI2_DRAFT_BANDS && times->seen[bands]) bands++;
    return (bands + 1) * PI2_DRAFT_BAND_TOKENS;
}

static double tokens_in(double tokens, int band) {
    const double left = tokens - band * PI2_DRAFT_BAND_TOKENS;
    if (left <= 0) return 0;
    return band + 1 < PI2_DRAFT_BANDS && left > PI2_DRAFT_BAND_TOKENS ? PI2_DRAFT_BAND_TOKENS : left;
}

double pi2_draft_times_more(const pi2_draft_times *times, double before, double more) {
    double sum = 0;
    for (int band = 0; band < PI2_DRAFT_BANDS; band++) {
        sum += (tokens_in(before + more, band) - tokens_in(before, band)) * times->token_ns[band];
    }
    return sum;
}

/* Puts time down to tokens, in each band by how many of them there were; none costs less than those before it. Where
 * reading tells what they cost, a few of them do not explain what a disk took more or less. */
static void put_down(pi2_draft_times *times, double time, const double tokens[PI2_DRAFT_BANDS]) {
    double squares = times->is_told ? PI2_DRAFT_BAND_TOKENS * PI2_DRAFT_BAND_TOKENS : 0, *token_ns = times->token_ns;
    for (int band = 0; band < PI2_DRAFT_BANDS; band++) squares += tokens[band] * tokens[band];
    for (int band = 0; band < PI2_DRAFT_BANDS && squares > 0; band++) {
        token_ns[band] += time * tokens[band] / squares;
        if (token_ns[band] < 0) token_ns[band] = 0;
        times->seen[band] |= tokens[band] > 0;
    }
    for (int band = 1; band < PI2_DRAFT_BANDS; band++) {
        const bool is_known = times->seen[band] || times->is_told;
        if (!is_known || token_ns[band] < token_ns[band - 1]) token_ns[band] = token_ns[band - 1];
    }
}

void pi2_draft_times_tell(pi2_draft_times *times, double waited) {
    const double pass_ns = times->pass_ns[0], hidden_ns = token_share_hidden * pass_ns;
    const double computed_ns = token_share_computed * (1 - waited) * pass_ns;
    if (pass_ns <= 0 || !(waited >= 0 && waited <= 1)) return;
    const double free_tokens = computed_ns > hidden_ns ? waited * pass_ns / computed_ns
                                                       : PI2_DRAFT_BANDS * PI2_DRAFT_BAND_TOKENS;
    for (int band = 0; band < PI2_DRAFT_BANDS; band++) {
        const double hidden = tokens_in(free_tokens, band) / PI2_DRAFT_BAND_TOKENS;
        if (times->seen[band]) continue;
        times->token_ns[band] = hidden < 1 ? hidden * hidden_ns + (1 - hidden) * computed_ns : hidden_ns;
    }
    times->is_told = true;
}

/* What a pass without guesses takes less than was taken for a pass's own is what the guesses before took more. */
static void learn_alone(pi2_draft_times *times, double *pass_ns, double surprise) {
    const bool is_rare = times->since_alone >= times->alone_after;
    const double change = (is_rare ? rare_memory : pass_memory) * surprise;
    *pass_ns += change;
    if (is_rare) {
        double usual[PI2_DRAFT_BANDS];
        for (int band = 0; band < PI2_DRAFT_BANDS; band++) {
            usual[band] = times->since_guessed[band] / times->since_alone;
        }
        put_down(times, -change, usual);
        if (times->alone_after < ALONE_LAST) times->alone_after *= 2;
    }
    times->since_alone = 0;
    memset(times->since_guessed, 0, sizeof times->since_guessed);
    /* A cost that was once seen too high would end guessing for good: it fades, and with it that it is known. */
    times->known -= times->known > known_fading ? known_fading : times->known;
    for (int band = 0; band < PI2_DRAFT_BANDS; band++) {
        times->token_ns[band] += return_rate * (times->token_share * *pass_ns - times->token_ns[band]);
    }
}

/*
 * A disk's speed changes from pass to pass by more than a token costs. So what a pass took beyond what was expected is
 * put down to tokens slowly, and to the pass itself in part: how much of it is the pass's own one without guesses says.
 */
void pi2_draft_times_learn(pi2_draft_times *times, uint32_t more_tokens, uint64_t nanoseconds) {
    const double more = more_tokens, time = (double)nanoseconds;
    if (times->sharers > PI2_DRAFT_SHARERS_MOST) return;
    double *pass_ns = &times->pass_ns[times->sharers - 1];
    if (*pass_ns <= 0) {
        if (more > 0) return;
        *pass_ns = time;
        for (int band = 0; band < PI2_DRAFT_BANDS; band++) {
            if (times->token_ns[band] <= 0) times->token_ns[band] = times->token_share * time;
        }
        return;
    }
    const double expected = *pass_ns + pi2_draft_times_more(times, 0, more), before = *pass_ns;
    const double surprise = time > stop_share * expected ? stop_share * expected : time - expected;
    if (more > 0) {
        const double weight = 1.0 / (FIRST_PASSES + times->known);
        double tokens[PI2_DRAFT_BANDS];
        times->known += weight > token_memory;
        times->since_alone++;
        for (int band = 0; band < PI2_DRAFT_BANDS; band++) {
            tokens[band] = tokens_in(more, band);
            times->since_guessed[band] += tokens[band];
        }
        *pass_ns += token_memory * surprise;
        put_down(times, (weight > token_memory ? weight : token_memory) * surprise, tokens);
    } else {
        learn_alone(times, pass_ns, surprise);
    }
    if (*pass_ns < before / 2) *pass_ns = before / 2;
}
