/* machine_command.c: "powerinfer2 machine": measures this machine once and shows the result. */
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "commands.h"
#include "machine_profile_cli.h"
#include "options.h"
#include "output.h"
#include "powerinfer2/device.h"
#include "powerinfer2/sizes.h"
#include "signals.h"

typedef struct machine_settings {
    const char *profile, *disk;
    bool force, quick, list_devices, json, quiet;
} machine_settings;

#define MACHINE(field) offsetof(machine_settings, field)
static const pi2_cli_option machine_options[] = {
    {"-m, --model, --disk", "PATH", PI2_CLI_TEXT, MACHINE(disk), NULL,
     "Model file (or any large file) whose disk is measured by reading it, or a folder in which a file of "
     "256 MB is made for the time. Otherwise the folder of the profile.", NULL, 0, 0},
    {"--profile", "FILE", PI2_CLI_TEXT, MACHINE(profile), NULL,
     "Where the profile is kept; a file that is none is not replaced. Otherwise "
     "${XDG_CACHE_HOME:-~/.cache}/powerinfer2/machine.profile.", NULL, 0, 0},
    {"--force", NULL, PI2_CLI_FLAG, MACHINE(force), NULL, "Measures again when a good profile is there.", NULL, 0, 0},
    {"--quick", NULL, PI2_CLI_FLAG, MACHINE(quick), NULL, "Measures for a tenth of the time, which is less exact.",
     NULL, 0, 0},
    {"--list-devices", NULL, PI2_CLI_FLAG, MACHINE(list_devices), NULL,
     "Measures nothing: shows the devices that can compute beside the processor ('run --device').", NULL, 0, 0},
    {"--json", NULL, PI2_CLI_FLAG, MACHINE(json), NULL, "Prints the profile as one JSON object.", NULL, 0, 0},
    {"-q, --quiet", NULL, PI2_CLI_FLAG, MACHINE(quiet), NULL, "Only errors on stderr.", NULL, 0, 0},
};

int pi2_cli_measure_machine(const pi2_machine_options *options, pi2_machine_profile **profile_out) {
    pi2_cli_note("measuring this machine (about three quarters of a minute; other work on it disturbs the result)");
    const pi2_status status = pi2_machine_measure(options, profile_out);
    pi2_cli_clear_progress();
    if (status != PI2_OK) return pi2_cli_failed(status);
    pi2_cli_note("the machine profile is kept in %s", pi2_machine_profile_path(*profile_out));
    return PI2_EXIT_OK;
}

int pi2_cli_find_machine(const pi2_machine_options *options, pi2_machine_profile **profile_out) {
    const pi2_status status = pi2_machine_load(options->profile_path, profile_out);
    if (status == PI2_OK) return PI2_EXIT_OK;
    if (status == PI2_ERR_MEMORY || status == PI2_ERR_INVALID) return pi2_cli_failed(status);
    if (status != PI2_ERR_IO) pi2_cli_note("%s; it is measured again", pi2_error_text());
    return pi2_cli_measure_machine(options, profile_out);
}

int pi2_cli_find_disk(pi2_machine_profile *profile, const pi2_machine_options *options) {
    if (!pi2_machine_needs_disk(profile, options->disk_path)) return PI2_EXIT_OK;
    pi2_cli_note("measuring the disk of %s (about a second)", options->disk_path);
    const pi2_status status = pi2_machine_measure_disk(profile, options);
    pi2_cli_clear_progress();
    return status == PI2_OK ? PI2_EXIT_OK : pi2_cli_failed(status);
}

int pi2_cli_refresh_disk(const pi2_engine_options *options) {
    enum { LEAST_MEMORY = 40000000 }; /* measuring takes 16 MB */
    struct stat info;
    pi2_machine_profile *profile = NULL;
    const char *path = options->cluster_path && stat(options->cluster_path, &info) == 0 ? options->cluster_path
                                                                                       : options->model_path;
    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode) || options->memory_bytes < LEAST_MEMORY) return PI2_EXIT_OK;
    if ((uint64_t)info.st_size < options->memory_bytes) return PI2_EXIT_OK;
    if (pi2_machine_load(NULL, &profile) != PI2_OK) return PI2_EXIT_OK;
    const pi2_machine_options machine = {.disk_path = path, .callbacks = options->callbacks};
    const int code = pi2_cli_find_disk(profile, &machine);
    pi2_machine_free(profile);
    return code == PI2_EXIT_INTERRUPTED ? code : PI2_EXIT_OK;
}

pi2_status pi2_cli_open_engine(const pi2_engine_options *options, pi2_engine **engine_out) {
    pi2_machine_profile *profile = NULL;
    pi2_engine_options known = *options;
    if (pi2_machine_load(NULL, &profile) == PI2_OK) known.machine = profile;
    const pi2_status status = pi2_engine_open(&known, engine_out);
    pi2_machine_free(profile);
    return status;
}

