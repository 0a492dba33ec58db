/*
 * Goal:   every read method delivers the file's bytes, from any thread, in the order of
 *         priorities, and ends every request whatever happens to the reader.
 * Method: a file whose bytes tell their position; hooks that hold reads back and write down in
 *         which order they complete.
 */
#include "storage_test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "storage/read_method.h"

enum { BLOCK = 64 * 1024, SUBMITTERS = 4, READS_EACH = 150 };

static const uint64_t odd_size = 37 * BLOCK + 5 * 4096 + 1234; /* ends inside a block of 4096 */

static uint32_t block_bytes(const test_file *file, uint64_t offset, uint32_t most) {
    const uint64_t left = file->bytes - offset;
    return left >= most ? most : (uint32_t)((left + 4095) / 4096 * 4096);
}

/* Reads the whole file in blocks, all queued at once. */
static void read_all(const test_file *file, pi2_reader *reader, unsigned char *memory) {
    const size_t count = (size_t)((file->bytes + BLOCK - 1) / BLOCK);
    pi2_read_request *requests = calloc(count, sizeof *requests);
    pi2_read_request **pointers = calloc(count, sizeof *pointers);
    for (size_t i = 0; i < count; i++) {
        requests[i].offset = i * BLOCK;
        requests[i].bytes = block_bytes(file, i * BLOCK, BLOCK);
        requests[i].destination = memory + i * BLOCK;
        requests[i].priority = i % 3 == 0 ? PI2_READ_LIKELY : PI2_READ_CERTAIN;
        pointers[i] = &requests[i];
    }
    memset(memory, 0xcc, count * BLOCK);
    pi2_reader_submit_many(reader, pointers, count);
    for (size_t i = count; i-- > 0;) {
        assert_int_equal(pi2_reader_wait(reader, &requests[i], i % 2 ? 20 : 0), PI2_OK);
        assert_int_equal(atomic_load(&requests[i].state), PI2_READ_DONE);
        assert_true(requests[i].completed_ns >= requests[i].submitted_ns);
        assert_true(requests[i].submitted_ns > 0);
        test_check_read(file, &requests[i]);
    }
    pi2_reader_counters counters;
    pi2_reader_count(reader, &counters);
    assert_int_equal(counters.bytes_read, file->bytes);
    assert_int_equal(counters.reads, count);
    assert_true(counters.device_busy_ns > 0);
    free(requests);
    free(pointers);
}

static void test_whole_file(void **state) {
    (void)state;
    static const uint32_t depths[] = {0, 1, 3, 16, 100}; /* 0: pread without threads */
    test_file file;
    test_file_make(&file, odd_size);
    const size_t memory_bytes = (size_t)odd_size + BLOCK;
    unsigned char *memory = test_pages(memory_bytes);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++) {
            for (int kind = 0; kind < 3 && (depths[i] > 0 || strcmp(*method, "pread") == 0); kind++) {
                /* No registered memory, all of it, or only the first half. */
                const pi2_reader_options options = {
                    .path = file.path, .method = *method, .depth = depths[i],
                    .buffer = kind ? memory : NULL,
                    .buffer_bytes = kind == 1 ? memory_bytes : memory_bytes / 8192 * 4096};
                pi2_reader *reader = NULL;
                if (pi2_reader_open(&options, &reader) != PI2_OK) {
                    assert_string_not_equal(*method, "pread");
                    print_message("skipped %s: %s\n", *method, pi2_error_text());
                    continue;
                }
                assert_string_equal(pi2_reader_method(reader), *method);
                assert_non_null(strstr(pi2_reader_description(reader), *method));
                if (i < 2) print_message("%s\n", pi2_reader_description(reader));
                read_all(&file, reader, memory);
                pi2_reader_close(reader);
            }
        }
    }
    pi2_pages_release(memory, memory_bytes);
    test_file_remove(&file);
}

