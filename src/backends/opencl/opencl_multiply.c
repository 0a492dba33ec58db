/*
 * opencl_multiply.c: one piece of a pass's work on a device: activations to it, a kernel, results back, and the wait
 * for them, which ends when the device does not answer in time. Results come into memory of the device's own first: a
 * device that answers too late writes into nothing that the pass uses.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/opencl/opencl_internal.h"
#include "base/fail.h"
#include "base/pages.h"

const char *pi2_opencl_error(cl_int error) {
    switch (error) {
        case CL_DEVICE_NOT_AVAILABLE: return "the device is not available";
        case CL_MEM_OBJECT_ALLOCATION_FAILURE: return "the device has no memory for it";
        case CL_OUT_OF_RESOURCES: return "the device is out of resources";
        case CL_OUT_OF_HOST_MEMORY: return "the driver has no memory";
        case CL_BUILD_PROGRAM_FAILURE: return "the kernels do not compile";
        case CL_INVALID_COMMAND_QUEUE: return "the device does not take work any more";
        default: return "the driver refuses it";
    }
}

/* A driver that allocates a buffer when it is used first tells of it late, by an error of what uses it. */
static bool lacks_memory(cl_int error) {
    return error == CL_MEM_OBJECT_ALLOCATION_FAILURE || error == CL_OUT_OF_RESOURCES || error == CL_OUT_OF_HOST_MEMORY;
}

static pi2_status fail(const char *what, cl_int error) {
    return pi2_fail(lacks_memory(error) ? PI2_ERR_MEMORY : PI2_ERR_IO, "OpenCL: %s: %s (%d)", what,
                    pi2_opencl_error(error), (int)error);
}

int pi2_opencl_type(pi2_weight_type type) {
    static const pi2_weight_type types[] = {
#define PI2_OPENCL_ID(name, id) id,
        PI2_OPENCL_TYPES(PI2_OPENCL_ID)
#undef PI2_OPENCL_ID
    };
    for (int i = 0; i < PI2_OPENCL_TYPE_COUNT; i++) {
        if (types[i] == type) return i;
    }
    return -1;
}

/* ---- waiting ---- */

enum { TIMEOUT_PARTS = 20, EARLY_NS = 50000000 };

static void CL_CALLBACK tell(cl_event event, cl_int status, void *user) {
    (void)event;
    pi2_opencl_device *device = user;
    (void)pthread_mutex_lock(&device->lock);
    device->result = status;
    (void)pthread_cond_signal(&device->told);
    (void)pthread_mutex_unlock(&device->lock);
}

static struct timespec after(uint64_t nanoseconds) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    nanoseconds += (uint64_t)now.tv_nsec;
    return (struct timespec){ .tv_sec = now.tv_sec + (time_t)(nanoseconds / 1000000000u),
                              .tv_nsec = (long)(nanoseconds % 1000000000u) };
}

/* What the driver says of an event when it is asked: as wait_for_answer(). */
static cl_int ask(const pi2_opencl_device *device, cl_event event) {
    cl_int status = CL_QUEUED;
    if (device->cl->GetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof status, &status, NULL) !=
        CL_SUCCESS) return CL_QUEUED;
    return status > CL_COMPLETE ? CL_QUEUED : status;
}

static cl_int ask_for_answer(const pi2_opencl_device *device, cl_event event) {
    enum { FIRST_NAP_NS = 20000, LONGEST_NAP_NS = 1000000 };
    uint64_t waited = 0, nap = FIRST_NAP_NS;
    cl_int result = ask(device, event);
    while (result == CL_QUEUED && waited < device->timeout_ns) {
        (void)nanosleep(&(struct timespec){ .tv_nsec = (long)nap }, NULL);
        waited += nap;
        if (nap < LONGEST_NAP_NS) nap += nap / 4;
        result = ask(device, event);
    }
    return result;
}

/* Until the device has answered: CL_COMPLETE, an error, or CL_QUEUED when it did not in time. Parts of that time are
 * waited for one by one, so that of a process that was stopped (Ctrl-Z) no more than a part has passed; behind each,
 * and early in the first, the driver is asked: some tell of nothing, or not of errors. */
