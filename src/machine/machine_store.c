/*
 * machine_store.c: what the store of single neurons takes of the processors beside reading and computing: telling it of
 * Gates, finding what fires, bringing what is not there, and checksums. It is the store that runs have, with slots for
 * three quarters of its units, over a disk that is described, on which every read has ended at once. Between two
 * visits to a layer's lists a pass goes through all of its weights, so memory is gone through before each round.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/pages.h"
#include "machine/machine_rounds.h"
#include "machine/plain_read.h"
#include "neuron_cache/neuron_store.h"
#include "pipeline/pass_choice.h"
#include "storage/described_reader.h"

enum {
    BANKS = 4, QUICK_BANKS = 2, NEURONS = 16384, QUICK_NEURONS = 2048, UNIT_BYTES = 4096,
    CHUNK = 256, FIRING = 26,          /* neurons of a chunk, and those of them that fire */
    CALLS = 16, QUICK_CALLS = 4,       /* for units that are not there, of a bank in a round */
    CHECKED = 2048, QUICK_CHECKED = 64 /* units whose checksums are taken in a round */
};

typedef struct work {
    pi2_rounds rounds;
    pi2_measuring *measuring;
    pi2_neuron_bank bank[BANKS];
    pi2_neuron_banks banks;
    pi2_described_disk disk;
    pi2_store *store;
    pi2_neuron_store *neurons;
    void *slots;                       /* addresses: nobody writes there */
    size_t slot_bytes;
    uint32_t bank_count, neuron_count, calls, checked;
    uint64_t random;
    uint32_t places[NEURONS];          /* of each neuron, in every bank */
    float gates[BANKS][NEURONS];       /* above 0: it fires */
    const uint8_t *found[BANKS][NEURONS];
    uint32_t wanted[BANKS * CALLS][PI2_WANTED_TOGETHER];
    _Atomic uint64_t used;             /* of what was read or found: so it is */
} work;

static uint64_t next_random(work *w) {
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return w->random >> 33;
}

/* ---- a store over a disk that is described ---- */

static void begin_reads(void *user, size_t count) { (void)user, (void)count; }
static void read_one(void *user, uint64_t offset, uint32_t bytes) { (void)user, (void)offset, (void)bytes; }

static void describe_banks(work *w) {
    const pi2_measuring *m = w->measuring;
    w->bank_count = m->options->quick ? QUICK_BANKS : BANKS;
    w->neuron_count = m->options->quick ? QUICK_NEURONS : NEURONS;
    w->calls = m->options->quick ? QUICK_CALLS : CALLS;
    w->checked = m->options->quick ? QUICK_CHECKED : CHECKED;
    const uint64_t bank_bytes = (uint64_t)w->neuron_count * UNIT_BYTES;
    for (uint32_t b = 0; b < w->bank_count; b++) {
        w->bank[b] = (pi2_neuron_bank){.layer = b, .expert = UINT32_MAX, .neuron_count = w->neuron_count,
                                       .bundle_bytes = UNIT_BYTES, .unit_neurons = 1, .unit_bytes = UNIT_BYTES,
                                       .unit_count = w->neuron_count, .file_offset = b * bank_bytes};
    }
    w->banks = (pi2_neuron_banks){.banks = w->bank, .count = w->bank_count};
    w->slot_bytes = (size_t)(bank_bytes * w->bank_count / 4 * 3);
    for (uint32_t i = 0; i < w->neuron_count; i++) w->places[i] = i;
    for (uint32_t i = w->neuron_count; i > 1; i--) {
        const uint32_t other = (uint32_t)(next_random(w) % i), place = w->places[i - 1];
        w->places[i - 1] = w->places[other];
        w->places[other] = place;
    }
}

