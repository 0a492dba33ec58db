/* simulated_layer.c: see simulated_layer.h. */
#include "simulator/simulated_layer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { READ_GROUP = 8, CLUSTER = 32 }; /* neurons that a thread is told of together; that it computes at a time */

typedef enum stage { PREDICT, REST, GATE, STAGES } stage; /* in the order in which a free thread takes them */
enum { GATE_READ = STAGES, REST_READ };                   /* events beside the ends of stages */

typedef struct task {
    uint32_t what;          /* a stage, or a read */
    uint32_t count, fires;  /* neurons; of these, those that fire */
    uint32_t part;          /* of the predictor */
    bool was_read;
} task;

typedef struct event {
    double time;
    uint64_t order;         /* of equal times the first made comes first */
    task task;
} event;

typedef struct task_list {
    task *items;
    size_t first, count;
} task_list;

struct pi2_simulated_layer {
    const pi2_simulated_device *device;
    const pi2_simulated_model *model;
    const pi2_simulation *simulation;
    const pi2_simulated_work *work;
    uint32_t cluster;
    double now, accelerator_until, disk_until;
    uint32_t busy, reading, open[STAGES]; /* threads; reads that are asked for; tasks of a stage that have not ended */
    uint64_t order;
    task_list ready[STAGES];
    task_list held[2];      /* without the pipeline: what waits for the predictor, and for Gate */
    event *events;          /* a heap */
    size_t event_count, room;
    task *lists;
};

pi2_simulated_layer *pi2_simulated_layer_create(const pi2_simulated_device *device, const pi2_simulated_model *model,
                                                const pi2_simulation *simulation) {
    /* Every list holds at most all tasks: of each part its clusters, of each read group one of each stage. */
    const size_t neurons = (size_t)model->neurons * model->experts;
    const uint32_t cluster = simulation->cluster ? simulation->cluster : CLUSTER;
    const size_t room = 4 * (neurons / READ_GROUP + 2 * PI2_SIMULATED_PARTS + 2) + 4 * neurons / cluster;
    const size_t bytes = sizeof(pi2_simulated_layer) + room * ((STAGES + 2) * sizeof(task) + sizeof(event));
    pi2_simulated_layer *layer = calloc(1, bytes);
    if (!layer) return NULL;
    layer->device = device;
    layer->model = model;
    layer->simulation = simulation;
    layer->cluster = cluster;
    layer->room = room;
    layer->events = (event *)(layer + 1);
    layer->lists = (task *)(layer->events + room);
    return layer;
}

/* ---- speeds ---- */

bool pi2_simulated_has_accelerator(const pi2_simulated_device *device, const pi2_simulation *simulation) {
    return device->accelerator_bytes_per_second > 0 && !simulation->without_accelerator;
}

/* What is left of each one's bandwidth while both compute. */
static double shared(const pi2_simulated_device *device) {
    const double sum = device->cpu_bytes_per_second + device->accelerator_bytes_per_second;
    const double both = device->both_bytes_per_second;
    return both > 0 && both < sum ? both / sum : 1;
}

/* Bytes a second, where a weight's two operations for each sequence may take longer than its bytes. */
static double bound(double bytes_per_second, double operations_per_second, const pi2_simulated_model *model,
                    const pi2_simulation *simulation) {
    if (operations_per_second <= 0) return bytes_per_second;
    return fmin(bytes_per_second, operations_per_second / (2 * model->weights_per_byte * simulation->batch));
}

double pi2_simulated_dense_seconds(const pi2_simulated_device *device, const pi2_simulated_model *model,
                                   const pi2_simulation *simulation, double bytes) {
    const bool has_both = pi2_simulated_has_accelerator(device, simulation);
    const double part = has_both ? shared(device) : 1;
    double speed = bound(part * device->cpu_bytes_per_second, device->cpu_operations_per_second, model, simulation);
    if (has_both) {
        speed += bound(part * device->accelerator_bytes_per_second, device->accelerator_operations_per_second, model,
                       simulation);
    }
    return bytes / speed;
}

double pi2_simulated_read_seconds(const pi2_simulated_device *device, double bytes) {
    const pi2_simulated_read *reads = device->reads;
    const uint32_t last = device->read_count - 1;
    if (bytes <= reads[0].bytes) return 1 / reads[0].per_second;
    for (uint32_t i = 1; i <= last; i++) {
        if (bytes > reads[i].bytes) continue;
        const double part = (bytes - reads[i - 1].bytes) / (reads[i].bytes - reads[i - 1].bytes);
        return (1 - part) / reads[i - 1].per_second + part / reads[i].per_second;
    }
    return bytes / reads[last].bytes / reads[last].per_second;
}

