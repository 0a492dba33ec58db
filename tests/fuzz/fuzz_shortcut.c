/* fuzz_shortcut.c: any bytes as a shortcut of a small model. What is accepted leaves out layers that the model has, and
 * has numbers that a pass can compute with. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <fcntl.h>

#include "engine/shortcut_file.h"
#include "kernels/small_rows/small_rows.h"
#include "predictor/predictor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WIDTH = 32, LAYERS = 6 };
static char path[64];
static pi2_model model;

static void require(bool condition) {
    if (!condition) abort();
}

static void remove_file(void) { (void)unlink(path); }

static void begin(void) {
    (void)snprintf(path, sizeof path, "/tmp/fuzz-shortcut-%ld", (long)getpid());
    (void)atexit(remove_file);
    model.shape.layer_count = LAYERS;
    model.shape.embedding_length = WIDTH;
    for (uint32_t i = 0; i < LAYERS; i++) model.shape.layers[i].kv_layer = i;
}

static void compute(const pi2_shortcut *shortcut) {
    float scaled[WIDTH], sums[WIDTH];
    for (uint32_t i = 0; i < WIDTH; i++) {
        require(isfinite(shortcut->biases[i]) && isfinite(shortcut->row_scales[i]) && shortcut->row_scales[i] >= 0);
        require(isfinite(shortcut->input_scales[i]) && shortcut->input_scales[i] > 0);
        scaled[i] = shortcut->input_scales[i];
    }
    require(isfinite(pi2_predictor_quantize(scaled, WIDTH, shortcut->inputs).scale));
    pi2_small_kernels[0].int8(sums, shortcut->rows, NULL, WIDTH, shortcut->inputs, WIDTH);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static pi2_run_source source = { .model_path = "a model", .model = &model };
    pi2_gguf *gguf = NULL;
    pi2_shortcut *shortcut = NULL;
    uint32_t first = 0, end = 0;
    if (!path[0]) begin();
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    require(file >= 0 && write(file, data, size) == (ssize_t)size && close(file) == 0);
    if (pi2_gguf_open(path, &gguf) != PI2_OK) return 0;
    (void)pi2_shortcut_file_is(gguf);
    if (pi2_shortcut_file_check(gguf, &source, &first, &end) == PI2_OK) {
        require(first < end && end <= LAYERS && end - first < LAYERS);
        const pi2_status status = pi2_shortcut_load(gguf, &shortcut);
        require((status == PI2_OK) == (shortcut != NULL));
        if (shortcut) {
            require(shortcut->first == first && shortcut->end == end && shortcut->width == WIDTH);
            compute(shortcut);
        }
        pi2_shortcut_free(shortcut);
    }
    pi2_gguf_close(gguf);
    return 0;
}