static cl_int wait_for_answer(pi2_opencl_device *device, cl_event event) {
    if (device->asks) return ask_for_answer(device, event);
    const uint64_t part_ns = device->timeout_ns / TIMEOUT_PARTS;
    cl_int result = CL_QUEUED;
    for (int part = 0; result == CL_QUEUED && part <= TIMEOUT_PARTS; part++) {
        const struct timespec until = after(part == 0 && part_ns > EARLY_NS ? EARLY_NS : part_ns);
        int late = 0;
        (void)pthread_mutex_lock(&device->lock);
        while (device->result == CL_QUEUED && late != ETIMEDOUT) {
            late = pthread_cond_timedwait(&device->told, &device->lock, &until);
        }
        result = device->result;
        (void)pthread_mutex_unlock(&device->lock); /* a driver may tell while it is asked */
        if (result != CL_QUEUED) return result;
        result = ask(device, event);
    }
    device->asks = result != CL_QUEUED;
    return result;
}

/* Waits, and gives the event up. */
static pi2_status finish(pi2_opencl_device *device, cl_event done) {
    const pi2_opencl_library *cl = device->cl;
    device->result = CL_QUEUED;
    cl_int error = device->asks ? CL_SUCCESS : cl->SetEventCallback(done, CL_COMPLETE, tell, device);
    if (error == CL_SUCCESS) error = cl->Flush(device->queue);
    if (error != CL_SUCCESS) {
        device->is_stuck = true;
        device->stuck_event = done;
        return fail("waiting for a result", error);
    }
    const cl_int result = wait_for_answer(device, done);
    if (result != CL_QUEUED) (void)cl->ReleaseEvent(done);
    else device->stuck_event = done;
    if (result == CL_COMPLETE) return PI2_OK;
    device->is_stuck = result == CL_QUEUED;
    if (!device->is_stuck) return fail("a kernel's run", result);
    return pi2_fail(PI2_ERR_IO, "OpenCL: no answer within %.0f seconds", (double)device->timeout_ns / 1e9);
}

/* After work that the device took a part of: true when it has ended all of it. Its queue keeps the order. */
static bool has_ended(pi2_opencl_device *device) {
    cl_event done = NULL;
    return device->cl->EnqueueReadBuffer(device->queue, device->out, CL_FALSE, 0, sizeof(float), device->out_memory, 0,
                                         NULL, &done) == CL_SUCCESS && finish(device, done) == PI2_OK;
}

/* ---- weights ---- */

/* A buffer of them, and where in the pass's memory it begins; is_brought: each piece's are brought into it. */
typedef struct pi2_opencl_weights {
    cl_mem memory;
    const uint8_t *base;
    bool is_brought;
} pi2_opencl_weights;

/* A place in the list of units; NULL: there is no memory for it. */
static pi2_opencl_unit *unit_at(pi2_opencl_device *device, uint32_t number) {
    if (number >= device->unit_count) {
        const uint32_t count = number + 1 > 2 * device->unit_count ? number + 1 : 2 * device->unit_count;
        pi2_opencl_unit *units = realloc(device->units, count * sizeof *units);
        if (!units) return NULL;
        memset(units + device->unit_count, 0, (count - device->unit_count) * sizeof *units);
        device->units = units;
        device->unit_count = count;
    }
    return &device->units[number];
}

static void drop_unit(pi2_opencl_device *device, pi2_opencl_unit *unit) {
    if (!unit->memory) return;
    (void)device->cl->ReleaseMemObject(unit->memory);
    if (!device->shares_memory) device->copied_bytes -= unit->bytes;
    *unit = (pi2_opencl_unit){ .memory = NULL };
}

void pi2_opencl_forget(void *state) {
    pi2_opencl_device *device = state;
    for (uint32_t i = 0; i < device->unit_count; i++) drop_unit(device, &device->units[i]);
}

/* Gives up all that stays, and half of the room for copies: false, where nothing stayed. */
static bool keep_fewer(pi2_opencl_device *device) {
    bool has_kept = false;
    for (uint32_t i = 0; i < device->unit_count; i++) has_kept |= device->units[i].memory != NULL;
    if (device->copied_bytes) device->most_copied_bytes = device->copied_bytes / 2;
    pi2_opencl_forget(device);
    return has_kept;
}

/* Copies weights to a buffer of the device, whose answer is waited for as that of a kernel. */
static pi2_status bring(pi2_opencl_device *device, cl_mem to, const void *from, size_t bytes) {
    cl_event done = NULL;
    const cl_int error = device->cl->EnqueueWriteBuffer(device->queue, to, CL_FALSE, 0, bytes, from, 0, NULL, &done);
    if (error != CL_SUCCESS) return fail("copying weights", error);
    return finish(device, done);
}

