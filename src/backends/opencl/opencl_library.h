/* opencl_library.h: the functions of OpenCL 1.2, found in the system's loader when a device is asked for. */
#ifndef PI2_BACKENDS_OPENCL_OPENCL_LIBRARY_H
#define PI2_BACKENDS_OPENCL_OPENCL_LIBRARY_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdbool.h>

#define PI2_OPENCL_FUNCTIONS(X)                                                                              \
    X(GetPlatformIDs) X(GetPlatformInfo) X(GetDeviceIDs) X(GetDeviceInfo) X(CreateContext) X(ReleaseContext) \
    X(CreateCommandQueue) X(ReleaseCommandQueue) X(CreateProgramWithSource) X(CreateProgramWithBinary)       \
    X(BuildProgram) X(GetProgramBuildInfo) X(GetProgramInfo) X(ReleaseProgram) X(CreateKernel)               \
    X(ReleaseKernel) X(SetKernelArg) X(GetKernelWorkGroupInfo) X(CreateBuffer) X(ReleaseMemObject)           \
    X(EnqueueWriteBuffer) X(EnqueueReadBuffer) X(EnqueueNDRangeKernel) X(Flush) X(SetEventCallback)          \
    X(GetEventInfo) X(ReleaseEvent)

typedef struct pi2_opencl_library {
#define PI2_OPENCL_MEMBER(name) __typeof__(&cl##name) name;
    PI2_OPENCL_FUNCTIONS(PI2_OPENCL_MEMBER)
#undef PI2_OPENCL_MEMBER
} pi2_opencl_library;

/** NULL: there is no loader, or it lacks a function. It stays loaded. Threads: any. */
const pi2_opencl_library *pi2_opencl_load(void);

#endif
