/* reference_check.c: opens a tiny model in the engine and beside it in doubles. */
#include "support/reference_check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "powerinfer2/session.h"
#include "support/float_reference.h"
#include "support/temporary_files.h"

enum { TOKENS = 24 };

/* Root mean square of the difference over the root mean square of the reference around its mean. */
static double relative_error(const double *want, const float *got, size_t count) {
    double mean = 0, spread = 0, error = 0;
    for (size_t i = 0; i < count; i++) mean += want[i] / (double)count;
    for (size_t i = 0; i < count; i++) {
        spread += (want[i] - mean) * (want[i] - mean);
        error += (want[i] - (double)got[i]) * (want[i] - (double)got[i]);
    }
    return sqrt(error / spread);
}

void pi2_check_against_reference(const pi2_tiny_model_options *options, pi2_cache_type cache_type, double most,
                                 int exceptions) {
    char *folder = test_folder_make();
    char *path = test_path(folder, "tiny.gguf");
    assert_int_equal(pi2_tiny_model_write(options, path), 0);
    int32_t tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++) tokens[i] = (i * 37 + 11) % 256;
    double *want = NULL;
    size_t vocabulary = 0;
    assert_int_equal(pi2_float_reference(path, tokens, TOKENS, &want, &vocabulary), 0);

    pi2_engine_options engine_options;
    pi2_engine_options_init(&engine_options);
    engine_options.model_path = path;
    engine_options.memory_bytes = 400000000;
    engine_options.logits_tokens = TOKENS;
    engine_options.cache_type = cache_type;
    pi2_engine *engine = NULL;
    pi2_session *session = NULL;
    if (pi2_engine_open(&engine_options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    if (pi2_session_append(session, tokens, TOKENS, PI2_LOGITS_ALL) != PI2_OK) fail_msg("%s", pi2_error_text());
    for (size_t t = 0; t < TOKENS; t++) {
        const double error = relative_error(want + t * vocabulary, pi2_session_logits(session, t), vocabulary);
        if (!(error <= most) && exceptions-- <= 0) fail_msg("token %zu: relative error %g is over %g", t, error, most);
    }
    pi2_session_free(session);
    pi2_engine_close(engine);
    free(want);
    free(path);
    test_folder_remove(folder);
}
