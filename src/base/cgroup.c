/* cgroup.c: parsing of /proc/self/cgroup and /proc/self/mountinfo; see cgroup.h. */
#include "base/cgroup.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 4096, NUMBER_BYTES = 64 };

bool pi2_read_small_file(const char *path, char *text, size_t text_bytes) {
    text[0] = 0;
    FILE *file = fopen(path, "re");
    if (!file) return false;
    const size_t length = fread(text, 1, text_bytes - 1, file);
    const bool failed = ferror(file) != 0;
    text[failed ? 0 : length] = 0;
    (void)fclose(file);
    return !failed;
}

bool pi2_find_number(const char *text, const char *key, uint64_t *number_out) {
    const size_t key_length = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (strncmp(line, key, key_length) != 0) continue;
        const char *value = line + key_length;
        if (*value != ' ' && *value != '\t' && *value != ':') continue;
        value += strspn(value, ": \t");
        if (!isdigit((unsigned char)*value)) return false;
        errno = 0;
        *number_out = strtoull(value, NULL, 10);
        return errno == 0;
    }
    return false;
}

/* True when the comma-separated list holds the word. */
static bool list_holds(const char *list, const char *word) {
    const size_t length = strlen(word);
    for (const char *item = list; *item;) {
        const size_t item_length = strcspn(item, ",");
        if (item_length == length && memcmp(item, word, length) == 0) return true;
        item += item_length;
        if (*item == ',') item++;
    }
    return false;
}

static FILE *open_under(const char *root, const char *path) {
    char full[PI2_CGROUP_PATH_BYTES];
    const int length = snprintf(full, sizeof full, "%s%s", root, path);
    if (length < 0 || (size_t)length >= sizeof full) return NULL;
    return fopen(full, "re");
}

/*
 * The group's path inside its hierarchy. Lines are "id:controllers:path"; version 2 is the line
 * with no controllers. Version 1 wins where both list a path: in mixed set-ups the controller
 * belongs to exactly one, and then its name stands in a version 1 line.
 */
static int find_group_path(const char *root, const char *controller, char *path_out, size_t bytes) {
    FILE *file = open_under(root, "/proc/self/cgroup");
    if (!file) return 0;
    int version = 0;
    char line[LINE_BYTES];
    while (version != 1 && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path || strlen(path + 1) >= bytes) continue;
        controllers++;
        *path++ = 0;
        const bool is_version_2 = *controllers == 0;
        if (!is_version_2 && !list_holds(controllers, controller)) continue;
        version = is_version_2 ? 2 : 1;
        memcpy(path_out, path, strlen(path) + 1);
    }
    (void)fclose(file);
    return version;
}

/* mountinfo writes space, tab, newline and backslash as three octal digits. */
static void decode_octal(char *text) {
    char *out = text;
    for (const char *in = text; *in; out++) {
        if (in[0] == '\\' && in[1] >= '0' && in[1] <= '3' && in[2] >= '0' && in[2] <= '7' &&
            in[3] >= '0' && in[3] <= '7') {
            *out = (char)((in[1] - '0') * 64 + (in[2] - '0') * 8 + (in[3] - '0'));
            in += 4;
        } else {
            *out = *in++;
        }
    }
    *out = 0;
}

typedef struct mount_line {
    char *subtree, *mount_point, *file_system, *options;
} mount_line;

/* "36 35 0:31 /subtree /mount/point options [tags ...] - cgroup source super,options" */
static bool parse_mount_line(char *line, mount_line *out) {
    char *separator = strstr(line, " - ");
    if (!separator) return false;
    *separator = 0;
    char *save = NULL;
    char *field = strtok_r(line, " ", &save);
    char *fields[5] = {0};
    for (size_t i = 0; i < 5 && field; i++, field = strtok_r(NULL, " ", &save)) fields[i] = field;
    out->subtree = fields[3];
    out->mount_point = fields[4];
    out->file_system = strtok_r(separator + 3, " \n", &save);
    const char *source = strtok_r(NULL, " \n", &save);
    out->options = strtok_r(NULL, " \n", &save);
    if (!out->mount_point || !out->file_system || !source || !out->options) return false;
    decode_octal(out->subtree);
    decode_octal(out->mount_point);
    return true;
}

static bool folder_exists(const char *folder) {
    FILE *file = fopen(folder, "re"); /* opening a folder for reading works; it holds nothing */
    if (!file) return false;
    (void)fclose(file);
    return true;
}

/*
 * Joins mount point and group path. Inside a container the mounted subtree is often the group
 * itself ("/docker/12ab"), which is then cut off the path's front; a path outside the subtree
 * (another namespace's view) leaves only the mount point.
 */
