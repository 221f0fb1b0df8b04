"""Networks: one registry of backbones, each with its preprocessing inside; build, freeze, save, load and ask them."""

from leaf.networks.build import build
from leaf.networks.checkpoint import load, save
from leaf.networks.detector import calibrate, is_detector_model
from leaf.networks.freezing import backbone_operations, freeze
from leaf.networks.heatmaps import heatmaps
from leaf.networks.prediction import features, frozen_features, probabilities
from leaf.networks.registry import is_detector, names
from leaf.networks.summary import Summary, summary

__all__ = [
    "Summary",
    "backbone_operations",
    "build",
    "calibrate",
    "features",
    "freeze",
    "frozen_features",
    "heatmaps",
    "is_detector",
    "is_detector_model",
    "load",
    "names",
    "probabilities",
    "save",
    "summary",
]
