"""Clean: find outliers, duplicates and near copies, and decide for each image whether it stays."""

from pathlib import Path

import numpy as np

from leaf.errors import LeafError, one_line_errors
from leaf.params import read_params
from leaf.similarity.cleaning import Settings, clean
from leaf.similarity.rulings import COLUMNS
from leaf.store import read_array, read_table, write_json, write_table

REFERENCES = Path("data/references")


def main() -> None:
    """Read the ingested images and the person's rulings, decide, and write the tables of data/cleaned/."""
    values = vars(read_params("clean"))
    references = values.pop("references")
    images = read_array("data/ingested/images.npy")
    index = read_table(
        "data/ingested/index.csv",
        ("image", "label", "group", "hash"),
        text=("source", "group", "split", "hash", "flags"),
    )
    if len(index) != len(images):
        raise LeafError(f"data/ingested/index.csv: {len(index)} rows for {len(images)} images; run `dvc repro ingest`")
    overrides = read_table("data/overrides.csv", COLUMNS, text=COLUMNS)
    if references != "auto":
        references = [each if isinstance(each, int) else (each, _picture(each, images)) for each in references]

    cleaned = clean(images, index, references, overrides, Settings(**values))

    write_table(cleaned.decisions, "data/cleaned/decisions.csv")
    write_table(cleaned.distances, "data/cleaned/distances.csv")
    write_table(cleaned.pairs, "data/cleaned/pairs.csv")
    write_json(cleaned.metrics, "metrics/clean.json")
    for line in cleaned.warnings:
        print(f"warning: {line}")
    counts = cleaned.metrics
    print(
        f"clean: {len(images)} images, {counts['outliers']} outliers, {counts['duplicates']} duplicates, "
        f"{counts['near_duplicates']} near-duplicates; {counts['kept']} kept"
    )


def _picture(name: str, images: np.ndarray) -> np.ndarray:
    """The reference picture `name`, converted as ingest converts an image file."""
    from leaf.reading.decode import UnreadableError, decode

    path = REFERENCES / name
    if not path.resolve().is_relative_to(REFERENCES.resolve()) or not path.is_file():
        valid = ", ".join(sorted(each.name for each in REFERENCES.glob("[!.]*"))) or "none is there yet"
        raise LeafError(f"references: {path}: no such file in {REFERENCES}; valid: {valid}")
    try:
        return decode(path, images.shape[1])
    except UnreadableError as error:
        raise LeafError(f"references: {path}: {error}; valid: an image file") from None


if __name__ == "__main__":
    with one_line_errors():
        main()