/* Sizes around the alignment, and none at all. */
static void test_small_files(void **state) {
    (void)state;
    static const uint64_t sizes[] = {0, 1, 511, 512, 4095, 4096, 4097, 8191, 8192};
    unsigned char *memory = test_pages(16384);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        test_file file;
        test_file_make(&file, sizes[i]);
        for (const char *const *method = pi2_reader_method_names(); *method; method++) {
            pi2_reader *reader = test_open(&file, *method, 2, NULL);
            if (!reader) continue;
            pi2_read_request request = {.destination = memory};
            request.bytes = (uint32_t)((sizes[i] + 4095) / 4096 * 4096);
            memset(memory, 0xcc, 16384);
            if (sizes[i] > 0) {
                pi2_reader_submit(reader, &request);
                assert_int_equal(pi2_reader_wait(reader, &request, 0), PI2_OK);
                test_check_read(&file, &request);
                assert_int_equal(request.bytes_done, sizes[i]);
            }
            request.bytes += 4096; /* past the end by a whole unit */
            pi2_reader_submit(reader, &request);
            assert_int_equal(pi2_reader_wait(reader, &request, 0), PI2_ERR_INVALID);
            pi2_reader_close(reader);
        }
        test_file_remove(&file);
    }
    pi2_pages_release(memory, 16384);
}

typedef struct submitter {
    const test_file *file;
    pi2_reader *reader;
    unsigned char *memory;
    uint64_t random;
    unsigned wrong;
    pthread_t thread;
} submitter;

static void *submit_randomly(void *argument) {
    enum { AT_ONCE = 5, MOST = 32 * 1024 };
    submitter *self = argument;
    for (unsigned i = 0; i < READS_EACH / AT_ONCE; i++) {
        pi2_read_request requests[AT_ONCE];
        memset(requests, 0, sizeof requests);
        for (size_t k = 0; k < AT_ONCE; k++) {
            self->random = self->random * 6364136223846793005u + 1442695040888963407u;
            requests[k].offset = (self->random >> 33) % (self->file->bytes / 4096) * 4096;
            requests[k].bytes = block_bytes(self->file, requests[k].offset, MOST);
            requests[k].destination = self->memory + k * MOST;
            requests[k].priority = self->random >> 20 & 1 ? PI2_READ_LIKELY : PI2_READ_CERTAIN;
            pi2_reader_submit(self->reader, &requests[k]);
            if (self->random >> 21 & 1) pi2_reader_raise(self->reader, &requests[k]);
        }
        for (size_t k = 0; k < AT_ONCE; k++) {
            const unsigned spin_us = (unsigned)(i % 3 * 10);
            if (pi2_reader_wait(self->reader, &requests[k], spin_us) != PI2_OK) self->wrong++;
            if (test_first_wrong(self->file, &requests[k]) >= 0) self->wrong++;
        }
    }
    return NULL;
}

static void test_many_submitters(void **state) {
    (void)state;
    enum { MEMORY = 5 * 32 * 1024 };
    test_file file;
    test_file_make(&file, odd_size);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        for (uint32_t depth = strcmp(*method, "pread") == 0 ? 0 : 1; depth <= 8; depth = depth ? 2 * depth : 1) {
            pi2_reader *reader = test_open(&file, *method, depth, NULL);
            if (!reader) break;
            submitter submitters[SUBMITTERS];
            for (size_t i = 0; i < SUBMITTERS; i++) {
                submitters[i] = (submitter){.file = &file, .reader = reader, .random = i + depth,
                                            .memory = test_pages(MEMORY)};
                assert_int_equal(pthread_create(&submitters[i].thread, NULL, submit_randomly,
                                                &submitters[i]), 0);
            }
            for (size_t i = 0; i < SUBMITTERS; i++) {
                assert_int_equal(pthread_join(submitters[i].thread, NULL), 0);
                assert_int_equal(submitters[i].wrong, 0);
                pi2_pages_release(submitters[i].memory, MEMORY);
            }
            pi2_reader_counters counters;
            pi2_reader_count(reader, &counters);
            assert_int_equal(counters.reads, SUBMITTERS * READS_EACH);
            pi2_reader_close(reader);
        }
    }
    test_file_remove(&file);
}

/* A gate that holds every read's completion back, and the order in which they passed it. */
typedef struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t opened;
    bool is_open;
    uint64_t passed[64];
    size_t passed_count;
    pi2_reader *reader;
    uint32_t most_likely; /* LIKELY reads in flight, at most */
    uint32_t most_in_flight;
    uint64_t most_bytes;
} gate;

