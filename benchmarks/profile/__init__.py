"""A profiler without a GPU: what the CUDA operators launch, move and multiply, and the time a model makes of it.

`tests/ptx` runs what nvcc made of the kernels and counts; here the counts are tabled, extrapolated and held to budgets.
It sees no latency, no occupancy, no cache, and nothing of the libraries' kernels: a counter and a guard, no clock.
"""
