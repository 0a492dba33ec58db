/* run_trace_internal.h: the struct behind pi2_run_trace. */
#ifndef PI2_ENGINE_RUN_TRACE_INTERNAL_H
#define PI2_ENGINE_RUN_TRACE_INTERNAL_H

#include "base/output_file.h"
#include "engine/run_trace.h"

/** What the files begin with, by which they are known. */
#define PI2_TIMELINE_BEGIN "{\"displayTimeUnit\":\"ms\",\"traceEvents\":["
#define PI2_TABLE_BEGIN "index,phase,position,"

struct pi2_run_trace {
    pi2_timeline *events;
    uint64_t bytes;               /* of events */
    pi2_output_file timeline, table;
    uint64_t lines;               /* of the table, its heading left out */
    pi2_engine_counters last;     /* at the end of the last line */
    struct { unsigned member; char name[64]; } devices[4]; /* whose rows are devices' */
    unsigned device_count;
};

/** The extents sorted by their place in the file tell which ones a read brought. */
typedef struct pi2_timeline_extent_place {
    uint64_t offset;
    uint32_t extent;
} pi2_timeline_extent_place;

/** Writes all events. Errors  MEMORY (an index of the extents) */
pi2_status pi2_run_trace_write_timeline(pi2_run_trace *trace, const pi2_extent_layout *layout,
                                        const pi2_engine_counters *counters);

#endif
