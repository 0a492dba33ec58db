/* prompt_cache_options.c: the table, and the folder that it names. */
#include "prompt_cache_options.h"

#include <sys/stat.h>

#include "output.h"

#define PROMPT_CACHE(field) offsetof(pi2_cli_prompt_cache_settings, field)
static const pi2_cli_option prompt_cache_options[] = {
    {"--prompt-cache", "FOLDER", PI2_CLI_TEXT, PROMPT_CACHE(folder), NULL,
     "Keeps what was computed of prompts in this folder, in pages of 256 tokens (of recurrent models 512), and no "
     "page that is there is computed again. The text is the same. Made for you alone where it is not there; several "
     "runs may share it.", NULL, 0, 0},
    {"--prompt-cache-size", "SIZE", PI2_CLI_SIZE, PROMPT_CACHE(bytes), "4G",
     "Bytes at most that its pages have together: those go that were not used for the longest time.", NULL, 0, 0},
};

pi2_cli_section pi2_cli_prompt_cache_section(pi2_cli_prompt_cache_settings *settings) {
    const size_t count = sizeof prompt_cache_options / sizeof prompt_cache_options[0];
    return (pi2_cli_section){"Prompts that are kept", prompt_cache_options, count, settings};
}

int pi2_cli_fill_prompt_cache_options(const pi2_cli_prompt_cache_settings *settings, pi2_engine_options *options) {
    struct stat there;
    if (!settings->folder) return PI2_EXIT_OK;
    options->identifies_weights = true;
    if (stat(settings->folder, &there) != 0 || S_ISDIR(there.st_mode)) return PI2_EXIT_OK;
    return pi2_cli_usage_error("%s is no folder: name one for the prompt cache, which may be new", settings->folder);
}

int pi2_cli_open_prompt_cache(const pi2_cli_prompt_cache_settings *settings, pi2_engine *engine,
                              pi2_prompt_cache **cache_out) {
    *cache_out = NULL;
    if (!settings->folder) return PI2_EXIT_OK;
    const pi2_status status = pi2_prompt_cache_open(engine, settings->folder, settings->bytes, cache_out);
    pi2_engine_use_prompt_cache(engine, *cache_out);
    if (status == PI2_OK) return PI2_EXIT_OK;
    if (status != PI2_ERR_IO) return pi2_cli_failed(status);
    pi2_cli_note("no prompts are kept: %s", pi2_error_text());
    return PI2_EXIT_OK;
}
