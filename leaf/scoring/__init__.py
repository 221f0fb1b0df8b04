"""Metrics with intervals, calibration, baselines, and comparing runs."""

from leaf.scoring.evaluation import NO_TEST, Evaluation, evaluate

__all__ = ["NO_TEST", "Evaluation", "evaluate"]