/* The unit's memory, made when it is met first; NULL: it is not kept, or cannot be. */
static pi2_status find_kept(pi2_opencl_device *device, const pi2_backend_work *work, cl_mem *memory_out) {
    pi2_opencl_unit *unit = work->stays ? unit_at(device, work->unit) : NULL;
    *memory_out = NULL;
    if (!unit) return PI2_OK;
    if (unit->memory && (unit->host != work->unit_memory || unit->bytes != work->unit_bytes)) drop_unit(device, unit);
    *memory_out = unit->memory;
    if (unit->memory) return PI2_OK;
    const bool is_view = device->shares_memory;
    if (work->unit_bytes > device->most_buffer_bytes) return PI2_OK;
    if (!is_view && device->copied_bytes + work->unit_bytes > device->most_copied_bytes) return PI2_OK;
    /* The device only reads it: OpenCL has no type that says so. */
    void *host = is_view ? (void *)(uintptr_t)work->unit_memory : NULL;
    cl_int error = CL_SUCCESS;
    cl_mem memory = device->cl->CreateBuffer(device->context, CL_MEM_READ_ONLY | (is_view ? CL_MEM_USE_HOST_PTR : 0),
                                             work->unit_bytes, host, &error);
    if (error != CL_SUCCESS) {
        if (!is_view) device->most_copied_bytes = device->copied_bytes;
        return PI2_OK;
    }
    const pi2_status status = is_view ? PI2_OK : bring(device, memory, work->unit_memory, work->unit_bytes);
    if (status != PI2_OK) {
        if (device->is_stuck) device->stuck_view = memory;
        else (void)device->cl->ReleaseMemObject(memory);
        device->most_copied_bytes = device->copied_bytes; /* this one had no memory, or nothing matters any more */
        return status == PI2_ERR_MEMORY && !device->is_stuck ? PI2_OK : status;
    }
    *unit = (pi2_opencl_unit){ .memory = memory, .host = work->unit_memory, .bytes = work->unit_bytes };
    if (!is_view) device->copied_bytes += unit->bytes;
    *memory_out = memory;
    return PI2_OK;
}

/* ---- activations and results ---- */

/* What is computed at once: tiles and tokens of a piece of work. */
typedef struct piece {
    size_t tile_begin, tile_count, token_begin, token_count;
} piece;

static size_t round_up(size_t count, size_t to) { return (count + to - 1) / to * to; }

static size_t padded_tokens(const piece *p) { return round_up(p->token_count, PI2_OPENCL_GROUP_TOKENS); }

static size_t float_bytes_of_token(const pi2_backend_work *work) { return work->columns * sizeof(float); }

static size_t code_bytes_of_token(const pi2_backend_work *work) {
    const size_t block = work->x->kind == PI2_ACTIVATION_Q8_256 ? 256 : 32;
    const size_t summed = work->x->kind == PI2_ACTIVATION_Q8_256 ? 16 : 32;
    return work->columns + work->columns / block * sizeof(float) + work->columns / summed * sizeof(int16_t);
}

static size_t bytes_of_token(const pi2_backend_work *work) {
    return work->x->kind == PI2_ACTIVATION_F32 ? float_bytes_of_token(work) : code_bytes_of_token(work);
}

static size_t put_floats(pi2_opencl_device *device, const pi2_backend_work *work, const piece *p,
                         pi2_opencl_shape *shape) {
    const size_t bytes = float_bytes_of_token(work);
    shape->value_stride = (cl_uint)work->columns;
    for (size_t t = 0; t < p->token_count; t++) {
        const size_t token = work->token_begin + p->token_begin + t;
        memcpy(device->x_memory + t * bytes, work->x->floats + token * work->x->float_stride + work->column_begin,
               bytes);
    }
    return padded_tokens(p) * bytes;
}

