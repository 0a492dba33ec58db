/*
 * Goal:   short reads, interrupted reads and refused facilities change nothing but the
 *         description; real errors end the request with file, position and reason.
 * Method: hooks between each method and the system, and files that really shrink.
 */
#include "storage_test.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { BLOCK = 32 * 1024, BLOCKS = 9 };
static const uint64_t file_bytes = (BLOCKS - 1) * BLOCK + 4096 + 77;

typedef enum fault_kind {
    NO_FAULT,
    SHORT_READS,      /* any shorter length, what lies behind it is spoiled */
    SHORT_BLOCKS,     /* one block of 4096 at a time */
    INTERRUPTED,      /* EINTR and EAGAIN, several times in a row */
    ALWAYS_AGAIN,
    IO_ERROR,         /* EIO for what covers one position */
    NO_DIRECT_READS,  /* EINVAL for every O_DIRECT read, after the one at open */
    BAD_PIECE,        /* as NO_PIECES, and then as IO_ERROR */
    NO_PIECES,        /* EINVAL for every read into several places */
    STUCK             /* always one byte, never more */
} fault_kind;

typedef struct fault {
    fault_kind kind;
    bool at_open; /* also for the read on trial */
    _Atomic unsigned calls, direct_calls;
    uint64_t bad_position;
    int open_direct_error, ring_error, buffers_error, thread_error;
    unsigned thread_index; /* the first that fails with thread_error */
    unsigned sleep_ms;
    int enter_error; /* from the enter_calls_left-th submission on */
    unsigned enter_calls_left;
    bool enter_recovers; /* fails only once */
} fault;

static int64_t inject(void *context, const pi2_read_operation *operation, int64_t result) {
    fault *f = context;
    const uint64_t offset = operation->offset;
    const uint32_t bytes = operation->bytes;
    const bool direct = operation->direct;
    const unsigned call = atomic_fetch_add(&f->calls, 1);
    if (direct) (void)atomic_fetch_add(&f->direct_calls, 1);
    if (offset == 0 && bytes == 4096 && !f->at_open) return result; /* the read on trial */
    if (f->sleep_ms) {
        const struct timespec time = {.tv_nsec = (long)f->sleep_ms * 1000000};
        (void)nanosleep(&time, NULL);
    }
    switch (f->kind) {
    case SHORT_READS:
        if (call % 4 == 3) return result;
        return test_shorten(operation, result, 1 + (int64_t)(call * 7919u % (bytes + 4096u)));
    case SHORT_BLOCKS: return test_shorten(operation, result, 4096);
    case INTERRUPTED: return call % 5 == 4 ? result : call % 2 ? -EINTR : -EAGAIN;
    case ALWAYS_AGAIN: return -EAGAIN;
    case BAD_PIECE:
        if (operation->place_count > 1) return -EINVAL;
        /* fall through */
    case IO_ERROR:
        return offset <= f->bad_position && f->bad_position < offset + bytes ? -EIO : result;
    case NO_DIRECT_READS: return direct ? -EINVAL : result;
    case NO_PIECES: return operation->place_count > 1 ? -EINVAL : result;
    case STUCK: return test_shorten(operation, result, 1);
    case NO_FAULT: break;
    }
    return result;
}

static int refuse_direct(void *context) { return ((fault *)context)->open_direct_error; }
static int refuse_ring(void *context) { return ((fault *)context)->ring_error; }
static int refuse_buffers(void *context) { return ((fault *)context)->buffers_error; }
static int refuse_thread(void *context, unsigned thread_index) {
    const fault *f = context;
    return thread_index >= f->thread_index ? f->thread_error : 0;
}

static int refuse_enter(void *context) {
    fault *f = context;
    if (!f->enter_error) return 0;
    if (f->enter_calls_left > 0) {
        f->enter_calls_left--;
        return 0;
    }
    const int error = f->enter_error;
    if (f->enter_recovers) f->enter_error = 0;
    return error;
}

static pi2_read_hooks hooks_for(fault *f) {
    return (pi2_read_hooks){.context = f,
                            .open_direct = refuse_direct,
                            .ring_setup = refuse_ring,
                            .register_buffers = refuse_buffers,
                            .ring_enter = refuse_enter,
                            .thread_create = refuse_thread,
                            .read_result = inject};
}

/* Of how a block lies in memory: as one, or in pieces, the last first, of which some have no place. */
enum { WHOLE, PIECES_OF_4096, PIECES_OF_8192, LAYOUTS };
enum { DROPPED = 3 }; /* of 4096 bytes, each block's piece of this number; of 8192 none */

