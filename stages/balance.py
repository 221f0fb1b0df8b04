"""Make the training classes equal with synthetic images."""

import numpy as np

from leaf.errors import one_line_errors
from leaf.params import read_params
from leaf.resampling import interpolate, plan_images
from leaf.splitting import check_synthetic
from leaf.store import new_array, read_array, read_classes, read_table, write_json, write_table


def main() -> None:
    """Read the training split; write data/balanced/ and metrics/balance.json."""
    params = read_params("balance")
    classes = read_classes()
    images = read_array("data/ingested/images.npy")
    decisions = read_table("data/cleaned/decisions.csv", ["image", "label"])
    splits = read_table("data/split/splits.csv", ["image", "split"])
    train = splits[splits["split"].eq("train")].merge(decisions[["image", "label"]], on="image")

    plan = plan_images(
        images,
        train["image"].to_numpy(),
        train["label"].to_numpy(),
        params.balance,
        classes,
        params.smote_neighbors,
        params.split_seed,
    )
    check_synthetic(plan, splits)
    with new_array("data/balanced/images.npy", (len(plan), *images.shape[1:]), images.dtype) as out:
        interpolate(images, plan, out)
    write_table(plan, "data/balanced/index.csv")

    before = np.bincount(train["label"], minlength=2)
    after = before + np.bincount(plan["label"], minlength=2)
    metrics = {
        "healthy_before": before[0],
        "unhealthy_before": before[1],
        "synthetic": len(plan),
        "healthy": after[0],
        "unhealthy": after[1],
    }
    write_json(metrics, "metrics/balance.json")
    first, second = classes
    print(f"{params.balance}: {len(plan)} synthetic images in train")
    print(f"{before[0]} {first} and {before[1]} {second} become {after[0]} and {after[1]}")


if __name__ == "__main__":
    with one_line_errors():
        main()
