"""Show images as embedded thumbnails: samples, outliers, copies, synthetic images, and errors with heatmaps."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from PIL import Image

from leaf.errors import plural
from leaf.finished_run import Run
from leaf.models.gradcam import overlay
from leaf.report.charts import both, number, ranking, share_shown

SIDE = 96  # longer side of a thumbnail, in pixels
MANY_CLASSES = 12  # with more classes, fewer samples are shown per class
KINDS = {"mistake": 9, "uncertain": 12}  # maximum number of images shown
REFERENCES, RANKS, SETS, COPIES, PAIRS, DECISIONS, BLENDS = 6, 200, 12, 8, 12, 24, 6  # maximum number of entries shown
Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Photo:
    """A thumbnail: data URI, alternative text, short caption that starts with the image number, and full name."""

    uri: str
    alternative: str
    caption: str
    name: str


class Album:
    """Thumbnails of the ingested images by number. Each is encoded once."""

    def __init__(self, run: Run) -> None:
        self._images, self._names = run.images, run.names
        self._sources, self._given = run.index["source"], run.index["label"]
        self._final = run.labels()
        self._photos: dict[int, Photo] = {}

    def label(self, image: int) -> str:
        """Return the display name of an image's class, and the original class if the label was changed."""
        given, final = (self._names[labels[image]] for labels in (self._given, self._final))
        return final if given == final else f"{final}, originally {given}"

    def photo(self, image: int) -> Photo:
        """Return the thumbnail of an image."""
        if image not in self._photos:
            source = self._sources[image]
            file = source.rpartition("/")[2]
            short = file if len(file) <= 18 else f"{file[:9]}…{file[-8:]}"
            caption = f"image\xa0{image}" + ("" if source == str(image) else f" · {short}")
            alternative = f"Image {image}, labeled {self.label(image)}"
            self._photos[image] = Photo(data_uri(self._images[image]), alternative, caption, source)
        return self._photos[image]

    def heated(self, image: int, heat: np.ndarray, shown: str) -> Photo:
        """Return the thumbnail of an image with the heatmap (h, w), 0..1, of the class `shown` on top."""
        photo, overlaid = self.photo(image), overlay(thumbnail(self._images[image]), heat)
        return replace(photo, uri=data_uri(overlaid), alternative=f"Heatmap of image {image} for {shown}")


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Shrink an image (H, W, 3), 0..255, so that neither side exceeds SIDE; return uint8."""
    image = Image.fromarray(np.clip(np.rint(np.asarray(pixels, np.float32)), 0, 255).astype(np.uint8), "RGB")
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image)


def data_uri(pixels: np.ndarray) -> str:
    """Return the thumbnail of an image (H, W, 3), 0..255, as a WebP data URI."""
    buffer = io.BytesIO()
    Image.fromarray(thumbnail(pixels)).save(buffer, "WEBP", quality=82, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _spread(count: int, most: int) -> np.ndarray:
    """Return at most `most` evenly spaced integers from 0 to count − 1."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


def _first(entries: Sequence[Entry], most: int, what: str, describe: Callable[[Entry], Any]) -> dict[str, Any]:
    """Return the descriptions of the first `most` entries, the total, and a note if entries are omitted."""
    shown = [describe(each) for each in entries[:most]]
    return {"rows": shown, "total": len(entries), "note": share_shown(len(shown), len(entries), what)}


def samples(run: Run, album: Album) -> list[dict[str, Any]]:
    """Return evenly spaced samples of each class's kept images."""
    labels = run.labels()[run.kept()]
    shown = []
    for label, name in enumerate(run.names):
        images = labels.index[labels == label].to_numpy()
        places = _spread(len(images), 6 if len(run.classes) <= MANY_CLASSES else 3)
        shown.append({"name": name, "photos": [album.photo(image) for image in images[places]], "total": len(images)})
    return shown


def flagged(index: pd.DataFrame) -> dict[str, int]:
    """Count the images with each quality flag, such as dark or blurred."""
    counts = index["flags"].str.split().explode().value_counts().sort_index()
    return {str(flag).replace("_", " "): count for flag, count in counts.items()}


def outliers(run: Run, album: Album) -> dict[str, Any] | None:
    """Return each reference with the images ranked by distance from it, or None if there are no references."""
    if run.distances.empty:
        return None
    names = sorted(set(run.distances["reference"]), key=lambda name: (int(name) if name.isdigit() else np.inf, name))
    found = _first(names, REFERENCES, "references", lambda name: _reference(name, run, album))
    return found | {"removed": int((run.decisions["reason"] == "outlier").sum())}


def _reference(name: str, run: Run, album: Album) -> dict[str, Any]:
    table = run.distances[run.distances["reference"] == name].sort_values(["rank", "image"])
    distances, cut = table["distance"].tolist(), int(table["outlier"].sum())
    shown = min(len(distances), RANKS, max(3 * cut, 40))
    counts = np.bincount(run.index["label"][table["image"].iloc[:cut]], minlength=len(run.classes)).tolist()
    removed = [f"{count:,} labeled {label}" for label, count in zip(run.names, counts, strict=True) if count]
    words = f"{plural(cut, 'image')} removed: {', '.join(removed)}" if cut else "no image removed"
    jump = " to ".join(number(each, 0) for each in distances[cut - 1 : cut + 1]) if 0 < cut < len(distances) else ""
    alternative = f"{shown:,} images ranked by distance from reference {name}: {words}."
    return {
        "name": f"Image {name}" if name.isdigit() else name,
        "photo": album.photo(table["image"].iloc[0]),
        "nearest": not name.isdigit(),
        "words": words,
        "jump": jump,
        "figure": both(
            lambda width: ranking(distances[:shown], cut, alternative, min(width, 700)),
            share_shown(shown, len(distances), "ranks"),
        ),
    }


