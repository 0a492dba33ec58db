/* memory_relief.c: when weights leave memory and return; see memory_relief.h. */
#include "engine/memory_relief.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fail.h"
#include "base/memory_limit.h"
#include "base/pages.h"
#include "base/parse_size.h"
#include "engine/engine_internal.h"

enum {
    STEPS = 16,                     /* planned bytes are this many steps */
    PASSES_TO_READ = 2              /* after which what was taken again has been read */
};
static const uint64_t look_every_ns = 25000000, calm_ns = 3000000000, tell_every_ns = 10000000000;

struct pi2_memory_relief {
    pi2_memory_pressure *pressure;
    pi2_relief_decision decision;
    uint64_t next_look_ns, next_tell_ns;
    uint64_t owed_bytes;            /* should have been given back, and could not leave yet */
    uint64_t given_count, given_bytes, taken_bytes;
    uint64_t all_bytes;             /* of weights that can move, with what the key-value cache lends */
    uint32_t positions_ahead;       /* of the cache, for which weights should leave its room */
    uint64_t piece_bytes;           /* the most that moves at once */
    const char *source;             /* what was short last */
    bool can_give;
    bool told_refusal;
    uint64_t (*simulated)(void *user, uint64_t planned_bytes);
    void *simulated_user;
    char description[256];
};

/* ---- deciding ---- */

static uint64_t lesser(uint64_t a, uint64_t b) { return a < b ? a : b; }

int64_t pi2_relief_decide(pi2_relief_decision *decision, const pi2_memory_reading *reading, uint64_t now_ns,
                          uint64_t held_bytes) {
    const int64_t level = (int64_t)reading->spare - (int64_t)reading->missing;
    const int64_t fall = decision->last_level - level;
    decision->last_level = level;
    if (decision->calm_since_ns == 0) decision->calm_since_ns = now_ns;
    if (reading->missing > 0 || reading->urgent) {
        decision->calm_since_ns = now_ns;
        uint64_t give = reading->missing + (fall > 0 && reading->missing > 0 ? (uint64_t)fall : 0);
        if (give < decision->step_bytes) give = decision->step_bytes;
        const uint64_t most = held_bytes > decision->least_bytes ? held_bytes - decision->least_bytes : 0;
        return -(int64_t)lesser(give, most);
    }
    const uint64_t away = decision->planned_bytes > held_bytes ? decision->planned_bytes - held_bytes : 0;
    if (away == 0 || now_ns - decision->calm_since_ns < calm_ns) return 0;
    if (decision->passes - decision->taken_at_pass < PASSES_TO_READ) return 0;
    if (reading->spare < decision->step_bytes) return 0;
    decision->taken_at_pass = decision->passes;
    return (int64_t)lesser(decision->step_bytes, away);
}

/* ---- moving ---- */

/* Planned bytes that are away: not those whose loan is over. */
static uint64_t away_bytes(const pi2_engine *engine) {
    const uint64_t away = pi2_store_away_bytes(engine->store), returned = engine->run.plan.loan_returned_bytes;
    return away > returned ? away - returned : 0;
}

/* Position of the sequence that a pass has not come to when it is done with so many layers. */
static uint32_t position_after(const pi2_engine *engine, uint32_t layers_done) {
    if (layers_done == UINT32_MAX) return UINT32_MAX;
    const pi2_extent_layout *layout = engine->run.source.model->layout;
    uint32_t position = 0;
    while (position < engine->run.plan.head_begin &&
           layout->groups[layout->extents[engine->run.plan.sequence[position]].group].layer < layers_done) position++;
    return position;
}

static void note_memory(pi2_engine *engine) {
    pi2_timeline *trace = pi2_run_trace_events(engine->traces.run);
    if (trace) pi2_timeline_memory(trace, engine->relief->decision.planned_bytes - away_bytes(engine), pi2_clock_ns());
}

/* A line when weights begin to leave and when all are back, not more often than every ten seconds. */
static void tell(pi2_engine *engine, const char *source, bool had_all) {
    pi2_memory_relief *relief = engine->relief;
    const uint64_t away = away_bytes(engine), now = pi2_clock_ns();
    char size[PI2_SIZE_TEXT_BYTES];
    if (had_all == (away == 0) || now < relief->next_tell_ns) return;
    relief->next_tell_ns = now + tell_every_ns;
    if (had_all) {
        pi2_planned_run_log(&engine->run, "memory is short (%s): %s of weights were given back and are read again for "
                            "each token", source ? source : "simulated", pi2_format_size(away, size));
    } else {
        pi2_planned_run_log(&engine->run, "memory is there again: all planned weights are kept");
    }
}

