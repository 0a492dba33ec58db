/* inspect_sparsity.h: "inspect --sparsity": runs a model over a text and tells how many neurons give nothing. */
#ifndef PI2_CLI_INSPECT_SPARSITY_H
#define PI2_CLI_INSPECT_SPARSITY_H

#include <stdbool.h>
#include <stdint.h>

typedef struct pi2_cli_sparsity_settings {
    const char *model, *text_path;  /* text_path NULL: tokens that are drawn */
    const char *ffn_activation;     /* NULL: as the model says */
    uint32_t tokens;                /* at most */
    uint64_t memory;                /* bytes for the process; 0: what is free */
    bool json;
} pi2_cli_sparsity_settings;

/** Prints the table; returns the exit code. */
int pi2_cli_inspect_sparsity(const pi2_cli_sparsity_settings *settings);

#endif
