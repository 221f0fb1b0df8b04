"""Scores with intervals, what is chosen on validation, baselines, and comparing runs."""

from leaf.scoring.evaluation import NO_TEST, Evaluation, evaluate
from leaf.scoring.intervals import roc_area, wilson
from leaf.scoring.metrics import measure, predict

__all__ = ["NO_TEST", "Evaluation", "evaluate", "measure", "predict", "roc_area", "wilson"]
