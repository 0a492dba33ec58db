/* layout.h: how a cluster file lays a model's weights out. */
#ifndef POWERINFER2_LAYOUT_H
#define POWERINFER2_LAYOUT_H

typedef enum pi2_layout_kind {
    PI2_LAYOUT_DENSE,  /* clusters of neurons, whole: for models that use every neuron */
    PI2_LAYOUT_NEURON, /* Gate apart, and single neurons beside: for models with neurons that are zero */
    PI2_LAYOUT_BUNDLE, /* the same, and Gate beside Up and Down in each neuron: for runs with a predictor */
    PI2_LAYOUT_AUTO    /* for preparing: NEURON where tokens are computed by neuron (docs/sparsity.md), else DENSE */
} pi2_layout_kind;

#endif
