#include "support/mock_device.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/fail.h"
#include "base/pages.h"
#include "kernels/matmul/matmul.h"

enum { UNITS = 4096, PATIENCE_NS = 2000000 };

mock_orders mock_device_orders;
mock_counts mock_device_counts;

/* What the device has of a piece of work: nothing of it is the caller's. */
typedef struct task {
    pi2_weight_type type;
    void *tiles, *activations;
    float *out;
    size_t tile_count, columns, token_count;
    pi2_activations x;
    bool start, is_rough;
} task;

typedef struct mock_device {
    mock_orders orders;
    char name[16];
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_asked, is_done, ends, is_lost;
    uint64_t works;
    task task;
    void *kept[UNITS];            /* copies of units that stay */
    const void *kept_from[UNITS];
    const volatile uint8_t *late_reads; /* what it still reads when it is closed, after it hung */
    size_t late_bytes;
    atomic_flag is_busy;
} mock_device;

static const char *const names[] = { "mock:0", "mock:1", "mock:2", "mock:3", "mock:4" };

static const char *description(void) {
    return mock_device_orders.description ? mock_device_orders.description : "a thread of a test";
}

static void list(pi2_device_visitor *visit, void *user) {
    for (uint32_t i = 0; i < mock_device_orders.devices; i++) {
        visit(user, &(pi2_device_facts){ .name = names[i], .description = description(),
                                         .memory_bytes = 1000000, .is_processor = i < mock_device_orders.processors,
                                         .refused = mock_device_orders.refused });
    }
}

static void *allocate(size_t bytes) {
    void *memory = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!memory) abort();
    return memory;
}

static void compute(task *work, size_t tile_count) {
    const size_t stride = work->tile_count * PI2_TILE_ROWS;
    pi2_matmul_select(work->type, 0)->run(work->out, stride, work->tiles, tile_count, work->columns, 0, &work->x, 0,
                                          work->token_count, work->start);
    for (size_t i = 0; i < work->token_count * stride && work->is_rough; i++) work->out[i] *= 1.0f + 0x1p-8f;
}

static void *compute_always(void *argument) {
    mock_device *device = argument;
    (void)pthread_mutex_lock(&device->lock);
    for (;;) {
        while (!device->ends && !device->is_asked) (void)pthread_cond_wait(&device->changed, &device->lock);
        if (!device->is_asked) break;
        const bool is_last = device->orders.ends_at == device->works;
        while (is_last && device->orders.ending == MOCK_HANGS && !device->ends) {
            (void)pthread_cond_wait(&device->changed, &device->lock);
        }
        device->is_asked = false;
        (void)pthread_mutex_unlock(&device->lock);
        if (device->orders.slow_us) {
            (void)nanosleep(&(struct timespec){ .tv_nsec = (long)device->orders.slow_us * 1000 }, NULL);
        }
        compute(&device->task, is_last && device->orders.ending == MOCK_FAILS_LATE ? device->task.tile_count / 2
                                                                                   : device->task.tile_count);
        (void)pthread_mutex_lock(&device->lock);
        if (device->is_lost) atomic_fetch_add(&mock_device_counts.too_late, 1);
        device->is_done = true;
        (void)pthread_cond_broadcast(&device->changed);
    }
    (void)pthread_mutex_unlock(&device->lock);
    return NULL;
}

static pi2_status open(unsigned number, const pi2_backend_options *options, void **state_out,
                       pi2_device_facts *facts_out) {
    if (options->timeout_ns == 0) abort();
    if (number >= mock_device_orders.devices) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "there is no device mock:%u", number);
    }
    if (mock_device_orders.refused) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "device 'mock:%u': %s", number, mock_device_orders.refused);
    }
    if (mock_device_orders.first_is_broken && number == 0) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "device 'mock:0' is broken");
    }
    if (mock_device_orders.has_other_bits && !options->any_precision) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "device 'mock:%u' has other bits", number);
    }
    mock_device *device = calloc(1, sizeof *device);
    if (!device) return pi2_fail(PI2_ERR_MEMORY, "no memory for device 'mock:%u'", number);
    device->orders = mock_device_orders;
    atomic_flag_clear(&device->is_busy);
    (void)pthread_mutex_init(&device->lock, NULL);
    (void)pthread_cond_init(&device->changed, NULL);
    if (pthread_create(&device->thread, NULL, compute_always, device) != 0) abort();
    atomic_fetch_add(&mock_device_counts.opened, 1);
    *state_out = device;
    *facts_out = (pi2_device_facts){ .name = names[number], .description = description(),
                                     .memory_bytes = 1000000,
                                     .has_other_bits = mock_device_orders.has_other_bits };
    return PI2_OK;
}

