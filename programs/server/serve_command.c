/* serve_command.c: "powerinfer2 serve": the model behind HTTP, until a signal ends it. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/answer_options.h"
#include "cli/commands.h"
#include "cli/json_bounds.h"
#include "cli/machine_profile_cli.h"
#include "cli/output.h"
#include "cli/signals.h"
#include "cli/template_file.h"

#include "server.h"
#ifdef PI2_HAVE_MICROHTTPD
#include "http_library.h"
#endif

enum { MOST_KEYS = 64, KEY_FILE_BYTES = 65536 };

typedef struct serve_settings {
    const char *models, *host, *alias, *api_key, *api_key_file, *chat_template, *template_kwargs, *certificate,
        *private_key;
    pi2_cli_texts origins;
    int64_t port, parallel, queue, timeout, request_timeout, limit, idle_seconds;
} serve_settings;

#define SERVE(field) offsetof(serve_settings, field)
static const pi2_cli_option serve_options[] = {
    {"--host", "NAME", PI2_CLI_TEXT, SERVE(host), "127.0.0.1",
     "Where to listen: a name or an address; 0.0.0.0: on every network. Only this machine otherwise.",
     "LLAMA_ARG_HOST", 0, 0},
    {"--port", "N", PI2_CLI_INTEGER, SERVE(port), "8080", "Port; 0: one that is free, which is told.",
     "LLAMA_ARG_PORT", 0, 65535},
    {"--api-key", "KEY[,KEY]", PI2_CLI_TEXT, SERVE(api_key), NULL,
     "Only requests with this key are answered (Authorization: Bearer KEY, or X-Api-Key), but for /health, the "
     "models' list and the page. Others on this machine can see it: --api-key-file keeps it from them.",
     "LLAMA_API_KEY", 0, 0},
    {"--api-key-file", "FILE", PI2_CLI_TEXT, SERVE(api_key_file), NULL, "Keys from a file, one a line.", NULL, 0, 0},
    {"--ssl-cert-file", "FILE", PI2_CLI_TEXT, SERVE(certificate), NULL,
     "HTTPS, with this certificate (PEM; others that lead to a known one behind it).", "LLAMA_ARG_SSL_CERT_FILE", 0, 0},
    {"--ssl-key-file", "FILE", PI2_CLI_TEXT, SERVE(private_key), NULL, "The certificate's private key (PEM).",
     "LLAMA_ARG_SSL_KEY_FILE", 0, 0},
    {"--cors-origins", "ORIGIN", PI2_CLI_TEXTS, SERVE(origins), NULL,
     "Web pages of this origin, such as https://example.org, may ask. May be given again. Otherwise only the "
     "server's own.", NULL, 0, 0},
    {"--models, --models-dir", "FOLDER", PI2_CLI_TEXT, SERVE(models), NULL,
     "In place of -m: the folder's GGUF files, of which one at a time is in memory: the one that a request names "
     "(\"model\": the file's name without .gguf).", "LLAMA_ARG_MODELS_DIR", 0, 0},
    {"--idle-unload", "SECONDS", PI2_CLI_INTEGER, SERVE(idle_seconds), "0",
     "With --models: a model that nobody has asked for so long gives its memory back; 0: never.", NULL, 0, 31536000},
    {"-a, --alias", "NAME", PI2_CLI_TEXT, SERVE(alias), NULL,
     "The model's name for clients. Otherwise that of its file.", "LLAMA_ARG_ALIAS", 0, 0},
    {"-np, --parallel", "N", PI2_CLI_INTEGER, SERVE(parallel), "1",
     "Requests that are answered at the same time, in common passes over the weights; each has a context of -c tokens "
     "of its own.", "LLAMA_ARG_N_PARALLEL", 1, PI2_SEQUENCES_MOST},
    {"--queue", "N", PI2_CLI_INTEGER, SERVE(queue), "16",
     "Requests that wait at most while others are answered; more are refused (503).", NULL, 0, 1024},
    {"-to, --timeout", "SECONDS", PI2_CLI_INTEGER, SERVE(timeout), "600",
     "A connection is closed when its client neither sends nor takes a byte for so long.", "LLAMA_ARG_TIMEOUT", 1,
     86400},
    {"--request-timeout", "SECONDS", PI2_CLI_INTEGER, SERVE(request_timeout), "0",
     "A request that is not answered so long after it came ends, whether it waits (503) or is computed (504); 0: none "
     "does.", NULL, 0, 31536000},
    {"-n, --predict, --n-predict", "N", PI2_CLI_INTEGER, SERVE(limit), "-1",
     "Tokens of an answer at most where a request does not say; -1: until the model ends it or the context is full.",
     "LLAMA_ARG_N_PREDICT", -2, INT32_MAX},
    {"--chat-template, --chat-template-file", "FILE|NAME", PI2_CLI_TEXT, SERVE(chat_template), NULL,
     PI2_CLI_CHAT_TEMPLATE_HELP, NULL, 0, 0},
    {"--chat-template-kwargs", "JSON", PI2_CLI_TEXT, SERVE(template_kwargs), NULL,
     "Variables for the chat template, as a JSON object; those of a request (chat_template_kwargs) go first.", NULL, 0,
     0},
};

static const pi2_cli_option unused_options[] = {
    {"--threads-http", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"-cb, --cont-batching", NULL, PI2_CLI_SILENT, 0, NULL, "", NULL, 0, 0},
    {"--cache-prompt", NULL, PI2_CLI_SILENT, 0, NULL, "", NULL, 0, 0},
    {"--metrics", NULL, PI2_CLI_SILENT, 0, NULL, "", NULL, 0, 0},
    {"--slots", NULL, PI2_CLI_SILENT, 0, NULL, "", NULL, 0, 0},
    {"--props", NULL, PI2_CLI_SILENT, 0, NULL, "", NULL, 0, 0},
};

typedef struct serve_state {
    serve_settings settings;
    pi2_cli_answer_settings asked;
    char *chat_template, *key_text; /* malloc'd; keys lie in key_text */
    char *certificate, *private_key; /* the same: PEM texts */
    json_t *alias;                  /* the model's name as UTF-8, which a file's name need not be; not of a folder's */
    const char *keys[MOST_KEYS];
    pi2_server_settings server;
    pi2_scheduler_watch watch;
    const pi2_engine_options *options;
    pi2_held_model held;      /* the one model */
    pi2_model_opener opener;  /* of a folder's */
} serve_state;

