"""Read the data set and write its images as one array with a table."""

from collections import defaultdict
from pathlib import Path

from tqdm import tqdm

from leaf.errors import LeafError, one_line_errors
from leaf.experiments import with_commands
from leaf.ingest import Ingested, ingest
from leaf.ingest.ingest import reading_options
from leaf.ingest.masks import read_masks, without_leaf
from leaf.params import read_params
from leaf.store import cache_folder, write_array, write_json, write_table

IMAGES = "data/ingested/images.npy"
INDEX = "data/ingested/index.csv"
CLASSES = "data/ingested/classes.csv"
UNREADABLE = "data/ingested/unreadable.csv"
MASKS = "data/ingested/masks.npy"
UNLABELLED = "data/ingested/unlabelled"  # .npy and .csv
METRICS = "metrics/ingest.json"


def main() -> None:
    """Read the parameters and the data set; write data/ingested/ and metrics/ingest.json."""
    params = read_params("ingest")
    skip = params.unreadable == "skip"
    try:
        with tqdm(desc="reading", unit=" images", disable=None) as progress:
            result = ingest(
                params.dataset,
                IMAGES,
                params.classes,
                params.image_size,
                skip,
                progress,
                aside=cache_folder("ingested"),
                fit=params.fit,
                unlabelled=Path(params.unlabelled),
                unlabelled_path=f"{UNLABELLED}.npy",
                **reading_options(params),
            )
    except LeafError as error:
        raise with_commands(error, {"dataset": params.dataset}) from None
    masks = read_masks(Path(params.masks), result.index["source"].astype(str).tolist(), params.image_size, params.fit)
    write_array(masks, MASKS)
    write_table(result.index, INDEX)
    write_table(result.classes, CLASSES)
    write_table(result.unreadable, UNREADABLE)
    waiting = len(result.unlabelled)
    counts = dict(zip(result.classes["name"], result.classes["images"], strict=True))
    metrics = {"images": len(result.index), "classes": counts}
    write_json({**metrics, "unlabelled": waiting} if waiting else metrics, METRICS)
    side = params.image_size
    print(
        f"read {len(result.index)} images from {params.dataset}: "
        f"{', '.join(f'{count} {name}' for name, count in counts.items())}; {side}×{side}, {result.dtype}"
    )
    if waiting:
        differ = f"; people disagree on {result.conflicts}" if result.conflicts else ""
        print(f"{waiting} images have no label{differ}. Label them with `leaf review --unlabelled`.")
    if len(masks):
        print(f"masks for {int(masks.any(axis=(1, 2)).sum())} images from {params.masks}")
        empty = without_leaf(Path(params.masks), result.index["source"].astype(str).tolist(), masks)
        if empty:
            print(f"{len(empty)} masks show no leaf, such as {empty[0]!r}")
    _print_remarks(result)


def _print_remarks(result: Ingested) -> None:
    marks = result.index["flags"].str.split().explode().dropna().value_counts(sort=False)
    if len(marks):
        print("flagged " + ", ".join(f"{count} {name}" for name, count in marks.items()) + " (listed in index.csv)")
    if len(result.unreadable):
        files: dict[str, list[str]] = defaultdict(list)
        for file, why in result.unreadable[["file", "reason"]].to_numpy().tolist():
            files[why].append(file)
        often = sorted(files.items(), key=lambda item: -len(item[1]))
        shown = [
            f"{names[0]!r}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {why}" for why, names in often[:6]
        ]
        more = ["…"] if len(often) > 6 else []
        print(f"left out {len(result.unreadable)}: {'; '.join(shown + more)} ({UNREADABLE} lists all)")
    for note in result.notes:
        print(note)


if __name__ == "__main__":
    with one_line_errors():
        main()
