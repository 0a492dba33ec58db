/* fuzz_description.c: any bytes as a description of a device, a model and runs; what is small enough is run. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/description_file.h"
#include "cli/options.h"
#include "cli/output.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static pi2_description description;
    static FILE *nowhere;
    if (!nowhere && !(nowhere = fopen("/dev/null", "w"))) return 0;
    pi2_cli_set_log(nowhere);
    if (pi2_description_read("description", (const char *)data, size, &description) != PI2_CLI_GO_ON) return 0;
    const pi2_simulated_model *model = &description.model;
    for (uint32_t i = 0; i < description.run_count && i < 2; i++) {
        pi2_simulation simulation = description.runs[i].simulation;
        pi2_simulated_run run;
        if (simulation.tokens > 2) simulation.tokens = 2;
        if (simulation.warm_tokens > 1) simulation.warm_tokens = 1;
        if (simulation.batch > 2) simulation.batch = 2;
        if ((uint64_t)model->layers * model->experts * model->neurons > 20000) break;
        if (simulation.hot_share < 0) simulation.hot_share = 0;
        if (pi2_simulate(&description.device, model, &simulation, &run) != PI2_OK) continue;
        if (!(run.tokens_per_second > 0) || run.hit_share < 0 || run.hit_share > 1) abort();
    }
    pi2_description_free(&description);
    return 0;
}
