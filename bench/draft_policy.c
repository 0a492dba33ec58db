/*
 * draft_policy.c: what the deciding on guesses (src/engine/drafting.h) makes of answers that are known, on a machine
 * whose times are told: no disk and no neighbour disturbs it.
 *
 *   bench/drafting --model MODEL --memory SIZE --answers FILE      # the answers
 *   build/draft_policy FILE [--token SHARE] [--free N] [--in-memory] [--draft SHARE --holds SHARE] [--draws N]
 *                      [--waits SHARE] [--nodes N] [--leaves N] [--table FILE] [--prompts]
 *
 * --token     what a token more in a pass costs, of a pass over one (1/32)
 * --free      so many tokens more cost nothing (0): computing hides behind reading
 * --waits     so much of a pass without guesses waits for reads, which is told (not told)
 * --in-memory the model does not stream: what is taken for known at first
 * --draft     beside earlier text a drafter guesses that takes so much of a pass for a token, and
 * --holds     of whose tokens so many are right, drawn anew N times (10)
 * --nodes     tokens of a tree (0: chains alone)
 * --leaves    of these, such that nothing follows (all)
 * --table     a table of next tokens (powerinfer2 guesses)
 * --prompts   each answer, not only all together
 *
 * Of each answer: times the speed without guesses. Linked with --wrap=pi2_clock_ns: the clock is this program's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/little_endian.h"
#include "engine/drafting.h"
#include "engine/session_internal.h"

enum { MOST_TOKENS = 8192, LINE_BYTES = 1 << 17, GUESSED = 8, WRONG = INT32_MAX };
static const double pass_ns = 1e8;
static const double hit_memory = 1.0 / 32;

typedef struct policy_settings {
    const char *path;
    double token, waits, draft, holds;
    unsigned long draws, nodes, leaves, free;
    pi2_next_table *table;
    bool in_memory, prompts;
} policy_settings;

/** An answer: a line of its name, how many tokens the prompt has, and both tokens. */
typedef struct known_answer {
    char name[64];
    int32_t tokens[MOST_TOKENS];
    uint32_t prompt, count;
} known_answer;

/** The one that is played. */
static struct {
    const policy_settings *settings;
    const known_answer *answer;
    uint32_t at;          /* the token that was just picked */
    uint64_t clock_ns, random, passes, guessed, played;
    double chance;        /* that a token of the drafter's is right, as far as it knows */
} play;

uint64_t __wrap_pi2_clock_ns(void);
uint64_t __wrap_pi2_clock_ns(void) { return play.clock_ns; }

static double next_random(void) {
    play.random = play.random * 6364136223846793005u + 1442695040888963407u;
    return (double)(play.random >> 33) / 2147483648.0;
}

/* ---- the drafter that takes time ---- */

static size_t told_bytes(const struct pi2_planned_run *run, uint32_t context_tokens) {
    (void)run;
    (void)context_tokens;
    return play.settings->draft > 0 ? sizeof play.chance : 0;
}

static pi2_status begin_told(struct pi2_session *session, void **state_out) {
    (void)session;
    play.chance = 0.5;
    *state_out = &play.chance;
    return PI2_OK;
}

static void end_told(void *state) { (void)state; }

static pi2_status propose_told(void *state, const pi2_draft_text *text, const pi2_draft_wish *wish,
                               pi2_draft *draft_out) {
    (void)state;
    (void)text;
    const known_answer *known = play.answer;
    double reach = play.chance;
    draft_out->count = 0;
    for (uint32_t i = 0; i < wish->most && reach >= wish->least_reach; i++, reach *= play.chance) {
        const uint32_t next = play.at + 1 + i;
        const bool is_right = next_random() < play.settings->holds && next < known->count;
        play.clock_ns += (uint64_t)(play.settings->draft * pass_ns);
        draft_out->tokens[i] = is_right ? known->tokens[next] : WRONG;
        draft_out->chances[i] = (float)play.chance;
        draft_out->count = i + 1;
    }
    return PI2_OK;
}

static void judge_told(void *state, uint32_t checked, uint32_t right, const uint8_t *path) {
    (void)path;
    (void)state;
    for (uint32_t i = 0; i < checked && i <= right; i++) play.chance += hit_memory * ((i < right) - play.chance);
}

static void follow_told(void *state, const void *from) {
    (void)state;
    (void)from;
}

static const pi2_drafter_kind told_kind = {
    .name = "told", .costs = true, .bytes = told_bytes, .begin = begin_told, .end = end_told,
    .propose = propose_told, .judge = judge_told, .follow = follow_told,
};

