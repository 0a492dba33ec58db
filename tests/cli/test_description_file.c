/*
 * Goal:   a description that is none is refused by file, place and name, in one line; what only the simulation can
 *         refuse is refused there, with a status of its own.
 * Method: the fuzzer's seed, changed in single places.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/description_file.h"
#include "cli/options.h"
#include "cli/output.h"

static const char seed[] =
    "{'name': 'small', 'assumed': ['x'], 'device': {'threads': 2, 'cpu_bytes_per_second': 1e9, 'sparse_efficiency': 1,"
    "'reads': [[4096, 1000], [8192, 900]], 'sequential_bytes_per_second': 1e9}, 'model': {'layers': 2, 'neurons': 64,"
    "'attention_bytes': 1e5, 'gate_row_bytes': 64, 'rest_row_bytes': 128, 'weights_per_byte': 2,"
    "'gate_read_bytes': 4096, 'rest_read_bytes': 0, 'cached_bytes': 192, 'active': 0.2},"
    "'runs': [{'name': 'half', 'ffn_in_memory': 0.5, 'published': 3.5, 'of': 'p90_ms'},"
    "{'name': 'memory', 'memory_bytes': 10000, 'batch': 2, 'policy': 'lru'}]}";

static json_t *parse(const char *text) {
    char copy[sizeof seed + 64];
    (void)snprintf(copy, sizeof copy, "%s", text);
    for (char *at = copy; *at; at++) *at = (char)(*at == '\'' ? '"' : *at);
    json_t *value = json_loads(copy, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    return value;
}

/* Sets what lies at a place such as "runs.1.policy"; NULL: takes it away. */
static void change(json_t *value, const char *place, const char *to) {
    char path[64];
    (void)snprintf(path, sizeof path, "%s", place);
    char *name = path;
    for (char *dot; (dot = strchr(name, '.')); name = dot + 1) {
        *dot = '\0';
        value = json_is_array(value) ? json_array_get(value, (size_t)atoi(name)) : json_object_get(value, name);
        assert_non_null(value);
    }
    assert_int_equal(to ? json_object_set_new(value, name, parse(to)) : json_object_del(value, name), 0);
}

/* Reads the text, and the error line into `line`. */
static int read_text(const char *text, char line[512], pi2_description *description) {
    FILE *log = tmpfile();
    assert_non_null(log);
    pi2_cli_set_log(log);
    const int code = pi2_description_read("file.json", text, strlen(text), description);
    pi2_cli_set_log(NULL);
    rewind(log);
    const size_t length = fread(line, 1, 511, log);
    line[length] = '\0';
    assert_int_equal(fclose(log), 0);
    return code;
}

static const struct {
    const char *place, *to, *error;
    pi2_status status; /* OK: the description is refused as it is read; else: the run, with this */
} cases[] = {
    {"device.threads", NULL, "file.json: device: 'threads' is missing", PI2_OK},
    {"device.threads", "2.5", "device: 'threads' must be a whole number", PI2_OK},
    {"device.threads", "0", "'threads' is 0, it must be from 1 to 64", PI2_ERR_INVALID},
    {"device.tread", "1", "device: 'tread' is no member that is known", PI2_OK},
    {"device.reads", "[]", "device: 'reads' must be an array", PI2_OK},
    {"device.reads", "[[1]]", "pairs of bytes", PI2_OK},
    {"device.reads", "[[8192, 1], [4096, 1]]", "bytes of a read", PI2_ERR_INVALID},
    {"model.active", "2", "'active' is 2", PI2_ERR_INVALID},
    {"model.layers", "'many'", "model: 'layers' must be a whole number", PI2_OK},
    {"model", "'x'", "must be an object", PI2_OK},
    {"runs", "[]", "'runs' must be an array", PI2_OK},
    {"runs.0.of", "'speed'", "run 1: 'of' must be tokens_per_second", PI2_OK},
    {"runs.0.published", "0", "run 1: 'published' must be a number above 0", PI2_OK},
    {"runs.0.published", NULL, "run 1: 'of' says what is published", PI2_OK},
    {"runs.0.name", "5", "run 1: 'name' must be a text", PI2_OK},
    {"runs.0.policy", "'best'", "'best' is no policy", PI2_ERR_INVALID},
    {"runs.0.memory_bytes", "-1", "'memory_bytes' is -1", PI2_ERR_INVALID},
    {"name", NULL, "'name' must be a text", PI2_OK},
};

static void test_refusals(void **state) {
    (void)state;
    static pi2_description description;
    char line[512];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *value = parse(seed);
        change(value, cases[i].place, cases[i].to);
        char *text = json_dumps(value, 0);
        const int code = read_text(text, line, &description);
        if (cases[i].status == PI2_OK) {
            assert_int_equal(code, PI2_EXIT_BAD_FILE);
            if (strchr(line, '\n') != line + strlen(line) - 1) fail_msg("not one line: %s", line);
        } else {
            pi2_simulated_run run;
            assert_int_equal(code, PI2_CLI_GO_ON);
            assert_int_equal(pi2_simulate(&description.device, &description.model, &description.runs[0].simulation,
                                          &run), cases[i].status);
            (void)snprintf(line, sizeof line, "%s", pi2_error_text());
            pi2_description_free(&description);
        }
        if (!strstr(line, cases[i].error)) fail_msg("%s: no '%s' in: %s", cases[i].place, cases[i].error, line);
        free(text);
        json_decref(value);
    }
}

static void test_seed(void **state) {
    (void)state;
    static pi2_description description;
    char line[512];
    json_t *value = parse(seed);
    char *text = json_dumps(value, 0);
    assert_int_equal(read_text(text, line, &description), PI2_CLI_GO_ON);
    assert_string_equal(line, "");
    assert_int_equal(description.run_count, 2);
    assert_int_equal(description.runs[0].figure, PI2_FIGURE_P90);
    assert_string_equal(description.runs[1].simulation.policy, "lru");
    pi2_description_free(&description);
    text[strlen(text) / 2] = '\0';
    assert_int_equal(read_text(text, line, &description), PI2_EXIT_BAD_FILE);
    assert_non_null(strstr(line, "file.json: no JSON: line 1"));
    free(text);
    json_decref(value);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_refusals), cmocka_unit_test(test_seed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