/** What would be one model's, or written by each anew, goes with one model alone. */
static int check_folder(const serve_state *state) {
    const serve_settings *settings = &state->settings;
    const pi2_cli_model_settings *model = &state->asked.model;
    const struct { const char *option; bool is_given; } others[] = {
        {"-m", model->model != NULL}, {"-hf", model->hf_repository != NULL}, {"--model-url", model->model_url != NULL},
        {"--alias", settings->alias != NULL}, {"--cluster-file", model->cluster_file != NULL},
        {"--record-trace", model->record_trace != NULL}, {"--trace", state->asked.trace.trace != NULL},
        {"--stats", state->asked.trace.stats != NULL}, {"--guard", state->asked.guard.guard != NULL}};
    if (!settings->models && settings->idle_seconds) {
        return pi2_cli_usage_error("serve: --idle-unload goes with --models, not with one model");
    }
    for (size_t i = 0; settings->models && i < sizeof others / sizeof others[0]; i++) {
        if (others[i].is_given) {
            return pi2_cli_usage_error("serve: --models and %s exclude each other", others[i].option);
        }
    }
    DIR *folder = settings->models ? opendir(settings->models) : NULL;
    if (settings->models && !folder) return pi2_cli_io_error("--models %s", settings->models);
    if (folder) (void)closedir(folder);
    return PI2_EXIT_OK;
}

#ifndef PI2_HAVE_MICROHTTPD
static int run(serve_state *state, pi2_engine_options *options) {
    (void)state;
    (void)options;
#ifdef PI2_STATIC_PROGRAM
    return pi2_cli_usage_error("serve: this build has no server, because it is linked statically: build it where it "
                               "shall serve (make build)");
#else
    return pi2_cli_usage_error("serve: built without libmicrohttpd: install it (scripts/setup.sh build) and build "
                               "again");
#endif
}
#else
/** Adds the keys that separators part; the text is cut in place. */
static int add_keys(serve_state *state, char *text, const char *separators) {
    for (char *key = text + strspn(text, separators); *key;) {
        char *end = key + strcspn(key, separators);
        char *next = end + strspn(end, separators);
        *end = '\0';
        if (state->server.key_count == MOST_KEYS) return pi2_cli_usage_error("more than %d keys", MOST_KEYS);
        state->keys[state->server.key_count++] = key;
        key = next;
    }
    state->server.keys = state->keys;
    return PI2_EXIT_OK;
}

