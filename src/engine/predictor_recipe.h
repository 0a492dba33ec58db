/* predictor_recipe.h: how a predictor is made of a cluster file's weights (pi2_run_plan.predictor_recipe). */
#ifndef PI2_ENGINE_PREDICTOR_RECIPE_H
#define PI2_ENGINE_PREDICTOR_RECIPE_H

#include "powerinfer2/engine.h"
#include "predictor/svd_make.h"

typedef struct pi2_predictor_recipe {
    uint32_t bits;                    /* of copies; 0: an svd */
    uint32_t rank;                    /* these of an svd: as in pi2_svd_request */
    double recall;
    const pi2_svd_samples *samples;
} pi2_predictor_recipe;

/** Finds the weights, makes the predictor at output_path (NULL: where runs look for copies), and tells where in
 *  *path_out, malloc'd. Errors  as pi2_predictor_make() */
pi2_status pi2_predictor_make_by(const pi2_engine_options *options, const pi2_predictor_recipe *recipe,
                                 const char *output_path, char **path_out);

#endif
