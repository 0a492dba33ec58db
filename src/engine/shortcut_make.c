/*
 * shortcut_make.c: a model's shortcut is made of it (powerinfer2/model_shortcut.h): first the model writes, and the map
 * is fitted to what its layers read; then another engine, with the map, guesses for answers that were held back.
 */
#include "powerinfer2/model_shortcut.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/parse_size.h"
#include "engine/next_learnt.h"
#include "engine/run_draft.h"
#include "engine/session_internal.h"
#include "engine/shortcut_file.h"
#include "engine/shortcut_texts.h"
#include "powerinfer2/session.h"

enum { SEQUENCES = 16, RUN_GUESSES = 8, NAMED = 8 };
/* Of 22 layers those that were best for their memory: 2 at the beginning, 6 at the end. */
enum { KEPT_OF = 22, KEPT = 8, KEPT_FIRST_OF = 4 };

typedef struct shortcut_maker {
    const pi2_engine_options *options;
    const pi2_shortcut_request *request;
    pi2_shortcut_report *report;
    pi2_engine *engine;
    pi2_shortcut_fit *fit;
    pi2_held_text *held;         /* [PI2_HELD_TEXTS] */
    pi2_output_request output;
    const char *inputs[2];
} shortcut_maker;

/* ---- which layers ---- */

/* What a run has for weights that stay, beside a map and its guesses. Errors as pi2_planned_run_spend() */
static pi2_status find_room(pi2_planned_run *run, uint64_t *room_out) {
    const pi2_engine_options asked = run->options;
    run->options.sequences = 1;
    run->options.context_tokens = 0;
    run->options.draft_tokens = RUN_GUESSES;
    run->options.draft_nodes = PI2_DRAFT_NODES_CHOSEN;
    run->options.beside_bytes += pi2_shortcut_bytes(run->source.model->shape.embedding_length);
    const pi2_status status = pi2_planned_run_spend(run);
    const pi2_memory_plan *plan = &run->plan.memory;
    *room_out = plan->everything_resident ? UINT64_MAX : pi2_run_kept_room(run, plan);
    run->options = asked;
    return status;
}

/* The layers that are left out where so many are kept. */
static void leave_out(const pi2_model_shape *shape, uint32_t kept, pi2_shortcut_report *report) {
    const uint32_t first = kept > 1 ? (kept + KEPT_FIRST_OF - 1) / KEPT_FIRST_OF : 1;
    report->first_layer = first;
    report->end_layer = shape->layer_count - (kept - first);
}

static pi2_status check_layers(const shortcut_maker *maker, const pi2_planned_run *run) {
    const uint32_t first = maker->request->first_layer, end = maker->request->end_layer;
    const uint32_t count = run->source.model->shape.layer_count;
    if (first < end && end <= count && end - first < count) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "layers %u to %u cannot be left out of %s, which has %u: give the first of them "
                    "and the first behind them, and keep one", first, end, run->source.model_path, count);
}

/* What is asked for, or as many as there is room for. */
static pi2_status choose_layers(const shortcut_maker *maker, pi2_planned_run *run) {
    const pi2_model_shape *shape = &run->source.model->shape;
    pi2_shortcut_report *report = maker->report;
    const bool is_asked = maker->request->first_layer || maker->request->end_layer;
    uint32_t kept = (shape->layer_count * KEPT + KEPT_OF / 2) / KEPT_OF;
    uint64_t room;
    char needs[PI2_SIZE_TEXT_BYTES], has[PI2_SIZE_TEXT_BYTES];
    if (is_asked) PI2_TRY(check_layers(maker, run));
    if (shape->layer_count < 2) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s has one layer: there is none to leave out", run->source.model_path);
    }
    PI2_TRY(find_room(run, &room));
    report->layer_count = shape->layer_count;
    if (kept < 2) kept = 2;
    if (kept >= shape->layer_count) kept = shape->layer_count - 1;
    for (;; kept--) {
        leave_out(shape, kept, report);
        if (is_asked) {
            report->first_layer = maker->request->first_layer;
            report->end_layer = maker->request->end_layer;
        }
        report->kept_bytes = pi2_run_kept_bytes(run->source.model->layout, report->first_layer, report->end_layer);
        if (report->kept_bytes <= room) return PI2_OK;
        if (is_asked || kept == 1) break;
    }
    return pi2_fail(PI2_ERR_MEMORY, "the layers that would guess, %u of %u, and the head take %s, and the budget has "
                    "%s for weights that stay: give more memory%s",
                    report->layer_count - report->end_layer + report->first_layer, report->layer_count,
                    pi2_format_size(report->kept_bytes, needs), pi2_format_size(room, has),
                    is_asked ? ", or leave out more layers" : "");
}

