// Formulas in this folder are written once and compiled for the host and for the device.
#pragma once

#if defined(__CUDACC__)
#define GECO_HD __host__ __device__ __forceinline__
#else
#define GECO_HD inline __attribute__((always_inline))
#endif