/* ---- an answer ---- */

/** A guess, and what of it turned out right. */
typedef struct played_guess {
    uint32_t count, right;
    int32_t tokens[PI2_DRAFT_NODES_MOST];
    uint8_t parents[PI2_DRAFT_NODES_MOST], path[PI2_DRAFT_NODES_MOST];
} played_guess;

/* Whether the answer's next token was guessed behind those that were right. */
static bool find_right(const played_guess *guess, int32_t token, uint8_t *at_out) {
    const uint32_t parent = guess->right ? guess->path[guess->right - 1] + 1u : 0;
    for (uint32_t i = 0; i < guess->count; i++) {
        if (guess->parents[i] != parent || guess->tokens[i] != token) continue;
        *at_out = (uint8_t)i;
        return true;
    }
    return false;
}

/* Passes over the answer; returns the time that they took. */
static double play_answer(pi2_drafting *drafting, pi2_draft_times *times, const known_answer *known) {
    pi2_drafting_push(drafting, known->tokens, known->prompt);
    play.clock_ns = 0;
    for (play.at = known->prompt; play.at < known->count;) {
        played_guess guess = { .count = 0 };
        pi2_drafting_push(drafting, known->tokens + play.at, 1);
        const uint32_t most = play.settings->nodes ? PI2_DRAFT_NODES_MOST : GUESSED;
        if (pi2_drafting_guess(drafting, most, guess.tokens, guess.parents, &guess.count) != PI2_OK) abort();
        const unsigned long dear = guess.count > play.settings->free ? guess.count - play.settings->free : 0;
        const uint64_t time = (uint64_t)(pass_ns * (1 + play.settings->token * (double)dear));
        play.clock_ns += time;
        play.passes++;
        play.guessed += guess.count;
        pi2_drafting_note_pass(drafting, guess.count, 0, time);
        if (guess.count == 0 && play.settings->waits > 0) pi2_draft_times_tell(times, play.settings->waits);
        play.at++;
        uint8_t at = 0;
        while (play.at < known->count && find_right(&guess, known->tokens[play.at], &at)) {
            guess.path[guess.right++] = at;
            pi2_drafting_push(drafting, known->tokens + play.at++, 1);
        }
        const bool is_wrong = play.at < known->count;
        if (guess.count) pi2_drafting_note_guess(drafting, guess.right + is_wrong, guess.right, guess.path);
    }
    play.played += known->count - known->prompt;
    return (double)play.clock_ns;
}

/* What drafters look at of a session. */
static void fill_session(struct pi2_session *session, pi2_engine *engine, pi2_model *model) {
    session->engine = engine;
    engine->next_table = play.settings->table;
    engine->run.plan.memory.shape.context_tokens = MOST_TOKENS;
    engine->run.source.model = model;
    model->shape.vocabulary_size = play.settings->table ? play.settings->table->count : 1;
}

/* Times the speed without guesses; least_out: of the draws. */
static double measure(const policy_settings *settings, const known_answer *known, double *least_out) {
    static const pi2_drafter_kind *const kinds[] = { &pi2_drafter_ngram, &told_kind, &pi2_drafter_tree, NULL };
    static struct pi2_session session;
    static pi2_engine engine;
    static pi2_model model;
    static pi2_draft_times learnt;
    const double plain_ns = pass_ns * (known->count - known->prompt);
    double sum = 0;
    *least_out = 1e9;
    for (unsigned long draw = 0; draw < settings->draws; draw++) {
        const pi2_drafting_options options = { .kinds = kinds, .reads = !settings->in_memory, .session = &session,
                                               .times = &learnt, .context_tokens = MOST_TOKENS, .most = GUESSED,
                                               .trees = settings->nodes > 0, .nodes = (uint32_t)settings->nodes,
                                               .leaves = (uint32_t)settings->leaves };
        pi2_drafting *drafting = NULL;
        learnt = (pi2_draft_times){ .token_share = 0 };
        fill_session(&session, &engine, &model);
        play.random = draw * 977 + known->count;
        play.answer = known;
        if (pi2_drafting_create(&options, &drafting) != PI2_OK) abort();
        const double times = plain_ns / play_answer(drafting, &learnt, known);
        pi2_drafting_free(drafting);
        sum += times;
        if (times < *least_out) *least_out = times;
    }
    return sum / (double)settings->draws;
}

