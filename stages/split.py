"""Part the kept images into train, validation and test."""

from leaf.errors import one_line_errors
from leaf.params import read_params
from leaf.splitting import SPLITS, check_splits, fold_images, shared_groups, split_images
from leaf.store import read_classes, read_table, write_json, write_table


def main() -> None:
    """Read the index and clean's decisions; write data/split/splits.csv and metrics/split.json."""
    params = read_params("split")
    classes = read_classes()
    index = read_table("data/ingested/index.csv", ["image", "source", "split"], text=["source", "split"])
    decisions = read_table("data/cleaned/decisions.csv", ["image", "label", "kept", "group"])
    images = decisions[decisions["kept"].eq(1)].merge(index[["image", "split"]], on="image")
    groups = images["group"].nunique()
    whole = images[["image", "group"]].copy()
    leaky = params.grouping == "none"
    if leaky:
        images["group"] = images["image"]
    images["origin"] = index.set_index("image")["source"].loc[images["group"]].to_numpy()

    if params.folds:
        splits = fold_images(images, params.folds, params.fold, params.validation_size, params.split_seed, classes)
    else:
        splits = split_images(images, params.validation_size, params.test_size, params.split_seed, classes)
    check_splits(splits, decisions, leaky)

    counts = {name: int(splits["split"].eq(name).sum()) for name in SPLITS}
    shared = len(shared_groups(splits, whole))
    write_table(splits, "data/split/splits.csv")
    write_json({**counts, "shared_groups": shared}, "metrics/split.json")
    print(", ".join(f"{number} images in {name}" for name, number in counts.items()))
    print(f"{groups} groups, {shared} shared between splits")
    if leaky:
        print(f"warning: grouping: none: {shared} groups are shared between splits on purpose; scores are too high")


if __name__ == "__main__":
    with one_line_errors():
        main()