/* ---- what the map is made of ---- */

/* As many texts at a time as there is room for. */
static pi2_status fit_budget(pi2_planned_run *run) {
    const uint32_t width = run->source.model->shape.embedding_length;
    const uint64_t beside = run->options.beside_bytes +
                            pi2_shortcut_fit_bytes(width, run->plan.thread_count) +
                            PI2_HELD_TEXTS * sizeof(pi2_held_text);
    for (uint32_t sequences = SEQUENCES;; sequences /= 2) {
        run->options.sequences = sequences;
        run->options.beside_bytes = beside + pi2_shortcut_texts_bytes(width, sequences);
        const pi2_status status = pi2_planned_run_spend(run);
        if (status != PI2_ERR_MEMORY || sequences == 1) return status;
    }
}

static pi2_status find_place(shortcut_maker *maker, const pi2_planned_run *run) {
    char *path = maker->report->path;
    const char *asked = maker->request->output_path;
    const int length = asked ? snprintf(path, PI2_SHORTCUT_PATH_BYTES, "%s", asked) : 0;
    if (asked ? length < 0 || length >= PI2_SHORTCUT_PATH_BYTES
              : !pi2_path_beside_model(run, "shortcut", path, PI2_SHORTCUT_PATH_BYTES)) {
        return pi2_fail(PI2_ERR_INVALID, "the path of the shortcut is too long");
    }
    maker->inputs[0] = maker->options->model_path;
    maker->output = (pi2_output_request){ .path = path, .kind = &pi2_shortcut_output_kind, .inputs = maker->inputs };
    return pi2_output_check_ahead(&maker->output);
}

static pi2_status adjust(void *user, pi2_planned_run *run) {
    shortcut_maker *maker = user;
    PI2_TRY(find_place(maker, run));
    PI2_TRY(pi2_shortcut_file_suits(maker->report->path, &run->source));
    PI2_TRY(choose_layers(maker, run));
    run->keeps_inputs = true;
    run->kept_inputs[0] = maker->report->first_layer;
    run->kept_inputs[1] = maker->report->end_layer;
    return fit_budget(run);
}

/* The caller's, but for what is chosen here. */
static pi2_engine_options own_options(const pi2_engine_options *options) {
    pi2_engine_options own = *options;
    own.context_tokens = PI2_SHORTCUT_CONTEXT;
    own.sequences = 1;
    own.logits_tokens = 1;
    own.draft_tokens = 0;
    own.draft_model_path = NULL;
    own.sparsity = "off";
    own.predictor = NULL;
    return own;
}

static pi2_status learn(shortcut_maker *maker) {
    const pi2_engine_options options = own_options(maker->options);
    PI2_TRY(pi2_engine_open_adjusted(&options, adjust, maker, &maker->engine));
    PI2_TRY(pi2_shortcut_fit_create(maker->engine->run.source.model->shape.embedding_length, maker->engine->team,
                                    &maker->fit));
    const pi2_shortcut_texts texts = { .engine = maker->engine, .fit = maker->fit, .paths = maker->request->texts,
                                       .tokens = maker->request->tokens, .held = maker->held };
    PI2_TRY(pi2_shortcut_texts_run(&texts));
    maker->report->tokens = pi2_shortcut_fit_count(maker->fit);
    return pi2_shortcut_fit_solve(maker->fit, &maker->engine->run.options.callbacks);
}

static void row_of(const void *user, uint32_t row, float *out) { pi2_shortcut_fit_row(user, row, out); }

static pi2_status write_map(const shortcut_maker *maker, pi2_output_file *file) {
    const pi2_run_source *source = &maker->engine->run.source;
    const pi2_shortcut_values values = {
        .model_hash = source->header_hash, .layer_count = source->model->shape.layer_count,
        .width = source->model->shape.embedding_length, .first_layer = maker->report->first_layer,
        .end_layer = maker->report->end_layer, .bias = pi2_shortcut_fit_bias(maker->fit),
        .scales = pi2_shortcut_fit_scales(maker->fit), .row = row_of, .user = maker->fit };
    return pi2_shortcut_file_write(&values, file);
}

/* ---- how often it is right ---- */