static int64_t pass_gate(void *context, const pi2_read_operation *operation, int64_t result) {
    gate *g = context;
    (void)pthread_mutex_lock(&g->mutex);
    while (!g->is_open) (void)pthread_cond_wait(&g->opened, &g->mutex);
    if (g->passed_count < 64) g->passed[g->passed_count++] = operation->offset;
    if (g->reader) {
        (void)pthread_mutex_lock(&g->reader->queue.mutex);
        const uint32_t likely = g->reader->queue.likely_in_flight, all = g->reader->queue.in_flight;
        const uint64_t bytes = g->reader->queue.bytes_in_flight;
        (void)pthread_mutex_unlock(&g->reader->queue.mutex);
        if (likely > g->most_likely) g->most_likely = likely;
        if (all > g->most_in_flight) g->most_in_flight = all;
        if (bytes > g->most_bytes) g->most_bytes = bytes;
    }
    (void)pthread_mutex_unlock(&g->mutex);
    return result;
}

static void gate_set(gate *g, bool is_open) {
    (void)pthread_mutex_lock(&g->mutex);
    g->is_open = is_open;
    g->passed_count = 0;
    (void)pthread_mutex_unlock(&g->mutex);
    (void)pthread_cond_broadcast(&g->opened);
}

static void gate_init(gate *g) {
    memset(g, 0, sizeof *g);
    assert_int_equal(pthread_mutex_init(&g->mutex, NULL), 0);
    assert_int_equal(pthread_cond_init(&g->opened, NULL), 0);
    g->is_open = true;
}

static void gate_free(gate *g) {
    (void)pthread_cond_destroy(&g->opened);
    (void)pthread_mutex_destroy(&g->mutex);
}

static void wait_until_taken(pi2_reader *reader) {
    for (;;) {
        (void)pthread_mutex_lock(&reader->queue.mutex);
        const uint32_t in_flight = reader->queue.in_flight;
        (void)pthread_mutex_unlock(&reader->queue.mutex);
        if (in_flight > 0) return;
        const struct timespec time = {.tv_nsec = 100000};
        (void)nanosleep(&time, NULL);
    }
}

/* One read at a time: what waits behind the first goes in a known order. */
static void test_priorities(void **state) {
    (void)state;
    enum { COUNT = 8 };
    test_file file;
    test_file_make(&file, COUNT * 4096);
    unsigned char *memory = test_pages(COUNT * 4096);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        gate g;
        gate_init(&g);
        const pi2_read_hooks hooks = {.context = &g, .read_result = pass_gate};
        pi2_reader *reader = test_open(&file, *method, 1, &hooks);
        if (!reader) continue;
        gate_set(&g, false);
        pi2_read_request requests[COUNT];
        memset(requests, 0, sizeof requests);
        for (size_t i = 0; i < COUNT; i++) {
            requests[i].offset = i * 4096;
            requests[i].bytes = 4096;
            requests[i].destination = memory + i * 4096;
            requests[i].priority = i >= 1 && i <= 4 ? PI2_READ_LIKELY : PI2_READ_CERTAIN;
            pi2_reader_submit(reader, &requests[i]);
            if (i == 0) wait_until_taken(reader);
        }
        pi2_reader_raise(reader, &requests[3]);  /* goes behind 5, 6, 7 */
        pi2_reader_raise(reader, &requests[0]);  /* has begun: nothing happens */
        assert_true(pi2_reader_cancel(reader, &requests[4])); /* the last of its queue */
        assert_true(pi2_reader_cancel(reader, &requests[6]));
        assert_false(pi2_reader_cancel(reader, &requests[6]));
        assert_false(pi2_reader_cancel(reader, &requests[0]));
        pi2_reader_submit(reader, &requests[4]); /* behind 1 and 2 */
        gate_set(&g, true);
        static const uint64_t order[] = {0, 5, 7, 3, 1, 2, 4};
        enum { DONE = sizeof order / sizeof order[0] };
        for (size_t i = 0; i < COUNT; i++) {
            if (i != 6) assert_int_equal(pi2_reader_wait(reader, &requests[i], 0), PI2_OK);
        }
        assert_int_equal(atomic_load(&requests[6].state), PI2_READ_IDLE);
        assert_int_equal(pi2_reader_wait(reader, &requests[6], 0), PI2_ERR_INVALID);
        pi2_reader_close(reader);
        assert_int_equal(g.passed_count, DONE);
        for (size_t i = 0; i < DONE; i++) assert_int_equal(g.passed[i], order[i] * 4096);
        gate_free(&g);
    }
    pi2_pages_release(memory, COUNT * 4096);
    test_file_remove(&file);
}

