"""Metrics with confidence intervals, calibration, baselines and model comparison."""
