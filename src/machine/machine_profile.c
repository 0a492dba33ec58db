/* machine_profile.c: the list, its file, and what lies between two measurements. */
#include "machine/machine_profile.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/cpu_features.h"
#include "base/cache_folder.h"
#include "base/fail.h"
#include "base/team.h"

/* A measurement's line is at most 150 bytes, a disk's 320, the others 500 together. */
enum { FILE_BYTES_MOST = PI2_PROFILE_MOST * 160 + PI2_PROFILE_DISKS * 320 + 1024, LINE_BYTES = 256 };

static const char profile_head[] = "powerinfer2-machine-profile ";

static const char *const kind_names[PI2_MEASURED_KINDS] = {
    "buffer", "memory", "decode", "batch", "rows", "columns", "predictor", "store", "attention", "vector", "stage",
    "core", "disk", "small_read", "read_cpu"};

const char *pi2_measured_name(pi2_measured what) {
    return (unsigned)what < PI2_MEASURED_KINDS ? kind_names[what] : "unknown";
}

bool pi2_measured_of_disk(pi2_measured what) {
    return what == PI2_MEASURED_DISK || what == PI2_MEASURED_SMALL_READ || what == PI2_MEASURED_READ_CPU;
}

/* ---- identity ---- */

/** Copies printable characters, runs of blanks as one, none at the ends. */
static void copy_clean(char *to, size_t capacity, const char *from) {
    size_t length = 0;
    for (; *from && length + 1 < capacity; from++) {
        const bool is_blank = *from <= ' ' || *from > '~';
        if (is_blank && (length == 0 || to[length - 1] == ' ')) continue;
        to[length++] = is_blank ? ' ' : *from;
    }
    while (length && to[length - 1] == ' ') length--;
    to[length] = '\0';
}

/** The first of /proc/cpuinfo's lines that name a processor, on x86 and on ARM. */
static void read_cpu_name(char *name, size_t capacity) {
    static const char *const keys[] = {"model name", "Hardware", "CPU part", "uarch"};
    char line[LINE_BYTES];
    copy_clean(name, capacity, "unknown");
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        FILE *file = fopen("/proc/cpuinfo", "r");
        if (!file) return;
        bool found = false;
        while (!found && fgets(line, sizeof line, file)) {
            const char *colon = strchr(line, ':');
            if (!colon || strncmp(line, keys[k], strlen(keys[k])) != 0) continue;
            copy_clean(name, capacity, colon + 1);
            found = *name != '\0';
        }
        (void)fclose(file);
        if (found) return;
    }
}

void pi2_machine_identify(pi2_machine_identity *identity) {
    struct utsname system;
    char text[sizeof identity->system];
    memset(identity, 0, sizeof *identity);
    read_cpu_name(identity->cpu, sizeof identity->cpu);
    copy_clean(identity->isa, sizeof identity->isa, pi2_cpu_features_name(pi2_cpu_features()));
    text[0] = '\0';
    if (uname(&system) >= 0) {
        (void)snprintf(text, sizeof text, "%.32s %.64s %.24s", system.sysname, system.release, system.machine);
    }
    copy_clean(identity->system, sizeof identity->system, *text ? text : "unknown");
    identity->cores = pi2_allowed_cpus();
}

pi2_status pi2_profile_check_identity(const pi2_machine_profile *profile, const pi2_machine_identity *now) {
    const pi2_machine_identity *then = &profile->identity;
    const struct { const char *what, *then, *now; } texts[] = {{"processor", then->cpu, now->cpu},
                                                               {"instruction set", then->isa, now->isa},
                                                               {"system", then->system, now->system}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (strcmp(texts[i].then, texts[i].now) == 0) continue;
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s is outdated: measured with the %s '%s', this is '%s'", profile->path,
                        texts[i].what, texts[i].then, texts[i].now);
    }
    if (then->cores == now->cores) return PI2_OK;
    return pi2_fail(PI2_ERR_UNSUPPORTED, "%s is outdated: measured with %u processors, this process may use %u",
                    profile->path, then->cores, now->cores);
}

