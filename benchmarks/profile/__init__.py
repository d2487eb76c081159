"""A profiler without a GPU: what the CUDA operators launch, move and multiply, and the time a model makes of it.

`tests/ptx` runs what nvcc made of the kernels and counts; here the counts are tabled, extrapolated and held to budgets.
It follows what waits for what in each warp and sees nothing of the libraries' kernels: a counter and a guard, no clock.
"""