json_t *pi2_cli_machine_json(const pi2_machine_identity *identity) {
    json_t *object = json_object();
    json_object_set_new(object, "cpu", pi2_cli_json_text(identity->cpu, strlen(identity->cpu)));
    json_object_set_new(object, "isa", pi2_cli_json_text(identity->isa, strlen(identity->isa)));
    json_object_set_new(object, "system", pi2_cli_json_text(identity->system, strlen(identity->system)));
    json_object_set_new(object, "cores", json_integer(identity->cores));
    return object;
}

static int print_json(const pi2_machine_profile *profile) {
    json_t *object = pi2_cli_machine_json(pi2_machine_profile_identity(profile)), *items = json_array();
    json_t *disks = json_array();
    json_object_set_new(object, "profile", pi2_cli_json_text(pi2_machine_profile_path(profile),
                                                             strlen(pi2_machine_profile_path(profile))));
    json_object_set_new(object, "time", json_integer((json_int_t)pi2_machine_profile_time(profile)));
    for (size_t i = 0; i < pi2_machine_measurement_count(profile); i++) {
        const pi2_measurement *item = pi2_machine_measurement(profile, i);
        json_t *entry = json_object();
        json_object_set_new(entry, "what", json_string(pi2_measured_name(item->what)));
        json_object_set_new(entry, "name", pi2_cli_json_text(item->name, strlen(item->name)));
        json_object_set_new(entry, "a", json_integer((json_int_t)item->a));
        json_object_set_new(entry, "b", json_integer((json_int_t)item->b));
        json_object_set_new(entry, "c", json_integer((json_int_t)item->c));
        json_object_set_new(entry, "value", pi2_cli_json_number(item->value));
        json_object_set_new(entry, "spread", pi2_cli_json_number(item->spread));
        json_array_append_new(items, entry);
    }
    for (size_t i = 0; i < pi2_machine_disk_count(profile); i++) {
        const pi2_machine_disk *disk = pi2_machine_get_disk(profile, i);
        json_t *entry = json_object();
        json_object_set_new(entry, "place", pi2_cli_json_text(disk->place, strlen(disk->place)));
        json_object_set_new(entry, "time", json_integer((json_int_t)disk->time));
        json_array_append_new(disks, entry);
    }
    json_object_set_new(object, "disks", disks);
    json_object_set_new(object, "measurements", items);
    return pi2_cli_print_json(object, JSON_INDENT(2));
}

static void print_buffer(const pi2_measurement *item) {
    const double cache = (double)item->a;
    (void)printf("buffer     %.1f MB", item->value / 1e6);
    if (item->a == 0) (void)printf(", the processor's cache is not known");
    else (void)printf(", the processor's cache %.1f MB", cache / 1e6);
    if (item->value < 2 * cache) (void)printf(": memory may be slower than what follows says");
}

static void print_item(const pi2_machine_profile *profile, const pi2_measurement *item) {
    const unsigned long long a = item->a, b = item->b, c = item->c;
    const pi2_machine_disk *disk = pi2_machine_get_disk(profile, (size_t)item->c);
    switch (item->what) {
    case PI2_MEASURED_BUFFER: print_buffer(item); break;
    case PI2_MEASURED_MEMORY:
        (void)printf("memory     %2llu threads  %6.1f MB %8.1f GB/s", a, (double)b / 1e6, item->value / 1e9);
        break;
    case PI2_MEASURED_DECODE:
        (void)printf("decode     %2llu threads  %-8s %5llu columns %8.1f GB/s in %.1f MB", a, item->name, c,
                     item->value / 1e9, (double)b / 1e6);
        break;
    case PI2_MEASURED_ROWS:
        (void)printf("rows       %2llu threads  %-8s %5llu columns %8.1f GB/s", a, item->name, c, item->value / 1e9);
        break;
    case PI2_MEASURED_COLUMNS:
        (void)printf("columns    %2llu threads  %-8s %5llu rows    %8.1f GB/s, %llu neurons of 256", a, item->name, c,
                     item->value / 1e9, b);
        break;
    case PI2_MEASURED_PREDICTOR:
        (void)printf("predictor  %2llu threads  %-8s %5llu columns %8.1f GB/s", a, item->name, c, item->value / 1e9);
        break;
    case PI2_MEASURED_STORE:
        (void)printf("store      %2llu threads  %-8s               %8.1f %s", a, item->name,
                     item->value / (strcmp(item->name, "check") == 0 ? 1e9 : 1e6),
                     strcmp(item->name, "check") == 0 ? "GB/s" : "million/s");
        break;
    case PI2_MEASURED_BATCH:
        (void)printf("batch %3llu  %2llu threads  %-8s %5llu columns %8.1f GOP/s", a, b, item->name, c,
                     item->value / 1e9);
        break;
    case PI2_MEASURED_ATTENTION:
        (void)printf("attention  %2llu queries            %8.1f GOP/s", a, item->value / 1e9);
        break;
    case PI2_MEASURED_VECTOR:
        (void)printf("vectors     1 thread             %8.2f Gfloats/s", item->value / 1e9);
        break;
    case PI2_MEASURED_STAGE:
        (void)printf("stage      %2llu threads            %8.2f us", a, item->value * 1e6);
        break;
    case PI2_MEASURED_CORE:
        (void)printf("core       %2llu                    %8.1f GOP/s", a, item->value / 1e9);
        break;
    case PI2_MEASURED_DISK:
    case PI2_MEASURED_SMALL_READ:
        (void)printf("%s %-8s %4llu KiB x %3llu %8.2f GB/s of ",
                     item->what == PI2_MEASURED_DISK ? "disk      " : "small     ", item->name, a >> 10, b,
                     item->value / 1e9);
        pi2_cli_print_safely(stdout, disk ? disk->place : "?", disk ? strlen(disk->place) : 1);
        break;
    case PI2_MEASURED_READ_CPU:
        (void)printf("reading    %-8s %4llu KiB x %3llu %8.1f ms of processor for a GB", item->name, a >> 10, b,
                     item->value * 1e12);
        break;
    case PI2_MEASURED_KINDS: break;
    }
    if (item->spread > 0) (void)printf("  +-%.0f %%", 100 * item->spread);
    (void)putchar('\n');
}