static pi2_status open_store(work *w) {
    struct pi2_reader *reader = NULL;
    w->disk = (pi2_described_disk){.file_bytes = UINT64_MAX / 2, .begin = begin_reads, .read = read_one};
    PI2_TRY(pi2_reader_open_described("a described disk", PI2_SMALL_READ_DEPTH, &w->disk, &reader));
    const pi2_store_options options = {.reader = reader, .is_described = true};
    const pi2_status status = pi2_store_create(&options, &w->store);
    if (status != PI2_OK) pi2_reader_close(reader);
    return status;
}

static pi2_status open_neurons(work *w) {
    describe_banks(w);
    PI2_TRY(open_store(w));
    PI2_TRY(pi2_pages_reserve_addresses(w->slot_bytes, "measuring the store of neurons", &w->slots));
    const pi2_neuron_store_options options = {.banks = &w->banks, .path = "a described disk", .store = w->store,
                                              .memory = w->slots, .memory_bytes = w->slot_bytes,
                                              .places = w->places};
    PI2_TRY(pi2_neuron_store_create(&options, &w->neurons));
    return pi2_neuron_store_fill(w->neurons, NULL);
}

static void free_work(work *w) {
    pi2_neuron_store_free(w->neurons);
    pi2_store_free(w->store);
    pi2_pages_release(w->slots, w->slot_bytes);
    free(w);
}

/* ---- between rounds ---- */

/* A token: another pass and layer begin, so that whatever is there may leave, and its weights go through the caches. */
static void pass_by(work *w) {
    pi2_measuring *m = w->measuring;
    pi2_neuron_store_begin_pass(w->neurons, 1, 1);
    pi2_neuron_store_begin_layer(w->neurons);
    const size_t bytes = m->options->quick ? m->far.round_bytes : m->far.bytes;
    (void)atomic_fetch_add(&w->used, pi2_plain_read(m->memory + m->far.begin, bytes));
}

/* Of each chunk's neurons so many fire that are there. */
static void choose_firing(void *user) {
    work *w = user;
    for (uint32_t b = 0; b < w->bank_count; b++) {
        for (uint32_t i = 0; i < w->neuron_count; i++) w->gates[b][i] = -(float)(next_random(w) % 1024 + 1) / 512;
        for (uint32_t begin = 0; begin < w->neuron_count; begin += CHUNK) {
            uint32_t firing = 0;
            for (uint32_t tries = 0; firing < FIRING && tries < 16 * CHUNK; tries++) {
                const uint32_t neuron = begin + (uint32_t)(next_random(w) % CHUNK);
                if (w->gates[b][neuron] > 0 || !pi2_neuron_store_has(w->neurons, b, w->places[neuron])) continue;
                w->gates[b][neuron] = -w->gates[b][neuron];
                firing++;
            }
        }
    }
    pass_by(w);
}

/* Units that are not there, anywhere, those of a call ascending. */
static void choose_wanted(void *user) {
    work *w = user;
    for (uint32_t call = 0; call < w->bank_count * w->calls; call++) {
        const uint32_t b = call / w->calls, each = w->neuron_count / (w->calls * PI2_WANTED_TOGETHER);
        for (uint32_t i = 0; i < PI2_WANTED_TOGETHER; i++) {
            const uint32_t first = (i * w->calls + call % w->calls) * each;
            uint32_t unit = first + (uint32_t)(next_random(w) % each);
            for (uint32_t k = 0; k < each && pi2_neuron_store_has(w->neurons, b, unit); k++) {
                unit = unit + 1 < first + each ? unit + 1 : first;
            }
            w->wanted[call][i] = unit;
        }
    }
    pass_by(w);
}

/* ---- what is measured ---- */

static void tell_chunk(void *user, unsigned member, size_t chunk) {
    work *w = user;
    (void)member;
    const uint32_t each = w->neuron_count / CHUNK, b = (uint32_t)chunk / each, begin = (uint32_t)chunk % each * CHUNK;
    pi2_neuron_store_tell_gates(w->neurons, b, begin, CHUNK, w->gates[b] + begin);
}