/* Scales first, then sums, then values: each begins where its type may. */
static size_t put_codes(pi2_opencl_device *device, const pi2_backend_work *work, const piece *p,
                        pi2_opencl_shape *shape) {
    const pi2_activations *x = work->x;
    const bool is_large = x->kind == PI2_ACTIVATION_Q8_256;
    const size_t block = is_large ? 256 : 32, summed = is_large ? 16 : 32;
    const size_t blocks = work->columns / block, sums = work->columns / summed, tokens = padded_tokens(p);
    float *scales = (float *)(void *)device->x_memory;
    int16_t *all_sums = (int16_t *)(void *)(scales + tokens * blocks);
    int8_t *values = (int8_t *)(void *)(all_sums + tokens * sums);
    shape->scale_stride = (cl_uint)blocks;
    shape->sum_stride = (cl_uint)sums;
    shape->value_stride = (cl_uint)work->columns;
    shape->sums = tokens * blocks * sizeof *scales;
    shape->values = shape->sums + tokens * sums * sizeof *all_sums;
    for (size_t t = 0; t < p->token_count; t++) {
        const size_t token = work->token_begin + p->token_begin + t;
        memcpy(scales + t * blocks, x->scales + token * x->block_stride + work->column_begin / block,
               blocks * sizeof *scales);
        memcpy(all_sums + t * sums, x->sums + token * x->sum_stride + work->column_begin / summed,
               sums * sizeof *all_sums);
        memcpy(values + t * work->columns, x->values + token * x->value_stride + work->column_begin, work->columns);
    }
    return shape->values + tokens * work->columns;
}

static float *out_of(const pi2_backend_work *work, const piece *p, size_t token) {
    return work->out + (p->token_begin + token) * work->out_stride + p->tile_begin * PI2_TILE_ROWS;
}

static void put_chains(const pi2_backend_work *work, const piece *p, float *to) {
    const size_t rows = p->tile_count * PI2_TILE_ROWS;
    for (size_t t = 0; t < p->token_count; t++) memcpy(to + t * rows, out_of(work, p, t), rows * sizeof *to);
}

/* Of a device that flushes: whether every result is one that this cannot have changed. What is none anyway is
 * computed by the processor, too. */
static bool has_results(const piece *p, const float *from) {
    const size_t count = p->token_count * p->tile_count * PI2_TILE_ROWS;
    for (size_t i = 0; i < count; i++) {
        if (isnan(from[i])) return false;
    }
    return true;
}

static void take_results(const pi2_backend_work *work, const piece *p, const float *from) {
    const size_t rows = p->tile_count * PI2_TILE_ROWS;
    for (size_t t = 0; t < p->token_count; t++) memcpy(out_of(work, p, t), from + t * rows, rows * sizeof *from);
}

/* ---- a piece ---- */

static cl_int enqueue(pi2_opencl_device *device, int type, cl_mem weights, const pi2_opencl_shape *shape,
                      size_t x_bytes, float *results, cl_event *done) {
    const pi2_opencl_library *cl = device->cl;
    cl_kernel kernel = device->kernels[type];
    const size_t group_rows = device->group_rows[type];
    const size_t out_bytes = round_up(shape->tokens, PI2_OPENCL_GROUP_TOKENS) * shape->rows * sizeof(float);
    /* Groups of one size: a driver that compiles a kernel for each size of group (PoCL) compiles it once. */
    const size_t local[2] = { group_rows, 1 };
    const size_t global[2] = { shape->rows, (shape->tokens + PI2_OPENCL_GROUP_TOKENS - 1) / PI2_OPENCL_GROUP_TOKENS };
    cl_int error = cl->EnqueueWriteBuffer(device->queue, device->x, CL_FALSE, 0, x_bytes, device->x_memory, 0, NULL,
                                          NULL);
    if (error == CL_SUCCESS && !shape->start) {
        error = cl->EnqueueWriteBuffer(device->queue, device->out, CL_FALSE, 0, out_bytes, results, 0, NULL, NULL);
    }
    if (error == CL_SUCCESS) error = cl->SetKernelArg(kernel, 0, sizeof weights, &weights);
    if (error == CL_SUCCESS) error = cl->SetKernelArg(kernel, 1, sizeof device->x, &device->x);
    if (error == CL_SUCCESS) error = cl->SetKernelArg(kernel, 2, sizeof device->out, &device->out);
    if (error == CL_SUCCESS) error = cl->SetKernelArg(kernel, 3, sizeof *shape, shape);
    if (error == CL_SUCCESS) {
        error = cl->EnqueueNDRangeKernel(device->queue, kernel, 2, NULL, global, local, 0, NULL, NULL);
    }
    if (error == CL_SUCCESS) {
        error = cl->EnqueueReadBuffer(device->queue, device->out, CL_FALSE, 0, out_bytes, results, 0, NULL, done);
    }
    return error;
}

