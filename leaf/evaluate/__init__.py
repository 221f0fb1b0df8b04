"""Metrics with intervals, calibration, baselines, and comparing runs."""

from leaf.evaluate.evaluation import NO_TEST, Evaluation, evaluate

__all__ = ["NO_TEST", "Evaluation", "evaluate"]
