/*
 * json_get.c: one value out of a JSON text on stdin, for the shell tests.
 *
 *   json_get timings.ttft_ms     prints the value; strings without quotes, arrays and objects as JSON
 *   json_get '#tokens'           prints how many elements an array has
 *   json_get '?io.hit_rate'      prints its type: object array string integer real true false null
 *
 * Exits with 1 when the text is no JSON or has no such value.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const json_t *find(const json_t *value, const char *path) {
    while (value && *path) {
        char name[64];
        const size_t length = strcspn(path, ".");
        if (length >= sizeof name) return NULL;
        memcpy(name, path, length);
        name[length] = '\0';
        path += length + (path[length] == '.');
        value = json_is_array(value) ? json_array_get(value, (size_t)strtoul(name, NULL, 10))
                                     : json_object_get(value, name);
    }
    return value;
}

static int print_value(const json_t *value) {
    if (json_is_string(value)) {
        (void)fwrite(json_string_value(value), 1, json_string_length(value), stdout);
        (void)putchar('\n');
        return 0;
    }
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    if (!text) return 1;
    (void)puts(text);
    free(text);
    return 0;
}

int main(int argument_count, char **arguments) {
    static const char *const types[] = {"object", "array", "string", "integer", "real", "true", "false", "null"};
    json_error_t error;
    json_t *root = json_loadf(stdin, JSON_ALLOW_NUL, &error);
    const char *path = argument_count > 1 ? arguments[1] : "";
    const char mode = *path == '#' || *path == '?' ? *path++ : '\0';
    const json_t *value = root ? find(root, path) : NULL;
    if (!value) {
        (void)fprintf(stderr, "json_get: no '%s' in the JSON text %s\n", path, root ? "" : error.text);
        return 1;
    }
    int code = 0;
    if (mode == '#') (void)printf("%zu\n", json_array_size(value));
    else if (mode == '?') (void)puts(types[json_typeof(value)]);
    else code = print_value(value);
    json_decref(root);
    return code;
}