typedef struct waiter {
    pi2_reader *reader;
    pi2_read_request *request;
    unsigned spin_us;
    pi2_status status;
    pthread_t thread;
} waiter;

static void *wait_for_it(void *argument) {
    waiter *self = argument;
    self->status = pi2_reader_wait(self->reader, self->request, self->spin_us);
    return NULL;
}

static void start_waiters(waiter *waiters, size_t count, pi2_reader *reader, pi2_read_request *request) {
    for (size_t i = 0; i < count; i++) {
        waiters[i] = (waiter){.reader = reader, .request = request, .spin_us = (unsigned)i % 2 * 20};
        assert_int_equal(pthread_create(&waiters[i].thread, NULL, wait_for_it, &waiters[i]), 0);
    }
    while (atomic_load(&request->state) != PI2_READ_AWAITED) continue;
}

/* However many threads sleep for a read, they hear of its end, or that it will not begin. */
static void test_many_wait_for_one(void **state) {
    (void)state;
    enum { WAITERS = 4 };
    test_file file;
    test_file_make(&file, 2 * 4096);
    unsigned char *memory = test_pages(2 * 4096);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        gate g;
        gate_init(&g);
        const pi2_read_hooks hooks = {.context = &g, .read_result = pass_gate};
        pi2_reader *reader = test_open(&file, *method, 1, &hooks);
        if (!reader) continue;
        gate_set(&g, false);
        pi2_read_request first = {.bytes = 4096, .destination = memory};
        pi2_read_request second = {.offset = 4096, .bytes = 4096, .destination = memory + 4096};
        waiter of_first[WAITERS], of_second[WAITERS];
        pi2_reader_submit(reader, &first);
        wait_until_taken(reader);
        pi2_reader_submit(reader, &second);
        start_waiters(of_first, WAITERS, reader, &first);
        start_waiters(of_second, WAITERS, reader, &second);
        assert_true(pi2_reader_cancel(reader, &second));
        gate_set(&g, true);
        for (size_t i = 0; i < WAITERS; i++) {
            assert_int_equal(pthread_join(of_first[i].thread, NULL), 0);
            assert_int_equal(pthread_join(of_second[i].thread, NULL), 0);
            assert_int_equal(of_first[i].status, PI2_OK);
            assert_int_equal(of_second[i].status, PI2_ERR_INVALID);
        }
        test_check_read(&file, &first);
        pi2_reader_close(reader);
        gate_free(&g);
    }
    pi2_pages_release(memory, 2 * 4096);
    test_file_remove(&file);
}

static void test_likely_leaves_room(void **state) {
    (void)state;
    enum { COUNT = 40, DEPTH = 8 };
    test_file file;
    test_file_make(&file, COUNT * 4096);
    unsigned char *memory = test_pages(COUNT * 4096);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        gate g;
        gate_init(&g);
        const pi2_read_hooks hooks = {.context = &g, .read_result = pass_gate};
        pi2_reader *reader = test_open(&file, *method, DEPTH, &hooks);
        if (!reader) continue;
        (void)pthread_mutex_lock(&g.mutex);
        g.reader = reader;
        (void)pthread_mutex_unlock(&g.mutex);
        pi2_read_request requests[COUNT];
        pi2_read_request *pointers[COUNT];
        memset(requests, 0, sizeof requests);
        for (size_t i = 0; i < COUNT; i++) {
            requests[i].offset = i * 4096;
            requests[i].bytes = 4096;
            requests[i].destination = memory + i * 4096;
            requests[i].priority = PI2_READ_LIKELY;
            pointers[i] = &requests[i];
        }
        pi2_reader_submit_many(reader, pointers, COUNT);
        for (size_t i = 0; i < COUNT; i++) {
            assert_int_equal(pi2_reader_wait(reader, &requests[i], 0), PI2_OK);
        }
        pi2_reader_close(reader);
        assert_true(g.most_likely >= 1);
        assert_true(g.most_likely <= DEPTH / 2);
        gate_free(&g);
    }
    pi2_pages_release(memory, COUNT * 4096);
    test_file_remove(&file);
}

