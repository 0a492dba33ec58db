/*
 * device_engine.h: engines with devices that are threads of the test (support/mock_device.h), over tiny models of mixed
 * types: dense, experts and single neurons; their text against the processor's alone.
 */
#ifndef PI2_TESTS_SUPPORT_DEVICE_ENGINE_H
#define PI2_TESTS_SUPPORT_DEVICE_ENGINE_H

#include "powerinfer2/engine.h"
#include "support/emulator.h"
#include "support/mock_device.h"
#include "support/sanitizer.h"
#include "support/session_run.h"

enum { DEVICE_TESTS_ARE_SLOW = PI2_UNDER_TSAN || PI2_UNDER_ASAN || PI2_UNDER_EMULATOR };
enum { DEVICE_RUNS_MOST = 200 }; /* for what hangs on the scheduler */
enum { DEVICE_PROMPT = 11, DEVICE_DECODED = 3, DEVICE_HOT_LAYERS = 3, DEVICE_HOT_NEURONS = 2080 };

typedef enum device_model { DENSE, EXPERTS, NEURONS, DEVICE_MODELS } device_model;

typedef struct device_variation {
    device_model model;
    const char *devices;
    bool streams; /* with the least memory that it takes, */
    uint32_t spare_steps; /* and so much more */
    uint32_t threads, batch, sequences; /* sequences: 0 is one */
    bool any_precision;
    mock_orders orders;
    double share; /* of the devices; negative: measured */
    bool may_be_left_out;
    bool (*cancelled)(void *user); /* asked in passes; NULL: nobody is */
    void *user;
} device_variation;

/** Models, their text by the processor on one thread, and the kind of devices; for cmocka. */
int device_tests_begin(void **state);
int device_tests_end(void **state);

const char *device_model_path(device_model model);
/** With budget of `bytes` more than the least; 0: with more than enough. What the engine logs is kept. */
pi2_status device_engine_try(const device_variation *v, uint64_t more_bytes, pi2_engine **engine_out);
pi2_engine *device_engine_open(const device_variation *v);
/** And every device with it. */
void device_engine_close(pi2_engine *engine);
/** Runs the variation's text and compares it with the processor's. */
void device_engine_compare(pi2_engine *engine, const device_variation *v, size_t number);
/** How many lines of the last engine's log have this text. */
uint32_t device_lines_with(const char *text);

#endif