static void give_back(pi2_engine *engine, uint32_t layers_done, const char *source) {
    pi2_memory_relief *relief = engine->relief;
    const uint64_t away_before = away_bytes(engine);
    const uint64_t given = pi2_store_give_back(engine->store, position_after(engine, layers_done), relief->owed_bytes);
    relief->owed_bytes -= lesser(relief->owed_bytes, given);
    const uint64_t left = away_bytes(engine) - away_before;
    if (left == 0) return;
    relief->given_count++;
    relief->given_bytes += left;
    note_memory(engine);
    tell(engine, source, away_before == 0);
}

static void take_again(pi2_engine *engine, uint32_t layers_done, uint64_t bytes) {
    pi2_memory_relief *relief = engine->relief;
    relief->owed_bytes = 0;
    /* A piece is taken whole: the last one would reach into the key-value cache's room. */
    if (engine->run.plan.loan_returned_bytes && away_bytes(engine) < relief->piece_bytes) return;
    const uint64_t taken = pi2_store_take_again(engine->store, position_after(engine, layers_done), bytes);
    if (taken == 0) return;
    relief->taken_bytes += taken;
    note_memory(engine);
    tell(engine, NULL, false);
}

/* ---- what the key-value cache lends ---- */

/* Weights leave, for a cache of so many positions; what is on its way stays. */
static void return_loan(pi2_engine *engine, uint32_t positions, uint32_t layers_done) {
    pi2_memory_relief *relief = engine->relief;
    const uint64_t wanted = pi2_run_plan_loan_due(&engine->run, positions);
    const uint64_t before = pi2_store_away_bytes(engine->store);
    if (wanted == 0) return;
    (void)pi2_store_give_back(engine->store, position_after(engine, layers_done), wanted);
    const uint64_t left = pi2_store_away_bytes(engine->store) - before;
    if (left == 0) return;
    engine->run.plan.loan_returned_bytes += left;
    const uint64_t returned = engine->run.plan.loan_returned_bytes;
    relief->decision.planned_bytes = relief->all_bytes - lesser(returned, relief->all_bytes);
    note_memory(engine);
}

/*
 * What the next pass has in the ring already holds weights before it in place. So they are asked to
 * leave a pass ahead, and leave while that pass runs; where a pass is longer than the one before, the
 * ring is emptied.
 */
void pi2_engine_end_loan(pi2_engine *engine, uint32_t positions, uint32_t next) {
    pi2_memory_relief *relief = engine->relief;
    if (!relief || !relief->can_give || engine->run.plan.memory.loan_bytes == 0) return;
    relief->positions_ahead = positions < UINT32_MAX - next ? positions + next : UINT32_MAX;
    return_loan(engine, relief->positions_ahead, UINT32_MAX);
    if (pi2_run_plan_loan_due(&engine->run, positions) == 0) return;
    pi2_weight_store_reset(engine->weight_store);
    return_loan(engine, positions, UINT32_MAX);
}

/* ---- following what is short ---- */

static void follow_simulation(pi2_engine *engine, uint32_t layers_done) {
    pi2_memory_relief *relief = engine->relief;
    const uint64_t planned = relief->decision.planned_bytes;
    const uint64_t wanted = relief->simulated(relief->simulated_user, planned), held = planned - away_bytes(engine);
    relief->owed_bytes = held > wanted ? held - wanted : 0;
    if (relief->owed_bytes) give_back(engine, layers_done, NULL);
    else if (held < wanted) take_again(engine, layers_done, wanted - held);
}

static void tell_refusal(pi2_engine *engine, const pi2_memory_reading *reading) {
    pi2_memory_relief *relief = engine->relief;
    if (relief->told_refusal || (!reading->missing && !reading->urgent)) return;
    relief->told_refusal = true;
    pi2_planned_run_log(&engine->run, "memory is short (%s), but %s", reading->source ? reading->source : "?",
                   relief->description);
}

