/* cpu_features.c: run-time detection. */
#include "base/cpu_features.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#if defined(PI2_HAVE_AVX_VNNI)
#include <cpuid.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#ifndef HWCAP_ASIMDDP
#define HWCAP_ASIMDDP (1 << 20)
#endif
#ifndef HWCAP2_I8MM
#define HWCAP2_I8MM (1 << 13)
#endif
#endif

#if defined(PI2_HAVE_AVX_VNNI)
/* Where AVX2 may be used, nothing but the processor's word is needed: the registers are the same. */
static bool has_avx_vnni(void) {
    unsigned last_subleaf, eax, ebx, ecx, edx;
    if (!__get_cpuid_count(7, 0, &last_subleaf, &ebx, &ecx, &edx) || last_subleaf < 1) return false;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & 1u << 4);
}
#endif

static unsigned detected_features(void) {
    unsigned features = PI2_CPU_NONE;
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        features |= PI2_CPU_AVX2;
#if defined(PI2_HAVE_AVX_VNNI)
        if (has_avx_vnni()) features |= PI2_CPU_AVX_VNNI;
#endif
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
            features |= PI2_CPU_AVX512;
            if (__builtin_cpu_supports("avx512vnni")) features |= PI2_CPU_AVX512_VNNI;
        }
    }
#elif defined(__aarch64__)
    features |= PI2_CPU_NEON;
#if defined(__linux__)
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) features |= PI2_CPU_NEON_DOTPROD;
    if (getauxval(AT_HWCAP2) & HWCAP2_I8MM) features |= PI2_CPU_NEON_I8MM;
#endif
#endif
    return features;
}

static unsigned features_allowed_by(const char *name) {
    if (!name || !*name) return ~0u;
    if (strcmp(name, "scalar") == 0) return PI2_CPU_NONE;
    if (strcmp(name, "avx2") == 0) return PI2_CPU_AVX2;
    if (strcmp(name, "avxvnni") == 0) return PI2_CPU_AVX2 | PI2_CPU_AVX_VNNI;
    if (strcmp(name, "avx512") == 0) return PI2_CPU_AVX2 | PI2_CPU_AVX512;
    if (strcmp(name, "neon") == 0) return PI2_CPU_NEON;
    if (strcmp(name, "dotprod") == 0) return PI2_CPU_NEON | PI2_CPU_NEON_DOTPROD;
    return ~0u;
}

unsigned pi2_cpu_features(void) {
    return detected_features() & features_allowed_by(getenv("PI2_CPU"));
}

const char *pi2_cpu_features_name(unsigned features) {
    if (features & PI2_CPU_AVX512_VNNI) return "AVX-512 VNNI";
    if (features & PI2_CPU_AVX512) return "AVX-512";
    if (features & PI2_CPU_AVX_VNNI) return "AVX-VNNI";
    if (features & PI2_CPU_AVX2) return "AVX2";
    if (features & PI2_CPU_NEON_I8MM) return "NEON i8mm";
    if (features & PI2_CPU_NEON_DOTPROD) return "NEON dotprod";
    if (features & PI2_CPU_NEON) return "NEON";
    return "portable C";
}