static void free_task(mock_device *device) {
    free(device->task.tiles);
    free(device->task.activations);
    free(device->task.out);
    memset(&device->task, 0, sizeof device->task);
}

static void forget(void *state) {
    mock_device *device = state;
    atomic_fetch_add(&mock_device_counts.forgotten, 1);
    for (int i = 0; i < UNITS; i++) {
        free(device->kept[i]);
        device->kept[i] = NULL;
    }
}

static void close(void *state) {
    mock_device *device = state;
    (void)pthread_mutex_lock(&device->lock);
    device->ends = true;
    (void)pthread_cond_broadcast(&device->changed);
    (void)pthread_mutex_unlock(&device->lock);
    (void)pthread_join(device->thread, NULL);
    for (size_t i = 0; i < device->late_bytes; i++) (void)device->late_reads[i];
    for (int i = 0; i < UNITS; i++) free(device->kept[i]);
    free_task(device);
    (void)pthread_mutex_destroy(&device->lock);
    (void)pthread_cond_destroy(&device->changed);
    free(device);
    atomic_fetch_add(&mock_device_counts.closed, 1);
}

static bool computes(const void *state, pi2_weight_type type) {
    const mock_device *device = state;
    return !device->orders.leaves_q6_k || type != PI2_Q6_K;
}

bool mock_is_no_page(const void *memory) {
    const uint64_t present = UINT64_C(1) << 63, exclusive = UINT64_C(1) << 56; /* Linux: pagemap.rst */
    const volatile uint8_t *byte = memory;
    uint64_t entry = *byte; /* it is there now */
    const off_t at = (off_t)((uintptr_t)memory / pi2_page_bytes() * sizeof entry);
    FILE *file = fopen("/proc/self/pagemap", "rb");
    if (!file) return false;
    (void)setvbuf(file, NULL, _IONBF, 0);
    if (fseeko(file, at, SEEK_SET) != 0 || fread(&entry, sizeof entry, 1, file) != 1) entry = 0;
    (void)fclose(file);
    return (entry & present) && !(entry & exclusive);
}

static void check(bool holds, const char *what) {
    if (!holds) atomic_store(&mock_device_counts.broken, what);
}

static void check_work(const pi2_backend_work *work) {
    const uint8_t *tiles = work->tiles, *unit = work->unit_memory;
    const pi2_weight_format *format = pi2_weight_format_find((uint32_t)work->type);
    check(work->x->kind == format->activation, "activations of another kind than the weights want");
    check((uintptr_t)tiles % 64 == 0, "tiles that are not aligned");
    check(work->tile_count > 0 && work->token_count > 0, "work without tiles or tokens");
    check(work->tile_bytes == pi2_tile_bytes(format, (uint32_t)work->columns), "other tiles than of these columns");
    check(tiles >= unit && tiles + work->tile_count * work->tile_bytes <= unit + work->unit_bytes,
          "tiles outside of their unit");
    check(work->column_begin + work->columns <= work->x->columns, "columns that the activations do not have");
    check(work->token_begin + work->token_count <= work->x->token_count, "tokens that the activations do not have");
    check(work->out_stride >= work->tile_count * PI2_TILE_ROWS || work->token_count == 1, "results that overlap");
}

/* The tiles: of what stays the copy that was made when it was met first, which must still be what the caller has. */
static void bring_tiles(mock_device *device, const pi2_backend_work *work) {
    const size_t bytes = work->tile_count * work->tile_bytes;
    const uint8_t *from = work->tiles;
    if (device->orders.looks_at_pages && mock_is_no_page(from)) atomic_fetch_add(&mock_device_counts.in_no_page, 1);
    if (!work->stays) atomic_fetch_add(&mock_device_counts.passing, 1);
    if (work->stays) atomic_fetch_or(&mock_device_counts.kept_types, UINT64_C(1) << work->type);
    if (work->stays && work->unit < UNITS) {
        if (!device->kept[work->unit]) {
            device->kept[work->unit] = allocate(work->unit_bytes);
            memcpy(device->kept[work->unit], work->unit_memory, work->unit_bytes);
            device->kept_from[work->unit] = work->unit_memory;
            atomic_fetch_add(&mock_device_counts.kept, 1);
        } else {
            check(device->kept_from[work->unit] == work->unit_memory, "a unit that stays has moved");
            check(memcmp(device->kept[work->unit], work->unit_memory, work->unit_bytes) == 0,
                  "a unit that stays has changed");
            atomic_fetch_add(&mock_device_counts.used_again, 1);
        }
        from = (const uint8_t *)device->kept[work->unit] + (from - (const uint8_t *)work->unit_memory);
    }
    device->task.tiles = allocate(bytes);
    memcpy(device->task.tiles, from, bytes);
}

