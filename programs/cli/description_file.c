/* description_file.c: see description_file.h. */
#include "description_file.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "json_bounds.h"
#include "options.h"
#include "output.h"

typedef enum member_type { NUMBER, COUNT, SEED, FLAG, WORD } member_type;

typedef struct member {
    const char *name;
    member_type type;
    size_t offset;
    bool may_lack;
} member;

#define OF(type, field) offsetof(type, field)

static const member device_members[] = {
    {"threads", COUNT, OF(pi2_simulated_device, threads), false},
    {"cpu_bytes_per_second", NUMBER, OF(pi2_simulated_device, cpu_bytes_per_second), false},
    {"accelerator_bytes_per_second", NUMBER, OF(pi2_simulated_device, accelerator_bytes_per_second), true},
    {"both_bytes_per_second", NUMBER, OF(pi2_simulated_device, both_bytes_per_second), true},
    {"cpu_operations_per_second", NUMBER, OF(pi2_simulated_device, cpu_operations_per_second), true},
    {"accelerator_operations_per_second", NUMBER, OF(pi2_simulated_device, accelerator_operations_per_second), true},
    {"sparse_efficiency", NUMBER, OF(pi2_simulated_device, sparse_efficiency), false},
    {"accelerator_start_seconds", NUMBER, OF(pi2_simulated_device, accelerator_start_seconds), true},
    {"layer_seconds", NUMBER, OF(pi2_simulated_device, layer_seconds), true},
    {"read_latency_seconds", NUMBER, OF(pi2_simulated_device, read_latency_seconds), true},
    {"sequential_bytes_per_second", NUMBER, OF(pi2_simulated_device, sequential_bytes_per_second), false},
    {"base_watts", NUMBER, OF(pi2_simulated_device, base_watts), true},
    {"thread_watts", NUMBER, OF(pi2_simulated_device, thread_watts), true},
    {"accelerator_watts", NUMBER, OF(pi2_simulated_device, accelerator_watts), true},
    {"disk_watts", NUMBER, OF(pi2_simulated_device, disk_watts), true},
    {"memory_bytes", NUMBER, OF(pi2_simulated_device, memory_bytes), true}, {NULL, NUMBER, 0, true}};

static const member model_members[] = {
    {"layers", COUNT, OF(pi2_simulated_model, layers), false},
    {"neurons", COUNT, OF(pi2_simulated_model, neurons), false},
    {"experts", COUNT, OF(pi2_simulated_model, experts), true},
    {"experts_used", COUNT, OF(pi2_simulated_model, experts_used), true},
    {"attention_bytes", NUMBER, OF(pi2_simulated_model, attention_bytes), false},
    {"head_bytes", NUMBER, OF(pi2_simulated_model, head_bytes), true},
    {"predictor_bytes", NUMBER, OF(pi2_simulated_model, predictor_bytes), true},
    {"fixed_bytes", NUMBER, OF(pi2_simulated_model, fixed_bytes), true},
    {"gate_row_bytes", NUMBER, OF(pi2_simulated_model, gate_row_bytes), false},
    {"rest_row_bytes", NUMBER, OF(pi2_simulated_model, rest_row_bytes), false},
    {"weights_per_byte", NUMBER, OF(pi2_simulated_model, weights_per_byte), false},
    {"gate_read_bytes", NUMBER, OF(pi2_simulated_model, gate_read_bytes), false},
    {"rest_read_bytes", NUMBER, OF(pi2_simulated_model, rest_read_bytes), false},
    {"cached_bytes", NUMBER, OF(pi2_simulated_model, cached_bytes), false},
    {"cache_bytes_per_position", NUMBER, OF(pi2_simulated_model, cache_bytes_per_position), true},
    {"active", NUMBER, OF(pi2_simulated_model, active), false},
    {"precision", NUMBER, OF(pi2_simulated_model, precision), true},
    {"skew", NUMBER, OF(pi2_simulated_model, skew), true}, {"repeat", NUMBER, OF(pi2_simulated_model, repeat), true},
    {"spread", NUMBER, OF(pi2_simulated_model, spread), true},
    {NULL, NUMBER, 0, true}};

static const member run_members[] = {
    {"memory_bytes", NUMBER, OF(pi2_simulation, memory_bytes), true},
    {"ffn_in_memory", NUMBER, OF(pi2_simulation, ffn_in_memory), true},
    {"hot_share", NUMBER, OF(pi2_simulation, hot_share), true}, {"batch", COUNT, OF(pi2_simulation, batch), true},
    {"tokens", COUNT, OF(pi2_simulation, tokens), true}, {"warm_tokens", COUNT, OF(pi2_simulation, warm_tokens), true},
    {"prompt_tokens", COUNT, OF(pi2_simulation, prompt_tokens), true},
    {"position", COUNT, OF(pi2_simulation, position), true}, {"cluster", COUNT, OF(pi2_simulation, cluster), true},
    {"seed", SEED, OF(pi2_simulation, seed), true}, {"policy", WORD, OF(pi2_simulation, policy), true},
    {"without_cache", FLAG, OF(pi2_simulation, without_cache), true},
    {"without_pipeline", FLAG, OF(pi2_simulation, without_pipeline), true},
    {"without_accelerator", FLAG, OF(pi2_simulation, without_accelerator), true}, {NULL, NUMBER, 0, true}};

