"""Metrics with confidence intervals, calibration, baselines and model comparison."""

BASELINES = {
    "tuned_color": "tuned color baseline",
    "joint_histogram": "joint color histogram",
    "histogram": "channel histograms",
    "majority": "largest class",
}
"""Display names of the baselines."""