/* A LIKELY read begins only while less than half the depth is in flight, whatever is; any read that ends wakes
 * who waits for the next, which need not be the oldest. */
static void test_likely_behind_certain(void **state) {
    (void)state;
    enum { CERTAIN = 4, COUNT = CERTAIN + 2, DEPTH = 8 };
    test_file file;
    test_file_make(&file, COUNT * 4096);
    unsigned char *memory = test_pages(COUNT * 4096);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        gate g;
        gate_init(&g);
        const pi2_read_hooks hooks = {.context = &g, .read_result = pass_gate};
        pi2_reader *reader = test_open(&file, *method, DEPTH, &hooks);
        if (!reader) continue;
        gate_set(&g, false);
        pi2_read_request requests[COUNT], *pointers[COUNT];
        memset(requests, 0, sizeof requests);
        for (size_t i = 0; i < COUNT; i++) {
            requests[i].offset = i * 4096;
            requests[i].bytes = 4096;
            requests[i].destination = memory + i * 4096;
            requests[i].priority = i < CERTAIN ? PI2_READ_CERTAIN : PI2_READ_LIKELY;
            pointers[i] = &requests[i];
        }
        const int mark = pi2_reader_ended(reader);
        pi2_reader_submit_many(reader, pointers, CERTAIN);
        for (uint32_t in_flight = 0; in_flight < CERTAIN;) {
            (void)pthread_mutex_lock(&reader->queue.mutex);
            in_flight = reader->queue.in_flight;
            (void)pthread_mutex_unlock(&reader->queue.mutex);
        }
        pi2_reader_submit_many(reader, pointers + CERTAIN, COUNT - CERTAIN);
        assert_false(pi2_read_has_work(reader));
        for (size_t i = CERTAIN; i < COUNT; i++) assert_int_equal(atomic_load(&requests[i].state), PI2_READ_QUEUED);
        assert_int_equal(pi2_reader_ended(reader), mark);
        gate_set(&g, true);
        for (int seen = mark; seen - mark < COUNT;) {
            pi2_reader_wait_next(reader, seen, &requests[0], 0);
            assert_true(pi2_reader_ended(reader) - seen >= 1);
            seen = pi2_reader_ended(reader);
        }
        for (size_t i = 0; i < COUNT; i++) assert_int_equal(atomic_load(&requests[i].state), PI2_READ_DONE);
        pi2_reader_close(reader);
        gate_free(&g);
    }
    pi2_pages_release(memory, COUNT * 4096);
    test_file_remove(&file);
}

/* No more bytes are in flight than asked for, but of a single read; what waits begins as others end, all of it. */
static void test_bytes_in_flight(void **state) {
    (void)state;
    enum { COUNT = 24, LARGE = 16, MOST = 5 * 4096, DEPTH = 8 };
    test_file file;
    test_file_make(&file, COUNT * LARGE * 4096);
    unsigned char *memory = test_pages(COUNT * LARGE * 4096);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        gate g;
        gate_init(&g);
        const pi2_read_hooks hooks = {.context = &g, .read_result = pass_gate};
        const pi2_reader_options options = {.path = file.path, .method = *method, .depth = DEPTH,
                                            .bytes_in_flight = MOST};
        pi2_reader *reader = NULL;
        if (pi2_reader_open_with_hooks(&options, &hooks, &reader) != PI2_OK) continue;
        (void)pthread_mutex_lock(&g.mutex);
        g.reader = reader;
        (void)pthread_mutex_unlock(&g.mutex);
        gate_set(&g, false);
        pi2_read_request requests[COUNT], *pointers[COUNT];
        memset(requests, 0, sizeof requests);
        for (size_t i = 0; i < COUNT; i++) {
            requests[i].offset = i * LARGE * 4096;
            requests[i].bytes = i % 8 == 7 ? LARGE * 4096 : 2 * 4096;
            requests[i].destination = memory + i * LARGE * 4096;
            pointers[i] = &requests[i];
        }
        pi2_reader_submit_many(reader, pointers, COUNT);
        wait_until_taken(reader);
        gate_set(&g, true);
        for (size_t i = 0; i < COUNT; i++) {
            assert_int_equal(pi2_reader_wait(reader, &requests[i], 0), PI2_OK);
            test_check_read(&file, &requests[i]);
        }
        assert_int_equal(reader->queue.bytes_in_flight, 0);
        pi2_reader_close(reader);
        assert_int_equal(g.most_bytes, LARGE * 4096); /* alone */
        assert_int_equal(g.most_in_flight, 2);        /* two of two pages: a third has no room */
        gate_free(&g);
    }
    pi2_pages_release(memory, COUNT * LARGE * 4096);
    test_file_remove(&file);
}

