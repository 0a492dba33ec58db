#include "support/matmul_problem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/matmul/matmul.h"

problem make_problem(test_random *random, const pi2_weight_format *format, shape s) {
    problem p = { .format = format, .shape = s, .out_stride = s.tile_count * PI2_TILE_ROWS + 5 };
    p.tile_bytes = pi2_tile_bytes(format, s.columns);
    p.unit = test_aligned_alloc((s.tile_count + 1) * p.tile_bytes);
    test_random_tiles(random, format, p.unit, s.tile_count + 1, s.columns);
    p.tiles = p.unit + p.tile_bytes;
    const size_t tokens = s.token_begin + s.token_count, columns = s.column_begin + s.columns;
    p.memory = test_aligned_alloc(test_activations_bytes(format->activation, tokens, columns));
    test_random_activations(random, &p.x, format->activation, tokens, columns, p.memory);
    p.out_count = s.token_count * p.out_stride;
    p.out = test_aligned_alloc(p.out_count * sizeof(float));
    p.want = test_aligned_alloc(p.out_count * sizeof(float));
    p.first = test_aligned_alloc(p.out_count * sizeof(float));
    for (size_t i = 0; i < p.out_count; i++) p.out[i] = p.want[i] = p.first[i] = test_random_float(random);
    return p;
}

void free_problem(problem *p) {
    free(p->unit);
    free(p->memory);
    free(p->out);
    free(p->want);
    free(p->first);
}

pi2_backend_work work_of(const problem *p, uint32_t unit) {
    return (pi2_backend_work){
        .out = p->out, .out_stride = p->out_stride, .type = p->format->type, .tiles = p->tiles,
        .tile_count = p->shape.tile_count, .tile_bytes = p->tile_bytes, .columns = p->shape.columns,
        .column_begin = p->shape.column_begin, .x = &p->x, .token_begin = p->shape.token_begin,
        .token_count = p->shape.token_count, .start = p->shape.start, .unit = unit, .unit_memory = p->unit,
        .unit_bytes = (p->shape.tile_count + 1) * p->tile_bytes, .stays = p->shape.stays };
}

void compute_want(const problem *p) {
    pi2_matmul_select(p->format->type, 0)->run(p->want, p->out_stride, p->tiles, p->shape.tile_count, p->shape.columns,
                                               p->shape.column_begin, &p->x, p->shape.token_begin,
                                               p->shape.token_count, p->shape.start);
}

void check_equal(const char *device, const problem *p) {
    for (size_t i = 0; i < p->out_count; i++) {
        if (memcmp(&p->want[i], &p->out[i], sizeof(float)) == 0 || (isnan(p->want[i]) && isnan(p->out[i]))) continue;
        fail_msg("%s, %s: tiles %zu, columns %zu from %zu, tokens %zu from %zu, start %d: float %zu is %a, want %a",
                 device, p->format->name, p->shape.tile_count, p->shape.columns, p->shape.column_begin,
                 p->shape.token_count, p->shape.token_begin, p->shape.start, i, (double)p->out[i], (double)p->want[i]);
    }
}
