/* machine_measure.c: the order of measuring, and what its parts share. */
#include "machine/machine_measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cache_size.h"
#include "base/fail.h"
#include "base/memory_limit.h"
#include "base/pages.h"

enum { MOST_POINTS = 12 };

/* What a cache of unknown size is taken for; of memory beyond every cache; of both together where there is no room. */
enum { ASSUMED_CACHE_BYTES = 32 << 20, LEAST_FAR_BYTES = 128 << 20, MOST_FAR_BYTES = 1 << 30,
       LEAST_NEAR_BYTES = 2 << 20, LEAST_MEMORY_BYTES = 16 << 20 };
enum { TURNS = 3 };
enum { ROUND_BYTES = 32 << 20, QUICK_ROUND_BYTES = 512 << 10, PLACE_ALIGNMENT = 64 };

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double pi2_samples_typical(pi2_samples *samples, double *spread) {
    const size_t count = samples->count;
    *spread = 0;
    if (count == 0) return 0;
    qsort(samples->values, count, sizeof samples->values[0], by_value);
    const double median = samples->values[count / 2];
    if (median > 0) *spread = (samples->values[count * 4 / 5] - samples->values[count / 5]) / (2 * median);
    if (*spread > 1) *spread = 1;
    const size_t kept = count - count / 10;
    double sum = 0;
    for (size_t i = 0; i < kept; i++) sum += samples->values[i];
    return sum / (double)kept;
}

pi2_status pi2_measuring_step(pi2_measuring *measuring) {
    const pi2_callbacks *callbacks = &measuring->options->callbacks;
    measuring->step++;
    if (callbacks->cancelled && callbacks->cancelled(callbacks->user)) {
        return pi2_fail(PI2_ERR_INTERRUPTED, "interrupted: the machine was not measured to the end");
    }
    if (callbacks->progress) {
        callbacks->progress(callbacks->user, "measuring this machine", measuring->step, measuring->step_count);
    }
    return PI2_OK;
}

/** 1, 2, 4, ... and the most that compute. */
static size_t thread_points(unsigned most, unsigned *points) {
    size_t count = 0;
    for (unsigned threads = 1; threads < most && count + 1 < MOST_POINTS; threads *= 2) points[count++] = threads;
    points[count++] = most;
    return count;
}

/** All that computes, once. */
static pi2_status measure_turn(pi2_measuring *measuring, const unsigned *points, size_t count) {
    for (size_t i = 0; i < count; i++) {
        pi2_team *team = NULL;
        PI2_TRY(pi2_team_create(points[i], NULL, &team));
        const bool at_an_end = i == 0 || i + 1 == count;
        pi2_status status = pi2_measure_compute(measuring, team, at_an_end);
        if (status == PI2_OK && at_an_end) status = pi2_measure_neurons(measuring, team);
        if (status == PI2_OK && at_an_end) status = pi2_measure_store(measuring, team);
        pi2_team_destroy(team);
        PI2_TRY(status);
    }
    return pi2_measure_serial(measuring);
}

/* What was measured in one turn more becomes a part of the mean: of seconds, as those of a run add up. */
static void add_turn(pi2_machine_profile *profile, const pi2_machine_profile *turn, double turns_before) {
    for (size_t i = 0; i < turn->count; i++) {
        const pi2_measurement *now = &turn->items[i];
        pi2_measurement *all = NULL;
        for (size_t k = 0; k < profile->count && !all; k++) {
            pi2_measurement *item = &profile->items[k];
            const bool is_same = item->what == now->what && item->a == now->a && item->b == now->b &&
                                 item->c == now->c && strcmp(item->name, now->name) == 0;
            if (is_same) all = item;
        }
        if (!all) {
            (void)pi2_profile_add(profile, now->what, now->name, now->a, now->b, now->c, now->value, now->spread);
            continue;
        }
        const double apart = fabs(now->value - all->value) / (now->value + all->value), turns = turns_before + 1;
        all->value = now->what == PI2_MEASURED_STAGE
                         ? (turns_before * all->value + now->value) / turns
                         : turns / (turns_before / all->value + 1 / now->value);
        all->spread = fmax(fmax(all->spread, now->spread), apart);
    }
}

/* Others may have a processor or the cache for a tenth of a second: neither shall decide about one type of weights, and
 * the next one, measured a moment later, be twice as fast. So all is measured in several turns. */