/* As a chunk of Gate does it (pipeline/forward_neurons.c): lists who fires, and where their bundles are. */
static void find_chunk(void *user, unsigned member, size_t chunk) {
    work *w = user;
    (void)member;
    const uint32_t each = w->neuron_count / CHUNK, b = (uint32_t)chunk / each, begin = (uint32_t)chunk % each * CHUNK;
    uint32_t firing[CHUNK], units[CHUNK], count = 0, here = 0;
    for (uint32_t neuron = begin; neuron < begin + CHUNK; neuron++) {
        if (w->gates[b][neuron] > 0) firing[count++] = neuron;
    }
    if (count == 0) return;
    for (uint32_t i = 0; i < count; i++) units[i] = w->places[firing[i]];
    pi2_neuron_store_expect(w->neurons, b, units, count);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *memory = pi2_neuron_store_hit(w->neurons, b, units[i]);
        if (!memory) continue;
        w->found[b][firing[i]] = memory;
        here++;
    }
    pi2_neuron_store_note(w->neurons, b, count, here);
}

static void bring_chunk(void *user, unsigned member, size_t chunk) {
    work *w = user;
    (void)member;
    const uint32_t b = (uint32_t)(chunk / w->calls), *units = w->wanted[chunk];
    const uint8_t *memory;
    pi2_neuron_store_want(w->neurons, b, units, PI2_WANTED_TOGETHER);
    for (uint32_t i = 0; i < PI2_WANTED_TOGETHER; i++) {
        if (pi2_neuron_store_take(w->neurons, b, units[i], &memory) != PI2_OK) return; /* the store says it */
    }
}

/* Anywhere in memory that no cache holds: a read has just brought it. */
static void check_chunk(void *user, unsigned member, size_t chunk) {
    work *w = user;
    (void)member;
    const pi2_reach *far = &w->measuring->far;
    const uint64_t place = (chunk + w->rounds.done * w->checked) * 2654435761u % (far->bytes / UNIT_BYTES);
    (void)atomic_fetch_add(&w->used, pi2_neuron_unit_checksum(&w->bank[0], w->measuring->memory + far->begin +
                                                                               place * UNIT_BYTES));
}

static void measure(work *w, const char *name, void (*chunk)(void *, unsigned, size_t), size_t chunks,
                    void (*next)(void *), double amount) {
    double spread;
    w->rounds.chunk = chunk;
    w->rounds.chunk_count = chunks;
    w->rounds.next = next;
    if (next) next(w);
    const double value = pi2_rounds_run(&w->rounds, amount, &spread);
    (void)pi2_profile_add(w->measuring->profile, PI2_MEASURED_STORE, name, pi2_team_member_count(w->rounds.team), 0, 0,
                          value, spread);
}

static pi2_status measure_all(work *w) {
    PI2_TRY(open_neurons(w));
    const size_t neurons = (size_t)w->bank_count * w->neuron_count, chunks = neurons / CHUNK;
    const size_t calls = (size_t)w->bank_count * w->calls;
    measure(w, "tell", tell_chunk, chunks, choose_firing, (double)neurons);
    measure(w, "find", find_chunk, chunks, choose_firing, (double)(chunks * FIRING));
    measure(w, "bring", bring_chunk, calls, choose_wanted, (double)(calls * PI2_WANTED_TOGETHER));
    measure(w, "check", check_chunk, w->checked, NULL, (double)w->checked * UNIT_BYTES);
    PI2_TRY(pi2_store_failure(w->store));
    return pi2_measuring_step(w->measuring);
}

unsigned pi2_measure_store_steps(void) { return 1; }

pi2_status pi2_measure_store(pi2_measuring *m, pi2_team *team) {
    work *w = calloc(1, sizeof *w);
    if (!w) return pi2_fail(PI2_ERR_MEMORY, "no memory for measuring the store of neurons");
    w->measuring = m;
    w->rounds = (pi2_rounds){.team = team, .user = w, .seconds = m->seconds / 2, .least = m->options->quick ? 1 : 3};
    const pi2_status status = measure_all(w);
    free_work(w);
    return status;
}
