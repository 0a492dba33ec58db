/*
 * profile.c: texts through the model, chunk by chunk, and what their neurons gave into a file. Chunks are independent,
 * so counts of a text that was begun go on at its next chunk as if there had been no end between.
 */
#include "powerinfer2/profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fail.h"
#include "base/whole_file.h"
#include "engine/engine_internal.h"
#include "engine/neuron_tally.h"

typedef struct profile_text {
    const char *path;
    uint64_t bytes, hash;
} profile_text;

typedef struct profile_run {
    pi2_engine *engine;
    const pi2_profile_options *options;
    profile_text *texts;
    size_t text_count;
    pi2_neuron_statistics statistics;
    pi2_neuron_tally *tally;
    pi2_session *session;
    uint64_t counted_now;        /* tokens, in this call */
    uint64_t bytes_before, bytes_total; /* of the texts before this one; of all */
    /* the text that is read */
    FILE *file;
    const profile_text *text;
    pi2_statistics_text *record;
    uint64_t bytes_read, bytes_told, seen; /* of it; told as progress; tokens that came */
    uint32_t part, part_count;   /* which chunks of each text are this process's */
    int32_t *chunk;              /* [statistics.chunk_tokens] */
    uint32_t held;               /* tokens in it */
    bool is_enough;              /* as many tokens as are wanted */
} profile_run;

static pi2_status check_cancelled(void *user) {
    const profile_run *run = user;
    const pi2_callbacks *callbacks = &run->engine->run.options.callbacks;
    if (!callbacks->cancelled || !callbacks->cancelled(callbacks->user)) return PI2_OK;
    return pi2_fail(PI2_ERR_INTERRUPTED, "interrupted");
}

/* ---- which texts ------------------------------------------------------------------------ */

/** Reads every text once, before anything takes long: each must be there, and no two the same. */
static pi2_status find_texts(profile_run *run) {
    const char *const *paths = run->options->text_paths;
    while (paths && paths[run->text_count]) run->text_count++;
    if (run->text_count == 0) return pi2_fail(PI2_ERR_INVALID, "there is no text to count");
    run->texts = calloc(run->text_count, sizeof *run->texts);
    if (!run->texts) return pi2_fail(PI2_ERR_MEMORY, "no memory for the list of texts");
    for (size_t i = 0; i < run->text_count; i++) {
        FILE *file = NULL;
        uint64_t length;
        profile_text *text = &run->texts[i];
        text->path = paths[i];
        PI2_TRY(pi2_text_file_open(text->path, "a text that is counted", &file, &length));
        const pi2_status status = pi2_file_hash(file, text->path, check_cancelled, run, &text->bytes, &text->hash);
        (void)fclose(file);
        if (status != PI2_OK) return status;
        if (text->bytes == 0) return pi2_fail(PI2_ERR_INVALID, "%s: this text is empty", text->path);
        for (size_t k = 0; k < i; k++) {
            if (run->texts[k].bytes != text->bytes || run->texts[k].hash != text->hash) continue;
            return pi2_fail(PI2_ERR_INVALID, "%s and %s are the same text: it would count twice", run->texts[k].path,
                            text->path);
        }
        run->bytes_total += text->bytes;
    }
    return PI2_OK;
}

/* ---- statistics to go on with ----------------------------------------------------------- */

static bool is_there(const char *path) {
    struct stat what;
    return stat(path, &what) == 0;
}

static pi2_status check_place(const profile_run *run) {
    const char **inputs = calloc(run->text_count + 3, sizeof *inputs);
    if (!inputs) return pi2_fail(PI2_ERR_MEMORY, "no memory for a list of files");
    for (size_t i = 0; i < run->text_count; i++) inputs[i] = run->texts[i].path;
    inputs[run->text_count] = run->engine->run.source.model_path;
    inputs[run->text_count + 1] = run->engine->run.report.weights_path;
    const pi2_status status = pi2_neuron_statistics_check_place(run->options->output_path, inputs);
    free(inputs);
    return status;
}

/** What is there already, or nothing counted yet. */
static pi2_status begin_statistics(profile_run *run) {
    const char *path = run->options->output_path;
    const uint32_t chunk = run->engine->run.plan.memory.shape.context_tokens;
    if (!run->options->resume || !is_there(path)) {
        return pi2_neuron_tally_statistics(run->engine, chunk, &run->statistics);
    }
    pi2_neuron_statistics empty;
    PI2_TRY(pi2_neuron_statistics_read(path, &run->statistics));
    PI2_TRY(pi2_neuron_tally_statistics(run->engine, chunk, &empty));
    pi2_status status = pi2_neuron_statistics_check_same(&run->statistics, path, &empty, "what is counted now");
    pi2_neuron_statistics_free(&empty);
    if (status == PI2_OK && run->statistics.text_count == 0) {
        status = pi2_fail(PI2_ERR_INVALID, "%s does not say which texts it counted: counting cannot go on", path);
    }
    return status;
}

