"""Stage ingest: read the data set once, write its images as one array and a table about them."""

from tqdm import tqdm

from leaf.errors import one_line_errors
from leaf.params import read_params
from leaf.reading import Ingested, ingest
from leaf.store import write_json, write_table

IMAGES = "data/ingested/images.npy"
INDEX = "data/ingested/index.csv"
UNREADABLE = "data/ingested/unreadable.csv"
METRICS = "metrics/ingest.json"


def main() -> None:
    """Read the parameters and the data set, write images.npy, index.csv, unreadable.csv and metrics/ingest.json."""
    params = read_params("ingest")
    names = (params.classes[0], params.classes[1])
    with tqdm(desc="reading", unit=" images", disable=None) as progress:
        result = ingest(params.dataset, IMAGES, names, params.image_size, params.unreadable == "skip", progress)
    write_table(result.index, INDEX)
    write_table(result.unreadable, UNREADABLE)
    counts = [int((result.index["label"] == label).sum()) for label in (0, 1)]
    write_json({"images": len(result.index), names[0]: counts[0], names[1]: counts[1]}, METRICS)
    side = params.image_size
    print(
        f"read {len(result.index)} images from {params.dataset}: {counts[0]} {names[0]}, {counts[1]} {names[1]}; "
        f"{side}×{side}, {result.dtype}"
    )
    _print_remarks(result)


def _print_remarks(result: Ingested) -> None:
    marks = result.index["flags"].str.split().explode().dropna().value_counts(sort=False)
    if len(marks):
        print("flagged " + ", ".join(f"{count} {name}" for name, count in marks.items()) + " (index.csv names them)")
    if len(result.unreadable):
        shown = "; ".join(f"{row.file!r}: {row.reason}" for row in result.unreadable.head(5).itertuples())
        more = ", …" if len(result.unreadable) > 5 else ""
        print(f"left out {len(result.unreadable)} unreadable: {shown}{more} ({UNREADABLE} names them all)")
    for note in result.notes:
        print(note)


if __name__ == "__main__":
    with one_line_errors():
        main()
