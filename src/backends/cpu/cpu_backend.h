/*
 * cpu_backend.h: the processor's back-end: the kernels of this machine's instruction sets, chosen once. The only way
 * from a pass to kernels/ (tests/layers/layers.txt).
 */
#ifndef PI2_BACKENDS_CPU_CPU_BACKEND_H
#define PI2_BACKENDS_CPU_CPU_BACKEND_H

#include "backends/backend.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/kv_layout.h"
#include "kernels/matmul/matmul.h"
#include "kernels/neuron/neuron.h"
#include "kernels/recurrent/recurrent.h"
#include "kernels/small_rows/small_rows.h"
#include "kernels/vector/gate_cutoff.h"
#include "kernels/vector/soft_cap.h"
#include "kernels/vector/vector.h"

enum { PI2_WEIGHT_TYPE_IDS = 64 }; /* more than the largest id of a type in GGUF that we read */

typedef struct pi2_cpu_backend {
    const pi2_matmul_kernel *matmul[PI2_WEIGHT_TYPE_IDS]; /* by type; NULL: there is no such type */
    const pi2_neuron_kernel *neuron[PI2_WEIGHT_TYPE_IDS]; /* NULL: its single columns cannot be stored */
    const pi2_vector_kernels *vector;
    const pi2_attention_kernels *attention;
    const pi2_recurrent_kernels *recurrent;
    const pi2_small_kernel *small_rows;
} pi2_cpu_backend;

/** The best kernels for these CPU features (base/cpu_features.h); with none, the specification. */
void pi2_cpu_backend_choose(pi2_cpu_backend *cpu, unsigned cpu_features);

/** Threads: any, for different rows or tokens. */
void pi2_cpu_backend_multiply(const pi2_cpu_backend *cpu, const pi2_backend_work *work);

#endif