static bool join_group(const char *root, const mount_line *mount, const char *path,
                       pi2_cgroup *out) {
    const size_t subtree_length = strcmp(mount->subtree, "/") == 0 ? 0 : strlen(mount->subtree);
    const char *inside = "";
    if (strncmp(path, mount->subtree, subtree_length) == 0 &&
        (path[subtree_length] == '/' || path[subtree_length] == 0)) {
        inside = path + subtree_length;
    }
    if (strcmp(inside, "/") == 0 || strncmp(inside, "/..", 3) == 0) inside = "";
    int length = snprintf(out->path, sizeof out->path, "%s%s", root, mount->mount_point);
    if (length <= 0 || (size_t)length + strlen(inside) >= sizeof out->path) return false;
    out->mount_length = (size_t)length;
    memcpy(out->path + length, inside, strlen(inside) + 1);
    if (!folder_exists(out->path)) out->path[out->mount_length] = 0;
    return true;
}

bool pi2_cgroup_find(const char *root, const char *controller, pi2_cgroup *group_out) {
    char path[PI2_CGROUP_PATH_BYTES];
    const int version = find_group_path(root, controller, path, sizeof path);
    if (!version) return false;
    FILE *file = open_under(root, "/proc/self/mountinfo");
    if (!file) return false;
    bool found = false;
    char line[LINE_BYTES];
    while (!found && fgets(line, sizeof line, file)) {
        mount_line mount;
        if (!parse_mount_line(line, &mount)) continue;
        const bool fits = version == 2 ? strcmp(mount.file_system, "cgroup2") == 0
                                       : strcmp(mount.file_system, "cgroup") == 0 &&
                                             list_holds(mount.options, controller);
        found = fits && join_group(root, &mount, path, group_out);
    }
    (void)fclose(file);
    group_out->version = version;
    return found;
}

bool pi2_cgroup_parent(pi2_cgroup *group) {
    char *slash = strrchr(group->path, '/');
    if (!slash || (size_t)(slash - group->path) < group->mount_length) return false;
    *slash = 0;
    return true;
}

bool pi2_cgroup_read(const pi2_cgroup *group, const char *file, char *text, size_t text_bytes) {
    char path[PI2_CGROUP_PATH_BYTES + 64];
    const int length = snprintf(path, sizeof path, "%s/%s", group->path, file);
    if (length < 0 || (size_t)length >= sizeof path) return false;
    return pi2_read_small_file(path, text, text_bytes);
}

bool pi2_cgroup_read_number(const pi2_cgroup *group, const char *file, uint64_t *number_out) {
    char text[NUMBER_BYTES];
    if (!pi2_cgroup_read(group, file, text, sizeof text)) return false;
    if (!isdigit((unsigned char)text[0])) return false; /* "max", "-1" */
    errno = 0;
    *number_out = strtoull(text, NULL, 10);
    return errno == 0;
}

/* Quota and period in microseconds of one group. */
static bool read_quota(const pi2_cgroup *group, uint64_t *quota, uint64_t *period) {
    if (group->version == 1) {
        return pi2_cgroup_read_number(group, "cpu.cfs_quota_us", quota) &&
               pi2_cgroup_read_number(group, "cpu.cfs_period_us", period);
    }
    char text[NUMBER_BYTES];
    if (!pi2_cgroup_read(group, "cpu.max", text, sizeof text)) return false;
    if (!isdigit((unsigned char)text[0])) return false;
    char *end = NULL;
    *quota = strtoull(text, &end, 10);
    *period = strtoull(end, NULL, 10);
    return true;
}

unsigned pi2_cgroup_cpu_quota(const char *root) {
    enum { MOST_CPUS = 1 << 20 };
    pi2_cgroup group;
    if (!pi2_cgroup_find(root, "cpu", &group)) return 0;
    uint64_t least = 0;
    do {
        uint64_t quota = 0, period = 0;
        if (!read_quota(&group, &quota, &period) || quota == 0 || period == 0) continue;
        const uint64_t cpus = quota / period + (quota % period != 0);
        if (least == 0 || cpus < least) least = cpus;
    } while (pi2_cgroup_parent(&group));
    return (unsigned)(least > MOST_CPUS ? MOST_CPUS : least);
}

bool pi2_cgroup_processes_left(const char *root, uint64_t *left_out) {
    pi2_cgroup group;
    bool is_limited = false;
    *left_out = UINT64_MAX;
    if (!pi2_cgroup_find(root, "pids", &group)) return false;
    do {
        uint64_t most = 0, now = 0;
        if (!pi2_cgroup_read_number(&group, "pids.max", &most)) continue;
        if (!pi2_cgroup_read_number(&group, "pids.current", &now)) continue;
        const uint64_t left = most > now ? most - now : 0;
        if (left < *left_out) *left_out = left;
        is_limited = true;
    } while (pi2_cgroup_parent(&group));
    return is_limited;
}
