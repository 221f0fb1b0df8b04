"""The labeling page: rank new images, compute the learning curve, and write data/labels.csv."""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from leaf.errors import LeafError, plural
from leaf.ingest.unlabelled import CONFLICT, RANDOM, read_given
from leaf.review.active_learning import fit_head, learning_curve, select
from leaf.review.app import Changed, Loaded, Number, check_image, serve_pages
from leaf.review.decision_files import LABELS, Row, change, read_rows

MODEL, DIVERSE, CLUSTER = "model", "diverse", "cluster"  # values of `chosen`, besides RANDOM and CONFLICT
BATCH = 200  # number of images in the queue after each ranking
RANDOM_SHARE = 0.2
CLUSTER_SIZE = 24
BURST_SECONDS, BURST_SIMILARITY = 60, 0.9
POINTS = 6  # number of points in the learning curve
WORTHWHILE = 0.005  # minimum accuracy gain from the last third of the labels to recommend more labels


@dataclass
class Labelling:
    """N unlabeled images with their ranking, the labels so far, and the learning curve."""

    folder: Path  # project folder
    classes: Sequence[str]
    images: np.ndarray  # uint8 (N, S, S, 3)
    index: pd.DataFrame  # data/ingested/unlabelled.csv
    features: np.ndarray  # float32 (N, D), from `reduce_features`
    known: tuple[np.ndarray, np.ndarray]  # features (M, D) and labels (M,) of labeled training images
    validation: tuple[np.ndarray, np.ndarray]  # features (V, D) and labels (V,) of labeled validation images
    unlike: np.ndarray  # bool (N,), True for out-of-distribution images
    original: Callable[[int], np.ndarray | None]  # maps an image number to its original, uint8 (H, W, 3)
    who: str  # author of the labels
    run: str  # run that proposes the images
    probabilities: np.ndarray | None = None  # float64 (N, C), None without labels of two classes
    order: list[tuple[int, str]] = field(default_factory=list)  # next images, and how each was chosen
    curve: list[tuple[int, float, float, float]] = field(default_factory=list)  # from `learning_curve`
    version: int = 0
    training: bool = False
    error: str = ""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        hashes = self.index["file_hash"].tolist()
        self._place = {file_hash: place for place, file_hash in enumerate(hashes)}
        self._copies = self.index["hash"].duplicated().to_numpy()
        self._times = pd.to_datetime(self.index["taken"], errors="coerce").to_numpy()
        self.rank()

    def rows(self) -> list[Row]:
        """Return the rows of data/labels.csv that identify an image by its hash."""
        return [row for row in read_rows(self.folder, LABELS) if row["file_hash"]]

    def rank(self) -> None:
        """Fit the classifier to all labels so far, rank the unlabeled images, and update the learning curve."""
        rows = self.rows()
        usable = [row for row in rows if row["file_hash"] in self._place and row["label"] in self.classes]
        usable.sort(key=lambda row: row["date"])
        trained = [row for row in usable if row["chosen"] != RANDOM]
        x, y = self._with(self.known, trained)
        validation = self._with(self.validation, [row for row in usable if row["chosen"] == RANDOM])
        probabilities = None
        if len(np.unique(y)) > 1:
            head = fit_head(x, y)
            probabilities = np.zeros((len(self.features), len(self.classes)))
            probabilities[:, head.classes_] = head.predict_proba(self.features)
        start = len(self.known[1])
        counts = np.unique(np.linspace(0, len(trained), POINTS).astype(int)) + start
        curve = learning_curve(x, y, validation, counts.tolist())
        order = self._order(rows, probabilities)
        with self._lock:
            self.probabilities, self.order, self.version = probabilities, order, self.version + 1
            self.curve = [(count - start, value, low, high) for count, value, low, high in curve]

    def _with(self, start: tuple[np.ndarray, np.ndarray], rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
        """Return the features and labels in `start`, followed by those of `rows`."""
        places = [self._place[row["file_hash"]] for row in rows]
        labels = [list(self.classes).index(row["label"]) for row in rows]
        return np.concatenate([start[0], self.features[places]]), np.concatenate([start[1], labels]).astype(np.int64)

    def _order(self, rows: Sequence[Row], probabilities: np.ndarray | None) -> list[tuple[int, str]]:
        """Return the next images and how each was chosen: one in five at random, the others by `select`."""
        done = {row["file_hash"] for row in rows}
        rest = np.flatnonzero(self._open(done))
        random = np.random.default_rng([len(done), len(rest)])
        sampled = random.permutation(rest)[: round(min(BATCH, len(rest)) * RANDOM_SHARE)]
        chosen = rest[select(self.features[rest], BATCH, None if probabilities is None else probabilities[rest])]
        chosen = chosen[~np.isin(chosen, sampled)][: BATCH - len(sampled)]
        order = [(image, DIVERSE if probabilities is None else MODEL) for image in chosen.tolist()]
        every = round(1 / RANDOM_SHARE)
        for number, image in enumerate(sampled.tolist(), 1):
            order.insert(number * every - 1, (image, RANDOM))
        return order

    def _open(self, done: Collection[str]) -> np.ndarray:
        """Return a mask, bool (N,), of the unlabeled images that are not exact copies of an earlier image."""
        return ~self._copies & ~self.index["file_hash"].isin(done).to_numpy()

    def state(self) -> dict[str, Any]:
        """Return the state of the page: the next images, counts, learning curve and agreement."""
        rows = self.rows()
        with self._lock:
            order, probabilities, curve, version = self.order, self.probabilities, self.curve, self.version
        conflicts = [self._place[each] for each in read_given(self.folder / LABELS)[1] if each in self._place]
        done = {row["file_hash"] for row in rows}
        open_images = [(image, chosen) for image, chosen in order if self.index["file_hash"].iat[image] not in done]
        items = [self._item(image, CONFLICT, None, rows) for image in conflicts]
        items += [
            self._item(image, chosen, probabilities if chosen != RANDOM else None) for image, chosen in open_images
        ]
        labelled = len(done & self._place.keys())
        waiting = int((~self._copies).sum()) - labelled
        if len(open_images) < min(waiting, BATCH // 4):
            self.retrain()
        return {
            "version": version,
            "training": self.training,
            "error": self.error,
            "items": items,
            "waiting": waiting,
            "labelled": labelled,
            "curve": curve,
            "advice": advice(curve),
            "agreement": agreement(rows),
            "conflicts": len(conflicts),
        }

    def _item(
        self, image: int, chosen: str, probabilities: np.ndarray | None, rows: Sequence[Row] = ()
    ) -> dict[str, Any]:
        """Return the data that the page needs for an image, including its predicted class and its labels in `rows`."""
        guess = -1 if probabilities is None else int(probabilities[image].argmax())
        file_hash = self.index["file_hash"].iat[image]
        return {
            "image": image,
            "file": str(self.index["source"].iat[image]),
            "guess": guess,
            "confidence": None if probabilities is None else float(probabilities[image, guess]),
            "chosen": chosen,
            "unlike": bool(self.unlike[image]),
            "labels": [[row["who"], row["label"]] for row in rows if row["file_hash"] == file_hash],
        }

    def similar(self, image: int) -> dict[str, list[int]]:
        """Return unlabeled images similar to `image`: a `cluster` with the same predicted class, and a `burst`.

        The photos in a burst were taken within a minute and probably show the same plant.
        """
        free = self._open({row["file_hash"] for row in self.rows()})
        free[image] = False
        with self._lock:
            probabilities = self.probabilities
        gaps = np.square(self.features - self.features[image]).sum(axis=1)
        guess = probabilities.argmax(axis=1) if probabilities is not None else np.zeros(len(gaps))
        near = np.flatnonzero(free & (guess == guess[image]))
        near = near[np.argsort(gaps[near], kind="stable")[: CLUSTER_SIZE - 1]]
        seconds = np.abs((self._times - self._times[image]) / np.timedelta64(1, "s"))  # nan if a time is unknown
        norms = np.linalg.norm(self.features, axis=1) * np.linalg.norm(self.features[image])
        cosine = self.features @ self.features[image] / np.maximum(norms, 1e-12)
        burst = np.flatnonzero(free & (seconds <= BURST_SECONDS) & (cosine >= BURST_SIMILARITY))
        return {"cluster": near.tolist(), "burst": burst.tolist()[: CLUSTER_SIZE - 1]}

    def label(self, images: Sequence[int], label: str, chosen: str, same_plant: bool = False) -> dict[str, Any]:
        """Write a label for `images`, or "" to exclude them. `same_plant` puts them in one group.

        Return the changed rows. Raises LeafError for an unknown class or image.
        """
        if label and label not in self.classes:
            raise LeafError(
                f'label: {label!r} is not a class. Use {", ".join(self.classes)}, or "" to exclude the image.'
            )
        check_image(self.images, max(images))
        hashes = self.index["file_hash"].iloc[list(images)].tolist()
        row = {
            "label": label,
            "group": f"plant {hashes[0][:12]}" if same_plant else "",
            "split": "",
            "who": self.who,
            "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "run": self.run,
            "chosen": chosen,
        }
        files = self.index["source"].iloc[list(images)].tolist()
        added = [{"file": file, "file_hash": each, **row} for file, each in zip(files, hashes, strict=True)]
        return {"file": LABELS, "added": added, "replaced": change(self.folder, LABELS, self.index, added)}

    def retrain(self) -> None:
        """Run `rank` in the background, unless it is already running."""
        with self._lock:
            if self.training:
                return
            self.training, self.error = True, ""

        def work() -> None:
            try:
                self.rank()
            except (LeafError, OSError, ValueError) as error:
                self.error = str(error)
            finally:
                self.training = False

        threading.Thread(target=work, daemon=True).start()


def advice(curve: Sequence[tuple[int, float, float, float]]) -> str:
    """Describe whether more labels are likely to help. Return "" for a learning curve with fewer than three points."""
    if len(curve) < 3:
        return ""
    last, accuracy, *_ = curve[-1]
    first, before, *_ = next(point for point in reversed(curve) if point[0] <= 2 * last / 3)
    gain, labels = accuracy - before, last - first
    recent = "last label" if labels == 1 else f"last {labels:,} labels"
    if gain < WORTHWHILE:
        return f"The {recent} did not increase the accuracy noticeably. More labels are unlikely to help."
    return f"The {recent} increased the accuracy by {100 * gain:.1f} points. More labels are likely to help."


def agreement(rows: Sequence[Mapping[str, str]]) -> str:
    """Describe the agreement of the two people who share the most labeled images. Return "" if nobody shares any."""
    from sklearn.metrics import cohen_kappa_score

    table = pd.DataFrame(rows, columns=["file_hash", "who", "label", "chosen"])
    labels = table[table["chosen"] != CONFLICT].pivot_table("label", "file_hash", "who", aggfunc="last")
    shared = max((labels[list(pair)].dropna() for pair in combinations(labels, 2)), key=len, default=labels[:0])
    if shared.empty:
        return ""
    (one, first), (other, second) = shared.items()
    kappa = cohen_kappa_score(first, second) if len({*first, *second}) > 1 else 1.0
    agreed = f"{one} and {other} agree on {(first == second).sum()} of {plural(len(shared), 'image')}"
    return f"{agreed} (Cohen's kappa {kappa:.2f})"


class Label(BaseModel):
    """A label for `images`: a class name, or "" to exclude them."""

    model_config = ConfigDict(extra="forbid")
    images: list[Number] = Field(min_length=1, max_length=1000)
    label: str = Field(max_length=500)
    chosen: str = Field(pattern="^(random|model|diverse|cluster|conflict)$")
    same_plant: bool = False


def create_labelling_app(
    labelling: Labelling, token: str, hosts: Collection[str] = ("*",), reload: Callable[[], Labelling] | None = None
) -> FastAPI:
    """Create the web application under `/token/`; for the arguments see `leaf.review.app.create_app`."""
    loaded = Loaded(labelling, reload)
    app, routes = serve_pages("leaf review --unlabelled", "label.html", token, hosts, loaded)

    @routes.get("/api/state")
    def state() -> dict[str, Any]:
        """Return the next images, the counts and the learning curve."""
        current = loaded.value
        return {"run": loaded.run, "classes": list(current.classes), **current.state()}

    @routes.get("/api/similar/{image}")
    def similar(image: int) -> dict[str, list[int]]:
        check_image(loaded.value.images, image)
        return loaded.value.similar(image)

    @routes.post("/api/label")
    def label(given: Label) -> dict[str, Any]:
        return {"changed": loaded.value.label(given.images, given.label, given.chosen, given.same_plant)}

    @routes.post("/api/undo")
    def undo(done: Changed) -> dict[str, Any]:
        """Undo a label and restore the rows it replaced."""
        change(loaded.value.folder, done.file, loaded.value.index, done.replaced, done.added)
        return {}

    @routes.post("/api/retrain")
    def retrain() -> dict[str, Any]:
        """Fit the classifier to all labels and rank the images again, in the background."""
        loaded.value.retrain()
        return {"version": loaded.value.version}

    app.include_router(routes)
    return app