/* base: where the buffer of weights begins in the pass's memory. to: of out_memory. */
static pi2_status run_piece(pi2_opencl_device *device, const pi2_backend_work *work, const piece *p,
                            const pi2_opencl_weights *weights, float *to) {
    const pi2_weight_format *format = pi2_weight_format_find((uint32_t)work->type);
    const size_t rows = p->tile_count * PI2_TILE_ROWS;
    pi2_opencl_shape shape = {
        .tiles = (cl_ulong)((const uint8_t *)work->tiles - weights->base) + p->tile_begin * work->tile_bytes,
        .tile_bytes = work->tile_bytes, .value_area = pi2_tile_scale_area_bytes(format, work->columns),
        .blocks = (cl_uint)(work->columns / format->block_columns), .tokens = (cl_uint)p->token_count,
        .rows = (cl_uint)rows, .start = work->start };
    const size_t x_bytes = work->x->kind == PI2_ACTIVATION_F32 ? put_floats(device, work, p, &shape)
                                                               : put_codes(device, work, p, &shape);
    if (!work->start) put_chains(work, p, to);
    cl_event done = NULL;
    const cl_int error = enqueue(device, pi2_opencl_type(work->type), weights->memory, &shape, x_bytes, to, &done);
    if (error != CL_SUCCESS) {
        device->is_stuck = !lacks_memory(error) || !has_ended(device); /* what was taken of it may still run */
        return fail("handing over work", error);
    }
    return finish(device, done);
}

/* How work is cut into pieces: by as many tiles and tokens as the buffers hold and a kernel may take; 0: not even one
 * tile, or four tokens. */
typedef struct cut_sizes {
    size_t tokens, tiles;        /* of a piece, at most */
} cut_sizes;

static cut_sizes cut_work(const pi2_opencl_device *device, const pi2_backend_work *work, bool is_brought) {
    const size_t group = PI2_OPENCL_GROUP_TOKENS;
    const size_t most = PI2_OPENCL_X_BYTES / bytes_of_token(work) / group * group;
    const size_t tokens = most < work->token_count ? most : work->token_count;
    if (tokens == 0) return (cut_sizes){ .tokens = 0 };
    const size_t padded = round_up(tokens, group);
    const size_t of_results = PI2_OPENCL_OUT_BYTES / sizeof(float) / padded / PI2_TILE_ROWS;
    const size_t of_weights = is_brought ? pi2_opencl_weight_bytes(device) / work->tile_bytes : SIZE_MAX;
    const size_t of_time = PI2_OPENCL_PIECE_PRODUCTS / padded / work->columns / PI2_TILE_ROWS + 1;
    const size_t tiles = of_results < of_weights ? of_results : of_weights;
    return (cut_sizes){ .tokens = tokens, .tiles = tiles < of_time ? tiles : of_time };
}

/* Number `number`: all tokens of some tiles, then of the next ones. */
static piece piece_at(const pi2_backend_work *work, const cut_sizes *cut, size_t number) {
    const size_t groups = (work->token_count + cut->tokens - 1) / cut->tokens;
    const size_t token = number % groups * cut->tokens, tile = number / groups * cut->tiles;
    return (piece){ .tile_begin = tile,
                    .tile_count = work->tile_count - tile < cut->tiles ? work->tile_count - tile : cut->tiles,
                    .token_begin = token,
                    .token_count = work->token_count - token < cut->tokens ? work->token_count - token : cut->tokens };
}

static size_t count_pieces(const pi2_backend_work *work, const cut_sizes *cut) {
    return (work->token_count + cut->tokens - 1) / cut->tokens * ((work->tile_count + cut->tiles - 1) / cut->tiles);
}

/* Each piece's results are taken at once where chains begin with it. Where they go on, or may turn out to be none, none
 * is taken before all are there: whoever computes the work then goes on from the same floats. */
