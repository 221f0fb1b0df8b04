"""Compare ingest, without quality flags, with a NumPy load and cast (.npz) and a Pillow loop (folder).

Ingesting a folder after one file was added is compared with decoding the whole folder again. Each side writes the
images as one uint8 array; leaf also hashes every image and reads the labels. Memory is the additional peak memory of a
call, including the mapped pages of the array it writes.
"""

import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
from measure import alternate, arguments, peak_memory, report, row
from PIL import Image, ImageOps

from leaf.ingest import ingest as ingest_module
from leaf.ingest.ingest import ingest
from leaf.synthesize import draw_leaf

# (images, height and width in the npz, files, their shorter side, repeats)
SIZES = {"tiny": (40, 32, 40, 64, 1), "bench": (5200, 96, 2000, 256, 5), "full": (5200, 96, 20_000, 256, 5)}
CLASSES = ("healthy", "unhealthy")
SIDE = 96


def write_npz(path: Path, count: int, size: int) -> None:
    """Write an uncompressed float32 file in the course's format, with labels that need no unpickling."""
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.float32)
    np.savez(path, data=images, labels=np.array(CLASSES)[np.arange(count) % 2])


def write_folder(folder: Path, count: int, side: int) -> None:
    """Write JPEG images in landscape format, in one subfolder per class."""
    leaves = [Image.fromarray(draw_leaf(np.random.default_rng(k), side, True)) for k in range(8)]
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for number in range(count):
        leaf = leaves[number % len(leaves)].resize((side * 4 // 3, side))
        leaf.save(folder / CLASSES[number % 2] / f"{number:06}.jpg", quality=85)


def main() -> None:
    options = arguments(__doc__)
    count, size, files, side, repeats = SIZES[options.size]
    with (
        tempfile.TemporaryDirectory() as name,
        patch.object(ingest_module, "quality_flags", lambda images: [""] * len(images)),
    ):
        folder = Path(name)
        npz, photographs, ours_at, other_at = (folder / x for x in ("leaves.npz", "photographs", "a.npy", "b.npy"))
        write_npz(npz, count, size)
        write_folder(photographs, files, side)

        def plain_npz() -> None:
            with np.load(npz) as file:
                np.save(other_at, file["data"].astype(np.uint8))

        def plain_folder() -> None:
            images = []
            for path in sorted(photographs.rglob("*.jpg")):
                with Image.open(path) as image:
                    images.append(np.asarray(ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.BOX)))
            np.save(other_at, np.stack(images))

        for row_name, dataset, shape, plain, target in (
            ("ingest_npz", npz, size, plain_npz, ">= 1"),
            ("ingest_folder", photographs, SIDE, plain_folder, ">= 2.2"),
        ):

            def ours(dataset: Path = dataset, shape: int = shape) -> None:
                ingest(dataset, ours_at, CLASSES, shape)

            memory = {"ours": peak_memory(ours), "other": peak_memory(plain)}
            report(row(row_name, *alternate(ours, plain, repeats), target, memory), options.record)

        def grown() -> None:
            file = photographs / CLASSES[0] / "000000.jpg"
            new = np.random.default_rng().bytes(8)  # appended bytes change the file but not its image
            (photographs / CLASSES[0] / f"new_{new.hex()}.jpg").write_bytes(file.read_bytes() + new)
            ingest(photographs, ours_at, CLASSES, SIDE, aside=folder / "aside")

        grown()
        report(row("ingest_grown", *alternate(grown, ours, repeats), ">= 6"), options.record)


if __name__ == "__main__":
    main()