/* Every request has ended after close, with its bytes or with INTERRUPTED. */
static void test_close_in_flight(void **state) {
    (void)state;
    enum { COUNT = 37 };
    test_file file;
    test_file_make(&file, odd_size);
    unsigned char *memory = test_pages(COUNT * BLOCK);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        for (int round = 0; round < 12; round++) {
            pi2_reader *reader = test_open(&file, *method, 4, NULL);
            if (!reader) break;
            pi2_read_request requests[COUNT];
            pi2_read_request *pointers[COUNT];
            memset(requests, 0, sizeof requests);
            for (size_t i = 0; i < COUNT; i++) {
                requests[i].offset = i * BLOCK;
                requests[i].bytes = BLOCK;
                requests[i].destination = memory + i * BLOCK;
                pointers[i] = &requests[i];
            }
            pi2_reader_submit_many(reader, pointers, COUNT);
            const struct timespec time = {.tv_nsec = round % 4 * 150000};
            if (round % 4) (void)nanosleep(&time, NULL);
            pi2_reader_close(reader);
            for (size_t i = 0; i < COUNT; i++) {
                if (atomic_load(&requests[i].state) == PI2_READ_DONE) {
                    test_check_read(&file, &requests[i]);
                } else {
                    assert_int_equal(atomic_load(&requests[i].state), PI2_READ_FAILED);
                    assert_int_equal(requests[i].status, PI2_ERR_INTERRUPTED);
                }
            }
        }
    }
    pi2_pages_release(memory, COUNT * BLOCK);
    test_file_remove(&file);
}

/* Random reads into pieces of random sizes, whose places are drawn from memory that is registered but for its end. */
static void read_pieces(const test_file *file, pi2_reader *reader, unsigned char *memory, uint32_t pages,
                        uint64_t *random) {
    enum { READS = 7 };
    pi2_read_request requests[READS];
    void *pieces[READS][PI2_READ_PIECES];
    pi2_read_request *pointers[READS];
    uint64_t dropped = 0;
    uint32_t page = 0; /* of memory, the next that nobody has */
    memset(requests, 0, sizeof requests);
    memset(memory, 0xcc, (size_t)pages * 4096);
    for (size_t i = 0; i < READS; i++) {
        *random = *random * 6364136223846793005u + 1442695040888963407u;
        const uint32_t each = 4096u << (*random >> 33) % 3, count = 1 + (uint32_t)(*random >> 40) % PI2_READ_PIECES;
        const uint64_t first = (*random >> 45) % (file->bytes / 4096) * 4096;
        const uint64_t last = (file->bytes + 4095) / 4096 * 4096; /* so that some end inside a piece */
        const uint64_t offset = first + (uint64_t)each * count <= last ? first : last - (uint64_t)each * count;
        for (uint32_t k = 0; k < count; k++) { /* every fifth is dropped; others ascend in pairs, which descend */
            const bool is_dropped = (*random >> (7 + k)) % 5 == 0;
            const uint32_t place = page + (count - 1 - ((k ^ 1u) < count ? k ^ 1u : k)) * (each / 4096);
            pieces[i][k] = is_dropped ? NULL : memory + (size_t)place * 4096;
            const uint64_t left = file->bytes - offset - (uint64_t)k * each;
            if (is_dropped) dropped += left < each ? left : each;
        }
        page += count * (each / 4096);
        assert_true(page < pages);
        requests[i] = (pi2_read_request){.offset = offset, .bytes = each * count, .pieces = pieces[i],
                                         .piece_bytes = each};
        pointers[i] = &requests[i];
    }
    pi2_reader_counters before, after;
    pi2_reader_count(reader, &before);
    pi2_reader_submit_many(reader, pointers, READS);
    for (size_t i = 0; i < READS; i++) {
        if (pi2_reader_wait(reader, &requests[i], 0) != PI2_OK) fail_msg("%s", pi2_error_text());
        test_check_read(file, &requests[i]);
    }
    pi2_reader_count(reader, &after);
    assert_int_equal(after.reads - before.reads, READS);
    assert_int_equal(after.bytes_dropped - before.bytes_dropped, dropped);
    for (size_t at = (size_t)page * 4096; at < (size_t)pages * 4096; at++) assert_int_equal(memory[at], 0xcc);
}

