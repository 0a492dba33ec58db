/* block_attention_window.c: attention of which a token sees the layer's last positions only. */
#include "blocks/block_attention.h"

const pi2_block_kind pi2_block_attention_window = {
    .name = "attention_window", .norm = PI2_TABLE_ATTENTION_NORM, .post_norm = PI2_TABLE_POST_ATTENTION_NORM,
    .attends = true, .list = pi2_attention_list, .needs = pi2_attention_needs, .run = pi2_attention_run,
};