/** Reads a file of keys, or of a certificate, whole: one that is cut would be another one. */
static int read_key_file(const char *path, char **text_out) {
    size_t length = 0;
    const int code = pi2_cli_read_text(path, KEY_FILE_BYTES + 1, text_out, &length);
    if (code != PI2_EXIT_OK || length <= KEY_FILE_BYTES) return code;
    return pi2_cli_usage_error("%s has more than %d bytes, which is too long for keys or a certificate", path,
                               KEY_FILE_BYTES);
}

static int read_keys(serve_state *state) {
    const serve_settings *settings = &state->settings;
    if (settings->api_key && settings->api_key_file) {
        return pi2_cli_usage_error("serve: --api-key and --api-key-file exclude each other");
    }
    if (!settings->api_key && !settings->api_key_file) return PI2_EXIT_OK;
    int code = PI2_EXIT_OK;
    if (settings->api_key_file) {
        code = read_key_file(settings->api_key_file, &state->key_text);
    } else {
        state->key_text = strdup(settings->api_key);
    }
    if (code != PI2_EXIT_OK) return code;
    if (!state->key_text) return pi2_cli_usage_error("serve: no memory for the keys");
    code = add_keys(state, state->key_text, settings->api_key_file ? "\r\n \t" : ",");
    if (code == PI2_EXIT_OK && state->server.key_count == 0) {
        return pi2_cli_usage_error("serve: %s holds no key: everybody could ask",
                                   settings->api_key_file ? settings->api_key_file : "--api-key");
    }
    return code;
}

/** The texts by which HTTPS is spoken. */
static int read_certificate(serve_state *state) {
    const serve_settings *settings = &state->settings;
    if (!settings->certificate && !settings->private_key) return PI2_EXIT_OK;
    if (!settings->certificate || !settings->private_key) {
        return pi2_cli_usage_error("serve: HTTPS needs both --ssl-cert-file and --ssl-key-file");
    }
    if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES) {
        return pi2_cli_usage_error("serve: this libmicrohttpd is built without TLS: put a proxy before the server");
    }
    int code = read_key_file(settings->certificate, &state->certificate);
    if (code == PI2_EXIT_OK) code = read_key_file(settings->private_key, &state->private_key);
    state->server.certificate = state->certificate;
    state->server.private_key = state->private_key;
    return code;
}

/** What the server needs to know, of the options. */
static int fill_server(serve_state *state) {
    const serve_settings *settings = &state->settings;
    pi2_server_settings *server = &state->server;
    server->host = settings->host;
    server->port = (uint16_t)settings->port;
    server->origins = &settings->origins;
    server->template_kwargs = settings->template_kwargs;
    server->queue_most = (size_t)settings->queue;
    server->parallel = (size_t)settings->parallel;
    server->timeout_seconds = (unsigned)settings->timeout;
    server->request_seconds = (unsigned)settings->request_timeout;
    server->body_bytes = pi2_json_text_bytes(state->asked.size.memory);
    server->limit = settings->limit == -2 ? -1 : settings->limit;
    int code = pi2_cli_fill_sampling(&state->asked.sampling, &server->sampling);
    if (code != PI2_EXIT_OK) return code;
    for (size_t i = 0; i < settings->origins.count; i++) {
        if (strcmp(settings->origins.items[i], "*") == 0) {
            return pi2_cli_usage_error("serve: --cors-origins: name the origins: \"*\" would let every page in a "
                                       "browser on this machine ask");
        }
    }
    code = read_certificate(state);
    if (code == PI2_EXIT_OK) code = read_keys(state);
    if (code == PI2_EXIT_OK && server->key_count == 0 && !pi2_server_is_loopback(server->host)) {
        pi2_cli_warn("everybody who reaches %s may ask: --api-key or --api-key-file wants a key of them", server->host);
    }
    return code;
}

