/* routing.c: overlaps between tokens' sets of experts, counted on bit sets. */
#include "powerinfer2/routing.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "neuron_cache/cache_trace.h"

enum { WORD_BITS = 64, LEAST_TOKENS = 8 };

/** The experts of every token that counts: sets[(layer * tokens + token) * words ..]. */
typedef struct expert_sets {
    const pi2_trace *trace;
    uint32_t tokens, words;
    uint64_t *sets;
} expert_sets;

static uint64_t *set_of(const expert_sets *all, uint32_t layer, uint32_t token) {
    return all->sets + ((size_t)layer * all->tokens + token) * all->words;
}

static uint32_t count_bits(uint64_t bits) {
    uint32_t count = 0;
    for (; bits; bits &= bits - 1) count++;
    return count;
}

static uint32_t count_common(const uint64_t *a, const uint64_t *b, uint32_t words) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < words; i++) count += count_bits(a[i] & b[i]);
    return count;
}

/** Whether a demand begins a token that was computed alone. A demand is one layer's. */
static bool is_alone(const pi2_trace *trace, uint32_t demand) {
    return trace->demands[demand].pass_tokens == 1;
}

static uint32_t layer_of(const pi2_trace *trace, uint32_t demand) {
    return trace->keys[trace->demands[demand].begin] / trace->header.expert_count;
}

/** Tokens are counted by their first layer; a trace that was cut short ends in the middle of one. */
static uint32_t count_tokens(const pi2_trace *trace) {
    uint32_t tokens = 0, layers = 0;
    for (uint32_t d = 0; d < trace->demand_count; d++) {
        if (!is_alone(trace, d)) continue;
        layers = layer_of(trace, d) == 0 ? 1 : layers + 1;
        tokens += layers == trace->header.layer_count;
    }
    return tokens;
}

static void fill_sets(expert_sets *all, uint32_t skip_tokens) {
    const pi2_trace *trace = all->trace;
    uint32_t begun = 0; /* tokens whose first layer was met */
    for (uint32_t d = 0; d < trace->demand_count; d++) {
        if (!is_alone(trace, d)) continue;
        const uint32_t layer = layer_of(trace, d);
        begun += layer == 0;
        if (begun <= skip_tokens || begun - 1 - skip_tokens >= all->tokens) continue;
        uint64_t *set = set_of(all, layer, begun - 1 - skip_tokens);
        for (uint32_t k = trace->demands[d].begin; k < trace->demands[d + 1].begin; k++) {
            const uint32_t expert = trace->keys[k] % trace->header.expert_count;
            set[expert / WORD_BITS] |= UINT64_C(1) << expert % WORD_BITS;
        }
    }
}

static int compare_descending(const void *a, const void *b) {
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static double top_quarter_share(const expert_sets *all, uint32_t layer, uint32_t *uses) {
    const uint32_t experts = all->trace->header.expert_count;
    const uint32_t quarter = experts / 4 ? experts / 4 : 1;
    uint64_t top = 0, total = 0;
    memset(uses, 0, experts * sizeof *uses);
    for (uint32_t token = 0; token < all->tokens; token++) {
        const uint64_t *set = set_of(all, layer, token);
        for (uint32_t e = 0; e < experts; e++) {
            uses[e] += (uint32_t)(set[e / WORD_BITS] >> e % WORD_BITS & 1);
        }
    }
    qsort(uses, experts, sizeof *uses, compare_descending);
    for (uint32_t e = 0; e < experts; e++) {
        total += uses[e];
        if (e < quarter) top += uses[e];
    }
    return total ? (double)top / (double)total : 0.0;
}

static pi2_routing_shares layer_shares(const expert_sets *all, uint32_t layer, uint32_t *uses) {
    const uint32_t tokens = all->tokens, far = tokens / 3;
    const double used = all->trace->header.used_count;
    uint64_t near_common = 0, far_common = 0, far_pairs = 0;
    for (uint32_t token = 1; token < tokens; token++) {
        const uint64_t *set = set_of(all, layer, token);
        near_common += count_common(set, set_of(all, layer, token - 1), all->words);
        for (uint32_t other = 0; other + far <= token; other++) {
            far_common += count_common(set, set_of(all, layer, other), all->words);
            far_pairs++;
        }
    }
    return (pi2_routing_shares){ .repeat = (double)near_common / ((tokens - 1) * used),
                                 .skew = (double)far_common / ((double)far_pairs * used),
                                 .top_quarter = top_quarter_share(all, layer, uses) };
}

static pi2_status sum_up(expert_sets *all, uint32_t skip_tokens, pi2_routing *routing) {
    const pi2_trace_header *header = &all->trace->header;
    *routing = (pi2_routing){ .layer_count = header->layer_count, .expert_count = header->expert_count,
                              .used_count = header->used_count, .token_count = all->tokens };
    const size_t sets = (size_t)header->layer_count * all->tokens;
    uint32_t *uses = calloc(header->expert_count, sizeof *uses);
    all->sets = calloc(sets * all->words, sizeof *all->sets);
    routing->layers = calloc(header->layer_count, sizeof *routing->layers);
    if (!uses || !all->sets || !routing->layers) {
        free(uses);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the experts of %u tokens", all->tokens);
    }
    fill_sets(all, skip_tokens);
    for (uint32_t layer = 0; layer < header->layer_count; layer++) {
        const pi2_routing_shares shares = layer_shares(all, layer, uses);
        routing->layers[layer] = shares;
        routing->mean.repeat += shares.repeat / header->layer_count;
        routing->mean.skew += shares.skew / header->layer_count;
        routing->mean.top_quarter += shares.top_quarter / header->layer_count;
    }
    free(uses);
    return PI2_OK;
}

static pi2_status read_sets(const char *path, uint32_t skip_tokens, const pi2_trace *trace,
                            pi2_routing *routing) {
    expert_sets all = { .trace = trace, .words = (trace->header.expert_count + WORD_BITS - 1) / WORD_BITS };
    const uint32_t found = count_tokens(trace);
    if (found < skip_tokens || found - skip_tokens < LEAST_TOKENS) {
        return pi2_fail(PI2_ERR_INVALID, "%s: %u tokens were computed one by one; %u are needed to tell how "
                        "experts repeat", path, found, skip_tokens + LEAST_TOKENS);
    }
    all.tokens = found - skip_tokens;
    const pi2_status status = sum_up(&all, skip_tokens, routing);
    free(all.sets);
    return status;
}

pi2_status pi2_routing_read(const char *trace_path, uint32_t skip_tokens, pi2_routing **routing_out) {
    *routing_out = NULL;
    pi2_trace trace;
    PI2_TRY(pi2_trace_read_experts(trace_path, &trace));
    pi2_routing *routing = calloc(1, sizeof *routing);
    pi2_status status = routing ? read_sets(trace_path, skip_tokens, &trace, routing)
                                : pi2_fail(PI2_ERR_MEMORY, "no memory for the routing");
    pi2_trace_free(&trace);
    if (status == PI2_OK) *routing_out = routing;
    else pi2_routing_free(routing);
    return status;
}

void pi2_routing_free(pi2_routing *routing) {
    if (!routing) return;
    free(routing->layers);
    free(routing);
}
