/*
 * hexagon_fastrpc.c: a phone's DSP by FastRPC, through the vendor's library (libcdsprpc.so), which is loaded when it is
 * asked for. The calls are marshalled by hand; hexagon_skel.c is the other end. A call returns when the DSP has
 * computed, and with an error when the DSP or its protection domain was restarted; one that hangs is restarted by its
 * own watchdog.
 */
#include "backends/hexagon/hexagon_link.h"
#include "backends/hexagon/hexagon_rpc.h"
#include "base/fail.h"

#ifdef PI2_HAVE_FASTRPC
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* Where the DSP's loader finds our end, and that it is asked for the compute DSP. */
#define SKEL_URI "file:///libpi2_skel.so?pi2_skel_handle_invoke&_modver=1.0&_dom=cdsp"
enum { SYSTEM_HEAP = 25, DEFAULT_FLAGS = 1, COMPUTE_DOMAIN = 3, UNSIGNED_MODULE = 2 };

/* What remote_session_control takes to let a module run that nobody has signed. */
typedef struct unsigned_module {
    int domain, enable;
} unsigned_module;

typedef struct rpc {
    void *library;
    uint64_t handle;
    bool is_open, is_lost;
    void *(*alloc)(int heap, uint32_t flags, int bytes);
    void (*free)(void *memory);
    int (*control)(uint32_t request, void *data, uint32_t bytes);
    int (*open)(const char *uri, uint64_t *handle);
    int (*invoke)(uint64_t handle, uint32_t scalars, pi2_rpc_argument *arguments);
    int (*close)(uint64_t handle);
} rpc;

/* A function's address by its name: ISO C has no conversion from what dlsym gives. */
static bool find(rpc *r, const char *name, void *function) {
    void *address = dlsym(r->library, name);
    memcpy(function, &address, sizeof address);
    return address != NULL;
}

static pi2_status load(rpc *r, const char *name) {
    r->library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (r->library == NULL) return pi2_fail(PI2_ERR_UNSUPPORTED, "no Hexagon DSP: %s", dlerror());
    const char *const missing = !find(r, "rpcmem_alloc", &r->alloc)                ? "rpcmem_alloc"
                                : !find(r, "rpcmem_free", &r->free)                ? "rpcmem_free"
                                : !find(r, "remote_handle64_open", &r->open)       ? "remote_handle64_open"
                                : !find(r, "remote_handle64_invoke", &r->invoke)   ? "remote_handle64_invoke"
                                : !find(r, "remote_handle64_close", &r->close)     ? "remote_handle64_close"
                                                                                   : NULL;
    if (missing) return pi2_fail(PI2_ERR_UNSUPPORTED, "no Hexagon DSP: '%s' has no %s", name, missing);
    (void)find(r, "remote_session_control", &r->control); /* older systems have none, and ask for signed modules */
    return PI2_OK;
}

static pi2_status ask(pi2_hexagon_link *link, const pi2_hexagon_request *request) {
    rpc *r = link->state;
    uint32_t written = 0;
    if (r->is_lost) return pi2_fail(PI2_ERR_IO, "the Hexagon DSP was lost");
    PI2_TRY(pi2_hexagon_check_request(link, request, &written));
    pi2_hexagon_request copy = *request;
    pi2_hexagon_answer answer = {0};
    pi2_rpc_argument arguments[] = {{.buffer = {&copy, sizeof copy}},
                                    {.buffer = {link->memory, link->memory_bytes}},
                                    {.buffer = {&answer, sizeof answer}},
                                    {.buffer = {link->memory, link->memory_bytes}}};
    const int error = r->invoke(r->handle, PI2_RPC_SCALARS(PI2_RPC_COMPUTE, 2, 2, 0, 0), arguments);
    if (error == 0 && answer.status == PI2_HEXAGON_DONE && answer.written == written) return PI2_OK;
    r->is_lost = true;
    if (error != 0) return pi2_fail(PI2_ERR_IO, "the Hexagon DSP's call failed with error 0x%x", (unsigned)error);
    return pi2_fail(PI2_ERR_IO, "the Hexagon DSP answers with status %u and %u results where status %d and %u are due",
                    answer.status, answer.written, PI2_HEXAGON_DONE, written);
}

static void close_link(pi2_hexagon_link *link) {
    rpc *r = link->state;
    if (r->is_open) (void)r->close(r->handle);
    if (link->memory) r->free(link->memory);
    if (r->library) (void)dlclose(r->library);
    free(r);
    *link = (pi2_hexagon_link){0};
}

static pi2_status open_link(pi2_hexagon_link *link, const char *library) {
    rpc *r = link->state;
    PI2_TRY(load(r, library));
    unsigned_module module = {.domain = COMPUTE_DOMAIN, .enable = 1};
    /* Where this is refused the module has to be signed, which opening it tells. */
    if (r->control) (void)r->control(UNSIGNED_MODULE, &module, sizeof module);
    char uri[] = SKEL_URI;
    const int error = r->open(uri, &r->handle);
    if (error != 0) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "the Hexagon DSP does not load libpi2_skel.so (error 0x%x): is it in a "
                        "folder that DSP_LIBRARY_PATH or ADSP_LIBRARY_PATH names?", (unsigned)error);
    }
    r->is_open = true;
    link->memory = r->alloc(SYSTEM_HEAP, DEFAULT_FLAGS, (int)link->memory_bytes);
    if (link->memory == NULL) {
        return pi2_fail(PI2_ERR_MEMORY, "no %u bytes to share with the Hexagon DSP", link->memory_bytes);
    }
    const pi2_hexagon_request nothing = {0};
    return ask(link, &nothing);
}

pi2_status pi2_hexagon_open_fastrpc(const char *library, uint32_t memory_bytes, pi2_hexagon_link *link_out) {
    *link_out = (pi2_hexagon_link){0};
    if (memory_bytes <= PI2_HEXAGON_FIRST_AREA || memory_bytes > INT32_MAX) {
        return pi2_fail(PI2_ERR_INVALID, "a Hexagon DSP with %u bytes: it has up to 2 GiB", memory_bytes);
    }
    rpc *r = calloc(1, sizeof *r);
    if (r == NULL) return pi2_fail(PI2_ERR_MEMORY, "no memory for a Hexagon DSP's state");
    *link_out = (pi2_hexagon_link){.memory_bytes = memory_bytes, .state = r, .ask = ask, .close = close_link};
    const pi2_status status = open_link(link_out, library);
    if (status != PI2_OK) close_link(link_out);
    return status;
}

bool pi2_hexagon_has_fastrpc(const char *library) {
    void *loaded = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (loaded) (void)dlclose(loaded);
    return loaded != NULL;
}
#else

bool pi2_hexagon_has_fastrpc(const char *library) {
    (void)library;
    return false;
}

pi2_status pi2_hexagon_open_fastrpc(const char *library, uint32_t memory_bytes, pi2_hexagon_link *link_out) {
    (void)memory_bytes;
    *link_out = (pi2_hexagon_link){0};
    return pi2_fail(PI2_ERR_UNSUPPORTED, "no Hexagon DSP: a static program loads no library such as %s", library);
}
#endif