/* ---- the list ---- */

bool pi2_profile_add(pi2_machine_profile *profile, pi2_measured what, const char *name, uint64_t a, uint64_t b,
                     uint64_t c, double value, double spread) {
    if (profile->count == PI2_PROFILE_MOST) return false;
    pi2_measurement *item = &profile->items[profile->count++];
    *item = (pi2_measurement){.what = what, .a = a, .b = b, .c = c, .value = value, .spread = spread};
    copy_clean(item->name, sizeof item->name, name ? name : "");
    return true;
}

static double ratio(uint64_t x, uint64_t y) { return fabs(log(((double)x + 1) / ((double)y + 1))); }

/** Lines of one kind and name. */
typedef struct query {
    const pi2_machine_profile *profile;
    pi2_measured what;
    const char *name;
} query;

static bool matches(const query *q, const pi2_measurement *item) {
    return item->what == q->what && strcmp(item->name, q->name) == 0;
}

/** At one b and c that were measured: between the lines around `a`. */
static double value_at_a(const query *q, uint64_t a, uint64_t b, uint64_t c, double *spread) {
    const pi2_measurement *below = NULL, *above = NULL;
    for (size_t i = 0; i < q->profile->count; i++) {
        const pi2_measurement *item = &q->profile->items[i];
        if (!matches(q, item) || item->b != b || item->c != c) continue;
        if (item->a <= a && (!below || item->a > below->a)) below = item;
        if (item->a >= a && (!above || item->a < above->a)) above = item;
    }
    if (!below) below = above;
    if (!above) above = below;
    if (!below) return 0;
    *spread = fmax(*spread, fmax(below->spread, above->spread));
    if (below->a == above->a) return below->value;
    const double share = (double)(a - below->a) / (double)(above->a - below->a);
    return below->value + share * (above->value - below->value);
}

/** What lies between two values of b. */
typedef enum between_b { AT_NEAREST, BY_LOGARITHM, BY_INVERSE_SECONDS } between_b;

static between_b between_of(pi2_measured what) {
    switch (what) {
    case PI2_MEASURED_DISK:
    case PI2_MEASURED_SMALL_READ:
    case PI2_MEASURED_READ_CPU:
    case PI2_MEASURED_MEMORY: return BY_LOGARITHM;
    case PI2_MEASURED_COLUMNS: return BY_INVERSE_SECONDS; /* what a block takes is shared by the neurons it has */
    default: return AT_NEAREST;
    }
}

/** At one c that was measured. */
static double value_at_b(const query *q, uint64_t a, uint64_t b, uint64_t c, double *spread) {
    uint64_t nearest = 0, below = 0, above = UINT64_MAX;
    double least = INFINITY;
    for (size_t i = 0; i < q->profile->count; i++) {
        const pi2_measurement *item = &q->profile->items[i];
        if (!matches(q, item) || item->c != c) continue;
        if (item->b <= b && item->b > below) below = item->b;
        if (item->b >= b && item->b < above) above = item->b;
        if (ratio(item->b, b) >= least) continue;
        least = ratio(item->b, b);
        nearest = item->b;
    }
    const between_b between = between_of(q->what);
    if (between == AT_NEAREST || below == 0 || above == UINT64_MAX || below == above) {
        return value_at_a(q, a, nearest, c, spread);
    }
    const double low = value_at_a(q, a, below, c, spread), high = value_at_a(q, a, above, c, spread);
    if (between == BY_LOGARITHM) return low + ratio(b, below) / ratio(above, below) * (high - low);
    if (low <= 0 || high <= 0) return 0;
    const double share = (1.0 / (double)b - 1.0 / (double)above) / (1.0 / (double)below - 1.0 / (double)above);
    return 1 / (1 / high + share * (1 / low - 1 / high));
}

