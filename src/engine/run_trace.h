/*
 * run_trace.h: the two files that say what a run did: a timeline in Chrome's trace event format, and
 * a table with a line for each append of a session. docs/tracing.md tells how to read them.
 */
#ifndef PI2_ENGINE_RUN_TRACE_H
#define PI2_ENGINE_RUN_TRACE_H

#include "base/timeline.h"
#include "clusters/extent_layout.h"
#include "powerinfer2/engine.h"

typedef struct pi2_run_trace pi2_run_trace;

/**
 * Opens the files that the options name and makes room for events; *trace_out stays NULL when they
 * name none. The room depends on the budget: a 64th of it, 256 KB to 16 MB.
 * Errors  IO (a path that cannot be written), INVALID (one of options->input_paths, or something else than
 *         such a file, lies there), MEMORY
 */
pi2_status pi2_run_trace_open(const pi2_engine_options *options, uint64_t budget_bytes, pi2_run_trace **trace_out);
/** Removes what was not finished. NULL is fine. */
void pi2_run_trace_close(pi2_run_trace *trace);

/** Memory that it takes in the end, for a model of so many extents; 0 for NULL. */
uint64_t pi2_run_trace_bytes(const pi2_run_trace *trace, uint32_t extent_count);
/** Where events go; NULL for NULL. */
pi2_timeline *pi2_run_trace_events(const pi2_run_trace *trace);

/** What one append of a session did. */
typedef struct pi2_run_trace_line {
    bool is_prefill;
    uint32_t position, tokens;  /* of its first token; computed */
    uint64_t begin_ns, end_ns;
    pi2_engine_counters counters; /* since the engine was opened, at its end */
} pi2_run_trace_line;

/** Adds the line to the table. */
void pi2_run_trace_add(pi2_run_trace *trace, const pi2_run_trace_line *line);

/** Says whose row a member's is, where it waits for a device: a name of less than 64 bytes, at most 4 of them. */
void pi2_run_trace_name_member(pi2_run_trace *trace, unsigned member, const char *device);

/**
 * Writes the timeline and ends both files; later calls do nothing. No pass runs and no read is in
 * flight. Errors  IO (path, reason): the other file is written nevertheless
 */
pi2_status pi2_run_trace_finish(pi2_run_trace *trace, const pi2_extent_layout *layout,
                                const pi2_engine_counters *counters);

#endif
