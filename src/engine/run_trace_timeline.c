/*
 * run_trace_timeline.c: the events as JSON, in Chrome's trace event format.
 *
 * Rows ("threads") of the timeline: 0 holds the passes, 1 + member what each compute thread did,
 * with its stalls nested inside its stages. Reads overlap, so they are asynchronous spans: a "b"
 * and an "e" event with one id.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/run_trace_internal.h"

static int compare_places(const void *left, const void *right) {
    const pi2_timeline_extent_place *a = left, *b = right;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static pi2_status make_index(const pi2_extent_layout *layout, pi2_timeline_extent_place **places_out) {
    const uint32_t count = layout->extent_count;
    pi2_timeline_extent_place *places = malloc((count ? count : 1) * sizeof *places);
    if (!places) return pi2_fail(PI2_ERR_MEMORY, "no memory for the trace's index of %" PRIu32 " extents", count);
    for (uint32_t e = 0; e < count; e++) places[e] = (pi2_timeline_extent_place){ layout->extents[e].file_offset, e };
    qsort(places, count, sizeof *places, compare_places);
    *places_out = places;
    return PI2_OK;
}

/* Place of the last extent that begins at or before the byte. */
static uint32_t find_place(const pi2_timeline_extent_place *places, uint32_t count, uint64_t byte) {
    uint32_t low = 0, high = count;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (places[middle].offset <= byte) low = middle;
        else high = middle;
    }
    return low;
}

static double microseconds(const pi2_run_trace *trace, uint64_t ns) {
    const uint64_t begin = pi2_timeline_begin_ns(trace->events);
    return ns > begin ? (double)(ns - begin) / 1e3 : 0.0;
}

static void write_span(pi2_run_trace *trace, const pi2_timeline_event *event, const char *category, unsigned row) {
    pi2_output_file_print(&trace->timeline,
                          ",\n{\"ph\":\"X\",\"pid\":1,\"tid\":%u,\"cat\":\"%s\",\"ts\":%.3f,\"dur\":%.3f,", row,
                          category, microseconds(trace, event->begin_ns),
                          (double)(event->end_ns - event->begin_ns) / 1e3);
}

static void write_pass(pi2_run_trace *trace, const pi2_timeline_event *event) {
    write_span(trace, event, "pass", 0);
    if (event->count == 1) {
        pi2_output_file_print(&trace->timeline, "\"name\":\"token %" PRIu64 "\"", event->of.place);
    } else {
        pi2_output_file_print(&trace->timeline, "\"name\":\"%" PRIu32 " tokens from %" PRIu64 "\"", event->count,
                              event->of.place);
    }
    pi2_output_file_print(&trace->timeline, ",\"args\":{\"position\":%" PRIu64 ",\"tokens\":%" PRIu32 "}}",
                          event->of.place, event->count);
}

static void write_stage(pi2_run_trace *trace, const pi2_timeline_event *event, bool is_tail) {
    write_span(trace, event, "compute", 1u + event->member);
    const char *end = is_tail ? ", end" : "";
    if (event->layer == PI2_TIMELINE_NO_LAYER) {
        pi2_output_file_print(&trace->timeline, "\"name\":\"%s%s\"}", event->of.name, end);
    } else {
        pi2_output_file_print(&trace->timeline, "\"name\":\"L%u %s%s\",\"args\":{\"layer\":%u}}",
                              (unsigned)event->layer, event->of.name, end, (unsigned)event->layer);
    }
}

static void write_stall(pi2_run_trace *trace, const pi2_timeline_event *event) {
    write_span(trace, event, "stall", 1u + event->member);
    pi2_output_file_print(&trace->timeline, "\"name\":\"waits for extent %" PRIu32 "\",\"args\":{\"extent\":%" PRIu32
                          "}}", event->count, event->count);
}

static void write_read(pi2_run_trace *trace, const pi2_timeline_event *event, uint64_t id,
                       const pi2_extent_layout *layout, const pi2_timeline_extent_place *places) {
    const uint64_t offset = event->of.place, last_byte = offset + event->count - (event->count > 0);
    const uint32_t first = find_place(places, layout->extent_count, offset);
    const uint32_t last = find_place(places, layout->extent_count, last_byte);
    pi2_output_file_print(&trace->timeline,
        ",\n{\"ph\":\"b\",\"pid\":1,\"tid\":0,\"cat\":\"read\",\"id\":\"0x%" PRIx64 "\",\"name\":\"read\",\"ts\":%.3f,"
        "\"args\":{\"offset\":%" PRIu64 ",\"bytes\":%" PRIu32 ",\"extent\":%" PRIu32 ",\"extents\":%" PRIu32
        ",\"priority\":\"%s\"}}",
        id, microseconds(trace, event->begin_ns), offset, event->count, layout->extent_count ? places[first].extent : 0,
        last - first + 1, event->member ? "likely" : "certain");
    pi2_output_file_print(&trace->timeline, ",\n{\"ph\":\"e\",\"pid\":1,\"tid\":0,\"cat\":\"read\",\"id\":\"0x%" PRIx64
                          "\",\"name\":\"read\",\"ts\":%.3f}", id, microseconds(trace, event->end_ns));
}

static void write_memory(pi2_run_trace *trace, const pi2_timeline_event *event) {
    pi2_output_file_print(&trace->timeline, ",\n{\"ph\":\"C\",\"pid\":1,\"name\":\"weights kept\",\"ts\":%.3f,"
                          "\"args\":{\"bytes\":%" PRIu64 "}}", microseconds(trace, event->begin_ns),
                          event->of.place);
}

