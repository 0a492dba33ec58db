/*
 * fake_cdsprpc.c: a library in the place of a phone's libcdsprpc.so, whose DSP is the plain C of the device's own end
 * of FastRPC, in the same process. FAKE_CDSPRPC=lost has every call fail, as after a restart of the DSP; =liar has the
 * DSP answer with counts that cannot be.
 */
#include <stdlib.h>
#include <string.h>

#include "backends/hexagon/device/hexagon_kernel.c"
#include "backends/hexagon/device/hexagon_skel.c"

void *rpcmem_alloc(int heap, uint32_t flags, int bytes);
void rpcmem_free(void *memory);
int remote_session_control(uint32_t request, void *data, uint32_t bytes);
int remote_handle64_open(const char *uri, uint64_t *handle);
int remote_handle64_invoke(uint64_t handle, uint32_t scalars, pi2_rpc_argument *arguments);
int remote_handle64_close(uint64_t handle);

void *rpcmem_alloc(int heap, uint32_t flags, int bytes) {
    return heap == 25 && flags == 1 ? aligned_alloc(4096, ((size_t)bytes + 4095) / 4096 * 4096) : NULL;
}

void rpcmem_free(void *memory) { free(memory); }

int remote_session_control(uint32_t request, void *data, uint32_t bytes) {
    return request == 2 && data && bytes == 8 ? 0 : -1;
}

int remote_handle64_open(const char *uri, uint64_t *handle) {
    uint32_t length = (uint32_t)strlen(uri) + 1;
    char name[256];
    if (length > sizeof name || !strstr(uri, "libpi2_skel.so?pi2_skel_handle_invoke&_modver=1.0&_dom=cdsp")) return 1;
    memcpy(name, uri, length);
    pi2_rpc_argument arguments[] = {{.buffer = {&length, sizeof length}}, {.buffer = {name, length}}, {.handle = 0}};
    const int error = pi2_skel_handle_invoke(0, PI2_RPC_SCALARS(PI2_RPC_OPEN, 2, 0, 0, 1), arguments);
    *handle = arguments[2].handle;
    return error;
}

int remote_handle64_invoke(uint64_t handle, uint32_t scalars, pi2_rpc_argument *arguments) {
    const char *mode = getenv("FAKE_CDSPRPC");
    if (mode && strcmp(mode, "lost") == 0) return 0x27; /* the connection was reset */
    const int error = pi2_skel_handle_invoke(handle, scalars, arguments);
    if (mode && strcmp(mode, "liar") == 0) ((pi2_hexagon_answer *)arguments[2].buffer.data)->written++;
    return error;
}

int remote_handle64_close(uint64_t handle) {
    pi2_rpc_argument argument = {.handle = handle};
    return pi2_skel_handle_invoke(handle, PI2_RPC_SCALARS(PI2_RPC_CLOSE, 0, 0, 1, 0), &argument);
}