static void test_pieces(void **state) {
    (void)state;
    enum { PAGES = 7 * PI2_READ_PIECES * 4 + 1, ROUNDS = 60 };
    test_file file;
    test_file_make(&file, odd_size);
    unsigned char *memory = test_pages(PAGES * 4096);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        const pi2_reader_options options = {.path = file.path, .method = *method, .depth = 4, .buffer = memory,
                                            .buffer_bytes = PAGES / 2 * 4096};
        pi2_reader *reader = NULL;
        if (pi2_reader_open(&options, &reader) != PI2_OK) continue; /* test_whole_file says so */
        uint64_t random = 5;
        for (int round = 0; round < ROUNDS; round++) read_pieces(&file, reader, memory, PAGES, &random);
        void *const too_many[PI2_READ_PIECES + 1] = {memory};
        pi2_read_request request = {.bytes = sizeof too_many / sizeof too_many[0] * 4096, .pieces = too_many,
                                    .piece_bytes = 4096};
        pi2_reader_submit(reader, &request);
        assert_int_equal(pi2_reader_wait(reader, &request, 0), PI2_ERR_INVALID);
        assert_non_null(strstr(pi2_error_text(), "16 pieces at most"));
        pi2_reader_close(reader);
    }
    pi2_pages_release(memory, PAGES * 4096);
    test_file_remove(&file);
}

/* Whatever is whole sectors is read, wherever it begins, into one place and into pieces, some of them dropped. */
static void test_sectors(void **state) {
    (void)state;
    enum { PIECES = 5 };
    test_file file;
    test_file_make(&file, 24 * 4096);
    unsigned char *memory = test_pages(32 * 4096);
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        pi2_reader *reader = test_open(&file, *method, 3, NULL);
        if (!reader) continue;
        const uint32_t sector = pi2_reader_sector_bytes(reader);
        assert_true(sector >= 512 && sector <= PI2_READ_ALIGNMENT && (sector & (sector - 1)) == 0);
        for (uint32_t begin = 0; begin < 4 * 4096; begin += 3 * sector) {
            pi2_read_request one = {.offset = begin, .bytes = 5 * sector, .destination = memory + begin % 4096};
            pi2_reader_submit(reader, &one);
            assert_int_equal(pi2_reader_wait(reader, &one, 0), PI2_OK);
            test_check_read(&file, &one);
            void *pieces[PIECES];
            for (uint32_t i = 0; i < PIECES; i++) pieces[i] = i % 2 ? NULL : memory + (PIECES - i) * 4 * sector;
            pi2_read_request some = {.offset = begin, .bytes = PIECES * 3 * sector, .pieces = pieces,
                                     .piece_bytes = 3 * sector};
            pi2_reader_submit(reader, &some);
            assert_int_equal(pi2_reader_wait(reader, &some, 0), PI2_OK);
            for (uint32_t i = 0; i < PIECES; i += 2) {
                const pi2_read_request piece = {.offset = begin + i * 3 * sector, .bytes = 3 * sector,
                                                .destination = pieces[i]};
                test_check_read(&file, &piece);
            }
        }
        pi2_reader_close(reader);
    }
    pi2_pages_release(memory, 32 * 4096);
    test_file_remove(&file);
}

