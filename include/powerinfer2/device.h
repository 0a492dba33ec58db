/* device.h: devices that can compute beside the processor (pi2_engine_options.devices). */
#ifndef POWERINFER2_DEVICE_H
#define POWERINFER2_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "powerinfer2/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** One that is there. Its texts hold during the call that shows it. */
typedef struct pi2_device_info {
    const char *name;            /* as options name it: "opencl:0" */
    const char *description;     /* of the driver and the device */
    uint64_t memory_bytes;       /* its own, or what it may have of the machine's; 0: unknown */
    bool shares_memory;          /* with the processor: weights are not copied */
    const char *refused;         /* why it cannot be used; NULL: it can, if its bits are the processor's, which is
                                    tried when it is opened */
} pi2_device_info;

/** Shows every device that a driver has; none is no error. Threads: any. */
PI2_API void pi2_device_list(void (*show)(void *user, const pi2_device_info *device), void *user);

#ifdef __cplusplus
}
#endif
#endif