typedef struct reads {
    pi2_read_request requests[BLOCKS];
    unsigned char *memory;
    void *pieces[BLOCKS][BLOCK / 4096];
} reads;

static void cut_into_pieces(reads *r, size_t i, int layout) {
    pi2_read_request *request = &r->requests[i];
    const uint32_t each = layout == PIECES_OF_4096 ? 4096 : 8192, count = request->bytes / each;
    for (uint32_t k = 0; k < count; k++) {
        const bool is_dropped = layout == PIECES_OF_4096 && k == DROPPED;
        r->pieces[i][k] = is_dropped ? NULL : r->memory + i * BLOCK + (count - 1 - k) * each;
    }
    request->destination = NULL;
    request->pieces = r->pieces[i];
    request->piece_bytes = each;
}

/* What pieces leave free in a block's memory is left as it was. */
static void check_dropped(const reads *r) {
    for (size_t i = 0; i + 1 < BLOCKS; i++) {
        const unsigned char *place = r->memory + i * BLOCK + (BLOCK / 4096 - 1 - DROPPED) * 4096;
        for (int k = 0; k < 4096; k++) assert_int_equal(place[k], 0xcc);
    }
}

static void submit_all(pi2_reader *reader, reads *r, int layout) {
    pi2_read_request *pointers[BLOCKS];
    memset(r->requests, 0, sizeof r->requests);
    memset(r->memory, 0xcc, BLOCKS * BLOCK);
    for (size_t i = 0; i < BLOCKS; i++) {
        r->requests[i].offset = i * BLOCK;
        r->requests[i].bytes = i + 1 < BLOCKS ? BLOCK : 8192;
        r->requests[i].destination = r->memory + i * BLOCK;
        if (layout != WHOLE) cut_into_pieces(r, i, layout);
        pointers[i] = &r->requests[i];
    }
    pi2_reader_submit_many(reader, pointers, BLOCKS);
}

static void check_all_good(const test_file *file, pi2_reader *reader, int layout) {
    reads r = {.memory = test_pages(BLOCKS * BLOCK)};
    submit_all(reader, &r, layout);
    for (size_t i = 0; i < BLOCKS; i++) {
        if (pi2_reader_wait(reader, &r.requests[i], 0) != PI2_OK) fail_msg("%s", pi2_error_text());
        test_check_read(file, &r.requests[i]);
    }
    pi2_reader_counters counters;
    pi2_reader_count(reader, &counters);
    assert_int_equal(counters.bytes_read, file->bytes);
    assert_int_equal(counters.bytes_dropped, layout == PIECES_OF_4096 ? (BLOCKS - 1) * 4096 : 0);
    if (layout == PIECES_OF_4096) check_dropped(&r);
    pi2_pages_release(r.memory, BLOCKS * BLOCK);
}

/* 0: the thread that submits reads, which is for pread alone. */
static uint32_t least_depth(const char *method) { return strcmp(method, "pread") == 0 ? 0 : 1; }

static void test_faults_that_pass(void **state) {
    (void)state;
    static const fault_kind kinds[] = {NO_FAULT, SHORT_READS, SHORT_BLOCKS, INTERRUPTED,
                                       NO_DIRECT_READS, NO_PIECES};
    test_file file;
    test_file_make(&file, file_bytes);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
            for (int variant = 0; variant < 3 * LAYOUTS; variant++) {
                static const uint32_t depths[] = {0, 1, 4};
                const int layout = variant / 3;
                const uint32_t depth = depths[variant % 3];
                if (kinds[i] == NO_PIECES && layout == WHOLE) continue;
                if (depth < least_depth(*method)) continue;
                fault f = {.kind = kinds[i]};
                const pi2_read_hooks hooks = hooks_for(&f);
                pi2_reader *reader = test_open(&file, *method, depth, &hooks);
                if (!reader) continue;
                check_all_good(&file, reader, layout);
                assert_true(atomic_load(&f.calls) >= BLOCKS + (kinds[i] != NO_FAULT));
                const bool direct = !strstr(pi2_reader_description(reader), "buffered");
                if (direct && kinds[i] != NO_DIRECT_READS) { /* no read broke O_DIRECT's rules */
                    assert_int_equal(atomic_load(&f.direct_calls), atomic_load(&f.calls));
                }
                pi2_reader_close(reader);
            }
        }
    }
    test_file_remove(&file);
}

