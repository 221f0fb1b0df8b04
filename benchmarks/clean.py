"""Compare the clean stage with cleanvision and with the loops of the course report.

The data are 5,200 synthetic images in the course's proportions, including planted copies that were re-saved as JPEG at
quality 75 to 95 or brightened by 2 gray levels. cleanvision finds exact and near duplicates. The loops find exact
duplicates and rank all images by their mean squared error to the references. leaf does both and decides which images to
keep; its time includes the hashes that ingest computes. The rows `clean_cleanvision` and `clean_report` disable
`same_photo`, because neither peer detects crops. `clean_default` uses the default parameters. cleanvision reads image
files; here, they are bitmaps, which are cheap to decode. The loops use a float32 array, as in the course's file.

leaf must find at least as many planted copies as cleanvision, and no other near pairs, in these images and in
leaves_1041.npz if the folder shared/data is next to the project.
"""

import importlib.util
import tempfile
from pathlib import Path

import numpy as np
from images import as_jpeg, clean_images, cleanvision_sets, image_index, write_bitmaps
from measure import arguments, in_turn, peak_memory, report, row

from leaf.clean.clean import Cleaned
from leaf.synthesize import draw_dataset, scaled

# (images, height and width, planted copies, repeats)
SIZES = {"tiny": (100, 32, 10, 1), "bench": (5200, 96, 200, 3), "full": (5200, 96, 200, 7)}
PHOTOGRAPHS = Path(__file__).resolve().parents[2] / "shared" / "data" / "leaves_1041.npz"


def planted(images: np.ndarray, count: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return `images` followed by `count` copies, half re-saved and half brightened by 2, and the pairs of indices."""
    random = np.random.default_rng(1)
    _, distinct = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)
    sources = random.choice(distinct, count, replace=False)
    copies = []
    for place, source in enumerate(sources):
        if place % 2:
            copies.append(np.clip(images[source].astype(int) + 2, 0, 255).astype(np.uint8))
        else:
            copies.append(as_jpeg(images[source], int(random.integers(75, 96))))
    return np.concatenate([images, copies]), [(int(s), len(images) + place) for place, s in enumerate(sources)]


def ours(images: np.ndarray, same_photo: bool = False) -> Cleaned:
    """Run the clean stage, including the hashes that ingest computes."""
    return clean_images(images, image_index(images), same_photo=same_photo)


def by_loops(images: np.ndarray, references: list[int]) -> list[int]:
    """Return exact copies as in the course report: rank all images for each reference, then compare bytes in pairs."""
    for reference in references:
        sorted(float(np.mean((image - images[reference]) ** 2)) for image in images)
    pixels = [image.tobytes() for image in images]
    duplicates = []
    for place, each in enumerate(pixels):
        for earlier in pixels[:place]:
            if each == earlier:
                duplicates.append(place)
                break
    return duplicates


def recall(sets: list[set[int]], pairs: list[tuple[int, int]]) -> float:
    """Return the share of `pairs` whose two images are in the same set."""
    return float(np.mean([any(one in each and other in each for each in sets) for one, other in pairs]))


def check(name: str, images: np.ndarray, pairs: list[tuple[int, int]], compare: bool) -> None:
    """Exit if leaf finds fewer of the planted `pairs` than cleanvision, or a near pair that was not planted."""
    cleaned = ours(images)
    together = cleaned.decisions.groupby("group")["image"].agg(set)
    found = recall([each for each in together if len(each) > 1], pairs)
    near = cleaned.pairs.query("kind == 'near'")
    pixels = [image.tobytes() for image in images]
    known = {frozenset((pixels[one], pixels[other])) for one, other in pairs}
    listed = zip(near["image"], near["other"], strict=True)
    false = sum(frozenset((pixels[one], pixels[other])) not in known for one, other in listed)
    theirs = 0.0
    if compare:
        with tempfile.TemporaryDirectory() as folder:
            write_bitmaps(images, Path(folder))
            theirs = recall(cleanvision_sets(Path(folder)), pairs)
    said = f", cleanvision {theirs:.3f}" if compare else ""
    print(f"clean: {name}: recall of planted copies {found:.3f}{said}; {false} false pairs")
    if found < theirs or false:
        raise SystemExit(f"clean: {name}: leaf found fewer copies than cleanvision, or false pairs")


def main() -> None:
    options = arguments(__doc__)
    count, size, copies, repeats = SIZES[options.size]
    compare = importlib.util.find_spec("cleanvision") is not None
    if not compare:
        print(
            "clean: cleanvision is not installed. To compare with it, run `pip install -r benchmarks/requirements.txt`."
        )
    images, pairs = planted(draw_dataset(scaled(count - copies), size, seed=2023)[0], copies)
    references = [int(each) for each in sorted(set(ours(images).distances["reference"]))]
    loaded = images.astype(np.float32)
    memory = {
        "ours": peak_memory(lambda: ours(images)),
        "other": peak_memory(lambda: by_loops(loaded, references)),
    }
    check("drawn leaves", images, pairs, compare)
    if options.size != "tiny" and PHOTOGRAPHS.exists():
        with np.load(PHOTOGRAPHS, allow_pickle=False) as file:
            check("leaves_1041", *planted(file["data"].astype(np.uint8), copies), compare)
    sides = [lambda: ours(images), lambda: by_loops(loaded, references)]
    with tempfile.TemporaryDirectory() as folder:
        if compare:
            write_bitmaps(images, Path(folder))
            sides += [lambda: ours(images, same_photo=True), lambda: cleanvision_sets(Path(folder))]
        times = in_turn(sides, repeats)
    report(row("clean_report", times[0], times[1], ">= 5", memory), options.record)
    if compare:
        report(row("clean_cleanvision", times[0], times[3], ">= 35"), options.record)
        report(row("clean_default", times[2], times[3], ">= 4"), options.record)


if __name__ == "__main__":
    main()