static pi2_status run_pieces(pi2_opencl_device *device, const pi2_backend_work *work, pi2_opencl_weights weights) {
    const cut_sizes cut = cut_work(device, work, weights.is_brought);
    const size_t padded = round_up(work->token_count, PI2_OPENCL_GROUP_TOKENS);
    const bool fits = padded * work->tile_count * PI2_TILE_ROWS * sizeof(float) <= PI2_OPENCL_OUT_BYTES;
    const bool at_once = work->start && !device->flushes;
    if (cut.tokens == 0 || cut.tiles == 0 || (!at_once && !fits)) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "OpenCL: results of %zu tokens and %zu rows do not fit its buffer",
                        work->token_count, work->tile_count * PI2_TILE_ROWS);
    }
    const size_t count = count_pieces(work, &cut);
    float *to = device->out_memory;
    for (size_t i = 0; i < count; i++) {
        const piece p = piece_at(work, &cut, i);
        if (weights.is_brought && p.token_begin == 0) {
            weights.base = (const uint8_t *)work->tiles + p.tile_begin * work->tile_bytes;
            PI2_TRY(bring(device, weights.memory, weights.base, p.tile_count * work->tile_bytes));
        }
        PI2_TRY(run_piece(device, work, &p, &weights, to));
        if (device->flushes && !has_results(&p, to)) {
            return pi2_fail(PI2_ERR_UNSUPPORTED, "OpenCL: the device takes denormal floats for 0");
        }
        if (at_once) take_results(work, &p, to);
        else to += padded_tokens(&p) * p.tile_count * PI2_TILE_ROWS;
    }
    to = device->out_memory;
    for (size_t i = 0; !at_once && i < count; i++) {
        const piece p = piece_at(work, &cut, i);
        take_results(work, &p, to);
        to += padded_tokens(&p) * p.tile_count * PI2_TILE_ROWS;
    }
    return PI2_OK;
}

/* Copies of them, each piece's when it is computed. */
static pi2_status multiply_copied(pi2_opencl_device *device, const pi2_backend_work *work) {
    return run_pieces(device, work, (pi2_opencl_weights){ .memory = device->weights, .is_brought = true });
}

/* The pages of a unit in which a work's tiles lie: drivers copy what begins elsewhere. */
static void find_pages(const pi2_backend_work *work, const uint8_t **begin_out, size_t *bytes_out) {
    const uintptr_t unit = (uintptr_t)work->unit_memory, page = pi2_page_bytes();
    const uintptr_t first = (uintptr_t)work->tiles / page * page;
    const uintptr_t last = round_up((uintptr_t)work->tiles + work->tile_count * work->tile_bytes, page);
    const uintptr_t begin = first > unit ? first : unit, end = unit + work->unit_bytes;
    *begin_out = (const uint8_t *)work->unit_memory + (begin - unit);
    *bytes_out = (last < end ? last : end) - begin;
}

/* Weights that are there during the call alone, or in a unit that is larger than a buffer can be: a view of them, where
 * memory is shared. A driver that shows no memory of this size, or at this address, gets copies from now on. */
static pi2_status multiply_view(pi2_opencl_device *device, const pi2_backend_work *work) {
    const uint8_t *begin = NULL;
    size_t bytes = 0;
    cl_int error = CL_SUCCESS;
    find_pages(work, &begin, &bytes);
    if (bytes > device->most_buffer_bytes) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "OpenCL: %zu bytes of weights do not fit a buffer", bytes);
    }
    cl_mem view = device->cl->CreateBuffer(device->context, CL_MEM_READ_ONLY | CL_MEM_USE_HOST_PTR, bytes,
                                           (void *)(uintptr_t)begin, &error);
    if (error != CL_SUCCESS) {
        pi2_opencl_forget(device);
        PI2_TRY(pi2_opencl_keep_copies(device));
        return multiply_copied(device, work);
    }
    const pi2_status status = run_pieces(device, work, (pi2_opencl_weights){ .memory = view, .base = begin });
    if (device->is_stuck) device->stuck_view = view;
    else (void)device->cl->ReleaseMemObject(view);
    return status;
}

static pi2_status multiply_once(pi2_opencl_device *device, const pi2_backend_work *work) {
    cl_mem kept = NULL;
    PI2_TRY(find_kept(device, work, &kept));
    if (kept) return run_pieces(device, work, (pi2_opencl_weights){ .memory = kept, .base = work->unit_memory });
    return device->shares_memory ? multiply_view(device, work) : multiply_copied(device, work);
}

/* Results are taken when a piece is done, or all are: what failed for want of memory can be done once more. */
pi2_status pi2_opencl_multiply(void *state, const pi2_backend_work *work) {
    pi2_opencl_device *device = state;
    const pi2_status status = multiply_once(device, work);
    if (status != PI2_ERR_MEMORY || device->is_stuck || !keep_fewer(device)) return status;
    return multiply_once(device, work);
}