/* What the shortcut says behind a token, the text before which the session has. */
static pi2_status name_next(pi2_session *session, int32_t token, uint32_t ids[PI2_LEARNT_WIDTH],
                            uint32_t *count_out) {
    const pi2_engine *engine = session->engine;
    const pi2_session_branches none = { .count = 0 };
    float values[PI2_LEARNT_WIDTH];
    uint8_t rows[PI2_DRAFT_PLACES];
    pi2_engine_take_turn(session->engine);
    const pi2_status status = pi2_session_run_short(session, token, &none, rows);
    if (status == PI2_OK) {
        *count_out = pi2_next_likeliest(pi2_forward_logits_at(engine->forward, 0), engine->run.report.vocabulary_size,
                                        values, ids);
    }
    pi2_engine_end_turn(session->engine);
    return status;
}

static void note(pi2_shortcut_report *report, const uint32_t *ids, uint32_t count, uint32_t right) {
    report->counted++;
    for (uint32_t i = 0; i < count && i < NAMED; i++) {
        if (ids[i] != right) continue;
        report->among_eight++;
        report->first += i == 0;
    }
}

/* From the end on: what is before a token is as the model left it. */
static pi2_status count_text(pi2_session *session, const pi2_held_text *held, pi2_shortcut_report *report) {
    const pi2_callbacks *callbacks = &session->engine->run.options.callbacks;
    uint32_t ids[PI2_LEARNT_WIDTH], count = 0;
    PI2_TRY(pi2_session_truncate(session, 0));
    PI2_TRY(pi2_session_append(session, held->tokens, held->count, PI2_LOGITS_LAST)); /* the head comes too */
    for (uint32_t next = held->count - 1; next >= held->answer && next > 0; next--) {
        if (callbacks->cancelled && callbacks->cancelled(callbacks->user)) {
            return pi2_fail(PI2_ERR_INTERRUPTED, "interrupted");
        }
        PI2_TRY(pi2_session_truncate(session, next - 1));
        if (!pi2_forward_has_shortcut(session->engine->forward)) return PI2_OK;
        PI2_TRY(name_next(session, held->tokens[next - 1], ids, &count));
        note(report, ids, count, (uint32_t)held->tokens[next]);
    }
    return PI2_OK;
}

static pi2_status count_texts(const shortcut_maker *maker, pi2_engine *engine) {
    const pi2_callbacks *callbacks = &engine->run.options.callbacks;
    pi2_session *session = NULL;
    if (!engine->shortcut) return PI2_OK; /* the log says why */
    PI2_TRY(pi2_session_create(engine, NULL, &session));
    pi2_status status = PI2_OK;
    for (uint32_t i = 0; i < PI2_HELD_TEXTS && status == PI2_OK; i++) {
        if (callbacks->progress) callbacks->progress(callbacks->user, "counting", i, PI2_HELD_TEXTS);
        if (maker->held[i].count > 1) status = count_text(session, &maker->held[i], maker->report);
    }
    pi2_session_free(session);
    return status;
}

static pi2_status count(const shortcut_maker *maker, const char *path) {
    pi2_engine_options options = own_options(maker->options);
    pi2_engine *engine = NULL;
    options.draft_tokens = RUN_GUESSES;
    options.draft_nodes = 0;
    options.draft_model_path = path;
    options.draft_always = true;
    PI2_TRY(pi2_engine_open(&options, &engine));
    const pi2_status status = count_texts(maker, engine);
    pi2_engine_close(engine);
    return status;
}

/* ---- all of it ---- */

static void forget(shortcut_maker *maker) {
    pi2_shortcut_fit_free(maker->fit);
    pi2_engine_close(maker->engine);
    maker->fit = NULL;
    maker->engine = NULL;
}

static pi2_status write_and_count(shortcut_maker *maker) {
    pi2_output_file file = { .stream = NULL };
    PI2_TRY(pi2_output_file_open(&file, &maker->output));
    pi2_status status = write_map(maker, &file);
    forget(maker);
    if (status == PI2_OK && fflush(file.stream) == 0 && !file.error_number) status = count(maker, file.temporary_path);
    if (status == PI2_OK) return pi2_output_file_finish(&file); /* which tells of what could not be written */
    pi2_output_file_discard(&file);
    return status;
}

pi2_status pi2_shortcut_make(const pi2_engine_options *options, const pi2_shortcut_request *request,
                             pi2_shortcut_report *report_out) {
    shortcut_maker maker = { .options = options, .request = request, .report = report_out };
    memset(report_out, 0, sizeof *report_out);
    maker.held = calloc(PI2_HELD_TEXTS, sizeof *maker.held);
    pi2_status status = maker.held ? learn(&maker) : pi2_fail(PI2_ERR_MEMORY, "no memory for texts");
    if (status == PI2_OK) status = write_and_count(&maker);
    forget(&maker);
    free(maker.held);
    return status;
}