static void test_bad_requests(void **state) {
    (void)state;
    test_file file;
    test_file_make(&file, 3 * 4096);
    unsigned char *memory = test_pages(8 * 4096);
    void *const good_pieces[3] = {memory};
    void *const odd_pieces[] = {memory, memory + 4097};
    const pi2_read_request cases[] = {
        {.offset = 256, .bytes = 4096, .destination = memory},
        {.offset = 0, .bytes = 256, .destination = memory},
        {.offset = 0, .bytes = 4096, .destination = memory + 16},
        {.offset = 0, .bytes = 0, .destination = memory},
        {.offset = 0, .bytes = 4096, .destination = NULL},
        {.offset = 3 * 4096, .bytes = 4096, .destination = memory},
        {.offset = 2 * 4096, .bytes = 8192, .destination = memory},
        {.offset = UINT64_MAX - 4095, .bytes = 4096, .destination = memory},
        {.offset = 0, .bytes = UINT32_MAX - 4095, .destination = memory},
        {.offset = 0, .bytes = 4096, .pieces = good_pieces, .piece_bytes = 0},
        {.offset = 0, .bytes = 4096, .pieces = good_pieces, .piece_bytes = 256},
        {.offset = 0, .bytes = 3 * 4096, .pieces = good_pieces, .piece_bytes = 2 * 4096},
        {.offset = 0, .bytes = 2 * 4096, .pieces = odd_pieces, .piece_bytes = 4096},
        {.offset = 4096, .bytes = 3 * 4096, .pieces = good_pieces, .piece_bytes = 4096},
    };
    for (const char *const *method = pi2_reader_method_names(); *method; method++) {
        pi2_reader *reader = test_open(&file, *method, 2, NULL);
        if (!reader) continue;
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            pi2_read_request request = cases[i];
            pi2_reader_submit(reader, &request);
            assert_int_equal(pi2_reader_wait(reader, &request, 0), PI2_ERR_INVALID);
            assert_int_equal(atomic_load(&request.state), PI2_READ_FAILED);
            assert_non_null(strstr(pi2_error_text(), file.path));
        }
        pi2_read_request good = {.offset = 4096, .bytes = 8192, .destination = memory};
        pi2_read_request bad = cases[0];
        pi2_read_request *const both[] = {&bad, &good};
        pi2_reader_submit_many(reader, both, 2);
        assert_int_equal(pi2_reader_wait(reader, &good, 0), PI2_OK);
        assert_int_equal(pi2_reader_wait(reader, &bad, 0), PI2_ERR_INVALID);
        test_check_read(&file, &good);
        pi2_reader_close(reader);
    }
    pi2_pages_release(memory, 8 * 4096);
    test_file_remove(&file);
}

static void test_bad_options(void **state) {
    (void)state;
    test_file file;
    test_file_make(&file, 4096);
    pi2_reader *reader = NULL;
    pi2_reader_options options = {.path = file.path, .method = "telepathy", .depth = 2};
    assert_int_equal(pi2_reader_open(&options, &reader), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "telepathy"));
    options.method = "auto";
    options.depth = 0;
    assert_int_equal(pi2_reader_open(&options, &reader), PI2_ERR_INVALID);
    options.method = "io_uring";
    assert_int_equal(pi2_reader_open(&options, &reader), PI2_ERR_INVALID);
    options.method = "auto";
    options.depth = 1u << 30;
    assert_int_equal(pi2_reader_open(&options, &reader), PI2_ERR_INVALID);
    options.depth = 2;
    options.path = "/tmp";
    assert_int_equal(pi2_reader_open(&options, &reader), PI2_ERR_IO);
    options.path = "/nonexistent/model.pi2";
    assert_int_equal(pi2_reader_open(&options, &reader), PI2_ERR_IO);
    assert_non_null(strstr(pi2_error_text(), "/nonexistent/model.pi2"));
    assert_null(reader);
    pi2_reader_close(NULL);
    test_file_remove(&file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_file),      cmocka_unit_test(test_small_files),
        cmocka_unit_test(test_many_submitters), cmocka_unit_test(test_priorities),
        cmocka_unit_test(test_likely_leaves_room), cmocka_unit_test(test_likely_behind_certain),
        cmocka_unit_test(test_bytes_in_flight),
        cmocka_unit_test(test_pieces),          cmocka_unit_test(test_many_wait_for_one),
        cmocka_unit_test(test_close_in_flight), cmocka_unit_test(test_sectors),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_bad_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
