/*
 * Goal:   the CPU's features are those that the system reports; PI2_CPU lowers them, and never
 *         raises them; the name is that of the best set.
 * Method: /proc/cpuinfo of Linux on x86-64; environments; names of masks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu_features.h"
#include "kernels/matmul/matmul.h"

static bool has_word(const char *line, const char *word) {
    const size_t length = strlen(word);
    for (const char *at = strstr(line, word); at; at = strstr(at + length, word)) {
        if (at[-1] == ' ' && (at[length] == ' ' || at[length] == '\n')) return true;
    }
    return false;
}

/* A compiler that does not know AVX-VNNI leaves its kernels out, and then the feature too. */
static bool has_kernels_for(unsigned feature) {
    for (size_t i = 0; i < pi2_matmul_kernel_count; i++) {
        if (pi2_matmul_kernels[i].cpu_required & feature) return true;
    }
    return false;
}

static void features_are_those_that_the_system_reports(void **state) {
    (void)state;
    static const struct {
        const char *flag;
        unsigned feature;
    } pairs[] = {
        { "avx2", PI2_CPU_AVX2 },
        { "avx_vnni", PI2_CPU_AVX_VNNI },
        { "avx512bw", PI2_CPU_AVX512 },
        { "avx512_vnni", PI2_CPU_AVX512_VNNI },
    };
    static char line[16384];
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file) skip();
    bool found = false;
    while (!found && fgets(line, sizeof line, file)) found = strncmp(line, "flags", 5) == 0;
    (void)fclose(file);
    if (!found) skip();
    const unsigned features = pi2_cpu_features();
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        const bool expected = has_word(line, pairs[i].flag) && has_kernels_for(pairs[i].feature);
        /* A kernel of the system from before AVX-VNNI does not report it. */
        if (!expected && pairs[i].feature == PI2_CPU_AVX_VNNI) continue;
        assert_int_equal((features & pairs[i].feature) != 0, expected);
    }
}

static void the_environment_lowers_them(void **state) {
    (void)state;
    const unsigned all = pi2_cpu_features();
    static const struct {
        const char *name;
        unsigned allowed;
    } sets[] = {
        { "scalar", PI2_CPU_NONE },
        { "avx2", PI2_CPU_AVX2 },
        { "avxvnni", PI2_CPU_AVX2 | PI2_CPU_AVX_VNNI },
        { "avx512", PI2_CPU_AVX2 | PI2_CPU_AVX512 },
        { "neon", PI2_CPU_NEON },
        { "dotprod", PI2_CPU_NEON | PI2_CPU_NEON_DOTPROD },
    };
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        assert_int_equal(setenv("PI2_CPU", sets[i].name, 1), 0);
        assert_int_equal(pi2_cpu_features(), all & sets[i].allowed);
    }
}

static void the_best_set_gives_the_name(void **state) {
    (void)state;
    assert_string_equal(pi2_cpu_features_name(PI2_CPU_NONE), "portable C");
    assert_string_equal(pi2_cpu_features_name(PI2_CPU_AVX2), "AVX2");
    assert_string_equal(pi2_cpu_features_name(PI2_CPU_AVX2 | PI2_CPU_AVX_VNNI), "AVX-VNNI");
    assert_string_equal(pi2_cpu_features_name(PI2_CPU_AVX2 | PI2_CPU_AVX_VNNI | PI2_CPU_AVX512 |
                                              PI2_CPU_AVX512_VNNI), "AVX-512 VNNI");
    assert_string_equal(pi2_cpu_features_name(PI2_CPU_NEON | PI2_CPU_NEON_DOTPROD), "NEON dotprod");
}

int main(void) {
    if (unsetenv("PI2_CPU") != 0) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(features_are_those_that_the_system_reports),
        cmocka_unit_test(the_environment_lowers_them),
        cmocka_unit_test(the_best_set_gives_the_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
