"""Read the data set and write its images as one array with a table."""

from pathlib import Path

from tqdm import tqdm

from leaf.errors import LeafError, one_line_errors, plural
from leaf.experiments import with_commands
from leaf.ingest.ingest import Ingested, ingest, reading_options
from leaf.ingest.masks import read_masks, without_leaf
from leaf.params import read_params
from leaf.store import cache_folder, write_array, write_json, write_table

FOLDER = Path("data/ingested")


def main() -> None:
    """Read the parameters and the data set; write data/ingested/ and metrics/ingest.json."""
    params = read_params("ingest")
    try:
        with tqdm(desc="reading", unit=" images", disable=None) as progress:
            result = ingest(
                params.dataset,
                FOLDER / "images.npy",
                params.classes,
                params.image_size,
                params.unreadable == "skip",
                progress.update,
                aside=cache_folder("ingested"),
                fit=params.fit,
                unlabelled=Path(params.unlabelled),
                unlabelled_path=FOLDER / "unlabelled.npy",
                **reading_options(params),
            )
    except LeafError as error:
        raise with_commands(error, {"dataset": params.dataset}) from None
    sources = result.index["source"].astype(str).tolist()
    masks = read_masks(Path(params.masks), sources, params.image_size, params.fit)
    write_array(masks, FOLDER / "masks.npy")
    for name in ("index", "classes", "unreadable"):
        write_table(getattr(result, name), FOLDER / f"{name}.csv")
    waiting = len(result.unlabelled)
    counts = dict(zip(result.classes["name"], result.classes["images"], strict=True))
    metrics = {"images": len(result.index), "classes": counts}
    write_json({**metrics, "unlabelled": waiting} if waiting else metrics, "metrics/ingest.json")
    print(
        f"read {plural(len(result.index), 'image')} from {params.dataset}: "
        f"{', '.join(f'{count} {name}' for name, count in counts.items())}; "
        f"{params.image_size}×{params.image_size}, {result.dtype}"
    )
    if waiting:
        differ = f" (conflicting labels from several people: {result.conflicts})" if result.conflicts else ""
        print(f"images without a label: {waiting:,}{differ}. Label them with `leaf review --unlabelled`.")
    if len(masks):
        print(f"masks for {plural(int(masks.any(axis=(1, 2)).sum()), 'image')} from {params.masks}")
        if empty := without_leaf(Path(params.masks), sources, masks):
            print(f"masks without a leaf: {len(empty)} (first: {empty[0]!r})")
    _print_remarks(result)


def _print_remarks(result: Ingested) -> None:
    flags = result.index["flags"].str.split().explode().dropna().value_counts(sort=False)
    if len(flags):
        counts = ", ".join(f"{count} {name}" for name, count in flags.items())
        print(f"quality flags: {counts} (column flags of {FOLDER / 'index.csv'})")
    if len(result.unreadable):
        reasons = result.unreadable.groupby("reason", sort=False)["file"].agg(["first", "size"])
        often = reasons.sort_values("size", ascending=False, kind="stable")
        lines = [
            f"{file!r}{f' and {count - 1} more' if count > 1 else ''}: {why}" for why, file, count in often.itertuples()
        ]
        shown = "; ".join([*lines[:6], *(["…"] if len(lines) > 6 else [])])
        print(f"left out {plural(len(result.unreadable), 'file')}: {shown} (full list: {FOLDER / 'unreadable.csv'})")
    for note in result.notes:
        print(note)


if __name__ == "__main__":
    with one_line_errors():
        main()
