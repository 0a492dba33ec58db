/* neuron_store_near.c: how near each neuron is to firing, as passes tell that compute all of Gate. */
#include <math.h>

#include "neuron_cache/neuron_store_internal.h"
#include "neuron_cache/unit_near.h"

enum { AT_ONCE = 64, SUMS = 16 };

uint32_t pi2_neuron_store_near_stride(const pi2_neuron_banks *banks) {
    uint32_t most = 1;
    for (uint32_t b = 0; b < banks->count; b++) {
        if (banks->banks[b].unit_neurons > most) most = banks->banks[b].unit_neurons;
    }
    return most;
}

uint8_t pi2_neuron_store_near_of(const pi2_neuron_store *store, uint32_t unit_number) {
    const _Atomic uint8_t *near = store->near + (size_t)unit_number * store->near_stride;
    uint8_t most = 0;
    for (uint32_t i = 0; i < store->near_stride; i++) {
        const uint8_t one = atomic_load_explicit(&near[i], memory_order_relaxed);
        if (one > most) most = one;
    }
    return most;
}

/* Adds to a sum that others add to as well. */
static void add(_Atomic double *sum, double more) {
    double before = atomic_load_explicit(sum, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(sum, &before, before + more, memory_order_relaxed,
                                                  memory_order_relaxed)) {}
}

static float per_step_of(double squares, uint64_t count) {
    const double mean = squares / (double)count;
    return mean > 0 && isfinite(mean) ? (float)(PI2_NEAR_STEPS / sqrt(mean)) : 0.0f;
}

/* Several sums, which need not wait for each other: SUMS floats at a time are whole vectors. */
static float squares_of(const float *gates, uint32_t count) {
    float each[SUMS] = { 0 }, squares = 0.0f;
    uint32_t i = 0;
    for (; i + SUMS <= count; i += SUMS) {
        for (uint32_t s = 0; s < SUMS; s++) each[s] += gates[i + s] * gates[i + s];
    }
    for (uint32_t s = 0; i + s < count; s++) each[s] += gates[i + s] * gates[i + s];
    for (uint32_t s = 0; s < SUMS; s++) squares += each[s];
    return squares;
}

static void tell(_Atomic uint8_t *near, uint8_t now) {
    const uint8_t before = atomic_load_explicit(near, memory_order_relaxed);
    atomic_store_explicit(near, pi2_near_after(before, now), memory_order_relaxed);
}

/* Neurons of units of `in_unit`, behind each of which are `padding` bytes: none where all banks have units of one size,
 * and then a neuron's byte lies at its place. */
static void tell_some(_Atomic uint8_t *near, uint32_t in_unit, size_t padding, const uint32_t *places,
                      const uint8_t *now, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t place = places[i];
        tell(&near[padding ? place + place / in_unit * padding : place], now[i]);
    }
}

void pi2_neuron_store_tell_gates(pi2_neuron_store *store, uint32_t b, uint32_t first, uint32_t count,
                                 const float *gates) {
    store_bank *own = &store->banks[b];
    const uint32_t in_unit = store->options.banks->banks[b].unit_neurons;
    const uint32_t *place_of = own->head.place_of + first;
    if (!store->near || count == 0) return;
    _Atomic uint8_t *near = store->near + own->first_unit * (size_t)store->near_stride;
    const float squares = squares_of(gates, count);
    if (isfinite(squares)) {
        add(&own->near_squares, squares);
        (void)atomic_fetch_add_explicit(&own->near_count, count, memory_order_relaxed);
    }
    const float per_step = own->near_per_step > 0 ? own->near_per_step : per_step_of(squares, count);
    for (uint32_t begin = 0; begin < count; begin += AT_ONCE) {
        const uint32_t some = count - begin < AT_ONCE ? count - begin : AT_ONCE;
        uint8_t now[AT_ONCE];
        for (uint32_t i = 0; i < some; i++) now[i] = pi2_near_of(gates[begin + i], per_step);
        tell_some(near, in_unit, store->near_stride - in_unit, place_of + begin, now, some);
    }
}

void pi2_neuron_store_set_near(pi2_neuron_store *store, uint32_t b, const uint8_t *near, uint32_t count) {
    const uint32_t units = store->options.banks->banks[b].unit_count;
    if (!store->near) return;
    for (uint32_t unit = 0; unit < count && unit < units; unit++) {
        const size_t at = (store->banks[b].first_unit + unit) * (size_t)store->near_stride;
        for (uint32_t i = 0; i < store->near_stride; i++) {
            atomic_store_explicit(&store->near[at + i], near[unit], memory_order_relaxed);
        }
    }
}

void pi2_neuron_store_settle_near(pi2_neuron_store *store) {
    for (uint32_t b = 0; store->near && b < store->options.banks->count; b++) {
        store_bank *own = &store->banks[b];
        const uint64_t count = atomic_load(&own->near_count);
        if (count == 0) continue;
        const float per_step = per_step_of(atomic_load(&own->near_squares), count);
        if (per_step > 0) own->near_per_step = per_step;
        atomic_store(&own->near_squares, 0.0);
        atomic_store(&own->near_count, 0);
    }
}

void pi2_neuron_store_tell_near(pi2_neuron_store *store, uint32_t b) {
    const uint32_t count = store->options.banks->banks[b].unit_count;
    if (!store->near_told || !store->near) return;
    for (uint32_t unit = 0; unit < count; unit++) {
        store->near_told[unit] = pi2_neuron_store_near_of(store, store->banks[b].first_unit + unit);
    }
    store->options.on_near(store->options.on_use_user, store->near_told, count);
}
