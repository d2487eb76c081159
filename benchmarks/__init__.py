"""Benchmarks of ise_fast: `python -m benchmarks`."""
