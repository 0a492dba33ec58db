/*
 * model_check.h: the one answer to "can this model be run here, and if not, why". What opens a model, plans it,
 * prepares it or tells of it asks here, so that none of them promises what another one refuses.
 */
#ifndef PI2_ENGINE_MODEL_CHECK_H
#define PI2_ENGINE_MODEL_CHECK_H

#include "architectures/model.h"
#include "tokenizer/tokenizer.h"

/**
 * Checks architecture, shape, tensors, weight types, kernels, layout, tables, tokenizer and vocabulary.
 * model_out      the model, with its tables read; NULL: it is not wanted, and nothing but the header is read
 * tokenizer_out  its tokenizer; NULL: it is not wanted
 * Errors  UNSUPPORTED, FORMAT: why it cannot run (file, tensor or key); IO, MEMORY. Both are NULL then.
 */
pi2_status pi2_model_can_run(const pi2_gguf *gguf, pi2_model **model_out, pi2_tokenizer **tokenizer_out);

/** Tries the chat template, without which a model runs all the same (--raw). note: why it cannot be used, in a line;
 *  "" when it can, or when there is none. */
void pi2_model_try_template(const pi2_gguf *gguf, const pi2_tokenizer *tokenizer, char *note, size_t capacity);

#endif
