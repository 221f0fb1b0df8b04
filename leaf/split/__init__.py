"""Split images into train, validation and test, stratified by class and with groups kept together."""

from leaf.split.stratified_split import (
    PIN_COLUMNS,
    PINNED,
    SPLITS,
    add_chosen,
    check_splits,
    check_synthetic,
    draw_keys,
    fold_images,
    pinned_splits,
    shared_groups,
    split_images,
)

__all__ = [
    "PINNED",
    "PIN_COLUMNS",
    "SPLITS",
    "add_chosen",
    "check_splits",
    "check_synthetic",
    "draw_keys",
    "fold_images",
    "pinned_splits",
    "shared_groups",
    "split_images",
]
