/* replay_main.c: runs a fuzz target on the files of the folders and files named. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PATH_BYTES = 4096, SKIPPED = 77 };

static size_t inputs_run;

/* Runs one file; returns 0, or 1 when it cannot be read. */
static int replay_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) return 1;
    struct stat info;
    if (fstat(fileno(file), &info) != 0 || info.st_size < 0) {
        (void)fclose(file);
        return 1;
    }
    const size_t size = (size_t)info.st_size;
    uint8_t *data = malloc(size ? size : 1); /* exact, so that an overrun is seen */
    const int failed = !data || fread(data, 1, size, file) != size;
    (void)fclose(file);
    if (!failed) {
        (void)LLVMFuzzerTestOneInput(data, size);
        inputs_run++;
    }
    free(data);
    return failed;
}

static int replay_folder(const char *path) {
    DIR *folder = opendir(path);
    if (!folder) return replay_file(path);
    int failed = 0;
    for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
        if (entry->d_name[0] == '.') continue;
        char name[PATH_BYTES];
        const int length = snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (length < 0 || length >= PATH_BYTES || replay_file(name)) {
            (void)fprintf(stderr, "cannot replay %s/%s\n", path, entry->d_name);
            failed = 1;
        }
    }
    (void)closedir(folder);
    return failed;
}

int main(int argc, char **argv) {
    int failed = 0;
    for (int i = 1; i < argc; i++) {
        struct stat info;
        if (stat(argv[i], &info) != 0) continue; /* a target without seeds has no folder */
        failed |= replay_folder(argv[i]);
    }
    (void)printf("%zu inputs\n", inputs_run);
    if (failed) return 1;
    return inputs_run ? 0 : SKIPPED;
}
