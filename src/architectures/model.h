/*
 * model.h: an opened model: its shape, its extent layout, where each matrix's pieces lie, and the
 * small tables, in memory. It holds no weights: those are the weight store's.
 */
#ifndef PI2_ARCHITECTURES_MODEL_H
#define PI2_ARCHITECTURES_MODEL_H

#include "architectures/architecture.h"
#include "clusters/neuron_bank.h"
#include "file_formats/cluster_file.h"

/** A piece and the extent that it lies in. */
typedef struct pi2_piece_ref {
    uint32_t piece, extent;
} pi2_piece_ref;

/** One matrix inside one group: its pieces by ascending column, then row. */
typedef struct pi2_operand {
    const pi2_layout_tensor *tensor; /* NULL: the model has no such matrix */
    uint32_t first_ref, ref_count;
    uint32_t tile_count;             /* of its rows */
    uint64_t row_base;               /* of an expert in its stacked tensor; else 0 */
    const float *scales;             /* what its results are times: of each expert, or one; NULL: nothing */
} pi2_operand;

/** A cluster of an expert: the same in every expert of its layer. */
typedef struct pi2_expert_cluster {
    uint32_t first_extent, extent_count; /* within the expert's group; extents of one cluster only */
    uint32_t first_gate, gate_count;     /* likewise its Gate's, where experts' Gates lie apart (gate_extents) */
    uint32_t neuron_begin, neuron_end;
} pi2_expert_cluster;

typedef struct pi2_layer_weights {
    union {
        pi2_operand matrices[PI2_MATRIX_LAYER_ROLES]; /* no tensor where its blocks have no such matrix */
        struct { /* the same by name, in the order of pi2_matrix_role */
            pi2_operand q, k, v, attention_output; /* fused_qkv: all three are q, and k and v have no tensor */
            pi2_operand gate, up, down;            /* of the FFN, or of expert 0, which the others are like: their
                                                      extents are as far from their group's first one, and their rows
                                                      from their first. up: no tensor in an ungated FFN, whose one
                                                      matrix before Down is `gate` */
            pi2_operand shared_gate, shared_up, shared_down; /* of the FFN beside experts */
            pi2_operand latent_query, head_keys, head_values;
            pi2_operand token_gate, token_output;
            pi2_operand laurel_input, laurel_output;
            pi2_operand mix_in, mix_gate, mix_decay, mix_strength;
            pi2_operand next_input;
        };
    };
    uint32_t ffn_group;              /* expert e is group ffn_group + e, laid out as the first */
    uint32_t shared_group;           /* of the FFN beside experts */
    uint32_t first_key;              /* of its first expert, among all layers' */
    pi2_expert_cluster *clusters; uint32_t cluster_count; /* of an expert; none in a dense layer */
    const float *tables[PI2_TABLE_LAYER_ROLES]; /* NULL where the model has none */
} pi2_layer_weights;

/** Whether its FFNs are experts. */
static inline bool pi2_layer_has_experts(const pi2_layer_weights *layer) { return layer->clusters != NULL; }

/** The FFN of a layer that every token uses: its own, or the one beside its experts; down NULL: it has none. */
typedef struct pi2_dense_ffn {
    const pi2_operand *gate, *up, *down; /* up NULL: ungated */
    uint32_t group;
} pi2_dense_ffn;
static inline pi2_dense_ffn pi2_layer_dense_ffn(const pi2_layer_weights *layer) {
    const bool is_shared = pi2_layer_has_experts(layer);
    const pi2_operand *first = &layer->matrices[is_shared ? PI2_MATRIX_SHARED_GATE : PI2_MATRIX_GATE];
    return (pi2_dense_ffn){ &first[0], first[1].tensor ? &first[1] : NULL, first[2].tensor ? &first[2] : NULL,
                            is_shared ? layer->shared_group : layer->ffn_group };
}

