/* prepare_file.c: the cluster file of a model, for callers that have only its path. */
#include <stdlib.h>
#include <string.h>

#include "architectures/decoder.h"
#include "base/fail.h"
#include "base/memory_limit.h"
#include "base/parse_size.h"
#include "file_formats/cluster_file.h"
#include "clusters/prepare.h"
#include "engine/model_check.h"
#include "planner/neuron_forecast.h"
#include "powerinfer2/model_file.h"

/* Without a wish, as much as helps: larger buffers make nothing faster. */
static const uint64_t DEFAULT_PROCESS_BYTES = 256 * 1000 * 1000;
static const uint64_t MARGIN_BYTES = 3 * 1000 * 1000; /* stack, allocator, the kernel's page tables */

/** What pi2_prepare() may take, so that the whole process stays within the budget. */
static pi2_status memory_left(const char *path, uint64_t budget_bytes, uint64_t *left_out) {
    uint64_t peak = 0, current = 0;
    (void)pi2_process_memory(&peak, &current);
    if (budget_bytes == 0) {
        pi2_memory_limit limit;
        pi2_memory_limit_find(&limit);
        budget_bytes = limit.bytes < DEFAULT_PROCESS_BYTES ? current + limit.bytes : DEFAULT_PROCESS_BYTES;
    }
    if (budget_bytes <= current + MARGIN_BYTES) {
        char budget[PI2_SIZE_TEXT_BYTES], used[PI2_SIZE_TEXT_BYTES];
        return pi2_fail(PI2_ERR_MEMORY,
                        "%s: %s is too little memory to prepare it: the process holds %s with the header alone",
                        path, pi2_format_size(budget_bytes, budget), pi2_format_size(current + MARGIN_BYTES, used));
    }
    *left_out = budget_bytes - current - MARGIN_BYTES;
    return PI2_OK;
}

/** The caller's path, or a good file that is there, or where one belongs. Malloc'd. */
static pi2_status choose_path(const pi2_gguf *source, const pi2_prepare_options *options, pi2_layout_kind layout,
                              char **path_out) {
    *path_out = NULL;
    if (options->output_path) {
        const size_t bytes = strlen(options->output_path) + 1;
        *path_out = malloc(bytes);
        if (!*path_out) return pi2_fail(PI2_ERR_MEMORY, "no memory for a path");
        memcpy(*path_out, options->output_path, bytes);
        return PI2_OK;
    }
    char note[512] = "";
    const pi2_cluster_wish wish = {.layout = layout};
    PI2_TRY(pi2_cluster_file_find(source, NULL, &wish, &options->callbacks, path_out, note, sizeof note, NULL));
    if (note[0] && options->callbacks.log) options->callbacks.log(options->callbacks.user, note);
    return *path_out ? PI2_OK : pi2_cluster_file_default_path(source, path_out);
}

/** shape is valid where status is OK. Whoever has statistics wants neurons in their order. */
static pi2_layout_kind choose_layout(const pi2_prepare_options *options, const pi2_model_shape *shape,
                                     pi2_status status) {
    if (options->layout != PI2_LAYOUT_AUTO) return options->layout;
    return status == PI2_OK && (options->statistics_path || pi2_neuron_layout_pays(shape)) ? PI2_LAYOUT_NEURON
                                                                                          : PI2_LAYOUT_DENSE;
}

/** What a run refuses is not worth a file. A template that cannot be used is no reason to. */
static pi2_status check_model(const pi2_gguf *source, const pi2_prepare_options *options) {
    char note[1024];
    pi2_tokenizer *tokenizer = NULL;
    PI2_TRY(pi2_model_can_run(source, NULL, &tokenizer));
    pi2_model_try_template(source, tokenizer, note, sizeof note);
    pi2_tokenizer_free(tokenizer);
    if (note[0] && options->callbacks.log) options->callbacks.log(options->callbacks.user, note);
    return PI2_OK;
}

static pi2_status prepare(const pi2_gguf *source, const pi2_prepare_options *options,
                          const pi2_neuron_statistics *statistics, char **path_out) {
    const pi2_architecture *architecture = NULL;
    pi2_tensor_directory directory = {0};
    pi2_model_requests requests = {0};
    pi2_model_shape shape;
    pi2_prepare_settings settings = {.overwrite = options->overwrite, .callbacks = options->callbacks,
                                    .statistics = statistics,
                                    .statistics_name = options->statistics_path};
    PI2_TRY(check_model(source, options));
    PI2_TRY(pi2_architecture_find(source, &architecture));
    pi2_status status = pi2_tensor_directory_open(source, NULL, &directory);
    if (status == PI2_OK) status = pi2_architecture_shape(architecture, &directory, &shape);
    if (status == PI2_OK) status = pi2_decoder_list_tensors(&directory, &shape, &requests);
    settings.layout = choose_layout(options, &shape, status);
    if (status == PI2_OK) status = choose_path(source, options, settings.layout, path_out);
    if (status == PI2_OK) status = memory_left(options->model_path, options->memory_bytes, &settings.memory_bytes);
    if (status == PI2_OK) {
        status = pi2_prepare(source, requests.groups, requests.group_count, *path_out, &settings);
    }
    pi2_model_requests_free(&requests);
    pi2_tensor_directory_close(&directory);
    return status;
}

static pi2_status prepare_with_statistics(const pi2_gguf *source, const pi2_prepare_options *options,
                                          char **path_out) {
    pi2_neuron_statistics statistics = {0};
    if (!options->statistics_path) return prepare(source, options, NULL, path_out);
    pi2_status status = pi2_neuron_statistics_read(options->statistics_path, &statistics);
    if (status == PI2_OK) status = prepare(source, options, &statistics, path_out);
    pi2_neuron_statistics_free(&statistics);
    return status;
}

pi2_status pi2_prepare_file(const pi2_prepare_options *options, char **path_out) {
    pi2_gguf *source = NULL;
    char *path = NULL;
    if (path_out) *path_out = NULL;
    PI2_TRY(pi2_gguf_open(options->model_path, &source));
    pi2_status status = pi2_cluster_file_is(source)
        ? pi2_fail(PI2_ERR_INVALID, "%s is a cluster file already: give the GGUF that it was made from",
                   options->model_path)
        : pi2_architecture_put_activation(source, options->ffn_activation);
    if (status == PI2_OK) status = pi2_architecture_adapt(source);
    if (status == PI2_OK) status = prepare_with_statistics(source, options, &path);
    pi2_gguf_close(source);
    if (status == PI2_OK && path_out) {
        *path_out = path;
    } else {
        free(path);
    }
    return status;
}
