"""A fuzzer of the operators: valid arguments, changes of them, and what must hold whatever came of it.

`python -m fuzzing raw knn --seed 7` (in tests/) repeats one case, `--cases 5000` runs many; tests/ops/test_fuzz.py runs
a few hundred of every operator.
"""
