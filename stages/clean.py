"""Find outliers, copies and crops of the same photo, and decide which images to keep."""

from leaf.clean.clean import clean
from leaf.clean.decisions import COLUMNS, TEXT
from leaf.clean.same_photo import NEIGHBORS
from leaf.edited_tables import read_edited_table
from leaf.errors import LeafError, one_line_errors, plural
from leaf.ingest.source import read_references
from leaf.params import read_params
from leaf.store import read_array, read_classes, read_table, write_json, write_table


def main() -> None:
    """Clean the ingested images; write data/cleaned/ and metrics/clean.json."""
    params = read_params("clean")
    images = read_array("data/ingested/images.npy")
    index = read_table(
        "data/ingested/index.csv",
        ("image", "source", "label", "group", "split", "hash"),
        text=("source", "group", "split", "hash", "file_hash", "flags"),
    )
    if len(index) != len(images):
        raise LeafError(f"data/ingested/index.csv: {len(index)} rows for {len(images)} images. Run `dvc repro ingest`.")
    overrides = read_edited_table("data/overrides.csv", COLUMNS, TEXT)
    named = params.references
    references = named if named == "auto" else read_references(named, images.shape[1], params.fit)

    cleaned = clean(images, index, references, overrides, params, read_classes())

    for name in ("decisions", "distances", "pairs"):
        write_table(getattr(cleaned, name), f"data/cleaned/{name}.csv")
    write_json(cleaned.metrics, "metrics/clean.json")
    for line in cleaned.warnings:
        print(f"warning: {line}")
    if len(overrides):
        applied, missed = cleaned.overrides.applied, len(cleaned.overrides.missed)
        print(f"overrides: {applied} applied, {missed} skipped because the image or class is unknown")
    if params.same_photo:
        aligned = int(cleaned.pairs["kind"].eq("aligned").sum())
        print(
            f"same_photo: {plural(aligned, 'pair')} of crops of the same photo; at most {NEIGHBORS} alignments per "
            "image"
        )
    counts = cleaned.metrics
    print(
        f"clean: {plural(len(images), 'image')}, {plural(counts['outliers'], 'outlier')}, "
        f"{plural(counts['duplicates'], 'duplicate')}, {plural(counts['near_duplicates'], 'near duplicate')}; "
        f"{counts['kept']:,} kept"
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
