/* Goal: the members of a batch of activations are aligned, apart, and inside their memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/activations.h"
#include "support/random_weights.h"

#include <stdlib.h>

static void members_are_apart(void **state) {
    (void)state;
    const pi2_activation_kind kinds[] = {PI2_ACTIVATION_Q8_32, PI2_ACTIVATION_Q8_256};
    for (size_t i = 0; i < 2; i++) {
        const size_t block = i ? 256 : 32, summed = i ? 16 : 32;
        for (size_t tokens = 1; tokens <= 9; tokens += 4) {
            for (size_t columns = block; columns <= 40 * block; columns += block) {
                const size_t bytes = pi2_activations_bytes(kinds[i], tokens, columns);
                char *memory = test_aligned_alloc(bytes);
                pi2_activations x;
                pi2_activations_layout(&x, kinds[i], tokens, columns, memory);
                assert_int_equal(bytes % 64, 0);
                assert_true(x.kind == kinds[i] && x.token_count == tokens && x.columns == columns);
                assert_true(x.value_stride >= columns && x.value_stride % 64 == 0);
                assert_true(x.block_stride >= columns / block && x.block_stride % 16 == 0);
                assert_true(x.sum_stride >= columns / summed && x.sum_stride % 32 == 0);
                const char *scales = (const char *)x.scales, *sums = (const char *)x.sums;
                assert_ptr_equal(x.values, memory);
                assert_true(scales >= memory + tokens * x.value_stride);
                assert_true(sums >= scales + tokens * x.block_stride * sizeof(float));
                assert_true(sums + tokens * x.sum_stride * sizeof(int16_t) <= memory + bytes);
                assert_int_equal((uintptr_t)scales % 64, 0);
                assert_int_equal((uintptr_t)sums % 64, 0);
                free(memory);
            }
        }
    }
}

static void floats_need_no_memory(void **state) {
    (void)state;
    pi2_activations x;
    assert_int_equal(pi2_activations_bytes(PI2_ACTIVATION_F32, 5, 100), 0);
    pi2_activations_layout(&x, PI2_ACTIVATION_F32, 5, 100, NULL);
    assert_true(x.kind == PI2_ACTIVATION_F32 && x.token_count == 5 && x.columns == 100);
    assert_null(x.values);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_are_apart),
        cmocka_unit_test(floats_need_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
