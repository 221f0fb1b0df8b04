"""Balance the training classes with synthetic images."""

import numpy as np

from leaf.balance import interpolate, missing_images, plan_images
from leaf.errors import LeafError, one_line_errors, plural
from leaf.params import read_params
from leaf.split.stratified_split import check_synthetic
from leaf.store import new_array, read_array, read_classes, read_table, write_json, write_table


def main() -> None:
    """Read the training split; write data/balanced/ and metrics/balance.json."""
    params = read_params("balance")
    classes = read_classes()
    images = read_array("data/ingested/images.npy")
    decisions = read_table("data/cleaned/decisions.csv", ["image", "label"])
    splits = read_table("data/split/splits.csv", ["image", "split"])
    train = splits[splits["split"].eq("train")].merge(decisions[["image", "label"]], on="image")
    numbers, labels = train["image"].to_numpy(), train["label"].to_numpy()

    missing = int(missing_images(labels, len(classes), params.balance).sum())
    size = missing * images[0].nbytes / 1e9
    print(f"{params.balance}: {plural(missing, 'synthetic image')} in train, {size:.2f} GB", flush=True)
    if size > params.balance_limit_gb:
        raise LeafError(
            f"balance_limit_gb: {missing} synthetic images require {size:.1f} GB; the limit is "
            f"{params.balance_limit_gb:g} GB. "
            "Increase the limit, or set balance to class_weight, which creates none."
        )
    plan = plan_images(images, numbers, labels, params.balance, classes, params.smote_neighbors, params.split_seed)
    check_synthetic(plan, splits)
    with new_array("data/balanced/images.npy", (len(plan), *images.shape[1:]), images.dtype) as out:
        interpolate(images, plan, out)
    write_table(plan, "data/balanced/index.csv")

    before = np.bincount(labels, minlength=len(classes))
    after = before + np.bincount(plan["label"], minlength=len(classes))
    counts = {key: dict(zip(classes, value, strict=True)) for key, value in (("before", before), ("after", after))}
    write_json({**counts, "synthetic": len(plan)}, "metrics/balance.json")
    print("; ".join(f"{name} {old} → {new}" for name, old, new in zip(classes, before, after, strict=True)))


if __name__ == "__main__":
    with one_line_errors():
        main()