static pi2_status measure_turns(pi2_measuring *measuring, const unsigned *points, size_t count, unsigned turns) {
    pi2_machine_profile *profile = measuring->profile, *turn = calloc(1, sizeof *turn);
    if (!turn) return pi2_fail(PI2_ERR_MEMORY, "no memory for the machine profile");
    pi2_status status = PI2_OK;
    measuring->seconds /= turns;
    measuring->profile = turn;
    for (unsigned i = 0; i < turns && status == PI2_OK; i++) {
        turn->count = 0;
        status = measure_turn(measuring, points, count);
        if (status == PI2_OK) add_turn(profile, turn, i);
    }
    measuring->profile = profile;
    measuring->seconds *= turns;
    free(turn);
    return status;
}

static pi2_status measure_all(pi2_measuring *measuring, const char *folder) {
    unsigned points[MOST_POINTS];
    const size_t count = thread_points(measuring->most_threads, points);
    const unsigned turns = measuring->options->quick ? 1 : TURNS;
    measuring->step_count = pi2_measure_disk_steps() + turns;
    for (size_t i = 0; i < count; i++) {
        const bool at_an_end = i == 0 || i + 1 == count;
        const unsigned neurons = at_an_end ? pi2_measure_neuron_steps() + pi2_measure_store_steps() : 0;
        measuring->step_count += turns * (pi2_measure_compute_steps(at_an_end) + neurons);
    }
    PI2_TRY(measure_turns(measuring, points, count, turns));
    return pi2_measure_disk(measuring, folder);
}

const uint8_t *pi2_measuring_place(const pi2_measuring *measuring, pi2_reach *reach, size_t bytes) {
    if (reach->at + bytes > reach->bytes) reach->at = 0;
    const uint8_t *place = measuring->memory + reach->begin + reach->at;
    reach->at += (bytes + PLACE_ALIGNMENT - 1) / PLACE_ALIGNMENT * PLACE_ALIGNMENT;
    return place;
}

static size_t smaller_of(uint64_t a, uint64_t b) { return (size_t)(a < b ? a : b); }

/* In a quick measurement a round is short, and what a cache holds is but that round. */
static void set_round(const pi2_measuring *m, pi2_reach *reach) {
    const size_t quick = (size_t)QUICK_ROUND_BYTES * m->most_threads;
    reach->round_bytes = smaller_of(ROUND_BYTES, reach->bytes / 2);
    if (m->options->quick) reach->round_bytes = smaller_of(reach->round_bytes, quick);
}

/* An eighth of the last level of caches stays there, whoever shares it; of twice its size nothing does. */
static void choose_reaches(pi2_measuring *m) {
    pi2_memory_limit limit;
    pi2_memory_limit_find(&limit);
    m->cache_bytes = pi2_last_level_cache_bytes("");
    const uint64_t cache = m->cache_bytes ? m->cache_bytes : ASSUMED_CACHE_BYTES;
    uint64_t near = cache / 8, far = 2 * cache < LEAST_FAR_BYTES ? LEAST_FAR_BYTES : 2 * cache;
    if (far > MOST_FAR_BYTES) far = MOST_FAR_BYTES;
    const uint64_t room = limit.bytes / 4 < LEAST_MEMORY_BYTES ? LEAST_MEMORY_BYTES : limit.bytes / 4;
    if (near < LEAST_NEAR_BYTES) near = LEAST_NEAR_BYTES;
    if (near > room / 4) near = room / 4;
    if (near + far > room) far = room - near;
    near = near / PLACE_ALIGNMENT * PLACE_ALIGNMENT;
    m->near = (pi2_reach){.bytes = (size_t)near, .told_bytes = (size_t)near};
    m->far = (pi2_reach){.begin = (size_t)near, .bytes = (size_t)far, .told_bytes = (size_t)far};
    set_round(m, &m->near);
    set_round(m, &m->far);
    if (m->options->quick) m->near.bytes = m->near.round_bytes;
    m->near.skipped = m->near.bytes / m->near.round_bytes;
    (void)pi2_profile_add(m->profile, PI2_MEASURED_BUFFER, NULL, m->cache_bytes, 0, 0, (double)far, 0);
}

