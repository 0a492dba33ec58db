/* device_list.c: the devices, for callers of the library. */
#include "powerinfer2/device.h"

#include "backends/backend.h"

typedef struct shower {
    void (*show)(void *user, const pi2_device_info *device);
    void *user;
} shower;

static void visit(void *user, const pi2_device_facts *facts) {
    const shower *to = user;
    const pi2_device_info info = { .name = facts->name, .description = facts->description,
                                   .memory_bytes = facts->memory_bytes, .shares_memory = facts->shares_memory,
                                   .refused = facts->refused };
    to->show(to->user, &info);
}

void pi2_device_list(void (*show)(void *user, const pi2_device_info *device), void *user) {
    pi2_backend_list(visit, &(shower){ .show = show, .user = user });
}
