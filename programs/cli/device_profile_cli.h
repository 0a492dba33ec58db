/* device_profile_cli.h: finding or making the device profile, with what is said about it. */
#ifndef PI2_CLI_DEVICE_PROFILE_CLI_H
#define PI2_CLI_DEVICE_PROFILE_CLI_H

#include <jansson.h>

#include "powerinfer2/plan.h"

/** Measures, with notes on stderr. Returns PI2_EXIT_OK, or the exit code after an error line. */
int pi2_cli_measure_device(const pi2_device_options *options, pi2_device_profile **profile_out);
/** Loads the kept profile; measures where there is none, or one that is damaged or outdated, and
 *  says so. Returns PI2_EXIT_OK, or the exit code after an error line. */
int pi2_cli_find_device(const pi2_device_options *options, pi2_device_profile **profile_out);
/** Measures the disk of options->disk_path, for about a second, where the profile has no figures of it or
 *  old ones, and says so. Returns PI2_EXIT_OK, or the exit code after an error line. */
int pi2_cli_find_disk(pi2_device_profile *profile, const pi2_device_options *options);
/** The same before a run that will stream, with the kept profile; does nothing where there is none. */
int pi2_cli_refresh_disk(const pi2_engine_options *options);
/** The identity as a JSON object. */
json_t *pi2_cli_device_json(const pi2_device_identity *identity);

#endif
