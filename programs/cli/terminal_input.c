/* terminal_input.c: pselect() waits for a byte or a signal, whichever comes first, so that none is missed. */
#include "terminal_input.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

#include "signals.h"

#define PASTE_MARKS_ON "\033[?2004h"
#define PASTE_MARKS_OFF "\033[?2004l"
#define PASTE_END "\033[201~"

enum { RESIZED, OBEYED_FIRST, SIGNALS = 4 };
static const int signal_numbers[SIGNALS] = {SIGWINCH, SIGTSTP, SIGQUIT, SIGHUP};

static const pi2_cli_terminal_modes *modes;
static struct sigaction actions_before[SIGNALS];
static sigset_t mask_before;
static volatile sig_atomic_t has_come[SIGNALS];

/* Bytes that were read and not asked for yet: they may be the next line's. */
static unsigned char waiting[4096];
static size_t waiting_first, waiting_count;

static void on_signal(int number) {
    for (int i = 0; i < SIGNALS; i++) {
        if (signal_numbers[i] == number) has_come[i] = 1;
    }
}

/* What is ignored stays so: a shell without job control wants no stop. */
static void catch_signal(int which) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(signal_numbers[which], NULL, &actions_before[which]);
    const bool is_ignored = actions_before[which].sa_handler == SIG_IGN;
    if (!is_ignored || which == RESIZED) (void)sigaction(signal_numbers[which], &action, NULL);
}

static void mark_pastes(bool on) {
    if (!isatty(STDERR_FILENO)) return;
    (void)fputs(on ? PASTE_MARKS_ON : PASTE_MARKS_OFF, stderr);
    (void)fflush(stderr);
}

void pi2_cli_terminal_begin(const pi2_cli_terminal_modes *new_modes) {
    sigset_t held;
    modes = new_modes;
    (void)sigemptyset(&held);
    (void)sigaddset(&held, SIGINT);
    (void)sigaddset(&held, SIGTERM);
    for (int i = 0; i < SIGNALS; i++) (void)sigaddset(&held, signal_numbers[i]);
    (void)pthread_sigmask(SIG_BLOCK, &held, &mask_before);
    for (int i = 0; i < SIGNALS; i++) {
        has_come[i] = 0;
        catch_signal(i);
    }
    mark_pastes(true);
}

void pi2_cli_terminal_end(void) {
    mark_pastes(false);
    for (int i = 0; i < SIGNALS; i++) (void)sigaction(signal_numbers[i], &actions_before[i], NULL);
    (void)pthread_sigmask(SIG_SETMASK, &mask_before, NULL);
}

/* The signal does what it would have done to a program that catches none; a stop ends here, with SIGCONT. */
static void obey(int which) {
    sigset_t only, blocked;
    has_come[which] = 0;
    mark_pastes(false);
    modes->suspend();
    (void)sigaction(signal_numbers[which], &actions_before[which], NULL);
    (void)raise(signal_numbers[which]);
    (void)sigemptyset(&only);
    (void)sigaddset(&only, signal_numbers[which]);
    (void)pthread_sigmask(SIG_UNBLOCK, &only, &blocked);
    (void)pthread_sigmask(SIG_SETMASK, &blocked, NULL);
    catch_signal(which);
    mark_pastes(true);
    modes->resume();
}

static void obey_signals(void) {
    if (has_come[RESIZED]) {
        has_come[RESIZED] = 0;
        if (modes->resized) modes->resized();
    }
    for (int i = OBEYED_FIRST; i < SIGNALS; i++) {
        if (has_come[i]) obey(i);
    }
}

/*
 * While an answer is made the terminal makes lines of what is typed, and an end of file (Ctrl-D) there becomes a NUL
 * once bytes are asked for. It is turned back into the key that was pressed.
 */
void pi2_cli_terminal_take_typed(void) {
    struct timeval no_time = {0, 0};
    fd_set inputs;
    FD_ZERO(&inputs);
    FD_SET(STDIN_FILENO, &inputs);
    if (waiting_first != waiting_count || !isatty(STDIN_FILENO)) return;
    if (select(STDIN_FILENO + 1, &inputs, NULL, NULL, &no_time) != 1) return;
    const ssize_t count = read(STDIN_FILENO, waiting, sizeof waiting);
    waiting_first = 0;
    waiting_count = count > 0 ? (size_t)count : 0;
    for (size_t i = 0; i < waiting_count; i++) {
        if (waiting[i] == '\0') waiting[i] = PI2_CLI_CTRL_D;
    }
}

int pi2_cli_terminal_byte(unsigned char *byte_out) {
    while (waiting_first == waiting_count) {
        fd_set inputs;
        FD_ZERO(&inputs);
        FD_SET(STDIN_FILENO, &inputs);
        const int ready = pselect(STDIN_FILENO + 1, &inputs, NULL, NULL, NULL, &mask_before);
        const bool is_signal = ready < 0 && errno == EINTR;
        obey_signals(); /* a hangup may be caught as an interruption */
        if (pi2_cli_interrupted()) return -1;
        if (is_signal) continue;
        if (ready < 0) return 0;
        const ssize_t count = read(STDIN_FILENO, waiting, sizeof waiting);
        if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (count <= 0) return 0;
        waiting_first = 0;
        waiting_count = (size_t)count;
    }
    *byte_out = waiting[waiting_first++];
    return 1;
}

/* ESC [ digits letter, ESC O letter, or ESC and one byte. */
pi2_cli_escape pi2_cli_terminal_escape(void) {
    unsigned char byte = 0;
    char digits[8] = "";
    size_t count = 0;
    if (pi2_cli_terminal_byte(&byte) != 1) return PI2_CLI_ESCAPE_OTHER;
    if (byte == '\r' || byte == '\n') return PI2_CLI_ESCAPE_NEWLINE;
    if (byte == 'O') (void)pi2_cli_terminal_byte(&byte);
    if (byte != '[') return PI2_CLI_ESCAPE_OTHER;
    while (pi2_cli_terminal_byte(&byte) == 1 && (byte < 0x40 || byte > 0x7e)) {
        if (count + 1 < sizeof digits) digits[count++] = (char)byte;
    }
    digits[count] = '\0';
    return byte == '~' && strcmp(digits, "200") == 0 ? PI2_CLI_ESCAPE_PASTE : PI2_CLI_ESCAPE_OTHER;
}

static void clean_paste(pi2_cli_text *text, size_t from) {
    size_t kept = from;
    unsigned char last = 0;
    for (size_t i = from; i < text->length; i++) {
        const unsigned char byte = (unsigned char)text->data[i];
        if (byte == '\r' || (byte == '\n' && last != '\r')) text->data[kept++] = '\n';
        else if (byte == '\t' || (byte >= 0x20 && byte != 0x7f)) text->data[kept++] = (char)byte;
        last = byte;
    }
    text->length = kept;
    text->data[kept] = '\0';
}

bool pi2_cli_terminal_paste(pi2_cli_text *text) {
    const size_t from = text->length, mark = sizeof PASTE_END - 1;
    unsigned char byte;
    while (pi2_cli_terminal_byte(&byte) == 1) {
        if (!pi2_cli_text_add(text, (const char *)&byte, 1)) return false;
        if (byte != '~' || text->length - from < mark) continue;
        if (memcmp(text->data + text->length - mark, PASTE_END, mark) != 0) continue;
        text->length -= mark;
        clean_paste(text, from);
        return true;
    }
    return false;
}