double pi2_profile_value(const pi2_machine_profile *profile, pi2_measured what, const char *name, uint64_t a,
                         uint64_t b, uint64_t c, double *spread_out) {
    const query q = {profile, what, name};
    const bool is_disk = pi2_measured_of_disk(what);
    uint64_t below = 0, above = UINT64_MAX;
    double spread = 0;
    for (size_t i = 0; i < profile->count; i++) {
        const pi2_measurement *item = &profile->items[i];
        if (!matches(&q, item)) continue;
        if (item->c <= c && item->c >= below) below = item->c;
        if (item->c >= c && item->c < above) above = item->c;
    }
    if (is_disk) below = above = c;
    else if (above == UINT64_MAX) above = below; /* nothing is that wide, or nothing was measured at all */
    double value = value_at_b(&q, a, b, above, &spread);
    if (below != above && below != 0 && value > 0) {
        const double narrow = value_at_b(&q, a, b, below, &spread);
        const double share = (1.0 / (double)c - 1.0 / (double)above) / (1.0 / (double)below - 1.0 / (double)above);
        if (narrow > 0) value = 1 / (1 / value + share * (1 / narrow - 1 / value));
    }
    if (spread_out) *spread_out = spread;
    return value;
}

/* ---- the file ---- */

pi2_status pi2_profile_default_path(char *path, size_t capacity) {
    char folder[1024];
    if (!pi2_cache_folder(folder, sizeof folder)) {
        return pi2_fail(PI2_ERR_IO, "no folder for the machine profile: set HOME or XDG_CACHE_HOME");
    }
    const int length = snprintf(path, capacity, "%s/machine.profile", folder);
    if (length < 0 || (size_t)length + 8 > capacity) {
        return pi2_fail(PI2_ERR_INVALID, "the machine profile's path is longer than %zu bytes", capacity - 8);
    }
    return PI2_OK;
}

static size_t write_text(const pi2_machine_profile *profile, char *text, size_t capacity) {
    const pi2_machine_identity *identity = &profile->identity;
    size_t used = (size_t)snprintf(text, capacity,
                                   "%s%d\ncpu %s\nisa %s\nsystem %s\ncores %u\ntime %lld\n",
                                   profile_head, (int)PI2_PROFILE_VERSION, identity->cpu, identity->isa,
                                   identity->system, identity->cores, (long long)profile->time);
    for (uint32_t i = 0; i < profile->disk_count; i++) {
        const pi2_machine_disk *disk = &profile->disks[i];
        used += (size_t)snprintf(text + used, capacity - used, "place %u %llu %lld %s\n", i,
                                 (unsigned long long)disk->device, (long long)disk->time, disk->place);
    }
    for (size_t i = 0; i < profile->count; i++) {
        const pi2_measurement *item = &profile->items[i];
        used += (size_t)snprintf(text + used, capacity - used, "%s %s %llu %llu %llu %.6g %.4g\n",
                                 kind_names[item->what], *item->name ? item->name : "-", (unsigned long long)item->a,
                                 (unsigned long long)item->b, (unsigned long long)item->c, item->value, item->spread);
    }
    const unsigned long long checksum = XXH3_64bits(text, used);
    return used + (size_t)snprintf(text + used, capacity - used, "checksum %016llx\n", checksum);
}

static bool recognises_profile(const char *path, const uint8_t *head, size_t count) {
    (void)path;
    return pi2_output_head_is(head, count, profile_head);
}

static const pi2_output_kind profile_kind = {.what = "a machine profile", .recognises = recognises_profile};

pi2_status pi2_profile_open(const char *path, const char *measured_path, pi2_output_file *file) {
    const char *const inputs[] = {measured_path, NULL};
    const pi2_output_request request = {.path = path, .kind = &profile_kind, .inputs = inputs};
    pi2_folders_make_above(path);
    return pi2_output_file_open(file, &request);
}