/* ---- one text --------------------------------------------------------------------------- */

static pi2_status read_text(void *user, char *bytes, size_t capacity, size_t *length_out) {
    profile_run *run = user;
    *length_out = 0;
    if (run->is_enough) return PI2_OK;
    PI2_TRY(check_cancelled(run));
    *length_out = fread(bytes, 1, capacity, run->file);
    run->bytes_read += *length_out;
    return ferror(run->file) ? pi2_fail(PI2_ERR_IO, "%s: cannot be read", run->text->path) : PI2_OK;
}

/** Counts the tokens that are held, unless an earlier run did or another process does. */
static pi2_status count_chunk(profile_run *run) {
    const uint32_t count = run->held;
    const int32_t begin = pi2_engine_bos(run->engine);
    const uint64_t number = (run->seen - 1) / run->statistics.chunk_tokens;
    run->held = 0;
    if (run->seen > run->record->end && number % run->part_count == run->part) {
        const uint64_t end = run->bytes_before + run->bytes_read;
        const pi2_session_part part = { "counting", run->bytes_told, end, run->bytes_total };
        if (begin >= 0) run->chunk[0] = begin;
        pi2_session_set_part(run->session, &part);
        PI2_TRY(pi2_neuron_tally_chunk(run->tally, run->session, run->chunk, count, &run->statistics, run->record,
                                       run->seen - count));
        run->counted_now += count;
        run->bytes_told = end;
    }
    if (run->seen > run->record->end) run->record->end = run->seen;
    run->is_enough = run->options->text_tokens && run->seen >= run->options->text_tokens;
    return PI2_OK;
}

static pi2_status take_tokens(void *user, const int32_t *tokens, size_t count) {
    profile_run *run = user;
    for (size_t i = 0; i < count && !run->is_enough; i++) {
        run->chunk[run->held++] = tokens[i];
        run->seen++;
        if (run->held == run->statistics.chunk_tokens) PI2_TRY(count_chunk(run));
    }
    return PI2_OK;
}

static pi2_status count_text(profile_run *run, const profile_text *text) {
    uint64_t length;
    run->text = text;
    run->record = pi2_neuron_statistics_text(&run->statistics, text->bytes, text->hash);
    if (!run->record) return PI2_ERR_MEMORY;
    run->bytes_read = run->seen = run->held = 0;
    run->is_enough = false;
    if (run->record->end % run->statistics.chunk_tokens) return PI2_OK; /* counted to its end */
    PI2_TRY(pi2_text_file_open(text->path, "a text that is counted", &run->file, &length));
    pi2_status status =
        pi2_engine_tokenize_parts(run->engine, read_text, run, true, false, take_tokens, run);
    if (status == PI2_OK && run->held && !run->is_enough) status = count_chunk(run);
    (void)fclose(run->file);
    return status;
}

/* ---- all of them ------------------------------------------------------------------------ */

static pi2_status count_texts(profile_run *run) {
    const uint32_t chunk = run->statistics.chunk_tokens;
    run->chunk = malloc(chunk * sizeof *run->chunk);
    if (!run->chunk) return pi2_fail(PI2_ERR_MEMORY, "no memory for a chunk of %u tokens", chunk);
    PI2_TRY(pi2_neuron_tally_create(run->engine, &run->tally));
    PI2_TRY(pi2_session_create(run->engine, NULL, &run->session));
    for (size_t i = 0; i < run->text_count; i++) {
        PI2_TRY(count_text(run, &run->texts[i]));
        run->bytes_before += run->texts[i].bytes;
        run->bytes_told = run->bytes_before;
    }
    return PI2_OK;
}

/** A text that nobody has looked into is not in the file: it would be one more that two files have. Of a short one a
 *  part may have no chunk, and is in the file all the same: without it the others would not become whole. */
static void forget_uncounted(pi2_neuron_statistics *statistics) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < statistics->text_count; i++) {
        if (statistics->texts[i].end) statistics->texts[kept++] = statistics->texts[i];
    }
    statistics->text_count = kept;
}

/** Writes what whole chunks gave before the failure, whose line is told still. */
static pi2_status save_after(profile_run *run, pi2_status failure) {
    char line[512];
    const char *path = run->options->output_path;
    if (run->counted_now == 0) return failure;
    (void)snprintf(line, sizeof line, "%s", pi2_error_text());
    const bool is_written = pi2_neuron_statistics_write(path, &run->statistics) == PI2_OK;
    pi2_planned_run_log(&run->engine->run, is_written ? "%s: %llu tokens are counted; 'profile --resume' goes on"
                                           : "%s: could not be written: %llu tokens were counted",
                   path, (unsigned long long)run->statistics.token_count);
    return pi2_fail(failure, "%s", line);
}

