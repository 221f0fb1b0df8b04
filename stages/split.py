"""Split the kept images into train, validation and test."""

from leaf.edited_tables import read_edited_table
from leaf.errors import one_line_errors, plural
from leaf.params import read_params
from leaf.split.stratified_split import (
    PIN_COLUMNS,
    PINNED,
    SPLITS,
    add_chosen,
    check_splits,
    draw_keys,
    fold_images,
    pinned_splits,
    shared_groups,
    split_images,
)
from leaf.store import read_classes, read_table, write_json, write_table


def main() -> None:
    """Read the index and the decisions of `clean`; write data/split/splits.csv and metrics/split.json."""
    params = read_params("split")
    classes = read_classes()
    columns = ["image", "source", "split", "file_hash"]
    index = read_table("data/ingested/index.csv", columns, text=[*columns[1:], "chosen"])
    index = index.reindex(columns=[*columns, "chosen"], fill_value="")
    decisions = read_table("data/cleaned/decisions.csv", ["image", "label", "kept", "group"])
    pins = read_edited_table(PINNED, PIN_COLUMNS)
    leaky = params.grouping == "none"
    everything = decisions[["image", "label", "kept", "group"]].merge(index, on="image")
    if pinned := len(pins) > 0 and not params.folds and not leaky:
        everything["split"] = pinned_splits(everything, pins)
    whole = everything.loc[everything["kept"].eq(1), ["image", "group"]]
    if leaky:
        everything["group"] = everything["image"]
    everything["key"] = draw_keys(everything["group"], everything["file_hash"], params.split_seed)
    kept = everything[everything["kept"].eq(1)]
    drawn = kept["chosen"].isin(["", "random"])
    images, chosen = kept[drawn], kept[~drawn]

    if params.folds:
        splits = fold_images(images, params.folds, params.fold, params.validation_size, params.split_seed, classes)
    else:
        splits = split_images(images, params.validation_size, params.test_size, classes)
    splits = add_chosen(splits, images, chosen)
    check_splits(splits, decisions, leaky)

    counts = {name: int(splits["split"].eq(name).sum()) for name in SPLITS}
    shared = len(shared_groups(splits, whole))
    write_table(splits, "data/split/splits.csv")
    write_json({**counts, "shared_groups": shared}, "metrics/split.json")
    print(", ".join(f"{plural(number, 'image')} in {name}" for name, number in counts.items()))
    print(f"{plural(whole['group'].nunique(), 'group')}, {shared} shared between splits")
    if len(pins):
        there = pins["file_hash"].isin(everything["file_hash"]).sum()
        kept_pins = f"{there} of {len(pins)} found in the data set and kept in their split"
        print(f"pinned images: {kept_pins if pinned else 'not used with folds or with grouping set to none'}")
    if leaky:
        print(f"warning: grouping is none, so scores can be optimistic; groups shared between splits: {shared}")


if __name__ == "__main__":
    with one_line_errors():
        main()