pi2_status pi2_profile_save(const pi2_machine_profile *profile, pi2_output_file *file) {
    char *text = malloc(FILE_BYTES_MOST);
    if (!text) return pi2_fail(PI2_ERR_MEMORY, "no memory for the machine profile's text");
    const size_t length = write_text(profile, text, FILE_BYTES_MOST);
    pi2_output_file_write(file, text, length);
    free(text);
    return pi2_output_file_finish(file);
}

static bool read_item(const char *line, pi2_machine_profile *profile) {
    char kind[16], name[24];
    unsigned long long a, b, c;
    double value, spread;
    int used = 0;
    const int read = sscanf(line, "%15s %23s %20llu %20llu %20llu %lf %lf%n", kind, name, &a, &b, &c, &value, &spread,
                            &used);
    if (read != 7) return false;
    /* No machine measures anything beyond these, and what is computed from them stays finite. */
    if (line[used] || !(value > 1e-30 && value < 1e30) || !(spread >= 0 && spread < 1e6)) return false;
    for (const char *letter = name; *letter; letter++) {
        if (*letter <= ' ' || *letter > '~') return false;
    }
    for (int what = 0; what < PI2_MEASURED_KINDS; what++) {
        if (strcmp(kind, kind_names[what]) != 0) continue;
        return pi2_profile_add(profile, (pi2_measured)what, strcmp(name, "-") == 0 ? "" : name, a, b, c, value,
                               spread);
    }
    return false;
}

static bool read_place(const char *line, pi2_machine_profile *profile) {
    unsigned number;
    unsigned long long device;
    long long time;
    int used = 0;
    const int read = sscanf(line, "place %4u %20llu %20lld %n", &number, &device, &time, &used);
    if (read != 3 || number != profile->disk_count || number >= PI2_PROFILE_DISKS || line[used] != '/') return false;
    pi2_machine_disk *disk = &profile->disks[profile->disk_count];
    if (strlen(line + used) >= sizeof disk->place) return false;
    memcpy(disk->place, line + used, strlen(line + used) + 1);
    disk->device = device;
    disk->time = time;
    profile->disk_count++;
    return true;
}

static bool read_line(char *line, size_t number, pi2_machine_profile *profile) {
    char *value = strchr(line, ' ');
    if (!value) return false;
    value++;
    const size_t key = (size_t)(value - line);
    pi2_machine_identity *identity = &profile->identity;
    static const char *const keys[] = {"", "cpu ", "isa ", "system ", "cores ", "time "};
    if (number >= sizeof keys / sizeof keys[0]) {
        return strncmp(line, "place ", 6) == 0 ? read_place(line, profile) : read_item(line, profile);
    }
    if (number && (strlen(keys[number]) != key || strncmp(line, keys[number], key) != 0)) return false;
    switch (number) {
    case 1: copy_clean(identity->cpu, sizeof identity->cpu, value); break;
    case 2: copy_clean(identity->isa, sizeof identity->isa, value); break;
    case 3: copy_clean(identity->system, sizeof identity->system, value); break;
    case 4: identity->cores = (uint32_t)strtoul(value, NULL, 10); break;
    case 5: profile->time = strtoll(value, NULL, 10); break;
    default: break;
    }
    return true;
}

static pi2_status damaged(const char *path, const char *what) {
    return pi2_fail(PI2_ERR_FORMAT, "%s: the machine profile is damaged (%s): measure again with 'powerinfer2 machine'",
                    path, what);
}