/* What a run's published figure may be of. */
static const char *const figures[] = {
    "", "tokens_per_second", "prompt_tokens_per_second", "mean_ms", "p50_ms", "p90_ms", "p99_ms", "joules_per_token"};
enum { FIGURES = sizeof figures / sizeof figures[0] };

const char *pi2_described_figure_name(pi2_described_figure figure) { return figures[figure]; }

double pi2_described_figure_of(pi2_described_figure figure, const pi2_simulation *simulation,
                               const pi2_simulated_run *run) {
    const double prompt = run->prompt_seconds > 0 ? simulation->prompt_tokens / run->prompt_seconds : (double)NAN;
    const double values[FIGURES] = {(double)NAN, run->tokens_per_second, prompt, 1e3 * run->mean_seconds,
                                    1e3 * run->p50_seconds, 1e3 * run->p90_seconds, 1e3 * run->p99_seconds,
                                    run->joules_per_token};
    return values[figure];
}

static bool fits(member_type type, const json_t *value) {
    switch (type) {
    case NUMBER: return json_is_number(value);
    case COUNT: return json_is_integer(value) && json_integer_value(value) >= 0 &&
                       json_integer_value(value) <= UINT32_MAX;
    case SEED: return json_is_integer(value);
    case FLAG: return json_is_boolean(value);
    default: return json_is_string(value);
    }
}

static void store(const member *of, const json_t *value, void *object_out) {
    char *place = (char *)object_out + of->offset;
    switch (of->type) {
    case NUMBER: *(double *)(void *)place = json_number_value(value); break;
    case COUNT: *(uint32_t *)(void *)place = (uint32_t)json_integer_value(value); break;
    case SEED: *(uint64_t *)(void *)place = (uint64_t)json_integer_value(value); break;
    case FLAG: *(bool *)(void *)place = json_is_true(value); break;
    default: *(const char **)(void *)place = json_string_value(value);
    }
}

static int refuse(const char *path, const char *where, const char *name, const char *what) {
    (void)pi2_cli_usage_error("simulate: %s: %s: '%.80s' %s", path, where, name, what);
    return PI2_EXIT_BAD_FILE;
}

static bool is_one_of(const char *name, const char *const *others) {
    for (; *others; others++) {
        if (strcmp(*others, name) == 0) return true;
    }
    return false;
}

/** Reads the members of an object. others: names that are read elsewhere, NULL at the end. */
static int read_members(const char *path, const char *where, json_t *object, const member *members,
                        const char *const *others, void *object_out) {
    static const char *const wanted[] = {"must be a number", "must be a whole number from 0 to 4294967295",
                                         "must be a whole number", "must be true or false", "must be a text"};
    const char *name;
    json_t *value;
    if (!json_is_object(object)) return refuse(path, "the file", where, "must be an object");
    json_object_foreach(object, name, value) {
        const member *found = members;
        while (found->name && strcmp(found->name, name) != 0) found++;
        if (!found->name && !is_one_of(name, others)) return refuse(path, where, name, "is no member that is known");
        if (!found->name) continue;
        if (!fits(found->type, value)) return refuse(path, where, name, wanted[found->type]);
        store(found, value, object_out);
    }
    for (const member *needed = members; needed->name; needed++) {
        if (!needed->may_lack && !json_object_get(object, needed->name)) {
            return refuse(path, where, needed->name, "is missing");
        }
    }
    return PI2_CLI_GO_ON;
}

/** The disk's curve: pairs of bytes and reads a second. */
static int read_curve(const char *path, const json_t *curve, pi2_simulated_device *device) {
    const size_t count = json_array_size(curve);
    if (count == 0 || count > PI2_SIMULATED_READS) {
        return refuse(path, "device", "reads", "must be an array of 1 to 16 pairs of bytes and reads a second");
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *pair = json_array_get(curve, i);
        if (json_array_size(pair) != 2 || !json_is_number(json_array_get(pair, 0)) ||
            !json_is_number(json_array_get(pair, 1))) {
            return refuse(path, "device", "reads", "must hold pairs of bytes and reads a second");
        }
        device->reads[i].bytes = json_number_value(json_array_get(pair, 0));
        device->reads[i].per_second = json_number_value(json_array_get(pair, 1));
    }
    device->read_count = (uint32_t)count;
    return PI2_CLI_GO_ON;
}

