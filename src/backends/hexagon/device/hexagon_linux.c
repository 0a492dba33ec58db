/*
 * hexagon_linux.c: the DSP as a process: a static program without a C library for an emulator of Hexagon's Linux
 * (qemu-hexagon PROGRAM FD BYTES THREADS). The memory is the open file FD, shared with the host; requests are waited
 * for with a futex, which crosses the emulation. It ends when the host asks it to, and when the host has gone.
 */
#include "backends/hexagon/device/hexagon_kernel.h"

enum {
    CALL_EXIT_GROUP = 94,
    CALL_FUTEX = 98,
    CALL_GETPPID = 173,
    CALL_MMAP2 = 222,
    READ_WRITE = 3,
    SHARED = 1,
    WAIT = 0,
    WAKE = 1,
    STACK_BYTES = 1 << 16
};

typedef struct wait_time {
    int32_t seconds, nanoseconds;
} wait_time;

long pi2_hexagon_call(long number, long a, long b, long c, long d, long e, long f);
long pi2_hexagon_start_thread(void *stack_end, void (*run)(uint32_t), uint32_t argument);
void pi2_hexagon_main(const uint32_t *arguments);

/* A thread shares memory, files and signals with the one that starts it (0x50f00); it never returns. */
__asm__(".text\n.globl _start\n_start:\n"
        "  { r0 = r29\n    r29 = and(r29, #-128) }\n"
        "  call pi2_hexagon_main\n"
        ".globl pi2_hexagon_call\npi2_hexagon_call:\n"
        "  { r6 = r0\n    r0 = r1\n    r1 = r2\n    r2 = r3 }\n"
        "  { r3 = r4\n    r4 = r5\n    r5 = memw(r29 + #0) }\n"
        "  trap0(#1)\n"
        "  jumpr r31\n"
        ".globl pi2_hexagon_start_thread\npi2_hexagon_start_thread:\n"
        "  { r7 = r1\n    r8 = r2\n    r1 = r0\n    r0 = ##0x50f00 }\n"
        "  { r2 = #0\n    r3 = #0\n    r4 = #0\n    r5 = #0 }\n"
        "  r6 = #220\n"
        "  trap0(#1)\n"
        "  p0 = cmp.eq(r0, #0)\n"
        "  if (!p0) jumpr r31\n"
        "  r0 = r8\n"
        "  callr r7\n");

/* What all threads see of the request at hand. */
static struct {
    uint8_t *memory;
    uint32_t thread_count;
    pi2_hexagon_request request;
    _Atomic uint32_t round, left;
} team;
static _Alignas(PI2_HEXAGON_ALIGNMENT) uint8_t stacks[PI2_HEXAGON_MOST_THREADS][STACK_BYTES];

static void leave(int32_t code) { (void)pi2_hexagon_call(CALL_EXIT_GROUP, code, 0, 0, 0, 0, 0); }

static void wait_while(_Atomic uint32_t *word, uint32_t value, const wait_time *limit) {
    (void)pi2_hexagon_call(CALL_FUTEX, (long)word, WAIT, (long)value, (long)limit, 0, 0);
}

static void wake(_Atomic uint32_t *word) { (void)pi2_hexagon_call(CALL_FUTEX, (long)word, WAKE, 0x7fffffff, 0, 0, 0); }

static void compute(uint32_t part) {
    for (uint32_t i = 0; i < team.request.product_count; i++) {
        pi2_hexagon_multiply(&team.request.products[i], team.memory, part, team.thread_count);
    }
}

static void run_thread(uint32_t part) {
    for (uint32_t round = 0;; round++) {
        while (atomic_load(&team.round) == round) wait_while(&team.round, round, NULL);
        compute(part);
        if (atomic_fetch_sub(&team.left, 1) == 1) wake(&team.left);
    }
}

static void compute_with_all(void) {
    if (team.thread_count > 1) {
        atomic_store(&team.left, team.thread_count - 1);
        (void)atomic_fetch_add(&team.round, 1);
        wake(&team.round);
    }
    compute(0);
    for (uint32_t left; (left = atomic_load(&team.left)) != 0;) wait_while(&team.left, left, NULL);
}

static void answer(pi2_hexagon_words *words, uint32_t memory_bytes, uint32_t number) {
    uint32_t written;
    pi2_hexagon_copy_request(&team.request, &words->request);
    if (pi2_hexagon_check(&team.request, memory_bytes, &written)) {
        compute_with_all();
        atomic_store(&words->status, PI2_HEXAGON_DONE);
    } else {
        atomic_store(&words->status, PI2_HEXAGON_REFUSED);
    }
    atomic_store(&words->written, written);
    atomic_store(&words->answered, number);
    wake(&words->answered);
}

static uint32_t number_of(const char *text) {
    uint32_t value = 0;
    for (; *text >= '0' && *text <= '9'; text++) value = value * 10 + (uint32_t)(*text - '0');
    return value;
}

/* argc, then argv: the program, FD, bytes, threads. */
void pi2_hexagon_main(const uint32_t *arguments) {
    if (arguments[0] < 4) leave(2);
    const uint32_t fd = number_of((const char *)arguments[2]), bytes = number_of((const char *)arguments[3]);
    const uint32_t threads = number_of((const char *)arguments[4]);
    if (bytes < PI2_HEXAGON_FIRST_AREA || threads < 1 || threads > PI2_HEXAGON_MOST_THREADS) leave(2);
    const uint32_t address = (uint32_t)pi2_hexagon_call(CALL_MMAP2, 0, (long)bytes, READ_WRITE, SHARED, (long)fd, 0);
    if (address > (uint32_t)-4096) leave(3);
    pi2_hexagon_words *words = (pi2_hexagon_words *)address;
    if (words->magic != PI2_HEXAGON_MAGIC || words->version != PI2_HEXAGON_VERSION || words->memory_bytes != bytes) {
        leave(4);
    }
    team.memory = (uint8_t *)address;
    team.thread_count = threads;
    for (uint32_t part = 1; part < threads; part++) {
        if (pi2_hexagon_start_thread(stacks[part] + STACK_BYTES, run_thread, part) < 0) leave(5);
    }
    const long parent = pi2_hexagon_call(CALL_GETPPID, 0, 0, 0, 0, 0, 0);
    const wait_time limit = {.seconds = 1};
    for (uint32_t number = 0;;) {
        const uint32_t asked = atomic_load(&words->asked);
        if (atomic_load(&words->stop) != 0) leave(0);
        if (pi2_hexagon_call(CALL_GETPPID, 0, 0, 0, 0, 0, 0) != parent) leave(6);
        if (asked == number) {
            wait_while(&words->asked, number, &limit);
            continue;
        }
        number = asked;
        answer(words, bytes, number);
    }
}