static bool is_cancelled(void *user) { return pi2_cli_interrupted() || pi2_scheduler_is_cancelled(user); }

/** The program shows how the model is opened; of a prompt the client is told. */
static void on_progress(void *user, const char *what, uint64_t done, uint64_t total) {
    if (!pi2_scheduler_note_progress(user, what, done, total)) pi2_cli_progress(what, done, total);
}

static int open_engine(serve_state *state, pi2_engine_options *options, pi2_held_model *held) {
    options->beside_bytes = pi2_server_beside_bytes(&state->server);
    pi2_scheduler_plan(options, (uint32_t)state->settings.parallel, state->server.queue_most);
    options->beside_session_bytes += pi2_grammar_session_bytes();
    options->beside_session_bytes += pi2_server_connection_bytes();
    options->callbacks.user = &state->watch;
    options->callbacks.cancelled = is_cancelled;
    options->callbacks.progress = on_progress;
    int code = pi2_cli_fill_prompt_cache_options(&state->asked.prompt_cache, options);
    if (code == PI2_EXIT_OK) code = pi2_cli_refresh_disk(options);
    if (code == PI2_EXIT_OK) code = pi2_cli_open_within_guard(&state->asked.guard, options, &held->engine);
    if (code == PI2_EXIT_OK) code = pi2_cli_open_prompt_cache(&state->asked.prompt_cache, held->engine, &held->cache);
    if (code != PI2_EXIT_OK) return code;
    const pi2_status status =
        pi2_scheduler_create(held->engine, &state->watch, state->server.queue_most, &held->scheduler);
    if (status == PI2_OK) return PI2_EXIT_OK;
    if (*pi2_error_text()) return pi2_cli_failed(status);
    (void)pi2_cli_usage_error("serve: no memory to answer with");
    return PI2_EXIT_MEMORY;
}

/** Its scheduler, if any, was stopped. */
static void close_held(pi2_held_model *held) {
    pi2_scheduler_free(held->scheduler);
    pi2_prompt_cache_close(held->cache);
    pi2_engine_close(held->engine);
    *held = (pi2_held_model){0};
}

/* ---- a folder's models ---- */

/** The error's text as clients read it: without the folder, which is nothing to them. */
static void tell_reason(const char *folder, const char *text, char *reason) {
    const size_t folder_length = strlen(folder);
    size_t length = 0;
    while (*text && length + 1 < PI2_MODEL_REASON_BYTES) {
        if (strncmp(text, folder, folder_length) == 0 && text[folder_length] == '/') text += folder_length + 1;
        else reason[length++] = *text++;
    }
    reason[length] = '\0';
}

static bool open_held(void *user, const char *path, pi2_held_model *held, char *reason) {
    serve_state *state = user;
    pi2_engine_options options = *state->options;
    options.model_path = path;
    state->watch.is_stopping = false;
    if (open_engine(state, &options, held) == PI2_EXIT_OK) {
        pi2_cli_note("%s is loaded", path);
        return true;
    }
    const char *text = held->engine ? "the server's error line says why" : pi2_error_text();
    tell_reason(state->settings.models, text, reason);
    close_held(held);
    return false;
}

static void close_model(void *user, pi2_held_model *held) {
    (void)user;
    close_held(held);
}

/* ---- serving ---- */

/** Opens the one model, whose name for clients is its file's, or another that was given. */
static int open_model(serve_state *state, pi2_engine_options *options, pi2_server *server) {
    const char *path = options->model_path, *slash = strrchr(path, '/');
    const char *alias = state->settings.alias ? state->settings.alias : slash ? slash + 1 : path;
    state->alias = pi2_cli_json_text(alias, strlen(alias));
    if (!state->alias) return pi2_cli_usage_error("serve: no memory for the model's name");
    const int code = open_engine(state, options, &state->held);
    if (code != PI2_EXIT_OK) return code;
    pi2_server_open(server, state->held.engine, state->held.scheduler, json_string_value(state->alias));
    return PI2_EXIT_OK;
}

