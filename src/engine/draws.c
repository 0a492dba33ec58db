/* draws.c: see draws.h. */
#include "engine/draws.h"

#include "kernels/vector/vector.h"

/* The mixing is SplitMix64's (Steele, Lea, Flood 2014). */
double pi2_draw_time(uint64_t number, int32_t token) {
    uint64_t bits = number + (uint64_t)(uint32_t)token * UINT64_C(0x9E3779B97F4A7C15);
    bits = (bits ^ bits >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    bits = (bits ^ bits >> 27) * UINT64_C(0x94D049BB133111EB);
    bits ^= bits >> 31;
    return -pi2_log(((double)(bits >> 12) + 0.5) * 0x1p-52); /* of a number between 0 and 1, which it never is */
}
