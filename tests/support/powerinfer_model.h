/*
 * powerinfer_model.h: what the files of PowerInfer have in place of an ordinary Down, and beside it, written
 * from the facts of that format (docs/sparsity.md). For tiny_model.c.
 */
#ifndef PI2_TESTS_SUPPORT_POWERINFER_MODEL_H
#define PI2_TESTS_SUPPORT_POWERINFER_MODEL_H

#include "support/tiny_model.h"

/**
 * Adds a layer's Down, whose values are drawn neuron by neuron: as ffn_down_t of down_type in a PowerInfer file
 * (predictor_rank > 0), else the same values as an ordinary ffn_down, F32 where down_type has blocks.
 */
void pi2_powerinfer_add_down(const pi2_tiny_model_options *options, pi2_gguf_builder *builder, uint32_t layer);

/** Adds fc1 (rank x embedding) and fc2 (neurons x rank), F16. */
void pi2_powerinfer_add_predictor(const pi2_tiny_model_options *options, pi2_gguf_builder *builder, uint32_t layer);

#endif
