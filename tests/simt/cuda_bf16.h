// Stands in for CUDA's header of this name where a host compiler compiles the kernels.
#pragma once
#include "simt.h"
