/* model_file.h: what can be done with a model file without running it. */
#ifndef POWERINFER2_MODEL_FILE_H
#define POWERINFER2_MODEL_FILE_H

#include "powerinfer2/engine.h"
#include "powerinfer2/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pi2_model_file pi2_model_file;

/** Opens and checks a GGUF or cluster file's header. Errors FORMAT, IO, MEMORY. */
PI2_API pi2_status pi2_model_file_open(const char *path, pi2_model_file **file_out);
PI2_API void pi2_model_file_close(pi2_model_file *file);

/** Summary: strings live as long as the file. Fields that the file does not tell are 0 or "". */
typedef struct pi2_model_summary {
    const char *architecture, *name, *weight_types, *tokenizer;
    bool is_powerinfer;               /* a file of PowerInfer (PWRI) */
    bool is_cluster_file, runnable;   /* runnable: pi2_engine_open() refuses it for nothing but memory and reading */
    const char *not_runnable_reason;  /* why it would; "" when runnable */
    const char *note;                 /* why the chat template cannot be used, or "" */
    const char *ffn_activation;       /* "" when its architecture or activation is not ours */
    bool ffn_is_ungated;              /* of one matrix, not of Gate and Up; false too when it is not runnable */
    uint64_t file_bytes, weight_bytes, parameter_count; /* weights, parameters: without predictors */
    uint32_t file_count, tensor_count, metadata_count;
    uint32_t layer_count, embedding_length, feed_forward_length, head_count, head_count_kv;
    uint32_t context_length, vocabulary_size, expert_count, expert_used_count;
    uint64_t cache_bytes_per_token;   /* key-value cache, F16 */
    uint32_t group_count, extent_count, cluster_neurons; /* cluster files */
    uint32_t bank_count, banks_left_out;  /* neuron layout: layers or experts with a bank, and without */
    uint64_t bank_unit_count, bank_bytes, bank_head_bytes; /* bank_bytes: of units; heads are apart */
    uint32_t predictor_matrix_count;  /* fc1 and fc2 of a PowerInfer file, or of a cluster file made from one */
    uint64_t predictor_bytes, predictor_rank_least, predictor_rank_most; /* rank: rows of fc1, columns of fc2 */
    const char *left_out;             /* which have none, because of a weight that is infinite, no number or minute */
} pi2_model_summary;
PI2_API const pi2_model_summary *pi2_model_file_summary(const pi2_model_file *file);

typedef struct pi2_tensor_info {
    const char *name, *type;
    uint64_t dimensions[4];
    uint32_t dimension_count;
    uint64_t bytes, file_offset;
    uint32_t file_index;
} pi2_tensor_info;
PI2_API pi2_status pi2_model_file_tensor(const pi2_model_file *file, uint32_t index, pi2_tensor_info *info_out);

/** Metadata entry as text: long arrays and strings are cut at `capacity` and end in "...". */
PI2_API pi2_status pi2_model_file_metadata(const pi2_model_file *file, uint32_t index, const char **key_out,
                                           size_t *key_length_out, char *text_out, size_t capacity);

/** Reads a cluster file wholly and checks every checksum, and that its neurons are those of its tiles. Errors FORMAT
 *  names extent, tensor, offset. */
PI2_API pi2_status pi2_model_file_verify(const pi2_model_file *file, const pi2_callbacks *callbacks);

/** Tokenizes with the file's vocabulary, without loading weights. add_special: the beginning-of-sequence token
 *  where the model's text begins with it. tokens_out: free(). */
PI2_API pi2_status pi2_model_file_tokenize(pi2_model_file *file, const char *text, size_t length, bool add_special,
                                           bool parse_special, int32_t **tokens_out, size_t *count_out);

/** The same of a text that is read in parts, as pi2_engine_tokenize_parts() does it: its memory does not grow with
 *  the text. Errors  as there */
PI2_API pi2_status pi2_model_file_tokenize_parts(pi2_model_file *file, pi2_text_reader *reader, void *reader_user,
                                                 bool add_special, bool parse_special, pi2_token_taker *taker,
                                                 void *taker_user);

/** Tokens that a model's text begins and ends with by its metadata (add_bos_token, add_eos_token); -1: none. */
PI2_API pi2_status pi2_model_file_text_ends(pi2_model_file *file, int32_t *begin_out, int32_t *end_out);

typedef struct pi2_prepare_options {
    const char *model_path;
    const char *output_path;   /* NULL: beside the model, else the cache folder */
    uint64_t memory_bytes;     /* 0: 256 MB or what is free */
    const char *ffn_activation; /* written into the file, as in pi2_engine_options; NULL: as the model says */
    bool overwrite;            /* make it anew, in place of any file but the model's own */
    pi2_layout_kind layout;
    const char *statistics_path; /* neuron layout: which neurons fire often; NULL: unknown */
    pi2_callbacks callbacks;
} pi2_prepare_options;
/**
 * Writes the cluster file of a model that can be run. path_out: malloc'd path of the result, free(); may be NULL.
 * Errors  UNSUPPORTED, FORMAT (why it cannot be run: nothing is written), INVALID (what lies at output_path may not
 *         be replaced), IO, MEMORY, INTERRUPTED
 */
PI2_API pi2_status pi2_prepare_file(const pi2_prepare_options *options, char **path_out);

#ifdef __cplusplus
}
#endif
#endif