static void check_io_error(const test_file *file, const char *method, uint32_t depth, int layout) {
    fault f = {.kind = IO_ERROR, .bad_position = 3 * BLOCK + 5000};
    const pi2_read_hooks hooks = hooks_for(&f);
    pi2_reader *reader = test_open(file, method, depth, &hooks);
    if (!reader) return;
    reads r = {.memory = test_pages(BLOCKS * BLOCK)};
    submit_all(reader, &r, layout);
    for (size_t i = 0; i < BLOCKS; i++) {
        const pi2_status status = pi2_reader_wait(reader, &r.requests[i], 10);
        assert_int_equal(status, i == 3 ? PI2_ERR_IO : PI2_OK);
        if (i != 3) test_check_read(file, &r.requests[i]);
    }
    assert_int_equal(pi2_reader_wait(reader, &r.requests[3], 0), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), file->path));
    assert_non_null(strstr(pi2_error_text(), "at byte 98304"));
    assert_non_null(strstr(pi2_error_text(), strerror(EIO)));
    assert_int_equal(r.requests[3].error_number, EIO);
    f.kind = NO_FAULT; /* the disk recovers: the same request again */
    pi2_reader_submit(reader, &r.requests[3]);
    assert_int_equal(pi2_reader_wait(reader, &r.requests[3], 0), PI2_OK);
    test_check_read(file, &r.requests[3]);
    pi2_pages_release(r.memory, BLOCKS * BLOCK);
    pi2_reader_close(reader);
}

static void test_io_error(void **state) {
    (void)state;
    test_file file;
    test_file_make(&file, file_bytes);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        for (int layout = 0; layout < LAYOUTS; layout++) {
            check_io_error(&file, *method, 4, layout);
            if (least_depth(*method) == 0) check_io_error(&file, *method, 0, layout);
        }
    }
    test_file_remove(&file);
}

/* Pieces that are refused as one are read one by one: an error tells the place that was reached. */
static void test_error_among_pieces(void **state) {
    (void)state;
    test_file file;
    test_file_make(&file, file_bytes);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        fault f = {.kind = BAD_PIECE, .bad_position = 3 * BLOCK + 5000};
        const pi2_read_hooks hooks = hooks_for(&f);
        pi2_reader *reader = test_open(&file, *method, 4, &hooks);
        if (!reader) continue;
        reads r = {.memory = test_pages(BLOCKS * BLOCK)};
        submit_all(reader, &r, PIECES_OF_4096);
        for (size_t i = 0; i < BLOCKS; i++) {
            assert_int_equal(pi2_reader_wait(reader, &r.requests[i], 10), i == 3 ? PI2_ERR_IO : PI2_OK);
        }
        assert_int_equal(pi2_reader_wait(reader, &r.requests[3], 0), PI2_ERR_IO);
        assert_non_null(strstr(pi2_error_text(), "at byte 102400")); /* the second piece */
        assert_int_equal(r.requests[3].bytes_done, 4096);
        pi2_pages_release(r.memory, BLOCKS * BLOCK);
        pi2_reader_close(reader);
    }
    test_file_remove(&file);
}

/* A system that never gives more must end in an error, not in an endless loop. */
static void test_no_progress(void **state) {
    (void)state;
    test_file file;
    test_file_make(&file, BLOCK);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        for (int kind = 0; kind < 2; kind++) {
            fault f = {.kind = kind ? STUCK : ALWAYS_AGAIN};
            const pi2_read_hooks hooks = hooks_for(&f);
            pi2_reader *reader = test_open(&file, *method, 2, &hooks);
            if (!reader) continue;
            unsigned char *memory = test_pages(BLOCK);
            pi2_read_request request = {.bytes = BLOCK, .destination = memory};
            pi2_reader_submit(reader, &request);
            assert_int_equal(pi2_reader_wait(reader, &request, 0), PI2_ERR_IO);
            if (!kind) assert_int_equal(request.error_number, EAGAIN);
            pi2_reader_close(reader);
            pi2_pages_release(memory, BLOCK);
        }
    }
    test_file_remove(&file);
}