/** What was counted of the texts before must have been the same part of them. */
static pi2_status choose_parts(profile_run *run) {
    const pi2_profile_options *options = run->options;
    const uint64_t wanted = run->part_count == 1 ? 1 : UINT64_C(1) << run->part;
    for (size_t i = 0; i < run->text_count; i++) {
        const profile_text *text = &run->texts[i];
        pi2_statistics_text *record = pi2_neuron_statistics_text(&run->statistics, text->bytes, text->hash);
        if (!record) return PI2_ERR_MEMORY;
        if (record->end == 0) {
            record->part_count = run->part_count;
            record->parts = wanted;
        } else if (record->part_count != run->part_count || record->parts != wanted) {
            return pi2_fail(PI2_ERR_INVALID, "%s counted other parts of %s: go on with the same part of it, or merge "
                            "what was counted apart", options->output_path, text->path);
        }
    }
    return PI2_OK;
}

static pi2_status check_part(profile_run *run) {
    const pi2_profile_options *options = run->options;
    run->part_count = options->part_count ? options->part_count : 1;
    run->part = options->part;
    if (run->part_count <= PI2_STATISTICS_MOST_PARTS && run->part < run->part_count) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "part %u of %u: texts are shared out to %d parts at most", run->part + 1,
                    run->part_count, (int)PI2_STATISTICS_MOST_PARTS);
}

static pi2_status profile(profile_run *run, pi2_sparsity **sparsity_out) {
    PI2_TRY(check_part(run));
    PI2_TRY(find_texts(run));
    PI2_TRY(check_place(run));
    PI2_TRY(begin_statistics(run));
    PI2_TRY(choose_parts(run));
    const pi2_status status = count_texts(run);
    forget_uncounted(&run->statistics);
    if (status != PI2_OK) return save_after(run, status);
    PI2_TRY(pi2_neuron_statistics_write(run->options->output_path, &run->statistics));
    return pi2_sparsity_of(&run->statistics, sparsity_out);
}

pi2_status pi2_profile_texts(pi2_engine *engine, const pi2_profile_options *options, pi2_sparsity **sparsity_out) {
    profile_run run = { .engine = engine, .options = options };
    *sparsity_out = NULL;
    const pi2_status status = profile(&run, sparsity_out);
    pi2_session_free(run.session);
    pi2_neuron_tally_free(run.tally);
    pi2_neuron_statistics_free(&run.statistics);
    free(run.chunk);
    free(run.texts);
    return status;
}

pi2_status pi2_profile_check_place(const char *output_path, const char *const *inputs) {
    return pi2_neuron_statistics_check_place(output_path, inputs);
}

/* ---- merging ---------------------------------------------------------------------------- */

static pi2_status merge(const char *const *paths, const char *output_path, pi2_neuron_statistics *all,
                        pi2_sparsity **sparsity_out) {
    if (!paths[0] || !paths[1]) return pi2_fail(PI2_ERR_INVALID, "at least two files of statistics are needed");
    PI2_TRY(pi2_neuron_statistics_check_place(output_path, paths));
    PI2_TRY(pi2_neuron_statistics_read(paths[0], all));
    for (size_t i = 1; paths[i]; i++) {
        pi2_neuron_statistics one;
        PI2_TRY(pi2_neuron_statistics_read(paths[i], &one));
        const pi2_status status = pi2_neuron_statistics_add(all, paths[0], &one, paths[i]);
        pi2_neuron_statistics_free(&one);
        if (status != PI2_OK) return status;
    }
    pi2_statistics_entry *first = &all->entries[0];
    if (!pi2_neuron_statistics_column(all, PI2_STATISTICS_FIRED, first) ||
        !pi2_neuron_statistics_column(all, PI2_STATISTICS_ZEROS, first) ||
        !pi2_neuron_statistics_column(all, PI2_STATISTICS_MAGNITUDE, first)) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: there are no counts in it: make the statistics again", paths[0]);
    }
    PI2_TRY(pi2_sparsity_of(all, sparsity_out));
    const pi2_status status = pi2_neuron_statistics_write(output_path, all);
    if (status == PI2_OK) return PI2_OK;
    pi2_sparsity_free(*sparsity_out);
    *sparsity_out = NULL;
    return status;
}

pi2_status pi2_profile_merge(const char *const *paths, const char *output_path, pi2_sparsity **sparsity_out) {
    pi2_neuron_statistics all = { 0 };
    *sparsity_out = NULL;
    const pi2_status status = merge(paths, output_path, &all, sparsity_out);
    pi2_neuron_statistics_free(&all);
    return status;
}
