/* hexagon_reference.c: the DSP's kernels in plain C, for the host's tests: the same source without vectors. */
#include "backends/hexagon/device/hexagon_kernel.c"
