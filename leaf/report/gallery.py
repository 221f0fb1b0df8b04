"""The report's images as embedded thumbnails: errors with heat maps, samples and synthetic images."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from leaf.finished_run import Run, rows
from leaf.models.gradcam import overlay
from leaf.report.svg import share_shown

SIDE = 96  # maximum length of a thumbnail's longer side in pixels
TRIPLES = 6
MANY_CLASSES = 12  # above this, fewer samples of each class are shown
KINDS = {"mistake": 9, "uncertain": 12}  # maximum images shown


@dataclass(frozen=True)
class Photo:
    """A thumbnail: its data URI, alternative text, short caption starting with the image number, and full name."""

    uri: str
    alternative: str
    caption: str
    name: str


class Album:
    """Thumbnails of the ingested images by number, each encoded only once."""

    def __init__(self, run: Run) -> None:
        self._images = run.images
        self._sources = dict(zip(run.index["image"], run.index["source"].astype(str), strict=True))
        self._given = dict(zip(run.index["image"], run.index["label"].astype(int), strict=True))
        self._final = run.labels().to_dict()
        self._names = run.names
        self._photos: dict[int, Photo] = {}

    def label(self, image: int) -> str:
        """Return the display name of image `image`'s class, with the original one if it was changed."""
        given, final = (self._names[labels[image]] for labels in (self._given, self._final))
        return final if given == final else f"{final}, given as {given}"

    def photo(self, image: int) -> Photo:
        """Return the thumbnail of image `image`."""
        image = int(image)
        if image not in self._photos:
            source = self._sources[image]
            caption = f"image\xa0{image}"
            caption += "" if source == str(image) else f" · {shortened(source.rpartition('/')[2])}"
            alternative = f"Image {image}, labelled {self.label(image)}"
            self._photos[image] = Photo(data_uri(self._images[image]), alternative, caption, source)
        return self._photos[image]

    def heated(self, image: int, heat: np.ndarray, shown: str) -> Photo:
        """Return the thumbnail overlaid with the heat map (h, w), 0..1, for the class `shown`."""
        photo = self.photo(image)
        overlaid = overlay(thumbnail(self._images[int(image)]), heat)
        alternative = f"Heat map of image {image} for {shown}, brightest {_place(heat)}"
        return Photo(data_uri(overlaid), alternative, photo.caption, photo.name)


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Resize `pixels` (H, W, 3), 0..255, to a longer side of at most SIDE; return uint8."""
    image = Image.fromarray(np.clip(np.rint(np.asarray(pixels, np.float32)), 0, 255).astype(np.uint8), "RGB")
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image)


def data_uri(pixels: np.ndarray) -> str:
    """Return a WebP data URI of (H, W, 3) pixels, 0..255."""
    buffer = io.BytesIO()
    Image.fromarray(thumbnail(pixels)).save(buffer, "WEBP", quality=82, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def shortened(words: str, letters: int = 18) -> str:
    """Shorten a long name by replacing its middle."""
    if len(words) <= letters:
        return words
    tail = letters // 2 - 1
    return f"{words[: letters - tail - 1]}…{words[-tail:]}"


def _place(heat: np.ndarray) -> str:
    """Describe where the maximum is."""
    row, column = np.unravel_index(int(np.argmax(heat)), heat.shape)
    down = ("at the top", "in the middle", "at the bottom")[min(int(3 * row / heat.shape[0]), 2)]
    across = ("left", "center", "right")[min(int(3 * column / heat.shape[1]), 2)]
    return f"{down}, {across}"


def section(run: Run, album: Album) -> dict[str, Any]:
    """Return, for each kind (mistake, uncertain), cards in gallery.csv order and how many of the total are shown."""
    scored = run.predictions.set_index("image") if len(run.predictions) else run.predictions
    found = {}
    for kind, most in KINDS.items():
        table = run.gallery[(run.gallery["kind"] == kind) & run.gallery["image"].isin(scored.index)]
        cards = [_card(row, scored, run, album) for row in rows(table.head(most))]
        judged = scored[scored["split"].isin(table["split"])] if len(table) else scored
        wrong = int((judged["label"] != judged["predicted"]).sum()) if len(table) else 0
        note = share_shown(len(cards), wrong, "mistakes") if kind == "mistake" else ""
        found[kind] = {"cards": cards, "note": note}
    return found


def _card(row: dict[str, Any], scored: pd.DataFrame, run: Run, album: Album) -> dict[str, Any]:
    entry = scored.loc[row["image"]]
    truth, said = run.names[int(entry["label"])], run.names[int(entry["predicted"])]
    sure = float(entry["probability"])  # the second class's with two classes, otherwise the predicted class's
    if len(run.classes) == 2 and not int(entry["predicted"]):
        sure = 1 - sure
    drawn = [(int(row["row"]), said)]
    if row["kind"] == "mistake":
        table = run.gallery[(run.gallery["kind"] == "runner_up") & (run.gallery["image"] == row["image"])]
        drawn += [(int(each["row"]), run.names[int(each["shown"])]) for each in rows(table)]
    return {
        "photo": album.photo(row["image"]),
        "heated": [
            album.heated(row["image"], run.heatmaps[place], name) for place, name in drawn if place < len(run.heatmaps)
        ],
        "next": drawn[1][1] if len(drawn) > 1 else "",
        "truth": truth,
        "said": said,
        "probability": f"{sure:.0%}",
        "right": truth == said,
        "split": str(row["split"]),
    }


def samples(run: Run, album: Album) -> list[dict[str, Any]]:
    """Return a few evenly spaced kept images of each class."""
    labels = run.labels()[run.kept()]
    many = 6 if len(run.classes) <= MANY_CLASSES else 3
    shown = []
    for label, name in enumerate(run.names):
        images = labels.index[labels == label].to_numpy()
        places = np.unique(np.linspace(0, len(images) - 1, min(many, len(images))).round().astype(int))
        shown.append({"name": name, "photos": [album.photo(image) for image in images[places]], "total": len(images)})
    return shown


def synthetic(run: Run, album: Album) -> dict[str, Any] | None:
    """Return evenly spaced synthetic images, except copies of a parent, with their parents; None if there are none."""
    table = run.synthetic
    if table.empty:
        return None
    blended = table[table["weight"].astype(float).round(2).between(0.05, 0.95)]
    places = np.unique(np.linspace(0, len(blended) - 1, min(TRIPLES, len(blended))).round().astype(int))
    triples = []
    for row in rows(blended.iloc[places]):
        label = run.names[int(row["label"])]
        uri = data_uri(run.synthetic_images[int(row["image"])])
        parent, neighbour, weight = row["parent"], row["neighbour"], row["weight"]
        words = f"Synthetic image {row['image']}, {label}, {weight:.0%} of the way from {parent} to {neighbour}"
        triples.append(
            {
                "photos": [album.photo(parent), Photo(uri, words, f"{weight:.2f}", words), album.photo(neighbour)],
                "words": [parent, f"{weight:.2f}", neighbour],
            }
        )
    return {
        "triples": triples,
        "total": len(table),
        "classes": [run.names[label] for label in sorted(set(table["label"].astype(int)))],
        "note": share_shown(len(triples), len(table), "synthetic images"),
    }