static int open_folder(serve_state *state, pi2_engine_options *options, pi2_server *server) {
    const pi2_server_settings *settings = &state->server;
    const int code = pi2_cli_fill_prompt_cache_options(&state->asked.prompt_cache, options);
    if (code != PI2_EXIT_OK) return code;
    state->options = options;
    state->opener = (pi2_model_opener){state, open_held, close_model, state->settings.models,
                                       (unsigned)state->settings.idle_seconds,
                                       settings->queue_most + settings->parallel};
    if (pi2_server_open_folder(server, &state->opener)) return PI2_EXIT_OK;
    (void)pi2_cli_usage_error("serve: no memory to answer with");
    return PI2_EXIT_MEMORY;
}

static void tell_address(const serve_state *state, const pi2_server *server) {
    const bool is_ipv6 = strchr(state->server.host, ':') != NULL;
    char what[64] = "";
    if (state->held.engine) {
        (void)snprintf(what, sizeof what, ", context of %u tokens%s",
                       (unsigned)pi2_engine_get_report(state->held.engine)->context_tokens,
                       state->settings.parallel > 1 ? " for each of several requests" : "");
    }
    pi2_cli_note("listening on http%s://%s%s%s:%u (%s%s)", state->certificate ? "s" : "", is_ipv6 ? "[" : "",
                 state->server.host, is_ipv6 ? "]" : "", (unsigned)pi2_server_port(server),
                 state->alias ? json_string_value(state->alias) : state->settings.models, what);
}

/** Serves until a signal comes. */
static int serve(serve_state *state, pi2_engine_options *options) {
    pi2_server *server = NULL;
    int code = pi2_server_start(&state->server, &server);
    if (code != PI2_EXIT_OK) return code;
    pi2_cli_catch_signals();
    code = state->settings.models ? open_folder(state, options, server) : open_model(state, options, server);
    if (code == PI2_EXIT_OK) {
        tell_address(state, server);
        const struct timespec moment = {0, 50000000};
        while (!pi2_cli_interrupted()) (void)nanosleep(&moment, NULL);
    }
    pi2_server_stop(server);
    if (code != PI2_EXIT_OK || !state->held.engine) return code;
    const pi2_status status = pi2_engine_finish_trace(state->held.engine);
    return status == PI2_OK ? PI2_EXIT_OK : pi2_cli_failed(status);
}

static int run(serve_state *state, pi2_engine_options *options) {
    const char *reason;
    if (!pi2_http_load(&reason)) {
        return pi2_cli_usage_error("serve: libmicrohttpd cannot be loaded (%s): install it (scripts/setup.sh build)",
                                   reason);
    }
    int code = fill_server(state);
    if (code == PI2_EXIT_OK) code = serve(state, options);
    close_held(&state->held);
    free(state->key_text);
    free(state->certificate);
    free(state->private_key);
    json_decref(state->alias);
    return code;
}
#endif

int pi2_cli_serve(int argument_count, char **arguments) {
    static serve_state state;
    pi2_cli_section sections[2 + PI2_CLI_ANSWER_SECTIONS] = {
        {"Server", serve_options, sizeof serve_options / sizeof serve_options[0], &state.settings},
        {"", unused_options, sizeof unused_options / sizeof unused_options[0], &state.settings}};
    pi2_cli_answer_sections(&state.asked, sections + 2);
    const pi2_cli_command command = {
        "serve", "-m MODEL | --models FOLDER [options]",
        "Answers HTTP requests in the forms of OpenAI's, Anthropic's and Ollama's APIs (docs/server.md), -np of them "
        "at a time; others wait. Samplers given here are those of requests that do not say. Ctrl-C or SIGTERM ends it.",
        sections, sizeof sections / sizeof sections[0]};
    int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code != PI2_CLI_GO_ON) return code;
    code = check_folder(&state);
    if (code != PI2_EXIT_OK) return code;
    if (state.settings.models) state.asked.model.model = state.settings.models; /* each model's file comes here */
    pi2_engine_options options;
    code = pi2_cli_fill_options(&state.asked.model, &state.asked.size, &options);
    if (code != PI2_CLI_GO_ON) return code;
    pi2_cli_fill_trace_options(&state.asked.trace, &options);
    pi2_cli_fill_draft_options(&state.asked.draft, &options);
    options.chat_template_kwargs = state.settings.template_kwargs;
    code = pi2_cli_read_template(state.settings.chat_template, &state.chat_template, &options.chat_template);
    if (code == PI2_EXIT_OK) code = run(&state, &options);
    free(state.chat_template);
    return code;
}
