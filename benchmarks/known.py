"""Measure how many leaves the out-of-distribution check rejects, and how many other images it accepts.

Run this script in a project after `dvc repro`. The limits were computed from training and validation images, which are
not used here. Leaves are the test images. Cartoons are the outliers that `clean` removed, one per reference. The test
for copies of removed outliers always flags cartoons; the columns for features and pixel statistics show the result for
a cartoon that was not removed. The script generates the other images. The kinds in IN_VIEW were used to choose how many
validation images a limit may reject. The kinds in FRESH and the images in `--leaves FOLDER` (except those in the data
set) were added later and did not affect the choice. The table shows the share flagged by each of the three tests and by
any of them, the latter with Wilson's 95% interval.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from runs import keep_table, table_parser

from leaf.evaluate import out_of_distribution as ood
from leaf.evaluate.out_of_distribution import image_statistics
from leaf.evaluate.statistics import wilson_interval
from leaf.ingest.files import is_image
from leaf.ingest.sandbox import read_image
from leaf.models.prediction import extract_features
from leaf.models.saving import load_model
from leaf.serve.classifier import read_model_files
from leaf.store import read_array, read_table

COUNT = 100  # images per generated kind
OTHERS = 200  # approximate number of images from another data set


def noise(size: int, rng: np.random.Generator) -> Image.Image:
    """Return uniform noise, blurred into patches with probability 0.5."""
    pixels = Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
    if rng.random() < 0.5:
        return pixels
    soft = np.asarray(pixels.filter(ImageFilter.GaussianBlur(rng.uniform(1, 4))), float)
    return Image.fromarray(np.clip((soft - 128) * 4 + 128, 0, 255).astype(np.uint8))


def plain(size: int, rng: np.random.Generator) -> Image.Image:
    """Return an image of one color."""
    return Image.new("RGB", (size, size), _color(rng))


def shapes(size: int, rng: np.random.Generator) -> Image.Image:
    """Draw rectangles, ellipses, triangles and lines."""
    image = plain(size, rng)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(3, 9)):
        low, high = np.sort(rng.integers(0, size, (2, 2)), axis=0)
        box = [*map(int, low), *map(int, high + 3)]
        match rng.integers(4):
            case 0:
                draw.rectangle(box, fill=_color(rng))
            case 1:
                draw.ellipse(box, fill=_color(rng))
            case 2:
                draw.polygon([(int(x), int(y)) for x, y in rng.integers(0, size, (3, 2))], fill=_color(rng))
            case _:
                draw.line(box, fill=_color(rng), width=int(rng.integers(1, 8)))
    return image


def text(size: int, rng: np.random.Generator) -> Image.Image:
    """Draw lines of letters, dark on light or light on dark."""
    ground, ink = ((20, 20, 24), (230, 230, 230)) if rng.random() < 0.5 else ((245, 243, 238), (20, 20, 20))
    image = Image.new("RGB", (size, size), ground)
    draw, height = ImageDraw.Draw(image), int(rng.integers(9, 20))
    letters = list("ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz 0123456789")
    for top in range(4, size, height + 3):
        draw.text((4, top), "".join(rng.choice(letters, 30)), fill=ink, font=ImageFont.load_default(height))
    return image


def faces(size: int, rng: np.random.Generator) -> Image.Image:
    """Draw a face with hair, eyes, nose and mouth."""
    side = 4 * size
    image = plain(side, rng)
    draw = ImageDraw.Draw(image)
    (x, y), radius = side / 2 + rng.normal(0, side / 20, 2), side * rng.uniform(0.28, 0.42)
    skin = np.array([(236, 188, 152), (198, 134, 94), (141, 85, 54), (255, 219, 190)])[rng.integers(4)]

    def ellipse(across: float, down: float, width: float, height: float, fill: np.ndarray | tuple) -> None:
        box = [x + (across - width) * radius, y + (down - height) * radius]
        box += [x + (across + width) * radius, y + (down + height) * radius]
        draw.ellipse(box, fill=tuple(int(value) for value in fill))

    ellipse(0, -0.15, 0.95, 1.15, rng.integers(0, 90, 3))
    ellipse(0, 0.05, 0.8, 1, skin)
    for across in (-0.32, 0.32):
        ellipse(across, -0.15, 0.16, 0.1, (250, 250, 250))
        ellipse(across, -0.15, 0.07, 0.07, rng.integers(0, 120, 3))
    ellipse(0, 0.15, 0.08, 0.16, skin * 0.85)
    ellipse(0, 0.5, 0.3, 0.08, (170, 60, 60))
    return image.resize((size, size), Image.Resampling.LANCZOS)


def temple(size: int, rng: np.random.Generator) -> Image.Image:
    """Crop a photo of a temple by a lake."""
    from sklearn.datasets import load_sample_image

    return _part(load_sample_image("china.jpg"), size, rng)


def flower(size: int, rng: np.random.Generator) -> Image.Image:
    """Crop a photo of a dahlia with petals and some leaves, the most leaf-like of these kinds."""
    from sklearn.datasets import load_sample_image

    return _part(load_sample_image("flower.jpg"), size, rng)


def digit(size: int, rng: np.random.Generator) -> Image.Image:
    """Return a handwritten digit."""
    from sklearn.datasets import load_digits

    drawn = load_digits().images[rng.integers(1797)]
    pixels = Image.fromarray((255 - drawn * 255 / 16).astype(np.uint8))
    return pixels.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)


def stripes(size: int, rng: np.random.Generator) -> Image.Image:
    """Draw soft stripes of two colors at a random angle."""
    y, x = np.mgrid[:size, :size] / size
    angle = rng.uniform(0, np.pi)
    wave = np.sin(rng.uniform(4, 40) * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 6))[..., None] / 2 + 0.5
    pixels = np.array(_color(rng)) * wave + np.array(_color(rng)) * (1 - wave)
    return Image.fromarray(pixels.astype(np.uint8))


def meadow(size: int, rng: np.random.Generator) -> Image.Image:
    """Draw blades of grass under a sky: the colors of a leaf without its shape."""
    image = Image.new("RGB", (size, size), (150, 190, 225))
    draw = ImageDraw.Draw(image)
    for foot in rng.integers(0, size, 150):
        green = tuple(int(value) for value in rng.normal((70, 120, 45), 25).clip(0, 255))
        draw.line([int(foot), size, int(foot + rng.normal(0, size / 8)), int(rng.uniform(0.3, 0.9) * size)], green, 2)
    return image


def _part(photo: np.ndarray, size: int, rng: np.random.Generator) -> Image.Image:
    side = int(rng.integers(96, 400))
    top, left = (int(rng.integers(0, length - side)) for length in photo.shape[:2])
    return Image.fromarray(photo[top : top + side, left : left + side]).resize((size, size), Image.Resampling.BOX)


def _color(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(value) for value in rng.integers(0, 256, 3))


Maker = Callable[[int, np.random.Generator], Image.Image]
IN_VIEW: dict[str, Maker] = {
    "noise": noise,
    "plain colors": plain,
    "drawn shapes": shapes,
    "text": text,
    "drawn faces": faces,
    "photo of a temple": temple,
}
FRESH: dict[str, Maker] = {
    "photo of a flower": flower,
    "handwritten digits": digit,
    "soft stripes": stripes,
    "drawn meadow": meadow,
}


def images_by_kind(size: int, leaves: Path | None) -> dict[str, np.ndarray]:
    """Return test leaves, cartoons and the generated kinds: name to uint8 (N, size, size, 3)."""
    images = read_array("data/ingested/images.npy")
    splits = read_table("data/split/splits.csv", ["image", "split"])
    decisions = read_table("data/cleaned/decisions.csv", ["image", "reason", "reference"], text=["reason", "reference"])
    outliers = decisions[decisions["reason"] == "outlier"].groupby("reference")["image"].first()
    test = images[splits.loc[splits["split"] == "test", "image"].to_numpy()]
    found = {"leaves (test)": test, "cartoons": images[outliers.to_numpy()]}
    for mark, kinds in (("", IN_VIEW), (" *", FRESH)):
        rng = np.random.default_rng(1)
        for name, draw in kinds.items():
            found[name + mark] = np.stack([np.asarray(draw(size, rng)) for _ in range(COUNT)])
    if leaves:
        found["leaves (another set) *"] = other_leaves(leaves, size, images)
    return found


def other_leaves(folder: Path, size: int, images: np.ndarray) -> np.ndarray:
    """Return the images in `folder`, prepared as by ingest, except copies of `images`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and is_image(path))
    if not files:
        raise SystemExit(f"error: --leaves {folder}: contains no images. Pass a folder of images.")
    some = files[:: max(1, len(files) // OTHERS)]
    given = np.stack([read_image(path.read_bytes(), size).pixels for path in some])
    nearest = ood.reference_mse(given, ood.thumbnails(images))
    return given[nearest >= ood.COPY_MSE]


def interval(flagged: int, count: int) -> str:
    """Return the 95% interval of a share, in percent."""
    low, high = wilson_interval(flagged, count)
    return f"{100 * low:.1f}–{100 * high:.1f}%"


def main() -> None:
    parser = table_parser(__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/model.keras"))
    parser.add_argument("--leaves", type=Path, help="a folder of other leaf images")
    options = parser.parse_args()
    beside = read_model_files(options.model)
    network, detector = load_model(options.model, beside.sha256), ood.read(beside.ood, beside.sha256)
    rows = []
    for name, images in images_by_kind(int(network.inputs[0].shape[1]), options.leaves).items():
        features = extract_features(network, images)
        flags = [
            ~detector.features.contains(features),
            ~detector.statistics.contains(image_statistics(images)),
            ood.reference_mse(images, detector.references) < ood.COPY_MSE,
            ~detector.in_distribution(features, images),
        ]
        shares = [f"{100 * flag.mean():.1f}%" for flag in flags]
        rows.append([name, str(len(images)), *shares, interval(int(flags[-1].sum()), len(images))])
    columns = ["images", "count", "by features", "by pixel statistics", "as a copy", "flagged", "95% CI"]
    keep_table("known", columns, rows, options.record)
    print("\n* not used to choose the limits")


if __name__ == "__main__":
    main()
