"""Trainer, evaluator and what a run leaves behind."""
