/* cpu_backend.c: which kernels a processor computes with. */
#include "backends/cpu/cpu_backend.h"

#include <assert.h>

void pi2_cpu_backend_choose(pi2_cpu_backend *cpu, unsigned cpu_features) {
    size_t count = 0;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    *cpu = (pi2_cpu_backend){ .vector = pi2_vector_select(cpu_features),
                              .attention = pi2_attention_select(cpu_features),
                              .recurrent = pi2_recurrent_select(cpu_features),
                              .small_rows = pi2_small_select(cpu_features) };
    for (size_t i = 0; i < count; i++) {
        const pi2_weight_type type = formats[i]->type;
        assert((unsigned)type < PI2_WEIGHT_TYPE_IDS);
        cpu->matmul[type] = pi2_matmul_select(type, cpu_features);
        cpu->neuron[type] = pi2_neuron_select(type, cpu_features);
    }
}

void pi2_cpu_backend_multiply(const pi2_cpu_backend *cpu, const pi2_backend_work *work) {
    cpu->matmul[work->type]->run(work->out, work->out_stride, work->tiles, work->tile_count, work->columns,
                                 work->column_begin, work->x, work->token_begin, work->token_count, work->start);
}