/** text: NUL-terminated, changed. */
static pi2_status read_text(char *text, size_t length, const char *path, pi2_machine_profile *profile) {
    if (strlen(text) != length || strncmp(text, profile_head, sizeof profile_head - 1) != 0) {
        return damaged(path, "it is none");
    }
    if (strtol(text + sizeof profile_head - 1, NULL, 10) != PI2_PROFILE_VERSION) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s is outdated: its version is not %d", path, (int)PI2_PROFILE_VERSION);
    }
    static const char last[] = "checksum ";
    char *checksum = text;
    while (checksum && strncmp(checksum, last, sizeof last - 1) != 0) {
        checksum = strchr(checksum, '\n');
        if (checksum) checksum++;
    }
    if (!checksum) return damaged(path, "it is cut");
    char *end = NULL;
    const unsigned long long sum = strtoull(checksum + sizeof last - 1, &end, 16);
    if (strcmp(end, "\n") != 0 || sum != XXH3_64bits(text, (size_t)(checksum - text))) {
        return damaged(path, "its checksum does not match");
    }
    *checksum = '\0';
    size_t number = 0;
    for (char *line = text; *line; number++) {
        char *next = strchr(line, '\n');
        if (!next) return damaged(path, "a line does not end");
        *next = '\0';
        if (!read_line(line, number, profile)) return damaged(path, "a line is not understood");
        line = next + 1;
    }
    return profile->count ? PI2_OK : damaged(path, "it holds no measurements");
}

pi2_status pi2_profile_read(const char *path, pi2_machine_profile *profile) {
    memset(profile, 0, sizeof *profile);
    if (strlen(path) >= sizeof profile->path) return pi2_fail(PI2_ERR_INVALID, "the profile's path is too long");
    memcpy(profile->path, path, strlen(path) + 1);
    FILE *file = fopen(path, "rb");
    if (!file) {
        return pi2_fail(PI2_ERR_IO, "%s: %s: measure this machine with 'powerinfer2 machine'", path, strerror(errno));
    }
    char *text = malloc(FILE_BYTES_MOST);
    size_t length = text ? fread(text, 1, FILE_BYTES_MOST, file) : 0;
    const bool failed = ferror(file) != 0;
    (void)fclose(file);
    pi2_status status;
    if (!text) status = pi2_fail(PI2_ERR_MEMORY, "no memory for the machine profile's text");
    else if (failed) status = pi2_fail(PI2_ERR_IO, "%s: cannot be read", path);
    else if (length == FILE_BYTES_MOST) status = damaged(path, "it is too long");
    else {
        text[length] = '\0';
        status = read_text(text, length, path, profile);
    }
    free(text);
    return status;
}

pi2_status pi2_machine_read(const char *path, pi2_machine_profile **profile_out) {
    *profile_out = NULL;
    pi2_machine_profile *profile = malloc(sizeof *profile);
    if (!profile) return pi2_fail(PI2_ERR_MEMORY, "no memory for the machine profile");
    const pi2_status status = pi2_profile_read(path, profile);
    if (status == PI2_OK) *profile_out = profile;
    else free(profile);
    return status;
}

pi2_status pi2_machine_load(const char *path, pi2_machine_profile **profile_out) {
    char kept[1024];
    *profile_out = NULL;
    if (!path) {
        PI2_TRY(pi2_profile_default_path(kept, sizeof kept));
        path = kept;
    }
    pi2_machine_profile *profile = NULL;
    pi2_machine_identity now;
    pi2_machine_identify(&now);
    PI2_TRY(pi2_machine_read(path, &profile));
    const pi2_status status = pi2_profile_check_identity(profile, &now);
    if (status != PI2_OK) {
        free(profile);
        return status;
    }
    *profile_out = profile;
    return PI2_OK;
}

void pi2_machine_free(pi2_machine_profile *profile) { free(profile); }

const pi2_machine_identity *pi2_machine_profile_identity(const pi2_machine_profile *profile) {
    return &profile->identity;
}
int64_t pi2_machine_profile_time(const pi2_machine_profile *profile) { return profile->time; }
const char *pi2_machine_profile_path(const pi2_machine_profile *profile) { return profile->path; }
size_t pi2_machine_measurement_count(const pi2_machine_profile *profile) { return profile->count; }
const pi2_measurement *pi2_machine_measurement(const pi2_machine_profile *profile, size_t index) {
    return index < profile->count ? &profile->items[index] : NULL;
}
