/* session_run.c */
#include "support/session_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PROMPT_MOST = 64 };

void pi2_session_run_cpu(const char *cpu) {
    if (cpu) assert_int_equal(setenv("PI2_CPU", cpu, 1), 0);
    else assert_int_equal(unsetenv("PI2_CPU"), 0);
}

void pi2_session_run_make(pi2_engine *engine, size_t prompt, size_t decoded, pi2_session_run *run) {
    const size_t vocabulary = pi2_engine_get_report(engine)->vocabulary_size;
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.temperature = 0;
    pi2_session *session = NULL;
    assert_int_equal(pi2_session_create(engine, &sampling, &session), PI2_OK);
    int32_t tokens[PROMPT_MOST];
    assert_true(prompt <= PROMPT_MOST);
    for (size_t i = 0; i < prompt; i++) tokens[i] = (int32_t)((i * 29 + 7) % 256);
    if (pi2_session_append(session, tokens, prompt, PI2_LOGITS_LAST) != PI2_OK) fail_msg("%s", pi2_error_text());
    *run = (pi2_session_run){ .logit_count = vocabulary * decoded, .decoded = decoded };
    run->logits = malloc(run->logit_count * sizeof *run->logits);
    run->tokens = malloc(decoded * sizeof *run->tokens);
    assert_non_null(run->logits);
    assert_non_null(run->tokens);
    for (size_t i = 0; i < decoded; i++) {
        memcpy(run->logits + i * vocabulary, pi2_session_logits(session, 0), vocabulary * sizeof(float));
        assert_int_equal(pi2_session_sample(session, &run->tokens[i]), PI2_OK);
        if (pi2_session_append(session, &run->tokens[i], 1, PI2_LOGITS_LAST) != PI2_OK) {
            fail_msg("%s", pi2_error_text());
        }
    }
    assert_int_equal(pi2_session_position(session), prompt + decoded);
    pi2_session_free(session);
}

void pi2_session_run_free(pi2_session_run *run) {
    free(run->logits);
    free(run->tokens);
    memset(run, 0, sizeof *run);
}

void pi2_session_run_compare(const pi2_session_run *want, const pi2_session_run *got, size_t variation) {
    assert_int_equal(got->logit_count, want->logit_count);
    if (memcmp(got->logits, want->logits, want->logit_count * sizeof(float)) != 0) {
        fail_msg("variation %zu gives other bits", variation);
    }
    assert_memory_equal(got->tokens, want->tokens, want->decoded * sizeof *want->tokens);
}