typedef struct pi2_model {
    pi2_model_shape shape;
    pi2_extent_layout *layout;
    bool has_file;                /* layout's extents lie in a cluster file */
    pi2_source_identity source;   /* of that file */
    pi2_neuron_banks *banks;      /* of single neurons; NULL: the file has none */
    pi2_layer_weights *layers;
    pi2_operand head;             /* also where tied embeddings are looked up */
    pi2_operand embedding;        /* tensor NULL when tied: stored as GGUF rows */
    pi2_operand token_input, token_table; /* where layers have vectors of each token: what makes them of embeddings, and
                                     a table of rows, stored as GGUF rows */
    pi2_operand stream_input, stream_output; /* where there are several residual streams: what makes them of the
                                     embedding, and one of them again */
    pi2_piece_ref *refs; uint32_t ref_count;
    const float *output_norm, *output_norm_bias, *rope_factors; /* the last two may be NULL */
    const float *token_norm;      /* [token_length]; NULL: there are no such vectors */
    const float *positions;       /* [learned_positions + PI2_POSITION_OFFSET][embedding_length]; NULL: rotary ones */
    const float *token_ids;       /* [vocabulary_size]: whose logits the head's rows are; NULL: their own */
    float *table_memory; size_t table_bytes;
    uint64_t parameter_count;
} pi2_model;

/**
 * Builds the model of a GGUF (laying its extents out) or of a cluster file (reading its layout).
 * Reads the tables; keeps no pointer into gguf.
 * Errors  FORMAT, UNSUPPORTED (architecture, weight type, tensor), IO, MEMORY
 */
pi2_status pi2_model_create(const pi2_gguf *gguf, pi2_model **model_out);
/** Builds a model of one layer, that of a GGUF which guesses a further token (pi2_decoder_find_next()), with the head;
 *  or of a file that is such a layer (pi2_architecture_guesses()). Its passes want what the model that it guesses for
 *  gave for the token before each (pi2_batch.given).
 *  Errors  as above; FORMAT (there is none) */
pi2_status pi2_model_create_next(const pi2_gguf *gguf, pi2_model **model_out);
/** Whether pi2_model_create() would succeed, by the header alone. vocabulary_size_out: rows of the embedding.
 *  Errors  FORMAT, UNSUPPORTED, MEMORY */
pi2_status pi2_model_check(const pi2_gguf *gguf, uint32_t *vocabulary_size_out);
void pi2_model_free(pi2_model *model);

/** Collects the pieces of `request`'s tensor number `which` inside the group.
 *  Errors  FORMAT */
pi2_status pi2_model_operand_build(pi2_model *model, const pi2_group *group, const pi2_group_request *request,
                                   uint32_t which, pi2_operand *operand_out);

/**
 * Fills in a layer's experts from its groups. The layout may come from a file: every piece is
 * checked to lie where the pipeline will look for it. model_experts.c
 * Errors  FORMAT, MEMORY
 */
pi2_status pi2_model_experts_build(pi2_model *model, uint32_t first_group, const pi2_group_request *request);

/** Asks for the scales that matrices have beside them. model_scales.c */
void pi2_model_list_scales(const pi2_tensor_directory *model, const pi2_architecture *architecture,
                           pi2_model_requests *requests);
/** That no bias and no norm of the file is left out. Errors UNSUPPORTED. model_left_over.c */
pi2_status pi2_model_check_left_over(const pi2_tensor_directory *directory, const pi2_model_shape *shape,
                                     const pi2_model_requests *requests);
/** That no matrix has a scale beside it which the model does not ask for. Errors UNSUPPORTED. model_scales.c */
pi2_status pi2_model_check_scales(const pi2_tensor_directory *directory, const pi2_model_shape *shape,
                                  const pi2_model_requests *requests);

/** Memory that the model's lists and tables hold. */
size_t pi2_model_memory_bytes(const pi2_model *model);

#endif