static int read_figure(const char *path, const char *where, const json_t *object, pi2_described_run *run) {
    const json_t *published = json_object_get(object, "published"), *of = json_object_get(object, "of");
    if (!published) {
        return of ? refuse(path, where, "of", "says what is published, and 'published' is missing") : PI2_CLI_GO_ON;
    }
    if (!json_is_number(published) || !(json_number_value(published) > 0)) {
        return refuse(path, where, "published", "must be a number above 0");
    }
    run->published = json_number_value(published);
    run->figure = PI2_FIGURE_TOKENS;
    if (!of) return PI2_CLI_GO_ON;
    for (int i = 1; i < FIGURES; i++) {
        if (!json_is_string(of) || strcmp(figures[i], json_string_value(of)) != 0) continue;
        run->figure = (pi2_described_figure)i;
        return PI2_CLI_GO_ON;
    }
    return refuse(path, where, "of", "must be tokens_per_second, prompt_tokens_per_second, mean_ms, p50_ms, p90_ms, "
                  "p99_ms or joules_per_token");
}

/** The number of an earlier run that differs in nothing but what is published of it; its own number: there is none. */
static uint32_t find_same(const pi2_description *description, uint32_t number) {
    const pi2_simulation *own = &description->runs[number].simulation;
    for (uint32_t i = 0; i < number; i++) {
        bool is_same = true;
        for (const member *of = run_members; of->name && is_same; of++) {
            const char *a = (const char *)own + of->offset;
            const char *b = (const char *)&description->runs[i].simulation + of->offset;
            const size_t bytes = of->type == COUNT ? sizeof(uint32_t) : of->type == FLAG ? sizeof(bool) :
                                 of->type == WORD ? sizeof(const char *) : sizeof(uint64_t);
            is_same = memcmp(a, b, bytes) == 0;
        }
        if (is_same) return i;
    }
    return number;
}

static int read_runs(const char *path, const json_t *runs, pi2_description *description) {
    static const char *const others[] = {"name", "published", "of", NULL};
    const size_t count = json_array_size(runs);
    if (count == 0 || count > PI2_DESCRIBED_RUNS) {
        return refuse(path, "the file", "runs", "must be an array of 1 to 64 runs");
    }
    for (uint32_t i = 0; i < count; i++) {
        json_t *object = json_array_get(runs, i);
        pi2_described_run *run = &description->runs[i];
        char where[32];
        (void)snprintf(where, sizeof where, "run %u", (unsigned)i + 1);
        pi2_simulation_init(&run->simulation);
        run->name = json_string_value(json_object_get(object, "name"));
        if (!run->name) return refuse(path, where, "name", "must be a text");
        int code = read_members(path, where, object, run_members, others, &run->simulation);
        if (code == PI2_CLI_GO_ON) code = read_figure(path, where, object, run);
        if (code != PI2_CLI_GO_ON) return code;
        run->previous = find_same(description, i);
    }
    description->run_count = (uint32_t)count;
    return PI2_CLI_GO_ON;
}

static int read_all(const char *path, bool device_alone, pi2_description *description) {
    static const char *const known[] = {"name", "assumed", "device", "model", "runs", NULL};
    static const char *const of_device[] = {"reads", NULL}, *const nothing[] = {NULL};
    static const member no_members[] = {{NULL, NUMBER, 0, true}};
    json_t *json = description->json, *device = json_object_get(json, "device");
    description->model.experts = description->model.experts_used = 1;
    description->model.precision = 1;
    description->name = json_string_value(json_object_get(json, "name"));
    int code = read_members(path, "the file", json, no_members, known, NULL);
    if (code == PI2_CLI_GO_ON && !description->name) code = refuse(path, "the file", "name", "must be a text");
    if (code == PI2_CLI_GO_ON) {
        code = read_members(path, "device", device, device_members, of_device, &description->device);
    }
    if (code == PI2_CLI_GO_ON) code = read_curve(path, json_object_get(device, "reads"), &description->device);
    if (device_alone) return code;
    if (code == PI2_CLI_GO_ON) {
        code = read_members(path, "model", json_object_get(json, "model"), model_members, nothing, &description->model);
    }
    return code == PI2_CLI_GO_ON ? read_runs(path, json_object_get(json, "runs"), description) : code;
}

static int read_description(const char *path, const char *text, size_t length, bool device_alone,
                            pi2_description *description_out) {
    json_error_t error;
    memset(description_out, 0, sizeof *description_out);
    if (pi2_json_measure(text, length).depth > PI2_JSON_DEPTH) {
        (void)pi2_cli_usage_error("simulate: %s: the JSON is nested more than %d levels deep", path, PI2_JSON_DEPTH);
        return PI2_EXIT_BAD_FILE;
    }
    description_out->json = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (!description_out->json) {
        (void)pi2_cli_usage_error("simulate: %s: no JSON: line %d, column %d: %s", path, error.line, error.column,
                                  error.text);
        return PI2_EXIT_BAD_FILE;
    }
    const int code = read_all(path, device_alone, description_out);
    if (code != PI2_CLI_GO_ON) pi2_description_free(description_out);
    return code;
}

int pi2_description_read(const char *path, const char *text, size_t length, pi2_description *description_out) {
    return read_description(path, text, length, false, description_out);
}

int pi2_description_read_device(const char *path, const char *text, size_t length, pi2_description *description_out) {
    return read_description(path, text, length, true, description_out);
}

void pi2_description_free(pi2_description *description) {
    json_decref(description->json);
    description->json = NULL;
}