/* Of the activations no more than the work's own columns and tokens: others may be written meanwhile. */
static void bring_activations(task *to, const pi2_backend_work *work) {
    const pi2_activations *x = work->x;
    const size_t block = x->kind == PI2_ACTIVATION_Q8_256 ? 256 : 32, sums = x->kind == PI2_ACTIVATION_Q8_256 ? 16 : 32;
    const bool is_float = x->kind == PI2_ACTIVATION_F32;
    const size_t bytes = is_float ? work->token_count * work->columns * sizeof(float)
                                  : pi2_activations_bytes(x->kind, work->token_count, work->columns);
    to->activations = allocate(bytes);
    memset(to->activations, 0, bytes);
    pi2_activations_layout(&to->x, x->kind, work->token_count, work->columns, to->activations);
    if (is_float) {
        to->x.floats = to->activations;
        to->x.float_stride = work->columns;
    }
    for (size_t t = 0; t < work->token_count; t++) {
        const size_t token = work->token_begin + t, first = work->column_begin;
        if (is_float) {
            memcpy((float *)to->activations + t * work->columns, x->floats + token * x->float_stride + first,
                   work->columns * sizeof(float));
            continue;
        }
        memcpy((int8_t *)(uintptr_t)to->x.values + t * to->x.value_stride, x->values + token * x->value_stride + first,
               work->columns);
        memcpy((float *)(uintptr_t)to->x.scales + t * to->x.block_stride,
               x->scales + token * x->block_stride + first / block, work->columns / block * sizeof(float));
        memcpy((int16_t *)(uintptr_t)to->x.sums + t * to->x.sum_stride, x->sums + token * x->sum_stride + first / sums,
               work->columns / sums * sizeof(int16_t));
    }
}

static void bring(mock_device *device, const pi2_backend_work *work) {
    task *to = &device->task;
    const size_t rows = work->tile_count * PI2_TILE_ROWS;
    free_task(device);
    bring_tiles(device, work);
    bring_activations(to, work);
    to->type = work->type;
    to->tile_count = work->tile_count;
    to->columns = work->columns;
    to->token_count = work->token_count;
    to->start = work->start;
    to->is_rough = device->orders.has_other_bits;
    to->out = allocate(work->token_count * rows * sizeof(float));
    for (size_t t = 0; t < work->token_count && !work->start; t++) {
        memcpy(to->out + t * rows, work->out + t * work->out_stride, rows * sizeof(float));
    }
}

/* Waits for the device's thread; false: it took too long, which is never so unless it is to hang. */
static bool wait_for(mock_device *device) {
    const bool may_hang = device->orders.ends_at == device->works && device->orders.ending == MOCK_HANGS;
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += PATIENCE_NS;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    while (!device->is_done) {
        if (!may_hang) (void)pthread_cond_wait(&device->changed, &device->lock);
        else if (pthread_cond_timedwait(&device->changed, &device->lock, &until) != 0) return false;
    }
    return true;
}

static pi2_status ask(mock_device *device, const pi2_backend_work *work) {
    (void)pthread_mutex_lock(&device->lock);
    device->works++;
    const bool is_last = device->orders.ends_at == device->works;
    if (is_last && device->orders.ending == MOCK_FAILS) {
        (void)pthread_mutex_unlock(&device->lock);
        return pi2_fail(PI2_ERR_IO, "it was told to fail");
    }
    bring(device, work);
    device->is_done = false;
    device->is_asked = true;
    (void)pthread_cond_broadcast(&device->changed);
    const bool is_done = wait_for(device);
    device->is_lost = !is_done;
    (void)pthread_mutex_unlock(&device->lock);
    if (!is_done) {
        device->late_reads = work->unit_memory;
        device->late_bytes = work->unit_bytes;
        return pi2_fail(PI2_ERR_IO, "it does not answer");
    }
    return is_last ? pi2_fail(PI2_ERR_IO, "half of it is computed") : PI2_OK;
}

static pi2_status multiply(void *state, const pi2_backend_work *work) {
    mock_device *device = state;
    const size_t rows = work->tile_count * PI2_TILE_ROWS;
    check(!atomic_flag_test_and_set(&device->is_busy), "two at a time");
    check(!device->is_lost, "work for a device that is lost");
    check_work(work);
    atomic_fetch_add(&mock_device_counts.works, 1);
    const pi2_status status = ask(device, work);
    for (size_t t = 0; t < work->token_count && status == PI2_OK; t++) {
        memcpy(work->out + t * work->out_stride, device->task.out + t * rows, rows * sizeof(float));
    }
    if (status != PI2_OK) device->is_lost = true;
    atomic_flag_clear(&device->is_busy);
    return status;
}

const pi2_backend_kind mock_device_kind = { .name = "mock", .list = list, .open = open, .close = close,
                                            .computes = computes, .multiply = multiply, .forget = forget };
