/* engine_identity.c: whose weights an engine has, and how they are computed. */
#include <xxhash.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "engine/engine_internal.h"
#include "powerinfer2/identity.h"

pi2_status pi2_engine_weights_hash(const pi2_engine *engine, uint64_t *hash_out) {
    const pi2_run_source *source = &engine->run.source;
    uint8_t bytes[16];
    *hash_out = 0;
    if (!engine->run.options.identifies_weights) {
        return pi2_fail(PI2_ERR_INVALID, "the engine was not asked to identify its weights when it was opened");
    }
    pi2_store_le64(bytes, source->header_hash);
    pi2_store_le64(bytes + 8, source->sample_hash);
    *hash_out = XXH3_64bits(bytes, sizeof bytes);
    return PI2_OK;
}

const char *pi2_engine_arithmetic(const pi2_engine *engine) {
    return engine->run.options.cache_type == PI2_CACHE_Q8_0 ? "cache q8_0" : "exact";
}
