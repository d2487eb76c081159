"""Benchmarks of ise_fast: `python -m benchmarks`. Fused against reference, published way, peers and the floor."""
