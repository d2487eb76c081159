"""The published way of doing it, written here from its description: Python loops over rows and dense N x N matrices.

These are what the operators are compared with, not something to use. The tests hold them to the golden numbers.
"""
