"""Fused C++/CUDA operators and training for unsupervised re-identification with ISE and Cluster Contrast."""