static void check_shrunk(const char *method, long size, bool in_pieces) {
    test_file file;
    test_file_make(&file, 2 * BLOCK);
    pi2_reader *reader = test_open(&file, method, 2, NULL);
    if (reader) {
        unsigned char *memory = test_pages(2 * BLOCK);
        void *pieces[2 * BLOCK / 4096];
        for (size_t i = 0; i < 2 * BLOCK / 4096; i++) pieces[i] = memory + (15 - i) * 4096;
        pi2_read_request request = {.bytes = 2 * BLOCK, .destination = in_pieces ? NULL : memory,
                                    .pieces = in_pieces ? pieces : NULL, .piece_bytes = 4096};
        assert_int_equal(truncate(file.path, size), 0);
        pi2_reader_submit(reader, &request);
        assert_int_equal(pi2_reader_wait(reader, &request, 0), PI2_ERR_IO);
        assert_int_equal(request.error_number, 0);
        assert_int_equal(request.bytes_done, size);
        char text[64];
        (void)snprintf(text, sizeof text, "ended early at byte %ld,", size);
        assert_non_null(strstr(pi2_error_text(), text));
        assert_non_null(strstr(pi2_error_text(), file.path));
        pi2_reader_close(reader);
        pi2_pages_release(memory, 2 * BLOCK);
    }
    test_file_remove(&file);
}

static void test_shrunk_file(void **state) {
    (void)state;
    static const long sizes[] = {0, 1000, 4096, 5000, 2 * BLOCK - 1};
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            check_shrunk(*method, sizes[i], false);
            check_shrunk(*method, sizes[i], true);
        }
    }
}

/* "auto" goes on with the next way and says why; a method asked for by name says why it cannot. */
static void check_refusal(const test_file *file, fault f, const char *method,
                          const char *expected_method, const char *reason) {
    const pi2_read_hooks hooks = hooks_for(&f);
    const pi2_reader_options options = {.path = file->path, .method = method, .depth = 4};
    pi2_reader *reader = NULL;
    const pi2_status status = pi2_reader_open_with_hooks(&options, &hooks, &reader);
    if (!expected_method) {
        assert_int_not_equal(status, PI2_OK);
        assert_null(reader);
        if (!strstr(pi2_error_text(), reason)) fail_msg("%s: %s", reason, pi2_error_text());
        return;
    }
    if (status != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_string_equal(pi2_reader_method(reader), expected_method);
    if (!strstr(pi2_reader_description(reader), reason)) {
        fail_msg("%s: %s", reason, pi2_reader_description(reader));
    }
    check_all_good(file, reader, PIECES_OF_8192);
    pi2_reader_close(reader);
}

static bool has_io_uring(const test_file *file) {
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        if (strcmp(*method, "io_uring") != 0) continue;
        pi2_reader *reader = test_open(file, *method, 1, NULL);
        pi2_reader_close(reader);
        return reader != NULL;
    }
    return false;
}

static void test_refusals(void **state) {
    (void)state;
    test_file file;
    test_file_make(&file, file_bytes);
    const fault no_direct = {.open_direct_error = EINVAL};
    const fault no_trial = {.kind = NO_DIRECT_READS, .at_open = true};
    const fault no_threads = {.thread_error = EAGAIN};
    check_refusal(&file, no_direct, "pread", "pread", "O_DIRECT refused: Invalid argument");
    check_refusal(&file, no_trial, "pread", "pread", "O_DIRECT refused: Invalid argument");
    check_refusal(&file, no_threads, "pread", NULL, strerror(EAGAIN));
    check_refusal(&file, (fault){.thread_error = EAGAIN, .thread_index = 2}, "pread", "pread",
                  "pread, 2 threads");
    check_refusal(&file, (fault){.kind = IO_ERROR, .at_open = true}, "pread", NULL, "at byte 0");
    check_refusal(&file, no_direct, "auto", "pread", "buffered");
    if (has_io_uring(&file)) {
        const fault no_ring = {.ring_error = EPERM};
        check_refusal(&file, no_ring, "io_uring", NULL, "io_uring refused: ");
        check_refusal(&file, no_ring, "auto", "pread", "(io_uring refused: Operation not perm");
        check_refusal(&file, (fault){.ring_error = ENOSYS}, "auto", "pread", strerror(ENOSYS));
        check_refusal(&file, no_direct, "io_uring", NULL, "O_DIRECT refused");
        check_refusal(&file, no_trial, "io_uring", NULL, strerror(EINVAL));
        check_refusal(&file, no_trial, "auto", "pread", "io_uring refused: an O_DIRECT read");
        check_refusal(&file, no_threads, "io_uring", NULL, "cannot start its thread");
        check_refusal(&file, no_threads, "auto", NULL, "cannot start");
        check_refusal(&file, (fault){0}, "auto", "io_uring", "io_uring, depth 4");
    }
    test_file_remove(&file);
}