/* From the first request for an expert that nobody had demanded until somebody did, or until it was gone. */
static void write_ahead(pi2_run_trace *trace, const pi2_timeline_event *event, uint64_t id,
                        const pi2_extent_layout *layout, const pi2_timeline_extent_place *places) {
    const char *name = event->member ? "prefetch kept" : "prefetch wasted";
    const uint32_t place = find_place(places, layout->extent_count, event->of.place);
    pi2_output_file_print(&trace->timeline,
        ",\n{\"ph\":\"b\",\"pid\":1,\"tid\":0,\"cat\":\"prefetch\",\"id\":\"0x%" PRIx64 "\",\"name\":\"%s\","
        "\"ts\":%.3f,"
        "\"args\":{\"offset\":%" PRIu64 ",\"bytes\":%" PRIu32 ",\"extent\":%" PRIu32 "}}",
        id, name, microseconds(trace, event->begin_ns), event->of.place, event->count,
        layout->extent_count ? places[place].extent : 0);
    pi2_output_file_print(&trace->timeline,
        ",\n{\"ph\":\"e\",\"pid\":1,\"tid\":0,\"cat\":\"prefetch\",\"id\":\"0x%" PRIx64 "\",\"name\":\"%s\","
        "\"ts\":%.3f}", id, name, microseconds(trace, event->end_ns));
}

static void write_event(pi2_run_trace *trace, const pi2_timeline_event *event, uint64_t index,
                        const pi2_extent_layout *layout, const pi2_timeline_extent_place *places) {
    switch ((pi2_timeline_kind)event->kind) {
    case PI2_TIMELINE_NONE: break;
    case PI2_TIMELINE_PASS: write_pass(trace, event); break;
    case PI2_TIMELINE_STAGE: write_stage(trace, event, false); break;
    case PI2_TIMELINE_TAIL: write_stage(trace, event, true); break;
    case PI2_TIMELINE_STALL: write_stall(trace, event); break;
    case PI2_TIMELINE_READ: write_read(trace, event, index + 1, layout, places); break;
    case PI2_TIMELINE_MEMORY: write_memory(trace, event); break;
    case PI2_TIMELINE_AHEAD: write_ahead(trace, event, index + 1, layout, places); break;
    }
}

void pi2_run_trace_name_member(pi2_run_trace *trace, unsigned member, const char *device) {
    const unsigned count = trace->device_count, room = sizeof trace->devices / sizeof trace->devices[0];
    if (count == room) return;
    trace->devices[count].member = member;
    (void)snprintf(trace->devices[count].name, sizeof trace->devices[count].name, "%s", device);
    trace->device_count++;
}

static void write_name(pi2_run_trace *trace, unsigned member) {
    char name[80];
    (void)snprintf(name, sizeof name, "compute thread %u", member);
    for (unsigned i = 0; i < trace->device_count; i++) {
        if (trace->devices[i].member != member) continue;
        (void)snprintf(name, sizeof name, "device %s", trace->devices[i].name);
    }
    pi2_output_file_print(&trace->timeline, ",\n{\"ph\":\"M\",\"pid\":1,\"tid\":%u,\"name\":\"thread_name\","
                          "\"args\":{\"name\":\"%s\"}}", member + 1, name);
}

/* Names of the rows, for each member that did something. */
static void write_names(pi2_run_trace *trace, const bool *has_member) {
    pi2_output_file_print(&trace->timeline,
        "{\"ph\":\"M\",\"pid\":1,\"name\":\"process_name\",\"args\":{\"name\":\"powerinfer2\"}},\n"
        "{\"ph\":\"M\",\"pid\":1,\"tid\":0,\"name\":\"thread_name\",\"args\":{\"name\":\"tokens\"}}");
    for (unsigned member = 0; member < 256; member++) {
        if (has_member[member]) write_name(trace, member);
    }
}

pi2_status pi2_run_trace_write_timeline(pi2_run_trace *trace, const pi2_extent_layout *layout,
                                        const pi2_engine_counters *counters) {
    pi2_timeline_extent_place *places = NULL;
    PI2_TRY(make_index(layout, &places));
    const uint64_t count = pi2_timeline_count(trace->events), dropped = pi2_timeline_dropped(trace->events);
    bool has_member[256] = { false };
    for (uint64_t i = 0; i < count; i++) {
        const pi2_timeline_event *event = pi2_timeline_at(trace->events, i);
        if (!event || event->kind == PI2_TIMELINE_PASS || event->kind == PI2_TIMELINE_READ ||
            event->kind == PI2_TIMELINE_MEMORY ||
            event->kind == PI2_TIMELINE_AHEAD) continue;
        has_member[event->member] = true;
    }
    pi2_output_file_print(&trace->timeline, PI2_TIMELINE_BEGIN "\n");
    write_names(trace, has_member);
    for (uint64_t i = 0; i < count; i++) {
        const pi2_timeline_event *event = pi2_timeline_at(trace->events, i);
        if (event) write_event(trace, event, i, layout, places);
    }
    pi2_output_file_print(&trace->timeline,
        "\n],\"otherData\":{\"bytes_read\":\"%" PRIu64 "\",\"reads\":\"%" PRIu64 "\",\"bytes_needed\":\"%" PRIu64
        "\",\"compute_ms\":\"%.6f\",\"stall_ms\":\"%.6f\",\"events\":\"%" PRIu64
        "\",\"dropped_events\":\"%" PRIu64 "\"}}\n",
        counters->bytes_read, counters->reads, counters->bytes_needed, (double)counters->compute_ns / 1e6,
        (double)counters->stall_ns / 1e6, count, dropped);
    free(places);
    return PI2_OK;
}
