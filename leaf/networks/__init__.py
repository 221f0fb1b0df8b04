"""Networks: one registry of backbones, each with its preprocessing inside; build, freeze, save, load and ask them."""

from leaf.networks.building import build
from leaf.networks.detecting import calibrate, is_detector_model
from leaf.networks.freezing import backbone_operations, freeze
from leaf.networks.heatmaps import heatmaps
from leaf.networks.inference import features, frozen_features, probabilities
from leaf.networks.registry import is_detector, names
from leaf.networks.saving import load, save
from leaf.networks.summarizing import Summary, summary

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
