/* fuzz_plan_file.c: a plan that was altered by somebody who knows the machine on which it is used.
 *
 * The input is read as it is and, where it is a JSON object, again with the version of this program
 * and this machine as its machine, so that it reaches the parameters. What is accepted fills the
 * options with what an engine takes; what is refused leaves them alone and is told in one line that
 * names the file and says what to do.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/machine_profile_cli.h"
#include "cli/output.h"
#include "cli/plan_file.h"
#include "powerinfer2/cache_replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[64];
static int file = -1;
static json_t *machine;

static void remove_file(void) {
    (void)unlink(path);
    json_decref(machine);
}

static void require(bool condition) {
    if (!condition) abort();
}

static bool is_policy(const char *name) {
    for (const char *const *known = pi2_replay_policy_names(); *known; known++) {
        if (strcmp(name, *known) == 0) return true;
    }
    return strcmp(name, "auto") == 0;
}

static void check_accepted(const pi2_engine_options *options, const json_t *plan) {
    const char *trace = pi2_cli_plan_routing_trace(plan), *method = options->read_method;
    require(options->memory_bytes >= 1 && options->memory_bytes <= INT64_MAX);
    require(options->context_tokens >= 1 && options->context_tokens <= 1u << 26);
    require(options->batch_tokens >= 1 && options->batch_tokens <= 8192);
    require(options->thread_count >= 1 && options->thread_count <= 256);
    require(!strcmp(method, "auto") || !strcmp(method, "io_uring") || !strcmp(method, "pread"));
    require(is_policy(options->cache_policy) && (!trace || strlen(trace) <= 1 << 20));
}

static void check_line(const char *line, size_t length) {
    static const char prefix[] = "powerinfer2: ";
    require(strncmp(line, prefix, sizeof prefix - 1) == 0);
    require(strncmp(line + sizeof prefix - 1, path, strlen(path)) == 0);
    require(strlen(line) == length && line[length - 1] == '\n');
    for (size_t i = 0; i + 1 < length; i++) require((unsigned char)line[i] >= 32 && line[i] != 127);
    for (const char *at = line; (at = strchr(at, '\xc2')) != NULL; at++) require((at[1] & 0xe0) != 0x80);
    require(strstr(line, ": plan again\n") || strstr(line, ": make one with 'powerinfer2 plan --json'\n") ||
            strstr(line, " is written as UTF-16, and texts are read as UTF-8: iconv turns one into the other\n"));
}

/* Reads the file with these options, which what is refused must not change. */
static bool read_plan(pi2_engine_options *options, json_t **plan_out) {
    pi2_engine_options before;
    memcpy(&before, options, sizeof before);
    char *log = NULL;
    size_t log_bytes = 0;
    FILE *stream = open_memstream(&log, &log_bytes);
    require(stream != NULL);
    pi2_cli_set_log(stream);
    const int code = pi2_cli_plan_read(path, options, plan_out);
    pi2_cli_set_log(NULL);
    require(fclose(stream) == 0);
    if (code == PI2_EXIT_OK) {
        require(log_bytes == 0);
    } else {
        require(code == PI2_EXIT_BAD_FILE && memcmp(&before, options, sizeof before) == 0);
        check_line(log, log_bytes);
    }
    free(log);
    return code == PI2_EXIT_OK;
}

/* Options that are given beside a plan go first. */
static void read_beside_options(void) {
    json_t *plan = NULL;
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.memory_bytes = 1;
    options.context_tokens = 2;
    options.batch_tokens = 3;
    options.thread_count = 4;
    options.read_method = "pread";
    options.cache_policy = "lru";
    require(read_plan(&options, &plan));
    json_decref(plan);
    require(options.memory_bytes == 1 && options.context_tokens == 2 && options.batch_tokens == 3);
    require(options.thread_count == 4 && strcmp(options.read_method, "pread") == 0);
    require(strcmp(options.cache_policy, "lru") == 0);
}

static void read_bytes(const void *data, size_t size) {
    json_t *plan = NULL;
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    require(ftruncate(file, 0) == 0 && pwrite(file, data, size, 0) == (ssize_t)size);
    if (!read_plan(&options, &plan)) return;
    check_accepted(&options, plan);
    json_decref(plan);
    read_beside_options();
}

static void read_for_this_machine(const uint8_t *data, size_t size) {
    json_t *plan = json_loadb((const char *)data, size, 0, NULL);
    if (json_is_object(plan)) {
        require(json_object_set_new(plan, "version", json_string(PI2_VERSION)) == 0);
        require(json_object_set(plan, "machine", machine) == 0);
        char *text = json_dumps(plan, JSON_COMPACT); /* NULL: nested too deeply to be written */
        if (text) read_bytes(text, strlen(text));
        free(text);
    }
    json_decref(plan);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (file < 0) {
        pi2_machine_identity identity;
        pi2_machine_identify(&identity);
        machine = pi2_cli_machine_json(&identity);
        (void)snprintf(path, sizeof path, "/dev/shm/pi2-fuzz-plan-%ld", (long)getpid());
        file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        require(machine && file >= 0 && atexit(remove_file) == 0);
    }
    read_bytes(data, size);
    read_for_this_machine(data, size);
    return 0;
}
