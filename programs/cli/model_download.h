/* model_download.h: models by the name that they have on Hugging Face, or by a URL, kept in a cache folder. */
#ifndef PI2_CLI_MODEL_DOWNLOAD_H
#define PI2_CLI_MODEL_DOWNLOAD_H

#include <stdbool.h>

/** One of repository and url is given. */
typedef struct pi2_cli_download {
    const char *repository; /* "user/repo" or "user/repo:quant" */
    const char *file;       /* of the repository; NULL: chosen by the quant */
    const char *url;
    const char *token;      /* NULL: none */
    bool is_offline;        /* only what is in the cache */
} pi2_cli_download;

/**
 * The file of a model, after fetching it, all parts of a split one, if it is not in the cache:
 * $LLAMA_CACHE, or llama.cpp in $XDG_CACHE_HOME or ~/.cache, under the names that llama.cpp gives. It is fetched by a
 * process of its own, whose memory is gone before the model is opened.
 * *path_out: static, until the next call. Returns PI2_CLI_GO_ON, or an exit code after an error line.
 */
int pi2_cli_find_download(const pi2_cli_download *download, const char **path_out);

#endif
