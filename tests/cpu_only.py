"""Operators on a part of the rows, which run on the CPU wherever their tensors are (ise_fast/ops/shards.py)."""

ON_CPU = {
    "pattern_products", "softmax_rows", "reciprocal_bits", "expanded_sets", "average_rows", "jaccard_pairs",
    "radius_pairs", "unite_",
}  # fmt: skip
