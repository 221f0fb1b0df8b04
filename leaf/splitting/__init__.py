"""Train, validation and test: stratified, each group of images whole in one of them."""

from leaf.splitting.assign import SPLITS, split_images
from leaf.splitting.checks import check_splits, check_synthetic, shared_groups
from leaf.splitting.clustering import cluster_groups
from leaf.splitting.folds import fold_images

__all__ = [
    "SPLITS",
    "check_splits",
    "check_synthetic",
    "cluster_groups",
    "fold_images",
    "shared_groups",
    "split_images",
]
