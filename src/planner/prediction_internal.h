/* prediction_internal.h: what the files of the prediction share. */
#ifndef PI2_PLANNER_PREDICTION_INTERNAL_H
#define PI2_PLANNER_PREDICTION_INTERNAL_H

#include "planner/prediction.h"

/** What all functions of one prediction look at. */
typedef struct pi2_prediction_setting {
    const pi2_workload *w;
    const pi2_machine_profile *profile;
    const pi2_what_if *what_if;
} pi2_prediction_setting;

/** amount / rate; 0 where the rate is unknown. */
static inline double pi2_prediction_divide(double amount, double rate) { return rate > 0 ? amount / rate : 0; }

/** Seconds of all matrices with this role, for all of the pass's tokens. *spread grows to that of the measurements. */
double pi2_prediction_matrices(const pi2_prediction_setting *s, const pi2_pass *pass, pi2_weight_role role,
                               double *spread);
/** Seconds of all neurons of this role, for one token, computed one by one: of Up as rows, of Down, of which each gives
 *  something with the chance `gives`, as columns; of experts (PI2_ROLE_EXPERT) either way. Where the profile has no
 *  figures of it, they are as fast as whole matrices. */
double pi2_prediction_rows(const pi2_prediction_setting *s, pi2_weight_role role, double *spread);
double pi2_prediction_columns(const pi2_prediction_setting *s, pi2_weight_role role, double gives, double *spread);
/** Seconds of a predictor's rows, for one token. */
double pi2_prediction_predictor(const pi2_prediction_setting *s, double *spread);
/** Seconds that the store of neurons takes for so many of what a profile names so (PI2_MEASURED_STORE); 0 where it has
 *  no figures of that. */
double pi2_prediction_store(const pi2_prediction_setting *s, const char *name, double count, double *spread);
/** Of so many units that are not there: bringing them, and their checksums. */
double pi2_prediction_bringing(const pi2_prediction_setting *s, double units, double *spread);
/** Seconds of what lies between the matrices: attention, norms, quantising. */
double pi2_prediction_between(const pi2_prediction_setting *s, const pi2_pass *pass);
/** Seconds in which so many stages begin and end. */
double pi2_prediction_stages(const pi2_prediction_setting *s, uint32_t stages);
/** Bytes/s of reads of so many bytes, so many in flight. spread may be NULL. */
double pi2_prediction_disk(const pi2_prediction_setting *s, uint32_t block, double in_flight, double *spread);
/** Processor time that reading takes from the threads that compute: bytes in reads of `block`, so many in flight. */
double pi2_prediction_lost(const pi2_prediction_setting *s, double bytes, uint32_t block, double in_flight);

/** A pass of few tokens that reads and computes single neurons. */
pi2_pass_time pi2_predict_neuron_pass(const pi2_prediction_setting *s, const pi2_pass *pass);
/** Seconds in which the slots of neurons are filled, in long reads. */
double pi2_predict_neuron_fill(const pi2_prediction_setting *s);

#endif