static pi2_status measure(pi2_measuring *measuring) {
    choose_reaches(measuring);
    const size_t bytes = measuring->far.begin + measuring->far.bytes;
    void *pages = NULL;
    PI2_TRY(pi2_pages_reserve(bytes, true, "measuring the memory's speed", &pages));
    measuring->memory = pages;
    /* As scales of any float type this byte is a small normal number. */
    memset(pages, 0x11, bytes);
    char folder[1024];
    memcpy(folder, measuring->profile->path, sizeof folder);
    char *slash = strrchr(folder, '/');
    if (slash) slash[slash == folder] = '\0';
    else memcpy(folder, ".", 2);
    const pi2_status status = measure_all(measuring, folder);
    pi2_pages_release(pages, bytes);
    return status;
}

/* ---- one disk more ---- */

enum { OLD_SECONDS = 24 * 60 * 60 };

bool pi2_machine_needs_disk(const pi2_machine_profile *profile, const char *path) {
    pi2_machine_disk disk;
    if (pi2_profile_place(path, &disk) != PI2_OK) return false; /* opening it will tell */
    const uint32_t known = pi2_profile_find_disk(profile, &disk);
    if (known == PI2_PROFILE_NO_DISK) return true;
    const int64_t age = (int64_t)time(NULL) - profile->disks[known].time;
    return age < 0 || age > OLD_SECONDS;
}

/** What the disk gave before is what it may give again. */
static void widen_spread(const pi2_machine_profile *before, uint32_t old, pi2_machine_profile *now, uint32_t disk) {
    for (size_t i = 0; i < now->count; i++) {
        pi2_measurement *item = &now->items[i];
        if (!pi2_measured_of_disk(item->what) || item->what == PI2_MEASURED_READ_CPU || item->c != disk) continue;
        const double then = pi2_profile_value(before, item->what, item->name, item->a, item->b, old, NULL);
        const double apart = then > 0 ? fabs(item->value - then) / (item->value + then) : 0;
        if (apart > item->spread) item->spread = apart;
    }
}

pi2_status pi2_machine_measure_disk(pi2_machine_profile *profile, const pi2_machine_options *options) {
    pi2_machine_disk disk;
    PI2_TRY(pi2_profile_place(options->disk_path, &disk));
    pi2_output_file file;
    PI2_TRY(pi2_profile_open(profile->path, options->disk_path, &file));
    pi2_machine_profile *changed = malloc(sizeof *changed);
    if (!changed) {
        pi2_output_file_discard(&file);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the machine profile");
    }
    *changed = *profile;
    pi2_measuring measuring = {.profile = changed, .options = options, .seconds = options->quick ? 0.002 : 0.03,
                               .step_count = pi2_measure_disk_steps()};
    pi2_status status = pi2_measure_disk_briefly(&measuring);
    if (status == PI2_OK) {
        const uint32_t known = pi2_profile_find_disk(profile, &disk);
        if (known != PI2_PROFILE_NO_DISK) widen_spread(profile, known, changed, pi2_profile_find_disk(changed, &disk));
        status = pi2_profile_save(changed, &file);
    }
    pi2_output_file_discard(&file);
    if (status == PI2_OK) *profile = *changed;
    free(changed);
    return status;
}

/* ---- all ---- */

pi2_status pi2_machine_measure(const pi2_machine_options *options, pi2_machine_profile **profile_out) {
    *profile_out = NULL;
    pi2_machine_profile *profile = calloc(1, sizeof *profile);
    if (!profile) return pi2_fail(PI2_ERR_MEMORY, "no memory for the machine profile");
    pi2_measuring measuring = {.profile = profile, .options = options, .seconds = options->quick ? 0.002 : 0.04};
    pi2_machine_identify(&profile->identity);
    measuring.most_threads = pi2_default_threads();
    profile->time = (int64_t)time(NULL);
    char path[sizeof profile->path];
    pi2_status status = PI2_OK;
    if (!options->profile_path) status = pi2_profile_default_path(path, sizeof path);
    else if (strlen(options->profile_path) >= sizeof path)
        status = pi2_fail(PI2_ERR_INVALID, "the profile's path is longer than %zu bytes", sizeof path - 1);
    else memcpy(path, options->profile_path, strlen(options->profile_path) + 1);
    pi2_output_file file = {.stream = NULL};
    if (status == PI2_OK) status = pi2_profile_open(path, options->disk_path, &file);
    if (status == PI2_OK) {
        memcpy(profile->path, path, strlen(path) + 1);
        status = measure(&measuring);
    }
    if (status == PI2_OK) status = pi2_profile_save(profile, &file);
    pi2_output_file_discard(&file);
    if (status != PI2_OK) {
        free(profile);
        return status;
    }
    *profile_out = profile;
    return PI2_OK;
}