/* A ring that stops working fails every read, queued or not yet, and still closes. */
static void test_ring_breaks(void **state) {
    (void)state;
    test_file file;
    test_file_make(&file, file_bytes);
    for (unsigned calls = 0; calls < 4 && has_io_uring(&file); calls++) {
        fault f = {.enter_error = EINVAL, .enter_calls_left = calls};
        const pi2_read_hooks hooks = hooks_for(&f);
        pi2_reader *reader = test_open(&file, "io_uring", 2, &hooks);
        reads r = {.memory = test_pages(BLOCKS * BLOCK)};
        for (int round = 0; round < 2; round++) {
            unsigned failed = 0;
            submit_all(reader, &r, WHOLE);
            for (size_t i = 0; i < BLOCKS; i++) {
                if (pi2_reader_wait(reader, &r.requests[i], 0) == PI2_OK) {
                    test_check_read(&file, &r.requests[i]);
                } else {
                    assert_int_equal(r.requests[i].error_number, EINVAL);
                    failed++;
                }
            }
            assert_true(failed >= (round ? BLOCKS : 1));
        }
        pi2_reader_close(reader);
        pi2_pages_release(r.memory, BLOCKS * BLOCK);
    }
    static const int passing[] = {EINTR, EAGAIN, EBUSY};
    for (size_t i = 0; i < 3 && has_io_uring(&file); i++) {
        fault f = {.enter_error = passing[i], .enter_calls_left = 1, .enter_recovers = true};
        const pi2_read_hooks hooks = hooks_for(&f);
        pi2_reader *reader = test_open(&file, "io_uring", 2, &hooks);
        check_all_good(&file, reader, WHOLE);
        pi2_reader_close(reader);
    }
    test_file_remove(&file);
}

static void test_refused_registration(void **state) {
    (void)state;
    test_file file;
    test_file_make(&file, file_bytes);
    void *memory = test_pages(BLOCKS * BLOCK);
    fault f = {.buffers_error = ENOMEM};
    const pi2_read_hooks hooks = hooks_for(&f);
    const pi2_reader_options options = {.path = file.path, .method = "auto", .depth = 4,
                                        .buffer = memory, .buffer_bytes = BLOCKS * BLOCK};
    pi2_reader *reader = NULL;
    assert_int_equal(pi2_reader_open_with_hooks(&options, &hooks, &reader), PI2_OK);
    if (strcmp(pi2_reader_method(reader), "io_uring") == 0) {
        assert_non_null(strstr(pi2_reader_description(reader), "registering refused"));
        assert_non_null(strstr(pi2_reader_description(reader), "ulimit -l"));
    }
    check_all_good(&file, reader, WHOLE);
    pi2_reader_close(reader);
    pi2_pages_release(memory, BLOCKS * BLOCK);
    test_file_remove(&file);
}

typedef struct stall {
    unsigned calls;
    char text[512];
} stall;

static void note_stall(void *context, const char *text) {
    stall *s = context;
    s->calls++;
    (void)snprintf(s->text, sizeof s->text, "%s", text);
}

static void test_stall(void **state) {
    (void)state;
    test_file file;
    test_file_make(&file, BLOCK);
    unsigned char *memory = test_pages(BLOCK);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        fault f = {.sleep_ms = 80};
        stall s = {0};
        const pi2_read_hooks hooks = hooks_for(&f);
        const pi2_reader_options options = {.path = file.path, .method = *method, .depth = 1,
                                            .on_stall = note_stall, .stall_context = &s,
                                            .stall_ms = 10};
        pi2_reader *reader = NULL;
        if (pi2_reader_open_with_hooks(&options, &hooks, &reader) != PI2_OK) continue;
        pi2_read_request request = {.offset = 0, .bytes = BLOCK, .destination = memory};
        pi2_reader_submit(reader, &request);
        assert_int_equal(pi2_reader_wait(reader, &request, 5), PI2_OK);
        test_check_read(&file, &request);
        assert_int_equal(s.calls, 1); /* once, though it lasted eight times as long */
        assert_non_null(strstr(s.text, file.path));
        pi2_reader_close(reader);
    }
    pi2_pages_release(memory, BLOCK);
    test_file_remove(&file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faults_that_pass), cmocka_unit_test(test_io_error),
        cmocka_unit_test(test_no_progress),      cmocka_unit_test(test_shrunk_file),
        cmocka_unit_test(test_error_among_pieces),
        cmocka_unit_test(test_refusals),         cmocka_unit_test(test_refused_registration),
        cmocka_unit_test(test_stall),            cmocka_unit_test(test_ring_breaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
