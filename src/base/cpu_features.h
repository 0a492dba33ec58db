/* cpu_features.h: what this CPU can run, as a mask that tests and users can lower. */
#ifndef PI2_BASE_CPU_FEATURES_H
#define PI2_BASE_CPU_FEATURES_H

/** Instruction sets. A kernel names all that it needs; 0 is portable C. */
enum pi2_cpu_feature {
    PI2_CPU_NONE = 0,
    PI2_CPU_AVX2 = 1 << 0,        /* AVX2, FMA and F16C together */
    PI2_CPU_AVX512 = 1 << 1,      /* AVX-512 F, BW, DQ, VL and AVX2's set */
    PI2_CPU_AVX512_VNNI = 1 << 2,
    PI2_CPU_NEON = 1 << 3,
    PI2_CPU_NEON_DOTPROD = 1 << 4,
    PI2_CPU_NEON_I8MM = 1 << 5,
    PI2_CPU_AVX_VNNI = 1 << 6 /* VNNI on 256 bits without AVX-512, and AVX2's set */
};

/**
 * Features that this process may use: what the CPU and the operating system
 * offer and the compiler knew, lowered by the environment variable PI2_CPU ("scalar", "avx2",
 * "avxvnni", "avx512", "neon", "dotprod"; unset: everything). Threads: any; the answer never
 * changes.
 */
unsigned pi2_cpu_features(void);

/** The best set in `features` by name, such as "AVX-512 VNNI". Never NULL. */
const char *pi2_cpu_features_name(unsigned features);

#endif