def copies(run: Run, album: Album) -> dict[str, Any]:
    """Return the sets of copies as thumbnails: conflicting labels first, then in descending order of size."""
    kept, conflicting = set(run.kept()), {each[0] for each in run.conflicting_copies()}
    sets = sorted(run.copies(), key=lambda each: (each[0] not in conflicting, -len(each), each[0]))

    def row(each: list[int]) -> dict[str, Any]:
        shown = [
            {"photo": album.photo(image), "label": album.label(image), "kept": image in kept} for image in each[:COPIES]
        ]
        more = len(each) - len(shown)
        return {"photos": shown, "more": more, "images": len(each), "conflicting": each[0] in conflicting}

    removed = int(run.decisions["reason"].isin(["duplicate", "near_duplicate"]).sum())
    return _first(sets, SETS, "sets", row) | {"conflicting": len(conflicting), "removed": removed}


def near(run: Run, album: Album) -> dict[str, Any] | None:
    """Return near-duplicate pairs and pairs that match after alignment, nearest first, or None if there are none."""

    def pairs(kinds: tuple[str, ...], by: str) -> dict[str, Any]:
        found = run.pairs[run.pairs["kind"].isin(kinds)]
        found = found.assign(order=found[by].fillna(found["mse"])).sort_values(["order", "image", "other"])
        return _first(found.to_dict("records"), PAIRS, "pairs", pair)

    def pair(each: dict[Any, Any]) -> dict[str, Any]:
        kind = "rotated or mirrored" if each["kind"] == "turned" else ""
        photos = [album.photo(each["image"]), album.photo(each["other"])]
        return {"photos": photos, "distance": number(float(each["order"]), 1), "kind": kind}

    shown = {"close": pairs(("near", "turned"), "mse"), "aligned": pairs(("aligned",), "aligned_mse")}
    return shown if any(entry["total"] for entry in shown.values()) else None


def decisions(run: Run, album: Album) -> dict[str, Any] | None:
    """Return the images with a manual decision or relabeled by a majority of copies, or None if there are none."""
    given, table = run.index["label"], run.decisions
    chosen = table[table["reason"].isin(["override", "relabelled"]) | (table["label"] != given)]

    def decision(row: dict[Any, Any]) -> dict[str, Any]:
        before, after = run.names[given[row["image"]]], run.names[row["label"]]
        result = "removed" if not row["kept"] else f"relabeled {after}" if before != after else "kept"
        return {"photo": album.photo(row["image"]), "before": before, "result": result}

    return _first(chosen.to_dict("records"), DECISIONS, "images", decision) if len(chosen) else None


def synthetic(run: Run, album: Album) -> dict[str, Any] | None:
    """Return evenly spaced synthetic images with their two parents, or None if there are no synthetic images."""
    table = run.synthetic
    if table.empty:
        return None
    blended = table[table["weight"].round(2).between(0.05, 0.95)]
    triples = []
    for row in blended.iloc[_spread(len(blended), BLENDS)].to_dict("records"):
        image, parent, neighbor, weight = (row[key] for key in ("image", "parent", "neighbour", "weight"))
        way = f"{weight:.0%} of the way from image {parent} to image {neighbor}"
        words = f"Synthetic image {image}, {run.names[row['label']]}, {way}"
        photo = Photo(data_uri(run.synthetic_images[image]), words, f"{weight:.2f}", words)
        photos = [album.photo(parent), photo, album.photo(neighbor)]
        triples.append({"photos": photos, "words": [parent, f"{weight:.2f}", neighbor]})
    return {
        "triples": triples,
        "total": len(table),
        "classes": [run.names[label] for label in sorted(set(table["label"]))],
        "note": share_shown(len(triples), len(table), "synthetic images"),
    }


def section(run: Run, album: Album) -> dict[str, Any]:
    """Return the cards of the misclassified images and of the uncertain ones, in the order of gallery.csv."""
    scored = run.predictions.set_index("image")
    found = {}
    for kind, most in KINDS.items():
        table = run.gallery[run.gallery["kind"] == kind]
        cards = [_card(row, scored.loc[row["image"]], run, album) for row in table.head(most).to_dict("records")]
        judged = scored[scored["split"].isin(table["split"])]
        wrong = int((judged["label"] != judged["predicted"]).sum())
        found[kind] = {"cards": cards, "note": share_shown(len(cards), wrong, "mistakes") if kind == "mistake" else ""}
    return found


def _card(row: dict[Any, Any], scored: "pd.Series[Any]", run: Run, album: Album) -> dict[str, Any]:
    image, kinds = row["image"], [row["kind"]] + ["runner_up"] * (row["kind"] == "mistake")
    maps = run.gallery[(run.gallery["image"] == image) & run.gallery["kind"].isin(kinds)]
    shown = [run.names[label] for label in maps["shown"]]
    # With two classes, this is the probability of the second class, otherwise of the predicted class.
    probability = scored["probability"]
    if len(run.classes) == 2 and not scored["predicted"]:
        probability = 1 - probability
    return {
        "photo": album.photo(image),
        "heated": [album.heated(image, run.heatmaps[at], name) for at, name in zip(maps["row"], shown, strict=True)],
        "next": shown[1] if len(shown) > 1 else "",
        "truth": run.names[scored["label"]],
        "said": run.names[scored["predicted"]],
        "probability": f"{probability:.0%}",
    }