/* ---- lists ---- */

static void add_task(task_list *list, const task *added) { list->items[list->first + list->count++] = *added; }

static bool is_before(const event *a, const event *b) {
    return a->time != b->time ? a->time < b->time : a->order < b->order;
}

static void add_event(pi2_simulated_layer *layer, double time, const task *ended) {
    const event added = {time, layer->order++, *ended};
    size_t at = layer->event_count++;
    while (at > 0 && is_before(&added, &layer->events[(at - 1) / 2])) {
        layer->events[at] = layer->events[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    layer->events[at] = added;
}

static event take_event(pi2_simulated_layer *layer) {
    const event first = layer->events[0], last = layer->events[--layer->event_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= layer->event_count) break;
        if (child + 1 < layer->event_count && is_before(&layer->events[child + 1], &layer->events[child])) child++;
        if (!is_before(&layer->events[child], &last)) break;
        layer->events[at] = layer->events[child];
        at = child;
    }
    layer->events[at] = last;
    return first;
}

/* ---- stages ---- */

/** Of a count, the share of one of so many parts that are as even as they can be. */
static uint32_t share_of(uint32_t count, uint32_t part, uint32_t parts) {
    return (uint32_t)((uint64_t)count * (part + 1) / parts - (uint64_t)count * part / parts);
}

/** A task becomes ready, in clusters. */
static void make_ready(pi2_simulated_layer *layer, const task *made) {
    task part = *made;
    const uint32_t clusters = made->what == PREDICT ? 1 : (made->count + layer->cluster - 1) / layer->cluster;
    for (uint32_t i = 0; i < clusters; i++) {
        part.count = share_of(made->count, i, clusters);
        part.fires = share_of(made->fires, i, clusters);
        layer->open[made->what]++;
        add_task(&layer->ready[made->what], &part);
    }
}

static void read_neurons(pi2_simulated_layer *layer, uint32_t what, uint32_t count, uint32_t fires,
                         pi2_simulated_sums *sums) {
    const double bytes = what == GATE_READ ? layer->model->gate_read_bytes : layer->model->rest_read_bytes;
    double each = pi2_simulated_read_seconds(layer->device, bytes);
    if (layer->simulation->without_pipeline) { /* a thread waits for each of its own */
        each = fmax(each, layer->device->read_latency_seconds / layer->device->threads);
    }
    const uint32_t groups = (count + READ_GROUP - 1) / READ_GROUP;
    for (uint32_t i = 0; i < groups; i++) {
        const task read = {.what = what, .count = share_of(count, i, groups), .fires = share_of(fires, i, groups),
                           .was_read = true};
        layer->disk_until = fmax(layer->now, layer->disk_until) + each * read.count;
        add_event(layer, fmax(layer->disk_until, layer->now + layer->device->read_latency_seconds), &read);
        layer->reading++;
    }
    sums->disk_seconds += each * count;
    sums->bytes += bytes * count;
    sums->reads += count;
}

/** What a part of the predictor named goes on. */
static void go_on_from_predictor(pi2_simulated_layer *layer, const pi2_simulated_part *part, pi2_simulated_sums *sums) {
    const task hits = {.what = GATE, .count = part->hits, .fires = part->hit_fires};
    if (part->hits) make_ready(layer, &hits);
    if (!part->misses) return;
    if (layer->model->gate_read_bytes > 0) read_neurons(layer, GATE_READ, part->misses, part->miss_fires, sums);
    else read_neurons(layer, REST_READ, part->miss_fires, part->miss_fires, sums);
}

static void go_on_from_gate(pi2_simulated_layer *layer, const task *ended, pi2_simulated_sums *sums) {
    if (!ended->fires) return;
    if (ended->was_read && layer->model->rest_read_bytes > 0) {
        read_neurons(layer, REST_READ, ended->fires, ended->fires, sums);
        return;
    }
    const task rest = {.what = REST, .count = ended->fires, .fires = ended->fires};
    make_ready(layer, &rest);
}

/** Without the pipeline what a stage's end allows waits for the end of all of it. */
static void release(pi2_simulated_layer *layer, pi2_simulated_sums *sums) {
    if (layer->open[PREDICT]) return;
    task_list *held = &layer->held[0];
    while (held->count) {
        held->count--;
        go_on_from_predictor(layer, &layer->work->parts[held->items[held->first++].part], sums);
    }
    if (layer->open[GATE] || layer->reading) return;
    held = &layer->held[1];
    while (held->count) {
        held->count--;
        go_on_from_gate(layer, &held->items[held->first++], sums);
    }
}

static void end_task(pi2_simulated_layer *layer, const task *ended, pi2_simulated_sums *sums) {
    const bool waits = layer->simulation->without_pipeline;
    if (ended->what < STAGES) {
        layer->busy--;
        layer->open[ended->what]--;
    } else {
        layer->reading--;
    }
    if (ended->what == PREDICT) {
        if (waits) add_task(&layer->held[0], ended);
        else go_on_from_predictor(layer, &layer->work->parts[ended->part], sums);
    } else if (ended->what == GATE) {
        if (waits) add_task(&layer->held[1], ended);
        else go_on_from_gate(layer, ended, sums);
    } else if (ended->what >= STAGES) {
        const task arrived = {.what = ended->what == GATE_READ ? GATE : REST, .count = ended->count,
                              .fires = ended->fires, .was_read = true};
        make_ready(layer, &arrived);
    }
    if (waits) release(layer, sums);
}

static double task_seconds(const pi2_simulated_layer *layer, const task *begun) {
    const pi2_simulated_device *device = layer->device;
    const double part = layer->accelerator_until > layer->now ? shared(device) : 1;
    const double efficiency = begun->what == PREDICT ? 1 : device->sparse_efficiency;
    const double speed = bound(part * efficiency * device->cpu_bytes_per_second, device->cpu_operations_per_second,
                               layer->model, layer->simulation) / device->threads;
    if (begun->what == PREDICT) return layer->work->predictor_bytes / PI2_SIMULATED_PARTS / speed;
    return begun->what == GATE ? begun->count * layer->model->gate_row_bytes / speed
                               : begun->fires * layer->model->rest_row_bytes / speed;
}

static void dispatch(pi2_simulated_layer *layer) {
    for (int what = 0; what < STAGES; what++) {
        task_list *ready = &layer->ready[what];
        while (ready->count && layer->busy < layer->device->threads) {
            const task *begun = &ready->items[ready->first++];
            ready->count--;
            layer->busy++;
            add_event(layer, layer->now + task_seconds(layer, begun), begun);
        }
    }
}

/** Time passes to the next event. */
static void pass_time(pi2_simulated_layer *layer, double until, pi2_simulated_sums *sums) {
    sums->thread_seconds += layer->busy * (until - layer->now);
    if (layer->busy == 0 && layer->reading) {
        sums->exposed_seconds += fmax(0, until - fmax(layer->now, layer->accelerator_until));
    }
    layer->now = until;
}

void pi2_simulated_layer_run(pi2_simulated_layer *layer, const pi2_simulated_work *work, pi2_simulated_sums *sums) {
    const pi2_simulated_device *device = layer->device;
    const double dense = pi2_simulated_dense_seconds(device, layer->model, layer->simulation, work->dense_bytes);
    const bool has_both = pi2_simulated_has_accelerator(device, layer->simulation);
    layer->work = work;
    layer->now = layer->disk_until = layer->accelerator_until = 0;
    layer->event_count = 0;
    for (int i = 0; i < STAGES + 2; i++) {
        task_list *list = i < STAGES ? &layer->ready[i] : &layer->held[i - STAGES];
        *list = (task_list){layer->lists + (size_t)i * layer->room, 0, 0};
    }
    if (work->hot_bytes > 0) {
        const double speed = bound(shared(device) * device->accelerator_bytes_per_second,
                                   device->accelerator_operations_per_second, layer->model, layer->simulation);
        layer->accelerator_until = device->accelerator_start_seconds + work->hot_bytes / speed;
        sums->accelerator_seconds += layer->accelerator_until;
    }
    for (uint32_t i = 0; i < PI2_SIMULATED_PARTS; i++) {
        const task part = {.what = PREDICT, .count = 1, .part = i};
        make_ready(layer, &part);
    }
    dispatch(layer);
    while (layer->event_count) {
        const event next = take_event(layer);
        pass_time(layer, next.time, sums);
        end_task(layer, &next.task, sums);
        dispatch(layer);
    }
    sums->seconds += fmax(layer->now, layer->accelerator_until) + dense + device->layer_seconds;
    sums->thread_seconds += dense * device->threads;
    if (has_both) sums->accelerator_seconds += dense;
}
