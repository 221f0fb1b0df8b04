"""Metrics with intervals, calibration, baselines, and comparing runs."""

from leaf.scoring.evaluation import NO_TEST, Evaluation, check_threshold, evaluate

__all__ = ["NO_TEST", "Evaluation", "check_threshold", "evaluate"]