static int print_table(const pi2_machine_profile *profile) {
    const pi2_machine_identity *identity = pi2_machine_profile_identity(profile);
    char when[32] = "";
    struct tm utc;
    const time_t seconds = (time_t)pi2_machine_profile_time(profile);
    if (gmtime_r(&seconds, &utc)) (void)strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    pi2_cli_print_line("%s, %u processors, %s, %s", identity->cpu, identity->cores, identity->isa, identity->system);
    pi2_cli_print_line("measured %s, kept in %s", when, pi2_machine_profile_path(profile));
    (void)putchar('\n');
    for (int what = 0; what < PI2_MEASURED_KINDS; what++) {
        for (size_t i = 0; i < pi2_machine_measurement_count(profile); i++) {
            const pi2_measurement *item = pi2_machine_measurement(profile, i);
            if ((int)item->what == what) print_item(profile, item);
        }
    }
    return pi2_cli_finish_stdout();
}

static void print_device(void *user, const pi2_device_info *device) {
    char size[PI2_SIZE_TEXT_BYTES];
    unsigned *count = user;
    ++*count;
    pi2_cli_print_line("%-10s %s, %s%s%s%s", device->name, device->description,
                       pi2_format_size(device->memory_bytes, size), device->shares_memory ? " of the machine's" : "",
                       device->refused ? ": cannot be used: " : "", device->refused ? device->refused : "");
}

static void add_device(void *user, const pi2_device_info *device) {
    json_t *object = json_object();
    json_object_set_new(object, "name", pi2_cli_json_text(device->name, strlen(device->name)));
    json_object_set_new(object, "description", pi2_cli_json_text(device->description, strlen(device->description)));
    json_object_set_new(object, "memory_bytes", json_integer((json_int_t)device->memory_bytes));
    json_object_set_new(object, "shares_memory", json_boolean(device->shares_memory));
    json_object_set_new(object, "refused", device->refused ? json_string(device->refused) : json_null());
    json_array_append_new(user, object);
}

static int list_devices(bool as_json) {
    if (as_json) {
        json_t *devices = json_array();
        pi2_device_list(add_device, devices);
        return pi2_cli_print_json(devices, JSON_INDENT(2));
    }
    unsigned count = 0;
    pi2_device_list(print_device, &count);
    if (count == 0) pi2_cli_print_line("no device: the processor computes alone");
    return pi2_cli_finish_stdout();
}

int pi2_cli_machine(int argument_count, char **arguments) {
    static machine_settings settings;
    const pi2_cli_section sections[] = {
        {"Options", machine_options, sizeof machine_options / sizeof machine_options[0], &settings}};
    const pi2_cli_command command = {
        "machine", "[-m MODEL] [options]",
        "Measures this machine once and keeps the result: memory, kernels by weight type and batch, disk by "
        "block size, depth and read method. 'plan' predicts speeds from it. A profile that is there is shown; "
        "one that is damaged, or of another machine, is measured again.",
        sections, 1};
    int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code != PI2_CLI_GO_ON) return code;
    pi2_cli_set_quiet(settings.quiet);
    if (settings.list_devices) return list_devices(settings.json);
    pi2_cli_catch_signals();
    const pi2_machine_options options = {.profile_path = settings.profile, .disk_path = settings.disk,
                                        .quick = settings.quick, .callbacks = pi2_cli_callbacks()};
    pi2_machine_profile *profile = NULL;
    code = settings.force ? pi2_cli_measure_machine(&options, &profile) : pi2_cli_find_machine(&options, &profile);
    if (code == PI2_EXIT_OK && settings.disk) code = pi2_cli_find_disk(profile, &options);
    if (code != PI2_EXIT_OK) {
        pi2_machine_free(profile);
        return code;
    }
    code = settings.json ? print_json(profile) : print_table(profile);
    pi2_machine_free(profile);
    return code;
}
