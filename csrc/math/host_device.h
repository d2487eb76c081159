// One annotation for functions that the C++ and the CUDA back end share.
#pragma once

#ifdef __CUDACC__
#define ISE_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define ISE_HOST_DEVICE inline
#endif
