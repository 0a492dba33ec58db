/* draft_chances.c: see draft_chances.h. */
#include "engine/draft_chances.h"

#include "engine/next_table_file.h"
#include "kernels/vector/vector.h"

static const float learning = 0.05f;

/* Fitted to 40 answers of TinyLlama and SmolLM2, greedy and drawn (bench/EXPERIMENTS.md); a run soon knows better. */
static const pi2_draft_weights start_alone = {
    .base = -0.74f,
    .of = {
        { -2.18f, -0.45f, -0.53f, -0.61f, -0.65f, 0.79f, 0.10f, 0.00f, -0.10f, 1.00f, 0.20f, 0.10f, 0.01f, 2.39f, 0.80f,
          0.40f, 0.20f, 3.19f, 1.60f, 1.20f, 1.00f, 3.69f, 2.10f, 1.70f, 1.50f, 4.19f, 2.60f, 2.20f, 2.00f, 4.59f,
          3.00f, 2.60f, 2.40f },
        { -1.25f, 1.25f, 1.20f, 1.15f, 0.54f, 0.19f, -0.36f, -0.71f, -0.90f, -1.00f, -1.10f, -1.20f, -1.30f, 0.10f },
        { -0.63f, 1.03f, 0.53f, 0.45f, 0.47f, 0.30f, 0.00f, -0.25f, -0.30f, -0.35f, -0.48f, -0.50f, -0.68f },
        { -0.45f, 0.10f, 0.20f, 0.32f, 0.34f, 0.32f, 0.07f, 0.05f, -0.02f, -0.10f, -0.10f, -0.16f, -0.22f, -0.27f },
        { 0.00f, -0.57f, -0.88f, -0.70f, -0.51f, -0.19f, 0.25f, 0.68f, 1.26f, 1.46f, 1.72f, 1.85f, 2.44f, 2.49f },
    },
};

/* Where a drafter that computes was asked: of SmolLM2 and its Q3_K_S (bench/EXPERIMENTS.md). */
static const pi2_draft_weights start_beside = {
    .base = -1.0f,
    .of = {
        { -0.5f, -0.2f, -0.2f, -0.2f, -0.2f, 0.3f, 0.1f, 0.0f, 0.0f, 0.5f, 0.2f, 0.1f, 0.0f, 0.9f, 0.5f, 0.3f, 0.2f,
          1.2f, 0.8f, 0.6f, 0.5f, 1.5f, 1.0f, 0.9f, 0.8f, 1.8f, 1.2f, 1.1f, 1.0f, 2.0f, 1.4f, 1.3f, 1.2f },
        { -0.2f, 0.6f, 0.4f, 0.3f, 0.3f, 0.2f, 0.1f, 0.0f, -0.1f, -0.2f, -0.2f, -0.2f, -0.3f, 0.0f },
        { -0.3f, 1.6f, 1.2f, 0.6f, 0.3f, 0.2f, -0.2f, -0.2f, -0.4f, -0.4f, -0.5f, -0.5f, -0.4f },
        { 0.0f },
        { 0.0f },
        { 0.0f, 4.2f, 3.7f, 3.2f, 2.3f, 1.9f, 1.4f, 0.5f, 0.2f, -0.7f, -1.1f, -1.9f, -2.6f, -2.9f, -2.9f, -3.4f, 3.8f,
          3.2f, 2.4f, 1.9f, 1.2f, 0.7f, 0.4f, -0.1f, -0.8f, -1.4f, -1.7f, -2.1f, -2.5f, -2.8f, -3.2f, -3.3f },
    },
};

void pi2_draft_chances_begin(pi2_draft_chances *chances) {
    chances->alone = start_alone;
    chances->beside = start_beside;
}

uint8_t pi2_draft_chance_class(uint32_t unlikeliness) {
    const uint32_t halvings = unlikeliness / PI2_NEXT_STEPS;
    return (uint8_t)(1 + (halvings < 11 ? halvings : 11));
}

uint8_t pi2_draft_time_class(double time) {
    /* e^(2 - k / 1.6), k from 1 on */
    static const double ends[] = { 3.955, 2.117, 1.133, 0.6065, 0.3247, 0.1738, 0.09301, 0.04979, 0.02665, 0.01426,
                                   0.007635, 0.004087 };
    uint8_t class = 1;
    while (class <= sizeof ends / sizeof ends[0] && time < ends[class - 1]) class++;
    return class;
}

uint8_t pi2_draft_sure_class(float sure, bool is_drawn) {
    static const float ends[] = { 0.98f, 0.93f, 0.85f, 0.72f, 0.55f, 0.4f, 0.27f, 0.17f, 0.1f, 0.06f, 0.035f, 0.02f,
                                  0.01f, 0.005f };
    enum { ENDS = sizeof ends / sizeof ends[0] };
    uint8_t class = 1;
    while (class <= ENDS && sure < ends[class - 1]) class++;
    return is_drawn ? (uint8_t)(class + ENDS + 1) : class;
}

static float chance_by(const pi2_draft_weights *weights, const pi2_draft_classes *classes) {
    float odds = weights->base;
    for (int source = 0; source < PI2_DRAFT_SOURCES; source++) odds += weights->of[source][classes->of[source]];
    return 1 / (1 + pi2_expf(-odds));
}

float pi2_draft_chance(const pi2_draft_chances *chances, const pi2_draft_classes *classes) {
    return chance_by(classes->of[PI2_DRAFT_FROM_DRAFT] ? &chances->beside : &chances->alone, classes);
}

void pi2_draft_chances_learn(pi2_draft_chances *chances, const pi2_draft_classes *classes, bool is_right) {
    pi2_draft_weights *weights = classes->of[PI2_DRAFT_FROM_DRAFT] ? &chances->beside : &chances->alone;
    const float change = learning * ((is_right ? 1.0f : 0.0f) - chance_by(weights, classes));
    weights->base += change;
    for (int source = 0; source < PI2_DRAFT_SOURCES; source++) weights->of[source][classes->of[source]] += change;
}
