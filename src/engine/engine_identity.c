/* engine_identity.c: whose weights an engine has, and how they are computed. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <xxhash.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "engine/engine_internal.h"
#include "predictor/layer_shares.h"
#include "powerinfer2/identity.h"

pi2_status pi2_engine_weights_hash(const pi2_engine *engine, uint64_t *hash_out) {
    const pi2_run_source *source = &engine->run.source;
    uint8_t bytes[24];
    *hash_out = 0;
    if (!engine->run.options.identifies_weights) {
        return pi2_fail(PI2_ERR_INVALID, "the engine was not asked to identify its weights when it was opened");
    }
    pi2_store_le64(bytes, source->header_hash);
    pi2_store_le64(bytes + 8, source->sample_hash);
    pi2_store_le64(bytes + 16, source->model->shape.activation); /* an option may have chosen it */
    *hash_out = XXH3_64bits(bytes, sizeof bytes);
    return PI2_OK;
}

/** By all that its scores, and what is left out by them, hang on: predictors of one name may have been made, trained or
 *  balanced in different ways. */
static uint64_t hash_predictor(const pi2_predictor *predictor, double left_out) {
    uint64_t hash = predictor->kind->number;
    for (uint32_t i = 0; i < predictor->layer_count; i++) {
        const pi2_predictor_layer *layer = &predictor->layers[i];
        uint32_t threshold;
        uint64_t share;
        uint8_t bytes[24];
        memcpy(&threshold, &layer->threshold, sizeof threshold);
        pi2_store_le64(bytes, hash);
        pi2_store_le32(bytes + 8, layer->size | (layer->is_signed ? UINT32_C(1) << 31 : 0));
        pi2_store_le32(bytes + 12, threshold);
        pi2_store_le64(bytes + 16, layer->checksum);
        hash = XXH3_64bits(bytes, sizeof bytes);
        if (left_out < 0 || !pi2_predictor_is_balanced(predictor)) continue;
        memcpy(&share, &layer->left_out, sizeof share);
        pi2_store_le64(bytes, hash);
        pi2_store_le64(bytes + 8, share);
        hash = XXH3_64bits(bytes, 16);
    }
    return hash;
}

/** By all that is known of the devices whose bits differ, since another driver may have other bits. */
static uint64_t hash_devices(const pi2_run_devices *devices) {
    uint64_t hash = 0;
    for (uint32_t i = 0; i < devices->count; i++) {
        const pi2_device_facts *facts = pi2_backend_facts(devices->of[i]);
        if (!facts->has_other_bits) continue;
        const size_t kind_bytes = strcspn(facts->name, ":");
        hash = XXH3_64bits_withSeed(facts->name, kind_bytes, hash);
        hash = XXH3_64bits_withSeed(facts->description, strlen(facts->description), hash);
    }
    return hash;
}

/** Adds the first of these devices' names, as far as there is room for it, and what tells it from all others. */
static void add_devices(const pi2_run_devices *devices, char *text, size_t capacity) {
    enum { ENOUGH = 40, HASH_BYTES = sizeof " 0123456789abcdef" };
    const size_t length = strlen(text);
    const char *name = "";
    for (uint32_t i = 0; i < devices->count && !*name; i++) {
        const pi2_device_facts *facts = pi2_backend_facts(devices->of[i]);
        if (facts->has_other_bits) name = facts->description;
    }
    size_t at = length + (size_t)snprintf(text + length, capacity - length, "%sdevice ", length ? ", " : "");
    const size_t end = at + ENOUGH < capacity - HASH_BYTES ? at + ENOUGH : capacity - HASH_BYTES;
    for (; at < end && *name && *name != ','; name++) text[at++] = *name >= ' ' && *name <= '~' ? *name : '?';
    (void)snprintf(text + at, capacity - at, " %016" PRIx64, hash_devices(devices));
}

/** Adds how much is left out, and by which predictor. */
static void add_sparsity(const pi2_run_plan *plan, char *text, size_t capacity) {
    const pi2_predictor *predictor = &plan->predictor;
    size_t length = strlen(text);
    length += (size_t)snprintf(text + length, capacity - length, "%s", length ? ", " : "");
    if (plan->left_out < 0) length += (size_t)snprintf(text + length, capacity - length, "sparsity auto");
    else length += (size_t)snprintf(text + length, capacity - length, "sparsity %.9g", plan->left_out);
    if (!predictor->kind) return;
    (void)snprintf(text + length, capacity - length, ", predictor %s %016" PRIx64, predictor->kind->name,
                   hash_predictor(predictor, plan->left_out));
}

void pi2_run_describe_arithmetic(pi2_planned_run *run) {
    char *text = run->texts.arithmetic;
    const size_t capacity = sizeof run->texts.arithmetic;
    text[0] = 0;
    if (run->options.cache_type != PI2_CACHE_F16) {
        (void)snprintf(text, capacity, "cache %s", pi2_cache_type_name(run->options.cache_type));
    }
    if (run->plan.approximates) add_sparsity(&run->plan, text, capacity);
    if (run->devices.has_other_bits) add_devices(&run->devices, text, capacity);
    if (!text[0]) (void)snprintf(text, capacity, "exact");
}

const char *pi2_engine_arithmetic(const pi2_engine *engine) { return engine->run.texts.arithmetic; }
