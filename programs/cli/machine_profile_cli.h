/* machine_profile_cli.h: finding or making the machine profile, with what is said about it. */
#ifndef PI2_CLI_DEVICE_PROFILE_CLI_H
#define PI2_CLI_DEVICE_PROFILE_CLI_H

#include <jansson.h>

#include "powerinfer2/engine.h"
#include "powerinfer2/plan.h"

/** Measures, with notes on stderr. Returns PI2_EXIT_OK, or the exit code after an error line. */
int pi2_cli_measure_machine(const pi2_machine_options *options, pi2_machine_profile **profile_out);
/** Loads the kept profile; measures where there is none, or one that is damaged or outdated, and
 *  says so. Returns PI2_EXIT_OK, or the exit code after an error line. */
int pi2_cli_find_machine(const pi2_machine_options *options, pi2_machine_profile **profile_out);
/** Measures the disk of options->disk_path, for about a second, where the profile has no figures of it or
 *  old ones, and says so. Returns PI2_EXIT_OK, or the exit code after an error line. */
int pi2_cli_find_disk(pi2_machine_profile *profile, const pi2_machine_options *options);
/** The same before a run that will stream, with the kept profile; does nothing where there is none. */
int pi2_cli_refresh_disk(const pi2_engine_options *options);
/** Opens an engine with what the kept profile knows of this machine, if there is one. Errors as pi2_engine_open(). */
pi2_status pi2_cli_open_engine(const pi2_engine_options *options, pi2_engine **engine_out);
/** The identity as a JSON object. */
json_t *pi2_cli_machine_json(const pi2_machine_identity *identity);

#endif