static bool parse_answer(char *line, known_answer *known) {
    char *at = line, *end;
    int used = 0;
    if (sscanf(line, "%63s %u%n", known->name, &known->prompt, &used) != 2) return false;
    for (at += used, known->count = 0; known->count < MOST_TOKENS; at = end) {
        const long token = strtol(at, &end, 10);
        if (end == at) break;
        known->tokens[known->count++] = (int32_t)token;
    }
    return known->prompt < known->count;
}

static int run(const policy_settings *settings) {
    static char line[LINE_BYTES];
    static known_answer known;
    FILE *file = fopen(settings->path, "r");
    double time = 0, worst = 1e9, least_of_all = 1e9;
    char worst_name[sizeof known.name] = "";
    unsigned answers = 0, below = 0;
    if (!file) {
        (void)fprintf(stderr, "draft_policy: cannot read %s\n", settings->path);
        return 1;
    }
    play.settings = settings;
    while (fgets(line, sizeof line, file)) {
        double least;
        if (!parse_answer(line, &known)) continue;
        const double times = measure(settings, &known, &least);
        if (settings->prompts) printf("%s: %.3f, of a draw %.3f at least\n", known.name, times, least);
        answers++;
        time += 1 / times;
        below += times < 0.97;
        if (least < least_of_all) least_of_all = least;
        if (times >= worst) continue;
        worst = times;
        memcpy(worst_name, known.name, sizeof worst_name);
    }
    (void)fclose(file);
    if (answers == 0) {
        (void)fprintf(stderr, "draft_policy: %s has no answers (bench/drafting --answers)\n", settings->path);
        return 1;
    }
    printf("%u answers: %.3f times the speed without guesses, worst %.3f (%s), of a draw %.3f; below 0.97: %u; "
           "%.2f tokens a pass, %.1f guessed for each\n",
           answers, answers / time, worst, worst_name, least_of_all, below, (double)play.played / (double)play.passes,
           (double)play.guessed / (double)play.passes);
    return 0;
}

/* A table of whatever model: the header says how many tokens it has. */
static pi2_next_table *open_table(const char *path) {
    uint8_t header[PI2_NEXT_HEADER_BYTES];
    pi2_next_table *table = NULL;
    FILE *file = fopen(path, "rb");
    const bool is_read = file && fread(header, 1, sizeof header, file) == sizeof header;
    if (file) (void)fclose(file);
    if (is_read && pi2_next_table_read(path, pi2_load_le64(header + PI2_NEXT_AT_HASH),
                                       pi2_load_le32(header + PI2_NEXT_AT_COUNT), &table) == PI2_OK) {
        return table;
    }
    (void)fprintf(stderr, "draft_policy: %s: %s\n", path, is_read ? pi2_error_text() : "cannot be read");
    exit(1);
}

int main(int argc, char **argv) {
    policy_settings settings = { .token = 1.0 / 32, .draws = 10, .leaves = PI2_DRAFT_NODES_MOST };
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--in-memory") == 0) settings.in_memory = true;
        else if (strcmp(argv[i], "--prompts") == 0) settings.prompts = true;
        else if (argv[i][0] != '-') settings.path = argv[i];
        else {
            if (strcmp(argv[i], "--token") == 0) settings.token = strtod(value, NULL);
            else if (strcmp(argv[i], "--draft") == 0) settings.draft = strtod(value, NULL);
            else if (strcmp(argv[i], "--holds") == 0) settings.holds = strtod(value, NULL);
            else if (strcmp(argv[i], "--draws") == 0) settings.draws = strtoul(value, NULL, 10);
            else if (strcmp(argv[i], "--nodes") == 0) settings.nodes = strtoul(value, NULL, 10);
            else if (strcmp(argv[i], "--waits") == 0) settings.waits = strtod(value, NULL);
            else if (strcmp(argv[i], "--leaves") == 0) settings.leaves = strtoul(value, NULL, 10);
            else if (strcmp(argv[i], "--free") == 0) settings.free = strtoul(value, NULL, 10);
            else if (strcmp(argv[i], "--table") == 0) settings.table = open_table(value);
            else settings.draws = 0;
            i++;
        }
    }
    if (settings.path && settings.draws > 0) return run(&settings);
    (void)fprintf(stderr, "usage: draft_policy FILE [--token SHARE] [--free N] [--in-memory] [--draft SHARE "
                          "--holds SHARE] [--draws N] [--waits SHARE] "
                          "[--nodes N] [--leaves N] [--table FILE] [--prompts]\n");
    return 2;
}
