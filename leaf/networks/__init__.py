"""Networks: each with its preprocessing inside; build, freeze, save, load and predict."""

from leaf.inference.backbones import is_detector
from leaf.networks.build import build, build_from_params
from leaf.networks.detector import calibrate, is_detector_model
from leaf.networks.kept import frozen_features, kept_features, kept_probabilities
from leaf.networks.prediction import KerasNetwork, features, heatmaps, probabilities
from leaf.networks.saving import load, save
from leaf.networks.summary import Summary, summary
from leaf.networks.transfer import backbone_operations, freeze

__all__ = [
    "KerasNetwork",
    "Summary",
    "backbone_operations",
    "build",
    "build_from_params",
    "calibrate",
    "features",
    "freeze",
    "frozen_features",
    "heatmaps",
    "is_detector",
    "is_detector_model",
    "kept_features",
    "kept_probabilities",
    "load",
    "probabilities",
    "save",
    "summary",
]