void pi2_engine_relieve(pi2_engine *engine, uint32_t layers_done) {
    pi2_memory_relief *relief = engine->relief;
    if (!relief) return;
    if (layers_done == UINT32_MAX) relief->decision.passes++;
    else if (relief->positions_ahead) return_loan(engine, relief->positions_ahead, layers_done);
    if (relief->simulated) {
        if (relief->can_give) follow_simulation(engine, layers_done);
        return;
    }
    if (relief->owed_bytes) give_back(engine, layers_done, relief->source); /* the pass may have come further */
    const uint64_t now = pi2_clock_ns();
    if (!relief->pressure || now < relief->next_look_ns) return;
    relief->next_look_ns = now + look_every_ns;
    pi2_memory_reading reading;
    const uint64_t unread = relief->can_give ? pi2_store_unread_bytes(engine->store) : 0;
    pi2_memory_pressure_ask(relief->pressure, now, unread, &reading);
    if (!relief->can_give) {
        tell_refusal(engine, &reading);
        return;
    }
    const uint64_t planned = relief->decision.planned_bytes;
    const int64_t move = pi2_relief_decide(&relief->decision, &reading, now, planned - away_bytes(engine));
    if (move > 0) {
        take_again(engine, layers_done, (uint64_t)move);
    } else if (move < 0) {
        if (relief->owed_bytes < (uint64_t)-move) relief->owed_bytes = (uint64_t)-move;
        relief->source = reading.source;
        give_back(engine, layers_done, relief->source);
    } else {
        relief->owed_bytes = 0;
    }
}

/* ---- starting ---- */

static void find_bounds(pi2_engine *engine) {
    pi2_memory_relief *relief = engine->relief;
    pi2_relief_decision *decision = &relief->decision;
    const pi2_store_bounds bounds = pi2_store_find_bounds(engine->store);
    decision->planned_bytes = bounds.planned_bytes;
    decision->least_bytes = bounds.least_bytes;
    decision->step_bytes = bounds.piece_bytes;
    relief->all_bytes = decision->planned_bytes;
    relief->piece_bytes = decision->step_bytes;
    if (decision->step_bytes < decision->planned_bytes / STEPS) {
        decision->step_bytes = decision->planned_bytes / STEPS;
    }
}

pi2_status pi2_engine_start_relief(pi2_engine *engine) {
    if (engine->run.options.keep_memory) return PI2_OK;
    engine->relief = calloc(1, sizeof *engine->relief);
    if (!engine->relief) return pi2_fail(PI2_ERR_MEMORY, "no memory to watch the memory with");
    pi2_memory_relief *relief = engine->relief;
    relief->can_give = pi2_store_options_of(engine->store)->reader != NULL;
    PI2_TRY(pi2_memory_pressure_open("", &relief->pressure));
    uint64_t peak = 0, current = 0;
    (void)pi2_process_memory(&peak, &current);
    const uint64_t budget = engine->run.report.budget_bytes;
    pi2_memory_pressure_expect(relief->pressure, budget > current ? budget - current : 0);
    find_bounds(engine);
    if (relief->can_give) {
        (void)snprintf(relief->description, sizeof relief->description, "%s",
                       pi2_memory_pressure_description(relief->pressure));
    } else {
        (void)snprintf(relief->description, sizeof relief->description, "weights that came from a GGUF cannot be given "
                       "back and read again: 'powerinfer2 prepare' makes a cluster file that can");
    }
    return PI2_OK;
}

void pi2_memory_relief_free(pi2_memory_relief *relief) {
    if (!relief) return;
    pi2_memory_pressure_close(relief->pressure);
    free(relief);
}

size_t pi2_memory_relief_bytes(void) { return sizeof(pi2_memory_relief) + 8192; }

void pi2_memory_relief_count(const pi2_engine *engine, pi2_engine_counters *counters) {
    const pi2_memory_relief *relief = engine->relief;
    if (!relief) return;
    counters->give_backs = relief->given_count;
    counters->bytes_given_back = relief->given_bytes;
    counters->bytes_taken_again = relief->taken_bytes;
    counters->bytes_away = away_bytes(engine);
}

const char *pi2_memory_relief_description(const pi2_engine *engine) {
    return engine->relief ? engine->relief->description : "not watched, as asked for";
}

void pi2_engine_simulate_pressure(pi2_engine *engine, uint64_t (*wanted)(void *user, uint64_t planned_bytes),
                                  void *user) {
    if (!engine->relief) return;
    engine->relief->simulated = wanted;
    engine->relief->simulated_user = user;
}
